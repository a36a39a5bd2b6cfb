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
/** How the vectors of a text's tokens become one. */
export type Pooling = "mean" | "cls" | "last_token" | "max";
/** Options of {@link OptimizedEmbeddingGenerator}. What is left out is read from the model's own files. */
export interface GeneratorOptions {
	/**
	 * `'builtin'` (default): the small model for code search that comes with the package. Or a model directory in Hugging
	 * Face layout, or an `.onnx` file in one. May be given to `initialize` instead.
	 */
	modelPath?: string;
	/** How token vectors become one vector. Default: what `modules.json` or `1_Pooling/config.json` says. */
	pooling?: Pooling;
	/** Whether vectors are scaled to length 1. Default: what `modules.json` says. */
	normalize?: boolean;
	/** Keep the first so many values of each vector, for models trained for that (Matryoshka). Default: all. */
	dimensions?: number;
	/** Most tokens of a text that the model sees, special tokens included. Default: the model's own limit. */
	maxLength?: number;
	/** Text put before each document or query. Default: what `config_sentence_transformers.json` says, else none. */
	prompts?: {
		document?: string;
		query?: string;
	};
	/**
	 * Threads inside one run of the model. Default 1: as many runs go on at once as there are cores, which is faster than
	 * one run on all of them.
	 */
	intraOpThreads?: number;
}
/** Options of one call. */
export interface CallOptions {
	/** Stops the call, a running inference included; it rejects with `ABORTED`. */
	signal?: AbortSignal;
	/** Gives up after so many milliseconds; the call rejects with `TIMED_OUT`. Default: never. */
	timeoutMs?: number;
	/** Told how many inputs are answered, of how many. Never goes back, ends with all of them. */
	progressCallback?: (processed: number, total: number) => void;
	/**
	 * What an input that cannot be embedded does. `'throw'` (default): the call rejects. `'skip'`: all others are
	 * answered, and that one carries the error.
	 */
	onError?: "throw" | "skip";
	/** The role of the inputs, for models that embed the two differently. Default `'document'`. */
	inputType?: "document" | "query";
	/** Most inputs in one run of the model. By default, and above it, the planner decides. */
	batchSize?: number;
	/** Most runs at a time. Default: as many as there are cores. */
	maxConcurrency?: number;
}
/** Options of {@link OptimizedEmbeddingGenerator.batchProcess}. */
export interface BatchProcessOptions extends CallOptions {
	/** In MB. Accepted, so that existing calls need no change; it limits nothing yet. */
	memoryLimit?: number;
}
/** What became of one annotation. */
export interface EmbeddingResult {
	/** The annotation's own. */
	nodeId: string;
	/** The vector; empty where there is an `error`. */
	embedding: number[];
	/** What was embedded, after preparation. */
	inputText: string;
	/** Milliseconds that the model spent on it: its share of its batch. */
	processingTime: number;
	/** The model, as it was named. */
	modelUsed: string;
	/** 0–1: share of the text's tokens that the model saw and knew (not cut off, not unknown to its vocabulary). */
	confidence?: number;
	/** Whether the model did not see the whole text. */
	truncated?: boolean;
	/** Tokens of the whole text, special tokens included. */
	tokenCount?: number;
	/** Why there is no vector; only with `onError: 'skip'`. */
	error?: EmbeddingError;
}
/** Many vectors in one allocation. */
export interface EmbeddingMatrix {
	/** `rows × dimensions` values, row by row. */
	readonly data: Float32Array;
	readonly rows: number;
	readonly dimensions: number;
	/** The vector at `index`, a view into `data`. */
	row(index: number): Float32Array;
	/** Tokens of each whole text, special tokens included. */
	readonly tokenCounts: Uint32Array;
	/** 1 for each text that the model did not see whole. */
	readonly truncated: Uint8Array;
	/** The inputs without a vector (their rows are zero), by index; only with `onError: 'skip'`. */
	readonly errors: ReadonlyMap<number, EmbeddingError>;
}
/** What a loaded model is. */
export interface ModelInfo {
	/** The model as it was named. */
	modelId: string;
	/** Its ONNX file. */
	modelPath: string;
	/** Length of its vectors. */
	dimensions: number;
	/** Most tokens of a text that it sees, special tokens included. */
	maxLength: number;
	/** How token vectors become one; `null` where the graph does it. */
	pooling: Pooling | null;
	/** Whether vectors have length 1. */
	normalize: boolean;
	/** The output of the graph that is read. */
	output: string;
	/** Element type of that output. */
	dtype: "fp32" | "fp16";
	/**
	 * Whether a text's vector is independent of the batch that it runs in. It is not in graphs that quantise activations
	 * on the fly, so their texts are run one by one.
	 */
	batchInvariant: boolean;
	/** Threads inside one run. */
	intraOpThreads: number;
	/** How the ONNX Runtime in use describes itself. */
	runtime: string;
	/** Identifies the embedding space: vectors may be compared only if theirs are equal. Hexadecimal. */
	fingerprint: string;
}
/**
 * Embeds texts and code annotations with one model. All methods may be called at once, from anywhere in the process;
 * work runs on native threads and never blocks the event loop.
 */
export declare class OptimizedEmbeddingGenerator implements AsyncDisposable {
	#private;
	/**
	 * Loads nothing yet.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
	 */
	constructor(options?: GeneratorOptions);
	/**
	 * Loads the model. Does nothing when that model is loaded already; another one replaces it once it is ready.
	 * @throws {@link ModelInitializationError} naming the file and what is wrong with it. The generator stays usable.
	 */
	initialize(modelPath?: string): Promise<void>;
	/** Whether a model is loaded. */
	isReady(): boolean;
	/**
	 * What the loaded model is.
	 * @throws {@link EmbeddingError} `NOT_INITIALIZED` or `CLOSED`.
	 */
	getModelInfo(): ModelInfo;
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
	/** Embeds the words of a search. */
	embedQuery(text: string, options?: CallOptions): Promise<Float32Array>;
	/** Stops what is running (`CLOSED`), waits for it, frees the model. `initialize` makes the generator usable again. */
	cleanup(): Promise<void>;
	/** The same as {@link OptimizedEmbeddingGenerator.cleanup}. */
	shutdown(): Promise<void>;
	/** The same as {@link OptimizedEmbeddingGenerator.cleanup}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/**
 * The text that is embedded for an annotation: `Signature: … | Summary: … | Code: …`, comments stripped from the code,
 * white space folded, cut to 8 characters for each of `maxTokens` (default 512) and never inside a code point. Empty
 * parts are left out; an annotation without any gives `Node: <nodeId>`.
 */
export declare function prepareText(annotation: Annotation, maxTokens?: number): string;
/** Options of {@link CodeIndex}. */
export interface CodeIndexOptions {
	/** The index' file. Default: `.embedcore/index.sqlite` in the directory. */
	path?: string;
	/** The model that makes the vectors. Default: the built-in one. */
	generator?: GeneratorOptions;
}
/** Options of {@link CodeIndex.update}. */
export interface IndexOptions {
	/** Throw away an index that another model or version made, or a damaged one. Default `false`: refuse it. */
	rebuild?: boolean;
	/** Stops the run; it rejects with `ABORTED`. What is written by then stays, and the next run goes on from there. */
	signal?: AbortSignal;
	/** Told whenever files were written. */
	progressCallback?: (report: IndexReport) => void;
}
/** What a run of {@link CodeIndex.update} has done. */
export interface IndexReport {
	/** Source files in the tree. */
	files: number;
	/** Files that were new or changed, and have to be read. */
	changed: number;
	/** How many of those are done. */
	done: number;
	/** Files that are as they were. */
	unchanged: number;
	/** Files that are gone from the tree, and now from the index. */
	removed: number;
	/** Functions, methods, classes and types in the index. */
	annotations: number;
	/** How many of them were embedded now. */
	embedded: number;
	/** How many of changed files were as they were, so that their vectors could be kept. */
	reused: number;
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
/** An answer to a search. */
export interface CodeMatch {
	/** The source file, below the directory, with `/`. */
	file: string;
	/** First line, from 1. */
	line: number;
	endLine: number;
	kind: "function" | "method" | "class" | "type";
	/** Its name, after those of the declarations around it: `Stack.push`. */
	name: string;
	/** Its source up to its body. */
	signature: string;
	/** Its documentation comment; may be empty. */
	summary: string;
	/** What answers are ranked by: `similarity + 0.02 × BM25`. */
	score: number;
	/** Cosine of its vector and the query's, −1 to 1. */
	similarity: number;
}
/**
 * Semantic search in a directory of source code: TypeScript, JavaScript, Python, Rust, Go and Java. Functions, methods,
 * classes and types are found by what they do (vectors) and by their words (BM25).
 *
 * All methods may be called at once; another process may search while this one updates.
 */
export declare class CodeIndex implements AsyncDisposable {
	#private;
	/**
	 * Reads nothing yet.
	 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` or `INVALID_CONFIG`.
	 */
	constructor(directory: string, options?: CodeIndexOptions);
	/** The file name extensions that are read. */
	static get extensions(): readonly string[];
	/**
	 * Brings the index up to date: embeds what is new or changed, forgets what is gone. Respects `.gitignore`; leaves out
	 * hidden files, `node_modules`, links, and files above 1 MB.
	 * @throws {@link EmbeddingError} `INVALID_CONFIG` if another model or version made the index, `CACHE_STORAGE_FAILED`
	 * if it cannot be written or another process is writing it, `INVALID_ARGUMENT` if there is no such directory.
	 */
	update(options?: IndexOptions): Promise<IndexReport>;
	/**
	 * The declarations that answer `words` best, best first.
	 * @throws {@link EmbeddingError} `NOT_INITIALIZED` if there is no index yet, `INVALID_CONFIG` if another model or
	 * version made it, `INVALID_ARGUMENT` if the words are empty or `limit` is not a whole number from 1 to 1000.
	 */
	search(words: string, options?: {
		limit?: number;
	}): Promise<CodeMatch[]>;
	/** Lets go of the index' file, its copy in memory and the model. The next call opens them again. */
	close(): Promise<void>;
	/** The same as {@link CodeIndex.close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}

export {};
