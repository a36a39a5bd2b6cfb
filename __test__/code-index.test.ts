import { execFile, execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

import { CodeIndex, type IndexReport } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure, model, root } from './support';

const run = promisify(execFile);
const cli = join(root, 'cli', 'embedcore.js');

const SOURCES = {
  'src/files.ts': '/** Opens a file and gives its lines. */\nexport function readLines(path: string): string[] {\n  return read(path).split("\\n");\n}\n',
  'src/http.py': 'def retry_request(url, attempts):\n    """Fetches an address, again and again if it fails."""\n    for _ in range(attempts):\n        try_fetch(url)\n',
  'src/cache.go': 'package cache\n\n// Evict drops the entry that was used least recently.\nfunc (c *Cache) Evict() {\n\tdelete(c.entries, c.oldest)\n}\n',
  'src/Stack.java': 'class Stack {\n  /** Puts an element on top. */\n  void push(int element) { items.add(element); }\n}\n',
  'src/lib.rs': '/// Adds two numbers.\npub fn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n',
};

/** A directory with `files`, removed when the test ends. Old enough that times tell changes apart. */
function tree(files: Record<string, string | Buffer> = SOURCES): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  for (const [path, content] of Object.entries(files)) write(directory, path, content, 60);
  return directory;
}

function write(directory: string, path: string, content: string | Buffer, secondsAgo = 30): void {
  const file = join(directory, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
  const time = Date.now() / 1000 - secondsAgo;
  utimesSync(file, time, time);
}

function open(directory: string, options?: ConstructorParameters<typeof CodeIndex>[1]): CodeIndex {
  const index = new CodeIndex(directory, options);
  onTestFinished(() => index.close());
  return index;
}

const counts = ({ files, changed, done, unchanged, removed, annotations, embedded, reused }: IndexReport) =>
  ({ files, changed, done, unchanged, removed, annotations, embedded, reused });

describe('the index', () => {
  test('finds declarations in every language by what they do', async () => {
    const directory = tree();
    const index = open(directory);
    const reports: IndexReport[] = [];
    const report = await index.update({ progressCallback: (report) => reports.push(report) });
    expect(counts(report)).toEqual({ files: 5, changed: 5, done: 5, unchanged: 0, removed: 0, annotations: 6, embedded: 6, reused: 0 });
    expect(reports.at(-1)).toEqual(report);
    expect(reports.map(({ done }) => done)).toEqual([...reports.map(({ done }) => done)].sort((a, b) => a - b));
    for (const [words, file, line] of [
      ['open a file and read its lines', 'src/files.ts', 2],
      ['try a failed request again', 'src/http.py', 1],
      ['remove the oldest cache entry', 'src/cache.go', 4],
      ['put an element on top', 'src/Stack.java', 3],
      ['sum of two numbers', 'src/lib.rs', 2],
    ] as const) {
      const [best] = await index.search(words, { limit: 1 });
      expect(best, words).toMatchObject({ file, line });
    }
    const [best] = await index.search('put an element on top');
    expect(best).toMatchObject({ kind: 'method', name: 'Stack.push', endLine: 3, signature: 'void push(int element)', summary: 'Puts an element on top.' });
    expect(best!.score).toBeGreaterThan(0.7 * best!.similarity);
    expect(best!.score).toBeLessThanOrEqual(1);
    // Nobody wants to commit it.
    expect(readFileSync(join(directory, '.embedcore', '.gitignore'), 'utf8')).toBe('*\n');
  });

  test('reads again only what changed, and forgets what is gone', async () => {
    const directory = tree();
    const index = open(directory);
    await index.update();
    expect(counts(await index.update())).toMatchObject({ changed: 0, unchanged: 5, embedded: 0, annotations: 6 });
    // A new time alone changes nothing.
    write(directory, 'src/lib.rs', SOURCES['src/lib.rs'], 20);
    expect(counts(await index.update())).toMatchObject({ changed: 0, unchanged: 5, embedded: 0, annotations: 6 });
    write(directory, 'src/lib.rs', `${SOURCES['src/lib.rs']}/// Multiplies two numbers.\nfn product(a: i32, b: i32) -> i32 {\n    a * b\n}\n`, 10);
    expect(counts(await index.update())).toMatchObject({ changed: 1, unchanged: 4, embedded: 1, reused: 1, annotations: 7 });
    expect((await index.search('product of two numbers'))[0]).toMatchObject({ file: 'src/lib.rs', name: 'product', line: 6 });
    rmSync(join(directory, 'src', 'http.py'));
    expect(counts(await index.update())).toMatchObject({ files: 4, removed: 1, annotations: 6, embedded: 0 });
    expect((await index.search('try a failed request again')).map(({ file }) => file)).not.toContain('src/http.py');
    // A moved file keeps its vectors; what it is called tells of what is in it, so one of another name has others.
    write(directory, 'lib/cache.go', SOURCES['src/cache.go']);
    rmSync(join(directory, 'src', 'cache.go'));
    expect(counts(await index.update())).toMatchObject({ changed: 1, removed: 1, reused: 1, embedded: 0 });
    write(directory, 'lib/entries.go', SOURCES['src/cache.go']);
    rmSync(join(directory, 'lib', 'cache.go'));
    expect(counts(await index.update())).toMatchObject({ changed: 1, removed: 1, reused: 0, embedded: 1 });
    expect((await index.search('remove the oldest cache entry'))[0]).toMatchObject({ file: 'lib/entries.go' });
  });

  test('a declaration is found by what it belongs to: the types around it, its file, the directory of a file without a name of its own', async () => {
    const body = 'add(value) { this.values.push(value); }';
    const directory = tree({
      'src/a.ts': `export class Basket { ${body} }\nexport class Orchestra { ${body} }\n`,
      'src/invoices.ts': `export function ${body.replace('this.', '')}\n`,
      'src/volcano/index.ts': `export function ${body.replace('this.', '')}\n`,
    });
    const index = open(directory);
    await index.update();
    for (const [words, file, name] of [
      ['put something into the basket', 'src/a.ts', 'Basket.add'],
      ['one more for the orchestra', 'src/a.ts', 'Orchestra.add'],
      ['a new invoice', 'src/invoices.ts', 'add'],
      ['add to the volcanoes', 'src/volcano/index.ts', 'add'],
    ]) {
      const [best] = await index.search(words!, { kinds: ['method', 'function'] });
      expect(best, words).toMatchObject({ file, name });
    }
  });

  test('a file that is written twice within the grain of its time is read again', async () => {
    const directory = tree();
    const index = open(directory);
    const now = Date.now() / 1000;
    write(directory, 'src/lib.rs', 'fn one() {}\n');
    utimesSync(join(directory, 'src/lib.rs'), now, now);
    await index.update();
    writeFileSync(join(directory, 'src/lib.rs'), 'fn two() {}\n');
    utimesSync(join(directory, 'src/lib.rs'), now, now);
    await index.update();
    expect((await index.search('two')).map(({ name }) => name)).toContain('two');
  });

  test('respects .gitignore and leaves out node_modules and hidden files', async () => {
    const directory = tree({
      ...SOURCES,
      '.gitignore': 'build/\n*.gen.ts\n',
      'build/out.ts': 'function built() {}',
      'src/a.gen.ts': 'function generated() {}',
      'node_modules/x/index.js': 'function theirs() {}',
      '.hidden/a.ts': 'function hidden() {}',
    });
    expect(counts(await open(directory).update())).toMatchObject({ files: 5, annotations: 6 });
  });

  test('leaves out what cannot be read, and says why', async () => {
    const directory = tree({
      ...SOURCES,
      'bad/binary.js': Buffer.from('function a() {}\0\0'),
      'bad/control.js': Buffer.from([0x66, 0x6e, 0x02, 0xe4, 0xf6, 0xfc]),
      'bad/huge.js': `function a() {}\n${'// filler\n'.repeat(200_000)}`,
      'bad/noise.ts': '}}}} ((( %%% ]]]',
      'bad/broken.ts': 'function whole() { return 1; }\nfunction torn( {{{',
      'bad/empty.ts': '',
      'bad/folder.ts/inner.txt': 'a directory with the name of a file',
      'bad/deep.js': `${'('.repeat(200_000)}${')'.repeat(200_000)}`,
      'notes.txt': 'Notes',
    });
    symlinkSync('..', join(directory, 'bad', 'loop'));
    symlinkSync('broken.ts', join(directory, 'bad', 'link.ts'));
    execFileSync('mkfifo', [join(directory, 'bad', 'pipe.ts')]);
    const index = open(directory);
    const report = await index.update();
    expect(report.skipped).toMatchObject({
      'in no supported language': 2,
      binary: 2,
      'larger than 1 MB': 1,
      'syntax errors': 2,
      'symbolic link': 2,
      'not a regular file': 1,
    });
    expect(report.examples).toContainEqual({ file: 'bad/binary.js', reason: 'binary' });
    expect((await index.search('whole')).map(({ name }) => name)).toContain('whole');
    // The reasons stay while the files stay.
    const again = await index.update();
    expect(again).toMatchObject({ changed: 0, skipped: report.skipped });
    write(directory, 'bad/noise.ts', 'function better() {}', 10);
    expect((await index.update()).skipped).toMatchObject({ 'syntax errors': 1 });
  });

  test.skipIf(process.getuid?.() === 0)('leaves out what it may not read', async () => {
    const directory = tree();
    chmodSync(join(directory, 'src', 'lib.rs'), 0);
    expect((await open(directory).update()).skipped).toEqual({ unreadable: 1 });
  });

  test('an empty tree is no error', async () => {
    const directory = tree({});
    const index = open(directory);
    expect(counts(await index.update())).toMatchObject({ files: 0, annotations: 0 });
    expect(await index.search('anything')).toEqual([]);
  });

  test('what is missing is named', async () => {
    const directory = tree();
    const missing = await failure(() => open(join(directory, 'nowhere')).update());
    expect(missing).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(missing.message).toContain('there is no such directory');
    expect((await failure(() => open(join(directory, 'src', 'lib.rs')).update())).message).toContain('not a directory');
    expect(existsSync(join(directory, 'nowhere'))).toBe(false);
    const none = await failure(() => open(directory).search('x'));
    expect(none).toMatchObject({ code: 'NOT_INITIALIZED', details: { path: join(directory, '.embedcore', 'index.sqlite') } });
    expect(existsSync(join(directory, '.embedcore'))).toBe(false);
  });

  test('another model is refused until a rebuild is asked for', async () => {
    const directory = tree();
    await open(directory).update();
    const other = open(directory, { generator: { modelPath: model('demo') } });
    for (const work of [() => other.update(), () => other.search('x')]) {
      const error = await failure(work);
      expect(error).toMatchObject({ code: 'INVALID_CONFIG' });
      expect(error.message).toContain('was made with the model builtin');
    }
    expect(counts(await other.update({ rebuild: true }))).toMatchObject({ embedded: 6 });
    expect(await other.search('x')).toHaveLength(6);
    expect((await failure(() => open(directory).search('x'))).message).toContain('demo');
    const smaller = open(directory, { generator: { modelPath: model('demo'), maxLength: 16 } });
    expect((await failure(() => smaller.update())).message).toContain('another version or other options of');
  });

  test('a damaged index is named, kept, and replaced by a rebuild', async () => {
    const directory = tree();
    const index = open(directory);
    await index.update();
    await index.close();
    const file = join(directory, '.embedcore', 'index.sqlite');
    const bytes = readFileSync(file);
    for (const damaged of [Buffer.from('no database, but long enough for one'.repeat(100)), bytes.subarray(0, 5000), bytes.subarray(0, bytes.length / 2)]) {
      rmSync(`${file}-wal`, { force: true });
      rmSync(`${file}-shm`, { force: true });
      writeFileSync(file, damaged);
      const error = await failure(async () => {
        await open(directory).update();
        await open(directory).search('x');
      });
      expect(error).toMatchObject({ code: 'CACHE_STORAGE_FAILED', details: { path: file } });
      expect(readFileSync(file).equals(damaged)).toBe(true);
    }
    expect(counts(await open(directory).update({ rebuild: true }))).toMatchObject({ embedded: 6 });
    expect(await open(directory).search('x')).toHaveLength(6);
  });

  test('the database of another program is never touched', async () => {
    const directory = tree();
    const path = join(directory, 'theirs.sqlite');
    const bytes = Buffer.from('something precious');
    writeFileSync(path, bytes);
    const index = open(directory, { path });
    expect(await failure(() => index.update())).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
    expect(await failure(() => index.update({ rebuild: true }))).toMatchObject({ code: 'CACHE_STORAGE_FAILED' });
    expect(readFileSync(path).equals(bytes)).toBe(true);
  });

  test('an abort keeps what is written, and the next run goes on', async () => {
    const files: Record<string, string> = {};
    for (let i = 0; i < 3000; i++) files[`src/f${i}.ts`] = `export function handler${i}(request: Request) {\n  return request.body${i};\n}\n`;
    const directory = tree(files);
    const index = open(directory);
    const stop = new AbortController();
    const error = await failure(() =>
      index.update({
        signal: stop.signal,
        progressCallback: ({ done }) => {
          if (done > 0) stop.abort('enough');
        },
      }),
    );
    expect(error).toMatchObject({ code: 'ABORTED', cause: 'enough' });
    const report = await index.update();
    expect(report.unchanged).toBeGreaterThan(0);
    expect(report.unchanged + report.changed).toBe(3000);
    expect(report.annotations).toBe(3000);
    expect(await failure(() => index.update({ signal: AbortSignal.abort() }))).toMatchObject({ code: 'ABORTED' });
    const thrown = await failure(() => index.update({ rebuild: true, progressCallback: () => { throw new Error('mine'); } }));
    expect(thrown).toMatchObject({ code: 'ABORTED', cause: { message: 'mine' } });
  });

  test('searches while it updates, and sees the new index after', async () => {
    const directory = tree();
    const index = open(directory);
    await index.update();
    expect(await index.search('x')).toHaveLength(6);
    write(directory, 'src/new.ts', 'function fresh() {}');
    const [, matches] = await Promise.all([index.update(), index.search('x')]);
    expect(matches.length).toBeGreaterThanOrEqual(6);
    expect(await index.search('x')).toHaveLength(7);
  });

  test('a file beside the index is never touched', async () => {
    const directory = tree({ ...SOURCES, 'Cargo.lock': 'precious', 'Cargo.sqlite.lock': 'too' });
    const index = open(directory, { path: join(directory, 'Cargo.sqlite') });
    await index.update();
    expect(readFileSync(join(directory, 'Cargo.lock'), 'utf8')).toBe('precious');
    expect(readFileSync(join(directory, 'Cargo.sqlite.lock'), 'utf8')).toBe('too');
    expect(await index.search('x')).toHaveLength(6);
  });

  test('an index that was deleted or replaced answers no more', async () => {
    const directory = tree();
    const reader = open(directory);
    await open(directory).update();
    expect(await reader.search('x')).toHaveLength(6);
    rmSync(join(directory, '.embedcore'), { recursive: true });
    expect(await failure(() => reader.search('x'))).toMatchObject({ code: 'NOT_INITIALIZED' });
    rmSync(join(directory, 'src', 'lib.rs'));
    await open(directory).update();
    expect(await reader.search('x')).toHaveLength(5);
  });

  test('a search while a file changes never mixes two declarations', async () => {
    const one = 'function openFile(path) {\n  return open(path);\n}\n';
    const two = 'function closeSocket(socket) {\n  socket.close();\n}\n';
    const directory = tree({ 'a.js': one + two });
    const index = open(directory);
    await index.update();
    for (let round = 0; round < 30; round++) {
      write(directory, 'a.js', round % 2 ? one + two : two + one, 100 + round);
      const [, ...answers] = await Promise.all([index.update(), ...Array.from({ length: 6 }, () => index.search('open a file'))]);
      for (const [best] of answers) if (best) expect(best.name).toBe('openFile');
    }
  });

  test('declarations in declarations stay small', async () => {
    const nested = Array.from({ length: 1500 }, (_, i) => `function ${'a'.repeat(300)}${i}(){\n\n\n`).join('');
    const directory = tree({ 'deep.js': nested + '}'.repeat(1500), 'ok.js': 'function fine() {}' });
    const index = open(directory);
    const report = await index.update();
    expect(report).toMatchObject({ files: 2 });
    const matches = await index.search('a', { limit: 1000 });
    expect(Math.max(...matches.map(({ name }) => name.length))).toBeLessThanOrEqual(400);
    expect((await index.search('fine')).map(({ name }) => name)).toContain('fine');
  });

  test('a long query is answered like any other', async () => {
    const index = open(tree());
    await index.update();
    expect(await index.search('open a file '.repeat(20_000), { limit: 3 })).toHaveLength(3);
  });

  test('who waits for another run can be stopped', async () => {
    const files: Record<string, string> = {};
    for (let i = 0; i < 2000; i++) files[`f${i}.ts`] = `function handler${i}() {\n  return ${i};\n}\n`;
    const index = open(tree(files));
    const first = index.update();
    const error = await failure(() => index.update({ signal: AbortSignal.timeout(20) }));
    expect(error).toMatchObject({ code: 'ABORTED' });
    expect(await first).toMatchObject({ done: 2000 });
  });

  test('bad arguments are named', async () => {
    expect(await failure(() => new CodeIndex(''))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await failure(() => new CodeIndex('.', { pth: 'x' } as object))).toMatchObject({ code: 'INVALID_CONFIG' });
    expect((await failure(() => new CodeIndex('.', { generator: { poling: 'x' } as object }))).message).toContain('poling');
    const index = open(tree());
    for (const words of ['', '  ', 3 as never]) expect(await failure(() => index.search(words))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    for (const limit of [0, -1, 1.5, NaN, 1001, '3' as never]) {
      expect(await failure(() => index.search('x', { limit }))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    expect(await failure(() => index.update({ rebuild: 'yes' as never }))).toMatchObject({ code: 'INVALID_CONFIG' });
    expect(await failure(() => index.update({ rebild: true } as object))).toMatchObject({ code: 'INVALID_CONFIG' });
  });
});

describe('the command', () => {
  const embedcore = (cwd: string, ...args: string[]) => run(process.execPath, [cli, ...args], { cwd });
  const fails = async (cwd: string, ...args: string[]) => {
    const error = (await failure(() => embedcore(cwd, ...args))) as unknown as { code: number; stderr: string; stdout: string };
    expect(error.stdout).toBe('');
    return error;
  };

  test('indexes and searches', async () => {
    const directory = tree();
    const first = await embedcore(directory, 'index');
    expect(first.stdout).toMatch(/^6 annotations of 5 files in /);
    expect(first.stdout).toContain('npx embedcore search');
    // No bar and no colours where no terminal is.
    expect(first.stderr).toBe('');
    expect(first.stdout).not.toContain('\x1b');
    expect((await embedcore(directory, 'index')).stdout).toContain('0 annotations embedded, 6 from cache');
    const { stdout } = await embedcore(join(directory, 'src'), 'search', 'put an element on top', '..', '--limit', '2');
    expect(stdout).toMatch(/^\d\.\d{3} {2}\.\.\/src\/Stack\.java:3\n {7}void push\(int element\)\n {7}Puts an element on top\.\n/);
    expect(stdout.match(/^\d/gm)).toHaveLength(2);
    const json = JSON.parse((await embedcore(directory, 'search', 'put an element on top', '--json')).stdout) as { query: string; matches: object[] };
    expect(json.query).toBe('put an element on top');
    expect(json.matches).toHaveLength(6);
    expect(json.matches[0]).toMatchObject({ file: 'src/Stack.java', line: 3, kind: 'method', language: 'java', score: expect.any(Number) as number });
  });

  test('says what is wrong, and what to do', async () => {
    const directory = tree();
    expect(await fails(directory, 'search', 'x')).toMatchObject({ code: 2, stderr: expect.stringContaining('Run: npx embedcore index') as string });
    await embedcore(directory, 'index');
    expect((await fails(directory, 'search', 'x', '--model', model('demo'))).stderr).toContain('Run: npx embedcore index --rebuild');
    expect((await fails(directory, 'index', '--model', 'nowhere')).stderr).toContain('nowhere');
    for (const args of [['serch', 'x'], ['search'], ['search', 'x', '--limit', '0'], ['search', 'two', 'words', 'here'], ['search', 'two', 'words'], ['index', 'nowhere'], ['index', '--json'], ['index', '--nonsense']]) {
      expect((await fails(directory, ...args)).code, args.join(' ')).toBe(2);
    }
    expect((await embedcore(directory, '--help')).stdout).toContain('embedcore search');
    expect((await embedcore(directory, '--version')).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect((await embedcore(tree({}), 'index')).stdout).toContain('There is no source file in');
  });

  test('advice can be pasted, whatever directories are called', async () => {
    const work = tree({});
    const bin = join(work, 'bin');
    mkdirSync(bin);
    writeFileSync(join(bin, 'npx'), `#!/bin/sh\nshift\nexec '${process.execPath}' '${cli}' "$@"\n`, { mode: 0o755 });
    for (const name of ['t`touch PWNED`x', 'price $HOME', '-dash', 'a "b" c', "it's", 'esc\u001b[31m%s\\1', 'r\u202eight', 'a;b', 'line\nbreak']) {
      write(work, `${name}/a.ts`, 'function findMe(a) { return a; }\n');
      const { stdout } = await embedcore(work, 'index', `./${name}`);
      // eslint-disable-next-line no-control-regex
      expect(stdout, name).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/);
      const advice = /npx embedcore search .*/.exec(stdout)![0];
      const pasted = await run('sh', ['-c', advice], { cwd: work, env: { ...process.env, PATH: `${bin}:${process.env.PATH}` } });
      expect(pasted.stdout, advice).toContain('function findMe');
    }
    expect(existsSync(join(work, 'PWNED'))).toBe(false);
  });

  test('answers name files so that they can be opened', async () => {
    const directory = tree();
    await embedcore(directory, 'index');
    const from = join(directory, 'src');
    expect((await embedcore(from, 'search', 'put an element on top')).stdout).toContain('  ../src/Stack.java:3\n');
    const { root, matches } = JSON.parse((await embedcore(from, 'search', 'put an element on top', '--json', '--source')).stdout) as { root: string; matches: { file: string; source: string }[] };
    expect(readFileSync(join(root, matches[0]!.file), 'utf8')).toContain(matches[0]!.source);
    expect(matches[0]!.source).toBe('  void push(int element) { items.add(element); }');
  });

  test('answers are chosen by file, language, kind and score, and shown with the lines around them', async () => {
    const directory = tree();
    await embedcore(directory, 'index');
    const files = async (...options: string[]) => {
      const { stdout } = await embedcore(directory, 'search', 'put an element on top', '--json', ...options);
      return (JSON.parse(stdout) as { matches: { file: string }[] }).matches.map(({ file }) => file);
    };
    expect(await files('--lang', 'rust', '--lang', 'go')).toEqual(expect.arrayContaining(['src/lib.rs', 'src/cache.go']) as string[]);
    expect(await files('--path', '*.java', '--kind', 'class')).toEqual(['src/Stack.java']);
    expect(await files('--path', '!src/')).toEqual([]);
    expect(await files('--min-score', '1')).toEqual([]);
    const around = (await embedcore(directory, 'search', 'put an element on top', '--limit', '1', '--context', '1')).stdout;
    expect(around).toMatch(/^\d\.\d{3} {2}src\/Stack\.java:3\n {5}2 {3}\/\*\* Puts an element on top\. \*\/\n {5}3 {3}void push\(int element\) \{ items\.add\(element\); \}\n {5}4 \}\n$/);
    for (const [option, value] of [['--lang', 'cobol'], ['--kind', 'klass'], ['--min-score', '2'], ['--path', ''], ['--context', '1.5']]) {
      expect((await fails(directory, 'search', 'x', option!, value!)).stderr, option).toMatch(/^embedcore: [^\n]+\n/);
    }
  });

  test('with --json, an error is JSON as well', async () => {
    const directory = tree();
    const error = (await failure(() => embedcore(directory, 'search', 'x', '--json'))) as unknown as { stdout: string; stderr: string; code: number };
    expect(JSON.parse(error.stdout)).toMatchObject({ error: { code: 'NOT_INITIALIZED', message: expect.stringContaining('npx embedcore index') as string } });
    expect([error.code, error.stderr.startsWith('embedcore: ')]).toEqual([2, true]);
    for (const args of [['search', '--json'], ['search', 'x', '--json', '--nonsense'], ['search', 'x', '--json', '--limit'], ['--json', 'search', 'x', '--rebuild']]) {
      const { stdout } = (await failure(() => embedcore(directory, ...args))) as unknown as { stdout: string };
      expect(JSON.parse(stdout), args.join(' ')).toMatchObject({ error: { code: 'INVALID_ARGUMENT', message: expect.any(String) as string } });
    }
  });

  test('messages are one line of plain text', async () => {
    const directory = tree();
    for (const args of [['search', 'x', '--limit', '-5'], ['index', '--nonsense'], ['index', 'no\nwhere']]) {
      const { code, stderr } = await fails(directory, ...args);
      expect(code, args.join(' ')).toBe(2);
      expect(stderr, args.join(' ')).toMatch(/^embedcore: [^\n\ufffd]+\n(See embedcore --help\n)?$/);
    }
    const gone = await failure(() => run('sh', ['-c', 'mkdir gone && cd gone && rmdir ../gone && exec "$0" "$1" index', process.execPath, cli], { cwd: directory })) as unknown as { code: number; stderr: string };
    expect(gone).toMatchObject({ code: 2, stderr: expect.stringMatching(/^embedcore: The current directory is not there any more[^\n]*\nSee embedcore --help\n$/) as string });
  });

  test.skipIf(!existsSync('/dev/full'))('output that could not be written is a failure', async () => {
    const directory = tree();
    await embedcore(directory, 'index');
    for (const args of [['search', 'x', directory, '--json'], ['index', directory], ['--help']]) {
      const error = (await failure(() => run('sh', ['-c', 'exec "$@" > /dev/full', 'sh', process.execPath, cli, ...args]))) as unknown as { code: number; stderr: string };
      expect(error.code, args[0]).toBe(1);
      expect(error.stderr).toMatch(/^embedcore: Standard output cannot be written: ENOSPC[^\n]*\n$/);
    }
  });

  test('what others wrote cannot steer the terminal', async () => {
    const directory = tree({ 'a\x1b[2J.js': '/** Clears\x1b]0;title\x07 all\u009b. */\nfunction clear(a = "\x1b[31m") {}' });
    await embedcore(directory, 'index', '--verbose');
    const { stdout } = await embedcore(directory, 'search', 'clear');
    expect(stdout).toContain('function clear');
    // eslint-disable-next-line no-control-regex
    expect(stdout).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/);
  });

  test('an index above is found, and advice names the model', async () => {
    const directory = tree();
    await embedcore(directory, 'index', '--model', model('demo'));
    const { stdout } = await embedcore(join(directory, 'src'), 'search', 'x', '--model', model('demo'));
    expect(stdout).toContain('../src/lib.rs:2');
    expect((await fails(join(directory, 'src'), 'search', 'x')).stderr).toContain('Run: npx embedcore index --rebuild ..');
    expect((await fails(directory, 'index')).stderr).toContain('Run: npx embedcore index --rebuild');
    expect((await embedcore(directory, 'index', '--model', model('demo'))).stdout).toContain(`search "what it does" --model ${model('demo')}`);
  });

  test('a killed run leaves an index that the next one completes', async () => {
    const files: Record<string, string> = {};
    for (let i = 0; i < 4000; i++) files[`f${i}.py`] = `def compute_${i}(value):\n    return value * ${i}\n`;
    const directory = tree(files);
    for (const [signal, delay] of [['SIGKILL', 250], ['SIGINT', 350], ['SIGKILL', 450]] as const) {
      const child = spawn(process.execPath, [cli, 'index'], { cwd: directory });
      const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
      setTimeout(() => child.kill(signal), delay);
      const code = await ended;
      if (signal === 'SIGINT') expect([130, 0, null]).toContain(code);
    }
    const { stdout } = await embedcore(directory, 'index');
    expect(stdout).toMatch(/^4,000 annotations of 4,000 files/);
    const json = (JSON.parse((await embedcore(directory, 'search', 'compute 1234', '--json')).stdout) as { matches: { name: string }[] }).matches;
    expect(json[0]!.name).toBe('compute_1234');
  });
});
