// findSimilar among many vectors: how many of the ten nearest it finds, against a comparison with all, and how long it takes.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { count, main, vectors } from './lib.mjs';

const usage = `node benchmark/near.mjs [--entries N] [--queries N] [--disk]

  --entries N   vectors of 384 values (default 100000)
  --queries N   searches (default 200)
  --disk        in a file instead of in memory`;

const DIMENSIONS = 384;
const LIMIT = 10;

const { clusters, random } = vectors(DIMENSIONS);

function normalized(vector) {
  const norm = Math.hypot(...vector);
  return vector.map((value) => value / norm);
}

function exact(all, query) {
  const scored = all.map((vector, n) => {
    let dot = 0;
    for (let i = 0; i < DIMENSIONS; i++) dot += vector[i] * query[i];
    return [dot, n];
  });
  return scored.sort((a, b) => b[0] - a[0]).slice(0, LIMIT).map(([, n]) => n);
}

main(async () => {
  const { values } = parseArgs({
    options: {
      entries: { type: 'string', default: '100000' },
      queries: { type: 'string', default: '200' },
      disk: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return console.log(usage);
  const entries = count(values.entries, '--entries');
  const queries = count(values.queries, '--queries');
  const { default: embedcore } = await import('../dist/index.js');
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-near-'));
  try {
    for (const [name, make] of [['clustered', clusters()], ['random', random]]) {
      const all = Array.from({ length: entries }, () => normalized(make()));
      const asked = Array.from({ length: queries }, () => normalized(make()));
      const expected = asked.map((query) => exact(all, query));
      const place = values.disk ? { persistPath: join(directory, `${name}.db`) } : { maxEntries: entries, maxMemoryMB: 65536 };
      const cache = new embedcore.IntelligentEmbeddingCache({ ...place, enableContentValidation: false });
      for (let at = 0; at < entries; at += 1000) {
        await cache.setMany(all.slice(at, at + 1000).map((embedding, i) => ({ key: String(at + i), content: '', embedding })));
      }
      await cache.flush();
      let started = performance.now();
      await cache.findSimilar(asked[0], { threshold: -1, limit: LIMIT });
      const first = performance.now() - started;
      const times = [];
      let found = 0;
      for (const [i, query] of asked.entries()) {
        started = performance.now();
        const near = await cache.findSimilar(query, { threshold: -1, limit: LIMIT });
        times.push(performance.now() - started);
        found += near.filter(({ key }) => expected[i].includes(Number(key))).length;
      }
      times.sort((a, b) => a - b);
      const at = (share) => times[Math.floor(times.length * share)].toFixed(2);
      console.log(
        `${name.padEnd(10)} ${entries} × ${DIMENSIONS}${values.disk ? ' on disk' : ''}: recall@${LIMIT} ${(found / queries / LIMIT).toFixed(4)}, ` +
          `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms; the first search ${first.toFixed(0)} ms`,
      );
      await cache.close();
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
