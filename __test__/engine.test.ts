// The two engines that compute models: the same vectors by both, and which of them is chosen.
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { CrossEncoder, MultiVectorEncoder, OptimizedEmbeddingGenerator, SparseEncoder, type CallOptions, type GeneratorOptions } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { copyOf, cosine, distance, failure, host, model, ready as readyWith, root, runProgram, texts, thorough, withExternalData } from './support';

/** With the choice that users have. */
const ready = (options: GeneratorOptions) => readyWith({ engine: 'auto', ...options });

const pins = JSON.parse(readFileSync(join(root, 'openvino.json'), 'utf8')) as {
  version: string;
  platforms: Record<string, { package: string; files: { file: string }[] }>;
};
const name = `openvino-${process.platform}-${process.arch}`;
const libraries = Object.values(pins.platforms).find((platform) => platform.package === name)?.files.map(({ file }) => file) ?? [];
const folder = join(root, 'npm', name);
/** Whether `scripts/fetch_openvino.py` has been run, so that there is a second engine. */
const installed = libraries.length > 0 && libraries.every((file) => existsSync(join(folder, file)));

/** Whether this processor has bf16: asking for it is refused where it has not. */
const bf16 = installed && (await new OptimizedEmbeddingGenerator({ modelPath: model('bert-mean'), engine: 'openvino', precision: 'bf16' }).initialize().then(() => true, () => false));

const bert = model('bert-mean');
const openvino = (options: GeneratorOptions = {}): GeneratorOptions => ({ modelPath: bert, engine: 'openvino', precision: 'fp32', ...options });
const info = (generator: OptimizedEmbeddingGenerator) => generator.getModelInfo();

interface Golden {
  name: string;
  options: Pick<GeneratorOptions, 'pooling' | 'normalize' | 'dimensions' | 'prompts' | 'promptName'> & { inputType?: 'document' | 'query' };
  dimensions: number;
  tolerance: number;
  texts: string[];
  vectors: number[][];
}
const golden = JSON.parse(readFileSync(join(root, 'fixtures', 'golden.json'), 'utf8')) as { models: Golden[] };

/** The bytes of a library as if it were for another processor. */
function otherArchitecture(bytes: Buffer): Buffer {
  // e_machine of ELF: 62 is x86-64, 183 is AArch64. Of other formats, any other byte will do.
  bytes.writeUInt8(bytes.readUInt8(18) === 62 ? 183 : 62, 18);
  return bytes;
}

/** An installation of its own: the addon, ONNX Runtime, and as much of OpenVINO as is wanted. Gives the path of a program. */
function installation(damage: (folder: string) => void, options: GeneratorOptions, body = ''): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-engine-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  cpSync(join(root, 'dist'), join(directory, 'dist'), { recursive: true });
  copyFileSync(join(root, 'package.json'), join(directory, 'package.json'));
  for (const [from, files] of [[host, readdirSync(join(root, 'npm', host))], [name, installed ? [...libraries, 'package.json'] : []]] as const) {
    mkdirSync(join(directory, 'npm', from), { recursive: true });
    for (const file of files) cpSync(join(root, 'npm', from, file), join(directory, 'npm', from, file));
  }
  damage(join(directory, 'npm', name));
  writeFileSync(
    join(directory, 'main.cjs'),
    `const { OptimizedEmbeddingGenerator } = require('./dist');
     (async () => {
       const generator = new OptimizedEmbeddingGenerator(${JSON.stringify({ modelPath: bert, ...options })});
       await generator.initialize();
       const { rows } = await generator.embed(['a', 'reads a file']);
       const { engine, precision, engineReason } = generator.getModelInfo();
       ${body}
       console.log(JSON.stringify({ rows, engine, precision, engineReason }));
     })().catch((error) => console.log(JSON.stringify({ code: error.code, message: error.message })));`,
  );
  return join(directory, 'main.cjs');
}

async function answer(script: string, env: NodeJS.ProcessEnv = {}): Promise<Record<string, unknown>> {
  const { code, out, err } = await runProgram(script, [], env);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  return JSON.parse(out) as Record<string, unknown>;
}

test('ONNX Runtime is the reference, and asked for by name changes nothing', async () => {
  const [named, plain] = [await ready({ modelPath: bert, engine: 'onnxruntime' }), await ready({ modelPath: bert, precision: 'fp32', engine: 'onnxruntime' })];
  expect(info(named)).toMatchObject({ engine: 'onnxruntime', precision: 'fp32', engineReason: expect.stringContaining('asks for it') });
  const automatic = await ready({ modelPath: bert });
  expect(info(automatic)).toMatchObject({ engine: 'onnxruntime', precision: 'fp32', fingerprint: info(named).fingerprint });
  expect(info(plain).fingerprint).toBe(info(named).fingerprint);
  expect((await automatic.embed(['a'])).data).toEqual((await named.embed(['a'])).data);
});

test('the built-in model is not tried with another engine', async () => {
  expect(info(await ready({}))).toMatchObject({ engine: 'onnxruntime', engineReason: expect.stringContaining('tokenizer') });
});

test.each<[GeneratorOptions, string]>([
  [{ engine: 'cuda' as never }, 'engine'],
  [{ engine: '' as never }, 'engine'],
  [{ engine: null as never }, 'engine'],
  [{ engine: ['openvino'] as never }, 'engine'],
  [{ precision: 'fp16' as never }, 'precision'],
  [{ precision: 16 as never }, 'precision'],
  [{ mixPrecision: 'yes' as never }, 'mixPrecision'],
  [{ mixPrecision: 1 as never }, 'mixPrecision'],
])('%j is refused when the generator is made', async (options, option) => {
  expect(await failure(() => new OptimizedEmbeddingGenerator(options))).toMatchObject({ code: 'INVALID_CONFIG', details: { option } });
});

test.each<[GeneratorOptions, string, RegExp]>([
  [{ engine: 'onnxruntime', precision: 'bf16' }, 'precision', /'bf16'.*'openvino'/],
  [{ engine: 'openvino', executionProviders: ['cuda', 'cpu'] }, 'engine', /executionProviders names 'cuda'/],
  [{ engine: 'openvino', modelPath: 'ollama:nomic' }, 'engine', /server/],
  [{ precision: 'bf16', modelPath: 'ollama:nomic' }, 'precision', /server/],
])('%j contradicts itself', async (options, option, message) => {
  const error = await failure(() => new OptimizedEmbeddingGenerator({ modelPath: bert, ...options }).initialize());
  expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option }, message: expect.stringMatching(message) });
});

test('without its package it is refused where it is asked for, and left alone where it is not', async () => {
  const remove = (path: string) => rmSync(path, { recursive: true, force: true });
  expect(await answer(installation(remove, { engine: 'openvino' }))).toMatchObject({ code: 'MODEL_INIT_FAILED', message: expect.stringMatching(/embedcore-openvino.* is not installed|builds? none/) });
  for (const options of [{}, { engine: 'auto' }, { precision: 'bf16' }] as GeneratorOptions[]) {
    expect(await answer(installation(remove, options))).toMatchObject({ rows: 2, engine: 'onnxruntime', precision: 'fp32', engineReason: expect.stringMatching(/is not installed|build none/) });
  }
});

describe.runIf(installed)('OpenVINO (there once scripts/fetch_openvino.py was run)', () => {
  describe.each(golden.models)('$name $options', ({ name, options, dimensions, texts, vectors }) => {
    const { inputType, ...modelOptions } = options;
    const callOptions: CallOptions = inputType ? { inputType } : {};
    // Quantised on the fly: each engine rounds as it likes.
    const tolerance = name === 'bert-dynamic-int8' ? 1e-3 : 1e-4;

    test('in fp32, alone and in any batch', async () => {
      const generator = await ready(openvino({ modelPath: model(name), cache: false, ...modelOptions }));
      expect(info(generator)).toMatchObject({ engine: 'openvino', precision: 'fp32', dimensions, runtime: expect.stringContaining(`OpenVINO ${pins.version}`) });
      const many = await generator.embed([...texts, ...texts.toReversed()], callOptions);
      for (const [i, text] of texts.entries()) {
        expect(distance(many.row(i), vectors[i]!), text).toBeLessThanOrEqual(tolerance);
        const alone = (await generator.embed([text], callOptions)).row(0);
        expect(distance(many.row(2 * texts.length - 1 - i), alone), text).toBeLessThanOrEqual(name === 'bert-dynamic-int8' ? 0 : 1e-5);
      }
    });

    test.runIf(bf16)('in bf16', async () => {
      const generator = await ready(openvino({ modelPath: model(name), precision: 'bf16', ...modelOptions }));
      const matrix = await generator.embed(texts, callOptions);
      for (const [i, text] of texts.entries()) expect(cosine(matrix.row(i), vectors[i]!), text).toBeGreaterThanOrEqual(0.999);
    });
  });

  test('weights beside the graph are read', async () => {
    const directory = copyOf('bert-mean');
    const path = join(directory, 'onnx', 'model.onnx');
    const whole = await ready(openvino());
    const { graph, data } = withExternalData(readFileSync(path), 'model.onnx_data');
    writeFileSync(path, graph);
    writeFileSync(join(directory, 'onnx', 'model.onnx_data'), data);
    const parted = await ready(openvino({ modelPath: directory }));
    expect((await parted.embed(['a'])).data).toEqual((await whole.embed(['a'])).data);
    expect(info(parted).fingerprint).not.toBe(info(whole).fingerprint);
  });

  test('is part of the embedding space, unless precisions may mix', async () => {
    const of = async (options: GeneratorOptions) => info(await ready({ modelPath: bert, ...options })).fingerprint;
    const reference = await of({ engine: 'onnxruntime' });
    const ways: GeneratorOptions[] = [{ engine: 'openvino', precision: 'fp32' }, ...(bf16 ? [{ engine: 'openvino', precision: 'bf16' } as const] : [])];
    const apart = await Promise.all(ways.map(of));
    expect(new Set([reference, ...apart]).size).toBe(1 + ways.length);
    for (const way of ways) expect(await of({ ...way, mixPrecision: true })).toBe(reference);
    expect(await of({ engine: 'onnxruntime', mixPrecision: true })).toBe(reference);
  });

  test('what is in a cache is of one precision', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'embedcore-engine-'));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    const cache = { persistPath: join(directory, 'cache.sqlite') };
    const hits = async (options: GeneratorOptions) => {
      const generator = new OptimizedEmbeddingGenerator({ modelPath: bert, cache, ...options });
      await generator.initialize();
      const { fromCache } = await generator.embed(['a', 'b']);
      await generator.cleanup();
      return [...fromCache];
    };
    expect(await hits({ engine: 'onnxruntime' })).toEqual([0, 0]);
    expect(await hits(openvino())).toEqual([0, 0]);
    expect(await hits(openvino())).toEqual([1, 1]);
    expect(await hits(openvino({ mixPrecision: true }))).toEqual([1, 1]);
  });

  test('in one process with the other one, at the same time', async () => {
    const [one, other] = [await ready({ modelPath: bert, engine: 'onnxruntime', cache: false }), await ready(openvino({ cache: false }))];
    const input = texts(400);
    const [ours, theirs] = await Promise.all([one.embed(input), other.embed(input)]);
    for (let i = 0; i < input.length; i++) expect(distance(ours.row(i), theirs.row(i))).toBeLessThanOrEqual(1e-4);
  });

  test('a model is replaced, and freed, while calls go on', async () => {
    const generator = await ready(openvino({ cache: false }));
    for (let i = 0; i < 5; i++) {
      const call = generator.embed(texts(300));
      await generator.initialize(model(i % 2 ? 'bert-mean' : 'bert-cls'));
      expect((await call).rows).toBe(300);
    }
  });

  test('an abort ends the call, and the next one is right', async () => {
    const generator = await ready(openvino({ cache: false }));
    const expected = await generator.embed(['after all']);
    for (let i = 0; i < 10; i++) {
      const controller = new AbortController();
      const call = failure(() => generator.embed(texts(3000), { signal: controller.signal }));
      setTimeout(() => controller.abort(), 5 * i);
      expect(await call).toMatchObject({ code: 'ABORTED' });
      expect((await generator.embed(['after all'])).data).toEqual(expected.data);
    }
  });

  test('a stream of many shapes stays within its memory', async () => {
    const generator = await ready(openvino({ cache: false, memoryLimit: Math.ceil(process.memoryUsage().rss / 2 ** 20) + 600 }));
    let count = 0;
    for await (const vector of generator.stream(Array.from({ length: 600 }, (_, i) => 'word '.repeat(1 + (i * 7) % 200) + i))) count += vector.length > 0 ? 1 : 0;
    expect(count).toBe(600);
  });

  test.runIf(bf16)('without a word about the precision, bf16 where it agrees and is faster', async () => {
    const { precision, engineReason } = info(await ready({ modelPath: bert, engine: 'openvino' }));
    expect(['fp32', 'bf16']).toContain(precision);
    expect(engineReason).toMatch(/OpenVINO in bf16.*(times as fast|cosine)/);
  });

  describe('models of other kinds', () => {
    const pairs: [string, string][] = [['how is a file read?', 'reads a file'], ['how is a file read?', 'the cat sleeps on the mat'], ['a', 'b']];

    async function loaded<T extends { initialize(): Promise<void>; shutdown(): Promise<void> }>(encoder: T): Promise<T> {
      onTestFinished(() => encoder.shutdown());
      await encoder.initialize();
      return encoder;
    }

    test('give the same by both engines in fp32, and are spaces of their own', async () => {
      const ways = [{ engine: 'onnxruntime' }, { engine: 'openvino', precision: 'fp32' }] as const;
      const [ours, theirs] = await Promise.all(ways.map((way) => loaded(new CrossEncoder({ modelPath: model('cross-encoder'), activation: 'none', ...way }))));
      expect(distance(await ours!.score(pairs), await theirs!.score(pairs))).toBeLessThanOrEqual(1e-4);
      expect(theirs!.getModelInfo()).toMatchObject({ engine: 'openvino', precision: 'fp32' });
      expect(theirs!.getModelInfo().fingerprint).not.toBe(ours!.getModelInfo().fingerprint);
      const [weighs, weighsToo] = await Promise.all(ways.map((way) => loaded(new SparseEncoder({ modelPath: model('splade'), ...way }))));
      const dense = async (encoder: SparseEncoder) => {
        const [vector] = await encoder.embed(['reads a file']);
        const all = new Float32Array(encoder.getModelInfo().dimensions);
        vector!.indices.forEach((index, at) => (all[index] = vector!.values[at]!));
        return all;
      };
      expect(distance(await dense(weighs!), await dense(weighsToo!))).toBeLessThanOrEqual(1e-4);
      const [looks, looksToo] = await Promise.all(ways.map((way) => loaded(new MultiVectorEncoder({ modelPath: model('colbert'), ...way }))));
      expect(distance((await looks!.embed(['reads a file'])).data, (await looksToo!.embed(['reads a file'])).data)).toBeLessThanOrEqual(1e-4);
    });

    test('are tried as vectors of texts are: by their scores, with the figures', async () => {
      const { engine, precision, engineReason, fingerprint } = (await loaded(new CrossEncoder({ modelPath: model('heavy-cross') }))).getModelInfo();
      const reference = (await loaded(new CrossEncoder({ modelPath: model('heavy-cross'), engine: 'onnxruntime' }))).getModelInfo();
      expect(reference).toMatchObject({ engine: 'onnxruntime', engineReason: expect.stringContaining('asks for it') });
      // Which one is faster here, the machine decides.
      if (engine === 'openvino') {
        expect(engineReason).toMatch(new RegExp(`^OpenVINO in ${precision} is [\\d.]+ times as fast as ONNX Runtime in fp32 here, and its scores differ by (0|0\\.00\\d*|0\\.01) at the most$`));
        expect(fingerprint).not.toBe(reference.fingerprint);
      } else {
        expect(engineReason).toMatch(/OpenVINO in fp32 is [\d.]+ times as fast as ONNX Runtime in fp32 here, and 1.1 times is needed/);
        expect(fingerprint).toBe(reference.fingerprint);
      }
    });

    test('are not tried where there is nothing to gain', async () => {
      for (const encoder of [new CrossEncoder({ modelPath: model('cross-encoder') }), new SparseEncoder({ modelPath: model('splade') }), new MultiVectorEncoder({ modelPath: model('colbert') })]) {
        expect((await loaded(encoder)).getModelInfo()).toMatchObject({ engine: 'onnxruntime', engineReason: expect.stringContaining('nothing to gain') });
      }
    });

    test.each([['decoder-cache', OptimizedEmbeddingGenerator], ['causal-reranker', CrossEncoder]] as const)('%s, a decoder with a cache, is not even compiled', async (name, type) => {
      const error = await failure(() => loaded(new type({ modelPath: model(name), engine: 'openvino', precision: 'fp32' })));
      expect([error.code, error.message]).toEqual(['MODEL_INIT_FAILED', expect.stringContaining('left to ONNX Runtime')]);
    });
  });

  describe('chosen automatically', () => {
    const automatic = async (name: string, options: GeneratorOptions = {}) => info(await ready({ modelPath: model(name), ...options }));

    test('where it is faster and agrees, with the figures', async () => {
      const { engine, precision, engineReason, runtime } = await automatic('heavy-mean', { engine: 'auto', precision: 'auto' });
      // Which one is faster here, the machine decides.
      if (engine === 'openvino') {
        expect(runtime).toMatch(/^OpenVINO/);
        expect(engineReason).toMatch(new RegExp(`^OpenVINO in ${precision} is [\\d.]+ times as fast as ONNX Runtime in fp32 here, and agrees to a cosine of (1|0\\.9999\\d*)$`));
      } else {
        expect(engineReason).toMatch(/OpenVINO in fp32 is [\d.]+ times as fast as ONNX Runtime in fp32 here, and 1.1 times is needed/);
      }
    });

    test.runIf(bf16)('not where its vectors are others', async () => {
      const { precision, engineReason } = await automatic('heavy-sensitive', { precision: 'bf16' });
      expect(precision).toBe('fp32');
      expect(engineReason).toMatch(/OpenVINO in bf16: its vectors agree to a cosine of -?[\d.]+, and 0.9999 is needed/);
      expect((await automatic('heavy-sensitive')).precision).toBe('fp32');
    });

    test('not where it lacks an operator, which is said', async () => {
      expect(await automatic('heavy-operator')).toMatchObject({ engine: 'onnxruntime', engineReason: expect.stringMatching(/OpenVINO cannot compute it.*Inverse/s) });
      const error = await failure(() => new OptimizedEmbeddingGenerator({ modelPath: model('heavy-operator'), engine: 'openvino' }).initialize());
      expect(error).toMatchObject({ code: 'MODEL_INIT_FAILED', message: expect.stringMatching(/heavy-operator.*OpenVINO cannot compute it.*Inverse/s) });
      expect(error.message).not.toMatch(/\n|Exception from|src\//);
    });

    test('not where a trial fails, which is no reason to fail', async () => {
      // Says more tokens than it has positions for: what is shorter works as ever.
      const directory = copyOf('bert-mean');
      copyFileSync(join(model('bert-cls'), 'model.onnx'), join(directory, 'onnx', 'model.onnx'));
      const generator = await ready({ modelPath: directory });
      expect(info(generator)).toMatchObject({ engine: 'onnxruntime', engineReason: expect.stringMatching(/a trial failed: /) });
      expect((await generator.embed(['a'])).rows).toBe(1);
    });

    test('not where there is nothing to gain, nor where another processor computes', async () => {
      expect(await automatic('bert-mean')).toMatchObject({ engine: 'onnxruntime', engineReason: expect.stringMatching(/nothing to gain/) });
      expect(await automatic('bert-mean', { executionProviders: ['cpu'] })).toMatchObject({ engine: 'onnxruntime' });
    });

    test('the same one in the next process, by what is kept beside the cache, and no other one than asked for', async () => {
      const directory = mkdtempSync(join(tmpdir(), 'embedcore-engine-'));
      onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
      const program = (options: GeneratorOptions) => installation(() => {}, { modelPath: model('heavy-mean'), stateDir: directory, ...options });
      const first = await answer(program({}));
      const kept = readdirSync(directory).filter((file) => file.startsWith('engine-'));
      expect(kept).toHaveLength(1);
      const file = join(directory, kept[0]!);
      const found = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
      expect(await answer(program({}))).toEqual(first);
      // What is kept decides: the same with another reason comes from there, and what cannot be meant is as if it were not there.
      writeFileSync(file, JSON.stringify({ ...found, way: 'openvino fp32', reason: 'as before' }));
      expect(await answer(program({}))).toMatchObject({ engine: 'openvino', precision: 'fp32', engineReason: 'as before' });
      expect(await answer(program({ engine: 'onnxruntime' }))).toMatchObject({ engine: 'onnxruntime' });
      for (const damaged of ['', '{', JSON.stringify({ ...found, way: 'cuda fp8' }), JSON.stringify({ ...found, place: {} }), JSON.stringify({ ...found, more: 1 })]) {
        writeFileSync(file, damaged);
        expect((await answer(program({}))).engineReason).not.toBe('as before');
      }
      expect(await answer(program({ stateDir: false }))).toMatchObject({ rows: 2 });
    });

    test('with a home and a state directory that cannot be written', async () => {
      const home = mkdtempSync(join(tmpdir(), 'embedcore-engine-'));
      onTestFinished(() => rmSync(home, { recursive: true, force: true }));
      chmodSync(home, 0o500);
      const program = installation(() => {}, { modelPath: model('heavy-mean'), stateDir: join(home, 'file', 'state') });
      writeFileSync(join(home, 'file'), '');
      expect(await answer(program, { HOME: home, XDG_CACHE_HOME: home, TMPDIR: home })).toMatchObject({ rows: 2 });
      expect(await answer(installation(() => {}, openvino()), { HOME: home, XDG_CACHE_HOME: home })).toMatchObject({ engine: 'openvino' });
      expect(readdirSync(home)).toEqual(['file']);
    });
  });

  test.each<[string, (folder: string) => void, RegExp]>([
    ['missing', (path) => rmSync(join(path, libraries[1]!)), /cannot be read.*reinstall/],
    ['truncated', (path) => truncateSync(join(path, libraries[2]!), 5_000_000), /damaged or of another version.*reinstall/],
    ['of another version', (path) => writeFileSync(join(path, libraries[0]!), readFileSync(join(path, libraries[3]!))), /another version.*reinstall/],
    ['of another architecture', (path) => writeFileSync(join(path, libraries[0]!), otherArchitecture(readFileSync(join(path, libraries[0]!)))), /another version.*reinstall/],
    ['empty', (path) => writeFileSync(join(path, libraries[4]!), ''), /another version.*reinstall/],
    ['a directory', (path) => { rmSync(join(path, libraries[4]!)); mkdirSync(join(path, libraries[4]!)); }, /cannot be read.*reinstall/],
  ])('a library that is %s is refused, and the other engine computes', async (_what, damage, message) => {
    expect(await answer(installation(damage, { engine: 'openvino' }))).toMatchObject({ code: 'MODEL_INIT_FAILED', message: expect.stringMatching(message) });
    const options: GeneratorOptions = { modelPath: model('heavy-mean') };
    expect(await answer(installation(damage, options))).toMatchObject({ engine: 'onnxruntime', engineReason: expect.stringMatching(message) });
  });

  describe('the process ends cleanly', () => {
    const program = join(root, '__test__', 'programs', 'exit.cjs');
    const options = JSON.stringify({ engine: 'openvino', precision: 'fp32' });
    const times = thorough ? 100 : 10;

    test.each<[string, string, number]>([
      ['exit', 'bert-mean', 3],
      ['exit', 'heavy-mean', 7],
      ['exit-in-initialize', 'heavy-mean', 5],
      ['exit-while-worker-initializes', 'bert-mean', 5],
    ])(`%s of %s, ${times} times`, { timeout: 600_000 }, async (how, name, step) => {
      for (let i = 0; i < times; i += 2) {
        const ends = [i, i + 1].map((nth) => runProgram(program, [how, model(name), String((nth * step) % 400), options]));
        for (const { code, err } of await Promise.all(ends)) expect({ code, err }).toEqual({ code: 7, err: '' });
      }
    });

    test('by itself when the work is done, and after an exception', async () => {
      expect(await runProgram(program, ['return', bert, '0', options])).toMatchObject({ code: 7, err: '' });
      expect(await runProgram(program, ['throw', bert, '10', options])).toMatchObject({ code: 1, err: expect.stringContaining('on purpose') });
    });
  });

  test('worker threads, at once and terminated in the middle', async () => {
    const start = (workerData: object) =>
      new Worker(join(root, '__test__', 'programs', 'worker.cjs'), { workerData: { modelPath: bert, options: { engine: 'openvino', precision: 'fp32' }, ...workerData } });
    const message = (worker: Worker) => new Promise<unknown>((resolve, reject) => worker.on('message', resolve).on('error', reject));
    const ended = (worker: Worker) => new Promise<number>((resolve) => worker.on('exit', resolve));
    const generator = await ready(openvino());
    const input = texts(20);
    const expected = await generator.embed(input);
    const workers = Array.from({ length: 4 }, (_, i) => start({ texts: input, tidy: i % 2 === 0 }));
    const exits = workers.map(ended);
    for (const data of await Promise.all(workers.map(message))) expect(distance(data as Float32Array, expected.data)).toBeLessThanOrEqual(1e-5);
    expect(await Promise.all(exits)).toEqual([0, 0, 0, 0]);
    for (let i = 0; i < 5; i++) {
      const worker = start({ endless: true });
      await message(worker);
      await new Promise((resolve) => setTimeout(resolve, i * 5));
      await worker.terminate();
      expect((await generator.embed([`still here ${i}`])).rows).toBe(1);
    }
  });
});
