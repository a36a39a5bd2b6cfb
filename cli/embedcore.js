#!/usr/bin/env node
// The command `embedcore`: semantic search in a directory of source code. A user of the public entry like any other.

// CommonJS, because it starts faster.
'use strict';

const { relative, resolve } = require('node:path');
const { parseArgs } = require('node:util');

const { CodeIndex, EmbeddingError } = require('embedcore');

const USAGE = `Semantic search in source code, offline.

  embedcore index [DIRECTORY]           read functions, methods, classes and types into DIRECTORY/.embedcore
  embedcore search "WORDS" [DIRECTORY]  find them by what they do

Options of index
  --rebuild        throw away an index that another model or version made, or a damaged one
  --verbose        name the files that were left out
Options of search
  --limit N        number of answers (10)
  --json           answers as JSON
Options of both
  --model PATH     a model directory or .onnx file instead of the built-in model
  --help, --version

DIRECTORY is the current one by default.`;

const OPTIONS = {
  rebuild: { type: 'boolean' },
  verbose: { type: 'boolean' },
  limit: { type: 'string' },
  json: { type: 'boolean' },
  model: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
};

/** Which options go with which command; the others go with every one. */
const ONLY = { index: ['rebuild', 'verbose'], search: ['limit', 'json'] };

/** What the user has done wrong, in words for the user. */
class UsageError extends Error {}

const number = new Intl.NumberFormat('en-US');
const plural = (count, one, many = `${one}s`) => `${number.format(count)} ${count === 1 ? one : many}`;

const COLORS = { bold: 1, dim: 2, red: 31, yellow: 33, cyan: 36 };

/** Colours, where the stream is a terminal that wants them. */
const paint = (stream) => (color, text) => (stream.hasColors?.() ? `\x1b[${COLORS[color]}m${text}\x1b[0m` : text);

async function main(args) {
  const { values, positionals } = parse(args);
  if (values.version) {
    return console.log(require('../package.json').version);
  }
  const [command, ...rest] = positionals;
  if (values.help || (command === undefined && args.length === 0)) return console.log(USAGE);
  if (!Object.hasOwn(ONLY, command ?? '')) throw new UsageError(`There is no command ${command ?? ''}`.trimEnd());
  for (const [other, names] of Object.entries(ONLY)) {
    const misplaced = other !== command && names.find((name) => values[name] !== undefined);
    if (misplaced) throw new UsageError(`--${misplaced} is an option of ${other}`);
  }
  const generator = values.model === undefined ? {} : { modelPath: values.model };
  if (command === 'index') return index(rest, values, generator);
  return search(rest, values, generator);
}

function parse(args) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error.message);
  }
}

function directoryOf(rest) {
  if (rest.length > 1) throw new UsageError(`Expected one directory, got ${rest.join(' ')}; put the words in quotes`);
  return resolve(rest[0] ?? '.');
}

async function index(rest, { rebuild, verbose }, generator) {
  const directory = directoryOf(rest);
  const color = paint(process.stdout);
  const bar = new Bar(process.stderr);
  const index = new CodeIndex(directory, { generator });
  const stop = new AbortController();
  // Once: a second Ctrl-C ends the process at once. Nothing is lost either way.
  process.once('SIGINT', () => stop.abort());
  let last;
  try {
    last = await index.update({
      rebuild,
      signal: stop.signal,
      progressCallback: (report) => {
        last = report;
        bar.draw(report.done, report.changed, `${rate(report)} annotations/s`);
      },
    });
  } catch (error) {
    bar.end();
    if (error.code !== 'ABORTED') throw explained(error, directory);
    console.log(`Stopped. ${plural(last?.done ?? 0, 'file')} of ${number.format(last?.changed ?? 0)} are kept; run the same command again to go on.`);
    process.exitCode = 130;
    return;
  }
  bar.end();
  summarise(last, directory, verbose, color);
}

const rate = ({ embedded, seconds }) => number.format(Math.round(embedded / Math.max(seconds, 0.001)));

function summarise(report, directory, verbose, color) {
  const { files, annotations, embedded, reused, unchanged, removed, skipped, examples, seconds } = report;
  const kept = annotations - embedded;
  console.log(
    `${color('bold', plural(annotations, 'annotation'))} of ${plural(files, 'file')} in ${seconds.toFixed(seconds < 10 ? 2 : 1)} s` +
      (embedded > 0 ? ` (${rate(report)}/s)` : ''),
  );
  const parts = [
    `${plural(embedded, 'annotation')} embedded`,
    kept > 0 && `${number.format(kept)} from cache (${plural(unchanged, 'unchanged file')}, ${number.format(reused)} in changed ones)`,
    removed > 0 && `${plural(removed, 'file')} forgotten`,
  ];
  console.log(`  ${parts.filter(Boolean).join(', ')}`);
  const reasons = Object.entries(skipped).map(([reason, count]) => `${number.format(count)} ${reason}`);
  if (reasons.length > 0) console.log(color('dim', `  Files left out: ${reasons.join(', ')}`));
  if (verbose) for (const { file, reason } of examples) console.log(color('dim', `    ${file || '(name unknown)'}: ${reason}`));
  if (files === 0) {
    const extensions = CodeIndex.extensions.map((extension) => `.${extension}`).join(' ');
    console.log(`There is no source file in ${directory} (looked for ${extensions}).`);
  } else {
    const where = relative(process.cwd(), directory);
    console.log(`Now search it: ${color('cyan', `npx embedcore search "what it does"${where && ` ${where}`}`)}`);
  }
}

async function search(rest, { limit = '10', json }, generator) {
  const [words, ...others] = rest;
  if (words === undefined) throw new UsageError('What shall be searched for? embedcore search "open a file"');
  const directory = directoryOf(others);
  if (!/^\d+$/.test(limit) || Number(limit) < 1 || Number(limit) > 1000) {
    throw new UsageError(`--limit is ${limit}, not a whole number from 1 to 1000`);
  }
  const index = new CodeIndex(directory, { generator });
  let matches;
  try {
    matches = await index.search(words, { limit: Number(limit) });
  } catch (error) {
    throw explained(error, directory);
  }
  if (json) return console.log(JSON.stringify(matches, undefined, 2));
  const color = paint(process.stdout);
  if (matches.length === 0) console.log(`Nothing is indexed in ${directory} yet.`);
  const where = relative(process.cwd(), directory);
  const width = Math.max(40, (process.stdout.columns ?? 100) - 8);
  for (const { file, line, signature, summary, score } of matches) {
    console.log(`${color('yellow', score.toFixed(3))}  ${color('cyan', `${where && `${where}/`}${file}:${line}`)}`);
    console.log(`       ${color('bold', shortened(signature, width))}`);
    if (summary) console.log(color('dim', `       ${shortened(summary, width)}`));
  }
}

const shortened = (text, width) => (text.length > width ? `${text.slice(0, width - 1).trimEnd()}…` : text);

/** Adds the command that helps to errors that a command can help with. */
function explained(error, directory) {
  const where = relative(process.cwd(), directory);
  const target = where && ` ${where}`;
  const advice = {
    NOT_INITIALIZED: `embedcore index${target}`,
    INVALID_CONFIG: `embedcore index --rebuild${target}`,
  }[error.code];
  return advice && error.details?.path ? new UsageError(`${error.message}. Run: npx ${advice}`) : error;
}

/** A progress bar on a terminal, nothing elsewhere. */
class Bar {
  #stream;
  #drawn = false;

  constructor(stream) {
    this.#stream = stream;
  }

  draw(done, total, text) {
    if (!this.#stream.isTTY || total === 0) return;
    const width = 28;
    const filled = Math.round((done / total) * width);
    const bar = `${'█'.repeat(filled)}${'░'.repeat(width - filled)}`;
    const line = `${bar} ${Math.floor((done / total) * 100)} %  ${number.format(done)}/${plural(total, 'file')}  ${text}`;
    this.#stream.write(`\r\x1b[K${line.slice(0, (this.#stream.columns ?? 80) - 1)}`);
    this.#drawn = true;
  }

  /** Wipes the bar: what follows says the same in words. */
  end() {
    if (this.#drawn) this.#stream.write('\r\x1b[K');
    this.#drawn = false;
  }
}

main(process.argv.slice(2)).catch((error) => {
  if (!(error instanceof UsageError) && !(error instanceof EmbeddingError)) throw error;
  console.error(`${paint(process.stderr)('red', 'embedcore:')} ${error.message}`);
  if (error instanceof UsageError && !error.message.includes('npx')) console.error('See embedcore --help');
  process.exitCode = error instanceof UsageError ? 2 : 1;
});
