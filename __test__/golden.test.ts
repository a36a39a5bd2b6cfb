import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import type { CallOptions, Pooling } from 'embedcore';
import { describe, expect, test } from 'vitest';

import { distance, model, ready, root } from './support';

interface Golden {
  name: string;
  options: { pooling?: Pooling; normalize?: boolean; inputType?: 'document' | 'query' };
  maxLength: number;
  dimensions: number;
  tolerance: number;
  texts: string[];
  vectors: number[][];
  tokenCounts: number[];
  truncated: boolean[];
}

const golden = JSON.parse(readFileSync(join(root, 'fixtures', 'golden.json'), 'utf8')) as { models: Golden[] };

/** The vectors of an independent implementation, which runs each text alone. */
describe.each(golden.models)('$name $options', ({ name, options, maxLength, dimensions, tolerance, ...expected }) => {
  const { inputType, ...modelOptions } = options;
  const callOptions: CallOptions = inputType ? { inputType } : {};

  test('one text alone gives its golden vector', async () => {
    const generator = await ready({ modelPath: model(name), ...modelOptions });
    for (const [i, text] of expected.texts.entries()) {
      const matrix = await generator.embed([text], callOptions);
      expect(distance(matrix.row(0), expected.vectors[i]!), text).toBeLessThanOrEqual(tolerance);
    }
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
