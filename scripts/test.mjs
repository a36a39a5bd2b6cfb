// Builds, then runs the tests of the core beside those of the JavaScript surface and, with --interfaces, those of the interfaces of
// others: each waits for a while that the others can compute in. What the tests of the surface print is shown as it comes, what
// the others print once they have ended.

import { spawn, spawnSync } from 'node:child_process';

import { root } from './platforms.mjs';

const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';

/** Runs a command; resolves with its exit status. */
function run(command, args, stdio) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio, shell: process.platform === 'win32' });
    const output = [];
    child.stdout?.on('data', (chunk) => output.push(chunk));
    child.stderr?.on('data', (chunk) => output.push(chunk));
    child.on('error', (error) => resolve({ status: 1, output: [Buffer.from(`${command} could not be started: ${error.message}\n`)] }));
    child.on('close', (status) => resolve({ status: status ?? 1, output }));
  });
}

const built = spawnSync(npm, ['run', 'build'], { cwd: root, stdio: 'inherit', shell: process.platform === 'win32' });
if (built.status !== 0) process.exit(built.status ?? 1);

// nextest, where it is installed, runs the tests of all binaries side by side.
const nextest = spawnSync('cargo', ['nextest', '--version']).status === 0;
const cargo = nextest ? ['nextest', 'run', '--cargo-profile', 'core', '--status-level', 'fail'] : ['test', '--profile', 'core'];
/** The same, shown when it has ended. */
const quietly = (command, args) =>
  run(command, args, ['ignore', 'pipe', 'pipe']).then(({ status, output }) => {
    console.log(`\n> ${command} ${args.join(' ')}\n`);
    for (const chunk of output) process.stdout.write(chunk);
    return status;
  });
const tests = {
  core: quietly('cargo', cargo),
  ...(process.argv.includes('--interfaces') && { interfaces: quietly(npm, ['run', 'test:interfaces']) }),
  surface: run(npm, ['run', 'test:js'], 'inherit').then(({ status }) => status),
};
for (const [name, status] of Object.entries(tests)) {
  if (!(await status)) continue;
  console.error(`Tests of the ${name} failed: see above.`);
  process.exitCode = 1;
}
