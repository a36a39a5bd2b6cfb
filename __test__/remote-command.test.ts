// The command line with a model on a server.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { openaiEmbeddings } from './loopback/embeddings';
import { ollama, vectorOf } from './loopback/ollama';
import { loopback } from './loopback/server';
import { distance, root } from './support';

function start(args: string[], env: Record<string, string>) {
  const child = spawn(process.execPath, [join(root, 'cli', 'embedcore.js'), ...args], { env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  return child;
}

async function run(args: string[], env: Record<string, string>, input = '') {
  const child = start(args, env);
  child.stdin.end(input);
  const read = async (stream: NodeJS.ReadableStream) => {
    let text = '';
    for await (const chunk of stream) text += String(chunk);
    return text;
  };
  const [stdout, stderr] = await Promise.all([read(child.stdout), read(child.stderr)]);
  return { status: child.exitCode ?? ((await once(child, 'exit')) as [number])[0], stdout, stderr };
}

test('embed, index and search take models of servers, and name what is wrong with one', async () => {
  const server = await loopback({ apis: [ollama()] });
  const env = { OLLAMA_HOST: `127.0.0.1:${server.port}` };
  const { status, stdout } = await run(['embed', '--model', 'ollama:nomic-embed-text'], env, '"one text"\n"another"\n');
  expect(status).toBe(0);
  const vectors = stdout.trim().split('\n').map((line) => (JSON.parse(line) as { embedding: number[] }).embedding);
  expect(distance(vectors[1]!, vectorOf('another'))).toBeLessThan(1e-6);

  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, 'a.py'), 'def read_file(path):\n    """Reads a file."""\n    return open(path).read()\n');
  const index = await run(['index', directory, '--model', 'ollama:nomic-embed-text'], env);
  expect([index.status, index.stdout]).toEqual([0, expect.stringContaining('--model ollama:nomic-embed-text')]);
  const found = await run(['search', 'read a file', directory, '--json', '--model', 'ollama:nomic-embed-text'], env);
  expect(JSON.parse(found.stdout)).toMatchObject({ matches: [{ signature: expect.stringContaining('read_file') }] });

  const wrong = await run(['embed', '--model', 'ollama:nope'], env, '"text"\n');
  expect([wrong.status, wrong.stderr]).toEqual([1, expect.stringContaining("model 'nope' not found")]);
  const unknown = await run(['embed', '--model', 'cohere:embed'], env, '"text"\n');
  expect([unknown.status, unknown.stderr]).toEqual([1, expect.stringContaining("'openai:NAME'")]);
});

test('serve is a cache in front of a server, under the name that clients know, and shows its key to nobody', async () => {
  const server = await loopback({ apis: [openaiEmbeddings({ apiKey: 'sk-behind-12345' })] });
  const env = { OPENAI_BASE_URL: `${server.url}/v1`, OPENAI_API_KEY: 'sk-behind-12345' };
  const child = start(['serve', '--port', '0', '--model', 'openai:text-embedding-3-small'], env);
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  expect(String(line)).toContain('text-embedding-3-small');
  const url = /http:\/\/[\d.:]+/.exec(String(line))![0];
  const ask = async () => {
    const body = JSON.stringify({ model: 'text-embedding-3-small', input: ['a', 'b'] });
    const response = await fetch(`${url}/v1/embeddings`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    return (await response.json()) as { data: { embedding: number[] }[] };
  };
  for (let time = 0; time < 3; time++) expect(distance((await ask()).data[1]!.embedding, vectorOf('b'))).toBeLessThan(1e-5);
  // One to know the length of vectors, and one for both texts.
  expect(server.requests.length).toBe(2);
  const shown = await Promise.all(['/info', '/metrics', '/health', '/v1/models'].map(async (path) => (await fetch(`${url}${path}`)).text()));
  expect(shown.join('')).not.toContain('sk-behind');
  expect(shown[0]).toContain('text-embedding-3-small');
});
