// Builds everything that a clone lacks: the ONNX Runtime library, the addon beside it, and the JavaScript in dist/.
//
//   node scripts/build.mjs [--debug | --dist]                     --dist: as it is packed, smaller and slower to build
//   node scripts/build.mjs --target aarch64-unknown-linux-gnu     the addon for another platform, with its library
//   … --built                                                     takes what cargo has built already (in a container, say)

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { SBOM, platformOf, root } from './platforms.mjs';
import { sbom } from './sbom.mjs';

const { debug, dist, built, target } = parseArgs({
  options: { debug: { type: 'boolean' }, dist: { type: 'boolean' }, built: { type: 'boolean' }, target: { type: 'string' } },
}).values;
const profile = debug ? 'dev' : dist ? 'dist' : 'release';

/** Runs a command that says itself what goes wrong. */
function run(command, args, env = {}) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  if (error) console.error(`${command} could not be started: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}

/** What cargo must be told to build for another platform. */
function crossing({ os, cpu, libc }) {
  const name = target.toUpperCase().replaceAll('-', '_');
  const env = {};
  // Debian's cross compiler; whoever has another one sets the variable.
  const linker = `CARGO_TARGET_${name}_LINKER`;
  if (libc === 'glibc' && cpu === 'arm64' && process.arch !== 'arm64' && !process.env[linker]) env[linker] = 'aarch64-linux-gnu-gcc';
  // Node.js on Alpine is linked to musl dynamically, so the addon has to be as well.
  if (os === 'linux' && libc === 'musl') env[`CARGO_TARGET_${name}_RUSTFLAGS`] = '-C target-feature=-crt-static';
  return env;
}

const platform = platformOf(target);
const { name, folder, addon } = platform;
run(process.platform === 'win32' ? 'python' : 'python3', [join('scripts', 'fetch_onnxruntime.py'), '--target', platform.target]);
const options = ['--features', 'napi', '--profile', profile, ...(target ? ['--target', target] : [])];
if (!built) run('cargo', ['build', ...options], target ? crossing(platform) : {});
mkdirSync(folder, { recursive: true });
// Renamed into place: a running process keeps the old file instead of crashing on a changed one.
copyFileSync(join(resolve(root, process.env.CARGO_TARGET_DIR ?? 'target'), target ?? '', debug ? 'debug' : profile, platform.built), join(folder, `${addon}.part`));
renameSync(join(folder, `${addon}.part`), join(folder, addon));
for (const [from, to] of [['LICENSE', 'LICENSE'], [join('npm', 'THIRD-PARTY-NOTICES.txt'), 'THIRD-PARTY-NOTICES.txt']]) {
  copyFileSync(join(root, from), join(folder, to));
}
writeFileSync(join(folder, SBOM), `${JSON.stringify(sbom(platform), null, 2)}\n`);
if (!target) {
  // Comments are for readers of lib/; those for users are in index.d.ts.
  run(process.execPath, [join('node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.json', '--removeComments', '--incremental', '--tsBuildInfoFile', join('dist', '.tsbuildinfo')]);
  run(process.execPath, [join('scripts', 'page.mjs')]);
}
console.log(target ? `Built npm/${name}` : `Built npm/${name} and dist/`);
