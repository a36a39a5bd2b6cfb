// Ends in the middle of its work, in the way that its argument names.
const { Worker } = require('node:worker_threads');

const { OptimizedEmbeddingGenerator } = require('../..');
const [how, modelPath, afterMs, more = '{}'] = process.argv.slice(2);
const options = { modelPath, ...JSON.parse(more) };

const texts = Array.from({ length: 5000 }, (_, i) => `text ${i} ${'reads a file and parses it '.repeat(10)}`);

(async () => {
  if (how === 'exit-while-worker-initializes') {
    const entry = require.resolve('../..');
    new Worker(`const { entry, options } = require('node:worker_threads').workerData;
      new (require(entry).OptimizedEmbeddingGenerator)(options).initialize();`, { eval: true, workerData: { entry, options } });
    return setTimeout(() => process.exit(7), Number(afterMs));
  }
  const generator = new OptimizedEmbeddingGenerator(options);
  const initialized = generator.initialize();
  if (how === 'exit-in-initialize') setTimeout(() => process.exit(7), Number(afterMs));
  await initialized;
  if (how === 'return') {
    process.exitCode = (await generator.embed(['one'])).rows === 1 ? 7 : 1;
    return generator.cleanup();
  }
  const end = () => {
    if (how === 'throw') throw new Error('on purpose');
    process.exit(7);
  };
  // From the first finished batch on, the workers are inside the model without a pause.
  const progressCallback = () => {
    if (!timer) timer = setTimeout(end, Number(afterMs));
  };
  let timer;
  await generator.embed(texts, { progressCallback });
  process.exit(1);
})();
