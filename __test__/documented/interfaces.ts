// The shapes that are promised, written down once: those of the document, and those that the code of the project has that
// was written before it. They import nothing, so that they say the same whatever the package says.

/** As the document has them. */
export namespace Document {
  export interface CacheConfig {
    maxEntries: number;
    maxMemoryMB: number;
    ttlSeconds: number;
    enableContentValidation: boolean;
    maintenanceInterval: number;
  }

  export interface BatchOptimizerConfig {
    minBatchSize: number;
    maxBatchSize: number;
    targetCpuUsage: number;
    targetMemoryUsage: number;
    minSamples: number;
    historyRetention: number;
    aggressiveness: number;
  }

  export interface MemoryThresholds {
    critical: number;
    high: number;
    normal: number;
    low: number;
  }

  export interface ProcessingStrategy {
    name: string;
    maxBatchSize: number;
    approach: 'sequential' | 'parallel' | 'streaming' | 'chunked';
    memoryOverhead: number;
    cpuOverhead: number;
    cleanupFrequency: number;
  }

  export interface MemoryAwareConfig {
    strategies: ProcessingStrategy[];
    memoryThresholds: MemoryThresholds;
    monitoringInterval: number;
    cleanupThreshold: number;
    gcThreshold: number;
  }

  export interface PerformanceMetrics {
    cache: { hitRatio: number; missRatio: number; averageAccessTime: number; memoryEfficiency: number; performanceScore: number };
    batchOptimizer: { averageBatchSize: number; averageThroughput: number; optimizationScore: number; resourceUtilization: number };
    memoryProcessor: { currentStrategy: string; memoryUsage: number; efficiency: number; strategyChanges: number };
    overall: { totalProcessingTime: number; itemsProcessed: number; averageItemTime: number; errorRate: number };
  }
}

/** As the code has them. */
export namespace Code {
  export interface Annotation {
    nodeId: string;
    signature: string;
    summary: string;
    sourceSnippet?: string;
    metadata?: Record<string, unknown>;
  }

  export interface EmbeddingResult {
    nodeId: string;
    embedding: number[];
    inputText: string;
    processingTime: number;
    modelUsed: string;
    confidence?: number;
  }

  export interface BatchProcessOptions {
    batchSize: number;
    maxConcurrency: number;
    memoryLimit: number;
    progressCallback?: (processed: number, total: number) => void;
  }

  export interface EmbeddingGenerator {
    initialize(modelPath: string): Promise<void>;
    generateEmbeddings(texts: string[]): Promise<number[][]>;
    batchProcess(annotations: Annotation[], options?: Partial<BatchProcessOptions>): Promise<EmbeddingResult[]>;
    shutdown(): Promise<void>;
    isReady(): boolean;
  }

  export interface EmbeddingConfig {
    modelPath: string;
    modelName: string;
    defaultBatchSize: number;
    maxBatchSize: number;
    memoryLimit: number;
    maxConcurrency: number;
    enableProgressReporting: boolean;
    enableConfidenceScoring: boolean;
  }

  export interface MemoryUsage {
    usage: number;
    available: number;
    shouldCleanup: boolean;
  }

  export interface PerformanceOptimizationConfig {
    enableCaching: boolean;
    enableBatchOptimization: boolean;
    enableMemoryAwareProcessing: boolean;
    cacheConfig?: { maxEntries?: number; maxSizeBytes?: number; ttlMs?: number };
    batchConfig?: { minBatchSize?: number; maxBatchSize?: number; targetCpuUsage?: number; targetMemoryUsage?: number };
    memoryConfig?: { memoryThresholds?: { critical?: number; high?: number; normal?: number; low?: number }; enableGcHints?: boolean };
  }

  export type OptimizationConfig = Document.BatchOptimizerConfig;

  export interface AdaptiveProcessingConfig {
    memoryThresholds: Document.MemoryThresholds;
    strategies: Document.ProcessingStrategy[];
    monitoringInterval: number;
    enableGcHints: boolean;
    emergencyCleanupThreshold: number;
    memoryBuffer: number;
  }

  export interface PerformanceMetrics {
    cache?: { hitRatio: number; entries: number; sizeBytes: number; memoryEfficiency: number };
    batchOptimization?: {
      currentBatchSize: number;
      throughputTrend: number;
      memoryTrend: number;
      cpuTrend: number;
      recommendedBatchSize: number;
      confidence: number;
    };
    memoryProcessing?: { currentStrategy: string; memoryUsagePercent: number; availableMemory: number; recommendations: string[] };
    overallScore: number;
  }
}
