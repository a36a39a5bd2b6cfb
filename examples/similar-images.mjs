// Finds the images that look most like one.
//
//   node examples/similar-images.mjs [MODEL]
//
// MODEL: the directory of a model that reads images, or its .onnx file. Without one it is the tiny one of a clone's tests, whose
// random weights know colours at best.

import { fileURLToPath } from 'node:url';

import { IntelligentEmbeddingCache, OptimizedEmbeddingGenerator } from 'embedcore';

/** A picture of two colours, one above the other, as a BMP. */
function picture([top, bottom], side = 48) {
  const row = side * 3;
  const file = Buffer.alloc(54 + row * side);
  file.write('BM');
  for (const [at, value] of [[2, file.length], [10, 54], [14, 40], [18, side], [22, side]]) file.writeUInt32LE(value, at);
  file.set([1, 0, 24, 0], 26);
  // From the bottom up, blue first.
  for (let at = 54; at < file.length; at += 3) file.set([...(at < 54 + (row * side) / 2 ? bottom : top)].reverse(), at);
  return file;
}

const [red, orange, blue, green] = [[200, 20, 30], [230, 120, 20], [20, 40, 200], [30, 160, 60]];
const pictures = {
  sunset: picture([orange, red]),
  'another sunset': picture([[235, 130, 30], [190, 30, 30]]),
  sea: picture([[120, 180, 240], blue]),
  meadow: picture([[130, 190, 240], green]),
};

const modelPath = process.argv[2] ?? fileURLToPath(new URL('../fixtures/models/clip-vision', import.meta.url));
const generator = new OptimizedEmbeddingGenerator({ modelPath });
await generator.initialize();
const cache = new IntelligentEmbeddingCache();

const matrix = await generator.embedImages(Object.values(pictures));
for (const [i, [name, bytes]] of Object.entries(pictures).entries()) await cache.set(name, bytes, matrix.row(i), { modality: 'image' });

for (const { key, similarity } of await cache.findSimilar(matrix.row(0), { modality: 'image' })) console.log(`${similarity.toFixed(2)}  ${key}`);

await cache.close();
await generator.cleanup();
