// What `doctor()` and `embedcore doctor` tell of this machine, and of what is wrong with it.
import { execFile } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { availableParallelism, cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { doctor, IntelligentEmbeddingCache, type DoctorReport } from 'embedcore';
import { expect, onTestFinished, test, vi } from 'vitest';

import { directory } from './files';
import { copyOf, failure, model, root } from './support';

const cli = join(root, 'cli', 'embedcore.js');

/** A hub that answers nothing but 404, and a cache that is empty. */
async function alone(): Promise<string> {
  const server = createServer((_, response) => response.writeHead(404).end()).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  onTestFinished(() => void server.close());
  vi.stubEnv('HF_ENDPOINT', `http://user:secret@127.0.0.1:${(server.address() as AddressInfo).port}`);
  vi.stubEnv('HF_HUB_OFFLINE', '');
  const cacheDir = directory();
  vi.stubEnv('HF_HUB_CACHE', cacheDir);
  return cacheDir;
}

test('what is there is told, and a text is embedded', async () => {
  const cacheDir = await alone();
  const before = readdirSync(tmpdir()).filter((name) => name.startsWith('embedcore-doctor-'));
  const report = await doctor();
  expect(report).toMatchObject({
    ok: true,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    addon: { error: null },
    model: { modelPath: 'the built-in model', error: null },
    modelCache: { directory: cacheDir, writable: true, models: 0, bytes: 0, error: null },
    hub: { reachable: true, offline: null, error: null },
    cache: { ok: true, error: null },
  });
  expect(report.hub.endpoint).toMatch(/^http:\/\/127\.0\.0\.1:\d+/);
  expect(JSON.stringify(report)).not.toContain('secret');
  expect(report.processor.cores).toBeLessThanOrEqual(availableParallelism());
  expect(report.processor.machineCores).toBe(cpus().length);
  expect(report.memory.totalMB).toBeGreaterThan(0);
  expect(report.memory.machineMB).toBe(Math.floor(totalmem() / 2 ** 20));
  expect(report.model.dimensions).toBeGreaterThan(0);
  const [runtime, openvino] = report.engines;
  expect(runtime).toMatchObject({ name: 'onnxruntime', error: null });
  expect(runtime!.version).toMatch(/^\d+\.\d+\.\d+$/);
  expect(existsSync(runtime!.library!)).toBe(true);
  expect(openvino!.name).toBe('openvino');
  expect(report.providers.map(({ name }) => name)).toContain('cpu');
  expect(readdirSync(tmpdir()).filter((name) => name.startsWith('embedcore-doctor-'))).toEqual(before);
});

test('what is wrong is named, with what to do', async () => {
  await alone();
  const broken = copyOf('bert-mean');
  writeFileSync(join(broken, 'tokenizer.json'), '{');
  const file = join(directory(), 'cache.sqlite');
  const damaged = await doctor({ modelPath: broken, persistPath: file });
  expect(damaged.ok).toBe(false);
  expect(damaged.model.error).toContain('tokenizer.json');
  expect(damaged.cache).toMatchObject({ path: file, ok: false });
  expect(existsSync(file)).toBe(false);
  expect(damaged.missing.map(({ what }) => what)).toEqual(expect.arrayContaining([broken, 'the disk tier of caches']));

  const cache = new IntelligentEmbeddingCache({ persistPath: file });
  await cache.set('key', 'content', [1]);
  await cache.close();
  expect((await doctor({ modelPath: model('bert-mean'), persistPath: file })).cache).toMatchObject({ ok: true, entries: 1 });
  writeFileSync(file, 'somebody else\'s, and long enough to be looked at'.repeat(100));
  expect((await doctor({ persistPath: file })).cache.ok).toBe(false);

  vi.stubEnv('HF_ENDPOINT', 'http://127.0.0.1:1');
  const unreachable = await doctor();
  expect(unreachable.hub.reachable).toBe(false);
  expect(unreachable.ok).toBe(true);
  vi.stubEnv('HF_HUB_OFFLINE', '1');
  expect((await doctor()).hub).toMatchObject({ reachable: null, offline: 'HF_HUB_OFFLINE', error: null });
  // A model that is not here is not fetched.
  expect((await doctor({ modelPath: 'acme/none' })).model.error).toContain('acme/none');
});

test.skipIf(process.platform === 'win32' || process.getuid?.() === 0)('a cache of models that cannot be written is told', async () => {
  await alone();
  const cacheDir = join(directory(), 'models');
  mkdirSync(cacheDir);
  chmodSync(cacheDir, 0o500);
  const { modelCache, missing } = await doctor({ cacheDir });
  expect(modelCache.writable).toBe(false);
  expect(missing.map(({ what }) => what)).toContain(`the models in ${cacheDir}`);
});

test('unknown options and those of a wrong kind are refused', async () => {
  expect(await failure(() => doctor({ model: 'x' } as never))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining('modelPath') });
  expect(await failure(() => doctor({ cacheDir: 5 } as never))).toMatchObject({ code: 'INVALID_CONFIG' });
  expect(await failure(() => doctor(null as never))).toMatchObject({ code: 'INVALID_CONFIG' });
});

test('the command prints the same, and its exit status says whether embedding works', async () => {
  await alone();
  const { stdout } = await promisify(execFile)(process.execPath, [cli, 'doctor', '--json']);
  const report = JSON.parse(stdout) as DoctorReport;
  expect(report.ok).toBe(true);
  expect(Object.keys(report)).toEqual(Object.keys(await doctor()));
  const plain = await promisify(execFile)(process.execPath, [cli, 'doctor']);
  expect(plain.stdout).toContain('Embedding works here.');
  expect(plain.stderr).toBe('');
  const failed = await promisify(execFile)(process.execPath, [cli, 'doctor', '--model', directory()]).catch((error: { code: number; stdout: string }) => error);
  expect(failed).toMatchObject({ code: 1, stdout: expect.stringContaining('Embedding does not work here.') });
  const misused = await promisify(execFile)(process.execPath, [cli, 'doctor', 'all']).catch((error: { code: number }) => error);
  expect(misused).toMatchObject({ code: 2 });
});
