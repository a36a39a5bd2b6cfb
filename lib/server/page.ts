import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { extname, join } from 'node:path';

import { EmbeddingError, toEmbeddingError, type EmbeddingErrorCode } from '../call/errors';
import { show } from '../call/input';
import { refused, type Given } from '../call/options';
import { answersTo, areHosts } from './host-header';
import { bearer, Keys, password } from './keys';
import type { PageServer, ServeOptions } from './serve-options';

// A page for people, and what it asks for: served to this machine, unless somebody wants it otherwise.

/** What is served. */
export interface Page {
  /** What errors call it. */
  name: string;
  /** Its files, and where they lie. The first one is `/`. */
  directory: string;
  files: readonly string[];
  /** What `/health` tells who may ask. */
  health(): object;
  /** What can be read, by path. */
  texts?: Record<string, { type: string; body(): string }>;
  /** What can be asked for with JSON, by path. The signal ends what nobody waits for any more. */
  calls?: Record<string, (given: Record<string, unknown>, signal: AbortSignal) => Promise<object>>;
  /** The first event that a reader of `/events` is sent. */
  greeting(): { event: string; json: string };
  /** Sends events until the function that it gives is called. */
  subscribe(send: (event: string, json: string) => void): () => void;
}

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

const TEXT = 'text/plain; charset=utf-8';
const JSON_TYPE = 'application/json';

/** Nothing but its own files: names that are shown cannot run a script, even if one should slip through. */
const HEADERS = {
  'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
};

/** A line now and then, so that a connection which is dead is noticed and one that waits is not cut. */
const HEARTBEAT_MS = 15_000;

/** Most bytes that wait for one reader: one that reads no more is let go, and comes back by itself. */
const MAX_BACKLOG = 64 << 20;

/** Most connections, and most of them that are told what is new: each holds what its reader has not taken yet. */
const MAX_CONNECTIONS = 256;
const MAX_READERS = 64;

/** Most calls that are answered at a time. */
const MAX_CALLS = 32;

/** Longest body of a call, in bytes. */
const MAX_BODY = 8 << 20;

/** How long a client may take for its headers, and how long it may send or take nothing. Longer than a heartbeat. */
const SILENT_MS = 30_000;

/** Which errors are the caller's, or pass; all others are ours. */
const STATUSES: Partial<Record<EmbeddingErrorCode, number>> = { INVALID_ARGUMENT: 400, INVALID_CONFIG: 400, INPUT_TOO_LONG: 413, OVERLOADED: 503, NOT_INITIALIZED: 503, TIMED_OUT: 503 };

/** @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option, where the port or the host cannot be had too. */
export async function servePage(page: Page, options: Given<ServeOptions>, whenClosed: () => void): Promise<PageServer> {
  const { port = 0, host = '127.0.0.1', allowedHosts = [], apiKey, keepAlive = false } = options;
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw refused('port', `${show(port)} is not a whole number from 0 to 65535`);
  if (typeof host !== 'string' || host === '') throw refused('host', `${show(host)} is not a name or an address`);
  if (!areHosts(allowedHosts)) throw refused('allowedHosts', `${show(allowedHosts)} is not an array of names or addresses, without scheme and port`);
  const keys = new Keys(apiKey);
  if (typeof keepAlive !== 'boolean') throw refused('keepAlive', `${show(keepAlive)} is not true or false`);

  const files = new Map(page.files.map((file, at) => [at === 0 ? '/' : `/${file}`, { type: TYPES[extname(file)]!, body: readFileSync(join(page.directory, file)) }]));
  const { texts = {}, calls = {} } = page;
  const readers = new Set<ServerResponse>();
  let answering = 0;
  const answers = answersTo(host, allowedHosts);

  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const send = (status: number, type: string, body: string | Buffer) => {
      response.writeHead(status, { ...HEADERS, 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) });
      response.end(request.method === 'HEAD' ? undefined : body);
    };
    // Another site must not reach a page of this machine by a name of its own.
    if (!answers(request.headers.host ?? '')) return send(403, TEXT, 'This page has another name: ask for it as 127.0.0.1 or localhost, or name this host in allowedHosts (--allow-host)\n');
    const path = (request.url ?? '/').split('?', 1)[0]!;
    const { authorization } = request.headers;
    const key = bearer(authorization) ?? password(authorization);
    if (keys.needed && (key === undefined || !keys.accept(key))) {
      if (path === '/health') return send(200, JSON_TYPE, '{"status":"ok"}\n');
      response.setHeader('WWW-Authenticate', 'Basic realm="embedcore", charset="UTF-8"');
      return send(401, TEXT, 'This page has a key: send it as a password, or as Authorization: Bearer YOUR_KEY\n');
    }
    const call = Object.hasOwn(calls, path) ? calls[path] : undefined;
    const methods = call ? ['POST'] : ['GET', 'HEAD'];
    if (!methods.includes(request.method ?? '')) {
      response.setHeader('Allow', methods.join(', '));
      return send(405, TEXT, `Only ${methods.join(' and ')}\n`);
    }
    if (call) return void called(call, request, response, send);
    const file = files.get(path);
    if (file) return send(200, file.type, file.body);
    if (path === '/health') return send(200, JSON_TYPE, `${JSON.stringify({ status: 'ok', ...page.health() })}\n`);
    if (Object.hasOwn(texts, path)) return send(200, texts[path]!.type, texts[path]!.body());
    if (path !== '/events' || request.method === 'HEAD') return send(path === '/events' ? 200 : 404, TEXT, path === '/events' ? '' : 'There is no such page\n');
    if (readers.size >= MAX_READERS) {
      response.setHeader('Retry-After', '10');
      return send(503, TEXT, `There are ${MAX_READERS} readers already: close one of their pages\n`);
    }
    response.writeHead(200, { ...HEADERS, 'Content-Type': 'text/event-stream', 'X-Accel-Buffering': 'no' });
    const { event, json } = page.greeting();
    response.write(`retry: 1000\nevent: ${event}\ndata: ${json}\n\n`);
    const write = (chunk: string) => {
      if (response.writableLength > MAX_BACKLOG) response.destroy();
      else response.write(chunk);
    };
    const unsubscribe = page.subscribe((event, json) => write(`event: ${event}\ndata: ${json}\n\n`));
    const heartbeat = setInterval(() => write(':\n\n'), HEARTBEAT_MS).unref();
    readers.add(response);
    response.on('close', () => {
      unsubscribe();
      clearInterval(heartbeat);
      readers.delete(response);
    });
  };

  /** Reads what a call is given, and answers it. */
  const called = async (
    call: (given: Record<string, unknown>, signal: AbortSignal) => Promise<object>,
    request: IncomingMessage,
    response: ServerResponse,
    send: (status: number, type: string, body: string) => void,
  ) => {
    const refuse = (status: number, code: EmbeddingErrorCode, message: string) => send(status, JSON_TYPE, `${JSON.stringify({ error: { code, message } })}\n`);
    // A form of another site can send no such type without asking first.
    if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '')) return refuse(415, 'INVALID_ARGUMENT', 'Send JSON, as Content-Type: application/json');
    if (answering >= MAX_CALLS) {
      response.setHeader('Retry-After', '1');
      return refuse(503, 'OVERLOADED', `${MAX_CALLS} questions are being answered already: ask again in a moment`);
    }
    const stop = new AbortController();
    response.once('close', () => stop.abort());
    answering++;
    try {
      const body = await bodyOf(request);
      if (body === undefined) {
        // What is left of it is not waited for.
        response.setHeader('Connection', 'close');
        return refuse(413, 'INVALID_ARGUMENT', `The question has more than ${MAX_BODY >> 20} MB`);
      }
      const given = parsed(body);
      if (given === undefined) return refuse(400, 'INVALID_ARGUMENT', 'The question is not an object in JSON');
      // The answer may take longer than a client may be silent.
      request.socket.setTimeout(0);
      const found = await call(given, stop.signal);
      if (!response.destroyed) send(200, JSON_TYPE, JSON.stringify(found));
    } catch (thrown) {
      if (response.destroyed) return;
      const { code, message } = toEmbeddingError(thrown);
      refuse(STATUSES[code] ?? 500, code, message);
    } finally {
      answering--;
      request.socket.setTimeout(SILENT_MS);
    }
  };

  const server = createServer({ headersTimeout: SILENT_MS, requestTimeout: SILENT_MS, connectionsCheckingInterval: SILENT_MS / 6 }, (request, response) => {
    try {
      answer(request, response);
    } catch (error) {
      if (!response.headersSent) response.writeHead(500, { ...HEADERS, 'Content-Type': TEXT });
      response.end(`${(error as Error).message}\n`);
    }
  });
  server.maxConnections = MAX_CONNECTIONS;
  // Ends those that have stopped reading, too.
  server.setTimeout(SILENT_MS);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => reject(cannotListen(page.name, cause, host, port)));
    server.listen(port, host, resolve);
  });
  if (!keepAlive) {
    server.unref();
    server.on('connection', (socket) => socket.unref());
  }
  const bound = (server.address() as { port: number }).port;
  let closed: Promise<void> | undefined;
  const close = () =>
    (closed ??= new Promise((resolve) => {
      whenClosed();
      for (const reader of readers) reader.end();
      server.close(() => resolve());
      server.closeAllConnections();
    }));
  const shown = isIP(host) === 6 ? `[${host}]` : host;
  return { url: `http://${shown}:${bound}/`, port: bound, close, [Symbol.asyncDispose]: close };
}

/** The body of a request; nothing where it is too long. */
async function bodyOf(request: IncomingMessage): Promise<string | undefined> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > MAX_BODY) return undefined;
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

function parsed(body: string): Record<string, unknown> | undefined {
  try {
    const given = JSON.parse(body) as unknown;
    return typeof given === 'object' && given !== null && !Array.isArray(given) ? (given as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function cannotListen(name: string, cause: NodeJS.ErrnoException, host: string, port: number): EmbeddingError {
  const why = {
    EADDRINUSE: `port ${port} of ${host} is in use: pass another one, or 0 for any that is free`,
    EACCES: `port ${port} needs rights that this process does not have: pass one above 1023, or 0 for any that is free`,
    EADDRNOTAVAIL: `${host} is no address of this machine: pass 127.0.0.1, or 0.0.0.0 for all`,
    ENOTFOUND: `${host} is no address of this machine: pass 127.0.0.1, or 0.0.0.0 for all`,
  }[cause.code ?? ''];
  const option = cause.code === 'EADDRNOTAVAIL' || cause.code === 'ENOTFOUND' ? 'host' : 'port';
  return new EmbeddingError('INVALID_CONFIG', `${name} cannot be served: ${why ?? cause.message}`, { cause, details: { option, host, port } });
}
