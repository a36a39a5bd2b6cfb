// One generator in a worker thread: answers with a row, or goes on until it is terminated.
const { parentPort, workerData } = require('node:worker_threads');
const { OptimizedEmbeddingGenerator } = require('../..');

(async () => {
  const generator = new OptimizedEmbeddingGenerator({ modelPath: workerData.modelPath, engine: 'onnxruntime', ...workerData.options });
  await generator.initialize();
  if (workerData.endless) {
    parentPort.postMessage('started');
    for (;;) await generator.embed(Array.from({ length: 2000 }, (_, i) => `text ${i} of many`));
  }
  const matrix = await generator.embed(workerData.texts);
  parentPort.postMessage(matrix.data);
  if (workerData.tidy) await generator.cleanup();
})();
