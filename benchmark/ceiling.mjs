// Does `memoryLimit` hold, and what does it cost? `node benchmark/ceiling.mjs --help`.

import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { openGenerator } from './contenders/embedcore.mjs';
import { contenders } from './contenders/index.mjs';
import { count, loadTexts, main, measure, readSettings, setUp, temporaryDirectory } from './lib.mjs';

const usage = `node benchmark/ceiling.mjs [--model DIR] [--corpus DIR] [--texts NAME] [--rows N] [--limit MB]

Streams 20 × N annotations through the built-in model and N (default 500) through MiniLM, in fresh processes: without a
limit, and with memoryLimit (default 512). Shows time, the process's peak memory, and the largest difference between the
vectors of the two. Then the peak of transformers.js in batches of 32, which knows no limit, on the same N texts. Linux only.`;

await main(async () => {
  if (process.env.CEILING_CHILD) return child(JSON.parse(process.env.CEILING_CHILD));
  const settings = readSettings(usage, { rows: 500, limit: { type: 'string', default: '512' } });
  const limit = count(settings.limit, '--limit');
  const { texts } = loadTexts(settings);
  const directory = temporaryDirectory();
  for (const [label, modelPath, rows] of [
    ['built-in', 'builtin', 20 * texts.length],
    ['MiniLM', settings.model, texts.length],
  ]) {
    const runs = [undefined, limit].map((memoryLimit, i) => {
      const vectors = join(directory, `${label}-${i}`);
      const told = { modelPath, memoryLimit, rows, vectors, settings };
      const out = execFileSync(process.execPath, [fileURLToPath(import.meta.url)], {
        env: { ...process.env, CEILING_CHILD: JSON.stringify(told) },
        encoding: 'utf8',
      });
      return { ...JSON.parse(out), memoryLimit, vectors: readFileSync(vectors) };
    });
    for (const { memoryLimit, seconds, peakMB, waitedMs } of runs) {
      const name = `${label}, ${rows} annotations, ${memoryLimit ? `limit ${memoryLimit} MB` : 'no limit'}`;
      console.log(`${name.padEnd(52)}${seconds.toFixed(1).padStart(7)} s  peak ${peakMB.toFixed(0).padStart(5)} MB  waited ${(waitedMs / 1000).toFixed(2)} s`);
    }
    const [a, b] = runs.map(({ vectors }) => new Float32Array(vectors.buffer, vectors.byteOffset, vectors.length / 4));
    console.log(`${''.padEnd(52)}largest difference of a value: ${a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0).toExponential(1)}`);
  }
  rmSync(directory, { recursive: true, force: true });
  const peer = contenders.find(({ name }) => name === 'transformers.js-32');
  const { peakRssMB } = await measure(peer, setUp(settings));
  console.log(`${`${peer.label}, ${texts.length} texts`.padEnd(52)}           peak ${peakRssMB.toFixed(0).padStart(5)} MB`);
});

/** One run, in a process of its own. Keeps a checksum of every vector: keeping them all would be the caller's memory. */
async function child({ modelPath, memoryLimit, rows, vectors, settings }) {
  const { texts } = loadTexts(settings);
  const generator = await openGenerator({ modelPath, ...(memoryLimit && { memoryLimit }) });
  function* annotations() {
    for (let i = 0; i < rows; i++) {
      yield { nodeId: `n${i}`, signature: `f${i}()`, summary: texts[i % texts.length], sourceSnippet: '' };
    }
  }
  const sums = new Float32Array(rows * 2);
  const started = performance.now();
  let at = 0;
  for await (const { embedding } of generator.stream(annotations())) {
    sums[at++] = embedding[at % embedding.length];
    sums[at++] = embedding.reduce((sum, value, i) => sum + value * ((i % 7) - 3), 0);
  }
  const seconds = (performance.now() - started) / 1000;
  const { waitedMs } = generator.getPerformanceMetrics().memoryProcessor;
  writeFileSync(vectors, sums);
  await generator.cleanup();
  const peakMB = Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
  console.log(JSON.stringify({ seconds, peakMB, waitedMs }));
}
