'use strict';

const { existsSync, realpathSync } = require('node:fs');
const { dirname, resolve, sep } = require('node:path');

const { EmbeddingCollection } = require('embedcore');

const { paint, plain, shortened } = require('../terminal');
const { UsageError, commandOf, generatorOf, here, named, numeric, ofAnotherModel } = require('../usage');

const options = {
  limit: { type: 'string' },
  'min-score': { type: 'string' },
  filter: { type: 'string' },
  model: { type: 'string' },
  json: { type: 'boolean' },
};

/** Characters of an answer that are shown. */
const SHOWN = 400;

async function query(rest, values) {
  const [given, words, ...others] = rest;
  if (given === undefined || words === undefined) throw new UsageError('What shall be asked? embedcore query notes.db "how are caches filled?"');
  if (others.length > 0) throw new UsageError(`Expected a file and a question, got ${rest.join(' ')}; put the question in quotes`);
  const path = resolve(here(), given);
  if (!existsSync(path)) throw new UsageError(`There is no collection ${given}. Make one: ${commandOf('collect', ['DIR'], { to: given }, {})}`);
  const limit = numeric('limit', values.limit ?? '10');
  if (!(Number.isInteger(limit) && limit >= 1)) throw new UsageError(`--limit is ${values.limit}, not a whole number from 1`);
  const minScore = values['min-score'] === undefined ? undefined : numeric('min-score', values['min-score'], true);
  const collection = new EmbeddingCollection({ path, generator: generatorOf(values) });
  let [matches, root] = [];
  try {
    ({ root } = await collection.metadata());
    matches = await collection.query(words, { limit, minScore, filter: filterOf(values) });
  } catch (error) {
    throw ofAnotherModel(error, { command: 'query', words: rest, values, options });
  } finally {
    await collection.close();
  }
  // Where documents are: those of `collect` are files below a root, which is kept as its path from the collection.
  const directory = typeof root === 'string' ? resolve(realpathSync(dirname(path)), root) : undefined;
  if (values.json) return console.log(JSON.stringify({ path, root: directory, query: words, matches }, undefined, 2));
  const color = paint(process.stdout);
  if (matches.length === 0) console.log('Nothing that was asked for is in the collection.');
  const width = process.stdout.isTTY && process.stdout.columns ? Math.max(10, 2 * (process.stdout.columns - 8)) : SHOWN;
  for (const { id, score, text, source } of matches) {
    const place = source ? `${directory === undefined ? source.id : named(resolve(directory, source.id)).replaceAll(sep, '/')}:${source.line}` : id;
    console.log(`${color('yellow', score.toFixed(3))}  ${color('cyan', plain(place))}  ${color('bold', (source?.headings ?? []).map(plain).join(' › '))}`.trimEnd());
    if (text) console.log(color('dim', `       ${shortened(plain(text), Math.min(SHOWN, width))}`));
  }
}

function filterOf({ filter }) {
  if (filter === undefined) return undefined;
  try {
    return JSON.parse(filter);
  } catch (error) {
    throw new UsageError(`--filter is not JSON such as '{"lang":"en"}' (${error.message})`);
  }
}

module.exports = { options, run: query };
