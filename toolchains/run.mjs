// Tries the packed package, installed as users install it, with the tools that they use.
//
//   node toolchains/run.mjs [PATTERN]   tries all, or those whose name matches
//   node toolchains/run.mjs --measure   measures event loop and memory in each runtime instead
//   --keep                             leaves the projects where they are

import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..');
const tools = join(here, 'node_modules');
const only = new RegExp(process.argv.slice(2).find((argument) => !argument.startsWith('--')) ?? '', 'i');
const measuring = process.argv.includes('--measure');

const place = mkdtempSync(join(tmpdir(), 'embedcore-toolchains-'));
const project = join(place, 'project');

/** A check that cannot be made here, and why. */
class Skip extends Error {}

const children = new Set();

/** Runs a program to its end. */
function run(command, args, { cwd = project, env = {}, limit = 180_000 } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined, CI: '1', NODE_OPTIONS: undefined, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      // A group of its own, so that what it has started ends with it.
      detached: true,
    });
    children.add(child);
    const said = { out: '', err: '' };
    child.stdout.on('data', (data) => (said.out += data));
    child.stderr.on('data', (data) => (said.err += data));
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      end(child);
    }, limit);
    const done = (code) => {
      clearTimeout(timer);
      children.delete(child);
      resolve({ code: late ? `still running after ${limit / 1000} s` : code, ...said, command: [command, ...args].join(' ') });
    };
    child.on('error', (error) => done(error.message));
    child.on('close', (code, signal) => done(signal ?? code));
  });
}

function end(child) {
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

process.on('exit', () => {
  for (const child of children) end(child);
  if (process.argv.includes('--keep')) console.log(`The projects are in ${place}`);
  else rmSync(place, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

const shown = ({ command, code, out, err }) => `${command}\nended with ${code}\n${(out + err).slice(-6000)}`;

/** Refuses another exit code than expected. */
async function ends(expected, command, args, options) {
  const result = await run(command, args, options);
  if (result.code !== expected) throw new Error(shown(result));
  return result;
}

/** Refuses another exit code, and anything that is printed. */
async function endsQuietly(expected, command, args, options) {
  const result = await ends(expected, command, args, options);
  if (result.out !== '' || result.err !== '') throw new Error(`Something was printed:\n${shown(result)}`);
}

/** A program works, ends by itself, and ends in the middle of its work. */
async function works(command, args, options) {
  await endsQuietly(0, command, args, options);
  await endsQuietly(0, command, [...args, 'leave'], options);
  for (let i = 0; i < 2; i++) await endsQuietly(7, command, [...args, 'exit'], options);
}

const node = process.execPath;

/** The program of a tool, which is skipped where it could not be installed. */
function tool(...path) {
  const file = join(tools, ...path);
  if (existsSync(file)) return file;
  throw new Skip(`${path.slice(0, 2).join('/')} is not installed here`);
}

const copied = new Set();

/** A project of its own inside the one that has embedcore, made of a folder here and the common programs. */
function made(name, files = {}) {
  const folder = join(project, name);
  // Once: a check that runs meanwhile would find its files gone while they are copied again.
  if (!copied.has(name)) {
    copied.add(name);
    mkdirSync(folder, { recursive: true });
    if (existsSync(join(here, name))) cpSync(join(here, name), folder, { recursive: true });
    cpSync(join(here, 'programs'), folder, { recursive: true });
  }
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), typeof text === 'string' ? text : JSON.stringify(text));
  }
  return folder;
}

/** Installs the tools, packs the package and installs it in an empty project. */
async function prepare() {
  const lock = join(here, 'package-lock.json');
  const installed = join(tools, '.package-lock.json');
  if (!existsSync(installed) || statSync(installed).mtimeMs < statSync(lock).mtimeMs) {
    // Not `npm ci`: it wants the lock to name the optional packages of all platforms, which not every registry lists.
    await ends(0, 'npm', ['install', '--no-save', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline'], { cwd: here, limit: 600_000 });
  }
  const platforms = readdirSync(join(root, 'npm')).filter((name) => existsSync(join(root, 'npm', name, `embedcore.${name}.node`)));
  const folders = [root, ...platforms.map((name) => join(root, 'npm', name))];
  for (const folder of folders) await ends(0, 'npm', ['pack', folder, '--ignore-scripts', '--pack-destination', place], { cwd: place });
  const tarballs = Object.fromEntries(
    folders.map((folder) => {
      const { name, version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
      return [name, join(place, `${name}-${version}.tgz`)];
    }),
  );
  symlinkSync(tools, join(place, 'node_modules'));
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'project', private: true }));
  await ends(0, 'npm', ['install', ...Object.values(tarballs), '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline']);
  return tarballs;
}

/** The programs that run as they are, in each runtime: name, command, arguments. */
function runtimes() {
  const folder = made('programs');
  const all = [
    ['Node.js, ES module', () => [node, ['main.mjs']]],
    ['Node.js, named imports', () => [node, ['named.mjs']], { measured: false }],
    ['Node.js, CommonJS', () => [node, ['main.cjs']]],
    ['Node.js, worker_threads', () => [node, ['worker.mjs']], { measured: false }],
    ['Node.js 24, TypeScript without a tool', () => [tool('node-24', 'bin', 'node'), ['--experimental-strip-types', '--no-warnings', 'main.mts']]],
    ['tsx', () => [node, [tool('tsx', 'dist', 'cli.mjs'), 'main.mts']]],
    ['Bun', () => [tool('@oven', `bun-${process.platform}-${process.arch}`, 'bin', 'bun'), ['main.mts']]],
    ['Bun, CommonJS', () => [tool('@oven', `bun-${process.platform}-${process.arch}`, 'bin', 'bun'), ['main.cjs']], { measured: false }],
    ['Bun, worker_threads', () => [tool('@oven', `bun-${process.platform}-${process.arch}`, 'bin', 'bun'), ['worker.mjs']], { measured: false }],
    ['Deno', () => [tool('@deno', `${process.platform}-${process.arch}-glibc`, 'deno'), ['run', '-A', '--quiet', '--node-modules-dir=manual', 'main.mjs']]],
    ['Deno, worker_threads', () => [tool('@deno', `${process.platform}-${process.arch}-glibc`, 'deno'), ['run', '-A', '--quiet', '--node-modules-dir=manual', 'worker.mjs']], { measured: false }],
  ];
  return all.map(([name, command, options = {}]) => ({ name, command, folder, ...options }));
}

async function checks(tarballs) {
  const all = runtimes().map(({ name, command, folder }) => [name, () => works(...command(), { cwd: folder })]);
  all.push([
    'Node.js, child_process and cluster',
    async () => {
      for (const [code, way] of [[0, 'check'], [7, 'exit']]) await endsQuietly(code, node, ['processes.mjs', way], { cwd: made('programs') });
    },
  ]);
  for (const file of readdirSync(join(here, 'checks')).sort()) {
    const { default: more } = await import(join(here, 'checks', file));
    all.push(...more({ Skip, ends, endsQuietly, made, node, place, project, root, run, shown, tarballs, tool, tools, works }));
  }
  return all;
}

const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;

async function attempt([name, check]) {
  const since = performance.now();
  try {
    await check();
    console.log(`ok      ${name} (${seconds(since)})`);
  } catch (error) {
    if (error instanceof Skip) return void console.log(`skipped ${name}: ${error.message}`);
    process.exitCode = 1;
    console.log(`FAILED  ${name} (${seconds(since)})\n${String(error.message).replace(/^/gm, '        ')}`);
  }
}

const started = performance.now();
const tarballs = await prepare();
console.log(`ready   tools and package installed (${seconds(started)})`);
if (measuring) {
  for (const { name, command, folder, measured = true } of runtimes()) {
    if (!measured || !only.test(name)) continue;
    try {
      const [program, args] = command();
      // Deno is told by an option of its own, and Bun has it anyway.
      const collect = name === 'Deno' ? args.toSpliced(1, 0, '--v8-flags=--expose-gc') : name.startsWith('Bun') ? args : ['--expose-gc', ...args];
      const { out } = await ends(0, program, [...collect, 'measure'], { cwd: folder });
      console.log(name.padEnd(40), out.trim());
    } catch (error) {
      if (!(error instanceof Skip)) throw error;
      console.log(name.padEnd(40), 'skipped:', error.message);
    }
  }
} else {
  const waiting = (await checks(tarballs)).filter(([name]) => only.test(name));
  const lanes = Array.from({ length: Math.min(2, availableParallelism()) }, async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) await attempt(next);
  });
  await Promise.all(lanes);
  console.log(`${process.exitCode ? 'FAILED' : 'done'} in ${seconds(started)}`);
}
