// What crosses between this thread and a worker.

import { types } from 'node:util';
import { serialize } from 'node:v8';

import { EmbeddingError, EmbeddingGenerationError, MemoryLimitError, ModelInitializationError, type EmbeddingErrorCode } from '../call/errors';

/** What is asked of a worker: to apply a function of a module to items. */
export interface Request {
  module: string;
  name: string;
  items: readonly unknown[];
  /** The place of each among all items of the call. */
  indexes: readonly number[];
  /** Whether an item is a list of arguments. */
  spread: boolean;
  /** Whether results that are buffers are moved instead of copied. */
  transfer: boolean;
  /** Whether to tell when the work begins. */
  tellStart: boolean;
}

/** What tells our messages from those that a module posts on the same port. */
const MARK = 'embedcore/parallel';

/**
 * What a worker tells. `refused`: the function could not be loaded; `unread`: the request could not be read. There are no
 * answers then.
 */
export type Response = { mark: typeof MARK } & ({ started: true } | { refused: WireThrown } | { unread: string } | { answers: WireAnswer[] });

/** A response, marked as ours. */
export function responseOf<Content extends object>(content: Content): Content & { mark: typeof MARK } {
  return { ...content, mark: MARK };
}

export function isResponse(message: unknown): message is Response {
  return typeof message === 'object' && message !== null && (message as { mark?: unknown }).mark === MARK;
}

/** One for each item. */
export type WireAnswer = { value: unknown } | { thrown: WireThrown };

/** What was thrown, as it crosses from one thread or process to another: structured cloning drops names, codes and classes. */
export type WireThrown = { value: unknown } | { error: WireError };

interface WireError {
  name: string;
  message: string;
  stack: string | undefined;
  /** Own properties beside these, such as `code`, as far as they can be cloned. */
  properties: Record<string, unknown>;
  cause?: WireThrown;
  /** Of an `AggregateError`. */
  errors?: WireThrown[];
}

/** Causes of causes beyond this are left out: they may be circular. */
const MOST_CAUSES = 16;

/** Properties of errors that cross in a way of their own. */
const APART = new Set(['name', 'message', 'stack', 'cause', 'errors']);

/** Ready to be sent. */
export function dismantle(thrown: unknown, depth = 0): WireThrown {
  if (!isError(thrown)) return isCloneable(thrown) ? { value: thrown } : { value: describe(thrown) };
  const { name, message, stack } = thrown;
  const { cause, errors } = thrown as { cause?: unknown; errors?: unknown };
  const properties = Object.fromEntries(Object.entries(thrown).filter(([key, value]) => !APART.has(key) && isCloneable(value)));
  const error: WireError = { name: String(name), message: String(message), stack: stack === undefined ? undefined : String(stack), properties };
  if (depth < MOST_CAUSES) {
    if ('cause' in thrown) error.cause = dismantle(cause, depth + 1);
    if (Array.isArray(errors)) error.errors = errors.map((each) => dismantle(each, depth + 1));
  }
  return { error };
}

/** What was thrown over there, in classes of this side: names, messages, codes, causes and stacks are as they were. */
export function reassemble(wire: WireThrown): unknown {
  if (!('error' in wire)) return wire.value;
  const { name, message, stack, properties, cause, errors } = wire.error;
  const options = cause && { cause: reassemble(cause) };
  const error = create(name, message, properties, errors?.map(reassemble), options);
  if (error.name !== name) define(error, 'name', name);
  if (stack !== undefined) define(error, 'stack', stack);
  for (const [key, value] of Object.entries(properties)) {
    if (!Object.hasOwn(error, key)) (error as unknown as Record<string, unknown>)[key] = value;
  }
  return error;
}

const BUILT_IN: Record<string, ErrorConstructor> = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
const OURS = { ModelInitializationError, EmbeddingGenerationError, MemoryLimitError };

function create(name: string, message: string, properties: Record<string, unknown>, errors: unknown[] | undefined, options?: { cause: unknown }): Error {
  const { code, retryable, details } = properties;
  const known = { ...options, retryable: retryable === true, details: (details ?? {}) as Record<string, unknown> };
  if (name === 'EmbeddingError' && typeof code === 'string') return new EmbeddingError(code as EmbeddingErrorCode, message, known);
  if (Object.hasOwn(OURS, name)) return new OURS[name as keyof typeof OURS](message, known);
  if (errors) return new AggregateError(errors, message, options);
  return new (Object.hasOwn(BUILT_IN, name) ? BUILT_IN[name]! : Error)(message, options);
}

/** Not enumerable, as it is in errors that are made here. */
function define(error: Error, key: string, value: unknown): void {
  Object.defineProperty(error, key, { value, writable: true, configurable: true, enumerable: false });
}

/** Errors of other realms count, and those that were derived. */
function isError(value: unknown): value is Error {
  return value instanceof Error || Object.prototype.toString.call(value) === '[object Error]';
}

/** Whether a value can be sent to another thread, or to another process. */
export function isCloneable(value: unknown, processes = false): boolean {
  if (typeof value !== 'object' && typeof value !== 'function' && typeof value !== 'symbol') return true;
  if (value === null) return true;
  try {
    structuredClone(value);
    if (processes) serialize(value);
    return true;
  } catch {
    return false;
  }
}

/** Whether a value is a buffer, or a view of one, that was moved elsewhere. */
export function isDetached(value: unknown): boolean {
  const buffer = ArrayBuffer.isView(value) ? value.buffer : value;
  if (!types.isArrayBuffer(buffer) || buffer.byteLength > 0) return false;
  try {
    new Uint8Array(buffer);
    return false;
  } catch {
    return true;
  }
}

function describe(value: unknown): string {
  try {
    return String(value);
  } catch {
    return 'a value that cannot be shown';
  }
}

/** The buffers that values are, or that they are views of from end to end, each once: what can be moved. */
export function buffersOf(values: readonly unknown[]): ArrayBuffer[] {
  const buffers = values.map((value) => (ArrayBuffer.isView(value) && !isPart(value) ? value.buffer : value));
  return [...new Set(buffers.filter((buffer) => types.isArrayBuffer(buffer) && !isDetached(buffer)))] as ArrayBuffer[];
}

function isPart(view: ArrayBufferView): boolean {
  return view.byteLength < view.buffer.byteLength;
}

/** What crosses for a value: of a view of a part of a buffer, that part alone. */
export function partOf(value: unknown): unknown {
  if (!ArrayBuffer.isView(value) || !types.isArrayBuffer(value.buffer) || !isPart(value)) return value;
  const bytes = value.buffer.slice(value.byteOffset, value.byteOffset + value.byteLength);
  const kind = (value as { [Symbol.toStringTag]?: unknown })[Symbol.toStringTag];
  const Kind = VIEWS.find(({ name }) => name === kind);
  return Kind ? new (Kind as new (bytes: ArrayBuffer) => ArrayBufferView)(bytes) : value;
}

/** What structured cloning makes of views. */
const VIEWS = [
  Uint8Array, Uint8ClampedArray, Uint16Array, Uint32Array, Int8Array, Int16Array, Int32Array, Float32Array, Float64Array, BigInt64Array, BigUint64Array, DataView,
];

/**
 * Items as they are now, for workers that take them later. Buffers that are to be moved are ours from now on. What cannot be
 * copied stays as it is, and is refused when it is sent.
 */
export function snapshot<T>(items: readonly T[], transfer: boolean): T[] {
  const copies = items.map(partOf) as T[];
  const places = [...copies.keys()].filter((i) => typeof copies[i] === 'object' && copies[i] !== null && !types.isPromise(copies[i]));
  const copy = (some: number[], move: boolean) => {
    const values = some.map((i) => copies[i]);
    try {
      const copied = structuredClone(values, move ? { transfer: buffersOf(values) } : undefined);
      for (const [at, i] of some.entries()) copies[i] = copied[at]!;
      return true;
    } catch {
      return false;
    }
  };
  // One that cannot be copied, or not be moved, does not keep the others from it.
  if (!copy(places, transfer)) for (const i of places) void ((transfer && copy([i], true)) || copy([i], false));
  return copies;
}
