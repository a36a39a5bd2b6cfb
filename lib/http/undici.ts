// What we have of undici, an optional peer: pools of connections, and nothing above them. Its handlers are those that its
// releases 7 and 8 share.

import { EmbeddingError } from '../call/errors';
import { addressOf } from './address';

/** What a handler can do to the exchange that it is told of. */
export interface Controller {
  abort(reason: Error): void;
  pause(): void;
  resume(): void;
}

export type ResponseHeaders = Record<string, string | string[] | undefined>;

/** Told what comes of a request. */
export interface Handler {
  onRequestStart(controller: Controller): void;
  onResponseStart(controller: Controller, status: number, headers: ResponseHeaders, statusText?: string): void;
  onResponseData(controller: Controller, chunk: Buffer): void;
  onResponseEnd(controller: Controller): void;
  onResponseError(controller: Controller | undefined, error: Error): void;
}

/** A request as it goes out. */
export interface Outgoing {
  origin: string;
  path: string;
  method: string;
  headers: Record<string, string>;
  body: Uint8Array | AsyncIterable<Uint8Array> | undefined;
}

/** Connections to one origin. */
export interface Connections {
  dispatch(request: Outgoing, handler: Handler): boolean;
  destroy(): Promise<void>;
}

/** TLS settings, as `tls.connect` takes them. */
export type TlsSettings = Record<string, unknown>;

interface Undici {
  Pool: new (origin: string, options: object) => Connections;
  ProxyAgent: new (options: object) => Connections;
}

/** What all connections have. */
export interface ConnectionSettings {
  connections: number;
  connectTimeoutMs: number;
  readTimeoutMs: number;
  tls: TlsSettings;
}

/** Connections to an origin; `proxy`: the URL of the one that they go through. */
export function connectionsTo(origin: string, { connections, connectTimeoutMs, readTimeoutMs, tls }: ConnectionSettings, proxy?: string): Connections {
  const { Pool, ProxyAgent } = load();
  const connect = { ...tls, timeout: connectTimeoutMs };
  const shared = { connections, headersTimeout: readTimeoutMs, bodyTimeout: readTimeoutMs };
  if (proxy === undefined) return new Pool(origin, { ...shared, connect });
  return new ProxyAgent({ ...shared, ...proxyTo(proxy), requestTls: connect, proxyTls: connect });
}

/** The proxy, and who it is told that asks. */
function proxyTo(address: string): { uri: string; token?: string } {
  const { url, authorization } = addressOf(address);
  return { uri: url.href, ...(authorization !== undefined && { token: authorization }) };
}

let loaded: Undici | undefined;

/** @throws `EmbeddingError` `BACKEND_UNAVAILABLE` where it is not installed. */
export function load(): Undici {
  try {
    return (loaded ??= require('undici') as Undici);
  } catch (cause) {
    const message = 'HttpClient needs the package undici, which could not be loaded: npm install undici@7';
    throw new EmbeddingError('BACKEND_UNAVAILABLE', message, { cause });
  }
}
