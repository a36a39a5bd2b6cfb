// Assignments of what is promised to what there is, and back: only compiled, never run. Settings go both ways, so that a
// function that was written for the document takes ours and gives theirs. Metrics, which have further fields, go one way.
import {
  AdaptiveProcessingConfig,
  BatchOptimizerConfig,
  CacheConfig,
  DynamicBatchOptimizer,
  EmbeddingConfig,
  EmbeddingGenerator,
  IntelligentEmbeddingCache,
  MemoryAwareConfig,
  MemoryAwareProcessor,
  MemoryUsage,
  OptimizationConfig,
  OptimizedEmbeddingGenerator,
  PerformanceOptimizationConfig,
  type Annotation,
  type BatchProcessOptions,
  type EmbeddingResult,
  type MemoryThresholds,
  type PerformanceMetrics,
  type ProcessingStrategy,
} from 'embedcore';

import type { Code, Document } from './interfaces.js';

/** Compiles where each may stand for the other. */
type Both<A extends B, B extends C, C = A> = [A, B, C];

export type Settings = [
  Both<CacheConfig, Document.CacheConfig>,
  Both<BatchOptimizerConfig, Document.BatchOptimizerConfig>,
  Both<MemoryThresholds, Document.MemoryThresholds>,
  Both<ProcessingStrategy, Document.ProcessingStrategy>,
  Both<MemoryAwareConfig, Document.MemoryAwareConfig>,
  Both<OptimizationConfig, Code.OptimizationConfig>,
  Both<AdaptiveProcessingConfig, Code.AdaptiveProcessingConfig>,
  Both<PerformanceOptimizationConfig, Code.PerformanceOptimizationConfig>,
  Both<EmbeddingConfig, Code.EmbeddingConfig>,
  Both<MemoryUsage, Code.MemoryUsage>,
  Both<Annotation, Code.Annotation>,
];

export function forwards(
  cache: Document.CacheConfig,
  batches: Document.BatchOptimizerConfig,
  memory: Document.MemoryAwareConfig,
  code: Code.PerformanceOptimizationConfig,
  adaptive: Code.AdaptiveProcessingConfig,
  optimization: Code.OptimizationConfig,
): void {
  const ours: [CacheConfig, BatchOptimizerConfig, MemoryAwareConfig] = [cache, batches, memory];
  const spelled: [PerformanceOptimizationConfig, AdaptiveProcessingConfig, OptimizationConfig] = [code, adaptive, optimization];
  void [ours, spelled];
  new IntelligentEmbeddingCache(cache);
  new IntelligentEmbeddingCache({} as Partial<Document.CacheConfig>);
  new DynamicBatchOptimizer(32, batches);
  new DynamicBatchOptimizer(32, {} as Partial<Code.OptimizationConfig>);
  new MemoryAwareProcessor(memory);
  new MemoryAwareProcessor(adaptive);
  new MemoryAwareProcessor({} as Partial<Code.AdaptiveProcessingConfig>);
  new OptimizedEmbeddingGenerator(code);
  new OptimizedEmbeddingGenerator({} as Partial<Code.PerformanceOptimizationConfig>);
  new OptimizedEmbeddingGenerator({ modelPath: 'builtin', cache, batchOptimizer: batches, memoryProcessor: memory });
}

export function back(
  cache: CacheConfig,
  batches: BatchOptimizerConfig,
  memory: MemoryAwareConfig,
  code: PerformanceOptimizationConfig,
  adaptive: AdaptiveProcessingConfig,
  metrics: PerformanceMetrics,
  generator: OptimizedEmbeddingGenerator,
  result: EmbeddingResult,
): void {
  const documented: [Document.CacheConfig, Document.BatchOptimizerConfig, Document.MemoryAwareConfig] = [cache, batches, memory];
  const spelled: [Code.PerformanceOptimizationConfig, Code.AdaptiveProcessingConfig] = [code, adaptive];
  const measured: [Document.PerformanceMetrics, Code.PerformanceMetrics] = [metrics, metrics];
  const made: [Code.EmbeddingGenerator, EmbeddingGenerator, Code.EmbeddingResult] = [generator, generator, result];
  const partial: Partial<BatchProcessOptions> = {} as Partial<Code.BatchProcessOptions>;
  // The code's spelling of a cache, in the type that bears the document's name.
  const bytes: Partial<CacheConfig> = { maxEntries: 1, maxSizeBytes: 1, ttlMs: 1, enableContentValidation: true, hitRatioThreshold: 0.7 };
  void [documented, spelled, measured, made, partial, bytes];
  const config: Document.BatchOptimizerConfig = new DynamicBatchOptimizer().getConfig();
  void config;
}

/** Somebody else's, under the promised name. */
export class Other implements EmbeddingGenerator {
  async initialize(_modelPath: string): Promise<void> {}
  async generateEmbeddings(texts: string[]): Promise<number[][]> {
    return texts.map(() => []);
  }
  async batchProcess(annotations: Annotation[], _options?: Partial<BatchProcessOptions>): Promise<EmbeddingResult[]> {
    return annotations.map(({ nodeId }) => ({ nodeId, embedding: [], inputText: '', processingTime: 0, modelUsed: '' }));
  }
  async shutdown(): Promise<void> {}
  isReady(): boolean {
    return true;
  }
}

export function values(): number[] {
  const usage: MemoryUsage = MemoryUsage.now();
  const generator: EmbeddingGenerator = new EmbeddingGenerator();
  void generator;
  return [
    CacheConfig.maxEntries, BatchOptimizerConfig.maxBatchSize, OptimizationConfig.minSamples, MemoryAwareConfig.gcThreshold,
    AdaptiveProcessingConfig.memoryBuffer, PerformanceOptimizationConfig.cacheConfig.maxEntries ?? 0, EmbeddingConfig.memoryLimit, usage.usage,
  ];
}
