import { execFileSync } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

import { EmbeddingError, getGlobalMonitor, mergeSnapshots, monitored, PerformanceMonitor, type MonitorEvent, type MonitorOptions } from 'embedcore';
import * as embedcore from 'embedcore';
import type { MonitorSnapshot } from 'embedcore';
import ts from 'typescript';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure, root } from './support';

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Events of one monitor while a test runs. */
function listen(of?: PerformanceMonitor): MonitorEvent[] {
  const heard: MonitorEvent[] = [];
  const listener = (event: unknown) => (!of || (event as MonitorEvent).monitor === of) && heard.push(event as MonitorEvent);
  subscribe('embedcore:monitor', listener);
  onTestFinished(() => void unsubscribe('embedcore:monitor', listener));
  return heard;
}

/** Uniform numbers from 0 to 1, the same every time. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
}

describe('operations', () => {
  test('percentiles of a million are within 1 % of exact ones', () => {
    const next = random(1);
    const normal = () => Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next());
    const shapes = {
      uniform: () => 0.01 + 100 * next(),
      lognormal: () => Math.exp(1.5 * normal()),
      bimodal: () => (next() < 0.7 ? 2 : 400) * Math.max(0.1, 1 + 0.05 * normal()),
    };
    const monitor = new PerformanceMonitor();
    for (const [name, draw] of Object.entries(shapes)) {
      const samples = Float64Array.from({ length: 1_000_000 }, draw);
      monitor.recordMany(name, samples);
      samples.sort();
      const stats = monitor.getStats(name)!;
      for (const [quantile, found] of [[0.5, stats.p50], [0.95, stats.p95], [0.99, stats.p99], [0.999, stats.p999]] as const) {
        const exact = samples[Math.ceil(quantile * samples.length) - 1]!;
        expect(Math.abs(found / exact - 1), `${name} at ${quantile}`).toBeLessThan(0.01);
      }
      const sum = samples.reduce((total, ms) => total + ms, 0);
      expect(stats).toMatchObject({ count: 1_000_000, errors: 0, items: 1_000_000 });
      expect(stats.min).toBeCloseTo(samples[0]!, 5);
      expect(stats.max).toBeCloseTo(samples.at(-1)!, 5);
      expect(stats.total / sum).toBeCloseTo(1, 6);
    }
  });

  test('record', () => {
    const monitor = new PerformanceMonitor();
    expect(monitor.getStats('embed')).toBeNull();
    monitor.record('embed', 10, { batchSize: 32 });
    monitor.record('embed', 30, { success: false, batchSize: 32 });
    monitor.record('embed', 20, { batchSize: 8, memory: { before: 100, after: 160, peak: 200 } });
    monitor.record('embed', 0, { error: new TypeError('no such file'), batchSize: 0, memory: 50 });
    const stats = monitor.getStats('embed')!;
    expect(stats).toMatchObject({ name: 'embed', count: 4, errors: 2, items: 40, total: 60, min: 0, max: 30, mean: 15 });
    expect(stats.memory).toEqual({ before: 50, after: 50, peak: 200, averageGrowth: 30, samples: 2 });
    expect(stats.throughput.wholeRun).toBeGreaterThan(0);
    expect(stats.throughput.lastMinute).toBeGreaterThan(0);
    expect(stats.lastAt - stats.firstAt).toBeGreaterThanOrEqual(29.9);
    expect(Math.abs(stats.lastAt - Date.now())).toBeLessThan(60_000);
    expect(monitor.getSummary().errors).toEqual([{ at: expect.any(Number), name: 'embed', message: 'no such file' }]);
  });

  test('more events than wait at a time are all there, in any mix', () => {
    const monitor = new PerformanceMonitor();
    for (let i = 0; i < 10_000; i++) {
      monitor.record(`operation ${i % 3}`, i % 100);
      if (i % 2) monitor.cacheHit('text');
      if (i % 5 === 0) monitor.cacheMiss();
    }
    const { operations, totals, caches } = monitor.getSummary();
    expect(totals).toEqual({ count: 10_000, errors: 0, items: 10_000 });
    expect(Object.keys(operations)).toEqual(['operation 0', 'operation 1', 'operation 2']);
    expect(caches).toMatchObject({ hits: 5000, misses: 2000, byType: { text: { hits: 5000, hitRatio: 1 }, default: { misses: 2000, hitRatio: 0 } } });
    expect(caches.hitRatio).toBeCloseTo(5 / 7, 9);
    monitor.record('late', 1);
    monitor.reset();
    expect(monitor.getSummary()).toMatchObject({ totals: { count: 0 }, operations: {}, caches: { hits: 0 } });
    monitor.record('operation 0', 1);
    expect(monitor.getStats('operation 0')!.count).toBe(1);
  });

  test('measure', async () => {
    const monitor = new PerformanceMonitor();
    const held: Buffer[] = [];
    const answer = await monitor.measure('work', async () => {
      await sleep(20);
      held.push(Buffer.alloc(2 ** 26, 1));
      return 42;
    }, { batchSize: 7 });
    expect(answer).toBe(42);
    expect(await monitor.measure('work', () => 'at once')).toBe('at once');
    const reason = new Error('on purpose');
    await expect(monitor.measure('work', () => { throw reason; })).rejects.toBe(reason);
    await expect(monitor.measure('work', () => Promise.reject(undefined))).rejects.toBe(undefined);
    const stats = monitor.getStats('work')!;
    expect(stats).toMatchObject({ count: 4, errors: 2, items: 8 });
    expect(stats.max).toBeGreaterThanOrEqual(19);
    expect(stats.memory!.samples).toBe(4);
    expect(stats.memory!.averageGrowth).toBeGreaterThan(2 ** 23);
    expect(stats.memory!.peak).toBeGreaterThanOrEqual(stats.memory!.after);
    expect(monitor.getSummary().errors.map(({ message }) => message)).toEqual(['on purpose', 'undefined']);
    expect(held).toHaveLength(1);
  });

  test('timers', async () => {
    const monitor = new PerformanceMonitor();
    const timer = monitor.startTimer('step');
    await sleep(10);
    const took = timer.stop({ batchSize: 3 });
    expect(took).toBeGreaterThanOrEqual(9);
    await sleep(5);
    // A second one changes nothing.
    expect(timer.stop({ batchSize: 100, success: false })).toBe(took);
    timer[Symbol.dispose]();
    expect(monitor.getStats('step')).toMatchObject({ count: 1, items: 3, errors: 0 });
    const wrong = monitor.startTimer('step');
    expect((await failure(() => wrong.stop({ batchSize: -1 }))).code).toBe('INVALID_ARGUMENT');
    wrong.stop();
    expect(monitor.getStats('step')!.count).toBe(2);
  });

  test('names are told apart up to a thousand', () => {
    const monitor = new PerformanceMonitor();
    for (let i = 0; i < 1100; i++) monitor.record(`file ${i}`, 1);
    for (let i = 0; i < 1100; i++) monitor.record(`file ${i}`, 1);
    const { operations, totals } = monitor.getSummary();
    expect(totals.count).toBe(2200);
    expect(Object.keys(operations)).toHaveLength(1001);
    expect(operations['(others)']!.count).toBe(200);
  });
});

describe('room for names', () => {
  const names = (monitor: PerformanceMonitor) => Object.keys(monitor.getSummary().operations);

  test('is not taken by what is refused, by timers that run, or by look-ups that there were none of', async () => {
    const monitor = new PerformanceMonitor();
    for (let i = 0; i < 1500; i++) {
      expect((await failure(() => monitor.record(`refused ${i}`, -1))).code).toBe('INVALID_ARGUMENT');
      monitor.startTimer(`running ${i}`);
      monitor.recordMany(`none ${i}`, []);
      expect((await failure(() => monitor.recordMany(`wrong ${i}`, [NaN]))).code).toBe('INVALID_ARGUMENT');
    }
    for (let i = 0; i < 1000; i++) monitor.record(`good ${i}`, 5);
    expect(names(monitor)).toHaveLength(1000);
    expect(monitor.getStats('good 999')).toMatchObject({ count: 1 });
  });

  test('comes back with reset(), and timers that were started before are counted by their names', () => {
    const monitor = new PerformanceMonitor();
    const timer = monitor.startTimer('timer');
    for (const round of ['first', 'second', 'third']) {
      for (let i = 0; i < 1000; i++) {
        monitor.record(`${round} ${i}`, 1);
        monitor.cacheHit(`${round} ${i}`);
      }
      expect(names(monitor)).toHaveLength(1000);
      expect(monitor.getStats(`${round} 999`)).toMatchObject({ count: 1 });
      expect(Object.keys(monitor.getSummary().caches.byType)).toHaveLength(1000);
      monitor.reset();
      expect([names(monitor), monitor.getStats(`${round} 0`)]).toEqual([[], null]);
    }
    timer.stop();
    monitor.record('first 5', 1);
    expect(names(monitor).sort()).toEqual(['first 5', 'timer']);
  });

  test('and a thread goes on after another one has reset', async () => {
    const monitor = getGlobalMonitor();
    const code = `const { parentPort } = require('node:worker_threads'), { getGlobalMonitor } = require(${JSON.stringify(root)});
      const monitor = getGlobalMonitor();
      parentPort.on('message', () => { monitor.recordMany('across', [1, 1]); parentPort.postMessage('done'); });`;
    const worker = new Worker(code, { eval: true });
    onTestFinished(() => void worker.terminate());
    const round = () => new Promise((resolve) => (worker.once('message', resolve), worker.postMessage('go')));
    await round();
    expect(monitor.getStats('across')!.count).toBe(2);
    monitor.reset();
    await round();
    expect(monitor.getStats('across')!.count).toBe(2);
  });
});

describe('cycles', () => {
  test('what happens in one', () => {
    const monitor = new PerformanceMonitor();
    monitor.startCycle('review');
    monitor.recordLlmCall('review', { cacheHit: true });
    monitor.recordLlmCall('review', { cacheHit: false, duration: 120 });
    monitor.recordLlmCall('review');
    monitor.recordValidation('review', { duration: 12.5, count: 4 });
    monitor.recordValidation('review');
    monitor.recordFileOperation('review');
    monitor.recordFileOperation('review', { count: 2 });
    expect(monitor.getSummary().cycles).toMatchObject({ active: 1, count: 0, llmCalls: 0 });
    const cycle = monitor.endCycle('review', { success: true });
    expect(cycle).toMatchObject({
      id: 'review', status: 'succeeded', llmCalls: 3, cacheHits: 1, llmTime: 120, validations: 5, validationTime: 12.5, fileOperations: 3,
    });
    expect(cycle.duration).toBeGreaterThanOrEqual(0);
    expect(cycle.memory!.peak).toBeGreaterThan(2 ** 20);
    monitor.startCycle('review');
    monitor.endCycle('review', { success: false });
    expect(monitor.getCycles().map(({ status }) => status)).toEqual(['succeeded', 'failed']);
    expect(monitor.getSummary().cycles).toMatchObject({ active: 0, count: 2, succeeded: 1, failed: 1, llmCalls: 3, cacheHitRatio: 1 / 3 });
  });

  test('unknown, unfinished and ended ones', async () => {
    const monitor = new PerformanceMonitor();
    monitor.startCycle('open');
    monitor.startCycle('over');
    monitor.endCycle('over');
    const cases: [() => unknown, string][] = [
      [() => monitor.recordLlmCall('nobody'), '"nobody" was never started'],
      [() => monitor.recordValidation('nobody'), 'never started'],
      [() => monitor.recordFileOperation('over'), '"over" has ended already'],
      [() => monitor.endCycle('over'), 'has ended already'],
      [() => monitor.startCycle('open'), '"open" is in progress already'],
      [() => monitor.startCycle(''), 'is empty'],
      [() => monitor.startCycle('x'.repeat(257)), '257 characters'],
      [() => monitor.startCycle(7 as never), 'not a string'],
      [() => monitor.recordLlmCall('open', { cacheHit: 1 as never }), 'cacheHit'],
      [() => monitor.recordLlmCall('open', { duration: NaN }), 'milliseconds'],
      [() => monitor.recordValidation('open', { duration: -1 }), 'milliseconds'],
      [() => monitor.recordValidation('open', { count: 1.5 }), 'count'],
      [() => monitor.recordFileOperation('open', { count: -1 }), 'count'],
      [() => monitor.endCycle('open', { success: 'yes' as never }), 'success'],
    ];
    for (const [work, says] of cases) {
      const error = await failure(work);
      expect(error).toBeInstanceOf(EmbeddingError);
      expect({ code: error.code, message: error.message }).toEqual({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(says) });
    }
    expect(monitor.endCycle('open')).toMatchObject({ llmCalls: 0, validations: 0, fileOperations: 0 });
  });

  test('the latest 1000 are kept, or as many as wanted', () => {
    for (const [options, keep] of [[{}, 1000], [{ maxCycles: 5 }, 5]] as [MonitorOptions, number][]) {
      const monitor = new PerformanceMonitor(options);
      for (let i = 0; i < 1010; i++) {
        monitor.startCycle(`${i}`);
        monitor.endCycle(`${i}`);
      }
      expect(monitor.getCycles()).toHaveLength(keep);
      expect(monitor.getCycles().at(-1)!.id).toBe('1009');
      expect(monitor.getSummary().cycles.count).toBe(1010);
    }
  });

  test('survive in a file', async () => {
    const persistPath = join(scratch(), 'cycles.json');
    const monitor = new PerformanceMonitor({ persistPath, persistInterval: 1 });
    monitor.startCycle('a');
    monitor.recordLlmCall('a', { cacheHit: true });
    monitor.endCycle('a');
    monitor.startCycle('open');
    while (!existsSync(persistPath)) await sleep(5);
    await monitor.close();
    const again = new PerformanceMonitor({ persistPath });
    expect(again.getCycles().map(({ id, status }) => [id, status])).toEqual([['a', 'succeeded'], ['open', 'interrupted']]);
    expect(again.getSummary().cycles).toMatchObject({ count: 2, llmCalls: 1, cacheHits: 1 });
    expect(readdirSync(join(persistPath, '..'))).toEqual(['cycles.json']);
  });

  test('are written when the process ends, whatever ends it', () => {
    const persistPath = join(scratch(), 'cycles.json');
    const code = (end: string) => `const { PerformanceMonitor } = require(${JSON.stringify(root)});
      const monitor = new PerformanceMonitor({ persistPath: ${JSON.stringify(persistPath)}, persistInterval: 1e6 });
      const id = String(monitor.getCycles().length);
      monitor.startCycle(id); monitor.endCycle(id); console.log(monitor.getCycles().length); ${end}`;
    for (const [end, count] of [['', 1], ['process.exit(0)', 2], ['', 3]] as const) {
      expect(execFileSync(process.execPath, ['-e', code(end)], { encoding: 'utf8', timeout: 30_000 })).toBe(`${count}\n`);
    }
    expect(new PerformanceMonitor({ persistPath }).getCycles()).toHaveLength(3);
  });

  test('a damaged file is set aside, one that cannot be written is told', async () => {
    const directory = scratch();
    const persistPath = join(directory, 'cycles.json');
    writeFileSync(persistPath, '{"format":"embedcore-cycles","version":1,"cyc');
    const heard = listen();
    const monitor = new PerformanceMonitor({ persistPath });
    expect(heard).toEqual([{ monitor, type: 'file-set-aside', path: persistPath, movedTo: expect.any(String), reason: expect.any(String) }]);
    expect(readFileSync((heard[0] as { movedTo: string }).movedTo, 'utf8')).toContain('"cyc');
    monitor.startCycle('a');
    monitor.endCycle('a');
    await monitor.save();
    expect(new PerformanceMonitor({ persistPath }).getCycles()).toHaveLength(1);

    for (const bad of [directory, join(directory, 'no', 'such', 'directory.json')]) {
      const error = await failure(() => monitor.save(bad));
      expect(error).toMatchObject({ code: 'CACHE_STORAGE_FAILED', details: { path: bad } });
      expect(error.message).toContain(bad);
    }
    expect((await failure(() => new PerformanceMonitor({ persistPath: directory }))).code).toBe('CACHE_STORAGE_FAILED');
    expect((await failure(() => new PerformanceMonitor().save())).code).toBe('INVALID_ARGUMENT');

    const lost = new PerformanceMonitor({ persistPath: join(directory, 'no', 'such.json'), persistInterval: 0 });
    lost.startCycle('a');
    lost.endCycle('a');
    while (!heard.some((event) => event.type === 'storage-failed')) await sleep(5);
    expect(heard.at(-1)).toMatchObject({ monitor: lost, error: { code: 'CACHE_STORAGE_FAILED' } });
    await expect(lost.close()).rejects.toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
  });
});

describe('snapshots', () => {
  test('merge', () => {
    const [one, two, both] = [new PerformanceMonitor(), new PerformanceMonitor(), new PerformanceMonitor()];
    const next = random(5);
    for (let i = 0; i < 5000; i++) {
      const [ms, success] = [1000 * next() ** 3, next() > 0.1];
      for (const monitor of [i % 3 ? one : two, both]) {
        monitor.record('embed', ms, { batchSize: 4, success });
        if (i % 2) monitor.cacheHit('text');
        else monitor.cacheMiss('image');
      }
    }
    two.record('only here', 5);
    for (const monitor of [one, two]) {
      monitor.startCycle('a');
      monitor.endCycle('a');
    }
    const merged = mergeSnapshots(JSON.parse(JSON.stringify(one.snapshot())), two.snapshot());
    const [embed] = merged.operations;
    const { throughput: _, memory: __, firstAt, lastAt, ...numbers } = both.getStats('embed')!;
    for (const [name, value] of Object.entries(numbers)) {
      if (typeof value === 'number') expect(embed![name as 'p50'], name).toBeCloseTo(value, 6);
    }
    expect(Math.abs(embed!.firstAt - firstAt)).toBeLessThan(1000);
    expect(Math.abs(embed!.lastAt - lastAt)).toBeLessThan(1000);
    expect(merged.operations.map(({ name }) => name)).toEqual(['embed', 'only here']);
    expect(merged.caches).toEqual(both.snapshot().caches);
    expect(merged.cycles.summary).toMatchObject({ count: 2, succeeded: 2 });
    const again = mergeSnapshots(merged, new PerformanceMonitor().snapshot());
    expect(again.operations.map(({ histogram }) => histogram)).toEqual(merged.operations.map(({ histogram }) => histogram));
  });

  test('what is none is refused', async () => {
    const good = () => {
      const monitor = new PerformanceMonitor();
      monitor.record('a', 1);
      return monitor.snapshot() as unknown as Record<string, unknown> & { operations: Record<string, unknown>[] };
    };
    const circular = good();
    circular.self = circular;
    const bad: unknown[] = [
      undefined, null, 7, 'text', {}, [], { ...good(), version: 2 }, { ...good(), format: 'other' }, { ...good(), operations: 5 },
      { ...good(), operations: [{ ...good().operations[0], count: 5 }] }, { ...good(), operations: [{ ...good().operations[0], name: '' }] },
      { ...good(), operations: [{ ...good().operations[0], histogram: [1, -1] }] }, circular, { ...good(), startedAt: 5n },
    ];
    for (const snapshot of bad) expect((await failure(() => mergeSnapshots(snapshot as never))).code).toBe('INVALID_ARGUMENT');
    const damages: ((snapshot: any) => void)[] = [
      (snapshot) => (snapshot.takenAt = 1e300),
      (snapshot) => (snapshot.startedAt = -1e300),
      (snapshot) => (snapshot.startedAt = snapshot.takenAt + 1),
      ({ operations: [one] }) => (one.min = 100),
      ({ operations: [one] }) => (one.max = 0.001),
      ({ operations: [one] }) => (one.total = 50),
      ({ operations: [one] }) => (one.firstAt = one.lastAt + 86_400_000),
      ({ operations: [one] }) => (one.lastAt = 9e15),
      ({ operations: [one] }) => (one.errors = 2),
      ({ operations: [one] }) => (one.throughput.lastMinute = -1),
      ({ operations }) => operations.push(operations[0]),
      ({ caches }) => caches.push(caches[0]),
      ({ cycles }) => (cycles.summary.count = 5),
      ({ cycles }) => (cycles.summary.cacheHits = 5),
      ({ cycles }) => (cycles.summary.llmTime = -5),
      ({ cycles }) => (cycles.recent[0].startedAt = 1e300),
      ({ cycles }) => (cycles.recent[0].endedAt = 0),
      ({ cycles }) => (cycles.recent[0].status = 'inProgress'),
      ({ cycles }) => (cycles.active[0].status = 'failed'),
      ({ errors }) => (errors[0].at = 1e300),
    ];
    const whole = new PerformanceMonitor();
    whole.record('a', 1);
    whole.cacheHit('a');
    whole.record('b', 1, { error: new Error('no') });
    whole.startCycle('a');
    whole.endCycle('a');
    whole.startCycle('b');
    for (const damage of damages) {
      const snapshot = whole.snapshot();
      damage(snapshot);
      expect((await failure(() => mergeSnapshots(snapshot))).code, String(damage)).toBe('INVALID_ARGUMENT');
    }
    // What follows from other figures is made of those.
    const lying = whole.snapshot();
    lying.operations[0]!.p99 = 1e300;
    lying.caches[0]!.hitRatio = 7;
    expect(mergeSnapshots(lying)).toMatchObject({ operations: [{ p99: whole.getStats('a')!.p99 }, {}], caches: [{ hitRatio: 1 }] });
    expect((await failure(() => mergeSnapshots())).code).toBe('INVALID_ARGUMENT');
    expect(mergeSnapshots(good() as never).operations).toHaveLength(1);
  });
});

describe('@monitored()', () => {
  /** Compiles as users' compilers do, and runs it. */
  function run(source: string, experimentalDecorators: boolean): Record<string, any> {
    const { outputText } = ts.transpileModule(source, {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.CommonJS, experimentalDecorators },
    });
    const exports = {};
    new Function('exports', 'require', outputText)(exports, () => embedcore);
    return exports;
  }

  const source = `import { monitored, PerformanceMonitor } from 'embedcore';
    export const monitor = new PerformanceMonitor();
    export class Base {
      factor = 2;
      @monitored({ monitor }) double(x: number) { return x * this.factor; }
      @monitored({ monitor, name: 'embed', batchSize: (texts: string[]) => texts.length }) async embed(texts: string[]) {
        if (texts.length === 0) throw new Error('no texts');
        return texts.length;
      }
      @monitored({ monitor }) static make() { return new Base(); }
      @monitored({ monitor }) ['odd name']() { throw new RangeError('always'); }
    }
    export class Derived extends Base {}`;

  test.each([['in the standard way', false], ['in the older way of TypeScript', true]])('%s', async (_, experimental) => {
    const { Base, Derived, monitor } = run(source, experimental);
    const derived = new Derived();
    expect(derived.double(21)).toBe(42);
    expect(Base.make()).toBeInstanceOf(Base);
    expect(Base.prototype.double.name).toBe('double');
    expect(await derived.embed(['a', 'b'])).toBe(2);
    await expect(derived.embed([])).rejects.toThrow('no texts');
    expect(() => derived['odd name']()).toThrow(RangeError);
    const { operations, errors } = (monitor as PerformanceMonitor).getSummary();
    expect(Object.keys(operations).sort()).toEqual(['Base.double', 'Base.make', 'Base.odd name', 'embed']);
    expect(operations.embed).toMatchObject({ count: 2, items: 2, errors: 1 });
    expect(operations['Base.odd name']).toMatchObject({ count: 1, errors: 1 });
    expect(errors.map(({ message }) => message)).toEqual(['no texts', 'always']);
  });

  test('takes the global monitor, and refuses what it cannot decorate', async () => {
    const { Service } = run(
      `import { monitored } from 'embedcore'; export class Service { @monitored('service') call() {} }`, false);
    const before = getGlobalMonitor().getStats('service')?.count ?? 0;
    new Service().call();
    expect(getGlobalMonitor().getStats('service')!.count).toBe(before + 1);
    for (const work of [
      () => monitored(5 as never),
      () => monitored({ name: 5 as never }),
      () => monitored({ monitor: {} as never }),
      () => monitored({ batchSize: 5 as never }),
      () => (monitored() as (...args: unknown[]) => void)(class {}, { kind: 'class', name: 'A' }),
      () => (monitored() as (...args: unknown[]) => void)({}, 'field'),
    ]) {
      expect(await failure(work)).toBeInstanceOf(EmbeddingError);
    }
  });
});

describe('the global monitor', () => {
  test('is one, for all threads', async () => {
    const monitor = getGlobalMonitor();
    expect(getGlobalMonitor()).toBe(monitor);
    const code = `const { getGlobalMonitor } = require(${JSON.stringify(root)});
      for (let i = 0; i < 10; i++) getGlobalMonitor().record('in a worker', 5, { batchSize: 2 });`;
    await Promise.all([1, 2, 3].map(() => new Promise((resolve) => new Worker(code, { eval: true }).on('exit', resolve))));
    expect(monitor.getStats('in a worker')).toMatchObject({ count: 30, items: 60 });
  });
});

test('events are published on a diagnostics channel', async () => {
  const monitor = new PerformanceMonitor();
  const heard = listen(monitor);
  monitor.record('a', 5, { batchSize: 3 });
  monitor.recordMany('a', [1, 2]);
  const error = new Error('no');
  await monitor.measure('b', () => Promise.reject(error)).catch(() => {});
  monitor.startCycle('c');
  const cycle = monitor.endCycle('c');
  expect(heard).toEqual([
    { monitor, type: 'operation', name: 'a', duration: 5, items: 3, success: true },
    { monitor, type: 'operations', name: 'a', durations: [1, 2], items: 1, success: true },
    { monitor, type: 'operation', name: 'b', duration: expect.any(Number), items: 1, success: false, error },
    { monitor, type: 'cycle-started', id: 'c' },
    { monitor, type: 'cycle-ended', cycle },
  ]);
});

test('bad input is refused by name, and changes nothing', async () => {
  const monitor = new PerformanceMonitor();
  monitor.record('a', 1);
  const before = JSON.stringify(monitor.getStats('a'));
  const bad: [() => unknown, string][] = [
    ...[NaN, -1, Infinity, 1e13, '5', null, undefined, 5n, {}].map((ms): [() => unknown, string] => [() => monitor.record('a', ms as never), 'milliseconds']),
    ...[NaN, -1, 1.5, Infinity, '5', null].map((batchSize): [() => unknown, string] => [() => monitor.record('a', 1, { batchSize: batchSize as never }), 'batchSize']),
    ...['', 'x'.repeat(257)].map((name): [() => unknown, string] => [() => monitor.record(name, 1), 'characters']),
    ...[5, null, undefined, {}, Symbol('a')].map((name): [() => unknown, string] => [() => monitor.record(name as never, 1), 'not a string']),
    [() => monitor.record('a', 1, null as never), 'options'],
    [() => monitor.record('a', 1, { success: 1 as never }), 'success'],
    [() => monitor.record('a', 1, { memory: -1 }), 'memory'],
    [() => monitor.record('a', 1, { memory: { before: 1 } as never }), 'memory.after'],
    [() => monitor.recordMany('a', [1, 2, -3]), 'index 2'],
    [() => monitor.recordMany('a', [1, 'x' as never]), 'index 1'],
    [() => monitor.recordMany('a', new BigInt64Array(2) as never), 'index 0'],
    [() => monitor.recordMany('a', new DataView(new ArrayBuffer(8)) as never), 'not an array'],
    [() => monitor.recordMany('a', 5 as never), 'not an array'],
    [() => monitor.recordMany('a', null as never), 'not an array'],
    [() => monitor.recordMany('a', [1], { batchSize: -1 }), 'batchSize'],
    ...[Infinity, NaN, -1, 1.5, 2 ** 60].map((length): [() => unknown, string] => [() => monitor.recordMany('a', { length }), 'durations']),
    [() => monitor.measure('a', 5 as never), 'not a function'],
    [() => monitor.measure('a', () => 1, { batchSize: NaN }), 'batchSize'],
    [() => monitor.startTimer(''), 'characters'],
    [() => monitor.cacheHit(''), 'characters'],
    [() => monitor.cacheMiss(7 as never), 'not a string'],
    [() => monitor.getStats(7 as never), 'not a string'],
    [() => monitor.toCsv('tables' as never), "'operations', 'caches', 'cycles'"],
    [() => new PerformanceMonitor({ maxCycles: 0 }), 'maxCycles'],
    [() => new PerformanceMonitor({ persistPath: '' }), 'persistPath'],
    [() => new PerformanceMonitor({ persistPath: 5 as never }), 'persistPath'],
    [() => new PerformanceMonitor({ persistInterval: -1 }), 'persistInterval'],
    [() => new PerformanceMonitor({ unknown: 1 } as never), 'unknown'],
    [() => new PerformanceMonitor(null as never), 'options'],
  ];
  for (const [work, says] of bad) {
    const error = await failure(work);
    expect(error, String(work)).toBeInstanceOf(EmbeddingError);
    expect({ code: error.code, message: error.message }).toEqual({ code: expect.stringMatching(/^INVALID_/), message: expect.stringContaining(says) });
  }
  const { throughput: _, ...rest } = JSON.parse(before);
  expect(monitor.getStats('a')).toMatchObject(rest);
  expect(monitor.getSummary()).toMatchObject({ totals: { count: 1 }, caches: { hits: 0, misses: 0 } });
});

test('random snapshots are refused, or merged to what can be shown', () => {
  let state = 7;
  const random = (below: number) => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) % below;
  const monitor = new PerformanceMonitor();
  for (let i = 0; i < 20; i++) monitor.record(`operation ${i % 4}`, i, { memory: i });
  monitor.cacheMiss();
  monitor.startCycle('a');
  monitor.endCycle('a');
  const json = JSON.stringify(monitor.snapshot());
  const values = [null, -1, 0, 1e300, 2 ** 53, 1.5, '', 'a', [], {}, true, [1, 1]];
  let [merged, refused] = [0, 0];
  for (let round = 0; round < 3000; round++) {
    const snapshot = JSON.parse(json) as MonitorSnapshot;
    let place: any = snapshot;
    for (let depth = random(4); depth >= 0; depth--) {
      const keys = Object.keys(place);
      const key = keys[random(keys.length)];
      if (key === undefined) break;
      if (depth > 0 && typeof place[key] === 'object' && place[key] !== null) place = place[key];
      else if (random(5) === 0) delete place[key];
      else place[key] = values[random(values.length)];
    }
    let whole: MonitorSnapshot;
    try {
      whole = mergeSnapshots(snapshot, monitor.snapshot());
    } catch (error) {
      expect(error, JSON.stringify(snapshot)).toBeInstanceOf(EmbeddingError);
      expect((error as EmbeddingError).code).toBe('INVALID_ARGUMENT');
      refused++;
      continue;
    }
    merged++;
    expect(mergeSnapshots(whole).operations.map(({ count }) => count)).toEqual(whole.operations.map(({ count }) => count));
    const dates = [whole.takenAt, whole.startedAt, ...whole.operations.flatMap((one) => [one.firstAt, one.lastAt]), ...whole.cycles.recent.flatMap((one) => [one.startedAt, one.endedAt ?? 0])];
    for (const date of dates) new Date(date).toISOString();
    for (const one of whole.operations) expect(Object.values(one).every((value) => typeof value !== 'number' || Number.isFinite(value))).toBe(true);
  }
  expect([merged > 100, refused > 100]).toEqual([true, true]);
});

test('errors that cannot be shown, or are very long', () => {
  const monitor = new PerformanceMonitor();
  const circular: { self?: unknown } = {};
  circular.self = circular;
  const errors = [circular, () => 1, 5n, Symbol('s'), Object.create(null), { get message() { throw new Error('no'); } }, null, 'x'.repeat(1e8), '😀'.repeat(1000)];
  for (const error of errors) monitor.record('a', 1, { error });
  const messages = monitor.getSummary().errors.map(({ message }) => message);
  expect(messages).toHaveLength(errors.length);
  for (const message of messages) expect([...message].length).toBeLessThanOrEqual(500);
  expect(messages.slice(0, 7)).toEqual(['[object Object]', '() => 1', '5', 'Symbol(s)', 'an error that cannot be shown', 'an error that cannot be shown', 'null']);
  expect(messages.at(-1)).toMatch(/^(😀)+$/u);
});

test('does not keep the process alive', () => {
  const code = `const { PerformanceMonitor, getGlobalMonitor } = require(${JSON.stringify(root)});
    globalThis.monitor = new PerformanceMonitor({ persistPath: ${JSON.stringify(join(scratch(), 'c.json'))} });
    monitor.startCycle('a'); monitor.record('a', 1); getGlobalMonitor().startTimer('never stopped');
    console.log(monitor.getSummary().machine.cpuCores > 0);`;
  expect(execFileSync(process.execPath, ['-e', code], { encoding: 'utf8', timeout: 30_000 })).toBe('true\n');
});
