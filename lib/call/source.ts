// What gives the inputs of a stream: an iterable, an async iterable, a stream of Node.js or of the web.

import { EmbeddingError, messageOf } from './errors';
import { invalid, show } from './input';

/** Gives one input after the other, then {@link END}. Closed once at most. */
export interface Source {
  next(): unknown;
  close(): Promise<void>;
}

/** What comes after the last input. */
export const END: unique symbol = Symbol('end');

/** What a source throws is the caller's, whoever throws it. */
export function sourceFailed(thrown: unknown, read: number): EmbeddingError {
  if (thrown instanceof EmbeddingError) return thrown;
  const message = `The source of the stream failed after ${read} inputs: ${messageOf(thrown)}`;
  return new EmbeddingError('ABORTED', message, { cause: thrown, details: { index: read } });
}

/** The inputs of an iterable or an async iterable, one by one. */
export function openSource(inputs: unknown): Source {
  const { [Symbol.asyncIterator]: asynchronous, [Symbol.iterator]: synchronous } = Object(inputs) as AsyncIterable<unknown> & Iterable<unknown>;
  try {
    if (typeof asynchronous === 'function') return openAsync(inputs as AsyncIterable<unknown>);
    if (typeof synchronous === 'function' && typeof inputs !== 'string') return openSync(inputs as Iterable<unknown>);
  } catch (thrown) {
    throw sourceFailed(thrown, 0);
  }
  throw invalid(`The inputs of a stream are ${show(inputs)}: pass an array, a generator or an async generator`);
}

function openSync(inputs: Iterable<unknown>): Source {
  const iterator = inputs[Symbol.iterator]();
  let [inside, left] = [false, false];
  const close = async () => {
    // It cannot be closed while it is asked for an item, which happens when that stops the stream.
    if (inside) left = true;
    else iterator.return?.();
  };
  return {
    next: () => {
      inside = true;
      try {
        const { done, value } = iterator.next();
        return done ? END : value;
      } finally {
        inside = false;
        if (left) close().catch(() => {});
      }
    },
    close,
  };
}

function openAsync(inputs: AsyncIterable<unknown>): Source {
  // A reader's request can be cancelled while it waits, an iterator's cannot.
  const reader = inputs instanceof ReadableStream && inputs.getReader();
  const iterator: AsyncIterator<unknown> = reader
    ? { next: () => reader.read() as Promise<IteratorResult<unknown>>, return: async () => (await reader.cancel(), { done: true, value: undefined }) }
    : inputs[Symbol.asyncIterator]();
  let pending = false;
  return {
    next: async () => {
      pending = true;
      const { done, value } = await iterator.next();
      pending = false;
      return done ? END : value;
    },
    close: async () => {
      // An async generator closes only after it has given what it is asked for, which may be never: that of a stream of
      // Node.js, too, but the stream itself can be told.
      const { pipe, destroy } = inputs as { pipe?: unknown; destroy?: unknown };
      if (typeof pipe === 'function' && typeof destroy === 'function') destroy.call(inputs);
      const closed = Promise.resolve(iterator.return?.());
      if (pending) closed.catch(() => {});
      else await closed;
    },
  };
}
