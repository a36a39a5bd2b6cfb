// A server for each kind of model: routes, shapes of other servers, and its own description of them.
import Ajv from 'ajv/dist/2020';
import { CrossEncoder, MultiVectorEncoder, OptimizedEmbeddingGenerator, SparseEncoder, type EmbeddingError } from 'embedcore';
import { EmbeddingServer, type EmbeddingServerOptions } from 'embedcore/server';
import fc from 'fast-check';
import { beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';

import { get } from './server-client';
import { tried } from './property';
import { model } from './support';

const QUERY = 'how do I parse JSON?';
const TEXTS = ['JSON.parse reads a string', 'the cat sleeps', '', 'a parser for JSON in Rust'];

async function started(options: EmbeddingServerOptions): Promise<EmbeddingServer> {
  const server = await new EmbeddingServer({ port: 0, modelId: 'it', maxBatchItems: 5, ...options }).listen();
  onTestFinished(() => server.close({ timeoutMs: 0 }));
  return server;
}

function post(server: EmbeddingServer, path: string, body: unknown, headers: Record<string, string> = {}) {
  return get(server, path, { method: 'POST', headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify(body) });
}

/** What of the description is said of a body. */
async function described(server: EmbeddingServer): Promise<{ document: any; valid: (name: string, value: unknown) => boolean }> {
  const document = (await get(server, '/openapi.json')).body;
  const ajv = new Ajv({ strict: false, allErrors: true });
  ajv.addSchema({ components: document.components }, 'document');
  return { document, valid: (name, value) => ajv.validate({ $ref: `document#/components/schemas/${name}` }, value) };
}

describe('a cross-encoder', () => {
  const reranker = new CrossEncoder({ modelPath: model('cross-encoder') });
  let scores: Float32Array;
  beforeAll(async () => {
    await reranker.initialize();
    scores = await reranker.score(TEXTS.map((text) => [QUERY, text] as const), { activation: 'none' });
    return () => reranker.cleanup();
  });
  const best = () => [...TEXTS.keys()].sort((one, other) => scores[other]! - scores[one]! || one - other);
  const sigmoid = (value: number) => 1 / (1 + Math.exp(-value));

  test('ranks as text-embeddings-inference does', async () => {
    const server = await started({ generator: reranker });
    const raw = await post(server, '/rerank', { query: QUERY, texts: TEXTS, raw_scores: true, return_text: true });
    expect(raw.status).toBe(200);
    expect(raw.body.map(({ index, text }: any) => [index, text])).toEqual(best().map((index) => [index, TEXTS[index]]));
    for (const { index, score } of raw.body) expect(Math.fround(score)).toBe(scores[index]);
    const plain = await post(server, '/rerank', { query: QUERY, texts: TEXTS });
    expect(plain.body.map(({ index }: any) => index)).toEqual(best());
    for (const { index, score, ...rest } of plain.body) {
      expect(score).toBeCloseTo(sigmoid(scores[index]!), 6);
      expect(rest).toEqual({});
    }
  });

  test('ranks as Cohere and Jina do, at their paths', async () => {
    const server = await started({ generator: reranker });
    for (const path of ['/rerank', '/v1/rerank', '/v2/rerank']) {
      const { status, body } = await post(server, path, { model: 'it', query: QUERY, documents: [TEXTS[0], { text: TEXTS[1] }, TEXTS[2], TEXTS[3]], top_n: 2, return_documents: true });
      expect([path, status]).toEqual([path, 200]);
      expect(body).toMatchObject({ id: expect.any(String), object: 'list', model: 'it', usage: { total_tokens: expect.any(Number) } });
      expect(body.results.map(({ index, document }: any) => [index, document])).toEqual(best().slice(0, 2).map((index) => [index, { text: TEXTS[index] }]));
      for (const { index, relevance_score: score } of body.results) expect(score).toBeCloseTo(sigmoid(scores[index]!), 6);
      expect(body.usage.total_tokens).toBeGreaterThan(TEXTS.length);
    }
  });

  test('what is wrong is named, and what another kind is asked for is not there', async () => {
    const server = await started({ generator: reranker });
    const param = async (body: unknown) => {
      const answer = await post(server, '/rerank', body);
      return [answer.status, answer.body.error.param];
    };
    expect(await param({ texts: TEXTS })).toEqual([400, 'query']);
    expect(await param({ query: ' ', texts: TEXTS })).toEqual([400, 'query']);
    expect(await param({ query: QUERY, texts: [] })).toEqual([400, 'texts']);
    expect(await param({ query: QUERY, texts: ['a', 'b', 'c', 'd', 'e', 'f'] })).toEqual([400, 'texts']);
    expect(await param({ query: QUERY, documents: [1] })).toEqual([400, 'documents']);
    expect(await param({ query: QUERY, documents: TEXTS, model: 'other' })).toEqual([404, 'model']);
    expect(await param({ query: QUERY, texts: TEXTS, truncate: false })).toEqual([400, 'truncate']);
    for (const path of ['/v1/embeddings', '/embed_sparse', '/embed_all']) {
      const { status, body } = await post(server, path, { inputs: 'a' });
      expect([path, status]).toEqual([path, 404]);
      expect(body.error.message).toContain('POST /rerank');
    }
    expect((await get(server, '/rerank')).status).toBe(405);
    expect((await get(server, '/nothing')).body.error.message).not.toContain('/v1/embeddings');
  });

  test('a model with several scores ranks nothing', async () => {
    const server = await started({ generator: { modelPath: model('cross-encoder-labels') } });
    const { status, body } = await post(server, '/rerank', { query: QUERY, texts: TEXTS });
    expect([status, body.error.message]).toEqual([400, expect.stringMatching(/3 scores for a pair \(.*\)/)]);
    expect((await get(server, '/info')).body.model_type.reranker.id2label).toMatchObject({ 0: expect.any(String) });
  });

  test('asks to come back while the model is loaded, whatever kind it is', async () => {
    let release = () => {};
    const wait = new Promise<void>((resolve) => (release = resolve));
    let loaded = false;
    const late = { isReady: () => loaded, initialize: async () => (await wait, void (loaded = true)), getModelInfo: () => reranker.getModelInfo(), score: reranker.score.bind(reranker), cleanup: async () => {} };
    const server = new EmbeddingServer({ generator: late as never, port: 0 });
    onTestFinished(() => server.close({ timeoutMs: 0 }));
    const listening = server.listen();
    await expect.poll(() => server.port).not.toBe(0);
    for (const path of ['/rerank', '/v1/rerank', '/v1/embeddings', '/embed_sparse', '/embed_all']) {
      const { status, body } = await post(server, path, { query: QUERY, texts: TEXTS });
      expect([path, status, body.error.code]).toEqual([path, 503, 'not_ready']);
    }
    expect((await get(server, '/openapi.json')).status).toBe(503);
    release();
    await listening;
    expect((await post(server, '/rerank', { query: QUERY, texts: TEXTS })).status).toBe(200);
    expect((await post(server, '/embed_sparse', { inputs: 'a' })).status).toBe(404);
  });

  test('a server that is closed while it learns the kind of its model leaves none loaded', async () => {
    const loads = vi.spyOn(Object.getPrototypeOf(CrossEncoder.prototype) as CrossEncoder, 'initialize');
    const ends = vi.spyOn(OptimizedEmbeddingGenerator.prototype, 'cleanup');
    onTestFinished(() => [loads, ends].forEach((spy) => spy.mockRestore()));
    const server = new EmbeddingServer({ generator: { modelPath: model('cross-encoder') }, port: 0 });
    let closed: Promise<void> | undefined;
    ends.mockImplementationOnce(async function (this: OptimizedEmbeddingGenerator) {
      closed = server.close({ timeoutMs: 0 });
      // As the real one, which this one stands in for.
      await this.cleanup();
    });
    await expect(server.listen()).rejects.toMatchObject({ code: 'CLOSED' });
    await closed;
    expect(closed).toBeDefined();
    for (const encoder of loads.mock.contexts) expect((encoder as CrossEncoder).isReady()).toBe(false);
  });

  test('a query that is too long is named', async () => {
    const server = await started({ generator: reranker });
    const { status, body } = await post(server, '/rerank', { query: 'a '.repeat(600_000), texts: ['a', 'b'] });
    expect([status, body.error.param, body.error.code]).toEqual([400, 'query', 'input_too_long']);
  });

  test('the text of a document is found among any number of fields', async () => {
    const server = await started({ generator: reranker });
    const fields = Object.fromEntries(Array.from({ length: 1000 }, (_, at) => [`field${at}`, [at]]));
    const { status, body } = await post(server, '/rerank', { query: QUERY, documents: [{ ...fields, text: TEXTS[0] }], return_documents: true });
    expect([status, body.results[0].document.text]).toEqual([200, TEXTS[0]]);
  });

  test('long answers are whole, in any number of chunks', async () => {
    const server = await started({ generator: reranker, maxBatchItems: 2000 });
    const texts = Array.from({ length: 1500 }, (_, at) => `${'x'.repeat(at % 400)} \u2028"${at}"`);
    for (const param of ['texts', 'documents']) {
      const { body } = await post(server, '/rerank', { query: QUERY, [param]: texts, [param === 'texts' ? 'return_text' : 'return_documents']: true });
      const results = param === 'texts' ? body : body.results;
      expect(results.map(({ index, text, document }: any) => (text ?? document.text) === texts[index])).toEqual(texts.map(() => true));
      expect(new Set(results.map(({ index }: any) => index)).size).toBe(texts.length);
    }
  });

  test('needs a key where one is needed', async () => {
    const server = await started({ generator: reranker, apiKey: 'secret' });
    expect((await post(server, '/rerank', { query: QUERY, texts: TEXTS })).status).toBe(401);
    expect((await post(server, '/rerank', { query: QUERY, texts: TEXTS }, { Authorization: 'Bearer secret' })).status).toBe(200);
  });

  test('what the schema takes is answered, and nothing else is', async () => {
    const server = await started({ generator: reranker });
    const { document, valid } = await described(server);
    expect(Object.keys(document.paths)).toEqual(expect.arrayContaining(['/rerank', '/v1/rerank', '/v2/rerank', '/info']));
    expect(document.paths).not.toHaveProperty('/v1/embeddings');
    expect(valid('Info', (await get(server, '/info')).body)).toBe(true);
    const text = fc.constantFrom('a', '', ' ', 'b c');
    const odd = fc.constantFrom<unknown>(null, 0, 1, 1.5, true, [], {}, 'x', [1], [{ text: 1 }]);
    const member = (good: fc.Arbitrary<unknown>) => fc.oneof({ weight: 10, arbitrary: good }, { weight: 1, arbitrary: odd });
    const texts = member(fc.array(fc.oneof(text, fc.record({ text })), { minLength: 1, maxLength: 6 }));
    const flag = member(fc.constantFrom(true, false, null));
    const body = fc.record(
      { query: member(fc.constantFrom('q', 'q', 'q', ' ')), texts, documents: texts, model: member(fc.constantFrom('it', 'it', 'no', null)), raw_scores: flag, return_text: flag, return_documents: flag, top_n: member(fc.constantFrom(1, 3, null, 0)), truncate: flag },
      { requiredKeys: ['query'] },
    );
    const seen = new Set<number>();
    const result = await fc.check(fc.asyncProperty(body, async (sent) => {
      const { status, body: answer } = await post(server, '/rerank', sent);
      seen.add(status);
      const taken = valid('RerankRequest', sent);
      expect(status === 200, `${JSON.stringify(sent)}: ${status} ${JSON.stringify(answer).slice(0, 200)}`).toBe(taken);
      expect(valid(taken ? 'Reranked' : 'Error', answer), JSON.stringify(answer)).toBe(true);
    }), { numRuns: 300 });
    tried(result);
    expect(seen).toContain(200);
  });
});

test('sparse vectors', async () => {
  const encoder = new SparseEncoder({ modelPath: model('splade') });
  await encoder.initialize();
  onTestFinished(() => encoder.cleanup());
  const server = await started({ generator: encoder });
  const texts = TEXTS.filter((text) => text !== '');
  const { status, body } = await post(server, '/embed_sparse', { inputs: texts });
  expect(status).toBe(200);
  const vectors = await encoder.embed(texts);
  for (const [row, { indices, values }] of vectors.entries()) {
    expect(body[row].map(({ index }: any) => index)).toEqual([...indices]);
    expect(body[row].map(({ value }: any) => Math.fround(value))).toEqual([...values]);
  }
  const { document, valid } = await described(server);
  expect(document.paths).toHaveProperty('/embed_sparse');
  expect(valid('SparseVectors', body)).toBe(true);
  expect((await post(server, '/embed_sparse', { inputs: texts[0] })).body).toEqual([body[0]]);
  expect((await post(server, '/embed_sparse', { inputs: ['a', ' '] })).body.error).toMatchObject({ param: 'inputs' });
  expect((await post(server, '/rerank', {})).body.error.message).toContain('POST /embed_sparse');
});

test('words, without a model', async () => {
  const server = await started({ generator: { modelPath: 'bm25' } });
  const { body } = await post(server, '/embed_sparse', { inputs: ['parse json', 'the'], prompt_name: 'query' });
  expect(body.map((vector: { value: number }[]) => vector.map(({ value }) => value))).toEqual([[1, 1], []]);
});

test('vectors of tokens', async () => {
  const encoder = new MultiVectorEncoder({ modelPath: model('colbert') });
  await encoder.initialize();
  onTestFinished(() => encoder.cleanup());
  const server = await started({ generator: encoder });
  const texts = ['a longer text about JSON', 'short'];
  for (const inputType of ['document', 'query'] as const) {
    const vectors = await encoder.embed(texts, { inputType });
    const { status, body } = await post(server, '/embed_all', { inputs: texts, prompt_name: inputType });
    expect(status).toBe(200);
    for (const row of texts.keys()) expect(body[row].flat().map(Math.fround)).toEqual([...vectors.row(row)]);
    expect(body[0][0]).toHaveLength(vectors.dimensions);
    expect((await described(server)).valid('TokenVectors', body)).toBe(true);
  }
});

test('the model decides of which class it is, and what it is asked for', async () => {
  for (const [name, path] of [['cross-encoder', '/rerank'], ['splade', '/embed_sparse'], ['colbert', '/embed_all'], ['bert-mean', '/v1/embeddings']] as const) {
    const server = await started({ generator: { modelPath: model(name) } });
    const { paths } = (await get(server, '/openapi.json')).body;
    expect(Object.keys(paths).filter((known) => 'post' in paths[known]), name).toContain(path);
    expect((await post(server, path, {})).status).toBe(400);
  }
});

test('an error about a model for another class says which', async () => {
  const encoder = new SparseEncoder({ modelPath: model('cross-encoder') });
  const error = await encoder.initialize().catch((thrown: EmbeddingError) => thrown);
  expect(error).toMatchObject({ code: 'MODEL_INIT_FAILED', details: { task: 'reranking' }, message: expect.stringContaining('CrossEncoder') });
});
