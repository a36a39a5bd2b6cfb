// The text files of a directory, in a collection that can be asked.
'use strict';

const { realpathSync } = require('node:fs');
const { dirname, isAbsolute, join, relative, resolve, sep } = require('node:path');

const { EmbeddingCollection, OptimizedEmbeddingGenerator } = require('embedcore');

const { InputError } = require('../lines');
const { filesBelow, textOf } = require('../texts');
const { Bar, number, paint, plain, plural, quoted } = require('../terminal');
const { UsageError, commandOf, directoryOf, generatorOf, here, ofAnotherModel, splittingOf } = require('../usage');

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
  const tree = filesBelow(directory, glob);
  const { files, unread } = tree;
  // Nothing is forgotten because a pattern or a directory was not the one that was meant.
  if (files.length === 0) {
    const unreadable = unread.length > 0 ? `, and ${plural(unread.length, 'directory', 'directories')} in it cannot be read` : '';
    throw new InputError(`No file in ${directory} is meant by ${glob.map(quoted).join(' ')}${unreadable}: nothing was collected, and nothing forgotten`);
  }
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
  let done = 0;
  try {
    await generator.initialize(undefined, { signal: stop.signal, progressCallback: bar.loading });
    const sources = await Sources.of(collection, resolve(here(), to), directory, tree);
    const progressCallback = (documents) => {
      done = documents;
      bar.draw(documents + sources.skipped.length, files.length, '');
    };
    const remove = keep ? false : (id) => sources.isGone(id);
    const report = await collection.sync(sources.documents(), { ...splitting, remove, signal: stop.signal, progressCallback });
    const chunks = await collection.count();
    bar.end();
    const { embedded, ...changes } = report;
    const seconds = (performance.now() - started) / 1000;
    const { skipped, kept, others } = sources;
    const counts = { files: files.length - skipped.length, ...changes, embedded, chunks, kept, others };
    if (json) return console.log(JSON.stringify({ root: directory, path: resolve(here(), to), ...counts, skipped, unread, seconds }, undefined, 2));
    summarise({ ...counts, skipped, unread, seconds }, values);
  } catch (error) {
    bar.end();
    // What a file said comes back as the cause of what the collection says.
    if (error.cause instanceof InputError) throw error.cause;
    if (error.code !== 'ABORTED' || !stop.signal.aborted) throw ofAnotherModel(error, { command: 'collect', words: rest, values, options }, 'rebuild');
    console.error(`Stopped. ${plural(done, 'file')} of ${number.format(files.length)} are done; run the same command again to go on.`);
    process.exitCode = 130;
  } finally {
    await collection.close();
    await generator.cleanup();
  }
}

/**
 * The files of a directory as documents of a collection. Their ids are their paths from the collection's root: the directory that was
 * collected first. The root is kept in the collection, as its path from there, so that both may be moved together.
 */
class Sources {
  #root;
  #directory;
  #tree;
  /** Whether what is in the collection came from this root. */
  #owns;
  #left = new Set();

  /** Files that are no text, or could not be read. */
  skipped = [];
  /** Documents that are not known to be gone: they could not be looked at, or no pattern means anything any more where they were. */
  kept = 0;
  /** Documents of other directories. */
  others = 0;

  static async of(collection, path, directory, tree) {
    const before = await collection.metadata();
    const [place, real] = [realpathSync(dirname(path)), realpathSync(directory)];
    // What somebody else has put there is nobody's of ours.
    const owns = typeof before.root === 'string' || (await collection.count()) === 0;
    const { root } = await collection.setMetadata({ root: slashed(relative(place, real)) || '.' }, { onlyNew: true });
    return new Sources(resolve(place, root), real, tree, owns);
  }

  constructor(root, directory, tree, owns) {
    [this.#root, this.#directory, this.#tree, this.#owns] = [root, directory, tree, owns];
  }

  /** What is in the files. */
  *documents() {
    for (const file of this.#tree.files) {
      const path = join(this.#directory, file);
      let text;
      try {
        text = textOf(path);
        if (text.includes('\0')) throw new InputError('it is binary');
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        this.skipped.push({ file, reason: error.message.replace(path, 'it') });
        this.#left.add(file);
        continue;
      }
      yield { id: slashed(relative(this.#root, path)), text };
    }
  }

  /** Whether a document that did not come is gone. */
  isGone(id) {
    const file = slashed(relative(this.#directory, resolve(this.#root, id)));
    if (!this.#owns || file === '..' || file.startsWith('../') || isAbsolute(file)) {
      this.others++;
      return false;
    }
    const { unread, idle } = this.#tree;
    const unseen = this.#left.has(file) || unread.some(({ directory }) => file.startsWith(`${directory}/`)) || idle.some(({ glob }) => glob.means(file));
    if (unseen) this.kept++;
    return !unseen;
  }
}

const slashed = (path) => path.replaceAll(sep, '/');

function summarise({ files, chunks, embedded, kept, others, seconds, skipped, unread, ...changes }, values) {
  const color = paint(process.stdout);
  console.log(`${color('bold', plural(chunks, 'chunk'))} of ${plural(files, 'file')} in ${seconds.toFixed(seconds < 10 ? 2 : 1)} s: ${plain(values.to)}`);
  const parts = ['added', 'changed', 'removed', 'unchanged'].filter((name) => changes[name] > 0).map((name) => `${number.format(changes[name])} ${name}`);
  if (parts.length > 0) console.log(`  ${parts.join(', ')}; ${plural(embedded, 'chunk')} embedded`);
  const counts = new Map();
  for (const { reason } of skipped) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const reasons = [...counts].map(([reason, count]) => (counts.size === 1 ? plain(reason) : `${number.format(count)}: ${plain(reason)}`));
  if (skipped.length > 0) console.log(color('dim', `  ${plural(skipped.length, 'file')} left out (${reasons.join('; ')})`));
  if (values.verbose) for (const { file, reason } of skipped) console.log(color('dim', `    ${plain(file)}: ${plain(reason)}`));
  for (const { directory, reason } of unread) console.log(color('dim', `  ${plain(directory)}/ cannot be read: ${plain(reason)}`));
  if (kept > 0) console.log(color('dim', `  ${plural(kept, 'file')} kept as before: not known to be gone`));
  if (others > 0) console.log(color('dim', `  ${plural(others, 'file')} of other directories left alone`));
  console.log(`Now ask it: ${color('cyan', commandOf('query', [values.to, 'what it says'], { model: values.model }, options))}`);
}

module.exports = { options, run: collect };
