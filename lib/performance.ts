import { channel } from 'node:diagnostics_channel';

import type { CacheMaintenance, CacheStats } from './cache';
import type { Log } from './log';
import type { OperationStats } from './monitor-snapshot';

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
  /** `null` without a cache. A cache that is shared counts for all who use it. */
  cache: (CacheStats & { /** `currentEntries`. */ entries: number; /** `currentSizeBytes`. */ sizeBytes: number }) | null;
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
 * the batch into the cache. Items are texts. The first two run once a call, `tokenize` for some hundred texts at a time,
 * the others for each batch.
 */
export type StageName = 'prepare' | 'lookup' | 'tokenize' | 'plan' | 'wait' | 'infer' | 'commit';

/** How the model was run. */
export interface BatchMetrics {
  /** Whether sizes are learned. */
  enabled: boolean;
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
  /** The name of the strategy in use. */
  currentStrategy: string | null;
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
  memoryUsagePercent: number;
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

/** As the native side tells it. See `src/binding/generator.rs`. */
export interface NativeMetrics {
  stages: OperationStats[];
  calls: number;
  failedCalls: number;
  callMs: number;
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
  memory: {
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
  // The default of `memoryThresholds.high`.
  log?.[event.usagePercent >= 70 ? 'warn' : 'info'](
    `The memory strategy changed from ${event.before} to ${event.after}: ${Math.round(event.usagePercent)} % of what it may use is in use`,
    { ...event },
  );
  events.publish(event);
}

/** `amount` of `total`, 0 where there is nothing. */
const per = (amount: number, total: number) => (total > 0 ? amount / total : 0);

/** What was counted, as users see it. */
export function performanceOf(counted: NativeMetrics, stats: CacheStats | null, learning: boolean): PerformanceMetrics {
  const { memory, ...done } = counted;
  const batchOptimizer: BatchMetrics = {
    enabled: learning,
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
  const memoryProcessor: MemoryUseMetrics = {
    enabled: memory.strategy !== null,
    currentStrategy: memory.strategy,
    strategyChanges: memory.changes,
    ceilingBytes: memory.ceiling,
    processBytes: memory.process,
    peakBytes: memory.peak,
    grantedBytes: memory.granted,
    memoryUsagePercent: memory.usage,
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
    cache: stats && { ...stats, entries: stats.currentEntries, sizeBytes: stats.currentSizeBytes },
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
      averageProcessingTime: per(done.callMs, done.texts),
      throughput: per(done.texts, done.callMs) * 1000,
      cacheHitRatio: per(done.hits, done.texts),
      score,
    },
    stages: Object.fromEntries(done.stages.map((stage) => [stage.name, stage])),
    overallScore: score,
  };
}
