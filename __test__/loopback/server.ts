// A server on this machine that speaks the interfaces it is given, counts what is asked of it, and misbehaves as it is told.

import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';

import { onTestFinished } from 'vitest';

/** A request, whole. */
export interface Received {
  method: string;
  /** Without the query. */
  path: string;
  query: URLSearchParams;
  headers: IncomingHttpHeaders;
  body: Buffer;
  /** The body, if it is JSON. */
  json: any;
  /** Whether the client went away before it was answered. */
  aborted: boolean;
}

/** What is answered, and how. */
export interface Reply {
  /** Default 200. */
  status?: number;
  headers?: Record<string, string | string[]>;
  /** Sent as JSON. */
  json?: unknown;
  /** Sent as it is; an array or an iterable piece by piece, each flushed. */
  body?: string | Buffer | Iterable<string | Buffer> | AsyncIterable<string | Buffer>;
  /** Milliseconds before the headers. */
  delayMs?: number;
  /** Splits the body into pieces of so many bytes. */
  pieceBytes?: number;
  /** Milliseconds after each piece. */
  pieceMs?: number;
  /** Resets the connection after so many bytes of the body; 0: before the headers. */
  resetAfter?: number;
  /** Ends the connection in order after so many bytes, whatever the headers have promised. */
  endAfter?: number;
  gzip?: boolean;
}

/** Answers the requests that are its own. */
export type Api = (request: Received) => Reply | undefined | Promise<Reply | undefined>;

/** Changes what would be answered. */
export type Fault = (reply: Reply, request: Received) => Reply;

export interface Loopback {
  url: string;
  port: number;
  /** Everything that was asked for, in the order of arrival. */
  requests: Received[];
  /** Requests that have arrived whole and are not answered to the end. */
  inFlight: number;
  /** The most of them at a time. */
  most: number;
  /** Connections that are open, and that were ever made. */
  open: number;
  connections: number;
  /** The next requests have these, one each. */
  next(...faults: Fault[]): void;
  /** Every request without one of those has this. */
  always(fault: ((request: Received) => Fault | undefined) | undefined): void;
  close(): Promise<void>;
}

export interface LoopbackOptions {
  apis?: Api[];
  /** PEM. */
  tls?: { key: string; cert: string };
  host?: string;
}

/** Listens until it is closed. */
export async function listen({ apis = [], tls, host = '127.0.0.1' }: LoopbackOptions = {}): Promise<Loopback> {
  const sockets = new Set<Socket>();
  const queue: Fault[] = [];
  let always: ((request: Received) => Fault | undefined) | undefined;

  const handle = async (incoming: IncomingMessage, response: ServerResponse) => {
    const request = await receive(incoming);
    loopback.requests.push(request);
    loopback.most = Math.max(loopback.most, ++loopback.inFlight);
    response.once('close', () => {
      loopback.inFlight--;
      request.aborted = !response.writableFinished;
    });
    const fault = queue.shift() ?? always?.(request);
    let reply: Reply | undefined;
    for (const api of apis) reply ??= await api(request);
    reply ??= { status: 404, json: { error: `${request.method} ${request.path}: not found` } };
    await send(fault?.(reply, request) ?? reply, response);
  };

  const listener = (incoming: IncomingMessage, response: ServerResponse) => {
    // Whoever went away has no need of an answer.
    handle(incoming, response).catch(() => response.destroy());
  };
  const server = tls ? createTlsServer(tls, listener) : createServer(listener);
  server.on('connection', (socket: Socket) => {
    loopback.connections++;
    loopback.open++;
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => {
      loopback.open--;
      sockets.delete(socket);
    });
  });
  server.on('tlsClientError', () => {});
  server.keepAliveTimeout = 60_000;
  server.listen(0, host);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;

  const loopback: Loopback = {
    url: `${tls ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${port}`,
    port,
    requests: [],
    inFlight: 0,
    most: 0,
    open: 0,
    connections: 0,
    next: (...faults) => void queue.push(...faults),
    always: (fault) => void (always = fault),
    async close() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
  return loopback;
}

/** Listens until the test ends. */
export async function loopback(options?: LoopbackOptions): Promise<Loopback> {
  const server = await listen(options);
  onTestFinished(() => server.close());
  return server;
}

async function receive(incoming: IncomingMessage): Promise<Received> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk as Buffer);
  const body = Buffer.concat(chunks);
  const { pathname, searchParams } = new URL(incoming.url!, 'http://localhost');
  let json: unknown;
  try {
    json = JSON.parse(body.toString());
  } catch {
    // Then it is none.
  }
  return { method: incoming.method!, path: pathname, query: searchParams, headers: incoming.headers, body, json, aborted: false };
}

async function send(reply: Reply, response: ServerResponse): Promise<void> {
  const { status = 200, json, delayMs = 0, pieceMs = 0, resetAfter = Infinity, endAfter = Infinity } = reply;
  if (delayMs > 0) await sleep(delayMs, undefined, { ref: false });
  if (response.destroyed) return;
  if (resetAfter === 0) return void response.socket?.resetAndDestroy();
  const headers: Record<string, string | string[]> = { ...reply.headers };
  let body = reply.body ?? '';
  if (json !== undefined) {
    headers['content-type'] ??= 'application/json; charset=utf-8';
    body = JSON.stringify(json);
  }
  if (typeof body === 'string') body = Buffer.from(body);
  if (Buffer.isBuffer(body)) {
    if (reply.gzip) {
      headers['content-encoding'] = 'gzip';
      body = gzipSync(body);
    }
    headers['content-length'] ??= String(body.length);
  }
  response.writeHead(status, headers);
  response.flushHeaders();
  let sent = 0;
  for await (const piece of piecesOf(body, reply.pieceBytes ?? (pieceMs > 0 || resetAfter < Infinity || endAfter < Infinity ? 1 : undefined))) {
    if (response.destroyed) return;
    if (sent >= resetAfter) return void response.socket?.resetAndDestroy();
    if (sent >= endAfter) return void response.socket?.end();
    const flushed = response.write(piece);
    sent += piece.length;
    if (pieceMs > 0) await sleep(pieceMs, undefined, { ref: false });
    if (!flushed && !response.destroyed) await drained(response);
  }
  response.end();
}

/** Until there is room again, or nobody is there any more. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done).off('close', done);
      resolve();
    };
    response.on('drain', done).on('close', done);
  });
}

async function* piecesOf(body: Buffer | Iterable<string | Buffer> | AsyncIterable<string | Buffer>, bytes: number | undefined): AsyncGenerator<Buffer> {
  for await (const whole of Buffer.isBuffer(body) ? [body] : body) {
    const piece = Buffer.from(whole as Buffer);
    if (bytes === undefined) yield piece;
    else for (let at = 0; at < piece.length; at += bytes) yield piece.subarray(at, at + bytes);
  }
}
