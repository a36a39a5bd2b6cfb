// Every member that the contract promises is there, and the two spellings of a setting are one. What members do is
// tested where docs/compatibility.md says; what their types are, in contract.types.ts and conformance.test.ts.
import * as embedcore from 'embedcore';
import {
  DynamicBatchOptimizer,
  EmbeddingError,
  IntelligentEmbeddingCache,
  MemoryAwareProcessor,
  OptimizedEmbeddingGenerator,
  type CacheOptions,
  type GeneratorOptions,
} from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { failure, model, ready } from './support';

const modelPath = model('bert-mean');
const annotations = Array.from({ length: 40 }, (_, i) => ({ nodeId: `${i}`, signature: `f${i}()`, summary: 'Reads a file.' }));

test.each<[keyof typeof embedcore, (string | symbol)[]]>([
  ['IntelligentEmbeddingCache', ['set', 'get', 'getMany', 'setMany', 'getOrCompute', 'has', 'delete', 'clear', 'close', 'optimize', 'findSimilar', 'getStats', 'getPerformanceMetrics', Symbol.asyncDispose]],
  ['DynamicBatchOptimizer', ['recordPerformance', 'getCurrentBatchSize', 'optimize', 'reset', 'getConfig', 'getOptimizationRecommendation', 'getPerformanceAnalytics', 'getCurrentSystemMetrics']],
  ['MemoryAwareProcessor', ['processItems', 'processWithMemoryAwareness', 'selectOptimalStrategy', 'getCurrentMemoryMetrics', 'getProcessingRecommendations', 'stop']],
  ['OptimizedEmbeddingGenerator', ['initialize', 'generateEmbeddings', 'batchProcess', 'embed', 'embedQuery', 'stream', 'prepareText', 'getPerformanceMetrics', 'optimizePerformance', 'getModelInfo', 'isReady', 'cleanup', 'shutdown', Symbol.asyncDispose]],
])('%s has what is promised', (name, members) => {
  const { prototype } = embedcore[name] as unknown as { prototype: object };
  // On the prototype, where tests can replace them.
  for (const member of members) expect(Object.getOwnPropertyDescriptor(prototype, member)?.value, String(member)).toBeTypeOf('function');
});

test('a cache: both spellings are one, and not to be mixed', async () => {
  const settings = async (options: CacheOptions) => {
    const cache = new IntelligentEmbeddingCache(options);
    onTestFinished(() => cache.close());
    const { maxEntries, maxSizeBytes } = cache.getStats();
    return { maxEntries, maxSizeBytes };
  };
  const expected = { maxEntries: 7, maxSizeBytes: 3 * 2 ** 20 };
  expect(await settings({ maxEntries: 7, maxMemoryMB: 3, ttlSeconds: 60 })).toEqual(expected);
  expect(await settings({ maxEntries: 7, maxSizeBytes: 3 * 2 ** 20, ttlMs: 60_000 })).toEqual(expected);
  expect(await settings({})).toEqual({ maxEntries: 1000, maxSizeBytes: 100 * 2 ** 20 });
  for (const both of [{ maxMemoryMB: 3, maxSizeBytes: 3 * 2 ** 20 }, { ttlSeconds: 60, ttlMs: 60_000 }]) {
    const error = await failure(() => new IntelligentEmbeddingCache(both));
    expect(error).toMatchObject({ code: 'INVALID_CONFIG' });
    for (const name of Object.keys(both)) expect(error.message).toContain(name);
  }
});

test('a generator: both spellings give the same results', async () => {
  const documented: GeneratorOptions = { modelPath, cache: { maxEntries: 5 }, batchOptimizer: { maxBatchSize: 4 }, memoryProcessor: false };
  const code: GeneratorOptions = {
    modelPath, enableCaching: true, cacheConfig: { maxEntries: 5 }, enableBatchOptimization: true, batchConfig: { maxBatchSize: 4 }, enableMemoryAwareProcessing: false,
  };
  const [one, other] = [await ready(documented), await ready(code)];
  const results = await one.generateEmbeddings(annotations);
  const others = await other.batchProcess(annotations, { batchSize: 4, maxConcurrency: 1, memoryLimit: 512 });
  expect(others.map(({ nodeId, inputText }) => ({ nodeId, inputText }))).toEqual(results.map(({ nodeId, inputText }) => ({ nodeId, inputText })));
  for (const [i, { embedding }] of results.entries()) {
    for (const [k, value] of embedding.entries()) expect(others[i]!.embedding[k]).toBeCloseTo(value, 5);
  }
  for (const generator of [one, other]) {
    const metrics = generator.getPerformanceMetrics();
    expect(metrics.cache).toMatchObject({ maxEntries: 5, entries: 5, currentEntries: 5 });
    expect(metrics.cache.sizeBytes).toBe(metrics.cache.currentSizeBytes);
    expect(metrics.batchOptimization).toEqual(metrics.batchOptimizer);
    expect(metrics.memoryProcessing).toEqual(metrics.memoryProcessor);
    expect(metrics.memoryProcessor).toMatchObject({ enabled: false, currentStrategy: 'none' });
    expect(metrics.overallScore).toBe(metrics.overall.score);
  }
});

test('an optimizer: both spellings record the same', () => {
  const [one, other] = [new DynamicBatchOptimizer(8), new DynamicBatchOptimizer(8)];
  one.recordPerformance({ batchSize: 8, processingTime: 20, itemsProcessed: 8, success: true });
  one.recordPerformance({ batchSize: 8, processingTime: 20, itemsProcessed: 0, success: false });
  other.recordPerformance(8, 20, 8);
  other.recordPerformance(8, 20, 0, false);
  const told = ({ averageThroughput, averageBatchSize, averageProcessingTime, successRate }: ReturnType<typeof one.getPerformanceAnalytics>) => ({
    averageThroughput, averageBatchSize, averageProcessingTime, successRate,
  });
  expect(told(other.getPerformanceAnalytics())).toEqual(told(one.getPerformanceAnalytics()));
  expect(one.getPerformanceAnalytics().successRate).toBe(0.5);
});

test('a processor: both ways give the same results, and every batch is cleaned up after in an emergency', async () => {
  const processor = new MemoryAwareProcessor({ emergencyCleanupThreshold: 0.0001, gcThreshold: 100, memoryThresholds: { critical: 100, high: 99, normal: 98, low: 97 } });
  const items = Array.from({ length: 300 }, (_, i) => i);
  const work = async (batch: number[]) => batch.map((item) => item * 2);
  let batches = 0;
  const { results, stats } = await processor.processWithMemoryAwareness({ items, processor: (batch) => (batches++, work(batch)) });
  expect(results).toEqual(await processor.processItems(items, work));
  expect(stats).toMatchObject({ totalItems: 300, successfulItems: 300, failedItems: 0, memoryCleanups: batches });
  processor.stop();
});

test('before initialize, what reads or tidies up works', async () => {
  const generator = new OptimizedEmbeddingGenerator();
  expect(generator.getPerformanceMetrics()).toMatchObject({ overallScore: 0, overall: { calls: 0 } });
  await generator.optimizePerformance();
  await generator.cleanup();
  await generator.cleanup();
  const error = await failure(() => generator.generateEmbeddings(annotations));
  expect(error).toBeInstanceOf(EmbeddingError);
});
