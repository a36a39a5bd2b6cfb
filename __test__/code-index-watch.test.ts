// An index that follows its directory.

import { execFileSync, fork } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { CodeIndex, type IndexReport, type WatchOptions } from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { failure } from './support';

function directoryWith(files: Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  for (const [file, content] of Object.entries(files)) put(directory, file, content);
  return directory;
}

function put(directory: string, file: string, content: string): void {
  mkdirSync(dirname(join(directory, file)), { recursive: true });
  writeFileSync(join(directory, file), content);
}

const source = (name: string) => `function ${name}() {}\n`;

async function watching(directory: string, options: WatchOptions = {}) {
  const index = new CodeIndex(directory);
  const reports: IndexReport[] = [];
  const watcher = await index.watch({ debounceMs: 20, onUpdate: (report) => reports.push(report), ...options });
  onTestFinished(() => index.close());
  return { index, watcher, reports };
}

test('what is new, changed, renamed or gone is followed, in new directories, too', async () => {
  const directory = directoryWith({ 'a.ts': source('first') });
  const { index, reports } = await watching(directory);
  expect(reports).toMatchObject([{ files: 1, annotations: 1 }]);
  expect(await index.files()).toEqual(['a.ts']);
  put(directory, 'b.ts', source('second'));
  await expect.poll(() => index.files()).toEqual(['a.ts', 'b.ts']);
  put(directory, 'new/deep/c.ts', source('third'));
  await expect.poll(() => index.files()).toEqual(['a.ts', 'b.ts', 'new/deep/c.ts']);
  put(directory, 'new/deep/d.ts', source('fourth'));
  await expect.poll(() => index.symbols('fourth')).toHaveLength(1);
  put(directory, 'new/deep/d.ts', source('fifth'));
  await expect.poll(() => index.symbols('fifth')).toHaveLength(1);
  renameSync(join(directory, 'new'), join(directory, 'old'));
  await expect.poll(() => index.files()).toEqual(['a.ts', 'b.ts', 'old/deep/c.ts', 'old/deep/d.ts']);
  rmSync(join(directory, 'old'), { recursive: true });
  await expect.poll(() => index.files()).toEqual(['a.ts', 'b.ts']);
});

test('ignore files that change, and branches that are switched, are followed', async () => {
  const directory = directoryWith({ 'a.ts': source('first'), 'generated.ts': source('generated') });
  const git = (...args: string[]) => execFileSync('git', ['-c', 'user.name=a', '-c', 'user.email=a@example.com', ...args], { cwd: directory, stdio: 'ignore' });
  git('init', '-b', 'main');
  git('add', 'a.ts');
  git('commit', '-m', 'one');
  const { index } = await watching(directory);
  expect(await index.files()).toEqual(['a.ts', 'generated.ts']);
  put(directory, '.gitignore', 'generated.ts\n');
  await expect.poll(() => index.files()).toEqual(['a.ts']);
  git('checkout', '-b', 'other');
  for (let at = 0; at < 300; at++) put(directory, `many/${at}.ts`, source(`f${at}`));
  git('add', 'many');
  git('commit', '-m', 'two');
  await expect.poll(async () => (await index.files()).length).toBe(301);
  git('checkout', 'main');
  await expect.poll(async () => (await index.files()).length).toBe(1);
});

test('an update that was not needed tells that nothing has changed, and none follows from it', async () => {
  const directory = directoryWith({ 'a.ts': source('first') });
  const { reports } = await watching(directory);
  put(directory, 'notes.txt', 'no code');
  await expect.poll(() => reports.length).toBeGreaterThan(1);
  const seen = reports.length;
  await new Promise((resolve) => setTimeout(resolve, 300));
  // Reading the tree is no change of it.
  expect(reports.length).toBeLessThanOrEqual(seen + 1);
  expect(reports.at(-1)).toMatchObject({ changed: 0, embedded: 0, unchanged: 1 });
});

test('two processes follow one directory', async () => {
  const directory = directoryWith({ 'a.ts': source('first') });
  const program = "import('embedcore').then(async ({ CodeIndex }) => { await new CodeIndex(process.argv[1]).watch({ debounceMs: 20 }); process.send('watching'); })";
  const other = fork('-e', [program, directory], { execArgv: [], cwd: join(__dirname, '..'), stdio: 'inherit' });
  onTestFinished(() => void other.kill('SIGKILL'));
  await new Promise((resolve) => other.once('message', resolve));
  const errors: unknown[] = [];
  const { index } = await watching(directory, { onError: (error) => errors.push(error) });
  for (let at = 0; at < 20; at++) put(directory, `${at}.ts`, source(`f${at}`));
  await expect.poll(async () => (await index.files()).length).toBe(21);
  expect(errors).toEqual([]);
});

test('a watcher that is closed, by itself, its index or a signal, sees nothing more', async () => {
  const stop = new AbortController();
  for (const end of ['watcher', 'index', 'signal']) {
    const directory = directoryWith({ 'a.ts': source('first') });
    const { index, watcher, reports } = await watching(directory, { signal: stop.signal });
    put(directory, 'b.ts', source('second'));
    if (end === 'signal') stop.abort();
    else await (end === 'index' ? index : watcher).close();
    await watcher.close();
    await watcher.close();
    const seen = reports.length;
    put(directory, 'c.ts', source('third'));
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(reports.length, end).toBe(seen);
    // The index itself goes on.
    expect((await index.update()).files, end).toBe(3);
  }
  expect((await failure(() => new CodeIndex('.').watch({ signal: stop.signal }))).code).toBe('ABORTED');
});

test('a directory that is not there is refused, and so are options that are none', async () => {
  const index = new CodeIndex(join(directoryWith({}), 'nowhere'));
  expect((await failure(() => index.watch())).code).toMatch(/INVALID_ARGUMENT|CACHE_STORAGE_FAILED/);
  for (const options of [{ debounceMs: -1 }, { debounceMs: '5' }, { onUpdate: 7 }, { onError: {} }, { signal: {} }, { debounce: 5 }]) {
    expect((await failure(() => index.watch(options as WatchOptions))).code, JSON.stringify(options)).toBe('INVALID_CONFIG');
  }
});

test('errors are told, and tried again', async () => {
  const directory = directoryWith({ 'a.ts': source('first') });
  const errors: string[] = [];
  const { index } = await watching(directory, { onError: (error) => errors.push(error.code) });
  writeFileSync(join(directory, '.embedcore', 'index.sqlite'), 'no index');
  put(directory, 'b.ts', source('second'));
  await expect.poll(() => errors.length).toBeGreaterThan(0);
  rmSync(join(directory, '.embedcore'), { recursive: true });
  await expect.poll(() => index.files().catch(() => [])).toEqual(['a.ts', 'b.ts']);
});

test('a callback that throws stops nothing', async () => {
  const directory = directoryWith({ 'a.ts': source('first') });
  const errors: string[] = [];
  const { index } = await watching(directory, {
    onUpdate: () => {
      throw new Error('mine');
    },
    onError: ({ message }) => void errors.push(message),
  });
  expect(errors).toEqual(['onUpdate has thrown; the index is up to date nevertheless']);
  put(directory, 'b.ts', source('second'));
  await expect.poll(() => index.files()).toEqual(['a.ts', 'b.ts']);
});
