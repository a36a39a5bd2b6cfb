// The promised interfaces (documented/interfaces.ts): the package's own types are held against them by the compiler, as a
// project with each kind of module resolution does it, and the numbers are looked at in a generator that works.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import * as embedcore from 'embedcore';
import {
  DynamicBatchOptimizer,
  IntelligentEmbeddingCache,
  MemoryAwareProcessor,
  OptimizedEmbeddingGenerator,
  type Annotation,
  type GeneratorOptions,
  type PerformanceMetrics,
} from 'embedcore';
import ts from 'typescript';
import { describe, expect, onTestFinished, test } from 'vitest';

import type { Document } from './documented/interfaces';
import { failure, ready, root } from './support';

/** A project that has embedcore installed, with the files of `folders` in it. */
function project(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-conformance-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  mkdirSync(join(directory, 'node_modules'));
  symlinkSync(root, join(directory, 'node_modules', 'embedcore'), 'junction');
  for (const name of ['@types', 'undici-types']) symlinkSync(join(root, 'node_modules', name), join(directory, 'node_modules', name), 'junction');
  writeFileSync(join(directory, 'package.json'), JSON.stringify({ name: 'client', type: 'module' }));
  return directory;
}

/** Files of the compiler and of Node.js' types, as parsed for each kind of module: they are the same in every project. */
const parsed = new Map<string, ts.SourceFile | undefined>();

/** What the compiler says about all files of a project, at its strictest. */
function complaints(directory: string, module: 'nodenext' | 'bundler'): string[] {
  const resolution = module === 'nodenext' ? ts.ModuleResolutionKind.NodeNext : ts.ModuleResolutionKind.Bundler;
  // Not into node_modules: what is linked there is everything that has been built here.
  const own = readdirSync(directory).filter((name) => name !== 'node_modules').map((name) => join(directory, name));
  const files = own.flatMap((path) => (statSync(path).isDirectory() ? readdirSync(path, { recursive: true, encoding: 'utf8' }).map((name) => join(path, name)) : path));
  const options: ts.CompilerOptions = {
    module: module === 'nodenext' ? ts.ModuleKind.NodeNext : ts.ModuleKind.ESNext,
    moduleResolution: resolution,
    target: ts.ScriptTarget.ES2022,
    lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
    types: ['node'],
    typeRoots: [join(root, 'node_modules', '@types')],
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: false,
    noEmit: true,
  };
  const host = ts.createCompilerHost(options);
  const parse = host.getSourceFile.bind(host);
  host.getSourceFile = (path, ...rest) => {
    if (path.startsWith(directory)) return parse(path, ...rest);
    const key = `${module} ${path}`;
    if (!parsed.has(key)) parsed.set(key, parse(path, ...rest));
    return parsed.get(key);
  };
  const program = ts.createProgram(files.filter((file) => file.endsWith('.ts')), options, host);
  return ts.getPreEmitDiagnostics(program).map(({ file, messageText }) => `${file?.fileName ?? ''}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`);
}

describe.each(['nodenext', 'bundler'] as const)('with module resolution %s', (module) => {
  test('what is promised and what there is may stand for each other', () => {
    const directory = project();
    cpSync(join(root, '__test__', 'documented'), directory, { recursive: true });
    expect(complaints(directory, module)).toEqual([]);
  });

  test('what is not so does not compile: the check can fail', () => {
    const directory = project();
    cpSync(join(root, '__test__', 'documented'), directory, { recursive: true });
    const path = join(directory, 'interfaces.ts');
    writeFileSync(path, readFileSync(path, 'utf8').replace('hitRatio: number;', 'hitRatio: string;').replace('minSamples: number;', 'minSamples?: number;'));
    const found = complaints(directory, module).join('\n');
    expect(found).toContain('hitRatio');
    expect(found).toContain('minSamples');
  });

  test('a project swaps its four files for ours and changes no call site', () => {
    const directory = project();
    const imports = (text: string) => (module === 'nodenext' ? text.replace(/from '(\.[^']+)'/g, "from '$1.js'") : text);
    const names: Record<string, string> = {
      DynamicBatchOptimizer: 'DynamicBatchOptimizer, OptimizationConfig, BatchOptimizerConfig',
      IntelligentEmbeddingCache: 'IntelligentEmbeddingCache, getEmbeddingCache, resetEmbeddingCache, CacheConfig',
      MemoryAwareProcessor: 'MemoryAwareProcessor, AdaptiveProcessingConfig, MemoryAwareConfig',
      OptimizedEmbeddingGenerator:
        'OptimizedEmbeddingGenerator, EmbeddingError, PerformanceOptimizationConfig, EmbeddingGenerator, EmbeddingConfig, MemoryUsage, ' +
        'type PerformanceMetrics, type Annotation, type BatchProcessOptions, type EmbeddingResult',
    };
    mkdirSync(join(directory, 'own'));
    for (const file of readdirSync(join(root, '__test__', 'client', 'own'))) {
      writeFileSync(join(directory, 'own', file), `export { ${names[file.slice(0, -3)]} } from 'embedcore';\n`);
    }
    writeFileSync(join(directory, 'search.ts'), imports(readFileSync(join(root, '__test__', 'client', 'search.ts'), 'utf8')));
    expect(complaints(directory, module)).toEqual([]);
  });
});

test('names are values, too: the defaults of the classes', async () => {
  const { BatchOptimizerConfig, CacheConfig, MemoryAwareConfig, OptimizationConfig, PerformanceOptimizationConfig, EmbeddingConfig, MemoryUsage } = embedcore;
  expect(new DynamicBatchOptimizer().getConfig()).toEqual(BatchOptimizerConfig);
  expect(OptimizationConfig).toBe(BatchOptimizerConfig);
  const cache = new IntelligentEmbeddingCache(CacheConfig);
  expect(cache.getStats()).toEqual(new IntelligentEmbeddingCache().getStats());
  await cache.close();
  // A processor in the middle of each level of memory chooses the strategy of that name, whole.
  const processor = new MemoryAwareProcessor();
  const { critical, high, normal } = MemoryAwareConfig.memoryThresholds;
  const chosen = [critical, high, normal, normal - 1].map((memoryUsagePercent) =>
    processor.selectOptimalStrategy({ ...processor.getCurrentMemoryMetrics(), memoryUsagePercent }),
  );
  expect(chosen).toEqual(MemoryAwareConfig.strategies);
  expect(embedcore.AdaptiveProcessingConfig).toBe(MemoryAwareConfig);
  const generator = await ready(PerformanceOptimizationConfig);
  expect(generator).toBeInstanceOf(embedcore.EmbeddingGenerator);
  expect(generator.getPerformanceMetrics().cache.maxEntries).toBe(PerformanceOptimizationConfig.cacheConfig.maxEntries);
  const { usage, available, shouldCleanup } = MemoryUsage.now();
  expect(usage).toBeGreaterThan(2 ** 20);
  expect(available).toBeGreaterThan(2 ** 20);
  expect(shouldCleanup).toBe(processor.getCurrentMemoryMetrics().memoryUsagePercent >= 80);
  // What the process holds already is part of what it may hold: a gigabyte is more than others take or free meanwhile.
  const held = Buffer.alloc(2 ** 30, 1);
  await expect.poll(() => EmbeddingConfig.memoryLimit - MemoryUsage.now().available / 2 ** 20).toBeGreaterThan(600);
  expect(held[held.length - 1]).toBe(1);
  expect(EmbeddingConfig.maxConcurrency).toBeGreaterThanOrEqual(1);
  expect((await ready({ modelPath: EmbeddingConfig.modelPath, memoryLimit: EmbeddingConfig.memoryLimit })).isReady()).toBe(true);
});

/** Every number that is promised, by its path; those of a ratio, and of a percentage, within their range. */
function looked(metrics: PerformanceMetrics): Record<string, number> {
  const { cache, batchOptimizer, memoryProcessor, overall, batchOptimization, memoryProcessing, overallScore }: PerformanceMetrics & Document.PerformanceMetrics = metrics;
  const ratios = {
    'cache.hitRatio': cache.hitRatio,
    'cache.missRatio': cache.missRatio,
    'cache.memoryEfficiency': cache.memoryEfficiency,
    'cache.performanceScore': cache.performanceScore,
    'batchOptimizer.optimizationScore': batchOptimizer.optimizationScore,
    'batchOptimizer.resourceUtilization': batchOptimizer.resourceUtilization,
    'batchOptimization.confidence': batchOptimization.confidence,
    'memoryProcessor.efficiency': memoryProcessor.efficiency,
    'overall.errorRate': overall.errorRate,
    overallScore,
  };
  const percentages = {
    'memoryProcessor.memoryUsage': memoryProcessor.memoryUsage,
    'memoryProcessing.memoryUsagePercent': memoryProcessing.memoryUsagePercent,
  };
  const amounts = {
    'cache.averageAccessTime': cache.averageAccessTime,
    'cache.entries': cache.entries,
    'cache.sizeBytes': cache.sizeBytes,
    'batchOptimizer.averageBatchSize': batchOptimizer.averageBatchSize,
    'batchOptimizer.averageThroughput': batchOptimizer.averageThroughput,
    'batchOptimization.currentBatchSize': batchOptimization.currentBatchSize,
    'batchOptimization.recommendedBatchSize': batchOptimization.recommendedBatchSize,
    'memoryProcessor.strategyChanges': memoryProcessor.strategyChanges,
    'memoryProcessing.availableMemory': memoryProcessing.availableMemory,
    'overall.totalProcessingTime': overall.totalProcessingTime,
    'overall.itemsProcessed': overall.itemsProcessed,
    'overall.averageItemTime': overall.averageItemTime,
  };
  const trends = {
    'batchOptimization.throughputTrend': batchOptimization.throughputTrend,
    'batchOptimization.memoryTrend': batchOptimization.memoryTrend,
    'batchOptimization.cpuTrend': batchOptimization.cpuTrend,
  };
  const all = { ...ratios, ...percentages, ...amounts, ...trends };
  for (const [name, value] of Object.entries(all)) expect(Number.isFinite(value), `${name} is ${value}`).toBe(true);
  for (const [most, values] of [[1, ratios], [100, percentages], [Infinity, amounts]] as const) {
    for (const [name, value] of Object.entries(values)) expect(value >= 0 && value <= most, `${name} is ${value}`).toBe(true);
  }
  expect(memoryProcessor.currentStrategy).toBeTypeOf('string');
  expect(memoryProcessing.recommendations).toBeInstanceOf(Array);
  expect(batchOptimization.currentBatchSize).toBeGreaterThan(0);
  expect(batchOptimization.recommendedBatchSize).toBeGreaterThan(0);
  return all;
}

/** Annotations of `count` functions, of some length. */
const annotations = (count: number, from = 0): Annotation[] =>
  Array.from({ length: count }, (_, i) => ({
    nodeId: `src/file.ts:${from + i}`,
    signature: `function read${from + i}(path: string): Promise<string[]>`,
    summary: `Reads file ${from + i} and gives its lines. ${'It tries again when the disk is slow. '.repeat(i % 7)}`,
    sourceSnippet: 'const text = await readFile(path, "utf8");\nreturn text.split("\\n");',
  }));

const production = {
  cache: { maxEntries: 50_000, maxMemoryMB: 1000, ttlSeconds: 14_400, enableContentValidation: true, maintenanceInterval: 300_000 },
  batchOptimizer: { minBatchSize: 8, maxBatchSize: 512, targetCpuUsage: 75, targetMemoryUsage: 80, aggressiveness: 0.4 },
  memoryProcessor: { memoryThresholds: { critical: 90, high: 75, normal: 60, low: 40 }, monitoringInterval: 5000, cleanupThreshold: 0.8 },
};

const development = {
  cache: { maxEntries: 1000, maxMemoryMB: 100, ttlSeconds: 3600, enableContentValidation: true, maintenanceInterval: 60_000 },
  batchOptimizer: { minBatchSize: 1, maxBatchSize: 64, targetCpuUsage: 60, targetMemoryUsage: 65, aggressiveness: 0.2 },
  memoryProcessor: { memoryThresholds: { critical: 80, high: 65, normal: 50, low: 30 }, monitoringInterval: 10_000, cleanupThreshold: 0.7 },
};

const integrated = {
  cache: { maxEntries: 10_000, maxMemoryMB: 500, enableContentValidation: true },
  batchOptimizer: { maxBatchSize: 256, targetCpuUsage: 65, targetMemoryUsage: 70 },
  memoryProcessor: { memoryThresholds: { critical: 85, high: 70, normal: 55, low: 35 } },
};

describe.each<[string, GeneratorOptions]>([
  ['production', production],
  ['development', development],
  ['integration', integrated],
  ['no settings', {}],
  ['the code\'s spelling', { enableCaching: true, cacheConfig: { maxEntries: 10_000, maxSizeBytes: 2 ** 28, ttlMs: 1_200_000 }, enableBatchOptimization: true, batchConfig: { minBatchSize: 1, maxBatchSize: 128 }, enableMemoryAwareProcessing: true }],
])('numbers of a generator: %s', (_, settings) => {
  test('are there before it has a model, and move as it works', async () => {
    const generator = new OptimizedEmbeddingGenerator(settings);
    onTestFinished(() => generator.cleanup());
    const before = looked(generator.getPerformanceMetrics());
    for (const name of ['cache.hitRatio', 'cache.missRatio', 'cache.entries', 'batchOptimizer.averageBatchSize', 'batchOptimizer.optimizationScore', 'memoryProcessor.efficiency', 'overall.itemsProcessed', 'overall.totalProcessingTime', 'overall.errorRate']) {
      expect(before[name], name).toBe(0);
    }
    await generator.initialize();
    looked(generator.getPerformanceMetrics());

    const started = performance.now();
    const results = await generator.generateEmbeddings(annotations(600));
    const elapsed = performance.now() - started;
    expect(results).toHaveLength(600);
    const first = looked(generator.getPerformanceMetrics());
    expect(first['overall.itemsProcessed']).toBe(600);
    expect(first['overall.totalProcessingTime']).toBeGreaterThan(0);
    expect(first['overall.totalProcessingTime']).toBeLessThanOrEqual(elapsed + 1);
    expect(first['overall.averageItemTime']).toBeCloseTo(first['overall.totalProcessingTime']! / 600, 9);
    expect(first['cache.missRatio']).toBe(1);
    expect(first['cache.entries']).toBe(600);
    for (const name of ['cache.averageAccessTime', 'cache.memoryEfficiency', 'batchOptimizer.averageBatchSize', 'batchOptimizer.averageThroughput', 'batchOptimizer.optimizationScore', 'batchOptimizer.resourceUtilization', 'memoryProcessor.efficiency', 'memoryProcessor.memoryUsage', 'memoryProcessing.availableMemory']) {
      expect(first[name], name).toBeGreaterThan(0);
    }
    const { averageThroughput, averageBatchSize, averageProcessingTime } = generator.getPerformanceMetrics().batchOptimizer;
    expect(averageThroughput).toBeCloseTo((averageBatchSize / averageProcessingTime) * 1000, 3);
    const { payloadBytes, sizeBytes, memoryEfficiency } = generator.getPerformanceMetrics().cache;
    expect(memoryEfficiency).toBeCloseTo(payloadBytes / sizeBytes, 12);

    await generator.generateEmbeddings(annotations(600));
    const second = looked(generator.getPerformanceMetrics());
    expect(second['overall.itemsProcessed']).toBe(1200);
    expect(second['overall.totalProcessingTime']).toBeGreaterThan(first['overall.totalProcessingTime']!);
    expect(second['cache.hitRatio']).toBe(0.5);
    expect(second['cache.performanceScore']).toBeGreaterThan(first['cache.performanceScore']!);
    // No batch ran: what is measured of batches stands.
    expect(second['batchOptimizer.averageBatchSize']).toBe(first['batchOptimizer.averageBatchSize']);

    await generator.optimizePerformance();
    looked(generator.getPerformanceMetrics());
    await generator.cleanup();
    expect(looked(generator.getPerformanceMetrics())['overall.itemsProcessed']).toBe(1200);
  });
});

describe('numbers of a generator', () => {
  test('without a cache, without learning and without strategies', async () => {
    const generator = await ready({ cache: false, batchOptimizer: false, memoryProcessor: false });
    await generator.generateEmbeddings(annotations(100));
    const metrics = generator.getPerformanceMetrics();
    const all = looked(metrics);
    for (const [name, value] of Object.entries(all)) if (name.startsWith('cache.')) expect(value, name).toBe(0);
    expect(metrics.cache).toMatchObject({ enabled: false, totalRequests: 0, disk: null, evictionCauses: { size: 0 } });
    expect(metrics.memoryProcessor).toMatchObject({ enabled: false, currentStrategy: 'none', strategyChanges: 0, recommendations: [] });
    expect(metrics.batchOptimizer).toMatchObject({ enabled: false, confidence: 0 });
    expect(metrics.batchOptimizer.optimizationScore).toBeGreaterThan(0);
    // What a caller changes about it is the caller's.
    metrics.cache.evictionCauses.size = 5;
    expect(generator.getPerformanceMetrics().cache.evictionCauses.size).toBe(0);
  });

  test('failed items: of those that were skipped, and of calls that failed, but not of those that were stopped', async () => {
    const generator = await ready({ cache: false });
    await generator.embed(['a', '', 'b', 'c'], { onError: 'skip' });
    expect(generator.getPerformanceMetrics().overall).toMatchObject({ itemsProcessed: 4, failed: 1, errorRate: 0.25 });
    await failure(() => generator.embed(['', 'd', 'e', 'f']));
    expect(generator.getPerformanceMetrics().overall).toMatchObject({ itemsProcessed: 4, errorRate: 5 / 8 });
    await failure(() => generator.embed(['g'], { signal: AbortSignal.abort() }));
    expect(generator.getPerformanceMetrics().overall.errorRate).toBe(5 / 8);
  });

  test('memory in use is at most all of the ceiling, also of one below what the process holds', () => {
    const { memoryUsage, processBytes, ceilingBytes } = new OptimizedEmbeddingGenerator({ memoryLimit: 1 }).getPerformanceMetrics().memoryProcessor;
    expect(processBytes).toBeGreaterThan(ceilingBytes);
    expect(memoryUsage).toBe(100);
  });

  test('time inside calls counts once where calls overlap', async () => {
    const generator = await ready({ cache: false });
    const started = performance.now();
    await Promise.all([0, 1, 2, 3].map((call) => generator.generateEmbeddings(annotations(300, 1000 * call))));
    const elapsed = performance.now() - started;
    const { totalProcessingTime, averageProcessingTime } = generator.getPerformanceMetrics().overall;
    expect(totalProcessingTime).toBeLessThanOrEqual(elapsed + 1);
    // The sum of the calls' own times is more than the time that passed.
    expect(averageProcessingTime * 1200).toBeGreaterThan(totalProcessingTime);
  });

  test('the size of batches: what the next one of that length has', async () => {
    const generator = await ready({ cache: false, batchOptimizer: new DynamicBatchOptimizer(5, { minSamples: 1000 }) });
    expect(generator.getPerformanceMetrics().batchOptimization.currentBatchSize).toBeLessThanOrEqual(5);
    await generator.embed(Array.from({ length: 50 }, (_, i) => `word ${i}`));
    expect(generator.getPerformanceMetrics().batchOptimization).toMatchObject({ currentBatchSize: 5, recommendedBatchSize: 5, confidence: 0.1 });
  });

  test('analytics are those of an optimizer that is told of the same batches', async () => {
    const generator = await ready({ cache: false, batchOptimizer: { historyRetention: 10 } });
    await generator.embed(Array.from({ length: 400 }, (_, i) => `${'word '.repeat(40)}${i}`));
    const { optimizationScore, resourceUtilization, averageBatchSize } = generator.getPerformanceMetrics().batchOptimizer;
    const machine = new DynamicBatchOptimizer().getCurrentSystemMetrics();
    // Memory alone is half of it.
    expect(resourceUtilization).toBeGreaterThanOrEqual((0.5 * machine.memoryUsage) / 100 - 0.2);
    expect(averageBatchSize).toBeGreaterThan(1);
    // Half of the score is performance, three tenths are resources: with all of memory to go and one kind of text, most of it.
    expect(optimizationScore).toBeGreaterThan(0.3);
  });
});

describe('examples of the document', () => {
  test('a cache', async () => {
    const cache = new IntelligentEmbeddingCache({ maxEntries: 5000, maxMemoryMB: 250, ttlSeconds: 7200, enableContentValidation: true });
    onTestFinished(() => cache.close());
    const embedding = [0.1, 0.2, 0.3];
    await cache.set('file.ts', 'function code...', embedding);
    const cached = await cache.get('file.ts', 'function code...');
    expect(cached?.embedding).toEqual(embedding.map(Math.fround));
    expect(await cache.get('file.ts', 'another one')).toBeNull();
    const { stats, memoryEfficiency, performanceScore } = cache.getPerformanceMetrics();
    expect([stats.hitRatio, stats.missRatio]).toEqual([0.5, 0.5]);
    for (const value of [stats.averageAccessTime, memoryEfficiency, performanceScore]) expect(Number.isFinite(value) && value >= 0).toBe(true);
  });

  test('an optimizer', () => {
    const optimizer = new DynamicBatchOptimizer(32, { maxBatchSize: 256, targetCpuUsage: 60, targetMemoryUsage: 70, aggressiveness: 0.5 });
    optimizer.recordPerformance({ batchSize: 64, processingTime: 1500, cpuUsage: 65, memoryUsage: 72, success: true, itemsProcessed: 64 });
    const { recommendedBatchSize, reason } = optimizer.getOptimizationRecommendation();
    expect(recommendedBatchSize).toBe(32);
    expect(reason).toContain('Insufficient performance data');
    expect(optimizer.getPerformanceAnalytics().averageThroughput).toBeCloseTo(64 / 1.5, 9);
  });

  test('a processor', async () => {
    const strategy = { memoryOverhead: 1, cpuOverhead: 1 };
    const processor = new MemoryAwareProcessor({
      strategies: [
        { name: 'conservative', maxBatchSize: 16, approach: 'sequential', cleanupFrequency: 50, ...strategy },
        { name: 'aggressive', maxBatchSize: 128, approach: 'parallel', cleanupFrequency: 200, ...strategy },
      ],
      memoryThresholds: { critical: 90, high: 75, normal: 60, low: 40 },
    });
    const generator = await ready({});
    const items = annotations(300);
    const results = await processor.processItems(items, (batch) => generator.generateEmbeddings(batch));
    expect(results.map(({ nodeId }) => nodeId)).toEqual(items.map(({ nodeId }) => nodeId));
    processor.stop();
  });
});
