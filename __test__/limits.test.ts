// What the guides and the types state of limits, waits and counts, each shown once: a new number is red until something shows it.
import { constants as bufferConstants } from 'node:buffer';
import { createServer, maxHeaderSize } from 'node:http';
import type { AddressInfo } from 'node:net';

import {
  CacheConfig,
  CodeIndex,
  DynamicBatchOptimizer,
  EmbeddingCollection,
  InferenceCache,
  IntelligentEmbeddingCache,
  MemoryAwareConfig,
  MemoryAwareProcessor,
  OptimizedEmbeddingGenerator,
  PerformanceMonitor,
  prepareText,
  type EmbeddingError,
} from 'embedcore';
import { CoherenceEngine, ContentFusionAgent, PromptAnalyzer } from 'embedcore/coherence';
import { HttpClient, LlmRouter, OllamaClient } from 'embedcore/llm';
import { expect, onTestFinished, test, vi } from 'vitest';

import { directory } from './files';
import { comments, constant, defaults, ENDS, guides, PAGES, textOf } from './prose';
import { failure } from './support';

/** A server for a test. */
async function answering(answer: (url: string, body: string) => { status?: number; headers?: Record<string, string>; body?: unknown }): Promise<string> {
  const server = createServer((request, response) => {
    let asked = '';
    request.on('data', (data) => (asked += String(data)));
    request.on('end', () => {
      const { status = 200, headers = {}, body = {} } = answer(request.url!, asked);
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
    });
  }).listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await new Promise((resolve) => server.once('listening', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function followed(): Promise<number> {
  const url = await answering((path) => (path === '/0' ? {} : { status: 302, headers: { location: `/${Number(path.slice(1)) - 1}` } }));
  await using http = new HttpClient();
  for (let redirects = 18; ; redirects++) {
    const refused = await http.get(`${url}/${redirects}`).then(() => false, () => true);
    if (refused) return redirects - 1;
  }
}

async function texts(): Promise<number> {
  const sizes: number[] = [];
  const url = await answering((_, body) => {
    const { input } = JSON.parse(body) as { input: string[] };
    sizes.push(input.length);
    return { body: { model: 'm', embeddings: input.map(() => [1]) } };
  });
  await using ollama = new OllamaClient({ baseUrl: url, model: 'm', monitor: false });
  await ollama.embed(Array.from({ length: 130 }, (_, i) => `text ${i}`));
  return Math.max(...sizes);
}

/** What `Device::shape` fills up to: some numbers of rows, the step of short texts and their end, some lengths, and how many there are up to 512. */
function deviceShapes(): unknown[] {
  const [rowSteps, tokenSteps, short, multiple] = ['ROW_STEPS', 'TOKEN_STEPS', 'SHORT', 'MULTIPLE'].map((name) => constant('src/model/device.rs', name)());
  const step = (count: number, steps: number) => {
    const size = Math.max(1, Math.floor(2 ** Math.floor(Math.log2(Math.max(1, count - 1))) / steps));
    return Math.ceil(count / size) * size;
  };
  const all = (to: number, from: (count: number) => number) => [...new Set(Array.from({ length: to }, (_, i) => from(i + 1)))];
  const lengths = all(512, (tokens) => (tokens <= short! ? Math.ceil(tokens / multiple!) * multiple! : step(tokens, tokenSteps!)));
  return [all(16, (rows) => step(rows, rowSteps!)), multiple, short, lengths.filter((length) => length > short!).slice(0, 5), lengths.length];
}

/** Whether a server that says nothing is waited for as long as it may, and no minute longer. */
async function silence(): Promise<boolean> {
  const server = createServer(() => {}).listen(0, '127.0.0.1');
  onTestFinished(() => void server.close().closeAllConnections());
  await new Promise((resolve) => server.once('listening', resolve));
  await using http = new HttpClient({ readTimeoutMs: 1100, retryAttempts: 1 });
  const began = performance.now();
  const { code } = await failure(() => http.get(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
  const waited = performance.now() - began;
  return code === 'TIMED_OUT' && waited >= 1000 && waited < 30_000;
}

/** After how many failures in a row a provider is left alone, and for how many seconds. */
async function breaker(): Promise<[number, number]> {
  vi.useFakeTimers({ toFake: ['performance', 'Date'] });
  onTestFinished(() => void vi.useRealTimers());
  let calls = 0;
  await using router = new LlmRouter({ providers: [{ name: 'bad', generate: () => { calls++; throw new Error('no'); } }], enableCaching: false });
  const ask = () => router.generate('x').catch(() => {});
  for (let i = 0; i < 20; i++) await ask();
  const failures = calls;
  for (let seconds = 1; ; seconds++) {
    vi.advanceTimersByTime(1000);
    await ask();
    if (calls > failures) return [failures, seconds];
  }
}

/** How many there are, by the error that names them. */
async function languages(): Promise<number> {
  await using index = new CodeIndex(directory());
  await index.update();
  const { message } = await failure(() => index.search('x', { languages: 'none' }));
  // What is in no language is called text.
  return message.split('known are ')[1]!.split(', ').filter((name) => !name.includes('text')).length;
}

async function candidates(): Promise<number[]> {
  await using engine = new CoherenceEngine({ evaluate: () => [1], cache: false, monitor: false });
  return Promise.all([0, 0.49, 0.5, 0.69, 0.7, 0.79, 0.8, 1].map(async (risk) => (await engine.generateCandidates('x', () => 'y', { risk })).length));
}

function risks(): number[] {
  const engine = new CoherenceEngine({ monitor: false });
  const words = (count: number) => Array(count).fill('word').join(' ');
  // A word more of those that count, one less of the others.
  return [words(120), `${words(117)} ???`, `${words(118)} best should`].map((prompt) => Number(engine.estimateRisk(prompt).toFixed(6)));
}
const half = (ambiguous: number, questions: number, words = 120) => Number((1 - (1 - 0.6 * (words / (words + 120))) * (1 - 0.5 * (questions / (questions + 1.5))) * (1 - 0.8 * (ambiguous / (ambiguous + 2)))).toFixed(6));

const weigh = (prompt: string) => new PromptAnalyzer().analyze(prompt).scores;
const distinct = (count: number) => Array.from({ length: count }, (_, i) => `w${i}x`).join(' ');

const disagreement = (one: object, other: object) => new ContentFusionAgent().fuse([one, other] as never).report;

const filled = (size = 8) => {
  const optimizer = new DynamicBatchOptimizer(size);
  for (let i = 0; i < 60; i++) optimizer.recordPerformance({ batchSize: size, processingTime: 10, itemsProcessed: size });
  return optimizer.getPerformanceAnalytics();
};

const names = (): string[] => {
  const monitor = new PerformanceMonitor();
  for (let i = 0; i < 1100; i++) monitor.record(`name ${i}`, 1);
  return monitor.snapshot().operations.map(({ name }) => name).filter((name) => name.startsWith('name '));
};

const failures = () => {
  const monitor = new PerformanceMonitor();
  for (let i = 0; i < 150; i++) monitor.record('x', 1, { error: new Error(`number ${i}`) });
  return monitor.getSummary().errors.length;
};

const cycles = () => {
  const monitor = new PerformanceMonitor({ maxCycles: 20_000 });
  for (let i = 0; i < 10_001; i++) monitor.startCycle(`${i}`);
  return monitor.getCycles().filter(({ status }) => status === 'interrupted').length;
};

const wide = () => {
  const monitor = new PerformanceMonitor();
  for (const name of ['short', 'a name that is longer than any column has room for, and then some more of it']) monitor.record(name, 123_456_789.123);
  return Math.max(...monitor.toText().split('\n').map((line) => [...line].length));
};

/** How far percentiles are off, relatively. */
const percentiles = () => {
  const monitor = new PerformanceMonitor();
  const times = Array.from({ length: 2000 }, (_, i) => 1.01 ** i / 1000);
  monitor.recordMany('x', times);
  const { p50, p95, p99 } = monitor.getStats('x')!;
  return Math.max(...([[p50, 0.5], [p95, 0.95], [p99, 0.99]] as const).map(([told, share]) => Math.abs(told / times[Math.ceil(share * times.length) - 1]! - 1)));
};

const halves = async () => {
  const cache = new IntelligentEmbeddingCache({ vectorPrecision: 'f16' });
  const given = Array.from({ length: 1000 }, (_, i) => 0.5 + i / 2000);
  await cache.set('key', 'content', given);
  const { embedding } = (await cache.get('key', 'content'))!;
  return Math.max(...given.map((value, i) => Math.abs(embedding[i]! / value - 1))) * 2 ** 11;
};

const days = async (type: string) => {
  const cache = new InferenceCache();
  await cache.set('content', 1, { type });
  const { createdAt, expiresAt } = (await cache.get('content', { type }))!;
  return (expiresAt! - createdAt) / 86_400_000;
};

const ids = async () => {
  await using collection = new EmbeddingCollection();
  const upsert = (id: string) => collection.upsert([{ id, embedding: [1] }]);
  await upsert('ü'.repeat(512));
  return [(await failure(() => upsert('a'.repeat(1025)))).code, (await failure(() => upsert(''))).code];
};

const history = async () => {
  const processor = new MemoryAwareProcessor({ batchSize: 1 });
  const { memoryHistory } = await processor.processWithMemoryAwareness({ items: Array(1500).fill(1) as number[], processor: (batch: number[]) => batch });
  processor.stop();
  return memoryHistory.length;
};

/** Which option is refused, if one is. */
const sizes = () => [1, 100_000, 0, 100_001].map((batchSize) => {
  try {
    new MemoryAwareProcessor({ batchSize }).stop();
    return undefined;
  } catch (error) {
    return (error as EmbeddingError).details['option'];
  }
});

const strategies = () => MemoryAwareConfig.strategies.map(({ name, maxBatchSize, approach }) => `${name} (${maxBatchSize}${maxBatchSize === 1 ? ' item' : ''}${approach === 'parallel' ? ', parallel' : ''})`).join(', ');

const capacity = () => {
  const processor = new MemoryAwareProcessor();
  const { memoryMetrics, estimatedCapacity } = processor.getProcessingRecommendations();
  processor.stop();
  return Math.round(memoryMetrics.availableForProcessing / estimatedCapacity / 1024);
};

const prepared = () => {
  const annotation = { nodeId: 'a', signature: 'x'.repeat(10_000), summary: '' };
  return [prepareText(annotation, 10).length, prepareText(annotation).length];
};

/** The most that `pauses` of so many tries come to, each twice the one before, up to the longest. */
const sum = (pauses: number, first: number, longest: number) => Array.from({ length: pauses }, (_, i) => Math.min(first * 2 ** i, longest)).reduce((a, b) => a + b, 0);

/** Whether a source says this. */
const source = (file: string, says: RegExp) => () => says.test(textOf(file));

/** What is written, what shows it, and what that gives. */
const SHOWN: [phrases: string[], show: () => unknown, gives: unknown][] = [
  // Caches
  [['where a text takes half a millisecond or more, and a call 25 in all'], () => [constant('src/generator/leases.rs', 'LEAST_TEXT_MS')(), constant('src/generator/leases.rs', 'LEAST_CALL_MS')()], [0.5, 25]],
  [['a millisecond for each text of its call, 3 seconds at least and 30 at most'], () => ['LEASE_PER_TEXT', 'SHORTEST_LEASE', 'LONGEST_LEASE'].map((name) => constant('src/generator/leases.rs', name)()), [1, 3000, 30_000]],
  [['the others see a quarter of a second later', 'see what others change in it a quarter of a second later'], () => constant('src/cache/disk/mod.rs', 'LOOK_MS')() <= 250, true],
  [['the file knows for ten minutes what was deleted'], constant('src/cache/store/batch.rs', 'TOMBSTONE_MS'), 600_000],
  [['servers remember for ten minutes what was deleted', 'and the last 64 clearings'], () => ['TOMBSTONE_MS', 'MOST_CLEARED'].map((name) => constant('src/cache/shared/mod.rs', name)()), [600_000, 64]],
  [['at least 5 seconds (30 without it)', 'may take as long, at least 5 s, or 30 s without this option'], () => ['SHORTEST_LOAD_MS', 'LOAD_MS'].map((name) => constant('lib/parallel/pool.ts', name)()), [5000, 30_000]],
  [['text of more than 512 MB'], () => Math.round(bufferConstants.MAX_STRING_LENGTH / 2 ** 20), 512],
  [['may take ten times as long from its head to its end', 'and everything ten times as much'], source('lib/http/running.ts', /Math\.min\(10 \* readTimeoutMs, /), true],
  [['more than 71 texts, 1000 lists'], () => ['MOST_TEXTS', 'MOST_LISTS'].map((name) => Math.floor((1 + Math.sqrt(1 + 8 * constant('lib/coherence/fusion.ts', name)())) / 2)), [71, 1000]],
  [['more than 100 levels of objects and arrays'], constant('src/collection/metadata.rs', 'MOST_DEPTH'), 100],
  [['a lookup goes on without it after a tenth of a second'], constant('src/cache/disk/queue.rs', 'BRIEF'), 100],
  [['waits three seconds for it', 'For a file that another program holds it waits 3 seconds'], constant('src/cache/disk/mod.rs', 'DRAIN'), 3000],
  [['reject with `CACHE_STORAGE_FAILED` after eight', 'another program has held the file for 8 seconds', 'another program has held it for 8 seconds'], constant('src/cache/disk/queue.rs', 'LONG'), 8000],
  [['for two milliseconds at most'], constant('src/cache/inline_read.rs', 'MOST_AT_ONCE'), 2],
  [['`embedding` live 30 days, all others 24 hours', 'both 30 days'], () => Promise.all(['text_inference', 'vision_inference', 'audio_inference', 'embedding', 'mine'].map(days)), [30, 30, 30, 30, 1]],
  [['an answer for an hour where there is memory only'], () => CacheConfig.ttlSeconds, 3600],
  [['With a file, an eighth of it, 16 MB at most'], source('src/cache/mod.rs', /\(max_bytes \/ 8\)\.min\(16 << 20\)/), true],
  [['its log takes about half as much again, 16 MB at most'], () => Math.round((constant('src/cache/store/file.rs', 'LOG_PAGES')() * constant('src/cache/store/file.rs', 'PAGE_BYTES')() + constant('src/cache/disk/writing.rs', 'BATCH_BYTES')()) / 2 ** 20), 16],
  [['with a relative error up to 2⁻¹¹'], async () => (await halves()) <= 1.001, true],
  [['of up to 256 bytes, the text that was first embedded so'], constant('src/generator/model_cache.rs', 'MOST_NAME'), 256],
  [['Up to 2000 entries in memory only'], constant('src/cache/search.rs', 'SMALL'), 2000],
  [['vectors of prompts that are still being made get five seconds'], constant('lib/results/inference-cache.ts', 'DRAIN_MS'), 5000],
  [['a generator\'s own cache keeps up to 100,000 entries'], source('lib/generator/options.ts', /maxEntries: 100_000, /), true],
  // The shared tier and queues
  [['a quarter of a second after the server knows'], () => constant('src/cache/shared/changes.rs', 'LOOK')() <= 250, true],
  [['after a quarter of a second first, then up to every 30 s'], () => [constant('src/cache/shared/mod.rs', 'AFTER_LOST')(), constant('src/cache/shared/mod.rs', 'AFTER_LATE')()], [250, 30_000]],
  [['then nobody does for 30 s', 'tried again every 30 s', 'the server is not asked again for 30 seconds'], constant('src/cache/shared/mod.rs', 'AFTER_LATE'), 30_000],
  [['up to 16,384 entries or 32 MiB'], () => [constant('src/cache/shared/queue.rs', 'QUEUE_ENTRIES')(), constant('src/cache/shared/queue.rs', 'QUEUE_BYTES')()], [16_384, 32 * 2 ** 20]],
  [['Tried again after a second'], constant('src/cache/shared/worker.rs', 'AFTER_FULL'), 1000],
  [['what waits is written for 3 s at most'], constant('src/cache/shared/mod.rs', 'DRAIN'), 3000],
  [['(`commandTimeoutMs: 5000`)'], constant('lib/queue/vectors.ts', 'COMMAND_MS'), 5000],
  [['gives such a chunk back half a second later'], constant('lib/queue/worker.ts', 'WRONG_MODEL_MS'), 500],
  [['after `lockDurationMs` (15 s) and half of it'], source('lib/queue/worker.ts', /stalledInterval: Math\.ceil\(lockDurationMs \/ 2\)/), true],
  [['failed after the sixth'], constant('lib/queue/worker.ts', 'MOST_STALLED'), 5],
  [['tried four times with pauses of 1, 2 and 4 s, then by up to three other workers'], () => ['MOST_TRIES', 'FIRST_PAUSE_MS', 'MOST_WORKERS'].map((name) => constant('lib/queue/worker.ts', name)()), [4, 1000, 4]],
  [['workers and producers wait for it, for a minute'], constant('lib/queue/worker.ts', 'TIER_MS'), 60_000],
  [['among BullMQ\'s failed ones for a week'], () => constant<{ removeOnFail: { age: number } }>('lib/queue/channel.ts', 'KEPT')().removeOnFail.age, 7 * 86_400],
  [['made again, up to eight times with pauses that double (half a minute in all)'], () => Math.round(sum(constant('lib/queue/run.ts', 'MOST_AGAIN')(), constant('lib/queue/run.ts', 'FIRST_PAUSE_MS')(), constant('lib/queue/run.ts', 'LONGEST_PAUSE_MS')()) / 10_000), 4],
  [['128: jobs of this run'], () => defaults().get('AddOptions.maxPendingChunks'), '128.'],
  [['heard of in the last quarter of a minute'], constant('lib/queue/registry.ts', 'LISTED_MS'), 15_000],
  [['Fewer where they are long: 4 million characters'], () => Math.floor(constant('lib/queue/run.ts', 'CHUNK_CHARACTERS')() / 1e6), 4],
  // Engines and models
  [['rows are filled up to 1, 2, 3, 4, 6, 8, 12, 16, …, and tokens to a multiple of 8, or beyond 64 to the next of 80, 96, 112, 128, 160, …: 20 lengths up to 512'], deviceShapes, [[1, 2, 3, 4, 6, 8, 12, 16], 8, 64, [80, 96, 112, 128, 160], 20]],
  [['Four batches are on their way at a time'], constant('src/model/transformer.rs', 'DEVICE_BATCHES'), 4],
  [['more than 2,048 texts, the next 2,048 are tokenised meanwhile'], constant('src/generator/engine.rs', 'DEVICE_WINDOW_TEXTS'), 2048],
  [['with 128 rows of 128 tokens with `\'cuda\'` and `\'tensorrt-rtx\'`, with 32 with others'], source('src/model/device.rs', /Cuda \| Provider::TensorRtRtx => 128,\s+_ => 32,\s+\};\s+let budget = Budget \{ max_tokens: rows \* 128, /), true],
  [['up to eight times as many'], constant('src/batch/sizing.rs', 'MOST_TIMES'), 8],
  [['none that large is tried for the next 64; then twice as much is'], constant('src/model/device.rs', 'RECOVERY'), 64],
  [['eight built-in texts'], source('src/generator/agreement.rs', /const PROBES: \[&str; 8\]/), true],
  [['at least 1.1 times as fast', 'at least 1.1 times as fast as ONNX Runtime'], constant('src/generator/choice.rs', 'LEAST_GAIN'), 1.1],
  [['to a cosine of at least 0.9999', 'a cosine of 0.9999 allows', 'to a cosine of 0.9999. It never fails'], constant('src/generator/agreement.rs', 'LEAST_COSINE'), 0.9999],
  [['its score may differ by 0.01', 'own score may differ by 0.01 of how far', 'scores of pairs: to 0.01'], constant('src/generator/agreement.rs', 'MOST_DIFFERENCE'), 0.01],
  [["Weights of more than 100 MB in a graph's own file are not read into memory first"], () => constant('src/model/memory_cost.rs', 'LARGE')() / 2 ** 20, 100],
  [['less than 10 ms for a batch'], () => constant('src/generator/choice.rs', 'WORTH_TRYING')() * 1000, 10],
  [['always 512 tokens', 'no batch has more than 512 tokens'], source('src/batch/mod.rs', /max_tokens: 512, max_rows: 64/), true],
  [['where `maxBatchSize` is 1024 here'], constant('src/batch/sizing.rs', 'MOST_ROWS'), 1024],
  [['(seconds of silence, 10)'], source('src/model/hub/mod.rs', /"HF_HUB_DOWNLOAD_TIMEOUT"[\s\S]{1,200}unwrap_or\(10\.0\)/), true],
  [['`max_length` (512 unless it does)'], constant('src/model/directory.rs', 'MODEL2VEC_TOKENS'), 512],
  [['1048576, as many as a text can have'], constant('src/model/directory.rs', 'MOST_TOKENS'), 1_048_576],
  [['The hub is asked for an answer, for five seconds at most'], constant('src/model/hub/state.rs', 'PATIENCE'), 5000],
  [['cut to 8 characters for each of `maxTokens` (default 512)'], prepared, [80, 4096]],
  [['An image with more than 100 million pixels'], constant('src/images/mod.rs', 'MOST_PIXELS'), 1e8],
  [['64 hexadecimal digits'], source('__test__/remote.test.ts', /test\('the fingerprint is of kind, server, name and digest, unless it is given'/), true],
  [['`tokenize` for up to 1024 texts at a time'], constant('src/generator/reading.rs', 'WINDOW_TEXTS'), 1024],
  [['Reads no more than some hundred inputs ahead'], () => constant('lib/generator/stream.ts', 'WINDOW')() * constant('lib/generator/stream.ts', 'RUNNING')() < 1000, true],
  // Models elsewhere
  [['if it is no more than a minute or `timeoutMs`'], constant('src/model/remote/client.rs', 'LONGEST_PAUSE'), 60_000],
  [['from up to a quarter of a second'], constant('src/model/remote/client.rs', 'FIRST_PAUSE'), 250],
  [['requests at a time, 1 to 256'], constant('src/binding/options/mod.rs', 'MOST_REQUESTS'), 256],
  [['that was five seconds ago or more'], constant('src/generator/loaded.rs', 'TRUSTED'), 5000],
  [['does not say within a second'], constant('src/generator/loaded.rs', 'PATIENCE'), 1000],
  [['one counted for three bytes of UTF-8', 'counting one for three bytes of UTF-8'], constant('src/embedding.rs', 'BYTES_PER_TOKEN'), 3],
  // Language models
  [['followed, up to 20'], followed, 20],
  [['Texts to be embedded go 128 in a request'], texts, 128],
  [['fails five times in a row (`failureThreshold`) is left alone for 30 seconds (`cooldownMs`)', 'fails five times in a row, by errors or by taking too long, is left alone for 30 seconds'], breaker, [5, 30]],
  [['half a second more where it is longer than a second'], silence, true],
  [['known within five seconds'], () => constant('lib/llm/ollama.ts', 'PATIENCE_MS')() < 5000, true],
  [['the latest 1000 are remembered'], constant('lib/http/client.ts', 'HOSTS'), 1000],
  // Memory and batches
  [['leave no room within ten seconds'], constant('src/memory/governor/mod.rs', 'LONGEST_WAIT'), 10_000],
  [['every ten seconds while there is something new'], constant('src/generator/engine.rs', 'KEEP_EVERY'), 10_000],
  [['settles within 30 batches (the first `minSamples`, 10,', 'some twenty batches'], constant('src/batch/optimizer/mod.rs', 'SEARCH'), 20],
  [['tried again after 8 successes in a row, later after 40'], () => [constant('src/batch/optimizer/failures.rs', 'WAIT')(), constant('src/batch/optimizer/failures.rs', 'MOST_WAIT')()], [8, 40]],
  [['0.25 in ln v for each doubling'], constant('src/batch/sizing.rs', 'UNLIKE'), 0.25],
  [['e^(±1.96 σ)', '95 of 100'], constant('src/generator/forecast.rs', 'SIGMAS'), 1.96],
  [['the standard deviation of ln v, at least 0.05'], constant('src/generator/forecast.rs', 'LEAST_SIGMA'), 0.05],
  [['trying costs at most 5 % of all time'], constant('src/batch/optimizer/acquisition.rs', 'SHARE'), 0.05],
  [['At most 0.1 below `minSamples`'], () => new DynamicBatchOptimizer().getOptimizationRecommendation().confidence <= 0.1, true],
  [['The latest 20 batches'], () => filled().recentHistory.length, 20],
  [['latest five batches against the five before'], constant('src/batch/optimizer/analytics.rs', 'RECENT'), 5],
  [['(so many as `historyRetention` says, 1000 at most)'], constant('src/generator/stage_metrics.rs', 'MOST_RECENT'), 1000],
  [['streaming (1 item), conservative (8), balanced (32, parallel), aggressive (128, parallel)'], strategies, 'streaming (1 item), conservative (8), balanced (32, parallel), aggressive (128, parallel)'],
  [['Memory at the start and after each batch: the latest 1000'], history, 1000],
  [['whatever the strategy allows: 1–100000'], sizes, [undefined, undefined, 'batchSize', 'batchSize']],
  [['4 KB each before any has'], capacity, 4],
  [['would clean up: from 80 %'], () => MemoryAwareConfig.cleanupThreshold, 80],
  [['a process takes three threads for each core, and six more'], () => [constant('src/host/threads.rs', 'BESIDE')(), textOf('src/host/threads.rs').includes('probe(3 * available_cores() + BESIDE)')], [6, true]],
  // Monitoring
  [['within 0.4 % of exact ones', 'off by at most 0.4 %', 'right to 0.4 %'], () => percentiles() <= 0.004, true],
  [['The first 1000 names'], () => names().length, 1000],
  [['the oldest first: at most 100'], failures, 100],
  [['More than 10,000 at a time are not kept'], cycles, 1],
  [['`toText()` (80 columns)', 'at most 80 columns wide'], () => wide() <= 80, true],
  [['0.7 × hit ratio + 0.3 × share'], source('lib/cache/embedding-cache.ts', /0\.7 \* stats\.hitRatio \+ 0\.3 \* kept/), true],
  [['At most a second old', 'at most a second old'], () => ['batch', 'metrics'].map((name) => constant(`src/binding/${name}.rs`, 'INTERVAL')()), [1000, 1000]],
  [['it begins within a second after one was set'], constant('lib/monitor/open-telemetry.ts', 'LOOK_MS'), 1000],
  [['within a quarter of a second while they go on recording'], constant('lib/monitor/monitor.ts', 'WAIT_MS'), 250],
  [['Rows beyond the first 1000 are left out'], constant('lib/dashboard/dashboard.ts', 'MOST_ROWS'), 1000],
  [['the 50 busiest'], constant('lib/dashboard/dashboard.ts', 'BUSIEST'), 50],
  // Parallel work
  [['Idle workers end after two seconds', 'They end by themselves two seconds after the last run'], constant('lib/parallel/pool.ts', 'IDLE_MS'), 2000],
  [['the newest 20 samples'], constant('lib/parallel/evaluator.ts', 'NEWEST'), 20],
  [['percentiles within 1 %', 'Percentiles are within 1 % of the value'], () => constant('lib/parallel/statistics.ts', 'GAMMA')() <= 1.02, true],
  [['twice as many as there are cores for this process, at least 4'], source('lib/parallel/files.ts', /Math\.max\(4, 2 \* cores\(\)\)/), true],
  // Search and collections
  [['`0.7 × max(0, similarity) + 0.22 × words + 0.08 × name`'], () => ['WORDS_SHARE', 'NAME_SHARE'].map((name) => constant('src/index/rank.rs', name)()), [0.22, 0.08]],
  [['`n / (n + 0.5 (0.25 + 0.75 length / 60))`', '(k₁ 0.5, b 0.75, for a usual length of 60 words)'], () => ['K1', 'B', 'USUAL_LENGTH'].map((name) => constant('src/index/rank.rs', name)()), [0.5, 0.75, 60]],
  [["the query's first 4 words", 'that of its first 4 words'], constant('src/index/rank.rs', 'FIRST_WORDS'), 4],
  [['the first 2,000 bytes of its source'], constant('src/index/outline/mod.rs', 'MAX_CODE'), 2000],
  [['again 0.2 s after files have changed'], constant('lib/search/code-index.ts', 'DEBOUNCE_MS'), 200],
  [['at least every 2 s', 'at most ten times as long after the first change'], () => constant('lib/search/watcher.ts', 'LONGEST_DEBOUNCE')() * constant('lib/search/code-index.ts', 'DEBOUNCE_MS')(), 2000],
  [['an update waits up to 5 s for its turn'], constant('lib/search/code-index.ts', 'WAIT_MS'), 5000],
  [['looks again at the best 50, or `limit`', 'Looks again at the best answers, 50 or `limit` if that is more'], constant('lib/search/reranking.ts', 'CANDIDATES'), 50],
  [['after a second at first and after half a minute at last'], () => [constant('lib/search/watcher.ts', 'FIRST_RETRY_MS')(), constant('lib/search/watcher.ts', 'LAST_RETRY_MS')()], [1000, 30_000]],
  [['Up to 100 of them, without those in other languages'], source('src/index/tree/mod.rs', /const EXAMPLES: usize = 100;/), true],
  [['files above 1 MB'], constant('src/index/tree/mod.rs', 'MAX_FILE_BYTES'), 2 ** 20],
  [['`INVALID_ARGUMENT` where there are more than 16,777,216'], constant('src/matrix/nearest.rs', 'MOST_PAIRS'), 16_777_216],
  [['Its name, 1 to 1024 bytes'], ids, ['INVALID_ARGUMENT', 'INVALID_ARGUMENT']],
  [['writes wait for their turn, half a minute at most'], constant('src/collection/store/mod.rs', 'BUSY'), 30_000],
  [['less than 3 MB of sources or 768 files behind'], () => {
    const [bytes, files, ahead] = ['CHUNK_BYTES', 'CHUNK_FILES', 'EMBEDDING'].map((name) => constant('src/index/update.rs', name)());
    return [bytes! * (ahead! + 1), files! * (ahead! + 1)];
  }, [3 * 2 ** 20, 768]],
  [['in 19 languages'], languages, 19],
  [['it has `0.9 + 0.1 ×` that score', 'has `0.9 ×` that score', '`0.9 + 0.1 ×` that', '`0.9 ×` that'], () => ['NAMED', 'ASIDE'].map((name) => constant('src/index/rank.rs', name)()), [0.9, 0.9]],
  [['up to 1,200 characters, of which each repeats up to 200'], () => ['MOST', 'OVERLAP'].map((name) => constant('src/index/outline/passages.rs', name)()), [1200, 200]],
  [['A query of up to 64 vectors is compared while the event loop waits'], constant('lib/encoders/multi-vector-encoder.ts', 'COMPARED_AT_ONCE'), 64],
  [['takes 4 bytes for each token of the text and of the vocabulary'], () => Float32Array.BYTES_PER_ELEMENT, 4],
  // Answers and plans
  [['there is 1 below 0.5, 2 from 0.5 (`thresholds.mid`), 3 from 0.7 (`high`), 4 from 0.8 (`critical`)', 'From which risk on there are 2, 3 and 4 candidates', 'more are asked for, up to 4'], candidates, [1, 1, 2, 2, 3, 3, 4, 4]],
  [['(1 − 0.6 l)(1 − 0.5 q)(1 − 0.8 a)`', 'one half at 120 words, 1.5 question marks, and two such words'], risks, [half(0, 0), half(0, 3, 117), half(2, 0)]],
  [['0.2 where a text breaks off'], source('lib/coherence/statistics.ts', /ended \|\| short \|\| free \? 1 : 0\.2/), true],
  [['None is below 0.05'], constant('lib/coherence/evaluation.ts', 'LEAST'), 0.05],
  [['a cosine of 0.3 counts as 1'], constant('lib/coherence/evaluation.ts', 'RELATED'), 0.3],
  [['a modality weighs 1 + 0.5 for each of its keywords'], constant('lib/coherence/analyzer.ts', 'BY_HIT'), 0.5],
  [['(`text` has one more past 15 distinct words, and another past 25)'], () => [15, 16, 25, 26].map((count) => weigh(distinct(count))['text']), [0, 1, 1, 2]],
  [['`exp(10 s)`'], () => 1 / constant('lib/coherence/analyzer.ts', 'TEMPERATURE')(), 10],
  [['Below 0.5, for texts 0.55, it is a conflict', 'below 0.5 for lists and other values, 0.55 for texts'], () => [
    [{ a: [1, 2, 3] }, { a: [1, 2, 3, 4, 5, 6] }], [{ a: [1, 2, 3] }, { a: [1, 2, 3, 4, 5, 6, 7] }],
    [{ a: 'abcdefghijk' }, { a: `abcdefghijk${'x'.repeat(17)}` }], [{ a: 'abcdefghijk' }, { a: `abcdefghijk${'x'.repeat(19)}` }],
  ].map(([one, other]) => 'a' in disagreement(one!, other!).conflicts), [false, true, false, true]],
  [['by words, up to 1000'], constant('lib/coherence/gestalt.ts', 'BY_WORDS'), 1000],
  [['Exact by characters up to 500 of them'], constant('lib/coherence/gestalt.ts', 'BY_CHARACTERS'), 500],
  // Serving
  [['(the dashboard: 256, and 64 readers of events)'], () => [constant('lib/server/page.ts', 'MAX_CONNECTIONS')(), constant('lib/server/page.ts', 'MAX_READERS')()], [256, 64]],
  [['16 kB of headers'], () => maxHeaderSize, 16_384],
  [['for which it is never more than a minute'], source('lib/interfaces/http.ts', /headersTimeout: Math\.min\(bodyTimeoutMs, 60_000\)/), true],
  [['give or take a quarter of a second'], constant('lib/interfaces/server.ts', 'LAST_WORDS_MS'), 250],
  [['half a minute (`bodyTimeoutMs`)'], () => defaults().get('EmbeddingServerOptions.bodyTimeoutMs'), '30000.'],
  [['a connection beyond `--max-connections` (4096)'], () => defaults().get('EmbeddingServerOptions.maxConnections'), '4096.'],
  [['after 8 seconds at the latest (`--drain-seconds`)'], () => defaults().get('EmbeddingServerOptions.drainTimeoutMs'), '8000.'],
];

/** Sections of what was measured, and sentences that promise nothing. */
const MEASURED = /^(How fast|How good|How it scales|What it costs|Event loop and memory|What it chooses, and what it cannot see|Work on it|TypeScript)/;
const TOLD = [
  /node benchmark\/|npm run test:|cargo test|on a small cloud machine|had looked at what they miss/i, /^\| `near-\w+\.json`/, /^- \*\*(Node\.js|Bun|Deno|Jest)/, /\*\*What was tried\.\*\*/,
  // Rows of figures, and what is only advised.
  /^\|[^|]*\|(\s*\**[\d.,–]+( [%×]| \w+)?\**\s*\|){2,}/, /^Begin with/,
];
const NO_LIMIT = [
  // Versions, names, formats, addresses, statuses, parts of formulas that are shown elsewhere.
  /\b(Node\.js|sentence-transformers|Redis|Valkey|RFC|glibc|macOS|Jest|Pillow|OpenAPI|TypeScript|ai`?|`ai`, in version|peer:?|optional peer|versions?|releases?|License|UTF|AVX|Redis from)[ (-]*\d[\d.]*(( and| or|,) \d[\d.]*)*\)?/g,
  /`[^`]*(?:[a-z_-]\d|\d[a-z_-]|:\/\/|\{)[^`]*`/gi,
  /\w+-\w*\d\w*(?:-\w+)*|\b[A-Za-z]+\d+\w*|\d+(?:-bit| bits)|in 32 or|sums of 32|the upper 8|127\.0\.0\.1:?\d*|`tinypool` 2\.2|`piscina` 5\.3|PD\), 0\.2 each|0\.0\.0\.0/g,
  /(?<![\d.,])(20[04]|299|30[178]|40[01345789]|41[35]|42[259]|50[034]|599|[45]xx)(?![\d.,]*\d)/g,
  /since 1970|1024 × 1024 bytes|1,048,576 bytes|Over 1, 5 and 15 minutes|0–100|0 to 100, of all|ends with 100|at 100 %|0\.1 for 10 %|\(2 for the command itself, 130 after|spread \/ 2|· 4 for the vectors/g,
  /(?<![\w.,])[-−]?[01](?![\w.,]*\d|\.\d)/g, /^\d\. | \d\. (?=`|Every)/g,
  // Figures of size and speed.
  /about \d[\d.,]* (µs|MB|bytes)[^.;]*|10 MB, no download, more than 150 ×|\d+ MB installed|cosines of 1\.00000|as low as 0\.997|within a tenth of a second|10,000 of 5 × 5[^.]*840|about 0\.05 µs|some 0\.6 KB for each of 384|some 0\.1 ms for 1000|some 50 ms|80 MB once|\(256 for all-|99 of 100|Among 100,000|half, 95 and 99 of a hundred|more than ten times|Of 60 labelled[^.]*|three times and running|a second engine|(?:items?|tokens|samples|answered in|times) a second|answer within a week|32 random|about a millisecond|takes less than a millisecond|costs a millisecond|some (?:hundredths|tenths) of a second|has a Valkey, two workers|How alike two texts/gi,
];
const UNIT = 'inputs|milliseconds?|seconds?|minutes?|hours?|days?|times|tries|attempts|workers|threads|runs|processes|bytes|steps|texts|tokens|items|batches|columns|in a row|at least|at most|of a second|of a minute';
const NUMBER = new RegExp(`(?<![\\w/])\\d[\\d,.]*|\\b(?:half|third|quarter|tenth|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|hundred|thousand|million)\\b(?= ?(?:an? |other |more |good )?(?:${UNIT}))|\\b(?:an?|one) (?=(?:milli)?second\\b|minute|hour|day|week)`, 'gi');

/** Defaults that are repeated: `name` (1000), `name` (15 s), (`name`: 100), `name`, 0.5,; beside the tables of options. */
const REPEATED = /`(\w+)`(?: \(|: |, )(\d[\d.]*\d|\d)( s)?(?=[),])/g;

/** Whether the types give an option of this name this default. */
const stated = [...defaults()];
function isDefault(name: string, value: string): boolean {
  return stated.some(([option, said]) => option.endsWith(`.${name}`) && /^(\[.*?\]|[\d.]*\d|\w+)/.exec(said.replaceAll('`', ''))?.[0] === value.replaceAll('`', ''));
}

const [everywhere, promised] = [[...guides(/^$/), ...comments()], [...guides(MEASURED), ...comments()]];

test.each(SHOWN)('%j', async (phrases, show, gives) => {
  expect(await show()).toEqual(gives);
  for (const phrase of phrases) expect(everywhere.some(({ text }) => text.includes(phrase)), phrase).toBe(true);
});

test('what a guide repeats of defaults is what the types say', () => {
  const wrong: string[] = [];
  for (const { where, text } of everywhere) {
    for (const [all, name, value, seconds] of text.matchAll(REPEATED)) if (!isDefault(name!, seconds ? `${Number(value) * 1000}` : value!)) wrong.push(`${where}: ${all}`);
  }
  for (const page of PAGES) {
    for (const table of textOf(page).split('\n\n').filter((block) => /^\|[^|]*\| default \|/.test(block))) {
      for (const row of table.split('\n').slice(2)) {
        const [, first, second] = row.split(/(?<!\\)\|/);
        const named = [...first!.matchAll(/`(\w+)`/g)].map(([, name]) => name!);
        const values = second!.match(/\[[^\]]*\]|`[^`]*`|\d[\d–.]*/g) ?? [];
        if (values.length !== named.length) continue;
        for (const [i, value] of values.entries()) if (/^[\d[]|true|false/.test(value) && !isDefault(named[i]!, value)) wrong.push(`${page}: ${named[i]} ${value}`);
      }
    }
  }
  expect(wrong).toEqual([]);
});

test('every number that promises something is shown', () => {
  const options = new Set([...textOf('__test__/options.test.ts').matchAll(/type: '(\w+)'/g)].map(([, type]) => type!));
  const unshown: string[] = [];
  for (const { where, owner, text } of promised) {
    if (TOLD.some((told) => told.test(text))) continue;
    let rest = SHOWN.flatMap(([phrases]) => phrases).reduce((left, phrase) => left.replaceAll(phrase, '_'), text);
    // Shown with all defaults, and with all options.
    rest = rest.replace(/Default:? [`\d'[-].*?(?:\.(?= |$)|$)/g, '_').replace(REPEATED, '_');
    if (owner === '' && /^\|.*\|.*\|/.test(rest)) rest = rest.replace(/^\|[^|]*\|[^|]*\|/, '_');
    if (options.has(owner)) for (const end of ENDS) rest = rest.replace(end, '_');
    for (const pattern of NO_LIMIT) rest = rest.replace(pattern, '_');
    for (const { 0: number, index } of rest.matchAll(NUMBER)) unshown.push(`${where}: … ${rest.slice(Math.max(0, index - 50), index)}[${number}]${rest.slice(index + number.length, index + number.length + 40)} …`);
  }
  expect(unshown).toEqual([]);
});
