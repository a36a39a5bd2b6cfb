// What a server of the shared tier may do: nothing of it fails a call, or has one wait for long.
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { promisify } from 'node:util';

import { IntelligentEmbeddingCache } from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { atAnotherTime, directory, elsewhere, timed, until } from './files';
import { freePort, machine, redis, results } from './redis';
import { root, thorough } from './support';

/** Where nothing waits longer than for one answer: for slow machines. */
const SOON = 4000;

const ENTRIES = Array.from({ length: 20 }, (_, n) => ({ key: `k${n}`, content: `c${n}`, embedding: [n, 1] }));

/** A server that is none: what it says to each connection. */
async function pretending(answer: (socket: Socket, data: string) => void): Promise<{ url: string; port: number }> {
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on('error', () => {});
    socket.on('data', (data) => answer(socket, data.toString('latin1')));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  const { port } = server.address() as { port: number };
  return { url: `redis://127.0.0.1:${port}`, port };
}

const HELLO = '*6\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n';

/** Answers what is asked of a server before it is used, as a real one does; whether that is what was asked. */
function greets(socket: Socket, data: string): boolean {
  if (data.includes('HELLO')) socket.write(HELLO);
  else if (data.includes('TIME')) socket.write(`*2\r\n$10\r\n${Math.floor(Date.now() / 1000)}\r\n$1\r\n0\r\n`);
  else if (data.includes('INFO')) socket.write('$-1\r\n');
  else if (data.includes('LRANGE')) socket.write('*0\r\n');
  else if (data.includes('SUBSCRIBE')) socket.write('*3\r\n$9\r\nsubscribe\r\n$17\r\nembedcore:changes\r\n:1\r\n');
  else return false;
  return true;
}

/** Does what every cache does, and expects that it is as if there were no server. */
async function worksAlone(cache: IntelligentEmbeddingCache): Promise<void> {
  expect(await timed(() => cache.setMany(ENTRIES))).toBeLessThan(SOON);
  expect(await timed(() => cache.get('unknown', 'c'))).toBeLessThan(SOON);
  expect((await cache.get('k3', 'c3'))!.embedding).toEqual([3, 1]);
  expect(await timed(async () => expect(await cache.getOrCompute('made', 'c', () => [9, 9])).toMatchObject({ embedding: [9, 9] }))).toBeLessThan(SOON);
  expect(await timed(() => cache.getMany([...ENTRIES, { key: 'unknown', content: 'c' }]))).toBeLessThan(SOON);
  expect(await timed(async () => expect(await cache.delete('k3')).toBe(true))).toBeLessThan(SOON);
  expect(await cache.get('k3', 'c3')).toBeNull();
  expect(await timed(() => cache.clear())).toBeLessThan(SOON);
  expect(await timed(() => cache.flush())).toBeLessThan(SOON);
}

/** Why the server is not used, as it is told. */
async function reasonOf(url: string, options = {}): Promise<string> {
  const told: string[] = [];
  const logger = { debug() {}, info() {}, error() {}, warn: (message: string) => told.push(message) };
  const cache = machine({ url }, options, { logger });
  expect(await cache.get('k', 'c')).toBeNull();
  await until(() => told.length > 0);
  expect(cache.getStats().shared).toMatchObject({ state: 'open', hits: 0 });
  expect(cache.getStats().shared!.misses).toBeGreaterThan(0);
  await worksAlone(cache);
  expect(told.join(' ')).not.toContain('secret');
  return told[0]!;
}

test('a server that is not there, has no such name, or never answers', async () => {
  expect(await reasonOf(`redis://127.0.0.1:${await freePort()}`)).toContain('refused');
  expect(await reasonOf('redis://no-such-host.invalid')).toContain('cannot be resolved');
  const silent = await pretending(() => {});
  expect(await reasonOf(silent.url, { connectTimeoutMs: 300, commandTimeoutMs: 200 })).toContain('in time');
});

test('one time-out, and then nobody waits', async () => {
  const silent = await pretending((socket, data) => void greets(socket, data));
  const cache = machine(silent, { commandTimeoutMs: 300 });
  await until(() => cache.getStats().shared!.state === 'ready');
  await Promise.all(ENTRIES.map(({ key, content }) => cache.get(key, content)));
  const { timeouts } = cache.getStats().shared!;
  expect(timeouts).toBeGreaterThan(0);
  const took = await timed(async () => {
    for (let n = 0; n < 200; n++) await cache.get(`other ${n}`, 'c');
  });
  expect(took).toBeLessThan(SOON);
  expect(cache.getStats().shared).toMatchObject({ timeouts, state: 'open' });
});

test('answers that come a byte at a time, that lie, or that are no protocol', async () => {
  const answers: Record<string, (socket: Socket) => void> = {
    'a byte now and then': (socket) => {
      socket.write('$100000\r\n');
      const timer = setInterval(() => socket.write('x'), 50);
      socket.on('close', () => clearInterval(timer));
    },
    'another length': (socket) => void socket.write('$5\r\nhello\r\n'.repeat(64)),
    'a list without end': (socket) => void socket.write('*2147483647\r\n:1\r\n'),
    'a size beyond all': (socket) => void socket.write('$9223372036854775807\r\nx'),
    'a negative size': (socket) => void socket.write('$-7\r\n'),
    'lists in lists': (socket) => void socket.write('*1\r\n'.repeat(5000)),
    'no protocol': (socket) => void socket.write('HTTP/1.1 200 OK\r\n\r\n'),
    'an error': (socket) => void socket.write('-ERR secret\r\n'.repeat(64)),
    nothing: (socket) => void socket.end(),
  };
  for (const [what, answer] of Object.entries(answers)) {
    const server = await pretending((socket, data) => {
      if (!greets(socket, data)) answer(socket);
    });
    const cache = machine(server, { commandTimeoutMs: 300 });
    await until(() => cache.getStats().shared!.state === 'ready');
    await expect(timed(() => cache.get('unknown', 'c')), what).resolves.toBeLessThan(SOON);
    expect(cache.getStats().shared, what).toMatchObject({ hits: 0, misses: 1 });
    await worksAlone(cache);
  }
});

test('a server that is too old, of a cluster, in none, or of another protocol', async (context) => {
  const old = await pretending((socket) => void socket.write("-ERR unknown command 'HELLO', with args beginning with: '2' 'AUTH' 'user' 'secret'\r\n"));
  expect(await reasonOf(`redis://user:secret@127.0.0.1:${old.port}`)).toContain('older than Redis 6');
  const server = await redis(context);
  expect(await reasonOf(server.url, { cluster: true })).toContain('leave `cluster` out');
  expect(await reasonOf(`rediss://127.0.0.1:${server.port}`, { connectTimeoutMs: 1000 })).toMatch(/TLS|in time|closed/);
});

test('a wrong password, and none', async (context) => {
  const server = await redis(context, '--requirepass', 'right');
  expect(await reasonOf(`redis://user:secret@127.0.0.1:${server.port}`)).toContain('the user or the password is wrong');
  expect(await reasonOf(server.url)).toContain('it wants a password');
  const cache = machine({ url: `redis://:right@127.0.0.1:${server.port}/3?protocol=resp3` });
  await cache.setMany(ENTRIES);
  await cache.flush();
  expect(cache.getStats().shared).toMatchObject({ state: 'ready', writes: 20 });
});

test('users, with no more than they need', async (context) => {
  const server = await redis(context);
  const may = ['+hello', '+time', '+get', '+set', '+unlink', '+getrange', '+scan'];
  await server.ask('ACL', 'SETUSER', 'app', 'on', '>secret', '~embedcore:*', '&embedcore:*', ...may, '+info', '+publish', '+subscribe');
  await server.ask('ACL', 'SETUSER', 'deaf', 'on', '>secret', '~embedcore:*', 'resetchannels', ...may);
  await server.ask('ACL', 'SETUSER', 'reader', 'on', '>secret', '~embedcore:*', '+hello', '+time', '+get');
  await server.ask('ACL', 'SETUSER', 'other', 'on', '>secret', '~other:*', '+@all');
  const as = (user: string) => machine({ url: `redis://${user}:secret@127.0.0.1:${server.port}` });
  for (const user of ['app', 'deaf']) {
    const cache = as(user);
    await cache.setMany(ENTRIES);
    await cache.flush();
    expect(cache.getStats().shared, user).toMatchObject({ state: 'ready', writes: 20, errors: 0 });
    expect(await cache.delete('k0'), user).toBe(true);
  }
  const reader = as('reader');
  expect((await reader.get('k1', 'c1'))!.embedding).toEqual([1, 1]);
  await reader.set('new', 'c', [1]);
  expect(await timed(() => reader.flush())).toBeLessThan(2 * SOON);
  expect((await reader.get('new', 'c'))!.embedding).toEqual([1]);
  expect(await as('other').get('k1', 'c1')).toBeNull();
});

test('TLS, with a certificate of an authority of our own, and with others', async (context) => {
  if (spawnSync('openssl', ['version']).status !== 0) context.skip('needs openssl');
  const at = directory();
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: at, stdio: 'ignore' });
  for (const name of ['ca', 'wrong']) openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', `${name}.key`, '-out', `${name}.pem`, '-days', '2', '-subj', `/CN=${name}`, '-addext', 'basicConstraints=critical,CA:TRUE');
  openssl('req', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'server.key', '-out', 'server.csr', '-subj', '/CN=localhost');
  writeFileSync(join(at, 'names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
  openssl('x509', '-req', '-in', 'server.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-out', 'server.pem', '-days', '2', '-extfile', 'names');
  const server = await redis(context);
  // A server that is built without TLS would do as well.
  const tls = createTlsServer({ key: readFileSync(join(at, 'server.key')), cert: readFileSync(join(at, 'server.pem')) }, (near) => {
    const far = connect(server.port, '127.0.0.1');
    for (const socket of [near, far]) socket.on('error', () => {});
    near.pipe(far).pipe(near);
  });
  tls.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => tls.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void tls.close());
  const { port } = tls.address() as { port: number };
  const asked = async (trusted: string, url: string) => {
    const { out } = await elsewhere(
      `process.env.SSL_CERT_FILE = argv[1];
       const told = [], logger = { debug() {}, info() {}, error() {}, warn: (message) => told.push(message) };
       const cache = new embedcore.IntelligentEmbeddingCache({ shared: { url: argv[0], connectTimeoutMs: 20_000, commandTimeoutMs: 20_000 }, logger });
       await cache.set('k', 'c', [1]);
       await cache.get('x', 'c');
       await cache.flush();
       const { state, writes } = cache.getStats().shared;
       while (state === 'open' && told.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
       console.log(JSON.stringify({ state, writes, told }));
       await cache.close();`,
      url,
      join(at, trusted),
    );
    return JSON.parse(out) as { state: string; writes: number; told: string[] };
  };
  for (const host of ['127.0.0.1', 'localhost']) {
    expect(await asked('ca.pem', `rediss://${host}:${port}`)).toEqual({ state: 'ready', writes: 1, told: [] });
  }
  const untrusted = await asked('wrong.pem', `rediss://127.0.0.1:${port}`);
  expect(untrusted).toMatchObject({ state: 'open', writes: 0 });
  expect(untrusted.told[0]).toContain('TLS failed');
});

test('values of other programs under our keys, and damaged ones, are counted misses', async (context) => {
  const server = await redis(context);
  const one = machine(server);
  await one.setMany(ENTRIES);
  await one.flush();
  const names = await server.keys('embedcore:{*');
  await server.ask('SET', names[0]!, "another program's");
  await server.ask('DEL', names[1]!);
  await server.ask('LPUSH', names[1]!, 'a list');
  await server.ask('APPEND', names[2]!, 'x');
  await server.ask('SETRANGE', names[3]!, '70', '\u0001');
  await server.ask('SET', names[4]!, '');
  await server.ask('COPY', names[6]!, names[5]!, 'REPLACE');
  const other = machine(server);
  const found = await other.getMany(ENTRIES);
  expect(found.hits.reduce((sum, hit) => sum + hit, 0)).toBe(14);
  expect(other.getStats()).toMatchObject({ sharedHits: 14, missCauses: { damaged: 6 }, shared: { damaged: 6, misses: 6, hits: 14 } });
});

test('a full server keeps what it has, and gives no answer that is older than the last write', async (context) => {
  const server = await redis(context, '--maxmemory-policy', 'noeviction');
  const one = machine(server, {}, { maxEntries: 1 });
  await one.set('k', 'c', [1]);
  await one.flush();
  await server.ask('CONFIG', 'SET', 'maxmemory', '1');
  await one.set('k', 'c', [2]);
  await one.set('another one', 'c', [3]);
  await until(() => one.getStats().shared!.dropped === 2);
  expect(one.getStats().shared).toMatchObject({ state: 'ready' });
  // Memory has let go of it.
  await until(async () => (await server.keys('embedcore:{*')).length === 0);
  expect(await one.get('k', 'c')).toBeNull();
  await server.ask('CONFIG', 'SET', 'maxmemory', '0');
  await until(async () => {
    await one.set('k', 'c', [4]);
    await one.flush();
    return (await server.keys('embedcore:{*')).length === 1;
  });
  expect((await machine(server).get('k', 'c'))!.embedding).toEqual([4]);
});

test('a server that is killed and comes back is used again, and lost nothing that was set meanwhile', async (context) => {
  const server = await redis(context);
  const cache = machine(server);
  await cache.setMany(ENTRIES);
  await cache.flush();
  await server.kill();
  await cache.setMany(ENTRIES.map((entry) => ({ ...entry, embedding: [7, 7] })));
  expect(await timed(() => cache.get('unknown', 'c'))).toBeLessThan(SOON);
  expect((await cache.get('k1', 'c1'))!.embedding).toEqual([7, 7]);
  await server.start();
  await until(() => cache.getStats().shared!.state === 'ready');
  await cache.flush();
  const other = machine(server);
  expect((await other.get('k1', 'c1'))!.embedding).toEqual([7, 7]);
  await cache.close();
});

test('a server that stands still costs one time-out, ends no process late, and is used again', async (context) => {
  const server = await redis(context);
  const cache = machine(server);
  await cache.setMany(ENTRIES);
  await cache.flush();
  server.signal('SIGSTOP');
  await worksAlone(machine(server));
  expect(await timed(() => cache.get('unknown', 'c'))).toBeLessThan(SOON);
  expect(await timed(() => cache.get('unknown', 'c'))).toBeLessThan(200);
  const ended = await elsewhere(
    `const { IntelligentEmbeddingCache } = await import('embedcore');
     const cache = new IntelligentEmbeddingCache({ shared: { url: process.argv[1] } });
     await cache.set('k', 'c', [1]); await cache.get('x', 'c');`,
    server.url,
  );
  expect(ended.code).toBe(0);
  const other = machine(server);
  expect(await timed(() => cache.close())).toBeLessThan(SOON);
  if (thorough) await new Promise((resolve) => setTimeout(resolve, 10_000));
  server.signal('SIGCONT');
  await until(() => other.getStats().shared!.state === 'ready');
  // What was cleared meanwhile is cleared now, at any moment.
  const reader = machine(server);
  await until(async () => {
    await other.set('again', 'c', [7]);
    await other.flush();
    return reader.get('again', 'c');
  });
});

test('a replica takes no changes and gives answers, and takes them once it is the primary', async (context) => {
  const [primary, replica] = [await redis(context), await redis(context)];
  await replica.ask('REPLICAOF', '127.0.0.1', `${primary.port}`);
  const one = machine(primary);
  await one.setMany(ENTRIES);
  await one.flush();
  await until(async () => (await replica.keys('embedcore:{*')).length === 20);
  const cache = machine(replica);
  expect((await cache.get('k1', 'c1'))!.embedding).toEqual([1, 1]);
  await cache.set('new', 'c', [5]);
  expect(await timed(() => cache.flush())).toBeLessThan(2 * SOON);
  expect(cache.getStats().shared).toMatchObject({ state: 'ready', queued: 1 });
  await primary.kill();
  await replica.ask('REPLICAOF', 'NO', 'ONE');
  await until(() => cache.getStats().shared!.queued === 0);
  expect((await machine(replica).get('new', 'c'))!.embedding).toEqual([5]);
});

test('results live as long as they should by the clock of the server', async (context) => {
  const server = await redis(context);
  const one = results(server);
  await one.set('a', 1, { type: 'api', ttlSeconds: 600 });
  await one.set('b', 1, { type: 'api' });
  await one.flush();
  // A machine whose clock is an hour ahead, and one whose clock is an hour behind: they see the same, and so do others of what they set.
  for (const hours of [1, -1]) {
    const { stdout } = await promisify(execFile)(process.execPath, [
      '-e',
      `const { InferenceCache } = require(${JSON.stringify(root)});
       (async () => {
         const cache = new InferenceCache({ shared: { url: ${JSON.stringify(server.url)} } });
         const found = [await cache.get('a', { type: 'api' }), await cache.get('b', { type: 'api' })];
         await cache.set('at ${hours}', 2, { type: 'api', ttlSeconds: 600 });
         await cache.close();
         console.log(JSON.stringify([...found.map((each) => each?.value ?? null), Date.now()]));
       })();`,
    ], { env: atAnotherTime(context, hours * 3600) });
    const [a, b, now] = JSON.parse(stdout) as number[];
    expect([a, b, Math.round((now! - Date.now()) / 3_600_000)]).toEqual([1, 1, hours]);
    expect((await results(server).get(`at ${hours}`, { type: 'api' }))?.value).toBe(2);
    await one.delete(`at ${hours}`, { type: 'api' });
  }
  const keys = await server.keys('embedcore:{*');
  const left = await Promise.all(keys.map(async (key) => Number(await server.ask('PTTL', key))));
  const mortal = left.findIndex((ms) => ms > 0 && ms <= 600_000);
  expect(mortal, left.join()).toBeGreaterThanOrEqual(0);
  // As if that time had passed.
  await server.ask('PEXPIRE', keys[mortal]!, '1');
  await until(async () => (await server.keys('embedcore:{*')).length === keys.length - 1);
  expect(await results(server).get('a', { type: 'api' })).toBeNull();
});
