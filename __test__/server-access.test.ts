// Who is let in, and what is counted of those who are not.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

import { EmbeddingServer, type EmbeddingServerOptions } from 'embedcore/server';
import { afterAll, expect, onTestFinished, test } from 'vitest';

import { generator, get, good, post, raw, started, statuses } from './server-client';
import { failure, model, root } from './support';

afterAll(() => generator.cleanup());

/** `npx embedcore …` to its end, or until `enough` is seen. */
async function command(args: string[], env: Record<string, string> = {}, enough = /served at|is at/): Promise<{ code: number | null; out: string; err: string }> {
  const { EMBEDCORE_API_KEY: _, ...rest } = process.env;
  const child = spawn(process.execPath, [join(root, 'cli', 'embedcore.js'), ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...rest, ...env } });
  onTestFinished(() => void child.kill('SIGKILL'));
  let [out, err] = ['', ''];
  child.stdout.on('data', (piece) => {
    out += piece;
    if (enough.test(out)) child.kill('SIGTERM');
  });
  child.stderr.on('data', (piece) => (err += piece));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, out, err };
}
const serve = (args: string[], env?: Record<string, string>) => command(['serve', '--port', '0', '--model', model('bert-mean'), ...args], env);

const asking = (host: string, target = '/health') => `GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;

test('a server of this machine answers to the names of this machine only', async () => {
  const server = await started();
  for (const host of ['127.0.0.1', `127.0.0.1:${server.port}`, 'localhost', 'LOCALHOST:1', 'app.localhost', '[::1]', '[::1]:80', '127.1.2.3']) {
    expect(statuses(await raw(server, [asking(host)])), host).toEqual([200]);
  }
  for (const host of ['evil.example', `evil.example:${server.port}`, '127.0.0.1.evil.example', 'localhost.evil.example', 'notlocalhost', '203.0.113.1', '[::2]', '']) {
    const answer = await raw(server, [asking(host)]);
    expect([host, ...statuses(answer)]).toEqual([host, 403]);
    expect(answer).toContain('"code":"host_not_allowed"');
  }
  for (const path of ['/v1/models', '/metrics', '/nothing']) expect(statuses(await raw(server, [asking('evil.example', path)]))).toEqual([403]);
  expect(statuses(await raw(server, [asking('localhost', 'http://evil.example/health')]))).toEqual([403]);
  expect(statuses(await raw(server, [post(good).replace('Host: localhost', 'Host: evil.example\r\nConnection: close')]))).toEqual([403]);
  // Without a host there is no web page that asks.
  expect(statuses(await raw(server, ['GET /health HTTP/1.0\r\n\r\n']))).toEqual([200]);
});

test.each([
  [{ allowedHosts: ['Box.Example', '::2'] }, { 'box.example': 200, 'BOX.example:8080': 200, '[::2]:80': 200, localhost: 200, 'other.example': 403, 'sub.box.example': 403 }],
  [{ allowedHosts: ['*'] }, { 'any.example': 200 }],
  [{ host: '0.0.0.0' }, { 'any.example': 200 }],
  [{ host: '0.0.0.0', allowedHosts: ['box.example'] }, { 'box.example': 200, localhost: 200, 'any.example': 403 }],
] as [EmbeddingServerOptions, Record<string, number>][])('%j', async (options, expected) => {
  const server = await started(options);
  for (const [host, status] of Object.entries(expected)) expect([host, ...statuses(await raw(server, [asking(host)]))]).toEqual([host, status]);
});

test('hosts that are none are refused', async () => {
  for (const allowedHosts of ['box.example', ['http://box.example'], ['box.example:80'], [''], [5], null]) {
    const error = await failure(() => new EmbeddingServer({ generator, allowedHosts: allowedHosts as never }));
    expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'allowedHosts' } });
  }
});

test('every answer is counted, by whomever it was given', async () => {
  const server = await started({ bodyTimeoutMs: 200, maxBodyMB: 0.01 });
  const close = 'Connection: close\r\n';
  const sent: Record<string, number> = {};
  const requests = [
    'banana\r\n\r\n',
    'GET /health HTTP/1.1\r\n\r\n',
    `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'a'.repeat(20_000)}\r\n\r\n`,
    `GET /health HTTP/1.1\r\nHost: localhost\r\nExpect: banana\r\n${close}\r\n`,
    'POST /v1/embeddings HTTP/1.1\r\nHost:',
    post(good).slice(0, -2),
    post('a'.repeat(20_000), close),
    post(good, close).replace('application/json', 'text/plain'),
    asking('evil.example'),
    asking('localhost', '/nothing'),
    `DELETE /health HTTP/1.1\r\nHost: localhost\r\n${close}\r\n`,
    `${post(good)}nonsense\r\n\r\n`,
  ];
  for (const request of requests) for (const status of statuses(await raw(server, [request]))) sent[status] = (sent[status] ?? 0) + 1;
  expect(Object.keys(sent)).toEqual(['200', '400', '403', '404', '405', '408', '413', '415', '417', '431']);
  const counted = async () => Object.fromEntries([...(await get(server, '/metrics')).text.matchAll(/requests_total\{status="(\d+)"\} (\d+)/g)].map(([, status, count]) => [status, Number(count)]));
  const first = await counted();
  expect({ ...first, 200: sent['200'] }).toEqual(sent);
  // And the one that asked.
  expect((await counted())['200']).toBe(first['200']! + 1);
});

test('a key that no client can send is refused, and not repeated', async () => {
  for (const [key, why] of [
    ['secret\n', /begins or ends with/],
    ['secret ', /begins or ends with/],
    ['\tsecret', /begins or ends with/],
    ['schl\u00fcssel', /ASCII/],
    ['sec\u0007ret', /control character/],
    ['sec\nret', /control character/],
    ['\u{1f511}', /ASCII/],
    ['s'.repeat(9000), /at most 8192/],
  ] as const) {
    for (const apiKey of [key, ['good', key]]) {
      const error = await failure(() => new EmbeddingServer({ generator, apiKey }));
      expect(error).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringMatching(why), details: { option: 'apiKey' } });
      expect(error.message).not.toContain(key.trim());
    }
  }
  const server = await started({ apiKey: 'two words, ~!"#$%&' });
  expect((await get(server, '/v1/models', { headers: { Authorization: 'Bearer two words, ~!"#$%&' } })).status).toBe(200);
  const { code, err } = await serve([], { EMBEDCORE_API_KEY: 'secret\n' });
  expect([code, err]).toEqual([2, expect.stringContaining('EMBEDCORE_API_KEY: a key cannot be used: it begins or ends with')]);
});

test.each([
  [['--drain-seconds', '2.01'], 0, ''],
  [['--drain-seconds', '32.3'], 0, ''],
  [['--drain-seconds', '.001'], 0, ''],
  [['--drain-seconds', '4000'], 2, '--drain-seconds: 4000 is not a number from 0 to 3600'],
  [['--drain-seconds', '1e3'], 2, '--drain-seconds is 1e3'],
  [['--max-batch-items', '1.5'], 2, '--max-batch-items: 1.5 is not a whole number from 1'],
  [['--memory-limit', '0'], 2, '--memory-limit: '],
  [['--host', ''], 2, '--host: '],
  [['--cache', ''], 2, '--cache: '],
  [['--alias', ''], 2, '--alias: '],
  [['--allow-host', 'http://a'], 2, '--allow-host: '],
  [['--allow-host', 'box.example', '--allow-host', 'other.example'], 0, ''],
])('serve %j', async (args, code, message) => {
  const { err, ...ended } = await serve(args);
  expect(err).toContain(message);
  expect(ended.code).toBe(code);
  expect(err).not.toMatch(/drainTimeoutMs|memoryLimit|persistPath|allowedHosts|aliases/);
});
