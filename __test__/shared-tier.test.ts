// The shared tier: what one machine has computed, the others find on a server.
import { join } from 'node:path';

import { IntelligentEmbeddingCache, OptimizedEmbeddingGenerator, PerformanceDashboard, PerformanceMonitor } from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { directory } from './files';
import { machine, redis, results } from './redis';
import { failure, model, ready } from './support';

const TEXTS = ['read a file', 'write a file', 'open a socket'];

test('what one machine sets, another one finds, many keys in one round trip', async (context) => {
  const server = await redis(context);
  const one = machine(server);
  const entries = Array.from({ length: 1500 }, (_, n) => ({ key: `k${n}`, content: `c${n}`, embedding: [n, 1 / 3, -n] }));
  await one.setMany(entries);
  await one.set('with metadata', 'c', [1, 2, 3], { metadata: { from: 'one' } });
  await one.flush();
  expect(one.getStats().shared).toMatchObject({ state: 'ready', writes: 1501, queued: 0, dropped: 0, errors: 0 });
  const other = machine(server, {}, { maxEntries: 5000 });
  const found = await other.getMany(entries);
  expect(found.hits.every((hit) => hit === 1)).toBe(true);
  expect([...found.row(7)]).toEqual([7, Math.fround(1 / 3), -7]);
  const asked = async () => /cmdstat_get:calls=(\d+)/.exec(await server.ask('INFO', 'commandstats'))![1];
  const before = await asked();
  // The second time, memory has them.
  await other.getMany(entries);
  expect(await asked()).toBe(before);
  expect(await other.get('with metadata', 'c')).toMatchObject({ embedding: [1, 2, 3], metadata: { from: 'one' } });
  expect(await other.get('k1', 'another content')).toBeNull();
  expect(await other.has('k2', 'c2')).toBe(true);
  expect(other.getStats()).toMatchObject({ sharedHits: 1501, memoryHits: 1500 });
});

test('what is found on the server is kept on disk', async (context) => {
  const server = await redis(context);
  const one = machine(server);
  await one.set('k', 'c', [1, 2]);
  await one.flush();
  const persistPath = join(directory(), 'cache.db');
  const other = machine(server, {}, { persistPath });
  expect((await other.get('k', 'c'))!.embedding).toEqual([1, 2]);
  await other.close();
  await server.kill();
  const later = new IntelligentEmbeddingCache({ persistPath });
  onTestFinished(() => later.close());
  expect((await later.get('k', 'c'))!.embedding).toEqual([1, 2]);
});

test('what is deleted is deleted on the server, and clear deletes nothing of others', async (context) => {
  const server = await redis(context);
  const [one, two] = [machine(server, {}, { namespace: 'one' }), machine(server, {}, { namespace: 'two' })];
  const others = machine(server, { keyPrefix: 'others:' }, { namespace: 'one' });
  for (const cache of [one, two, others]) await cache.setMany([1, 2, 3].map((n) => ({ key: `k${n}`, content: 'c', embedding: [n] })));
  await Promise.all([one.flush(), two.flush(), others.flush()]);
  const values = async () => (await server.keys()).filter((name) => /^(embedcore|others):\{/.test(name));
  await server.ask('SET', 'embedcore:{of another program}', 'value');
  await server.ask('LPUSH', 'embedcore:{a list}', 'value');
  expect((await values()).length).toBe(11);
  expect([await one.delete('k1'), await one.delete('k1')]).toEqual([true, false]);
  expect((await values()).length).toBe(10);
  expect(await machine(server, {}, { namespace: 'one' }).get('k1', 'c')).toBeNull();
  await one.clear();
  expect((await values()).length).toBe(8);
  expect(await machine(server, {}, { namespace: 'one' }).get('k2', 'c')).toBeNull();
  expect(await machine(server, {}, { namespace: 'two' }).get('k2', 'c')).not.toBeNull();
  expect(await server.ask('GET', 'embedcore:{of another program}')).toBe('value');
});

test('results are shared, and invalidated by type and tag', async (context) => {
  const server = await redis(context);
  const one = results(server);
  const long = 'x'.repeat(600);
  await one.set('a', { answer: 1 }, { type: 'api', tags: ['t'] });
  await one.set('b', { answer: 2 }, { type: 'api', tags: ['u', long] });
  await one.set('c', { answer: 3 }, { type: 'text_inference' });
  await one.flush();
  const other = results(server);
  expect((await other.get('a', { type: 'api' }))?.value).toEqual({ answer: 1 });
  expect(other.getStats()).toMatchObject({ sharedHits: 1, shared: { state: 'ready', hits: 1 } });
  await one.invalidate({ tag: 't' });
  expect([await results(server).get('a', { type: 'api' }), (await results(server).get('b', { type: 'api' }))?.value]).toEqual([null, { answer: 2 }]);
  await one.invalidate({ tag: long });
  expect(await results(server).get('b', { type: 'api' })).toBeNull();
  expect((await results(server).get('c', { type: 'text_inference' }))?.value).toEqual({ answer: 3 });
});

test('a generator finds what another machine has embedded', async (context) => {
  const server = await redis(context);
  const cache = { shared: { url: server.url } };
  const one = await ready({ modelPath: model('bert-mean'), cache });
  const first = await one.generateEmbeddings(TEXTS);
  await one.cleanup();
  const other = await ready({ modelPath: model('bert-mean'), cache });
  const second = await other.generateEmbeddings(TEXTS);
  expect(second).toEqual(first);
  expect(other.getPerformanceMetrics().cache).toMatchObject({ sharedHits: 3, shared: { hits: 3 } });
  // Another model has keys of its own.
  const another = await ready({ modelPath: model('bert-cls'), cache });
  await another.generateEmbeddings(TEXTS);
  expect(another.getPerformanceMetrics().cache).toMatchObject({ sharedHits: 0 });
});

test('a dashboard shows the tier, and what was found in it', async (context) => {
  const server = await redis(context);
  const one = machine(server);
  await one.set('k', 'c', [1]);
  await one.flush();
  const other = machine(server);
  const dashboard = new PerformanceDashboard({ monitor: new PerformanceMonitor(), cache: other, interval: 100 });
  onTestFinished(() => dashboard.close());
  expect(await other.get('k', 'c')).not.toBeNull();
  await expect.poll(() => dashboard.snapshot().dashboard.timeline.reduce((sum, { tiers }) => sum + tiers!.shared, 0)).toBe(1);
  const { panels, timeline } = dashboard.snapshot().dashboard;
  expect(timeline.reduce((sum, { tiers }) => sum + tiers!.memory, 0)).toBe(0);
  expect(panels.find(({ title }) => title === 'Shared tier')!.tables[0]!.rows).toEqual(expect.arrayContaining([['state', 'ready'], ['hits', 1]]));
});

test('options that cannot work are refused by name, and no message shows a password', async () => {
  const refusals: [unknown, string][] = [
    [{}, 'shared.url'],
    [{ url: 5 }, 'shared.url'],
    [{ url: 'http://user:secret@localhost' }, 'shared.url'],
    [{ url: 'user:secret@localhost' }, 'shared.url'],
    [{ url: 'redis://user:secret@localhost/name' }, 'shared.url'],
    [{ url: 'redis://user:secret@localhost?protocol=resp4' }, 'shared.url'],
    [{ url: 'redis://user:secret@localhost?x=secret' }, 'shared.url'],
    [{ url: 'redis://secret@localhost' }, 'shared.url'],
    [{ url: 'redis://user:secret%ff@localhost' }, 'shared.url'],
    [{ url: 'redis://localhost/1', cluster: true }, 'shared.url'],
    [{ url: 'redis://localhost', keyPrefix: '{tag}', cluster: true }, 'shared.keyPrefix'],
    [{ url: 'redis://localhost', keyPrefix: '' }, 'shared.keyPrefix'],
    [{ url: 'redis://localhost', commandTimeoutMs: 0 }, 'shared.commandTimeoutMs'],
    [{ url: 'redis://localhost', connectTimeoutMs: '5' }, 'shared.connectTimeoutMs'],
    [{ url: 'redis://localhost', ttlSeconds: -1 }, 'shared.ttlSeconds'],
    [{ url: 'redis://localhost', cluster: 'yes' }, 'shared.cluster'],
    [{ url: 'redis://localhost', prefix: 'x' }, 'shared.prefix'],
    ['redis://user:secret@localhost', 'shared'],
  ];
  for (const [shared, option] of refusals) {
    const error = await failure(() => new IntelligentEmbeddingCache({ shared: shared as never }));
    expect({ code: error.code, option: error.details.option, shared }).toEqual({ code: 'INVALID_CONFIG', option, shared });
    expect(`${error.message} ${JSON.stringify(error.details)}`).not.toContain('secret');
  }
  const option = async (work: () => unknown) => (await failure(work)).details.option;
  expect(await option(() => new IntelligentEmbeddingCache({ singleFlight: 'cluster' }))).toBe('singleFlight');
  expect(await option(() => new OptimizedEmbeddingGenerator({ cache: { shared: { url: 'x' } } }))).toBe('cache.shared.url');
});
