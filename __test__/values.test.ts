// What calls give is plain: it can be written as JSON, cloned and sent to another thread. What they throw is what
// `instanceof` says, in other realms, threads and copies of this package, too.
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';

import {
  DynamicBatchOptimizer,
  EmbeddingError,
  EmbeddingGenerationError,
  IntelligentEmbeddingCache,
  MemoryAwareProcessor,
  MemoryLimitError,
  ModelInitializationError,
  type EmbeddingMatrix,
} from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { failure, model, ready, root } from './support';

const bert = { modelPath: model('bert-mean') };
const throughJson = <T>(value: T) => JSON.parse(JSON.stringify(value)) as T;

/** Every function, class instance or undefined value in `value` would be lost. */
function expectPlain(value: object): void {
  expect(throughJson(value)).toEqual(value);
  expect(structuredClone(value)).toEqual(value);
}

test('what calls give survives JSON and structuredClone', async () => {
  const generator = await ready(bert);
  const annotation = { nodeId: 'a', signature: 'function a()', summary: 'Reads a file.' };
  const results = await generator.generateEmbeddings([annotation]);
  expectPlain(results);
  expectPlain(await generator.generateEmbeddings(['a', 'b']));
  expectPlain(generator.getPerformanceMetrics());
  expectPlain(await generator.optimizePerformance());
  expectPlain(generator.getModelInfo());
  for await (const result of generator.stream([annotation])) expectPlain(result);

  const cache = new IntelligentEmbeddingCache();
  onTestFinished(() => cache.close());
  await cache.set('key', 'content', results[0]!.embedding, { metadata: { title: 'One' } });
  await cache.set(annotation, results[0]!);
  expectPlain((await cache.get('key', 'content'))!);
  expectPlain((await cache.get(annotation))!);
  expectPlain(await cache.findSimilar(results[0]!.embedding));
  expectPlain(cache.getStats());
  expectPlain(cache.getPerformanceMetrics());
  expectPlain(await cache.optimize());

  const optimizer = new DynamicBatchOptimizer();
  optimizer.recordPerformance(32, 10, 32);
  for (const value of [
    optimizer.getConfig(),
    optimizer.getOptimizationRecommendation(),
    optimizer.getPerformanceAnalytics(),
    optimizer.getCurrentSystemMetrics(),
  ]) {
    expectPlain(value);
  }

  const processor = new MemoryAwareProcessor();
  expectPlain(await processor.processWithMemoryAwareness({ items: [1, 2], processor: (batch: number[]) => batch }));
  expectPlain(processor.getCurrentMemoryMetrics());
  expectPlain(processor.getProcessingRecommendations());
  expectPlain(processor.selectOptimalStrategy({ memoryUsagePercent: 50 }));
});

test('matrices keep their values', async () => {
  const generator = await ready(bert);
  const matrix = await generator.embed(['a', '', 'b'], { onError: 'skip' });
  const clone = structuredClone(matrix) as EmbeddingMatrix;
  expect(clone).toMatchObject({ rows: 3, dimensions: 32, data: matrix.data, tokenCounts: matrix.tokenCounts });
  expect(clone.errors.get(1)!.message).toBe(matrix.errors.get(1)!.message);
  expect(throughJson<object>(matrix)).toEqual({
    rows: 3,
    dimensions: 32,
    data: [...matrix.data],
    tokenCounts: [...matrix.tokenCounts],
    truncated: [0, 0, 0],
    fromCache: [0, 0, 0],
    errors: [[1, matrix.errors.get(1)!.toJSON()]],
  });

  const cache = new IntelligentEmbeddingCache();
  onTestFinished(() => cache.close());
  await cache.set('key', 'content', [0.5, 0.25]);
  const found = await cache.getMany([{ key: 'other', content: '' }, { key: 'key', content: 'content' }]);
  const expected = { rows: 2, dimensions: 2, data: [0, 0, 0.5, 0.25], hits: [0, 1] };
  expect(throughJson<object>(found)).toEqual(expected);
  expect(structuredClone(found)).toEqual({ ...expected, data: Float32Array.from(expected.data), hits: Uint8Array.from(expected.hits) });
  expect(found.row(1)).toEqual(Float32Array.of(0.5, 0.25));
});

test('an error in JSON says what it is', async () => {
  const generator = await ready(bert);
  const { message } = await failure(() => generator.embed(['']));
  const error = throughJson<object>((await generator.embed([''], { onError: 'skip' })).errors.get(0)!);
  expect(error).toEqual({ name: 'EmbeddingError', message, code: 'INVALID_ARGUMENT', retryable: false, details: { index: 0 } });
});

const classes = { EmbeddingError, ModelInitializationError, EmbeddingGenerationError, MemoryLimitError };

/** The names of the classes that `error` is an instance of. */
const kinds = (error: unknown) => Object.entries(classes).flatMap(([name, type]) => (error instanceof type ? [name] : []));

test('errors of a worker are instances', async () => {
  const program = `
    const { OptimizedEmbeddingGenerator, MemoryLimitError } = require(${JSON.stringify(root)});
    new OptimizedEmbeddingGenerator({ modelPath: '/nowhere' }).initialize();`;
  const worker = new Worker(program, { eval: true });
  const error = await new Promise<EmbeddingError>((resolve) => worker.on('error', resolve));
  expect(error).toMatchObject({ code: 'MODEL_INIT_FAILED', retryable: false });
  expect(error.message).toContain('/nowhere');
  expect(kinds(error)).toEqual(['EmbeddingError', 'ModelInitializationError']);
});

test('errors of another realm and of another copy of the package are instances', async () => {
  const inRealm = runInNewContext(`
    class ModelInitializationError extends Error { name = 'ModelInitializationError'; code = 'MODEL_INIT_FAILED'; retryable = false; details = {}; }
    new ModelInitializationError('there')`) as unknown;
  expect(inRealm).not.toBeInstanceOf(Error);
  expect(kinds(inRealm)).toEqual(['EmbeddingError', 'ModelInitializationError']);

  const copy = mkdtempSync(join(tmpdir(), 'embedcore-copy-'));
  onTestFinished(() => rmSync(copy, { recursive: true, force: true }));
  cpSync(join(root, 'dist'), join(copy, 'dist'), { recursive: true });
  symlinkSync(join(root, 'npm'), join(copy, 'npm'));
  symlinkSync(join(root, 'models'), join(copy, 'models'));
  symlinkSync(join(root, 'package.json'), join(copy, 'package.json'));
  const other = createRequire(import.meta.url)(join(copy, 'dist', 'index.js')) as typeof import('embedcore');
  expect(other.EmbeddingError).not.toBe(EmbeddingError);
  const generator = new other.OptimizedEmbeddingGenerator();
  expect(kinds(await failure(() => generator.embed(['a'])))).toEqual(['EmbeddingError']);
  expect(kinds(await failure(() => generator.initialize('/nowhere')))).toEqual(['EmbeddingError', 'ModelInitializationError']);
  expect(kinds(new other.MemoryLimitError('full'))).toEqual(['EmbeddingError', 'MemoryLimitError']);
});

test('nothing else is an instance', () => {
  class Own extends EmbeddingError {}
  expect(new Own('INTERNAL', 'own')).toBeInstanceOf(Own);
  expect(kinds(new Own('INTERNAL', 'own'))).toEqual(['EmbeddingError']);
  expect(new EmbeddingError('INTERNAL', 'ours') instanceof Own).toBe(false);
  const like = new EmbeddingError('INTERNAL', 'x').toJSON();
  const fields = { code: 'X', retryable: false, details: {} };
  for (const value of [undefined, null, 1, 'EmbeddingError', {}, [], like, new Error('x'), Object.assign(new Error('x'), fields), Object.assign(new Error('x'), { name: 'EmbeddingError' })]) {
    expect(kinds(value)).toEqual([]);
  }
  // Narrowed by the type checker, too.
  const caught: unknown = new MemoryLimitError('full');
  if (caught instanceof MemoryLimitError) expect(caught.code).toBe('MEMORY_LIMIT_EXCEEDED');
  expect(kinds(new EmbeddingGenerationError('failed'))).toEqual(['EmbeddingError', 'EmbeddingGenerationError']);
});
