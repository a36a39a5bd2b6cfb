// How often do descriptions find their functions in whole trees, tests and all, by `CodeIndex#search`?
//
//   node training/evaluate_trees.mjs DEV.jsonl TREES [OWNER/NAME …]
//
// DEV.jsonl has a row for each function: `repo`, `path`, `name`, `kind` and `doc`, which is the question; TREES has a clone of each of the
// repositories as OWNER+NAME, at the commit that the rows are from. Their comments are left out, so that no question is in the tree.
// Prints MRR@10 for each repository (150 functions, shuffled with a fixed seed), and their mean.

import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';

const REPOSITORIES = ['scrapy/scrapy', 'josdejong/mathjs', 'apache/commons-lang', 'actix/actix-web', 'celery/celery'];
const MOST = 150;
const SOURCES = ['.py', '.js', '.ts', '.java', '.rs'];

const { CodeIndex } = createRequire(import.meta.url)('..');

const [rowsFile, trees, ...named] = process.argv.slice(2);
if (!trees) {
  console.error('node training/evaluate_trees.mjs DEV.jsonl TREES [OWNER/NAME …]');
  process.exit(2);
}
const rows = readFileSync(rowsFile, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
const scratch = mkdtempSync(join(tmpdir(), 'embedcore-trees-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

const scores = [];
for (const repository of named.length > 0 ? named : REPOSITORIES) {
  const tree = join(scratch, repository.replace('/', '+'));
  cpSync(join(trees, repository.replace('/', '+')), tree, { recursive: true, filter: (path) => !/\/(?:\.[^/]*|docs|node_modules)$/.test(path) });
  const files = readdirSync(tree, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = new Set();
  for (const { parentPath, name } of files) {
    const path = join(parentPath, name);
    if (!SOURCES.includes(extname(name))) {
      rmSync(path);
      continue;
    }
    paths.add(path.slice(tree.length + 1));
    writeFileSync(path, withoutComments(readFileSync(path, 'utf8'), extname(name)));
  }
  const asked = shuffled(rows.filter(({ repo, kind, doc, path }) => repo === repository && /function|method|constructor/.test(kind) && doc.length > 15 && paths.has(path))).slice(0, MOST);
  const index = new CodeIndex(tree, { path: join(scratch, 'index.sqlite') });
  const { annotations } = await index.update();
  let sum = 0;
  for (const { doc, path, name } of asked) {
    const matches = await index.search(doc, { limit: 10 });
    const at = matches.findIndex((match) => match.file === path && (match.name === name || match.name.endsWith(`.${name}`)));
    if (at >= 0) sum += 1 / (at + 1);
  }
  await index.close();
  rmSync(join(scratch, 'index.sqlite'));
  scores.push(sum / asked.length);
  console.log(`${repository.padEnd(24)} ${(sum / asked.length).toFixed(3)}  ${asked.length} functions of ${annotations} declarations`);
}
console.log(`${'mean'.padEnd(24)} ${(scores.reduce((all, score) => all + score, 0) / scores.length).toFixed(3)}`);

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
