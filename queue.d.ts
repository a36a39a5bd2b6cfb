// Generated from lib/ by `npm run types`; do not edit.

import { Annotation, CacheOptions, EmbeddingError, EmbeddingErrorCode, EmbeddingMatrix, EmbeddingResult, IntelligentEmbeddingCache, Logger, PerformanceMonitor } from './index.js';

/** Where Redis, or Valkey, is: release 6 or later. */
export interface QueueConnectionOptions {
	/** Anything else that ioredis takes. */
	[option: string]: unknown;
	/** `redis://` or `rediss://` (TLS), with user, password and number of the database if need be; what else is given here counts more. */
	url?: string | undefined;
	/** Default `'127.0.0.1'`. */
	host?: string | undefined;
	/** Default 6379. */
	port?: number | undefined;
	username?: string | undefined;
	password?: string | undefined;
	/** Default 0. */
	db?: number | undefined;
	/** What `tls.connect` takes; `{}` for TLS as it is. */
	tls?: object | undefined;
}
/** A connection that is there already: `new Redis(…)` of ioredis. Ours are made like it; it is left as it is. */
export interface QueueRedisClient {
	options: object;
	duplicate(...args: never[]): unknown;
}
/** A connection, where queues and workers want one: a URL, options, or an ioredis client. */
export type QueueConnection = string | URL | QueueConnectionOptions | QueueRedisClient;
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
/** Jobs of a queue, by state. */
export interface QueueDepth {
	waiting: number;
	active: number;
	failed: number;
}
/** What became of an input of a run. */
export interface QueueResult extends EmbeddingResult {
	/** Its place among the inputs. Of a text, `nodeId` is empty. */
	index: number;
}
/** How far a run is. */
export interface QueueProgress {
	/** Inputs that workers have answered, failed ones included. */
	processed: number;
	/** How many there are; `null` as long as the source has not ended. */
	total: number | null;
	/** Inputs that were read from the source. */
	read: number;
	/** Inputs without a vector. */
	failed: number;
	/** Inputs that no worker had to compute. */
	fromCache: number;
	/** Chunks that wait for a worker, or that one has. */
	pendingChunks: number;
	/** How often a chunk was added again because its job was lost, or its vectors had left the shared tier. */
	requeued: number;
}
/** What came of a run. */
export interface QueueSummary extends QueueProgress {
	total: number;
	/** The model that all vectors are of; `null` where there are none. */
	modelUsed: string | null;
	fingerprint: string | null;
	durationMs: number;
}
/**
 * Inputs on their way through a queue. An async iterable of their results, each once, as they come; {@link EmbeddingRun.finished}
 * for those who only want to know when all is done. Begins at once, whether or not anybody looks.
 *
 * The source is read as far as `maxPendingChunks` chunks ahead of workers and, where results are taken, of whoever takes
 * them. Leaving the loop early cancels the run.
 */
export interface EmbeddingRun extends AsyncIterable<QueueResult> {
	/** How far it is. */
	readonly progress: QueueProgress;
	/**
	 * Waits until workers have answered all inputs.
	 * @throws `EmbeddingError` `ABORTED` once it was cancelled, `TIMED_OUT`, `CLOSED`; `BACKEND_UNAVAILABLE` or
	 * `BACKEND_REJECTED` about the server; what the source has thrown; with `onError: 'throw'`, the first input's error.
	 */
	finished(): Promise<QueueSummary>;
	/** Takes what no worker has begun out of the queue, and closes the source. What workers have begun is kept in the shared tier. */
	cancel(): Promise<void>;
	/** Results as they come, or in the order of the inputs (`order: 'input'`). There is one iteration, whoever asks for it. */
	[Symbol.asyncIterator](): AsyncGenerator<QueueResult, void, undefined>;
}
/** Options of {@link EmbeddingQueue}. */
export interface EmbeddingQueueOptions {
	/** Where the queue is: `'redis://host:6379'`, options, or a client of ioredis. */
	connection: QueueConnection;
	/** Default `'embedcore'`. */
	name?: string | undefined;
	/**
	 * Where vectors come from: the tier that workers write. Default: a cache with `shared: { url }` on the server of the queue. On one
	 * machine a file will do (`persistPath`).
	 */
	cache?: CacheOptions | IntelligentEmbeddingCache | undefined;
	/** What keys of BullMQ begin with. Default `'bull'`. */
	prefix?: string | undefined;
	/**
	 * The fingerprint of the model that vectors are to be of (`getModelInfo().fingerprint`): workers with another one leave the
	 * chunks alone. Default: that of the first worker that answers a run.
	 */
	fingerprint?: string | undefined;
	/** Longest wait for the server at the beginning of a run, in milliseconds. Default 5000. */
	connectTimeoutMs?: number | undefined;
	/** How long the server may be away while a run goes on, in milliseconds. Default 60000. */
	outageTimeoutMs?: number | undefined;
	/** On whose dashboards the queue is shown. Default: the global one. `false`: on none. */
	monitor?: PerformanceMonitor | false | undefined;
}
/** Options of {@link EmbeddingQueue.addAnnotations} and {@link EmbeddingQueue.addTexts}. */
export interface AddOptions {
	/** Inputs in a job, 1–65536. Default 256. Fewer where they are long: 4 million characters. */
	chunkSize?: number | undefined;
	/**
	 * Jobs that this run has in the queue, results included that nobody has taken yet: how far the source is read ahead, and most
	 * workers that it can keep busy. From 1. Default 128.
	 */
	maxPendingChunks?: number | undefined;
	/** The role of the inputs, for models that embed the two differently. Default `'document'`. */
	inputType?: "document" | "query" | undefined;
	/** `'completion'` (default): results as they come. `'input'`: in the order of their inputs. */
	order?: "completion" | "input" | undefined;
	/** What an input that cannot be embedded does. `'skip'` (default): its result carries the error. `'throw'`: the run ends with it. */
	onError?: "skip" | "throw" | undefined;
	/** Cancels the run. */
	signal?: AbortSignal | undefined;
	/** Cancels the run after so many milliseconds, with `TIMED_OUT`. Default: no limit. */
	timeoutMs?: number | undefined;
	/** Told how many inputs are answered, of how many; `null` as long as that is not known. */
	progressCallback?: ((processed: number, total: number | null) => void) | undefined;
}
/** What there is to do in a queue, and who does it. */
export interface QueueStats extends QueueDepth {
	/** Those that were heard of in the last quarter of a minute. */
	workers: QueueWorker[];
}
/**
 * Has annotations and texts embedded by workers on any number of machines. A job is a chunk of inputs; vectors come back
 * through the shared tier, not through the queue.
 *
 * Connections are there while a run is under way. Needs `bullmq`, an optional peer (5 or 6), with `ioredis`, and Redis 6 or
 * later, or Valkey.
 */
export declare class EmbeddingQueue implements AsyncDisposable {
	#private;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option; `BACKEND_UNAVAILABLE` where bullmq is not installed. */
	constructor(options: EmbeddingQueueOptions);
	/**
	 * Has annotations embedded that an iterable or an async iterable gives. Begins at once. The same chunk is the same job,
	 * whoever adds it: what is added twice at the same time is computed once, and what is in the shared tier not at all.
	 * @throws `EmbeddingError` `INVALID_CONFIG` naming the option, `INVALID_ARGUMENT` for what is no iterable, `CLOSED`. What else
	 * goes wrong ends the run: see {@link EmbeddingRun.finished}.
	 */
	addAnnotations(annotations: Iterable<Annotation> | AsyncIterable<Annotation>, options?: AddOptions): EmbeddingRun;
	/** The same for texts. */
	addTexts(texts: Iterable<string> | AsyncIterable<string>, options?: AddOptions): EmbeddingRun;
	/**
	 * How much there is to do, and who does it.
	 * @throws `EmbeddingError` `BACKEND_UNAVAILABLE`, `BACKEND_REJECTED`; `INVALID_CONFIG` for a queue of another release; `CLOSED`.
	 */
	getStats(): Promise<QueueStats>;
	/** Ends runs that are under way with `CLOSED`; their jobs stay in the queue. May be called any number of times. */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** What a worker embeds with: an `OptimizedEmbeddingGenerator`, or something that does the same. */
export interface WorkerGenerator {
	isReady(): boolean;
	initialize(): Promise<void>;
	getModelInfo(): {
		modelId: string;
		fingerprint: string;
		dimensions: number;
		maxLength: number;
	};
	batchProcess(annotations: Annotation[], options: {
		onError: "skip";
		inputType: "document" | "query";
	}): Promise<EmbeddingResult[]>;
	/** For texts that are no annotations; needed where there are such. */
	embed?(texts: string[], options: {
		onError: "skip";
		inputType: "document" | "query";
	}): Promise<EmbeddingMatrix>;
}
/** Options of {@link EmbeddingWorker}. */
export interface EmbeddingWorkerOptions {
	/** Where the queue is: `'redis://host:6379'`, options, or a client of ioredis. */
	connection: QueueConnection;
	/** What embeds. It is initialised if it is not; to close it is yours. */
	generator: WorkerGenerator;
	/** The queue. Default `'embedcore'`. */
	name?: string | undefined;
	/** What keys of BullMQ begin with. Default `'bull'`. */
	prefix?: string | undefined;
	/** Chunks at a time, from 1. Default 2: while one is computed, the other's vectors are on their way. */
	concurrency?: number | undefined;
	/**
	 * Where vectors go: the tier that producers read. Default: the generator's cache, if others see what is in it, or else a
	 * cache with `shared: { url }` on the server of the queue.
	 */
	cache?: CacheOptions | IntelligentEmbeddingCache | undefined;
	/** How long a worker may be silent before others take over its chunks, in milliseconds: 1000 to 3600000. Default 15000. */
	lockDurationMs?: number | undefined;
	/** How long {@link EmbeddingWorker.close} waits for what runs, in milliseconds. Default 30000. */
	drainTimeoutMs?: number | undefined;
	/** Longest wait for the server at the beginning, in milliseconds. Default 5000. */
	connectTimeoutMs?: number | undefined;
	/** Whether SIGTERM has the worker finish what runs before the process ends by it. Default `true`. */
	stopOnSigterm?: boolean | undefined;
	/** Who is told of each chunk, as `queue.chunk`, and on whose dashboards the queue is shown. Default: the global one. `false`: nobody. */
	monitor?: PerformanceMonitor | false | undefined;
	/** Told of chunks, and of trouble with the server. Default: nobody; nothing is printed. */
	logger?: Logger | undefined;
}
/**
 * Takes chunks of a queue, embeds them, and puts their vectors into the shared tier. Begins when it is made, and keeps the
 * process alive until it is closed.
 *
 * A worker may be killed at any moment: others do what it had. What was computed before is in the shared tier and is not
 * computed again. Needs `bullmq`, an optional peer (5 or 6), with `ioredis`.
 */
export declare class EmbeddingWorker implements AsyncDisposable {
	#private;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option; `BACKEND_UNAVAILABLE` where bullmq is not installed. */
	constructor(options: EmbeddingWorkerOptions);
	/**
	 * Waits until it takes chunks.
	 * @throws `EmbeddingError` `MODEL_INIT_FAILED`; `BACKEND_UNAVAILABLE` where the server could not be reached, `BACKEND_REJECTED` where
	 * it refuses or is too old; `INVALID_CONFIG` for a queue of another release of embedcore; `CLOSED`.
	 */
	ready(): Promise<void>;
	/** What it is and has done, as {@link EmbeddingQueue.getStats} lists it. */
	getStats(): QueueWorker;
	/**
	 * Takes no more chunks, and waits for those that it has, for `drainTimeoutMs` at most: what is not done then is done by
	 * others. May be called any number of times.
	 */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}

export {};
