// What strangers may send: random requests, whole and broken, in random pieces, from many at a time. The server stays up, small
// and quick. EMBEDCORE_MODEL_SECONDS: for how long (default 3, or 10
// where EMBEDCORE_THOROUGH is set); EMBEDCORE_MODEL_SEED: from where.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';

import { tried } from './property';
import { model, root } from './support';

const seconds = Number(process.env.EMBEDCORE_MODEL_SECONDS ?? (process.env.EMBEDCORE_THOROUGH ? 10 : 3));
const seed = process.env.EMBEDCORE_MODEL_SEED;
const CLIENTS = 12;
/** Beyond what it held after its first answers, in MB: 64 MB of bodies may wait, and some garbage. */
const MOST_MB = 400;

const bytes = (most: number) => fc.uint8Array({ maxLength: most, size: 'max' }).map((all) => Buffer.from(all));
const text = fc.string({ maxLength: 200, unit: 'binary' });
const word = fc.constantFrom('GET', 'POST', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'CONNECT', 'PRI', 'get', '', 'X'.repeat(70));
const target = fc.oneof(
  fc.constantFrom('/v1/embeddings', '/v1/models', '/v1/models/bert-mean', '/health', '/health/live', '/info', '/metrics', '*', '/', '//', '/../..', 'http://localhost/v1/embeddings', '/%', `/${'a'.repeat(20_000)}`, '?'.repeat(3000)),
  fc.webPath(),
  text,
);
const header = fc.oneof(
  fc.constantFrom(
    'Content-Length: 5', 'Content-Length: -1', 'Content-Length: 99999999999', 'Content-Length: 5\r\nContent-Length: 6', 'Transfer-Encoding: chunked', 'Transfer-Encoding: gzip, chunked',
    'Transfer-Encoding: chunked\r\nContent-Length: 3', 'Expect: 100-continue', 'Expect: nonsense', 'Connection: close', 'Connection: upgrade\r\nUpgrade: h2c', 'Content-Encoding: gzip', 'Host: evil.example',
    'Host: localhost\r\nHost: localhost', 'Authorization: Bearer x', 'Origin: http://evil.example', `X: ${'y'.repeat(9000)}`, ' folded', 'no colon', ': no name', 'Content-Type: text/plain', 'Accept: */*;q=x',
  ),
  text.map((value) => `X-Any: ${value}`),
);
const value = fc.oneof(
  fc.json({ maxDepth: 4 }),
  fc.constantFrom('{"model":"bert-mean","input":"a"}', '{"model":"bert-mean","input":["a","b"],"encoding_format":"base64"}', '{"input":[[1,2]]}', '{"model":"bert-mean","input":"', '[', `${'['.repeat(50_000)}`, '{"model":1e999}', '\u0000', '{"input":"\\ud800"}'),
  fc.integer({ min: 1, max: 300_000 }).map((length) => `{"model":"bert-mean","input":"${'a '.repeat(length / 2)}"}`),
);
const chunked = fc.tuple(value, fc.integer({ min: 1, max: 5000 }), fc.constantFrom('', 'x', 'ffffffffffffffff')).map(([body, size, wrong]) => {
  const all = Buffer.from(body.slice(0, 20_000));
  const parts = [];
  for (let at = 0; at < all.length; at += size) {
    const part = all.subarray(at, at + size);
    parts.push(Buffer.from(`${wrong || part.length.toString(16)}\r\n`), part, Buffer.from('\r\n'));
  }
  return Buffer.concat([...parts, Buffer.from('0\r\n\r\n')]);
});
const whole = fc.tuple(value, fc.array(header, { maxLength: 3 })).map(([body, headers]) =>
  Buffer.from(`POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${headers.map((line) => `${line}\r\n`).join('')}\r\n${body}`));
const odd = fc.tuple(word, target, fc.constantFrom('HTTP/1.1', 'HTTP/1.0', 'HTTP/2.0', 'HTTP/9', ''), fc.array(header, { maxLength: 8 }), fc.oneof(bytes(3000), chunked, value.map((body) => Buffer.from(body)))).map(
  ([method, path, version, headers, body]) => Buffer.concat([Buffer.from(`${method} ${path} ${version}\r\nHost: localhost\r\n${headers.map((line) => `${line}\r\n`).join('')}\r\n`), body]),
);
const message = fc.oneof({ weight: 3, arbitrary: whole }, { weight: 4, arbitrary: odd }, { weight: 1, arbitrary: bytes(5000) });
const visit = fc.record({
  messages: fc.array(message, { minLength: 1, maxLength: 4 }),
  /** Cut into pieces of this size; and which bytes are changed on the way. */
  piece: fc.constantFrom(1, 7, 100, 1 << 20, 1 << 20, 1 << 20),
  flips: fc.array(fc.nat(), { maxLength: 2 }),
  /** How the client leaves: when all is answered, at once, or by a reset. */
  leaves: fc.constantFrom('late', 'soon', 'reset'),
});
type Visit = typeof visit extends fc.Arbitrary<infer T> ? T : never;

async function pay(port: number, { messages, piece, flips, leaves }: Visit): Promise<void> {
  const all = Buffer.concat(messages);
  for (const at of flips) all[at % all.length] = at & 255;
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  let open = true;
  socket.setMaxListeners(0).resume().on('error', () => {}).on('close', () => (open = false)).on('end', () => socket.end());
  const closed = once(socket, 'close').catch(() => {});
  // A small piece is sent so often only that it does not take for ever.
  const size = Math.max(piece, Math.ceil(all.length / 2000));
  for (let at = 0; at < all.length && open; at += size) {
    if (!socket.write(all.subarray(at, at + size))) await Promise.race([once(socket, 'drain').catch(() => {}), closed, sleep(200)]);
    if (piece < 1000 && at % 64 === 0) await new Promise(setImmediate);
  }
  if (leaves === 'reset') socket.resetAndDestroy();
  else {
    if (open) socket.end();
    await Promise.race([closed, sleep(leaves === 'soon' ? 5 : 1000)]);
    socket.destroy();
  }
  await closed;
}

test.skipIf(!existsSync('/proc/self/status'))('a server stays up, small and quick whatever is sent to it', { timeout: (seconds + 120) * 1000 }, async () => {
  const child = spawn(process.execPath, [join(root, 'cli', 'embedcore.js'), 'serve', '--port', '0', '--model', model('bert-mean'), '--drain-seconds', '2'], { stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let [out, errors, ended] = ['', '', false];
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (errors += data));
  const exit = once(child, 'exit').then((how) => ((ended = true), how));
  await expect.poll(() => out, { timeout: 30_000 }).toMatch(/served at/);
  const port = Number(/:(\d+)\/v1/.exec(out)![1]);
  const held = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'latin1'))![1]) / 1024;
  const asked = async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/v1/embeddings`, {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"model":"bert-mean","input":"a text"}', signal: AbortSignal.timeout(20_000),
    });
    return answer.status === 200 ? ((await answer.json()) as { data: { embedding: number[] }[] }).data[0]!.embedding : answer.status;
  };
  const vector = await asked();
  expect(vector).toHaveLength(32);
  const before = held();
  let most = before;
  const first = seed === undefined ? Math.floor(Math.random() * 2 ** 30) : Number(seed);
  const until = performance.now() + seconds * 1000;
  let visits = 0;
  const clients = Array.from({ length: CLIENTS }, async (_, client) => {
    const found = await fc.check(fc.asyncProperty(visit, async (one) => {
      await pay(port, one);
      visits++;
      expect(ended, errors).toBe(false);
    }), { numRuns: 1e9, seed: first + client, interruptAfterTimeLimit: seconds * 1000, endOnFailure: true });
    tried(found);
  });
  // Who asks as one should is answered all the while.
  const watched = (async () => {
    while (performance.now() < until && !ended) {
      expect([vector, 429]).toContainEqual(await asked());
      most = Math.max(most, held());
      await sleep(200);
    }
  })();
  await Promise.all([...clients, watched]);
  expect(await asked()).toEqual(vector);
  expect(most - before).toBeLessThan(MOST_MB);
  child.kill('SIGTERM');
  expect(await exit).toEqual([0, null]);
  expect(errors.trim()).toBe('Finishing what runs …');
  if (process.env.EMBEDCORE_MODEL_SECONDS !== undefined) console.info(`${visits} visits, ${Math.round(most - before)} MB more at most`);
});
