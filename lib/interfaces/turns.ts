/** Work done between two turns of the event loop, all requests together: others wait no longer for theirs. */
const TURN_MS = 3;

/**
 * Shares the event loop among requests: work that is longer than a moment is done in small steps, those of all requests
 * by turns, and everything else that the process has to do comes in between.
 */
export class Turns {
  readonly #waiting: (() => boolean)[] = [];
  #scheduled = false;

  /** Runs `work`, which yields after each step, and gives what it returns. Steps should take some microseconds. */
  run<T>(work: Generator<unknown, T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#waiting.push(() => {
        try {
          const { done = false, value } = work.next();
          if (done) resolve(value as T);
          return done;
        } catch (error) {
          reject(error);
          return true;
        }
      });
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#scheduled || this.#waiting.length === 0) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      const until = performance.now() + TURN_MS;
      do {
        const step = this.#waiting.shift();
        if (!step) return;
        if (!step()) this.#waiting.push(step);
      } while (performance.now() < until);
      this.#schedule();
    });
  }
}
