// The commands around texts: split, collect, query.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
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

const { filesBelow } = createRequire(import.meta.url)(join(root, 'cli', 'texts.js')) as { filesBelow(directory: string, patterns: string[]): { files: string[] } };

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

test('split --json tells chunks as they come, and stays JSON where it fails', () => {
  const directory = tree({ 'a.md': '# A\n', 'big.md': `${'word '.repeat(900_000)}\n` });
  const { status, stdout } = run(directory, ['split', 'big.md', 'a.md', 'nowhere.md', '--json']);
  expect(status).toBe(1);
  const { chunks, error } = JSON.parse(stdout) as Split & { error: object };
  expect(chunks[0]).toMatchObject({ file: 'big.md', line: 1 });
  expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', message: 'There is no file nowhere.md' });
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
  expect(filesBelow(directory, patterns).files).toEqual([...expected].sort());
});

test.each<[string[], string[]]>([
  [['b-c/*-d.md', '[a-b].md', '[!a-c]-d.md', '[]a].md'], ['a.md', 'b-c/e-d.md', 'd-d.md', 'b.md', '].md']],
  [['{b-c,.hidden}/*'], ['.hidden/a.md', 'b-c/e-d.md']],
  [['{.hidden/,{b-c,x}/}*.{md,mdx}'], ['.hidden/a.md', 'b-c/e-d.md']],
  [['{**/,}e-d.md', '{.hidden,none}/**'], ['b-c/e-d.md', '.hidden/a.md']],
  [['{a', '[a', '{a}.md'], ['a.md', '[a', '{a']],
  [['b-c/***'], ['b-c/e-d.md']],
  [['**/-'], []],
])('the patterns %j mean %j, too', (patterns, expected) => {
  const names = ['a.md', '.hidden/a.md', 'b-c/e-d.md', 'd-d.md', 'b.md', '].md', '[a', '{a'];
  const directory = tree(Object.fromEntries(names.map((name) => [name, '# x\n'])));
  expect(filesBelow(directory, patterns).files).toEqual([...expected].sort());
});

test('patterns take time in proportion to their length, whatever they hold', () => {
  const directory = tree({ [`${'d/'.repeat(60)}${'a'.repeat(200)}`]: '# x\n' });
  for (const pattern of ['*a'.repeat(60) + 'b', '**/'.repeat(60) + 'b', '{*,**/,a}'.repeat(60) + 'b', '{'.repeat(500) + 'a', '['.repeat(5000), `${'{a,'.repeat(200)}b${'}'.repeat(200)}`, `**/${'*a'.repeat(100)}`]) {
    expect(() => filesBelow(directory, [pattern]).files, pattern.slice(0, 20)).not.toThrow();
  }
  expect(filesBelow(directory, [`**/${'*a'.repeat(100)}`]).files).toHaveLength(1);
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
  expect(refused(directory, ['query', 'notes.db', 'a question', ...other]).stderr).toContain('made with the model builtin. Run: npx embedcore query notes.db');
  expect(refused(directory, ['collect', '--to', 'notes.db', ...other]).stderr).toContain('--rebuild');
  expect(JSON.parse(run(directory, ['query', 'notes.db', 'a question', '--json', ...other]).stdout)).toMatchObject({ error: { code: 'INVALID_CONFIG' } });
  expect(json<Collected>(directory, ['collect', '--to', 'notes.db', '--rebuild', ...other])).toMatchObject({ unchanged: 2, chunks: 2 });
  expect(json<{ matches: object[] }>(directory, ['query', 'notes.db', 'a question', ...other]).matches).toHaveLength(2);
});

test('collect forgets what is gone, and nothing that it could only not look at', () => {
  const directory = tree({ 'a.md': '# A\n', 'b.md': '# B\n', 'deep/c.md': '# C\n', 'deep/d.txt': 'D\n' });
  const collect = (...args: string[]) => json<Collected>(directory, ['collect', '--to', 'notes.db', ...args]);
  const ids = () => json<{ matches: { id: string }[] }>(directory, ['query', 'notes.db', 'a question', '--limit', '99']).matches.map(({ id }) => id).sort();
  collect();
  // A file that is no text for a moment.
  writeFileSync(join(directory, 'a.md'), Buffer.from([0x23, 0xff]));
  expect(collect()).toMatchObject({ removed: 0, kept: 1, skipped: [{ file: 'a.md', reason: 'it is not UTF-8' }] });
  expect(ids()).toEqual(['a.md', 'b.md', 'deep/c.md']);
  // A pattern that means nothing: alone it is refused, beside others it forgets nothing.
  const { status, stderr } = refused(directory, ['collect', '--to', 'notes.db', '--glob', '**/*.mkd']);
  expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringContaining("is meant by '**/*.mkd'") as string });
  refused(directory, ['collect', '--to', 'never.db', '--glob', '**/*.mkd']);
  expect(existsSync(join(directory, 'never.db'))).toBe(false);
  rmSync(join(directory, 'b.md'));
  expect(collect('--glob', '*.md', '--glob', 'deep/*.txt', '--glob', 'b.*')).toMatchObject({ added: 1, removed: 1, kept: 2 });
  expect(ids()).toEqual(['a.md', 'b.md', 'deep/d.txt']);
  expect(collect('--glob', '**/*.txt')).toMatchObject({ removed: 2, kept: 0 });
});

test('collect leaves what is from other directories, and moves with its own', () => {
  const directory = tree({ 'one/a.md': '# A\n', 'one/sub/s.md': '# S\n', 'two/a.md': '# Another A\n', 'two/b.md': '# B\n' });
  const collect = (...args: string[]) => json<Collected & { others: number }>(directory, ['collect', '--to', 'kept/notes.db', ...args]);
  const ids = (at = directory) => json<{ matches: { id: string }[] }>(at, ['query', 'kept/notes.db', 'a question', '--limit', '99']).matches.map(({ id }) => id).sort();
  expect(collect('one')).toMatchObject({ added: 2, others: 0 });
  expect(collect('two')).toMatchObject({ added: 2, removed: 0, others: 2 });
  expect(ids()).toEqual(['../two/a.md', '../two/b.md', 'a.md', 'sub/s.md']);
  // A part of one is that part.
  expect(collect('one/sub')).toMatchObject({ added: 0, unchanged: 1, removed: 0, others: 3 });
  rmSync(join(directory, 'two', 'b.md'));
  expect(collect('one')).toMatchObject({ removed: 0, unchanged: 2, others: 2 });
  expect(collect('two')).toMatchObject({ removed: 1, unchanged: 1 });
  expect(json(directory, ['query', 'kept/notes.db', 'a question'])).toMatchObject({ root: join(directory, 'one') });
  expect(run(join(directory, 'kept'), ['query', 'notes.db', 'another', '--limit', '1']).stdout).toContain('  ../two/a.md:1  ');
  // Both moved together.
  const moved = tree({});
  renameSync(directory, join(moved, 'there'));
  const again = json<Collected>(join(moved, 'there'), ['collect', 'one', '--to', 'kept/notes.db']);
  expect(again).toMatchObject({ unchanged: 2, added: 0, removed: 0, embedded: 0 });
});

test('what a program has put into a collection is not taken for files that are gone', async () => {
  const directory = tree();
  const collection = new EmbeddingCollection({ path: join(directory, 'notes.db'), generator: {} });
  await collection.sync([{ id: 'ticket', text: 'A ticket.' }]);
  await collection.close();
  expect(json(directory, ['collect', '--to', 'notes.db'])).toMatchObject({ added: 2, removed: 0, others: 1 });
});

test.runIf(process.platform === 'linux')('what may not be read is told in plain words, and kept', (context) => {
  const nobody = process.getuid?.() === 0 ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', process.execPath] : [process.execPath];
  const [command, ...before] = nobody as [string, ...string[]];
  if (spawnSync(command, [...before, cli, '--version']).status !== 0) context.skip('nobody cannot read this checkout');
  const directory = tree({ 'a.md': '# A\n', 'closed/b.md': '# B\n', 'odd/c.md': '# C\n' });
  const asNobody = (...args: string[]) => spawnSync(command, [...before, cli, ...args], { cwd: directory, encoding: 'utf8' });
  json(directory, ['collect', '--to', 'notes.db']);
  for (const path of ['', 'notes.db']) chmodSync(join(directory, path), 0o777);
  for (const name of ['closed', 'odd/c.md']) chmodSync(join(directory, name), 0);
  onTestFinished(() => ['closed', 'odd/c.md'].forEach((name) => chmodSync(join(directory, name), 0o755)));
  const { status, stdout, stderr } = asNobody('collect', '--to', 'notes.db', '--json');
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(JSON.parse(stdout)).toMatchObject({ removed: 0, kept: 2, unread: [{ directory: 'closed' }], skipped: [{ file: 'odd/c.md', reason: expect.stringMatching(/cannot be read: EACCES/) as string }] });
  for (const args of [['split', 'closed/b.md'], ['collect', 'closed', '--to', 'x.db'], ['collect', 'closed/deep', '--to', 'x.db'], ['embed', 'closed/b.md'], ['split', 'a.md/b']]) {
    expect(asNobody(...args).stderr.split('\n')[0], args.join(' ')).toMatch(/^embedcore: .*(EACCES|ENOTDIR)/);
  }
  // A collection where nothing may be written answers.
  for (const path of [directory, join(directory, 'notes.db')]) chmodSync(path, path === directory ? 0o555 : 0o444);
  onTestFinished(() => chmodSync(directory, 0o755));
  const found = asNobody('query', 'notes.db', 'a question', '--json');
  expect({ status: found.status, stderr: found.stderr }).toEqual({ status: 0, stderr: '' });
  expect((JSON.parse(found.stdout) as { matches: object[] }).matches).toHaveLength(3);
});

test('the advice that is given can be pasted', () => {
  const directory = tree({ "it's here/a.md": '# A\n' });
  const paste = (text: string) => {
    const command = /(?:Run|ask it): (npx embedcore [^\n]*?)(?:, or, to embed all anew: (npx embedcore [^\n]*))?$/m.exec(text);
    expect(text).toEqual(expect.stringContaining('npx embedcore'));
    return command!.slice(1).filter((each) => each !== undefined).map((each) => {
      const { status, stderr } = spawnSync('sh', ['-c', each.replace('npx embedcore', `'${process.execPath}' '${cli}'`)], { cwd: directory, encoding: 'utf8' });
      expect({ each, status, stderr }).toEqual({ each, status: 0, stderr: '' });
      return each;
    });
  };
  const other = ['--model', model('demo')];
  paste(run(directory, ['collect', "it's here", '--to', 'no tes.db', '--glob', '**/*.md', ...other]).stdout);
  paste(refused(directory, ['query', 'no tes.db', "what's it?", '--limit', '3']).stderr);
  const words = ['collect', "it's here", '--to', 'no tes.db', '--glob', '**/*.md'];
  expect(paste(refused(directory, words).stderr)).toHaveLength(2);
  // Now of the built-in model.
  expect(paste(refused(directory, ['query', 'no tes.db', '-1', ...other].flatMap((word) => (word === '-1' ? ['--', '-1'] : [word])).filter((word) => !other.includes(word)).toSpliced(1, 0, ...other)).stderr)).toHaveLength(1);
});

test('numbers and names that nothing can be are refused as what they are', () => {
  const directory = tree();
  json(directory, ['collect', '--to', 'notes.db']);
  expect(json<{ matches: object[] }>(directory, ['query', 'notes.db', 'a question', '--min-score=-0.5']).matches).toHaveLength(2);
  expect(refused(directory, ['query', 'notes.db', 'a question', '--limit=-1']).stderr).toContain('--limit is -1, less than 0');
  expect(refused(directory, ['search', 'a question', '--min-score=-0.5']).stderr).toContain('--min-score is -0.5, less than 0');
  expect(refused(directory, ['split', 'guide.md', '--language', 'klingon']).stderr).toMatch(/"klingon" is unknown; known are bash, c, .*typescript, markdown/);
});
