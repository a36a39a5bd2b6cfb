// Keeps an index up to date while its directory changes.

import { EmbeddingError, toEmbeddingError } from '../call/errors';
import { settle } from '../native/addon';
import type { NativeWatch } from '../native/types';
import type { IndexReport } from './options';

/** What a watcher needs of its index. */
export interface Watched {
  /** Begins to watch; `changed` is called whenever something may have changed. */
  begin(changed: () => void): Promise<NativeWatch>;
  update(signal: AbortSignal): Promise<IndexReport>;
  /** Lets go of the watcher. */
  end(): void;
}

/** How a watcher tells what happens. */
export interface Told {
  debounceMs: number;
  onUpdate: ((report: IndexReport) => void) | undefined;
  onError: ((error: EmbeddingError) => void) | undefined;
}

/** Changes that go on do not put an update off for longer than this many times `debounceMs`. */
const LONGEST_DEBOUNCE = 10;

/** How long after an update that failed the next one is tried, in milliseconds: at first, and at last. */
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 30_000;

/** Follows the changes of a directory: see {@link CodeIndex.watch}. It keeps the process running until it is closed. */
export interface CodeWatcher extends AsyncDisposable {
  /** Stops: an update that runs is aborted, and what it has written stays. May be called any number of times. */
  close(): Promise<void>;
}

export class DirectoryWatcher implements CodeWatcher {
  readonly #watched: Watched;
  readonly #told: Told;
  readonly #stop = new AbortController();
  readonly #alive = setInterval(() => {}, 2 ** 30);
  #native: NativeWatch | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** When the first change was seen that no update has looked at. */
  #since: number | undefined;
  #failures = 0;
  /** The update that runs. */
  #running: Promise<unknown> | undefined;
  #closed: Promise<void> | undefined;

  constructor(watched: Watched, told: Told) {
    this.#watched = watched;
    this.#told = told;
  }

  /** Watches, and brings the index up to date once. */
  async start(): Promise<void> {
    try {
      // Watched first: what changes while the tree is read is seen.
      const watch = await this.#watched.begin(() => this.#changed());
      if (this.#closed) await watch.close();
      else this.#native = watch;
      const first = this.#update();
      this.#running = first.catch(() => {});
      const report = await first;
      this.#running = undefined;
      this.#tell(report);
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    clearInterval(this.#alive);
    clearTimeout(this.#timer);
    this.#stop.abort();
    this.#watched.end();
    await this.#running;
    await this.#native?.close();
  }

  #changed(): void {
    if (this.#closed) return;
    const now = performance.now();
    this.#since ??= now;
    const { debounceMs } = this.#told;
    this.#schedule(Math.max(0, Math.min(debounceMs, this.#since + LONGEST_DEBOUNCE * debounceMs - now)));
  }

  #schedule(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#run(), ms);
  }

  #run(): void {
    // What runs began before: once it has ended, another one looks again.
    if (this.#closed) return;
    if (this.#running) return this.#schedule(this.#told.debounceMs);
    this.#since = undefined;
    const done = this.#update().then(
      (report) => {
        this.#failures = 0;
        this.#tell(report);
      },
      (thrown: unknown) => this.#failed(thrown),
    );
    this.#running = done.finally(() => (this.#running = undefined));
  }

  async #update(): Promise<IndexReport> {
    const report = await this.#watched.update(this.#stop.signal);
    // A directory that came while the tree was read may hold files that nobody has seen.
    if (await settle(async () => this.#native?.follow())) this.#changed();
    return report;
  }

  #failed(thrown: unknown): void {
    if (this.#closed) return;
    try {
      this.#told.onError?.(toEmbeddingError(thrown));
    } catch {
      // Whoever is told of errors has none to be told of.
    }
    this.#schedule(Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures++));
  }

  #tell(report: IndexReport): void {
    if (this.#closed) return;
    try {
      this.#told.onUpdate?.(report);
    } catch (cause) {
      const error = new EmbeddingError('INVALID_ARGUMENT', 'onUpdate has thrown; the index is up to date nevertheless', { cause });
      try {
        this.#told.onError?.(error);
      } catch {
        // As above.
      }
    }
  }
}
