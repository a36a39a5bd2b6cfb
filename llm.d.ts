// Generated from lib/ by `npm run types`; do not edit.

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
	 * longer than a second. Also the longest `Retry-After` that is waited for. Default 180000.
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
	 * Waits for what runs, then closes all connections; a stream that nobody reads gets `readTimeoutMs`. New requests are
	 * refused with `CLOSED`. May be called any number of times.
	 */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}

export {};
