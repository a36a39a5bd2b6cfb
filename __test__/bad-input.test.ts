import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  EmbeddingError,
  ModelInitializationError,
  OptimizedEmbeddingGenerator,
  prepareText,
  type Annotation,
  type CallOptions,
  type GeneratorOptions,
} from 'embedcore';
import { describe, expect, test } from 'vitest';

import { copyOf, failure, model, ready, root } from './support';

const bert = { modelPath: model('bert-mean') };

describe('options', () => {
  test.each<[string, unknown, string]>([
    ['options', null, 'not an object'],
    ['modelPath', 5, '`modelPath`'],
    ['modelPath', '', '`modelPath`'],
    ['pooling', 'sum', "'mean' or 'cls' or 'last_token' or 'max'"],
    ['normalize', 'yes', 'true or false'],
    ['revision', 5, '`revision`'],
    ['cacheDir', '', '`cacheDir`'],
    ['localFilesOnly', 'yes', 'true or false'],
    ['dimensions', 0, 'whole number'],
    ['dimensions', 1.5, 'whole number'],
    ['maxLength', NaN, 'NaN'],
    ['maxLength', Infinity, 'Infinity'],
    ['intraOpThreads', -1, 'whole number'],
    ['prompts', 'query: ', 'an object'],
    ['prompts', { search: 'x' }, 'prompts.search'],
    ['modelpath', 'x', 'no such option'],
    ['pooling', () => 'mean', 'a function'],
  ])('%s: %s', async (name, value, expected) => {
    const options = (name === 'options' ? value : { [name]: value }) as GeneratorOptions;
    const error = await failure(() => new OptimizedEmbeddingGenerator(options));
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error).toMatchObject({ code: 'INVALID_CONFIG', retryable: false });
    expect(error.message).toContain(expected);
  });

  test.each<[string, unknown]>([
    ['onError', 'ignore'],
    ['inputType', 'passage'],
    ['timeoutMs', 0],
    ['timeoutMs', -5],
    ['batchSize', 0],
    ['signal', {}],
    ['memoryLimit', -1],
    ['progressCallback', 'x'],
    ['unknown', 1],
  ])('of a call, %s: %s', async (name, value) => {
    const generator = await ready(bert);
    const error = await failure(() => generator.embed(['a'], { [name]: value } as CallOptions));
    expect(error).toMatchObject({ code: 'INVALID_CONFIG' });
    expect(error.message).toContain(name);
    expect((await generator.embed(['fine'])).rows).toBe(1);
  });

  test.each([null, 5, 'fast', []])('of a call that are no object: %s', async (options) => {
    const generator = await ready(bert);
    expect(await failure(() => generator.embed(['a'], options as CallOptions))).toMatchObject({ code: 'INVALID_CONFIG' });
  });

  test('a pooling that the graph does not leave to us', async () => {
    const sentence = copyOf('demo');
    expect(await failure(() => ready({ modelPath: sentence, pooling: 'cls' }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'pooling' } });
  });

  test('limits that the model does not have', async () => {
    expect((await failure(() => ready({ ...bert, maxLength: 100_000 }))).message).toContain('100000');
    expect((await failure(() => ready({ ...bert, dimensions: 33 }))).message).toContain('33');
    expect((await failure(() => ready({ ...bert, maxLength: 2 }))).message).toContain('2 tokens');
  });
});

describe('inputs', () => {
  test.each<[string, unknown, string]>([
    ['no array', 'a text', 'not an array'],
    ['nothing', undefined, 'not an array'],
    ['a number among texts', ['a', 5], 'Text 1'],
    ['an annotation among texts', ['a', { nodeId: 'b' }], 'Text 1'],
    ['a text among annotations', [{ nodeId: 'b' }, 'a'], 'Annotation 1'],
    ['no node id', [{ signature: 'x' }], 'Annotation 0.nodeId'],
    ['a number as a summary', [{ nodeId: 'b', summary: 5 }], 'Annotation 0.summary'],
    ['null', [null], 'Annotation 0'],
    ['an empty text', ['a', ''], 'Text 1 is empty'],
    ['white space', [' \n\t '], 'Text 0 is empty'],
  ])('%s', async (_name, inputs, expected) => {
    const generator = await ready(bert);
    const error = await failure(() => generator.generateEmbeddings(inputs as string[]));
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(error.message).toContain(expected);
    expect((await generator.embed(['fine'])).rows).toBe(1);
  });

  test('a text of 10 MB', async () => {
    const generator = await ready(bert);
    const error = await failure(() => generator.embed(['a', 'word '.repeat(2 << 20)]));
    expect(error).toMatchObject({ code: 'INPUT_TOO_LONG', details: { index: 1, bytes: 10 << 20, limit: 1 << 20 } });
    // Code of that size is cut by the preparation.
    const [result] = await generator.generateEmbeddings([{ nodeId: 'n', signature: '', summary: '', sourceSnippet: 'word '.repeat(2 << 20) }]);
    expect(result!.embedding).toHaveLength(32);
    expect(result!.truncated).toBe(true);
  });

  test('100,000 texts', async () => {
    const generator = await ready(bert);
    const input = Array.from({ length: 100_000 }, (_, i) => `text ${i}`);
    const matrix = await generator.embed(input);
    expect(matrix.rows).toBe(100_000);
    const middle = await generator.embed([input[54_321]!]);
    expect(matrix.row(54_321).every((value, i) => Math.abs(value - middle.row(0)[i]!) <= 1e-6)).toBe(true);
  });

  test('rows that do not exist', async () => {
    const matrix = await (await ready(bert)).embed(['a']);
    for (const index of [1, -1, 0.5, NaN]) {
      expect(await failure(() => matrix.row(index))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
  });

  test('prepareText', async () => {
    expect(await failure(() => prepareText(null as unknown as Annotation))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await failure(() => prepareText({ nodeId: 'n', signature: '', summary: '' }, -1))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});

describe('models', () => {
  /** Loads a damaged model and expects a clear error; afterwards the same generator loads a good one. */
  async function refuses(modelPath: string, expected: string | RegExp, options: GeneratorOptions = {}) {
    const generator = new OptimizedEmbeddingGenerator({ modelPath, ...options });
    const error = await failure(() => generator.initialize());
    expect(error).toBeInstanceOf(ModelInitializationError);
    expect(error.code).toBe('MODEL_INIT_FAILED');
    expect(error.message).toMatch(expected);
    expect(generator.isReady()).toBe(false);
    // The same generator loads a good model afterwards.
    await generator.initialize(bert.modelPath);
    expect((await generator.embed(['fine'])).rows).toBe(1);
    await generator.cleanup();
  }

  test('that are not there', async () => {
    await refuses('/nowhere/at/all', /no such file or directory/);
    await refuses(join(model('bert-mean'), 'config.json'), /not an \.onnx file/);
    await refuses(model('bert-no-tokenizer'), /tokenizer\.json/);
    const empty = copyOf('bert-mean');
    rmSync(join(empty, 'onnx'), { recursive: true });
    await refuses(empty, /onnx\/model\.onnx nor model\.onnx/);
    writeFileSync(join(empty, 'other.onnx'), '');
    await refuses(empty, /other\.onnx/);
  });

  test.each<[string, (file: string) => void]>([
    ['empty', (file) => truncateSync(file, 0)],
    ['truncated', (file) => truncateSync(file, Math.floor(readFileSync(file).length / 2))],
    ['random', (file) => writeFileSync(file, Buffer.from(Array.from({ length: 50_000 }, (_, i) => (i * 7919 + 13) % 251)))],
    ['a directory', (file) => (rmSync(file), mkdirSync(file))],
  ])('with a graph or a tokenizer that is %s', async (_name, damage) => {
    const graph = copyOf('bert-mean');
    damage(join(graph, 'onnx', 'model.onnx'));
    await refuses(graph, /model\.onnx|neither/);
    const tokenizer = copyOf('bert-mean');
    damage(join(tokenizer, 'tokenizer.json'));
    await refuses(tokenizer, /tokenizer\.json/);
  });

  test.each(['config.json', 'modules.json', '1_Pooling/config.json', 'sentence_bert_config.json', 'tokenizer_config.json'])(
    'with a %s that is not JSON',
    async (file) => {
      const damaged = copyOf('bert-mean');
      writeFileSync(join(damaged, file), '{"max_');
      await refuses(damaged, file);
      writeFileSync(join(damaged, file), '7');
      await refuses(damaged, file);
    },
  );

  test('with other inputs, no usable output, or weights that are not numbers', async () => {
    await refuses(model('bert-wrong-input'), /pixel_values/);
    await refuses(model('bert-no-output'), /it has logits/);
    await refuses(model('bert-nan'), /not finite/);
  });

  test('that do not say how they pool', async () => {
    await refuses(model('roberta-mean'), /pass pooling: 'mean' \| 'cls' \| 'last_token' \| 'max' and normalize: true \| false/);
    await refuses(model('roberta-mean'), /pass normalize: true \| false/, { pooling: 'mean' });
  });

  test('with modules that are not supported, missing, or outside', async () => {
    const directory = copyOf('bert-dense');
    const modules = join(directory, 'modules.json');
    const entry = (path: string, type: string) => JSON.stringify([{ idx: 0, name: '0', path, type: `sentence_transformers.models.${type}` }]);
    writeFileSync(modules, entry('', 'WordWeights'));
    await refuses(directory, /WordWeights/);
    writeFileSync(modules, entry('9_Dense', 'Dense'));
    await refuses(directory, /9_Dense\/config\.json/);
    writeFileSync(modules, entry('../elsewhere', 'Pooling'));
    await refuses(directory, /outside the model/);
  });

  test('with a dense layer of another shape, or cut off', async () => {
    const directory = copyOf('bert-dense');
    const config = join(directory, '2_Dense', 'config.json');
    const original = readFileSync(config, 'utf8');
    writeFileSync(config, original.replace('"in_features": 32', '"in_features": 4000000000'));
    await refuses(directory, /linear\.weight/);
    writeFileSync(config, original);
    truncateSync(join(directory, '2_Dense', 'model.safetensors'), 100);
    await refuses(directory, /safetensors/);
  });

  test.runIf(process.platform !== 'win32')('that are no regular files', async () => {
    const directory = copyOf('bert-mean');
    for (const file of ['config.json', 'tokenizer.json', 'onnx/model.onnx']) {
      const path = join(directory, file);
      const bytes = readFileSync(path);
      rmSync(path);
      spawnSync('mkfifo', [path]);
      await refuses(directory, /regular file|neither/);
      rmSync(path);
      symlinkSync('/dev/zero', path);
      await refuses(directory, /regular file|neither/);
      rmSync(path);
      writeFileSync(path, bytes);
    }
  });

  test('with a tokenizer that contradicts itself', async () => {
    const directory = copyOf('bert-mean');
    const path = join(directory, 'tokenizer.json');
    const sound = readFileSync(path, 'utf8');
    type Template = { single: object[]; special_tokens: Record<string, { id: string; ids: number[]; tokens: string[] }> };
    const cases: [(template: Template) => void, RegExp][] = [
      [(template) => (template.single = [{ Sequence: { id: 'B', type_id: 0 } }]), /a place for a second one/],
      [(template) => template.single.push({ SpecialToken: { id: '[NONE]', type_id: 0 } }), /\[NONE\]/],
      [(template) => template.special_tokens['[CLS]']!.ids.push(1), /\[CLS\] has 2 ids for 1 tokens/],
      [(template) => (template.special_tokens['[SEP]']!.tokens = []), /\[SEP\] has 1 ids for 0 tokens/],
    ];
    for (const [damage, says] of cases) {
      const tokenizer = JSON.parse(sound) as { post_processor: Template };
      damage(tokenizer.post_processor);
      writeFileSync(path, JSON.stringify(tokenizer));
      await refuses(directory, /tokenizer\.json/);
      await refuses(directory, says);
    }
  });

  test('that make native code panic print nothing, whatever the environment asks for', () => {
    const directory = copyOf('bert-mean');
    const path = join(directory, 'tokenizer.json');
    const tokenizer = JSON.parse(readFileSync(path, 'utf8')) as { post_processor: object };
    // Within a processor that is not looked into.
    tokenizer.post_processor = { type: 'RobertaProcessing', sep: ['[SEP]', 3], cls: ['[CLS]', 2], trim_offsets: true, add_prefix_space: false };
    writeFileSync(path, JSON.stringify({ ...tokenizer, added_tokens: [{ id: 4294967295, content: 'x', single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }] }));
    const code = `const { OptimizedEmbeddingGenerator } = require(${JSON.stringify(root)});
      const generator = new OptimizedEmbeddingGenerator({ modelPath: ${JSON.stringify(directory)} });
      generator.initialize().then(() => generator.embed(['x', 'y'])).then(() => console.log('answered'), (error) => console.log(error.code));`;
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', code], { encoding: 'utf8', env: { ...process.env, RUST_BACKTRACE: '1' } });
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^(MODEL_INIT_FAILED|EMBEDDING_GENERATION_FAILED|answered)$/m);
  });

  test('whose directory vanishes after they were loaded', async () => {
    const directory = copyOf('bert-mean');
    const generator = await ready({ modelPath: directory });
    rmSync(directory, { recursive: true });
    expect((await generator.embed(['still here'])).rows).toBe(1);
    await generator.cleanup();
    expect(await failure(() => generator.initialize())).toMatchObject({ code: 'MODEL_INIT_FAILED' });
  });
});
