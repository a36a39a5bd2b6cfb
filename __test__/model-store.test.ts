import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { ModelStore, type FetchProgress } from 'embedcore';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';

import { startHub, type Hub } from './hub-server';
import { failure, ready, root } from './support';

const ID = 'acme/tiny-bert';
const GRAPH = 'onnx/model.onnx';

let hub: Hub;
let cacheDir: string;
let store: ModelStore;

beforeEach(async () => {
  hub = await startHub();
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-store-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  cacheDir = join(directory, 'hub');
  for (const name of Object.keys(process.env)) if (/^HF_|^HUGGING|_proxy$/i.test(name)) vi.stubEnv(name, undefined);
  vi.stubEnv('HF_ENDPOINT', hub.url);
  vi.stubEnv('HF_TOKEN_PATH', join(directory, 'no token'));
  onTestFinished(() => void vi.unstubAllEnvs());
  store = new ModelStore({ cacheDir });
});

const folder = (id = ID) => join(cacheDir, `models--${id.replace('/', '--')}`);
const blob = (file: string, id = ID) => join(folder(id), 'blobs', hub.models.get(id)!.files.get(file)!.etag);

/** Damages a file as a disk does: its length stays. */
function damage(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1]! ^= 1;
  writeFileSync(path, bytes);
}

describe('ModelStore', () => {
  test('of a directory that is not there is empty', async () => {
    expect(store.directory).toBe(cacheDir);
    expect(await store.list()).toEqual([]);
    expect(await store.verify()).toEqual([]);
    expect(existsSync(cacheDir)).toBe(false);
  });

  test('adds what a generator needs, and lists it with its size', async () => {
    const { sha, files } = hub.add(ID, 'bert-dense', { 'README.md': 'not needed' });
    const reports: FetchProgress[] = [];
    const added = await store.add(ID, { progressCallback: (report) => reports.push(report) });
    const bytes = [...files].filter(([name]) => name !== 'README.md').reduce((sum, [, file]) => sum + file.bytes.length, 0);
    expect(added).toEqual({ id: ID, repository: ID, revision: sha, path: join(folder(), 'snapshots', sha), bytes });
    expect(reports.at(-1)).toMatchObject({ file: GRAPH, progressTotal: 100 });
    const [model, ...others] = await store.list();
    expect(others).toEqual([]);
    expect(model).toMatchObject({ id: ID, path: folder(), revisions: [{ revision: sha, names: ['main'] }], partialBytes: 0, files: files.size - 1 });
    // The branch is a file, too.
    expect(model!.bytes).toBe(bytes + sha.length);
    expect(Math.abs(model!.modified.getTime() - Date.now())).toBeLessThan(600_000);
    await hub.close();
    await ready({ modelPath: ID, cacheDir });
  });

  test('brings a branch up to date, and a generator takes what is there then', async () => {
    const before = hub.add(ID, 'bert-mean').sha;
    await store.add(ID);
    const after = hub.add(ID, 'bert-mean', { 'config_sentence_transformers.json': '{"prompts": {}}' }).sha;
    expect(after).not.toBe(before);
    const revision = async () => (await ready({ modelPath: ID, cacheDir })).getModelInfo().revision;
    expect(await revision()).toBe(before);
    hub.stored.length = 0;
    expect((await store.add(ID)).revision).toBe(after);
    // Only what has changed.
    expect(hub.stored).toEqual([]);
    expect(await revision()).toBe(after);
    expect((await store.list())[0]!.revisions.map(({ names }) => names).sort()).toEqual([[], ['main']]);
    hub.asked.length = 0;
    expect((await store.add(`${ID}@${before}`)).revision).toBe(before);
    expect(hub.asked).toEqual([]);
    await hub.close();
    expect(await failure(() => store.add(ID))).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
  });

  test('adds the variant that is asked for, and the conversion of a model without ONNX', async () => {
    hub.add(ID, 'bert-mean', { 'onnx/model_q4.onnx': 'x' });
    await store.add(ID, { dtype: 'q4' });
    expect(hub.fetched('onnx/model_q4.onnx') + hub.fetched(GRAPH)).toBe(1);
    hub.add('microsoft/codebert-base', 'roberta-mean', { [GRAPH]: null });
    hub.add('Xenova/codebert-base', 'roberta-mean');
    expect((await store.add('microsoft/codebert-base')).repository).toBe('Xenova/codebert-base');
  });

  test('finds what is damaged and what is missing, names it, and mends it', async () => {
    hub.add(ID, 'bert-mean');
    hub.add('acme/other', 'bert-cls');
    await store.add(ID);
    await store.add('acme/other');
    const sound = await store.verify();
    expect(sound.map(({ id, problems, unchecked }) => [id, problems, unchecked])).toEqual([['acme/other', [], 0], [ID, [], 0]]);
    expect(sound[1]!.sound).toBe(7);
    damage(blob(GRAPH));
    rmSync(blob('tokenizer.json'));
    writeFileSync(join(folder(), 'blobs', `${'0'.repeat(40)}.incomplete`), 'half');
    const [found] = await store.verify(ID);
    expect(found!.problems.map(({ file, what }) => [file, what]).sort()).toEqual([[GRAPH, 'damaged'], ['tokenizer.json', 'missing']]);
    expect(found!.sound).toBe(5);
    // It only looks.
    expect((await store.verify(ID))[0]!.problems).toHaveLength(2);
    expect((await store.list()).map(({ partialBytes }) => partialBytes)).toEqual([0, 4]);
    await store.add(ID);
    expect((await store.verify(ID))[0]).toMatchObject({ problems: [], sound: 7 });
    await ready({ modelPath: ID, cacheDir, localFilesOnly: true });
  });

  test('says what it cannot check', async () => {
    const { sha } = hub.add(ID, 'bert-mean');
    mkdirSync(join(folder(), 'snapshots', sha), { recursive: true });
    writeFileSync(join(folder(), 'snapshots', sha, 'config.json'), '{}');
    expect(await store.verify()).toEqual([{ id: ID, sound: 0, unchecked: 1, bytes: 0, problems: [] }]);
  });

  test('removes a model and nothing else', async () => {
    hub.add(ID, 'bert-mean');
    hub.add('acme/other', 'bert-cls');
    await store.add(ID);
    await store.add('acme/other');
    const { bytes } = (await store.list()).find(({ id }) => id === ID)!;
    expect(await store.remove(ID)).toBe(bytes);
    expect((await store.list()).map(({ id }) => id)).toEqual(['acme/other']);
    expect(readdirSync(cacheDir).sort()).toEqual(['.locks', 'models--acme--other']);
    expect(await failure(() => store.remove(ID))).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(cacheDir) });
  });

  test('lists and removes what other tools keep without an owner', async () => {
    mkdirSync(join(cacheDir, 'models--gpt2', 'blobs'), { recursive: true });
    mkdirSync(join(cacheDir, 'datasets--a--b'));
    expect((await store.list()).map(({ id }) => id)).toEqual(['gpt2']);
    expect(await store.verify('gpt2')).toMatchObject([{ id: 'gpt2', problems: [] }]);
    await store.remove('gpt2');
    expect(readdirSync(cacheDir)).toEqual(['datasets--a--b']);
  });

  test.runIf(process.platform !== 'win32')('removes the link to a folder elsewhere, not that folder', async () => {
    const elsewhere = join(cacheDir, '..', 'elsewhere');
    mkdirSync(elsewhere, { recursive: true });
    mkdirSync(cacheDir);
    writeFileSync(join(elsewhere, 'file'), 'x');
    symlinkSync(elsewhere, folder());
    await store.remove(ID);
    expect(readdirSync(elsewhere)).toEqual(['file']);
    expect(readdirSync(cacheDir)).toEqual([]);
  });

  test.each(['', 'name', '../..', '/etc/passwd', 'a/../b', 'ac\u043Ce/tiny', 'https://x/y', 'a/b@../c', 'models--a--b'])('refuses %j as an id', async (id) => {
    mkdirSync(join(cacheDir, '..', 'models--x'), { recursive: true });
    for (const work of [() => store.remove(id), () => store.verify(id), () => store.add(id)]) {
      expect(await failure(work)).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('owner/name') });
    }
    expect(hub.asked).toEqual([]);
  });

  test('is stopped, and refuses what it does not know', async () => {
    hub.add(ID, 'bert-mean');
    expect(await failure(() => store.add(ID, { signal: AbortSignal.abort() }))).toMatchObject({ code: 'ABORTED' });
    expect(await failure(() => store.verify(undefined, { signal: AbortSignal.abort() }))).toMatchObject({ code: 'ABORTED' });
    expect(await failure(() => store.add(ID, { dtype: 'x' as 'q4' }))).toMatchObject({ code: 'INVALID_CONFIG' });
    expect(await failure(() => store.add(ID, { pooling: 'mean' } as object))).toMatchObject({ code: 'INVALID_CONFIG' });
    expect(await failure(() => store.remove(`${ID}@main`))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await failure(() => new ModelStore({ directory: 'x' } as object))).toMatchObject({ code: 'INVALID_CONFIG' });
    const stop = new AbortController();
    hub.fault = () => (stop.abort(), true);
    expect(await failure(() => store.add(ID, { signal: stop.signal }))).toMatchObject({ code: 'ABORTED' });
  });
});

describe('embedcore models', () => {
  const embedcore = (...args: string[]) =>
    new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
      execFile(process.execPath, [join(root, 'cli', 'embedcore.js'), 'models', ...args, '--cache-dir', cacheDir], (error, stdout, stderr) => {
        resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
      });
    });

  test('add, list, verify, remove', async () => {
    const { sha } = hub.add(ID, 'bert-mean');
    expect(await embedcore('list')).toMatchObject({ code: 0, stdout: `0 models, 0 bytes in ${cacheDir}\n` });
    const added = await embedcore('add', ID);
    expect(added).toMatchObject({ code: 0, stderr: '' });
    expect(added.stdout).toMatch(new RegExp(`^${ID} at ${sha.slice(0, 8)}: \\d+(\\.\\d)? kB in `));
    const listed = await embedcore('list');
    expect(listed.stdout).toMatch(new RegExp(`^${ID} +\\d+(\\.\\d)? kB +${sha.slice(0, 8)} main\n1 model, `));
    expect(JSON.parse((await embedcore('list', '--json')).stdout)).toMatchObject({ directory: cacheDir, models: [{ id: ID }] });
    expect(await embedcore('verify')).toMatchObject({ code: 0, stdout: expect.stringContaining('all sound') });
    damage(blob(GRAPH));
    const broken = await embedcore('verify', ID);
    expect(broken.code).toBe(1);
    expect(broken.stdout).toContain(`${GRAPH}: damaged`);
    expect(broken.stdout).toContain(`npx embedcore models add ${ID}`);
    const json = await embedcore('verify', '--json');
    expect(json.code).toBe(1);
    expect(JSON.parse(json.stdout)).toMatchObject({ models: [{ id: ID, problems: [{ file: GRAPH, what: 'damaged' }] }] });
    expect((await embedcore('add', ID)).code).toBe(0);
    expect((await embedcore('verify')).code).toBe(0);
    expect(await embedcore('remove', ID)).toMatchObject({ code: 0, stdout: expect.stringMatching(/is removed: .* kB are free again/) });
    expect(existsSync(folder())).toBe(false);
    expect(await embedcore('remove', ID)).toMatchObject({ code: 1, stderr: expect.stringContaining('is not in') });
  });

  test('says what is wrong with a command', async () => {
    for (const [args, said] of [
      [[], 'list, add, verify, remove'],
      [['show'], 'There is no command models show'],
      [['add'], 'Which model?'],
      [['list', ID], 'takes no model'],
      [['remove', ID, ID], 'one model'],
      [['verify', '--dtype', 'q8'], '--dtype is an option of models add'],
      [['list', '--rebuild'], '--rebuild is an option of index'],
    ] as [string[], string][]) {
      expect(await embedcore(...args)).toMatchObject({ code: 2, stderr: expect.stringContaining(said) });
    }
    hub.fault = (_, response) => (response.writeHead(401).end(), true);
    expect(await embedcore('add', ID)).toMatchObject({ code: 1, stderr: expect.stringContaining('401') });
  });
});
