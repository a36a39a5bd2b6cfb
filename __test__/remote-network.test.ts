// The way to a server: TLS, and proxies.

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';

import { ollama, vectorOf } from './loopback/ollama';
import { loopback } from './loopback/server';
import { distance, failure, ready } from './support';

afterEach(() => void vi.unstubAllEnvs());

/** An authority of one's own, and what it has certified. */
function certified() {
  const folder = mkdtempSync(join(tmpdir(), 'embedcore-tls-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'ignore' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=An authority');
  openssl('req', ...key, '-keyout', 'key.pem', '-out', 'request.pem', '-subj', '/CN=models.invalid');
  writeFileSync(join(folder, 'names'), 'subjectAltName=DNS:models.invalid,DNS:localhost\nbasicConstraints=CA:FALSE\n');
  openssl('x509', '-req', '-in', 'request.pem', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'names', '-out', 'cert.pem');
  const read = (name: string) => readFileSync(join(folder, name), 'utf8');
  return { ca: join(folder, 'ca.pem'), tls: { key: read('key.pem'), cert: read('cert.pem') } };
}

/** A proxy that leads to one port of this machine, whatever it is asked for. */
async function proxyTo(port: number) {
  const asked: string[] = [];
  const server = createServer((_, response) => response.writeHead(502).end());
  server.on('connect', (request, socket) => {
    asked.push(request.url!);
    socket.on('error', () => {});
    const onward = connect(port, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      onward.pipe(socket).pipe(onward);
    });
    onward.on('error', () => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close().closeAllConnections());
  return { asked, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

describe.runIf(spawnSync('openssl', ['version']).status === 0)('TLS', () => {
  test('with an authority of one\'s own is trusted where that is said', async () => {
    const { ca, tls } = certified();
    const server = await loopback({ apis: [ollama()], tls });
    const remote = { kind: 'ollama', url: server.url.replace('127.0.0.1', 'localhost'), model: 'nomic-embed-text' } as const;
    const error = await failure(() => ready({ remote }));
    expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
    expect(error.message).toMatch(/certificate.*NODE_EXTRA_CA_CERTS/i);
    expect(server.requests).toEqual([]);
    vi.stubEnv('NODE_EXTRA_CA_CERTS', ca);
    const generator = await ready({ remote });
    expect(distance((await generator.embed(['a'])).row(0), vectorOf('a'))).toBeLessThan(1e-6);
    // Another name than the one that was certified.
    expect((await failure(() => ready({ remote: { ...remote, url: server.url } }))).code).toBe('BACKEND_UNAVAILABLE');
  });

  test('is never left for a redirect', async () => {
    const { ca, tls } = certified();
    vi.stubEnv('NODE_EXTRA_CA_CERTS', ca);
    const [server, plain] = [await loopback({ apis: [ollama()], tls }), await loopback({ apis: [ollama()] })];
    const generator = await ready({ remote: { kind: 'ollama', url: server.url.replace('127.0.0.1', 'localhost'), model: 'nomic-embed-text' } });
    server.always(() => () => ({ status: 307, headers: { location: `${plain.url}/api/embed` } }));
    expect(await failure(() => generator.embed(['a']))).toMatchObject({ code: 'BACKEND_REJECTED' });
    expect(plain.requests).toEqual([]);
  });

  test('goes through the proxy that the environment names, and not for what it excepts', async () => {
    const { ca, tls } = certified();
    const server = await loopback({ apis: [ollama()], tls });
    const proxy = await proxyTo(server.port);
    vi.stubEnv('NODE_EXTRA_CA_CERTS', ca);
    vi.stubEnv('HTTPS_PROXY', proxy.url);
    const remote = { kind: 'ollama', url: 'https://models.invalid', model: 'nomic-embed-text', apiKey: 'sk-12345678', retries: 0 } as const;
    const generator = await ready({ remote });
    expect(distance((await generator.embed(['a'])).row(0), vectorOf('a'))).toBeLessThan(1e-6);
    expect(new Set(proxy.asked)).toEqual(new Set(['models.invalid:443']));
    expect(server.requests.at(-1)!.headers.authorization).toBe('Bearer sk-12345678');
    vi.stubEnv('NO_PROXY', 'models.invalid');
    expect(await failure(() => ready({ remote }))).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
    vi.stubEnv('HTTPS_PROXY', 'socks5://127.0.0.1:1');
    vi.stubEnv('NO_PROXY', '');
    expect(await failure(() => ready({ remote }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'HTTPS_PROXY' } });
  });
});
