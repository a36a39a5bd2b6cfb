// What a caller gives need not be readable, and its functions may be asynchronous: each is an error about it, and nobody waits for ever.
import { getEventListeners } from 'node:events';

import { EmbeddingError, InferenceCache, IntelligentEmbeddingCache, MemoryAwareProcessor, OptimizedEmbeddingGenerator, type Annotation, type EmbeddingResult } from 'embedcore';
import { expect, onTestFinished, test, vi } from 'vitest';

import { failure, model, ready } from './support';

const thrower = (values: unknown[], at: number | 'length') => new Proxy(values, {
  get: (target, name, receiver) => {
    if (name === String(at)) throw new Error('unreadable');
    return Reflect.get(target, name, receiver) as unknown;
  },
});
const revoked = () => {
  const { proxy, revoke } = Proxy.revocable([], {});
  revoke();
  return proxy as never;
};
const cacheOf = () => {
  const cache = new IntelligentEmbeddingCache();
  onTestFinished(() => cache.close());
  return cache;
};

test('an element that cannot be read is an error about it', async () => {
  const generator = await ready({});
  const [cache, results, processor] = [cacheOf(), new InferenceCache(), new MemoryAwareProcessor()];
  onTestFinished(() => (processor.stop(), results.close()));
  const texts = () => thrower(['a', 'b', 'c'], 1) as string[];
  const calls: [string, () => unknown, number?][] = [
    ['embed', () => generator.embed(texts()), 1],
    ['countTokens', () => generator.countTokens(texts()), 1],
    ['splitMany', () => generator.splitMany(texts())],
    ['embedImages', () => generator.embedImages(texts())],
    ['getMany', () => cache.getMany(thrower([{ key: 'a', content: 'c' }, {}], 1) as never), 1],
    ['getMany of what throws', () => cache.getMany([{ key: 'a', get content(): string { throw new Error('unreadable'); } }]), 0],
    ['getMany of what is gone', () => cache.getMany([revoked()])],
    ['setMany', () => cache.setMany(thrower([{ key: 'a', content: 'c', embedding: [1] }, {}], 1) as never)],
    ['set of a result', () => cache.set({ nodeId: 'n', signature: 's', summary: '' }, { get embedding(): number[] { throw new Error('unreadable'); } } as unknown as EmbeddingResult)],
    ['a vector without length', () => cache.set('a', 'c', thrower([1], 'length') as number[])],
    ['a computed one', () => cache.getOrCompute('b', 'c', () => thrower([1], 'length') as number[])],
    ['results', () => results.getMany(thrower([{ content: 'a' }], 0) as never)],
    ['items', () => processor.processItems(thrower([1, 2], 1), (batch) => batch)],
    ['selectOptimalStrategy', () => processor.selectOptimalStrategy({ get memoryUsagePercent(): number { throw new Error('unreadable'); } })],
    ['selectOptimalStrategy of no number', () => processor.selectOptimalStrategy({ memoryUsagePercent: NaN })],
  ];
  for (const [what, call, index] of calls) {
    const error = await failure(call);
    expect(error, what).toBeInstanceOf(EmbeddingError);
    expect(error, what).toMatchObject({ code: 'INVALID_ARGUMENT', ...(index !== undefined && { details: { index } }) });
  }
  const skipped = await generator.embed(texts(), { onError: 'skip' });
  expect([...skipped.errors.keys()]).toEqual([1]);
  for (const options of [{ maxEntries: revoked() }, { logger: revoked() }]) expect(await failure(() => new IntelligentEmbeddingCache(options))).toMatchObject({ code: 'INVALID_CONFIG' });
  expect(await failure(() => new MemoryAwareProcessor({ strategies: revoked() }))).toMatchObject({ code: 'INVALID_CONFIG' });
  expect(await failure(() => processor.processItems([1], () => thrower([1], 0)))).toMatchObject({ code: 'EMBEDDING_GENERATION_FAILED' });
});

test('a hole is no entry, and moves no other', async () => {
  const cache = cacheOf();
  const entry = (key: string, embedding: number[]) => ({ key, content: 'c', embedding });
  // eslint-disable-next-line no-sparse-arrays
  expect(await failure(() => cache.setMany([entry('a', [1, 1]), , entry('b', [2, 2])] as never))).toMatchObject({ code: 'INVALID_ARGUMENT', details: { index: 1 } });
  expect(await cache.get('a', 'c')).toBeNull();
  const results = new InferenceCache();
  onTestFinished(() => results.close());
  // eslint-disable-next-line no-sparse-arrays
  expect(['INVALID_ARGUMENT', 'INVALID_CONFIG']).toContain((await failure(() => results.setMany([{ content: 'a', value: 1 }, , { content: 'b', value: 2 }] as never))).code);
  const generator = await ready({});
  // eslint-disable-next-line no-sparse-arrays
  expect(await failure(() => generator.splitMany([, 'a'] as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
});

test('lookups of annotations see what was set, deleted and cleared before, and nothing later', async () => {
  const cache = cacheOf();
  const generator = await ready({ cache });
  const annotation: Annotation = { nodeId: 'n', signature: 's', summary: 'is known' };
  const result = { nodeId: 'n', embedding: [1], inputText: '', modelUsed: 'm', processingTime: 0 } as EmbeddingResult;
  const [, one, , none, has] = await Promise.all([cache.set(annotation, result), cache.get(annotation), cache.delete(annotation), cache.get(annotation), cache.has(annotation)]);
  expect([one?.embedding, none, has]).toEqual([[1], null, false]);
  await generator.batchProcess([annotation]);
  const [kept, there] = await Promise.all([cache.get(annotation), cache.has(annotation), cache.clear()]);
  expect([kept?.fromCache, there]).toEqual([true, true]);
  expect(await cache.get(annotation)).toBeNull();
});

test('a computation that asks for itself is refused instead of waiting for ever', async () => {
  const [cache, results] = [cacheOf(), new InferenceCache()];
  onTestFinished(() => results.close());
  expect(await failure(() => cache.getOrCompute('k', 'c', () => cache.getOrCompute('k', 'c', () => [1]) as never))).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('wait for ever') });
  const vector = async (key: string, next: string): Promise<number[]> => (await cache.getOrCompute(key, 'c', () => vector(next, key))).embedding;
  expect(await failure(() => vector('a', 'b'))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect(await failure(() => results.getOrCompute('a', {}, () => results.getOrCompute('a', {}, () => 1)))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  // Neither is in the way of anybody later.
  expect((await cache.getOrCompute('k', 'c', async () => (await cache.getOrCompute('l', 'c', () => [2])).embedding)).embedding).toEqual([2]);
});

test('a callback that rejects ends its call, and a logger that does so nothing', async () => {
  const rejected = vi.fn();
  process.on('unhandledRejection', rejected);
  onTestFinished(() => void process.off('unhandledRejection', rejected));
  const generator = await ready({ modelPath: model('bert-mean') });
  const texts = Array.from({ length: 2000 }, (_, i) => `text ${i} of some words`);
  const progressCallback = async () => { throw new Error('on purpose'); };
  const ended = await generator.embed(texts, { progressCallback, batchSize: 16 }).then(() => 'done', (error: EmbeddingError) => error.code);
  expect(ended).toBe('ABORTED');
  const processor = new MemoryAwareProcessor();
  onTestFinished(() => processor.stop());
  const onProgress = async () => { throw new Error('on purpose'); };
  await processor.processItems(Array.from({ length: 10 }), (batch) => batch, { onProgress }).catch(() => {});
  const tell = async () => { throw new Error('on purpose'); };
  const told = await ready({ logger: { debug: tell, info: tell, warn: tell, error: tell } });
  expect((await told.embed(['a'])).rows).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(rejected).not.toHaveBeenCalled();
});

test('one signal may stop many calls', async () => {
  const warned = vi.fn();
  process.on('warning', warned);
  onTestFinished(() => void process.off('warning', warned));
  const generator = await ready({ modelPath: model('bert-mean') });
  const { signal, abort } = (() => { const controller = new AbortController(); return { signal: controller.signal, abort: () => controller.abort() }; })();
  await Promise.all(Array.from({ length: 20 }, (_, i) => generator.embed([`text ${i}`], { signal })));
  expect(getEventListeners(signal, 'abort')).toEqual([]);
  const calls = Array.from({ length: 20 }, (_, i) => failure(() => generator.embed(Array.from({ length: 500 }, (_, j) => `${i} ${j} ${'word '.repeat(100)}`), { signal })));
  abort();
  expect((await Promise.all(calls)).map(({ code }) => code)).toEqual(Array(20).fill('ABORTED'));
  await new Promise((resolve) => setImmediate(resolve));
  expect(warned).not.toHaveBeenCalled();
  const deaf = { aborted: false, addEventListener: () => { throw new Error('deaf'); } };
  expect(await failure(() => generator.embed(['a'], { signal: deaf as never }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'signal' } });
  const forgetful = { aborted: false, addEventListener: () => {} };
  expect((await generator.embed(['a'], { signal: forgetful as never })).rows).toBe(1);
});

test('a cache that was closed meanwhile fails no tidying up, and a query says what it cannot take', async () => {
  const cache = new IntelligentEmbeddingCache();
  const generator = await ready({ cache });
  await cache.close();
  expect(await generator.optimizePerformance()).toMatchObject({ cache: null });
  expect(await failure(() => generator.embedQuery('x', { onError: 'banana' as never }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'onError' } });
  expect(new OptimizedEmbeddingGenerator({}).isReady()).toBe(false);
});
