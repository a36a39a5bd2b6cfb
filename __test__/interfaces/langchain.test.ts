import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

import { Document } from '@langchain/core/documents';
import { Embeddings } from '@langchain/core/embeddings';
import { BaseDocumentCompressor } from '@langchain/core/retrievers/document_compressors';
import { VectorStore } from '@langchain/core/vectorstores';
import { CrossEncoder, EmbeddingError, OptimizedEmbeddingGenerator, type GeneratorOptions } from 'embedcore';
import { EmbedcoreEmbeddings, EmbedcoreRerank } from 'embedcore/langchain';
import { expect, onTestFinished, test } from 'vitest';

function embeddings(params?: ConstructorParameters<typeof EmbedcoreEmbeddings>[0]): EmbedcoreEmbeddings {
  const made = new EmbedcoreEmbeddings(params);
  onTestFinished(() => made.close());
  return made;
}

async function generator(options: GeneratorOptions = {}): Promise<OptimizedEmbeddingGenerator> {
  const made = new OptimizedEmbeddingGenerator(options);
  onTestFinished(() => made.cleanup());
  await made.initialize();
  return made;
}

/** A generator that fails as it is told to. */
function failing(errors: unknown[]): { generator: OptimizedEmbeddingGenerator; calls: () => number } {
  let calls = 0;
  const stand = {
    isReady: () => true,
    getModelInfo: () => ({}),
    initialize: async () => {},
    embed: async () => {
      calls++;
      throw errors[Math.min(calls, errors.length) - 1];
    },
  };
  return { generator: stand as unknown as OptimizedEmbeddingGenerator, calls: () => calls };
}

test('vectors are those of the generator', async () => {
  const direct = await generator({ prompts: { query: 'find: ' } });
  const made = embeddings({ prompts: { query: 'find: ' } });
  expect(made).toBeInstanceOf(Embeddings);
  expect(made.constructor.name).toBe('EmbedcoreEmbeddings');
  const texts = Array.from({ length: 600 }, (_, i) => `text number ${i}`);
  const matrix = await direct.embed(texts);
  expect(await made.embedDocuments(texts)).toEqual(texts.map((_, i) => Array.from(matrix.row(i))));
  const query = await made.embedQuery('text number 7');
  expect(query).toEqual(Array.from(await direct.embedQuery('text number 7')));
  expect(query).not.toEqual((await made.embedDocuments(['text number 7']))[0]);
  expect(await made.embedDocuments([])).toEqual([]);
});

test('a generator of the user is used, and left to the user', async () => {
  const mine = await generator({ dimensions: 64 });
  for (const params of [mine, { generator: mine }]) {
    const made = new EmbedcoreEmbeddings(params);
    expect(made.generator).toBe(mine);
    expect((await made.embedQuery('a')).length).toBe(64);
    await made.close();
    expect(mine.isReady()).toBe(true);
  }
});

test('the model is loaded once, with the first call, and again after close', async () => {
  const made = embeddings({ model: 'builtin', cache: false });
  expect(made.generator.isReady()).toBe(false);
  const all = await Promise.all(Array.from({ length: 20 }, () => made.embedQuery('open a file')));
  for (const vector of all) expect(vector).toEqual(all[0]);
  await made.close();
  expect(made.generator.isReady()).toBe(false);
  expect(await made.embedQuery('open a file')).toEqual(all[0]);
});

test('a vector store of LangChain finds with it', async () => {
  class Memory extends VectorStore {
    #kept: { vector: number[]; document: Document }[] = [];
    override _vectorstoreType(): string {
      return 'memory';
    }
    async addVectors(vectors: number[][], documents: Document[]): Promise<void> {
      vectors.forEach((vector, i) => this.#kept.push({ vector, document: documents[i]! }));
    }
    async addDocuments(documents: Document[]): Promise<void> {
      await this.addVectors(await this.embeddings.embedDocuments(documents.map(({ pageContent }) => pageContent)), documents);
    }
    async similaritySearchVectorWithScore(query: number[], k: number): Promise<[Document, number][]> {
      const scored = this.#kept.map(({ vector, document }): [Document, number] => [document, vector.reduce((dot, value, i) => dot + value * query[i]!, 0)]);
      return scored.sort((a, b) => b[1] - a[1]).slice(0, k);
    }
  }
  const store = new Memory(embeddings(), {});
  await store.addDocuments(['parse a JSON file', 'open a TCP socket', 'draw a circle'].map((pageContent) => new Document({ pageContent })));
  const [found] = await store.asRetriever(1).invoke('listen on a network socket');
  expect(found!.pageContent).toBe('open a TCP socket');
});

test('what passes is tried again, what does not is not', async () => {
  const busy = new EmbeddingError('BACKEND_UNAVAILABLE', 'busy', { retryable: true });
  const wrong = new EmbeddingError('INVALID_ARGUMENT', 'wrong');
  const both = failing([busy, wrong]);
  await expect(embeddings({ generator: both.generator }).embedQuery('a')).rejects.toBe(wrong);
  expect(both.calls()).toBe(2);
  const once = failing([busy]);
  await expect(embeddings({ generator: once.generator, maxRetries: 0 }).embedQuery('a')).rejects.toBe(busy);
  expect(once.calls()).toBe(1);
  const seen: unknown[] = [];
  const own = failing([wrong, wrong, wrong]);
  const onFailedAttempt = (error: unknown) => {
    seen.push(error);
    if (seen.length === 2) throw error;
  };
  await expect(embeddings({ generator: own.generator, onFailedAttempt }).embedQuery('a')).rejects.toBe(wrong);
  expect(seen).toEqual([wrong, wrong]);
});

test('timeoutMs is the limit of the whole call: attempts, waits between them, the turn and the model included', async () => {
  const timed = { code: 'TIMED_OUT', message: 'The call did not finish within 60 ms: allow more time or send fewer texts' };
  const late = new EmbeddingError('TIMED_OUT', 'late', { retryable: true });
  const busy = new EmbeddingError('BACKEND_UNAVAILABLE', 'busy', { retryable: true });
  // LangChain waits a second before its second attempt, and longer before others.
  for (const error of [late, busy]) {
    const stand = failing([error]);
    await expect(embeddings({ generator: stand.generator, timeoutMs: 60 }).embedQuery('a')).rejects.toMatchObject(timed);
    expect(stand.calls()).toBe(1);
  }
  const never = { isReady: () => false, initialize: () => new Promise(() => {}), embed: () => new Promise(() => {}) } as unknown as OptimizedEmbeddingGenerator;
  await expect(embeddings({ generator: never, timeoutMs: 60 }).embedQuery('a')).rejects.toMatchObject(timed);
  const one = embeddings({ generator: never, timeoutMs: 60, maxConcurrency: 1, maxRetries: 3, onFailedAttempt: () => {} });
  for (const call of [one.embedDocuments(['a']), one.embedDocuments(['b'])]) await expect(call).rejects.toMatchObject(timed);
  expect(await embeddings({ timeoutMs: 60_000 }).embedQuery('a')).toHaveLength(256);
});

test('documents count as they are when the call is made', async () => {
  const made = embeddings();
  const documents = ['open a file', 'close a file'];
  const call = made.embedDocuments(documents);
  documents[0] = 'something else';
  documents.pop();
  expect(await call).toEqual(await made.embedDocuments(['open a file', 'close a file']));
});

test('maxConcurrency holds', async () => {
  let [now, most] = [0, 0];
  const real = await generator();
  const stand = Object.create(real, {
    isReady: { value: () => true },
    getModelInfo: { value: () => real.getModelInfo() },
    initialize: { value: async () => {} },
    embed: {
      value: async (texts: string[]) => {
        most = Math.max(most, ++now);
        await new Promise((resolve) => setTimeout(resolve, 5));
        now--;
        return real.embed(texts);
      },
    },
  }) as OptimizedEmbeddingGenerator;
  const made = embeddings({ generator: stand, maxConcurrency: 2 });
  await Promise.all(Array.from({ length: 10 }, (_, i) => made.embedQuery(`text ${i}`)));
  expect(most).toBe(2);
});

test('bad input says what is wrong', async () => {
  const made = embeddings();
  await expect(made.embedDocuments(['a', 5 as never])).rejects.toMatchObject({ name: 'EmbeddingError', code: 'INVALID_ARGUMENT', details: { index: 1 } });
  await expect(made.embedDocuments('a' as never)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  await expect(embeddings({ timeoutMs: -1 }).embedQuery('a')).rejects.toMatchObject({ code: 'INVALID_CONFIG' });
  await expect(embeddings({ model: '/no/such/model' }).embedQuery('a')).rejects.toMatchObject({ code: 'MODEL_INIT_FAILED' });
  expect(() => new EmbedcoreEmbeddings(null as never)).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG', message: expect.stringContaining('The options are null') }));
  const mine = await generator();
  for (const [params, option] of [
    [{ model: 'a', modelPath: 'b' }, 'model'],
    [{ generator: {} }, 'generator'],
    [{ generator: mine, dimensions: 3 }, 'dimensions'],
    [{ batchSize: 5 }, 'batchSize'],
  ] as const) {
    const refused = () => new EmbedcoreEmbeddings(params as never);
    expect(refused).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG', message: expect.stringContaining(`\`${option}\``) }));
  }
});

test('in CommonJS, it is of the class that CommonJS has', async () => {
  const require = createRequire(import.meta.url);
  const other = require('embedcore/langchain') as typeof import('embedcore/langchain');
  const { Embeddings: Base } = require('@langchain/core/embeddings') as { Embeddings: typeof Embeddings };
  const made = new other.EmbedcoreEmbeddings();
  onTestFinished(() => made.close());
  expect(made).toBeInstanceOf(Base);
  expect(await made.embedQuery('a')).toEqual(await embeddings().embedQuery('a'));
});

test('a document compressor keeps the best documents, with their scores', async () => {
  const modelPath = fileURLToPath(new URL('../../fixtures/models/cross-encoder', import.meta.url));
  const encoder = new CrossEncoder({ modelPath });
  onTestFinished(() => encoder.cleanup());
  await encoder.initialize();
  const texts = ['a cat', 'JSON is parsed here', 'parse', ''];
  const documents = texts.map((pageContent, at) => new Document({ pageContent, id: String(at), metadata: { at } }));
  const direct = await encoder.rank('parse json', texts);
  for (const made of [new EmbedcoreRerank(encoder), new EmbedcoreRerank({ encoder }), new EmbedcoreRerank({ model: modelPath, cache: false })]) {
    onTestFinished(() => made.close());
    expect(made).toBeInstanceOf(BaseDocumentCompressor);
    const kept = await made.compressDocuments(documents, 'parse json');
    expect(kept.map(({ id, metadata }) => [id, metadata])).toEqual(direct.map(({ index, score }) => [String(index), { at: index, relevanceScore: score }]));
    expect(kept[0]).toBeInstanceOf(Document);
    expect(await made.rerank(texts, 'parse json', { topN: 1 })).toEqual([{ index: direct[0]!.index, relevanceScore: direct[0]!.score }]);
  }
  expect(documents[0]!.metadata).toEqual({ at: 0 });
  const two = new EmbedcoreRerank({ encoder, topN: 2 });
  expect(await two.compressDocuments(documents, 'parse json')).toHaveLength(2);
  expect(() => new EmbedcoreRerank({ encoder, modelPath })).toThrow(/modelPath/);
  const required = createRequire(import.meta.url)('embedcore/langchain') as { EmbedcoreRerank: typeof EmbedcoreRerank };
  expect(await new required.EmbedcoreRerank(encoder).rerank(texts, 'parse json')).toHaveLength(4);
});

test.each(['cross-encoder', 'causal-reranker', 'causal-reranker-chat'])('%s compresses nothing and very much, and is closed in the middle', async (name) => {
  const modelPath = fileURLToPath(new URL(`../../fixtures/models/${name}`, import.meta.url));
  const made = new EmbedcoreRerank({ modelPath, cache: false, topN: 2 });
  onTestFinished(() => made.close());
  expect(await made.compressDocuments([], 'parse json')).toEqual([]);
  expect(await made.rerank([], 'parse json')).toEqual([]);
  const texts = ['a cat', 'JSON is parsed here', 'parse', ''];
  const few = await made.rerank(texts, 'parse json');
  const many = Array.from({ length: 100_000 }, (_, at) => new Document({ pageContent: texts[at % 4]!, metadata: { at } }));
  // Equal documents are in their order.
  expect((await made.compressDocuments(many, 'parse json')).map(({ metadata }) => metadata.at)).toEqual([few[0]!.index, few[0]!.index + 4]);
  // Nobody waits for it.
  const call = made.compressDocuments(many, 'parse json').then((kept) => kept.length, (error: { code: string }) => error.code);
  await made.close();
  expect([2, 'ABORTED', 'CLOSED', 'NOT_INITIALIZED']).toContain(await call);
  expect(await made.compressDocuments(many.slice(0, 9), 'parse json')).toHaveLength(2);
});

test.each([
  ['bert-mean', 'OptimizedEmbeddingGenerator'],
  ['table-model2vec', 'OptimizedEmbeddingGenerator'],
  ['decoder-cache', 'OptimizedEmbeddingGenerator'],
  ['splade', 'SparseEncoder'],
  ['colbert', 'MultiVectorEncoder'],
])('%s compresses nothing: the error names %s', async (name, right) => {
  const modelPath = fileURLToPath(new URL(`../../fixtures/models/${name}`, import.meta.url));
  const made = new EmbedcoreRerank({ modelPath });
  onTestFinished(() => made.close());
  await expect(made.compressDocuments([new Document({ pageContent: 'a' })], 'b')).rejects.toMatchObject({ code: 'MODEL_INIT_FAILED', message: expect.stringContaining(right) as string });
  const reranker = fileURLToPath(new URL('../../fixtures/models/causal-reranker', import.meta.url));
  await expect(new EmbedcoreEmbeddings({ modelPath: reranker }).embedQuery('a')).rejects.toMatchObject({ message: expect.stringContaining('CrossEncoder') as string });
});

test('documents are what they have to be, and count as they are when the call is made', async () => {
  const modelPath = fileURLToPath(new URL('../../fixtures/models/cross-encoder', import.meta.url));
  const made = new EmbedcoreRerank({ modelPath, cache: false });
  onTestFinished(() => made.close());
  const documents = ['a cat', 'JSON is parsed here'].map((pageContent, at) => new Document({ pageContent, metadata: { at } }));
  const call = made.compressDocuments(documents, 'parse json');
  documents[0]!.metadata.at = 9;
  documents[0]!.pageContent = 'changed';
  documents.pop();
  const kept = await call;
  expect(kept.map(({ pageContent, metadata }) => [pageContent, metadata.at]).sort()).toEqual([['JSON is parsed here', 1], ['a cat', 0]]);
  for (const [work, message] of [
    [() => made.compressDocuments(undefined as never, 'a'), 'The inputs are undefined, not an array of documents'],
    [() => made.compressDocuments([null] as never, 'a'), 'Document 0 is null, not a document'],
    [() => made.compressDocuments([{ pageContent: 5 }] as never, 'a'), 'The pageContent of document 0 is 5, not a string'],
    [() => made.rerank('abc' as never, 'a'), 'not an array of documents'],
    [() => made.rerank(['a', 7] as never, 'a'), 'Document 1 is 7, neither a document nor a string'],
    [() => made.rerank(['a'], 5 as never), 'The query is 5, not a string'],
    [() => made.rerank(['a'], 'a', { topN: 0 }), '`topN`: 0'],
  ] as const) await expect(work()).rejects.toMatchObject({ name: 'EmbeddingError', message: expect.stringContaining(message) as string });
  expect(() => new EmbedcoreRerank({ modelPath, topN: 1.5 })).toThrow('`topN`: 1.5');
  expect(() => new EmbedcoreRerank(new OptimizedEmbeddingGenerator() as never)).toThrow('pass a CrossEncoder');
  expect(() => new EmbedcoreEmbeddings(new CrossEncoder() as never)).toThrow('pass an OptimizedEmbeddingGenerator');
});
