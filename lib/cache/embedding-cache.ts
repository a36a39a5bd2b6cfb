import { setImmediate as nextTurn } from 'node:timers/promises';

import { EmbeddingError } from '../call/errors';
import { annotationFields, invalid, readGiven, requireArray, show, type Annotation } from '../call/input';
import { logOf, type Log } from '../call/logger';
import { crossing } from '../call/options';
import { CallOrder, follow, isPromise } from '../call/order';
import type { EmbeddingResult } from '../call/result';
import { SingleFlight, type Flight } from '../call/single-flight';
import { call, native, settle, settled } from '../native/addon';
import type { NativeCache } from '../native/types';
import { Contents, MODALITIES, NODE, TEXT, flightOf, isContent, kindOf, nameOf, placesOf, readEntryName, type Content, type EntryOptions, type Kind } from './content';
import { Lookups } from './lookups';
import { Evictions, Leases, maintain } from './maintenance';
import { OperationLog, events, publish, publisher } from './operations';
import { readCache, readSimilar, type CacheOptions, type SimilarOptions } from './options';
import type { CacheEvent, CacheMaintenance, CachePerformanceMetrics, CacheStats } from './report';
import {
  Matrix,
  Part,
  annotationKey,
  contentOf,
  copyValues,
  finiteVector,
  fromNative,
  readEntry,
  readEntryOptions,
  noContent,
  packOf,
  packOfResult,
  similarOf,
  toJson,
  toNumbers,
  ttlOf,
  vectorOf,
  type CacheEntry,
  type CacheEntryOptions,
  type CacheLookup,
  type CacheMatrix,
  type CachedEmbedding,
  type CachedResult,
  type Pack,
  type SimilarEntry,
} from './values';

/** See `src/binding/cache/mod.rs`. */
const MISS = -1;
const ASK_DISK = -2;
const HAS_METADATA = 1 << 28;

/** Strings that one call to the native side passes. Even, so that no pair is torn. */
const ARGUMENTS = 512;

interface Settings {
  maintenanceInterval: number;
  hitRatioThreshold: number;
  validate: boolean;
  shared: boolean;
  /** Whether vectors are kept with less precision than they are given. */
  rounds: boolean;
}

/** What a computation has made, as it is kept. */
interface Computed {
  vector: Float32Array;
  /** JSON, or empty. */
  metadata: string;
}

/** What the native side knows a cache by. */
export let nativeOf: (cache: IntelligentEmbeddingCache) => NativeCache;

/** Tells a logger what was looked up, validated and evicted in a cache since it was told the last time, by whomever. */
export let tellOperations: (cache: IntelligentEmbeddingCache, log: Log) => void;

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
  readonly #log: OperationLog;
  readonly #order = new CallOrder();
  /** About the kind of their entries. */
  readonly #inFlight = new SingleFlight<Computed, Kind>();
  /** Of keys: contents of one key, which are computed apart, have the same. */
  readonly #leases = new Leases();
  readonly #evictions: Evictions;
  readonly #timer: NodeJS.Timeout;
  readonly #lookup: ReturnType<NativeCache['getter']>;
  readonly #look: ReturnType<NativeCache['looker']>;
  readonly #push: ReturnType<NativeCache['pusher']>;
  /** Where {@link #lookup} leaves the vector. */
  readonly #scratch = new Float32Array(4096);
  #closed: Promise<void> | undefined;

  /**
   * The file is opened in the background.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
   */
  constructor(options: CacheOptions = {}) {
    const { logger, ...rest } = readCache(options);
    const log = logOf(logger);
    this.#native = call(() => new (native().NativeCache)(crossing(rest), publisher(log)));
    this.#lookup = this.#native.getter(this.#scratch);
    this.#look = this.#native.looker();
    this.#push = this.#native.pusher();
    this.#settings = JSON.parse(this.#native.settings()) as Settings;
    this.#log = new OperationLog(log, () => this.getStats(), this.#settings);
    this.#evictions = new Evictions(events, () => this.#native.evicted(), publish);
    this.#timer = maintain(new WeakRef(this), this.#settings.maintenanceInterval);
  }

  static {
    nativeOf = (cache) => cache.#native;
    tellOperations = (cache, log) => cache.#log.tell(log);
  }

  /**
   * Sets what `key` stands for as long as its content is `content`: a string, or the bytes of an image or a recording, of
   * which only the hash is kept. A string and the bytes of its UTF-8 are two contents.
   */
  set(key: string, content: string | Uint8Array, embedding: ArrayLike<number>, options?: CacheEntryOptions): Promise<void>;
  /** Sets the result of an annotation. */
  set(annotation: Annotation, result: EmbeddingResult): Promise<void>;
  async set(
    target: string | Annotation,
    value: string | Uint8Array | EmbeddingResult,
    embedding?: ArrayLike<number>,
    options: CacheEntryOptions = {},
  ): Promise<void> {
    this.#requireOpen();
    if (typeof target !== 'string') return this.#set(packOfResult(target, value));
    const entry = { ...readEntryOptions(options), key: target, content: value as string, embedding: embedding as ArrayLike<number> };
    return this.#set(packOf([entry], this.#settings.validate));
  }

  /** What `key` stands for, if its content is `content`. If it is not, the entry is gone. */
  get(key: string, content?: string | Uint8Array, options?: EntryOptions): Promise<CachedEmbedding | null>;
  /**
   * The result of an annotation whose text is unchanged: as it was set or, if it was not, as a generator has kept it that this
   * cache was given to, now or before. What is no annotation has none.
   */
  get(annotation: Annotation): Promise<CachedResult | null>;
  async get(
    target: string | Annotation,
    content?: string | Uint8Array,
    options?: EntryOptions,
  ): Promise<CachedEmbedding | CachedResult | null> {
    this.#requireOpen();
    this.#log.tellSoon();
    if (typeof target === 'string') return this.#get(kindNamed(options), target, this.#contentOf(content));
    let fields: Fields;
    try {
      fields = annotationFields(target, 'The annotation') as Fields;
    } catch {
      this.#native.missed();
      return null;
    }
    return settled(() => this.#order.read(fields[0], () => this.#result(fields)));
  }

  /** The result of an annotation: as it was set or, if it was not, as a generator has kept it. */
  #result([nodeId, ...texts]: Fields): CachedResult | null | PromiseLike<CachedResult | null> {
    const content = this.#settings.validate ? contentOf(texts) : undefined;
    const set = () =>
      follow(this.#find(NODE, nodeId, content), (found): CachedResult | null => {
        if (!found) return null;
        const kept = found.metadata as Omit<EmbeddingResult, 'nodeId' | 'embedding' | 'processingTime'>;
        return { nodeId, embedding: found.embedding, processingTime: 0, ...kept, fromCache: true };
      });
    if (!this.#native.servesGenerators()) return set();
    return follow(this.#native.has(NODE, nodeId, content), (isSet) => {
      if (isSet) return set();
      return follow(this.#native.remembered(nodeId, ...texts), (found) => {
        if (!found) return set();
        const about = JSON.parse(found.about()) as Pick<EmbeddingResult, 'inputText' | 'modelUsed'>;
        const vector = found.vector();
        return { nodeId, embedding: toNumbers(vector, vector.length), processingTime: 0, ...about, fromCache: true };
      });
    });
  }

  /**
   * Looks many keys up, in one crossing to the native side: the fast path, without a number object per value. `options` are
   * those of entries that do not say their own.
   */
  async getMany(entries: readonly CacheLookup[] | readonly Annotation[], options: EntryOptions = {}): Promise<CacheMatrix> {
    this.#requireOpen();
    const lookups = new Lookups(entries, options, (content, contents, at) => this.#contentOf(content, contents, at));
    const look = (from: number, to: number) => this.#lookMany(lookups.kinds, lookups.strings(from, to), from, to);
    const parts = await this.#order.readAll(() =>
      follow(lookups.hashed, () => {
        this.#evictions.watch();
        const first = look(0, lookups.ends[0]!);
        return lookups.ends.length === 1 ? follow(first, (part) => [part]) : this.#restOf(first, lookups.ends, look);
      }),
    );
    this.#tellAll();
    return new Matrix(parts);
  }

  /** The parts of a lookup that is too large for one turn of the event loop. */
  async #restOf(
    first: Part | PromiseLike<Part>,
    ends: readonly number[],
    look: (from: number, to: number) => Part | PromiseLike<Part>,
  ): Promise<Part[]> {
    const parts = [await first];
    for (let at = 1; at < ends.length; at++) {
      await nextTurn();
      parts.push(await look(ends[at - 1]!, ends[at]!));
    }
    return parts;
  }

  #lookMany(kinds: readonly Kind[], strings: readonly Content[], from: number, to: number): Part | PromiseLike<Part> {
    // From here to the answer nothing of the caller's runs, so that no other lookup gets in between.
    for (let at = from, end = from; at < to; at = end) {
      const kind = kinds[at]!;
      const most = Math.min(at + ARGUMENTS / 2, to);
      while (end < most && kinds[end] === kind) end++;
      this.#look(kind, ...strings.slice(2 * at, 2 * end));
    }
    const lookup = this.#native.looked();
    const rows = to - from;
    if (!lookup.open) return new Part(lookup, rows);
    return settle(() => lookup.settle()).then(() => {
      const part = new Part(lookup, rows);
      // What memory answered is held by memory anyway; what came from disk would be held out of the collector's sight.
      part.data;
      return part;
    });
  }

  /**
   * Sets many entries, in one crossing to the native side: all of them or, when one is refused, none. All have vectors of one
   * length. `options` are those of entries that do not say their own.
   */
  async setMany(entries: readonly CacheEntry[], options: EntryOptions = {}): Promise<void> {
    this.#requireOpen();
    requireArray(entries, '{ key, content, embedding }');
    const { modality } = readEntryName(options);
    // Not `map`, which leaves holes out.
    const given = Array.from(readGiven('The entries', () => Array.from(entries)), (entry: CacheEntry | null, index) => readEntry(entry ?? {}, `entries[${index}]`));
    if (given.length === 0) return;
    const pack = packOf(given, this.#settings.validate, modality);
    await settled(() => this.#order.changeAll(() => this.#commit(pack)));
    this.#tellAll();
  }

  /**
   * What `key` stands for: from the cache or, if it is not there, from `compute`, whose value is set. However many ask
   * at the same time, `compute` is called once, and with `persistPath` in one process only; its failure reaches all who
   * wait in this process and is not kept. The answer is what a later `get` gives: rounded, and with metadata as it comes
   * out of JSON.
   *
   * What is set, deleted or cleared meanwhile is newer: then the value is answered, but not kept. Of several contents of one
   * key that are computed at the same time, any one is kept. Nothing is where it cannot be, because it has another length
   * than the others or the cache was closed meanwhile: that is counted, and published as a `rejected` event.
   */
  async getOrCompute(
    key: string,
    content: string | Uint8Array,
    compute: () => ArrayLike<number> | Promise<ArrayLike<number>>,
    options: CacheEntryOptions = {},
  ): Promise<CachedEmbedding> {
    if (typeof compute !== 'function') throw invalid(`compute is ${show(compute)}, not a function`);
    if (typeof key !== 'string') throw invalid(`The key is ${show(key)}, not a string`);
    this.#requireOpen();
    // What is wrong with these is better known before than after an expensive call, during which they may change.
    const { ttlSeconds, metadata, modality } = readEntryOptions(options);
    const kind = kindOf(modality);
    const setting = { ttlMs: ttlOf(ttlSeconds, ''), metadata: metadata === undefined ? '' : toJson(metadata, '') };
    const given = this.#contentOf(content);
    const { asking } = this.#inFlight;
    const begun = await this.#order.read(key, () =>
      follow(given, (expected) =>
        follow(this.#find(kind, key, expected), (found): { found: CachedEmbedding } | { landing: Promise<Computed> } => {
          if (found) return { found };
          const [flight, name] = [flightOf(kind, key), nameOf(expected)];
          const landing =
            this.#inFlight.joined(flight, name, asking) ??
            this.#inFlight.begin(flight, name, kind, asking, (flight) => this.#compute({ kind, key, expected }, compute, setting, flight));
          return { landing };
        }),
      ),
    );
    if ('found' in begun) return begun.found;
    const { vector, metadata: json } = await begun.landing;
    // Everybody gets values of its own.
    const embedding = toNumbers(vector, vector.length);
    return json === '' ? { embedding } : { embedding, metadata: JSON.parse(json) as unknown };
  }

  async #compute(
    { kind, key, expected }: { kind: Kind; key: string; expected: Content | undefined },
    compute: () => ArrayLike<number> | Promise<ArrayLike<number>>,
    { ttlMs, metadata }: { ttlMs: number; metadata: string },
    flight: Flight<Kind>,
  ): Promise<Computed> {
    const lease = this.#settings.shared
      ? await this.#leases.take(flightOf(kind, key), {
          acquire: (lifetime) => settle(() => this.#native.acquire(kind, key, lifetime)),
          release: () => this.#native.release(kind, key),
          there: async () => this.#has(kind, key, expected),
        })
      : undefined;
    try {
      if (lease === 'there') {
        const found = await this.#get(kind, key, expected);
        if (found) return { vector: Float32Array.from(found.embedding), metadata: found.metadata === undefined ? '' : JSON.stringify(found.metadata) };
      }
      const began = this.#native.now();
      const computed = await follow(flight.call(compute), (embedding) => ({ vector: finiteVector(embedding, 'The embedding'), metadata }));
      if (this.#settings.rounds) this.#native.round(computed.vector);
      const pack = { strings: [key, expected ?? '', metadata], data: computed.vector, settings: Float64Array.of(ttlMs, kind) };
      await this.#keep(key, nameOf(expected), pack, flight, began);
      return computed;
    } finally {
      if (typeof lease === 'object') lease.release();
    }
  }

  /** Keeps what was computed, unless something newer was written meanwhile. The value is there: nothing of this fails. */
  async #keep(key: string, name: string, pack: Pack, flight: Flight<Kind>, began: number): Promise<void> {
    try {
      await settled(() => this.#order.change(key, () => (flight.overtaken ? undefined : this.#commit(pack, { name, began }))));
      this.#tellAll();
    } catch (thrown) {
      this.#native.reject(`The computed embedding of ${show(key)}: ${(thrown as EmbeddingError).message}`);
    }
  }

  /** Whether {@link get} would answer. Counts in no statistics. */
  async has(target: string | Annotation, content?: string | Uint8Array, options?: EntryOptions): Promise<boolean> {
    this.#requireOpen();
    if (typeof target === 'string') {
      const kind = kindNamed(options);
      return this.#has(kind, target, content === undefined ? undefined : this.#contentOf(content));
    }
    const fields = annotationFields(target, 'The annotation') as Fields;
    const [key, ...texts] = fields;
    const isKept = () =>
      follow(this.#native.has(NODE, key, this.#settings.validate ? contentOf(texts) : undefined), (isSet) =>
        isSet || !this.#native.servesGenerators() ? isSet : this.#native.remembers(...fields),
      );
    return settled(() => this.#order.read(key, isKept));
  }

  /**
   * Deletes an entry, and what generators have kept for the text of an annotation; whether there was one that {@link get} would have
   * given. Gone from memory at once; resolves when the file knows.
   * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED` when the file cannot be told: another program has held it for 8
   * seconds, or it has the entry and cannot be written. It goes from the file as soon as that is possible, if this cache is
   * still open then.
   */
  async delete(target: string | Annotation, options?: EntryOptions): Promise<boolean> {
    this.#requireOpen();
    const kind = typeof target === 'string' ? kindNamed(options) : NODE;
    const key = typeof target === 'string' ? target : annotationKey(target, 'The annotation').key;
    const fields = typeof target === 'string' ? undefined : (annotationFields(target, 'The annotation') as [string, string, string, string]);
    // It is gone then: only who has asked for it waits until the file knows.
    const { deleted } = await settled(() =>
      this.#order.change(key, () => {
        this.#evictions.watch();
        const deleted = this.#native.delete(kind, key);
        const forgot = fields && this.#native.servesGenerators() ? this.#native.forget(...fields) : false;
        this.#inFlight.overtake(flightOf(kind, key));
        return { deleted: isPromise(forgot) ? Promise.all([deleted, forgot]).then(([was, too]) => was || too) : deleted };
      }),
    );
    const was = await settled(() => deleted);
    this.#tellAll();
    return was;
  }

  /**
   * Deletes all entries of this namespace and model, those of generators that have had this cache included, or those of one
   * modality, on disk, too. See {@link delete}.
   */
  async clear(options: EntryOptions = {}): Promise<void> {
    this.#requireOpen();
    const { modality } = readEntryName(options);
    const places = placesOf(modality, undefined, MODALITIES);
    const kind = modality === undefined ? undefined : kindOf(modality);
    const { cleared } = await settled(() =>
      this.#order.changeAll(() => {
        this.#evictions.watch();
        const cleared = this.#native.clear(places);
        this.#inFlight.overtakeAll((about) => kind === undefined || about === kind);
        return { cleared };
      }),
    );
    await settled(() => cleared);
    this.#tellAll();
  }

  /**
   * The entries whose vectors point most nearly where `embedding` does, the nearest first; equally near ones always in the
   * same order. At most `limit` (10) of those whose cosine is at least `threshold` (-1, which is any), among texts, or among
   * the `modality` or the `modalities` that are asked for: vectors of another length are near to nothing. What generators have
   * kept that this cache was given to counts, too: the `key` is the id of the annotation, the path of the image or, of up to 256
   * bytes, the text that was first embedded so. The first call reads all
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
    const { threshold = -1, limit = 10, modality, modalities } = readSimilar(options);
    if (typeof threshold !== 'number' || !(threshold >= -1 && threshold <= 1)) {
      throw invalid(`threshold is ${show(threshold)}, not a number from -1 to 1`, { option: 'threshold' });
    }
    if (!Number.isInteger(limit) || limit < 1 || limit > 2 ** 20) {
      throw invalid(`limit is ${show(limit)}, not a whole number from 1 to ${2 ** 20}`, { option: 'limit' });
    }
    const places = placesOf(modality, modalities, ['text']);
    const query = new Float32Array(vectorOf(embedding, 'The embedding').length);
    copyValues(embedding, query, 0, 'The embedding');
    const near = await settled(() => this.#order.readAll(() => this.#native.nearest(query, threshold, limit, places)));
    return similarOf(near, query);
  }

  /** Drops what has expired and gives space back. Also runs every `maintenanceInterval`. */
  async optimize(): Promise<CacheMaintenance> {
    this.#requireOpen();
    this.#evictions.watch();
    const did = JSON.parse(await settle(() => this.#native.optimize())) as CacheMaintenance;
    this.#tellAll();
    this.#log.watchHitRatio();
    return did;
  }

  /**
   * Waits until everything that was set before is in the file and survives even a loss of power.
   * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED` when entries were lost since the last call, or another program has
   * held the file for 8 seconds: then they still wait to be written.
   */
  async flush(): Promise<void> {
    this.#requireOpen();
    await settled(() => this.#order.last(() => this.#native.flush()));
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

  /**
   * Writes what is not yet written, closes the file and frees memory, after all calls that were made before. For a file that
   * another program holds it waits 3 seconds; what is not written then is lost. May be called any number of times.
   */
  close(): Promise<void> {
    clearInterval(this.#timer);
    return (this.#closed ??= settle(async () => this.#order.last(() => this.#native.close())));
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #requireOpen(): void {
    if (this.#closed) throw new EmbeddingError('CLOSED', 'The cache is closed: make a new one');
  }

  /** What stands for a content, where contents matter. `contents`, `at`: of a call with many, and which of them. */
  #contentOf(content: unknown, contents?: Contents, at?: number): Content | Promise<Content> | undefined {
    const { validate } = this.#settings;
    if (typeof content === 'string') return validate ? content : undefined;
    if (!validate && isContent(content)) return undefined;
    const where = at === undefined ? '' : ` of entry ${at}`;
    const stands = validate ? (contents ?? new Contents()).of(content, where) : undefined;
    if (stands === undefined) throw noContent(`The content${where}`);
    return stands;
  }

  #get(
    kind: Kind,
    key: string,
    content: Content | Promise<Content> | undefined,
  ): CachedEmbedding | null | PromiseLike<CachedEmbedding | null> {
    return this.#order.read(key, () => follow(content, (content) => this.#find(kind, key, content)));
  }

  /** An answer from memory costs no promise of its own. */
  #find(
    kind: Kind,
    key: string,
    content: Content | undefined,
  ): CachedEmbedding | null | Promise<CachedEmbedding | null> {
    this.#evictions.watch();
    const answer = this.#lookup(kind, key, content);
    if (answer === MISS) {
      this.#tellAll();
      return null;
    }
    if (answer === ASK_DISK) return this.#getFromDisk();
    const length = answer & (HAS_METADATA - 1);
    if (answer !== length || length > this.#scratch.length) return fromNative(this.#native.found()!);
    return { embedding: toNumbers(this.#scratch, length) };
  }

  #getFromDisk(): Promise<CachedEmbedding | null> {
    const settling = this.#native.settle();
    return settle(() => settling).then((found) => {
      this.#tellAll();
      return found && fromNative(found);
    });
  }

  #has(kind: Kind, key: string, content: Content | Promise<Content> | undefined): boolean | Promise<boolean> {
    return settled(() => this.#order.read(key, () => follow(content, (content) => this.#native.has(kind, key, content))));
  }

  async #set(pack: Pack): Promise<void> {
    await settled(() => this.#order.change(pack.strings[0] as string, () => this.#commit(pack)));
    this.#tellAll();
  }

  /**
   * Sets entries, and has what was begun before under their keys know that it is older. `by`: a computation, which is newer
   * than what was begun before it, and older than what other processes have written since.
   */
  #commit({ strings, data, settings, hashed }: Pack, by?: { name: string; began: number }): void | PromiseLike<void> {
    return follow(hashed, () => {
      this.#evictions.watch();
      for (let i = 0; i < strings.length; i += ARGUMENTS) this.#push(...strings.slice(i, i + ARGUMENTS));
      return follow(this.#native.set(data, settings, by?.began), () => {
        if (this.#inFlight.size === 0) return;
        for (let at = 0; 3 * at < strings.length; at++) {
          this.#inFlight.overtake(flightOf(settings[2 * at + 1] as Kind, strings[3 * at] as string), by?.name);
        }
      });
    });
  }

  /** What a call has changed is told to whoever listens. */
  #tellAll(): void {
    this.#evictions.tell();
    this.#log.tell();
  }
}

/** An annotation's `nodeId`, which is its key, and its texts. */
type Fields = [nodeId: string, signature: string, summary: string, sourceSnippet: string];

/** Which kind of entry the options of a call name. */
function kindNamed(options: EntryOptions | undefined): Kind {
  return options === undefined ? TEXT : kindOf(readEntryName(options).modality);
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
