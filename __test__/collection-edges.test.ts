// A collection that is given what nobody would write on purpose: filters that are classes, sources that change their objects, ids
// that meet, files that vanish. Nothing is deleted that nobody asked to delete, and nothing kept that is not what was given.
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { EmbeddingCollection, IntelligentEmbeddingCache, type CollectionOptions, type TextDocument } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { directory } from './files';
import { failure, model, ready } from './support';

const demo = { modelPath: model('demo') };
const INVALID = { code: 'INVALID_ARGUMENT' };
const STORAGE = { code: 'CACHE_STORAGE_FAILED' };

function open(options: CollectionOptions = {}): EmbeddingCollection {
  const collection = new EmbeddingCollection(options);
  onTestFinished(() => collection.close());
  return collection;
}

const nested = (depth: number): Record<string, unknown> => (depth === 1 ? { end: 1 } : { inside: nested(depth - 1) });
const vector = [1, 2];
const half = 'cut 😀'.slice(0, 5);

describe('metadata and filters', () => {
  test('that hold halves of characters, or are deep, mean what they say', async () => {
    const collection = open();
    await collection.upsert([
      { id: 'half', embedding: vector, metadata: { keep: true, note: half } },
      { id: 'name', embedding: vector, metadata: { keep: true, ['\ud800']: 1 } },
      { id: 'deep', embedding: vector, metadata: { keep: true, deep: nested(99) } },
      { id: 'other', embedding: vector, metadata: { keep: false, note: 'cut \ufffd' } },
    ]);
    const count = (filter: object) => collection.count(filter as never);
    expect(await count({ keep: true })).toBe(3);
    expect([await count({ note: half }), await count({ note: 'cut \ud83e' }), await count({ note: 'cut \ufffd' })]).toEqual([1, 0, 1]);
    expect([await count({ ['\ud800']: 1 }), await count({ ['\ud801']: 1 }), await count({ note: { gte: half } })]).toEqual([1, 0, 2]);
    expect(await count({ deep: nested(99) })).toBe(1);
    expect(await collection.delete({ keep: { ne: true } })).toBe(1);
    expect(await collection.get('half')).toMatchObject({ metadata: { keep: true, note: half } });
    expect(await failure(() => collection.upsert([{ id: 'x', embedding: vector }, { id: 'deeper', embedding: vector, metadata: { deep: nested(100) } }]))).toMatchObject({ ...INVALID, details: { index: 1 } });
    expect(await failure(() => count({ deep: nested(200) }))).toMatchObject(INVALID);
    const not = (depth: number): object => (depth === 0 ? { keep: true } : { and: [not(depth - 1)] });
    expect(await count(not(60))).toBe(3);
    expect(await failure(() => count(not(61)))).toMatchObject(INVALID);
    expect(await collection.count()).toBe(3);
  });

  test('count what is inherited or computed, and refuse what cannot be read', async () => {
    const collection = open();
    const all = [{ tenant: 'a', n: 1 }, { tenant: 'b', n: 2 }, { tenant: 'c', n: 3 }];
    await collection.upsert(all.map((metadata) => ({ id: metadata.tenant, embedding: vector, metadata })));
    const computed = new (class { get tenant() { return 'a'; } })();
    const range = new (class { get gte() { return 2; } })();
    const own = Object.assign(Object.create({ tenant: 'b' }) as object, { n: { lt: 3 } });
    expect(await collection.count(computed as never)).toBe(1);
    expect(await collection.count({ n: range } as never)).toBe(2);
    expect(await collection.count(own as never)).toBe(1);
    expect(await collection.count(new (class { _hidden = 1; tenant = 'a'; })() as never)).toBe(0);
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    const thrower = { get tenant(): string { throw new Error('mine'); } };
    const wrong = [
      new Map([['tenant', 'a']]), new Set(['a']), proxy, thrower, { tenant: proxy }, { tenant: new Map() }, { and: proxy }, { and: [proxy] }, { and: [, { n: 1 }] }, { tenant: thrower },
      { n: { in: [1, , 2] } }, { n: new Date(NaN) }, { n: [NaN] }, { n: { deep: new Set() } }, { not: new Map() }, collection, { n: { eq: undefined, gt: NaN } },
    ];
    for (const [at, filter] of wrong.entries()) {
      expect(await failure(() => collection.delete(filter as never)), `${at}`).toMatchObject(INVALID);
      expect(await failure(() => collection.count(filter as never)), `${at}`).toMatchObject(INVALID);
      expect(await failure(() => collection.query(vector, { filter: filter as never })), `${at}`).toMatchObject({ code: expect.stringMatching(/^INVALID_/) as string });
    }
    expect(await collection.count()).toBe(3);
    expect(await collection.delete(computed as never)).toBe(1);
    expect(await collection.count()).toBe(2);
  });

  test('what JSON would lose is refused, and what a class computes is kept', async () => {
    const collection = open();
    const bad = [new Map([['a', 1]]), { deep: new Map() }, { deep: [new Set([1])] }, { toJSON: () => 'text' }, new Date(), { deep: /x/ }, { get a(): string { throw new Error('mine'); } }];
    for (const [at, metadata] of bad.entries()) {
      const wrong = [{ id: 'good', embedding: vector }, { id: 'x', embedding: vector, metadata: metadata as never }];
      expect(await failure(() => collection.upsert(wrong)), `${at}`).toMatchObject({ ...INVALID, details: { index: 1 } });
    }
    await collection.upsert([{ id: 'x', embedding: vector, metadata: new (class { n = 1; get tenant() { return 'a'; } label() { return ''; } })() as never }]);
    expect(await collection.get('x')).toMatchObject({ metadata: { n: 1, tenant: 'a' } });
    expect(await failure(() => collection.upsert([{ id: 'half', text: half, embedding: vector }]))).toMatchObject({ ...INVALID, details: { index: 0 } });
  });

  test('of the collection itself stays what it was, halves of characters included', async () => {
    const collection = open();
    await collection.setMetadata({ note: half, kept: 1 });
    expect(await collection.setMetadata({ more: [half] })).toEqual({ note: half, kept: 1, more: [half] });
    expect(await failure(() => collection.setMetadata(new Map() as never))).toMatchObject(INVALID);
    expect(await collection.metadata()).toEqual({ note: half, kept: 1, more: [half] });
  });

  test('holes and getters that throw are told by their index', async () => {
    const collection = open();
    const good = { id: 'a', embedding: vector };
    const throwing = (name: string) => Object.defineProperty({ ...good }, name, { get() { throw new Error('mine'); } });
    const values = Object.defineProperty([1, 2], 1, { get() { throw new Error('mine'); } });
    for (const wrong of [[good, , good], [good, throwing('id')], [good, throwing('embedding')], [good, { id: 'b', embedding: values }], [good, { id: 'b', embedding: [1, ,] }]]) {
      expect(await failure(() => collection.upsert(wrong as never))).toMatchObject({ ...INVALID, details: { index: 1 } });
    }
    expect(await failure(() => collection.delete([, 'x'] as never))).toMatchObject({ ...INVALID, details: { index: 0 } });
    expect(await failure(() => collection.get(['x', ,] as never))).toMatchObject({ ...INVALID, details: { index: 1 } });
    expect(await failure(() => collection.query(values))).toMatchObject(INVALID);
    expect(await collection.count()).toBe(0);
  });
});

describe('sync', () => {
  const long = (word: string) => `# ${word}\n\n${`Some words about ${word}. `.repeat(200)}`;
  const documents = (count: number): TextDocument[] => Array.from({ length: count }, (_, n) => ({ id: `d${n}`, text: `Text ${n}.`, metadata: { n } }));

  test('keeps each document as it was when it was given', async () => {
    const generator = await ready(demo);
    const collection = open({ generator });
    const reused = { id: '', text: '', metadata: { n: -1, deep: { n: -1 } } };
    const source = async function* () {
      for (let n = 0; n < 5; n++) {
        [reused.id, reused.text, reused.metadata.n, reused.metadata.deep.n] = [`d${n}`, `Text ${n}.`, n, n];
        yield reused;
      }
    };
    await collection.sync(source());
    for (let n = 0; n < 5; n++) expect(await collection.get(`d${n}`)).toMatchObject({ text: `Text ${n}.`, metadata: { n, deep: { n } } });
    const given: number[] = [];
    for await (const { metadata } of generator.streamDocuments(source())) given.push((metadata as typeof reused.metadata).deep.n);
    expect(given).toEqual([0, 1, 2, 3, 4]);
    const array = documents(3);
    const syncing = collection.sync(array);
    const streamed = generator.streamDocuments(array);
    array[0]!.text = 'Something else.';
    (array[1]!.metadata as { n: number }).n = 7;
    array.pop();
    await syncing;
    expect(await collection.get(['d0', 'd1', 'd2'])).toMatchObject([{ text: 'Text 0.' }, { metadata: { n: 1 } }, { text: 'Text 2.' }]);
    const chunks: unknown[] = [];
    for await (const { chunk, metadata } of streamed) chunks.push([chunk.text, metadata]);
    expect(chunks).toEqual([['Text 0.', { n: 0 }], ['Text 1.', { n: 1 }], ['Text 2.', { n: 2 }]]);
  });

  test('keeps again what was deleted meanwhile', async () => {
    const collection = open({ generator: await ready(demo) });
    const all = [...documents(3), { id: 'long', text: long('it') }];
    await collection.sync(all);
    const count = await collection.count();
    await collection.delete(['d0', 'long#1']);
    await collection.delete({ n: 1 });
    expect(await collection.sync(all)).toMatchObject({ unchanged: 1 });
    expect([await collection.count(), await collection.get('d0'), await collection.get('d1'), await collection.get('long#1')]).toEqual([count, expect.anything(), expect.anything(), expect.anything()]);
    // What is left of a document that does not come goes with it.
    await collection.delete('long#0');
    expect(await collection.sync(all.slice(0, 3))).toMatchObject({ unchanged: 3, removed: 1 });
    expect(await collection.count()).toBe(3);
  });

  test('leaves what was upserted, and other documents, as they are', async () => {
    const collection = open({ generator: await ready(demo) });
    await collection.upsert([{ id: 'd0', text: 'mine' }]);
    expect(await failure(() => collection.sync(documents(1)))).toMatchObject({ ...INVALID, message: expect.stringMatching(/"d0".*"d0".*upserted/) as string });
    expect(await failure(() => collection.sync([{ id: 'a', text: long('it') }, { id: 'a#0', text: 'short' }]))).toMatchObject({ ...INVALID, message: expect.stringMatching(/"a#0".*"a"/) as string });
    expect(await collection.sync([])).toMatchObject({ removed: 0 });
    expect(await collection.get('d0')).toMatchObject({ text: 'mine' });
    await collection.sync([{ id: 'b', text: 'Text.' }]);
    await collection.upsert([{ id: 'b', text: 'mine, too' }]);
    expect(await failure(() => collection.sync([{ id: 'b', text: 'Text.' }]))).toMatchObject(INVALID);
    expect(await collection.sync([])).toMatchObject({ added: 0, unchanged: 0 });
    expect(await collection.get('b')).toMatchObject({ text: 'mine, too' });
  });

  test('waits for a silent source alone: other calls go on, and its signal ends it', async () => {
    const collection = open({ generator: await ready(demo) });
    const aborting = new AbortController();
    const closed: string[] = [];
    let asked!: () => void;
    const silent = new Promise<void>((resolve) => (asked = resolve));
    const source = { n: 0, next(): Promise<IteratorResult<TextDocument>> {
      if (this.n++ < 1) return Promise.resolve({ done: false, value: documents(1)[0]! });
      asked();
      return new Promise(() => {});
    }, return: () => (closed.push('closed'), Promise.resolve({ done: true as const, value: undefined })), [Symbol.asyncIterator]() { return this; } };
    const syncing = collection.sync(source, { signal: aborting.signal });
    await silent;
    await collection.upsert([{ id: 'x', text: 'meanwhile' }]);
    expect(await collection.count()).toBe(1);
    aborting.abort(new Error('enough'));
    expect(await failure(() => syncing)).toMatchObject({ code: 'ABORTED', cause: { message: 'enough' } });
    expect(closed).toEqual(['closed']);
    const reading = async function* () {
      for (const document of documents(3)) {
        if (!(await collection.get(document.id))) yield document;
      }
    };
    expect(await collection.sync(reading())).toMatchObject({ added: 3 });
    // One that is under way when the collection is closed comes to its end.
    const last = collection.sync((async function* () { yield* documents(4); })());
    await collection.close();
    expect(await last).toMatchObject({ added: 1, unchanged: 3 });
  });

  test('closes its source, whatever ends it', async () => {
    const generator = await ready(demo);
    const collection = open({ generator });
    let [closed, opened] = [0, 0];
    const source = (all: unknown[]) => ({ [Symbol.asyncIterator]() {
      opened++;
      return { next: async () => ({ done: false, value: all.shift() ?? documents(1)[0]! }), return: async () => (closed++, { done: true, value: undefined }) };
    } }) as unknown as AsyncIterable<TextDocument>;
    const signal = AbortSignal.abort();
    expect(await failure(() => collection.sync(source([{ id: 'a', text: 'A' }, { id: 3 }])))).toMatchObject({ ...INVALID, details: { index: 1 } });
    expect(await failure(() => collection.sync(source([{ id: 'a', text: 'A' }, { id: 'a', text: 'A' }])))).toMatchObject(INVALID);
    expect(await failure(() => collection.sync(source([]), { signal }))).toMatchObject({ code: 'ABORTED' });
    const read = async (stream: AsyncIterable<unknown>) => { for await (const _ of stream); };
    expect(await failure(() => read(generator.streamDocuments(source([{ id: 3 }]))))).toMatchObject(INVALID);
    expect(await failure(() => read(generator.streamDocuments(source([]), { signal })))).toMatchObject({ code: 'ABORTED' });
    await collection.close();
    expect(await failure(() => collection.sync(source([])))).toMatchObject({ code: 'CLOSED' });
    expect(closed).toBe(opened);
    expect(opened).toBe(6);
  });

  test('ends with the error of its callbacks', async () => {
    const collection = open({ generator: await ready(demo) });
    const mine = new Error('mine');
    expect(await failure(() => collection.sync(documents(2), { progressCallback: () => { throw mine; } }))).toMatchObject({ code: 'ABORTED', cause: mine });
    expect(await failure(() => collection.sync(documents(1), { remove: () => { throw mine; } }))).toMatchObject({ code: 'ABORTED', cause: mine });
    expect(await collection.count()).toBe(2);
  });
});

test('vectors of a model that is loaded while it embeds are refused', async () => {
  const generator = await ready({ ...demo, cache: false });
  const collection = open({ generator });
  await collection.upsert([{ id: 'a', text: 'one text' }]);
  const late = [collection.upsert([{ id: 'b', text: 'another' }]), collection.query('one text')];
  const loading = generator.initialize(model('bert-mean'));
  for (const call of late) expect(await failure(() => call)).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'generator' } });
  await loading;
  await generator.initialize(demo.modelPath);
  expect(await collection.count()).toBe(1);
  expect(await collection.query('one text')).toMatchObject([{ id: 'a' }]);
});

describe('a file', () => {
  test('that is removed or replaced takes no write that would be gone', async () => {
    const path = join(directory(), 'notes.db');
    const collection = open({ path });
    await collection.upsert([{ id: 'a', embedding: vector }]);
    for (const each of [path, `${path}-wal`, `${path}-shm`]) rmSync(each, { force: true });
    expect(await failure(() => collection.upsert([{ id: 'b', embedding: vector }]))).toMatchObject({ ...STORAGE, message: expect.stringContaining('removed') as string });
    expect(await failure(() => collection.delete('a'))).toMatchObject(STORAGE);
    expect(await collection.get('a')).not.toBeNull();
    const other = join(directory(), 'other.db');
    const fresh = new EmbeddingCollection({ path: other });
    await fresh.upsert([{ id: 'c', embedding: vector }]);
    await fresh.close();
    renameSync(other, path);
    expect(await failure(() => collection.upsert([{ id: 'b', embedding: vector }]))).toMatchObject(STORAGE);
    await collection.close();
    const again = open({ path });
    await again.upsert([{ id: 'b', embedding: vector }]);
    expect(await again.count()).toBe(2);
  });

  test('whose index names another entry never answers that', async () => {
    const place = directory();
    const path = join(place, 'notes.db');
    const collection = new EmbeddingCollection({ path });
    await collection.upsert([{ id: 'entry-number-1', embedding: [1, 2] }, { id: 'entry-number-2', embedding: [3, 4] }]);
    await collection.close();
    const whole = readFileSync(path);
    let told = 0;
    for (let at = whole.indexOf('entry-number-1'); at >= 0; at = whole.indexOf('entry-number-1', at + 1)) {
      const damaged = join(place, `damaged-${at}.db`);
      const bytes = Buffer.from(whole);
      bytes[at + 13]! = '3'.charCodeAt(0);
      writeFileSync(damaged, bytes);
      const of = open({ path: damaged });
      const called = async (work: () => Promise<unknown>) => work().catch((error: unknown) => (expect(error).toMatchObject(STORAGE), told++, 'told'));
      const found = await called(() => of.get('entry-number-3'));
      if (found !== 'told') expect(found).toBeNull();
      expect(await called(() => of.delete('entry-number-3'))).toBeOneOf([0, 'told']);
      await called(() => of.upsert([{ id: 'entry-number-3', embedding: [5, 6] }]));
    }
    expect(told).toBeGreaterThan(2);
  });

  test('of a cache is no collection, and that of a collection no cache', async () => {
    const [cached, kept] = [join(directory(), 'cache.db'), join(directory(), 'notes.db')];
    const cache = new IntelligentEmbeddingCache({ persistPath: cached });
    await cache.set('k', 'content', [1, 2]);
    await cache.close();
    const before = readFileSync(cached);
    expect(await failure(() => open({ path: cached }).count())).toMatchObject({ ...STORAGE, message: expect.stringMatching(/it is a cache.*another path/) as string });
    expect(readFileSync(cached).equals(before)).toBe(true);
    const collection = open({ path: kept });
    await collection.upsert([{ id: 'a', embedding: vector }]);
    await collection.close();
    const other = new IntelligentEmbeddingCache({ persistPath: kept });
    await other.set('k', 'content', [1, 2]).then(() => other.flush?.()).catch(() => {});
    await other.close().catch(() => {});
    expect(await open({ path: kept }).count()).toBe(1);
  });

  test('has a path that can be one', () => {
    for (const path of ['a\0b', ':memory:']) expect(() => new EmbeddingCollection({ path })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG', details: { option: 'path' } }) as Error);
  });
});

test('the nearest is found among any number of others that are almost as near', async () => {
  const collection = open();
  let state = 7;
  const noise = () => ((state = (state * 1_103_515_245 + 12_345) % 2 ** 31) / 2 ** 30 - 1);
  const center = Array.from({ length: 64 }, noise);
  const near = Array.from({ length: 2000 }, (_, n) => ({ id: String(n).padStart(4, '0'), embedding: center.map((value) => value + 2e-3 * noise()), metadata: { n } }));
  await collection.upsert(near);
  for (let n = 0; n < 2000; n += 97) {
    expect((await collection.query(near[n]!.embedding, { limit: 1 })).map(({ id }) => id)).toEqual([near[n]!.id]);
    expect((await collection.query(near[n]!.embedding, { limit: 2, filter: { n: { gte: n } } }))[0]!.id).toBe(near[n]!.id);
  }
  // Of equal ones, the first by their ids, whenever they came.
  const alike = open();
  await alike.upsert(Array.from({ length: 1000 }, (_, n) => ({ id: String(999 - n).padStart(3, '0'), embedding: [1, 2, 3] })));
  expect((await alike.query([1, 2, 3], { limit: 3 })).map(({ id }) => id)).toEqual(['000', '001', '002']);
});

test('vectors without a direction are answered with 0', async () => {
  const collection = open();
  await collection.upsert([{ id: 'b', embedding: [0, 0], metadata: { n: 1 } }, { id: 'a', embedding: [0, 0], metadata: { n: 2 } }, { id: 'near', embedding: [1, 0] }, { id: 'far', embedding: [-1, 0] }]);
  const ask = async (query: number[], options = {}) => (await collection.query(query, options)).map(({ id, score }) => [id, score]);
  expect(await ask([2, 0])).toEqual([['near', 1], ['a', 0], ['b', 0], ['far', -1]]);
  expect(await ask([2, 0], { limit: 2 })).toEqual([['near', 1], ['a', 0]]);
  expect(await ask([2, 0], { minScore: 0.1 })).toEqual([['near', 1]]);
  expect(await ask([2, 0], { filter: { n: 1 } })).toEqual([['b', 0]]);
  expect(await ask([0, 0], { limit: 3 })).toEqual([['a', 0], ['b', 0], ['far', 0]]);
});
