// The Model Context Protocol server, spoken to by the official SDK's client over standard input and output.

import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { expect, onTestFinished, test } from 'vitest';

const cli = join(dirname(fileURLToPath(import.meta.url)), 'node_modules', 'embedcore', 'cli', 'embedcore.js');

const SOURCES = {
  'src/files.ts': '/** Opens a file and gives its lines. */\nexport function readLines(path: string): string[] {\n  return read(path).split("\\n");\n}\n',
  'src/Stack.java': 'class Stack {\n  /** Puts an element on top. */\n  void push(int element) { items.add(element); }\n}\n',
};

function put(directory: string, file: string, content: string): void {
  mkdirSync(dirname(join(directory, file)), { recursive: true });
  writeFileSync(join(directory, file), content);
}

async function served(...args: string[]) {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-mcp-'));
  for (const [file, content] of Object.entries(SOURCES)) put(directory, file, content);
  const client = new Client({ name: 'test', version: '1.0.0' });
  const transport = new StdioClientTransport({ command: process.execPath, args: [cli, 'mcp', directory, ...args], stderr: 'pipe' });
  let said = '';
  transport.stderr?.on('data', (chunk: Buffer) => (said += chunk.toString()));
  await client.connect(transport);
  onTestFinished(async () => {
    await client.close();
    rmSync(directory, { recursive: true, force: true });
  });
  const call = async (name: string, given: Record<string, unknown> = {}) => {
    const { content, structuredContent, isError } = await client.callTool({ name, arguments: given });
    return { text: (content as { text: string }[])[0]!.text, structured: structuredContent as { matches: object[]; state: string }, isError: isError === true };
  };
  return { client, directory, call, said: () => said };
}

test('an agent finds code, reads it, and asks about the index', async () => {
  const { client, directory, call, said } = await served();
  const { tools } = await client.listTools();
  expect(tools.map(({ name }) => name)).toEqual(['search_code', 'get_symbol', 'index_status']);
  const found = await call('search_code', { query: 'put an element on top', limit: 2 });
  expect(found.text).toMatch(/^src\/Stack\.java:3-3 {2}\(0\.\d\d\)\n {2}void push\(int element\)\n {2}Puts an element on top\.\n/);
  expect(found.structured.matches).toHaveLength(2);
  expect(found.structured.matches[0]).toMatchObject({ file: 'src/Stack.java', line: 3, kind: 'method', language: 'java', score: expect.any(Number) as number });
  expect((await call('search_code', { query: 'element', language: 'typescript', kind: ['function'], path: 'src/' })).structured.matches).toMatchObject([{ name: 'readLines' }]);
  const symbol = await call('get_symbol', { name: 'push' });
  expect(symbol.text).toBe('src/Stack.java:3-3\n  void push(int element) { items.add(element); }');
  await expect.poll(async () => (await call('index_status')).structured.state).toBe('ready');
  expect((await call('index_status')).structured).toMatchObject({ files: 2, annotations: 3, model: 'builtin', root: directory, languages: { java: 1, typescript: 1 } });
  expect(said()).toBe('');
});

test('files of the index are resources, and no others', async () => {
  const { client, directory, call } = await served();
  const { resources } = await client.listResources();
  expect(resources.map(({ name }) => name)).toEqual(['src/Stack.java', 'src/files.ts']);
  const { contents } = await client.readResource({ uri: resources[1]!.uri });
  expect(contents).toEqual([{ uri: resources[1]!.uri, mimeType: 'text/plain', text: SOURCES['src/files.ts'] }]);
  put(directory, 'secret.txt', 'secret');
  for (const path of ['secret.txt', '../../etc/passwd', 'src/../secret.txt']) {
    await expect(client.readResource({ uri: pathToFileURL(join(directory, path)).href }), path).rejects.toThrow(/is not in the index/);
  }
  // What is put in its place is not followed out of the directory.
  const outside = mkdtempSync(join(tmpdir(), 'embedcore-outside-'));
  onTestFinished(() => rmSync(outside, { recursive: true, force: true }));
  put(outside, 'key.ts', 'export const key = "of somebody else";');
  rmSync(join(directory, 'src/files.ts'));
  symlinkSync(join(outside, 'key.ts'), join(directory, 'src/files.ts'));
  await expect(client.readResource({ uri: resources[1]!.uri })).rejects.toThrow(/leads out|is not in the index/);
  expect((await call('get_symbol', { name: 'readLines' })).text).not.toContain('somebody else');
  await expect(client.readResource({ uri: 'https://example.com/a.ts' })).rejects.toThrow(/not the URI of a file/);
});

test('what changes is found without being asked for', async () => {
  const { directory, call } = await served();
  await call('search_code', { query: 'x' });
  put(directory, 'src/new.py', 'def multiply(a, b):\n    """Product of two numbers."""\n    return a * b\n');
  await expect.poll(async () => (await call('get_symbol', { name: 'multiply' })).text, { timeout: 30_000 }).toContain('def multiply(a, b):');
});

test('what is wrong is told, and the server goes on', async () => {
  const { client, call } = await served();
  for (const [tool, given, words] of [
    ['search_code', { query: '' }, 'are empty'],
    ['search_code', { query: 'x', limit: 0 }, 'limit is 0'],
    ['search_code', { query: 'x', language: 'cobol' }, 'known are bash, c'],
    ['search_code', { query: 'x', colour: 'red' }, 'no argument colour'],
    ['search_code', { query: 'x', limit: 101 }, 'limit is 101'],
    ['get_symbol', { name: 'push', limit: '5' }, 'limit is "5"'],
    ['index_status', { verbose: true }, 'no argument verbose'],
    ['search_code', {}, 'not a string'],
    ['get_symbol', { name: 7 }, 'not a string'],
  ] as [string, Record<string, unknown>, string][]) {
    const { text, isError } = await call(tool, given);
    expect([isError, text], words).toEqual([true, expect.stringContaining(words)]);
  }
  await expect(client.callTool({ name: 'nothing', arguments: {} })).rejects.toThrow(/no tool nothing/);
  expect((await call('search_code', { query: 'push' })).isError).toBe(false);
});

test('a model looks again at what was found, where one is given', async () => {
  const reranker = fileURLToPath(new URL('../../fixtures/models/cross-encoder', import.meta.url));
  const scores = (answer: { structured: { matches: object[] } }) => (answer.structured.matches as { score: number }[]).map(({ score }) => score);
  const { call } = await served('--rerank', reranker);
  const query = 'put an element on top';
  const [ranked, plain] = [await call('search_code', { query }), await call('search_code', { query, rerank: false })];
  expect(scores(ranked)).toEqual([...scores(ranked)].sort((one, other) => other - one));
  expect(scores(ranked)).not.toEqual(scores(plain));
  expect((await call('search_code', { query, rerank: true })).structured).toEqual(ranked.structured);
  const { call: bare } = await served();
  expect(await bare('search_code', { query, rerank: true })).toMatchObject({ isError: true, text: expect.stringContaining('--rerank') as string });
  expect((await bare('search_code', { query, rerank: reranker })).structured.matches).toHaveLength(3);
});
