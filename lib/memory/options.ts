import type { BatchOptimizerOptions, DynamicBatchOptimizer } from '../batch/optimizer';
import type { EmbeddingError } from '../call/errors';

/** One way to process items. */
export interface ProcessingStrategy {
  /** What events call it. `streaming`, `conservative`, `balanced` and `aggressive` are meant for their level of memory
   * usage; others are ranked by size. */
  name: string;
  /** Most items of one call. */
  maxBatchSize: number;
  /** `parallel`: as many batches at a time as there are cores. Else one after the other; `chunked` and `streaming` let the
   * event loop turn between. */
  approach: 'sequential' | 'parallel' | 'streaming' | 'chunked';
  /** How much memory it takes, relative to others. For your information. */
  memoryOverhead: number;
  /** How much CPU it takes, relative to others. For your information. */
  cpuOverhead: number;
  /** Batches between two clean-ups while memory is short. */
  cleanupFrequency: number;
}

/** Memory usages, in percent, at which strategies change, in falling order. */
export interface MemoryThresholds {
  /** One item at a time from here on. Default 85. */
  critical: number;
  /** Small batches and warnings from here on. Default 70. */
  high: number;
  /** Middling batches from here on, large ones below. Default 55. */
  normal: number;
  /** Recommendations say that there is room, below. Default 35. */
  low: number;
}

/** Options of {@link MemoryAwareProcessor}. */
export interface MemoryProcessorOptions {
  /** Default: streaming (1 item), conservative (8), balanced (32, parallel), aggressive (128, parallel). */
  strategies?: ProcessingStrategy[] | undefined;
  memoryThresholds?: { [Level in keyof MemoryThresholds]?: number | undefined } | undefined;
  /** How often memory is looked at, in milliseconds. Default 1000. */
  monitoringInterval?: number | undefined;
  /** Memory usage from which free memory is given back every so many batches: percent, or a share of 0–1. Default 80. */
  cleanupThreshold?: number | undefined;
  /** Memory usage from which a clean-up collects garbage, too: percent, or a share of 0–1. Default 70. */
  gcThreshold?: number | undefined;
  /** Whether garbage may be collected; needs `node --expose-gc`. Default true. */
  enableGcHints?: boolean | undefined;
  /** Memory usage from which every batch is followed by a clean-up: percent, or a share of 0–1. Default 95. */
  emergencyCleanupThreshold?: number | undefined;
  /** Share of the available memory that is left alone, 0–0.99. Default 0.1. */
  memoryBuffer?: number | undefined;
}

/** Memory of the container where it has a limit, else of the host. Bytes. */
export interface MemoryMetrics {
  totalMemory: number;
  /** What can be had, caches that the kernel gives back included. */
  availableMemory: number;
  /** As `process.memoryUsage()`. */
  processMemory: NodeJS.MemoryUsage;
  /** 0–100. */
  memoryUsagePercent: number;
  /** What is available less `memoryBuffer`. */
  availableForProcessing: number;
}

/** How large the batches of a {@link MemoryAwareProcessor} are, within what its strategies allow. */
export interface ProcessingBatches {
  /** Most items of one call, whatever the strategy allows: 1–100000. Default: what the strategy allows. */
  batchSize?: number | undefined;
  /**
   * Asked before each call how many items are best, and told after it how it went: an optimizer, which others may use, too, or
   * the options of one. Default: none; batches are as large as the strategy allows.
   */
  batchOptimizer?: DynamicBatchOptimizer | BatchOptimizerOptions | undefined;
}

/** How a caller follows processing. */
export interface ProcessingHooks {
  /** Called as items are done; never goes back, ends with all. */
  onProgress?: ((completed: number, total: number) => void) | undefined;
  /** Called when memory makes another strategy necessary, or possible. */
  onStrategyChange?: ((before: ProcessingStrategy, after: ProcessingStrategy) => void) | undefined;
  /** Called while usage is at or above `high`, at most once for every sample of memory. */
  onMemoryWarning?: ((metrics: MemoryMetrics) => void) | undefined;
  /** Stops: no further call is made, and the promise is rejected with `ABORTED`, also while work that never waits goes on. */
  signal?: AbortSignal | undefined;
  /** Gives up with `TIMED_OUT` after so many milliseconds, in the same way. Default: never. */
  timeoutMs?: number | undefined;
}

/** Options of {@link MemoryAwareProcessor.processItems}. */
export interface ProcessItemsOptions<T> extends ProcessingHooks {
  /**
   * What to do about an item that fails. `'throw'`: reject. `'skip'`, or a function that is told: go on; its place in the
   * results stays `undefined`. To find the item, a call that fails is made again for each of its items alone.
   * Default `'throw'`.
   */
  onError?: 'throw' | 'skip' | ((error: EmbeddingError, item: T, index: number) => void) | undefined;
}

/** What {@link MemoryAwareProcessor.processWithMemoryAwareness} works on. */
export interface ProcessingContext<T, R> extends ProcessingHooks {
  items: readonly T[];
  /** Gives a result for each item of the batch, in order. */
  processor: (batch: T[]) => R[] | Promise<R[]>;
  /** Told about each item that fails. */
  onError?: ((error: EmbeddingError, item: T, index: number) => void) | undefined;
}

/** What {@link MemoryAwareProcessor.processWithMemoryAwareness} has done. */
export interface ProcessingResult<R> {
  /** Results of the items that succeeded, in the order of the items. */
  results: R[];
  /** Items that failed, in order: those have no result. */
  failures: { index: number; error: EmbeddingError }[];
  stats: {
    totalItems: number;
    successfulItems: number;
    failedItems: number;
    /** Milliseconds. */
    totalTime: number;
    strategyChanges: number;
    memoryCleanups: number;
    /** Percent. */
    peakMemoryUsage: number;
    /** Percent. */
    averageMemoryUsage: number;
  };
  /** Memory at the start and after each batch: the latest 1000. */
  memoryHistory: MemoryMetrics[];
}

/** See {@link MemoryAwareProcessor.getProcessingRecommendations}. */
export interface ProcessingRecommendations {
  currentStrategy: ProcessingStrategy;
  memoryMetrics: MemoryMetrics;
  recommendations: string[];
  /** Items that fit into the memory that is available, by what items have taken so far; 4 KB each before any has. */
  estimatedCapacity: number;
}
