jest.mock('embedcore', () => ({ ...jest.requireActual('embedcore'), prepareText: jest.fn(() => 'mocked') }));

const embedcore = require('embedcore');
const { check } = require('./work.cjs');

test('what the factory gives is mocked', () => {
  expect(embedcore.prepareText({})).toBe('mocked');
});

test('all else is as it was', async () => {
  const generator = new embedcore.OptimizedEmbeddingGenerator();
  await generator.initialize();
  expect((await generator.embed(['a'])).dimensions).toBe(256);
});

test('the real one is there beside it', () => check(jest.requireActual('embedcore')));
