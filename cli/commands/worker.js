// Embeds what producers have put into a queue, on as many machines as there are workers.
'use strict';

const { OptimizedEmbeddingGenerator } = require('embedcore');

const { Bar, paint, plain, plural, size } = require('../terminal');
const { UsageError, generatorOf, numeric, queueOf } = require('../usage');

const options = {
  queue: { type: 'string' },
  'queue-name': { type: 'string' },
  shared: { type: 'string' },
  model: { type: 'string' },
  cache: { type: 'string' },
  concurrency: { type: 'string' },
  'memory-limit': { type: 'string' },
  'drain-seconds': { type: 'string' },
};

async function worker(rest, values) {
  if (rest.length > 0) throw new UsageError(`worker takes no arguments, got ${rest.join(' ')}`);
  // Loaded by this command only: the others need no Redis.
  const { EmbeddingWorker } = require('embedcore/queue');
  const { connection, name, shared, shown } = queueOf(values);
  const number = (flag, unit = 1) => (values[flag] === undefined ? undefined : Math.round(numeric(flag, values[flag]) * unit));
  const { cache } = values;
  if (cache === '') throw new UsageError('--cache is empty');
  const generator = new OptimizedEmbeddingGenerator({ ...generatorOf(values), memoryLimit: number('memory-limit'), cache: { ...(cache !== undefined && { persistPath: cache }), shared: { url: shared } } });
  const bar = new Bar(process.stderr);
  const stop = new AbortController();
  let working;
  let stopping;
  for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143]]) {
    process.on(signal, () => {
      // The second one ends the process at once.
      if (stopping) process.exit(code);
      stopping = true;
      bar.end();
      stop.abort();
      // Before it works there is nothing to finish.
      if (!working) return void (process.exitCode = code);
      console.error('Finishing what runs …');
      const end = async () => {
        await working.close();
        await generator.cleanup();
        const { chunks, texts, computed } = working.getStats();
        console.error(`${plural(chunks, 'chunk')}, ${plural(texts, 'text')}, ${computed} of them computed here.`);
        process.exit(0);
      };
      end().catch((error) => {
        console.error(plain(error.message));
        process.exit(1);
      });
    });
  }
  try {
    const progressCallback = ({ file, loaded, total, progressTotal }) =>
      bar.fill(progressTotal / 100, `${Math.floor(progressTotal)} %  ${plain(file)}  ${size(loaded)} of ${size(total)}`);
    await generator.initialize(undefined, { signal: stop.signal, progressCallback });
    bar.end();
    const settings = { connection, name, generator, concurrency: number('concurrency'), drainTimeoutMs: number('drain-seconds', 1000), stopOnSigterm: false };
    working = new EmbeddingWorker(settings);
    await working.ready();
  } catch (error) {
    bar.end();
    await working?.close();
    await generator.cleanup();
    if (stopping) return;
    throw error;
  }
  if (stopping) return;
  const color = paint(process.stdout);
  const { model, concurrency } = working.getStats();
  console.log(`${color('bold', plain(model))} works on the queue ${color('cyan', `${plain(name)} at ${plain(shown)}`)}, ${plural(concurrency, 'chunk')} at a time, until you press Ctrl-C`);
}

module.exports = { options, run: worker };
