import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { DynamicBatchOptimizer, IntelligentEmbeddingCache, MemoryAwareProcessor, OptimizedEmbeddingGenerator, type CacheOptions, type GeneratorOptions, type Logger } from 'embedcore';
import { expect, onTestFinished, test, vi } from 'vitest';

import { startHub } from './hub-server';
import { failure, model, ready, root } from './support';

const bert = { modelPath: model('bert-mean') };

/** What a logger is told, as `level message`. */
function recorder(): { logger: Required<Logger>; told: string[]; details: (Record<string, unknown> | undefined)[] } {
  const told: string[] = [];
  const details: (Record<string, unknown> | undefined)[] = [];
  const at = (level: string) => (message: string, more?: Record<string, unknown>) => {
    told.push(`${level} ${message}`);
    details.push(more);
  };
  return { logger: { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }, told, details };
}

test('without a logger nothing is printed, whatever is called and whatever goes wrong', () => {
  const program = join(root, '__test__', 'programs', 'quiet.cjs');
  const env = { ...process.env, HF_HUB_OFFLINE: '1', RUST_BACKTRACE: undefined };
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, bert.modelPath], { encoding: 'utf8', env });
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: '', stderr: '' });
});

test('a model that is loaded, what calls did and what failed', async () => {
  const { logger, told, details } = recorder();
  const generator = await ready({ ...bert, logger });
  await generator.initialize();
  await generator.generateEmbeddings(['a', 'a file', `${'word '.repeat(500)}`]);
  await generator.batchProcess([{ nodeId: '1', signature: '', summary: 'a' }]);
  await generator.embed(['a', '', 'b'], { onError: 'skip' });
  const error = await failure(() => generator.embed(['']));
  await failure(() => generator.embed(['a'], { signal: AbortSignal.abort() }));
  await failure(() => generator.initialize('/nowhere'));
  expect(told).toEqual([
    expect.stringMatching(/^info embedcore: Loaded the model .*bert-mean in .* ms: 32 dimensions, up to 64 tokens$/),
    expect.stringMatching(/^debug embedcore: Embedded 3 texts in .* ms, 0 from the cache, 1 truncated$/),
    'debug embedcore: The cache had 0 of 3 entries',
    expect.stringMatching(/^debug embedcore: Embedded 1 texts in .* ms, 0 from the cache, 0 truncated$/),
    'debug embedcore: The cache had 0 of 1 entries',
    expect.stringMatching(/^debug embedcore: Embedded 3 texts in .* ms, 1 from the cache, 0 truncated$/),
    expect.stringMatching(/^warn embedcore: 1 of 3 texts were skipped; the first one is 1: /),
    'debug embedcore: The cache had 1 of 3 entries',
    'debug embedcore: The content of 1 entries was as before, of 0 not',
    `error embedcore: A call for 1 inputs failed: ${error.message}`,
    'debug embedcore: The cache had 0 of 1 entries',
    expect.stringMatching(/^debug embedcore: A call for 1 inputs failed: .*aborted/),
    expect.stringMatching(/^error embedcore: No model was loaded: .*nowhere/),
  ]);
  expect(details[0]).toMatchObject({ event: 'model-loaded', dimensions: 32, fingerprint: generator.getModelInfo().fingerprint });
  expect(details[5]).toMatchObject({ event: 'call', texts: 3, fromCache: 1, failed: 1 });
  expect(details[7]).toMatchObject({ event: 'cache-lookups', hits: 1, misses: 2 });
  expect(details[9]).toMatchObject({ event: 'failed', code: 'INVALID_ARGUMENT', index: 0 });
});

test('files that are fetched, each once', async () => {
  const hub = await startHub();
  hub.add('acme/tiny-bert', 'bert-mean');
  const cacheDir = mkdtempSync(join(tmpdir(), 'embedcore-logger-'));
  onTestFinished(() => rmSync(cacheDir, { recursive: true, force: true }));
  vi.stubEnv('HF_ENDPOINT', hub.url);
  onTestFinished(() => void vi.unstubAllEnvs());
  const { logger, told } = recorder();
  const seen = vi.fn();
  const generator = new OptimizedEmbeddingGenerator({ modelPath: 'acme/tiny-bert', cacheDir, logger });
  await generator.initialize(undefined, { progressCallback: seen });
  await generator.cleanup();
  const fetched = told.filter((line) => line.startsWith('info embedcore: Fetching '));
  expect(fetched.length).toBeGreaterThan(2);
  expect(new Set(fetched).size).toBe(fetched.length);
  expect(seen).toHaveBeenCalledWith(expect.objectContaining({ progressTotal: 100 }));
});

test('trouble with the file of a cache, also of a generator\'s own', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-logger-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  // What never was a cache's file is left alone; this one was.
  const damaged = async (name: string) => {
    const persistPath = join(directory, name);
    await new IntelligentEmbeddingCache({ persistPath }).close();
    writeFileSync(persistPath, readFileSync(persistPath).fill(7, 100));
    return persistPath;
  };
  const own = recorder();
  const persistPath = await damaged('own.sqlite');
  const cache = new IntelligentEmbeddingCache({ persistPath, logger: own.logger });
  await cache.set('a', 'b', [1]);
  await cache.flush();
  await cache.close();
  expect(own.told).toEqual([expect.stringMatching(/^warn embedcore: The cache's file .*own\.sqlite was moved to .* and replaced: /)]);
  expect(own.details[0]).toMatchObject({ event: 'file-set-aside', path: persistPath });

  const { logger, told } = recorder();
  const generator = await ready({ ...bert, cache: { persistPath: await damaged('generator.sqlite') }, logger });
  await generator.embed(['a']);
  await generator.cleanup();
  expect(told).toContainEqual(expect.stringMatching(/^warn embedcore: The cache's file .*generator\.sqlite was moved/));
});

test('operations of a cache: lookups, validations and evictions, with their numbers', async () => {
  const { logger, details } = recorder();
  const cache = new IntelligentEmbeddingCache({ maxEntries: 2, logger });
  onTestFinished(() => cache.close());
  await cache.set('a', '1', [1]);
  await cache.get('a', '1');
  await cache.get('a', '2');
  await cache.getMany([{ key: 'b', content: '1' }, { key: 'c', content: '1' }]);
  await cache.setMany(['b', 'c', 'd', 'e'].map((key) => ({ key, content: '1', embedding: [1] })));
  expect(details).toEqual([
    { event: 'cache-lookups', hits: 1, misses: 0 },
    { event: 'cache-validations', valid: 1, changed: 0 },
    { event: 'cache-lookups', hits: 0, misses: 1 },
    { event: 'cache-validations', valid: 0, changed: 1 },
    // What had other content is gone.
    { event: 'cache-evictions', entries: 1 },
    { event: 'cache-lookups', hits: 0, misses: 2 },
    { event: 'cache-evictions', entries: 2 },
  ]);
  expect(cache.getStats()).toMatchObject({ hits: 1, misses: 3, evictions: 3 });
});

test('sizes of batches, with the reason, in an optimizer and in a generator', async () => {
  const { logger, told, details } = recorder();
  const optimizer = new DynamicBatchOptimizer(8, { minSamples: 3, logger });
  const sizes = [8];
  for (let i = 0; i < 60; i++) {
    const batchSize = optimizer.getCurrentBatchSize();
    optimizer.recordPerformance({ batchSize, processingTime: 10 + batchSize, itemsProcessed: batchSize, cpuUsage: 10, memoryUsage: 10 });
    if (optimizer.getCurrentBatchSize() === sizes.at(-1)) continue;
    sizes.push(optimizer.getCurrentBatchSize());
    // The size that is recommended has that reason; any other one is a try.
    const { recommendedBatchSize, reason } = optimizer.getOptimizationRecommendation();
    expect(details.at(-1)!.reason).toBe(recommendedBatchSize === sizes.at(-1) ? reason : 'it may be faster, which one batch will show');
  }
  expect(sizes.length).toBeGreaterThan(3);
  expect(details.map((change) => [change!.event, change!.before, change!.after])).toEqual(sizes.slice(1).map((size, i) => ['batch-size-changed', sizes[i], size]));
  for (const change of details) expect(change!.reason).toMatch(/\w+/);
  expect(told.every((line) => line.startsWith('info embedcore: Batches have '))).toBe(true);
  // One that goes on begins with the size that it had.
  const quiet = recorder();
  const state = new DynamicBatchOptimizer(8, { minSamples: 1000 }).toJSON();
  DynamicBatchOptimizer.fromJSON(state, { logger: quiet.logger }).recordPerformance(8, 10, 8);
  expect(quiet.told).toEqual([]);

  // What another one learned is a change to one that begins with its own size.
  const stateDir = mkdtempSync(join(tmpdir(), 'embedcore-logger-'));
  onTestFinished(() => rmSync(stateDir, { recursive: true, force: true }));
  const shared = new DynamicBatchOptimizer(8, { minSamples: 3 });
  const seen = recorder();
  const generator = await ready({ ...bert, cache: false, batchOptimizer: shared, logger: seen.logger });
  await generator.embed(['a']);
  for (let i = 0; i < 60; i++) {
    const batchSize = shared.getCurrentBatchSize();
    shared.recordPerformance({ batchSize, processingTime: 10 + batchSize, itemsProcessed: batchSize, tokens: batchSize, cpuUsage: 10, memoryUsage: 10 });
  }
  await generator.embed(['b']);
  const changes = seen.details.filter((detail) => detail?.event === 'batch-size-changed');
  expect(changes).toEqual([{ event: 'batch-size-changed', maxTokens: 512, before: 8, after: expect.any(Number), reason: expect.stringMatching(/\w+/) }]);
});

test('strategies, clean-ups and a summary of each call, of a processor and of a generator', async () => {
  const { logger, details } = recorder();
  const memoryThresholds = { critical: 1e-9, high: 0, normal: 0, low: 0 };
  const processor = new MemoryAwareProcessor({ memoryThresholds, emergencyCleanupThreshold: 1e-9, logger });
  await processor.processItems([1, 2, 3], (batch) => batch);
  processor.stop();
  const of = (event: string) => details.filter((detail) => detail?.event === event);
  expect(of('memory-cleanup')).toHaveLength(3);
  expect(of('memory-cleanup')[0]).toMatchObject({ cleanups: 1, usagePercent: expect.any(Number) });
  expect(of('call')).toEqual([{ event: 'call', items: 3, strategyChanges: expect.any(Number), cleanups: 3, ms: expect.any(Number) }]);
  await failure(() => processor.processItems([1], () => Promise.reject(new Error('on purpose'))));
  expect(of('failed')).toMatchObject([{ code: 'EMBEDDING_GENERATION_FAILED' }]);

  const seen = recorder();
  const generator = await ready({ ...bert, cache: false, logger: seen.logger });
  await generator.optimizePerformance();
  await generator.embed(['a', 'b']);
  expect(seen.details.filter((detail) => detail?.event === 'memory-cleanup')).toEqual([{ event: 'memory-cleanup', cleanups: 1 }]);
  expect(seen.details).toContainEqual({ event: 'call', texts: 2, fromCache: 0, truncated: 0, failed: 0, ms: expect.any(Number) });
});

test('a hit ratio that is low', async () => {
  const { logger, told } = recorder();
  const cache = new IntelligentEmbeddingCache({ hitRatioThreshold: 0.9, logger });
  for (let i = 0; i < 100; i++) await cache.get(`${i}`, '');
  await cache.optimize();
  await cache.close();
  expect(told.filter((line) => !line.startsWith('debug'))).toEqual(["warn embedcore: The cache's hit ratio is 0.00, below 0.9"]);
});

test('a logger keeps its this, may lack levels, and may throw', async () => {
  class Own {
    lines: string[] = [];
    info(message: string): void {
      this.lines.push(message);
      throw new Error('on purpose');
    }
  }
  const logger = new Own();
  const generator = await ready({ ...bert, logger });
  expect((await generator.embed(['a'])).rows).toBe(1);
  expect(logger.lines).toHaveLength(1);
});

test.each([null, 'console', 3, {}, { info: 'yes' }, { infos() {} }])('%j is no logger', async (logger) => {
  for (const make of [
    () => new DynamicBatchOptimizer(8, { logger } as object),
    () => new MemoryAwareProcessor({ logger } as object),
    () => new OptimizedEmbeddingGenerator({ logger } as GeneratorOptions),
    () => new IntelligentEmbeddingCache({ logger } as CacheOptions),
  ]) {
    expect(await failure(make)).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'logger' } });
  }
});

test('console, and loggers of the field, are loggers', () => {
  // Types as they are published: pino's functions have overloads, winston's give the logger back.
  interface Pino {
    (object: object, message?: string, ...more: unknown[]): void;
    (message: string, ...more: unknown[]): void;
  }
  const pino = { debug: (() => {}) as Pino, info: (() => {}) as Pino, warn: (() => {}) as Pino, error: (() => {}) as Pino };
  const winston = { info: (message: string, ...meta: unknown[]) => (void [message, meta], winston) } as { info(message: string, ...meta: unknown[]): object };
  for (const logger of [console, pino, winston] satisfies Logger[]) new OptimizedEmbeddingGenerator({ logger });
});
