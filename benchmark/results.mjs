// InferenceCache: what it saves when two thirds of the calls of a slow function are repeated, and what a hit costs.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { count, main } from './lib.mjs';

const usage = `node benchmark/results.mjs [--calls N] [--entries N]

  --calls N     calls of a function that takes 20 ms, of which 66 % were made before (default 300)
  --entries N   results in the file (default 20000)`;

const prompt = (i) => `Summarise the release notes of version ${i}, ${'with all that changed for its users, '.repeat(10)}in short.`;
const answer = (i) => ({ id: i, choices: [{ message: { role: 'assistant', content: `Version ${i} ${'is better. '.repeat(60)}` } }] });

const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];

async function times(work, n) {
  const taken = [];
  for (let i = 0; i < n; i++) {
    const started = performance.now();
    await work(i);
    taken.push(performance.now() - started);
  }
  return taken.sort((a, b) => a - b);
}

const show = (name, taken) =>
  console.log(`${name.padEnd(34)} p50 ${(quantile(taken, 0.5) * 1000).toFixed(1).padStart(8)} µs   p99 ${(quantile(taken, 0.99) * 1000).toFixed(1).padStart(8)} µs`);

main(async () => {
  const { values } = parseArgs({
    options: { calls: { type: 'string', default: '300' }, entries: { type: 'string', default: '20000' }, help: { type: 'boolean', default: false } },
  });
  if (values.help) return console.log(usage);
  const calls = count(values.calls, '--calls');
  const entries = count(values.entries, '--entries');
  const { default: embedcore } = await import('../dist/index.js');
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-results-'));
  try {
    // Two of three were asked before.
    const asked = (i) => (i % 100 < 66 ? i % 50 : 1_000_000 + i);
    const slow = async (text) => {
      await sleep(20);
      return answer(text.length);
    };
    for (const persistPath of [undefined, join(directory, 'warm.db')]) {
      const cache = new embedcore.InferenceCache(persistPath ? { persistPath } : {});
      for (let i = 0; i < 50; i++) await cache.getOrCompute(prompt(i), {}, () => answer(i));
      const run = async (call) => {
        const started = performance.now();
        for (let i = 0; i < calls; i++) await call(prompt(asked(i)));
        return performance.now() - started;
      };
      const uncached = await run(slow);
      const cached = await run((text) => cache.getOrCompute(text, {}, () => slow(text)));
      console.log(
        `${calls} calls of 20 ms, 66 % repeated, ${persistPath ? 'on disk' : 'in memory'}: ` +
          `${uncached.toFixed(0)} ms without, ${cached.toFixed(0)} ms with: ${(uncached / cached).toFixed(2)} × faster`,
      );
      await cache.close();
    }
    const persistPath = join(directory, 'entries.db');
    let cache = new embedcore.InferenceCache({ persistPath });
    const set = await times((i) => cache.set(prompt(i), answer(i)), entries);
    await cache.close();
    cache = new embedcore.InferenceCache({ persistPath, maxEntries: entries });
    await cache.get('the first call waits for the file to be opened');
    const some = Math.min(2000, entries);
    const random = Array.from({ length: some }, (_, i) => (i * 7919) % entries);
    const disk = await times((i) => cache.get(prompt(random[i])), some);
    const memory = await times((i) => cache.get(prompt(random[i])), some);
    const miss = await times((i) => cache.get(`${prompt(i)}?`), some);
    console.log(`\n${entries} results of ${JSON.stringify(answer(1)).length} bytes, prompts of ${prompt(1).length}:`);
    show('set', set);
    show('a hit from memory', memory);
    show('a hit from disk', disk);
    show('a miss', miss);
    await cache.close();
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
