// What serving costs: requests and texts a second over HTTP, against the generator called directly. See --help.

import { fork } from 'node:child_process';
import { openSync, readSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect } from 'node:net';
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

The server and the generator run in a process of their own, the clients in this one: bare sockets, because Node's own client takes
several times as long over a request as a server does, on the same cores. All texts are new, there is no cache. Answers are read, not
parsed. direct: calls of generator.embed, as many at a time. bare: a server of Node's that reads the request and answers as many bytes
as there are in an answer of numbers, which is as little as HTTP can take beside the work.`;

const script = fileURLToPath(import.meta.url);
const RESOLUTION = 10;

let made = 0;
const texts = (number) => Array.from({ length: number }, () => `function number${made++} reads the file and returns its parsed content`);

/** Runs `work` again and again, `clients` at a time, and gives how often it ended in a second. It is told which client it is. */
async function pace(clients, seconds, work) {
  let [ended, going] = [0, true];
  const one = async (_, client) => {
    while (going) {
      await work(client);
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
  let answer = Buffer.alloc(0);
  const bare = createServer({ noDelay: true }, (request, response) => {
    request.on('end', () => response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': answer.length }).end(answer)).resume();
  });
  await new Promise((resolve) => bare.listen(0, '127.0.0.1', resolve));
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION });
  const held = holding();
  process.on('message', async ({ what, clients, seconds, number, bytes }) => {
    if (what === 'direct') process.send(await pace(clients, seconds, () => generator.embed(texts(number))));
    if (what === 'bare') process.send((answer = Buffer.alloc(bytes, 'a')).length);
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
    if (what === 'end') {
      bare.close();
      await server.close().then(() => generator.cleanup()).then(() => process.disconnect());
    }
  });
  process.send([server.port, bare.address().port]);
}

/** The end of the head of an answer. */
const HEAD = '\r\n\r\n';

/** The end of an answer in chunks. */
const LAST_CHUNK = '\r\n0\r\n\r\n';

/** A connection that takes requests, one at a time, and gives the length of each answer's body. */
function connection(port) {
  let told;
  // Of the answer that arrives: bytes that are still to come, once its head is there; of one in chunks, its latest bytes.
  let [head, left, length, tail] = ['', 0, 0, undefined];
  const take = (count, buffer) => {
    if (tail !== undefined) tail = (tail + buffer.latin1Slice(Math.max(0, count - LAST_CHUNK.length), count)).slice(-LAST_CHUNK.length);
    else if (left > 0) left -= count;
    else {
      head += buffer.latin1Slice(0, count);
      const end = head.indexOf(HEAD);
      if (end < 0) return true;
      if (!head.startsWith('HTTP/1.1 200')) return told.reject(new Error(`The server answered ${head}`));
      length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? NaN);
      left = length - (head.length - end - HEAD.length);
      if (Number.isNaN(length)) tail = head.slice(-LAST_CHUNK.length);
      head = '';
    }
    if (tail === undefined ? left > 0 : tail !== LAST_CHUNK) return true;
    tail = undefined;
    told.resolve(length);
    return true;
  };
  const socket = connect({ port, host: '127.0.0.1', noDelay: true, onread: { buffer: Buffer.allocUnsafe(1 << 18), callback: take } });
  socket.on('error', (error) => told?.reject(error));
  const ask = (body) =>
    new Promise((resolve, reject) => {
      told = { resolve, reject };
      socket.write(`POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`, 'latin1');
    });
  return { ask, close: () => socket.destroy() };
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
    const [port, barePort] = await told();
    const body = (number, encoding_format) => JSON.stringify({ model: 'model', input: texts(number), encoding_format });
    const http = async (to, clients, number, format) => {
      const connections = Array.from({ length: clients }, () => connection(to));
      const rate = await pace(clients, seconds, (client) => connections[client].ask(body(number, format)));
      for (const { close } of connections) close();
      return rate;
    };
    const ways = {
      direct: (clients, number) => tell({ what: 'direct', clients, seconds, number }),
      bare: async (clients, number) => {
        const { ask, close } = connection(port);
        await tell({ what: 'bare', bytes: await ask(body(number, 'float')) });
        close();
        return http(barePort, clients, number, 'float');
      },
      base64: (clients, number) => http(port, clients, number, 'base64'),
      float: (clients, number) => http(port, clients, number, 'float'),
    };

    if (values.large) {
      console.log(`2048 texts a request, 4 clients. late: ms between two firings of a timer of ${RESOLUTION} ms in the server.`);
      console.log('held: ms of processor time that one turn of its event loop takes, which no other process makes longer.\n');
      console.log(`${''.padEnd(10)}${['requests/s', 'texts/s', 'late p50', 'late p99', 'late max', 'held p99', 'held max'].map((head) => head.padStart(12)).join('')}`);
      for (const encoding of ['idle', 'base64', 'float']) {
        if (encoding !== 'idle') await http(port, 4, 2048, encoding);
        await tell({ what: 'reset' });
        const rate = encoding === 'idle' ? await pace(1, seconds, () => new Promise((resolve) => setTimeout(resolve, 100))) * 0 : await http(port, 4, 2048, encoding);
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
    over = true;
    child.send({ what: 'end' });
  });
}
