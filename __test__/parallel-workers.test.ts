// What items, modules and workers do to each other in embedcore/parallel: messages of their own, buffers that are gone, objects that change.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { markAsUntransferable } from 'node:worker_threads';

import { EmbeddingError } from 'embedcore';
import { parallelMap, ParallelProcessor, ParallelValidator } from 'embedcore/parallel';
import { describe, expect, test } from 'vitest';

import { failure } from './support';

const module = new URL('./programs/parallel-work.mjs', import.meta.url);
const chatter = { module: new URL('./programs/parallel-chatter.mjs', import.meta.url) };
const loading = { module: new URL('./programs/parallel-loading.mjs', import.meta.url) };
const work = (name: string) => ({ module, name });

describe.each([['worker threads', false], ['child processes', true]])('on %s', (_, processes) => {
  test.each([undefined, 20_000])('messages that a module posts itself are none of ours, with a time-out of %s ms', async (timeoutMs) => {
    expect(await parallelMap([1, 2, 3], chatter, { concurrency: 1, timeoutMs, processes })).toEqual([1, 2, 3]);
  });

  test('a module that hangs while it is loaded has its time, and the error names it', async () => {
    await using pool = new ParallelProcessor({ concurrency: 2, processes, monitor: false });
    const hanging = failure(() => pool.map([1], loading, { timeoutMs: 100, onError: 'collect' }));
    expect(await pool.map([7], work('same'))).toEqual([7]);
    const error = await hanging;
    expect(error).toMatchObject({ code: 'TIMED_OUT', details: { module: loading.module.href } });
    expect(error.message).toContain('parallel-loading.mjs');
  }, 30_000);

  test('the time of a short time-out begins when the module is loaded', async () => {
    expect(await parallelMap([1], work('same'), { timeoutMs: 500, processes })).toEqual([1]);
  });

  test('what cannot be sent is an error of its item, whichever of the two it goes to', async () => {
    const gone = new ArrayBuffer(4);
    const view = new Uint8Array(gone);
    structuredClone(gone, { transfer: [gone] });
    const items = [1, () => 1, gone, view, Symbol('s'), 6];
    for (const chunkSize of [1, 6]) {
      const settled = await parallelMap(items, work('same'), { onError: 'collect', processes, chunkSize, transfer: true });
      expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected', 'rejected', 'rejected', 'fulfilled']);
      for (const each of settled) if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'INVALID_ARGUMENT', details: { index: each.index } });
    }
  });

  test('items of an array count as they are when the call is made', async () => {
    const objects = Array.from({ length: 6 }, (_, n) => ({ n, deep: { list: [n] } }));
    const call = parallelMap(objects, work('same'), { concurrency: 1, processes });
    const stream = parallelMap.stream(objects, work('same'), { processes });
    for (const each of objects) [each.n, each.deep.list[0]] = [99, 99];
    const before = Array.from({ length: 6 }, (_, n) => ({ n, deep: { list: [n] } }));
    expect(await call).toEqual(before);
    const streamed: unknown[] = [];
    for await (const each of stream) streamed.push(each);
    expect(streamed).toEqual(before);
  });
});

test('shared memory cannot go to a process: an error of its item, or of its result', async () => {
  const settled = await parallelMap([0, new SharedArrayBuffer(8), 2], work('same'), { processes: true, onError: 'collect' });
  expect(settled).toMatchObject([{ value: 0 }, { reason: { code: 'INVALID_ARGUMENT', details: { index: 1 } } }, { value: 2 }]);
  const results = await parallelMap([0, 1, 2], work('sharedMemory'), { processes: true, onError: 'collect', chunkSize: 3 });
  expect(results).toMatchObject([{ value: 0 }, { reason: { message: expect.stringContaining('cannot be sent back') as string } }, { value: 2 }]);
});

describe('with transfer', () => {
  const collecting = { transfer: true, onError: 'collect', concurrency: 2 } as const;

  test.each([1, 2])('a buffer that is given twice is moved once, and its second item answered somehow, in chunks of %i', async (chunkSize) => {
    const buffer = new ArrayBuffer(8);
    for (const items of [[buffer, buffer], [new Uint8Array(buffer.slice()), buffer], [buffer, new Float64Array(buffer)]]) {
      for (const timeoutMs of [undefined, 20_000]) {
        const [first, second] = await parallelMap<unknown>(items, work('same'), { ...collecting, chunkSize, timeoutMs });
        for (const each of [first!, second!]) if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'INVALID_ARGUMENT' });
      }
    }
    expect(buffer.byteLength).toBe(0);
  });

  test('the same of a source that is read on the way, in two calls', async () => {
    const buffer = new ArrayBuffer(8);
    async function* items() { yield buffer; yield buffer; yield 3; }
    expect(await parallelMap(items(), work('same'), collecting)).toMatchObject([{ value: expect.any(ArrayBuffer) as unknown }, { reason: { code: 'INVALID_ARGUMENT' } }, { value: 3 }]);
    expect(await parallelMap(items(), work('same'), { ...collecting, timeoutMs: 20_000 })).toMatchObject([{ status: 'rejected' }, { status: 'rejected' }, { value: 3 }]);
  });

  test('views of parts of one buffer cross as these parts, and the buffer stays', async () => {
    const buffer = Uint8Array.from({ length: 4096 }, (_, i) => i).buffer;
    const views = [new Uint8Array(buffer, 0, 4), new Float32Array(buffer, 8, 1), new DataView(buffer, 16, 2)];
    const settled = await parallelMap(views, work('sizeOf'), collecting);
    expect(settled.map((each) => each.status === 'fulfilled' && each.value)).toEqual([[4, 4], [4, 4], [2, 2]]);
    const [bytes] = await parallelMap<unknown, Uint8Array>(views, work('same'), { transfer: true });
    expect([...bytes!]).toEqual([0, 1, 2, 3]);
    expect(buffer.byteLength).toBe(4096);
  });

  test('buffers that cannot be moved are copied', async () => {
    const pooled = Buffer.from('pooled');
    const kept = new Uint8Array([1, 2]);
    markAsUntransferable(kept.buffer);
    const memory = new Uint8Array(new WebAssembly.Memory({ initial: 1 }).buffer);
    const shared = new Uint8Array(new SharedArrayBuffer(2));
    const moved = new Uint8Array([3]);
    for (const chunkSize of [1, 5]) {
      const settled = await parallelMap([pooled, kept, memory, shared, moved.slice()], work('sizeOf'), { ...collecting, chunkSize });
      expect(settled.map((each) => each.status === 'fulfilled' && (each.value as number[])[0])).toEqual([6, 2, 65536, 2, 1]);
    }
    expect([String(pooled), kept.length, memory.length]).toEqual(['pooled', 2, 65536]);
  });

  test('a result that was moved before is an error of its item', async () => {
    const settled = await parallelMap([1, 2], work('shared'), { ...collecting, concurrency: 1 });
    expect(settled).toMatchObject([{ value: new Uint8Array(8) }, { reason: { message: expect.stringContaining('cannot be sent back') as string } }]);
  });
});

test('no promise among the items that nobody comes to ends the process', async () => {
  const script = `
    const { parallelMap, batchProcess } = require(${JSON.stringify(fileURLToPath(new URL('../dist/parallel/index.js', import.meta.url)))});
    const late = () => [1, Promise.reject(new Error('late')), Promise.reject(new Error('later'))];
    (async () => {
      const one = (n) => new Promise((resolve) => setTimeout(resolve, 20, n));
      const fails = () => { throw new Error('mine'); };
      const seen = [];
      for (const call of [
        () => parallelMap(late(), one, { concurrency: 1 }),
        () => parallelMap(late(), fails, { concurrency: 1 }),
        () => parallelMap(new Set(late()), fails, { concurrency: 1, chunkSize: 3 }),
        () => batchProcess(late(), fails, { concurrency: 1, batchSize: 1 }),
        async () => { for await (const _ of parallelMap.stream(late(), one, { concurrency: 1 })) break; throw new Error('left'); },
      ]) await call().catch(({ message }) => seen.push(message));
      await one();
      console.log(JSON.stringify(seen));
    })();`;
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', script]);
  expect(JSON.parse(stdout)).toEqual(['late', 'mine', 'mine', 'mine', 'left']);
});

describe('ParallelValidator', () => {
  const good = () => 1;

  test('a module that cannot be loaded, and a name of any length, are of nobody else', async () => {
    await using validator = new ParallelValidator();
    const missing = { module: new URL('./programs/no-such.mjs', import.meta.url) };
    const long = 'n'.repeat(300);
    const results = await validator.run({ good, missing, relative: { module: './relative.mjs' }, none: work('nothing'), [long]: good, same: work('same') }, 5);
    expect(results).toMatchObject([
      { name: 'good', value: 1 },
      { name: 'missing', success: false, error: { code: 'INVALID_ARGUMENT' } },
      { name: 'relative', success: false, error: { code: 'INVALID_ARGUMENT' } },
      { name: 'none', success: false, error: { code: 'INVALID_ARGUMENT' } },
      { name: long, value: 1 },
      { name: 'same', value: 5 },
    ]);
  });

  test('a module that hangs while it is loaded has timed out', async () => {
    await using validator = new ParallelValidator({ timeoutMs: 50, monitor: false });
    const results = await validator.run([loading, good]);
    expect(results).toMatchObject([{ success: false, timedOut: true, error: { code: 'TIMED_OUT' } }, { value: 1 }]);
  }, 30_000);

  test('modules get the arguments as they are when the call is made', async () => {
    await using validator = new ParallelValidator({ maxWorkers: 1 });
    const argument = { n: 1 };
    const running = validator.run([work('same'), work('same')], argument);
    argument.n = 99;
    expect((await running).map(({ value }) => value)).toEqual([{ n: 1 }, { n: 1 }]);
  });

  test('what holds no validators by name is refused', async () => {
    const revoked = Proxy.revocable({}, {});
    revoked.revoke();
    for (const validators of [new Map([['a', good]]), new Set([good]), [good].values(), revoked.proxy, [revoked.proxy], 'ab'] as never[]) {
      const validator = new ParallelValidator();
      expect(await failure(() => validator.run(validators))).toMatchObject({ code: 'INVALID_ARGUMENT' });
      expect(await failure(async () => validator.runSync(validators))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
  });

  test('runSync ends with the signal of its validator, too', async () => {
    const controller = new AbortController();
    const validator = new ParallelValidator({ signal: controller.signal });
    let after = false;
    expect(await failure(async () => validator.runSync([() => controller.abort('enough'), () => (after = true)]))).toMatchObject({ code: 'ABORTED', cause: 'enough' });
    expect(after).toBe(false);
    const error = await failure(async () => validator.runSync([good]));
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error).toMatchObject({ code: 'ABORTED' });
  });
});
