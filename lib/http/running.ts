import type { Readable } from 'node:stream';

import { EmbeddingError } from '../call/errors';

/** The longest timer of Node.js, in milliseconds. */
export const LONGEST_MS = 2 ** 31 - 1;

/** How long an answer may take in all, by the longest silence of a server: one that drips is never silent. */
export function longestOf(readTimeoutMs: number): number {
  return Math.min(10 * readTimeoutMs, LONGEST_MS);
}

/** What a client has under way, so that it can be waited for. */
export class Underway {
  readonly #all = new Set<Running>();
  readonly #patienceMs: number;
  #onIdle: (() => void) | undefined;
  #closing = false;

  /** `patienceMs`: how long a stream waits for its reader where others wait for its place, or the client is closed. */
  constructor(patienceMs: number) {
    this.#patienceMs = patienceMs;
  }

  /** `stop` ends it before it is answered. @throws `EmbeddingError` `CLOSED`. */
  begin(stop: (reason: Error) => void): Running {
    if (this.#closing) throw closed();
    const running = new Running(stop, (over) => {
      this.#all.delete(over);
      if (this.#all.size === 0) this.#onIdle?.();
    });
    this.#all.add(running);
    return running;
  }

  /** Ends streams that nobody has read for so long that others get their places. */
  leaveUnread(reason: Error = unread(this.#patienceMs)): void {
    for (const one of this.#all) if (one.unreadMs >= this.#patienceMs) one.end(reason);
  }

  /** Begins nothing more; resolves when all that has begun is over, and ends what takes too long. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.#all.size === 0) return;
    const idle = new Promise<void>((resolve) => (this.#onIdle = resolve));
    const watch = setInterval(() => this.leaveUnread(closed()), Math.ceil(this.#patienceMs / 4));
    const last = setTimeout(() => {
      for (const one of this.#all) one.end(closed());
    }, longestOf(this.#patienceMs));
    await idle;
    clearInterval(watch);
    clearTimeout(last);
  }
}

/** A request that is under way: until it is answered or, where it is answered with a stream, until all of that has come. */
export class Running {
  readonly #stop: (reason: Error) => void;
  readonly #over: (running: Running) => void;
  #stream: Readable | undefined;
  #readAt = 0;

  constructor(stop: (reason: Error) => void, over: (running: Running) => void) {
    this.#stop = stop;
    this.#over = over;
  }

  /** It goes on as this stream, until that is `transferred`; an abort of `signal` ends it with what `reason` gives. */
  as(stream: Readable, transferred: Promise<void> | undefined, signal: AbortSignal | undefined, reason: () => unknown): Readable {
    this.#stream = stream;
    this.#readAt = performance.now();
    void transferred?.then(() => this.#over(this));
    const { read } = stream;
    stream.read = (size) => {
      // A stream asks itself for nothing, to be filled: that is nobody who reads.
      if (size !== 0) this.#readAt = performance.now();
      return read.call(stream, size) as unknown;
    };
    const onAbort = () => void stream.destroy(reason() as Error);
    signal?.addEventListener('abort', onAbort, { once: true });
    // Whoever reads it gets the error from there; nobody else has to hear of it.
    stream.on('error', () => {});
    stream.once('close', () => signal?.removeEventListener('abort', onAbort));
    if (signal?.aborted) onAbort();
    return stream;
  }

  /** How long nobody has read the stream that it is; 0 of what is none. */
  get unreadMs(): number {
    return this.#stream ? performance.now() - this.#readAt : 0;
  }

  /** It is answered: that is all, unless it goes on as a stream. */
  answered(): void {
    if (!this.#stream) this.#over(this);
  }

  /** Ends it, wherever it is. */
  end(reason: Error): void {
    if (this.#stream) this.#stream.destroy(reason);
    else this.#stop(reason);
  }
}

function closed(): EmbeddingError {
  return new EmbeddingError('CLOSED', 'The client is closed: make a new one');
}

function unread(patienceMs: number): EmbeddingError {
  const message = `Nobody has read the stream for ${patienceMs} ms (readTimeoutMs), and other requests waited for its place: read it, or leave it`;
  return new EmbeddingError('TIMED_OUT', message, { retryable: true });
}
