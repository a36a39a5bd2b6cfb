import { channel } from 'node:diagnostics_channel';

import { EmbeddingError, messageOf, toEmbeddingError } from '../call/errors';
import { invalid, requireString, requireWhole, show } from '../call/input';
import { crossing, refused } from '../call/options';
import { argumentPath } from '../call/paths';
import { call, native, settle } from '../native/addon';
import { monitorHandles } from '../native/addon';
import { atExit } from '../native/at-exit';
import type { NativeMonitor, NativeSampler } from '../native/types';
import { connect, type OpenTelemetryConnection, type OpenTelemetryOptions } from './open-telemetry';
import {
  MAX_MS,
  PLAIN,
  checked,
  milliseconds,
  notADuration,
  numbersOf,
  readEndCycle,
  readFileOperation,
  readLlmCall,
  readMeasure,
  readMonitor,
  readRecord,
  readRecordMany,
  readStop,
  readValidation,
  since,
  type EndCycleOptions,
  type FileOperationOptions,
  type LlmCallOptions,
  type MeasureOptions,
  type MonitorOptions,
  type RecordManyOptions,
  type RecordOptions,
  type StopOptions,
  type ValidationOptions,
} from './options';
import { csvOf, markdownOf, prometheusOf, textOf, type CsvTable, type PrometheusOptions } from './reports';
import type { CycleRecord, MachineUse, MonitorSnapshot, MonitorSummary, OperationStats } from './snapshot';

/** What is published on the `diagnostics_channel` `embedcore:monitor`, and by which monitor. */
export type MonitorEvent = { monitor: PerformanceMonitor } & (
  | { type: 'operation'; name: string; duration: number; items: number; success: boolean; error?: unknown }
  | { type: 'operations'; name: string; durations: ArrayLike<number>; items: number; success: boolean }
  | { type: 'cycle-started'; id: string }
  | { type: 'cycle-ended'; cycle: CycleRecord }
  | { type: 'file-set-aside'; path: string; movedTo: string; reason: string }
  | { type: 'storage-failed'; path: string; error: EmbeddingError }
);

const events = channel('embedcore:monitor');
const publish = (event: MonitorEvent) => events.publish(event);

/** UTF-16 units of an error's message that cross: twice as many as are kept at most. */
const MAX_MESSAGE = 1000;

/** Events that wait to cross together, and the numbers of one; see `drain` in `src/binding/metrics.rs`. */
const EVENTS = 256;
const WAIT_MS = 250;
const EVENT = 4;
const FAILED = 1;
const HIT = 2;
const MISS = 3;

/** Names that have a number, of operations and of caches; with one more, all get new ones. */
const NAMES = 1000;

/** What is measured from the start to {@link stop}. */
export interface MonitorTimer extends Disposable {
  /**
   * Ends the measurement and gives the milliseconds that it took. Only the first call records; another one gives the same
   * again.
   */
  stop(options?: StopOptions): number;
}

/** What the dashboard reads a monitor with. */
export let insideOf: (monitor: PerformanceMonitor) => {
  /** Without histograms, and with so many of the latest cycles. */
  read(cycles: number): MonitorSnapshot;
  sampler(): NativeSampler;
  /** Hands over what waits on this side. */
  flush(): void;
  /** Keeps an error that no operation has. */
  failed(name: string, message: string): void;
};

/** Makes a monitor on the native one that all threads share. */
let globalOne: () => PerformanceMonitor;

/**
 * Counts and times whatever you name: operations, look-ups in caches, cycles of several steps.
 *
 * Times are kept in HDR histograms, so that percentiles are right to 0.4 % however many there are, and two monitors can
 * be merged. Recording costs some tens of nanoseconds and never blocks. The first 1000 names (of operations, and of
 * cached types) under which something is recorded are told apart; what comes after them is counted together as
 * `(others)`, until {@link reset}.
 */
export class PerformanceMonitor implements AsyncDisposable {
  readonly #native: NativeMonitor;
  /** Whether it is the one of all threads. */
  readonly #shared: boolean;
  #persistPath: string | undefined;
  readonly #persistInterval: number;
  readonly #operations = new Map<string, number>();
  readonly #caches = new Map<string, number>();
  readonly #buffer = new Float64Array(EVENTS * EVENT);
  #used = 0;
  /** Where the native side writes what the process holds. */
  readonly #memory = new Float64Array(2);
  #flushing: NodeJS.Timeout | undefined;
  #saving: NodeJS.Timeout | undefined;
  /** Settled when what is being written is written. */
  #saves: Promise<unknown> = Promise.resolve();
  /** There while something is not yet written: takes back what shall be done when the process ends. */
  #unsaved: (() => void) | undefined;

  /**
   * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option; `CACHE_STORAGE_FAILED` where `persistPath` cannot
   * be read, or was never a file of cycles. A damaged one is renamed and kept, what makes sense of it is read, and it is
   * told on the `diagnostics_channel` `embedcore:monitor`; so is one of a later release, which is left as it is.
   */
  constructor(options: MonitorOptions = {}) {
    const { persistInterval = 5000, ...rest } = readMonitor(options);
    if (typeof persistInterval !== 'number' || !(persistInterval >= 0 && persistInterval < 2 ** 31)) {
      throw refused('persistInterval', `${show(persistInterval)} is not a number of milliseconds from 0 to ${2 ** 31 - 1}`);
    }
    const shared = (options as unknown) === GLOBAL;
    // What it means now, wherever the process goes.
    const own = call(() => (shared ? native().NativeMonitor.global() : new (native().NativeMonitor)(crossing(rest))));
    this.#native = own;
    monitorHandles.set(this, own);
    this.#shared = shared;
    this.#persistInterval = persistInterval;
    this.#persistPath = rest.persistPath;
    if (shared) atExit(() => this.#flush());
    if (this.#persistPath !== undefined) this.#load(this.#persistPath);
  }

  #load(path: string): void {
    const unusable = call(() => this.#native.load());
    if (!unusable) return;
    const { movedTo, reason } = unusable;
    if (movedTo != null) {
      publish({ monitor: this, type: 'file-set-aside', path, movedTo, reason });
      // What was read of it is written again.
      return this.#changed();
    }
    this.#persistPath = undefined;
    const message = `Could not use ${path}: ${reason}. Cycles are kept in memory only; pass another path, or take that release`;
    publish({ monitor: this, type: 'storage-failed', path, error: new EmbeddingError('CACHE_STORAGE_FAILED', message, { details: { path } }) });
  }

  static {
    insideOf = (monitor) => ({
      read: (cycles) => monitor.#read(false, cycles),
      flush: () => monitor.#flush(),
      failed: (name, message) => call(() => monitor.#native.failed(name, message)),
      sampler: () => call(() => monitor.#native.sampler()),
    });
    globalOne = () => new PerformanceMonitor(GLOBAL);
  }

  /**
   * Runs `work`, waits for it and gives what it gives. Its time, its memory and whether it failed are recorded; what it
   * throws is thrown on as it is.
   */
  async measure<T>(name: string, work: () => T | PromiseLike<T>, options: MeasureOptions = {}): Promise<T> {
    if (typeof work !== 'function') throw invalid(`What shall be measured is ${show(work)}, not a function`);
    const { batchSize } = checked(readMeasure(options));
    const timer = this.startTimer(name);
    try {
      const result = await work();
      timer.stop({ batchSize });
      return result;
    } catch (error) {
      timer.stop({ error: error ?? new Error(String(error)) });
      throw error;
    }
  }

  /** Measures time and memory from now until `stop()`; or, with `using`, until the end of the block. */
  startTimer(name: string): MonitorTimer {
    this.#operation(name);
    this.#native.memory(this.#memory);
    const resident = this.#memory[0]!;
    const highWater = this.#memory[1]!;
    const started = performance.now();
    let duration: number | undefined;
    const stop = (options: StopOptions = {}) => {
      if (duration !== undefined) return duration;
      const took = since(started);
      const { batchSize, success, error } = checked(readStop(options));
      duration = took;
      const id = this.#operation(name);
      call(() => this.#native.end(id, took, batchSize, success, resident, highWater));
      this.#tell(name, took, batchSize, success, error);
      return took;
    };
    return { stop, [Symbol.dispose]: () => void stop() };
  }

  /**
   * Records an operation that took `ms` milliseconds and has just ended.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what cannot be; nothing is recorded then.
   */
  record(name: string, ms: number, options?: RecordOptions): void {
    if (typeof ms !== 'number' || !(ms >= 0 && ms <= MAX_MS)) throw notADuration('The duration', ms);
    const { batchSize, success, error, memory } = options === undefined ? PLAIN : checked(readRecord(options));
    const id = this.#operations.get(name) ?? this.#operation(name);
    if (memory) call(() => this.#native.recordWithMemory(id, ms, batchSize, success, memory.before, memory.after, memory.peak));
    else this.#push(id * EVENT + (success ? 0 : FAILED), ms, batchSize);
    this.#tell(name, ms, batchSize, success, error);
  }

  /**
   * Records many operations that have just ended, each with the same `batchSize`. The fast way, fastest for a
   * `Float64Array`. Of one that is no duration, the index is named and none is recorded.
   */
  recordMany(name: string, durations: ArrayLike<number>, options: RecordManyOptions = {}): void {
    const { batchSize, success } = checked(readRecordMany(options));
    const packed = durations instanceof Float64Array ? durations : numbersOf(durations);
    const id = this.#operation(name);
    call(() => this.#native.recordMany(id, packed, batchSize, success));
    if (events.hasSubscribers) publish({ monitor: this, type: 'operations', name, durations, items: batchSize, success });
  }

  /** Counts something that was found in a cache. */
  cacheHit(type: string = 'default'): void {
    this.#push((this.#caches.get(type) ?? this.#cache(type)) * EVENT + HIT, 0, 0);
  }

  /** Counts something that was not found in a cache. */
  cacheMiss(type: string = 'default'): void {
    this.#push((this.#caches.get(type) ?? this.#cache(type)) * EVENT + MISS, 0, 0);
  }

  /**
   * Starts a cycle: work of several steps. More than 10,000 at a time are not kept: the oldest counts as interrupted.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` when one of this id is in progress.
   */
  startCycle(id: string): void {
    call(() => this.#native.startCycle(requireString('The id of the cycle', id)));
    this.#changed();
    if (events.hasSubscribers) publish({ monitor: this, type: 'cycle-started', id });
  }

  /**
   * Notes a call of a language model in a cycle; `duration` in milliseconds.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` when no cycle of this id is in progress, as the other steps do.
   */
  recordLlmCall(id: string, options: LlmCallOptions = {}): void {
    const { cacheHit = false, duration = 0 } = readLlmCall(options);
    if (typeof cacheHit !== 'boolean') throw invalid(`cacheHit is ${show(cacheHit)}, not true or false`);
    call(() => this.#native.cycleCall(requireString('The id of the cycle', id), cacheHit, milliseconds('The duration', duration)));
  }

  /** Notes a validation of `count` things (default 1) in a cycle, that took `duration` milliseconds. */
  recordValidation(id: string, options: ValidationOptions = {}): void {
    const { duration = 0, count = 1 } = readValidation(options);
    const [ms, things] = [milliseconds('The duration', duration), requireWhole('count', count)];
    call(() => this.#native.cycleValidation(requireString('The id of the cycle', id), ms, things));
  }

  /** Notes that a file was read or written in a cycle, or `count` of them. */
  recordFileOperation(id: string, options: FileOperationOptions = {}): void {
    const { count = 1 } = readFileOperation(options);
    call(() => this.#native.cycleFiles(requireString('The id of the cycle', id), requireWhole('count', count)));
  }

  /** Ends a cycle, and gives what is known of it. */
  endCycle(id: string, options: EndCycleOptions = {}): CycleRecord {
    const { success = true } = readEndCycle(options);
    if (typeof success !== 'boolean') throw invalid(`success is ${show(success)}, not true or false`);
    const cycle = JSON.parse(call(() => this.#native.endCycle(requireString('The id of the cycle', id), success))) as CycleRecord;
    this.#changed();
    if (events.hasSubscribers) publish({ monitor: this, type: 'cycle-ended', cycle });
    return cycle;
  }

  /** Cycles that have ended, the oldest first: the latest `maxCycles`. */
  getCycles(): CycleRecord[] {
    return (JSON.parse(call(() => this.#native.cycles())) as MonitorSnapshot['cycles']).recent;
  }

  /** What is known of one operation; `null` for one that was never recorded. */
  getStats(name: string): OperationStats | null {
    this.#flush();
    const json = call(() => this.#native.stats(requireString('The name', name)));
    return json == null ? null : (JSON.parse(json) as OperationStats);
  }

  /** Everything, for a program to read. */
  getSummary(): MonitorSummary {
    const { takenAt, startedAt, operations, caches, cycles, errors, machine } = this.#read(false, 0);
    const sum = <T>(all: T[], what: (one: T) => number) => all.reduce((total, one) => total + what(one), 0);
    const [hits, misses] = [sum(caches, (one) => one.hits), sum(caches, (one) => one.misses)];
    return {
      startedAt,
      uptime: takenAt - startedAt,
      totals: {
        count: sum(operations, (one) => one.count),
        errors: sum(operations, (one) => one.errors),
        items: sum(operations, (one) => one.items),
      },
      operations: Object.fromEntries(operations.map((operation) => [operation.name, operation])),
      caches: {
        hits,
        misses,
        hitRatio: hits + misses > 0 ? hits / (hits + misses) : 0,
        byType: Object.fromEntries(caches.map((cache) => [cache.type, cache])),
      },
      cycles: cycles.summary,
      errors,
      machine: machine!,
    };
  }

  /** Everything, histograms included: to be kept as JSON, merged with others, or opened by the dashboard. */
  snapshot(): MonitorSnapshot {
    return this.#read(true);
  }

  /** Forgets everything, names and cycles in progress included. */
  reset(): void {
    this.#flush();
    call(() => this.#native.reset());
    this.#changed();
  }

  /** Everything in the [text format of Prometheus](https://prometheus.io/docs/instrumenting/exposition_formats/). */
  toPrometheus(options: PrometheusOptions = {}): string {
    return prometheusOf(this.#read(false, 0), options);
  }

  /** Operations (or caches, or cycles) as CSV, RFC 4180, safe to open in a spreadsheet. */
  toCsv(table: CsvTable = 'operations'): string {
    return csvOf(this.#read(false), table);
  }

  /** Everything as tables in Markdown. */
  toMarkdown(): string {
    return markdownOf(this.#read(false));
  }

  /** Everything for a terminal, at most 80 columns wide. */
  toText(): string {
    return textOf(this.#read(false));
  }

  /** A {@link snapshot} as JSON. */
  toJson(): string {
    return `${JSON.stringify(this.snapshot())}\n`;
  }

  /**
   * Offers everything to OpenTelemetry: counters, and gauges of percentiles, read whenever the SDK collects. Several
   * monitors of one `MeterProvider` add up. Where there is none yet, it begins within a second after one was set. With
   * `spans: true`, {@link measure} and timers are recorded as spans, too. Needs `@opentelemetry/api`, which is an
   * optional peer.
   *
   * @throws {@link EmbeddingError} `BACKEND_UNAVAILABLE` where that package is not installed.
   */
  connectOpenTelemetry(options: OpenTelemetryOptions = {}): OpenTelemetryConnection {
    return connect(this, (histograms) => this.#read(histograms, 0), events, options);
  }

  /**
   * Writes cycles to `path` (default: `persistPath`), whole or not at all; they survive even a loss of power. Any number of
   * monitors, threads and processes may write to one path: the file is that of one of them.
   * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED`.
   */
  async save(path: string | undefined = this.#persistPath): Promise<void> {
    if (path === undefined) throw invalid('There is no path to save to: pass one, or the option persistPath');
    const file = argumentPath('The path', path);
    if (file === undefined) throw invalid(path === '' ? 'The path is empty: pass that of a file' : `The path is ${show(path)}, not a string`);
    const saving = this.#save(file);
    this.#saves = Promise.allSettled([this.#saves, saving]);
    await saving;
  }

  async #save(path: string): Promise<void> {
    const own = path === this.#persistPath;
    if (own) this.#mark(false);
    try {
      await settle(() => this.#native.save(path));
    } catch (error) {
      if (own) this.#mark(true);
      throw error;
    }
  }

  /**
   * Resolves when all that was recorded before is written, and what was being written. What is recorded later is still
   * kept in memory.
   * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED`.
   */
  async close(): Promise<void> {
    clearTimeout(this.#saving);
    this.#saving = undefined;
    await this.#saves;
    try {
      if (this.#unsaved) await this.save();
    } finally {
      // Who is told that it failed has it in hand, and what is closed is let go.
      this.#mark(false);
    }
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** `cycles`: how many of the latest ones. Default: all. */
  #read(histograms: boolean, cycles?: number): MonitorSnapshot {
    this.#flush();
    const snapshot = JSON.parse(call(() => this.#native.snapshot(histograms, cycles))) as MonitorSnapshot;
    snapshot.machine = JSON.parse(call(() => this.#native.machine())) as MachineUse;
    return snapshot;
  }

  #operation(name: string): number {
    return this.#numberOf(this.#operations, 'The name', name, (known) => this.#native.operation(known));
  }

  #cache(type: string): number {
    return this.#numberOf(this.#caches, 'The type', type, (known) => this.#native.cache(known));
  }

  /** The number that stands for a name, until there are too many of them. */
  #numberOf(known: Map<string, number>, what: string, name: string, ask: (name: string) => number): number {
    const found = known.get(name);
    if (found !== undefined) return found;
    requireString(what, name);
    if (known.size >= NAMES) {
      this.#flush();
      this.#operations.clear();
      this.#caches.clear();
      call(() => this.#native.forget());
    }
    const id = call(() => ask(name));
    known.set(name, id);
    return id;
  }

  #push(what: number, ms: number, items: number): void {
    const at = this.#used;
    const buffer = this.#buffer;
    buffer[at] = what;
    buffer[at + 1] = ms;
    buffer[at + 2] = items;
    const now = performance.now();
    buffer[at + 3] = now;
    this.#used = at + EVENT;
    // Other threads may read the same monitor: they should not wait for all the others, nor lose them with this thread.
    if (this.#used === buffer.length || now - buffer[3]! > WAIT_MS) this.#flush();
    else if (this.#shared) this.#flushing ??= setTimeout(() => ((this.#flushing = undefined), this.#flush()), WAIT_MS).unref();
  }

  /** Hands over what waits. */
  #flush(): void {
    if (this.#used === 0) return;
    const waiting = this.#buffer.subarray(0, this.#used);
    this.#used = 0;
    call(() => this.#native.drain(waiting, performance.now()));
  }

  #tell(name: string, duration: number, items: number, success: boolean, error: unknown): void {
    if (error !== undefined) call(() => this.#native.failed(name, messageOf(error).slice(0, MAX_MESSAGE)));
    if (!events.hasSubscribers) return;
    publish({ monitor: this, type: 'operation', name, duration, items, success, ...(error !== undefined && { error }) });
  }

  #changed(): void {
    if (this.#persistPath === undefined) return;
    this.#mark(true);
    const path = this.#persistPath;
    this.#saving ??= setTimeout(() => {
      this.#saving = undefined;
      this.save().catch((error: EmbeddingError) => publish({ monitor: this, type: 'storage-failed', path, error }));
    }, this.#persistInterval).unref();
  }

  /** Notes whether there is something that must be written before the process ends. */
  #mark(unsaved: boolean): void {
    if (unsaved) this.#unsaved ??= atExit(() => this.#saveAtExit());
    else this.#unsaved = void this.#unsaved?.();
  }

  #saveAtExit(): void {
    if (this.#persistPath === undefined) return;
    try {
      this.#native.saveNow(this.#persistPath);
    } catch (thrown) {
      publish({ monitor: this, type: 'storage-failed', path: this.#persistPath, error: toEmbeddingError(thrown) });
    }
  }
}

/** Tells the constructor to take the native monitor of the process. */
const GLOBAL: MonitorOptions = {};

let sharedMonitor: PerformanceMonitor | undefined;

/**
 * The monitor of the process. What threads (`worker_threads`) record with theirs, they record with this one: at the
 * latest when they read it or end, and within a quarter of a second while they go on recording.
 */
export function getGlobalMonitor(): PerformanceMonitor {
  return (sharedMonitor ??= globalOne());
}
