import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  InferenceCache,
  IntelligentEmbeddingCache,
  PerformanceMonitor,
  type InferenceCacheEvent,
  type InferenceCacheOptions,
} from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { failure } from './support';

function file(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-results-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'results.db');
}

function make(options: InferenceCacheOptions = {}): InferenceCache {
  const cache = new InferenceCache(options);
  onTestFinished(() => cache.close());
  return cache;
}

function heard(): InferenceCacheEvent[] {
  const events: InferenceCacheEvent[] = [];
  const listen = (event: unknown) => void events.push(event as InferenceCacheEvent);
  subscribe('embedcore:results', listen);
  onTestFinished(() => void unsubscribe('embedcore:results', listen));
  return events;
}

const values: [string, unknown][] = [
  ['a text', 'Grüße, 世界 \u{1f600}'],
  ['a lone surrogate', 'a\ud800b'],
  ['an empty text', ''],
  ['null', null],
  ['false', false],
  ['a number', -1.5e-7],
  ['an array', [1, [2, [3]], 'x', null]],
  ['an object', { choices: [{ message: { content: 'yes', 'odd "key"\n': 1 } }], usage: { tokens: 7 } }],
  ['bytes', Uint8Array.of(0, 255, 128)],
  ['no bytes', new Uint8Array(0)],
  ['a Buffer', Buffer.from('a picture')],
];

test.each(['in memory', 'on disk'])('values come back as they were, %s', async (place) => {
  const options = place === 'on disk' ? { persistPath: file() } : {};
  let cache = make(options);
  for (const [name, value] of values) await cache.set(name, value, { type: 't' });
  if (place === 'on disk') {
    await cache.close();
    cache = make(options);
  }
  for (const [name, value] of values) {
    const found = await cache.get(name, { type: 't' });
    expect(found, name).toMatchObject({ type: 't', tags: [] });
    expect(found!.value, name).toEqual(value);
    expect(Buffer.isBuffer(found!.value)).toBe(Buffer.isBuffer(value));
    expect(found!.value instanceof Uint8Array).toBe(value instanceof Uint8Array);
  }
  const stats = cache.getStats();
  expect(stats).toMatchObject({ hits: values.length, misses: 0, memoryHits: place === 'on disk' ? 0 : values.length });
});

test('values are copies, on their way in and out', async () => {
  const cache = make();
  const value = { list: [1, 2] };
  const bytes = Uint8Array.of(1, 2);
  await cache.set('json', value);
  await cache.set('bytes', bytes);
  value.list.push(3);
  bytes[0] = 9;
  const first = await cache.get<{ list: number[] }>('json');
  first!.value.list.push(4);
  (await cache.get<Uint8Array>('bytes'))!.value[1] = 9;
  expect((await cache.get('json'))!.value).toEqual({ list: [1, 2] });
  expect((await cache.get('bytes'))!.value).toEqual(Uint8Array.of(1, 2));
  const computed = await Promise.all([1, 2].map(() => cache.getOrCompute('c', {}, () => sleep(5, value))));
  computed[0]!.value.list.push(5);
  expect(computed[1]!.value).toEqual({ list: [1, 2, 3] });
  value.list.push(6);
  expect((await cache.get('c'))!.value).toEqual({ list: [1, 2, 3] });
  // What is said with the value, too, whatever becomes of it while the value is computed.
  const options = { metadata: { by: 'm' }, tags: ['t'] };
  const change = async () => (await sleep(5), (options.metadata.by = 'n'), options.tags.push('u'), 1);
  const said = await Promise.all([1, 2].map(() => cache.getOrCompute('d', options, change)));
  (said[0]!.metadata as { by: string }).by = 'o';
  expect(said[1]!.metadata).toEqual({ by: 'm' });
  expect(await cache.get('d')).toMatchObject({ metadata: { by: 'm' }, tags: ['t'] });
});

test('keys: the order of params never matters, everything else does', async () => {
  const cache = make();
  await cache.set('q', 'a', { params: { model: 'm', options: { b: [1, 2], a: null, when: new Date(0) } } });
  const same = { options: { when: '1970-01-01T00:00:00.000Z', a: null, b: [1, 2] }, model: 'm' };
  expect(await cache.get('q', { params: same })).toMatchObject({ value: 'a' });
  for (const params of [undefined, {}, { ...same, model: 'M' }, { ...same, options: { ...same.options, b: [2, 1] } }, { ...same, x: 0 }]) {
    expect(await cache.get('q', params ? { params } : {}), JSON.stringify(params)).toBeNull();
  }
  expect(await cache.get('q', { params: same, type: 'api' })).toBeNull();
  expect(await cache.get('q', { params: same, modality: 'image' })).toBeNull();
  expect(await cache.get('q ', { params: same })).toBeNull();
  // A text is never the object that has it as JSON, and texts that differ in a lone surrogate only are two.
  await cache.set('{"a":1}', 'text');
  expect(await cache.get({ a: 1 })).toBeNull();
  await cache.set('x\ud800', 1);
  expect(await cache.get('x\ud801')).toBeNull();
  expect(await cache.get('x\ufffd')).toBeNull();
  await cache.set({ b: 1, a: [{ d: 1, c: 2 }] }, 'object');
  expect(await cache.get({ a: [{ c: 2, d: 1 }], b: 1 })).toMatchObject({ value: 'object' });
});

test('bytes are known by themselves and by their hash, by modality', async () => {
  const cache = make();
  const picture = Buffer.from([1, 2, 3]);
  const sha256 = createHash('sha256').update(picture).digest('hex');
  await cache.set(picture, 'a cat', { modality: 'image' });
  expect(await cache.get({ hash: `sha256:${sha256}` }, { modality: 'image' })).toMatchObject({ value: 'a cat', type: 'vision_inference' });
  expect(await cache.get({ hash: `SHA256:${sha256.toUpperCase()}` }, { modality: 'image' })).toMatchObject({ value: 'a cat' });
  expect(await cache.get(Uint8Array.from(picture), { modality: 'image' })).toMatchObject({ value: 'a cat' });
  expect(await cache.get(picture, { modality: 'audio' })).toBeNull();
  await cache.set({ hash: 'blake3:00112233445566778899' }, 'by another hash', { modality: 'audio' });
  expect(await cache.get({ hash: 'blake3:00112233445566778899' }, { modality: 'audio' })).toMatchObject({ type: 'audio_inference' });
});

test('what is set beside a value is given back', async () => {
  const before = Date.now();
  const cache = make({ ttlSecondsByType: { brief: 60 } });
  await cache.set('q', 1, { type: 'brief', metadata: { model: 'm' }, tags: ['b', 'a', 'b'] });
  const found = (await cache.get('q', { type: 'brief' }))!;
  expect(found).toMatchObject({ metadata: { model: 'm' }, tags: ['b', 'a'] });
  expect(found.createdAt).toBeGreaterThanOrEqual(before);
  expect(found.expiresAt).toBe(found.createdAt + 60_000);
  expect('similarity' in found || 'matchedContent' in found).toBe(false);
});

test('times to live: by type, by result, for ever', async () => {
  const cache = make({ ttlSeconds: 0, ttlSecondsByType: { api: 2, 'odd "type"\n\u001f\0': 7 } });
  const lifetime = async (type: string, ttlSeconds?: number) => {
    await cache.set('q', 1, { type, ...(ttlSeconds !== undefined && { ttlSeconds }) });
    const { createdAt, expiresAt } = (await cache.get('q', { type }))!;
    return expiresAt === null ? null : (expiresAt - createdAt) / 1000;
  };
  const days = 24 * 3600;
  expect(await lifetime('text_inference')).toBe(30 * days);
  expect(await lifetime('vision_inference')).toBe(30 * days);
  expect(await lifetime('audio_inference')).toBe(30 * days);
  expect(await lifetime('something else')).toBeNull();
  expect(await lifetime('text_inference', 0)).toBeNull();
  expect(await lifetime('text_inference', 1e300)).toBeNull();
  expect(await lifetime('text_inference', 1.5)).toBe(1.5);
  expect(await lifetime('odd "type"\n\u001f\0')).toBe(7);
  expect((await make().getStats(), await lifetime('api'))).toBe(2);
  await sleep(2100);
  expect(await cache.get('q', { type: 'api' })).toBeNull();
  expect(cache.getStats().byType.api).toMatchObject({ hits: 1, misses: 1, expired: 1, sets: 1, entries: 0 });
  const fresh = make();
  await fresh.set('q', 1, { type: 'api' });
  const { createdAt, expiresAt } = (await fresh.get('q', { type: 'api' }))!;
  expect(expiresAt! - createdAt).toBe(days * 1000);
});

test.each(['in memory', 'on disk'])('expired results are cleared and counted, %s', async (place) => {
  const cache = make(place === 'on disk' ? { persistPath: file() } : {});
  for (let i = 0; i < 3; i++) await cache.set(`long ${i}`, i);
  await cache.set('for ever', 1, { ttlSeconds: 0 });
  expect(await cache.clearExpired()).toBe(0);
  for (let i = 0; i < 5; i++) await cache.set(`short ${i}`, i, { ttlSeconds: 0.02 });
  await sleep(50);
  expect(await cache.clearExpired()).toBe(5);
  expect(await cache.clearExpired()).toBe(0);
  expect(await cache.has('long 1')).toBe(true);
  expect(await cache.clear()).toBe(4);
});

test.each(['in memory', 'on disk'])('results are invalidated by type and tag, %s', async (place) => {
  const cache = make(place === 'on disk' ? { persistPath: file() } : {});
  const odd = 'a\u001fb"\0\u001b';
  await cache.set('1', 1, { type: 'x', tags: ['red', 'big'] });
  await cache.set('2', 1, { type: 'x', tags: ['red'] });
  await cache.set('3', 1, { type: 'y', tags: ['red', odd] });
  await cache.set('4', 1, { type: 'y', tags: ['redder', 're'] });
  await cache.set('5', 1, { type: odd });
  await cache.set('6', 1, { type: 'a' });
  expect(await cache.invalidate({ type: 'x', tag: 'red' })).toBe(2);
  expect(await cache.get('1', { type: 'x' })).toBeNull();
  expect(await cache.invalidate({ tags: ['nothing', 'red'] })).toBe(1);
  expect(await cache.invalidate({ tag: odd })).toBe(0);
  expect(await cache.has('4', { type: 'y' })).toBe(true);
  expect(await cache.invalidate({ type: 'a' })).toBe(1);
  expect(await cache.has('5', { type: odd })).toBe(true);
  expect(await cache.invalidate({ type: odd })).toBe(1);
  expect(await cache.invalidate({ type: 'y' })).toBe(1);
  expect(await cache.clear()).toBe(0);
});

test('caches of other namespaces and of embeddings on the same file are left alone', async () => {
  const persistPath = file();
  const [a, b] = [make({ persistPath, namespace: 'a' }), make({ persistPath, namespace: 'b' })];
  const embeddings = new IntelligentEmbeddingCache({ persistPath });
  onTestFinished(() => embeddings.close());
  await embeddings.set('q', 'c', [1, 2, 3]);
  await a.set('q', 'of a');
  await b.set('q', 'of b', { tags: ['t'] });
  await Promise.all([embeddings.flush(), a.flush(), b.flush()]);
  expect(await a.get('q')).toMatchObject({ value: 'of a' });
  expect(await a.invalidate({ tag: 't' })).toBe(0);
  expect(await a.clear()).toBe(1);
  expect(await b.get('q')).toMatchObject({ value: 'of b' });
  expect((await embeddings.get('q', 'c'))!.embedding).toEqual([1, 2, 3]);
});

test('a hundred callers make one call, and each has an answer of its own', async () => {
  const cache = make();
  let calls = 0;
  const compute = async () => {
    calls++;
    await sleep(20);
    return { answer: 42 };
  };
  const answers = await Promise.all(Array.from({ length: 100 }, () => cache.getOrCompute('q', { metadata: 'm' }, compute)));
  expect(calls).toBe(1);
  expect(answers.every(({ value, metadata }) => value.answer === 42 && metadata === 'm')).toBe(true);
  expect(new Set(answers.map(({ value }) => value)).size).toBe(100);
  expect(answers.filter(({ fromCache }) => !fromCache)).toHaveLength(1);
  expect(await cache.getOrCompute('q', {}, compute)).toEqual({ value: { answer: 42 }, fromCache: true, metadata: 'm' });
  expect(calls).toBe(1);
});

test('a value that is still to come is set when it is there, unless something newer was written', async () => {
  const results = make();
  const later = <T>() => {
    let resolve!: (value: T) => void;
    let reject!: (error: Error) => void;
    const promise = new Promise<T>((one, other) => ([resolve, reject] = [one, other]));
    return { promise, resolve, reject };
  };
  const [a, b, c, d, e] = [later<number>(), later<number>(), later<number>(), later<number>(), later<number>()];
  const setting = { type: 'late', ttlSeconds: 9 };
  const calls = [results.setLater('a', a.promise, setting), results.setLater('b', b.promise), results.setLater('c', c.promise), results.setLater('e', e.promise)];
  const refused = results.setLater('d', d.promise);
  expect(await results.get('a', { type: 'late' })).toBe(null);
  // Nobody waits for it.
  expect((await results.getOrCompute('c', {}, () => 7)).value).toBe(7);
  await results.set('b', 5);
  await results.delete('e');
  for (const one of [a, b, c, e]) one.resolve(1);
  d.reject(new RangeError('none'));
  await Promise.all(calls);
  await expect(refused).rejects.toThrow(RangeError);
  expect(await results.get('a', { type: 'late' })).toMatchObject({ value: 1, type: 'late' });
  expect((await results.get('b'))!.value).toBe(5);
  expect(await results.get('d')).toBe(null);
  expect(await results.get('e')).toBe(null);
  const cleared = later<number>();
  const call = results.setLater('f', cleared.promise);
  await results.clear();
  cleared.resolve(1);
  await call;
  expect(await results.get('f')).toBe(null);
  expect(await failure(() => results.setLater('', Promise.reject(new Error('nobody\'s'))))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  await results.close();
  expect(await failure(() => results.setLater('g', Promise.reject(new Error('nobody\'s'))))).toMatchObject({ code: 'CLOSED' });
});

test('a failure reaches all who wait and is not kept', async () => {
  const cache = make();
  let calls = 0;
  const fail = async () => {
    calls++;
    await sleep(5);
    throw new TypeError('no');
  };
  const outcomes = await Promise.allSettled([1, 2, 3].map(() => cache.getOrCompute('q', {}, fail)));
  expect(outcomes.map((outcome) => outcome.status === 'rejected' && outcome.reason instanceof TypeError)).toEqual([true, true, true]);
  expect(calls).toBe(1);
  expect(await cache.getOrCompute('q', {}, () => 7)).toMatchObject({ value: 7, fromCache: false });
  const sync = () => {
    throw new RangeError('at once');
  };
  expect((await failure(() => cache.getOrCompute('r', {}, sync))).message).toBe('at once');
});

test('a wrapped function keeps its signature, and is called once for each list of arguments', async () => {
  const cache = make();
  const calls: unknown[][] = [];
  async function complete(this: unknown, prompt: string, options?: { temperature: number }): Promise<{ text: string }> {
    calls.push([this, prompt, options]);
    return { text: `${prompt}!` };
  }
  const cached: (prompt: string, options?: { temperature: number }) => Promise<{ text: string }> = cache.wrap(complete, { type: 'api' });
  expect([cached.name, cached.length]).toEqual(['complete', 2]);
  const owner = { cached };
  expect(await owner.cached('a')).toEqual({ text: 'a!' });
  expect(calls[0]![0]).toBe(owner);
  expect(await cached('a', undefined)).toEqual({ text: 'a!' });
  expect(await cached('a', { temperature: 0 })).toEqual({ text: 'a!' });
  expect(await cached('')).toEqual({ text: '!' });
  expect(calls).toHaveLength(3);
  expect(cache.getStats().byType.api).toMatchObject({ hits: 1, misses: 3 });
  // Two functions never answer for each other.
  const one = cache.wrap((n: number) => n + 1, { name: 'one' });
  const two = cache.wrap((n: number) => n + 2, { name: 'two' });
  expect([await one(1), await two(1), await one(1)]).toEqual([2, 3, 2]);
  const nobody = cache.wrap(() => 'nothing at all', { name: 'nobody' });
  expect([await nobody(), await nobody()]).toEqual(['nothing at all', 'nothing at all']);
  expect(await failure(() => cache.wrap((n: number) => n))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect((await failure(() => one(1n as never))).message).toContain('content[0] is a BigInt');
});

test('many at once', async () => {
  const cache = make();
  await cache.setMany([
    { content: 'a', value: 1, tags: ['t'] },
    { content: 'b', value: 2, type: 'api' },
  ]);
  const found = await cache.getMany<number>([{ content: 'b', type: 'api' }, { content: 'c' }, { content: 'a' }]);
  expect(found.map((entry) => entry?.value)).toEqual([2, undefined, 1]);
  const refused = await failure(() => cache.setMany([{ content: 'd', value: 1 }, { content: 'e', value: 1n }]));
  expect(refused).toMatchObject({ code: 'INVALID_ARGUMENT', details: { index: 1 } });
  expect(refused.message).toMatch(/^Entry 1: value is a BigInt/);
  expect(await cache.has('d')).toBe(false);
});

class Hidden {
  readonly #n: number;
  constructor(n: number) {
    this.#n = n;
  }
  get(): number {
    return this.#n;
  }
}

const circular: Record<string, unknown> = { a: [{}] };
(circular.a as Record<string, unknown>[])[0]!.back = circular;
let deep: unknown = 1;
for (let i = 0; i < 10_000; i++) deep = [deep];

test.each<[string, unknown, RegExp]>([
  ['undefined', { a: { b: undefined } }, /params\.a\.b is undefined/],
  ['a function', { list: [1, () => 1] }, /params\.list\[1\] is a function/],
  ['a BigInt', { 'odd key': 1n }, /params\["odd key"\] is a BigInt/],
  ['a symbol', { s: Symbol('x') }, /params\.s is a symbol/],
  ['NaN', [NaN], /params\[0\] is NaN/],
  ['a circle', circular, /params\.a\[0\]\.back is circular/],
  ['a Map', { m: new Map() }, /params\.m is of the type Map/],
  ['a Promise', { p: Promise.resolve(1) }, /params\.p is a Promise: await it/],
  ['bytes inside', { b: Uint8Array.of(1) }, /params\.b is of the type Uint8Array/],
  ['a hole', { a: [, 1] }, /params\.a\[0\] is undefined/],
  ['an invalid Date', { d: new Date(NaN) }, /params\.d is an invalid Date/],
  ['what hides all it has', { c: new Hidden(1) }, /params\.c is an instance of Hidden without properties that can be seen/],
  ['depth', deep, /levels deep/],
])('params that cannot be a key: %s', async (_, params, message) => {
  const refused = await failure(() => make().get('q', { params }));
  expect(refused).toMatchObject({ code: 'INVALID_ARGUMENT', retryable: false });
  expect(refused.message).toMatch(message);
});

test.each<[string, unknown, RegExp]>([
  ['undefined', undefined, /value is undefined/],
  ['undefined in an array', [undefined], /value\[0\] is undefined/],
  ['a function', { f() {} }, /value\.f is a function/],
  ['a BigInt', { n: [1n] }, /value\.n\[0\] is a BigInt/],
  ['Infinity', { n: -Infinity }, /value\.n is -Infinity/],
  ['a circle', circular, /value\.a\[0\]\.back is circular/],
  ['a Set', new Set(), /value is of the type Set/],
  ['an invalid Date', [new Date('x')], /value\[0\] is an invalid Date/],
  ['another view', new Float32Array(2), /Float32Array: pass a Uint8Array/],
  ['depth', deep, /levels deep/],
])('values that cannot be kept: %s', async (_, value, message) => {
  const cache = make();
  const refused = await failure(() => cache.set('q', value));
  expect(refused).toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect(refused.message).toMatch(message);
  expect((await failure(() => cache.getOrCompute('q', {}, () => value))).message).toMatch(message);
  expect(cache.getStats()).toMatchObject({ sets: 0, currentEntries: 0 });
});

test.each<[string, unknown, RegExp]>([
  ['17 MB', 'x'.repeat(17 << 20), /17825794 bytes, more than the limit of 16777216 bytes: raise maxValueMB/],
  ['100 MB', new Uint8Array(100 << 20), /104857600 bytes, more than the limit/],
])('values that are too large: %s', async (_, value, message) => {
  const cache = make();
  const refused = await failure(() => cache.set('q', value));
  expect(refused).toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect(refused.message).toMatch(message);
  // What was computed is answered all the same.
  const answer = await cache.getOrCompute('q', {}, () => value);
  expect((answer.value as string | Uint8Array).length).toBe((value as string | Uint8Array).length);
  expect(cache.getStats()).toMatchObject({ sets: 0, currentEntries: 0, rejected: 1 });
});

test('what is left out of an object by JSON may be', async () => {
  const cache = make();
  await cache.set('q', { a: 1, b: undefined, when: new Date(0) });
  expect((await cache.get('q'))!.value).toEqual({ a: 1, when: '1970-01-01T00:00:00.000Z' });
});

test('calls that make no sense are refused by name', async () => {
  const cache = make();
  const refusals: [() => unknown, RegExp][] = [
    [() => cache.get(''), /content is empty/],
    [() => cache.get(new Uint8Array(0)), /content is empty/],
    [() => cache.get(7 as never), /content is 7/],
    [() => cache.get(null as never), /content is null/],
    [() => cache.get({ hash: 'sha256:abc' }), /hash is "sha256:abc"/],
    [() => cache.get({ hash: `sha256:${'a'.repeat(40)}` }), /40 hexadecimal digits, a SHA-256 has 64/],
    [() => cache.get('q', { type: '' }), /type is ""/],
    [() => cache.get('q', { type: 'x\ud800' }), /type is/],
    [() => cache.get('q', { type: 'x'.repeat(1001) }), /1001 characters, more than the limit of 1000/],
    [() => cache.get('q', { modality: 'video' as never }), /modality is "video"/],
    [() => cache.get('q', { ttl: 1 } as never), /option `ttl`: there is no such option; known are type, params, modality, semantic$/],
    [() => cache.get('q', 'type' as never), /The options are "type", not an object/],
    [() => cache.set('q', 1, { ttlSeconds: NaN }), /ttlSeconds is NaN/],
    [() => cache.set('q', 1, { ttlSeconds: -1 }), /ttlSeconds is -1/],
    [() => cache.set('q', 1, { ttlSeconds: Infinity }), /ttlSeconds is Infinity/],
    [() => cache.set('q', 1, { ttlSeconds: '1' as never }), /ttlSeconds is "1"/],
    [() => cache.set('q', 1, { tags: 'red' as never }), /tags is "red", not an array/],
    [() => cache.set('q', 1, { tags: ['ok', 1 as never] }), /tags\[1\] is 1/],
    [() => cache.set('q', 1, { metadata: 1n }), /metadata is a BigInt/],
    [() => cache.getOrCompute('q', { ttlSeconds: -1 }, () => expect.fail('it was called')), /ttlSeconds is -1/],
    [() => cache.getOrCompute('q', {}, 7 as never), /compute is 7, not a function/],
    [() => cache.invalidate({}), /Say what to invalidate/],
    [() => cache.invalidate({ kind: 'x' } as never), /option `kind`: there is no such option; known are type, tag, tags$/],
    [() => cache.getMany('q' as never), /not an array/],
  ];
  for (const [work, message] of refusals) {
    const refused = await failure(work);
    expect(['INVALID_ARGUMENT', 'INVALID_CONFIG']).toContain(refused.code);
    expect(refused.message).toMatch(message);
  }
  await cache.close();
  expect(await failure(() => cache.get('q'))).toMatchObject({ code: 'CLOSED' });
  expect(await failure(() => cache.set('q', 1))).toMatchObject({ code: 'CLOSED' });
  await cache.close();
});

test.each<[InferenceCacheOptions, string]>([
  [{ maxEntrys: 1 } as never, 'maxEntrys'],
  [{ maxEntries: 0 }, 'maxEntries'],
  [{ maxMemoryMB: NaN }, 'maxMemoryMB'],
  [{ maxValueMB: 64 }, 'maxValueMB'],
  [{ maxValueMB: 0 }, 'maxValueMB'],
  [{ ttlSeconds: -1 }, 'ttlSeconds'],
  [{ ttlSecondsByType: { api: -1 } }, 'ttlSecondsByType.api'],
  [{ ttlSecondsByType: { api: NaN } }, 'ttlSecondsByType.api'],
  [{ ttlSecondsByType: 7 as never }, 'ttlSecondsByType'],
  [{ maxDiskMB: 1 }, 'maxDiskMB'],
  [{ persistPath: tmpdir() }, 'persistPath'],
  [{ monitor: {} as never }, 'monitor'],
  [{ semantic: {} as never }, 'semantic.embed'],
  [{ semantic: { embed: () => [], threshold: 2 } }, 'semantic.threshold'],
  [{ semantic: { embed: () => [], limit: 0 } }, 'semantic.limit'],
  [{ semantic: { embed: () => [], thresold: 1 } as never }, 'semantic.thresold'],
])('options that make no sense: %o', async (options, named) => {
  const refused = await failure(() => new InferenceCache(options));
  expect(refused.code).toBe('INVALID_CONFIG');
  expect(refused.message).toContain(named);
});

test('hits and misses are counted by type, in the statistics and in a monitor', async () => {
  const monitor = new PerformanceMonitor();
  const cache = make({ monitor });
  await cache.get('q', { type: 'api' });
  await cache.set('q', 'abc', { type: 'api' });
  await cache.get('q', { type: 'api' });
  await cache.getOrCompute('r', {}, () => 1);
  const { byType, ...stats } = cache.getStats();
  expect(stats).toMatchObject({ totalRequests: 3, hits: 1, misses: 2, hitRatio: 1 / 3, sets: 2, currentEntries: 2, disk: null });
  expect(byType.api).toEqual({
    totalRequests: 2, hits: 1, nearHits: 0, misses: 1, hitRatio: 0.5, expired: 0, damaged: 0, sets: 1, entries: 1, bytes: expect.any(Number) as number,
  });
  expect(byType.api!.bytes).toBeGreaterThan(5);
  expect(byType.text_inference).toMatchObject({ hits: 0, misses: 1, sets: 1, entries: 1 });
  expect(monitor.getSummary().caches.byType).toMatchObject({
    api: { hits: 1, misses: 1 },
    text_inference: { hits: 0, misses: 1 },
  });
});

test('memory is strict LRU, by number and by bytes', async () => {
  const events = heard();
  const few = make({ maxEntries: 2 });
  for (const name of ['a', 'b']) await few.set(name, name);
  await few.get('a');
  await few.set('c', 'c');
  expect([await few.has('a'), await few.has('b'), await few.has('c')]).toEqual([true, false, true]);
  expect(events).toContainEqual({ type: 'evicted', cause: 'size', entries: 1 });
  const small = make({ maxMemoryMB: 1 });
  for (let i = 0; i < 4; i++) await small.set(`${i}`, 'x'.repeat(400_000));
  expect([await small.has('0'), await small.has('1'), await small.has('3')]).toEqual([false, false, true]);
  expect(small.getStats().currentSizeBytes).toBeLessThanOrEqual(1 << 20);
});

test('a broken file is set aside, and everything goes on', async () => {
  const persistPath = file();
  await make({ persistPath }).close();
  const bytes = readFileSync(persistPath);
  writeFileSync(persistPath, bytes.fill(7, 100));
  const events = heard();
  const cache = make({ persistPath });
  await cache.set('q', 1);
  await cache.flush();
  expect(await cache.get('q')).toMatchObject({ value: 1 });
  expect(readdirSync(dirname(persistPath)).some((name) => name.includes('.broken-'))).toBe(true);
  await expect.poll(() => events).toContainEqual(expect.objectContaining({ type: 'file-set-aside' }));
});
