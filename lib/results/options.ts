// The options of a cache of results, and how they are read.

import { readShared, type SharedOptions } from '../cache/shared';
import type { Logger } from '../call/logger';
import { optionReader, read, record } from '../call/options';
import { pathNow } from '../call/paths';
import { readSemantic, type SemanticOptions } from './prompt-vectors';

/** Options of {@link InferenceCache}. */
export interface InferenceCacheOptions {
  /** Most entries in memory. Default 10000. */
  maxEntries?: number | undefined;
  /** Most memory, bookkeeping included, in MB (1 MB = 1024 × 1024 bytes). Default 100. */
  maxMemoryMB?: number | undefined;
  /** How long a result of a type without a time of its own is an answer, in seconds; 0: for ever. Default 24 hours. */
  ttlSeconds?: number | undefined;
  /**
   * The same by type. Default 30 days for `text_inference`, `vision_inference`, `audio_inference` and `embedding`, 24 hours
   * for `api`.
   */
  ttlSecondsByType?: Record<string, number> | undefined;
  /** Largest value, in MB of its JSON or its own: up to 63. Default 16. */
  maxValueMB?: number | undefined;
  /** How often {@link InferenceCache.optimize} runs by itself, in milliseconds. Default 300000. */
  maintenanceInterval?: number | undefined;
  /**
   * A SQLite file that keeps the results; any number of processes may share it, and caches of embeddings, too. See
   * {@link CacheOptions.persistPath}. Default: memory only.
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
  /** Keeps different uses of one file, or one server, apart. */
  namespace?: string | undefined;
  /** Finds results of prompts that mean the same. Default: only of the same content. */
  semantic?: SemanticOptions | undefined;
  /** Told of each hit and miss, by type: a `PerformanceMonitor`. */
  monitor?: { cacheHit(type: string): void; cacheMiss(type: string): void } | undefined;
  /** Told what happens to the file, and of near hits. */
  logger?: Logger | undefined;
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

export const readOptions = optionReader<InferenceCacheOptions>({
  maxEntries: true,
  maxMemoryMB: true,
  ttlSeconds: true,
  ttlSecondsByType: record,
  maxValueMB: true,
  maintenanceInterval: true,
  persistPath: pathNow,
  maxDiskMB: true,
  shared: readShared,
  singleFlight: true,
  namespace: true,
  semantic: readSemantic,
  monitor: true,
  logger: true,
});

export const readInvalidate = optionReader<InvalidateOptions>({ type: true, tag: true, tags: true });

/** Whether it is told of hits and misses: a monitor of any copy of this package, or what stands in for one. */
export function isMonitor(monitor: unknown): boolean {
  if (typeof monitor !== 'object' || monitor === null) return false;
  return (['cacheHit', 'cacheMiss'] as const).every((name) => typeof read(monitor, name, `monitor.${name}`) === 'function');
}
