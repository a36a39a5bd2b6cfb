import { randomUUID } from 'node:crypto';
import { createServer, STATUS_CODES, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

import { Refusal } from './openai';

/** A body that is not wanted is read to its end and thrown away if it is no longer than this; else the connection ends. */
const SMALL_BODY = 1 << 16;

/** A piece of a body takes as long to be read as so many bytes, however short it is. */
const LEAST_PIECE = 64;

/** Bytes that are made room for at least, once a body comes in pieces. */
const SMALLEST_ROOM = 1 << 12;

/** How long an answer is left to a client that is still sending what is not wanted, before its connection ends. */
const LINGER_MS = 1000;

/** Longer than load balancers keep idle connections: they must be the ones who close, or a request may be lost. */
const KEEP_ALIVE_MS = 65_000;

/** The client went away. */
export class Gone extends Error {}

interface Connection {
  exchanges: Set<Exchange>;
  /** Sent when those are over: what came after them was not HTTP. */
  last: Refusal | undefined;
}

/** How a {@link httpServer} is made. */
export interface HttpServerOptions {
  /** How long a body may take to arrive, and how long a client may take nothing of its answer. */
  bodyTimeoutMs: number;
  maxConnections: number;
  /** Told the status of every answer, whoever gave it; 0 where a client went away before there was one. */
  answered: (status: number) => void;
}

/** A server for `handle`, which answers each request. What it throws is the answer. */
export function httpServer(handle: (exchange: Exchange) => Promise<void>, { bodyTimeoutMs, maxConnections, answered }: HttpServerOptions): Server {
  const connections = new WeakMap<Socket, Connection>();
  const connectionOf = (socket: Socket): Connection => {
    let connection = connections.get(socket);
    if (!connection) {
      connections.set(socket, (connection = { exchanges: new Set(), last: undefined }));
      // One listener, however many requests wait on the connection.
      socket.on('close', () => {
        for (const exchange of connection!.exchanges) exchange.gone();
      });
    }
    return connection;
  };
  const endWith = (socket: Socket, refusal: Refusal) => {
    if (socket.writable) {
      socket.end(rawAnswer(refusal));
      answered(refusal.status);
    }
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
  };
  const begin = (request: IncomingMessage, response: ServerResponse, awaited: boolean, refusal = withWrongHost(request)) => {
    const connection = connectionOf(request.socket);
    const exchange = new Exchange(request, response, awaited);
    connection.exchanges.add(exchange);
    exchange.whenOver(() => answered(exchange.status));
    response.on('close', () => {
      if (!response.writableFinished) exchange.gone();
      connection.exchanges.delete(exchange);
      if (connection.exchanges.size === 0 && connection.last !== undefined) endWith(request.socket, connection.last);
    });
    if (refusal) return exchange.refuse(refusal);
    handle(exchange).catch((error: unknown) => exchange.refuse(error instanceof Refusal || error instanceof Gone ? error : internal(error)));
  };

  const server = createServer({
    noDelay: true,
    // Checked here, with an answer that says so.
    requireHostHeader: false,
    keepAliveTimeout: KEEP_ALIVE_MS,
    headersTimeout: Math.min(bodyTimeoutMs, 60_000),
    // Of headers and body together: a body has a limit of its own, which answers better.
    requestTimeout: bodyTimeoutMs + 60_000,
    connectionsCheckingInterval: Math.min(Math.max(bodyTimeoutMs / 4, 50), 5000),
  });
  server.maxConnections = maxConnections;
  // A client that takes nothing of its answer holds the connection, and all that waits in it, for ever.
  server.setTimeout(bodyTimeoutMs, (socket) => {
    const connection = connections.get(socket);
    // One that has asked for nothing yet gets an answer that says so, when the time for headers is over.
    if (!connection) return;
    const [first] = connection.exchanges;
    // Nor is it the client who is slow while its answer is being made.
    if (first === undefined || first.status !== 0) socket.destroy();
  });
  server.on('request', (request: IncomingMessage, response: ServerResponse) => begin(request, response, false));
  server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => begin(request, response, true));
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    const expected = String(request.headers.expect).slice(0, 40);
    begin(request, response, false, new Refusal(417, `Expect: ${expected} is not known: leave it out, or send 100-continue`));
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    if (!socket.writable || error.code === 'ECONNRESET') return void socket.destroy();
    const connection = connections.get(socket);
    const refusal = unreadable(error);
    for (const exchange of connection?.exchanges ?? []) if (exchange.brokenOff(refusal)) return;
    if (connection && connection.exchanges.size > 0) connection.last = refusal;
    else endWith(socket, refusal);
  });
  return server;
}

function withWrongHost({ httpVersion, rawHeaders }: IncomingMessage): Refusal | undefined {
  const hosts = rawHeaders.filter((name, at) => at % 2 === 0 && name.toLowerCase() === 'host').length;
  // Of several, another program on the way may have believed another one.
  const why = hosts > 1 ? 'There are several headers Host' : hosts === 0 && httpVersion === '1.1' ? 'There is no header Host, which HTTP 1.1 demands' : undefined;
  return why === undefined ? undefined : new Refusal(400, why, { code: 'invalid_http', headers: { Connection: 'close' } });
}

/**
 * Bytes as they come, in one place: a piece may be a single byte, and hold hundreds of its own. They take at most twice
 * their number.
 */
class Pieces {
  #bytes: Buffer | undefined;
  size = 0;
  count = 0;

  /** Gives how many bytes more are held. */
  add(piece: Buffer): number {
    const before = this.#bytes?.length ?? 0;
    const size = this.size + piece.length;
    // Nothing is copied of a body that comes in one piece.
    if (this.#bytes === undefined) this.#bytes = piece;
    else {
      if (size > before) {
        const larger = Buffer.allocUnsafeSlow(Math.max(size, 2 * before, SMALLEST_ROOM));
        this.#bytes.copy(larger, 0, 0, this.size);
        this.#bytes = larger;
      }
      piece.copy(this.#bytes, this.size);
    }
    this.size = size;
    this.count++;
    return this.#bytes.length - before;
  }

  all(): Buffer {
    return this.#bytes?.subarray(0, this.size) ?? Buffer.alloc(0);
  }
}

/** One request and its answer. */
export class Exchange {
  readonly request: IncomingMessage;
  readonly started = performance.now();
  /** Of the answer; 0 before there is one. */
  status = 0;
  readonly #response: ServerResponse;
  /** Whether the client waits for leave to send its body. */
  #awaited: boolean;
  readonly #abort = new AbortController();
  #gone = false;
  readonly #whenOver: (() => void)[] = [];
  #failBody: ((error: Error) => void) | undefined;
  /** Nothing more can be read from the connection. */
  #broken = false;

  constructor(request: IncomingMessage, response: ServerResponse, awaited: boolean) {
    this.request = request;
    this.#response = response;
    this.#awaited = awaited;
    // Without a listener, what goes wrong while nobody reads would end the process.
    request.on('error', () => {});
    response.on('error', () => {});
    response.on('close', () => this.#ended());
    response.setHeader('X-Content-Type-Options', 'nosniff');
  }

  /** Aborted when nobody wants the answer any more. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Whether the answer is sent, or nobody is there to take one. */
  get over(): boolean {
    return this.#response.writableFinished || this.#response.destroyed || this.#gone;
  }

  /** Calls back once. */
  whenOver(callback: () => void): void {
    this.#whenOver.push(callback);
  }

  /** The client went away. */
  gone(): void {
    this.#gone = true;
    this.#failBody?.(new Gone());
    this.#abort.abort(new Gone());
    this.#ended();
  }

  /** Ends the work, or the reading of the body, but not the connection: there is still an answer, this one. */
  stop(refusal: Refusal): void {
    this.#abort.abort();
    this.#failBody?.(refusal);
  }

  #ended(): void {
    for (const callback of this.#whenOver.splice(0)) callback();
  }

  /** Ends the reading of the body, if that is what is going on. */
  brokenOff(refusal: Refusal): boolean {
    if (!this.#failBody || this.request.complete) return false;
    this.#broken = true;
    this.#failBody(refusal);
    return true;
  }

  /**
   * The whole body. `received` is told of the bytes that are held for it, as they come, and may throw.
   * @throws {@link Refusal} 413 or 408, {@link Gone}.
   */
  async body({ maxBytes, timeoutMs, received }: { maxBytes: number; timeoutMs: number; received: (bytes: number) => void }): Promise<Buffer> {
    const { request } = this;
    const length = Number(request.headers['content-length'] ?? 0);
    const tooLarge = () => new Refusal(413, `The body has more than ${maxBytes} bytes, which is the limit: send several requests`, { code: 'request_too_large' });
    if (length > maxBytes) throw tooLarge();
    if (this.#awaited) this.#response.writeContinue();
    this.#awaited = false;
    const pieces = new Pieces();
    const tooManyPieces = () => new Refusal(413, `The body came in ${pieces.count} pieces of ${Math.ceil(pieces.size / pieces.count)} bytes on average: send it in larger ones`, { code: 'request_too_large' });
    const slow = () => new Refusal(408, `The body did not come within ${timeoutMs} ms: ${pieces.size}${length > 0 ? ` of ${length}` : ''} bytes did`, { code: 'request_timeout', headers: { Connection: 'close' } });
    let timer: NodeJS.Timeout | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#failBody = reject;
        timer = setTimeout(() => reject(slow()), timeoutMs);
        request.on('data', (piece: Buffer) => {
          try {
            if (pieces.size + piece.length > maxBytes) throw tooLarge();
            received(pieces.add(piece));
            if (pieces.count * LEAST_PIECE > maxBytes) throw tooManyPieces();
          } catch (error) {
            reject(error as Error);
          }
        });
        request.on('end', resolve);
        if (this.#gone) reject(new Gone());
      });
    } finally {
      clearTimeout(timer);
      this.#failBody = undefined;
      request.removeAllListeners('data');
    }
    return pieces.all();
  }

  header(name: string, value: string): void {
    if (!this.#response.headersSent) this.#response.setHeader(name, value);
  }

  /** The whole answer. */
  answer(status: number, type: string, body: string | Buffer): void {
    if (this.over || this.#response.headersSent) return;
    this.status = status;
    this.#response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) });
    this.#response.end(this.request.method === 'HEAD' ? undefined : body);
  }

  /** The answer as it is made: `next` gives chunks, and `undefined` after the last one. Ends early with the client. */
  async stream(type: string, next: () => Promise<Buffer | undefined>): Promise<void> {
    const response = this.#response;
    let [chunk, following] = [await next(), await next()];
    if (following === undefined) return this.answer(200, type, chunk ?? '');
    if (this.over) return;
    this.status = 200;
    response.writeHead(200, { 'Content-Type': type });
    const taken = this.#reader();
    while (chunk !== undefined && !this.over) {
      if (!response.write(chunk)) await taken();
      [chunk, following] = [following, following && (await next())];
    }
    if (!this.over) response.end();
  }

  /** Gives a function that waits until the client takes more. It listens once, however often it waits. */
  #reader(): () => Promise<void> {
    const response = this.#response;
    let go = () => {};
    response.on('drain', () => go());
    this.whenOver(() => go());
    return () =>
      new Promise((resolve) => {
        go = resolve;
        if (this.over) go();
      });
  }

  /** Answers with an error, unless there is an answer already. */
  refuse(error: Refusal | Gone): void {
    const response = this.#response;
    if (error instanceof Gone || this.over) return;
    if (response.headersSent) return void response.destroy();
    const { status, headers } = error;
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    const unread = !this.request.complete && this.#mayHaveMore();
    if (!unread || this.#broken) {
      if (this.#broken) response.setHeader('Connection', 'close');
      return this.answer(status, JSON_TYPE, error.toJson());
    }
    // What the client still sends is read and thrown away for a moment: a connection that is closed with data
    // underway is reset, and the client would never see why.
    this.status = status;
    const body = error.toJson();
    response.writeHead(status, { 'Content-Type': JSON_TYPE, 'Content-Length': Buffer.byteLength(body), Connection: 'close' });
    if (this.request.method !== 'HEAD') response.write(body);
    const end = () => {
      clearTimeout(timer);
      if (!this.over) response.end();
    };
    const timer = setTimeout(end, LINGER_MS);
    this.request.on('end', end).on('close', end).resume();
  }

  /** Whether more of the body will come than is thrown away anyway. */
  #mayHaveMore(): boolean {
    const { headers } = this.request;
    if (this.#awaited || headers['transfer-encoding'] !== undefined) return true;
    return Number(headers['content-length'] ?? 0) > SMALL_BODY;
  }
}

export const JSON_TYPE = 'application/json; charset=utf-8';

function internal(error: unknown): Refusal {
  return new Refusal(500, `Internal error, please report it: ${(error as Error | null)?.message ?? String(error)}`, { code: 'internal_error' });
}

/** What a client sent that is not HTTP. */
function unreadable({ code = '', message }: NodeJS.ErrnoException): Refusal {
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return new Refusal(408, 'The request did not come in time', { code: 'request_timeout' });
  if (code === 'HPE_HEADER_OVERFLOW') return new Refusal(431, 'The headers are larger than 16 kB', { code: 'headers_too_large' });
  if (code === 'HPE_INVALID_EOF_STATE') return new Refusal(400, 'The connection ended before the request did: Content-Length is more than what was sent', { code: 'incomplete_request' });
  return new Refusal(400, `This is not HTTP, or Content-Length is less than what was sent: ${message}`, { code: 'invalid_http' });
}

function rawAnswer(refusal: Refusal): string {
  const body = refusal.toJson();
  return (
    `HTTP/1.1 ${refusal.status} ${STATUS_CODES[refusal.status]}\r\nContent-Type: ${JSON_TYPE}\r\n` +
    `Content-Length: ${Buffer.byteLength(body)}\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n${body}`
  );
}

/** The host, where the whole address is asked for as of a proxy, and the path, without what follows and slashes at its end. */
export function targetOf(url: string): [authority: string | undefined, path: string] {
  const [, authority] = /^https?:\/\/([^/?]*)/i.exec(url) ?? [];
  let path = authority === undefined ? url : url.slice(url.indexOf('//') + 2 + authority.length);
  const query = path.indexOf('?');
  if (query >= 0) path = path.slice(0, query);
  let end = path.length;
  while (end > 1 && path[end - 1] === '/') end--;
  return [authority, path.slice(0, end)];
}

/** The client's own, so that it can be found in both logs. */
export function requestId(given: string | string[] | undefined): string {
  return typeof given === 'string' && /^[\w.:/+=-]{1,128}$/.test(given) ? given : randomUUID();
}
