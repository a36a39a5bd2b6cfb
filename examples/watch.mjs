// Sees what it does: stages, percentiles, and a page that shows them live.
//
//   node examples/watch.mjs [--stay]

import { getGlobalMonitor, OptimizedEmbeddingGenerator, PerformanceDashboard } from 'embedcore';

const generator = new OptimizedEmbeddingGenerator();
await generator.initialize();
const dashboard = new PerformanceDashboard({ generator });
const stay = process.argv.includes('--stay');
const { url } = await dashboard.serve({ keepAlive: stay });

for (let round = 0; round < 5; round++) {
  await generator.embed(Array.from({ length: 200 }, (_, i) => `round ${round % 3}, text ${i}: parse the header of a file`));
}

const { stages, overall } = generator.getPerformanceMetrics();
for (const [stage, { count, p50, p99 }] of Object.entries(stages)) {
  console.log(`${stage.padEnd(9)} ${String(count).padStart(4)} ×   p50 ${p50.toFixed(3)} ms   p99 ${p99.toFixed(3)} ms`);
}
console.log(`${(overall.cacheHitRatio * 100).toFixed(0)} % of texts from the cache; the page: ${url}`);
console.log(getGlobalMonitor().toPrometheus().split('\n').find((line) => line.includes('embedcore.call')));

if (!stay) {
  await dashboard.close();
  await generator.cleanup();
}
