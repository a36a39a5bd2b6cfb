import { signalOf, whole } from '../call/checks';
import { EmbeddingError } from '../call/errors';
import { optionReader } from '../call/options';
import { mapBatches, readBatchOptions, type BatchFunction, type BatchMapOptions } from './batch';
import type { Settled } from './drive';
import { callOf, collect, planOf, readMapOptions, type Collecting, type Items, type ParallelMapOptions, type Results, type Work } from './map';
import { cores, type OnError } from './options';
import { WorkerPool } from './pool';

/** Options of {@link ParallelProcessor}: defaults for its calls. */
export interface ParallelProcessorOptions extends Omit<ParallelMapOptions, 'signal' | 'onProgress'> {
  /** Items in a batch of {@link ParallelProcessor.batchMap}. Default 32. */
  batchSize?: number | undefined;
}

/** What a {@link ParallelProcessor} has done. */
export interface ParallelStats {
  /** Calls that have ended, and those that go on. */
  calls: number;
  activeCalls: number;
  /** Items that were answered with a result, and those that failed. */
  completed: number;
  failed: number;
  /** Wall time inside calls, in milliseconds; calls at the same time count each. */
  totalTimeMs: number;
  /** Items answered in a second of wall time inside calls; 0 before the first. */
  throughput: number;
  /** Worker threads and processes that there are, and chunks that wait for one. */
  workers: number;
  waiting: number;
}

const readOptions = optionReader<ParallelProcessorOptions>({
  concurrency: true, chunkSize: true, onError: true, timeoutMs: true, processes: true, transfer: true, monitor: true, batchSize: true,
});

/**
 * Maps with settings and workers of its own: what runs a module's function is kept for the next call. Idle workers end
 * after two seconds, and nothing keeps the process alive. `E` is the `onError` of its options, which says what its calls give.
 */
export class ParallelProcessor<E extends OnError = 'throw'> implements AsyncDisposable {
  readonly #defaults: ParallelProcessorOptions;
  readonly #size: number;
  readonly #pools = new Map<boolean, WorkerPool>();
  readonly #stop = new AbortController();
  readonly #active = new Set<Promise<unknown>>();
  #calls = 0;
  #completed = 0;
  #failed = 0;
  #totalTimeMs = 0;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
  constructor(options: ParallelProcessorOptions & { onError?: E | undefined } = {}) {
    const { batchSize, ...defaults } = readOptions(options);
    callOf(defaults);
    if (batchSize !== undefined) whole('batchSize', batchSize, 1);
    this.#defaults = { ...defaults, batchSize };
    this.#size = defaults.concurrency ?? cores();
  }

  /** As {@link parallelMap}. A call may ask for less concurrency than the processor has, not for more workers. */
  map<T, R = unknown>(items: Items<T>, work: Work<T, R>, options: ParallelMapOptions & Collecting): Promise<Settled<R>[]>;
  map<T, R = unknown>(items: Items<T>, work: Work<T, R>, options: ParallelMapOptions & { onError: 'throw' | 'skip' }): Promise<R[]>;
  map<T, R = unknown>(items: Items<T>, work: Work<T, R>, options?: ParallelMapOptions & { onError?: undefined }): Promise<Results<R, E>>;
  map<T, R = unknown>(items: Items<T>, work: Work<T, R>, options?: ParallelMapOptions): Promise<Results<R>>;
  async map<T, R>(items: Items<T>, work: Work<T, R>, options: ParallelMapOptions = {}): Promise<R[] | Settled<R>[]> {
    const { batchSize: _, ...defaults } = this.#defaults;
    return this.#counted({ ...defaults, ...readMapOptions(options) }, (given) => {
      const plan = planOf(work, callOf(given), (processes) => this.#pool(processes));
      return collect(items, { ...plan, counted: this.#count }, 'parallel.map');
    });
  }

  /** As {@link batchProcess}. */
  batchMap<T, R>(items: Items<T>, work: BatchFunction<T, R>, options: BatchMapOptions & Collecting): Promise<Settled<R>[]>;
  batchMap<T, R>(items: Items<T>, work: BatchFunction<T, R>, options: BatchMapOptions & { onError: 'throw' | 'skip' }): Promise<R[]>;
  batchMap<T, R>(items: Items<T>, work: BatchFunction<T, R>, options?: BatchMapOptions & { onError?: undefined }): Promise<Results<R, E>>;
  batchMap<T, R>(items: Items<T>, work: BatchFunction<T, R>, options?: BatchMapOptions): Promise<Results<R>>;
  async batchMap<T, R>(items: Items<T>, work: BatchFunction<T, R>, options: BatchMapOptions = {}): Promise<R[] | Settled<R>[]> {
    const { chunkSize: _, processes: __, transfer: ___, ...defaults } = this.#defaults;
    return this.#counted({ ...defaults, ...readBatchOptions(options) }, (given) => mapBatches(items, work, given, this.#count));
  }

  /** What it has done since it was made. */
  getStats(): ParallelStats {
    const [completed, failed, totalTimeMs] = [this.#completed, this.#failed, this.#totalTimeMs];
    const pools = [...this.#pools.values()].map((pool) => pool.counts);
    return {
      calls: this.#calls,
      activeCalls: this.#active.size,
      completed,
      failed,
      totalTimeMs,
      throughput: totalTimeMs > 0 ? ((completed + failed) / totalTimeMs) * 1000 : 0,
      workers: pools.reduce((sum, { workers }) => sum + workers, 0),
      waiting: pools.reduce((sum, { waiting }) => sum + waiting, 0),
    };
  }

  /** Ends what runs, with `CLOSED`, and all workers; later calls reject with `CLOSED`, too. Resolves when they are gone. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all([...[...this.#pools.values()].map((pool) => pool.close()), ...[...this.#active].map((call) => call.catch(() => {}))]);
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  readonly #count = (fulfilled: boolean): void => {
    if (fulfilled) this.#completed++;
    else this.#failed++;
  };

  #pool(processes: boolean): WorkerPool {
    let pool = this.#pools.get(processes);
    if (!pool) this.#pools.set(processes, (pool = new WorkerPool(this.#size, processes)));
    return pool;
  }

  async #counted<Options extends ParallelMapOptions | BatchMapOptions, R>(options: Options, run: (options: Options) => Promise<R>): Promise<R> {
    if (this.#stop.signal.aborted) throw closed();
    const given = signalOf(options.signal);
    const signal = given ? AbortSignal.any([given, this.#stop.signal]) : this.#stop.signal;
    const started = performance.now();
    const running = run({ ...options, signal });
    this.#active.add(running);
    try {
      return await running;
    } catch (error) {
      throw this.#stop.signal.aborted && !options.signal?.aborted ? closed() : error;
    } finally {
      this.#active.delete(running);
      this.#calls++;
      this.#totalTimeMs += performance.now() - started;
    }
  }
}

function closed(): EmbeddingError {
  return new EmbeddingError('CLOSED', 'The ParallelProcessor is closed: make another one');
}
