// Many machines on one server: what one changes, the others see, and of all one computes.
import { spawn } from 'node:child_process';
import { join } from 'node:path';

import { IntelligentEmbeddingCache, OptimizedEmbeddingGenerator } from 'embedcore';
import { expect, onTestFinished, test, type TestContext } from 'vitest';

import { directory, elsewhere, timed, until } from './files';
import { cable, freePort, machine, redis, results, type RedisServer } from './redis';
import { model } from './support';

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** By when others see a change. */
const SEEN = 250;

/** Looks entries up until memory has them: what is answered while its change is heard of is not kept. */
const kept = async (cache: IntelligentEmbeddingCache, keys: string[]) => until(async () => {
  for (const key of keys) await cache.get(key, 'c');
  return cache.getStats().currentEntries === keys.length;
});

test('what another machine sets, deletes and clears is seen a quarter of a second later', async (context) => {
  const server = await redis(context);
  const one = machine(server);
  const others = [machine(server), machine(server, {}, { persistPath: join(directory(), 'cache.db') }), machine({ url: `${server.url}?protocol=resp3` })];
  const all = async (key: string) => Promise.all(others.map(async (cache) => (await cache.get(key, 'c'))?.embedding ?? null));
  const entries = ['k', 'l', 'm'].map((key) => ({ key, content: 'c', embedding: [1] }));
  await one.setMany(entries);
  await one.flush();
  expect(await all('k')).toEqual([[1], [1], [1]]);
  expect(await all('l')).toEqual([[1], [1], [1]]);
  await one.set('k', 'c', [2]);
  await one.flush();
  await pause(SEEN);
  expect([await all('k'), await all('l')]).toEqual([[[2], [2], [2]], [[1], [1], [1]]]);
  expect(await one.delete('l')).toBe(true);
  await pause(SEEN);
  expect([await all('l'), await all('k')]).toEqual([[null, null, null], [[2], [2], [2]]]);
  await one.clear();
  await pause(SEEN);
  expect(await all('k')).toEqual([null, null, null]);
  expect(await others[0]!.has('m', 'c')).toBe(false);
});

test('what the server answers is kept while other entries change', async (context) => {
  const server = await redis(context);
  const [one, other] = [machine(server), machine(server)];
  const entries = Array.from({ length: 900 }, (_, n) => ({ key: `k${n}`, content: 'c', embedding: [n] }));
  await one.setMany(entries);
  await one.flush();
  expect((await other.getMany(entries.slice(0, 1))).hits[0]).toBe(1);
  await pause(SEEN);
  for (let part = 0; part < 30; part++) {
    const asked = entries.slice(part * 30, part * 30 + 30);
    const changes = Promise.all(Array.from({ length: 5 }, async (_, n) => {
      await one.set(`other${part}${n}`, 'c', [1]);
      await one.flush();
    }));
    const answers = await Promise.all(asked.map(({ key }) => other.get(key, 'c')));
    expect(answers.every((answer, n) => answer?.embedding[0] === part * 30 + n)).toBe(true);
    await changes;
  }
  expect(other.getStats().currentEntries).toBe(900);
});

test('what another machine invalidates is seen a quarter of a second later', async (context) => {
  const server = await redis(context);
  const [one, other] = [results(server), results(server)];
  await one.set('a', 1, { type: 'api', tags: ['t'] });
  await one.set('b', 2, { type: 'api', tags: ['u'] });
  await one.flush();
  const values = async () => [(await other.get('a', { type: 'api' }))?.value ?? null, (await other.get('b', { type: 'api' }))?.value ?? null];
  expect(await values()).toEqual([1, 2]);
  await one.invalidate({ tag: 't' });
  await pause(SEEN);
  expect(await values()).toEqual([null, 2]);
});

test('a machine that was cut off compares what it has with the server', async (context) => {
  const server = await redis(context);
  const [one, other] = [machine(server), machine(server)];
  await one.setMany(['k', 'l'].map((key) => ({ key, content: 'c', embedding: [1] })));
  await one.flush();
  await kept(other, ['k', 'l']);
  expect((await other.get('k', 'c'))!.embedding).toEqual([1]);
  expect((await other.get('l', 'c'))!.embedding).toEqual([1]);
  await server.kill();
  await until(() => one.getStats().shared!.state === 'open' || one.get('x', 'c'));
  await one.set('k', 'c', [2]);
  // What only memory has stays an answer.
  expect((await other.get('l', 'c'))!.embedding).toEqual([1]);
  await server.start();
  await until(async () => (await server.keys('embedcore:{*')).length > 0);
  await until(async () => (await other.get('k', 'c'))!.embedding[0] === 2);
  expect((await other.get('l', 'c'))!.embedding).toEqual([1]);
});

test('a machine that was cut off answers nothing that was deleted or set meanwhile', async (context) => {
  const server = await redis(context);
  const wire = await cable(server.port);
  const [one, other] = [machine(server), machine(wire)];
  await one.setMany(['k', 'l', 'm'].map((key) => ({ key, content: 'c', embedding: [1] })));
  await one.flush();
  const all = async () => Promise.all(['k', 'l', 'm'].map(async (key) => (await other.get(key, 'c'))?.embedding[0] ?? null));
  await kept(other, ['k', 'l', 'm']);
  expect(await all()).toEqual([1, 1, 1]);
  wire.cut();
  await until(async () => (await other.get('x', 'c')) ?? other.getStats().shared!.state === 'open');
  expect(await one.delete('k')).toBe(true);
  await one.set('l', 'c', [2]);
  await one.flush();
  // Nobody can know.
  expect(await all()).toEqual([1, 1, 1]);
  wire.mend();
  await until(() => other.getStats().shared!.state === 'ready');
  await pause(SEEN);
  expect(await all()).toEqual([null, 2, 1]);
});

test('what a file has from before is compared with the server, once it is there', async (context) => {
  const server = await redis(context);
  const wire = await cable(server.port);
  const persistPath = join(directory(), 'cache.db');
  const keys = ['k', 'l', 'm'];
  const one = machine(server);
  const answers = async (cache: IntelligentEmbeddingCache) => Promise.all(keys.map(async (key) => (await cache.get(key, 'c'))?.embedding[0] ?? null));
  const other = machine(wire, {}, { persistPath });
  await other.setMany(keys.map((key) => ({ key, content: 'c', embedding: [1] })));
  await other.flush();
  // While it was cut off.
  wire.cut();
  await until(async () => (await other.get('x', 'c')) ?? other.getStats().shared!.state === 'open');
  expect(await one.delete('k')).toBe(true);
  await one.set('l', 'c', [2]);
  await one.flush();
  expect(await answers(other)).toEqual([1, 1, 1]);
  wire.mend();
  await until(() => other.getStats().shared!.state === 'ready');
  await pause(SEEN);
  expect([await other.has('k', 'c'), await other.has('l', 'c')]).toEqual([false, true]);
  expect(await answers(other)).toEqual([null, 2, 1]);
  await other.flush();
  await other.close();
  const alone = new IntelligentEmbeddingCache({ persistPath });
  expect(await answers(alone)).toEqual([null, 2, 1]);
  await alone.close();
  // While it did not run.
  await one.set('l', 'c', [3]);
  await one.flush();
  const again = machine(wire, {}, { persistPath });
  expect(await answers(again)).toEqual([null, 3, 1]);
  await again.close();
  // What the server has let go of stays an answer, and so does all where it is not there.
  await server.ask('FLUSHALL');
  const later = machine(wire, {}, { persistPath });
  expect(await answers(later)).toEqual([null, 3, 1]);
  expect(later.getStats().shared).toMatchObject({ state: 'ready' });
  await later.close();
  await server.kill();
  expect(await answers(machine(wire, {}, { persistPath }))).toEqual([null, 3, 1]);
});

test('what a server has evicted or never taken stays an answer of a file, and what was cleared meanwhile does not', async (context) => {
  const server = await redis(context);
  const wire = await cable(server.port);
  const persistPath = join(directory(), 'cache.db');
  const [one, other] = [machine(server), machine(wire, {}, { persistPath })];
  const entries = Array.from({ length: 30 }, (_, i) => ({ key: `k${i}`, content: 'c', embedding: [i, 1] }));
  const found = async (cache: IntelligentEmbeddingCache) => (await Promise.all(entries.map(({ key }) => cache.get(key, 'c')))).filter(Boolean).length;
  const reconnected = async (meanwhile: () => Promise<unknown>) => {
    wire.cut();
    await until(async () => (await other.get('x', 'c')) ?? other.getStats().shared!.state === 'open');
    await meanwhile();
    wire.mend();
    await until(() => other.getStats().shared!.state === 'ready');
    await pause(SEEN);
  };
  await other.setMany(entries);
  await other.flush();
  await reconnected(async () => server.ask('UNLINK', ...(await server.keys('embedcore:{*')).slice(0, 20)));
  expect(await Promise.all(entries.map(({ key }) => other.has(key, 'c')))).not.toContain(false);
  expect(await found(other)).toBe(30);
  // One that may not read says nothing.
  await server.ask('ACL', 'SETUSER', 'default', '-get');
  await reconnected(async () => {});
  expect(await found(other)).toBe(30);
  await server.ask('ACL', 'SETUSER', 'default', '+get');
  await other.flush();
  const alone = new IntelligentEmbeddingCache({ persistPath });
  expect(await found(alone)).toBe(30);
  await alone.close();
  await reconnected(async () => one.clear());
  expect(await found(other)).toBe(0);
});

test('vectors of a generator, which are always the same, are found in its file without the server', async (context) => {
  const server = await redis(context);
  const cache = { persistPath: join(directory(), 'cache.db'), shared: { url: server.url } };
  const embed = async () => {
    const generator = new OptimizedEmbeddingGenerator({ modelPath: model('bert-mean'), cache });
    await generator.initialize();
    await generator.generateEmbeddings(['one', 'two']);
    const { hits, sharedHits } = generator.getPerformanceMetrics().cache;
    await generator.cleanup();
    return { hits, sharedHits };
  };
  await embed();
  expect(await embed()).toEqual({ hits: 2, sharedHits: 0 });
});

/** Embeds texts in a process of its own, with the fixture's model made slow, and says how many it has computed. */
const WORKER = (server: { url: string }) => `
  const { OptimizedEmbeddingGenerator } = await import('embedcore');
  const generator = new OptimizedEmbeddingGenerator({ modelPath: ${JSON.stringify(model('bert-mean'))}, cache: { shared: { url: '${server.url}', commandTimeoutMs: 60_000 }, singleFlight: 'cluster' } });
  await generator.initialize();
  const texts = Array.from({ length: 2000 }, (_, n) => 'a text of some words, number ' + n + ' ' + 'and more of them '.repeat(8));
  const found = await generator.generateEmbeddings(texts);
  const { cache } = generator.getPerformanceMetrics();
  console.log(JSON.stringify({ vectors: found.length, computed: cache.sets }));
  await generator.cleanup();`;

test('of all machines one computes a text', async (context) => {
  const server = await redis(context);
  const outs = await Promise.all([1, 2, 3].map(() => elsewhere(WORKER(server))));
  const done = outs.map(({ out }) => JSON.parse(out.trim().split('\n').pop()!) as { vectors: number; computed: number });
  expect(done.map(({ vectors }) => vectors)).toEqual([2000, 2000, 2000]);
  // Texts that are computed at the very moment when a lease is given back may be computed twice.
  expect(done.reduce((sum, { computed }) => sum + computed, 0)).toBeLessThan(2400);
  await until(async () => (await server.keys('embedcore:lease:*')).length === 0);
});

test('of a file that several processes have, only what is older than a change goes', async (context) => {
  const server = await redis(context);
  const persistPath = join(directory(), 'cache.db');
  const [one, other] = [machine(server, {}, { persistPath }), machine(server, {}, { persistPath })];
  await one.set('k', 'c', [1]);
  await one.flush();
  expect((await other.get('k', 'c'))!.embedding).toEqual([1]);
  await pause(20);
  await one.set('k', 'c', [2]);
  await one.flush();
  await pause(SEEN);
  expect((await other.get('k', 'c'))!.embedding).toEqual([2]);
  await Promise.all([one.close(), other.close()]);
  await server.kill();
  const later = new IntelligentEmbeddingCache({ persistPath });
  onTestFinished(() => later.close());
  expect((await later.get('k', 'c'))!.embedding).toEqual([2]);
});

/** A process that computes a value until it is told to end, and says what it and the server have then. */
async function holder(server: { url: string }) {
  const child = spawn(process.execPath, ['--input-type=module', '-e', `
    const { IntelligentEmbeddingCache } = await import('embedcore');
    const cache = new IntelligentEmbeddingCache({ shared: { url: '${server.url}' }, singleFlight: 'cluster' });
    const told = new Promise((resolve) => process.stdin.once('data', resolve));
    await cache.getOrCompute('k', 'c', async () => { console.log('computing'); await told; return [1]; });
    await cache.flush();
    setTimeout(async () => { console.log(JSON.stringify((await cache.get('k', 'c'))?.embedding ?? null)); process.exit(); }, ${SEEN});`],
  { stdio: ['pipe', 'pipe', 'inherit'], cwd: join(import.meta.dirname, '..') });
  onTestFinished(() => void child.kill('SIGKILL'));
  const said = async () => String(await new Promise((resolve) => child.stdout.once('data', resolve))).trim();
  expect(await said()).toBe('computing');
  return { child, said };
}

test('a machine that stood still for longer than its lease overwrites nothing', async (context) => {
  const server = await redis(context);
  const { child, said } = await holder(server);
  child.kill('SIGSTOP');
  const other = machine(server, {}, { singleFlight: 'cluster' });
  // The lease ends by the server's clock.
  expect((await other.getOrCompute('k', 'c', () => [7])).embedding).toEqual([7]);
  await other.flush();
  child.stdin.write('end');
  const answered = said();
  child.kill('SIGCONT');
  expect(await answered).toBe('[7]');
  expect((await machine(server).get('k', 'c'))!.embedding).toEqual([7]);
});

test('what is set or deleted while another machine computes it is not overwritten', async (context) => {
  const server = await redis(context);
  const other = machine(server, {}, { singleFlight: 'cluster' });
  const first = await holder(server);
  await other.set('k', 'c', [7]);
  await other.flush();
  const answered = first.said();
  first.child.stdin.write('end');
  expect(await answered).toBe('[7]');
  expect((await machine(server).get('k', 'c'))!.embedding).toEqual([7]);
  await other.delete('k');
  const second = await holder(server);
  await other.delete('k');
  const nothing = second.said();
  second.child.stdin.write('end');
  expect(await nothing).toBe('null');
  expect(await machine(server).get('k', 'c')).toBeNull();
});

test('of all machines one computes a value, and a lease ends with its holder', async (context) => {
  const server = await redis(context);
  const caches = [1, 2, 3].map(() => machine(server, {}, { singleFlight: 'cluster' }));
  let computed = 0;
  const compute = async () => {
    computed++;
    await pause(300);
    return [computed];
  };
  const answers = await Promise.all(caches.map((cache) => cache.getOrCompute('k', 'c', compute)));
  expect([computed, answers.map(({ embedding }) => [...embedding])]).toEqual([1, [[1], [1], [1]]]);
  // A holder that is killed while it computes.
  const holder = spawn(process.execPath, ['--input-type=module', '-e', `
    const { IntelligentEmbeddingCache } = await import('embedcore');
    const cache = new IntelligentEmbeddingCache({ shared: { url: '${server.url}' }, singleFlight: 'cluster' });
    await cache.getOrCompute('dead', 'c', () => { console.log('computing'); return new Promise(() => setTimeout(() => {}, 60_000)); });`], { stdio: ['ignore', 'pipe', 'inherit'], cwd: join(import.meta.dirname, '..') });
  onTestFinished(() => void holder.kill('SIGKILL'));
  await new Promise((resolve) => holder.stdout.once('data', resolve));
  expect((await server.keys('embedcore:lease:*')).length).toBe(1);
  holder.kill('SIGKILL');
  expect(await timed(async () => expect((await caches[0]!.getOrCompute('dead', 'c', () => [7])).embedding).toEqual([7]))).toBeLessThan(45_000);
});

/** Three servers that are one cluster. */
async function cluster(context: TestContext): Promise<RedisServer[]> {
  const servers: RedisServer[] = [];
  for (let n = 0; n < 3; n++) servers.push(await redis(context, '--cluster-enabled', 'yes', '--cluster-node-timeout', '2000', '--cluster-port', `${await freePort()}`));
  const [first] = servers as [RedisServer];
  await Promise.all(servers.map((server, n) => server.ask('CLUSTER', 'ADDSLOTSRANGE', `${Math.floor((16384 * n) / 3)}`, `${Math.floor((16384 * (n + 1)) / 3) - 1}`)));
  const bus = async (server: RedisServer) => /@(\d+)/.exec(await server.ask('CLUSTER', 'NODES'))![1]!;
  for (const server of servers.slice(1)) await first.ask('CLUSTER', 'MEET', '127.0.0.1', `${server.port}`, await bus(server));
  await until(async () => (await Promise.all(servers.map((server) => server.ask('CLUSTER', 'INFO')))).every((info) => info.includes('cluster_state:ok') && info.includes('cluster_known_nodes:3')));
  return servers;
}

test('a cluster: keys are spread over its servers, and found when they were moved', async (context) => {
  const servers = await cluster(context);
  const [first, second] = servers as [RedisServer, RedisServer];
  const entries = Array.from({ length: 600 }, (_, n) => ({ key: `k${n}`, content: 'c', embedding: [n] }));
  const one = machine(first, { cluster: true });
  await one.setMany(entries);
  await one.flush();
  expect(one.getStats().shared).toMatchObject({ state: 'ready', writes: 600, errors: 0 });
  const sizes = await Promise.all(servers.map(async (server) => Number(await server.ask('DBSIZE'))));
  expect(Math.min(...sizes)).toBeGreaterThan(100);
  const other = machine(second, { cluster: true }, { singleFlight: 'cluster' });
  expect((await other.getMany(entries)).hits.reduce((sum, hit) => sum + hit, 0)).toBe(600);
  expect(await other.getOrCompute('new', 'c', () => [1])).toMatchObject({ embedding: [1] });
  await one.set('k1', 'c', [-1]);
  await one.flush();
  await pause(SEEN);
  expect((await other.get('k1', 'c'))!.embedding).toEqual([-1]);
  // A slot that is moved: whoever asks at the old place is told of the new one.
  const name = (await first.keys('embedcore:{*'))[0]!;
  const slot = await first.ask('CLUSTER', 'KEYSLOT', name);
  const [here, there] = await Promise.all([first.ask('CLUSTER', 'MYID'), second.ask('CLUSTER', 'MYID')]);
  await second.ask('CLUSTER', 'SETSLOT', slot, 'IMPORTING', here);
  await first.ask('CLUSTER', 'SETSLOT', slot, 'MIGRATING', there);
  const third = machine(first, { cluster: true });
  await until(() => third.getStats().shared!.state === 'ready');
  const names = (await first.ask('CLUSTER', 'GETKEYSINSLOT', slot, '100')).split('\n');
  await first.ask('MIGRATE', '127.0.0.1', `${second.port}`, '', '0', '5000', 'KEYS', ...names);
  expect((await third.getMany(entries)).hits.reduce((sum, hit) => sum + hit, 0)).toBe(600);
  await Promise.all(servers.map((server) => server.ask('CLUSTER', 'SETSLOT', slot, 'NODE', there)));
  const fourth = machine(first, { cluster: true });
  expect((await fourth.getMany(entries)).hits.reduce((sum, hit) => sum + hit, 0)).toBe(600);
  await fourth.clear();
  expect(await Promise.all(servers.map(async (server) => (await server.keys('embedcore:{*')).length))).toEqual([0, 0, 0]);
  // Without the option, it says what to set.
  const told: string[] = [];
  const wrong = machine(first, {}, { logger: { debug() {}, info() {}, error() {}, warn: (message: string) => told.push(message) } });
  expect(await wrong.get('k2', 'c')).toBeNull();
  await until(() => told.length > 0);
  expect(told[0]).toContain('set `cluster: true`');
});

test('a generator by another spelling', async (context) => {
  const server = await redis(context);
  const generator = new OptimizedEmbeddingGenerator({ modelPath: model('bert-mean'), cacheConfig: { shared: { url: new URL(server.url), keyPrefix: 'a{b}*:' } } });
  onTestFinished(() => generator.cleanup());
  await generator.initialize();
  await generator.generateEmbeddings(['one', 'two']);
  await until(async () => (await server.keys()).length === 2);
});
