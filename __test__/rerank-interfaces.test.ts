// The interfaces that rerank, used against the grain, with each kind of model that may be given to them.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { CodeIndex, CrossEncoder, MultiVectorEncoder, OptimizedEmbeddingGenerator, SparseEncoder } from 'embedcore';
import { createEmbedcore, type EmbedcoreProviderSettings } from 'embedcore/ai-sdk';
import { EmbeddingServer, type EmbeddingServerOptions } from 'embedcore/server';
import { describe, expect, onTestFinished, test } from 'vitest';

import { get } from './server-client';
import { failure, model } from './support';

const RERANKERS = ['cross-encoder', 'causal-reranker', 'causal-reranker-chat'];
/** What is given to the wrong place, and the class for it. */
const OTHERS: [string, string][] = [
  ['bert-mean', 'OptimizedEmbeddingGenerator'],
  ['decoder-cache', 'OptimizedEmbeddingGenerator'],
  ['table-model2vec', 'OptimizedEmbeddingGenerator'],
  ['static-embedding', 'OptimizedEmbeddingGenerator'],
  ['router-static', 'OptimizedEmbeddingGenerator'],
  ['splade', 'SparseEncoder'],
  ['router-sparse', 'SparseEncoder'],
  ['colbert', 'MultiVectorEncoder'],
];
const QUERY = 'how do I parse JSON?';
const TEXTS = ['JSON.parse reads a string', 'the cat sleeps', '', 'a parser for JSON in Rust', 'a', 'b c', 'fn main() {}'];
const MANY = Array.from({ length: 100_000 }, (_, at) => TEXTS[at % TEXTS.length]!);

function provider(settings: EmbedcoreProviderSettings = { cache: false }) {
  const made = createEmbedcore(settings);
  onTestFinished(() => made.close());
  return made;
}

async function reranker(name: string): Promise<CrossEncoder> {
  const encoder = new CrossEncoder({ modelPath: model(name), cache: false });
  onTestFinished(() => encoder.shutdown());
  await encoder.initialize();
  return encoder;
}

const ask = (values: string[], more: object = {}) => ({ documents: { type: 'text' as const, values }, query: QUERY, ...more });

describe.each(RERANKERS)('%s behind the AI SDK', (name) => {
  test('ranks nothing, some, and very many', async () => {
    const ranking = provider().reranking(model(name));
    expect((await ranking.doRerank(ask([]))).ranking).toEqual([]);
    const direct = await (await reranker(name)).rank(QUERY, TEXTS);
    expect((await ranking.doRerank(ask(TEXTS))).ranking).toEqual(direct.map(({ index, score }) => ({ index, relevanceScore: score })));
    const many = (await ranking.doRerank(ask(MANY, { topN: 3 }))).ranking;
    // Equal documents are in their order.
    expect(many.map(({ index }) => index)).toEqual([0, 1, 2].map((nth) => direct[0]!.index + nth * TEXTS.length));
  });

  test('is stopped before and while it is loaded, and works afterwards', async () => {
    const made = provider();
    const ranking = made.reranking(model(name));
    expect(await failure(() => ranking.doRerank(ask(TEXTS, { abortSignal: AbortSignal.abort() })))).toMatchObject({ code: 'ABORTED' });
    const controller = new AbortController();
    const call = failure(() => ranking.doRerank(ask(TEXTS, { abortSignal: controller.signal })));
    controller.abort(new Error('enough'));
    expect(await call).toMatchObject({ code: 'ABORTED' });
    expect((await ranking.doRerank(ask(TEXTS))).ranking).toHaveLength(TEXTS.length);
    const late = new AbortController();
    const long = failure(() => ranking.doRerank(ask(Array.from({ length: 20_000 }, (_, at) => `document ${at}`), { abortSignal: late.signal })));
    setTimeout(() => late.abort(), 5);
    expect(await long).toMatchObject({ code: 'ABORTED' });
    expect(await failure(() => ranking.doRerank(ask(TEXTS, { providerOptions: { embedcore: { timeoutMs: 0.001 } } })))).toMatchObject({ code: expect.stringMatching(/TIMED_OUT|INVALID_CONFIG/) });
  });

  test('is closed in the middle, and while it is loaded; whoever asks again has it again', async () => {
    const made = provider();
    const ranking = made.reranking(model(name));
    for (let round = 0; round < 2; round++) {
      // Nobody waits for these.
      const calls = [TEXTS, MANY].map((texts) => ranking.doRerank(ask(texts)).then(({ ranking }) => ranking.length, (error: { code: string }) => error.code));
      await new Promise((resolve) => setTimeout(resolve, round * 30));
      await made.close();
      for (const [at, end] of (await Promise.all(calls)).entries()) expect([[TEXTS, MANY][at]!.length, 'ABORTED', 'CLOSED', 'NOT_INITIALIZED']).toContain(end);
      expect((await ranking.doRerank(ask(TEXTS))).ranking).toHaveLength(TEXTS.length);
    }
  });

  test('is no embedding model', async () => {
    const made = provider();
    expect(await failure(() => made.embedding(model(name)).doEmbed({ values: ['a'] }))).toMatchObject({ code: 'MODEL_INIT_FAILED', message: expect.stringContaining('CrossEncoder') });
    expect(() => createEmbedcore({ generator: new CrossEncoder({ modelPath: model(name) }) as never })).toThrow(/pass an OptimizedEmbeddingGenerator/);
  });
});

test.each(OTHERS)('%s is no reranking model: the error names %s', async (name, right) => {
  expect(await failure(() => provider().reranking(model(name)).doRerank(ask(TEXTS)))).toMatchObject({ code: 'MODEL_INIT_FAILED', message: expect.stringContaining(right) });
});

test.each([OptimizedEmbeddingGenerator, SparseEncoder, MultiVectorEncoder])('an object of another class is refused at once', (type) => {
  expect(() => createEmbedcore({ reranker: new type() as never })).toThrow(/pass a CrossEncoder/);
});

describe('a server', () => {
  async function started(options: EmbeddingServerOptions): Promise<EmbeddingServer> {
    const server = await new EmbeddingServer({ port: 0, modelId: 'it', maxBatchItems: 100_000, maxBodyMB: 64, ...options }).listen();
    onTestFinished(() => server.close({ timeoutMs: 0 }));
    return server;
  }
  const post = (server: EmbeddingServer, path: string, body: unknown, signal?: AbortSignal) =>
    get(server, path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body), ...(signal && { signal }) });

  test.each(RERANKERS)('of %s ranks some and very many, and what is stopped stops nothing else', async (name) => {
    const server = await started({ generator: { modelPath: model(name), cache: false } });
    const direct = await (await reranker(name)).rank(QUERY, TEXTS);
    const { status, body } = await post(server, '/rerank', { query: QUERY, texts: TEXTS });
    expect([status, body.map(({ index }: { index: number }) => index)]).toEqual([200, direct.map(({ index }) => index)]);
    expect((await post(server, '/rerank', { query: QUERY, texts: [] })).status).toBe(400);
    const many = await post(server, '/rerank', { query: QUERY, documents: MANY, top_n: 2 });
    expect([many.status, many.body.results?.length]).toEqual([200, 2]);
    const controller = new AbortController();
    const call = post(server, '/rerank', { query: QUERY, texts: Array.from({ length: 20_000 }, (_, at) => `document ${at}`) }, controller.signal).catch((error: Error) => error.name);
    setTimeout(() => controller.abort(), 30);
    expect(await call).toBe('AbortError');
    expect((await post(server, '/rerank', { query: QUERY, texts: ['a'] })).status).toBe(200);
    for (const path of ['/v1/embeddings', '/embed_sparse', '/embed_all']) expect((await post(server, path, { inputs: 'a', input: 'a' })).status, path).toBe(404);
  });

  test.each(['table-model2vec', 'static-embedding', 'decoder-cache', 'router-static'])('of %s embeds, and says that it ranks nothing', async (name) => {
    const server = await started({ generator: { modelPath: model(name), cache: false } });
    const { status, body } = await post(server, '/v1/embeddings', { model: 'it', input: ['a', 'reads a file'] });
    expect([status, body.data?.length]).toEqual([200, 2]);
    for (const path of ['/rerank', '/v1/rerank', '/embed_sparse', '/embed_all']) {
      const answer = await post(server, path, { query: QUERY, texts: TEXTS, inputs: 'a' });
      expect([path, answer.status, answer.body.error.message]).toEqual([path, 404, expect.stringContaining('/v1/embeddings')]);
    }
  });

  test('closed in the middle of a ranking ends', async () => {
    const server = await started({ generator: { modelPath: model('causal-reranker'), cache: false } });
    const call = post(server, '/rerank', { query: QUERY, texts: Array.from({ length: 5000 }, (_, at) => `document ${at}`) }).then(({ status }) => status, (error: Error) => error.name);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await server.close({ timeoutMs: 0 });
    expect([200, 499, 500, 503, 'TypeError', 'SocketError']).toContain(await call);
  });
});

describe('a search in source code', () => {
  async function indexed(): Promise<CodeIndex> {
    const directory = mkdtempSync(join(tmpdir(), 'embedcore-rerank-'));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    for (const name of ['push', 'pop', 'peek']) writeFileSync(join(directory, `${name}.ts`), `/** Does a ${name} on the stack. */\nexport function ${name}() {}\n`);
    const index = new CodeIndex(directory);
    onTestFinished(() => index.close());
    await index.update();
    return index;
  }

  test('is looked at again by every kind of reranker, and by nothing else', async () => {
    const index = await indexed();
    for (const name of RERANKERS) {
      const scores = (await index.search('take from the stack', { rerank: model(name) })).map(({ score }) => score);
      expect(scores).toHaveLength(3);
      expect(scores).toEqual(scores.toSorted((one, other) => other - one));
    }
    for (const [name, right] of OTHERS) expect(await failure(() => index.search('a', { rerank: model(name) }))).toMatchObject({ code: 'MODEL_INIT_FAILED', message: expect.stringContaining(right) });
  });

  test('that is closed while a model is loaded for it ends', async () => {
    const index = await indexed();
    const search = index.search('take from the stack', { rerank: model('causal-reranker') }).then(() => 'done', (error: { code: string }) => error.code);
    await index.close();
    expect(['done', 'ABORTED', 'CLOSED', 'NOT_INITIALIZED']).toContain(await search);
  });
});
