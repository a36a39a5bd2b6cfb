import * as embedcore from 'embedcore';
import { OptimizedEmbeddingGenerator, prepareText, type Annotation, type EmbeddingResult } from 'embedcore';
import { describe, expect, test } from 'vitest';

import { distance, failure, miniLm, hasShared, model, ready, texts } from './support';

const bert = { modelPath: model('bert-mean') };

const annotation = (nodeId: string, summary = `summary of ${nodeId}`): Annotation => ({
  nodeId,
  signature: `function ${nodeId}()`,
  summary,
  sourceSnippet: '{ return 1; } // one',
});

test('the package exports what the contract names', () => {
  expect(Object.keys(embedcore).sort()).toEqual([
    'AdaptiveProcessingConfig',
    'BatchOptimizerConfig',
    'CacheConfig',
    'CodeIndex',
    'CrossEncoder',
    'DynamicBatchOptimizer',
    'EmbeddingCollection',
    'EmbeddingConfig',
    'EmbeddingError',
    'EmbeddingGenerationError',
    'EmbeddingGenerator',
    'EmbeddingMatrix',
    'InferenceCache',
    'IntelligentEmbeddingCache',
    'MemoryAwareConfig',
    'MemoryAwareProcessor',
    'MemoryLimitError',
    'MemoryUsage',
    'ModelInitializationError',
    'ModelStore',
    'MultiVectorEncoder',
    'OptimizationConfig',
    'OptimizedEmbeddingGenerator',
    'PerformanceDashboard',
    'PerformanceMonitor',
    'PerformanceOptimizationConfig',
    'SparseEncoder',
    'communities',
    'cosine',
    'dedupe',
    'doctor',
    'dot',
    'getEmbeddingCache',
    'getGlobalMonitor',
    'kMeans',
    'maxSim',
    'mergeSnapshots',
    'monitored',
    'pairs',
    'prepareText',
    'profiled',
    'resetEmbeddingCache',
    'similarities',
    'splitText',
    'topK',
  ]);
});

describe('annotations', () => {
  test('every one is answered, in order, with what was embedded', async () => {
    const generator = await ready(bert);
    const annotations = Array.from({ length: 1200 }, (_, i) => annotation(`n${i % 700}`, 'word '.repeat(i % 13)));
    const results = await generator.generateEmbeddings(annotations);
    expect(results.map((result) => result.nodeId)).toEqual(annotations.map(({ nodeId }) => nodeId));
    for (const [i, result] of results.entries()) {
      expect(result.inputText).toBe(generator.prepareText(annotations[i]!));
      expect(Array.isArray(result.embedding) && result.embedding.length).toBe(32);
      expect(result.modelUsed).toBe(bert.modelPath);
      expect(result.processingTime).toBeGreaterThan(0);
    }
    expect(JSON.parse(JSON.stringify(results[0]))).toEqual(results[0]);
    expect(await generator.batchProcess(annotations.slice(0, 3), { memoryLimit: 512 })).toMatchObject(
      results.slice(0, 3).map(({ nodeId, inputText }) => ({ nodeId, inputText })),
    );
  });

  test('the caller may change its array and its objects meanwhile', async () => {
    const generator = await ready(bert);
    const annotations = Array.from({ length: 600 }, (_, i) => annotation(`n${i}`));
    const running = generator.generateEmbeddings(annotations);
    annotations[0]!.nodeId = 'changed';
    annotations.length = 1;
    const results = await running;
    expect(results.map((result) => result.nodeId)).toEqual(Array.from({ length: 600 }, (_, i) => `n${i}`));
    const strings = texts(10);
    const matrix = generator.embed(strings);
    strings.length = 0;
    expect((await matrix).rows).toBe(10);
  });

  test('a text that the preparation cut is reported as truncated', async () => {
    const generator = await ready(bert);
    // Words that the tokenizer takes for one unknown token each: few tokens, many characters.
    const [result] = await generator.generateEmbeddings([{ nodeId: 'n', signature: '', summary: `${'q'.repeat(150)} `.repeat(9) }]);
    expect(result!.tokenCount).toBeLessThan(64);
    expect(result!.truncated).toBe(true);
  });

  test('a text embedded as itself and as an annotation gives the same vector', async () => {
    const generator = await ready(bert);
    const [result] = await generator.generateEmbeddings([annotation('a')]);
    const [vector] = await generator.generateEmbeddings([result!.inputText]);
    expect(result!.embedding).toEqual(vector);
  });

  test('what is missing may be left out', async () => {
    const generator = await ready(bert);
    const results = await generator.generateEmbeddings([
      { nodeId: 'bare' } as Annotation,
      { nodeId: 'null', signature: null, summary: undefined } as unknown as Annotation,
    ]);
    expect(results.map((result) => result.inputText)).toEqual(['Node: bare', 'Node: null']);
  });

  test('confidence is the share of tokens that were seen and known', async () => {
    const generator = await ready(bert);
    const [known, unknown, cut] = (await generator.generateEmbeddings([
      { nodeId: '1', signature: '', summary: 'reads the file' },
      { nodeId: '2', signature: '', summary: '龘 靐 龘 靐' },
      { nodeId: '3', signature: '', summary: 'reads the file '.repeat(40) },
    ])) as [EmbeddingResult, EmbeddingResult, EmbeddingResult];
    expect(known.confidence).toBe(1);
    expect(unknown.confidence).toBeLessThan(0.7);
    expect(cut).toMatchObject({ truncated: true });
    // 3 tokens for each of the 40 repetitions, or as many of them as the preparation kept.
    expect(cut.confidence).toBeCloseTo((64 - 2) / (cut.tokenCount! - 2), 5);
    expect(cut.confidence).toBeLessThan(0.7);
  });
});

describe('prepareText', () => {
  test('is the same function with and without a model', async () => {
    const text = 'Signature: function a() | Summary: summary of a | Code: { return 1; }';
    expect(prepareText(annotation('a'))).toBe(text);
    expect(new OptimizedEmbeddingGenerator().prepareText(annotation('a'))).toBe(text);
    expect((await ready(bert)).prepareText(annotation('a'))).toBe(text);
  });

  test('is cut to the model, never inside a code point', () => {
    const long = { nodeId: 'n', signature: '', summary: '😀'.repeat(1000) };
    const text = prepareText(long, 4);
    expect([...text]).toHaveLength(32);
    expect(text.isWellFormed()).toBe(true);
  });
});

describe('texts', () => {
  test('matrix, arrays and rows agree', async () => {
    const generator = await ready(bert);
    const input = texts(40);
    const matrix = await generator.embed(input);
    expect(matrix).toMatchObject({ rows: 40, dimensions: 32 });
    expect(matrix.data).toBeInstanceOf(Float32Array);
    expect(matrix.data.length).toBe(40 * 32);
    expect(matrix.row(3).buffer).toBe(matrix.data.buffer);
    const arrays = await generator.generateEmbeddings(input);
    expect(arrays.map((array) => Float32Array.from(array))).toEqual(input.map((_, i) => Float32Array.from(matrix.row(i))));
    expect(distance(await generator.embedQuery(input[7]!), matrix.row(7))).toBeLessThanOrEqual(1e-6);
  });

  test('a large matrix is whole', async () => {
    const generator = await ready(bert);
    const input = texts(3000);
    const matrix = await generator.embed(input);
    for (const i of [0, 1, 1499, 2999]) {
      expect(distance(matrix.row(i), (await generator.embed([input[i]!])).row(0))).toBeLessThanOrEqual(1e-6);
    }
  });

  test('equal texts are computed once and all answered', async () => {
    const generator = await ready(bert);
    const results = await generator.generateEmbeddings(Array.from({ length: 50 }, () => annotation('same')));
    expect(new Set(results.map((result) => JSON.stringify(result.embedding))).size).toBe(1);
    // Their shares of the one run.
    expect(new Set(results.map((result) => result.processingTime)).size).toBe(1);
  });

  test('nothing in, nothing out', async () => {
    const generator = await ready(bert);
    expect(await generator.generateEmbeddings([])).toEqual([]);
    expect(await generator.embed([])).toMatchObject({ rows: 0, data: new Float32Array(0) });
  });

  test('lone surrogates count as U+FFFD, also where two texts meet', async () => {
    const generator = await ready(bert);
    const matrix = await generator.embed(['lone \ud83d', '\ude80 lone', 'lone \ufffd', '\ufffd lone']);
    expect(matrix.row(0)).toEqual(matrix.row(2));
    expect(matrix.row(1)).toEqual(matrix.row(3));
  });

  test('batchSize and maxConcurrency change speed, not vectors', async () => {
    const generator = await ready(bert);
    const input = texts(60);
    const plain = await generator.embed(input);
    const one = await generator.embed(input, { batchSize: 1, maxConcurrency: 1 });
    expect(distance(plain.data, one.data)).toBeLessThanOrEqual(1e-6);
  });

  test('dimensions truncates and keeps length 1', async () => {
    const full = await (await ready(bert)).embed(['a text']);
    const short = await (await ready({ ...bert, dimensions: 8 })).embed(['a text']);
    const norm = Math.hypot(...full.row(0).subarray(0, 8));
    expect(distance(short.row(0), full.row(0).subarray(0, 8).map((value) => value / norm))).toBeLessThanOrEqual(1e-6);
  });
});

describe('progress', () => {
  test('never goes back and ends with all', async () => {
    const generator = await ready(bert);
    const seen: number[] = [];
    const input = [...texts(300), ...texts(300)];
    await generator.embed(input, { progressCallback: (processed, total) => seen.push(processed, total) });
    const processed = seen.filter((_, i) => i % 2 === 0);
    expect(seen.filter((_, i) => i % 2 === 1).every((total) => total === 600)).toBe(true);
    expect(processed).toEqual(processed.toSorted((a, b) => a - b));
    expect(processed.at(-1)).toBe(600);
    expect(processed.length).toBeGreaterThan(1);
  });

  test('a callback that throws stops the call', async () => {
    const generator = await ready(bert);
    const cause = new Error('mine');
    const error = await failure(() =>
      generator.embed(texts(100), {
        progressCallback: () => {
          throw cause;
        },
      }),
    );
    expect(error).toMatchObject({ code: 'ABORTED', cause });
    expect((await generator.embed(['fine'])).rows).toBe(1);
  });
});

describe('stopping', () => {
  test('an aborted signal never starts', async () => {
    const generator = await ready(bert);
    const reason = new Error('changed my mind');
    const error = await failure(() => generator.embed(['a'], { signal: AbortSignal.abort(reason) }));
    expect(error).toMatchObject({ code: 'ABORTED', retryable: false, cause: reason });
  });

  test('abort during a call stops it and leaves the generator usable', async () => {
    const generator = await ready(bert);
    const controller = new AbortController();
    let processed = 0;
    const error = await failure(() =>
      generator.embed(texts(20_000), {
        signal: controller.signal,
        progressCallback: (done) => {
          processed = done;
          controller.abort();
        },
      }),
    );
    expect(error.code).toBe('ABORTED');
    expect(processed).toBeLessThan(20_000);
    expect((await generator.embed(['fine'])).rows).toBe(1);
  });

  test('abort after a call changes nothing', async () => {
    const generator = await ready(bert);
    const controller = new AbortController();
    const matrix = await generator.embed(['a'], { signal: controller.signal });
    controller.abort();
    expect(matrix.rows).toBe(1);
    expect((await generator.embed(['b'])).rows).toBe(1);
  });

  test('abort while texts are still tokenised', async () => {
    const generator = await ready(bert);
    // Some forty seconds of tokenising on one core; nobody waits for all of it.
    const long = Array.from({ length: 150 }, (_, i) => `${i} ${'reads a file '.repeat(80_000)}`);
    const begun = performance.now();
    await generator.embed(long.slice(0, 10));
    const ten = performance.now() - begun;
    const started = performance.now();
    expect(await failure(() => generator.embed(long, { timeoutMs: 200 }))).toMatchObject({ code: 'TIMED_OUT' });
    expect(performance.now() - started).toBeLessThan(200 + 10 * ten);
    expect((await generator.embed(['fine'])).rows).toBe(1);
  });

  test('timeoutMs gives up', async () => {
    const generator = await ready(bert);
    const error = await failure(() => generator.embed(texts(50_000), { timeoutMs: 20 }));
    expect(error).toMatchObject({ code: 'TIMED_OUT', retryable: true, details: { timeoutMs: 20 } });
    expect((await generator.embed(['fine'], { timeoutMs: 10_000 })).rows).toBe(1);
  });

  test.runIf(hasShared)('a running inference is terminated, not waited for', async () => {
    const generator = await ready({ modelPath: miniLm, cache: false });
    // 64 texts of 256 tokens: about a second of work in flight.
    const long = Array.from({ length: 64 }, (_, i) => `${i} ${'word '.repeat(400)}`);
    await generator.embed(long.slice(0, 2));
    const started = performance.now();
    await generator.embed(long);
    const full = performance.now() - started;
    // The shortest of some: whatever else this machine does may hold up one of them.
    let shortest = Infinity;
    for (let i = 0; i < 4; i++) {
      const aborted = performance.now();
      expect(await failure(() => generator.embed(long, { signal: AbortSignal.timeout(30) }))).toMatchObject({ code: 'ABORTED' });
      shortest = Math.min(shortest, performance.now() - aborted);
    }
    expect(shortest).toBeLessThan(30 + full / 2);
  });
});

describe('onError: skip', () => {
  test('answers every input', async () => {
    const generator = await ready(bert);
    const input = ['fine', '', 'x'.repeat((1 << 20) + 1), 'also fine', ''];
    const matrix = await generator.embed(input, { onError: 'skip' });
    expect([...matrix.errors.keys()].sort()).toEqual([1, 2, 4]);
    expect(matrix.errors.get(1)).toMatchObject({ code: 'INVALID_ARGUMENT', details: { index: 1 } });
    // Equal texts share one fate, each error names its own position.
    expect(matrix.errors.get(4)).toMatchObject({ code: 'INVALID_ARGUMENT', details: { index: 4 } });
    expect(matrix.errors.get(2)).toMatchObject({ code: 'INPUT_TOO_LONG', details: { index: 2, limit: 1 << 20 } });
    expect(matrix.row(1).every((value) => value === 0)).toBe(true);
    expect(distance(matrix.row(3), (await generator.embed(['also fine'])).row(0))).toBeLessThanOrEqual(1e-6);
    const arrays = await generator.generateEmbeddings(input, { onError: 'skip' });
    expect(arrays.map((array) => array.length)).toEqual([32, 0, 0, 32, 0]);
  });
});

describe('life', () => {
  test('many callers at once', async () => {
    const generator = await ready(bert);
    const input = texts(30);
    const expected = await generator.embed(input);
    const matrices = await Promise.all(Array.from({ length: 100 }, (_, i) => generator.embed(input.slice(i % 30))));
    for (const [i, matrix] of matrices.entries()) {
      expect(distance(matrix.data, expected.data.subarray((i % 30) * 32))).toBeLessThanOrEqual(1e-6);
    }
  });

  test('initialize may be called many times; another model replaces the first', async () => {
    const generator = new OptimizedEmbeddingGenerator(bert);
    expect(generator.isReady()).toBe(false);
    await Promise.all([generator.initialize(), generator.initialize(), generator.initialize()]);
    expect(generator.isReady()).toBe(true);
    const running = generator.embed(texts(500));
    await generator.initialize(model('bert-cls'));
    expect(generator.getModelInfo()).toMatchObject({ pooling: 'cls', normalize: false, modelId: model('bert-cls') });
    expect((await running).rows).toBe(500);
    await generator.shutdown();
  });

  test('a failed initialize keeps the model that was there', async () => {
    const generator = await ready(bert);
    await failure(() => generator.initialize(model('bert-nan')));
    expect(generator.getModelInfo().modelId).toBe(bert.modelPath);
    expect((await generator.embed(['fine'])).rows).toBe(1);
  });

  test('before initialize and after cleanup there is a clear error; initialize brings it back', async () => {
    const generator = new OptimizedEmbeddingGenerator(bert);
    expect(await failure(() => generator.embed(['a']))).toMatchObject({ code: 'NOT_INITIALIZED' });
    expect(await failure(() => generator.getModelInfo())).toMatchObject({ code: 'NOT_INITIALIZED' });
    await generator.cleanup();
    await generator.initialize();
    await generator.cleanup();
    await generator.cleanup();
    expect(generator.isReady()).toBe(false);
    expect(await failure(() => generator.generateEmbeddings(['a']))).toMatchObject({ code: 'CLOSED' });
    await generator.initialize();
    expect((await generator.embed(['a'])).rows).toBe(1);
    await generator[Symbol.asyncDispose]();
  });

  test('cleanup stops running calls', async () => {
    const generator = await ready(bert);
    const running = failure(() => generator.embed(texts(50_000)));
    await new Promise((resolve) => setTimeout(resolve, 30));
    await generator.cleanup();
    expect(await running).toMatchObject({ code: 'CLOSED' });
  });

  test('cleanup stops calls on a model that was replaced, too', async () => {
    const generator = await ready(bert);
    const running = failure(() => generator.embed(texts(50_000)));
    await generator.initialize(model('bert-cls'));
    await generator.cleanup();
    expect(await running).toMatchObject({ code: 'CLOSED' });
  });

  test('a prompt chosen by its name is put before all texts, and must be one of the model\'s', async () => {
    const modelPath = model('bert-prompts');
    const [own, chosen] = await Promise.all([ready({ modelPath }), ready({ modelPath, promptName: 'query' })]);
    const query = await own.embedQuery('a');
    expect((await chosen.embed(['a'])).row(0)).toEqual(query);
    expect(await chosen.embedQuery('a')).toEqual(query);
    expect(chosen.getModelInfo().fingerprint).not.toBe(own.getModelInfo().fingerprint);
    const error = await failure(() => new OptimizedEmbeddingGenerator({ modelPath, promptName: 'clustering' }).initialize());
    expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'promptName' } });
    expect(error.message).toContain("'document', 'query'");
  });

  test('prompts are merged with the model\'s own', async () => {
    const modelPath = model('bert-prompts');
    const plain = await ready({ modelPath });
    const changed = await ready({ modelPath, prompts: { query: 'other: ' } });
    const vectors = async (generator: OptimizedEmbeddingGenerator) => [(await generator.embed(['a'])).row(0), await generator.embedQuery('a')] as const;
    const [[document, query], [same, other]] = [await vectors(plain), await vectors(changed)];
    expect(distance(same, document)).toBeLessThanOrEqual(1e-6);
    expect(distance(other, query)).toBeGreaterThan(1e-3);
  });

  test('the fingerprint tells embedding spaces apart', async () => {
    const options = [bert, { ...bert, dimensions: 8 }, { ...bert, maxLength: 32 }, { ...bert, pooling: 'max' as const }, { modelPath: model('bert-max') }];
    const prints = await Promise.all(options.map(async (option) => (await ready(option)).getModelInfo().fingerprint));
    expect(new Set(prints).size).toBe(prints.length);
    expect((await ready(bert)).getModelInfo().fingerprint).toBe(prints[0]);
  });
});
