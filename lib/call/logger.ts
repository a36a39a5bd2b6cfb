import type { EmbeddingError } from './errors';
import { show } from './input';
import { read, refused } from './options';
import { isPromise } from './order';

/**
 * Where messages go: `console`, pino, winston, or anything with some of these functions. A level that it lacks is not
 * told. Without a logger, nothing is printed at all.
 */
export interface Logger {
  /** What every call did, and every lookup in a cache. */
  debug?(message: string, details?: Record<string, unknown>): unknown;
  /** What happens now and then: a model is fetched, or loaded; another size of batches, or another strategy; a clean-up. */
  info?(message: string, details?: Record<string, unknown>): unknown;
  /** What does not fail a call, and what somebody should look at: trouble with a cache's file, texts that were skipped. */
  warn?(message: string, details?: Record<string, unknown>): unknown;
  /** What failed a call. Its promise rejects as well. */
  error?(message: string, details?: Record<string, unknown>): unknown;
}

/** The option of what tells somebody what it does. */
export interface Logging {
  /** Told what happens: `console`, for example. Default: nobody; nothing is printed. */
  logger?: Logger | undefined;
}

const LEVELS = ['debug', 'info', 'warn', 'error'] as const;

/** A logger that never throws. */
export type Log = Record<(typeof LEVELS)[number], (message: string, details?: Record<string, unknown>) => void>;

/** The logger that the option names, if it is one. */
export function logOf(logger: unknown): Log | undefined {
  if (logger === undefined) return undefined;
  const own = (typeof logger === 'function' || typeof logger === 'object' ? logger : null) as Logger | null;
  const present = own ? LEVELS.map((level) => read(own, level, `logger.${level}`)).filter((tell) => tell !== undefined) : [];
  if (!own || present.length === 0 || present.some((tell) => typeof tell !== 'function')) {
    throw refused('logger', `${show(logger)} is not an object with functions debug, info, warn or error; pass console, for example`);
  }
  const told = LEVELS.map((level) => [
    level,
    (message: string, details: Record<string, unknown> = {}) => {
      try {
        const outcome = own[level]?.(`embedcore: ${message}`, details);
        if (isPromise(outcome)) outcome.then(undefined, () => {});
      } catch {
        // What a logger does is no reason to fail the call that it is told about.
      }
    },
  ]);
  return Object.fromEntries(told) as Log;
}

/** Tells of another size of batches. */
export function tellSize(log: Log | undefined, change: { maxTokens?: number; before: number; after: number; reason: string }): void {
  const { maxTokens, before, after, reason } = change;
  const of = maxTokens === undefined ? '' : ` of texts up to ${maxTokens} tokens`;
  log?.info(`Batches${of} have ${after} items now, ${before} before: ${reason}`, { event: 'batch-size-changed', ...change });
}

/** Tells of an error that a caller is about to get. What the caller has stopped is no failure. */
export function tellFailure(log: Log | undefined, what: string, error: EmbeddingError): void {
  const level = error.code === 'ABORTED' || error.code === 'CLOSED' ? 'debug' : 'error';
  log?.[level](`${what}: ${error.message}`, { event: 'failed', code: error.code, ...error.details });
}
