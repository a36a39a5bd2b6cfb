// Work that ends when its caller's signal or time limit says so, and whatever it has begun with it.

import { EmbeddingError } from '../call/errors';
import { aborted, timedOut, watched, type Watch } from '../call/limits';

/** Runs work with a signal of its own, which is aborted as soon as nobody waits for the work: with the time-out, if it was one. */
export function limited<T>(limits: Watch<never>, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const stop = new AbortController();
  return watched(limits, (reason) => end(stop, reason), () => work(stop.signal));
}

/** Ends work. Whoever does it learns of a time-out; of anything else that nobody waits for it. */
export function end(stop: AbortController, reason: unknown): void {
  stop.abort(isTimeOut(reason) ? reason : undefined);
}

export function isTimeOut(reason: unknown): reason is EmbeddingError {
  return reason instanceof EmbeddingError && reason.code === 'TIMED_OUT';
}

/**
 * The same for a stream. It begins with the first piece that is asked for, and whoever leaves it ends it at once, also while
 * a piece is waited for. `over` is told how it ended: with an error, or without.
 */
export function limitedStream<T>(
  { signal, timeoutMs }: Watch<never>,
  begin: (signal: AbortSignal) => AsyncGenerator<T, void, void>,
  over: (error: unknown) => void,
): AsyncGenerator<T, void, void> {
  const stop = new AbortController();
  let ended: EmbeddingError | undefined;
  let tell!: (error: EmbeddingError) => void;
  const ending = new Promise<never>((_, reject) => (tell = reject));
  ending.catch(() => {});
  const endWith = (error: EmbeddingError) => {
    ended ??= error;
    tell(ended);
    stop.abort();
  };
  async function* run(): AsyncGenerator<T, void, void> {
    const onAbort = () => endWith(aborted(signal));
    const timer = timeoutMs === undefined ? undefined : setTimeout(() => endWith(timedOut(timeoutMs)), timeoutMs);
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();
    let failure: unknown;
    try {
      if (ended) throw ended;
      const source = begin(stop.signal);
      for (;;) {
        const { done, value } = await Promise.race([source.next(), ending]);
        if (done) return;
        yield value;
        if (ended) throw ended;
      }
    } catch (error) {
      failure = ended ?? error;
      throw failure;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      stop.abort();
      over(failure);
    }
  }
  const stream = run();
  const leave = stream.return.bind(stream);
  stream.return = (value) => {
    endWith(new EmbeddingError('ABORTED', 'The stream was left'));
    return leave(value);
  };
  return stream;
}
