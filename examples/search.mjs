// Finds the functions that do what a sentence says: embed once, compare with the dot product.
//
//   node examples/search.mjs "cut a string into parts"

import { OptimizedEmbeddingGenerator } from 'embedcore';

const functions = [
  { nodeId: 'split', signature: 'function split(text: string, separator: string): string[]', summary: 'Divides a text wherever the separator occurs.' },
  { nodeId: 'readConfig', signature: 'async function readConfig(path: string): Promise<Config>', summary: 'Loads the settings from a JSON file.' },
  { nodeId: 'retry', signature: 'function retry<T>(work: () => Promise<T>, times: number): Promise<T>', summary: 'Runs it again when it fails, with a growing delay.' },
  { nodeId: 'average', signature: 'function average(values: number[]): number', summary: 'The arithmetic mean.' },
];

const generator = new OptimizedEmbeddingGenerator(); // the built-in model: nothing is downloaded
await generator.initialize();

const embeddings = await generator.generateEmbeddings(functions);
const query = await generator.embedQuery(process.argv[2] ?? 'cut a string into parts');

// Vectors have length 1: the dot product is the cosine.
const similarity = (vector) => vector.reduce((sum, value, i) => sum + value * query[i], 0);
const ranked = embeddings.map(({ nodeId, embedding }) => ({ nodeId, score: similarity(embedding) })).sort((a, b) => b.score - a.score);
for (const { nodeId, score } of ranked) console.log(`${score.toFixed(2)}  ${nodeId}`);

await generator.cleanup();
