// What goes wrong with a request, as errors that say what to do, and whether another try may help.

import { EmbeddingError, messageOf, type EmbeddingErrorCode } from '../call/errors';
import type { Redact } from './secrets';

/** A failure of one try. */
export interface Failure {
  error: EmbeddingError;
  /** Whether another try may have another outcome. */
  transient: boolean;
}

/** What failed, for messages: without the query, which may hold keys. */
export interface Where {
  method: string;
  url: URL;
  redact: Redact;
  /** Tries so far. */
  attempts: number;
  readTimeoutMs: number;
  connectTimeoutMs: number;
}

/** A URL as messages show it. */
export function shown({ origin, pathname }: URL): string {
  return `${origin}${pathname}`;
}

/** What failed, for programs. */
function placeOf({ method, url, attempts, redact }: Where): Record<string, unknown> {
  return { url: redact(shown(url)), method, attempts };
}

/** Longest words of a server that are repeated, in characters. */
const MOST_WORDS = 500;

const CERTIFICATE = /CERT|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)|ERR_TLS/;

/** The failure of a connection, or of what came over it. */
export function connectionFailure(thrown: unknown, where: Where): Failure {
  const { name, code, reason } = rootOf(thrown);
  const make = (kind: EmbeddingErrorCode, text: string, transient: boolean): Failure => {
    // Another error in its place: the library's holds what was received, which may repeat what was sent.
    const cause = Object.assign(new Error(where.redact(reason)), code !== undefined && { code });
    const details = { ...placeOf(where), ...(code !== undefined && { code }) };
    const message = where.redact(`${where.method} ${shown(where.url)}: ${text}`);
    return { error: new EmbeddingError(kind, message, { retryable: kind !== 'INVALID_ARGUMENT' && transient, details, cause }), transient };
  };
  if (code === 'UND_ERR_CONNECT_TIMEOUT') {
    return make('BACKEND_UNAVAILABLE', `the server did not accept the connection within ${where.connectTimeoutMs} ms (connectTimeoutMs)`, true);
  }
  if (code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_BODY_TIMEOUT') {
    // Not tried again by itself: what took so long once takes as long again.
    const { error } = make('TIMED_OUT', `the server sent nothing for ${where.readTimeoutMs} ms (readTimeoutMs)`, true);
    return { error, transient: false };
  }
  if (code === 'UND_ERR_INVALID_ARG' || code === 'UND_ERR_NOT_SUPPORTED') return make('INVALID_ARGUMENT', `the request cannot be sent: ${reason}`, false);
  if (code === 'HPE_INVALID_EOF_STATE') return make('BACKEND_UNAVAILABLE', 'the connection ended in the middle of the answer', true);
  if (name === 'HTTPParserError' || code === 'UND_ERR_HEADERS_OVERFLOW') return make('BACKEND_REJECTED', `what answers there does not speak HTTP as it should (${reason}): check the port`, false);
  if (code === 'EPROTO' || /wrong version number|packet length too long/i.test(reason)) return make('BACKEND_REJECTED', 'what answers there does not speak TLS: is it http://, or another port?', false);
  if (code !== undefined && CERTIFICATE.test(code)) {
    return make('BACKEND_UNAVAILABLE', `the certificate is not trusted (${reason}): pass its authority as tls: { ca }, or set NODE_EXTRA_CA_CERTS`, false);
  }
  if (code === 'ENOTFOUND') return make('BACKEND_UNAVAILABLE', `there is no host ${where.url.hostname}, or no DNS to tell`, true);
  if (code === 'ECONNREFUSED') return make('BACKEND_UNAVAILABLE', 'nothing listens there: is the server running?', true);
  return make('BACKEND_UNAVAILABLE', `the connection failed: ${reason}`, true);
}

/** An answer that comes, but never ends. */
export function tooSlow(ms: number, where: Where): EmbeddingError {
  const message = where.redact(`${where.method} ${shown(where.url)}: the answer was not complete after ${ms} ms (10 × readTimeoutMs): take it as a stream`);
  return new EmbeddingError('TIMED_OUT', message, { retryable: true, details: placeOf(where) });
}

/** What is at the bottom of an error: of several addresses that were tried, the first one's. */
function rootOf(thrown: unknown): { name: unknown; code: string | undefined; reason: string } {
  const first = (thrown as { errors?: unknown[] } | null)?.errors?.[0] ?? thrown;
  const { name, code, cause } = first as { name?: unknown; code?: unknown; cause?: unknown };
  if (typeof code !== 'string' && cause !== undefined && cause !== null) return rootOf(cause);
  return { name, code: typeof code === 'string' ? code : undefined, reason: messageOf(first) };
}

/** The error that a status stands for, with the server's own words. */
export function statusFailure(status: number, statusText: string, words: string, where: Where, details: Record<string, unknown> = {}): EmbeddingError {
  const code = status === 429 ? 'RATE_LIMITED' : status >= 500 || status === 408 || status === 425 ? 'BACKEND_UNAVAILABLE' : 'BACKEND_REJECTED';
  const said = words === '' ? '' : `: ${words}`;
  const message = where.redact(`${where.method} ${shown(where.url)}: ${`${status} ${statusText}`.trim()}${said}`);
  const all = { ...placeOf(where), status, ...details };
  return new EmbeddingError(code, message, { retryable: code !== 'BACKEND_REJECTED', details: all });
}

/** An answer that is not what it says that it is. */
export function unusable(what: string, where: Where): EmbeddingError {
  const message = where.redact(`${where.method} ${shown(where.url)}: ${what}`);
  return new EmbeddingError('BACKEND_REJECTED', message, { details: placeOf(where) });
}

/** What a server says in the body of an error: its message, where it is JSON as the usual ones send it. */
export function wordsOf(body: string): string {
  let words = body;
  try {
    words = said(JSON.parse(body)) ?? body;
  } catch {
    // Then it is as it is.
  }
  const line = words.replace(/\s+/g, ' ').trim();
  return line.length > MOST_WORDS ? `${line.slice(0, MOST_WORDS)}…` : line;
}

function said(answer: unknown): string | undefined {
  if (typeof answer === 'string') return answer;
  if (typeof answer !== 'object' || answer === null) return undefined;
  const { error, message, detail } = answer as Record<string, unknown>;
  return said(error) ?? said(message) ?? said(detail);
}
