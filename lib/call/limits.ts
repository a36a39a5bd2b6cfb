import { EmbeddingError, messageOf, toEmbeddingError } from './errors';
import { show } from './input';
import { read, refused } from './options';
import { isPromise } from './order';

/** How a caller follows work that takes a while. */
export interface Watch<Report extends unknown[]> {
  signal?: AbortSignal | undefined;
  timeoutMs?: number | undefined;
  progressCallback?: ((...report: Report) => void) | undefined;
}

/** The longest timer of Node.js, in milliseconds: about 25 days. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * Runs work that a signal, a time limit and a progress callback that throws stop: whatever the work waits for, the promise
 * is rejected then. No report comes after the end. Work whose signal was aborted before is not begun.
 *
 * `work` gets a function that reports, if anybody listens, and one that throws once the work was stopped. `cancel` is
 * called when nobody waits for the work any more, with the reason where it was stopped.
 */
export async function watched<Result, Report extends unknown[]>(
  { signal, timeoutMs, progressCallback }: Watch<Report>,
  cancel: (reason?: EmbeddingError) => void,
  work: (report: ((...report: Report) => void) | undefined, check: () => void) => Promise<Result>,
): Promise<Result> {
  let over = false;
  // What stopped the work, where it was stopped from this side.
  let stopped: EmbeddingError | undefined;
  let giveUp!: (reason: EmbeddingError) => void;
  const end = new Promise<never>((_, reject) => (giveUp = reject));
  end.catch(() => {});
  const stop = (reason: EmbeddingError) => {
    stopped ??= reason;
    cancel(stopped);
    giveUp(stopped);
  };
  const check = () => {
    if (stopped) throw stopped;
  };
  const report = progressCallback && ((...values: Report) => {
    if (over) return;
    tell(progressCallback, (reason) => {
      if (over) return;
      over = true;
      stop(reason);
    }, ...values);
  });
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => stop(timedOut(timeoutMs)), timeoutMs);
  let forget: (() => void) | undefined;
  try {
    forget = signal && onAbort(signal, () => stop(aborted(signal)));
    if (signal && isAborted(signal)) stop(aborted(signal));
    check();
    const result = await Promise.race([work(report, check), end]);
    check();
    return result;
  } catch (thrown) {
    cancel(stopped);
    throw stopped ?? toEmbeddingError(thrown);
  } finally {
    over = true;
    clearTimeout(timer);
    forget?.();
  }
}

/** Who waits for a signal, and the listener that tells them. */
const waiting = new WeakMap<AbortSignal, { all: Set<() => void>; tell: () => void }>();

/**
 * Calls back when a signal is aborted, until what this gives is called. One listener for each signal, however many calls it stops:
 * Node.js warns of more than ten.
 */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  let listening = waiting.get(signal);
  if (!listening) {
    const all = new Set<() => void>();
    const tell = () => {
      for (const each of [...all]) each();
    };
    guarded(() => signal.addEventListener('abort', tell, { once: true }));
    waiting.set(signal, (listening = { all, tell }));
  }
  const { all, tell } = listening;
  // One of its own: the same function may wait twice.
  const own = () => callback();
  all.add(own);
  return () => {
    if (!all.delete(own) || all.size > 0 || waiting.get(signal)?.all !== all) return;
    waiting.delete(signal);
    try {
      signal.removeEventListener('abort', tell);
    } catch {
      // It need not be able to.
    }
  };
}

export function isAborted(signal: AbortSignal): boolean {
  return guarded(() => signal.aborted);
}

function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw refused('signal', `it cannot be listened to: ${messageOf(cause)}`, cause);
  }
}

/** What `promise` gives, unless the signal is aborted before. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise<T>((resolve, reject) => {
    const stop = () => reject(aborted(signal));
    const forget = onAbort(signal, stop);
    if (isAborted(signal)) stop();
    promise.then(resolve, reject).finally(forget);
  });
}

/** Tells a caller's callback. `failed` hears of what it throws, or rejects with later: nobody else hears that. */
export function tell<Report extends unknown[]>(callback: (...report: Report) => void, failed: (reason: EmbeddingError) => void, ...report: Report): void {
  const fail = (cause: unknown) => failed(new EmbeddingError('ABORTED', 'The call was aborted because its progress callback threw', { cause }));
  try {
    const outcome = callback(...report) as unknown;
    if (isPromise(outcome)) outcome.then(undefined, fail);
  } catch (cause) {
    fail(cause);
  }
}

/** The error of a call whose signal was aborted. */
export function aborted(signal: AbortSignal | undefined): EmbeddingError {
  let cause: unknown;
  try {
    cause = signal?.reason;
  } catch (thrown) {
    cause = thrown;
  }
  return new EmbeddingError('ABORTED', 'The call was aborted', { cause });
}

/** The error of a call that took longer than it was given. */
export function timedOut(timeoutMs: number): EmbeddingError {
  const message = `The call did not finish within ${timeoutMs} ms: allow more time or give it less to do`;
  return new EmbeddingError('TIMED_OUT', message, { retryable: true, details: { timeoutMs } });
}

/** The options of a {@link Watch}, if they are what they have to be. `callback`: what the caller's progress callback is called. */
export function checkWatch<Report extends unknown[]>(watch: Watch<Report>, callback = 'progressCallback'): Watch<Report> {
  const { signal, timeoutMs, progressCallback } = watch;
  const stops = typeof signal === 'object' && signal !== null && typeof read(signal, 'addEventListener', 'signal') === 'function';
  if (signal != null && !(stops && typeof read(signal, 'aborted', 'signal') === 'boolean')) throw refused('signal', `${show(signal)} is not an AbortSignal`);
  if (timeoutMs != null && !(Number.isInteger(timeoutMs) && timeoutMs >= 1 && timeoutMs <= LONGEST_MS)) {
    throw refused('timeoutMs', `${show(timeoutMs)} is not a whole number from 1 to ${LONGEST_MS}`);
  }
  if (progressCallback != null && typeof progressCallback !== 'function') throw refused(callback, `${show(progressCallback)} is not a function`);
  return { signal: signal ?? undefined, timeoutMs: timeoutMs ?? undefined, progressCallback: progressCallback ?? undefined };
}
