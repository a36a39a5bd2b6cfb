// What the guides and the types state of codes and defaults, each shown once: a new statement is red until something shows it.
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

import {
  DynamicBatchOptimizer,
  EmbeddingCollection,
  EmbeddingMatrix,
  InferenceCache,
  IntelligentEmbeddingCache,
  MemoryAwareProcessor,
  OptimizedEmbeddingGenerator,
  PerformanceMonitor,
  SparseEncoder,
  topK,
} from 'embedcore';
import { coherenceMetrics } from 'embedcore/coherence';
import { describe, expect, onTestFinished, test, vi } from 'vitest';

import { directory } from './files';
import { startHub } from './hub-server';
import { constant, defaults } from './prose';
import { copyOf, failure, model, ready, root } from './support';

const bert = model('bert-mean');

/** How each code comes about; a sentence for what nobody can bring about on purpose. */
const CODES: Record<string, (() => Promise<unknown>) | string> = {
  INVALID_ARGUMENT: () => new IntelligentEmbeddingCache().set('key', 'content', []),
  INVALID_CONFIG: async () => new IntelligentEmbeddingCache({ maxEntries: 0 }),
  CACHE_STORAGE_FAILED: async () => {
    const persistPath = join(directory(), 'cache.db');
    writeFileSync(persistPath, 'somebody else\'s');
    const cache = new IntelligentEmbeddingCache({ persistPath });
    await cache.set('key', 'content', [1]);
    await cache.flush();
  },
  INPUT_TOO_LONG: async () => (await ready({ modelPath: bert })).embed(['a'.repeat(2 ** 20 + 1)]),
  MODEL_INIT_FAILED: () => new OptimizedEmbeddingGenerator({ modelPath: directory() }).initialize(),
  RATE_LIMITED: async () => {
    const hub = await startHub();
    hub.fault = (_, response) => (response.writeHead(429).end(), true);
    vi.stubEnv('HF_ENDPOINT', hub.url);
    await new OptimizedEmbeddingGenerator({ modelPath: 'acme/any', cacheDir: directory() }).initialize();
  },
  EMBEDDING_GENERATION_FAILED: async () => {
    // Longer than the positions that there really are.
    const modelPath = copyOf('bert-cls');
    writeFileSync(join(modelPath, 'config.json'), '{"model_type":"bert","max_position_embeddings":100000,"hidden_size":32}');
    writeFileSync(join(modelPath, 'tokenizer_config.json'), '{}');
    await (await ready({ modelPath, maxLength: 5000 })).embed(['a '.repeat(4000)]);
  },
  NOT_INITIALIZED: () => new OptimizedEmbeddingGenerator().embed(['a']),
  CLOSED: async () => {
    const cache = new IntelligentEmbeddingCache();
    await cache.close();
    await cache.get('key', 'content');
  },
  ABORTED: async () => (await ready({ modelPath: bert })).embed(['a'], { signal: AbortSignal.abort() }),
  TIMED_OUT: async () => {
    const generator = await ready({ modelPath: bert });
    async function* never() {
      await new Promise(() => {});
      yield 'a';
    }
    for await (const _ of generator.stream(never(), { timeoutMs: 10 })) expect.fail('there is nothing');
  },
  BACKEND_UNAVAILABLE: async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    vi.stubEnv('HF_ENDPOINT', `http://127.0.0.1:${port}`);
    await new OptimizedEmbeddingGenerator({ modelPath: 'acme/any', cacheDir: directory() }).initialize();
  },
  MEMORY_LIMIT_EXCEEDED: () => new OptimizedEmbeddingGenerator({ modelPath: bert, memoryLimit: 1 }).initialize(),
  BACKEND_REJECTED: async () => {
    const server = createServer((_, response) => response.writeHead(400).end()).listen(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await new Promise((resolve) => server.once('listening', resolve));
    const remote = { kind: 'openai', url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, model: 'any' } as const;
    await (await ready({ remote })).embed(['a']);
  },
  OVERLOADED: 'nothing has this code yet',
  INTERNAL: 'a defect of ours',
};

describe('every code of an error', () => {
  const guide = readFileSync(join(root, 'docs', 'errors.md'), 'utf8');
  const rows = guide.split('\n').filter((line) => line.startsWith('| `'));
  test('is in the guide, and shown here', () => {
    const [, union] = /export type EmbeddingErrorCode = (.*?);/s.exec(readFileSync(join(root, 'index.d.ts'), 'utf8'))!;
    const codes = [...union!.matchAll(/"(\w+)"/g)].map(([, code]) => code!);
    const documented = rows.flatMap((line) => [...line.split('|')[1]!.matchAll(/`(\w+)`/g)].map(([, code]) => code!));
    expect(documented.sort()).toEqual(codes.sort());
    expect(Object.keys(CODES).sort()).toEqual(codes);
  });

  test.each(Object.entries(CODES))('%s', async (code, provoke) => {
    onTestFinished(() => void vi.unstubAllEnvs());
    for (const name of Object.keys(process.env)) if (/^HF_|^HUGGING|_proxy$/i.test(name)) vi.stubEnv(name, undefined);
    if (typeof provoke === 'string') expect(rows.find((line) => line.includes(`\`${code}\``))).toContain(provoke);
    else expect(await failure(provoke)).toMatchObject({ name: expect.stringContaining('Error'), code });
  });
});

const hours = async (options: { type?: string; modality?: 'image' | 'audio' }) => {
  const cache = new InferenceCache();
  await cache.set('content', 1, options);
  const { createdAt, expiresAt } = (await cache.get('content', options))!;
  return (expiresAt! - createdAt) / 3_600_000;
};
const typeOf = async (modality?: 'image' | 'audio') => {
  const cache = new InferenceCache();
  await cache.set('content', 1, modality && { modality });
  return (await cache.get('content', modality && { modality }))!.type;
};
const optimizer = () => new DynamicBatchOptimizer().getConfig() as unknown as Record<string, number>;
/** The least usage in %, in whole ones, at which this strategy is taken. */
const threshold = (name: string) => {
  const processor = new MemoryAwareProcessor();
  onTestFinished(() => processor.stop());
  const metrics = processor.getCurrentMemoryMetrics();
  return Array.from({ length: 101 }, (_, i) => i).find((memoryUsagePercent) => processor.selectOptimalStrategy({ ...metrics, memoryUsagePercent }).name === name);
};
const near = async () => {
  const cache = new IntelligentEmbeddingCache();
  await cache.setMany(Array.from({ length: 30 }, (_, i) => ({ key: `k${i}`, content: 'x', embedding: [-1, i] })));
  await cache.set('opposite', 'x', [-1, 0]);
  return cache;
};
const largest = async (mb: number) => {
  const cache = new InferenceCache();
  await cache.set('key', new Uint8Array(mb * 2 ** 20));
  return cache.has('key');
};

/** What an `OllamaClient` files its results under. */
const cacheTypes = async () => {
  const { OllamaClient } = await import('embedcore/llm');
  const server = createServer((_, response) => response.setHeader('Content-Type', 'application/json').end('{"model":"m","response":"r","done":true}')).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const types: string[] = [];
  for (const more of [{}, { images: [new Uint8Array([1])] }]) {
    const cache = new InferenceCache();
    const client = new OllamaClient({ baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, model: 'm', cache });
    await client.generate({ prompt: 'p', ...more });
    types.push(...Object.entries(cache.getStats().byType).filter(([, { sets }]) => sets > 0).map(([type]) => type));
  }
  server.close();
  return types.join() === 'text_inference,vision_inference' ? "`'text_inference'`" : types.join();
};

/** What the shared tier takes where nothing is given; nobody sees it from outside. */
const shared = (pattern: RegExp, as: (value: string) => string | number) => () =>
  as(pattern.exec(readFileSync(join(root, 'src', 'cache', 'shared', 'mod.rs'), 'utf8'))?.[1] ?? '');

/** What `singleFlight` is where nothing is given: whether machines share flights is what crosses. */
const inOneProcess = () => {
  const read = /one_of\("singleFlight", &\[\("process", false\), \("cluster", true\)\]\)\?\.unwrap_or_default\(\)/;
  return read.test(readFileSync(join(root, 'src', 'binding', 'options', 'cache.rs'), 'utf8')) ? "`'process'`" : 'another';
};

/** Defaults as they really are: what the statement begins with. */
const DEFAULTS: Record<string, () => unknown> = {
  ...Object.fromEntries(Object.keys(optimizer()).map((name) => [`BatchOptimizerOptions.${name}`, () => optimizer()[name]])),
  'CacheOptions.maxEntries': () => new IntelligentEmbeddingCache().getStats().maxEntries,
  'CacheOptions.maxMemoryMB': () => new IntelligentEmbeddingCache().getStats().maxSizeBytes / 2 ** 20,
  'CacheOptions.enableContentValidation': async () => {
    const cache = new IntelligentEmbeddingCache();
    await cache.set('key', 'content', [1]);
    return (await cache.get('key', 'other')) === null;
  },
  'CacheOptions.vectorPrecision': async () => {
    const cache = new IntelligentEmbeddingCache();
    await cache.set('key', 'content', [0.1]);
    return (await cache.get('key', 'content'))!.embedding[0] === Math.fround(0.1) ? "`'f32'`" : 'less';
  },
  'InferenceCacheOptions.maxEntries': () => new InferenceCache().getStats().maxEntries,
  'InferenceCacheOptions.maxMemoryMB': () => new InferenceCache().getStats().maxSizeBytes / 2 ** 20,
  'InferenceCacheOptions.maxValueMB': async () => ((await largest(16)) && (await failure(() => largest(16.01))).code === 'INVALID_ARGUMENT' ? 16 : 'another'),
  'InferenceCacheOptions.ttlSeconds': async () => `${await hours({ type: 'mine' })} hours`,
  'InferenceCacheOptions.ttlSecondsByType': async () => {
    const all = await Promise.all(['text_inference', 'vision_inference', 'audio_inference', 'embedding'].map((type) => hours({ type })));
    return `${[...new Set(all)].map((each) => each / 24).join()} days for \`text_inference\`, \`vision_inference\`, \`audio_inference\` and \`embedding\`, ${await hours({ type: 'api' })} hours`;
  },
  'InferenceKeyOptions.type': async () => `\`'${await typeOf()}'\`, \`'${await typeOf('image')}'\` or \`'${await typeOf('audio')}'\``,
  'MemoryThresholds.critical': () => threshold('streaming'),
  'MemoryThresholds.high': () => threshold('conservative'),
  'MemoryThresholds.normal': () => threshold('balanced'),
  'MonitorOptions.maxCycles': () => {
    const monitor = new PerformanceMonitor();
    for (let i = 0; i < 1200; i++) {
      monitor.startCycle(`cycle ${i}`);
      monitor.endCycle(`cycle ${i}`);
    }
    return monitor.getCycles().length;
  },
  'PrometheusOptions.prefix': () => {
    const monitor = new PerformanceMonitor();
    monitor.record('name', 1);
    return /^# HELP (\w+?)_/m.exec(monitor.toPrometheus())![1] === 'embedcore' ? '`embedcore`' : 'another';
  },
  'SparseEncoderOptions.averageLength': async () => {
    const encoder = new SparseEncoder({ modelPath: 'bm25' });
    onTestFinished(() => encoder.shutdown());
    await encoder.initialize();
    const { values } = (await encoder.embed([`word ${'another '.repeat(255)}`]))[0]!;
    return Math.abs(Math.min(...values) - 1) < 1e-6 ? 256 : 'another';
  },
  'GeneratorOptions.intraOpThreads': async () => (await ready({ modelPath: bert })).getModelInfo().intraOpThreads,
  'GeneratorOptions.executionProviders': async () => `\`${JSON.stringify((await ready({ modelPath: bert })).getModelInfo().executionProviders).replaceAll('"', "'")}\``,
  'GeneratorOptions.cache': async () => {
    const generator = await ready({ modelPath: bert });
    await generator.embed(['a']);
    return [...(await generator.embed(['a'])).fromCache][0] === 1 ? '`{}`' : 'none';
  },
  'AddModelOptions.revision': async () => {
    const hub = await startHub();
    hub.add('acme/any', 'bert-mean');
    vi.stubEnv('HF_ENDPOINT', hub.url);
    await ready({ modelPath: 'acme/any', cacheDir: directory() });
    return hub.asked.some(({ path }) => /\/(revision|resolve)\/main\b/.test(path)) ? '`main`' : hub.asked.map(({ path }) => path).join();
  },
  'HttpClientOptions.retryOn': async () => {
    const { HttpClient } = await import('embedcore/llm');
    const client = new HttpClient({ retryBackoffMs: [1] });
    const tried: Record<number, number> = {};
    const server = createServer((request, response) => {
      const status = Number(request.url!.slice(1));
      tried[status] = (tried[status] ?? 0) + 1;
      response.writeHead(status).end();
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    for (const status of [400, 404, 408, 409, 425, 428, 429, 430, 499, 500, 503, 599]) await client.get(`http://127.0.0.1:${(server.address() as AddressInfo).port}/${status}`).catch(() => {});
    await client.close();
    server.close();
    const again = Object.entries(tried).filter(([, times]) => times === 3).map(([status]) => status);
    return again.join() === '408,425,429,500,503,599' ? '408, 425, 429 and from 500' : again.join();
  },
  'OllamaSettings.cacheType': cacheTypes,
  'LlmGenerateOptions.cacheType': cacheTypes,
  'RemoteOptions.maxBatchItems': constant('src/model/remote/mod.rs', 'BATCH_ITEMS'),
  'RemoteOptions.concurrency': constant('src/model/remote/mod.rs', 'CONCURRENCY'),
  'RemoteOptions.timeoutMs': constant('src/model/remote/mod.rs', 'TIMEOUT'),
  'RemoteOptions.retries': constant('src/model/remote/mod.rs', 'RETRIES'),
  'SharedOptions.keyPrefix': shared(/key_prefix: "(\w+:)"/, (prefix) => `\`'${prefix}'\``),
  'SharedOptions.connectTimeoutMs': shared(/connect_timeout: Duration::from_secs\((\d+)\)/, (seconds) => Number(seconds) * 1000),
  'SharedOptions.commandTimeoutMs': shared(/command_timeout: Duration::from_millis\((\d+)\)/, Number),
  'IndexOptions.waitMs': constant('lib/search/code-index.ts', 'WAIT_MS'),
  'WatchOptions.debounceMs': constant('lib/search/code-index.ts', 'DEBOUNCE_MS'),
  'CacheOptions.singleFlight': inOneProcess,
  'InferenceCacheOptions.singleFlight': inOneProcess,
  'EntryOptions.modality': async () => {
    const cache = await near();
    await cache.set('bytes', Uint8Array.of(1), [1, 0]);
    return (await cache.get('bytes', Uint8Array.of(1), { modality: 'text' })) ? "`'text'`" : 'another';
  },
  'SimilarOptions.modality': async () => `\`'${[...new Set((await (await near()).findSimilar([1, 0])).map(({ modality }) => modality))].join()}'\``,
  'ImageCallOptions.maxPixels': constant('src/images/mod.rs', 'MOST_PIXELS'),
  'CoherenceMeasureOptions.weights': () => coherenceMetrics([[1]], { shrinkage: 0 }).CCI / 5,
  'SimilarOptions.limit': async () => (await (await near()).findSimilar([1, 0])).length,
  'CollectionQuery.minScore': async () => {
    await using collection = new EmbeddingCollection();
    await collection.upsert([{ id: 'opposite', embedding: [-1, 0] }]);
    return (await collection.query([1, 0]))[0]?.id === 'opposite' ? -1 : 'another';
  },
  'TopKOptions.threshold': async () => ((await topK([1, 0], new EmbeddingMatrix(Float32Array.of(-1, 0), 2), 1)).indices[0] === 0 ? -1 : 'another'),
  'SimilarOptions.threshold': async () => ((await (await near()).findSimilar([1, 0], { limit: 100 })).at(-1)?.key === 'opposite' ? -1 : 'another'),
};

/** Sources, in which a default stands that nobody can see from outside. */
function sources(directory: string, ends: string): string {
  const names = readdirSync(join(root, directory), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith(ends));
  return names.map((name) => readFileSync(join(root, directory, name), 'utf8')).join('\n').replace(/(?<=\d)_(?=\d)/g, '');
}
const [typescript, rust] = [sources('lib', '.ts'), sources('src', '.rs')];

/** Whether the sources give an option this value where it is left out. */
function isWritten(option: string, said: string): boolean {
  const [, literal] = /^`?('[^']*'|[a-z]+(?=`)|\[[^\]]*\]|[\d.]*\d|true|false)/.exec(said) ?? [];
  if (literal === undefined) return false;
  const plain = literal.replace(/[.[\]]/g, '\\$&');
  const value = /^[a-z]/.test(literal) && !['true', 'false'].includes(literal) ? `'${plain}'` : plain;
  const snake = option.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const inTypescript = new RegExp(`\\b${option}(: [\\w<> ]+)?( = |: | \\?\\? |: \\[)${value}(?![\\d.]*\\d)`).test(typescript) || new RegExp(`\\b${option} \\?\\? ${value}\\b`).test(typescript);
  const inRust = new RegExp(`\\b${snake}: (Duration::from_(millis|secs)\\()?${value}(\\.0)?[),]`).test(rust);
  // What is absent is not so.
  const implied = literal === 'false' && !new RegExp(`\\b${option} = true\\b`).test(typescript);
  return inTypescript || inRust || implied;
}

test('every default in the types is as they say', async () => {
  const stated = defaults();
  expect(stated.size).toBeGreaterThan(80);
  const wrong: string[] = [];
  for (const [name, said] of stated) {
    const measure = DEFAULTS[name];
    if (!measure && isWritten(name.split('.')[1]!, said)) continue;
    const is = measure ? String(await measure()) : 'shown by nothing';
    const begins = said.startsWith(is) && !/^[\d.]/.test(said.slice(is.length).replace(/^\.(?!\d)/, ''));
    if (!begins) wrong.push(`${name}: "${said.slice(0, 60)}", but ${is}`);
  }
  for (const name of Object.keys(DEFAULTS)) if (!stated.has(name)) wrong.push(`${name} is not stated`);
  expect(wrong).toEqual([]);
});
