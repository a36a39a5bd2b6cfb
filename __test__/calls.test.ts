// Calls that are not awaited, limits of one call beside another one, inputs that change: what a call is, and when.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

import { EmbeddingError, InferenceCache, IntelligentEmbeddingCache, OptimizedEmbeddingGenerator, PerformanceMonitor, type Annotation } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { copyOf, distance, failure, model, ready, texts } from './support';

const bert = model('bert-mean');
const cls = model('bert-cls');

function make(options: ConstructorParameters<typeof OptimizedEmbeddingGenerator>[0]): OptimizedEmbeddingGenerator {
  const generator = new OptimizedEmbeddingGenerator(options);
  onTestFinished(() => generator.cleanup());
  return generator;
}

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'embedcore-calls-'));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const annotation = (name: string, i: number): Annotation => ({ nodeId: `n${i}`, signature: `fn ${name}_${i}()`, summary: 'word '.repeat(20 + i) });
const codes = (ends: PromiseSettledResult<unknown>[]) => ends.map((end) => (end.status === 'fulfilled' ? 'ok' : (end.reason as EmbeddingError).code));

describe('calls take effect in the order in which they are made', () => {
  test('initialize() and then cleanup() leaves no model, on a new and on a used generator', async () => {
    const generator = make({ modelPath: bert });
    for (let round = 0; round < 3; round++) {
      expect(codes(await Promise.allSettled([generator.initialize(), generator.cleanup()]))).toEqual(['CLOSED', 'ok']);
      expect(generator.isReady()).toBe(false);
      await generator.initialize();
      await generator.cleanup();
    }
  });

  test('a call waits for the model that was asked for before it, and has no later one', async () => {
    const generator = make({ modelPath: bert, cache: false });
    const first = generator.initialize();
    const one = generator.embed(['a']);
    const second = generator.initialize(cls);
    const other = generator.embed(['a']);
    const stream = generator.stream(texts(50));
    const third = generator.initialize();
    const [a, b] = [await one, await other];
    await Promise.all([first, second, third]);
    expect(distance(a.data, b.data)).toBeGreaterThan(1e-3);
    const alone = async (modelPath: string) => (await ready({ modelPath, cache: false })).embed(['a']);
    expect(distance(a.data, (await alone(bert)).data)).toBeLessThan(1e-6);
    expect(distance(b.data, (await alone(cls)).data)).toBeLessThan(1e-6);
    let results = 0;
    for await (const _ of stream) results++;
    expect(results).toBe(50);
  });

  test('what is asked for between two cleanups belongs to the initialize before it', async () => {
    const generator = make({ modelPath: bert });
    const calls = [
      generator.initialize(),
      generator.embed(['a']),
      generator.cleanup(),
      generator.embed(['a']),
      generator.initialize(),
      generator.embed(['a']),
      generator.cleanup(),
      generator.cleanup(),
    ];
    expect(codes(await Promise.allSettled(calls))).toEqual(['CLOSED', 'CLOSED', 'ok', 'CLOSED', 'CLOSED', 'CLOSED', 'ok', 'ok']);
    expect(generator.isReady()).toBe(false);
    await generator.initialize();
    expect((await generator.embed(['a'])).rows).toBe(1);
  });

  test('a load that is aborted or fails leaves the calls after it the model before it', async () => {
    const generator = make({ modelPath: bert, cache: false });
    const loading = generator.initialize();
    const aborted = failure(() => generator.initialize(cls, { signal: AbortSignal.abort() }));
    const failed = failure(() => generator.initialize('/nowhere'));
    expect((await generator.embed(['a'])).rows).toBe(1);
    await loading;
    expect([(await aborted).code, (await failed).code]).toEqual(['ABORTED', 'MODEL_INIT_FAILED']);
    expect(generator.getModelInfo().modelId).toBe(bert);
  });

  test('initialize() without a path loads the model that was given last', async () => {
    const generator = make({ cache: false });
    await generator.initialize(bert);
    await generator.initialize();
    expect(generator.getModelInfo().modelId).toBe(bert);
    await generator.cleanup();
    await failure(() => generator.initialize('/nowhere'));
    await generator.initialize();
    expect(generator.getModelInfo().modelId).toBe(bert);
    // Given, though there was no time to load it.
    await Promise.allSettled([generator.initialize(cls), generator.cleanup()]);
    await generator.initialize();
    expect(generator.getModelInfo().modelId).toBe(cls);
  });
});

describe('a call is of the moment when it is made', () => {
  test('annotations may be changed afterwards, however many they are', async () => {
    const generator = await ready({ modelPath: model('demo'), cache: false });
    const annotations = Array.from({ length: 3000 }, (_, i) => ({ nodeId: `n${i}`, signature: `fn original_${i}()`, summary: '' }));
    const calls = [generator.generateEmbeddings(annotations), generator.batchProcess(annotations)];
    for (const one of annotations) Object.assign(one, { nodeId: 'changed', signature: 'fn changed()' });
    for (const results of await Promise.all(calls)) {
      expect(results.every(({ nodeId, inputText }, i) => nodeId === `n${i}` && inputText.includes(`original_${i}()`))).toBe(true);
    }
  });

  test('a relative path is in the working directory of that moment', async () => {
    const [base, before] = [folder(), process.cwd()];
    onTestFinished(() => process.chdir(before));
    for (const [name, from] of [['a', bert], ['b', cls]] as const) cpSync(from, join(base, name, 'model'), { recursive: true });
    process.chdir(join(base, 'a'));
    const generator = make({ modelPath: './model', cache: { persistPath: 'cache.db' } });
    process.chdir(join(base, 'b'));
    await generator.initialize();
    expect(generator.getModelInfo()).toMatchObject({ modelId: './model', pooling: 'mean' });
    const loading = generator.initialize('./model');
    process.chdir(before);
    await loading;
    expect(generator.getModelInfo().pooling).toBe('cls');
    await generator.cleanup();
    await generator.initialize();
    expect(generator.getModelInfo().pooling).toBe('cls');
    // So is its cache, which is made anew.
    process.chdir(join(base, 'b'));
    await generator.embed(['a']);
    await generator.cleanup();
    expect(existsSync('cache.db')).toBe(false);
    process.chdir(before);
    const again = make({ modelPath: join(base, 'b', 'model'), cache: { persistPath: join(base, 'a', 'cache.db') } });
    await again.initialize();
    expect([...(await again.embed(['a'])).fromCache]).toEqual([1]);
  });

  test('file URLs and ~/ are paths; other URLs are refused with advice', async () => {
    for (const url of [pathToFileURL(bert), pathToFileURL(bert).href]) {
      expect((await ready({ modelPath: url, cache: false })).getModelInfo().pooling).toBe('mean');
      const generator = make({ cache: false });
      await generator.initialize(url);
      expect(generator.isReady()).toBe(true);
    }
    for (const option of ['modelPath', 'cacheDir']) {
      const error = await failure(() => new OptimizedEmbeddingGenerator({ [option]: new URL('https://example.org/model') }));
      expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option } });
      expect(error.message).toContain('file URL');
    }
    const home = { ...process.env };
    onTestFinished(() => void Object.assign(process.env, home));
    process.env.HOME = process.env.USERPROFILE = folder();
    cpSync(bert, join(process.env.HOME, 'models', 'mine'), { recursive: true });
    expect((await ready({ modelPath: '~/models/mine', cache: false })).getModelInfo().pooling).toBe('mean');
  });
});

test('a persistPath of a cache or a monitor is of the moment, too, and may begin with ~/', async () => {
  const [home, elsewhere, before] = [{ ...process.env }, folder(), process.cwd()];
  onTestFinished(() => {
    Object.assign(process.env, home);
    process.chdir(before);
  });
  process.env.HOME = process.env.USERPROFILE = folder();
  process.chdir(elsewhere);
  const made = (name: string) => [
    new IntelligentEmbeddingCache({ persistPath: `${name}/one.db` }),
    new InferenceCache({ persistPath: `${name}/two.db` }),
    new PerformanceMonitor({ persistPath: `${name}/three.json` }),
  ] as const;
  for (const name of ['~', '.']) {
    const [cache, results, monitor] = made(name);
    process.chdir(before);
    await cache.set('key', 'content', [1, 2]);
    await results.set('prompt', { answer: 1 });
    await monitor.save();
    await Promise.all([cache.close(), results.close()]);
    const directory = name === '~' ? process.env.HOME : elsewhere;
    expect(readdirSync(directory)).toEqual(expect.arrayContaining(['one.db', 'two.db', 'three.json']));
    process.chdir(elsewhere);
  }
  expect(existsSync('~')).toBe(false);
});

describe('limits of one call are no limits of another one', () => {
  test('that waits for the same texts: memoryLimit, signal and timeoutMs', async () => {
    const generator = await ready({ modelPath: bert });
    for (let round = 0; round < 5; round++) {
      const annotations = Array.from({ length: 60 }, (_, i) => annotation(`round_${round}`, i));
      // Nothing fits into the memory of a batch whose tokens alone need more.
      const huge = [...annotations, { nodeId: 'huge', signature: `fn huge_${round}()`, summary: 'word '.repeat(60) }];
      const controller = new AbortController();
      const limited = [
        generator.batchProcess(huge, { signal: controller.signal }),
        generator.batchProcess(huge, { timeoutMs: 1 }),
        generator.batchProcess(huge, { memoryLimit: 1, batchSize: 64, onError: 'skip' }),
        generator.batchProcess(huge, { memoryLimit: 1 }),
      ];
      const free = [generator.batchProcess(huge), generator.batchProcess(huge, { onError: 'skip' })];
      setTimeout(() => controller.abort(), round);
      await Promise.allSettled(limited);
      for (const results of await Promise.all(free)) expect(results.filter(({ error }) => error)).toEqual([]);
    }
  });

  test('a call is stopped also while it waits for a model', async () => {
    const generator = make({ modelPath: bert });
    const loading = generator.initialize();
    const stopped = Promise.allSettled([generator.embed(['a'], { signal: AbortSignal.abort() }), generator.stream(['a'], { signal: AbortSignal.abort() }).next()]);
    expect(codes(await stopped)).toEqual(['ABORTED', 'ABORTED']);
    await loading;
  });
});

describe('inputs that cannot be embedded', () => {
  test('fail alone with onError skip, whatever they are', async () => {
    const generator = await ready({ modelPath: bert });
    const inputs = ['one', null, 5, undefined, {}, 'two', ''] as string[];
    const matrix = await generator.embed(inputs, { onError: 'skip' });
    expect([...matrix.errors.keys()]).toEqual([1, 2, 3, 4, 6]);
    expect([...matrix.errors].map(([index, { code, message, details }]) => [code, message.includes(`Text ${index}`), details.index])).toEqual(
      [1, 2, 3, 4, 6].map((index) => ['INVALID_ARGUMENT', true, index]),
    );
    expect([0, 5].every((index) => matrix.row(index).some((value) => value !== 0))).toBe(true);
    expect([1, 6].every((index) => matrix.row(index).every((value) => value === 0))).toBe(true);
    const thrower = { nodeId: 'thrower', get signature(): string { throw new Error('mine'); }, summary: '' };
    const given = [annotation('sound', 1), thrower, null, { nodeId: 'c', signature: 5, summary: '' }] as Annotation[];
    const results = await generator.generateEmbeddings(given, { onError: 'skip' });
    expect(results.map(({ nodeId, embedding, error }) => [nodeId, embedding.length > 0, error?.code])).toEqual([
      ['n1', true, undefined],
      ['thrower', false, 'INVALID_ARGUMENT'],
      ['', false, 'INVALID_ARGUMENT'],
      ['c', false, 'INVALID_ARGUMENT'],
    ]);
    expect(results[1]!.error!.message).toContain('mine');
    expect(await failure(() => generator.generateEmbeddings(given))).toMatchObject({ code: 'INVALID_ARGUMENT', details: { field: 'signature' } });
  });

  test('do not keep the event loop, however many they are', async () => {
    const generator = await ready({ modelPath: bert, cache: false });
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const { errors } = await generator.embed(Array<string>(20_000).fill(''), { onError: 'skip' });
    clearInterval(timer);
    expect(errors.size).toBe(20_000);
    expect(errors.get(19_999)).toBeInstanceOf(EmbeddingError);
    expect(turns).toBeGreaterThanOrEqual(5);
  });
});

describe('models', () => {
  test('of which a file is a Git LFS pointer are named as such', async () => {
    const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'6fd5'.repeat(16)}\nsize 90405214\n`;
    for (const file of ['onnx/model.onnx', 'tokenizer.json', 'config.json']) {
      const directory = copyOf('bert-mean');
      writeFileSync(join(directory, file), pointer);
      const error = await failure(() => make({ modelPath: directory }).initialize());
      expect(error.code).toBe('MODEL_INIT_FAILED');
      expect(error.message).toMatch(/Git LFS pointer.*git lfs pull/s);
      expect(error.message).toContain(file);
    }
  });

  test('run on no more threads than there are cores', async () => {
    const generator = await ready({ modelPath: bert, intraOpThreads: 1024, cache: false });
    expect(generator.getModelInfo().intraOpThreads).toBeLessThanOrEqual(256);
    expect((await generator.embed(texts(20))).rows).toBe(20);
  });
});

test('what is closed while its file is opened again is not lost', async () => {
  const directory = folder();
  mkdirSync(directory, { recursive: true });
  const generator = make({ modelPath: bert, cache: { persistPath: join(directory, 'cache.db') } });
  await generator.initialize();
  await generator.embed(['a']);
  const closing = generator.cleanup();
  await generator.initialize();
  await closing;
  expect((await generator.embed(['a'])).fromCache[0]).toBe(1);
  await sleep(0);
});
