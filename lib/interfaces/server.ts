import { randomUUID } from 'node:crypto';
import type { Server } from 'node:http';
import { isIP, type AddressInfo } from 'node:net';

import { show } from '../call/input';
import { optionReader, read, refused } from '../call/options';
import { GENERATOR } from '../generator/options';
import { EmbeddingError, PerformanceMonitor, type CrossEncoder, type GeneratorOptions, type InitializeOptions, type ModelInfo, type MultiVectorEncoder, type OptimizedEmbeddingGenerator, type SparseEncoder } from '../index';
import { answersTo, areHosts } from '../server/host-header';
import { bearer, Keys } from '../server/keys';
import { checkDimensions, sum } from './embedder';
import { httpServer, JSON_TYPE, requestId, targetOf, type Exchange } from './http';
import { piecesOf, readInputs, readRequest, readRerank, Refusal, respond } from './openai';
import { openApi } from './openapi';
import { cannotListen, checked, mustBeJson, noRoute, otherHost, refusalOf, shuttingDown } from './refusals';
import { isEncoder, nameOf, ServedModel, typeOf, type AnyEncoder, type Task } from './served-model';
import { rerankChunks, sparseChunks, tokenChunks } from './tei';

const { version } = require('../../package.json') as { version: string };

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

const MB = 1 << 20;

/** Numbers among the options, with their defaults and bounds. */
const NUMBERS = {
  port: [8080, 0, 65_535],
  maxBatchItems: [2048, 1, 1_000_000],
  maxBodyMB: [8, 0.001, 512],
  maxQueuedRequests: [512, 1, 100_000],
  maxQueuedMB: [256, 1, 1 << 20],
  maxConnections: [4096, 1, 1_000_000],
  bodyTimeoutMs: [30_000, 1, 3_600_000],
  timeoutMs: [120_000, 1, 3_600_000],
  drainTimeoutMs: [8000, 0, 3_600_000],
} as const satisfies Partial<Record<keyof EmbeddingServerOptions, [number, number, number]>>;

type Limits = Record<keyof typeof NUMBERS, number>;

const readGenerator = optionReader(GENERATOR);

const readOptions = optionReader<EmbeddingServerOptions>({
  generator: (value, path) => (isEncoder(value) ? value : readGenerator(value, path)),
  modelId: true,
  aliases: true,
  port: true,
  host: true,
  allowedHosts: true,
  apiKey: true,
  maxBatchItems: true,
  maxBodyMB: true,
  maxQueuedRequests: true,
  maxQueuedMB: true,
  maxConnections: true,
  bodyTimeoutMs: true,
  timeoutMs: true,
  drainTimeoutMs: true,
  monitor: true,
});

/** Options of {@link EmbeddingServer.listen}. */
export interface ListenOptions {
  /** Told of files that are fetched from the hub. */
  progressCallback?: InitializeOptions['progressCallback'] | undefined;
}

/** Options of {@link EmbeddingServer.close}. */
export interface CloseOptions {
  /** Longest time, in milliseconds, that it waits for what runs: 0 to 3600000. Default: `drainTimeoutMs`. */
  timeoutMs?: number | undefined;
}

const readListen = optionReader<ListenOptions>({ progressCallback: true });

const readClose = optionReader<CloseOptions>({ timeoutMs: true });

const READ = ['GET', 'HEAD'];

/** What comes before the id of a model. */
const MODEL_PREFIX = '/v1/models/';

/** Tokens around a text, and those that a short query is filled up with. */
const AROUND_TEXT = 32;

/** How much the latest request counts in the time that one takes. */
const LATEST = 0.1;

/** What is left of the time that closing may take, for saying that it is over: a quarter of it, and at most so much. */
const LAST_WORDS_MS = 250;

/** Longest that a client is asked to wait, in seconds. */
const LONGEST_RETRY = 60;

/** `task`: the kind of model that it needs. */
type Route = { methods: string[]; open?: true; task?: Task; answer: (exchange: Exchange, rest: string) => void | Promise<void> };

/** What a model of each kind is asked for. */
const ASKED_FOR: Record<Task, string> = {
  embedding: 'gives a vector for each text: POST /v1/embeddings',
  reranking: 'scores documents for a query: POST /rerank',
  sparse: 'gives sparse vectors: POST /embed_sparse',
  'multi-vector': 'gives a vector for each token: POST /embed_all',
};

/**
 * Serves a model to clients of OpenAI's embeddings: `POST /v1/embeddings`, `GET /v1/models`; and `/health`, `/info` and
 * `/metrics` for those who run it. `/openapi.json` says all of it to programs. Models of other kinds have `POST /rerank` (as
 * text-embeddings-inference, Cohere and Jina have it; also at `/v1/rerank` and `/v2/rerank`), `/embed_sparse` or `/embed_all` instead.
 */
export class EmbeddingServer implements AsyncDisposable {
  /** What its requests took. */
  readonly monitor: PerformanceMonitor;
  readonly #model: ServedModel;
  readonly #server: Server;
  readonly #host: string;
  /** Whether a request for such a host is answered. */
  readonly #answersTo: (authority: string) => boolean;
  readonly #modelId: string | undefined;
  readonly #aliases: string[];
  readonly #keys: Keys;
  readonly #limits: Limits;
  #info: ModelInfo | undefined;
  #loadedAt = 0;
  #state: 'new' | 'loading' | 'ready' | 'draining' | 'closed' = 'new';
  #closed: Promise<void> | undefined;
  /** Requests for embeddings that are not over. */
  readonly #running = new Set<Exchange>();
  /** How many of them have arrived whole. */
  #queued = 0;
  /** Bytes of the bodies and vectors of all of them. */
  #queuedBytes = 0;
  /** Milliseconds that a request takes, of late. */
  #usualMs = 0;
  readonly #answers = new Map<number, number>();
  /** Connections that were one too many. */
  #dropped = 0;
  #texts = 0;
  #tokens = 0;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
  constructor(options: EmbeddingServerOptions = {}) {
    const given = readOptions(options);
    const { generator = {}, modelId, aliases = [], host = '127.0.0.1', allowedHosts = [], apiKey, monitor = new PerformanceMonitor() } = given;
    if (typeof host !== 'string' || host === '') throw refused('host', `${show(host)} is not a name or an address`);
    if (modelId !== undefined && !isName(modelId)) throw refused('modelId', `${show(modelId)} is not a non-empty string`);
    if (!Array.isArray(aliases) || !aliases.every(isName)) throw refused('aliases', `${show(aliases)} is not an array of non-empty strings`);
    this.#keys = new Keys(apiKey);
    if (!areHosts(allowedHosts)) throw refused('allowedHosts', `${show(allowedHosts)} is not an array of names or addresses, without scheme and port`);
    if (!isMonitor(monitor)) throw refused('monitor', `${show(monitor)} is not a PerformanceMonitor`);
    this.#limits = Object.fromEntries(Object.entries(NUMBERS).map(([name, bounds]) => [name, numberOf(name, given[name as keyof Limits], bounds)])) as Limits;
    this.#host = host;
    this.#answersTo = answersTo(host, allowedHosts);
    this.#modelId = modelId;
    this.#aliases = aliases;
    this.monitor = monitor;
    this.#model = new ServedModel(generator as GeneratorOptions | AnyEncoder);
    const answered = (status: number) => this.#answers.set(status, (this.#answers.get(status) ?? 0) + 1);
    this.#server = httpServer((exchange) => this.#handle(exchange), { bodyTimeoutMs: this.#limits.bodyTimeoutMs, maxConnections: this.#limits.maxConnections, answered });
    this.#server.on('drop', () => this.#dropped++);
  }

  /**
   * Opens the port, then loads the model; ready when it resolves. Until then, clients are asked to come back.
   * @throws `EmbeddingError` `INVALID_CONFIG` when the port cannot be had, or as `initialize` of the generator.
   */
  async listen(options: ListenOptions = {}): Promise<this> {
    const { progressCallback } = readListen(options);
    if (this.#state !== 'new') throw new EmbeddingError('INVALID_ARGUMENT', 'The server was started already: make another one');
    this.#state = 'loading';
    try {
      await new Promise<void>((resolve, reject) => {
        const { port } = this.#limits;
        this.#server.once('error', (cause: NodeJS.ErrnoException) => reject(cannotListen(cause, this.#host, port)));
        this.#server.listen(port, this.#host, resolve);
      });
      // An error while connections are accepted concerns one of them.
      this.#server.on('error', () => {});
      const info = await this.#model.ready(progressCallback && { progressCallback });
      if (this.#state !== 'loading') throw new EmbeddingError('CLOSED', 'The server was closed while it loaded the model');
      this.#info = info;
      this.#loadedAt = Date.now();
      this.#state = 'ready';
      return this;
    } catch (error) {
      await this.close({ timeoutMs: 0 });
      throw error;
    }
  }

  /** Where it is, such as `http://127.0.0.1:8080`; clients want `/v1` after it. */
  get url(): string {
    return `http://${isIP(this.#host) === 6 ? `[${this.#host}]` : this.#host}:${this.port}`;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo | null)?.port ?? this.#limits.port;
  }

  /** Names of the model, its id first. */
  get models(): string[] {
    const own = this.#modelId ?? (this.#info && nameOf(this.#info));
    return [...new Set([...(own === undefined ? [] : [own]), ...this.#aliases])];
  }

  /**
   * Finishes what runs and refuses what is new (503), then closes the port and frees the model, unless the generator is
   * yours. Takes no longer than `timeoutMs` (default: `drainTimeoutMs`), give or take a quarter of a second: what still
   * runs or arrives shortly before its end is stopped and refused (503), and a generator or a file that is not free then
   * is not waited for.
   */
  async close(options: CloseOptions = {}): Promise<void> {
    const [, least, most] = NUMBERS.drainTimeoutMs;
    const timeoutMs = numberOf('timeoutMs', readClose(options).timeoutMs, [this.#limits.drainTimeoutMs, least, most]);
    return (this.#closed ??= this.#close(timeoutMs));
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(timeoutMs: number): Promise<void> {
    const end = performance.now() + timeoutMs;
    this.#state = 'draining';
    this.#server.closeIdleConnections();
    await this.#drained(timeoutMs - Math.min(LAST_WORDS_MS, timeoutMs / 4));
    for (const exchange of this.#running) exchange.stop(shuttingDown());
    // Just long enough to say so.
    await this.#drained(LAST_WORDS_MS);
    this.#state = 'closed';
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
    await within(Math.max(end - performance.now(), LAST_WORDS_MS), this.#model.close());
  }

  #drained(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      if (this.#running.size === 0) return resolve();
      const timer = setTimeout(resolve, timeoutMs);
      for (const exchange of this.#running) {
        exchange.whenOver(() => {
          this.#running.delete(exchange);
          if (this.#running.size > 0) return;
          clearTimeout(timer);
          resolve();
        });
      }
    });
  }

  async #handle(exchange: Exchange): Promise<void> {
    const { request } = exchange;
    exchange.header('X-Request-Id', requestId(request.headers['x-request-id']));
    if (this.#state !== 'ready' && this.#state !== 'loading') exchange.header('Connection', 'close');
    const [authority, path] = targetOf(request.url ?? '/');
    for (const asked of [request.headers.host, authority]) if (asked !== undefined && !this.#answersTo(asked)) throw otherHost(asked);
    const [name, rest] = path.startsWith(MODEL_PREFIX) ? [MODEL_PREFIX, path.slice(MODEL_PREFIX.length)] : [path, ''];
    const route = this.#routes[name];
    if (!route) throw noRoute(request.method, path, Object.keys(this.#routes).filter((known) => this.#has(this.#routes[known]!)));
    // Before all else: a key must not be guessed by what is refused first.
    if (!route.open) this.#authorize(request.headers.authorization);
    const task = this.#task();
    if (task && !this.#has(route)) throw new Refusal(404, `The model of this server ${ASKED_FOR[task]}, not ${path}`, { code: 'unknown_url' });
    if (!route.methods.includes(request.method ?? '')) {
      const hint = `Only ${route.methods.join(' and ')} ${route.methods.length > 1 ? 'go' : 'goes'} with ${path}, not ${request.method}`;
      throw new Refusal(405, hint, { code: 'method_not_supported', headers: { Allow: route.methods.join(', ') } });
    }
    await route.answer(exchange, rest);
  }

  readonly #routes: Record<string, Route> = Object.assign(Object.create(null) as object, {
    '/v1/embeddings': { methods: ['POST'], task: 'embedding', answer: (exchange) => this.#embeddings(exchange) },
    '/rerank': { methods: ['POST'], task: 'reranking', answer: (exchange) => this.#rerank(exchange) },
    '/v1/rerank': { methods: ['POST'], task: 'reranking', answer: (exchange) => this.#rerank(exchange) },
    '/v2/rerank': { methods: ['POST'], task: 'reranking', answer: (exchange) => this.#rerank(exchange) },
    '/embed_sparse': { methods: ['POST'], task: 'sparse', answer: (exchange) => this.#sparse(exchange) },
    '/embed_all': { methods: ['POST'], task: 'multi-vector', answer: (exchange) => this.#tokenVectors(exchange) },
    '/v1/models': { methods: READ, answer: (exchange) => json(exchange, 200, { object: 'list', data: this.models.map((id) => this.#named(id)) }) },
    [MODEL_PREFIX]: { methods: READ, answer: (exchange, id) => json(exchange, 200, this.#named(this.#known(decoded(id)))) },
    '/health': { methods: READ, open: true, answer: (exchange) => this.#health(exchange) },
    '/health/ready': { methods: READ, open: true, answer: (exchange) => this.#health(exchange) },
    '/health/live': { methods: READ, open: true, answer: (exchange) => json(exchange, 200, { status: 'ok' }) },
    '/info': { methods: READ, answer: (exchange) => json(exchange, 200, this.#about()) },
    '/openapi.json': { methods: READ, answer: (exchange) => json(exchange, 200, this.#described()) },
    '/metrics': { methods: READ, answer: (exchange) => exchange.answer(200, 'text/plain; version=0.0.4; charset=utf-8', this.#prometheus()) },
  } satisfies Record<string, Route>);

  /** What its model is for; nobody knows before it is loaded. */
  #task(): Task | undefined {
    // One that stands in for a generator may say nothing of it.
    return this.#info && (this.#info.task ?? 'embedding');
  }

  #has({ task }: Route): boolean {
    const own = this.#task();
    return task === undefined || own === undefined || task === own;
  }

  #mustBeLoaded(): void {
    if (this.#state === 'loading') throw new Refusal(503, 'The model is being loaded: try again soon', { code: 'not_ready', headers: { 'Retry-After': '1' } });
  }

  async #embeddings(exchange: Exchange): Promise<void> {
    await this.#answer(exchange, 'POST /v1/embeddings', 'input', async (body, hold, work) => {
      const request = await readRequest(body, this.#limits.maxBatchItems);
      if (exchange.over) return;
      this.#known(request.model);
      const info = this.#info!;
      const { count, dimensions } = request;
      if (dimensions !== null) checked(() => checkDimensions(dimensions, info), 'dimensions');
      hold(count * info.dimensions * Float32Array.BYTES_PER_ELEMENT);
      const response = await work(count, (limits) => respond(this.#model.encoder as OptimizedEmbeddingGenerator, request, info, limits));
      this.#count(response.rows, response.hits, response.tokens);
      await exchange.stream(JSON_TYPE, piecesOf(response));
    });
  }

  async #rerank(exchange: Exchange): Promise<void> {
    await this.#answer(exchange, 'POST /rerank', 'texts', async (body, _, work) => {
      const request = await readRerank(body, this.#limits.maxBatchItems);
      if (exchange.over) return;
      const { model, query, texts, raw } = request;
      if (model !== undefined) this.#known(model);
      const info = this.#info!;
      if (info.dimensions > 1) throw new Refusal(400, `The model gives ${info.dimensions} scores for a pair (${info.labels.join(', ')}), which rank nothing`, { code: 'invalid_argument' });
      const pairs = texts.map((text) => [query, text] as const);
      const scores = await work(texts.length, (limits) => (this.#model.encoder as CrossEncoder).score(pairs, { activation: raw ? 'none' : 'sigmoid', ...limits }));
      const tokens = sum(scores.tokenCounts);
      this.#count(scores.fromCache.length, sum(scores.fromCache), tokens);
      await exchange.stream(JSON_TYPE, rerankChunks(request, scores, { id: randomUUID(), served: this.models[0]!, tokens }));
    });
  }

  async #sparse(exchange: Exchange): Promise<void> {
    await this.#answer(exchange, 'POST /embed_sparse', 'inputs', async (body, hold, work) => {
      const { inputs, inputType } = await readInputs(body, this.#limits.maxBatchItems);
      if (exchange.over) return;
      const vectors = await work(inputs.length, (limits) => (this.#model.encoder as SparseEncoder).embed(inputs, { inputType, ...limits }));
      hold(vectors.reduce((bytes, { indices, values }) => bytes + indices.byteLength + values.byteLength, 0), true);
      // One that stands in for an encoder may say nothing of it.
      if (vectors.fromCache) this.#count(vectors.length, sum(vectors.fromCache), sum(vectors.tokenCounts));
      else this.#texts += vectors.length;
      await exchange.stream(JSON_TYPE, sparseChunks(vectors));
    });
  }

  async #tokenVectors(exchange: Exchange): Promise<void> {
    await this.#answer(exchange, 'POST /embed_all', 'inputs', async (body, hold, work) => {
      const { inputs, inputType } = await readInputs(body, this.#limits.maxBatchItems);
      if (exchange.over) return;
      // A token has a character or more; what is too much is given back when it is known.
      const { dimensions, maxLength } = this.#info!;
      const longest = (text: string) => Math.min(text.length + AROUND_TEXT, maxLength || Infinity);
      const expected = inputs.reduce((tokens, text) => tokens + longest(text), 0) * dimensions * Float32Array.BYTES_PER_ELEMENT;
      hold(expected);
      const vectors = await work(inputs.length, (limits) => (this.#model.encoder as MultiVectorEncoder).embed(inputs, { inputType, ...limits }));
      hold(vectors.data.byteLength - expected, true);
      this.#count(vectors.rows, sum(vectors.fromCache), sum(vectors.tokenCounts));
      await exchange.stream(JSON_TYPE, tokenChunks(vectors));
    });
  }

  /**
   * Takes the body of a request if there is room for it, and answers it with `make`, which holds room for what it makes (`made`: what is there already, and not refused), and has the
   * model's work for so many texts done within the limits of a request.
   */
  async #answer(
    exchange: Exchange,
    operation: string,
    param: string,
    make: (body: Buffer, hold: (bytes: number, made?: boolean) => void, work: <T>(texts: number, call: (limits: { timeoutMs: number; signal: AbortSignal }) => Promise<T>) => Promise<T>) => Promise<void>,
  ): Promise<void> {
    this.#mustBeLoaded();
    if (this.#state !== 'ready') throw shuttingDown();
    mustBeJson(exchange.request.headers);
    this.#mustHaveRoom();
    let [queued, heldBytes, texts] = [0, 0, 0];
    this.#running.add(exchange);
    exchange.whenOver(() => {
      this.#running.delete(exchange);
      this.#queued -= queued;
      this.#queuedBytes -= heldBytes;
      const ms = performance.now() - exchange.started;
      const success = exchange.status === 200;
      this.monitor.record(operation, ms, { batchSize: texts, success });
      if (success) this.#usualMs = this.#usualMs === 0 ? ms : this.#usualMs + LATEST * (ms - this.#usualMs);
    });
    const hold = (bytes: number, made = false) => {
      if (exchange.over) return;
      // What is there is there.
      if (!made) this.#mustHaveRoom(bytes, heldBytes);
      heldBytes += bytes;
      this.#queuedBytes += bytes;
    };
    const { maxBodyMB, bodyTimeoutMs, timeoutMs } = this.#limits;
    const body = await exchange.body({ maxBytes: Math.floor(maxBodyMB * MB), timeoutMs: bodyTimeoutMs, received: (bytes) => hold(bytes) });
    if (exchange.over) return;
    this.#mustHaveRoom(0, heldBytes);
    queued = 1;
    this.#queued++;
    const { signal } = exchange;
    await make(body, hold, (count, call) => {
      texts = count;
      return call({ timeoutMs, signal }).catch((error: unknown) => {
        throw refusalOf(error, this.#limits, () => this.#retryLater(), param);
      });
    });
  }

  /** Counts texts, of which `hits` were in the cache. */
  #count(texts: number, hits: number, tokens: number): void {
    this.#texts += texts;
    this.#tokens += tokens;
    for (let at = 0; at < texts; at++) at < hits ? this.monitor.cacheHit('embedding') : this.monitor.cacheMiss('embedding');
  }

  /** Refuses what is one request, or so many bytes, too many. A request that is alone always has room. */
  #mustHaveRoom(bytes = 0, held = 0): void {
    const { maxQueuedRequests, maxQueuedMB } = this.#limits;
    const tooMany = bytes === 0 && this.#queued >= maxQueuedRequests;
    const tooLarge = this.#queuedBytes > held && this.#queuedBytes + bytes > maxQueuedMB * MB;
    if (!tooMany && !tooLarge) return;
    const limit = tooMany ? `${maxQueuedRequests} requests` : `${maxQueuedMB} MB of them`;
    throw new Refusal(429, `The server is busy: ${limit} wait already. Try again as Retry-After says`, { code: 'overloaded', headers: this.#retryLater() });
  }

  /** After the time that a request takes of late there is room again. */
  #retryLater(): Record<string, string> {
    return { 'Retry-After': String(Math.min(Math.max(Math.ceil(this.#usualMs / 1000), 1), LONGEST_RETRY)) };
  }

  #authorize(authorization: string | undefined): void {
    if (!this.#keys.needed) return;
    const key = bearer(authorization);
    if (key !== undefined && this.#keys.accept(key)) return;
    const message = key === undefined ? 'You did not provide an API key: send it as the header Authorization: Bearer YOUR_KEY' : 'Incorrect API key provided';
    throw new Refusal(401, message, { code: 'invalid_api_key', headers: { 'WWW-Authenticate': 'Bearer' } });
  }

  /** @throws {@link Refusal} 404 for a model of another name. */
  #known(id: string): string {
    if (this.models.includes(id)) return id;
    const message = `The model ${JSON.stringify(id.slice(0, 200))} does not exist: this server has ${this.models.map((name) => JSON.stringify(name)).join(', ')}`;
    throw new Refusal(404, message, { param: 'model', code: 'model_not_found' });
  }

  #named(id: string): object {
    return { id, object: 'model', created: Math.floor(this.#loadedAt / 1000), owned_by: 'embedcore' };
  }

  #health(exchange: Exchange): void {
    const ready = this.#state === 'ready';
    const status = { new: 'loading', loading: 'loading', ready: 'ok', draining: 'shutting down', closed: 'shutting down' }[this.#state];
    json(exchange, ready ? 200 : 503, { status, live: true, ready });
  }

  /** With the names that text-embeddings-inference has for the same. */
  #about(): object {
    const { maxBatchItems, maxBodyMB, maxQueuedRequests, maxQueuedMB, bodyTimeoutMs, timeoutMs } = this.#limits;
    const info = this.#info;
    return {
      version,
      model_id: this.models[0] ?? null,
      aliases: this.models.slice(1),
      ...(info && {
        model_sha: info.revision,
        model_dtype: info.dtype,
        model_type: typeOf(info),
        dimensions: info.dimensions,
        normalize: info.normalize,
        max_input_length: info.maxLength || null,
        fingerprint: info.fingerprint,
        execution_providers: info.executionProviders,
      }),
      auto_truncate: true,
      max_client_batch_size: maxBatchItems,
      max_concurrent_requests: maxQueuedRequests,
      max_queued_bytes: maxQueuedMB * MB,
      max_body_bytes: Math.floor(maxBodyMB * MB),
      body_timeout_ms: bodyTimeoutMs,
      timeout_ms: timeoutMs,
    };
  }

  #described(): object {
    this.#mustBeLoaded();
    const { maxBatchItems, maxBodyMB } = this.#limits;
    return openApi({ version, task: this.#task() ?? 'embedding', models: this.models, dimensions: this.#info?.dimensions, maxBatchItems, maxBodyBytes: Math.floor(maxBodyMB * MB), keyed: this.#keys.needed });
  }

  #prometheus(): string {
    const lines: string[] = [];
    const family = (name: string, type: 'counter' | 'gauge', help: string, samples: [labels: string, value: number][]) => {
      lines.push(`# HELP embedcore_server_${name} ${help}`, `# TYPE embedcore_server_${name} ${type}`);
      for (const [labels, value] of samples) lines.push(`embedcore_server_${name}${labels} ${value}`);
    };
    const answers = [...this.#answers].sort(([a], [b]) => a - b).map(([status, count]): [string, number] => [`{status="${status || 'gone'}"}`, count]);
    if (answers.length > 0) family('requests_total', 'counter', 'Requests that are over, by the status of the answer.', answers);
    family('dropped_connections_total', 'counter', 'Connections that were one too many.', [['', this.#dropped]]);
    family('texts_total', 'counter', 'Texts that were embedded or found in the cache.', [['', this.#texts]]);
    family('tokens_total', 'counter', 'Tokens of these.', [['', this.#tokens]]);
    family('queued_requests', 'gauge', 'Requests for embeddings that have arrived whole and are not yet answered.', [['', this.#queued]]);
    family('queued_bytes', 'gauge', 'Bytes of bodies and vectors, those of requests that are still arriving included.', [['', this.#queuedBytes]]);
    family('ready', 'gauge', 'Whether requests are taken.', [['', this.#state === 'ready' ? 1 : 0]]);
    return `${this.monitor.toPrometheus()}${lines.join('\n')}\n`;
  }
}

/** Starts a server, and gives it when it is ready: `await serve({ port: 8080 })`. See {@link EmbeddingServer}. */
export async function serve(options: EmbeddingServerOptions = {}): Promise<EmbeddingServer> {
  return new EmbeddingServer(options).listen();
}

function json(exchange: Exchange, status: number, body: object): void {
  exchange.answer(status, JSON_TYPE, `${JSON.stringify(body)}\n`);
}

/** Waits for `work`, but not for ever. */
async function within(ms: number, work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  await Promise.race([work, new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)))]);
  clearTimeout(timer);
}

function decoded(id: string): string {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

const isName = (value: unknown) => typeof value === 'string' && value !== '';

function numberOf(name: string, value: unknown, [fallback, least, most]: readonly [number, number, number]): number {
  const number = value ?? fallback;
  const whole = !name.endsWith('MB');
  if (typeof number === 'number' && (!whole || Number.isInteger(number)) && number >= least && number <= most) return number;
  const message = `Invalid option \`${name}\`: ${show(number)} is not a ${whole ? 'whole ' : ''}number from ${least} to ${most}`;
  throw new EmbeddingError('INVALID_CONFIG', message, { details: { option: name, least, most } });
}

function isMonitor(monitor: unknown): boolean {
  return typeof monitor === 'object' && monitor !== null && typeof read(monitor, 'toPrometheus', 'monitor.toPrometheus') === 'function';
}
