/// <reference lib="dom" />
// The page of a code search: who may ask it for what, and in a real browser.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { CodeIndex, type PageServer, type SearchServeOptions } from 'embedcore';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';

import { raw } from './server-client';
import { failure, root } from './support';

const chromium = [process.env.CHROMIUM_PATH, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => path && existsSync(path));
if (!chromium) console.log('Skipped: the page of a search in a browser, because there is no Chromium (CHROMIUM_PATH names one elsewhere)');

const copied = (name: string) => `/** Reads a file and gives its lines. */\nexport function ${name}(path) {\n  const text = readFileSync(path, 'utf8'); // all of it\n  const lines = text.split('\\n');\n  return lines.filter((line) => line !== '');\n}\n`;

const SOURCES = {
  'src/read.js': copied('readLines'),
  'src/again.js': copied('readLines'),
  'src/stack.py': 'class Stack:\n    """A stack."""\n\n    def push(self, element):\n        """Puts an element on top."""\n        self.all.append(element)\n',
  'test/stack.test.js': '// Puts elements on a stack.\nfunction pushSome() {\n  return 1;\n}\n',
};

function directoryOf(files: Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
  for (const [file, content] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, file)), { recursive: true });
    writeFileSync(join(directory, file), content);
  }
  return directory;
}

async function served(options: SearchServeOptions = {}, files: Record<string, string> = SOURCES): Promise<{ directory: string; index: CodeIndex; server: PageServer }> {
  const directory = directoryOf(files);
  const index = new CodeIndex(directory);
  onTestFinished(() => index.close());
  await index.update();
  return { directory, index, server: await index.serve(options) };
}

const post = async (url: string, body: unknown, headers: Record<string, string> = {}) => {
  const response = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/json', ...headers }, body: typeof body === 'string' ? body : JSON.stringify(body) });
  return { status: response.status, body: (await response.json().catch(() => undefined)) as any };
};

describe('what the page asks for', () => {
  test('is answered with the source, as it is now', async () => {
    const { index, server: { url } } = await served();
    const { status, body } = await post(`${url}search`, { query: 'read the lines of a file', limit: 2 });
    expect(status).toBe(200);
    const found = await index.search('read the lines of a file', { limit: 2 });
    expect(body.matches.map(({ code: _, more: __, ...match }: any) => match)).toEqual(found);
    expect(body.matches[0].code).toContain('text.split');
    expect((await post(`${url}search`, { query: 'push', paths: ['src/'], languages: ['python'], kinds: ['method'] })).body.matches.map(({ name }: any) => name)).toEqual(['Stack.push']);
    expect((await post(`${url}similar`, { file: 'src/read.js', line: 2, limit: 1 })).body.matches[0]).toMatchObject({ file: 'src/again.js' });
    expect((await post(`${url}duplicates`, {})).body.groups).toMatchObject([{ count: 2, matches: [{ name: 'readLines' }, { name: 'readLines' }] }]);
    expect((await post(`${url}source`, { file: 'src/read.js', line: 1, endLine: 2 })).body).toMatchObject({ code: '/** Reads a file and gives its lines. */\nexport function readLines(path) {', more: 0 });
    expect(await (await fetch(`${url}health`)).json()).toMatchObject({ status: 'ok', state: expect.stringMatching(/^(updating|ready)$/) });
  });

  test('is refused in words, where it cannot be meant', async () => {
    const { directory, server: { url } } = await served({}, { ...SOURCES, '.env': 'SECRET=1\n' });
    writeFileSync(join(dirname(directory), 'embedcore-outside.js'), 'x');
    onTestFinished(() => rmSync(join(dirname(directory), 'embedcore-outside.js')));
    for (const [path, given, words] of [
      ['search', { query: '' }, 'empty'],
      ['search', { query: 7 }, 'not a string'],
      ['search', {}, 'not a string'],
      ['search', { query: 'x', limit: 5000 }, 'limit is 5000'],
      ['search', { query: 'x', nothing: 1 }, 'nothing'],
      ['search', '[]', 'not an object'],
      ['search', '{', 'not an object'],
      ['similar', { file: 'none.js', line: 1 }, 'none.js'],
      ['duplicates', { threshold: 7 }, 'threshold'],
      ['source', { file: '.env', line: 1, endLine: 9 }, 'not in the index'],
      ['source', { file: '../embedcore-outside.js', line: 1, endLine: 9 }, 'not in the index'],
      ['source', { file: '/etc/passwd', line: 1, endLine: 9 }, 'not in the index'],
    ] as [string, unknown, string][]) {
      const { status, body } = await post(url + path, given);
      expect([path, given, status]).toEqual([path, given, 400]);
      expect(body.error.message).toContain(words);
    }
    // No model is loaded because somebody asks for it.
    expect((await post(`${url}search`, { query: 'push', rerank: '/nowhere' })).status).toBe(200);
  });

  test('may be long, of any script, or of nothing that is a word', async () => {
    const { server: { url } } = await served();
    for (const query of ['read a file '.repeat(80_000), '😀😀😀', '.*+?^${}()|[]\\', '\u0000\u001b[31m', '"'.repeat(1000), 'a\nb\tc']) {
      const { status, body } = await post(`${url}search`, { query });
      expect([query.slice(0, 20), status, body.error, body.matches?.length > 0]).toEqual([query.slice(0, 20), 200, undefined, true]);
    }
    for (const length of [2 << 20, 9 << 20]) expect((await post(`${url}search`, { query: 'x'.repeat(length) })).status).toBe(413);
  });

  test('comes from nobody but the page itself', async () => {
    const { server } = await served();
    const { url, port } = server;
    const body = JSON.stringify({ query: 'push' });
    const ask = (headers: string) => raw(server, [`POST /search HTTP/1.1\r\nContent-Length: ${body.length}\r\nConnection: close\r\n${headers}\r\n\r\n${body}`]);
    expect(await ask(`Host: evil.example\r\nContent-Type: application/json`)).toMatch(/^HTTP\/1\.1 403/);
    // What a form of another site can send without being asked.
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data']) {
      expect(await ask(`Host: 127.0.0.1:${port}\r\nContent-Type: ${type}`)).toMatch(/^HTTP\/1\.1 415/);
    }
    expect(await ask(`Host: 127.0.0.1:${port}\r\nContent-Type: application/json`)).toMatch(/^HTTP\/1\.1 200/);
    const preflight = await fetch(`${url}search`, { method: 'OPTIONS', headers: { Origin: 'http://evil.example', 'Access-Control-Request-Method': 'POST' } });
    expect([preflight.status, preflight.headers.get('access-control-allow-origin')]).toEqual([405, null]);
    for (const path of ['', 'page.js', 'highlight.js', 'page.css', 'icon.svg']) {
      const { status, headers } = await fetch(url + path);
      expect([status, headers.get('content-security-policy')]).toEqual([200, expect.stringContaining("default-src 'none'")]);
    }
    expect((await fetch(`${url}search`)).status).toBe(405);
    expect((await fetch(`${url}../package.json`)).status).toBe(404);
  });

  test('needs the key, where there is one', async () => {
    const { server: { url } } = await served({ apiKey: 'sk-test' });
    expect((await post(`${url}search`, { query: 'push' })).status).toBe(401);
    expect((await post(`${url}search`, { query: 'push' }, { Authorization: 'Bearer sk-test' })).status).toBe(200);
  });

  test('is given up when nobody waits for it, and ends with the server', async () => {
    const { index, server } = await served();
    const stop = new AbortController();
    const asking = fetch(`${server.url}duplicates`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{}', signal: stop.signal });
    stop.abort();
    await expect(asking).rejects.toThrow();
    expect((await post(`${server.url}search`, { query: 'push' })).status).toBe(200);
    // A page that was asked for before is there when the index is closed, and closed with it.
    const another = index.serve();
    await index.close();
    await expect(fetch((await another).url)).rejects.toThrow();
    await expect(fetch(server.url)).rejects.toThrow();
  });
});

describe('the index behind the page', () => {
  test('follows the directory, and is made again where it is gone', async () => {
    const reports: number[] = [];
    const { directory, server: { url } } = await served({ onUpdate: ({ changed }) => void reports.push(changed) });
    const names = async (query: string) => {
      const { body } = await post(`${url}search`, { query });
      return (body.matches ?? []).map(({ name }: any) => name) as string[];
    };
    await vi.waitFor(() => expect(reports).toHaveLength(1), 20_000);
    writeFileSync(join(directory, 'src/new.js'), '/** Sorts all users by age. */\nfunction sortUsers() {\n  return users.sort();\n}\n');
    await vi.waitFor(async () => expect(await names('sort users by age')).toContain('sortUsers'), { timeout: 20_000, interval: 100 });
    rmSync(join(directory, '.embedcore'), { recursive: true, force: true });
    const gone = await post(`${url}search`, { query: 'sort users by age' });
    expect([gone.status, gone.body.error.code]).toEqual([503, 'NOT_INITIALIZED']);
    await vi.waitFor(async () => expect(await names('sort users by age')).toContain('sortUsers'), { timeout: 20_000, interval: 100 });
  });

  test('says what keeps it from following, and goes on by itself', async () => {
    const directory = directoryOf(SOURCES);
    const path = join(directory, 'other.sqlite');
    writeFileSync(path, 'no index at all '.repeat(500));
    const index = new CodeIndex(directory, { path });
    onTestFinished(() => index.close());
    const errors: string[] = [];
    const { url } = await index.serve({ onError: ({ code }) => void errors.push(code) });
    await vi.waitFor(() => expect(errors).toEqual(['CACHE_STORAGE_FAILED']), 20_000);
    expect(await (await fetch(`${url}health`)).json()).toMatchObject({ state: 'failed', problem: expect.stringContaining('other.sqlite') });
    rmSync(path);
    await vi.waitFor(async () => expect((await post(`${url}search`, { query: 'push' })).status).toBe(200), { timeout: 30_000, interval: 200 });
  });

  test('options of a page are those of a page', async () => {
    const { index, server } = await served();
    for (const [options, option] of [[{ port: 70_000 }, 'port'], [{ port: server.port }, 'port'], [{ host: '' }, 'host'], [{ apiKey: '' }, 'apiKey'], [{ onUpdate: 7 }, 'onUpdate'], [{ prot: 1 }, 'prot']] as const) {
      expect(await failure(() => index.serve(options as never))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining(option) });
    }
  });
});

describe('the command', () => {
  test('serves until Ctrl-C, on another port where its own is taken', async () => {
    const directory = directoryOf(SOURCES);
    const taken = createServer().listen(4041, '127.0.0.1');
    taken.on('error', () => {});
    onTestFinished(() => void taken.close());
    const child = spawn(process.execPath, [join(root, 'cli', 'embedcore.js'), 'search', '--serve', directory], { stdio: 'pipe' });
    onTestFinished(() => void child.kill('SIGKILL'));
    let said = '';
    child.stdout.on('data', (part) => (said += part));
    child.stderr.on('data', (part) => (said += part));
    const url = await vi.waitFor(() => {
      const found = /is searched at (\S+)/.exec(said)?.[1];
      if (!found) throw new Error(said);
      return found;
    }, 30_000);
    expect(new URL(url).port).not.toBe('4041');
    await vi.waitFor(async () => expect((await post(`${url}search`, { query: 'put an element on top' })).body.matches[0].name).toMatch(/Stack|push/), { timeout: 30_000, interval: 100 });
    child.kill('SIGINT');
    expect((await once(child, 'exit'))[0]).toBe(0);
  });

  test('says which options do not go together', async () => {
    for (const [args, words] of [
      [['search', '--serve', '--limit', '3'], '--limit does not go with --serve'],
      [['search', 'words', '--port', '3'], '--port belongs to --serve'],
      [['search', '--serve', 'no such directory'], 'There is no directory no such directory'],
      [['search', '--serve', '--port', 'x'], '--port is x'],
    ] as const) {
      const child = spawn(process.execPath, [join(root, 'cli', 'embedcore.js'), ...args], { cwd: tmpdir(), stdio: 'pipe' });
      let said = '';
      child.stderr.on('data', (part) => (said += part));
      expect((await once(child, 'exit'))[0]).toBe(2);
      expect(said).toContain(words);
    }
  });
});

/** What tries to run a script, or to break out of where it is shown. */
const NASTY = ['<script>window.ran = 1</script>', '<img src=x onerror="window.ran=1">', '"><svg onload=window.ran=1>', "';window.ran=1;//"];

describe.runIf(chromium)('in a browser', () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await puppeteer.launch({ executablePath: chromium!, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
  });
  afterAll(() => browser?.close());

  /** A page that must not complain about anything but what is expected. */
  async function open(url: string, { width = 1280, height = 900, expected = /^$/ }: { width?: number; height?: number; expected?: RegExp } = {}): Promise<Page> {
    const page = await browser.newPage();
    const complaints: string[] = [];
    page.on('console', (message) => complaints.push(`${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => complaints.push(String(error)));
    page.on('request', (request) => !request.url().startsWith(url) && complaints.push(`elsewhere: ${request.url()}`));
    onTestFinished(async () => {
      await page.close();
      expect(complaints.filter((one) => !expected.test(one))).toEqual([]);
    });
    await page.setViewport({ width, height });
    await page.goto(url);
    await page.waitForFunction(() => document.querySelector<HTMLElement>('#status')!.dataset.state === 'ready');
    return page;
  }

  const names = (page: Page) => page.$$eval('article h2', (all) => all.map(({ textContent }) => textContent));
  const type = async (page: Page, query: string) => {
    await page.$eval('#query', (input, text) => {
      (input as HTMLInputElement).value = text;
      input.dispatchEvent(new Event('input'));
    }, query);
  };
  const until = (page: Page, first: string) => page.waitForFunction((name) => document.querySelector('article h2')?.textContent === name, {}, first);

  test('shows matches as they are typed, with colours and marks, by the keyboard alone', async () => {
    const { server: { url } } = await served();
    const page = await open(url);
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('query');
    await page.keyboard.type('read the lines of a file');
    await until(page, 'readLines');
    expect(await page.$eval('#said', ({ textContent }) => textContent)).toMatch(/^\d+ matches, in \d+ ms$/);
    const pieces = (kind: string) => page.$$eval(`article:first-of-type pre .${kind}`, (all) => all.map(({ textContent }) => textContent));
    expect(await pieces('comment')).toContain('// all of it');
    expect(await pieces('keyword')).toEqual(expect.arrayContaining(['export', 'function', 'const', 'return']));
    expect(await pieces('string')).toContain("'utf8'");
    expect(await page.$$eval('article h2 mark', (all) => all.map(({ textContent }) => textContent?.toLowerCase()))).toContain('lines');
    // Down into the matches, up again, to the query with a slash, and what is similar with a letter.
    const focused = () => page.evaluate(() => document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.id);
    await page.keyboard.press('ArrowDown');
    const first = await focused();
    expect(first).toMatch(/^function readLines in src\/(read|again)\.js:2$/);
    await page.keyboard.press('ArrowDown');
    expect(await focused()).not.toBe(first);
    await page.keyboard.press('ArrowUp');
    expect(await focused()).toBe(first);
    await page.keyboard.press('s');
    await page.waitForFunction(() => /similar to readLines/.test(document.querySelector('#said')!.textContent!));
    expect((await names(page))[0]).toBe('readLines');
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => !/similar/.test(document.querySelector('#said')!.textContent!));
    expect(await focused()).toBe('query');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('/');
    expect(await focused()).toBe('query');
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => document.querySelectorAll('article').length === 0);
    // What is asked for is in the address.
    await page.keyboard.type('push');
    await page.waitForSelector('article');
    expect(page.url()).toContain('#q=push');
    await page.reload();
    await page.waitForSelector('article');
    expect(await page.$eval('#query', (input) => (input as HTMLInputElement).value)).toBe('push');
  });

  test('filters by path, language and kind, and tells near-duplicates', async () => {
    const { server: { url } } = await served();
    const page = await open(url);
    await type(page, 'stack');
    await page.waitForSelector('article');
    await page.click('#filters summary');
    await page.click('#languages [data-value=python]');
    await page.waitForFunction(() => document.querySelectorAll('article').length === 2);
    expect((await names(page)).sort()).toEqual(['Stack', 'Stack.push']);
    await page.click('#kinds [data-value=method]');
    await page.waitForFunction(() => document.querySelectorAll('article').length === 1);
    expect(await page.$eval('#filtered', ({ textContent }) => textContent)).toBe('(2)');
    await page.click('#kinds [data-value=method]');
    await page.click('#languages [data-value=python]');
    await page.type('#paths', 'test/');
    await page.waitForFunction(() => [...document.querySelectorAll('.place')].every(({ textContent }) => textContent!.startsWith('test/')));
    await page.$eval('#paths', (input) => {
      (input as HTMLInputElement).value = '';
      input.dispatchEvent(new Event('input'));
    });
    await page.click('#duplicates');
    await page.waitForSelector('.group');
    expect(await page.$eval('.group h2', ({ textContent }) => textContent)).toBe('2 declarations alike, 5 lines to spare');
    expect(await page.$eval('#duplicates', (button) => button.getAttribute('aria-pressed'))).toBe('true');
  });

  test('only the latest question is answered', async () => {
    const { server: { url } } = await served();
    const page = await open(url);
    // Answers come in the opposite order of the questions.
    await page.evaluate(() => {
      const fetched = window.fetch;
      let waits = 400;
      window.fetch = async (...given) => {
        const [, { body } = {}] = given as [string, RequestInit?];
        const answer = await fetched(given[0], { ...given[1], signal: null });
        await new Promise((resolve) => setTimeout(resolve, /"stack"/.test(String(body)) ? 0 : (waits -= 20)));
        return answer;
      };
    });
    for (const query of ['r', 're', 'read', 'read lines', 'stack']) await type(page, query);
    await until(page, 'Stack');
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect((await names(page))[0]).toBe('Stack');
  });

  test('shows what others have named as text', async () => {
    const files: Record<string, string> = { 'src/a.js': `// ${NASTY.join(' ')}\nfunction nasty() {\n  return '${NASTY[0]}';\n}\n` };
    files[`odd ${NASTY[1]!.replaceAll('/', '')}\n"quoted" 😀.js`] = '/** Nasty 😀 file. */\nfunction oddlyNamed() {}\n';
    const { server: { url } } = await served({}, files);
    const page = await open(url);
    for (const query of ['nasty', ...NASTY, '😀', 'x'.repeat(1 << 20)]) {
      await type(page, query);
      await page.waitForSelector('article');
      expect(await page.$eval('#problem', (element) => (element as HTMLElement).hidden)).toBe(true);
    }
    await type(page, 'oddly named file');
    await until(page, 'oddlyNamed');
    expect(await page.$eval('.place', ({ textContent }) => textContent)).toContain('\u240a"quoted" 😀.js:2');
    await page.focus('article');
    await page.keyboard.press('s');
    await page.waitForFunction(() => /similar/.test(document.querySelector('#said')!.textContent!));
    expect(await page.evaluate(() => ['ran' in window, document.querySelectorAll('main script, main img, main svg').length])).toEqual([false, 0]);
  });

  test('follows files that change, and says when the server is gone', async () => {
    const { directory, server } = await served();
    const page = await open(server.url, { expected: /ERR_CONNECTION|ERR_INCOMPLETE|Failed to load/ });
    await type(page, 'multiply two matrices');
    await page.waitForSelector('article');
    writeFileSync(join(directory, 'src/matrix.js'), '/** Multiplies two matrices. */\nfunction multiply(a, b) {\n  return a.times(b);\n}\n');
    await until(page, 'multiply');
    rmSync(join(directory, 'src/matrix.js'));
    await page.waitForFunction(() => document.querySelector('article h2')?.textContent !== 'multiply');
    await server.close();
    await page.waitForFunction(() => document.querySelector<HTMLElement>('#status')!.dataset.state === 'lost');
    await type(page, 'push');
    await page.waitForFunction(() => /cannot be reached/.test(document.querySelector('#problem')!.textContent!));
  });

  test('fits a phone, and everything has a name', async () => {
    const { server: { url } } = await served();
    const page = await open(url, { width: 360, height: 740 });
    await type(page, 'read lines');
    await page.waitForSelector('article');
    await page.click('#filters summary');
    expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
    const { children = [] } = (await page.accessibility.snapshot({ interestingOnly: true }))!;
    const all: { role: string; name?: string; children?: any[] }[] = [];
    const collect = (nodes: any[]) => nodes.forEach((node) => (all.push(node), collect(node.children ?? [])));
    collect(children);
    const controls = all.filter(({ role }) => ['button', 'textbox', 'searchbox', 'article', 'combobox'].includes(role));
    expect(controls.length).toBeGreaterThan(10);
    expect(controls.filter(({ name }) => !name)).toEqual([]);
    // A button is large enough for a finger.
    for (const height of await page.$$eval('article button:not([hidden])', (buttons) => buttons.map((button) => button.getBoundingClientRect().height))) expect(height).toBeGreaterThanOrEqual(34);
    // Dark when wished.
    const ground = () => page.$eval('body', (body) => getComputedStyle(body).backgroundColor.match(/\d+/g)!.map(Number).reduce((sum, part) => sum + part, 0));
    const before = await ground();
    await page.click('#theme');
    expect(await ground()).not.toBe(before);
  });
});
