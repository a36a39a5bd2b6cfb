import * as embedcore from 'embedcore';
import { EmbeddingError, IntelligentEmbeddingCache, OptimizedEmbeddingGenerator, prepareText } from 'embedcore';
import { afterEach, expect, test, vi } from 'vitest';

import { check, leaveWork } from './work.mjs';

afterEach(() => vi.restoreAllMocks());

test('the package works', () => check(embedcore));

test('work may be left behind', async () => void (await leaveWork(embedcore)));

test('errors and vectors are those of this realm', async () => {
  const generator = new OptimizedEmbeddingGenerator();
  await expect(generator.initialize('/nowhere')).rejects.toBeInstanceOf(EmbeddingError);
  await expect(generator.embed(['a'])).rejects.toThrow(EmbeddingError);
  await generator.initialize();
  expect((await generator.embed(['a'])).data).toBeInstanceOf(Float32Array);
  expect(await generator.generateEmbeddings(['a'])).toEqual([expect.any(Array)]);
});

test('methods can be spied on', async () => {
  const spy = vi.spyOn(OptimizedEmbeddingGenerator.prototype, 'embed').mockResolvedValue('mocked' as never);
  expect(await new OptimizedEmbeddingGenerator().embed(['a'])).toBe('mocked');
  expect(spy).toHaveBeenCalledWith(['a']);
  const generator = new OptimizedEmbeddingGenerator();
  const own = vi.spyOn(generator, 'isReady');
  expect(generator.isReady()).toBe(false);
  expect(own).toHaveBeenCalledOnce();
  spy.mockRestore();
  await expect(generator.embed(['a'])).rejects.toMatchObject({ code: 'NOT_INITIALIZED' });
});

test('classes can be derived from', async () => {
  class Own extends IntelligentEmbeddingCache {
    gets = 0;
    override get(...args: never[]): never {
      this.gets++;
      return (super.get as (...args: never[]) => never)(...args);
    }
  }
  class Loud extends OptimizedEmbeddingGenerator {
    override prepareText(annotation: embedcore.Annotation): string {
      return super.prepareText(annotation).toUpperCase();
    }
  }
  const cache = new Own();
  await cache.set('a', 'b', [1, 2]);
  expect(await cache.get(...(['a', 'b'] as never[]))).toEqual({ embedding: [1, 2] });
  expect(cache.gets).toBe(1);
  const generator = new Loud({ cache });
  expect(generator.prepareText({ nodeId: 'n', signature: '', summary: 'a' })).toBe('SUMMARY: A');
  expect(prepareText({ nodeId: 'n', signature: '', summary: 'a' })).toBe('Summary: a');
  await cache.close();
});
