import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { DynamicBatchOptimizer } from './own/DynamicBatchOptimizer';
import { getEmbeddingCache, IntelligentEmbeddingCache, resetEmbeddingCache } from './own/IntelligentEmbeddingCache';
import { MemoryAwareProcessor } from './own/MemoryAwareProcessor';
import { EmbeddingError, OptimizedEmbeddingGenerator, type Annotation, type EmbeddingResult } from './own/OptimizedEmbeddingGenerator';
import { SemanticSearch } from './search';

const annotations: Annotation[] = [
  { nodeId: 'read', signature: 'readLines(path: string): string[]', summary: 'Reads a file and gives its lines.' },
  { nodeId: 'retry', signature: 'retry(url: string): Promise<Response>', summary: 'Sends a request again when it failed.' },
  { nodeId: 'evict', signature: 'evict(): void', summary: 'Removes the oldest entry of the cache.', sourceSnippet: 'this.entries.delete(first)' },
];
const result = (nodeId: string): EmbeddingResult => ({ nodeId, embedding: [0.25, 0.5], inputText: 'text', processingTime: 1, modelUsed: 'm' });

beforeEach(() => resetEmbeddingCache());
afterEach(() => vi.restoreAllMocks());

describe('SemanticSearch', () => {
  it('finds what was indexed, reports progress, and keeps it as JSON', async () => {
    const search = new SemanticSearch();
    const progress = vi.fn();
    expect(await search.index(annotations, progress)).toBe(3);
    expect(progress).toHaveBeenLastCalledWith(3, 3);
    expect((await search.find('reads the lines of a file'))[0]).toBe('read');
    expect((await search.find('remove the oldest entry of the cache'))[0]).toBe('evict');
    const kept = JSON.parse(search.serialize()) as EmbeddingResult[];
    expect(kept.map(({ nodeId }) => nodeId)).toEqual(['read', 'retry', 'evict']);
    expect(kept[0]!.embedding.every((value) => typeof value === 'number')).toBe(true);
    expect(search.status().entries).toBeGreaterThan(0);
    expect((await getEmbeddingCache().get(annotations[0]!))?.nodeId).toBe('read');
    await search.close();
  });

  it('works with a generator that is mocked', async () => {
    vi.spyOn(OptimizedEmbeddingGenerator.prototype, 'initialize').mockResolvedValue(undefined);
    const embed = vi.spyOn(OptimizedEmbeddingGenerator.prototype, 'batchProcess').mockImplementation(async (all) => all.map(({ nodeId }) => result(nodeId)));
    const search = new SemanticSearch(new OptimizedEmbeddingGenerator());
    expect(await search.index(annotations)).toBe(3);
    expect(embed).toHaveBeenCalledWith(annotations, expect.objectContaining({ memoryLimit: 512 }));
    await search.close();
  });

  it('says when it is not ready', async () => {
    const generator = new OptimizedEmbeddingGenerator({ enableCaching: false });
    await expect(generator.batchProcess(annotations)).rejects.toBeInstanceOf(EmbeddingError);
    await generator.cleanup();
  });
});

describe('IntelligentEmbeddingCache', () => {
  it('answers for an unchanged annotation only', async () => {
    const cache = new IntelligentEmbeddingCache({ maxEntries: 2, maxSizeBytes: 1024 * 1024, ttlMs: 60_000, hitRatioThreshold: 0.5 });
    await cache.set(annotations[0]!, result('read'));
    expect(await cache.get(annotations[0]!)).toMatchObject({ nodeId: 'read', embedding: [0.25, 0.5] });
    expect(await cache.get({ ...annotations[0]!, summary: 'Changed.' })).toBeNull();
    expect(cache.getStats()).toMatchObject({ hits: 1, misses: 1, hitRatio: 0.5, totalRequests: 2 });
    expect(cache.getPerformanceMetrics().stats.missRatio).toBe(0.5);
    await cache.optimize();
    await cache.clear();
    expect(cache.getStats().currentEntries).toBe(0);
  });

  it('drops the oldest entry, and gives copies', async () => {
    const cache = new IntelligentEmbeddingCache({ maxEntries: 2 });
    for (const annotation of annotations) await cache.set(annotation, result(annotation.nodeId));
    expect(await cache.get(annotations[0]!)).toBeNull();
    const found = await cache.get(annotations[1]!);
    found!.nodeId = 'changed';
    expect((await cache.get(annotations[1]!))!.nodeId).toBe('retry');
    expect(await cache.get({} as Annotation)).toBeNull();
  });

  it('is shared', async () => {
    const cache = getEmbeddingCache();
    expect(getEmbeddingCache()).toBe(cache);
    await resetEmbeddingCache();
    expect(getEmbeddingCache()).not.toBe(cache);
  });
});

describe('DynamicBatchOptimizer', () => {
  it('keeps its size while it knows too little', () => {
    const optimizer = new DynamicBatchOptimizer(16, { minBatchSize: 64, maxBatchSize: 4, minSamples: 10 });
    expect(optimizer.getConfig()).toMatchObject({ minBatchSize: 4, maxBatchSize: 64 });
    optimizer.recordPerformance(16, 100, 16);
    optimizer.recordPerformance(16, 100, 16, false);
    const { recommendedBatchSize, confidence, reason } = optimizer.getOptimizationRecommendation();
    expect(recommendedBatchSize).toBe(16);
    expect(confidence).toBeLessThanOrEqual(0.1);
    expect(reason).toContain('Insufficient performance data');
    optimizer.reset();
    expect(optimizer.getCurrentBatchSize()).toBe(16);
  });
});

describe('MemoryAwareProcessor', () => {
  it('processes each item once, in order', async () => {
    const processor = new MemoryAwareProcessor();
    const items = Array.from({ length: 100 }, (_, i) => i);
    const onProgress = vi.fn();
    expect(await processor.processItems(items, async (batch) => batch.map((item) => item * 2), { onProgress })).toEqual(items.map((item) => item * 2));
    expect(onProgress).toHaveBeenLastCalledWith(100, 100);
    const { results, stats } = await processor.processWithMemoryAwareness({ items, processor: async (batch: number[]) => batch });
    expect(results).toEqual(items);
    expect(stats).toMatchObject({ totalItems: 100, successfulItems: 100, failedItems: 0 });
    expect(processor.getCurrentMemoryMetrics().processMemory.heapUsed).toBeGreaterThan(0);
    processor.stop();
  });

  it('needs a strategy', () => {
    expect(() => new MemoryAwareProcessor({ strategies: [] })).toThrow('At least one processing strategy must be configured');
  });
});
