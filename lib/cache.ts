import { channel } from 'node:diagnostics_channel';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { textOf, type CacheEvent, type CacheMaintenance, type CachePerformanceMetrics, type CacheStats } from './cache-report';
import { maintain, takeLease } from './cache-upkeep';
import {
  Matrix,
  Part,
  annotationKey,
  copyValues,
  fromNative,
  isAnnotated,
  readEntry,
  readEntryOptions,
  noContent,
  packOf,
  resultOf,
  similarOf,
  toNumbers,
  vectorOf,
  type CacheEntry,
  type CacheEntryOptions,
  type CacheLookup,
  type CacheMatrix,
  type CachedEmbedding,
  type CachedResult,
  type Pack,
  type SimilarEntry,
} from './cache-values';
import { EmbeddingError } from './errors';
import { invalid, requireArray, show, type Annotation } from './input';
import { logOf, type Log, type Logger } from './log';
import { call, native, settle, type NativeCache } from './native';
import { crossing, optionReader } from './options';
import type { EmbeddingResult } from './result';

export type {
  CacheEvent,
  CacheMaintenance,
  CachePerformanceMetrics,
  CacheSample,
  CacheStats,
} from './cache-report';
export type {
  CacheEntry,
  CacheEntryOptions,
  CacheLookup,
  CacheMatrix,
  CachedEmbedding,
  CachedResult,
  SimilarEntry,
} from './cache-values';

/** Options of {@link IntelligentEmbeddingCache}. Settings with two spellings may be given in one of them only. */
export interface CacheOptions {
  /** Most entries in memory. Default 1000. */
  maxEntries?: number | undefined;
  /**
   * Most memory, bookkeeping included, in MB (1 MB = 1024 × 1024 bytes). With a file, an eighth of it, 16 MB at most, is
   * for the file's pages and the rest for entries. Default 100.
   */
  maxMemoryMB?: number | undefined;
  /** The same in bytes. */
  maxSizeBytes?: number | undefined;
  /** How long an entry is an answer, in seconds; 0: for ever. Default 3600. */
  ttlSeconds?: number | undefined;
  /** The same in milliseconds. */
  ttlMs?: number | undefined;
  /** Whether an entry answers only for the content that it was set with. Default true. */
  enableContentValidation?: boolean | undefined;
  /** How often {@link IntelligentEmbeddingCache.optimize} runs by itself, in milliseconds. Default 300000. */
  maintenanceInterval?: number | undefined;
  /** Hit ratio, 0–1, below which maintenance publishes a `hit-ratio-low` event. Default 0.7. */
  hitRatioThreshold?: number | undefined;
  /** A SQLite file that keeps the entries; any number of processes may share it. Default: memory only. */
  persistPath?: string | undefined;
  /** Most of that file, in MB; its log takes some 10 MB more. Default: no limit. */
  maxDiskMB?: number | undefined;
  /** Keeps entries of different uses of one file apart. */
  namespace?: string | undefined;
  /** Keeps vectors of different models apart. */
  model?: string | undefined;
  /** How values are stored. `'f16'` takes half the space, with a relative error up to 2⁻¹¹. Default `'f32'`. */
  vectorPrecision?: 'f32' | 'f16' | undefined;
  /** Told of trouble with the file and of a low hit ratio: `console`, for example. Default: nobody; nothing is printed. */
  logger?: Logger | undefined;
}

/** Options of {@link IntelligentEmbeddingCache.findSimilar}. */
export interface SimilarOptions {
  /** Least cosine of an answer, -1–1. Default 0.95. */
  threshold?: number | undefined;
  /** Most answers. Default 10. */
  limit?: number | undefined;
}

export const readCache = optionReader<CacheOptions>({
  maxEntries: true,
  maxMemoryMB: true,
  maxSizeBytes: true,
  ttlSeconds: true,
  ttlMs: true,
  enableContentValidation: true,
  maintenanceInterval: true,
  hitRatioThreshold: true,
  persistPath: true,
  maxDiskMB: true,
  namespace: true,
  model: true,
  vectorPrecision: true,
  logger: true,
});

const readSimilar = optionReader<SimilarOptions>({ threshold: true, limit: true });

const events = channel('embedcore:cache');

/** See `src/binding/cache/mod.rs`. */
const MISS = -1;
const ASK_DISK = -2;
const HAS_METADATA = 1 << 28;

/** Lookups, or UTF-16 units of them, that are answered between two turns of the event loop: a millisecond or two. */
const PACK_ENTRIES = 2048;
const PACK_CHARACTERS = 1 << 20;

/** Strings that one call to the native side passes. Even, so that no pair is torn. */
const ARGUMENTS = 512;

/** Requests after which a hit ratio says something. */
const ENOUGH_REQUESTS = 100;

interface Settings {
  maintenanceInterval: number;
  hitRatioThreshold: number;
  validate: boolean;
  shared: boolean;
}

/** What the native side knows a cache by. */
export let nativeOf: (cache: IntelligentEmbeddingCache) => NativeCache;

/**
 * Remembers embeddings, in memory and, with `persistPath`, in a file that any number of processes share.
 *
 * Memory holds the most recently used entries, strictly, up to a number and to a size; the file holds all until they
 * expire or `maxDiskMB` is reached. An entry answers only for the content that it was set with: a lookup with another
 * one is a miss, and the entry is gone. Trouble with the file never fails a call: it is counted, and published on the
 * `diagnostics_channel` `embedcore:cache` ({@link CacheEvent}).
 */
export class IntelligentEmbeddingCache implements AsyncDisposable {
  readonly #native: NativeCache;
  readonly #settings: Settings;
  readonly #log: Log | undefined;
  readonly #flights = new Map<string, Promise<CachedEmbedding>>();
  readonly #timer: NodeJS.Timeout;
  readonly #lookup: ReturnType<NativeCache['getter']>;
  readonly #look: ReturnType<NativeCache['looker']>;
  readonly #push: ReturnType<NativeCache['pusher']>;
  /** Where {@link #lookup} leaves the vector. */
  readonly #scratch = new Float32Array(4096);
  #closed: Promise<void> | undefined;
  #requestsBefore = 0;
  #hitsBefore = 0;
  #evictedBefore: CacheStats['evictionCauses'] = { expired: 0, explicit: 0, replaced: 0, size: 0 };

  /**
   * The file is opened in the background.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
   */
  constructor(options: CacheOptions = {}) {
    const { logger, ...rest } = readCache(options);
    const log = logOf(logger);
    this.#log = log;
    // Holds the logger but not the cache, so that a forgotten one can be collected.
    const onEvent = (json: string) => publish(JSON.parse(json) as CacheEvent, log);
    this.#native = call(() => new (native().NativeCache)(crossing(rest), onEvent));
    this.#lookup = this.#native.getter(this.#scratch);
    this.#look = this.#native.looker();
    this.#push = this.#native.pusher();
    this.#settings = JSON.parse(this.#native.settings()) as Settings;
    this.#timer = maintain(new WeakRef(this), this.#settings.maintenanceInterval);
  }

  static {
    nativeOf = (cache) => cache.#native;
  }

  /** Sets what `key` stands for as long as its content is `content`. */
  set(key: string, content: string, embedding: ArrayLike<number>, options?: CacheEntryOptions): Promise<void>;
  /** Sets the result of an annotation. */
  set(annotation: Annotation, result: EmbeddingResult): Promise<void>;
  async set(
    target: string | Annotation,
    value: string | EmbeddingResult,
    embedding?: ArrayLike<number>,
    options: CacheEntryOptions = {},
  ): Promise<void> {
    if (typeof target !== 'string') {
      const { key, content } = annotationKey(target, 'The annotation');
      const { embedding: vector, ...rest } = resultOf(value);
      return this.#set(true, packOf([{ key, content, embedding: vector, metadata: rest }]));
    }
    const entry = { ...readEntryOptions(options), key: target, content: value as string, embedding: embedding as ArrayLike<number> };
    return this.#set(false, packOf([entry], this.#settings.validate));
  }

  /** What `key` stands for, if its content is `content`. If it is not, the entry is gone. */
  get(key: string, content?: string): Promise<CachedEmbedding | null>;
  /** The result of an annotation whose text is unchanged. What is no annotation has none. */
  get(annotation: Annotation): Promise<CachedResult | null>;
  async get(target: string | Annotation, content?: string): Promise<CachedEmbedding | CachedResult | null> {
    this.#requireOpen();
    if (typeof target === 'string') return this.#get(false, target, this.#contentOf(content, 'The content'));
    let key: { key: string; content: string };
    try {
      key = annotationKey(target, 'The annotation');
    } catch {
      this.#native.missed();
      return null;
    }
    const found = await this.#get(true, key.key, this.#settings.validate ? key.content : undefined);
    if (!found) return null;
    const kept = found.metadata as Omit<EmbeddingResult, 'nodeId' | 'embedding' | 'processingTime'>;
    return { nodeId: target.nodeId, embedding: found.embedding, processingTime: 0, ...kept, fromCache: true };
  }

  /** Looks many keys up, in one crossing to the native side: the fast path, without a number object per value. */
  async getMany(entries: readonly CacheLookup[] | readonly Annotation[]): Promise<CacheMatrix> {
    this.#requireOpen();
    requireArray(entries, '{ key, content }, or of annotations');
    const annotated = isAnnotated(entries);
    const { validate } = this.#settings;
    const parts: Part[] = [];
    let at = 0;
    do {
      if (at > 0) await nextTurn();
      const from = at;
      const strings: string[] = [];
      for (let characters = 0; at < entries.length && at - from < PACK_ENTRIES && characters < PACK_CHARACTERS; at++) {
        const entry = annotated ? annotationKey(entries[at], `Annotation ${at}`) : (entries[at] as CacheLookup | null);
        const key = entry?.key;
        if (typeof key !== 'string') throw invalid(`The key of entry ${at} is not a string`, { index: at });
        const content = validate ? entry!.content : '';
        if (typeof content !== 'string') throw noContent(`The content of entry ${at}`);
        strings.push(key, content);
        characters += key.length + content.length;
      }
      const rows = at - from;
      // From here to the answer nothing of the caller's runs, so that no other lookup gets in between.
      for (let i = 0; i < strings.length; i += ARGUMENTS) this.#look(annotated, ...strings.slice(i, i + ARGUMENTS));
      const lookup = this.#native.looked();
      const fromDisk = lookup.open;
      if (fromDisk) await settle(() => lookup.settle());
      const part = new Part(lookup, rows);
      // What memory answered is held by memory anyway; what came from disk would be held out of the collector's sight.
      if (fromDisk) part.data;
      parts.push(part);
    } while (at < entries.length);
    this.#publishEvictions();
    return new Matrix(parts);
  }

  /** Sets many entries, in one crossing to the native side: all of them or, when one is refused, none. */
  async setMany(entries: readonly CacheEntry[]): Promise<void> {
    requireArray(entries, '{ key, content, embedding }');
    const given = entries.map((entry: CacheEntry | null, index) => readEntry(entry ?? {}, `entries[${index}]`));
    if (given.length > 0) await this.#set(false, packOf(given, this.#settings.validate));
  }

  /**
   * What `key` stands for: from the cache or, if it is not there, from `compute`, whose value is set. However many ask
   * at the same time, `compute` is called once, and with `persistPath` in one process only; its failure reaches all who
   * wait in this process and is not kept.
   */
  async getOrCompute(
    key: string,
    content: string,
    compute: () => ArrayLike<number> | Promise<ArrayLike<number>>,
    options: CacheEntryOptions = {},
  ): Promise<CachedEmbedding> {
    if (typeof compute !== 'function') throw invalid(`compute is ${show(compute)}, not a function`);
    const given = readEntryOptions(options);
    const found = await this.get(key, content);
    if (found) return found;
    const name = `${key.length}:${key}${content}`;
    let flight = this.#flights.get(name);
    if (!flight) {
      flight = this.#compute(key, content, compute, given).finally(() => this.#flights.delete(name));
      this.#flights.set(name, flight);
    }
    const { embedding, ...rest } = await flight;
    // Everybody gets an array of its own.
    return { embedding: [...embedding], ...rest };
  }

  async #compute(
    key: string,
    content: string,
    compute: () => ArrayLike<number> | Promise<ArrayLike<number>>,
    options: CacheEntryOptions,
  ): Promise<CachedEmbedding> {
    const lease = this.#settings.shared
      ? await takeLease({
          acquire: (lifetime) => settle(() => this.#native.acquire(key, lifetime)),
          release: () => this.#native.release(key),
          there: () => this.has(key, content),
        })
      : undefined;
    if (lease === 'there') {
      const found = await this.get(key, content);
      if (found) return found;
    }
    try {
      const embedding = await compute();
      await this.set(key, content, embedding, options);
      const rounded = Array.from(Float32Array.from(embedding));
      return { embedding: rounded, ...(options.metadata !== undefined && { metadata: options.metadata }) };
    } finally {
      if (typeof lease === 'object') lease.release();
    }
  }

  /** Whether {@link get} would answer. Counts in no statistics. */
  async has(target: string | Annotation, content?: string): Promise<boolean> {
    this.#requireOpen();
    if (typeof target === 'string') {
      const expected = content === undefined ? undefined : this.#contentOf(content, 'The content');
      return settle(async () => this.#native.has(false, target, expected));
    }
    const { key, content: text } = annotationKey(target, 'The annotation');
    return settle(async () => this.#native.has(true, key, this.#settings.validate ? text : undefined));
  }

  /** Deletes an entry; whether there was one. */
  async delete(target: string | Annotation): Promise<boolean> {
    this.#requireOpen();
    const annotated = typeof target !== 'string';
    const key = annotated ? annotationKey(target, 'The annotation').key : target;
    const deleted = await settle(async () => this.#native.delete(annotated, key));
    this.#publishEvictions();
    return deleted;
  }

  /** Deletes all entries of this namespace and model, on disk, too. */
  async clear(): Promise<void> {
    this.#requireOpen();
    await settle(async () => this.#native.clear());
    this.#publishEvictions();
  }

  /**
   * The entries whose vectors point most nearly where `embedding` does, the nearest first. The first call reads all
   * entries for an index, which then follows every change, of other processes, too. It takes about 1.1 bytes a value and
   * 150 an entry, beyond `maxMemoryMB`. Up to 2000 entries in memory only are compared without it.
   *
   * It finds about 99 of 100 of the nearest, or more. Among 100,000 vectors that lie in heaps, as those of a model do,
   * that takes less than a millisecond; among random ones, all about equally far from each other, more than ten times
   * as long.
   */
  async findSimilar(
    embedding: ArrayLike<number>,
    options: SimilarOptions = {},
  ): Promise<SimilarEntry[]> {
    this.#requireOpen();
    const { threshold = 0.95, limit = 10 } = readSimilar(options);
    if (typeof threshold !== 'number' || !(threshold >= -1 && threshold <= 1)) {
      throw invalid(`threshold is ${show(threshold)}, not a number from -1 to 1`);
    }
    if (!Number.isInteger(limit) || limit < 1 || limit > 2 ** 20) {
      throw invalid(`limit is ${show(limit)}, not a whole number from 1 to ${2 ** 20}`);
    }
    const query = new Float32Array(vectorOf(embedding, 'The embedding').length);
    copyValues(embedding, query, 0, 'The embedding');
    const near = await settle(() => this.#native.nearest(query, threshold, limit));
    return similarOf(near, query);
  }

  /** Drops what has expired and gives space back. Also runs every `maintenanceInterval`. */
  async optimize(): Promise<CacheMaintenance> {
    this.#requireOpen();
    const did = JSON.parse(await settle(() => this.#native.optimize())) as CacheMaintenance;
    this.#publishEvictions();
    this.#watchHitRatio();
    return did;
  }

  /** Waits until everything that was set before is in the file and survives even a loss of power. */
  async flush(): Promise<void> {
    this.#requireOpen();
    await settle(() => this.#native.flush());
  }

  /** How the cache does. */
  getStats(): CacheStats {
    return JSON.parse(this.#native.stats()) as CacheStats;
  }

  /** How well the cache does, with its latest calls. */
  getPerformanceMetrics(): CachePerformanceMetrics {
    const stats = this.getStats();
    const samples = this.#native.samples();
    const recentSamples = Array.from({ length: samples.length / 3 }, (_, i) => ({
      timestamp: samples[i * 3]!,
      accessTime: samples[i * 3 + 1]!,
      hitRatio: samples[i * 3 + 2]!,
    }));
    const kept = stats.sets > 0 ? Math.max(0, 1 - stats.evictionCauses.size / stats.sets) : 1;
    return {
      stats,
      recentSamples,
      memoryEfficiency: stats.currentSizeBytes > 0 ? stats.payloadBytes / stats.currentSizeBytes : 0,
      performanceScore: stats.totalRequests > 0 ? 0.7 * stats.hitRatio + 0.3 * kept : 0,
    };
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

  #contentOf(content: unknown, what: string): string | undefined {
    if (typeof content === 'string') return this.#settings.validate ? content : undefined;
    if (content == null && !this.#settings.validate) return undefined;
    throw noContent(what);
  }

  /** Not async: an answer from memory costs no promise of its own. */
  #get(
    annotated: boolean,
    key: string,
    content: string | undefined,
  ): CachedEmbedding | null | Promise<CachedEmbedding | null> {
    const answer = this.#lookup(annotated, key, content);
    if (answer === MISS) return null;
    if (answer === ASK_DISK) return this.#getFromDisk();
    const length = answer & (HAS_METADATA - 1);
    if (answer !== length || length > this.#scratch.length) return fromNative(this.#native.found()!);
    return { embedding: toNumbers(this.#scratch, length) };
  }

  async #getFromDisk(): Promise<CachedEmbedding | null> {
    const found = await settle(() => this.#native.settle());
    this.#publishEvictions();
    return found && fromNative(found);
  }

  async #set(annotated: boolean, { strings, data, ttls }: Pack): Promise<void> {
    this.#requireOpen();
    await settle(async () => {
      for (let i = 0; i < strings.length; i += ARGUMENTS) this.#push(...strings.slice(i, i + ARGUMENTS));
      return this.#native.set(annotated, data, ttls);
    });
    this.#publishEvictions();
  }

  /** Evictions are counted on the native side and told from here, so that they cost nothing when nobody listens. */
  #publishEvictions(): void {
    if (!events.hasSubscribers) return;
    const now = this.getStats().evictionCauses;
    for (const cause of ['expired', 'explicit', 'replaced', 'size'] as const) {
      const entries = now[cause] - this.#evictedBefore[cause];
      if (entries > 0) publish({ type: 'evicted', cause, entries });
    }
    this.#evictedBefore = now;
  }

  #watchHitRatio(): void {
    const { hits, totalRequests } = this.getStats();
    const requests = totalRequests - this.#requestsBefore;
    if (requests < ENOUGH_REQUESTS) return;
    const hitRatio = (hits - this.#hitsBefore) / requests;
    this.#requestsBefore = totalRequests;
    this.#hitsBefore = hits;
    const threshold = this.#settings.hitRatioThreshold;
    if (hitRatio < threshold) publish({ type: 'hit-ratio-low', hitRatio, threshold }, this.#log);
  }
}

let shared: IntelligentEmbeddingCache | undefined;

/** The cache that all of this thread share. The first call makes it, with its options; later ones give the same. */
export function getEmbeddingCache(options?: CacheOptions): IntelligentEmbeddingCache {
  return (shared ??= new IntelligentEmbeddingCache(options));
}

/** Closes the shared cache; the next {@link getEmbeddingCache} makes a new one. */
export async function resetEmbeddingCache(): Promise<void> {
  const before = shared;
  shared = undefined;
  await before?.close();
}

/** What happens is told to whoever listens. */
function publish(event: CacheEvent, log?: Log): void {
  const { type, ...details } = event;
  if (log) log[type === 'storage-restored' ? 'info' : 'warn'](textOf(event), { event: type, ...details });
  events.publish(event);
}
