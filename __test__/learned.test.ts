// What an optimizer and a generator have learned, kept for the next one; and what they predict from it.
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { DynamicBatchOptimizer, OptimizedEmbeddingGenerator, type GeneratorOptions } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure, model, ready } from './support';

const bert = { modelPath: model('bert-mean') };

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-learned-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Batches of a machine that slows down beyond 40 items; gives their sizes. */
function run(optimizer: DynamicBatchOptimizer, batches: number): number[] {
  return Array.from({ length: batches }, (_, i) => {
    const batchSize = optimizer.getCurrentBatchSize();
    const processingTime = (4 + batchSize) * (batchSize > 40 ? 3 : 1) * (1 + 0.02 * ((i * 7) % 5));
    optimizer.recordPerformance({ batchSize, processingTime, itemsProcessed: batchSize, tokens: 30 * batchSize, cpuUsage: 20, memoryUsage: 30, success: i % 29 !== 28 });
    return batchSize;
  });
}

describe('an optimizer as JSON', () => {
  test('another one goes on where it was', () => {
    const one = new DynamicBatchOptimizer(8, { maxBatchSize: 100, minSamples: 5, aggressiveness: 0.5 });
    run(one, 100);
    const other = DynamicBatchOptimizer.fromJSON(JSON.parse(JSON.stringify(one)) as object);
    expect(other.getConfig()).toEqual(one.getConfig());
    expect(other.getOptimizationRecommendation()).toMatchObject({ recommendedBatchSize: one.getOptimizationRecommendation().recommendedBatchSize });
    const [kept, before] = [other.getPerformanceAnalytics().recentHistory, one.getPerformanceAnalytics().recentHistory];
    expect(kept.map(({ batchSize, success }) => ({ batchSize, success }))).toEqual(before.map(({ batchSize, success }) => ({ batchSize, success })));
    for (const [i, { throughput }] of kept.entries()) expect(throughput).toBeCloseTo(before[i]!.throughput, 9);
    expect(run(other, 150)).toEqual(run(one, 150));
    // Each for itself from there on.
    other.reset();
    expect(other.getCurrentBatchSize()).toBe(8);
    expect(one.getPerformanceAnalytics().recentHistory).not.toEqual([]);
    expect(DynamicBatchOptimizer.fromJSON(new DynamicBatchOptimizer(7).toJSON()).getCurrentBatchSize()).toBe(7);
  });

  const state = () => {
    const optimizer = new DynamicBatchOptimizer(8, { minSamples: 5 });
    run(optimizer, 60);
    return optimizer.toJSON() as Record<string, unknown> & { arms: object[]; history: object[]; options: object };
  };
  const circular: Record<string, unknown> = {};
  circular.self = circular;

  test.each<[string, () => unknown]>([
    ['nothing', () => undefined],
    ['null', () => null],
    ['a string', () => JSON.stringify(state())],
    ['a number', () => 3],
    ['an array', () => [state()]],
    ['an empty object', () => ({})],
    ['a function', () => () => state()],
    ['what has no JSON', () => ({ toJSON: () => undefined })],
    ['what throws', () => ({ toJSON() { throw new Error('on purpose'); } })],
    ['a circle', () => circular],
    ['a bigint', () => ({ ...state(), samples: 3n })],
    ['another version', () => ({ ...state(), version: 2 })],
    ['no version', () => ({ ...state(), version: undefined })],
    ['a number that is none', () => ({ ...state(), level: NaN })],
    ['an infinite one', () => ({ ...state(), heldMs: Infinity })],
    ['a negative size', () => ({ ...state(), current: -1 })],
    ['a size out of bounds', () => ({ ...state(), incumbent: 1000 })],
    ['half a size', () => ({ ...state(), initial: 1.5 })],
    ['a string for a number', () => ({ ...state(), samples: '1' })],
    ['an object for a list', () => ({ ...state(), arms: {} })],
    ['a million sizes', () => ({ ...state(), arms: Array.from({ length: 1_000_000 }, () => ({ size: 8, mean: 0, weight: 1 })) })],
    ['a size twice', () => { const { arms, ...rest } = state(); return { ...rest, arms: [...arms, arms[0]] }; }],
    ['too long a history', () => { const { history, ...rest } = state(); return { ...rest, history: [...history, ...history, ...history] }; }],
    ['bounds in the wrong order', () => { const { options, ...rest } = state(); return { ...rest, options: { ...options, minSize: 128, maxSize: 1 } }; }],
    ['something else', () => ({ ...state(), more: 1 })],
  ])('%s is refused', async (_, make) => {
    const error = await failure(() => DynamicBatchOptimizer.fromJSON(make() as object));
    expect(error.code).toBe('INVALID_ARGUMENT');
    expect(error.message).toContain('state of an optimizer');
  });
});

/** A generator that has run batches enough to have learned something, and is closed. */
async function teach(options: GeneratorOptions): Promise<{ maxTokens: number; batchSize: number; samples: number }[]> {
  const generator = new OptimizedEmbeddingGenerator({ ...bert, ...options });
  await generator.initialize();
  // Enough of one length that more than a full batch is left for each lane; short ones count one by one in eight.
  for (let round = 0; round < 4; round++) await generator.embed(Array.from({ length: 2000 }, (_, i) => `word ${round} ${i} of many`), { bypassCache: true });
  const { learned } = generator.getPerformanceMetrics().batchOptimizer;
  await generator.cleanup();
  expect(learned.length).toBeGreaterThan(0);
  return learned;
}

const learnedBy = async (options: GeneratorOptions) => (await ready({ ...bert, ...options })).getPerformanceMetrics().batchOptimizer.learned;

describe('a generator', () => {
  test('starts from what was learned, in a directory that it makes', async () => {
    const stateDir = join(scratch(), 'made', 'for', 'it');
    const learned = await teach({ cache: false, stateDir });
    expect(readdirSync(stateDir)).toEqual([expect.stringMatching(/^learned-[0-9a-f]{16}\.json$/)]);
    expect(await learnedBy({ cache: false, stateDir })).toEqual(learned);
    // Of another model, and of options that sizes depend on, there is nothing.
    expect(await learnedBy({ cache: false, stateDir, maxLength: 32 })).toEqual([]);
    expect(await learnedBy({ cache: false, stateDir, batchOptimizer: { maxBatchSize: 5 } })).toEqual([]);
    expect(await learnedBy({ cache: false, stateDir, batchOptimizer: false })).toEqual([]);
    expect(await learnedBy({ cache: false })).toEqual([]);
    // None of these has written over it.
    expect(await learnedBy({ cache: false, stateDir })).toEqual(learned);
  });

  test('beside the file of its cache, unless that is turned off', async () => {
    const directory = scratch();
    const cache = { persistPath: join(directory, 'cache.sqlite') };
    await teach({ cache, stateDir: false });
    expect(readdirSync(directory).filter((name) => name.includes('learned'))).toEqual([]);
    const learned = await teach({ cache });
    expect(readdirSync(directory).filter((name) => name.includes('learned'))).toEqual([expect.stringMatching(/^cache\.sqlite\.learned-[0-9a-f]{16}\.json$/)]);
    expect(await learnedBy({ cache })).toEqual(learned);
    expect(await learnedBy({ cache, stateDir: false })).toEqual([]);
  });

  test('ignores a state that is damaged, of another version or of another machine, and replaces it', async () => {
    const stateDir = scratch();
    const learned = await teach({ cache: false, stateDir });
    const path = join(stateDir, readdirSync(stateDir)[0]!);
    const whole = readFileSync(path, 'utf8');
    const kept = JSON.parse(whole) as { place: object; overhead: object; batches: Record<string, object> };
    const changed = (place: object) => JSON.stringify({ ...kept, place: { ...kept.place, ...place } });
    const damages = [
      '', '{', 'null', '[]', '{}', whole.slice(0, -10), `${whole}x`, whole.replace('place', 'palce'),
      changed({ version: 2 }), changed({ package: '0.0.1' }), changed({ machine: 'another one' }), changed({ workers: 99 }), changed({ fingerprint: '00' }),
      JSON.stringify({ ...kept, batches: [] }), JSON.stringify({ ...kept, batches: { 5: null } }), JSON.stringify({ ...kept, overhead: { ...kept.overhead, tokenMs: -1 } }),
      'x'.repeat(5 << 20),
    ];
    for (const damage of damages) {
      writeFileSync(path, damage);
      expect(await learnedBy({ cache: false, stateDir }), damage.slice(0, 60)).toEqual([]);
    }
    writeFileSync(path, whole);
    expect(await learnedBy({ cache: false, stateDir })).toEqual(learned);
    writeFileSync(path, 'nonsense');
    await teach({ cache: false, stateDir });
    expect((await learnedBy({ cache: false, stateDir })).length).toBeGreaterThan(0);
    expect(readdirSync(stateDir)).toHaveLength(1);
  });

  test('works where nothing can be kept', async () => {
    const directory = scratch();
    writeFileSync(join(directory, 'file'), '');
    await teach({ cache: false, stateDir: join(directory, 'file') });
    if (process.platform !== 'win32' && process.getuid?.() !== 0) {
      mkdirSync(join(directory, 'shut'));
      chmodSync(join(directory, 'shut'), 0o500);
      await teach({ cache: false, stateDir: join(directory, 'shut') });
    }
    expect(readFileSync(join(directory, 'file'), 'utf8')).toBe('');
  });

  test.each([3, true, '', null, {}])('stateDir %j is refused', async (stateDir) => {
    const error = await failure(() => new OptimizedEmbeddingGenerator({ stateDir } as GeneratorOptions));
    expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'stateDir' } });
  });
});

describe('a prediction', () => {
  test('needs a model, and whole numbers', async () => {
    const generator = new OptimizedEmbeddingGenerator(bert);
    expect((await failure(() => generator.predict(1, 1))).code).toBe('NOT_INITIALIZED');
    for (const [items, tokens] of [[-1, 1], [1.5, 1], [NaN, 1], ['1', 1], [1, 0], [1, Infinity], [1, undefined], [2 ** 60, 1]]) {
      expect((await failure(() => generator.predict(items as number, tokens as number))).code).toBe('INVALID_ARGUMENT');
    }
    await generator.cleanup();
  });

  test('of time is unknown before anything ran, then grows with the work and has an interval', async () => {
    const generator = await ready({ ...bert, cache: false, stateDir: false });
    expect(generator.predict(100, 20).time).toBeNull();
    expect(generator.predict(100, 20).memory.expected).toBeGreaterThan(100 * 32 * 4);
    await generator.embed(Array.from({ length: 3000 }, (_, i) => `some words of text ${i}`));
    const all = [generator.predict(100, 20), generator.predict(1000, 20), generator.predict(10_000, 20)];
    for (const { time, memory, batchSize } of all) {
      for (const { expected, low, high } of [time!, memory, batchSize]) {
        expect(low).toBeLessThanOrEqual(expected);
        expect(expected).toBeLessThanOrEqual(high);
        expect(low).toBeGreaterThan(0);
        expect(Number.isFinite(high)).toBe(true);
      }
      expect(time!.low).toBeLessThan(time!.high);
    }
    expect(all[1]!.time!.expected).toBeGreaterThan(all[0]!.time!.expected);
    expect(all[2]!.time!.expected / all[1]!.time!.expected).toBeCloseTo(10, 0);
    expect(all[2]!.memory.expected).toBeGreaterThan(all[1]!.memory.expected);
    // The model sees no more than its limit.
    const { maxLength } = generator.getModelInfo();
    expect(generator.predict(10, 10 * maxLength)).toEqual(generator.predict(10, maxLength));
    expect(generator.predict(0, 20)).toMatchObject({ time: { expected: 0 }, memory: { expected: 0 }, batchSize: { expected: 0 } });
    expect(generator.predict(1, 20).batchSize.expected).toBe(1);
  });

  test('is there at once where another process has learned', async () => {
    const stateDir = scratch();
    await teach({ cache: false, stateDir });
    const generator = await ready({ ...bert, cache: false, stateDir });
    expect(generator.predict(1000, 8).time!.expected).toBeGreaterThan(0);
  });
});
