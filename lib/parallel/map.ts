import { flag, functionOf, milliseconds, signalOf, whole } from '../call/checks';
import { invalid, show } from '../call/input';
import { optionReader, refused } from '../call/options';
import type { PerformanceMonitor } from '../index';
import { drive, type Answer, type Limits, type Runner, type Settled } from './drive';
import { functionRunner, type ItemFunction } from './function-runner';
import { moduleRunner, type ModuleFunction } from './module-runner';
import { cores, monitorOf, onErrorOf, type OnError } from './options';
import { WorkerPool } from './pool';
import { ResultStream } from './result-stream';
import { Source } from './source';
import { snapshot } from './wire';

/** What is to be done with each item: a function on this thread, or a module's on others. */
export type Work<T, R> = ItemFunction<T, R> | ModuleFunction;

/** What {@link parallelMap} maps. Items that are promises are waited for. */
export type Items<T> = Iterable<T | PromiseLike<T>> | AsyncIterable<T>;

/** Options of {@link parallelMap}. */
export interface ParallelMapOptions {
  /** Most items at a time, from 1. Default: as many as there are cores for this process. */
  concurrency?: number | undefined;
  /**
   * Items that are taken at once and processed one after the other, from 1. Default 1. A module's function is faster with
   * more, since a chunk crosses to its worker at once; if that worker dies, all items of its chunk fail. With `timeoutMs`, a
   * module's function has chunks of 1.
   */
  chunkSize?: number | undefined;
  /**
   * Ends the call at once, with `ABORTED`. A function has the signal that it got aborted; workers that run a module's
   * function are ended.
   */
  signal?: AbortSignal | undefined;
  /**
   * What an item that fails does. `'throw'` (default): the call rejects with what the function threw, and nothing more is
   * started. `'skip'`: it has no result, and the results of the others move up. `'collect'`: a {@link Settled} for every item.
   */
  onError?: OnError | undefined;
  /**
   * Told after each item how many are done, of how many if that is known. What it throws ends the call, and so does a promise
   * that it answers and that rejects.
   */
  onProgress?: ((done: number, total: number | undefined) => void) | undefined;
  /**
   * Longest time for an item, in milliseconds, above 0. It fails with `TIMED_OUT` and its place is free for the next one. A
   * function has its signal aborted, and cannot be interrupted while it does not wait; a worker is ended. Loading a module is
   * no part of it, and may take as long, at least 5 s, or 30 s without this option; then the call rejects with `TIMED_OUT`.
   */
  timeoutMs?: number | undefined;
  /** Runs a module's function in child processes instead of worker threads. Default `false`. */
  processes?: boolean | undefined;
  /**
   * Whether items and results that are buffers, or views of whole ones, are moved to and from worker threads instead of
   * copied: whoever sends one has it no more, and cannot send it again. What cannot be moved is copied. Default `false`.
   */
  transfer?: boolean | undefined;
  /** Who is told of each call, as the operation `parallel.map`. Default: the global monitor. `false`: nobody. */
  monitor?: PerformanceMonitor | false | undefined;
}

/** Options of {@link parallelMap.stream}. */
export interface ParallelStreamOptions extends ParallelMapOptions {
  /** `'input'` (default): in the order of the items. `'completion'`: as they are done, as {@link Settled}. */
  order?: 'input' | 'completion' | undefined;
  /** Results that may wait to be taken before no more items are started, from 0. Default: `concurrency`. */
  lookAhead?: number | undefined;
}

const NAMES = {
  concurrency: true, chunkSize: true, signal: true, onError: true, onProgress: true, timeoutMs: true, processes: true, transfer: true, monitor: true,
} as const;

export const readMapOptions = optionReader<ParallelMapOptions>(NAMES);
const readStreamOptions = optionReader<ParallelStreamOptions>({ ...NAMES, order: true, lookAhead: true });

/** The options of a call, checked. */
export interface Call {
  limits: Limits;
  timeoutMs: number | undefined;
  processes: boolean;
  transfer: boolean;
  onError: OnError;
  onProgress: ((done: number, total: number | undefined) => void) | undefined;
  monitor: PerformanceMonitor | undefined;
}

export function callOf({ concurrency = cores(), chunkSize = 1, onError = 'throw', processes = false, transfer = false, ...options }: ParallelMapOptions): Call {
  return {
    limits: { concurrency: whole('concurrency', concurrency, 1), chunkSize: whole('chunkSize', chunkSize, 1), signal: signalOf(options.signal) },
    timeoutMs: milliseconds('timeoutMs', options.timeoutMs),
    processes: flag('processes', processes),
    transfer: flag('transfer', transfer),
    onError: onErrorOf(onError),
    onProgress: functionOf('onProgress', options.onProgress),
    monitor: monitorOf(options.monitor),
  };
}

/** A call with what runs it. `release` frees what only this call uses. */
export interface Plan<T, R> extends Call {
  runner: Runner<T, R>;
  /** Copies the items of an array, where what they hold counts as it is when the call is made. */
  copy?(items: readonly (T | PromiseLike<T>)[]): readonly (T | PromiseLike<T>)[];
  release?(): void;
  /** Called when a stream is read first. What it throws ends the stream. */
  begin?(): void;
  /** What a stream waits for before it ends, and who leaves it early, too. */
  finish?(): Promise<void>;
  /** Told of each answer. */
  counted?(fulfilled: boolean): void;
}

/** `shared`: the workers to use. Without, a call has its own. */
export function planOf<T, R>(work: Work<T, R>, call: Call, shared?: (processes: boolean) => WorkerPool): Plan<T, R> {
  const { limits, timeoutMs, processes, transfer } = call;
  if (!isModule(work)) return { ...call, runner: functionRunner(work, timeoutMs) };
  const pool = shared?.(processes) ?? new WorkerPool(limits.concurrency, processes);
  const runner = moduleRunner<T, R>(work, pool, call);
  const one = timeoutMs === undefined ? limits : { ...limits, chunkSize: 1 };
  const copy = (items: readonly (T | PromiseLike<T>)[]) => snapshot(items, transfer && !processes);
  return { ...call, limits: one, runner, copy, ...(!shared && { release: () => void pool.close() }) };
}

function isModule<T, R>(work: Work<T, R>): work is ModuleFunction {
  if (typeof work === 'function') return false;
  if (typeof work === 'object' && work !== null && hasModule(work)) return true;
  throw invalid(`What is to be done is ${show(work)}: pass a function, or { module, name }`);
}

function hasModule(work: object): boolean {
  try {
    return 'module' in work;
  } catch {
    return false;
  }
}

/** Runs a plan and gives the results as its `onError` says. */
export async function collect<T, R>(items: Items<T>, plan: Plan<T, R>, operation: string): Promise<R[] | Settled<R>[]> {
  const source = new Source<T>(items, { copy: plan.copy });
  const settled: (Settled<R> | undefined)[] = [];
  const started = performance.now();
  let failed = 0;
  let done = 0;
  const answer: Answer<R> = (index, fulfilled, value) => {
    if (!fulfilled && plan.onError === 'throw') {
      plan.counted?.(false);
      throw value;
    }
    settled[index] = settledOf<R>(index, fulfilled, value);
    done++;
    if (!fulfilled) failed++;
    plan.counted?.(fulfilled);
    return plan.onProgress?.(done, source.total);
  };
  let success = false;
  try {
    await drive(source, plan.runner, plan.limits, answer);
    success = true;
  } finally {
    plan.release?.();
    plan.monitor?.record(operation, performance.now() - started, { batchSize: done - failed, success });
  }
  if (plan.onError === 'collect') return settled as Settled<R>[];
  const results: R[] = [];
  for (const each of settled) if (each!.status === 'fulfilled') results.push(each!.value);
  return results;
}

function settledOf<R>(index: number, fulfilled: boolean, value: unknown): Settled<R> {
  return fulfilled ? { index, status: 'fulfilled', value: value as R } : { index, status: 'rejected', reason: value };
}

/** Options by which every item has an answer of its own. */
export type Collecting = { onError: 'collect' };

/** Options by which items that fail have no answer. */
export type Throwing = { onError?: 'throw' | 'skip' | undefined };

/** What comes of items: with `onError: 'collect'`, {@link Settled}. Where that is known only when the program runs, either. */
export type Results<R, E extends OnError = OnError> = E extends 'collect' ? Settled<R>[] : R[];

/** See {@link parallelMap}. */
export interface ParallelMap {
  <T, R = unknown>(items: Items<T>, work: Work<T, R>, options: ParallelMapOptions & Collecting): Promise<Settled<R>[]>;
  <T, R = unknown>(items: Items<T>, work: Work<T, R>, options?: ParallelMapOptions & Throwing): Promise<R[]>;
  <T, R = unknown>(items: Items<T>, work: Work<T, R>, options?: ParallelMapOptions): Promise<Results<R>>;

  /**
   * The same, with results as they come. Reads no more than `concurrency` (times `chunkSize`) + `lookAhead` items ahead of
   * what has been taken, starts with the first result that is asked for, and stops when the loop is left. What was read
   * before the source failed is answered, then its error comes. In the order of completion, or with `onError: 'collect'`, the
   * results are {@link Settled}.
   */
  stream<T, R = unknown>(items: Items<T>, work: Work<T, R>, options: ParallelStreamOptions & (Collecting | { order: 'completion' })): AsyncGenerator<Settled<R>, void, undefined>;
  stream<T, R = unknown>(items: Items<T>, work: Work<T, R>, options?: ParallelStreamOptions & Throwing & { order?: 'input' | undefined }): AsyncGenerator<R, void, undefined>;
  stream<T, R = unknown>(items: Items<T>, work: Work<T, R>, options?: ParallelStreamOptions): AsyncGenerator<R | Settled<R>, void, undefined>;
}

/**
 * Applies a function to items, several at a time, and gives the results in the order of the items: each item is answered
 * exactly once. The items are those of an array as it is now, with all that they hold where they go to workers, or of any
 * iterable or async iterable, which is read no further ahead than is worked on, and closed when the call ends before it does.
 *
 * @throws What the function throws, as it is (see `onError`), and what the source throws. `EmbeddingError` `ABORTED`;
 * `TIMED_OUT` for an item, or for a module that hangs while it is loaded; `BACKEND_UNAVAILABLE` or `MEMORY_LIMIT_EXCEEDED` for items whose worker died; `INVALID_CONFIG`,
 * `INVALID_ARGUMENT`, also for a module or an export that there is not.
 */
export const parallelMap: ParallelMap = Object.assign(
  async <T, R>(items: Items<T>, work: Work<T, R>, options: ParallelMapOptions = {}) =>
    collect(items, planOf(work, callOf(readMapOptions(options))), 'parallel.map') as Promise<never>,
  {
    stream: <T, R>(items: Items<T>, work: Work<T, R>, options: ParallelStreamOptions = {}) => {
      const { order, lookAhead, ...given } = readStreamOptions(options);
      return streamOf(items, planOf(work, callOf(given)), { order, lookAhead }) as AsyncGenerator<never>;
    },
  },
);

/** Runs a plan and gives results as they come. */
export function streamOf<T, R>(items: Items<T>, plan: Plan<T, R>, { order = 'input', lookAhead = plan.limits.concurrency }: Pick<ParallelStreamOptions, 'order' | 'lookAhead'>): ResultStream<R | Settled<R>> {
  if (order !== 'input' && order !== 'completion') throw refused('order', `${show(order)} is not 'input' or 'completion'`);
  const { concurrency, chunkSize } = plan.limits;
  const most = concurrency * chunkSize + whole('lookAhead', lookAhead, 0);
  const detailed = order === 'completion' || plan.onError === 'collect';
  // Items that were read, and whose results nobody has taken.
  let ahead = 0;
  let wake: (() => void) | undefined;
  const gone = () => {
    ahead--;
    if (ahead + chunkSize <= most) wake?.();
  };
  const room = () => (ahead + chunkSize <= most ? undefined : new Promise<void>((resolve) => (wake = resolve)));
  const source = new Source<T>(items, { room, taken: (count) => (ahead += count), copy: plan.copy });
  const stop = new AbortController();
  const signal = plan.limits.signal ? AbortSignal.any([plan.limits.signal, stop.signal]) : stop.signal;
  let started = 0;
  let left: Promise<{ reason: unknown } | undefined> | undefined;
  let [done, failed] = [0, 0];

  const give = (settled: Settled<R>) => {
    if (detailed) results.push(settled);
    else if (settled.status === 'fulfilled') results.push(settled.value);
    else gone();
  };
  // Those that wait for one before them.
  const early = new Map<number, Settled<R>>();
  let next = 0;
  const answer: Answer<R> = (index, fulfilled, value) => {
    if (!fulfilled && plan.onError === 'throw') throw value;
    done++;
    if (!fulfilled) failed++;
    plan.counted?.(fulfilled);
    const settled = settledOf<R>(index, fulfilled, value);
    if (order === 'completion') give(settled);
    else early.set(index, settled);
    for (let following; (following = early.get(next)); next++) {
      early.delete(next);
      give(following);
    }
    return plan.onProgress?.(done, source.total);
  };
  const over = (success: boolean) => {
    plan.release?.();
    wake?.();
    plan.monitor?.record('parallel.map', performance.now() - started, { batchSize: done - failed, success });
  };
  const results = new ResultStream<R | Settled<R>>({
    taken: gone,
    start() {
      started = performance.now();
      const failed = (reason: unknown) => ({ reason, now: plan.limits.signal?.aborted ?? false });
      const driven = (async () => {
        plan.begin?.();
        await drive(source, plan.runner, { ...plan.limits, signal }, answer);
      })().then(() => undefined, failed);
      const ended = driven.then(async (failure) => {
        const unfinished = await plan.finish?.().then(() => undefined, failed);
        const end = failure ?? unfinished;
        over(!end);
        results.end(end);
        return unfinished;
      });
      if (plan.finish) left = ended;
    },
    async close() {
      if (started === 0) source.close();
      stop.abort();
      const unfinished = await left;
      if (unfinished) throw unfinished.reason;
    },
  });
  return results;
}
