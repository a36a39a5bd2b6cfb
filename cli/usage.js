// What commands were asked for, and what is said where that cannot be.
'use strict';

const { existsSync, statSync } = require('node:fs');
const { isAbsolute, relative, resolve } = require('node:path');

const { plain, quoted } = require('./terminal');

/** What the user has done wrong, in words for the user. */
class UsageError extends Error {}

/** The generator's options that commands share. */
const generatorOf = ({ model }) => (model === undefined ? {} : { modelPath: model });

/** How texts are split. */
function splittingOf(values) {
  const whole = (name, least) => {
    if (values[name] === undefined) return undefined;
    const given = numeric(name, values[name]);
    if (Number.isInteger(given) && given >= least) return given;
    throw new UsageError(`--${name} is ${values[name]}, not a whole number from ${least}`);
  };
  return { maxTokens: whole('max-tokens', 1), overlap: whole('overlap', 0) };
}

/** Where a queue is: its server, its name, the server of the shared tier, and the first as it may be shown. */
function queueOf({ queue = process.env.EMBEDCORE_QUEUE, 'queue-name': name = 'embedcore', shared = process.env.EMBEDCORE_SHARED ?? queue }) {
  if (queue === undefined || queue === '') throw new UsageError('Where is the queue? --queue redis://host:6379, or EMBEDCORE_QUEUE, which ps does not show');
  if (name === '') throw new UsageError('--queue-name is empty');
  if (!URL.canParse(queue)) throw new UsageError('--queue is no URL such as redis://host:6379');
  return { connection: queue, name, shared, shown: new URL(queue).host };
}

/** The number of an option. */
function numeric(name, text) {
  if (/^(\d+\.?\d*|\.\d+)$/.test(text)) return Number(text);
  throw new UsageError(`--${name} is ${text}, not a number`);
}

/** Takes a key that was given as a flag out of what `ps` and /proc show of this process. */
function hideKey({ 'api-key': key }) {
  if (key !== undefined) process.title = 'embedcore';
}

/** The directory that the command was started in. */
function here() {
  try {
    return process.cwd();
  } catch {
    throw new UsageError('The current directory is not there any more: change to another one, or name a directory');
  }
}

/** The one directory that a command was given, if any. */
function directoryOf(rest, hint = '') {
  if (rest.length > 1) throw new UsageError(`Expected one directory, got ${rest.join(' ')}${hint}`);
  if (rest.length === 0) return undefined;
  const directory = isAbsolute(rest[0]) ? resolve(rest[0]) : resolve(here(), rest[0]);
  if (!existsSync(directory) || !statSync(directory).isDirectory()) throw new UsageError(`There is no directory ${rest[0]}${hint}`);
  return directory;
}

/** A directory as it is named from here; empty if that is where we are. */
function named(directory) {
  try {
    return relative(process.cwd(), directory);
  } catch {
    return directory;
  }
}

/** A command that the user can copy. */
function advice(command, directory, { model }, ...flags) {
  const where = named(directory).replace(/^-/, './-');
  const words = command === 'search' ? ['"what it does"'] : [];
  const option = model && (model.startsWith('-') ? `--model=${quoted(model)}` : `--model ${quoted(model)}`);
  return ['npx embedcore', command, ...words, ...flags, where && quoted(where), option].filter(Boolean).join(' ');
}

/** Adds the command that helps to errors that a command can help with. */
function explained(error, directory, values) {
  if (!error.details?.path) return error;
  const help = {
    NOT_INITIALIZED: () => advice('index', directory, values),
    INVALID_CONFIG: () => advice('index', directory, values, '--rebuild'),
    CACHE_STORAGE_FAILED: () => error.message.includes('rebuild') && advice('index', directory, values, '--rebuild'),
  }[error.code]?.();
  return help ? new UsageError(`${plain(error.message)}. Run: ${help}`, { cause: error }) : error;
}

/** Says, where a collection was made with another model, what to do about it on the command line. */
function ofAnotherModel(error, command) {
  if (error.code !== 'INVALID_CONFIG' || !error.message.includes('was made with')) return error;
  const [, made] = /was made with ([^:]*(?::\S+?)?): use that/.exec(error.message) ?? [];
  return new UsageError(`The collection was made with ${plain(made ?? 'another model')}. Use that (--model), or run: ${command}`, { cause: error });
}

module.exports = { hideKey, UsageError, advice, directoryOf, explained, generatorOf, here, named, numeric, ofAnotherModel, queueOf, splittingOf };
