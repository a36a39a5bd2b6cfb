// What we have of BullMQ, an optional peer, and of ioredis, which it brings or wants beside it. Only what its releases 5 and
// 6 share.

import { createRequire } from 'node:module';

import { EmbeddingError } from '../call/errors';

/** A connection to Redis, as ioredis makes it. */
export interface Client {
  status: string;
  connect(): Promise<void>;
  disconnect(reconnect?: boolean): void;
  on(event: string, listener: (...args: never[]) => void): this;
  info(section?: string): Promise<string>;
  time(): Promise<[seconds: string, microseconds: string]>;
  hget(key: string, field: string): Promise<string | null>;
  hsetnx(key: string, field: string, value: string): Promise<number>;
  hset(key: string, field: string, value: string): Promise<number>;
  set(key: string, value: string, unit: 'PX', ms: number): Promise<unknown>;
  mget(...keys: string[]): Promise<(string | null)[]>;
  del(...keys: string[]): Promise<number>;
  sadd(key: string, ...members: string[]): Promise<number>;
  srem(key: string, ...members: string[]): Promise<number>;
  smembers(key: string): Promise<string[]>;
}

/** A job as a worker gets it. */
export interface Job {
  id?: string | undefined;
  name: string;
  data: unknown;
  attemptsStarted: number;
  failedReason?: string;
  returnvalue?: unknown;
  moveToWait(token?: string): Promise<unknown>;
}

interface Emitter {
  on(event: string, listener: (...args: never[]) => void): unknown;
  close(): Promise<void>;
}

export interface BullQueue extends Emitter {
  add(name: string, data: unknown, options: object): Promise<unknown>;
  getJob(id: string): Promise<Job | undefined>;
  getJobState(id: string): Promise<string>;
  getJobCounts(...states: string[]): Promise<Record<string, number>>;
  remove(id: string): Promise<number>;
}

export interface BullWorker extends Emitter {
  waitUntilReady(): Promise<unknown>;
  close(force?: boolean): Promise<void>;
}

export interface BullEvents extends Emitter {
  run(): Promise<void>;
}

interface Loaded {
  Queue: new (name: string, options: object) => BullQueue;
  QueueEvents: new (name: string, options: object) => BullEvents;
  Worker: new (name: string, process: (job: Job, token?: string) => Promise<unknown>, options: object) => BullWorker;
  Redis: new (options: object) => Client;
}

let loaded: Loaded | undefined;

/** @throws `EmbeddingError` `BACKEND_UNAVAILABLE` where they are not installed. */
export function load(): Loaded {
  if (loaded) return loaded;
  let missing = 'bullmq';
  try {
    const { Queue, QueueEvents, Worker } = require('bullmq') as Omit<Loaded, 'Redis'>;
    missing = 'ioredis';
    // The one that BullMQ itself gets.
    const { Redis } = createRequire(require.resolve('bullmq'))('ioredis') as Pick<Loaded, 'Redis'>;
    return (loaded = { Queue, QueueEvents, Worker, Redis });
  } catch (cause) {
    const message = `embedcore/queue needs the package ${missing}, which could not be loaded: npm install bullmq ioredis@5`;
    throw new EmbeddingError('BACKEND_UNAVAILABLE', message, { cause });
  }
}
