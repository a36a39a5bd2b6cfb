import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { EmbeddingError, PerformanceMonitor } from 'embedcore';
import { batchProcess, parallelMap, ParallelProcessor, ParallelValidator } from 'embedcore/parallel';
import * as fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure } from './support';

const module = new URL('./programs/parallel-work.mjs', import.meta.url);
const never = new Promise<never>(() => {});

/** What a stream gives. */
async function all<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const results: T[] = [];
  for await (const result of stream) results.push(result);
  return results;
}

/** Numbers, as an async source that tells how far it was read and whether it was closed. */
function counting(count: number, failAt = Infinity) {
  const state = { read: 0, closed: false };
  async function* numbers() {
    try {
      for (let i = 0; i < count; i++) {
        if (i === failAt) throw new Error('the source is broken');
        state.read++;
        yield i;
      }
    } finally {
      state.closed = true;
    }
  }
  return { state, source: numbers() };
}

describe('parallelMap', () => {
  test('gives results in input order, however long each takes, and never runs more at a time than it may', async () => {
    let running = 0;
    let most = 0;
    const work = async (n: number, index: number) => {
      most = Math.max(most, ++running);
      await sleep((n * 7) % 5);
      running--;
      return `${n}@${index}`;
    };
    const items = Array.from({ length: 50 }, (_, i) => 100 - i);
    expect(await parallelMap(items, work, { concurrency: 7 })).toEqual(items.map((n, i) => `${n}@${i}`));
    expect(most).toBe(7);
  });

  test('answers every item of any source exactly once, in order, whatever fails', async () => {
    const plan = fc.record({
      items: fc.array(fc.record({ value: fc.integer(), fails: fc.boolean(), waits: fc.boolean(), promised: fc.boolean() }), { maxLength: 40 }),
      concurrency: fc.integer({ min: 1, max: 9 }),
      chunkSize: fc.integer({ min: 1, max: 7 }),
      kind: fc.constantFrom('array', 'set', 'async'),
      stream: fc.boolean(),
    });
    await fc.assert(fc.asyncProperty(plan, async ({ items, concurrency, chunkSize, kind, stream }) => {
      const seen: number[] = [];
      const work = async ({ value, fails, waits }: (typeof items)[number], index: number) => {
        seen.push(index);
        if (waits) await sleep(0);
        if (fails) throw value;
        return value;
      };
      const given = items.map((item) => (item.promised && kind !== 'async' ? Promise.resolve(item) : item));
      const source = kind === 'array' ? given : kind === 'set' ? new Set(given) : (async function* () { yield* items; })();
      const options = { concurrency, chunkSize, onError: 'collect' } as const;
      const settled = stream ? await all(parallelMap.stream(source, work, options)) : await parallelMap(source, work, options);
      expect(settled).toEqual(items.map(({ value, fails }, index) => (
        fails ? { index, status: 'rejected', reason: value } : { index, status: 'fulfilled', value }
      )));
      expect(seen.toSorted((a, b) => a - b)).toEqual(items.map((_, i) => i));
    }), { numRuns: 150 });
  });

  test('throws what a function throws as it is, aborts the others, and starts nothing more', async () => {
    const reason = { not: 'an error' };
    const signals: AbortSignal[] = [];
    const { state, source } = counting(100);
    const rejected = await failure(() => parallelMap(source, async (n, _, signal) => {
      signals.push(signal);
      if (n === 2) throw reason;
      return never;
    }, { concurrency: 3 }));
    expect(rejected).toBe(reason);
    expect(signals.every((signal) => signal.aborted)).toBe(true);
    await expect.poll(() => state.closed).toBe(true);
    expect(signals.length).toBe(3);
  });

  test('throws even undefined, and what a function throws synchronously', async () => {
    await expect(parallelMap([1], () => { throw undefined; })).rejects.toBeUndefined();
    await expect(parallelMap([1], () => { throw new TypeError('at once'); })).rejects.toThrow('at once');
    expect(await parallelMap([1, 2, 3], (n) => { if (n === 2) throw n; return n; }, { onError: 'skip' })).toEqual([1, 3]);
  });

  test('an array counts as it is when the call is made', async () => {
    const items = [1, 2, 3];
    const call = parallelMap(items, async (n) => n, { concurrency: 1 });
    items.length = 0;
    expect(await call).toEqual([1, 2, 3]);
  });

  test('an abort ends a call whose functions hang, and one that is aborted before reads nothing', async () => {
    const controller = new AbortController();
    const call = failure(() => parallelMap([1, 2], () => never, { signal: controller.signal }));
    controller.abort('enough');
    expect(await call).toMatchObject({ code: 'ABORTED', cause: 'enough' });
    const { state, source } = counting(5);
    expect(await failure(() => parallelMap(source, () => 1, { signal: AbortSignal.abort() }))).toMatchObject({ code: 'ABORTED' });
    expect(state.read).toBe(0);
  });

  test('an abort ends functions that never wait', async () => {
    const signal = AbortSignal.timeout(50);
    const endless = { *[Symbol.iterator]() { for (;;) yield 1; } };
    expect(await failure(() => parallelMap(endless, (n) => n, { signal }))).toMatchObject({ code: 'ABORTED' });
  });

  test('an abort ends the wait for a source that is silent', async () => {
    const silent = { [Symbol.asyncIterator]: () => ({ next: () => never }) };
    expect(await failure(() => parallelMap(silent, () => 1, { signal: AbortSignal.timeout(20) }))).toMatchObject({ code: 'ABORTED' });
  });

  test('a time-out frees the place of a function that hangs, and aborts its signal', async () => {
    const aborted: number[] = [];
    const settled = await parallelMap([0, 1, 2, 3], (n, index, signal) => {
      signal.addEventListener('abort', () => aborted.push(index));
      return n % 2 ? never : n;
    }, { concurrency: 1, timeoutMs: 30, onError: 'collect' });
    expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'rejected']);
    expect(settled[1]).toMatchObject({ reason: { code: 'TIMED_OUT', details: { index: 1, timeoutMs: 30 } } });
    expect((settled[1] as { reason: unknown }).reason).toBeInstanceOf(EmbeddingError);
    expect(aborted).toEqual([1, 3]);
  });

  test('reports progress, and a progress function that throws ends the call', async () => {
    const seen: unknown[] = [];
    await parallelMap([1, 2, 3], (n) => n, { concurrency: 1, onProgress: (...report) => seen.push(report) });
    expect(seen).toEqual([[1, 3], [2, 3], [3, 3]]);
    await expect(parallelMap([1], (n) => n, { onProgress: () => { throw new Error('mine'); } })).rejects.toThrow('mine');
  });

  test('tells a monitor of each call', async () => {
    const monitor = new PerformanceMonitor();
    await parallelMap([1, 2, 3], (n) => n, { monitor });
    await failure(() => parallelMap([1], () => { throw 1; }, { monitor }));
    expect(monitor.getStats('parallel.map')).toMatchObject({ count: 2, errors: 1, items: 3 });
  });

  test.each<[string, () => Promise<unknown>]>([
    ['INVALID_ARGUMENT', () => parallelMap(5 as never, () => 1)],
    ['INVALID_ARGUMENT', () => parallelMap('text' as never, () => 1)],
    ['INVALID_ARGUMENT', () => parallelMap(null as never, () => 1)],
    ['INVALID_ARGUMENT', () => parallelMap([1], 7 as never)],
    ['INVALID_ARGUMENT', () => parallelMap([1], { module: './relative.mjs' })],
    ['INVALID_CONFIG', () => parallelMap([1], () => 1, { concurrency: 0 })],
    ['INVALID_CONFIG', () => parallelMap([1], () => 1, { concurrency: NaN })],
    ['INVALID_CONFIG', () => parallelMap([1], () => 1, { concurrency: Infinity })],
    ['INVALID_CONFIG', () => parallelMap([1], () => 1, { chunkSize: 1.5 })],
    ['INVALID_CONFIG', () => parallelMap([1], () => 1, { timeoutMs: -1 })],
    ['INVALID_CONFIG', () => parallelMap([1], () => 1, { onError: 'ignore' as never })],
    ['INVALID_CONFIG', () => parallelMap([1], () => 1, { concurency: 1 } as never)],
  ])('refuses with %s what it cannot use (%#)', async (code, call) => {
    const error = await failure(call);
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error).toMatchObject({ code });
  });

  test('a source that fails midway is the error of the call, after what was begun; it is closed when the call fails first', async () => {
    const { source } = counting(10, 4);
    const done: number[] = [];
    await expect(parallelMap(source, async (n) => { await sleep(5); done.push(n); }, { concurrency: 2 })).rejects.toThrow('the source is broken');
    expect(done).toEqual([0, 1, 2, 3]);
    const other = counting(10);
    await expect(parallelMap(other.source, () => { throw new Error('mine'); }, { concurrency: 1 })).rejects.toThrow('mine');
    await expect.poll(() => other.state.closed).toBe(true);
  });

  test('has no results for no items', async () => {
    expect(await parallelMap([], () => 1)).toEqual([]);
    expect(await parallelMap((async function* () {})(), () => 1)).toEqual([]);
  });
});

describe('parallelMap.stream', () => {
  test('reads no further ahead of what is taken than concurrency and lookAhead', async () => {
    const { state, source } = counting(1_000_000);
    const results = parallelMap.stream(source, (n) => n, { concurrency: 3, lookAhead: 4 });
    expect(state.read).toBe(0);
    for (let taken = 0; taken < 20; taken++) {
      expect(await results.next()).toEqual({ done: false, value: taken });
      await sleep(1);
      expect(state.read).toBeLessThanOrEqual(taken + 1 + 3 + 4);
    }
    await results.return();
    await expect.poll(() => state.closed).toBe(true);
  });

  test('gives what was read before the source failed, then its error', async () => {
    const { source } = counting(10, 4);
    const got: number[] = [];
    await expect(async () => {
      for await (const n of parallelMap.stream(source, (n) => n, { concurrency: 2 })) got.push(n);
    }).rejects.toThrow('the source is broken');
    expect(got).toEqual([0, 1, 2, 3]);
  });

  test('gives results as they are done, with their indexes', async () => {
    const waits = [60, 0, 30];
    const order: number[] = [];
    for await (const { index } of parallelMap.stream(waits, (ms) => sleep(ms), { concurrency: 3, order: 'completion' })) order.push(index);
    expect(order).toEqual([1, 2, 0]);
  });

  test('return() closes the source at once, also while next() is pending', async () => {
    const { state, source } = counting(3);
    const results = parallelMap.stream(source, () => never, { concurrency: 1 });
    const pending = results.next();
    await expect.poll(() => state.read).toBe(1);
    await results.return();
    expect(await pending).toEqual({ done: true, value: undefined });
    await expect.poll(() => state.closed).toBe(true);
  });

  test('an abort drops what was not taken, and is the next thing that comes', async () => {
    const controller = new AbortController();
    const results = parallelMap.stream([1, 2, 3], (n) => n, { signal: controller.signal });
    expect(await results.next()).toEqual({ done: false, value: 1 });
    controller.abort();
    await expect(results.next()).rejects.toMatchObject({ code: 'ABORTED' });
    expect(await results.next()).toEqual({ done: true, value: undefined });
  });
});

describe.each([['worker threads', false], ['child processes', true]])('a function of a module, on %s', (_, processes) => {
  test('is applied elsewhere, with results in order', async () => {
    expect(await parallelMap([1, 2, 3], { module }, { concurrency: 2, processes })).toEqual([[2, 0], [4, 1], [6, 2]]);
    const [there] = await parallelMap([0], { module, name: processes ? 'pid' : 'thread' }, { processes });
    expect(there).not.toBe(processes ? process.pid : 0);
  });

  test('is found in ES modules and in CommonJS, by URL and by path', async () => {
    const commonJs = fileURLToPath(new URL('./programs/parallel-work.cjs', import.meta.url));
    expect(await parallelMap([1], { module: commonJs }, { processes })).toEqual([2]);
    expect(await parallelMap([1], { module: commonJs, name: 'named' }, { processes })).toEqual([3]);
    expect(await parallelMap([1], { module: module.href }, { processes })).toEqual([[2, 0]]);
  });

  test('what it throws keeps class, name, message, code, cause and stack', async () => {
    const error = await failure(() => parallelMap([5], { module, name: 'fail' }, { processes }));
    expect(error).toBeInstanceOf(RangeError);
    expect(error).toMatchObject({ name: 'RangeError', message: 'bad 5', code: 'E_BAD' });
    expect(error.cause).toBeInstanceOf(TypeError);
    expect(error.stack).toContain('parallel-work.mjs');
    await expect(parallelMap([1], { module, name: 'throwUndefined' }, { processes })).rejects.toBeUndefined();
  });

  test('one that never waits is ended by its time-out; the next items have their answers', async () => {
    const settled = await parallelMap([1, 60_000, 2], { module, name: 'spin' }, { concurrency: 1, timeoutMs: 1000, onError: 'collect', processes });
    expect(settled).toMatchObject([{ value: 1 }, { reason: { code: 'TIMED_OUT' } }, { value: 2 }]);
  });

  test('one that never waits is ended by an abort', async () => {
    const error = await failure(() => parallelMap([60_000], { module, name: 'spin' }, { signal: AbortSignal.timeout(300), processes }));
    expect(error).toMatchObject({ code: 'ABORTED' });
  });

  test('an item whose worker dies fails, the others are answered', async () => {
    const settled = await parallelMap([0, 1, 2], { module, name: 'exit' }, { concurrency: 1, onError: 'collect', processes });
    expect(settled).toMatchObject([{ value: 0 }, { reason: { code: 'BACKEND_UNAVAILABLE', details: { index: 1, exitCode: 3 } } }, { value: 2 }]);
  });

  test('items and results that cannot be sent fail, each by itself', async () => {
    const items = [1, () => 1, 3];
    const settled = await parallelMap(items, { module }, { chunkSize: 3, onError: 'collect', processes });
    expect(settled).toMatchObject([{ value: [2, 0] }, { reason: { code: 'INVALID_ARGUMENT', details: { index: 1 } } }, { value: [6, 2] }]);
    await expect(parallelMap([1], { module, name: 'unsendable' }, { processes })).rejects.toThrow('cannot be sent back');
  });

  test('a module or an export that there is not is refused, whatever onError says', async () => {
    for (const work of [{ module: new URL('./programs/no-such.mjs', import.meta.url) }, { module, name: 'nothing' }]) {
      const error = await failure(() => parallelMap([1], work, { onError: 'collect', processes }));
      expect(error).toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
  });
});

test.skipIf(process.platform === 'win32')('a child process that is killed is an error of its items, and the next ones have another', async () => {
  const settled = await parallelMap([0, 1, 2], { module, name: 'kill' }, { concurrency: 1, onError: 'collect', processes: true });
  expect(settled).toMatchObject([{ value: 0 }, { reason: { code: 'BACKEND_UNAVAILABLE', details: { index: 1, signal: 'SIGKILL' } } }, { value: 2 }]);
  const chunks = await parallelMap([0, 1, 2, 3], { module, name: 'kill' }, { concurrency: 1, chunkSize: 2, onError: 'collect', processes: true });
  expect(chunks.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'fulfilled', 'fulfilled']);
});

/** Runs a program of `programs/parallel.cjs` in a process of its own, and gives what it prints. */
async function program(name: string, ...flags: string[]): Promise<never> {
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, fileURLToPath(new URL('./programs/parallel.cjs', import.meta.url)), name]);
  return JSON.parse(stdout) as never;
}

test('a worker that runs out of memory is an error of its item', async () => {
  const settled: object[] = await program('exhaust', '--max-old-space-size=48');
  expect(settled).toMatchObject([{ reason: { code: 'MEMORY_LIMIT_EXCEEDED' } }, { reason: { code: 'MEMORY_LIMIT_EXCEEDED' } }]);
});

test('idle workers keep no process alive', async () => {
  expect(await program('idle')).toEqual([[[2, 0], [4, 1]], [[2, 0], [4, 1]]]);
});

test('no child process outlives the process, also one that never waits', async () => {
  const { worker }: { worker: number } = await program('exit');
  await expect.poll(() => isAlive(worker)).toBe(false);
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test('with transfer, typed arrays are moved to worker threads; without, copied', async () => {
  const array = Float64Array.of(1, 2);
  expect(await parallelMap([array], { module, name: 'double' })).toEqual([Float64Array.of(2, 4)]);
  expect(array.length).toBe(2);
  expect(await parallelMap([array], { module, name: 'double' }, { transfer: true })).toEqual([Float64Array.of(2, 4)]);
  expect(array.length).toBe(0);
});

describe('batchProcess', () => {
  test('flattens batches in order', async () => {
    const sizes: number[] = [];
    const results = await batchProcess(Array.from({ length: 70 }, (_, i) => i), async (batch) => {
      sizes.push(batch.length);
      await sleep(batch[0]! % 3);
      return batch.map((n) => n * 2);
    });
    expect(results).toEqual(Array.from({ length: 70 }, (_, i) => i * 2));
    expect(sizes).toEqual([32, 32, 6]);
  });

  test('a batch that answers another number of results is an error that names it', async () => {
    const error = await failure(() => batchProcess([1, 2, 3], (batch) => batch.slice(1), { batchSize: 2 }));
    expect(error).toMatchObject({ code: 'EMBEDDING_GENERATION_FAILED', details: { batch: 0, expected: 2, results: 1 } });
    const settled = await batchProcess([1, 2, 3], (batch, index) => (index === 1 ? [] : batch), { batchSize: 2, onError: 'collect' });
    expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected']);
  });
});

describe('ParallelProcessor', () => {
  test('keeps workers from one call to the next, counts, and ends what runs when it is closed', async () => {
    const processor = new ParallelProcessor({ concurrency: 1, monitor: false });
    onTestFinished(() => processor.close());
    const [first] = await processor.map([0], { module, name: 'thread' });
    expect(await processor.map([0], { module, name: 'thread' })).toEqual([first]);
    expect(await processor.batchMap([1, 2], (batch) => batch)).toEqual([1, 2]);
    await failure(() => processor.map([1], { module, name: 'fail' }));
    expect(processor.getStats()).toMatchObject({ calls: 4, activeCalls: 0, completed: 4, failed: 1, workers: 1, waiting: 0 });
    const running = failure(() => processor.map([60_000], { module, name: 'spin' }));
    await processor.close();
    expect(await running).toMatchObject({ code: 'CLOSED' });
    expect(await failure(() => processor.map([1], (n) => n))).toMatchObject({ code: 'CLOSED' });
    expect(processor.getStats().workers).toBe(0);
  });

  test('shares its workers among calls at the same time', async () => {
    await using processor = new ParallelProcessor({ concurrency: 2 });
    const calls = await Promise.all([1, 2, 3, 4].map((n) => processor.map([n, n], { module })));
    expect(calls.flat(2).filter((_, i) => i % 2 === 0)).toEqual([2, 2, 4, 4, 6, 6, 8, 8]);
    expect(processor.getStats().workers).toBeLessThanOrEqual(2);
  });
});

describe('ParallelValidator', () => {
  test('answers for each in order; one that hangs holds the others up no longer than its time', async () => {
    const monitor = new PerformanceMonitor();
    await using validator = new ParallelValidator({ timeoutMs: 1000, monitor });
    const results = await validator.run([
      async function slow(text: string) { await sleep(20); return text.length; },
      function throws(): never { throw new TypeError('no'); },
      () => never,
      { module, name: 'wait' },
    ], '12');
    expect(results).toMatchObject([
      { name: 'slow', success: true, value: 2, timedOut: false },
      { name: 'throws', success: false, error: { message: 'no' }, timedOut: false },
      { name: 'validator 2', success: false, error: { code: 'TIMED_OUT' }, timedOut: true },
      { name: 'wait', success: true, value: '12', timedOut: false },
    ]);
    expect(monitor.getStats('validate.slow')).toMatchObject({ count: 1, errors: 0 });
    expect(monitor.getStats('validate.throws')).toMatchObject({ count: 1, errors: 1 });
  });

  test('passes all arguments, then a signal that is aborted when the time is over', async () => {
    const validator = new ParallelValidator({ timeoutMs: 30 });
    onTestFinished(() => validator.close());
    const seen: unknown[][] = [];
    let late: AbortSignal | undefined;
    const results = await validator.run({ one: (...all) => void seen.push(all), two: (_a, _b, signal) => { late = signal; return never; }, three: { module, name: 'sum' } }, 1, 2);
    expect(seen[0]).toEqual([1, 2, expect.any(AbortSignal)]);
    expect(late?.aborted).toBe(true);
    expect(results.map(({ name }) => name)).toEqual(['one', 'two', 'three']);
    expect(results[2]).toMatchObject({ value: 3 });
  });

  test('an error with the code TIMED_OUT that a validator throws is no time-out of this', async () => {
    const validator = new ParallelValidator();
    const [result] = await validator.run([() => { throw new EmbeddingError('TIMED_OUT', 'mine'); }]);
    expect(result).toMatchObject({ success: false, timedOut: false });
  });

  test('runSync runs what does not wait, and says so of what does', () => {
    const validator = new ParallelValidator();
    const results = validator.runSync({ good: (n: number) => n > 1, waits: async () => 1, module: { module } }, 2);
    expect(results).toMatchObject([{ success: true, value: true }, { success: false, error: { code: 'INVALID_ARGUMENT' } }, { success: false }]);
  });
});
