// What IntelligentEmbeddingCache does between two calls, and with values that are odd.
import { spawnSync } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { IntelligentEmbeddingCache, type Annotation, type CacheEvent, type CacheOptions } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure, root } from './support';

function make(options?: CacheOptions): IntelligentEmbeddingCache {
  const cache = new IntelligentEmbeddingCache(options);
  onTestFinished(() => cache.close());
  return cache;
}

function file(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-edges-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'cache.db');
}

function listen(): CacheEvent[] {
  const seen: CacheEvent[] = [];
  const note = (event: unknown) => void seen.push(event as CacheEvent);
  subscribe('embedcore:cache', note);
  onTestFinished(() => void unsubscribe('embedcore:cache', note));
  return seen;
}

/** A promise, and what settles it. */
function gate<T>(): { opened: Promise<T>; open: (value: T) => void } {
  let open!: (value: T) => void;
  const opened = new Promise<T>((resolve) => (open = resolve));
  return { opened, open };
}

/** Numbers from -0.5 to 0.5, the same ones every time. */
function random(seed = 1): () => number {
  return () => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648 - 0.5;
}

const annotation: Annotation = { nodeId: 'n', signature: 'f()', summary: 'does f' };

describe.each<[string, () => CacheOptions]>([
  ['in memory', () => ({})],
  ['with a file', () => ({ persistPath: file(), maxEntries: 2 })],
])('calls that are not awaited, %s', (_, options) => {
  test('take effect in the order in which they were made', async () => {
    const cache = make(options());
    const at = (found: { embedding: number[] } | null) => found?.embedding[0] ?? null;
    const seen = await Promise.all([
      cache.get('k', 'x').then(at),
      cache.set('k', 'x', [1]),
      cache.get('k', 'x').then(at),
      cache.set('k', 'x', [2]),
      cache.has('k', 'x'),
      cache.delete('k'),
      cache.has('k', 'x'),
      cache.delete('k'),
      cache.set('k', 'x', [3]),
      cache.findSimilar([1]).then((all) => all.map(({ key, embedding }) => [key, embedding[0]])),
      cache.clear(),
      cache.findSimilar([1]),
      cache.setMany([{ key: 'k', content: 'x', embedding: [4] }, { key: 'l', content: 'x', embedding: [5] }]),
      cache.getMany([{ key: 'k', content: 'x' }, { key: 'l', content: 'x' }]).then(({ data }) => [...data]),
      cache.get('k', 'other').then(at),
      cache.get('k', 'x').then(at),
      cache.getOrCompute('k', 'x', () => [6]).then(at),
      cache.get('k', 'x').then(at),
    ]);
    expect(seen).toEqual([
      null, undefined, 1, undefined, true, true, false, false, undefined, [['k', 3]], undefined, [], undefined, [4, 5], null, null, 6, null,
    ]);
    expect(at(await cache.get('k', 'x'))).toBe(6);
  });

  test('a lookup of thousands is of one moment', async () => {
    const cache = make({ ...options(), maxEntries: 10_000 });
    const entries = Array.from({ length: 6000 }, (_, i) => ({ key: `k${i}`, content: 'x', embedding: [1] }));
    await cache.setMany(entries);
    const looking = cache.getMany(entries);
    const clearing = cache.clear();
    // The call is a snapshot of its arguments, too.
    for (const entry of entries) entry.key = 'nothing';
    const { hits } = await looking;
    expect(hits.every((hit) => hit === 1)).toBe(true);
    await clearing;
    expect(await cache.has('k5999', 'x')).toBe(false);
  });

  test('end with close()', async () => {
    const cache = make(options());
    const set = cache.set('k', 'x', [1]);
    const found = cache.get('k', 'x');
    const closed = cache.close();
    await Promise.all([set, closed]);
    expect((await found)?.embedding).toEqual([1]);
  });

  test('the last of many sets is the one that counts', async () => {
    const cache = make(options());
    for (let round = 0; round < 20; round++) {
      await Promise.all(Array.from({ length: 10 }, (_, i) => cache.set('k', 'x', [round * 10 + i])));
      expect((await cache.get('k', 'x'))?.embedding).toEqual([round * 10 + 9]);
    }
  });
});

describe.each<[string, () => CacheOptions]>([
  ['in memory', () => ({})],
  ['with a file', () => ({ persistPath: file() })],
])('a computation, %s', (_, options) => {
  test.each<[string, (cache: IntelligentEmbeddingCache) => Promise<unknown>, number[] | undefined]>([
    ['set', (cache) => cache.set('k', 'x', [2]), [2]],
    ['setMany', (cache) => cache.setMany([{ key: 'k', content: 'x', embedding: [2] }]), [2]],
    ['delete', (cache) => cache.delete('k'), undefined],
    ['clear', (cache) => cache.clear(), undefined],
  ])('does not land over a later %s, and answers nobody who came after it', async (_name, change, there) => {
    const cache = make(options());
    const { opened, open } = gate<number[]>();
    const begun = gate<void>();
    const first = cache.getOrCompute('k', 'x', () => (begun.open(), opened));
    await begun.opened;
    await change(cache);
    const later = cache.getOrCompute('k', 'x', () => [3]);
    if (there) expect((await later).embedding).toEqual(there);
    open([1]);
    expect((await first).embedding).toEqual([1]);
    expect((await later).embedding).toEqual(there ?? [3]);
    expect((await cache.get('k', 'x'))?.embedding).toEqual(there ?? [3]);
  });

  test('lands over nothing although nobody awaits anything', async () => {
    const cache = make(options());
    const { opened, open } = gate<number[]>();
    const computed = cache.getOrCompute('k', 'x', () => opened);
    const set = cache.set('k', 'x', [2]);
    open([1]);
    await Promise.all([computed, set]);
    expect((await cache.get('k', 'x'))?.embedding).toEqual([2]);
  });

  test('is not undone by what concerns another key, a refused set or a read', async () => {
    const cache = make(options());
    const { opened, open } = gate<number[]>();
    const computed = cache.getOrCompute('k', 'x', () => opened);
    await cache.set('other', 'x', [2]);
    await cache.delete(annotation);
    await failure(() => cache.set('k', 'x', [NaN]));
    await cache.has('k', 'x');
    open([1]);
    await computed;
    expect((await cache.get('k', 'x'))?.embedding).toEqual([1]);
  });

  test('is copied at the moment when it ends', async () => {
    const cache = make(options());
    const scratch = new Float32Array(2);
    const embed = (value: number) => () => {
      scratch.fill(value);
      return scratch;
    };
    const all = await Promise.all([1, 2, 3].map((value) => cache.getOrCompute(`${value}`, 'x', embed(value))));
    expect(all.map(({ embedding }) => embedding)).toEqual([[1, 1], [2, 2], [3, 3]]);
    expect((await cache.get('1', 'x'))?.embedding).toEqual([1, 1]);
  });

  test('is answered although it cannot be kept, which is counted and told', async () => {
    const events = listen();
    const cache = make(options());
    await cache.set('k', 'x', [1, 2]);
    expect((await cache.getOrCompute('long', 'x', () => [1, 2, 3])).embedding).toEqual([1, 2, 3]);
    expect(await cache.has('long', 'x')).toBe(false);
    const { opened, open } = gate<number[]>();
    const flight = cache.getOrCompute('late', 'x', () => opened);
    await cache.get('k', 'x');
    const closing = cache.close();
    open([3, 4]);
    expect((await flight).embedding).toEqual([3, 4]);
    await closing;
    expect(cache.getStats().rejected).toBe(2);
    await expect.poll(() => events.filter(({ type }) => type === 'rejected')).toEqual([
      { type: 'rejected', entries: 1, reason: expect.stringContaining('has 3 values, those in this namespace have 2') as string },
      { type: 'rejected', entries: 1, reason: expect.stringContaining('is closed') as string },
    ]);
  });

  test('gives everybody metadata of its own, as a later call gets it', async () => {
    const cache = make(options());
    const metadata = { list: [] as string[], at: new Date(0) };
    const call = () => cache.getOrCompute('k', 'x', () => [0.1], { metadata });
    const [a, b] = await Promise.all([call(), call()]);
    (a.metadata as typeof metadata).list.push('mine');
    expect(b.metadata).toEqual({ list: [], at: '1970-01-01T00:00:00.000Z' });
    expect(metadata.list).toEqual([]);
    expect(await cache.get('k', 'x')).toEqual(b);
  });
});

test('the first answer of getOrCompute is rounded as the later ones are', async () => {
  for (const vectorPrecision of ['f32', 'f16'] as const) {
    const cache = make({ vectorPrecision });
    const first = await cache.getOrCompute('k', 'x', () => [0.1, 0.3, 70_000.1]);
    expect(first).toEqual(await cache.get('k', 'x'));
  }
});

test('options of getOrCompute are looked at before anything is computed', async () => {
  const cache = make();
  const compute = () => expect.fail('it was called');
  for (const options of [{ ttlSeconds: -1 }, { ttlSeconds: NaN }, { metadata: 1n }]) {
    expect(await failure(() => cache.getOrCompute('k', 'x', compute, options))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  const wrong = await failure(() => cache.getOrCompute('k', 'x', () => [1, Infinity]));
  expect(wrong).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('Infinity at position 1') as string });
});

test('numbers come back as they are in 32 bits', async () => {
  const cache = make();
  const embedding = [0.1, 1 / 3, 1e-40, -123456.789, 16777217];
  await cache.set('k', 'x', embedding);
  expect((await cache.get('k', 'x'))?.embedding).toEqual(embedding.map(Math.fround));
});

test('a result whose values are computed by its class is one like any other', async () => {
  class Result {
    readonly nodeId = 'n';
    readonly processingTime = 1;
    readonly extra = 'kept';
    get embedding() { return [1, 2]; }
    get inputText() { return 'text'; }
    get modelUsed() { return 'model'; }
    get tokenCount() { return 3; }
  }
  const cache = make();
  await cache.set(annotation, new Result());
  expect(await cache.get(annotation)).toEqual({
    nodeId: 'n', embedding: [1, 2], inputText: 'text', modelUsed: 'model', tokenCount: 3, extra: 'kept', processingTime: 0, fromCache: true,
  });
});

test('a refused set leaves no trace', async () => {
  const cache = make({ maxEntries: 2, maxSizeBytes: 4000 });
  const refused = async (work: () => Promise<unknown>, says: string) => {
    const error = await failure(work);
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(says) as string });
  };
  const entry = (key: string, embedding: number[]) => ({ key, content: 'x', embedding });
  await refused(() => cache.setMany([entry('a', [1, 2]), entry('b', [1, NaN])]), 'Entry 1');
  await refused(() => cache.setMany([entry('a', [1, 2]), { ...entry('b', [1, 2]), metadata: 'm'.repeat(5000) }]), 'Entry 1');
  // Neither a length was fixed nor anything set.
  await cache.set('c', 'x', [1, 2, 3]);
  await cache.set('d', 'x', [1, 2, 3]);
  await refused(() => cache.set('big', 'x', [1, 2, 3], { metadata: 'm'.repeat(5000) }), 'raise maxMemoryMB');
  await refused(() => cache.set('c', 'x', [3, 2, 1], { metadata: 'm'.repeat(5000) }), 'raise maxMemoryMB');
  await refused(() => cache.setMany([entry('a', [3, 2, 1]), entry('c', [3, NaN, 1])]), 'NaN');
  expect((await cache.get('c', 'x'))?.embedding).toEqual([1, 2, 3]);
  expect([await cache.has('a'), await cache.has('big'), await cache.has('d')]).toEqual([false, false, true]);
  expect(cache.getStats()).toMatchObject({ sets: 2, evictions: 0, currentEntries: 2 });
});

test('strings that differ in lone surrogates only are different', async () => {
  const cache = make();
  const odd = ['k', 'k\ud800', 'k\ud801', 'k\udc00', 'k\ufffd', '\udc00\ud800', '\u{10000}', `${'long '.repeat(2000)}\ud800`, `${'long '.repeat(2000)}\ufffd`];
  for (const [i, text] of odd.entries()) await cache.set(text, `c${text}`, [1, i]);
  for (const [i, text] of odd.entries()) {
    expect((await cache.get(text, `c${text}`))?.embedding).toEqual([1, i]);
    expect(await cache.has(text, `c${odd[(i + 1) % odd.length]}`)).toBe(false);
  }
  const found = await cache.getMany(odd.map((text) => ({ key: text, content: `c${text}` })));
  expect(odd.map((_, i) => found.row(i)[1])).toEqual(odd.map((_, i) => i));
  expect(new Set((await cache.findSimilar([1, 1], { limit: 20 })).map(({ key }) => key))).toEqual(new Set(odd));
  expect(await cache.delete('k\ud802')).toBe(false);
  expect(await cache.delete('k\ud801')).toBe(true);
  expect(await cache.has('k\ud800')).toBe(true);
});

test('an expired entry is none', async () => {
  const cache = make();
  await cache.set('k', 'x', [1], { ttlSeconds: 0.01 });
  await expect.poll(() => cache.has('k', 'x')).toBe(false);
  expect(await cache.delete('k')).toBe(false);
  expect(cache.getStats().evictionCauses).toMatchObject({ expired: 1, explicit: 0 });
  expect(await cache.findSimilar([1])).toEqual([]);
});

test('evictions are told from when somebody listens, and each once', async () => {
  const cache = make({ maxEntries: 1 });
  for (let i = 0; i < 10; i++) await cache.set(`k${i}`, 'x', [1]);
  const first = listen();
  await cache.set('one more', 'x', [1], { ttlSeconds: 0.01 });
  expect(first).toEqual([{ type: 'evicted', cause: 'size', entries: 1 }]);
  await sleep(30);
  expect(await cache.get('one more', 'x')).toBeNull();
  expect(first.slice(1)).toEqual([{ type: 'evicted', cause: 'expired', entries: 1 }]);
});

describe('findSimilar', () => {
  test('answers the best, however far they are, unless a threshold is given', async () => {
    const cache = make();
    await cache.set('far', 'x', [-1, 0.1]);
    await cache.set('near', 'x', [1, 0.1]);
    expect((await cache.findSimilar([1, 0])).map(({ key }) => key)).toEqual(['near', 'far']);
    expect((await cache.findSimilar([1, 0], { threshold: 0.9 })).map(({ key }) => key)).toEqual(['near']);
  });

  test('ranks what is live, however much nearer things were', async () => {
    const next = random();
    const near = (spread: number) => Array.from({ length: 32 }, (_, i) => next() * spread + (i === 0 ? 1 : 0));
    const cache = make({ maxEntries: 20_000 });
    const entry = (key: string, embedding: number[], ttlSeconds?: number) => ({ key, content: '', embedding, ttlSeconds });
    await cache.setMany([
      ...Array.from({ length: 500 }, (_, i) => entry(`deleted${i}`, near(0.05))),
      ...Array.from({ length: 500 }, (_, i) => entry(`expired${i}`, near(0.05), 0.3)),
      ...Array.from({ length: 500 }, (_, i) => entry(`moved${i}`, near(0.05))),
      ...Array.from({ length: 20 }, (_, i) => entry(`live${i}`, near(0.2))),
      ...Array.from({ length: 4000 }, (_, i) => entry(`other${i}`, Array.from({ length: 32 }, next))),
    ]);
    await cache.findSimilar(near(0));
    for (let i = 0; i < 500; i++) await cache.delete(`deleted${i}`);
    for (let i = 0; i < 500; i++) await cache.set(`moved${i}`, '', near(0).map((value) => -value));
    await expect.poll(() => cache.has('expired0')).toBe(false);
    const found = await cache.findSimilar(near(0), { threshold: 0.8, limit: 20 });
    expect(found.map(({ key }) => key).sort()).toEqual(Array.from({ length: 20 }, (_, i) => `live${i}`).sort());
  });

  test('has the cosines of all finite vectors', async () => {
    const largest = 3.4028234663852886e38;
    for (const [stored, asked, right] of [
      [[1e20, 0, 0], [1e20, 0, 0], 1],
      [[1e30, 0, 0], [1, 1, 0], Math.SQRT1_2],
      [[3e25, 4e25, 0], [4e25, 3e25, 0], 0.96],
      [[largest, largest, largest], [largest, largest, -largest], 1 / 3],
      [[1e-45, 0, 0], [1, 1, 0], Math.SQRT1_2],
      [[1e-45, 1e-45, 0], [1e30, 0, 0], Math.SQRT1_2],
      [[3e-40, 4e-40, 0], [4e-40, 3e-40, 0], 0.96],
    ] as const) {
      const cache = make();
      await cache.set('k', 'x', stored);
      const [found] = await cache.findSimilar(asked);
      expect(found?.similarity).toBeCloseTo(right, 3);
    }
  });

  test('finds the same vector at threshold 1, alone and among thousands', async () => {
    const next = random(7);
    const cache = make({ maxEntries: 10_000 });
    const vectors = Array.from({ length: 2500 }, () => Array.from({ length: 96 }, next));
    for (const some of [vectors.slice(0, 300), vectors]) {
      await cache.setMany(some.map((embedding, i) => ({ key: `k${i}`, content: 'x', embedding })));
      for (let i = 0; i < 300; i++) {
        expect((await cache.findSimilar(vectors[i]!, { threshold: 1 })).map(({ key }) => key)).toContain(`k${i}`);
      }
    }
  });

  test('has one order of equally near entries, in every process', () => {
    const program = `
      const { IntelligentEmbeddingCache } = require(${JSON.stringify(root)});
      (async () => {
        const seen = [];
        for (const count of [30, 3000]) {
          const cache = new IntelligentEmbeddingCache({ maxEntries: 10000 });
          await cache.setMany(Array.from({ length: count }, (_, at) => ({ key: 'k' + at, content: '', embedding: [1, 2, at < 1000 ? 3 : 4] })));
          seen.push((await cache.findSimilar([1, 2, 3], { limit: 5 })).map(({ key }) => key).join());
          await cache.close();
        }
        console.log(seen.join(' '));
      })();`;
    const runs = Array.from({ length: 4 }, () => spawnSync(process.execPath, ['-e', program], { encoding: 'utf8' }));
    expect(runs.map(({ stderr }) => stderr).join('')).toBe('');
    expect(new Set(runs.map(({ stdout }) => stdout)).size).toBe(1);
    expect(runs[0]!.stdout).toContain('k0,k1,k2,k3,k4 ');
  });
});

test('whatever a vector or metadata does when it is read, the error is an EmbeddingError', async () => {
  const cache = make();
  const throwing = new Proxy([1, 2], { get: (array, name) => { if (name === '1') throw new TypeError('mine'); return Reflect.get(array, name) as unknown; } });
  const { proxy: revoked, revoke } = Proxy.revocable([1], {});
  revoke();
  for (const embedding of [throwing, revoked, [Object.create(null)], [Symbol('x')], { length: 2 }] as never[]) {
    for (const call of [
      () => cache.set('k', 'x', embedding),
      () => cache.setMany([{ key: 'k', content: 'x', embedding }]),
      // Of what has been revoked nobody can say whether it has to be waited for.
      () => cache.getOrCompute('k', 'x', () => (embedding === revoked ? throwing : embedding) as number[]),
      () => cache.findSimilar(embedding),
    ]) expect(await failure(call)).toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  for (const metadata of [{ toJSON() { throw new RangeError('mine'); } }, { get part() { throw new RangeError('mine'); } }]) {
    expect(await failure(() => cache.set('k', 'x', [1], { metadata }))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  const matrix = await cache.getMany([{ key: 'k', content: 'x' }]);
  expect(await failure(() => matrix.row(Object.create(null) as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
});

test('what a computation answers with may be anything that can be awaited, and is asked once', async () => {
  let asked = 0;
  const lazy = { then(resolve: (vector: number[]) => void) { asked++; resolve([1, 2]); } } as never;
  expect((await make().getOrCompute('k', 'x', () => lazy)).embedding).toEqual([1, 2]);
  expect(asked).toBe(1);
  const failing = { then(_: unknown, reject: (reason: unknown) => void) { reject('mine'); } } as never;
  await expect(make().getOrCompute('k', 'x', () => failing)).rejects.toBe('mine');
});
