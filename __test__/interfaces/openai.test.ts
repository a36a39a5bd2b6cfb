import { OptimizedEmbeddingGenerator } from 'embedcore';
import { serve, type EmbeddingServer } from 'embedcore/server';
import OpenAI from 'openai';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';

const generator = new OptimizedEmbeddingGenerator();
let server: EmbeddingServer;
let client: OpenAI;
beforeAll(async () => {
  await generator.initialize();
  server = await serve({ generator, aliases: ['text-embedding-3-small'], apiKey: 'secret', port: 0 });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'secret', maxRetries: 0 });
});
afterAll(async () => {
  await server.close();
  await generator.cleanup();
});

const texts = Array.from({ length: 300 }, (_, i) => `text number ${i}`);

// Without one, the package asks for base64 and decodes it.
test.each([undefined, 'float', 'base64'] as const)('embeddings.create, encoding %s', async (encoding_format) => {
  const matrix = await generator.embed(texts);
  const { data, model, usage } = await client.embeddings.create({ model: 'text-embedding-3-small', input: texts, ...(encoding_format && { encoding_format }) });
  expect(model).toBe('text-embedding-3-small');
  expect(usage.prompt_tokens).toBe(matrix.tokenCounts.reduce((total, count) => total + count, 0));
  const plain = (embedding: number[] | string) => (typeof embedding === 'string' ? Array.from(new Float32Array(new Uint8Array(Buffer.from(embedding, 'base64')).buffer)) : embedding);
  // Written with no more digits than a float32 needs to come back.
  expect(data.map(({ embedding }) => plain(embedding).map(Math.fround))).toEqual(texts.map((_, i) => Array.from(matrix.row(i))));
});

test('dimensions, input_type, models', async () => {
  const { data } = await client.embeddings.create({ model: 'builtin', input: 'a', dimensions: 8 });
  expect(data[0]!.embedding.length).toBe(8);
  const query = { model: 'builtin', input: 'a', input_type: 'query' };
  expect((await client.embeddings.create(query)).data.length).toBe(1);
  expect((await client.models.list()).data.map(({ id }) => id)).toEqual(['builtin', 'text-embedding-3-small']);
  expect((await client.models.retrieve('builtin')).object).toBe('model');
});

test('errors are those of the package', async () => {
  const wrong = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'wrong', maxRetries: 0 });
  await expect(wrong.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
  await expect(client.embeddings.create({ model: 'gpt', input: 'a' })).rejects.toMatchObject({ status: 404, code: 'model_not_found', param: 'model', type: 'invalid_request_error' });
  const error = await client.embeddings.create({ model: 'builtin', input: [1, 2] }).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(OpenAI.BadRequestError);
  expect(error).toMatchObject({ param: 'input', message: expect.stringContaining('token ids') });
});

test('who is asked to come back comes back', async () => {
  let release = () => {};
  const wait = new Promise<void>((resolve) => (release = resolve));
  const slow = Object.assign(Object.create(generator) as OptimizedEmbeddingGenerator, {
    isReady: () => true,
    getModelInfo: () => generator.getModelInfo(),
    embed: async (input: string[]) => (await wait, generator.embed(input)),
  });
  const busy = await serve({ generator: slow, maxQueuedRequests: 1, port: 0 });
  onTestFinished(() => busy.close());
  const patient = new OpenAI({ baseURL: `${busy.url}/v1`, apiKey: 'any', maxRetries: 3 });
  const first = patient.embeddings.create({ model: 'builtin', input: 'a' });
  const second = patient.embeddings.create({ model: 'builtin', input: 'b' });
  // One of them waits, the other one is sent away.
  await expect.poll(async () => (await fetch(`${busy.url}/metrics`)).text()).toContain('embedcore_server_requests_total{status="429"} 1');
  release();
  expect((await first).data.length + (await second).data.length).toBe(2);
});
