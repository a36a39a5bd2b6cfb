// What is like a declaration, and what repeats what.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { CodeIndex } from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { failure } from './support';

const copy = (name: string) => `
/** Reads a file and gives its lines. */
export function ${name}(path) {
  const text = readFileSync(path, 'utf8');
  const lines = text.split('\\n');
  return lines.filter((line) => line.trim() !== '');
}
`;

const SOURCES = {
  'src/read.js': copy('readLines'),
  'src/again.js': `// Something else.\n${copy('readLines')}`,
  'test/read.js': copy('readLines'),
  'src/socket.js': '/** Opens a connection to a server. */\nexport function connect(host, port) {\n  const socket = open(host);\n  socket.port = port;\n  return socket;\n}\n',
  'src/stack.ts': `/** A stack of numbers. */
export class Stack {
  /** Puts an element on top. */
  push(element: number): void {
    this.all.push(element);
    this.size += 1;
    this.changed = true;
  }
}
`,
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

test('what is similar comes nearest first, without the declaration itself and what is around it', async () => {
  const { index } = await indexed();
  const similar = await index.similar({ file: 'src/read.js', line: 5 });
  expect(similar.slice(0, 2).map(({ file }) => file).sort()).toEqual(['src/again.js', 'test/read.js']);
  expect(similar[0]!.similarity).toBeGreaterThan(0.999);
  expect(similar.some(({ file }) => file === 'src/read.js')).toBe(false);
  for (const { score, similarity } of similar) expect(score).toBe(Math.min(1, Math.max(0, similarity)));
  expect(similar.map(({ score }) => score)).toEqual(similar.map(({ score }) => score).sort((a, b) => b - a));
  // A method's class is around it.
  expect((await index.similar({ file: 'src/stack.ts', line: 5 })).map(({ name }) => name)).not.toContain('Stack');
  // Filters and limits are those of a search.
  expect((await index.similar({ file: 'src/read.js', line: 3 }, { paths: 'test/' })).map(({ file }) => file)).toEqual(['test/read.js']);
  expect(await index.similar({ file: 'src/read.js', line: 3 }, { limit: 1 })).toHaveLength(1);
  // What it belongs to counts, too: the one in a file of the same name is the same.
  expect((await index.similar({ file: 'src/read.js', line: 3 }, { minScore: 0.99 })).map(({ file }) => file)).toEqual(['test/read.js']);
  expect((await index.similar({ file: 'src/read.js', line: 3 }, { minScore: 0.9 }))).toHaveLength(2);
  expect((await index.similar({ file: 'src/read.js', line: 3 }, { kinds: 'class' })).map(({ name }) => name)).toEqual(['Stack']);
});

test('a copy is a duplicate whatever it belongs to', async () => {
  const method = '  total(items: Item[]): number {\n    let sum = 0;\n    for (const item of items) {\n      sum += item.price * item.count;\n    }\n    return sum;\n  }\n';
  const { index } = await indexed({
    'shop/basket.ts': `export class Basket {\n${method}}\n`,
    'observatory/telescope.ts': `export class Telescope extends Instrument {\n${method}}\n`,
  });
  const [group] = await index.duplicates({ threshold: 1, kinds: 'method' });
  expect(group!.declarations.map(({ name, similarity }) => [name, similarity])).toEqual([['Telescope.total', 1], ['Basket.total', expect.closeTo(1, 5)]]);
});

test('a place without a declaration is refused, by name', async () => {
  const { index } = await indexed();
  for (const [to, words] of [
    [{ file: 'src/none.js', line: 1 }, 'line 1 of src/none.js'],
    [{ file: 'src/read.js', line: 99 }, 'line 99 of src/read.js'],
    [{ file: '', line: 1 }, 'file is'],
    [{ file: 'src/read.js', line: 0 }, 'line is 0'],
    [{ file: 'src/read.js', line: 1.5 }, 'line is 1.5'],
    ['src/read.js', 'given as { file, line }'],
    [null, 'given as { file, line }'],
  ] as [never, string][]) {
    const error = await failure(() => index.similar(to));
    expect(error.code).toBe('INVALID_ARGUMENT');
    expect(error.message).toContain(words);
  }
});

test('near-duplicates are told in groups, with what they would spare', async () => {
  const { directory, index } = await indexed();
  const groups = await index.duplicates();
  expect(groups).toHaveLength(1);
  const [{ lines, declarations }] = groups as [(typeof groups)[0]];
  expect(declarations.map(({ file }) => file).sort()).toEqual(['src/again.js', 'src/read.js', 'test/read.js']);
  expect(declarations[0]!.similarity).toBe(1);
  expect(lines).toBe(declarations.slice(1).reduce((sum, { line, endLine }) => sum + endLine - line + 1, 0));
  expect((await index.duplicates({ paths: 'src/' }))[0]!.declarations).toHaveLength(2);
  expect(await index.duplicates({ minLines: 50 })).toEqual([]);
  expect(await index.duplicates({ kinds: 'class' })).toEqual([]);
  expect(await index.duplicates({ languages: 'typescript' })).toEqual([]);
  // What has changed since says so.
  writeFileSync(join(directory, 'src/again.js'), '// nothing\n');
  expect((await index.duplicates())[0]!.declarations.filter(({ stale }) => stale).map(({ file }) => file)).toEqual(['src/again.js']);
});

test('a class does not repeat what is in it', async () => {
  const body = Array.from({ length: 8 }, (_, i) => `    this.value${i} = value;`).join('\n');
  const { index } = await indexed({ 'only.js': `class Holder {\n  hold(value) {\n${body}\n  }\n}\n` });
  expect(await index.duplicates({ kinds: ['class', 'method'], threshold: 0.5, minLines: 1 })).toEqual([]);
});

test('options of near-duplicates are checked, and a signal ends the comparison', async () => {
  const { index } = await indexed();
  for (const [options, option] of [[{ threshold: 0.4 }, 'threshold'], [{ threshold: NaN }, 'threshold'], [{ minLines: 0 }, 'minLines'], [{ minLines: 1.5 }, 'minLines'], [{ limit: 0 }, 'limit'], [{ paths: 7 }, 'paths']] as const) {
    const error = await failure(() => index.duplicates(options as never));
    expect([error.code === 'INVALID_CONFIG' || error.code === 'INVALID_ARGUMENT', error.message.includes(option)]).toEqual([true, true]);
  }
  const stop = new AbortController();
  const comparing = index.duplicates({ signal: stop.signal });
  stop.abort();
  expect((await failure(() => comparing)).code).toBe('ABORTED');
});

test('neither needs an index that is not there, nor a model', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  await using index = new CodeIndex(directory);
  expect((await failure(() => index.similar({ file: 'a.js', line: 1 }))).code).toBe('NOT_INITIALIZED');
  expect((await failure(() => index.duplicates())).code).toBe('NOT_INITIALIZED');
});
