#!/usr/bin/env node
// The command `embedcore`: semantic search in a directory of source code, the models that are kept for it, a server for
// clients of OpenAI's embeddings, and the dashboard. A user of the public entry like any other.

// CommonJS, because it starts faster.
'use strict';

const { existsSync, statSync } = require('node:fs');
const { dirname, join, relative, resolve } = require('node:path');
const { parseArgs } = require('node:util');

const { CodeIndex, EmbeddingError, ModelStore, PerformanceDashboard } = require('embedcore');

const USAGE = `Semantic search in source code, offline; a server for embeddings; and a page that shows how a program performs.

  embedcore index [DIRECTORY]           read functions, methods, classes and types into DIRECTORY/.embedcore
  embedcore search "WORDS" [DIRECTORY]  find them by what they do
  embedcore models list                 models from the hub that are kept on this machine
  embedcore models add OWNER/NAME       fetch one, or bring it up to date; OWNER/NAME@REVISION for another than main
  embedcore models verify [OWNER/NAME]  compare all content with its hash; exit code 1 if anything is damaged
  embedcore models remove OWNER/NAME    remove one
  embedcore serve                       serve a model to clients of OpenAI's embeddings: http://127.0.0.1:8080/v1
  embedcore dashboard [SNAPSHOT.json]   show what PerformanceDashboard.exportJson has written

Options of index
  --rebuild        replace an index that another model or version made, or a damaged one
  --verbose        name the files that were left out
Options of search
  --limit N        number of answers (10)
  --json           answers as JSON
Options of index, search and serve
  --model MODEL    a model directory, .onnx file or hub id instead of the built-in model
Options of models
  --dtype DTYPE    the variant to add: fp32, fp16, q8, int8, uint8, q4, q4f16, bnb4
  --cache-dir DIR  where models are kept (HF_HUB_CACHE, else hub in HF_HOME, else ~/.cache/huggingface/hub)
  --json           answers as JSON
Options of serve
  --api-key KEY    what clients have to send; better set EMBEDCORE_API_KEY, which ps does not show
  --alias NAME     another name of the model; may be given several times
  --cache FILE     keep vectors in a file, which any number of servers on this machine may share
  --memory-limit MB         most memory that the process may hold (what is left)
  --max-batch-items N       texts in a request (2048)
  --max-body-mb N           megabytes in a request (8)
  --max-queued-requests N   requests that wait before others are sent away (512)
  --max-queued-mb N         megabytes of them, vectors included (256)
  --drain-seconds N         how long SIGTERM and Ctrl-C wait for what runs (8)
Options of serve and dashboard
  --port N         where it is served (8080; the dashboard 4040, or another one if that is taken)
  --host HOST      for whom: this machine only (127.0.0.1), or everybody (0.0.0.0)
Options of all
  --help, --version

DIRECTORY is the current one by default; search also looks for an index above it.`;

const OPTIONS = {
  rebuild: { type: 'boolean' },
  verbose: { type: 'boolean' },
  limit: { type: 'string' },
  json: { type: 'boolean' },
  model: { type: 'string' },
  dtype: { type: 'string' },
  'cache-dir': { type: 'string' },
  port: { type: 'string' },
  host: { type: 'string' },
  'api-key': { type: 'string' },
  alias: { type: 'string', multiple: true },
  cache: { type: 'string' },
  'memory-limit': { type: 'string' },
  'max-batch-items': { type: 'string' },
  'max-body-mb': { type: 'string' },
  'max-queued-requests': { type: 'string' },
  'max-queued-mb': { type: 'string' },
  'drain-seconds': { type: 'string' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
};

/** Which options go with which command, beside those that go with every one. */
const ALLOWED = {
  index: ['rebuild', 'verbose', 'model'],
  search: ['limit', 'json', 'model'],
  models: ['dtype', 'cache-dir', 'json'],
  serve: ['model', 'port', 'host', 'api-key', 'alias', 'cache', 'memory-limit', 'max-batch-items', 'max-body-mb', 'max-queued-requests', 'max-queued-mb', 'drain-seconds'],
  dashboard: ['port', 'host'],
};

/** Where the dashboard is, unless something else is there. */
const PORT = 4040;

/** What the user has done wrong, in words for the user. */
class UsageError extends Error {}

const number = new Intl.NumberFormat('en-US');
const plural = (count, one, many = `${one}s`) => `${number.format(count)} ${count === 1 ? one : many}`;

const COLORS = { bold: 1, dim: 2, red: 31, yellow: 33, cyan: 36 };

/** Text of others as it may be shown on a terminal: without what would steer it. */
const plain = (text) => text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '\ufffd');

/** Colours, where the stream is a terminal that wants them. */
const paint = (stream) => (color, text) => (stream.hasColors?.() ? `\x1b[${COLORS[color]}m${text}\x1b[0m` : text);

async function main(args) {
  const { values, positionals } = parse(args);
  if (values.version) {
    return console.log(require('../package.json').version);
  }
  const [command, ...rest] = positionals;
  if (values.help || (command === undefined && args.length === 0)) return console.log(USAGE);
  if (!Object.hasOwn(ALLOWED, command ?? '')) throw new UsageError(`There is no command ${command ?? ''}`.trimEnd());
  const misplaced = Object.keys(values).find((name) => !ALLOWED[command].includes(name));
  if (misplaced) {
    const homes = Object.keys(ALLOWED).filter((other) => ALLOWED[other].includes(misplaced));
    throw new UsageError(`--${misplaced} is an option of ${homes.join(' and ')}`);
  }
  return { index, search, models, serve, dashboard }[command](rest, values);
}

function parse(args) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error.message);
  }
}

const generatorOf = ({ model }) => (model === undefined ? {} : { modelPath: model });

function directoryOf(rest, hint = '') {
  if (rest.length > 1) throw new UsageError(`Expected one directory, got ${rest.join(' ')}${hint}`);
  if (rest.length === 0) return undefined;
  const directory = resolve(rest[0]);
  if (!existsSync(directory) || !statSync(directory).isDirectory()) throw new UsageError(`There is no directory ${rest[0]}${hint}`);
  return directory;
}

/** A command that the user can copy. */
function advice(command, directory, { model }, ...flags) {
  const quoted = (text) => (/^[\w./:@\\-]+$/.test(text) ? text : `"${text}"`);
  const where = relative(process.cwd(), directory);
  const words = command === 'search' ? ['"what it does"'] : [];
  return ['npx embedcore', command, ...words, ...flags, where && quoted(where), model && `--model ${quoted(model)}`].filter(Boolean).join(' ');
}

async function index(rest, values) {
  const { rebuild, verbose } = values;
  const directory = directoryOf(rest) ?? process.cwd();
  const color = paint(process.stdout);
  const bar = new Bar(process.stderr);
  const index = new CodeIndex(directory, { generator: generatorOf(values) });
  const stop = new AbortController();
  // Once: a second Ctrl-C ends the process at once. What is written stays either way.
  process.once('SIGINT', () => {
    bar.say('Stopping …');
    stop.abort();
  });
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
    if (error.code !== 'ABORTED') throw explained(error, directory, values);
    const done = last?.changed ? `${plural(last.done, 'file')} of ${number.format(last.changed)} are done` : 'Nothing was done yet';
    console.log(`Stopped. ${done}; run the same command again to go on.`);
    process.exitCode = 130;
    return;
  }
  bar.end();
  summarise(last, directory, values, color);
}

const rate = ({ embedded, seconds }) => number.format(Math.round(embedded / Math.max(seconds, 0.001)));

function summarise(report, directory, values, color) {
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
  if (values.verbose) for (const { file, reason } of examples) console.log(color('dim', `    ${plain(file) || '(name unknown)'}: ${reason}`));
  if (files === 0) {
    const extensions = CodeIndex.extensions.map((extension) => `.${extension}`).join(' ');
    console.log(`There is no source file in ${directory} that .gitignore does not exclude (looked for ${extensions}).`);
  } else if (annotations > 0) {
    console.log(`Now search it: ${color('cyan', advice('search', directory, values))}`);
  }
}

/** The nearest directory with an index, from the current one upwards. */
function indexed() {
  for (let directory = process.cwd(); ; directory = dirname(directory)) {
    if (existsSync(join(directory, '.embedcore', 'index.sqlite'))) return directory;
    if (directory === dirname(directory)) return process.cwd();
  }
}

async function search(rest, values) {
  const { limit = '10', json } = values;
  const [words, ...others] = rest;
  if (words === undefined) throw new UsageError('What shall be searched for? embedcore search "open a file"');
  const directory = directoryOf(others, '; put the words in quotes') ?? indexed();
  if (!/^\d+$/.test(limit) || Number(limit) < 1 || Number(limit) > 1000) {
    throw new UsageError(`--limit is ${limit}, not a whole number from 1 to 1000`);
  }
  const index = new CodeIndex(directory, { generator: generatorOf(values) });
  let matches;
  try {
    matches = await index.search(words, { limit: Number(limit) });
  } catch (error) {
    throw explained(error, directory, values);
  }
  if (json) return console.log(JSON.stringify(matches, undefined, 2));
  const color = paint(process.stdout);
  if (matches.length === 0) console.log(`Nothing is indexed in ${directory} yet.`);
  const where = relative(process.cwd(), directory);
  // Lines are cut where they would wrap; what reads a pipe gets them whole.
  const width = process.stdout.isTTY && process.stdout.columns ? Math.max(10, process.stdout.columns - 8) : Infinity;
  for (const { file, line, signature, summary, score } of matches) {
    console.log(`${color('yellow', score.toFixed(3))}  ${color('cyan', plain(`${where && `${where}/`}${file}:${line}`))}`);
    console.log(`       ${color('bold', shortened(plain(signature), width))}`);
    if (summary) console.log(color('dim', `       ${shortened(plain(summary), width)}`));
  }
}

/** What can be done with the models that are kept. */
const MODEL_COMMANDS = { list: listModels, add: addModel, verify: verifyModels, remove: removeModel };

async function models([command, ...ids], values) {
  if (!Object.hasOwn(MODEL_COMMANDS, command ?? '')) {
    const known = Object.keys(MODEL_COMMANDS).join(', ');
    throw new UsageError(command === undefined ? `models: ${known}` : `There is no command models ${command}; known are ${known}`);
  }
  const [least, most] = { list: [0, 0], add: [1, 1], verify: [0, 1], remove: [1, 1] }[command];
  if (ids.length < least) throw new UsageError(`Which model? embedcore models ${command} OWNER/NAME`);
  if (ids.length > most) throw new UsageError(`models ${command} takes ${most === 0 ? 'no model' : 'one model'}, got ${ids.join(' ')}`);
  if (values.dtype !== undefined && command !== 'add') throw new UsageError('--dtype is an option of models add');
  const store = new ModelStore({ cacheDir: values['cache-dir'] });
  return MODEL_COMMANDS[command](store, ids[0], values);
}

const UNITS = ['bytes', 'kB', 'MB', 'GB', 'TB'];

/** A number of bytes in three digits. */
function size(bytes) {
  const power = bytes < 1000 ? 0 : Math.min(Math.floor(Math.log10(bytes) / 3), UNITS.length - 1);
  const value = bytes / 1000 ** power;
  return `${value.toFixed(power === 0 || value >= 100 ? 0 : 1)} ${UNITS[power]}`;
}

const printed = (value) => console.log(JSON.stringify(value, null, 2));

async function listModels(store, _, { json }) {
  const models = await store.list();
  if (json) return printed({ directory: store.directory, models });
  const color = paint(process.stdout);
  const width = Math.max(0, ...models.map(({ id }) => id.length));
  for (const { id, bytes, partialBytes, revisions } of models) {
    const shown = revisions.map(({ revision, names }) => [revision.slice(0, 8), ...names].join(' ')).join(', ');
    const partial = partialBytes > 0 ? `  (${size(partialBytes)} of it not finished)` : '';
    console.log(`${color('bold', plain(id).padEnd(width))}  ${size(bytes).padStart(9)}  ${color('dim', plain(shown))}${partial}`);
  }
  const all = models.reduce((sum, { bytes }) => sum + bytes, 0);
  console.log(`${plural(models.length, 'model')}, ${size(all)} in ${plain(store.directory)}`);
}

/** Runs `work` with a bar and a signal that Ctrl-C raises. */
async function watched(work) {
  const bar = new Bar(process.stderr);
  const stop = new AbortController();
  process.once('SIGINT', () => {
    bar.say('Stopping …');
    stop.abort();
  });
  const progressCallback = ({ file, loaded, total, progressTotal }) =>
    bar.fill(progressTotal / 100, `${Math.floor(progressTotal)} %  ${plain(file)}  ${size(loaded)} of ${size(total)}`);
  try {
    return await work({ signal: stop.signal, progressCallback });
  } catch (error) {
    if (error.code !== 'ABORTED') throw error;
    process.exitCode = 130;
    return undefined;
  } finally {
    bar.end();
  }
}

async function addModel(store, id, { dtype, json }) {
  const added = await watched((watch) => store.add(id, { ...watch, ...(dtype && { dtype }) }));
  if (!added) return console.error('Stopped. What was fetched is kept; run the same command again to go on.');
  if (json) return printed(added);
  const from = added.repository === id.split('@')[0] ? '' : ` from ${added.repository}`;
  console.log(`${paint(process.stdout)('bold', added.id)}${from} at ${added.revision.slice(0, 8)}: ${size(added.bytes)} in ${plain(added.path)}`);
}

async function verifyModels(store, id, { json }) {
  const models = await watched((watch) => store.verify(id, watch));
  if (!models) return console.error('Stopped.');
  const broken = models.filter(({ problems }) => problems.length > 0);
  if (broken.length > 0) process.exitCode = 1;
  if (json) return printed({ directory: store.directory, models });
  const color = paint(process.stdout);
  for (const { id, sound, unchecked, bytes, problems } of models) {
    const rest = unchecked > 0 ? `, ${number.format(unchecked)} without a hash` : '';
    const state = problems.length > 0 ? color('red', plural(problems.length, 'problem')) : 'sound';
    console.log(`${color('bold', plain(id))}: ${state} (${plural(sound, 'file')}, ${size(bytes)} read${rest})`);
    for (const { file, path, what } of problems) console.log(`  ${plain(file)}: ${plain(what)} (${plain(path)})`);
    if (problems.length > 0) console.log(`  Fetch anew what is needed of it: ${color('cyan', `npx embedcore models add ${plain(id)}`)}`);
  }
  console.log(`${plural(models.length, 'model')} in ${plain(store.directory)}, ${broken.length === 0 ? 'all sound' : `${number.format(broken.length)} with problems`}`);
}

async function removeModel(store, id, { json }) {
  const bytes = await store.remove(id);
  if (json) return printed({ id, bytes });
  console.log(`${plain(id)} is removed: ${size(bytes)} are free again`);
}

const shortened = (text, width) => (text.length > width ? `${[...text].slice(0, width - 1).join('').trimEnd()}…` : text);

/** Numbers of serve: the option of the server that each is, and how much of its unit is one. */
const SERVE_NUMBERS = {
  port: ['port', 1],
  'max-batch-items': ['maxBatchItems', 1],
  'max-body-mb': ['maxBodyMB', 1],
  'max-queued-requests': ['maxQueuedRequests', 1],
  'max-queued-mb': ['maxQueuedMB', 1],
  'drain-seconds': ['drainTimeoutMs', 1000],
};

async function serve(rest, values) {
  if (rest.length > 0) throw new UsageError(`serve takes no arguments, got ${rest.join(' ')}`);
  // Loaded by this command only: the others need no HTTP.
  const { EmbeddingServer } = require('embedcore/server');
  const options = { generator: { ...generatorOf(values), ...(values.cache && { cache: { persistPath: values.cache } }) } };
  for (const [name, [option, unit]] of Object.entries(SERVE_NUMBERS)) if (values[name] !== undefined) options[option] = numeric(name, values[name]) * unit;
  if (values['memory-limit'] !== undefined) options.generator.memoryLimit = numeric('memory-limit', values['memory-limit']);
  const apiKey = values['api-key'] ?? process.env.EMBEDCORE_API_KEY;
  const others = { host: values.host, aliases: values.alias, apiKey };
  for (const [option, value] of Object.entries(others)) if (value !== undefined) options[option] = value;
  let server;
  try {
    server = new EmbeddingServer(options);
  } catch (error) {
    throw inFlags(error);
  }

  const bar = new Bar(process.stderr);
  let stopping;
  for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143]]) {
    process.on(signal, () => {
      // The second one ends the process at once.
      if (stopping) process.exit(code);
      bar.end();
      console.error('Finishing what runs …');
      stopping = server.close().then(() => process.exit(0));
    });
  }
  const progressCallback = ({ file, loaded, total, progressTotal }) =>
    bar.fill(progressTotal / 100, `${Math.floor(progressTotal)} %  ${plain(file)}  ${size(loaded)} of ${size(total)}`);
  try {
    await server.listen({ progressCallback });
  } catch (error) {
    bar.end();
    if (stopping) return stopping;
    throw error;
  }
  bar.end();
  const color = paint(process.stdout);
  console.log(`${color('bold', plain(server.models.join(', ')))} is served at ${color('cyan', `${server.url}/v1`)} until you press Ctrl-C`);
}

/** An error about an option, in the words of the command line. */
function inFlags(error) {
  const [flag] = Object.entries(SERVE_NUMBERS).find(([, [option]]) => option === error.details?.option) ?? [];
  return flag ? new UsageError(error.message.replace(/^.*?`: /, `--${flag}: `)) : error;
}

function numeric(name, text) {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text);
  throw new UsageError(`--${name} is ${text}, not a number`);
}

async function dashboard(rest, { port, host }) {
  if (rest.length > 1) throw new UsageError(`Expected one snapshot, got ${rest.join(' ')}`);
  if (port !== undefined && !/^\d{1,5}$/.test(port)) throw new UsageError(`--port is ${port}, not a whole number from 0 to 65535`);
  const serve = (at) => {
    const options = { port: at, keepAlive: true, ...(host !== undefined && { host }) };
    return rest.length > 0 ? PerformanceDashboard.serveSnapshot(rest[0], options) : new PerformanceDashboard().serve(options);
  };
  // A port that was not asked for may be another one.
  const server = await serve(Number(port ?? PORT)).catch((error) => {
    if (port !== undefined || error.details?.option !== 'port') throw error;
    return serve(0);
  });
  const color = paint(process.stdout);
  console.log(`${rest.length > 0 ? plain(rest[0]) : 'The dashboard'} is at ${color('cyan', server.url)} until you press Ctrl-C`);
  if (rest.length === 0) console.log(color('dim', '  It shows this process alone. Open a snapshot on the page, or have your own program serve it: new PerformanceDashboard().serve()'));
  process.once('SIGINT', () => server.close().then(() => process.exit(0)));
}

/** Adds the command that helps to errors that a command can help with. */
function explained(error, directory, values) {
  if (!error.details?.path) return error;
  const help = {
    NOT_INITIALIZED: () => advice('index', directory, values),
    INVALID_CONFIG: () => advice('index', directory, values, '--rebuild'),
    CACHE_STORAGE_FAILED: () => error.message.includes('rebuild') && advice('index', directory, values, '--rebuild'),
  }[error.code]?.();
  return help ? new UsageError(`${plain(error.message)}. Run: ${help}`) : error;
}

/** A progress bar on a terminal, nothing elsewhere. */
class Bar {
  #stream;
  #drawn = false;

  constructor(stream) {
    this.#stream = stream;
  }

  draw(done, total, text) {
    if (total > 0) this.fill(done / total, `${Math.floor((done / total) * 100)} %  ${number.format(done)}/${plural(total, 'file')}  ${text}`);
  }

  /** A bar of which `share`, 0 to 1, is done. */
  fill(share, figures) {
    if (!this.#stream.isTTY) return;
    const width = Math.max(0, Math.min(28, (this.#stream.columns || 80) - figures.length - 2));
    const filled = Math.round(share * width);
    this.say(`${'█'.repeat(filled)}${'░'.repeat(width - filled)} ${figures}`);
  }

  /** One line that the next one replaces. */
  say(line) {
    if (!this.#stream.isTTY) return;
    this.#stream.write(`\r\x1b[K${line.trimStart().slice(0, (this.#stream.columns || 80) - 1)}`);
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
  console.error(`${paint(process.stderr)('red', 'embedcore:')} ${plain(error.message)}`);
  if (error instanceof UsageError && !error.message.includes('npx')) console.error('See embedcore --help');
  process.exitCode = error instanceof UsageError ? 2 : 1;
});
