// How options are read, of all classes and methods that take any: in the same way.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runInNewContext } from 'node:vm';

import {
  CodeIndex,
  communities,
  CrossEncoder,
  dedupe,
  doctor,
  DynamicBatchOptimizer,
  EmbeddingCollection,
  EmbeddingError,
  EmbeddingMatrix,
  getEmbeddingCache,
  InferenceCache,
  IntelligentEmbeddingCache,
  kMeans,
  maxSim,
  MemoryAwareProcessor,
  ModelStore,
  monitored,
  MultiVectorEncoder,
  OptimizedEmbeddingGenerator,
  pairs,
  PerformanceDashboard,
  PerformanceMonitor,
  profiled,
  resetEmbeddingCache,
  similarities,
  SparseEncoder,
  splitText,
  topK,
  type GeneratorOptions,
} from 'embedcore';
import { createEmbedcore } from 'embedcore/ai-sdk';
import { cachedCall, HttpClient, LlmRouter, OllamaClient } from 'embedcore/llm';
import { EmbeddingQueue, EmbeddingWorker } from 'embedcore/queue';
import { CoherenceEngine, coherenceMetrics, ContentFusionAgent, DynamicSemanticCouncil, PromptAnalyzer } from 'embedcore/coherence';
import { BatchFileProcessor, batchProcess, parallelMap, ParallelProcessor, ParallelValidator, RealtimeEvaluator } from 'embedcore/parallel';
import { EmbeddingServer, serve } from 'embedcore/server';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { limits } from './prose';
import { cosine, failure, model, root } from './support';

const bert = { modelPath: model('bert-mean') };
const folder = mkdtempSync(join(tmpdir(), 'embedcore-options-'));
const annotation = { nodeId: 'a', signature: 'fn a()', summary: '' };

let generator: OptimizedEmbeddingGenerator;
let images: OptimizedEmbeddingGenerator;
const reranker = new CrossEncoder({ modelPath: model('cross-encoder') });
const words = new SparseEncoder({ modelPath: 'bm25' });
const late = new MultiVectorEncoder({ modelPath: model('colbert') });
const cache = new IntelligentEmbeddingCache();
const results = new InferenceCache();
const optimizer = new DynamicBatchOptimizer();
const processor = new MemoryAwareProcessor();
const monitor = new PerformanceMonitor();
const dashboard = new PerformanceDashboard({ monitor });
const index = new CodeIndex(folder, { path: join(folder, 'index.sqlite') });
const sources = mkdtempSync(join(tmpdir(), 'embedcore-options-'));
writeFileSync(join(sources, 'place.js'), 'function place() {\n  return 1;\n}\n');
const placed = new CodeIndex(sources);
const store = new ModelStore({ cacheDir: join(folder, 'models') });
const server = new EmbeddingServer({ port: 0 });
const pool = new ParallelProcessor({ monitor: false });
const files = new BatchFileProcessor({ monitor: false, root: folder });
const evaluate = () => ({ score: 1 });
const coherence = new CoherenceEngine({ monitor: false, evaluate: () => [1] });
const evaluator = new RealtimeEvaluator({ evaluate, monitor: false, outputDirectory: join(folder, 'evaluation') });
const ollama = createServer((_, response) => response.setHeader('Content-Type', 'application/json').end('{"model":"m","response":"r","done":true,"models":[]}'));
const http = new HttpClient();
const address = () => `http://127.0.0.1:${(ollama.address() as AddressInfo).port}`;
const providers = [{ name: 'one', generate: () => 'text' }];
const connection = 'redis://127.0.0.1:1';
const queue = new EmbeddingQueue({ connection, monitor: false });

beforeAll(async () => {
  await new Promise<void>((resolve) => ollama.listen(0, '127.0.0.1', resolve));
  generator = new OptimizedEmbeddingGenerator(bert);
  images = new OptimizedEmbeddingGenerator({ modelPath: model('clip-vision'), cache: false });
  await Promise.all([generator, images, reranker, words, late].map((one) => one.initialize()));
});

afterAll(async () => {
  await Promise.all([generator, images, reranker, words, late, cache, results, dashboard, index, placed, server, pool, evaluator, coherence, http, queue].map((one) => one[Symbol.asyncDispose]()));
  await resetEmbeddingCache();
  ollama.close();
  processor.stop();
  for (const each of [folder, sources]) rmSync(each, { recursive: true, force: true });
});

/** Where options are given. */
interface Place {
  /** The interface that documents them. */
  type: string;
  /** Options beside those of the interface. */
  more?: string[];
  give: (options: never) => unknown;
  /** What is given beside. */
  also?: object;
  /** Options that may hold anything. */
  free?: string[];
  /** What options that are given in another one are called. */
  within?: string;
}

const entry = { key: 'k', content: 'x', embedding: [1, 2] };
const vectors = new EmbeddingMatrix(Float32Array.of(1, 2, 3, 4), 2);
const same = (batch: number[]) => batch;
let ids = 0;
/** In a cycle of its own. */
const inCycle = (work: (id: string) => unknown) => {
  const id = `cycle ${ids++}`;
  monitor.startCycle(id);
  return work(id);
};

const PLACES: Record<string, Place> = {
  'new OptimizedEmbeddingGenerator()': { type: 'GeneratorOptions', give: (options) => new OptimizedEmbeddingGenerator(options) },
  'remote of a generator': {
    type: 'RemoteOptions', give: (remote) => new OptimizedEmbeddingGenerator({ remote }), also: { kind: 'openai', url: 'http://127.0.0.1:1', model: 'm' }, free: ['headers'], within: 'remote',
  },
  'prompts of a generator': { type: 'GeneratorOptions.prompts', give: (prompts) => new OptimizedEmbeddingGenerator({ prompts }), within: 'prompts' },
  'cache of a generator': { type: 'CacheOptions', give: (options) => new OptimizedEmbeddingGenerator({ cache: options }), within: 'cache' },
  'cacheConfig of a generator': { type: 'CacheOptions', give: (options) => new OptimizedEmbeddingGenerator({ cacheConfig: options }), within: 'cacheConfig' },
  'batchOptimizer of a generator': { type: 'BatchOptimizerOptions', give: (options) => new OptimizedEmbeddingGenerator({ batchOptimizer: options }), within: 'batchOptimizer' },
  'batchConfig of a generator': { type: 'BatchOptimizerOptions', give: (options) => new OptimizedEmbeddingGenerator({ batchConfig: options }), within: 'batchConfig' },
  'memoryProcessor of a generator': { type: 'MemoryProcessorOptions', give: (options) => new OptimizedEmbeddingGenerator({ memoryProcessor: options }), within: 'memoryProcessor' },
  'memoryConfig of a generator': { type: 'MemoryProcessorOptions', give: (options) => new OptimizedEmbeddingGenerator({ memoryConfig: options }), within: 'memoryConfig' },
  'memoryThresholds of a generator': {
    type: 'MemoryThresholds', give: (memoryThresholds) => new OptimizedEmbeddingGenerator({ memoryConfig: { memoryThresholds } }), within: 'memoryConfig.memoryThresholds',
  },
  'initialize()': { type: 'InitializeOptions', give: (options) => generator.initialize(undefined, options) },
  'embed()': { type: 'CallOptions', give: (options) => generator.embed(['a'], options) },
  'embedQuery()': { type: 'CallOptions', give: (options) => generator.embedQuery('a', options), free: ['onError'] },
  'generateEmbeddings() of texts': { type: 'CallOptions', give: (options) => generator.generateEmbeddings(['a'], options) },
  'generateEmbeddings() of annotations': { type: 'CallOptions', give: (options) => generator.generateEmbeddings([annotation], options) },
  'batchProcess()': { type: 'BatchProcessOptions', give: (options) => generator.batchProcess([annotation], options) },
  'embedImages()': { type: 'ImageCallOptions', give: (options) => images.embedImages([], options) },
  'stream()': { type: 'StreamCallOptions', give: async (options) => { for await (const _ of generator.stream(['a'], options)); } },

  'countTokens()': { type: 'CountOptions', give: (options) => generator.countTokens(['a'], options) },
  'tokenize()': { type: 'CountOptions', give: (options) => generator.tokenize('a', options) },
  'split()': { type: 'SplitOptions', give: (options) => generator.split('a', options) },
  'splitMany()': { type: 'SplitManyOptions', give: (options) => generator.splitMany(['a'], options) },
  'streamDocuments()': { type: 'DocumentOptions', give: async (options) => { for await (const _ of generator.streamDocuments([{ id: 'a', text: 'a' }], options)); } },
  'doctor()': { type: 'DoctorOptions', give: (options) => doctor(options) },
  'splitText()': { type: 'SplitTextOptions', give: (options) => splitText('a', options) },
  'similarities()': { type: 'MatrixOptions', give: (options) => similarities([1, 2], vectors, options) },
  'topK()': { type: 'TopKOptions', give: (options) => topK([1, 2], vectors, 1, options) },
  'pairs()': { type: 'ThresholdOptions', give: (options) => pairs(vectors, options), also: { threshold: 0.5 } },
  'dedupe()': { type: 'ThresholdOptions', give: (options) => dedupe(vectors, options), also: { threshold: 0.5 } },
  'communities()': { type: 'CommunityOptions', give: (options) => communities(vectors, options), also: { threshold: 0.5 } },
  'kMeans()': { type: 'KMeansOptions', give: (options) => kMeans(vectors, 1, options) },
  'new EmbeddingCollection()': { type: 'CollectionOptions', give: (options) => new EmbeddingCollection(options) },
  'query() of a collection': { type: 'CollectionQuery', give: (options) => new EmbeddingCollection().query([1, 2], options) },
  'setMetadata() of a collection': { type: 'SetMetadataOptions', give: (options) => new EmbeddingCollection().setMetadata({}, options) },
  'sync() of a collection': { type: 'SyncOptions', give: (options) => new EmbeddingCollection().sync([], options) },
  'new CrossEncoder()': { type: 'CrossEncoderOptions', give: (options) => new CrossEncoder(options) },
  'rank()': { type: 'RankOptions', give: (options) => reranker.rank('a', ['b'], options) },
  'score()': { type: 'ScoreOptions', give: (options) => reranker.score([['a', 'b']], options) },
  'new SparseEncoder()': { type: 'SparseEncoderOptions', give: (options) => new SparseEncoder(options) },
  'prompts of a sparse encoder': { type: 'SparseEncoderOptions.prompts', give: (prompts) => new SparseEncoder({ prompts }), within: 'prompts' },
  'embed() of a sparse encoder': { type: 'EncodeOptions', give: (options) => words.embed(['a'], options) },
  'new MultiVectorEncoder()': { type: 'MultiVectorEncoderOptions', give: (options) => new MultiVectorEncoder(options) },
  'prompts of a multi-vector encoder': { type: 'MultiVectorEncoderOptions.prompts', give: (prompts) => new MultiVectorEncoder({ prompts }), within: 'prompts' },
  'embed() of a multi-vector encoder': { type: 'EncodeOptions', give: (options) => late.embed(['a'], options) },
  'maxSim()': { type: 'MaxSimOptions', give: (options) => maxSim(Float32Array.of(1), { data: Float32Array.of(1), offsets: Uint32Array.of(0, 1), dimensions: 1 }, options) },

  'new IntelligentEmbeddingCache()': { type: 'CacheOptions', give: (options) => new IntelligentEmbeddingCache(options).close() },
  'getEmbeddingCache()': { type: 'CacheOptions', give: (options) => resetEmbeddingCache().then(() => getEmbeddingCache(options)) },
  'set() of a cache': { type: 'CacheEntryOptions', give: (options) => cache.set('k', 'x', [1, 2], options), free: ['metadata'] },
  'setMany() of a cache': { type: 'CacheEntry', give: (options) => cache.setMany([options]), also: entry, free: ['metadata'], within: 'entries[0]' },
  'getOrCompute() of a cache': { type: 'CacheEntryOptions', give: (options) => cache.getOrCompute('new', `${ids++}`, () => [1, 2], options), free: ['metadata'] },
  'get() of a cache': { type: 'EntryOptions', give: (options) => cache.get('k', 'x', options) },
  'has() of a cache': { type: 'EntryOptions', give: (options) => cache.has('k', 'x', options) },
  'delete() of a cache': { type: 'EntryOptions', give: (options) => cache.delete('k', options) },
  'getMany() of a cache': { type: 'EntryOptions', give: (options) => cache.getMany([{ key: 'k', content: 'x' }], options) },
  'findSimilar()': { type: 'SimilarOptions', give: (options) => cache.findSimilar([1, 2], options) },

  'new InferenceCache()': { type: 'InferenceCacheOptions', give: (options) => new InferenceCache(options).close() },
  'semantic of a result cache': {
    type: 'SemanticOptions', give: (semantic) => new InferenceCache({ semantic }).close(), also: { embed: () => [[1, 2]] }, within: 'semantic',
  },
  'get() of a result cache': { type: 'InferenceKeyOptions', give: (options) => results.get('a', options), free: ['params'] },
  'has() of a result cache': { type: 'InferenceKeyOptions', give: (options) => results.has('a', options), free: ['params'] },
  'delete() of a result cache': { type: 'InferenceKeyOptions', give: (options) => results.delete('a', options), free: ['params'] },
  'getMany() of a result cache': { type: 'InferenceLookup', give: (options) => results.getMany([options]), also: { content: 'a' }, within: 'lookups[0]' },
  'set() of a result cache': { type: 'InferenceSetOptions', give: (options) => results.set('a', 1, options), free: ['params', 'metadata'] },
  'setMany() of a result cache': {
    type: 'InferenceEntry', give: (options) => results.setMany([options]), also: { content: 'a', value: 1 }, free: ['params', 'metadata'], within: 'entries[0]',
  },
  'getOrCompute() of a result cache': { type: 'InferenceSetOptions', give: (options) => results.getOrCompute(`a ${ids++}`, options, () => 1) },
  'wrap()': { type: 'InferenceWrapOptions', give: (options) => results.wrap(function named() { return 1; }, options) },
  'invalidate()': { type: 'InvalidateOptions', give: (options) => results.invalidate(options), also: { type: 'none' } },

  'new DynamicBatchOptimizer()': { type: 'BatchOptimizerOptions', more: ['logger'], give: (options) => new DynamicBatchOptimizer(32, options) },
  'recordPerformance()': {
    type: 'BatchRecord', give: (record) => optimizer.recordPerformance(record), also: { batchSize: 8, processingTime: 10, itemsProcessed: 8 },
  },
  'new MemoryAwareProcessor()': { type: 'MemoryProcessorOptions', more: ['batchSize', 'batchOptimizer', 'logger'], give: (options) => new MemoryAwareProcessor(options).stop() },
  'strategies of a processor': {
    type: 'ProcessingStrategy', give: (strategy) => new MemoryAwareProcessor({ strategies: [strategy] }).stop(), also: { name: 'one', maxBatchSize: 1 }, within: 'strategies[0]',
  },
  'memoryThresholds of a processor': {
    type: 'MemoryThresholds', give: (memoryThresholds) => new MemoryAwareProcessor({ memoryThresholds }).stop(), within: 'memoryThresholds',
  },
  'processItems()': { type: 'ProcessItemsOptions', give: (options) => processor.processItems([1], same, options) },
  'processWithMemoryAwareness()': {
    type: 'ProcessingContext', give: (context) => processor.processWithMemoryAwareness(context), also: { items: [1], processor: same },
  },

  'new PerformanceMonitor()': { type: 'MonitorOptions', give: (options) => new PerformanceMonitor(options) },
  'measure()': { type: 'MeasureOptions', give: (options) => monitor.measure('x', () => 1, options) },
  'stop() of a timer': { type: 'StopOptions', give: (options) => monitor.startTimer('x').stop(options), free: ['error'] },
  'record()': { type: 'RecordOptions', give: (options) => monitor.record('x', 1, options), free: ['error'] },
  'recordMany()': { type: 'RecordManyOptions', give: (options) => monitor.recordMany('x', [1], options) },
  'recordLlmCall()': { type: 'LlmCallOptions', give: (options) => inCycle((id) => monitor.recordLlmCall(id, options)) },
  'recordValidation()': { type: 'ValidationOptions', give: (options) => inCycle((id) => monitor.recordValidation(id, options)) },
  'recordFileOperation()': { type: 'FileOperationOptions', give: (options) => inCycle((id) => monitor.recordFileOperation(id, options)) },
  'endCycle()': { type: 'EndCycleOptions', give: (options) => inCycle((id) => monitor.endCycle(id, options)) },
  'toPrometheus()': { type: 'PrometheusOptions', give: (options) => monitor.toPrometheus(options) },
  'connectOpenTelemetry()': { type: 'OpenTelemetryOptions', give: (options) => monitor.connectOpenTelemetry(options).disconnect() },
  'monitored()': { type: 'MonitoredOptions', give: (options) => monitored(options) },
  'profiled()': { type: 'ProfiledOptions', give: (options) => profiled(options) },
  'new PerformanceDashboard()': { type: 'DashboardOptions', give: (options) => new PerformanceDashboard(options).close() },
  'serve() of a dashboard': { type: 'ServeOptions', give: async (options) => (await dashboard.serve(options)).close() },
  'serveSnapshot()': {
    type: 'ServeOptions',
    give: async (options) => {
      const path = join(folder, 'snapshot.json');
      await dashboard.exportJson(path);
      await (await PerformanceDashboard.serveSnapshot(path, options)).close();
    },
  },

  'new CodeIndex()': { type: 'CodeIndexOptions', give: (options) => new CodeIndex(folder, options) },
  'generator of an index': { type: 'CodeIndexOptions.generator', give: (options) => new CodeIndex(folder, { generator: options }), within: 'generator' },
  'update() of an index': { type: 'IndexOptions', give: (options) => index.update(options) },
  'symbols() of an index': { type: 'SymbolOptions', give: (options) => index.update().then(() => index.symbols('a', options)) },
  'watch() of an index': { type: 'WatchOptions', give: (options) => index.watch(options).then((watcher) => watcher.close()) },
  'search() of an index': { type: 'SearchOptions', give: (options) => index.update().then(() => index.search('a', options)) },
  'similar() of an index': { type: 'SimilarCodeOptions', give: (options) => placed.update().then(() => placed.similar({ file: 'place.js', line: 1 }, options)) },
  'duplicates() of an index': { type: 'DuplicateCodeOptions', give: (options) => placed.update().then(() => placed.duplicates(options)) },
  'serve() of an index': { type: 'SearchServeOptions', give: async (options) => (await placed.serve(options)).close() },
  'new ModelStore()': { type: 'ModelStoreOptions', give: (options) => new ModelStore(options) },
  'add() of a store': { type: 'AddModelOptions', give: (options) => store.add('no-such-owner', options) },
  'verify() of a store': { type: 'VerifyModelOptions', give: (options) => store.verify(undefined, options) },

  'parallelMap()': { type: 'ParallelMapOptions', give: (options) => parallelMap([1], (x: number) => x, options), free: ['transfer'] },
  'parallelMap.stream()': { type: 'ParallelStreamOptions', give: async (options) => { for await (const _ of parallelMap.stream([1], (x: number) => x, options)); } },
  'parallel.batchProcess()': { type: 'BatchMapOptions', give: (options) => batchProcess([1], same, options) },
  'new ParallelProcessor()': { type: 'ParallelProcessorOptions', give: (options) => new ParallelProcessor(options).close() },
  'map() of a pool': { type: 'ParallelMapOptions', give: (options) => pool.map([1], (x: number) => x, options) },
  'batchMap() of a pool': { type: 'BatchMapOptions', give: (options) => pool.batchMap([1], same, options) },
  'new ParallelValidator()': { type: 'ParallelValidatorOptions', give: (options) => new ParallelValidator(options) },
  'new BatchFileProcessor()': { type: 'BatchFileProcessorOptions', give: (options) => new BatchFileProcessor(options) },
  'readBatch()': { type: 'ReadBatchOptions', give: (options) => files.readBatch(['a'], options) },
  'writeBatch()': { type: 'WriteBatchOptions', give: (options) => files.writeBatch([{ path: 'a', content: 'a' }], options) },
  'new RealtimeEvaluator()': { type: 'RealtimeEvaluatorOptions', give: (options) => new RealtimeEvaluator(options).close(), also: { evaluate } },
  'evaluateBatch()': { type: 'EvaluateOptions', give: (options) => evaluator.evaluateBatch([1], options) },

  'coherenceMetrics()': { type: 'CoherenceMetricsOptions', give: (options) => coherenceMetrics([[[1]]], options) },
  'new CoherenceEngine()': { type: 'CoherenceEngineOptions', give: (options) => new CoherenceEngine(options).close() },
  'thresholds of an engine': { type: 'RiskThresholds', give: (thresholds) => new CoherenceEngine({ thresholds }).close(), within: 'thresholds' },
  'generateCandidates()': { type: 'GenerateOptions', give: (options) => coherence.generateCandidates('x', () => 'y', options) },
  'new PromptAnalyzer()': { type: 'PromptAnalyzerOptions', give: (options) => new PromptAnalyzer(options) },
  'modalities of an analyzer': { type: 'ModalityDefinition', give: (modality) => new PromptAnalyzer({ modalities: [modality] }), also: { name: 'a', keywords: ['b'] }, within: 'modalities[0]' },
  'analyze()': { type: 'AnalyzeOptions', give: (options) => new PromptAnalyzer().analyze('x', options) },
  'new ContentFusionAgent()': { type: 'FusionOptions', give: (options) => new ContentFusionAgent(options) },
  'fuse()': { type: 'FusionOptions', give: (options) => new ContentFusionAgent().fuse([{}], {}, [], options) },
  'new DynamicSemanticCouncil()': { type: 'CouncilOptions', give: (options) => new DynamicSemanticCouncil(options), also: { planners: [() => ({})] } },
  'run() of a council': { type: 'CouncilRunOptions', give: (options) => new DynamicSemanticCouncil({ planners: [() => ({})], monitor: false }).run('x', options) },
  'unrollTrajectories()': { type: 'CoherenceCallOptions', give: (options) => coherence.unrollTrajectories(['x'], 'x', () => 'y', options) },
  'selectBestCandidate()': { type: 'CoherenceCallOptions', give: (options) => coherence.selectBestCandidate(['x'], 'x', () => 'y', options) },

  'new HttpClient()': { type: 'HttpClientOptions', give: (options) => new HttpClient(options).close(), free: ['tls'] },
  'request() of a client': { type: 'RequestOptions', give: (options) => http.request(address(), options), free: ['headers'] },
  'new OllamaClient()': { type: 'OllamaClientOptions', give: (options) => new OllamaClient(options).close() },
  'http of Ollama': { type: 'HttpClientOptions', give: (options) => new OllamaClient({ http: options }).close(), free: ['tls'], within: 'http' },
  'cache of Ollama': { type: 'InferenceCacheOptions', give: (options) => new OllamaClient({ cache: options }).close(), within: 'cache' },
  'cache of a router': { type: 'InferenceCacheOptions', give: (options) => new LlmRouter({ providers, cache: options }).close(), within: 'cache' },
  'cache of an engine': { type: 'InferenceCacheOptions', give: (options) => new CoherenceEngine({ cache: options }).close(), within: 'cache' },
  'cache of a queue': { type: 'CacheOptions', give: (options) => new EmbeddingQueue({ connection, cache: options }).close(), also: { persistPath: join(folder, 'queue.sqlite') }, within: 'cache' },
  'generator of a collection': { type: 'GeneratorOptions', give: (options) => new EmbeddingCollection({ generator: options }).close(), within: 'generator' },
  'defaults of Ollama': { type: 'OllamaSettings', give: (defaults) => new OllamaClient({ defaults }).close(), within: 'defaults' },
  'generate() of Ollama': { type: 'OllamaCallOptions', give: (options) => new OllamaClient({ http, baseUrl: address(), model: 'm', monitor: false }).generate('x', options) },
  'list() of Ollama': { type: 'OllamaListOptions', give: (options) => new OllamaClient({ http, baseUrl: address(), monitor: false }).list(options) },
  'new LlmRouter()': { type: 'LlmRouterOptions', give: (options) => new LlmRouter(options).close(), also: { providers } },
  'cachedCall()': { type: 'CachedCallOptions', give: (options) => cachedCall(function named() { return 1; }, options) },
  'new EmbeddingQueue()': { type: 'EmbeddingQueueOptions', give: (options) => new EmbeddingQueue(options).close(), also: { connection }, free: ['connection'] },
  'addTexts() of a queue': { type: 'AddOptions', give: (options) => queue.addTexts([], options).cancel() },
  'new EmbeddingWorker()': { type: 'EmbeddingWorkerOptions', give: (options) => new EmbeddingWorker(options).close(), free: ['connection'], also: { connection, generator: { isReady: () => true, initialize: async () => {}, getModelInfo: () => ({ modelId: 'm', fingerprint: 'f', dimensions: 1, maxLength: 1 }), batchProcess: async () => [] } } },

  'new EmbeddingServer()': { type: 'EmbeddingServerOptions', give: (options) => new EmbeddingServer(options) },
  'serve() of a server': { type: 'EmbeddingServerOptions', give: async (options) => (await serve(options)).close(), also: { port: 0, generator: bert } },
  'generator of a server': { type: 'GeneratorOptions', give: (options) => new EmbeddingServer({ generator: options }), within: 'generator' },
  'listen()': {
    type: 'ListenOptions',
    give: async (options) => {
      const listening = new EmbeddingServer({ port: 0, generator: bert });
      onTestFinished(() => listening.close());
      await listening.listen(options);
    },
  },
  'close() of a server': { type: 'CloseOptions', give: (options) => new EmbeddingServer({ port: 0 }).close(options) },
  'createEmbedcore()': { type: 'EmbedcoreProviderSettings', give: (options) => createEmbedcore(options).embeddingModel() },
  'providerOptions of a call': {
    type: 'EmbedcoreProviderOptions',
    within: 'providerOptions.embedcore',
    give: (embedcore) => createEmbedcore({ generator }).embeddingModel().doEmbed({ values: ['a'], providerOptions: { embedcore } }),
  },
};

/** The options of each interface, as the declarations have them; of numbers, what says how far they go. */
const documented = (() => {
  const files = ['index.d.ts', 'server.d.ts', 'ai-sdk.d.ts', 'parallel.d.ts', 'coherence.d.ts', 'llm.d.ts', 'queue.d.ts'].map((file) => join(root, file));
  const program = ts.createProgram(files, { module: ts.ModuleKind.NodeNext, noEmit: true, types: ['node'], paths: { embedcore: [files[0]!] } });
  const checker = program.getTypeChecker();
  const types = new Map<string, ts.Type>();
  for (const file of files) {
    const module = checker.getSymbolAtLocation(program.getSourceFile(file)!)!;
    for (const symbol of checker.getExportsOfModule(module)) types.set(symbol.name, checker.getDeclaredTypeOfSymbol(symbol));
  }
  return (name: string): { name: string; ends: string }[] => {
    const [type, ...path] = name.split('.');
    let found = types.get(type!) ?? expect.fail(`there is no type ${type}`);
    for (const property of path) found = checker.getNonNullableType(checker.getTypeOfSymbol(found.getProperty(property)!));
    return found.getProperties().map((property) => {
      const type = checker.getNonNullableType(checker.getTypeOfSymbol(property));
      const number = (type.isUnion() ? type.types : [type]).some(({ flags }) => flags & ts.TypeFlags.NumberLike);
      return { name: property.name, ends: number ? ts.displayPartsToString(property.getDocumentationComment(checker)) : '' };
    });
  };
})();

const place = (within: string | undefined, name: string) => (within === undefined ? name : `${within}.${name}`);

describe.each(Object.entries(PLACES))('%s', (_, { type, more = [], give: take, also, free = [], within }) => {
  const give = async (options: unknown) => take(options as never);
  const options = documented(type);
  const names = [...options.map(({ name }) => name), ...more];

  test('an unknown option is refused, with all that there are and the one that was probably meant', async () => {
    const typo = `${names[0]!.slice(0, -1)}_`;
    const error = await failure(() => give({ ...also, [typo]: 1 }));
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: place(within, typo) } });
    expect(error.message).toContain(`\`${place(within, typo)}\`: there is no such option`);
    expect(error.message).toContain(`did you mean \`${names[0]}\`?`);
    const [, known] = /known are (.*)$/.exec(error.message)!;
    expect(known!.split(', ').sort()).toEqual([...names].sort());
  });

  test('inherited and computed ones that are unknown are refused, too', async () => {
    class Settings {
      get nope(): number {
        return 1;
      }
    }
    for (const options of [Object.assign(new Settings(), also), Object.assign(Object.create({ nope: 1 }) as object, also)]) {
      expect(await failure(() => give(options))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: place(within, 'nope') } });
    }
  });

  test('undefined is left out', async () => {
    await give({ ...Object.fromEntries(names.map((name) => [name, undefined])), nope: undefined, ...also }).catch((error: EmbeddingError) => {
      // Of a store without a network: what is left out is not what it is about.
      if (type !== 'AddModelOptions') throw error;
      expect(error.message).toContain('owner/name');
    });
  });

  test('what throws when it is read is named', async () => {
    const cause = new Error('mine');
    for (const name of names) {
      const options = Object.defineProperty({ ...also }, name, { enumerable: true, get: () => { throw cause; } });
      const error = await failure(() => give(options));
      expect(error).toMatchObject({ code: 'INVALID_CONFIG', cause, details: { option: place(within, name) } });
      expect(error.message).toContain('mine');
    }
    const closed = new Proxy({}, { ownKeys: () => { throw cause; } });
    expect(await failure(() => give(closed))).toMatchObject({ code: 'INVALID_CONFIG', cause });
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    expect(await failure(() => give(proxy))).toMatchObject({ code: 'INVALID_CONFIG' });
  });

  test('each is read once', async () => {
    const counts = new Map<string, number>();
    const given: Record<string, unknown> = { ...also };
    const counting = new Proxy(given, {
      get: (target, name) => {
        if (typeof name === 'string') counts.set(name, (counts.get(name) ?? 0) + 1);
        return target[name as string];
      },
    });
    await give(counting).catch((error: EmbeddingError) => type === 'AddModelOptions' || expect.fail(error.message));
    for (const name of names) expect([name, counts.get(name)]).toEqual([name, 1]);
  });

  test('each is refused by its name when it is nothing that it could be', async () => {
    for (const name of names.filter((each) => !free.includes(each))) {
      const error = await failure(() => give({ ...also, [name]: Symbol('odd') }));
      expect(error, `${name}: ${error.message}`).toBeInstanceOf(EmbeddingError);
      expect(['INVALID_CONFIG', 'INVALID_ARGUMENT']).toContain(error.code);
      expect(error.message.toLowerCase()).toContain(name.toLowerCase());
    }
  });

  test('a number is taken as far as its documentation says, and refused beyond', async () => {
    for (const { name, ends } of options) {
      const { taken, refused } = limits(ends);
      const option = place(within, name);
      for (const value of taken) {
        const error = await failure(() => give({ ...also, [name]: value })).catch(() => undefined);
        expect(error?.details?.['option'], `${option}: ${value}, ${error?.message}`).not.toBe(option);
      }
      for (const value of refused) {
        const error = await failure(() => give({ ...also, [name]: value })).catch(() => undefined);
        expect(error?.code, `${option}: ${value}, ${error?.message}`).toMatch(/^INVALID_(CONFIG|ARGUMENT)$/);
        expect(error!.details['option'] ?? place(within, String(error!.details['name'])), `${option}: ${value}, ${error!.message}`).toBe(option);
      }
    }
  });

  test('what is no object of options is refused', async () => {
    const others = [null, 5, 'fast', true, Symbol('s'), 1n, () => 1, [], new Map(), new Set(), new Date(), /x/, new Uint8Array(2), new Error('x'), Promise.resolve(), new InferenceCache(), monitor];
    for (const options of others) {
      const allowed = (['CacheOptions', 'BatchOptimizerOptions', 'MemoryProcessorOptions'].includes(type) && within !== undefined && options === true) || (options === 'fast' && ['MonitoredOptions', 'ProfiledOptions'].includes(type)) || (options === null && type === 'EmbedcoreProviderOptions') || (type === 'InferenceCacheOptions' && within !== undefined && (options === true || options instanceof InferenceCache));
      if (allowed) continue;
      const error = await failure(() => give(options));
      expect(error, String(options)).toBeInstanceOf(EmbeddingError);
      expect(['INVALID_CONFIG', 'INVALID_ARGUMENT']).toContain(error.code);
    }
  });

  test('options that contain themselves are refused', async () => {
    const circular: Record<string, unknown> = { ...also };
    circular.self = circular;
    expect(await failure(() => give(circular))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: place(within, 'self') } });
    for (const name of names.filter((each) => !free.includes(each))) {
      const error = await failure(() => give({ ...also, [name]: circular }));
      expect(error, name).toBeInstanceOf(EmbeddingError);
      expect(['INVALID_CONFIG', 'INVALID_ARGUMENT'], `${name}: ${error.message}`).toContain(error.code);
    }
  });
});

test('every class and function of the package that takes options is looked at', () => {
  const seen = new Set(Object.values(PLACES).map(({ type }) => type));
  const index = ts.createSourceFile('index.d.ts', ts.sys.readFile(join(root, 'index.d.ts'))!, ts.ScriptTarget.Latest, true);
  const missing = new Set<string>();
  const visit = (node: ts.Node): void => {
    if (ts.isParameter(node) && /^(options|which|nameOrOptions)$/.test(node.name.getText())) {
      const type = node.type!.getText().replace(/^string \| |^Partial</, '').replace(/[<>[ ].*$/s, '');
      if (!seen.has(type) && type !== 'EmbeddingErrorOptions' && type !== 'Logging') missing.add(type);
    }
    ts.forEachChild(node, visit);
  };
  visit(index);
  expect([...missing]).toEqual([]);
});

describe('a generator', () => {
  const foreign = () => {
    const require = createRequire(import.meta.url);
    const dist = join(root, 'dist');
    const held = Object.keys(require.cache).filter((file) => file.startsWith(dist)).map((file) => [file, require.cache[file]] as const);
    for (const [file] of held) delete require.cache[file];
    const copy = require(root) as typeof import('embedcore');
    for (const file of Object.keys(require.cache)) if (file.startsWith(dist)) delete require.cache[file];
    for (const [file, module] of held) require.cache[file] = module;
    return copy;
  };

  test('refuses what another copy of the package has made', async () => {
    const other = foreign();
    const made = { cache: new other.IntelligentEmbeddingCache(), batchOptimizer: new other.DynamicBatchOptimizer(), memoryProcessor: new other.MemoryAwareProcessor(), monitor: new other.PerformanceMonitor() };
    for (const [option, instance] of Object.entries(made)) {
      const error = await failure(() => new OptimizedEmbeddingGenerator({ [option]: instance } as GeneratorOptions));
      expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option } });
      if (option !== 'monitor') expect(error.message).toContain('another copy');
    }
    await made.cache.close();
    made.memoryProcessor.stop();
  });

  test('takes options from a class, from what it inherits, and from another realm', async () => {
    class Settings {
      readonly _directory = bert.modelPath;
      get modelPath(): string {
        return this._directory;
      }
      get dimensions(): number {
        return 8;
      }
      describe(): string {
        return 'settings';
      }
    }
    const foreignRealm = runInNewContext('({ modelPath, dimensions: 8 })', bert) as GeneratorOptions;
    for (const options of [new Settings(), Object.create({ ...bert, dimensions: 8 }) as GeneratorOptions, foreignRealm]) {
      const made = new OptimizedEmbeddingGenerator(options);
      onTestFinished(() => made.cleanup());
      await made.initialize();
      expect(made.getModelInfo().dimensions).toBe(8);
    }
  });

  test('reads its options when it is made', async () => {
    const cache = { maxEntries: 7 };
    const options = { ...bert, dimensions: 8, cache };
    const made = new OptimizedEmbeddingGenerator(options);
    onTestFinished(() => made.cleanup());
    options.dimensions = 4;
    cache.maxEntries = 9;
    await made.initialize();
    await made.cleanup();
    await made.initialize();
    expect(made.getModelInfo().dimensions).toBe(8);
    expect(made.getPerformanceMetrics().cache!.maxEntries).toBe(7);
  });

  test('settings of its cache that are undefined leave it its defaults', () => {
    const plain = new OptimizedEmbeddingGenerator({ cache: {} }).getPerformanceMetrics().cache!;
    const given = new OptimizedEmbeddingGenerator({ cache: { maxEntries: undefined, ttlSeconds: undefined, ttlMs: undefined } });
    expect(given.getPerformanceMetrics().cache!.maxEntries).toBe(plain.maxEntries);
  });

  test('a query is a query though inputType is undefined', async () => {
    const made = new OptimizedEmbeddingGenerator({ ...bert, cache: false, prompts: { query: 'query: ', document: 'a long passage of text: ' } });
    onTestFinished(() => made.cleanup());
    await made.initialize();
    const query = await made.embedQuery('how are files parsed');
    expect(cosine(query, await made.embedQuery('how are files parsed', { inputType: undefined }))).toBeGreaterThan(0.9999);
    expect(cosine(query, await made.embedQuery('how are files parsed', { inputType: 'document' }))).toBeLessThan(0.9999);
  });

  test('what is counted from within is no option', async () => {
    const error = await failure(() => generator.embed(['a'], { firstIndex: 5 } as object));
    expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'firstIndex' } });
    expect(error.message).not.toMatch(/known are.*firstIndex/);
  });

  test('wrong values of nested options are called as they were given', async () => {
    const cases: [GeneratorOptions, string][] = [
      [{ cache: { maxEntries: -1 } }, 'cache.maxEntries'],
      [{ cacheConfig: { ttlSeconds: NaN } }, 'cacheConfig.ttlSeconds'],
      [{ batchOptimizer: { maxBatchSize: 0 } }, 'batchOptimizer.maxBatchSize'],
      [{ batchConfig: { aggressiveness: 2 } }, 'batchConfig.aggressiveness'],
      [{ memoryProcessor: { gcThreshold: -1 } }, 'memoryProcessor.gcThreshold'],
      [{ memoryConfig: { memoryThresholds: { high: 101 } } }, 'memoryConfig.memoryThresholds.high'],
      [{ memoryConfig: { strategies: [{ name: '', maxBatchSize: 1 } as never] } }, 'memoryConfig.strategies[0].name'],
    ];
    for (const [options, option] of cases) {
      expect(await failure(() => new OptimizedEmbeddingGenerator(options))).toMatchObject({ code: 'INVALID_CONFIG', details: { option } });
    }
    expect(await failure(() => new CodeIndex(folder, { generator: { batchConfig: { minBatchSize: 0 } } }))).toMatchObject({ details: { option: 'generator.batchConfig.minBatchSize' } });
  });

  test('a text that is no whole string is not taken for another one', async () => {
    expect(await failure(() => new IntelligentEmbeddingCache({ namespace: 'a\ud800' }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'namespace' } });
  });
});

test('an index is made by a generator of any options', async () => {
  const own = new PerformanceMonitor();
  const made = new CodeIndex(folder, { path: join(folder, 'own.sqlite'), generator: { ...bert, batchOptimizer: new DynamicBatchOptimizer(4), enableMemoryAwareProcessing: false, monitor: own } });
  onTestFinished(() => made.close());
  expect(await made.update()).toMatchObject({ files: 0 });
});

test('what the code of a caller throws is no internal error', async () => {
  const thrower = { nodeId: 'a', summary: '', get signature(): string { throw new Error('mine'); } };
  for (const work of [
    () => generator.generateEmbeddings([thrower]),
    () => generator.prepareText(thrower),
    () => cache.set(thrower, { nodeId: 'a', embedding: [1, 2] } as never),
    () => processor.processItems([1], () => { throw Object.create(null); }),
    () => monitor.recordMany('x', { length: 2, get 0(): number { throw new Error('mine'); } }),
  ]) {
    const error = await failure(work);
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error.code).not.toBe('INTERNAL');
  }
});

test('lists without end, or with one that is a lie, are refused', async () => {
  for (const length of [Infinity, 1e15, NaN, -1, '2']) {
    expect(await failure(() => monitor.recordMany('x', { length } as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  expect(() => monitor.recordMany('fine', { length: 2, 0: 1, 1: 2 })).not.toThrow();
  expect(monitor.getStats('fine')!.count).toBe(2);
});
