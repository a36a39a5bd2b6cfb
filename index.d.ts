// Generated from lib/ by `npm run types`; do not edit.

/** Stable codes of {@link EmbeddingError}; test for these, never for messages. */
export type EmbeddingErrorCode = "INVALID_ARGUMENT" | "INVALID_CONFIG" | "INPUT_TOO_LONG" | "MODEL_INIT_FAILED" | "EMBEDDING_GENERATION_FAILED" | "MEMORY_LIMIT_EXCEEDED" | "NOT_INITIALIZED" | "BACKEND_UNAVAILABLE" | "RATE_LIMITED" | "BACKEND_REJECTED" | "OVERLOADED" | "TIMED_OUT" | "ABORTED" | "CLOSED" | "CACHE_STORAGE_FAILED" | "INTERNAL";
/** What an {@link EmbeddingError} knows beside its message. */
export interface EmbeddingErrorOptions {
	retryable?: boolean;
	details?: Record<string, unknown>;
	cause?: unknown;
}
/**
 * The one kind of error that this package throws and rejects with. The message names the offending value, index, file
 * or limit and what to do.
 */
export declare class EmbeddingError extends Error {
	name: string;
	/** What happened, for programs. */
	readonly code: EmbeddingErrorCode;
	/** Whether the same call may succeed later without a change by the caller. */
	readonly retryable: boolean;
	/** The values that the message names, for example `{ index: 3 }`. */
	readonly details: Record<string, unknown>;
	constructor(code: EmbeddingErrorCode, message: string, options?: EmbeddingErrorOptions);
	/** What JSON holds of it: no stack and no cause. */
	toJSON(): {
		name: string;
		message: string;
		code: EmbeddingErrorCode;
		retryable: boolean;
		details: Record<string, unknown>;
	};
}
/** The model, or the runtime that executes it, could not be loaded. `code` is `MODEL_INIT_FAILED`. */
export declare class ModelInitializationError extends EmbeddingError {
	name: string;
	constructor(message: string, options?: EmbeddingErrorOptions);
}
/** The model answered with an error or with unusable numbers. `code` is `EMBEDDING_GENERATION_FAILED`. */
export declare class EmbeddingGenerationError extends EmbeddingError {
	name: string;
	constructor(message: string, options?: EmbeddingErrorOptions);
}
/** Not even the smallest piece of the work fits the memory limit. `code` is `MEMORY_LIMIT_EXCEEDED`. */
export declare class MemoryLimitError extends EmbeddingError {
	name: string;
	constructor(message: string, options?: EmbeddingErrorOptions);
}
/**
 * Where messages go: `console`, pino, winston, or anything with some of these functions. A level that it lacks is not
 * told. Without a logger, nothing is printed at all.
 */
export interface Logger {
	/** What every call did, and every lookup in a cache. */
	debug?(message: string, details?: Record<string, unknown>): unknown;
	/** What happens now and then: a model is fetched, or loaded; another size of batches, or another strategy; a clean-up. */
	info?(message: string, details?: Record<string, unknown>): unknown;
	/** What does not fail a call, and what somebody should look at: trouble with a cache's file, texts that were skipped. */
	warn?(message: string, details?: Record<string, unknown>): unknown;
	/** What failed a call. Its promise rejects as well. */
	error?(message: string, details?: Record<string, unknown>): unknown;
}
/** The option of what tells somebody what it does. */
export interface Logging {
	/** Told what happens: `console`, for example. Default: nobody; nothing is printed. */
	logger?: Logger | undefined;
}
type Given<Options> = {
	[Name in keyof Options]?: Exclude<Options[Name], undefined>;
};
/** Options of {@link DynamicBatchOptimizer}. */
export interface BatchOptimizerOptions {
	/** Smallest batch. Default 1. More than `maxBatchSize`: the two are swapped. */
	minBatchSize?: number | undefined;
	/** Largest batch. Default 128. */
	maxBatchSize?: number | undefined;
	/**
	 * CPU usage, in percent, above which a size is held to be worse than it is fast. Counts only where it was measured with
	 * the batch, and makes no difference where all sizes take as much. Default 70.
	 */
	targetCpuUsage?: number | undefined;
	/** Memory usage, in percent, above which batches shrink. Default 75. */
	targetMemoryUsage?: number | undefined;
	/** Batches before the size is changed for the first time. Default 10. */
	minSamples?: number | undefined;
	/** Batches that analytics are about. Default 100. */
	historyRetention?: number | undefined;
	/**
	 * How eagerly other sizes are tried, 0–1: trying costs at most 5 % of all time for 1, in proportion for less. 0: never
	 * by itself. Default 0.3.
	 */
	aggressiveness?: number | undefined;
}
/** {@link BatchOptimizerOptions}, all of them; `Partial<BatchOptimizerConfig>` for some. As a value: the defaults. */
export interface BatchOptimizerConfig extends Given<BatchOptimizerOptions> {
	minBatchSize: number;
	maxBatchSize: number;
	targetCpuUsage: number;
	targetMemoryUsage: number;
	minSamples: number;
	historyRetention: number;
	aggressiveness: number;
}
/** The defaults of {@link DynamicBatchOptimizer}. */
export declare const BatchOptimizerConfig: Readonly<BatchOptimizerConfig>;
/** One batch that ran. */
export interface BatchRecord {
	/** Items that it was meant to have. */
	batchSize: number;
	/** How long it took, in milliseconds. */
	processingTime: number;
	/** Items that were processed. */
	itemsProcessed: number;
	/** CPU usage while it ran, in percent. Without this and `memoryUsage`, both are the machine's at the time. */
	cpuUsage?: number | undefined;
	/** Memory usage while it ran, in percent. */
	memoryUsage?: number | undefined;
	/** Whether it succeeded. Default true. */
	success?: boolean | undefined;
	/** Tokens of its items. Given with every batch, it lets batches of short and of long texts be compared. */
	tokens?: number | undefined;
}
/** What {@link DynamicBatchOptimizer} would do, and why. */
export interface OptimizationRecommendation {
	/** The best size that is known. */
	recommendedBatchSize: number;
	/** 0–1: how little there is left to gain with other sizes. At most 0.1 below `minSamples`. */
	confidence: number;
	reason: string;
	/** Relative gain over the latest batches: 0.1 for 10 % more throughput. Never below 0. */
	expectedImprovement: number;
	/** CPU and memory in percent, throughput in items a second. */
	resourcePrediction: {
		cpuUsage: number;
		memoryUsage: number;
		throughput: number;
	};
}
/** What the machine does: the container where it has a limit, else the host. At most a second old. */
export interface SystemResourceMetrics {
	/** Percent of the cores that this process may use, or of its container's quota. */
	cpuUsage: number;
	/** Bytes. */
	availableMemory: number;
	/** Bytes. */
	totalMemory: number;
	/** Percent. */
	memoryUsage: number;
	/** Over 1, 5 and 15 minutes. Zeros on Windows. */
	loadAverage: number[];
	/** Cores that this process may use. */
	cpuCores: number;
}
/** One batch as it is kept. */
export interface PerformanceHistory {
	batchSize: number;
	/** Milliseconds. */
	processingTime: number;
	/** Items a second; 0 where it failed. */
	throughput: number;
	/** Percent; `null` where only CPU usage was given. */
	memoryUsage: number | null;
	/** Percent; `null` where only memory usage was given. */
	cpuUsage: number | null;
	/** When it was recorded, in milliseconds since 1970. */
	timestamp: number;
	success: boolean;
}
/** How batches went, over the history that is kept. */
export interface PerformanceAnalytics {
	/** Items a second, over all time that batches took. */
	averageThroughput: number;
	averageBatchSize: number;
	/** Milliseconds. */
	averageProcessingTime: number;
	/** 0–1: half the performance score, three tenths the resource score, two tenths the stability score. */
	optimizationScore: number;
	/** Throughput of the latest batches relative to that of the best size known, 0–1. */
	performanceScore: number;
	/** 1 up to the targets of CPU and memory, from there linearly to 0 at 100 %; the mean of the two. */
	resourceScore: number;
	/** Success rate × (1 − coefficient of variation of throughput among batches of the latest size), 0–1. */
	stabilityScore: number;
	/** Mean of CPU and memory usage, 0–1. */
	resourceUtilization: number;
	/** 0–1. */
	successRate: number;
	currentMetrics: SystemResourceMetrics;
	/** The latest 20 batches, the oldest first. */
	recentHistory: PerformanceHistory[];
	/** Relative change of the latest five batches against the five before; 0 while there are no such. */
	trends: {
		throughputTrend: number;
		memoryTrend: number;
		cpuTrend: number;
	};
	recommendations: OptimizationRecommendation;
}
/**
 * Learns which batch size is fastest on this machine, for this work.
 *
 * Ask for {@link getCurrentBatchSize} before each batch and tell by {@link recordPerformance} how it went. The first
 * `minSamples` batches keep the initial size; then sizes are tried, each the one that promises most, until none promises
 * enough: some twenty batches. From there on the best one is kept, others are looked at now and then for a bounded share
 * of the time, and a sudden change of the load starts the search again. Which algorithms these are is written in
 * `src/batch/optimizer.rs`. Use one optimizer for each model.
 */
export declare class DynamicBatchOptimizer {
	#private;
	/** @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option, `INVALID_ARGUMENT` for the initial size. */
	constructor(initialBatchSize?: number, options?: BatchOptimizerOptions & Logging);
	/**
	 * Learns from a batch.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what cannot be; nothing is learned from it.
	 */
	recordPerformance(record: BatchRecord): void;
	/** The same, with CPU and memory sampled here. */
	recordPerformance(batchSize: number, processingTime: number, itemCount: number, success?: boolean): void;
	/** The size that the next batch should have. */
	getCurrentBatchSize(): number;
	/**
	 * Decides anew at once, and gives the size that the next batch should have. There is no need to call it: every record
	 * is a decision.
	 */
	optimize(): number;
	/**
	 * All that it knows, for {@link DynamicBatchOptimizer.fromJSON}: `JSON.stringify(optimizer)` is enough. What is in it may
	 * change with any version of the package.
	 */
	toJSON(): object;
	/**
	 * An optimizer that goes on where the one was that gave `state`, with its options.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for a state that is damaged, or of a version that means something else.
	 */
	static fromJSON(state: object, options?: Logging): DynamicBatchOptimizer;
	/** Forgets everything and starts again with the initial size. */
	reset(): void;
	/** The options as they are in force. */
	getConfig(): BatchOptimizerConfig;
	/** The best size that is known, and why. */
	getOptimizationRecommendation(): OptimizationRecommendation;
	/** How batches went. */
	getPerformanceAnalytics(): PerformanceAnalytics;
	/** What the machine does. */
	getCurrentSystemMetrics(): SystemResourceMetrics;
}
/** One node of a syntax tree to embed. */
export interface Annotation {
	/** Identifies the node in results; stands in for a node without any text. */
	nodeId: string;
	/** The declaration. */
	signature: string;
	/** What it does, in prose. */
	summary: string;
	/** Its code. */
	sourceSnippet?: string;
	/** Carried along, not embedded. */
	metadata?: Record<string, unknown>;
}
/** What became of one annotation. */
export interface EmbeddingResult {
	/** The annotation's own. */
	nodeId: string;
	/** The vector; empty where there is an `error`. */
	embedding: number[];
	/** What was embedded, after preparation. */
	inputText: string;
	/** Milliseconds spent on it: its share of its batch, or of looking it up. */
	processingTime: number;
	/** The model, as it was named. */
	modelUsed: string;
	/** 0–1: share of the text's tokens that the model saw and knew (not cut off, not unknown to its vocabulary). */
	confidence?: number;
	/** Whether this call did not compute it: it was in the cache, or another call computed it at the same time. */
	fromCache?: boolean;
	/** Whether the model did not see the whole text. */
	truncated?: boolean;
	/** Tokens of the whole text, special tokens included. */
	tokenCount?: number;
	/** Why there is no vector; only with `onError: 'skip'`. */
	error?: EmbeddingError;
}
/** What an embedding was made from. */
export type Modality = "text" | "image" | "audio";
/** Which of the entries of a key is meant. */
export interface EntryOptions {
	/** What the entry is made from: entries of one key and two modalities are two. Default `'text'`. */
	modality?: Modality | undefined;
}
/** A Redis or Valkey server that the caches of many machines share: {@link CacheOptions.shared}. */
export interface SharedOptions {
	/**
	 * The server: `redis://host:6379`, or `rediss://host:6380` with TLS, whose certificate must be one that this machine trusts
	 * (or the file in the environment's `SSL_CERT_FILE`). With a user, a password and a database, as in
	 * `redis://user:password@host:6379/2`; `?protocol=resp3` speaks the third version of the protocol. Redis from 6 on, or
	 * Valkey. Of a cluster, any of its servers.
	 */
	url: string | URL;
	/** What the names of all keys on the server begin with. Default `'embedcore:'`. Without braces in a cluster. */
	keyPrefix?: string | undefined;
	/**
	 * How long the server keeps an entry at most, in seconds; 0: as long as the entry lives. Default 0. When its memory is full,
	 * the server evicts by its own `maxmemory-policy`.
	 */
	ttlSeconds?: number | undefined;
	/** How long connecting may take, in milliseconds. Nobody's call waits for that longer than for an answer. Default 2000. */
	connectTimeoutMs?: number | undefined;
	/**
	 * How long an answer may take, in milliseconds; then what was asked for is a miss, and the server is not asked again for 30
	 * seconds. Default 500.
	 */
	commandTimeoutMs?: number | undefined;
	/** Whether the server is one of a Redis Cluster. Default `false`. */
	cluster?: boolean | undefined;
}
/** How the shared tier does, as one cache sees it. */
export interface SharedStats {
	/**
	 * `'ready'`: the server is asked. `'open'`: it did not answer, and is not asked until it does in the background.
	 * `'connecting'`: nobody knows yet.
	 */
	state: "connecting" | "ready" | "open";
	/** Lookups that it answered. */
	hits: number;
	/** Lookups of what neither memory nor the file had that it did not answer, for whatever reason. */
	misses: number;
	/** Of these, those that it was not asked, or in vain. */
	skipped: number;
	/** Of these, those whose value was not what was written: damaged, or another program's. */
	damaged: number;
	/** Connections that failed, and commands that were refused. */
	errors: number;
	/** Of the failures, those that somebody waited for. */
	timeouts: number;
	/** Entries that wait to be written. */
	queued: number;
	/** Entries that it took. */
	writes: number;
	/** Entries that it did not take, or that found no place in the queue. */
	dropped: number;
	/** How long the latest round trips took: half, 95 and 99 of a hundred took no longer. 0 before the first. */
	latencyMs: {
		p50: number;
		p95: number;
		p99: number;
	};
}
/** Options of {@link IntelligentEmbeddingCache}. Settings with two spellings may be given in one of them only. */
export interface CacheOptions {
	/** Most entries in memory. Default 1000. */
	maxEntries?: number | undefined;
	/**
	 * Most memory, bookkeeping included, in MB (1 MB = 1024 × 1024 bytes). With a file, an eighth of it, 16 MB at most, is
	 * for the file's pages and the rest for entries. Default 100.
	 */
	maxMemoryMB?: number | undefined;
	/** The same in bytes. */
	maxSizeBytes?: number | undefined;
	/** How long an entry is an answer, in seconds; 0: for ever. Default 3600, with `persistPath` for ever. */
	ttlSeconds?: number | undefined;
	/** The same in milliseconds. */
	ttlMs?: number | undefined;
	/** Whether an entry answers only for the content that it was set with. Default true. */
	enableContentValidation?: boolean | undefined;
	/** How often {@link IntelligentEmbeddingCache.optimize} runs by itself, in milliseconds. Default 300000. */
	maintenanceInterval?: number | undefined;
	/** Hit ratio, 0–1, below which maintenance publishes a `hit-ratio-low` event. Default 0.7. */
	hitRatioThreshold?: number | undefined;
	/**
	 * A SQLite file that keeps the entries; any number of processes may share it, and see what others change in it a quarter of
	 * a second later. A relative path counts from the working directory as it is when the cache is made. A file that is none of
	 * a cache, or of a later release, is refused and left as it is; one that can only be read is read. Default: memory only.
	 */
	persistPath?: string | undefined;
	/**
	 * Most of that file, in MB; its log takes about half as much again, 16 MB at most, unless one entry is larger.
	 * What has no room in it is not written, and evicts nothing: a `rejected` event tells. Default: no limit.
	 */
	maxDiskMB?: number | undefined;
	/**
	 * A server that many machines share: what neither memory nor the file has is asked there, many keys in one round trip, and
	 * what is set is written there behind the call. Trouble with it never fails a call: see docs/distributed.md. Default: none.
	 */
	shared?: SharedOptions | undefined;
	/**
	 * `'cluster'`: of all machines that share the server, one computes what none of them has, as far as it can be asked; the
	 * others wait for it. Default `'process'`: so it is in one process, and with `persistPath` among those of one machine.
	 */
	singleFlight?: "process" | "cluster" | undefined;
	/** Keeps entries of different uses of one file, or one server, apart. */
	namespace?: string | undefined;
	/** Keeps vectors of different models apart. */
	model?: string | undefined;
	/** How values are stored. `'f16'` takes half the space, with a relative error up to 2⁻¹¹. Default `'f32'`. */
	vectorPrecision?: "f32" | "f16" | undefined;
	/** Told of lookups, validations and evictions, of trouble with the file or the server, and of a low hit ratio: `console`, for example. Default: nobody; nothing is printed. */
	logger?: Logger | undefined;
}
/** Options of {@link IntelligentEmbeddingCache.findSimilar}. */
export interface SimilarOptions {
	/** Least cosine of an answer, -1–1. Default -1: the best are answered, however far they are. */
	threshold?: number | undefined;
	/** Most answers. Default 10. */
	limit?: number | undefined;
	/** Among entries of which modality. Default `'text'`. */
	modality?: Modality | undefined;
	/** Among entries of several modalities, whose vectors one model, or models that were trained together, have made. */
	modalities?: readonly Modality[] | undefined;
}
/** How the cache does for what was made from one modality. */
export interface ModalityStats {
	/** Entries that were looked up: `hits + misses`. */
	totalRequests: number;
	hits: number;
	misses: number;
	/** 0–1; 0 before the first lookup. */
	hitRatio: number;
	/** Entries that were set. */
	sets: number;
	/** Entries in memory. */
	currentEntries: number;
	/** Bytes that they take, bookkeeping included. */
	currentSizeBytes: number;
}
/** How the cache does, since it was made. Every number is measured. */
export interface CacheStats {
	/** Entries that were looked up: `hits + misses`. */
	totalRequests: number;
	hits: number;
	misses: number;
	/** 0–1; 0 before the first lookup. */
	hitRatio: number;
	/** 0–1; 0 before the first lookup. */
	missRatio: number;
	/** Entries in memory. */
	currentEntries: number;
	/** Bytes that they take, bookkeeping included. */
	currentSizeBytes: number;
	maxEntries: number;
	maxSizeBytes: number;
	/** How full memory is, by entries or by bytes, whichever is fuller, 0–1. */
	utilization: number;
	/** Mean time of a lookup, waiting for the disk included, in milliseconds. */
	avgAccessTimeMs: number;
	/** The same. */
	averageAccessTime: number;
	/** Entries that were set. */
	sets: number;
	/** Entries that could not be kept, although whoever had computed them was answered. Each is told by an event. */
	rejected: number;
	/** Entries that left memory. Those that were not deleted or replaced stay on disk. */
	evictions: number;
	evictionCauses: {
		expired: number;
		explicit: number;
		replaced: number;
		size: number;
	};
	missCauses: {
		absent: number;
		expired: number;
		changed: number;
		damaged: number;
	};
	memoryHits: number;
	diskHits: number;
	sharedHits: number;
	/** Of `currentSizeBytes`, what vectors and metadata take. */
	payloadBytes: number;
	/** The same by what embeddings were made from; together they are what is said above. */
	modalities: Record<Modality, ModalityStats>;
	/** The file; `null` without `persistPath`. */
	disk: {
		/** Whether it is in use: not before it was opened, and not for a while after an error. */
		available: boolean;
		/** Entries in it, of all processes, as of the last write. */
		entries: number;
		sizeBytes: number;
		/** Entries that wait to be written. */
		queued: number;
		written: number;
		/** Entries that could not be written. */
		lost: number;
		/** Entries that were deleted to keep `maxDiskMB`. */
		evicted: number;
		/** Entries that were damaged, and were deleted. */
		damaged: number;
		errors: number;
	} | null;
	/** The server; `null` without `shared`. */
	shared: SharedStats | null;
}
/** One recent call. */
export interface CacheSample {
	/** When it was answered, in milliseconds since 1970. */
	timestamp: number;
	/** How long it took, in milliseconds; of a call for many entries, the share of one. */
	accessTime: number;
	/** Share of its entries that were there, 0–1. */
	hitRatio: number;
}
/** See {@link IntelligentEmbeddingCache.getPerformanceMetrics}. */
export interface CachePerformanceMetrics {
	stats: CacheStats;
	/** The latest calls, the oldest first. */
	recentSamples: CacheSample[];
	/** Share of the memory in use that vectors and metadata take, 0–1; the rest is bookkeeping. 0 while it is empty. */
	memoryEfficiency: number;
	/**
	 * 0–1: seven tenths the hit ratio, three tenths the share of set entries that need not be evicted for want of space.
	 * 0 before the first lookup.
	 */
	performanceScore: number;
}
/** What maintenance did. */
export interface CacheMaintenance {
	expiredInMemory: number;
	expiredOnDisk: number;
	evictedOnDisk: number;
	/** Bytes that the file gave back. */
	freedBytes: number;
	/** Whether all was done that there was to do; if not, the next time goes on. */
	complete: boolean;
}
/** What is published on the `diagnostics_channel` `embedcore:cache`. */
export type CacheEvent = {
	type: "evicted";
	cause: "expired" | "explicit" | "replaced" | "size";
	entries: number;
} | {
	type: "hit-ratio-low";
	hitRatio: number;
	threshold: number;
} | {
	type: "rows-damaged";
	path: string;
	rows: number;
} | {
	type: "index-rebuilt";
	path: string;
} | {
	type: "storage-failed";
	path: string;
	reason: string;
} | {
	type: "storage-restored";
	path: string;
} | {
	type: "storage-refused";
	path: string;
	reason: string;
} | {
	type: "file-set-aside";
	path: string;
	movedTo: string;
	reason: string;
} | {
	type: "shared-failed";
	server: string;
	reason: string;
} | {
	type: "shared-restored";
	server: string;
} | {
	type: "shared-damaged";
	server: string;
	values: number;
} | {
	type: "rejected";
	entries: number;
	reason: string;
};
/** Settings of one entry. */
export interface CacheEntryOptions extends EntryOptions {
	/** How long it is an answer, in seconds. Default: the cache's. */
	ttlSeconds?: number | undefined;
	/** Anything that JSON can hold, given back with the entry. */
	metadata?: unknown | undefined;
}
/** An entry that is similar to what was asked for. */
export interface SimilarEntry {
	key: string;
	/** What it was made from. */
	modality: Modality;
	/** Cosine of the angle between the two, -1–1. */
	similarity: number;
	embedding: number[];
	metadata?: unknown;
}
/** What a key stands for. A copy: changing it never changes the cache. */
export interface CachedEmbedding {
	embedding: number[];
	/** What was set with it. */
	metadata?: unknown;
}
/** What an annotation stands for. A copy: changing it never changes the cache. */
export interface CachedResult extends EmbeddingResult {
	fromCache: true;
}
/** One entry of {@link IntelligentEmbeddingCache.getMany}. */
export interface CacheLookup extends EntryOptions {
	key: string;
	/** What the entry must have been set with; not needed without `enableContentValidation`. */
	content?: string | Uint8Array | undefined;
}
/** One entry of {@link IntelligentEmbeddingCache.setMany}. */
export interface CacheEntry extends CacheEntryOptions {
	key: string;
	/** What it is made from. Of bytes, those of an image or a recording, only the hash is kept. */
	content: string | Uint8Array;
	embedding: ArrayLike<number>;
}
/** The answer to many lookups, in their order. */
export interface CacheMatrix {
	/** `rows × dimensions` values; zeros where there was no answer. Copied out of the cache at the first look. */
	readonly data: Float32Array;
	readonly rows: number;
	/** Length of each vector; 0 when nothing was found. */
	readonly dimensions: number;
	/** 1 for each lookup that was answered. */
	readonly hits: Uint8Array;
	/** The vector at `index`, a view into `data`. */
	row(index: number): Float32Array;
}
/**
 * Remembers embeddings, in memory and, with `persistPath`, in a file that any number of processes share.
 *
 * Memory holds the most recently used entries, strictly, up to a number and to a size; the file holds all until they
 * expire or `maxDiskMB` is reached. An entry answers only for the content that it was set with: a lookup with another
 * one is a miss, and the entry is gone. Trouble with the file never fails a call: it is counted, and published on the
 * `diagnostics_channel` `embedcore:cache` ({@link CacheEvent}).
 */
export declare class IntelligentEmbeddingCache implements AsyncDisposable {
	#private;
	/**
	 * The file is opened in the background.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
	 */
	constructor(options?: CacheOptions);
	/**
	 * Sets what `key` stands for as long as its content is `content`: a string, or the bytes of an image or a recording, of
	 * which only the hash is kept. A string and the bytes of its UTF-8 are two contents.
	 */
	set(key: string, content: string | Uint8Array, embedding: ArrayLike<number>, options?: CacheEntryOptions): Promise<void>;
	/** Sets the result of an annotation. */
	set(annotation: Annotation, result: EmbeddingResult): Promise<void>;
	/** What `key` stands for, if its content is `content`. If it is not, the entry is gone. */
	get(key: string, content?: string | Uint8Array, options?: EntryOptions): Promise<CachedEmbedding | null>;
	/**
	 * The result of an annotation whose text is unchanged: as it was set or, if it was not, as a generator has kept it that this
	 * cache was given to, now or before. What is no annotation has none.
	 */
	get(annotation: Annotation): Promise<CachedResult | null>;
	/**
	 * Looks many keys up, in one crossing to the native side: the fast path, without a number object per value. `options` are
	 * those of entries that do not say their own.
	 */
	getMany(entries: readonly CacheLookup[] | readonly Annotation[], options?: EntryOptions): Promise<CacheMatrix>;
	/**
	 * Sets many entries, in one crossing to the native side: all of them or, when one is refused, none. All have vectors of one
	 * length. `options` are those of entries that do not say their own.
	 */
	setMany(entries: readonly CacheEntry[], options?: EntryOptions): Promise<void>;
	/**
	 * What `key` stands for: from the cache or, if it is not there, from `compute`, whose value is set. However many ask
	 * at the same time, `compute` is called once, and with `persistPath` in one process only; its failure reaches all who
	 * wait in this process and is not kept. The answer is what a later `get` gives: rounded, and with metadata as it comes
	 * out of JSON.
	 *
	 * What is set, deleted or cleared meanwhile is newer: then the value is answered, but not kept. Of several contents of one
	 * key that are computed at the same time, any one is kept. Nothing is where it cannot be, because it has another length
	 * than the others or the cache was closed meanwhile: that is counted, and published as a `rejected` event.
	 */
	getOrCompute(key: string, content: string | Uint8Array, compute: () => ArrayLike<number> | Promise<ArrayLike<number>>, options?: CacheEntryOptions): Promise<CachedEmbedding>;
	/** Whether {@link get} would answer. Counts in no statistics. */
	has(target: string | Annotation, content?: string | Uint8Array, options?: EntryOptions): Promise<boolean>;
	/**
	 * Deletes an entry, and what generators have kept for the text of an annotation; whether there was one that {@link get} would have
	 * given. Gone from memory at once; resolves when the file knows.
	 * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED` when the file cannot be told: another program has held it for 8
	 * seconds, or it has the entry and cannot be written. It goes from the file as soon as that is possible, if this cache is
	 * still open then.
	 */
	delete(target: string | Annotation, options?: EntryOptions): Promise<boolean>;
	/**
	 * Deletes all entries of this namespace and model, those of generators that have had this cache included, or those of one
	 * modality, on disk, too. See {@link delete}.
	 */
	clear(options?: EntryOptions): Promise<void>;
	/**
	 * The entries whose vectors point most nearly where `embedding` does, the nearest first; equally near ones always in the
	 * same order. At most `limit` (10) of those whose cosine is at least `threshold` (-1, which is any), among texts, or among
	 * the `modality` or the `modalities` that are asked for: vectors of another length are near to nothing. What generators have
	 * kept that this cache was given to counts, too: the `key` is the id of the annotation, the path of the image or, of up to 256
	 * bytes, the text that was first embedded so. The first call reads all
	 * entries for an index, which then follows every change, of other processes, too. It takes about 1.1 bytes a value and
	 * 150 an entry, beyond `maxMemoryMB`. Up to 2000 entries in memory only are compared without it.
	 *
	 * It finds about 99 of 100 of the nearest, or more. Among 100,000 vectors that lie in heaps, as those of a model do,
	 * that takes less than a millisecond; among random ones, all about equally far from each other, more than ten times
	 * as long.
	 */
	findSimilar(embedding: ArrayLike<number>, options?: SimilarOptions): Promise<SimilarEntry[]>;
	/** Drops what has expired and gives space back. Also runs every `maintenanceInterval`. */
	optimize(): Promise<CacheMaintenance>;
	/**
	 * Waits until everything that was set before is in the file and survives even a loss of power.
	 * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED` when entries were lost since the last call, or another program has
	 * held the file for 8 seconds: then they still wait to be written.
	 */
	flush(): Promise<void>;
	/** How the cache does. */
	getStats(): CacheStats;
	/** How well the cache does, with its latest calls. */
	getPerformanceMetrics(): CachePerformanceMetrics;
	/**
	 * Writes what is not yet written, closes the file and frees memory, after all calls that were made before. For a file that
	 * another program holds it waits 3 seconds; what is not written then is lost. May be called any number of times.
	 */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** The cache that all of this thread share. The first call makes it, with its options; later ones give the same. */
export declare function getEmbeddingCache(options?: CacheOptions): IntelligentEmbeddingCache;
/** Closes the shared cache; the next {@link getEmbeddingCache} makes a new one. */
export declare function resetEmbeddingCache(): Promise<void>;
/** Options of {@link doctor}. */
export interface DoctorOptions {
	/** The model to try, as for a generator; it is not fetched where it is not here. Default: the built-in one. */
	modelPath?: string | undefined;
	/** Where models from the hub are kept. Default: as for {@link GeneratorOptions.cacheDir}. */
	cacheDir?: string | undefined;
	/** A cache's file to look into, as a cache does; it is not made. Default: a new one is tried in the system's folder for temporary files. */
	persistPath?: string | undefined;
}
/** Something that is missing, or that could be faster. */
export interface DoctorAdvice {
	/** What it is about. */
	what: string;
	/** What it costs that it is so. */
	why: string;
	/** What to do. */
	advice: string;
}
/** What {@link doctor} has found. Unknown is `null`. */
export interface DoctorReport {
	/** Whether embedding works here. */
	ok: boolean;
	/** Of this package. */
	version: string;
	/** Of Node.js. */
	node: string;
	/** As Node.js names it: `linux-x64`. */
	platform: string;
	/** The native addon: why it cannot be loaded, if so. */
	addon: {
		error: string | null;
	};
	processor: {
		/** As its maker calls it. */
		name: string | null;
		/** Instructions that engines look for, as Linux spells them: `avx2`, `avx512_bf16`, `amx_bf16`, `asimd`, … */
		instructionSets: string[];
		/** Cores that this process may use: affinity and the container's quota counted in. */
		cores: number;
		/** Cores of the machine. */
		machineCores: number;
	};
	memory: {
		/** Megabytes (of 1,048,576 bytes) that this process may use: of the container where it has a limit, else of the machine. */
		totalMB: number;
		availableMB: number | null;
		machineMB: number;
		/** Whether a container's limit counts. */
		limited: boolean;
	};
	/** What computes models. */
	engines: {
		name: "onnxruntime" | "openvino";
		version: string | null;
		library: string | null;
		error: string | null;
	}[];
	/** What ONNX Runtime computes on: the execution providers that the library has. */
	providers: {
		name: string;
		version: string | null;
		library: string | null;
	}[];
	/** Graphics processors, as far as the system names them. */
	devices: {
		name: string;
		driver: string | null;
	}[];
	/** The model that was tried. */
	model: {
		modelPath: string;
		dimensions: number | null;
		/** Of the first load here, in milliseconds. */
		loadMs: number | null;
		/** Of one short text, in milliseconds. */
		embedMs: number | null;
		error: string | null;
	};
	/** The models that are kept on this machine. */
	modelCache: {
		directory: string | null;
		writable: boolean;
		models: number;
		bytes: number;
		error: string | null;
	};
	hub: {
		endpoint: string | null;
		/** `null`: it was not asked, because of `offline`. */
		reachable: boolean | null;
		/** The setting that forbids the network. */
		offline: string | null;
		/** Host and port of the proxy on the way there. */
		proxy: string | null;
		error: string | null;
	};
	/** The disk tier of caches. */
	cache: {
		path: string;
		ok: boolean;
		entries: number | null;
		error: string | null;
	};
	/** What is missing, the most important first. */
	missing: DoctorAdvice[];
}
/**
 * Looks at this machine: processor and memory as a container allows them, engines, providers and devices, the models that are
 * kept, the hub, the disk tier, and whether a text can be embedded. Fetches nothing; the one file that it makes, in the system's
 * folder for temporary files, it removes again. The hub is asked for an answer, for five seconds at most.
 * @throws {@link EmbeddingError} `INVALID_CONFIG` for an option. Whatever is wrong with the machine stands in the report.
 */
export declare function doctor(options?: DoctorOptions): Promise<DoctorReport>;
/** A part of a text. */
export interface TextChunk {
	/** `source.slice(start, end)`. */
	text: string;
	/** Where it begins in its source, in UTF-16 units, as strings count. */
	start: number;
	/** Where it ends. */
	end: number;
	/** The headings, or the names of the declarations, that it stands under: the outermost first. */
	headings: string[];
	/** Its first line in its source, from 1. */
	line: number;
}
/** A part of a text that a model reads whole. */
export interface Chunk extends TextChunk {
	/** How many tokens it has as the model reads it, special tokens and prompt included. */
	tokens: number;
}
/** How a text is read: what kinds of places it may be cut at. */
export interface TextFormat {
	/**
	 * `'markdown'`: at headings, blocks, items and rows; `'code'`: at declarations and statements of the language, or else at blank
	 * lines and lines; `'text'`: at paragraphs. All of them then at sentences, words, graphemes. Default `'auto'`: by `language` or
	 * by the ending of `path`; without either, Markdown if there is a heading or a fence in it, else text.
	 */
	format?: "auto" | "text" | "markdown" | "code" | undefined;
	/**
	 * The language of code: `'bash'`, `'c'`, `'cpp'`, `'csharp'`, `'go'`, `'java'`, `'javascript'`, `'kotlin'`, `'php'`, `'python'`,
	 * `'ruby'`, `'rust'`, `'scala'`, `'swift'`, `'typescript'`, `'markdown'`, or an ending of its files.
	 */
	language?: string | undefined;
	/** Where the text is from; only its ending matters, and nothing is read. */
	path?: string | undefined;
}
interface Stops {
	/** Stops it; it rejects with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/** Gives up after so many milliseconds; it rejects with `TIMED_OUT`. Default: never. */
	timeoutMs?: number | undefined;
}
/** Options of {@link OptimizedEmbeddingGenerator.splitMany}. */
export interface SplitManyOptions extends Omit<TextFormat, "path">, Stops {
	/**
	 * Most tokens of a chunk as the model reads it, special tokens and prompt included. Default, and where it is more: as many as
	 * the model reads.
	 */
	maxTokens?: number | undefined;
	/** Most tokens of a chunk that are repeated at the beginning of the next one. Default 0. */
	overlap?: number | undefined;
}
/** Options of {@link OptimizedEmbeddingGenerator.split}. */
export interface SplitOptions extends SplitManyOptions, TextFormat {
}
/** Options of {@link splitText}. */
export interface SplitTextOptions extends TextFormat, Stops {
	/** Most characters of a chunk, as strings count them (UTF-16 units). Default 1000. */
	maxCharacters?: number | undefined;
	/** Most characters of a chunk that are repeated at the beginning of the next one. Default 0. */
	overlap?: number | undefined;
}
/** A text to be split, and where it is from. */
export interface SourceText {
	text: string;
	/** See {@link TextFormat.path}. */
	path?: string | undefined;
}
/**
 * Splits a text into chunks of at most so many characters, without a model: exact places, all of it but the white space between
 * them, each chunk cut at the highest structure that fits. For a model's own tokens, see {@link OptimizedEmbeddingGenerator.split}.
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what is no string; `INVALID_CONFIG` naming the option.
 */
export declare function splitText(text: string, options?: SplitTextOptions): Promise<TextChunk[]>;
/** Options of a stream. */
export interface StreamOptions {
	/** `'input'` (default): results in the order of their inputs. `'completion'`: as they are done. */
	order?: "input" | "completion" | undefined;
	/** Of texts, give {@link StreamedVector}s and not vectors alone. Default `false`; with `order: 'completion'` always. */
	details?: boolean | undefined;
}
/** The vector of a text of a stream, and which text that is. */
export interface StreamedVector {
	/** Of the text among all that the source gave, from 0. */
	index: number;
	/** Empty, where there is an `error`. */
	embedding: Float32Array;
	/** Whether the model did not see all of the text. */
	truncated: boolean;
	/** Tokens of the whole text, special tokens included; 0 where nobody knows, as on a server. */
	tokenCount: number;
	/** Whether this stream did not compute it. */
	fromCache: boolean;
	/** Why there is no vector, with `onError: 'skip'`. */
	error?: EmbeddingError;
}
/** A document. */
export interface TextDocument {
	/** What you call it. Its ending tells what kind of text it is, unless `metadata.path` or an option does. */
	id: string;
	text: string;
	/** Anything; given back with each chunk: objects and arrays as they are when the document is read, instances of classes themselves. */
	metadata?: unknown;
}
/** A chunk of a document, and its vector. */
export interface DocumentChunk {
	/** The document's. */
	id: string;
	/** Which of the document's chunks it is, from 0. */
	index: number;
	chunk: Chunk;
	embedding: Float32Array;
	/** Whether the vector was known already. */
	fromCache: boolean;
	/** The document's, if it has any. */
	metadata?: unknown;
}
/** Options of {@link OptimizedEmbeddingGenerator.streamDocuments}. */
export interface DocumentOptions extends SplitManyOptions {
	/** Neither ask the cache nor tell it. Default `false`. */
	bypassCache?: boolean | undefined;
}
/**
 * Many vectors in one allocation. `structuredClone` and `postMessage` keep the values and leave the method behind; JSON
 * holds plain arrays, and the errors as pairs.
 */
export declare class EmbeddingMatrix {
	/** `rows × dimensions` values, row by row. */
	readonly data: Float32Array;
	readonly rows: number;
	readonly dimensions: number;
	/** Tokens of each whole text, special tokens included; 0 where nobody knows, as of vectors that came from elsewhere. */
	readonly tokenCounts: Uint32Array;
	/** 1 for each text that the model did not see whole. */
	readonly truncated: Uint8Array;
	/** 1 for each text that this call did not compute. */
	readonly fromCache: Uint8Array;
	/** The inputs without a vector (their rows are zero), by index; only with `onError: 'skip'`. */
	readonly errors: ReadonlyMap<number, EmbeddingError>;
	/** The vector at `index`, a view into `data`. */
	readonly row: (index: number) => Float32Array;
	/**
	 * Vectors from elsewhere: `data` holds them one after the other, each of `dimensions` values, and is not copied.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what is no Float32Array, or not whole vectors.
	 */
	constructor(data: Float32Array, dimensions: number);
	toJSON(): object;
}
/** Bytes that the process held around operations. */
export interface OperationMemory {
	/** When the latest operation began. */
	before: number;
	/** When it ended. */
	after: number;
	/**
	 * The most that was seen at any of them: exact where an operation drove the process higher than it ever was, else what
	 * was held at a beginning or an end.
	 */
	peak: number;
	/** How much more was held after an operation than before it, on average. */
	averageGrowth: number;
	/** Operations that it was measured at. */
	samples: number;
}
/** What is known of one operation. Times in milliseconds; percentiles are off by at most 0.4 %. */
export interface OperationStats {
	name: string;
	/** How often it ran, failures included. */
	count: number;
	/** How often it failed. */
	errors: number;
	/** Items that it has processed. */
	items: number;
	/** All times together. */
	total: number;
	min: number;
	max: number;
	mean: number;
	p50: number;
	p95: number;
	p99: number;
	p999: number;
	/**
	 * Items a second: from the beginning of the first operation to the end of the last one, and over the last minute (or
	 * since that beginning). 0 where that is no time at all.
	 */
	throughput: {
		wholeRun: number;
		lastMinute: number;
	};
	/** `null` where it was not measured. */
	memory: OperationMemory | null;
	/** When the first one began, in milliseconds since 1970. */
	firstAt: number;
	/** When the last one ended, in milliseconds since 1970. */
	lastAt: number;
}
/** How one type of thing was found. */
export interface CacheTypeStats {
	type: string;
	hits: number;
	misses: number;
	/** 0–1. */
	hitRatio: number;
}
/** Work of several steps. Times in milliseconds. */
export interface CycleRecord {
	id: string;
	/** `'interrupted'`: its process ended before it did. */
	status: "inProgress" | "succeeded" | "failed" | "interrupted";
	/** Milliseconds since 1970. */
	startedAt: number;
	/** Milliseconds since 1970; `null` where nobody saw the end, as `duration`. */
	endedAt: number | null;
	duration: number | null;
	llmCalls: number;
	/** Of these, the ones that a cache answered. */
	cacheHits: number;
	llmTime: number;
	validations: number;
	validationTime: number;
	fileOperations: number;
	/** Bytes that the process held; as {@link OperationMemory}. */
	memory: {
		before: number;
		after: number;
		peak: number;
	} | null;
}
/** All cycles since the beginning, those that are no longer kept one by one included. Times in milliseconds. */
export interface CycleSummary {
	/** `succeeded + failed + interrupted`. */
	count: number;
	succeeded: number;
	failed: number;
	interrupted: number;
	/** Cycles in progress. The totals below are of ended ones. */
	active: number;
	llmCalls: number;
	cacheHits: number;
	/** 0–1; 0 before the first call. */
	cacheHitRatio: number;
	llmTime: number;
	validations: number;
	validationTime: number;
	fileOperations: number;
	/** `null` before the first one has ended. */
	duration: {
		total: number;
		min: number;
		max: number;
		mean: number;
		p50: number;
		p95: number;
		p99: number;
		p999: number;
	} | null;
}
/** One failure. */
export interface MonitorError {
	/** Milliseconds since 1970. */
	at: number;
	/** The operation. */
	name: string;
	message: string;
}
/** What the machine does, the container where it has a limit; at most a second old. */
export interface MachineUse {
	/** Bytes that this process holds. */
	processMemory: number;
	/** Bytes in use by all. */
	usedMemory: number;
	/** Bytes that there are. */
	totalMemory: number;
	/** Percent of the cores that this process may use. */
	cpuUsage: number;
	cpuCores: number;
}
/** See {@link PerformanceMonitor.getSummary}. */
export interface MonitorSummary {
	/** When the monitor was made or reset, in milliseconds since 1970. */
	startedAt: number;
	/** How long ago that is, in milliseconds. */
	uptime: number;
	/** Over all operations. */
	totals: {
		count: number;
		errors: number;
		items: number;
	};
	operations: Record<string, OperationStats>;
	caches: {
		hits: number;
		misses: number;
		hitRatio: number;
		byType: Record<string, CacheTypeStats>;
	};
	cycles: CycleSummary;
	/** The latest failures whose message is known, the oldest first: at most 100. */
	errors: MonitorError[];
	machine: MachineUse;
}
/** All that a monitor knows at one moment, as JSON can hold it. See {@link mergeSnapshots}. */
export interface MonitorSnapshot {
	format: "embedcore-monitor";
	version: 1;
	/** Milliseconds since 1970. */
	takenAt: number;
	/** Milliseconds since 1970. */
	startedAt: number;
	/** By name. `histogram`: durations in nanoseconds and how many there are of each, in turn. */
	operations: (OperationStats & {
		histogram?: number[];
	})[];
	/** By type. */
	caches: CacheTypeStats[];
	cycles: {
		summary: CycleSummary;
		/** The latest ones that have ended, the oldest first. */
		recent: CycleRecord[];
		active: CycleRecord[];
		histogram: number[];
	};
	errors: MonitorError[];
	/** Not after merging. */
	machine?: MachineUse;
}
/**
 * One snapshot of several: counts are summed, percentiles are those of all durations together, throughput is that from
 * the first beginning to the last end, and the latest cycles and errors of all are kept.
 *
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what is no snapshot, or does not add up.
 */
export declare function mergeSnapshots(...snapshots: MonitorSnapshot[]): MonitorSnapshot;
/** What was learned about batches of texts of like length. */
export interface LearnedBatch {
	/** The longest texts that it is about, in tokens; the shortest are half as long. */
	maxTokens: number;
	/** How many texts of that length run together now; of shorter ones, as many more as have the same number of tokens. */
	batchSize: number;
	/** Batches that were learned from. */
	samples: number;
}
/** What a generator has done since it was made. Everything is measured; what was not is 0 or absent. */
export interface PerformanceMetrics {
	cache: CacheMetrics;
	batchOptimizer: BatchMetrics;
	/** The same. */
	batchOptimization: BatchMetrics;
	memoryProcessor: MemoryUseMetrics;
	/** The same. */
	memoryProcessing: MemoryUseMetrics;
	overall: OverallMetrics;
	/**
	 * The stages that ran, with their times in milliseconds: those of the work itself, not of waiting for a thread. What runs
	 * on several threads counts for each.
	 */
	stages: Partial<Record<StageName, OperationStats>>;
	/** `overall.score`. */
	overallScore: number;
}
/**
 * A stage of a call. `prepare` words annotations, finds equal texts and hashes keys; `lookup` asks the cache; `tokenize`
 * makes tokens; `plan` chooses the texts of a batch; `wait` is until memory permits it; `infer` runs the model; `commit` puts
 * the batch into the cache. Items are texts. The first two run once a call, `tokenize` for up to 1024 texts at a time,
 * the others for each batch.
 */
export type StageName = "prepare" | "lookup" | "tokenize" | "plan" | "wait" | "infer" | "commit";
/** How the generator's cache does, since it was made. One that is shared counts for all who use it. */
export interface CacheMetrics extends CacheStats {
	/** Whether there is a cache. Without one, all numbers are 0. */
	enabled: boolean;
	/** `currentEntries`. */
	entries: number;
	/** `currentSizeBytes`. */
	sizeBytes: number;
	/** As {@link CachePerformanceMetrics} has it: bytes of vectors and metadata for each byte held, 0–1. */
	memoryEfficiency: number;
	/** As {@link CachePerformanceMetrics} has it, 0–1. */
	performanceScore: number;
}
/** How the model was run. */
export interface BatchMetrics {
	/** Whether sizes are learned. */
	enabled: boolean;
	/** Texts that the next batch has if they are as long as those of the latest one, memory permitting; at least 1. */
	currentBatchSize: number;
	/** Texts of that length that are fastest, as far as it is known; the same where nothing is learned. */
	recommendedBatchSize: number;
	/** How sure that is, 0–1, as {@link OptimizationRecommendation} has it; 0 where nothing is learned. */
	confidence: number;
	/**
	 * As {@link PerformanceAnalytics} of a {@link DynamicBatchOptimizer} that was told of the latest batches (so many as
	 * `historyRetention` says, 1000 at most), each with CPU and memory of the machine when it ended: 0–1.
	 */
	optimizationScore: number;
	/** Of the same: mean of CPU and memory usage while batches ran, 0–1. */
	resourceUtilization: number;
	/** Of the same: relative change of the latest five batches against the five before, in throughput. 0 before there are so many. */
	throughputTrend: number;
	/** In memory usage. */
	memoryTrend: number;
	/** In CPU usage. */
	cpuTrend: number;
	/** Runs of the model. */
	batches: number;
	failedBatches: number;
	/** Texts in a run, on average. */
	averageBatchSize: number;
	/** Milliseconds of a run, on average. */
	averageProcessingTime: number;
	/** Texts that the model finished for each second in it, of all threads together. */
	averageThroughput: number;
	/** Share of runs that succeeded, 0–1. */
	successRate: number;
	/** Tokens of the texts that ran. */
	tokens: number;
	/** The same with padding: `tokens / paddedTokens` is the share that was of use. */
	paddedTokens: number;
	/** By length, as far as there are any. */
	learned: LearnedBatch[];
}
/** How memory was kept below its ceiling. */
export interface MemoryUseMetrics {
	/** Whether strategies are in force. Without them, the ceiling holds alone. */
	enabled: boolean;
	/** The name of the strategy in use; `'none'` where strategies are off. */
	currentStrategy: string;
	strategyChanges: number;
	/** Bytes that this process may hold: `memoryLimit`, or what it holds and the container or host has left. */
	ceilingBytes: number;
	/** Bytes of physical memory that it holds. */
	processBytes: number;
	/** The most that was seen. */
	peakBytes: number;
	/** Bytes that running batches were permitted. */
	grantedBytes: number;
	/** `processBytes` of `ceilingBytes`, 0–100. */
	memoryUsage: number;
	/** The same. */
	memoryUsagePercent: number;
	/** Bytes that the container, or the host, has available. */
	availableMemory: number;
	/** Share of the time of batches that was not spent waiting for memory, 0–1; 0 before the first one. */
	efficiency: number;
	/** What a person could do about memory as it is, in words; none where strategies are off. */
	recommendations: string[];
	/** Batches that waited for memory. */
	waits: number;
	/** Milliseconds that they waited, together. */
	waitedMs: number;
	/** Times that memory was given back. */
	memoryCleanups: number;
}
/** How calls went. */
export interface OverallMetrics {
	calls: number;
	failedCalls: number;
	/** Texts that calls have answered, those from the cache included. */
	totalEmbeddings: number;
	/** Of these, texts that the call need not compute. */
	fromCache: number;
	/** Of these, texts without a vector. */
	failed: number;
	/** `totalEmbeddings`. */
	itemsProcessed: number;
	/** Milliseconds during which at least one call was under way. */
	totalProcessingTime: number;
	/** `totalProcessingTime` for each of `itemsProcessed`, in milliseconds. */
	averageItemTime: number;
	/**
	 * Share of texts that got no vector, 0–1: those that were skipped, and those of calls that failed; but not those of calls
	 * that were stopped.
	 */
	errorRate: number;
	/** Milliseconds of a call for each of its texts, on average. */
	averageProcessingTime: number;
	/** Texts answered for each second spent in calls. Calls at the same time count each. */
	throughput: number;
	/** Share of texts that came from the cache or from another call, 0–1. */
	cacheHitRatio: number;
	/**
	 * 0–1: the mean of the share of texts that got a vector, the share of computed tokens that are not padding, and the
	 * share of the time of batches that was not spent waiting for memory; as far as there are any. 0 before the first call.
	 */
	score: number;
}
/** An expectation, and the interval in which it is in 95 of 100 cases if the machine stays as it was. */
export interface Estimate {
	expected: number;
	low: number;
	high: number;
}
/** See {@link OptimizedEmbeddingGenerator.predict}. */
export interface Prediction {
	/** Milliseconds of the call; `null` as long as nothing was measured of this model on this machine. */
	time: Estimate | null;
	/** Bytes: the vectors, and the working memory of the batches that run at a time. */
	memory: Estimate;
	/** Texts in a batch. */
	batchSize: Estimate;
}
/** What {@link OptimizedEmbeddingGenerator.optimizePerformance} did. */
export interface OptimizationReport {
	/** What the cache's maintenance did; `null` without a cache. */
	cache: CacheMaintenance | null;
	/** Bytes of physical memory that the process holds less than before; 0 where it is not less. */
	freedBytes: number;
	/** What is known about batches. */
	learned: LearnedBatch[];
}
/** What is published on the `diagnostics_channel` `embedcore:memory`. */
export interface MemoryEvent {
	type: "strategy-changed";
	before: string;
	after: string;
	/** Share that is in use of what the ceiling leaves beyond the model and all else that the process holds anyway, 0–100. */
	usagePercent: number;
}
/** One way to process items. */
export interface ProcessingStrategy {
	/** What events call it. `streaming`, `conservative`, `balanced` and `aggressive` are meant for their level of memory
	 * usage; others are ranked by size. */
	name: string;
	/** Most items of one call. */
	maxBatchSize: number;
	/** `parallel`: as many batches at a time as there are cores. Else one after the other; `chunked` and `streaming` let the
	 * event loop turn between. */
	approach: "sequential" | "parallel" | "streaming" | "chunked";
	/** How much memory it takes, relative to others. For your information. */
	memoryOverhead: number;
	/** How much CPU it takes, relative to others. For your information. */
	cpuOverhead: number;
	/** Batches between two clean-ups while memory is short. */
	cleanupFrequency: number;
}
/** Memory usages, in percent, at which strategies change, in falling order. */
export interface MemoryThresholds {
	/** One item at a time from here on. Default 85. */
	critical: number;
	/** Small batches and warnings from here on. Default 70. */
	high: number;
	/** Middling batches from here on, large ones below. Default 55. */
	normal: number;
	/** Recommendations say that there is room, below. Default 35. */
	low: number;
}
/** Options of {@link MemoryAwareProcessor}. */
export interface MemoryProcessorOptions {
	/** Default: streaming (1 item), conservative (8), balanced (32, parallel), aggressive (128, parallel). */
	strategies?: ProcessingStrategy[] | undefined;
	memoryThresholds?: {
		[Level in keyof MemoryThresholds]?: number | undefined;
	} | undefined;
	/** How often memory is looked at, in milliseconds. Default 1000. */
	monitoringInterval?: number | undefined;
	/** Memory usage from which free memory is given back every so many batches: percent, or a share of 0–1. Default 80. */
	cleanupThreshold?: number | undefined;
	/** Memory usage from which a clean-up collects garbage, too: percent, or a share of 0–1. Default 70. */
	gcThreshold?: number | undefined;
	/** Whether garbage may be collected; needs `node --expose-gc`. Default true. */
	enableGcHints?: boolean | undefined;
	/** Memory usage from which every batch is followed by a clean-up: percent, or a share of 0–1. Default 95. */
	emergencyCleanupThreshold?: number | undefined;
	/** Share of the available memory that is left alone, 0–0.99. Default 0.1. */
	memoryBuffer?: number | undefined;
}
/** Memory of the container where it has a limit, else of the host. Bytes. */
export interface MemoryMetrics {
	totalMemory: number;
	/** What can be had, caches that the kernel gives back included. */
	availableMemory: number;
	/** As `process.memoryUsage()`. */
	processMemory: NodeJS.MemoryUsage;
	/** 0–100. */
	memoryUsagePercent: number;
	/** What is available less `memoryBuffer`. */
	availableForProcessing: number;
}
/** How large the batches of a {@link MemoryAwareProcessor} are, within what its strategies allow. */
export interface ProcessingBatches {
	/** Most items of one call, whatever the strategy allows: 1–100000. Default: what the strategy allows. */
	batchSize?: number | undefined;
	/**
	 * Asked before each call how many items are best, and told after it how it went: an optimizer, which others may use, too, or
	 * the options of one. Default: none; batches are as large as the strategy allows.
	 */
	batchOptimizer?: DynamicBatchOptimizer | BatchOptimizerOptions | undefined;
}
/** How a caller follows processing. */
export interface ProcessingHooks {
	/** Called as items are done; never goes back, ends with all. */
	onProgress?: ((completed: number, total: number) => void) | undefined;
	/** Called when memory makes another strategy necessary, or possible. */
	onStrategyChange?: ((before: ProcessingStrategy, after: ProcessingStrategy) => void) | undefined;
	/** Called while usage is at or above `high`, at most once for every sample of memory. */
	onMemoryWarning?: ((metrics: MemoryMetrics) => void) | undefined;
	/** Stops: no further call is made, and the promise is rejected with `ABORTED`, also while work that never waits goes on. */
	signal?: AbortSignal | undefined;
	/** Gives up with `TIMED_OUT` after so many milliseconds, in the same way. Default: never. */
	timeoutMs?: number | undefined;
}
/** Options of {@link MemoryAwareProcessor.processItems}. */
export interface ProcessItemsOptions<T> extends ProcessingHooks {
	/**
	 * What to do about an item that fails. `'throw'`: reject. `'skip'`, or a function that is told: go on; its place in the
	 * results stays `undefined`. To find the item, a call that fails is made again for each of its items alone.
	 * Default `'throw'`.
	 */
	onError?: "throw" | "skip" | ((error: EmbeddingError, item: T, index: number) => void) | undefined;
}
/** What {@link MemoryAwareProcessor.processWithMemoryAwareness} works on. */
export interface ProcessingContext<T, R> extends ProcessingHooks {
	items: readonly T[];
	/** Gives a result for each item of the batch, in order. */
	processor: (batch: T[]) => R[] | Promise<R[]>;
	/** Told about each item that fails. */
	onError?: ((error: EmbeddingError, item: T, index: number) => void) | undefined;
}
/** What {@link MemoryAwareProcessor.processWithMemoryAwareness} has done. */
export interface ProcessingResult<R> {
	/** Results of the items that succeeded, in the order of the items. */
	results: R[];
	/** Items that failed, in order: those have no result. */
	failures: {
		index: number;
		error: EmbeddingError;
	}[];
	stats: {
		totalItems: number;
		successfulItems: number;
		failedItems: number;
		/** Milliseconds. */
		totalTime: number;
		strategyChanges: number;
		memoryCleanups: number;
		/** Percent. */
		peakMemoryUsage: number;
		/** Percent. */
		averageMemoryUsage: number;
	};
	/** Memory at the start and after each batch: the latest 1000. */
	memoryHistory: MemoryMetrics[];
}
/** See {@link MemoryAwareProcessor.getProcessingRecommendations}. */
export interface ProcessingRecommendations {
	currentStrategy: ProcessingStrategy;
	memoryMetrics: MemoryMetrics;
	recommendations: string[];
	/** Items that fit into the memory that is available, by what items have taken so far; 4 KB each before any has. */
	estimatedCapacity: number;
}
/**
 * Runs a function over many items, with batches as large, and as many at a time, as memory allows.
 *
 * Every item is processed once and results come in the order of the items, whatever the strategy does meanwhile. The
 * next batch is only made when there is room for it, so there are never more of them than the strategy allows.
 */
export declare class MemoryAwareProcessor {
	#private;
	/** @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option. */
	constructor(options?: MemoryProcessorOptions & ProcessingBatches & Logging);
	/**
	 * Gives what `process` gives for all items, in their order.
	 *
	 * @throws {@link EmbeddingError} What `process` throws, or a result for not just every item of a batch, is
	 * `EMBEDDING_GENERATION_FAILED`, with the original as `cause`; see {@link ProcessItemsOptions.onError}.
	 */
	processItems<T, R>(items: readonly T[], process: (batch: T[]) => R[] | Promise<R[]>, options: ProcessItemsOptions<T> & {
		onError: "skip" | ((error: EmbeddingError, item: T, index: number) => void);
	}): Promise<(R | undefined)[]>;
	processItems<T, R>(items: readonly T[], process: (batch: T[]) => R[] | Promise<R[]>, options?: ProcessItemsOptions<T>): Promise<R[]>;
	/** The same, with statistics. Items that fail are left out of the results, and reported. */
	processWithMemoryAwareness<T, R>(context: ProcessingContext<T, R>): Promise<ProcessingResult<R>>;
	/** The strategy for some usage of memory, whatever came before. */
	selectOptimalStrategy(metrics: Pick<MemoryMetrics, "memoryUsagePercent">): ProcessingStrategy;
	/** Memory as it is now. */
	getCurrentMemoryMetrics(): MemoryMetrics;
	/** What a person could do, and for how many items there is room. */
	getProcessingRecommendations(): ProcessingRecommendations;
	/** Stops watching memory in the background. What still runs, or is started later, looks for itself. */
	stop(): void;
}
/** What a server of models speaks: Ollama's API, OpenAI's (whoever offers it), that of text-embeddings-inference. */
export type RemoteKind = "ollama" | "openai" | "tei";
/**
 * A model on a server. Its tokens are not known here: batches are as many texts as the server takes, results have no
 * `tokenCount`, `truncated` and `confidence`, and the server cuts or refuses what is too long.
 */
export interface RemoteOptions {
	/** What the server speaks. May be left out where `modelPath` begins with it. */
	kind?: RemoteKind | undefined;
	/**
	 * Where the server is, without the path of the API: `'http://localhost:11434'`, `'https://api.example/v1'`. Default: for
	 * `'ollama'` the environment's `OLLAMA_HOST`, else this machine; for `'openai'` `OPENAI_BASE_URL`, else OpenAI.
	 */
	url?: string | URL | undefined;
	/** What the server calls the model. Of `'tei'`, which has but one: default, what it says. */
	model?: string | undefined;
	/**
	 * Sent as `Authorization: Bearer …`, to this server only: not to one that it redirects to. In no message, log, metric or
	 * file. Default: for `'openai'` the environment's `OPENAI_API_KEY`, else none.
	 */
	apiKey?: string | undefined;
	/** Sent with every request, and kept as the key is. */
	headers?: Record<string, string> | undefined;
	/** The length of vectors that the server is asked for. Default: the model's own. */
	dimensions?: number | undefined;
	/** Most texts of a request, 1 to 1048576; what the server says (TEI) and refuses (413) counts, too. Default 32. */
	maxBatchItems?: number | undefined;
	/**
	 * Most tokens of a request, counting one for three bytes of UTF-8. A text that has more goes alone. Default: what the
	 * server says (TEI), else any number.
	 */
	maxBatchTokens?: number | undefined;
	/** Most requests at a time, 1 to 256. Default 8. */
	concurrency?: number | undefined;
	/** Longest time in milliseconds that an answer may take, each attempt by itself. Default 60000. */
	timeoutMs?: number | undefined;
	/**
	 * How often a request is made again, 0 to 100, where the server cannot be reached, takes too long, or answers 408, 425,
	 * 429 or 5xx: after `Retry-After`, else after a random pause that grows. Default 3.
	 */
	retries?: number | undefined;
	/**
	 * What tells the vectors apart from those of other models in caches, instead of kind, address, name and digest: for a
	 * server that moves, or two that serve the same. 64 hexadecimal digits are taken as the whole fingerprint, such as
	 * {@link ModelInfo.fingerprint} has told.
	 */
	fingerprint?: string | undefined;
}
/** Where a loaded model runs, if not here. */
export interface RemoteInfo {
	kind: RemoteKind;
	/** Without anything secret. */
	url: string;
	/** What the server calls the model; empty where nobody says. */
	model: string;
	/** What the server says the model's content is (Ollama: `digest`; TEI: `model_sha`); else `null`. */
	digest: string | null;
	/** Most texts of a request. */
	maxBatchItems: number;
	/** Most requests at a time. */
	concurrency: number;
}
/** The variants in which models are published, by the type of their weights. */
export type Dtype = "fp32" | "fp16" | "q8" | "int8" | "uint8" | "q4" | "q4f16" | "bnb4";
/** How much of a file of a model has been fetched. */
export interface FetchProgress {
	/** Its name in the model. */
	file: string;
	/** Bytes that are here, those of an earlier attempt included. */
	loaded: number;
	/** Bytes that it has. */
	total: number;
	/** Percentage, 0 to 100, of all files of this load together. Never goes back, ends with 100. */
	progressTotal: number;
}
/** Options of {@link ModelStore}. */
export interface ModelStoreOptions {
	/** Where it is. Default: as for {@link GeneratorOptions.cacheDir}. */
	cacheDir?: string | undefined;
}
/** Options of {@link ModelStore.verify}. */
export interface VerifyModelOptions {
	/** Stops it; it rejects with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/** Told of files, some times a second. */
	progressCallback?: ((progress: FetchProgress) => void) | undefined;
}
/** Options of {@link ModelStore.add}. */
export interface AddModelOptions extends VerifyModelOptions {
	/** A branch, a tag or a commit. Default `main`. */
	revision?: string | undefined;
	/** Which variant of the model, as {@link GeneratorOptions.dtype}. */
	dtype?: Dtype | undefined;
}
/** A model in the store. */
export interface StoredModel {
	/** `owner/name`. */
	id: string;
	/** Its folder. */
	path: string;
	/** The commits of which files are there, and the branches and tags that stand for them. */
	revisions: {
		revision: string;
		names: string[];
	}[];
	/** Files of all revisions. */
	files: number;
	/** Bytes of all content on the disk. */
	bytes: number;
	/** Bytes of downloads that are not finished, part of `bytes`. */
	partialBytes: number;
	/** When anything of it was written last. */
	modified: Date;
}
/** A model that was added. */
export interface AddedModel {
	/** As the caller named it. */
	id: string;
	/** The repository that its files come from: a conversion where the model has no ONNX. */
	repository: string;
	/** The commit. */
	revision: string;
	/** The directory of its files. */
	path: string;
	/** Bytes of the files of that commit. */
	bytes: number;
}
/** What a look at all files of a model has shown. */
export interface VerifiedModel {
	/** `owner/name`. */
	id: string;
	/** Contents that are what their names say. */
	sound: number;
	/** Contents without a hash to compare them with: copies in place of links, and names of other kinds. */
	unchecked: number;
	/** Bytes that were read. */
	bytes: number;
	/** What is wrong: `damaged` (its hash is not its name), `missing` (a link without content) or `unreadable: …`. */
	problems: {
		file: string;
		path: string;
		what: string;
	}[];
}
/**
 * The models from the hub that are kept on this machine, by this package and by other tools of the hub. Holds nothing
 * open.
 */
export declare class ModelStore {
	#private;
	/**
	 * Reads nothing yet; the directory need not be there.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
	 */
	constructor(options?: ModelStoreOptions);
	/** Where it is. */
	get directory(): string;
	/** All models that are there, by name. */
	list(): Promise<StoredModel[]>;
	/**
	 * Fetches what a generator with the same `dtype` and `revision` needs and is not there, damaged content included. A
	 * branch (`main`, where nothing is said) is looked up anew: this is how a model is brought up to date.
	 * @throws {@link EmbeddingError} as {@link OptimizedEmbeddingGenerator.initialize} does.
	 */
	add(id: string, options?: AddModelOptions): Promise<AddedModel>;
	/**
	 * Reads all content of a model, or of all, and compares it with its hash. Changes nothing: {@link ModelStore.add}
	 * fetches anew what is damaged.
	 */
	verify(id?: string, options?: VerifyModelOptions): Promise<VerifiedModel[]>;
	/** Removes all of a model, whatever tool put it there; gives the bytes that this frees. */
	remove(id: string): Promise<number>;
}
/** Options of {@link PerformanceMonitor.connectOpenTelemetry}. */
export interface OpenTelemetryOptions {
	/** Whether operations become spans, too, as children of the span that is active when they end. Default false. */
	spans?: boolean | undefined;
	/** The package `@opentelemetry/api`, where it cannot be found by its name (bundlers). */
	api?: unknown;
}
/** Something to end. */
export interface OpenTelemetryConnection extends Disposable {
	/** Nothing more is offered. */
	disconnect(): void;
}
/** Options of {@link PerformanceMonitor}. */
export interface MonitorOptions {
	/** Ended cycles that are kept one by one; of all others, the totals. Default 1000. */
	maxCycles?: number | undefined;
	/**
	 * A file that keeps cycles when the process ends, for one process at a time. It is read at once and written, whole or
	 * not at all, `persistInterval` after a cycle ends and when the process does. Default: memory only.
	 */
	persistPath?: string | undefined;
	/** Longest time that an ended cycle is not yet in the file, in milliseconds. Default 5000. */
	persistInterval?: number | undefined;
}
/** What is known of an operation beside its time. */
export interface RecordOptions {
	/** Items that it has processed: a whole number from 0. Default 1. */
	batchSize?: number | undefined;
	/** Whether it succeeded; what failed has processed nothing. Default true. */
	success?: boolean | undefined;
	/** Memory in bytes: what was held, or what was held before and after and the most between. */
	memory?: number | {
		before: number;
		after: number;
		peak?: number | undefined;
	} | undefined;
	/** What went wrong, to be kept among the latest errors. Makes `success` false. */
	error?: unknown;
}
/** Options of {@link PerformanceMonitor.measure}. */
export type MeasureOptions = Pick<RecordOptions, "batchSize">;
/** Options of {@link MonitorTimer.stop}. */
export type StopOptions = Pick<RecordOptions, "batchSize" | "success" | "error">;
/** Options of {@link PerformanceMonitor.recordMany}. */
export type RecordManyOptions = Pick<RecordOptions, "batchSize" | "success">;
/** Options of {@link PerformanceMonitor.recordLlmCall}. */
export interface LlmCallOptions {
	/** Whether a cache answered it. Default false. */
	cacheHit?: boolean | undefined;
	/** Milliseconds. Default 0. */
	duration?: number | undefined;
}
/** Options of {@link PerformanceMonitor.recordValidation}. */
export interface ValidationOptions {
	/** Milliseconds. Default 0. */
	duration?: number | undefined;
	/** Things that were validated. Default 1. */
	count?: number | undefined;
}
/** Options of {@link PerformanceMonitor.recordFileOperation}. */
export interface FileOperationOptions {
	/** Files that were read or written. Default 1. */
	count?: number | undefined;
}
/** Options of {@link PerformanceMonitor.endCycle}. */
export interface EndCycleOptions {
	/** Default true. */
	success?: boolean | undefined;
}
/** Options of {@link PerformanceMonitor.toPrometheus}. */
export interface PrometheusOptions {
	/** What names begin with: letters, digits and underscores. Default `embedcore`. */
	prefix?: string | undefined;
	/** Labels of every sample, such as the service's name. */
	labels?: Record<string, string> | undefined;
}
/** What of a snapshot becomes a table. */
export type CsvTable = "operations" | "caches" | "cycles";
/** What is published on the `diagnostics_channel` `embedcore:monitor`, and by which monitor. */
export type MonitorEvent = {
	monitor: PerformanceMonitor;
} & ({
	type: "operation";
	name: string;
	duration: number;
	items: number;
	success: boolean;
	error?: unknown;
} | {
	type: "operations";
	name: string;
	durations: ArrayLike<number>;
	items: number;
	success: boolean;
} | {
	type: "cycle-started";
	id: string;
} | {
	type: "cycle-ended";
	cycle: CycleRecord;
} | {
	type: "file-set-aside";
	path: string;
	movedTo: string;
	reason: string;
} | {
	type: "storage-failed";
	path: string;
	error: EmbeddingError;
});
/** What is measured from the start to {@link stop}. */
export interface MonitorTimer extends Disposable {
	/**
	 * Ends the measurement and gives the milliseconds that it took. Only the first call records; another one gives the same
	 * again.
	 */
	stop(options?: StopOptions): number;
}
/**
 * Counts and times whatever you name: operations, look-ups in caches, cycles of several steps.
 *
 * Times are kept in HDR histograms, so that percentiles are right to 0.4 % however many there are, and two monitors can
 * be merged. Recording costs some tens of nanoseconds and never blocks. The first 1000 names (of operations, and of
 * cached types) under which something is recorded are told apart; what comes after them is counted together as
 * `(others)`, until {@link reset}.
 */
export declare class PerformanceMonitor implements AsyncDisposable {
	#private;
	/**
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option; `CACHE_STORAGE_FAILED` where `persistPath` cannot
	 * be read, or was never a file of cycles. A damaged one is renamed and kept, what makes sense of it is read, and it is
	 * told on the `diagnostics_channel` `embedcore:monitor`; so is one of a later release, which is left as it is.
	 */
	constructor(options?: MonitorOptions);
	/**
	 * Runs `work`, waits for it and gives what it gives. Its time, its memory and whether it failed are recorded; what it
	 * throws is thrown on as it is.
	 */
	measure<T>(name: string, work: () => T | PromiseLike<T>, options?: MeasureOptions): Promise<T>;
	/** Measures time and memory from now until `stop()`; or, with `using`, until the end of the block. */
	startTimer(name: string): MonitorTimer;
	/**
	 * Records an operation that took `ms` milliseconds and has just ended.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what cannot be; nothing is recorded then.
	 */
	record(name: string, ms: number, options?: RecordOptions): void;
	/**
	 * Records many operations that have just ended, each with the same `batchSize`. The fast way, fastest for a
	 * `Float64Array`. Of one that is no duration, the index is named and none is recorded.
	 */
	recordMany(name: string, durations: ArrayLike<number>, options?: RecordManyOptions): void;
	/** Counts something that was found in a cache. */
	cacheHit(type?: string): void;
	/** Counts something that was not found in a cache. */
	cacheMiss(type?: string): void;
	/**
	 * Starts a cycle: work of several steps. More than 10,000 at a time are not kept: the oldest counts as interrupted.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` when one of this id is in progress.
	 */
	startCycle(id: string): void;
	/**
	 * Notes a call of a language model in a cycle; `duration` in milliseconds.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` when no cycle of this id is in progress, as the other steps do.
	 */
	recordLlmCall(id: string, options?: LlmCallOptions): void;
	/** Notes a validation of `count` things (default 1) in a cycle, that took `duration` milliseconds. */
	recordValidation(id: string, options?: ValidationOptions): void;
	/** Notes that a file was read or written in a cycle, or `count` of them. */
	recordFileOperation(id: string, options?: FileOperationOptions): void;
	/** Ends a cycle, and gives what is known of it. */
	endCycle(id: string, options?: EndCycleOptions): CycleRecord;
	/** Cycles that have ended, the oldest first: the latest `maxCycles`. */
	getCycles(): CycleRecord[];
	/** What is known of one operation; `null` for one that was never recorded. */
	getStats(name: string): OperationStats | null;
	/** Everything, for a program to read. */
	getSummary(): MonitorSummary;
	/** Everything, histograms included: to be kept as JSON, merged with others, or opened by the dashboard. */
	snapshot(): MonitorSnapshot;
	/** Forgets everything, names and cycles in progress included. */
	reset(): void;
	/** Everything in the [text format of Prometheus](https://prometheus.io/docs/instrumenting/exposition_formats/). */
	toPrometheus(options?: PrometheusOptions): string;
	/** Operations (or caches, or cycles) as CSV, RFC 4180, safe to open in a spreadsheet. */
	toCsv(table?: CsvTable): string;
	/** Everything as tables in Markdown. */
	toMarkdown(): string;
	/** Everything for a terminal, at most 80 columns wide. */
	toText(): string;
	/** A {@link snapshot} as JSON. */
	toJson(): string;
	/**
	 * Offers everything to OpenTelemetry: counters, and gauges of percentiles, read whenever the SDK collects. Several
	 * monitors of one `MeterProvider` add up. Where there is none yet, it begins within a second after one was set. With
	 * `spans: true`, {@link measure} and timers are recorded as spans, too. Needs `@opentelemetry/api`, which is an
	 * optional peer.
	 *
	 * @throws {@link EmbeddingError} `BACKEND_UNAVAILABLE` where that package is not installed.
	 */
	connectOpenTelemetry(options?: OpenTelemetryOptions): OpenTelemetryConnection;
	/**
	 * Writes cycles to `path` (default: `persistPath`), whole or not at all; they survive even a loss of power. Any number of
	 * monitors, threads and processes may write to one path: the file is that of one of them.
	 * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED`.
	 */
	save(path?: string | undefined): Promise<void>;
	/**
	 * Resolves when all that was recorded before is written, and what was being written. What is recorded later is still
	 * kept in memory.
	 * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED`.
	 */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/**
 * The monitor of the process. What threads (`worker_threads`) record with theirs, they record with this one: at the
 * latest when they read it or end, and within a quarter of a second while they go on recording.
 */
export declare function getGlobalMonitor(): PerformanceMonitor;
/**
 * How the vectors of a text's tokens become one: their mean, the first one's, the last one's, their maximum value by value, their sum
 * divided by the square root of their number, or their mean in which the first counts once, the second twice, and so on.
 */
export type Pooling = "mean" | "cls" | "last_token" | "max" | "mean_sqrt_len" | "weightedmean";
/**
 * How a model makes a vector of what it reads. `'encoder'`: every part of it is seen in the light of all others; `'decoder'`: from its
 * beginning to its end, each part in the light of those before it; `'static'`: each token has a vector, whatever stands beside it.
 */
export type Architecture = "encoder" | "decoder" | "static";
/** What computes a model, where the ONNX Runtime in use was built for it, or can load it. */
export type ExecutionProvider = "cpu" | "cuda" | "coreml" | "directml" | "webgpu" | "tensorrt-rtx" | ExecutionProviderPlugin;
/** A library of ONNX Runtime's plugin interface. It runs in this process: load none that you do not trust. */
export interface ExecutionProviderPlugin {
	/** Its path. */
	library: string;
	/** Which of its providers, where it brings several. Default: all of its devices are counted. */
	name?: string | undefined;
	/** Which of its devices, counted from 0; the first one where this is left out. */
	device?: number | undefined;
	/** What it is told, in its own words. */
	options?: Record<string, string> | undefined;
}
/** What computes a model that is loaded, or a part of it. */
export interface ProviderInfo {
	/** As {@link GeneratorOptions.executionProviders} spells it; of a plugin, its `name`, or that of its file. */
	name: string;
	/** The processor, or what else is known of the device. */
	device: string | null;
	/** The library that it is in; `null` where a table is looked up. */
	library: string | null;
	version: string | null;
	/** Why it is used, in words. */
	reason: string;
	/** The share of the graph's nodes that it computes, 0 to 1; `null` where the runtime does not tell. */
	nodes: number | null;
}
/** A library that computes models: ONNX Runtime, which comes with the package, or OpenVINO, which has a package of its own. */
export type Engine = "onnxruntime" | "openvino";
/**
 * How exactly a model is computed: as its graph says, which is in 32 bits for most; or with products of 16 bits and sums of
 * 32, which is about twice as fast where the processor has AVX512-BF16 or AMX. The weights stay as they are.
 */
export type Precision = "fp32" | "bf16";
/** Options of {@link OptimizedEmbeddingGenerator}. What is left out is read from the model's own files. */
export interface GeneratorOptions {
	/**
	 * `'builtin'` (default): the small model for code search that comes with the package. Or a model directory in Hugging
	 * Face layout, or an `.onnx` file in one. Or, where there is no such path, the id of a model on the hub, such as
	 * `'sentence-transformers/all-MiniLM-L6-v2'`, `'owner/name@revision'`: what is needed of it is fetched once, verified, and
	 * kept where other tools of the hub keep it, too. A relative path is in the working directory of the moment when it is
	 * given; `~/` is the home directory, and a file URL its path. Or a model on a server: `'ollama:nomic-embed-text'`,
	 * `'openai:text-embedding-3-small'`, `'tei:http://localhost:8080'` ({@link RemoteOptions}). May be given to `initialize`
	 * instead.
	 */
	modelPath?: string | URL | undefined;
	/**
	 * The server on which the model runs, or what else is to be said about the one in `modelPath`. All the rest is as with
	 * models that run here: cache, single flight, streams, limits, metrics.
	 */
	remote?: RemoteOptions | undefined;
	/** The same as `remote.fingerprint`. Only of models on servers: others have their files. */
	fingerprint?: string | undefined;
	/**
	 * A branch, a tag or a commit of a model on the hub. Default: `main`, at the commit that was found when it was first
	 * fetched.
	 */
	revision?: string | undefined;
	/**
	 * Where models from the hub are kept. Default: the environment's `HF_HUB_CACHE`, or `hub` in its `HF_HOME`, or
	 * `~/.cache/huggingface/hub`.
	 */
	cacheDir?: string | undefined;
	/** Never ask the network, as with `HF_HUB_OFFLINE=1` in the environment. Default `false`. */
	localFilesOnly?: boolean | undefined;
	/**
	 * Which variant of a model is taken, where it comes in several: `'fp32'` is `model.onnx`, `'fp16'` `model_fp16.onnx`,
	 * `'q8'` `model_quantized.onnx`, and so on, in `onnx/` or beside the tokenizer. Default: `model.onnx`, whatever it holds.
	 */
	dtype?: Dtype | undefined;
	/**
	 * How token vectors become one vector; a list: in each of these ways, joined in this order. Default: what `modules.json` or
	 * `1_Pooling/config.json` says. Tables of vectors have no other than their mean.
	 */
	pooling?: Pooling | Pooling[] | undefined;
	/** Whether vectors are scaled to length 1. Default: what `modules.json` says. */
	normalize?: boolean | undefined;
	/** Keep the first so many values of each vector, for models trained for that (Matryoshka). Default: all. */
	dimensions?: number | undefined;
	/** Most tokens of a text that the model sees, special tokens included. Default: the model's own limit. */
	maxLength?: number | undefined;
	/** Text put before each document or query. Default: what `config_sentence_transformers.json` says, else none. */
	prompts?: {
		document?: string | undefined;
		query?: string | undefined;
	} | undefined;
	/**
	 * The name of one of the prompts in the model's `config_sentence_transformers.json`, such as `'clustering'`, that is put
	 * before all texts, whatever their `inputType`.
	 */
	promptName?: string | undefined;
	/**
	 * Remembers vectors, so that only new texts are computed: options of a cache of its own, a cache to share, or `false`.
	 * Default `{}`: in memory. With `persistPath`, the next process finds them, too. Beside the defaults of
	 * {@link CacheOptions}, a generator's own cache keeps up to 100,000 entries (within `maxMemoryMB`) and keeps them for
	 * ever: the vector of a text never changes for the same model, and another model has keys of its own.
	 */
	cache?: CacheOptions | IntelligentEmbeddingCache | false | undefined;
	/**
	 * Who is told of every stage of every call, as `embedcore.prepare`, `.lookup`, `.tokenize`, `.plan`, `.wait`, `.infer`,
	 * `.commit`, and of whole calls as `embedcore.call`; of texts that the cache knew as the type `embedding`; and of calls that
	 * failed. Default: the global one ({@link getGlobalMonitor}). `false`: nobody but `getPerformanceMetrics`.
	 */
	monitor?: PerformanceMonitor | false | undefined;
	/** `false` is `cache: false`; another spelling, as is `cacheConfig`. */
	enableCaching?: boolean | undefined;
	/** Another spelling of `cache`. */
	cacheConfig?: CacheOptions | undefined;
	/**
	 * How many texts run together. By default it is learned, for texts of each length, from how long batches take: see
	 * {@link DynamicBatchOptimizer} for the options, where `maxBatchSize` is 1024 here. An optimizer of yours decides for all
	 * lengths, learns from every batch, and no batch has more than 512 tokens. `false`: always 512 tokens.
	 */
	batchOptimizer?: BatchOptimizerOptions | DynamicBatchOptimizer | false | undefined;
	/** `false` is `batchOptimizer: false`; another spelling, as is `batchConfig`. */
	enableBatchOptimization?: boolean | undefined;
	/** Another spelling of `batchOptimizer`. */
	batchConfig?: BatchOptimizerOptions | undefined;
	/**
	 * How much is done at once by how full memory is: the strategies of {@link MemoryAwareProcessor}, by the share that is
	 * in use of what the ceiling leaves beyond the loaded model. `maxBatchSize` limits batches, and with the approach
	 * `streaming` one runs at a time. A processor of yours lends its options. `false`: no strategies; the ceiling holds all
	 * the same.
	 */
	memoryProcessor?: MemoryProcessorOptions | MemoryAwareProcessor | false | undefined;
	/** `false` is `memoryProcessor: false`; another spelling, as is `memoryConfig`. */
	enableMemoryAwareProcessing?: boolean | undefined;
	/** Another spelling of `memoryProcessor`. */
	memoryConfig?: MemoryProcessorOptions | undefined;
	/**
	 * The ceiling: most physical memory, in MB, that this whole process may hold while texts are embedded. Batches shrink,
	 * caches and allocators give back, and work waits before it is crossed; a text that cannot fit even alone fails with
	 * `MEMORY_LIMIT_EXCEEDED`. What you keep of the results counts, too: take them from {@link OptimizedEmbeddingGenerator.stream}.
	 * Default: what the process holds and the container (cgroup) or the host has left.
	 */
	memoryLimit?: number | undefined;
	/**
	 * The directory in which is kept what was learned about batches, for each model content, machine and number of threads;
	 * the next process starts from it. Written now and then and by `cleanup`, whole; what is damaged, of another version or of
	 * another machine is ignored. Default: beside the file of the cache (`persistPath`), nowhere without one. `false`: nowhere.
	 */
	stateDir?: string | false | undefined;
	/**
	 * Threads inside one run of the model, no more than there are cores. Default 1: as many runs go on at once as there are cores (from four on, one is
	 * left to the event loop), which is faster than one run on all of them on the machines measured. `'auto'`: loading
	 * measures which of the two is faster here; it takes the time and memory to load the model twice.
	 */
	intraOpThreads?: number | "auto" | undefined;
	/**
	 * What computes, best first; what one cannot do is left to the next, and at last to the CPU. Default `['cpu']`. Others
	 * need an ONNX Runtime that was built for them (`ORT_DYLIB_PATH`), and run one batch at a time. Their vectors are close
	 * to those of the CPU but not the same, so they have a fingerprint of their own. `'auto'`: of those that the ONNX Runtime in use
	 * offers, what a short trial of this model finds fastest, and at least 1.1 times as fast as the CPU, if its vectors of built-in
	 * texts agree with the CPU's to a cosine of at least 0.9999; else the CPU. {@link ModelInfo.providers} tells which, and why.
	 */
	executionProviders?: "auto" | ExecutionProvider[] | undefined;
	/**
	 * Most memory of a device, in MB, that ONNX Runtime takes for this generator: with `'cuda'` all but what the driver takes itself, with
	 * `'tensorrt-rtx'` the workspace. Others know no limit and are refused with it, or left out by `'auto'`. Default: none. The CPU's is `memoryLimit`.
	 */
	deviceMemoryLimit?: number | undefined;
	/**
	 * What computes the model. `'auto'` (default): OpenVINO where its package is installed (`embedcore-openvino-linux-x64`,
	 * say), if a short trial of this model on this machine finds it at least 1.1 times as fast as ONNX Runtime, and its vectors
	 * of built-in texts agree with ONNX Runtime's to a cosine of at least 0.9999 (scores of pairs: to 0.01, from 0 to 1, and of
	 * how far they lie apart); else ONNX Runtime. The outcome is remembered
	 * in `stateDir`. `'openvino'` fails with `MODEL_INIT_FAILED` where it is not installed or cannot compute the graph.
	 * {@link ModelInfo.engineReason} tells why it is as it is. Models on servers and the built-in one have nothing to choose.
	 */
	engine?: "auto" | Engine | undefined;
	/**
	 * How exactly the model is computed. `'auto'` (default): in bf16 where the processor has it and the trial that `engine`
	 * describes is in its favour; with `engine: 'openvino'`, against OpenVINO in fp32. `'bf16'` is refused with
	 * `INVALID_CONFIG` with `engine: 'onnxruntime'`, and with `engine: 'openvino'` on a processor without it; with
	 * `engine: 'auto'` it only says that OpenVINO is not tried in fp32.
	 */
	precision?: "auto" | Precision | undefined;
	/**
	 * Whether vectors of all engines and precisions may be one embedding space, with one fingerprint and one set of entries in
	 * a cache. Default `false`: those of another engine or precision than ONNX Runtime in fp32 have a fingerprint of their own.
	 */
	mixPrecision?: boolean | undefined;
	/**
	 * Told what happens, the generator's own cache included: `console`, for example. Default: nobody; nothing is printed.
	 */
	logger?: Logger | undefined;
}
/** Options of {@link OptimizedEmbeddingGenerator.initialize}. */
export interface InitializeOptions {
	/** Stops it; it rejects with `ABORTED`. What has been fetched is kept, the next attempt goes on there. */
	signal?: AbortSignal | undefined;
	/** Told of files that are fetched from the hub, some times a second. */
	progressCallback?: ((progress: FetchProgress) => void) | undefined;
}
/** Options of one call. */
export interface CallOptions {
	/** Stops the call, a running inference included; it rejects with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/** Gives up after so many milliseconds; the call rejects with `TIMED_OUT`. Default: never. */
	timeoutMs?: number | undefined;
	/** Told how many inputs are answered, of how many. Never goes back, ends with all of them. */
	progressCallback?: ((processed: number, total: number) => void) | undefined;
	/**
	 * What an input that cannot be embedded does. `'throw'` (default): the call rejects. `'skip'`: all others are
	 * answered, and that one carries the error.
	 */
	onError?: "throw" | "skip" | undefined;
	/** Neither ask the cache nor tell it. Default `false`. */
	bypassCache?: boolean | undefined;
	/** The role of the inputs, for models that embed the two differently. Default `'document'`. */
	inputType?: "document" | "query" | undefined;
	/** Most inputs in one run of the model. By default, and above it, the planner decides. */
	batchSize?: number | undefined;
	/** Most runs at a time. Default: as many as there are cores. */
	maxConcurrency?: number | undefined;
	/**
	 * Most working memory, in MB, that the batches of this call have together. A text that needs more alone fails with
	 * `MEMORY_LIMIT_EXCEEDED`. Default: what the generator's own limit leaves.
	 */
	memoryLimit?: number | undefined;
}
/** Options of {@link OptimizedEmbeddingGenerator.embedImages}. */
export interface ImageCallOptions extends Omit<CallOptions, "inputType"> {
	/**
	 * Most pixels of an image, 1–1073741824; one that has more is refused by its header, before it is decoded. Default
	 * 100000000, which take 300 MB.
	 */
	maxPixels?: number | undefined;
}
/** Options of {@link OptimizedEmbeddingGenerator.stream}. */
export interface StreamCallOptions extends StreamOptions, Omit<CallOptions, "progressCallback" | "memoryLimit"> {
}
/** Options of {@link OptimizedEmbeddingGenerator.batchProcess}: those of every call. */
export interface BatchProcessOptions extends CallOptions {
}
/** What a loaded model is. */
export interface ModelInfo {
	/** The model as it was named. */
	modelId: string;
	/** What it reads: `'image'` ones are called by {@link OptimizedEmbeddingGenerator.embedImages}. */
	modality: Modality;
	/** What it is for, and so the class that takes it. */
	task: "embedding" | "reranking" | "sparse" | "multi-vector";
	/** What the scores of a pair are called, one for each of `dimensions`; empty where it gives none. */
	labels: string[];
	/** Whether its scores are meant to be numbers from 0 to 1, by the logistic function. */
	sigmoid: boolean;
	/** How it reads; of transformers, by what their configuration says. `null` on a server. */
	architecture: Architecture | null;
	/** Its ONNX file, the file of its table (`model.safetensors`), or the address that is asked for vectors. */
	modelPath: string;
	/**
	 * The repository of the hub that its files come from, else `null`. Another one than the id says where that one has no
	 * ONNX files and a conversion of it is known.
	 */
	repository: string | null;
	/** The commit of that repository, else `null`. */
	revision: string | null;
	/** Length of its vectors; scores of a pair, where it gives those. */
	dimensions: number;
	/**
	 * Most tokens of a text that it sees, special tokens included; 0 where a server does not say, and where it reads images; 1048576, as
	 * many as a text can have, where it sees all of them.
	 */
	maxLength: number;
	/**
	 * What says so: `'maxLength'`, the option; `'sentence_bert_config.json'`, `'tokenizer_config.json'`, `'tokenizer.json'` or `'config.json'`,
	 * a file of the model, the last one by its number of positions where it does not say more; or `'server'`. `null` where nobody does.
	 */
	maxLengthFrom: string | null;
	/** How token vectors become one, a list where several ways are joined; `null` where the graph does it, or a server. */
	pooling: Pooling | Pooling[] | null;
	/** Whether vectors have length 1; of a server's, whether the first one had. */
	normalize: boolean;
	/** The output of the graph that is read; `null` where there is no graph, and on a server. */
	output: string | null;
	/** Type of the weights, where the file's name tells it, as `model_quantized.onnx` does; else of that output; of a table, that of its numbers. `null` on a server. */
	dtype: Dtype | "bf16" | null;
	/**
	 * Whether a text's vector is independent of the batch that it runs in. It is not in graphs that quantise activations
	 * on the fly, so their texts are run one by one.
	 */
	batchInvariant: boolean;
	/** Threads inside one run; 0 on a server. */
	intraOpThreads: number;
	/** The names of {@link ModelInfo.providers}. */
	executionProviders: string[];
	/** What computes, best first, and the CPU where it computes a part; empty on a server. */
	providers: ProviderInfo[];
	/**
	 * How the engine in use describes itself; this package, where it looks up a table; the kind of the server, and its version where it
	 * says so.
	 */
	runtime: string;
	/** What computes it; `null` on a server, and for a table. */
	engine: Engine | null;
	/** How exactly; `null` where `engine` is. */
	precision: Precision | null;
	/** Why it is computed by this engine and in this precision, in words; `null` where `engine` is. */
	engineReason: string | null;
	/** The server that it runs on, else `null`. */
	remote: RemoteInfo | null;
	/** Identifies the embedding space: vectors may be compared only if theirs are equal. Hexadecimal. */
	fingerprint: string;
}
declare abstract class Encoder implements AsyncDisposable {
	#private;
	/** `own`: what crosses to the native side beside the options that all have. */
	protected constructor(all: Given<GeneratorOptions>, own?: Record<string, unknown>);
	/**
	 * Loads the model that is given, or else the one that was given last, and fetches it from the hub where that is its place.
	 * Does nothing when that model is loaded already; another one replaces it once it is ready. Calls that are made from now on
	 * wait for it, those made before have the model that they began with.
	 * @throws {@link ModelInitializationError} naming the file and what is wrong with it; {@link EmbeddingError}
	 * `BACKEND_UNAVAILABLE` or `RATE_LIMITED` where it could not be fetched now, or its server not be asked; `BACKEND_REJECTED`
	 * with the server's words, `TIMED_OUT` after `remote.timeoutMs`. It stays usable.
	 */
	initialize(modelPath?: string | URL, options?: InitializeOptions): Promise<void>;
	/** Whether a model is loaded. */
	isReady(): boolean;
	/**
	 * What the loaded model is.
	 * @throws {@link EmbeddingError} `NOT_INITIALIZED` or `CLOSED`.
	 */
	getModelInfo(): ModelInfo;
	/** What was done since it was made. May be asked for at any time. */
	getPerformanceMetrics(): PerformanceMetrics;
	/**
	 * What a call for `items` texts with `tokensPerItem` tokens each will take, from what was learned so far, also in processes
	 * before this one (`stateDir`). The formula is in `docs/memory.md`.
	 * @throws {@link EmbeddingError} `NOT_INITIALIZED`, `CLOSED`; `INVALID_ARGUMENT` for what is not a whole number.
	 */
	predict(items: number, tokensPerItem: number): Prediction;
	/**
	 * Tidies up: drops what has expired from the cache, decides anew how large batches are, and gives memory back that is
	 * kept for later. There is no need to call it: all that happens by itself. May be called at any time.
	 */
	optimizePerformance(): Promise<OptimizationReport>;
	/**
	 * Stops what was asked for before, streams and loads included (`CLOSED`), waits for what still runs, frees the model.
	 * `initialize` makes it usable again.
	 */
	cleanup(): Promise<void>;
	/** The same as {@link Encoder.cleanup}. */
	shutdown(): Promise<void>;
	/** The same as {@link Encoder.cleanup}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** An image: what its file holds, or the path of it, as a string or a file URL. PNG, JPEG, GIF, WebP or BMP. */
export type ImageInput = Uint8Array | string | URL;
/** Options of {@link OptimizedEmbeddingGenerator.countTokens} and {@link OptimizedEmbeddingGenerator.tokenize}. */
export interface CountOptions {
	/** The role of the texts, whose prompt is counted. Default `'document'`. */
	inputType?: "document" | "query" | undefined;
	/** Stops it; it rejects with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/** Gives up after so many milliseconds; it rejects with `TIMED_OUT`. Default: never. */
	timeoutMs?: number | undefined;
}
/** What a model reads of a text. */
export interface Tokens {
	/** Of all tokens, special ones and those of the prompt included, before anything is cut off. */
	ids: Uint32Array;
	/** As the vocabulary spells them. */
	tokens: string[];
	/** Where each is in the text, in UTF-16 units: beginning and end; `[0, 0]` for what was put around it. */
	offsets: [
		start: number,
		end: number
	][];
}
/**
 * What makes embeddings; {@link OptimizedEmbeddingGenerator} is one, and is this name's value, so that
 * `generator instanceof EmbeddingGenerator` and `new EmbeddingGenerator()` work.
 */
export interface EmbeddingGenerator {
	/** Loads the model. */
	initialize(modelPath: string): Promise<void>;
	/** A vector for each text, in order. */
	generateEmbeddings(texts: string[]): Promise<number[][]>;
	/** A result for each annotation, in order. */
	batchProcess(annotations: Annotation[], options?: Partial<BatchProcessOptions>): Promise<EmbeddingResult[]>;
	/** Stops what runs and frees the model. */
	shutdown(): Promise<void>;
	/** Whether a model is loaded. */
	isReady(): boolean;
}
/**
 * Embeds texts and code annotations with one model. All methods may be called at once, from anywhere in the process;
 * work runs on native threads and never blocks the event loop.
 */
export declare class OptimizedEmbeddingGenerator extends Encoder implements EmbeddingGenerator {
	#private;
	/**
	 * Loads nothing yet.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
	 */
	constructor(options?: GeneratorOptions);
	/** What is embedded for an annotation: {@link prepareText} with the loaded model's token limit. */
	prepareText(annotation: Annotation): string;
	/** Embeds annotations; a result for each, in input order. Equal texts are computed once. */
	generateEmbeddings(annotations: readonly Annotation[], options?: CallOptions): Promise<EmbeddingResult[]>;
	/** Embeds texts; a vector for each, in input order. With `onError: 'skip'`, `[]` for those that cannot be. */
	generateEmbeddings(texts: readonly string[], options?: CallOptions): Promise<number[][]>;
	/** The same as {@link OptimizedEmbeddingGenerator.generateEmbeddings} for annotations. */
	batchProcess(annotations: readonly Annotation[], options?: BatchProcessOptions): Promise<EmbeddingResult[]>;
	/** Embeds texts into one matrix, in input order: the fast path, without a number object per value. */
	embed(texts: readonly string[], options?: CallOptions): Promise<EmbeddingMatrix>;
	/**
	 * Embeds images with a model that reads them, into one matrix, in input order: each is what its file holds (PNG, JPEG, GIF,
	 * WebP or BMP), or the path of it. Equal images are computed once, and kept in the cache by their content. See `docs/images.md`
	 * for how they are prepared.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what is no image, or a damaged one, and where the model reads texts;
	 * `INPUT_TOO_LONG` for one with more pixels than `maxPixels`.
	 */
	embedImages(images: readonly ImageInput[], options?: ImageCallOptions): Promise<EmbeddingMatrix>;
	/** Embeds the words of a search. */
	embedQuery(text: string, options?: CallOptions): Promise<Float32Array>;
	/**
	 * Embeds what an iterable or an async iterable gives, and gives results as they come. Reads no more than some hundred
	 * inputs ahead of what is taken, so that it needs little memory however long the input is. An array is embedded as it is
	 * now; all of it with the model of now. What was read before the source failed, or before an input that cannot be
	 * embedded, is answered first. Leaving the loop early stops everything and closes the source, a stream of Node.js
	 * included; so do `signal`, `timeoutMs` and `cleanup`, whatever the stream waits for.
	 */
	stream(annotations: Iterable<Annotation> | AsyncIterable<Annotation>, options?: StreamCallOptions): AsyncGenerator<EmbeddingResult, void, undefined>;
	/** The same for texts: for each, its index, its vector, and what is known of its tokens. */
	stream(texts: Iterable<string> | AsyncIterable<string>, options: StreamCallOptions & ({
		details: true;
	} | {
		order: "completion";
	})): AsyncGenerator<StreamedVector, void, undefined>;
	/** The same for texts: a vector for each. With `details` or in the order of completion, a {@link StreamedVector} for each. */
	stream(texts: Iterable<string> | AsyncIterable<string>, options?: StreamCallOptions): AsyncGenerator<Float32Array, void, undefined>;
	/**
	 * How many tokens each text has as the model reads it: special tokens and the prompt included, before anything is cut off. What
	 * is above `getModelInfo().maxLength` is cut when it is embedded.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` where a server counts the tokens, or the model reads images;
	 * `INPUT_TOO_LONG` for a text of more than 1 MB.
	 */
	countTokens(texts: readonly string[], options?: CountOptions): Promise<Uint32Array>;
	/**
	 * The tokens of a text as the model reads it: special tokens and the prompt included, before anything is cut off.
	 * @throws {@link EmbeddingError} as {@link OptimizedEmbeddingGenerator.countTokens}.
	 */
	tokenize(text: string, options?: CountOptions): Promise<Tokens>;
	/**
	 * Splits a text into chunks that the model reads whole: exact places, all of the text but the white space between them, each
	 * chunk cut at the highest structure that fits (heading or declaration, block, sentence, word, grapheme). What has begun inside a
	 * section does not run on into the next one.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for a limit that has no room beside special tokens and prompt, and as
	 * {@link OptimizedEmbeddingGenerator.countTokens}.
	 */
	split(text: string, options?: SplitOptions): Promise<Chunk[]>;
	/** The chunks of each of many texts, in order, split on all threads. See {@link OptimizedEmbeddingGenerator.split}. */
	splitMany(sources: readonly (string | SourceText)[], options?: SplitManyOptions): Promise<Chunk[][]>;
	/**
	 * Splits documents and embeds their chunks, as they come: equal chunks once, those that are in the cache not at all. Reads some
	 * documents ahead of what is taken. As with {@link OptimizedEmbeddingGenerator.stream}, leaving the loop early stops everything and
	 * closes the source.
	 */
	streamDocuments(documents: Iterable<TextDocument> | AsyncIterable<TextDocument>, options?: DocumentOptions): AsyncGenerator<DocumentChunk, void, undefined>;
}
/** See the interface. */
export declare const EmbeddingGenerator: typeof OptimizedEmbeddingGenerator;
/**
 * The text that is embedded for an annotation: `Signature: … | Summary: … | Code: …`, comments stripped from the code,
 * white space folded, cut to 8 characters for each of `maxTokens` (default 512) and never inside a code point. Empty
 * parts are left out; an annotation without any gives `Node: <nodeId>`.
 */
export declare function prepareText(annotation: Annotation, maxTokens?: number): string;
/** Something that metadata holds. */
export type MetadataValue = string | number | boolean | null | Date | readonly MetadataValue[] | {
	readonly [name: string]: MetadataValue;
};
/** What a value has to be: all that is said of it. */
export interface Condition {
	/** Equal to it. */
	eq?: MetadataValue | undefined;
	/** Equal to none of what `eq` would be. */
	ne?: MetadataValue | undefined;
	/** Equal to one of them. */
	in?: readonly MetadataValue[] | undefined;
	/** Greater than a number, a date or, by its UTF-16 units, a string. */
	gt?: number | string | Date | undefined;
	/** Greater or equal. */
	gte?: number | string | Date | undefined;
	/** Less. */
	lt?: number | string | Date | undefined;
	/** Less or equal. */
	lte?: number | string | Date | undefined;
}
/**
 * A condition on metadata: `{ lang: 'en' }`, `{ year: { gte: 2020, lt: 2024 } }`, `{ tag: { in: ['a', 'b'] } }`, `{ 'author.name': 'x' }`,
 * `{ and: [...] }`, `{ or: [...] }`, `{ not: {...} }`; of several in one object, all. What is not there equals `null`, and is in no range.
 * Dates are their ISO strings, as in metadata.
 */
export interface Filter {
	and?: readonly Filter[] | undefined;
	or?: readonly Filter[] | undefined;
	not?: Filter | undefined;
	[field: string]: MetadataValue | Condition | Filter | readonly Filter[] | undefined;
}
/** Options of {@link EmbeddingCollection}. */
export interface CollectionOptions {
	/** A file of its own, in a directory that is made if need be. Default: in memory. */
	path?: string | URL | undefined;
	/**
	 * What embeds texts: a generator, or the options of one that is closed with the collection. Without one, only vectors are kept and
	 * asked for.
	 */
	generator?: OptimizedEmbeddingGenerator | GeneratorOptions | undefined;
	/** Length of the vectors. Default: that of the model, or of the first vector. */
	dimensions?: number | undefined;
	/** What is near: `'cosine'`, the angle between two vectors. Default `'cosine'`. */
	metric?: "cosine" | undefined;
	/**
	 * What becomes of a collection that another model has made. `'error'` (default): it is left as it is, and calls are refused.
	 * `'rebuild'`: all texts are embedded anew, all or none.
	 */
	onModelChange?: "error" | "rebuild" | undefined;
}
/**
 * What is known of an entry beside its text: a JSON object; dates become their ISO strings. What JSON would keep nothing of, as a `Map`,
 * is refused, and more than 100 levels of objects and arrays in each other.
 */
export type Metadata = {
	[name: string]: unknown;
};
/** What is kept. */
export interface CollectionDraft {
	/** Its name, 1 to 1024 bytes; what had it before is replaced. */
	id: string;
	/** Embedded, unless a vector is given. One with half of a character (a lone surrogate) could not be kept as it is, and is refused. */
	text?: string | undefined;
	/** Its vector, which is not computed then. */
	embedding?: ArrayLike<number> | undefined;
	metadata?: Metadata | undefined;
}
/** Where a chunk is from. */
export interface ChunkSource {
	/** The document's. */
	id: string;
	/** Which of its chunks, from 0, of how many. */
	index: number;
	count: number;
	/** Where in its text, in UTF-16 units. */
	start: number;
	end: number;
	/** Its first line, from 1. */
	line: number;
	headings: string[];
}
/** An entry, as it is kept. */
export interface CollectionEntry {
	id: string;
	text?: string;
	metadata?: Metadata;
	embedding: Float32Array;
	/** Of what {@link EmbeddingCollection.sync} has kept. */
	source?: ChunkSource;
}
/** An answer. */
export interface CollectionMatch extends Omit<CollectionEntry, "embedding"> {
	/** Its cosine with what was asked for, -1–1. */
	score: number;
}
/** Options of {@link EmbeddingCollection.query}. */
export interface CollectionQuery {
	/** Most answers. Default 10. */
	limit?: number | undefined;
	/** Least cosine of an answer, -1–1. Default -1: the best are answered. */
	minScore?: number | undefined;
	/** What answers have to be. Default: anything. */
	filter?: Filter | undefined;
}
/** Options of {@link EmbeddingCollection.sync}. */
export interface SyncOptions extends Omit<SplitManyOptions, "timeoutMs"> {
	/** Whether documents are removed that did not come; or a function that is asked this of the id of each. Default true. */
	remove?: boolean | ((id: string) => boolean) | undefined;
	/** Told after each batch how many documents came so far. */
	progressCallback?: ((documents: number) => void) | undefined;
}
/** Options of {@link EmbeddingCollection.setMetadata}. */
export interface SetMetadataOptions {
	/** Whether what is known already stays as it is. Default false. */
	onlyNew?: boolean | undefined;
}
/** What {@link EmbeddingCollection.sync} has done, in documents. */
export interface SyncReport {
	added: number;
	changed: number;
	removed: number;
	unchanged: number;
	/** Chunks that were embedded; those whose text was there already were not. */
	embedded: number;
}
/**
 * Texts or vectors that are kept, with metadata, until they are deleted, and found by what they mean. In a file of SQLite that
 * survives a crash at any moment: a call is in it whole or not at all. Any number of processes on one machine may read it; writes wait
 * for their turn, half a minute at most.
 */
export declare class EmbeddingCollection implements AsyncDisposable {
	#private;
	/**
	 * Opens nothing yet.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
	 */
	constructor(options?: CollectionOptions);
	/** Keeps entries, all or none; of those with one id, the last. What they replace is gone. */
	upsert(entries: readonly CollectionDraft[]): Promise<void>;
	/** Deletes entries by id, or all that a filter admits, which must say something; how many there were. */
	delete(target: string | readonly string[] | Filter): Promise<number>;
	/** The best answers to a text or a vector, the best first; of equally good ones, in the order of their ids. */
	query(query: string | ArrayLike<number>, options?: CollectionQuery): Promise<CollectionMatch[]>;
	/** The entry with this id, or `null`; of many, each. */
	get(id: string): Promise<CollectionEntry | null>;
	get(ids: readonly string[]): Promise<(CollectionEntry | null)[]>;
	/** How many entries there are, or how many of them a filter admits. */
	count(filter?: Filter): Promise<number>;
	/** All entries, in the order in which they came first; those that are written meanwhile may be among them. */
	export(): AsyncGenerator<CollectionEntry, void, undefined>;
	/**
	 * Makes the collection hold just these documents, beside what was upserted: those that are new or whose text or metadata has changed
	 * are split into chunks and embedded, chunks that were there already are not, and documents that do not come are removed. What
	 * was read before the source fails is kept, and nothing is removed then. A document of one chunk is an entry of its id, the chunks of
	 * others are `id#0`, `id#1`, …; a document that needs the id of an entry that was upserted, or of another document's chunk, is refused
	 * (`INVALID_ARGUMENT`). Each document counts as it is when it is given, those of an array as they are now; halves of characters
	 * (lone surrogates) in texts are kept as U+FFFD. While an async source is waited for, other calls go on, and see what was kept so far.
	 */
	sync(documents: Iterable<TextDocument> | AsyncIterable<TextDocument>, options?: SyncOptions): Promise<SyncReport>;
	/** What is known of the collection itself, as {@link setMetadata} has kept it; `{}` where that is nothing. */
	metadata(): Promise<Metadata>;
	/** Keeps what is known of the collection itself, beside what it does not name; what is known then. */
	setMetadata(metadata: Metadata, options?: SetMetadataOptions): Promise<Metadata>;
	/**
	 * Lets go of the file, after all calls that were made before; a `sync` lasts for as long as its source does, unless its signal is
	 * aborted. May be called any number of times.
	 */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** A cell of a table: text, a number, or nothing. */
export type PanelCell = string | number | null;
/** A table of a {@link DashboardPanel}. Rows beyond the first 1000 are left out. */
export interface PanelTable {
	title: string;
	columns: string[];
	rows: PanelCell[][];
}
/** A part of a dashboard's page for something that a monitor does not record, as it is at one moment. */
export interface DashboardPanel {
	/** Its heading; two with the same one are one. */
	title: string;
	/** What its chart shows over time, by the name of the line: a value, and the bounds of its spread where there is one. */
	values: Record<string, {
		value: number;
		low?: number | undefined;
		high?: number | undefined;
	}>;
	tables: PanelTable[];
}
/** Where a page is served, and for whom. */
export interface ServeOptions {
	/** 0 (default): any that is free. */
	port?: number | undefined;
	/** Who may ask: `'127.0.0.1'` (default), this machine only; `'0.0.0.0'`, everybody. */
	host?: string | undefined;
	/**
	 * Names, such as `'box.example'`, by which it may be asked for beside 127.0.0.1 and localhost; `'*'`: any. Default: none
	 * where `host` is an address of this machine only, so that no other site can reach the page through the browser of who
	 * visits it; else any.
	 */
	allowedHosts?: string[] | undefined;
	/**
	 * What those who look have to know, or several of them: printable ASCII, no blank at either end. A browser asks for it as a
	 * password (the name does not matter), programs send it as `Authorization: Bearer …`. Default: nothing. `/health` is open
	 * to all, and tells those without a key that the page is there and no more.
	 */
	apiKey?: string | string[] | undefined;
	/** Whether the process stays alive for it. Default false. */
	keepAlive?: boolean | undefined;
}
/** A page that is being served. */
export interface PageServer extends AsyncDisposable {
	/** Where it is. */
	readonly url: string;
	readonly port: number;
	/** Ends all connections. */
	close(): Promise<void>;
}
/** A page that is being served. `/metrics` (for Prometheus) and `/health` lie beside it. */
export interface DashboardServer extends PageServer {
}
/** Something else that a dashboard shows: a generator, a cache, or whatever you wrap. */
export interface DashboardSource {
	/** Called once an interval. */
	getPerformanceMetrics(): DashboardMetrics | object;
}
/** What a dashboard reads of a {@link DashboardSource}. All is optional, anything else is ignored. */
export interface DashboardMetrics {
	/** Look-ups since the beginning, by tier. */
	cache?: {
		memoryHits?: number;
		diskHits?: number;
		sharedHits?: number;
		hits?: number;
		misses?: number;
		shared?: object | null;
	};
	/** The same, as a cache calls it. */
	stats?: {
		memoryHits?: number;
		diskHits?: number;
		sharedHits?: number;
		hits?: number;
		misses?: number;
		shared?: object | null;
	};
	/**
	 * Items and tokens that the next batch may have; or, as a generator tells it, what ran since the beginning, of which
	 * the means of each interval are shown.
	 */
	batchOptimizer?: {
		currentBatchSize?: number;
		tokenBudget?: number;
		batches?: number;
		averageBatchSize?: number;
		paddedTokens?: number;
	};
	/** How batches are made, and the most bytes of memory that this process may hold. */
	memoryProcessor?: {
		currentStrategy?: string | {
			name: string;
		} | null;
		ceilingBytes?: number;
	};
}
/** Options of {@link PerformanceDashboard}. */
export interface DashboardOptions {
	/** Default: the global one. */
	monitor?: PerformanceMonitor | undefined;
	generator?: DashboardSource | undefined;
	/** Whose tiers are shown. Default: the generator's own. */
	cache?: DashboardSource | undefined;
	/**
	 * Functions that each answer a part of the page of your own, called once an interval. Those of a `RealtimeEvaluator` that
	 * reports to the same monitor are there without being named.
	 */
	panels?: (() => DashboardPanel)[] | undefined;
	/** Milliseconds from one point of the charts to the next: 100 to 3600000. Default 1000. */
	interval?: number | undefined;
	/** Points that are kept. Default 900: a quarter of an hour. */
	history?: number | undefined;
	/** What the page is called. Default `embedcore`. */
	title?: string | undefined;
}
/** What happened between two points. Durations in milliseconds. */
export interface TimelinePoint {
	/** When it ended, in milliseconds since 1970. */
	at: number;
	/** How long it was. */
	seconds: number;
	/** Those that ended, the 50 busiest where there are more. */
	operations: {
		name: string;
		count: number;
		errors: number;
		items: number;
		p50: number;
		p95: number;
		p99: number;
		max: number;
	}[];
	caches: CacheTypeStats[];
	/** Cycles that ended. */
	cycles: number;
	/** Cycles in progress at its end. */
	active: number;
	/** Look-ups in the tiers of caches; `null` where nobody knows. */
	tiers: {
		memory: number;
		disk: number;
		shared: number;
		misses: number;
	} | null;
	/** That the next batch may have at its end; else, the mean of those that ran. */
	batchSize: number | null;
	/** Tokens that the next batch may have at its end; else, the mean of those that ran, padding included. */
	tokenBudget: number | null;
	/** At its end. */
	strategy: string | null;
	/** The values of each panel at its end, by title and name of the line. */
	panels: Record<string, DashboardPanel["values"]>;
	/** Bytes. `limit`: the generator's, else that of the container or the machine. */
	memory: {
		process: number;
		used: number;
		limit: number;
	};
	/** Percent. */
	cpu: number;
}
/** All that a dashboard knows. A snapshot of its monitor, and more. */
export interface DashboardSnapshot extends MonitorSnapshot {
	dashboard: {
		title: string;
		interval: number;
		history: number;
		timeline: TimelinePoint[];
		panels: DashboardPanel[];
	};
}
/**
 * Shows what a monitor knows: as text, as a file, and on a page that follows it live.
 *
 * From its making on it keeps a point for every interval, so that charts have a past when somebody looks. This costs a
 * millisecond or less for each.
 */
export declare class PerformanceDashboard implements AsyncDisposable {
	#private;
	/** @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option. */
	constructor(options?: DashboardOptions);
	/** All that it knows, as JSON can hold it: what {@link exportJson} writes and the page opens. */
	snapshot(): DashboardSnapshot;
	/** For a terminal, at most 80 columns wide. */
	textSummary(): string;
	/** Tables in Markdown. */
	markdownReport(): string;
	/**
	 * Writes a snapshot: whole, or not at all. `npx embedcore dashboard PATH` shows it.
	 * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED`, as {@link exportCsv}.
	 */
	exportJson(path: string): Promise<void>;
	/** Writes a table as CSV. */
	exportCsv(path: string, table?: CsvTable): Promise<void>;
	/**
	 * Serves the page, with `/metrics` and `/health`. It is there as long as the process is; it does not keep it alive.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` where the port or the host cannot be had.
	 */
	serve(options?: ServeOptions): Promise<DashboardServer>;
	/**
	 * Serves the page for a file that {@link exportJson} has written, or for a `snapshot()` of a monitor as JSON. When the
	 * file changes, so does the page.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` where the file is no snapshot; and as {@link serve}.
	 */
	static serveSnapshot(path: string, options?: ServeOptions): Promise<DashboardServer>;
	/** Ends its servers, and takes no more points. Resolves when what was being written is on disk. */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** {@link CacheOptions} with all that the document names; `Partial<CacheConfig>` for some of it. As a value: the defaults. */
export interface CacheConfig extends Given<CacheOptions> {
	maxEntries: number;
	maxMemoryMB: number;
	ttlSeconds: number;
	enableContentValidation: boolean;
	maintenanceInterval: number;
}
/** The defaults of {@link IntelligentEmbeddingCache}. */
export declare const CacheConfig: Readonly<CacheConfig>;
/** The same as {@link BatchOptimizerConfig}. */
export type OptimizationConfig = BatchOptimizerConfig;
/** The same as {@link BatchOptimizerConfig}. */
export declare const OptimizationConfig: Readonly<OptimizationConfig>;
/** {@link MemoryProcessorOptions} with all that the document names; `Partial<MemoryAwareConfig>` for some of it. As a value: the defaults. */
export interface MemoryAwareConfig extends Given<MemoryProcessorOptions> {
	strategies: ProcessingStrategy[];
	memoryThresholds: MemoryThresholds;
	monitoringInterval: number;
	cleanupThreshold: number;
	gcThreshold: number;
}
/** The same with all that the code names. As a value: the defaults. */
export interface AdaptiveProcessingConfig extends Given<MemoryProcessorOptions> {
	memoryThresholds: MemoryThresholds;
	strategies: ProcessingStrategy[];
	monitoringInterval: number;
	enableGcHints: boolean;
	emergencyCleanupThreshold: number;
	memoryBuffer: number;
}
/** The defaults of {@link MemoryAwareProcessor}. */
export declare const MemoryAwareConfig: Readonly<MemoryAwareConfig>;
/** The defaults of {@link MemoryAwareProcessor}. */
export declare const AdaptiveProcessingConfig: Readonly<AdaptiveProcessingConfig>;
/**
 * The options of {@link OptimizedEmbeddingGenerator} as the code spells them; its constructor takes some of them. As a
 * value: the generator's defaults.
 */
export interface PerformanceOptimizationConfig {
	enableCaching: boolean;
	enableBatchOptimization: boolean;
	enableMemoryAwareProcessing: boolean;
	cacheConfig?: Partial<CacheConfig>;
	batchConfig?: Partial<BatchOptimizerConfig>;
	memoryConfig?: Omit<Partial<AdaptiveProcessingConfig>, "memoryThresholds"> & {
		memoryThresholds?: Partial<MemoryThresholds>;
	};
}
/** The defaults of {@link OptimizedEmbeddingGenerator}: other ones than those of the classes that it is made of. */
export declare const PerformanceOptimizationConfig: Readonly<Required<PerformanceOptimizationConfig>>;
/** Settings of embedding as a whole. As a value: what this package does by default, on this machine. */
export interface EmbeddingConfig {
	/** The model's place. */
	modelPath: string;
	/** The model's name. */
	modelName: string;
	/** Texts in one run of the model to begin with, where they are short. */
	defaultBatchSize: number;
	/** Most texts in one run that are ever tried. */
	maxBatchSize: number;
	/** Memory, in MB, that the process may hold. */
	memoryLimit: number;
	/** Runs at a time. */
	maxConcurrency: number;
	/** Whether calls report their progress to who asks for it. */
	enableProgressReporting: boolean;
	/** Whether results have a confidence. */
	enableConfidenceScoring: boolean;
}
/** See the interface. `memoryLimit` and `maxConcurrency` are measured when they are read. */
export declare const EmbeddingConfig: Readonly<EmbeddingConfig>;
/** Memory of this process. As a value, `MemoryUsage.now()` measures it. */
export interface MemoryUsage {
	/** Bytes of physical memory that it holds. */
	usage: number;
	/** Bytes that the container, or the host, has available. */
	available: number;
	/** Whether so much is in use that a {@link MemoryAwareProcessor} would clean up: from 80 %. */
	shouldCleanup: boolean;
}
/** See the interface. */
export declare const MemoryUsage: {
	now(): MemoryUsage;
};
type OfGenerators = "remote" | "fingerprint" | "pooling" | "normalize" | "dimensions" | "prompts" | "promptName";
/** Options of all classes whose models give something else than one vector for each text; each is as it is with a generator. */
export interface EncoderOptions extends Omit<GeneratorOptions, OfGenerators> {
	/**
	 * A model directory in Hugging Face layout, or an `.onnx` file in one; or the id of a model on the hub. May be given to
	 * `initialize` instead.
	 */
	modelPath?: string | URL | undefined;
}
/** Options of {@link CrossEncoder}. */
export interface CrossEncoderOptions extends EncoderOptions {
	/** Most tokens of a pair that the model sees, special tokens included. Default: the model's own limit. */
	maxLength?: number | undefined;
	/**
	 * What becomes of the model's scores. `'sigmoid'`: numbers from 0 to 1, by the logistic function. `'none'`: they stay what
	 * they are. `'auto'` (default): what the model's files say, else `'sigmoid'` where it has one score and `'none'` where it has several.
	 */
	activation?: "auto" | "sigmoid" | "none" | undefined;
	/**
	 * What documents are to be judged by, for models that are told: those whose chat template has a place for it. Others refuse it.
	 * Default: what the model's files say. It is part of the fingerprint.
	 */
	instruction?: string | undefined;
}
/** Options of {@link CrossEncoder.score}. */
export interface ScoreOptions extends Omit<CallOptions, "inputType" | "onError"> {
	/** What becomes of the scores of this call. Default: as the class was told. */
	activation?: CrossEncoderOptions["activation"];
}
/** Options of {@link CrossEncoder.rank}. */
export interface RankOptions extends Omit<CallOptions, "inputType"> {
	/** See {@link ScoreOptions.activation}. */
	activation?: CrossEncoderOptions["activation"];
	/** How many of the best are answered, from 1. Default: all. */
	topK?: number | undefined;
	/** Whether results carry their documents. Default `false`. */
	returnDocuments?: boolean | undefined;
}
/** Options of {@link SparseEncoder}. */
export interface SparseEncoderOptions extends EncoderOptions {
	/**
	 * `'bm25'`: no model at all, but words, counted as fastembed counts them for a vector database, which knows how rare each is
	 * (`idf`). Else as with {@link EncoderOptions}.
	 */
	modelPath?: string | URL | undefined;
	/** Text put before each document or query. Default: what the model's files say, else none. */
	prompts?: {
		document?: string | undefined;
		query?: string | undefined;
	} | undefined;
	/** Of `'bm25'`: how soon more of a word counts no more, 0–1000. Default 1.2. */
	k?: number | undefined;
	/** Of `'bm25'`: how much the length of a text counts, 0–1. Default 0.75. */
	b?: number | undefined;
	/** Of `'bm25'`: words of a text of average length. Default 256. */
	averageLength?: number | undefined;
}
/** Options of {@link MultiVectorEncoder}. */
export interface MultiVectorEncoderOptions extends EncoderOptions {
	/** Text put before each document or query. Default: what the model's files say, else none. */
	prompts?: {
		document?: string | undefined;
		query?: string | undefined;
	} | undefined;
	/**
	 * Keep one of so many vectors of a document, 1–1024: those that are alike become their mean. Default: what the model's files say, else
	 * 1, which keeps all of them. It is part of the fingerprint.
	 */
	poolFactor?: number | undefined;
}
/** Options of one call of {@link SparseEncoder} or {@link MultiVectorEncoder}. */
export interface EncodeOptions extends CallOptions {
}
/** Options of {@link maxSim}. */
export interface MaxSimOptions {
	/** How many of the best are answered, from 1. Default: all. */
	topK?: number | undefined;
}
/** A document with its score. */
export interface RankedDocument {
	/** Its position in the call. */
	index: number;
	/** How well it answers the query; 0 where there is an error. */
	score: number;
	/** The document, with `returnDocuments`. */
	document?: string;
	/** Why it has no score; only with `onError: 'skip'`. */
	error?: EmbeddingError;
}
/** Scores of pairs: one for each, or all labels of the first pair, then those of the second one. */
export type Scores = Float32Array & {
	/** What the scores of a pair are called; only where there are several. */
	labels?: string[];
	/** Tokens of each whole pair, special tokens included. */
	tokenCounts: Uint32Array;
	/** 1 for each pair that the model did not see whole. */
	truncated: Uint8Array;
	/** 1 for each pair that this call did not compute. */
	fromCache: Uint8Array;
};
/**
 * Scores how well a document answers a query, with a model that reads both together (a cross-encoder, or reranker): slower than
 * comparing vectors, and better. Cache, batches, memory, threads, metrics and errors are those of {@link OptimizedEmbeddingGenerator}.
 */
export declare class CrossEncoder extends Encoder {
	#private;
	/**
	 * Loads nothing yet.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
	 */
	constructor(options?: CrossEncoderOptions);
	/**
	 * The documents by how well they answer the query, best first; equal ones in the order in which they were given. Documents of no
	 * words have a score like any other.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for a query of nothing, and where the model has several scores for a pair.
	 */
	rank(query: string, documents: readonly string[], options?: RankOptions): Promise<RankedDocument[]>;
	/** The scores of pairs of a query and a document, in their order. */
	score(pairs: readonly (readonly [
		query: string,
		document: string
	])[], options?: ScoreOptions): Promise<Scores>;
}
/** Vectors of the tokens of many texts in one allocation. */
export interface MultiVectors {
	/** All vectors, one after the other. */
	readonly data: Float32Array;
	/** Where the vectors of each text begin, counted in vectors; and where the last ones end. */
	readonly offsets: Uint32Array;
	/** Length of each vector. */
	readonly dimensions: number;
	/** Number of texts. */
	readonly rows: number;
	/** The vectors of the text at `index`, one after the other: a view into `data`. */
	row(index: number): Float32Array;
	/** Tokens of each whole text, special tokens included. */
	readonly tokenCounts: Uint32Array;
	/** 1 for each text that the model did not see whole. */
	readonly truncated: Uint8Array;
	/** 1 for each text that this call did not compute. */
	readonly fromCache: Uint8Array;
	/** The inputs without vectors, by index; only with `onError: 'skip'`. */
	readonly errors: ReadonlyMap<number, EmbeddingError>;
}
/** What {@link maxSim} compares: what `embed` gave, or vectors of one's own in the same layout. */
export type MaxSimVectors = Pick<MultiVectors, "data" | "offsets" | "dimensions">;
/** A document with its score. */
export interface MaxSimMatch {
	/** Its position among the documents. */
	index: number;
	/** The sum of the largest dot product for each of the query's vectors. */
	score: number;
}
/**
 * Makes a vector for each token of a text, which {@link maxSim} compares one by one (late interaction, ColBERT). Queries and documents
 * are read differently: say which they are (`inputType`). Cache, batches, memory, threads, metrics and errors are those of
 * {@link OptimizedEmbeddingGenerator}.
 */
export declare class MultiVectorEncoder extends Encoder {
	/**
	 * Loads nothing yet.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
	 */
	constructor(options?: MultiVectorEncoderOptions);
	/** The vectors of each text, in input order. */
	embed(texts: readonly string[], options?: EncodeOptions): Promise<MultiVectors>;
	/** The same as the function {@link maxSim}. */
	maxSim(query: MaxSimVectors | Float32Array, documents: MaxSimVectors, options?: MaxSimOptions): Promise<MaxSimMatch[]>;
}
/**
 * The documents by how well they answer a query, best first, equal ones in their order: for each of the query's vectors the largest dot
 * product with one of the document's, all of them summed. Exact, on native threads. A document without vectors has 0. The query is what
 * `embed` gave for one text, or its vectors alone. What lies behind the last offset does not count. All of it counts as it is now: a query
 * of up to 64 vectors is compared at once, which takes less time than copying the documents; for longer ones these are copied, and the
 * event loop goes on.
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for sizes that contradict each other, and for values that are no numbers.
 */
export declare function maxSim(query: MaxSimVectors | Float32Array, documents: MaxSimVectors, options?: MaxSimOptions): Promise<MaxSimMatch[]>;
/** Some of very many dimensions; the others are 0. */
export interface SparseVector {
	/** Which they are, in ascending order. */
	indices: Uint32Array;
	/** The value of each. */
	values: Float32Array;
	/** Why there is none; only with `onError: 'skip'`. */
	error?: EmbeddingError;
}
/** The vectors of a call. */
export type SparseVectors = SparseVector[] & {
	/** Tokens of each whole text, special tokens included; of `'bm25'`, 0. */
	readonly tokenCounts: Uint32Array;
	/** 1 for each text that the model did not see whole. */
	readonly truncated: Uint8Array;
	/** 1 for each text that this call did not compute. */
	readonly fromCache: Uint8Array;
};
/**
 * Makes sparse vectors for inverted indexes: weights of the vocabulary's tokens by a model (SPLADE), or of words (`'bm25'`). Cache,
 * batches, memory, threads, metrics and errors are those of {@link OptimizedEmbeddingGenerator}.
 */
export declare class SparseEncoder extends Encoder {
	/**
	 * Loads nothing yet.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
	 */
	constructor(options?: SparseEncoderOptions);
	/** A sparse vector for each text, in input order. A text of stop words alone has an empty one. */
	embed(texts: readonly string[], options?: EncodeOptions): Promise<SparseVectors>;
	/**
	 * The tokens that weigh most in a vector of this model, with their weights, heaviest first.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for `'bm25'`, whose indices are hashes, and for indices that no token of the model
	 * has; `NOT_INITIALIZED`.
	 */
	decode(vector: SparseVector, topK?: number): [
		token: string,
		value: number
	][];
	/**
	 * The dot product of two sparse vectors: how well a document answers a query.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for indices that do not ascend, and for what is no number.
	 */
	dot(a: SparseVector, b: SparseVector): number;
}
/** Options of {@link CodeIndex}. */
export interface CodeIndexOptions {
	/** The index' file; a relative path is taken from the working directory of now. Default: `.embedcore/index.sqlite` in the directory. */
	path?: string | undefined;
	/**
	 * Whether texts in none of the languages are indexed, too: in chunks that overlap (`kind: 'chunk'`, `language: 'text'`). Binary files
	 * are left out. Kept with the index: `update` adds or removes them where another value is given. Default: as the index was made,
	 * `false` for a new one.
	 */
	textFiles?: boolean | undefined;
	/** The model that makes the vectors. Default: the built-in one. The index itself is its cache. */
	generator?: Omit<GeneratorOptions, "cache" | "enableCaching" | "cacheConfig" | "logger"> | undefined;
}
/** Options of {@link CodeIndex.update}. */
export interface IndexOptions {
	/**
	 * Start over, whatever index is there: one that another model or version made, or one that is damaged, in any way.
	 * Default `false`: such an index is refused.
	 */
	rebuild?: boolean | undefined;
	/** How long the call waits while another process updates the same index, in milliseconds, 0 to 2147483647. Default 5000. */
	waitMs?: number | undefined;
	/** Stops the run; it rejects with `ABORTED`. What is written by then stays, and the next run goes on from there. */
	signal?: AbortSignal | undefined;
	/** Told whenever files were written. */
	progressCallback?: ((report: IndexReport) => void) | undefined;
}
/** Options of {@link CodeIndex.search}. */
export interface SearchOptions {
	/** Most answers, 1 to 1000. Default 10. */
	limit?: number | undefined;
	/** Least {@link CodeMatch.score} of an answer, 0 to 1. Default 0: the best are answered, however far they are. */
	minScore?: number | undefined;
	/**
	 * Only in these files: patterns as in `.gitignore`, from the directory (`'src/'`, `'*.test.ts'`); one that begins with `!`
	 * leaves out. Of several that match, the one that matches most of the path decides, and the last of those. Default: all.
	 */
	paths?: string | readonly string[] | undefined;
	/** Only in these languages: see {@link CodeSymbol.language}. Default: all. */
	languages?: string | readonly string[] | undefined;
	/** Only declarations of these kinds. Default: all. */
	kinds?: CodeSymbol["kind"] | readonly CodeSymbol["kind"][] | undefined;
	/**
	 * Looks again at the best answers, 50 or `limit` if that is more, with a model that reads query and source together: a
	 * {@link CrossEncoder} that you have, and that is loaded if it is not; or the path or hub id of a model, which the index loads when it
	 * is first needed and frees in `close()`. `score` is what that model says then, as a number from 0 to 1. Default: none.
	 */
	rerank?: CrossEncoder | string | URL | undefined;
	/** Stops the call; it rejects with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/** Milliseconds after which the call is given up, with `TIMED_OUT`. Default: none. */
	timeoutMs?: number | undefined;
}
/** Options of {@link CodeIndex.similar}. */
export type SimilarCodeOptions = Omit<SearchOptions, "rerank">;
/** Options of {@link CodeIndex.duplicates}. */
export interface DuplicateCodeOptions extends Pick<SearchOptions, "paths" | "languages" | "signal" | "timeoutMs"> {
	/** Least cosine of a declaration and the one that it repeats, 0.5 to 1; the same source and comment have 1. Default 0.95. */
	threshold?: number | undefined;
	/** Lines that a declaration has at least, from 1. Default 5: little ones are all alike. */
	minLines?: number | undefined;
	/** Most groups, 1 to 1000. Default 100. */
	limit?: number | undefined;
	/** What is compared. Default: functions and methods with each other, classes with classes, types with types. */
	kinds?: CodeSymbol["kind"] | readonly CodeSymbol["kind"][] | undefined;
}
/** Declarations that repeat each other. */
export interface CodeDuplicates {
	/** Lines of all of them but the first: what would be spared. */
	lines: number;
	/**
	 * The one that the others are like, and those, the nearest first. `similarity` is the cosine with the first one, `score` the
	 * same from 0 on.
	 */
	declarations: CodeMatch[];
}
/** Options of {@link CodeIndex.serve}. */
export interface SearchServeOptions extends ServeOptions, Pick<WatchOptions, "onUpdate" | "onError"> {
}
/** Options of {@link CodeIndex.symbols}. */
export interface SymbolOptions {
	/** Most answers, 1 to 1000. Default 10. */
	limit?: number | undefined;
}
/** What is in an index. */
export interface IndexStatus {
	/** The file that it lies in. */
	path: string;
	/** Its size. */
	sizeBytes: number;
	/** The model that made its vectors, as it was named. */
	model: string;
	/** Numbers in a vector. */
	dimensions: number;
	/** Source files in it. */
	files: number;
	/** Declarations in it. */
	annotations: number;
	/** Source files by language. */
	languages: Record<string, number>;
	/** Whether texts in none of the languages are indexed, too. */
	textFiles: boolean;
}
/** Options of {@link CodeIndex.watch}. */
export interface WatchOptions {
	/**
	 * Milliseconds without a change after which the index is brought up to date, at most ten times as long after the first
	 * change. 0 to 60000. Default 200.
	 */
	debounceMs?: number | undefined;
	/** Told what each update has done, the first one included. */
	onUpdate?: ((report: IndexReport) => void) | undefined;
	/** Told why an update failed; it is tried again, after a second at first and after half a minute at last. */
	onError?: ((error: EmbeddingError) => void) | undefined;
	/** Closes the watcher; before it has begun, the call rejects with `ABORTED`. */
	signal?: AbortSignal | undefined;
}
/** What a run of {@link CodeIndex.update} has done. */
export interface IndexReport {
	/** Source files in the index, however they came there; those that cannot be read are none. */
	files: number;
	/** Files that are new or have another content, whatever their sizes and times say. */
	changed: number;
	/** How many of those are done. */
	done: number;
	/** Files whose content is as it was, also those that cannot be read. */
	unchanged: number;
	/** Files that are gone from the tree, and now from the index. */
	removed: number;
	/** Functions, methods, classes, types, documented constants and described files in the index. */
	annotations: number;
	/** How many of them were embedded now. */
	embedded: number;
	/** How many of changed files were as they were, so that their vectors could be kept. */
	reused: number;
	/** Files in the index that are not in UTF-8, by encoding: a byte order mark decides, else the best guess. */
	encodings: Record<string, number>;
	/** Files left out, by reason. */
	skipped: Record<string, number>;
	/** Up to 100 of them, without those in other languages. */
	examples: {
		file: string;
		reason: string;
	}[];
	/** Seconds since the run began. */
	seconds: number;
}
/** A declaration in an index. */
export interface CodeSymbol {
	/** The source file, below the directory, with `/`. */
	file: string;
	/** First line, from 1. */
	line: number;
	endLine: number;
	/**
	 * A `constant` has a comment that documents it, as have functions of C and C++ whose body is elsewhere; a `file` is found by
	 * what is written about it as a whole; a `section` of Markdown is what stands under a heading, up to the next one; a `chunk` is a
	 * part of a text in none of the languages, called by its file and its first line: see {@link CodeIndexOptions.textFiles}.
	 */
	kind: "function" | "method" | "class" | "type" | "constant" | "file" | "section" | "chunk";
	/**
	 * Of the file: `'bash'`, `'c'`, `'cpp'`, `'csharp'`, `'go'`, `'java'`, `'javascript'`, `'kotlin'`, `'markdown'`, `'php'`,
	 * `'python'`, `'ruby'`, `'rust'`, `'scala'`, `'sql'`, `'svelte'`, `'swift'`, `'typescript'`, `'vue'`, else `'text'`. A header `.h` is `'c'`.
	 */
	language: string;
	/** Its name, after those of the declarations and modules around it: `Stack.push`. */
	name: string;
	/** Its source up to its body. */
	signature: string;
	/** Its documentation comment; may be empty. */
	summary: string;
	/**
	 * There where the file has another content now than was indexed, or cannot be read any more: lines and all else are as they were
	 * then. {@link CodeIndex.update} reads it again.
	 */
	stale?: true;
}
/** An answer to a search. */
export interface CodeMatch extends CodeSymbol {
	/**
	 * What answers are ranked by, 0 to 1, and the same whatever else is in the index; with `rerank`, what that model says. Else
	 * `0.7 × max(0, similarity) + 0.22 × words + 0.08 × name`, where `words` is the share of the query's words that the declaration has,
	 * each with BM25's saturation (k₁ 0.5, b 0.75, for a usual length of 60 words), and `name` that of its first 4 words that are in the
	 * declaration's own name. A word that is frequent in the index weighs less than others. A declaration whose name is the query, whatever its case and separators, has `0.9 + 0.1 ×` that; one in
	 * tests, fixtures or generated files has `0.9 ×` that, unless the query is about such.
	 */
	score: number;
	/** Cosine of its vector and the query's, −1 to 1. */
	similarity: number;
}
/** Follows the changes of a directory: see {@link CodeIndex.watch}. It keeps the process running until it is closed. */
export interface CodeWatcher extends AsyncDisposable {
	/** Stops: an update that runs is aborted, and what it has written stays. May be called any number of times. */
	close(): Promise<void>;
}
/**
 * Semantic search in a directory of source code: TypeScript, JavaScript, Python, Rust, Go, Java, Kotlin, Scala,
 * Swift, C, C++, C#, PHP, Ruby, Bash, the scripts of Vue and Svelte, SQL and Markdown. Functions, methods, classes, types,
 * documented constants, described files and the sections of Markdown are found by what they do (vectors) and by their words (BM25).
 *
 * All methods may be called at once: updates run one after the other, a search answers from what is in the index while
 * one runs, and `close()` waits for what was called before it. Another process may search while this one updates.
 */
export declare class CodeIndex implements AsyncDisposable {
	#private;
	/**
	 * Reads nothing yet. The directory is the one that is named now, whatever the working directory becomes.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` or `INVALID_CONFIG`.
	 */
	constructor(directory: string, options?: CodeIndexOptions);
	/** The file name extensions that are read. */
	static get extensions(): readonly string[];
	/**
	 * Brings the index up to date: embeds what is new or changed, forgets what is gone. Takes the files that git tracks,
	 * and those that it does not ignore; a file `.ignore`, of the form of `.gitignore`, leaves out more, tracked files
	 * included. Also leaves out hidden files, `node_modules`, links, files above 1 MB, and worktrees of a repository that
	 * is in the directory already.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` if another model or version made the index, `CACHE_STORAGE_FAILED`
	 * if it cannot be written or another process is writing it for longer than `waitMs`, `INVALID_ARGUMENT` if there is no such directory.
	 */
	update(options?: IndexOptions): Promise<IndexReport>;
	/**
	 * Brings the index up to date, and again whenever files change, until the watcher is closed: by its `close()`, by that of
	 * the index, or by the signal. Switching branches, or ignore files that change, are changes like others. Several
	 * processes may watch one directory: one after the other looks, and who comes second finds nothing to do.
	 *
	 * Resolves after the first update. Directories are watched one by one on Linux, of which a user may have as many as
	 * `fs.inotify.max_user_watches` says; what is ignored is not watched.
	 * @throws {@link EmbeddingError} as {@link CodeIndex.update}, of the first one.
	 */
	watch(options?: WatchOptions): Promise<CodeWatcher>;
	/**
	 * The declarations that answer `words` best, best first.
	 * @throws {@link EmbeddingError} `NOT_INITIALIZED` if there is no index yet, `INVALID_CONFIG` if another model or
	 * version made it, `INVALID_ARGUMENT` if the words are empty or an option is none that there is, `ABORTED`, `TIMED_OUT`;
	 * with `rerank`, `MODEL_INIT_FAILED` if its model cannot be loaded.
	 */
	search(words: string, options?: SearchOptions): Promise<CodeMatch[]>;
	/**
	 * The declarations that are most like one of them, best first: the innermost one that is at a line of a file, without itself, what
	 * it is in, and what is in it. `similarity` is the cosine of the two vectors, `score` the same from 0 on. Needs no model.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` if there is no declaration in the index; and as {@link CodeIndex.search}.
	 */
	similar(to: Pick<CodeSymbol, "file" | "line">, options?: SimilarCodeOptions): Promise<CodeMatch[]>;
	/**
	 * Groups of declarations that nearly repeat each other, those that would spare the most lines first. Each is compared with all others
	 * of its kind, which takes time in proportion to the square of how many there are. Needs no model.
	 * @throws {@link EmbeddingError} as {@link CodeIndex.search}.
	 */
	duplicates(options?: DuplicateCodeOptions): Promise<CodeDuplicates[]>;
	/**
	 * Serves a page for people: matches as they type, what is similar to a declaration, and what repeats what; `npx embedcore search
	 * --serve`. It is for this machine alone, unless `host` says otherwise, and needs nothing from elsewhere.
	 *
	 * Resolves when the page can be opened; meanwhile, and from then on, the index follows the directory as with {@link CodeIndex.watch},
	 * until the server is closed: by its `close()`, or that of the index. What goes wrong with that is told to `onError` and on the
	 * page, and tried again.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` where the port or the host cannot be had.
	 */
	serve(options?: SearchServeOptions): Promise<PageServer>;
	/**
	 * The declarations that are called `name`, or whose names end with it after a dot (`push` finds `Stack.push`): the
	 * shortest names first, then by file and line. Needs no model.
	 * @throws {@link EmbeddingError} as {@link CodeIndex.search}.
	 */
	symbols(name: string, options?: SymbolOptions): Promise<CodeSymbol[]>;
	/** The source files in the index, below the directory, with `/`, sorted. Needs no model. */
	files(): Promise<string[]>;
	/**
	 * What is in the index. Needs no model.
	 * @throws {@link EmbeddingError} `NOT_INITIALIZED` if there is no index yet, `CACHE_STORAGE_FAILED` if it is damaged.
	 */
	status(): Promise<IndexStatus>;
	/**
	 * Closes its watchers and its pages, and lets go of the index' file, its copy in memory and the model, when all that was called before is
	 * done. The next call opens them again.
	 */
	close(): Promise<void>;
	/** The same as {@link CodeIndex.close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** Vectors of one length, one after the other: an {@link EmbeddingMatrix}, or what a cache or another thread has given. */
export interface Vectors {
	readonly data: Float32Array;
	readonly dimensions: number;
}
/** What stops work on many vectors. */
export interface MatrixOptions {
	/** Stops it; it rejects with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/** Gives up after so many milliseconds; it rejects with `TIMED_OUT`. Default: never. */
	timeoutMs?: number | undefined;
}
/** Options of {@link topK}. */
export interface TopKOptions extends MatrixOptions {
	/** Least cosine of an answer, -1–1. Default -1: the best are answered, however far they are. */
	threshold?: number | undefined;
}
/** Options of {@link pairs} and {@link dedupe}. */
export interface ThresholdOptions extends MatrixOptions {
	/** Least cosine of two vectors that say the same, -1–1. Which one is right depends on the model: try some on pairs that you know. */
	threshold: number;
}
/** Options of {@link communities}. */
export interface CommunityOptions extends ThresholdOptions {
	/** Least number of vectors of a group. Default 2. */
	minSize?: number | undefined;
}
/** Options of {@link kMeans}. */
export interface KMeansOptions extends MatrixOptions {
	/** Where chance begins, a whole number from 0: the same seed gives the same groups on every machine. Default 0. */
	seed?: number | undefined;
	/** Most steps, 1–100000. Default 300; most need fewer, and end by themselves. */
	maxIterations?: number | undefined;
}
/** What {@link topK} has found. */
export interface TopK {
	/** Places of each query: `k`, or as many as there are vectors, if those are fewer. */
	readonly k: number;
	/** `queries × k` indices, query by query, the nearest first; -1 where a threshold has left places free. */
	readonly indices: Int32Array;
	/** The cosine of each; `-Infinity` where there is none. */
	readonly scores: Float32Array;
}
/** Two vectors that are near: `a` comes before `b`. */
export interface Pair {
	a: number;
	b: number;
	/** Their cosine. */
	score: number;
}
/** What {@link dedupe} has found. */
export interface Deduplicated {
	/** Indices of those that are kept, in order. */
	readonly keep: Uint32Array;
	/** For each the index of the kept one that it repeats; -1 where it is kept. */
	readonly duplicateOf: Int32Array;
}
/** What {@link kMeans} has found. */
export interface Clusters {
	/** The group of each vector, 0 to k − 1. */
	readonly labels: Uint32Array;
	/** The mean of each group. */
	readonly centroids: EmbeddingMatrix;
	/** The sum of the squared distances of all vectors to the centroids of their groups. */
	readonly inertia: number;
	/** Steps that were made. */
	readonly iterations: number;
}
/**
 * The cosine of the angle between two vectors, -1–1; 0 where one of them is all zeros.
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for vectors of two lengths, or with values that are no finite numbers.
 */
export declare function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number;
/** The dot product of two vectors. @throws as {@link cosine}. */
export declare function dot(a: ArrayLike<number>, b: ArrayLike<number>): number;
/** The cosine of `query` and each vector of `matrix`, in order; 0 where one of the two is all zeros. */
export declare function similarities(query: ArrayLike<number>, matrix: Vectors, options?: MatrixOptions): Promise<Float32Array>;
/**
 * For each of `queries`, one vector or many, the `k` vectors of `matrix` with the highest cosine, the nearest first; of equally
 * near ones, those that come first. Exact.
 */
export declare function topK(queries: Vectors | ArrayLike<number>, matrix: Vectors, k: number, options?: TopKOptions): Promise<TopK>;
/**
 * All pairs of vectors whose cosine is at least `threshold`, the nearest first.
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` where there are more than 16,777,216.
 */
export declare function pairs(matrix: Vectors, options: ThresholdOptions): Promise<Pair[]>;
/**
 * Which vectors say something new: in their order, each is kept unless its cosine with one that is kept already is at least
 * `threshold`; then it repeats the nearest of those. Nothing is compared with what repeats, so that duplicates form no chains.
 */
export declare function dedupe(matrix: Vectors, options: ThresholdOptions): Promise<Deduplicated>;
/**
 * Groups of vectors that lie around one of them: indices, that one first, then those whose cosine with it is at least `threshold`,
 * the nearest first. No vector is in two groups, those far from all others are in none; the largest group comes first.
 */
export declare function communities(matrix: Vectors, options: CommunityOptions): Promise<Uint32Array[]>;
/**
 * Groups all vectors around `k` means (k-means with the centres of greedy k-means++), by their squared distances. For vectors of
 * length 1, that is by their cosines.
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for a `k` that is not from 1 to the number of vectors.
 */
export declare function kMeans(matrix: Vectors, k: number, options?: KMeansOptions): Promise<Clusters>;
/** What makes vectors of prompts: an `OptimizedEmbeddingGenerator`, or a function. */
export type SemanticEmbedder = ((texts: string[]) => SemanticVectors | Promise<SemanticVectors>) | {
	embed(texts: readonly string[]): Promise<{
		row(i: number): Float32Array;
	}>;
	initialize(): Promise<void>;
	isReady(): boolean;
	getModelInfo(): {
		fingerprint: string;
	};
};
/** One vector for each text, in their order. */
export type SemanticVectors = readonly ArrayLike<number>[] | {
	row(i: number): Float32Array;
};
/** How results of prompts that mean the same are found. */
export interface SemanticOptions {
	/** Makes the vectors: a generator, which is initialised if it is not, or a function that answers with one for each text. */
	embed: SemanticEmbedder;
	/**
	 * Least cosine of two prompts' vectors, 0–1. Default 0.5: vectors only find what is compared word by word, and tell questions
	 * and their opposites apart at no threshold.
	 */
	threshold?: number | undefined;
	/** How many of the nearest prompts are compared word by word, at most. Default 10. */
	limit?: number | undefined;
	/** Names the model behind a function, so that vectors of another one are never compared with its. */
	model?: string | undefined;
}
/** Options of {@link InferenceCache}. */
export interface InferenceCacheOptions {
	/** Most entries in memory. Default 10000. */
	maxEntries?: number | undefined;
	/** Most memory, bookkeeping included, in MB (1 MB = 1024 × 1024 bytes). Default 100. */
	maxMemoryMB?: number | undefined;
	/** How long a result of a type without a time of its own is an answer, in seconds; 0: for ever. Default 24 hours. */
	ttlSeconds?: number | undefined;
	/**
	 * The same by type. Default 30 days for `text_inference`, `vision_inference`, `audio_inference` and `embedding`, 24 hours
	 * for `api`.
	 */
	ttlSecondsByType?: Record<string, number> | undefined;
	/** Largest value, in MB of its JSON or its own: up to 63. Default 16. */
	maxValueMB?: number | undefined;
	/** How often {@link InferenceCache.optimize} runs by itself, in milliseconds. Default 300000. */
	maintenanceInterval?: number | undefined;
	/**
	 * A SQLite file that keeps the results; any number of processes may share it, and caches of embeddings, too. See
	 * {@link CacheOptions.persistPath}. Default: memory only.
	 */
	persistPath?: string | undefined;
	/**
	 * Most of that file, in MB; its log takes about half as much again, 16 MB at most, unless one entry is larger.
	 * What has no room in it is not written, and evicts nothing: a `rejected` event tells. Default: no limit.
	 */
	maxDiskMB?: number | undefined;
	/**
	 * A server that many machines share: what neither memory nor the file has is asked there, many keys in one round trip, and
	 * what is set is written there behind the call. Trouble with it never fails a call: see docs/distributed.md. Default: none.
	 */
	shared?: SharedOptions | undefined;
	/**
	 * `'cluster'`: of all machines that share the server, one computes what none of them has, as far as it can be asked; the
	 * others wait for it. Default `'process'`: so it is in one process, and with `persistPath` among those of one machine.
	 */
	singleFlight?: "process" | "cluster" | undefined;
	/** Keeps different uses of one file, or one server, apart. */
	namespace?: string | undefined;
	/** Finds results of prompts that mean the same. Default: only of the same content. */
	semantic?: SemanticOptions | undefined;
	/** Told of each hit and miss, by type: a `PerformanceMonitor`. */
	monitor?: {
		cacheHit(type: string): void;
		cacheMiss(type: string): void;
	} | undefined;
	/** Told what happens to the file, and of near hits. */
	logger?: Logger | undefined;
}
/** What {@link InferenceCache.invalidate} deletes. */
export interface InvalidateOptions {
	/** Results of this type. */
	type?: string | undefined;
	/** Results with this tag. */
	tag?: string | undefined;
	/** Results with at least one of these tags. */
	tags?: readonly string[] | undefined;
}
/** What a result is made from: a text, bytes, the hash of bytes that are not at hand, or anything that JSON can hold. */
export type InferenceContent = string | Uint8Array | {
	hash: string;
} | readonly unknown[] | {
	readonly [key: string]: unknown;
};
/** What, beside its content, tells one result from another. */
export interface InferenceKeyOptions {
	/**
	 * The type of the result: by it, times to live are set, results are counted and can be invalidated. Default
	 * `'text_inference'`, `'vision_inference'` or `'audio_inference'`, by `modality`.
	 */
	type?: string | undefined;
	/** Everything else that the result depends on, such as the model and its temperature. The order of keys never matters. */
	params?: unknown;
	/** Of which kind the content is: results of different modalities never meet. Default `'text'`. */
	modality?: Modality | undefined;
	/** `false`: only a result of exactly this content. Default: whether the cache has `semantic`. */
	semantic?: boolean | undefined;
}
/** Settings of one result. */
export interface InferenceSetOptions extends InferenceKeyOptions {
	/** How long it is an answer, in seconds; 0: for ever. Default: its type's. */
	ttlSeconds?: number | undefined;
	/** Anything that JSON can hold, given back with the result. */
	metadata?: unknown;
	/** For {@link InferenceCache.invalidate}. */
	tags?: readonly string[] | undefined;
}
/** Settings of {@link InferenceCache.wrap}. */
export interface InferenceWrapOptions extends InferenceSetOptions {
	/** Tells the functions that are wrapped apart. Default: the function's own name. */
	name?: string | undefined;
}
/** A result that was set before. A copy: changing it never changes the cache. */
export interface CachedInference<T = unknown> {
	value: T;
	type: string;
	/** What was set with it. */
	metadata?: unknown;
	tags: string[];
	/** In milliseconds since 1970. */
	createdAt: number;
	/** In milliseconds since 1970; `null`: never. */
	expiresAt: number | null;
	/** Of a near hit only: the cosine of the two prompts' vectors, -1–1. */
	similarity?: number;
	/** Of a near hit only: the prompt that the result was made from. */
	matchedContent?: string;
}
/** A result, whether it was set before or just computed. */
export interface InferenceAnswer<T = unknown> {
	value: T;
	/** Whether this call did not compute it: it was in the cache, or another call computed it at the same time. */
	fromCache: boolean;
	metadata?: unknown;
	similarity?: number;
	matchedContent?: string;
}
/** One result of {@link InferenceCache.getMany}. */
export interface InferenceLookup extends InferenceKeyOptions {
	content: InferenceContent;
}
/** One result of {@link InferenceCache.setMany}. */
export interface InferenceEntry extends InferenceSetOptions {
	content: InferenceContent;
	value: unknown;
}
/** How one type does. Every number is measured. */
export interface InferenceTypeStats {
	/** `hits + misses`. */
	totalRequests: number;
	/** Near hits included. */
	hits: number;
	nearHits: number;
	misses: number;
	/** 0–1; 0 before the first lookup. */
	hitRatio: number;
	/** Lookups that found a result whose time was over. */
	expired: number;
	/** Lookups that found a damaged row, which is then deleted. */
	damaged: number;
	sets: number;
	/** Results in memory. */
	entries: number;
	/** Bytes of them, without their bookkeeping. */
	bytes: number;
}
/** How the cache does, since it was made. Every number is measured. */
export interface InferenceCacheStats extends Omit<InferenceTypeStats, "entries" | "bytes"> {
	/** Hits that were answered from memory, from disk, and from the server; the rest are near ones. */
	memoryHits: number;
	diskHits: number;
	sharedHits: number;
	/** Entries in memory: results, and prompts that can be found by their meaning. */
	currentEntries: number;
	/** Bytes that they take, bookkeeping included. */
	currentSizeBytes: number;
	maxEntries: number;
	maxSizeBytes: number;
	/** How full memory is, by entries or by bytes, whichever is fuller, 0–1. */
	utilization: number;
	/** Results that could not be kept, although whoever had computed them was answered. Each is told by an event. */
	rejected: number;
	/** Entries that left memory. Those that were not deleted or replaced stay on disk. */
	evictions: number;
	evictionCauses: {
		expired: number;
		explicit: number;
		replaced: number;
		size: number;
	};
	/** The file, as in {@link CacheStats}; `null` without `persistPath`. */
	disk: {
		available: boolean;
		entries: number;
		sizeBytes: number;
		queued: number;
		written: number;
		lost: number;
		evicted: number;
		damaged: number;
		errors: number;
	} | null;
	/** The server; `null` without `shared`. */
	shared: SharedStats | null;
	/** The numbers of each type that was ever looked up or set, or that memory holds. */
	byType: Record<string, InferenceTypeStats>;
}
/** What is published on the `diagnostics_channel` `embedcore:results`. */
export type InferenceCacheEvent = Exclude<CacheEvent, {
	type: "hit-ratio-low";
}> | {
	type: "near-hit";
	resultType: string;
	similarity: number;
	content: string;
	matchedContent: string;
}
/** The error is what `semantic.embed` has thrown, as it is. */
 | {
	type: "semantic-failed";
	error: Error;
};
/**
 * Remembers what expensive calls have answered, in memory and, with `persistPath`, in a file that any number of processes
 * share: any JSON value, or bytes, under what it was made from.
 *
 * Memory holds the most recently used results, strictly, up to a number and to a size; the file holds all until they
 * expire or `maxDiskMB` is reached. Values are copied on their way in and out. Trouble with the file never fails a call:
 * it is counted, and published on the `diagnostics_channel` `embedcore:results` ({@link InferenceCacheEvent}).
 */
export declare class InferenceCache implements AsyncDisposable {
	#private;
	/**
	 * The file is opened in the background.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
	 */
	constructor(options?: InferenceCacheOptions);
	/** The result that is made from `content`, or `null`. */
	get<T = unknown>(content: InferenceContent, options?: InferenceKeyOptions): Promise<CachedInference<T> | null>;
	/** Sets the result that is made from `content`. It is an answer at once; `flush` waits for the file. */
	set(content: InferenceContent, value: unknown, options?: InferenceSetOptions): Promise<void>;
	/**
	 * Sets the value that `value` resolves with, once it does: unless something newer was set, deleted, invalidated or cleared
	 * since this call, or it cannot be kept, as in {@link getOrCompute}. Lookups do not wait for it. A rejection sets nothing, and
	 * is passed on.
	 */
	setLater(content: InferenceContent, value: PromiseLike<unknown>, options?: InferenceSetOptions): Promise<void>;
	/** Looks many results up, in their order. */
	getMany<T = unknown>(lookups: readonly InferenceLookup[]): Promise<(CachedInference<T> | null)[]>;
	/** Sets many results: all of them or, when one is refused, none. */
	setMany(entries: readonly InferenceEntry[]): Promise<void>;
	/**
	 * The result that is made from `content`: from the cache or, if it is not there, from `compute`, whose value is set.
	 * However many ask at the same time, `compute` is called once, and with `persistPath` in one process only; its failure
	 * reaches all who wait in this process and is not kept. The value is what a later call will get: as it comes out of
	 * JSON, and a copy for everybody.
	 *
	 * What is set, deleted, invalidated or cleared meanwhile is newer: then the value is answered, but not kept. So it is
	 * where it cannot be kept, because it is too large or the cache was closed meanwhile: that is counted, and published as
	 * a `rejected` event.
	 */
	getOrCompute<T>(content: InferenceContent, options: InferenceSetOptions, compute: () => T | Promise<T>): Promise<InferenceAnswer<T>>;
	/**
	 * The function, with its results cached: by its name, `params`, and its arguments, which must be JSON, or bytes at any
	 * depth; not by `this`. A single text as its argument can be found by its meaning, too.
	 */
	wrap<A extends unknown[], R>(fn: (...args: A) => R | Promise<R>, options?: InferenceWrapOptions): (...args: A) => Promise<R>;
	/** Whether {@link get} would answer with a result of exactly this content. Counts in no statistics. */
	has(content: InferenceContent, options?: InferenceKeyOptions): Promise<boolean>;
	/**
	 * Deletes a result; whether there was one that {@link get} would have given. Gone from memory at once; resolves when the file knows.
	 * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED` when the file cannot be told: another program has held it for 8
	 * seconds, or it has the result and cannot be written. It goes from the file as soon as that is possible, if this cache is
	 * still open then.
	 */
	delete(content: InferenceContent, options?: InferenceKeyOptions): Promise<boolean>;
	/**
	 * Deletes the results of a type, those with at least one of the tags, or those to which both applies; how many there
	 * were: in the file, where there is one.
	 */
	invalidate(which: InvalidateOptions): Promise<number>;
	/** Deletes the results whose time is over; how many there were: in the file, where there is one. */
	clearExpired(): Promise<number>;
	/** Deletes all results of this namespace, on disk, too; how many there were. */
	clear(): Promise<number>;
	/** Drops what has expired and gives space back. Also runs every `maintenanceInterval`. */
	optimize(): Promise<CacheMaintenance>;
	/**
	 * Waits until everything that was set before is in the file and survives even a loss of power.
	 * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED` when entries were lost since the last call, or another program has
	 * held the file for 8 seconds: then they still wait to be written.
	 */
	flush(): Promise<void>;
	/** How the cache does, by type. Looks at all that memory holds: some 0.1 ms for 1000 results. */
	getStats(): InferenceCacheStats;
	/**
	 * Writes what is not yet written, closes the file and frees memory, after all calls that were made before; vectors of
	 * prompts that are still being made get five seconds. May be called any number of times.
	 */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** Options of {@link monitored}. */
export interface MonitoredOptions {
	/** What the operation is called. Default: `Class.method`. */
	name?: string | undefined;
	/** Default: the global one. */
	monitor?: PerformanceMonitor | undefined;
	/** Items of a call, by its arguments. Default 1. */
	batchSize?: ((...args: any[]) => number) | undefined;
}
/** Options of {@link profiled}. */
export interface ProfiledOptions extends MonitoredOptions {
	/** Told of each call that took at least `slowMs`. What it throws is ignored. */
	onProfile?: ((profile: CallProfile) => void) | undefined;
	/** Milliseconds, from 0. Default 0: told of every call. */
	slowMs?: number | undefined;
}
/** What a call has taken. */
export interface CallProfile {
	/** What the operation is called. */
	name: string;
	/** Milliseconds. */
	duration: number;
	/** Milliseconds that the processors were busy with the whole process meanwhile. */
	cpu: number;
	/** Bytes that the process held more, or less, afterwards. */
	memoryGrowth: number;
	success: boolean;
}
/** What decorates a method, in the standard's way and in TypeScript's older one (`experimentalDecorators`). */
export interface MonitoredDecorator {
	<This, Args extends any[], Result>(method: (this: This, ...args: Args) => Result, context: ClassMethodDecoratorContext<This, (this: This, ...args: Args) => Result>): (this: This, ...args: Args) => Result;
	<T>(target: object, key: string | symbol, descriptor: TypedPropertyDescriptor<T>): void;
}
/**
 * A decorator that measures every call of a method, until its promise is settled where it gives one. What the method
 * gives or throws is passed on as it is; a promise, as one that settles as the method's own.
 *
 * Of what only looks like a promise (a query that is sent when it is awaited, say, or a promise with methods of its own),
 * and of a generator, the call is measured and not what is done with it. A `batchSize` that throws, or gives no whole
 * number, counts as 1 item, and is told among the monitor's latest errors.
 *
 * `@monitored()`, `@monitored('name')` or `@monitored({ name, monitor, batchSize: (texts) => texts.length })`.
 */
export declare function monitored(nameOrOptions?: string | MonitoredOptions): MonitoredDecorator;
/**
 * {@link monitored}, which records time and memory, and beside it the time that the processors were busy with this process
 * while the method ran: as the operation `name.cpu`. Other work of the process at that time counts there, too.
 *
 * `@profiled()`, `@profiled('name')` or `@profiled({ name, monitor, batchSize, slowMs: 500, onProfile: (profile) => … })`.
 */
export declare function profiled(nameOrOptions?: string | ProfiledOptions): MonitoredDecorator;

export {};
