// A process that embeds texts with a cache that others share, once it is told to.
const { OptimizedEmbeddingGenerator } = require('../..');
const [modelPath, persistPath, count] = process.argv.slice(2);

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const heard = () => new Promise((resolve) => process.stdin.once('data', resolve));

(async () => {
  const generator = new OptimizedEmbeddingGenerator({ modelPath, engine: 'onnxruntime', cache: { persistPath } });
  await generator.initialize();
  say('ready');
  await heard();
  process.stdin.destroy();
  const texts = Array.from({ length: Number(count) }, (_, i) => `text ${i} ${'reads a file and parses it '.repeat(10)}`);
  const { rows, fromCache } = await generator.embed(texts, { progressCallback: (done) => done > 50 && say({ done }) });
  say({ rows, computed: rows - fromCache.reduce((sum, hit) => sum + hit, 0) });
  await generator.cleanup();
})();
