// What a server refuses, and with which status.

import { EmbeddingError, type EmbeddingErrorCode } from '../index';
import { Refusal } from './openai';

/** What the errors of a generator are in HTTP. */
const STATUS: Partial<Record<EmbeddingErrorCode, number>> = {
  INVALID_ARGUMENT: 400,
  INPUT_TOO_LONG: 400,
  MEMORY_LIMIT_EXCEEDED: 413,
  NOT_INITIALIZED: 503,
  OVERLOADED: 429,
  RATE_LIMITED: 429,
  BACKEND_UNAVAILABLE: 503,
  BACKEND_REJECTED: 502,
  TIMED_OUT: 504,
};

/** What clients are told of errors whose messages give advice that they cannot follow. */
const FOR_CLIENTS: Partial<Record<EmbeddingErrorCode, (details: Record<string, unknown>, limits: { timeoutMs: number }) => string>> = {
  MEMORY_LIMIT_EXCEEDED: ({ index }) => `The server has too little memory for ${index === undefined ? 'this request' : `input[${String(index)}]`}: send shorter texts`,
  TIMED_OUT: (_, { timeoutMs }) => `The texts were not embedded within ${timeoutMs} ms: send fewer of them in a request, or try again`,
};

/** The same, where it may be another time. */
const RETRYABLE_STATUS: Partial<Record<EmbeddingErrorCode, number>> = { MEMORY_LIMIT_EXCEEDED: 503, EMBEDDING_GENERATION_FAILED: 503 };

/** What an error of a model says to a client whose texts are called `param`; `later`: headers that say when to come back. */
export function refusalOf(error: unknown, limits: { timeoutMs: number }, later: () => Record<string, string>, param: string): Refusal {
  const { code, message, retryable, details } = error as EmbeddingError;
  if (code === 'ABORTED' || code === 'CLOSED') return shuttingDown();
  const status = (retryable && RETRYABLE_STATUS[code]) || STATUS[code] || 500;
  // Messages speak to who runs the model, and clients have none of its options.
  const told = FOR_CLIENTS[code]?.(details ?? {}, limits) ?? message;
  const named = details?.part === 'query' ? 'query' : param;
  return new Refusal(status, told, { param: status === 400 || status === 413 ? named : null, code: code?.toLowerCase() ?? null, headers: status === 429 || status === 503 ? later() : {} });
}

/** A web page of another site can send all other types without being asked first. */
export function mustBeJson(headers: NodeJS.Dict<string | string[]>): void {
  const [type, encoding] = [String(headers['content-type'] ?? ''), String(headers['content-encoding'] ?? 'identity')];
  if (!/^application\/([\w.-]+\+)?json\s*(;|$)/i.test(type)) {
    const given = type === '' ? 'There is no Content-Type' : `Content-Type is ${type.slice(0, 80)}`;
    throw new Refusal(415, `${given}: send Content-Type: application/json`, { code: 'unsupported_media_type' });
  }
  if (encoding.toLowerCase() !== 'identity') {
    throw new Refusal(415, `Content-Encoding is ${encoding.slice(0, 80)}: send the body as it is`, { code: 'unsupported_media_type', headers: { 'Accept-Encoding': 'identity' } });
  }
}

export function noRoute(method: string | undefined, path: string, routes: string[]): Refusal {
  const near = routes.find((route) => route === `/v1${path}`);
  const hint = near ? `did you mean ${near}?` : `there are ${routes.map((route) => (route.endsWith('/') ? `${route}{id}` : route)).join(', ')}`;
  return new Refusal(404, `Unknown request URL: ${method} ${path.slice(0, 200)}: ${hint}`, { code: 'unknown_url' });
}

export function otherHost(asked: string): Refusal {
  const message = `This server does not answer to the host ${JSON.stringify(asked.slice(0, 200))}: ask for 127.0.0.1 or localhost, or have it allowed (allowedHosts, --allow-host)`;
  return new Refusal(403, message, { code: 'host_not_allowed' });
}

export function shuttingDown(): Refusal {
  return new Refusal(503, 'The server is shutting down: ask another one, or try again', { code: 'shutting_down', headers: { 'Retry-After': '1', Connection: 'close' } });
}

export function checked(check: () => void, param: string): void {
  try {
    check();
  } catch (error) {
    throw new Refusal(400, (error as Error).message, { param });
  }
}

/** Why there is no server, and what to do. */
export function cannotListen(cause: NodeJS.ErrnoException, host: string, port: number): EmbeddingError {
  const why = {
    EADDRINUSE: `port ${port} of ${host} is in use: choose another one, or 0 for any that is free`,
    EACCES: `port ${port} needs rights that this process does not have: choose one above 1023`,
    EADDRNOTAVAIL: `${host} is no address of this machine: choose 127.0.0.1, or 0.0.0.0 for all`,
    ENOTFOUND: `${host} is no address of this machine: choose 127.0.0.1, or 0.0.0.0 for all`,
  }[cause.code ?? ''];
  const option = cause.code === 'EADDRNOTAVAIL' || cause.code === 'ENOTFOUND' ? 'host' : 'port';
  return new EmbeddingError('INVALID_CONFIG', `The server cannot be started: ${why ?? cause.message}`, { cause, details: { option, host, port } });
}
