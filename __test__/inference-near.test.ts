// Results of prompts that mean the same.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { InferenceCache, type InferenceCacheEvent, type InferenceCacheOptions, type SemanticOptions } from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { ready, root } from './support';

interface Pairs {
  paraphrases: [string, string][];
  traps: [string, string, string][];
  moreTraps: [string, string][];
}
const fixture = <T>(name: string): T => JSON.parse(readFileSync(join(root, 'fixtures', name), 'utf8')) as T;
const { paraphrases, traps, moreTraps } = fixture<Pairs>('near-prompts.json');

/** Pairs of prompts, each with its kind, that mean the same, and that do not. */
interface Kinds {
  same: [string, string, string][];
  other: [string, string, string][];
}
type Parts = { development: Kinds; heldOut: Kinds };
const lists = { 'near-pairs.json': fixture<Parts>('near-pairs.json'), 'near-everyday.json': fixture<Parts>('near-everyday.json') };

function make(semantic: SemanticOptions, options: InferenceCacheOptions = {}): InferenceCache {
  const cache = new InferenceCache({ semantic, ...options });
  onTestFinished(() => cache.close());
  return cache;
}

function file(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-near-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'results.db');
}

/** All prompts are the same to it: what is found, words alone decide. */
const blind: SemanticOptions = { embed: (texts) => texts.map(() => [1, 0, 0]) };

/** Whether the result of one prompt answers another one, and the other way round. */
async function meet(cache: InferenceCache, a: string, b: string): Promise<boolean[]> {
  const found = [];
  for (const [set, asked] of [[a, b], [b, a]] as const) {
    await cache.clear();
    await cache.set(set, 'it');
    const near = await cache.get(asked);
    if (near) expect(near).toMatchObject({ value: 'it', matchedContent: set });
    found.push(near !== null);
  }
  return found;
}

test('a list of two hundred prompts each', () => {
  expect([paraphrases.length, traps.length]).toEqual([200, 200]);
  const kinds = traps.map(([kind]) => kind);
  for (const kind of ['negated', 'renumbered', 'renamed', 'reversed']) expect(kinds.filter((one) => one === kind)).toHaveLength(50);
});

test('where vectors see no difference, words tell every trap, in both directions', async () => {
  const cache = make(blind);
  const caught: string[] = [];
  const pairs = [...traps.map(([, a, b]) => [a, b] as const), ...moreTraps];
  for (const [a, b] of pairs) if ((await meet(cache, a, b)).includes(true)) caught.push(`${a} | ${b}`);
  expect(caught).toEqual([]);
});

test('and let most paraphrases pass', async () => {
  const cache = make(blind);
  let passed = 0;
  for (const [a, b] of paraphrases) {
    const [there, back] = await meet(cache, a, b);
    expect(there, `${a} | ${b}`).toBe(back);
    if (there) passed++;
  }
  expect(passed).toBeGreaterThanOrEqual(0.6 * paraphrases.length);
});

test('with the built-in model, no trap answers at the default threshold', async () => {
  const generator = await ready({});
  const cache = make({ embed: generator });
  for (const [, a, b] of traps) {
    await cache.set(a, a);
    expect(await cache.get(b), `${a} | ${b}`).toBeNull();
    await cache.clear();
  }
  await cache.set('How do I reverse a string in Python?', 'like this');
  const near = await cache.get('How can I reverse a string in Python?');
  expect(near).toMatchObject({ value: 'like this', matchedContent: 'How do I reverse a string in Python?' });
  expect(near!.similarity).toBeGreaterThan(0.8);
  expect(near!.similarity).toBeLessThanOrEqual(1);
});

test.each([
  ['near-pairs.json', 'development'],
  ['near-pairs.json', 'heldOut'],
  ['near-everyday.json', 'development'],
  ['near-everyday.json', 'heldOut'],
] as const)('at default settings, a hit means the same question: %s, %s pairs', async (list, part) => {
  const { same, other } = lists[list][part];
  const cache = make({ embed: await ready({}) });
  const answers = async (kept: string, asked: string) => {
    const params = { kept, asked };
    await cache.set(kept, 1, { params });
    return (await cache.get(asked, { params })) !== null;
  };
  const wrong: string[] = [];
  for (const [kind, a, b] of other) if ((await answers(a, b)) || (await answers(b, a))) wrong.push(`${kind}: ${a} | ${b}`);
  // These are facts: none of them, not one in a hundred.
  expect(wrong).toEqual([]);
  let right = 0;
  for (const [, a, b] of same) if (await answers(a, b)) right++;
  expect(right).toBeGreaterThanOrEqual(0.6 * same.length);
});

test('with the built-in model, most of the freely worded paraphrases pass at default settings', async () => {
  const cache = make({ embed: await ready({}) });
  let right = 0;
  for (const [a, b] of paraphrases) {
    const params = { a };
    await cache.set(a, 1, { params });
    if (await cache.get(b, { params })) right++;
  }
  expect(right).toBeGreaterThanOrEqual(0.6 * paraphrases.length);
});

test.each<[string, string, string]>([
  ['another language', 'Wie lange dauert es mit Cache?', 'Wie lange dauert es ohne Cache?'],
  ['the other direction in Japanese', '東京から大阪までの料金は?', '大阪から東京までの料金は?'],
  ['one letter of a name', 'What is the port of ldap?', 'What is the port of ldaps?'],
  ['an index', 'What is argv[0]?', 'What is argv[1]?'],
  ['an operator', 'What does a && b mean?', 'What does a || b mean?'],
  ['a digit', 'Is 1234567890 prime?', 'Is 1234567891 prime?'],
  ['an emoji', 'What does 😀 mean?', 'What does 😁 mean?'],
  ['a skin tone', 'What does 👍 mean?', 'What does 👍🏽 mean?'],
  ['a word at the end of a long prompt', `${'Summarize this text in one line. '.repeat(400)}Thanks Anna!`, `${'Summarize this text in one line. '.repeat(400)}Thanks Anne!`],
  ['a word at the end of 100 kB', `${'line after line '.repeat(6400)}one`, `${'line after line '.repeat(6400)}two`],
])('what differs by %s is another question', async (_, a, b) => {
  expect(await meet(make(blind), a, b)).toEqual([false, false]);
});

test('similarity is the cosine of the two vectors, and the threshold is one', async () => {
  const vectors: Record<string, number[]> = { 'List the moons of Mars.': [3, 4], 'list the moons of Mars': [4, 3] };
  const embed = (texts: string[]) => texts.map((text) => vectors[text]!);
  for (const [threshold, found] of [[0.96, true], [0.9601, false], [0.5, true]] as const) {
    const cache = make({ embed, threshold });
    await cache.set('List the moons of Mars.', 2);
    const near = await cache.get('list the moons of Mars');
    expect(near !== null).toBe(found);
    if (near) expect(near.similarity).toBeCloseTo(0.96, 5);
  }
});

test('near results are of the same type, params, modality, namespace and model', async () => {
  const persistPath = file();
  const [a, b] = ['Name the capital of Peru.', 'name the capital of peru'] as [string, string];
  const cache = make(blind, { persistPath, namespace: 'n' });
  await cache.set(a, 'Lima', { type: 't', params: { model: 'm' } });
  expect(await cache.get(b, { type: 't', params: { model: 'm' } })).toMatchObject({ value: 'Lima', matchedContent: a });
  expect(await cache.get(b, { type: 'u', params: { model: 'm' } })).toBeNull();
  expect(await cache.get(b, { type: 't', params: { model: 'n' } })).toBeNull();
  expect(await cache.get(b, { type: 't', params: { model: 'm' }, modality: 'audio' })).toBeNull();
  expect(await cache.get(b, { type: 't', params: { model: 'm' }, semantic: false })).toBeNull();
  await cache.flush();
  const same = make(blind, { persistPath, namespace: 'n' });
  expect(await same.get(b, { type: 't', params: { model: 'm' } })).toMatchObject({ value: 'Lima' });
  const other = make(blind, { persistPath, namespace: 'o' });
  expect(await other.get(b, { type: 't', params: { model: 'm' } })).toBeNull();
  const renamed = make({ ...blind, model: 'another' }, { persistPath, namespace: 'n' });
  expect(await renamed.get(b, { type: 't', params: { model: 'm' } })).toBeNull();
  // Vectors of another length are those of another model; results stay what they are.
  const longer = make({ embed: (texts) => texts.map(() => [1, 0, 0, 0]) }, { persistPath, namespace: 'n' });
  expect(await longer.get(b, { type: 't', params: { model: 'm' } })).toBeNull();
  expect(await longer.get(a, { type: 't', params: { model: 'm' } })).toMatchObject({ value: 'Lima' });
  await longer.set('Name the capital of Chile.', 'Santiago', { type: 't' });
  expect(await longer.get('name the capital of chile', { type: 't' })).toMatchObject({ value: 'Santiago' });
});

test('a crowd of other scopes hides nothing', async () => {
  const cache = make(blind);
  await cache.set('Name the capital of Peru.', 'Lima', { params: { n: -1 } });
  await cache.setMany(Array.from({ length: 3000 }, (_, n) => ({ content: 'Name the capital of Peru', value: n, params: { n } })));
  expect(await cache.get('name the capital of peru', { params: { n: -1 } })).toMatchObject({ value: 'Lima' });
});

test('what is deleted, invalidated, expired or cleared answers nobody', async () => {
  const cache = make(blind);
  const [a, b] = ['Say hello.', 'say hello'] as [string, string];
  const gone = async (how: () => Promise<unknown>, options = {}) => {
    await cache.set(a, 1, options);
    expect(await cache.get(b)).not.toBeNull();
    await how();
    expect(await cache.get(b)).toBeNull();
  };
  await gone(() => cache.delete(a));
  await gone(() => cache.clear());
  await gone(() => cache.invalidate({ tag: 't' }), { tags: ['t'] });
  await gone(() => new Promise((resolve) => setTimeout(resolve, 2100)), { ttlSeconds: 2 });
  expect(cache.getStats()).toMatchObject({ nearHits: 4, hits: 4, misses: 4, expired: 0 });
});

test('near hits are hits: counted, published, and enough for getOrCompute and wrap', async () => {
  const events: InferenceCacheEvent[] = [];
  const listen = (event: unknown) => void events.push(event as InferenceCacheEvent);
  subscribe('embedcore:results', listen);
  onTestFinished(() => void unsubscribe('embedcore:results', listen));
  const cache = make(blind);
  await cache.set('What is a monad?', 'a monoid');
  const answer = await cache.getOrCompute('What is a monad', {}, () => expect.fail('it was called'));
  expect(answer).toEqual({ value: 'a monoid', fromCache: true, similarity: 1, matchedContent: 'What is a monad?' });
  expect(events).toEqual([
    { type: 'near-hit', resultType: 'text_inference', similarity: 1, content: 'What is a monad', matchedContent: 'What is a monad?' },
  ]);
  expect(cache.getStats().byType.text_inference).toMatchObject({ hits: 1, nearHits: 1, misses: 0 });
  let calls = 0;
  const ask = cache.wrap(async (prompt: string) => `${prompt} ${++calls}`, { name: 'ask' });
  expect([await ask('Say hi.'), await ask('say hi!'), await ask('Say no.')]).toEqual(['Say hi. 1', 'Say hi. 1', 'Say no. 2']);
});

test('a failing embedder fails no call', async () => {
  const events: InferenceCacheEvent[] = [];
  const listen = (event: unknown) => void events.push(event as InferenceCacheEvent);
  subscribe('embedcore:results', listen);
  onTestFinished(() => void unsubscribe('embedcore:results', listen));
  const bad: SemanticOptions['embed'][] = [
    () => Promise.reject(new Error('no network')),
    () => [],
    () => undefined as never,
    () => [[NaN, 1]],
    () => [[0, 0]],
    () => [[]],
    () => ['text' as never],
  ];
  for (const [at, embed] of bad.entries()) {
    const cache = make({ embed });
    await cache.set('q', at);
    expect(await cache.get('q')).toMatchObject({ value: at });
    expect(await cache.get('r')).toBeNull();
    expect(cache.getStats()).toMatchObject({ hits: 1, misses: 1 });
  }
  expect(events.filter(({ type }) => type === 'semantic-failed').length).toBeGreaterThanOrEqual(bad.length);
});

test('a prompt is embedded once for a lookup and the result that is set after it', async () => {
  const embedded: string[] = [];
  const cache = make({
    embed: (texts) => {
      embedded.push(...texts);
      return texts.map((text) => [text.length, 1]);
    },
  });
  await cache.getOrCompute('a question', {}, () => 1);
  await cache.get('a question');
  // What is no prompt is not embedded: objects, other modalities, what is longer than any model reads.
  await cache.get({ a: 1 });
  await cache.get('an image', { modality: 'image' });
  await cache.get('x'.repeat(17 << 10));
  expect(embedded).toEqual(['a question']);
});
