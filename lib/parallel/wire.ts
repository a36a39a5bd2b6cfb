// What crosses between this thread and a worker.

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

/** What a worker tells. `refused`: the function could not be loaded, so that there are no answers. */
export type Response = { started: true } | { refused: WireThrown } | { answers: WireAnswer[] };

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

/** Whether a value can be sent to another thread. */
export function isCloneable(value: unknown): boolean {
  if (typeof value !== 'object' && typeof value !== 'function' && typeof value !== 'symbol') return true;
  if (value === null) return true;
  try {
    structuredClone(value);
    return true;
  } catch {
    return false;
  }
}

function describe(value: unknown): string {
  try {
    return String(value);
  } catch {
    return 'a value that cannot be shown';
  }
}

/** The buffers that values are, or that they are views of, each once. */
export function buffersOf(values: readonly unknown[]): ArrayBuffer[] {
  const buffers = values.map((value) => (ArrayBuffer.isView(value) ? value.buffer : value));
  return [...new Set(buffers.filter((buffer) => buffer instanceof ArrayBuffer))];
}
