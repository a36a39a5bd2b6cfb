'use strict';

const { existsSync } = require('node:fs');
const { dirname, join, sep } = require('node:path');

const { CodeIndex } = require('embedcore');

const { paint, plain, shortened } = require('../terminal');
const { UsageError, directoryOf, explained, generatorOf, here, named } = require('../usage');

const options = { limit: { type: 'string' }, json: { type: 'boolean' }, model: { type: 'string' } };

/** The nearest directory with an index, from the current one upwards. */
function indexed() {
  for (let directory = here(); ; directory = dirname(directory)) {
    if (existsSync(join(directory, '.embedcore', 'index.sqlite'))) return directory;
    if (directory === dirname(directory)) return here();
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
  // Files are named from here, so that they can be opened.
  const where = named(directory).replaceAll(sep, '/');
  const shown = (file) => (where ? `${where.replace(/\/$/, '')}/${file}` : file);
  if (json) return console.log(JSON.stringify(matches.map((match) => ({ ...match, file: shown(match.file) })), undefined, 2));
  const color = paint(process.stdout);
  if (matches.length === 0) console.log(`Nothing is indexed in ${plain(directory)} yet.`);
  // Lines are cut where they would wrap; what reads a pipe gets them whole.
  const width = process.stdout.isTTY && process.stdout.columns ? Math.max(10, process.stdout.columns - 8) : Infinity;
  for (const { file, line, signature, summary, score } of matches) {
    console.log(`${color('yellow', score.toFixed(3))}  ${color('cyan', plain(`${shown(file)}:${line}`))}`);
    console.log(`       ${color('bold', shortened(plain(signature), width))}`);
    if (summary) console.log(color('dim', `       ${shortened(plain(summary), width)}`));
  }
}

module.exports = { options, run: search };
