import { PerformanceMonitor } from '../index';
import type { Queue } from './admission';
import type { Connections } from './undici';

/** How a host does. Times in milliseconds, from a try's beginning, waiting not counted, to the end of its answer; 0 before the first. */
export interface HostStats {
  /** Requests that are under way. */
  inFlight: number;
  /** Requests that wait for a place. */
  waiting: number;
  /** Tries that were made. */
  requests: number;
  /** Those of them that were not the first for their request. */
  retries: number;
  /** Tries without an answer: what the server answered, whatever it was, is none of them. */
  failures: number;
  p50: number;
  p95: number;
  p99: number;
}

const NAME = 'request';

/** One origin: its connections, and how it does. */
export class Host implements Queue {
  inFlight = 0;
  readonly waiting = new Set<() => void>();
  readonly #monitor = new PerformanceMonitor();
  #requests = 0;
  #retries = 0;
  #failures = 0;

  constructor(readonly connections: Connections) {}

  get idle(): boolean {
    return this.inFlight === 0 && this.waiting.size === 0;
  }

  began(again: boolean): void {
    this.#requests++;
    if (again) this.#retries++;
  }

  ended(ms: number, failed: boolean): void {
    if (failed) this.#failures++;
    this.#monitor.record(NAME, ms);
  }

  stats(): HostStats {
    const times = this.#monitor.getStats(NAME);
    return {
      inFlight: this.inFlight,
      waiting: this.waiting.size,
      requests: this.#requests,
      retries: this.#retries,
      failures: this.#failures,
      p50: times?.p50 ?? 0,
      p95: times?.p95 ?? 0,
      p99: times?.p99 ?? 0,
    };
  }
}
