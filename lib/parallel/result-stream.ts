/**
 * Results that are pushed on one side and pulled on the other. Unlike an async generator, `return()` takes effect at once,
 * also while `next()` is pending.
 */
export class ResultStream<R> implements AsyncGenerator<R, void, undefined> {
  readonly #ready: R[] = [];
  readonly #readers: { resolve(result: IteratorResult<R, void>): void; reject(reason: unknown): void }[] = [];
  readonly #hooks: { start(): void; close(): void | Promise<void>; taken(): void };
  readonly #unasked: (() => void)[] = [];
  #state: 'new' | 'open' | 'ended' = 'new';
  #failure: { reason: unknown } | undefined;

  /**
   * `start` is called when somebody reads first, `taken` for each result that is read, `close` when the reader leaves, who waits
   * for it.
   */
  constructor(hooks: { start(): void; close(): void | Promise<void>; taken(): void }) {
    this.#hooks = hooks;
  }

  push(result: R): void {
    if (this.#state === 'ended') return;
    const reader = this.#readers.shift();
    if (!reader) {
      this.#ready.push(result);
      return;
    }
    reader.resolve({ done: false, value: result });
    this.#tellUnasked();
    this.#hooks.taken();
  }

  /** Whether a reader waits for a result. */
  get asked(): boolean {
    return this.#readers.length > 0;
  }

  /** Resolves when no reader waits any more. */
  async unasked(): Promise<void> {
    if (this.asked) await new Promise<void>((resolve) => this.#unasked.push(resolve));
  }

  #tellUnasked(): void {
    if (!this.asked) for (const tell of this.#unasked.splice(0)) tell();
  }

  /** Nothing more comes. With a failure, that comes last; `now` drops what has not been read. */
  end(failure?: { reason: unknown; now: boolean }): void {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    this.#failure = failure;
    if (failure?.now) this.#ready.length = 0;
    const [first, ...others] = this.#readers.splice(0);
    if (first) this.#finish(first);
    for (const reader of others) reader.resolve({ done: true, value: undefined });
    this.#tellUnasked();
  }

  next(): Promise<IteratorResult<R, void>> {
    if (this.#state === 'new') {
      this.#state = 'open';
      this.#hooks.start();
    }
    return new Promise((resolve, reject) => {
      if (this.#ready.length > 0) {
        resolve({ done: false, value: this.#ready.shift()! });
        this.#hooks.taken();
      } else if (this.#state === 'ended') {
        this.#finish({ resolve, reject });
      } else {
        this.#readers.push({ resolve, reject });
      }
    });
  }

  async return(): Promise<IteratorResult<R, void>> {
    const open = this.#state !== 'ended';
    this.#failure = undefined;
    this.#ready.length = 0;
    this.end();
    if (open) await this.#hooks.close();
    return { done: true, value: undefined };
  }

  async throw(reason: unknown): Promise<IteratorResult<R, void>> {
    await this.return();
    throw reason;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  #finish({ resolve, reject }: { resolve(result: IteratorResult<R, void>): void; reject(reason: unknown): void }): void {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure) reject(failure.reason);
    else resolve({ done: true, value: undefined });
  }
}
