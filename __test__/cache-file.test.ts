// What the file of a cache holds, whoever uses it besides: after calls that nobody awaits, across processes and restarts.
import { channel } from 'node:diagnostics_channel';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { InferenceCache, IntelligentEmbeddingCache, type CacheEvent, type CacheOptions } from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { directory, elsewhere, python, until } from './files';
import { failure } from './support';

function open(options: CacheOptions): IntelligentEmbeddingCache {
  const cache = new IntelligentEmbeddingCache({ ttlSeconds: 0, ...options });
  onTestFinished(() => cache.close());
  return cache;
}

function openResults(persistPath: string, options: object = {}): InferenceCache {
  const cache = new InferenceCache({ persistPath, ...options });
  onTestFinished(() => cache.close());
  return cache;
}

function events(name: 'embedcore:cache' | 'embedcore:results' = 'embedcore:cache'): CacheEvent[] {
  const seen: CacheEvent[] = [];
  const see = (event: unknown) => void ((event as CacheEvent).type !== 'evicted' && seen.push(event as CacheEvent));
  channel(name).subscribe(see);
  onTestFinished(() => void channel(name).unsubscribe(see));
  return seen;
}

const rows = (prefix: string, count: number, dimensions = 2) =>
  Array.from({ length: count }, (_, i) => ({
    key: prefix + i,
    content: 'x',
    embedding: Array.from({ length: dimensions }, (__, at) => 1 + ((i + at) % 5)),
  }));

async function found(cache: IntelligentEmbeddingCache, prefix: string, count: number): Promise<number> {
  const { hits } = await cache.getMany(rows(prefix, count));
  return hits.reduce((sum, hit) => sum + hit, 0);
}

test('a relative path names what it named when the cache was made', async () => {
  const place = directory();
  mkdirSync(join(place, 'first'));
  mkdirSync(join(place, 'second'));
  const program = (make: string) => `
    process.chdir(argv[0] + '/first');
    ${make}
    process.chdir(argv[0] + '/second');
    await work();`;
  const cached = await elsewhere(
    program(`const cache = new embedcore.IntelligentEmbeddingCache({ persistPath: 'v.sqlite' });
      const work = async () => { await cache.set('k', 'x', [1]); await cache.close(); };`),
    place,
  );
  expect(cached).toMatchObject({ code: 0, out: '' });
  const results = await elsewhere(
    program(`const cache = new embedcore.InferenceCache({ persistPath: 'r.sqlite' });
      const work = async () => { await cache.set('k', 1); await cache.close(); };`),
    place,
  );
  expect(results).toMatchObject({ code: 0, out: '' });
  expect(readdirSync(join(place, 'second'))).toEqual([]);
  expect(readdirSync(join(place, 'first')).filter((name) => name.endsWith('.sqlite'))).toEqual(['r.sqlite', 'v.sqlite']);
});

test('what is no path of a file is refused, and leaves nothing behind', async () => {
  for (const persistPath of [':memory:', 'file:cache.db?mode=memory']) {
    for (const make of [() => new IntelligentEmbeddingCache({ persistPath }), () => new InferenceCache({ persistPath })]) {
      expect(await failure(make)).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining(persistPath) as string });
    }
  }
  expect(readdirSync('.').filter((name) => name.endsWith('-lock'))).toEqual([]);
});

test('flush and close cover calls that nobody has awaited', async () => {
  const place = directory();
  for (const [name, last, end] of [
    ['flushed', `await cache.flush(); process.kill(process.pid, 'SIGKILL');`, null],
    ['closed', `await cache.close(); process.exit();`, 0],
  ] as const) {
    const path = join(place, name);
    const set = `const cache = new embedcore.IntelligentEmbeddingCache({ persistPath: argv[0] });
      cache.set('k', 'x', [1]); cache.setMany([{ key: 'm', content: 'x', embedding: [2] }]); cache.delete('k');`;
    expect((await elsewhere(set + last, path)).code).toBe(end);
    const results = `const cache = new embedcore.InferenceCache({ persistPath: argv[0] });
      cache.set('a', 1); cache.set('b', 2); cache.delete('a');`;
    expect((await elsewhere(results + last, `${path}-results`)).code).toBe(end);
    const [cache, answers] = [open({ persistPath: path }), openResults(`${path}-results`)];
    expect([await cache.has('k', 'x'), await cache.has('m', 'x')], name).toEqual([false, true]);
    expect([await answers.has('a'), await answers.has('b')], name).toEqual([false, true]);
  }
});

test('calls that are not awaited take effect in their order, on disk too', async () => {
  const persistPath = join(directory(), 'cache.db');
  const cache = open({ persistPath });
  const calls = [cache.set('k', 'x', [1]), cache.set('k', 'x', [2]), cache.delete('k'), cache.set('k', 'x', [3]), cache.set('gone', 'x', [4])];
  calls.push(cache.clear(), cache.set('last', 'x', [5]));
  await Promise.all(calls);
  expect((await cache.get('last', 'x'))!.embedding).toEqual([5]);
  await cache.close();
  const again = open({ persistPath });
  expect([await again.has('k', 'x'), await again.has('gone', 'x'), await again.has('last', 'x')]).toEqual([false, false, true]);
});

test('what is computed of a new content right after the old one was set is what the file has', async () => {
  const persistPath = join(directory(), 'cache.db');
  const cache = open({ persistPath });
  const keys = Array.from({ length: 200 }, (_, i) => `key ${i}`);
  const computed = async (i: number) => (await sleep(5 + (i % 7)), [i, 2]);
  await Promise.all(keys.map(async (key, i) => {
    await sleep(i);
    await cache.set(key, 'old', [i, 1]);
    await cache.getOrCompute(key, 'new', () => computed(i));
  }));
  await cache.close();
  const { hits } = await open({ persistPath }).getMany(keys.map((key) => ({ key, content: 'new' })));
  expect(hits.reduce((sum, hit) => sum + hit, 0)).toBe(keys.length);
});

test('lookups change no entry of the file', async () => {
  const persistPath = join(directory(), 'cache.db');
  const cache = open({ persistPath });
  await cache.setMany(rows('k', 3));
  await cache.flush();
  const fresh = open({ persistPath });
  for (const asked of [cache, fresh]) {
    expect([await asked.has('k0', 'other'), await asked.has('k0', 'x')]).toEqual([false, true]);
    expect(await asked.get('k1', 'other')).toBeNull();
    expect([...(await asked.getMany([{ key: 'k2', content: 'other' }])).hits]).toEqual([0]);
    await asked.findSimilar([1, 2], { threshold: -1 });
    await asked.close();
  }
  expect(await found(open({ persistPath }), 'k', 3)).toBe(3);
});

test('a semantic lookup deletes no prompt, and models whose vectors differ in length keep theirs', async () => {
  const persistPath = join(directory(), 'results.db');
  const words = (dimensions: number) => (texts: string[]) =>
    texts.map((text) => {
      const vector = new Float32Array(dimensions).fill(0.01);
      for (const word of text.toLowerCase().match(/\w+/g)!) vector[[...word].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 7) % dimensions]! += 1;
      return vector;
    });
  const of = (model: string, dimensions: number) => openResults(persistPath, { semantic: { embed: words(dimensions), model } });
  const [a, b] = ['How do I reverse a string in Python?', 'In Python, how can I reverse a string?'];
  const [c, d] = ['How do I sort a list in Java?', 'In Java, how can I sort a list?'];
  const [one, two] = [of('one', 64), of('two', 128)];
  await one.set(a, 'reverse');
  await two.set(c, 'sort');
  expect((await one.get(b))?.value).toBe('reverse');
  expect((await two.get(d))?.value).toBe('sort');
  await Promise.all([one.close(), two.close()]);
  const [three, four] = [of('one', 64), of('two', 128)];
  expect((await three.get(b))?.value).toBe('reverse');
  expect((await four.get(d))?.value).toBe('sort');
  // All prompts go with their results, whichever model they are of.
  expect(await three.clear()).toBe(2);
  expect(await four.get(d)).toBeNull();
  await three.flush();
  expect(three.getStats().disk!.entries).toBe(0);
});

test('what other processes set, deleted, invalidated and cleared is seen a quarter of a second later', async () => {
  const place = directory();
  const persistPath = join(place, 'cache.db');
  const cache = open({ persistPath });
  const other = open({ persistPath, namespace: 'cleared' });
  for (const one of [cache, other]) await one.setMany(rows('k', 3));
  await other.flush();
  await cache.flush();
  await elsewhere(
    `const cache = new embedcore.IntelligentEmbeddingCache({ persistPath: argv[0], ttlSeconds: 0 });
     await cache.set('k0', 'x', [9, 9]); await cache.delete('k1'); await cache.close();
     const other = new embedcore.IntelligentEmbeddingCache({ persistPath: argv[0], namespace: 'cleared' });
     await other.clear(); await other.close();`,
    persistPath,
  );
  await sleep(250);
  expect((await cache.get('k0', 'x'))!.embedding).toEqual([9, 9]);
  const { hits, data } = await cache.getMany(rows('k', 3));
  expect([[...hits], [...data]]).toEqual([[1, 0, 1], [9, 9, 0, 0, 3, 4]]);
  expect(await cache.has('k1', 'x')).toBe(false);
  expect(await cache.delete('k1')).toBe(false);
  expect(await found(other, 'k', 3)).toBe(0);

  const path = join(place, 'results.db');
  const results = openResults(path);
  await results.set('invalidated', 'old', { tags: ['v1'] });
  await results.setMany(['deleted', 'replaced'].map((content) => ({ content, value: 'old' })));
  await results.flush();
  await elsewhere(
    `const cache = new embedcore.InferenceCache({ persistPath: argv[0] });
     await cache.invalidate({ tag: 'v1' }); await cache.delete('deleted'); await cache.set('replaced', 'new'); await cache.close();`,
    path,
  );
  await sleep(250);
  const answers = await results.getMany(['invalidated', 'deleted', 'replaced'].map((content) => ({ content })));
  expect(answers.map((answer) => answer?.value)).toEqual([undefined, undefined, 'new']);
});

test('memory answers what other processes leave alone', async () => {
  const persistPath = join(directory(), 'cache.db');
  const cache = open({ persistPath });
  await cache.setMany(rows('k', 10));
  await cache.flush();
  await elsewhere(`const cache = new embedcore.IntelligentEmbeddingCache({ persistPath: argv[0] }); await cache.set('other', 'x', [1, 1]); await cache.close();`, persistPath);
  await sleep(250);
  expect(await found(cache, 'k', 10)).toBe(10);
  const { diskHits } = cache.getStats();
  expect(diskHits).toBe(10);
  expect(await found(cache, 'k', 10)).toBe(10);
  expect(cache.getStats().diskHits).toBe(diskHits);
});

test('a deletion that has resolved survives the end of the process', async () => {
  const place = directory();
  const [persistPath, path] = [join(place, 'cache.db'), join(place, 'results.db')];
  const cache = open({ persistPath });
  await cache.setMany(rows('k', 3));
  await cache.close();
  const results = openResults(path);
  for (const content of ['a', 'b', 'c']) await results.set(content, 1, { type: content });
  await results.close();
  const said = await elsewhere(
    `const cache = new embedcore.IntelligentEmbeddingCache({ persistPath: argv[0] });
     const results = new embedcore.InferenceCache({ persistPath: argv[1] });
     console.log(await cache.delete('k0'), await results.delete('a', { type: 'a' }), await results.invalidate({ type: 'b' })); process.exit();`,
    persistPath,
    path,
  );
  expect(said.out).toBe('true true 1');
  const [again, answers] = [open({ persistPath }), openResults(path)];
  expect(await found(again, 'k', 3)).toBe(2);
  expect([await answers.has('a', { type: 'a' }), await answers.has('b', { type: 'b' }), await answers.has('c', { type: 'c' })]).toEqual([false, false, true]);
  await again.close();
  expect((await elsewhere(`const cache = new embedcore.IntelligentEmbeddingCache({ persistPath: argv[0] }); await cache.clear(); process.exit();`, persistPath)).code).toBe(0);
  expect(await found(open({ persistPath }), 'k', 3)).toBe(0);
});

test('while the file cannot be used, a deletion says so, and nothing else is deleted when it is back', async () => {
  const persistPath = join(directory(), 'cache.db');
  const first = open({ persistPath, namespace: 'first' });
  await first.setMany(rows('kept', 100));
  await first.close();
  const cache = open({ persistPath, maxEntries: 10 });
  await cache.setMany(rows('k', 20));
  await cache.flush();
  renameSync(persistPath, `${persistPath}.away`);
  mkdirSync(persistPath);
  await cache.set('new', 'x', [1, 1]);
  expect(await failure(() => cache.flush())).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
  expect(await failure(() => cache.delete('k0'))).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
  expect(await failure(() => cache.clear()).then(() => cache.set('k1', 'x', [5, 5]))).toBeUndefined();
  rmdirSync(persistPath);
  renameSync(`${persistPath}.away`, persistPath);
  // What was to be deleted is, before the cache is gone.
  await cache.close();
  expect(await found(open({ persistPath }), 'k', 20)).toBe(0);
  expect(await found(open({ persistPath, namespace: 'first' }), 'kept', 100)).toBe(100);
});

test('more changes than can be remembered while the file is away delete nothing, and bring nothing back', async () => {
  const persistPath = join(directory(), 'cache.db');
  const cache = open({ persistPath, maxEntries: 10 });
  await cache.setMany(rows('k', 20));
  await cache.flush();
  renameSync(persistPath, `${persistPath}.away`);
  mkdirSync(persistPath);
  await cache.set('k0', 'x', [9, 9]);
  await failure(() => cache.flush());
  for (let i = 0; i < 26; i++) await cache.setMany(rows(`new ${i} `, 10_000));
  rmdirSync(persistPath);
  renameSync(`${persistPath}.away`, persistPath);
  await until(async () => {
    await cache.set('poke', 'x', [1, 1]);
    await sleep(200);
    return cache.getStats().disk!.available;
  });
  expect(await cache.get('k0', 'x'), 'replaced meanwhile').toBeNull();
  await cache.close();
  expect(await found(open({ persistPath }), 'k', 20)).toBe(20);
});

test('what the file has no room for is told, and evicts nothing', async () => {
  const place = directory();
  const seen = events();
  const persistPath = join(place, 'cache.db');
  const cache = open({ persistPath, maxDiskMB: 1 });
  await cache.setMany(rows('k', 100));
  await cache.set('k0', 'x', [1, 2], { metadata: 'm'.repeat(3 << 20) });
  expect(await failure(() => cache.flush())).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
  await cache.close();
  expect(seen).toMatchObject([{ type: 'rejected', entries: 1, reason: expect.stringContaining('1048576 bytes') as string }]);
  expect(await found(open({ persistPath, maxDiskMB: 1 }), 'k', 100), 'what it replaced is no answer any more').toBe(99);

  const told = events('embedcore:results');
  const results = openResults(join(place, 'results.db'), { maxDiskMB: 1 });
  for (let i = 0; i < 50; i++) await results.set(`small ${i}`, i);
  await results.set('large', 'x'.repeat(3 << 20));
  await failure(() => results.flush());
  await results.close();
  expect(told.map(({ type }) => type)).toEqual(['rejected']);
  const again = openResults(join(place, 'results.db'));
  const left = await again.getMany(Array.from({ length: 50 }, (_, i) => ({ content: `small ${i}` })));
  expect(left.every((answer, i) => answer?.value === i)).toBe(true);
});

test('maxDiskMB holds while the file is written, its log included', async () => {
  const persistPath = join(directory(), 'cache.db');
  const cache = open({ persistPath, maxDiskMB: 2 });
  let most = 0;
  for (let i = 0; i < 10_000; i += 100) {
    await cache.setMany(rows(`${i} `, 100, 256));
    const sizes = ['', '-wal'].map((suffix) => (existsSync(persistPath + suffix) ? statSync(persistPath + suffix).size : 0));
    most = Math.max(most, sizes[0]! + sizes[1]!);
  }
  await cache.flush();
  expect(cache.getStats().disk!.evicted).toBeGreaterThan(0);
  expect(most).toBeLessThan(4 << 20);
});

test('the vectors of a namespace have one length in the file, whoever writes them', async () => {
  const persistPath = join(directory(), 'cache.db');
  const [cache, other] = [open({ persistPath }), open({ persistPath })];
  await cache.setMany(rows('old', 5, 4));
  await cache.flush();
  await other.clear();
  await other.setMany(rows('new', 5, 8));
  await other.flush();
  const seen = events();
  const refused = await cache.setMany(rows('late', 5, 4)).then(() => cache.flush()).then(() => undefined, (error: unknown) => error);
  expect(refused !== undefined || seen.length > 0).toBe(true);
  const matrix = await cache.getMany([...rows('old', 5), ...rows('late', 5), ...rows('new', 5)]);
  for (const [row, hit] of matrix.hits.entries()) expect(hit === 1).toBe(matrix.row(row).some((value) => value !== 0));
  await cache.close();
  const again = open({ persistPath });
  expect([await found(again, 'new', 5), await found(again, 'late', 5)]).toEqual([5, 0]);
});

test('reads that fail are told', async () => {
  const persistPath = join(directory(), 'cache.db');
  let cache = open({ persistPath });
  await cache.setMany(rows('k', 50));
  await cache.close();
  cache = open({ persistPath });
  await cache.get('k0', 'x');
  const seen = events();
  for (const suffix of ['', '-wal', '-shm']) rmSync(persistPath + suffix, { force: true });
  mkdirSync(persistPath);
  await until(async () => {
    for (let i = 1; i < 50; i++) await cache.get(`k${i}`, 'x');
    return seen.length > 0;
  });
  expect(seen[0]!.type).toBe('storage-failed');
  expect(cache.getStats().disk!.errors).toBeGreaterThan(0);
});

test("somebody else's file is refused and left as it is", async () => {
  const place = directory();
  const text = 'notes of somebody else, on more than one line\n'.repeat(30);
  for (const make of [(persistPath: string) => open({ persistPath }), (persistPath: string) => openResults(persistPath)]) {
    const path = join(place, 'notes.txt');
    writeFileSync(path, text);
    const cache = make(path);
    expect(await failure(() => cache.flush())).toMatchObject({ code: 'CACHE_STORAGE_FAILED', message: expect.stringContaining('another program') as string });
    await cache.close();
    expect(readFileSync(path, 'utf8')).toBe(text);
    expect(readdirSync(place).sort()).toEqual(['notes.txt', 'notes.txt-lock']);
  }
});

test('a process leaves the file alone that a later release has taken over', async (context) => {
  const place = directory();
  const persistPath = join(place, 'cache.db');
  const cache = open({ persistPath, maxEntries: 1 });
  await cache.setMany(rows('k', 20));
  await cache.flush();
  const seen = events();
  python(
    context,
    `import sqlite3, sys
c = sqlite3.connect(sys.argv[1])
c.executescript('alter table entries rename column note to renamed; pragma user_version = 99;')
c.commit()`,
    persistPath,
  );
  for (let i = 0; i < 3; i++) {
    await found(cache, 'k', 20);
    await cache.set(`new ${i}`, 'x', [1, 1]);
    await cache.flush().catch(() => {});
    await sleep(100);
  }
  await cache.close();
  expect(seen.map(({ type }) => type)).toEqual(['storage-refused']);
  expect(readdirSync(place).filter((name) => name.includes('broken'))).toEqual([]);
  expect(python(context, `import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('pragma user_version').fetchone()[0])`, persistPath)).toBe('99');
});
