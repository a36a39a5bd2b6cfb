import { join } from 'node:path';

import { expect, test } from 'vitest';

import { distance, ready, root } from './support';

const builtin = { modelPath: join(root, 'models', 'builtin') };

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
