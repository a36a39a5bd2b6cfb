import { functionOf, milliseconds, signalOf, whole } from '../call/checks';
import { EmbeddingError } from '../call/errors';
import { show } from '../call/input';
import { optionReader, refused, untouched } from '../call/options';
import type { Annotation, CacheOptions, IntelligentEmbeddingCache, PerformanceMonitor } from '../index';
import { showPanel } from '../monitor/panels';
import { monitorOf } from '../parallel/options';
import { Channel, type QueueDepth } from './channel';
import { addressOf, type QueueConnection } from './connection';
import { nameOf, QueuePanel } from './panel';
import type { QueueWorker } from './registry';
import { Run, type EmbeddingRun } from './run';
import { readSharedCache, SharedVectors } from './vectors';

/** Options of {@link EmbeddingQueue}. */
export interface EmbeddingQueueOptions {
  /** Where the queue is: `'redis://host:6379'`, options, or a client of ioredis. */
  connection: QueueConnection;
  /** Default `'embedcore'`. */
  name?: string | undefined;
  /**
   * Where vectors come from: the tier that workers write. Default: a cache with `shared: { url }` on the server of the queue. On one
   * machine a file will do (`persistPath`).
   */
  cache?: CacheOptions | IntelligentEmbeddingCache | undefined;
  /** What keys of BullMQ begin with. Default `'bull'`. */
  prefix?: string | undefined;
  /**
   * The fingerprint of the model that vectors are to be of (`getModelInfo().fingerprint`): workers with another one leave the
   * chunks alone. Default: that of the first worker that answers a run.
   */
  fingerprint?: string | undefined;
  /** Longest wait for the server at the beginning of a run, in milliseconds. Default 5000. */
  connectTimeoutMs?: number | undefined;
  /** How long the server may be away while a run goes on, in milliseconds. Default 60000. */
  outageTimeoutMs?: number | undefined;
  /** On whose dashboards the queue is shown. Default: the global one. `false`: on none. */
  monitor?: PerformanceMonitor | false | undefined;
}

/** Options of {@link EmbeddingQueue.addAnnotations} and {@link EmbeddingQueue.addTexts}. */
export interface AddOptions {
  /** Inputs in a job, 1–65536. Default 256. Fewer where they are long: 4 million characters. */
  chunkSize?: number | undefined;
  /**
   * Jobs that this run has in the queue, results included that nobody has taken yet: how far the source is read ahead, and most
   * workers that it can keep busy. From 1. Default 128.
   */
  maxPendingChunks?: number | undefined;
  /** The role of the inputs, for models that embed the two differently. Default `'document'`. */
  inputType?: 'document' | 'query' | undefined;
  /** `'completion'` (default): results as they come. `'input'`: in the order of their inputs. */
  order?: 'completion' | 'input' | undefined;
  /** What an input that cannot be embedded does. `'skip'` (default): its result carries the error. `'throw'`: the run ends with it. */
  onError?: 'skip' | 'throw' | undefined;
  /** Cancels the run. */
  signal?: AbortSignal | undefined;
  /** Cancels the run after so many milliseconds, with `TIMED_OUT`. Default: no limit. */
  timeoutMs?: number | undefined;
  /** Told how many inputs are answered, of how many; `null` as long as that is not known. */
  progressCallback?: ((processed: number, total: number | null) => void) | undefined;
}

/** What there is to do in a queue, and who does it. */
export interface QueueStats extends QueueDepth {
  /** Those that were heard of in the last quarter of a minute. */
  workers: QueueWorker[];
}

const readOptions = optionReader<EmbeddingQueueOptions>({
  connection: untouched, name: true, cache: readSharedCache, prefix: true, fingerprint: true, connectTimeoutMs: true, outageTimeoutMs: true, monitor: true,
});

const readAdd = optionReader<AddOptions>({
  chunkSize: true, maxPendingChunks: true, inputType: true, order: true, onError: true, signal: untouched, timeoutMs: true, progressCallback: true,
});

const MOST_PENDING = 100_000;
/** The longest delay that a timer of Node.js takes, in milliseconds. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * Has annotations and texts embedded by workers on any number of machines. A job is a chunk of inputs; vectors come back
 * through the shared tier, not through the queue.
 *
 * Connections are there while a run is under way. Needs `bullmq`, an optional peer (5 or 6), with `ioredis`, and Redis 6 or
 * later, or Valkey.
 */
export class EmbeddingQueue implements AsyncDisposable {
  readonly #channel: Channel;
  readonly #vectors: SharedVectors;
  readonly #fingerprint: string | undefined;
  readonly #runs = new Set<Run>();
  readonly #panel: QueuePanel;
  readonly #hidePanel: (() => void) | undefined;
  #closed: Promise<void> | undefined;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option; `BACKEND_UNAVAILABLE` where bullmq is not installed. */
  constructor(options: EmbeddingQueueOptions) {
    const { connection, name = 'embedcore', cache, prefix = 'bull', fingerprint, connectTimeoutMs = 5000, outageTimeoutMs = 60_000, monitor } = readOptions(options) as EmbeddingQueueOptions;
    const limits = {
      connectTimeoutMs: whole('connectTimeoutMs', connectTimeoutMs, 1, LONGEST_MS),
      outageTimeoutMs: whole('outageTimeoutMs', outageTimeoutMs, 1, LONGEST_MS),
    };
    if (fingerprint !== undefined && (typeof fingerprint !== 'string' || !/^[0-9a-f]{64}$/i.test(fingerprint))) throw refused('fingerprint', `${show(fingerprint)} is not 64 hexadecimal digits: pass that of getModelInfo()`);
    this.#fingerprint = fingerprint?.toLowerCase();
    const shown = monitorOf(monitor);
    const address = addressOf(connection);
    this.#channel = new Channel(address, nameOf('name', name), nameOf('prefix', prefix), limits);
    this.#vectors = new SharedVectors(cache, address.url);
    this.#panel = new QueuePanel(name, () => this.#overview(), this.#vectors.cache);
    this.#hidePanel = shown && showPanel(shown, this.#panel);
  }

  /**
   * Has annotations embedded that an iterable or an async iterable gives. Begins at once. The same chunk is the same job,
   * whoever adds it: what is added twice at the same time is computed once, and what is in the shared tier not at all.
   * @throws `EmbeddingError` `INVALID_CONFIG` naming the option, `INVALID_ARGUMENT` for what is no iterable, `CLOSED`. What else
   * goes wrong ends the run: see {@link EmbeddingRun.finished}.
   */
  addAnnotations(annotations: Iterable<Annotation> | AsyncIterable<Annotation>, options: AddOptions = {}): EmbeddingRun {
    return this.#add(annotations, true, options);
  }

  /** The same for texts. */
  addTexts(texts: Iterable<string> | AsyncIterable<string>, options: AddOptions = {}): EmbeddingRun {
    return this.#add(texts, false, options);
  }

  /**
   * How much there is to do, and who does it.
   * @throws `EmbeddingError` `BACKEND_UNAVAILABLE`, `BACKEND_REJECTED`; `INVALID_CONFIG` for a queue of another release; `CLOSED`.
   */
  async getStats(): Promise<QueueStats> {
    this.#requireOpen();
    const { depth, workers } = await this.#overview();
    return { ...depth, workers };
  }

  /** Ends runs that are under way with `CLOSED`; their jobs stay in the queue. May be called any number of times. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#hidePanel?.();
    for (const run of this.#runs) run.close();
    this.#channel.close();
    await this.#vectors.close();
  }

  #requireOpen(): void {
    if (this.#closed) throw new EmbeddingError('CLOSED', 'The queue is closed: make a new one');
  }

  #add(inputs: unknown, annotated: boolean, options: AddOptions): EmbeddingRun {
    const given = readAdd(options) as AddOptions;
    this.#requireOpen();
    const { chunkSize = 256, maxPendingChunks = 128, inputType = 'document', order = 'completion', onError = 'skip', signal, timeoutMs, progressCallback } = given;
    const settings = {
      annotated,
      chunkSize: whole('chunkSize', chunkSize, 1, 65_536),
      maxPendingChunks: whole('maxPendingChunks', maxPendingChunks, 1, MOST_PENDING),
      inputType: one('inputType', inputType, ['document', 'query']),
      order: one('order', order, ['completion', 'input']),
      onError: one('onError', onError, ['skip', 'throw']),
      fingerprint: this.#fingerprint,
      signal: signalOf(signal),
      timeoutMs: milliseconds('timeoutMs', timeoutMs),
      progressCallback: functionOf<NonNullable<AddOptions['progressCallback']>>('progressCallback', progressCallback),
    };
    const run = new Run(inputs, settings, this.#channel, this.#vectors, (ended) => this.#runs.delete(ended));
    this.#runs.add(run);
    return run;
  }

  async #overview(): Promise<{ depth: QueueDepth; workers: QueueWorker[] }> {
    const leave = await this.#channel.use();
    try {
      return await this.#channel.overview();
    } finally {
      leave();
    }
  }
}

function one<Value extends string>(option: string, value: Value, known: readonly Value[]): Value {
  if (known.includes(value)) return value;
  throw refused(option, `${show(value)} is not ${known.map((each) => `'${each}'`).join(' or ')}`);
}
