// What serving costs: requests and texts a second over HTTP, against the generator called directly. See --help.

import { fork } from 'node:child_process';
import { openSync, readSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { count, main, median } from './lib.mjs';

const usage = `node benchmark/serve.mjs [--model MODEL] [--clients 1,8,64] [--texts 1,32] [--seconds N] [--rounds N] [--large]

  --model MODEL   id, directory or file (default: the built-in model)
  --clients LIST  how many ask at the same time, each the next when it has its answer
  --texts LIST    texts in a request
  --seconds N     for each figure of a round (default 2)
  --rounds N      everything in turns, the median counts (default 3)
  --large         instead: requests of 2048 texts from 4 clients, and how late the event loop of the server runs meanwhile

The server and the generator run in a process of their own, the clients in this one. All texts are new, there is no cache.
direct: calls of generator.embed, as many at a time. Answers are read, not parsed.`;

const script = fileURLToPath(import.meta.url);
const RESOLUTION = 10;

let made = 0;
const texts = (number) => Array.from({ length: number }, () => `function number${made++} reads the file and returns its parsed content`);

/** Runs `work` again and again, `clients` at a time, and gives how often it ended in a second. */
async function pace(clients, seconds, work) {
  let [ended, going] = [0, true];
  const one = async () => {
    while (going) {
      await work();
      if (going) ended++;
    }
  };
  const started = performance.now();
  const all = Array.from({ length: clients }, one);
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  going = false;
  const rate = ended / ((performance.now() - started) / 1000);
  await Promise.all(all);
  return rate;
}

/**
 * How long each turn of the event loop holds it, in milliseconds of the processor's time: what other processes take from
 * this one on a busy machine does not count. From Linux, which knows it of every thread.
 */
function holding() {
  let file;
  try {
    file = openSync(`/proc/self/task/${process.pid}/schedstat`);
  } catch {
    return { reset() {}, figures: () => [NaN, NaN] };
  }
  const buffer = Buffer.alloc(64);
  const busy = () => Number.parseInt(buffer.latin1Slice(0, readSync(file, buffer, 0, 64, 0)), 10) / 1e6;
  let turns = [];
  let [last, on] = [0, false];
  const turn = () => {
    const now = busy();
    turns.push(now - last);
    last = now;
    if (on) setImmediate(turn);
  };
  return {
    reset() {
      [turns, last, on] = [[], busy(), true];
      setImmediate(turn);
    },
    figures() {
      on = false;
      // Most turns have nothing to do but this.
      turns = turns.filter((ms) => ms > 0.1).sort((a, b) => a - b);
      return [turns[Math.floor(turns.length * 0.99)], turns.at(-1)];
    },
  };
}

/** The other process: says where it serves, and measures what it is told to. */
async function serving(modelPath) {
  const { OptimizedEmbeddingGenerator } = await import('../dist/index.js');
  const { serve } = await import('../dist/interfaces/server.js');
  const generator = new OptimizedEmbeddingGenerator({ modelPath, cache: false });
  const server = await serve({ generator, modelId: 'model', port: 0 });
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION });
  const held = holding();
  process.on('message', async ({ what, clients, seconds, number }) => {
    if (what === 'direct') process.send(await pace(clients, seconds, () => generator.embed(texts(number))));
    if (what === 'reset') {
      delay.reset();
      delay.enable();
      held.reset();
      process.send(true);
    }
    if (what === 'delay') {
      delay.disable();
      const late = [delay.percentile(50), delay.percentile(99), delay.max].map((ns) => ns / 1e6);
      process.send([...late, ...held.figures()]);
    }
    if (what === 'end') await server.close().then(() => generator.cleanup()).then(() => process.disconnect());
  });
  process.send(server.port);
}

function ask(agent, port, body) {
  return new Promise((resolve, reject) => {
    const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) };
    const asked = request({ agent, port, host: '127.0.0.1', method: 'POST', path: '/v1/embeddings', headers }, (answer) => {
      if (answer.statusCode !== 200) reject(new Error(`The server answered ${answer.statusCode}`));
      answer.on('end', resolve).resume();
    });
    asked.on('error', reject).end(body);
  });
}

if (process.argv[2] === 'serving') {
  await serving(process.argv[3]);
} else {
  await main(async () => {
    const { values } = parseArgs({
      options: {
        model: { type: 'string', default: 'builtin' },
        clients: { type: 'string', default: '1,8,64' },
        texts: { type: 'string', default: '1,32' },
        seconds: { type: 'string', default: '2' },
        rounds: { type: 'string', default: '3' },
        large: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) return console.log(usage);
    const numbers = (list, option) => list.split(',').map((text) => count(text, option));
    const [seconds, rounds] = [count(values.seconds, '--seconds'), count(values.rounds, '--rounds')];
    const child = fork(script, ['serving', values.model]);
    let over = false;
    child.once('exit', () => {
      if (!over) throw new Error('The server has ended');
    });
    const told = () => new Promise((resolve) => child.once('message', resolve));
    const tell = (message) => (child.send(message), told());
    const port = await told();
    const agent = new Agent({ keepAlive: true });
    const http = (clients, number, encoding_format) => pace(clients, seconds, () => ask(agent, port, JSON.stringify({ model: 'model', input: texts(number), encoding_format })));
    const ways = {
      direct: (clients, number) => tell({ what: 'direct', clients, seconds, number }),
      base64: (clients, number) => http(clients, number, 'base64'),
      float: (clients, number) => http(clients, number, 'float'),
    };

    if (values.large) {
      console.log(`2048 texts a request, 4 clients. late: ms between two firings of a timer of ${RESOLUTION} ms in the server.`);
      console.log('held: ms of processor time that one turn of its event loop takes, which no other process makes longer.\n');
      console.log(`${''.padEnd(10)}${['requests/s', 'texts/s', 'late p50', 'late p99', 'late max', 'held p99', 'held max'].map((head) => head.padStart(12)).join('')}`);
      for (const encoding of ['idle', 'base64', 'float']) {
        if (encoding !== 'idle') await http(4, 2048, encoding);
        await tell({ what: 'reset' });
        const rate = encoding === 'idle' ? await pace(1, seconds, () => new Promise((resolve) => setTimeout(resolve, 100))) * 0 : await http(4, 2048, encoding);
        const delays = await tell({ what: 'delay' });
        console.log(`${encoding.padEnd(10)}${[rate, rate * 2048, ...delays].map((figure) => figure.toFixed(1).padStart(12)).join('')}`);
      }
    } else {
      console.log(`${'clients'.padStart(8)}${'texts'.padStart(8)}${'way'.padStart(10)}${'requests/s'.padStart(12)}${'texts/s'.padStart(12)}   of direct`);
      for (const clients of numbers(values.clients, '--clients')) {
        for (const number of numbers(values.texts, '--texts')) {
          const taken = Object.fromEntries(Object.keys(ways).map((way) => [way, []]));
          // The first round warms up.
          for (let round = -1; round < rounds; round++) {
            for (const [way, run] of Object.entries(ways)) {
              const rate = await run(clients, number);
              if (round >= 0) taken[way].push(rate);
            }
          }
          for (const [way, rates] of Object.entries(taken)) {
            const rate = median(rates);
            const share = median(rates.map((one, round) => one / taken.direct[round]));
            console.log(`${String(clients).padStart(8)}${String(number).padStart(8)}${way.padStart(10)}${rate.toFixed(0).padStart(12)}${(rate * number).toFixed(0).padStart(12)}   ${share.toFixed(2)} ×`);
          }
        }
      }
    }
    agent.destroy();
    over = true;
    child.send({ what: 'end' });
  });
}
