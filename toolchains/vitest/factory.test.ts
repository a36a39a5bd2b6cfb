import { getEmbeddingCache, OptimizedEmbeddingGenerator, prepareText } from 'embedcore';
import { expect, test, vi } from 'vitest';

vi.mock('embedcore', async (importOriginal) => ({
  ...(await importOriginal<typeof import('embedcore')>()),
  prepareText: vi.fn(() => 'mocked'),
  getEmbeddingCache: () => 'mocked',
}));

const annotation = { nodeId: 'a', signature: '', summary: 'text' };

test('what the factory gives is mocked', () => {
  expect(prepareText(annotation)).toBe('mocked');
  expect(getEmbeddingCache()).toBe('mocked');
});

test('all else is as it was', async () => {
  const generator = new OptimizedEmbeddingGenerator();
  await generator.initialize();
  expect((await generator.embed(['a'])).dimensions).toBe(256);
});
