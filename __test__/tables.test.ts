import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import type { GeneratorOptions } from 'embedcore';
import { describe, expect, onTestFinished, test, vi } from 'vitest';

import { startHub } from './hub-server';
import { copyOf, distance, failure, model, ready, root } from './support';

/** A safetensors file of numbers of 32 bits, or of other kinds as bytes. */
function tensors(of: Record<string, { dtype?: string; shape: number[]; values: number[] | Buffer; offsets?: [number, number] }>): Buffer {
  const header: Record<string, unknown> = {};
  const data: Buffer[] = [];
  let at = 0;
  for (const [name, { dtype = 'F32', shape, values, offsets }] of Object.entries(of)) {
    const bytes = Buffer.isBuffer(values) ? values : Buffer.from(Float32Array.from(values).buffer);
    header[name] = { dtype, shape, data_offsets: offsets ?? [at, at + bytes.length] };
    data.push(bytes);
    at += bytes.length;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...data]);
}

/** As many tokens as the tokenizer of the fixtures has. */
const TOKENS = 300;
const table = (rows: number, value: (index: number) => number = (index) => Math.sin(index)) => ({
  shape: [rows, 4],
  values: Array.from({ length: rows * 4 }, (_, i) => value(i)),
});

/** A model whose table is another one. */
function withTable(bytes: Buffer): string {
  const directory = copyOf('table-model2vec');
  writeFileSync(join(directory, 'model.safetensors'), bytes);
  return directory;
}

describe('a table of vectors', () => {
  test('says what it is', async () => {
    const modelPath = model('table-model2vec');
    const info = (await ready({ modelPath })).getModelInfo();
    expect(info).toMatchObject({
      architecture: 'static',
      modality: 'text',
      modelPath: join(modelPath, 'model.safetensors'),
      dimensions: 16,
      maxLength: 512,
      pooling: 'mean',
      normalize: true,
      output: null,
      dtype: 'fp32',
      batchInvariant: true,
      executionProviders: ['cpu'],
    });
    expect((await ready({ modelPath: model('table-half') })).getModelInfo()).toMatchObject({ dtype: 'fp16', maxLength: 1_048_576 });
    expect((await ready({ modelPath: model('table-mapped') })).getModelInfo()).toMatchObject({ dtype: 'int8', maxLength: 12, normalize: false });
    expect((await ready({ modelPath: model('static-embedding-nested') })).getModelInfo().dtype).toBe('bf16');
    expect((await ready({ modelPath: model('bert-mean') })).getModelInfo().architecture).toBe('encoder');
    expect((await ready({ modelPath: model('decoder-left') })).getModelInfo().architecture).toBe('decoder');
    expect((await ready({})).getModelInfo().architecture).toBe('static');
  });

  test('needs no ONNX Runtime', async () => {
    const env = { ...process.env, ORT_DYLIB_PATH: '/nowhere/libonnxruntime.so' };
    const run = (name: string) => promisify(execFile)(process.execPath, [join(root, '__test__', 'programs', 'table.cjs'), model(name)], { env });
    const { stdout, stderr } = await run('static-embedding');
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toMatchObject({ rows: 2, dimensions: 12, runtime: expect.stringContaining('embedcore') as string });
    await expect(run('bert-mean')).rejects.toThrow('/nowhere/libonnxruntime.so');
  });

  test('gives zeros for a text of which it knows nothing, and finite figures', async () => {
    const generator = await ready({ modelPath: model('table-model2vec') });
    const matrix = await generator.embed(['龘 靐', 'parse']);
    expect([...matrix.row(0)]).toEqual(Array(16).fill(0));
    const [answer] = await generator.batchProcess([{ nodeId: '1', signature: '龘', summary: '靐' }]);
    expect(Object.values(answer!).every((value) => typeof value !== 'number' || Number.isFinite(value))).toBe(true);
    const blank = await failure(() => generator.embed([' ']));
    expect(blank.code).toBe('INVALID_ARGUMENT');
  });

  test('takes the options of other models', async () => {
    const modelPath = model('table-model2vec');
    const full = (await (await ready({ modelPath, normalize: false })).embed(['parse a json string'])).row(0);
    const cut = (await (await ready({ modelPath, dimensions: 4, normalize: false })).embed(['parse a json string'])).row(0);
    expect(distance(cut, full.slice(0, 4))).toBe(0);
    const short = await (await ready({ modelPath, maxLength: 2 })).embed(['parse a json string']);
    expect({ tokens: short.tokenCounts[0], truncated: Boolean(short.truncated[0]) }).toEqual({ tokens: expect.any(Number), truncated: true });
    const asked = await (await ready({ modelPath, prompts: { query: 'parse ' } })).embed(['a json string'], { inputType: 'query' });
    expect(distance(asked.row(0), (await (await ready({ modelPath })).embed(['parse a json string'])).row(0))).toBeLessThan(1e-6);
  });

  test('has a fingerprint of all that it is', async () => {
    const of = async (modelPath: string, options: GeneratorOptions = {}) => (await ready({ modelPath, ...options })).getModelInfo().fingerprint;
    const directory = () => copyOf('table-mapped');
    const all = [await of(directory())];
    expect(await of(directory())).toBe(all[0]);
    for (const options of [{ normalize: true }, { dimensions: 8 }, { maxLength: 5 }, { prompts: { query: 'q ' } }]) all.push(await of(directory(), options));
    const changed = (file: string, change: (bytes: Buffer) => Buffer) => {
      const copy = directory();
      writeFileSync(join(copy, file), change(readFileSync(join(copy, file))));
      return of(copy);
    };
    all.push(await changed('model.safetensors', (bytes) => bytes.fill(77, 8 + Number(bytes.readBigUInt64LE()), 9 + Number(bytes.readBigUInt64LE()))));
    all.push(await changed('config.json', (bytes) => Buffer.from(bytes.toString().replace('"max_length": 12', '"max_length": 12, "x": 1'))));
    all.push(await changed('tokenizer.json', (bytes) => Buffer.concat([bytes, Buffer.from('\n')])));
    expect(new Set(all).size).toBe(all.length);
  });

  test('is found by its header where no file says what it is', async () => {
    const directory = copyOf('static-embedding');
    unlinkSync(join(directory, 'modules.json'));
    expect((await ready({ modelPath: directory })).getModelInfo()).toMatchObject({ architecture: 'static', dimensions: 16, normalize: false });
    writeFileSync(join(directory, 'model.safetensors'), tensors({ 'encoder.weight': table(8) }));
    expect((await failure(() => ready({ modelPath: directory }))).message).toContain('export the model to ONNX first');
  });

  test.each<[string, Buffer, RegExp]>([
    ['fewer rows than its tokenizer has tokens', tensors({ embeddings: table(TOKENS - 1) }), /vocabulary has 300 tokens.*vectors of 299/],
    ['numbers that are none', tensors({ embeddings: table(TOKENS, (i) => (i === 41 ? NaN : i)) }), /row 10 .*not finite/],
    ['numbers without an end', tensors({ embeddings: table(TOKENS, (i) => (i === 1199 ? Infinity : i)) }), /row 299 .*not finite/],
    ['weights that are none', tensors({ embeddings: table(TOKENS), weights: { shape: [TOKENS], values: Array(TOKENS).fill(NaN) } }), /weight of token 0/],
    ['too few weights', tensors({ embeddings: table(TOKENS), weights: { shape: [12], values: Array(12).fill(1) } }), /vectors of 12 only/],
    [
      'a mapping that points outside',
      tensors({ embeddings: table(20), mapping: { dtype: 'I32', shape: [TOKENS], values: Buffer.from(Int32Array.from({ length: TOKENS }, (_, i) => (i === 7 ? 20 : 3)).buffer) } }),
      /mapping gives token 7 the row 20, and its table has 20/,
    ],
    [
      'a mapping to rows below zero',
      tensors({ embeddings: table(20), mapping: { dtype: 'I64', shape: [TOKENS], values: Buffer.from(BigInt64Array.from({ length: TOKENS }, () => -1n).buffer) } }),
      /row -1/,
    ],
    ['three dimensions', tensors({ embeddings: { shape: [TOKENS, 2, 2], values: Array(TOKENS * 4).fill(1) } }), /\[300, 2, 2\].*two dimensions/],
    ['no rows', tensors({ embeddings: { shape: [0, 4], values: [] } }), /nothing in it/],
    ['no table', tensors({ other: table(3) }), /no table of vectors .* it has other/],
    ['numbers of an odd kind', tensors({ embeddings: { dtype: 'U8', shape: [TOKENS, 4], values: Buffer.alloc(TOKENS * 4) } }), /U8/],
    ['a header of 100 MB', Buffer.concat([Buffer.from([0, 225, 245, 5, 0, 0, 0, 0]), Buffer.alloc(1000, ' ')]), /header has 100000000 bytes/],
    ['a header longer than the file', Buffer.concat([Buffer.from([0, 16, 0, 0, 0, 0, 0, 0]), Buffer.from('{}')]), /not a safetensors file/],
    [
      'tensors over one another',
      tensors({ embeddings: { ...table(2), offsets: [0, 32] }, weights: { shape: [2], values: [1, 2], offsets: [16, 24] } }),
      /overlap/,
    ],
    ['its end missing', tensors({ embeddings: table(TOKENS) }).subarray(0, -5), /cut off/],
    ['nothing in its file', Buffer.alloc(0), /safetensors|empty|length/i],
  ])('is refused with %s', async (_, bytes, reason) => {
    const error = await failure(() => ready({ modelPath: withTable(bytes) }));
    expect(error.code).toBe('MODEL_INIT_FAILED');
    expect(error.message).toMatch(reason);
    expect(error.message).toMatch(/model\.safetensors|tokenizer\.json/);
  });

  test('is refused without its tokenizer, and with options that it cannot have', async () => {
    const directory = copyOf('table-model2vec');
    for (const options of [{ pooling: 'cls' as const }, { dtype: 'fp16' as const }]) {
      const error = await failure(() => ready({ modelPath: directory, ...options }));
      expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: Object.keys(options)[0] } });
    }
    expect((await failure(() => ready({ modelPath: directory, dimensions: 17 }))).message).toContain('17 is more than the 16');
    unlinkSync(join(directory, 'tokenizer.json'));
    expect((await failure(() => ready({ modelPath: directory }))).message).toContain('tokenizer.json');
  });

  test('comes from the hub with what it needs, whatever else lies there', async () => {
    const hub = await startHub();
    const cacheDir = mkdtempSync(join(tmpdir(), 'embedcore-table-'));
    onTestFinished(() => rmSync(cacheDir, { recursive: true, force: true }));
    vi.stubEnv('HF_ENDPOINT', hub.url);
    vi.stubEnv('HF_TOKEN_PATH', join(cacheDir, 'no token'));
    onTestFinished(() => void vi.unstubAllEnvs());
    // As they are published: with a graph that wants other inputs, and what other programs need.
    hub.add('tiny/table', 'table-model2vec', { 'onnx/model.onnx': 'a graph', 'README.md': 'a card', 'pytorch_model.bin': 'weights' });
    const generator = await ready({ modelPath: 'tiny/table', cacheDir });
    expect(generator.getModelInfo()).toMatchObject({ architecture: 'static', repository: 'tiny/table' });
    for (const file of ['config.json', 'modules.json', 'tokenizer.json', 'model.safetensors']) expect(hub.fetched(file), file).toBe(1);
    for (const file of ['onnx/model.onnx', 'README.md', 'pytorch_model.bin']) expect(hub.fetched(file), file).toBe(0);
    hub.asked.length = 0;
    await ready({ modelPath: 'tiny/table', cacheDir });
    expect(hub.asked).toEqual([]);

    hub.add('tiny/without', 'static-embedding-nested', { '0_StaticEmbedding/tokenizer.json': null });
    expect((await failure(() => ready({ modelPath: 'tiny/without', cacheDir }))).message).toContain('no 0_StaticEmbedding/tokenizer.json');
    // Weights that are no table are not fetched to find that out.
    hub.add('tiny/torch', 'bert-mean', { 'onnx/model.onnx': null, 'model.safetensors': 'weights' });
    expect((await failure(() => ready({ modelPath: 'tiny/torch', cacheDir }))).message).toContain('export the model to ONNX first');
    expect(hub.fetched('model.safetensors')).toBe(1);
  });
});
