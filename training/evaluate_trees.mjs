// How often do descriptions find their functions in whole trees, tests and all, by `CodeIndex#search`, and by what people use instead?
//
//   node training/evaluate_trees.mjs DEV.jsonl TREES [--model DIR]… [--ripgrep FILE] [OWNER/NAME …]
//
// DEV.jsonl has a row for each function: `repo`, `path`, `name`, `kind` and `doc`, which is the question; TREES has a clone of each of the
// repositories as OWNER+NAME, at the commit that the rows are from. Their comments are left out, so that no question is in the tree.
//   --model DIR     the same through an index of another model, too (all-MiniLM-L6-v2, for example)
//   --ripgrep FILE  and by ripgrep: the declarations around the lines that have one of the description's words, in any case, those with
//                   most of the words first, which is more than ripgrep tells by itself
// Prints for each repository and system MRR@10 and the share found among the first 10 (150 functions, shuffled with a fixed seed), the
// time to index the tree, and the median of a search; then their means.

import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { parseArgs, promisify } from 'node:util';

const REPOSITORIES = ['scrapy/scrapy', 'josdejong/mathjs', 'apache/commons-lang', 'actix/actix-web', 'celery/celery'];
const MOST = 150;
const SOURCES = ['.py', '.js', '.ts', '.java', '.rs'];
// As `training/evaluate.py`: words that say nothing.
const STOP = new Set('a an the of to in for and or is are be this that it by with on as from at if not'.split(' '));

const { CodeIndex } = createRequire(import.meta.url)('..');

const { values, positionals: [rowsFile, trees, ...named] } = parseArgs({
  options: { model: { type: 'string', multiple: true, default: [] }, ripgrep: { type: 'string' } },
  allowPositionals: true,
});
if (!trees) {
  console.error('node training/evaluate_trees.mjs DEV.jsonl TREES [--model DIR]… [--ripgrep FILE] [OWNER/NAME …]');
  process.exit(2);
}
const rows = readFileSync(rowsFile, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
const scratch = mkdtempSync(join(tmpdir(), 'embedcore-trees-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

const found = new Map();
for (const repository of named.length > 0 ? named : REPOSITORIES) {
  const tree = join(scratch, repository.replace('/', '+'));
  const paths = copyWithoutComments(join(trees, repository.replace('/', '+')), tree);
  const asked = shuffled(rows.filter(({ repo, kind, doc, path }) => repo === repository && /function|method|constructor/.test(kind) && doc.length > 15 && paths.has(path))).slice(0, MOST);
  for (const model of ['builtin', ...values.model]) {
    const file = join(scratch, 'index.sqlite');
    const index = new CodeIndex(tree, { path: file, generator: { modelPath: model } });
    const { annotations, seconds } = await index.update();
    await index.search('warm up');
    await ask(model, repository, asked, `${annotations} declarations indexed in ${seconds.toFixed(1)} s`, (doc) => index.search(doc, { limit: 10 }));
    if (model === 'builtin' && values.ripgrep) {
      const declarations = new Map();
      for (const path of paths) declarations.set(path, await index.search('function', { paths: `/${path}`, limit: 1000 }));
      await ask('ripgrep by words', repository, asked, 'no index', (doc) => byWords(doc, tree, declarations));
    }
    await index.close();
    for (const name of readdirSync(scratch)) if (name.startsWith('index.sqlite')) rmSync(join(scratch, name));
  }
  rmSync(tree, { recursive: true });
}
for (const [system, scores] of found) {
  const mean = (of) => (scores.reduce((all, score) => all + of(score), 0) / scores.length);
  console.log(`${'mean'.padEnd(24)} ${system.padEnd(24)} ${figures(mean(({ rank }) => rank), mean(({ inTen }) => inTen), mean(({ ms }) => ms))}`);
}

/** Asks for all functions, and prints how well and how fast they were found. */
async function ask(system, repository, asked, about, search) {
  let [rank, inTen] = [0, 0];
  const times = [];
  for (const { doc, path, name } of asked) {
    const began = performance.now();
    const matches = await search(doc);
    times.push(performance.now() - began);
    const at = matches.slice(0, 10).findIndex((match) => match.file === path && (match.name === name || match.name.endsWith(`.${name}`)));
    if (at >= 0) [rank, inTen] = [rank + 1 / (at + 1), inTen + 1];
  }
  const score = { rank: rank / asked.length, inTen: inTen / asked.length, ms: times.toSorted((a, b) => a - b)[times.length >> 1] };
  found.set(system, [...(found.get(system) ?? []), score]);
  console.log(`${repository.padEnd(24)} ${system.padEnd(24)} ${figures(score.rank, score.inTen, score.ms)}  ${asked.length} functions; ${about}`);
}

function figures(rank, inTen, ms) {
  return `MRR@10 ${rank.toFixed(3)}  in ten ${inTen.toFixed(3)}  ${ms.toFixed(1)} ms`;
}

/**
 * The declarations around the lines with a word of the description: those with most of its words first, the shortest of them first. The
 * words are looked for as they begin (`cach` for `cached`), which is what those do who know the tool.
 */
async function byWords(doc, tree, declarations) {
  const words = [...new Set(doc.toLowerCase().match(/[a-z]{2,}|[0-9]+/g) ?? [])].filter((word) => !STOP.has(word));
  const stems = words.map((word) => (word.length > 4 ? word.replace(/(?:ings?|ed|es|s|e)$/, '') : word)).slice(0, 40);
  if (stems.length === 0) return [];
  const hits = new Map();
  for (const line of await ripgrep(['--no-heading', '--with-filename', '--line-number', '--ignore-case', ...stems.flatMap((stem) => ['-e', stem]), '.'], tree)) {
    const [, path, number, text] = /^\.\/(.*?):(\d+):(.*)$/.exec(line) ?? [];
    if (path === undefined) continue;
    const lower = text.toLowerCase();
    for (const declaration of declarations.get(path) ?? []) {
      if (declaration.line > number || number > declaration.endLine) continue;
      const known = hits.get(declaration) ?? new Set();
      stems.forEach((stem) => lower.includes(stem) && known.add(stem));
      hits.set(declaration, known);
    }
  }
  const long = ({ line, endLine }) => endLine - line;
  return [...hits].sort(([a, of], [b, others]) => others.size - of.size || long(a) - long(b)).slice(0, 10).map(([declaration]) => declaration);
}

async function ripgrep(args, cwd) {
  try {
    const { stdout } = await promisify(execFile)(values.ripgrep, args, { cwd, maxBuffer: 1 << 30 });
    return stdout.split('\n');
  } catch (error) {
    if (error.code === 1) return []; // nothing found
    throw error;
  }
}

/** Copies a tree's sources without comments; their paths. */
function copyWithoutComments(from, tree) {
  cpSync(from, tree, { recursive: true, filter: (path) => !/\/(?:\.[^/]*|docs|node_modules)$/.test(path) });
  const paths = new Set();
  for (const entry of readdirSync(tree, { recursive: true, withFileTypes: true }).filter((each) => each.isFile())) {
    const path = join(entry.parentPath, entry.name);
    if (!SOURCES.includes(extname(path))) {
      rmSync(path);
      continue;
    }
    paths.add(path.slice(tree.length + 1));
    writeFileSync(path, withoutComments(readFileSync(path, 'utf8'), extname(path)));
  }
  return paths;
}

/** What a description could be read in is blank; lines stay where they are, but for Python's. */
function withoutComments(text, extension) {
  if (extension === '.py') {
    return text.replace(/^([ \t]*(?:async )?(?:def|class)\b[^\n]*(?:\n[^\n]*?)*?:[ \t]*(?:#[^\n]*)?\n)([ \t]*)[ruRU]?("""|''')[^]*?\3[ \t]*\n/gm, '$1$2pass\n');
  }
  return text.replace(/\/\*\*[^]*?\*\//g, (comment) => comment.replace(/[^\n]/g, '')).replace(/^[ \t]*\/\/[^\n]*$/gm, '');
}

/** The same order every time (mulberry32, Fisher–Yates). */
function shuffled(items) {
  let seed = 0;
  const random = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const all = [...items];
  for (let i = all.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [all[i], all[j]] = [all[j], all[i]];
  }
  return all;
}
