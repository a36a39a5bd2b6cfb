import { channel } from 'node:diagnostics_channel';

import type { CacheMaintenance, CachePerformanceMetrics, CacheStats, ModalityStats } from '../cache/report';
import { tellSize, type Log } from '../call/logger';
import type { OperationStats } from '../monitor/snapshot';

/** What was learned about batches of texts of like length. */
export interface LearnedBatch {
  /** The longest texts that it is about, in tokens; the shortest are half as long. */
  maxTokens: number;
  /** How many texts of that length run together now; of shorter ones, as many more as have the same number of tokens. */
  batchSize: number;
  /** Batches that were learned from. */
  samples: number;
}

/** What a generator has done since it was made. Everything is measured; what was not is 0 or absent. */
export interface PerformanceMetrics {
  cache: CacheMetrics;
  batchOptimizer: BatchMetrics;
  /** The same. */
  batchOptimization: BatchMetrics;
  memoryProcessor: MemoryUseMetrics;
  /** The same. */
  memoryProcessing: MemoryUseMetrics;
  overall: OverallMetrics;
  /**
   * The stages that ran, with their times in milliseconds: those of the work itself, not of waiting for a thread. What runs
   * on several threads counts for each.
   */
  stages: Partial<Record<StageName, OperationStats>>;
  /** `overall.score`. */
  overallScore: number;
}

/**
 * A stage of a call. `prepare` words annotations, finds equal texts and hashes keys; `lookup` asks the cache; `tokenize`
 * makes tokens; `plan` chooses the texts of a batch; `wait` is until memory permits it; `infer` runs the model; `commit` puts
 * the batch into the cache. Items are texts. The first two run once a call, `tokenize` for up to 1024 texts at a time,
 * the others for each batch.
 */
export type StageName = 'prepare' | 'lookup' | 'tokenize' | 'plan' | 'wait' | 'infer' | 'commit';

/** How the generator's cache does, since it was made. One that is shared counts for all who use it. */
export interface CacheMetrics extends CacheStats {
  /** Whether there is a cache. Without one, all numbers are 0. */
  enabled: boolean;
  /** `currentEntries`. */
  entries: number;
  /** `currentSizeBytes`. */
  sizeBytes: number;
  /** As {@link CachePerformanceMetrics} has it: bytes of vectors and metadata for each byte held, 0–1. */
  memoryEfficiency: number;
  /** As {@link CachePerformanceMetrics} has it, 0–1. */
  performanceScore: number;
}

/** How the model was run. */
export interface BatchMetrics {
  /** Whether sizes are learned. */
  enabled: boolean;
  /** Texts that the next batch has if they are as long as those of the latest one, memory permitting; at least 1. */
  currentBatchSize: number;
  /** Texts of that length that are fastest, as far as it is known; the same where nothing is learned. */
  recommendedBatchSize: number;
  /** How sure that is, 0–1, as {@link OptimizationRecommendation} has it; 0 where nothing is learned. */
  confidence: number;
  /**
   * As {@link PerformanceAnalytics} of a {@link DynamicBatchOptimizer} that was told of the latest batches (so many as
   * `historyRetention` says, 1000 at most), each with CPU and memory of the machine when it ended: 0–1.
   */
  optimizationScore: number;
  /** Of the same: mean of CPU and memory usage while batches ran, 0–1. */
  resourceUtilization: number;
  /** Of the same: relative change of the latest five batches against the five before, in throughput. 0 before there are so many. */
  throughputTrend: number;
  /** In memory usage. */
  memoryTrend: number;
  /** In CPU usage. */
  cpuTrend: number;
  /** Runs of the model. */
  batches: number;
  failedBatches: number;
  /** Texts in a run, on average. */
  averageBatchSize: number;
  /** Milliseconds of a run, on average. */
  averageProcessingTime: number;
  /** Texts that the model finished for each second in it, of all threads together. */
  averageThroughput: number;
  /** Share of runs that succeeded, 0–1. */
  successRate: number;
  /** Tokens of the texts that ran. */
  tokens: number;
  /** The same with padding: `tokens / paddedTokens` is the share that was of use. */
  paddedTokens: number;
  /** By length, as far as there are any. */
  learned: LearnedBatch[];
}

/** How memory was kept below its ceiling. */
export interface MemoryUseMetrics {
  /** Whether strategies are in force. Without them, the ceiling holds alone. */
  enabled: boolean;
  /** The name of the strategy in use; `'none'` where strategies are off. */
  currentStrategy: string;
  strategyChanges: number;
  /** Bytes that this process may hold: `memoryLimit`, or what it holds and the container or host has left. */
  ceilingBytes: number;
  /** Bytes of physical memory that it holds. */
  processBytes: number;
  /** The most that was seen. */
  peakBytes: number;
  /** Bytes that running batches were permitted. */
  grantedBytes: number;
  /** `processBytes` of `ceilingBytes`, 0–100. */
  memoryUsage: number;
  /** The same. */
  memoryUsagePercent: number;
  /** Bytes that the container, or the host, has available. */
  availableMemory: number;
  /** Share of the time of batches that was not spent waiting for memory, 0–1; 0 before the first one. */
  efficiency: number;
  /** What a person could do about memory as it is, in words; none where strategies are off. */
  recommendations: string[];
  /** Batches that waited for memory. */
  waits: number;
  /** Milliseconds that they waited, together. */
  waitedMs: number;
  /** Times that memory was given back. */
  memoryCleanups: number;
}

/** How calls went. */
export interface OverallMetrics {
  calls: number;
  failedCalls: number;
  /** Texts that calls have answered, those from the cache included. */
  totalEmbeddings: number;
  /** Of these, texts that the call need not compute. */
  fromCache: number;
  /** Of these, texts without a vector. */
  failed: number;
  /** `totalEmbeddings`. */
  itemsProcessed: number;
  /** Milliseconds during which at least one call was under way. */
  totalProcessingTime: number;
  /** `totalProcessingTime` for each of `itemsProcessed`, in milliseconds. */
  averageItemTime: number;
  /**
   * Share of texts that got no vector, 0–1: those that were skipped, and those of calls that failed; but not those of calls
   * that were stopped.
   */
  errorRate: number;
  /** Milliseconds of a call for each of its texts, on average. */
  averageProcessingTime: number;
  /** Texts answered for each second spent in calls. Calls at the same time count each. */
  throughput: number;
  /** Share of texts that came from the cache or from another call, 0–1. */
  cacheHitRatio: number;
  /**
   * 0–1: the mean of the share of texts that got a vector, the share of computed tokens that are not padding, and the
   * share of the time of batches that was not spent waiting for memory; as far as there are any. 0 before the first call.
   */
  score: number;
}

/** An expectation, and the interval in which it is in 95 of 100 cases if the machine stays as it was. */
export interface Estimate {
  expected: number;
  low: number;
  high: number;
}

/** See {@link OptimizedEmbeddingGenerator.predict}. */
export interface Prediction {
  /** Milliseconds of the call; `null` as long as nothing was measured of this model on this machine. */
  time: Estimate | null;
  /** Bytes: the vectors, and the working memory of the batches that run at a time. */
  memory: Estimate;
  /** Texts in a batch. */
  batchSize: Estimate;
}

/** What {@link OptimizedEmbeddingGenerator.optimizePerformance} did. */
export interface OptimizationReport {
  /** What the cache's maintenance did; `null` without a cache. */
  cache: CacheMaintenance | null;
  /** Bytes of physical memory that the process holds less than before; 0 where it is not less. */
  freedBytes: number;
  /** What is known about batches. */
  learned: LearnedBatch[];
}

/** What is published on the `diagnostics_channel` `embedcore:memory`. */
export interface MemoryEvent {
  type: 'strategy-changed';
  before: string;
  after: string;
  /** Share that is in use of what the ceiling leaves beyond the model and all else that the process holds anyway, 0–100. */
  usagePercent: number;
}

/** What a logger is told after a call, as the native side tells it. */
interface News {
  sizes: { maxTokens: number; before: number; after: number; reason: string }[];
  /** Times that memory was given back, since the generator was made. */
  cleanups: number;
}

/** Tells what is new since `before` clean-ups; gives how many there are now. */
export function tellNews(log: Log, json: string, before: number): number {
  const { sizes, cleanups } = JSON.parse(json) as News;
  for (const change of sizes) tellSize(log, change);
  if (cleanups > before) log.info(`Memory was given back ${cleanups - before} times`, { event: 'memory-cleanup', cleanups: cleanups - before });
  return cleanups;
}

/** As the native side tells it. See `src/binding/generator.rs`. */
export interface NativeMetrics {
  stages: OperationStats[];
  calls: number;
  failedCalls: number;
  callMs: number;
  busyMs: number;
  lostTexts: number;
  texts: number;
  hits: number;
  failedTexts: number;
  batches: number;
  failedBatches: number;
  rows: number;
  tokens: number;
  paddedTokens: number;
  inferenceMs: number;
  waitingMs: number;
  learned: LearnedBatch[];
  analytics: Pick<BatchMetrics, 'optimizationScore' | 'resourceUtilization' | 'throughputTrend' | 'memoryTrend' | 'cpuTrend'>;
  outlook: Pick<BatchMetrics, 'currentBatchSize' | 'recommendedBatchSize' | 'confidence'>;
  memory: {
    available: number;
    recommendations: string[];
    ceiling: number;
    process: number;
    peak: number;
    granted: number;
    usage: number;
    waits: number;
    waitedMs: number;
    reliefs: number;
    changes: number;
    strategy: string | null;
  };
}

const events = channel('embedcore:memory');

/** Publishes what the native side reports, and tells the logger. */
export function publishMemory(json: string, log: Log | undefined): void {
  if (!log && !events.hasSubscribers) return;
  const event = JSON.parse(json) as MemoryEvent;
  const { type, ...details } = event;
  log?.info(`The memory strategy changed from ${event.before} to ${event.after}: ${Math.round(event.usagePercent)} % of what it may use is in use`, {
    event: type,
    ...details,
  });
  events.publish(event);
}

/** `amount` of `total`, 0 where there is nothing. */
const per = (amount: number, total: number) => (total > 0 ? amount / total : 0);

function noLookups(): ModalityStats {
  return { totalRequests: 0, hits: 0, misses: 0, hitRatio: 0, sets: 0, currentEntries: 0, currentSizeBytes: 0 };
}

/** Of a generator without a cache. */
const NO_CACHE: CacheStats = {
  totalRequests: 0,
  hits: 0,
  misses: 0,
  hitRatio: 0,
  missRatio: 0,
  currentEntries: 0,
  currentSizeBytes: 0,
  maxEntries: 0,
  maxSizeBytes: 0,
  utilization: 0,
  avgAccessTimeMs: 0,
  averageAccessTime: 0,
  sets: 0,
  rejected: 0,
  evictions: 0,
  evictionCauses: { expired: 0, explicit: 0, replaced: 0, size: 0 },
  missCauses: { absent: 0, expired: 0, changed: 0, damaged: 0 },
  memoryHits: 0,
  diskHits: 0,
  sharedHits: 0,
  payloadBytes: 0,
  modalities: { text: noLookups(), image: noLookups(), audio: noLookups() },
  disk: null,
  shared: null,
};

function cacheMetricsOf(cache: CachePerformanceMetrics | undefined): CacheMetrics {
  const { stats = structuredClone(NO_CACHE), memoryEfficiency = 0, performanceScore = 0 } = cache ?? {};
  const { currentEntries: entries, currentSizeBytes: sizeBytes } = stats;
  return { enabled: cache !== undefined, ...stats, entries, sizeBytes, memoryEfficiency, performanceScore };
}

/** What was counted, as users see it. */
export function performanceOf(counted: NativeMetrics, cache: CachePerformanceMetrics | undefined, learning: boolean): PerformanceMetrics {
  const { memory, ...done } = counted;
  const batchOptimizer: BatchMetrics = {
    enabled: learning,
    ...done.outlook,
    ...done.analytics,
    batches: done.batches,
    failedBatches: done.failedBatches,
    averageBatchSize: per(done.rows, done.batches),
    averageProcessingTime: per(done.inferenceMs, done.batches),
    averageThroughput: per(done.rows, done.inferenceMs) * 1000,
    successRate: per(done.batches - done.failedBatches, done.batches),
    tokens: done.tokens,
    paddedTokens: done.paddedTokens,
    learned: done.learned,
  };
  // Of a limit below what the process held already, more than all is in use.
  const memoryUsage = Math.min(100, memory.usage);
  const memoryProcessor: MemoryUseMetrics = {
    enabled: memory.strategy !== null,
    currentStrategy: memory.strategy ?? 'none',
    strategyChanges: memory.changes,
    ceilingBytes: memory.ceiling,
    processBytes: memory.process,
    peakBytes: memory.peak,
    grantedBytes: memory.granted,
    memoryUsage,
    memoryUsagePercent: memoryUsage,
    availableMemory: memory.available,
    efficiency: per(done.inferenceMs, done.inferenceMs + done.waitingMs),
    recommendations: memory.recommendations,
    waits: memory.waits,
    waitedMs: memory.waitedMs,
    memoryCleanups: memory.reliefs,
  };
  const shares = [
    [done.texts - done.failedTexts, done.texts],
    [done.tokens, done.paddedTokens],
    [done.inferenceMs, done.inferenceMs + done.waitingMs],
  ].filter(([, total]) => total! > 0);
  const score = per(shares.reduce((sum, [part, total]) => sum + part! / total!, 0), shares.length);
  return {
    cache: cacheMetricsOf(cache),
    batchOptimizer,
    batchOptimization: batchOptimizer,
    memoryProcessor,
    memoryProcessing: memoryProcessor,
    overall: {
      calls: done.calls,
      failedCalls: done.failedCalls,
      totalEmbeddings: done.texts,
      fromCache: done.hits,
      failed: done.failedTexts,
      itemsProcessed: done.texts,
      totalProcessingTime: done.busyMs,
      averageItemTime: per(done.busyMs, done.texts),
      errorRate: per(done.failedTexts + done.lostTexts, done.texts + done.lostTexts),
      averageProcessingTime: per(done.callMs, done.texts),
      throughput: per(done.texts, done.callMs) * 1000,
      cacheHitRatio: per(done.hits, done.texts),
      score,
    },
    stages: Object.fromEntries(done.stages.map((stage) => [stage.name, stage])),
    overallScore: score,
  };
}
