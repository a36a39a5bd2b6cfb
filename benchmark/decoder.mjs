// Does `memoryLimit` hold for a decoder of 600 million parameters? `node benchmark/decoder.mjs --help`.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

import { count, main, readSettings } from './lib.mjs';

const usage = `node benchmark/decoder.mjs --model DIR [--limits MB,MB…] [--rows N]

Loads the model that fixtures/large.py writes into DIR and embeds N (default 4) texts, each in a process of its own: without a limit,
and with each of the limits (default 1500,2000,2500). Shows what loading and embedding takes, and the process's peak memory; where
the limit is too low, how far the process got before it said so. Linux only.`;

await main(async () => {
  if (process.env.DECODER_CHILD) return child(JSON.parse(process.env.DECODER_CHILD));
  const settings = readSettings(usage, { rows: '4', limits: { type: 'string', default: '1500,2000,2500' } });
  for (const limit of [undefined, ...settings.limits.split(',').map((limit) => count(limit, '--limits'))]) {
    const job = { modelPath: settings.model, memoryLimit: limit, texts: settings.rows };
    const env = { ...process.env, DECODER_CHILD: JSON.stringify(job) };
    const { loaded, embedded, refused, peak } = JSON.parse(execFileSync(process.execPath, [fileURLToPath(import.meta.url)], { env, encoding: 'utf8' }));
    const name = limit === undefined ? 'no limit' : `limit ${limit} MB`;
    console.log(`${name.padEnd(16)} peak ${peak.toFixed(0).padStart(5)} MB  ${refused ?? `loaded in ${loaded.toFixed(1)} s, embedded in ${embedded.toFixed(1)} s`}`);
  }
});

async function child({ modelPath, memoryLimit, texts }) {
  const { OptimizedEmbeddingGenerator } = createRequire(import.meta.url)('..');
  const generator = new OptimizedEmbeddingGenerator({ modelPath, memoryLimit, cache: false, engine: 'onnxruntime' });
  const told = {};
  const timed = async (work) => {
    const started = performance.now();
    await work();
    return (performance.now() - started) / 1000;
  };
  try {
    told.loaded = await timed(() => generator.initialize());
    told.embedded = await timed(() => generator.embed(Array.from({ length: texts }, (_, n) => 'abcdefgh '.repeat(8 + n))));
  } catch (error) {
    told.refused = `${error.code}: ${error.message}`;
  }
  await generator.cleanup();
  told.peak = Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
  console.log(JSON.stringify(told));
}
