import { communities, cosine, dedupe, dot, EmbeddingMatrix, kMeans, pairs, similarities, topK } from 'embedcore';
import { describe, expect, test } from 'vitest';

import { cosine as plainCosine, failure, model, ready } from './support';

/** Numbers that look like any, from -1 to 1. */
function noise(count: number, seed = 1): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => (state = (state * 1664525 + 1013904223) >>> 0) / 2 ** 31 - 1);
}

const matrix = new EmbeddingMatrix(noise(200 * 24), 24);
const INVALID = { code: 'INVALID_ARGUMENT' };

describe('EmbeddingMatrix', () => {
  test('holds vectors from elsewhere, and is what embed gives', async () => {
    const data = noise(12);
    const own = new EmbeddingMatrix(data, 4);
    expect([own.data === data, own.rows, own.dimensions, own.errors.size]).toEqual([true, 3, 4, 0]);
    expect(own.row(1)).toEqual(data.subarray(4, 8));
    expect([own.tokenCounts.length, own.truncated.length, own.fromCache.length]).toEqual([3, 3, 3]);
    expect(structuredClone(own)).toMatchObject({ rows: 3, dimensions: 4 });
    const generator = await ready({ modelPath: model('demo') });
    expect(await generator.embed(['a', 'b'])).toBeInstanceOf(EmbeddingMatrix);
    expect(new EmbeddingMatrix(new Float32Array(), 3).rows).toBe(0);
  });

  test('refuses what are no vectors', async () => {
    for (const [data, dimensions] of [[[1, 2], 2], [new Float32Array(3), 2], [new Float32Array(2), 0], [new Float32Array(2), 1.5], [undefined, 2]]) {
      expect(await failure(() => new EmbeddingMatrix(data as never, dimensions as never))).toMatchObject(INVALID);
    }
    expect(await failure(() => matrix.row(200))).toMatchObject(INVALID);
  });
});

test('cosine and dot are those of two vectors', async () => {
  expect(cosine([1, 0], [1, 1])).toBeCloseTo(Math.SQRT1_2, 12);
  expect([cosine([0, 0], [1, 1]), cosine([1e300, 1e300], [1e-300, 1e-300]), dot([1, 2], Float32Array.of(3, 4))]).toEqual([0, expect.closeTo(1, 12), 11]);
  for (const [a, b] of [[[1], [1, 2]], [[], []], [[NaN], [1]], ['a', [1]], [[1, '2'], [1, 2]], [null, [1]]]) {
    for (const of of [cosine, dot]) expect(await failure(() => of(a as never, b as never))).toMatchObject(INVALID);
  }
});

test('similarities and topK are those of a plain search', async () => {
  const query = noise(24, 9);
  const all = await similarities(query, matrix);
  for (const at of [0, 7, 199]) expect(all[at]).toBeCloseTo(plainCosine(query, matrix.row(at)), 6);
  const order = Array.from(all.keys()).sort((a, b) => all[b]! - all[a]!);
  const best = await topK(query, matrix, 5);
  expect([best.k, [...best.indices], [...best.scores]]).toEqual([5, order.slice(0, 5), order.slice(0, 5).map((at) => all[at])]);
  const many = await topK(matrix, matrix, 3, { threshold: 0.5 });
  for (let row = 0; row < 200; row++) {
    expect([many.indices[3 * row], many.scores[3 * row]]).toEqual([row, 1]);
    for (const at of [1, 2]) expect(many.indices[3 * row + at] === -1 ? -Infinity : 1).toBe(many.scores[3 * row + at]! >= 0.5 ? 1 : -Infinity);
  }
  expect(await topK(query, matrix, 1000)).toMatchObject({ k: 200 });
  expect(await topK(query, new EmbeddingMatrix(new Float32Array(), 24), 3)).toMatchObject({ k: 0 });
});

test('duplicates repeat what is kept; pairs and communities hold what is near', async () => {
  const groups = new EmbeddingMatrix(noise(120 * 6).map((value, at) => 0.2 * value + ((at / 6) % 3 >= 2 === (at % 6 === 0) ? 1 : -1)), 6);
  const { keep, duplicateOf } = await dedupe(groups, { threshold: 0.9 });
  expect(keep.length).toBeLessThan(60);
  for (const [row, leader] of duplicateOf.entries()) {
    if (leader === -1) expect(keep).toContain(row);
    else expect(cosine(groups.row(row), groups.row(leader))).toBeGreaterThan(0.8999);
  }
  const near = await pairs(groups, { threshold: 0.99 });
  expect(near.length).toBeGreaterThan(10);
  for (const { a, b, score } of near) {
    expect(a).toBeLessThan(b);
    expect(score).toBeCloseTo(plainCosine(groups.row(a), groups.row(b)), 5);
  }
  const found = await communities(groups, { threshold: 0.9, minSize: 5 });
  expect(found.length).toBeGreaterThanOrEqual(2);
  expect(new Set(found.flatMap((group) => [...group])).size).toBe(found.reduce((sum, group) => sum + group.length, 0));
});

test('kMeans groups all, the same for the same seed', async () => {
  const { labels, centroids, inertia } = await kMeans(matrix, 7, { seed: 3 });
  expect(centroids).toBeInstanceOf(EmbeddingMatrix);
  const distance = (row: number) => matrix.row(row).reduce((sum, value, at) => sum + (value - centroids.row(labels[row]!)[at]!) ** 2, 0);
  expect(Array.from({ length: 200 }, (_, row) => distance(row)).reduce((a, b) => a + b)).toBeCloseTo(inertia, 1);
  const again = await Promise.all([1, 2].map(() => kMeans(matrix, 7, { seed: 3 })));
  for (const one of again) expect([one.labels, one.inertia]).toEqual([labels, inertia]);
  const equal = await kMeans(new EmbeddingMatrix(new Float32Array(20).fill(2), 2), 3);
  expect([equal.inertia, new Set(equal.labels)]).toEqual([0, new Set([0])]);
});

test('a call is of what there is when it is made', async () => {
  const data = noise(2000 * 24);
  const running = topK(data.subarray(0, 24), { data, dimensions: 24 }, 1);
  data.fill(0);
  expect((await running).scores[0]).toBe(1);
});

test('what cannot be is refused', async () => {
  const nan = new EmbeddingMatrix(Float32Array.of(1, 2, 3, NaN), 2);
  const wrong: [() => unknown, object][] = [
    [() => kMeans(matrix, 0), INVALID],
    [() => kMeans(matrix, 201), { ...INVALID, details: { k: 201, rows: 200 } }],
    [() => kMeans(matrix, 2, { seed: -1 }), { code: 'INVALID_CONFIG', details: { option: 'seed' } }],
    [() => kMeans(matrix, 2, { maxIterations: 0 }), { code: 'INVALID_CONFIG' }],
    [() => topK(matrix, matrix, 0), INVALID],
    [() => topK(noise(5), matrix, 1), INVALID],
    [() => topK(new EmbeddingMatrix(noise(10), 5), matrix, 1), INVALID],
    [() => topK(matrix, matrix, 1, { threshold: 2 }), { code: 'INVALID_CONFIG', details: { option: 'threshold' } }],
    ...[pairs, dedupe, communities].flatMap((of) => [undefined, {}].map((options): [() => unknown, object] =>
      [() => of(matrix, options as never), { code: 'INVALID_CONFIG', details: { option: 'threshold' } }])),
    [() => dedupe([[1, 2]] as never, { threshold: 1 }), INVALID],
    [() => communities(matrix, { threshold: 0.5, minSize: 0 }), { code: 'INVALID_CONFIG', details: { option: 'minSize' } }],
    [() => similarities([1, 2], nan), { ...INVALID, message: expect.stringContaining('Row 1 of the matrix has NaN at position 1') as string }],
    [() => kMeans(nan, 1), INVALID],
    [() => similarities([NaN, 2], new EmbeddingMatrix(noise(4), 2)), INVALID],
  ];
  for (const [call, error] of wrong) expect(await failure(call)).toMatchObject(error);
});

test('long work stops when it is told to', async () => {
  const large = new EmbeddingMatrix(noise(60_000 * 64), 64);
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 20);
  expect(await failure(() => topK(large, large, 3, { signal: controller.signal }))).toMatchObject({ code: 'ABORTED' });
  expect(await failure(() => communities(large, { threshold: 0.5, timeoutMs: 20 }))).toMatchObject({ code: 'TIMED_OUT' });
});
