import { spawn } from 'node:child_process';
import { cpSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { CrossEncoder, MultiVectorEncoder, OptimizedEmbeddingGenerator, SparseEncoder, type FetchProgress, type GeneratorOptions } from 'embedcore';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';

import { hubFile, send, startHub, type Hub } from './hub-server';
import { failure, model, ready, root, withExternalData } from './support';

const ID = 'acme/tiny-bert';
const GRAPH = 'onnx/model.onnx';
const ADVICE = /pass the path of a model directory|HF_TOKEN|HF_ENDPOINT/;

let hub: Hub;
let cacheDir: string;

beforeEach(async () => {
  hub = await startHub();
  cacheDir = mkdtempSync(join(tmpdir(), 'embedcore-hub-'));
  onTestFinished(() => removed(cacheDir));
  for (const name of Object.keys(process.env)) if (/^HF_|^HUGGING|_proxy$/i.test(name)) vi.stubEnv(name, undefined);
  vi.stubEnv('HF_ENDPOINT', hub.url);
  vi.stubEnv('HF_TOKEN_PATH', join(cacheDir, 'no token'));
  onTestFinished(() => void vi.unstubAllEnvs());
});

const options = (more: GeneratorOptions = {}): GeneratorOptions => ({ modelPath: ID, cacheDir, ...more });
const load = (more: GeneratorOptions = {}) => ready(options(more));
const fails = (more: GeneratorOptions = {}) => failure(() => new OptimizedEmbeddingGenerator(options(more)).initialize());
const folder = (id = ID) => join(cacheDir, `models--${id.replace('/', '--')}`);
const graphOf = (id = ID) => hub.models.get(id)!.files.get(GRAPH)!;
const blobs = (id = ID) => (existsSync(join(folder(id), 'blobs')) ? readdirSync(join(folder(id), 'blobs')) : []);

/** Every blob that bears its name is what its name says. */
function expectSound(id = ID): void {
  const { files } = hub.models.get(id)!;
  const whole = blobs(id).filter((name) => !name.includes('.'));
  for (const name of whole) {
    const file = [...files.values()].find(({ etag }) => etag === name);
    expect(file && readFileSync(join(folder(id), 'blobs', name)).equals(file.bytes), name).toBe(true);
  }
}

/** The cache as another tool leaves it: blobs, links to them, and the branch. */
function layOut(id: string, files: string[], linked = true): void {
  const { sha, files: all } = hub.models.get(id)!;
  const snapshot = join(folder(id), 'snapshots', sha);
  mkdirSync(join(folder(id), 'blobs'), { recursive: true });
  mkdirSync(join(folder(id), 'refs'), { recursive: true });
  writeFileSync(join(folder(id), 'refs', 'main'), sha);
  for (const name of files) {
    const { etag, bytes } = all.get(name)!;
    mkdirSync(join(snapshot, name, '..'), { recursive: true });
    if (!linked) {
      writeFileSync(join(snapshot, name), bytes);
      continue;
    }
    writeFileSync(join(folder(id), 'blobs', etag), bytes);
    symlinkSync(`${'../'.repeat(name.split('/').length + 1)}blobs/${etag}`, join(snapshot, name));
  }
}

describe('the first load', () => {
  test('fetches what is needed, gives the vectors of the same files on disk, and says where they come from', async () => {
    const { sha } = hub.add(ID, 'bert-sentence', { 'README.md': '# not needed', 'pytorch_model.bin': 'nor this', 'onnx/model_q4.onnx': 'nor this' });
    const generator = await load();
    const local = await ready({ modelPath: model('bert-sentence') });
    expect(await generator.embed(['reads a file', 'x'])).toMatchObject({ data: (await local.embed(['reads a file', 'x'])).data });
    const info = generator.getModelInfo();
    expect(info).toMatchObject({ modelId: ID, repository: ID, revision: sha });
    expect(local.getModelInfo()).toMatchObject({ repository: null, revision: null });
    expect(info.fingerprint).not.toBe(local.getModelInfo().fingerprint);
    for (const name of ['README.md', 'pytorch_model.bin']) expect(hub.asked.some(({ path }) => path.endsWith(name))).toBe(false);
    expect(hub.fetched(GRAPH)).toBe(1);
    expectSound();
  });

  test('leaves the layout of other tools behind, and nothing else', async () => {
    const { sha, files } = hub.add(ID, 'bert-mean');
    await load();
    const link = join(folder(), 'snapshots', sha, GRAPH);
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    expect(readlinkSync(link)).toBe(`../../../blobs/${files.get(GRAPH)!.etag}`);
    expect(readFileSync(join(folder(), 'refs', 'main'), 'utf8')).toBe(sha);
    expect(blobs().filter((name) => name.includes('.'))).toEqual([]);
    expect(readdirSync(cacheDir).sort()).toEqual(['.locks', 'models--acme--tiny-bert']);
  });

  test('takes a revision in the id or as an option, but not two', async () => {
    const { sha } = hub.add(ID, 'bert-mean');
    expect((await load({ modelPath: `${ID}@v1` })).getModelInfo().revision).toBe(sha);
    expect((await load({ revision: 'refs/pr/1' })).getModelInfo().revision).toBe(sha);
    expect(hub.asked.some(({ path }) => path.endsWith('/revision/refs/pr/1'))).toBe(true);
    expect(await fails({ modelPath: `${ID}@v1`, revision: 'main' })).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'revision' } });
    expect(await fails({ revision: '../../x' })).toMatchObject({ code: 'INVALID_CONFIG' });
    expect(await fails({ modelPath: 'builtin', revision: 'main' })).toMatchObject({ code: 'INVALID_CONFIG' });
  });

  test('takes the variant that dtype names, with the weights beside it', async () => {
    const { graph, data } = withExternalData(readFileSync(join(model('bert-mean'), GRAPH)), 'model_fp16.onnx_data');
    expect(data.length).toBeGreaterThan(1000);
    hub.add(ID, 'bert-mean', { [GRAPH]: null, 'onnx/model_fp16.onnx': graph, 'onnx/model_fp16.onnx_data': data, 'onnx/model_q4.onnx_data': 'others' });
    const generator = await load({ dtype: 'fp16' });
    expect(generator.getModelInfo().dtype).toBe('fp16');
    expect((await generator.embed(['a'])).data).toEqual((await (await ready({ modelPath: model('bert-mean') })).embed(['a'])).data);
    expect(hub.asked.some(({ path }) => path.includes('model_q4'))).toBe(false);
    const error = await fails({ dtype: 'int8' });
    expect(error.code).toBe('MODEL_INIT_FAILED');
    expect(error.message).toMatch(/neither onnx\/model_int8\.onnx nor model_int8\.onnx: pass dtype: 'fp16'/);
  });

  test('tells progress that never goes back and ends with everything', async () => {
    hub.add(ID, 'bert-mean');
    const reports: FetchProgress[] = [];
    const generator = new OptimizedEmbeddingGenerator(options());
    onTestFinished(() => generator.cleanup());
    await generator.initialize(undefined, { progressCallback: (report) => reports.push(report) });
    const ofGraph = reports.filter(({ file }) => file === GRAPH);
    expect(ofGraph.at(-1)).toEqual({ file: GRAPH, loaded: graphOf().bytes.length, total: graphOf().bytes.length, progressTotal: 100 });
    expect(ofGraph.map(({ loaded }) => loaded)).toEqual(ofGraph.map(({ loaded }) => loaded).sort((a, b) => a - b));
    expect(new Set(reports.map(({ file }) => file))).toContain('tokenizer.json');
    const shares = reports.map(({ progressTotal }) => progressTotal);
    expect(shares).toEqual(shares.toSorted((a, b) => a - b));
    expect(new Set(shares).size).toBeGreaterThan(5);
  });
});

describe('the second load', () => {
  test('asks nobody', async () => {
    hub.add(ID, 'bert-dense');
    const first = (await load()).getModelInfo();
    hub.asked.length = hub.stored.length = 0;
    expect((await load()).getModelInfo()).toEqual(first);
    expect((await load({ revision: first.revision! })).getModelInfo()).toEqual(first);
    expect([...hub.asked, ...hub.stored]).toEqual([]);
    await hub.close();
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    expect((await load()).getModelInfo()).toEqual(first);
  });

  test('of a variant that is not here yet fetches only that', async () => {
    hub.add(ID, 'bert-mean', { 'onnx/model_q4.onnx': readFileSync(join(model('bert-cls'), 'model.onnx')) });
    await load();
    hub.stored.length = 0;
    hub.asked.length = 0;
    await load({ dtype: 'q4' });
    expect(hub.stored).toHaveLength(1);
    expect(hub.asked.filter(({ path }) => path.includes('tokenizer'))).toEqual([]);
  });

  test.each(['localFilesOnly', 'HF_HUB_OFFLINE'])('with %s and nothing here fails without asking', async (how) => {
    hub.add(ID, 'bert-mean');
    if (how === 'HF_HUB_OFFLINE') vi.stubEnv(how, '1');
    const error = await fails(how === 'localFilesOnly' ? { localFilesOnly: true } : {});
    expect(error).toMatchObject({ code: 'MODEL_INIT_FAILED', retryable: false });
    expect(error.message).toContain(how);
    expect(error.message).toMatch(ADVICE);
    expect(error.message).toContain(`no file or directory ${ID} on this machine`);
    expect(hub.asked).toEqual([]);
  });
});

test.each([
  ['splade', SparseEncoder],
  ['colbert', MultiVectorEncoder],
  ['causal-reranker', CrossEncoder],
] as const)('the files of every module of %s come with it, and serve offline', async (name, type) => {
  hub.add(ID, name);
  for (const localFilesOnly of [false, true]) {
    const encoder = new type({ modelPath: ID, cacheDir, localFilesOnly });
    onTestFinished(() => encoder.shutdown());
    await encoder.initialize();
    const local = new type({ modelPath: model(name) });
    onTestFinished(() => local.shutdown());
    await local.initialize();
    const result = (given: typeof encoder) => (given instanceof CrossEncoder ? given.score([['a', 'b']]) : given.embed(['a b']));
    expect(JSON.stringify(await result(encoder))).toBe(JSON.stringify(await result(local)));
  }
});

describe('a cache of another tool', () => {
  const needed = ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'modules.json', 'sentence_bert_config.json', '1_Pooling/config.json', GRAPH];

  test.each([['links', true], ['copies', false]])('made of %s is used as it is, offline', async (_, linked) => {
    const { sha } = hub.add(ID, 'bert-mean');
    layOut(ID, needed, linked);
    const generator = await load({ localFilesOnly: true });
    expect(generator.getModelInfo().revision).toBe(sha);
    expect(hub.asked).toEqual([]);
  });

  test('that lacks files is completed, and only that', async () => {
    hub.add(ID, 'bert-mean');
    layOut(ID, needed.filter((name) => !name.includes('ooling') && name !== 'modules.json'));
    expect((await load()).getModelInfo().pooling).toBe('mean');
    expect(hub.fetched(GRAPH)).toBe(0);
    expect(hub.fetched('modules.json')).toBe(1);
  });

  test.each([undefined, 401, 404, 429, 500])('that may lack files serves when the hub cannot be asked (%s)', async (status) => {
    hub.add(ID, 'bert-mean');
    layOut(ID, needed);
    if (status) hub.fault = (_, response) => (response.writeHead(status).end(), true);
    else await hub.close();
    expect((await load()).isReady()).toBe(true);
  });

  test('is found by HF_HUB_CACHE and HF_HOME', async () => {
    hub.add(ID, 'bert-mean');
    await load();
    const elsewhere = { modelPath: ID, localFilesOnly: true };
    vi.stubEnv('HF_HUB_CACHE', cacheDir);
    await ready(elsewhere);
    vi.stubEnv('HF_HUB_CACHE', undefined);
    const home = mkdtempSync(join(tmpdir(), 'embedcore-home-'));
    onTestFinished(() => rmSync(home, { recursive: true, force: true }));
    cpSync(cacheDir, join(home, 'hub'), { recursive: true, verbatimSymlinks: true });
    vi.stubEnv('HF_HOME', home);
    await ready(elsewhere);
  });

  test('a path that exists wins over an id', async () => {
    hub.add('fixtures/models', 'bert-mean');
    const error = await fails({ modelPath: 'fixtures/models' });
    expect(error.message).toContain('neither onnx/model.onnx');
    expect((await fails({ modelPath: './acme/tiny-bert' })).message).toContain('no such file or directory');
    expect(hub.asked).toEqual([]);
  });
});

describe('faults', () => {
  beforeEach(() => void hub.add(ID, 'bert-mean'));

  test.each([
    [401, 'MODEL_INIT_FAILED', false],
    [403, 'MODEL_INIT_FAILED', false],
    [404, 'MODEL_INIT_FAILED', false],
    [429, 'RATE_LIMITED', true],
    [500, 'BACKEND_UNAVAILABLE', true],
  ])('%i', async (status, code, retryable) => {
    hub.fault = (_, response) => (response.writeHead(status, { 'X-Error-Message': 'Because.' }).end(), true);
    const error = await fails();
    expect(error).toMatchObject({ code, retryable, details: { status, url: expect.stringContaining(hub.url), file: expect.stringContaining(ID) } });
    expect(error.message).toContain(`${status}, "Because."`);
    expect(error.message).toMatch(ADVICE);
    expect(error.message).toContain(`no file or directory ${ID} on this machine`);
    expect(hub.asked.length).toBe(retryable ? 4 : 1);
    hub.fault = undefined;
    await load();
    expectSound();
  });

  test('no connection at all', async () => {
    await hub.close();
    const error = await fails();
    expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true, details: { status: null } });
    expect(error.message).toMatch(ADVICE);
    expect(error.message).toContain(`no file or directory ${ID} on this machine`);
  });

  test('a server that fails twice, and one that asks to wait', async () => {
    let left = 2;
    hub.fault = (_, response) => left-- > 0 && (response.writeHead(left ? 500 : 429, { 'Retry-After': '1' }).end(), true);
    const started = performance.now();
    await load();
    expect(performance.now() - started).toBeGreaterThan(990);
  });

  test('one that names the time until which to wait, by its own clock', async () => {
    const now = Date.UTC(2001, 1, 3);
    const date = (ms: number) => new Date(ms).toUTCString();
    let left = 1;
    hub.fault = (_, response) => left-- > 0 && (response.writeHead(429, { Date: date(now), 'Retry-After': date(now + 2000) }).end(), true);
    const started = performance.now();
    await load();
    expect(performance.now() - started).toBeGreaterThan(1990);
    hub.fault = (_, response) => (response.writeHead(429, { Date: date(now), 'Retry-After': date(now + 600_000) }).end(), true);
    expect((await fails({ revision: 'v1' })).message).toContain('try again in 600 s');
  });

  test('one that asks to wait for an hour is not waited for', async () => {
    hub.fault = (_, response) => (response.writeHead(429, { 'Retry-After': '3600' }).end(), true);
    expect(await fails()).toMatchObject({ code: 'RATE_LIMITED' });
    expect(hub.asked).toHaveLength(1);
  });

  test('a body that ends early is continued where it ended', async () => {
    let cut = 3;
    hub.fault = (asked, response, file) => {
      if (!file?.large || asked.method !== 'GET' || !asked.path.includes('Signature') || cut-- <= 0) return false;
      const from = Number(/(\d+)/.exec(asked.range ?? '0')![1]);
      response.writeHead(from ? 206 : 200, { 'Content-Length': file.bytes.length - from, ...(from && { 'Content-Range': `bytes ${from}-${file.bytes.length - 1}/${file.bytes.length}` }) });
      response.write(file.bytes.subarray(from, from + 10_000), () => response.destroy());
      return true;
    };
    await load();
    expect(hub.stored.map(({ range }) => range)).toEqual([undefined, 'bytes=10000-', 'bytes=20000-', 'bytes=30000-']);
    expectSound();
  });

  test('a body that is always cut at once fails, keeps what came, and the next call goes on', async () => {
    let once = true;
    hub.fault = (asked, response, file) => {
      if (!asked.path.includes('Signature')) return false;
      response.writeHead(200, { 'Content-Length': file!.bytes.length });
      if (once) response.write(file!.bytes.subarray(0, 5000), () => response.destroy());
      else response.destroy();
      once = false;
      return true;
    };
    expect(await fails()).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true });
    expect(statSync(join(folder(), 'blobs', `${graphOf().etag}.incomplete`)).size).toBe(5000);
    hub.fault = undefined;
    hub.stored.length = 0;
    await load();
    expect(hub.stored.map(({ range }) => range)).toEqual(['bytes=5000-']);
    expectSound();
  });

  test.each(['config.json', GRAPH])('a wrong hash of %s is refused, and nothing of it is kept', async (name) => {
    const { etag, bytes } = hub.models.get(ID)!.files.get(name)!;
    const wrong = Buffer.from(bytes);
    wrong[wrong.length >> 1]! ^= 1;
    hub.fault = (asked, response, file) => {
      if (file?.etag !== etag || asked.method !== 'GET' || (file.large && !asked.path.includes('Signature'))) return false;
      send(asked, response, wrong);
      return true;
    };
    const error = await fails();
    expect(error).toMatchObject({ code: 'MODEL_INIT_FAILED' });
    expect(error.message).toContain(etag);
    expect(error.message).not.toContain('secret');
    expect(blobs().filter((blob) => blob.startsWith(etag))).toEqual([]);
    hub.fault = undefined;
    await load();
    expectSound();
  });

  test('what another process left wrong is fetched anew', async () => {
    mkdirSync(join(folder(), 'blobs'), { recursive: true });
    writeFileSync(join(folder(), 'blobs', `${graphOf().etag}.incomplete`), Buffer.alloc(1000, 7));
    await load();
    expect(hub.stored.map(({ range }) => range)).toEqual(['bytes=1000-', undefined]);
    expectSound();
  });

  test('a blob of the wrong size is not trusted', async () => {
    mkdirSync(join(folder(), 'blobs'), { recursive: true });
    writeFileSync(join(folder(), 'blobs', graphOf().etag), 'half');
    await load();
    expectSound();
  });

  test('content that is damaged in the cache is noticed when it is loaded, and fetched anew by the next attempt', async () => {
    await load();
    for (const name of ['config.json', 'tokenizer.json', GRAPH]) {
      const { etag, bytes } = hub.models.get(ID)!.files.get(name)!;
      const damaged = Buffer.from(bytes);
      // A value that means something else, or a weight that is another one: nothing but the hash can tell.
      damaged[name === 'config.json' ? bytes.lastIndexOf('1') : bytes.length >> 1]! ^= 1;
      writeFileSync(join(folder(), 'blobs', etag), damaged);
      const error = await fails();
      expect(error).toMatchObject({ code: 'MODEL_INIT_FAILED', details: { path: expect.stringContaining(name) } });
      expect(error.message).toContain('damaged');
      await load();
      expectSound();
    }
  });

  test('a file of the configuration that claims an absurd size is not fetched', async () => {
    hub.fault = (asked, response, file) => {
      if (asked.method !== 'HEAD' || !asked.path.endsWith('/config.json')) return false;
      response.writeHead(200, { ETag: file!.etag, 'Content-Length': 1e12 }).end();
      return true;
    };
    expect((await fails()).message).toContain('1000000000000 bytes');
    expect(hub.asked.filter(({ method, path }) => method === 'GET' && path.endsWith('/config.json'))).toEqual([]);
  });

  test.each(['nan', 'inf', '-1', 'soon'])('a timeout of %s', async (timeout) => {
    vi.stubEnv('HF_HUB_DOWNLOAD_TIMEOUT', timeout);
    await load();
  });

  test('a server that says nothing any more', async () => {
    vi.stubEnv('HF_HUB_DOWNLOAD_TIMEOUT', '0.3');
    let silent = 1;
    hub.fault = (asked) => asked.path.includes('Signature') && silent-- > 0;
    await load();
    expect(hub.stored).toHaveLength(2);
  });

  test('redirects in a circle, and to nowhere', async () => {
    hub.fault = (asked, response) => (response.writeHead(302, { Location: asked.path }).end(), true);
    expect((await fails()).message).toContain('more than 10 times');
    hub.fault = (_, response) => (response.writeHead(302, { Location: 'ftp://x/y' }).end(), true);
    expect(await fails()).toMatchObject({ code: 'MODEL_INIT_FAILED', retryable: false, details: { status: 302 } });
    // Nothing of that passes by itself.
    expect(hub.asked).toHaveLength(12);
  });

  test('redirects within the hub, as it has them for small files', async () => {
    vi.stubEnv('HF_TOKEN', 'hf_secret');
    hub.fault = (asked, response, file) => {
      const [, etag] = /^\/api\/resolve-cache\/(.*)\?/.exec(asked.path) ?? [];
      const small = [...hub.models.get(ID)!.files.values()].find((known) => known.etag === (etag ?? file?.etag) && !known.large);
      if (!small) return false;
      if (!etag) return response.writeHead(307, { Location: `/api/resolve-cache/${small.etag}?x=y` }).end(), true;
      response.setHeader('ETag', `"${small.etag}"`);
      send(asked, response, asked.method === 'HEAD' ? Buffer.alloc(small.bytes.length) : small.bytes);
      return true;
    };
    await load();
    expectSound();
    // The token goes with them.
    expect(new Set(hub.asked.map(({ authorization }) => authorization))).toEqual(new Set(['Bearer hf_secret']));
  });

  test('names that lead out of the cache are not even asked for', async () => {
    const { files } = hub.models.get(ID)!;
    files.set('../../../evil/model.onnx', hubFile('x.onnx', Buffer.from('x')));
    const modules = JSON.parse(files.get('modules.json')!.bytes.toString()) as { path: string }[];
    modules[1]!.path = '../../../../evil';
    files.set('modules.json', hubFile('modules.json', Buffer.from(JSON.stringify(modules))));
    expect((await fails()).message).toContain('outside the model');
    expect(hub.asked.some(({ path }) => path.includes('evil'))).toBe(false);
    expect(readdirSync(cacheDir).sort()).toEqual(['.locks', 'models--acme--tiny-bert']);
  });

  test('a server without hashes is not trusted', async () => {
    hub.fault = (asked, response) => {
      if (asked.method !== 'HEAD') return false;
      response.writeHead(200, { ETag: '"../../x"', 'Content-Length': 5 }).end();
      return true;
    };
    expect((await fails()).message).toContain('cannot be verified');
  });

  test.runIf(process.platform !== 'win32')('a cache that takes no files', async () => {
    rmSync(cacheDir, { recursive: true });
    writeFileSync(cacheDir, 'a file');
    const error = await fails();
    expect(error).toMatchObject({ code: 'MODEL_INIT_FAILED' });
    expect(error.message).toMatch(/cacheDir/);
  });
});

describe('the token', () => {
  beforeEach(() => void hub.add(ID, 'bert-mean'));

  test('goes to the hub, and to nobody else', async () => {
    vi.stubEnv('HF_TOKEN', 'hf_secret');
    await load();
    expect(new Set(hub.asked.map(({ authorization }) => authorization))).toEqual(new Set(['Bearer hf_secret']));
    expect(hub.stored.length).toBeGreaterThan(0);
    expect(new Set(hub.stored.map(({ authorization }) => authorization))).toEqual(new Set([undefined]));
  });

  test('is not sent where that is switched off, and is refused where it cannot be one', async () => {
    vi.stubEnv('HF_TOKEN', 'hf_secret');
    vi.stubEnv('HF_HUB_DISABLE_IMPLICIT_TOKEN', '1');
    await load();
    expect(new Set(hub.asked.map(({ authorization }) => authorization))).toEqual(new Set([undefined]));
    vi.stubEnv('HF_HUB_DISABLE_IMPLICIT_TOKEN', undefined);
    vi.stubEnv('HF_TOKEN', 'hf_ sécret');
    const error = await fails({ revision: 'v1' });
    expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'HF_TOKEN' } });
    expect(error.message).not.toContain('sécret');
  });

  test('is in no message', async () => {
    vi.stubEnv('HF_TOKEN', 'hf_secret');
    hub.fault = (asked, response) => asked.path.includes('Signature') && (response.writeHead(403).end(), true);
    const error = await fails();
    expect(error.details.status).toBe(403);
    expect(JSON.stringify([error.message, error.details, error.stack])).not.toMatch(/secret/);
  });
});

describe('a proxy', () => {
  test('is asked for addresses elsewhere, never for this machine', async () => {
    hub.add(ID, 'bert-mean');
    vi.stubEnv('http_proxy', 'http://127.0.0.1:9');
    await load();
    vi.stubEnv('HF_ENDPOINT', 'http://hub.invalid');
    const error = await fails({ modelPath: 'acme/other' });
    expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
    vi.stubEnv('http_proxy', 'not a url');
    expect(await fails({ modelPath: 'acme/other' })).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'http_proxy' } });
  });
});

describe('stopping', () => {
  test('ends a silent download at once, and the next one goes on', async () => {
    hub.add(ID, 'bert-mean');
    const started = new Promise<void>((resolve) => {
      hub.fault = (asked, response, file) => {
        if (!asked.path.includes('Signature')) return false;
        response.writeHead(200, { 'Content-Length': file!.bytes.length });
        response.write(file!.bytes.subarray(0, 7000), () => setTimeout(resolve, 100));
        return true;
      };
    });
    const generator = new OptimizedEmbeddingGenerator(options());
    onTestFinished(() => generator.cleanup());
    const stop = new AbortController();
    const running = failure(() => generator.initialize(undefined, { signal: stop.signal }));
    await started;
    const before = performance.now();
    stop.abort('enough');
    expect(await running).toMatchObject({ code: 'ABORTED', cause: 'enough' });
    // By itself it would end after ten seconds of silence.
    expect(performance.now() - before).toBeLessThan(5000);
    expect(generator.isReady()).toBe(false);
    hub.fault = undefined;
    hub.stored.length = 0;
    await generator.initialize();
    expect(hub.stored.map(({ range }) => range)).toEqual(['bytes=7000-']);
    expectSound();
  });

  test('before it began, and by cleanup', async () => {
    hub.add(ID, 'bert-mean');
    const generator = new OptimizedEmbeddingGenerator(options());
    expect(await failure(() => generator.initialize(undefined, { signal: AbortSignal.abort() }))).toMatchObject({ code: 'ABORTED' });
    expect(hub.asked).toEqual([]);
    hub.fault = () => true;
    const running = failure(() => generator.initialize());
    await vi.waitFor(() => expect(hub.asked.length).toBe(1));
    await generator.cleanup();
    expect(await running).toMatchObject({ code: 'CLOSED' });
  });

  test('a callback that throws', async () => {
    hub.add(ID, 'bert-mean');
    const generator = new OptimizedEmbeddingGenerator(options());
    const progressCallback = () => {
      throw new Error('on purpose');
    };
    expect(await failure(() => generator.initialize(undefined, { progressCallback }))).toMatchObject({ code: 'ABORTED' });
    expect(await failure(() => generator.initialize(undefined, { onProgress: 1 } as object))).toMatchObject({ code: 'INVALID_CONFIG' });
  });
});

describe('a model without ONNX', () => {
  const files = { [GRAPH]: null, 'model.safetensors': 'weights' };
  const options = { modelPath: 'microsoft/codebert-base' } as const;

  test('is loaded from its conversion, and says so, offline too', async () => {
    hub.add('microsoft/codebert-base', 'roberta-mean', files);
    const { sha } = hub.add('Xenova/codebert-base', 'roberta-mean');
    const expected = { modelId: 'microsoft/codebert-base', repository: 'Xenova/codebert-base', revision: sha, pooling: 'mean', normalize: true };
    expect((await load(options)).getModelInfo()).toMatchObject(expected);
    hub.asked.length = 0;
    expect((await load(options)).getModelInfo()).toMatchObject(expected);
    expect(hub.asked).toEqual([]);
    expect((await load({ ...options, localFilesOnly: true })).getModelInfo()).toMatchObject(expected);
  });

  test('gives the vectors that the table says, unless the caller says else', async () => {
    hub.add('microsoft/codebert-base', 'roberta-mean', files);
    hub.add('Xenova/codebert-base', 'roberta-mean');
    const embedded = async (more: GeneratorOptions) => (await (await ready(more)).embed(['reads a file'])).data;
    const local = { modelPath: model('roberta-mean'), normalize: true } as const;
    expect(await embedded({ ...options, cacheDir })).toEqual(await embedded({ ...local, pooling: 'mean' }));
    expect(await embedded({ modelPath: 'Xenova/codebert-base', cacheDir })).toEqual(await embedded({ ...local, pooling: 'mean' }));
    expect(await embedded({ ...options, cacheDir, pooling: 'cls' })).toEqual(await embedded({ ...local, pooling: 'cls' }));
    // Only the models of the table: all others are asked for.
    hub.add(ID, 'roberta-mean');
    expect((await fails()).message).toContain("pass pooling: 'mean'");
  });

  test('is loaded from the next conversion where the first one is gone', async () => {
    hub.add('microsoft/codebert-base', 'roberta-mean', files);
    hub.add('onnx-community/codebert-base-ONNX', 'roberta-mean');
    expect((await load(options)).getModelInfo().repository).toBe('onnx-community/codebert-base-ONNX');
    expect((await load({ ...options, localFilesOnly: true })).getModelInfo().repository).toBe('onnx-community/codebert-base-ONNX');
    hub.models.delete('onnx-community/codebert-base-ONNX');
    rmSync(folder('onnx-community/codebert-base-ONNX'), { recursive: true });
    const error = await fails(options);
    expect(error.message).toContain('microsoft/codebert-base: it holds neither onnx/model.onnx');
  });

  test('at a revision of its own is not, because the conversion has others', async () => {
    hub.add('microsoft/codebert-base', 'roberta-mean', files);
    const error = await fails({ ...options, revision: 'main' });
    expect(error.message).toContain("'Xenova/codebert-base'");
  });

  test('and without a conversion is refused with two ways out', async () => {
    hub.add(ID, 'bert-mean', { ...files });
    for (let i = 0; i < 2; i++) {
      const error = await fails();
      expect(error).toMatchObject({ code: 'MODEL_INIT_FAILED' });
      expect(error.message).toMatch(/neither onnx\/model\.onnx nor model\.onnx: export the model to ONNX first, or pass the id of a repository/);
    }
  });
});

describe('processes', () => {
  const start = () => {
    const child = spawn(process.execPath, [join(root, '__test__', 'programs', 'hub.cjs'), ID, cacheDir], { env: process.env });
    let out = '';
    child.stdout.on('data', (data: Buffer) => (out += data.toString()));
    child.stderr.on('data', (data: Buffer) => (out += data.toString()));
    const ended = new Promise<string>((resolve) => child.on('exit', (code, signal) => resolve(`${signal ?? code} ${out.trim()}`)));
    return { child, ended };
  };

  test('at once fetch one file once', async () => {
    hub.add(ID, 'bert-mean');
    hub.fault = (asked, response, file) => {
      if (!asked.path.includes('Signature')) return false;
      setTimeout(() => send(asked, response, file!.bytes), 300);
      return true;
    };
    const ended = await Promise.all(Array.from({ length: 5 }, () => start().ended));
    expect(ended).toEqual(Array(5).fill('0 32'));
    expect(hub.stored).toHaveLength(1);
    expectSound();
  });

  test('killed at any moment leave nothing that has to be cleared', async () => {
    hub.add(ID, 'bert-mean');
    hub.fault = (asked, response, file) => {
      if (!asked.path.includes('Signature')) return false;
      const from = Number(/(\d+)/.exec(asked.range ?? '0')![1]);
      response.writeHead(from ? 206 : 200, { 'Content-Length': file!.bytes.length - from, ...(from && { 'Content-Range': `bytes ${from}-${file!.bytes.length - 1}/${file!.bytes.length}` }) });
      let at = from;
      const drip = setInterval(() => {
        response.write(file!.bytes.subarray(at, (at += 2000)));
        if (at >= file!.bytes.length) response.end(() => clearInterval(drip));
      }, 10);
      response.on('close', () => clearInterval(drip));
      return true;
    };
    // Fifty, two at a time, so that some die while another one waits for them.
    for (let i = 0; i < 25; i++) {
      const before = hub.stored.length;
      const kill = async () => {
        const { child, ended } = start();
        let over = false;
        void ended.then(() => (over = true));
        // Some anywhere, the others in the middle of the large file.
        if (i % 3 > 0) await vi.waitUntil(() => over || hub.stored.length > before, { timeout: 60_000, interval: 5 });
        await new Promise((resolve) => setTimeout(resolve, Math.random() * (i % 3 > 0 ? 60 : 500)));
        child.kill('SIGKILL');
        await ended;
      };
      await Promise.all([kill(), kill()]);
      expectSound();
      // Otherwise the rest of them would find it whole.
      if (i % 5 === 4) rmSync(folder(), { recursive: true });
    }
    hub.fault = undefined;
    expect(await start().ended).toBe('0 32');
    expect(hub.stored.some(({ range }) => range !== undefined)).toBe(true);
    expectSound();
  });
});

/** Removes a directory. A download that was stopped may still write into it for a moment. */
async function removed(directory: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return rmSync(directory, { recursive: true, force: true });
    } catch (error) {
      if (attempt === 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
