// What is kept beside a queue: the release that it is of, and who works on it.

import { EmbeddingError } from '../call/errors';
import type { Client } from './bullmq';
import { RELEASE } from './jobs';

/** How long a worker is listed after it was last heard of, in milliseconds. No clock but the server's counts. */
const LISTED_MS = 15_000;

/** A worker, as it has told itself. */
export interface QueueWorker {
  /** Its own, of this start. */
  id: string;
  host: string;
  pid: number;
  /** The model, as it was named. */
  model: string;
  fingerprint: string;
  /** Chunks at a time. */
  concurrency: number;
  /** Chunks that it has now. */
  running: number;
  /** Chunks that it has done, failed ones included. */
  chunks: number;
  failed: number;
  /** Texts that it has answered, and those of them that it has computed. */
  texts: number;
  computed: number;
  /** Milliseconds since it began. */
  uptimeMs: number;
}

/** What is kept beside a queue of BullMQ: `prefix` and `name` are the queue's. */
export class Registry {
  readonly #client: Client;
  readonly #name: string;
  readonly #key: string;

  constructor(client: Client, prefix: string, name: string) {
    this.#client = client;
    this.#name = name;
    this.#key = `${prefix}:${name}:embedcore`;
  }

  /** Says which release the queue is of, if nobody has before. @throws `INVALID_CONFIG` where it is of another one. */
  async claim(): Promise<void> {
    if ((await this.#client.hsetnx(this.#key, 'release', RELEASE)) === 1) return;
    const release = await this.#client.hget(this.#key, 'release');
    if (release === RELEASE || release === null) return;
    const message = `The queue "${this.#name}" is of embedcore ${release}, this is ${RELEASE}: give it another name, or run all of its producers and workers in one release (once it is empty, delete the key ${this.#key})`;
    throw new EmbeddingError('INVALID_CONFIG', message, { details: { queue: this.#name, release, expected: RELEASE } });
  }

  /** Says that a worker is there. */
  async announce(worker: QueueWorker): Promise<void> {
    await Promise.all([
      this.#client.set(this.#workerKey(worker.id), JSON.stringify(worker), 'PX', LISTED_MS),
      this.#client.sadd(`${this.#key}:workers`, worker.id),
    ]);
  }

  /** Says that a worker is not there any more. */
  async leave(id: string): Promise<void> {
    await Promise.all([this.#client.del(this.#workerKey(id)), this.#client.srem(`${this.#key}:workers`, id)]);
  }

  /** Those that are there, by host and process. */
  async workers(): Promise<QueueWorker[]> {
    const ids = await this.#client.smembers(`${this.#key}:workers`);
    if (ids.length === 0) return [];
    const told = await this.#client.mget(...ids.map((id) => this.#workerKey(id)));
    const gone = ids.filter((_, at) => told[at] === null);
    if (gone.length > 0) await this.#client.srem(`${this.#key}:workers`, ...gone);
    const workers = told.flatMap((text) => (text == null ? [] : [JSON.parse(text) as QueueWorker]));
    return workers.sort((a, b) => (a.host === b.host ? a.pid - b.pid : a.host < b.host ? -1 : 1));
  }

  #workerKey(id: string): string {
    return `${this.#key}:worker:${id}`;
  }
}

