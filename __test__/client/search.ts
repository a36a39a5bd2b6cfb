// An application that knows its four classes by their files. `toolchains/` replaces those paths by 'embedcore', and
// nothing else, and runs the same tests.
import { DynamicBatchOptimizer } from './own/DynamicBatchOptimizer';
import { getEmbeddingCache } from './own/IntelligentEmbeddingCache';
import { MemoryAwareProcessor } from './own/MemoryAwareProcessor';
import { OptimizedEmbeddingGenerator, type Annotation, type BatchProcessOptions, type EmbeddingResult } from './own/OptimizedEmbeddingGenerator';

export class SemanticSearch {
  private readonly generator: OptimizedEmbeddingGenerator;
  private readonly optimizer = new DynamicBatchOptimizer(16, { minBatchSize: 4, maxBatchSize: 64 });
  private readonly processor = new MemoryAwareProcessor();
  private results: EmbeddingResult[] = [];

  constructor(generator?: OptimizedEmbeddingGenerator) {
    this.generator = generator ?? new OptimizedEmbeddingGenerator({
      enableCaching: true,
      enableBatchOptimization: true,
      enableMemoryAwareProcessing: true,
      cacheConfig: { maxEntries: 5000, maxSizeBytes: 50 * 1024 * 1024, ttlMs: 3_600_000 },
      batchConfig: { minBatchSize: 1, maxBatchSize: 64 },
    });
  }

  async index(annotations: Annotation[], progressCallback?: BatchProcessOptions['progressCallback']): Promise<number> {
    await this.generator.initialize();
    const options: BatchProcessOptions = { batchSize: this.optimizer.getCurrentBatchSize(), maxConcurrency: 2, memoryLimit: 512 };
    if (progressCallback) options.progressCallback = progressCallback;
    const started = Date.now();
    this.results = await this.generator.batchProcess(annotations, options);
    this.optimizer.recordPerformance(annotations.length, Math.max(1, Date.now() - started), annotations.length);
    for (const [i, annotation] of annotations.entries()) await getEmbeddingCache().set(annotation, this.results[i]!);
    return this.results.length;
  }

  /** As it is kept on disk. */
  serialize(): string {
    return JSON.stringify(this.results);
  }

  async find(words: string): Promise<string[]> {
    const [query] = await this.generator.batchProcess([{ nodeId: 'query', signature: '', summary: words }]);
    const scores = await this.processor.processItems(this.results, async (batch) =>
      batch.map(({ nodeId, embedding }) => ({ nodeId, score: embedding.reduce((sum, value, i) => sum + value * query!.embedding[i]!, 0) })),
    );
    return scores.sort((a, b) => b.score - a.score).map(({ nodeId }) => nodeId);
  }

  status() {
    const { cache, batchOptimization, overallScore } = this.generator.getPerformanceMetrics();
    return { entries: cache?.entries ?? 0, sizeBytes: cache?.sizeBytes ?? 0, batch: batchOptimization.averageBatchSize, overallScore };
  }

  async close(): Promise<void> {
    this.processor.stop();
    await this.generator.cleanup();
  }
}
