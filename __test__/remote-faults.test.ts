// Servers that misbehave, and what becomes of a call.

import { createServer } from 'node:net';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { EmbeddingError, OptimizedEmbeddingGenerator, PerformanceMonitor, type RemoteOptions } from 'embedcore';
import { expect, onTestFinished, test, vi } from 'vitest';

import { changed, openaiEmbeddings, tei } from './loopback/embeddings';
import { cut, dripping, gzipped, inTurn, redirect, reset, retryAfter, silent, slow, status, truncated } from './loopback/faults';
import { ollama, vectorOf } from './loopback/ollama';
import { loopback, type Fault, type Loopback } from './loopback/server';
import { distance, failure, ready } from './support';

const texts = (count: number) => Array.from({ length: count }, (_, i) => `text ${i} reads a file`);
const embeds = ({ path }: { path: string }) => path.includes('embed');
const vectorsAsked = (server: Loopback) => server.requests.filter(embeds).length;

/** A generator of a server that behaves until its model is loaded. */
async function served(remote: Partial<RemoteOptions> = {}, api = ollama(), kind: 'ollama' | 'openai' | 'tei' = 'ollama') {
  const server = await loopback({ apis: [api] });
  const model = { ollama: 'nomic-embed-text', openai: 'text-embedding-3-small', tei: undefined }[kind];
  const generator = await ready({ remote: { kind, url: server.url, ...(model && { model }), ...remote } });
  server.requests.length = 0;
  return { server, generator };
}

const right = async (generator: OptimizedEmbeddingGenerator, all = texts(3)) => {
  const matrix = await generator.embed(all);
  all.forEach((text, index) => expect(distance(matrix.row(index), vectorOf(text))).toBeLessThan(1e-6));
  return matrix;
};

test.each<[string, Fault]>([
  ['a reset before the answer', reset()],
  ['a reset in its middle', reset(40)],
  ['an end in its middle', cut(40)],
  ['503', status(503)],
  ['429', status(429)],
  ['500', status(500)],
  ['408', status(408)],
  ['503 with Retry-After in seconds', retryAfter(503, 1)],
  ['429 with Retry-After of 0', retryAfter(429, 0)],
])('%s passes', async (_, fault) => {
  const { server, generator } = await served();
  server.next(fault);
  await right(generator);
  expect(vectorsAsked(server)).toBe(2);
});

test.each([429, 503] as const)('%i is waited for as long as it says, in seconds or as a date, by all', async (code) => {
  const { server, generator } = await served();
  server.next(retryAfter(code, 1));
  let began = performance.now();
  await Promise.all([generator.embed(['a']), new Promise((resolve) => setTimeout(resolve, 300)).then(() => generator.embed(['b']))]);
  expect(performance.now() - began).toBeGreaterThan(990);
  expect(vectorsAsked(server)).toBe(3);
  // A date has whole seconds: two from now are more than one.
  const date: Fault = (reply, request) => retryAfter(code, new Date(Date.now() + 2000))(reply, request);
  server.next(date);
  began = performance.now();
  await generator.embed(['c']);
  expect(performance.now() - began).toBeGreaterThan(990);
});

test('a storm of 503 is outlasted by as many attempts as there may be, and no more', async () => {
  const { server, generator } = await served({ retries: 2 });
  server.next(status(503), status(503));
  await right(generator);
  server.always((request) => (embeds(request) ? status(503, 'down for maintenance') : undefined));
  const before = vectorsAsked(server);
  const error = await failure(() => generator.embed(['new']));
  expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true, details: { status: 503, url: `${server.url}/api/embed` } });
  expect(error.message).toContain('down for maintenance');
  expect(vectorsAsked(server) - before).toBe(3);
  server.always((request) => (embeds(request) ? status(429) : undefined));
  expect(await failure(() => generator.embed(['newer']))).toMatchObject({ code: 'RATE_LIMITED', retryable: true });
});

test('what is asked for in an hour is told at once', async () => {
  const { server, generator } = await served();
  server.always(() => retryAfter(429, 3600));
  const began = performance.now();
  const error = await failure(() => generator.embed(['a']));
  expect(error.code).toBe('RATE_LIMITED');
  expect(error.message).toContain('3600 s');
  expect(performance.now() - began).toBeLessThan(5000);
});

test('a wait is never longer than the call', async () => {
  const { server, generator } = await served();
  server.always(() => retryAfter(503, 50));
  const began = performance.now();
  expect(await failure(() => generator.embed(['a'], { timeoutMs: 300 }))).toMatchObject({ code: 'TIMED_OUT' });
  expect(await failure(() => generator.embed(['b'], { signal: AbortSignal.timeout(300) }))).toMatchObject({ code: 'ABORTED' });
  expect(performance.now() - began).toBeLessThan(2000);
});

test.each<[number, unknown, string]>([
  [400, 'bad words', 'bad words'],
  [401, { message: 'the key has expired', type: 'auth' }, 'the key has expired'],
  [403, 'not yours', 'not yours'],
  [404, "model 'nomic-embed-text' not found", 'not found'],
  [422, 'no', 'no'],
])('%i is a refusal, at once and in the words of the server', async (code, error, words) => {
  const { server, generator } = await served();
  server.always((request) => (embeds(request) ? status(code, error) : undefined));
  const thrown = await failure(() => generator.embed(texts(20)));
  expect(thrown).toBeInstanceOf(EmbeddingError);
  expect(thrown).toMatchObject({ code: 'BACKEND_REJECTED', retryable: false, details: { status: code } });
  expect(thrown.message).toContain(words);
  expect(vectorsAsked(server)).toBe(1);
  // Nothing of it is kept.
  server.always(undefined);
  expect([...(await right(generator)).fromCache]).toEqual([0, 0, 0]);
});

const embeddings = (change: (list: number[][]) => unknown) => changed((json) => ({ ...json, embeddings: change(json.embeddings) }));
const data = (change: (list: any[]) => unknown) => changed((json) => ({ ...json, data: change(json.data) }));

test.each<[string, Fault]>([
  ['fewer vectors', embeddings((list) => list.slice(1))],
  ['more vectors', embeddings((list) => [...list, list[0]])],
  ['no vectors', embeddings(() => [])],
  ['a longer vector', embeddings((list) => [[...list[0]!, 1], ...list.slice(1)])],
  ['longer vectors', embeddings((list) => list.map((vector) => [...vector, 1]))],
  ['shorter vectors', embeddings((list) => list.map((vector) => vector.slice(1)))],
  ['an empty vector', embeddings((list) => [[], ...list.slice(1)])],
  ['null in a vector', embeddings((list) => [[null, ...list[0]!.slice(1)], ...list.slice(1)])],
  ['text in a vector', embeddings((list) => [['x', ...list[0]!.slice(1)], ...list.slice(1)])],
  ['NaN', (reply) => ({ headers: { 'content-type': 'application/json' }, body: JSON.stringify(reply.json).replace(/\[\[[-.\d]+/, '[[NaN') })],
  ['a number beyond all', (reply) => ({ headers: { 'content-type': 'application/json' }, body: JSON.stringify(reply.json).replace(/\[\[[-.\d]+/, '[[1e400') })],
  ['null for the vectors', embeddings(() => null)],
  ['another answer', () => ({ json: { message: 'hello' } })],
  ['JSON that ends early', truncated(60)],
  ['a page', () => ({ headers: { 'content-type': 'text/html' }, body: '<html>Welcome</html>' })],
  ['nothing', () => ({ status: 204 })],
])('200 with %s is a refusal, and not kept', async (_, fault) => {
  const { server, generator } = await served();
  server.always((request) => (embeds(request) ? fault : undefined));
  const error = await failure(() => generator.embed(texts(3)));
  expect(error).toMatchObject({ code: 'BACKEND_REJECTED', retryable: false });
  server.always(undefined);
  expect([...(await right(generator)).fromCache]).toEqual([0, 0, 0]);
});

test.each<[string, Fault]>([
  ['in another order', data((list) => list.reverse())],
  ['numbered twice', data((list) => list.map((item) => ({ ...item, index: 0 })))],
  ['with a number left out', data((list) => list.map((item, at) => ({ ...item, index: at + 1 })))],
  ['fewer', data((list) => list.slice(1))],
])('vectors %s are refused, and not kept', async (_, fault) => {
  const { server, generator } = await served({}, openaiEmbeddings(), 'openai');
  server.always(() => fault);
  expect(await failure(() => generator.embed(texts(3)))).toMatchObject({ code: 'BACKEND_REJECTED' });
  server.always(undefined);
  expect([...(await right(generator)).fromCache]).toEqual([0, 0, 0]);
});

test('vectors without numbers, and as arrays though bytes were asked for, are as good', async () => {
  const { server, generator } = await served({}, openaiEmbeddings(), 'openai');
  server.next(data((list) => list.map(({ index: _, ...item }) => item)));
  await right(generator);
  server.next(data((list) => list.map((item) => ({ ...item, embedding: [...new Float32Array(new Uint8Array(Buffer.from(item.embedding, 'base64')).buffer)] }))));
  await right(generator, ['x', 'y']);
});

test('one text that has no finite vector takes no other with it', async () => {
  const { server, generator } = await served();
  const bad = 'text 5 reads a file';
  server.always(({ json }) => embeddings((list) => list.map((vector, at) => (json.input[at] === bad ? vector.map(() => null) : vector))));
  const results = await generator.generateEmbeddings(texts(20).map((signature, i) => ({ nodeId: `${i}`, signature, summary: '' })), { onError: 'skip' });
  expect(results.filter(({ error }) => error)).toEqual([]);
  const matrix = await generator.embed(texts(20), { onError: 'skip' });
  expect([...matrix.errors.keys()]).toEqual([5]);
  expect(matrix.errors.get(5)).toMatchObject({ code: 'BACKEND_REJECTED', details: { index: 5 } });
  expect(await failure(() => generator.embed(['fine', bad]))).toMatchObject({ code: 'BACKEND_REJECTED', details: { index: 1 } });
});

test('413 halves a batch, down to the text that is too long', async () => {
  const { server, generator } = await served({}, ollama({ maxBatch: 5 }));
  await right(generator, texts(100));
  const sizes = server.requests.map(({ json }) => json.input.length);
  expect(Math.max(...sizes)).toBe(32);
  // What was learned holds from then on.
  server.requests.length = 0;
  await right(generator, texts(200).slice(100));
  expect(server.requests.filter(({ json }) => json.input.length > 5)).toEqual([]);
});

test.each<[number, unknown]>([
  [413, 'Payload Too Large'],
  [400, { message: "This model's maximum context length is 8 tokens, however you requested 90 tokens", code: 'context_length_exceeded' }],
  [422, 'too many tokens'],
])('%i for one long text is its own error', async (code, words) => {
  const { server, generator } = await served();
  const long = 'long '.repeat(50);
  server.always(({ json }) => (json.input.includes(long) ? status(code, words) : undefined));
  const all = [...texts(10), long, ...texts(20).slice(10)];
  const matrix = await generator.embed(all, { onError: 'skip' });
  expect([...matrix.errors.keys()]).toEqual([10]);
  expect(matrix.errors.get(10)).toMatchObject({ code: 'BACKEND_REJECTED', details: { index: 10, status: code } });
  expect(distance(matrix.row(20), vectorOf(all[20]!))).toBeLessThan(1e-6);
  expect(await failure(() => generator.embed([long]))).toMatchObject({ code: 'BACKEND_REJECTED', details: { index: 0 } });
});

test('slow headers and dripping bodies are waited for, up to timeoutMs of an answer', async () => {
  const { server, generator } = await served({ timeoutMs: 1000, retries: 0 });
  server.next(slow(300), dripping(1, 20));
  await right(generator);
  await right(generator, ['x']);
  for (const fault of [silent, slow(20_000), dripping(100)]) {
    server.next(fault);
    const began = performance.now();
    expect(await failure(() => generator.embed(['new']))).toMatchObject({ code: 'TIMED_OUT', retryable: true, details: { timeoutMs: 1000 } });
    expect(performance.now() - began).toBeLessThan(4000);
  }
});

test('gzip that nobody asked for is read', async () => {
  const { server, generator } = await served();
  server.always(() => gzipped);
  await right(generator);
  expect(server.requests[0]!.headers['accept-encoding']).toBe('identity');
});

test('an answer that never ends is cut off', async () => {
  const { server, generator } = await served();
  async function* endless() {
    for (;;) yield ' '.repeat(1 << 16);
  }
  server.next(() => ({ headers: { 'content-type': 'application/json' }, body: endless() }));
  expect(await failure(() => generator.embed(['a']))).toMatchObject({ code: 'BACKEND_REJECTED' });
  await right(generator);
});

test.each([307, 308])('%i leads on, without what is secret where it leads to another origin', async (code) => {
  const { server, generator } = await served({ apiKey: 'sk-1234567890', headers: { 'X-Team': 'team-secret' } });
  const other = await loopback({ apis: [ollama()] });
  server.next(redirect(`${other.url}/api/embed`, code));
  await right(generator);
  expect(other.requests[0]!.json.input).toEqual(texts(3));
  expect(other.requests[0]!.headers).not.toHaveProperty('authorization');
  expect(other.requests[0]!.headers).not.toHaveProperty('x-team');
  server.next(redirect('/api/embed', code));
  await right(generator, ['x']);
  expect(server.requests.at(-1)!.headers).toMatchObject({ authorization: 'Bearer sk-1234567890', 'x-team': 'team-secret' });
});

test.each([301, 302, 303, 307])('%i to nowhere, for ever, or without the body is a refusal', async (code) => {
  const { server, generator } = await served();
  for (const location of ['ftp://host/', '/api/embed']) {
    server.always(() => redirect(location, code));
    expect(await failure(() => generator.embed(['a']))).toMatchObject({ code: 'BACKEND_REJECTED' });
  }
});

test('where there is no server, that is said', async () => {
  const server = await loopback();
  await server.close();
  const error = await failure(() => ready({ remote: { kind: 'ollama', url: server.url, model: 'm', retries: 1 } }));
  expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true, details: { status: null } });
  expect(error.message).toContain('it takes no connections');
  expect((await failure(() => ready({ remote: { kind: 'ollama', url: 'http://nowhere.invalid', model: 'm', retries: 0 } }))).code).toBe('BACKEND_UNAVAILABLE');
});

test('a port that speaks something else is no server', async () => {
  const server = createServer((socket) => void socket.on('error', () => {}).end('SSH-2.0-OpenSSH_9.6\r\n'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const url = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
  expect(await failure(() => ready({ remote: { kind: 'ollama', url, model: 'm', retries: 0 } }))).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
  const web = await loopback({ apis: [() => ({ status: 200, headers: { 'content-type': 'text/html' }, body: '<html>' })] });
  expect(await failure(() => ready({ remote: { kind: 'tei', url: web.url } }))).toMatchObject({ code: 'BACKEND_REJECTED' });
});

test('a model that does not exist, or a wrong key, fails the load in the words of the server, and the next one may succeed', async () => {
  const server = await loopback({ apis: [ollama(), openaiEmbeddings({ apiKey: 'sk-right-key' })] });
  const generator = new OptimizedEmbeddingGenerator({ remote: { kind: 'ollama', url: server.url, model: 'nope' } });
  onTestFinished(() => generator.cleanup());
  const error = await failure(() => generator.initialize());
  expect(error).toMatchObject({ code: 'BACKEND_REJECTED', details: { status: 404 } });
  expect(error.message).toContain("model 'nope' not found");
  expect(generator.isReady()).toBe(false);
  await generator.initialize('ollama:nomic-embed-text');
  expect(generator.isReady()).toBe(true);
  const refused = await failure(() => ready({ remote: { kind: 'openai', url: server.url, model: 'text-embedding-3-small', apiKey: 'sk-wrong-key' } }));
  expect(refused).toMatchObject({ code: 'BACKEND_REJECTED', details: { status: 401 } });
  expect(refused.message).toContain('Incorrect API key provided: …');
  const apiKey = 'sk+secret/key=&1';
  const echoed = [encodeURIComponent(apiKey), encodeURIComponent(apiKey).toLowerCase(), apiKey.replaceAll('/', '\\/'), apiKey.replaceAll('&', '&amp;'), apiKey.replace(/[^\w-]/g, (char) => `&#${char.charCodeAt(0)};`)];
  for (const spelling of echoed) {
    const { server, generator } = await served({ apiKey });
    server.next(status(400, `no ${spelling} here`));
    const error = await failure(() => generator.embed(['a']));
    expect(error.message).toContain('no … here');
  }
});

test.each<[string, Fault]>([
  ['headers', silent],
  ['a body', dripping(50)],
  ['a server that is down', status(503)],
  ['Retry-After', retryAfter(429, 40)],
])('an abort, a limit and shutdown end the wait for %s within half a second', async (_, fault) => {
  const { server, generator } = await served();
  server.always((request) => (embeds(request) ? fault : undefined));
  const soon = async (work: (signal: AbortSignal) => Promise<unknown>, code: string) => {
    const stop = new AbortController();
    const failed = failure(() => work(stop.signal));
    await vi.waitFor(() => expect(vectorsAsked(server)).toBeGreaterThan(0), { timeout: 5000 });
    await new Promise((resolve) => setTimeout(resolve, 100));
    const began = performance.now();
    stop.abort();
    expect((await failed).code).toBe(code);
    expect(performance.now() - began).toBeLessThan(500);
  };
  await soon((signal) => generator.embed(texts(100), { signal }), 'ABORTED');
  await soon((signal) => generator.embed(texts(100), { signal: AbortSignal.any([signal]), timeoutMs: 60_000 }), 'ABORTED');
  const limited = performance.now();
  expect((await failure(() => generator.embed(['b'], { timeoutMs: 200 }))).code).toBe('TIMED_OUT');
  expect(performance.now() - limited).toBeLessThan(700);
  await soon((signal) => {
    signal.addEventListener('abort', () => void generator.shutdown());
    return generator.embed(texts(100));
  }, 'CLOSED');
  const began = performance.now();
  await generator.shutdown();
  expect(performance.now() - began).toBeLessThan(500);
  // What was on its way is dropped.
  await vi.waitFor(() => expect(server.inFlight).toBe(0), { timeout: 5000 });
  server.always(undefined);
  await generator.initialize();
  await right(generator);
});

test('an abort ends a load, wherever it is', async () => {
  for (const path of ['/api/show', '/api/tags', '/api/embed']) {
    const server = await loopback({ apis: [ollama()] });
    server.always((request) => (request.path === path ? silent : undefined));
    const generator = new OptimizedEmbeddingGenerator({ remote: { kind: 'ollama', url: server.url, model: 'nomic-embed-text' } });
    onTestFinished(() => generator.cleanup());
    const stop = new AbortController();
    const failed = failure(() => generator.initialize(undefined, { signal: stop.signal }));
    await vi.waitFor(() => expect(server.requests.at(-1)?.path).toBe(path), { timeout: 5000 });
    const began = performance.now();
    stop.abort();
    expect((await failed).code).toBe('ABORTED');
    expect(performance.now() - began).toBeLessThan(500);
  }
});

test('one call that is stopped takes nothing from another that waits for the same texts', async () => {
  const { server, generator } = await served();
  server.next(slow(500));
  const stop = new AbortController();
  const first = failure(() => generator.embed(texts(3), { signal: stop.signal }));
  await vi.waitFor(() => expect(vectorsAsked(server)).toBe(1), { timeout: 5000 });
  const second = right(generator);
  stop.abort();
  expect((await first).code).toBe('ABORTED');
  await second;
});

test('as many requests as there may be are under way, and none more, whatever fails', async () => {
  const { server, generator } = await served({ concurrency: 3, maxBatchItems: 4, retries: 9 });
  server.always(((turn) => () => (turn++ % 5 === 0 ? reset() : turn % 7 === 0 ? status(503) : slow(5)))(0));
  await right(generator, texts(200));
  expect(server.most).toBeLessThanOrEqual(3);
  expect(server.most).toBe(3);
});

test('a stream goes on after what passes, and ends where it does not', async () => {
  const { server, generator } = await served({ retries: 2 });
  server.next(status(503), reset());
  let count = 0;
  for await (const _ of generator.stream(texts(400))) count++;
  expect(count).toBe(400);
  server.always((request) => (request.json?.input?.includes('bad') ? status(400, 'no') : undefined));
  const error = await failure(async () => {
    for await (const _ of generator.stream(['x', 'bad'])) count++;
  });
  expect(error).toMatchObject({ code: 'BACKEND_REJECTED' });
});

test('keys are in no error, log, metric and file', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const secrets = ['sk-very-secret-key', 'team-secret-value', 'url-password', 'query-secret'];
  const said: unknown[] = [];
  const log = (...parts: unknown[]) => void said.push(parts);
  const logger = { debug: log, info: log, warn: log, error: log };
  const monitor = new PerformanceMonitor();
  const server = await loopback({ apis: [openaiEmbeddings()] });
  const url = `${server.url.replace('://', '://user:url-password@')}/v1?key=query-secret`;
  const generator = new OptimizedEmbeddingGenerator({
    remote: { kind: 'openai', url, model: 'text-embedding-3-small', apiKey: secrets[0], headers: { 'X-Team': secrets[1]! }, retries: 0 },
    cache: { persistPath: join(directory, 'cache.sqlite') },
    stateDir: directory,
    logger,
    monitor,
  });
  onTestFinished(() => generator.cleanup());
  await generator.initialize();
  await generator.embed(texts(40));
  expect(server.requests.at(-1)!.headers).toMatchObject({ authorization: `Bearer ${secrets[0]}`, 'x-team': secrets[1] });
  expect(server.requests.at(-1)!.query.get('key')).toBe('query-secret');
  // A server that repeats all that it was told.
  const echo: Fault = (_, request) => ({ status: 400, json: { error: { message: JSON.stringify([request.headers, request.query.get('key'), 'url-password']) } } });
  const errors: unknown[] = [];
  for (const fault of [echo, status(401, 'sk-very-secret-key is wrong'), status(500, 'team-secret-value'), reset(), (() => ({ json: { data: [{ index: 0, embedding: 'sk-very-secret-key' }] } })) as Fault]) {
    server.next(fault);
    const error = await failure(() => generator.embed([`new ${errors.length}`]));
    errors.push(error.message, error.stack, JSON.stringify(error), String(error.cause), error.details);
  }
  for (const options of [{ apiKey: 'sk-very-secret-key with blanks' }, { url: 'sk-very-secret-key' }, { url: 'gopher://user:url-password@host' }, { headers: { X: 'team-secret-value\n' } }]) {
    errors.push(await failure(() => new OptimizedEmbeddingGenerator({ remote: { kind: 'openai', model: 'm', ...options } })).then(({ message, details, stack }) => [message, details, stack]));
  }
  await generator.cleanup();
  const files = readdirSync(directory).map((name) => readFileSync(join(directory, name)).toString('latin1'));
  expect(files.length).toBeGreaterThan(0);
  const all = [JSON.stringify([said, errors, generator.getPerformanceMetrics()]), monitor.toPrometheus(), process.title, ...files].join('\n');
  for (const secret of secrets) expect(all.includes(secret), secret).toBe(false);
  expect(all).toContain('/v1/embeddings');
});

test('texts of one that is slow do not hold up another call for long', async () => {
  const { server, generator } = await served({ concurrency: 2, maxBatchItems: 2 }, tei({ maxBatch: 2 }), 'tei');
  server.always(() => slow(20));
  const long = generator.embed(texts(200));
  await vi.waitFor(() => expect(vectorsAsked(server)).toBeGreaterThan(4), { timeout: 5000 });
  await generator.embed(['short']);
  expect(vectorsAsked(server)).toBeLessThan(80);
  await long;
});
