/** Whether something is asked: always, not at all, or once to see whether it is well again. */
export type BreakerState = 'closed' | 'open' | 'half-open';

/** What came of an attempt that was let through. */
export interface Trial {
  succeeded(): void;
  failed(): void;
  /** It was given up by the caller: that says nothing. */
  left(): void;
}

/**
 * A circuit breaker: opens after so many failures in a row, lets one attempt through after a while, and closes when that
 * succeeds.
 */
export class Breaker {
  readonly #threshold: number;
  readonly #cooldownMs: number;
  #failures = 0;
  #openedAt: number | undefined;
  /** When the attempt began that is to show whether it is well again. */
  #triedAt: number | undefined;

  constructor(threshold: number, cooldownMs: number) {
    this.#threshold = threshold;
    this.#cooldownMs = cooldownMs;
  }

  get state(): BreakerState {
    if (this.#openedAt === undefined) return 'closed';
    return this.retryInMs > 0 ? 'open' : 'half-open';
  }

  get failures(): number {
    return this.#failures;
  }

  /** Milliseconds until an attempt is let through; 0: now. */
  get retryInMs(): number {
    if (this.#openedAt === undefined) return 0;
    // An attempt that never ends is none after a while.
    return Math.max(0, Math.max(this.#openedAt, this.#triedAt ?? 0) + this.#cooldownMs - performance.now());
  }

  /** Lets an attempt through, or not. */
  enter(): Trial | undefined {
    if (this.retryInMs > 0) return undefined;
    const trial = this.#openedAt === undefined ? undefined : (this.#triedAt = performance.now());
    return {
      succeeded: () => {
        this.#failures = 0;
        this.#openedAt = this.#triedAt = undefined;
      },
      failed: () => {
        if (++this.#failures < this.#threshold) return;
        this.#openedAt = performance.now();
        this.#triedAt = undefined;
      },
      left: () => {
        if (trial !== undefined && this.#triedAt === trial) this.#triedAt = undefined;
      },
    };
  }
}
