// The `fetch` of HttpClient in the clients that people have.

import { ChatOllama, OllamaEmbeddings } from '@langchain/ollama';
import { EmbeddingError } from 'embedcore';
import { HttpClient, type HttpClientOptions } from 'embedcore/llm';
import { Ollama } from 'ollama';
import OpenAI from 'openai';
import { expect, onTestFinished, test } from 'vitest';

import { dripping, inTurn, reset, silent, slow, status } from '../loopback/faults.js';
import { ollama, vectorOf } from '../loopback/ollama.js';
import { openai } from '../loopback/openai.js';
import { loopback, type Loopback } from '../loopback/server.js';

const KEY = 'sk-right-0123456789';
const text = 'an answer to 3 characters';

async function served(options: HttpClientOptions = {}): Promise<{ server: Loopback; http: HttpClient }> {
  const server = await loopback({ apis: [ollama(), openai({ apiKey: KEY })] });
  const http = new HttpClient({ retryBackoffMs: [1], ...options });
  onTestFinished(() => http.close());
  return { server, http };
}

test('openai: whole and streamed, tried again, aborted, refused', async () => {
  const { server, http } = await served({ perHostLimit: 2 });
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: KEY, fetch: http.fetch, maxRetries: 0 });
  const ask = { model: 'gpt-4o-mini', messages: [{ role: 'user' as const, content: 'why' }] };
  server.next(status(503), reset());
  expect((await client.chat.completions.create(ask)).choices[0]!.message.content).toBe(text);
  expect(server.requests.length).toBe(3);
  server.next(dripping(1, 50));
  const pieces: string[] = [];
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) pieces.push(chunk.choices[0]?.delta.content ?? '');
  expect(pieces.join('')).toBe(text);
  expect(pieces.length).toBeGreaterThan(4);
  server.always(() => slow(5));
  await Promise.all(Array.from({ length: 12 }, () => client.chat.completions.create(ask)));
  expect(server.most).toBeLessThanOrEqual(2);
  server.always(undefined);
  const { data } = await client.models.list();
  expect(data.map(({ id }) => id)).toEqual(['gpt-4o-mini']);
  await expect(new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'wrong', fetch: http.fetch, maxRetries: 0 }).models.list()).rejects.toThrow(OpenAI.AuthenticationError);
  server.next(silent);
  const stop = new AbortController();
  const asked = client.chat.completions.create(ask, { signal: stop.signal });
  setTimeout(() => stop.abort(), 20);
  await expect(asked).rejects.toThrow(OpenAI.APIUserAbortError);
  server.next(silent);
  await expect(client.chat.completions.create(ask, { timeout: 50 })).rejects.toThrow(OpenAI.APIConnectionTimeoutError);
  const nobody = new OpenAI({ baseURL: 'http://127.0.0.1:1/v1', apiKey: KEY, fetch: http.fetch, maxRetries: 0 });
  const error = await nobody.models.list().then(() => undefined, (thrown: Error) => thrown);
  expect(error).toBeInstanceOf(OpenAI.APIConnectionError);
  expect(error!.cause).toBeInstanceOf(EmbeddingError);
  await expect.poll(() => http.getStats()[server.url]!.inFlight).toBe(0);
});

test('ollama: generate, chat, embed, list, streams, abort', async () => {
  const { server, http } = await served();
  const client = new Ollama({ host: server.url, fetch: http.fetch });
  server.next(status(429, 'busy', { 'retry-after': '0' }));
  expect((await client.generate({ model: 'llama3.2', prompt: 'why' })).response).toBe(text);
  const pieces: string[] = [];
  for await (const part of await client.chat({ model: 'llama3.2', messages: [{ role: 'user', content: 'why' }], stream: true })) pieces.push(part.message.content);
  expect(pieces.join('')).toBe(text);
  expect((await client.embed({ model: 'nomic-embed-text', input: ['a', 'b'] })).embeddings).toEqual([vectorOf('a'), vectorOf('b')]);
  expect((await client.list()).models.length).toBe(3);
  await expect(client.generate({ model: 'none', prompt: 'why' })).rejects.toThrow("model 'none' not found");
  server.next((reply) => ({ ...reply, pieceMs: 2 ** 30 }));
  const halting = await client.generate({ model: 'llama3.2', prompt: 'why', stream: true });
  setTimeout(() => halting.abort(), 30);
  await expect(async () => { for await (const _ of halting); }).rejects.toMatchObject({ name: 'AbortError' });
  await expect.poll(() => http.getStats()[server.url]!.inFlight).toBe(0);
  expect(http.getStats()[server.url]).toMatchObject({ retries: 1 });
});

test('@langchain/ollama: chat, streams, embeddings', async () => {
  const { server, http } = await served();
  const model = new ChatOllama({ baseUrl: server.url, model: 'llama3.2', fetch: http.fetch, maxRetries: 0 });
  server.always(inTurn(status(503), undefined));
  expect((await model.invoke('why')).content).toBe(text);
  const pieces: string[] = [];
  for await (const { content } of await model.stream('why')) pieces.push(content as string);
  expect(pieces.join('')).toBe(text);
  const embeddings = new OllamaEmbeddings({ baseUrl: server.url, model: 'nomic-embed-text', fetch: http.fetch });
  expect(await embeddings.embedDocuments(['a', 'b'])).toEqual([vectorOf('a'), vectorOf('b')]);
  expect(http.getStats()[server.url]).toMatchObject({ retries: 1, failures: 0 });
  // All went over it.
  expect(http.getStats()[server.url]!.requests).toBe(server.requests.length);
});
