import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { copyOf, failure, model, ready } from './support';

describe('a decoder that is exported with a cache', () => {
  test('says what it is', async () => {
    for (const name of ['decoder-cache', 'decoder-cache-half']) {
      const info = (await ready({ modelPath: model(name) })).getModelInfo();
      expect(info).toMatchObject({ architecture: 'decoder', pooling: 'last_token', output: 'last_hidden_state', dimensions: 16, maxLength: 64 });
    }
  });

  /** The model with other sizes declared for one of its inputs: bytes of the graph's own description, of the same length. */
  function declared(input: string, from: number[], to: number[]): string {
    const directory = copyOf('decoder-cache');
    const path = join(directory, 'onnx', 'model.onnx');
    const graph = readFileSync(path);
    // The last mention is where it is declared.
    const at = graph.indexOf(Buffer.from(from), graph.lastIndexOf(input));
    expect(at).toBeGreaterThan(0);
    Buffer.from(to).copy(graph, at);
    writeFileSync(path, graph);
    return directory;
  }

  /** A size in a graph's description. */
  const size = (value: number) => [0x0a, 2, 8, value];
  const open = [0x0a, 2, 0x12, 0];

  test('is refused where the number of its heads is open', async () => {
    const error = await failure(() => ready({ modelPath: declared('past_key_values.0.key', size(2), open) }));
    expect(error.code).toBe('MODEL_INIT_FAILED');
    expect(error.message).toMatch(/past_key_values\.0\.key has the shape \[\?, \?, \?, 4\].*must be fixed/);
  });

  test('is refused where the size of its heads is open', async () => {
    const error = await failure(() => ready({ modelPath: declared('past_key_values.1.value', size(4), open) }));
    expect(error.message).toMatch(/past_key_values\.1\.value has the shape \[\?, 2, \?, \?\]/);
  });

  test('is refused where a layer declares other heads than it has', async () => {
    const error = await failure(() => ready({ modelPath: declared('past_key_values.1.key', size(2), size(3)) }));
    expect(error).toMatchObject({ code: 'MODEL_INIT_FAILED' });
    expect(error.message).toContain('model.onnx');
  });

  test('is refused where it wants to have read something before', async () => {
    const past = [0x0a, 6, 0x12, 4, ...Buffer.from('past')];
    // Five, written as long as the name was.
    const error = await failure(() => ready({ modelPath: declared('past_key_values.0.value', past, [0x0a, 6, 8, 0x85, 0x80, 0x80, 0x80, 0]) }));
    expect(error.message).toMatch(/\[\?, 2, 5, 4\]/);
  });

  test('is refused with inputs that nobody knows', async () => {
    const directory = copyOf('decoder-cache');
    const path = join(directory, 'onnx', 'model.onnx');
    writeFileSync(path, Buffer.from(readFileSync(path).toString('latin1').replaceAll('past_key_values.1.value', 'past_key_values.1.other'), 'latin1'));
    expect((await failure(() => ready({ modelPath: directory }))).message).toContain('past_key_values.1.other');
  });
});
