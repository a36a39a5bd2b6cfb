// Result caches in real processes: how they end, what a file survives, and how they share one.
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { closeSync, copyFileSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, truncateSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

import { InferenceCache } from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { root } from './support';

const program = join(root, '__test__', 'programs', 'inference-cache.cjs');
const value = (i: number) => ({ i, text: `${'result '.repeat(50)}${i}`, list: [i, i + 1] });

function file(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-results-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'results.db');
}

function start(...args: string[]): ChildProcessWithoutNullStreams {
  const child = spawn(process.execPath, [program, ...args], { stdio: 'pipe' });
  onTestFinished(() => void child.kill());
  return child;
}

async function end(child: ChildProcessWithoutNullStreams): Promise<{ code: number | null; said: unknown[]; err: string }> {
  let err = '';
  const said: unknown[] = [];
  child.stderr.on('data', (data) => (err += String(data)));
  createInterface({ input: child.stdout }).on('line', (line) => said.push(JSON.parse(line)));
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, said, err };
}

test('kill -9 while writing: what was flushed is there, and nothing is torn', async () => {
  const path = file();
  let next = 0;
  for (let round = 0; round < 6; round++) {
    const child = start('write', path, String(next));
    const ended = end(child);
    await new Promise((resolve) => child.stdout.once('data', resolve));
    // Some moment: of the write, of the flush, of the check-point.
    await sleep(5 + ((round * 37) % 60));
    child.kill('SIGKILL');
    const { said, err } = await ended;
    expect(err).toBe('');
    const flushed = said.at(-1) as number;
    const cache = new InferenceCache({ persistPath: path });
    let there = 0;
    for (let i = next; i < flushed + 60; i++) {
      const found = await cache.get(`prompt ${i}`);
      if (found) expect(found.value).toEqual(value(i));
      if (i <= flushed) expect(found, `${i} of ${flushed}`).not.toBeNull();
      if (found) there++;
    }
    expect(there).toBeGreaterThanOrEqual(flushed - next + 1);
    expect(cache.getStats()).toMatchObject({ damaged: 0, disk: { errors: 0 } });
    await cache.close();
    next = flushed + 1;
  }
});

test('two processes read what the other sets', async () => {
  const path = file();
  const children = [start('set', path, '0'), start('set', path, '200')];
  const set = children.map((child) => new Promise((resolve) => child.stdout.once('data', resolve)));
  const ends = children.map(end);
  await Promise.all(set);
  // Each writes some time after it has set, in its order.
  const cache = new InferenceCache({ persistPath: path });
  for (const last of [199, 399]) await expect.poll(() => cache.has(`prompt ${last}`)).toBe(true);
  await cache.close();
  for (const child of children) child.stdin.write('read\n');
  for (const { code, said, err } of await Promise.all(ends)) {
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(said.at(-1)).toEqual({ right: 400, errors: 0 });
  }
});

test('of three processes that want the same results, one computes each', async () => {
  const path = file();
  const ended = await Promise.all([1, 2, 3].map(() => end(start('compute', path))));
  expect(ended.map(({ code, err }) => ({ code, err }))).toEqual(Array(3).fill({ code: 0, err: '' }));
  const computed = ended.map(({ said }) => (said[0] as { computed: number }).computed);
  expect(computed.reduce((sum, count) => sum + count)).toBe(20);
});

test('what another instance has set, deleted or invalidated since a computation began is newer than it', async () => {
  const path = file();
  const [ours, theirs] = [new InferenceCache({ persistPath: path }), new InferenceCache({ persistPath: path })];
  for (const prompt of ['deleted', 'invalidated']) await theirs.set(prompt, 'old', { type: prompt, ttlSeconds: 1e-3 });
  await theirs.flush();
  await sleep(20);
  const release: ((value: string) => void)[] = [];
  const prompts = ['set', 'deleted', 'invalidated', 'untouched'];
  const computed = prompts.map((prompt) =>
    ours.getOrCompute(prompt, { type: prompt }, () => new Promise<string>((resolve) => release.push(resolve))),
  );
  await expect.poll(() => release.length).toBe(4);
  await theirs.set('set', 'new', { type: 'set' });
  await theirs.delete('deleted', { type: 'deleted' });
  await theirs.invalidate({ type: 'invalidated' });
  await theirs.flush();
  release.forEach((resolve) => resolve('computed'));
  expect((await Promise.all(computed)).map(({ value }) => value)).toEqual(Array(4).fill('computed'));
  await ours.flush();
  await sleep(300);
  for (const cache of [ours, theirs]) {
    const found = await Promise.all(prompts.map((prompt) => cache.get(prompt, { type: prompt })));
    expect(found.map((one) => one?.value)).toEqual(['new', undefined, undefined, 'computed']);
  }
  await Promise.all([ours.close(), theirs.close()]);
});

test('a process ends by itself, and what it has set is in the file', async () => {
  const path = file();
  expect(await end(start('end', path))).toEqual({ code: 7, said: [], err: '' });
  const cache = new InferenceCache({ persistPath: path });
  expect((await cache.get('prompt'))!.value).toEqual(value(1));
  await cache.close();
});

test('damaged bytes: never a wrong result, and what is set again is there', async () => {
  const path = file();
  const whole = new InferenceCache({ persistPath: path });
  for (let i = 0; i < 300; i++) await whole.set(`prompt ${i}`, value(i));
  await whole.close();
  let misses = 0;
  let seed = 1;
  const random = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below;
  for (let round = 0; round < 10; round++) {
    const damaged = file();
    copyFileSync(path, damaged);
    const { size } = statSync(damaged);
    if (round === 9) truncateSync(damaged, Math.floor(size / 2));
    const descriptor = openSync(damaged, 'r+');
    for (let n = 0; n < 40; n++) writeSync(descriptor, Uint8Array.of(random(256)), 0, 1, random(Math.floor(size / 2)));
    closeSync(descriptor);
    const cache = new InferenceCache({ persistPath: damaged });
    for (let i = 0; i < 300; i++) {
      const found = await cache.get(`prompt ${i}`);
      if (found) expect(found.value).toEqual(value(i));
      else {
        misses++;
        await cache.set(`prompt ${i}`, value(i));
      }
    }
    await cache.flush();
    await cache.close();
    // What was found before the file had to be set aside is a miss now; everything can be set again.
    const again = new InferenceCache({ persistPath: damaged });
    for (let i = 0; i < 300; i++) {
      const found = await again.get(`prompt ${i}`);
      if (found) expect(found.value).toEqual(value(i));
      else await again.set(`prompt ${i}`, value(i));
    }
    for (let i = 0; i < 300; i++) expect((await again.get(`prompt ${i}`))?.value, `${i}`).toEqual(value(i));
    await again.close();
  }
  expect(misses).toBeGreaterThan(0);
  expect(existsSync(path) && readFileSync(path).length).toBeGreaterThan(100_000);
});
