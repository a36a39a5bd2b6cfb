import { EmbeddingError, messageOf } from '../call/errors';
import { readRegular } from '../call/files';
import { show } from '../call/input';
import { nearest } from '../call/options';
import { pathNow } from '../call/paths';
import type { HttpClientOptions } from '../http/client';
import type { BatchOptimizerOptions, CacheOptions, GeneratorOptions, InferenceCacheOptions, MemoryProcessorOptions, RemoteOptions, SharedOptions } from '../index';
import { JsonFault, parseJsonc } from './jsonc';
import type { OllamaClientOptions } from './ollama';
import type { OllamaSettings } from './ollama-options';

/** Settings of `ParallelProcessor` of `embedcore/parallel` that a file can hold. */
export interface WorkerSettings {
  /** Most items at a time; `max_workers` in a file, too. */
  concurrency?: number | undefined;
  /** Items that are taken at once. */
  chunkSize?: number | undefined;
  /** What an item that fails does. */
  onError?: 'throw' | 'skip' | 'collect' | undefined;
  /** Longest time of an item, in milliseconds. */
  timeoutMs?: number | undefined;
  /** Whether modules run in child processes. */
  processes?: boolean | undefined;
  /** Whether typed arrays are moved instead of copied. */
  transfer?: boolean | undefined;
  /** Items of a batch. */
  batchSize?: number | undefined;
}

/** What {@link loadPerformanceConfig} gives: each part goes into a constructor. Parts that the file leaves out are empty. */
export interface PerformanceConfig {
  /** How language models generate. Part of `ollama.defaults`, too. */
  inference: OllamaSettings;
  /** For `InferenceCache`. */
  caching: InferenceCacheOptions;
  /** For {@link HttpClient}. */
  networking: HttpClientOptions;
  /** For {@link OllamaClient}. */
  ollama: OllamaClientOptions;
  /** For `ParallelProcessor` of `embedcore/parallel`. */
  workers: WorkerSettings;
  /** For `IntelligentEmbeddingCache`. */
  cache: CacheOptions;
  /** For `DynamicBatchOptimizer`. */
  batchOptimizer: BatchOptimizerOptions;
  /** For `MemoryAwareProcessor`. */
  memoryProcessor: MemoryProcessorOptions;
  /** For `OptimizedEmbeddingGenerator`. */
  model: GeneratorOptions;
}

/** Reads a value of one kind; `path` names it in messages. */
type Kind = (value: unknown, path: string) => unknown;

/** The kinds of all settings of an interface that a file can hold: held to it by the compiler. `never`: what none can. */
type Kinds<Options, Never extends keyof Options = never> = { readonly [Name in Exclude<keyof Options, Never>]-?: Kind };

function plain(what: string, is: (value: unknown) => boolean): Kind {
  return (value, path) => {
    if (is(value)) return value;
    throw wrong(path, `${show(value)} is not ${what}`);
  };
}

const number = plain('a number', (value) => typeof value === 'number');
const boolean = plain('true or false', (value) => typeof value === 'boolean');
const string = plain('a string', (value) => typeof value === 'string');
const oneOf = (...values: unknown[]): Kind => plain(`one of ${values.map(show).join(', ')}`, (value) => values.includes(value));
const either = (what: string, ...kinds: ((value: unknown) => boolean)[]): Kind => plain(what, (value) => kinds.some((is) => is(value)));
const isString = (value: unknown) => typeof value === 'string';
const isStrings = (value: unknown) => Array.isArray(value) && value.every(isString);
const isNumber = (value: unknown) => typeof value === 'number';
const isBoolean = (value: unknown) => typeof value === 'boolean';
const isFalse = (value: unknown) => value === false;

function list(kind: Kind): Kind {
  return (value, path) => {
    if (!Array.isArray(value)) throw wrong(path, `${show(value)} is not a list`);
    return value.map((each, at) => kind(each, `${path}[${at}]`));
  };
}

/** An object whose names are the user's own. */
function table(kind: Kind): Kind {
  return (value, path) => Object.fromEntries(entriesOf(value, path).map(([name, each]) => [name, kind(each, `${path}.${name}`)]));
}

/** Reads a name that is no setting of its section, if it can: as settings that it stands for. */
type Others = (name: string, value: unknown, path: string) => Record<string, unknown> | undefined;

/** An object of settings, in either spelling. */
function section(kinds: Record<string, Kind>, others?: Others): Kind {
  const known = new Map(Object.keys(kinds).map((name) => [bare(name), name]));
  return (value, path) => {
    const settings: Record<string, unknown> = {};
    const spelt = new Map<string, string>();
    const add = (own: string, read: unknown, name: string, at: string) => {
      const before = settings[own];
      const joins = typeof before === 'object' && typeof read === 'object';
      const twice = spelt.get(own);
      if (twice !== undefined && !(joins && bare(twice) !== bare(name))) throw wrong(at, `it is given as ${twice}, too: leave one of them out`);
      spelt.set(own, name);
      settings[own] = joins ? { ...before, ...read } : read;
    };
    for (const [name, each] of entriesOf(value, path)) {
      const at = path === '' ? name : `${path}.${name}`;
      const own = known.get(bare(name));
      const other = own === undefined ? others?.(name, each, at) : undefined;
      if (own !== undefined) add(own, kinds[own]!(each, at), name, at);
      else if (!other) throw wrong(at, unknownSetting(name, Object.keys(kinds)));
      else for (const [into, read] of Object.entries(other)) add(into, read, name, at);
    }
    return settings;
  };
}

/** A name without its spelling. */
function bare(name: string): string {
  return name.replaceAll('_', '').toLowerCase();
}

function snake(name: string): string {
  return name.replace(/[A-Z]+/g, (letters) => `_${letters.toLowerCase()}`);
}

function unknownSetting(name: string, known: readonly string[]): string {
  const near = nearest(name, name.includes('_') ? known.map(snake) : known);
  return `there is no such setting; ${near === undefined ? '' : `did you mean \`${near}\`? `}known are ${known.join(', ')}`;
}

/** What is in an object; names that begin with `_` are remarks. */
function entriesOf(value: unknown, path: string): [string, unknown][] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(path === '' ? 'the file' : path, `${show(value)} is not an object`);
  return Object.entries(value).filter(([name]) => !name.startsWith('_'));
}

/** A fault in a setting; the file is named where it is known. */
class WrongSetting extends Error {
  constructor(readonly setting: string, readonly reason: string) {
    super(reason);
  }
}

function wrong(setting: string, reason: string): WrongSetting {
  return new WrongSetting(setting, reason);
}

const INFERENCE: Kinds<OllamaSettings> = {
  model: string, temperature: number, maxTokens: number, numCtx: number, numThread: number, keepAlive: either('a duration such as \'30m\', or seconds', isString, isNumber),
  seed: number, topP: number, topK: number, stop: list(string), think: either('true, false or a level', isBoolean, isString), useCache: boolean, cacheType: string,
  ttlSeconds: number, timeoutMs: number,
};

/** What may be a key is in no message. */
const secret: Kind = (value, path) => {
  if (isString(value)) return value;
  throw wrong(path, 'it is not a string');
};

const SHARED: Kinds<SharedOptions> = {
  url: secret, keyPrefix: string, ttlSeconds: number, connectTimeoutMs: number, commandTimeoutMs: number, cluster: boolean,
};

const CACHING: Kinds<InferenceCacheOptions, 'monitor' | 'logger' | 'semantic'> = {
  maxEntries: number, maxMemoryMB: number, ttlSeconds: number, ttlSecondsByType: table(number), maxValueMB: number, maintenanceInterval: number, persistPath: string,
  maxDiskMB: number, namespace: string, shared: section(SHARED), singleFlight: oneOf('process', 'cluster'),
};

const NETWORKING: Kinds<HttpClientOptions> = {
  maxConcurrentRequests: number, perHostLimit: number, connectTimeoutMs: number, readTimeoutMs: number, retryAttempts: number, retryBackoffMs: list(number), retryOn: list(number),
  maxResponseMB: number, proxy: either('a URL or false', isString, isFalse), tls: table((value) => value),
};

const OLLAMA: Kinds<OllamaClientOptions, 'monitor'> = {
  baseUrl: string, model: string, useCache: boolean, cache: section(CACHING, timeToLive), http: section(NETWORKING), defaults: section(INFERENCE), headers: table(string),
};

const WORKERS: Kinds<WorkerSettings> = {
  concurrency: number, chunkSize: number, onError: oneOf('throw', 'skip', 'collect'), timeoutMs: number, processes: boolean, transfer: boolean, batchSize: number,
};

const CACHE: Kinds<CacheOptions, 'logger'> = {
  maxEntries: number, maxMemoryMB: number, maxSizeBytes: number, ttlSeconds: number, ttlMs: number, enableContentValidation: boolean, maintenanceInterval: number,
  hitRatioThreshold: number, persistPath: string, maxDiskMB: number, namespace: string, model: string, vectorPrecision: oneOf('f32', 'f16'),
  shared: section(SHARED), singleFlight: oneOf('process', 'cluster'),
};

const BATCH: Kinds<BatchOptimizerOptions> = {
  minBatchSize: number, maxBatchSize: number, targetCpuUsage: number, targetMemoryUsage: number, minSamples: number, historyRetention: number, aggressiveness: number,
};

const MEMORY: Kinds<MemoryProcessorOptions> = {
  strategies: list(section({
    name: string, maxBatchSize: number, approach: oneOf('sequential', 'parallel', 'streaming', 'chunked'), memoryOverhead: number, cpuOverhead: number, cleanupFrequency: number,
  })),
  memoryThresholds: section({ critical: number, high: number, normal: number, low: number }),
  monitoringInterval: number, cleanupThreshold: number, gcThreshold: number, enableGcHints: boolean, emergencyCleanupThreshold: number, memoryBuffer: number,
};

const partOrFalse = (kind: Kind): Kind => (value, path) => (value === false ? value : kind(value, path));

const REMOTE: Kinds<RemoteOptions> = {
  kind: oneOf('ollama', 'openai', 'tei'), url: secret, model: string, apiKey: secret, headers: table(secret), dimensions: number, maxBatchItems: number,
  maxBatchTokens: number, concurrency: number, timeoutMs: number, retries: number, fingerprint: string,
};

const plugin = section({ library: string, name: string, device: number, options: table(string) });

const providers: Kind = (value, path) => (value === 'auto' ? value : list((each, at) => (isString(each) ? each : plugin(each, at)))(value, path));

const MODEL: Kinds<GeneratorOptions, 'monitor' | 'logger'> = {
  modelPath: string, remote: section(REMOTE), fingerprint: string, revision: string, cacheDir: string, localFilesOnly: boolean, dtype: string,
  pooling: either('a name or a list of names', isString, isStrings), normalize: boolean, dimensions: number, maxLength: number,
  prompts: section({ document: string, query: string }), promptName: string, memoryLimit: number, stateDir: either('a path or false', isString, isFalse),
  intraOpThreads: either('a number or \'auto\'', isNumber, (value) => value === 'auto'), executionProviders: providers, deviceMemoryLimit: number,
  engine: string, precision: string, mixPrecision: boolean,
  cache: partOrFalse(section(CACHE)), cacheConfig: section(CACHE), enableCaching: boolean,
  batchOptimizer: partOrFalse(section(BATCH)), batchConfig: section(BATCH), enableBatchOptimization: boolean,
  memoryProcessor: partOrFalse(section(MEMORY)), memoryConfig: section(MEMORY), enableMemoryAwareProcessing: boolean,
};

const readFile = section({
  inference: section(INFERENCE),
  caching: section(CACHING, timeToLive),
  networking: section(NETWORKING),
  // How models generate may be said there, too.
  ollama: section(OLLAMA, (name, value, path) => {
    const own = Object.keys(INFERENCE).find((known) => bare(known) === bare(name)) as keyof OllamaSettings | undefined;
    return own && { defaults: { [own]: INFERENCE[own](value, path) } };
  }),
  workers: section(WORKERS, (name, value, path) => (bare(name) === 'maxworkers' ? { concurrency: number(value, path) } : undefined)),
  cache: section(CACHE),
  batchOptimizer: section(BATCH),
  memoryProcessor: section(MEMORY),
  model: section(MODEL),
} satisfies Record<keyof PerformanceConfig, Kind>);

/** `ttl_<type>`: seconds that results of a type are answers. */
function timeToLive(name: string, value: unknown, path: string): Record<string, unknown> | undefined {
  const [, underscored, humped] = /^ttl(?:_(.+)|([A-Z].*))$/.exec(name) ?? [];
  const type = underscored ?? (humped === undefined ? undefined : snake(humped).slice(1));
  return type === undefined ? undefined : { ttlSecondsByType: { [type]: number(value, path) } };
}

/** Larger than anybody writes. */
const MOST_BYTES = 16 * 1024 * 1024;

/**
 * Reads the settings of everything from one file: JSON, which may have comments, a comma after the last element, and names
 * in `snake_case` or `camelCase`; names that begin with `_` are remarks. `caching.ttl_<type>` is the time to live of a type
 * of results, in seconds. Paths in it are relative to the working directory.
 *
 * `path`: default the environment's `EMBEDCORE_CONFIG`; without either, all parts are empty.
 * @throws `EmbeddingError` `INVALID_CONFIG` naming the file and the setting, or the line that is no JSON.
 */
export function loadPerformanceConfig(path?: string | URL): PerformanceConfig {
  const file = pathNow(path === undefined ? process.env.EMBEDCORE_CONFIG || undefined : path, 'path');
  if (file !== undefined && (typeof file !== 'string' || file === '')) throw new EmbeddingError('INVALID_CONFIG', `The path of the configuration is ${show(file)}: pass that of a file`);
  const read = file === undefined ? {} : (settingsIn(file) as Partial<PerformanceConfig>);
  const { inference = {}, ollama = {} } = read;
  return {
    caching: {}, networking: {}, workers: {}, cache: {}, batchOptimizer: {}, memoryProcessor: {}, model: {},
    ...read,
    inference,
    ollama: { ...ollama, defaults: { ...inference, ...ollama.defaults } },
  };
}

function settingsIn(file: string): unknown {
  const refuse = (reason: string, cause: unknown, details: Record<string, unknown> = {}) =>
    new EmbeddingError('INVALID_CONFIG', `Could not use the configuration ${file}: ${reason}`, { cause, details: { path: file, ...details } });
  let bytes: Buffer;
  try {
    bytes = readRegular(file, MOST_BYTES);
  } catch (cause) {
    throw refuse(messageOf(cause), cause);
  }
  try {
    return readFile(parseJsonc(textOf(bytes)), '');
  } catch (thrown) {
    if (thrown instanceof WrongSetting) throw refuse(`${thrown.setting}: ${thrown.reason}`, undefined, { option: thrown.setting });
    if (thrown instanceof JsonFault) throw refuse(thrown.message, thrown);
    throw thrown;
  }
}

/** UTF-8, or UTF-16 as its mark says. */
function textOf(bytes: Buffer): string {
  return bytes[0] === 0xff && bytes[1] === 0xfe ? bytes.toString('utf16le') : bytes.toString();
}
