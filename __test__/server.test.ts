import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { json as jsonOf } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';

import { OptimizedEmbeddingGenerator, PerformanceMonitor, type CallOptions, type EmbeddingMatrix } from 'embedcore';
import { EmbeddingServer, serve } from 'embedcore/server';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { acting, ask, decoded, generator, get, good, post, raw, started, statuses, type Answer } from './server-client';
import { copyOf, failure, model, root, texts } from './support';

/** A server that the tests share. */
let shared: EmbeddingServer;
beforeAll(async () => {
  shared = await serve({ generator, modelId: 'bert', aliases: ['text-embedding-3-small', 'a/b', 'é\u{1f600}'], port: 0 });
});
afterAll(async () => {
  await shared.close();
  await generator.cleanup();
});

describe('POST /v1/embeddings', () => {
  test('gives the vectors of the generator, as numbers and as base64, and the tokens', async () => {
    const input = texts(50);
    const matrix = await generator.embed(input);
    const tokens = matrix.tokenCounts.reduce((total, count) => total + count, 0);
    const { status, body } = await ask(shared, { model: 'bert', input });
    expect(status).toBe(200);
    expect(body).toMatchObject({ object: 'list', model: 'bert', usage: { prompt_tokens: tokens, total_tokens: tokens } });
    expect(body.data.map(({ index, object }: { index: number; object: string }) => [index, object])).toEqual(input.map((_, i) => [i, 'embedding']));
    body.data.forEach(({ embedding }: { embedding: number[] }, i: number) => expect(Float32Array.from(embedding)).toEqual(matrix.row(i).slice()));
    const coded = await ask(shared, { model: 'a/b', input, encoding_format: 'base64', user: 'me' });
    expect(coded.body.model).toBe('a/b');
    coded.body.data.forEach(({ embedding }: { embedding: string }, i: number) => expect(decoded(embedding)).toEqual(matrix.row(i).slice()));
    expect((await ask(shared, { model: 'é\u{1f600}', input: 'a' })).body.model).toBe('é\u{1f600}');
    const one = await ask(shared, { input: input[3], model: 'bert', encoding_format: null, dimensions: null, user: null, input_type: null });
    expect(one.body.data.map(({ embedding }: { embedding: number[] }) => Float32Array.from(embedding))).toEqual([matrix.row(3).slice()]);
  });

  test.each(['float', 'base64'])('of many texts, in pieces: %s', async (encoding_format) => {
    const input = texts(2048);
    const matrix = await generator.embed(input);
    const answer = await fetch(`${shared.url}/v1/embeddings`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ model: 'bert', input, encoding_format }),
    });
    expect(answer.headers.get('transfer-encoding')).toBe('chunked');
    const { data } = (await answer.json()) as { data: { embedding: number[] | string }[] };
    data.forEach(({ embedding }, i) => expect(typeof embedding === 'string' ? decoded(embedding) : Float32Array.from(embedding)).toEqual(matrix.row(i).slice()));
  });

  test('numbers are the shortest that read back as the same 32-bit value', async () => {
    const { dimensions } = generator.getModelInfo();
    const data = new Float32Array(2 * dimensions);
    data.set([0.042553097009658813, 1, -0, 3e-12, 16_777_216, 3.4028234663852886e38, 0.1, -1.5]);
    for (let i = 8; i < data.length; i++) data[i] = Math.sin(i) / 10;
    const server = await started({
      generator: acting(async () => ({ data, rows: 2, dimensions, tokenCounts: new Uint32Array(2), truncated: Uint8Array.of(0, 1), fromCache: new Uint8Array(2) })),
    });
    const answer = await fetch(`${server.url}/v1/embeddings`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"model":"bert","input":["a","b"]}' });
    const text = await answer.text();
    expect(text).toContain('"embedding":[0.042553097,1,-0,3e-12,16777216,3.4028235e+38,0.1,-1.5,');
    const parsed = JSON.parse(text) as { data: { embedding: number[]; truncated?: boolean }[] };
    expect(Float32Array.from(parsed.data.flatMap(({ embedding }) => embedding))).toEqual(data);
    expect(parsed.data.map(({ truncated }) => truncated)).toEqual([undefined, true]);
    for (const number of text.matchAll(/[[,](-?[\d.e-]+)(?=[,\]])/g)) expect(number[1]!.replace(/e.*|^-?0?\.?0*|\D/g, '').length, number[1]).toBeLessThanOrEqual(9);
  });

  test('answers are made by turns', async () => {
    const { dimensions } = generator.getModelInfo();
    const rows = 20_000;
    const matrix = { data: new Float32Array(rows * dimensions).fill(0.123456), rows, dimensions, tokenCounts: new Uint32Array(rows), truncated: new Uint8Array(rows), fromCache: new Uint8Array(rows) };
    let both = 0;
    const server = await started({
      generator: acting(async () => {
        both++;
        await expect.poll(() => both, { interval: 5 }).toBe(2);
        return matrix;
      }),
    });
    let order = '';
    const read = async (name: string) => {
      const answer = await fetch(`${server.url}/v1/embeddings`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: good });
      for await (const chunk of answer.body!) order += chunk.length > 0 ? name : '';
    };
    await Promise.all([read('a'), read('b')]);
    expect(order).toMatch(/ab+a|ba+b/);
  });

  test('keeps the first dimensions, as a generator with that option', async () => {
    const cut = new OptimizedEmbeddingGenerator({ modelPath: model('bert-mean'), dimensions: 5 });
    onTestFinished(() => cut.cleanup());
    await cut.initialize();
    const expected = (await cut.embed(['open a file'])).row(0);
    const { body } = await ask(shared, { model: 'bert', input: 'open a file', dimensions: 5 });
    expect(body.data[0].embedding.length).toBe(5);
    body.data[0].embedding.forEach((value: number, i: number) => expect(value).toBeCloseTo(expected[i]!, 6));
    const { dimensions } = generator.getModelInfo();
    expect((await ask(shared, { model: 'bert', input: 'a', dimensions })).body.data[0].embedding.length).toBe(dimensions);
  });

  test('a generator that embeds in a way of its own is asked in that way, and answered alike', async () => {
    const asked: unknown[] = [];
    class Own extends OptimizedEmbeddingGenerator {
      override async embed(texts: readonly string[], options?: CallOptions): Promise<EmbeddingMatrix> {
        asked.push([texts, options?.inputType]);
        return super.embed(texts, options);
      }
    }
    const own = new Own({ modelPath: model('bert-mean') });
    onTestFinished(() => own.cleanup());
    const server = await started({ generator: own });
    const input = ['a', 'é \u{1f600}', 'c'];
    for (const request of [{}, { encoding_format: 'base64' }, { dimensions: 5 }, { input_type: 'query' }]) {
      const body = { model: 'bert', input, ...request };
      expect((await ask(server, body)).body).toEqual((await ask(shared, body)).body);
      expect(asked.pop()).toEqual([input, (request as { input_type?: string }).input_type ?? 'document']);
    }
    const { text } = await get(server, '/metrics');
    expect(text).toContain(`embedcore_server_texts_total ${4 * input.length}\n`);
  });

  test('knows documents from queries, and says what was cut', async () => {
    const server = await started({ generator: { modelPath: model('bert-mean'), prompts: { query: 'find: ' }, maxLength: 8 } });
    const [document, same, query] = await Promise.all(['document', undefined, 'query'].map((input_type) => ask(server, { model: 'bert', input: ['a b c', 'a b c d e f g h i j'], input_type })));
    const vectors = ({ body }: Answer) => body.data.map(({ embedding }: { embedding: number[] }) => embedding);
    expect(vectors(same!)).toEqual(vectors(document!));
    expect(vectors(query!)).not.toEqual(vectors(document!));
    expect(document!.body.data.map(({ truncated }: { truncated?: boolean }) => truncated)).toEqual([undefined, true]);
  });

  test('reads any JSON that says the same', async () => {
    const expected = (await generator.embed(['é "\n\u{1f600} /'])).row(0);
    for (const body of [
      '\ufeff{"model":"bert","input":"é \\"\\n😀 /"}',
      ' {\n\t"input" : [ "\\u00e9 \\"\\u000a\\ud83d\\ude00 \\/" ] ,\r\n "model": "\\u0062ert" } \n',
      '{"dimensions":null,"mod\\u0065l":"bert","input":"é \\"\\n😀 /","encoding_format":"float"}',
    ]) {
      const answer = await ask(shared, body);
      expect(answer.body).not.toHaveProperty('error');
      expect(Float32Array.from(answer.body.data[0].embedding)).toEqual(expected.slice());
    }
    expect((await ask(shared, { model: 'bert', input: 'a\ud800b' })).status).toBe(200);
  });

  test('refuses what JSON.parse refuses, and takes what it takes', async () => {
    let state = 7;
    const random = (below: number) => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) % below;
    const seeds = ['{"model":"bert","input":["a","b\\n\\u0041"],"dimensions":8}', '{"input":"é\\\\\\"","user":"u","model":"bert","encoding_format":"base64"}', '{"model":"bert","input":["x"],"dimensions":null}'];
    const signs = ['"', '\\', '{', '}', '[', ']', ',', ':', ' ', '\n', '0', '1', '-', '.', 'e', 'u', 'null', 'true', '\u0001', 'é', 'a'];
    let [taken, refused] = [0, 0];
    for (let i = 0; i < 600; i++) {
      let body = seeds[random(seeds.length)]!;
      for (let change = random(3); change >= 0; change--) {
        const at = random(body.length + 1);
        const kind = random(3);
        if (random(2) === 0) body = `${body.slice(0, at)} ${body.slice(at)}`;
        else body = body.slice(0, at) + (kind === 0 ? '' : signs[random(signs.length)]!) + body.slice(kind === 1 ? at : at + 1);
      }
      const { status, body: answer } = await ask(shared, body);
      let parsed: { model?: unknown; input?: unknown } | undefined;
      try {
        parsed = JSON.parse(body) as object;
      } catch {
        // It is not JSON.
      }
      if (status === 200) taken++;
      else refused++;
      expect([200, 400, 404], body).toContain(status);
      if (status === 200) expect(parsed, body).toMatchObject({ model: 'bert', input: expect.anything() });
      if (status === 200) expect(answer.data.length, body).toBe([parsed!.input].flat().length);
      if (answer.error?.code === 'invalid_json') expect(parsed, body).toBeUndefined();
    }
    expect(taken).toBeGreaterThan(20);
    expect(refused).toBeGreaterThan(20);
  });

  test.each<[body: string, status: number, param: string | null, message: RegExp]>([
    ['', 400, null, /is empty/],
    ['   ', 400, null, /JSON: EOF while parsing a value at line 1 column 3/],
    ['nonsense', 400, null, /JSON: expected/],
    ['[]', 400, null, /an array, not a JSON object/],
    ['{}', 400, 'model', /provide a model/],
    ['{"model":"bert"}', 400, 'input', /provide an input/],
    ['{"model":5,"input":"a"}', 400, 'model', /model is 5/],
    ['{"model":["bert"],"input":"a"}', 400, 'model', /an array, not a string/],
    ['{"model":"gpt","input":"a"}', 404, 'model', /"gpt" does not exist.*"bert"/],
    ['{"model":"bert","input":null}', 400, 'input', /null, not a string/],
    ['{"model":"bert","input":{}}', 400, 'input', /an object, not a string/],
    ['{"model":"bert","input":[]}', 400, 'input', /empty array/],
    ['{"model":"bert","input":""}', 400, 'input', /empty string/],
    ['{"model":"bert","input":["a",""]}', 400, 'input', /input\[1\] is an empty string/],
    ['{"model":"bert","input":["\\u0085\\u2003"]}', 400, 'input', /input\[0\] is an empty string but for white space/],
    ['{"model":"bert","input":[" \\n"]}', 400, 'input', /input\[0\] is an empty string but for white space/],
    ['{"model":"bert","input":["a",null]}', 400, 'input', /input\[1\] is null/],
    ['{"model":"bert","input":[1,2,3]}', 400, 'input', /token ids/],
    ['{"model":"bert","input":[[1,2],[3]]}', 400, 'input', /token ids/],
    ['{"model":"bert","input":"a","encoding_format":"hex"}', 400, 'encoding_format', /"hex"/],
    ['{"model":"bert","input":"a","dimensions":0}', 400, 'dimensions', /whole number from 1/],
    ['{"model":"bert","input":"a","dimensions":1.5}', 400, 'dimensions', /1\.5/],
    ['{"model":"bert","input":"a","dimensions":"8"}', 400, 'dimensions', /"8"/],
    ['{"model":"bert","input":"a","dimensions":9999}', 400, 'dimensions', /from 1 to 32/],
    ['{"model":"bert","input":"a","user":5}', 400, 'user', /5, not a string/],
    ['{"model":"bert","input":"a","input_type":"passage"}', 400, 'input_type', /"passage"/],
    ['{"model":"bert","input":"a","truncate":true}', 400, 'truncate', /Unknown parameter/],
    ['{"model":"bert","input":"a","__proto__":{}}', 400, '__proto__', /Unknown parameter/],
    ['{"model":"bert","input":"a","input":"b"}', 400, 'input', /twice/],
    ['{"model":"bert","input":"a"', 400, null, /EOF while parsing an object at line 1 column 27/],
    ['{"model":"bert","input":"a"}}', 400, null, /trailing characters at line 1 column 29/],
    ['{"model":"bert","input":"a",}', 400, null, /trailing comma/],
    ['{"model":"bert","input":"a\u0007"}', 400, null, /control character .* at line 1 column/],
    ['{"model":"bert","input":"\\x"}', 400, null, /escape/],
    ["{'model':'bert'}", 400, null, /key must be a string/],
  ])('%s', async (sent, status, param, message) => {
    const { status: got, body, headers } = await ask(shared, sent);
    expect(body.error).toMatchObject({ message: expect.stringMatching(message), type: 'invalid_request_error', param });
    expect(Object.keys(body.error)).toEqual(['message', 'type', 'param', 'code']);
    expect(got).toBe(status);
    expect(headers.get('content-type')).toBe('application/json; charset=utf-8');
  });

  test('refuses what is too much, and what is not UTF-8', async () => {
    const server = await started({ maxBatchItems: 3, maxBodyMB: 0.01 });
    expect((await ask(server, { model: 'bert', input: ['a', 'b', 'c'] })).status).toBe(200);
    expect((await ask(server, { model: 'bert', input: ['a', 'b', 'c', 'd'] })).body.error).toMatchObject({ param: 'input', code: 'array_above_max_length', message: expect.stringContaining('3 texts') });
    expect(await ask(server, { model: 'bert', input: 'a'.repeat(11_000) })).toMatchObject({ status: 413, body: { error: { message: expect.stringContaining('10485 bytes') } } });
    expect((await ask(server, Buffer.from([...Buffer.from('{"model":"bert","input":"'), 0xff, ...Buffer.from('"}')]))).body.error.message).toContain('UTF-8');
    expect(await ask(shared, { model: 'bert', input: ['a', 'b'.repeat(1_100_000)] })).toMatchObject({ status: 400, body: { error: { param: 'input', code: 'input_too_long', message: expect.stringContaining('Text 1') } } });
  });

  test('brackets by the million hold nobody up', async () => {
    const deep = `${'['.repeat(1_500_000)}${']'.repeat(1_500_000)}`;
    expect((await ask(shared, `{"model":"bert","input":${deep}}`)).body.error.message).toContain('input[0] is an array');
    expect((await ask(shared, `{"model":"bert","input":"a","user":${deep}}`)).body.error.param).toBe('user');
    expect((await ask(shared, deep.slice(0, -1))).status).toBe(400);
    expect((await ask(shared, `{"model":${' '.repeat(3_000_000)}"bert","input":"a"}`)).status).toBe(200);
    expect((await ask(shared, `{"model":"bert","input":"${'\\"'.repeat(400_000)}"}`)).status).toBe(200);
    expect((await ask(shared, `{${'"'.padEnd(3_000_000, 'k')}":1}`)).body.error.param.length).toBeLessThan(50);
  });

  test('the errors of the generator have a status', async () => {
    const { EmbeddingError, EmbeddingGenerationError, MemoryLimitError } = await import('embedcore');
    let error: Error = new Error('unexpected');
    const server = await started({ generator: acting(async () => Promise.reject(error)) });
    for (const [thrown, status, retry] of [
      [new MemoryLimitError('too large'), 413, false],
      [new MemoryLimitError('no room now', { retryable: true }), 503, true],
      [new EmbeddingError('TIMED_OUT', 'late', { retryable: true }), 504, false],
      [new EmbeddingError('OVERLOADED', 'full', { retryable: true }), 429, true],
      [new EmbeddingError('CLOSED', 'closed'), 503, true],
      [new EmbeddingGenerationError('no numbers'), 500, false],
      [new Error('unexpected'), 500, false],
    ] as const) {
      error = thrown;
      const answer = await ask(server, good);
      expect(answer.status, thrown.message).toBe(status);
      expect(answer.headers.has('retry-after'), thrown.message).toBe(retry);
    }
  });
});

describe('other routes', () => {
  test('/v1/models', async () => {
    const { body } = await get(shared, '/v1/models');
    expect(body).toMatchObject({ object: 'list', data: [{ id: 'bert', object: 'model', owned_by: 'embedcore' }, { id: 'text-embedding-3-small' }, { id: 'a/b' }, { id: 'é\u{1f600}' }] });
    expect(Math.abs(body.data[0].created - Date.now() / 1000)).toBeLessThan(3600);
    for (const path of ['/v1/models/bert', '/v1/models/a/b', '/v1/models/a%2Fb', '/v1/models/bert/?x=1']) expect(await get(shared, path)).toMatchObject({ status: 200, body: { object: 'model' } });
    for (const path of ['/v1/models/gpt', '/v1/models/%ff']) expect(await get(shared, path)).toMatchObject({ status: 404, body: { error: { code: 'model_not_found' } } });
  });

  test('/health, /info and HEAD', async () => {
    for (const path of ['/health', '/health/ready']) expect(await get(shared, path)).toMatchObject({ status: 200, body: { status: 'ok', live: true, ready: true } });
    expect((await get(shared, '/health/live')).status).toBe(200);
    expect((await get(shared, '/info')).body).toMatchObject({ model_id: 'bert', aliases: ['text-embedding-3-small', 'a/b', 'é\u{1f600}'], dimensions: 32, max_client_batch_size: 2048, fingerprint: generator.getModelInfo().fingerprint });
    const head = await get(shared, '/info', { method: 'HEAD' });
    expect([head.status, head.text]).toEqual([200, '']);
    expect(Number(head.headers.get('content-length'))).toBeGreaterThan(100);
  });

  test('/metrics counts what was', async () => {
    const monitor = new PerformanceMonitor();
    const server = await started({ monitor, generator: { modelPath: model('bert-mean') } });
    await ask(server, { model: 'bert', input: ['a', 'b', 'a c'] });
    const { body } = await ask(server, { model: 'bert', input: ['a'] });
    await ask(server, '{');
    const { text, headers } = await get(server, '/metrics');
    expect(headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
    const value = (name: string) => Number(text.split('\n').find((line) => line.startsWith(`${name} `))?.split(' ').at(-1));
    expect(value('embedcore_server_texts_total')).toBe(4);
    expect(value('embedcore_server_tokens_total')).toBeGreaterThan(body.usage.total_tokens);
    expect(value('embedcore_server_requests_total{status="200"}')).toBe(2);
    expect(value('embedcore_server_requests_total{status="400"}')).toBe(1);
    expect(value('embedcore_server_queued_bytes')).toBe(0);
    expect(value('embedcore_server_queued_requests')).toBe(0);
    expect(monitor.getStats('POST /v1/embeddings')).toMatchObject({ count: 3, errors: 1, items: 4 });
    expect(monitor.getSummary().caches.byType.embedding).toMatchObject({ hits: 1, misses: 3 });
    const names = text.split('\n').filter((line) => line.startsWith('# TYPE')).map((line) => line.split(' ')[2]);
    expect(new Set(names).size).toBe(names.length);
  });

  test('unknown paths, wrong methods and types', async () => {
    expect(await get(shared, '/nothing')).toMatchObject({ status: 404, body: { error: { code: 'unknown_url', message: expect.stringContaining('GET /nothing') } } });
    // Those who believe that they speak to a proxy send the whole address.
    expect(statuses(await raw(shared, ['GET http://localhost:1/v1/models?x=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n']))).toEqual([200]);
    expect((await get(shared, '/embeddings', { method: 'POST' })).body.error.message).toContain('did you mean /v1/embeddings?');
    for (const path of ['/constructor', '/__proto__', '//']) expect((await get(shared, path)).status).toBe(404);
    const wrong = await get(shared, '/v1/embeddings');
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'POST']);
    expect((await get(shared, '/health', { method: 'DELETE' })).headers.get('allow')).toBe('GET, HEAD');
    for (const headers of [{ 'Content-Type': 'text/plain' }, { 'Content-Type': 'application/x-www-form-urlencoded' }, { 'Content-Type': '' }, { 'Content-Type': 'application/jsonx' }, { 'Content-Encoding': 'gzip' }]) {
      expect((await ask(shared, good, headers)).status, JSON.stringify(headers)).toBe(415);
    }
    expect((await ask(shared, good, { 'Content-Type': 'application/json; charset=utf-8' })).status).toBe(200);
  });

  test('ids of requests', async () => {
    const headers = async (given: Record<string, string>) => (await ask(shared, good, given)).headers.get('x-request-id')!;
    expect(await headers({ 'X-Request-Id': 'abc-1' })).toBe('abc-1');
    const [first, second] = [await headers({}), await headers({ 'X-Request-Id': 'a b' })];
    expect(first).toMatch(/^[0-9a-f-]{36}$/);
    expect(second).toMatch(/^[0-9a-f-]{36}$/);
    expect(first).not.toBe(second);
  });
});

test('keys', async () => {
  const server = await started({ apiKey: ['first', 'second'] });
  for (const key of ['first', 'second']) expect((await ask(server, good, { Authorization: `Bearer ${key}` })).status).toBe(200);
  for (const headers of [{}, { Authorization: 'Bearer ' }, { Authorization: 'Bearer third' }, { Authorization: 'first' }, { Authorization: 'Basic first' }]) {
    const answer = await ask(server, good, headers as Record<string, string>);
    expect(answer).toMatchObject({ status: 401, body: { error: { code: 'invalid_api_key' } } });
    expect(answer.headers.get('www-authenticate')).toBe('Bearer');
    expect(JSON.stringify(answer.body)).not.toContain('second');
  }
  for (const path of ['/v1/models', '/info', '/metrics']) expect((await get(server, path)).status).toBe(401);
  for (const path of ['/health', '/health/live', '/health/ready']) expect((await get(server, path)).status).toBe(200);
});

describe('HTTP that is not as it should be', () => {
  test.each<[what: string, pieces: string[], statuses: number[], end?: boolean]>([
    ['no HTTP at all', ['hello\r\n\r\n'], [400]],
    ['a header that is none', ['GET /health HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n'], [400]],
    ['no Host', ['GET /health HTTP/1.1\r\n\r\n'], [400]],
    ['headers without end', [`GET /health HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}`], [431]],
    ['two lengths', ['POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n'], [400]],
    ['a length and chunks', ['POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'], [400]],
    ['a negative length', ['POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n'], [400]],
    ['a length that is too small', [post(good).replace(/Content-Length: \d+/, 'Content-Length: 10')], [400, 400]],
    ['a length that is too large, then the end', [post(good).replace(/Content-Length: \d+/, 'Content-Length: 100')], [400], true],
    ['a body cut off in chunks', ['POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"mod'], [400], true],
    ['chunks that are none', ['POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n'], [400]],
    ['an expectation', [post(good, 'Expect: the-best\r\nConnection: close\r\n')], [417]],
    ['a good request and then none', [`${post(good)}nonsense\r\n\r\n`], [200, 400]],
    ['a good request and half of one', [post(good), 'GET /he'], [200, 400], true],
    ['version 1.0', [post(good).replace('HTTP/1.1', 'HTTP/1.0')], [200]],
  ])('%s', async (_, pieces, expected, end = false) => {
    const text = await raw(shared, pieces, { end });
    expect(statuses(text)).toEqual(expected);
    if (expected.some((status) => status >= 400)) expect(text).toMatch(/\{"error":\{"message":.*"type":"invalid_request_error"/);
    expect((await ask(shared, good)).status).toBe(200);
  });

  test('requests in one go are answered in order', async () => {
    const count = 30;
    const requests = Array.from({ length: count }, (_, i) => (i % 3 === 2 ? post('{') : post(`{"model":"bert","input":"text ${i}"}`, i === count - 1 ? 'Connection: close\r\n' : '')));
    requests[count - 1] = post(`{"model":"bert","input":"last"}`, 'Connection: close\r\n');
    const text = await raw(shared, [requests.join('')]);
    expect(statuses(text)).toEqual(Array.from({ length: count }, (_, i) => (i % 3 === 2 && i < count - 1 ? 400 : 200)));
    const vectors = [...text.matchAll(/"embedding":\[([^\]]*)\]/g)].map(([, numbers]) => JSON.parse(`[${numbers}]`) as number[]);
    expect(Float32Array.from(vectors[1]!)).toEqual((await generator.embed(['text 1'])).row(0).slice());
    expect(Float32Array.from(vectors.at(-1)!)).toEqual((await generator.embed(['last'])).row(0).slice());
  });

  test('a body in chunks, of one byte each', async () => {
    const chunks = [...good].map((sign) => `1\r\n${sign}\r\n`).join('');
    expect(statuses(await raw(shared, [`POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}0\r\n\r\n`]))).toEqual([200]);
  });

  test('whoever asks first is told before the body is sent', async () => {
    const [head, body] = post(good, 'Expect: 100-continue\r\nConnection: close\r\n').split(/(?<=\r\n\r\n)/) as [string, string];
    const socket = connect(shared.port, '127.0.0.1');
    socket.write(head);
    const [first] = (await once(socket, 'data')) as [Buffer];
    expect(first.toString()).toBe('HTTP/1.1 100 Continue\r\n\r\n');
    socket.write(body);
    const [second] = (await once(socket, 'data')) as [Buffer];
    expect(statuses(second.toString())).toEqual([200]);
    socket.destroy();
    const large = head.replace(/Content-Length: \d+/, `Content-Length: ${1 << 30}`);
    expect(statuses(await raw(shared, [large]))).toEqual([413]);
    expect(statuses(await raw(shared, [head.replace('application/json', 'text/plain')]))).toEqual([415]);
  });

  test('a body that is too large is answered while it is sent', async () => {
    const server = await started({ maxBodyMB: 0.1 });
    const piece = 'x'.repeat(100_000);
    const lengths = await raw(server, ['POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500000\r\n\r\n', ...Array<string>(5).fill(piece)], { readLast: true });
    expect(statuses(lengths)).toEqual([413]);
    const chunk = `${piece.length.toString(16)}\r\n${piece}\r\n`;
    const chunked = await raw(server, ['POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n', ...Array<string>(5).fill(chunk), '0\r\n\r\n'], { readLast: true });
    expect(statuses(chunked)).toEqual([413]);
    expect((await get(server, '/metrics')).text).toContain('embedcore_server_queued_bytes 0\n');
  });

  test('who is slow is not waited for', async () => {
    const server = await started({ bodyTimeoutMs: 300 });
    const request = post(good);
    const body = await raw(server, [request.slice(0, -5)]);
    expect(statuses(body)).toEqual([408]);
    expect(body).toMatch(/did not come within 300 ms: 23 of 28 bytes/);
    expect(statuses(await raw(server, ['POST /v1/embeddings HTTP/1.1\r\nHost:']))).toEqual([408]);
    expect((await ask(server, good)).status).toBe(200);
  });

  test('random bytes', async () => {
    let state = 3;
    const random = () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
    for (let round = 0; round < 300; round++) {
      const bytes = Buffer.from(round % 2 ? post(good) : '');
      const noise = Buffer.from(Array.from({ length: 1 + Math.floor(random() * 300) }, () => random() * 256));
      const at = Math.floor(random() * bytes.length);
      const sent = Buffer.concat([bytes.subarray(0, at), noise, bytes.subarray(at)]);
      for (const status of statuses(await raw(shared, [sent], { end: true }))) expect([200, 400, 404, 405, 408, 413, 415, 417, 431]).toContain(status);
    }
    expect((await ask(shared, good)).status).toBe(200);
  });
});

describe('many clients', () => {
  test('200 at a time, each with its own vectors', async () => {
    const input = texts(200);
    const matrix = await generator.embed(input);
    await Promise.all(
      input.map(async (text, i) => {
        for (let round = 0; round < 3; round++) {
          const { status, body } = await ask(shared, { model: 'bert', input: [text, `${text} ${round}`], encoding_format: 'base64' });
          expect(status).toBe(200);
          expect(decoded(body.data[0].embedding)).toEqual(matrix.row(i).slice());
        }
      }),
    );
  });

  test('more than there is room for are asked to come back', async () => {
    let release = () => {};
    const wait = new Promise<void>((resolve) => (release = resolve));
    const server = await started({ generator: acting(async (input) => (await wait, generator.embed(input))), maxQueuedRequests: 2 });
    const first = [ask(server, good), ask(server, good)];
    await expect.poll(async () => (await get(server, '/metrics')).text).toContain('queued_requests 2\n');
    const busy = await ask(server, good);
    expect(busy).toMatchObject({ status: 429, body: { error: { type: 'rate_limit_exceeded', code: 'overloaded', message: expect.stringContaining('2 requests') } } });
    expect(Number(busy.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    expect((await get(server, '/health')).status).toBe(200);
    release();
    for (const answer of await Promise.all(first)) expect(answer.status).toBe(200);
    expect((await ask(server, good)).status).toBe(200);
  });

  test('nor is there room for any number of bytes, but for one request alone', async () => {
    let release = () => {};
    const wait = new Promise<void>((resolve) => (release = resolve));
    const server = await started({ generator: acting(async (input) => (await wait, generator.embed(input))), maxQueuedMB: 1 });
    const large = { model: 'bert', input: Array.from({ length: 20 }, () => 'a '.repeat(40_000)) };
    const alone = ask(server, large);
    await expect.poll(async () => (await get(server, '/metrics')).text).toContain('queued_requests 1\n');
    expect(await ask(server, good)).toMatchObject({ status: 429, body: { error: { message: expect.stringContaining('1 MB') } } });
    release();
    expect((await alone).status).toBe(200);
    expect((await ask(server, good)).status).toBe(200);
  });

  test.each(['alone', 'behind others on its connection'])('who goes away stops the work: %s', async (how) => {
    const signals: AbortSignal[] = [];
    const server = await started({
      generator: acting(async (_, { signal }) => {
        signals.push(signal!);
        await once(signal!, 'abort');
        throw signal!.reason;
      }),
    });
    const socket = connect(server.port, '127.0.0.1');
    const count = how === 'alone' ? 1 : 15;
    socket.write(post(good).repeat(count));
    await expect.poll(() => signals.length).toBe(count);
    socket.destroy();
    await expect.poll(() => signals.every(({ aborted }) => aborted)).toBe(true);
    await expect.poll(async () => (await get(server, '/metrics')).text).toContain('queued_requests 0\n');
  });

  test('who takes no answer holds up nobody else', async () => {
    const socket = connect(shared.port, '127.0.0.1');
    onTestFinished(() => void socket.destroy());
    socket.pause();
    const body = JSON.stringify({ model: 'bert', input: texts(2048) });
    socket.write(post(body).repeat(6));
    await sleep(300);
    expect((await ask(shared, good)).status).toBe(200);
  });
});

describe('from start to end', () => {
  test('it is live before it is ready', async () => {
    let release = () => {};
    const wait = new Promise<void>((resolve) => (release = resolve));
    let loaded = false;
    const late = acting((input) => generator.embed(input), { isReady: () => loaded, initialize: async () => (await wait, void (loaded = true)) });
    const server = new EmbeddingServer({ generator: late, modelId: 'bert', port: 0 });
    onTestFinished(() => server.close());
    const listening = server.listen();
    await expect.poll(() => server.port).not.toBe(0);
    expect((await get(server, '/health/live')).status).toBe(200);
    expect(await get(server, '/health')).toMatchObject({ status: 503, body: { status: 'loading', live: true, ready: false } });
    expect((await get(server, '/info')).body).toMatchObject({ model_id: 'bert' });
    const early = await ask(server, good);
    expect([early.status, early.headers.get('retry-after'), early.body.error.code]).toEqual([503, '1', 'not_ready']);
    release();
    expect(await listening).toBe(server);
    expect((await ask(server, good)).status).toBe(200);
    expect((await failure(() => server.listen())).code).toBe('INVALID_ARGUMENT');
  });

  test('what runs is finished, what is new is refused', async () => {
    let release = () => {};
    const wait = new Promise<void>((resolve) => (release = resolve));
    const server = await started({ generator: acting(async (input) => (await wait, generator.embed(input))) });
    const running = ask(server, good);
    await expect.poll(async () => (await get(server, '/metrics')).text).toContain('queued_requests 1\n');
    const closing = server.close();
    const refused = await ask(server, good);
    expect([refused.status, refused.body.error.code, refused.headers.get('connection')]).toEqual([503, 'shutting_down', 'close']);
    expect(await get(server, '/health')).toMatchObject({ status: 503, body: { status: 'shutting down', live: true, ready: false } });
    expect((await get(server, '/health/live')).status).toBe(200);
    release();
    expect((await running).status).toBe(200);
    await closing;
    await expect(ask(server, good)).rejects.toThrow();
    expect(generator.isReady()).toBe(true);
    await server.close();
  });

  test('what does not end in time is stopped, and told so', async () => {
    const server = await started({ generator: acting(async (_, { signal }) => (await once(signal!, 'abort'), Promise.reject(new (await import('embedcore')).EmbeddingError('ABORTED', 'stop')))) });
    const running = ask(server, good);
    const reading = connect(server.port, '127.0.0.1');
    reading.write(post(good).slice(0, -3));
    await expect.poll(async () => (await get(server, '/metrics')).text).toContain('queued_requests 1\n');
    await server.close({ timeoutMs: 50 });
    expect(await running).toMatchObject({ status: 503, body: { error: { code: 'shutting_down' } } });
    reading.destroy();
  });

  test('its own generator is cleaned up', async () => {
    const server = await started({ generator: { modelPath: copyOf('bert-mean') } });
    expect(server.models[0]).toBe('bert');
    await server[Symbol.asyncDispose]();
    const named = await serve({ generator: { modelPath: model('bert-mean') }, port: 0 });
    onTestFinished(() => named.close());
    expect(named.models).toEqual(['bert-mean']);
    expect(named.url).toBe(`http://127.0.0.1:${named.port}`);
  });

  test('what cannot be is refused', async () => {
    const taken = await failure(() => serve({ generator, port: shared.port }));
    expect(taken).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'port', port: shared.port }, message: expect.stringContaining('in use') });
    expect(await failure(() => serve({ generator, host: 'no.such.host.invalid', port: 0 }))).toMatchObject({ code: 'INVALID_CONFIG' });
    expect(await failure(() => serve({ generator: { modelPath: '/no/such/model' }, port: 0 }))).toMatchObject({ code: 'MODEL_INIT_FAILED' });
    for (const [options, option] of [
      [{ port: 70_000 }, 'port'],
      [{ port: '80' }, 'port'],
      [{ host: '' }, 'host'],
      [{ apiKey: '' }, 'apiKey'],
      [{ apiKey: [] }, 'apiKey'],
      [{ aliases: 'a' }, 'aliases'],
      [{ modelId: 5 }, 'modelId'],
      [{ maxBatchItems: 0 }, 'maxBatchItems'],
      [{ maxBodyMB: NaN }, 'maxBodyMB'],
      [{ maxQueuedRequests: 1.5 }, 'maxQueuedRequests'],
      [{ monitor: {} }, 'monitor'],
      [{ generator: 5 }, 'generator'],
      [{ generator: { modelpath: 'a' } }, 'generator.modelpath'],
      [{ model: 'a' }, 'model'],
    ] as const) {
      const error = await failure(() => serve(options as never));
      expect(error.code, JSON.stringify(options)).toBe('INVALID_CONFIG');
      expect(error.message).toContain(`\`${option}\``);
    }
    expect(await failure(() => serve(null as never))).toMatchObject({ code: 'INVALID_CONFIG', message: 'The options are null, not an object of options' });
  });
});

describe('npx embedcore serve', () => {
  /** Starts it, and gives its address once it has said it. */
  async function command(...args: string[]) {
    const child = spawn(process.execPath, [join(root, 'cli', 'embedcore.js'), 'serve', '--port', '0', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    let [out, err] = ['', ''];
    child.stdout.on('data', (piece) => (out += piece));
    child.stderr.on('data', (piece) => (err += piece));
    const exit = once(child, 'exit') as Promise<[number | null, string | null]>;
    await Promise.race([expect.poll(() => out, { timeout: 30_000 }).toMatch(/served at/), exit]);
    return { child, url: /http:\S+/.exec(out)?.[0], exit, out: () => out, err: () => err };
  }

  const body = (input: string | string[], name = 'bert-mean') => ({ method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ model: name, input }) });

  test.each(['SIGTERM', 'SIGINT'] as const)('%s: what runs is answered, then it ends with 0', async (signal) => {
    const { child, url, exit, err } = await command('--model', model('bert-mean'), '--alias', 'other', '--max-batch-items', '4000');
    const { body: sent, headers, method } = body(texts(3000), 'other');
    const running = request(`${url}/embeddings`, { method, headers: { ...headers, Expect: '100-continue' } });
    running.flushHeaders();
    // It has arrived, and the rest of it comes when the server is on its way out.
    await once(running, 'continue');
    child.kill(signal);
    await expect.poll(err).toContain('Finishing');
    running.end(sent);
    const [answer] = (await once(running, 'response')) as [IncomingMessage];
    expect(answer.statusCode).toBe(200);
    expect(((await jsonOf(answer)) as { data: unknown[] }).data.length).toBe(3000);
    expect(await exit).toEqual([0, null]);
    expect(err()).toBe('Finishing what runs …\n');
  });

  test('a second signal ends it at once', async () => {
    const { child, url, exit, err } = await command('--model', model('bert-mean'));
    const socket = connect(Number(new URL(url!).port), '127.0.0.1');
    onTestFinished(() => void socket.destroy());
    socket.on('error', () => {});
    socket.write(post(good, 'Expect: 100-continue\r\n').slice(0, -good.length));
    await once(socket, 'data');
    child.kill('SIGTERM');
    await expect.poll(err, { timeout: 10_000 }).toContain('Finishing');
    child.kill('SIGTERM');
    expect(await exit).toEqual([143, null]);
  });

  test('with a key from the environment, and nothing to do', async () => {
    process.env.EMBEDCORE_API_KEY = 'secret';
    onTestFinished(() => void delete process.env.EMBEDCORE_API_KEY);
    const { child, url, exit, out } = await command('--model', model('bert-mean'));
    expect(out()).not.toContain('secret');
    expect((await fetch(`${url}/models`)).status).toBe(401);
    expect((await fetch(`${url}/models`, { headers: { Authorization: 'Bearer secret' } })).status).toBe(200);
    child.kill('SIGTERM');
    expect(await exit).toEqual([0, null]);
  });

  test.each([
    [['--port', 'x'], 2, '--port is x'],
    [['--max-body-mb', '9999'], 2, '--max-body-mb: 9999 is not a number from 0.001 to 512'],
    [['--alias', ''], 2, '--alias: '],
    [['somewhere'], 2, 'takes no arguments'],
    [['--limit', '3'], 2, '--limit is an option of search'],
    [['--model', '/no/such/model'], 1, '/no/such/model'],
  ])('%s', async (args, code, message) => {
    const { exit, err } = await command(...args);
    expect((await exit)[0]).toBe(code);
    expect(err()).toContain(message);
  });
});
