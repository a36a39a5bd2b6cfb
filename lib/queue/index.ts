// The entry `embedcore/queue`: embedding on any number of machines, by BullMQ.

export { EmbeddingQueue } from './queue';
export type { AddOptions, EmbeddingQueueOptions, QueueStats } from './queue';
export type { QueueDepth } from './channel';
export type { QueueConnection, QueueConnectionOptions, QueueRedisClient } from './connection';
export type { QueueWorker } from './registry';
export type { EmbeddingRun, QueueProgress, QueueResult, QueueSummary } from './run';
export { EmbeddingWorker } from './worker';
export type { EmbeddingWorkerOptions, WorkerGenerator } from './worker';
