jest.mock('embedcore');

const { DynamicBatchOptimizer, getEmbeddingCache, OptimizedEmbeddingGenerator, prepareText } = require('embedcore');

test('functions do nothing', () => {
  expect(jest.isMockFunction(prepareText)).toBe(true);
  expect(prepareText({})).toBeUndefined();
  expect(getEmbeddingCache()).toBeUndefined();
});

test('methods do nothing, and answer what they are told to', async () => {
  const generator = new OptimizedEmbeddingGenerator({ modelPath: '/nowhere' });
  expect(await generator.initialize()).toBeUndefined();
  generator.generateEmbeddings.mockResolvedValue([[1, 2]]);
  expect(await generator.generateEmbeddings(['a'])).toEqual([[1, 2]]);
  expect(new DynamicBatchOptimizer().getCurrentBatchSize()).toBeUndefined();
  expect(OptimizedEmbeddingGenerator).toHaveBeenCalledTimes(1);
});

test('a subclass of a mocked class has what it overrides', () => {
  class Own extends OptimizedEmbeddingGenerator {
    isReady() {
      return true;
    }
  }
  expect(new Own().isReady()).toBe(true);
});

test('an automock can be made of the real one', () => {
  const mocked = jest.createMockFromModule('embedcore');
  expect(Object.keys(mocked)).toEqual(expect.arrayContaining(Object.keys(jest.requireActual('embedcore'))));
});
