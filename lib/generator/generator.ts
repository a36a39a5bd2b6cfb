import { setImmediate as nextTurn } from 'node:timers/promises';

import { IntelligentEmbeddingCache, nativeOf, tellOperations } from '../cache/embedding-cache';
import type { CacheOptions } from '../cache/options';
import { EmbeddingError, toEmbeddingError } from '../call/errors';
import { annotationFields, areAnnotated, Inputs, invalid, isArray, requireArray, show, take, takeAll, type Annotation, type Refused, type Taken } from '../call/input';
import { checkWatch, watched, type Watch } from '../call/limits';
import { logOf, tellFailure, type Log } from '../call/logger';
import { flag } from '../call/checks';
import { crossing, naming, read, refused } from '../call/options';
import { plainPath } from '../call/paths';
import type { EmbeddingResult } from '../call/result';
import { matrixOf, toNumbers, type EmbeddingMatrix } from '../matrix/embedding-matrix';
import { ownMemory } from '../memory/processor';
import { chunksOf, mostTokens, readSplit, readSplitMany, requireText, settingsOf, type Chunk, type SourceText, type SplitManyOptions, type SplitOptions } from '../chunks/chunks';
import type { FetchProgress } from '../models/store';
import { call, native, settle } from '../native/addon';
import type { NativeAnswer, NativeCall, NativeGenerator, NativeSession, NativeSplit } from '../native/types';
import { ChunkSource, mapped, readDocuments, type DocumentChunk, type DocumentOptions, type TextDocument } from './documents';
import { Images, type ImageInput } from './images';
import { convert, RESULTS_PER_TURN } from './convert';
import { performanceOf, publishMemory, tellNews, type NativeMetrics, type OptimizationReport, type PerformanceMetrics, type Prediction } from './metrics';
import { cacheSettings, nativeSettings, readCall, readGenerator, readImageCall, readInitialize, readStream, setting, type BatchProcessOptions, type CallOptions, type GeneratorOptions, type ImageCallOptions, type InitializeOptions, type ModelInfo, type StreamCallOptions } from './options';
import { Stream, type StreamedVector } from './stream';
import { readCount, type CountOptions, type Tokens } from './tokens';

/** A pack crosses in one piece on the event loop; these bounds keep that under a few milliseconds. */
const PACK_STRINGS = 4096;
const PACK_CHARACTERS = 1 << 20;

/** Tokens assumed for {@link prepareText} as long as no model says otherwise. */
const DEFAULT_MAX_TOKENS = 512;

/** Most tokens that can be asked for. */
const MOST_TOKENS = 2 ** 20;

/**
 * What makes embeddings; {@link OptimizedEmbeddingGenerator} is one, and is this name's value, so that
 * `generator instanceof EmbeddingGenerator` and `new EmbeddingGenerator()` work.
 */
export interface EmbeddingGenerator {
  /** Loads the model. */
  initialize(modelPath: string): Promise<void>;
  /** A vector for each text, in order. */
  generateEmbeddings(texts: string[]): Promise<number[][]>;
  /** A result for each annotation, in order. */
  batchProcess(annotations: Annotation[], options?: Partial<BatchProcessOptions>): Promise<EmbeddingResult[]>;
  /** Stops what runs and frees the model. */
  shutdown(): Promise<void>;
  /** Whether a model is loaded. */
  isReady(): boolean;
}

/** The cache of a generator, if it has one. */
export let cacheOf: (generator: OptimizedEmbeddingGenerator) => IntelligentEmbeddingCache | undefined;

/**
 * Embeds texts and code annotations with one model. All methods may be called at once, from anywhere in the process;
 * work runs on native threads and never blocks the event loop.
 */
export class OptimizedEmbeddingGenerator implements EmbeddingGenerator, AsyncDisposable {
  static {
    cacheOf = (generator) => generator.#cache();
  }

  readonly #native: NativeGenerator;
  readonly #cacheSettings: CacheOptions | IntelligentEmbeddingCache | false;
  /** How the option is spelled that they come from. */
  readonly #cacheName: string;
  readonly #learning: boolean;
  /** Ends the streams that are under way. */
  readonly #streams = new Set<(reason: EmbeddingError) => void>();
  /** Of its own; closed and made anew with the generator. */
  #ownCache: IntelligentEmbeddingCache | undefined;
  readonly #log: Log | undefined;
  /** Clean-ups that the logger knows of. */
  #cleanups = 0;
  #closing: Promise<unknown> | undefined;
  #closes = 0;

  /**
   * Loads nothing yet.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
   */
  constructor(options: GeneratorOptions = {}) {
    const { cache, enableCaching, cacheConfig, logger, ...given } = readGenerator(options);
    const log = logOf(logger);
    this.#log = log;
    const kept = setting({ cache }, { enableCaching }, { cacheConfig });
    this.#cacheName = kept.name;
    this.#cacheSettings = cacheSettings(kept.value, logger);
    const { plain, optimizer, processor, monitor, named } = nativeSettings(given);
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
   * with the server's words, `TIMED_OUT` after `remote.timeoutMs`. The generator stays usable.
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

  /** What is embedded for an annotation: {@link prepareText} with the loaded model's token limit. */
  prepareText(annotation: Annotation): string {
    return prepareText(annotation, this.isReady() ? this.getModelInfo().maxLength || MOST_TOKENS : undefined);
  }

  /** Embeds annotations; a result for each, in input order. Equal texts are computed once. */
  generateEmbeddings(annotations: readonly Annotation[], options?: CallOptions): Promise<EmbeddingResult[]>;
  /** Embeds texts; a vector for each, in input order. With `onError: 'skip'`, `[]` for those that cannot be. */
  generateEmbeddings(texts: readonly string[], options?: CallOptions): Promise<number[][]>;
  async generateEmbeddings(
    inputs: readonly Annotation[] | readonly string[],
    options: CallOptions = {},
  ): Promise<EmbeddingResult[] | number[][]> {
    requireArray(inputs, 'texts or annotations');
    // All are of one kind; the call names the first that is of the other one.
    if (inputs.length > 0 && areAnnotated(inputs)) return this.batchProcess(inputs as readonly Annotation[], options);
    return this.#run(toCall(readCall(options)), inputs, false, (_, matrix, __, check) =>
      convert(matrix.rows, (index) => (matrix.errors.has(index) ? [] : toNumbers(matrix.row(index))), check),
    );
  }

  /** The same as {@link OptimizedEmbeddingGenerator.generateEmbeddings} for annotations. */
  async batchProcess(annotations: readonly Annotation[], options: BatchProcessOptions = {}): Promise<EmbeddingResult[]> {
    requireArray(annotations, 'annotations');
    return this.#run(toCall(readCall(options)), annotations, true, results);
  }

  /** Embeds texts into one matrix, in input order: the fast path, without a number object per value. */
  async embed(texts: readonly string[], options: CallOptions = {}): Promise<EmbeddingMatrix> {
    requireArray(texts, 'texts; for a single text pass [text]');
    return this.#run(toCall(readCall(options)), texts, false, (_, matrix) => matrix);
  }

  /**
   * Embeds images with a model that reads them, into one matrix, in input order: each is what its file holds (PNG, JPEG, GIF,
   * WebP or BMP), or the path of it. Equal images are computed once, and kept in the cache by their content. See `docs/images.md`
   * for how they are prepared.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what is no image, or a damaged one, and where the model reads texts;
   * `INPUT_TOO_LONG` for one with more pixels than `maxPixels`.
   */
  async embedImages(images: readonly ImageInput[], options: ImageCallOptions = {}): Promise<EmbeddingMatrix> {
    requireArray(images, 'paths or bytes of images; for a single image pass [image]');
    const { watch, plain } = toCall(readImageCall(options));
    return this.#embed(images.length, 'images', watch, () => {
      const given = new Images(images, plain.onError === 'skip');
      const running = call(() => this.#native.call());
      call(() => given.send(running));
      const run = async (progress: Progress) => running.runImages(plain, progress);
      return { inputs: given, running, run, finish: (_, matrix) => matrix };
    });
  }

  /** Embeds the words of a search. */
  async embedQuery(text: string, options: CallOptions = {}): Promise<Float32Array> {
    if (typeof text !== 'string') throw invalid(`The query is ${show(text)}, not a string`);
    const { plain, ...call } = toCall(readCall(options));
    const query = { ...call, plain: { ...plain, inputType: plain.inputType ?? 'query', onError: 'throw' } };
    return this.#run(query, [text], false, (_, matrix) => matrix.row(0));
  }

  /**
   * Embeds what an iterable or an async iterable gives, and gives results as they come. Reads no more than some hundred
   * inputs ahead of what is taken, so that it needs little memory however long the input is. An array is embedded as it is
   * now; all of it with the model of now. What was read before the source failed, or before an input that cannot be
   * embedded, is answered first. Leaving the loop early stops everything and closes the source, a stream of Node.js
   * included; so do `signal`, `timeoutMs` and `cleanup`, whatever the stream waits for.
   */
  stream(annotations: Iterable<Annotation> | AsyncIterable<Annotation>, options?: StreamCallOptions): AsyncGenerator<EmbeddingResult, void, undefined>;
  /** The same for texts: for each, its index, its vector, and what is known of its tokens. */
  stream(
    texts: Iterable<string> | AsyncIterable<string>,
    options: StreamCallOptions & ({ details: true } | { order: 'completion' }),
  ): AsyncGenerator<StreamedVector, void, undefined>;
  /** The same for texts: a vector for each. With `details` or in the order of completion, a {@link StreamedVector} for each. */
  stream(texts: Iterable<string> | AsyncIterable<string>, options?: StreamCallOptions): AsyncGenerator<Float32Array, void, undefined>;
  stream(
    inputs: Iterable<Annotation | string> | AsyncIterable<Annotation | string>,
    options: StreamCallOptions = {},
  ): AsyncGenerator<EmbeddingResult | Float32Array | StreamedVector, void, undefined> {
    const { order = 'input', details = false, ...rest } = readStream(options);
    if (order !== 'input' && order !== 'completion') throw refused('order', `${show(order)} is not 'input' or 'completion'`);
    const detailed = flag('details', details) || order === 'completion';
    const { onError = 'throw' } = rest;
    if (onError !== 'throw' && onError !== 'skip') throw refused('onError', `${show(onError)} is not 'throw' or 'skip'`);
    const { watch, plain } = toCall(rest);
    const session = call(() => this.#native.session());
    let annotated: boolean | undefined;
    const taking = (input: unknown, index: number): Taken => {
      // All are of one kind, and the first one that is of either decides.
      if (annotated === undefined && (typeof input === 'string' || (typeof input === 'object' && input !== null))) annotated = typeof input !== 'string';
      return take(input, annotated ?? false, index);
    };
    const array = isArray(inputs);
    return new Stream<Taken, EmbeddingResult | Float32Array | StreamedVector>({
      inputs: array ? Array.from(inputs as unknown[], taking) : inputs,
      take: array ? (input) => input as Taken : taking,
      order,
      watch,
      run: (items, from, signal) => {
        const own = { watch: { signal }, plain: { ...plain, onError: 'skip' }, session, from };
        const kind = annotated ?? false;
        return this.#run(own, items, kind, async (answer, matrix, taken, check) => {
          const given = kind ? await results(answer, matrix, taken, check) : detailed ? streamed(matrix, from) : vectors(matrix);
          if (onError === 'skip' || matrix.errors.size === 0) return given;
          // The first one ends the stream, where it is and not before.
          return given.map((result, index) => matrix.errors.get(index) ?? result);
        });
      },
      begin: (stop) => {
        this.#streams.add(stop);
        return () => {
          this.#streams.delete(stop);
          session.release();
        };
      },
    });
  }

  /**
   * How many tokens each text has as the model reads it: special tokens and the prompt included, before anything is cut off. What
   * is above `getModelInfo().maxLength` is cut when it is embedded.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` where a server counts the tokens, or the model reads images;
   * `INPUT_TOO_LONG` for a text of more than 1 MB.
   */
  async countTokens(texts: readonly string[], options: CountOptions = {}): Promise<Uint32Array> {
    requireArray(texts, 'texts; for a single text pass [text]');
    const { query, watch } = reading(readCount(options));
    const inputs = takeAll(texts, false, false);
    return this.#read(inputs, watch, async (running) => Uint32Array.from(await running.countTokens(query)));
  }

  /**
   * The tokens of a text as the model reads it: special tokens and the prompt included, before anything is cut off.
   * @throws {@link EmbeddingError} as {@link OptimizedEmbeddingGenerator.countTokens}.
   */
  async tokenize(text: string, options: CountOptions = {}): Promise<Tokens> {
    if (typeof text !== 'string') throw invalid(`The text is ${show(text)}, not a string`);
    const { query, watch } = reading(readCount(options));
    return this.#read(takeAll([text], false, false), watch, async (running) => {
      const { ids, tokens, offsets } = await running.tokenize(query);
      const pairs = Array.from(tokens, (_, at): [number, number] => [offsets[2 * at]!, offsets[2 * at + 1]!]);
      return { ids: Uint32Array.from(ids), tokens: Array.from(tokens), offsets: pairs };
    });
  }

  /**
   * Splits a text into chunks that the model reads whole: exact places, all of the text but the white space between them, each
   * chunk cut at the highest structure that fits (heading or declaration, block, sentence, word, grapheme). What has begun inside a
   * section does not run on into the next one.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for a limit that has no room beside special tokens and prompt, and as
   * {@link OptimizedEmbeddingGenerator.countTokens}.
   */
  async split(text: string, options: SplitOptions = {}): Promise<Chunk[]> {
    const { path, ...given } = readSplit(options);
    const [chunks] = await this.splitMany([{ text, path }], given);
    return chunks!;
  }

  /** The chunks of each of many texts, in order, split on all threads. See {@link OptimizedEmbeddingGenerator.split}. */
  async splitMany(sources: readonly (string | SourceText)[], options: SplitManyOptions = {}): Promise<Chunk[][]> {
    requireArray(sources, 'texts or { text, path }');
    const { maxTokens, ...given } = readSplitMany(options);
    const most = mostTokens(maxTokens);
    const { plain, watch } = settingsOf(given, most);
    return this.#splitAll(sources.map(sourceOf), plain, watch, this.#native);
  }

  /**
   * Splits documents and embeds their chunks, as they come: equal chunks once, those that are in the cache not at all. Reads some
   * documents ahead of what is taken. As with {@link OptimizedEmbeddingGenerator.stream}, leaving the loop early stops everything and
   * closes the source.
   */
  streamDocuments(
    documents: Iterable<TextDocument> | AsyncIterable<TextDocument>,
    options: DocumentOptions = {},
  ): AsyncGenerator<DocumentChunk, void, undefined> {
    const { maxTokens, bypassCache, signal, timeoutMs, ...given } = readDocuments(options);
    const { plain, watch } = settingsOf({ ...given, signal }, mostTokens(maxTokens));
    const session = call(() => this.#native.session());
    const chunks = new ChunkSource(documents, (sources) => this.#splitAll(sources, plain, watch, session), () => session.release());
    const stream = this.stream(chunks as AsyncIterable<string>, { details: true, bypassCache, signal, timeoutMs });
    return mapped(stream, (vector) => chunks.taken(vector));
  }

  async #splitAll(sources: readonly SourceText[], plain: NativeSplit, watch: Watch<never>, on: Pick<NativeSession, 'call'>): Promise<Chunk[][]> {
    // An empty path is none.
    const inputs = takeAll(sources.flatMap(({ text, path = '' }) => [text, path]), false, false);
    const found = await this.#read(inputs, watch, (running) => running.split(plain), on);
    return found.map((each, at) => chunksOf(sources[at]!.text, each));
  }

  /** A call that makes no vectors. */
  async #read<T>(inputs: Inputs, watch: Watch<never>, work: (running: NativeCall) => Promise<T>, on: Pick<NativeSession, 'call'> = this.#native): Promise<T> {
    const running = call(() => on.call());
    return watched(watch, () => running.cancel(), async (_, check) => {
      await sendInputs(running, inputs, check);
      return work(running);
    });
  }

  /** What this generator has done since it was made. May be asked for at any time. */
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
    const maintenance = await this.#cache()?.optimize();
    await settle(() => this.#native.optimize());
    const { learned } = JSON.parse(call(() => this.#native.metrics())) as NativeMetrics;
    const freedBytes = Math.max(0, before - ownMemory().rss);
    return { cache: maintenance ?? null, freedBytes, learned };
  }

  /**
   * Stops what was asked for before, streams and loads included (`CLOSED`), waits for what still runs, frees the model.
   * `initialize` makes the generator usable again.
   */
  async cleanup(): Promise<void> {
    this.#closes++;
    for (const stop of this.#streams) stop(closed());
    const cache = this.#ownCache;
    this.#ownCache = undefined;
    const closing = settle(() => this.#native.close()).finally(() => cache?.close());
    this.#closing = Promise.allSettled([this.#closing, closing]);
    await closing;
  }

  /** The same as {@link OptimizedEmbeddingGenerator.cleanup}. */
  shutdown(): Promise<void> {
    return this.cleanup();
  }

  /** The same as {@link OptimizedEmbeddingGenerator.cleanup}, for `await using`. */
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

  /** One call, from its inputs to what `finish` makes of the answer. */
  async #run<T>(
    { watch, plain, session, from = 0 }: Call,
    given: readonly unknown[],
    annotated: boolean,
    finish: (answer: NativeAnswer, matrix: EmbeddingMatrix, inputs: Inputs, check: () => void) => T | Promise<T>,
  ): Promise<T> {
    return this.#embed(given.length, 'texts', watch, () => {
      const inputs = session ? collect(given as readonly Taken[], annotated) : takeAll(given, annotated, plain.onError === 'skip');
      const running = call(() => (session ?? this.#native).call());
      const run = async (progress: Progress, check: () => void) => {
        await sendInputs(running, inputs, check);
        return running.run(annotated, from, plain, progress);
      };
      return { inputs, running, run, finish: (answer, matrix, check) => finish(answer, matrix, inputs, check) };
    });
  }

  /** Runs what `begin` has taken from its caller, and makes of the answer what it says. */
  async #embed<T>(count: number, what: string, watch: Call['watch'], begin: () => Running<T>): Promise<T> {
    const log = this.#log;
    const started = performance.now();
    try {
      const { inputs, running, run, finish } = begin();
      return await watched(watch, () => running.cancel(), async (report, check) => {
        // Reports that never go back: native ones and the end of the call arrive on different paths.
        let last = 0;
        const progress = report && ((processed: number) => {
          if (processed > last) report((last = processed), inputs.count);
        });
        const answer = await run(progress, check);
        check();
        const matrix = await matrixOf(answer, inputs.refused, check);
        if (log) tellAnswer(log, what, matrix, performance.now() - started);
        const finished = await finish(answer, matrix, check);
        answer.release();
        progress?.(inputs.count);
        return finished;
      });
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

/** See the interface. */
export const EmbeddingGenerator: typeof OptimizedEmbeddingGenerator = OptimizedEmbeddingGenerator;

/** Told how many inputs are answered. */
type Progress = ((processed: number) => void) | undefined;

/** A call that has taken what its caller gave. */
interface Running<T> {
  inputs: { readonly count: number; readonly refused: ReadonlyMap<number, Refused> };
  running: NativeCall;
  run: (progress: Progress, check: () => void) => Promise<NativeAnswer>;
  finish: (answer: NativeAnswer, matrix: EmbeddingMatrix, check: () => void) => T | Promise<T>;
}

/** How a call is made. */
interface Call {
  watch: Watch<[processed: number, total: number]>;
  /** What crosses to the native side. */
  plain: Record<string, unknown>;
  /** Where it is a part of something longer: what its calls are made on, and where in that it begins. */
  session?: NativeSession;
  from?: number;
}

function toCall({ signal, timeoutMs, progressCallback, ...others }: CallOptions | ImageCallOptions): Call {
  return { watch: checkWatch({ signal, timeoutMs, progressCallback }), plain: crossing(others) };
}

/** How a call is made that makes no vectors. */
function reading({ inputType = 'document', signal, timeoutMs }: CountOptions): { query: boolean; watch: Watch<never> } {
  if (inputType !== 'document' && inputType !== 'query') throw refused('inputType', `${show(inputType)} is not 'document' or 'query'`);
  return { query: inputType === 'query', watch: checkWatch<never>({ signal, timeoutMs }) };
}

/** A text to be split, as it is now. */
function sourceOf(given: unknown, index: number): SourceText {
  const what = `The text of source ${index}`;
  const isObject = typeof given === 'object' && given !== null;
  const text = isObject ? read(given, 'text', what) : given;
  const path = isObject ? read(given, 'path', `The path of source ${index}`) : undefined;
  requireText(text, what);
  if (path !== undefined && typeof path !== 'string') throw invalid(`The path of source ${index} is ${show(path)}, not a string`, { index });
  return { text, path };
}

/** Hands the inputs to a call, in packs, and lets the event loop turn between them. `check` throws to end early. */
async function sendInputs(call: NativeCall, { strings, refused }: Inputs, check: () => void): Promise<void> {
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

function collect(given: readonly Taken[], annotated: boolean): Inputs {
  const inputs = new Inputs(annotated);
  for (const each of given) inputs.add(each);
  return inputs;
}

/** What became of each annotation. */
function results(answer: NativeAnswer, matrix: EmbeddingMatrix, { strings }: Inputs, check: () => void): Promise<EmbeddingResult[]> {
  const times = answer.processingTimes();
  const confidences = answer.confidences();
  // Without a count nothing is known of a text's tokens, as on a server; but that something was cut off before is.
  const about = (index: number, failed: boolean): Partial<EmbeddingResult> => {
    const truncated = matrix.truncated[index] === 1;
    const tokenCount = matrix.tokenCounts[index]!;
    if (tokenCount > 0 || failed) return { confidence: confidences[index]!, truncated, tokenCount };
    return truncated ? { truncated } : {};
  };
  let texts: string[] = [];
  return convert(
    matrix.rows,
    (index) => {
      const offset = index % RESULTS_PER_TURN;
      if (offset === 0) texts = answer.texts(index, Math.min(index + RESULTS_PER_TURN, matrix.rows));
      const error = matrix.errors.get(index);
      return {
        nodeId: strings[4 * index]!,
        embedding: error ? [] : toNumbers(matrix.row(index)),
        inputText: texts[offset]!,
        processingTime: times[index]!,
        modelUsed: answer.modelId,
        fromCache: matrix.fromCache[index] === 1,
        ...about(index, error !== undefined),
        ...(error && { error }),
      };
    },
    check,
  );
}

/** A vector of its own for each text; an empty one for each that has none. */
function vectors(matrix: EmbeddingMatrix): Float32Array[] {
  return Array.from({ length: matrix.rows }, (_, index) => (matrix.errors.has(index) ? new Float32Array() : matrix.row(index).slice()));
}

/** The same with what is known of each; `from`: the index of the first one. */
function streamed(matrix: EmbeddingMatrix, from: number): StreamedVector[] {
  return vectors(matrix).map((embedding, at) => {
    const error = matrix.errors.get(at);
    const known = { truncated: matrix.truncated[at] === 1, tokenCount: matrix.tokenCounts[at]!, fromCache: matrix.fromCache[at] === 1 };
    return { index: from + at, embedding, ...known, ...(error && { error }) };
  });
}

function closed(): EmbeddingError {
  return new EmbeddingError('CLOSED', 'The generator was closed: await initialize() to use it again');
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

function tellAnswer(log: Log, what: string, { rows, fromCache, truncated, errors }: EmbeddingMatrix, duration: number): void {
  const count = (marks: Uint8Array) => marks.reduce((sum, mark) => sum + mark, 0);
  const details = { event: 'call', [what]: rows, fromCache: count(fromCache), truncated: count(truncated), failed: errors.size, ms: duration };
  log.debug(`Embedded ${rows} ${what} in ${ms(duration)}, ${details.fromCache} from the cache, ${details.truncated} truncated`, details);
  for (const [index, error] of errors) {
    return log.warn(`${errors.size} of ${rows} ${what} were skipped; the first one is ${index}: ${error.message}`, { ...details, event: 'skipped', index, code: error.code });
  }
}

/**
 * The text that is embedded for an annotation: `Signature: … | Summary: … | Code: …`, comments stripped from the code,
 * white space folded, cut to 8 characters for each of `maxTokens` (default 512) and never inside a code point. Empty
 * parts are left out; an annotation without any gives `Node: <nodeId>`.
 */
export function prepareText(annotation: Annotation, maxTokens: number = DEFAULT_MAX_TOKENS): string {
  if (!Number.isInteger(maxTokens) || maxTokens < 1 || maxTokens > MOST_TOKENS) {
    throw invalid(`maxTokens is ${show(maxTokens)}, not a whole number from 1 to ${MOST_TOKENS}`);
  }
  const [nodeId, signature, summary, code] = annotationFields(annotation, 'The annotation') as [string, string, string, string];
  return call(() => native().prepareText(nodeId, signature, summary, code, maxTokens));
}
