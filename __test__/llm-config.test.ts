import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { DynamicBatchOptimizer, InferenceCache, IntelligentEmbeddingCache, MemoryAwareProcessor, OptimizedEmbeddingGenerator } from 'embedcore';
import { HttpClient, loadPerformanceConfig, OllamaClient } from 'embedcore/llm';
import { ParallelProcessor } from 'embedcore/parallel';
import * as fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';

import { ollama } from './loopback/ollama';
import { loopback } from './loopback/server';
import { failure } from './support';

const folder = mkdtempSync(join(tmpdir(), 'embedcore-config-'));
let files = 0;

/** The path of a file with this in it. */
function file(content: string | Buffer | object): string {
  const path = join(folder, `${files++}.json`);
  writeFileSync(path, typeof content === 'string' || Buffer.isBuffer(content) ? content : JSON.stringify(content));
  return path;
}

const EVERYTHING = `\uFEFF// Settings of everything.
{
  "_remark": "nobody reads this",
  "inference": { "temperature": 0, "max_tokens": 256, "num_ctx": 4096, "keepAlive": "10m", "stop": ["//", "/* no comment */"], },
  "caching": {
    "maxMemoryMB": 20, "max_entries": 500,   /* both spellings,
      in one section */
    "ttl_text_inference": 60, "ttl_vision_inference": 120, "ttlAudioInference": 180, "ttl_own": 1,
    "ttl_seconds": 240,
    "ttl_seconds_by_type": { "other_type": 7 },
    "_ttl_ignored": "x",
  },
  "networking": { "max_concurrent_requests": 8, "per_host_limit": 2, "connect_timeout_ms": 1000, "read_timeout_ms": 5000, "retry_attempts": 2, "retry_backoff_ms": [1, 2], "retry_on": [503], "proxy": false },
  "ollama": { "base_url": "http://localhost:11434/", "model": "llama3.2", "num_thread": 2, "defaults": { "seed": 3 } },
  "workers": { "max_workers": 2, "chunk_size": 4 },
  "cache": { "max_entries": 10, "ttl_seconds": 5 },
  "batch_optimizer": { "min_batch_size": 2, "maxBatchSize": 64 },
  "memoryProcessor": { "memory_thresholds": { "critical": 90 }, "enable_gc_hints": false, "strategies": [{ "name": "a", "max_batch_size": 1, "approach": "sequential", "memory_overhead": 1, "cpu_overhead": 1, "cleanup_frequency": 1 }] },
  "model": { "model_path": "builtin", "dimensions": 64, "prompts": { "query": "find: " }, "cache": { "max_memory_mb": 5 }, "batch_optimizer": false },
}
`;

test('one file for all, in either spelling, with comments', () => {
  expect(loadPerformanceConfig(file(EVERYTHING))).toEqual({
    inference: { temperature: 0, maxTokens: 256, numCtx: 4096, keepAlive: '10m', stop: ['//', '/* no comment */'] },
    caching: { maxMemoryMB: 20, maxEntries: 500, ttlSeconds: 240, ttlSecondsByType: { text_inference: 60, vision_inference: 120, audio_inference: 180, own: 1, other_type: 7 } },
    networking: { maxConcurrentRequests: 8, perHostLimit: 2, connectTimeoutMs: 1000, readTimeoutMs: 5000, retryAttempts: 2, retryBackoffMs: [1, 2], retryOn: [503], proxy: false },
    ollama: { baseUrl: 'http://localhost:11434/', model: 'llama3.2', defaults: { temperature: 0, maxTokens: 256, numCtx: 4096, keepAlive: '10m', stop: ['//', '/* no comment */'], numThread: 2, seed: 3 } },
    workers: { concurrency: 2, chunkSize: 4 },
    cache: { maxEntries: 10, ttlSeconds: 5 },
    batchOptimizer: { minBatchSize: 2, maxBatchSize: 64 },
    memoryProcessor: { memoryThresholds: { critical: 90 }, enableGcHints: false, strategies: [{ name: 'a', maxBatchSize: 1, approach: 'sequential', memoryOverhead: 1, cpuOverhead: 1, cleanupFrequency: 1 }] },
    model: { modelPath: 'builtin', dimensions: 64, prompts: { query: 'find: ' }, cache: { maxMemoryMB: 5 }, batchOptimizer: false },
  });
});

test('every part goes straight into its constructor, and does there what it says', async () => {
  for (const path of [file(EVERYTHING), file('{}')]) {
    const config = loadPerformanceConfig(path);
    const http = new HttpClient(config.networking);
    const results = new InferenceCache(config.caching);
    const client = new OllamaClient({ ...config.ollama, http, cache: results, monitor: false });
    const own = new OllamaClient(config.ollama);
    const workers = new ParallelProcessor(config.workers);
    const cache = new IntelligentEmbeddingCache(config.cache);
    const optimizer = new DynamicBatchOptimizer(32, config.batchOptimizer);
    const processor = new MemoryAwareProcessor(config.memoryProcessor);
    const generator = new OptimizedEmbeddingGenerator(config.model);
    expect(await workers.map([1, 2], (n) => n * 2)).toEqual([2, 4]);
    await generator.initialize();
    expect((await generator.embedQuery('a')).length).toBe(config.model.dimensions ?? 256);
    processor.stop();
    if (config.caching.maxEntries !== undefined) {
      expect(results.getStats()).toMatchObject({ maxEntries: 500, maxSizeBytes: 20 * 1024 * 1024 });
      await results.set('a', 1, { type: 'own' });
      const found = (await results.get('a', { type: 'own' }))!;
      expect(found.expiresAt! - found.createdAt).toBe(1000);
      expect(optimizer.getConfig()).toMatchObject({ minBatchSize: 2, maxBatchSize: 64 });
    }
    await Promise.all([http.close(), client.close(), own.close(), results.close(), workers.close(), cache.close(), generator.cleanup()]);
  }
  const server = await loopback({ apis: [ollama()] });
  const config = loadPerformanceConfig(file({ inference: { temperature: 0 }, ollama: { baseUrl: server.url, model: 'llama3.2', max_tokens: 9 } }));
  await using client = new OllamaClient({ ...config.ollama, monitor: false });
  await client.generate('why');
  expect(server.requests[0]!.json.options).toEqual({ temperature: 0, num_predict: 9 });
});

test('the environment names a default; without it, all is empty', () => {
  const before = process.env.EMBEDCORE_CONFIG;
  onTestFinished(() => void (before === undefined ? delete process.env.EMBEDCORE_CONFIG : (process.env.EMBEDCORE_CONFIG = before)));
  delete process.env.EMBEDCORE_CONFIG;
  expect(loadPerformanceConfig()).toEqual({ inference: {}, caching: {}, networking: {}, ollama: { defaults: {} }, workers: {}, cache: {}, batchOptimizer: {}, memoryProcessor: {}, model: {} });
  process.env.EMBEDCORE_CONFIG = file({ networking: { retryAttempts: 9 } });
  expect(loadPerformanceConfig().networking).toEqual({ retryAttempts: 9 });
  const other = file({ networking: { retryAttempts: 8 } });
  expect(loadPerformanceConfig(other).networking).toEqual({ retryAttempts: 8 });
  expect(loadPerformanceConfig(pathToFileURL(other)).networking).toEqual({ retryAttempts: 8 });
});

test.each([
  [{ netwroking: {} }, /netwroking.*did you mean `networking`/],
  [{ batch_optimiser: {} }, /did you mean `batch_optimizer`/],
  [{ networking: { max_concurent_requests: 1 } }, /networking\.max_concurent_requests.*did you mean `max_concurrent_requests`.*maxConcurrentRequests/],
  [{ networking: { perHostLimits: 1 } }, /did you mean `perHostLimit`/],
  [{ networking: { per_host_limit: '6' } }, /networking\.per_host_limit: "6" is not a number/],
  [{ networking: { retry_backoff_ms: [100, 'x'] } }, /networking\.retry_backoff_ms\[1\]: "x"/],
  [{ networking: { retry_backoff_ms: 100 } }, /retry_backoff_ms: 100 is not a list/],
  [{ networking: [] }, /networking: an array of 0 is not an object/],
  [{ networking: null }, /networking: null/],
  [{ networking: { perHostLimit: 1, per_host_limit: 1 } }, /given as perHostLimit, too/],
  [{ caching: { ttl_text_inference: 'long' } }, /caching\.ttl_text_inference: "long" is not a number/],
  [{ caching: { ttl_x: 1, ttlX: 2 } }, /caching\.ttlX/],
  [{ caching: { logger: {} } }, /caching\.logger/],
  [{ ollama: { temprature: 1 } }, /ollama\.temprature/],
  [{ inference: { temprature: 1 } }, /did you mean `temperature`/],
  [{ workers: { max_workers: 2, concurrency: 2 } }, /given as max_workers, too/],
  [{ cache: { vector_precision: 'f8' } }, /cache\.vector_precision: "f8" is not one of "f32", "f16"/],
  [{ memory_processor: { memory_thresholds: { hot: 1 } } }, /memory_processor\.memory_thresholds\.hot/],
  [{ model: { cache: { maxEntires: 1 } } }, /model\.cache\.maxEntires.*maxEntries/],
  [[], /not an object/],
  ['"text"', /not an object/],
  ['', /line 1/],
  ['{ "a": ', /line 1, column \d+/],
  ['{\n  "caching": {\n    max_entries: 1\n  }\n}', /line 3, column 5/],
  ['{ "caching": {} /* open', /comment is not closed.* line 1, column 17/],
  ['{ "caching": ,, }', /line 1/],
  ['[,]', /line 1/],
  ['{ "caching": { "max_entries": 1, , } }', /line 1/],
])('%j is refused by its name', async (content, message) => {
  const path = file(content);
  const error = await failure(() => loadPerformanceConfig(path));
  expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { path }, message: expect.stringMatching(message) });
  expect(error.message).toContain(path);
});

test.each([
  [{ ollama: { temprature: 0 } }, /ollama\.temprature.*did you mean `temperature`/],
  [{ workers: { max_wrokers: 4 } }, /workers\.max_wrokers.*did you mean `max_workers`/],
  [{ inference: { temperature: -5 } }, /inference\.temperature: -5/],
  ['{ "inference": { "temperature": 1e999 } }', /inference\.temperature: Infinity/],
  [{ ollama: { top_p: 2 } }, /ollama\.top_p: 2/],
  [{ ollama: { defaults: { keep_alive: 'soon' } } }, /ollama\.defaults\.keep_alive: "soon"/],
  [{ networking: { retry_attempts: 0 } }, /networking\.retry_attempts: 0/],
  [{ caching: { ttl_x: -5 } }, /caching\.ttl_x: -5/],
  [{ workers: { max_workers: 0 } }, /workers\.max_workers: 0/],
  [{ caching: { ttl_text: 5, ttlSecondsByType: { text: 6 } } }, /caching\.ttlSecondsByType.*given as ttl_text, too/],
  [{ caching: { ttlSecondsByType: { text: 6 }, ttl_text: 5 } }, /caching\.ttl_text.*too/],
  [{ ollama: { seed: 5, defaults: { seed: 6 } } }, /ollama\.defaults.*given as seed, too/],
  [{ ollama: { headers: { authorization: 12345678 } } }, /headers\.authorization: it is not a string$/],
])('%j is refused where it stands', async (content, message) => {
  const error = await failure(() => loadPerformanceConfig(file(content)));
  expect(error).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringMatching(message) });
  expect(error.message).not.toContain('12345678');
});

test('what a constructor refuses is refused with the place in the file', async () => {
  const closed = async (made: { close?(): unknown; stop?(): unknown; cleanup?(): unknown }) => void (await (made.close?.() ?? made.stop?.() ?? made.cleanup?.()));
  const strategy = { name: 'a', maxBatchSize: 1, approach: 'sequential', memoryOverhead: 1, cpuOverhead: 1, cleanupFrequency: 1 };
  const sections: [(options: object) => object, string[], (config: ReturnType<typeof loadPerformanceConfig>) => object][] = [
    [(own) => ({ caching: own }), ['maxEntries', 'maxMemoryMB', 'ttlSeconds', 'ttl_x', 'maxValueMB', 'maintenanceInterval'], ({ caching }) => new InferenceCache(caching)],
    [(own) => ({ networking: own }), ['maxConcurrentRequests', 'perHostLimit', 'connectTimeoutMs', 'readTimeoutMs', 'retryAttempts', 'maxResponseMB'], ({ networking }) => new HttpClient(networking)],
    [(own) => ({ ollama: own }), ['temperature', 'maxTokens', 'numCtx', 'numThread', 'seed', 'topP', 'topK', 'ttlSeconds'], ({ ollama: own }) => new OllamaClient(own)],
    [(own) => ({ workers: own }), ['concurrency', 'chunkSize', 'timeoutMs', 'batchSize'], ({ workers }) => new ParallelProcessor(workers)],
    [(own) => ({ cache: own }), ['maxEntries', 'maxMemoryMB', 'maxSizeBytes', 'ttlSeconds', 'ttlMs', 'maintenanceInterval', 'hitRatioThreshold'], ({ cache }) => new IntelligentEmbeddingCache(cache)],
    [(own) => ({ batchOptimizer: own }), ['minBatchSize', 'maxBatchSize', 'targetCpuUsage', 'targetMemoryUsage', 'minSamples', 'historyRetention', 'aggressiveness'], ({ batchOptimizer }) => new DynamicBatchOptimizer(32, batchOptimizer)],
    [(own) => ({ memoryProcessor: own }), ['monitoringInterval', 'cleanupThreshold', 'gcThreshold', 'emergencyCleanupThreshold', 'memoryBuffer'], ({ memoryProcessor }) => new MemoryAwareProcessor(memoryProcessor)],
    [(own) => ({ memoryProcessor: { strategies: [{ ...strategy, ...own }] } }), ['maxBatchSize', 'memoryOverhead', 'cpuOverhead', 'cleanupFrequency'], ({ memoryProcessor }) => new MemoryAwareProcessor(memoryProcessor)],
    [(own) => ({ model: own }), ['dimensions', 'maxLength', 'memoryLimit', 'intraOpThreads', 'deviceMemoryLimit'], ({ model }) => new OptimizedEmbeddingGenerator(model)],
  ];
  let [taken, refused] = [0, 0];
  for (const [within, names, make] of sections) {
    for (const name of names) {
      for (const value of [-1, 0, 0.5, 1, 101, 2 ** 60]) {
        let config;
        try {
          config = loadPerformanceConfig(file(within({ [name]: value })));
        } catch (error) {
          expect(error).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining(`${name}: ${value} is not a`) });
          refused++;
          continue;
        }
        // What the file may say, the constructor takes.
        await closed(make(config));
        taken++;
      }
    }
  }
  expect(taken).toBeGreaterThan(100);
  expect(refused).toBeGreaterThan(100);
});

test('a file that is none, a folder, other encodings', async () => {
  expect(await failure(() => loadPerformanceConfig(join(folder, 'none.json')))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining('none.json') });
  expect(await failure(() => loadPerformanceConfig(folder))).toMatchObject({ code: 'INVALID_CONFIG' });
  // What never ends is not read.
  if (process.platform !== 'win32') expect(await failure(() => loadPerformanceConfig('/dev/zero'))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining('not a file') });
  expect(await failure(() => loadPerformanceConfig(3 as unknown as string))).toMatchObject({ code: 'INVALID_CONFIG' });
  expect(await failure(() => loadPerformanceConfig(''))).toMatchObject({ code: 'INVALID_CONFIG' });
  expect(loadPerformanceConfig(file(Buffer.from('\uFEFF{ "cache": { "namespace": "ü" } }', 'utf16le'))).cache).toEqual({ namespace: 'ü' });
  expect(loadPerformanceConfig(file('\uFEFF{ "cache": { "namespace": "ü", }, }')).cache).toEqual({ namespace: 'ü' });
  const { cache } = loadPerformanceConfig(file('{ "cache": { "__proto__": { "maxEntries": 1 } }, "__proto__": { "model": {} } }'));
  expect([cache, cache.maxEntries]).toEqual([{}, undefined]);
});

test('whatever JSON says, its commented form says, too', () => {
  const space = fc.constantFrom('', ' ', '\n', ' // a "comment", }\n', '/* { [ , */', '/**/', '/* * ** */');
  fc.assert(fc.property(fc.dictionary(fc.string().filter((name) => name !== '__proto__'), fc.oneof(fc.integer(), fc.string(), fc.array(fc.string()))), fc.array(space, { minLength: 20, maxLength: 20 }), fc.boolean(), (value, spaces, trailing) => {
    let at = 0;
    const pad = () => spaces[at++ % spaces.length]!;
    const write = (part: unknown): string => {
      if (Array.isArray(part)) return `[${part.map((each) => pad() + write(each) + pad()).join()}${trailing && part.length > 0 ? `,${pad()}` : ''}]`;
      if (typeof part === 'object' && part !== null) {
        const entries = Object.entries(part).map(([name, each]) => `${pad()}${JSON.stringify(name)}${pad()}:${pad()}${write(each)}`);
        return `{${entries.join()}${trailing && entries.length > 0 ? `,${pad()}` : ''}${pad()}}`;
      }
      return JSON.stringify(part);
    };
    // Headers have names and values of the caller's own.
    const texts = Object.fromEntries(Object.entries(value).filter(([name]) => !name.startsWith('_')).map(([name, each]) => [name, JSON.stringify(each)]));
    const path = join(folder, 'property.json');
    writeFileSync(path, write({ ollama: { headers: texts } }));
    expect(loadPerformanceConfig(path).ollama.headers).toEqual(texts);
  }), { numRuns: 200 });
  rmSync(folder, { recursive: true, force: true });
});
