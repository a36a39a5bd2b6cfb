'use strict';

const { CodeIndex } = require('embedcore');

const { Bar, number, paint, plain, plural } = require('../terminal');
const { advice, directoryOf, explained, generatorOf, here, textsOf } = require('../usage');

const options = { rebuild: { type: 'boolean' }, verbose: { type: 'boolean' }, watch: { type: 'boolean' }, text: { type: 'boolean' }, 'no-text': { type: 'boolean' }, model: { type: 'string' } };

async function index(rest, values) {
  const { rebuild } = values;
  const directory = directoryOf(rest) ?? here();
  const color = paint(process.stdout);
  const bar = new Bar(process.stderr);
  const index = new CodeIndex(directory, { generator: generatorOf(values), textFiles: textsOf(values) });
  const stop = new AbortController();
  // Once: a second Ctrl-C ends the process at once. What is written stays either way.
  process.once('SIGINT', () => {
    bar.say('Stopping …');
    stop.abort();
  });
  let last;
  try {
    last = await index.update({
      rebuild,
      signal: stop.signal,
      progressCallback: (report) => {
        last = report;
        bar.draw(report.done, report.changed, `${rate(report)} annotations/s`);
      },
    });
  } catch (error) {
    bar.end();
    if (error.code !== 'ABORTED') throw explained(error, directory, values);
    const done = last?.changed ? `${plural(last.done, 'file')} of ${number.format(last.changed)} are done` : 'Nothing was done yet';
    console.log(`Stopped. ${done}; run the same command again${rebuild ? ', without --rebuild,' : ''} to go on.`);
    process.exitCode = 130;
    return;
  }
  bar.end();
  summarise(last, directory, values, color);
  if (values.watch) await watch(index, directory, stop.signal, color);
}

/** Follows changes until Ctrl-C. */
async function watch(index, directory, signal, color) {
  const say = (text) => console.log(`${color('dim', new Date().toTimeString().slice(0, 8))}  ${text}`);
  const options = {
    signal,
    onUpdate: ({ changed, removed, embedded, seconds }) => {
      if (changed + removed === 0) return;
      const parts = [changed > 0 && `${plural(changed, 'file')} changed`, removed > 0 && `${plural(removed, 'file')} gone`];
      say(`${parts.filter(Boolean).join(', ')}: ${plural(embedded, 'annotation')} embedded in ${seconds.toFixed(2)} s`);
    },
    onError: (error) => say(color('red', plain(error.message))),
  };
  try {
    await index.watch(options);
  } catch (error) {
    if (error.code !== 'ABORTED') throw explained(error, directory, {});
  }
  if (!signal.aborted) {
    say('Watching for changes; Ctrl-C stops');
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  }
  await index.close();
}

const rate = ({ embedded, seconds }) => number.format(Math.round(embedded / Math.max(seconds, 0.001)));

function summarise(report, directory, values, color) {
  const { files, annotations, embedded, reused, unchanged, removed, encodings, skipped, examples, seconds } = report;
  const kept = annotations - embedded;
  console.log(
    `${color('bold', plural(annotations, 'annotation'))} of ${plural(files, 'file')} in ${seconds.toFixed(seconds < 10 ? 2 : 1)} s` +
      (embedded > 0 ? ` (${rate(report)}/s)` : ''),
  );
  const parts = [
    `${plural(embedded, 'annotation')} embedded`,
    kept > 0 && `${number.format(kept)} from cache (${plural(unchanged, 'unchanged file')}, ${number.format(reused)} in changed ones)`,
    removed > 0 && `${plural(removed, 'file')} forgotten`,
  ];
  console.log(`  ${parts.filter(Boolean).join(', ')}`);
  const others = Object.entries(encodings).map(([encoding, count]) => `${number.format(count)} in ${encoding}`);
  if (others.length > 0) console.log(color('dim', `  Not in UTF-8: ${others.join(', ')}`));
  const reasons = Object.entries(skipped).map(([reason, count]) => `${number.format(count)} ${reason}`);
  if (reasons.length > 0) console.log(color('dim', `  Files left out: ${reasons.join(', ')}`));
  if (values.verbose) for (const { file, reason } of examples) console.log(color('dim', `    ${plain(file) || '(name unknown)'}: ${reason}`));
  if (files === 0 && reasons.length > 0) {
    console.log(`No source file in ${plain(directory)} could be read${values.verbose ? '' : '; --verbose names those that were left out'}.`);
  } else if (files === 0) {
    const extensions = CodeIndex.extensions.map((extension) => `.${extension}`).join(' ');
    console.log(`There is no source file in ${plain(directory)} that .gitignore does not exclude (looked for ${extensions}).`);
  } else if (annotations > 0) {
    console.log(`Now search it: ${color('cyan', advice('search', directory, values))}`);
  }
}

module.exports = { options, run: index };
