import { DynamicBatchOptimizer, nativeOptimizer, readBatchOptimizer, type BatchOptimizerOptions } from '../batch/optimizer';
import { IntelligentEmbeddingCache } from '../cache/embedding-cache';
import type { Modality } from '../cache/content';
import { readCache, type CacheOptions } from '../cache/options';
import { show } from '../call/input';
import type { Logger } from '../call/logger';
import { crossing, instanceOr, listOf, optionReader, record, refused, type Names } from '../call/options';
import { pathNow, plainPath } from '../call/paths';
import type { MemoryProcessorOptions } from '../memory/options';
import { MemoryAwareProcessor, nativeProcessor, readMemoryProcessor } from '../memory/processor';
import { readRemote, type RemoteInfo, type RemoteOptions } from '../models/remote';
import type { Dtype, FetchProgress } from '../models/store';
import type { PerformanceMonitor } from '../monitor/monitor';
import { monitorHandles, native } from '../native/addon';
import type { NativeBatchOptimizer, NativeMemoryProcessor, NativeMonitor } from '../native/types';
import type { StreamOptions } from './stream';

/**
 * How the vectors of a text's tokens become one: their mean, the first one's, the last one's, their maximum value by value, their sum
 * divided by the square root of their number, or their mean in which the first counts once, the second twice, and so on.
 */
export type Pooling = 'mean' | 'cls' | 'last_token' | 'max' | 'mean_sqrt_len' | 'weightedmean';

/**
 * How a model makes a vector of what it reads. `'encoder'`: every part of it is seen in the light of all others; `'decoder'`: from its
 * beginning to its end, each part in the light of those before it; `'static'`: each token has a vector, whatever stands beside it.
 */
export type Architecture = 'encoder' | 'decoder' | 'static';

/** What computes a model, where the ONNX Runtime in use was built for it, or can load it. */
export type ExecutionProvider = 'cpu' | 'cuda' | 'coreml' | 'directml' | 'webgpu' | 'tensorrt-rtx' | ExecutionProviderPlugin;

/** A library of ONNX Runtime's plugin interface. It runs in this process: load none that you do not trust. */
export interface ExecutionProviderPlugin {
  /** Its path. */
  library: string;
  /** Which of its providers, where it brings several. Default: all of its devices are counted. */
  name?: string | undefined;
  /** Which of its devices, counted from 0; the first one where this is left out. */
  device?: number | undefined;
  /** What it is told, in its own words. */
  options?: Record<string, string> | undefined;
}

/** What computes a model that is loaded, or a part of it. */
export interface ProviderInfo {
  /** As {@link GeneratorOptions.executionProviders} spells it; of a plugin, its `name`, or that of its file. */
  name: string;
  /** The processor, or what else is known of the device. */
  device: string | null;
  /** The library that it is in; `null` where a table is looked up. */
  library: string | null;
  version: string | null;
  /** Why it is used, in words. */
  reason: string;
  /** The share of the graph's nodes that it computes, 0 to 1; `null` where the runtime does not tell. */
  nodes: number | null;
}

/** A library that computes models: ONNX Runtime, which comes with the package, or OpenVINO, which has a package of its own. */
export type Engine = 'onnxruntime' | 'openvino';

/**
 * How exactly a model is computed: as its graph says, which is in 32 bits for most; or with products of 16 bits and sums of
 * 32, which is about twice as fast where the processor has AVX512-BF16 or AMX. The weights stay as they are.
 */
export type Precision = 'fp32' | 'bf16';

/** Options of {@link OptimizedEmbeddingGenerator}. What is left out is read from the model's own files. */
export interface GeneratorOptions {
  /**
   * `'builtin'` (default): the small model for code search that comes with the package. Or a model directory in Hugging
   * Face layout, or an `.onnx` file in one. Or, where there is no such path, the id of a model on the hub, such as
   * `'sentence-transformers/all-MiniLM-L6-v2'`, `'owner/name@revision'`: what is needed of it is fetched once, verified, and
   * kept where other tools of the hub keep it, too. A relative path is in the working directory of the moment when it is
   * given; `~/` is the home directory, and a file URL its path. Or a model on a server: `'ollama:nomic-embed-text'`,
   * `'openai:text-embedding-3-small'`, `'tei:http://localhost:8080'` ({@link RemoteOptions}). May be given to `initialize`
   * instead.
   */
  modelPath?: string | URL | undefined;
  /**
   * The server on which the model runs, or what else is to be said about the one in `modelPath`. All the rest is as with
   * models that run here: cache, single flight, streams, limits, metrics.
   */
  remote?: RemoteOptions | undefined;
  /** The same as `remote.fingerprint`. Only of models on servers: others have their files. */
  fingerprint?: string | undefined;
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
  /**
   * How token vectors become one vector; a list: in each of these ways, joined in this order. Default: what `modules.json` or
   * `1_Pooling/config.json` says. Tables of vectors have no other than their mean.
   */
  pooling?: Pooling | Pooling[] | undefined;
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
   * to those of the CPU but not the same, so they have a fingerprint of their own. `'auto'`: of those that the ONNX Runtime in use
   * offers, what a short trial of this model finds fastest, and at least 1.1 times as fast as the CPU, if its vectors of built-in
   * texts agree with the CPU's to a cosine of at least 0.9999; else the CPU. {@link ModelInfo.providers} tells which, and why.
   */
  executionProviders?: 'auto' | ExecutionProvider[] | undefined;
  /**
   * Most memory of a device, in MB, that ONNX Runtime takes for this generator: with `'cuda'` all but what the driver takes itself, with
   * `'tensorrt-rtx'` the workspace. Others know no limit and are refused with it, or left out by `'auto'`. Default: none. The CPU's is `memoryLimit`.
   */
  deviceMemoryLimit?: number | undefined;
  /**
   * What computes the model. `'auto'` (default): OpenVINO where its package is installed (`embedcore-openvino-linux-x64`,
   * say), if a short trial of this model on this machine finds it at least 1.1 times as fast as ONNX Runtime, and its vectors
   * of built-in texts agree with ONNX Runtime's to a cosine of at least 0.9999 (scores of pairs: to 0.01, from 0 to 1, and of
   * how far they lie apart); else ONNX Runtime. The outcome is remembered
   * in `stateDir`. `'openvino'` fails with `MODEL_INIT_FAILED` where it is not installed or cannot compute the graph.
   * {@link ModelInfo.engineReason} tells why it is as it is. Models on servers and the built-in one have nothing to choose.
   */
  engine?: 'auto' | Engine | undefined;
  /**
   * How exactly the model is computed. `'auto'` (default): in bf16 where the processor has it and the trial that `engine`
   * describes is in its favour; with `engine: 'openvino'`, against OpenVINO in fp32. `'bf16'` is refused with
   * `INVALID_CONFIG` with `engine: 'onnxruntime'`, and with `engine: 'openvino'` on a processor without it; with
   * `engine: 'auto'` it only says that OpenVINO is not tried in fp32.
   */
  precision?: 'auto' | Precision | undefined;
  /**
   * Whether vectors of all engines and precisions may be one embedding space, with one fingerprint and one set of entries in
   * a cache. Default `false`: those of another engine or precision than ONNX Runtime in fp32 have a fingerprint of their own.
   */
  mixPrecision?: boolean | undefined;
  /**
   * Told what happens, the generator's own cache included: `console`, for example. Default: nobody; nothing is printed.
   */
  logger?: Logger | undefined;
}

/** The options, and what reads those that are no plain value. */
const readPlugin = optionReader<ExecutionProviderPlugin>({ library: pathNow, name: true, device: true, options: record });

export const GENERATOR: Names<GeneratorOptions> = {
  modelPath: plainPath,
  remote: readRemote,
  fingerprint: true,
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
  executionProviders: listOf((each, path) => (typeof each === 'object' && each !== null ? readPlugin(each, path) : each)),
  deviceMemoryLimit: true,
  engine: true,
  precision: true,
  mixPrecision: true,
  logger: true,
};

export const readGenerator = optionReader(GENERATOR);

/** Options of {@link OptimizedEmbeddingGenerator.initialize}. */
export interface InitializeOptions {
  /** Stops it; it rejects with `ABORTED`. What has been fetched is kept, the next attempt goes on there. */
  signal?: AbortSignal | undefined;
  /** Told of files that are fetched from the hub, some times a second. */
  progressCallback?: ((progress: FetchProgress) => void) | undefined;
}

export const readInitialize = optionReader<InitializeOptions>({ signal: true, progressCallback: true });

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

/** Options of {@link OptimizedEmbeddingGenerator.embedImages}. */
export interface ImageCallOptions extends Omit<CallOptions, 'inputType'> {
  /**
   * Most pixels of an image, 1–1073741824; one that has more is refused by its header, before it is decoded. Default
   * 100000000, which take 300 MB.
   */
  maxPixels?: number | undefined;
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

export const readCall = optionReader(CALL);

const { inputType: ___, ...OF_IMAGES } = CALL;

export const readImageCall = optionReader<ImageCallOptions>({ ...OF_IMAGES, maxPixels: true });

const { progressCallback: _, memoryLimit: __, ...STREAM } = CALL;

export const readStream = optionReader<StreamCallOptions>({ ...STREAM, order: true, details: true });

/** What a loaded model is. */
export interface ModelInfo {
  /** The model as it was named. */
  modelId: string;
  /** What it reads: `'image'` ones are called by {@link OptimizedEmbeddingGenerator.embedImages}. */
  modality: Modality;
  /** What it is for, and so the class that takes it. */
  task: 'embedding' | 'reranking' | 'sparse' | 'multi-vector';
  /** What the scores of a pair are called, one for each of `dimensions`; empty where it gives none. */
  labels: string[];
  /** Whether its scores are meant to be numbers from 0 to 1, by the logistic function. */
  sigmoid: boolean;
  /** How it reads; of transformers, by what their configuration says. `null` on a server. */
  architecture: Architecture | null;
  /** Its ONNX file, the file of its table (`model.safetensors`), or the address that is asked for vectors. */
  modelPath: string;
  /**
   * The repository of the hub that its files come from, else `null`. Another one than the id says where that one has no
   * ONNX files and a conversion of it is known.
   */
  repository: string | null;
  /** The commit of that repository, else `null`. */
  revision: string | null;
  /** Length of its vectors; scores of a pair, where it gives those. */
  dimensions: number;
  /**
   * Most tokens of a text that it sees, special tokens included; 0 where a server does not say, and where it reads images; 1048576, as
   * many as a text can have, where it sees all of them.
   */
  maxLength: number;
  /**
   * What says so: `'maxLength'`, the option; `'sentence_bert_config.json'`, `'tokenizer_config.json'`, `'tokenizer.json'` or `'config.json'`,
   * a file of the model, the last one by its number of positions where it does not say more; or `'server'`. `null` where nobody does.
   */
  maxLengthFrom: string | null;
  /** How token vectors become one, a list where several ways are joined; `null` where the graph does it, or a server. */
  pooling: Pooling | Pooling[] | null;
  /** Whether vectors have length 1; of a server's, whether the first one had. */
  normalize: boolean;
  /** The output of the graph that is read; `null` where there is no graph, and on a server. */
  output: string | null;
  /** Type of the weights, where the file's name tells it, as `model_quantized.onnx` does; else of that output; of a table, that of its numbers. `null` on a server. */
  dtype: Dtype | 'bf16' | null;
  /**
   * Whether a text's vector is independent of the batch that it runs in. It is not in graphs that quantise activations
   * on the fly, so their texts are run one by one.
   */
  batchInvariant: boolean;
  /** Threads inside one run; 0 on a server. */
  intraOpThreads: number;
  /** The names of {@link ModelInfo.providers}. */
  executionProviders: string[];
  /** What computes, best first, and the CPU where it computes a part; empty on a server. */
  providers: ProviderInfo[];
  /**
   * How the engine in use describes itself; this package, where it looks up a table; the kind of the server, and its version where it
   * says so.
   */
  runtime: string;
  /** What computes it; `null` on a server, and for a table. */
  engine: Engine | null;
  /** How exactly; `null` where `engine` is. */
  precision: Precision | null;
  /** Why it is computed by this engine and in this precision, in words; `null` where `engine` is. */
  engineReason: string | null;
  /** The server that it runs on, else `null`. */
  remote: RemoteInfo | null;
  /** Identifies the embedding space: vectors may be compared only if theirs are equal. Hexadecimal. */
  fingerprint: string;
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
export function setting<Value extends object>(
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
export function cacheSettings(
  settings: CacheOptions | IntelligentEmbeddingCache | false,
  logger: Logger | undefined,
): CacheOptions | IntelligentEmbeddingCache | false {
  if (settings === false || settings instanceof IntelligentEmbeddingCache) return settings;
  return { maxEntries: 100_000, ...(settings.ttlMs === undefined && { ttlSeconds: 0 }), ...(logger && { logger }), ...settings };
}
