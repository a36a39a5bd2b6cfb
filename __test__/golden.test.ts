import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { CallOptions, GeneratorOptions } from 'embedcore';
import { describe, expect, onTestFinished, test, vi } from 'vitest';

import { startHub } from './hub-server';
import { cosine, distance, model, ready, root } from './support';

interface Golden {
  name: string;
  options: Pick<GeneratorOptions, 'pooling' | 'normalize' | 'dimensions' | 'prompts' | 'promptName'> & { inputType?: 'document' | 'query' };
  maxLength: number;
  dimensions: number;
  tolerance: number;
  texts: string[];
  vectors: number[][];
  tokenCounts: number[];
  truncated: boolean[];
}

const read = (file: string) => (JSON.parse(readFileSync(join(root, 'fixtures', file), 'utf8')) as { models: Golden[] }).models;
const golden = [...read('golden.json'), ...read('golden-kinds.json')];

/** Where something else computes than the CPU (see {@link ready}), it rounds otherwise. */
const elsewhere = process.env.EMBEDCORE_PROVIDERS === undefined ? 0 : 1e-4;

/** The vectors of an independent implementation, which runs each text alone. */
describe.each(golden)('$name $options', ({ name, options, maxLength, dimensions, tolerance: own, ...expected }) => {
  const tolerance = Math.max(own, elsewhere);
  const { inputType, ...modelOptions } = options;
  const callOptions: CallOptions = inputType ? { inputType } : {};

  test('one text alone gives its golden vector', async () => {
    const generator = await ready({ modelPath: model(name), ...modelOptions });
    for (const [i, text] of expected.texts.entries()) {
      const matrix = await generator.embed([text], callOptions);
      expect(distance(matrix.row(0), expected.vectors[i]!), text).toBeLessThanOrEqual(tolerance);
    }
  });

  test('so it does by its id, from the hub', async () => {
    const hub = await startHub();
    const cacheDir = mkdtempSync(join(tmpdir(), 'embedcore-golden-'));
    onTestFinished(() => rmSync(cacheDir, { recursive: true, force: true }));
    vi.stubEnv('HF_ENDPOINT', hub.url);
    vi.stubEnv('HF_TOKEN_PATH', join(cacheDir, 'no token'));
    onTestFinished(() => void vi.unstubAllEnvs());
    const { sha } = hub.add(`tiny/${name}`, name);
    const generator = await ready({ modelPath: `tiny/${name}`, cacheDir, ...modelOptions });
    expect(generator.getModelInfo().revision).toBe(sha);
    const matrix = await generator.embed(expected.texts, callOptions);
    for (const [i, text] of expected.texts.entries()) {
      expect(distance(matrix.row(i), expected.vectors[i]!), text).toBeLessThanOrEqual(tolerance);
      // A table knows nothing of some texts: their vectors are zeros.
      if (expected.vectors[i]!.some(Boolean)) expect(cosine(matrix.row(i), expected.vectors[i]!), text).toBeGreaterThanOrEqual(0.9999);
    }
    hub.asked.length = 0;
    await ready({ modelPath: `tiny/${name}`, cacheDir, ...modelOptions });
    expect(hub.asked).toEqual([]);
  });

  test('the same in a batch, in any order, whatever runs beside it', async () => {
    const generator = await ready({ modelPath: model(name), ...modelOptions });
    const alone = await Promise.all(expected.texts.map(async (text) => (await generator.embed([text], callOptions)).row(0)));
    const shuffled = expected.texts.map((_, i) => (i * 5 + 3) % expected.texts.length);
    const many = [...shuffled, ...shuffled.toReversed()];
    const matrix = await generator.embed(many.map((i) => expected.texts[i]!), callOptions);
    for (const [row, i] of many.entries()) {
      expect(distance(matrix.row(row), expected.vectors[i]!), expected.texts[i]).toBeLessThanOrEqual(tolerance);
      // Not only close to the reference: the same vector as alone, up to the rounding of sums in another order.
      expect(distance(matrix.row(row), alone[i]!), expected.texts[i]).toBeLessThanOrEqual(1e-6);
    }
  });

  test('limits, tokens and truncation are reported', async () => {
    const generator = await ready({ modelPath: model(name), ...modelOptions });
    expect(generator.getModelInfo()).toMatchObject({ dimensions, maxLength, batchInvariant: name !== 'bert-dynamic-int8' });
    const matrix = await generator.embed(expected.texts, callOptions);
    expect([...matrix.tokenCounts]).toEqual(expected.tokenCounts);
    expect([...matrix.truncated].map(Boolean)).toEqual(expected.truncated);
  });
});
