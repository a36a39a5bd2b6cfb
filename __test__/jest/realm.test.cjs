// Jest runs tests in a realm of their own, where native objects are strangers to `instanceof`.
const { join } = require('node:path');

const { EmbeddingError, ModelInitializationError, OptimizedEmbeddingGenerator } = require('../..');

const modelPath = join(__dirname, '..', '..', 'fixtures', 'models', 'bert-mean');

test('errors are instances here, from sync calls and from promises', async () => {
  const generator = new OptimizedEmbeddingGenerator();
  for (const error of [
    await generator.initialize('/nowhere').catch((error) => error),
    await generator.embed(['a']).catch((error) => error),
    (() => {
      try {
        return new OptimizedEmbeddingGenerator({ pooling: 'sum' });
      } catch (error) {
        return error;
      }
    })(),
  ]) {
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error).toBeInstanceOf(Error);
  }
  await expect(generator.initialize('/nowhere')).rejects.toBeInstanceOf(ModelInitializationError);
});

test('vectors are instances here', async () => {
  const generator = new OptimizedEmbeddingGenerator({ modelPath });
  await generator.initialize();
  const matrix = await generator.embed(['a', 'b']);
  expect(matrix.data).toBeInstanceOf(Float32Array);
  expect(matrix.row(1)).toBeInstanceOf(Float32Array);
  expect(matrix.tokenCounts).toBeInstanceOf(Uint32Array);
  const [vector] = await generator.generateEmbeddings(['a']);
  expect(vector).toBeInstanceOf(Array);
  expect(Object.getPrototypeOf(generator.getModelInfo())).toBe(Object.prototype);
  await generator.cleanup();
});
