// A worker of a queue: its options as JSON, the path of the package, and how long a text takes. Its generator answers vectors
// that only depend on the text, and writes each text that it computes to standard output.
'use strict';

const { createHash } = require('node:crypto');

const [options, root, ms = '0'] = process.argv.slice(2);
const { EmbeddingWorker } = require(`${root}/dist/queue/index.js`);
const { prepareText } = require(`${root}/dist/index.js`);

const FINGERPRINT = 'ab'.repeat(32);
const { fingerprint = FINGERPRINT, ...given } = JSON.parse(options);

const vector = (text) => Array.from(createHash('sha256').update(text).digest().subarray(0, 8), (byte) => byte / 256);

const generator = {
  isReady: () => true,
  initialize: async () => {},
  getModelInfo: () => ({ modelId: 'stub', fingerprint, dimensions: 8, maxLength: 512 }),
  batchProcess: async (annotations) => {
    await new Promise((resolve) => setTimeout(resolve, Number(ms) * annotations.length));
    if (annotations.some(({ nodeId }) => nodeId === 'deadly')) process.kill(process.pid, 'SIGKILL');
    for (const { nodeId } of annotations) process.stdout.write(`computed ${nodeId}\n`);
    return annotations.map((annotation) => {
      const inputText = prepareText(annotation, 512);
      return { nodeId: annotation.nodeId, embedding: vector(inputText), inputText, processingTime: 0, modelUsed: 'stub', tokenCount: 3, truncated: false, confidence: 1 };
    });
  },
};

const worker = new EmbeddingWorker({ generator, monitor: false, ...given });
worker.ready().then(
  () => process.stdout.write('ready\n'),
  (error) => {
    process.stdout.write(`failed ${error.code} ${error.message}\n`);
    process.exit(1);
  },
);
process.on('exit', () => process.stdout.write('ended\n'));
