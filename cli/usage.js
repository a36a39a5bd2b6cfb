// What commands were asked for, and what is said where that cannot be.
'use strict';

const { statSync } = require('node:fs');
const { isAbsolute, relative, resolve } = require('node:path');

const { plain, quoted } = require('./terminal');

/** What the user has done wrong, in words for the user. */
class UsageError extends Error {}

/** The generator's options that commands share. */
const generatorOf = ({ model }) => (model === undefined ? {} : { modelPath: model });

/** Whether texts in no known language are indexed; `undefined` leaves an index as it is. */
function textsOf({ text, 'no-text': none }) {
  if (text && none) throw new UsageError('--text and --no-text do not go together');
  return text ? true : none ? false : undefined;
}

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

/** The number of an option; `signed`: which may be less than 0. */
function numeric(name, text, signed = false) {
  const [, minus, digits] = /^(-?)(\d+\.?\d*|\.\d+)$/.exec(text) ?? [];
  if (digits === undefined) throw new UsageError(`--${name} is ${text}, not a number`);
  if (minus && !signed) throw new UsageError(`--${name} is ${text}, less than 0`);
  return Number(text);
}

/** Takes a key that was given as a flag out of what `ps` and /proc show of this process. */
function hideKey({ 'api-key': key }) {
  if (key !== undefined) process.title = 'embedcore';
}

/** Serves a page on the port that was asked for, else on the usual one, or another one if that is taken. */
async function onPort(port, usual, serve) {
  if (port !== undefined && !/^\d{1,5}$/.test(port)) throw new UsageError(`--port is ${port}, not a whole number from 0 to 65535`);
  return serve(Number(port ?? usual)).catch((error) => {
    if (port !== undefined || error.details?.option !== 'port') throw error;
    return serve(0);
  });
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
  let stats;
  try {
    stats = statSync(directory, { throwIfNoEntry: false });
  } catch (error) {
    if (error.code !== 'ENOTDIR') throw new UsageError(`${rest[0]} cannot be read: ${error.message.split(', ')[0]}`);
  }
  if (!stats?.isDirectory()) throw new UsageError(`There is no directory ${rest[0]}${hint}`);
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

/** A command with its words and options, as a shell takes it. */
function commandOf(command, words, values, options) {
  const flags = Object.entries(values).flatMap(([name, value]) => {
    if (options[name]?.type === 'boolean') return value ? [`--${name}`] : [];
    const one = (text) => (text.startsWith('-') ? `--${name}=${quoted(text)}` : `--${name} ${quoted(text)}`);
    return value === undefined ? [] : [value].flat().map(one);
  });
  // What begins with a dash is no option.
  const rest = words.some((word) => word.startsWith('-')) ? [...flags, '--', ...words.map(quoted)] : [...words.map(quoted), ...flags];
  return ['npx embedcore', command, ...rest].join(' ');
}

/** Says, where a collection was made with another model, what to do about it: a command with that model, or with `flag`. */
function ofAnotherModel(error, { command, words, values, options }, flag) {
  const { madeWith } = error.details ?? {};
  if (error.code !== 'INVALID_CONFIG' || madeWith === undefined) return error;
  const of = (more) => commandOf(command, words, { ...values, ...more }, options);
  const commands = [madeWith !== '' && of({ model: madeWith === 'builtin' ? undefined : madeWith }), flag && of({ [flag]: true })].filter(Boolean);
  const by = madeWith === '' ? 'vectors of no model' : `the model ${plain(madeWith)}`;
  return new UsageError(`The collection was made with ${by}.${commands.length > 0 ? ` Run: ${commands.join(', or, to embed all anew: ')}` : ''}`, { cause: error });
}

module.exports = { hideKey, UsageError, advice, commandOf, directoryOf, explained, generatorOf, here, named, numeric, ofAnotherModel, onPort, queueOf, splittingOf, textsOf };
