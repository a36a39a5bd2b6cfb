import type { Readable } from 'node:stream';
import { types } from 'node:util';

import { messageOf } from '../call/errors';
import { invalid, readGiven, show } from '../call/input';
import { requireHttp } from './address';
import { ACCEPTED_ENCODINGS, OutgoingBody } from './body';
import { contentOf, Exchange, Stop, type FinalAnswer, type Network } from './exchange';
import type { Running } from './running';
import type { ResponseHeaders } from './undici';

/** `fetch`, as the standard has it. */
export type Fetch = (input: string | URL | Request, init?: RequestInit) => Promise<Response>;

const DEFAULTS = { accept: '*/*', 'accept-language': '*', 'accept-encoding': ACCEPTED_ENCODINGS, 'user-agent': 'embedcore' };

/** Answers of these have no body, whatever they say. */
const WITHOUT_BODY = new Set([204, 205, 304]);

/** The platform's own classes in and out; what lies between is this package's. */
export function fetchOver(network: Network, begin: (stop: (reason: Error) => void) => Running): Fetch {
  return async (input, init) => {
    const given = readGiven('fetch: the second argument', () => ({ signal: init?.signal, body: init?.body }));
    const request = requestOf(input, init);
    const url = new URL(request.url);
    requireHttp(url);
    if (request.integrity) throw invalid('fetch does not check `integrity` here: leave it out, or hash the bytes');
    const signal = given.signal === undefined && input instanceof Request ? input.signal : signalIn(given.signal);
    if (signal?.aborted) throw signal.reason;
    const stop = new Stop();
    const running = begin((reason) => stop.stop(reason));
    const onAbort = () => stop.stop(new Error('The signal was aborted'));
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      const { method, redirect } = request;
      const headers = { ...DEFAULTS, ...Object.fromEntries(request.headers) };
      const body = await bodyOf(request, given.body ?? undefined, input);
      const asked = { method, url, headers, body, redirect, most: 0, modeOf: () => 'stream' as const };
      const answer = await new Exchange(network, asked, stop).run();
      const stream = running.as(contentOf(answer), answer.transferred, signal ?? undefined, () => signal!.reason);
      return respond(answer, method === 'HEAD' || WITHOUT_BODY.has(answer.status) ? stream.resume() && null : bytesOf(stream));
    } catch (thrown) {
      throw signal?.aborted ? signal.reason : thrown;
    } finally {
      signal?.removeEventListener('abort', onAbort);
      running.answered();
    }
  };
}

/** Of any realm: whatever can be listened to. */
function signalIn(given: unknown): AbortSignal | undefined {
  if (given === undefined || given === null) return undefined;
  const signal = given as AbortSignal;
  const isSignal = readGiven('fetch: signal', () => typeof signal === 'object' && typeof signal.addEventListener === 'function' && typeof signal.aborted === 'boolean');
  if (!isSignal) throw invalid(`fetch cannot ask that: signal is ${show(given)}, not an AbortSignal`);
  return signal;
}

/** Checks everything as the standard does, and holds it as it is now. The signal stays the caller's. */
function requestOf(input: string | URL | Request, init: RequestInit | undefined): Request {
  try {
    return new Request(input, init && Object.create(init, { signal: { value: undefined } }) as RequestInit);
  } catch (cause) {
    // The platform's words repeat URLs and values of headers, which may be keys.
    throw invalid(`fetch cannot ask that: ${messageOf(cause).slice(0, 500).replace(/"[^"]*"|[a-z]+:\/\/\S+/gi, '…')}`);
  }
}

/** Its bytes where there are any, so that it can be sent again; a stream as it is. */
async function bodyOf(request: Request, given: unknown, input: unknown): Promise<OutgoingBody> {
  if (!request.body) return OutgoingBody.NONE;
  const isPlain = typeof given === 'string' || ArrayBuffer.isView(given) || types.isAnyArrayBuffer(given);
  if (isPlain || given instanceof URLSearchParams || given instanceof Blob || given instanceof FormData || (given === undefined && !(input instanceof Request))) {
    return new OutgoingBody(new Uint8Array(await request.arrayBuffer()));
  }
  return new OutgoingBody(undefined, request.body as unknown as AsyncIterable<unknown>);
}

/** Streams whose readers are gone: nobody else would let their connections go. */
const unread = new FinalizationRegistry<Readable>((stream) => void stream.destroy());

/** The stream as the standard has it: read when it is asked for. */
function bytesOf(stream: Readable): ReadableStream<Uint8Array> {
  const pieces = stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  const bytes = new ReadableStream({
    type: 'bytes',
    async pull(controller) {
      const { done, value } = await pieces.next();
      if (!done) {
        // A copy: what is enqueued is taken away from whoever has it.
        if (value.byteLength > 0) controller.enqueue(Uint8Array.from(value));
        return;
      }
      controller.close();
      controller.byobRequest?.respond(0);
    },
    cancel() {
      stream.destroy();
    },
  });
  unread.register(bytes, stream);
  return bytes;
}

function respond({ status, statusText, headers, url, redirected }: FinalAnswer, body: ReadableStream<Uint8Array> | null): Response {
  const init = { status, headers: pairsOf(headers) };
  let response: Response;
  try {
    response = new Response(body, { ...init, statusText });
  } catch {
    // Letters that no status text may have.
    response = new Response(body, init);
  }
  return placed(response, `${url.origin}${url.pathname}${url.search}`, redirected);
}

/** What only the platform's own `fetch` can set. */
function placed(response: Response, url: string, redirected: boolean): Response {
  const clone = () => placed(Response.prototype.clone.call(response), url, redirected);
  return Object.defineProperties(response, { url: { value: url }, redirected: { value: redirected }, type: { value: 'basic' }, clone: { value: clone } });
}

function pairsOf(headers: ResponseHeaders): [string, string][] {
  // A header is Latin-1 to the platform, and was read as UTF-8.
  const plain = (value: string) => (/[^\0-\xff]/.test(value) ? Buffer.from(value).toString('latin1') : value);
  return Object.entries(headers).flatMap(([name, values]) => [values ?? []].flat().map((value): [string, string] => [name, plain(value)]));
}
