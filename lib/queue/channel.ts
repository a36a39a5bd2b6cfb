import { EmbeddingError, messageOf } from '../call/errors';
import { load, type BullEvents, type BullQueue } from './bullmq';
import { Link, type Address } from './connection';
import { JOB, type JobData } from './jobs';
import { Registry, type QueueWorker } from './registry';

/** Jobs that failed are kept for a week, the latest thousand of them; those that were done are not: their vectors are elsewhere. */
const KEPT = { removeOnComplete: true, removeOnFail: { age: 7 * 24 * 3600, count: 1000 } };

/** What has happened to a job: it was done, it failed, or it is not there any more. */
export type JobEvent = { kind: 'completed'; result: unknown } | { kind: 'failed'; reason: string } | { kind: 'gone' };

/** How long a server may take, in milliseconds. */
export interface Limits {
  /** To be there at first. */
  connectTimeoutMs: number;
  /** To come back, once it was. */
  outageTimeoutMs: number;
}

/** Jobs of a queue, by state. */
export interface QueueDepth {
  waiting: number;
  active: number;
  failed: number;
}

/** What a server says that may take a job a little later. */
const PASSING = /^(OOM|LOADING|READONLY|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|Connection is closed)/;
const PAUSE_MS = 250;

/** How long connections take to close where the server does not answer, in milliseconds. */
const MOST_CLOSING_MS = 500;

/** Connections, and what is made of them once the server is there. */
interface Open {
  link: Link;
  ready: Promise<void>;
  registry?: Registry;
  queue?: BullQueue;
  end(): void;
}

/** A queue as its producers use it: connections that are there as long as somebody needs them. */
export class Channel {
  readonly #address: Address;
  readonly #name: string;
  readonly #prefix: string;
  readonly #limits: Limits;
  readonly #watching = new Map<string, Set<(event: JobEvent) => void>>();
  #users = 0;
  #open: Open | undefined;

  constructor(address: Address, name: string, prefix: string, limits: Limits) {
    [this.#address, this.#name, this.#prefix, this.#limits] = [address, name, prefix, limits];
    load();
  }

  /**
   * Waits for the server. What this gives is called once it is not needed any more.
   * @throws `BACKEND_UNAVAILABLE`, `BACKEND_REJECTED`; `INVALID_CONFIG` for a queue of another release.
   */
  async use(): Promise<() => void> {
    this.#users++;
    const open = (this.#open ??= this.#begin());
    let used = true;
    const leave = () => {
      if (used && this.#open === open && --this.#users === 0) this.close();
      used = false;
    };
    try {
      await open.ready;
      return leave;
    } catch (thrown) {
      leave();
      throw thrown;
    }
  }

  get limits(): Limits {
    return this.#limits;
  }

  /** How long the server has been away, in milliseconds. */
  get awayMs(): number {
    return this.#open?.link.awayMs ?? 0;
  }

  /** How often the server was there anew. */
  get connections(): number {
    return this.#open?.link.connections ?? 0;
  }

  /** The error of whoever has waited for the server for so long. */
  unavailable(waitedMs: number): EmbeddingError {
    return this.#opened.link.unavailable(waitedMs);
  }

  /** Tells what happens to a job, until what this gives is called. */
  watch(id: string, told: (event: JobEvent) => void): () => void {
    let all = this.#watching.get(id);
    if (!all) this.#watching.set(id, (all = new Set()));
    all.add(told);
    return () => {
      all.delete(told);
      if (all.size === 0 && this.#watching.get(id) === all) this.#watching.delete(id);
    };
  }

  /**
   * Adds a job, unless it is there already; one that has failed before is tried anew. A server that is full, or takes nothing
   * at the moment, is asked again for as long as it may be away.
   */
  async add(id: string, data: JobData): Promise<void> {
    const deadline = performance.now() + this.#limits.outageTimeoutMs;
    for (;;) {
      const { link, queue } = this.#opened;
      try {
        if ((await queue.getJobState(id)) === 'failed') await queue.remove(id);
        await queue.add(JOB, data, { ...KEPT, jobId: id });
        return;
      } catch (thrown) {
        if (thrown instanceof EmbeddingError) throw thrown;
        if (!PASSING.test(messageOf(thrown)) || performance.now() > deadline) throw link.failed(thrown);
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    }
  }

  /** What has happened to a job; `undefined` as long as it waits or runs. */
  async look(id: string): Promise<JobEvent | undefined> {
    const { queue } = this.#opened;
    const state = await queue.getJobState(id);
    if (state === 'unknown') return { kind: 'gone' };
    if (state !== 'failed' && state !== 'completed') return undefined;
    const job = await queue.getJob(id);
    if (!job) return { kind: 'gone' };
    return state === 'failed' ? { kind: 'failed', reason: job.failedReason ?? '' } : { kind: 'completed', result: job.returnvalue };
  }

  /** Takes jobs out that nobody has begun. */
  async remove(ids: readonly string[]): Promise<void> {
    const { queue } = this.#opened;
    // One that runs is locked, and cannot be.
    await Promise.all(ids.map((id) => queue.remove(id).catch(() => 0)));
  }

  /** How much there is to do, and who does it. */
  async overview(): Promise<{ depth: QueueDepth; workers: QueueWorker[] }> {
    const { queue, registry } = this.#opened;
    const [counts, workers] = await Promise.all([queue.getJobCounts('waiting', 'paused', 'prioritized', 'delayed', 'active', 'failed'), registry.workers()]);
    const { waiting = 0, paused = 0, prioritized = 0, delayed = 0, active = 0, failed = 0 } = counts;
    return { depth: { waiting: waiting + paused + prioritized + delayed, active, failed }, workers };
  }

  /** Ends all connections, whoever uses them. */
  close(): void {
    const open = this.#open;
    [this.#open, this.#users] = [undefined, 0];
    open?.end();
  }

  get #opened(): Open & { queue: BullQueue; registry: Registry } {
    const open = this.#open;
    if (!open?.queue || !open.registry) throw new EmbeddingError('CLOSED', 'The queue was closed');
    return open as Open & { queue: BullQueue; registry: Registry };
  }

  #begin(): Open {
    const { Queue, QueueEvents } = load();
    const link = new Link(this.#address);
    const options = { connection: link.client, prefix: this.#prefix, skipVersionCheck: true };
    let [ended, events]: [boolean, BullEvents | undefined] = [false, undefined];
    /** Hears of jobs. A connection that is lost before its first answer never comes back: then there is another one. */
    const listen = async (lastEventId: string) => {
      while (!ended) {
        const hearing = (events = quiet(new QueueEvents(this.#name, { ...options, autorun: false, lastEventId })));
        hearing.on('completed', ({ jobId, returnvalue }: { jobId: string; returnvalue: unknown }) => this.#tell(jobId, { kind: 'completed', result: returnvalue }));
        hearing.on('failed', ({ jobId, failedReason }: { jobId: string; failedReason: string }) => this.#tell(jobId, { kind: 'failed', reason: failedReason }));
        await hearing.run().catch(() => {});
        if (ended) return;
        void hearing.close().catch(() => {});
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    };
    const begin = async () => {
      await link.ready(this.#limits.connectTimeoutMs);
      await link.within(this.#limits.connectTimeoutMs, async () => {
        open.registry = new Registry(link.client, this.#prefix, this.#name);
        await open.registry.claim();
        // From now on, by the clock of the server: what happens before the first read is missed by nobody.
        const [seconds, microseconds] = await link.client.time();
        if (ended) return;
        open.queue = quiet(new Queue(this.#name, options));
        void listen(`${Number(seconds) * 1000 + Math.floor(Number(microseconds) / 1000)}-0`);
      });
    };
    const end = () => {
      ended = true;
      // In order where the server answers, and at once where it does not.
      const closed = Promise.allSettled([events?.close(), open.queue?.close()]);
      const timer = setTimeout(() => link.close(), MOST_CLOSING_MS);
      void closed.then(() => {
        clearTimeout(timer);
        link.close();
      });
    };
    const open: Open = { link, ready: begin(), end };
    open.ready.catch(() => {
      if (this.#open === open) this.close();
      else end();
    });
    return open;
  }

  #tell(id: string, event: JobEvent): void {
    for (const told of [...(this.#watching.get(id) ?? [])]) told(event);
  }
}

/** What BullMQ says by events, as by an error of a connection, is seen by what does not work; without a listener it would be thrown. */
function quiet<T extends BullEvents | BullQueue>(emitter: T): T {
  emitter.on('error', () => {});
  return emitter;
}
