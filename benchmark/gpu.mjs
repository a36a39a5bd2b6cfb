// What is a graphics processor worth, and how much of it is used? `node benchmark/gpu.mjs --help`.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { pooled } from './graph.mjs';
import { compareVectors, count, loadTexts, main, median, PlainError, readSettings } from './lib.mjs';

const usage = `node benchmark/gpu.mjs [--provider cuda|webgpu|tensorrt-rtx|directml|coreml] [--model DIR] [--dtype fp32|fp16] [--corpus DIR]
                         [--texts NAME] [--rows N] [--rounds N] [--python PYTHON]

N texts (default 2000) on a device, in turns, each contender in a process of its own, medians of --rounds (3): embedcore as it comes, with
batchOptimizer: false, and with the best of three batch sizes, beside onnxruntime-node with the same texts and tokens, sorted, in batches
of 128 rows (32 with webgpu), whose vectors of tokens come to the processor, or which are pooled on the device; sentence-transformers end to end,
where PYTHON has it; and embedcore on the processor. The first pass over the texts is told beside the later ones, and so is one text alone.
embedcore uses the ONNX Runtime of ORT_DYLIB_PATH (see docs/gpu.md). Without a device it says so and ends.`;

const SIZES = [32, 64, 128];
const PASSES = 3;
const ALONE = 50;

const embedcore = () => createRequire(import.meta.url)('..');

await main(async () => {
  if (process.env.GPU_CHILD) {
    const job = JSON.parse(process.env.GPU_CHILD);
    return console.log(JSON.stringify(await { embedcore: here, floor: there }[job.kind](job)));
  }
  const settings = readSettings(usage, {
    rows: '2000',
    rounds: { type: 'string', default: '3' },
    provider: { type: 'string', default: 'cuda' },
    dtype: { type: 'string', default: 'fp32' },
  });
  const { provider, model, dtype } = settings;
  const rounds = count(settings.rounds, '--rounds');
  const card = await cardOf(model, provider);
  if (card === undefined) return;
  const graph = join(model, 'onnx', dtype === 'fp16' ? 'model_fp16.onnx' : 'model.onnx');
  if (!existsSync(graph)) throw new PlainError(`There is no ${graph}.`);
  const job = { model, corpus: settings.corpus, texts: settings.texts, rows: settings.rows, dtype, provider, graph };
  const ours = (options, call = {}) => ({ ...job, kind: 'embedcore', call, options: { executionProviders: [provider, 'cpu'], ...options } });
  const contenders = {
    'embedcore': ours({}),
    'embedcore, batchOptimizer: false': ours({ batchOptimizer: false }),
    ...Object.fromEntries(SIZES.map((batchSize) => [`embedcore, batchSize: ${batchSize}`, ours({ batchOptimizer: false }, { batchSize })])),
    'floor: onnxruntime-node, sorted': { ...job, kind: 'floor', pool: false },
    'floor: the same, pooled on the device': { ...job, kind: 'floor', pool: true },
    'embedcore on the processor': { ...job, kind: 'embedcore', options: { executionProviders: ['cpu'], engine: 'onnxruntime' } },
  };
  const found = {};
  for (let round = 0; round < rounds; round++) {
    const names = Object.keys(contenders);
    for (const name of round % 2 ? names.reverse() : names) {
      process.stderr.write(`\r\x1b[K${round + 1}/${rounds} ${name}`);
      try {
        (found[name] ??= []).push(inChild(contenders[name]));
      } catch (error) {
        process.stderr.write(`\r\x1b[K${name}: ${saidBy(error)}\n`);
        delete contenders[name];
      }
    }
  }
  process.stderr.write('\r\x1b[K');
  console.log(`${card}; ${provider}, ${dtype}, ${job.rows} texts (${settings.texts})`);
  const of = (name, what) => (found[name] ? median(found[name].map((each) => each[what])) : NaN);
  const floor = of('floor: the same, pooled on the device', 'perSecond');
  console.log(`${''.padEnd(40)}${['texts/s', 'of pooled', 'first pass', 'one alone', 'cosine'].map((head) => head.padStart(12)).join('')}`);
  for (const name of Object.keys(contenders)) {
    const cells = [
      Math.round(of(name, 'perSecond')).toLocaleString('en'),
      (of(name, 'perSecond') / floor).toFixed(2),
      `${(of(name, 'first') * of(name, 'perSecond') / job.rows).toFixed(2)} ×`,
      Number.isFinite(of(name, 'alone')) ? `${of(name, 'alone').toFixed(1)} ms` : '–',
      Number.isFinite(of(name, 'cosine')) ? of(name, 'cosine').toFixed(7) : '–',
    ];
    console.log(name.padEnd(40) + cells.map((cell) => cell.padStart(12)).join(''));
  }
  if (settings.python) console.log(sentenceTransformers(settings));
});

/** The device by its name, or `undefined` once it is said why there is none. */
async function cardOf(modelPath, provider) {
  const { doctor, OptimizedEmbeddingGenerator } = embedcore();
  const generator = new OptimizedEmbeddingGenerator({ modelPath, executionProviders: [provider, 'cpu'], monitor: false });
  try {
    await generator.initialize();
    await generator.cleanup();
  } catch (error) {
    console.log(`Skipped: ${error.message}`);
    return undefined;
  }
  const { devices } = await doctor();
  return devices.map(({ name, driver }) => (driver ? `${name} (driver ${driver})` : name)).join(', ') || 'a device without a name';
}

function inChild(job) {
  const env = { ...process.env, GPU_CHILD: JSON.stringify(job) };
  return JSON.parse(execFileSync(process.execPath, [fileURLToPath(import.meta.url)], { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }));
}

function saidBy(error) {
  const lines = String(error.stderr || error.message).trim().split('\n');
  return lines.find((line) => /^\w*Error\b/.test(line)) ?? lines.at(-1);
}

async function seconds(work) {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

/** What every contender measures: passes over all texts, of which the first is told apart, and one text alone. */
async function measured(pass, one, rows) {
  const first = await seconds(pass);
  const later = [];
  for (let i = 0; i < PASSES; i++) later.push(await seconds(pass));
  const alone = [];
  for (let i = 0; one && i < ALONE; i++) alone.push(1000 * (await seconds(one)));
  return { first, perSecond: rows / median(later), alone: one ? median(alone) : undefined };
}

async function here({ model, dtype, options, call, ...corpus }) {
  const { OptimizedEmbeddingGenerator } = embedcore();
  const { texts, reference } = loadTexts(corpus);
  const generator = new OptimizedEmbeddingGenerator({ modelPath: model, ...(dtype === 'fp16' && { dtype }), cache: false, monitor: false, stateDir: false, ...options });
  await generator.initialize();
  let data;
  const found = await measured(async () => ({ data } = await generator.embed(texts)), () => generator.embed([texts[0]]), texts.length);
  await generator.cleanup();
  return { ...found, cosine: compareVectors(data, reference)?.min };
}

async function there({ model, graph, dtype, provider, pool, ...corpus }) {
  const ort = await import('onnxruntime-node');
  const { OptimizedEmbeddingGenerator } = embedcore();
  const { texts, reference } = loadTexts(corpus);
  const tokenizer = new OptimizedEmbeddingGenerator({ modelPath: model, executionProviders: ['cpu'], engine: 'onnxruntime', monitor: false });
  await tokenizer.initialize();
  const { maxLength } = tokenizer.getModelInfo();
  // Cut as a tokenizer does, which keeps what ends a text.
  const cut = (ids) => (ids.length > maxLength ? [...ids.slice(0, maxLength - 1), ids.at(-1)] : [...ids]);
  const tokens = await Promise.all(texts.map(async (text, index) => ({ index, ids: cut((await tokenizer.tokenize(text)).ids) })));
  await tokenizer.cleanup();
  const half = dtype === 'fp16';
  const file = readFileSync(graph);
  const session = await ort.InferenceSession.create(pool ? pooled(file, half) : file, { executionProviders: [provider, 'cpu'] });
  const most = provider === 'webgpu' ? 32 : 128;
  const sorted = tokens.toSorted((one, other) => other.ids.length - one.ids.length);
  const vectors = [];
  const batch = async (rows) => {
    const longest = rows[0].ids.length;
    const fill = (value) => {
      const cells = new BigInt64Array(rows.length * longest);
      rows.forEach(({ ids }, row) => ids.forEach((id, at) => (cells[row * longest + at] = value(id))));
      return new ort.Tensor('int64', cells, [rows.length, longest]);
    };
    const feeds = Object.fromEntries(session.inputNames.filter((name) => name !== 'weights').map((name) => [name, fill({ input_ids: BigInt, attention_mask: () => 1n }[name] ?? (() => 0n))]));
    if (pool) {
      const weights = new Float32Array(rows.length * longest);
      rows.forEach(({ ids }, row) => weights.fill(1 / ids.length, row * longest, row * longest + ids.length));
      feeds.weights = new ort.Tensor('float32', weights, [rows.length, longest]);
    }
    const name = pool ? 'pooled' : 'last_hidden_state';
    const { data, dims } = (await session.run(feeds, [name]))[name];
    // What is not pooled on the device is only brought here: that is the floor.
    if (pool) rows.forEach(({ index }, row) => (vectors[index] = data.slice(row * dims[2], (row + 1) * dims[2])));
  };
  const pass = async () => {
    for (let at = 0; at < sorted.length; at += most) await batch(sorted.slice(at, at + most));
  };
  const found = await measured(pass, () => batch([tokens[0]]), texts.length);
  const joined = pool ? Float32Array.from(vectors.flatMap((vector) => [...vector])) : undefined;
  return { ...found, cosine: joined && compareVectors(joined, reference)?.min };
}

/** End to end, in batches of 32 and of 512; a line. */
function sentenceTransformers({ python, model, corpus, texts, rows, dtype }) {
  const program = `
import json, sys, time
from sentence_transformers import SentenceTransformer
texts = json.load(sys.stdin)
model = SentenceTransformer(${JSON.stringify(model)}, device="cuda")
${dtype === 'fp16' ? 'model.half()' : ''}
best = 0
for size in (32, 512):
    model.encode(texts, batch_size=size)
    started = time.perf_counter()
    model.encode(texts, batch_size=size)
    best = max(best, len(texts) / (time.perf_counter() - started))
print(round(best))`;
  try {
    const input = JSON.stringify(loadTexts({ corpus, texts, rows }).texts);
    return `sentence-transformers, its best batch: ${execFileSync(python, ['-c', program], { input, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] }).trim()} texts/s`;
  } catch (error) {
    return `sentence-transformers cannot run: ${saidBy(error)}`;
  }
}
