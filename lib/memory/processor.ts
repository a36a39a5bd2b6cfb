import { setImmediate as nextTurn } from 'node:timers/promises';

import { DynamicBatchOptimizer, readBatchOptimizer, type BatchOptimizerOptions } from '../batch/optimizer';
import { whole } from '../call/checks';
import { EmbeddingError, EmbeddingGenerationError, messageOf, toEmbeddingError } from '../call/errors';
import { invalid, isArray, readGiven, requireArray, show } from '../call/input';
import { isPromise } from '../call/order';
import { checkWatch, watched, type Watch } from '../call/limits';
import { logOf, tellFailure, type Log, type Logging } from '../call/logger';
import { crossing, instanceOr, listOf, naming, optionReader, refused, type Given, type Names } from '../call/options';
import { call, native } from '../native/addon';
import type { NativeMemoryProcessor } from '../native/types';

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

const HISTORY = 1000;
const BYTES_PER_ITEM = 4096;

/** How long work that never waits may keep the event loop from turning, in milliseconds; one batch may take longer. */
const TURN_MS = 10;

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

/** One call: what it works on, as it was when the call was made, and how far it is. */
class Run<T, R> {
  readonly items: readonly T[];
  readonly process: (batch: T[]) => R[] | Promise<R[]>;
  readonly watch: Watch<[completed: number, total: number]>;
  readonly hooks: Pick<ProcessingHooks, 'onStrategyChange' | 'onMemoryWarning'>;
  readonly results: R[];
  readonly stopped: Promise<void>;
  onFailure: ((error: EmbeddingError, index: number) => unknown) | undefined;
  failure: unknown;
  /** Nobody waits any more: what still runs is of no interest. */
  over = false;
  strategy: number | undefined;
  strategyChanges = 0;
  cleanups = 0;
  sinceCleanup = 0;
  warned = -Infinity;
  history: MemoryMetrics[] = [];
  peak = 0;
  usageSum = 0;
  samples = 0;
  #turned = performance.now();
  #stop!: () => void;

  constructor(items: readonly T[], process: (batch: T[]) => R[] | Promise<R[]>, hooks: ProcessingHooks) {
    requireArray(items, 'items');
    if (typeof process !== 'function') throw invalid(`The processor is ${show(process)}, not a function`);
    const { onProgress, onStrategyChange, onMemoryWarning, signal, timeoutMs } = hooks;
    for (const [name, hook] of Object.entries({ onStrategyChange, onMemoryWarning })) {
      if (hook != null && typeof hook !== 'function') throw refused(name, `${show(hook)} is not a function`);
    }
    this.watch = checkWatch({ signal, timeoutMs, progressCallback: onProgress }, 'onProgress');
    this.hooks = { onStrategyChange, onMemoryWarning };
    // Holes of a sparse array are items, too.
    this.items = readGiven('The items', () => Array.from(items));
    this.process = process;
    this.results = new Array<R>(this.items.length);
    this.stopped = new Promise((resolve) => (this.#stop = resolve));
  }

  /** Lets the event loop turn if it has not for a while, or in any case. */
  async turn(now = false): Promise<void> {
    if (!now && performance.now() - this.#turned < TURN_MS) return;
    await nextTurn();
    this.#turned = performance.now();
  }

  /** Nothing more is begun, and whoever waits for a batch goes on. */
  stop(): void {
    this.over = true;
    this.#stop();
  }

  fail(error: unknown): void {
    this.failure ??= error;
    this.#stop();
  }

  /** Runs what a caller has given. What it throws ends the call. */
  attempt(work: () => unknown): void {
    if (this.over) return;
    const failed = (cause: unknown) => {
      if (!this.over) this.fail(new EmbeddingError('ABORTED', 'The call was aborted because one of its callbacks threw', { cause }));
    };
    try {
      // It may be asynchronous: nobody else hears what it rejects with.
      const outcome = work();
      if (isPromise(outcome)) outcome.then(undefined, failed);
    } catch (cause) {
      failed(cause);
    }
  }

  note(metrics: MemoryMetrics): void {
    const usage = metrics.memoryUsagePercent;
    this.peak = Math.max(this.peak, usage);
    this.usageSum += usage;
    this.samples++;
    if (this.history.length >= HISTORY) this.history.shift();
    this.history.push(metrics);
  }

  /** Processes items `from..to` and keeps their results; gives the error, if there was one. */
  async call(from: number, to: number): Promise<EmbeddingError | undefined> {
    const what = to - from === 1 ? `Item ${from}` : `Items ${from} to ${to - 1}`;
    const details = { index: from, count: to - from };
    let given: unknown;
    try {
      given = await this.process(this.items.slice(from, to));
    } catch (cause) {
      if (cause instanceof EmbeddingError) return cause;
      return new EmbeddingGenerationError(`${what} could not be processed: ${messageOf(cause)}`, { cause, details });
    }
    if (!isArray(given)) {
      return new EmbeddingGenerationError(`${what}: the processor did not return an array of results`, { details });
    }
    try {
      const count = given.length;
      if (count !== to - from) {
        const message = `${what}: the processor returned ${count} results for ${to - from} items`;
        return new EmbeddingGenerationError(message, { details });
      }
      for (let index = from; index < to; index++) this.results[index] = given[index - from] as R;
    } catch (cause) {
      return new EmbeddingGenerationError(`${what}: the results of the processor cannot be read: ${messageOf(cause)}`, { cause, details });
    }
    return undefined;
  }
}

/** As Node.js tells it; zeros where it cannot (Linux without /proc). */
export function ownMemory(): NodeJS.MemoryUsage {
  try {
    return process.memoryUsage();
  } catch {
    return { rss: 0, heapTotal: 0, heapUsed: 0, external: 0, arrayBuffers: 0 };
  }
}
