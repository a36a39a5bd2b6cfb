// Who may look at a dashboard's page, and what those may do who may not.
import { once } from 'node:events';
import { connect } from 'node:net';

import { PerformanceDashboard, PerformanceMonitor, type DashboardServer, type ServeOptions } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { raw, statuses } from './server-client';
import { failure } from './support';

async function served(options: ServeOptions = {}): Promise<DashboardServer> {
  const monitor = new PerformanceMonitor();
  monitor.record('an operation', 5);
  const dashboard = new PerformanceDashboard({ monitor });
  onTestFinished(() => dashboard.close());
  return dashboard.serve(options);
}

const PATHS = ['', 'page.js', 'metrics', 'snapshot', 'events', 'nothing'];
const basic = (password: string) => `Basic ${Buffer.from(`anybody:${password}`).toString('base64')}`;

describe('a key', () => {
  const apiKey = ['sk-first: with a colon', 'sk-second'];

  test('is asked of everybody, in the way of browsers and of programs', async () => {
    const { url } = await served({ apiKey });
    const wrong = [undefined, 'sk-second', 'Bearer', 'Bearer sk-secon', 'Bearer sk-second2', basic('sk-first'), basic(''), 'Basic', 'Basic !', `Basic ${Buffer.from('sk-second').toString('base64')}`];
    for (const path of PATHS) {
      for (const Authorization of wrong) {
        const answer = await fetch(url + path, { headers: Authorization === undefined ? {} : { Authorization } });
        expect([path, Authorization, answer.status, answer.headers.get('www-authenticate')]).toEqual([path, Authorization, 401, 'Basic realm="embedcore", charset="UTF-8"']);
        expect(await answer.text()).not.toMatch(/operation|sk-/);
      }
      expect((await fetch(url + path, { method: 'POST' })).status).toBe(401);
    }
    for (const Authorization of [...apiKey.map(basic), ...apiKey.map((key) => `Bearer ${key}`), 'bearer sk-second']) {
      for (const path of ['', 'page.js', 'metrics', 'snapshot']) expect((await fetch(url + path, { headers: { Authorization } })).status).toBe(200);
      const stop = new AbortController();
      expect((await fetch(`${url}events`, { headers: { Authorization }, signal: stop.signal })).status).toBe(200);
      stop.abort();
    }
  });

  test('probes need none, and are told nothing else', async () => {
    const { url } = await served({ apiKey });
    expect(await (await fetch(`${url}health`)).json()).toEqual({ status: 'ok' });
    expect(await (await fetch(`${url}health`, { headers: { Authorization: 'Bearer sk-second' } })).json()).toMatchObject({ status: 'ok', operations: 1 });
  });

  test('that nobody can send is refused, and not repeated', async () => {
    for (const key of ['', [], ['good', ''], 5, null, 'sk-key\n', ' sk-key', 'sk-k\u00e9y', 's'.repeat(9000)]) {
      const error = await failure(() => served({ apiKey: key as never }));
      expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'apiKey' } });
      expect(error.message).not.toMatch(/sk-|sss/);
    }
  });
});

test('no page of another site may read it', async () => {
  const { url, port } = await served();
  for (const path of PATHS.filter((path) => path !== 'events')) {
    const { headers } = await fetch(url + path, { headers: { Origin: 'http://evil.example' } });
    expect([...headers.keys()].filter((name) => name.startsWith('access-control'))).toEqual([]);
    expect(headers.get('cross-origin-resource-policy')).toBe('same-origin');
    expect(headers.get('x-content-type-options')).toBe('nosniff');
  }
  for (const host of ['evil.example', 'localhost.evil.example', '127.0.0.1.evil.example', '0.0.0.0', '']) {
    const answer = await raw({ port }, [`GET /snapshot HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`]);
    expect([host, ...statuses(answer)]).toEqual([host, 403]);
    expect(answer).not.toContain('an operation');
  }
});

test('readers are as many as are allowed: each may hold much', async () => {
  const { url, port } = await served();
  const event = 'GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n';
  for (let i = 0; i < 64; i++) {
    const socket = connect(port, '127.0.0.1');
    onTestFinished(() => void socket.destroy());
    socket.on('error', () => {}).write(event);
    await once(socket, 'data');
  }
  const answer = await fetch(`${url}events`);
  expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '10']);
  expect((await fetch(`${url}metrics`)).status).toBe(200);
});
