'use strict';

const { ModelStore } = require('embedcore');

const { KINDS, known } = require('../known-models');
const { Bar, number, paint, plain, plural, size } = require('../terminal');
const { UsageError } = require('../usage');

const options = { dtype: { type: 'string' }, 'cache-dir': { type: 'string' }, json: { type: 'boolean' } };

/** What can be done with the models that are kept. */
const MODEL_COMMANDS = { list: listModels, add: addModel, verify: verifyModels, remove: removeModel };

async function models([command, ...ids], values) {
  if (command === undefined) return listKnown(values);
  if (!Object.hasOwn(MODEL_COMMANDS, command)) throw new UsageError(`There is no command models ${command}; known are ${Object.keys(MODEL_COMMANDS).join(', ')}`);
  const [least, most] = { list: [0, 0], add: [1, 1], verify: [0, 1], remove: [1, 1] }[command];
  if (ids.length < least) throw new UsageError(`Which model? embedcore models ${command} OWNER/NAME`);
  if (ids.length > most) throw new UsageError(`models ${command} takes ${most === 0 ? 'no model' : 'one model'}, got ${ids.join(' ')}`);
  if (values.dtype !== undefined && command !== 'add') throw new UsageError('--dtype is an option of models add');
  const store = new ModelStore({ cacheDir: values['cache-dir'] });
  return MODEL_COMMANDS[command](store, ids[0], values);
}

const printed = (value) => console.log(JSON.stringify(value, null, 2));

/** Models that are known to work, by kind. */
function listKnown({ json, dtype, 'cache-dir': directory }) {
  if (dtype !== undefined) throw new UsageError('--dtype is an option of models add');
  if (directory !== undefined) throw new UsageError('--cache-dir is an option of models list, add, verify, remove');
  if (json) return printed({ models: known });
  const color = paint(process.stdout);
  const width = Math.max(...known.map(({ id }) => id.length));
  for (const [kind, { title, class: name, none }] of Object.entries(KINDS)) {
    console.log(`${color('bold', title)} (${name})`);
    for (const { id, bytes, licence, dtype } of known.filter((model) => model.kind === kind)) {
      const only = dtype ? `  --dtype ${dtype}` : '';
      console.log(`  ${id.padEnd(width)}  ${(bytes === 0 ? 'included' : size(bytes)).padStart(9)}  ${color('dim', `${licence}${only}`)}`);
    }
    if (none) console.log(color('dim', `  ${none}`));
  }
  console.log(`Any other model of these kinds works, too. Fetch one: ${color('cyan', 'npx embedcore models add OWNER/NAME')}`);
}

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

module.exports = { options, run: models };
