// The text files of a directory, in a collection that can be asked.
'use strict';

const { join, resolve } = require('node:path');

const { EmbeddingCollection, OptimizedEmbeddingGenerator } = require('embedcore');

const { InputError } = require('../lines');
const { filesBelow, textOf } = require('../texts');
const { Bar, number, paint, plain, plural, quoted } = require('../terminal');
const { UsageError, directoryOf, generatorOf, here, ofAnotherModel, splittingOf } = require('../usage');

const options = {
  glob: { type: 'string', multiple: true },
  to: { type: 'string' },
  keep: { type: 'boolean' },
  rebuild: { type: 'boolean' },
  'max-tokens': { type: 'string' },
  overlap: { type: 'string' },
  model: { type: 'string' },
  verbose: { type: 'boolean' },
  json: { type: 'boolean' },
};

async function collect(rest, values) {
  const { glob = ['**/*.md'], to, keep, rebuild, json } = values;
  if (to === undefined || to === '') throw new UsageError("Where to? embedcore collect DIR --glob '**/*.md' --to notes.db");
  const directory = directoryOf(rest, "; put patterns in quotes, behind --glob") ?? here();
  const splitting = splittingOf(values);
  const files = filesBelow(directory, glob);
  const bar = new Bar(process.stderr);
  const stop = new AbortController();
  // Once: a second Ctrl-C ends the process at once. What is kept stays either way.
  process.once('SIGINT', () => {
    bar.say('Stopping …');
    stop.abort();
  });
  const generator = new OptimizedEmbeddingGenerator(generatorOf(values));
  const collection = new EmbeddingCollection({ path: to, generator, onModelChange: rebuild ? 'rebuild' : 'error' });
  const started = performance.now();
  const skipped = [];
  let done = 0;
  try {
    await generator.initialize(undefined, { signal: stop.signal, progressCallback: bar.loading });
    const progressCallback = (documents) => {
      done = documents;
      bar.draw(documents + skipped.length, files.length, '');
    };
    const report = await collection.sync(documents(directory, files, skipped), { ...splitting, remove: !keep, signal: stop.signal, progressCallback });
    const chunks = await collection.count();
    bar.end();
    const { embedded, ...changes } = report;
    const seconds = (performance.now() - started) / 1000;
    if (json) return console.log(JSON.stringify({ root: directory, path: resolve(here(), to), files: files.length - skipped.length, ...changes, embedded, chunks, skipped, seconds }, undefined, 2));
    summarise({ ...report, chunks, seconds, skipped, files: files.length - skipped.length }, directory, values);
  } catch (error) {
    bar.end();
    // What a file said comes back as the cause of what the collection says.
    if (error.cause instanceof InputError) throw error.cause;
    if (error.code !== 'ABORTED' || !stop.signal.aborted) throw ofAnotherModel(error, 'npx embedcore collect … --rebuild');
    console.error(`Stopped. ${plural(done, 'file')} of ${number.format(files.length)} are done; run the same command again to go on.`);
    process.exitCode = 130;
  } finally {
    await collection.close();
    await generator.cleanup();
  }
}

/** What is in the files; `skipped` is told of those that are no text. */
function* documents(directory, files, skipped) {
  for (const file of files) {
    let text;
    try {
      text = textOf(join(directory, file));
      if (text.includes('\0')) throw new InputError('It is binary');
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      skipped.push({ file, reason: error.message.replace(join(directory, file), 'it') });
      continue;
    }
    yield { id: file, text };
  }
}

function summarise({ files, chunks, embedded, seconds, skipped, ...changes }, directory, values) {
  const color = paint(process.stdout);
  console.log(`${color('bold', plural(chunks, 'chunk'))} of ${plural(files, 'file')} in ${seconds.toFixed(seconds < 10 ? 2 : 1)} s: ${plain(values.to)}`);
  const parts = ['added', 'changed', 'removed', 'unchanged'].filter((name) => changes[name] > 0).map((name) => `${number.format(changes[name])} ${name}`);
  if (parts.length > 0) console.log(`  ${parts.join(', ')}; ${plural(embedded, 'chunk')} embedded`);
  if (skipped.length > 0) console.log(color('dim', `  ${plural(skipped.length, 'file')} left out that ${skipped.length === 1 ? 'is' : 'are'} no text in UTF-8`));
  if (values.verbose) for (const { file, reason } of skipped) console.log(color('dim', `    ${plain(file)}: ${plain(reason)}`));
  if (files === 0) console.log(`No file in ${plain(directory)} is meant by ${(values.glob ?? ['**/*.md']).map(quoted).join(' ')}.`);
  else {
    const model = values.model === undefined ? '' : ` --model ${quoted(values.model)}`;
    console.log(`Now ask it: ${color('cyan', `npx embedcore query ${quoted(values.to)} "what it says"${model}`)}`);
  }
}

module.exports = { options, run: collect };
