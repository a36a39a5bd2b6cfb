import { execFileSync } from 'node:child_process';

import { DynamicBatchOptimizer, EmbeddingError, type BatchOptimizerOptions, type BatchRecord } from 'embedcore';
import { describe, expect, test } from 'vitest';

import { failure, root } from './support';

/** Milliseconds that a batch of `n` takes on a machine where 20 is best: above, something no longer fits. */
const machine = (n: number) => 50 + n + (n > 20 ? 20 * (n - 20) : 0);

function drive(optimizer: DynamicBatchOptimizer, batches: number, time = machine): number {
  for (let i = 0; i < batches; i++) {
    const batchSize = optimizer.getCurrentBatchSize();
    optimizer.recordPerformance({ batchSize, processingTime: time(batchSize), itemsProcessed: batchSize, cpuUsage: 50, memoryUsage: 40 });
  }
  return optimizer.getCurrentBatchSize();
}

test('finds the best size within 30 batches, and keeps it', () => {
  const optimizer = new DynamicBatchOptimizer();
  drive(optimizer, 30);
  const { recommendedBatchSize, confidence, resourcePrediction } = optimizer.getOptimizationRecommendation();
  expect(recommendedBatchSize).toBeGreaterThanOrEqual(19);
  expect(recommendedBatchSize).toBeLessThanOrEqual(21);
  expect(confidence).toBeGreaterThan(0.5);
  expect(resourcePrediction).toMatchObject({ cpuUsage: 50, memoryUsage: 40 });
  expect(resourcePrediction.throughput).toBeCloseTo((recommendedBatchSize / machine(recommendedBatchSize)) * 1000, 0);
  drive(optimizer, 200);
  expect(optimizer.getOptimizationRecommendation().recommendedBatchSize).toBe(recommendedBatchSize);
  drive(optimizer, 20, (n) => 5 + n * n);
  expect(optimizer.getOptimizationRecommendation().recommendedBatchSize).toBeLessThanOrEqual(4);
});

test('both spellings are one', () => {
  const named = new DynamicBatchOptimizer(8, { minSamples: 3 });
  const positional = new DynamicBatchOptimizer(8, { minSamples: 3 });
  for (let i = 0; i < 25; i++) {
    const size = named.getCurrentBatchSize();
    expect(positional.getCurrentBatchSize()).toBe(size);
    named.recordPerformance({ batchSize: size, processingTime: machine(size), itemsProcessed: size, success: i !== 7, memoryUsage: 10 });
    positional.recordPerformance(size, machine(size), size, i !== 7);
  }
  const history = positional.getPerformanceAnalytics().recentHistory;
  expect(history).toHaveLength(20);
  for (const record of history) {
    expect(record.memoryUsage).toBeGreaterThan(0);
    expect(record.memoryUsage).toBeLessThanOrEqual(100);
    expect(record.cpuUsage).toBeLessThanOrEqual(100);
    expect(Math.abs(record.timestamp - Date.now())).toBeLessThan(600_000);
  }
  expect(history.filter(({ success }) => !success)).toHaveLength(1);
});

test('below minSamples nothing changes', () => {
  const optimizer = new DynamicBatchOptimizer(64, { targetMemoryUsage: 50, targetCpuUsage: 50 });
  for (let i = 0; i < 5; i++) {
    optimizer.recordPerformance({ batchSize: 64, processingTime: 2000, itemsProcessed: 64, memoryUsage: 85, cpuUsage: 90 });
  }
  const { recommendations, recentHistory, optimizationScore } = optimizer.getPerformanceAnalytics();
  expect(recommendations.recommendedBatchSize).toBe(64);
  expect(recommendations.confidence).toBeLessThanOrEqual(0.1);
  expect(recommendations.confidence).toBeGreaterThan(0);
  expect(recommendations.reason).toContain('Insufficient performance data');
  expect(recommendations.expectedImprovement).toBe(0);
  expect(recentHistory).toHaveLength(5);
  expect(optimizationScore).toBeGreaterThan(0);
  expect(optimizer.optimize()).toBe(64);
});

test('memory above its target makes batches smaller', () => {
  const optimizer = new DynamicBatchOptimizer(64, { minSamples: 3 });
  for (let i = 0; i < 4; i++) {
    optimizer.recordPerformance({ batchSize: 64, processingTime: 100, itemsProcessed: 64, memoryUsage: 90 });
  }
  expect(optimizer.getCurrentBatchSize()).toBeLessThanOrEqual(32);
  const { recommendedBatchSize, reason } = optimizer.getOptimizationRecommendation();
  expect(recommendedBatchSize).toBeLessThanOrEqual(32);
  expect(reason).toContain('memory usage');
});

test('analytics', () => {
  const optimizer = new DynamicBatchOptimizer(10, { historyRetention: 10 });
  const none = optimizer.getPerformanceAnalytics();
  expect(none).toMatchObject({ averageThroughput: 0, averageBatchSize: 0, successRate: 0, recentHistory: [] });
  for (let i = 0; i < 15; i++) {
    optimizer.recordPerformance({ batchSize: 10, processingTime: i < 10 ? 100 : 50, itemsProcessed: 10, cpuUsage: 40, memoryUsage: 50 });
  }
  expect(optimizer.getPerformanceAnalytics()).toMatchObject({
    averageThroughput: expect.closeTo(100 / 0.75, 6),
    averageBatchSize: 10,
    averageProcessingTime: 75,
    successRate: 1,
    resourceScore: 1,
    resourceUtilization: expect.closeTo(0.45, 9),
    trends: { throughputTrend: expect.closeTo(1, 9), memoryTrend: 0, cpuTrend: 0 },
    recommendations: { recommendedBatchSize: expect.any(Number) },
    currentMetrics: { cpuCores: expect.any(Number) },
  });
  optimizer.reset();
  expect(optimizer.getPerformanceAnalytics().recentHistory).toEqual([]);
});

test('the machine', () => {
  const metrics = new DynamicBatchOptimizer().getCurrentSystemMetrics();
  expect(metrics.totalMemory).toBeGreaterThan(2 ** 20);
  expect(metrics.availableMemory).toBeLessThanOrEqual(metrics.totalMemory);
  expect(metrics.memoryUsage).toBeCloseTo((1 - metrics.availableMemory / metrics.totalMemory) * 100, 6);
  expect(metrics.cpuUsage).toBeGreaterThanOrEqual(0);
  expect(metrics.cpuUsage).toBeLessThanOrEqual(100);
  expect(metrics.loadAverage).toHaveLength(3);
  expect(metrics.cpuCores).toBeGreaterThanOrEqual(1);
});

describe('bad input', () => {
  test('bounds in the wrong order are swapped', () => {
    const optimizer = new DynamicBatchOptimizer(32, { minBatchSize: 10, maxBatchSize: 5 });
    expect(optimizer.getConfig()).toEqual({
      minBatchSize: 5,
      maxBatchSize: 10,
      targetCpuUsage: 70,
      targetMemoryUsage: 75,
      minSamples: 10,
      historyRetention: 100,
      aggressiveness: 0.3,
    });
    expect(optimizer.getCurrentBatchSize()).toBe(10);
    expect(() => optimizer.getOptimizationRecommendation()).not.toThrow();
    drive(optimizer, 50);
    expect(optimizer.getCurrentBatchSize()).toBeGreaterThanOrEqual(5);
  });

  test('options that make no sense are refused by name', async () => {
    const cases: [BatchOptimizerOptions | null, string][] = [
      [{ minBatchSize: 0 }, 'minBatchSize'],
      [{ maxBatchSize: -1 }, 'maxBatchSize'],
      [{ maxBatchSize: 1.5 }, 'maxBatchSize'],
      [{ targetCpuUsage: NaN }, 'targetCpuUsage'],
      [{ targetMemoryUsage: 101 }, 'targetMemoryUsage'],
      [{ aggressiveness: 2 }, 'aggressiveness'],
      [{ minSamples: -1 }, 'minSamples'],
      [{ historyRetention: '5' as never }, 'historyRetention'],
      [{ unknown: 1 } as never, 'unknown'],
      [null, 'options'],
    ];
    for (const [options, names] of cases) {
      const error = await failure(() => new DynamicBatchOptimizer(32, options as BatchOptimizerOptions));
      expect(error).toBeInstanceOf(EmbeddingError);
      expect({ code: error.code, message: error.message }).toEqual({ code: 'INVALID_CONFIG', message: expect.stringContaining(names) });
    }
    for (const initial of [0, -1, NaN, 1.5, Infinity, '8' as never, null as never]) {
      expect((await failure(() => new DynamicBatchOptimizer(initial))).code).toBe('INVALID_ARGUMENT');
    }
  });

  test('records that cannot be are refused and change nothing', async () => {
    const optimizer = new DynamicBatchOptimizer(32, { minSamples: 2 });
    drive(optimizer, 5);
    const state = () => {
      const { currentMetrics: _, ...rest } = optimizer.getPerformanceAnalytics();
      return JSON.stringify([rest, optimizer.getCurrentBatchSize()]);
    };
    const before = state();
    const good: BatchRecord = { batchSize: 8, processingTime: 10, itemsProcessed: 8 };
    const bad: unknown[] = [
      { batchSize: 0 },
      { batchSize: -8 },
      { batchSize: 1.5 },
      { batchSize: NaN },
      { batchSize: '8' },
      { processingTime: NaN },
      { processingTime: -1 },
      { processingTime: Infinity },
      { processingTime: undefined },
      { itemsProcessed: -1 },
      { itemsProcessed: NaN },
      { itemsProcessed: undefined },
      { tokens: -1 },
      { tokens: Infinity },
      { cpuUsage: NaN },
      { cpuUsage: -1 },
      { memoryUsage: Infinity },
      { memoryUsage: 'much' },
      { success: 'yes' },
    ].map((change) => ({ ...good, ...change }));
    for (const record of [...bad, null, undefined, 'record', {}, []]) {
      const error = await failure(() => optimizer.recordPerformance(record as BatchRecord));
      expect({ record, code: error.code }).toEqual({ record, code: 'INVALID_ARGUMENT' });
    }
    expect((await failure(() => optimizer.recordPerformance(8, NaN, 8))).code).toBe('INVALID_ARGUMENT');
    expect((await failure(() => optimizer.recordPerformance(8, 10, undefined as never))).code).toBe('INVALID_ARGUMENT');
    expect((await failure(() => optimizer.recordPerformance(8, 10, 8, 1 as never))).code).toBe('INVALID_ARGUMENT');
    expect(state()).toBe(before);
  });
});

test('does not keep the process alive', () => {
  const code = `const { DynamicBatchOptimizer } = require(${JSON.stringify(root)});
    globalThis.optimizer = new DynamicBatchOptimizer();
    optimizer.recordPerformance(32, 100, 32);
    console.log(optimizer.getCurrentSystemMetrics().cpuCores > 0);`;
  expect(execFileSync(process.execPath, ['-e', code], { encoding: 'utf8', timeout: 30_000 })).toBe('true\n');
});
