// What a monitor is told: options, durations, sizes; and how they are read.

import { EmbeddingError, messageOf } from '../call/errors';
import { invalid, requireWhole, show } from '../call/input';
import { optionReader, untouched, type Names } from '../call/options';
import { pathNow } from '../call/paths';

/** Longest duration, in milliseconds; see `MAX_MS` in `src/metrics/distribution.rs`. */
export const MAX_MS = 1e12;

/** Options of {@link PerformanceMonitor}. */
export interface MonitorOptions {
  /** Ended cycles that are kept one by one; of all others, the totals. Default 1000. */
  maxCycles?: number | undefined;
  /**
   * A file that keeps cycles when the process ends, for one process at a time. It is read at once and written, whole or
   * not at all, `persistInterval` after a cycle ends and when the process does. Default: memory only.
   */
  persistPath?: string | undefined;
  /** Longest time that an ended cycle is not yet in the file, in milliseconds. Default 5000. */
  persistInterval?: number | undefined;
}

/** What is known of an operation beside its time. */
export interface RecordOptions {
  /** Items that it has processed: a whole number from 0. Default 1. */
  batchSize?: number | undefined;
  /** Whether it succeeded; what failed has processed nothing. Default true. */
  success?: boolean | undefined;
  /** Memory in bytes: what was held, or what was held before and after and the most between. */
  memory?: number | { before: number; after: number; peak?: number | undefined } | undefined;
  /** What went wrong, to be kept among the latest errors. Makes `success` false. */
  error?: unknown;
}

/** Options of {@link PerformanceMonitor.measure}. */
export type MeasureOptions = Pick<RecordOptions, 'batchSize'>;

/** Options of {@link MonitorTimer.stop}. */
export type StopOptions = Pick<RecordOptions, 'batchSize' | 'success' | 'error'>;

/** Options of {@link PerformanceMonitor.recordMany}. */
export type RecordManyOptions = Pick<RecordOptions, 'batchSize' | 'success'>;

/** Options of {@link PerformanceMonitor.recordLlmCall}. */
export interface LlmCallOptions {
  /** Whether a cache answered it. Default false. */
  cacheHit?: boolean | undefined;
  /** Milliseconds. Default 0. */
  duration?: number | undefined;
}

/** Options of {@link PerformanceMonitor.recordValidation}. */
export interface ValidationOptions {
  /** Milliseconds. Default 0. */
  duration?: number | undefined;
  /** Things that were validated. Default 1. */
  count?: number | undefined;
}

/** Options of {@link PerformanceMonitor.recordFileOperation}. */
export interface FileOperationOptions {
  /** Files that were read or written. Default 1. */
  count?: number | undefined;
}

/** Options of {@link PerformanceMonitor.endCycle}. */
export interface EndCycleOptions {
  /** Default true. */
  success?: boolean | undefined;
}

const MEASURE: Names<MeasureOptions> = { batchSize: true };
const RECORD_MANY: Names<RecordManyOptions> = { ...MEASURE, success: true };
const STOP: Names<StopOptions> = { ...RECORD_MANY, error: untouched };

export const readMonitor = optionReader<MonitorOptions>({ maxCycles: true, persistPath: pathNow, persistInterval: true });
export const readMeasure = optionReader(MEASURE);
export const readRecordMany = optionReader(RECORD_MANY);
export const readStop = optionReader(STOP);
const readMemory = optionReader<Memory>({ before: true, after: true, peak: true });
export const readRecord = optionReader<RecordOptions>({
  ...STOP,
  memory: (memory, path) => (typeof memory === 'object' && memory !== null ? readMemory(memory, path) : memory),
});
export const readLlmCall = optionReader<LlmCallOptions>({ cacheHit: true, duration: true });
export const readValidation = optionReader<ValidationOptions>({ duration: true, count: true });
export const readFileOperation = optionReader<FileOperationOptions>({ count: true });
export const readEndCycle = optionReader<EndCycleOptions>({ success: true });

type Memory = Extract<RecordOptions['memory'], object>;

interface Checked {
  batchSize: number;
  success: boolean;
  error: unknown;
  memory: { before: number; after: number; peak: number } | undefined;
}

/** What is said of an operation where nothing is. */
export const PLAIN: Checked = { batchSize: 1, success: true, error: undefined, memory: undefined };

export function checked({ batchSize = 1, error, success = error === undefined, memory }: RecordOptions): Checked {
  if (typeof success !== 'boolean') throw invalid(`success is ${show(success)}, not true or false`);
  return { batchSize: requireWhole('batchSize', batchSize), success: success && error === undefined, error, memory: memoryOf(memory) };
}

function memoryOf(memory: RecordOptions['memory']): Checked['memory'] {
  if (memory == null) return undefined;
  if (typeof memory === 'object') {
    const [before, after] = [bytes('memory.before', memory.before), bytes('memory.after', memory.after)];
    return { before, after, peak: Math.max(before, after, bytes('memory.peak', memory.peak ?? 0)) };
  }
  const held = bytes('memory', memory);
  return { before: held, after: held, peak: held };
}

function bytes(what: string, value: unknown): number {
  if (typeof value === 'number' && value >= 0 && value <= Number.MAX_SAFE_INTEGER) return Math.round(value);
  throw invalid(`${what} is ${show(value)}, not a number of bytes`, { name: what });
}

export function milliseconds(what: string, value: unknown): number {
  if (typeof value === 'number' && value >= 0 && value <= MAX_MS) return value;
  throw notADuration(what, value);
}

export function notADuration(what: string, value: unknown): EmbeddingError {
  return invalid(`${what} is ${show(value)}: pass milliseconds, a number from 0 to ${MAX_MS}`);
}

/** Milliseconds since `started`: none where the clock was set back meanwhile, as test runners do. */
export function since(started: number): number {
  const ms = performance.now() - started;
  return ms > 0 ? Math.min(ms, MAX_MS) : 0;
}

/** Up to the first that is no number, which becomes NaN and is refused with its index: a length may be anything. */
export function numbersOf(values: unknown): Float64Array {
  const numbers: number[] = [];
  try {
    const length = typeof values === 'object' && values !== null ? (values as ArrayLike<unknown>).length : undefined;
    if (length === undefined || !Number.isSafeInteger(length) || length < 0) {
      throw invalid(`The durations are ${show(values)}, not an array of milliseconds`);
    }
    for (let at = 0; at < length && !Number.isNaN(numbers.at(-1)); at++) {
      const value = (values as ArrayLike<unknown>)[at];
      numbers.push(typeof value === 'number' ? value : NaN);
    }
  } catch (cause) {
    if (cause instanceof EmbeddingError) throw cause;
    throw new EmbeddingError('INVALID_ARGUMENT', `The durations cannot be read: ${messageOf(cause)}`, { cause });
  }
  return Float64Array.from(numbers);
}
