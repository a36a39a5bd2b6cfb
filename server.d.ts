// Generated from lib/ by `npm run types`; do not edit.

import { CrossEncoder, EmbeddingError, EmbeddingErrorCode, GeneratorOptions, InitializeOptions, MultiVectorEncoder, OptimizedEmbeddingGenerator, PerformanceMonitor, SparseEncoder } from './index.js';

/** Options of {@link EmbeddingServer} and {@link serve}. */
export interface EmbeddingServerOptions {
	/**
	 * Options of a generator, or one that you have, and that you clean up. Default: the built-in model. A {@link CrossEncoder},
	 * {@link SparseEncoder} or {@link MultiVectorEncoder} is served, too; where options name a model for one of those, that class is made
	 * of them.
	 */
	generator?: GeneratorOptions | OptimizedEmbeddingGenerator | CrossEncoder | SparseEncoder | MultiVectorEncoder | undefined;
	/** What clients call the model. Default: its id; of a path, the last part; of one on a server, what that calls it. */
	modelId?: string | undefined;
	/** Other names of it, such as `'text-embedding-3-small'` for clients that cannot be told another one. */
	aliases?: string[] | undefined;
	/** 0: any that is free. Default 8080. */
	port?: number | undefined;
	/** Who may ask: `'127.0.0.1'` (default), this machine only; `'0.0.0.0'`, everybody who reaches it. */
	host?: string | undefined;
	/**
	 * Names, such as `'box.example'`, by which it may be asked for (the header `Host`, without the port) beside 127.0.0.1 and
	 * localhost; `'*'`: any. Others are refused (403). Default: none where `host` is an address of this machine only, so that
	 * no web page can reach the server through the browser of who visits it; else any.
	 */
	allowedHosts?: string[] | undefined;
	/**
	 * What clients have to send as `Authorization: Bearer …`, or several of them: printable ASCII, no blank at either end.
	 * Default: nothing. `/health` is open to all.
	 */
	apiKey?: string | string[] | undefined;
	/** Most texts of one request. Default 2048, as OpenAI's. */
	maxBatchItems?: number | undefined;
	/** Most megabytes of one body. Default 8. */
	maxBodyMB?: number | undefined;
	/** Most requests that have arrived and are not yet answered; more are asked to come back (429). Default 512. */
	maxQueuedRequests?: number | undefined;
	/** Most megabytes of all bodies and vectors together; the same. A request that is alone is always taken. Default 256. */
	maxQueuedMB?: number | undefined;
	/** Most connections at a time; more are closed at once. Default 4096. */
	maxConnections?: number | undefined;
	/**
	 * Longest time, in milliseconds, that a body may take to arrive (408), and headers, for which it is never more than a
	 * minute; and that a client may take nothing of its answer before it is let go. Default 30000.
	 */
	bodyTimeoutMs?: number | undefined;
	/** Longest time, in milliseconds, that the texts of a request may take to be embedded (504). Default 120000. */
	timeoutMs?: number | undefined;
	/** Longest time, in milliseconds, that {@link EmbeddingServer.close} takes. Default 8000. */
	drainTimeoutMs?: number | undefined;
	/** Where requests are counted and timed, for `/metrics`. Default: one of its own. */
	monitor?: PerformanceMonitor | undefined;
}
/** Options of {@link EmbeddingServer.listen}. */
export interface ListenOptions {
	/** Told of files that are fetched from the hub. */
	progressCallback?: InitializeOptions["progressCallback"] | undefined;
}
/** Options of {@link EmbeddingServer.close}. */
export interface CloseOptions {
	/** Longest time, in milliseconds, that it waits for what runs: 0 to 3600000. Default: `drainTimeoutMs`. */
	timeoutMs?: number | undefined;
}
/**
 * Serves a model to clients of OpenAI's embeddings: `POST /v1/embeddings`, `GET /v1/models`; and `/health`, `/info` and
 * `/metrics` for those who run it. `/openapi.json` says all of it to programs. Models of other kinds have `POST /rerank` (as
 * text-embeddings-inference, Cohere and Jina have it; also at `/v1/rerank` and `/v2/rerank`), `/embed_sparse` or `/embed_all` instead.
 */
export declare class EmbeddingServer implements AsyncDisposable {
	#private;
	/** What its requests took. */
	readonly monitor: PerformanceMonitor;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
	constructor(options?: EmbeddingServerOptions);
	/**
	 * Opens the port, then loads the model; ready when it resolves. Until then, clients are asked to come back.
	 * @throws `EmbeddingError` `INVALID_CONFIG` when the port cannot be had, or as `initialize` of the generator.
	 */
	listen(options?: ListenOptions): Promise<this>;
	/** Where it is, such as `http://127.0.0.1:8080`; clients want `/v1` after it. */
	get url(): string;
	get port(): number;
	/** Names of the model, its id first. */
	get models(): string[];
	/**
	 * Finishes what runs and refuses what is new (503), then closes the port and frees the model, unless the generator is
	 * yours. Takes no longer than `timeoutMs` (default: `drainTimeoutMs`), give or take a quarter of a second: what still
	 * runs or arrives shortly before its end is stopped and refused (503), and a generator or a file that is not free then
	 * is not waited for.
	 */
	close(options?: CloseOptions): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** Starts a server, and gives it when it is ready: `await serve({ port: 8080 })`. See {@link EmbeddingServer}. */
export declare function serve(options?: EmbeddingServerOptions): Promise<EmbeddingServer>;

export {};
