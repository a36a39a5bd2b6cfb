import { nativeOf } from '../cache/embedding-cache';
import { readCache } from '../cache/options';
import { EmbeddingError } from '../call/errors';
import { instanceOr, naming, refused } from '../call/options';
import { IntelligentEmbeddingCache, prepareText, type CacheOptions, type CacheStats } from '../index';
import { settle } from '../native/addon';
import type { NativeGenerated, NativeModelKey } from '../native/types';
import type { Input, InputType, WorkerModel } from './jobs';

/** Reads the option `cache`. */
export const readSharedCache = instanceOr(IntelligentEmbeddingCache, readCache);

/** What generators assume of a text where nobody knows how much of it the model sees, in tokens. */
const UNKNOWN_LENGTH = 2 ** 20;

/** How long the tier on the queue's own server may take for an answer, in milliseconds: here nobody can go on without it. */
const COMMAND_MS = 5000;
/** How often it is asked whether the tier is there again, in milliseconds. */
const LOOK_MS = 100;
/** A flush that takes longer, in milliseconds, has given up. */
const FLUSH_MS = 1000;

/** Whether others see what is set in a cache. */
export function isShared(cache: IntelligentEmbeddingCache): boolean {
  const { disk, shared } = statsOf(cache);
  return disk !== null || shared !== null;
}

function statsOf(cache: IntelligentEmbeddingCache): Pick<CacheStats, 'disk' | 'shared'> {
  return JSON.parse(nativeOf(cache).stats()) as CacheStats;
}

/** What is embedded for an input, by a model. */
export function textOf(input: Input, { maxLength }: WorkerModel): string {
  if (typeof input === 'string') return input;
  const [nodeId, signature, summary, sourceSnippet] = input as [string, string, string, string];
  return prepareText({ nodeId, signature, summary, sourceSnippet }, maxLength || UNKNOWN_LENGTH);
}

/** A vector that a worker has computed, and what is known of its text. */
export interface Embedded {
  vector: ArrayLike<number>;
  tokenCount: number;
  truncated: boolean;
  confidence: number;
}

/**
 * Vectors in a cache that workers and producers share: under the keys of the workers' generators, so that each is there once,
 * for queues and for whoever else uses that model and that cache.
 */
export class SharedVectors {
  readonly cache: IntelligentEmbeddingCache;
  readonly #own: boolean;

  /** `url`: of the server on which the tier is where nothing else is given. */
  constructor(given: IntelligentEmbeddingCache | CacheOptions | boolean | undefined, url: string | undefined) {
    if (typeof given === 'boolean') throw refused('cache', 'vectors travel through it: pass the options of a cache, or one that workers and producers share');
    this.#own = !(given instanceof IntelligentEmbeddingCache);
    if (given === undefined && url === undefined) throw refused('cache', 'pass one with the URL of the server for vectors: { shared: { url } }');
    this.cache = given instanceof IntelligentEmbeddingCache
      ? given
      : naming((option) => `cache.${option}`, () => new IntelligentEmbeddingCache(given ?? { shared: { url: url!, commandTimeoutMs: COMMAND_MS }, ttlSeconds: 0 }));
    if (!isShared(this.cache)) throw refused('cache', 'nobody else sees what is in it: pass one with `shared: { url }` or, on one machine, with `persistPath`');
  }

  /** What is known of texts, in their order. */
  async find(model: WorkerModel, inputType: InputType, texts: readonly string[]): Promise<(Embedded | undefined)[]> {
    const found: NativeGenerated = await settle(() => nativeOf(this.cache).generated(keyOf(model, inputType), [...texts]));
    const [hits, data, counts, truncated, confidences] = [found.hits(), found.data(), found.tokenCounts(), found.truncated(), found.confidences()];
    return texts.map((_, at) => {
      if (hits[at] !== 1) return undefined;
      const vector = data.subarray(at * model.dimensions, (at + 1) * model.dimensions);
      return { vector, tokenCount: counts[at]!, truncated: truncated[at] === 1, confidence: confidences[at]! };
    });
  }

  /** Sets what was computed. */
  async keep(model: WorkerModel, inputType: InputType, texts: readonly string[], embedded: readonly Embedded[]): Promise<void> {
    const data = new Float32Array(texts.length * model.dimensions);
    for (const [at, { vector }] of embedded.entries()) data.set(vector, at * model.dimensions);
    const counts = Uint32Array.from(embedded, ({ tokenCount }) => tokenCount);
    const truncated = Uint8Array.from(embedded, ({ truncated }) => Number(truncated));
    const confidences = Float64Array.from(embedded, ({ confidence }) => confidence);
    await settle(() => nativeOf(this.cache).keepGenerated(keyOf(model, inputType), [...texts], data, counts, truncated, confidences));
  }

  /** Waits until the tier can be asked: so long at most. What is looked up while it cannot is not there, or so it seems. */
  async reachable(timeoutMs: number): Promise<boolean> {
    for (const until = performance.now() + timeoutMs; ; ) {
      const { shared } = statsOf(this.cache);
      if (!shared || shared.state === 'ready') return true;
      if (performance.now() > until) return false;
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  /**
   * Has `set` set vectors until others see them.
   * @throws `CACHE_STORAGE_FAILED` where the tier does not take them within `timeoutMs`.
   */
  async written(set: () => Promise<void>, timeoutMs: number): Promise<void> {
    for (const until = performance.now() + timeoutMs; ; ) {
      const before = statsOf(this.cache).shared?.dropped;
      await set();
      const began = performance.now();
      await this.cache.flush();
      const { shared } = statsOf(this.cache);
      const inTime = performance.now() - began < FLUSH_MS || shared?.queued === 0;
      if (!shared || (shared.state === 'ready' && shared.dropped === before && inTime)) return;
      if (performance.now() > until || !(await this.reachable(until - performance.now()))) {
        throw new EmbeddingError('CACHE_STORAGE_FAILED', `The shared tier took no vectors for ${timeoutMs} ms: look at its server, its memory and its maxmemory-policy`, { retryable: true });
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  async close(): Promise<void> {
    if (this.#own) await this.cache.close();
  }
}

function keyOf({ fingerprint, dimensions }: WorkerModel, inputType: InputType): NativeModelKey {
  return { fingerprint, dimensions, query: inputType === 'query' };
}
