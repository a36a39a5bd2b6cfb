import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';

import { EmbeddingError, PerformanceMonitor } from 'embedcore';
import { BatchFileProcessor, RealtimeEvaluator } from 'embedcore/parallel';
import * as fc from 'fast-check';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';

import { failure } from './support';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'embedcore-parallel-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
});

describe('BatchFileProcessor', () => {
  test('reads what it has written, in the order of the paths, text and bytes', async () => {
    const files = new BatchFileProcessor({ root: folder, batchSize: 3 });
    const written = Array.from({ length: 20 }, (_, i) => ({ path: `d${i % 4}/f${i}`, content: i % 2 ? `tëxt ${i}` : Uint8Array.of(i, 255) }));
    expect(await files.writeBatch(written)).toEqual(written.map(({ path }) => ({ path })));
    const bytes = await files.readBatch(written.map(({ path }) => path), { encoding: 'buffer' });
    expect(bytes).toEqual(written.map(({ path, content }) => ({ path, content: Buffer.from(content as string) })));
    expect(await files.readBatch(['d1/f1'])).toEqual([{ path: 'd1/f1', content: 'tëxt 1' }]);
    expect(await files.readBatch(['d0/f0'], { encoding: 'latin1' })).toEqual([{ path: 'd0/f0', content: '\x00ÿ' }]);
    expect(readdirSync(folder, { recursive: true }).filter((name) => String(name).includes('.part'))).toEqual([]);
  });

  test('calls take effect in the order in which they were made, awaited or not', async () => {
    const step = fc.oneof(
      fc.record({ write: fc.array(fc.record({ path: fc.constantFrom('a', 'b', 'c'), content: fc.string() }), { maxLength: 4 }), atomic: fc.boolean() }),
      fc.record({ read: fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 4 }) }),
    );
    await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      const root = mkdtempSync(join(folder, 'run-'));
      const files = new BatchFileProcessor({ root, batchSize: 2 });
      const reference = new Map<string, string>();
      const expected: unknown[] = [];
      const calls: Promise<unknown>[] = [];
      for (const each of steps) {
        if ('write' in each) {
          calls.push(files.writeBatch(each.write, { atomic: each.atomic }));
          expected.push(each.write.map(({ path }) => ({ path })));
          for (const { path, content } of each.write) reference.set(path, content.toWellFormed());
        } else {
          calls.push(files.readBatch(each.read));
          expected.push(each.read.map((path) => (reference.has(path) ? { path, content: reference.get(path) } : { path, error: expect.any(EmbeddingError) })));
        }
      }
      expect(await Promise.all(calls)).toEqual(expected);
    }), { numRuns: 60 });
  });

  test('`await using` ends when all is written and read', async () => {
    const paths = Array.from({ length: 200 }, (_, i) => join(folder, `f${i}`));
    let read: Promise<unknown>;
    {
      await using files = new BatchFileProcessor({ batchSize: 1 });
      void files.writeBatch(paths.map((path) => ({ path, content: 'x' })));
      read = files.readBatch(paths);
    }
    expect(readdirSync(folder).length).toBe(200);
    expect(await Promise.race([read, 'not yet'])).toHaveLength(200);
  });

  test('content counts as it is when the call is made', async () => {
    const files = new BatchFileProcessor({ root: folder });
    const content = Uint8Array.of(1);
    const list = [{ path: 'a', content }];
    const call = files.writeBatch(list);
    content[0] = 2;
    list.length = 0;
    await call;
    expect(readFileSync(join(folder, 'a'))).toEqual(Buffer.of(1));
  });

  test('a relative root and relative paths mean what they meant when they were given', async () => {
    const before = process.cwd();
    try {
      process.chdir(folder);
      const files = new BatchFileProcessor({ root: '.' });
      process.chdir(tmpdir());
      await files.writeBatch([{ path: 'here', content: 'x' }]);
    } finally {
      process.chdir(before);
    }
    expect(readFileSync(join(folder, 'here'), 'utf8')).toBe('x');
  });

  test('paths may begin at home, or be file URLs', async () => {
    const home = process.env.HOME;
    process.env.HOME = folder;
    try {
      const files = new BatchFileProcessor({ root: '~/inside' });
      mkdirSync(join(folder, 'inside'));
      expect(await files.writeBatch([{ path: '~/inside/a', content: 'a' }, { path: pathToFileURL(join(folder, 'inside', 'b')), content: 'b' }])).toEqual([{ path: '~/inside/a' }, { path: join(folder, 'inside', 'b') }]);
      expect(await files.readBatch(['a', 'b', pathToFileURL(join(folder, 'inside', 'a'))])).toMatchObject([{ content: 'a' }, { content: 'b' }, { path: join(folder, 'inside', 'a'), content: 'a' }]);
      expect(await new BatchFileProcessor().readBatch(['~/inside/a', '~nobody'])).toMatchObject([{ path: '~/inside/a', content: 'a' }, { error: { details: { errno: 'ENOENT' } } }]);
      const evaluator = new RealtimeEvaluator({ evaluate: () => ({ n: 1 }), outputDirectory: '~/evaluation' });
      await evaluator.evaluateBatch([1]);
      await evaluator.close();
      expect(readdirSync(join(folder, 'evaluation')).sort()).toEqual(['results.jsonl', 'summary.json']);
      expect(await evaluator.saveSummary('~/summary.json')).toBe(join(folder, 'summary.json'));
    } finally {
      process.env.HOME = home;
    }
    expect(await failure(() => new BatchFileProcessor().readBatch([new URL('https://host/a')]))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('a file that cannot be read has an error that says why; the others are read', async () => {
    const files = new BatchFileProcessor({ root: folder, maxFileMB: 0.001 });
    writeFileSync(join(folder, 'good'), 'good');
    writeFileSync(join(folder, 'large'), 'x'.repeat(2000));
    mkdirSync(join(folder, 'directory'));
    const results = await files.readBatch(['missing', 'good', 'large', 'directory', '../outside', 'n'.repeat(300)]);
    expect(results).toMatchObject([
      { error: { code: 'CACHE_STORAGE_FAILED', details: { path: 'missing', errno: 'ENOENT' } } },
      { content: 'good' },
      { error: { code: 'INPUT_TOO_LONG', details: { bytes: 2000, limit: 1048 } } },
      { error: { code: 'CACHE_STORAGE_FAILED' } },
      { error: { code: 'INVALID_ARGUMENT' } },
      { error: { code: 'CACHE_STORAGE_FAILED', details: { errno: 'ENAMETOOLONG' } } },
    ]);
    expect((results[2] as { error: Error }).error.message).toContain('maxFileMB');
  });

  test.skipIf(process.platform === 'win32')('neither a FIFO nor a device holds a call up, and links do not lead out', async () => {
    await promisify(execFile)('mkfifo', [join(folder, 'fifo')]);
    symlinkSync('/etc/hostname', join(folder, 'link'));
    symlinkSync(tmpdir(), join(folder, 'away'));
    const files = new BatchFileProcessor({ root: folder });
    const reads = await files.readBatch(['fifo', 'link']);
    expect(reads).toMatchObject([{ error: { message: expect.stringContaining('no regular file') } }, { error: { code: 'INVALID_ARGUMENT' } }]);
    const writes = await files.writeBatch([{ path: 'fifo', content: '' }, { path: 'link', content: '' }, { path: 'away/file', content: '' }]);
    expect(writes).toMatchObject([{ error: {} }, { error: { code: 'INVALID_ARGUMENT' } }, { error: { code: 'INVALID_ARGUMENT' } }]);
    expect(await new BatchFileProcessor().readBatch(['/dev/zero'])).toMatchObject([{ error: { code: 'CACHE_STORAGE_FAILED' } }]);
  });

  test('files that vanish meanwhile are read whole, or there is none', async () => {
    const paths = Array.from({ length: 300 }, (_, i) => join(folder, `f${i}`));
    const content = 'x'.repeat(5000);
    for (const path of paths) writeFileSync(path, content);
    const reading = new BatchFileProcessor({ batchSize: 4 }).readBatch(paths);
    for (const path of [...paths].reverse()) {
      unlinkSync(path);
      if (path.endsWith('0')) await new Promise((resolve) => setImmediate(resolve));
    }
    for (const read of await reading) {
      if (read.error) expect(read.error).toMatchObject({ code: 'CACHE_STORAGE_FAILED', details: { errno: 'ENOENT' } });
      else expect(read.content).toBe(content);
    }
  });

  test('names may have 255 bytes, and no more', async () => {
    const files = new BatchFileProcessor({ root: folder });
    const name = 'é'.repeat(127) + 'e';
    expect(await files.writeBatch([{ path: name, content: 'x' }, { path: `${name}e`, content: 'x' }])).toMatchObject([{ path: name }, { error: { code: 'CACHE_STORAGE_FAILED', details: { errno: 'ENAMETOOLONG' } } }]);
    expect(await files.readBatch([name])).toEqual([{ path: name, content: 'x' }]);
  });

  test.skipIf(process.platform !== 'linux')('a full disk is an error of the files that have no room, and leaves no part of one', async ({ skip }) => {
    const disk = join(folder, 'disk');
    mkdirSync(disk);
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk]).status !== 0) return skip();
    try {
      const files = new BatchFileProcessor({ root: disk, batchSize: 1, concurrency: 1 });
      await files.writeBatch([{ path: 'old', content: 'old' }]);
      const written = await files.writeBatch([{ path: 'a', content: 'a'.repeat(40_000) }, { path: 'old', content: 'b'.repeat(40_000) }, { path: 'c', content: 'c' }]);
      expect(written).toMatchObject([{ path: 'a' }, { path: 'old', error: { code: 'CACHE_STORAGE_FAILED', details: { errno: 'ENOSPC' } } }, { path: 'c' }]);
      expect(written.map(({ error }) => error === undefined)).toEqual([true, false, true]);
      expect(await files.readBatch(['old', 'c'])).toEqual([{ path: 'old', content: 'old' }, { path: 'c', content: 'c' }]);
      expect(readdirSync(disk).sort()).toEqual(['a', 'c', 'old']);
    } finally {
      spawnSync('umount', ['-l', disk]);
    }
  });

  test('of two contents for one path the last one counts, and a reader never sees a part of a file', async () => {
    const files = new BatchFileProcessor({ root: folder });
    const whole = (n: number) => String(n).repeat(50_000);
    await files.writeBatch([{ path: 'a', content: 'first' }, { path: 'a', content: whole(0) }]);
    const other = new BatchFileProcessor({ root: folder });
    for (let n = 1; n < 8; n++) {
      const writing = files.writeBatch([{ path: 'a', content: whole(n) }]);
      const [read] = await other.readBatch(['a']);
      expect([whole(n), whole(n - 1)]).toContain(read!.content);
      await writing;
    }
  });

  test('a root that is missing is made, unless directories are not to be', async () => {
    const root = join(folder, 'not', 'yet');
    expect(await failure(() => new BatchFileProcessor({ root }).writeBatch([{ path: 'a', content: 'x' }], { createDirectories: false }))).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
    expect(await new BatchFileProcessor({ root }).writeBatch([{ path: 'a', content: 'x' }])).toEqual([{ path: 'a' }]);
    expect(readFileSync(join(root, 'a'), 'utf8')).toBe('x');
  });

  test.skipIf(process.platform === 'win32')('nobody may read a new content of a file who may not read the old one, not even while it is written', async () => {
    const path = join(folder, 'private');
    writeFileSync(path, 'old', { mode: 0o600 });
    let over = false;
    const written = new BatchFileProcessor().writeBatch([{ path, content: Buffer.alloc(200 << 20, 'x') }]).finally(() => (over = true));
    const modes = new Set<number>();
    while (!over) {
      for (const name of readdirSync(folder)) try { modes.add(statSync(join(folder, name)).mode & 0o777); } catch {}
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    expect(await written).toEqual([{ path }]);
    expect([...modes]).toEqual([0o600]);
  });

  test('missing directories are made unless they are not to be', async () => {
    const files = new BatchFileProcessor({ root: folder });
    const [refused] = await files.writeBatch([{ path: 'x/y', content: '' }], { createDirectories: false });
    expect(refused!.error).toMatchObject({ code: 'CACHE_STORAGE_FAILED', details: { errno: 'ENOENT' } });
    expect(await files.writeBatch([{ path: 'x/y', content: '' }], { fsync: true, atomic: false })).toEqual([{ path: 'x/y' }]);
  });

  test('tells a monitor how many files it has read and written', async () => {
    const monitor = new PerformanceMonitor();
    const files = new BatchFileProcessor({ root: folder, monitor });
    await files.writeBatch([{ path: 'a', content: '' }, { path: 'b', content: '' }]);
    await files.readBatch(['a', 'b', 'c']);
    expect(monitor.getStats('files.write')).toMatchObject({ count: 1, items: 2 });
    expect(monitor.getStats('files.read')).toMatchObject({ count: 1, items: 2 });
  });

  test.each<[string, () => unknown]>([
    ['INVALID_CONFIG', () => new BatchFileProcessor({ concurrency: 0 })],
    ['INVALID_CONFIG', () => new BatchFileProcessor({ maxFileMB: NaN })],
    ['INVALID_CONFIG', () => new BatchFileProcessor({ root: '' })],
    ['INVALID_CONFIG', () => new BatchFileProcessor().readBatch([], { encoding: 'ucs2' as never })],
    ['INVALID_ARGUMENT', () => new BatchFileProcessor().readBatch('path' as never)],
    ['INVALID_ARGUMENT', () => new BatchFileProcessor().readBatch([7 as never])],
    ['INVALID_ARGUMENT', () => new BatchFileProcessor().readBatch(['a\0b'])],
    ['INVALID_ARGUMENT', () => new BatchFileProcessor().writeBatch([{ path: 'a', content: 1 as never }])],
    ['ABORTED', () => new BatchFileProcessor().readBatch(['a'], { signal: AbortSignal.abort() })],
  ])('refuses with %s what it cannot use (%#)', async (code, work) => {
    expect(await failure(work)).toMatchObject({ code });
  });
});

describe('RealtimeEvaluator', () => {
  test('gives a result for each sample in order; one that fails has its error', async () => {
    const monitor = new PerformanceMonitor();
    const evaluator = new RealtimeEvaluator({ evaluate: (n: number) => { if (n === 2) throw new TypeError('two'); return { n }; }, concurrency: 3, monitor });
    const results = await evaluator.evaluateBatch([1, 2, 3], { sampleId: (n) => `../${n}/\n` });
    expect(results).toMatchObject([{ id: '../1/\n', index: 0, scores: { n: 1 } }, { index: 1, error: { message: 'two' } }, { index: 2, scores: { n: 3 } }]);
    expect(evaluator.getAggregateStats()).toMatchObject({ totalSamples: 3, failedSamples: 1, scores: { n: { count: 2, mean: 2, min: 1, max: 3 } } });
    expect(evaluator.getAggregateStats().throughput).toBeGreaterThan(0);
    expect(evaluator.getMetricsHistory('n').map(({ value }) => value)).toEqual([1, 3]);
    expect(monitor.getStats('evaluate')).toMatchObject({ count: 3, errors: 1 });
    evaluator.reset();
    expect(evaluator.getAggregateStats()).toEqual({ scores: {}, totalSamples: 0, failedSamples: 0, totalTimeMs: 0, throughput: 0 });
  });

  test('mean and deviation are exact to 1e-9, percentiles to 1 %, whatever the values', async () => {
    const values = fc.array(fc.double({ min: -1e6, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 200 });
    await fc.assert(fc.asyncProperty(values, async (all) => {
      const evaluator = new RealtimeEvaluator({ evaluate: (x: number) => ({ x }), monitor: false });
      await evaluator.evaluateBatch(all);
      const { mean, std, min, max, p50, p95, count } = evaluator.getAggregateStats().scores.x!;
      const exact = all.reduce((sum, x) => sum + x, 0) / all.length;
      const deviation = Math.sqrt(all.reduce((sum, x) => sum + (x - exact) ** 2, 0) / all.length);
      const scale = Math.max(1, ...all.map(Math.abs));
      expect(Math.abs(mean - exact)).toBeLessThanOrEqual(1e-9 * scale);
      expect(Math.abs(std - deviation)).toBeLessThanOrEqual(1e-6 * scale);
      expect([count, min, max]).toEqual([all.length, Math.min(...all), Math.max(...all)]);
      const sorted = all.toSorted((a, b) => a - b);
      for (const [share, estimate] of [[0.5, p50], [0.95, p95]] as const) {
        const nearest = sorted[Math.max(1, Math.ceil(share * all.length)) - 1]!;
        expect(Math.abs(estimate - nearest)).toBeLessThanOrEqual(0.0101 * Math.abs(nearest) + 1e-12);
      }
    }), { numRuns: 80 });
  });

  test('appends whole lines as they come, and resumes where it was interrupted, even in the middle of a line', async () => {
    const outputDirectory = join(folder, 'deep', 'out');
    const seen: number[] = [];
    const make = () => new RealtimeEvaluator({ evaluate: (n: number) => { seen.push(n); return { n }; }, outputDirectory });
    const first = make();
    for await (const { index } of first.evaluateStream([0, 1, 2, 3])) if (index === 1) break;
    await first.close();
    const path = join(outputDirectory, 'results.jsonl');
    const before = readFileSync(path, 'utf8').trim().split('\n').length;
    expect(before).toBeGreaterThanOrEqual(2);
    writeFileSync(path, `${readFileSync(path, 'utf8')}{"id":"3","sco`);
    seen.length = 0;
    const second = make();
    await second.evaluateBatch([0, 1, 2, 3, 4], { resume: true });
    expect(seen).toEqual([0, 1, 2, 3, 4].slice(before));
    const { totalSamples, scores } = second.getAggregateStats();
    expect([totalSamples, scores.n!.mean]).toEqual([5, 2]);
    const lines = readFileSync(path, 'utf8').trim().split('\n');
    const ids = lines.flatMap((line) => { try { return [(JSON.parse(line) as { id: string }).id]; } catch { return []; } });
    expect(ids).toEqual(['0', '1', '2', '3', '4']);
    expect(JSON.parse(readFileSync(join(outputDirectory, 'summary.json'), 'utf8'))).toMatchObject({ totalSamples: 5 });
  });

  test('two evaluators that write to one directory leave whole lines', async () => {
    const make = () => new RealtimeEvaluator({ evaluate: (n: number) => ({ n }), outputDirectory: folder, concurrency: 4 });
    const samples = Array.from({ length: 500 }, (_, i) => i);
    await Promise.all([make().evaluateBatch(samples), make().evaluateBatch(samples)]);
    const lines = readFileSync(join(folder, 'results.jsonl'), 'utf8').trim().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as { scores: object }).scores)).toHaveLength(1000);
  });

  test('keeps the latest results only', async () => {
    const evaluator = new RealtimeEvaluator({ evaluate: (n: number) => ({ n }), keepResults: 3 });
    await evaluator.evaluateBatch([1, 2, 3, 4, 5]);
    expect(evaluator.getMetricsHistory('n').map(({ value }) => value)).toEqual([3, 4, 5]);
    expect(evaluator.getMetricsHistory().map(({ id }) => id)).toEqual(['2', '3', '4']);
    expect(evaluator.getAggregateStats().totalSamples).toBe(5);
  });

  test.each<[string, unknown]>([['NaN', { a: NaN }], ['text', { a: 'x' }], ['nothing', undefined], ['an array', [1]]])('scores that are %s are an error of the sample', async (_, scores) => {
    const evaluator = new RealtimeEvaluator({ evaluate: () => scores as never });
    expect(await evaluator.evaluateBatch([1])).toMatchObject([{ error: { code: 'INVALID_ARGUMENT' } }]);
    expect(evaluator.getAggregateStats()).toMatchObject({ totalSamples: 1, failedSamples: 1, scores: {} });
  });

  test('a sample that hangs has its time, an abort ends the call, and what a source gave before it failed is answered', async () => {
    const hangs = new RealtimeEvaluator({ evaluate: (n: number) => (n === 1 ? new Promise<never>(() => {}) : { n }), timeoutMs: 30 });
    expect(await hangs.evaluateBatch([0, 1, 2])).toMatchObject([{ scores: {} }, { error: { code: 'TIMED_OUT' } }, { scores: {} }]);
    const waits = new RealtimeEvaluator({ evaluate: () => new Promise<never>(() => {}) });
    expect(await failure(() => waits.evaluateBatch([1], { signal: AbortSignal.timeout(20) }))).toMatchObject({ code: 'ABORTED' });
    const got: number[] = [];
    const broken = (function* () { yield 1; throw new Error('broken'); })();
    await expect(async () => { for await (const { index } of new RealtimeEvaluator({ evaluate: () => ({}) }).evaluateStream(broken)) got.push(index); }).rejects.toThrow('broken');
    expect(got).toEqual([0]);
  });

  test('a directory that cannot be written is an error', async () => {
    writeFileSync(join(folder, 'file'), '');
    const evaluator = new RealtimeEvaluator({ evaluate: () => ({}), outputDirectory: join(folder, 'file') });
    expect(await failure(() => evaluator.evaluateBatch([1]))).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
  });

  test('options that cannot be used are refused', async () => {
    expect(await failure(() => new RealtimeEvaluator({} as never))).toMatchObject({ code: 'INVALID_CONFIG' });
    const evaluator = new RealtimeEvaluator({ evaluate: () => ({}) });
    expect(await failure(() => evaluator.evaluateBatch([], { resume: true }))).toMatchObject({ code: 'INVALID_CONFIG' });
    expect(await failure(() => evaluator.saveSummary())).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});
