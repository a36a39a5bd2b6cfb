import { DynamicBatchOptimizer, nativeOptimizer, readBatchOptimizer, type BatchOptimizerOptions } from '../batch/optimizer';
import { IntelligentEmbeddingCache, nativeOf, tellOperations, readCache, type CacheOptions } from '../cache/embedding-cache';
import type { EmbeddingGenerator } from './documented';
import { EmbeddingError, toEmbeddingError } from '../call/errors';
import { Inputs, annotationFields, areAnnotated, feed, invalid, isArray, requireArray, show, take, takeAll, type Annotation, type Taken } from '../call/input';
import { logOf, tellFailure, type Log, type Logger } from '../call/logger';
import { Matrix, RESULTS_PER_TURN, convert, toNumbers, type EmbeddingMatrix } from './matrix';
import { MemoryAwareProcessor, nativeProcessor, ownMemory, readMemoryProcessor, type MemoryProcessorOptions } from '../memory/processor';
import type { PerformanceMonitor } from '../monitor/monitor';
import { call, monitorHandles, native, settle, type NativeAnswer, type NativeBatchOptimizer, type NativeGenerator, type NativeMemoryProcessor, type NativeMonitor, type NativeSession } from '../native/addon';
import { crossing, instanceOr, naming, optionReader, refused, type Names } from '../call/options';
import { pathNow, plainPath } from '../call/paths';
import { performanceOf, publishMemory, tellNews, type NativeMetrics, type OptimizationReport, type PerformanceMetrics, type Prediction } from './metrics';
import type { EmbeddingResult } from './result';
import { Stream, type StreamOptions } from './stream';
import { checkWatch, watched, type Watch } from '../call/limits';

export type { EmbeddingMatrix };

/** How the vectors of a text's tokens become one. */
export type Pooling = 'mean' | 'cls' | 'last_token' | 'max';

/** The variants in which models are published, by the type of their weights. */
export type Dtype = 'fp32' | 'fp16' | 'q8' | 'int8' | 'uint8' | 'q4' | 'q4f16' | 'bnb4';

/** What computes a model, where the ONNX Runtime in use was built for it. */
export type ExecutionProvider = 'cpu' | 'cuda' | 'coreml' | 'directml';

/** Options of {@link OptimizedEmbeddingGenerator}. What is left out is read from the model's own files. */
export interface GeneratorOptions {
  /**
   * `'builtin'` (default): the small model for code search that comes with the package. Or a model directory in Hugging
   * Face layout, or an `.onnx` file in one. Or, where there is no such path, the id of a model on the hub, such as
   * `'sentence-transformers/all-MiniLM-L6-v2'`, `'owner/name@revision'`: what is needed of it is fetched once, verified, and
   * kept where other tools of the hub keep it, too. A relative path is in the working directory of the moment when it is
   * given; `~/` is the home directory, and a file URL its path. May be given to `initialize` instead.
   */
  modelPath?: string | URL | undefined;
  /**
   * A branch, a tag or a commit of a model on the hub. Default: `main`, at the commit that was found when it was first
   * fetched.
   */
  revision?: string | undefined;
  /**
   * Where models from the hub are kept. Default: the environment's `HF_HUB_CACHE`, or `hub` in its `HF_HOME`, or
   * `~/.cache/huggingface/hub`.
   */
  cacheDir?: string | undefined;
  /** Never ask the network, as with `HF_HUB_OFFLINE=1` in the environment. Default `false`. */
  localFilesOnly?: boolean | undefined;
  /**
   * Which variant of a model is taken, where it comes in several: `'fp32'` is `model.onnx`, `'fp16'` `model_fp16.onnx`,
   * `'q8'` `model_quantized.onnx`, and so on, in `onnx/` or beside the tokenizer. Default: `model.onnx`, whatever it holds.
   */
  dtype?: Dtype | undefined;
  /** How token vectors become one vector. Default: what `modules.json` or `1_Pooling/config.json` says. */
  pooling?: Pooling | undefined;
  /** Whether vectors are scaled to length 1. Default: what `modules.json` says. */
  normalize?: boolean | undefined;
  /** Keep the first so many values of each vector, for models trained for that (Matryoshka). Default: all. */
  dimensions?: number | undefined;
  /** Most tokens of a text that the model sees, special tokens included. Default: the model's own limit. */
  maxLength?: number | undefined;
  /** Text put before each document or query. Default: what `config_sentence_transformers.json` says, else none. */
  prompts?: { document?: string | undefined; query?: string | undefined } | undefined;
  /**
   * The name of one of the prompts in the model's `config_sentence_transformers.json`, such as `'clustering'`, that is put
   * before all texts, whatever their `inputType`.
   */
  promptName?: string | undefined;
  /**
   * Remembers vectors, so that only new texts are computed: options of a cache of its own, a cache to share, or `false`.
   * Default `{}`: in memory. With `persistPath`, the next process finds them, too. Beside the defaults of
   * {@link CacheOptions}, a generator's own cache keeps up to 100,000 entries (within `maxMemoryMB`) and keeps them for
   * ever: the vector of a text never changes for the same model, and another model has keys of its own.
   */
  cache?: CacheOptions | IntelligentEmbeddingCache | false | undefined;
  /**
   * Who is told of every stage of every call, as `embedcore.prepare`, `.lookup`, `.tokenize`, `.plan`, `.wait`, `.infer`,
   * `.commit`, and of whole calls as `embedcore.call`; of texts that the cache knew as the type `embedding`; and of calls that
   * failed. Default: the global one ({@link getGlobalMonitor}). `false`: nobody but `getPerformanceMetrics`.
   */
  monitor?: PerformanceMonitor | false | undefined;
  /** `false` is `cache: false`; another spelling, as is `cacheConfig`. */
  enableCaching?: boolean | undefined;
  /** Another spelling of `cache`. */
  cacheConfig?: CacheOptions | undefined;
  /**
   * How many texts run together. By default it is learned, for texts of each length, from how long batches take: see
   * {@link DynamicBatchOptimizer} for the options, where `maxBatchSize` is 1024 here. An optimizer of yours decides for all
   * lengths, learns from every batch, and no batch has more than 512 tokens. `false`: always 512 tokens.
   */
  batchOptimizer?: BatchOptimizerOptions | DynamicBatchOptimizer | false | undefined;
  /** `false` is `batchOptimizer: false`; another spelling, as is `batchConfig`. */
  enableBatchOptimization?: boolean | undefined;
  /** Another spelling of `batchOptimizer`. */
  batchConfig?: BatchOptimizerOptions | undefined;
  /**
   * How much is done at once by how full memory is: the strategies of {@link MemoryAwareProcessor}, by the share that is
   * in use of what the ceiling leaves beyond the loaded model. `maxBatchSize` limits batches, and with the approach
   * `streaming` one runs at a time. A processor of yours lends its options. `false`: no strategies; the ceiling holds all
   * the same.
   */
  memoryProcessor?: MemoryProcessorOptions | MemoryAwareProcessor | false | undefined;
  /** `false` is `memoryProcessor: false`; another spelling, as is `memoryConfig`. */
  enableMemoryAwareProcessing?: boolean | undefined;
  /** Another spelling of `memoryProcessor`. */
  memoryConfig?: MemoryProcessorOptions | undefined;
  /**
   * The ceiling: most physical memory, in MB, that this whole process may hold while texts are embedded. Batches shrink,
   * caches and allocators give back, and work waits before it is crossed; a text that cannot fit even alone fails with
   * `MEMORY_LIMIT_EXCEEDED`. What you keep of the results counts, too: take them from {@link OptimizedEmbeddingGenerator.stream}.
   * Default: what the process holds and the container (cgroup) or the host has left.
   */
  memoryLimit?: number | undefined;
  /**
   * The directory in which is kept what was learned about batches, for each model content, machine and number of threads;
   * the next process starts from it. Written now and then and by `cleanup`, whole; what is damaged, of another version or of
   * another machine is ignored. Default: beside the file of the cache (`persistPath`), nowhere without one. `false`: nowhere.
   */
  stateDir?: string | false | undefined;
  /**
   * Threads inside one run of the model, no more than there are cores. Default 1: as many runs go on at once as there are cores (from four on, one is
   * left to the event loop), which is faster than one run on all of them on the machines measured. `'auto'`: loading
   * measures which of the two is faster here; it takes the time and memory to load the model twice.
   */
  intraOpThreads?: number | 'auto' | undefined;
  /**
   * What computes, best first; what one cannot do is left to the next, and at last to the CPU. Default `['cpu']`. Others
   * need an ONNX Runtime that was built for them (`ORT_DYLIB_PATH`), and run one batch at a time. Their vectors are close
   * to those of the CPU but not the same, so they have a fingerprint of their own.
   */
  executionProviders?: ExecutionProvider[] | undefined;
  /**
   * Told what happens, the generator's own cache included: `console`, for example. Default: nobody; nothing is printed.
   */
  logger?: Logger | undefined;
}

/** The options, and what reads those that are no plain value. */
export const GENERATOR: Names<GeneratorOptions> = {
  modelPath: plainPath,
  revision: true,
  cacheDir: pathNow,
  stateDir: pathNow,
  localFilesOnly: true,
  dtype: true,
  pooling: true,
  normalize: true,
  dimensions: true,
  maxLength: true,
  prompts: optionReader<NonNullable<GeneratorOptions['prompts']>>({ document: true, query: true }),
  promptName: true,
  cache: instanceOr(IntelligentEmbeddingCache, readCache),
  monitor: true,
  enableCaching: true,
  cacheConfig: readCache,
  batchOptimizer: instanceOr(DynamicBatchOptimizer, readBatchOptimizer),
  enableBatchOptimization: true,
  batchConfig: readBatchOptimizer,
  memoryProcessor: instanceOr(MemoryAwareProcessor, readMemoryProcessor),
  enableMemoryAwareProcessing: true,
  memoryConfig: readMemoryProcessor,
  memoryLimit: true,
  intraOpThreads: true,
  executionProviders: true,
  logger: true,
};

const readGenerator = optionReader(GENERATOR);

/** How much of a file of a model has been fetched. */
export interface FetchProgress {
  /** Its name in the model. */
  file: string;
  /** Bytes that are here, those of an earlier attempt included. */
  loaded: number;
  /** Bytes that it has. */
  total: number;
  /** Percentage, 0 to 100, of all files of this load together. Never goes back, ends with 100. */
  progressTotal: number;
}

/** Options of {@link OptimizedEmbeddingGenerator.initialize}. */
export interface InitializeOptions {
  /** Stops it; it rejects with `ABORTED`. What has been fetched is kept, the next attempt goes on there. */
  signal?: AbortSignal | undefined;
  /** Told of files that are fetched from the hub, some times a second. */
  progressCallback?: ((progress: FetchProgress) => void) | undefined;
}

const readInitialize = optionReader<InitializeOptions>({ signal: true, progressCallback: true });

/** Options of one call. */
export interface CallOptions {
  /** Stops the call, a running inference included; it rejects with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /** Gives up after so many milliseconds; the call rejects with `TIMED_OUT`. Default: never. */
  timeoutMs?: number | undefined;
  /** Told how many inputs are answered, of how many. Never goes back, ends with all of them. */
  progressCallback?: ((processed: number, total: number) => void) | undefined;
  /**
   * What an input that cannot be embedded does. `'throw'` (default): the call rejects. `'skip'`: all others are
   * answered, and that one carries the error.
   */
  onError?: 'throw' | 'skip' | undefined;
  /** Neither ask the cache nor tell it. Default `false`. */
  bypassCache?: boolean | undefined;
  /** The role of the inputs, for models that embed the two differently. Default `'document'`. */
  inputType?: 'document' | 'query' | undefined;
  /** Most inputs in one run of the model. By default, and above it, the planner decides. */
  batchSize?: number | undefined;
  /** Most runs at a time. Default: as many as there are cores. */
  maxConcurrency?: number | undefined;
  /**
   * Most working memory, in MB, that the batches of this call have together. A text that needs more alone fails with
   * `MEMORY_LIMIT_EXCEEDED`. Default: what the generator's own limit leaves.
   */
  memoryLimit?: number | undefined;
}

/** Options of {@link OptimizedEmbeddingGenerator.stream}. */
export interface StreamCallOptions extends StreamOptions, Omit<CallOptions, 'progressCallback' | 'memoryLimit'> {}

/** Options of {@link OptimizedEmbeddingGenerator.batchProcess}: those of every call. */
export interface BatchProcessOptions extends CallOptions {}

const CALL: Names<CallOptions> = {
  signal: true,
  timeoutMs: true,
  progressCallback: true,
  onError: true,
  bypassCache: true,
  inputType: true,
  batchSize: true,
  maxConcurrency: true,
  memoryLimit: true,
};

const readCall = optionReader(CALL);

const { progressCallback: _, memoryLimit: __, ...STREAM } = CALL;

const readStream = optionReader<StreamCallOptions>({ ...STREAM, order: true });

/** What a loaded model is. */
export interface ModelInfo {
  /** The model as it was named. */
  modelId: string;
  /** Its ONNX file. */
  modelPath: string;
  /**
   * The repository of the hub that its files come from, else `null`. Another one than the id says where that one has no
   * ONNX files and a conversion of it is known.
   */
  repository: string | null;
  /** The commit of that repository, else `null`. */
  revision: string | null;
  /** Length of its vectors. */
  dimensions: number;
  /** Most tokens of a text that it sees, special tokens included. */
  maxLength: number;
  /** How token vectors become one; `null` where the graph does it. */
  pooling: Pooling | null;
  /** Whether vectors have length 1. */
  normalize: boolean;
  /** The output of the graph that is read. */
  output: string;
  /** Type of the weights, where the file's name tells it, as `model_quantized.onnx` does; else of that output. */
  dtype: Dtype;
  /**
   * Whether a text's vector is independent of the batch that it runs in. It is not in graphs that quantise activations
   * on the fly, so their texts are run one by one.
   */
  batchInvariant: boolean;
  /** Threads inside one run. */
  intraOpThreads: number;
  /** What computes, best first. */
  executionProviders: ExecutionProvider[];
  /** How the ONNX Runtime in use describes itself. */
  runtime: string;
  /** Identifies the embedding space: vectors may be compared only if theirs are equal. Hexadecimal. */
  fingerprint: string;
}

/** Tokens assumed for {@link prepareText} as long as no model says otherwise. */
const DEFAULT_MAX_TOKENS = 512;

/**
 * Embeds texts and code annotations with one model. All methods may be called at once, from anywhere in the process;
 * work runs on native threads and never blocks the event loop.
 */
export class OptimizedEmbeddingGenerator implements EmbeddingGenerator, AsyncDisposable {
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
   * `BACKEND_UNAVAILABLE` or `RATE_LIMITED` where it could not be fetched now. The generator stays usable.
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
      log?.info(`Loaded the model ${modelId} in ${ms(performance.now() - started)}: ${dimensions} dimensions, up to ${maxLength} tokens`, details);
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
    return prepareText(annotation, this.isReady() ? this.getModelInfo().maxLength : undefined);
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
  /** The same for texts: a vector for each. */
  stream(texts: Iterable<string> | AsyncIterable<string>, options?: StreamCallOptions): AsyncGenerator<Float32Array, void, undefined>;
  stream(
    inputs: Iterable<Annotation | string> | AsyncIterable<Annotation | string>,
    options: StreamCallOptions = {},
  ): AsyncGenerator<EmbeddingResult | Float32Array, void, undefined> {
    const { order = 'input', ...rest } = readStream(options);
    if (order !== 'input' && order !== 'completion') throw refused('order', `${show(order)} is not 'input' or 'completion'`);
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
    return new Stream<Taken, EmbeddingResult | Float32Array>({
      inputs: array ? Array.from(inputs as unknown[], taking) : inputs,
      take: array ? (input) => input as Taken : taking,
      order,
      watch,
      run: (items, from, signal) => {
        const own = { watch: { signal }, plain: { ...plain, onError: 'skip' }, session, from };
        const kind = annotated ?? false;
        return this.#run(own, items, kind, async (answer, matrix, taken, check) => {
          const given = kind ? await results(answer, matrix, taken, check) : vectors(matrix);
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
    finish: (answer: NativeAnswer, matrix: Matrix, inputs: Inputs, check: () => void) => T | Promise<T>,
  ): Promise<T> {
    const log = this.#log;
    const started = performance.now();
    try {
      const inputs = session ? collect(given as readonly Taken[], annotated) : takeAll(given, annotated, plain.onError === 'skip');
      const running = call(() => (session ?? this.#native).call());
      return await watched(watch, () => running.cancel(), async (report, check) => {
        // Reports that never go back: native ones and the end of the call arrive on different paths.
        let last = 0;
        const progress = report && ((processed: number) => {
          if (processed > last) report((last = processed), inputs.count);
        });
        await feed(running, inputs, check);
        const answer = await running.run(annotated, from, plain, progress);
        check();
        const matrix = await Matrix.of(answer, inputs.refused, check);
        if (log) tellAnswer(log, matrix, performance.now() - started);
        const finished = await finish(answer, matrix, inputs, check);
        answer.release();
        progress?.(inputs.count);
        return finished;
      });
    } catch (thrown) {
      const error = toEmbeddingError(thrown);
      tellFailure(log, `A call for ${given.length} inputs failed`, error);
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

/** How a call is made. */
interface Call {
  watch: Watch<[processed: number, total: number]>;
  /** What crosses to the native side. */
  plain: Record<string, unknown>;
  /** Where it is a part of something longer: what its calls are made on, and where in that it begins. */
  session?: NativeSession;
  from?: number;
}

function toCall({ signal, timeoutMs, progressCallback, ...others }: CallOptions): Call {
  return { watch: checkWatch({ signal, timeoutMs, progressCallback }), plain: crossing(others) };
}

function collect(given: readonly Taken[], annotated: boolean): Inputs {
  const inputs = new Inputs(annotated);
  for (const each of given) inputs.add(each);
  return inputs;
}

/** What became of each annotation. */
function results(answer: NativeAnswer, matrix: Matrix, { strings }: Inputs, check: () => void): Promise<EmbeddingResult[]> {
  const times = answer.processingTimes();
  const confidences = answer.confidences();
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
        confidence: confidences[index]!,
        fromCache: matrix.fromCache[index] === 1,
        truncated: matrix.truncated[index] === 1,
        tokenCount: matrix.tokenCounts[index]!,
        ...(error && { error }),
      };
    },
    check,
  );
}

/** A vector of its own for each text; an empty one for each that has none. */
function vectors(matrix: Matrix): Float32Array[] {
  return Array.from({ length: matrix.rows }, (_, index) => (matrix.errors.has(index) ? new Float32Array() : matrix.row(index).slice()));
}

function closed(): EmbeddingError {
  return new EmbeddingError('CLOSED', 'The generator was closed: await initialize() to use it again');
}

/** What stands behind the options of a generator: those that cross, and instances in place of some of them. */
export function nativeSettings({
  batchOptimizer,
  enableBatchOptimization,
  batchConfig,
  memoryProcessor,
  enableMemoryAwareProcessing,
  memoryConfig,
  monitor,
  ...others
}: GeneratorOptions): {
  plain: Record<string, unknown>;
  optimizer: NativeBatchOptimizer | undefined;
  processor: NativeMemoryProcessor | undefined;
  monitor: NativeMonitor | undefined;
  /** An option of these as the caller has spelled it. */
  named: (option: string) => string;
} {
  const { value: batching, name: batchName } = setting({ batchOptimizer }, { enableBatchOptimization }, { batchConfig });
  const { value: memory, name: memoryName } = setting({ memoryProcessor }, { enableMemoryAwareProcessing }, { memoryConfig });
  const plain = crossing(others);
  if (!(batching instanceof DynamicBatchOptimizer)) plain.batchOptimizer = batching && crossing(batching);
  if (!(memory instanceof MemoryAwareProcessor)) plain.memoryProcessor = memory && crossing(memory);
  return {
    plain,
    optimizer: batching instanceof DynamicBatchOptimizer ? nativeOptimizer(batching) : undefined,
    processor: memory instanceof MemoryAwareProcessor ? nativeProcessor(memory) : undefined,
    monitor: watcher(monitor),
    named: (option) => option.replace(/^batchOptimizer/, batchName).replace(/^memoryProcessor/, memoryName),
  };
}

/**
 * What the options ask for in one of two spellings, each given as an object with one property: `{ cache }`, or
 * `{ enableCaching }` and `{ cacheConfig }`. Options, an instance to use, or `false`; and how it was spelled.
 */
function setting<Value extends object>(
  one: Record<string, Value | boolean | undefined>,
  enable: Record<string, boolean | undefined>,
  config: Record<string, Value | undefined>,
): { name: string; value: Value | false } {
  const [[name, value], [enableName, enabled], [configName, options]] = [one, enable, config].map(
    (spelling) => Object.entries(spelling)[0]!,
  ) as [[string, Value | boolean | undefined], [string, unknown], [string, Value | undefined]];
  if (value !== undefined && (enabled !== undefined || options !== undefined)) {
    throw refused(name, `it says the same as \`${enableName}\` and \`${configName}\`: give only one of the two spellings`);
  }
  if (enabled !== undefined && typeof enabled !== 'boolean') throw refused(enableName, `${show(enabled)} is not true or false`);
  if (value !== undefined) return { name, value: value === true ? ({} as Value) : value };
  return { name: configName, value: enabled === false ? false : (options ?? ({} as Value)) };
}

/** The native side of the monitor that is told of stages. */
function watcher(monitor: unknown): NativeMonitor | undefined {
  if (monitor === false) return undefined;
  if (monitor === undefined) return native().NativeMonitor.global();
  const handle = typeof monitor === 'object' && monitor !== null ? monitorHandles.get(monitor) : undefined;
  if (handle) return handle;
  throw refused('monitor', `${show(monitor)} is neither a PerformanceMonitor nor false`);
}

/** A generator's own cache: the vector of a text never changes, so nothing expires unless somebody wants it to. */
function cacheSettings(
  settings: CacheOptions | IntelligentEmbeddingCache | false,
  logger: Logger | undefined,
): CacheOptions | IntelligentEmbeddingCache | false {
  if (settings === false || settings instanceof IntelligentEmbeddingCache) return settings;
  return { maxEntries: 100_000, ...(settings.ttlMs === undefined && { ttlSeconds: 0 }), ...(logger && { logger }), ...settings };
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

function tellAnswer(log: Log, { rows, fromCache, truncated, errors }: Matrix, duration: number): void {
  const count = (marks: Uint8Array) => marks.reduce((sum, mark) => sum + mark, 0);
  const details = { event: 'call', texts: rows, fromCache: count(fromCache), truncated: count(truncated), failed: errors.size, ms: duration };
  log.debug(`Embedded ${rows} texts in ${ms(duration)}, ${details.fromCache} from the cache, ${details.truncated} truncated`, details);
  for (const [index, error] of errors) {
    return log.warn(`${errors.size} of ${rows} texts were skipped; the first one is ${index}: ${error.message}`, { ...details, event: 'skipped', index, code: error.code });
  }
}

/**
 * The text that is embedded for an annotation: `Signature: … | Summary: … | Code: …`, comments stripped from the code,
 * white space folded, cut to 8 characters for each of `maxTokens` (default 512) and never inside a code point. Empty
 * parts are left out; an annotation without any gives `Node: <nodeId>`.
 */
export function prepareText(annotation: Annotation, maxTokens: number = DEFAULT_MAX_TOKENS): string {
  if (!Number.isInteger(maxTokens) || maxTokens < 1 || maxTokens > 2 ** 20) {
    throw invalid(`maxTokens is ${String(maxTokens)}, not a whole number from 1 to ${2 ** 20}`);
  }
  const [nodeId, signature, summary, code] = annotationFields(annotation, 'The annotation') as [string, string, string, string];
  return call(() => native().prepareText(nodeId, signature, summary, code, maxTokens));
}
