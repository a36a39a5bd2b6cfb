import { EmbeddingError } from '../call/errors';
import { onAbort } from '../call/limits';
import type { Answer, Runner } from './drive';
import { isThenable, type Chunk } from './source';

/** A function of the caller, on this thread. The signal is aborted when its answer no longer counts. */
export type ItemFunction<T, R> = (item: T, index: number, signal: AbortSignal) => R | PromiseLike<R>;

/** Runs a function on this thread, the items of a chunk one after the other. */
export function functionRunner<T, R>(fn: ItemFunction<T, R>, timeoutMs: number | undefined, what?: string): Runner<T, R> {
  const one = timeoutMs === undefined ? fn : limited(fn, timeoutMs, what);
  return {
    async run({ items, first }: Chunk<T>, answer: Answer<R>, signal: AbortSignal): Promise<void> {
      for (let i = 0; i < items.length && !signal.aborted; i++) {
        let value: R;
        try {
          const item = items[i]!;
          const result = one(isThenable(item) ? await item : (item as T), first + i, signal);
          value = isThenable(result) ? await result : result;
        } catch (reason) {
          answer(first + i, false, reason);
          continue;
        }
        answer(first + i, true, value);
      }
    },
  };
}

const timeOuts = new WeakSet<object>();

/** Whether this is an error that {@link timeOut} made: a caller's function may throw `TIMED_OUT` of its own. */
export function isTimeOut(error: unknown): boolean {
  return typeof error === 'object' && error !== null && timeOuts.has(error);
}

/** The error of an item, or of what else there is many of, that took too long. */
export function timedOut(index: number, timeoutMs: number, what = 'Item'): EmbeddingError {
  return timeOut(`${what} ${index} was not done within ${timeoutMs} ms: raise timeoutMs, or make its work end when its signal is aborted`, { index, timeoutMs });
}

export function timeOut(message: string, details: Record<string, unknown>): EmbeddingError {
  const error = new EmbeddingError('TIMED_OUT', message, { retryable: true, details });
  timeOuts.add(error);
  return error;
}

/** The same function, which gives up after a time and aborts the signal that it got. */
export function limited<T, R>(fn: ItemFunction<T, R>, timeoutMs: number, what?: string): ItemFunction<T, R> {
  return (item, index, outer) => new Promise<R>((resolve, reject) => {
    const own = new AbortController();
    const forget = onAbort(outer, () => own.abort(outer.reason));
    const timer = setTimeout(() => {
      const error = timedOut(index, timeoutMs, what);
      own.abort(error);
      reject(error);
    }, timeoutMs);
    const end = <V>(settle: (value: V) => void) => (value: V) => {
      clearTimeout(timer);
      forget();
      settle(value);
    };
    try {
      Promise.resolve(fn(item, index, own.signal)).then(end(resolve), end(reject));
    } catch (thrown) {
      end(reject)(thrown);
    }
  });
}
