import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';

import { EmbeddingError, InferenceCache, PerformanceMonitor } from 'embedcore';
import { HttpClient, OllamaClient, OptimizedOllamaClient, type OllamaChunk, type OllamaClientOptions } from 'embedcore/llm';
import { describe, expect, onTestFinished, test } from 'vitest';

import { dripping, redirect, reset, silent, slow, status, truncated } from './loopback/faults';
import { ollama, vectorOf, type OllamaSettings } from './loopback/ollama';
import { loopback, type Loopback } from './loopback/server';
import { failure } from './support';

async function served(options: OllamaClientOptions = {}, settings?: OllamaSettings): Promise<{ server: Loopback; client: OllamaClient }> {
  const server = await loopback({ apis: [ollama(settings)] });
  return { server, client: clientOf(server, options) };
}

function clientOf(server: Loopback, options: OllamaClientOptions = {}): OllamaClient {
  const client = new OllamaClient({ baseUrl: server.url, model: 'llama3.2', monitor: false, http: { retryBackoffMs: [1] }, ...options });
  onTestFinished(() => client.close());
  return client;
}

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'embedcore-ollama-'));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function all(stream: AsyncIterable<OllamaChunk>): Promise<OllamaChunk[]> {
  const chunks: OllamaChunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const text = 'an answer to 3 characters';
const picture = new Uint8Array([137, 80, 78, 71, 1, 2, 3, 4]);

describe('generate and chat', () => {
  test('give the answer with its numbers, and then the same from the cache', async () => {
    const { server, client } = await served();
    const first = await client.generate('why');
    expect(first).toEqual({
      response: text, message: { role: 'assistant', content: text }, model: 'llama3.2', doneReason: 'stop', evalCount: 5, promptEvalCount: 11,
      tokensPerSecond: 10, totalDurationMs: 2000, loadDurationMs: 100, fromCache: false,
    });
    const again = await client.generate({ prompt: 'why' });
    expect(again).toEqual({ ...first, fromCache: true });
    again.message.content = 'changed';
    expect((await client.generate('why')).message.content).toBe(text);
    const chat = await client.chat([{ role: 'system', content: 'short' }, { role: 'user', content: 'why' }]);
    expect(chat).toMatchObject({ response: text, message: { role: 'assistant', content: text }, evalCount: 5, fromCache: false });
    expect(await client.chat([{ role: 'system', content: 'short' }, { role: 'user', content: 'why' }])).toMatchObject({ fromCache: true });
    expect(server.requests.map(({ path }) => path)).toEqual(['/api/generate', '/api/chat']);
    expect(new OptimizedOllamaClient({ model: 'a' })).toBeInstanceOf(OllamaClient);
  });

  test('numbers that the server does not tell are not made up', async () => {
    const { server, client } = await served();
    server.next(() => ({ json: { model: 'llama3.2', response: 'yes', done: true, eval_count: 3 } }));
    const result = await client.generate('whether');
    expect(result).toEqual({ response: 'yes', message: { role: 'assistant', content: 'yes' }, model: 'llama3.2', evalCount: 3, fromCache: false });
    expect(Object.keys(result)).not.toContain('promptEvalCount');
    expect(await client.generate('whether')).toEqual({ ...result, fromCache: true });
  });

  test('options are sent under the names of the server', async () => {
    const { server, client } = await served({ defaults: { numThread: 2, temperature: 0.7 } });
    await client.generate({ prompt: 'why', system: 'short', format: 'json' }, { temperature: 0, maxTokens: 7, numCtx: 2048, seed: 0, topP: 0.5, topK: 3, stop: ['x'], think: false });
    expect(server.requests[0]!.json).toEqual({
      model: 'llama3.2', prompt: 'why', system: 'short', format: 'json', think: false, stream: false, keep_alive: '30m',
      options: { num_thread: 2, temperature: 0, num_predict: 7, num_ctx: 2048, seed: 0, top_p: 0.5, top_k: 3, stop: ['x'] },
    });
    await client.chat([{ role: 'user', content: 'why', images: [Buffer.from(picture).toString('base64')] }], { keepAlive: -1, model: 'llava', tools: [{ type: 'function' }], format: { type: 'object' } });
    expect(server.requests[1]!.json).toMatchObject({ model: 'llava', keep_alive: -1, tools: [{ type: 'function' }], format: { type: 'object' }, options: { temperature: 0.7, num_thread: 2 }, messages: [{ role: 'user', content: 'why', images: [Buffer.from(picture).toString('base64')] }] });
  });

  test('what changes an answer tells it apart, and nothing else does', async () => {
    const { server, client } = await served();
    const different = [
      () => client.generate('why'),
      () => client.generate('why?'),
      () => client.generate('why', { model: 'llava' }),
      () => client.generate('why', { temperature: 0 }),
      () => client.generate('why', { temperature: 1 }),
      () => client.generate('why', { maxTokens: 3 }),
      () => client.generate('why', { seed: 1 }),
      () => client.generate({ prompt: 'why', system: 's' }),
      () => client.generate({ prompt: 'why', format: 'json' }),
      () => client.generate({ prompt: 'why', images: [picture] }),
      () => client.generate({ prompt: 'why', images: [picture.slice(1)] }),
      () => client.generate('why', { cacheType: 'vision_inference' }),
      () => client.chat([{ role: 'user', content: 'why' }]),
    ];
    for (const work of different) expect((await work()).fromCache).toBe(false);
    for (const work of different) expect((await work()).fromCache).toBe(true);
    expect((await client.generate('why', { keepAlive: '1h', numThread: 4, timeoutMs: 5000, signal: new AbortController().signal })).fromCache).toBe(true);
    expect((await client.generate({ prompt: 'why', images: [Buffer.from(picture).toString('base64')] })).fromCache).toBe(true);
    expect((await client.generate('why', { useCache: false })).fromCache).toBe(false);
    expect(server.requests.length).toBe(different.length + 1);
    const other = await loopback({ apis: [ollama()] });
    const cache = new InferenceCache();
    onTestFinished(() => cache.close());
    expect((await clientOf(server, { cache }).generate('why')).fromCache).toBe(false);
    expect((await clientOf(other, { cache }).generate('why')).fromCache).toBe(false);
    expect((await clientOf(server, { cache }).generate('why')).fromCache).toBe(true);
    expect((await clientOf(server, { cache, useCache: false }).generate('why')).fromCache).toBe(false);
  });

  test('results live as long as their type says', async () => {
    const cache = new InferenceCache({ ttlSecondsByType: { vision_inference: 1000, text_inference: 100, own: 10 } });
    onTestFinished(() => cache.close());
    const { client } = await served({ cache });
    await client.generate('why');
    await client.generate({ prompt: 'why', images: [picture] });
    await client.generate('why', { cacheType: 'own' });
    await client.generate('how', { cacheType: 'own', ttlSeconds: 5 });
    const { byType } = cache.getStats();
    expect(Object.entries(byType).map(([type, { sets }]) => [type, sets]).sort()).toEqual([['own', 2], ['text_inference', 1], ['vision_inference', 1]]);
  });

  test('on disk, the next process has it', async () => {
    const persistPath = join(folder(), 'results.db');
    const { server, client } = await served({ cache: { persistPath } });
    await client.generate('why');
    await client.close();
    expect(await clientOf(server, { cache: { persistPath } }).generate('why')).toMatchObject({ response: text, fromCache: true });
    expect(server.requests.length).toBe(1);
  });

  test('what many ask at the same time is asked once; whoever leaves, leaves alone', async () => {
    const { server, client } = await served();
    server.next(slow(150));
    const stop = new AbortController();
    const first = failure(() => client.generate('why', { signal: stop.signal }));
    const others = Array.from({ length: 20 }, () => client.generate('why'));
    setTimeout(() => stop.abort(), 30);
    expect(await first).toMatchObject({ code: 'ABORTED' });
    const results = await Promise.all(others);
    expect(results.every(({ response }) => response === text)).toBe(true);
    expect(new Set(results.map(({ message }) => message)).size).toBe(20);
    expect(server.requests.length).toBe(1);
    expect(server.requests[0]!.aborted).toBe(false);

    server.next(silent);
    const alone = new AbortController();
    const left = failure(() => client.generate('how', { signal: alone.signal }));
    await expect.poll(() => server.requests.length).toBe(2);
    alone.abort();
    expect(await left).toMatchObject({ code: 'ABORTED' });
    // Asked while the one that was left is still going.
    expect(await client.generate('how')).toMatchObject({ fromCache: false });
    await expect.poll(() => server.requests[1]!.aborted).toBe(true);
    server.next(silent);
    const began = performance.now();
    expect(await failure(() => client.generate('when', { timeoutMs: 50 }))).toMatchObject({ code: 'TIMED_OUT' });
    expect(performance.now() - began).toBeLessThan(2000);
  });

  test('arguments are as they were when the call was made', async () => {
    const { server, client } = await served({ useCache: false });
    const prompt = { prompt: 'why', images: [Uint8Array.from(picture)], format: { type: 'object' } };
    const options = { temperature: 0, stop: ['a'] };
    const asked = client.generate(prompt, options);
    prompt.prompt = 'changed';
    prompt.images[0]!.fill(0);
    prompt.format.type = 'changed';
    options.temperature = 9;
    options.stop[0] = 'changed';
    await asked;
    expect(server.requests[0]!.json).toMatchObject({ prompt: 'why', images: [Buffer.from(picture).toString('base64')], format: { type: 'object' }, options: { temperature: 0, stop: ['a'] } });
  });
});

describe('streams', () => {
  test('pieces come as the server sends them, and are kept when it ended well', async () => {
    const { server, client } = await served();
    server.next(dripping(1, 7));
    const chunks = await all(client.generate('why', { stream: true }));
    expect(chunks.map(({ response }) => response).join('')).toBe(text);
    expect(chunks.length).toBe(6);
    expect(chunks.at(-1)).toMatchObject({ done: true, evalCount: 5, tokensPerSecond: 10, fromCache: false });
    expect(chunks.slice(0, -1).every(({ done }) => !done)).toBe(true);
    expect(await client.generate('why')).toMatchObject({ response: text, message: { role: 'assistant', content: text }, fromCache: true });
    const [kept, ...rest] = await all(await client.generate('why', { stream: true }));
    expect(kept).toMatchObject({ response: text, done: true, fromCache: true });
    expect(rest).toEqual([]);
    expect((await all(client.chat([{ role: 'user', content: 'why' }], { stream: true }))).map(({ message }) => message.content).join('')).toBe(text);
    expect(server.requests.length).toBe(2);
  });

  test('what was cleared or set while it came is newer than what it gave', async () => {
    const cache = new InferenceCache();
    onTestFinished(() => cache.close());
    const { client } = await served({ cache });
    const cleared = client.generate('why', { stream: true });
    await cleared.next();
    await cache.clear();
    await all(cleared);
    expect((await client.generate('why')).fromCache).toBe(false);
    // The same without anything between.
    await all(client.generate('how', { stream: true }));
    expect((await client.generate('how')).fromCache).toBe(true);
  });

  test('one that fails, or is left, is not kept', async () => {
    const { server, client } = await served();
    server.next(reset(200));
    expect(await failure(() => all(client.generate('why', { stream: true })))).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
    server.next((reply) => ({ ...reply, body: [...(reply.body as string[])].slice(0, 2) }));
    expect(await failure(() => all(client.generate('why', { stream: true })))).toMatchObject({ code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining('before it was done') });
    server.next((reply) => ({ ...reply, body: [(reply.body as string[])[0]!, '{"error":"the model crashed"}\n'] }));
    expect(await failure(() => all(client.generate('why', { stream: true })))).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('the model crashed') });
    server.next((reply) => ({ ...reply, body: ['{"respon'] }));
    expect(await failure(() => all(client.generate('why', { stream: true })))).toMatchObject({ code: 'BACKEND_REJECTED' });
    server.next(dripping(2, 1));
    for await (const _ of client.generate('why', { stream: true })) break;
    await expect.poll(() => server.requests.at(-1)!.aborted).toBe(true);
    expect((await client.generate('why')).fromCache).toBe(false);
    expect(await failure(() => all(client.generate('why', { stream: true, model: 'none' })))).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining("model 'none' not found") });
  });

  test('end at once: by a signal, a time limit, and by who leaves while a piece is waited for', async () => {
    const { server, client } = await served();
    const halting = () => server.next((reply) => ({ ...reply, pieceMs: 2 ** 30, pieceBytes: 100_000 }));
    const began = performance.now();
    halting();
    const stop = new AbortController();
    const seen: string[] = [];
    const error = await failure(async () => {
      for await (const { response } of client.generate('why', { stream: true, signal: stop.signal })) {
        seen.push(response);
        setTimeout(() => stop.abort(), 20);
      }
    });
    expect([error.code, seen.length]).toEqual(['ABORTED', 1]);
    halting();
    expect(await failure(() => all(client.generate('how', { stream: true, timeoutMs: 60 })))).toMatchObject({ code: 'TIMED_OUT' });
    halting();
    const stream = client.generate('when', { stream: true });
    await stream.next();
    const pending = failure(() => stream.next());
    await stream.return();
    expect(await pending).toMatchObject({ code: 'ABORTED' });
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    expect(performance.now() - began).toBeLessThan(2000);
    await expect.poll(() => server.inFlight).toBe(0);
    expect(() => client.generate('', { stream: true })).toThrow(EmbeddingError);
    await client.generate('never begun', { stream: true }).return();
    expect(server.requests.length).toBe(3);
  });
});

describe('embed, list, isAvailable', () => {
  test('vectors in order, each text asked for once', async () => {
    const { server, client } = await served({ model: 'nomic-embed-text' });
    const texts = Array.from({ length: 300 }, (_, i) => `text ${i % 200}`);
    const vectors = await client.embed([...texts, '']);
    expect(vectors).toEqual([...texts, ''].map((one) => vectorOf(one)));
    const asked = server.requests.flatMap(({ json }) => json.input as string[]);
    expect([...asked].sort()).toEqual([...new Set([...texts, ''])].sort());
    expect(server.requests.every(({ json }) => json.input.length <= 128)).toBe(true);
    const before = server.requests.length;
    vectors[0]![0] = 7;
    expect(await client.embed('text 0')).toEqual([vectorOf('text 0')]);
    expect(await client.embed([])).toEqual([]);
    expect(server.requests.length).toBe(before);
    await client.embed(['text 0'], { useCache: false });
    expect(server.requests.length).toBe(before + 1);
  });

  test.each([
    ['too few', { embeddings: [] }],
    ['too many', { embeddings: [[1], [2]] }],
    ['not finite', { embeddings: [[1, null]] }],
    ['empty', { embeddings: [[]] }],
    ['none', { data: [] }],
    ['an error', { error: 'no memory' }],
  ])('%s vectors are refused, and not kept', async (_, json) => {
    const { server, client } = await served();
    server.next(() => ({ json }));
    expect(await failure(() => client.embed(['a'], { model: 'nomic-embed-text' }))).toMatchObject({ code: 'BACKEND_REJECTED' });
    expect(await client.embed(['a'], { model: 'nomic-embed-text' })).toEqual([vectorOf('a')]);
  });

  test('texts that are too many for a request go in halves, and the next ones in no more than the server takes', async () => {
    const { server, client } = await served({ model: 'nomic-embed-text' }, { maxBatch: 5 });
    const texts = Array.from({ length: 40 }, (_, i) => `text ${i}`);
    expect(await client.embed(texts)).toEqual(texts.map((one) => vectorOf(one)));
    const before = server.requests.length;
    expect(await client.embed(texts.map((one) => `${one}!`))).toEqual(texts.map((one) => vectorOf(`${one}!`)));
    expect(Math.max(...server.requests.slice(before).map(({ json }) => json.input.length))).toBeLessThanOrEqual(5);
    server.always(({ json }) => (json.input.includes('long') ? status(413, 'Payload Too Large') : undefined));
    expect(await failure(() => client.embed(['short', 'long']))).toMatchObject({ code: 'BACKEND_REJECTED', details: { status: 413 } });
  });

  test('list, and whether it is Ollama that listens there', async () => {
    const { server, client } = await served();
    expect((await client.list()).map(({ name, size }) => [name, size])).toEqual([['llama3.2:latest', 2_019_393_189], ['llava:latest', 2_019_393_189], ['nomic-embed-text:latest', 2_019_393_189]]);
    expect(await client.isAvailable()).toBe(true);
    server.next(() => ({ json: { hello: 'world' } }), () => ({ body: '<html>' }), status(401));
    expect(await client.isAvailable()).toBe(false);
    expect(await client.isAvailable()).toBe(false);
    expect(await client.isAvailable()).toBe(false);
    expect(await new OllamaClient({ baseUrl: 'http://127.0.0.1:1' }).isAvailable()).toBe(false);
    server.next(silent);
    const began = performance.now();
    expect(await client.isAvailable()).toBe(false);
    expect(performance.now() - began).toBeLessThan(5000);
    await client.close();
    expect(await client.isAvailable()).toBe(false);
  });
});

describe('failures', () => {
  test('the words of the server are kept, and failures are not', async () => {
    const { server, client } = await served();
    const error = await failure(() => client.generate('why', { model: 'missing' }));
    expect(error).toMatchObject({ code: 'BACKEND_REJECTED', retryable: false, details: { status: 404 } });
    expect(error.message).toContain("model 'missing' not found");
    server.next(truncated(30));
    expect(await failure(() => client.generate('why'))).toMatchObject({ code: 'BACKEND_REJECTED' });
    server.next(() => ({ json: { hello: 'world' } }));
    expect(await failure(() => client.generate('why'))).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('is it Ollama') });
    server.next(status(500, 'out of memory'), status(500, 'out of memory'), status(500, 'out of memory'));
    expect(await failure(() => client.generate('why'))).toMatchObject({ code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining('out of memory') });
    server.next(status(503));
    expect(await client.generate('why')).toMatchObject({ response: text, fromCache: false });
    expect(await failure(() => new OllamaClient({ baseUrl: 'http://127.0.0.1:1', http: { retryBackoffMs: [1] } }).generate('why', { model: 'a' }))).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
  });

  test('mistakes of the caller are refused by their names', async () => {
    const { server, client } = await served();
    const wrong: [() => unknown, string, RegExp][] = [
      [() => client.generate(''), 'INVALID_ARGUMENT', /empty/],
      [() => client.generate(3 as unknown as string), 'INVALID_CONFIG', /prompt.*3/],
      [() => client.generate({ prompt: 'a', image: 'x' } as never), 'INVALID_CONFIG', /images/],
      [() => client.generate({ prompt: 'a', images: ['/tmp/cat.png'] }), 'INVALID_ARGUMENT', /images\[0\].*base64/],
      [() => client.generate('a', { temperature: -1 }), 'INVALID_CONFIG', /temperature/],
      [() => client.generate('a', { temprature: 1 } as object), 'INVALID_CONFIG', /temperature/],
      [() => client.generate('a', { maxTokens: 1.5 }), 'INVALID_CONFIG', /maxTokens/],
      [() => client.generate('a', { keepAlive: 'long' }), 'INVALID_CONFIG', /keepAlive/],
      [() => client.generate('a', { stream: 'yes' as unknown as true }), 'INVALID_CONFIG', /stream/],
      [() => client.generate('a', { timeoutMs: -1 }), 'INVALID_CONFIG', /timeoutMs/],
      [() => client.chat([]), 'INVALID_ARGUMENT', /messages/],
      [() => client.chat([{ role: 'user' } as never]), 'INVALID_ARGUMENT', /content/],
      [() => client.embed(['a', 1 as unknown as string]), 'INVALID_ARGUMENT', /Text 1/],
      [() => client.list({ limit: 1 } as object), 'INVALID_CONFIG', /limit/],
      [() => new OllamaClient({ baseUrl: 'localhost:11434' }), 'INVALID_CONFIG', /baseUrl/],
      [() => new OllamaClient({ baseUrl: 'ftp://x' }), 'INVALID_CONFIG', /baseUrl/],
      [() => new OllamaClient({ http: true as unknown as object }), 'INVALID_CONFIG', /http/],
      [() => new OllamaClient({ http: { perHost: 1 } as object }), 'INVALID_CONFIG', /perHost/],
      [() => new OllamaClient({ cache: new Map() as unknown as object }), 'INVALID_CONFIG', /Map/],
      [() => new OllamaClient({ defaults: { temperature: 'hot' as unknown as number } }), 'INVALID_CONFIG', /defaults.temperature/],
      [() => new OllamaClient({ headers: { a: 1 as unknown as string } }), 'INVALID_CONFIG', /headers.a/],
      [() => new OllamaClient({ url: 'x' } as object), 'INVALID_CONFIG', /baseUrl/],
      [() => new OllamaClient().generate('a'), 'INVALID_ARGUMENT', /model/],
    ];
    for (const [work, code, message] of wrong) {
      const error = await failure(work);
      expect(error).toBeInstanceOf(EmbeddingError);
      expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
    }
    expect(server.requests.length).toBe(0);
    await client.close();
    expect(await failure(() => client.generate('a'))).toMatchObject({ code: 'CLOSED' });
  });

  test('close waits for what runs, and leaves what it was given', async () => {
    const cache = new InferenceCache();
    const http = new HttpClient();
    onTestFinished(async () => void (await Promise.all([cache.close(), http.close()])));
    const { server, client } = await served({ cache, http });
    server.next(slow(50));
    const running = client.generate('why');
    await client.close();
    expect((await running).response).toBe(text);
    expect(await cache.has('x')).toBe(false);
    expect(await http.get(`${server.url}/api/version`)).toHaveProperty('version');
    const own = clientOf(server);
    server.next(slow(50));
    const last = own.generate('how');
    await own.close();
    expect((await last).response).toBe(text);
    // Where the look-up takes a while before anything is asked.
    const onDisk = clientOf(server, { cache: { persistPath: join(folder(), 'results.db') } });
    const begun = [onDisk.generate('when'), onDisk.embed(['a'], { model: 'nomic-embed-text' }), all(onDisk.generate('where', { stream: true }))] as const;
    await onDisk.close();
    expect((await begun[0]).response).toBe('an answer to 4 characters');
    expect(await begun[1]).toEqual([vectorOf('a')]);
    expect((await begun[2]).at(-1)).toMatchObject({ done: true });
  });
});

test('every call is timed', async () => {
  const monitor = new PerformanceMonitor();
  const { client } = await served({ monitor });
  await client.generate('why');
  await client.generate('why');
  await all(client.generate('how', { stream: true }));
  await client.chat([{ role: 'user', content: 'why' }]);
  await client.embed(['a', 'b'], { model: 'nomic-embed-text' });
  await client.list();
  await failure(() => client.generate('why', { model: 'none' }));
  const { operations, caches } = monitor.getSummary();
  expect(Object.fromEntries(Object.entries(operations).map(([name, { count, errors }]) => [name, [count, errors]]))).toEqual({
    'ollama.generate': [4, 1], 'ollama.chat': [1, 0], 'ollama.embed': [1, 0], 'ollama.list': [1, 0],
  });
  expect(caches.byType.text_inference).toMatchObject({ hits: 1 });
});

test('keys are in no error, statistic, metric, log, cache file or process title', async () => {
  const key = 'sk-0123456789abcdef-secret';
  const path = folder();
  const monitor = new PerformanceMonitor();
  const logged: unknown[] = [];
  const logger = { debug: (...of: unknown[]) => logged.push(of), info: (...of: unknown[]) => logged.push(of), warn: (...of: unknown[]) => logged.push(of), error: (...of: unknown[]) => logged.push(of) };
  const server = await loopback({ apis: [ollama({ apiKey: key })] });
  const other = await loopback();
  const http = new HttpClient({ retryBackoffMs: [1] });
  onTestFinished(() => http.close());
  const client = clientOf(server, { http, monitor, cache: { persistPath: join(path, 'results.db'), logger, monitor }, headers: { authorization: `Bearer ${key}` } });
  expect(await client.generate('why')).toMatchObject({ response: text });
  await all(client.generate('how', { stream: true }));
  await client.embed(['a'], { model: 'nomic-embed-text' });
  const errors: unknown[] = [];
  // Servers that repeat what they were sent, in every place that there is.
  for (const fault of [
    status(401, `invalid key ${key}`), status(403, { message: `Bearer ${key} has expired` }), status(500, `${key}`), redirect(`${other.url}/${key}`), () => ({ json: { error: key } }),
    () => ({ body: `{"x": "${key}`, headers: { 'content-type': 'application/json' } }), () => ({ body: key, headers: { 'content-encoding': 'gzip' } }), reset(),
  ]) {
    server.always(() => fault);
    errors.push(await failure(() => client.generate('when')), await failure(() => all(client.generate('when', { stream: true }))), await http.get(`${server.url}/x?api_key=${key}`, { headers: { 'x-api-key': key } }).then(() => undefined, (error: unknown) => error));
  }
  const wrong = clientOf(server, { http, monitor, cache: { persistPath: join(path, 'wrong.db') }, baseUrl: server.url.replace('//', `//user:${key}@`) });
  errors.push(await failure(() => wrong.generate('why')), await failure(() => http.get(`http://user:${key}@127.0.0.1:1/`)), await failure(() => http.fetch(server.url, { headers: { authorization: `Bearer ${key}\n` , 'a b': key } })));
  await Promise.all([client.close(), wrong.close()]);
  expect(errors.filter(Boolean).length).toBeGreaterThanOrEqual(22);
  const said = [
    ...errors.map((error) => inspect(error, { depth: 9, showHidden: true })), ...errors.map((error) => JSON.stringify(error)), inspect(http.getStats()), inspect(http, { depth: 9, showHidden: true }), inspect(client, { depth: 9, showHidden: true }),
    monitor.toJson(), monitor.toPrometheus(), inspect(logged, { depth: 9 }), process.title, process.argv.join(' '),
    ...readdirSync(path).map((file) => readFileSync(join(path, file), 'latin1')),
  ].join('\n');
  expect(said.length).toBeGreaterThan(20_000);
  expect(said).toContain('results');
  expect(said).not.toContain(key);
  expect(said).not.toContain(Buffer.from(`user:${key}`).toString('base64'));
});

test('null is no option that was left out', async () => {
  const { client } = await served({ model: 'tiny' });
  expect(await failure(() => client.generate('prompt', { stream: null as never }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'stream' } });
  expect(await failure(() => new OllamaClient({ cache: null as never }))).toMatchObject({ code: 'INVALID_CONFIG' });
});

test('a list of models that are none is an error of the server', async () => {
  for (const models of [[null], [5]]) {
    const server = await loopback({ apis: [() => ({ json: { models } })] });
    expect(await failure(() => clientOf(server).list())).toMatchObject({ code: 'BACKEND_REJECTED' });
  }
});

test('isAvailable does not wait for places that generations have', async () => {
  const { server, client } = await served({ http: { perHostLimit: 2, maxConcurrentRequests: 2 } });
  server.always(({ path }) => (path === '/api/generate' ? silent : undefined));
  const stop = new AbortController();
  const running = Promise.allSettled([1, 2, 3].map((n) => client.generate(`prompt ${n}`, { signal: stop.signal })));
  await expect.poll(() => server.inFlight).toBe(2);
  expect(await Promise.all([client.isAvailable(), client.isAvailable()])).toEqual([true, true]);
  stop.abort();
  await running;
});

test('what is of a wrong kind is refused by its name, not sent', async () => {
  const { server, client } = await served();
  const chat = (message: object, options = {}) => () => client.chat([{ role: 'user', content: 'x', ...message } as never], options);
  const works: [() => unknown, RegExp][] = [
    ...[5, 'xml', '', null, [], true].map((format): [() => unknown, RegExp] => [() => client.generate({ prompt: 'x', format: format as never }), /format/]),
    ...[5, 'xml', null].map((format): [() => unknown, RegExp] => [chat({}, { format }), /format/]),
    ...[5, {}, [5], null].map((tools): [() => unknown, RegExp] => [chat({}, { tools }), /tools/]),
    [() => client.generate('x', { think: '' }), /think/],
    [() => client.generate('x', { think: null as never }), /think/],
    [chat({ role: '' }), /messages\[0\]\.role/],
    [chat({ tool_calls: 5 }), /messages\[0\]\.tool_calls/],
    [chat({ tool_calls: [null] }), /messages\[0\]\.tool_calls/],
    [chat({ thinking: 7 }), /messages\[0\]\.thinking/],
    [chat({ tool_name: {} }), /messages\[0\]\.tool_name/],
    [chat({ tool_name: '' }), /messages\[0\]\.tool_name/],
    [chat({}, { tools: [{ n: 1n }] }), /tools/],
  ];
  for (const [work, message] of works) {
    const error = await failure(work);
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error).toMatchObject({ code: expect.stringMatching(/^INVALID_/), message: expect.stringMatching(message) });
  }
  expect(server.requests).toHaveLength(0);
  await chat({ role: 'tool', tool_name: 'f', thinking: '', tool_calls: [] }, { tools: [], format: { type: 'object', title: undefined }, think: 'low' })();
  expect(server.requests[0]!.json).toMatchObject({ format: { type: 'object' }, tools: [], think: 'low', messages: [{ role: 'tool', tool_name: 'f' }] });
});

describe('texts that several calls embed at the same time', () => {
  const asked = (server: Loopback) => server.requests.flatMap(({ json }) => json.input as string[]);

  test('are sent once', async () => {
    const { server, client } = await served();
    server.always(() => slow(50));
    const [one, two, three] = await Promise.all([client.embed('q'), client.embed(['p', 'q']), client.embed(['q', 'r', 'p'])]);
    expect(asked(server).sort()).toEqual(['p', 'q', 'r']);
    expect(one[0]).toEqual(two[1]);
    expect(three.slice(0, 1)).toEqual(one);
    one[0]![0] = 99;
    expect(three[0]![0]).not.toBe(99);
    expect(await client.embed(['r', 'q'])).toEqual([three[1], two[1]]);
    expect(asked(server)).toHaveLength(3);
    await Promise.all([client.embed('s', { useCache: false }), client.embed('s', { useCache: false }), client.embed('s', { model: 'llava' }), client.embed('s')]);
    expect(asked(server)).toHaveLength(7);
  });

  test('come for those who still wait, and fail for all', async () => {
    const { server, client } = await served();
    server.always(() => slow(1000));
    const stop = new AbortController();
    const first = failure(() => client.embed(['a', 'b'], { signal: stop.signal }));
    await expect.poll(() => server.inFlight).toBe(1);
    const second = client.embed(['b', 'c']);
    await expect.poll(() => server.requests.length).toBe(2);
    stop.abort();
    expect(await first).toMatchObject({ code: 'ABORTED' });
    expect(await second).toHaveLength(2);
    expect(asked(server).sort()).toEqual(['a', 'b', 'c']);
    server.always(() => silent);
    expect(await Promise.all([failure(() => client.embed('d', { timeoutMs: 50 })), failure(() => client.embed('d', { timeoutMs: 30 }))])).toMatchObject([{ code: 'TIMED_OUT' }, { code: 'TIMED_OUT' }]);
    await expect.poll(() => server.inFlight).toBe(0);
    server.always(() => status(400, 'no such model'));
    expect(await Promise.all([failure(() => client.embed('d')), failure(() => client.embed('d'))])).toMatchObject([{ code: 'BACKEND_REJECTED' }, { code: 'BACKEND_REJECTED' }]);
    server.always(undefined);
    expect(await client.embed('d')).toHaveLength(1);
  });
});
