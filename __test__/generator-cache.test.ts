import { fork } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { getEmbeddingCache, IntelligentEmbeddingCache, OptimizedEmbeddingGenerator, resetEmbeddingCache, type Annotation } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { distance, failure, model, ready, root, texts } from './support';

const demo = { modelPath: model('demo') };

function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const annotations: Annotation[] = Array.from({ length: 300 }, (_, i) => ({
  nodeId: `n${i}`,
  signature: `fn f${i}(x: i32) -> i32`,
  summary: 'Does something. '.repeat(i % 5),
  sourceSnippet: i % 7 === 0 ? 'long '.repeat(3000) : '{ x }',
}));

test('what was embedded before comes from the cache, the same in every respect', async () => {
  const generator = await ready(demo);
  const first = await generator.generateEmbeddings(annotations);
  const second = await generator.generateEmbeddings(annotations);
  expect(first.every(({ fromCache }) => fromCache === false)).toBe(true);
  expect(second.every(({ fromCache }) => fromCache === true)).toBe(true);
  const facts = (results: typeof first) => results.map(({ processingTime: _, fromCache: __, ...rest }) => rest);
  expect(facts(second)).toEqual(facts(first));
  expect(first.some(({ truncated }) => truncated)).toBe(true);
  expect(second.every(({ processingTime }) => processingTime >= 0 && processingTime < 50)).toBe(true);
  const matrix = await generator.embed(first.map(({ inputText }) => inputText));
  expect([...matrix.fromCache]).toEqual(first.map(() => 1));
  const mixed = await generator.embed(['new', first[0]!.inputText, 'newer', 'new']);
  expect([...mixed.fromCache]).toEqual([0, 1, 0, 0]);
  expect([...mixed.row(1)]).toEqual(first[0]!.embedding);
});

test('cached is computed, bit for bit', async () => {
  const cached = await ready(demo);
  const plain = await ready({ ...demo, cache: false });
  const all = texts(200);
  await cached.embed(all.slice(50, 150));
  const a = await cached.embed(all);
  const b = await plain.embed(all);
  expect(distance(a.data, b.data)).toBeLessThanOrEqual(1e-6);
  expect([...a.tokenCounts]).toEqual([...b.tokenCounts]);
  expect(a.fromCache.reduce((sum, hit) => sum + hit, 0)).toBe(100);
  expect(b.fromCache.includes(1)).toBe(false);
});

test('query and document, models, dimensions and lengths never meet', async () => {
  const cache = new IntelligentEmbeddingCache({ maxEntries: 1000 });
  onTestFinished(() => cache.close());
  const texts = ['one text for all'];
  const spaces = [demo, { ...demo, dimensions: 8 }, { ...demo, maxLength: 16 }, { ...demo, prompts: { document: 'p: ' } }, { modelPath: model('bert-mean') }];
  for (const space of spaces) {
    const generator = await ready({ ...space, cache });
    for (const inputType of ['document', 'query'] as const) {
      expect([...(await generator.embed(texts, { inputType })).fromCache], JSON.stringify(space)).toEqual([0]);
      expect([...(await generator.embed(texts, { inputType })).fromCache]).toEqual([1]);
    }
  }
  expect(cache.getStats().currentEntries).toBe(10);
  // A generator of the same space shares its entries.
  expect([...(await (await ready({ ...demo, cache })).embed(texts)).fromCache]).toEqual([1]);
});

test('embedQuery is remembered, too', async () => {
  const cache = new IntelligentEmbeddingCache();
  onTestFinished(() => cache.close());
  const generator = await ready({ ...demo, cache });
  const first = await generator.embedQuery('where is it?');
  expect(await generator.embedQuery('where is it?')).toEqual(first);
  expect(cache.getStats()).toMatchObject({ hits: 1, misses: 1, sets: 1 });
});

test('bypassCache neither asks nor tells', async () => {
  const cache = new IntelligentEmbeddingCache();
  onTestFinished(() => cache.close());
  const generator = await ready({ ...demo, cache });
  await generator.embed(['a'], { bypassCache: true });
  expect(cache.getStats()).toMatchObject({ totalRequests: 0, sets: 0 });
  await generator.embed(['a']);
  expect([...(await generator.embed(['a'], { bypassCache: true })).fromCache]).toEqual([0]);
  expect(await failure(() => generator.embed(['a'], { bypassCache: 1 as never }))).toMatchObject({ code: 'INVALID_CONFIG' });
});

test('texts that fail are not remembered', async () => {
  const generator = await ready(demo);
  for (let round = 0; round < 2; round++) {
    const matrix = await generator.embed(['fine', '', ' ', 'x'.repeat(2 ** 20 + 1)], { onError: 'skip' });
    expect([...matrix.errors.keys()]).toEqual([1, 2, 3]);
    expect([...matrix.fromCache]).toEqual([round, 0, 0, 0]);
    expect(matrix.errors.get(3)).toMatchObject({ code: 'INPUT_TOO_LONG', details: { index: 3 } });
  }
  expect(await failure(() => generator.embed(['fine', '']))).toMatchObject({ code: 'INVALID_ARGUMENT', details: { index: 1 } });
});

test('concurrent calls compute a text once', async () => {
  const cache = new IntelligentEmbeddingCache();
  onTestFinished(() => cache.close());
  const generator = await ready({ ...demo, cache });
  const all = texts(200);
  const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => generator.embed(i % 2 ? all : all.toReversed())));
  expect(cache.getStats().sets).toBe(200);
  for (const [i, { data, row }] of answers.entries()) {
    expect(data.length).toBe(answers[0]!.data.length);
    expect([...row(0)]).toEqual([...answers[0]!.row(i % 2 ? 199 : 0)]);
  }
  const computed = answers.reduce((sum, { fromCache }) => sum + fromCache.filter((hit) => !hit).length, 0);
  expect(computed).toBe(200);
});

test('who waits for a call that is aborted computes itself', async () => {
  const generator = await ready({ modelPath: model('bert-mean') });
  const all = texts(2000);
  const stop = new AbortController();
  const first = generator.embed(all, { signal: stop.signal, progressCallback: (done) => { if (done > 0) stop.abort(); } });
  const second = generator.embed(all);
  expect(await failure(() => first)).toMatchObject({ code: 'ABORTED' });
  const matrix = await second;
  expect(matrix.rows).toBe(2000);
  expect(matrix.errors.size).toBe(0);
  const alone = await ready({ modelPath: model('bert-mean'), cache: false });
  expect(distance(matrix.row(1234), (await alone.embed([all[1234]!])).row(0))).toBeLessThanOrEqual(1e-6);
});

test('an abort reaches a call that waits for another one', async () => {
  const generator = await ready({ modelPath: model('bert-mean') });
  const all = texts(3000);
  const first = generator.embed(all);
  const stop = new AbortController();
  const second = generator.embed(all, { signal: stop.signal });
  setTimeout(() => stop.abort(), 20);
  expect(await failure(() => second)).toMatchObject({ code: 'ABORTED' });
  expect((await first).rows).toBe(3000);
  expect(await failure(() => generator.embed(texts(3100), { timeoutMs: 1 }))).toMatchObject({ code: 'TIMED_OUT' });
});

test('progress counts what comes from the cache', async () => {
  const generator = await ready(demo);
  await generator.embed(texts(100));
  const reports: number[] = [];
  await generator.embed(texts(300), { progressCallback: (done) => reports.push(done) });
  expect(reports[0]).toBeGreaterThanOrEqual(100);
  expect(reports.at(-1)).toBe(300);
});

test('a file gives the vectors to the next generator, and to the next process', async () => {
  const persistPath = join(directory(), 'cache.sqlite');
  const all = texts(500);
  const first = await ready({ ...demo, cache: { persistPath } });
  const matrix = await first.embed(all);
  await first.cleanup();
  const second = await ready({ ...demo, cache: { persistPath } });
  const again = await second.embed(all);
  expect(again.fromCache.every(Boolean)).toBe(true);
  expect([...again.data]).toEqual([...matrix.data]);
  // The same generator, closed and opened again.
  await second.cleanup();
  await second.initialize();
  expect((await second.embed(all)).fromCache.every(Boolean)).toBe(true);
});

test('a killed run resumes where it was', async () => {
  const home = directory();
  const persistPath = join(home, 'cache.sqlite');
  const program = join(home, 'run.cjs');
  writeFileSync(program, `
    const { OptimizedEmbeddingGenerator } = require(${JSON.stringify(join(root, 'dist', 'index.js'))});
    const generator = new OptimizedEmbeddingGenerator({ modelPath: ${JSON.stringify(model('bert-mean'))}, cache: { persistPath: ${JSON.stringify(persistPath)} } });
    const texts = Array.from({ length: 3000 }, (_, i) => \`text \${i} \${'reads a file and parses it '.repeat(10)}\`);
    generator.initialize().then(() => generator.embed(texts, { progressCallback: (done) => process.send(done) })).then(() => process.exit());
  `);
  const child = fork(program);
  const done = await new Promise<number>((resolve) => {
    child.on('message', (done) => {
      if (Number(done) < 300) return;
      child.kill('SIGKILL');
      resolve(Number(done));
    });
  });
  await new Promise((resolve) => child.once('exit', resolve));
  const generator = await ready({ modelPath: model('bert-mean'), cache: { persistPath } });
  const all = Array.from({ length: 3000 }, (_, i) => `text ${i} ${'reads a file and parses it '.repeat(10)}`);
  const { fromCache } = await generator.embed(all);
  const kept = fromCache.reduce((sum, hit) => sum + hit, 0);
  expect(done).toBeGreaterThanOrEqual(300);
  // Only the last tens of milliseconds may be missing.
  expect(kept).toBeGreaterThan(0);
  expect(kept).toBeLessThan(3000);
});

test('trouble with the file never fails a call', async () => {
  const home = directory();
  writeFileSync(join(home, 'file'), '');
  // No directory can be made below a file.
  const generator = await ready({ ...demo, cache: { persistPath: join(home, 'file', 'cache.sqlite') } });
  expect((await generator.embed(texts(50))).rows).toBe(50);
  expect((await generator.embed(texts(50))).fromCache.every(Boolean)).toBe(true);
});

test('both spellings of the options, and not both at once', async () => {
  expect([...(await (await ready({ ...demo, enableCaching: false })).embed(['a', 'a'])).fromCache]).toEqual([0, 0]);
  const spelled = await ready({ ...demo, enableCaching: true, cacheConfig: { maxEntries: 1, ttlMs: 60_000 } });
  await spelled.embed(['a', 'b']);
  expect([...(await spelled.embed(['a', 'b'])).fromCache].reduce((sum, hit) => sum + hit, 0)).toBe(1);
  for (const options of [
    { cache: {}, enableCaching: true },
    { cache: false, cacheConfig: {} },
    { cache: 'yes' },
    { enableCaching: 'yes' },
    { cache: { maxEntries: 0 } },
    { cache: { maxEntrys: 5 } },
    { cache: { ttlMs: 5, ttlSeconds: 5 } },
  ]) {
    expect(await failure(() => new OptimizedEmbeddingGenerator({ ...demo, ...(options as object) })), JSON.stringify(options)).toMatchObject({ code: 'INVALID_CONFIG' });
  }
});

test('a cache that is shared outlives the generator', async () => {
  resetEmbeddingCache();
  const cache = getEmbeddingCache();
  onTestFinished(() => resetEmbeddingCache());
  const first = await ready({ ...demo, cache });
  await first.embed(['a']);
  await first.cleanup();
  expect([...(await (await ready({ ...demo, cache })).embed(['a'])).fromCache]).toEqual([1]);
  await cache.close();
  const after = await ready({ ...demo, cache });
  expect([...(await after.embed(['a'])).fromCache]).toEqual([0]);
});

describe('a cache that was given to a generator answers for what that has kept', () => {
  const files = () => ({ persistPath: join(directory(), 'cache.sqlite') });
  for (const [name, options] of [['in memory', () => ({})], ['with a file', files]] as const) {
    test(`${name}: annotations by themselves, and vectors by the ids of annotations`, async () => {
      const cache = new IntelligentEmbeddingCache(options());
      onTestFinished(() => cache.close());
      const generator = await ready({ ...demo, cache });
      const some = annotations.slice(1, 40);
      expect(await cache.get(some[3]!)).toBeNull();
      expect(await cache.has(some[3]!)).toBe(false);
      const results = await generator.generateEmbeddings(some);
      const { processingTime: _, ...expected } = { ...results[3]!, fromCache: true as const };
      expect(await cache.get(some[3]!)).toEqual({ ...expected, processingTime: 0 });
      expect(await cache.has(some[3]!)).toBe(true);
      expect(await cache.get({ ...some[3]!, summary: 'Something else.' })).toBeNull();
      const near = await cache.findSimilar(results[3]!.embedding, { limit: 3 });
      expect(near).toHaveLength(3);
      expect(near[0]).toMatchObject({ key: some[3]!.nodeId, modality: 'text', embedding: results[3]!.embedding });
      expect(near[0]!.similarity).toBeCloseTo(1, 6);
      await generator.cleanup();
      expect((await cache.get(some[5]!))?.embedding).toEqual(results[5]!.embedding);
    });
  }

  test('one that was set counts before it, and what is deleted or cleared is gone', async () => {
    const cache = new IntelligentEmbeddingCache();
    onTestFinished(() => cache.close());
    const generator = await ready({ ...demo, cache });
    const [first, second] = [annotations[0]!, annotations[1]!];
    const [result] = await generator.generateEmbeddings([first, second]);
    await cache.set(first, { ...result!, embedding: result!.embedding.map(() => 0.5) });
    expect((await cache.get(first))!.embedding[0]).toBe(0.5);
    expect(await cache.delete(first)).toBe(true);
    expect(await cache.get(first)).toBeNull();
    expect(await cache.delete(first)).toBe(false);
    expect((await generator.generateEmbeddings([first]))[0]!.fromCache).toBe(false);
    expect(await cache.has(second)).toBe(true);
    await cache.clear();
    expect([await cache.has(second), await cache.get(second)]).toEqual([false, null]);
    expect(await cache.findSimilar(result!.embedding)).toEqual([]);
  });

  test('each lookup is counted once', async () => {
    const cache = new IntelligentEmbeddingCache();
    onTestFinished(() => cache.close());
    const generator = await ready({ ...demo, cache });
    await generator.generateEmbeddings([annotations[0]!]);
    const before = cache.getStats();
    await cache.get(annotations[0]!);
    await cache.get(annotations[1]!);
    const after = cache.getStats();
    expect([after.totalRequests - before.totalRequests, after.hits - before.hits]).toEqual([2, 1]);
  });

  test('texts are found by their beginnings', async () => {
    const cache = new IntelligentEmbeddingCache();
    onTestFinished(() => cache.close());
    const generator = await ready({ ...demo, cache });
    const long = `é${'word '.repeat(200)}`;
    const matrix = await generator.embed(['short', long]);
    const [near] = await cache.findSimilar(matrix.row(1), { limit: 1 });
    expect(long.startsWith(near!.key)).toBe(true);
    expect(Buffer.byteLength(near!.key)).toBe(256);
    expect((await cache.findSimilar(matrix.row(0), { limit: 1 }))[0]!.key).toBe('short');
  });
});
