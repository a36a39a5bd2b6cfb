// Which answers a search gives, and what an index tells without a model.

import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';

import { CodeIndex, CrossEncoder, prepareText } from 'embedcore';
import { expect, onTestFinished, test, vi } from 'vitest';

import { failure, model, root } from './support';

const SOURCES = {
  'src/stack.ts': '/** A stack. */\nexport class Stack {\n  /** Puts an element on top. */\n  push(element: number): void {}\n}\n',
  'src/deep/queue.py': 'class Queue:\n    def push(self, element):\n        """Appends an element at the end."""\n',
  'test/stack.test.js': '// Puts elements on a stack.\nfunction pushSome() {}\n',
  'lib.rs': '/// Pushes an element.\npub fn push(element: u32) {}\n',
};

async function indexed(files: Record<string, string> = SOURCES): Promise<{ directory: string; index: CodeIndex }> {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  for (const [file, content] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, file)), { recursive: true });
    writeFileSync(join(directory, file), content);
  }
  const index = new CodeIndex(directory);
  onTestFinished(async () => {
    await index.close();
    rmSync(directory, { recursive: true, force: true });
  });
  await index.update();
  return { directory, index };
}

const found = (matches: { file: string; name: string }[]) => matches.map(({ file, name }) => `${file} ${name}`).sort();

test('answers are limited to paths, languages and kinds, and keep their scores', async () => {
  const { index } = await indexed();
  const all = await index.search('put an element on top', { limit: 100 });
  expect(all).toHaveLength(6);
  const only = (keep: (match: (typeof all)[number]) => boolean) => all.filter(keep);
  const cases = [
    [{ paths: 'src/' }, ({ file }) => file.startsWith('src/')],
    [{ paths: ['src', '!deep/'] }, ({ file }) => file === 'src/stack.ts'],
    [{ paths: '!*.test.js' }, ({ file }) => file !== 'test/stack.test.js'],
    [{ paths: '/*.rs' }, ({ file }) => file === 'lib.rs'],
    [{ languages: 'python' }, ({ language }) => language === 'python'],
    [{ languages: ['rust', 'javascript'] }, ({ language }) => language === 'rust' || language === 'javascript'],
    [{ kinds: 'class' }, ({ kind }) => kind === 'class'],
    [{ kinds: ['method', 'function'], paths: 'src' }, ({ kind, file }) => ['method', 'function'].includes(kind) && file.startsWith('src/')],
    [{ minScore: all[2]!.score }, ({ score }) => score >= all[2]!.score],
    [{ minScore: 1 }, () => false],
  ] as [Parameters<CodeIndex['search']>[1] & object, (match: (typeof all)[number]) => boolean][];
  for (const [options, keep] of cases) {
    expect(await index.search('put an element on top', { limit: 100, ...options }), JSON.stringify(options)).toEqual(only(keep));
  }
  // A limit counts answers, not what was left out.
  expect(await index.search('put an element on top', { limit: 1, kinds: 'class' })).toEqual(only(({ kind }) => kind === 'class').slice(0, 1));
});

test('finds what the hard cases of every language declare', async () => {
  const hard = join(root, 'fixtures', 'outline');
  const { index } = await indexed(Object.fromEntries(readdirSync(hard).map((file) => [file, readFileSync(join(hard, file), 'utf8')])));
  const { languages, files } = await index.status();
  expect(Object.keys(languages)).toEqual(['bash', 'c', 'cpp', 'csharp', 'kotlin', 'markdown', 'php', 'ruby', 'scala', 'sql', 'svelte', 'swift', 'vue']);
  expect(files).toBe(13);
  const best = async (words: string, options: object) => {
    const [match] = await index.search(words, options);
    return match && `${match.kind} ${match.name} ${match.file}:${match.line}`;
  };
  expect(await best('put an item on top of the stack', { languages: 'cpp', kinds: 'method' })).toBe('method store.detail.Stack.push hard.cpp:12');
  expect(await best('find a user by its number', { languages: 'php' })).toBe('method User.find hard.php:23');
  expect(await best('run it twice', { kinds: 'section' })).toBe('section Guide.Usage hard.md:19');
  expect(await best('save what was typed', { languages: 'vue' })).toBe('function save hard.vue:13');
  expect(await index.symbols('Invoice', { limit: 10 })).toHaveLength(4);
  expect((await index.symbols('pay'))[0]).toMatchObject({ language: 'sql', file: 'hard.sql', line: 26, endLine: 31 });
});

test('a declaration whose name is asked for comes first', async () => {
  const { index } = await indexed({
    'a.js': '/** Reads the lines of a file, reads lines, and reads lines again. */\nfunction linesReader(readLines) {\n  return readLines.readLines();\n}\n',
    'b.js': 'class Source {\n  readLines() {\n    return this.all;\n  }\n}\n',
    'test/c.js': '/** Reads lines. */\nfunction readLines2() {\n  return readLines();\n}\n',
  });
  for (const words of ['readLines', 'read_lines', 'read lines', 'ReadLines()', 'Source.readLines', 'source read lines']) {
    const [first, ...others] = await index.search(words);
    expect([words, first!.name]).toEqual([words, 'Source.readLines']);
    expect(first!.score).toBeGreaterThanOrEqual(0.9);
    for (const { score } of others) expect(score).toBeLessThan(0.9);
  }
});

test('a kind that is rare is found behind any number of others', async () => {
  const functions = Array.from({ length: 400 }, (_, n) => `/** Opens connection ${n} to the server. */\nfunction openConnection${n}(host) {\n  return connect(host, ${n});\n}\n`);
  const { index } = await indexed({
    'a.js': functions.join('\n'),
    'b.ts': '/** A heap of coins. */\nexport class Coins {\n  heap: number[] = [];\n}\n\n/** Rain that falls. */\nexport class Rain {\n  drops = 0;\n}\n',
  });
  const names = async (limit: number) => (await index.search('open a connection to the server', { kinds: 'class', limit })).map(({ name }) => name);
  expect((await names(1000)).sort()).toEqual(['Coins', 'Rain']);
  expect((await names(2)).sort()).toEqual(['Coins', 'Rain']);
  expect(await names(1)).toEqual((await names(2)).slice(0, 1));
});

test('tests, fixtures and generated files come behind what is as good, unless they are asked for', async () => {
  const source = '/** Opens a connection to the server. */\nfunction openConnection(host) {\n  return connect(host);\n}\n';
  const { index } = await indexed({ 'a/test/host.js': source, 'b/host.test.js': source, 'c/fixtures/host.js': source, 'd/host.min.js': source, 'z/host.js': source });
  const [first, ...others] = await index.search('connects to a server');
  expect(first!.file).toBe('z/host.js');
  expect(others).toHaveLength(4);
  for (const { score, similarity } of others) {
    expect(similarity).toBeCloseTo(first!.similarity, 5);
    expect(score).toBeCloseTo(0.9 * first!.score, 4);
  }
  const [asked] = await index.search('test that connects to a server');
  expect(asked!.file).toBe('a/test/host.js');
});

test('filters are read when the call is made', async () => {
  const { index } = await indexed();
  const paths = ['lib.rs'];
  const searching = index.search('push', { paths });
  paths[0] = 'src/';
  expect(found(await searching)).toEqual(['lib.rs push']);
});

test('filters that nothing can pass are refused, by name', async () => {
  const { index } = await indexed();
  for (const [options, words] of [
    [{ languages: 'cobol' }, 'languages has "cobol"; known are bash, c, cpp, csharp, go, java, javascript, kotlin, markdown, php, python, ruby, rust, scala, sql, svelte, swift, text, typescript, vue'],
    [{ kinds: 'klass' }, 'kinds has "klass"; known are function, method, class, type, constant, file'],
    [{ paths: '' }, 'A pattern in paths is empty'],
    [{ paths: 'a\nb' }, 'A pattern in paths has more than one line'],
    [{ paths: ['x'.repeat(5000)] }, '4096'],
    [{ paths: 7 }, 'paths is 7'],
    [{ paths: [7] }, 'paths is'],
    [{ minScore: 2 }, 'minScore is 2'],
    [{ minScore: NaN }, 'minScore is NaN'],
    [{ kind: 'class' }, 'did you mean `kinds`'],
  ] as [object, string][]) {
    const error = await failure(() => index.search('push', options));
    expect(['INVALID_ARGUMENT', 'INVALID_CONFIG'], words).toContain(error.code);
    expect(error.message).toContain(words);
  }
});

test('a signal and a time limit end a search', async () => {
  const { index } = await indexed();
  const stop = new AbortController();
  const searching = index.search('push', { signal: stop.signal });
  stop.abort();
  expect((await failure(() => searching)).code).toBe('ABORTED');
  expect((await failure(() => index.search('push', { timeoutMs: 0 }))).code).toBe('INVALID_CONFIG');
  expect(await index.search('push', { signal: new AbortController().signal, timeoutMs: 60_000, limit: 1 })).toHaveLength(1);
});

test('declarations are found by their names, the shortest first', async () => {
  const { index } = await indexed();
  const symbols = await index.symbols('push');
  expect(found(symbols)).toEqual(['lib.rs push', 'src/deep/queue.py Queue.push', 'src/stack.ts Stack.push']);
  expect(symbols[0]).toEqual({
    file: 'lib.rs', line: 2, endLine: 2, kind: 'function', language: 'rust', name: 'push',
    signature: 'pub fn push(element: u32)', summary: 'Pushes an element.',
  });
  expect(found(await index.symbols('Stack.push'))).toEqual(['src/stack.ts Stack.push']);
  expect(await index.symbols('push', { limit: 1 })).toEqual(symbols.slice(0, 1));
  for (const nothing of ['ush', 'Push', '"', '\\', '%', 'push"', '💥', 'x'.repeat(1 << 20)]) expect(await index.symbols(nothing), nothing.slice(0, 9)).toEqual([]);
  expect((await failure(() => index.symbols(' '))).code).toBe('INVALID_ARGUMENT');
});

test('a match whose file has changed since says so, and no other one', async () => {
  const { directory, index } = await indexed();
  const stale = async () => {
    const of = (found: { file: string; stale?: true }[]) => [...new Set(found.filter((one) => one.stale).map(({ file }) => file))].sort();
    const matches = of(await index.search('push', { limit: 100 }));
    // No declaration of that file is called so.
    expect(of(await index.symbols('push'))).toEqual(matches.filter((file) => file !== 'test/stack.test.js'));
    return matches;
  };
  expect(await stale()).toEqual([]);
  const file = join(directory, 'lib.rs');
  const { atime, mtime } = statSync(file);
  // A new time alone is no change; and another content is one, with the same time and size.
  utimesSync(file, new Date(0), new Date(0));
  expect(await stale()).toEqual([]);
  writeFileSync(file, SOURCES['lib.rs'].replace('Pushes', 'Pulled'));
  utimesSync(file, atime, mtime);
  expect(await stale()).toEqual(['lib.rs']);
  rmSync(join(directory, 'test', 'stack.test.js'));
  rmSync(join(directory, 'src', 'stack.ts'));
  mkdirSync(join(directory, 'src', 'stack.ts'));
  expect(await stale()).toEqual(['lib.rs', 'src/stack.ts', 'test/stack.test.js']);
  await index.update();
  expect(await stale()).toEqual([]);
});

test('an index tells what is in it', async () => {
  const { directory, index } = await indexed({ ...SOURCES, 'broken.py': 'def (((:\n'.repeat(50), 'readme.txt': 'no code' });
  expect(await index.files()).toEqual(['lib.rs', 'src/deep/queue.py', 'src/stack.ts', 'test/stack.test.js']);
  expect(await index.status()).toEqual({
    path: join(directory, '.embedcore', 'index.sqlite'), sizeBytes: expect.any(Number) as number, model: 'builtin', dimensions: 256,
    files: 4, annotations: 6, textFiles: false, languages: { javascript: 1, python: 1, rust: 1, typescript: 1 },
  });
  const empty = new CodeIndex(join(directory, 'src'));
  for (const ask of [() => empty.status(), () => empty.files(), () => empty.symbols('push')]) expect((await failure(ask)).code).toBe('NOT_INITIALIZED');
});

test('a cross-encoder looks again at the best, and its scores count', async () => {
  const { directory, index } = await indexed();
  const encoder = new CrossEncoder({ modelPath: model('cross-encoder') });
  onTestFinished(() => encoder.cleanup());
  const words = 'put an element on top';
  const all = await index.search(words, { limit: 100 });
  // It is loaded if it is not.
  const ranked = await index.search(words, { limit: 100, rerank: encoder });
  expect(encoder.isReady()).toBe(true);
  const sources = Object.entries(SOURCES);
  const documents = all.map(({ file, line, endLine, name, signature, summary }) => {
    const sourceSnippet = sources.find(([known]) => known === file)![1].split('\n').slice(line - 1, endLine).join('\n');
    return prepareText({ nodeId: name, signature, summary, sourceSnippet });
  });
  const scores = await encoder.score(documents.map((document) => [words, document] as const), { activation: 'sigmoid' });
  const order = [...scores.keys()].sort((one, other) => scores[other]! - scores[one]! || one - other);
  expect(ranked).toEqual(order.map((at) => ({ ...all[at], score: scores[at] })));
  // Of all that are looked at, the best are answered, and none below the least score.
  expect(await index.search(words, { limit: 2, rerank: encoder })).toEqual(ranked.slice(0, 2));
  expect(await index.search(words, { limit: 100, minScore: ranked[1]!.score, rerank: encoder })).toEqual(ranked.filter(({ score }) => score >= ranked[1]!.score));
  // A model that is named is the index' own, and goes with it.
  expect(await index.search(words, { limit: 100, rerank: model('cross-encoder') })).toEqual(ranked);
  await index.close();
  expect(await index.search(words, { limit: 100, rerank: model('cross-encoder') })).toEqual(ranked);
  // What is gone from the disk is judged by what the index knows.
  rmSync(join(directory, 'lib.rs'));
  expect(await index.search(words, { limit: 100, rerank: encoder })).toHaveLength(ranked.length);
});

test('a search with a reranker stops, and says what is wrong with it', async () => {
  const { index } = await indexed();
  const encoder = new CrossEncoder({ modelPath: model('cross-encoder') });
  onTestFinished(() => encoder.cleanup());
  expect(await failure(() => index.search('a', { rerank: encoder, signal: AbortSignal.abort() }))).toMatchObject({ code: 'ABORTED' });
  for (const rerank of [true, 1, '', {}, null]) expect(await failure(() => index.search('a', { rerank: rerank as never })), String(rerank)).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'rerank' } });
  expect(await failure(() => index.search('a', { rerank: model('bert-mean') }))).toMatchObject({ code: 'MODEL_INIT_FAILED', message: expect.stringContaining('OptimizedEmbeddingGenerator') });
  expect(await failure(() => index.search('a', { rerank: model('cross-encoder-labels') }))).toMatchObject({ code: 'INVALID_ARGUMENT' });
});

test('a model is named by what its path means now, and few of them stay loaded', async () => {
  const { index, directory: root } = await indexed();
  const loads = vi.spyOn(Object.getPrototypeOf(CrossEncoder.prototype) as CrossEncoder, 'initialize');
  const before = process.cwd();
  onTestFinished(() => (process.chdir(before), loads.mockRestore()));
  const places = ['one', 'two', 'three', 'four'].map((name) => {
    const place = join(root, '..', `${basename(root)}-${name}`);
    onTestFinished(() => rmSync(place, { recursive: true, force: true }));
    cpSync(model(name === 'four' ? 'bert-mean' : 'cross-encoder'), join(place, 'model'), { recursive: true });
    return place;
  });
  const ranked = await index.search('a', { rerank: model('cross-encoder') });
  for (const place of places.slice(0, 3)) {
    process.chdir(place);
    for (const rerank of ['./model', 'model']) expect(await index.search('a', { rerank })).toEqual(ranked);
  }
  // Each was loaded once, whatever its path looked like.
  expect(loads).toHaveBeenCalledTimes(4);
  process.chdir(places[3]!);
  const late = index.search('a', { rerank: 'model' });
  process.chdir(places[0]!);
  expect(await failure(() => late)).toMatchObject({ code: 'MODEL_INIT_FAILED' });
  await expect.poll(() => loads.mock.contexts.filter((encoder) => (encoder as CrossEncoder).isReady()).length).toBeLessThanOrEqual(2);
  expect(await index.search('a', { rerank: './model' })).toEqual(ranked);
});
