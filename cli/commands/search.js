'use strict';

const { existsSync, readFileSync, realpathSync, statSync } = require('node:fs');
const { dirname, isAbsolute, join, relative, sep } = require('node:path');

const { CodeIndex } = require('embedcore');

const { paint, plain, plural, shortened } = require('../terminal');
const { UsageError, directoryOf, explained, generatorOf, here, hideKey, named, numeric, onPort, textsOf } = require('../usage');

const options = {
  limit: { type: 'string' },
  'min-score': { type: 'string' },
  path: { type: 'string', multiple: true },
  lang: { type: 'string', multiple: true },
  kind: { type: 'string', multiple: true },
  context: { type: 'string' },
  source: { type: 'boolean' },
  json: { type: 'boolean' },
  rerank: { type: 'string' },
  model: { type: 'string' },
  serve: { type: 'boolean' },
  text: { type: 'boolean' },
  'no-text': { type: 'boolean' },
  port: { type: 'string' },
  host: { type: 'string' },
  'allow-host': { type: 'string', multiple: true },
  'api-key': { type: 'string' },
};

/** Options of the page alone; those of an answer go without it. */
const OF_THE_PAGE = ['port', 'host', 'allow-host', 'api-key', 'text', 'no-text'];
const OF_BOTH = ['serve', 'model', ...OF_THE_PAGE];

/** Where the page is, unless something else is there. */
const PORT = 4041;

/** Lines around a match, at most. */
const MOST_CONTEXT = 1000;

/** The nearest directory with an index, from the current one upwards. */
function indexed() {
  for (let directory = here(); ; directory = dirname(directory)) {
    if (existsSync(join(directory, '.embedcore', 'index.sqlite'))) return directory;
    if (directory === dirname(directory)) return here();
  }
}

async function search(rest, values) {
  if (values.serve) return serve(rest, values);
  const misplaced = OF_THE_PAGE.find((name) => values[name] !== undefined);
  if (misplaced) throw new UsageError(`--${misplaced} belongs to --serve`);
  const { limit = '10', json, path: paths, lang: languages, kind: kinds, rerank } = values;
  const [words, ...others] = rest;
  if (words === undefined) throw new UsageError('What shall be searched for? embedcore search "open a file"');
  const directory = directoryOf(others, '; put the words in quotes') ?? indexed();
  if (!/^\d+$/.test(limit) || Number(limit) < 1 || Number(limit) > 1000) {
    throw new UsageError(`--limit is ${limit}, not a whole number from 1 to 1000`);
  }
  const context = values.context === undefined ? undefined : numeric('context', values.context);
  if (context !== undefined && !(Number.isInteger(context) && context <= MOST_CONTEXT)) {
    throw new UsageError(`--context is ${values.context}, not a whole number from 0 to ${MOST_CONTEXT}`);
  }
  const minScore = values['min-score'] === undefined ? undefined : numeric('min-score', values['min-score']);
  const index = new CodeIndex(directory, { generator: generatorOf(values) });
  let matches;
  try {
    matches = await index.search(words, { limit: Number(limit), minScore, paths, languages, kinds, rerank });
  } catch (error) {
    throw explained(error, directory, values);
  }
  const texts = new Texts(directory);
  if (json) {
    const shown = values.source ? matches.map((match) => ({ ...match, ...texts.source(match) })) : matches;
    return console.log(JSON.stringify({ root: directory, query: words, matches: shown }, undefined, 2));
  }
  // Files are named from here, so that they can be opened.
  const where = named(directory).replaceAll(sep, '/');
  const shown = (file) => (where ? `${where.replace(/\/$/, '')}/${file}` : file);
  const color = paint(process.stdout);
  if (matches.length === 0) console.log(filtered(values) ? 'Nothing that was asked for is in the index.' : `Nothing is indexed in ${plain(directory)} yet.`);
  // Lines are cut where they would wrap; what reads a pipe gets them whole.
  const width = process.stdout.isTTY && process.stdout.columns ? Math.max(10, process.stdout.columns - 8) : Infinity;
  for (const match of matches) {
    const { file, line, signature, summary, score, stale } = match;
    console.log(`${color('yellow', score.toFixed(3))}  ${color('cyan', plain(`${shown(file)}:${line}`))}${stale ? color('dim', '  (changed since it was indexed)') : ''}`);
    if (context === undefined) {
      console.log(`       ${color('bold', shortened(plain(signature), width))}`);
      if (summary) console.log(color('dim', `       ${shortened(plain(summary), width)}`));
      continue;
    }
    const lines = texts.around(match, context);
    if (!lines) console.log(color('dim', '       (the file cannot be read any more)'));
    for (const [number, text] of lines ?? []) {
      const inside = number >= line && number <= match.endLine;
      console.log(`${color('dim', `${String(number).padStart(6)} `)}${color(inside ? 'bold' : 'dim', shortened(plain(text), width))}`);
    }
  }
}

/** Serves the page of a directory's index until Ctrl-C. */
async function serve(rest, values) {
  const misplaced = Object.keys(values).find((name) => !OF_BOTH.includes(name));
  if (misplaced) throw new UsageError(`--${misplaced} does not go with --serve: choose on the page`);
  const directory = directoryOf(rest, '; what to search for is typed on the page') ?? indexed();
  const { host, 'allow-host': allowedHosts, 'api-key': apiKey = process.env.EMBEDCORE_API_KEY } = values;
  hideKey(values);
  const color = paint(process.stdout);
  const say = (text) => console.log(`${color('dim', new Date().toTimeString().slice(0, 8))}  ${text}`);
  const index = new CodeIndex(directory, { generator: generatorOf(values), textFiles: textsOf(values) });
  let told;
  const server = await onPort(values.port, PORT, (port) =>
    index.serve({
      port, host, allowedHosts, apiKey, keepAlive: true,
      onUpdate: ({ changed, removed, annotations, seconds }) => {
        told = undefined;
        if (changed + removed > 0) say(`${plural(changed + removed, 'file')} changed; ${plural(annotations, 'declaration')} in the index, ${seconds.toFixed(2)} s`);
      },
      // It is tried again and again.
      onError: (error) => {
        const { message } = explained(error, directory, values);
        if (message !== told) say(color('red', plain(message)));
        told = message;
      },
    }));
  console.log(`The code in ${plain(directory)} is searched at ${color('cyan', server.url)} until you press Ctrl-C`);
  // Once: a second Ctrl-C ends the process at once.
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => index.close().then(() => process.exit(0)));
}

const filtered = (values) => ['min-score', 'path', 'lang', 'kind'].some((name) => values[name] !== undefined);

/** A file of a directory. A link that was put in its place is followed within the directory, not out of it. */
function readWithin(directory, file) {
  const path = realpathSync(join(directory, file));
  const below = relative(realpathSync(directory), path);
  if (below === '..' || below.startsWith(`..${sep}`) || isAbsolute(below)) throw new Error(`${file} is a link that leads out of ${directory}`);
  if (!statSync(path).isFile()) throw new Error(`${file} is no file any more`);
  return readFileSync(path, 'utf8');
}

/** The lines of indexed files, as they are now; each is read once. */
class Texts {
  #directory;
  #files = new Map();

  constructor(directory) {
    this.#directory = directory;
  }

  /** So many lines before and after a match, and the first of its own, with their numbers. */
  around({ file, line, endLine }, context) {
    const lines = this.#lines(file);
    if (!lines) return undefined;
    const first = Math.max(1, line - context);
    const last = Math.min(lines.length, Math.min(endLine, line + context) + (context > 0 ? context : 0));
    return lines.slice(first - 1, last).map((text, at) => [first + at, text]);
  }

  /** The source of a match; nothing where the file is gone. */
  source({ file, line, endLine }) {
    const lines = this.#lines(file);
    return lines && { source: lines.slice(line - 1, endLine).join('\n') };
  }

  #lines(file) {
    if (!this.#files.has(file)) {
      let lines;
      try {
        lines = readWithin(this.#directory, file).split(/\r?\n/);
      } catch {
        // It was there when it was indexed.
      }
      this.#files.set(file, lines);
    }
    return this.#files.get(file);
  }
}

module.exports = { options, run: search, readWithin, Texts };
