import type { Annotation, EmbeddingResult } from './OptimizedEmbeddingGenerator';

export class IntelligentEmbeddingCache {
  private readonly entries = new Map<string, { content: string; result: EmbeddingResult }>();
  private hits = 0;
  private misses = 0;

  constructor(private readonly config: { maxEntries?: number; maxSizeBytes?: number; ttlMs?: number; hitRatioThreshold?: number } = {}) {}

  async get(annotation: Annotation): Promise<EmbeddingResult | null> {
    const entry = this.entries.get(annotation.nodeId);
    if (entry?.content === content(annotation)) {
      this.hits++;
      return { ...entry.result };
    }
    this.misses++;
    return null;
  }

  async set(annotation: Annotation, result: EmbeddingResult): Promise<void> {
    this.entries.delete(annotation.nodeId);
    this.entries.set(annotation.nodeId, { content: content(annotation), result: { ...result } });
    const oldest = this.entries.keys().next().value;
    if (this.entries.size > (this.config.maxEntries ?? 1000) && oldest !== undefined) this.entries.delete(oldest);
  }

  async clear(): Promise<void> {
    this.entries.clear();
  }

  async optimize(): Promise<void> {}

  getStats() {
    const totalRequests = this.hits + this.misses;
    return {
      totalRequests,
      hits: this.hits,
      misses: this.misses,
      hitRatio: totalRequests > 0 ? this.hits / totalRequests : 0,
      currentEntries: this.entries.size,
      currentSizeBytes: this.entries.size * 1024,
    };
  }

  getPerformanceMetrics() {
    const stats = this.getStats();
    return { stats: { ...stats, missRatio: stats.totalRequests > 0 ? 1 - stats.hitRatio : 0 }, performanceScore: stats.hitRatio };
  }
}

const content = ({ signature, summary, sourceSnippet }: Annotation) => JSON.stringify([signature, summary, sourceSnippet]);

let shared: IntelligentEmbeddingCache | undefined;

export function getEmbeddingCache(): IntelligentEmbeddingCache {
  return (shared ??= new IntelligentEmbeddingCache());
}

export async function resetEmbeddingCache(): Promise<void> {
  shared = undefined;
}
