import { jest } from '@jest/globals';
import * as embedcore from 'embedcore';
import { EmbeddingError, OptimizedEmbeddingGenerator } from 'embedcore';

import { check, leaveWork } from './work.mjs';

test('the package works', () => check(embedcore));

test('work may be cut short', async () => (await leaveWork(embedcore)).cleanup());

test('errors are those of this realm, and methods can be spied on', async () => {
  await expect(new OptimizedEmbeddingGenerator().embed(['a'])).rejects.toBeInstanceOf(EmbeddingError);
  const spy = jest.spyOn(OptimizedEmbeddingGenerator.prototype, 'embed').mockResolvedValue('mocked');
  expect(await new OptimizedEmbeddingGenerator().embed(['a'])).toBe('mocked');
  spy.mockRestore();
});
