// Generated from lib/ by `npm run types`; do not edit.

import { EmbeddingError, EmbeddingErrorCode, PerformanceMonitor } from './index.js';

/** The answer to an item: exactly one for each. */
export type Settled<R> = {
	index: number;
	status: "fulfilled";
	value: R;
} | {
	index: number;
	status: "rejected";
	reason: unknown;
};
/** A function of the caller, on this thread. The signal is aborted when its answer no longer counts. */
export type ItemFunction<T, R> = (item: T, index: number, signal: AbortSignal) => R | PromiseLike<R>;
/** A function that a module exports, to be run by worker threads or child processes: for work that keeps a processor busy. */
export interface ModuleFunction {
	/** A `file:` URL, or an absolute path. ES modules and CommonJS, as TypeScript compiles them, too. */
	module: URL | string;
	/** The name of the export. Default `'default'`. */
	name?: string | undefined;
}
/** What to do with an item that fails. */
export type OnError = "throw" | "skip" | "collect";
/** What is to be done with each item: a function on this thread, or a module's on others. */
export type Work<T, R> = ItemFunction<T, R> | ModuleFunction;
/** What {@link parallelMap} maps. Items that are promises are waited for. */
export type Items<T> = Iterable<T | PromiseLike<T>> | AsyncIterable<T>;
/** Options of {@link parallelMap}. */
export interface ParallelMapOptions {
	/** Most items at a time, from 1. Default: as many as there are cores for this process. */
	concurrency?: number | undefined;
	/**
	 * Items that are taken at once and processed one after the other, from 1. Default 1. A module's function is faster with
	 * more, since a chunk crosses to its worker at once; if that worker dies, all items of its chunk fail. With `timeoutMs`, a
	 * module's function has chunks of 1.
	 */
	chunkSize?: number | undefined;
	/**
	 * Ends the call at once, with `ABORTED`. A function has the signal that it got aborted; workers that run a module's
	 * function are ended.
	 */
	signal?: AbortSignal | undefined;
	/**
	 * What an item that fails does. `'throw'` (default): the call rejects with what the function threw, and nothing more is
	 * started. `'skip'`: it has no result, and the results of the others move up. `'collect'`: a {@link Settled} for every item.
	 */
	onError?: OnError | undefined;
	/**
	 * Told after each item how many are done, of how many if that is known. What it throws ends the call, and so does a promise
	 * that it answers and that rejects.
	 */
	onProgress?: ((done: number, total: number | undefined) => void) | undefined;
	/**
	 * Longest time for an item, in milliseconds, above 0. It fails with `TIMED_OUT` and its place is free for the next one. A
	 * function has its signal aborted, and cannot be interrupted while it does not wait; a worker is ended. Loading a module is
	 * no part of it, and may take as long, at least 5 s, or 30 s without this option; then the call rejects with `TIMED_OUT`.
	 */
	timeoutMs?: number | undefined;
	/** Runs a module's function in child processes instead of worker threads. Default `false`. */
	processes?: boolean | undefined;
	/**
	 * Whether items and results that are buffers, or views of whole ones, are moved to and from worker threads instead of
	 * copied: whoever sends one has it no more, and cannot send it again. What cannot be moved is copied. Default `false`.
	 */
	transfer?: boolean | undefined;
	/** Who is told of each call, as the operation `parallel.map`. Default: the global monitor. `false`: nobody. */
	monitor?: PerformanceMonitor | false | undefined;
}
/** Options of {@link parallelMap.stream}. */
export interface ParallelStreamOptions extends ParallelMapOptions {
	/** `'input'` (default): in the order of the items. `'completion'`: as they are done, as {@link Settled}. */
	order?: "input" | "completion" | undefined;
	/** Results that may wait to be taken before no more items are started, from 0. Default: `concurrency`. */
	lookAhead?: number | undefined;
}
/** Options by which every item has an answer of its own. */
export type Collecting = {
	onError: "collect";
};
/** Options by which items that fail have no answer. */
export type Throwing = {
	onError?: "throw" | "skip" | undefined;
};
/** What comes of items: with `onError: 'collect'`, {@link Settled}. Where that is known only when the program runs, either. */
export type Results<R, E extends OnError = OnError> = E extends "collect" ? Settled<R>[] : R[];
/** See {@link parallelMap}. */
export interface ParallelMap {
	<T, R = unknown>(items: Items<T>, work: Work<T, R>, options: ParallelMapOptions & Collecting): Promise<Settled<R>[]>;
	<T, R = unknown>(items: Items<T>, work: Work<T, R>, options?: ParallelMapOptions & Throwing): Promise<R[]>;
	<T, R = unknown>(items: Items<T>, work: Work<T, R>, options?: ParallelMapOptions): Promise<Results<R>>;
	/**
	 * The same, with results as they come. Reads no more than `concurrency` (times `chunkSize`) + `lookAhead` items ahead of
	 * what has been taken, starts with the first result that is asked for, and stops when the loop is left. What was read
	 * before the source failed is answered, then its error comes. In the order of completion, or with `onError: 'collect'`, the
	 * results are {@link Settled}.
	 */
	stream<T, R = unknown>(items: Items<T>, work: Work<T, R>, options: ParallelStreamOptions & (Collecting | {
		order: "completion";
	})): AsyncGenerator<Settled<R>, void, undefined>;
	stream<T, R = unknown>(items: Items<T>, work: Work<T, R>, options?: ParallelStreamOptions & Throwing & {
		order?: "input" | undefined;
	}): AsyncGenerator<R, void, undefined>;
	stream<T, R = unknown>(items: Items<T>, work: Work<T, R>, options?: ParallelStreamOptions): AsyncGenerator<R | Settled<R>, void, undefined>;
}
/**
 * Applies a function to items, several at a time, and gives the results in the order of the items: each item is answered
 * exactly once. The items are those of an array as it is now, with all that they hold where they go to workers, or of any
 * iterable or async iterable, which is read no further ahead than is worked on, and closed when the call ends before it does.
 *
 * @throws What the function throws, as it is (see `onError`), and what the source throws. `EmbeddingError` `ABORTED`;
 * `TIMED_OUT` for an item, or for a module that hangs while it is loaded; `BACKEND_UNAVAILABLE` or `MEMORY_LIMIT_EXCEEDED` for items whose worker died; `INVALID_CONFIG`,
 * `INVALID_ARGUMENT`, also for a module or an export that there is not.
 */
export declare const parallelMap: ParallelMap;
/** A function that answers a batch: a result for each of its items, in their order. */
export type BatchFunction<T, R> = (batch: T[], batchIndex: number, signal: AbortSignal) => readonly R[] | PromiseLike<readonly R[]>;
/** Options of {@link batchProcess}, as those of {@link parallelMap}, of which `timeoutMs` is for a batch here. */
export interface BatchMapOptions extends Omit<ParallelMapOptions, "chunkSize" | "processes" | "transfer"> {
	/** Items in a batch, from 1; the last one may have fewer. Default 32. */
	batchSize?: number | undefined;
}
/**
 * Hands items to a function in batches, several at a time, and gives the results in the order of the items. An item that a
 * batch has no result for would shift all others, so a batch that answers with more or fewer results than it has items fails
 * with `EMBEDDING_GENERATION_FAILED`, which names it. All items of a batch that fails fail.
 */
export declare function batchProcess<T, R>(items: Items<T>, work: BatchFunction<T, R>, options: BatchMapOptions & Collecting): Promise<Settled<R>[]>;
export declare function batchProcess<T, R>(items: Items<T>, work: BatchFunction<T, R>, options?: BatchMapOptions & Throwing): Promise<R[]>;
export declare function batchProcess<T, R>(items: Items<T>, work: BatchFunction<T, R>, options?: BatchMapOptions): Promise<Results<R>>;
/** Options of {@link ParallelProcessor}: defaults for its calls. */
export interface ParallelProcessorOptions extends Omit<ParallelMapOptions, "signal" | "onProgress"> {
	/** Items in a batch of {@link ParallelProcessor.batchMap}. Default 32. */
	batchSize?: number | undefined;
}
/** What a {@link ParallelProcessor} has done. */
export interface ParallelStats {
	/** Calls that have ended, and those that go on. */
	calls: number;
	activeCalls: number;
	/** Items that were answered with a result, and those that failed. */
	completed: number;
	failed: number;
	/** Wall time inside calls, in milliseconds; calls at the same time count each. */
	totalTimeMs: number;
	/** Items answered in a second of wall time inside calls; 0 before the first. */
	throughput: number;
	/** Worker threads and processes that there are, and chunks that wait for one. */
	workers: number;
	waiting: number;
}
/**
 * Maps with settings and workers of its own: what runs a module's function is kept for the next call. Idle workers end
 * after two seconds, and nothing keeps the process alive. `E` is the `onError` of its options, which says what its calls give.
 */
export declare class ParallelProcessor<E extends OnError = "throw"> implements AsyncDisposable {
	#private;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
	constructor(options?: ParallelProcessorOptions & {
		onError?: E | undefined;
	});
	/** As {@link parallelMap}. A call may ask for less concurrency than the processor has, not for more workers. */
	map<T, R = unknown>(items: Items<T>, work: Work<T, R>, options: ParallelMapOptions & Collecting): Promise<Settled<R>[]>;
	map<T, R = unknown>(items: Items<T>, work: Work<T, R>, options: ParallelMapOptions & {
		onError: "throw" | "skip";
	}): Promise<R[]>;
	map<T, R = unknown>(items: Items<T>, work: Work<T, R>, options?: ParallelMapOptions & {
		onError?: undefined;
	}): Promise<Results<R, E>>;
	map<T, R = unknown>(items: Items<T>, work: Work<T, R>, options?: ParallelMapOptions): Promise<Results<R>>;
	/** As {@link batchProcess}. */
	batchMap<T, R>(items: Items<T>, work: BatchFunction<T, R>, options: BatchMapOptions & Collecting): Promise<Settled<R>[]>;
	batchMap<T, R>(items: Items<T>, work: BatchFunction<T, R>, options: BatchMapOptions & {
		onError: "throw" | "skip";
	}): Promise<R[]>;
	batchMap<T, R>(items: Items<T>, work: BatchFunction<T, R>, options?: BatchMapOptions & {
		onError?: undefined;
	}): Promise<Results<R, E>>;
	batchMap<T, R>(items: Items<T>, work: BatchFunction<T, R>, options?: BatchMapOptions): Promise<Results<R>>;
	/** What it has done since it was made. */
	getStats(): ParallelStats;
	/** Ends what runs, with `CLOSED`, and all workers; later calls reject with `CLOSED`, too. Resolves when they are gone. */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** A file that was read, or why it was not. */
export type ReadResult<Content> = {
	path: string;
	content: Content;
	error?: undefined;
} | {
	path: string;
	content?: undefined;
	error: EmbeddingError;
};
/** A file to be written. Text is written as UTF-8. */
export interface FileToWrite {
	/** A path, or a file URL; `~/` is the home directory. */
	path: string | URL;
	content: string | Uint8Array;
}
/** A file that was written, or why it was not. */
export interface WriteResult {
	path: string;
	error?: EmbeddingError;
}
/** Options of {@link BatchFileProcessor}. */
export interface BatchFileProcessorOptions {
	/** Threads that read and write, from 1. Default: twice as many as there are cores for this process, at least 4: what some have read is handed out while others read on. */
	concurrency?: number | undefined;
	/** Files that a thread takes at once, from 1. Default 64. */
	batchSize?: number | undefined;
	/** Largest file that is read, in MB, above 0; others are refused with `INPUT_TOO_LONG`. Default 64. */
	maxFileMB?: number | undefined;
	/**
	 * A directory that all paths are relative to and have to lie in: those that lead out of it, by `..` or by a link, are
	 * refused with `INVALID_ARGUMENT`. Default: relative to the working directory, and anywhere.
	 */
	root?: string | URL | undefined;
	/** Who is told of each call, as the operations `files.read` and `files.write`. Default: the global monitor. `false`: nobody. */
	monitor?: PerformanceMonitor | false | undefined;
}
/** Options of {@link BatchFileProcessor.readBatch}. */
export interface ReadBatchOptions {
	/** `'utf8'` (default) gives text, in which bytes that are no UTF-8 are replaced; `'latin1'` text of single bytes; `'buffer'` the bytes. */
	encoding?: "utf8" | "latin1" | "buffer" | undefined;
	/** Ends the call, with `ABORTED`. */
	signal?: AbortSignal | undefined;
}
/** Options of {@link BatchFileProcessor.writeBatch}. */
export interface WriteBatchOptions {
	/**
	 * Whether each file is written under a temporary name beside it and then put in its place, so that nobody reads a part of
	 * it, whatever happens. Default `true`.
	 */
	atomic?: boolean | undefined;
	/** Whether files survive a loss of power from then on. Slow. Default `false`. */
	fsync?: boolean | undefined;
	/** Whether directories that are missing are made. Default `true`. */
	createDirectories?: boolean | undefined;
	/** Ends the call, with `ABORTED`. What was written stays. */
	signal?: AbortSignal | undefined;
}
/**
 * Reads and writes many files on threads of its own, a batch in one crossing. A file that cannot be had has an error, and the
 * others are read or written all the same. Calls take effect in the order in which they are made: what is read has been
 * written by all calls before.
 */
export declare class BatchFileProcessor {
	#private;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
	constructor(options?: BatchFileProcessorOptions);
	/**
	 * Reads files; for each path, in order, its content or its error. A path that is given twice is read twice; one of a file URL
	 * is told as a path.
	 */
	readBatch(paths: Iterable<string | URL>, options: ReadBatchOptions & {
		encoding: "buffer";
	}): Promise<ReadResult<Buffer>[]>;
	readBatch(paths: Iterable<string | URL>, options?: ReadBatchOptions & {
		encoding?: "utf8" | "latin1" | undefined;
	}): Promise<ReadResult<string>[]>;
	readBatch(paths: Iterable<string | URL>, options?: ReadBatchOptions): Promise<ReadResult<Buffer | string>[]>;
	/** Writes files; for each, in order, whether it could be written. Of several for one path, the last one counts. */
	writeBatch(files: Iterable<FileToWrite>, options?: WriteBatchOptions): Promise<WriteResult[]>;
	/** Waits until all that was begun is read and written. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** Of the values of one score. Percentiles are within 1 % of the value, the others as exact as doubles are. */
export interface ScoreStats {
	count: number;
	mean: number;
	/** Of these values, with the divisor n; 0 for one value. */
	std: number;
	min: number;
	max: number;
	p50: number;
	p95: number;
}
/** Numbers by name: what a sample scores. */
export type Scores = Readonly<Record<string, number>>;
/** What an evaluation is told beside the sample. */
export interface EvaluationContext {
	id: string;
	index: number;
	/** Aborted when the result no longer counts. */
	signal: AbortSignal;
}
/** What came of a sample: scores, or an error. */
export interface EvaluationResult {
	id: string;
	/** Its place among the samples of the call. */
	index: number;
	scores?: Scores;
	/** As it was thrown. In `results.jsonl`, its name, message and code. */
	error?: unknown;
	durationMs: number;
	/** When it was done, in milliseconds since 1970. */
	at: number;
}
/** Options of {@link RealtimeEvaluator}. */
export interface RealtimeEvaluatorOptions<Sample> {
	/** Scores a sample: finite numbers by name. What it throws becomes the `error` of its result. */
	evaluate: (sample: Sample, context: EvaluationContext) => Scores | PromiseLike<Scores>;
	/**
	 * A folder, made if it is not there: results are appended to its `results.jsonl` as they come, and `summary.json` is
	 * written at the end of each call. Default: no files.
	 */
	outputDirectory?: string | URL | undefined;
	/** Who is told of each sample, as the operation `evaluate`. Default: the global monitor. `false`: nobody. */
	monitor?: PerformanceMonitor | false | undefined;
	/** Samples at a time, from 1. Default 1. */
	concurrency?: number | undefined;
	/** The latest results that {@link RealtimeEvaluator.getMetricsHistory} knows, from 0. Default 10000. */
	keepResults?: number | undefined;
	/** Longest time for a sample, in milliseconds, above 0; then its error is `TIMED_OUT`. Default: no limit. */
	timeoutMs?: number | undefined;
}
/** Options of {@link RealtimeEvaluator.evaluateStream} and {@link RealtimeEvaluator.evaluateBatch}. */
export interface EvaluateOptions<Sample> {
	/** The id of a sample, any text. Default: its index. */
	sampleId?: ((sample: Sample, index: number) => string) | undefined;
	/** Leaves out samples whose ids are in `results.jsonl` already; what is there counts in the statistics. Default `false`. */
	resume?: boolean | undefined;
	/** Ends the call, with `ABORTED`. What was evaluated stays. */
	signal?: AbortSignal | undefined;
}
/** What an evaluator knows of all samples since it was made or {@link RealtimeEvaluator.reset}. */
export interface AggregateStats {
	/** By the name of the score. */
	scores: Record<string, ScoreStats>;
	totalSamples: number;
	failedSamples: number;
	/** Wall time inside calls, in milliseconds. */
	totalTimeMs: number;
	/** Samples a second of that time; 0 before the first. */
	throughput: number;
}
/** A value of one score. */
export interface ScoreRecord {
	id: string;
	index: number;
	at: number;
	value: number;
}
/**
 * Evaluates samples as they come, keeps running statistics of every score in constant memory, and, if it is told to, a file
 * with all results that a later run goes on with.
 */
export declare class RealtimeEvaluator<Sample = unknown> implements AsyncDisposable {
	#private;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
	constructor(options: RealtimeEvaluatorOptions<Sample>);
	/**
	 * Evaluates samples of an iterable or an async iterable, and gives a result for each, in their order, as they come. Reads
	 * little ahead of what is taken; leaving the loop ends it. A result that is given is in `results.jsonl`.
	 *
	 * @throws What the source or `sampleId` throws; `EmbeddingError` `ABORTED`; `CACHE_STORAGE_FAILED` where a file cannot be
	 * read or written; `CLOSED`.
	 */
	evaluateStream(samples: Items<Sample>, options?: EvaluateOptions<Sample>): AsyncGenerator<EvaluationResult, void, undefined>;
	/** The same, with all results at once. */
	evaluateBatch(samples: Items<Sample>, options?: EvaluateOptions<Sample>): Promise<EvaluationResult[]>;
	/** The statistics of all samples so far. May be asked for at any time. */
	getAggregateStats(): AggregateStats;
	/** The latest results, oldest first; or the latest values of one score. */
	getMetricsHistory(): EvaluationResult[];
	getMetricsHistory(name: string): ScoreRecord[];
	/**
	 * Writes the statistics as they are now, as JSON, whole or not at all, and gives the path. Default: `summary.json` in
	 * `outputDirectory`. Of several calls the last one counts.
	 * @throws `EmbeddingError` `CACHE_STORAGE_FAILED`; `INVALID_ARGUMENT` where there is no path.
	 */
	saveSummary(path?: string | URL): Promise<string>;
	/** Forgets statistics and history; files stay. */
	reset(): void;
	/**
	 * Takes no more calls: they have `CLOSED`. Resolves when those before are done and their results and the summary are in the
	 * files; a stream whose reader pauses is not waited for, and writes the rest when it ends. Its panel leaves the dashboards.
	 * @throws `EmbeddingError` `CACHE_STORAGE_FAILED`.
	 */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/**
 * Looks at something and answers what it found, or throws. A function on this thread gets an `AbortSignal` behind the
 * arguments, which is aborted when its time is over; one of a module runs on a worker thread, which is ended then.
 */
export type Validator = ((...args: any[]) => unknown) | ModuleFunction;
/** Validators in order, named as their functions are; or by names of yours. */
export type Validators = readonly Validator[] | Readonly<Record<string, Validator>>;
/** What came of a validator. */
export interface ValidationResult {
	/** The name that it was given, else that of its function, else `validator 0` and so on. */
	name: string;
	/** Whether it answered. What it answered is for the caller to judge: `value: false` is an answer. */
	success: boolean;
	value?: unknown;
	/** What it threw, or `TIMED_OUT`. */
	error?: unknown;
	/** From its start to its answer, in milliseconds. */
	durationMs: number;
	timedOut: boolean;
}
/** Options of {@link ParallelValidator}. */
export interface ParallelValidatorOptions {
	/** Most validators at a time, from 1, and most worker threads. Default 4. */
	maxWorkers?: number | undefined;
	/** Longest time for each, in milliseconds, above 0. Default 30000. */
	timeoutMs?: number | undefined;
	/** Ends all runs, with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/** Who is told of each, as the operation `validate.` and its name. Default: the global monitor. `false`: nobody. */
	monitor?: PerformanceMonitor | false | undefined;
}
/**
 * Runs validators next to each other. Each is answered, in their order, whatever the others do: one that throws or hangs
 * has an error, and holds nobody up longer than its time.
 */
export declare class ParallelValidator implements AsyncDisposable {
	#private;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
	constructor(options?: ParallelValidatorOptions);
	/** Runs all of them on the same arguments. */
	run(validators: Validators, ...args: unknown[]): Promise<ValidationResult[]>;
	/** The same one after the other, for functions that do not wait: one that answers a promise has an error. */
	runSync(validators: Validators, ...args: unknown[]): ValidationResult[];
	/** Ends its worker threads. They end by themselves two seconds after the last run, too. */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}

export {};
