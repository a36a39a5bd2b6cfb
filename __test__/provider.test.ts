import { OptimizedEmbeddingGenerator, type ExecutionProvider } from 'embedcore';
import { expect, test } from 'vitest';

import { failure, model, ready } from './support';

const modelPath = model('bert-mean');

test('the CPU is the default, and changes nothing when it is named', async () => {
  const [one, other] = [await ready({ modelPath }), await ready({ modelPath, executionProviders: ['cpu'] })];
  expect(one.getModelInfo().executionProviders).toEqual(['cpu']);
  expect(other.getModelInfo()).toEqual(one.getModelInfo());
  expect(await other.embed(['a'])).toMatchObject({ data: (await one.embed(['a'])).data });
});

test.each(['cuda', 'coreml', 'directml'] as const)('%s is used where the runtime has it, else refused with what it has', async (provider) => {
  const generator = new OptimizedEmbeddingGenerator({ modelPath, executionProviders: [provider, 'cpu'] });
  // This platform's library may have one of them; no library has all three.
  try {
    await generator.initialize();
    expect(generator.getModelInfo().executionProviders).toEqual([provider, 'cpu']);
    expect(generator.getModelInfo().fingerprint).not.toBe((await ready({ modelPath })).getModelInfo().fingerprint);
  } catch (error) {
    expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'executionProviders' } });
    expect((error as Error).message).toMatch(new RegExp(`onnxruntime.* does not offer '${provider}'; it offers .*'cpu'.*ORT_DYLIB_PATH`));
  } finally {
    await generator.cleanup();
  }
});

test.each([[[]], [['gpu']], ['cuda'], [['cpu', 'cpu']], [[1]], [[null]], [{}]])('%j is refused', async (executionProviders) => {
  const error = await failure(() => new OptimizedEmbeddingGenerator({ executionProviders: executionProviders as ExecutionProvider[] }));
  expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'executionProviders' } });
});
