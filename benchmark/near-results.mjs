// InferenceCache with `semantic`: of prompts that mean the same, how many find the result of the other; of those that only
// look like it, how many do, too (false hits). The gate's lists were made for one half of the pairs; the other was held out.

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { main } from './lib.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const usage = `node benchmark/near-results.mjs [--model DIR] [--threshold N]

  --model DIR     all-MiniLM-L6-v2 (default ../shared/models/minilm beside the repository; left out where it is not)
  --threshold N   least cosine (default: InferenceCache's own)`;

const { paraphrases, traps } = JSON.parse(readFileSync(join(root, 'fixtures', 'near-prompts.json'), 'utf8'));
const HALVES = [['made for', 0], ['held out', 1]];

main(async () => {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: join(root, '..', 'shared', 'models', 'minilm') },
      threshold: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return console.log(usage);
  const { default: embedcore } = await import('../dist/index.js');
  const models = [['built-in', undefined]];
  if (existsSync(values.model)) models.unshift(['MiniLM', values.model]);
  for (const [name, modelPath] of models) {
    const embed = new embedcore.OptimizedEmbeddingGenerator(modelPath ? { modelPath } : {});
    await embed.initialize();
    const semantic = { embed, ...(values.threshold !== undefined && { threshold: Number(values.threshold) }) };
    const found = async (pairs) => {
      const hits = [];
      for (const [a, b] of pairs) {
        const cache = new embedcore.InferenceCache({ semantic });
        await cache.set(a, a);
        hits.push((await cache.get(b)) !== null);
        await cache.close();
      }
      return hits;
    };
    const same = await found(paraphrases);
    const other = await found(traps.map(([, a, b]) => [a, b]));
    // What cosine alone gives at the threshold that lets as many paraphrases pass.
    const cosines = async (pairs) => {
      const { row } = await embed.embed(pairs.flat()).then((matrix) => ({ row: (i) => matrix.row(i) }));
      return pairs.map((_, i) => {
        const [x, y] = [row(2 * i), row(2 * i + 1)];
        let [dot, xx, yy] = [0, 0, 0];
        for (let k = 0; k < x.length; k++) [dot, xx, yy] = [dot + x[k] * y[k], xx + x[k] ** 2, yy + y[k] ** 2];
        return dot / Math.sqrt(xx * yy);
      });
    };
    const count = (hits) => hits.filter(Boolean).length;
    console.log(`${name}: recall ${percent(count(same), same.length)}, false hits ${count(other)} of ${other.length}`);
    for (const [half, rest] of HALVES) {
      const of = (hits) => hits.filter((_, i) => i % 2 === rest);
      console.log(`  ${half}: recall ${percent(count(of(same)), of(same).length)}, false hits ${count(of(other))} of ${of(other).length}`);
    }
    const alone = (await cosines(paraphrases)).sort((a, b) => b - a)[count(same) - 1];
    const fooled = (await cosines(traps.map(([, a, b]) => [a, b]))).filter((cosine) => cosine >= alone).length;
    console.log(`  cosine alone, where as many paraphrases pass (${alone.toFixed(3)}): false hits ${fooled} of ${other.length}`);
    await embed.cleanup();
  }
});

function percent(part, whole) {
  return `${((100 * part) / whole).toFixed(1)} % (${part} of ${whole})`;
}
