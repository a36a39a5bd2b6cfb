// Calls everything, rightly and wrongly, without a logger. Nothing may be printed; what failed is told by the exit code.
const { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const embedcore = require('../..');

const [modelPath] = process.argv.slice(2);
const home = mkdtempSync(join(tmpdir(), 'embedcore-quiet-'));
const annotation = { nodeId: 'a', signature: 'function a()', summary: 'Reads a file.' };
const vector = [0.6, 0.8];

/** Refusals that did not come. */
let missing = 0;

async function refuses(...all) {
  for (const work of all) {
    try {
      await work();
      missing++;
    } catch (error) {
      if (!(error instanceof embedcore.EmbeddingError)) missing++;
    }
  }
}

/** A tokenizer that contradicts itself, at which the library that reads it panics. */
function contradictory() {
  const directory = join(home, 'contradictory');
  cpSync(modelPath, directory, { recursive: true });
  const path = join(directory, 'tokenizer.json');
  const tokenizer = JSON.parse(readFileSync(path, 'utf8'));
  tokenizer.post_processor.single = [{ Sequence: { id: 'B', type_id: 0 } }];
  writeFileSync(path, JSON.stringify(tokenizer));
  return directory;
}

async function generator() {
  const { OptimizedEmbeddingGenerator, prepareText } = embedcore;
  const generator = new OptimizedEmbeddingGenerator({ modelPath, cache: { persistPath: join(home, 'vectors.sqlite') } });
  generator.getPerformanceMetrics();
  await refuses(
    () => generator.getModelInfo(),
    () => generator.embed(['a']),
    () => generator.initialize(join(home, 'nowhere')),
    () => generator.initialize('nobody/nothing@nowhere'),
    () => generator.initialize(contradictory()),
    () => new OptimizedEmbeddingGenerator({ pooling: 'sum' }),
    () => new OptimizedEmbeddingGenerator({ cache: {}, cacheConfig: {} }),
  );
  await generator.initialize();
  await generator.generateEmbeddings([annotation, annotation]);
  await generator.generateEmbeddings(['a', 'word '.repeat(5000)]);
  await generator.batchProcess([annotation], { memoryLimit: 512 });
  await generator.embed(['', 'b'], { onError: 'skip' });
  await generator.embedQuery('b');
  for await (const _ of generator.stream(['c', 'd'])) break;
  prepareText(annotation);
  generator.prepareText(annotation);
  await generator.optimizePerformance();
  await refuses(
    () => generator.embed(['']),
    () => generator.embed([1]),
    () => generator.embed(['a'.repeat(2 ** 20 + 1)]),
    () => generator.embed(['e'], { signal: AbortSignal.abort() }),
    () => generator.embed(Array.from({ length: 20_000 }, (_, i) => `text ${i}`), { timeoutMs: 1 }),
    () => generator.embed(['f'], { progressCallback: () => { throw new Error('on purpose'); } }),
    () => generator.batchProcess([{}]),
  );
  // Left behind: nobody waits for it.
  generator.embed(Array.from({ length: 5000 }, (_, i) => `left ${i}`)).catch(() => {});
  await generator.cleanup();
  await refuses(() => generator.embed(['a']));
  const [threads, memory] = [{ modelPath, intraOpThreads: 'auto' }, { modelPath, memoryLimit: 10 }];
  const other = new OptimizedEmbeddingGenerator(threads);
  await other.initialize();
  await other.shutdown();
  await refuses(() => new OptimizedEmbeddingGenerator(memory).initialize());
}

async function cache() {
  const { IntelligentEmbeddingCache, getEmbeddingCache, resetEmbeddingCache } = embedcore;
  writeFileSync(join(home, 'damaged.sqlite'), 'x'.repeat(100_000));
  for (const persistPath of [undefined, join(home, 'damaged.sqlite'), '/proc/no/such/place.sqlite', join(home, 'cache.sqlite')]) {
    const cache = new IntelligentEmbeddingCache({ maxEntries: 5, ...(persistPath && { persistPath }), hitRatioThreshold: 1 });
    for (let i = 0; i < 200; i++) {
      await cache.set(`${i}`, 'content', vector);
      await cache.get(`${i + 1000}`, 'content');
    }
    await cache.get({});
    await cache.getMany([{ key: '1', content: 'content' }]);
    await cache.findSimilar(vector);
    await cache.getOrCompute('x', 'content', () => vector);
    await refuses(
      () => cache.set('a', 'b', [NaN]),
      () => cache.set('a', 'b', []),
      () => cache.getOrCompute('y', 'content', () => Promise.reject(new embedcore.EmbeddingError('INTERNAL', 'on purpose'))),
    );
    await cache.optimize();
    // Where the file cannot be had, nobody can say that nothing is in it.
    await cache.clear().catch(() => {});
    cache.getPerformanceMetrics();
    await cache.close();
    await refuses(() => cache.get('a', 'b'));
  }
  await refuses(() => new IntelligentEmbeddingCache({ maxMemoryMB: 1, maxSizeBytes: 1 }));
  await getEmbeddingCache().set('a', 'b', vector);
  await resetEmbeddingCache();
}

async function others() {
  const { CodeIndex, DynamicBatchOptimizer, MemoryAwareProcessor, ModelStore, PerformanceDashboard, PerformanceMonitor, getGlobalMonitor, monitored } = embedcore;
  const optimizer = new DynamicBatchOptimizer(64, { minBatchSize: 64, maxBatchSize: 2 });
  for (let i = 0; i < 60; i++) optimizer.recordPerformance(optimizer.getCurrentBatchSize(), i, 2, i % 5 > 0);
  optimizer.optimize();
  optimizer.getPerformanceAnalytics();
  await refuses(() => optimizer.recordPerformance(NaN, 1, 1), () => new DynamicBatchOptimizer(0));
  const processor = new MemoryAwareProcessor({ memoryThresholds: { critical: 0, high: 0, normal: 0, low: 0 } });
  const fails = () => Promise.reject(new Error('on purpose'));
  await processor.processItems([1, 2, 3], async (batch) => batch);
  await processor.processWithMemoryAwareness({ items: [1, 2], processor: fails });
  await refuses(() => processor.processItems([1], fails), () => new MemoryAwareProcessor({ strategies: [] }));
  processor.getProcessingRecommendations();
  processor.stop();
  const monitor = new PerformanceMonitor({ persistPath: join(home, 'cycles.json') });
  await monitor.measure('one', async () => 1);
  monitor.measure('two', fails).catch(() => {});
  monitor.startCycle('cycle');
  getGlobalMonitor().record('three', 1);
  monitored();
  monitor.toPrometheus();
  const dashboard = new PerformanceDashboard({ monitor });
  const { url, close } = await dashboard.serve({ port: 0 });
  await fetch(`${url}/health`);
  await fetch(`${url}/nowhere`);
  await close?.();
  await new ModelStore({ cacheDir: join(home, 'models') }).list();
  writeFileSync(join(home, 'code.js'), '/** Reads. */\nfunction read() {}\n');
  const index = new CodeIndex(home);
  await index.update();
  await index.search('reads');
  await index.close();
  await refuses(() => new CodeIndex(join(home, 'nowhere')).update());
}

(async () => {
  await generator();
  await cache();
  await others();
  rmSync(home, { recursive: true, force: true });
  process.exitCode = missing;
})();
