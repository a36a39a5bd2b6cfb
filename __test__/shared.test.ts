// A real model on real texts, against vectors of Python's onnxruntime and tokenizers, each text run alone.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { InferenceCache } from 'embedcore';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { corpus, distance, floats, hasShared, miniLm, ready, root } from './support';

interface Line {
  text: string;
}

function load(name: string): { texts: string[]; reference: Float32Array } {
  const lines = readFileSync(join(corpus, `${name}.jsonl`), 'utf8').trimEnd().split('\n');
  return { texts: lines.map((line) => (JSON.parse(line) as Line).text), reference: floats(join(corpus, `${name}.reference.f32`)) };
}

describe.runIf(hasShared)('all-MiniLM-L6-v2', () => {
  test.each([
    ['annotations', 'onnxruntime', 1e-4, 0.99999],
    ['mixed', 'onnxruntime', 1e-4, 0.99999],
    ['short', 'onnxruntime', 1e-4, 0.99999],
    // Whatever is fastest here, in 16 bits where the processor has them.
    ['annotations', 'auto', 1e-2, 0.9999],
  ] as const)('5,000 texts of %s agree with the reference: engine %s', { timeout: 600_000 }, async (name, engine, most, least) => {
    const generator = await ready({ modelPath: miniLm, engine });
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
    expect(largest).toBeLessThanOrEqual(most);
    expect(lowest).toBeGreaterThanOrEqual(least);
  });

  test('results of prompts that mean the same: no trap answers, and most paraphrases do', async () => {
    const pairs = JSON.parse(readFileSync(join(root, 'fixtures', 'near-prompts.json'), 'utf8')) as {
      paraphrases: [string, string][];
      traps: [string, string, string][];
    };
    const cache = new InferenceCache({ semantic: { embed: await ready({ modelPath: miniLm }) } });
    onTestFinished(() => cache.close());
    const found = async ([a, b]: readonly string[]) => {
      await cache.clear();
      await cache.set(a!, a);
      return (await cache.get(b!)) !== null;
    };
    const caught = [];
    for (const [, a, b] of pairs.traps) if ((await found([a, b])) || (await found([b, a]))) caught.push([a, b]);
    expect(caught).toEqual([]);
    let passed = 0;
    for (const pair of pairs.paraphrases) if (await found(pair)) passed++;
    expect(passed).toBeGreaterThanOrEqual(0.6 * pairs.paraphrases.length);
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
