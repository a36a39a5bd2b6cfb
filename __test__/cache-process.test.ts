// Caches in real processes: how they end, and how they share a file.
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

import { IntelligentEmbeddingCache } from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { model, root } from './support';

const program = join(root, '__test__', 'programs', 'cache.cjs');
const generating = join(root, '__test__', 'programs', 'generator.cjs');

function file(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-cache-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'cache.db');
}

function start(...args: string[]): ChildProcessWithoutNullStreams {
  return startProgram(program, ...args);
}

function startProgram(...args: string[]): ChildProcessWithoutNullStreams {
  const child = spawn(process.execPath, args, { stdio: 'pipe' });
  onTestFinished(() => void child.kill());
  return child;
}

/** Everything that a process says, line by line, and how it ends. */
async function end(child: ChildProcessWithoutNullStreams): Promise<{ code: number | null; said: unknown[]; err: string }> {
  let err = '';
  const said: unknown[] = [];
  child.stderr.on('data', (data) => (err += String(data)));
  createInterface({ input: child.stdout }).on('line', (line) => said.push(JSON.parse(line)));
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, said, err };
}

test('two processes read what the other writes', async () => {
  const path = file();
  const children = [start('write', path, '0'), start('write', path, '500')];
  const written = children.map((child) => new Promise((resolve) => child.stdout.once('data', resolve)));
  const ends = children.map(end);
  await Promise.all(written);
  for (const child of children) child.stdin.write('read\n');
  for (const { code, said, err } of await Promise.all(ends)) {
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(said.at(-1)).toEqual({ right: 1000, errors: 0 });
  }
});

test('a computation keeps its lease whatever becomes of another one of its key, with another content', async () => {
  const path = file();
  const [ours, theirs] = [new IntelligentEmbeddingCache({ persistPath: path }), new IntelligentEmbeddingCache({ persistPath: path })];
  let release: ((embedding: number[]) => void) | undefined;
  const computed = ours.getOrCompute('key', 'one', () => new Promise<number[]>((resolve) => (release = resolve)));
  await expect.poll(() => release).toBeDefined();
  await expect(ours.getOrCompute('key', 'two', () => Promise.reject(new Error('mine')))).rejects.toThrow('mine');
  let again = 0;
  const joined = theirs.getOrCompute('key', 'one', () => [++again]);
  await sleep(200);
  release!([1, 2]);
  expect([(await computed).embedding, (await joined).embedding, again]).toEqual([[1, 2], [1, 2], 0]);
  // Who was last has let go of it.
  await expect(theirs.getOrCompute('key', 'three', () => [3, 4])).resolves.toMatchObject({ embedding: [3, 4] });
  await Promise.all([ours.close(), theirs.close()]);
});

test('what another instance has set, deleted or cleared since a computation began is newer than it', async () => {
  for (const change of ['set', 'delete', 'clear'] as const) {
    const path = file();
    const [ours, theirs] = [new IntelligentEmbeddingCache({ persistPath: path }), new IntelligentEmbeddingCache({ persistPath: path })];
    let release!: (embedding: number[]) => void;
    let began = false;
    const computed = ours.getOrCompute('key', 'content', () => {
      began = true;
      return new Promise<number[]>((resolve) => (release = resolve));
    });
    await expect.poll(() => began).toBe(true);
    if (change === 'set') await theirs.set('key', 'content', [1, 2]);
    else if (change === 'delete') await theirs.delete('key');
    else await theirs.clear();
    await theirs.flush();
    await sleep(5);
    release([3, 4]);
    expect((await computed).embedding).toEqual([3, 4]);
    await ours.flush();
    await sleep(300);
    for (const cache of [ours, theirs]) {
      expect((await cache.get('key', 'content'))?.embedding, change).toEqual(change === 'set' ? [1, 2] : undefined);
    }
    await Promise.all([ours.close(), theirs.close()]);
  }
});

// Whoever gets no answer from the file within a tenth of a second computes for itself: on a busy machine that happens now and then.
test('of two processes that want the same values, one computes each', { retry: 3 }, async () => {
  const path = file();
  const ended = await Promise.all([end(start('compute', path)), end(start('compute', path)), end(start('compute', path))]);
  expect(ended.map(({ code, err }) => ({ code, err }))).toEqual(Array(3).fill({ code: 0, err: '' }));
  const computed = ended.map(({ said }) => (said[0] as { computed: number }).computed);
  expect(computed.reduce((sum, count) => sum + count)).toBe(20);
});

test('of generators in three processes that want the same texts, one computes each', { retry: 3 }, async () => {
  const path = file();
  const children = [0, 1, 2].map(() => startProgram(generating, model('bert-mean'), path, '1500'));
  const heard = children.map((child) => new Promise((resolve) => child.stdout.once('data', resolve)));
  const ends = children.map(end);
  await Promise.all(heard);
  for (const child of children) child.stdin.write('go\n');
  const ended = await Promise.all(ends);
  expect(ended.map(({ code, err }) => ({ code, err }))).toEqual(Array(3).fill({ code: 0, err: '' }));
  const answers = ended.map(({ said }) => said.at(-1) as { rows: number; computed: number });
  expect(answers.map(({ rows }) => rows)).toEqual([1500, 1500, 1500]);
  expect(answers.reduce((sum, { computed }) => sum + computed, 0)).toBe(1500);
});

test('who waits for a process that dies computes the rest', async () => {
  const path = file();
  const [dies, waits] = ['3000', '3000'].map((count) => startProgram(generating, model('bert-mean'), path, count));
  await Promise.all([dies!, waits!].map((child) => new Promise((resolve) => child.stdout.once('data', resolve))));
  const ended = end(waits!);
  const gone = new Promise((resolve) => dies!.once('exit', resolve));
  dies!.stdout.once('data', () => {
    waits!.stdin.write('go\n');
    setTimeout(() => dies!.kill('SIGKILL'), 50);
  });
  dies!.stdin.write('go\n');
  await gone;
  const { code, said, err } = await ended;
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(said.at(-1)).toMatchObject({ rows: 3000 });
});

test.skipIf(process.platform === 'win32')('nobody waits for a process that is stopped, and it goes on where it was', async () => {
  const path = file();
  const [stops, waits] = ['3000', '3000'].map((count) => startProgram(generating, model('bert-mean'), path, count));
  await Promise.all([stops!, waits!].map((child) => new Promise((resolve) => child.stdout.once('data', resolve))));
  const ends = [stops!, waits!].map(end);
  stops!.stdin.write('go\n');
  await new Promise((resolve) => stops!.stdout.once('data', resolve));
  stops!.kill('SIGSTOP');
  waits!.stdin.write('go\n');
  const { code, said, err } = await ends[1]!;
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(said.at(-1)).toMatchObject({ rows: 3000 });
  stops!.kill('SIGCONT');
  expect(await ends[0]).toMatchObject({ code: 0, err: '' });
  expect((await ends[0]!).said.at(-1)).toMatchObject({ rows: 3000 });
});

test('a process ends by itself, and what it has set is in the file', async () => {
  const path = file();
  expect(await end(start('end', path))).toEqual({ code: 7, said: [], err: '' });
  const cache = new IntelligentEmbeddingCache({ persistPath: path });
  expect(await cache.has('k', 'c')).toBe(true);
  await cache.close();
  expect(await end(start('end', ''))).toEqual({ code: 7, said: [], err: '' });
});

test('a process ends in the middle of its work without a crash', async () => {
  const path = file();
  for (let i = 0; i < 20; i++) expect(await end(start('exit', path))).toEqual({ code: 7, said: [], err: '' });
});

test('workers share a file, and one that is terminated takes nothing with it', async () => {
  const path = file();
  const cache = new IntelligentEmbeddingCache({ persistPath: path });
  onTestFinished(() => cache.close());
  await cache.set('k', 'c', [1, 2]);
  for (let i = 0; i < 5; i++) {
    const code = `
      const { IntelligentEmbeddingCache } = require(${JSON.stringify(root)});
      const cache = new IntelligentEmbeddingCache({ persistPath: ${JSON.stringify(path)} });
      (async () => {
        for (let n = 0; ; n++) {
          await cache.set('w' + n, 'c', [n, n]);
          if (n === 100) require('node:worker_threads').parentPort.postMessage('busy');
          if (n % 100 === 0) await new Promise(setImmediate);
        }
      })();`;
    const worker = new Worker(code, { eval: true });
    await new Promise((resolve) => worker.once('message', resolve));
    await worker.terminate();
  }
  expect((await cache.get('k', 'c'))!.embedding).toEqual([1, 2]);
  await cache.flush();
});
