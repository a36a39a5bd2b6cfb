// Which files an index holds, how it notices that they change, and what becomes of it when its own file is damaged.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, realpathSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { CodeIndex, EmbeddingError, type CodeMatch, type IndexOptions } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure } from './support';

/** Runs SQL in a file; Node.js 20 has no SQLite. */
function sql(file: string, text: string): void {
  execFileSync('python3', ['-c', 'import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()', file, text]);
}

function folder(files: Record<string, string | Buffer> = {}): string {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'embedcore-test-')));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return put(directory, files);
}

function put(directory: string, files: Record<string, string | Buffer>): string {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, path)), { recursive: true });
    writeFileSync(join(directory, path), content);
  }
  return directory;
}

async function withIndex<T>(directory: string, work: (index: CodeIndex) => Promise<T>): Promise<T> {
  const index = new CodeIndex(directory);
  try {
    return await work(index);
  } finally {
    await index.close();
  }
}

const update = (directory: string, options?: IndexOptions) => withIndex(directory, (index) => index.update(options));
const all = (directory: string, words = 'function') => withIndex(directory, (index) => index.search(words, { limit: 1000 }));
const files = (matches: CodeMatch[]) => [...new Set(matches.map(({ file }) => file))].sort();
const indexed = async (directory: string) => (await update(directory), files(await all(directory)));

/** Git as on a machine where nothing is set up. */
function git(directory: string, ...args: string[]): string {
  const env = { ...process.env, HOME: directory, XDG_CONFIG_HOME: directory, GIT_CONFIG_NOSYSTEM: '1' };
  const user = ['-c', 'user.name=a', '-c', 'user.email=a@example.com'];
  return execFileSync('git', ['-C', directory, ...user, ...args], { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

const source = (name: string) => `export function ${name.replace(/\W/g, '_')}() { return 1; }\n`;
const sourcesAt = (...paths: string[]) => Object.fromEntries(paths.map((path) => [path, path.endsWith('.py') ? 'def f():\n    return 1\n' : source(`at_${path}`)]));

/** A small generator of numbers, the same in every run. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

describe('ignore files', () => {
  test('above the root of a repository are not read, and those between it and the directory are', async () => {
    const directory = folder({ '.gitignore': 'y.ts\n', ...sourcesAt('r/y.ts', 'r/in/z.ts', 'r/in/y.ts'), 'r/.gitignore': 'z.ts\n' });
    git(join(directory, 'r'), 'init', '-q', '.');
    expect(await indexed(join(directory, 'r'))).toEqual(['in/y.ts', 'y.ts']);
    expect(await indexed(join(directory, 'r', 'in'))).toEqual(['y.ts']);
    // Without a repository they count from the directory on.
    rmSync(join(directory, 'r', '.git'), { recursive: true });
    expect(await indexed(join(directory, 'r', 'in'))).toEqual(['y.ts', 'z.ts']);
  });

  test.each(['2', '3', '4'])('a tracked file is in the index though an ignore rule names it, as an index of version %s says', async (version) => {
    const directory = folder({ '.gitignore': 'out/\n*.gen.ts\n', ...sourcesAt('out/kept.ts', 'out/deep/kept.ts', 'out/other.ts', 'a.gen.ts', 'b.gen.ts', 'c.ts') });
    git(directory, 'init', '-q', '.');
    git(directory, 'update-index', '--index-version', version);
    git(directory, 'add', '-f', 'out/kept.ts', 'out/deep/kept.ts', 'a.gen.ts');
    expect(await indexed(directory)).toEqual(['a.gen.ts', 'c.ts', 'out/deep/kept.ts', 'out/kept.ts']);
    // Who does not want it there says so.
    put(directory, { '.ignore': 'out/\n' });
    expect(await indexed(directory)).toEqual(['a.gen.ts', 'c.ts']);
  });

  test('a split index is read', async () => {
    const directory = folder({ '.gitignore': '*.gen.ts\n', ...sourcesAt('a.gen.ts', 'b.gen.ts', 'c.gen.ts') });
    git(directory, 'init', '-q', '.');
    git(directory, 'add', '-f', 'a.gen.ts');
    git(directory, 'update-index', '--split-index');
    git(directory, 'add', '-f', 'b.gen.ts');
    expect(await indexed(directory)).toEqual(['a.gen.ts', 'b.gen.ts']);
  });

  test('a worktree of a repository that is in the tree is left out, and another repository is not', async () => {
    const directory = folder(sourcesAt('src/o.ts'));
    git(directory, 'init', '-q', '.');
    git(directory, 'add', '-A');
    git(directory, 'commit', '-q', '-m', 'one');
    git(directory, 'worktree', 'add', '-q', 'work/feature');
    put(directory, { '.gitignore': 'y.ts\n', ...sourcesAt('other/y.ts') });
    git(join(directory, 'other'), 'init', '-q', '.');
    expect(await indexed(directory)).toEqual(['other/y.ts', 'src/o.ts']);
    // Asked for, it is a directory like any other.
    expect(await indexed(join(directory, 'work', 'feature'))).toEqual(['src/o.ts']);
  });
});

describe('the text of files', () => {
  test('is read in its encoding, which is counted', async () => {
    const utf16 = (text: string) => Buffer.from(`\ufeff${text}`, 'utf16le');
    const directory = folder({
      'wide.ts': utf16('/** Written by an old editor. */\nexport function wide() { return 1; }\n'),
      'latin.ts': Buffer.from('/** Die gr\u00f6\u00dfte Zahl f\u00fcr Umlaute. */\nexport function gr\u00f6sse() { return 1; }\n', 'latin1'),
      'plain.ts': source('plain'),
      'bom.ts': `\ufeff${source('bom')}`,
    });
    for (const run of [1, 2]) {
      expect((await update(directory)).encodings, `run ${run}`).toEqual({ 'UTF-16LE': 1, 'windows-1252': 1 });
    }
    const names = (await all(directory)).map(({ name, summary }) => [name, summary]);
    expect(names).toContainEqual(['wide', 'Written by an old editor.']);
    expect(names).toContainEqual(['gr\u00f6sse', 'Die gr\u00f6\u00dfte Zahl f\u00fcr Umlaute.']);
  });
});

describe('a change', () => {
  const OLD = new Date('1985-10-26T08:15:00Z');
  const old = (directory: string, ...names: string[]) => names.forEach((name) => utimesSync(join(directory, name), OLD, OLD));
  const names = async (directory: string) => Object.fromEntries((await all(directory)).map(({ name, file }) => [name, file]));

  test('is noticed, whatever size and time say', async () => {
    const directory = folder({ 'a.ts': source('openFile'), 'b.ts': source('killTree') });
    old(directory, 'a.ts', 'b.ts');
    await update(directory);
    for (const [from, to] of [['a.ts', 'x'], ['b.ts', 'a.ts'], ['x', 'b.ts']] as const) renameSync(join(directory, from), join(directory, to));
    await update(directory);
    expect(await names(directory)).toEqual({ openFile: 'b.ts', killTree: 'a.ts' });
    put(directory, { 'a.ts': source('saveUser') });
    old(directory, 'a.ts');
    expect(await update(directory)).toMatchObject({ changed: 1, unchanged: 1 });
    expect(await names(directory)).toEqual({ openFile: 'b.ts', saveUser: 'a.ts' });
  });

  test('that is none is none', async () => {
    const directory = folder({ 'bom.ts': `\ufeff${source('withBom')}`, 'broken.ts': '}}}} ((( %%%% ]]]\n', 'plain.ts': source('plain') });
    expect(await update(directory)).toMatchObject({ files: 2, changed: 3, unchanged: 0 });
    for (const day of ['01', '01', '02']) {
      const time = new Date(`2024-01-${day}T00:00:00Z`);
      for (const name of ['bom.ts', 'broken.ts', 'plain.ts']) utimesSync(join(directory, name), time, time);
      expect(await update(directory)).toMatchObject({ files: 2, changed: 0, unchanged: 3, skipped: { 'syntax errors': 1 } });
    }
  });

  test('of the working directory is none of the index', async () => {
    const before = process.cwd();
    onTestFinished(() => process.chdir(before));
    const [first, second] = [folder(sourcesAt('first.ts')), folder(sourcesAt('second.ts'))];
    process.chdir(first);
    const [index, elsewhere] = [new CodeIndex('.'), new CodeIndex('.', { path: 'own.sqlite' })];
    process.chdir(second);
    await index.update();
    await elsewhere.update();
    expect(files(await index.search('f'))).toEqual(['first.ts']);
    await index.close();
    await elsewhere.close();
    expect(existsSync(join(first, 'own.sqlite'))).toBe(true);
    expect(readdirSync(second)).toEqual(['second.ts']);
  });

  test('a directory that a link names is read, and its name is not counted', async () => {
    const directory = folder({ 'root/a.ts': source('f') });
    symlinkSync('root', join(directory, 'link'));
    expect(await update(join(directory, 'link'))).toMatchObject({ files: 1, skipped: {} });
  });
});

describe('program order', () => {
  test('close waits for what was called before, and what is called after opens it again', async () => {
    const index = new CodeIndex(folder(sourcesAt('a.ts')));
    onTestFinished(() => index.close());
    const update = index.update();
    const closed = index.close();
    const found = index.search('f');
    await closed;
    expect(await Promise.race([update, 'running'])).toMatchObject({ files: 1 });
    expect(await found).toHaveLength(1);
  });
});

describe('damage', () => {
  const QUERIES = ['open a file', 'merge two tables', 'count the tokens of a page'];

  /** 12 files, 240 functions, always the same. */
  function sources(): Record<string, string> {
    const verbs = ['open', 'close', 'read', 'parse', 'write', 'count', 'merge', 'sort'];
    const things = ['File', 'Cache', 'Vector', 'Table', 'Socket', 'Token', 'Page'];
    const made = (at: number) => `/** ${verbs[at % 8]}s number ${at} of each ${things[at % 7]}. */\nexport function ${verbs[at % 8]}${things[at % 7]}${at}(input: string) {\n  return input.slice(${at});\n}\n`;
    return Object.fromEntries(Array.from({ length: 12 }, (_, file) => [`f${file}.ts`, Array.from({ length: 20 }, (__, i) => made(file * 20 + i)).join('\n')]));
  }

  /** An index, and the means to put it back, to damage it, and to tell whether it answers as before. */
  async function sound() {
    const directory = folder(sources());
    // One for all, because loading its model takes longest. It answers from the file that is there.
    const index = new CodeIndex(directory);
    onTestFinished(() => index.close());
    const update = (options?: IndexOptions) => index.update(options);
    const search = (words: string) => index.search(words, { limit: 1000 });
    await update();
    await index.close();
    const home = join(directory, '.embedcore');
    const kept = readdirSync(home).map((name) => [name, readFileSync(join(home, name))] as const);
    const right = await Promise.all(QUERIES.map(search));
    const file = join(home, 'index.sqlite');
    const restore = () => {
      for (const name of readdirSync(home)) rmSync(join(home, name));
      for (const [name, bytes] of kept) writeFileSync(join(home, name), bytes);
    };
    /** `right`, `wrong`, or that it is damaged. */
    const answers = async () => {
      for (const [at, words] of QUERIES.entries()) {
        const found = await search(words).catch((error: unknown) => error as EmbeddingError);
        if (!Array.isArray(found)) return /damaged|rebuild/.test(found.message) ? 'damaged' : found.message;
        if (JSON.stringify(found) !== JSON.stringify(right[at])) return 'wrong';
      }
      return 'right';
    };
    const updated = () => update().then(answers, (error: EmbeddingError) => (/damaged|rebuild/.test(error.message) ? 'damaged' : error.message));
    const rebuilt = () => update({ rebuild: true }).then(answers);
    return { directory, file, restore, answers, updated, rebuilt };
  }

  test('of any page is told, or changes nothing, and a rebuild mends it', async () => {
    const { file, restore, answers, updated, rebuilt } = await sound();
    const bytes = readFileSync(file);
    const next = random(7);
    for (let page = 0; page < bytes.length / 8192; page++) {
      restore();
      const bad = Buffer.from(bytes);
      // A whole part of the page, or a byte of it.
      if (page % 2 === 0) bad.fill(0xff, page * 8192, page * 8192 + 512);
      else for (let i = 0; i < 20; i++) bad[page * 8192 + next(8192)]! ^= 1 << next(8);
      writeFileSync(file, bad);
      expect(['right', 'damaged'], `page ${page}`).toContain(await answers());
      expect(['right', 'damaged'], `page ${page}, after an update`).toContain(await updated());
      if (page % 3 === 0) expect(await rebuilt(), `page ${page}, after a rebuild`).toBe('right');
    }
  }, 120_000);

  test('of any row is told, or changes nothing, and a rebuild mends it', async () => {
    const { file, restore, answers, updated, rebuilt } = await sound();
    for (const change of [
      "UPDATE files SET declarations = '[{'",
      'UPDATE files SET declarations = (SELECT declarations FROM files ORDER BY id DESC LIMIT 1) WHERE id = 1',
      "UPDATE files SET path = 'elsewhere.ts' WHERE id = 2",
      'DELETE FROM files WHERE id = 3',
      'UPDATE vectors SET vectors = zeroblob(7)',
      'UPDATE vectors SET vectors = zeroblob(length(vectors)) WHERE file = 1',
      'UPDATE vectors SET bags = (SELECT bags FROM vectors WHERE file = 2) WHERE file = 1',
      'DELETE FROM vectors WHERE file = 4',
      'UPDATE vectors SET file = 1000 WHERE file = 1',
      'UPDATE meta SET dimensions = 128',
      'DELETE FROM meta',
      'DROP TABLE vectors',
      'PRAGMA user_version = 77',
    ]) {
      restore();
      sql(file, change);
      expect(['right', 'damaged'], change).toContain(await answers());
      expect(['right', 'damaged'], `${change}, after an update`).toContain(await updated());
      expect(await rebuilt(), `${change}, after a rebuild`).toBe('right');
    }
  });

  test('at a path of its own is mended, too, and what is no index is left alone', async () => {
    const directory = folder(sourcesAt('a.ts'));
    const path = join(directory, 'own.sqlite');
    const run = async (options?: IndexOptions) => {
      const index = new CodeIndex(directory, { path });
      try {
        return await index.update(options);
      } finally {
        await index.close();
      }
    };
    await run();
    const bytes = readFileSync(path);
    bytes.fill(0xff, 2 * 8192, bytes.length);
    writeFileSync(path, bytes);
    expect((await failure(() => run())).message).toContain('rebuild');
    expect(await run({ rebuild: true })).toMatchObject({ embedded: 1 });
    writeFileSync(path, 'my notes');
    expect(await failure(() => run({ rebuild: true }))).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
    expect(readFileSync(path, 'utf8')).toBe('my notes');
  });

  test('a run that waits for another program is stopped at once', async () => {
    const { directory, file } = await sound();
    put(directory, { 'new.ts': source('fresh') });
    const holds = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()";
    const other = spawn('python3', ['-c', holds, file], { stdio: ['pipe', 'pipe', 'inherit'] });
    onTestFinished(() => void other.kill());
    await once(other.stdout, 'data');
    const stop = new AbortController();
    const running = failure(() => update(directory, { signal: stop.signal }));
    setTimeout(() => stop.abort(), 300);
    expect(await running).toMatchObject({ code: 'ABORTED' });
  });
});
