import * as embedcore from 'embedcore';
import { OptimizedEmbeddingGenerator, prepareText, type Annotation } from 'embedcore';

const { check } = require('./work.cjs') as { check(module: object): Promise<void> };
const annotation: Annotation = { nodeId: 'a', signature: '', summary: 'text' };

afterEach(() => jest.restoreAllMocks());

test('the package works', () => check(embedcore));

test('functions and methods can be spied on, through the names that were imported', async () => {
  jest.spyOn(embedcore, 'prepareText').mockReturnValue('mocked');
  expect(prepareText(annotation)).toBe('mocked');
  const embed = jest.spyOn(OptimizedEmbeddingGenerator.prototype, 'embedQuery').mockResolvedValue(Float32Array.of(1));
  expect(await new OptimizedEmbeddingGenerator().embedQuery('a')).toEqual(Float32Array.of(1));
  expect(embed).toHaveBeenCalledTimes(1);
});
