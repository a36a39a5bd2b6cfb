// What can go wrong around a download: proxies, certificates, cache directories, and writing where nothing may be written.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, cpSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';

import { OptimizedEmbeddingGenerator, type GeneratorOptions } from 'embedcore';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';

import { send, startHub, type Hub, type Tls } from './hub-server';
import { failure, ready, root } from './support';

const ID = 'acme/tiny-bert';
const GRAPH = 'onnx/model.onnx';
const program = join(root, '__test__', 'programs', 'hub.cjs');

let hub: Hub;
let sandbox: string;
let cacheDir: string;

beforeEach(async () => {
  sandbox = mkdtempSync(join(tmpdir(), 'embedcore-faults-'));
  onTestFinished(() => rmSync(sandbox, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 }));
  cacheDir = join(sandbox, 'cache');
  for (const name of Object.keys(process.env)) {
    if (/^HF_|^HUGGING|_proxy$|^SSL_CERT|_CA_/i.test(name)) vi.stubEnv(name, undefined);
  }
  vi.stubEnv('HF_TOKEN_PATH', join(sandbox, 'no token'));
  onTestFinished(() => void vi.unstubAllEnvs());
  hub = await startHub();
  hub.add(ID, 'bert-mean');
  vi.stubEnv('HF_ENDPOINT', hub.url);
});

const options = (more: GeneratorOptions = {}): GeneratorOptions => ({ modelPath: ID, cacheDir, ...more });
const load = (more: GeneratorOptions = {}) => ready(options(more));
const fails = (more: GeneratorOptions = {}) => failure(() => new OptimizedEmbeddingGenerator(options(more)).initialize());

/** Ends as `code output`. */
const run = (command: string, args: string[], more: object = {}) =>
  new Promise<string>((resolve) => {
    const child = spawn(command, args, { env: process.env, ...more });
    let out = '';
    child.stdout!.on('data', (data: Buffer) => (out += data.toString()));
    child.stderr!.on('data', (data: Buffer) => (out += data.toString()));
    child.on('exit', (code, signal) => resolve(`${signal ?? code} ${out.trim()}`));
  });

/** Every file, link and directory below, with what it holds. */
function tree(directory: string, without: string): Map<string, string> {
  const all = readdirSync(directory, { recursive: true, encoding: 'utf8' });
  const within = all.map((name) => join(directory, name)).filter((path) => !path.startsWith(without));
  return new Map(
    within.map((path) => {
      const found = lstatSync(path);
      return [relative(directory, path), found.isSymbolicLink() ? readlinkSync(path) : found.isFile() ? readFileSync(path, 'base64') : 'directory'];
    }),
  );
}

describe('slow servers', () => {
  /** Sends some bytes now and then. */
  const drip = (response: import('node:http').ServerResponse, bytes: Buffer, step: number, ms: number) => {
    let at = 0;
    const timer = setInterval(() => {
      response.write(bytes.subarray(at, (at += step)));
      if (at >= bytes.length) response.end(() => clearInterval(timer));
    }, ms);
    response.on('close', () => clearInterval(timer));
  };

  test('that drip are waited for', async () => {
    vi.stubEnv('HF_HUB_DOWNLOAD_TIMEOUT', '0.5');
    hub.fault = (asked, response, file) => {
      if (asked.method !== 'GET' || !file || file.large) return false;
      response.writeHead(200, { 'Content-Length': file.bytes.length });
      // For longer than the timeout, which is one of silence.
      drip(response, file.bytes, Math.ceil(file.bytes.length / 8), 100);
      return true;
    };
    expect((await load()).isReady()).toBe(true);
  });

  test('that drip an excuse are not', async () => {
    // It would take a thousand seconds.
    hub.fault = (_, response) => (response.writeHead(403), drip(response, Buffer.alloc(10_000, 'x'), 1, 1000), true);
    expect(await fails()).toMatchObject({ code: 'MODEL_INIT_FAILED', details: { status: 403 } });
  });
});

describe('a warm cache', () => {
  test('makes no connection, not even one that asks for nothing', async () => {
    await load();
    hub.connections = 0;
    await load();
    await load({ dtype: 'fp32' });
    expect(hub.connections).toBe(0);
  });

  test.runIf(spawnSync('strace', ['-V']).status === 0)('opens no socket to anywhere, as the system sees it', async () => {
    await load();
    const trace = join(sandbox, 'trace');
    const traced = (cache: string) => run('strace', ['-f', '-qq', '-e', 'trace=socket,connect', '-o', trace, process.execPath, program, ID, cache]);
    const connections = () => readFileSync(trace, 'utf8').match(/(AF_INET|sin_port).*/g) ?? [];
    // The way of looking sees connections where there are some.
    expect(await traced(join(sandbox, 'other'))).toBe('0 32');
    expect(connections()).not.toEqual([]);
    expect(await traced(cacheDir)).toBe('0 32');
    expect(connections()).toEqual([]);
  });
});

describe('what is written', () => {
  test.each(['well', 'badly'])('lies in the cache directory when it goes %s', async (how) => {
    const { files } = hub.models.get(ID)!;
    if (how === 'badly') {
      const modules = JSON.parse(files.get('modules.json')!.bytes.toString()) as { path: string }[];
      modules[1]!.path = '../../../../escaped';
      hub.add(ID, 'bert-mean', {
        'modules.json': JSON.stringify(modules),
        '../../../../escaped/config.json': '{}',
        '/escaped': 'x',
        'onnx/model.onnx_data_../../../../escaped': 'x',
      });
    }
    const [home, temporary, work] = ['home', 'tmp', 'work'].map((name) => join(sandbox, name)) as [string, string, string];
    for (const directory of [home, temporary, work]) mkdirSync(directory);
    writeFileSync(join(work, 'file'), 'as it was');
    const env = { ...process.env, HOME: home, USERPROFILE: home, TMPDIR: temporary, TMP: temporary, TEMP: temporary, XDG_CACHE_HOME: join(home, 'x') };
    const before = tree(sandbox, cacheDir);
    const ended = await run(process.execPath, [program, ID, cacheDir], { cwd: work, env });
    expect(ended).toMatch(how === 'well' ? /^0 32$/ : /^1 [^]*outside the model/);
    expect(tree(sandbox, cacheDir)).toEqual(before);
    expect(existsSync(join(cacheDir, 'models--acme--tiny-bert'))).toBe(true);
    expect(existsSync('/escaped')).toBe(false);
  });
});

describe.runIf(process.platform === 'linux')('a cache directory', () => {
  const mounts = process.getuid?.() === 0 && (() => {
    const at = mkdtempSync(join(tmpdir(), 'embedcore-mount-'));
    const works = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', at]).status === 0;
    if (works) spawnSync('umount', [at]);
    rmSync(at, { recursive: true });
    return works;
  })();

  test.runIf(mounts)('that is full says so, and goes on when there is room', async () => {
    mkdirSync(cacheDir);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', cacheDir]);
    onTestFinished(() => void spawnSync('umount', ['-l', cacheDir]));
    const error = await fails();
    expect(error).toMatchObject({ code: 'MODEL_INIT_FAILED', details: { path: expect.stringContaining(cacheDir) } });
    expect(error.message).toMatch(/No space left.*cacheDir/);
    execFileSync('mount', ['-o', 'remount,size=8m', cacheDir]);
    await load();
  });

  /** As somebody who may not do everything. */
  const nobody = { uid: 65534, gid: 65534 };
  const drops = process.getuid?.() === 0 && spawnSync(process.execPath, [program, 'x', sandbox ?? ''], nobody).error === undefined;

  test.runIf(drops)('that is read-only serves what it holds, and says what it cannot take', async () => {
    chmodSync(sandbox, 0o755);
    await load();
    const child = (id: string) => run(process.execPath, [program, id, cacheDir], nobody);
    expect(await child(ID)).toBe('0 32');
    hub.connections = 0;
    hub.add('acme/other', 'bert-mean');
    expect(await child('acme/other')).toMatch(/the cache cannot be written.*cacheDir/);
    // What another tool has put there may lack files; where none can be added it is good enough, too.
    rmSync(join(cacheDir, 'models--acme--tiny-bert', '.no_exist'), { recursive: true });
    expect(await child(ID)).toBe('0 32');
  });

  test.runIf(drops)('below one that takes nothing', async () => {
    chmodSync(sandbox, 0o755);
    const env = { ...process.env, HF_HUB_CACHE: undefined };
    expect(await run(process.execPath, [program, ID, join(sandbox, 'a', 'b')], { ...nobody, env })).toMatch(/the cache cannot be written/);
    const own = join(sandbox, 'own');
    mkdirSync(own);
    chownSync(own, nobody.uid, nobody.gid);
    expect(await run(process.execPath, [program, ID, own], { ...nobody, env })).toBe('0 32');
  });

  test('that is a link is followed', async () => {
    mkdirSync(join(sandbox, 'elsewhere'));
    execFileSync('ln', ['-s', join(sandbox, 'elsewhere'), cacheDir]);
    await load();
    cpSync(join(sandbox, 'elsewhere'), join(sandbox, 'copy'), { recursive: true, verbatimSymlinks: true });
    await load({ cacheDir: join(sandbox, 'copy'), localFilesOnly: true });
  });
});

describe('a configuration', () => {
  test.each(['', '{', '[1]', 'null', '{"max_position_embeddings": -5}', '{"max_position_embeddings": 1e400}', '{"model_type": 7}', '\u0000'])(
    'that is %j is refused by the name of its file',
    async (config) => {
      hub.add(ID, 'bert-mean', { 'config.json': config });
      const error = await fails();
      expect(error).toMatchObject({ code: 'MODEL_INIT_FAILED', details: { path: expect.stringMatching(/config\.json$/) } });
    },
  );

  test('that claims absurd sizes is believed as far as they make sense', async () => {
    const config = { model_type: 'bert', max_position_embeddings: 2 ** 53 - 1, hidden_size: 1e15, vocab_size: 1e15, num_hidden_layers: 1e15 };
    hub.add(ID, 'bert-cls', { 'config.json': JSON.stringify(config), 'tokenizer_config.json': '{}' });
    const generator = await load();
    expect(generator.getModelInfo()).toMatchObject({ dimensions: 32, maxLength: 2 ** 20 });
    expect((await generator.embed(['a'])).rows).toBe(1);
    // Longer than the positions that there really are.
    expect(await failure(() => generator.embed(['a '.repeat(500)]))).toMatchObject({ code: 'EMBEDDING_GENERATION_FAILED' });
  });
});

/** A proxy that reaches the servers of these names, and what it was asked for. */
async function startProxy(routes: () => Record<string, number>, credentials?: string) {
  const asked: string[] = [];
  const may = (headers: IncomingHttpHeaders) =>
    !credentials || headers['proxy-authorization'] === `Basic ${Buffer.from(credentials).toString('base64')}`;
  const server = createServer((request, response) => {
    // Addresses without TLS may also be asked for whole.
    asked.push(request.url!);
    response.writeHead(502).end();
  });
  server.on('connect', (request, socket, head: Buffer) => {
    asked.push(request.url!);
    socket.on('error', () => {});
    const port = routes()[request.url!.split(':')[0]!];
    if (!may(request.headers) || !port) return void socket.end(`HTTP/1.1 ${port ? 407 : 502} No\r\n\r\n`);
    const to = connect(port, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      to.write(head);
      to.pipe(socket).pipe(to);
    });
    to.on('error', () => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close().closeAllConnections());
  return { asked, address: `127.0.0.1:${(server.address() as AddressInfo).port}` };
}

/** A company's certificate authority, and a server's key that it has signed. */
function certificates(): { ca: string; tls: Tls } {
  const at = (name: string) => join(sandbox, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...key, '-keyout', at('ca.key'), '-out', at('ca.pem'), '-days', '2', '-subj', '/CN=embedcore test');
  openssl('req', ...key, '-keyout', at('key.pem'), '-out', at('request.pem'), '-subj', '/CN=hub.invalid');
  writeFileSync(at('names'), 'subjectAltName=DNS:hub.invalid,DNS:store.invalid,DNS:localhost\nbasicConstraints=CA:FALSE\n');
  openssl('x509', '-req', '-in', at('request.pem'), '-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', '2', '-extfile', at('names'), '-out', at('cert.pem'));
  const read = (name: string) => readFileSync(at(name), 'utf8');
  return { ca: at('ca.pem'), tls: { key: read('key.pem'), cert: read('cert.pem'), hub: 'hub.invalid', store: 'store.invalid' } };
}

describe.runIf(spawnSync('openssl', ['version']).status === 0)('TLS', () => {
  test.each(['NODE_EXTRA_CA_CERTS', 'SSL_CERT_FILE'])('with a CA of the company in %s', async (variable) => {
    const { ca, tls } = certificates();
    hub = await startHub({ ...tls, hub: 'localhost:PORT', store: 'localhost:PORT' });
    hub.add(ID, 'bert-mean');
    vi.stubEnv('HF_ENDPOINT', hub.url);
    const error = await fails();
    expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
    expect(error.message).toMatch(/certificate.*NODE_EXTRA_CA_CERTS/i);
    // Once: it will not be another one the next time.
    expect(hub.connections).toBe(1);
    expect(hub.asked).toEqual([]);
    vi.stubEnv(variable, ca);
    expect((await load()).isReady()).toBe(true);
    expect(hub.stored).toHaveLength(1);
  });

  test('with that CA where the machine has none', async () => {
    const { ca, tls } = certificates();
    hub = await startHub({ ...tls, hub: 'localhost:PORT', store: 'localhost:PORT' });
    hub.add(ID, 'bert-mean');
    const none = join(sandbox, 'none.pem');
    writeFileSync(none, '');
    for (const [name, value] of Object.entries({ HF_ENDPOINT: hub.url, SSL_CERT_FILE: none, NODE_EXTRA_CA_CERTS: ca })) vi.stubEnv(name, value);
    expect((await load()).isReady()).toBe(true);
  });

  test('is never left for a redirect', async () => {
    const { ca, tls } = certificates();
    hub = await startHub({ ...tls, hub: 'localhost:PORT', store: '' });
    hub.add(ID, 'bert-mean');
    vi.stubEnv('HF_ENDPOINT', hub.url);
    vi.stubEnv('NODE_EXTRA_CA_CERTS', ca);
    hub.fault = (asked, response) => asked.path.endsWith('/config.json') && (response.writeHead(302, { Location: `http://127.0.0.1:${hub.ports.store}/x` }).end(), true);
    expect(await fails()).toMatchObject({ code: 'MODEL_INIT_FAILED', details: { status: 302 } });
    expect(hub.stored).toEqual([]);
  });

  test('through a proxy, with a name and a password for it', async () => {
    const { ca, tls } = certificates();
    hub = await startHub(tls);
    hub.add(ID, 'bert-mean');
    const proxy = await startProxy(() => ({ 'hub.invalid': hub.ports.hub, 'store.invalid': hub.ports.store }), 'me:secret');
    vi.stubEnv('HF_ENDPOINT', hub.url);
    vi.stubEnv('NODE_EXTRA_CA_CERTS', ca);
    vi.stubEnv('HTTPS_PROXY', `http://${proxy.address}`);
    const refused = await fails();
    expect(refused).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
    expect(refused.message).toContain('proxy');
    vi.stubEnv('HTTPS_PROXY', `http://me:secret@${proxy.address}`);
    vi.stubEnv('HF_TOKEN', 'hf_secret');
    expect((await load()).isReady()).toBe(true);
    expect(new Set(proxy.asked)).toEqual(new Set(['hub.invalid:443', 'store.invalid:443']));
    expect(new Set(hub.asked.map(({ authorization }) => authorization))).toEqual(new Set(['Bearer hf_secret']));
    expect(new Set(hub.stored.map(({ authorization }) => authorization))).toEqual(new Set([undefined]));
  });

  test.each(['elsewhere, hub.invalid', 'invalid', '*'])('not through it for what NO_PROXY=%s names', async (except) => {
    const { ca, tls } = certificates();
    hub = await startHub(tls);
    hub.add(ID, 'bert-mean');
    const proxy = await startProxy(() => ({ 'hub.invalid': hub.ports.hub, 'store.invalid': hub.ports.store }));
    for (const [name, value] of Object.entries({ HF_ENDPOINT: hub.url, NODE_EXTRA_CA_CERTS: ca, https_proxy: `http://${proxy.address}`, NO_PROXY: except })) {
      vi.stubEnv(name, value);
    }
    // It is nowhere but behind the proxy.
    expect(await fails()).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
    expect(proxy.asked).toEqual([]);
    vi.stubEnv('NO_PROXY', 'hub.invalid.example,other');
    expect((await load()).isReady()).toBe(true);
  });

  test('through a proxy that cannot be reached or does not answer is an error', async () => {
    vi.stubEnv('HF_ENDPOINT', 'https://hub.invalid');
    vi.stubEnv('HF_HUB_DOWNLOAD_TIMEOUT', '0.3');
    vi.stubEnv('HTTPS_PROXY', 'http://127.0.0.1:9');
    expect(await fails()).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true });
    const silent = createServer();
    silent.on('connect', () => {});
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void silent.close().closeAllConnections());
    vi.stubEnv('HTTPS_PROXY', `http://127.0.0.1:${(silent.address() as AddressInfo).port}`);
    expect(await fails()).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true });
  });
});

test('an interrupted download through another server goes on where it was', async () => {
  const graph = hub.models.get(ID)!.files.get(GRAPH)!;
  hub.fault = (asked, response, file) => {
    if (!asked.path.includes('Signature')) return false;
    response.writeHead(200, { 'Content-Length': file!.bytes.length });
    response.write(file!.bytes.subarray(0, 5000), () => response.destroy());
    return true;
  };
  await fails();
  const other = await startHub();
  other.add(ID, 'bert-mean');
  vi.stubEnv('HF_ENDPOINT', other.url);
  other.fault = (asked, response, file) => asked.path.includes('Signature') && (send(asked, response, file!.bytes), true);
  await load();
  expect(other.stored.map(({ range }) => range)).toEqual([expect.stringMatching(/^bytes=\d+-$/)]);
  expect(readFileSync(join(cacheDir, 'models--acme--tiny-bert', 'blobs', graph.etag)).equals(graph.bytes)).toBe(true);
});
