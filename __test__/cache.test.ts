import { channel, subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  EmbeddingError,
  getEmbeddingCache,
  IntelligentEmbeddingCache,
  resetEmbeddingCache,
  type Annotation,
  type CacheEvent,
  type CacheOptions,
  type EmbeddingResult,
} from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure } from './support';

function make(options?: CacheOptions): IntelligentEmbeddingCache {
  const cache = new IntelligentEmbeddingCache(options);
  onTestFinished(() => cache.close());
  return cache;
}

/** A path in a directory of its own. */
function file(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-cache-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'nested', 'cache.db');
}

/** The events that happen during a test. */
function listen(): CacheEvent[] {
  const seen: CacheEvent[] = [];
  const note = (event: unknown) => void seen.push(event as CacheEvent);
  subscribe('embedcore:cache', note);
  onTestFinished(() => void unsubscribe('embedcore:cache', note));
  return seen;
}

const vector = (seed: number, dimensions = 8) => Array.from({ length: dimensions }, (_, i) => Math.fround(Math.sin(seed + i)));

const annotation: Annotation = { nodeId: 'n1', signature: 'function f()', summary: 'does f', sourceSnippet: 'return 1;' };
const result: EmbeddingResult = {
  nodeId: 'n1',
  embedding: vector(1),
  inputText: 'Signature: function f()',
  processingTime: 12,
  modelUsed: 'some/model',
  confidence: 0.75,
  truncated: false,
  tokenCount: 9,
};

describe.each<[string, () => CacheOptions]>([
  ['memory', () => ({})],
  ['disk', () => ({ persistPath: file(), maxEntries: 1 })],
])('%s', (_, options) => {
  test('keys', async () => {
    const cache = make(options());
    await cache.set('a', 'content a', vector(1));
    await cache.set('b', 'content b', Float32Array.from(vector(2)), { metadata: { deep: ['x', 1] } });
    expect(await cache.get('a', 'content a')).toEqual({ embedding: vector(1) });
    expect(await cache.get('b', 'content b')).toEqual({ embedding: vector(2), metadata: { deep: ['x', 1] } });
    expect(await cache.get('c', 'content c')).toBeNull();
    const mine = (await cache.get('a', 'content a'))!;
    mine.embedding[0] = 99;
    expect(await cache.get('a', 'content a')).toEqual({ embedding: vector(1) });
    expect([await cache.has('a'), await cache.has('a', 'content a'), await cache.has('a', 'other')]).toEqual([true, true, false]);
    expect(await cache.get('a', 'content a, changed')).toBeNull();
    expect(await cache.get('a', 'content a')).toBeNull();
    expect([await cache.delete('b'), await cache.delete('b'), await cache.has('b')]).toEqual([true, false, false]);
    await cache.set('', '', [1, 2, 3, 4, 5, 6, 7, 8]);
    expect((await cache.get('', ''))!.embedding).toHaveLength(8);
    await cache.clear();
    expect(await cache.has('')).toBe(false);
  });

  test('annotations', async () => {
    const cache = make(options());
    await cache.set(annotation, result);
    expect(await cache.get({ ...annotation, metadata: { other: 1 } })).toEqual({ ...result, processingTime: 0, fromCache: true });
    expect(await cache.has('n1')).toBe(false);
    expect(await cache.has(annotation)).toBe(true);
    expect(await cache.get({} as Annotation)).toBeNull();
    expect(await cache.get(null as unknown as Annotation)).toBeNull();
    expect(await cache.get({ ...annotation, summary: 'does g' })).toBeNull();
    expect(await cache.get(annotation)).toBeNull();
    expect(cache.getStats()).toMatchObject({ hits: 1, misses: 4, totalRequests: 5 });
    expect((await failure(() => cache.set({} as Annotation, result))).code).toBe('INVALID_ARGUMENT');
    expect((await failure(() => cache.set(annotation, undefined as unknown as EmbeddingResult))).code).toBe('INVALID_ARGUMENT');
  });

  test('many at once', async () => {
    const cache = make({ ...options(), maxEntries: 3000 });
    const key = (i: number) => (i % 3 === 0 ? `klüčenka 🔑 ${i}` : `key ${i}`);
    const content = (i: number) => (i % 2 === 0 ? `déjà vu ${i}` : `content ${i}`.repeat(i % 7));
    const entries = Array.from({ length: 5000 }, (_, i) => ({ key: key(i), content: content(i), embedding: vector(i) }));
    await cache.setMany(entries.slice(0, 3000));
    const found = await cache.getMany(entries);
    expect([found.rows, found.dimensions, found.data.length]).toEqual([5000, 8, 40_000]);
    expect(Array.from(found.hits)).toEqual(entries.map((_, i) => (i < 3000 ? 1 : 0)));
    expect(Array.from(found.row(2999))).toEqual(vector(2999));
    expect(Array.from(found.row(3000))).toEqual(new Array(8).fill(0));
    for (const i of [0, 1, 2, 3, 6, 2998]) expect((await cache.get(key(i), content(i)))!.embedding).toEqual(vector(i));
    expect(await cache.getMany([])).toMatchObject({ rows: 0, dimensions: 0 });
    expect((await cache.getMany([{ key: 'nothing', content: '' }])).dimensions).toBe(0);
    await cache.setMany([]);
    await cache.clear();
    await cache.set(annotation, result);
    const annotated = await cache.getMany([annotation, { ...annotation, nodeId: 'n2' }]);
    expect(Array.from(annotated.hits)).toEqual([1, 0]);
    expect(Array.from(annotated.row(0))).toEqual(result.embedding);
  });

  test('getOrCompute calls once, and shares failures without keeping them', async () => {
    const cache = make(options());
    let calls = 0;
    const compute = async () => {
      calls++;
      await sleep(20);
      return vector(7);
    };
    const all = await Promise.all(Array.from({ length: 100 }, () => cache.getOrCompute('k', 'c', compute, { metadata: 'm' })));
    expect(calls).toBe(1);
    expect(new Set(all.map(({ embedding }) => embedding)).size).toBe(100);
    for (const one of all) expect(one).toEqual({ embedding: vector(7), metadata: 'm' });
    expect(await cache.getOrCompute('k', 'c', () => expect.fail('it is there'))).toEqual({ embedding: vector(7), metadata: 'm' });
    const broken = async () => {
      calls++;
      await sleep(20);
      throw new Error('no model');
    };
    const failed = await Promise.allSettled(Array.from({ length: 10 }, () => cache.getOrCompute('x', 'c', broken)));
    expect(calls).toBe(2);
    for (const one of failed) expect(one).toMatchObject({ status: 'rejected', reason: { message: 'no model' } });
    expect((await cache.getOrCompute('x', 'c', compute)).embedding).toEqual(vector(7));
    // Another content is another flight.
    const [one, two] = await Promise.all([
      cache.getOrCompute('y', '1', () => vector(1)),
      cache.getOrCompute('y', '2', () => vector(2)),
    ]);
    expect([one.embedding, two.embedding]).toEqual([vector(1), vector(2)]);
  });

  test('similar entries', async () => {
    const cache = make(options());
    const at = (angle: number) => [Math.cos(angle), Math.sin(angle)];
    for (let i = 0; i < 8; i++) await cache.set(`k${i}`, 'c', at(i / 10), { metadata: { i } });
    expect((await cache.findSimilar(at(0.1))).map(({ key }) => key).slice(3)).toEqual(['k3', 'k4', 'k5', 'k6', 'k7']);
    const near = await cache.findSimilar(at(0.1), { threshold: 0.95 });
    expect(near.map(({ key }) => key)).toEqual(['k1', expect.stringMatching(/k[02]/), expect.stringMatching(/k[02]/), 'k3', 'k4']);
    expect(near[0]!.similarity).toBeCloseTo(1, 6);
    expect(near[0]!.metadata).toEqual({ i: 1 });
    expect(near[3]!.similarity).toBeCloseTo(Math.cos(0.2), 5);
    expect(await cache.findSimilar(Float32Array.from(at(0)), { threshold: -1, limit: 3 })).toHaveLength(3);
    expect(await cache.findSimilar([1, 0, 0])).toEqual([]);
    for (const wrong of [{ threshold: 2 }, { threshold: NaN }, { limit: 0 }, { limit: 1.5 }]) {
      expect((await failure(() => cache.findSimilar([1, 0], wrong))).code).toBe('INVALID_ARGUMENT');
    }
    expect((await failure(() => cache.findSimilar([NaN, 0]))).message).toContain('NaN');
  });

  test('time to live', async () => {
    const cache = make({ ...options(), ttlMs: 60_000 });
    await cache.set('short', 'c', vector(1), { ttlSeconds: 2 });
    await cache.set('long', 'c', vector(2), { ttlSeconds: Infinity });
    await cache.set('usual', 'c', vector(3));
    expect(await cache.get('short', 'c')).not.toBeNull();
    await sleep(2100);
    expect([await cache.has('short'), await cache.has('long'), await cache.has('usual')]).toEqual([false, true, true]);
    expect(await cache.get('short', 'c')).toBeNull();
    expect(await cache.optimize()).toMatchObject({ complete: true });
  });

  test('what is unusable is refused and changes nothing', async () => {
    const cache = make(options());
    await cache.set('k', 'c', vector(1));
    const cases: [() => unknown, string][] = [
      [() => cache.set('k', 'c', []), 'no values'],
      [() => cache.set('k', 'c', [1, NaN, 1, 1, 1, 1, 1, 1]), 'NaN at position 1'],
      [() => cache.set('k', 'c', [1e300, 0, 0, 0, 0, 0, 0, 0]), 'inf at position 0'],
      [() => cache.set('k', 'c', [1, 2]), 'have 8'],
      [() => cache.set('k', 'c', ['1' as unknown as number]), '1 at position 0'],
      [() => cache.set('k', 'c', new Array(8)), 'undefined at position 0'],
      [() => cache.set('k', 'c', 'vector' as unknown as number[]), 'not an array'],
      [() => cache.set('k', 5 as unknown as string, vector(2)), 'content'],
      [() => cache.set('k', 'c', vector(2), { ttlSeconds: -1 }), '-1'],
      [() => cache.set('k', 'c', vector(2), { metadata: 1n }), 'JSON'],
      [() => cache.set('k', 'c', vector(2), { metadata: () => 1 }), 'JSON'],
      [() => cache.set('k', 'c', new Float32Array((64 << 20) / 4 + 1)), 'limit of 67108864 bytes'],
      [() => cache.setMany([{ key: 'k', content: 'c', embedding: vector(2) }, { key: 'l', content: 'c', embedding: [1] }]), 'entry 1'],
      [() => cache.setMany([{ key: 'k', content: 'c', embedding: vector(2) }, null as never]), 'entry 1'],
      [() => cache.setMany('x' as never), 'not an array'],
      [() => cache.get('k'), 'content'],
      [() => cache.getMany([{ key: 'k' }]), 'entry 0'],
      [() => cache.getMany([{ content: 'k' } as never]), 'entry 0'],
      [() => cache.getOrCompute('z', 'c', 5 as never), 'compute'],
      [() => cache.delete(5 as never), 'annotation'],
    ];
    for (const [work, says] of cases) {
      const error = await failure(work);
      expect(error).toBeInstanceOf(EmbeddingError);
      expect({ code: error.code, message: error.message }).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(says) });
    }
    expect((await cache.get('k', 'c'))!.embedding).toEqual(vector(1));
    expect(await cache.has('l')).toBe(false);
  });

  test('close', async () => {
    const cache = make(options());
    await cache.set('k', 'c', vector(1));
    await Promise.all([cache.close(), cache.close()]);
    for (const work of [() => cache.get('k', 'c'), () => cache.set('k', 'c', vector(1)), () => cache.clear(), () => cache.optimize()]) {
      expect((await failure(work)).code).toBe('CLOSED');
    }
    expect(cache.getStats().sets).toBe(1);
  });
});

describe('memory', () => {
  test('is strict LRU by number and by bytes', async () => {
    const cache = make({ maxEntries: 3 });
    for (const key of ['a', 'b', 'c']) await cache.set(key, 'x', vector(1));
    await cache.get('a', 'x');
    await cache.set('d', 'x', vector(1));
    expect(await Promise.all(['a', 'b', 'c', 'd'].map((key) => cache.has(key)))).toEqual([true, false, true, true]);
    expect(cache.getStats()).toMatchObject({ currentEntries: 3, evictions: 1, evictionCauses: { size: 1 }, utilization: 1 });
    const small = make({ maxSizeBytes: 20_000 });
    for (let i = 0; i < 100; i++) await small.set(`k${i}`, 'x', vector(i, 500));
    const { currentEntries, currentSizeBytes, utilization } = small.getStats();
    expect(currentSizeBytes).toBeLessThanOrEqual(20_000);
    expect(currentEntries).toBe(Math.floor(20_000 / (currentSizeBytes / currentEntries)));
    expect(utilization).toBeCloseTo(currentSizeBytes / 20_000, 9);
    expect(await small.has('k99')).toBe(true);
  });

  test('without content validation the content does not matter', async () => {
    const cache = make({ enableContentValidation: false });
    await cache.set('k', 'c', vector(1));
    expect(await cache.get('k')).toEqual({ embedding: vector(1) });
    expect(await cache.get('k', 'other')).toEqual({ embedding: vector(1) });
    expect(Array.from((await cache.getMany([{ key: 'k' }])).hits)).toEqual([1]);
    await cache.set(annotation, result);
    expect(await cache.get({ ...annotation, summary: 'changed' })).not.toBeNull();
  });

  test('f16', async () => {
    const cache = make({ vectorPrecision: 'f16' });
    await cache.set('k', 'c', vector(1, 384));
    const { embedding } = (await cache.get('k', 'c'))!;
    expect(embedding.every((value, i) => Math.abs(value - vector(1, 384)[i]!) <= 2 ** -11)).toBe(true);
    expect(cache.getStats().payloadBytes).toBeLessThan(900);
  });

  test('vectors of any length', async () => {
    const cache = make();
    await cache.set('long', 'c', vector(1, 5000));
    await cache.set('long too', 'c', vector(2, 5000), { metadata: 1 });
    expect((await cache.get('long', 'c'))!.embedding).toEqual(vector(1, 5000));
    expect(await cache.get('long', 'c')).toEqual({ embedding: vector(1, 5000) });
    expect(await cache.get('long too', 'c')).toEqual({ embedding: vector(2, 5000), metadata: 1 });
    const content = 'x'.repeat(10_000) + 'ä'.repeat(3000);
    await cache.set(content, content, vector(3, 5000));
    expect(await cache.get(content, content)).not.toBeNull();
    expect(await cache.get(content, `${content}!`)).toBeNull();
  });

  test('measures itself', async () => {
    const cache = make();
    expect(cache.getPerformanceMetrics()).toMatchObject({ performanceScore: 0, memoryEfficiency: 0, recentSamples: [] });
    expect(cache.getStats()).toMatchObject({ totalRequests: 0, hitRatio: 0, missRatio: 0, avgAccessTimeMs: 0, disk: null });
    await cache.set('k', 'c', vector(1));
    await cache.get('k', 'c');
    await cache.get('k', 'c');
    await cache.get('nothing', 'c');
    await cache.get('k', 'changed');
    const { stats, recentSamples, memoryEfficiency, performanceScore } = cache.getPerformanceMetrics();
    expect(stats).toMatchObject({ totalRequests: 4, hits: 2, misses: 2, hitRatio: 0.5, missRatio: 0.5, sets: 1, memoryHits: 2, diskHits: 0 });
    expect(stats).toMatchObject({ missCauses: { absent: 1, changed: 1 }, evictionCauses: { explicit: 1 }, evictions: 1, currentEntries: 0 });
    expect(stats.avgAccessTimeMs).toBeGreaterThan(0);
    expect(stats.averageAccessTime).toBe(stats.avgAccessTimeMs);
    expect(recentSamples.map(({ hitRatio }) => hitRatio)).toEqual([1, 1, 0, 0]);
    expect(Math.abs(recentSamples[0]!.timestamp - Date.now())).toBeLessThan(60_000);
    expect(memoryEfficiency).toBe(0);
    expect(performanceScore).toBeCloseTo(0.7 * 0.5 + 0.3, 9);
  });

  test('tells about evictions and a low hit ratio', async () => {
    const seen = listen();
    const cache = make({ maxEntries: 2, hitRatioThreshold: 0.5 });
    await cache.setMany(['a', 'b', 'c', 'd'].map((key) => ({ key, content: '', embedding: vector(1) })));
    await cache.set('d', '', vector(2));
    await cache.delete('d');
    expect(seen).toEqual([
      { type: 'evicted', cause: 'size', entries: 2 },
      { type: 'evicted', cause: 'replaced', entries: 1 },
      { type: 'evicted', cause: 'explicit', entries: 1 },
    ]);
    for (let i = 0; i < 100; i++) await cache.get('nothing', '');
    await cache.optimize();
    expect(seen.at(-1)).toEqual({ type: 'hit-ratio-low', hitRatio: 0, threshold: 0.5 });
    expect(channel('embedcore:cache').hasSubscribers).toBe(true);
  });

  test('maintenance runs by itself', async () => {
    const cache = make({ maintenanceInterval: 20, ttlMs: 10 });
    await cache.set('k', 'c', vector(1));
    await expect.poll(() => cache.getStats().currentEntries).toBe(0);
    expect(cache.getStats().evictionCauses.expired).toBe(1);
  });

  test('is shared by the process', async () => {
    const cache = getEmbeddingCache({ maxEntries: 5 });
    expect(getEmbeddingCache()).toBe(cache);
    expect(cache.getStats().maxEntries).toBe(5);
    await resetEmbeddingCache();
    expect((await failure(() => cache.get('k', 'c'))).code).toBe('CLOSED');
    expect(getEmbeddingCache()).not.toBe(cache);
    await resetEmbeddingCache();
    await resetEmbeddingCache();
  });
});

describe('disk', () => {
  test('keeps entries from one cache to the next, apart by namespace and model', async () => {
    const persistPath = file();
    const first = make({ persistPath, namespace: 'n', model: 'm' });
    await first.set('k', 'c', vector(1), { metadata: 'kept' });
    await first.flush();
    expect(first.getStats().disk).toMatchObject({ available: true, entries: 1, written: 1, lost: 0, queued: 0 });
    await first.close();
    const again = make({ persistPath, namespace: 'n', model: 'm' });
    expect(await again.get('k', 'c')).toEqual({ embedding: vector(1), metadata: 'kept' });
    expect(again.getStats()).toMatchObject({ diskHits: 1, currentEntries: 1 });
    for (const others of [{}, { namespace: 'n' }, { model: 'm' }, { namespace: 'm', model: 'n' }, { namespace: 'nm' }]) {
      const other = make({ persistPath, ...others });
      expect(await other.get('k', 'c')).toBeNull();
      await other.set('k', 'c', vector(2, 4));
      await other.clear();
    }
    expect(await again.has('k')).toBe(true);
  });

  test('a broken file is set aside, with an event and without a print', async () => {
    const seen = listen();
    const persistPath = file();
    await make({ persistPath }).close();
    const bytes = readFileSync(persistPath);
    writeFileSync(persistPath, bytes.fill(7, 100));
    const warnings: Error[] = [];
    const warned = (warning: Error) => void warnings.push(warning);
    process.on('warning', warned);
    const cache = make({ persistPath });
    await cache.set('k', 'c', vector(1));
    await cache.flush();
    expect(seen).toContainEqual(expect.objectContaining({ type: 'file-set-aside', path: persistPath }));
    process.off('warning', warned);
    expect(warnings).toEqual([]);
  });

  test('a file that cannot be made costs nothing but the file', async () => {
    const blocked = file();
    await make({ persistPath: blocked }).close();
    const cache = make({ persistPath: join(blocked, 'not-a-directory', 'cache.db') });
    await cache.set('k', 'c', vector(1));
    expect(await cache.get('k', 'c')).not.toBeNull();
    expect((await cache.getOrCompute('l', 'c', () => vector(2))).embedding).toEqual(vector(2));
    const error = await failure(() => cache.flush());
    expect(error).toMatchObject({ code: 'CACHE_STORAGE_FAILED', retryable: true, details: { path: expect.stringContaining('not-a-directory') } });
    expect(cache.getStats().disk).toMatchObject({ available: false });
  });
});

test.each<[CacheOptions | Record<string, unknown>, string]>([
  [{ maxEntries: 0 }, 'maxEntries'],
  [{ maxEntries: 1.5 }, 'maxEntries'],
  [{ maxMemoryMB: -1 }, 'maxMemoryMB'],
  [{ maxMemoryMB: 1, maxSizeBytes: 1 << 20 }, 'only one'],
  [{ ttlSeconds: 1, ttlMs: 1000 }, 'only one'],
  [{ ttlSeconds: NaN }, 'ttlSeconds'],
  [{ ttlMs: -1 }, 'ttlMs'],
  [{ enableContentValidation: 'yes' }, 'true or false'],
  [{ maintenanceInterval: 0 }, 'maintenanceInterval'],
  [{ hitRatioThreshold: 70 }, 'hitRatioThreshold'],
  [{ vectorPrecision: 'int8' }, "'f32' or 'f16'"],
  [{ persistPath: '' }, 'persistPath'],
  [{ persistPath: tmpdir() }, 'directory'],
  [{ maxDiskMB: 5 }, 'persistPath'],
  [{ maxentries: 5 }, 'no such option'],
])('refused: %j', async (options, says) => {
  const error = await failure(() => new IntelligentEmbeddingCache(options as CacheOptions));
  expect(error).toMatchObject({ code: 'INVALID_CONFIG' });
  expect(error.message).toContain(says);
});
