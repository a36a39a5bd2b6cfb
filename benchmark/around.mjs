// What is around embeddings, against what a user would take or write instead: splitting, nearest neighbours, k-means, a
// collection, and whether chunks cut by structure answer questions better than chunks of one length.

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { PlainError, count, here, layOutModel, main, median, readJson, repoRoot, temporaryDirectory, uniform, vectors } from './lib.mjs';

const usage = `node benchmark/around.mjs [--model DIR] [--only WORK,…] [--rounds N] [--files N] [--rows N] [--entries N]

  --model DIR   a sentence model laid out as on the hub (default ../shared/models/minilm)
  --only WORK   split, top-k, k-means, collection, questions, thresholds (default: all)
  --rounds N    how often contenders take turns (default 3)
  --files N     Markdown files to split, taken from node_modules, again and again if need be (default 2000)
  --rows N      vectors for top-k and k-means (default 10000)
  --entries N   entries of the collections (default 100000)`;

const DIMENSIONS = 384;
const K = 10;
const CLUSTERS = 50;
const BATCH = 5000;
const QUERIES = 200;
/** Of files and queries, those that slow contenders get: their times are scaled. */
const SAMPLE = 10;
const JS_QUERIES = 100;
/** Tokens that are left for the headings above a chunk. */
const HEADINGS = 32;

const rows = [];
const seconds = (value) => (value < 1 ? `${(value * 1000).toFixed(value < 0.01 ? 2 : 0)} ms` : `${value.toFixed(2)} s`);

/** Notes a result: what it is compared with, as how many times the first one, and what it should be. */
function note(work, contender, figure, { than = '', goal = '', good = undefined } = {}) {
  rows.push([work, contender, figure, than, goal, good === undefined ? '' : good ? 'yes' : 'no']);
  console.error(`  ${work}: ${contender}: ${figure} ${than}`);
}

function table() {
  const lines = [['work', 'contender', 'figure', 'embedcore is', 'goal', 'reached'], ...rows];
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  return lines.map((line) => line.map((cell, i) => cell.padEnd(widths[i])).join('  ').trimEnd()).join('\n');
}

/** Seconds of each contender in each round, in turns; what each gave last. A contender tells its own time, or is timed. */
async function inTurns(rounds, contenders) {
  const taken = Object.fromEntries(Object.keys(contenders).map((name) => [name, { times: [], result: undefined }]));
  for (let round = 0; round < rounds; round++) {
    for (const [name, run] of Object.entries(contenders)) {
      const started = performance.now();
      const result = await run(round);
      taken[name].times.push(result?.seconds ?? (performance.now() - started) / 1000);
      taken[name].result = result;
    }
  }
  const ours = taken[Object.keys(contenders)[0]].times;
  return Object.fromEntries(Object.entries(taken).map(([name, { times, result }]) => {
    const ratio = median(times.map((time, round) => time / ours[round]));
    return [name, { result, seconds: median(times), ratio, than: `${ratio.toFixed(1)} × as fast` }];
  }));
}

/** A package that may not be there. */
async function peer(name) {
  try {
    return await import(name);
  } catch (error) {
    console.error(`  ${name} is left out: ${error.message.split('\n')[0]}`);
    return undefined;
  }
}

const markdownIn = (directory) =>
  existsSync(directory)
    ? readdirSync(directory, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile() && entry.name.endsWith('.md'))
        .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
        .sort()
    : [];

async function split({ generator, laidOut, files: wanted, rounds }) {
  const work = `split ${wanted} Markdown files`;
  const found = [join(repoRoot, 'node_modules'), join(here, 'node_modules'), join(repoRoot, 'docs')].flatMap(markdownIn);
  const all = found.map((file) => readFileSync(file, 'utf8'));
  if (all.length === 0) throw new PlainError('There is no Markdown in node_modules: run npm ci');
  const texts = Array.from({ length: wanted }, (_, i) => all[i % all.length]);
  const sample = texts.filter((_, i) => i % SAMPLE === 0);
  const most = generator.getModelInfo().maxLength;
  console.error(`  ${all.length} different files, ${(texts.reduce((sum, text) => sum + text.length, 0) / 1e6).toFixed(1)} million characters`);
  const splitters = await peer('@langchain/textsplitters');
  const transformers = await peer('@huggingface/transformers');
  const contenders = { embedcore: () => generator.splitMany(sample, { format: 'markdown' }) };
  if (splitters && transformers) {
    transformers.env.localModelPath = laidOut.localModelPath;
    transformers.env.allowRemoteModels = false;
    const tokenizer = await transformers.AutoTokenizer.from_pretrained(laidOut.modelId);
    const lengthFunction = (text) => tokenizer.encode(text).length;
    const splitter = new splitters.MarkdownTextSplitter({ chunkSize: most, chunkOverlap: 0, lengthFunction });
    contenders['LangChain MarkdownTextSplitter'] = async () => {
      const chunks = [];
      for (const text of sample) chunks.push(await splitter.splitText(text));
      return chunks;
    };
  }
  await contenders.embedcore();
  const taken = await inTurns(rounds, contenders);
  const over = async (chunks) => (await generator.countTokens(chunks)).filter((tokens) => tokens > most).length;
  const started = performance.now();
  const ours = (await generator.splitMany(texts, { format: 'markdown' })).flat();
  const whole = (performance.now() - started) / 1000;
  const tooLong = await over(ours.map(({ text }) => text));
  note(work, 'embedcore', `${seconds(whole)}, ${ours.length} chunks`);
  note(work, 'embedcore', `${tooLong} over ${most} tokens`, { goal: '0', good: tooLong === 0 });
  for (const [name, { result, seconds: time, ratio, than }] of Object.entries(taken).slice(1)) {
    const chunks = result.flat();
    note(work, name, `${seconds(time * SAMPLE)} (every ${SAMPLE}th, scaled)`, { than, goal: '≥ 20 ×', good: ratio >= 20 });
    note(work, name, `${await over(chunks)} of ${chunks.length} over ${most} tokens`);
  }
}

/** Many vectors, one after the other. */
function matrixOf(make, n) {
  const data = new Float32Array(n * DIMENSIONS);
  for (let row = 0; row < n; row++) {
    const vector = make();
    const norm = Math.hypot(...vector);
    for (let i = 0; i < DIMENSIONS; i++) data[row * DIMENSIONS + i] = vector[i] / norm;
  }
  return data;
}

/** What one writes: all products, and a list of the best that is kept sorted. */
function topInLoops(queries, data, many) {
  const found = [];
  for (let query = 0; query < many; query++) {
    const best = [];
    for (let row = 0; row < data.length / DIMENSIONS; row++) {
      let dot = 0;
      for (let i = 0; i < DIMENSIONS; i++) dot += queries[query * DIMENSIONS + i] * data[row * DIMENSIONS + i];
      if (best.length === K && dot <= best[K - 1].dot) continue;
      let at = best.length;
      while (at > 0 && best[at - 1].dot < dot) at--;
      best.splice(at, 0, { dot, row });
      if (best.length > K) best.pop();
    }
    found.push(best.map(({ row }) => row));
  }
  return found;
}

async function topK({ embedcore, rows: n, rounds }) {
  const work = `top-${K} of ${n} queries in ${n} × ${DIMENSIONS}`;
  const make = vectors(DIMENSIONS).clusters();
  const [data, queries] = [matrixOf(make, n), matrixOf(make, n)];
  const [matrix, asked] = [data, queries].map((values) => new embedcore.EmbeddingMatrix(values, DIMENSIONS));
  const cache = new embedcore.IntelligentEmbeddingCache({ maxEntries: n, maxMemoryMB: 4096, enableContentValidation: false });
  for (let at = 0; at < n; at += 1000) {
    await cache.setMany(Array.from({ length: Math.min(1000, n - at) }, (_, i) => ({ key: String(at + i), content: '', embedding: matrix.row(at + i) })));
  }
  await cache.findSimilar(asked.row(0), { limit: K });
  await embedcore.topK(asked, matrix, K);
  const some = Math.min(JS_QUERIES, n);
  const taken = await inTurns(rounds, {
    embedcore: () => embedcore.topK(asked, matrix, K),
    'loops in JavaScript': () => {
      const started = performance.now();
      const found = topInLoops(queries, data, some);
      return { found, seconds: ((performance.now() - started) / 1000 / some) * n };
    },
    'findSimilar, one by one': async () => {
      for (let query = 0; query < n; query++) await cache.findSimilar(asked.row(query), { limit: K });
    },
  });
  await cache.close();
  const { result } = taken.embedcore;
  const { found } = taken['loops in JavaScript'].result;
  const same = found.every((places, query) => places.every((row) => result.indices.subarray(query * K, query * K + K).includes(row)));
  note(work, 'embedcore', `${seconds(taken.embedcore.seconds)}, ${same ? 'the same rows as the loops' : 'OTHER rows than the loops'}`, { goal: 'the same', good: same });
  for (const [name, least] of [['loops in JavaScript', 30], ['findSimilar, one by one', 2]]) {
    const { seconds: time, ratio, than } = taken[name];
    note(work, name, `${seconds(time)}${least === 30 ? ` (${some} queries, scaled)` : ''}`, { than, goal: `≥ ${least} ×`, good: ratio >= least });
  }
}

/** The sum of the squared distances to centroids that labels say. */
function inertia(data, labels, centroids) {
  let sum = 0;
  labels.forEach((label, row) => {
    for (let i = 0; i < DIMENSIONS; i++) sum += (data[row * DIMENSIONS + i] - centroids[label][i]) ** 2;
  });
  return sum;
}

async function kMeans({ embedcore, rows: n, rounds }) {
  const work = `k-means, ${n} × ${DIMENSIONS}, k = ${CLUSTERS}`;
  const data = matrixOf(vectors(DIMENSIONS).clusters(), n);
  const matrix = new embedcore.EmbeddingMatrix(data, DIMENSIONS);
  const lists = Array.from({ length: n }, (_, row) => Array.from(matrix.row(row)));
  const theirs = await peer('ml-kmeans');
  const found = { embedcore: [], 'ml-kmeans': [] };
  const contenders = {
    embedcore: async (seed) => {
      const { labels, centroids } = await embedcore.kMeans(matrix, CLUSTERS, { seed });
      found.embedcore.push(inertia(data, labels, Array.from({ length: CLUSTERS }, (_, at) => centroids.row(at))));
    },
  };
  if (theirs) {
    contenders['ml-kmeans'] = (seed) => {
      const { clusters, centroids } = theirs.kmeans(lists, CLUSTERS, { seed, initialization: 'kmeans++', maxIterations: 300 });
      found['ml-kmeans'].push(inertia(data, clusters, centroids.map((centroid) => centroid.centroid ?? centroid)));
    };
  }
  const taken = await inTurns(rounds, contenders);
  for (const [name, { seconds: time, ratio, than }] of Object.entries(taken)) {
    const shown = `${seconds(time)}, inertia ${median(found[name]).toFixed(1)}`;
    note(work, name, shown, name === 'embedcore' ? {} : { than, goal: '≥ 10 ×', good: ratio >= 10 });
  }
  if (theirs) {
    const less = median(found.embedcore) / median(found['ml-kmeans']);
    note(work, 'embedcore', `inertia ${less.toFixed(4)} of theirs`, { goal: '≤ 1', good: less <= 1 });
  }
}

/** Collections under one interface: `make(path)` → `{ add(from, to), query(vector), close() }`. */
async function stores(embedcore, data) {
  const row = (at) => data.subarray(at * DIMENSIONS, (at + 1) * DIMENSIONS);
  const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i);
  const made = {
    embedcore: async (path) => {
      const collection = new embedcore.EmbeddingCollection({ path: `${path}.db` });
      return {
        add: (from, to) => collection.upsert(range(from, to).map((at) => ({ id: `e${at}`, embedding: row(at), metadata: { n: at } }))),
        query: async (vector) => (await collection.query(vector, { limit: K })).map(({ id }) => id),
        close: () => collection.close(),
      };
    },
  };
  const lance = await peer('@lancedb/lancedb');
  if (lance) {
    made['LanceDB, flat'] = async (path) => {
      const db = await lance.connect(path);
      let table = (await db.tableNames()).includes('entries') ? await db.openTable('entries') : undefined;
      return {
        add: async (from, to) => {
          const records = range(from, to).map((at) => ({ id: `e${at}`, vector: Array.from(row(at)), n: at }));
          if (table) await table.add(records);
          else table = await db.createTable('entries', records);
        },
        query: async (vector) => (await table.vectorSearch(Array.from(vector)).distanceType('cosine').limit(K).toArray()).map(({ id }) => id),
        close: async () => {
          table?.close();
          db.close();
        },
      };
    };
  }
  const [sqlite, vec] = [await peer('better-sqlite3'), await peer('sqlite-vec')];
  if (sqlite && vec) {
    const works = () => {
      const db = new sqlite.default(':memory:');
      vec.load(db);
      db.close();
    };
    try {
      works();
      made['sqlite-vec'] = async (path) => {
        const db = new sqlite.default(`${path}.db`);
        vec.load(db);
        db.pragma('journal_mode = WAL');
        db.pragma('synchronous = NORMAL');
        db.exec(`CREATE VIRTUAL TABLE IF NOT EXISTS vectors USING vec0(embedding float[${DIMENSIONS}] distance_metric=cosine);
          CREATE TABLE IF NOT EXISTS entries (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, metadata TEXT NOT NULL);`);
        const [put, name] = [db.prepare('INSERT INTO vectors (rowid, embedding) VALUES (?, ?)'), db.prepare('INSERT INTO entries VALUES (?, ?, ?)')];
        const select = db.prepare(`SELECT id FROM vectors JOIN entries ON entries.row = vectors.rowid WHERE embedding MATCH ? AND k = ${K} ORDER BY distance`);
        return {
          add: async (from, to) =>
            db.transaction(() => {
              for (const at of range(from, to)) {
                put.run(BigInt(at + 1), Buffer.from(row(at).buffer, row(at).byteOffset, 4 * DIMENSIONS));
                name.run(at + 1, `e${at}`, JSON.stringify({ n: at }));
              }
            })(),
          query: async (vector) => select.all(Buffer.from(vector.buffer, vector.byteOffset, 4 * DIMENSIONS)).map(({ id }) => id),
          close: async () => db.close(),
        };
      };
    } catch (error) {
      console.error(`  sqlite-vec is left out: ${error.message.split('\n')[0]}`);
    }
  }
  return made;
}

/** In a process of its own: opens what is there, asks once, and tells how long both took. */
async function reopened(name, path) {
  const { default: embedcore } = await import('../dist/index.js');
  const make = vectors(DIMENSIONS).clusters();
  const [vector, { [name]: open }] = [make(), await stores(embedcore, new Float32Array())];
  const started = performance.now();
  const store = await open(path);
  const found = await store.query(vector);
  const taken = (performance.now() - started) / 1000;
  await store.close();
  if (found.length !== K) throw new PlainError(`${name} answered ${found.length} rows`);
  console.log(JSON.stringify(taken));
}

function firstAnswer(name, path) {
  const { stdout, stderr, status } = spawnSync(process.execPath, [fileURLToPath(import.meta.url), '--reopen', name, '--path', path], { encoding: 'utf8' });
  if (status !== 0) throw new PlainError(`${name} cannot be opened again: ${stderr}`);
  return JSON.parse(stdout.trim().split('\n').at(-1));
}

async function collection({ embedcore, entries, rounds, workshop }) {
  const work = `collection of ${entries} × ${DIMENSIONS}`;
  const make = vectors(DIMENSIONS).clusters();
  const data = matrixOf(make, entries);
  const asked = Array.from({ length: QUERIES }, make);
  const made = await stores(embedcore, data);
  const open = {};
  const paths = {};
  const added = await inTurns(rounds, Object.fromEntries(Object.entries(made).map(([name, makeStore], at) => [name, async (round) => {
    await open[name]?.close();
    paths[name] = join(workshop, `store-${at}-${round}`);
    open[name] = await makeStore(paths[name]);
    const started = performance.now();
    for (let from = 0; from < entries; from += BATCH) await open[name].add(from, Math.min(entries, from + BATCH));
    return { seconds: (performance.now() - started) / 1000 };
  }])));
  const answers = {};
  const asking = await inTurns(rounds, Object.fromEntries(Object.entries(open).map(([name, store]) => [name, async () => {
    const times = [];
    answers[name] = [];
    for (const vector of asked) {
      const started = performance.now();
      answers[name].push(await store.query(vector));
      times.push((performance.now() - started) / 1000);
    }
    return { seconds: median(times) };
  }])));
  for (const store of Object.values(open)) await store.close();
  const opening = await inTurns(rounds, Object.fromEntries(Object.keys(open).map((name) => [name, async () => ({ seconds: firstAnswer(name, paths[name]) })])));
  const recall = (name) => {
    const shared = answers.embedcore.map((ids, query) => answers[name][query].filter((id) => ids.includes(id)).length);
    return shared.reduce((sum, found) => sum + found, 0) / QUERIES / K;
  };
  for (const [what, taken, least] of [['add', added, 1], ['query, p50', asking, 5], ['first answer after opening', opening, undefined]]) {
    for (const [name, { seconds: time, ratio, than }] of Object.entries(taken)) {
      const ours = name === 'embedcore';
      const agreed = what.startsWith('query') && !ours ? `, ${(100 * recall(name)).toFixed(1)} % the same answers` : '';
      const goals = ours
        ? { 'query, p50': { goal: '≤ 1 ms', good: time <= 0.001 }, 'first answer after opening': { goal: '≤ 100 ms', good: time <= 0.1 } }[what]
        : { than, ...(least && { goal: `≥ ${least} ×`, good: ratio >= least }) };
      note(`${work}: ${what}`, name, `${seconds(time)}${agreed}`, goals);
    }
  }
}

/** The mean of 1 over the rank of the first right answer among ten, in cosines of all chunks. */
async function meanReciprocalRank({ embedcore, generator }, chunks, questions, right) {
  const matrix = await generator.embed(chunks.map(({ input }) => input));
  const asked = await generator.embed(questions.map(({ question }) => question), { inputType: 'query' });
  const { indices } = await embedcore.topK(asked, matrix, K);
  const ranks = questions.map((question, at) => {
    const rank = [...indices.subarray(at * K, at * K + K)].findIndex((row) => row >= 0 && right(chunks[row], question));
    return rank < 0 ? 0 : 1 / (rank + 1);
  });
  return ranks.reduce((sum, rank) => sum + rank, 0) / ranks.length;
}

/** Pieces of as many tokens as a chunk may have, wherever they begin and end. */
async function ofOneLength(generator, text, most) {
  const { offsets } = await generator.tokenize(text);
  const places = offsets.filter(([start, end]) => end > start);
  const room = most - (offsets.length - places.length);
  const pieces = [];
  for (let at = 0; at < places.length; at += room) pieces.push(text.slice(places[at][0], places[Math.min(at + room, places.length) - 1][1]));
  return pieces;
}

async function questions(settings) {
  const { embedcore, generator } = settings;
  const { packages, questions: asked } = readJson(join(here, 'questions.json'));
  const pages = packages.flatMap((name) => {
    const directory = join(repoRoot, 'node_modules', name);
    const files = markdownIn(directory).filter((file) => !/\/(CHANGELOG|HISTORY|LICEN[CS]E|SECURITY|CONTRIBUTING|CODE_OF_CONDUCT)[^/]*$/i.test(file) && !relative(directory, file).includes('node_modules'));
    return files.map((file) => ({ page: `${name}/${relative(directory, file)}`, text: readFileSync(file, 'utf8') }));
  });
  for (const { page, answer } of asked) {
    if (!pages.find((one) => one.page === page)?.text.includes(answer)) throw new PlainError(`${page} does not say ${JSON.stringify(answer)}: is node_modules that of package-lock.json?`);
  }
  const most = generator.getModelInfo().maxLength;
  const work = `${asked.length} questions, ${pages.length} pages of ${packages.length} packages`;
  const split = async (maxTokens, inputOf) => {
    const found = await generator.splitMany(pages.map(({ text }) => text), { format: 'markdown', maxTokens });
    return pages.flatMap(({ page }, at) => found[at].map((chunk) => ({ page, text: chunk.text, input: inputOf(chunk) })));
  };
  const plain = await split(most, ({ text }) => text);
  // Those that the chunk does not begin with itself, in the room that is left for them.
  const headed = await split(most - HEADINGS, ({ text, headings }) => [...headings.filter((heading) => !text.includes(heading)), text].join('\n'));
  const fixed = [];
  for (const { page, text } of pages) for (const piece of await ofOneLength(generator, text, most)) fixed.push({ page, text: piece, input: piece });
  const ofPage = (chunk, { page }) => chunk.page === page;
  const ofAnswer = (chunk, { page, answer }) => chunk.page === page && chunk.text.includes(answer);
  const contenders = { 'chunks of one length': fixed, 'chunks by structure': plain, 'chunks by structure, their headings first': headed };
  for (const [what, right] of [['the page', ofPage], ['the answer', ofAnswer]]) {
    let base;
    for (const [name, chunks] of Object.entries(contenders)) {
      const mrr = await meanReciprocalRank({ embedcore, generator }, chunks, asked, right);
      base ??= mrr;
      const better = name === 'chunks by structure' ? { goal: 'better', good: mrr > base } : {};
      note(`${work}: MRR@${K} of ${what}`, `${name} (${chunks.length})`, `${mrr.toFixed(3)}${mrr === base ? '' : ` (${mrr > base ? '+' : ''}${(100 * (mrr / base - 1)).toFixed(1)} %)`}`, better);
    }
  }
}

/** Which share of pairs lie at or above each threshold: such as mean the same, such as differ in one word, and any. */
async function thresholds({ embedcore, model }) {
  const fixture = (name) => readJson(join(repoRoot, 'fixtures', `${name}.json`));
  const kinds = { same: [], 'one word differs': [] };
  for (const parts of [fixture('near-pairs'), fixture('near-everyday')].flatMap(Object.values)) {
    for (const [kind, pairs] of Object.entries(parts)) kinds[kind === 'same' ? 'same' : 'one word differs'].push(...pairs.map((pair) => pair.slice(-2)));
  }
  kinds.same.push(...fixture('near-prompts').paraphrases);
  const texts = [...new Set(Object.values(kinds).flat(2))];
  // Each pair once, and none that was made to mean the same.
  const taken = new Set(Object.values(kinds).flat().map(([a, b]) => JSON.stringify([a, b].sort())));
  const random = uniform();
  kinds['by chance'] = [];
  while (kinds['by chance'].length < 4000) {
    const [a, b] = [0, 1].map(() => texts[Math.floor(random() * texts.length)]).sort();
    const name = JSON.stringify([a, b]);
    if (a === b || taken.has(name)) continue;
    taken.add(name);
    kinds['by chance'].push([a, b]);
  }
  for (const modelPath of ['builtin', model]) {
    const generator = new embedcore.OptimizedEmbeddingGenerator({ modelPath });
    await generator.initialize();
    const matrix = await generator.embed(texts);
    const at = new Map(texts.map((text, row) => [text, row]));
    const cosines = Object.entries(kinds).map(([kind, pairs]) => [kind, pairs.map(([a, b]) => embedcore.cosine(matrix.row(at.get(a)), matrix.row(at.get(b))))]);
    for (const threshold of [0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]) {
      const shares = cosines.map(([kind, all]) => `${kind} ${((100 * all.filter((cosine) => cosine >= threshold).length) / all.length).toFixed(1)} % of ${all.length}`);
      note(`threshold ${threshold}`, generator.getModelInfo().modelId.split('/').at(-1), shares.join(', '));
    }
    await generator.cleanup();
  }
}

const WORK = { split, 'top-k': topK, 'k-means': kMeans, collection, questions, thresholds };

main(async () => {
  const { values } = parseArgs({
    options: {
      model: { type: 'string' },
      only: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      files: { type: 'string', default: '2000' },
      rows: { type: 'string', default: '10000' },
      entries: { type: 'string', default: '100000' },
      reopen: { type: 'string' },
      path: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return console.log(usage);
  if (values.reopen) return reopened(values.reopen, values.path);
  const only = values.only?.split(',') ?? Object.keys(WORK);
  for (const name of only) if (!Object.hasOwn(WORK, name)) throw new PlainError(`There is no work ${name}: known are ${Object.keys(WORK).join(', ')}.`);
  const model = resolve(values.model ?? join(repoRoot, '..', 'shared/models/minilm'));
  if (!existsSync(model)) throw new PlainError(`Pass --model DIR: there is no directory ${model}.`);
  const { default: embedcore } = await import('../dist/index.js');
  const workshop = temporaryDirectory();
  const generator = new embedcore.OptimizedEmbeddingGenerator({ modelPath: model });
  await generator.initialize();
  const numbers = Object.fromEntries(['rounds', 'files', 'rows', 'entries'].map((name) => [name, count(values[name], `--${name}`)]));
  const settings = { ...numbers, embedcore, model, generator, workshop, laidOut: layOutModel(model, join(workshop, 'models')) };
  for (const name of only) {
    console.error(`${name} …`);
    await WORK[name](settings);
  }
  await generator.cleanup();
  console.log(`\n${table()}`);
});
