// A process that loads a model from the hub and says how long its vectors are.
const { OptimizedEmbeddingGenerator } = require('../..');
const [modelPath, cacheDir] = process.argv.slice(2);

(async () => {
  const generator = new OptimizedEmbeddingGenerator({ modelPath, cacheDir });
  await generator.initialize();
  console.log((await generator.embed(['a text'])).dimensions);
})();
