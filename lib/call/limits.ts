import { EmbeddingError, toEmbeddingError } from './errors';
import { show } from './input';
import { read, refused } from './options';

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
 * called when nobody waits for the work any more.
 */
export async function watched<Result, Report extends unknown[]>(
  { signal, timeoutMs, progressCallback }: Watch<Report>,
  cancel: () => void,
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
    cancel();
    giveUp(stopped);
  };
  const check = () => {
    if (stopped) throw stopped;
  };
  const report = progressCallback && ((...values: Report) => {
    if (over) return;
    try {
      progressCallback(...values);
    } catch (cause) {
      over = true;
      stop(new EmbeddingError('ABORTED', 'The call was aborted because its progress callback threw', { cause }));
    }
  });
  const onAbort = () => stop(aborted(signal));
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => stop(timedOut(timeoutMs)), timeoutMs);
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    if (signal?.aborted) onAbort();
    check();
    const result = await Promise.race([work(report, check), end]);
    check();
    return result;
  } catch (thrown) {
    cancel();
    throw stopped ?? toEmbeddingError(thrown);
  } finally {
    over = true;
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

/** The error of a call whose signal was aborted. */
export function aborted(signal: AbortSignal | undefined): EmbeddingError {
  return new EmbeddingError('ABORTED', 'The call was aborted', { cause: signal?.reason });
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
