import { createProviderRegistry, embed, embedMany, rerank, type EmbeddingModel } from 'ai';
import { CrossEncoder, OptimizedEmbeddingGenerator } from 'embedcore';
import { createEmbedcore, embedcore, type EmbedcoreProviderSettings } from 'embedcore/ai-sdk';
import { fileURLToPath } from 'node:url';

import { afterAll, expect, onTestFinished, test } from 'vitest';

afterAll(() => embedcore.close());

function provider(settings?: EmbedcoreProviderSettings) {
  const made = createEmbedcore(settings);
  onTestFinished(() => made.close());
  return made;
}

const direct = new OptimizedEmbeddingGenerator();
afterAll(() => direct.cleanup());

const texts = Array.from({ length: 700 }, (_, i) => `text number ${i}`);

test('embed and embedMany give the vectors of the generator, and the tokens', async () => {
  await direct.initialize();
  const matrix = await direct.embed(texts);
  const many = await embedMany({ model: embedcore.embeddingModel('builtin'), values: texts });
  expect(many.embeddings).toEqual(texts.map((_, i) => Array.from(matrix.row(i))));
  expect(many.usage.tokens).toBe(matrix.tokenCounts.reduce((total, count) => total + count, 0));
  expect(many.warnings).toEqual([]);
  expect(many.providerMetadata!.embedcore).toMatchObject({ truncated: 0, fromCache: 0, fingerprint: direct.getModelInfo().fingerprint });
  const one = await embed({ model: embedcore('builtin'), value: texts[3]! });
  expect(one.embedding).toEqual(Array.from(matrix.row(3)));
  expect(one.usage.tokens).toBe(matrix.tokenCounts[3]);
  expect(one.providerMetadata!.embedcore!.fromCache).toBe(1);
});

test('every name of the method, and the registry', async () => {
  const made = provider({ cache: false });
  const models: EmbeddingModel[] = [made(), made.embeddingModel(), made.textEmbeddingModel('builtin'), made.embedding('builtin'), made.textEmbedding()];
  const registry = createProviderRegistry({ embedcore: made });
  models.push(registry.embeddingModel('embedcore:builtin'));
  const vectors = await Promise.all(models.map(async (model) => (await embed({ model, value: 'a' })).embedding));
  for (const vector of vectors) expect(vector).toEqual(vectors[0]);
  expect(() => made.languageModel('gpt')).toThrow(/embedding models only/);
  expect(() => made.imageModel('dall')).toThrow(/embedding models only/);
});

test('options of a call', async () => {
  const made = provider({ prompts: { query: 'find: ' } });
  const model = made.embeddingModel();
  const ask = (embedcore: Record<string, string | number | boolean>) => embed({ model, value: 'open a file', providerOptions: { embedcore } });
  const [plain, document, query, again, fresh, short] = await Promise.all([
    embed({ model, value: 'open a file' }),
    ask({ inputType: 'document' }),
    ask({ inputType: 'query' }),
    ask({ inputType: 'query' }),
    ask({ bypassCache: true }),
    ask({ dimensions: 16 }),
  ]);
  expect(document.embedding).toEqual(plain.embedding);
  expect(query.embedding).toEqual(again.embedding);
  expect(query.embedding).not.toEqual(plain.embedding);
  expect(fresh.providerMetadata!.embedcore!.fromCache).toBe(0);
  expect(short.embedding.length).toBe(16);
  const cut = new OptimizedEmbeddingGenerator({ dimensions: 16 });
  onTestFinished(() => cut.cleanup());
  await cut.initialize();
  const expected = (await cut.embed(['open a file'])).row(0);
  short.embedding.forEach((value, i) => expect(value).toBeCloseTo(expected[i]!, 6));
  for (const [options, named] of [[{ dimensions: 0 }, 'dimensions'], [{ dimensions: 1000 }, '256'], [{ inputtype: 'query' }, 'inputtype'], [{ inputType: 'x' }, 'inputType']] as const) {
    await expect(ask(options)).rejects.toThrow(named);
  }
});

test('abort, before and in the middle', async () => {
  const model = provider({ cache: false }).embeddingModel();
  await expect(embedMany({ model, values: ['a'], abortSignal: AbortSignal.abort() })).rejects.toThrow();
  const stop = new AbortController();
  const values = Array.from({ length: 50_000 }, (_, i) => `${i} ${'word '.repeat(50)}`);
  const running = embedMany({ model, values, abortSignal: stop.signal });
  setTimeout(() => stop.abort(), 20);
  await expect(running).rejects.toThrow();
});

test('a generator of the user is used, and left to the user', async () => {
  await direct.initialize();
  const made = provider({ generator: direct });
  expect((await embed({ model: made(), value: 'a' })).embedding).toEqual(Array.from((await direct.embed(['a'])).row(0)));
  await made.close();
  expect(direct.isReady()).toBe(true);
});

test('bad input says what is wrong', async () => {
  const refused = (settings: unknown) => () => createEmbedcore(settings as never);
  expect(refused({ generator: {} })).toThrow(/`generator`/);
  expect(refused({ generator: direct, dtype: 'fp32' })).toThrow(/`dtype`/);
  expect(refused({ modelPath: 'a' })).toThrow(/`modelPath`/);
  expect(refused(null)).toThrow(/options are null/);
  const made = provider();
  expect(() => made.embeddingModel('')).toThrow(/`modelId`/);
  await expect(embed({ model: made('/no/such/model'), value: 'a' })).rejects.toMatchObject({ code: 'MODEL_INIT_FAILED' });
  await expect(embedMany({ model: made(), values: ['a', ''] })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', details: { index: 1 } });
});

test('rerank gives the ranking of the cross-encoder', async () => {
  const modelPath = fileURLToPath(new URL('../../fixtures/models/cross-encoder', import.meta.url));
  const encoder = new CrossEncoder({ modelPath });
  onTestFinished(() => encoder.cleanup());
  await encoder.initialize();
  const [query, documents] = ['parse json', ['a cat', 'JSON is parsed here', 'parse', '']];
  const direct = await encoder.rank(query, documents);
  const made = provider({ cache: false, pooling: 'mean' });
  const registry = createProviderRegistry({ embedcore: provider({ reranker: encoder }) });
  for (const model of [made.rerankingModel(modelPath), made.reranking(modelPath), registry.rerankingModel('embedcore:any')]) {
    const { ranking } = await rerank({ model, query, documents });
    expect(ranking.map(({ originalIndex, score }) => ({ index: originalIndex, score }))).toEqual(direct);
  }
  const { ranking } = await rerank({ model: made.rerankingModel(modelPath), query, documents, topN: 2 });
  expect(ranking.map(({ originalIndex }) => originalIndex)).toEqual(direct.slice(0, 2).map(({ index }) => index));
  const objects = await rerank({ model: made.rerankingModel(modelPath), query, documents: [{ a: 1 }, { b: 'json' }] });
  expect(objects.ranking).toHaveLength(2);
  expect(() => made.rerankingModel()).toThrow(/modelId/);
});
