// HttpClient and OllamaClient of embedcore/llm. See `node benchmark/llm.mjs --help`.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { Pool, request as undiciRequest } from 'undici';

import embedcore from '../dist/index.js';
import llm from '../dist/llm/index.js';
import { count, here, main, median, PlainError, temporaryDirectory } from './lib.mjs';

const usage = `node benchmark/llm.mjs [--rounds N] [--requests N]

Servers run in a process of their own. Each figure is the median of N rounds (default 9), contenders in turns.

  overhead     1,000 GETs of a small JSON answer, one after the other and 6 at a time: HttpClient.get beside undici.request
               on a pool of as many connections
  faults       --requests (default 10,000) requests to 3 hosts, of which every tenth is reset, cut, 503 or 429: all answered once?
               the limits never exceeded, by the servers' own count? no socket left?
  hit          OllamaClient.generate, answers in a cache on disk, none of them in memory: p50, p99`;

const children = [];

/** A process with servers: their URLs, and what they have counted. */
async function serve(...settings) {
  const child = fork(join(here, 'llm-server.mjs'));
  children.push(child);
  const urls = [];
  for (const start of settings) {
    child.send({ start });
    urls.push((await once(child, 'message'))[0].url);
  }
  const states = async () => {
    child.send({});
    return (await once(child, 'message'))[0].states;
  };
  return { urls, states };
}

/** Runs `work` so often, so many at a time; milliseconds for each. */
async function timed(times, atATime, work) {
  let left = times;
  const lane = async () => {
    while (left-- > 0) await work();
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: atATime }, lane));
  return (performance.now() - began) / times;
}

async function overhead(rounds) {
  const { urls: [url] } = await serve({ delayMs: 0, faults: false });
  for (const atATime of [1, 6]) {
    const pool = new Pool(url, { connections: atATime });
    const http = new llm.HttpClient({ perHostLimit: atATime });
    const path = `${url}/some/path`;
    const contenders = {
      'undici.request': async () => (await undiciRequest(path, { dispatcher: pool })).body.json(),
      'HttpClient.get': () => http.get(path),
    };
    const times = Object.fromEntries(Object.keys(contenders).map((name) => [name, []]));
    for (const work of Object.values(contenders)) await timed(2000, atATime, work);
    for (let round = 0; round < rounds; round++) for (const [name, work] of Object.entries(contenders)) times[name].push(await timed(1000, atATime, work));
    const [bare, own] = Object.values(times).map(median);
    console.log(`\n${atATime} at a time\n  undici.request  ${(bare * 1000).toFixed(1)} µs a request\n  HttpClient.get  ${(own * 1000).toFixed(1)} µs a request: ${(own / bare).toFixed(2)} ×`);
    await Promise.all([pool.close(), http.close()]);
  }
}

async function faults(requests) {
  const setting = { delayMs: 1, faults: true };
  const { urls, states } = await serve(setting, setting, setting);
  const http = new llm.HttpClient({ retryAttempts: 10, retryBackoffMs: [1, 2, 5] });
  const began = performance.now();
  const answers = await Promise.all(Array.from({ length: requests }, async (_, i) => (await http.get(`${urls[i % 3]}/${i}`)).path));
  const seconds = (performance.now() - began) / 1000;
  const wrong = answers.filter((path, i) => path !== `/${i}`).length;
  await http.close();
  await sleep(200);
  const counted = await states();
  const sum = (name) => counted.reduce((total, state) => total + state[name], 0);
  console.log(`\n${requests} requests to 3 hosts, every tenth with a fault: ${seconds.toFixed(1)} s
  answered once, each with its own answer: ${requests - wrong}
  requests that the servers saw: ${sum('requests')}, of which ${sum('faults')} had a fault
  most at a time, by the servers' own count: ${counted.map(({ most }) => most).join(', ')} (limit 6)
  sockets left: ${sum('open')}`);
  if (wrong > 0 || sum('open') > 0 || counted.some(({ most }) => most > 6)) throw new PlainError('That is not as it should be.');
}

async function hit() {
  const { urls: [baseUrl], states } = await serve({ delayMs: 0, faults: false });
  const persistPath = join(temporaryDirectory(), 'results.db');
  const prompts = Array.from({ length: 2000 }, (_, i) => `Describe function number ${i}: ${'it reads a file and parses it. '.repeat(20)}`);
  const client = async (cache, work) => {
    const own = new embedcore.InferenceCache({ persistPath, ...cache });
    const ollama = new llm.OllamaClient({ baseUrl, model: 'a', cache: own });
    await work(ollama);
    await ollama.close();
    await own.close();
  };
  await client({}, async (ollama) => void (await Promise.all(prompts.map((prompt) => ollama.generate(prompt)))));
  const before = (await states())[0].requests;
  await client({ maxEntries: 1 }, async (ollama) => {
    const times = [];
    for (const prompt of prompts) {
      const began = performance.now();
      const { fromCache } = await ollama.generate(prompt);
      if (fromCache) times.push(performance.now() - began);
    }
    times.sort((a, b) => a - b);
    const at = (share) => times[Math.floor(share * times.length)].toFixed(3);
    console.log(`\nOllamaClient.generate, ${times.length} of ${prompts.length} from disk: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms; requests that the server saw meanwhile: ${(await states())[0].requests - before}`);
  });
}

await main(async () => {
  const { values } = parseArgs({ options: { rounds: { type: 'string', default: '9' }, requests: { type: 'string', default: '10000' }, help: { type: 'boolean' } } });
  if (values.help) return console.log(usage);
  try {
    await overhead(count(values.rounds, '--rounds'));
    await faults(count(values.requests, '--requests'));
    await hit();
  } finally {
    for (const child of children) child.kill();
  }
});
