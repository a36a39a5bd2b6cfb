// Time and memory that strangers can take, and how long the end may take.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import type { EmbeddingServer } from 'embedcore/server';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';

import { acting, generator, get, good, post, raw, started, statuses } from './server-client';
import { failure, model, root, texts } from './support';

afterAll(() => generator.cleanup());

/** A server in a process of its own. */
async function apart(...args: string[]) {
  const child = spawn(process.execPath, [join(root, 'cli', 'embedcore.js'), 'serve', '--port', '0', '--model', model('bert-mean'), ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const exit = once(child, 'exit') as Promise<[number | null, string | null]>;
  let out = '';
  child.stdout.on('data', (piece) => (out += piece));
  await expect.poll(() => out, { timeout: 30_000 }).toMatch(/served at/);
  const held = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'latin1'))![1]) / 1024;
  return { child, port: Number(/:(\d+)\/v1/.exec(out)![1]), exit, held };
}

const chunked = (headers = '') =>
  `POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n${headers}\r\n`;

describe.skipIf(!existsSync('/proc/self/status'))('a body in chunks of one byte', () => {
  test.each([
    ['is held as its bytes', 100_000, [], '', 200],
    ['is refused where it takes as long as a body that is too large', 3_000_000, [], '', 413],
    ['is not held at all of a client that is not let in', 3_000_000, ['--api-key', 'secret'], '', 401],
    ['is refused of one who is', 3_000_000, ['--api-key', 'secret'], 'Authorization: Bearer secret\r\n', 413],
  ] as const)('%s', async (_, size, args, headers, status) => {
    const server = await apart(...args);
    const chunks = (text: string) => [...text].map((sign) => `1\r\n${sign}\r\n`).join('');
    const before = server.held();
    let [most, answer, open] = [before, '', true];
    const socket = connect(server.port, '127.0.0.1');
    socket.on('data', (data) => (answer += data)).on('error', () => {}).on('close', () => (open = false));
    socket.write(chunked(headers) + chunks('{"model":"bert-mean","input":"a"'));
    const blanks = chunks(' '.repeat(10_000));
    for (let sent = 0; sent < size && open && answer === ''; sent += 10_000) {
      if (!socket.write(blanks)) await Promise.race([once(socket, 'drain'), once(socket, 'close')]).catch(() => {});
      most = Math.max(most, server.held());
    }
    if (open) socket.write(`${chunks('}')}0\r\n\r\n`);
    await expect.poll(() => open, { timeout: 60_000 }).toBe(false);
    expect(statuses(answer)).toEqual([status]);
    // Chunk by chunk it was a thousand.
    expect(most - before).toBeLessThan(200);
  });
});

/** Milliseconds that some requests with such a target take: the shortest of a few times. */
async function taken(server: EmbeddingServer, request: (size: number) => string, size: number): Promise<number> {
  const one = request(size);
  const all = one.repeat(20) + one.replace('\r\n', '\r\nConnection: close\r\n');
  let best = Infinity;
  for (let round = 0; round < 5; round++) {
    const started = performance.now();
    await raw(server, [all]);
    best = Math.min(best, performance.now() - started);
  }
  return best;
}

test.each<[what: string, request: (size: number) => string]>([
  ['slashes', (size) => `GET ${'/'.repeat(size)}a HTTP/1.1\r\nHost: localhost\r\n\r\n`],
  ['slashes at the end', (size) => `GET /a${'/'.repeat(size)} HTTP/1.1\r\nHost: localhost\r\n\r\n`],
  ['a whole address', (size) => `GET http://${'a'.repeat(size)} HTTP/1.1\r\nHost: localhost\r\n\r\n`],
  ['the id of a model', (size) => `GET /v1/models/${'%2f'.repeat(size / 3)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n\r\n`],
  ['a host', (size) => `GET / HTTP/1.1\r\nHost: ${':1'.repeat(size / 2)}\r\n\r\n`],
  ['a host in brackets', (size) => `GET / HTTP/1.1\r\nHost: [${']'.repeat(size)}\r\n\r\n`],
  ['a key', (size) => `GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer${' '.repeat(size)}\r\n\r\n`],
  ['a type', (size) => `POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\nContent-Type: application/json${' '.repeat(size - 10)}x\r\nContent-Length: 0\r\n\r\n`],
  ['another type', (size) => `POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\nContent-Type: application/${'a-'.repeat(size / 2)}\r\nContent-Length: 0\r\n\r\n`],
  ['an id', (size) => `GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: ${'a'.repeat(size)}\u00e9\r\n\r\n`],
  ['many headers', (size) => `GET /health HTTP/1.1\r\nHost: localhost\r\n${'a:b\r\n'.repeat(size / 5)}\r\n`],
])('twice as long takes at most twice as long, give or take: %s', async (_, request) => {
  const server = await started({ apiKey: 'secret' });
  await taken(server, request, 1500);
  const [short, long] = [await taken(server, request, 3000), await taken(server, request, 12_000)];
  // Four times as long; with the square of the length, 21 requests would take some hundred milliseconds more.
  expect(long).toBeLessThan(8 * short + 40);
});

test('a response that waits for its reader listens once', async () => {
  const warnings: Error[] = [];
  const warned = (warning: Error) => warnings.push(warning);
  process.on('warning', warned);
  onTestFinished(() => void process.off('warning', warned));
  const server = await started();
  const input = texts(2048);
  const body = JSON.stringify({ model: 'bert', input });
  const socket = connect(server.port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  socket.write(post(body, 'Connection: close\r\n'));
  let size = 0;
  socket.on('data', (piece) => {
    size += piece.length;
    socket.pause();
    setImmediate(() => socket.resume());
  });
  await once(socket, 'close');
  expect(size).toBeGreaterThan(500_000);
  expect(warnings).toEqual([]);
});

describe('the end', () => {
  test('unfinished uploads are refused in time, those that finish are answered', async () => {
    const { child, port, exit } = await apart('--drain-seconds', '3');
    const upload = (headers = '') => {
      const socket = connect(port, '127.0.0.1');
      onTestFinished(() => void socket.destroy());
      const seen = { socket, text: '' };
      socket.on('data', (data) => (seen.text += data)).on('error', () => {});
      socket.write(`POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n${headers}`);
      return seen;
    };
    const body = JSON.stringify({ model: 'bert-mean', input: 'a' });
    const [slow, silent, headless, finishing] = [upload(`Content-Length: 1000\r\n\r\n{`), upload(`Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n`), upload(), upload(`Content-Length: ${body.length}\r\n\r\n${body.slice(0, 10)}`)];
    const dripping = setInterval(() => slow.socket.writable && slow.socket.write(' '), 50);
    onTestFinished(() => clearInterval(dripping));
    await sleep(300);
    const told = performance.now();
    child.kill('SIGTERM');
    await sleep(300);
    finishing.socket.write(body.slice(10));
    expect(await exit).toEqual([0, null]);
    // Half of the time that it had for itself on a busy machine; without a limit it would be 30 s.
    expect(performance.now() - told).toBeLessThan(6000);
    expect(statuses(finishing.text)).toEqual([200]);
    for (const { text } of [slow, silent]) {
      expect(statuses(text)).toEqual([503]);
      expect(text).toContain('"code":"shutting_down"');
    }
    expect(headless.text).toBe('');
  });

  test('a reader that takes nothing, and work that does not stop, are not waited for', async () => {
    const server = await started({ generator: acting(async (input) => (input[0] === 'stuck' ? new Promise(() => {}) : generator.embed(texts(2048)))) });
    await generator.initialize();
    const [reader, stuck] = [connect(server.port, '127.0.0.1').pause(), connect(server.port, '127.0.0.1')];
    for (const socket of [reader, stuck]) socket.on('error', () => {});
    stuck.write(post('{"model":"bert","input":"stuck"}'));
    for (let i = 0; i < 4; i++) reader.write(post(good));
    await expect.poll(async () => (await get(server, '/metrics')).text).toMatch(/queued_requests [1-5]\n/);
    const began = performance.now();
    await server.close({ timeoutMs: 400 });
    expect(performance.now() - began).toBeLessThan(5000);
    await expect(get(server, '/health')).rejects.toThrow();
    for (const socket of [reader, stuck]) socket.destroy();
  });

  test('a generator that does not close is not waited for', async () => {
    const server = await started({ generator: { modelPath: model('bert-mean') } });
    // As one whose cache waits for a file that another program has locked.
    const own = Object.getPrototypeOf(generator) as { cleanup: () => Promise<void> };
    const { cleanup } = own;
    own.cleanup = () => new Promise(() => {});
    onTestFinished(() => void (own.cleanup = cleanup));
    await server.close({ timeoutMs: 300 });
    expect((await failure(() => get(server, '/health'))).message).toBeDefined();
  });
});
