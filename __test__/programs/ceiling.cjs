// Streams many annotations below a ceiling, and tells how many vectors came and how much memory the process had at most.
const { readFileSync } = require('node:fs');
const { OptimizedEmbeddingGenerator } = require('../..');
const [memoryLimit, count] = process.argv.slice(2).map(Number);

function* annotations() {
  for (let i = 0; i < count; i++) {
    yield { nodeId: `n${i}`, signature: `fn name_${i}(a: u32) -> u32`, summary: `Does thing ${i}. `.repeat(i % 40), sourceSnippet: 'let x = 1; '.repeat(i % 200) };
  }
}

(async () => {
  const generator = new OptimizedEmbeddingGenerator({ memoryLimit, cache: { maxMemoryMB: 10 } });
  await generator.initialize();
  let results = 0;
  for await (const result of generator.stream(annotations())) results += result.embedding.length > 0 ? 1 : 0;
  const { memoryProcessor } = generator.getPerformanceMetrics();
  await generator.cleanup();
  const peak = Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
  console.log(JSON.stringify({ results, peak, ...memoryProcessor }));
})();
