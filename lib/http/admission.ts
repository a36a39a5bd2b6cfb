/** Whom requests go to, as far as their number is concerned. */
export interface Queue {
  /** Requests under way. */
  inFlight: number;
  /** Who waits for a place, in the order of arrival. */
  readonly waiting: Set<() => void>;
}

/**
 * Lets a number of requests in at a time: in all, and to each host. Whoever waits for a host that is full is in nobody
 * else's way, and hosts with waiting requests are served in turns.
 */
export class Admission {
  readonly #limit: number;
  readonly #perHost: number;
  #inFlight = 0;
  /** Hosts with waiting requests; whose turn it is comes first. */
  readonly #queues = new Set<Queue>();

  constructor(limit: number, perHost: number) {
    this.#limit = limit;
    this.#perHost = perHost;
  }

  /** Takes a place at once, if there is one and nobody waits for it. */
  tryEnter(host: Queue): boolean {
    if (host.waiting.size > 0 || host.inFlight >= this.#perHost || this.#inFlight >= this.#limit) return false;
    this.#enter(host);
    return true;
  }

  /** Calls `enter` once a place was taken for it; gives what takes the wait back. */
  wait(host: Queue, enter: () => void): () => void {
    host.waiting.add(enter);
    this.#queues.add(host);
    return () => {
      host.waiting.delete(enter);
      if (host.waiting.size === 0) this.#queues.delete(host);
    };
  }

  /** Gives a place back. */
  leave(host: Queue): void {
    host.inFlight--;
    this.#inFlight--;
    for (const next of this.#queues) {
      if (this.#inFlight >= this.#limit) return;
      if (next.inFlight >= this.#perHost) continue;
      const [enter] = next.waiting;
      next.waiting.delete(enter!);
      this.#queues.delete(next);
      if (next.waiting.size > 0) this.#queues.add(next);
      this.#enter(next);
      enter!();
    }
  }

  #enter(host: Queue): void {
    host.inFlight++;
    this.#inFlight++;
  }
}
