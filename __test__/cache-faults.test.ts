// What a disk may do to a file, in real processes and through the public surface: no call of the cache fails for it.
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { atAnotherTime } from './files';
import { root } from './support';

const program = join(root, '__test__', 'programs', 'cache-faults.cjs');
const isRoot = process.platform === 'linux' && process.getuid?.() === 0;

function directory(): string {
  const made = mkdtempSync(join(tmpdir(), 'embedcore-faults-'));
  onTestFinished(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

interface Report {
  /** Of 300 entries, those that are answered: at once, and by a second cache on the same file. */
  found: number;
  stored: number;
  /** Codes of errors that calls other than `flush` gave. */
  failed: string[];
  flushed: string;
  events: string[];
  disk: { available: boolean; lost: number; errors: number };
}

/** What a process tells that sets and gets 300 entries in `path`. */
function report(how: string, path: string, ...command: string[]): Report {
  const [name, ...args] = [...command, process.execPath, program, how, path];
  const { stdout, stderr, status, signal } = spawnSync(name!, args, { encoding: 'utf8', timeout: 60_000 });
  expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
  return JSON.parse(stdout) as Report;
}

/** Runs a command that needs rights or tools; whether it could. */
function can(name: string, ...args: string[]): boolean {
  return spawnSync(name, args).status === 0;
}

test('without a fault all of them are stored', () => {
  const told = report('write', join(directory(), 'cache.db'));
  expect(told).toMatchObject({ found: 300, stored: 300, failed: [], flushed: 'ok', events: [] });
});

test('a full disk', (context) => {
  const mounted = directory();
  if (!isRoot || !can('mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', mounted)) {
    context.skip('only root can mount a small disk');
  }
  onTestFinished(() => void can('umount', mounted));
  const told = report('write', join(mounted, 'cache.db'));
  expect(told).toMatchObject({ found: 300, failed: [], flushed: 'CACHE_STORAGE_FAILED' });
  expect(told.stored).toBeLessThan(300);
  expect(told.events).toContain('storage-failed');
  expect(told.disk.available).toBe(false);
  expect(told.disk.lost).toBeGreaterThan(0);
});

test.skipIf(process.platform === 'win32')('a file that must not grow', () => {
  const path = join(directory(), 'cache.db');
  // Blocks of 512 bytes. Node.js ignores SIGXFSZ, so that a write fails as it does on a full disk.
  const told = report('write', path, 'sh', '-c', 'ulimit -f 200; exec "$@"', 'sh');
  expect(told).toMatchObject({ found: 300, failed: [], flushed: 'CACHE_STORAGE_FAILED' });
  expect(told.events).toContain('storage-failed');
  expect(statSync(path).size).toBeLessThanOrEqual(200 * 1024);
  // Once there is room again, the file works: nothing of it is torn.
  expect(report('write', path)).toMatchObject({ found: 300, stored: 300, flushed: 'ok' });
});

test.skipIf(process.platform === 'win32')('a directory and a file that may only be read', (context) => {
  const place = join(directory(), 'place');
  mkdirSync(place);
  const path = join(place, 'cache.db');
  const nobody = isRoot ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] : [];
  if (isRoot && !can(nobody[0]!, ...nobody.slice(1), process.execPath, '-e', `require(${JSON.stringify(root)})`)) {
    context.skip('nobody cannot read this checkout');
  }
  chmodSync(join(place, '..'), 0o755);
  chmodSync(place, 0o555);
  let told = report('write', path, ...nobody);
  expect(told).toMatchObject({ found: 300, stored: 0, failed: [], flushed: 'CACHE_STORAGE_FAILED' });
  expect(told.events).toContain('storage-failed');
  expect(existsSync(path)).toBe(false);
  // One that is there, written by somebody else.
  chmodSync(place, 0o755);
  expect(report('write', path).stored).toBe(300);
  if (isRoot) chownSync(path, 0, 0);
  chmodSync(path, 0o444);
  chmodSync(place, 0o555);
  const before = statSync(path);
  told = report('write', path, ...nobody);
  expect(told).toMatchObject({ found: 300, failed: [], flushed: 'CACHE_STORAGE_FAILED' });
  expect(statSync(path)).toMatchObject({ size: before.size, mtimeMs: before.mtimeMs });
  // To delete nothing needs no writing.
  expect(report('delete-unwritable', path, ...nobody)).toEqual({
    answers: [false, true, null, false, 0, 0, 0, 0],
    failed: ['CACHE_STORAGE_FAILED', 'CACHE_STORAGE_FAILED'],
  });
  expect(report('write', path).stored).toBe(300);
});

test.skipIf(process.platform === 'win32')('a file that is deleted while it is open', () => {
  const told = report('delete', join(directory(), 'cache.db'));
  // Deleted after the first 150, which only memory has then.
  expect(told).toMatchObject({ found: 300, stored: 150, failed: [], flushed: 'ok' });
  expect(told.events).toEqual(['storage-failed']);
  expect(told.disk.available).toBe(true);
});

test('a clock that is set forth and back brings nothing back, and keeps nothing', (context) => {
  const home = directory();
  const run = (offset: number, ...set: string[]) => {
    const env = atAnotherTime(context, offset);
    const args = [join(root, '__test__', 'programs', 'clock.cjs'), join(home, 'cache.db'), ...set];
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', env });
    expect(stderr).toBe('');
    const { now, found } = JSON.parse(stdout) as { now: number; found: string[] };
    expect(Math.abs(now - Date.now() - offset * 1000)).toBeLessThan(60_000);
    return found;
  };
  const days = 86_400 * 10;
  expect(run(days, 'ahead', 'for ever')).toEqual(['ahead', 'for ever']);
  // Of an age that nobody knows, and from then on gone.
  expect(run(0, 'on time')).toEqual(['for ever', 'on time']);
  expect(run(days)).toEqual(['for ever']);
  expect(run(0)).toEqual(['for ever']);
  expect(run(0, 'on time')).toEqual(['for ever', 'on time']);
  expect(run(-days, 'behind')).toEqual(['for ever', 'behind']);
  expect(run(0)).toEqual(['for ever']);
});
