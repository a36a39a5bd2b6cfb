import { EmbeddingError, messageOf } from '../call/errors';
import { readRegular } from '../call/files';
import { show } from '../call/input';
import { nearest } from '../call/options';
import { pathNow } from '../call/paths';
import type { HttpClientOptions } from '../http/client';
import type { BatchOptimizerOptions, CacheOptions, GeneratorOptions, InferenceCacheOptions, MemoryProcessorOptions, RemoteOptions, SharedOptions } from '../index';
import { JsonFault, parseJsonc } from './jsonc';
import type { OllamaClientOptions } from './ollama';
import { checkSettings, type OllamaSettings } from './ollama-options';

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

const LARGEST = 2 ** 50;
const LONGEST_MS = 2 ** 31 - 1;
const LONGEST_SECONDS = 9e12;
const MOST = 2 ** 40;
const MOST_ITEMS = 2 ** 20;
const MOST_AT_A_TIME = 100_000;

/** A number that its constructor takes, too. */
function number(from: number, to: number, whole = false): Kind {
  return (value, path) => {
    if (typeof value !== 'number') throw wrong(path, `${show(value)} is not a number`);
    if (value >= from && value <= to && (!whole || Number.isInteger(value))) return value;
    throw wrong(path, `${value} is not a ${whole ? 'whole ' : ''}number from ${from} to ${to}`);
  };
}

const whole = (from: number, to: number): Kind => number(from, to, true);
const milliseconds = whole(1, LONGEST_MS);
const seconds = number(0, LONGEST_SECONDS);
const percent = number(0, 100);
const fraction = number(0, 1);
const items = whole(1, MOST_ITEMS);
const atATime = whole(1, MOST_AT_A_TIME);
const megabytes = number(0.001, LARGEST);
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

/** Names beside the settings of a section: which there are, and the settings that one stands for, if it is one. */
interface Others {
  names: readonly string[];
  read(name: string, value: unknown, path: string): Record<string, unknown> | undefined;
}

/** An object of settings, in either spelling. */
function section(kinds: Record<string, Kind>, others?: Others): Kind {
  const known = new Map(Object.keys(kinds).map((name) => [bare(name), name]));
  return (value, path) => {
    const settings: Record<string, unknown> = {};
    const spelt = new Map<string, string>();
    const add = (own: string, read: unknown, name: string, at: string) => {
      const before = settings[own];
      // What stands for a part of a table, beside the rest of it.
      const joins = typeof before === 'object' && typeof read === 'object' && Object.keys(read as object).every((part) => !Object.hasOwn(before as object, part));
      const twice = spelt.get(own);
      if (twice !== undefined && !(joins && bare(twice) !== bare(name))) throw wrong(at, `it is given as ${twice}, too: leave one of them out`);
      spelt.set(own, name);
      settings[own] = joins ? { ...before, ...read } : read;
    };
    for (const [name, each] of entriesOf(value, path)) {
      const at = path === '' ? name : `${path}.${name}`;
      const own = known.get(bare(name));
      const other = own === undefined ? others?.read(name, each, at) : undefined;
      if (own !== undefined) add(own, kinds[own]!(each, at), name, at);
      else if (!other) throw wrong(at, unknownSetting(name, [...Object.keys(kinds), ...(others?.names ?? [])]));
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

/** A setting of how models generate: of its kind, and as the client wants it. */
function inference(name: keyof OllamaSettings, kind: Kind): Kind {
  return (value, path) => {
    const read = kind(value, path);
    try {
      checkSettings({ [name]: read }, () => path);
    } catch (refusal) {
      throw wrong(path, (refusal as EmbeddingError).message.replace(/^Invalid option `[^`]*`: /, ''));
    }
    return read;
  };
}

const anyNumber = number(-Number.MAX_VALUE, Number.MAX_VALUE);

const INFERENCE_KINDS: Kinds<OllamaSettings> = {
  model: string, temperature: anyNumber, maxTokens: anyNumber, numCtx: anyNumber, numThread: anyNumber, keepAlive: either('a duration such as \'30m\', or seconds', isString, isNumber),
  seed: anyNumber, topP: anyNumber, topK: anyNumber, stop: list(string), think: either('true, false or a level', isBoolean, isString), useCache: boolean, cacheType: string,
  ttlSeconds: anyNumber, timeoutMs: anyNumber,
};

const INFERENCE = Object.fromEntries(Object.entries(INFERENCE_KINDS).map(([name, kind]) => [name, inference(name as keyof OllamaSettings, kind)])) as Kinds<OllamaSettings>;

/** What may be a key is in no message. */
const secret: Kind = (value, path) => {
  if (isString(value)) return value;
  throw wrong(path, 'it is not a string');
};

const SHARED: Kinds<SharedOptions> = {
  url: secret, keyPrefix: string, ttlSeconds: seconds, connectTimeoutMs: milliseconds, commandTimeoutMs: milliseconds, cluster: boolean,
};

/** `ttl_<type>`: seconds that results of a type are answers. */
const TIME_TO_LIVE: Others = {
  names: [],
  read(name, value, path) {
    const [, underscored, humped] = /^ttl(?:_(.+)|([A-Z].*))$/.exec(name) ?? [];
    const type = underscored ?? (humped === undefined ? undefined : snake(humped).slice(1));
    return type === undefined ? undefined : { ttlSecondsByType: { [type]: seconds(value, path) } };
  },
};

const CACHING: Kinds<InferenceCacheOptions, 'monitor' | 'logger' | 'semantic'> = {
  maxEntries: whole(1, LARGEST), maxMemoryMB: megabytes, ttlSeconds: seconds, ttlSecondsByType: table(seconds), maxValueMB: number(0.001, 63), maintenanceInterval: milliseconds,
  persistPath: string, maxDiskMB: number(1, LARGEST), namespace: string, shared: section(SHARED), singleFlight: oneOf('process', 'cluster'),
};

const NETWORKING: Kinds<HttpClientOptions> = {
  maxConcurrentRequests: atATime, perHostLimit: atATime, connectTimeoutMs: milliseconds, readTimeoutMs: milliseconds, retryAttempts: whole(1, 100),
  retryBackoffMs: list(number(0, 24 * 3600 * 1000)), retryOn: list(whole(300, 599)), maxResponseMB: whole(1, 512), proxy: either('a URL or false', isString, isFalse),
  tls: table((value) => value),
};

const OLLAMA: Kinds<OllamaClientOptions, 'monitor'> = {
  baseUrl: string, model: string, useCache: boolean, cache: section(CACHING, TIME_TO_LIVE), http: section(NETWORKING), defaults: section(INFERENCE), headers: table(secret),
};

const WORKERS: Kinds<WorkerSettings> = {
  concurrency: atATime, chunkSize: atATime, onError: oneOf('throw', 'skip', 'collect'), timeoutMs: number(0.001, LONGEST_MS), processes: boolean, transfer: boolean, batchSize: atATime,
};

const CACHE: Kinds<CacheOptions, 'logger'> = {
  maxEntries: whole(1, LARGEST), maxMemoryMB: megabytes, maxSizeBytes: whole(1, LARGEST), ttlSeconds: seconds, ttlMs: number(0, 1000 * LONGEST_SECONDS), enableContentValidation: boolean,
  maintenanceInterval: milliseconds, hitRatioThreshold: fraction, persistPath: string, maxDiskMB: number(1, LARGEST), namespace: string, model: string,
  vectorPrecision: oneOf('f32', 'f16'), shared: section(SHARED), singleFlight: oneOf('process', 'cluster'),
};

const BATCH: Kinds<BatchOptimizerOptions> = {
  minBatchSize: items, maxBatchSize: items, targetCpuUsage: number(1, 100), targetMemoryUsage: number(1, 100), minSamples: items, historyRetention: items, aggressiveness: fraction,
};

const MEMORY: Kinds<MemoryProcessorOptions> = {
  strategies: list(section({
    name: string, maxBatchSize: items, approach: oneOf('sequential', 'parallel', 'streaming', 'chunked'), memoryOverhead: number(0, 1e6), cpuOverhead: number(0, 1e6), cleanupFrequency: items,
  })),
  memoryThresholds: section({ critical: percent, high: percent, normal: percent, low: percent }),
  monitoringInterval: milliseconds, cleanupThreshold: percent, gcThreshold: percent, enableGcHints: boolean, emergencyCleanupThreshold: percent, memoryBuffer: number(0, 0.99),
};

const partOrFalse = (kind: Kind): Kind => (value, path) => (value === false ? value : kind(value, path));

const REMOTE: Kinds<RemoteOptions> = {
  kind: oneOf('ollama', 'openai', 'tei'), url: secret, model: string, apiKey: secret, headers: table(secret), dimensions: items, maxBatchItems: items,
  maxBatchTokens: whole(1, MOST), concurrency: whole(1, 256), timeoutMs: milliseconds, retries: whole(0, 100), fingerprint: string,
};

const plugin = section({ library: string, name: string, device: whole(0, MOST_ITEMS), options: table(string) });

const providers: Kind = (value, path) => (value === 'auto' ? value : list((each, at) => (isString(each) ? each : plugin(each, at)))(value, path));

const MODEL: Kinds<GeneratorOptions, 'monitor' | 'logger'> = {
  modelPath: string, remote: section(REMOTE), fingerprint: string, revision: string, cacheDir: string, localFilesOnly: boolean, dtype: string,
  pooling: either('a name or a list of names', isString, isStrings), normalize: boolean, dimensions: items, maxLength: items,
  prompts: section({ document: string, query: string }), promptName: string, memoryLimit: whole(1, MOST), stateDir: either('a path or false', isString, isFalse),
  intraOpThreads: (value, path) => (value === 'auto' ? value : whole(1, 1024)(value, path)), executionProviders: providers, deviceMemoryLimit: whole(1, MOST),
  engine: string, precision: string, mixPrecision: boolean,
  cache: partOrFalse(section(CACHE)), cacheConfig: section(CACHE), enableCaching: boolean,
  batchOptimizer: partOrFalse(section(BATCH)), batchConfig: section(BATCH), enableBatchOptimization: boolean,
  memoryProcessor: partOrFalse(section(MEMORY)), memoryConfig: section(MEMORY), enableMemoryAwareProcessing: boolean,
};

const readFile = section({
  inference: section(INFERENCE),
  caching: section(CACHING, TIME_TO_LIVE),
  networking: section(NETWORKING),
  // How models generate may be said there, too.
  ollama: section(OLLAMA, {
    names: Object.keys(INFERENCE),
    read(name, value, path) {
      const own = Object.keys(INFERENCE).find((known) => bare(known) === bare(name)) as keyof OllamaSettings | undefined;
      return own && { defaults: { [own]: INFERENCE[own](value, path) } };
    },
  }),
  workers: section(WORKERS, { names: ['maxWorkers'], read: (name, value, path) => (bare(name) === 'maxworkers' ? { concurrency: atATime(value, path) } : undefined) }),
  cache: section(CACHE),
  batchOptimizer: section(BATCH),
  memoryProcessor: section(MEMORY),
  model: section(MODEL),
} satisfies Record<keyof PerformanceConfig, Kind>);

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
