export class MemoryAwareProcessor {
  constructor(config: { strategies?: unknown[] } = {}) {
    if (config.strategies?.length === 0) throw new Error('At least one processing strategy must be configured');
  }

  async processItems<T, R>(
    items: readonly T[],
    processor: (batch: T[]) => Promise<R[]>,
    options: { onProgress?: (completed: number, total: number) => void } = {},
  ): Promise<R[]> {
    const results: R[] = [];
    for (let from = 0; from < items.length; from += 32) {
      results.push(...(await processor(items.slice(from, from + 32))));
      options.onProgress?.(results.length, items.length);
    }
    return results;
  }

  async processWithMemoryAwareness<T, R>({ items, processor }: { items: readonly T[]; processor: (batch: T[]) => Promise<R[]> }) {
    const results = await this.processItems(items, processor);
    const stats = { totalItems: items.length, successfulItems: results.length, failedItems: 0, strategyChanges: 0 };
    return { results, stats, memoryHistory: [] as { memoryUsagePercent: number }[] };
  }

  getCurrentMemoryMetrics() {
    return { processMemory: process.memoryUsage(), memoryUsagePercent: 50, totalMemory: 2 ** 30, availableMemory: 2 ** 29 };
  }

  stop(): void {}
}
