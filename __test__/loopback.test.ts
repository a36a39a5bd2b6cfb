import { expect, test } from 'vitest';

import { cut, dripping, gzipped, redirect, reset, retryAfter, truncated } from './loopback/faults';
import { ollama } from './loopback/ollama';
import { openai } from './loopback/openai';
import { loopback } from './loopback/server';

test('the server of the tests speaks as the real ones do, and misbehaves as it is told', async () => {
  const server = await loopback({ apis: [ollama(), openai({ apiKey: 'right' })] });
  const ask = (path: string, body?: object, headers = {}) => fetch(`${server.url}${path}`, body && { method: 'POST', body: JSON.stringify(body), headers });
  const prompt = { model: 'llama3.2', prompt: 'why', stream: false };
  expect(await (await ask('/api/generate', prompt)).json()).toMatchObject({ response: 'an answer to 3 characters', done: true, eval_count: 5 });
  const lines = (await (await ask('/api/chat', { model: 'llama3.2', messages: [{ role: 'user', content: 'why' }] })).text()).trim().split('\n');
  expect(lines.map((line) => JSON.parse(line).message.content).join('')).toBe('an answer to 3 characters');
  expect((await ask('/api/generate', { ...prompt, model: 'none' })).status).toBe(404);
  expect((await ask('/v1/chat/completions', {}, { authorization: 'Bearer wrong' })).status).toBe(401);

  server.next(retryAfter(429, 3), redirect('http://127.0.0.1:1/', 307), gzipped, truncated(10), dripping(1, 100));
  expect((await ask('/api/tags')).headers.get('retry-after')).toBe('3');
  expect((await fetch(`${server.url}/api/tags`, { redirect: 'manual' })).headers.get('location')).toBe('http://127.0.0.1:1/');
  expect((await ask('/api/tags')).headers.get('content-encoding')).toBe('gzip');
  await expect((await ask('/api/tags')).json()).rejects.toThrow(SyntaxError);
  expect(await (await ask('/api/tags')).json()).toHaveProperty('models');
  server.next(reset(), reset(5), cut(5));
  await expect(ask('/api/generate', prompt)).rejects.toThrow();
  await expect(ask('/api/generate', prompt).then((answer) => answer.text())).rejects.toThrow();
  await expect(ask('/api/generate', prompt).then((answer) => answer.text())).rejects.toThrow();
  expect(server.requests.length).toBe(12);
  await expect.poll(() => server.inFlight).toBe(0);
});
