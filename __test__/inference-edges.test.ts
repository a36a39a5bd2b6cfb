// What InferenceCache does between two calls, and with values that are odd.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { InferenceCache, type InferenceCacheEvent, type InferenceCacheOptions } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure } from './support';

function make(options?: InferenceCacheOptions): InferenceCache {
  const cache = new InferenceCache(options);
  onTestFinished(() => cache.close());
  return cache;
}

function file(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-edges-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'results.db');
}

function listen(): InferenceCacheEvent[] {
  const seen: InferenceCacheEvent[] = [];
  const note = (event: unknown) => void seen.push(event as InferenceCacheEvent);
  subscribe('embedcore:results', note);
  onTestFinished(() => void unsubscribe('embedcore:results', note));
  return seen;
}

/** A promise, and what settles it. */
function gate<T>(): { opened: Promise<T>; open: (value: T) => void } {
  let open!: (value: T) => void;
  const opened = new Promise<T>((resolve) => (open = resolve));
  return { opened, open };
}

// Two pairs that mean the same.
const [A, B] = ['How do I reverse a string in Python?', 'In Python, how can I reverse a string?'] as const;
const [C, D] = ['How do I sort a list in Java?', 'In Java, how can I sort a list?'] as const;

/** Tells the two pairs apart. */
const vectorOf = (text: string): number[] => (text.includes('Python') ? [1, 0, 0] : text.includes('Java') ? [0, 1, 0] : [0, 0, 1]);
const embed = (texts: string[]) => texts.map(vectorOf);
const valueOf = (found: { value: unknown } | null) => found?.value;

describe.each<[string, () => InferenceCacheOptions]>([
  ['in memory', () => ({})],
  ['with a file', () => ({ persistPath: file() })],
])('calls that are not awaited, %s', (_, options) => {
  test('take effect in the order in which they were made', async () => {
    const cache = make(options());
    const seen = await Promise.all([
      cache.get('k').then(valueOf),
      cache.set('k', 1, { tags: ['t'] }),
      cache.get('k').then(valueOf),
      cache.set('k', 2, { tags: ['t'] }),
      cache.has('k'),
      cache.delete('k'),
      cache.delete('k'),
      cache.set('k', 3, { tags: ['t'] }),
      cache.invalidate({ tag: 't' }),
      cache.get('k').then(valueOf),
      cache.setMany([{ content: 'k', value: 4 }, { content: 'l', value: 5 }]),
      cache.getMany(['k', 'l'].map((content) => ({ content }))).then((all) => all.map(valueOf)),
      cache.clear(),
      cache.getOrCompute('k', {}, () => 6).then(valueOf),
      cache.get('l').then(valueOf),
      cache.set('l', 7),
      cache.clearExpired(),
      cache.getOrCompute('l', {}, () => 8).then(valueOf),
    ]);
    expect(seen).toEqual([
      undefined, undefined, 1, undefined, true, true, false, undefined, 1, undefined, undefined, [4, 5], 2, 6, undefined, undefined, 0, 7,
    ]);
    expect(valueOf(await cache.get('k'))).toBe(6);
  });

  test('of prompts, too, whose vectors take a while', async () => {
    const cache = make({ ...options(), semantic: { embed: async (texts) => (await sleep(20), embed(texts)) } });
    const seen = await Promise.all([
      cache.set(A, 'reverse'),
      cache.get(A).then(valueOf),
      cache.get(B).then(valueOf),
      cache.set(C, 1),
      cache.set(C, 2),
      cache.get(C).then(valueOf),
    ]);
    expect(seen).toEqual([undefined, 'reverse', 'reverse', undefined, undefined, 2]);
    await Promise.all([cache.set(C, 3), cache.delete(C), cache.set(A, 4, { tags: ['t'] }), cache.invalidate({ tag: 't' })]);
    for (const prompt of [A, B, C, D]) expect(await cache.get(prompt)).toBeNull();
    const kept = [cache.set(C, 'sort'), cache.flush(), cache.close()];
    await Promise.all(kept);
  });
});

describe.each<[string, () => InferenceCacheOptions]>([
  ['in memory', () => ({})],
  ['with a file', () => ({ persistPath: file() })],
])('a computation, %s', (_, options) => {
  test.each<[string, (cache: InferenceCache) => Promise<unknown>, unknown]>([
    ['set', (cache) => cache.set('k', 'by hand'), 'by hand'],
    ['setMany', (cache) => cache.setMany([{ content: 'j', value: 0 }, { content: 'k', value: 'by hand' }]), 'by hand'],
    ['delete', (cache) => cache.delete('k'), undefined],
    ['clear', (cache) => cache.clear(), undefined],
    ['invalidate by tag', (cache) => cache.invalidate({ tags: ['u', 't'] }), undefined],
    ['invalidate by type', (cache) => cache.invalidate({ type: 'text_inference' }), undefined],
  ])('does not land over a later %s, and answers nobody who came after it', async (_name, change, there) => {
    const cache = make(options());
    const { opened, open } = gate<string>();
    const begun = gate<void>();
    const first = cache.getOrCompute('k', { tags: ['t'] }, () => (begun.open(), opened));
    await begun.opened;
    await change(cache);
    const later = cache.getOrCompute('k', { tags: ['t'] }, () => 'read after');
    if (there !== undefined) expect((await later).value).toBe(there);
    open('read before');
    expect((await first).value).toBe('read before');
    expect((await later).value).toBe(there ?? 'read after');
    expect(valueOf(await cache.get('k'))).toBe(there ?? 'read after');
  });

  test('is kept when others were invalidated', async () => {
    const cache = make(options());
    const { opened, open } = gate<string>();
    const first = cache.getOrCompute('k', { type: 'a', tags: ['t'] }, () => opened);
    await cache.invalidate({ type: 'b' });
    await cache.invalidate({ type: 'a', tag: 'u' });
    await cache.delete('k', { type: 'b' });
    await cache.clearExpired();
    open('kept');
    await first;
    expect(valueOf(await cache.get('k', { type: 'a' }))).toBe('kept');
  });

  test('is answered although it cannot be kept, which is counted and told', async () => {
    const events = listen();
    const cache = make({ ...options(), maxValueMB: 0.01 });
    const long = 'x'.repeat(20_000);
    expect(await cache.getOrCompute('long', {}, () => long)).toEqual({ value: long, fromCache: false });
    expect(await cache.has('long')).toBe(false);
    const { opened, open } = gate<string>();
    const begun = gate<void>();
    const flights = [1, 2].map(() => cache.getOrCompute('late', {}, () => (begun.open(), opened)));
    await begun.opened;
    await cache.close();
    open('late');
    expect((await Promise.all(flights)).map(({ value }) => value)).toEqual(['late', 'late']);
    expect(cache.getStats().rejected).toBe(2);
    await expect.poll(() => events.filter(({ type }) => type === 'rejected')).toEqual([
      { type: 'rejected', entries: 1, reason: expect.stringContaining('more than the limit') as string },
      { type: 'rejected', entries: 1, reason: expect.stringContaining('is closed') as string },
    ]);
  });
});

test('bytes that a computation answers with are copied when it ends', async () => {
  const cache = make();
  const scratch = new Uint8Array(1);
  const all = await Promise.all(['a', 'b', 'c'].map((name, at) => cache.getOrCompute(name, {}, () => scratch.fill(at))));
  expect(all.map(({ value }) => value[0])).toEqual([0, 1, 2]);
  expect((await cache.get<Uint8Array>('a'))!.value[0]).toBe(0);
});

test('vectors of prompts are copied when they are there', async () => {
  const scratch = new Float32Array(3);
  const cache = make({ semantic: { embed: ([text]) => (scratch.set(vectorOf(text!)), [scratch]) } });
  await Promise.all([cache.set(A, 'reverse'), cache.set(C, 'sort')]);
  expect([valueOf(await cache.get(B)), valueOf(await cache.get(D))]).toEqual(['reverse', 'sort']);
});

test('a refused setMany sets none, and says which entry it is about', async () => {
  const cache = make({ maxValueMB: 1, semantic: { embed } });
  const large = 'x'.repeat(2 << 20);
  const refused = await failure(() => cache.setMany([{ content: A, value: 1 }, { content: 'b', value: large }]));
  expect(refused).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(/^Entry 1: The value has/) as string });
  await failure(() => cache.setMany([{ content: A, value: 1 }, { content: 'b', value: 1, metadata: large }]));
  expect([await cache.get(A), await cache.get(B)]).toEqual([null, null]);
  expect(cache.getStats()).toMatchObject({ sets: 0, currentEntries: 0 });
});

test('a value that memory has no room for is refused, and changes nothing', async () => {
  const cache = make({ maxMemoryMB: 1 });
  await cache.set('k', 'before');
  await cache.set('other', 'there');
  for (const content of ['k', 'new']) {
    const refused = await failure(() => cache.set(content, 'x'.repeat(2 << 20)));
    expect(refused).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('raise maxMemoryMB') as string });
  }
  expect([valueOf(await cache.get('k')), valueOf(await cache.get('other')), await cache.has('new')]).toEqual(['before', 'there', false]);
  expect(cache.getStats().evictions).toBe(0);
});

test('an expired result is none', async () => {
  const cache = make();
  await cache.set('k', 1, { ttlSeconds: 0.01 });
  await cache.set('l', 1, { ttlSeconds: 0.01 });
  await expect.poll(() => cache.has('l')).toBe(false);
  expect(await cache.delete('k')).toBe(false);
  expect(await cache.clear()).toBe(0);
});

test('evictions are told from when somebody listens', async () => {
  const cache = make({ maxEntries: 1 });
  for (let i = 0; i < 5; i++) await cache.set(`k${i}`, 1);
  const events = listen();
  await cache.set('one more', 1);
  expect(events).toEqual([{ type: 'evicted', cause: 'size', entries: 1 }]);
});

test('a result that is found by its meaning is in use', async () => {
  const cache = make({ maxEntries: 20, semantic: { embed } });
  await cache.set(A, 'reverse');
  for (let i = 0; i < 60; i++) {
    expect(valueOf(await cache.get(B))).toBe('reverse');
    await cache.set(`question number ${i}`, i);
  }
});

test('prompts whose results are gone leave their places to others', async () => {
  const cache = make({ semantic: { embed: (texts) => texts.map(() => [1, 0]), limit: 2 } });
  const prompts = Array.from({ length: 20 }, (_, i) => `Name the capital of country number ${i}.`);
  for (const prompt of prompts) await cache.set(prompt, prompt, { ttlSeconds: 0.05 });
  await cache.set('Say hello.', 'hello');
  await expect.poll(() => cache.has(prompts.at(-1)!)).toBe(false);
  expect(valueOf(await cache.get('say hello'))).toBe('hello');
});

test('what is set with semantic: false is found by its very content only', async () => {
  const cache = make({ semantic: { embed } });
  await cache.set(A, 'for all');
  expect(valueOf(await cache.get(B))).toBe('for all');
  await cache.set(A, 'exactly', { semantic: false });
  expect([valueOf(await cache.get(A)), await cache.get(B)]).toEqual(['exactly', null]);
});

test('a prompt vector of tiny values is one like any other', async () => {
  let odd: number[] | undefined;
  const cache = make({ semantic: { embed: (texts) => texts.map((text) => odd ?? [...vectorOf(text)]) } });
  await cache.set(A, 'reverse');
  odd = [1e-45, 0, 0];
  await cache.set('Say hello.', 'hello');
  expect(valueOf(await cache.get('say hello'))).toBe('hello');
  odd = undefined;
  expect(valueOf(await cache.get(B))).toBe('reverse');
});

test("an error of the caller's embed function is told as it is", async () => {
  const events = listen();
  const thrown = new TypeError('fetch failed');
  for (const fail of [() => Promise.reject(thrown), () => { throw thrown; }]) {
    const cache = make({ semantic: { embed: fail } });
    expect(await cache.get('what is it?')).toBeNull();
  }
  expect(events).toEqual([{ type: 'semantic-failed', error: thrown }, { type: 'semantic-failed', error: thrown }]);
  await make({ semantic: { embed: () => Promise.reject('no error at all') } }).get('what is it?');
  expect(events[2]).toMatchObject({ error: { code: 'EMBEDDING_GENERATION_FAILED', message: expect.stringContaining('no error at all') as string } });
});

test('an embedder that hangs at one prompt keeps no other from its answer', async () => {
  const { opened, open } = gate<void>();
  const cache = make({ semantic: { embed: async (texts) => (texts[0] === C && (await opened), embed(texts)) } });
  await cache.set(A, 'reverse');
  const hanging = cache.set(C, 'sort');
  expect(valueOf(await cache.get(C))).toBe('sort');
  expect(valueOf(await cache.get(B))).toBe('reverse');
  open();
  await hanging;
  expect(valueOf(await cache.get(D))).toBe('sort');
});

test('a monitor that throws fails no call', async () => {
  const fail = () => { throw new Error('no'); };
  const cache = make({ monitor: { cacheHit: fail, cacheMiss: fail } });
  expect(await cache.get('k')).toBeNull();
  expect((await cache.getOrCompute('k', {}, () => 1)).value).toBe(1);
  expect(valueOf(await cache.get('k'))).toBe(1);
});

describe('a vector has the fingerprint of the model that made it', () => {
  /** A generator whose model can be exchanged, at any moment of a call. */
  function generator() {
    const state = { model: 'one', during: () => {}, calls: 0 };
    const vectors: Record<string, number[]> = { one: [1, 0], two: [0, 1] };
    return {
      state,
      isReady: () => true,
      initialize: async () => {},
      getModelInfo: () => ({ fingerprint: state.model }),
      embed: async (texts: readonly string[]) => {
        state.calls++;
        state.during();
        const vector = Float32Array.from(vectors[state.model]!);
        await sleep(1);
        return { row: () => vector, rows: texts.length };
      },
    };
  }

  test('a prompt is embedded anew by another model', async () => {
    const embedder = generator();
    const cache = make({ semantic: { embed: embedder, threshold: 0.9 } });
    await cache.get(A);
    embedder.state.model = 'two';
    await cache.set(C, 'sort');
    await cache.set(A, 'reverse');
    expect([valueOf(await cache.get(B)), valueOf(await cache.get(D))]).toEqual(['reverse', 'sort']);
    embedder.state.model = 'one';
    expect(await cache.get(B)).toBeNull();
  });

  test('a model that is exchanged while it embeds is not mistaken for the other', async () => {
    const embedder = generator();
    embedder.state.during = () => {
      embedder.state.model = 'two';
      embedder.state.during = () => {};
    };
    const cache = make({ semantic: { embed: embedder, threshold: 0.9 } });
    await cache.set(A, 'reverse');
    expect(embedder.state.calls).toBe(2);
    expect(valueOf(await cache.get(B))).toBe('reverse');
    embedder.state.model = 'one';
    expect(await cache.get(B)).toBeNull();
  });

  test('one that never rests fails no call', async () => {
    const events = listen();
    const embedder = generator();
    embedder.state.during = () => void (embedder.state.model += '.');
    const cache = make({ semantic: { embed: embedder } });
    embedder.embed = async () => (embedder.state.during(), { row: () => Float32Array.of(1), rows: 1 });
    await cache.set(A, 'reverse');
    expect(valueOf(await cache.get(A))).toBe('reverse');
    expect(events).toMatchObject([{ type: 'semantic-failed', error: { code: 'BACKEND_UNAVAILABLE', retryable: true } }]);
  });
});

describe('a wrapped function', () => {
  test('has other results for bytes than for the text that they spell', async () => {
    const cache = make();
    const kind = cache.wrap(async (argument: unknown) => (typeof argument === 'string' ? 'text' : argument?.constructor.name), { name: 'kind' });
    const asked = ['abc', Buffer.from('abc'), new TextEncoder().encode('abc'), ['abc'], { bytes: 'abc' }];
    for (const _ of [1, 2]) {
      expect(await Promise.all(asked.map((argument) => kind(argument)))).toEqual(['text', 'Buffer', 'Uint8Array', 'Array', 'Object']);
    }
  });

  test('takes bytes at any depth, as they are when it is called', async () => {
    const cache = make();
    let calls = 0;
    const size = cache.wrap(async (image: { data: Uint8Array[] }, question: string) => `${++calls} ${image.data[0]!.length} ${question}`, { name: 'size' });
    const image = { data: [Buffer.from('png')] };
    expect(await size(image, 'what?')).toBe('1 3 what?');
    expect(await size({ data: [Buffer.from('png')] }, 'what?')).toBe('1 3 what?');
    image.data[0]![0] = 0;
    expect(await size(image, 'what?')).toBe('2 3 what?');
    expect(await size(image, 'who?')).toBe('3 3 who?');
  });

  test('tells -0 from 0', async () => {
    const cache = make();
    const inverse = cache.wrap(async (n: number) => (1 / n > 0 ? 'above' : 'below'), { name: 'inverse' });
    expect([await inverse(0), await inverse(-0), await inverse(0)]).toEqual(['above', 'below', 'above']);
  });
});

test('-0 comes back as it is, at any depth', async () => {
  const cache = make();
  await cache.set('k', -0, { metadata: [-0, 0] });
  const found = (await cache.get('k'))!;
  expect(Object.is(found.value, -0)).toBe(true);
  expect((found.metadata as number[]).map((value) => Object.is(value, -0))).toEqual([true, false]);
  const value = { a: [0, -0, '-0', { toJSON: () => -0 }], '-0': -0 };
  expect((await cache.getOrCompute('l', {}, () => value)).value).toEqual({ a: [0, -0, '-0', -0], '-0': -0 });
});
