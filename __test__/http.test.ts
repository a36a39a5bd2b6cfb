import { createServer, type AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { deflateRawSync, deflateSync } from 'node:zlib';

import { EmbeddingError } from 'embedcore';
import { HttpClient, type HttpClientOptions } from 'embedcore/llm';
import { describe, expect, onTestFinished, test } from 'vitest';

import { certificate } from './loopback/certificate';
import { cut, dripping, gzipped, inTurn, redirect, reset, retryAfter, silent, slow, status, truncated } from './loopback/faults';
import { proxy } from './loopback/proxy';
import { loopback, type Api, type Loopback } from './loopback/server';
import { failure } from './support';

/** Says what it was asked. */
const echo: Api = ({ method, path, headers, body }) => (path.startsWith('/echo') ? { json: { method, path, headers, text: body.toString() } } : undefined);

function client(options: HttpClientOptions = {}): HttpClient {
  const http = new HttpClient({ retryBackoffMs: [1], ...options });
  onTestFinished(() => http.close());
  return http;
}

async function served(options: HttpClientOptions = {}): Promise<{ server: Loopback; http: HttpClient; url: string }> {
  const server = await loopback({ apis: [echo] });
  return { server, http: client(options), url: `${server.url}/echo` };
}

describe('requests', () => {
  test('answers are parsed where they are JSON, and bytes otherwise', async () => {
    const { server, http, url } = await served();
    expect(await http.get(url)).toMatchObject({ method: 'GET', path: '/echo', text: '' });
    expect(await http.get(url, { as: 'text' })).toContain('"GET"');
    expect(await http.get(url, { as: 'bytes' })).toBeInstanceOf(Uint8Array);
    server.next(() => ({ body: 'plain', headers: { 'content-type': 'text/plain' } }));
    expect(Buffer.from(await http.get(url)).toString()).toBe('plain');
    server.next(() => ({ body: '\uFEFF{"a":1}', headers: { 'content-type': 'application/problem+json' } }));
    expect(await http.get(url)).toEqual({ a: 1 });
    server.next(() => ({ status: 204 }));
    expect((await http.get(url)).length).toBe(0);
    const stream: AsyncIterable<Uint8Array> = await http.get(url, { as: 'stream' });
    const pieces: Uint8Array[] = [];
    for await (const piece of stream) pieces.push(piece);
    expect(JSON.parse(Buffer.concat(pieces).toString()).method).toBe('GET');
  });

  test('bodies of every kind, as they were when the call was made', async () => {
    const { http, url } = await served();
    const bytes = new Uint8Array([104, 105]);
    const object = { a: 1, left: undefined };
    const form = new FormData();
    form.set('name', 'value');
    const sent = [http.post(url, 'text'), http.post(url, bytes), http.post(url, object), http.post(url, new URLSearchParams({ q: 'ü' })), http.post(url, form), http.post(url, Readable.from(['a', 'b'])), http.post(url, new Blob(['blob']).stream()), http.post(url, [1, 2])];
    bytes.fill(0);
    object.a = 2;
    const answers = await Promise.all(sent);
    expect(answers.map(({ text }) => text)).toEqual(['text', 'hi', '{"a":1}', 'q=%C3%BC', expect.stringContaining('name="name"'), 'ab', 'blob', '[1,2]']);
    expect(answers.map(({ headers }) => headers['content-type']?.split(/[;]/)[0])).toEqual(['text/plain', undefined, 'application/json', 'application/x-www-form-urlencoded', 'multipart/form-data', undefined, undefined, 'application/json']);
    expect(await http.request(url, { method: 'put', body: 'x', headers: new Headers({ 'X-Own': 'y' }) })).toMatchObject({ method: 'PUT', headers: { 'x-own': 'y' } });
  });

  test('name and password of a URL go as a header, and are in no message', async () => {
    const { server, http } = await served();
    const { headers } = await http.get(`http://me:p%40ss@127.0.0.1:${server.port}/echo`);
    expect(headers.authorization).toBe(`Basic ${Buffer.from('me:p@ss').toString('base64')}`);
    expect(Object.keys(http.getStats())).toEqual([server.url]);
  });

  test.each([
    ['an unknown scheme', 'ftp://localhost/', /scheme.*ftp:\/\/localhost/],
    ['no URL', 'localhost', /none/],
    ['nothing', undefined, /undefined/],
    ['no port that there is', 'http://localhost:99999/', /none/],
  ])('%s is refused', async (_, url, message) => {
    const error = await failure(() => client().get(url as string));
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(message) });
  });

  test('what cannot be asked is refused by its name', async () => {
    const { http, url } = await served();
    const refusals: [() => unknown, string, RegExp][] = [
      [() => http.get(url, { retries: 3 } as object), 'INVALID_CONFIG', /retries/],
      [() => http.get(url, { as: 'xml' as 'text' }), 'INVALID_CONFIG', /xml/],
      [() => http.get(url, { timeoutMs: 0 }), 'INVALID_CONFIG', /timeoutMs/],
      [() => http.get(url, { signal: {} as AbortSignal }), 'INVALID_CONFIG', /signal/],
      [() => http.get(url, { headers: { 'a b': 'c' } }), 'INVALID_ARGUMENT', /a b/],
      [() => http.get(url, { headers: { authorization: 'qqq\nzzz' } }), 'INVALID_ARGUMENT', /`authorization`/],
      [() => http.get(url, 3 as unknown as object), 'INVALID_CONFIG', /3/],
      [() => http.request(url, { method: 'A B' }), 'INVALID_ARGUMENT', /A B/],
      [() => http.request(url, { method: 'GET', body: 'x' }), 'INVALID_ARGUMENT', /GET/],
      [() => http.post(url, { big: 1n }), 'INVALID_ARGUMENT', /BigInt/],
      [() => http.post(url, Symbol('x') as unknown as string), 'INVALID_ARGUMENT', /symbol/],
      [() => http.post(url, { list: [1, NaN] }), 'INVALID_ARGUMENT', /body\.list\[1\].*NaN/],
      [() => http.post(url, new Map([['a', 1]])), 'INVALID_ARGUMENT', /Map/],
      [() => http.post(url, Readable.from([1, 2])), 'INVALID_ARGUMENT', /The body gave 1/],
      [() => http.get(url, { headers: { 'transfer-encoding': 'x' } }), 'INVALID_ARGUMENT', /transfer-encoding/],
    ];
    for (const [work, code, message] of refusals) {
      const error = await failure(work);
      expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
      expect(error).toBeInstanceOf(EmbeddingError);
      expect(error.message).not.toContain('qqq');
    }
    expect(await http.get(url, { headers: { 'x-left': undefined as unknown as string }, signal: undefined, timeoutMs: undefined })).toHaveProperty('method');
  });

  test.each([
    [{ maxConcurrentRequests: 0 }, 'maxConcurrentRequests'],
    [{ perHostLimit: 1.5 }, 'perHostLimit'],
    [{ connectTimeoutMs: '1' }, 'connectTimeoutMs'],
    [{ readTimeoutMs: NaN }, 'readTimeoutMs'],
    [{ retryAttempts: 0 }, 'retryAttempts'],
    [{ retryBackoffMs: [] }, 'retryBackoffMs'],
    [{ retryBackoffMs: [-1] }, 'retryBackoffMs'],
    [{ retryOn: ['429'] }, 'retryOn'],
    [{ maxResponseMB: 1000 }, 'maxResponseMB'],
    [{ proxy: 'socks9://x' }, 'proxy'],
    [{ perhostlimit: 1 }, 'perHostLimit'],
    [{ tls: 'x' }, 'tls'],
  ])('the option %j is refused', async (options, name) => {
    expect(await failure(() => new HttpClient(options as HttpClientOptions))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining(name) });
  });
});

describe('tries', () => {
  test.each([408, 425, 429, 500, 502, 503, 599])('%i is tried again, three times in all', async (code) => {
    const { server, http, url } = await served();
    server.next(status(code), status(code));
    expect(await http.post(url, 'x')).toMatchObject({ text: 'x' });
    expect(server.requests.map(({ body }) => body.toString())).toEqual(['x', 'x', 'x']);
    expect(http.getStats()[server.url]).toMatchObject({ requests: 3, retries: 2, inFlight: 0, waiting: 0 });
    server.always(() => status(code, 'still down'));
    const error = await failure(() => http.get(url));
    expect(error).toMatchObject({ code: code === 429 ? 'RATE_LIMITED' : 'BACKEND_UNAVAILABLE', retryable: true, details: { status: code, attempts: 3 } });
    expect(error.message).toContain('still down');
  });

  test.each([400, 401, 403, 404, 413, 422])('%i is final, with the words of the server', async (code) => {
    const { server, http, url } = await served();
    server.always(() => status(code, { message: `because of ${code}`, type: 'x' }));
    const error = await failure(() => http.get(url));
    expect(error).toMatchObject({ code: 'BACKEND_REJECTED', retryable: false, details: { status: code, method: 'GET', url } });
    expect(error.message).toMatch(new RegExp(`^GET ${url}: ${code} .*: because of ${code}$`));
    expect(server.requests.length).toBe(1);
  });

  test('waits as long as the table says, and no longer than the last of it', async () => {
    const { server, http, url } = await served({ retryAttempts: 4, retryBackoffMs: [60, 120] });
    const times: number[] = [];
    server.always(() => (times.push(performance.now()), status(503)));
    await failure(() => http.get(url));
    const waits = times.slice(1).map((time, i) => time - times[i]!);
    expect(waits.length).toBe(3);
    for (const [i, least] of [60, 120, 120].entries()) expect(waits[i]).toBeGreaterThanOrEqual(least - 2);
  });

  test('waits as long as the server says: in seconds, or until a date', async () => {
    const { server, http, url } = await served();
    let began = performance.now();
    server.next(retryAfter(429, 1));
    await http.get(url);
    expect(performance.now() - began).toBeGreaterThanOrEqual(990);
    server.next(retryAfter(503, new Date(Date.now() + 2000)));
    began = performance.now();
    await http.get(url);
    // Dates have whole seconds.
    expect(performance.now() - began).toBeGreaterThanOrEqual(900);
    server.next(retryAfter(503, new Date(0)), retryAfter(429, 0));
    await http.get(url);
    expect(server.requests.length).toBe(7);
  });

  test('who says to come back too late is not waited for', async () => {
    const { server, http, url } = await served({ readTimeoutMs: 5000 });
    server.always(() => retryAfter(429, 3600));
    const error = await failure(() => http.get(url));
    expect(error).toMatchObject({ code: 'RATE_LIMITED', details: { retryAfterMs: 3_600_000 } });
    server.always(() => retryAfter(429, 3));
    await expect(failure(() => http.get(url, { timeoutMs: 1000 }))).resolves.toMatchObject({ code: 'RATE_LIMITED' });
    expect(server.requests.length).toBe(2);
  });

  test('retryOn: a list, or a function', async () => {
    const { server, http, url } = await served({ retryOn: [404] });
    server.next(status(404), status(404));
    await http.get(url);
    server.next(status(503));
    await expect(failure(() => http.get(url))).resolves.toMatchObject({ details: { status: 503 } });
    const other = client({ retryOn: (code) => code === 418 });
    server.next(status(418), status(418));
    await other.get(url);
    const broken = client({ retryOn: () => { throw new Error('not today'); } });
    server.next(status(503));
    await expect(failure(() => broken.get(url))).resolves.toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringMatching(/retryOn.*503.*not today/) });
    server.next(status(418), status(418));
    await expect(failure(() => other.get(url, { retryAttempts: 2 }))).resolves.toMatchObject({ details: { status: 418, attempts: 2 } });
  });

  test('a connection that is reset before the answer is tried again; after it began, only what may be done twice', async () => {
    const { server, http, url } = await served();
    server.next(reset());
    expect(await http.post(url, 'x')).toMatchObject({ text: 'x' });
    server.next(reset(5));
    expect(await http.get(url)).toMatchObject({ method: 'GET' });
    expect(server.requests.length).toBe(4);
    server.next(reset(5));
    expect(await failure(() => http.post(url, 'x'))).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true });
    server.next(cut(5));
    expect(await failure(() => http.post(url, 'x'))).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
    expect(server.requests.length).toBe(6);
  });

  test('a body that was a stream is sent once; unless nobody has read it', async () => {
    const { server, http, url } = await served();
    server.next(status(503));
    const error = await failure(() => http.post(url, Readable.from(['a', 'b'])));
    expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE', details: { status: 503, attempts: 1 } });
    expect(server.requests.length).toBe(1);

    const gone = createServer();
    await new Promise<void>((resolve) => gone.listen(0, '127.0.0.1', resolve));
    const { port } = gone.address() as AddressInfo;
    await new Promise((resolve) => gone.close(resolve));
    let opened = 0;
    const source = { async *[Symbol.asyncIterator]() { opened++; yield 'x'; } };
    await expect(failure(() => http.post(`http://127.0.0.1:${port}/`, source))).resolves.toMatchObject({ code: 'BACKEND_UNAVAILABLE', details: { attempts: 3, code: 'ECONNREFUSED' } });
    expect(opened).toBe(0);
  });

  test('a stream that is sent comes as it is given, not gathered first', async () => {
    const { http, server } = await served();
    let given = 0;
    const big = Buffer.alloc(64 * 1024, 'x');
    const source = (async function* () {
      for (; given < 300; given++) yield big;
    })();
    let before = -1;
    server.always(({ body }) => ((before = body.length), undefined));
    const { text } = await http.post(`${server.url}/echo`, source);
    expect(text.length).toBe(before);
    expect(before).toBe(300 * big.length);
    const broken = (async function* () {
      yield 'a';
      throw new Error('the source is broken');
    })();
    expect(await failure(() => http.post(`${server.url}/echo`, broken))).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('the source is broken') });
  });
});

describe('servers that misbehave', () => {
  test('nobody listens', async () => {
    const error = await failure(() => client().get('http://127.0.0.1:1/x?key=secret-query'));
    expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true, details: { code: 'ECONNREFUSED' } });
    expect(error.message).toBe('GET http://127.0.0.1:1/x: nothing listens there: is the server running?');
  });

  test('the port speaks something else', async () => {
    const banner = createServer((socket) => socket.on('error', () => {}).end('SSH-2.0-OpenSSH_9.6\r\n'));
    await new Promise<void>((resolve) => banner.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void banner.close());
    const { port } = banner.address() as AddressInfo;
    expect(await failure(() => client().get(`http://127.0.0.1:${port}/`))).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('HTTP') });
    const { server } = await served();
    expect(await failure(() => client().get(`https://127.0.0.1:${server.port}/`))).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('TLS') });
  });

  test('headers and bodies that do not come end after readTimeoutMs', async () => {
    const { server, http, url } = await served({ readTimeoutMs: 200 });
    server.next(silent);
    expect(await failure(() => http.get(url))).toMatchObject({ code: 'TIMED_OUT', retryable: true, message: expect.stringContaining('200 ms') });
    server.next((reply) => ({ ...dripping(2 ** 30)(reply, server.requests[0]!) }));
    expect(await failure(() => http.get(url))).toMatchObject({ code: 'TIMED_OUT' });
    expect(server.requests.length).toBe(2);
    server.next(dripping(20, 40));
    expect(await http.get(url)).toMatchObject({ method: 'GET' });
  });

  test('truncated JSON, other encodings, too much of it', async () => {
    const { server, http, url } = await served({ maxResponseMB: 1 });
    server.next(truncated(20));
    expect(await failure(() => http.post(url, 'x'))).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('not JSON') });
    server.next(gzipped);
    expect(await http.get(url)).toMatchObject({ method: 'GET' });
    const drain = async () => {
      for await (const _ of (await http.get(url, { as: 'stream' })) as AsyncIterable<Uint8Array>);
    };
    for (const encoding of ['x', 'gzip']) {
      server.always(() => () => ({ body: 'not compressed', headers: { 'content-encoding': encoding } }));
      for (const work of [() => http.get(url), drain]) expect(await failure(work)).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('decompressed') });
    }
    server.always(undefined);
    server.next(() => ({ body: 'x'.repeat(2 * 1024 * 1024) }));
    expect(await failure(() => http.get(url))).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('maxResponseMB') });
    server.next(() => ({ body: '0'.repeat(2 * 1024 * 1024), gzip: true }));
    expect(await failure(() => http.get(url))).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('decompressed') });
    const huge: AsyncIterable<Uint8Array> = await (server.next(() => ({ body: '0'.repeat(2 * 1024 * 1024), gzip: true })), http.get(url, { as: 'stream' }));
    let bytes = 0;
    for await (const piece of huge) bytes += piece.length;
    expect(bytes).toBe(2 * 1024 * 1024);
  });

  test('redirects are followed, and carry no keys to another origin', async () => {
    const { server, http, url } = await served();
    const other = await loopback({ apis: [echo] });
    const keys = { authorization: 'Bearer secret-key', 'x-api-key': 'secret-key', cookie: 'a=secret-key', 'x-own': 'kept' };
    server.next(redirect('/echo/2'), redirect(`${other.url}/echo`));
    const near = await http.get(url, { headers: keys });
    expect(near.headers).toMatchObject({ 'x-own': 'kept' });
    expect(JSON.stringify(other.requests.map(({ headers }) => headers))).not.toContain('secret-key');
    expect(server.requests[1]!.headers.authorization).toBe('Bearer secret-key');
    server.next(redirect('/echo/2'));
    await http.get(url, { headers: keys });
    expect(server.requests.at(-1)).toMatchObject({ path: '/echo/2', headers: { authorization: 'Bearer secret-key' } });
    server.next(redirect('/echo/2', 307), redirect('/echo/2', 303));
    expect(await http.post(url, 'x')).toMatchObject({ method: 'GET', text: '' });
    server.next(redirect('/echo/2', 308));
    expect(await http.post(url, 'x')).toMatchObject({ method: 'POST', text: 'x' });
    server.always(() => redirect('/echo'));
    expect(await failure(() => http.get(url))).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('20') });
    server.always(() => redirect('ftp://x/'));
    expect(await failure(() => http.get(url))).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('ftp:') });
  });

  test.skipIf(certificate() === undefined)('TLS with an authority of one\'s own (skipped where there is no openssl)', async () => {
    const { ca, key, cert } = certificate()!;
    const server = await loopback({ apis: [echo], tls: { key, cert } });
    expect(await client({ tls: { ca } }).get(`${server.url}/echo`)).toMatchObject({ method: 'GET' });
    const error = await failure(() => client().get(`${server.url}/echo`));
    expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: false, message: expect.stringContaining('tls: { ca }') });
    expect(error.details.attempts).toBe(1);
  });

  test('a proxy, by option and by environment', async () => {
    const { server } = await served();
    const through = await proxy(server.port);
    const withUser = through.url.replace('//', '//user:pass-word@');
    expect(await client({ proxy: withUser }).get('http://models.example/echo')).toMatchObject({ headers: { host: 'models.example' } });
    expect(through.asked).toEqual([{ target: 'models.example:80', authorization: `Basic ${Buffer.from('user:pass-word').toString('base64')}` }]);
    const before = { ...process.env };
    onTestFinished(() => {
      for (const name of ['http_proxy', 'no_proxy']) if (before[name] === undefined) delete process.env[name]; else process.env[name] = before[name];
    });
    process.env.http_proxy = through.url;
    process.env.no_proxy = 'internal.example';
    const http = client({ retryAttempts: 1 });
    await http.get('http://models.example/echo');
    await http.get(`${server.url}/echo`);
    expect(through.asked.length).toBe(2);
    await expect(failure(() => http.get('http://a.internal.example/echo'))).resolves.toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
    expect(through.asked.length).toBe(2);
    await expect(failure(() => client({ proxy: false, retryAttempts: 1 }).get('http://models.invalid/echo'))).resolves.toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
    process.env.http_proxy = 'nonsense';
    expect(await failure(() => client().get('http://models.example/echo'))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining('http_proxy') });
  });
});

describe('limits', () => {
  test('no more at a time than the limits say, in all and to each host, by the servers\' own count', async () => {
    const servers = await Promise.all([0, 1, 2].map(() => loopback({ apis: [echo] })));
    for (const server of servers) server.always(() => slow(3));
    const http = client({ maxConcurrentRequests: 5, perHostLimit: 2 });
    let most = 0;
    let mostToOne = 0;
    const count = setInterval(() => {
      most = Math.max(most, servers.reduce((sum, { inFlight }) => sum + inFlight, 0));
      mostToOne = Math.max(mostToOne, ...Object.values(http.getStats()).map(({ inFlight }) => inFlight));
    }, 1);
    onTestFinished(() => clearInterval(count));
    await Promise.all(Array.from({ length: 120 }, (_, i) => http.get(`${servers[i % 3]!.url}/echo/${i}`)));
    for (const server of servers) expect(server.most).toBeLessThanOrEqual(2);
    expect(most).toBeLessThanOrEqual(5);
    // The pool has a limit of its own: this is what is let in to it.
    expect(mostToOne).toBe(2);
    expect(servers.map(({ requests }) => requests.length)).toEqual([40, 40, 40]);
  });

  test('one host that does not answer is in nobody else\'s way', async () => {
    const [dead, alive] = [await loopback({ apis: [echo] }), await loopback({ apis: [echo] })];
    dead.always(() => silent);
    const http = client({ maxConcurrentRequests: 3, perHostLimit: 2 });
    const stop = new AbortController();
    const stuck = Array.from({ length: 10 }, () => failure(() => http.get(`${dead.url}/echo`, { signal: stop.signal })));
    await Promise.all(Array.from({ length: 10 }, () => http.get(`${alive.url}/echo`)));
    expect(http.getStats()[dead.url]).toMatchObject({ inFlight: 2, waiting: 8 });
    stop.abort();
    for (const error of await Promise.all(stuck)) expect(error).toMatchObject({ code: 'ABORTED' });
    expect(http.getStats()[dead.url]).toMatchObject({ waiting: 0 });
    await expect.poll(() => http.getStats()[dead.url]!.inFlight).toBe(0);
  });

  test('all are answered once, whatever fails, and no socket is left', async () => {
    const servers = await Promise.all([0, 1, 2].map(() => loopback({ apis: [echo] })));
    const faults = [reset(), reset(3), status(503), status(429), cut(4)];
    for (const server of servers) server.always(inTurnEvery(10, faults));
    const http = client({ retryAttempts: 10, retryBackoffMs: [1, 2, 3] });
    const answers = await Promise.all(Array.from({ length: 600 }, (_, i) => http.get(`${servers[i % 3]!.url}/echo/${i}`)));
    expect(answers.map(({ path }) => path)).toEqual(answers.map((_, i) => `/echo/${i}`));
    for (const { most, requests } of servers) {
      expect(most).toBeLessThanOrEqual(6);
      expect(requests.length).toBeGreaterThan(200);
    }
    await http.close();
    for (const server of servers) await expect.poll(() => server.open).toBe(0);
  });
});

test('names and passwords of URLs that are not escaped are taken as they are', async () => {
  const { http, url } = await served();
  const { host, port } = new URL(url);
  const answer = await http.get<{ headers: Record<string, string> }>(`http://%zz:100%@${host}/echo`);
  const basic = `Basic ${Buffer.from('%zz:100%').toString('base64')}`;
  expect(answer.headers.authorization).toBe(basic);
  const through = await proxy(Number(port));
  await client({ proxy: `http://%zz:100%@${new URL(through.url).host}` }).get(url);
  expect(through.asked).toMatchObject([{ authorization: basic }]);
});

test('headers that a class computes, that are inherited, or that a Map has are sent', async () => {
  const { http, url } = await served();
  class Computed { get 'x-name'() { return 'computed'; } }
  for (const [headers, value] of [[new Computed(), 'computed'], [Object.create({ 'x-name': 'inherited' }), 'inherited'], [new Map([['x-name', 'map']]), 'map'], [{ 'x-name': 'own', 'x-none': undefined }, 'own']]) {
    const sent = (await http.get<{ headers: Record<string, string> }>(`${url}/echo`, { headers })).headers;
    expect([sent['x-name'], sent['x-none']]).toEqual([value, undefined]);
  }
  const throwing = { get 'x-name'(): string { throw new TypeError('mine'); } };
  expect(await failure(() => http.get(`${url}/echo`, { headers: throwing }))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining('mine') as string });
});

test('a body that throws when it is read as JSON is refused by what it threw', async () => {
  const { http, url } = await served();
  for (const body of [{ toJSON() { throw new RangeError('mine'); } }, { get part() { throw new RangeError('mine'); } }]) {
    expect(await failure(() => http.post(`${url}/echo`, body))).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('mine') as string });
  }
});

test('a source of a body that hangs is closed when nobody waits for the request any more', async () => {
  const { http, url } = await served();
  let closed!: () => void;
  const left = new Promise<void>((resolve) => (closed = resolve));
  const hanging = {
    [Symbol.asyncIterator]: () => ({ next: () => new Promise<IteratorResult<Uint8Array>>(() => {}), return: async () => (closed(), { done: true as const, value: undefined }) }),
  };
  expect(await failure(() => http.post(`${url}/echo`, hanging, { timeoutMs: 200 }))).toMatchObject({ code: 'TIMED_OUT' });
  await left;
});

/** Every `nth` request has one of these, in turns. */
function inTurnEvery(nth: number, faults: ReturnType<typeof status>[]) {
  let at = 0;
  return () => (++at % nth === 0 ? faults[(at / nth) % faults.length] : undefined);
}

describe('ends', () => {
  test('a signal and a time limit act at once, wherever the request is', async () => {
    const { server, http, url } = await served({ perHostLimit: 1, retryBackoffMs: [60_000] });
    const stages: [string, () => void][] = [
      ['waiting for headers', () => server.next(silent)],
      ['in the body', () => server.next(dripping(100_000))],
      ['before another try', () => server.next(status(503))],
      ['as long as the server says', () => server.next(retryAfter(429, 100))],
    ];
    for (const [, prepare] of stages) {
      prepare();
      const began = performance.now();
      expect(await failure(() => http.get(url, { timeoutMs: 60 }))).toMatchObject({ code: expect.stringMatching(/TIMED_OUT|RATE_LIMITED/) });
      prepare();
      const stop = new AbortController();
      const waiting = failure(() => http.get(url, { signal: stop.signal }));
      setTimeout(() => stop.abort('enough'), 60);
      expect(await waiting).toMatchObject({ code: 'ABORTED', cause: 'enough' });
      expect(performance.now() - began).toBeLessThan(1500);
    }
    server.next(silent);
    const first = new AbortController();
    const holding = failure(() => http.get(url, { signal: first.signal }));
    expect(await failure(() => http.get(url, { timeoutMs: 50 }))).toMatchObject({ code: 'TIMED_OUT' });
    first.abort();
    expect(await holding).toMatchObject({ code: 'ABORTED' });
    expect(await failure(() => http.get(url, { signal: AbortSignal.abort() }))).toMatchObject({ code: 'ABORTED' });
    expect(await http.get(url)).toMatchObject({ method: 'GET' });
    await expect.poll(() => http.getStats()[server.url]).toMatchObject({ inFlight: 0, waiting: 0 });
  });

  test('while a connection is being made, too', async () => {
    // Takes the connection, and never answers to TLS.
    const mute = createServer((socket) => void socket.on('error', () => {}));
    await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void mute.close());
    const url = `https://127.0.0.1:${(mute.address() as AddressInfo).port}/`;
    const http = client();
    let began = performance.now();
    expect(await failure(() => http.get(url, { timeoutMs: 50 }))).toMatchObject({ code: 'TIMED_OUT' });
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 50);
    expect(await failure(() => http.get(url, { signal: stop.signal }))).toMatchObject({ code: 'ABORTED' });
    await expect(http.fetch(url, { signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ name: 'TimeoutError' });
    await http.close();
    expect(performance.now() - began).toBeLessThan(2000);
    began = performance.now();
    expect(await failure(() => client({ connectTimeoutMs: 100 }).get(url, { retryAttempts: 2 }))).toMatchObject({ code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining('within 100 ms'), details: { attempts: 2 } });
    expect(performance.now() - began).toBeLessThan(3000);
  });

  test('close waits for what runs, and refuses what is new', async () => {
    const { server, http, url } = await served({ perHostLimit: 1 });
    server.always(() => slow(20));
    const running = [1, 2, 3].map((i) => http.get(`${url}/${i}`));
    let closed = false;
    const closing = http.close().then(() => (closed = true));
    expect(http.close()).toBe(http.close());
    expect(await failure(() => http.get(url))).toMatchObject({ code: 'CLOSED' });
    expect(await failure(() => http.fetch(url))).toMatchObject({ code: 'CLOSED' });
    expect(closed).toBe(false);
    expect((await Promise.all(running)).map(({ path }) => path)).toEqual(['/echo/1', '/echo/2', '/echo/3']);
    await closing;
    await expect.poll(() => server.open).toBe(0);
  });

  test('close waits for a stream that is read, and not for ever for one that is not', async () => {
    const { server, http } = await served({ readTimeoutMs: 300 });
    server.always(() => () => ({ body: Array.from({ length: 8 }, () => 'x'.repeat(200_000)) }));
    const read: AsyncIterable<Uint8Array> = await http.get(`${server.url}/echo/read`, { as: 'stream' });
    const unread: AsyncIterable<Uint8Array> = await http.get(`${server.url}/echo/unread`, { as: 'stream' });
    const closing = http.close();
    let bytes = 0;
    for await (const piece of read) {
      bytes += piece.length;
      await sleep(5);
    }
    expect(bytes).toBe(1_600_000);
    await closing;
    const error = await failure(async () => { for await (const _ of unread); });
    expect(error).toMatchObject({ code: 'CLOSED' });
    await expect.poll(() => server.open).toBe(0);
  });

  test('a stream that is left, or aborted, lets its connection go', async () => {
    const { server, http, url } = await served({ perHostLimit: 1 });
    const endless = () => () => ({ body: (function* () { for (;;) yield 'x'.repeat(10_000); })() });
    server.always(endless);
    for await (const _ of (await http.get(url, { as: 'stream' })) as AsyncIterable<Uint8Array>) break;
    const stop = new AbortController();
    const stream: AsyncIterable<Uint8Array> = await http.get(url, { as: 'stream', signal: stop.signal });
    const error = await failure(async () => { for await (const _ of stream) stop.abort(); });
    expect(error).toMatchObject({ code: 'ABORTED' });
    server.always(undefined);
    expect(await http.get(url)).toMatchObject({ method: 'GET' });
  });
});

test('getStats tells of each host', async () => {
  const { server, http, url } = await served();
  expect(http.getStats()).toEqual({});
  server.always(inTurn(slow(30), slow(10)));
  for (let i = 0; i < 5; i++) await http.get(url);
  const stats = http.getStats()[server.url]!;
  expect(stats).toMatchObject({ inFlight: 0, waiting: 0, requests: 5, retries: 0, failures: 0 });
  expect(stats.p50).toBeGreaterThanOrEqual(8);
  expect(stats.p95).toBeGreaterThanOrEqual(25);
  expect(stats.p99).toBeGreaterThanOrEqual(stats.p95);
});

describe('what has no end of its own', () => {
  const drip = () => ({ body: (async function* () { for (;;) { yield 'x'; await sleep(20); } })() });

  test('an answer that drips for ever ends, and so does close beside a stream of it that nobody reads', async () => {
    const { server, http, url } = await served({ readTimeoutMs: 100 });
    server.always(() => drip);
    expect(await failure(() => http.get(url))).toMatchObject({ code: 'TIMED_OUT', message: expect.stringContaining('1000 ms'), details: { attempts: 1 } });
    const unread: AsyncIterable<Uint8Array> = await http.get(url, { as: 'stream' });
    const answer = await http.fetch(url);
    await http.close();
    expect(await failure(async () => { for await (const _ of unread); })).toMatchObject({ code: 'CLOSED' });
    await expect(answer.text()).rejects.toThrow(/closed/);
  });

  test('close ends a stream that is read for ever, and a request that is still under way', async () => {
    const { server, http, url } = await served({ readTimeoutMs: 100, maxConcurrentRequests: 2 });
    server.always(() => drip);
    const read: AsyncIterable<Uint8Array> = await http.get(url, { as: 'stream' });
    const reading = failure(async () => { for await (const _ of read); });
    const waiting = failure(() => http.get(url));
    await http.close();
    expect(await reading).toMatchObject({ code: 'CLOSED' });
    expect(['CLOSED', 'TIMED_OUT']).toContain((await waiting).code);
  });

  test('streams that nobody reads give their places to those who wait', async () => {
    const { server, http, url } = await served({ readTimeoutMs: 200, perHostLimit: 2 });
    server.next(drip, drip);
    const held: AsyncIterable<Uint8Array>[] = [await http.get(url, { as: 'stream' }), await http.get(url, { as: 'stream' })];
    expect(await http.get(url)).toMatchObject({ method: 'GET' });
    expect(await failure(async () => { for (const stream of held) for await (const _ of stream); })).toMatchObject({ code: 'TIMED_OUT', message: expect.stringContaining('read it, or leave it') });
  });

  test('a stream that is read keeps its place, and whoever waits for it has a time limit', async () => {
    const { server, http, url } = await served({ readTimeoutMs: 100, perHostLimit: 1 });
    server.next(drip);
    const stream: AsyncIterable<Uint8Array> = await http.get(url, { as: 'stream' });
    let pieces = 0;
    const reading = (async () => { for await (const _ of stream) if (++pieces === 30) return; })();
    expect(await failure(() => http.get(url, { timeoutMs: 150 }))).toMatchObject({ code: 'TIMED_OUT' });
    await reading;
    expect(pieces).toBe(30);
    expect(await http.get(url)).toMatchObject({ method: 'GET' });
  });
});

describe('answers as servers really send them', () => {
  test.each([['with', deflateSync], ['without', deflateRawSync]])('deflate %s a header of zlib', async (_, deflate) => {
    const { server, http, url } = await served();
    server.always(() => () => ({ body: [...deflate(Buffer.from('{"a":1}'))].map((byte) => Buffer.of(byte)), headers: { 'content-encoding': 'deflate', 'content-type': 'application/json' } }));
    expect(await http.get(url)).toEqual({ a: 1 });
    expect(await (await http.fetch(url)).json()).toEqual({ a: 1 });
  });

  test.each(['gzip', 'deflate', 'br', 'gzip, br'])('nothing, encoded as %s', async (encoding) => {
    const { server, http, url } = await served();
    server.always(() => () => ({ body: '', headers: { 'content-encoding': encoding } }));
    expect((await http.get(url)).length).toBe(0);
    expect(await (await http.fetch(url)).text()).toBe('');
  });

  test('a large answer that compresses well comes piece by piece', async () => {
    const { server, http, url } = await served();
    server.next(() => ({ body: 'x'.repeat(30_000_000), gzip: true }));
    const stream: AsyncIterable<Uint8Array> = await http.get(url, { as: 'stream' });
    let bytes = 0;
    for await (const piece of stream) bytes += piece.length;
    expect(bytes).toBe(30_000_000);
  });

  test.each(['-5', '+1', '1, 2', '1.5.5', '1.5', 'soon', 'Jan 1 2026', '2026-01-01', '0x10'])('Retry-After: %s says nothing', async (header) => {
    const { server, http, url } = await served({ retryBackoffMs: [150], readTimeoutMs: 5000 });
    server.next(status(503, 'later', { 'retry-after': header }));
    const began = performance.now();
    await http.get(url);
    expect(performance.now() - began).toBeGreaterThanOrEqual(140);
    server.next(status(503, 'later', { 'retry-after': header }));
    expect((await failure(() => http.get(url, { retryAttempts: 1 }))).details).not.toHaveProperty('retryAfterMs');
  });

  test.each(['Sun, 06 Nov 1994 08:49:37 GMT', 'Sunday, 06-Nov-94 08:49:37 GMT', 'Sun Nov  6 08:49:37 1994', '0'])('Retry-After: %s is over', async (header) => {
    const { server, http, url } = await served();
    server.next(status(503, 'later', { 'retry-after': header }));
    expect(await failure(() => http.get(url, { retryAttempts: 1 }))).toMatchObject({ details: { retryAfterMs: 0 } });
  });
});

test.each([
  ['?key=abc+def123', ['abc+def123', 'abc def123', 'abc%20def123', 'abc%2Bdef123']],
  ['?key=sek/ret 99', ['sek/ret 99', 'sek/ret%2099', 'sek%2Fret%2099', 'sek%2fret%2099', 'sek%2Fret+99', 'sek\\/ret 99']],
  ['?a=b&api_key=p%C3%A4ss%2Fw', ['p%C3%A4ss%2Fw', 'päss/w', 'p%C3%A4ss/w', 'p%c3%a4ss%2fw']],
])('a key in %s is in no message, however the server spells it', async (query, spellings) => {
  const { server, http, url } = await served();
  for (const spelling of spellings) {
    server.next(status(400, `what is ${spelling} for`), (reply) => ({ ...reply, json: undefined, body: spelling, headers: { 'content-type': 'application/json' } }));
    for (let i = 0; i < 2; i++) {
      const { message } = await failure(() => http.get(`${url}${query}`));
      expect(message).toContain('***');
      expect(message).not.toContain(spelling);
    }
  }
});

test('values of a wrong kind are not sent', async () => {
  const { server, http, url } = await served();
  const refusals: [() => unknown, RegExp][] = [
    [() => http.request(url, { method: null as never }), /method is null/],
    [() => http.request(url, { method: '' }), /method/],
    [() => http.get(url, { headers: { a: 5 } as never }), /`a`.*number/],
    [() => http.get(url, { headers: { a: null } as never }), /`a`.*null/],
    [() => http.get(url, { headers: [['a', 5]] as never }), /`a`.*number/],
    [() => http.get(url, { headers: ['qqq: zzz'] as never }), /element 0/],
    [() => http.get(url, { headers: new Map([['a', {}]]) as never }), /`a`.*object/],
    [() => http.fetch(url, { signal: 5 as never }), /signal is 5/],
    [() => http.fetch(url, { signal: {} as never }), /signal is an object/],
    [() => http.fetch(url, { get signal(): never { throw new Error('mine'); } }), /mine/],
  ];
  for (const [work, message] of refusals) {
    const error = await failure(work);
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(message) });
    expect(error.message).not.toContain('zzz');
  }
  expect(server.requests).toHaveLength(0);
});

test.each([['a promise', async () => false], ['a promise that fails', async () => { throw new Error('later'); }], ['a number', () => 1], ['nothing', () => undefined]])('retryOn answers true or false, not %s', async (_, retryOn) => {
  const { server, http, url } = await served({ retryOn: retryOn as never });
  server.always(() => status(500));
  expect(await failure(() => http.get(url))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringMatching(/retryOn.*500/) });
  expect(server.requests).toHaveLength(1);
});
