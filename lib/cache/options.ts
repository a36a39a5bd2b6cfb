// The options of a cache of embeddings, and how they are read.

import type { Logger } from '../call/logger';
import { listOf, optionReader, untouched } from '../call/options';
import { pathNow } from '../call/paths';
import type { Modality } from './content';
import { readShared, type SharedOptions } from './shared';

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
  /** How long an entry is an answer, in seconds; 0: for ever. Default 3600, with `persistPath` for ever. */
  ttlSeconds?: number | undefined;
  /** The same in milliseconds. */
  ttlMs?: number | undefined;
  /** Whether an entry answers only for the content that it was set with. Default true. */
  enableContentValidation?: boolean | undefined;
  /** How often {@link IntelligentEmbeddingCache.optimize} runs by itself, in milliseconds. Default 300000. */
  maintenanceInterval?: number | undefined;
  /** Hit ratio, 0–1, below which maintenance publishes a `hit-ratio-low` event. Default 0.7. */
  hitRatioThreshold?: number | undefined;
  /**
   * A SQLite file that keeps the entries; any number of processes may share it, and see what others change in it a quarter of
   * a second later. A relative path counts from the working directory as it is when the cache is made. A file that is none of
   * a cache, or of a later release, is refused and left as it is; one that can only be read is read. Default: memory only.
   */
  persistPath?: string | undefined;
  /**
   * Most of that file, in MB; its log takes about half as much again, 16 MB at most, unless one entry is larger.
   * What has no room in it is not written, and evicts nothing: a `rejected` event tells. Default: no limit.
   */
  maxDiskMB?: number | undefined;
  /**
   * A server that many machines share: what neither memory nor the file has is asked there, many keys in one round trip, and
   * what is set is written there behind the call. Trouble with it never fails a call: see docs/distributed.md. Default: none.
   */
  shared?: SharedOptions | undefined;
  /**
   * `'cluster'`: of all machines that share the server, one computes what none of them has, as far as it can be asked; the
   * others wait for it. Default `'process'`: so it is in one process, and with `persistPath` among those of one machine.
   */
  singleFlight?: 'process' | 'cluster' | undefined;
  /** Keeps entries of different uses of one file, or one server, apart. */
  namespace?: string | undefined;
  /** Keeps vectors of different models apart. */
  model?: string | undefined;
  /** How values are stored. `'f16'` takes half the space, with a relative error up to 2⁻¹¹. Default `'f32'`. */
  vectorPrecision?: 'f32' | 'f16' | undefined;
  /** Told of lookups, validations and evictions, of trouble with the file or the server, and of a low hit ratio: `console`, for example. Default: nobody; nothing is printed. */
  logger?: Logger | undefined;
}

/** Options of {@link IntelligentEmbeddingCache.findSimilar}. */
export interface SimilarOptions {
  /** Least cosine of an answer, -1–1. Default -1: the best are answered, however far they are. */
  threshold?: number | undefined;
  /** Most answers. Default 10. */
  limit?: number | undefined;
  /** Among entries of which modality. Default `'text'`. */
  modality?: Modality | undefined;
  /** Among entries of several modalities, whose vectors one model, or models that were trained together, have made. */
  modalities?: readonly Modality[] | undefined;
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
  persistPath: pathNow,
  maxDiskMB: true,
  shared: readShared,
  singleFlight: true,
  namespace: true,
  model: true,
  vectorPrecision: true,
  logger: true,
});

export const readSimilar = optionReader<SimilarOptions>({ threshold: true, limit: true, modality: untouched, modalities: listOf(untouched) });
