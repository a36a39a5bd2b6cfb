// Generated from lib/ by `npm run types`; do not edit.

import { BatchOptimizerOptions, CacheOptions, CallProfile, EmbeddingError, EmbeddingErrorCode, GeneratorOptions, InferenceCache, InferenceCacheOptions, InferenceWrapOptions, MemoryProcessorOptions, PerformanceMonitor, ProfiledOptions, profiled } from './index.js';

/** Whether something is asked: always, not at all, or once to see whether it is well again. */
export type BreakerState = "closed" | "open" | "half-open";
/** What a provider answers: a text, or an object of JSON that has it as `response` or `text`. */
export type LlmAnswer = string | object;
/** What a provider is told beside the prompt: what {@link LlmRouter.generate} was given that is not the router's own. */
export interface LlmProviderOptions {
	[option: string]: unknown;
	/** What the call is for, if it said so. */
	method?: string;
	/** Aborted when nobody waits any more. */
	signal: AbortSignal;
}
/** Something that generates. */
export interface LlmProvider {
	name: string;
	generate(prompt: string, options: LlmProviderOptions): LlmAnswer | Promise<LlmAnswer>;
	/** Methods that it can do. Default: all; so it is with a function, by which a provider tells others what else it can. */
	capabilities?: readonly string[] | (() => unknown) | undefined;
	/** Longest time for an answer, in milliseconds: then the next one is asked. Default: no limit but the call's. */
	timeoutMs?: number | undefined;
}
/** Options of {@link LlmRouter}. */
export interface LlmRouterOptions {
	/** At least one; their names differ. */
	providers: readonly LlmProvider[];
	/** Names, in the order in which they are tried; those it leaves out come after. Default: as they are given. */
	fallbackOrder?: readonly string[] | undefined;
	/** A cache to share, or options of one of its own. Default: one of its own, in memory. */
	cache?: InferenceCache | InferenceCacheOptions | undefined;
	/** Default `true`. */
	enableCaching?: boolean | undefined;
	/** Failures in a row after which a provider is not asked for a while. Default 5. */
	failureThreshold?: number | undefined;
	/** That while, in milliseconds: after it, one call shows whether the provider is well again. Default 30000. */
	cooldownMs?: number | undefined;
}
/** Options of {@link LlmRouter.generate}. All others go to the provider, and tell results apart: they must be JSON. */
export interface LlmGenerateOptions {
	[option: string]: unknown;
	/**
	 * What the call is for. Only providers that have it among their `capabilities`, or have none, are asked; the one of this
	 * name comes first.
	 */
	method?: string | undefined;
	/** Default: the router's `enableCaching`. */
	useCache?: boolean | undefined;
	/** The type of the result in the cache. Default `'text_inference'`. */
	cacheType?: string | undefined;
	/** How long the result is an answer, in seconds. Default: its type's. */
	ttlSeconds?: number | undefined;
	/** Ends the call at once, with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/**
	 * Longest time for all of it, in milliseconds. When it is over, the provider that is being asked has failed once more, as
	 * `failureThreshold` counts it. Default: no limit but the providers'.
	 */
	timeoutMs?: number | undefined;
}
/** What came of {@link LlmRouter.generate}. */
export interface LlmResult {
	/** The text. */
	response: string;
	/** What the provider has answered, all of it. */
	answer: LlmAnswer;
	/** Who has answered it. */
	provider: string;
	/** Whether no provider was asked for it. */
	fromCache: boolean;
}
/** How a provider does. */
export interface LlmProviderStatistics {
	/** How often it was asked, and how often it failed. */
	calls: number;
	errors: number;
	/** Failures in a row until now. */
	consecutiveErrors: number;
	/** `'open'`: it is not asked. */
	state: BreakerState;
	/** Of what it has answered, failures included, in milliseconds; 0 before the first call. */
	latency: {
		mean: number;
		p50: number;
		p95: number;
		p99: number;
	};
}
/** How a router does. */
export interface LlmRouterStatistics {
	/** Calls of {@link LlmRouter.generate} that were answered. */
	calls: number;
	/** Those of them that no provider was asked for. */
	hits: number;
	/** The share of them, 0–1; 0 before the first call. */
	apiCallReduction: number;
	/** Calls that no provider could answer, or that were ended before. */
	failures: number;
	providers: Record<string, LlmProviderStatistics>;
}
/**
 * Asks one of several language models, the next one where one fails, and none where the answer is known. A provider that
 * fails five times in a row, by errors or by taking too long, is left alone for 30 seconds. What many ask at the same time is
 * asked once, unless `useCache` is `false`.
 */
export declare class LlmRouter implements AsyncDisposable {
	#private;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
	constructor(options: LlmRouterOptions);
	/**
	 * Has the first provider that can answer a prompt.
	 * @throws `EmbeddingError` `BACKEND_UNAVAILABLE` where all have failed, or are left alone at the moment: what each
	 * has said is in the message and in `details.providers`. `ABORTED`, `TIMED_OUT`, `CLOSED`; `INVALID_ARGUMENT` for a method
	 * that none has.
	 */
	generate(prompt: string, options?: LlmGenerateOptions): Promise<LlmResult>;
	/** How it does. Every number is measured. */
	getStatistics(): LlmRouterStatistics;
	/** Closes a cache of its own. What providers need is theirs to close. */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** What a request can carry. Anything else that JSON can hold is sent as JSON. */
export type RequestBody = string | Uint8Array | ArrayBuffer | URLSearchParams | Blob | FormData | ReadableStream<Uint8Array> | AsyncIterable<Uint8Array | string> | object | number | boolean | null;
/** TLS settings, as `tls.connect` takes them. */
export type TlsSettings = Record<string, unknown>;
/** How a host does. Times in milliseconds, from a try's beginning, waiting not counted, to the end of its answer; 0 before the first. */
export interface HostStats {
	/** Requests that are under way. */
	inFlight: number;
	/** Requests that wait for a place. */
	waiting: number;
	/** Tries that were made. */
	requests: number;
	/** Those of them that were not the first for their request. */
	retries: number;
	/** Tries without an answer: what the server answered, whatever it was, is none of them. */
	failures: number;
	p50: number;
	p95: number;
	p99: number;
}
/** `fetch`, as the standard has it. */
export type Fetch = (input: string | URL | Request, init?: RequestInit) => Promise<Response>;
/** Options of {@link HttpClient}. */
export interface HttpClientOptions {
	/** Most requests at a time, from 1. Default 16. */
	maxConcurrentRequests?: number | undefined;
	/** Most requests at a time to one host (scheme, name and port), and most connections to it, from 1. Default 6. */
	perHostLimit?: number | undefined;
	/** Longest time to make a connection, in milliseconds, from 1. Default 10000. */
	connectTimeoutMs?: number | undefined;
	/**
	 * Longest silence of a server, before its answer and within it, in milliseconds, from 1: half a second more where it is
	 * longer than a second. Also the longest `Retry-After` that is waited for, and how long a stream that nobody reads keeps its
	 * place where other requests wait for it. An answer that is taken whole may take ten times as long from its head to its end.
	 * Default 180000.
	 */
	readTimeoutMs?: number | undefined;
	/** Tries in all, 1–100. Default 3. */
	retryAttempts?: number | undefined;
	/**
	 * Milliseconds before the second try, the third one, and so on; the last one counts for all that follow. A server's
	 * `Retry-After` (seconds, or a date) takes its place. Default [100, 300, 900].
	 */
	retryBackoffMs?: readonly number[] | undefined;
	/**
	 * Statuses that are tried again, or a function that tells them. Default 408, 425, 429 and from 500. Connections that fail
	 * before an answer began are always tried again.
	 */
	retryOn?: readonly number[] | ((status: number) => boolean) | undefined;
	/** Largest answer that is taken whole, in MB of what it is decompressed: up to 512. Streams have no limit. Default 256. */
	maxResponseMB?: number | undefined;
	/** The proxy, such as `'http://user:password@proxy:3128'`, or `false`. Default: as `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` say; this machine is never behind one of those. */
	proxy?: string | URL | false | undefined;
	/** What `tls.connect` takes: `{ ca }`, for an authority of your own; `{ cert, key }`. */
	tls?: TlsSettings | undefined;
}
/** How an answer is given: `'auto'`: what it says that it is, JSON parsed, anything else as bytes. */
export type ResponseKind = "auto" | "json" | "text" | "bytes" | "stream";
/** Options of a request. */
export interface RequestOptions {
	/** Default `'GET'`, with a body `'POST'`. */
	method?: string | undefined;
	/** Any that HTTP knows: an object, `Headers`, or pairs. */
	headers?: Record<string, string> | Headers | [
		string,
		string
	][] | undefined;
	/** Text, bytes, a form, or a stream; anything else is sent as JSON. Streams are sent as they come. */
	body?: RequestBody | undefined;
	/** Default `'auto'`. `'stream'`: an async iterable of bytes, as they come, which has to be read or left. */
	as?: ResponseKind | undefined;
	/** Ends the request at once, wherever it waits, with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/** Longest time for all of it, waiting and further tries included, in milliseconds; of a stream, until it begins. Default: no limit. */
	timeoutMs?: number | undefined;
	/** Tries of this request, 1–100, if fewer than the client's. */
	retryAttempts?: number | undefined;
}
/**
 * Requests over a pool of connections: so many at a time, in all and to each host, tried again where that may help.
 *
 * What is answered with 200–299 is given, parsed where it is JSON; anything else is an error with the server's own words.
 * Retried are connections that fail before the answer has begun, and the statuses of `retryOn`; never a request whose body
 * was a stream that has been read, nor one whose answer has begun and that may not be made twice (`POST`, `PATCH`).
 * Redirects are followed, and carry no keys to another origin. Keys are in no message.
 *
 * Needs `undici`, an optional peer: 7 or later.
 */
export declare class HttpClient implements AsyncDisposable {
	#private;
	/**
	 * `fetch` as browsers and Node.js have it, with the limits, retries and proxies of this client: to be handed to other
	 * clients (`openai`, `ollama`, `@langchain/…`). Answers of any status are given; an abort rejects with the signal's
	 * reason, as the standard has it; any other failure with an `EmbeddingError`.
	 */
	readonly fetch: Fetch;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option; `BACKEND_UNAVAILABLE` where undici is not installed. */
	constructor(options?: HttpClientOptions);
	/** `GET`s a URL. @throws `EmbeddingError` see {@link HttpClient}; `INVALID_ARGUMENT` for what cannot be asked. */
	get<T = any>(url: string | URL, options?: Omit<RequestOptions, "method" | "body">): Promise<T>;
	/** `POST`s a body: an object is sent as JSON. */
	post<T = any>(url: string | URL, body?: RequestBody, options?: Omit<RequestOptions, "method" | "body">): Promise<T>;
	/** Any request. */
	request<T = any>(url: string | URL, options?: RequestOptions): Promise<T>;
	/** How each host does, by its origin (`http://localhost:11434`). Of hosts that nothing is under way to, the latest 1000 are remembered. */
	getStats(): Record<string, HostStats>;
	/**
	 * Waits for what runs, then closes all connections; a stream that nobody reads gets `readTimeoutMs`, and everything ten
	 * times as much. New requests are refused with `CLOSED`. May be called any number of times.
	 */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** Options of {@link cachedCall}. */
export interface CachedCallOptions extends InferenceWrapOptions {
	/** The type of the results: by it, their time to live is set. Default `'api'`. */
	type?: string | undefined;
	/** Where they are kept. Default: a cache of the process, in memory. */
	cache?: InferenceCache | undefined;
}
/**
 * A function that remembers what it has answered: by its name, and by its arguments, which must be JSON or bytes. What many
 * ask at the same time is asked once; failures are not kept. Functions of one name share their results: give `name` where
 * two are called the same, or where one has none.
 *
 * `const summary = cachedCall(summarize, { type: 'text_inference', ttlSeconds: 3600 });`
 */
export declare function cachedCall<A extends unknown[], R>(fn: (...args: A) => R | Promise<R>, options?: CachedCallOptions): (...args: A) => Promise<R>;
/** An image: its bytes, or these as base64. */
export type OllamaImage = Uint8Array | string;
/** What is generated from. */
export interface OllamaPrompt {
	prompt: string;
	/** Instructions that go before it. Default: the model's own. */
	system?: string | undefined;
	/** For a model that sees. */
	images?: readonly OllamaImage[] | undefined;
	/** `'json'`, or the JSON schema that the answer has to follow. */
	format?: "json" | object | undefined;
}
/** A message of a chat. */
export interface OllamaMessage {
	role: string;
	content: string;
	images?: readonly OllamaImage[] | undefined;
	/** What a model wants to have called. */
	tool_calls?: readonly object[] | undefined;
	/** Which tool has said it. */
	tool_name?: string | undefined;
	/** What the model thought. */
	thinking?: string | undefined;
}
/** How something is generated. What is left out is as the model's own file says. */
export interface OllamaSettings {
	/** Default: the client's. */
	model?: string | undefined;
	/** From 0, which is a value like others. */
	temperature?: number | undefined;
	/** Most tokens of the answer (`num_predict`); -1: no limit. */
	maxTokens?: number | undefined;
	/** Tokens that the model sees (`num_ctx`). */
	numCtx?: number | undefined;
	/** Threads of the server (`num_thread`): tells no result from another. */
	numThread?: number | undefined;
	/** How long the model stays loaded afterwards: `'30m'` (default), seconds as a number, -1 for ever. */
	keepAlive?: string | number | undefined;
	seed?: number | undefined;
	topP?: number | undefined;
	topK?: number | undefined;
	/** Texts at which the answer ends. */
	stop?: readonly string[] | undefined;
	/** Whether the model thinks first, or how much. */
	think?: boolean | string | undefined;
	/** Default: the client's. */
	useCache?: boolean | undefined;
	/** The type of the result in the cache: by it, its time to live is set. Default `'text_inference'`, with images `'vision_inference'`. */
	cacheType?: "text_inference" | "vision_inference" | (string & {}) | undefined;
	/** How long the result is an answer, in seconds. Default: its type's. */
	ttlSeconds?: number | undefined;
	/** Longest time for all of it, in milliseconds. Default: no limit but the network's. */
	timeoutMs?: number | undefined;
}
/** Options of a call. */
export interface OllamaCallOptions extends OllamaSettings {
	/** Ends the call at once, with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/** `true`: pieces as they come, as an async iterable. Default `false`. */
	stream?: boolean | undefined;
}
/** Options of a call of {@link OllamaClient.chat}. */
export interface OllamaChatOptions extends OllamaCallOptions {
	/** `'json'`, or the JSON schema that the answer has to follow. */
	format?: "json" | object | undefined;
	/** What the model may want to have called, as the interface describes it. */
	tools?: readonly object[] | undefined;
}
/** What a model has answered. */
export interface OllamaResult {
	/** The text. */
	response: string;
	/** The same as a message, with what else it has: calls of tools, thoughts. */
	message: OllamaMessage;
	model: string;
	/** Why it ended: `'stop'`, or `'length'` where `maxTokens` was reached. This and the numbers are absent where the server does not tell. */
	doneReason?: string | undefined;
	/** Tokens of the answer. */
	evalCount?: number | undefined;
	/** Tokens of the prompt. */
	promptEvalCount?: number | undefined;
	/** Of the answer, by the server's own time. */
	tokensPerSecond?: number | undefined;
	/** The server's time for all of it, and to load the model, in milliseconds. */
	totalDurationMs?: number | undefined;
	loadDurationMs?: number | undefined;
	/** Whether no server was asked for it: then the numbers are those of the answer that was kept. */
	fromCache: boolean;
}
/** A piece of an answer. The last one is `done`, and has the numbers. */
export interface OllamaChunk extends Partial<Omit<OllamaResult, "response" | "message" | "fromCache">> {
	/** The text that is new; of a result from the cache, all of it. */
	response: string;
	/** The same as a message. */
	message: OllamaMessage;
	done: boolean;
	fromCache: boolean;
}
/** Options of {@link OllamaClient}. */
export interface OllamaClientOptions {
	/** Where Ollama listens. Default `'http://localhost:11434'`. */
	baseUrl?: string | URL | undefined;
	/** The model of calls that name none. */
	model?: string | undefined;
	/** Whether results are kept, and looked up. Default `true`. */
	useCache?: boolean | undefined;
	/** Where they are kept: a cache to share, or options of one of its own. Default: one of its own, in memory. */
	cache?: InferenceCache | InferenceCacheOptions | undefined;
	/** What requests go over: a client to share, or options of one of its own. */
	http?: HttpClient | HttpClientOptions | undefined;
	/** Options of calls that do not say otherwise. */
	defaults?: OllamaSettings | undefined;
	/** Sent with each request: a key, for a server behind one (`{ authorization: 'Bearer …' }`). In no message, and no key of the cache. */
	headers?: Record<string, string> | undefined;
	/** Who is told of the time of every call (`ollama.generate`, `.chat`, `.embed`, `.list`). Default: the global one; `false`: nobody. */
	monitor?: PerformanceMonitor | false | undefined;
}
/** Options of {@link OllamaClient.embed}. */
export interface OllamaEmbedOptions {
	/** Default: the client's. */
	model?: string | undefined;
	/** Default `'30m'`. */
	keepAlive?: string | number | undefined;
	/** Default: the client's. */
	useCache?: boolean | undefined;
	/** Ends the call at once, with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/** Longest time for all of it, in milliseconds. Default: no limit but the network's. */
	timeoutMs?: number | undefined;
}
/** Options of {@link OllamaClient.list}. */
export interface OllamaListOptions {
	/** Ends the call at once, with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/** Longest time for all of it, in milliseconds. Default: no limit but the network's. */
	timeoutMs?: number | undefined;
}
/** A model that the server has. */
export interface OllamaModel {
	name: string;
	/** Bytes. */
	size: number;
	/** Of its content. */
	digest: string;
	/** As the server writes it. */
	modifiedAt: string;
	/** Family, parameters, quantisation: as the server names them. */
	details: Record<string, unknown>;
}
/**
 * A client of Ollama that remembers: what was asked before, of whatever process that shares the cache, is answered without
 * a server; and what is asked by many at the same time, once: a prompt, a chat, or a text to embed. A stream is a request of its
 * own, and so is what is asked without the cache. An abort ends the request when nobody else waits for it. Failures are not kept.
 *
 * Needs `undici`, an optional peer: 7 or later.
 */
export declare class OllamaClient implements AsyncDisposable {
	#private;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option; `BACKEND_UNAVAILABLE` where undici is not installed. */
	constructor(options?: OllamaClientOptions);
	/**
	 * Has a model go on from a prompt. `stream: true`: the pieces as they come; the request begins with the first one, and
	 * the result is kept when the stream has ended well. Leaving it ends the request.
	 * @throws `EmbeddingError` `BACKEND_REJECTED` with the server's words, for a model that does not exist, say;
	 * `BACKEND_UNAVAILABLE`, `RATE_LIMITED`, `TIMED_OUT`, `ABORTED`, `CLOSED`; `INVALID_ARGUMENT`, `INVALID_CONFIG`.
	 */
	generate(prompt: string | OllamaPrompt, options: OllamaCallOptions & {
		stream: true;
	}): AsyncGenerator<OllamaChunk, void, void>;
	generate(prompt: string | OllamaPrompt, options?: OllamaCallOptions & {
		stream?: false | undefined;
	}): Promise<OllamaResult>;
	generate(prompt: string | OllamaPrompt, options?: OllamaCallOptions): Promise<OllamaResult> | AsyncGenerator<OllamaChunk, void, void>;
	/** Has a model answer messages. Otherwise as {@link generate}. */
	chat(messages: readonly OllamaMessage[], options: OllamaChatOptions & {
		stream: true;
	}): AsyncGenerator<OllamaChunk, void, void>;
	chat(messages: readonly OllamaMessage[], options?: OllamaChatOptions & {
		stream?: false | undefined;
	}): Promise<OllamaResult>;
	chat(messages: readonly OllamaMessage[], options?: OllamaChatOptions): Promise<OllamaResult> | AsyncGenerator<OllamaChunk, void, void>;
	/** A vector for each text, in order: those that are known from the cache, the others from the server. */
	embed(texts: string | readonly string[], options?: OllamaEmbedOptions): Promise<number[][]>;
	/** The models that the server has. */
	list(options?: OllamaListOptions): Promise<OllamaModel[]>;
	/** Whether Ollama answers there: known within five seconds. Never throws. */
	isAvailable(): Promise<boolean>;
	/** Waits for what runs, and closes what is its own: not a cache or an {@link HttpClient} that it was given. */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** The same as {@link OllamaClient}. */
export declare const OptimizedOllamaClient: typeof OllamaClient;
/** The same as {@link OllamaClient}. */
export type OptimizedOllamaClient = OllamaClient;
/** Settings of `ParallelProcessor` of `embedcore/parallel` that a file can hold. */
export interface WorkerSettings {
	/** Most items at a time; `max_workers` in a file, too. */
	concurrency?: number | undefined;
	/** Items that are taken at once. */
	chunkSize?: number | undefined;
	/** What an item that fails does. */
	onError?: "throw" | "skip" | "collect" | undefined;
	/** Longest time of an item, in milliseconds. */
	timeoutMs?: number | undefined;
	/** Whether modules run in child processes. */
	processes?: boolean | undefined;
	/** Whether typed arrays are moved instead of copied. */
	transfer?: boolean | undefined;
	/** Items of a batch. */
	batchSize?: number | undefined;
}
/** What {@link loadPerformanceConfig} gives: each part goes into a constructor. Parts that the file leaves out are empty. */
export interface PerformanceConfig {
	/** How language models generate. Part of `ollama.defaults`, too. */
	inference: OllamaSettings;
	/** For `InferenceCache`. */
	caching: InferenceCacheOptions;
	/** For {@link HttpClient}. */
	networking: HttpClientOptions;
	/** For {@link OllamaClient}. */
	ollama: OllamaClientOptions;
	/** For `ParallelProcessor` of `embedcore/parallel`. */
	workers: WorkerSettings;
	/** For `IntelligentEmbeddingCache`. */
	cache: CacheOptions;
	/** For `DynamicBatchOptimizer`. */
	batchOptimizer: BatchOptimizerOptions;
	/** For `MemoryAwareProcessor`. */
	memoryProcessor: MemoryProcessorOptions;
	/** For `OptimizedEmbeddingGenerator`. */
	model: GeneratorOptions;
}
/**
 * Reads the settings of everything from one file: JSON, which may have comments, a comma after the last element, and names
 * in `snake_case` or `camelCase`; names that begin with `_` are remarks. `caching.ttl_<type>` is the time to live of a type
 * of results, in seconds. Paths in it are relative to the working directory.
 *
 * `path`: default the environment's `EMBEDCORE_CONFIG`; without either, all parts are empty.
 * @throws `EmbeddingError` `INVALID_CONFIG` naming the file and the setting, or the line that is no JSON.
 */
export declare function loadPerformanceConfig(path?: string | URL): PerformanceConfig;

export {
	CallProfile,
	ProfiledOptions,
	profiled,
};

export {};
