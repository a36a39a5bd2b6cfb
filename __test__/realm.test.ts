// The same as jest/, under the pool of Vitest that has realms.
import { EmbeddingError, OptimizedEmbeddingGenerator } from 'embedcore';
import { expect, test } from 'vitest';

import { failure, model, ready } from './support';

test('errors and vectors are instances in a vm realm', async () => {
  expect(await failure(() => new OptimizedEmbeddingGenerator().initialize('/nowhere'))).toBeInstanceOf(EmbeddingError);
  const matrix = await (await ready({ modelPath: model('bert-mean') })).embed(['a']);
  expect(matrix.data).toBeInstanceOf(Float32Array);
});
