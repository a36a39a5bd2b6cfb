import { Readable } from 'node:stream';

import type { EmbeddingError } from '../call/errors';
import type { Controller, Handler, ResponseHeaders } from './undici';

/** How an answer begins. */
export interface Head {
  status: number;
  statusText: string;
  headers: ResponseHeaders;
}

/**
 * What is done with the body of an answer. `'words'`: as much of it is read as says what is wrong, so that the connection
 * can be used again, if it comes at once.
 */
export type Mode = 'whole' | 'stream' | 'words';

/** An answer: whole, or as a stream. */
export interface Answer extends Head {
  body: Buffer;
  stream: Readable | undefined;
  /** Resolves when all of it has come, read or not, or when nothing more will. */
  transferred: Promise<void> | undefined;
}

/** What became of a try that failed. */
export class AttemptFailed {
  constructor(
    readonly cause: unknown,
    /** Whether the answer had begun. */
    readonly began: boolean,
  ) {}
}

/** The most words that are read, in bytes, and for how long, in milliseconds. */
const WORDS = 64 * 1024;
const WORDS_MS = 1000;

/** The most of a whole body: its bytes, and the milliseconds from its head to its end. */
export interface Most {
  bytes: number;
  ms: number;
}

/** One try: what the pool tells of it, until the answer is there. */
export class Attempt implements Handler {
  readonly answer: Promise<Answer>;
  readonly #modeOf: (head: Head) => Mode;
  readonly #most: Most;
  readonly #over: (failed: boolean) => void;
  readonly #failureOf: (thrown: unknown) => EmbeddingError;
  #resolve!: (answer: Answer) => void;
  #reject!: (reason: unknown) => void;
  #controller: Controller | undefined;
  #stopped: Error | undefined;
  #head: Head | undefined;
  #mode: Mode = 'whole';
  #chunks: Buffer[] = [];
  #bytes = 0;
  #stream: Readable | undefined;
  #timer: NodeJS.Timeout | undefined;
  #transferred: (() => void) | undefined;
  #ended = false;

  /**
   * `most`: of a whole body. `over` is called once, when nothing more comes. `failureOf` makes an error of what
   * breaks a stream.
   */
  constructor(modeOf: (head: Head) => Mode, most: Most, over: (failed: boolean) => void, failureOf: (thrown: unknown) => EmbeddingError) {
    this.#modeOf = modeOf;
    this.#most = most;
    this.#over = over;
    this.#failureOf = failureOf;
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Ends it, whatever it waits for. */
  stop(reason: Error): void {
    if (this.#ended || this.#stopped) return;
    this.#stopped = reason;
    this.#reject(new AttemptFailed(reason, this.#head !== undefined));
    this.#stream?.destroy(reason);
    // A connection that is still being made cannot be stopped: what was to go over it is dropped then.
    this.#controller?.abort(reason);
  }

  onRequestStart(controller: Controller): void {
    this.#controller = controller;
    if (this.#stopped) controller.abort(this.#stopped);
  }

  onResponseStart(controller: Controller, status: number, headers: ResponseHeaders, statusText = ''): void {
    // What comes before the answer, such as 103.
    if (status < 200) return;
    this.#head = { status, statusText, headers };
    this.#mode = this.#modeOf(this.#head);
    if (this.#mode === 'words') this.#timer = setTimeout(() => this.#enough(), WORDS_MS);
    if (this.#mode === 'whole') this.#timer = setTimeout(() => controller.abort(new TooSlow(this.#most.ms)), this.#most.ms);
    if (this.#mode !== 'stream') return;
    this.#stream = new Readable({
      read: () => controller.resume(),
      destroy: (error, done) => {
        if (!this.#ended) controller.abort(error ?? new Error('The answer was left'));
        done(error);
      },
    });
    const transferred = new Promise<void>((resolve) => (this.#transferred = resolve));
    this.#resolve({ ...this.#head, body: NOTHING, stream: this.#stream, transferred });
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (this.#stream) {
      if (!this.#stream.push(chunk)) controller.pause();
      return;
    }
    this.#bytes += chunk.length;
    if (this.#mode === 'whole' && this.#bytes > this.#most.bytes) return controller.abort(new TooLarge(this.#most.bytes));
    this.#chunks.push(chunk);
    if (this.#mode === 'words' && this.#bytes > WORDS) this.#enough();
  }

  onResponseEnd(): void {
    this.#end(false);
    if (this.#stream) this.#stream.push(null);
    else this.#resolve({ ...this.#head!, body: this.#body(), stream: undefined, transferred: undefined });
  }

  onResponseError(_: Controller | undefined, error: Error): void {
    this.#end(true);
    if (this.#stream) this.#stream.destroy(this.#stopped ?? this.#failureOf(error));
    else if (this.#mode === 'words' && this.#head) this.#resolve({ ...this.#head, body: this.#body(), stream: undefined, transferred: undefined });
    else this.#reject(new AttemptFailed(this.#stopped ?? error, this.#head !== undefined));
  }

  #enough(): void {
    this.#controller?.abort(new Error('These are enough words'));
  }

  #body(): Buffer {
    return this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
  }

  #end(failed: boolean): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#over(failed);
    this.#transferred?.();
  }
}

const NOTHING = Buffer.alloc(0);

/** A body is larger than anybody wants it. */
export class TooLarge extends Error {
  constructor(readonly most: number) {
    super(`the answer has more than ${most} bytes`);
  }
}

/** A body comes so slowly that nobody waits for all of it. */
export class TooSlow extends Error {
  constructor(readonly ms: number) {
    super(`the answer was not complete after ${ms} ms`);
  }
}
