import { flag } from '../call/checks';
import { EmbeddingError } from '../call/errors';
import { invalid, isArray, show } from '../call/input';
import { aborted, checkWatch, type Watch } from '../call/limits';
import { instanceOr, naming, optionReader, record, refused, untouched, type Given } from '../call/options';
import { addressOf, type Address } from '../http/address';
import { getApart, HttpClient, readOptions as readHttp, type HttpClientOptions } from '../http/client';
import { redactor } from '../http/secrets';
import { InferenceCache, type InferenceCacheOptions, type InferenceSetOptions, type MonitorTimer, type PerformanceMonitor } from '../index';
import { monitorOf } from '../parallel/options';
import { canonicalJson } from '../results/canonical-json';
import { readOptions as readCache } from '../results/options';
import { limited, limitedStream } from './limited';
import { piecesOf, resultOf, vectorsOf, type Kept, type OllamaChunk, type OllamaResult, type Source } from './ollama-answer';
import {
  chatRequest, checkSettings, generateRequest, readCall, readChat, readSettings,
  type OllamaCallOptions, type OllamaChatOptions, type OllamaMessage, type OllamaPrompt, type OllamaRequest, type OllamaSettings,
} from './ollama-options';
import { SharedCalls } from './shared-calls';

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

const readOptions = optionReader<OllamaClientOptions>({
  baseUrl: true,
  model: true,
  useCache: true,
  cache: instanceOr(InferenceCache, readCache),
  http: instanceOr(HttpClient, readHttp),
  defaults: readSettings,
  headers: headersIn,
  monitor: true,
});
const readEmbed = optionReader<OllamaEmbedOptions>({ model: true, keepAlive: true, useCache: true, signal: untouched, timeoutMs: true });
const readList = optionReader<OllamaListOptions>({ signal: untouched, timeoutMs: true });

/** Texts of one request for embeddings, as long as the server does not find them too many. */
const BATCH = 128;
/** How long {@link OllamaClient.isAvailable} waits, in milliseconds. */
const PATIENCE_MS = 4000;

/**
 * A client of Ollama that remembers: what was asked before, of whatever process that shares the cache, is answered without
 * a server; and what is asked by many at the same time, once: a prompt, a chat, or a text to embed. A stream is a request of its
 * own, and so is what is asked without the cache. An abort ends the request when nobody else waits for it. Failures are not kept.
 *
 * Needs `undici`, an optional peer: 7 or later.
 */
export class OllamaClient implements AsyncDisposable {
  readonly #url: string;
  readonly #model: string | undefined;
  readonly #useCache: boolean;
  readonly #cache: InferenceCache;
  readonly #http: HttpClient;
  readonly #defaults: Given<OllamaSettings>;
  readonly #headers: Record<string, string>;
  readonly #monitor: PerformanceMonitor | undefined;
  readonly #shared = new SharedCalls<{ value: Kept; fromCache: boolean }>();
  /** Requests for vectors that are under way, and which one makes that of a text. */
  readonly #batches = new SharedCalls<number[][]>();
  readonly #coming = new Map<string, Coming>();
  #batch = 0;
  /** Most texts that were embedded by one request, and half of the fewest that were too much for the server. */
  #embedded = 1;
  #tooMany = BATCH;
  /** What is its own, and closed with it. */
  readonly #own: { close(): Promise<void> }[] = [];
  /** What was begun and still needs that. Streams do until their answer begins: from then on they are the network's. */
  readonly #running = new Set<Promise<unknown>>();
  #closed: Promise<void> | undefined;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option; `BACKEND_UNAVAILABLE` where undici is not installed. */
  constructor(options: OllamaClientOptions = {}) {
    const { baseUrl = 'http://localhost:11434', model, useCache = true, cache, http, defaults = {}, headers = {}, monitor } = readOptions(options);
    const { url, authorization } = urlOf(baseUrl);
    this.#url = `${url.origin}${url.pathname.replace(/(?<!\/)\/+$/, '')}`;
    if (model !== undefined && (typeof model !== 'string' || model === '')) throw refused('model', `${show(model)} is not the name of a model`);
    this.#model = model;
    this.#useCache = flag('useCache', useCache);
    this.#defaults = defaults as Given<OllamaSettings>;
    checkSettings(this.#defaults, (name) => `defaults.${name}`);
    this.#headers = { ...(authorization !== undefined && { authorization }), ...headers };
    this.#monitor = monitorOf(monitor);
    this.#http = this.#ownedOr(HttpClient, 'http', http, (given) => new HttpClient(given));
    this.#cache = this.#ownedOr(InferenceCache, 'cache', cache, (given) => new InferenceCache(given === undefined ? { monitor: this.#monitor } : given));
  }

  /**
   * Has a model go on from a prompt. `stream: true`: the pieces as they come; the request begins with the first one, and
   * the result is kept when the stream has ended well. Leaving it ends the request.
   * @throws `EmbeddingError` `BACKEND_REJECTED` with the server's words, for a model that does not exist, say;
   * `BACKEND_UNAVAILABLE`, `RATE_LIMITED`, `TIMED_OUT`, `ABORTED`, `CLOSED`; `INVALID_ARGUMENT`, `INVALID_CONFIG`.
   */
  generate(prompt: string | OllamaPrompt, options: OllamaCallOptions & { stream: true }): AsyncGenerator<OllamaChunk, void, void>;
  generate(prompt: string | OllamaPrompt, options?: OllamaCallOptions & { stream?: false | undefined }): Promise<OllamaResult>;
  generate(prompt: string | OllamaPrompt, options?: OllamaCallOptions): Promise<OllamaResult> | AsyncGenerator<OllamaChunk, void, void>;
  generate(prompt: string | OllamaPrompt, options: OllamaCallOptions = {}): Promise<OllamaResult> | AsyncGenerator<OllamaChunk, void, void> {
    return this.#call('generate', options, readCall, (model, given) => generateRequest(prompt, model, given));
  }

  /** Has a model answer messages. Otherwise as {@link generate}. */
  chat(messages: readonly OllamaMessage[], options: OllamaChatOptions & { stream: true }): AsyncGenerator<OllamaChunk, void, void>;
  chat(messages: readonly OllamaMessage[], options?: OllamaChatOptions & { stream?: false | undefined }): Promise<OllamaResult>;
  chat(messages: readonly OllamaMessage[], options?: OllamaChatOptions): Promise<OllamaResult> | AsyncGenerator<OllamaChunk, void, void>;
  chat(messages: readonly OllamaMessage[], options: OllamaChatOptions = {}): Promise<OllamaResult> | AsyncGenerator<OllamaChunk, void, void> {
    return this.#call('chat', options, readChat, (model, given) => chatRequest(messages, model, given));
  }

  /** A vector for each text, in order: those that are known from the cache, the others from the server. */
  async embed(texts: string | readonly string[], options: OllamaEmbedOptions = {}): Promise<number[][]> {
    const given: Given<OllamaSettings & OllamaEmbedOptions> = { ...this.#defaults, ...readEmbed(options) };
    checkSettings(given);
    const limits = checkWatch(given);
    const all = textsOf(texts);
    const { useCache = this.#useCache, keepAlive = '30m' } = given;
    const model = this.#modelOr(given.model);
    this.#requireOpen();
    return this.#timed('embed', all.length, () => limited(limits, (signal) => this.#embed(all, { model, keep_alive: keepAlive }, useCache, signal)));
  }

  /** The models that the server has. */
  async list(options: OllamaListOptions = {}): Promise<OllamaModel[]> {
    const limits = checkWatch(readList(options));
    this.#requireOpen();
    return this.#timed('list', 1, () => limited(limits, (signal) => this.#list(signal)));
  }

  /** Whether Ollama answers there: known within five seconds. Never throws. */
  async isAvailable(): Promise<boolean> {
    try {
      this.#requireOpen();
      await limited({ timeoutMs: PATIENCE_MS }, async (signal) => {
        const url = `${this.#url}/api/tags`;
        // However much it has to do.
        modelsOf(await getApart(this.#http, url, { headers: this.#headers, signal, retryAttempts: 1 }), url);
      });
      return true;
    } catch {
      return false;
    }
  }

  /** Waits for what runs, and closes what is its own: not a cache or an {@link HttpClient} that it was given. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#running);
    for (const own of this.#own) await own.close();
  }

  /** Notes work that `close` waits for. */
  #run<T>(work: Promise<T>): Promise<T> {
    const over = work.then(() => void this.#running.delete(over), () => void this.#running.delete(over));
    this.#running.add(over);
    return work;
  }

  #ownedOr<T extends { close(): Promise<void> }, O>(type: new (options: O) => T, name: string, given: T | O | undefined, make: (options: O | undefined) => T): T {
    if (given instanceof type) return given;
    if (typeof given === 'boolean') throw refused(name, `${show(given)} is neither an instance of ${type.name} nor its options`);
    const own = naming((option) => `${name}.${option}`, () => make(given as O | undefined));
    this.#own.push(own);
    return own;
  }

  #modelOr(model: string | undefined): string {
    const name = model ?? this.#defaults.model ?? this.#model;
    if (name === undefined) throw invalid('There is no model: pass one as an option, or to the constructor');
    return name;
  }

  #requireOpen(): void {
    if (this.#closed) throw new EmbeddingError('CLOSED', 'The client is closed: make a new one');
  }

  /** A call that generates: what is wrong with one that streams is thrown, since there is no promise yet. */
  #call<O extends OllamaCallOptions>(
    name: string,
    options: O,
    read: (options: unknown) => Given<O>,
    requestFor: (model: string, given: Given<O>) => OllamaRequest,
  ): Promise<OllamaResult> | AsyncGenerator<OllamaChunk, void, void> {
    let stream = false;
    try {
      const given = { ...this.#defaults, ...read(options) };
      stream = flag('stream', given.stream === undefined ? false : given.stream);
      checkSettings(given);
      const limits = checkWatch(given as Watch<never>);
      const request = requestFor(this.#modelOr(given.model), given);
      const asked = { ...request, setting: this.#settingOf(request, given), useCache: given.useCache ?? this.#useCache };
      this.#requireOpen();
      if (!stream) return this.#timed(name, 1, () => this.#answer(asked, limits));
      return this.#stream(name, asked, limits);
    } catch (error) {
      if (stream) throw error;
      return Promise.reject(error as Error);
    }
  }

  #settingOf({ params, modality }: OllamaRequest, { cacheType, ttlSeconds }: Given<OllamaSettings>): InferenceSetOptions {
    const type = cacheType ?? (modality === 'image' ? 'vision_inference' : 'text_inference');
    return { type, modality, params: { server: this.#url, ...params }, ...(ttlSeconds !== undefined && { ttlSeconds }) };
  }

  async #answer(asked: Asked, limits: Watch<never>): Promise<OllamaResult> {
    const { content, setting, useCache } = asked;
    if (!useCache) return { ...(await limited(limits, (signal) => this.#ask(asked, signal))), fromCache: false };
    const key = canonicalJson({ content, setting }, 'request');
    const { value, joined } = await this.#shared.run(key, limits, (signal) => this.#cache.getOrCompute(content, setting, () => this.#ask(asked, signal)));
    // Everybody has a copy.
    return { ...(joined ? structuredClone(value.value) : value.value), fromCache: joined || value.fromCache };
  }

  async #ask({ path, body }: Asked, signal: AbortSignal): Promise<Kept> {
    const url = `${this.#url}${path}`;
    return resultOf(await this.#http.post<unknown>(url, { ...body, stream: false }, { headers: this.#headers, signal }), this.#source(url));
  }

  #stream(name: string, asked: Asked, limits: Watch<never>): AsyncGenerator<OllamaChunk, void, void> {
    let timer: MonitorTimer | undefined;
    const begin = (signal: AbortSignal) => {
      timer = this.#monitor?.startTimer(`ollama.${name}`);
      return this.#pieces(asked, signal);
    };
    return limitedStream(limits, begin, (error) => timer?.stop(error === undefined ? {} : { error }));
  }

  async *#pieces(asked: Asked, signal: AbortSignal): AsyncGenerator<OllamaChunk, void, void> {
    const begun = await this.#run(this.#begin(asked, signal));
    if ('found' in begun) return yield { ...begun.found, done: true, fromCache: true };
    const { stream, url, whole } = begun;
    try {
      for await (const { piece, result } of piecesOf(stream, this.#source(url))) {
        // Before the last piece is given: who has that may leave.
        if (result) await whole.keep(result);
        yield { ...result, response: piece.content, message: piece, done: result !== undefined, fromCache: false };
      }
    } finally {
      whole.drop();
    }
  }

  /** Has a result kept that is still to come, unless something newer is written to the cache meanwhile. */
  #whole({ content, setting, useCache }: Asked): Whole {
    let resolve!: (result: Kept) => void;
    let drop!: () => void;
    const result = new Promise<Kept>((resolved, rejected) => {
      resolve = resolved;
      drop = () => rejected(new Error('It did not end well'));
    });
    // What cannot be kept is answered all the same.
    const kept = (useCache ? this.#cache.setLater(content, result, setting) : result).then(() => {}, () => {});
    return { drop, keep: (whole) => (resolve(whole), kept) };
  }

  /** The result that is known, or the stream of another one. */
  async #begin(asked: Asked, signal: AbortSignal): Promise<{ found: Kept } | { stream: AsyncIterable<Uint8Array>; url: string; whole: Whole }> {
    const { path, body, content, setting, useCache } = asked;
    const { ttlSeconds: _, ...key } = setting;
    const found = useCache ? await this.#cache.get<Kept>(content, key) : null;
    if (found) return { found: found.value };
    const url = `${this.#url}${path}`;
    const whole = this.#whole(asked);
    try {
      const stream = await this.#http.post<AsyncIterable<Uint8Array>>(url, { ...body, stream: true }, { headers: this.#headers, signal, as: 'stream' });
      return { stream, url, whole };
    } catch (error) {
      whole.drop();
      throw error;
    }
  }

  async #embed(texts: string[], about: { model: string; keep_alive: string | number }, useCache: boolean, signal: AbortSignal): Promise<number[][]> {
    const params = { server: this.#url, path: '/api/embed', model: about.model };
    const lookup = (text: string) => ({ content: text === '' ? { text } : text, type: 'embedding', params, semantic: false });
    const unique = [...new Set(texts)];
    const found = useCache ? await this.#cache.getMany<number[]>(unique.map(lookup)) : [];
    const vectors = new Map(unique.map((text, at) => [text, found[at]?.value]));
    const missing = unique.filter((text) => vectors.get(text) === undefined);
    const wait = async ({ key, work }: Omit<Coming, 'at'>, parts: readonly { text: string; at: number }[]) => {
      const { value: made } = await this.#batches.run(key, { signal }, work);
      for (const { text, at } of parts) vectors.set(text, made[at]);
    };
    if (signal.aborted) throw aborted(signal);
    const keyOf = (text: string) => `${about.model}\0${text}`;
    const coming = useCache ? missing.flatMap((text) => { const one = this.#coming.get(keyOf(text)); return one ? [{ text, one }] : []; }) : [];
    const joined = coming.map(({ text, one }) => wait(one, [{ text, at: one.at }]));
    const theirs = new Set(coming.map(({ text }) => text));
    const own = missing.filter((text) => !theirs.has(text));
    // What was embedded once is not too much, whatever was refused since: that may have been the texts.
    const most = Math.max(this.#tooMany, this.#embedded);
    const batches = Array.from({ length: Math.ceil(own.length / most) }, (_, at) => own.slice(at * most, (at + 1) * most));
    const asked = batches.map((input) => {
      const key = `${this.#batch++}`;
      const made = async (inner: AbortSignal) => {
        const answer = this.#vectors(input, about, inner);
        const keep = (text: string, at: number) => {
          const { content, ...setting } = lookup(text);
          return this.#cache.setLater(content, answer.then((made) => made[at]), setting);
        };
        const kept = useCache ? Promise.allSettled(input.map(keep)) : undefined;
        const all = await answer;
        await kept;
        return all;
      };
      const over = () => input.forEach((text) => this.#coming.get(keyOf(text))?.key === key && this.#coming.delete(keyOf(text)));
      const work = (inner: AbortSignal) => {
        // Who comes after nobody waited any more asks anew.
        inner.addEventListener('abort', over, { once: true });
        return made(inner).finally(over);
      };
      if (useCache) input.forEach((text, at) => this.#coming.set(keyOf(text), { key, work, at }));
      return wait({ key, work }, input.map((text, at) => ({ text, at })));
    });
    await Promise.all([...joined, ...asked]);
    return texts.map((text) => [...vectors.get(text)!]);
  }

  /** Vectors of texts by one request, or by more where the server finds them too much (413): then of each half apart. */
  async #vectors(input: string[], about: { model: string; keep_alive: string | number }, signal: AbortSignal): Promise<number[][]> {
    const url = `${this.#url}/api/embed`;
    let answer: unknown;
    try {
      answer = await this.#http.post<unknown>(url, { ...about, input }, { headers: this.#headers, signal });
    } catch (error) {
      if (input.length === 1 || !(error instanceof EmbeddingError) || error.details.status !== 413) throw error;
      const half = Math.ceil(input.length / 2);
      this.#tooMany = Math.min(this.#tooMany, half);
      const halves = await Promise.all([input.slice(0, half), input.slice(half)].map((texts) => this.#vectors(texts, about, signal)));
      return halves.flat();
    }
    const vectors = vectorsOf(answer, input.length, this.#source(url));
    this.#embedded = Math.max(this.#embedded, input.length);
    return vectors;
  }

  async #list(signal: AbortSignal): Promise<OllamaModel[]> {
    const url = `${this.#url}/api/tags`;
    return modelsOf(await this.#http.get(url, { headers: this.#headers, signal }), url);
  }

  #source(url: string): Source {
    return { url, redact: redactor(this.#headers, new URL(url)) };
  }

  #timed<T>(name: string, batchSize: number, work: () => Promise<T>): Promise<T> {
    return this.#run(this.#monitor ? this.#monitor.measure(`ollama.${name}`, work, { batchSize }) : work());
  }
}

/** The same as {@link OllamaClient}. */
export const OptimizedOllamaClient: typeof OllamaClient = OllamaClient;
/** The same as {@link OllamaClient}. */
export type OptimizedOllamaClient = OllamaClient;

/** A request, and how its result is kept. */
interface Asked extends OllamaRequest {
  setting: InferenceSetOptions;
  useCache: boolean;
}

/** The request that makes the vector of a text, and the text's place in it. */
interface Coming {
  key: string;
  work(signal: AbortSignal): Promise<number[][]>;
  at: number;
}

/** A result that is still to come. */
interface Whole {
  keep(result: Kept): Promise<void>;
  drop(): void;
}

/** The models of an answer. */
function modelsOf(answer: unknown, url: string): OllamaModel[] {
  const { models } = (answer ?? {}) as { models?: unknown };
  if (!isArray(models)) throw new EmbeddingError('BACKEND_REJECTED', `GET ${url}: the answer is ${show(answer)} without models: is it Ollama that listens there?`, { details: { url } });
  return models.map((model, at) => {
    if (typeof model !== 'object' || model === null) throw new EmbeddingError('BACKEND_REJECTED', `GET ${url}: model ${at} of the answer is ${show(model)}`, { details: { url } });
    const { name, size, digest, modified_at, details } = model as Record<string, unknown>;
    return { name: String(name), size: Number(size), digest: String(digest), modifiedAt: String(modified_at), details: (details ?? {}) as Record<string, unknown> };
  });
}

function urlOf(given: unknown): Address {
  try {
    return addressOf(given);
  } catch (error) {
    throw refused('baseUrl', (error as EmbeddingError).message);
  }
}

function headersIn(value: unknown, path: string): Record<string, string> {
  const headers = record(value, path);
  for (const [name, each] of Object.entries(headers)) {
    if (typeof each !== 'string') throw refused(`${path}.${name}`, `${show(each)} is not a string`);
  }
  return headers as Record<string, string>;
}

function textsOf(texts: unknown): string[] {
  if (typeof texts === 'string') return [texts];
  if (!isArray(texts)) throw invalid(`The texts are ${show(texts)}, not an array of strings`);
  return Array.from(texts, (text, index) => {
    if (typeof text !== 'string') throw invalid(`Text ${index} is ${show(text)}, not a string`, { index });
    return text;
  });
}
