import { Evictions, maintain, takeLease, within } from '../cache/maintenance';
import type { CacheMaintenance } from '../cache/report';
import { EmbeddingError, toEmbeddingError } from '../call/errors';
import { invalid, readGiven, requireArray, show } from '../call/input';
import { logOf, type Log } from '../call/logger';
import { crossing, refused, type Given } from '../call/options';
import { CallOrder, follow } from '../call/order';
import { SingleFlight, type Flight } from '../call/single-flight';
import { call, native, settle, settled } from '../native/addon';
import type { NativePrompt, NativeResults, NativeStored } from '../native/types';
import { errorOf, events, publish, publisher } from './events';
import { isMonitor, readInvalidate, readOptions, type InferenceCacheOptions, type InvalidateOptions } from './options';
import { PromptVectors } from './prompt-vectors';
import {
  argumentParts,
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
} from './values';

interface Settings {
  maintenanceInterval: number;
  shared: boolean;
  longestPrompt: number;
}

/** What a call is about. */
interface Asked extends KeyParts {
  key: string;
}

/** What is set beside a value, and under which key. */
interface About {
  asked: Asked;
  setting: Setting;
}

interface Result extends About {
  kept: Kept;
  /** When its computation did: what other processes have written since then is newer. */
  began?: number;
}

/** Deletions that have taken effect: how many there were, once the file knows of them. */
interface Deleted {
  deleted: number | Promise<number>;
}

/** What became of a computation, for all who wait. */
interface Landed {
  kept: Kept;
  fromCache: boolean;
  /** JSON, or nothing. */
  metadata?: string;
  /** Of a near hit only. */
  similarity?: number;
  matched?: string;
}

/** How long `close` waits for vectors of prompts; and how long a lookup does, for those of others that were set before. */
const DRAIN_MS = 5000;
const OTHERS_MS = 1000;

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
  readonly #order = new CallOrder();
  readonly #inFlight = new SingleFlight<Landed, About>();
  /** Prompts whose vectors are being made, to find results that were set. */
  readonly #prompts = new SingleFlight<void, About>();
  readonly #evictions: Evictions;
  readonly #timer: NodeJS.Timeout;
  #closed: Promise<void> | undefined;

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
    this.#native = call(() => new (native().NativeResults)(crossing(rest), publisher(log)));
    this.#settings = JSON.parse(this.#native.settings()) as Settings;
    this.#evictions = new Evictions(events, () => this.#native.evicted(), publish);
    this.#timer = maintain(new WeakRef(this), this.#settings.maintenanceInterval);
  }

  /** The result that is made from `content`, or `null`. */
  async get<T = unknown>(content: InferenceContent, options: InferenceKeyOptions = {}): Promise<CachedInference<T> | null> {
    return this.#get<T>(this.#asked(content, readKey(options)));
  }

  /** Sets the result that is made from `content`. It is an answer at once; `flush` waits for the file. */
  async set(content: InferenceContent, value: unknown, options: InferenceSetOptions = {}): Promise<void> {
    const given = readSetting(options);
    await this.#set([{ asked: this.#asked(content, given), kept: keep(value), setting: settingOf(given) }]);
  }

  /**
   * Sets the value that `value` resolves with, once it does: unless something newer was set, deleted, invalidated or cleared
   * since this call, or it cannot be kept, as in {@link getOrCompute}. Lookups do not wait for it. A rejection sets nothing, and
   * is passed on.
   */
  async setLater(content: InferenceContent, value: PromiseLike<unknown>, options: InferenceSetOptions = {}): Promise<void> {
    const landing = Promise.resolve(value);
    // Should the call be refused, its rejection is nobody's.
    landing.catch(() => {});
    const given = readSetting(options);
    const about = { asked: this.#asked(content, given), setting: settingOf(given), began: this.#native.now() };
    // By a name of its own, so that nobody joins it.
    await this.#inFlight.begin(about.asked.key, Symbol(), about, [], async (flight) => {
      const kept = keep(await landing);
      await this.#keep({ ...about, kept }, flight);
      return { kept, fromCache: false };
    });
  }

  /** Looks many results up, in their order. */
  async getMany<T = unknown>(lookups: readonly InferenceLookup[]): Promise<(CachedInference<T> | null)[]> {
    requireArray(lookups, '{ content, type?, params?, … }');
    // Not `map`, which leaves holes out.
    const asked = Array.from(readGiven('The lookups', () => Array.from(lookups)), (lookup, at) => inEntry(at, () => {
      const { content, ...given } = readLookup(lookup, `lookups[${at}]`);
      return this.#asked(content, given);
    }));
    return Promise.all(asked.map((one) => this.#get<T>(one)));
  }

  /** Sets many results: all of them or, when one is refused, none. */
  async setMany(entries: readonly InferenceEntry[]): Promise<void> {
    requireArray(entries, '{ content, value, type?, params?, … }');
    const all = Array.from(readGiven('The entries', () => Array.from(entries)), (entry, at) => inEntry(at, () => {
      const { content, value, ...given } = readEntry(entry, `entries[${at}]`);
      return { asked: this.#asked(content, given), kept: keep(value), setting: settingOf(given) };
    }));
    if (all.length > 0) await this.#set(all);
  }

  /**
   * The result that is made from `content`: from the cache or, if it is not there, from `compute`, whose value is set.
   * However many ask at the same time, `compute` is called once, and with `persistPath` in one process only; its failure
   * reaches all who wait in this process and is not kept. The value is what a later call will get: as it comes out of
   * JSON, and a copy for everybody.
   *
   * What is set, deleted, invalidated or cleared meanwhile is newer: then the value is answered, but not kept. So it is
   * where it cannot be kept, because it is too large or the cache was closed meanwhile: that is counted, and published as
   * a `rejected` event.
   */
  async getOrCompute<T>(
    content: InferenceContent,
    options: InferenceSetOptions,
    compute: () => T | Promise<T>,
  ): Promise<InferenceAnswer<T>> {
    if (typeof compute !== 'function') throw invalid(`compute is ${show(compute)}, not a function`);
    const given = readSetting(options);
    // What is wrong with these is better known before than after an expensive call, during which they may change.
    return this.#getOrCompute(this.#asked(content, given), settingOf(given), compute);
  }

  /**
   * The function, with its results cached: by its name, `params`, and its arguments, which must be JSON, or bytes at any
   * depth; not by `this`. A single text as its argument can be found by its meaning, too.
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
    const parts = keyParts('-', settings);
    const setting = settingOf(settings);
    const cache = this;
    const wrapped = async function (this: unknown, ...args: A): Promise<R> {
      const asked = cache.#keyed({ ...parts, ...argumentParts(args) });
      return (await cache.#getOrCompute<R>(asked, setting, () => fn.apply(this, args))).value;
    };
    return Object.defineProperties(wrapped, { name: { value: name }, length: { value: fn.length } });
  }

  /** Whether {@link get} would answer with a result of exactly this content. Counts in no statistics. */
  async has(content: InferenceContent, options: InferenceKeyOptions = {}): Promise<boolean> {
    const { key } = this.#asked(content, readKey(options));
    return settled(() => this.#order.read(key, () => this.#native.has(key)));
  }

  /**
   * Deletes a result; whether there was one that {@link get} would have given. Gone from memory at once; resolves when the file knows.
   * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED` when the file cannot be told: another program has held it for 8
   * seconds, or it has the result and cannot be written. It goes from the file as soon as that is possible, if this cache is
   * still open then.
   */
  async delete(content: InferenceContent, options: InferenceKeyOptions = {}): Promise<boolean> {
    const { key } = this.#asked(content, readKey(options));
    return (
      (await this.#deleted(() =>
        this.#order.change(key, () => {
          this.#evictions.watch();
          const deleted = this.#native.delete(key);
          this.#overtake(key);
          return { deleted };
        }),
      )) > 0
    );
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
    return this.#invalidate(kind, all);
  }

  /** Deletes the results whose time is over; how many there were: in the file, where there is one. */
  async clearExpired(): Promise<number> {
    this.#requireOpen();
    return this.#deleted(() =>
      this.#order.changeAll(() => {
        this.#evictions.watch();
        return { deleted: this.#native.clearExpired() };
      }),
    );
  }

  /** Deletes all results of this namespace, on disk, too; how many there were. */
  async clear(): Promise<number> {
    this.#requireOpen();
    return this.#invalidate(undefined, []);
  }

  /** Drops what has expired and gives space back. Also runs every `maintenanceInterval`. */
  async optimize(): Promise<CacheMaintenance> {
    this.#requireOpen();
    this.#evictions.watch();
    const did = JSON.parse(await settle(() => this.#native.optimize())) as CacheMaintenance;
    this.#evictions.tell();
    return did;
  }

  /**
   * Waits until everything that was set before is in the file and survives even a loss of power.
   * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED` when entries were lost since the last call, or another program has
   * held the file for 8 seconds: then they still wait to be written.
   */
  async flush(): Promise<void> {
    this.#requireOpen();
    const prompts = this.#prompts.settled();
    await settled(() => this.#order.last(() => prompts.then(() => this.#native.flush())));
  }

  /** How the cache does, by type. Looks at all that memory holds: some 0.1 ms for 1000 results. */
  getStats(): InferenceCacheStats {
    return JSON.parse(this.#native.stats()) as InferenceCacheStats;
  }

  /**
   * Writes what is not yet written, closes the file and frees memory, after all calls that were made before; vectors of
   * prompts that are still being made get five seconds. May be called any number of times.
   */
  close(): Promise<void> {
    clearInterval(this.#timer);
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    if (this.#prompts.size > 0) await within(DRAIN_MS, this.#prompts.settled());
    await settled(() => this.#order.last(() => this.#native.close()));
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
    return this.#keyed(keyParts(content, given));
  }

  #keyed(parts: KeyParts): Asked {
    this.#requireOpen();
    const { type, params, modality, form, content } = parts;
    return { ...parts, key: call(() => this.#native.key(type, params, modality, form, content)) };
  }

  async #get<T>(asked: Asked): Promise<CachedInference<T> | null> {
    const { type } = asked;
    const meant = this.#meant(asked);
    const answer = (await this.#order.read(asked.key, () => this.#exact(asked, !meant))) ?? (meant ? await this.#near(asked, meant) : null);
    this.#count(type, answer !== null);
    return answer && cachedOf<T>(answer, type);
  }

  /** The result of exactly this content. `last`: nothing near will be asked for. */
  #exact({ type, key }: Asked, last: boolean): NativeStored | null | PromiseLike<NativeStored | null> {
    this.#evictions.watch();
    return follow(settled(() => this.#native.get(type, key, last)), (found) => {
      if (!found) this.#evictions.tell();
      return found;
    });
  }

  #count(type: string, hit: boolean): void {
    try {
      if (hit) this.#monitor?.cacheHit(type);
      else this.#monitor?.cacheMiss(type);
    } catch {
      // What a monitor does is no reason to fail the call that it is told about.
    }
  }

  /** Whether its content is a prompt that could be found by its meaning. */
  #isPrompt({ modality, form, content }: Asked): boolean {
    const isText = typeof content === 'string' && form === 'text' && modality === 'text';
    return this.#vectors !== undefined && isText && Buffer.byteLength(content) <= this.#settings.longestPrompt;
  }

  /** Of what may be found by its meaning: all prompts that were set before can be found from then on. */
  #meant(asked: Asked): Promise<unknown> | undefined {
    return asked.semantic && this.#isPrompt(asked) ? this.#prompts.settled() : undefined;
  }

  /** The result of a prompt that means the same. Counted as a hit or a miss. */
  async #near(asked: Asked, others: Promise<unknown>): Promise<NativeStored | null> {
    const prompt = await this.#prompt(asked);
    if (!prompt) {
      this.#native.count(asked.type, false);
      return null;
    }
    // Nobody waits for an embedder that has hung at another prompt.
    await within(OTHERS_MS, others);
    const { threshold, limit } = this.#vectors!;
    const near = await settled(() => this.#order.readAll(() => this.#native.near(asked.type, prompt, threshold, limit)));
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
      const { vector, model } = await this.#vectors!.raw(text);
      return { scope: this.#native.scope(type, params, modality, model), text, vector };
    } catch (thrown) {
      publish({ type: 'semantic-failed', error: errorOf(thrown) }, this.#log);
      return undefined;
    }
  }

  /** Results are there at once; prompts that find them follow when their vectors are made. */
  async #set(all: readonly Result[]): Promise<void> {
    const commit = () => this.#commit(all);
    const [first] = all;
    const done = settled(() => (all.length === 1 ? this.#order.change(first!.asked.key, commit) : this.#order.changeAll(commit)));
    const prompts = all.filter(({ asked }) => asked.semantic && this.#isPrompt(asked)).map((one) => this.#attach(one, done));
    await done;
    this.#evictions.tell();
    await Promise.all(prompts);
  }

  /** Sets results, and has what was begun before under their keys know that it is older. */
  #commit(all: readonly Result[]): void | PromiseLike<void> {
    this.#evictions.watch();
    const results = all.map(({ asked, kept, setting, began }) => {
      const exact = !asked.semantic && this.#isPrompt(asked);
      return { kind: asked.type, key: asked.key, ...kept, ...setting, exact, ...(began !== undefined && { began }) };
    });
    return follow(this.#native.set(results), () => all.forEach((one) => this.#overtake(one.asked.key, one)));
  }

  /** Has a prompt find its result, once that is `set`, and unless something newer was written meanwhile. */
  #attach(result: Result, set: void | Promise<void>): Promise<void> {
    const { asked } = result;
    return this.#prompts.begin(asked.key, result, result, [], async (flight) => {
      const prompt = await this.#prompt(asked);
      // What was refused, the caller of `set` knows.
      const isSet = await Promise.resolve(set).then(() => true, () => false);
      if (!prompt || !isSet) return;
      try {
        await settled(() => this.#order.change(asked.key, () => (flight.overtaken ? undefined : this.#native.attach(asked.key, prompt))));
      } catch (thrown) {
        publish({ type: 'semantic-failed', error: errorOf(thrown) }, this.#log);
      }
    });
  }

  /** `by`: what was set, whose prompt was begun then. */
  #overtake(key: string, by?: Result): void {
    this.#inFlight.overtake(key);
    this.#prompts.overtake(key, by);
  }

  async #invalidate(type: string | undefined, tags: string[]): Promise<number> {
    const covers = ({ asked, setting }: About) =>
      (type === undefined || asked.type === type) && (tags.length === 0 || setting.tags.some((tag) => tags.includes(tag)));
    return this.#deleted(() =>
      this.#order.changeAll(() => {
        this.#evictions.watch();
        const deleted = this.#native.invalidate(type, tags);
        this.#inFlight.overtakeAll(covers);
        this.#prompts.overtakeAll(covers);
        return { deleted };
      }),
    );
  }

  /** What is deleted is gone when `work` is done: only who has asked for it waits until the file knows. */
  async #deleted(work: () => Deleted | PromiseLike<Deleted>): Promise<number> {
    const { deleted } = await settled(work);
    const count = await settled(() => deleted);
    this.#evictions.tell();
    return count;
  }

  async #getOrCompute<T>(asked: Asked, setting: Setting, compute: () => T | Promise<T>): Promise<InferenceAnswer<T>> {
    const { key, type } = asked;
    const meant = this.#meant(asked);
    const { asking } = this.#inFlight;
    const begun = await this.#order.read(key, () =>
      follow(this.#exact(asked, !meant), (found): { found: NativeStored } | { landing: Promise<Landed>; waits: boolean } => {
        if (found) return { found };
        const joined = this.#inFlight.joined(key, '', asking);
        if (joined) return { landing: joined, waits: true };
        const landing = this.#inFlight.begin(key, '', { asked, setting }, asking, (flight) => this.#compute(asked, setting, compute, meant, flight));
        return { landing, waits: false };
      }),
    );
    if ('found' in begun) {
      this.#count(type, true);
      return answerOf(cachedOf<T>(begun.found, type));
    }
    let landed: Landed | undefined;
    try {
      landed = await begun.landing;
    } finally {
      const near = landed?.similarity !== undefined;
      if (meant && begun.waits) this.#native.count(type, near);
      this.#count(type, near);
    }
    const { kept, fromCache, metadata, similarity, matched } = landed;
    return {
      value: unkeep<T>(kept),
      fromCache: fromCache || begun.waits,
      ...(metadata && { metadata: JSON.parse(metadata) as unknown }),
      ...(similarity != null && { similarity, matchedContent: matched! }),
    };
  }

  async #compute<T>(
    asked: Asked,
    setting: Setting,
    compute: () => T | Promise<T>,
    meant: Promise<unknown> | undefined,
    flight: Flight<About>,
  ): Promise<Landed> {
    const { key } = asked;
    if (meant) {
      const near = await this.#near(asked, meant);
      if (near) return landedOf(near);
      // What was set by hand meanwhile is newer than anything that would be computed now.
      const found = flight.overtaken ? await settled(() => this.#native.glance(key)) : null;
      if (found) return landedOf(found);
    }
    const lease = this.#settings.shared
      ? await takeLease({
          acquire: (lifetime) => settle(() => this.#native.acquire(key, lifetime)),
          release: () => this.#native.release(key),
          there: () => settle(async () => this.#native.has(key)),
        })
      : undefined;
    try {
      const found = lease === 'there' ? await settled(() => this.#native.glance(key)) : null;
      if (found) return landedOf(found);
      const began = this.#native.now();
      const kept = await follow(flight.call(compute), keep);
      await this.#keep({ asked, kept, setting, began }, flight);
      return { kept, fromCache: false, metadata: setting.metadata };
    } finally {
      if (typeof lease === 'object') lease.release();
    }
  }

  /** Keeps what was computed, unless something newer was written meanwhile. The value is there: nothing of this fails. */
  async #keep(result: Result, flight: Flight<About>): Promise<void> {
    const { asked } = result;
    let kept = false;
    try {
      await settled(() => this.#order.change(asked.key, () => {
        if (flight.overtaken) return undefined;
        kept = true;
        return this.#commit([result]);
      }));
      this.#evictions.tell();
    } catch (thrown) {
      this.#native.reject(`A computed result of ${asked.type}: ${(thrown as EmbeddingError).message}`);
      return;
    }
    if (kept && asked.semantic && this.#isPrompt(asked)) await this.#attach(result, undefined);
  }
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

function landedOf({ format, value, metadata, similarity, matched }: NativeStored): Landed {
  return {
    kept: { format, value },
    fromCache: true,
    ...(metadata != null && { metadata }),
    ...(similarity != null && { similarity, matched: matched! }),
  };
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
