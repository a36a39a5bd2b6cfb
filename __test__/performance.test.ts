import { execFile } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { join } from 'node:path';
import { promisify } from 'node:util';

import {
  DynamicBatchOptimizer,
  getGlobalMonitor,
  MemoryAwareProcessor,
  MemoryLimitError,
  OptimizedEmbeddingGenerator,
  PerformanceMonitor,
  type GeneratorOptions,
  type MemoryEvent,
} from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { distance, failure, model, ready, root, texts } from './support';

const bert = { modelPath: model('bert-mean') };

describe('metrics', () => {
  test('before anything was done, everything is 0', async () => {
    const generator = new OptimizedEmbeddingGenerator(bert);
    const { overall, batchOptimizer, memoryProcessor, cache, overallScore } = generator.getPerformanceMetrics();
    expect(overall).toEqual({
      itemsProcessed: 0, totalProcessingTime: 0, averageItemTime: 0, errorRate: 0,
      calls: 0, failedCalls: 0, totalEmbeddings: 0, fromCache: 0, failed: 0, averageProcessingTime: 0, throughput: 0, cacheHitRatio: 0, score: 0,
    });
    expect(batchOptimizer).toMatchObject({ enabled: true, batches: 0, averageBatchSize: 0, learned: [] });
    expect(memoryProcessor).toMatchObject({ enabled: true, waits: 0, grantedBytes: 0 });
    expect(memoryProcessor.processBytes).toBeGreaterThan(2 ** 20);
    expect(cache).toMatchObject({ entries: 0, sizeBytes: 0, totalRequests: 0 });
    expect(overallScore).toBe(0);
    expect(await generator.optimizePerformance()).toMatchObject({ learned: [] });
    expect(generator.getPerformanceMetrics().stages).toEqual({});
    await generator.cleanup();
  });

  test('of every stage: how often, of how many texts, and how long', async () => {
    const monitor = new PerformanceMonitor();
    const generator = await ready({ ...bert, monitor });
    const all = texts(100);
    await generator.embed([...all, all[0]!]);
    await generator.embed(all);
    expect((await failure(() => generator.embed(['']))).code).toBe('INVALID_ARGUMENT');
    const { stages, overall, batchOptimizer, memoryProcessor } = generator.getPerformanceMetrics();
    const { batches } = batchOptimizer;
    expect(Object.keys(stages)).toEqual(['prepare', 'lookup', 'tokenize', 'plan', 'wait', 'infer', 'commit']);
    expect(stages.prepare).toMatchObject({ count: 3, items: 202 });
    expect(stages.lookup).toMatchObject({ count: 3, items: 201 });
    expect(stages.tokenize).toMatchObject({ count: 2, items: 101 });
    for (const stage of ['plan', 'wait', 'infer', 'commit'] as const) expect(stages[stage]).toMatchObject({ count: batches, items: 100, errors: 0 });
    expect(stages.infer!.total).toBeCloseTo(batchOptimizer.averageProcessingTime * batches, 6);
    expect(stages.wait!.total).toBeGreaterThanOrEqual(memoryProcessor.waitedMs);
    for (const { min, p50, p99, max, mean } of Object.values(stages)) {
      expect(min).toBeGreaterThanOrEqual(0);
      expect(p50).toBeLessThanOrEqual(p99);
      expect(max).toBeGreaterThanOrEqual(mean);
    }

    const summary = monitor.getSummary();
    for (const [name, { total }] of Object.entries(stages)) expect(summary.operations[`embedcore.${name}`]!.total).toBe(total);
    expect(summary.operations['embedcore.call']).toMatchObject({ count: 3, errors: 1, items: overall.totalEmbeddings });
    expect(summary.caches.byType).toEqual({ embedding: { type: 'embedding', hits: 100, misses: 101, hitRatio: 100 / 201 } });
    expect(summary.errors).toMatchObject([{ name: 'embedcore.call', message: expect.stringContaining('Text 0 is empty') }]);
    expect(monitor.toPrometheus()).toContain('operation="embedcore.infer"');

    // Another generator's work is its own, whoever else is told of it.
    const other = await ready({ ...bert, monitor, cache: false });
    await other.embed(['one']);
    expect(Object.keys(other.getPerformanceMetrics().stages)).toEqual(['prepare', 'tokenize', 'plan', 'wait', 'infer']);
    expect(other.getPerformanceMetrics().stages.infer).toMatchObject({ count: 1, items: 1 });
    expect(monitor.getStats('embedcore.infer')).toMatchObject({ count: batches + 1 });
    expect(monitor.getSummary().caches.byType.embedding!.misses).toBe(101);
  });

  test('go to the global monitor unless somebody else is named, or nobody', async () => {
    const calls = () => getGlobalMonitor().getStats('embedcore.call')?.count ?? 0;
    const before = calls();
    await (await ready(bert)).embed(['one']);
    expect(calls()).toBe(before + 1);
    const unwatched = await ready({ ...bert, monitor: false });
    await unwatched.embed(['one']);
    expect(calls()).toBe(before + 1);
    expect(unwatched.getPerformanceMetrics().stages.infer).toMatchObject({ count: 1 });
    // What a user stops is no fault, and a reset of the monitor changes nothing about the generator.
    const monitor = new PerformanceMonitor();
    const generator = await ready({ ...bert, monitor });
    await generator.embed(['one']);
    monitor.reset();
    expect((await failure(() => generator.embed(texts(5000), { signal: AbortSignal.timeout(1) }))).code).toBe('ABORTED');
    expect(monitor.getSummary().errors).toEqual([]);
    expect(generator.getPerformanceMetrics().overall.calls).toBeGreaterThanOrEqual(1);
    for (const bad of [{}, null, true, 'global', new Map()]) {
      const error = await failure(() => new OptimizedEmbeddingGenerator({ monitor: bad } as never));
      expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'monitor' } });
    }
  });

  test('count what was done, exactly', async () => {
    const generator = await ready(bert);
    const all = texts(100);
    await generator.embed(all);
    await generator.embed([...all.slice(0, 30), '', 'new'], { onError: 'skip' });
    expect((await failure(() => generator.embed(['']))).code).toBe('INVALID_ARGUMENT');
    const metrics = generator.getPerformanceMetrics();
    expect(metrics.overall).toMatchObject({ calls: 3, failedCalls: 1, totalEmbeddings: 132, fromCache: 30, failed: 1, cacheHitRatio: 30 / 132 });
    const { batches, averageBatchSize, tokens, paddedTokens, successRate } = metrics.batchOptimizer;
    expect(batches * averageBatchSize).toBeCloseTo(101);
    expect(successRate).toBe(1);
    // Whole texts, of which the model sees no more than it can.
    const { tokenCounts } = await generator.embed([...all, 'new']);
    const { maxLength } = generator.getModelInfo();
    expect(tokens).toBe(tokenCounts.reduce((sum, count) => sum + Math.min(count, maxLength), 0));
    expect(paddedTokens).toBeGreaterThanOrEqual(tokens);
    expect(metrics.cache).toMatchObject({ entries: 101, hits: 30 });
    expect(metrics.batchOptimization).toEqual(metrics.batchOptimizer);
    expect(metrics.memoryProcessing).toEqual(metrics.memoryProcessor);
    expect(metrics.overallScore).toBe(metrics.overall.score);
    expect(metrics.overallScore).toBeGreaterThan(0);
    expect(metrics.overallScore).toBeLessThanOrEqual(1);
    expect(JSON.parse(JSON.stringify(metrics))).toEqual(metrics);
    const report = await generator.optimizePerformance();
    expect(report.freedBytes).toBeGreaterThanOrEqual(0);
    expect(distance((await generator.embed(all)).data, (await generator.embed(all, { bypassCache: true })).data)).toBeLessThanOrEqual(1e-6);
  });

  test('without a cache its figures are zeros', async () => {
    const generator = await ready({ ...bert, cache: false });
    await generator.embed(['a', 'a']);
    expect(generator.getPerformanceMetrics()).toMatchObject({ cache: { enabled: false, entries: 0, totalRequests: 0 }, overall: { totalEmbeddings: 2, fromCache: 0 } });
    expect((await generator.optimizePerformance()).cache).toBeNull();
  });
});

describe('settings', () => {
  test.each<GeneratorOptions>([
    {},
    { batchOptimizer: false, memoryProcessor: false },
    { enableBatchOptimization: false, enableMemoryAwareProcessing: false },
    { batchConfig: { maxBatchSize: 4, minSamples: 1 }, memoryConfig: { memoryThresholds: { low: 10 } } },
    { enableBatchOptimization: true },
    { batchOptimizer: new DynamicBatchOptimizer(3), memoryProcessor: new MemoryAwareProcessor() },
  ])('make no difference to vectors: %j', async (options) => {
    const plain = await ready({ ...bert, batchOptimizer: false, cache: false });
    const generator = await ready({ ...bert, ...options, cache: false });
    const all = texts(400);
    expect(distance((await generator.embed(all)).data, (await plain.embed(all)).data)).toBeLessThanOrEqual(1e-6);
    const metrics = generator.getPerformanceMetrics();
    const off = options.batchOptimizer === false || options.enableBatchOptimization === false;
    expect([metrics.batchOptimizer.enabled, metrics.memoryProcessor.enabled]).toEqual([!off, !off]);
    if (off) expect(metrics.batchOptimizer.learned).toEqual([]);
  });

  test('threads are measured where that is asked for', async () => {
    const plain = await ready({ ...bert, cache: false });
    const measured = await ready({ ...bert, intraOpThreads: 'auto', cache: false });
    expect(measured.getModelInfo().intraOpThreads).toBeGreaterThanOrEqual(1);
    expect(measured.getModelInfo().fingerprint).toBe(plain.getModelInfo().fingerprint);
    expect(distance((await measured.embed(texts(60))).data, (await plain.embed(texts(60))).data)).toBeLessThanOrEqual(1e-5);
    const error = await failure(() => new OptimizedEmbeddingGenerator({ ...bert, intraOpThreads: 'many' as 'auto' }));
    expect(error.message).toContain('intraOpThreads');
  });

  test('an optimizer of the caller decides and learns', async () => {
    const batchOptimizer = new DynamicBatchOptimizer(3, { minSamples: 10_000 });
    const generator = await ready({ ...bert, batchOptimizer, cache: false });
    await generator.embed(texts(600));
    const { averageBatchSize } = generator.getPerformanceMetrics().batchOptimizer;
    expect(averageBatchSize).toBeGreaterThan(2);
    expect(averageBatchSize).toBeLessThanOrEqual(3);
    const { averageBatchSize: learned, recentHistory } = batchOptimizer.getPerformanceAnalytics();
    expect(learned).toBe(3);
    expect(recentHistory.length).toBeGreaterThan(0);
  });

  test('memory above the critical threshold means one text at a time, and is reported', async () => {
    const seen: MemoryEvent[] = [];
    const listener = (event: unknown) => void seen.push(event as MemoryEvent);
    subscribe('embedcore:memory', listener);
    onTestFinished(() => void unsubscribe('embedcore:memory', listener));
    const memoryThresholds = { critical: 0, high: 0, normal: 0, low: 0 };
    const generator = await ready({ ...bert, memoryProcessor: { memoryThresholds }, cache: false });
    const all = texts(50);
    const embedded = await generator.embed(all);
    const metrics = generator.getPerformanceMetrics();
    expect(metrics.batchOptimizer).toMatchObject({ batches: 50, averageBatchSize: 1 });
    expect(metrics.memoryProcessor.currentStrategy).toBe('streaming');
    const strategies = [{ name: 'two', maxBatchSize: 2, approach: 'parallel' as const, memoryOverhead: 1, cpuOverhead: 1, cleanupFrequency: 1 }];
    const pairs = await ready({ ...bert, memoryProcessor: { strategies }, cache: false });
    expect(distance((await pairs.embed(all)).data, embedded.data)).toBeLessThanOrEqual(1e-6);
    expect(pairs.getPerformanceMetrics().batchOptimizer.averageBatchSize).toBe(2);
    // Whatever fills memory, the next look at the machine notices it.
    const roomy = await ready({ ...bert, memoryLimit: 8000, memoryProcessor: { memoryThresholds: { critical: 100, high: 99, normal: 1, low: 0 } } });
    expect(seen).toEqual([]);
    const held = Buffer.alloc(256 * 2 ** 20, 1);
    for (const started = Date.now(); seen.length === 0 && Date.now() - started < 30_000; ) {
      await roomy.embed(texts(5), { bypassCache: true });
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(seen).toMatchObject([{ type: 'strategy-changed', before: 'aggressive', after: 'balanced' }]);
    expect(seen[0]!.usagePercent).toBeGreaterThanOrEqual(1);
    expect(held.length).toBe(256 * 2 ** 20);
  });

  test.each<[string, object, string]>([
    ['batchOptimizer', { batchOptimizer: {}, batchConfig: {} }, 'INVALID_CONFIG'],
    ['batchOptimizer', { batchOptimizer: false, enableBatchOptimization: false }, 'INVALID_CONFIG'],
    ['enableBatchOptimization', { enableBatchOptimization: 'no' }, 'INVALID_CONFIG'],
    ['memoryProcessor', { memoryProcessor: {}, enableMemoryAwareProcessing: true }, 'INVALID_CONFIG'],
    ['strategies', { memoryProcessor: { strategies: [] } }, 'INVALID_CONFIG'],
    ['memoryThresholds', { memoryConfig: { memoryThresholds: { critical: 10 } } }, 'INVALID_CONFIG'],
    ['aggressiveness', { batchOptimizer: { aggressiveness: 2 } }, 'INVALID_CONFIG'],
    ['memoryLimit', { memoryLimit: 0 }, 'INVALID_CONFIG'],
    ['memoryLimit', { memoryLimit: 0.5 }, 'INVALID_CONFIG'],
    ['memoryLimit', { memoryLimit: Number.NaN }, 'INVALID_CONFIG'],
    ['batchOptimizer', { batchOptimizer: 3 }, 'INVALID_CONFIG'],
  ])('%s is refused by name: %j', async (name, options, code) => {
    const error = await failure(() => new OptimizedEmbeddingGenerator(options as GeneratorOptions));
    expect(error.code).toBe(code);
    expect(error.message).toContain(name);
  });
});

describe('the ceiling', () => {
  test('a model that cannot fit is refused, with need and limit, and the generator stays usable', async () => {
    const generator = new OptimizedEmbeddingGenerator({ ...bert, memoryLimit: 10 });
    const error = await failure(() => generator.initialize());
    expect(error).toBeInstanceOf(MemoryLimitError);
    expect(error.message).toMatch(/needs more memory.*\d+ MB.*limit is 10 MB/);
    expect(error.details.need).toBeGreaterThan(10 * 2 ** 20);
    expect(error.details.limit).toBe(10 * 2 ** 20);
    expect(generator.isReady()).toBe(false);
    await generator.cleanup();
  });

  test('the limit of a call is the working memory of its batches', async () => {
    const generator = await ready({ ...bert, cache: false });
    const annotations = texts(300).map((summary, i) => ({ nodeId: `n${i}`, signature: '', summary }));
    const free = await generator.batchProcess(annotations);
    const limited = await generator.batchProcess(annotations, { memoryLimit: 1, batchSize: 50, maxConcurrency: 2 });
    expect(limited.map(({ nodeId }) => nodeId)).toEqual(free.map(({ nodeId }) => nodeId));
    for (const [i, { embedding }] of limited.entries()) expect(distance(embedding, free[i]!.embedding)).toBeLessThanOrEqual(1e-6);
    expect((await failure(() => generator.batchProcess(annotations, { memoryLimit: -1 }))).message).toContain('memoryLimit');
  });

  test.runIf(process.platform === 'linux')('holds for a process that streams', async () => {
    const run = promisify(execFile);
    const { stdout } = await run(process.execPath, [join(root, '__test__', 'programs', 'ceiling.cjs'), '200', '5000']);
    const { results, peak, waits } = JSON.parse(stdout) as { results: number; peak: number; waits: number };
    expect(results).toBe(5_000);
    expect(peak, `waited ${waits} times`).toBeLessThan(200);
  });
});
