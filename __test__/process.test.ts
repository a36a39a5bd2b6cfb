import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { describe, expect, onTestFinished, test } from 'vitest';

import { distance, hasShared, host, miniLm, model, ready, root, runProgram as run, texts, thorough } from './support';

const program = (name: string) => join(root, '__test__', 'programs', name);
const bert = model('bert-mean');

describe('the process ends cleanly', () => {
  const times = thorough ? 100 : 20;
  test(`${times} times with process.exit in the middle of inference`, { timeout: 300_000 }, async () => {
    const exits = Array.from({ length: times }, (_, i) => ['exit', bert, String(i % 20)]);
    for (let i = 0; i < exits.length; i += 2) {
      const ended = await Promise.all(exits.slice(i, i + 2).map((args) => run(program('exit.cjs'), args)));
      for (const { code, err } of ended) expect({ code, err }).toEqual({ code: 7, err: '' });
    }
  });

  test.each(['exit-in-initialize', 'exit-while-worker-initializes'])('while a model loads: %s', async (how) => {
    // The library itself is loaded within a few milliseconds, somewhere in the first 100.
    const often = Array.from({ length: thorough ? 40 : 8 }, (_, i) => [how, bert, String(i * (thorough ? 3 : 15))]);
    const large = hasShared ? [0, 20, 100, 250].map((after) => [how, miniLm, String(after)]) : [];
    const exits = [...often, ...large];
    for (let i = 0; i < exits.length; i += 2) {
      const ended = await Promise.all(exits.slice(i, i + 2).map((args) => run(program('exit.cjs'), args)));
      for (const { code, err } of ended) expect({ code, err }).toEqual({ code: 7, err: '' });
    }
  });

  test('after an uncaught exception, with the usual code and message', async () => {
    const { code, err } = await run(program('exit.cjs'), ['throw', bert, '10']);
    expect(code).toBe(1);
    expect(err).toContain('on purpose');
  });

  test('by itself when the work is done', async () => {
    expect(await run(program('exit.cjs'), ['return', bert, '0'])).toMatchObject({ code: 7, err: '' });
  });

  test.runIf(hasShared)('with a large model too', async () => {
    for (let i = 0; i < (thorough ? 10 : 3); i++) {
      expect(await run(program('exit.cjs'), ['exit', miniLm, String(i * 13)])).toMatchObject({ code: 7, err: '' });
    }
  });
});

describe('worker threads', () => {
  const start = (workerData: object) => new Worker(program('worker.cjs'), { workerData: { modelPath: bert, ...workerData } });
  const ended = (worker: Worker) => new Promise<number>((resolve) => worker.on('exit', resolve));
  const message = (worker: Worker) => new Promise<unknown>((resolve, reject) => worker.on('message', resolve).on('error', reject));

  test('several at once, with and without cleanup, give the same vectors', async () => {
    const input = texts(20);
    const expected = await (await ready({ modelPath: bert })).embed(input);
    const workers = Array.from({ length: 6 }, (_, i) => start({ texts: input, tidy: i % 2 === 0 }));
    const exits = workers.map(ended);
    for (const data of await Promise.all(workers.map(message))) {
      expect(distance(data as Float32Array, expected.data)).toBeLessThanOrEqual(1e-6);
    }
    expect(await Promise.all(exits)).toEqual(Array(6).fill(0));
  });

  test('terminated in the middle of inference, and the others go on', async () => {
    const generator = await ready({ modelPath: bert });
    for (let i = 0; i < 10; i++) {
      const worker = start({ endless: true });
      await message(worker);
      await new Promise((resolve) => setTimeout(resolve, i * 3));
      await worker.terminate();
      expect((await generator.embed(['still here'])).rows).toBe(1);
    }
  });
});

test('workers terminated while a model loads or is freed', async () => {
  for (let i = 0; i < 30; i++) {
    const worker = new Worker(program('worker.cjs'), { workerData: { modelPath: bert, texts: ['a'], tidy: true } });
    await new Promise((resolve) => worker.once('online', resolve));
    await new Promise((resolve) => setTimeout(resolve, i * 2));
    await worker.terminate();
  }
  expect((await (await ready({ modelPath: bert })).embed(['still here'])).rows).toBe(1);
});

describe('the runtime library', () => {
  const require = createRequire(import.meta.url);
  const platform = join(root, 'npm', host);
  const library = readdirSync(platform).find((name) => /onnxruntime\.(so|dylib|dll)$/.test(name))!;

  test.each(['ours', 'theirs'])('lives beside another onnxruntime-node, %s first', async (first) => {
    const version = (require('onnxruntime-node/package.json') as { version: string }).version;
    expect(version).not.toBe(JSON.parse(readFileSync(join(root, 'onnxruntime.json'), 'utf8')).version);
    const { code, out, err } = await run(program('two-runtimes.cjs'), [first, bert]);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const results = JSON.parse(out) as number[][];
    expect(results[0]).toEqual(results[2]);
    expect(results.map((result) => result.length)).toEqual(first === 'ours' ? [32, 3, 32] : [3, 32, 3]);
  });

  /** An installation of its own, with a damaged library. */
  function installation(damage: (library: string) => void): string {
    const directory = mkdtempSync(join(tmpdir(), 'embedcore-library-'));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    const binary = join(directory, 'npm', host);
    mkdirSync(binary, { recursive: true });
    cpSync(join(root, 'dist'), join(directory, 'dist'), { recursive: true });
    copyFileSync(join(root, 'package.json'), join(directory, 'package.json'));
    for (const name of [`embedcore.${host}.node`, library]) copyFileSync(join(platform, name), join(binary, name));
    damage(join(binary, library));
    writeFileSync(
      join(directory, 'main.cjs'),
      `const { OptimizedEmbeddingGenerator } = require('./dist');
       new OptimizedEmbeddingGenerator({ modelPath: ${JSON.stringify(bert)} }).initialize()
         .then(() => console.log('loaded'), (error) => console.log(error.code, error.message));`,
    );
    return join(directory, 'main.cjs');
  }

  test.each<[string, (file: string) => void, RegExp]>([
    ['whole', () => {}, /^loaded/],
    ['missing', (file) => rmSync(file), /MODEL_INIT_FAILED.*cannot be read/],
    ['truncated', (file) => truncateSync(file, 5_000_000), /MODEL_INIT_FAILED.*damaged.*reinstall/],
    ['not a library', (file) => writeFileSync(file, 'x'.repeat(10_000)), /MODEL_INIT_FAILED.*damaged/],
  ])('is checked before it is loaded: %s', async (_name, damage, expected) => {
    const { code, out, err } = await run(installation(damage), []);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out).toMatch(expected);
  });

  test.runIf(process.platform === 'linux')('of the user is checked, too', async () => {
    const script = installation((file) => truncateSync(file, 5_000_000));
    const own = join(dirname(script), 'npm', host, library);
    expect((await run(script, [], { ORT_DYLIB_PATH: join(platform, library) })).out).toMatch(/^loaded/);
    for (const [path, expected] of [
      [own, /ORT_DYLIB_PATH.*not a whole shared library/],
      ['/nowhere/lib.so', /ORT_DYLIB_PATH/],
      [script, /not a whole shared library/],
      [join(platform, `embedcore.${host}.node`), /could not be loaded/],
    ] as const) {
      const { code, out } = await run(script, [], { ORT_DYLIB_PATH: path });
      expect(code).toBe(0);
      expect(out).toMatch(expected);
    }
  });
});

test('the event loop goes on while a long call runs', async () => {
  const generator = await ready({ modelPath: bert });
  let turns = 0;
  const timer = setInterval(() => turns++, 10);
  const started = performance.now();
  await generator.generateEmbeddings(texts(5000));
  const ms = performance.now() - started;
  clearInterval(timer);
  // No timing is asserted, only that timers fired throughout; benchmark/event-loop.mjs measures the delay.
  expect(turns).toBeGreaterThan(ms / 100);
});
