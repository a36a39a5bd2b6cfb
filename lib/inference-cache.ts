import { channel } from 'node:diagnostics_channel';

import { textOf, type CacheEvent, type CacheMaintenance } from './cache-report';
import { maintain, takeLease } from './cache-upkeep';
import { EmbeddingError, toEmbeddingError } from './errors';
import {
  cachedOf,
  keep,
  keyParts,
  readEntry,
  readKey,
  readLookup,
  readSetting,
  readWrap,
  settingOf,
  tagsOf,
  typeOf,
  unkeep,
  type CachedInference,
  type InferenceAnswer,
  type InferenceCacheEvent,
  type InferenceCacheStats,
  type InferenceContent,
  type InferenceEntry,
  type InferenceKeyOptions,
  type InferenceLookup,
  type InferenceSetOptions,
  type InferenceWrapOptions,
  type KeyParts,
  type Kept,
  type Setting,
} from './inference-values';
import { invalid, requireArray, show } from './input';
import { logOf, type Log, type Logger } from './log';
import { call, native, settle, type NativePrompt, type NativeResults } from './native';
import { crossing, optionReader, read, record, refused, type Given } from './options';
import { PromptVectors, readSemantic, type SemanticOptions } from './prompt-vectors';

export type {
  CachedInference,
  InferenceAnswer,
  InferenceCacheEvent,
  InferenceCacheStats,
  InferenceContent,
  InferenceEntry,
  InferenceKeyOptions,
  InferenceLookup,
  InferenceSetOptions,
  InferenceTypeStats,
  InferenceWrapOptions,
  Modality,
} from './inference-values';
export type { SemanticEmbedder, SemanticOptions, SemanticVectors } from './prompt-vectors';

/** Options of {@link InferenceCache}. */
export interface InferenceCacheOptions {
  /** Most entries in memory. Default 10000. */
  maxEntries?: number;
  /** Most memory, bookkeeping included, in MB (1 MB = 1024 × 1024 bytes). Default 100. */
  maxMemoryMB?: number;
  /** How long a result of a type without a time of its own is an answer, in seconds; 0: for ever. Default 24 hours. */
  ttlSeconds?: number;
  /**
   * The same by type. Default 30 days for `text_inference`, `vision_inference`, `audio_inference` and `embedding`, 24 hours
   * for `api`.
   */
  ttlSecondsByType?: Record<string, number>;
  /** Largest value, in MB of its JSON or its own: up to 63. Default 16. */
  maxValueMB?: number;
  /** How often {@link InferenceCache.optimize} runs by itself, in milliseconds. Default 300000. */
  maintenanceInterval?: number;
  /** A SQLite file that keeps the results; any number of processes may share it, and caches of embeddings, too. */
  persistPath?: string;
  /** Most of that file, in MB; its log takes some 10 MB more. Default: no limit. */
  maxDiskMB?: number;
  /** Keeps different uses of one file apart. */
  namespace?: string;
  /** Finds results of prompts that mean the same. Default: only of the same content. */
  semantic?: SemanticOptions;
  /** Told of each hit and miss, by type: a `PerformanceMonitor`. */
  monitor?: { cacheHit(type: string): void; cacheMiss(type: string): void };
  /** Told what happens to the file, and of near hits. */
  logger?: Logger;
}

/** What {@link InferenceCache.invalidate} deletes. */
export interface InvalidateOptions {
  /** Results of this type. */
  type?: string | undefined;
  /** Results with this tag. */
  tag?: string | undefined;
  /** Results with at least one of these tags. */
  tags?: readonly string[] | undefined;
}

const readOptions = optionReader<InferenceCacheOptions>({
  maxEntries: true,
  maxMemoryMB: true,
  ttlSeconds: true,
  ttlSecondsByType: record,
  maxValueMB: true,
  maintenanceInterval: true,
  persistPath: true,
  maxDiskMB: true,
  namespace: true,
  semantic: readSemantic,
  monitor: true,
  logger: true,
});

const readInvalidate = optionReader<InvalidateOptions>({ type: true, tag: true, tags: true });

const events = channel('embedcore:results');

type StorageEvent = Exclude<CacheEvent, { type: 'hit-ratio-low' | 'rejected' }>;

interface Settings {
  maintenanceInterval: number;
  shared: boolean;
  longestPrompt: number;
}

/** What a call is about. */
interface Asked extends KeyParts {
  key: string;
}

/** What became of a computation, for all who wait. */
interface Landed {
  kept: Kept;
  fromCache: boolean;
  /** JSON, or nothing. */
  metadata?: string;
}

/**
 * Remembers what expensive calls have answered, in memory and, with `persistPath`, in a file that any number of processes
 * share: any JSON value, or bytes, under what it was made from.
 *
 * Memory holds the most recently used results, strictly, up to a number and to a size; the file holds all until they
 * expire or `maxDiskMB` is reached. Values are copied on their way in and out. Trouble with the file never fails a call:
 * it is counted, and published on the `diagnostics_channel` `embedcore:results` ({@link InferenceCacheEvent}).
 */
export class InferenceCache implements AsyncDisposable {
  readonly #native: NativeResults;
  readonly #settings: Settings;
  readonly #monitor: InferenceCacheOptions['monitor'];
  readonly #log: Log | undefined;
  readonly #vectors: PromptVectors | undefined;
  readonly #flights = new Map<string, Promise<Landed>>();
  /** How many of them are over. */
  #landings = 0;
  readonly #timer: NodeJS.Timeout;
  #closed: Promise<void> | undefined;
  #evictedBefore: readonly number[] = [0, 0, 0, 0];

  /**
   * The file is opened in the background.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
   */
  constructor(options: InferenceCacheOptions = {}) {
    const { semantic, monitor, logger, ...rest } = readOptions(options);
    if (monitor !== undefined && !isMonitor(monitor)) throw refused('monitor', `${show(monitor)} is not a PerformanceMonitor`);
    this.#monitor = monitor;
    this.#vectors = semantic === undefined ? undefined : new PromptVectors(semantic);
    const log = logOf(logger);
    this.#log = log;
    // It must not keep the cache alive, so it may not know it.
    const onEvent = (json: string) => publish(JSON.parse(json) as StorageEvent, log);
    this.#native = call(() => new (native().NativeResults)(crossing(rest), onEvent));
    this.#settings = JSON.parse(this.#native.settings()) as Settings;
    this.#timer = maintain(new WeakRef(this), this.#settings.maintenanceInterval);
  }

  /** The result that is made from `content`, or `null`. */
  async get<T = unknown>(content: InferenceContent, options: InferenceKeyOptions = {}): Promise<CachedInference<T> | null> {
    return this.#get<T>(this.#asked(content, readKey(options)));
  }

  /** Sets the result that is made from `content`. It is an answer at once; `flush` waits for the file. */
  async set(content: InferenceContent, value: unknown, options: InferenceSetOptions = {}): Promise<void> {
    const given = readSetting(options);
    await this.#set(this.#asked(content, given), keep(value), settingOf(given));
  }

  /** Looks many results up, in their order. */
  async getMany<T = unknown>(lookups: readonly InferenceLookup[]): Promise<(CachedInference<T> | null)[]> {
    requireArray(lookups, '{ content, type?, params?, … }');
    const asked = lookups.map((lookup, at) => inEntry(at, () => {
      const { content, ...given } = readLookup(lookup, `lookups[${at}]`);
      return this.#asked(content, given);
    }));
    return Promise.all(asked.map((one) => this.#get<T>(one)));
  }

  /** Sets many results. When one is refused for what it is, none is set. */
  async setMany(entries: readonly InferenceEntry[]): Promise<void> {
    requireArray(entries, '{ content, value, type?, params?, … }');
    const all = entries.map((entry, at) => inEntry(at, () => {
      const { content, value, ...given } = readEntry(entry, `entries[${at}]`);
      return { asked: this.#asked(content, given), kept: keep(value), setting: settingOf(given) };
    }));
    await Promise.all(all.map(({ asked, kept, setting }) => this.#set(asked, kept, setting)));
  }

  /**
   * The result that is made from `content`: from the cache or, if it is not there, from `compute`, whose value is set.
   * However many ask at the same time, `compute` is called once, and with `persistPath` in one process only; its failure
   * reaches all who wait in this process and is not kept. The value is what a later call will get: as it comes out of
   * JSON, and a copy for everybody.
   */
  async getOrCompute<T>(
    content: InferenceContent,
    options: InferenceSetOptions,
    compute: () => T | Promise<T>,
  ): Promise<InferenceAnswer<T>> {
    if (typeof compute !== 'function') throw invalid(`compute is ${show(compute)}, not a function`);
    const given = readSetting(options);
    const asked = this.#asked(content, given);
    // What is wrong with these is better known before than after an expensive call.
    const setting = settingOf(given);
    const landings = this.#landings;
    const found = await this.#get<T>(asked);
    if (found) return answerOf(found);
    let flight = this.#flights.get(asked.key);
    const waits = flight !== undefined;
    if (!flight) {
      const looked = landings === this.#landings;
      flight = this.#compute(asked, compute, setting, looked).finally(() => {
        this.#landings++;
        this.#flights.delete(asked.key);
      });
      this.#flights.set(asked.key, flight);
    }
    const { kept, fromCache, metadata } = await flight;
    return { value: unkeep<T>(kept), fromCache: fromCache || waits, ...(metadata && { metadata: JSON.parse(metadata) as unknown }) };
  }

  /**
   * The function, with its results cached: by its name, `params`, and its arguments, which must be JSON or bytes; not by
   * `this`. A single text as its argument can be found by its meaning, too.
   */
  wrap<A extends unknown[], R>(
    fn: (...args: A) => R | Promise<R>,
    options: InferenceWrapOptions = {},
  ): (...args: A) => Promise<R> {
    if (typeof fn !== 'function') throw invalid(`The function is ${show(fn)}, not a function`);
    const { name = fn.name, params = {}, ...rest } = readWrap(options);
    if (typeof name !== 'string' || name === '') {
      throw invalid('The function has no name: pass { name }, which tells its results from those of other functions');
    }
    const settings = { ...rest, params: { function: name, params } };
    keyParts('-', settings);
    settingOf(settings);
    const cache = this;
    const wrapped = async function (this: unknown, ...args: A): Promise<R> {
      const content = argumentsOf(args);
      return (await cache.getOrCompute<R>(content, settings, () => fn.apply(this, args))).value;
    };
    return Object.defineProperties(wrapped, { name: { value: name }, length: { value: fn.length } });
  }

  /** Whether {@link get} would answer with a result of exactly this content. Counts in no statistics. */
  async has(content: InferenceContent, options: InferenceKeyOptions = {}): Promise<boolean> {
    const { key } = this.#asked(content, readKey(options));
    return settle(() => this.#native.has(key));
  }

  /** Deletes a result; whether there was one. */
  async delete(content: InferenceContent, options: InferenceKeyOptions = {}): Promise<boolean> {
    const { key } = this.#asked(content, readKey(options));
    const deleted = await settle(() => this.#native.delete(key));
    this.#publishEvictions();
    return deleted;
  }

  /**
   * Deletes the results of a type, those with at least one of the tags, or those to which both applies; how many there
   * were: in the file, where there is one.
   */
  async invalidate(which: InvalidateOptions): Promise<number> {
    this.#requireOpen();
    const { type, tag, tags } = readInvalidate(which);
    const all = [...tagsOf(tags), ...(tag === undefined ? [] : tagsOf([tag], 'tag'))];
    if (type === undefined && all.length === 0) throw invalid('Say what to invalidate: { type }, { tag } or { tags }; clear() deletes all');
    const kind = type === undefined ? undefined : typeOf(type);
    return this.#deleted(() => this.#native.invalidate(kind, all));
  }

  /** Deletes the results whose time is over; how many there were: in the file, where there is one. */
  async clearExpired(): Promise<number> {
    this.#requireOpen();
    return this.#deleted(() => this.#native.clearExpired());
  }

  /** Deletes all results of this namespace, on disk, too; how many there were. */
  async clear(): Promise<number> {
    this.#requireOpen();
    return this.#deleted(() => this.#native.invalidate(undefined, []));
  }

  /** Drops what has expired and gives space back. Also runs every `maintenanceInterval`. */
  async optimize(): Promise<CacheMaintenance> {
    this.#requireOpen();
    const did = JSON.parse(await settle(() => this.#native.optimize())) as CacheMaintenance;
    this.#publishEvictions();
    return did;
  }

  /** Waits until everything that was set before is in the file and survives even a loss of power. */
  async flush(): Promise<void> {
    this.#requireOpen();
    await settle(() => this.#native.flush());
  }

  /** How the cache does, by type. Looks at all that memory holds: some 0.1 ms for 1000 results. */
  getStats(): InferenceCacheStats {
    return JSON.parse(this.#native.stats()) as InferenceCacheStats;
  }

  /** Writes what is not yet written, closes the file and frees memory. May be called any number of times. */
  close(): Promise<void> {
    clearInterval(this.#timer);
    return (this.#closed ??= settle(() => this.#native.close()));
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #requireOpen(): void {
    if (this.#closed) throw new EmbeddingError('CLOSED', 'The cache is closed: make a new one');
  }

  #asked(content: unknown, given: Given<InferenceKeyOptions>): Asked {
    this.#requireOpen();
    const parts = keyParts(content, given);
    const { type, params, modality, form } = parts;
    return { ...parts, key: call(() => this.#native.key(type, params, modality, form, parts.content)) };
  }

  async #get<T>(asked: Asked): Promise<CachedInference<T> | null> {
    const { type, key } = asked;
    const semantic = this.#hasMeaning(asked);
    const found = await settle(async () => this.#native.get(type, key, !semantic));
    this.#publishEvictions();
    const answer = found ?? (semantic ? await this.#near(asked) : null);
    if (this.#monitor) answer ? this.#monitor.cacheHit(type) : this.#monitor.cacheMiss(type);
    return answer && cachedOf<T>(answer, type);
  }

  /** Whether its content is a prompt that can be found by its meaning. */
  #hasMeaning({ semantic, modality, form, content }: Asked): boolean {
    const isText = typeof content === 'string' && form === 'text' && modality === 'text';
    return this.#vectors !== undefined && semantic && isText && Buffer.byteLength(content) <= this.#settings.longestPrompt;
  }

  async #near(asked: Asked) {
    const prompt = await this.#prompt(asked);
    if (!prompt) {
      this.#native.missed(asked.type);
      return null;
    }
    const { threshold, limit } = this.#vectors!;
    const near = await settle(() => this.#native.near(asked.type, prompt, threshold, limit));
    if (near) {
      const { similarity, matched } = near;
      const hit = { resultType: asked.type, similarity: similarity!, content: prompt.text, matchedContent: matched! };
      publish({ type: 'near-hit', ...hit }, this.#log);
    }
    return near;
  }

  /** A prompt with its vector. Without one, results are found by their content only: that is no reason to fail. */
  async #prompt({ type, params, modality, content }: Asked): Promise<NativePrompt | undefined> {
    try {
      const text = content as string;
      const { vector, model } = await this.#vectors!.of(text);
      return { scope: this.#native.scope(type, params, modality, model), text, vector };
    } catch (thrown) {
      publish({ type: 'semantic-failed', error: toEmbeddingError(thrown) }, this.#log);
      return undefined;
    }
  }

  async #set(asked: Asked, kept: Kept, setting: Setting): Promise<void> {
    const prompt = this.#hasMeaning(asked) ? await this.#prompt(asked) : undefined;
    this.#requireOpen();
    await settle(async () => this.#native.set(asked.type, asked.key, kept.format, kept.value, { ...setting, prompt }));
    this.#publishEvictions();
  }

  /** `looked`: whether nothing can have landed since the lookup. */
  async #compute<T>(asked: Asked, compute: () => T | Promise<T>, setting: Setting, looked: boolean): Promise<Landed> {
    const { key, type } = asked;
    const look = async (): Promise<Landed | undefined> => {
      const stored = await settle(async () => this.#native.get(type, key, false));
      if (!stored) return undefined;
      const { format, value, metadata } = stored;
      return { kept: { format, value }, fromCache: true, ...(metadata != null && { metadata }) };
    };
    if (!this.#settings.shared && !looked) {
      const found = await look();
      if (found) return found;
    }
    const lease = this.#settings.shared
      ? await takeLease({
          acquire: (lifetime) => settle(() => this.#native.acquire(key, lifetime)),
          release: () => this.#native.release(key),
          there: () => settle(() => this.#native.has(key)),
        })
      : undefined;
    if (lease === 'there') {
      const found = await look();
      if (found) return found;
    }
    try {
      const kept = keep(await compute());
      await this.#set(asked, kept, setting);
      return { kept, fromCache: false, metadata: setting.metadata };
    } finally {
      if (typeof lease === 'object') lease.release();
    }
  }

  async #deleted(work: () => Promise<number>): Promise<number> {
    const deleted = await settle(work);
    this.#publishEvictions();
    return deleted;
  }

  /** Evictions are counted on the native side and told from here, so that they cost nothing when nobody listens. */
  #publishEvictions(): void {
    if (!events.hasSubscribers) return;
    const now = this.#native.evicted();
    for (const [at, cause] of (['expired', 'explicit', 'replaced', 'size'] as const).entries()) {
      const entries = now[at]! - this.#evictedBefore[at]!;
      if (entries > 0) publish({ type: 'evicted', cause, entries });
    }
    this.#evictedBefore = now;
  }
}

/** Whether it is told of hits and misses: a monitor of any copy of this package, or what stands in for one. */
function isMonitor(monitor: unknown): boolean {
  if (typeof monitor !== 'object' || monitor === null) return false;
  return (['cacheHit', 'cacheMiss'] as const).every((name) => typeof read(monitor, name, `monitor.${name}`) === 'function');
}

function answerOf<T>({ value, metadata, similarity, matchedContent }: CachedInference<T>): InferenceAnswer<T> {
  return {
    value,
    fromCache: true,
    ...(metadata !== undefined && { metadata }),
    ...(similarity !== undefined && { similarity }),
    ...(matchedContent !== undefined && { matchedContent }),
  };
}

/** What a call of a wrapped function is about: arguments that are left out are as good as undefined ones. */
function argumentsOf(args: readonly unknown[]): InferenceContent {
  let length = args.length;
  while (length > 0 && args[length - 1] === undefined) length--;
  const [first] = args;
  if (length === 1 && ((typeof first === 'string' && first !== '') || first instanceof Uint8Array)) return first;
  return args.slice(0, length);
}

/** An error about one of many names which. */
function inEntry<T>(at: number, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    const { code, message, details, retryable, cause = thrown } = toEmbeddingError(thrown);
    throw new EmbeddingError(code, `Entry ${at}: ${message}`, { details: { ...details, index: at }, retryable, cause });
  }
}

/** What happens is told to whoever listens. */
function publish(event: InferenceCacheEvent, log?: Log): void {
  if (log) {
    const { type, ...details } = event;
    const level = type === 'near-hit' || type === 'evicted' ? 'debug' : type === 'storage-restored' ? 'info' : 'warn';
    log[level](describe(event), { event: type, ...details });
  }
  events.publish(event);
}

function describe(event: InferenceCacheEvent): string {
  if (event.type === 'near-hit') return `A result of ${event.resultType} answers a prompt that means the same`;
  if (event.type === 'semantic-failed') return `A prompt could not be embedded, and finds no others: ${event.error.message}`;
  return textOf(event);
}
