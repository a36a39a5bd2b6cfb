// Models that give something else than one vector for each text: scores of pairs, sparse vectors, vectors of tokens.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  CodeIndex,
  CrossEncoder,
  EmbeddingCollection,
  InferenceCache,
  IntelligentEmbeddingCache,
  maxSim,
  MultiVectorEncoder,
  OptimizedEmbeddingGenerator,
  SparseEncoder,
  type RankedDocument,
  type SparseVector,
} from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { directory } from './files';
import { failure, model, root } from './support';

interface Golden {
  crossEncoders: { name: string; pairs: [string, string][]; labels: string[]; logits: number[][]; scores: number[][] }[];
  sparse: { name: string; texts: string[]; tokens: string[]; vectors: { indices: number[]; values: number[] }[] }[];
  multiVector: { name: string; dimensions: number; inputs: { inputType: 'query' | 'document'; text: string; vectors: number[][] }[] }[];
  bm25: { text: string; indices: number[]; values: number[] }[];
}

const golden = JSON.parse(readFileSync(join(root, 'fixtures/golden-encoders.json'), 'utf8')) as Golden;

/** Sums over a text's tokens are larger than 1, so differences count as shares of what they should be. */
const near = (found: ArrayLike<number>, expected: readonly number[]) => {
  expect(found.length).toBe(expected.length);
  const off = expected.map((value, at) => Math.abs(found[at]! - value) / Math.max(1, Math.abs(value)));
  expect(Math.max(0, ...off)).toBeLessThanOrEqual(1e-5);
};

async function loaded<T extends { initialize(): Promise<void>; shutdown(): Promise<void> }>(encoder: T): Promise<T> {
  onTestFinished(() => encoder.shutdown());
  await encoder.initialize();
  return encoder;
}

const cross = (options: ConstructorParameters<typeof CrossEncoder>[0] = {}) => loaded(new CrossEncoder({ modelPath: model('cross-encoder'), ...options }));
const sparse = (options: ConstructorParameters<typeof SparseEncoder>[0] = {}) => loaded(new SparseEncoder({ modelPath: model('splade'), ...options }));
const multi = (options: ConstructorParameters<typeof MultiVectorEncoder>[0] = {}) => loaded(new MultiVectorEncoder({ modelPath: model('colbert'), ...options }));
const indices = (ranked: RankedDocument[]) => ranked.map(({ index }) => index);

describe.each(golden.crossEncoders)('the cross-encoder $name', ({ name, pairs, labels, logits, scores }) => {
  test.each([false, {}])('scores pairs as the reference does, alone and together, cache: %o', async (cache) => {
    const encoder = await cross({ modelPath: model(name), cache });
    const [expected, raw] = [scores.flat(), await cross({ modelPath: model(name), activation: 'none', cache: false })];
    near(await encoder.score(pairs), expected);
    near(await raw.score(pairs), logits.flat());
    for (const [at, pair] of pairs.entries()) near(await encoder.score([pair]), scores[at]!);
    expect((await encoder.score(pairs)).labels).toEqual(labels.length > 1 ? labels : undefined);
    expect(encoder.getModelInfo()).toMatchObject({ task: 'reranking', dimensions: labels.length, maxLength: 64 });
  });

  test('ranks documents by their scores', async () => {
    const encoder = await cross({ modelPath: model(name) });
    const query = pairs[0]![0];
    const documents = pairs.filter((pair) => pair[0] === query).map((pair) => pair[1]);
    if (labels.length > 1) {
      await expect(encoder.rank(query, documents)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('score()') });
      return;
    }
    const expected = documents.map((_, index) => index).sort((a, b) => scores[b]![0]! - scores[a]![0]! || a - b);
    const ranked = await encoder.rank(query, documents, { returnDocuments: true });
    expect(indices(ranked)).toEqual(expected);
    for (const { index, document } of ranked) expect(document).toBe(documents[index]);
    expect(indices(await encoder.rank(query, documents, { topK: 2 }))).toEqual(expected.slice(0, 2));
  });
});

describe('a cross-encoder', () => {
  const [query, documents] = ['parse a json string', golden.crossEncoders[0]!.pairs.slice(0, 6).map((pair) => pair[1])];

  test('remembers pairs, not texts', async () => {
    const encoder = await cross();
    await encoder.rank(query, documents);
    await encoder.rank(query, [...documents].reverse());
    expect(encoder.getPerformanceMetrics().cache.hitRatio).toBeCloseTo(0.5);
    // The same texts, parted elsewhere.
    await encoder.score([['a b', 'c']]);
    const misses = encoder.getPerformanceMetrics().cache.hitRatio;
    await encoder.score([['a', 'b c']]);
    expect(encoder.getPerformanceMetrics().cache.hitRatio).toBeLessThan(misses);
  });

  test('gives what it knows from a file in the next process', async () => {
    const cache = { persistPath: join(directory(), 'cache.db') };
    const first = await cross({ cache });
    const scores = await first.score(documents.map((document) => [query, document]));
    await first.shutdown();
    const second = await cross({ cache });
    expect(await second.score(documents.map((document) => [query, document]))).toEqual(scores);
    expect(second.getPerformanceMetrics().cache.hitRatio).toBe(1);
  });

  // What it takes is linear in the input: read once for each document, the query alone would take minutes.
  test.each<[string, (encoder: CrossEncoder, long: string, short: string[]) => Promise<ArrayLike<unknown>>]>([
    ['query with many documents', (encoder, long, short) => encoder.rank(long, short)],
    ['query in many pairs', (encoder, long, short) => encoder.score(short.map((document) => [long, document]))],
    ['document in many pairs', (encoder, long, short) => encoder.score(short.map((query) => [query, long]))],
    ['query whose length many others have', (encoder, long, short) => encoder.score(short.flatMap((document, at) => [[long, document], [`${long.slice(0, 999)}${at % 7}`, document]] as const))],
  ])('reads a long text once: a %s', async (_, work) => {
    const encoder = await cross();
    const short = Array.from({ length: 600 }, (_, index) => `document ${index}`);
    expect((await work(encoder, 'parse json '.repeat(90_000), short)).length).toBeGreaterThanOrEqual(600);
  });

  test('cuts long texts of pairs as it does alone, whichever other texts there are', async () => {
    const encoder = await cross({ cache: false });
    const texts = ['short', 'parse a json string '.repeat(3), 'the cat sleeps on the mat '.repeat(20), 'parse json '.repeat(200)];
    const pairs = texts.flatMap((query) => texts.map((document): [string, string] => [query, document]));
    const all = await encoder.score([...pairs, ...pairs]);
    for (const [at, pair] of pairs.entries()) {
      const one = await encoder.score([pair]);
      near([all[at]!, all[at + pairs.length]!], [one[0]!, one[0]!]);
      expect([all.tokenCounts[at], all.truncated[at]]).toEqual([one.tokenCounts[0], one.truncated[0]]);
    }
    expect([...all.truncated]).toContain(0);
    expect([...all.truncated]).toContain(1);
  });

  test('says which text of a pair is at fault', async () => {
    const encoder = await cross();
    const long = 'x'.repeat(1.1e6);
    for (const [work, message, code] of [
      [() => encoder.score([['a', 'b'], [' ', 'b']]), 'The query of pair 1 is empty', 'INVALID_ARGUMENT'],
      [() => encoder.score([['a', 'b'], [long, 'b']]), 'The query of pair 1 has 1100000 bytes', 'INPUT_TOO_LONG'],
      [() => encoder.score([['a', 'b'], ['a', long]]), 'The document of pair 1 has 1100000 bytes', 'INPUT_TOO_LONG'],
      [() => encoder.rank(long, ['a', 'b']), 'The query has 1100000 bytes', 'INPUT_TOO_LONG'],
      [() => encoder.rank('a', ['b', long]), 'Document 1 has 1100000 bytes', 'INPUT_TOO_LONG'],
    ] as const) {
      const error = await failure(work);
      expect([error.message, error.code]).toEqual([expect.stringContaining(message), code]);
    }
    const [, skipped] = await encoder.rank('a', ['b', long], { onError: 'skip' });
    expect(skipped).toMatchObject({ index: 1, error: { message: expect.stringContaining('Document 1') } });
  });

  test('has equal documents in their order', async () => {
    const encoder = await cross();
    expect(indices(await encoder.rank(query, ['b', 'b', 'b']))).toEqual([0, 1, 2]);
  });

  test('ranks no documents, and very many', async () => {
    const encoder = await cross({ cache: false });
    expect(await encoder.rank(query, [])).toEqual([]);
    expect((await encoder.score([])).length).toBe(0);
    const many = Array.from({ length: 100_000 }, (_, index) => documents[index % 6]!);
    expect(await encoder.rank(query, many, { topK: 1 })).toHaveLength(1);
  });

  test('skips what is no text, and says why', async () => {
    const encoder = await cross();
    const mixed = ['a', 7, 'b'] as string[];
    expect((await failure(() => encoder.rank(query, mixed))).message).toBe('Document 1 is 7, not a string');
    const ranked = await encoder.rank(query, mixed, { onError: 'skip', returnDocuments: true });
    expect(ranked).toHaveLength(3);
    expect(ranked[2]).toMatchObject({ index: 1, score: 0, error: { code: 'INVALID_ARGUMENT' } });
    expect(ranked[2]).not.toHaveProperty('document');
  });

  test('is told when a call stops, by signal and by time', async () => {
    const encoder = await cross();
    expect((await failure(() => encoder.rank(query, documents, { signal: AbortSignal.abort() }))).code).toBe('ABORTED');
    const progress: number[] = [];
    await encoder.rank(query, documents, { progressCallback: (done) => progress.push(done) });
    expect(progress.at(-1)).toBe(6);
  });

  test.each<[string, (encoder: CrossEncoder) => unknown]>([
    ['The query is empty', (encoder) => encoder.rank('  ', ['a'])],
    ['The query is 3, not a string', (encoder) => encoder.rank(3 as never, ['a'])],
    ['not an array of documents', (encoder) => encoder.rank('a', 'b' as never)],
    ['`topK`: 0', (encoder) => encoder.rank('a', ['b'], { topK: 0 })],
    ['`returnDocuments`', (encoder) => encoder.rank('a', ['b'], { returnDocuments: 1 as never })],
    ['Pair 0 is an array of 1', (encoder) => encoder.score([['a']] as never)],
    ['The document of pair 0 is null', (encoder) => encoder.score([['a', null]] as never)],
    ['no such option', (encoder) => encoder.score([], { topK: 1 } as never)],
  ])('refuses what cannot be: %s', async (message, work) => {
    const encoder = await cross();
    const error = await failure(async () => work(encoder));
    expect(error.message).toContain(message);
    expect(error.code).toMatch(/^INVALID_(ARGUMENT|CONFIG)$/);
  });

  test('refuses options of generators, and values that are none', () => {
    expect(() => new CrossEncoder({ pooling: 'mean' } as never)).toThrow('pooling');
    expect(() => new CrossEncoder({ activation: 'tanh' as never })).toThrow("'auto', 'sigmoid' or 'none'");
  });

  test('is not ready before it is loaded', async () => {
    const encoder = new CrossEncoder({ modelPath: model('cross-encoder') });
    expect(encoder.isReady()).toBe(false);
    expect((await failure(() => encoder.rank('a', ['b']))).code).toBe('NOT_INITIALIZED');
  });
});

describe.each(golden.sparse)('the sparse encoder $name', ({ name, texts, tokens, vectors }) => {
  test('weighs tokens as the reference does, alone, together and from the cache', async () => {
    const encoder = await sparse({ modelPath: model(name) });
    const alone = await sparse({ modelPath: model(name), cache: false });
    const compare = (found: SparseVector, at: number) => {
      // A weight next to 0 may be one here and none there.
      const expected = new Map(vectors[at]!.indices.map((index, n) => [index, vectors[at]!.values[n]!]));
      const all = [...new Set([...expected.keys(), ...found.indices])].sort((a, b) => a - b);
      const values = new Map(Array.from(found.indices, (index, n) => [index, found.values[n]!]));
      near(all.map((index) => values.get(index) ?? 0), all.map((index) => expected.get(index) ?? 0));
      expect([...found.indices]).toEqual([...found.indices].sort((a, b) => a - b));
    };
    for (let round = 0; round < 2; round++) (await encoder.embed(texts)).forEach(compare);
    expect(encoder.getPerformanceMetrics().cache.hitRatio).toBe(0.5);
    for (const [at, text] of texts.entries()) compare((await alone.embed([text]))[0]!, at);
    const [first] = await encoder.embed(texts);
    const heaviest = Math.max(...vectors[0]!.values);
    const [[token, value]] = encoder.decode(first!, 1) as [[string, number]];
    expect(token).toBe(tokens[vectors[0]!.indices[vectors[0]!.values.indexOf(heaviest)]!]);
    near([value], [heaviest]);
  });
});

describe('a sparse encoder', () => {
  test('multiplies what two vectors share', async () => {
    const encoder = await sparse();
    const vector = (indices: number[], values: number[]) => ({ indices: Uint32Array.from(indices), values: Float32Array.from(values) });
    expect(encoder.dot(vector([1, 5, 9], [1, 2, 3]), vector([0, 5, 9, 10], [7, 10, 100, 7]))).toBe(320);
    expect(encoder.dot(vector([], []), vector([1], [1]))).toBe(0);
    expect(() => encoder.dot(vector([2, 1], [1, 1]), vector([], []))).toThrow('do not ascend');
    expect(() => encoder.dot(vector([1], []), vector([], []))).toThrow('1 indices and 0 values');
    expect(() => encoder.decode(null as never)).toThrow('The vector is null');
  });

  const none = { indices: [], values: [] };
  test.each<[string, unknown]>([
    ['the index NaN at 0', { indices: [NaN], values: [1] }],
    ['the index NaN at 1', { indices: [1, NaN], values: [1, 1] }],
    ['the index undefined at 0', { indices: new Array(1), values: [1] }],
    ['the index 1.5', { indices: [1.5], values: [1] }],
    ['the index -1', { indices: Int32Array.of(-1), values: [1] }],
    ['the index 4294967296', { indices: [2 ** 32], values: [1] }],
    ['the index "1"', { indices: ['1'], values: [1] }],
    ['do not ascend, at 1', { indices: [1, 1], values: [1, 1] }],
    ['the value NaN at 0', { indices: [1], values: Float32Array.of(NaN) }],
    ['the value Infinity', { indices: [1], values: [Infinity] }],
    ['the value "2"', { indices: [1], values: ['2'] }],
    ['indices that are a DataView', { indices: new DataView(new ArrayBuffer(4)), values: [1] }],
    ['indices that are a BigUint64Array', { indices: BigUint64Array.of(1n), values: [1] }],
    ['values that are a BigInt64Array', { indices: [1], values: BigInt64Array.of(1n) }],
    ['indices that are an object', { indices: { length: 1, 0: 1 }, values: [1] }],
    ['values that are undefined', { indices: [1] }],
  ])('refuses vectors that are none: %s', async (message, vector) => {
    const encoder = await sparse();
    for (const work of [() => encoder.dot(vector as never, none as never), () => encoder.dot(none as never, vector as never), () => encoder.decode(vector as never)]) {
      const error = await failure(async () => work());
      expect([error.code, error.message]).toEqual(['INVALID_ARGUMENT', expect.stringContaining(message)]);
    }
  });

  test('takes numbers in any array', async () => {
    const encoder = await sparse();
    for (const indices of [[1, 3], Uint8Array.of(1, 3), Float64Array.of(1, 3)]) expect(encoder.dot({ indices, values: [2, 3] } as never, { indices: Int16Array.of(3), values: Float64Array.of(10) } as never)).toBe(30);
  });

  test('tells the tokens of its model alone', async () => {
    const encoder = await sparse();
    const { dimensions } = encoder.getModelInfo();
    const vector = (index: number) => ({ indices: Uint32Array.of(0, index), values: Float32Array.of(1, 2) });
    expect(encoder.decode(vector(dimensions - 1))).toHaveLength(2);
    for (const topK of [undefined, 1]) {
      const error = await failure(async () => encoder.decode(vector(dimensions), topK));
      expect([error.code, error.message]).toEqual(['INVALID_ARGUMENT', expect.stringContaining(`index ${dimensions}`)]);
    }
  });

  test('says how its texts were read', async () => {
    const encoder = await sparse();
    const texts = ['a', 'parse a json string '.repeat(200), 'a'];
    const [first, again] = [await encoder.embed(texts), await encoder.embed(texts)];
    expect(first.tokenCounts[1]).toBeGreaterThan(first.tokenCounts[0]!);
    expect([[...first.truncated], [...first.fromCache], [...again.fromCache]]).toEqual([[0, 1, 0], [0, 0, 0], [1, 1, 1]]);
    expect(Object.keys(first)).toEqual(['0', '1', '2']);
  });

  test('foretells no more than its vectors may have', async () => {
    const [words, model] = [await sparse({ modelPath: 'bm25' }), await sparse()];
    const { dimensions } = model.getModelInfo();
    expect(words.predict(1000, 10).memory.high).toBeLessThan(10e6);
    const before = model.predict(1000, 10).memory;
    await model.embed(['parse a json string']);
    const { expected, high } = model.predict(1000, 10).memory;
    expect(high - model.predict(0, 10).memory.high).toBeGreaterThanOrEqual(1000 * dimensions * 8);
    expect(expected).toBeLessThanOrEqual(before.expected);
  });

  test.each(['revision', 'dtype', 'maxLength', 'prompts', 'intraOpThreads', 'engine'])('counts words, and refuses what is said of models: %s', async (option) => {
    const values = { revision: 'main', dtype: 'fp16', maxLength: 8, prompts: { query: 'q: ' }, intraOpThreads: 1, engine: 'openvino' };
    const error = await failure(() => new SparseEncoder({ modelPath: 'bm25', [option]: values[option as keyof typeof values] }).initialize());
    expect([error.code, error.details.option]).toEqual(['INVALID_CONFIG', option]);
  });

  test.each([['k', 1.2], ['b', 0.75], ['averageLength', 256]])('refuses what is said of words for a model: %s', async (option, value) => {
    const error = await failure(() => new SparseEncoder({ modelPath: model('splade'), [option]: value }).initialize());
    expect([error.code, error.details.option]).toEqual(['INVALID_CONFIG', option]);
  });

  test('counts words as fastembed does', async () => {
    const encoder = await sparse({ modelPath: 'bm25' });
    for (const cached of [false, true]) {
      (await encoder.embed(golden.bm25.map(({ text }) => text))).forEach((vector, at) => {
        expect([...vector.indices]).toEqual(golden.bm25[at]!.indices);
        near(vector.values, golden.bm25[at]!.values);
      });
      expect(encoder.getPerformanceMetrics().cache.hitRatio > 0).toBe(cached);
    }
    const [query, nothing] = await encoder.embed(['the running Runners', 'the and of'], { inputType: 'query' });
    expect([...query!.values]).toEqual([1, 1]);
    expect(nothing!.indices).toHaveLength(0);
    expect(() => encoder.decode(query!)).toThrow('hashes of words');
  });

  test('weighs words by its parameters, which are part of its fingerprint', async () => {
    const [usual, flat] = [await sparse({ modelPath: 'bm25' }), await sparse({ modelPath: 'bm25', b: 0, k: 2 })];
    expect(flat.getModelInfo().fingerprint).not.toBe(usual.getModelInfo().fingerprint);
    const [vector] = await flat.embed(['word word']);
    near(vector!.values, [(2 * 3) / (2 + 2)]);
    expect(() => new SparseEncoder({ modelPath: 'bm25', b: 2 })).toThrow('`b`');
  });

  test('answers all but what cannot be read', async () => {
    const encoder = await sparse({ modelPath: 'bm25' });
    const [good, bad, empty] = await encoder.embed(['word', 1 as never, ' '], { onError: 'skip' });
    expect(good!.indices).toHaveLength(1);
    expect(bad).toMatchObject({ error: { code: 'INVALID_ARGUMENT' } });
    expect(empty!.error).toBeDefined();
  });
});

describe.each(golden.multiVector)('the late interaction model $name', ({ name, dimensions, inputs }) => {
  test.each(['query', 'document'] as const)('has a vector for each token of a %s as the reference does', async (inputType) => {
    const of = inputs.filter((input) => input.inputType === inputType);
    const encoder = await multi({ modelPath: model(name) });
    const alone = await multi({ modelPath: model(name), cache: false });
    for (let round = 0; round < 2; round++) {
      const vectors = await encoder.embed(of.map(({ text }) => text), { inputType });
      expect(vectors.dimensions).toBe(dimensions);
      expect(vectors.offsets).toHaveLength(of.length + 1);
      expect([...vectors.fromCache]).toEqual(of.map(() => round));
      of.forEach((input, at) => near(vectors.row(at), input.vectors.flat()));
    }
    for (const input of of) near((await alone.embed([input.text], { inputType })).data, input.vectors.flat());
  });
});

describe('late interaction', () => {
  const documents = golden.multiVector[0]!.inputs.filter((input) => input.inputType === 'document').map(({ text }) => text);

  test('ranks by the largest products of the query\'s vectors', async () => {
    const encoder = await multi();
    const query = await encoder.embed(['parse a json string'], { inputType: 'query' });
    const all = await encoder.embed(documents);
    const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, at) => sum + value * b[at]!, 0);
    const tokens = (row: Float32Array) => Array.from({ length: row.length / 16 }, (_, at) => row.subarray(at * 16, at * 16 + 16));
    const scores = documents.map((_, index) => tokens(query.row(0)).reduce((sum, one) => sum + Math.max(...tokens(all.row(index)).map((other) => dot(one, other))), 0));
    const expected = documents.map((_, index) => index).sort((a, b) => scores[b]! - scores[a]!);
    const found = await encoder.maxSim(query, all);
    expect(found.map(({ index }) => index)).toEqual(expected);
    near(found.map(({ score }) => score), expected.map((index) => scores[index]!));
    expect(await maxSim(query.row(0), all, { topK: 1 })).toEqual(found.slice(0, 1));
  });

  test('keeps fewer vectors of documents where it shall, and all of queries', async () => {
    const [all, few] = [await multi(), await multi({ poolFactor: 3 })];
    expect(few.getModelInfo().fingerprint).not.toBe(all.getModelInfo().fingerprint);
    const count = async (encoder: MultiVectorEncoder, inputType: 'query' | 'document') => (await encoder.embed([documents[0]!], { inputType })).offsets[1]!;
    expect(await count(few, 'document')).toBe(1 + Math.floor(((await count(all, 'document')) - 1) / 3));
    expect(await count(few, 'query')).toBe(await count(all, 'query'));
  });

  test('compares the vectors as they are when it is called, written over or transferred since', async () => {
    const query = { data: Float32Array.of(1, 0), offsets: Uint32Array.of(0, 1), dimensions: 2 };
    const all = { data: Float32Array.of(1, 0, 0, 1), offsets: Uint32Array.of(0, 1, 2), dimensions: 2 };
    const found = maxSim(query, all);
    query.data.fill(NaN);
    all.data.fill(NaN);
    structuredClone(all.data.buffer, { transfer: [all.data.buffer] });
    expect(await found).toEqual([{ index: 0, score: 1 }, { index: 1, score: 0 }]);
  });

  test.each([1, 64, 65, 300])('gives the same for a query of %s vectors, in memory of its own or shared', async (vectors) => {
    const dimensions = 3;
    const filled = (rows: number, shared: boolean) => {
      const data = new Float32Array(shared ? new SharedArrayBuffer(rows * dimensions * 4) : new ArrayBuffer(rows * dimensions * 4));
      for (let at = 0; at < data.length; at++) data[at] = Math.sin(at * 7919 + rows);
      return data;
    };
    const expected = Array.from({ length: 40 }, (_, document) => {
      const [query, all] = [filled(vectors, false), filled(200, false)];
      let sum = 0;
      for (let q = 0; q < vectors; q++) {
        let best = -Infinity;
        for (let d = document * 5; d < document * 5 + 5; d++) best = Math.max(best, [0, 1, 2].reduce((dot, at) => dot + query[q * 3 + at]! * all[d * 3 + at]!, 0));
        sum += best;
      }
      return sum;
    });
    for (const shared of [false, true]) {
      const all = { data: filled(200, shared), offsets: Uint32Array.from({ length: 41 }, (_, at) => at * 5), dimensions };
      const copies = filled(vectors, shared);
      const running = maxSim(copies, all);
      copies.fill(NaN);
      all.data.fill(NaN);
      for (const { index, score } of await running) expect(score).toBeCloseTo(expected[index]!, 3);
    }
  });

  test('compares what the offsets say, of the query, too', async () => {
    const vectors = (data: number[], offsets: number[]) => ({ data: Float32Array.from(data), offsets, dimensions: 2 }) as never;
    const all = vectors([1, 0, 0, 1, NaN, NaN], [0, 1, 2]);
    expect(await maxSim(vectors([1, 0, 0, 100], [0, 1]), all)).toEqual([{ index: 0, score: 1 }, { index: 1, score: 0 }]);
    expect(await maxSim(vectors([1, 0, NaN], [0, 1]), all)).toHaveLength(2);
    expect(await maxSim(vectors([1, 0], [0, 0]), all)).toEqual([{ index: 0, score: 0 }, { index: 1, score: 0 }]);
  });

  test('chooses the best of many as sorting all of them does', async () => {
    const count = 1000;
    const data = Float32Array.from({ length: count }, (_, at) => (at * 7919) % 101);
    const all = { data, offsets: Uint32Array.from({ length: count + 1 }, (_, at) => at), dimensions: 1 };
    const sorted = await maxSim(Float32Array.of(1), all);
    expect(sorted.map(({ index }) => index)).toEqual([...data.keys()].sort((a, b) => data[b]! - data[a]! || a - b));
    for (const topK of [1, 2, 3, 10, 99, 124, 125, 126, 999, 1000, 5000]) expect(await maxSim(Float32Array.of(1), all, { topK })).toEqual(sorted.slice(0, topK));
  });

  test('refuses sizes that contradict each other', async () => {
    const vectors = (data: number[], offsets: number[], dimensions = 2) => ({ data: Float32Array.from(data), offsets: Uint32Array.from(offsets), dimensions });
    const [query, all] = [vectors([1, 0], [0, 1]), vectors([1, 0, 0, 1], [0, 1, 2])];
    expect(await maxSim(query, all)).toEqual([{ index: 0, score: 1 }, { index: 1, score: 0 }]);
    expect(await maxSim(query, vectors([], [0]))).toEqual([]);
    expect(await maxSim(query, vectors([1, 0], [0, 0, 1]))).toEqual([{ index: 1, score: 1 }, { index: 0, score: 0 }]);
    for (const [work, message] of [
      [() => maxSim(all, all), 'not of one'],
      [() => maxSim(query, vectors([Number.POSITIVE_INFINITY, 0, 1, 0], [0, 2])), 'Document 0 has a value that is not'],
      [() => maxSim(query, vectors([1, 0, 0, Number.NEGATIVE_INFINITY, 1, 0], [0, 1, 3])), 'Document 1 has a value that is not'],
      [() => maxSim(query, { ...all, offsets: new DataView(new ArrayBuffer(8)) as never }), 'have offsets that are a DataView'],
      [() => maxSim(query, { ...all, offsets: BigUint64Array.of(0n, 1n) as never }), 'have offsets that are a BigUint64Array'],
      [() => maxSim(query, { ...all, data: Float64Array.of(1, 0, 0, 1) as never }), 'have data that is a Float64Array'],
      [() => maxSim(query, vectors([1, 0], [0, 2])), 'do not rise'],
      [() => maxSim(query, vectors([1, 0], [1, 0])), 'do not rise'],
      [() => maxSim(vectors([1], [0, 1], 1), all), 'take both from one model'],
      [() => maxSim(Float32Array.of(1), all), 'no whole number'],
      [() => maxSim(query, vectors([Number.NaN, 0], [0, 1])), 'not a finite number'],
      [() => maxSim(query, 'all' as never), 'are "all"'],
      [() => maxSim(query, all, { topK: -1 }), '`topK`'],
    ] as const) {
      const error = await failure(work);
      expect(error.message).toContain(message);
      expect(error.code).toMatch(/^INVALID_/);
    }
  });

  test('leaves errors in place of what cannot be read', async () => {
    const encoder = await multi();
    const vectors = await encoder.embed(['a', ''], { onError: 'skip' });
    expect([...vectors.errors.keys()]).toEqual([1]);
    expect(vectors.row(1)).toHaveLength(0);
    expect(() => vectors.row(2)).toThrow('Row 2 does not exist');
    expect(structuredClone({ ...vectors, errors: 0 }).offsets).toEqual(vectors.offsets);
  });
});

describe('kinds of models', () => {
  const classes = { OptimizedEmbeddingGenerator, CrossEncoder, SparseEncoder, MultiVectorEncoder };

  test.each([
    ['bert-mean', 'OptimizedEmbeddingGenerator'],
    ['cross-encoder', 'CrossEncoder'],
    ['splade', 'SparseEncoder'],
    ['colbert', 'MultiVectorEncoder'],
    ['colbert-pylate', 'MultiVectorEncoder'],
  ] as const)('%s is for %s, as every other class says', async (name, right) => {
    for (const [wrong, type] of Object.entries(classes)) {
      const encoder = new type({ modelPath: model(name) });
      onTestFinished(() => encoder.shutdown());
      if (wrong === right) await encoder.initialize();
      else {
        const error = await failure(() => encoder.initialize());
        expect(error.code).toBe('MODEL_INIT_FAILED');
        expect(error.message).toContain(right);
      }
    }
  });

  test.each(['CrossEncoder', 'SparseEncoder', 'MultiVectorEncoder'] as const)('%s is not what makes vectors of texts, nor a generator what others are', async (name) => {
    const other = new classes[name]({ modelPath: 'nowhere' });
    const generator = new OptimizedEmbeddingGenerator();
    const index = new CodeIndex(directory());
    for (const work of [
      () => new InferenceCache({ semantic: { embed: other as never } }),
      () => new EmbeddingCollection({ generator: other as never }),
      () => index.search('a', { rerank: (name === 'CrossEncoder' ? generator : other) as never }),
    ]) {
      const error = await failure(async () => work());
      expect(error.code).toBe('INVALID_CONFIG');
      expect(error.message).toMatch(/pass an? (OptimizedEmbeddingGenerator|CrossEncoder)$/);
    }
  });

  test.each(['CrossEncoder', 'SparseEncoder', 'MultiVectorEncoder'] as const)('a %s without a model says that there is none', async (name) => {
    const encoder = new classes[name]();
    const error = await failure(() => encoder.initialize());
    expect([error.code, error.details.option]).toEqual(['INVALID_CONFIG', 'modelPath']);
    expect((await failure(async () => encoder.getModelInfo())).message).toBe('No model is loaded yet: await initialize() first');
  });

  test('bm25 is for SparseEncoder', async () => {
    for (const type of [OptimizedEmbeddingGenerator, CrossEncoder, MultiVectorEncoder]) {
      const error = await failure(() => new type({ modelPath: 'bm25' }).initialize());
      expect([error.code, error.message]).toEqual(['MODEL_INIT_FAILED', expect.stringContaining('SparseEncoder')]);
    }
  });

  test('share a cache and never meet in it', async () => {
    const cache = new IntelligentEmbeddingCache();
    onTestFinished(() => cache.close());
    const shared = { cache };
    const [ranks, weighs, looks] = [await cross(shared), await sparse(shared), await multi(shared)];
    const embeds = await loaded(new OptimizedEmbeddingGenerator({ modelPath: model('bert-mean'), ...shared }));
    const all = () => Promise.all([ranks.score([['a', 'a']]), weighs.embed(['a']), looks.embed(['a']), embeds.embed(['a'])]);
    const first = await all();
    const again = await all();
    expect(again[0]).toEqual(first[0]);
    expect(again[1]).toEqual(first[1]);
    expect(again[2].data).toEqual(first[2].data);
    expect([...again[2].fromCache, ...again[3].fromCache]).toEqual([1, 1]);
  });
});
