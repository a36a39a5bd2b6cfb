import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { join } from 'node:path';

import { EmbeddingError } from '../call/errors';
import { show } from '../call/input';
import { refused, type Given } from '../call/options';
import { PROMETHEUS_TYPE } from '../monitor/reports';
import { answersTo, areHosts } from '../server/host-header';
import { bearer, Keys, password } from '../server/keys';

/** Options of {@link PerformanceDashboard.serve}. */
export interface ServeOptions {
  /** 0 (default): any that is free. */
  port?: number | undefined;
  /** Who may ask: `'127.0.0.1'` (default), this machine only; `'0.0.0.0'`, everybody. */
  host?: string | undefined;
  /**
   * Names, such as `'box.example'`, by which it may be asked for beside 127.0.0.1 and localhost; `'*'`: any. Default: none
   * where `host` is an address of this machine only, so that no other site can reach the page through the browser of who
   * visits it; else any.
   */
  allowedHosts?: string[] | undefined;
  /**
   * What those who look have to know, or several of them: printable ASCII, no blank at either end. A browser asks for it as a
   * password (the name does not matter), programs send it as `Authorization: Bearer …`. Default: nothing. `/health` is open
   * to all, and tells those without a key that the page is there and no more.
   */
  apiKey?: string | string[] | undefined;
  /** Whether the process stays alive for it. Default false. */
  keepAlive?: boolean | undefined;
}

/** A page that is being served. */
export interface DashboardServer extends AsyncDisposable {
  /** Where it is. `/metrics` (for Prometheus) and `/health` lie beside it. */
  readonly url: string;
  readonly port: number;
  /** Ends all connections. */
  close(): Promise<void>;
}

/** What a page shows. */
export interface Live {
  /** Everything, as JSON. */
  snapshot(): string;
  prometheus(): string;
  health(): object;
  /** Sends what is new (`point`) or everything anew (`snapshot`), as JSON, until the function that it gives is called. */
  subscribe(send: (event: 'point' | 'snapshot', json: string) => void): () => void;
}

/** The files of the page, beside this one: see `dashboard/` and `scripts/page.mjs`. */
const FILES: Record<string, [file: string, type: string]> = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/page.css': ['page.css', 'text/css; charset=utf-8'],
  '/page.js': ['page.js', 'text/javascript; charset=utf-8'],
  '/uPlot.css': ['uPlot.css', 'text/css; charset=utf-8'],
  '/uPlot.js': ['uPlot.js', 'text/javascript; charset=utf-8'],
  '/icon.svg': ['icon.svg', 'image/svg+xml'],
};

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

/** How long a client may take for its headers, and how long it may send or take nothing. Longer than a heartbeat. */
const SILENT_MS = 30_000;

export async function serve(
  live: Live,
  { port = 0, host = '127.0.0.1', allowedHosts = [], apiKey, keepAlive = false }: Given<ServeOptions>,
  whenClosed: () => void,
): Promise<DashboardServer> {
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw refused('port', `${show(port)} is not a whole number from 0 to 65535`);
  if (typeof host !== 'string' || host === '') throw refused('host', `${show(host)} is not a name or an address`);
  if (!areHosts(allowedHosts)) throw refused('allowedHosts', `${show(allowedHosts)} is not an array of names or addresses, without scheme and port`);
  const keys = new Keys(apiKey);
  if (typeof keepAlive !== 'boolean') throw refused('keepAlive', `${show(keepAlive)} is not true or false`);

  const page = new Map(Object.entries(FILES).map(([url, [file, type]]) => [url, { type, body: readFileSync(join(__dirname, 'page', file)) }]));
  const readers = new Set<ServerResponse>();
  const answers = answersTo(host, allowedHosts);

  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const send = (status: number, type: string, body: string | Buffer) => {
      response.writeHead(status, { ...HEADERS, 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) });
      response.end(request.method === 'HEAD' ? undefined : body);
    };
    const text = 'text/plain; charset=utf-8';
    // Another site must not reach a page of this machine by a name of its own.
    if (!answers(request.headers.host ?? '')) return send(403, text, 'This page has another name: ask for it as 127.0.0.1 or localhost, or name this host in allowedHosts (--allow-host)\n');
    const path = (request.url ?? '/').split('?', 1)[0]!;
    const { authorization } = request.headers;
    const key = bearer(authorization) ?? password(authorization);
    if (keys.needed && (key === undefined || !keys.accept(key))) {
      if (path === '/health') return send(200, 'application/json', '{"status":"ok"}\n');
      response.setHeader('WWW-Authenticate', 'Basic realm="embedcore", charset="UTF-8"');
      return send(401, text, 'This page has a key: send it as a password, or as Authorization: Bearer YOUR_KEY\n');
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('Allow', 'GET, HEAD');
      return send(405, text, 'Only GET and HEAD\n');
    }
    const file = page.get(path);
    if (file) return send(200, file.type, file.body);
    if (path === '/metrics') return send(200, PROMETHEUS_TYPE, live.prometheus());
    if (path === '/health') return send(200, 'application/json', `${JSON.stringify({ status: 'ok', ...live.health() })}\n`);
    if (path === '/snapshot') return send(200, 'application/json', live.snapshot());
    if (path !== '/events' || request.method === 'HEAD') return send(path === '/events' ? 200 : 404, text, path === '/events' ? '' : 'There is no such page\n');
    if (readers.size >= MAX_READERS) {
      response.setHeader('Retry-After', '10');
      return send(503, text, `There are ${MAX_READERS} readers already: close one of their pages\n`);
    }
    response.writeHead(200, { ...HEADERS, 'Content-Type': 'text/event-stream', 'X-Accel-Buffering': 'no' });
    // All that was before, at once: nothing can be missed between it and what follows.
    response.write(`retry: 1000\nevent: snapshot\ndata: ${live.snapshot()}\n\n`);
    const write = (chunk: string) => {
      if (response.writableLength > MAX_BACKLOG) response.destroy();
      else response.write(chunk);
    };
    const unsubscribe = live.subscribe((event, json) => write(`event: ${event}\ndata: ${json}\n\n`));
    const heartbeat = setInterval(() => write(':\n\n'), HEARTBEAT_MS).unref();
    readers.add(response);
    response.on('close', () => {
      unsubscribe();
      clearInterval(heartbeat);
      readers.delete(response);
    });
  };

  const server = createServer({ headersTimeout: SILENT_MS, requestTimeout: SILENT_MS, connectionsCheckingInterval: SILENT_MS / 6 }, (request, response) => {
    try {
      answer(request, response);
    } catch (error) {
      if (!response.headersSent) response.writeHead(500, { ...HEADERS, 'Content-Type': 'text/plain; charset=utf-8' });
      response.end(`${(error as Error).message}\n`);
    }
  });
  server.maxConnections = MAX_CONNECTIONS;
  // Ends those that have stopped reading, too.
  server.setTimeout(SILENT_MS);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => reject(cannotListen(cause, host, port)));
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

function cannotListen(cause: NodeJS.ErrnoException, host: string, port: number): EmbeddingError {
  const why = {
    EADDRINUSE: `port ${port} of ${host} is in use: pass another one, or 0 for any that is free`,
    EACCES: `port ${port} needs rights that this process does not have: pass one above 1023, or 0 for any that is free`,
    EADDRNOTAVAIL: `${host} is no address of this machine: pass 127.0.0.1, or 0.0.0.0 for all`,
    ENOTFOUND: `${host} is no address of this machine: pass 127.0.0.1, or 0.0.0.0 for all`,
  }[cause.code ?? ''];
  const option = cause.code === 'EADDRNOTAVAIL' || cause.code === 'ENOTFOUND' ? 'host' : 'port';
  return new EmbeddingError('INVALID_CONFIG', `The dashboard cannot be served: ${why ?? cause.message}`, { cause, details: { option, host, port } });
}
