/** Stable codes of {@link EmbeddingError}; test for these, never for messages. */
export type EmbeddingErrorCode =
  | 'INVALID_ARGUMENT'
  | 'INVALID_CONFIG'
  | 'INPUT_TOO_LONG'
  | 'MODEL_INIT_FAILED'
  | 'EMBEDDING_GENERATION_FAILED'
  | 'MEMORY_LIMIT_EXCEEDED'
  | 'NOT_INITIALIZED'
  | 'BACKEND_UNAVAILABLE'
  | 'RATE_LIMITED'
  | 'BACKEND_REJECTED'
  | 'OVERLOADED'
  | 'TIMED_OUT'
  | 'ABORTED'
  | 'CLOSED'
  | 'CACHE_STORAGE_FAILED'
  | 'INTERNAL';

/** What an {@link EmbeddingError} knows beside its message. */
export interface EmbeddingErrorOptions {
  retryable?: boolean;
  details?: Record<string, unknown>;
  cause?: unknown;
}

/**
 * The one kind of error that this package throws and rejects with. The message names the offending value, index, file
 * or limit and what to do.
 */
export class EmbeddingError extends Error {
  override name = 'EmbeddingError';
  /** What happened, for programs. */
  readonly code: EmbeddingErrorCode;
  /** Whether the same call may succeed later without a change by the caller. */
  readonly retryable: boolean;
  /** The values that the message names, for example `{ index: 3 }`. */
  readonly details: Record<string, unknown>;

  constructor(code: EmbeddingErrorCode, message: string, options: EmbeddingErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.retryable = options.retryable ?? false;
    this.details = options.details ?? {};
  }

  /** What JSON holds of it: no stack and no cause. */
  toJSON(): { name: string; message: string; code: EmbeddingErrorCode; retryable: boolean; details: Record<string, unknown> } {
    const { name, message, code, retryable, details } = this;
    return { name, message, code, retryable, details };
  }
}

/** The model, or the runtime that executes it, could not be loaded. `code` is `MODEL_INIT_FAILED`. */
export class ModelInitializationError extends EmbeddingError {
  override name = 'ModelInitializationError';

  constructor(message: string, options?: EmbeddingErrorOptions) {
    super('MODEL_INIT_FAILED', message, options);
  }
}

/** The model answered with an error or with unusable numbers. `code` is `EMBEDDING_GENERATION_FAILED`. */
export class EmbeddingGenerationError extends EmbeddingError {
  override name = 'EmbeddingGenerationError';

  constructor(message: string, options?: EmbeddingErrorOptions) {
    super('EMBEDDING_GENERATION_FAILED', message, options);
  }
}

/** Not even the smallest piece of the work fits the memory limit. `code` is `MEMORY_LIMIT_EXCEEDED`. */
export class MemoryLimitError extends EmbeddingError {
  override name = 'MemoryLimitError';

  constructor(message: string, options?: EmbeddingErrorOptions) {
    super('MEMORY_LIMIT_EXCEEDED', message, options);
  }
}

/**
 * Errors of another realm, of another thread (its `error` event) or of another copy of this package are instances, too:
 * classes are not shared between those, but `instanceof` is what people test with. Not declared in the class, where its
 * result would be the type that `instanceof` narrows to.
 */
for (const [type, only] of [
  [EmbeddingError, undefined],
  [ModelInitializationError, 'MODEL_INIT_FAILED'],
  [EmbeddingGenerationError, 'EMBEDDING_GENERATION_FAILED'],
  [MemoryLimitError, 'MEMORY_LIMIT_EXCEEDED'],
] as const) {
  Object.defineProperty(type, Symbol.hasInstance, {
    configurable: true,
    value(this: unknown, value: unknown): boolean {
      if (Function.prototype[Symbol.hasInstance].call(this, value)) return true;
      // A class that was derived from ours inherits this, and has only its own instances.
      return this === type && isForeign(value) && (only === undefined || value.code === only);
    },
  });
}

const NAMES = ['EmbeddingError', 'ModelInitializationError', 'EmbeddingGenerationError', 'MemoryLimitError'];

function isForeign(value: unknown): value is WireError {
  // What came through JSON is no error any more.
  if (Object.prototype.toString.call(value) !== '[object Error]') return false;
  const { name, code, retryable, details } = value as Partial<EmbeddingError>;
  const named = NAMES.includes(name as string) && typeof code === 'string';
  return named && typeof retryable === 'boolean' && typeof details === 'object' && details !== null;
}

/** Marks the messages of native errors; see `ERROR_MARK` in `src/binding/mod.rs`. */
const MARK = 'embedcore:';

/** An error as it travels. */
export interface WireError {
  code: EmbeddingErrorCode;
  message: string;
  retryable: boolean;
  details: Record<string, unknown>;
}

/** The error that a native message stands for. What carries no mark is a defect of ours. */
export function fromWire(message: string, cause?: unknown): EmbeddingError {
  if (!message.startsWith(MARK)) {
    return new EmbeddingError('INTERNAL', `Internal error, please report it: ${message}`, { cause });
  }
  return errorOf(JSON.parse(message.slice(MARK.length)) as WireError);
}

/** The error that has travelled. */
export function errorOf({ code, message: text, retryable, details }: WireError): EmbeddingError {
  const options = { retryable, details };
  if (code === 'MODEL_INIT_FAILED') return new ModelInitializationError(text, options);
  if (code === 'EMBEDDING_GENERATION_FAILED') return new EmbeddingGenerationError(text, options);
  if (code === 'MEMORY_LIMIT_EXCEEDED') return new MemoryLimitError(text, options);
  return new EmbeddingError(code, text, options);
}

/** Whatever was thrown, as an {@link EmbeddingError} with a stack of this realm. */
export function toEmbeddingError(thrown: unknown): EmbeddingError {
  return thrown instanceof EmbeddingError ? thrown : fromWire(messageOf(thrown), thrown);
}

/** What anything that was thrown says, whatever it is. */
export function messageOf(thrown: unknown): string {
  try {
    // Not `instanceof Error`: native errors belong to the realm that loaded the addon.
    const message = (thrown as { message?: unknown } | null | undefined)?.message;
    return typeof message === 'string' ? message : String(thrown);
  } catch {
    return 'an error that cannot be shown';
  }
}
