import { setImmediate as nextTurn } from 'node:timers/promises';

import { EmbeddingError, EmbeddingGenerationError, messageOf } from '../call/errors';
import { invalid, isArray, readGiven, requireArray, show } from '../call/input';
import { isPromise } from '../call/order';
import { checkWatch, type Watch } from '../call/limits';
import { refused } from '../call/options';
import type { MemoryMetrics, ProcessingHooks } from './options';

/** How long work that never waits may keep the event loop from turning, in milliseconds; one batch may take longer. */
const TURN_MS = 10;
const HISTORY = 1000;

/** One call: what it works on, as it was when the call was made, and how far it is. */
export class Run<T, R> {
  readonly items: readonly T[];
  readonly process: (batch: T[]) => R[] | Promise<R[]>;
  readonly watch: Watch<[completed: number, total: number]>;
  readonly hooks: Pick<ProcessingHooks, 'onStrategyChange' | 'onMemoryWarning'>;
  readonly results: R[];
  readonly stopped: Promise<void>;
  onFailure: ((error: EmbeddingError, index: number) => unknown) | undefined;
  failure: unknown;
  /** Nobody waits any more: what still runs is of no interest. */
  over = false;
  strategy: number | undefined;
  strategyChanges = 0;
  cleanups = 0;
  sinceCleanup = 0;
  warned = -Infinity;
  history: MemoryMetrics[] = [];
  peak = 0;
  usageSum = 0;
  samples = 0;
  #turned = performance.now();
  #stop!: () => void;

  constructor(items: readonly T[], process: (batch: T[]) => R[] | Promise<R[]>, hooks: ProcessingHooks) {
    requireArray(items, 'items');
    if (typeof process !== 'function') throw invalid(`The processor is ${show(process)}, not a function`);
    const { onProgress, onStrategyChange, onMemoryWarning, signal, timeoutMs } = hooks;
    for (const [name, hook] of Object.entries({ onStrategyChange, onMemoryWarning })) {
      if (hook != null && typeof hook !== 'function') throw refused(name, `${show(hook)} is not a function`);
    }
    this.watch = checkWatch({ signal, timeoutMs, progressCallback: onProgress }, 'onProgress');
    this.hooks = { onStrategyChange, onMemoryWarning };
    // Holes of a sparse array are items, too.
    this.items = readGiven('The items', () => Array.from(items));
    this.process = process;
    this.results = new Array<R>(this.items.length);
    this.stopped = new Promise((resolve) => (this.#stop = resolve));
  }

  /** Lets the event loop turn if it has not for a while, or in any case. */
  async turn(now = false): Promise<void> {
    if (!now && performance.now() - this.#turned < TURN_MS) return;
    await nextTurn();
    this.#turned = performance.now();
  }

  /** Nothing more is begun, and whoever waits for a batch goes on. */
  stop(): void {
    this.over = true;
    this.#stop();
  }

  fail(error: unknown): void {
    this.failure ??= error;
    this.#stop();
  }

  /** Runs what a caller has given. What it throws ends the call. */
  attempt(work: () => unknown): void {
    if (this.over) return;
    const failed = (cause: unknown) => {
      if (!this.over) this.fail(new EmbeddingError('ABORTED', 'The call was aborted because one of its callbacks threw', { cause }));
    };
    try {
      // It may be asynchronous: nobody else hears what it rejects with.
      const outcome = work();
      if (isPromise(outcome)) outcome.then(undefined, failed);
    } catch (cause) {
      failed(cause);
    }
  }

  note(metrics: MemoryMetrics): void {
    const usage = metrics.memoryUsagePercent;
    this.peak = Math.max(this.peak, usage);
    this.usageSum += usage;
    this.samples++;
    if (this.history.length >= HISTORY) this.history.shift();
    this.history.push(metrics);
  }

  /** Processes items `from..to` and keeps their results; gives the error, if there was one. */
  async call(from: number, to: number): Promise<EmbeddingError | undefined> {
    const what = to - from === 1 ? `Item ${from}` : `Items ${from} to ${to - 1}`;
    const details = { index: from, count: to - from };
    let given: unknown;
    try {
      given = await this.process(this.items.slice(from, to));
    } catch (cause) {
      if (cause instanceof EmbeddingError) return cause;
      return new EmbeddingGenerationError(`${what} could not be processed: ${messageOf(cause)}`, { cause, details });
    }
    if (!isArray(given)) {
      return new EmbeddingGenerationError(`${what}: the processor did not return an array of results`, { details });
    }
    try {
      const count = given.length;
      if (count !== to - from) {
        const message = `${what}: the processor returned ${count} results for ${to - from} items`;
        return new EmbeddingGenerationError(message, { details });
      }
      for (let index = from; index < to; index++) this.results[index] = given[index - from] as R;
    } catch (cause) {
      return new EmbeddingGenerationError(`${what}: the results of the processor cannot be read: ${messageOf(cause)}`, { cause, details });
    }
    return undefined;
  }
}
