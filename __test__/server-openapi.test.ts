// The server's own description against what it answers: what the document takes is answered as the document says, and what it does
// not take is refused as it says. EMBEDCORE_MODEL_SECONDS: for how long (default 3).
import Ajv from 'ajv/dist/2020';
import { EmbeddingServer } from 'embedcore/server';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { acting, ask, generator, get, good, post, raw, started, statuses } from './server-client';
import { tried } from './property';

afterAll(() => generator.cleanup());

const seconds = Number(process.env.EMBEDCORE_MODEL_SECONDS ?? 3);
const MOST_TEXTS = 5;

let server: EmbeddingServer;
let document: any;
let ajv: Ajv;
beforeAll(async () => {
  server = await new EmbeddingServer({ generator, modelId: 'bert', aliases: ['ada'], port: 0, maxBatchItems: MOST_TEXTS, maxBodyMB: 0.05 }).listen();
  document = (await get(server, '/openapi.json')).body;
  ajv = new Ajv({ strict: true, allErrors: true, keywords: ['components'] });
  ajv.addSchema({ components: document.components }, 'document');
  return () => server.close();
});

const valid = (name: string, value: unknown) => ajv.validate({ $ref: `document#/components/schemas/${name}` }, value);

/** Checks an answer against what is said of its operation and status. */
function asSaid(path: string, method: string, { status, headers, body, text }: { status: number; headers: Headers; body: unknown; text?: string }, of = document): void {
  const said = of.paths[path][method].responses[status];
  expect(said, `${method} ${path} answers ${status}, of which nothing is said`).toBeDefined();
  const type = headers.get('content-type')!.split(';')[0]!;
  for (const name of Object.keys(said.headers)) expect(headers.get(name), `${path} ${status} ${name}`).not.toBeNull();
  if (method === 'head') return expect(text).toBe('');
  expect(Object.keys(said.content)).toEqual([type]);
  const { schema } = said.content[type];
  if (type === 'application/json') {
    if (schema.$ref) expect(valid(schema.$ref.split('/').at(-1), body), `${path}: ${JSON.stringify(body).slice(0, 300)}: ${ajv.errorsText()}`).toBe(true);
    else expect(typeof body).toBe(schema.type);
  }
}

test('the document is whole: of this version, with every route and no other, and every reference leads somewhere', async () => {
  expect(document).toMatchObject({ openapi: '3.1.0', info: { title: 'embedcore', version: expect.stringMatching(/^\d+\.\d+\.\d+/) } });
  const { message } = (await get(server, '/nothing')).body.error;
  expect(Object.keys(document.paths).sort()).toEqual([...message.matchAll(/\/[\w/.]+(\{id\})?/g)].map(([route]) => route).filter((route) => route !== '/nothing').sort());
  for (const name of Object.keys(document.components.schemas)) expect(() => valid(name, {}), name).not.toThrow();
  const ids = Object.values<any>(document.paths).flatMap((operations) => Object.values<any>(operations).map(({ operationId }) => operationId));
  expect(new Set(ids).size).toBe(ids.length);
  for (const [, ref] of JSON.stringify(document).matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g)) expect(document.components.schemas).toHaveProperty(ref!);
});

test('every route answers as it says, in every method', async () => {
  for (const path of Object.keys(document.paths)) {
    const at = path.replace('{id}', 'bert');
    for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
      const answer = await get(server, at, { method });
      const known = document.paths[path][method.toLowerCase()];
      if (known) asSaid(path, method.toLowerCase(), answer);
      else expect([path, method, answer.status, answer.headers.get('allow')!.toLowerCase().split(', ').sort()]).toEqual([path, method, 405, Object.keys(document.paths[path]).sort()]);
    }
  }
  asSaid('/v1/models/{id}', 'get', await get(server, '/v1/models/no%20such'));
});

test('refusals are as it says, before, with and without a key', async () => {
  const locked = await started({ apiKey: 'secret', maxBatchItems: MOST_TEXTS });
  const Authorization = 'Bearer secret';
  const said = (await get(locked, '/openapi.json', { headers: { Authorization } })).body;
  expect(said).toMatchObject({ security: [{ key: [] }], components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } } });
  for (const [path, { get: read }] of Object.entries<any>(said.paths)) {
    if (!read) continue;
    const answer = await get(locked, path);
    asSaid(path, 'get', answer, said);
    expect([path, answer.status]).toEqual([path, read.security ? 200 : 401]);
  }
  asSaid('/v1/embeddings', 'post', await ask(locked, good), said);
  expect(document).not.toHaveProperty('security');
  for (const [headers, status] of [[{ 'Content-Type': 'text/plain' }, 415], [{ 'Content-Encoding': 'gzip' }, 415]] as const) {
    const answer = await ask(server, good, headers);
    expect(answer.status).toBe(status);
    asSaid('/v1/embeddings', 'post', answer);
  }
  asSaid('/v1/embeddings', 'post', await ask(server, 'x'.repeat(60_000)));
  const { EmbeddingError } = await import('embedcore');
  for (const code of ['TIMED_OUT', 'OVERLOADED', 'CLOSED', 'BACKEND_UNAVAILABLE', 'BACKEND_REJECTED', 'EMBEDDING_GENERATION_FAILED', 'MEMORY_LIMIT_EXCEEDED', 'INTERNAL'] as const) {
    const failing = await started({ generator: acting(async () => Promise.reject(new EmbeddingError(code, 'no'))) });
    asSaid('/v1/embeddings', 'post', await ask(failing, good));
  }
  const elsewhere = await raw(server, [post(good, 'Connection: close\r\n').replace('Host: localhost', 'Host: evil.example')]);
  for (const status of [...statuses(elsewhere), 408, 417, 431]) expect(document.paths['/v1/embeddings'].post.responses).toHaveProperty(String(status));
});

const blank = fc.constantFrom('', ' ', '\n\t', '\u00a0');
const word = fc.oneof({ weight: 6, arbitrary: fc.string({ unit: 'grapheme', maxLength: 30 }) }, { weight: 1, arbitrary: blank });
const odd = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constantFrom<unknown>(null, 0, -1, 1.5, 1e300, true, [], {}, [[1, 2]], 'x'));
const member = (...good: fc.Arbitrary<unknown>[]) => fc.oneof({ weight: 12, arbitrary: fc.oneof(...good) }, { weight: 1, arbitrary: odd });
const request = fc.record({
  model: member(fc.constantFrom('bert', 'ada', 'bert', 'ada', 'other')),
  input: member(word, fc.array(word, { minLength: 1, maxLength: MOST_TEXTS + 1 })),
  encoding_format: member(fc.constantFrom('float', 'base64', null)),
  dimensions: member(fc.integer({ min: 0, max: 33 }), fc.constant(null)),
  user: member(fc.string(), fc.constant(null)),
  input_type: member(fc.constantFrom('document', 'query', null)),
}, { requiredKeys: [] });
const stranger = fc.tuple(request, fc.dictionary(fc.string({ minLength: 1, maxLength: 12 }), odd, { maxKeys: 1 })).map(([known, more]) => ({ ...more, ...known }));
const likely = request.map((body) => ({ model: 'bert', input: 'a text', ...body }));
const body = fc.oneof({ weight: 6, arbitrary: likely as fc.Arbitrary<unknown> }, { weight: 2, arbitrary: stranger as fc.Arbitrary<unknown> }, { weight: 1, arbitrary: fc.jsonValue() as fc.Arbitrary<unknown> });

test('what the schema takes is answered, and nothing else is', { timeout: (seconds + 60) * 1000 }, async () => {
  const seen: Record<string, number> = {};
  const result = await fc.check(fc.asyncProperty(body, async (one) => {
    const answer = await ask(server, JSON.stringify(one));
    seen[answer.status] = (seen[answer.status] ?? 0) + 1;
    asSaid('/v1/embeddings', 'post', answer);
    // JSON has no -0, and what is sent is what the schema sees.
    const sent = JSON.parse(JSON.stringify(one)) as any;
    const taken = valid('EmbeddingsRequest', sent);
    expect(answer.status === 200, `${JSON.stringify(sent)}: ${answer.status} ${JSON.stringify(answer.body).slice(0, 200)}; the schema: ${ajv.errorsText()}`).toBe(taken);
    if (!taken) {
      expect([400, 404]).toContain(answer.status);
      return;
    }
    const { data } = answer.body as { data: { index: number; embedding: unknown }[] };
    expect(data.map(({ index }) => index)).toEqual([sent.input].flat().map((_: unknown, index: number) => index));
    for (const { embedding } of data) expect(Array.isArray(embedding)).toBe(sent.encoding_format !== 'base64');
  }), { numRuns: 1e9, interruptAfterTimeLimit: seconds * 1000 });
  tried(result);
  expect(seen).toMatchObject({ 200: expect.any(Number), 400: expect.any(Number) });
  if (process.env.EMBEDCORE_MODEL_SECONDS !== undefined) console.info(JSON.stringify(seen));
});
