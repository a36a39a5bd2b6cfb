// Texts or annotations in, vectors out, a line or a row each: any number of them, in little memory.
'use strict';

const { OptimizedEmbeddingGenerator } = require('embedcore');

const { InputError, Lines } = require('../lines');
const { OutputError, openOutput } = require('../output');
const { Bar, number, paint, plain, plural } = require('../terminal');
const { UsageError, generatorOf, queueOf } = require('../usage');

const options = {
  out: { type: 'string' },
  format: { type: 'string' },
  model: { type: 'string' },
  cache: { type: 'string' },
  queue: { type: 'string' },
  'queue-name': { type: 'string' },
  shared: { type: 'string' },
  fingerprint: { type: 'string' },
};

/** How often the bar moves, in milliseconds. */
const REDRAW_MS = 100;

async function embed(rest, values) {
  if (rest.length > 1) throw new UsageError(`Expected one file, got ${rest.join(' ')}`);
  const path = rest[0] ?? '-';
  if (rest.length === 0 && process.stdin.isTTY) throw new UsageError('What shall be embedded? embedcore embed FILE, or pipe JSON lines into it');
  const { out, cache } = values;
  const format = values.format ?? (out?.toLowerCase().endsWith('.npy') ? 'npy' : 'jsonl');
  if (format !== 'jsonl' && format !== 'npy') throw new UsageError(`--format is ${format}, neither jsonl nor npy`);
  for (const [name, value] of Object.entries({ out, cache })) if (value === '') throw new UsageError(`--${name} is empty`);
  if (format === 'npy' && out === undefined && process.stdout.isTTY) throw new UsageError('A terminal cannot show npy: pass --out FILE, or pipe it into a program');

  const lines = new Lines(path === '-' ? null : path);
  const bar = new Bar(process.stderr);
  const stop = new AbortController();
  for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143]]) {
    // Once: a second one ends the process at once.
    process.once(signal, () => {
      process.exitCode = code;
      bar.say('Stopping …');
      stop.abort();
    });
  }
  const embedder = values.queue === undefined ? here(values) : elsewhere(values);
  let output;
  try {
    await embedder.begin({ signal: stop.signal, progressCallback: bar.loading });
    const open = async (dimensions) => (output = await openOutput(out, format, dimensions));
    const done = await write(embedder, lines, open, bar, stop.signal);
    await output.finish();
    bar.end();
    if (out !== undefined) tell(done, out);
  } catch (error) {
    bar.end();
    await output?.discard();
    if (stop.signal.aborted) {
      console.error(out === undefined ? 'Stopped.' : `Stopped. ${plain(out)} is as it was.`);
      return;
    }
    throw told(lines, error);
  } finally {
    await embedder.end();
    // What still waits to be read keeps the process alive.
    if (path === '-') process.stdin.destroy();
  }
}

/** A model in this process. */
function here(values) {
  for (const name of ['queue-name', 'shared', 'fingerprint']) if (values[name] !== undefined) throw new UsageError(`--${name} belongs to --queue`);
  const { cache } = values;
  const generator = new OptimizedEmbeddingGenerator({ ...generatorOf(values), ...(cache !== undefined && { cache: { persistPath: cache } }) });
  return {
    begin: (watch) => generator.initialize(undefined, watch),
    dimensions: () => generator.getModelInfo().dimensions,
    results: (inputs, signal) => generator.stream(inputs, { signal }),
    end: () => generator.cleanup(),
  };
}

/** The workers of a queue. */
function elsewhere(values) {
  for (const name of ['model', 'cache']) if (values[name] !== undefined) throw new UsageError(`--${name} belongs to the workers of the queue: leave it out here`);
  const { EmbeddingQueue } = require('embedcore/queue');
  const { connection, name, shared } = queueOf(values);
  const queue = new EmbeddingQueue({ connection, name, cache: { shared: { url: shared }, ttlSeconds: 0 }, fingerprint: values.fingerprint });
  return {
    begin: async () => {},
    // Known once something was answered.
    dimensions: () => 0,
    async *results(inputs, signal) {
      const first = await inputs.next();
      if (first.done) return;
      const all = (async function* () {
        yield first.value;
        yield* inputs;
      })();
      const texts = typeof first.value === 'string';
      const settings = { signal, order: 'input', onError: 'throw' };
      for await (const { index: _, ...result } of texts ? queue.addTexts(all, settings) : queue.addAnnotations(all, settings)) {
        yield texts ? Float32Array.from(result.embedding) : result;
      }
    },
    end: () => queue.close(),
  };
}

/** Embeds all lines, in their order. Gives how many there were, and how long it took. */
async function write(embedder, lines, open, bar, signal) {
  const started = performance.now();
  let [count, cached, drawn] = [0, 0, started];
  let output = embedder.dimensions() > 0 ? await open(embedder.dimensions()) : undefined;
  for await (const result of embedder.results(lines.inputs(), signal)) {
    output ??= await open((result.embedding ?? result).length);
    const { index, name } = lines.answered();
    await output.add(result instanceof Float32Array ? { index, ...name, embedding: Array.from(result) } : result);
    count++;
    if (result.fromCache) cached++;
    const now = performance.now();
    if (now - drawn < REDRAW_MS) continue;
    drawn = now;
    draw(bar, lines, count, (now - started) / 1000);
  }
  if (!output) await open(0);
  return { count, cached, seconds: (performance.now() - started) / 1000 };
}

function draw(bar, { bytes, size: total }, count, seconds) {
  const figures = `${plural(count, 'line')}  ${number.format(Math.round(count / seconds))}/s`;
  if (total > 0) bar.fill(Math.min(1, bytes / total), `${Math.min(100, Math.floor((bytes / total) * 100))} %  ${figures}`);
  else bar.say(figures);
}

function tell({ count, cached, seconds }, out) {
  const color = paint(process.stderr);
  const parts = [`${plural(count, 'vector')} in ${seconds.toFixed(seconds < 10 ? 2 : 1)} s`, cached > 0 && `${number.format(cached)} from the cache`];
  console.error(`${color('bold', parts.filter(Boolean).join(', '))}: ${plain(out)}`);
}

/** An error in one line, with the line of the input that it is about. */
function told(lines, error) {
  // What the input, or the output, said may come back as the cause of a stream's error.
  for (let cause = error; cause instanceof Error; cause = cause.cause) if (cause instanceof InputError || cause instanceof OutputError) return cause;
  return lines.located(error);
}

module.exports = { options, run: embed };
