// What the client has today, cut down to what its call sites need: hashes in place of a model.
import { DynamicBatchOptimizer } from './DynamicBatchOptimizer';
import { IntelligentEmbeddingCache } from './IntelligentEmbeddingCache';
import { MemoryAwareProcessor } from './MemoryAwareProcessor';

export interface Annotation {
  nodeId: string;
  signature: string;
  summary: string;
  sourceSnippet?: string;
}

export interface EmbeddingResult {
  nodeId: string;
  embedding: number[];
  inputText: string;
  processingTime: number;
  modelUsed: string;
}

export interface BatchProcessOptions {
  batchSize?: number;
  maxConcurrency?: number;
  memoryLimit?: number;
  progressCallback?: (processed: number, total: number) => void;
}

export class EmbeddingError extends Error {}

export class OptimizedEmbeddingGenerator {
  private readonly cache = new IntelligentEmbeddingCache();
  private readonly optimizer = new DynamicBatchOptimizer();
  private readonly processor = new MemoryAwareProcessor();
  private ready = false;

  constructor(
    private readonly config: {
      enableCaching?: boolean;
      enableBatchOptimization?: boolean;
      enableMemoryAwareProcessing?: boolean;
      cacheConfig?: { maxEntries?: number; maxSizeBytes?: number; ttlMs?: number };
      batchConfig?: { minBatchSize?: number; maxBatchSize?: number };
    } = {},
  ) {}

  async initialize(): Promise<void> {
    this.ready = true;
  }

  async batchProcess(annotations: Annotation[], options: BatchProcessOptions = {}): Promise<EmbeddingResult[]> {
    if (!this.ready) throw new EmbeddingError('not initialized');
    const results = await this.processor.processItems(annotations, async (batch) => {
      const started = performance.now();
      const embedded: EmbeddingResult[] = [];
      for (const annotation of batch) {
        const known = this.config.enableCaching === false ? null : await this.cache.get(annotation);
        const inputText = `Signature: ${annotation.signature} | Summary: ${annotation.summary}`;
        const result = known ?? { nodeId: annotation.nodeId, embedding: vector(inputText), inputText, processingTime: 0, modelUsed: 'hash' };
        await this.cache.set(annotation, result);
        embedded.push(result);
      }
      this.optimizer.recordPerformance(batch.length, performance.now() - started, batch.length);
      return embedded;
    });
    options.progressCallback?.(annotations.length, annotations.length);
    return results;
  }

  getPerformanceMetrics() {
    const { currentEntries, currentSizeBytes, hitRatio } = this.cache.getStats();
    return {
      cache: { entries: currentEntries, sizeBytes: currentSizeBytes, hitRatio },
      batchOptimization: { averageBatchSize: this.optimizer.getCurrentBatchSize() },
      overallScore: 0.5,
    };
  }

  async cleanup(): Promise<void> {
    this.ready = false;
    await this.cache.clear();
  }
}

/** Counts words by a hash of theirs. */
function vector(text: string): number[] {
  const values = new Array<number>(64).fill(0);
  for (const word of text.toLowerCase().match(/\w+/g) ?? []) {
    const at = [...word].reduce((hash, letter) => (hash * 31 + letter.charCodeAt(0)) % 64, 7);
    values[at]! += 1;
  }
  const length = Math.hypot(...values) || 1;
  return values.map((value) => value / length);
}
