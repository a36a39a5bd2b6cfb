// Text files: found by patterns, read whole.
'use strict';

const { readdirSync, readFileSync, statSync } = require('node:fs');
const { join } = require('node:path');

const { Glob } = require('./glob');
const { InputError } = require('./lines');
const { shortened } = require('./terminal');
const { UsageError } = require('./usage');

/** Largest file that is read, in bytes. What is larger was not written by anybody. */
const MOST_BYTES = 256 * 2 ** 20;

/** Patterns, of which the last one that means a path decides; one that begins with `!` leaves out. */
function globs(patterns) {
  const rules = patterns.map((pattern) => {
    const out = pattern.startsWith('!');
    const shown = (out ? pattern.slice(1) : pattern).replace(/^\.?\//, '');
    if (shown === '') throw new UsageError('--glob is empty');
    try {
      return { pattern, out, glob: new Glob(shown) };
    } catch {
      throw new UsageError(`--glob ${shortened(pattern, 80)} is no pattern such as '**/*.md'`);
    }
  });
  if (rules.every(({ out }) => out)) rules.unshift({ pattern: '**', out: false, glob: new Glob('**') });
  return rules;
}

/**
 * The files below `directory` that are meant, as paths with `/`, sorted; links are not followed. And what must not be taken for gone:
 * directories that could not be read, and patterns that mean no file.
 */
function filesBelow(directory, patterns) {
  const rules = globs(patterns);
  const idle = new Set(rules.filter(({ out }) => !out));
  const [files, unread] = [[], []];
  const means = (path) => {
    let meant = false;
    for (const rule of rules) {
      if ((meant !== rule.out && !idle.has(rule)) || !rule.glob.means(path)) continue;
      idle.delete(rule);
      meant = !rule.out;
    }
    return meant;
  };
  const walk = (below) => {
    let entries;
    try {
      entries = readdirSync(join(directory, below), { withFileTypes: true });
    } catch (error) {
      if (below === '') throw new InputError(`${directory} cannot be read: ${reasonOf(error)}`);
      // One that was removed meanwhile is gone.
      if (error.code !== 'ENOENT') unread.push({ directory: below, reason: reasonOf(error) });
      return;
    }
    for (const entry of entries) {
      const path = below === '' ? entry.name : `${below}/${entry.name}`;
      if (entry.isFile() && means(path)) files.push(path);
      if (entry.isDirectory() && rules.some(({ out, glob }) => !out && glob.mayMeanBelow(path))) walk(path);
    }
  };
  walk('');
  return { files: files.sort(), unread, idle: [...idle] };
}

/** What the system says, without the call and the path. */
const reasonOf = (error) => error.message.split(', ')[0];

/** The text of a file, every character of it. */
function textOf(path) {
  let bytes;
  try {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (!stats) throw new InputError(`There is no file ${path}`);
    if (stats.isDirectory()) throw new InputError(`${path} is a directory, not a file`);
    if (stats.size > MOST_BYTES) throw new InputError(`${path} is larger than ${MOST_BYTES / 2 ** 20} MB`);
    bytes = readFileSync(path);
  } catch (error) {
    throw error instanceof InputError ? error : new InputError(`${path} cannot be read: ${reasonOf(error)}`);
  }
  return decoded(bytes, path);
}

/** Text in UTF-8, of what is called `name`. */
function decoded(bytes, name) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new InputError(`${name} is not UTF-8`);
  }
}

module.exports = { decoded, filesBelow, textOf };
