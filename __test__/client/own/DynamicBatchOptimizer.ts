export class DynamicBatchOptimizer {
  private samples = 0;
  private readonly config: { minBatchSize: number; maxBatchSize: number };

  constructor(
    private size = 32,
    config: { minBatchSize?: number; maxBatchSize?: number; minSamples?: number } = {},
  ) {
    const { minBatchSize = 1, maxBatchSize = 128 } = config;
    this.config = { minBatchSize: Math.min(minBatchSize, maxBatchSize), maxBatchSize: Math.max(minBatchSize, maxBatchSize) };
  }

  recordPerformance(_batchSize: number, _processingTime: number, _itemCount: number, _success = true): void {
    this.samples++;
  }

  getCurrentBatchSize(): number {
    return Math.min(this.config.maxBatchSize, Math.max(this.config.minBatchSize, this.size));
  }

  getConfig() {
    return { ...this.config };
  }

  getOptimizationRecommendation() {
    return { recommendedBatchSize: this.getCurrentBatchSize(), confidence: 0.1, reason: `Insufficient performance data (${this.samples} samples)`, expectedImprovement: 0 };
  }

  reset(): void {
    this.samples = 0;
  }
}
