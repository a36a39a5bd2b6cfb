// What a cache tells about itself.

import type { Modality } from './content';
import type { SharedStats } from './shared';

/** How the cache does for what was made from one modality. */
export interface ModalityStats {
  /** Entries that were looked up: `hits + misses`. */
  totalRequests: number;
  hits: number;
  misses: number;
  /** 0–1; 0 before the first lookup. */
  hitRatio: number;
  /** Entries that were set. */
  sets: number;
  /** Entries in memory. */
  currentEntries: number;
  /** Bytes that they take, bookkeeping included. */
  currentSizeBytes: number;
}

/** How the cache does, since it was made. Every number is measured. */
export interface CacheStats {
  /** Entries that were looked up: `hits + misses`. */
  totalRequests: number;
  hits: number;
  misses: number;
  /** 0–1; 0 before the first lookup. */
  hitRatio: number;
  /** 0–1; 0 before the first lookup. */
  missRatio: number;
  /** Entries in memory. */
  currentEntries: number;
  /** Bytes that they take, bookkeeping included. */
  currentSizeBytes: number;
  maxEntries: number;
  maxSizeBytes: number;
  /** How full memory is, by entries or by bytes, whichever is fuller, 0–1. */
  utilization: number;
  /** Mean time of a lookup, waiting for the disk included, in milliseconds. */
  avgAccessTimeMs: number;
  /** The same. */
  averageAccessTime: number;
  /** Entries that were set. */
  sets: number;
  /** Entries that could not be kept, although whoever had computed them was answered. Each is told by an event. */
  rejected: number;
  /** Entries that left memory. Those that were not deleted or replaced stay on disk. */
  evictions: number;
  evictionCauses: { expired: number; explicit: number; replaced: number; size: number };
  missCauses: { absent: number; expired: number; changed: number; damaged: number };
  memoryHits: number;
  diskHits: number;
  sharedHits: number;
  /** Of `currentSizeBytes`, what vectors and metadata take. */
  payloadBytes: number;
  /** The same by what embeddings were made from; together they are what is said above. */
  modalities: Record<Modality, ModalityStats>;
  /** The file; `null` without `persistPath`. */
  disk: {
    /** Whether it is in use: not before it was opened, and not for a while after an error. */
    available: boolean;
    /** Entries in it, of all processes, as of the last write. */
    entries: number;
    sizeBytes: number;
    /** Entries that wait to be written. */
    queued: number;
    written: number;
    /** Entries that could not be written. */
    lost: number;
    /** Entries that were deleted to keep `maxDiskMB`. */
    evicted: number;
    /** Entries that were damaged, and were deleted. */
    damaged: number;
    errors: number;
  } | null;
  /** The server; `null` without `shared`. */
  shared: SharedStats | null;
}

/** One recent call. */
export interface CacheSample {
  /** When it was answered, in milliseconds since 1970. */
  timestamp: number;
  /** How long it took, in milliseconds; of a call for many entries, the share of one. */
  accessTime: number;
  /** Share of its entries that were there, 0–1. */
  hitRatio: number;
}

/** See {@link IntelligentEmbeddingCache.getPerformanceMetrics}. */
export interface CachePerformanceMetrics {
  stats: CacheStats;
  /** The latest calls, the oldest first. */
  recentSamples: CacheSample[];
  /** Share of the memory in use that vectors and metadata take, 0–1; the rest is bookkeeping. 0 while it is empty. */
  memoryEfficiency: number;
  /**
   * 0–1: seven tenths the hit ratio, three tenths the share of set entries that need not be evicted for want of space.
   * 0 before the first lookup.
   */
  performanceScore: number;
}

/** What maintenance did. */
export interface CacheMaintenance {
  expiredInMemory: number;
  expiredOnDisk: number;
  evictedOnDisk: number;
  /** Bytes that the file gave back. */
  freedBytes: number;
  /** Whether all was done that there was to do; if not, the next time goes on. */
  complete: boolean;
}

/** What is published on the `diagnostics_channel` `embedcore:cache`. */
export type CacheEvent =
  | { type: 'evicted'; cause: 'expired' | 'explicit' | 'replaced' | 'size'; entries: number }
  | { type: 'hit-ratio-low'; hitRatio: number; threshold: number }
  | { type: 'rows-damaged'; path: string; rows: number }
  | { type: 'index-rebuilt'; path: string }
  | { type: 'storage-failed'; path: string; reason: string }
  | { type: 'storage-restored'; path: string }
  | { type: 'storage-refused'; path: string; reason: string }
  | { type: 'file-set-aside'; path: string; movedTo: string; reason: string }
  | { type: 'shared-failed'; server: string; reason: string }
  | { type: 'shared-restored'; server: string }
  | { type: 'shared-damaged'; server: string; values: number }
  | { type: 'rejected'; entries: number; reason: string };

/** An event for a person. */
export function textOf(event: CacheEvent): string {
  switch (event.type) {
    case 'evicted':
      return `${event.entries} entries of the cache were evicted (${event.cause})`;
    case 'hit-ratio-low':
      return `The cache's hit ratio is ${event.hitRatio.toFixed(2)}, below ${event.threshold}`;
    case 'rows-damaged':
      return `${event.rows} entries of the cache's file ${event.path} are damaged and were deleted; they will be computed anew`;
    case 'index-rebuilt':
      return `The damaged index of the cache's file ${event.path} was made anew`;
    case 'storage-failed':
      return `The cache works without its file ${event.path} for a while: ${event.reason}`;
    case 'storage-restored':
      return `The cache's file ${event.path} is in use again`;
    case 'storage-refused':
      return `The cache works without its file ${event.path}: ${event.reason}`;
    case 'file-set-aside':
      return `The cache's file ${event.path} was moved to ${event.movedTo} and replaced: ${event.reason}`;
    case 'shared-failed':
      return `The cache works without the server ${event.server} for a while: ${event.reason}`;
    case 'shared-restored':
      return `The cache's server ${event.server} is in use again`;
    case 'shared-damaged':
      return `${event.values} values on the cache's server ${event.server} are not what was written; they will be computed anew`;
    case 'rejected':
      return `${event.entries === 1 ? 'An entry was' : `${event.entries} entries were`} not kept by the cache: ${event.reason}`;
  }
}
