// How calls of embedcore/parallel end: sources that wait, callbacks that fail later, signals and proxies of other kinds, closing, processes that exit.
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { EmbeddingError } from 'embedcore';
import {
  batchProcess, BatchFileProcessor, parallelMap, ParallelProcessor, RealtimeEvaluator, type BatchMapOptions, type EvaluateOptions, type ParallelMapOptions,
  type ParallelProcessorOptions, type ReadBatchOptions, type ReadResult, type RealtimeEvaluatorOptions, type Settled,
} from 'embedcore/parallel';
import { describe, expect, expectTypeOf, onTestFinished, test } from 'vitest';

import { failure } from './support';

const run = promisify(execFile);
const never = new Promise<never>(() => {});
const dist = JSON.stringify(fileURLToPath(new URL('../dist/parallel/index.js', import.meta.url)));

function folder(): string {
  const made = realpathSync(mkdtempSync(join(tmpdir(), 'embedcore-parallel-')));
  onTestFinished(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

const evaluator = (options: Partial<RealtimeEvaluatorOptions<number>> = {}) =>
  new RealtimeEvaluator<number>({ evaluate: (sample) => ({ score: sample }), monitor: false, ...options });

const linesOf = (directory: string) => readFileSync(join(directory, 'results.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line) as { id: string; error?: unknown });
const summaryOf = (directory: string) => JSON.parse(readFileSync(join(directory, 'summary.json'), 'utf8')) as { totalSamples: number };

/** Sources that give one item and then nothing, each with whether it was closed. */
const waiting: Record<string, () => { source: AsyncIterable<number>; closed(): boolean }> = {
  'a stream of Node.js'() {
    const source = new PassThrough({ objectMode: true });
    source.write(1);
    return { source, closed: () => source.destroyed };
  },
  'a stream of the web'() {
    let cancelled = false;
    const source = new ReadableStream<number>({ start: (controller) => controller.enqueue(1), cancel: () => void (cancelled = true) });
    return { source: source as unknown as AsyncIterable<number>, closed: () => cancelled };
  },
  'an iterator'() {
    let closed = false;
    let given = false;
    const next = async () => (given ? never : ((given = true), { done: false as const, value: 1 }));
    return { source: { [Symbol.asyncIterator]: () => ({ next, return: async () => ((closed = true), { done: true as const, value: undefined }) }) }, closed: () => closed };
  },
};

/** Calls on such a source that end while it is asked for the second item. */
const endings: Record<string, (source: AsyncIterable<number>) => Promise<unknown>> = {
  'an abort': (source) => failure(() => parallelMap(source, (n) => n, { signal: AbortSignal.timeout(30) })),
  'an abort of batches': (source) => failure(() => batchProcess(source, (batch) => batch, { batchSize: 1, signal: AbortSignal.timeout(30) })),
  'an item that fails': (source) => failure(() => parallelMap(source, async () => { await sleep(20); throw new Error('mine'); }, { concurrency: 2 })),
  async 'leaving a loop'(source) {
    for await (const _ of parallelMap.stream(source, (n) => n, { concurrency: 2 })) break;
  },
  async 'returning what was never begun'(source) {
    await parallelMap.stream(source, (n) => n).return(undefined);
  },
  async 'leaving an evaluation'(source) {
    for await (const _ of evaluator({ concurrency: 2 }).evaluateStream(source)) break;
  },
  async 'returning an evaluation that was never begun'(source) {
    await evaluator().evaluateStream(source).return(undefined);
  },
  'an abort of an evaluation': (source) => failure(() => evaluator().evaluateBatch(source, { signal: AbortSignal.timeout(30) })),
};

describe.each(Object.keys(waiting))('%s that gives nothing more', (kind) => {
  test.each(Object.keys(endings))('is closed by %s', async (ending) => {
    const { source, closed } = waiting[kind]!();
    await endings[ending]!(source);
    await expect.poll(closed).toBe(true);
  });
});

test('a generator that ends its call itself is closed', async () => {
  const controller = new AbortController();
  let closed = false;
  function* items() {
    try {
      yield 1;
      controller.abort();
      yield 2;
    } finally {
      closed = true;
    }
  }
  await failure(() => parallelMap(items(), (n) => n, { signal: controller.signal, concurrency: 1 }));
  await expect.poll(() => closed).toBe(true);
});

describe('a progress callback that rejects', () => {
  const rejects = async () => { throw new Error('mine'); };
  const later = async () => { await sleep(5); throw new Error('mine'); };

  test.each([['at once', rejects], ['later', later]])('%s ends the call', async (_, onProgress) => {
    await expect(parallelMap([1, 2], (n) => n, { onProgress })).rejects.toThrow('mine');
    await expect(batchProcess([1, 2], (batch) => batch, { onProgress })).rejects.toThrow('mine');
    await expect(async () => { for await (const _ of parallelMap.stream([1, 2], (n) => n, { onProgress })); }).rejects.toThrow('mine');
    await using pool = new ParallelProcessor();
    await expect(pool.map([1], (n) => n, { onProgress })).rejects.toThrow('mine');
  });

  test('has no effect on a call that has ended otherwise', async () => {
    await expect(parallelMap([1, 2], (n) => { if (n === 2) throw new Error('first'); return n; }, { concurrency: 1, onProgress: later })).rejects.toThrow('first');
    await sleep(20);
  });
});

test('a signal of another kind has one listener, however many calls it is given to', async () => {
  const target = new EventTarget();
  const given = { aborted: false, reason: undefined as unknown, listeners: 0 };
  const signal = Object.assign(given, {
    addEventListener: (...listener: Parameters<EventTarget['addEventListener']>) => { given.listeners++; target.addEventListener(...listener); },
    removeEventListener: (...listener: Parameters<EventTarget['removeEventListener']>) => { given.listeners--; target.removeEventListener(...listener); },
  }) as unknown as AbortSignal & typeof given;
  for (let call = 0; call < 50; call++) await parallelMap([1], (n) => n, { signal });
  expect(given.listeners).toBeLessThanOrEqual(1);
  const running = failure(() => parallelMap([1], () => never, { signal }));
  Object.assign(given, { aborted: true, reason: 'enough' });
  target.dispatchEvent(new Event('abort'));
  expect(await running).toMatchObject({ code: 'ABORTED', cause: 'enough' });
  expect(await failure(() => parallelMap([1], (n) => n, { signal }))).toMatchObject({ code: 'ABORTED', cause: 'enough' });
});

test('many calls, items and workers with one signal make Node.js warn of nothing', async () => {
  const { stderr } = await run(process.execPath, ['-e', `
    const { parallelMap } = require(${dist});
    const { signal } = new AbortController();
    const items = Array.from({ length: 30 }, (_, n) => n);
    const work = { module: ${JSON.stringify(fileURLToPath(new URL('./programs/parallel-work.mjs', import.meta.url)))} };
    Promise.all([
      ...items.map(() => parallelMap([1, 2], (n) => new Promise((resolve) => setTimeout(resolve, 5, n)), { signal })),
      parallelMap(items, (n) => new Promise((resolve) => setTimeout(resolve, 5, n)), { concurrency: 30, timeoutMs: 5000 }),
      parallelMap(items, (n, _, own) => new Promise((resolve) => (own.addEventListener('abort', resolve), setTimeout(resolve, 5, n))), { concurrency: 30 }),
      parallelMap(items, work, { concurrency: 12 }),
    ]);`]);
  expect(stderr).toBe('');
}, 30_000);

test('a proxy that was revoked is refused wherever it is given', async () => {
  const gone = (target: object) => {
    const { proxy, revoke } = Proxy.revocable(target, {});
    revoke();
    return proxy as never;
  };
  const files = new BatchFileProcessor({ monitor: false });
  for (const call of [
    () => parallelMap(gone([]), (n) => n),
    () => parallelMap([1], gone({})),
    () => parallelMap([1], { module: gone(new URL('file:///a')) }),
    () => batchProcess(gone([]), (batch) => batch as never[]),
    () => evaluator().evaluateBatch(gone([])),
    async () => { for await (const _ of parallelMap.stream(gone({}), (n) => n)); },
    () => files.readBatch(gone([])),
    () => files.readBatch([gone({})]),
    () => files.writeBatch(gone([])),
    () => files.writeBatch([gone({})]),
  ]) {
    const error = await failure(call);
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  for (const options of [{ signal: gone({}) }, { monitor: gone({}) }]) expect(await failure(() => parallelMap([1], (n) => n, options))).toMatchObject({ code: 'INVALID_CONFIG' });
});

test('a text that no string can hold is an error of its file', async () => {
  const place = folder();
  const [large, small] = [join(place, 'large'), join(place, 'small')];
  writeFileSync(large, '');
  truncateSync(large, 540_000_000);
  writeFileSync(small, 'small');
  const results = await new BatchFileProcessor({ maxFileMB: 1000, monitor: false }).readBatch([small, large, small], { encoding: 'latin1' });
  expect(results).toMatchObject([{ content: 'small' }, { error: { code: 'INPUT_TOO_LONG', details: { bytes: 540_000_000 } } }, { content: 'small' }]);
}, 60_000);

describe('RealtimeEvaluator', () => {
  test('close covers the calls before, and refuses those after', async () => {
    const outputDirectory = folder();
    const own = evaluator({ evaluate: async (n) => { await sleep(5); return { n }; }, outputDirectory });
    const samples = [0, 1, 2, 3, 4, 5];
    const batch = own.evaluateBatch(samples, { sampleId: (n) => `batch ${n}` });
    const seen: number[] = [];
    const reading = (async () => { for await (const { index } of own.evaluateStream(samples)) seen.push(index); })();
    const closing = own.close();
    const late = failure(() => own.evaluateBatch([1]));
    await Promise.all([closing, own.close()]);
    expect(await late).toMatchObject({ code: 'CLOSED' });
    expect(linesOf(outputDirectory)).toHaveLength(12);
    expect(summaryOf(outputDirectory).totalSamples).toBe(12);
    expect(await batch).toHaveLength(6);
    await reading;
    expect(seen).toEqual(samples);
    expect(await failure(async () => own.evaluateStream([1]))).toMatchObject({ code: 'CLOSED' });
  });

  test('close waits for the summary that a stream writes at its end', async () => {
    for (let turns = 0; turns < 30; turns++) {
      const outputDirectory = folder();
      const own = evaluator({ outputDirectory });
      const ended = (async () => { for await (const _ of own.evaluateStream([0, 1])); })();
      for (let turn = 0; turn < turns; turn++) await nextTurn();
      await own.close();
      expect(summaryOf(outputDirectory).totalSamples).toBe(2);
      await ended;
    }
  });

  test('close waits for no reader that pauses, and what was given is written', async () => {
    const outputDirectory = folder();
    const own = evaluator({ outputDirectory });
    const begun = own.evaluateStream([0, 1, 2, 3, 4, 5, 6, 7]);
    const made = own.evaluateStream([0]);
    await begun.next();
    await own.close();
    expect(linesOf(outputDirectory)[0]).toMatchObject({ id: '0' });
    expect(summaryOf(outputDirectory).totalSamples).toBe(linesOf(outputDirectory).length);
    expect(await failure(() => made.next())).toMatchObject({ code: 'CLOSED' });
    const rest: string[] = [];
    for await (const { id } of begun) rest.push(id);
    expect(rest).toEqual(['1', '2', '3', '4', '5', '6', '7']);
    expect(linesOf(outputDirectory)).toHaveLength(8);
    expect(summaryOf(outputDirectory).totalSamples).toBe(8);
  });

  test('what was given is in the files when a loop has been left', async () => {
    const outputDirectory = folder();
    const given: string[] = [];
    for await (const { id } of evaluator({ outputDirectory, concurrency: 2 }).evaluateStream([0, 1, 2, 3, 4, 5])) if (given.push(id) === 3) break;
    const lines = linesOf(outputDirectory);
    expect(lines.map(({ id }) => id)).toEqual(expect.arrayContaining(given));
    expect(summaryOf(outputDirectory).totalSamples).toBe(lines.length);
  });

  test('leaving a loop tells that the files could not be written', async () => {
    const outputDirectory = join(folder(), 'results');
    const results = evaluator({ outputDirectory }).evaluateStream([0, 1, 2, 3]);
    await results.next();
    rmSync(outputDirectory, { recursive: true });
    writeFileSync(outputDirectory, 'a file in its place');
    expect(await failure(() => results.return(undefined))).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
  });

  test('what was given survives the exit of the process', async () => {
    const outputDirectory = folder();
    const script = `
      const { RealtimeEvaluator } = require(${dist});
      const own = new RealtimeEvaluator({ evaluate: (n) => ({ n }), outputDirectory: process.argv[1], monitor: false });
      (async () => { for await (const { index } of own.evaluateStream(Array.from({ length: 50 }, (_, i) => i))) if (index === 20) process.exit(0); })();`;
    await run(process.execPath, ['-e', script, outputDirectory]);
    expect(linesOf(outputDirectory).slice(0, 21).map(({ id }) => id)).toEqual(Array.from({ length: 21 }, (_, i) => `${i}`));
  });

  test('of many summaries the last one counts', async () => {
    const path = join(folder(), 'summary.json');
    for (let round = 0; round < 5; round++) {
      const own = evaluator();
      const saving: Promise<string>[] = [];
      for (let n = 1; n <= 8; n++) {
        await own.evaluateBatch([n]);
        saving.push(own.saveSummary(path));
      }
      own.reset();
      saving.push(own.saveSummary(path));
      await Promise.all(saving);
      expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({ totalSamples: 0 });
    }
  });

  test('whatever a sample throws is its error, and has a line', async () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    const thrown: unknown[] = [
      { message: Object.create(null) as unknown }, { get message(): string { throw new Error('mine'); } }, { name: Symbol('s'), code: Object.create(null) as unknown }, proxy,
      Object.create(null), Symbol('s'), null, undefined, () => 1, new Error('plain'),
    ];
    const outputDirectory = folder();
    for (const monitor of [undefined, false] as const) {
      const own = evaluator({ evaluate: (n) => { throw thrown[n]; }, outputDirectory, ...(monitor === false && { monitor }) });
      const results = await own.evaluateBatch(thrown.map((_, n) => n));
      expect(results.map(({ index, scores }) => [index, scores])).toEqual(thrown.map((_, n) => [n, undefined]));
      await own.close();
    }
    const lines = linesOf(outputDirectory);
    expect(lines).toHaveLength(2 * thrown.length);
    for (const { error } of lines) expect(error).toMatchObject({ message: expect.any(String) as string });
    expect(lines[thrown.length - 1]!.error).toEqual({ name: 'Error', message: 'plain' });
  });

  test.skipIf(process.platform === 'win32')('a FIFO in the place of the results is refused, and holds nobody up', async () => {
    const outputDirectory = folder();
    await run('mkfifo', [join(outputDirectory, 'results.jsonl')]);
    for (const options of [{}, { resume: true }] as EvaluateOptions<number>[]) {
      const error = await failure(() => evaluator({ outputDirectory }).evaluateBatch([1], options));
      expect(error).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
      expect(error.message).toContain('no regular file');
    }
    expect(existsSync(join(outputDirectory, 'results.jsonl'))).toBe(true);
  });

  test('statistics hold for the largest numbers', async () => {
    const own = evaluator();
    const near = (value: number, expected: number) => expect(Math.abs(value / expected - 1)).toBeLessThan(0.0101);
    await own.evaluateBatch(Array.from({ length: 100 }, (_, i) => (i + 1) * 1e15));
    let { mean, std, p50, p95 } = own.getAggregateStats().scores.score!;
    near(p50, 50e15);
    near(p95, 95e15);
    near(mean, 50.5e15);
    near(std, 28.866e15);
    own.reset();
    await own.evaluateBatch([1, 2, 1e308, -1e308, 1e308, -1e308]);
    ({ mean, std, p50, p95 } = own.getAggregateStats().scores.score!);
    expect(Math.abs(mean)).toBeLessThan(1e300);
    near(std, 1e308 * Math.sqrt(4 / 6));
    near(p50, 1);
    near(p95, 1e308);
  });
});

test('types say what calls give', () => {
  const items: number[] = [];
  const work = (n: number) => `${n}`;
  const each = (batch: number[]) => batch.map(String);
  const calls = {
    plain: (wide: ParallelMapOptions, batches: BatchMapOptions) => [parallelMap(items, work), parallelMap(items, work, wide), batchProcess(items, each, batches)] as const,
    stream: (wide: ParallelMapOptions) => [parallelMap.stream(items, work), parallelMap.stream(items, work, wide), parallelMap.stream(items, work, { order: 'completion' })] as const,
    throwing: (pool = new ParallelProcessor({ concurrency: 2 })) => [pool.map(items, work), pool.map(items, work, { onError: 'collect' }), pool.batchMap(items, each)] as const,
    collecting: (pool = new ParallelProcessor({ onError: 'collect' })) => [pool.map(items, work), pool.map(items, work, { onError: 'skip' }), pool.batchMap(items, each, { batchSize: 2 })] as const,
    wide: (options: ParallelProcessorOptions, call: ParallelMapOptions) => [new ParallelProcessor(options).map(items, work), new ParallelProcessor().map(items, work, call)] as const,
    files: (files: BatchFileProcessor, encoding: 'utf8' | 'buffer', wide: ReadBatchOptions) => [files.readBatch([], { encoding }), files.readBatch([], wide), files.readBatch([]), files.readBatch([], { encoding: 'buffer' })] as const,
  };
  type Of<K extends keyof typeof calls> = ReturnType<(typeof calls)[K]>;
  type Either = Promise<string[] | Settled<string>[]>;
  type Given<T> = AsyncGenerator<T, void, undefined>;
  expectTypeOf<Of<'plain'>>().toEqualTypeOf<readonly [Promise<string[]>, Either, Either]>();
  expectTypeOf<Of<'stream'>>().toEqualTypeOf<readonly [Given<string>, Given<string | Settled<string>>, Given<Settled<string>>]>();
  expectTypeOf<Of<'throwing'>>().toEqualTypeOf<readonly [Promise<string[]>, Promise<Settled<string>[]>, Promise<string[]>]>();
  expectTypeOf<Of<'collecting'>>().toEqualTypeOf<readonly [Promise<Settled<string>[]>, Promise<string[]>, Promise<Settled<string>[]>]>();
  expectTypeOf<Of<'wide'>>().toEqualTypeOf<readonly [Either, Either]>();
  type Read<T> = Promise<ReadResult<T>[]>;
  expectTypeOf<Of<'files'>>().toEqualTypeOf<readonly [Read<Buffer | string>, Read<Buffer | string>, Read<string>, Read<Buffer>]>();
});
