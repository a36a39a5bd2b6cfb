// How fast the shared tier is, beside what a user would write, and what it costs when its server cannot be reached.

import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';

import { median, PlainError } from '../lib.mjs';
import { freePort } from './redis.mjs';

const { IntelligentEmbeddingCache, OptimizedEmbeddingGenerator } = createRequire(import.meta.url)('../..');

const COUNT = 1000;
/** What a server that does not answer may take of a process, once in 30 s: `commandTimeoutMs`. */
const TIMEOUT_MS = 500;

/** How long something takes, in ms. */
async function timed(work) {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

/** `getMany` and `get` of vectors that only the server has, against ioredis. */
export async function lookups(server, table, { rounds, dimensions }) {
  const { redis } = server;
  const entries = Array.from({ length: COUNT }, (_, n) => ({ key: `key ${n}`, content: `content ${n}`, embedding: Float32Array.from({ length: dimensions }, (_, i) => Math.sin(n + i)) }));
  const bytes = {};
  for (const vectorPrecision of ['f16', 'f32']) {
    await redis.flushall();
    const empty = await server.usedBytes();
    const cache = new IntelligentEmbeddingCache({ shared: { url: server.url }, vectorPrecision });
    await cache.setMany(entries);
    await cache.close();
    bytes[vectorPrecision] = Math.round(((await server.usedBytes()) - empty) / COUNT);
  }
  for (const { key, embedding } of entries) await redis.set(`plain:${key}`, Buffer.from(embedding.buffer));
  const decode = (bytes) => new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  /** Memory has room for one: everything is asked of the server. */
  const cold = async (work) => {
    const cache = new IntelligentEmbeddingCache({ shared: { url: server.url, commandTimeoutMs: 5000 }, maxEntries: 1 });
    await cache.get('connects', 'first');
    const took = await timed(() => work(cache));
    if (cache.getStats().shared.hits !== COUNT) throw new PlainError('The server did not answer all lookups.');
    await cache.close();
    return took;
  };
  const contenders = {
    many: () => cold((cache) => cache.getMany(entries)),
    pipeline: () => timed(async () => {
      const pipeline = redis.pipeline();
      for (const { key } of entries) pipeline.getBuffer(`plain:${key}`);
      return (await pipeline.exec()).map(([, bytes]) => decode(bytes));
    }),
    single: () => cold(async (cache) => {
      for (const { key, content } of entries) await cache.get(key, content);
    }),
    get: () => timed(async () => {
      for (const { key } of entries) decode(await redis.getBuffer(`plain:${key}`));
    }),
  };
  const times = {};
  for (let round = -1; round < rounds; round++) {
    for (const [name, contender] of Object.entries(contenders)) {
      const took = await contender();
      // The first warms up.
      if (round >= 0) (times[name] ??= []).push(took);
    }
  }
  const of = (name) => median(times[name]);
  const shown = (name) => `${of(name).toFixed(1)} ms`;
  table.add(`getMany of ${COUNT} vectors`, shown('many'), `ioredis, a pipeline: ${shown('pipeline')}`, of('pipeline') / of('many'), '×', 1.5);
  table.add(`${COUNT} vectors one by one`, shown('single'), `ioredis: ${shown('get')}`, of('get') / of('single'), '×', 1);
  for (const [precision, each] of Object.entries(bytes)) table.note(`  ${precision}: ${each} bytes a vector of ${dimensions} values on the server`);
}

/** A generator that computes, one on a second machine that finds all on the server, and some whose server cannot be reached. */
export async function generators(server, table, { rounds, rows, model }) {
  const text = (n, round) => `function handle${n}(request) reads request ${n} of round ${round}, checks it, and answers what is known about it`;
  const silent = createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1').unref();
  await once(silent, 'listening');
  const unreachable = {
    'a closed port': `redis://127.0.0.1:${await freePort()}`,
    'a name that nobody has': 'redis://no-such-host.invalid',
    'a server that never answers': `redis://127.0.0.1:${silent.address().port}`,
  };
  const compared = Object.entries({ alone: undefined, ...unreachable });
  const times = {};
  for (let round = 0; round < rounds; round++) {
    await server.redis.flushall();
    const texts = Array.from({ length: rows }, (_, n) => text(n, round));
    // Each of those that are compared is the first, the second, … as often.
    const turn = round % compared.length;
    for (const [name, url] of [...compared.slice(turn), ...compared.slice(0, turn), ['cold', server.url], ['warm', server.url]]) {
      const generator = new OptimizedEmbeddingGenerator({ ...(model && { modelPath: model }), ...(url && { cache: { shared: { url } } }), stateDir: false, monitor: false });
      await generator.initialize();
      const took = await timed(() => generator.embed(texts));
      await generator.cleanup();
      (times[name] ??= []).push(took);
    }
  }
  silent.close();
  const of = (name) => median(times[name]);
  const seconds = (name) => `${(of(name) / 1000).toFixed(3)} s`;
  table.add(`${rows} texts, a second machine`, seconds('warm'), `the first ${seconds('cold')}`, of('cold') / of('warm'), '×', 50);
  for (const name of Object.keys(unreachable)) {
    // Within a round, since a machine is not as fast in each.
    const more = median(times[name].map((ms, round) => ms - times.alone[round]));
    const own = name.includes('never') ? TIMEOUT_MS : 0;
    table.add(`${rows} texts, ${name}`, seconds(name), `no shared tier ${seconds('alone')}`, (Math.max(0, more - own) / of('alone')) * 100, own ? `% more, beside a time-out of ${own} ms` : '% more', { most: 1 });
  }
}
