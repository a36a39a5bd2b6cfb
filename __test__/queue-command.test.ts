// The commands around a queue, as somebody types them.
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, onTestFinished, test } from 'vitest';

import { freePort, redis } from './redis';
import { root } from './support';

const command = join(root, 'cli', 'embedcore.js');

/** What a command says, and how it ends. */
async function embedcore(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const ended: { stdout: string; stderr: string; code?: number } = await promisify(execFile)(process.execPath, [command, ...args]).catch((error: { stdout: string; stderr: string; code: number }) => error);
  const { stdout, stderr, code = 0 } = ended;
  return { code, out: stdout, err: stderr };
}

function folder(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-queue-command-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

test('a worker embeds what a producer reads, as the producer itself would, and ends in order', async (context) => {
  const server = await redis(context);
  const worker = spawn(process.execPath, [command, 'worker', '--queue-name', 'mine'], { env: { ...process.env, EMBEDCORE_QUEUE: server.url }, stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, err] = ['', ''];
  worker.stdout.on('data', (data: Buffer) => (out += data.toString()));
  worker.stderr.on('data', (data: Buffer) => (err += data.toString()));
  const ended = once(worker, 'exit');
  onTestFinished(() => void worker.kill('SIGKILL'));
  await expect.poll(() => out).toContain(`builtin works on the queue mine at 127.0.0.1:${server.port}, 2 chunks at a time`);
  const directory = folder();
  const [texts, annotations, vectors] = ['texts.jsonl', 'annotations.jsonl', 'vectors.npy'].map((name) => join(directory, name)) as [string, string, string];
  writeFileSync(texts, '"a text"\n{"id":7,"text":"another one"}\n"a text"\n');
  writeFileSync(annotations, '{"nodeId":"a","signature":"f()","summary":"does"}\n{"nodeId":"b","signature":"g()","summary":"does not"}\n');
  const queue = ['--queue', server.url, '--queue-name', 'mine'];
  const remote = await embedcore('embed', texts, ...queue);
  expect(remote).toEqual({ ...(await embedcore('embed', texts)), err: '' });
  const same = (text: string) => text.trim().split('\n').map((line) => ({ ...(JSON.parse(line) as object), processingTime: 0, fromCache: false }));
  expect(same((await embedcore('embed', annotations, ...queue)).out)).toEqual(same((await embedcore('embed', annotations)).out));
  expect((await embedcore('embed', annotations, '--out', vectors, ...queue)).code).toBe(0);
  expect(readFileSync(vectors).subarray(0, 128).toString('latin1')).toContain("'shape': (2, 256)");
  writeFileSync(texts, '"a"\n""\n');
  expect(await embedcore('embed', texts, ...queue)).toMatchObject({ code: 1, err: expect.stringContaining('Line 2 of') });
  worker.kill('SIGTERM');
  expect(await ended).toEqual([0, null]);
  expect(err).toContain('Finishing what runs …\n');
  expect(err).toMatch(/\d chunks, \d+ texts, \d+ of them computed here\.\n$/);
});

test('what cannot be is said in a line', async () => {
  const port = await freePort();
  const texts = join(folder(), 'texts.jsonl');
  writeFileSync(texts, '"a"\n');
  const url = `redis://127.0.0.1:${port}`;
  for (const [args, said, code] of [
    [['worker'], 'Where is the queue? --queue redis://host:6379', 2],
    [['worker', '--queue', 'nowhere'], '--queue is no URL', 2],
    [['worker', '--queue', url], `127.0.0.1:${port} could not be reached`, 1],
    [['worker', 'x', '--queue', url], 'worker takes no arguments', 2],
    [['embed', texts, '--queue', url], `127.0.0.1:${port} could not be reached`, 1],
    [['embed', texts, '--queue', url, '--model', 'x'], '--model belongs to the workers', 2],
    [['embed', texts, '--fingerprint', 'x'], '--fingerprint belongs to --queue', 2],
    [['dashboard', '--shared', url], '--shared belongs to --queue', 2],
  ] as [string[], string, number][]) {
    const result = await embedcore(...args);
    expect(result.err, args.join(' ')).toContain(said);
    expect([result.code, result.out]).toEqual([code, '']);
  }
});
