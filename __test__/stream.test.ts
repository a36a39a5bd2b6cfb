import { setTimeout as sleep } from 'node:timers/promises';

import type { Annotation, EmbeddingResult } from 'embedcore';
import { expect, test } from 'vitest';

import { failure, model, ready } from './support';

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
