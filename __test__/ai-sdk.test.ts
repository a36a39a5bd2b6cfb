// The model for the AI SDK by itself; with the package `ai`, see `interfaces/`.
import { OptimizedEmbeddingGenerator } from 'embedcore';
import { createEmbedcore } from 'embedcore/ai-sdk';
import { expect, onTestFinished, test } from 'vitest';

import { failure, model } from './support';

function provider() {
  const made = createEmbedcore({ cache: false });
  onTestFinished(() => made.close());
  return made.embeddingModel(model('bert-mean'));
}

test('null is as good as nothing, as JSON has it', async () => {
  const embedding = provider();
  const plain = await embedding.doEmbed({ values: ['a'] });
  for (const options of [
    { providerOptions: null },
    { providerOptions: { embedcore: null } },
    { providerOptions: { embedcore: { dimensions: null, inputType: null, bypassCache: null, timeoutMs: null } } },
    { providerOptions: undefined, abortSignal: null, dimensions: null },
  ]) {
    expect(await embedding.doEmbed({ values: ['a'], ...(options as object) })).toEqual(plain);
  }
  for (const given of [5, 'text', [], true]) {
    expect(await failure(() => embedding.doEmbed({ values: ['a'], providerOptions: { embedcore: given as never } }))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining('providerOptions.embedcore') });
  }
});

test('errors give advice that can be followed here', async () => {
  const embedding = provider();
  const blank = await failure(() => embedding.doEmbed({ values: ['a', ''] }));
  expect(blank).toMatchObject({ code: 'INVALID_ARGUMENT', details: { index: 1 } });
  expect(blank.message).not.toMatch(/onError|skip/);
  const unknown = await failure(() => embedding.doEmbed({ values: ['a'], providerOptions: { embedcore: { onError: 'skip' } } }));
  expect(unknown.message).toMatch(/known are [^.]*inputType[^.]*dimensions[^.]*bypassCache[^.]*timeoutMs/);
});

test('values count as they are when the call is made', async () => {
  const embedding = provider();
  const values = ['open a file', 'close a file'];
  const call = embedding.doEmbed({ values });
  values[0] = 'something else';
  values.pop();
  expect((await call).embeddings).toEqual((await embedding.doEmbed({ values: ['open a file', 'close a file'] })).embeddings);
});

test('timeoutMs is the limit of the whole call, a model that does not load included', async () => {
  const never = { isReady: () => false, initialize: () => new Promise(() => {}), embed: () => new Promise(() => {}) } as unknown as OptimizedEmbeddingGenerator;
  const embedding = createEmbedcore({ generator: never }).embeddingModel();
  const error = await failure(() => embedding.doEmbed({ values: ['a'], providerOptions: { embedcore: { timeoutMs: 30 } } }));
  expect(error).toMatchObject({ code: 'TIMED_OUT', retryable: true, details: { timeoutMs: 30 } });
  expect((await provider().doEmbed({ values: ['a'], providerOptions: { embedcore: { timeoutMs: 60_000 } } })).embeddings).toHaveLength(1);
  for (const timeoutMs of [0, -1, 1.5, '5']) {
    expect(await failure(() => provider().doEmbed({ values: ['a'], providerOptions: { embedcore: { timeoutMs } } }))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining('timeoutMs') });
  }
});
