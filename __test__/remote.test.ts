// Models on servers: what they give is as with any other model.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { CodeIndex, IntelligentEmbeddingCache, OptimizedEmbeddingGenerator, type Annotation, type GeneratorOptions, type RemoteOptions } from 'embedcore';
import { EmbeddingServer } from 'embedcore/server';
import { expect, onTestFinished, test, vi } from 'vitest';

import { openaiEmbeddings, tei, type TeiSettings } from './loopback/embeddings';
import { ollama, vectorOf, type OllamaSettings } from './loopback/ollama';
import { loopback, type Api, type Fault, type Loopback } from './loopback/server';
import { distance, failure, ready } from './support';

const texts = (count: number, first = 0) => Array.from({ length: count }, (_, i) => `text ${first + i} reads a file`);

/** The requests for vectors, without the first, which asks how long they are. */
const asked = (server: Loopback) => server.requests.filter(({ path }) => path.includes('embed')).slice(1);
const inputs = (server: Loopback): string[][] => asked(server).map(({ json }) => json.input ?? json.inputs);

async function served(api: Api, name: 'ollama' | 'openai' | 'tei', remote: RemoteOptions = {}, options: GeneratorOptions = {}) {
  const server = await loopback({ apis: [api] });
  const model = { ollama: 'nomic-embed-text', openai: 'text-embedding-3-small', tei: undefined }[name];
  const generator = await ready({ ...options, remote: { kind: name, url: server.url, ...(model && { model }), ...remote } });
  return { server, generator };
}

const ollamaServed = (settings: OllamaSettings = {}, remote: RemoteOptions = {}, options: GeneratorOptions = {}) => served(ollama(settings), 'ollama', remote, options);
const teiServed = (settings: TeiSettings = {}, remote: RemoteOptions = {}, options: GeneratorOptions = {}) => served(tei(settings), 'tei', remote, options);

test.each([
  ['ollama', ollama()],
  ['openai', openaiEmbeddings()],
  ['tei', tei()],
] as const)('%s gives its vectors, in input order, within its limits', async (kind, api) => {
  const { server, generator } = await served(api, kind);
  const all = texts(300);
  const matrix = await generator.embed([...all, all[7]!]);
  expect([matrix.rows, matrix.dimensions]).toEqual([301, 8]);
  for (const index of [0, 7, 31, 32, 299]) expect(distance(matrix.row(index), vectorOf(all[index]!))).toBeLessThan(1e-6);
  expect(distance(matrix.row(300), vectorOf(all[7]!))).toBeLessThan(1e-6);
  expect(inputs(server).flat().sort()).toEqual([...all].sort());
  expect(Math.max(...inputs(server).map((batch) => batch.length))).toBe(32);
  expect(server.most).toBeLessThanOrEqual(8);
  // Known from now on.
  const before = server.requests.length;
  expect([...(await generator.embed(all)).fromCache]).toEqual(all.map(() => 1));
  expect(server.requests.length).toBe(before);
});

test('results say what is known, and nothing of tokens', async () => {
  const { generator } = await ollamaServed({}, {}, { maxLength: 4 });
  const annotation: Annotation = { nodeId: 'n', signature: 'fn open(path)', summary: 'Opens a file.' };
  const [result] = await generator.generateEmbeddings([annotation]);
  expect(result).toMatchObject({ nodeId: 'n', modelUsed: 'ollama:nomic-embed-text', fromCache: false, truncated: true });
  expect(Object.keys(result!).filter((name) => ['tokenCount', 'confidence'].includes(name))).toEqual([]);
  const [whole] = await generator.generateEmbeddings([{ nodeId: 'n', signature: 'f', summary: '' }]);
  expect(Object.keys(whole!)).not.toContain('truncated');
  expect(generator.getPerformanceMetrics().batchOptimizer).toMatchObject({ tokens: 0, batches: 2, currentBatchSize: 32 });
});

test('what is known of the model is told', async () => {
  const { server, generator } = await ollamaServed({ dimensions: 16 });
  const info = generator.getModelInfo();
  expect(info).toMatchObject({ modelId: 'ollama:nomic-embed-text', dimensions: 16, maxLength: 0, output: null, dtype: null, pooling: null, normalize: true, executionProviders: [] });
  expect(info.remote).toEqual({ kind: 'ollama', url: `${server.url}/`, model: 'nomic-embed-text', digest: expect.stringMatching(/^[0-9a-f]{64}$/), maxBatchItems: 32, concurrency: 8 });
  const of = await teiServed({ maxBatch: 5, maxConcurrent: 2, maxInputLength: 100, sha: 'abc' });
  expect(of.generator.getModelInfo()).toMatchObject({ maxLength: 100, runtime: 'tei 1.8.0', remote: { model: 'BAAI/bge-small-en-v1.5', digest: 'abc', maxBatchItems: 5, concurrency: 2 } });
  await of.generator.embed(texts(40));
  expect(inputs(of.server).map((batch) => batch.length)).toEqual(Array(8).fill(5));
  expect(of.server.most).toBeLessThanOrEqual(2);
});

test('a batch has no more tokens than the server takes, as far as that can be guessed', async () => {
  const long = Array.from({ length: 20 }, (_, i) => `${i} `.padEnd(2000, 'word '));
  const { server, generator } = await teiServed({ maxBatchTokens: 2000, maxInputLength: 1000 });
  await generator.embed([...long, ...texts(40)]);
  expect(server.requests.filter(({ json }) => json?.inputs?.join('').length / 4 > 2000)).toEqual([]);
  const own = await ollamaServed({}, { maxBatchTokens: 700 });
  await own.generator.embed(long);
  // 669 tokens each, counting one for three bytes and two for the model.
  expect(inputs(own.server).map((batch) => batch.length)).toEqual(Array(20).fill(1));
});

test('a text is asked for once, however many calls want it at a time', async () => {
  const { server, generator } = await ollamaServed();
  const all = texts(64);
  await Promise.all(Array.from({ length: 10 }, () => generator.embed(all)));
  expect(inputs(server).flat().sort()).toEqual([...all].sort());
});

test.each([
  ['an array', (all: string[]) => all],
  ['an iterable', (all: string[]) => new Set(all)],
  ['an async iterable', async function* (all: string[]) { yield* all; }],
])('a stream of %s has all requests under way before the first is answered', async (_, given) => {
  const api = ollama();
  let open = () => {};
  const full = new Promise<void>((resolve) => (open = resolve));
  let waiting = 0;
  const held: Api = async (request) => {
    // Alone goes the text that tells how long vectors are.
    if (Array.isArray(request.json?.input) && request.json.input.length > 1) {
      if (++waiting === 8) open();
      await full;
    }
    return api(request);
  };
  const { generator } = await served(held, 'ollama');
  let count = 0;
  for await (const vector of generator.stream(given(texts(700)))) count += vector.length / 8;
  expect(count).toBe(700);
});

test('streams, queries, prompts and roles are as with other models', async () => {
  const { server, generator } = await ollamaServed({}, {}, { prompts: { document: 'passage: ', query: 'query: ' } });
  const given: Float32Array[] = [];
  for await (const vector of generator.stream(texts(700))) given.push(vector);
  expect(distance(given[699]!, vectorOf(`passage: ${texts(700)[699]!}`))).toBeLessThan(1e-6);
  expect(distance(await generator.embedQuery('open a file'), vectorOf('query: open a file'))).toBeLessThan(1e-6);
  expect(inputs(server).flat().length).toBe(701);
  expect((await failure(() => generator.embed(['']))).code).toBe('INVALID_ARGUMENT');
});

test('dimensions are asked of the server, or cut here', async () => {
  const { server, generator } = await served(openaiEmbeddings({ dimensions: 32 }), 'openai', { dimensions: 16 }, { dimensions: 4 });
  const vector = (await generator.embed(['a'])).row(0);
  expect(server.requests.at(-1)!.json.dimensions).toBe(16);
  const cut = vectorOf('a', 16).slice(0, 4);
  expect(distance(vector, cut.map((value) => value / Math.hypot(...cut)))).toBeLessThan(1e-6);
  // Ollama's server here does not know the parameter, as old ones do not.
  const error = await failure(() => ollamaServed({}, { dimensions: 4 }));
  expect(error).toMatchObject({ code: 'BACKEND_REJECTED' });
  expect(error.message).toMatch(/8 values where 4/);
});

test('the fingerprint is of kind, server, name and digest, unless it is given', async () => {
  const of = async (api: Api, kind: 'ollama' | 'openai', remote: RemoteOptions = {}, options: GeneratorOptions = {}) => {
    const { generator } = await served(api, kind, remote, options);
    return generator.getModelInfo().fingerprint;
  };
  const two = ollama({ models: ['nomic-embed-text', 'nomic-embed-text:v2'] });
  const all = [await of(ollama(), 'ollama'), await of(ollama(), 'ollama'), await of(two, 'ollama', { model: 'nomic-embed-text:v2' }), await of(openaiEmbeddings(), 'openai')];
  expect(new Set(all).size).toBe(4);
  const given = [await of(ollama(), 'ollama', { fingerprint: 'mine' }), await of(openaiEmbeddings(), 'openai', { fingerprint: 'mine' }), await of(ollama(), 'ollama', {}, { fingerprint: 'mine' })];
  expect(new Set(given).size).toBe(1);
  expect(await of(ollama(), 'ollama', { fingerprint: 'mine' }, { prompts: { document: 'p' } })).not.toBe(given[0]);
  expect(await of(ollama(), 'ollama', { fingerprint: all[0]! })).toBe(all[0]);
  expect(await failure(() => of(ollama(), 'ollama', { fingerprint: 'a' }, { fingerprint: 'b' }))).toMatchObject({ code: 'INVALID_CONFIG' });
  expect(await failure(() => ready({ fingerprint: 'a' }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'fingerprint' } });
});

test('a model that was pulled anew is another one', async () => {
  const server = await loopback({ apis: [ollama()] });
  const options = { remote: { kind: 'ollama', url: server.url, model: 'nomic-embed-text' } } as const;
  const first = (await ready(options)).getModelInfo().fingerprint;
  expect((await ready(options)).getModelInfo().fingerprint).toBe(first);
  server.always(({ path }) => (path === '/api/tags' ? (reply) => ({ ...reply, json: JSON.parse(JSON.stringify(reply.json).replaceAll(/"digest":"./g, '"digest":"x')) }) : undefined));
  expect((await ready(options)).getModelInfo().fingerprint).not.toBe(first);
});

/** A server whose model is pulled anew whenever that is called. */
async function pulling(api: Api = ollama(), options: GeneratorOptions = {}) {
  let version = 0;
  const server = await loopback({ apis: [api] });
  server.always(({ path }) => (path === '/api/tags' ? (reply) => ({ ...reply, json: JSON.parse(JSON.stringify(reply.json).replaceAll(/"digest":"./g, `"digest":"v${version}`)) }) : undefined));
  const generator = await ready({ ...options, remote: { kind: 'ollama', url: server.url, model: 'nomic-embed-text' } });
  return { server, generator, pull: () => void version++ };
}

test('a model that is pulled anew while it is in use is noticed within seconds, and its vectors are kept apart', async () => {
  const { generator, pull } = await pulling();
  const first = generator.getModelInfo().fingerprint;
  await generator.embed(texts(3));
  expect([...(await generator.embed(texts(3))).fromCache]).toEqual([1, 1, 1]);
  pull();
  await expect.poll(async () => [...(await generator.embed(texts(3))).fromCache], { timeout: 30_000, interval: 500 }).toEqual([0, 0, 0]);
  expect(generator.getModelInfo().fingerprint).not.toBe(first);
  expect([...(await generator.embed(texts(3))).fromCache]).toEqual([1, 1, 1]);
});

test('who initializes again has the model that was pulled anew, and the same one where none was', async () => {
  const { server, generator, pull } = await pulling();
  const first = generator.getModelInfo();
  const before = asked(server).length;
  await generator.initialize();
  expect(generator.getModelInfo()).toEqual(first);
  expect(asked(server).length).toBe(before);
  pull();
  await generator.initialize();
  expect(generator.getModelInfo().remote!.digest).not.toBe(first.remote!.digest);
});

test('vectors for which a model was loaded are of no use where it is another one', async () => {
  const { server, generator, pull } = await pulling();
  const loading: Fault = (reply) => ({ json: { ...(reply.json as object), load_duration: 4e8 } });
  server.next(loading);
  await generator.embed(['a']);
  pull();
  server.next(loading);
  expect(await failure(() => generator.embed(['b']))).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true, message: expect.stringContaining('replaced') });
  const { fromCache } = await generator.embed(['a', 'b']);
  expect([...fromCache]).toEqual([0, 0]);
});

test('a fingerprint of the user\'s stands, whatever the server has', async () => {
  const { server, generator, pull } = await pulling(ollama(), { fingerprint: 'mine' });
  await generator.embed(['a']);
  pull();
  await generator.initialize();
  expect([...(await generator.embed(['a'])).fromCache]).toEqual([1]);
  expect(server.requests.filter(({ path }) => path === '/api/tags').length).toBe(1);
});

test('vectors come as bytes where the server knows that, and as numbers where it does not', async () => {
  const { server, generator } = await served(openaiEmbeddings(), 'openai');
  expect(distance((await generator.embed(['a'])).row(0), vectorOf('a'))).toBeLessThan(1e-6);
  expect(server.requests.map(({ json }) => json.encoding_format)).toEqual(['base64', 'base64']);
  const old = await loopback({ apis: [openaiEmbeddings()] });
  old.always(({ json }) => (json.encoding_format === 'base64' ? () => ({ status: 422, json: { detail: [{ loc: ['body', 'encoding_format'], msg: "Input should be 'float'" }] } }) : undefined));
  const other = await ready({ remote: { kind: 'openai', url: old.url, model: 'text-embedding-3-small' } });
  expect(distance((await other.embed(['a'])).row(0), vectorOf('a'))).toBeLessThan(1e-6);
  expect(old.requests.map(({ json }) => json.encoding_format)).toEqual(['base64', 'float', 'float']);
});

test('a file of a cache serves the next process, and other servers only where they are said to be the same', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const cache = { persistPath: join(directory, 'cache.sqlite') };
  const first = await ollamaServed({}, { fingerprint: 'f' }, { cache });
  await first.generator.embed(texts(50));
  await first.generator.cleanup();
  const second = await ollamaServed({}, { fingerprint: 'f' }, { cache });
  await second.generator.embed(texts(50));
  expect(asked(second.server)).toEqual([]);
  const third = await ollamaServed({}, {}, { cache });
  await third.generator.embed(texts(50));
  expect(inputs(third.server).flat().length).toBe(50);
});

test('names begin with the kind, and the environment says the rest', async () => {
  const server = await loopback({ apis: [ollama(), openaiEmbeddings({ apiKey: 'sk-of-the-environment' })] });
  vi.stubEnv('OLLAMA_HOST', `127.0.0.1:${server.port}`);
  vi.stubEnv('OPENAI_BASE_URL', `${server.url}/v1`);
  vi.stubEnv('OPENAI_API_KEY', 'sk-of-the-environment');
  onTestFinished(() => void vi.unstubAllEnvs());
  for (const modelPath of ['ollama:nomic-embed-text', 'openai:text-embedding-3-small']) {
    const generator = new OptimizedEmbeddingGenerator();
    onTestFinished(() => generator.cleanup());
    await generator.initialize(modelPath);
    expect(distance((await generator.embed(['a'])).row(0), vectorOf('a'))).toBeLessThan(1e-6);
    expect(generator.getModelInfo().modelId).toBe(modelPath);
  }
  // Its key is nobody else's.
  expect(server.requests.filter(({ path, headers }) => path.startsWith('/api/') && headers.authorization !== undefined)).toEqual([]);
  const other = await loopback({ apis: [tei()] });
  expect((await (await ready({ modelPath: `tei:${other.url}` })).embed(['a'])).rows).toBe(1);
});

test('one generator changes between servers and models that run here', async () => {
  const { server, generator } = await ollamaServed({ models: ['nomic-embed-text', 'other'] });
  await generator.initialize('ollama:other');
  expect(server.requests.at(-1)!.json.model).toBe('other');
  await generator.initialize('builtin');
  expect(generator.getModelInfo().remote).toBeNull();
  expect((await generator.embed(['a'])).dimensions).toBeGreaterThan(8);
});

test('an index is made and searched by a server', async () => {
  const server = await loopback({ apis: [ollama()] });
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const { writeFileSync } = await import('node:fs');
  writeFileSync(join(directory, 'a.py'), 'def read_file(path):\n    """Reads a file."""\n    return open(path).read()\n');
  const index = new CodeIndex(directory, { generator: { remote: { kind: 'ollama', url: server.url, model: 'nomic-embed-text' } } });
  expect((await index.update()).embedded).toBe(1);
  expect((await index.search('read a file'))[0]).toMatchObject({ line: 1 });
});

test('our own server is one of them, and one that caches another', async () => {
  const behind = await loopback({ apis: [ollama()] });
  const server = await new EmbeddingServer({ port: 0, modelId: 'm', apiKey: 'sk-front-key', generator: { remote: { kind: 'ollama', url: behind.url, model: 'nomic-embed-text' } } }).listen();
  onTestFinished(() => server.close());
  const generator = await ready({ cache: false, remote: { kind: 'openai', url: server.url, model: 'm', apiKey: 'sk-front-key' } });
  for (let time = 0; time < 2; time++) expect(distance((await generator.embed(texts(40))).row(39), vectorOf(texts(40)[39]!))).toBeLessThan(1e-5);
  expect(inputs(behind).flat().filter((text) => text.startsWith('text')).length).toBe(40);
  expect((await failure(() => ready({ remote: { kind: 'openai', url: server.url, model: 'n', apiKey: 'sk-front-key' } }))).message).toContain('The model \\"n\\" does not exist');
});

test('options that cannot be meant are refused by name', async () => {
  const remote = (options: object) => new OptimizedEmbeddingGenerator({ remote: { kind: 'ollama', model: 'm', ...options } as RemoteOptions });
  const cases: [string, () => unknown][] = [
    ['remote.kind', () => remote({ kind: 'cohere' })],
    ['remote.kind', () => remote({ kind: undefined })],
    ['remote.model', () => remote({ model: undefined })],
    ['remote.model', () => remote({ model: '' })],
    ['remote.url', () => remote({ url: 'ftp://host' })],
    ['remote.url', () => remote({ url: 5 })],
    ['remote.apiKey', () => remote({ apiKey: 'two words' })],
    ['remote.headers', () => remote({ headers: new Map() })],
    ['remote.headers.X', () => remote({ headers: { X: 5 } })],
    ['remote.headers.X', () => remote({ headers: { X: 'a\r\nb' } })],
    ['remote.headers.Host', () => remote({ headers: { Host: 'x' } })],
    ['remote.concurrency', () => remote({ concurrency: 0 })],
    ['remote.maxBatchItems', () => remote({ maxBatchItems: 1.5 })],
    ['remote.timeoutMs', () => remote({ timeoutMs: -1 })],
    ['remote.retries', () => remote({ retries: -1 })],
    ['remote.batchSize', () => remote({ batchSize: 5 })],
    ['modelPath', () => new OptimizedEmbeddingGenerator({ modelPath: 'builtin', remote: { kind: 'ollama', model: 'm' } })],
    ['remote', () => new OptimizedEmbeddingGenerator({ remote: 'ollama' as never })],
    ['dtype', () => ready({ modelPath: 'ollama:m', dtype: 'fp16' })],
    ['intraOpThreads', () => ready({ modelPath: 'ollama:m', intraOpThreads: 2 })],
    ['localFilesOnly', () => ready({ modelPath: 'ollama:m', localFilesOnly: true })],
    ['modelPath', () => ready({ modelPath: 'cohere:embed' })],
    ['modelPath', () => ready({ modelPath: 'http://127.0.0.1:1' })],
    ['modelPath', () => ready({ modelPath: 'tei:nowhere' })],
    ['modelPath', () => ready({ modelPath: 'ollama:' })],
  ];
  for (const [option, work] of cases) expect([option, await failure(work)]).toMatchObject([option, { code: 'INVALID_CONFIG', details: { option } }]);
});

test('a cache that is shared keeps kinds apart', async () => {
  const cache = new IntelligentEmbeddingCache({ maxEntries: 1000 });
  onTestFinished(() => cache.close());
  const one = await ollamaServed({}, {}, { cache });
  const other = await served(openaiEmbeddings({ dimensions: 16 }), 'openai', {}, { cache });
  await one.generator.embed(texts(5));
  expect((await other.generator.embed(texts(5))).dimensions).toBe(16);
});
