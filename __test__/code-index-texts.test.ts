// Texts in no known language: indexed where that is wanted, in chunks.

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { CodeIndex, type CodeIndexOptions } from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { failure, root } from './support';

const settings = Array.from({ length: 120 }, (_, i) => `setting_${i} = value number ${i}`);

const SOURCES: Record<string, string | Uint8Array> = {
  'src/stack.js': '/** Puts an element on top. */\nfunction push(element) {\n  return element;\n}\n',
  'etc/app.conf': `# How often a lost connection is tried again.\nretries = 5\n\n${settings.join('\n')}\n\n# The colour of the roof.\nroof = red\n`,
  'Makefile': 'all:\n\tcc -o thing thing.c\n\nclean:\n\trm -f thing\n',
  'picture.dat': Uint8Array.of(0x89, 0x50, 0, 0, 1, 2, 3, 255),
  'empty.txt': '',
  'latin.txt': Uint8Array.from([...'Die gr'].map((c) => c.charCodeAt(0)).concat([0xf6, 0xdf], [...'te Zahl von allen\n'].map((c) => c.charCodeAt(0)))),
};

function directoryOf(files: Record<string, string | Uint8Array> = SOURCES): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  for (const [file, content] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, file)), { recursive: true });
    writeFileSync(join(directory, file), content);
  }
  return directory;
}

function opened(directory: string, options: CodeIndexOptions = {}): CodeIndex {
  const index = new CodeIndex(directory, options);
  onTestFinished(() => index.close());
  return index;
}

test('are left out unless they are wanted', async () => {
  const index = opened(directoryOf());
  const { files, skipped } = await index.update();
  expect([files, skipped['in no supported language']]).toEqual([1, 5]);
  expect(await index.status()).toMatchObject({ textFiles: false, languages: { javascript: 1 } });
  expect(await index.search('how often is a lost connection tried again', { kinds: 'chunk' })).toEqual([]);
});

test('are found by what stands in them, at their lines; binary files are left out', async () => {
  const index = opened(directoryOf(), { textFiles: true });
  const { skipped, encodings } = await index.update();
  expect([skipped['binary'], encodings]).toEqual([1, { 'windows-1252': 1 }]);
  expect(await index.status()).toMatchObject({ textFiles: true, languages: { javascript: 1, text: 4 } });
  const [best] = await index.search('how often a lost connection is tried again', { limit: 1 });
  expect(best).toMatchObject({ file: 'etc/app.conf', kind: 'chunk', language: 'text', name: 'app.conf:1', line: 1, signature: '# How often a lost connection is tried again.', summary: '' });
  const [roof] = await index.search('colour of the roof', { kinds: 'chunk' });
  expect(roof!.line).toBeGreaterThan(1);
  expect(roof!.endLine).toBe(settings.length + 6);
  // Each begins with what the one before ends with.
  const chunks = (await index.search('setting value', { limit: 100, paths: 'etc/' })).sort((a, b) => a.line - b.line);
  expect(chunks.length).toBeGreaterThan(2);
  for (const [i, { line }] of chunks.slice(1).entries()) expect(line).toBeLessThanOrEqual(chunks[i]!.endLine);
  expect((await index.search('clean', { languages: 'text', paths: 'Makefile' }))[0]).toMatchObject({ name: 'Makefile:1' });
  expect((await index.search('element', { languages: 'javascript' })).map(({ name }) => name)).toEqual(['push']);
  // They are compared where that is asked for.
  expect(await index.duplicates({ kinds: 'chunk', threshold: 1, minLines: 1 })).toEqual([]);
});

test('stay wanted until somebody says otherwise, and are then gone', async () => {
  const directory = directoryOf();
  const wanted = opened(directory, { textFiles: true });
  const { annotations } = await wanted.update();
  // Whoever says nothing leaves them as they are.
  const silent = opened(directory);
  expect(await silent.update()).toMatchObject({ changed: 0, removed: 0, annotations });
  writeFileSync(join(directory, 'etc/new.conf'), 'sails = white\n');
  expect(await silent.update()).toMatchObject({ changed: 1, annotations: annotations + 1 });
  expect((await silent.search('white sails'))[0]).toMatchObject({ file: 'etc/new.conf' });
  expect(await silent.update({ rebuild: true })).toMatchObject({ annotations: annotations + 1 });
  // Only what changed is read again.
  writeFileSync(join(directory, 'etc/new.conf'), 'sails = black\n');
  expect(await silent.update()).toMatchObject({ changed: 1, embedded: 1 });
  const unwanted = opened(directory, { textFiles: false });
  expect(await unwanted.update()).toMatchObject({ removed: 6, annotations: 1 });
  expect(await unwanted.status()).toMatchObject({ textFiles: false, languages: { javascript: 1 } });
  expect(await silent.update()).toMatchObject({ changed: 0, annotations: 1 });
  expect(await wanted.update()).toMatchObject({ changed: 6, annotations: annotations + 1 });
});

test('an option that is no yes or no is refused', async () => {
  for (const textFiles of [1, 'yes', null, {}]) expect(await failure(() => new CodeIndex('.', { textFiles } as never))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'textFiles' } });
});

test('the commands take them in and out', () => {
  const directory = directoryOf();
  const run = (...args: string[]) => spawnSync(process.execPath, [join(root, 'cli', 'embedcore.js'), ...args, directory], { encoding: 'utf8' });
  expect(run('index', '--text').stdout).toContain('of 5 files');
  const found = () => JSON.parse(run('search', 'colour of the roof', '--kind', 'chunk', '--lang', 'text', '--json').stdout).matches as object[];
  expect(found()[0]).toMatchObject({ file: 'etc/app.conf', kind: 'chunk' });
  expect(run('index').stdout).toContain('of 5 files');
  expect(run('index', '--no-text').stdout).toContain('of 1 file ');
  expect(found()).toEqual([]);
  expect(run('index', '--text', '--no-text')).toMatchObject({ status: 2, stderr: expect.stringContaining('do not go together') });
});
