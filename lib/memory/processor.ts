import { DynamicBatchOptimizer, readBatchOptimizer, type BatchOptimizerOptions } from '../batch/optimizer';
import { whole } from '../call/checks';
import { EmbeddingError, toEmbeddingError } from '../call/errors';
import { invalid, readGiven, show } from '../call/input';
import { watched } from '../call/limits';
import { logOf, tellFailure, type Log, type Logging } from '../call/logger';
import { crossing, instanceOr, listOf, naming, optionReader, refused, type Given, type Names } from '../call/options';
import { call, native } from '../native/addon';
import type { NativeMemoryProcessor } from '../native/types';
import type { ProcessingStrategy, MemoryThresholds, MemoryProcessorOptions, MemoryMetrics, ProcessingBatches, ProcessingHooks, ProcessItemsOptions, ProcessingContext, ProcessingResult, ProcessingRecommendations } from './options';
import { Run } from './run';

interface Settings {
  strategies: ProcessingStrategy[];
  high: number;
  monitoringInterval: number;
  memoryBuffer: number;
  cores: number;
}

/** Memory as the native side tells it: total and available bytes. */
type Probe = (now: boolean) => readonly number[];

/** See `src/binding/memory.rs`. */
const COLLECT = 2;

const BYTES_PER_ITEM = 4096;


const OPTIONS: Names<MemoryProcessorOptions> = {
  strategies: listOf(optionReader<ProcessingStrategy>({
    name: true,
    maxBatchSize: true,
    approach: true,
    memoryOverhead: true,
    cpuOverhead: true,
    cleanupFrequency: true,
  })),
  memoryThresholds: optionReader<MemoryThresholds>({ critical: true, high: true, normal: true, low: true }),
  monitoringInterval: true,
  cleanupThreshold: true,
  gcThreshold: true,
  enableGcHints: true,
  emergencyCleanupThreshold: true,
  memoryBuffer: true,
};

/** Of a generator, which has a logger of its own. */
export const readMemoryProcessor = optionReader(OPTIONS);

const readOwnOptions = optionReader<MemoryProcessorOptions & ProcessingBatches & Logging>({
  ...OPTIONS,
  batchSize: true,
  batchOptimizer: instanceOr(DynamicBatchOptimizer, readBatchOptimizer),
  logger: true,
});

const HOOKS: Names<ProcessingHooks> = { onProgress: true, onStrategyChange: true, onMemoryWarning: true, signal: true, timeoutMs: true };

const readItemsOptions = optionReader<ProcessItemsOptions<unknown>>({ ...HOOKS, onError: true });

const readContext = optionReader<ProcessingContext<unknown, unknown>>({ ...HOOKS, items: true, processor: true, onError: true });

/** What stands behind a processor, for the generator. Not part of the package's surface. */
export let nativeProcessor: (processor: MemoryAwareProcessor) => NativeMemoryProcessor;

/** Puts an invented machine in place of this one. For tests; not part of the package's surface. */
export let feed: (processor: MemoryAwareProcessor, probe: Probe) => void;

/**
 * Runs a function over many items, with batches as large, and as many at a time, as memory allows.
 *
 * Every item is processed once and results come in the order of the items, whatever the strategy does meanwhile. The
 * next batch is only made when there is room for it, so there are never more of them than the strategy allows.
 */
export class MemoryAwareProcessor {
  readonly #native: NativeMemoryProcessor;
  readonly #settings: Settings;
  #probe: Probe;
  #bytesPerItem = 0;
  readonly #batchSize: number;
  readonly #optimizer: DynamicBatchOptimizer | undefined;
  readonly #log: Log | undefined;

  /** @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option. */
  constructor(options: MemoryProcessorOptions & ProcessingBatches & Logging = {}) {
    const { logger, batchSize, batchOptimizer, ...given } = readOwnOptions(options);
    this.#log = logOf(logger);
    this.#batchSize = batchSize === undefined ? Infinity : whole('batchSize', batchSize, 1);
    this.#optimizer = optimizerOf(batchOptimizer);
    const own = call(() => new (native().NativeMemoryProcessor)(crossing(given)));
    this.#native = own;
    this.#settings = JSON.parse(own.settings()) as Settings;
    this.#probe = (now) => own.memory(now);
  }

  static {
    nativeProcessor = (processor) => processor.#native;
    feed = (processor, probe) => {
      processor.#probe = probe;
      processor.#native.advance(processor.#measure(true).memoryUsagePercent);
    };
  }

  /**
   * Gives what `process` gives for all items, in their order.
   *
   * @throws {@link EmbeddingError} What `process` throws, or a result for not just every item of a batch, is
   * `EMBEDDING_GENERATION_FAILED`, with the original as `cause`; see {@link ProcessItemsOptions.onError}.
   */
  processItems<T, R>(
    items: readonly T[],
    process: (batch: T[]) => R[] | Promise<R[]>,
    options: ProcessItemsOptions<T> & { onError: 'skip' | ((error: EmbeddingError, item: T, index: number) => void) },
  ): Promise<(R | undefined)[]>;
  processItems<T, R>(
    items: readonly T[],
    process: (batch: T[]) => R[] | Promise<R[]>,
    options?: ProcessItemsOptions<T>,
  ): Promise<R[]>;
  async processItems<T, R>(
    items: readonly T[],
    process: (batch: T[]) => R[] | Promise<R[]>,
    options: ProcessItemsOptions<T> = {},
  ): Promise<(R | undefined)[]> {
    const { onError = 'throw', ...hooks } = readItemsOptions(options) as Given<ProcessItemsOptions<T>>;
    if (onError !== 'throw' && onError !== 'skip' && typeof onError !== 'function') {
      throw refused('onError', `${show(onError)} is not 'throw', 'skip' or a function`);
    }
    const run = new Run(items, process, hooks);
    if (onError !== 'throw') {
      run.onFailure = (error, index) => typeof onError === 'function' && onError(error, run.items[index]!, index);
    }
    await this.#watch(run);
    return run.results;
  }

  /** The same, with statistics. Items that fail are left out of the results, and reported. */
  async processWithMemoryAwareness<T, R>(context: ProcessingContext<T, R>): Promise<ProcessingResult<R>> {
    if (typeof context !== 'object' || context === null) {
      throw invalid(`The context is ${show(context)}, not an object { items, processor }`);
    }
    const { items, processor, onError, ...hooks } = readContext(context) as ProcessingContext<T, R>;
    if (onError != null && typeof onError !== 'function') throw refused('onError', `${show(onError)} is not a function`);
    const run = new Run(items, processor, hooks);
    const failures: { index: number; error: EmbeddingError }[] = [];
    run.onFailure = (error, index) => {
      failures.push({ index, error });
      onError?.(error, run.items[index]!, index);
    };
    const started = performance.now();
    await this.#watch(run);
    failures.sort((a, b) => a.index - b.index);
    const failed = new Set(failures.map(({ index }) => index));
    return {
      results: failed.size === 0 ? run.results : run.results.filter((_, index) => !failed.has(index)),
      failures,
      stats: {
        totalItems: run.items.length,
        successfulItems: run.items.length - failed.size,
        failedItems: failed.size,
        totalTime: performance.now() - started,
        strategyChanges: run.strategyChanges,
        memoryCleanups: run.cleanups,
        peakMemoryUsage: run.peak,
        averageMemoryUsage: run.usageSum / run.samples,
      },
      memoryHistory: run.history,
    };
  }

  /** The strategy for some usage of memory, whatever came before. */
  selectOptimalStrategy(metrics: Pick<MemoryMetrics, 'memoryUsagePercent'>): ProcessingStrategy {
    const usage = readGiven('The metrics', () => metrics?.memoryUsagePercent);
    if (typeof usage !== 'number' || Number.isNaN(usage)) throw invalid('The metrics have no memoryUsagePercent: pass what getCurrentMemoryMetrics() gives');
    return { ...this.#strategy(this.#native.select(usage)) };
  }

  /** Memory as it is now. */
  getCurrentMemoryMetrics(): MemoryMetrics {
    return this.#measure(true);
  }

  /** What a person could do, and for how many items there is room. */
  getProcessingRecommendations(): ProcessingRecommendations {
    const memoryMetrics = this.#measure(true);
    const { memoryUsagePercent, availableForProcessing } = memoryMetrics;
    return {
      currentStrategy: { ...this.#strategy(this.#native.advance(memoryUsagePercent)) },
      memoryMetrics,
      recommendations: this.#native.recommendations(memoryUsagePercent),
      estimatedCapacity: Math.floor(availableForProcessing / (this.#bytesPerItem || BYTES_PER_ITEM)),
    };
  }

  /** Stops watching memory in the background. What still runs, or is started later, looks for itself. */
  stop(): void {
    this.#native.stop();
  }

  #strategy(index: number): ProcessingStrategy {
    return this.#settings.strategies[index]!;
  }

  #measure(now: boolean): MemoryMetrics {
    const [totalMemory = 0, availableMemory = 0] = call(() => this.#probe(now));
    const used = Math.max(0, totalMemory - availableMemory);
    return {
      totalMemory,
      availableMemory,
      processMemory: ownMemory(),
      memoryUsagePercent: totalMemory > 0 ? Math.min(100, (used / totalMemory) * 100) : 0,
      availableForProcessing: availableMemory * (1 - this.#settings.memoryBuffer),
    };
  }

  async #watch<T, R>(run: Run<T, R>): Promise<void> {
    const started = performance.now();
    const work = watched(run.watch, () => run.stop(), async (report) => {
      // A batch that takes long must not hide what memory does meanwhile.
      const monitor = setInterval(() => run.attempt(() => this.#look(run)), this.#settings.monitoringInterval).unref();
      try {
        await this.#process(run, report);
      } finally {
        clearInterval(monitor);
        run.stop();
      }
    });
    const log = this.#log;
    if (!log) return work;
    const items = run.items.length;
    try {
      await work;
    } catch (thrown) {
      tellFailure(log, `A call for ${items} items failed`, toEmbeddingError(thrown));
      throw thrown;
    }
    const ms = performance.now() - started;
    log.debug(`Processed ${items} items in ${Math.round(ms)} ms`, { event: 'call', items, strategyChanges: run.strategyChanges, cleanups: run.cleanups, ms });
  }

  /** Makes batches as long as there are items, each when there is room for it. */
  async #process<T, R>(run: Run<T, R>, report: ((done: number, total: number) => void) | undefined): Promise<void> {
    const total = run.items.length;
    let next = 0;
    let done = 0;
    const running = new Set<Promise<void>>();
    const finished = (items: number) => {
      done += items;
      if (!run.over) report?.(done, total);
    };
    this.#look(run);
    while (next < total || running.size > 0) {
      if (run.failure) throw run.failure;
      if (run.over) return;
      const { maxBatchSize, approach } = this.#look(run, false);
      const size = Math.min(maxBatchSize, this.#batchSize, this.#optimizer?.getCurrentBatchSize() ?? Infinity);
      const room = approach === 'parallel' ? Math.max(1, this.#settings.cores) : 1;
      if (next < total && running.size < room) {
        const from = next;
        next = Math.min(total, from + size);
        const batch: Promise<void> = this.#batch(run, from, next, size, finished)
          .catch((error: unknown) => run.fail(error))
          .finally(() => running.delete(batch));
        running.add(batch);
        await run.turn();
        continue;
      }
      await Promise.race([run.stopped, ...running]);
      await run.turn(approach === 'chunked' || approach === 'streaming');
    }
    if (run.failure) throw run.failure;
  }

  async #batch<T, R>(run: Run<T, R>, from: number, to: number, batchSize: number, finished: (items: number) => void): Promise<void> {
    const [before, started] = [ownMemory().rss, performance.now()];
    const error = await run.call(from, to);
    if (run.over) return;
    const processingTime = performance.now() - started;
    if (processingTime > 0) this.#optimizer?.recordPerformance({ batchSize, processingTime, itemsProcessed: error ? 0 : to - from, success: !error });
    if (!error) {
      this.#after(run, to - from, before);
      finished(to - from);
      return;
    }
    if (!run.onFailure) throw error;
    if (to - from === 1) {
      run.attempt(() => run.onFailure!(error, from));
      this.#after(run, 1, before);
      finished(1);
      return;
    }
    for (let index = from; index < to; index++) {
      await run.turn();
      if (run.over || run.failure) return;
      const alone = await run.call(index, index + 1);
      if (run.over) return;
      if (alone) run.attempt(() => run.onFailure!(alone, index));
      this.#after(run, 1, before);
      finished(1);
    }
  }

  /** Looks at memory after a batch, and cleans up where that is due. */
  #after<T, R>(run: Run<T, R>, items: number, rssBefore: number): void {
    const metrics = this.#measure(false);
    run.note(metrics);
    const growth = (metrics.processMemory.rss - rssBefore) / items;
    if (growth > 0) this.#bytesPerItem += (growth - this.#bytesPerItem) * (this.#bytesPerItem > 0 ? 0.2 : 1);
    run.sinceCleanup++;
    const did = this.#native.cleanup(metrics.memoryUsagePercent, run.sinceCleanup);
    if (did === 0) return;
    run.sinceCleanup = 0;
    run.cleanups++;
    this.#log?.info('Memory was given back', { event: 'memory-cleanup', cleanups: 1, usagePercent: metrics.memoryUsagePercent });
    if (did & COLLECT) (globalThis as { gc?: () => void }).gc?.();
  }

  /** Goes on to the strategy that memory asks for, and tells whoever wants to know. */
  #look<T, R>(run: Run<T, R>, first = true): ProcessingStrategy {
    const metrics = this.#measure(false);
    const usage = metrics.memoryUsagePercent;
    const before = this.#strategy(run.strategy ?? this.#native.current());
    const index = this.#native.advance(usage);
    const after = this.#strategy(index);
    run.strategy = index;
    if (first) run.note(metrics);
    if (before !== after) {
      run.strategyChanges++;
      this.#log?.info(`The memory strategy changed from ${before.name} to ${after.name}: ${Math.round(usage)} % of memory is in use`, {
        event: 'strategy-changed',
        before: before.name,
        after: after.name,
        usagePercent: usage,
      });
      run.attempt(() => run.hooks.onStrategyChange?.({ ...before }, { ...after }));
    }
    const now = performance.now();
    if (usage >= this.#settings.high && now - run.warned >= this.#settings.monitoringInterval) {
      run.warned = now;
      run.attempt(() => run.hooks.onMemoryWarning?.(metrics));
    }
    return after;
  }
}

function optimizerOf(given: DynamicBatchOptimizer | BatchOptimizerOptions | undefined): DynamicBatchOptimizer | undefined {
  if (given === undefined || given instanceof DynamicBatchOptimizer) return given;
  if (typeof given === 'boolean') throw refused('batchOptimizer', `${show(given)} is neither a DynamicBatchOptimizer nor options of one`);
  return naming((option) => `batchOptimizer.${option}`, () => new DynamicBatchOptimizer(undefined, given));
}

/** As Node.js tells it; zeros where it cannot (Linux without /proc). */
export function ownMemory(): NodeJS.MemoryUsage {
  try {
    return process.memoryUsage();
  } catch {
    return { rss: 0, heapTotal: 0, heapUsed: 0, external: 0, arrayBuffers: 0 };
  }
}
