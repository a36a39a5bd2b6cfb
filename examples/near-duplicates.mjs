// Finds texts that say nearly the same, with the cache's own search for neighbours.
//
//   node examples/near-duplicates.mjs

import { IntelligentEmbeddingCache, OptimizedEmbeddingGenerator } from 'embedcore';

const texts = [
  'Reads a file and returns its lines.',
  'Opens a socket to the server.',
  'Read the file and return the lines of it.',
  'Sorts users by their name.',
  'Sorts the users by name.',
];

const generator = new OptimizedEmbeddingGenerator();
await generator.initialize();
const cache = new IntelligentEmbeddingCache({ maxEntries: 10_000 });

const { data, dimensions } = await generator.embed(texts);
for (const [i, text] of texts.entries()) {
  const vector = data.subarray(i * dimensions, (i + 1) * dimensions);
  const [nearest] = await cache.findSimilar(vector, { threshold: 0.8, limit: 1 });
  if (nearest) console.log(`${nearest.similarity.toFixed(2)}  ${text}\n      ${nearest.key}`);
  await cache.set(text, text, vector);
}

await cache.close();
await generator.cleanup();
