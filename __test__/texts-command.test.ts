// The commands around texts: split, collect, query.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { type Chunk, EmbeddingCollection } from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { model, root } from './support';

const cli = join(root, 'cli', 'embedcore.js');

const FILES = {
  'guide.md': '# Guide\n\nHow a file is opened and read.\n\n## Sockets\n\nHow a socket is opened, and closed again.\n',
  'deep/cache.md': '# Caches\n\nEntries that were used least recently are evicted first.\n',
  'deep/notes.txt': 'Not Markdown.',
  'node_modules/theirs/README.md': '# Theirs\n',
  '.hidden/secret.md': '# Secret\n',
};

function tree(files: Record<string, string | Buffer> = FILES): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-texts-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, path)), { recursive: true });
    writeFileSync(join(directory, path), content);
  }
  return directory;
}

function run(cwd: string, args: string[], input: string | Buffer = '') {
  const { status, stdout, stderr } = spawnSync(process.execPath, [cli, ...args], { cwd, input, encoding: 'utf8', maxBuffer: 2 ** 28 });
  return { status, stdout, stderr };
}

function json<T>(cwd: string, args: string[], input = ''): T {
  const { status, stdout, stderr } = run(cwd, [...args, '--json'], input);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(stdout) as T;
}

const refused = (cwd: string, args: string[]) => {
  const { status, stdout, stderr } = run(cwd, args);
  expect({ args, stdout, stderr: stderr.split('\n')[0]!.slice(0, 11) }).toEqual({ args, stdout: '', stderr: 'embedcore: ' });
  return { status, stderr };
};

interface Split {
  model: string;
  maxTokens: number;
  chunks: (Chunk & { file: string })[];
}

test('split tells the chunks of files, each a piece of its file', () => {
  const long = `\ufeff# Title\r\n\r\n${'Some words of a sentence 🦀. '.repeat(200)}\r\n`;
  const directory = tree({ ...FILES, 'long.md': long, 'code.ts': 'function one() {}\n\nfunction two() {}\n' });
  const { model: name, maxTokens, chunks } = json<Split>(directory, ['split', 'guide.md', 'long.md', '--max-tokens', '60']);
  expect([name, maxTokens]).toEqual(['builtin', 60]);
  for (const { file, text, start, end, tokens } of chunks) {
    expect(readFileSync(join(directory, file), 'utf8').slice(start, end)).toBe(text);
    expect(tokens).toBeLessThanOrEqual(60);
  }
  expect(new Set(chunks.map(({ file }) => file))).toEqual(new Set(['guide.md', 'long.md']));
  expect(chunks[0]).toMatchObject({ file: 'guide.md', line: 1, headings: ['Guide'] });
  expect(json<Split>(directory, ['split', '-', '--format', 'code', '--language', 'ts', '--max-tokens', '9'], 'function one() {}\n\nfunction two() {}\n').chunks.map(({ headings }) => headings)).toEqual([['one'], ['two']]);
  const shown = run(directory, ['split', 'guide.md', 'deep/cache.md']);
  expect(shown.status).toBe(0);
  expect(shown.stdout).toMatch(/^ *\d+ {2}guide\.md:1 {2}Guide\n {7}# Guide How a file/);
  expect(shown.stdout).toContain('  deep/cache.md:1  Caches\n');
  expect(json<Split>(directory, ['split', 'guide.md', '--overlap', '0']).maxTokens).toBeGreaterThan(60);
});

test('split says what it cannot do', () => {
  const directory = tree({ ...FILES, 'latin.md': Buffer.from([0x63, 0xe9]) });
  expect(refused(directory, ['split']).status).toBe(2);
  for (const args of [['nowhere.md'], ['deep'], ['latin.md'], ['guide.md', '--max-tokens', '0'], ['guide.md', '--max-tokens', '1'], ['guide.md', '--overlap', 'x'], ['guide.md', '--format', 'pdf'], ['guide.md', '--to', 'x']]) {
    refused(directory, ['split', ...args]);
    const { status, stdout } = run(directory, ['split', ...args, '--json']);
    expect(status).not.toBe(0);
    expect(JSON.parse(stdout), args.join(' ')).toMatchObject({ error: { code: expect.any(String) as string, message: expect.any(String) as string } });
  }
});

interface Collected {
  root: string;
  path: string;
  files: number;
  added: number;
  changed: number;
  removed: number;
  unchanged: number;
  embedded: number;
  chunks: number;
  skipped: { file: string }[];
}

test('collect keeps the texts of a directory, and query finds them', async () => {
  const directory = tree();
  const collect = (...args: string[]) => json<Collected>(directory, ['collect', '.', '--to', 'notes.db', ...args]);
  expect(collect()).toMatchObject({ root: directory, path: join(directory, 'notes.db'), files: 2, added: 2, changed: 0, removed: 0, chunks: 2, embedded: 2, skipped: [] });
  expect(collect()).toMatchObject({ unchanged: 2, added: 0, embedded: 0 });
  const found = json<{ query: string; matches: { id: string; score: number; text: string }[] }>(directory, ['query', 'notes.db', 'which entries are evicted?', '--limit', '1']);
  expect(found.matches).toMatchObject([{ id: 'deep/cache.md', text: expect.stringContaining('evicted first') as string, source: { line: 1, headings: ['Caches'] } }]);
  expect(run(directory, ['query', 'notes.db', 'which entries are evicted?']).stdout).toMatch(/^\d\.\d{3} {2}deep\/cache\.md:1 {2}Caches\n {7}# Caches Entries/);
  // What changes is embedded, what is gone is forgotten, unless asked to keep it.
  writeFileSync(join(directory, 'guide.md'), `${FILES['guide.md']}\nMore of it.\n`);
  rmSync(join(directory, 'deep', 'cache.md'));
  writeFileSync(join(directory, 'bad.md'), Buffer.from([0x23, 0xff]));
  expect(collect('--keep')).toMatchObject({ changed: 1, removed: 0, chunks: 2, skipped: [{ file: 'bad.md' }] });
  expect(collect()).toMatchObject({ files: 1, unchanged: 1, removed: 1, chunks: 1 });
  expect(run(directory, ['collect', '--to', 'notes.db', '--verbose']).stdout).toMatch(/^1 chunk of 1 file in [\d.]+ s: notes\.db\n {2}1 unchanged; 0 chunks embedded\n {2}1 file left out [^\n]*\n {4}bad\.md: it is not UTF-8\nNow ask it: npx embedcore query notes\.db/);
  const collection = new EmbeddingCollection({ path: join(directory, 'notes.db'), generator: {} });
  onTestFinished(() => collection.close());
  expect(await collection.count()).toBe(1);
});

test.each<[string[], string[]]>([
  [['**'], ['a.md', 'a.txt', 'b/a.md', 'b/c/a.mdx', 'b/c/[x].md']],
  [['*.md'], ['a.md']],
  [['**/*.{md,mdx}'], ['a.md', 'b/a.md', 'b/c/a.mdx', 'b/c/[x].md']],
  [['./b/**'], ['b/a.md', 'b/c/a.mdx', 'b/c/[x].md']],
  [['b/**/a.md*'], ['b/a.md', 'b/c/a.mdx']],
  [['?.[mt]*', '**/[!a]*'], ['a.md', 'a.txt', 'b/c/[x].md']],
  [['b/c/\\[x].md', 'a.txt'], ['a.txt', 'b/c/[x].md']],
  [['!**/*.md', '!b/**'], ['a.txt']],
  [['**/*.md', '!b/c/**', 'b/c/[[]*'], ['a.md', 'b/a.md', 'b/c/[x].md']],
  [['node_modules/*/*.md', '.hidden/*'], ['.hidden/a.md', 'node_modules/p/a.md']],
  [['**/node_modules/**/*.md'], ['b/node_modules/q/a.md', 'node_modules/p/a.md']],
  [['(a|b).md', 'a.m+', 'A.md'], []],
])('the patterns %j mean %j', (patterns, expected) => {
  const names = ['a.md', 'a.txt', 'b/a.md', 'b/c/a.mdx', 'b/c/[x].md', '.hidden/a.md', 'node_modules/p/a.md', 'b/node_modules/q/a.md'];
  const directory = tree(Object.fromEntries(names.map((name) => [name, '# x\n'])));
  symlinkSync('.', join(directory, 'loop'));
  const { filesBelow } = createRequire(import.meta.url)(join(root, 'cli', 'texts.js')) as { filesBelow(directory: string, patterns: string[]): string[] };
  expect(filesBelow(directory, patterns)).toEqual([...expected].sort());
});

test('collect and query say what they cannot do, and how it is done', () => {
  const directory = tree();
  for (const args of [['collect'], ['collect', '.', '--to', ''], ['collect', 'nowhere', '--to', 'x.db'], ['collect', 'a', 'b', '--to', 'x.db'], ['collect', '--to', 'x.db', '--glob', '!'], ['query', 'x.db'], ['query', 'x.db', 'a', 'b']]) {
    expect(refused(directory, args).status, args.join(' ')).toBe(2);
  }
  expect(existsSync(join(directory, 'x.db'))).toBe(false);
  expect(refused(directory, ['query', 'x.db', 'a question']).stderr).toContain('npx embedcore collect DIR --to x.db');
  expect(refused(directory, ['collect', '--to', 'guide.md']).stderr).toContain('another path');
  expect(readFileSync(join(directory, 'guide.md'), 'utf8')).toBe(FILES['guide.md']);
  json(directory, ['collect', '--to', 'notes.db']);
  for (const args of [['--limit', '0'], ['--limit', 'x'], ['--min-score', '2'], ['--filter', '{'], ['--filter', '{"n":{"gt":[]}}']]) refused(directory, ['query', 'notes.db', 'a question', ...args]);
  refused(directory, ['query', 'notes.db', ' ']);
  // Another model is named, and what to do about it.
  const other = ['--model', model('demo')];
  expect(refused(directory, ['query', 'notes.db', 'a question', ...other]).stderr).toContain('made with the model builtin. Use that (--model)');
  expect(refused(directory, ['collect', '--to', 'notes.db', ...other]).stderr).toContain('--rebuild');
  expect(JSON.parse(run(directory, ['query', 'notes.db', 'a question', '--json', ...other]).stdout)).toMatchObject({ error: { code: 'INVALID_CONFIG' } });
  expect(json<Collected>(directory, ['collect', '--to', 'notes.db', '--rebuild', ...other])).toMatchObject({ unchanged: 2, chunks: 2 });
  expect(json<{ matches: object[] }>(directory, ['query', 'notes.db', 'a question', ...other]).matches).toHaveLength(2);
});
