import { mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { OptimizedEmbeddingGenerator, type Dtype } from 'embedcore';
import { expect, test } from 'vitest';

import { copyOf, failure, ready } from './support';

const FILES: [Dtype, string][] = [
  ['fp32', 'model.onnx'],
  ['fp16', 'model_fp16.onnx'],
  ['q8', 'model_quantized.onnx'],
  ['int8', 'model_int8.onnx'],
  ['uint8', 'model_uint8.onnx'],
  ['q4', 'model_q4.onnx'],
  ['q4f16', 'model_q4f16.onnx'],
  ['bnb4', 'model_bnb4.onnx'],
];

/** A model whose only graph is of that name. */
function only(file: string): string {
  const directory = copyOf('bert-mean');
  renameSync(join(directory, 'onnx', 'model.onnx'), join(directory, 'onnx', file));
  return directory;
}

test.each(FILES)('%s is %s', async (dtype, file) => {
  const generator = await ready({ modelPath: only(file), dtype });
  const info = generator.getModelInfo();
  expect(info.dtype).toBe(dtype);
  expect(info.modelPath).toMatch(new RegExp(`onnx.${file}$`));
});

test('a variant beside the tokenizer is found, the one in onnx/ first', async () => {
  const directory = only('model_q4.onnx');
  renameSync(join(directory, 'onnx', 'model_q4.onnx'), join(directory, 'model_q4.onnx'));
  expect((await ready({ modelPath: directory, dtype: 'q4' })).getModelInfo().dtype).toBe('q4');
});

test('a missing variant is refused with those that are there', async () => {
  const directory = only('model_int8.onnx');
  const generator = new OptimizedEmbeddingGenerator({ modelPath: directory, dtype: 'q4' });
  const error = await failure(() => generator.initialize());
  expect(error.code).toBe('MODEL_INIT_FAILED');
  expect(error.message).toMatch(/neither onnx\/model_q4\.onnx nor model_q4\.onnx: pass dtype: 'int8', or .* onnx\/model_int8\.onnx/);
  // Without a dtype the plain one is meant, never whatever there is.
  expect((await failure(() => new OptimizedEmbeddingGenerator({ modelPath: directory }).initialize())).message).toContain("dtype: 'int8'");
  rmSync(join(directory, 'onnx'), { recursive: true });
  mkdirSync(join(directory, 'onnx'));
  expect((await failure(() => generator.initialize())).message).toContain('export the model to ONNX');
});

test('a path that names a file must not be contradicted', async () => {
  const path = join(only('model_int8.onnx'), 'onnx', 'model_int8.onnx');
  expect((await ready({ modelPath: path })).getModelInfo().dtype).toBe('int8');
  expect((await ready({ modelPath: path, dtype: 'int8' })).getModelInfo().dtype).toBe('int8');
  const error = await failure(() => new OptimizedEmbeddingGenerator({ modelPath: path, dtype: 'q4' }).initialize());
  expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'dtype' } });
});

test('the variant is not what tells embedding spaces apart, its content is', async () => {
  const [one, other] = await Promise.all([ready({ modelPath: only('model_int8.onnx'), dtype: 'int8' }), ready({ modelPath: only('model.onnx') })]);
  expect(one.getModelInfo().fingerprint).toBe(other.getModelInfo().fingerprint);
});

test('what is no variant is refused', async () => {
  const error = await failure(() => new OptimizedEmbeddingGenerator({ dtype: 'fp8' as Dtype }));
  expect(error).toMatchObject({ code: 'INVALID_CONFIG' });
  expect(error.message).toContain("'bnb4'");
});
