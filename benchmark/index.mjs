// How fast is a source tree indexed, brought up to date, and searched? `node benchmark/index.mjs [--from DIR] [--annotations N]`

import { spawn } from 'node:child_process';
import { appendFileSync, cpSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import { parseArgs } from 'node:util';

import { CodeIndex } from '../dist/index.js';
import { PlainError, count, main, repoRoot, temporaryDirectory } from './lib.mjs';

const USAGE = `node benchmark/index.mjs [--from DIR] [--annotations N]

  --from DIR       the sources to index, copied until there are enough (default: this clone's own)
  --annotations N  how many functions, methods, classes and types at least (50000)`;

const WORDS = ['retry a failed request', 'open a file and read its lines', 'largest difference of two vectors'];

await main(async () => {
  const { values } = parseArgs({
    options: { from: { type: 'string', default: repoRoot }, annotations: { type: 'string', default: '50000' }, help: { type: 'boolean' } },
  });
  if (values.help) return console.log(USAGE);
  const wanted = count(values.annotations, '--annotations');

  const workshop = temporaryDirectory();
  const tree = join(workshop, 'tree');
  const files = await grow(values.from, tree, wanted, workshop);

  const index = new CodeIndex(tree);
  const first = await index.update();
  say('first run', `${first.annotations} annotations of ${first.files} files in ${first.seconds.toFixed(2)} s, ${Math.round(first.embedded / first.seconds)}/s, parsing and writing included`);
  const again = await index.update();
  say('nothing changed', `${again.seconds.toFixed(2)} s, ${share(again, first)}`);
  const touched = files.filter((_, i) => i % 100 === 50);
  for (const file of touched) appendFileSync(file, addition(file));
  const third = await index.update();
  say('1 % of files changed', `${third.seconds.toFixed(2)} s, ${share(third, first)}: ${third.changed} files read, ${third.embedded} annotations embedded, ${third.reused} kept`);

  const warm = [];
  for (let i = 0; i < 30; i++) warm.push(await timed(() => index.search(WORDS[i % WORDS.length])));
  say('search, index in memory', `median ${median(warm.slice(3)).toFixed(1)} ms`);
  await index.close();

  const cold = [];
  for (let i = 0; i < 9; i++) cold.push(await firstLine(WORDS[i % WORDS.length], tree));
  say('search, fresh process', `first answer printed after ${median(cold).toFixed(0)} ms, Node.js' own start (${(await nodeStart()).toFixed(0)} ms) included`);
});

/** Copies sources until they hold `wanted` annotations. Declared names differ from copy to copy, so that texts do. */
async function grow(from, tree, wanted, workshop) {
  const sample = join(workshop, 'sample');
  const extensions = new Set(CodeIndex.extensions.map((extension) => `.${extension}`));
  const sources = readdirSync(from, { recursive: true })
    .filter((name) => extensions.has(extname(name)) && !/(^|\/)(node_modules|target|dist|\.\w+)\//.test(name));
  if (sources.length === 0) throw new PlainError(`There are no sources in ${from}.`);
  for (const name of sources) cpSync(join(from, name), join(sample, name));
  const index = new CodeIndex(sample);
  const { annotations } = await index.update();
  await index.close();
  const files = [];
  for (let copy = 0; copy < Math.ceil(wanted / annotations); copy++) {
    for (const name of sources) {
      const file = join(tree, `copy${copy}`, name);
      mkdirSync(dirname(file), { recursive: true });
      const source = readFileSync(join(from, name), 'utf8');
      writeFileSync(file, source.replace(/\b(const|let|fn|def|func|function|class|struct|enum|interface) (\w+)/g, `$1 $2_${copy}`));
      files.push(file);
    }
  }
  return files;
}

/** One more function, in the file's language. */
function addition(file) {
  if (file.endsWith('.py')) return '\ndef brand_new(value):\n    return value + 1\n';
  if (file.endsWith('.rs')) return '\nfn brand_new(value: i32) -> i32 { value + 1 }\n';
  return '\nfunction brandNew(value) { return value + 1; }\n';
}

/** Milliseconds until the command has printed something. */
function firstLine(words, tree) {
  return elapsed([join(repoRoot, 'cli', 'embedcore.js'), 'search', words, tree]);
}

function nodeStart() {
  return elapsed(['-e', 'console.log(1)']);
}

function elapsed(args) {
  const started = performance.now();
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    child.stdout.once('data', () => resolve(performance.now() - started));
    child.once('error', reject);
    child.once('exit', (code) => code !== 0 && reject(new PlainError('The command failed.')));
  });
}

async function timed(work) {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

function share(report, first) {
  return `${((report.seconds / first.seconds) * 100).toFixed(1)} % of the first run`;
}

function say(what, figures) {
  console.log(`${what.padEnd(26)}${figures}`);
}
