// What a cache tells a logger and the diagnostics channel about its operations.

import { channel } from 'node:diagnostics_channel';

import type { Log } from '../call/logger';
import { textOf, type CacheEvent, type CacheStats } from './report';

/** Where events of caches are published. */
export const events = channel('embedcore:cache');

/** What happens is told to whoever listens. */
export function publish(event: CacheEvent, log?: Log): void {
  const { type, ...details } = event;
  if (log) log[type === 'storage-restored' ? 'info' : 'warn'](textOf(event), { event: type, ...details });
  events.publish(event);
}

/** What the core tells its events to. Keeps no cache alive, which a function made in its constructor would: it would share what those beside it hold. */
export function publisher(log?: Log): (json: string) => void {
  return (json) => publish(JSON.parse(json) as CacheEvent, log);
}

/** Requests after which a hit ratio says something. */
const ENOUGH_REQUESTS = 100;

/** Tells a logger what was looked up, validated and evicted since it was told the last time, and of a low hit ratio. */
export class OperationLog {
  #requestsBefore = 0;
  #hitsBefore = 0;
  #waiting = false;
  #before = { hits: 0, misses: 0, changed: 0, evictions: 0 };

  constructor(
    readonly log: Log | undefined,
    readonly stats: () => CacheStats,
    readonly settings: { validate: boolean; hitRatioThreshold: number },
  ) {}

  /** Before the caller gets its answer; once for all that is asked for in one go. */
  tellSoon(): void {
    if (!this.log || this.#waiting) return;
    this.#waiting = true;
    queueMicrotask(() => {
      this.#waiting = false;
      this.tell();
    });
  }

  /** What was counted since the last time; `log`: the logger of whoever asks, where the cache has none. */
  tell(log: Log | undefined = this.log): void {
    if (!log) return;
    const { hits, misses, evictions, missCauses } = this.stats();
    const before = this.#before;
    const now = (this.#before = { hits, misses, changed: missCauses.changed, evictions });
    const since = (what: keyof typeof now) => now[what] - before[what];
    const [found, missed, changed, evicted] = [since('hits'), since('misses'), since('changed'), since('evictions')];
    if (found > 0 || missed > 0) log.debug(`The cache had ${found} of ${found + missed} entries`, { event: 'cache-lookups', hits: found, misses: missed });
    if (this.settings.validate && (found > 0 || changed > 0)) {
      log.debug(`The content of ${found} entries was as before, of ${changed} not`, { event: 'cache-validations', valid: found, changed });
    }
    if (evicted > 0) log.debug(`${evicted} entries left the memory of the cache`, { event: 'cache-evictions', entries: evicted });
  }

  /** After maintenance: whether the hit ratio of the requests since the last time is below the threshold. */
  watchHitRatio(): void {
    const { hits, totalRequests } = this.stats();
    const requests = totalRequests - this.#requestsBefore;
    if (requests < ENOUGH_REQUESTS) return;
    const hitRatio = (hits - this.#hitsBefore) / requests;
    this.#requestsBefore = totalRequests;
    this.#hitsBefore = hits;
    const threshold = this.settings.hitRatioThreshold;
    if (hitRatio < threshold) publish({ type: 'hit-ratio-low', hitRatio, threshold }, this.log);
  }
}
