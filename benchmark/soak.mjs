// Ten million operations on one cache, memory and disk, many more keys than either holds: memory must stay flat.

import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { PlainError, count, main } from './lib.mjs';

const usage = `node benchmark/soak.mjs [--operations N]

  --operations N   entries looked up, set or deleted, in all (default 10000000)`;

const KEYS = 200_000;
const DIMENSIONS = 64;
const MANY = 500;

/** Growth from the first tenth to the end that is no leak: allocators and V8 keep what they once had. */
const SLACK_MB = 48;

main(async () => {
  const { values } = parseArgs({
    options: { operations: { type: 'string', default: '10000000' }, help: { type: 'boolean', default: false } },
  });
  if (values.help) return console.log(usage);
  const operations = count(values.operations, '--operations');
  const { default: embedcore } = await import('../dist/index.js');
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-soak-'));
  const persistPath = join(directory, 'cache.db');
  const cache = new embedcore.IntelligentEmbeddingCache({ persistPath, maxDiskMB: 64, maxEntries: 20_000, maxMemoryMB: 16, ttlSeconds: 60 });
  let seed = 1;
  const random = (below) => (seed = (seed * 48_271) % 2_147_483_647) % below;
  const entry = () => {
    const n = random(KEYS);
    return { key: `key ${n}`, content: `content ${n % 7 === 0 ? random(2) : 0} of ${n}`, n };
  };
  const vector = (n) => Float32Array.from({ length: DIMENSIONS }, (_, i) => n + i);
  const samples = [];
  const started = performance.now();
  try {
    let wrong = 0;
    for (let done = 0, tenth = 0; done < operations; ) {
      const several = Array.from({ length: MANY }, entry);
      const found = await cache.getMany(several);
      found.hits.forEach((hit, i) => (wrong += hit && found.row(i)[1] !== several[i].n + 1 ? 1 : 0));
      const missing = several.filter((_, i) => !found.hits[i]);
      await cache.setMany(missing.map((one) => ({ ...one, embedding: vector(one.n) })));
      for (let i = 0; i < 20; i++) {
        const one = entry();
        if (i < 10) await cache.get(one.key, one.content);
        else if (i < 15) await cache.set(one.key, one.content, vector(one.n), { metadata: { n: one.n } });
        else if (i < 18) await cache.delete(one.key);
        else await cache.has(one.key, one.content);
      }
      done += MANY + missing.length + 20;
      if (done >= (operations * (tenth + 1)) / 10) {
        tenth++;
        await cache.optimize();
        await cache.findSimilar(vector(random(KEYS)));
        globalThis.gc?.();
        samples.push(process.memoryUsage.rss() / 2 ** 20);
        const { hitRatio, disk } = cache.getStats();
        console.log(
          `${(done / 1e6).toFixed(1)} million: RSS ${samples.at(-1).toFixed(0)} MB, file ${(statSync(persistPath).size / 2 ** 20).toFixed(0)} MB, ` +
            `${(hitRatio * 100).toFixed(0)} % hits, ${disk.errors} errors, ${((performance.now() - started) / 1000).toFixed(0)} s`,
        );
      }
    }
    await cache.close();
    if (wrong > 0) throw new PlainError(`${wrong} answers were wrong.`);
    const grown = samples.at(-1) - samples[0];
    console.log(`grown by ${grown.toFixed(0)} MB since the first tenth`);
    if (grown > SLACK_MB) throw new PlainError('Memory is not flat.');
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
