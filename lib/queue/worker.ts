import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';

import { flag, whole } from '../call/checks';
import { EmbeddingError, EmbeddingGenerationError, messageOf, ModelInitializationError, toEmbeddingError } from '../call/errors';
import { show } from '../call/input';
import { logOf, type Log } from '../call/logger';
import { refuseOtherKind } from '../call/model-kind';
import { optionReader, read, refused, untouched } from '../call/options';
import { cacheOf } from '../generator/encoder';
import { OptimizedEmbeddingGenerator, type Annotation, type CacheOptions, type EmbeddingMatrix, type EmbeddingResult, type IntelligentEmbeddingCache, type Logger, type PerformanceMonitor } from '../index';
import { showPanel } from '../monitor/panels';
import { load, type BullWorker, type Job } from './bullmq';
import { addressOf, Link, type QueueConnection } from './connection';
import { JOB, readJob, reasonOf, reasonOfSome, type Answer, type Input, type JobData, type WorkerModel } from './jobs';
import { monitorOf } from '../parallel/options';
import { nameOf, QueuePanel } from './panel';
import { Registry, type QueueWorker } from './registry';
import { onSigterm } from './sigterm';
import { isShared, readSharedCache, SharedVectors, textOf, type Embedded } from './vectors';

/** What a worker embeds with: an `OptimizedEmbeddingGenerator`, or something that does the same. */
export interface WorkerGenerator {
  isReady(): boolean;
  initialize(): Promise<void>;
  getModelInfo(): { modelId: string; fingerprint: string; dimensions: number; maxLength: number };
  batchProcess(annotations: Annotation[], options: { onError: 'skip'; inputType: 'document' | 'query' }): Promise<EmbeddingResult[]>;
  /** For texts that are no annotations; needed where there are such. */
  embed?(texts: string[], options: { onError: 'skip'; inputType: 'document' | 'query' }): Promise<EmbeddingMatrix>;
}

/** Options of {@link EmbeddingWorker}. */
export interface EmbeddingWorkerOptions {
  /** Where the queue is: `'redis://host:6379'`, options, or a client of ioredis. */
  connection: QueueConnection;
  /** What embeds. It is initialised if it is not; to close it is yours. */
  generator: WorkerGenerator;
  /** The queue. Default `'embedcore'`. */
  name?: string | undefined;
  /** What keys of BullMQ begin with. Default `'bull'`. */
  prefix?: string | undefined;
  /** Chunks at a time, from 1. Default 2: while one is computed, the other's vectors are on their way. */
  concurrency?: number | undefined;
  /**
   * Where vectors go: the tier that producers read. Default: the generator's cache, if others see what is in it, or else a
   * cache with `shared: { url }` on the server of the queue.
   */
  cache?: CacheOptions | IntelligentEmbeddingCache | undefined;
  /** How long a worker may be silent before others take over its chunks, in milliseconds: 1000 to 3600000. Default 15000. */
  lockDurationMs?: number | undefined;
  /** How long {@link EmbeddingWorker.close} waits for what runs, in milliseconds. Default 30000. */
  drainTimeoutMs?: number | undefined;
  /** Longest wait for the server at the beginning, in milliseconds. Default 5000. */
  connectTimeoutMs?: number | undefined;
  /** Whether SIGTERM has the worker finish what runs before the process ends by it. Default `true`. */
  stopOnSigterm?: boolean | undefined;
  /** Who is told of each chunk, as `queue.chunk`, and on whose dashboards the queue is shown. Default: the global one. `false`: nobody. */
  monitor?: PerformanceMonitor | false | undefined;
  /** Told of chunks, and of trouble with the server. Default: nobody; nothing is printed. */
  logger?: Logger | undefined;
}

const readOptions = optionReader<EmbeddingWorkerOptions>({
  connection: untouched, generator: untouched, name: true, prefix: true, concurrency: true, cache: readSharedCache, lockDurationMs: true, drainTimeoutMs: true,
  connectTimeoutMs: true, stopOnSigterm: true, monitor: true, logger: true,
});

/** How often a worker says that it is there, in milliseconds. */
const HEARTBEAT_MS = 3000;
/** How often a chunk may be taken by workers that do not survive it. */
const MOST_STALLED = 5;
/** How soon it goes on after the server was away. */
const AGAIN_MS = 1000;
/** How often what may pass is tried: by one worker, with pauses that double from the first on; and by how many. */
const MOST_TRIES = 4;
const FIRST_PAUSE_MS = 1000;
const MOST_WORKERS = 4;
/** How long a worker waits for the shared tier before it gives a chunk back, in milliseconds. */
const TIER_MS = 60_000;
/** How long a chunk for another model is kept before it is given back, in milliseconds, about. */
const WRONG_MODEL_MS = 500;
/** The longest delay that a timer of Node.js takes, in milliseconds. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * Takes chunks of a queue, embeds them, and puts their vectors into the shared tier. Begins when it is made, and keeps the
 * process alive until it is closed.
 *
 * A worker may be killed at any moment: others do what it had. What was computed before is in the shared tier and is not
 * computed again. Needs `bullmq`, an optional peer (5 or 6), with `ioredis`.
 */
export class EmbeddingWorker implements AsyncDisposable {
  readonly #generator: WorkerGenerator;
  readonly #vectors: SharedVectors;
  readonly #link: Link;
  readonly #registry: Registry;
  readonly #name: string;
  readonly #prefix: string;
  readonly #settings: { concurrency: number; lockDurationMs: number; drainTimeoutMs: number; connectTimeoutMs: number };
  readonly #monitor: PerformanceMonitor | undefined;
  readonly #log: Log | undefined;
  readonly #ready: Promise<void>;
  readonly #begun = performance.now();
  readonly #id = randomUUID();
  readonly #panel: QueuePanel;
  readonly #undo: (() => void)[] = [];
  readonly #stop = new AbortController();
  #worker: BullWorker | undefined;
  #heartbeat: NodeJS.Timeout | undefined;
  #model: WorkerModel | undefined;
  #counts = { running: 0, chunks: 0, failed: 0, texts: 0, computed: 0 };
  #closed: Promise<void> | undefined;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option; `BACKEND_UNAVAILABLE` where bullmq is not installed. */
  constructor(options: EmbeddingWorkerOptions) {
    const given = readOptions(options) as EmbeddingWorkerOptions;
    this.#generator = generatorOf(given.generator);
    this.#name = nameOf('name', given.name ?? 'embedcore');
    this.#prefix = nameOf('prefix', given.prefix ?? 'bull');
    this.#settings = {
      concurrency: whole('concurrency', given.concurrency ?? 2, 1, 1000),
      lockDurationMs: whole('lockDurationMs', given.lockDurationMs ?? 15_000, 1000, 3_600_000),
      drainTimeoutMs: whole('drainTimeoutMs', given.drainTimeoutMs ?? 30_000, 0, LONGEST_MS),
      connectTimeoutMs: whole('connectTimeoutMs', given.connectTimeoutMs ?? 5000, 1, LONGEST_MS),
    };
    const stopOnSigterm = flag('stopOnSigterm', given.stopOnSigterm ?? true);
    this.#monitor = monitorOf(given.monitor);
    this.#log = logOf(given.logger);
    const address = addressOf(given.connection);
    load();
    const own = this.#generator instanceof OptimizedEmbeddingGenerator ? cacheOf(this.#generator) : undefined;
    this.#vectors = new SharedVectors(given.cache ?? (own && isShared(own) ? own : undefined), address.url);
    this.#link = new Link(address);
    this.#registry = new Registry(this.#link.client, this.#prefix, this.#name);
    this.#panel = new QueuePanel(this.#name, async () => ({ workers: await this.#registry.workers() }), this.#vectors.cache);
    if (this.#monitor) this.#undo.push(showPanel(this.#monitor, this.#panel));
    if (stopOnSigterm) this.#undo.push(onSigterm(() => this.close()));
    this.#ready = this.#start();
    this.#ready.catch(() => void this.close());
  }

  /**
   * Waits until it takes chunks.
   * @throws `EmbeddingError` `MODEL_INIT_FAILED`; `BACKEND_UNAVAILABLE` where the server could not be reached, `BACKEND_REJECTED` where
   * it refuses or is too old; `INVALID_CONFIG` for a queue of another release of embedcore; `CLOSED`.
   */
  ready(): Promise<void> {
    return this.#ready;
  }

  /** What it is and has done, as {@link EmbeddingQueue.getStats} lists it. */
  getStats(): QueueWorker {
    const { modelId: model = '', fingerprint = '' } = this.#model ?? {};
    const { concurrency } = this.#settings;
    return { id: this.#id, host: hostname(), pid: process.pid, model, fingerprint, concurrency, ...this.#counts, uptimeMs: Math.round(performance.now() - this.#begun) };
  }

  /**
   * Takes no more chunks, and waits for those that it has, for `drainTimeoutMs` at most: what is not done then is done by
   * others. May be called any number of times.
   */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #start(): Promise<void> {
    this.#model = await generated(async () => {
      if (!this.#generator.isReady()) await this.#generator.initialize();
      return modelOf(this.#generator);
    }, ModelInitializationError);
    const { connectTimeoutMs, concurrency } = this.#settings;
    await this.#link.ready(connectTimeoutMs);
    await this.#link.within(connectTimeoutMs, () => this.#registry.claim());
    if (this.#closed) throw new EmbeddingError('CLOSED', 'The worker was closed');
    void this.#takeJobs();
    const announce = () => void this.#registry.announce(this.getStats()).catch(() => {});
    announce();
    this.#heartbeat = setInterval(() => this.#link.awayMs === 0 && announce(), HEARTBEAT_MS);
    this.#log?.info(`Works on the queue ${this.#name} with ${this.#model.modelId}, ${concurrency} chunks at a time`, { event: 'worker-ready', queue: this.#name, ...this.#model, concurrency });
  }

  /** Takes jobs. A connection that is lost before its first answer never comes back: then there is another one. */
  async #takeJobs(): Promise<void> {
    const { Worker } = load();
    const { concurrency, lockDurationMs } = this.#settings;
    const settings = {
      connection: this.#link.client,
      prefix: this.#prefix,
      skipVersionCheck: true,
      concurrency,
      lockDuration: lockDurationMs,
      stalledInterval: Math.ceil(lockDurationMs / 2),
      maxStalledCount: MOST_STALLED,
      runRetryDelay: AGAIN_MS,
    };
    for (let ready = false; !ready && !this.#closed; ) {
      const worker = (this.#worker = new Worker(this.#name, (job, token) => this.#process(job, token), settings));
      worker.on('error', (error: Error) => this.#log?.warn(`Queue ${this.#name}: ${error.message}`, { event: 'queue-error' }));
      ready = await worker.waitUntilReady().then(() => true, () => false);
      if (ready || this.#closed) return;
      // What it has taken by the other connection, it finishes.
      do await this.#pause(AGAIN_MS);
      while (this.#counts.running > 0 && !this.#closed);
      await worker.close().catch(() => {});
    }
  }

  async #close(): Promise<void> {
    this.#stop.abort();
    this.#undo.forEach((undo) => undo());
    const { drainTimeoutMs } = this.#settings;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, drainTimeoutMs)));
    // It may be about to begin.
    const drained = this.#ready.catch(() => {}).then(() => this.#worker?.close()).catch(() => {});
    await Promise.race([drained, late]);
    clearTimeout(timer);
    clearInterval(this.#heartbeat);
    if (this.#link.awayMs === 0) await this.#link.within(1000, () => this.#registry.leave(this.#id)).catch(() => {});
    this.#link.close();
    await this.#vectors.close();
  }

  /** One job; what it throws is the reason that the job fails for. */
  async #process(job: Job, token: string | undefined): Promise<Answer> {
    const began = performance.now();
    this.#counts.running++;
    let success = false;
    let count = 0;
    try {
      if (job.name !== JOB) throw new EmbeddingError('INVALID_ARGUMENT', `This is no job of embedcore: its name is ${show(job.name)}`);
      const data = readJob(job.data);
      count = data.inputs.length;
      const model = (this.#model = await generated(() => modelOf(this.#generator)));
      if (data.fingerprint !== null && data.fingerprint !== model.fingerprint) {
        await this.#pause(WRONG_MODEL_MS * (0.5 + Math.random()));
        return await giveBack(job, token);
      }
      const { cached, errors } = await this.#embed(data, model);
      this.#counts.texts += count;
      this.#counts.computed += count - cached.length - errors.size;
      const answer: Answer = { model, cached, ms: performance.now() - began };
      if (errors.size === 0) {
        success = true;
        return answer;
      }
      if (mayPass(errors.values(), job)) return await giveBack(job, token);
      throw reason(reasonOfSome(errors, answer));
    } catch (thrown) {
      if (thrown instanceof Settled) throw thrown;
      const error = toEmbeddingError(thrown);
      if (mayPass([error], job)) return await giveBack(job, token);
      throw reason(reasonOf(error));
    } finally {
      const ms = performance.now() - began;
      this.#counts.running--;
      this.#counts.chunks++;
      if (!success) this.#counts.failed++;
      this.#monitor?.record('queue.chunk', ms, { success, batchSize: Math.max(1, count) });
      this.#log?.debug(`A chunk of ${count} texts took ${Math.round(ms)} ms`, { event: 'queue-chunk', id: job.id, count, ms, success });
    }
  }

  /** Embeds what is not in the shared tier, and sees to it that all of it is there. */
  async #embed({ inputs, inputType, again }: JobData, model: WorkerModel): Promise<{ cached: number[]; errors: Map<number, EmbeddingError> }> {
    const texts = inputs.map((input) => textOf(input, model));
    if (!(await this.#vectors.reachable(TIER_MS))) throw new EmbeddingError('CACHE_STORAGE_FAILED', `The shared tier was not there for ${TIER_MS} ms`, { retryable: true });
    const known = await this.#vectors.find(model, inputType, texts);
    const cached = new Set(known.flatMap((each, at) => (each ? [at] : [])));
    const computed = new Map<number, Embedded>();
    const errors = new Map<number, EmbeddingError>();
    let missing = inputs.map((_, at) => at).filter((at) => !cached.has(at));
    for (let tries = 1; missing.length > 0; tries++) {
      const answers = await this.#answersOf(missing.map((at) => inputs[at]!), inputType, model);
      const later: number[] = [];
      for (const [position, { embedded, fromCache, error }] of answers.entries()) {
        const at = missing[position]!;
        errors.delete(at);
        if (embedded) {
          computed.set(at, embedded);
          if (fromCache) cached.add(at);
        } else {
          errors.set(at, error!);
          if (error!.retryable) later.push(at);
        }
      }
      if (tries === MOST_TRIES || this.#stop.signal.aborted) break;
      missing = later;
      if (missing.length > 0) await this.#pause(FIRST_PAUSE_MS * 2 ** (tries - 1));
    }
    // A generator that has the shared tier as its own cache has put them there.
    const isThere = this.#generator instanceof OptimizedEmbeddingGenerator && cacheOf(this.#generator) === this.#vectors.cache;
    const kept = [...computed, ...(again === 0 ? [] : known.flatMap((each, at): [number, Embedded][] => (each ? [[at, each]] : [])))];
    let first = true;
    const set = async () => {
      if (!first || !isThere || again > 0) await this.#vectors.keep(model, inputType, kept.map(([at]) => texts[at]!), kept.map(([, embedded]) => embedded));
      first = false;
    };
    if (kept.length > 0) await this.#vectors.written(set, TIER_MS);
    return { cached: [...cached].sort((a, b) => a - b), errors };
  }

  /** What the generator says to inputs that are all of one kind. */
  async #answersOf(inputs: readonly Input[], inputType: JobData['inputType'], model: WorkerModel): Promise<{ embedded?: Embedded; fromCache?: boolean; error?: EmbeddingError }[]> {
    const options = { onError: 'skip', inputType } as const;
    const failed = (error: EmbeddingError) => inputs.map(() => ({ error }));
    try {
      if (typeof inputs[0] === 'string') {
        if (!this.#generator.embed) throw new EmbeddingError('INVALID_CONFIG', 'The generator has no function embed, and there are texts that are no annotations');
        return await generated(async () => {
          const matrix = await this.#generator.embed!(inputs as string[], options);
          return inputs.map((_, at) => {
            const error = matrix.errors.get(at);
            return error ? { error: failureOf(error) } : { ...checked(matrix.row(at), model, { tokenCount: matrix.tokenCounts[at], truncated: matrix.truncated[at] === 1 }), fromCache: matrix.fromCache[at] === 1 };
          });
        });
      }
      const annotations = (inputs as [string, string, string, string][]).map(([nodeId, signature, summary, sourceSnippet]) => ({ nodeId, signature, summary, sourceSnippet }));
      return await generated(async () => {
        const results = await this.#generator.batchProcess(annotations, options);
        return inputs.map((_, at) => {
          const result = results[at];
          if (!result) return { error: new EmbeddingGenerationError(`The generator answered ${results.length} of ${inputs.length} annotations`) };
          return result.error ? { error: failureOf(result.error) } : { ...checked(result.embedding, model, result), fromCache: result.fromCache === true };
        });
      });
    } catch (thrown) {
      const error = toEmbeddingError(thrown);
      if (error.code === 'CLOSED' || error.code === 'NOT_INITIALIZED') throw error;
      return failed(error);
    }
  }

  /** Waits, but not longer than the worker is open. */
  #pause(ms: number): Promise<void> {
    const { signal } = this.#stop;
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, signal.aborted ? 0 : ms);
      signal.addEventListener('abort', done);
    });
  }
}

type Failure = typeof EmbeddingGenerationError | typeof ModelInitializationError;

/** What a generator does. @throws `failure` for what is no error of this package, also about an answer that cannot be read. */
async function generated<T>(work: () => T | Promise<T>, failure?: Failure): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    throw failureOf(thrown, failure);
  }
}

function failureOf(thrown: unknown, failure: Failure = EmbeddingGenerationError): EmbeddingError {
  return thrown instanceof EmbeddingError ? thrown : new failure(`The generator failed: ${messageOf(thrown)}`, { cause: thrown });
}

/** A vector as it may be kept, or why not. */
function checked(
  vector: ArrayLike<number>,
  { dimensions }: WorkerModel,
  { tokenCount = 0, truncated = false, confidence = tokenCount > 0 ? 1 : 0 }: { tokenCount?: number | undefined; truncated?: boolean; confidence?: number },
): { embedded: Embedded } | { error: EmbeddingError } {
  const failed = (reason: string) => ({ error: new EmbeddingError('EMBEDDING_GENERATION_FAILED', `The generator answered ${reason}`) });
  if (vector.length !== dimensions) return failed(`a vector of ${vector.length} values, its model has ${dimensions}`);
  for (let i = 0; i < vector.length; i++) if (!Number.isFinite(vector[i])) return failed(`a vector with ${String(vector[i])} at position ${i}`);
  return { embedded: { vector, tokenCount, truncated, confidence } };
}

function modelOf(generator: WorkerGenerator): WorkerModel {
  const { modelId, fingerprint, dimensions, maxLength } = generator.getModelInfo();
  return { modelId, fingerprint, dimensions, maxLength };
}

function generatorOf(value: unknown): WorkerGenerator {
  const own = (typeof value === 'object' && value !== null ? value : {}) as WorkerGenerator;
  refuseOtherKind('OptimizedEmbeddingGenerator', value, 'generator');
  const lacks = (['isReady', 'initialize', 'getModelInfo', 'batchProcess'] as const).find((name) => typeof read(own, name, `generator.${name}`) !== 'function');
  if (lacks !== undefined) throw refused('generator', `${show(value)} has no function ${lacks}: pass an OptimizedEmbeddingGenerator`);
  return own;
}

/** What BullMQ is told where a job is neither done nor failed. */
class Settled extends Error {
  override name = 'WaitingError';
}

/** Leaves a job to another worker, or to this one later. */
async function giveBack(job: Job, token: string | undefined): Promise<never> {
  await job.moveToWait(token);
  throw new Settled('The chunk waits for another worker');
}

/** Whether another worker may do better. */
function mayPass(errors: Iterable<EmbeddingError>, { attemptsStarted }: Job): boolean {
  if (attemptsStarted >= MOST_WORKERS) return false;
  for (const { retryable, code } of errors) if (retryable || code === 'CLOSED' || code === 'NOT_INITIALIZED') return true;
  return false;
}

/** What a failed job keeps: the reason, and no stack of ours. */
function reason(text: string): Error {
  const error = new Settled(text);
  error.name = 'EmbeddingError';
  error.stack = '';
  return error;
}
