import { Readable } from 'node:stream';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { EmbeddingError } from 'embedcore';
import { HttpClient, type HttpClientOptions } from 'embedcore/llm';
import { expect, onTestFinished, test } from 'vitest';

import { dripping, gzipped, redirect, reset, retryAfter, silent, status } from './loopback/faults';
import { loopback, type Api, type Loopback } from './loopback/server';
import { failure } from './support';

/** What was answered, as JSON. */
const jsonOf = async (answer: Response | Promise<Response>) => (await (await answer).json()) as any;

const echo: Api = ({ method, path, headers, body }) => (path.startsWith('/echo') ? { json: { method, path, headers, text: body.toString() } } : undefined);

async function served(options: HttpClientOptions = {}): Promise<{ server: Loopback; http: HttpClient; url: string }> {
  const server = await loopback({ apis: [echo] });
  const http = new HttpClient({ retryBackoffMs: [1], ...options });
  onTestFinished(() => http.close());
  return { server, http, url: `${server.url}/echo` };
}

test('answers are what the platform\'s own fetch gives', async () => {
  const { server, http, url } = await served();
  const { fetch: own } = http;
  for (const [path, fault] of [['/echo?a=1#part', undefined], ['/none', undefined], ['/echo', gzipped], ['/echo', status(404)], ['/echo', () => ({ status: 204 })], ['/echo', redirect('/echo/there')]] as const) {
    const answers: Response[] = [];
    for (const fetch of [globalThis.fetch, own]) {
      if (fault) server.next(fault);
      answers.push(await fetch(`${server.url}${path}`));
    }
    const [expected, given] = answers as [Response, Response];
    expect(given).toBeInstanceOf(Response);
    const { ok, redirected, status: code, statusText, url: from, type, bodyUsed } = expected;
    expect(given).toMatchObject({ ok, redirected, status: code, statusText, type, bodyUsed });
    expect(given.url).toBe(from.replace(/#.*/, ''));
    expect(given.headers.get('content-type')).toBe(expected.headers.get('content-type'));
    expect(given.body === null).toBe(expected.body === null);
    const copy = given.clone();
    expect(copy.url).toBe(given.url);
    const text = (body: string) => body.replace(/"user-agent":"[^"]*"|"accept-encoding":"[^"]*"|"connection":"[^"]*",?|"sec-fetch-mode":"cors",?|,(?=})/g, '');
    const [a, b, c] = await Promise.all([expected.text(), given.text(), copy.text()]);
    expect(b).toBe(c);
    expect(JSON.stringify(sorted(text(b)))).toBe(JSON.stringify(sorted(text(a))));
    expect(given.bodyUsed).toBe(expected.bodyUsed);
  }
  expect((await own(url, { method: 'HEAD' })).body).toBe(null);
  expect((await own(new Request(url, { method: 'PUT', body: 'x', headers: { a: 'b' } })).then((answer) => answer.json()))).toMatchObject({ method: 'PUT', text: 'x', headers: { a: 'b' } });
});

/** The characters, whatever their order. */
function sorted(text: string): string[] {
  return [...text.replaceAll(',', '')].sort();
}

test('bodies of every kind, and sent again where they can be', async () => {
  const { server, http, url } = await served();
  const form = new FormData();
  form.set('file', new Blob(['content']), 'name.txt');
  for (const [body, text] of [['text', 'text'], [new Uint8Array([104, 105]), 'hi'], [new URLSearchParams({ a: 'ü' }), 'a=%C3%BC'], [new Blob(['blob']), 'blob'], [form, /content/], [new TextEncoder().encode('ab').buffer, 'ab']] as const) {
    server.next(status(503), reset());
    const answer = await jsonOf(http.fetch(url, { method: 'POST', body: body as string }));
    expect(answer.text).toMatch(text);
  }
  server.next(status(503));
  const stream = await http.fetch(url, { method: 'POST', body: Readable.toWeb(Readable.from([Buffer.from('x')])) as ReadableStream<Uint8Array>, duplex: 'half' } as RequestInit);
  expect(stream.status).toBe(503);
  expect((await jsonOf(http.fetch(url, { method: 'POST', body: Readable.toWeb(Readable.from([Buffer.from('x')])) as ReadableStream<Uint8Array>, duplex: 'half' } as RequestInit))).text).toBe('x');
});

test('the last answer is given, whatever its status', async () => {
  const { server, http, url } = await served();
  server.always(() => status(503, 'down'));
  const answer = await http.fetch(url);
  expect(answer.status).toBe(503);
  expect(await answer.json()).toEqual({ error: 'down' });
  expect(server.requests.length).toBe(3);
  server.always(() => retryAfter(429, 3600));
  expect((await http.fetch(url)).status).toBe(429);
});

test('an abort rejects with its reason, wherever the request is', async () => {
  const { server, http, url } = await served();
  await expect(http.fetch(url, { signal: AbortSignal.abort() })).rejects.toMatchObject({ name: 'AbortError' });
  const reason = new Error('enough');
  await expect(http.fetch(url, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  server.next(silent);
  await expect(http.fetch(url, { signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ name: 'TimeoutError' });
  server.next(dripping(50, 10));
  const stop = new AbortController();
  const answer = await http.fetch(url, { signal: stop.signal });
  const body = answer.text();
  setTimeout(() => stop.abort(reason), 30);
  await expect(body).rejects.toBe(reason);
  server.next(silent);
  const request = new AbortController();
  const waiting = http.fetch(new Request(url, { signal: request.signal }));
  request.abort();
  await expect(waiting).rejects.toMatchObject({ name: 'AbortError' });
  await expect.poll(() => http.getStats()[server.url]!.inFlight).toBe(0);
});

test('other failures are errors of this package, and so are those of the caller', async () => {
  const { server, http, url } = await served();
  for (const [work, code] of [
    [() => http.fetch('http://127.0.0.1:1/'), 'BACKEND_UNAVAILABLE'],
    [() => http.fetch('/relative'), 'INVALID_ARGUMENT'],
    [() => http.fetch('ftp://x/'), 'INVALID_ARGUMENT'],
    [() => http.fetch('http://me:secret-word@x/'), 'INVALID_ARGUMENT'],
    [() => http.fetch(url, { method: 'GET', body: 'x' }), 'INVALID_ARGUMENT'],
    [() => http.fetch(url, { method: 'CONNECT' }), 'INVALID_ARGUMENT'],
    [() => http.fetch(url, { integrity: 'sha256-x' }), 'INVALID_ARGUMENT'],
    [() => (server.next(redirect('/x')), http.fetch(url, { redirect: 'error' })), 'BACKEND_REJECTED'],
    [() => (server.next(reset(5)), http.fetch(url).then((answer) => answer.text())), 'BACKEND_UNAVAILABLE'],
  ] as const) {
    const error = await failure(work);
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error.code).toBe(code);
    expect(error.message).not.toContain('secret-word');
  }
  server.next(redirect('/x'));
  expect((await http.fetch(url, { redirect: 'manual' })).headers.get('location')).toBe('/x');
});

test('a body is given as it comes, and one that is left lets its connection go', async () => {
  const { server, http, url } = await served({ perHostLimit: 1 });
  let sent = 0;
  server.next(() => ({ body: (function* () { for (;;) { sent++; yield 'x'.repeat(60_000); } })() }));
  const reader = (await http.fetch(url)).body!.getReader();
  expect((await reader.read()).value!.length).toBeGreaterThan(0);
  expect(sent).toBeLessThan(200);
  await reader.cancel();
  expect((await jsonOf(http.fetch(url))).method).toBe('GET');
  // Small ones need nobody to read them.
  for (let i = 0; i < 20; i++) await http.fetch(url);
  await expect.poll(() => http.getStats()[server.url]!.inFlight).toBe(0);
});

test('in place of the global one it does not call itself', async () => {
  const { http, url } = await served();
  const before = globalThis.fetch;
  onTestFinished(() => void (globalThis.fetch = before));
  globalThis.fetch = http.fetch;
  expect((await jsonOf(fetch(url))).method).toBe('GET');
});

test('URLs and init are read once, inherited and computed ones too', async () => {
  const { http, url } = await served();
  class Init {
    get method(): string {
      return 'POST';
    }
    body = 'x';
  }
  const init = new Init();
  const address = new URL(url);
  const asked = http.fetch(address, init);
  init.body = 'y';
  address.pathname = '/none';
  expect(await (await asked).json()).toMatchObject({ method: 'POST', text: 'x' });
});

test('an answer that nobody has any more lets its connection go', async () => {
  const { http, url, server } = await served({ perHostLimit: 1 });
  server.next(() => ({ body: (function* () { for (;;) yield 'x'.repeat(60_000); })() }));
  await http.fetch(url);
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const next = http.fetch(url).then((answer) => answer.json());
  const collecting = setInterval(collect, 50);
  onTestFinished(() => clearInterval(collecting));
  expect(await next).toMatchObject({ method: 'GET' });
});
