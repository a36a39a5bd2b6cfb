import { types } from 'node:util';

import { invalid, isArray, show } from '../call/input';
import { END, open, type Source as Inputs } from '../call/source';

/** Consecutive items, and the index of the first. An empty chunk is the end. */
export interface Chunk<T> {
  items: readonly (T | PromiseLike<T>)[];
  first: number;
}

/** Whether a value has to be waited for. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (typeof value === 'object' || typeof value === 'function') && value !== null && typeof (value as { then?: unknown }).then === 'function';
}

/** What a {@link Source} is told beside its items. */
export interface SourceHooks<T> {
  /** Waited for before each read. */
  room?: (() => Promise<void> | undefined) | undefined;
  /** Told how many items a read gave. */
  taken?: ((count: number) => void) | undefined;
  /** Copies the items of an array. */
  copy?: ((items: readonly (T | PromiseLike<T>)[]) => readonly (T | PromiseLike<T>)[]) | undefined;
}

/** The same promise, which has somebody who looks at it: until its turn comes, or if that never comes, nobody else does. */
function watched<T>(item: T): T {
  if (types.isPromise(item)) Promise.prototype.then.call(item, undefined, () => {});
  return item;
}

/**
 * Reads an iterable or an async iterable in chunks, on demand and in order, one read at a time. An array is copied when
 * this is made, so that later changes to it do not count.
 */
export class Source<T> {
  readonly #array: readonly (T | PromiseLike<T>)[] | undefined;
  readonly #inputs: Inputs | undefined;
  /** The read before, which the next one waits for. */
  #reading: Promise<unknown> = Promise.resolve();
  readonly #hooks: SourceHooks<T>;
  #failure: { thrown: unknown } | undefined;
  #next = 0;
  #ended = false;

  /** @throws `INVALID_ARGUMENT` where `items` cannot be iterated. */
  constructor(items: Iterable<T | PromiseLike<T>> | AsyncIterable<T>, hooks: SourceHooks<T> = {}) {
    this.#hooks = hooks;
    if (isArray(items)) {
      const array = Array.from(items as readonly (T | PromiseLike<T>)[], watched);
      this.#array = hooks.copy?.(array) ?? array;
      return;
    }
    this.#inputs = open(items);
    if (!this.#inputs) throw invalid(`The items are ${show(items)}, not an array, an iterable or an async iterable`);
  }

  /** How many items there are, where that is known before they are read. */
  get total(): number | undefined {
    return this.#array?.length;
  }

  /** The next `count` items, or fewer at the end. Rejects with what the source throws, after the items before it. */
  take(count: number): Chunk<T> | Promise<Chunk<T>> {
    if (this.#array && !this.#hooks.room) return this.#slice(this.#array, count);
    const chunk = this.#reading.then(() => this.#read(count));
    this.#reading = chunk.catch(() => {});
    return chunk;
  }

  /** Tells the source that nothing more is read. Does not wait for it. */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    // A source that fails while it closes has nobody left to tell.
    this.#inputs?.close().catch(() => {});
  }

  #slice(array: readonly (T | PromiseLike<T>)[], count: number): Chunk<T> {
    const first = this.#next;
    const items = this.#ended ? [] : array.slice(first, first + count);
    this.#next += items.length;
    return { items, first };
  }

  async #read(count: number): Promise<Chunk<T>> {
    await this.#hooks.room?.();
    if (this.#array) {
      const chunk = this.#slice(this.#array, count);
      this.#hooks.taken?.(chunk.items.length);
      return chunk;
    }
    const first = this.#next;
    const items: (T | PromiseLike<T>)[] = [];
    while (items.length < count && !this.#ended) {
      let item: unknown;
      try {
        const next = this.#inputs!.next();
        item = this.#inputs!.waits ? await next : next;
      } catch (thrown) {
        this.#failure = { thrown };
        this.#ended = true;
        break;
      }
      if (item === END) this.#ended = true;
      else items.push(watched(item as T | PromiseLike<T>));
    }
    this.#next += items.length;
    this.#hooks.taken?.(items.length);
    if (items.length === 0 && this.#failure) throw this.#failure.thrown;
    return { items, first };
  }
}
