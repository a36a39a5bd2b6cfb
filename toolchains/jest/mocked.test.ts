import { OptimizedEmbeddingGenerator, prepareText } from 'embedcore';

jest.mock('embedcore');

test('what is imported is mocked, and typed', async () => {
  jest.mocked(prepareText).mockReturnValue('mocked');
  expect(prepareText({ nodeId: 'a', signature: '', summary: '' })).toBe('mocked');
  const generator = jest.mocked(new OptimizedEmbeddingGenerator());
  generator.embedQuery.mockResolvedValue(Float32Array.of(1));
  expect(await generator.embedQuery('a')).toEqual(Float32Array.of(1));
});
