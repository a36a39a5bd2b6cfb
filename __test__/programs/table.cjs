// Embeds two texts, and says what has done so.
const [modelPath] = process.argv.slice(2);
const { OptimizedEmbeddingGenerator } = require('../..');

(async () => {
  const generator = new OptimizedEmbeddingGenerator({ modelPath });
  await generator.initialize();
  const { rows, dimensions } = await generator.embed(['reads a file', 'parse']);
  console.log(JSON.stringify({ rows, dimensions, runtime: generator.getModelInfo().runtime }));
})();
