import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { EmbeddingCollection, type CollectionOptions, type TextDocument } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { directory } from './files';
import { failure, model, ready, root } from './support';

const demo = { modelPath: model('demo') };
const file = () => join(directory(), 'deep', 'notes.db');

function open(options: CollectionOptions = {}): EmbeddingCollection {
  const collection = new EmbeddingCollection(options);
  onTestFinished(() => collection.close());
  return collection;
}

const points = Array.from({ length: 50 }, (_, n) => ({ id: `p${n}`, embedding: [Math.cos(n / 10), Math.sin(n / 10), 0.5], metadata: { n, tag: n % 2 ? 'odd' : 'even', at: new Date(2020, 0, n + 1), deep: { x: n } } }));
const ids = (found: readonly { id: string }[]) => found.map(({ id }) => id);

test('texts and vectors are kept, and found by what they mean', async () => {
  const generator = await ready(demo);
  const path = file();
  const collection = open({ path, generator });
  await collection.upsert([{ id: 'a', text: 'parses a json file', metadata: { lang: 'en' } }, { id: 'b', text: 'opens a socket' }, { id: 'a', text: 'parses a toml file' }]);
  expect(await collection.count()).toBe(2);
  const [best] = await collection.query('parses a toml file', { limit: 1 });
  expect(best).toMatchObject({ id: 'a', text: 'parses a toml file' });
  expect(best!.score).toBeGreaterThan(0.99);
  expect(best).not.toHaveProperty('embedding');
  expect(await collection.get('b')).toMatchObject({ id: 'b', text: 'opens a socket', embedding: (await generator.embed(['opens a socket'])).row(0) });
  expect(await collection.get(['nobody', 'b'])).toMatchObject([null, { id: 'b' }]);
  await collection.close();
  const again = open({ path, generator });
  expect(ids(await again.query((await generator.embed(['opens a socket'])).row(0), { limit: 1 }))).toEqual(['b']);
  expect(await again.delete(['b', 'nobody'])).toBe(1);
  expect([await again.count(), await again.get('b')]).toEqual([1, null]);
});

test('calls take effect in the order in which they are made', async () => {
  const collection = open();
  const done = [collection.upsert(points), collection.count(), collection.delete('p0'), collection.count(), collection.query([1, 0, 0.5], { limit: 2 }), collection.close()];
  points[1]!.embedding[0] = 9;
  const [, all, gone, left, found] = await Promise.all(done);
  points[1]!.embedding[0] = Math.cos(0.1);
  expect([all, gone, left, ids(found as { id: string }[])]).toEqual([50, 1, 49, ['p1', 'p2']]);
  expect(await failure(() => collection.count())).toMatchObject({ code: 'CLOSED' });
});

test('filters choose by equality, ranges, in, and, or, not', async () => {
  const collection = open();
  await collection.upsert(points);
  const count = (filter: object) => collection.count(filter as never);
  expect(await count({ tag: 'odd' })).toBe(25);
  expect(await count({ tag: 'odd', n: { gte: 10, lt: 20 } })).toBe(5);
  expect(await count({ n: { in: [1, 2, 99] } })).toBe(2);
  expect(await count({ or: [{ n: 1 }, { n: 2 }], not: { tag: 'odd' } })).toBe(1);
  expect(await count({ and: [{ 'deep.x': { gt: 40 } }, { n: { ne: 45 } }] })).toBe(8);
  expect(await count({ deep: { x: 3 } })).toBe(1);
  expect(await count({ at: { lte: new Date(2020, 0, 3) } })).toBe(3);
  expect([await count({ missing: 1 }), await count({ missing: null }), await count({ not: { missing: { gt: 1 } } }), await count({})]).toEqual([0, 50, 50, 50]);
  expect(ids(await collection.query([1, 0, 0.5], { limit: 2, filter: { n: { gte: 47 } } }))).toHaveLength(2);
  expect((await collection.query([1, 0, 0.5], { minScore: 0.99 })).every(({ score }) => score >= 0.99)).toBe(true);
  expect(await collection.delete({ tag: 'odd' })).toBe(25);
  expect(await collection.count()).toBe(25);
});

test('a filter that says nothing deletes nothing', async () => {
  const collection = open();
  await collection.upsert(points);
  for (const filter of [{}, { tag: undefined }, { n: { lt: undefined } }, { and: [{}] }, { or: [{ n: 1 }, {}] }, { and: [{ tag: undefined }] }, { not: { or: [] } }, { not: { n: { in: [] } } }]) {
    expect(await failure(() => collection.delete(filter as never)), JSON.stringify(filter)).toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  expect(await collection.count()).toBe(50);
});

test('the file of another program is left as it is, and another path advised', async () => {
  const path = join(directory(), 'notes.txt');
  writeFileSync(path, 'my notes '.repeat(500));
  const collection = new EmbeddingCollection({ path, dimensions: 2 });
  expect(await failure(() => collection.upsert([{ id: 'a', embedding: [1, 2] }]))).toMatchObject({ code: 'CACHE_STORAGE_FAILED', message: expect.stringContaining('another path') });
  await collection.close();
  expect(readFileSync(path, 'utf8')).toBe('my notes '.repeat(500));
});

test('what is wrong is refused, and leaves no trace', async () => {
  const collection = open();
  await collection.upsert(points);
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  const good = { id: 'new', embedding: [1, 2, 3] };
  for (const wrong of [
    { id: '', embedding: [1, 2, 3] }, { id: 'x'.repeat(2 ** 20), embedding: [1, 2, 3] }, { id: 'x', embedding: [1, 2] }, { id: 'x', embedding: [1, NaN, 2] }, { id: 'x' },
    { id: 'x', text: ' ' }, { id: 'x', text: 'no generator' }, { ...good, metadata: circular }, { ...good, metadata: [1] }, { ...good, metadata: { big: 1n } }, null, { id: 7, embedding: [1, 2, 3] },
  ]) expect(await failure(() => collection.upsert([good, wrong as never])), JSON.stringify(String(wrong && (wrong as { id: string }).id).slice(0, 9))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  for (const filter of [{ n: { above: 1, gt: 2 } }, { and: 3 }, { n: { in: 3 } }, { n: { gt: [] } }, 'x', { n: NaN }, { not: [] }]) {
    expect(await failure(() => collection.count(filter as never)), JSON.stringify(filter)).toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  expect(await failure(() => collection.query([1, 2]))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect(await failure(() => collection.query([1, 2, 3], { limit: 0 }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'limit' } });
  for (const options of [{ path: '' }, { metric: 'dot' }, { onModelChange: 'ask' }, { dimensions: 0 }, { generator: true }, { pat: 'x' }]) {
    expect(await failure(() => new EmbeddingCollection(options as never))).toMatchObject({ code: 'INVALID_CONFIG' });
  }
  expect(await collection.count()).toBe(50);
});

describe('sync', () => {
  const documents: TextDocument[] = Array.from({ length: 90 }, (_, n) => ({ id: `doc${n}.md`, text: `# Title ${n}\n\n${'Some words of it. '.repeat(n % 7 ? 3 : 200)}`, metadata: { n } }));

  test('embeds only what is new or has changed, and removes what is gone', async () => {
    const generator = await ready({ ...demo, cache: false });
    const collection = open({ path: file(), generator });
    await collection.upsert([{ id: 'mine', text: 'not a document' }]);
    const first = await collection.sync((async function* () { yield* documents; })());
    expect(first).toMatchObject({ added: 90, changed: 0, removed: 0, unchanged: 0 });
    expect(first.embedded).toBeGreaterThan(90);
    expect(await collection.sync(documents)).toEqual({ added: 0, changed: 0, removed: 0, unchanged: 90, embedded: 0 });
    const changed = [...documents.slice(2), { ...documents[0]!, text: `${documents[0]!.text}\n\n# Another\n\nAnd more.` }, { id: 'new.md', text: 'New.' }];
    const second = await collection.sync(changed);
    expect(second).toMatchObject({ added: 1, changed: 1, removed: 1, unchanged: 88 });
    expect(second.embedded).toBeLessThan(5);
    expect(await collection.get('doc1.md')).toBeNull();
    expect(await collection.get('doc2.md')).toMatchObject({ text: documents[2]!.text.trim(), metadata: { n: 2 }, source: { id: 'doc2.md', index: 0, count: 1, line: 1, headings: ['Title 2'] } });
    const chunk = (await collection.get('doc7.md#1'))!;
    expect(documents[7]!.text.slice(chunk.source!.start, chunk.source!.end)).toBe(chunk.text);
    expect(await collection.get('mine')).not.toBeNull();
    const exported: string[] = [];
    for await (const { id } of collection.export()) exported.push(id);
    expect([exported.length, new Set(exported).size]).toEqual([await collection.count(), await collection.count()]);
  });

  test('keeps what came before its source failed, and removes nothing then', async () => {
    const collection = open({ generator: await ready(demo) });
    await collection.sync(documents.slice(0, 3));
    const broken = async function* () {
      yield documents[5]!;
      throw new Error('mine');
    };
    expect(await failure(() => collection.sync(broken()))).toMatchObject({ code: 'ABORTED' });
    expect([await collection.get('doc5.md'), await collection.get('doc0.md#0')]).not.toContain(null);
    expect(await failure(() => collection.sync([documents[0]!, documents[0]!]))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await failure(() => collection.sync(documents, { signal: AbortSignal.abort() }))).toMatchObject({ code: 'ABORTED' });
    expect(await collection.sync(documents.slice(0, 1), { remove: false })).toMatchObject({ removed: 0, unchanged: 1 });
  });
});

test('another model is refused, or all is embedded anew', async () => {
  const path = file();
  const first = open({ path, generator: await ready(demo) });
  await first.upsert([{ id: 'a', text: 'one text' }, { id: 'b', text: 'another' }]);
  await first.close();
  const other = await ready({ modelPath: model('bert-mean') });
  const before = readFileSync(path);
  expect(await failure(() => open({ path, generator: other }).query('x'))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining('onModelChange') as string });
  expect(readFileSync(path).equals(before)).toBe(true);
  const rebuilt = open({ path, generator: other, onModelChange: 'rebuild' });
  expect((await rebuilt.query('another', { limit: 1 }))[0]).toMatchObject({ id: 'b' });
  expect((await rebuilt.get('a'))!.embedding).toEqual((await other.embed(['one text'])).row(0));
});

describe('a file', () => {
  test('that is something else, or damaged, is told and left alone', async () => {
    const path = join(directory(), 'text.db');
    writeFileSync(path, 'somebody else\'s text. '.repeat(400));
    expect(await failure(() => open({ path }).count())).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
    expect(readFileSync(path, 'utf8')).toContain('somebody else');
    const folder = join(directory(), 'folder.db');
    mkdirSync(folder);
    expect(await failure(() => open({ path: folder }).count())).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
  });

  const writer = (path: string, name: string, count: number) => fork(join(root, '__test__/programs/collection.cjs'), [path, name, `${count}`]);

  test('takes the writes of several processes, each in its turn, and readers see them', async () => {
    const path = file();
    const reader = open({ path });
    await reader.upsert([{ id: 'first', embedding: [0, 0, 0, 1] }]);
    const writers = ['x', 'y', 'z'].map((name) => writer(path, name, 15));
    const exits = writers.map((child) => once(child, 'exit'));
    await once(writers[0]!, 'message');
    expect(await reader.count({ name: 'x' })).toBeGreaterThanOrEqual(20);
    expect((await Promise.all(exits)).map(([code]) => code as number)).toEqual([0, 0, 0]);
    expect(await reader.count()).toBe(1 + 3 * 15 * 20);
    expect((await reader.query([15, 3, 1, 2], { limit: 3 })).map(({ id }) => id.slice(1)).sort()).toEqual(['-14-3', '-14-3', '-14-3']);
  });

  test('survives that its writer is killed: a call is in it whole or not at all', async () => {
    const path = file();
    const told: number[] = [];
    for (const name of ['a', 'b', 'c']) {
      const child = writer(path, name, 1000);
      await new Promise<void>((resolve) => child.on('message', (n: number) => {
        told.push(n);
        if (n >= 5) resolve();
      }));
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    const collection = open({ path });
    const all = await collection.count();
    expect(all % 20).toBe(0);
    expect(all).toBeGreaterThanOrEqual(told.length * 20 - 60);
    expect(await collection.query([1, 1, 1, 2], { limit: all })).toHaveLength(all);
    await collection.upsert([{ id: 'after', embedding: [1, 2, 3, 4] }]);
    expect(await collection.count()).toBe(all + 1);
  });
});
