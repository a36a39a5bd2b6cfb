// What monitors and dashboards write, and what they let go.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

import { getGlobalMonitor, PerformanceDashboard, PerformanceMonitor, type MonitorEvent } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure, root } from './support';

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function cycles(monitor: PerformanceMonitor, count: number): PerformanceMonitor {
  for (let i = 0; i < count; i++) {
    monitor.startCycle(`cycle ${i}`);
    monitor.endCycle(`cycle ${i}`);
  }
  return monitor;
}

function listen(): MonitorEvent[] {
  const heard: MonitorEvent[] = [];
  const listener = (event: unknown) => void heard.push(event as MonitorEvent);
  subscribe('embedcore:monitor', listener);
  onTestFinished(() => void unsubscribe('embedcore:monitor', listener));
  return heard;
}

/** Runs `code`, with `embedcore` and `data`, in another thread; what it returns. */
async function inWorker(code: string, data?: unknown): Promise<unknown> {
  const script = `const { parentPort, workerData: { root, data } } = require('node:worker_threads'), embedcore = require(root);
    (async () => { ${code} })().then((answer) => parentPort.postMessage(answer));`;
  const [answer] = await once(new Worker(script, { eval: true, workerData: { root, data } }), 'message');
  return answer;
}

const read = (path: string) => JSON.parse(readFileSync(path, 'utf8'));

describe('one path, written by many at the same time', () => {
  test('exports all succeed, and the last one stays', async () => {
    const directory = scratch();
    const path = join(directory, 'export.json');
    const [long, short] = [300, 3].map((operations) => {
      const monitor = new PerformanceMonitor();
      for (let i = 0; i < operations; i++) monitor.record(`operation ${i}`, 1);
      const dashboard = new PerformanceDashboard({ monitor });
      onTestFinished(() => dashboard.close());
      return dashboard;
    }) as [PerformanceDashboard, PerformanceDashboard];
    for (let round = 0; round < 20; round++) {
      await Promise.all([long.exportJson(path), short.exportCsv(path), short.exportJson(path), long.exportJson(path)]);
      expect(read(path).operations).toHaveLength(300);
      await Promise.all([long.exportJson(path), long.exportCsv(path, 'cycles'), short.exportJson(path)]);
      expect(read(path).operations).toHaveLength(3);
    }
    expect(readdirSync(directory)).toEqual(['export.json']);
  });

  test('cycles of threads and processes', async () => {
    const directory = scratch();
    const path = join(directory, 'cycles.json');
    const saves = `const monitor = new embedcore.PerformanceMonitor();
      for (let i = 0; i < 300; i++) monitor.startCycle('c' + i), monitor.endCycle('c' + i);
      let failed = 0;
      for (let round = 0; round < 20; round++) await Promise.all([monitor.save(data), monitor.save(data)]).catch(() => (failed += 1));
      return failed;`;
    const inProcess = async () => {
      const code = `const embedcore = require(${JSON.stringify(root)}), data = ${JSON.stringify(path)};
        (async () => { ${saves} })().then((failed) => process.exit(failed))`;
      return (await once(spawn(process.execPath, ['-e', code], { stdio: 'inherit' }), 'exit'))[0] as number;
    };
    expect(await Promise.all([inWorker(saves, path), inWorker(saves, path), inProcess(), inProcess()])).toEqual([0, 0, 0, 0]);
    expect(read(path).cycles.recent).toHaveLength(300);
    expect(readdirSync(directory)).toEqual(['cycles.json']);
  });

  test('saves of one monitor: the last one stays', async () => {
    const path = join(scratch(), 'cycles.json');
    const monitor = new PerformanceMonitor();
    const saving: Promise<void>[] = [];
    for (let i = 0; i < 50; i++) {
      monitor.startCycle(`${i}`);
      monitor.endCycle(`${i}`);
      saving.push(monitor.save(path));
    }
    await Promise.all(saving);
    expect(read(path).cycles.recent).toHaveLength(50);
  });
});

describe('close()', () => {
  test('resolves when all is on disk, what was being written, too', async () => {
    const directory = scratch();
    for (const wait of [0, 1, 2, 3]) {
      const persistPath = join(directory, `${wait}.json`);
      const monitor = cycles(new PerformanceMonitor({ persistPath, persistInterval: 0, maxCycles: 5000 }), 2000);
      if (wait > 0) await sleep(wait);
      await monitor.close();
      expect(existsSync(persistPath)).toBe(true);
      expect(new PerformanceMonitor({ persistPath, maxCycles: 5000 }).getCycles()).toHaveLength(2000);
    }
    const other = cycles(new PerformanceMonitor(), 2000);
    void other.save(join(directory, 'other.json'));
    await other.close();
    expect(read(join(directory, 'other.json')).cycles.recent).toHaveLength(1000);
    const dashboard = new PerformanceDashboard({ monitor: other });
    void dashboard.exportJson(join(directory, 'a.json'));
    void dashboard.exportCsv(join(directory, 'a.csv'), 'cycles');
    await dashboard.close();
    expect(read(join(directory, 'a.json')).format).toBe('embedcore-monitor');
    expect(readFileSync(join(directory, 'a.csv'), 'utf8').split('\r\n')).toHaveLength(1002);
  });

  test('a save that failed is told by close(), and one that nobody waits for is unhandled by nobody else', async () => {
    const monitor = cycles(new PerformanceMonitor({ persistPath: join(scratch(), 'no', 'such.json') }), 1);
    const saving = monitor.save();
    const closing = monitor.close();
    await expect(saving).rejects.toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
    await expect(closing).rejects.toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
  });

  test('lets go of monitors and dashboards', () => {
    const code = `const { PerformanceMonitor, PerformanceDashboard } = require(process.argv[1]), path = process.argv[2];
      const turn = () => new Promise((resolve) => setTimeout(resolve, 5));
      (async () => {
        const refs = [];
        for (let i = 0; i < 50; i++) {
          const monitor = new PerformanceMonitor({ persistPath: path });
          if (i % 2) monitor.startCycle('a'), monitor.endCycle('a');
          const dashboard = new PerformanceDashboard({ monitor });
          const server = i % 10 === 0 ? await dashboard.serve() : undefined;
          await server?.close();
          refs.push(new WeakRef(monitor), new WeakRef(dashboard));
          await dashboard.close();
          await monitor.close();
        }
        for (let i = 0; i < 10; i++) await turn(), gc();
        console.log(refs.filter((ref) => ref.deref()).length);
      })();`;
    const out = execFileSync(process.execPath, ['--expose-gc', '-e', code, root, join(scratch(), 'cycles.json')], { encoding: 'utf8' });
    // The latest may still be on the stack.
    expect(Number(out)).toBeLessThanOrEqual(4);
  });

  test('what is recorded after it is still kept, and written', async () => {
    const persistPath = join(scratch(), 'cycles.json');
    const monitor = cycles(new PerformanceMonitor({ persistPath, persistInterval: 1 }), 1);
    await monitor.close();
    monitor.startCycle('later');
    monitor.endCycle('later');
    await expect.poll(() => read(persistPath).cycles.recent.length).toBe(2);
  });
});

test('paths mean what they meant when they were given', () => {
  const [directory, other] = [scratch(), scratch()];
  const code = `const { PerformanceMonitor, PerformanceDashboard } = require(process.argv[1]);
    (async () => {
      const monitor = new PerformanceMonitor({ persistPath: 'cycles.json' });
      monitor.startCycle('a'); monitor.endCycle('a');
      const dashboard = new PerformanceDashboard({ monitor });
      const all = [dashboard.exportJson('a.json'), dashboard.exportCsv('a.csv'), monitor.save('b.json')];
      process.chdir(process.argv[2]);
      await Promise.all(all); await dashboard.close(); await monitor.close();
    })();`;
  execFileSync(process.execPath, ['-e', code, root, other], { cwd: directory });
  expect([readdirSync(directory).sort(), readdirSync(other)]).toEqual([['a.csv', 'a.json', 'b.json', 'cycles.json'], []]);
});

describe('files that are read', () => {
  const written = async () => {
    const persistPath = join(scratch(), 'cycles.json');
    await cycles(new PerformanceMonitor({ persistPath }), 3).close();
    return persistPath;
  };

  test('maxCycles holds for what is read', async () => {
    const persistPath = await written();
    const monitor = new PerformanceMonitor({ persistPath, maxCycles: 2 });
    expect(monitor.getCycles().map(({ id }) => id)).toEqual(['cycle 1', 'cycle 2']);
    expect(monitor.getSummary().cycles.count).toBe(3);
  });

  test.each<[string, (cycle: Record<string, unknown>) => void]>([
    ['a date that there is not', (cycle) => (cycle.startedAt = 1e300)],
    ['an end before its beginning', (cycle) => (cycle.endedAt = 5)],
    ['a duration that is none', (cycle) => (cycle.duration = -1)],
    ['more hits than calls', (cycle) => (cycle.cacheHits = 7)],
    ['no id', (cycle) => delete cycle.id],
  ])('a cycle with %s is set aside, and the others are read', async (_, damage) => {
    const persistPath = await written();
    const file = read(persistPath);
    damage(file.cycles.recent[1]);
    writeFileSync(persistPath, JSON.stringify(file));
    const heard = listen();
    const monitor = new PerformanceMonitor({ persistPath });
    expect(heard).toEqual([{ monitor, type: 'file-set-aside', path: persistPath, movedTo: expect.stringContaining('.damaged-'), reason: expect.any(String) }]);
    expect(read((heard[0] as { movedTo: string }).movedTo)).toEqual(file);
    expect(monitor.getCycles().map(({ id }) => id)).toEqual(['cycle 0', 'cycle 2']);
    expect(monitor.toCsv('cycles')).toContain('cycle 2');
    // What was read is written again.
    await monitor.close();
    expect(read(persistPath).cycles.recent).toHaveLength(2);
  });

  test('a file that was never ours is refused, and left alone', async () => {
    const persistPath = join(scratch(), 'notes.txt');
    for (const content of ['my notes\n', '{"name":"other","version":1}', '[]']) {
      writeFileSync(persistPath, content);
      expect(await failure(() => new PerformanceMonitor({ persistPath }))).toMatchObject({ code: 'CACHE_STORAGE_FAILED', message: expect.stringContaining('not a file of cycles') });
      expect(readFileSync(persistPath, 'utf8')).toBe(content);
    }
  });

  test('a file of a later release is told, and left as it is', async () => {
    const persistPath = join(scratch(), 'cycles.json');
    const content = '{"format":"embedcore-cycles","version":2,"cycles":"otherwise"}';
    writeFileSync(persistPath, content);
    const heard = listen();
    const monitor = new PerformanceMonitor({ persistPath, persistInterval: 0 });
    expect(heard).toMatchObject([{ monitor, type: 'storage-failed', path: persistPath, error: { code: 'CACHE_STORAGE_FAILED', message: expect.stringContaining('later release') } }]);
    cycles(monitor, 2);
    await sleep(20);
    await monitor.close();
    expect([readFileSync(persistPath, 'utf8'), monitor.getCycles().length]).toEqual([content, 2]);
  });
});

test('what a thread has recorded counts, though it is ended from outside', async () => {
  const script = `const { parentPort, workerData } = require('node:worker_threads'), { getGlobalMonitor } = require(workerData);
    for (let i = 0; i < 20; i++) getGlobalMonitor().record('of a thread', 1), getGlobalMonitor().cacheHit('of a thread');
    parentPort.postMessage('done'); setInterval(() => {}, 1000);`;
  const worker = new Worker(script, { eval: true, workerData: root });
  await once(worker, 'message');
  const count = () => getGlobalMonitor().getStats('of a thread')?.count;
  await expect.poll(count, { timeout: 20_000 }).toBe(20);
  await worker.terminate();
  expect([count(), getGlobalMonitor().getSummary().caches.byType['of a thread']!.hits]).toEqual([20, 20]);
});

test('however often it is loaded, nothing is printed', () => {
  const code = `const root = process.argv[1], { sep } = require('node:path');
    for (let i = 0; i < 15; i++) {
      for (const key of Object.keys(require.cache)) if (key.startsWith(root + sep + 'dist')) delete require.cache[key];
      const { getGlobalMonitor, PerformanceMonitor } = require(root);
      getGlobalMonitor().record('x', 1);
      const monitor = new PerformanceMonitor({ persistPath: process.argv[2] });
      monitor.startCycle('a'), monitor.endCycle('a');
    }
    setTimeout(() => {}, 20);`;
  const child = spawn(process.execPath, ['-e', code, root, join(scratch(), 'cycles.json')], { stdio: ['ignore', 'pipe', 'pipe'] });
  let printed = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (piece) => (printed += piece));
  return once(child, 'close').then(([exit]) => expect([exit, printed]).toEqual([0, '']));
});
