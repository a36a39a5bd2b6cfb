// What every script here shares: options, texts, the model laid out for its readers, child processes, figures.

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { availableParallelism, freemem, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

export const here = dirname(fileURLToPath(import.meta.url));
export const repoRoot = dirname(here);

/** A mistake of the caller, or something missing on this machine: shown as one plain line, without a stack. */
export class PlainError extends Error {}

/** Runs a script's main function; a `PlainError` ends the process with its message only. */
export async function main(run) {
  try {
    await run();
  } catch (error) {
    console.error(error instanceof PlainError ? error.message : error);
    process.exitCode = 1;
  }
}

const sharedOptions = {
  model: { type: 'string' },
  corpus: { type: 'string' },
  texts: { type: 'string', default: 'annotations' },
  rows: { type: 'string' },
  python: { type: 'string' },
  help: { type: 'boolean', default: false },
};

/** Command line to checked settings. `extra` adds parseArgs options; `usage` is printed for --help. */
export function readSettings(usage, { rows, ...extra } = {}) {
  let values;
  try {
    ({ values } = parseArgs({ options: { ...sharedOptions, ...extra } }));
  } catch (error) {
    throw new PlainError(`${error.message}\n\n${usage}`);
  }
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  return {
    ...values,
    model: directory(values.model, 'shared/models/minilm', '--model', 'an ONNX embedding model laid out as on the hub'),
    corpus: directory(values.corpus, 'shared/corpus', '--corpus', 'the texts (annotations.jsonl, short.jsonl, mixed.jsonl)'),
    rows: count(values.rows ?? rows, '--rows'),
  };
}

/** A whole number of at least 1, or a plain refusal that names the option. */
export function count(text, option) {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1) {
    throw new PlainError(`${option} must be a whole number of at least 1, not "${text}".`);
  }
  return number;
}

function directory(given, besideRepo, option, what) {
  const path = resolve(given ?? join(repoRoot, '..', besideRepo));
  if (!existsSync(path)) {
    throw new PlainError(given
      ? `${option}: there is no directory ${path}.`
      : `Pass ${option} DIR: the directory of ${what}.`);
  }
  return path;
}

/**
 * `rows` texts spread evenly over the file, so that no project or length dominates a small sample.
 * `reference` holds their expected vectors, or is null where the corpus has none.
 */
export function loadTexts({ corpus, texts: name, rows }) {
  const file = join(corpus, `${name}.jsonl`);
  if (!existsSync(file)) {
    const known = readdirSync(corpus).filter((f) => f.endsWith('.jsonl')).map((f) => f.slice(0, -'.jsonl'.length));
    throw new PlainError(`--texts ${name}: not in the corpus, which has ${known.join(', ') || 'no .jsonl files'}.`);
  }
  const lines = readFileSync(file, 'utf8').split('\n').filter(Boolean);
  const taken = Math.min(rows, lines.length);
  const indices = Array.from({ length: taken }, (_, i) => Math.floor((i * lines.length) / taken));
  return {
    texts: indices.map((i) => JSON.parse(lines[i]).text),
    reference: loadReference(join(corpus, `${name}.reference.f32`), lines.length, indices),
  };
}

function loadReference(file, fileRows, indices) {
  if (!existsSync(file)) return null;
  const all = floats(readFileSync(file));
  const dimensions = all.length / fileRows;
  return indices.map((i) => all.subarray(i * dimensions, (i + 1) * dimensions));
}

/** Little-endian float32 bytes as numbers. Copied, because a Buffer may start off the 4-byte grid. */
const floats = (bytes) => new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));

/** Cosine of each row with the reference: `{ min, mean }`, or null where the two cannot be compared. */
export function compareVectors(vectors, reference) {
  if (!reference || vectors.length !== reference.length * reference[0].length) return null;
  const dimensions = reference[0].length;
  const cosines = reference.map((expected, row) => cosine(vectors.subarray(row * dimensions, (row + 1) * dimensions), expected));
  return { min: Math.min(...cosines), mean: cosines.reduce((sum, c) => sum + c, 0) / cosines.length };
}

function cosine(a, b) {
  let dot = 0;
  let aa = 0;
  let bb = 0;
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return dot / Math.sqrt(aa * bb);
}

/** Numbers from 0 to 1, the same ones every time. */
export function uniform() {
  let seed = 1;
  return () => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;
}

/** Makers of vectors, the same ones every time: random ones, and such as a model makes. */
export function vectors(dimensions) {
  const next = uniform();
  const normal = () => Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next());
  const random = () => Float32Array.from({ length: dimensions }, normal);
  /** Like embeddings: around a thousand topics of different width, all of them shifted to one side. */
  const clusters = () => {
    const shift = random();
    const centers = Array.from({ length: 1000 }, random);
    return () => {
      const center = centers[Math.floor(next() * centers.length)];
      const width = 0.3 + 0.5 * next();
      return center.map((value, i) => value + 0.7 * shift[i] + width * normal());
    };
  };
  return { clusters, random };
}

export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Everything that `measure` needs beside the contender: settings, texts, the model as each peer wants it. */
export function setUp(settings) {
  const workshop = temporaryDirectory();
  return { ...settings, ...loadTexts(settings), workshop, laidOut: layOutModel(settings.model, join(workshop, 'models')) };
}

/** Goes when the process ends, Ctrl-C included. */
export function temporaryDirectory(parent = tmpdir()) {
  const path = mkdtempSync(join(parent, 'embedcore-benchmark-'));
  process.on('exit', () => rmSync(path, { recursive: true, force: true }));
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(130));
  return path;
}

/**
 * The model as the two transformers.js generations want it: `<directory>/model/…`, links to the real files.
 * They cut texts at `model_max_length`, which many tokenizers leave above what the model was made for; the copy here
 * says what sentence_bert_config.json says, so that every contender reads the same tokens.
 */
export function layOutModel(modelDir, directory) {
  const copy = join(directory, 'model');
  mkdirSync(copy, { recursive: true });
  for (const name of readdirSync(modelDir)) {
    if (name !== 'tokenizer_config.json') symlinkSync(join(modelDir, name), join(copy, name));
  }
  const maxLength = readJson(join(modelDir, 'sentence_bert_config.json')).max_seq_length;
  const tokenizer = readJson(join(modelDir, 'tokenizer_config.json'));
  writeFileSync(join(copy, 'tokenizer_config.json'), JSON.stringify({ ...tokenizer, model_max_length: maxLength }));
  return { localModelPath: directory, modelId: 'model', maxLength };
}

export function readJson(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new PlainError(`Cannot read ${file}: ${error.message}`);
  }
}

/**
 * Measures one contender once, in a fresh process: `{ textsPerSecond, textsPerCpuSecond, firstSeconds, peakRssMB, cosine, exit }`. A contender that
 * cannot run throws a PlainError with the last line of what it said.
 */
export async function measure(contender, { model, texts, reference, python, workshop, laidOut }) {
  if (contender.needsMB && freemem() < contender.needsMB * MB) {
    throw new PlainError(`needs about ${contender.needsMB} MB of free memory, this machine has ${Math.round(freemem() / MB)}`);
  }
  const vectorsFile = join(workshop, 'vectors.f32');
  const resultFile = join(workshop, 'result.json');
  const jobFile = join(workshop, 'job.json');
  rmSync(resultFile, { force: true });
  writeFileSync(jobFile, JSON.stringify({
    contender: contender.file,
    settings: contender.settings ?? {},
    modelDir: model,
    ...laidOut,
    // Marked, so that no cache can answer a measured text from the warm-up.
    warmUp: texts.slice(0, 32).map((text) => `warm-up ${text}`),
    texts,
    vectorsFile,
    resultFile,
  }));

  const command = contender.file.endsWith('.py')
    ? [python ?? defaultPython(), join(here, 'contenders', contender.file), jobFile]
    : [process.execPath, join(here, 'child.mjs'), jobFile];
  const { exit, stderr } = await run([...onTwoCores(), ...command]);
  if (!existsSync(resultFile)) throw new PlainError(whyItFailed(exit, stderr));

  const { seconds, firstSeconds, cpuSeconds, peakRssMB } = readJson(resultFile);
  return {
    textsPerSecond: texts.length / seconds,
    textsPerCpuSecond: texts.length / cpuSeconds,
    firstSeconds,
    peakRssMB,
    cosine: compareVectors(floats(readFileSync(vectorsFile)), reference),
    exit,
  };
}

const MB = 1024 * 1024;

function run([program, ...args]) {
  return new Promise((done) => {
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let stderr = '';
    child.stderr.on('data', (chunk) => { stderr = (stderr + chunk).slice(-8000); });
    const stop = () => child.kill();
    process.once('exit', stop);
    child.on('error', (error) => done({ exit: error.code, stderr: `cannot start ${program}: ${error.message}` }));
    child.on('close', (code, signal) => {
      process.off('exit', stop);
      done({ exit: signal ?? code, stderr });
    });
  });
}

/** Errors of Node and Python name themselves on one line among stack frames. */
function whyItFailed(exit, stderr) {
  if (exit === 'SIGKILL') return 'was killed (SIGKILL): most likely out of memory';
  const lines = stderr.split('\n').map((line) => line.trim()).filter(Boolean);
  const said = lines.findLast((line) => /^(\w*Error|\w*Exception)\b.*:/.test(line)) ?? lines.at(-1) ?? 'nothing on stderr';
  return `ended with ${exit}: ${said.replaceAll(repoRoot, '.')}`;
}

function defaultPython() {
  const ours = join(here, '.venv', 'bin', 'python');
  return existsSync(ours) ? ours : 'python3';
}

/**
 * Everybody gets two threads. Most contenders take a setting; this covers those that only count the cores. The cores
 * are the first two that this process may use, which a container need not number from 0.
 */
function onTwoCores() {
  if (availableParallelism() <= 2 || process.platform !== 'linux') return [];
  const allowed = /^Cpus_allowed_list:\s*(.+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))[1];
  const cores = allowed.split(',').flatMap((range) => {
    const [first, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
  return ['taskset', '-c', cores.slice(0, 2).join(',')];
}
