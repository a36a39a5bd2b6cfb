import { whole } from '../call/checks';
import { messageOf } from '../call/errors';
import { invalid, show } from '../call/input';
import { aborted, checkWatch, watched } from '../call/limits';
import { optionReader, record, refused, untouched, type Given } from '../call/options';
import { addressOf, headersOf, methodOf } from './address';
import { Admission } from './admission';
import type { Head, Mode } from './attempt';
import { decoded, outgoing, OutgoingBody, type RequestBody } from './body';
import { contentOf, Exchange, notDecompressed, Stop, type Asked, type FinalAnswer, type Network } from './exchange';
import { statusFailure, unusable, wordsOf } from './failures';
import { fetchOver, type Fetch } from './fetch';
import { Host, type HostStats } from './host';
import { proxyRule } from './proxy';
import { retryAfter, retryRule } from './retry';
import { LONGEST_MS, Underway } from './running';
import { connectionsTo, load, type Connections, type TlsSettings } from './undici';

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
export type ResponseKind = 'auto' | 'json' | 'text' | 'bytes' | 'stream';

/** Options of a request. */
export interface RequestOptions {
  /** Default `'GET'`, with a body `'POST'`. */
  method?: string | undefined;
  /** Any that HTTP knows: an object, `Headers`, or pairs. */
  headers?: Record<string, string> | Headers | [string, string][] | undefined;
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

export const readOptions = optionReader<HttpClientOptions>({
  maxConcurrentRequests: true,
  perHostLimit: true,
  connectTimeoutMs: true,
  readTimeoutMs: true,
  retryAttempts: true,
  retryBackoffMs: true,
  retryOn: true,
  maxResponseMB: true,
  proxy: untouched,
  tls: record,
});

const REQUEST = { headers: untouched, as: true, signal: untouched, timeoutMs: true, retryAttempts: true } as const;
const readGet = optionReader<Omit<RequestOptions, 'method' | 'body'>>(REQUEST);
const readRequest = optionReader<RequestOptions>({ ...REQUEST, method: true, body: untouched });

const KINDS: readonly unknown[] = ['auto', 'json', 'text', 'bytes', 'stream'];

/** Hosts that are remembered when nothing is under way to them. */
const HOSTS = 1000;
const MB = 1024 * 1024;
/** Bytes of an answer of which the first words are shown. */
const SHOWN = 64 * 1024;
/** `GET`s a URL without waiting for a place, over connections of its own: to see whether somebody is there. */
export let getApart: (client: HttpClient, url: string, options: Omit<RequestOptions, 'method' | 'body'>) => Promise<unknown>;

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
export class HttpClient implements AsyncDisposable {
  readonly #hosts = new Map<string, Host>();
  readonly #network: Network;
  readonly #connections: (url: URL) => Connections;
  readonly #most: number;
  readonly #underway: Underway;
  #closed: Promise<void> | undefined;

  /**
   * `fetch` as browsers and Node.js have it, with the limits, retries and proxies of this client: to be handed to other
   * clients (`openai`, `ollama`, `@langchain/…`). Answers of any status are given; an abort rejects with the signal's
   * reason, as the standard has it; any other failure with an `EmbeddingError`.
   */
  readonly fetch: Fetch;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option; `BACKEND_UNAVAILABLE` where undici is not installed. */
  constructor(options: HttpClientOptions = {}) {
    const given = readOptions(options);
    const perHost = whole('perHostLimit', given.perHostLimit ?? 6, 1);
    const connectTimeoutMs = whole('connectTimeoutMs', given.connectTimeoutMs ?? 10_000, 1, LONGEST_MS);
    const readTimeoutMs = whole('readTimeoutMs', given.readTimeoutMs ?? 180_000, 1, LONGEST_MS);
    const tls = { ...given.tls };
    const proxyOf = proxyRule(given.proxy);
    this.#most = whole('maxResponseMB', given.maxResponseMB ?? 256, 1, 512) * MB;
    load();
    this.#underway = new Underway(readTimeoutMs);
    this.#connections = (url) => connectionsTo(url.origin, { connections: perHost, connectTimeoutMs, readTimeoutMs, tls }, proxyOf(url));
    this.#network = {
      leaveUnread: () => this.#underway.leaveUnread(),
      admission: new Admission(whole('maxConcurrentRequests', given.maxConcurrentRequests ?? 16, 1), perHost),
      rule: retryRule(given.retryAttempts ?? 3, given.retryBackoffMs ?? [100, 300, 900], given.retryOn),
      connectTimeoutMs,
      readTimeoutMs,
      proxyOf,
      host: (url) => {
        const known = this.#hosts.get(url.origin);
        if (known) return known;
        this.#forget();
        const host = new Host(this.#connections(url));
        this.#hosts.set(url.origin, host);
        return host;
      },
    };
    this.fetch = fetchOver(this.#network, (stop) => this.#underway.begin(stop));
  }

  /** `GET`s a URL. @throws `EmbeddingError` see {@link HttpClient}; `INVALID_ARGUMENT` for what cannot be asked. */
  async get<T = any>(url: string | URL, options: Omit<RequestOptions, 'method' | 'body'> = {}): Promise<T> {
    return this.#ask('GET', url, undefined, readGet(options)) as Promise<T>;
  }

  /** `POST`s a body: an object is sent as JSON. */
  async post<T = any>(url: string | URL, body?: RequestBody, options: Omit<RequestOptions, 'method' | 'body'> = {}): Promise<T> {
    return this.#ask('POST', url, body, readGet(options)) as Promise<T>;
  }

  /** Any request. */
  async request<T = any>(url: string | URL, options: RequestOptions = {}): Promise<T> {
    const { method, body, ...rest } = readRequest(options);
    return this.#ask(method === undefined ? (body === undefined ? 'GET' : 'POST') : method, url, body, rest) as Promise<T>;
  }

  static {
    getApart = (client, url, options) => client.#ask('GET', url, undefined, readGet(options), true);
  }

  /** How each host does, by its origin (`http://localhost:11434`). Of hosts that nothing is under way to, the latest 1000 are remembered. */
  getStats(): Record<string, HostStats> {
    return Object.fromEntries([...this.#hosts].map(([origin, host]) => [origin, host.stats()]));
  }

  /**
   * Waits for what runs, then closes all connections; a stream that nobody reads gets `readTimeoutMs`, and everything ten
   * times as much. New requests are refused with `CLOSED`. May be called any number of times.
   */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await this.#underway.close();
    await Promise.all([...this.#hosts.values()].map(({ connections }) => connections.destroy()));
  }

  async #ask(method: unknown, url: unknown, body: unknown, options: Given<RequestOptions>, apart = false): Promise<unknown> {
    const { as: kind = 'auto', headers, retryAttempts } = options;
    if (!KINDS.includes(kind)) throw refused('as', `${show(kind)} is not 'auto', 'json', 'text', 'bytes' or 'stream'`);
    const limits = checkWatch(options);
    const { signal, timeoutMs } = limits;
    const address = addressOf(url);
    const { body: out, type } = outgoing(body);
    const verb = methodOf(method);
    if (body !== undefined && (verb === 'GET' || verb === 'HEAD')) throw invalid(`A ${verb} request has no body: pass another method`);
    const asked: Omit<Asked, 'body'> = {
      method: verb,
      url: address.url,
      headers: headersOf(headers, address, type),
      redirect: 'follow',
      most: this.#most,
      modeOf: ({ status }: Head): Mode => (!isGood(status) ? 'words' : kind === 'stream' ? 'stream' : 'whole'),
      ...(retryAttempts !== undefined && { attempts: whole('retryAttempts', retryAttempts, 1, 100) }),
    };
    const { network, leave } = apart ? this.#apart() : { network: this.#network, leave: () => {} };
    const stop = new Stop();
    const running = this.#underway.begin((reason) => stop.stop(reason));
    const run = async (): Promise<unknown> => {
      const deadline = timeoutMs === undefined ? Infinity : performance.now() + timeoutMs;
      const answer = await new Exchange(network, { ...asked, body: out instanceof OutgoingBody ? out : await out }, stop, deadline).run();
      if (!answer.stream) return this.#parsed(answer, kind);
      return running.as(contentOf(answer), answer.transferred, signal, () => aborted(signal));
    };
    try {
      if (!signal && timeoutMs === undefined) return await run();
      return await watched(limits, () => stop.stop(new Error('Nobody waits for it any more')), run);
    } finally {
      running.answered();
      leave();
    }
  }

  /** The network for one request that waits for no other: with connections of its own. */
  #apart(): { network: Network; leave: () => void } {
    const own: Host[] = [];
    const host = (url: URL) => {
      own.push(new Host(this.#connections(url)));
      return own.at(-1)!;
    };
    return { network: { ...this.#network, admission: new Admission(1, 1), host }, leave: () => own.forEach(({ connections }) => void connections.destroy()) };
  }

  async #parsed({ status, statusText, headers, body, where }: FinalAnswer, kind: ResponseKind): Promise<unknown> {
    const good = isGood(status);
    let plain = body;
    try {
      plain = await decoded(body, headers['content-encoding'], this.#most);
    } catch (cause) {
      if (good) throw notDecompressed(cause, where);
    }
    if (!good) {
      const retryAfterMs = retryAfter(headers['retry-after']);
      throw statusFailure(status, statusText, wordsOf(where.redact(plain.toString())), where, retryAfterMs === undefined ? {} : { retryAfterMs });
    }
    if (kind === 'text') return plain.toString();
    if (kind === 'bytes' || (kind === 'auto' && (plain.length === 0 || !isJson(headers['content-type'])))) return Uint8Array.from(plain);
    try {
      return JSON.parse(plain.toString().replace(/^\uFEFF/, '')) as unknown;
    } catch (cause) {
      // The platform's words repeat a piece of it, which may be a piece of a key.
      const [fault] = messageOf(cause).split(',');
      const begins = wordsOf(where.redact(plain.subarray(0, SHOWN).toString())).slice(0, 200);
      throw unusable(`the answer is not JSON (${fault}): ${begins || 'it is empty'}`, where);
    }
  }

  /** Makes room for another host. */
  #forget(): void {
    if (this.#hosts.size < HOSTS) return;
    for (const [origin, host] of this.#hosts) {
      if (!host.idle) continue;
      this.#hosts.delete(origin);
      void host.connections.destroy();
      return;
    }
  }
}

function isGood(status: number): boolean {
  return status >= 200 && status < 300;
}

function isJson(contentType: string | string[] | undefined): boolean {
  const type = String(contentType ?? '').split(';', 1)[0]!.trim().toLowerCase();
  return type.endsWith('/json') || type.endsWith('+json');
}
