import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  DynamicBatchOptimizer,
  EmbeddingError,
  MemoryAwareProcessor,
  type MemoryMetrics,
  type MemoryProcessorOptions,
  type ProcessingStrategy,
} from 'embedcore';
import { describe, expect, onTestFinished, test, vi } from 'vitest';

// Not part of the package's surface: invents the machine's memory.
import { feed } from '../dist/memory/processor.js';
import { failure, root } from './support';

const GB = 2 ** 30;

function make(options?: MemoryProcessorOptions): MemoryAwareProcessor {
  const processor = new MemoryAwareProcessor(options);
  onTestFinished(() => processor.stop());
  return processor;
}

/** A processor on a machine whose memory usage, in percent, is what `usage` says. */
function invented(usage: () => number, options?: MemoryProcessorOptions): MemoryAwareProcessor {
  const processor = make(options);
  feed(processor as never, () => [GB, GB * (1 - usage() / 100)]);
  return processor;
}

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

const one: ProcessingStrategy = {
  name: 'one',
  maxBatchSize: 4,
  approach: 'sequential',
  memoryOverhead: 0.1,
  cpuOverhead: 0.1,
  cleanupFrequency: 2,
};

/** Numbers between 0 and 1, the same each time. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

describe('processItems', () => {
  test('keeps the order, whatever memory does and whenever batches finish', async () => {
    let changes = 0;
    for (let seed = 1; seed <= 20; seed++) {
      const next = random(seed);
      let usage = 20;
      const seen: number[] = [];
      const progress: number[] = [];
      const processor = invented(() => (usage = Math.min(100, Math.max(0, usage + (next() - 0.5) * 60))), { monitoringInterval: 1 });
      const results = await processor.processItems(
        numbers(700),
        async (batch) => {
          seen.push(...batch);
          if (next() < 0.3) await sleep(next() * 3);
          return batch.map((item) => item * 2);
        },
        {
          onProgress: (done, total) => {
            progress.push(done);
            expect(total).toBe(700);
          },
          onStrategyChange: (before, after) => {
            changes++;
            expect(before.name).not.toBe(after.name);
          },
        },
      );
      expect(results).toEqual(numbers(700).map((item) => item * 2));
      expect(seen.toSorted((a, b) => a - b)).toEqual(numbers(700));
      expect(progress).toEqual(progress.toSorted((a, b) => a - b));
      expect(progress.at(-1)).toBe(700);
    }
    expect(changes).toBeGreaterThan(20);
  });

  test('makes batches that fit the strategy, and no more at a time than it allows', async () => {
    for (const [usage, size, atATime] of [
      [20, 128, Infinity],
      [60, 32, Infinity],
      [75, 8, 1],
      [95, 1, 1],
    ] as const) {
      let running = 0;
      let most = 0;
      const sizes: number[] = [];
      await invented(() => usage).processItems(numbers(300), async (batch) => {
        sizes.push(batch.length);
        most = Math.max(most, ++running);
        await sleep(1);
        running--;
        return batch;
      });
      expect(Math.max(...sizes)).toBe(size);
      expect(most).toBeLessThanOrEqual(atATime);
      expect(most).toBeLessThan(300 / size + 1);
    }
  });

  test('does not go on while nobody is ready', async () => {
    let started = 0;
    let release = () => {};
    const gate = new Promise<void>((resolve) => (release = resolve));
    const work = invented(() => 75).processItems(numbers(100), async (batch) => {
      started++;
      await gate;
      return batch;
    });
    await sleep(30);
    expect(started).toBe(1);
    release();
    expect(await work).toHaveLength(100);
  });

  test('takes functions that answer at once, no items at all, holes and undefined', async () => {
    const processor = make();
    expect(await processor.processItems([], () => expect.fail('there is nothing to do'))).toEqual([]);
    expect(await processor.processItems([1, undefined, null], (batch) => batch.map(String))).toEqual(['1', 'undefined', 'null']);
    expect(await processor.processItems(new Array(3), (batch) => batch.map(String))).toEqual(Array(3).fill('undefined'));
    expect(await processor.processItems([1, 2], () => [undefined, undefined])).toEqual([undefined, undefined]);
  });

  test('rejects with the first failure, and makes no further call', async () => {
    let calls = 0;
    const cause = new Error('no model');
    const error = await failure(() =>
      invented(() => 75).processItems(numbers(100), async (batch) => {
        calls++;
        if (batch.includes(20)) throw cause;
        return batch;
      }),
    );
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error).toMatchObject({ code: 'EMBEDDING_GENERATION_FAILED', cause, details: { index: 16, count: 8 } });
    expect(error.message).toContain('no model');
    expect(calls).toBe(3);
  });

  test('isolates failures', async () => {
    for (const usage of [10, 75, 95]) {
      const errors: [number, number, string][] = [];
      const progress: number[] = [];
      const bad = new Set([0, 13, 14, 99]);
      const results = await invented(() => usage).processItems(
        numbers(100),
        async (batch) => {
          if (batch.some((item) => bad.has(item))) throw new Error('bad item');
          return batch.map((item) => -item);
        },
        {
          onError: (error, item, index) => void errors.push([item, index, error.code]),
          onProgress: (done) => void progress.push(done),
        },
      );
      expect(errors.toSorted((a, b) => a[0] - b[0])).toEqual([...bad].map((item) => [item, item, 'EMBEDDING_GENERATION_FAILED']));
      expect(Array.from(results)).toEqual(numbers(100).map((item) => (bad.has(item) ? undefined : -item)));
      expect(progress.at(-1)).toBe(100);
      expect(progress).toEqual(progress.toSorted((a, b) => a - b));
    }
    expect(await make().processItems([1, 2], (batch) => (batch.includes(1) ? expect.fail() : batch), { onError: 'skip' })).toEqual([undefined, 2]);
  });

  test('refuses results that do not fit the items', async () => {
    const wrong: [(batch: number[]) => unknown, string][] = [
      [() => [], '0 results for 4'],
      [(batch) => [...batch, 1], '5 results for 4'],
      [() => undefined, 'not return an array'],
      [() => ({ length: 4 }), 'not return an array'],
    ];
    for (const [work, says] of wrong) {
      const processor = make({ strategies: [one] });
      const error = await failure(() => processor.processItems(numbers(4), work as never));
      expect({ code: error.code, message: error.message }).toEqual({
        code: 'EMBEDDING_GENERATION_FAILED',
        message: expect.stringContaining(says),
      });
      const { stats } = await processor.processWithMemoryAwareness({ items: numbers(4), processor: work as never });
      expect(stats).toMatchObject({ successfulItems: 0, failedItems: 4 });
    }
  });

  test('stops for a signal, a timeout and a callback that throws', async () => {
    const never = () => new Promise<never[]>(() => {});
    const controller = new AbortController();
    const aborted = failure(() => make().processItems(numbers(10), never, { signal: controller.signal }));
    controller.abort(new Error('enough'));
    expect(await aborted).toMatchObject({ code: 'ABORTED', cause: { message: 'enough' } });
    let calls = 0;
    const already = { signal: AbortSignal.abort() };
    expect((await failure(() => make().processItems([1], (batch) => (calls++, batch), already))).code).toBe('ABORTED');
    expect(calls).toBe(0);
    const late = await failure(() => make().processItems(numbers(10), never, { timeoutMs: 20 }));
    expect(late).toMatchObject({ code: 'TIMED_OUT', retryable: true, details: { timeoutMs: 20 } });
    const oops = () => {
      throw new Error('oops');
    };
    for (const hooks of [{ onProgress: oops }, { onMemoryWarning: oops }, { onError: oops }]) {
      const work = (batch: number[]) => ('onError' in hooks ? oops() : batch);
      const error = await failure(() => invented(() => 75).processItems(numbers(100), work, hooks));
      expect(error).toMatchObject({ code: 'ABORTED', cause: { message: 'oops' } });
    }
  });

  test('an aborted call makes no further call', async () => {
    const controller = new AbortController();
    let calls = 0;
    const error = await failure(() =>
      invented(() => 95).processItems(
        numbers(100),
        async (batch) => {
          if (++calls === 3) controller.abort();
          return batch;
        },
        { signal: controller.signal, onError: 'skip' },
      ),
    );
    expect([error.code, calls]).toEqual(['ABORTED', 3]);
    await sleep(10);
    expect(calls).toBe(3);
  });

  describe('work that never waits', () => {
    const APPROACHES = ['sequential', 'parallel', 'chunked', 'streaming'] as const;
    const endless = numbers(1_000_000);
    const busy = (batch: number[]) => {
      for (const until = performance.now() + 1; performance.now() < until; );
      return batch;
    };
    const failing = (batch: number[]) => {
      busy(batch);
      throw new Error('none of them');
    };

    test.each(APPROACHES)('is stopped by a signal and by a time limit: %s', async (approach) => {
      const processor = make({ strategies: [{ ...one, approach }] });
      for (const [work, onError] of [[busy, 'throw'], [async (batch: number[]) => busy(batch), 'throw'], [failing, 'skip']] as const) {
        expect((await failure(() => processor.processItems(endless, work, { timeoutMs: 50, onError }))).code).toBe('TIMED_OUT');
        expect((await failure(() => processor.processItems(endless, work, { signal: AbortSignal.timeout(50), onError }))).code).toBe('ABORTED');
      }
      const context = { items: endless, processor: failing, timeoutMs: 50 };
      expect((await failure(() => processor.processWithMemoryAwareness(context))).code).toBe('TIMED_OUT');
    });

    test.each(APPROACHES)('lets the event loop turn: %s', async (approach) => {
      const processor = make({ strategies: [{ ...one, approach }] });
      let turns = 0;
      const timer = setInterval(() => turns++, 1);
      await processor.processItems(numbers(400), busy);
      clearInterval(timer);
      expect(turns).toBeGreaterThanOrEqual(3);
    });
  });

  test('takes items and options as they are when the call is made', async () => {
    const processor = make({ strategies: [one] });
    const items = numbers(40);
    const told: number[] = [];
    const options = { onError: (_: unknown, item: number) => void told.push(item), onProgress: undefined as unknown };
    const work = async (batch: number[]) => {
      await sleep(1);
      if (batch.includes(20)) throw new Error('twenty');
      return batch.map((item) => item * 2);
    };
    const running = processor.processItems(items, work, options as never);
    items.length = 0;
    options.onError = () => expect.fail('given later');
    options.onProgress = () => expect.fail('given later');
    expect(await running).toEqual(numbers(40).map((item) => (item === 20 ? undefined : item * 2)));
    expect(told).toEqual([20]);
    const context = { items: numbers(40), processor: work };
    const counted = processor.processWithMemoryAwareness(context);
    context.items.length = 0;
    expect((await counted).stats).toMatchObject({ totalItems: 40, failedItems: 1 });
  });

  test('an error says what was thrown, whatever it was', async () => {
    for (const [thrown, says] of [
      [Object.create(null), 'no message|cannot be shown'],
      ['text', 'text'],
      [undefined, 'undefined'],
      [Symbol('sign'), 'sign'],
      [{ get message() { throw new Error('no'); } }, 'no message|cannot be shown'],
    ] as [unknown, string][]) {
      const error = await failure(() => make().processItems([1], () => { throw thrown; }));
      expect(error.code).toBe('EMBEDDING_GENERATION_FAILED');
      expect(error.cause === thrown).toBe(true);
      expect(error.message).toMatch(new RegExp(says));
    }
  });

  test('refuses what is no work', async () => {
    const processor = make();
    const cases: [() => unknown, string][] = [
      [() => processor.processItems('items' as never, (batch) => batch), 'INVALID_ARGUMENT'],
      [() => processor.processItems([1], undefined as never), 'INVALID_ARGUMENT'],
      [() => processor.processItems([1], (batch) => batch, { onError: 'ignore' as never }), 'INVALID_CONFIG'],
      [() => processor.processItems([1], (batch) => batch, { onProgress: 5 as never }), 'INVALID_CONFIG'],
      [() => processor.processItems([1], (batch) => batch, { onStrategyChange: 5 as never }), 'INVALID_CONFIG'],
      [() => processor.processItems([1], (batch) => batch, { timeoutMs: -1 }), 'INVALID_CONFIG'],
      [() => processor.processItems([1], (batch) => batch, { signal: {} as never }), 'INVALID_CONFIG'],
      [() => processor.processItems([1], (batch) => batch, null as never), 'INVALID_CONFIG'],
      [() => processor.processItems([1], (batch) => batch, 5 as never), 'INVALID_CONFIG'],
      [() => processor.processItems([1], (batch) => batch, { onProgess: () => {} } as never), 'INVALID_CONFIG'],
      [() => processor.processWithMemoryAwareness(null as never), 'INVALID_ARGUMENT'],
      [() => processor.processWithMemoryAwareness({ items: [1], processor: (batch: number[]) => batch, onProgess: 1 } as never), 'INVALID_CONFIG'],
      [() => processor.selectOptimalStrategy({} as never), 'INVALID_ARGUMENT'],
    ];
    for (const [work, code] of cases) expect((await failure(work)).code).toBe(code);
    const named = await failure(() => processor.processItems([1], (batch) => batch, { onProgress: 5 as never }));
    expect(named.message).toContain('`onProgress`');
  });
});

test('processWithMemoryAwareness', async () => {
  const usages = [30, 30, 60, 72, 90, 96, 30];
  let at = 0;
  const warnings: MemoryMetrics[] = [];
  const changes: string[] = [];
  const processor = invented(() => usages[Math.min(at, usages.length - 1)]!, { monitoringInterval: 1 });
  const { results, failures, stats, memoryHistory } = await processor.processWithMemoryAwareness({
    items: numbers(600),
    processor: async (batch: number[]) => {
      at++;
      await sleep(3);
      return batch.map((item) => {
        if (item === 300) throw new Error('three hundred');
        return `#${item}`;
      });
    },
    onMemoryWarning: (metrics) => void warnings.push(metrics),
    onStrategyChange: (before, after) => void changes.push(`${before.name} ${after.name}`),
  });
  expect(results).toEqual(numbers(600).filter((item) => item !== 300).map((item) => `#${item}`));
  expect(failures).toMatchObject([{ index: 300, error: { code: 'EMBEDDING_GENERATION_FAILED' } }]);
  expect(stats).toMatchObject({ totalItems: 600, successfulItems: 599, failedItems: 1, strategyChanges: changes.length, peakMemoryUsage: 96 });
  expect(stats.totalTime).toBeGreaterThan(0);
  expect(stats.memoryCleanups).toBeGreaterThan(0);
  expect(stats.averageMemoryUsage).toBeGreaterThan(29);
  expect(stats.averageMemoryUsage).toBeLessThan(97);
  expect(changes.length).toBeGreaterThan(1);
  expect(warnings.length).toBeGreaterThan(0);
  expect(warnings[0]!.memoryUsagePercent).toBeGreaterThanOrEqual(70);
  expect(memoryHistory.length).toBeGreaterThan(3);
});

test('one strategy of the user', async () => {
  const processor = make({ strategies: [one], memoryThresholds: { critical: 95, high: 80, normal: 60, low: 40 } });
  const sizes: number[] = [];
  const result = await processor.processWithMemoryAwareness({
    items: numbers(10),
    processor: async (batch: number[]) => {
      sizes.push(batch.length);
      await sleep(1);
      return batch;
    },
  });
  expect(sizes).toEqual([4, 4, 2]);
  expect(result.results).toHaveLength(10);
  expect(result.stats).toMatchObject({ totalItems: 10, successfulItems: 10, failedItems: 0, strategyChanges: 0 });
  expect(result.memoryHistory.length).toBeGreaterThan(0);
});

test('strategies by usage', () => {
  const processor = make({ memoryThresholds: { critical: 90, high: 70, normal: 50, low: 30 } });
  const at = (memoryUsagePercent: number) =>
    processor.selectOptimalStrategy({ ...processor.getCurrentMemoryMetrics(), memoryUsagePercent });
  expect([25, 60, 85, 95].map((usage) => at(usage).name)).toEqual(['aggressive', 'balanced', 'conservative', 'streaming']);
  expect(at(95).maxBatchSize).toBe(1);
  expect(at(25).maxBatchSize).toBeGreaterThan(at(85).maxBatchSize);
});

test('metrics and recommendations', () => {
  const processor = make({ memoryBuffer: 0.25 });
  const metrics = processor.getCurrentMemoryMetrics();
  expect(metrics.totalMemory).toBeGreaterThan(metrics.processMemory.rss);
  expect(metrics.memoryUsagePercent).toBeCloseTo((1 - metrics.availableMemory / metrics.totalMemory) * 100, 6);
  expect(metrics.availableForProcessing).toBeCloseTo(metrics.availableMemory * 0.75, 0);
  for (const [usage, strategy, says] of [
    [20, 'aggressive', 'LOW'],
    [60, 'balanced', undefined],
    [75, 'conservative', 'HIGH'],
    [90, 'streaming', 'CRITICAL'],
  ] as const) {
    const { currentStrategy, memoryMetrics, recommendations, estimatedCapacity } = invented(() => usage).getProcessingRecommendations();
    expect(currentStrategy.name).toBe(strategy);
    expect(memoryMetrics.memoryUsagePercent).toBeCloseTo(usage, 6);
    expect(recommendations[0]?.split(':')[0]).toBe(says);
    expect(estimatedCapacity).toBeGreaterThan(0);
  }
});

test('works after stop, which may come twice', async () => {
  const processor = make();
  processor.stop();
  processor.stop();
  expect(processor.getCurrentMemoryMetrics().totalMemory).toBeGreaterThan(0);
  expect(await processor.processItems([1, 2, 3], async (batch) => batch)).toEqual([1, 2, 3]);
});

test('options that make no sense are refused by name', async () => {
  const cases: [unknown, string][] = [
    [{ strategies: [] }, 'At least one processing strategy must be configured'],
    [{ strategies: 'all' }, 'strategies'],
    [{ strategies: [null] }, 'strategies[0]'],
    [{ strategies: [{ ...one, maxBatchSize: 0 }] }, 'maxBatchSize'],
    [{ strategies: [{ ...one, name: undefined }] }, 'name'],
    [{ strategies: [{ ...one, approach: 'wild' }] }, 'approach'],
    [{ strategies: [{ ...one, cleanupFrequency: 0 }] }, 'cleanupFrequency'],
    [{ memoryThresholds: { critical: 50 } }, 'memoryThresholds'],
    [{ memoryThresholds: { critical: 101 } }, 'memoryThresholds.critical'],
    [{ memoryThresholds: { low: -1 } }, 'memoryThresholds.low'],
    [{ memoryThresholds: { high: NaN } }, 'memoryThresholds.high'],
    [{ memoryThresholds: 5 }, 'memoryThresholds'],
    [{ monitoringInterval: 0 }, 'monitoringInterval'],
    [{ memoryBuffer: 1.5 }, 'memoryBuffer'],
    [{ enableGcHints: 'yes' }, 'enableGcHints'],
    [{ unknown: 1 }, 'unknown'],
    [null, 'options'],
  ];
  for (const [options, says] of cases) {
    const error = await failure(() => new MemoryAwareProcessor(options as MemoryProcessorOptions));
    expect({ code: error.code, message: error.message }).toEqual({ code: 'INVALID_CONFIG', message: expect.stringContaining(says) });
  }
  make({ memoryThresholds: undefined as never, cleanupThreshold: 0.8, gcThreshold: 70, enableGcHints: true });
});

test('does not keep the process alive', () => {
  const code = `const { MemoryAwareProcessor } = require(${JSON.stringify(root)});
    globalThis.processor = new MemoryAwareProcessor({ monitoringInterval: 5 });
    processor.processItems([1, 2], async (batch) => batch).then((results) => console.log(results.length));
    processor.processItems([1], () => new Promise(() => {}));`;
  expect(execFileSync(process.execPath, ['-e', code], { encoding: 'utf8', timeout: 30_000 })).toBe('2\n');
});

test('warns from the threshold on, not only beyond it', async () => {
  const warned: number[] = [];
  const at = (usage: number) =>
    invented(() => usage).processItems([1], (batch) => batch, { onMemoryWarning: ({ memoryUsagePercent }) => void warned.push(memoryUsagePercent) });
  await at(69.9);
  await at(70);
  expect(warned).toEqual([70]);
});

test('collects garbage only where that is allowed', async () => {
  const gc = vi.fn();
  vi.stubGlobal('gc', gc);
  onTestFinished(() => void vi.unstubAllGlobals());
  const run = (enableGcHints: boolean) => invented(() => 99, { enableGcHints }).processItems(numbers(3), (batch) => batch);
  await run(false);
  expect(gc).not.toHaveBeenCalled();
  await run(true);
  expect(gc).toHaveBeenCalledTimes(3);
});

test('learns from what items took how many more there is room for', async () => {
  const processor = invented(() => 10);
  const before = processor.getProcessingRecommendations().estimatedCapacity;
  // The first look at memory is before the batch, the second one after it.
  const held = process.memoryUsage();
  const looks = vi.spyOn(process, 'memoryUsage').mockImplementation((() => ({ ...held })) as never);
  onTestFinished(() => looks.mockRestore());
  await processor.processItems([1, 2], (batch) => ((held.rss += 2 ** 28), batch));
  expect(processor.getProcessingRecommendations().estimatedCapacity).toBeLessThan(before / 1000);
});

test('thresholds are shares up to 1, and percentages above', async () => {
  const strategies = [{ ...one, cleanupFrequency: 1 }];
  const cleanups = async (cleanupThreshold: number) => {
    const context = { items: numbers(8), processor: (batch: number[]) => batch };
    return (await invented(() => 70, { strategies, cleanupThreshold, enableGcHints: false }).processWithMemoryAwareness(context)).stats.memoryCleanups;
  };
  expect([await cleanups(0.8), await cleanups(80), await cleanups(0.6), await cleanups(60)]).toEqual([0, 0, 2, 2]);
});

describe('batches', () => {
  const sizes = async (options: ConstructorParameters<typeof MemoryAwareProcessor>[0], items = 400) => {
    const processor = new MemoryAwareProcessor({ ...options, strategies: [{ name: 'all', maxBatchSize: 100, approach: 'sequential', memoryOverhead: 1, cpuOverhead: 1, cleanupFrequency: 10 }] });
    const seen: number[] = [];
    const done = await processor.processItems(Array.from({ length: items }, (_, i) => i), async (batch) => {
      seen.push(batch.length);
      await sleep(1);
      return batch;
    });
    expect(done).toHaveLength(items);
    return seen;
  };

  test('have no more items than batchSize, nor than the strategy allows', async () => {
    expect(new Set(await sizes({ batchSize: 50 }))).toEqual(new Set([50]));
    expect(new Set(await sizes({ batchSize: 500 }))).toEqual(new Set([100]));
    for (const batchSize of [0, 1.5, '8', NaN]) {
      expect(await failure(() => new MemoryAwareProcessor({ batchSize: batchSize as never }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'batchSize' } });
    }
  });

  test('are as large as an optimizer says, which is told how they went', async () => {
    const batchOptimizer = new DynamicBatchOptimizer(16, { minBatchSize: 4, maxBatchSize: 64 });
    const seen = await sizes({ batchOptimizer, batchSize: 40 });
    expect(seen[0]).toBe(16);
    expect(Math.max(...seen)).toBeLessThanOrEqual(40);
    expect(batchOptimizer.getPerformanceAnalytics().recentHistory.length).toBeGreaterThan(5);
    expect(Math.max(...(await sizes({ batchOptimizer: { maxBatchSize: 8 } })))).toBeLessThanOrEqual(8);
    const wrong = await failure(() => new MemoryAwareProcessor({ batchOptimizer: { maxBatchSize: -1 } }));
    expect(wrong).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'batchOptimizer.maxBatchSize' } });
    expect(await failure(() => new MemoryAwareProcessor({ batchOptimizer: true as never }))).toMatchObject({ code: 'INVALID_CONFIG' });
  });

  test('that fail are told, too', async () => {
    const batchOptimizer = new DynamicBatchOptimizer(10);
    const processor = new MemoryAwareProcessor({ batchOptimizer });
    await processor.processItems([1, 2, 3], async () => { await sleep(1); throw new Error('no'); }, { onError: 'skip' });
    expect(batchOptimizer.getPerformanceAnalytics().successRate).toBe(0);
  });
});
