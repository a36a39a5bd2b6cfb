// The model for the AI SDK by itself; with the package `ai`, see `interfaces/`.
import { CrossEncoder, MultiVectorEncoder, OptimizedEmbeddingGenerator, SparseEncoder } from 'embedcore';
import { createEmbedcore } from 'embedcore/ai-sdk';
import { expect, onTestFinished, test } from 'vitest';

import { failure, model } from './support';

function provider() {
  const made = createEmbedcore({ cache: false });
  onTestFinished(() => made.close());
  return made.embeddingModel(model('bert-mean'));
}

test('null is as good as nothing, as JSON has it', async () => {
  const embedding = provider();
  const plain = await embedding.doEmbed({ values: ['a'] });
  for (const options of [
    { providerOptions: null },
    { providerOptions: { embedcore: null } },
    { providerOptions: { embedcore: { dimensions: null, inputType: null, bypassCache: null, timeoutMs: null } } },
    { providerOptions: undefined, abortSignal: null, dimensions: null },
  ]) {
    expect(await embedding.doEmbed({ values: ['a'], ...(options as object) })).toEqual(plain);
  }
  for (const given of [5, 'text', [], true]) {
    expect(await failure(() => embedding.doEmbed({ values: ['a'], providerOptions: { embedcore: given as never } }))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining('providerOptions.embedcore') });
  }
});

test('errors give advice that can be followed here', async () => {
  const embedding = provider();
  const blank = await failure(() => embedding.doEmbed({ values: ['a', ''] }));
  expect(blank).toMatchObject({ code: 'INVALID_ARGUMENT', details: { index: 1 } });
  expect(blank.message).not.toMatch(/onError|skip/);
  const unknown = await failure(() => embedding.doEmbed({ values: ['a'], providerOptions: { embedcore: { onError: 'skip' } } }));
  expect(unknown.message).toMatch(/known are [^.]*inputType[^.]*dimensions[^.]*bypassCache[^.]*timeoutMs/);
});

test('values count as they are when the call is made', async () => {
  const embedding = provider();
  const values = ['open a file', 'close a file'];
  const call = embedding.doEmbed({ values });
  values[0] = 'something else';
  values.pop();
  expect((await call).embeddings).toEqual((await embedding.doEmbed({ values: ['open a file', 'close a file'] })).embeddings);
});

test('timeoutMs is the limit of the whole call, a model that does not load included', async () => {
  const never = { isReady: () => false, initialize: () => new Promise(() => {}), embed: () => new Promise(() => {}) } as unknown as OptimizedEmbeddingGenerator;
  const embedding = createEmbedcore({ generator: never }).embeddingModel();
  const error = await failure(() => embedding.doEmbed({ values: ['a'], providerOptions: { embedcore: { timeoutMs: 30 } } }));
  expect(error).toMatchObject({ code: 'TIMED_OUT', retryable: true, details: { timeoutMs: 30 } });
  expect((await provider().doEmbed({ values: ['a'], providerOptions: { embedcore: { timeoutMs: 60_000 } } })).embeddings).toHaveLength(1);
  for (const timeoutMs of [0, -1, 1.5, '5']) {
    expect(await failure(() => provider().doEmbed({ values: ['a'], providerOptions: { embedcore: { timeoutMs } } }))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining('timeoutMs') });
  }
});

test.each<[string, unknown, unknown?]>([
  ['The documents are undefined', undefined],
  ['The documents are "a"', 'a'],
  ['The type of the documents is "texts"', { type: 'texts', values: ['a'] }],
  ["The documents' values are undefined", { type: 'text' }],
  ["The documents' values are 3", { type: 'object', values: 3 }],
  ['Document 1 is 7, not a string', { type: 'text', values: ['a', 7] }],
  ['Document 0 is undefined, which JSON does not know', { type: 'object', values: [undefined] }],
  ['Document 0 cannot be read as JSON', { type: 'object', values: [{ n: 1n }] }],
  ['The query is 5', { type: 'text', values: ['a'] }, 5],
])('documents to rank are what they have to be: %s', async (message, documents, query = 'a') => {
  const made = createEmbedcore({ cache: false });
  onTestFinished(() => made.close());
  const error = await failure(() => made.rerankingModel(model('cross-encoder')).doRerank({ documents: documents as never, query: query as never }));
  expect([error.code, error.message]).toEqual(['INVALID_ARGUMENT', expect.stringContaining(message)]);
});

test('a model of another class is refused, with the name of the right one', async () => {
  for (const other of [new CrossEncoder(), new SparseEncoder(), new MultiVectorEncoder()]) {
    const error = await failure(() => createEmbedcore({ generator: other as never }));
    expect([error.code, error.message]).toEqual(['INVALID_CONFIG', expect.stringMatching(/pass an OptimizedEmbeddingGenerator$/)]);
  }
  for (const other of [new OptimizedEmbeddingGenerator(), new SparseEncoder(), new MultiVectorEncoder()]) {
    const error = await failure(() => createEmbedcore({ reranker: other as never }));
    expect([error.code, error.message]).toEqual(['INVALID_CONFIG', expect.stringMatching(/pass a CrossEncoder$/)]);
  }
  // One that says so only once it is loaded.
  const late = { embed: () => [[1]], initialize: async () => {}, isReady: () => true, getModelInfo: () => ({ fingerprint: 'f', task: 'sparse' }) };
  const error = await failure(() => createEmbedcore({ generator: late as never }).embeddingModel().doEmbed({ values: ['a'] }));
  expect(error.message).toContain('a SparseEncoder gives sparse vectors');
});
