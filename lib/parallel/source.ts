import { invalid, show } from '../call/input';

/** Consecutive items, and the index of the first. An empty chunk is the end. */
export interface Chunk<T> {
  items: readonly (T | PromiseLike<T>)[];
  first: number;
}

/** Whether a value has to be waited for. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (typeof value === 'object' || typeof value === 'function') && value !== null && typeof (value as { then?: unknown }).then === 'function';
}

/**
 * Reads an iterable or an async iterable in chunks, on demand and in order, one read at a time. An array is copied when
 * this is made, so that later changes to it do not count.
 */
export class Source<T> {
  readonly #array: readonly (T | PromiseLike<T>)[] | undefined;
  readonly #iterator: Iterator<T | PromiseLike<T>> | AsyncIterator<T> | undefined;
  /** The read before, which the next one waits for. */
  #reading: Promise<unknown> = Promise.resolve();
  readonly #room: (() => Promise<void> | undefined) | undefined;
  readonly #taken: ((count: number) => void) | undefined;
  #failure: { thrown: unknown } | undefined;
  #next = 0;
  #ended = false;

  /**
   * `room` is waited for before each read, `taken` is told how many items it gave.
   * @throws `INVALID_ARGUMENT` where `items` cannot be iterated.
   */
  constructor(items: Iterable<T | PromiseLike<T>> | AsyncIterable<T>, room?: () => Promise<void> | undefined, taken?: (count: number) => void) {
    this.#room = room;
    this.#taken = taken;
    if (Array.isArray(items)) {
      this.#array = [...(items as T[])];
      return;
    }
    const iterable = (typeof items === 'string' ? {} : Object(items)) as Partial<AsyncIterable<T> & Iterable<T>>;
    const begin: unknown = iterable[Symbol.asyncIterator] ?? iterable[Symbol.iterator];
    const iterator = (typeof begin === 'function' ? begin.call(iterable) : undefined) as AsyncIterator<T> | null | undefined;
    if (typeof iterator?.next !== 'function') throw invalid(`The items are ${show(items)}, not an array, an iterable or an async iterable`);
    this.#iterator = iterator;
  }

  /** How many items there are, where that is known before they are read. */
  get total(): number | undefined {
    return this.#array?.length;
  }

  /** The next `count` items, or fewer at the end. Rejects with what the source throws, after the items before it. */
  take(count: number): Chunk<T> | Promise<Chunk<T>> {
    if (this.#array && !this.#room) return this.#slice(this.#array, count);
    const chunk = this.#reading.then(() => this.#read(count));
    this.#reading = chunk.catch(() => {});
    return chunk;
  }

  /** Tells the source that nothing more is read. Does not wait for it. */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    try {
      // A source that fails while it closes has nobody left to tell.
      Promise.resolve(this.#iterator?.return?.()).catch(() => {});
    } catch {}
  }

  #slice(array: readonly (T | PromiseLike<T>)[], count: number): Chunk<T> {
    const first = this.#next;
    const items = this.#ended ? [] : array.slice(first, first + count);
    this.#next += items.length;
    return { items, first };
  }

  async #read(count: number): Promise<Chunk<T>> {
    await this.#room?.();
    if (this.#array) {
      const chunk = this.#slice(this.#array, count);
      this.#taken?.(chunk.items.length);
      return chunk;
    }
    const first = this.#next;
    const items: (T | PromiseLike<T>)[] = [];
    while (items.length < count && !this.#ended) {
      let result: IteratorResult<T | PromiseLike<T>>;
      try {
        const step = this.#iterator!.next();
        result = isThenable(step) ? await step : step;
        if (typeof result !== 'object' || result === null) throw invalid(`The iterator of the items gave ${show(result)}, not { value, done }`);
      } catch (thrown) {
        this.#failure = { thrown };
        this.#ended = true;
        break;
      }
      if (result.done) this.#ended = true;
      else items.push(result.value);
    }
    this.#next += items.length;
    this.#taken?.(items.length);
    if (items.length === 0 && this.#failure) throw this.#failure.thrown;
    return { items, first };
  }
}
