// Everything at once, for hours: memory, open files and the slowest answers must stay as they are. See --help.

import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Worker, isMainThread } from 'node:worker_threads';

import { PlainError, count, main } from './lib.mjs';

const usage = `node --expose-gc benchmark/soak-all.mjs [--minutes N]

  --minutes N   how long (default 120)

At the same time: a generator with a cache and its file, results in a file, updates of an index, a server with clients, a dashboard
that is read, and a worker thread that is started and ended again each second. A line each minute; at the end, what has grown since
a quarter of the time was over: memory by 3 % at most, no file and no thread left open, the 99th percentile of the server's answers.`;

const CLIENTS = 4;
const FILES = 40;

/** Growth since the first quarter that is no leak. */
const MOST_GROWTH = 0.03;

const require = createRequire(import.meta.url);
const embedcore = require('../dist/index.js');

if (isMainThread) main(soak);
else {
  const generator = new embedcore.OptimizedEmbeddingGenerator({ modelPath: 'builtin' });
  await generator.initialize();
  await generator.embed(['a worker that lives for a moment']);
  await generator.cleanup();
}

function handles() {
  try {
    return readdirSync('/proc/self/fd').length;
  } catch {
    return NaN;
  }
}

const percentile = (values, share) => values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? NaN;

/** As a browser does: a connection that was kept, and that the server has closed in the same moment, is no failure. */
async function visit(url) {
  try {
    return await fetch(url);
  } catch (error) {
    if (error.cause?.code !== 'ECONNRESET') throw error;
    return fetch(url);
  }
}

async function soak() {
  const { values } = parseArgs({ options: { minutes: { type: 'string', default: '120' }, help: { type: 'boolean', default: false } } });
  if (values.help) return console.log(usage);
  const minutes = count(values.minutes, '--minutes');
  const { serve } = require('../dist/interfaces/server.js');
  const { CodeIndex, EmbeddingError, InferenceCache, IntelligentEmbeddingCache, OptimizedEmbeddingGenerator, PerformanceDashboard, PerformanceMonitor } = embedcore;
  const workshop = mkdtempSync(join(tmpdir(), 'embedcore-soak-'));
  const tree = join(workshop, 'tree');
  mkdirSync(tree);
  const source = (n, version) => writeFileSync(join(tree, `file${n}.ts`), `/** Reads number ${n}, for the ${version}th time. */\nexport function read${n}v${version}(path: string): string {\n  return path + ${version};\n}\n`);
  for (let n = 0; n < FILES; n++) source(n, 0);

  const monitor = new PerformanceMonitor();
  const cache = new IntelligentEmbeddingCache({ persistPath: join(workshop, 'cache.db'), maxEntries: 2000, maxDiskMB: 32, ttlSeconds: 300 });
  const generator = new OptimizedEmbeddingGenerator({ modelPath: 'builtin', cache, monitor });
  const results = new InferenceCache({ persistPath: join(workshop, 'results.db'), maxEntries: 2000, maxDiskMB: 32 });
  await generator.initialize();
  const index = new CodeIndex(tree, { path: join(workshop, 'index.db'), generator: { modelPath: 'builtin' } });
  const server = await serve({ generator: { modelPath: 'builtin' }, port: 0 });
  const dashboard = new PerformanceDashboard({ monitor, generator });
  const page = await dashboard.serve({ port: 0 });

  let [going, wrong, seed] = [true, [], 1];
  let latencies = [];
  const done = { texts: 0, results: 0, updates: 0, requests: 0, pages: 0, workers: 0 };
  const random = (below) => (seed = (seed * 48_271) % 2_147_483_647) % below;
  const text = () => `the ${random(5000)}th of many texts that are asked for again and again`;
  const failed = (what) => (error) => wrong.push(`${what}: ${error instanceof EmbeddingError ? `${error.code} ${error.message}` : (error?.stack ?? error)}`);
  const again = async (what, work, pause = 0) => {
    while (going) {
      await work().catch(failed(what));
      await sleep(pause);
    }
  };

  const answered = results.wrap(async (prompt) => ({ answer: prompt.length }), { name: 'length' });
  const working = [
    again('generator', async () => {
      const texts = Array.from({ length: 1 + random(16) }, text);
      const matrix = await generator.embed(texts);
      if (texts.some((_, n) => !matrix.row(n).every(Number.isFinite))) throw new Error('a vector is none');
      done.texts += texts.length;
    }, 5),
    again('results', async () => {
      const asked = `prompt ${random(3000)}`;
      const made = await answered(asked);
      if (made.answer !== asked.length) throw new Error(`${asked} has the answer ${JSON.stringify(made)}`);
      done.results++;
    }, 2),
    again('index', async () => {
      source(random(FILES), ++done.updates);
      await index.update();
      await index.search('read a number', { limit: 3 });
    }, 500),
    again('dashboard', async () => {
      for (const path of ['/', '/metrics', '/snapshot']) await (await visit(new URL(path, page.url))).text();
      done.pages++;
    }, 1000),
    again('worker', async () => {
      const worker = new Worker(new URL(import.meta.url));
      await new Promise((ended, refused) => worker.once('exit', ended).once('error', refused));
      done.workers++;
    }, 1000),
    ...Array.from({ length: CLIENTS }, () =>
      again('server', async () => {
        const began = performance.now();
        const answer = await fetch(`${server.url}/v1/embeddings`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ model: 'builtin', input: [text(), text()] }) });
        const { data } = await answer.json();
        if (data?.length !== 2) throw new Error(`status ${answer.status}`);
        latencies.push(performance.now() - began);
        done.requests++;
      }, 20),
    ),
  ];

  const samples = [];
  for (let minute = 1; minute <= minutes; minute++) {
    await sleep(60_000);
    globalThis.gc?.();
    await sleep(100);
    const { rss, heapUsed } = process.memoryUsage();
    const sample = { rss: rss / 2 ** 20, heap: heapUsed / 2 ** 20, fds: handles(), p99: percentile(latencies, 0.99) };
    latencies = [];
    samples.push(sample);
    const amounts = Object.entries(done).map(([what, amount]) => `${amount} ${what}`).join(', ');
    console.log(`${minute} min: RSS ${sample.rss.toFixed(1)} MB, heap ${sample.heap.toFixed(1)} MB, ${sample.fds} files, p99 ${sample.p99.toFixed(1)} ms; ${amounts}; ${wrong.length} errors`);
  }
  going = false;
  await Promise.all(working);
  await Promise.all([dashboard.close(), server.close(), index.close(), results.close()]);
  await generator.cleanup();
  await cache.close();
  rmSync(workshop, { recursive: true, force: true });

  const middle = (of, part) => percentile(part.map(of), 0.5);
  const [early, late] = [samples.slice(Math.floor(minutes / 4), Math.ceil(minutes / 2)), samples.slice(-Math.ceil(minutes / 4))];
  const growth = middle(({ rss }) => rss, late) / middle(({ rss }) => rss, early) - 1;
  console.log(`RSS ${(growth * 100).toFixed(1)} % from the second quarter to the last; files ${middle(({ fds }) => fds, early)} → ${middle(({ fds }) => fds, late)}; p99 ${middle(({ p99 }) => p99, early).toFixed(1)} → ${middle(({ p99 }) => p99, late).toFixed(1)} ms`);
  if (wrong.length > 0) {
    const kinds = new Map();
    for (const kind of wrong.map((error) => error.split('\n')[0].replaceAll(/[0-9]+/g, 'N'))) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    throw new PlainError(`${wrong.length} errors:\n${[...kinds].map(([kind, amount]) => `${amount} × ${kind}`).join('\n')}`);
  }
  if (growth > MOST_GROWTH) throw new PlainError('Memory is not flat.');
}
