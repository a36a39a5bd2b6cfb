import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Annotation, EmbeddingError, EmbeddingResult } from 'embedcore';
import { describe, expect, test } from 'vitest';

import { failure, model, ready, texts } from './support';

const demo = { modelPath: model('demo') };
const bert = { modelPath: model('bert-mean'), cache: false as const };

const annotation = (i: number): Annotation => ({ nodeId: `n${i}`, signature: `fn f${i}()`, summary: 'word '.repeat(i % 20) });

function* annotations(count: number, read = { count: 0 }) {
  for (let i = 0; i < count; i++) {
    read.count++;
    yield annotation(i);
  }
}

async function* slowly<T>(items: Iterable<T>, ms: (i: number) => number) {
  let i = 0;
  for (const item of items) {
    await sleep(ms(i++));
    yield item;
  }
}

async function all<T>(results: AsyncIterable<T>): Promise<T[]> {
  const taken: T[] = [];
  for await (const result of results) taken.push(result);
  return taken;
}

test('gives what generateEmbeddings gives, in input order, from any iterable', async () => {
  const generator = await ready({ ...demo, cache: false });
  const inputs = [...annotations(1500)];
  const expected = await generator.generateEmbeddings(inputs);
  const facts = ({ nodeId, embedding, inputText, tokenCount, truncated }: EmbeddingResult) => ({ nodeId, embedding, inputText, tokenCount, truncated });
  for (const source of [inputs, annotations(1500), new Set(inputs), slowly(inputs, (i) => (i % 500 === 499 ? 20 : 0))]) {
    const results = await all(generator.stream(source));
    expect(results.map(({ nodeId }) => nodeId)).toEqual(inputs.map(({ nodeId }) => nodeId));
    expect(results.slice(0, 40).map(facts)).toEqual(expected.slice(0, 40).map(facts));
  }
  expect(await all(generator.stream([]))).toEqual([]);
});

test('order: completion gives each exactly once', async () => {
  const generator = await ready(bert);
  const results = await all(generator.stream(annotations(1000), { order: 'completion' }));
  expect(results.map(({ nodeId }) => nodeId).sort()).toEqual([...annotations(1000)].map(({ nodeId }) => nodeId).sort());
});

test('texts give vectors', async () => {
  const generator = await ready({ ...demo, cache: false });
  const texts = Array.from({ length: 600 }, (_, i) => `text ${i}`);
  const vectors = await all(generator.stream(texts));
  const matrix = await generator.embed(texts);
  expect(vectors).toHaveLength(600);
  for (const i of [0, 31, 32, 287, 288, 599]) expect(Math.max(...vectors[i]!.map((value, k) => Math.abs(value - matrix.row(i)[k]!)))).toBeLessThan(1e-6);
});

test('with details, or as they are done, each tells which text it is', async () => {
  const generator = await ready(demo);
  const given = texts(700);
  const matrix = await generator.embed(given);
  for (const options of [{ details: true }, { order: 'completion' }, { details: false, order: 'completion' }] as const) {
    const results = await all(generator.stream(given, options as { details: true }));
    expect(results.map(({ index }) => index).sort((a, b) => a - b)).toEqual(given.map((_, index) => index));
    for (const { index, embedding, truncated, tokenCount, fromCache } of results) {
      expect(embedding).toEqual(matrix.row(index));
      expect([truncated, tokenCount, fromCache]).toEqual([matrix.truncated[index] === 1, matrix.tokenCounts[index], true]);
    }
  }
  const skipping = await all(generator.stream(['one', ' ', 'three'], { details: true, onError: 'skip' }));
  expect(skipping.map(({ index, embedding, error }) => [index, embedding.length > 0, error?.code])).toEqual([[0, true, undefined], [1, false, 'INVALID_ARGUMENT'], [2, true, undefined]]);
  expect(await failure(() => generator.stream(given, { details: 1 as never }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'details' } });
});

test('reads only so far ahead of what is taken', async () => {
  const generator = await ready(demo);
  const read = { count: 0 };
  let taken = 0;
  for await (const result of generator.stream(annotations(100_000, read))) {
    expect(result.nodeId).toBe(`n${taken}`);
    taken++;
    expect(read.count - taken).toBeLessThanOrEqual(1100);
    if (taken === 3000) break;
  }
  expect(read.count).toBeLessThan(4200);
});

test('results come while the source still waits', async () => {
  const generator = await ready(demo);
  let release = () => {};
  const gate = new Promise<void>((resolve) => (release = resolve));
  async function* source() {
    yield annotation(0);
    yield annotation(1);
    await gate;
    yield annotation(2);
  }
  const results = generator.stream(source());
  expect((await results.next()).value).toMatchObject({ nodeId: 'n0' });
  expect((await results.next()).value).toMatchObject({ nodeId: 'n1' });
  release();
  expect((await results.next()).value).toMatchObject({ nodeId: 'n2' });
  expect((await results.next()).done).toBe(true);
});

test('leaving early closes the source and stops the work', async () => {
  const generator = await ready(bert);
  let closed = 0;
  function* source() {
    try {
      yield* annotations(100_000);
    } finally {
      closed++;
    }
  }
  for await (const { nodeId } of generator.stream(source())) if (nodeId === 'n10') break;
  expect(closed).toBe(1);
  // A source that never gives another item does not keep anybody.
  async function* stuck() {
    yield* annotations(5);
    await new Promise(() => {});
  }
  for await (const { nodeId } of generator.stream(stuck())) if (nodeId === 'n4') break;
  expect((await generator.embed(['still usable'])).rows).toBe(1);
});

test('an error of the source, of an input or of a signal ends the stream', async () => {
  const generator = await ready(demo);
  async function* broken() {
    yield* annotations(10);
    throw new Error('the source broke');
  }
  await expect(all(generator.stream(broken()))).rejects.toThrow('the source broke');
  const texts = Array.from({ length: 500 }, (_, i) => (i === 400 ? '' : `text ${i}`));
  expect(await failure(() => all(generator.stream(texts)))).toMatchObject({ code: 'INVALID_ARGUMENT', details: { index: 400 }, message: expect.stringContaining('Text 400') as string });
  expect((await failure(() => all(generator.stream([annotation(0), 5 as never])))).message).toContain('Annotation 1');
  const skipped = await all(generator.stream(texts, { onError: 'skip' }));
  expect(skipped.map(({ length }, i) => (length === 0 ? i : -1)).filter((i) => i >= 0)).toEqual([400]);
  const results = await all(generator.stream([annotation(0), { nodeId: '', signature: '', summary: '' }], { onError: 'skip' }));
  expect(results).toHaveLength(2);
  const stop = new AbortController();
  const aborted = failure(async () => {
    for await (const { nodeId } of generator.stream(annotations(100_000), { signal: stop.signal })) if (nodeId === 'n50') stop.abort();
  });
  expect(await aborted).toMatchObject({ code: 'ABORTED' });
  expect(await failure(() => all(generator.stream([annotation(0)], { signal: AbortSignal.abort() })))).toMatchObject({ code: 'ABORTED' });
});

test('bad arguments are named', async () => {
  const generator = await ready(demo);
  for (const inputs of [5, null, 'text', {}]) expect(await failure(() => all(generator.stream(inputs as never)))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect(await failure(() => generator.stream([], { order: 'random' as never }))).toMatchObject({ code: 'INVALID_CONFIG' });
  expect(await failure(() => all(generator.stream([annotation(0)], { ordr: 'input' } as never)))).toMatchObject({ code: 'INVALID_CONFIG' });
});

/** Gives `first`, then nothing more. */
async function* silentAfter<T>(first: T[]) {
  yield* first;
  await new Promise(() => {});
}

/** How many results a stream gave, and the error that it ended with. */
async function taken<T>(stream: AsyncIterable<T>, each: (result: T, count: number) => unknown = () => {}): Promise<{ count: number; error?: EmbeddingError }> {
  let count = 0;
  try {
    for await (const result of stream) await each(result, ++count);
    return { count };
  } catch (error) {
    return { count, error: error as EmbeddingError };
  }
}

describe('a stream is stopped, whatever it waits for', () => {
  test('by its signal, its time limit or cleanup() while its source is silent', async () => {
    const generator = await ready(demo);
    const controller = new AbortController();
    const waiting = [
      taken(generator.stream(silentAfter(['a']), { signal: controller.signal }), () => controller.abort(new Error('enough'))),
      taken(generator.stream(silentAfter(['a']), { timeoutMs: 50 })),
    ];
    expect(await Promise.all(waiting)).toMatchObject([
      { count: 1, error: { code: 'ABORTED', cause: { message: 'enough' } } },
      { count: 1, error: { code: 'TIMED_OUT', retryable: true, details: { timeoutMs: 50 } } },
    ]);
    const closed = taken(generator.stream(silentAfter(['a'])), () => void generator.cleanup());
    expect(await closed).toMatchObject({ count: 1, error: { code: 'CLOSED' } });
    await generator.initialize();
  });

  test('and nothing is answered after that, also what the consumer had not asked for yet', async () => {
    const generator = await ready(demo);
    for (const order of ['input', 'completion'] as const) {
      const controller = new AbortController();
      const { count, error } = await taken(generator.stream(texts(300), { order, signal: controller.signal }), () => controller.abort());
      expect({ count, code: error?.code }).toEqual({ count: 1, code: 'ABORTED' });
    }
    const controller = new AbortController();
    const stream = generator.stream(texts(20), { signal: controller.signal });
    await stream.next();
    controller.abort();
    await sleep(10);
    expect(await failure(() => stream.next())).toMatchObject({ code: 'ABORTED' });
    expect((await stream.next()).done).toBe(true);
  });

  test('before it begins: then nothing is read', async () => {
    const generator = await ready(demo);
    const source = { [Symbol.iterator]: () => expect.fail('it was read') };
    expect(await taken(generator.stream(source, { signal: AbortSignal.abort() }))).toMatchObject({ count: 0, error: { code: 'ABORTED' } });
    expect(await taken(generator.stream([], { signal: AbortSignal.abort() }))).toMatchObject({ count: 0, error: { code: 'ABORTED' } });
  });
});

describe('a stream closes its source', () => {
  test('at once, also while somebody waits for a result', async () => {
    const generator = await ready(demo);
    let closed = 0;
    const source = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}), return: async () => (closed++, { done: true as const, value: undefined }) }) };
    for (const leave of [(stream: AsyncGenerator<unknown>) => stream.return(undefined), (stream: AsyncGenerator<unknown>) => stream.throw(new Error('mine')).catch(() => {})]) {
      const stream = generator.stream(source as AsyncIterable<string>);
      const next = stream.next();
      await leave(stream);
      expect(await next).toEqual({ done: true, value: undefined });
    }
    expect(closed).toBe(2);
  });

  test('streams of Node.js and of the web included', async () => {
    const generator = await ready(demo);
    const readable = new Readable({ objectMode: true, read() {} });
    readable.push('a');
    for await (const _ of generator.stream(readable as AsyncIterable<string>)) break;
    expect(readable.destroyed).toBe(true);
    const why = new Promise((resolve) => {
      const web = new ReadableStream<string>({ start: (controller) => controller.enqueue('a'), cancel: resolve });
      void taken(generator.stream(web as never), () => generator.cleanup());
    });
    await why;
    await generator.initialize();
  });

  test('when an input cannot be embedded, and when a generator is asked for an item by which it stops the stream', async () => {
    const generator = await ready(demo);
    let closed = 0;
    const controller = new AbortController();
    function* source(stop: boolean) {
      try {
        yield 'a';
        if (stop) controller.abort();
        yield '';
        for (;;) yield 'b';
      } finally {
        closed++;
      }
    }
    expect(await taken(generator.stream(source(false)))).toMatchObject({ count: 1, error: { code: 'INVALID_ARGUMENT', details: { index: 1 } } });
    expect(await taken(generator.stream(source(true), { signal: controller.signal }))).toMatchObject({ count: 0, error: { code: 'ABORTED' } });
    expect(closed).toBe(2);
  });
});

describe('a stream is of the moment', () => {
  test('when it was made: its array, and its model', async () => {
    const generator = await ready({ modelPath: model('bert-mean'), cache: false });
    const inputs = [...annotations(40)];
    const stream = generator.stream(inputs);
    inputs[3]!.nodeId = 'changed';
    inputs.length = 5;
    const lengths = new Set<number>();
    const nodes: string[] = [];
    for await (const { nodeId, embedding } of stream) {
      nodes.push(nodeId);
      lengths.add(embedding.length);
      if (nodes.length === 2) await generator.initialize('builtin');
    }
    expect(nodes).toEqual(Array.from({ length: 40 }, (_, i) => `n${i}`));
    expect(lengths).toEqual(new Set([32]));
    expect(generator.getModelInfo().modelId).toBe('builtin');
  });

  test('when an input was read: a source may use one object again and again', async () => {
    const generator = await ready(demo);
    function* source() {
      const one = annotation(0);
      for (let i = 0; i < 100; i++) yield Object.assign(one, annotation(i));
    }
    expect((await all(generator.stream(source()))).map(({ nodeId, inputText }) => [nodeId, inputText])).toEqual(
      (await generator.generateEmbeddings([...annotations(100)])).map(({ nodeId, inputText }) => [nodeId, inputText]),
    );
  });
});

test('what was read before the source failed, or an input, is answered', async () => {
  const generator = await ready(demo);
  for (const count of [0, 10, 400]) {
    function* broken() {
      yield* texts(count);
      throw new Error('disk gone');
    }
    async function* slowly() {
      yield* broken();
    }
    for (const source of [broken(), slowly()]) {
      const end = await taken(generator.stream(source as Iterable<string>));
      expect(end).toMatchObject({ count, error: { code: 'ABORTED', cause: { message: 'disk gone' }, details: { index: count } } });
    }
    for (const bad of ['', null]) {
      const inputs = [...texts(count), bad as string, 'after it'];
      expect(await taken(generator.stream(inputs))).toMatchObject({ count, error: { code: 'INVALID_ARGUMENT', details: { index: count } } });
      expect(await taken(generator.stream(inputs, { onError: 'skip' }))).toEqual({ count: count + 2 });
    }
  }
});

test('reads no further ahead of a source that is always ready than some hundred items', async () => {
  const generator = await ready(demo);
  const read = { count: 0 };
  for await (const result of generator.stream(annotations(100_000, read))) {
    expect(result.nodeId).toBe('n0');
    break;
  }
  expect(read.count).toBeLessThan(2_000);
});
