import { setImmediate as nextTurn } from 'node:timers/promises';

import { EmbeddingError } from '../call/errors';
import { aborted, timedOut, type Watch } from '../call/limits';
import { isPromise } from '../call/order';
import { END, openSource, sourceFailed, type Source } from '../call/source';

/** Items of one call to the native side. The first call is small, so that the first results come soon. */
const FIRST_WINDOW = 32;
const WINDOW = 256;

/** Calls at a time: the next one fills the cores while the last texts of the one before run. */
const RUNNING = 3;

/** How long an item may wait for others to come along, in milliseconds. */
const PATIENCE_MS = 5;

/** What an item is that takes its time. */
const LATE = Symbol('late');

/** Options of a stream. */
export interface StreamOptions {
  /** `'input'` (default): results in the order of their inputs. `'completion'`: as they are done. */
  order?: 'input' | 'completion' | undefined;
  /** Of texts, give {@link StreamedVector}s and not vectors alone. Default `false`; with `order: 'completion'` always. */
  details?: boolean | undefined;
}

/** The vector of a text of a stream, and which text that is. */
export interface StreamedVector {
  /** Of the text among all that the source gave, from 0. */
  index: number;
  /** Empty, where there is an `error`. */
  embedding: Float32Array;
  /** Whether the model did not see all of the text. */
  truncated: boolean;
  /** Tokens of the whole text, special tokens included; 0 where nobody knows, as on a server. */
  tokenCount: number;
  /** Whether this stream did not compute it. */
  fromCache: boolean;
  /** Why there is no vector, with `onError: 'skip'`. */
  error?: EmbeddingError;
}

/** What a stream is made of. */
export interface StreamWork<Item, Result> {
  inputs: unknown;
  order: 'input' | 'completion';
  /** Stops the stream, whatever it waits for: its source, the model, its consumer. */
  watch: Watch<never>;
  /** What an input is, as it is now: it may change once it was read. */
  take: (input: unknown, index: number) => Item;
  /** A result for each item, told where they begin. An error in its place ends the stream there. */
  run: (items: Item[], from: number, signal: AbortSignal) => Promise<(Result | EmbeddingError)[]>;
  /** The stream begins; what it gives is called when it is over. */
  begin: (stop: (reason: EmbeddingError) => void) => () => void;
}

/**
 * Results as they come, of what an iterable gives. Reads at most {@link RUNNING} windows ahead of what was taken from it.
 * What was read before something failed is answered before the error comes. Left early or stopped, it stops what runs and
 * closes its source at once, whether or not somebody waits for a result.
 */
export class Stream<Item, Result> implements AsyncGenerator<Result, void, undefined> {
  readonly #work: StreamWork<Item, Result>;
  readonly #results: AsyncGenerator<Result, void, undefined>;
  readonly #deadline: number;
  readonly #over = new AbortController();
  #source: Source | undefined;
  #opened = false;
  /** Why it was stopped, until somebody was told. */
  #reason: EmbeddingError | undefined;
  /** Ends what is waited for. */
  #wake: (() => void) | undefined;
  /** Undoes what {@link Stream.#begin} did. */
  #undo: (() => void) | undefined;

  constructor(work: StreamWork<Item, Result>) {
    this.#work = work;
    this.#results = this.#run();
    this.#deadline = performance.now() + (work.watch.timeoutMs ?? Infinity);
  }

  next(): Promise<IteratorResult<Result, void>> {
    if (!this.#undo && !this.#over.signal.aborted) this.#begin();
    return this.#results.next();
  }

  async return(): Promise<IteratorReturnResult<void>> {
    // Not left to the results: somebody may wait for one of them. What closing the source throws is the caller's to know.
    const closed = this.#end();
    await this.#results.return();
    await closed;
    return { done: true, value: undefined };
  }

  async throw(error: unknown): Promise<IteratorReturnResult<void>> {
    await this.return();
    throw error;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  /** Not before somebody takes something: a stream that nobody reads keeps nothing, and no process, alive. */
  #begin(): void {
    const { watch: { signal, timeoutMs }, begin } = this.#work;
    const stop = (reason: EmbeddingError) => {
      if (this.#over.signal.aborted) return;
      this.#reason = reason;
      this.#end().catch(() => {});
    };
    const onAbort = () => stop(aborted(signal));
    const timer = timeoutMs !== undefined && setTimeout(() => stop(timedOut(timeoutMs)), Math.max(0, this.#deadline - performance.now()));
    signal?.addEventListener('abort', onAbort, { once: true });
    const done = begin(stop);
    this.#undo = () => {
      if (timer) clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      done();
    };
    if (signal?.aborted) onAbort();
  }

  /** Nothing goes on from here. Gives when the source is closed. */
  async #end(): Promise<void> {
    const [source, undo, opened] = [this.#source, this.#undo, this.#opened];
    this.#source = this.#undo = undefined;
    this.#opened = true;
    this.#wake?.();
    this.#over.abort();
    undo?.();
    await (opened ? source?.close() : this.#closeUnread());
  }

  /** What nobody has begun to read is closed as well. */
  async #closeUnread(): Promise<void> {
    let source: Source;
    try {
      source = openSource(this.#work.inputs);
    } catch {
      return;
    }
    await source.close();
  }

  /** Whether it was left; if it was stopped, throws the reason. */
  #left(): boolean {
    const reason = this.#reason;
    this.#reason = undefined;
    if (reason) throw reason;
    return this.#over.signal.aborted;
  }

  /** What the first of them gives; `undefined` once the stream is over. */
  #first(promises: Promise<unknown>[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#wake = () => resolve(undefined);
      for (const promise of promises) promise.then(resolve, reject);
    });
  }

  async *#run(): AsyncGenerator<Result, void, undefined> {
    const { inputs, order, take, run } = this.#work;
    const running = new Map<number, Promise<{ results: (Result | EmbeddingError)[]; self: number }>>();
    let [started, read] = [0, 0];
    let window: Item[] = [];
    let waiting: Promise<unknown> | undefined;
    let ended = false;
    let failure: EmbeddingError | undefined;
    const start = () => {
      const self = started++;
      const call = run(window, read - window.length, this.#over.signal).then((results) => ({ results, self }));
      // Whoever waits for it gets its failure; until then it is nobody's.
      call.catch(() => {});
      running.set(self, call);
      window = [];
    };
    try {
      if (this.#left()) return;
      this.#opened = true;
      const source = (this.#source = openSource(inputs));
      while (!ended || window.length > 0 || running.size > 0) {
        const size = started === 0 ? FIRST_WINDOW : WINDOW;
        while (!ended && running.size < RUNNING && window.length < size) {
          try {
            let item: unknown = waiting ?? source.next();
            if (isPromise(item)) item = await this.#soonest((waiting = Promise.resolve(item)), window.length > 0 || running.size > 0);
            if (this.#left()) return;
            if (item === LATE) break;
            waiting = undefined;
            if (item === END) [ended, this.#source] = [true, undefined];
            else window.push(take(item, read++));
          } catch (thrown) {
            if (this.#over.signal.aborted) throw thrown;
            // What was read before is answered first.
            [ended, waiting, failure, this.#source] = [true, undefined, sourceFailed(thrown, read), undefined];
          }
        }
        if (window.length > 0 && running.size < RUNNING) start();
        const [first] = running.values();
        if (!first) continue;
        const reasons: Promise<unknown>[] = order === 'input' ? [first] : [...running.values()];
        // While there is room for more, an item that comes is as good a reason to go on as a result; and where none has to be waited
        // for, so is the next turn of the event loop, in which results come.
        if (!ended && running.size < RUNNING) reasons.push(waiting ? waiting.then(() => undefined, () => undefined) : nextTurn());
        const done = (await this.#first(reasons)) as { results: (Result | EmbeddingError)[]; self: number } | undefined;
        if (this.#left()) return;
        if (!done) continue;
        running.delete(done.self);
        for (const result of done.results) {
          if (result instanceof EmbeddingError) throw result;
          yield result;
          if (this.#left()) return;
        }
      }
      if (failure) throw failure;
    } finally {
      // What closing the source throws is less than what ended the stream.
      this.#end().catch(() => {});
    }
  }

  /** What `item` gives; {@link LATE} if it takes its time while there is something else to do. */
  async #soonest(item: Promise<unknown>, busy: boolean): Promise<unknown> {
    if (!busy) return this.#first([item]);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise((resolve) => (timer = setTimeout(resolve, PATIENCE_MS, LATE)));
    try {
      return await this.#first([item, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}
