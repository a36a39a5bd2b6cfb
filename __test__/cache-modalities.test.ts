// What entries of the cache are made from: texts, images, recordings, by strings or by bytes.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';

import { IntelligentEmbeddingCache, type CacheOptions, type Modality } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure, root } from './support';

function make(options?: CacheOptions): IntelligentEmbeddingCache {
  const cache = new IntelligentEmbeddingCache(options);
  onTestFinished(() => cache.close());
  return cache;
}

function file(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-cache-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'cache.db');
}

const image = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 1, 2, 3);
const other = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 1, 2, 4);
/** Too large to be hashed on the event loop. */
const large = () => new Uint8Array(1 << 20).fill(7);
const first = (found: { embedding: number[] } | null) => found?.embedding[0];

describe.each<[string, () => CacheOptions]>([
  ['memory', () => ({})],
  ['disk', () => ({ persistPath: file(), maxEntries: 1 })],
])('%s', (_, options) => {
  test('an entry answers for the bytes that it was set with, and for no others', async () => {
    for (const bytes of [image, large()]) {
      const cache = make(options());
      const changed = Uint8Array.from(bytes);
      changed[changed.length - 1]! ^= 1;
      await cache.set('k', bytes, [1, 2], { modality: 'image', metadata: { from: 'a camera' } });
      expect(await cache.get('k', Buffer.from(bytes), { modality: 'image' })).toEqual({ embedding: [1, 2], metadata: { from: 'a camera' } });
      expect(await cache.has('k', bytes, { modality: 'image' })).toBe(true);
      expect(await cache.has('k', changed, { modality: 'image' })).toBe(false);
      expect(await cache.get('k', changed, { modality: 'image' })).toBeNull();
      expect(await cache.get('k', bytes, { modality: 'image' })).toBeNull();
    }
  });

  test('one key has an entry of each modality', async () => {
    const cache = make(options());
    const modalities: Modality[] = ['text', 'image', 'audio'];
    for (const [at, modality] of modalities.entries()) await cache.set('k', image, [at + 1, 0], { modality });
    const found = () => Promise.all(modalities.map((modality) => cache.get('k', image, { modality }).then(first)));
    expect(await found()).toEqual([1, 2, 3]);
    // Without a word, it is the text.
    expect(first(await cache.get('k', image))).toBe(1);
    expect(await cache.delete('k', { modality: 'image' })).toBe(true);
    expect(await cache.delete('k', { modality: 'image' })).toBe(false);
    expect(await found()).toEqual([1, undefined, 3]);
    await cache.clear({ modality: 'audio' });
    expect(await found()).toEqual([1, undefined, undefined]);
    await cache.set('k', image, [4, 0], { modality: 'audio' });
    await cache.clear();
    expect(await found()).toEqual([undefined, undefined, undefined]);
  });

  test('vectors have one length in each modality', async () => {
    const cache = make(options());
    await cache.set('k', 'a text', [1, 2, 3]);
    await cache.set('k', image, [1, 2], { modality: 'image' });
    expect((await failure(() => cache.set('l', image, [1, 2, 3], { modality: 'image' }))).code).toBe('INVALID_ARGUMENT');
    expect(first(await cache.get('k', 'a text'))).toBe(1);
  });

  test('a string and the bytes of its UTF-8 are two contents', async () => {
    const cache = make(options());
    for (const text of ['a text', 'Füße 🚀']) {
      const bytes = new TextEncoder().encode(text);
      await cache.set('k', text, [1]);
      expect(await cache.has('k', bytes)).toBe(false);
      await cache.set('k', bytes, [2]);
      expect(await cache.has('k', text)).toBe(false);
      expect(first(await cache.get('k', bytes))).toBe(2);
    }
  });

  test('many are looked up and set together, each of the modality that it says, or that the call says', async () => {
    const cache = make(options());
    await cache.setMany([
      { key: 'a', content: 'a text', embedding: [1, 1] },
      { key: 'a', content: image, embedding: [2, 1], modality: 'image' },
      { key: 'a', content: large(), embedding: [3, 1], modality: 'audio', metadata: 1 },
    ]);
    await cache.setMany([{ key: 'b', content: image, embedding: [4, 1] }, { key: 'b', content: 't', embedding: [5, 1], modality: 'text' }], { modality: 'image' });
    const all = await cache.getMany([
      { key: 'a', content: 'a text' },
      { key: 'a', content: image, modality: 'image' },
      { key: 'a', content: other, modality: 'audio' },
      { key: 'b', content: image, modality: 'image' },
      { key: 'b', content: 't' },
    ]);
    expect([[...all.hits], [0, 1, 3, 4].map((row) => all.row(row)[0])]).toEqual([[1, 1, 0, 1, 1], [1, 2, 4, 5]]);
    const images = await cache.getMany([{ key: 'a', content: image }, { key: 'b', content: image }, { key: 'b', content: 't', modality: 'text' }], { modality: 'image' });
    expect([...images.hits]).toEqual([1, 1, 1]);
    // All or none, of all modalities.
    const wrong = [{ key: 'c', content: 't', embedding: [1, 1] }, { key: 'c', content: image, embedding: [Infinity, 1], modality: 'image' as const }];
    expect((await failure(() => cache.setMany(wrong))).code).toBe('INVALID_ARGUMENT');
    expect(await cache.has('c', 't')).toBe(false);
  });

  test('of all who want the vector of an image, one computes it', async () => {
    const cache = make(options());
    let computed = 0;
    const bytes = large();
    const compute = async () => [++computed, 0];
    const ask = (content: string | Uint8Array, modality: Modality) => cache.getOrCompute('k', content, compute, { modality, metadata: modality });
    const asked = [ask(bytes, 'image'), ask(Uint8Array.from(bytes), 'image'), ask(bytes, 'audio'), ask('k', 'image')];
    const found = await Promise.all(asked);
    expect(found[0]).toEqual(found[1]);
    expect(new Set(found.map(({ embedding }) => embedding[0]))).toEqual(new Set([1, 2, 3]));
    expect(found.map(({ metadata }) => metadata)).toEqual(['image', 'image', 'audio', 'image']);
    expect(computed).toBe(3);
  });

  test('a computation is not kept over what was set for its modality meanwhile, and is over what was set for another', async () => {
    const cache = make(options());
    for (const [modality, kept] of [['image', 9], ['audio', 1]] as const) {
      let [begin, finish] = [(): void => {}, (_: number[]): void => {}];
      const begun = new Promise<void>((resolve) => (begin = resolve));
      const made = new Promise<number[]>((resolve) => (finish = resolve));
      const computing = cache.getOrCompute('k', image, () => (begin(), made), { modality: 'image' });
      await begun;
      await cache.set('k', image, [9], { modality });
      finish([1]);
      await computing;
      expect(first(await cache.get('k', image, { modality: 'image' }))).toBe(kept);
      await cache.clear();
    }
  });

  test('bytes count as they are when the call is made, in the order of the calls', async () => {
    const cache = make(options());
    const bytes = large();
    const before = Uint8Array.from(bytes);
    const set = cache.set('k', bytes, [1], { modality: 'image' });
    bytes[0]! ^= 1;
    const changed = cache.get('k', bytes, { modality: 'image' });
    const again = cache.set('k', before, [2], { modality: 'image' });
    const there = cache.get('k', before, { modality: 'image' });
    expect([await set, await changed, await again, first(await there)]).toEqual([undefined, null, undefined, 2]);
  });

  test('similar ones are found in one modality, or in several', async () => {
    const cache = make(options());
    await cache.set('text', 'a cat', [1, 0, 0.1]);
    await cache.set('near', image, [1, 0.2, 0], { modality: 'image' });
    await cache.set('far', other, [-1, 0.2, 0], { modality: 'image' });
    await cache.set('sound', image, [1, 0.1, 0], { modality: 'audio' });
    const found = async (options?: object) => (await cache.findSimilar([1, 0, 0], options)).map(({ key, modality }) => `${modality} ${key}`);
    expect(await found()).toEqual(['text text']);
    expect(await found({ modality: 'image' })).toEqual(['image near', 'image far']);
    expect(await found({ modalities: ['image', 'text'] })).toEqual(['text text', 'image near', 'image far']);
    expect(await found({ modalities: ['text', 'image', 'audio', 'image'], limit: 3 })).toHaveLength(3);
    expect(await found({ modalities: ['text', 'image', 'audio'], threshold: 0.9 })).toHaveLength(3);
  });

  test('figures are told by modality, and add up', async () => {
    const cache = make(options());
    await cache.set('k', 'a text', [1, 2]);
    await cache.set('k', image, [1, 2], { modality: 'image' });
    await cache.set('l', image, [1, 2], { modality: 'image' });
    await cache.get('k', image, { modality: 'image' });
    await cache.get('m', image, { modality: 'image' });
    await cache.getMany([{ key: 'k', content: image }, { key: 'l', content: image }, { key: 'k', content: 'a text', modality: 'text' }], { modality: 'image' });
    await cache.get('k', 'another', { modality: 'audio' });
    const { modalities, hits, misses, sets, currentEntries, currentSizeBytes } = cache.getStats();
    expect(modalities.text).toMatchObject({ totalRequests: 1, hits: 1, misses: 0, hitRatio: 1, sets: 1 });
    expect(modalities.image).toMatchObject({ totalRequests: 4, hits: 3, misses: 1, hitRatio: 0.75, sets: 2 });
    expect(modalities.audio).toMatchObject({ totalRequests: 1, hits: 0, misses: 1, hitRatio: 0, sets: 0, currentEntries: 0, currentSizeBytes: 0 });
    const sum = (name: 'hits' | 'misses' | 'sets' | 'currentEntries' | 'currentSizeBytes') =>
      Object.values(modalities).reduce((total, one) => total + one[name], 0);
    expect([sum('hits'), sum('misses'), sum('sets'), sum('currentEntries'), sum('currentSizeBytes')]).toEqual([hits, misses, sets, currentEntries, currentSizeBytes]);
  });
});

test('what is no content, or no modality, is refused, and leaves no trace', async () => {
  const cache = make();
  const wrong: [string, () => Promise<unknown>][] = [
    ["'text', 'image' or 'audio'", () => cache.set('k', image, [1], { modality: 'video' as Modality })],
    ["'text', 'image' or 'audio'", () => cache.get('k', image, { modality: null as unknown as Modality })],
    ['entry 1', () => cache.getMany([{ key: 'k', content: image }, { key: 'k', content: image, modality: 1 as unknown as Modality }])],
    ['entry 1', () => cache.setMany([{ key: 'k', content: image, embedding: [1] }, { key: 'k', content: new Uint8Array(), embedding: [1] }])],
    ['no bytes', () => cache.set('k', new Uint8Array(), [1], { modality: 'image' })],
    ['Uint8Array', () => cache.set('k', new Float32Array(2) as unknown as Uint8Array, [1], { modality: 'image' })],
    ['Uint8Array', () => cache.get('k', image.buffer as unknown as Uint8Array)],
    ['one of the two', () => cache.findSimilar([1], { modality: 'image', modalities: ['image'] })],
    ['at least one', () => cache.findSimilar([1], { modalities: [] })],
    ['at least one', () => cache.findSimilar([1], { modalities: 'image' as unknown as Modality[] })],
    ["'text', 'image' or 'audio'", () => cache.findSimilar([1], { modalities: ['image', 'x' as Modality] })],
    ["'text', 'image' or 'audio'", () => cache.clear({ modality: 'x' as Modality })],
  ];
  for (const [message, call] of wrong) {
    const error = await failure(call);
    expect([error.code, error.message]).toEqual(['INVALID_ARGUMENT', expect.stringContaining(message)]);
  }
  expect((await failure(() => cache.get('k', image, { modalities: ['image'] } as object))).code).toBe('INVALID_CONFIG');
  expect(cache.getStats()).toMatchObject({ sets: 0, currentEntries: 0 });
  // No vector length was fixed.
  await cache.set('k', image, [1, 2, 3], { modality: 'image' });
});

test('where contents do not matter, bytes are not looked at', async () => {
  const cache = make({ enableContentValidation: false });
  await cache.set('k', image, [1], { modality: 'image' });
  expect(first(await cache.get('k', other, { modality: 'image' }))).toBe(1);
  expect(first(await cache.get('k', undefined, { modality: 'image' }))).toBe(1);
  expect((await failure(() => cache.get('k', 5 as unknown as string))).code).toBe('INVALID_ARGUMENT');
});

test('memory that other threads may write is hashed as it is', async () => {
  const cache = make();
  const shared = new Uint8Array(new SharedArrayBuffer(image.length));
  shared.set(image);
  await cache.set('k', shared, [1], { modality: 'image' });
  expect(first(await cache.get('k', image, { modality: 'image' }))).toBe(1);
});

test('caches on one file see the images of each other, and keep them', async () => {
  const persistPath = file();
  const one = make({ persistPath });
  await one.set('k', image, [1, 2], { modality: 'image' });
  await one.set('k', 'a text', [3]);
  await one.flush();
  const two = make({ persistPath });
  expect(first(await two.get('k', image, { modality: 'image' }))).toBe(1);
  await two.delete('k', { modality: 'image' });
  await expect.poll(() => one.has('k', image, { modality: 'image' })).toBe(false);
  expect(first(await one.get('k', 'a text'))).toBe(3);
});

test('a file of an earlier release is opened, and its entries are texts', async () => {
  const persistPath = file();
  writeFileSync(persistPath, gunzipSync(readFileSync(join(root, 'fixtures', 'cache-0.1.0.db.gz'))));
  const cache = make({ persistPath });
  expect(await cache.get('k', 'a text')).toEqual({ embedding: [1, 2], metadata: 'of before' });
  await cache.set('k', image, [1, 2, 3], { modality: 'image' });
  expect((await cache.findSimilar([1, 2])).map(({ key, modality }) => [key, modality])).toEqual([['k', 'text']]);
});
