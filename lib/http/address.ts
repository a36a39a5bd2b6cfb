// Where a request goes and what it says beside its body, as the caller gives it.

import { messageOf } from '../call/errors';
import { invalid, isArray, readGiven, show } from '../call/input';
import { read, record } from '../call/options';
import { ACCEPTED_ENCODINGS } from './body';
import { shown } from './failures';
import { decodedPart } from './secrets';

/** HTTP's own letters for methods. */
const TOKEN = /^[!#$%&'*+.^_`|~\dA-Za-z-]+$/;

const DEFAULTS = { accept: '*/*', 'accept-encoding': ACCEPTED_ENCODINGS, 'user-agent': 'embedcore' };

/** A URL without name and password, and these as a header. */
export interface Address {
  url: URL;
  authorization: string | undefined;
}

/** @throws `EmbeddingError` `INVALID_ARGUMENT` for what is no URL of HTTP. */
export function addressOf(given: unknown): Address {
  if (typeof given !== 'string' && !(given instanceof URL)) throw invalid(`The URL is ${show(given)}: pass a string, or a URL`);
  let url: URL;
  try {
    url = new URL(given);
  } catch {
    // It may hold a key, so it is not shown.
    throw invalid('The URL is none: pass one with scheme and host, such as http://localhost:11434/api/tags');
  }
  requireHttp(url);
  const { username, password } = url;
  if (username === '' && password === '') return { url, authorization: undefined };
  url.username = '';
  url.password = '';
  const pair = `${decodedPart(username)}:${decodedPart(password)}`;
  return { url, authorization: `Basic ${Buffer.from(pair).toString('base64')}` };
}

export function requireHttp(url: URL): void {
  if (url.protocol === 'http:' || url.protocol === 'https:') return;
  throw invalid(`The scheme of ${url.protocol}//${url.host} is unknown here: pass a URL that begins with http:// or https://`, { url: shown(url) });
}

/** Headers as they are sent, by their names in lower case. */
export function headersOf(given: unknown, { authorization }: Address, contentType: string | undefined): Record<string, string> {
  const headers: Record<string, string> = { ...DEFAULTS };
  if (contentType !== undefined) headers['content-type'] = contentType;
  if (authorization !== undefined) headers.authorization = authorization;
  if (given === undefined) return headers;
  if (typeof given !== 'object' || given === null) throw invalid(`The headers are ${show(given)}: pass an object of strings`);
  // What is inherited or computed by a class counts, too.
  const known = isIterable(given) ? readGiven('headers', () => Array.from(given)) : Object.entries(record(given, 'headers'));
  // None is shown: it may be a key.
  for (const [at, pair] of known.entries()) {
    if (!isArray(pair) || pair.length !== 2 || typeof pair[0] !== 'string') throw invalid(`The headers are no pairs of name and value: element ${at} is none`);
    if (typeof pair[1] !== 'string') throw invalid(`The header \`${pair[0]}\` is of the type ${pair[1] === null ? 'null' : typeof pair[1]}, not a string`);
  }
  try {
    for (const [name, value] of new Headers(known as [string, string][])) headers[name] = value;
  } catch (cause) {
    // The platform's message shows the value, which may be a key.
    const name = (known as [string, string][]).find((pair) => !isHeader(...pair))?.[0];
    throw invalid(`The headers cannot be sent: ${name === undefined ? messageOf(cause).split(':')[0] : `\`${name}\` is no header, or its value has characters that a header cannot hold`}`);
  }
  return headers;
}

function isIterable(given: object): given is Iterable<unknown> {
  return typeof read(given, Symbol.iterator as unknown as string, 'headers') === 'function';
}

function isHeader(name: string, value: string): boolean {
  try {
    new Headers([[name, value]]);
    return true;
  } catch {
    return false;
  }
}

/** Methods in capitals, as servers know them. */
export function methodOf(method: unknown): string {
  if (typeof method !== 'string' || !TOKEN.test(method)) throw invalid(`The method is ${show(method)}, not one of HTTP's such as 'POST'`);
  const upper = method.toUpperCase();
  if (upper === 'CONNECT' || upper === 'TRACE') throw invalid(`The method ${upper} is not for clients`);
  return upper;
}
