import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { copyOf, distance, failure, ready, root } from './support';

const builtin = { modelPath: 'builtin' };

test('the static model finds code by what it does', async () => {
  const generator = await ready(builtin);
  const code = [
    'Signature: fn read_lines(path: &Path) -> io::Result<Vec<String>> | Code: BufReader::new(File::open(path)?).lines().collect()',
    'Signature: function retryRequest(url, attempts) | Code: for (;;) { try { return await fetch(url) } catch { await sleep(delay) } }',
    'Signature: def parse_json(text) | Code: return json.loads(text)',
    'Signature: func (c *Cache) evictOldest() | Code: delete(c.entries, c.order.Front().Value)',
  ];
  const matrix = await generator.embed(code);
  for (const [expected, query] of ['open a file and read its lines', 'retry a failed request', 'parse a json string', 'remove the oldest cache entry'].entries()) {
    const vector = await generator.embedQuery(query);
    const scores = code.map((_, i) => matrix.row(i).reduce((sum, value, k) => sum + value * vector[k]!, 0));
    expect(scores.indexOf(Math.max(...scores)), query).toBe(expected);
  }
});

test('the static model: batched is alone, and 64 dimensions are the first 64', async () => {
  const generator = await ready(builtin);
  expect(generator.getModelInfo()).toMatchObject({ dimensions: 256, maxLength: 512, normalize: true, batchInvariant: true });
  const texts = Array.from({ length: 100 }, (_, i) => `Signature: fn f${i}() | Code: ${'let x = read(file); '.repeat(i)}`);
  const matrix = await generator.embed(texts);
  const short = await (await ready({ ...builtin, dimensions: 64 })).embed(texts);
  for (const [i, text] of texts.entries()) {
    expect(distance((await generator.embed([text])).row(0), matrix.row(i))).toBeLessThanOrEqual(1e-6);
    const head = matrix.row(i).subarray(0, 64);
    expect(distance(short.row(i), head.map((value) => value / Math.hypot(...head)))).toBeLessThanOrEqual(1e-6);
  }
});

test('the static model is the default', async () => {
  const byDefault = await ready({});
  const byPath = await ready({ modelPath: join(root, 'models', 'builtin') });
  expect(byDefault.getModelInfo()).toMatchObject({ modelId: 'builtin', fingerprint: byPath.getModelInfo().fingerprint });
});

test('a damaged static model is refused by its checksum', async () => {
  // A package as it is installed, without the size of the native part.
  const home = copyOf('demo');
  for (const name of ['dist', 'models/builtin']) cpSync(join(root, name), join(home, name), { recursive: true });
  for (const name of ['npm', 'package.json']) symlinkSync(join(root, name), join(home, name));
  const { OptimizedEmbeddingGenerator } = createRequire(import.meta.url)(join(home, 'dist', 'index.js')) as typeof import('embedcore');
  const files = join(home, 'models', 'builtin');
  const load = () => new OptimizedEmbeddingGenerator().initialize();
  await load();
  const damage = (name: string, change: (bytes: Buffer) => Buffer) => {
    rmSync(files, { recursive: true });
    mkdirSync(files, { recursive: true });
    cpSync(join(root, 'models', 'builtin'), files, { recursive: true });
    writeFileSync(join(files, name), change(readFileSync(join(files, name))));
  };
  for (const name of ['onnx/model.onnx', 'tokenizer.json', '1_Pooling/config.json']) {
    for (const change of [
      (bytes: Buffer) => bytes.map((byte, at) => (at === bytes.length >> 1 ? byte ^ 1 : byte)) as Buffer,
      (bytes: Buffer) => bytes.subarray(0, bytes.length - 10),
      () => Buffer.alloc(0),
    ]) {
      damage(name, change);
      const error = await failure(load);
      expect(error, name).toMatchObject({ code: 'MODEL_INIT_FAILED' });
      if (name === 'onnx/model.onnx') expect(error.message).toContain('its SHA-256 is not the pinned one');
    }
  }
  damage('modules.json', (bytes) => bytes);
  rmSync(join(files, 'modules.json'));
  expect((await failure(load)).message).toContain('SHA-256');
  rmSync(files, { recursive: true });
  expect((await failure(load)).message).toContain('reinstall the package');
});
