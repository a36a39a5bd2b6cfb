// What does it cost to have a server embed? `node benchmark/remote.mjs --help`.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { count, here, main, median, PlainError } from './lib.mjs';

const usage = `node benchmark/remote.mjs [--rows N] [--rounds N] [--dimensions N]

N annotations (default 5000) through a server on this machine, in a process of its own, that takes 20 ms for a request of at
most 32 texts, however many requests there are at a time, and a multiple of that for one with more. Against the ideal, which is 8
requests of 32 texts every 20 ms; against a bare client that keeps 8 such requests under way; and against LangChain's
OllamaEmbeddings and OpenAIEmbeddings at their defaults. Then everything again, from the cache. In turns; medians. What the server
takes of the machine, and how late its answers are, is told for each, since it shares the cores with its clients; and what is
left of the ideal where each request takes as long as it did, and there are whole ones only. One contender has twice as many
requests at a time, and so an ideal of its own.`;

const { OptimizedEmbeddingGenerator } = createRequire(import.meta.url)('..');

const BATCH = 32;
const REQUEST_MS = 20;
const CONCURRENCY = 8;
const DOUBLE = `embedcore, openai: embed, ${2 * CONCURRENCY} at a time`;

await main(async () => {
  let values;
  try {
    ({ values } = parseArgs({ options: { rows: { type: 'string', default: '5000' }, rounds: { type: 'string', default: '5' }, dimensions: { type: 'string', default: '384' }, help: { type: 'boolean' } } }));
  } catch (error) {
    throw new PlainError(`${error.message}\n\n${usage}`);
  }
  if (values.help) return console.log(usage);
  const [rows, rounds] = [count(values.rows, '--rows'), count(values.rounds, '--rounds')];
  const server = spawn(process.execPath, [join(here, 'remote-server.mjs'), values.dimensions, String(REQUEST_MS), String(BATCH)], { stdio: ['ignore', 'pipe', 'inherit'] });
  process.once('exit', () => server.kill());
  const [line] = await once(server.stdout, 'data');
  const url = String(line).trim();

  const annotations = (round) => Array.from({ length: rows }, (_, i) => ({
    nodeId: `n${i}`,
    signature: `function handle${i}(request, round${round})`,
    summary: `Reads request ${i}, checks it, and answers what is known about it.`,
    sourceSnippet: `{ const found = lookup(request.id + ${i}); return found ?? missing(request); }`,
  }));
  const ideal = rows / (BATCH * CONCURRENCY) * (REQUEST_MS / 1000);
  // Nobody can ask for less than a request.
  const inTurn = (concurrency) => Math.ceil(Math.ceil(rows / BATCH) / concurrency);
  const whole = inTurn(CONCURRENCY) * (REQUEST_MS / 1000);
  const contenders = {
    'a bare client, 8 at a time': (round) => bare(url, prepared(annotations(round)), 'bare'),
    'embedcore, ollama: embed': (round) => embedcore(url, 'ollama', round, 'embed'),
    'embedcore, ollama: generateEmbeddings': (round) => embedcore(url, 'ollama', round, 'generateEmbeddings'),
    'embedcore, ollama: stream': (round) => embedcore(url, 'ollama', round, 'stream'),
    'embedcore, openai: embed': (round) => embedcore(url, 'openai', round, 'embed'),
    [DOUBLE]: (round) => embedcore(url, 'openai', round, 'embed', 2 * CONCURRENCY),
    ...(await langChain(url, rows)),
  };
  const again = {};

  async function embedcore(url, kind, round, way, concurrency) {
    const generator = new OptimizedEmbeddingGenerator({ monitor: false, remote: { kind, url, model: 'm', concurrency } });
    await generator.initialize();
    // So that connections are there and code is compiled, as in a process that runs.
    await generator.embed(Array.from({ length: 300 }, (_, i) => `warm ${i}`));
    const all = annotations(round);
    const run = {
      embed: () => generator.embed(prepared(all)),
      generateEmbeddings: () => generator.generateEmbeddings(all),
      stream: async () => {
        for await (const _ of generator.stream(all));
      },
    }[way];
    const took = await seconds(run);
    (again[concurrency ? DOUBLE : `embedcore, ${kind}: ${way}`] ??= []).push(await best(5, run));
    await generator.cleanup();
    return took;
  }

  const times = {};
  const costs = {};
  const cost = async () => (await fetch(`${url}/cost`)).json();
  for (let round = 0; round < rounds; round++) {
    const names = Object.keys(contenders);
    for (const name of round % 2 ? names.reverse() : names) {
      await cost();
      (times[name] ??= []).push(await contenders[name](round));
      (costs[name] ??= []).push(await cost());
    }
  }
  console.log(`${rows} annotations, ${values.dimensions} dimensions, ${CONCURRENCY} requests of ${BATCH} texts at a time, ${REQUEST_MS} ms each`);
  console.log(`${'the ideal'.padEnd(40)}${ideal.toFixed(3)} s  ${Math.round(rows / ideal).toLocaleString('en')} texts/s`);
  console.log(`${'the ideal, in whole requests'.padEnd(40)}${whole.toFixed(3)} s  ${Math.round(rows / whole).toLocaleString('en')} texts/s, ${(ideal / whole).toFixed(3)} of the ideal`);
  for (const name of Object.keys(contenders)) {
    const took = median(times[name]);
    const second = again[name] ? `; again ${(median(again[name]) * 1000).toFixed(1)} ms, ${(took / median(again[name])).toFixed(0)} × as fast` : '';
    const cost = (what) => median(costs[name].map((each) => each[what]));
    const factor = name === DOUBLE ? 2 : 1;
    const possible = ideal / factor / (inTurn(factor * CONCURRENCY) * (REQUEST_MS + cost('lateMs')) / 1000);
    const share = name.startsWith('LangChain') ? '' : `, where ${possible.toFixed(3)} was possible`;
    console.log(`${name.padEnd(40)}${took.toFixed(3)} s  ${Math.round(rows / took).toLocaleString('en')} texts/s, ${(ideal / factor / took).toFixed(3)} of the ideal${share}${second}; the server: ${cost('cpuMs').toFixed(2)} ms of CPU, ${cost('lateMs').toFixed(2)} ms late a request`);
  }
  server.kill();
});

/** Their texts, as {@link OptimizedEmbeddingGenerator} words them. */
function prepared(annotations) {
  return annotations.map(({ signature, summary, sourceSnippet }) => `Signature: ${signature} | Summary: ${summary} | Code: ${sourceSnippet}`);
}

/** As few lines as it takes: what the server and this machine allow, with vectors read from JSON. */
async function bare(url, texts) {
  let next = 0;
  return seconds(() => Promise.all(Array.from({ length: CONCURRENCY }, async () => {
    while (next < texts.length) {
      const input = texts.slice(next, (next += BATCH));
      const response = await fetch(`${url}/api/embed`, { method: 'POST', body: JSON.stringify({ model: 'm', input }), headers: { 'content-type': 'application/json' } });
      await response.json();
    }
  })));
}

async function langChain(url, rows) {
  const found = {};
  try {
    const { OllamaEmbeddings } = await import('@langchain/ollama');
    found['LangChain OllamaEmbeddings'] = (round) => documents(new OllamaEmbeddings({ model: 'm', baseUrl: url }), round);
  } catch (error) {
    console.error(`LangChain's OllamaEmbeddings cannot run: ${error.message}`);
  }
  try {
    const { OpenAIEmbeddings } = await import('@langchain/openai');
    found['LangChain OpenAIEmbeddings'] = (round) => documents(new OpenAIEmbeddings({ model: 'm', apiKey: 'none', configuration: { baseURL: `${url}/v1` } }), round);
  } catch (error) {
    console.error(`LangChain's OpenAIEmbeddings cannot run: ${error.message}`);
  }
  return found;

  function documents(embeddings, round) {
    const texts = Array.from({ length: rows }, (_, i) => `document ${i} of round ${round}: reads a request, checks it and answers what is known`);
    return seconds(() => embeddings.embedDocuments(texts));
  }
}

async function seconds(work) {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

async function best(rounds, work) {
  let best = Infinity;
  for (let round = 0; round < rounds; round++) best = Math.min(best, await seconds(work));
  return best;
}
