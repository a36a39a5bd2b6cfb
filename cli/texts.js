// Text files: found by patterns, read whole.
'use strict';

const { readdirSync, readFileSync, statSync } = require('node:fs');
const { join } = require('node:path');

const { InputError } = require('./lines');
const { UsageError } = require('./usage');

/** Largest file that is read, in bytes. What is larger was not written by anybody. */
const MOST_BYTES = 256 * 2 ** 20;

/** What patterns are made of, and what each part is in a regular expression; the rest stands for itself. */
const PARTS = /(^|\/)(\*\*)(\/|$)|(^|\/)?(\*+|\?)|\[(!?)((?:\\.|[^\]])+)\]|\{([^{}]*)\}|\\(.)|[^]/gu;

/** A file or directory that no `*` means: hidden ones, and packages that others wrote. */
const PASSED_OVER = '(?!\\.|node_modules(?:/|$))';

const literal = (text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');

/** The regular expression of a pattern. */
function expression(pattern) {
  return pattern.replace(PARTS, (all, before, deep, after, edge, any, not, set, choices, escaped) => {
    if (deep !== undefined) return after === '' ? `${before}(?:${PASSED_OVER}[^/]+/)*${PASSED_OVER}[^/]+` : `${before}(?:${PASSED_OVER}[^/]+/)*`;
    if (any !== undefined) return `${edge ?? ''}${edge === undefined ? '' : PASSED_OVER}${any === '?' ? '[^/]' : '[^/]*'}`;
    if (set !== undefined) return `[${not ? '^/' : ''}${set.replace(/[\\^[]/g, '\\$&')}]`;
    if (choices !== undefined) return `(?:${choices.split(',').map(expression).join('|')})`;
    return literal(escaped ?? all);
  });
}

/** Whether a path below a directory is meant: by a pattern, and by none that begins with `!` and comes after it. */
function matcher(patterns) {
  const rules = patterns.map((pattern) => {
    const out = pattern.startsWith('!');
    const shown = (out ? pattern.slice(1) : pattern).replace(/^\.?\//, '');
    if (shown === '') throw new UsageError('--glob is empty');
    try {
      return { out, is: new RegExp(`^${expression(shown)}$`, 'u') };
    } catch {
      throw new UsageError(`--glob ${pattern} is no pattern such as '**/*.md'`);
    }
  });
  if (rules.every(({ out }) => out)) rules.unshift({ out: false, is: new RegExp(`^${expression('**')}$`, 'u') });
  return (path) => rules.reduce((meant, { out, is }) => (meant !== out || !is.test(path) ? meant : !out), false);
}

/** The files below `directory` that are meant, as paths with `/`, sorted. Links are not followed. */
function filesBelow(directory, patterns) {
  const means = matcher(patterns);
  // Nothing is looked for where no pattern could mean it.
  const named = (name) => patterns.some((pattern) => pattern.split('/').includes(name));
  const found = [];
  const walk = (below) => {
    let entries;
    try {
      entries = readdirSync(join(directory, below), { withFileTypes: true });
    } catch (error) {
      if (below === '') throw new InputError(`${directory} cannot be read: ${error.message.split(', ')[0]}`);
      return;
    }
    for (const entry of entries) {
      const path = below === '' ? entry.name : `${below}/${entry.name}`;
      if (entry.isFile() && means(path)) found.push(path);
      if (entry.isDirectory() && (named(entry.name) || !(entry.name.startsWith('.') || entry.name === 'node_modules'))) walk(path);
    }
  };
  walk('');
  return found.sort();
}

/** The text of a file, every character of it. */
function textOf(path) {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (!stats) throw new InputError(`There is no file ${path}`);
  if (stats.isDirectory()) throw new InputError(`${path} is a directory, not a file`);
  if (stats.size > MOST_BYTES) throw new InputError(`${path} is larger than ${MOST_BYTES / 2 ** 20} MB`);
  let bytes;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new InputError(`${path} cannot be read: ${error.message.split(', ')[0]}`);
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
