import { DynamicBatchOptimizer, OptimizedEmbeddingGenerator, prepareText } from 'embedcore';
import { expect, test, vi } from 'vitest';

vi.mock('embedcore');

test('functions do nothing', () => {
  expect(vi.isMockFunction(prepareText)).toBe(true);
  expect(prepareText({ nodeId: 'a', signature: '', summary: '' })).toBeUndefined();
});

test('methods do nothing, and answer what they are told to', async () => {
  const generator = new OptimizedEmbeddingGenerator({ modelPath: '/nowhere' });
  expect(await generator.initialize()).toBeUndefined();
  vi.mocked(generator.generateEmbeddings).mockResolvedValue([[1, 2]]);
  expect(await generator.generateEmbeddings(['a'])).toEqual([[1, 2]]);
  expect(new DynamicBatchOptimizer().getCurrentBatchSize()).toBeUndefined();
});

test('a subclass of a mocked class has what it overrides', () => {
  class Own extends OptimizedEmbeddingGenerator {
    override isReady(): boolean {
      return true;
    }
  }
  expect(new Own().isReady()).toBe(true);
  expect(new Own().getModelInfo()).toBeUndefined();
});
