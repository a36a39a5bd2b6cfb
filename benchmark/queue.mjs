// How work on a queue grows with workers, and what a chunk costs beside its model. `node benchmark/queue.mjs --help`.

import { fork, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { count, here, main, median, PlainError } from './lib.mjs';

const usage = `node benchmark/queue.mjs [--rows N] [--rounds N] [--ms N] [--chunk N] [--dimensions N]

N annotations (default 20000) through a queue on a Redis server of its own, to 1, 2 and 4 worker processes whose model takes --ms
(1) for a text, one chunk at a time: so that the processors of this machine do not decide. In turns; medians. Then what a chunk costs
beside its model: with one worker that takes one chunk at a time, whose model takes no time; and who takes that time: the
server, the producer, the worker. These are the figures of benchmark/simulate-distributed.mjs.`;

const require = createRequire(import.meta.url);
const { EmbeddingQueue } = require('../dist/queue/index.js');
const { Redis } = require('ioredis');

await main(async () => {
  let values;
  try {
    ({ values } = parseArgs({ options: { rows: { type: 'string', default: '20000' }, rounds: { type: 'string', default: '3' }, ms: { type: 'string', default: '1' }, chunk: { type: 'string', default: '128' }, dimensions: { type: 'string', default: '384' }, help: { type: 'boolean' } } }));
  } catch (error) {
    throw new PlainError(`${error.message}\n\n${usage}`);
  }
  if (values.help) return console.log(usage);
  const [rows, rounds, chunkSize] = [count(values.rows, '--rows'), count(values.rounds, '--rounds'), count(values.chunk, '--chunk')];
  const server = await startRedis();
  try {
    const chunks = Math.ceil(rows / chunkSize);
    const times = { 1: [], 2: [], 4: [] };
    for (let round = 0; round < rounds; round++) {
      for (const workers of [1, 2, 4]) times[workers].push((await run(server, { rows, chunkSize, workers, ms: values.ms, concurrency: 2, dimensions: values.dimensions, round: `${round}-${workers}` })).seconds);
    }
    const one = median(times[1]);
    console.log(`${rows} annotations in ${chunks} chunks of ${chunkSize}, ${values.ms} ms a text; the model alone: ${((rows * Number(values.ms)) / 1000).toFixed(1)} s`);
    for (const [workers, all] of Object.entries(times)) {
      const time = median(all);
      console.log(`${workers} worker${workers === '1' ? ' ' : 's'}  ${time.toFixed(2)} s  ${(one / time).toFixed(2)} × one, ${(one / time / Number(workers)).toFixed(3)} of linear  (${all.map((each) => each.toFixed(2)).join(', ')})`);
    }
    const costs = [];
    for (let round = 0; round < rounds; round++) costs.push(await run(server, { rows, chunkSize, workers: 1, ms: '0', concurrency: 1, dimensions: values.dimensions, round: `cost-${round}` }));
    const of = (read) => median(costs.map(read));
    console.log(`a chunk without its model: ${((of(({ seconds }) => seconds) * 1000) / chunks).toFixed(2)} ms from end to end, one at a time`);
    console.log(`  of the processors: server ${(of((each) => each.serverMs) / chunks).toFixed(3)} ms, producer ${(of((each) => each.producerMs) / chunks).toFixed(3)} ms, worker ${(of((each) => each.workerMs) / chunks).toFixed(3)} ms`);
    console.log(`  bytes on the server: ${Math.round(of((each) => each.bytes) / rows)} a vector of ${values.dimensions} values`);
  } finally {
    server.stop();
  }
});

/** One run, with workers of its own on an empty server. */
async function run(server, { rows, chunkSize, workers, ms, concurrency, dimensions, round }) {
  const redis = new Redis(server.port);
  await redis.flushall();
  const used = async () => Number(/used_memory:(\d+)/.exec(await redis.info('memory'))[1]);
  const cpu = async () => {
    const info = await redis.info('cpu');
    return ['used_cpu_sys', 'used_cpu_user'].reduce((sum, name) => sum + Number(new RegExp(`${name}:([\\d.]+)`).exec(info)[1]), 0) * 1000;
  };
  const all = await Promise.all(Array.from({ length: workers }, async () => {
    const worker = fork(join(here, 'queue-worker.mjs'), [server.url, ms, String(concurrency), dimensions]);
    await once(worker, 'message');
    return worker;
  }));
  const queue = new EmbeddingQueue({ connection: server.url, monitor: false });
  const annotations = Array.from({ length: rows }, (_, i) => ({
    nodeId: `n${i}`,
    signature: `function handle${i}(request, round${round})`,
    summary: `Reads request ${i}, checks it, and answers what is known about it.`,
    sourceSnippet: `{ const found = lookup(request.id + ${i}); return found ?? missing(request); }`,
  }));
  const [serverBefore, own, began, empty] = [await cpu(), process.cpuUsage(), performance.now(), await used()];
  let answered = 0;
  for await (const { error } of queue.addAnnotations(annotations, { chunkSize })) {
    if (error) throw error;
    answered++;
  }
  const seconds = (performance.now() - began) / 1000;
  const { user, system } = process.cpuUsage(own);
  const serverMs = (await cpu()) - serverBefore;
  const bytes = (await used()) - empty;
  if (answered !== rows) throw new Error(`${answered} of ${rows} were answered`);
  const told = await Promise.all(all.map(async (worker) => {
    worker.send('end');
    const [{ cpuMs }] = await once(worker, 'message');
    await once(worker, 'exit');
    return cpuMs;
  }));
  await queue.close();
  redis.disconnect();
  return { seconds, serverMs, producerMs: (user + system) / 1000, workerMs: told.reduce((sum, each) => sum + each, 0), bytes };
}

async function startRedis() {
  const name = ['redis-server', 'valkey-server'].find((each) => spawnSync(each, ['--version']).status === 0);
  if (!name) throw new PlainError('There is no redis-server and no valkey-server on this machine.');
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-queue-'));
  const server = spawn(name, ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', directory], { stdio: 'ignore' });
  const redis = new Redis(port);
  redis.on('error', () => {});
  await redis.ping();
  redis.disconnect();
  const stop = () => {
    server.kill();
    rmSync(directory, { recursive: true, force: true });
  };
  return { port, url: `redis://127.0.0.1:${port}`, stop };
}
