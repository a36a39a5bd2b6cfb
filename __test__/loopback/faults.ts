// What servers do that they should not.

import type { Fault } from './server';

/** Headers come late. */
export const slow = (delayMs: number): Fault => (reply) => ({ ...reply, delayMs });
/** The body comes in small pieces, with a pause after each. */
export const dripping = (pieceMs: number, pieceBytes = 1): Fault => (reply) => ({ ...reply, pieceMs, pieceBytes });
/** The connection is reset before the answer, or after some bytes of its body. */
export const reset = (resetAfter = 0): Fault => (reply) => ({ ...reply, resetAfter });
/** The connection is ended before all is sent that the headers have promised. */
export const cut = (endAfter: number): Fault => (reply) => ({ ...reply, endAfter });
/** An error, with the server's words. */
export const status = (code: number, error: unknown = `status ${code}`, headers: Record<string, string> = {}): Fault => () => ({ status: code, headers, json: { error } });
/** 429 or 503 that says when to come back: seconds, or a date. */
export const retryAfter = (code: 429 | 503, when: number | Date): Fault => status(code, 'slow down', { 'retry-after': when instanceof Date ? when.toUTCString() : String(when) });
/** JSON that ends in the middle, as its length says. */
export const truncated = (bytes: number): Fault => (reply) => {
  const { json, ...rest } = reply;
  return { ...rest, headers: { 'content-type': 'application/json', ...reply.headers }, body: JSON.stringify(json).slice(0, bytes) };
};
export const gzipped: Fault = (reply) => ({ ...reply, gzip: true });
/** Another address has it. */
export const redirect = (location: string, code = 302): Fault => () => ({ status: code, headers: { location } });
/** Nothing is ever answered. */
export const silent: Fault = (reply) => ({ ...reply, delayMs: 2 ** 30 });
/** Some of these, one after the other; then the last one for ever. */
export const inTurn = (...faults: (Fault | undefined)[]): (() => Fault | undefined) => {
  let at = 0;
  return () => faults[Math.min(at++, faults.length - 1)];
};
