// What caches do beside answering: of all processes on one file, one computes a value; and all tidy up.

import type { Channel } from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';

/** How long another process is trusted to compute a value before this one does; renewed while it computes. */
const LEASE_MS = 10_000;
const LEASE_POLL_MS = 25;

/** What a lease is about. */
export interface Leased {
  /** Takes it for so many milliseconds; whether it was free, or ours. */
  acquire(lifetimeMs: number): Promise<boolean>;
  release(): void;
  /** Whether the value is there. */
  there(): Promise<boolean>;
}

/** Waits until this process is the one that computes, or until another one has. */
export async function takeLease(leased: Leased): Promise<{ release(): void } | 'there'> {
  while (!(await leased.acquire(LEASE_MS))) {
    await sleep(LEASE_POLL_MS);
    if (await leased.there()) return 'there';
  }
  const release = () => {
    clearInterval(renewal);
    leased.release();
  };
  const renewal = setInterval(() => void leased.acquire(LEASE_MS).catch(() => {}), LEASE_MS / 3).unref();
  let wanted = false;
  try {
    wanted = !(await leased.there());
  } finally {
    if (!wanted) release();
  }
  return wanted ? { release } : 'there';
}

/** Leases of which one cache may want the same several times at once: who is the last lets go of it. */
export class Leases {
  /** How many want it, or have it. */
  readonly #wanted = new Map<string, number>();

  /** The same as {@link takeLease}, of the lease that is called so. */
  async take(name: string, leased: Leased): Promise<{ release(): void } | 'there'> {
    this.#wanted.set(name, (this.#wanted.get(name) ?? 0) + 1);
    let here = true;
    /** Whether nobody else wants it. */
    const leave = () => {
      if (!here) return false;
      here = false;
      const others = this.#wanted.get(name)! - 1;
      if (others > 0) this.#wanted.set(name, others);
      else this.#wanted.delete(name);
      return others === 0;
    };
    const release = () => {
      if (leave()) leased.release();
    };
    let taken: { release(): void } | 'there' = 'there';
    try {
      taken = await takeLease({ ...leased, release });
    } finally {
      if (taken === 'there') leave();
    }
    return taken;
  }
}

/** Resolves when `work` does, whatever becomes of it, or after so many milliseconds. */
export async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  await Promise.race([work.then(() => {}, () => {}), over]);
  clearTimeout(timer);
}

const CAUSES = ['expired', 'explicit', 'replaced', 'size'] as const;

/** Tells of evictions. They are counted on the native side, so that they cost nothing while nobody listens. */
export class Evictions {
  #told: readonly number[] | undefined;

  /** `count`: all evictions so far, by {@link CAUSES}. */
  constructor(
    readonly events: Channel,
    readonly count: () => readonly number[],
    readonly publish: (event: { type: 'evicted'; cause: (typeof CAUSES)[number]; entries: number }) => void,
  ) {}

  /** Before what may evict. What was evicted before anybody listened is not told. */
  watch(): void {
    if (!this.events.hasSubscribers) this.#told = undefined;
    else this.#told ??= this.count();
  }

  /** After what may have evicted. */
  tell(): void {
    const before = this.#told;
    if (!before) return;
    const now = this.count();
    this.#told = now;
    for (const [at, cause] of CAUSES.entries()) {
      const entries = now[at]! - before[at]!;
      if (entries > 0) this.publish({ type: 'evicted', cause, entries });
    }
  }
}

/** Runs maintenance until its owner is closed or forgotten. Keeps neither the process nor the owner alive. */
export function maintain(owner: WeakRef<{ optimize(): Promise<unknown> }>, interval: number): NodeJS.Timeout {
  const timer = setInterval(() => {
    const alive = owner.deref();
    if (!alive) clearInterval(timer);
    // It may have been closed meanwhile; whatever else is wrong is in the statistics.
    else alive.optimize().catch(() => {});
  }, interval);
  return timer.unref();
}
