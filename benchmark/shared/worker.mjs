// A worker of a queue in a process of its own, whose model is on a server: node worker.mjs QUEUE MODEL CONCURRENCY LOCK_MS. On
// any message it says what it has taken of the processors, and ends.

import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { OptimizedEmbeddingGenerator } = require('../..');
const { EmbeddingWorker } = require('../../dist/queue/index.js');

const [connection, url, concurrency, lockDurationMs] = process.argv.slice(2);

// One request at a time: a model that is as fast as it is, whoever asks. What was computed is found on the server only.
const generator = new OptimizedEmbeddingGenerator({
  remote: { kind: 'openai', url, model: 'm', concurrency: 1 },
  cache: { shared: { url: connection, commandTimeoutMs: 5000 }, maxEntries: 10_000 },
  monitor: false,
  stateDir: false,
});
const worker = new EmbeddingWorker({ connection, generator, concurrency: Number(concurrency), lockDurationMs: Number(lockDurationMs), monitor: false });
await worker.ready();
const started = process.cpuUsage();
process.send('ready');
process.once('message', async () => {
  const { user, system } = process.cpuUsage(started);
  process.send({ cpuMs: (user + system) / 1000 });
  await worker.close();
  await generator.cleanup();
  process.exit(0);
});
