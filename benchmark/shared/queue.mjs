// How work on a queue grows with workers, what a chunk costs beside its model, and what becomes of it when workers are killed.

import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { here, median } from '../lib.mjs';
import { untilEnd } from './redis.mjs';

const { EmbeddingQueue } = createRequire(import.meta.url)('../../dist/queue/index.js');

/** A model on a server of this machine that takes `ms` for a text. */
async function startModel(ms, dimensions) {
  const server = untilEnd(spawn(process.execPath, [join(here, 'remote-server.mjs'), String(dimensions), String(ms), '1'], { stdio: ['ignore', 'pipe', 'inherit'] }));
  const [line] = await once(server.stdout, 'data');
  const url = String(line).trim();
  return {
    url,
    /** Texts that it was asked for since the last time. */
    texts: async () => (await (await fetch(`${url}/cost`)).json()).texts,
    stop: () => server.kill(),
  };
}

async function startWorker(server, model, { concurrency, lockDurationMs = 15_000 }) {
  const worker = untilEnd(fork(join(here, 'shared', 'worker.mjs'), [server.url, model.url, String(concurrency), String(lockDurationMs)]));
  await once(worker, 'message');
  return worker;
}

/** Ends a worker in order: what it took of the processors, in ms. */
async function endWorker(worker) {
  worker.send('end');
  const [{ cpuMs }] = await once(worker, 'message');
  await once(worker, 'exit');
  return cpuMs;
}

const annotation = (i, run) => ({
  nodeId: `n${i}`,
  signature: `function handle${i}(request, run${run})`,
  summary: `Reads request ${i}, checks it, and answers what is known about it.`,
  sourceSnippet: `{ const found = lookup(request.id + ${i}); return found ?? missing(request); }`,
});

const several = (rows, run) => Array.from({ length: rows }, (_, i) => annotation(i, run));

/** One run on an empty server, by `workers` of its own. */
async function run(server, model, { rows, chunk, workers, concurrency }) {
  await server.redis.flushall();
  const all = await Promise.all(Array.from({ length: workers }, () => startWorker(server, model, { concurrency })));
  const queue = new EmbeddingQueue({ connection: server.url, monitor: false });
  // Connections are there and code is compiled, as in a process that runs.
  await take(queue.addAnnotations(several(workers * chunk * 4, 'warm'), { chunkSize: chunk }));
  const given = several(rows, 'measured');
  await server.redis.config('RESETSTAT');
  const [cpu, own, empty, began] = [await server.cpuMs(), process.cpuUsage(), await server.usedBytes(), performance.now()];
  const answered = await take(queue.addAnnotations(given, { chunkSize: chunk }));
  const ms = performance.now() - began;
  const { user, system } = process.cpuUsage(own);
  const [serverMs, queueMs] = [(await server.cpuMs()) - cpu, await server.commandMs(/^(?!get$|set$|publish$|config|info)/)];
  const bytes = (await server.usedBytes()) - empty;
  if (answered.size !== rows) throw new Error(`${answered.size} of ${rows} were answered`);
  const workerMs = (await Promise.all(all.map(endWorker))).reduce((sum, each) => sum + each, 0);
  await queue.close();
  return { ms, serverMs, queueShare: queueMs / serverMs, producerMs: (user + system) / 1000, workerMs, bytes };
}

/** How often each input was answered. */
async function take(results) {
  const answered = new Map();
  for await (const { index, error } of results) {
    if (error) throw error;
    answered.set(index, (answered.get(index) ?? 0) + 1);
  }
  return answered;
}

/** 1, 2 and 4 workers in turns; what a chunk costs beside its model; what the processors take for it. */
export async function growth(server, table, { annotations: rows, rounds, chunk, ms, dimensions }) {
  const chunks = Math.ceil(rows / chunk);
  const [model, instant] = [await startModel(ms, dimensions), await startModel(0, dimensions)];
  const [times, costs] = [{ 1: [], 2: [], 4: [] }, []];
  for (let round = 0; round < rounds; round++) {
    for (const workers of [1, 2, 4]) times[workers].push((await run(server, model, { rows, chunk, workers, concurrency: 2 })).ms);
    costs.push(await run(server, instant, { rows, chunk, workers: 1, concurrency: 1 }));
  }
  for (const each of [model, instant]) each.stop();
  const one = median(times[1]);
  for (const workers of [2, 4]) {
    const time = median(times[workers]);
    table.add(`${rows} annotations, ${workers} workers`, `${(time / 1000).toFixed(2)} s`, `1 worker ${(one / 1000).toFixed(2)} s`, one / time / workers, 'of linear', 0.9);
  }
  const of = (read) => median(costs.map(read)) / chunks;
  table.add(`a chunk of ${chunk} beside its model`, `${((one - rows * ms) / chunks).toFixed(2)} ms`, `its model ${chunk * ms} ms`, (one - rows * ms) / chunks, 'ms', { most: 5 });
  table.add('a chunk from end to end, one at a time, no model', `${of((each) => each.ms).toFixed(2)} ms`, 'of processors, with HTTP', of((each) => each.ms), 'ms');
  const taken = { server: 'serverMs', producer: 'producerMs', worker: 'workerMs' };
  for (const [who, name] of Object.entries(taken)) table.note(`  of processors for that chunk: ${who} ${of((each) => each[name]).toFixed(2)} ms`);
  table.note(`  of the server's time in commands of the queue: ${(median(costs.map(({ queueShare }) => queueShare)) * 100).toFixed(0)} %; bytes of a vector of ${dimensions} values there: ${Math.round(median(costs.map(({ bytes }) => bytes)) / rows)}`);
}

/** Workers are killed at random: what is lost, answered twice, computed again. */
export async function kills(server, table, { kills: count, chunk, ms, dimensions }) {
  await server.redis.flushall();
  const [concurrency, model] = [2, await startModel(ms, dimensions)];
  const begin = () => startWorker(server, model, { concurrency, lockDurationMs: 1000 });
  const alive = await Promise.all([begin(), begin(), begin(), begin()]);
  await model.texts();
  const queue = new EmbeddingQueue({ connection: server.url, monitor: false });
  let [given, killing] = [0, true];
  const source = function* () {
    // Until the last of them was killed.
    for (; killing || given % chunk !== 0; given++) yield annotation(given, 'kills');
  };
  const answered = take(queue.addAnnotations(source(), { chunkSize: chunk, maxPendingChunks: 32 }));
  for (let kill = 0; kill < count; kill++) {
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 300));
    const [victim] = alive.splice(Math.floor(Math.random() * alive.length), 1);
    victim.kill('SIGKILL');
    alive.push(await begin());
  }
  killing = false;
  const times = await answered;
  await Promise.all(alive.map(endWorker));
  // Each of those that were begun has asked for one text, to learn about its model.
  const again = (await model.texts()) - given;
  await queue.close();
  model.stop();
  table.add(`${count} × kill -9, ${given} annotations: lost`, String(given - times.size), '', given - times.size, '', { most: 0 });
  table.add('  answered twice', String([...times.values()].filter((each) => each > 1).length), '', [...times.values()].filter((each) => each > 1).length, '', { most: 0 });
  const most = count * concurrency * chunk;
  table.add('  computed again', String(again), `at most their chunks: ${most}`, again / most, 'of those', { most: 1 });
}
