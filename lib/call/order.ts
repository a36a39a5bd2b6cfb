// Calls on one object take effect in the order in which they were made, awaited or not.

/** What may have to wait for calls that were made before. */
type Work<T> = () => T | PromiseLike<T>;

/** The calls about one key, or about all, that are not over. */
interface Lane {
  change?: Promise<unknown> | undefined;
  reads: Set<Promise<unknown>>;
}

/**
 * The calls of one object that are not over. A call waits for those that were made before it and touch the same key, if
 * one of the two changes it. As long as everything is done at once, nobody waits, and nothing is kept.
 */
export class CallOrder {
  readonly #pending = new Set<Promise<unknown>>();
  readonly #changes = new Set<Promise<unknown>>();
  readonly #last = new Set<Promise<unknown>>();
  readonly #keys = new Map<string, Lane>();
  readonly #all: Lane = { reads: new Set() };

  /** Reads a key. */
  read<T>(key: string, work: Work<T>): T | PromiseLike<T> {
    if (this.#pending.size === 0) return this.#begun(work(), key, false);
    return this.#begun(after([this.#keys.get(key)?.change, this.#all.change], work), key, false);
  }

  /** Changes a key. */
  change<T>(key: string, work: Work<T>): T | PromiseLike<T> {
    if (this.#pending.size === 0) return this.#begun(work(), key, true);
    const lane = this.#keys.get(key);
    return this.#begun(after([lane?.change, ...(lane?.reads ?? []), this.#all.change, ...this.#all.reads], work), key, true);
  }

  /** Reads many keys, or all. */
  readAll<T>(work: Work<T>): T | PromiseLike<T> {
    return this.#begun(after(this.#changes, work), undefined, false);
  }

  /** Changes many keys, or all. */
  changeAll<T>(work: Work<T>): T | PromiseLike<T> {
    return this.#begun(after(this.#pending, work), undefined, true);
  }

  /** Does what comes after all calls that were made before, whatever becomes of them. Only what does so, too, waits for it. */
  last<T>(work: Work<T>): T | PromiseLike<T> {
    const outcome = after([...this.#pending, ...this.#last], work);
    if (!isPromise(outcome)) return outcome;
    const over = Promise.resolve(outcome).then(ignore, ignore);
    this.#last.add(over);
    void over.then(() => this.#last.delete(over));
    return outcome;
  }

  #begun<T>(outcome: T | PromiseLike<T>, key: string | undefined, changes: boolean): T | PromiseLike<T> {
    if (!isPromise(outcome)) return outcome;
    const over = Promise.resolve(outcome).then(ignore, ignore);
    const lane = key === undefined ? this.#all : this.#lane(key);
    this.#pending.add(over);
    if (changes) {
      this.#changes.add(over);
      // Whoever waits for this change has waited for the reads before it.
      lane.reads.clear();
      lane.change = over;
    } else {
      lane.reads.add(over);
    }
    void over.then(() => {
      this.#pending.delete(over);
      this.#changes.delete(over);
      lane.reads.delete(over);
      if (lane.change === over) lane.change = undefined;
      if (key !== undefined && !lane.change && lane.reads.size === 0 && this.#keys.get(key) === lane) this.#keys.delete(key);
    });
    return outcome;
  }

  #lane(key: string): Lane {
    let lane = this.#keys.get(key);
    if (!lane) this.#keys.set(key, (lane = { reads: new Set() }));
    return lane;
  }
}

function after<T>(calls: Iterable<Promise<unknown> | undefined>, work: Work<T>): T | PromiseLike<T> {
  const before = [...calls].filter((call) => call !== undefined);
  return before.length === 0 ? work() : Promise.all(before).then(work);
}

function ignore(): void {}

/** Not `instanceof`: promises of the native side may belong to another realm. */
export function isPromise<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof (value as PromiseLike<T> | null | undefined)?.then === 'function';
}

/** What follows from a value: at once, if it is there. What a caller's function has answered may change a moment later. */
export function follow<T, R>(value: T | PromiseLike<T>, next: (value: T) => R | PromiseLike<R>): R | PromiseLike<R> {
  if (!isPromise(value)) return next(value);
  if (value instanceof Promise) return value.then(next);
  // What else can be awaited need not know what `then` answers.
  return new Promise<R>((resolve, reject) => {
    value.then((known) => {
      try {
        resolve(next(known));
      } catch (thrown) {
        reject(thrown);
      }
    }, reject);
  });
}
