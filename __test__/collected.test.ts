// What is closed, or forgotten, is freed: an object that something of ours held on to would stay as long as the process does.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { CodeIndex, DynamicBatchOptimizer, EmbeddingCollection, InferenceCache, IntelligentEmbeddingCache, MemoryAwareProcessor, OptimizedEmbeddingGenerator, PerformanceDashboard, PerformanceMonitor } from 'embedcore';
import { CoherenceEngine, DynamicSemanticCouncil } from 'embedcore/coherence';
import { HttpClient, OllamaClient } from 'embedcore/llm';
import { BatchFileProcessor, ParallelProcessor, ParallelValidator, RealtimeEvaluator } from 'embedcore/parallel';
import { expect, test } from 'vitest';

import { directory } from './files';
import { model } from './support';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

const MANY = 8;
const persistPath = () => join(directory(), 'cache.db');

/** Makes one and uses it; what is answered is all that is left of it. */
const MADE: Record<string, () => Promise<object>> = {
  'IntelligentEmbeddingCache, forgotten': async () => {
    const cache = new IntelligentEmbeddingCache({ logger: { info() {}, warn() {}, error() {}, debug() {} } });
    await cache.set('key', 'content', [1]);
    await cache.get('key', 'content');
    await cache.getMany([{ key: 'key', content: 'content' }]);
    return cache;
  },
  'IntelligentEmbeddingCache, closed': async () => {
    const cache = new IntelligentEmbeddingCache({ persistPath: persistPath() });
    await cache.getOrCompute('key', 'content', async () => [1]);
    await cache.close();
    return cache;
  },
  'InferenceCache, forgotten': async () => {
    const cache = new InferenceCache();
    const plus = cache.wrap(async (n: number) => n + 1, { name: 'plus' });
    await plus(1);
    return cache;
  },
  'InferenceCache, closed': async () => {
    const cache = new InferenceCache({ persistPath: persistPath(), semantic: { embed: async (texts) => texts.map(() => [1, 0]) } });
    await cache.set('content', 1);
    await cache.get('content');
    await cache.close();
    return cache;
  },
  'OptimizedEmbeddingGenerator, forgotten': async () => {
    const generator = new OptimizedEmbeddingGenerator({ modelPath: model('bert-mean') });
    await generator.initialize();
    await generator.embed(['text']);
    return generator;
  },
  'OptimizedEmbeddingGenerator, shut down': async () => {
    const generator = new OptimizedEmbeddingGenerator({ modelPath: model('bert-mean') });
    await generator.initialize();
    for await (const _ of generator.stream(['text'])) continue;
    await generator.shutdown();
    return generator;
  },
  'EmbeddingCollection, closed': async () => {
    const collection = new EmbeddingCollection({ path: persistPath() });
    await collection.upsert([{ id: 'a', embedding: [1, 0] }]);
    await collection.query([1, 0]);
    await collection.close();
    return collection;
  },
  'CodeIndex, closed': async () => {
    const root = join(directory(), 'root');
    mkdirSync(root);
    writeFileSync(join(root, 'a.ts'), 'export function a() {}');
    const index = new CodeIndex(root);
    await index.update();
    await index.search('a');
    await index.close();
    return index;
  },
  PerformanceMonitor: async () => {
    const monitor = new PerformanceMonitor();
    monitor.record('work', 1);
    return monitor;
  },
  'PerformanceDashboard, closed': async () => {
    const dashboard = new PerformanceDashboard({ monitor: new PerformanceMonitor() });
    await dashboard.close();
    return dashboard;
  },
  DynamicBatchOptimizer: async () => new DynamicBatchOptimizer(),
  MemoryAwareProcessor: async () => new MemoryAwareProcessor(),
  'ParallelProcessor, closed': async () => {
    const pool = new ParallelProcessor({ concurrency: 2 });
    await pool.map([1, 2], async (n: number) => n);
    await pool.close();
    return pool;
  },
  BatchFileProcessor: async () => {
    const files = new BatchFileProcessor();
    await files.readBatch([new URL(import.meta.url)]);
    return files;
  },
  ParallelValidator: async () => {
    const validator = new ParallelValidator();
    await validator.run([async () => 1]);
    return validator;
  },
  RealtimeEvaluator: async () => {
    const evaluator = new RealtimeEvaluator({ evaluate: () => ({ score: 1 }) });
    for await (const _ of evaluator.evaluateStream([1, 2])) continue;
    return evaluator;
  },
  CoherenceEngine: async () => new CoherenceEngine(),
  DynamicSemanticCouncil: async () => new DynamicSemanticCouncil({ planners: [{ name: 'one', plan: async () => ({}) }] }),
  'HttpClient, closed': async () => {
    const client = new HttpClient();
    await client.close();
    return client;
  },
  'OllamaClient, closed': async () => {
    const client = new OllamaClient();
    await client.close();
    return client;
  },
};

test.each(Object.entries(MADE))('%s', async (_, make) => {
  let collected = 0;
  const registry = new FinalizationRegistry(() => collected++);
  const one = async () => registry.register(await make(), undefined);
  for (let i = 0; i < MANY; i++) await one();
  // The latest one may still be in a register.
  await expect.poll(async () => {
    await sleep(10);
    collect();
    return collected;
  }).toBeGreaterThanOrEqual(MANY - 1);
});
