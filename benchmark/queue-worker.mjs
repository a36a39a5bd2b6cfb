// A worker of benchmark/queue.mjs: its model takes a fixed time for a text, one chunk after the other, so that processors do
// not decide. node benchmark/queue-worker.mjs URL MS_A_TEXT CONCURRENCY DIMENSIONS

import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { prepareText } = require('..');
const { EmbeddingWorker } = require('../dist/queue/index.js');

const [connection, ms, concurrency, dimensions] = process.argv.slice(2);
let before = Promise.resolve();

const generator = {
  isReady: () => true,
  initialize: async () => {},
  getModelInfo: () => ({ modelId: 'fixed', fingerprint: 'fe'.repeat(32), dimensions: Number(dimensions), maxLength: 512 }),
  batchProcess(annotations) {
    const run = async () => {
      const until = performance.now() + Number(ms) * annotations.length;
      if (until > performance.now()) await new Promise((resolve) => setTimeout(resolve, until - performance.now()));
      return annotations.map((annotation, at) => {
        const embedding = new Float32Array(Number(dimensions)).fill(at / 256);
        return { nodeId: annotation.nodeId, embedding, inputText: prepareText(annotation, 512), processingTime: 0, modelUsed: 'fixed', tokenCount: 3, truncated: false, confidence: 1 };
      });
    };
    return (before = before.then(run));
  },
};

const worker = new EmbeddingWorker({ connection, generator, concurrency: Number(concurrency), monitor: false, stopOnSigterm: false });
await worker.ready();
const started = process.cpuUsage();
process.send('ready');
process.once('message', async () => {
  const { user, system } = process.cpuUsage(started);
  process.send({ cpuMs: (user + system) / 1000, chunks: worker.getStats().chunks });
  await worker.close();
  process.exit(0);
});
