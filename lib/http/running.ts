import type { Readable } from 'node:stream';

import { EmbeddingError } from '../call/errors';

/** What a client has under way, so that it can be waited for. */
export class Underway {
  readonly #all = new Set<Running>();
  readonly #patienceMs: number;
  #onIdle: (() => void) | undefined;
  #closing = false;

  /** `patienceMs`: how long a stream waits for its reader once the client is closed. */
  constructor(patienceMs: number) {
    this.#patienceMs = patienceMs;
  }

  /** @throws `EmbeddingError` `CLOSED`. */
  begin(): Running {
    if (this.#closing) throw closed();
    const running = new Running((over) => {
      this.#all.delete(over);
      if (this.#all.size === 0) this.#onIdle?.();
    });
    this.#all.add(running);
    return running;
  }

  /** Begins nothing more; resolves when all that has begun is over. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.#all.size === 0) return;
    const watch = setInterval(() => {
      for (const one of this.#all) one.leaveUnread();
    }, this.#patienceMs);
    await new Promise<void>((resolve) => (this.#onIdle = resolve));
    clearInterval(watch);
  }
}

/** A request that is under way: until it is answered or, where it is answered with a stream, until all of that has come. */
export class Running {
  readonly #over: (running: Running) => void;
  #stream: Readable | undefined;
  #read = true;

  constructor(over: (running: Running) => void) {
    this.#over = over;
  }

  /** It goes on as this stream, until that is `transferred`; an abort of `signal` ends it with what `reason` gives. */
  as(stream: Readable, transferred: Promise<void> | undefined, signal: AbortSignal | undefined, reason: () => unknown): Readable {
    this.#stream = stream;
    void transferred?.then(() => this.#over(this));
    const { read } = stream;
    stream.read = (size) => {
      this.#read = true;
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

  /** It is over, unless it goes on as a stream. */
  end(): void {
    if (!this.#stream) this.#over(this);
  }

  /** Ends a stream that nobody has read since the last call. */
  leaveUnread(): void {
    if (!this.#read) this.#stream?.destroy(closed());
    this.#read = false;
  }
}

function closed(): EmbeddingError {
  return new EmbeddingError('CLOSED', 'The client is closed: make a new one');
}
