// A real model on real texts, against vectors of Python's onnxruntime and tokenizers, each text run alone.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { beforeAll, describe, expect, test } from 'vitest';

import { corpus, distance, floats, hasShared, miniLm, ready } from './support';

interface Line {
  text: string;
}

function load(name: string): { texts: string[]; reference: Float32Array } {
  const lines = readFileSync(join(corpus, `${name}.jsonl`), 'utf8').trimEnd().split('\n');
  return { texts: lines.map((line) => (JSON.parse(line) as Line).text), reference: floats(join(corpus, `${name}.reference.f32`)) };
}

describe.runIf(hasShared)('all-MiniLM-L6-v2', () => {
  test.each(['annotations', 'mixed', 'short'])('5,000 texts of %s agree with the reference', { timeout: 600_000 }, async (name) => {
    const generator = await ready({ modelPath: miniLm });
    const { texts, reference } = load(name);
    const matrix = await generator.embed(texts);
    expect(matrix).toMatchObject({ rows: 5000, dimensions: 384 });
    let largest = 0;
    let lowest = 1;
    for (let i = 0; i < matrix.rows; i++) {
      const [a, b] = [matrix.row(i), reference.subarray(i * 384, (i + 1) * 384)];
      largest = Math.max(largest, distance(a, b));
      lowest = Math.min(lowest, a.reduce((sum, value, k) => sum + value * b[k]!, 0));
    }
    expect(largest).toBeLessThanOrEqual(1e-4);
    expect(lowest).toBeGreaterThanOrEqual(0.99999);
  });

  test('a dynamically quantised graph gives the same vector alone and in any batch, bit for bit', async () => {
    const generator = await ready({ modelPath: join(miniLm, 'onnx', 'model_quantized.onnx') });
    expect(generator.getModelInfo().batchInvariant).toBe(false);
    const texts = load('mixed').texts.slice(0, 60);
    const together = await generator.embed(texts);
    for (const [i, text] of texts.entries()) {
      expect((await generator.embed([text])).row(0)).toEqual(Float32Array.from(together.row(i)));
    }
  });
});

beforeAll(() => {
  if (!hasShared) console.warn('Skipped: the tests on all-MiniLM-L6-v2 need ../shared beside the clone.');
});
