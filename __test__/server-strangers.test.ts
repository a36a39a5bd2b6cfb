// What those may do to a server who were not invited: pages of other sites, those who hold connections, those who look for keys.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { gzipSync } from 'node:zlib';

import { EmbeddingServer } from 'embedcore/server';
import { afterAll, expect, onTestFinished, test } from 'vitest';

import { acting, ask, generator, get, good, post, raw, started, statuses } from './server-client';
import { failure, model, root } from './support';

afterAll(() => generator.cleanup());

const asking = (lines: string[], target = '/health', method = 'GET') => `${method} ${target} HTTP/1.1\r\n${lines.join('\r\n')}\r\nConnection: close\r\n\r\n`;

test('no page of another site is let in: it reads no answer, and sends nothing that is taken', async () => {
  const server = await started();
  const origin = 'Origin: http://evil.example';
  const requests = [
    ...['/health', '/v1/models', '/metrics', '/info', '/nothing'].map((path) => asking(['Host: localhost', origin], path)),
    // What a browser asks before it sends JSON to another site.
    asking(['Host: localhost', origin, 'Access-Control-Request-Method: POST', 'Access-Control-Request-Headers: content-type,authorization', 'Access-Control-Request-Private-Network: true'], '/v1/embeddings', 'OPTIONS'),
    post(good, `${origin}\r\nConnection: close\r\n`),
  ];
  for (const request of requests) {
    const answer = await raw(server, [request]);
    expect(answer, request).not.toMatch(/^access-control/im);
    expect(answer).toMatch(/^x-content-type-options: nosniff\r$/im);
  }
  expect(statuses(await raw(server, [requests[5]!]))).toEqual([405]);
  // These it sends unasked.
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'text/plain; application/json']) {
    expect(statuses(await raw(server, [post(good, `${origin}\r\nConnection: close\r\n`).replace('application/json', type)])), type).toEqual([415]);
  }
});

test('what was not HTTP is not taken for a page, either', async () => {
  expect(await raw(await started(), ['<script>\r\n\r\n'])).toMatch(/nosniff/);
});

test('a request with two hosts is refused', async () => {
  const server = await started();
  for (const lines of [['Host: localhost', 'Host: evil.example'], ['Host: localhost', 'hOST: localhost'], ['host: evil.example', 'Host: localhost']]) {
    const answer = await raw(server, [asking(lines)]);
    expect(statuses(answer)).toEqual([400]);
    expect(answer).toContain('several headers Host');
  }
  expect(statuses(await raw(server, ['GET /health HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n\r\n']))).toEqual([400]);
});

test('nothing is unpacked', async () => {
  const server = await started({ maxBodyMB: 1 });
  // A thousand times as large as it looks.
  const bomb = gzipSync(Buffer.alloc(64 << 20, ' '));
  for (const coding of ['gzip', 'x-gzip', 'deflate', 'br', 'zstd', 'identity, gzip', 'GZIP']) {
    const answer = await ask(server, bomb, { 'Content-Encoding': coding });
    expect([coding, answer.status, answer.body.error.code]).toEqual([coding, 415, 'unsupported_media_type']);
    expect(answer.headers.get('accept-encoding')).toBe('identity');
  }
  // Node knows no other coding than chunks, and unpacks none.
  const chunk = Buffer.concat([Buffer.from(`${bomb.length.toString(16)}\r\n`), bomb, Buffer.from('\r\n0\r\n\r\n')]);
  const head = 'POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nTransfer-Encoding: gzip, chunked\r\n\r\n';
  expect(statuses(await raw(server, [head, chunk]))).toEqual([400]);
  expect((await ask(server, good)).status).toBe(200);
});

test('names of models are no paths', async () => {
  const server = await started();
  for (const name of ['../../etc/passwd', '/etc/passwd', 'file:///etc/passwd', join(root, 'package.json'), '\u0000', 'bert/../bert', 'bert\u0000', 'http://127.0.0.1:1/']) {
    expect(await ask(server, { model: name, input: 'a' })).toMatchObject({ status: 404, body: { error: { code: 'model_not_found' } } });
    expect((await get(server, `/v1/models/${encodeURIComponent(name)}`)).status, name).toBe(404);
  }
});

test('who opens connections and says little is let go, and so is who takes no answer', async () => {
  const server = await started({ bodyTimeoutMs: 400 });
  const silent = raw(server, []);
  const dripping = connect(server.port, '127.0.0.1');
  let seen = '';
  const over = new Promise<void>((resolve) => dripping.on('data', (data) => (seen += data)).on('error', () => {}).on('close', () => resolve()));
  dripping.write('GET /health HTTP/1.1\r\nHost: localhost\r\n');
  const drip = setInterval(() => dripping.writable && dripping.write('a: b\r\n'), 20);
  onTestFinished(() => clearInterval(drip));
  await over;
  expect(statuses(seen)).toEqual([408]);
  expect(statuses(await silent)).toEqual([408]);

  // 30 MB of answers, far more than a connection holds by itself.
  const many = await started({ bodyTimeoutMs: 400, aliases: Array.from({ length: 3000 }, (_, i) => `another name of it ${i}`) });
  const count = 100;
  const reader = connect(many.port, '127.0.0.1').pause();
  onTestFinished(() => void reader.destroy());
  const closed = once(reader, 'close').catch(() => {});
  reader.on('error', () => {});
  for (let sent = 0; sent < count; sent++) reader.write('GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n');
  const answered = async () => (await get(many, '/metrics')).text;
  await expect.poll(answered).toMatch(/requests_total\{status="200"\} \d\d/);
  // However long one waits now.
  await sleep(2000);
  let taken = '';
  reader.on('data', (data) => (taken += data.toString('latin1'))).on('end', () => reader.end()).resume();
  const all = expect.poll(() => statuses(taken).length, { timeout: 20_000 }).toBe(count).then(() => true, () => false);
  expect(await Promise.race([closed.then(() => false), all])).toBe(false);
});

test('an answer that takes longer to be made than that is waited for', async () => {
  const server = await started({ bodyTimeoutMs: 100, generator: acting(async (input) => (await sleep(700), generator.embed(input))) });
  await generator.initialize();
  expect((await ask(server, good)).status).toBe(200);
});

test('a connection that is idle between two requests stays', async () => {
  const server = await started({ bodyTimeoutMs: 100 });
  const socket = connect(server.port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  let seen = '';
  socket.on('data', (data) => (seen += data));
  for (let asked = 1; asked <= 2; asked++) {
    socket.write('GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await expect.poll(() => statuses(seen).length).toBe(asked);
    await sleep(500);
  }
  expect(statuses(seen)).toEqual([200, 200]);
});

test('connections are as many as are allowed, and the others are counted', async () => {
  const server = await started({ maxConnections: 3 });
  const sockets: Socket[] = [];
  onTestFinished(() => sockets.forEach((socket) => socket.destroy()));
  for (let i = 0; i < 3; i++) {
    sockets.push(connect(server.port, '127.0.0.1'));
    sockets[i]!.write('GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await once(sockets[i]!, 'data');
  }
  const last = connect(server.port, '127.0.0.1').resume();
  last.on('error', () => {});
  await once(last, 'close').catch(() => {});
  sockets.pop()!.destroy();
  await expect.poll(() => get(server, '/metrics').then(({ text }) => text, () => '')).toMatch(/dropped_connections_total [1-9]/);
  for (const maxConnections of [0, 1.5, '5', 1e7]) expect(await failure(() => new EmbeddingServer({ generator, maxConnections: maxConnections as never }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'maxConnections' } });
});

test('a key shows nowhere: not in answers, metrics, the server itself, nor in what others see of the process', async () => {
  const apiKey = 'sk-front-door-0123456789';
  const server = await started({ apiKey });
  const Authorization = `Bearer ${apiKey}`;
  const said: string[] = [inspect(server, { depth: 9, showHidden: true }), JSON.stringify(server), server.monitor.toPrometheus(), JSON.stringify(server.monitor.getSummary())];
  for (const path of ['/v1/models', '/info', '/metrics', '/health', '/nothing', `/v1/models/x?api_key=${apiKey}`]) said.push((await get(server, path, { headers: { Authorization } })).text);
  said.push(JSON.stringify((await ask(server, '{', { Authorization })).body), await raw(server, [`GET /${' '} HTTP/1.1\r\nAuthorization: ${Authorization}\r\n\r\n`]));
  for (const key of [apiKey.slice(0, -1), `${apiKey}0`, apiKey.toUpperCase(), ` ${apiKey}x`]) said.push(JSON.stringify((await ask(server, good, { Authorization: `Bearer ${key}` })).body));
  for (const text of said) expect(text).not.toContain('front-door');
});

test.skipIf(!existsSync('/proc/self/cmdline'))('nor in what ps shows of a command that was given one', async () => {
  for (const args of [['serve', '--model', model('bert-mean')], ['dashboard']]) {
    const child = spawn(process.execPath, [join(root, 'cli', 'embedcore.js'), ...args, '--port', '0', '--api-key', 'sk-front-door'], { stdio: ['ignore', 'pipe', 'pipe'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    let out = '';
    child.stdout.on('data', (piece) => (out += piece));
    await expect.poll(() => out, { timeout: 30_000 }).toMatch(/Ctrl-C/);
    for (const file of ['cmdline', 'comm']) expect(readFileSync(`/proc/${child.pid}/${file}`, 'latin1')).not.toContain('front-door');
    const url = /http:\/\/[^/\s]+/.exec(out)![0];
    for (const [headers, status] of [[{}, 401], [{ Authorization: 'Bearer sk-front-door' }, 200]] as const) expect((await fetch(`${url}/metrics`, { headers })).status).toBe(status);
  }
});
