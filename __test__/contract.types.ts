// Call sites of everything that the contract promises, in both spellings, for the type checker alone: never run. They
// import nothing else, so that the toolchains' tests can check them against the packed package, with every TypeScript.
import {
  DynamicBatchOptimizer,
  EmbeddingError,
  EmbeddingGenerationError,
  getEmbeddingCache,
  IntelligentEmbeddingCache,
  MemoryAwareProcessor,
  MemoryLimitError,
  ModelInitializationError,
  OptimizedEmbeddingGenerator,
  prepareText,
  resetEmbeddingCache,
} from 'embedcore';
import type {
  Annotation,
  BatchOptimizerOptions,
  BatchProcessOptions,
  BatchRecord,
  CachedEmbedding,
  CachedResult,
  CacheEntryOptions,
  CacheMatrix,
  CacheOptions,
  CachePerformanceMetrics,
  CacheStats,
  CallOptions,
  EmbeddingErrorCode,
  EmbeddingMatrix,
  EmbeddingResult,
  GeneratorOptions,
  Logger,
  MemoryMetrics,
  MemoryProcessorOptions,
  MemoryThresholds,
  ModelInfo,
  OptimizationRecommendation,
  PerformanceAnalytics,
  PerformanceHistory,
  PerformanceMetrics,
  ProcessingContext,
  ProcessingRecommendations,
  ProcessingResult,
  ProcessingStrategy,
  ProcessItemsOptions,
  SimilarEntry,
  SystemResourceMetrics,
} from 'embedcore';

/** Fails to compile where the two types are not the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => {};

declare const maybe: AbortSignal | undefined;

export async function cache(annotation: Annotation, result: EmbeddingResult): Promise<void> {
  const documented: CacheOptions = {
    maxEntries: 1000, maxMemoryMB: 100, ttlSeconds: 3600, enableContentValidation: true, maintenanceInterval: 300000,
    persistPath: 'file', namespace: 'n', model: 'm', vectorPrecision: 'f32',
  };
  const code: CacheOptions = { maxSizeBytes: 1, ttlMs: 1, hitRatioThreshold: 0.7, maxEntries: 1 };
  const cache = new IntelligentEmbeddingCache(documented);
  new IntelligentEmbeddingCache(code);
  new IntelligentEmbeddingCache();
  // @ts-expect-error -- no such option
  new IntelligentEmbeddingCache({ maxItems: 1 });
  // @ts-expect-error -- no such precision
  new IntelligentEmbeddingCache({ vectorPrecision: 'f64' });

  const options: CacheEntryOptions = { ttlSeconds: 1, metadata: { a: 1 } };
  await cache.set('key', 'content', [1, 2], options);
  await cache.set('key', 'content', Float32Array.of(1, 2));
  await cache.set(annotation, result);
  // @ts-expect-error -- an embedding without the content that it is of
  await cache.set('key', [1, 2]);
  // @ts-expect-error -- not numbers
  await cache.set('key', 'content', ['1']);

  const found: CachedEmbedding | null = await cache.get('key', 'content');
  const known: CachedResult | null = await cache.get(annotation);
  const asResult: EmbeddingResult | null = known;
  same<NonNullable<typeof found>['embedding'], number[]>(true);
  void asResult;
  // @ts-expect-error -- may be null
  found.embedding;

  const many: CacheMatrix = await cache.getMany([{ key: 'key', content: 'content' }]);
  await cache.getMany([annotation]);
  many.row(0)[0]!.toFixed();
  await cache.setMany([{ key: 'key', content: 'content', embedding: many.row(0), ttlSeconds: 1 }]);
  const computed: CachedEmbedding = await cache.getOrCompute('key', 'content', async () => [1, 2]);
  await cache.getOrCompute('key', 'content', () => Float32Array.of(1));
  void computed;
  const there: boolean = (await cache.has('key', 'content')) && (await cache.has(annotation)) && (await cache.delete('key'));
  const near: SimilarEntry[] = await cache.findSimilar(Float32Array.of(1), { threshold: 0.95, limit: 10 });
  const { key, similarity, embedding, metadata } = near[0]!;
  void [there, key, similarity.toFixed(), embedding.length, metadata];
  await cache.clear();
  await cache.optimize();
  const stats: CacheStats = cache.getStats();
  const { totalRequests, hits, misses, hitRatio, currentEntries, currentSizeBytes, utilization, avgAccessTimeMs, evictions } = stats;
  const metrics: CachePerformanceMetrics = cache.getPerformanceMetrics();
  const numbers: number[] = [
    totalRequests, hits, misses, hitRatio, currentEntries, currentSizeBytes, utilization, avgAccessTimeMs, evictions,
    metrics.stats.missRatio, metrics.stats.averageAccessTime, metrics.memoryEfficiency, metrics.performanceScore, metrics.recentSamples.length,
  ];
  void numbers;
  await cache.close();
  const shared: IntelligentEmbeddingCache = getEmbeddingCache({ maxEntries: 1 });
  same<typeof shared, ReturnType<typeof getEmbeddingCache>>(true);
  await resetEmbeddingCache();
}

export function optimizer(): void {
  const options: BatchOptimizerOptions = {
    minBatchSize: 1, maxBatchSize: 128, targetCpuUsage: 70, targetMemoryUsage: 75, minSamples: 10, historyRetention: 100, aggressiveness: 0.3,
  };
  const optimizer = new DynamicBatchOptimizer(32, options);
  new DynamicBatchOptimizer();
  new DynamicBatchOptimizer(16, { maxBatchSize: 64 });
  // @ts-expect-error -- the size comes first
  new DynamicBatchOptimizer({ maxBatchSize: 64 });
  const record: BatchRecord = { batchSize: 1, processingTime: 1, cpuUsage: 1, memoryUsage: 1, success: true, itemsProcessed: 1, tokens: 1 };
  optimizer.recordPerformance(record);
  optimizer.recordPerformance({ batchSize: 1, processingTime: 1, itemsProcessed: 1 });
  optimizer.recordPerformance(32, 120, 32);
  optimizer.recordPerformance(32, 120, 32, false);
  // @ts-expect-error -- how many items?
  optimizer.recordPerformance(32, 120);
  // @ts-expect-error -- how many items?
  optimizer.recordPerformance({ batchSize: 1, processingTime: 1 });
  same<number, ReturnType<typeof optimizer.getCurrentBatchSize>>(true);
  same<number, ReturnType<typeof optimizer.optimize>>(true);
  const { minBatchSize, maxBatchSize, aggressiveness } = optimizer.getConfig();
  void [minBatchSize.toFixed(), maxBatchSize.toFixed(), aggressiveness.toFixed()];
  optimizer.reset();
  const advice: OptimizationRecommendation = optimizer.getOptimizationRecommendation();
  const { recommendedBatchSize, confidence, reason, expectedImprovement, resourcePrediction } = advice;
  void [recommendedBatchSize.toFixed(), confidence.toFixed(), reason.trim(), expectedImprovement.toFixed()];
  void [resourcePrediction.cpuUsage.toFixed(), resourcePrediction.memoryUsage.toFixed(), resourcePrediction.throughput.toFixed()];
  const analytics: PerformanceAnalytics = optimizer.getPerformanceAnalytics();
  const { averageThroughput, averageBatchSize, averageProcessingTime, optimizationScore, resourceUtilization, successRate } = analytics;
  const { throughputTrend, memoryTrend, cpuTrend } = analytics.trends;
  const numbers: number[] = [
    averageThroughput, averageBatchSize, averageProcessingTime, optimizationScore, resourceUtilization, successRate, throughputTrend, memoryTrend, cpuTrend,
  ];
  const history: PerformanceHistory[] = analytics.recentHistory;
  same<OptimizationRecommendation, typeof analytics.recommendations>(true);
  const machine: SystemResourceMetrics = analytics.currentMetrics;
  const { cpuUsage, availableMemory, totalMemory, memoryUsage, loadAverage, cpuCores } = optimizer.getCurrentSystemMetrics();
  void [numbers, history, machine, cpuUsage, availableMemory, totalMemory, memoryUsage, loadAverage.length, cpuCores];
}

export async function processor(): Promise<void> {
  const strategy: ProcessingStrategy = {
    name: 'own', maxBatchSize: 10, approach: 'chunked', memoryOverhead: 1, cpuOverhead: 1, cleanupFrequency: 10,
  };
  const memoryThresholds: MemoryThresholds = { critical: 85, high: 70, normal: 55, low: 35 };
  const options: MemoryProcessorOptions = {
    strategies: [strategy], memoryThresholds, monitoringInterval: 1000, cleanupThreshold: 0.8, gcThreshold: 0.7,
    enableGcHints: true, emergencyCleanupThreshold: 0.95, memoryBuffer: 0.1,
  };
  const processor = new MemoryAwareProcessor(options);
  new MemoryAwareProcessor();
  new MemoryAwareProcessor({ memoryThresholds: { critical: 90 } });
  // @ts-expect-error -- no such approach
  const wrong: ProcessingStrategy = { ...strategy, approach: 'random' };
  void wrong;

  const lengths: number[] = await processor.processItems(['a', 'b'], async (batch) => batch.map((text) => text.length));
  await processor.processItems(['a'], (batch) => batch, {
    onProgress: (completed, total) => void [completed.toFixed(), total.toFixed()],
    onStrategyChange: (before, after) => void [before.name, after.name],
    onMemoryWarning: (metrics) => void metrics.memoryUsagePercent,
    signal: maybe,
    onError: (error, item, index) => void [error.code, item.trim(), index.toFixed()],
  });
  const itemOptions: ProcessItemsOptions<string> = { onError: 'skip' };
  const skipped: (number | undefined)[] = await processor.processItems(['a'], async (batch) => batch.map(Number), { onError: 'skip' });
  // @ts-expect-error -- an item may have been skipped
  const all: number[] = await processor.processItems(['a'], async (batch) => batch.map(Number), { onError: 'skip' });
  const context: ProcessingContext<string, number> = { items: ['a'], processor: async (batch) => batch.map(Number), onProgress: () => {} };
  const result: ProcessingResult<number> = await processor.processWithMemoryAwareness(context);
  const { totalItems, successfulItems, failedItems, totalTime, strategyChanges, memoryCleanups, peakMemoryUsage, averageMemoryUsage } = result.stats;
  const numbers: number[] = [totalItems, successfulItems, failedItems, totalTime, strategyChanges, memoryCleanups, peakMemoryUsage, averageMemoryUsage];
  const history: MemoryMetrics[] = result.memoryHistory;
  void [lengths, itemOptions, skipped, all, numbers, history];

  const metrics = processor.getCurrentMemoryMetrics();
  same<MemoryMetrics, typeof metrics>(true);
  const chosen: ProcessingStrategy = processor.selectOptimalStrategy(metrics);
  const heap: number = metrics.processMemory.heapUsed + metrics.availableForProcessing + metrics.availableMemory + metrics.totalMemory;
  const advice: ProcessingRecommendations = processor.getProcessingRecommendations();
  void [chosen, heap, advice.currentStrategy.name, advice.memoryMetrics, advice.recommendations.join(), advice.estimatedCapacity.toFixed()];
  processor.stop();
}

export async function generator(annotations: readonly Annotation[], logger: Logger): Promise<void> {
  const documented: GeneratorOptions = {
    modelPath: 'builtin', cache: { maxEntries: 1 }, batchOptimizer: { maxBatchSize: 64 }, memoryProcessor: false, memoryLimit: 512,
    revision: 'main', dtype: 'q8', pooling: 'mean', normalize: true, dimensions: 64, maxLength: 128, prompts: { query: 'q: ' },
    intraOpThreads: 1, executionProviders: ['cpu'], cacheDir: 'dir', localFilesOnly: true, logger,
  };
  const code: GeneratorOptions = {
    enableCaching: true, enableBatchOptimization: true, enableMemoryAwareProcessing: false,
    cacheConfig: { maxSizeBytes: 1 }, batchConfig: { minBatchSize: 1 }, memoryConfig: { memoryBuffer: 0.2 },
  };
  const instances: GeneratorOptions = {
    cache: new IntelligentEmbeddingCache(), batchOptimizer: new DynamicBatchOptimizer(), memoryProcessor: new MemoryAwareProcessor(), logger: console,
  };
  new OptimizedEmbeddingGenerator(code);
  new OptimizedEmbeddingGenerator(instances);
  const generator = new OptimizedEmbeddingGenerator(documented);
  // @ts-expect-error -- no such pooling
  new OptimizedEmbeddingGenerator({ pooling: 'sum' });
  await generator.initialize();
  await generator.initialize('microsoft/codebert-base');

  const options: CallOptions = {
    timeoutMs: 1000, progressCallback: (processed, total) => void [processed.toFixed(), total.toFixed()],
    onError: 'skip', inputType: 'query', bypassCache: true, signal: maybe,
  };
  const batch: BatchProcessOptions = { batchSize: 8, maxConcurrency: 2, memoryLimit: 256, progressCallback: () => {}, signal: maybe };
  const results: EmbeddingResult[] = await generator.generateEmbeddings(annotations, options);
  const vectors: number[][] = await generator.generateEmbeddings(['a', 'b']);
  const same1: EmbeddingResult[] = await generator.batchProcess(annotations, batch);
  const matrix: EmbeddingMatrix = await generator.embed(['a'], options);
  const query: Float32Array = await generator.embedQuery('a');
  const { nodeId, embedding, inputText, processingTime, modelUsed, confidence, fromCache, truncated, tokenCount } = results[0]!;
  void [nodeId.trim(), embedding.length, inputText.trim(), processingTime.toFixed(), modelUsed.trim(), confidence?.toFixed(), fromCache, truncated, tokenCount];
  void [vectors[0]![0]!.toFixed(), same1, matrix.data.length, matrix.rows, matrix.dimensions, matrix.row(0).length, query.length];
  // @ts-expect-error -- of one kind, not of both
  await generator.generateEmbeddings(['a', annotations[0]!]);
  // @ts-expect-error -- one text is embedQuery, or [text]
  await generator.embed('a');
  // @ts-expect-error -- 'throw' or 'skip'
  await generator.embed(['a'], { onError: 'ignore' });

  for await (const result of generator.stream(annotations)) result.embedding.length;
  for await (const vector of generator.stream(['a', 'b'])) vector.length;
  async function* source(): AsyncGenerator<Annotation, void, undefined> {
    yield* annotations;
  }
  for await (const { embedding: values } of generator.stream(source(), { order: 'completion', signal: maybe })) values.length;

  const metrics: PerformanceMetrics = generator.getPerformanceMetrics();
  const { cache, batchOptimizer, memoryProcessor, overall, batchOptimization, memoryProcessing, overallScore } = metrics;
  void [cache?.entries, cache?.sizeBytes, batchOptimizer.averageBatchSize, memoryProcessor.peakBytes, overall.throughput];
  void [batchOptimization.enabled, memoryProcessing.enabled, overallScore.toFixed()];
  await generator.optimizePerformance();
  const info: ModelInfo = generator.getModelInfo();
  const ready: boolean = generator.isReady();
  void [info.fingerprint, ready, generator.prepareText(annotations[0]!), prepareText(annotations[0]!, 128)];
  await generator.cleanup();
  await generator.shutdown();
  await generator[Symbol.asyncDispose]();
}

export function errors(error: unknown): string {
  if (error instanceof MemoryLimitError || error instanceof EmbeddingGenerationError) return error.code;
  if (error instanceof ModelInitializationError) return error.message;
  if (!(error instanceof EmbeddingError)) return '';
  const code: EmbeddingErrorCode = error.code;
  // @ts-expect-error -- no such code
  if (code === 'WRONG') return '';
  void [error.retryable, error.details['index'], error.cause];
  switch (code) {
    case 'INVALID_ARGUMENT': case 'INVALID_CONFIG': case 'INPUT_TOO_LONG': case 'NOT_INITIALIZED': case 'BACKEND_UNAVAILABLE':
    case 'RATE_LIMITED': case 'BACKEND_REJECTED': case 'OVERLOADED': case 'TIMED_OUT': case 'ABORTED': case 'CLOSED':
    case 'CACHE_STORAGE_FAILED': case 'INTERNAL': case 'MODEL_INIT_FAILED': case 'EMBEDDING_GENERATION_FAILED': case 'MEMORY_LIMIT_EXCEEDED':
      return code;
  }
}
