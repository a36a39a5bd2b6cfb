// What callers do to embedcore/parallel between its calls: objects that change, paths of all kinds, iterators that are none.
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { EmbeddingError } from 'embedcore';
import { batchProcess, BatchFileProcessor, parallelMap, RealtimeEvaluator, type RealtimeEvaluatorOptions } from 'embedcore/parallel';
import { expect, onTestFinished, test, vi } from 'vitest';

import { failure } from './support';

function folder(): string {
  const made = realpathSync(mkdtempSync(join(tmpdir(), 'embedcore-parallel-')));
  onTestFinished(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

/** Another working directory, and another home, for the time of a test. */
function placed(): { home: string; here: string } {
  const [home, here, before] = [folder(), folder(), process.cwd()];
  vi.stubEnv('HOME', home);
  vi.stubEnv('USERPROFILE', home);
  process.chdir(here);
  onTestFinished(() => {
    process.chdir(before);
    vi.unstubAllEnvs();
  });
  return { home, here };
}

const evaluator = (options: Partial<RealtimeEvaluatorOptions<number>> = {}) =>
  new RealtimeEvaluator<number>({ evaluate: (sample) => ({ score: sample }), monitor: false, ...options });

const double = (item: number) => 2 * item;

test('what cannot be iterated is refused, whatever it pretends', async () => {
  const pretenders = [42, null, undefined, 'abc', {}, { [Symbol.iterator]: 5 }, { [Symbol.iterator]: () => 5 }, { [Symbol.asyncIterator]: () => ({}) }] as never[];
  for (const items of pretenders) {
    for (const call of [
      () => parallelMap(items, double),
      () => batchProcess(items, (batch: number[]) => batch),
      () => evaluator().evaluateBatch(items),
      async () => { for await (const _ of parallelMap.stream(items, double)); },
    ]) expect(await failure(call)).toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  const halting = { [Symbol.iterator]: () => ({ next: () => null }) } as never;
  for (const call of [() => parallelMap(halting, double), () => evaluator().evaluateBatch(halting)]) expect(await failure(call)).toMatchObject({ code: 'INVALID_ARGUMENT' });
});

test('what a function does to its batch changes no answer', async () => {
  expect(await batchProcess([1, 2, 3], (batch) => (batch.push(9), [10, 20].slice(0, batch.length - 1)), { batchSize: 2 })).toEqual([10, 20, 10]);
});

test('files are written as they were when the call was made', async () => {
  const place = folder();
  const [buffer, bytes] = [Buffer.from('aaa'), Uint8Array.from([97, 97, 97])];
  const writing = new BatchFileProcessor({ monitor: false }).writeBatch([{ path: join(place, 'buffer'), content: buffer }, { path: join(place, 'bytes'), content: bytes }]);
  buffer.fill('z');
  bytes.fill(122);
  await writing;
  expect(['buffer', 'bytes'].map((name) => readFileSync(join(place, name), 'utf8'))).toEqual(['aaa', 'aaa']);
});

test('paths in the home directory and file URLs are what they say', async () => {
  const { home, here } = placed();
  const files = new BatchFileProcessor({ monitor: false });
  const url = pathToFileURL(join(home, 'by url')).href;
  expect(await files.writeBatch([{ path: '~/plain', content: 'home' }, { path: url, content: 'url' }])).toEqual([{ path: '~/plain' }, { path: url }]);
  expect((await files.readBatch(['~/plain', url])).map(({ content }) => content)).toEqual(['home', 'url']);
  expect(readdirSync(home).sort()).toEqual(['by url', 'plain']);
  expect(await failure(() => files.readBatch(['file://elsewhere/x?query']))).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('file URL') as string });
  expect((await new BatchFileProcessor({ root: '~', monitor: false }).readBatch(['plain']))[0]!.content).toBe('home');
  await evaluator({ outputDirectory: '~/results' }).evaluateBatch([1]);
  await evaluator({ outputDirectory: pathToFileURL(join(home, 'others')).href }).evaluateBatch([1]);
  expect(readdirSync(home).sort()).toEqual(['by url', 'others', 'plain', 'results']);
  expect(readdirSync(here)).toEqual([]);
});

test('a path is no half of a character, and what throws when it is read is an error about the file', async () => {
  const { here } = placed();
  const files = new BatchFileProcessor({ monitor: false });
  expect(await failure(() => files.writeBatch([{ path: join(here, 'a\ud800'), content: '' }]))).toMatchObject({ code: 'INVALID_ARGUMENT', details: { index: 0 } });
  const throwing = { get path(): string { throw new TypeError('mine'); }, content: '' };
  expect(await failure(() => files.writeBatch([{ path: 'a', content: '' }, throwing]))).toMatchObject({ code: 'INVALID_ARGUMENT', details: { index: 1 }, message: expect.stringContaining('mine') as string });
  expect(readdirSync(here)).toEqual([]);
});

test('a summary goes where its path led when it was asked for', async () => {
  const { here } = placed();
  const saving = evaluator().saveSummary('summary.json');
  process.chdir(folder());
  expect(await saving).toBe(join(here, 'summary.json'));
  expect(existsSync(join(here, 'summary.json'))).toBe(true);
});

test('scores are numbers by name, and a copy', async () => {
  for (const scores of [new Map([['score', 1]]), [1], 5, null, { get score() { throw new Error('mine'); } }]) {
    const [result] = await evaluator({ evaluate: () => scores as never }).evaluateBatch([1]);
    expect(result).toMatchObject({ error: expect.any(EmbeddingError) as unknown });
    expect(result).not.toHaveProperty('scores');
  }
  class Computed { get score() { return 7; } }
  const own = evaluator({ evaluate: () => new Computed() as never });
  const [result] = await own.evaluateBatch([1]);
  expect(result!.scores).toEqual({ score: 7 });
  Object.assign(result!.scores!, { score: 0 });
  Object.assign(own.getMetricsHistory()[0]!.scores!, { score: 0 });
  expect(own.getMetricsHistory('score')).toMatchObject([{ value: 7 }]);
});

test('an evaluator whose file could not be written writes it once it can be', async () => {
  const outputDirectory = join(folder(), 'results');
  writeFileSync(outputDirectory, 'a file in its place');
  const own = evaluator({ outputDirectory });
  expect(await failure(() => own.evaluateBatch([1]))).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
  rmSync(outputDirectory);
  expect(await own.evaluateBatch([2])).toHaveLength(1);
  expect(readFileSync(join(outputDirectory, 'results.jsonl'), 'utf8')).toContain('"score":2');
});
