/// <reference lib="dom" />
// The page in a real browser.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { PerformanceDashboard, PerformanceMonitor, type DashboardSnapshot } from 'embedcore';
import { RealtimeEvaluator } from 'embedcore/parallel';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

const chromium = [process.env.CHROMIUM_PATH, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => path && existsSync(path));
if (!chromium) console.log('Skipped: the dashboard in a browser, because there is no Chromium (CHROMIUM_PATH names one elsewhere)');

/** What tries to run a script, or to break out of where it is shown. */
const NASTY = ['<script>window.ran = 1</script>', '<img src=x onerror="window.ran=1">', '"><svg onload=window.ran=1>', "';window.ran=1;//", '</title><script>window.ran=1</script>', 'javascript:window.ran=1', '__proto__', 'a\nb'];

describe.runIf(chromium)('the page', () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await puppeteer.launch({ executablePath: chromium!, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
  });
  afterAll(() => browser?.close());

  /** A page that must not complain about anything. */
  async function open(url: string, { dark = false, width = 1280, height = 900 } = {}): Promise<Page> {
    const page = await browser.newPage();
    const complaints: string[] = [];
    page.on('console', (message) => complaints.push(`${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => complaints.push(String(error)));
    page.on('requestfailed', (request) => !request.url().endsWith('/events') && complaints.push(`failed: ${request.url()}`));
    page.on('request', (request) => !request.url().startsWith(url) && !request.url().startsWith('data:') && complaints.push(`elsewhere: ${request.url()}`));
    onTestFinished(async () => {
      await page.close();
      expect(complaints).toEqual([]);
    });
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]);
    await page.setViewport({ width, height });
    await page.goto(url);
    await page.waitForSelector('body[data-drawn]');
    return page;
  }

  /** A table as it is shown: texts, and the numbers behind them, by heading. */
  const rows = (page: Page, id: string) =>
    page.$eval(`#${id}`, (table) => {
      const [head, ...body] = [...(table as HTMLTableElement).rows];
      const names = [...head!.cells].map((cell) => cell.textContent!);
      return body.map((row) => Object.fromEntries([...row.cells].map((cell, i) => [names[i], { text: cell.textContent!, value: (cell as HTMLElement).dataset.value }])));
    });
  const tile = (page: Page, name: string) => page.$eval(`#tile-${name}`, (element) => ({ text: element.textContent, value: Number((element as HTMLElement).dataset.value) }));

  /** A snapshot in a file, served; one that a program could have written. */
  async function saved(change: (snapshot: DashboardSnapshot) => void = () => {}, monitor = new PerformanceMonitor()): Promise<{ url: string; snapshot: DashboardSnapshot }> {
    const dashboard = new PerformanceDashboard({ monitor });
    const snapshot = dashboard.snapshot();
    await dashboard.close();
    change(snapshot);
    const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    const path = join(directory, 'saved.json');
    writeFileSync(path, JSON.stringify(snapshot));
    const server = await PerformanceDashboard.serveSnapshot(path);
    onTestFinished(() => server.close());
    return { url: server.url, snapshot };
  }

  function filled(): PerformanceMonitor {
    const monitor = new PerformanceMonitor();
    for (let i = 0; i < 5000; i++) {
      monitor.record('infer', 20 + (i % 97), { batchSize: 8 });
      if (i % 10 === 0) monitor.record('tokenise', 0.25 + (i % 7) / 50, { success: i % 100 !== 0 });
      if (i % 3) monitor.cacheHit('text');
      else monitor.cacheMiss('text');
    }
    monitor.record('commit', 2, { memory: 123_456_789, error: new Error('disk full') });
    monitor.startCycle('nightly');
    monitor.recordLlmCall('nightly', { cacheHit: true });
    monitor.recordValidation('nightly', { count: 12 });
    monitor.endCycle('nightly');
    return monitor;
  }

  const timeline = (count: number): DashboardSnapshot['dashboard']['timeline'] =>
    Array.from({ length: count }, (_, i) => ({
      at: Date.UTC(2026, 0, 1) + i * 1000,
      seconds: 1,
      operations: i % 5 === 4 ? [] : [{ name: 'infer', count: 10, errors: i % 50 === 0 ? 1 : 0, items: 80 + (i % 9), p50: 20 + (i % 13), p95: 40 + (i % 17), p99: 60, max: 90 }],
      caches: [{ type: 'text', hits: 5 + (i % 4), misses: 3, hitRatio: 0 }],
      cycles: 1,
      active: 0,
      tiers: { memory: 5, disk: 2, shared: 1, misses: 0 },
      batchSize: 32 + (i % 8),
      tokenBudget: 4096,
      panels: {},
      strategy: Math.floor(i / 30) % 2 ? 'conservative' : 'balanced',
      memory: { process: 3e8 + i * 1e5, used: 9e8, limit: 2e9 },
      cpu: 40,
    }));

  test('an evaluator has a panel: means with their spread over time, statistics, the newest samples', async () => {
    const monitor = new PerformanceMonitor();
    await using dashboard = new PerformanceDashboard({ monitor, interval: 100, panels: [() => ({ title: 'Mine', values: {}, tables: [{ title: 'One', columns: ['a'], rows: [['<b>x</b>'], [null], [1.23456]] }] })] });
    const evaluator = new RealtimeEvaluator({
      monitor,
      evaluate: (i: number) => {
        if (i === 29) throw new Error('no answer');
        return { accuracy: i % 2, length: i };
      },
    });
    await evaluator.evaluateBatch(Array.from({ length: 30 }, (_, i) => i), { sampleId: (i) => `${NASTY[i % NASTY.length]}${i}` });
    const page = await open((await dashboard.serve()).url);
    await page.waitForFunction(() => document.querySelectorAll('#panels .plot canvas').length === 1);
    expect(await page.$$eval('#panels h2', (all) => all.map(({ textContent }) => textContent))).toEqual(['Evaluation', 'Mine']);
    expect(await page.$$eval('#panels h3', (all) => all.map(({ textContent }) => textContent))).toEqual(['30 samples, 1 failed', 'Newest samples', 'One']);
    const [accuracy, length] = await rows(page, 'panel-0-0');
    const { scores } = evaluator.getAggregateStats();
    expect([accuracy!.Score!.text, Number(accuracy!.Mean!.value), Number(accuracy!.Std!.value)]).toEqual(['accuracy', scores.accuracy!.mean, scores.accuracy!.std]);
    expect([Number(length!.Count!.value), Number(length!.p95!.value)]).toEqual([29, scores.length!.p95]);
    const newest = await rows(page, 'panel-0-1');
    expect(newest.length).toBe(20);
    expect([newest[0]!.Sample!.text, newest[0]!.Error!.text, newest[1]!.length!.text]).toEqual([`${NASTY[29 % NASTY.length]}29`, 'no answer', '28']);
    expect(await page.$$eval('#panels .u-label', (all) => all.map(({ textContent }) => textContent))).toEqual(['Time', 'accuracy', 'accuracy, low', 'accuracy, high', 'length', 'length, low', 'length, high']);
    expect((await rows(page, 'panel-1-0')).map((row) => row.a!.text)).toEqual(['<b>x</b>', '', '1.235']);
    expect(await page.evaluate('window.ran')).toBeUndefined();

    // What is saved has it, too; and who is closed has no panel any more.
    const snapshot = dashboard.snapshot();
    const [panel] = snapshot.dashboard.panels;
    expect(panel!.values.length).toEqual({ value: scores.length!.mean, low: scores.length!.mean - scores.length!.std, high: scores.length!.mean + scores.length!.std });
    expect(snapshot.dashboard.timeline.at(-1)!.panels.Evaluation).toEqual(panel!.values);
    await evaluator.close();
    await page.waitForFunction(() => document.querySelectorAll('#panels h2').length === 1);
  });

  test('its values are those of the snapshot', async () => {
    const { url, snapshot } = await saved((one) => (one.dashboard.timeline = timeline(100)), filled());
    const page = await open(url);
    const shown = await rows(page, 'operations');
    expect(shown.map((row) => row.Name!.text)).toEqual(['commit', 'infer', 'tokenise']);
    for (const [i, row] of shown.entries()) {
      const operation = snapshot.operations[i]!;
      const columns = { Count: operation.count, Errors: operation.errors, Items: operation.items, p50: operation.p50, p95: operation.p95, p99: operation.p99, 'p99.9': operation.p999, Max: operation.max, Mean: operation.mean, 'Items/s': operation.throughput.lastMinute, 'Items/s, whole run': operation.throughput.wholeRun };
      for (const [name, value] of Object.entries(columns)) expect(Math.abs(Number(row[name]!.value) - value), `${operation.name}: ${name}`).toBeLessThanOrEqual(value * 1e-12);
    }
    expect(shown[1]).toMatchObject({ Count: { text: '5,000' }, Items: { text: '40,000' }, Max: { text: '116 ms' } });
    expect(shown[0]!['Memory peak']!.text).toBe('118 MB');
    expect(await tile(page, 'operations')).toEqual({ text: '5,501', value: 5501 });
    expect(await tile(page, 'errors')).toEqual({ text: '51', value: 51 });
    expect((await tile(page, 'hits')).value).toBeCloseTo(snapshot.caches[0]!.hitRatio, 9);
    expect((await tile(page, 'memory')).value).toBe(snapshot.machine!.processMemory);
    const caches = await rows(page, 'caches');
    expect(caches.map((row) => [row.Type!.text, Number(row.Hits!.value), Number(row.Misses!.value)])).toEqual([['text', 3333, 1667], ['Tier: memory', 500, 300], ['Tier: disk', 200, 600], ['Tier: shared', 100, 700]]);
    const [cycle] = await rows(page, 'cycles');
    expect(cycle).toMatchObject({ Id: { text: 'nightly' }, Status: { text: 'succeeded' }, Calls: { value: '1' }, Cached: { value: '1' }, Validations: { value: '12' } });
    expect(Number(cycle!.Time!.value)).toBeCloseTo(snapshot.cycles.recent[0]!.duration!, 9);
    expect(await page.$$eval('#errors li', (all) => all.map((one) => one.textContent))).toEqual([expect.stringMatching(/commitdisk full$/)]);
    expect(await page.$eval('#status-text', (element) => element.textContent)).toMatch(/^saved\.json, as of /);
    // Every chart has drawn something, and tells the latest values.
    expect(await page.$$eval('.plot canvas', (all) => all.length)).toBe(6);
    const legend = (id: string) => page.$$eval(`#chart-${id} .u-series`, (all) => all.map((one) => one.textContent));
    expect(await legend('memory')).toEqual([expect.any(String), 'this process296 MB', 'all in use858 MB', 'ceiling1.86 GB']);
    expect(await legend('batch')).toContain('tokens4,096');
    expect(await legend('hits')).toContain('tier: memory62.5 %');
    const inks = await page.$$eval('.plot canvas', (all) => all.map((canvas) => {
      const { data } = (canvas as HTMLCanvasElement).getContext('2d')!.getImageData(0, 0, (canvas as HTMLCanvasElement).width, (canvas as HTMLCanvasElement).height);
      return data.filter((value, i) => i % 4 === 3 && value > 0).length;
    }));
    for (const ink of inks) expect(ink).toBeGreaterThan(1000);
    // Another operation can be chosen.
    await page.select('#operation', 'tokenise');
    expect(await page.$eval('#chart-latency small', (element) => element.textContent)).toBe('tokenise');
    expect(await page.$eval('#chart-latency .plot', (element) => element.textContent)).toBe('This operation has not run in this time.');
  });

  test('follows a program live', async () => {
    const monitor = new PerformanceMonitor();
    const dashboard = new PerformanceDashboard({ monitor, interval: 100, title: 'my program' });
    onTestFinished(() => dashboard.close());
    const server = await dashboard.serve();
    const page = await open(server.url);
    expect(await page.title()).toBe('my program');
    expect(await rows(page, 'operations')).toEqual([{ Name: { text: 'Nothing was recorded yet.', value: undefined } }]);
    for (let i = 0; i < 20; i++) monitor.record('infer', 30, { batchSize: 4 });
    monitor.startCycle('one');
    monitor.endCycle('one');
    await page.waitForFunction(() => document.querySelector<HTMLElement>('#tile-operations')?.dataset.value === '20');
    expect(await page.$eval('#status', (element) => (element as HTMLElement).dataset.state)).toBe('live');
    expect(await rows(page, 'operations')).toMatchObject([{ Name: { text: 'infer' }, Items: { value: '80' }, p95: { text: '30 ms' } }]);
    expect(await rows(page, 'cycles')).toMatchObject([{ Id: { text: 'one' } }]);
    await page.waitForSelector('#chart-throughput canvas');
    // The server goes away, and comes back on the same port with other values.
    await server.close();
    await page.waitForFunction(() => document.querySelector<HTMLElement>('#status')!.dataset.state === 'lost');
    monitor.record('infer', 30);
    const again = await dashboard.serve({ port: server.port });
    await page.waitForFunction(() => document.querySelector<HTMLElement>('#status')!.dataset.state === 'live');
    await page.waitForFunction(() => document.querySelector<HTMLElement>('#tile-operations')?.dataset.value === '21');
    expect(await rows(page, 'cycles')).toHaveLength(1);
    await again.close();
  });

  test('opens a file of the reader’s', async () => {
    const other = await saved(undefined, filled());
    const { url } = await saved();
    const page = await open(url);
    const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    const file = (name: string, content: string) => {
      writeFileSync(join(directory, name), content);
      return join(directory, name);
    };
    const input = (await page.$('#file'))! as unknown as { uploadFile(path: string): Promise<void> };
    await input.uploadFile(file('other.json', JSON.stringify(other.snapshot)));
    await page.waitForFunction(() => document.querySelector<HTMLElement>('#tile-operations')?.dataset.value === '5501');
    expect(await page.$eval('#status-text', (element) => element.textContent)).toMatch(/^other\.json/);
    for (const [name, content] of [['text.json', 'no JSON'], ['list.json', '[]'], ['null.json', 'null'], ['other.json', '{"format":"embedcore-monitor","version":9}']]) {
      await input.uploadFile(file(name!, content!));
      await page.waitForFunction((shown) => document.querySelector('#problem')!.textContent!.startsWith(`${shown} cannot be shown`), {}, name!);
    }
    // What makes no sense inside is left out, not fatal.
    await input.uploadFile(file('odd.json', JSON.stringify({ format: 'embedcore-monitor', version: 1, takenAt: 'x', operations: [5, { name: 7, count: 'x' }, { name: 'ok', count: 3 }], caches: 'x', cycles: { recent: [{ id: 'c', status: 5 }] }, dashboard: { timeline: [{ at: 1e300 }, 7, { at: 5, operations: [{ name: 'ok', items: 4 }] }] } })));
    await page.waitForFunction(() => document.querySelector<HTMLElement>('#tile-operations')?.dataset.value === '3');
    await page.click('#live');
    await page.waitForFunction(() => document.querySelector<HTMLElement>('#tile-operations')?.dataset.value === '0');
  });

  test('runs no script of a name', async () => {
    const monitor = new PerformanceMonitor();
    for (const name of NASTY) {
      monitor.record(name, 5, { error: new Error(name) });
      monitor.cacheHit(name);
      monitor.startCycle(name);
      monitor.endCycle(name);
    }
    const { url } = await saved((one) => {
      one.dashboard.title = NASTY[0]!;
      one.dashboard.timeline = timeline(50).map((point, i) => ({ ...point, strategy: NASTY[i % 2]!, operations: NASTY.map((name) => ({ ...point.operations[0]!, name, items: 3, count: 1, errors: 0, p50: 1, p95: 2, p99: 3, max: 3 })), caches: NASTY.map((type) => ({ type, hits: 1, misses: 1, hitRatio: 0.5 })) }));
    }, monitor);
    const page = await open(url);
    expect((await rows(page, 'operations')).map((row) => row.Name!.text).sort()).toEqual([...NASTY].sort());
    expect((await rows(page, 'cycles')).map((row) => row.Id!.text)).toEqual([...NASTY].reverse());
    expect(await page.title()).toBe(NASTY[0]);
    for (const name of NASTY) await page.select('#operation', name);
    expect(await page.evaluate(() => ['ran' in window, document.querySelectorAll('main script, main img, main svg').length])).toEqual([false, 0]);
  });

  test.each([1, 10_000])('shows %i cycles', async (count) => {
    const monitor = new PerformanceMonitor({ maxCycles: count });
    for (let i = 0; i < count; i++) {
      monitor.startCycle(`cycle ${i}`);
      monitor.endCycle(`cycle ${i}`, { success: i % 10 !== 0 });
    }
    const { url, snapshot } = await saved((one) => (one.dashboard.timeline = timeline(count === 1 ? 1 : 900)), monitor);
    expect(snapshot.cycles.recent).toHaveLength(count);
    const page = await open(url);
    expect((await tile(page, 'cycles')).value).toBe(count);
    let shown = await rows(page, 'cycles');
    expect(shown).toHaveLength(Math.min(count, 25));
    expect(shown[0]!.Id!.text).toBe(`cycle ${count - 1}`);
    expect(await page.$eval('#more', (element) => (element as HTMLElement).hidden)).toBe(count === 1);
    if (count > 25) {
      await page.$eval('#more', (element) => (element as HTMLElement).click());
      shown = await rows(page, 'cycles');
      expect(shown).toHaveLength(125);
      expect(shown.at(-1)!.Id!.text).toBe(`cycle ${count - 125}`);
    }
    expect(await page.$$eval('.plot canvas', (all) => all.length)).toBeGreaterThan(3);
  });

  test('is dark or light, as the system or as wished, and fits a phone', async () => {
    const { url } = await saved((one) => (one.dashboard.timeline = timeline(100)), filled());
    const ground = (page: Page) => page.$eval('body', (body) => getComputedStyle(body).backgroundColor.match(/\d+/g)!.map(Number).reduce((sum, part) => sum + part, 0));
    const dark = await open(url, { dark: true });
    expect(await ground(dark)).toBeLessThan(200);
    const light = await open(url, { width: 360, height: 740 });
    expect(await ground(light)).toBeGreaterThan(600);
    await light.click('#theme');
    expect(await ground(light)).toBeLessThan(200);
    await light.reload();
    await light.waitForSelector('body[data-drawn]');
    expect(await ground(light)).toBeLessThan(200);
    // Nothing but tables scrolls sideways.
    expect(await light.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
    for (const canvas of await light.$$eval('.plot canvas', (all) => all.map((one) => one.getBoundingClientRect().right))) expect(canvas).toBeLessThanOrEqual(360);
    expect(await light.$$eval('#tiles dd', (all) => all.every((one) => Number.parseFloat(getComputedStyle(one).fontSize) >= 13))).toBe(true);
  });
});
