// Reranking, late interaction and tables of vectors against what a user would pick instead. `node benchmark/rerank.mjs --help`.

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { bytes, fieldsOf, GRAPH_INITIALIZER, GRAPH_NODE, GRAPH_OUTPUT, MODEL_GRAPH, text, whole } from './graph.mjs';
import { compareVectors, count, loadTexts, main, median, readJson, readSettings, temporaryDirectory } from './lib.mjs';

const usage = `node benchmark/rerank.mjs [--model DIR] [--corpus DIR] [--texts NAME] [--rows N] [--rounds N] [--only PARTS] [--python PYTHON]

1. A cross-encoder of six layers, 384 wide (those of the model directory under a head of random weights: what it takes depends on
   no weight), scores 100 documents of 128 tokens for a query; transformers.js does so in batches of 1, 8, 16, 32 and 100, each in turns
   with embedcore, in fresh processes. Of each batch size the median of its turns counts, and of all sizes the best.
2. maxSim of a query of 32 vectors over 1,000 documents of 180 vectors, 128 wide.
3. A table of vectors (30,522 × 256, random) embeds N (default 5,000) texts of the corpus; so does model2vec, where PYTHON has it. Beside
   it, what its tokenizer takes alone: as the package tokenizers of PYTHON runs it, on all cores, and as countTokens does.
--rounds: 3. --only: some of rerank, maxsim and table, with commas between.`;

const QUERY = 'how is a file of settings read and checked?';
const DOCUMENTS = 100;
const TOKENS = 128;
const BATCHES = [1, 8, 16, 32, 100];
const TABLE = { rows: 30_522, width: 256 };

/** What model2vec does, after a first time. */
const MODEL2VEC = `import json, sys, time
from model2vec import StaticModel
model = StaticModel.from_pretrained(sys.argv[1])
texts = json.load(open(sys.argv[2]))
encode = lambda: model.encode(texts, use_multiprocessing=False)
encode()
started = time.perf_counter()
vectors = encode()
print(time.perf_counter() - started)
vectors.astype("<f4").tofile(sys.argv[3])`;

/** What the tokenizer does alone, on all cores, after a first time. */
const TOKENIZE = `import json, sys, time
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
tokenizer.no_padding()
tokenizer.no_truncation()
texts = json.load(open(sys.argv[2]))
encode = lambda: tokenizer.encode_batch_fast(texts, add_special_tokens=False)
encode()
started = time.perf_counter()
encode()
print(time.perf_counter() - started)`;

const embedcore = () => createRequire(import.meta.url)('..');

await main(async () => {
  if (process.env.RERANK_CHILD) return child(JSON.parse(process.env.RERANK_CHILD));
  const settings = readSettings(usage, { rows: '5000', rounds: { type: 'string', default: '3' }, only: { type: 'string', default: 'rerank,maxsim,table' } });
  const rounds = count(settings.rounds, '--rounds');
  const directory = temporaryDirectory();
  try {
    const only = settings.only.split(',');
    if (only.includes('rerank')) crossEncoders(settings, rounds, directory);
    if (only.includes('maxsim')) await lateInteraction(rounds);
    if (only.includes('table')) tables(settings, rounds, directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

/** What a process of its own does for `job`. */
function inChild(job) {
  const env = { ...process.env, RERANK_CHILD: JSON.stringify(job) };
  return JSON.parse(execFileSync(process.execPath, [fileURLToPath(import.meta.url)], { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }));
}

async function child(job) {
  console.log(JSON.stringify(await { embedcore: scoreHere, transformers: scoreThere, table: embedHere }[job.kind](job)));
}

/** Seconds that `work` takes after a first time, and what it gives. */
async function timed(work) {
  await work();
  const started = performance.now();
  const result = await work();
  return { seconds: (performance.now() - started) / 1000, result };
}

function show(seconds) {
  return `${(seconds * 1000).toFixed(1)} ms`;
}

function crossEncoders({ model }, rounds, directory) {
  const modelId = 'cross-encoder';
  layOutCrossEncoder(model, join(directory, modelId));
  const documents = documentsOf(join(model, 'tokenizer.json'));
  const job = { directory, modelId, documents };
  const ours = [];
  const theirs = new Map(BATCHES.map((size) => [size, { seconds: [], ratios: [] }]));
  let difference = 0;
  for (let round = 0; round < rounds; round++) {
    for (const [size, { seconds, ratios }] of theirs) {
      const own = inChild({ ...job, kind: 'embedcore' });
      const other = inChild({ ...job, kind: 'transformers', size });
      if (other.missing) return console.log(`Reranking: embedcore ${show(own.seconds)}; transformers.js was skipped: ${other.missing}`);
      ours.push(own.seconds);
      seconds.push(other.seconds);
      ratios.push(other.seconds / own.seconds);
      difference = other.result.reduce((most, score, at) => Math.max(most, Math.abs(score - own.result[at])), difference);
    }
  }
  console.log(`Reranking ${DOCUMENTS} documents of ${TOKENS} tokens, six layers, median of ${rounds}:`);
  console.log(`  embedcore ${show(median(ours))}`);
  for (const [size, { seconds, ratios }] of theirs) {
    console.log(`  transformers.js, batches of ${size}: ${show(median(seconds))}, ${median(ratios).toFixed(2)} × as long (${ratios.map((ratio) => ratio.toFixed(2)).join(', ')})`);
  }
  const best = Math.min(...[...theirs.values()].map(({ ratios }) => median(ratios)));
  console.log(`  embedcore is ${best.toFixed(2)} × as fast as the best of them; largest difference of a score ${difference.toExponential(1)}`);
}

async function scoreHere({ directory, modelId, documents }) {
  const { CrossEncoder } = embedcore();
  const encoder = new CrossEncoder({ modelPath: join(directory, modelId), activation: 'none', cache: false });
  await encoder.initialize();
  const pairs = documents.map((document) => [QUERY, document]);
  // As a user meets it: after some calls it knows which batches are fast here.
  for (let call = 0; call < 4; call++) await encoder.score(pairs);
  const { seconds, result } = await timed(() => encoder.score(pairs));
  await encoder.cleanup();
  return { seconds, result: Array.from(result) };
}

async function scoreThere({ directory, modelId, documents, size }) {
  let library;
  try {
    library = await import('@huggingface/transformers');
  } catch (error) {
    return { missing: error.message.split('\n')[0] };
  }
  const { AutoModelForSequenceClassification, AutoTokenizer, env } = library;
  env.allowRemoteModels = false;
  env.localModelPath = directory;
  const tokenizer = await AutoTokenizer.from_pretrained(modelId);
  const model = await AutoModelForSequenceClassification.from_pretrained(modelId, { dtype: 'fp32', device: 'cpu', session_options: { intraOpNumThreads: 2 } });
  const score = async () => {
    const scores = [];
    for (let from = 0; from < documents.length; from += size) {
      const batch = documents.slice(from, from + size);
      const inputs = tokenizer(batch.map(() => QUERY), { text_pair: batch, padding: true, truncation: true });
      const { logits } = await model(inputs);
      scores.push(...logits.data);
    }
    return scores;
  };
  await score();
  return timed(score);
}

/** Documents of as many tokens: words that are one each. */
function documentsOf(tokenizer) {
  const words = Object.keys(readJson(tokenizer).model.vocab).filter((word) => /^[a-z]{3,8}$/.test(word));
  const random = numbers(1);
  return Array.from({ length: DOCUMENTS }, () => Array.from({ length: TOKENS }, () => words[Math.floor(random() * words.length)]).join(' '));
}

async function lateInteraction(rounds) {
  const { maxSim } = embedcore();
  const [dimensions, rows, each] = [128, 1000, 180];
  const random = numbers(2);
  const unit = (vectors) => {
    const data = new Float32Array(vectors * dimensions);
    for (let at = 0; at < data.length; at += dimensions) {
      let squares = 0;
      for (let i = at; i < at + dimensions; i++) squares += (data[i] = random() - 0.5) ** 2;
      for (let i = at; i < at + dimensions; i++) data[i] /= Math.sqrt(squares);
    }
    return data;
  };
  const query = { data: unit(32), offsets: Uint32Array.of(0, 32), dimensions };
  const documents = { data: unit(rows * each), offsets: Uint32Array.from({ length: rows + 1 }, (_, row) => row * each), dimensions };
  const [found] = await maxSim(query, documents);
  let expected = 0;
  for (let q = 0; q < 32; q++) {
    let best = -Infinity;
    for (let d = found.index * each; d < (found.index + 1) * each; d++) {
      let dot = 0;
      for (let i = 0; i < dimensions; i++) dot += query.data[q * dimensions + i] * documents.data[d * dimensions + i];
      best = Math.max(best, dot);
    }
    expected += best;
  }
  const times = [];
  for (let call = 0; call < 4 * rounds; call++) {
    const started = performance.now();
    await maxSim(query, documents);
    times.push((performance.now() - started) / 1000);
  }
  console.log(`maxSim of 32 × ${dimensions} over ${rows} documents of ${each} vectors: median ${show(median(times))}, best ${show(Math.min(...times))}; off by ${Math.abs(found.score - expected).toExponential(1)}`);
}

function tables(settings, rounds, directory) {
  const path = join(directory, 'table');
  layOutTable(settings.model, path);
  const { texts } = loadTexts(settings);
  const file = join(directory, 'texts.json');
  writeFileSync(file, JSON.stringify(texts));
  const [ours, theirs, ratios, counts, alone] = [[], [], [], [], []];
  const vectors = ['ours.f32', 'theirs.f32'].map((name) => join(directory, name));
  for (let round = 0; round < rounds; round++) {
    const { seconds: own, counting } = inChild({ kind: 'table', path, file, out: vectors[0] });
    ours.push(own);
    counts.push(own / counting);
    const tokenizing = seconds(settings.python ?? 'python3', TOKENIZE, path, file);
    if (typeof tokenizing === 'number') alone.push(own / tokenizing);
    const other = seconds(settings.python ?? 'python3', MODEL2VEC, path, file, vectors[1]);
    if (typeof other === 'number') {
      theirs.push(other);
      ratios.push(other / own);
    } else if (round === 0) {
      console.log(`model2vec is skipped: ${other}`);
    }
  }
  const perSecond = (all) => (texts.length / median(all)).toFixed(0);
  console.log(`Table of ${TABLE.rows} × ${TABLE.width}, ${texts.length} texts, median of ${rounds}: embedcore ${perSecond(ours)} texts/s${theirs.length > 0 ? `, model2vec ${perSecond(theirs)}` : ''}`);
  if (alone.length > 0) console.log(`  embed takes ${median(alone).toFixed(2)} of the time that the package tokenizers takes for their tokens alone`);
  console.log(`  embed takes ${median(counts).toFixed(2)} × as long as countTokens`);
  if (theirs.length === 0) return;
  const [own, other] = vectors.map((path) => new Float32Array(new Uint8Array(readFileSync(path)).buffer));
  const rows = Array.from({ length: texts.length }, (_, row) => other.subarray(row * TABLE.width, (row + 1) * TABLE.width));
  console.log(`  embedcore is ${median(ratios).toFixed(2)} × as fast (${ratios.map((ratio) => ratio.toFixed(2)).join(', ')}); least cosine ${compareVectors(own, rows)?.min.toFixed(6)}`);
}

async function embedHere({ path, file, out }) {
  const { OptimizedEmbeddingGenerator } = embedcore();
  const texts = readJson(file);
  const generator = new OptimizedEmbeddingGenerator({ modelPath: path, cache: false });
  await generator.initialize();
  const { seconds, result } = await timed(() => generator.embed(texts));
  const { seconds: counting } = await timed(() => generator.countTokens(texts));
  writeFileSync(out, new Uint8Array(result.data.buffer, result.data.byteOffset, result.data.byteLength));
  await generator.cleanup();
  return { seconds, counting };
}

/** Seconds that a program of Python says that it took; or why it cannot. */
function seconds(python, code, ...values) {
  try {
    return Number(execFileSync(python, ['-c', code, ...values], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim().split('\n').at(-1));
  } catch (error) {
    return String(error.stderr ?? error.message).trim().split('\n').at(-1);
  }
}

/** A table of random vectors as model2vec lays it out. */
function layOutTable(model, path) {
  mkdirSync(path, { recursive: true });
  cpSync(join(model, 'tokenizer.json'), join(path, 'tokenizer.json'));
  writeFileSync(join(path, 'config.json'), JSON.stringify({ model_type: 'model2vec', architectures: ['StaticModel'], normalize: true, hidden_dim: TABLE.width, seq_length: 1000000 }));
  const random = numbers(3);
  const values = Float32Array.from({ length: TABLE.rows * TABLE.width }, () => random() - 0.5);
  const header = Buffer.from(JSON.stringify({ embeddings: { dtype: 'F32', shape: [TABLE.rows, TABLE.width], data_offsets: [0, values.byteLength] } }));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(header.length));
  writeFileSync(join(path, 'model.safetensors'), Buffer.concat([size, header, Buffer.from(values.buffer)]));
}

/** The layers of an encoder with one score for a pair on top, from the vector of its first token. */
function layOutCrossEncoder(model, path) {
  mkdirSync(join(path, 'onnx'), { recursive: true });
  for (const file of ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json']) cpSync(join(model, file), join(path, file));
  const config = readJson(join(model, 'config.json'));
  writeFileSync(join(path, 'config.json'), JSON.stringify({ ...config, architectures: ['BertForSequenceClassification'], id2label: { 0: 'LABEL_0' }, label2id: { LABEL_0: 0 } }));
  writeFileSync(join(path, 'onnx', 'model.onnx'), withScore(readFileSync(join(model, 'onnx', 'model.onnx')), config.hidden_size));
}

/** A graph whose output is `width` wide for each token, with a score for each text instead. */
function withScore(model, width) {
  const random = numbers(4);
  const weights = Float32Array.from({ length: width }, () => random() - 0.5);
  const initializer = (name, type, dims, data) => bytes(GRAPH_INITIALIZER, Buffer.concat([...dims.map((size) => whole(1, size)), whole(2, type), text(8, name), bytes(9, Buffer.from(data.buffer))]));
  const node = (operator, inputs, output, ...attributes) => bytes(GRAPH_NODE, Buffer.concat([...inputs.map((name) => text(1, name)), text(2, output), text(4, operator), ...attributes]));
  const axis = bytes(5, Buffer.concat([text(1, 'axis'), whole(3, 1), whole(20, 2)]));
  const size = (of) => bytes(1, of);
  const shape = Buffer.concat([size(text(2, 'batch')), size(whole(1, 1))]);
  const added = [
    initializer('score.first', 7, [], new BigInt64Array([0n])),
    initializer('score.weights', 1, [width, 1], weights),
    node('Gather', ['last_hidden_state', 'score.first'], 'score.vector', axis),
    node('MatMul', ['score.vector', 'score.weights'], 'logits'),
    bytes(GRAPH_OUTPUT, Buffer.concat([text(1, 'logits'), bytes(2, bytes(1, Buffer.concat([whole(1, 1), bytes(2, shape)])))])),
  ];
  const fields = fieldsOf(model).map(({ number, raw, body }) => {
    if (number !== MODEL_GRAPH) return raw;
    const kept = fieldsOf(body).filter((field) => field.number !== GRAPH_OUTPUT);
    return bytes(MODEL_GRAPH, Buffer.concat([...kept.map((field) => field.raw), ...added]));
  });
  return Buffer.concat(fields);
}

/** The same numbers from 0 to 1 every time (mulberry32). */
function numbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
