import { setImmediate as nextTurn } from 'node:timers/promises';

import { IntelligentEmbeddingCache, nativeOf, tellOperations } from '../cache/embedding-cache';
import type { CacheOptions } from '../cache/options';
import { EmbeddingError, toEmbeddingError } from '../call/errors';
import { invalid, show, type Refused } from '../call/input';
import { checkWatch, watched, type Watch } from '../call/limits';
import { logOf, tellFailure, type Log } from '../call/logger';
import { crossing, naming, type Given } from '../call/options';
import { plainPath } from '../call/paths';
import { matrixOf, type EmbeddingMatrix } from '../matrix/embedding-matrix';
import { ownMemory } from '../memory/processor';
import type { FetchProgress } from '../models/store';
import { call, native, settle } from '../native/addon';
import type { NativeAnswer, NativeCall, NativeGenerator, NativeRequest, NativeResponse, NativeSession } from '../native/types';
import { performanceOf, publishMemory, tellNews, type NativeMetrics, type OptimizationReport, type PerformanceMetrics, type Prediction } from './metrics';
import { cacheSettings, nativeSettings, readInitialize, setting, type CallOptions, type GeneratorOptions, type ImageCallOptions, type InitializeOptions, type ModelInfo } from './options';

/** A pack crosses in one piece on the event loop; these bounds keep that under a few milliseconds. */
const PACK_STRINGS = 4096;
const PACK_CHARACTERS = 1 << 20;

/** The cache of an encoder, if it has one. */
export let cacheOf: (encoder: Encoder) => IntelligentEmbeddingCache | undefined;

/** The native side of an encoder. */
export let nativeEncoder: (encoder: Encoder) => NativeGenerator;

/** Runs what `begin` has taken from the caller of an encoder, and makes of the answer what it says. */
export let runOn: <T>(encoder: Encoder, count: number, what: string, watch: Call['watch'], begin: () => Running<T>) => Promise<T>;

/** Has an encoder answer a request to a server. `normalized`: whether its vectors are of length 1. */
export let respond: (encoder: Encoder, request: NativeRequest, watch: Watch<never>, normalized: boolean) => Promise<NativeResponse>;

/** Notes how something that is under way on an encoder is stopped when that is closed; gives what takes the note back. */
export let noteStop: (encoder: Encoder, stop: (reason: EmbeddingError) => void) => () => void;

/**
 * What all classes with a model have: it is loaded, used by calls that share a pipeline (cache, single flight, batches, memory,
 * threads), watched, and closed. All methods may be called at once, from anywhere in the process; work runs on native threads and never
 * blocks the event loop.
 */
export abstract class Encoder implements AsyncDisposable {
  static {
    cacheOf = (encoder) => encoder.#cache();
    nativeEncoder = (encoder) => encoder.#native;
    runOn = (encoder, ...call) => encoder.#run(...call);
    respond = (encoder, ...call) => encoder.#respond(...call);
    noteStop = (encoder, stop) => {
      encoder.#stops.add(stop);
      return () => encoder.#stops.delete(stop);
    };
  }

  readonly #native: NativeGenerator;
  readonly #cacheSettings: CacheOptions | IntelligentEmbeddingCache | false;
  /** How the option is spelled that they come from. */
  readonly #cacheName: string;
  readonly #learning: boolean;
  /** Ends what is under way beside calls. */
  readonly #stops = new Set<(reason: EmbeddingError) => void>();
  /** Of its own; closed and made anew with the encoder. */
  #ownCache: IntelligentEmbeddingCache | undefined;
  readonly #log: Log | undefined;
  /** Clean-ups that the logger knows of. */
  #cleanups = 0;
  #closing: Promise<unknown> | undefined;
  #closes = 0;

  /** `own`: what crosses to the native side beside the options that all have. */
  protected constructor(all: Given<GeneratorOptions>, own: Record<string, unknown> = {}) {
    const { cache, enableCaching, cacheConfig, logger, ...given } = all;
    const log = logOf(logger);
    this.#log = log;
    const kept = setting({ cache }, { enableCaching }, { cacheConfig });
    this.#cacheName = kept.name;
    this.#cacheSettings = cacheSettings(kept.value, logger);
    const { plain, optimizer, processor, monitor, named } = nativeSettings(given);
    Object.assign(plain, crossing(own));
    this.#learning = plain.batchOptimizer !== false;
    const onEvent = (json: string) => publishMemory(json, log);
    this.#native = naming(named, () => call(() => new (native().NativeGenerator)(plain, optimizer, processor, monitor, onEvent)));
    this.#attachCache();
  }

  /**
   * Loads the model that is given, or else the one that was given last, and fetches it from the hub where that is its place.
   * Does nothing when that model is loaded already; another one replaces it once it is ready. Calls that are made from now on
   * wait for it, those made before have the model that they began with.
   * @throws {@link ModelInitializationError} naming the file and what is wrong with it; {@link EmbeddingError}
   * `BACKEND_UNAVAILABLE` or `RATE_LIMITED` where it could not be fetched now, or its server not be asked; `BACKEND_REJECTED`
   * with the server's words, `TIMED_OUT` after `remote.timeoutMs`. It stays usable.
   */
  async initialize(modelPath?: string | URL, options: InitializeOptions = {}): Promise<void> {
    const path = plainPath(modelPath, 'modelPath');
    if (path !== undefined && (typeof path !== 'string' || path === '')) throw invalid(`modelPath is ${show(path)}, not a path or the id of a model`);
    const watch = checkWatch<[FetchProgress]>(readInitialize(options));
    const log = this.#log;
    if (log) watch.progressCallback = tellFetches(log, watch.progressCallback);
    const before = log && this.#modelInfo();
    const started = performance.now();
    const [load, closes] = [call(() => this.#native.load(path)), this.#closes];
    try {
      await watched(watch, () => load.cancel(), async (report, check) => {
        // The cache's file is closed before it is opened again, and not opened for a load that comes to nothing.
        if (this.#closing) await this.#closing;
        check();
        if (closes === this.#closes) this.#attachCache();
        await load.run(report && ((file, loaded, total, progressTotal) => report({ file, loaded, total, progressTotal })));
      });
    } catch (thrown) {
      tellFailure(log, 'No model was loaded', toEmbeddingError(thrown));
      throw thrown;
    }
    const info = log && this.#modelInfo();
    if (info && info.fingerprint !== before?.fingerprint) {
      const { modelId, revision, dimensions, maxLength, fingerprint } = info;
      const details = { event: 'model-loaded', modelId, revision, dimensions, maxLength, fingerprint, runtime: info.runtime };
      const limit = maxLength === 0 ? '' : `, up to ${maxLength} tokens`;
      log?.info(`Loaded the model ${modelId} in ${ms(performance.now() - started)}: ${dimensions} dimensions${limit}`, details);
    }
  }

  /** `undefined` where no model is loaded. */
  #modelInfo(): ModelInfo | undefined {
    return this.isReady() ? this.getModelInfo() : undefined;
  }

  /** Whether a model is loaded. */
  isReady(): boolean {
    return this.#native.isReady();
  }

  /**
   * What the loaded model is.
   * @throws {@link EmbeddingError} `NOT_INITIALIZED` or `CLOSED`.
   */
  getModelInfo(): ModelInfo {
    return call(() => ({ ...this.#native.modelInfo() }) as ModelInfo);
  }

  /** What was done since it was made. May be asked for at any time. */
  getPerformanceMetrics(): PerformanceMetrics {
    const counted = JSON.parse(call(() => this.#native.metrics())) as NativeMetrics;
    return performanceOf(counted, this.#cache()?.getPerformanceMetrics(), this.#learning);
  }

  /**
   * What a call for `items` texts with `tokensPerItem` tokens each will take, from what was learned so far, also in processes
   * before this one (`stateDir`). The formula is in `docs/memory.md`.
   * @throws {@link EmbeddingError} `NOT_INITIALIZED`, `CLOSED`; `INVALID_ARGUMENT` for what is not a whole number.
   */
  predict(items: number, tokensPerItem: number): Prediction {
    for (const [name, value, least] of [['items', items, 0], ['tokensPerItem', tokensPerItem, 1]] as const) {
      if (!Number.isSafeInteger(value) || value < least) throw invalid(`${name} is ${show(value)}, not a whole number from ${least}`, { name });
    }
    return JSON.parse(call(() => this.#native.predict(items, tokensPerItem))) as Prediction;
  }

  /**
   * Tidies up: drops what has expired from the cache, decides anew how large batches are, and gives memory back that is
   * kept for later. There is no need to call it: all that happens by itself. May be called at any time.
   */
  async optimizePerformance(): Promise<OptimizationReport> {
    const before = ownMemory().rss;
    // A cache that fails, or that its owner has closed, is no reason to fail.
    const maintenance = await this.#cache()?.optimize().catch(() => undefined);
    await settle(() => this.#native.optimize());
    const { learned } = JSON.parse(call(() => this.#native.metrics())) as NativeMetrics;
    const freedBytes = Math.max(0, before - ownMemory().rss);
    return { cache: maintenance ?? null, freedBytes, learned };
  }

  /**
   * Stops what was asked for before, streams and loads included (`CLOSED`), waits for what still runs, frees the model.
   * `initialize` makes it usable again.
   */
  async cleanup(): Promise<void> {
    this.#closes++;
    for (const stop of this.#stops) stop(closed());
    const cache = this.#ownCache;
    this.#ownCache = undefined;
    const closing = settle(() => this.#native.close()).finally(() => cache?.close());
    this.#closing = Promise.allSettled([this.#closing, closing]);
    await closing;
  }

  /** The same as {@link Encoder.cleanup}. */
  shutdown(): Promise<void> {
    return this.cleanup();
  }

  /** The same as {@link Encoder.cleanup}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.cleanup();
  }

  #attachCache(): void {
    if (this.#cacheSettings === false || this.#ownCache) return;
    let cache = this.#cacheSettings;
    if (!(cache instanceof IntelligentEmbeddingCache)) {
      const options = cache;
      cache = this.#ownCache = naming((option) => `${this.#cacheName}.${option}`, () => new IntelligentEmbeddingCache(options));
    }
    const handle = nativeOf(cache);
    call(() => this.#native.attach(handle));
  }

  #cache(): IntelligentEmbeddingCache | undefined {
    return this.#cacheSettings instanceof IntelligentEmbeddingCache ? this.#cacheSettings : this.#ownCache;
  }

  /** Runs what `begin` has taken from its caller, and makes of the answer what it says. */
  async #run<T>(count: number, what: string, watch: Call['watch'], begin: () => Running<T>): Promise<T> {
    return this.#logged(count, async (tell) => {
      const { inputs, running, run, finish } = begin();
      return watched(watch, () => running.cancel(), async (report, check) => {
        // Reports that never go back: native ones and the end of the call arrive on different paths.
        let last = 0;
        const progress = report && ((processed: number) => {
          if (processed > last) report((last = processed), inputs.count);
        });
        const answer = await run(progress, check);
        check();
        const matrix = await matrixOf(answer, inputs.refused, check);
        const { rows, fromCache, truncated, errors } = matrix;
        if (tell) tell(what, { rows, hits: marked(fromCache), truncated: marked(truncated) }, errors);
        const finished = await finish(answer, matrix, check);
        answer.release();
        progress?.(inputs.count);
        return finished;
      });
    });
  }

  async #respond(request: NativeRequest, watch: Watch<never>, normalized: boolean): Promise<NativeResponse> {
    return this.#logged(request.count, async (tell) => {
      const running = call(() => this.#native.call());
      return watched(watch, () => running.cancel(), async () => {
        const response = await running.respond(request, normalized);
        tell?.('texts', response, NONE);
        return response;
      });
    });
  }

  /** Has the logger told what became of a call for `count` inputs. */
  async #logged<T>(count: number, work: (tell: Tell | undefined) => Promise<T>): Promise<T> {
    const log = this.#log;
    const started = performance.now();
    try {
      return await work(log && ((what, counts, errors) => tellAnswer(log, what, counts, errors, performance.now() - started)));
    } catch (thrown) {
      const error = toEmbeddingError(thrown);
      tellFailure(log, `A call for ${count} inputs failed`, error);
      throw error;
    } finally {
      if (log) this.#tellNews(log);
    }
  }

  /** What a call has changed, beside its answer. */
  #tellNews(log: Log): void {
    const cache = this.#cache();
    if (cache) tellOperations(cache, log);
    this.#cleanups = tellNews(log, call(() => this.#native.news()), this.#cleanups);
  }
}

/** Told how many inputs are answered. */
export type Progress = ((processed: number) => void) | undefined;

/** A call that has taken what its caller gave. */
export interface Running<T> {
  inputs: { readonly count: number; readonly refused: ReadonlyMap<number, Refused> };
  running: NativeCall;
  run: (progress: Progress, check: () => void) => Promise<NativeAnswer>;
  finish: (answer: NativeAnswer, matrix: EmbeddingMatrix, check: () => void) => T | Promise<T>;
}

/** How a call is made. */
export interface Call {
  watch: Watch<[processed: number, total: number]>;
  /** What crosses to the native side. */
  plain: Record<string, unknown>;
  /** Where it is a part of something longer: what its calls are made on, and where in that it begins. */
  session?: NativeSession;
  from?: number;
}

export function toCall({ signal, timeoutMs, progressCallback, ...others }: CallOptions | ImageCallOptions): Call {
  return { watch: checkWatch({ signal, timeoutMs, progressCallback }), plain: crossing(others) };
}

/** Hands the inputs to a call, in packs, and lets the event loop turn between them. `check` throws to end early. */
export async function sendInputs(call: NativeCall, { strings, refused }: Sent, check: () => void): Promise<void> {
  let begin = 0;
  let characters = 0;
  const push = (end: number) => {
    const pack = begin === 0 && end === strings.length ? strings : strings.slice(begin, end);
    const lengths = new Uint32Array(pack.length);
    for (let i = 0; i < pack.length; i++) lengths[i] = pack[i]!.length;
    call.push(pack.join(''), lengths);
    [begin, characters] = [end, 0];
  };
  for (let index = 0; index < strings.length; index++) {
    if (index - begin >= PACK_STRINGS || characters >= PACK_CHARACTERS) {
      push(index);
      await nextTurn();
      check();
    }
    characters += strings[index]!.length;
  }
  push(strings.length);
  if (refused.size > 0) call.refuse(Uint32Array.from(refused.keys()));
}

/** Strings on their way, and which of the inputs that they stand for are none. */
export interface Sent {
  readonly strings: readonly string[];
  readonly refused: ReadonlyMap<number, Refused>;
}

function closed(): EmbeddingError {
  return new EmbeddingError('CLOSED', 'The model was closed: await initialize() to use it again');
}

/** A duration for a person. */
const ms = (duration: number) => `${duration < 10 ? duration.toFixed(1) : Math.round(duration)} ms`;

/** Reports as the caller wants them, and tells once of each file that is fetched. */
function tellFetches(log: Log, report: ((progress: FetchProgress) => void) | undefined): (progress: FetchProgress) => void {
  const files = new Set<string>();
  return (progress) => {
    const { file, total, loaded } = progress;
    if (!files.has(file)) {
      files.add(file);
      if (loaded < total) log.info(`Fetching ${file}, ${(total / 2 ** 20).toFixed(1)} MB`, { event: 'model-fetching', file, total });
    }
    report?.(progress);
  };
}

/** How many inputs an answer has, and how many of them were known, and were cut. */
interface Counts {
  readonly rows: number;
  readonly hits: number;
  readonly truncated: number;
}

const NONE: ReadonlyMap<number, EmbeddingError> = new Map();

type Tell = (what: string, counts: Counts, errors: ReadonlyMap<number, EmbeddingError>) => void;

const marked = (marks: Uint8Array) => marks.reduce((sum, mark) => sum + mark, 0);

function tellAnswer(log: Log, what: string, { rows, hits, truncated }: Counts, errors: ReadonlyMap<number, EmbeddingError>, duration: number): void {
  const details = { event: 'call', [what]: rows, fromCache: hits, truncated, failed: errors.size, ms: duration };
  log.debug(`Embedded ${rows} ${what} in ${ms(duration)}, ${hits} from the cache, ${truncated} truncated`, details);
  for (const [index, error] of errors) {
    return log.warn(`${errors.size} of ${rows} ${what} were skipped; the first one is ${index}: ${error.message}`, { ...details, event: 'skipped', index, code: error.code });
  }
}
