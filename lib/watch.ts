import { EmbeddingError, toEmbeddingError } from './errors';
import { show } from './input';
import { read, refused } from './options';

/** How a caller follows work that takes a while. */
export interface Watch<Report extends unknown[]> {
  signal?: AbortSignal | undefined;
  progressCallback?: ((...report: Report) => void) | undefined;
}

/**
 * Runs native work that a signal stops, and a progress callback that throws. No report comes after the end.
 *
 * `work` gets a function that reports, if anybody listens, and one that throws once the work was stopped.
 */
export async function watched<Result, Report extends unknown[]>(
  { signal, progressCallback }: Watch<Report>,
  cancel: () => void,
  work: (report: ((...report: Report) => void) | undefined, check: () => void) => Promise<Result>,
): Promise<Result> {
  let over = false;
  // What stopped the work, where it was stopped from this side.
  let stopped: EmbeddingError | undefined;
  const stop = (reason: EmbeddingError) => {
    stopped ??= reason;
    cancel();
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
      stop(new EmbeddingError('ABORTED', 'The call was aborted because its progressCallback threw', { cause }));
    }
  });
  const onAbort = () => stop(new EmbeddingError('ABORTED', 'The call was aborted', { cause: signal?.reason }));
  if (signal?.aborted) onAbort();
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    const result = await work(report, check);
    check();
    return result;
  } catch (thrown) {
    cancel();
    throw stopped ?? toEmbeddingError(thrown);
  } finally {
    over = true;
    signal?.removeEventListener('abort', onAbort);
  }
}

/** The two options of a {@link Watch}, if they are what they have to be. */
export function checkWatch<Report extends unknown[]>(watch: Watch<Report>): Watch<Report> {
  const { signal, progressCallback } = watch;
  const stops = typeof signal === 'object' && signal !== null && typeof read(signal, 'addEventListener', 'signal') === 'function';
  if (signal != null && !stops) throw refused('signal', `${show(signal)} is not an AbortSignal`);
  if (progressCallback != null && typeof progressCallback !== 'function') {
    throw refused('progressCallback', `${show(progressCallback)} is not a function`);
  }
  return { signal: signal ?? undefined, progressCallback: progressCallback ?? undefined };
}
