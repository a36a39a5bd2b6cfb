import { messageOf } from '../call/errors';
import { invalid, isArray, show } from '../call/input';
import { logOf, tellSize, type Log, type Logging } from '../call/logger';
import { crossing, optionReader, type Given, type Names } from '../call/options';
import { call, native } from '../native/addon';
import type { NativeBatchOptimizer } from '../native/types';

/** Options of {@link DynamicBatchOptimizer}. */
export interface BatchOptimizerOptions {
  /** Smallest batch. Default 1. More than `maxBatchSize`: the two are swapped. */
  minBatchSize?: number | undefined;
  /** Largest batch. Default 128. */
  maxBatchSize?: number | undefined;
  /**
   * CPU usage, in percent, above which a size is held to be worse than it is fast. Counts only where it was measured with
   * the batch, and makes no difference where all sizes take as much. Default 70.
   */
  targetCpuUsage?: number | undefined;
  /** Memory usage, in percent, above which batches shrink. Default 75. */
  targetMemoryUsage?: number | undefined;
  /** Batches before the size is changed for the first time. Default 10. */
  minSamples?: number | undefined;
  /** Batches that analytics are about. Default 100. */
  historyRetention?: number | undefined;
  /**
   * How eagerly other sizes are tried, 0–1: trying costs at most 5 % of all time for 1, in proportion for less. 0: never
   * by itself. Default 0.3.
   */
  aggressiveness?: number | undefined;
}

/** {@link BatchOptimizerOptions}, all of them; `Partial<BatchOptimizerConfig>` for some. As a value: the defaults. */
export interface BatchOptimizerConfig extends Given<BatchOptimizerOptions> {
  minBatchSize: number;
  maxBatchSize: number;
  targetCpuUsage: number;
  targetMemoryUsage: number;
  minSamples: number;
  historyRetention: number;
  aggressiveness: number;
}

/** The defaults of {@link DynamicBatchOptimizer}. */
export const BatchOptimizerConfig: Readonly<BatchOptimizerConfig> = Object.freeze({
  minBatchSize: 1,
  maxBatchSize: 128,
  targetCpuUsage: 70,
  targetMemoryUsage: 75,
  minSamples: 10,
  historyRetention: 100,
  aggressiveness: 0.3,
});

/** One batch that ran. */
export interface BatchRecord {
  /** Items that it was meant to have. */
  batchSize: number;
  /** How long it took, in milliseconds. */
  processingTime: number;
  /** Items that were processed. */
  itemsProcessed: number;
  /** CPU usage while it ran, in percent. Without this and `memoryUsage`, both are the machine's at the time. */
  cpuUsage?: number | undefined;
  /** Memory usage while it ran, in percent. */
  memoryUsage?: number | undefined;
  /** Whether it succeeded. Default true. */
  success?: boolean | undefined;
  /** Tokens of its items. Given with every batch, it lets batches of short and of long texts be compared. */
  tokens?: number | undefined;
}

/** What {@link DynamicBatchOptimizer} would do, and why. */
export interface OptimizationRecommendation {
  /** The best size that is known. */
  recommendedBatchSize: number;
  /** 0–1: how little there is left to gain with other sizes. At most 0.1 below `minSamples`. */
  confidence: number;
  reason: string;
  /** Relative gain over the latest batches: 0.1 for 10 % more throughput. Never below 0. */
  expectedImprovement: number;
  /** CPU and memory in percent, throughput in items a second. */
  resourcePrediction: { cpuUsage: number; memoryUsage: number; throughput: number };
}

/** What the machine does: the container where it has a limit, else the host. At most a second old. */
export interface SystemResourceMetrics {
  /** Percent of the cores that this process may use, or of its container's quota. */
  cpuUsage: number;
  /** Bytes. */
  availableMemory: number;
  /** Bytes. */
  totalMemory: number;
  /** Percent. */
  memoryUsage: number;
  /** Over 1, 5 and 15 minutes. Zeros on Windows. */
  loadAverage: number[];
  /** Cores that this process may use. */
  cpuCores: number;
}

/** One batch as it is kept. */
export interface PerformanceHistory {
  batchSize: number;
  /** Milliseconds. */
  processingTime: number;
  /** Items a second; 0 where it failed. */
  throughput: number;
  /** Percent; `null` where only CPU usage was given. */
  memoryUsage: number | null;
  /** Percent; `null` where only memory usage was given. */
  cpuUsage: number | null;
  /** When it was recorded, in milliseconds since 1970. */
  timestamp: number;
  success: boolean;
}

/** How batches went, over the history that is kept. */
export interface PerformanceAnalytics {
  /** Items a second, over all time that batches took. */
  averageThroughput: number;
  averageBatchSize: number;
  /** Milliseconds. */
  averageProcessingTime: number;
  /** 0–1: half the performance score, three tenths the resource score, two tenths the stability score. */
  optimizationScore: number;
  /** Throughput of the latest batches relative to that of the best size known, 0–1. */
  performanceScore: number;
  /** 1 up to the targets of CPU and memory, from there linearly to 0 at 100 %; the mean of the two. */
  resourceScore: number;
  /** Success rate × (1 − coefficient of variation of throughput among batches of the latest size), 0–1. */
  stabilityScore: number;
  /** Mean of CPU and memory usage, 0–1. */
  resourceUtilization: number;
  /** 0–1. */
  successRate: number;
  currentMetrics: SystemResourceMetrics;
  /** The latest 20 batches, the oldest first. */
  recentHistory: PerformanceHistory[];
  /** Relative change of the latest five batches against the five before; 0 while there are no such. */
  trends: { throughputTrend: number; memoryTrend: number; cpuTrend: number };
  recommendations: OptimizationRecommendation;
}

const OPTIONS: Names<BatchOptimizerOptions> = {
  minBatchSize: true,
  maxBatchSize: true,
  targetCpuUsage: true,
  targetMemoryUsage: true,
  minSamples: true,
  historyRetention: true,
  aggressiveness: true,
};

/** Of a generator, which has a logger of its own. */
export const readBatchOptimizer = optionReader(OPTIONS);

const readOwnOptions = optionReader<BatchOptimizerOptions & Logging>({ ...OPTIONS, logger: true });

const readLogging = optionReader<Logging>({ logger: true });

const readRecord = optionReader<BatchRecord>({
  batchSize: true,
  processingTime: true,
  itemsProcessed: true,
  cpuUsage: true,
  memoryUsage: true,
  success: true,
  tokens: true,
});

/** What stands behind an optimizer, for the generator. Not part of the package's surface. */
export let nativeOptimizer: (optimizer: DynamicBatchOptimizer) => NativeBatchOptimizer;

/**
 * Learns which batch size is fastest on this machine, for this work.
 *
 * Ask for {@link getCurrentBatchSize} before each batch and tell by {@link recordPerformance} how it went. The first
 * `minSamples` batches keep the initial size; then sizes are tried, each the one that promises most, until none promises
 * enough: some twenty batches. From there on the best one is kept, others are looked at now and then for a bounded share
 * of the time, and a sudden change of the load starts the search again. Which algorithms these are is written in
 * `src/batch/optimizer.rs`. Use one optimizer for each model.
 */
export class DynamicBatchOptimizer {
  #native: NativeBatchOptimizer;
  readonly #log: Log | undefined;
  /** What the logger knows. */
  #told: number;

  /** @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option, `INVALID_ARGUMENT` for the initial size. */
  constructor(initialBatchSize = 32, options: BatchOptimizerOptions & Logging = {}) {
    const initial = number('initialBatchSize', initialBatchSize);
    const { logger, ...given } = readOwnOptions(options);
    this.#log = logOf(logger);
    this.#native = call(() => new (native().NativeBatchOptimizer)(initial, crossing(given)));
    this.#told = this.#native.current();
  }

  static {
    nativeOptimizer = (optimizer) => optimizer.#native;
  }

  /**
   * Learns from a batch.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what cannot be; nothing is learned from it.
   */
  recordPerformance(record: BatchRecord): void;
  /** The same, with CPU and memory sampled here. */
  recordPerformance(batchSize: number, processingTime: number, itemCount: number, success?: boolean): void;
  recordPerformance(
    recordOrSize: BatchRecord | number,
    processingTime?: number,
    itemCount?: number,
    success: boolean = true,
  ): void {
    const record: Partial<BatchRecord> =
      typeof recordOrSize === 'number'
        ? { batchSize: recordOrSize, processingTime: processingTime!, itemsProcessed: itemCount!, success }
        : recordOf(recordOrSize);
    const succeeded = record.success ?? true;
    if (typeof succeeded !== 'boolean') throw invalid(`success is ${show(succeeded)}, not true or false`);
    call(() =>
      this.#native.record(
        number('batchSize', record.batchSize),
        number('processingTime', record.processingTime),
        number('itemsProcessed', record.itemsProcessed),
        succeeded,
        optional('tokens', record.tokens),
        optional('cpuUsage', record.cpuUsage),
        optional('memoryUsage', record.memoryUsage),
      ),
    );
    this.#tell();
  }

  /** Tells the logger of another size, and why it is another one. */
  #tell(): void {
    const [before, after] = [this.#told, this.#native.current()];
    this.#told = after;
    if (!this.#log || after === before) return;
    const { recommendedBatchSize, reason } = this.getOptimizationRecommendation();
    tellSize(this.#log, { before, after, reason: after === recommendedBatchSize ? reason : 'it may be faster, which one batch will show' });
  }

  /** The size that the next batch should have. */
  getCurrentBatchSize(): number {
    return this.#native.current();
  }

  /**
   * Decides anew at once, and gives the size that the next batch should have. There is no need to call it: every record
   * is a decision.
   */
  optimize(): number {
    const size = this.#native.optimize();
    this.#tell();
    return size;
  }

  /**
   * All that it knows, for {@link DynamicBatchOptimizer.fromJSON}: `JSON.stringify(optimizer)` is enough. What is in it may
   * change with any version of the package.
   */
  toJSON(): object {
    return JSON.parse(this.#native.state()) as object;
  }

  /**
   * An optimizer that goes on where the one was that gave `state`, with its options.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for a state that is damaged, or of a version that means something else.
   */
  static fromJSON(state: object, options: Logging = {}): DynamicBatchOptimizer {
    if (typeof state !== 'object' || state === null) throw invalid(`The state of an optimizer is ${show(state)}, not an object`);
    let json: string | undefined;
    try {
      json = JSON.stringify(state);
    } catch (cause) {
      throw invalid(`The state of an optimizer cannot be used: ${messageOf(cause)}`);
    }
    if (typeof json !== 'string') throw invalid('The state of an optimizer cannot be used: it has no JSON');
    const restored = call(() => native().NativeBatchOptimizer.restored(json));
    const optimizer = new DynamicBatchOptimizer(undefined, readLogging(options));
    optimizer.#native = restored;
    optimizer.#told = restored.current();
    return optimizer;
  }

  /** Forgets everything and starts again with the initial size. */
  reset(): void {
    this.#native.reset();
    this.#tell();
  }

  /** The options as they are in force. */
  getConfig(): BatchOptimizerConfig {
    return JSON.parse(this.#native.config()) as BatchOptimizerConfig;
  }

  /** The best size that is known, and why. */
  getOptimizationRecommendation(): OptimizationRecommendation {
    return JSON.parse(call(() => this.#native.recommendation())) as OptimizationRecommendation;
  }

  /** How batches went. */
  getPerformanceAnalytics(): PerformanceAnalytics {
    return JSON.parse(call(() => this.#native.analytics())) as PerformanceAnalytics;
  }

  /** What the machine does. */
  getCurrentSystemMetrics(): SystemResourceMetrics {
    return JSON.parse(call(() => this.#native.metrics())) as SystemResourceMetrics;
  }
}

function recordOf(record: unknown): Partial<BatchRecord> {
  if (typeof record === 'object' && record !== null && !isArray(record)) return readRecord(record);
  throw invalid(`The record is ${show(record)}, not an object: pass { batchSize, processingTime, itemsProcessed }`);
}

/** What is no number at all is refused here; what is no sensible one, on the native side. */
function number(name: string, value: unknown): number {
  if (typeof value !== 'number') throw invalid(`${name} is ${show(value)}, not a number`, { name });
  return value;
}

function optional(name: string, value: unknown): number | undefined {
  return value == null ? undefined : number(name, value);
}
