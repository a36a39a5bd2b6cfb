import { invalid, show } from '../call/input';
import { call, native } from '../native/addon';

/** Bytes that the process held around operations. */
export interface OperationMemory {
  /** When the latest operation began. */
  before: number;
  /** When it ended. */
  after: number;
  /**
   * The most that was seen at any of them: exact where an operation drove the process higher than it ever was, else what
   * was held at a beginning or an end.
   */
  peak: number;
  /** How much more was held after an operation than before it, on average. */
  averageGrowth: number;
  /** Operations that it was measured at. */
  samples: number;
}

/** What is known of one operation. Times in milliseconds; percentiles are off by at most 0.4 %. */
export interface OperationStats {
  name: string;
  /** How often it ran, failures included. */
  count: number;
  /** How often it failed. */
  errors: number;
  /** Items that it has processed. */
  items: number;
  /** All times together. */
  total: number;
  min: number;
  max: number;
  mean: number;
  p50: number;
  p95: number;
  p99: number;
  p999: number;
  /**
   * Items a second: from the beginning of the first operation to the end of the last one, and over the last minute (or
   * since that beginning). 0 where that is no time at all.
   */
  throughput: { wholeRun: number; lastMinute: number };
  /** `null` where it was not measured. */
  memory: OperationMemory | null;
  /** When the first one began, in milliseconds since 1970. */
  firstAt: number;
  /** When the last one ended, in milliseconds since 1970. */
  lastAt: number;
}

/** How one type of thing was found. */
export interface CacheTypeStats {
  type: string;
  hits: number;
  misses: number;
  /** 0–1. */
  hitRatio: number;
}

/** Work of several steps. Times in milliseconds. */
export interface CycleRecord {
  id: string;
  /** `'interrupted'`: its process ended before it did. */
  status: 'inProgress' | 'succeeded' | 'failed' | 'interrupted';
  /** Milliseconds since 1970. */
  startedAt: number;
  /** Milliseconds since 1970; `null` where nobody saw the end, as `duration`. */
  endedAt: number | null;
  duration: number | null;
  llmCalls: number;
  /** Of these, the ones that a cache answered. */
  cacheHits: number;
  llmTime: number;
  validations: number;
  validationTime: number;
  fileOperations: number;
  /** Bytes that the process held; as {@link OperationMemory}. */
  memory: { before: number; after: number; peak: number } | null;
}

/** All cycles since the beginning, those that are no longer kept one by one included. Times in milliseconds. */
export interface CycleSummary {
  /** `succeeded + failed + interrupted`. */
  count: number;
  succeeded: number;
  failed: number;
  interrupted: number;
  /** Cycles in progress. The totals below are of ended ones. */
  active: number;
  llmCalls: number;
  cacheHits: number;
  /** 0–1; 0 before the first call. */
  cacheHitRatio: number;
  llmTime: number;
  validations: number;
  validationTime: number;
  fileOperations: number;
  /** `null` before the first one has ended. */
  duration: { total: number; min: number; max: number; mean: number; p50: number; p95: number; p99: number; p999: number } | null;
}

/** One failure. */
export interface MonitorError {
  /** Milliseconds since 1970. */
  at: number;
  /** The operation. */
  name: string;
  message: string;
}

/** What the machine does, the container where it has a limit; at most a second old. */
export interface MachineUse {
  /** Bytes that this process holds. */
  processMemory: number;
  /** Bytes in use by all. */
  usedMemory: number;
  /** Bytes that there are. */
  totalMemory: number;
  /** Percent of the cores that this process may use. */
  cpuUsage: number;
  cpuCores: number;
}

/** See {@link PerformanceMonitor.getSummary}. */
export interface MonitorSummary {
  /** When the monitor was made or reset, in milliseconds since 1970. */
  startedAt: number;
  /** How long ago that is, in milliseconds. */
  uptime: number;
  /** Over all operations. */
  totals: { count: number; errors: number; items: number };
  operations: Record<string, OperationStats>;
  caches: { hits: number; misses: number; hitRatio: number; byType: Record<string, CacheTypeStats> };
  cycles: CycleSummary;
  /** The latest failures whose message is known, the oldest first: at most 100. */
  errors: MonitorError[];
  machine: MachineUse;
}

/** All that a monitor knows at one moment, as JSON can hold it. See {@link mergeSnapshots}. */
export interface MonitorSnapshot {
  format: 'embedcore-monitor';
  version: 1;
  /** Milliseconds since 1970. */
  takenAt: number;
  /** Milliseconds since 1970. */
  startedAt: number;
  /** By name. `histogram`: durations in nanoseconds and how many there are of each, in turn. */
  operations: (OperationStats & { histogram?: number[] })[];
  /** By type. */
  caches: CacheTypeStats[];
  cycles: {
    summary: CycleSummary;
    /** The latest ones that have ended, the oldest first. */
    recent: CycleRecord[];
    active: CycleRecord[];
    histogram: number[];
  };
  errors: MonitorError[];
  /** Not after merging. */
  machine?: MachineUse;
}

/**
 * One snapshot of several: counts are summed, percentiles are those of all durations together, throughput is that from
 * the first beginning to the last end, and the latest cycles and errors of all are kept.
 *
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what is no snapshot, or does not add up.
 */
export function mergeSnapshots(...snapshots: MonitorSnapshot[]): MonitorSnapshot {
  if (snapshots.length === 0) throw invalid('There are no snapshots to merge: pass at least one');
  const all = snapshots.map((snapshot, index) => {
    try {
      if (typeof snapshot === 'object' && snapshot !== null) return JSON.stringify(snapshot);
    } catch {
      // Circular, or with a BigInt in it.
    }
    throw invalid(`Snapshot ${index} is ${show(snapshot)}, not what snapshot() gives`, { index });
  });
  return JSON.parse(call(() => native().mergeSnapshots(all))) as MonitorSnapshot;
}
