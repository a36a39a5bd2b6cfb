import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { EmbeddingError, getGlobalMonitor, OptimizedEmbeddingGenerator, IntelligentEmbeddingCache, mergeSnapshots, PerformanceDashboard, PerformanceMonitor, type DashboardOptions, type DashboardSnapshot } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure, root } from './support';

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function dashboard(options: DashboardOptions = {}): PerformanceDashboard {
  const made = new PerformanceDashboard({ monitor: new PerformanceMonitor(), ...options });
  onTestFinished(() => made.close());
  return made;
}

async function points(of: PerformanceDashboard, enough: (snapshot: DashboardSnapshot) => boolean): Promise<DashboardSnapshot> {
  for (;;) {
    const snapshot = of.snapshot();
    if (enough(snapshot)) return snapshot;
    await sleep(20);
  }
}

/** As `fetch`, with whatever headers. */
function get(url: string, headers: Record<string, string> = {}, method = 'GET'): Promise<{ status: number; headers: NodeJS.Dict<string | string[]>; body: string }> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { headers, method }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk)).on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }));
    });
    asked.on('error', reject).end();
  });
}

test('every interval is a point', async () => {
  const monitor = new PerformanceMonitor();
  monitor.record('before', 5);
  let [batchSize, hits, strategy] = [32, 100, 'balanced'];
  const generator = {
    getPerformanceMetrics: () => ({
      cache: { memoryHits: hits, diskHits: 10, hits: hits + 10, misses: 40 },
      batchOptimizer: { currentBatchSize: batchSize, tokenBudget: 4096 },
      memoryProcessor: { currentStrategy: { name: strategy }, ceilingBytes: 2 ** 40 },
    }),
  };
  const made = dashboard({ monitor, generator, interval: 100 });
  monitor.record('embed', 20, { batchSize: 8 });
  monitor.record('embed', 40, { batchSize: 8, success: false });
  monitor.cacheHit('text');
  monitor.startCycle('a');
  monitor.endCycle('a');
  [batchSize, hits, strategy] = [64, 107, 'conservative'];
  const { dashboard: first, ...rest } = await points(made, ({ dashboard }) => dashboard.timeline.length > 0);
  const [point] = first.timeline;
  expect(point).toMatchObject({
    operations: [{ name: 'embed', count: 2, errors: 1, items: 8 }],
    caches: [{ type: 'text', hits: 1, misses: 0 }],
    cycles: 1,
    active: 0,
    tiers: { memory: 7, disk: 0, shared: 0, misses: 0 },
    batchSize: 64,
    tokenBudget: 4096,
    strategy: 'conservative',
    memory: { limit: 2 ** 40 },
  });
  expect(point!.operations[0]!.p50).toBeCloseTo(20, 0);
  expect(point!.memory.process).toBeGreaterThan(2 ** 20);
  expect(point!.seconds).toBeGreaterThan(0.05);
  expect(rest.operations.map(({ name, count }) => [name, count])).toEqual([['before', 1], ['embed', 2]]);
  const { url } = await made.serve();
  const text = (await get(`${url}metrics`)).body;
  for (const line of ['cache_tier_hits_total{tier="memory"} 107', 'cache_tier_misses_total 40', 'batch_size 64', 'batch_token_budget 4096']) expect(text).toContain(`embedcore_${line}\n`);
  monitor.record('later', 1);
  const { dashboard: second } = await points(made, ({ dashboard }) => dashboard.timeline.some(({ operations }) => operations.length === 1 && operations[0]!.name === 'later'));
  expect(second.timeline.slice(1).every(({ tiers }) => tiers!.memory === 0)).toBe(true);
  // A snapshot of a dashboard is one of a monitor.
  expect(mergeSnapshots(made.snapshot()).operations).toHaveLength(3);
});

test('the timeline is bounded, and a source that throws is told once', async () => {
  const broken = { getPerformanceMetrics: () => { throw new Error('not ready'); } };
  const made = dashboard({ interval: 100, history: 3, cache: broken, generator: { getPerformanceMetrics: () => ({ stats: { hits: NaN, misses: -1 }, batchOptimizer: 'none', memoryProcessor: null }) } });
  const first = await points(made, ({ dashboard }) => dashboard.timeline.length === 3);
  const later = await points(made, ({ dashboard }) => dashboard.timeline[0]!.at > first.dashboard.timeline[0]!.at);
  expect(later.dashboard.timeline).toHaveLength(3);
  expect(later.dashboard.timeline[0]).toMatchObject({ tiers: null, batchSize: null, strategy: null });
  expect(later.errors.map(({ message }) => message)).toEqual(['not ready']);
});

test('a cache of this package is a source', async () => {
  const cache = new IntelligentEmbeddingCache();
  onTestFinished(() => cache.close());
  const made = dashboard({ cache, interval: 100 });
  await cache.set('a', 'text', [1, 2]);
  await cache.get('a', 'text');
  await cache.get('b', 'text');
  const { dashboard: shown } = await points(made, ({ dashboard }) => dashboard.timeline.some(({ tiers }) => tiers!.misses > 0));
  const sum = (tier: 'memory' | 'misses') => shown.timeline.reduce((total, { tiers }) => total + tiers![tier], 0);
  expect([sum('memory'), sum('misses')]).toEqual([1, 1]);
});

test('a generator of this package is a source', async () => {
  const generator = new OptimizedEmbeddingGenerator();
  onTestFinished(() => generator.cleanup());
  await generator.initialize();
  const made = dashboard({ generator, interval: 100 });
  const texts = Array.from({ length: 300 }, (_, i) => `text number ${i}`);
  await generator.embed(texts);
  await generator.embed(texts);
  const { dashboard: shown } = await points(made, ({ dashboard }) => dashboard.timeline.some(({ tiers }) => tiers!.memory > 0));
  const sum = (tier: 'memory' | 'misses') => shown.timeline.reduce((total, { tiers }) => total + tiers![tier], 0);
  expect([sum('memory'), sum('misses')]).toEqual([300, 300]);
  const ran = shown.timeline.find(({ batchSize }) => batchSize !== null)!;
  const { batchOptimizer, memoryProcessor } = generator.getPerformanceMetrics();
  expect(ran.batchSize).toBeCloseTo(batchOptimizer.averageBatchSize, 6);
  expect(ran.tokenBudget).toBeCloseTo(batchOptimizer.paddedTokens / batchOptimizer.batches, 6);
  expect(shown.timeline.at(-1)!.strategy).toBe(memoryProcessor.currentStrategy);
  expect(shown.timeline.every(({ memory }) => memory.limit > 2 ** 20)).toBe(true);
});

test('of a generator without a cache nobody knows what was found', async () => {
  const generator = new OptimizedEmbeddingGenerator({ cache: false, memoryProcessor: false });
  onTestFinished(() => generator.cleanup());
  const made = dashboard({ generator, interval: 100 });
  const { dashboard: shown } = await points(made, ({ dashboard }) => dashboard.timeline.length > 1);
  expect(shown.timeline.at(-1)).toMatchObject({ tiers: null, strategy: null });
});

test('reports and files', async () => {
  const monitor = new PerformanceMonitor();
  monitor.record('embed', 5);
  monitor.startCycle('=a');
  monitor.endCycle('=a');
  const made = dashboard({ monitor });
  expect(made.textSummary()).toContain('embed');
  expect(made.markdownReport()).toContain('| embed |');
  const directory = scratch();
  await made.exportJson(join(directory, 'a.json'));
  expect(JSON.parse(readFileSync(join(directory, 'a.json'), 'utf8'))).toMatchObject({ format: 'embedcore-monitor', operations: [{ name: 'embed', histogram: expect.anything() }], dashboard: { timeline: [] } });
  await made.exportCsv(join(directory, 'a.csv'));
  expect(readFileSync(join(directory, 'a.csv'), 'utf8').split('\r\n')[1]).toMatch(/^embed,1,0,1,5,5,5,5,/);
  await made.exportCsv(join(directory, 'c.csv'), 'cycles');
  expect(readFileSync(join(directory, 'c.csv'), 'utf8').split('\r\n')[1]).toMatch(/^'=a,succeeded,/);
  for (const path of [directory, join(directory, 'no', 'such.json')]) {
    for (const write of [() => made.exportJson(path), () => made.exportCsv(path)]) await expect(write()).rejects.toMatchObject({ code: 'CACHE_STORAGE_FAILED', details: { path } });
  }
  expect((await failure(() => made.exportJson(5 as never))).code).toBe('INVALID_ARGUMENT');
});

describe('the server', () => {
  test('serves the page and nothing else, to this machine', async () => {
    const monitor = new PerformanceMonitor();
    monitor.record('a "strange"\nname', 5);
    const { url, port } = await dashboard({ monitor }).serve();
    expect(url).toBe(`http://127.0.0.1:${port}/`);
    const page = await get(url);
    expect(page).toMatchObject({ status: 200, headers: { 'content-type': 'text/html; charset=utf-8', 'x-content-type-options': 'nosniff' } });
    expect(page.headers['content-security-policy']).toContain("script-src 'self'");
    expect(page.body).not.toMatch(/https?:\/\//);
    for (const [file, type] of [['page.js', 'text/javascript'], ['page.css', 'text/css'], ['uPlot.js', 'text/javascript'], ['uPlot.css', 'text/css'], ['icon.svg', 'image/svg+xml']]) {
      const { status, headers, body } = await get(url + file);
      expect([status, String(headers['content-type']).split(';')[0], body.length > 100]).toEqual([200, type, true]);
    }
    expect(await get(`${url}metrics`)).toMatchObject({ status: 200, headers: { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }, body: expect.stringContaining('operation="a \\"strange\\"\\nname"') });
    expect(JSON.parse((await get(`${url}health`)).body)).toMatchObject({ status: 'ok', operations: 1, errors: 0, uptimeSeconds: expect.any(Number) });
    expect(JSON.parse((await get(`${url}snapshot?x=1`)).body)).toMatchObject({ format: 'embedcore-monitor' });
    for (const path of ['nothing', '..%2fpackage.json', '../package.json', 'uPlot-LICENSE', 'events/']) expect((await get(url + path)).status, path).toBe(404);
    expect(await get(url, {}, 'HEAD')).toMatchObject({ status: 200, body: '' });
    expect((await get(url, {}, 'POST')).status).toBe(405);
    // Another site that points its name at this machine.
    expect((await get(url, { host: `evil.example:${port}` })).status).toBe(403);
    for (const host of [`localhost:${port}`, 'localhost', `[::1]:${port}`, '127.0.0.1']) expect((await get(url, { host })).status, host).toBe(200);
  });

  test('sends what was, and then what is new', async () => {
    const monitor = new PerformanceMonitor();
    monitor.record('old', 5);
    const made = dashboard({ monitor, interval: 100 });
    const server = await made.serve();
    const events: { event: string; data: any }[] = [];
    const stop = new AbortController();
    const response = await fetch(`${server.url}events`, { signal: stop.signal });
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    const reading = (async () => {
      let text = '';
      for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
        text += chunk;
        for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
          const [, event, data] = /event: (.*)\ndata: (.*)/.exec(text.slice(0, end)) ?? [];
          if (event) events.push({ event, data: JSON.parse(data!) });
          text = text.slice(end + 2);
        }
      }
    })();
    while (events.length === 0) await sleep(10);
    expect(events[0]).toMatchObject({ event: 'snapshot', data: { operations: [{ name: 'old' }], dashboard: { interval: 100 } } });
    monitor.record('new', 5);
    monitor.startCycle('cycle');
    monitor.endCycle('cycle');
    while (!events.some(({ data }) => data.point?.operations.length > 0)) await sleep(10);
    const { event, data } = events.find(({ data }) => data.point?.operations.length > 0)!;
    expect(event).toBe('point');
    expect(data).toMatchObject({ point: { operations: [{ name: 'new', count: 1 }], cycles: 1 }, operations: [{ name: 'new' }, { name: 'old' }], cycles: { recent: [{ id: 'cycle' }] } });
    await server.close();
    await reading;
    await server.close();
    expect((await failure(() => get(server.url))).code).toBe('ECONNREFUSED');
  });

  test('a port in use, and other things that cannot be had', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => void taken.close());
    await new Promise((resolve) => taken.once('listening', resolve));
    const { port } = taken.address() as AddressInfo;
    const made = dashboard();
    const error = await failure(() => made.serve({ port }));
    expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'port', port } });
    expect(error.message).toContain(`port ${port} of 127.0.0.1 is in use`);
    for (const options of [{ port: -1 }, { port: 65536 }, { port: 1.5 }, { port: '80' }, { host: '' }, { host: 5 }, { keepAlive: 1 }, { host: '203.0.113.1' }, { host: 'no such host' }, null]) {
      expect((await failure(() => made.serve(options as never))).code, JSON.stringify(options)).toBe('INVALID_CONFIG');
    }
  });

  test('bad options are refused by name', async () => {
    for (const [options, names] of [[{ monitor: {} }, 'monitor'], [{ generator: {} }, 'generator'], [{ cache: null }, 'cache'], [{ interval: 99 }, 'interval'], [{ history: 0 }, 'history'], [{ title: '' }, 'title'], [{ unknown: 1 }, 'unknown'], [null, 'options']] as const) {
      const error = await failure(() => new PerformanceDashboard(options as never));
      expect(error).toBeInstanceOf(EmbeddingError);
      expect({ code: error.code, message: error.message }).toEqual({ code: 'INVALID_CONFIG', message: expect.stringContaining(names) });
    }
    const made = new PerformanceDashboard();
    onTestFinished(() => made.close());
    getGlobalMonitor().record('by default', 1);
    expect(made.textSummary()).toContain('by default');
  });
});

describe('saved snapshots', () => {
  test('are served, and followed', async () => {
    const path = join(scratch(), 'saved.json');
    const monitor = new PerformanceMonitor();
    monitor.record('first', 5);
    const made = dashboard({ monitor });
    await made.exportJson(path);
    const server = await PerformanceDashboard.serveSnapshot(path);
    onTestFinished(() => server.close());
    expect(JSON.parse((await get(`${server.url}snapshot`)).body)).toMatchObject({ operations: [{ name: 'first' }], dashboard: { saved: 'saved.json' } });
    expect((await get(`${server.url}metrics`)).body).toContain('operation="first"');
    expect(JSON.parse((await get(`${server.url}health`)).body)).toMatchObject({ status: 'ok', takenAt: expect.any(String) });
    writeFileSync(path, '{"format":');
    await sleep(1200);
    expect((await get(`${server.url}snapshot`)).body).toContain('first');
    monitor.record('second', 5);
    await made.exportJson(path);
    while (!(await get(`${server.url}snapshot`)).body.includes('second')) await sleep(50);
  });

  test('what is none is refused by its name', async () => {
    const directory = scratch();
    const bad = { 'empty.json': '', 'list.json': '[]', 'other.json': '{"format":"other"}', 'half.json': '{"format":"embedcore-monitor",' };
    for (const [name, content] of Object.entries(bad)) writeFileSync(join(directory, name), content);
    // What never ends is not read, either.
    const never = process.platform === 'win32' ? [] : ['/dev/zero'];
    for (const path of [...[...Object.keys(bad), 'not there.json', '.'].map((name) => join(directory, name)), ...never]) {
      const error = await failure(() => PerformanceDashboard.serveSnapshot(path));
      expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', details: { path } });
      expect(error.message).toContain(path);
    }
    expect((await failure(() => PerformanceDashboard.serveSnapshot(5 as never))).code).toBe('INVALID_ARGUMENT');
  });
});

describe('the command', () => {
  function start(...args: string[]) {
    const child = spawn(process.execPath, [join(root, 'cli', 'embedcore.js'), 'dashboard', ...args], { stdio: 'pipe' });
    onTestFinished(() => void child.kill());
    let [out, err] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
    const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
    return { child, ended, output: () => ({ out, err }) };
  }

  test('shows a snapshot until it is stopped', async () => {
    const path = join(scratch(), 'saved.json');
    await dashboard().exportJson(path);
    for (const args of [[path, '--port', '0'], ['--port', '0']]) {
      const { child, ended, output } = start(...args);
      while (!output().out.includes('Ctrl-C')) await sleep(20);
      const [url] = /http:\S+/.exec(output().out)!;
      expect((await get(url)).status).toBe(200);
      child.kill('SIGINT');
      expect(await ended).toBe(0);
      expect(output().err).toBe('');
    }
  });

  test('says what is wrong', async () => {
    const missing = join(scratch(), 'missing.json');
    expect(existsSync(missing)).toBe(false);
    for (const [args, code, says] of [[[missing], 1, missing], [['--port', 'x'], 2, '--port'], [['a', 'b'], 2, 'one snapshot'], [['--model', 'x'], 2, '--model'], [['--limit', '5'], 2, '--limit']] as const) {
      const { ended, output } = start(...args);
      expect(await ended).toBe(code);
      expect(output()).toEqual({ out: '', err: expect.stringContaining(says) });
    }
  });
});

test('keeps no process alive, not even with readers', async () => {
  const code = `const { PerformanceDashboard } = require(${JSON.stringify(root)});
    globalThis.dashboard = new PerformanceDashboard({ interval: 100 });
    dashboard.serve().then(({ url }) => console.log(url));
    process.stdin.once('data', () => process.stdin.destroy());`;
  const child = spawn(process.execPath, ['-e', code], { stdio: ['pipe', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill());
  const ended = new Promise((resolve) => child.on('exit', (status, signal) => resolve([status, signal])));
  const url = await new Promise<string>((resolve) => child.stdout.once('data', (text: Buffer) => resolve(String(text).trim())));
  const reader = await fetch(`${url}events`);
  expect(reader.status).toBe(200);
  child.stdin.end('done');
  expect(await ended).toEqual([0, null]);
  await reader.text().catch(() => {});
});
