// What gives the inputs of a stream: an iterable, an async iterable, a stream of Node.js or of the web.

import { types } from 'node:util';

import { EmbeddingError, messageOf } from './errors';
import { invalid, show } from './input';

/** Gives one input after the other, then {@link END}. Closed once at most. */
export interface Source {
  /** Whether `next` answers promises of inputs. */
  readonly waits: boolean;
  next(): unknown;
  close(): Promise<void>;
}

/** How long a source may take to close, in milliseconds: nobody waits longer for one that never does. */
const CLOSING_MS = 5000;

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
  let source: Source | undefined;
  try {
    source = open(inputs);
  } catch (thrown) {
    throw sourceFailed(thrown, 0);
  }
  if (source) return source;
  throw invalid(`The inputs of a stream are ${show(inputs)}: pass an array, a generator or an async generator`);
}

/** The same with what it throws as it is, and nothing for what cannot be iterated. */
export function open(inputs: unknown): Source | undefined {
  if (typeof inputs === 'string') return undefined;
  if (has(inputs, Symbol.asyncIterator)) return openAsync(inputs as AsyncIterable<unknown>);
  if (has(inputs, Symbol.iterator)) return openSync(inputs as Iterable<unknown>);
  return undefined;
}

function has(value: unknown, method: PropertyKey): boolean {
  try {
    return typeof (value as Record<PropertyKey, unknown> | null | undefined)?.[method] === 'function';
  } catch {
    return false;
  }
}

/** What an iterator has given. */
function read(result: unknown): unknown {
  if (typeof result !== 'object' || result === null || types.isPromise(result)) throw invalid(`The iterator gave ${show(result)}, not { value, done }`);
  const { done, value } = result as IteratorResult<unknown>;
  return done ? END : value;
}

function openSync(inputs: Iterable<unknown>): Source | undefined {
  const iterator = inputs[Symbol.iterator]();
  if (!has(iterator, 'next')) return undefined;
  let [inside, left] = [false, false];
  const close = async () => {
    // It cannot be closed while it is asked for an item, which happens when that stops the stream.
    if (inside) left = true;
    else iterator.return?.();
  };
  return {
    waits: false,
    next: () => {
      inside = true;
      try {
        return read(iterator.next());
      } finally {
        inside = false;
        if (left) close().catch(() => {});
      }
    },
    close,
  };
}

function openAsync(inputs: AsyncIterable<unknown>): Source | undefined {
  // A reader's request can be cancelled while it waits, an iterator's cannot.
  const reader = inputs instanceof ReadableStream && inputs.getReader();
  const iterator: AsyncIterator<unknown> = reader
    ? { next: () => reader.read() as Promise<IteratorResult<unknown>>, return: async () => (await reader.cancel(), { done: true, value: undefined }) }
    : inputs[Symbol.asyncIterator]();
  if (!has(iterator, 'next')) return undefined;
  let pending = false;
  return {
    waits: true,
    next: async () => {
      pending = true;
      const result = await iterator.next();
      pending = false;
      return read(result);
    },
    close: async () => {
      // An async generator closes only after it has given what it is asked for, which may be never: that of a stream of
      // Node.js, too, but the stream itself can be told.
      const { pipe, destroy } = inputs as { pipe?: unknown; destroy?: unknown };
      if (typeof pipe === 'function' && typeof destroy === 'function') destroy.call(inputs);
      const closed = Promise.resolve(iterator.return?.());
      if (pending) closed.catch(() => {});
      else await soon(closed);
    },
  };
}

/** What comes of it, unless that takes too long. */
async function soon(closed: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  closed.catch(() => {});
  await Promise.race([closed, new Promise((resolve) => (timer = setTimeout(resolve, CLOSING_MS)))]).finally(() => clearTimeout(timer));
}
