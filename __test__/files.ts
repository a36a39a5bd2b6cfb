// Files of caches, and other programs that use them.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { onTestFinished, type TestContext } from 'vitest';

import { root } from './support';

/** A directory that goes with the test. */
export function directory(): string {
  const made = mkdtempSync(join(tmpdir(), 'embedcore-file-'));
  onTestFinished(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

/** Runs a program of JavaScript in another process, where `embedcore` and `argv` are at hand: how it ended, and what it printed. */
export function elsewhere(code: string, ...argv: string[]): Promise<{ code: number | null; signal: string | null; out: string }> {
  const script = `const embedcore = require(${JSON.stringify(root)}), argv = process.argv.slice(1);
    (async () => { ${code} })().catch((error) => { console.log(error); process.exit(1); });`;
  const child = spawn(process.execPath, ['-e', script, ...argv], { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (data) => (out += String(data)));
  return new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal, out: out.trim() })));
}

/** What Python prints. */
export function python(context: TestContext, code: string, ...argv: string[]): string {
  const { status, stdout, stderr } = spawnSync('python3', ['-c', code, ...argv], { encoding: 'utf8' });
  if (status === null) context.skip('needs python3');
  if (status !== 0) throw new Error(stderr);
  return stdout.trim();
}

/** Another program that holds SQLite's write lock, or the lock of a file, until the test or `release` ends it. */
export async function holding(context: TestContext, how: 'write' | 'lock', path: string): Promise<{ release(): void }> {
  if (process.platform === 'win32') context.skip('files are locked in another way there');
  if (spawnSync('python3', ['--version']).status !== 0) context.skip('needs python3');
  const child = spawn('python3', [join(root, '__test__', 'programs', 'hold.py'), how, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  const release = () => void child.kill('SIGKILL');
  onTestFinished(release);
  await new Promise((resolve, reject) => {
    child.stdout.once('data', resolve);
    child.once('exit', () => reject(new Error('it could not be held')));
  });
  return { release };
}

/** The environment of a process on a machine whose clock is off by `seconds`. */
export function atAnotherTime(context: TestContext, seconds: number): NodeJS.ProcessEnv {
  const library = join(directory(), 'clock.so');
  const made = process.platform === 'linux' && spawnSync('cc', ['-shared', '-fPIC', '-o', library, join(root, '__test__', 'programs', 'clock.c')]).status === 0;
  if (!made) context.skip('needs a C compiler and a loader that puts a library before others');
  return { ...process.env, LD_PRELOAD: library, CLOCK_OFFSET_SECONDS: String(seconds) };
}

/** How many milliseconds something takes. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

/** Waits until something is so. */
export async function until(so: () => unknown): Promise<void> {
  while (!(await so())) await new Promise((resolve) => setTimeout(resolve, 20));
}
