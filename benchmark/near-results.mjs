// InferenceCache with `semantic`: of prompts that mean the same, how many find the result of the other; of those that only
// look like it, how many do, too (false hits); and how long a lookup takes.

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { main } from './lib.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const usage = `node benchmark/near-results.mjs [--model DIR] [--threshold N]

  --model DIR     all-MiniLM-L6-v2 (default ../shared/models/minilm beside the repository; left out where it is not)
  --threshold N   least cosine (default: InferenceCache's own)`;

const fixture = (name) => JSON.parse(readFileSync(join(root, 'fixtures', name), 'utf8'));
const { development, heldOut } = fixture('near-pairs.json');
const everyday = fixture('near-everyday.json');
const { paraphrases, traps, moreTraps } = fixture('near-prompts.json');
const LISTS = [
  ['near-everyday.json, held out', everyday.heldOut],
  ['near-everyday.json, development', everyday.development],
  ['near-pairs.json, held out', heldOut],
  ['near-pairs.json, development', development],
  ['near-prompts.json', { same: paraphrases.map(([a, b]) => ['', a, b]), other: [...traps, ...moreTraps.map(([a, b]) => ['', a, b])] }],
];

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
    const cache = new embedcore.InferenceCache({ semantic });
    const answers = async (kept, asked) => {
      const params = { kept, asked };
      await cache.set(kept, kept, { params });
      return (await cache.get(asked, { params })) !== null;
    };
    console.log(name);
    for (const [list, { same, other }] of LISTS) {
      const [found, fooled] = [[], []];
      for (const [kind, a, b] of same) if (await answers(a, b)) found.push({ kind, a, b });
      for (const [kind, a, b] of other) if ((await answers(a, b)) || (await answers(b, a))) fooled.push({ kind, a, b });
      console.log(`  ${list}: true hits ${percent(found.length, same.length)}, false hits ${percent(fooled.length, other.length)}`);
      const kinds = [...new Set(same.map(([kind]) => kind))].filter(Boolean);
      const of = (kind) => `${kind} ${found.filter((one) => one.kind === kind).length}/${same.filter(([one]) => one === kind).length}`;
      if (kinds.length > 0) console.log(`    ${kinds.map(of).join(', ')}`);
      for (const { a, b } of fooled) console.log(`    false hit: ${a} | ${b}`);
      // What cosine alone gives at the threshold that lets as many pass.
      const alone = (await cosines(embed, same)).sort((a, b) => b - a)[found.length - 1];
      const passed = (await cosines(embed, other)).filter((cosine) => cosine >= alone).length;
      console.log(`    cosine alone, where as many pass (${alone.toFixed(3)}): false hits ${percent(passed, other.length)}`);
    }
    await cache.close();
    await lookups(embedcore, semantic);
    await embed.cleanup();
  }
});

/** Lookups among all these prompts, of prompts whose vectors are at hand. */
async function lookups({ InferenceCache }, { embed, ...others }) {
  const prompts = [...new Set(LISTS.flatMap(([, { same, other }]) => [...same, ...other]).flatMap(([, a, b]) => [a, b]))];
  const matrix = await embed.embed(prompts);
  const vectors = new Map(prompts.map((prompt, at) => [prompt, matrix.row(at)]));
  const cache = new InferenceCache({ semantic: { ...others, embed: (texts) => texts.map((text) => vectors.get(text)) } });
  for (const prompt of prompts.filter((_, at) => at % 2 === 0)) await cache.set(prompt, 1);
  const times = [];
  for (const prompt of prompts.filter((_, at) => at % 2 === 1)) {
    const start = performance.now();
    await cache.get(prompt);
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  console.log(`  a lookup among ${prompts.length - times.length} prompts, less the model's time: ${times[times.length >> 1].toFixed(3)} ms (median of ${times.length})`);
  await cache.close();
}

async function cosines(embed, pairs) {
  const matrix = await embed.embed(pairs.flatMap(([, a, b]) => [a, b]));
  return pairs.map((_, i) => {
    const [x, y] = [matrix.row(2 * i), matrix.row(2 * i + 1)];
    let [dot, xx, yy] = [0, 0, 0];
    for (let k = 0; k < x.length; k++) [dot, xx, yy] = [dot + x[k] * y[k], xx + x[k] ** 2, yy + y[k] ** 2];
    return dot / Math.sqrt(xx * yy);
  });
}

function percent(part, whole) {
  return `${((100 * part) / whole).toFixed(1)} % (${part} of ${whole})`;
}
