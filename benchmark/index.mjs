// How fast is a source tree indexed, brought up to date, and searched? `node benchmark/index.mjs --help`

import { spawn } from 'node:child_process';
import { appendFileSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import { parseArgs } from 'node:util';

import { CodeIndex } from '../dist/index.js';
import { PlainError, count, main, repoRoot, temporaryDirectory } from './lib.mjs';

const USAGE = `node benchmark/index.mjs [--from DIR] [--annotations N] [--tree DIR]

  --from DIR       the sources to index, copied until there are enough (default: this clone's own)
  --annotations N  how many functions, methods, classes and types at least (50000)
  --tree DIR       index this tree as it is, in place of copies; nothing but DIR/.embedcore is written`;

const WORDS = ['retry a failed request', 'open a file and read its lines', 'largest difference of two vectors'];

await main(async () => {
  const { values } = parseArgs({
    options: { from: { type: 'string', default: repoRoot }, annotations: { type: 'string', default: '50000' }, tree: { type: 'string' }, help: { type: 'boolean' } },
  });
  if (values.help) return console.log(USAGE);
  const wanted = count(values.annotations, '--annotations');

  const workshop = temporaryDirectory();
  const tree = values.tree ?? join(workshop, 'tree');
  const files = values.tree ? [] : await grow(values.from, tree, wanted, workshop);

  const empty = process.memoryUsage().rss;
  const index = new CodeIndex(tree);
  const first = await index.update();
  say('first run', `${first.annotations} annotations of ${first.files} files in ${first.seconds.toFixed(2)} s, ${Math.round(first.embedded / first.seconds)}/s, parsing and writing included`);
  const again = await index.update();
  say('nothing changed', `${again.seconds.toFixed(2)} s, ${share(again, first)}`);
  const touched = files.filter((_, i) => i % 100 === 50);
  for (const file of touched) appendFileSync(file, addition(file));
  const third = await index.update();
  if (touched.length > 0) say('1 % of files changed', `${third.seconds.toFixed(2)} s, ${share(third, first)}: ${third.changed} files read, ${third.embedded} annotations embedded, ${third.reused} kept`);

  const warm = [];
  for (let i = 0; i < 30; i++) warm.push(await timed(() => index.search(WORDS[i % WORDS.length])));
  say('search, index in memory', `median ${median(warm.slice(3)).toFixed(1)} ms`);
  say('index', `${megabytes(sizeOf(join(tree, '.embedcore')))} on disk; the process has ${megabytes(process.memoryUsage().rss)}, ${megabytes(empty)} before`);
  const [place] = await index.symbols('search');
  if (place) {
    const near = [];
    for (let i = 0; i < 12; i++) near.push(await timed(() => index.similar(place)));
    say('similar declarations', `median ${median(near.slice(2)).toFixed(1)} ms`);
  }
  const compared = await timed(() => index.duplicates());
  say('near-duplicates', `${(compared / 1000).toFixed(1)} s`);
  await page(index);
  await index.close();

  const cold = [];
  for (let i = 0; i < 9; i++) cold.push(await firstLine(WORDS[i % WORDS.length], tree));
  say('search, fresh process', `first answer printed after ${median(cold).toFixed(0)} ms, Node.js' own start (${(await nodeStart()).toFixed(0)} ms) included`);
});

/** How fast the page answers what is typed, letter by letter: as its server is asked, and as it is seen where there is a Chromium. */
async function page(index) {
  const server = await index.serve();
  const ask = async (query) => (await fetch(`${server.url}search`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ query, limit: 20 }) })).json();
  const typed = WORDS.flatMap((words) => [...words].map((_, i) => words.slice(0, i + 1)).filter((query) => query.trim() !== ''));
  const asked = [];
  for (const query of typed) asked.push(await timed(() => ask(query)));
  say('page, each letter typed', `median ${median(asked.slice(3)).toFixed(1)} ms, p95 ${p95(asked.slice(3)).toFixed(1)} ms from question to answer`);
  const chromium = [process.env.CHROMIUM_PATH, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => path && existsSync(path));
  if (chromium) {
    const { default: puppeteer } = await import('puppeteer-core');
    const browser = await puppeteer.launch({ executablePath: chromium, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
    const tab = await browser.newPage();
    await tab.goto(server.url);
    await tab.waitForFunction(() => document.querySelector('#status').dataset.state === 'ready');
    const drawn = await tab.evaluate(async (queries) => {
      const input = document.querySelector('#query');
      const times = [];
      for (const query of queries) {
        const began = performance.now();
        input.value = query;
        input.dispatchEvent(new Event('input'));
        const before = document.body.dataset.drawn;
        while (document.body.dataset.drawn === before) await new Promise((resolve) => setTimeout(resolve, 1));
        times.push(performance.now() - began);
      }
      return times;
    }, typed);
    await browser.close();
    say('page, in Chromium', `median ${median(drawn.slice(3)).toFixed(1)} ms, p95 ${p95(drawn.slice(3)).toFixed(1)} ms from letter to matches drawn`);
  }
  await server.close();
}

function p95(values) {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.95)];
}

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

/** Bytes of all files below a directory. */
function sizeOf(directory) {
  const names = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return names.reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(0)} MB`;
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
