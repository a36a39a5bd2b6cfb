// A process that ends while the hub has gone silent: soon, and without leaving behind what a later one would trust.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { startHub, type Fault } from './hub-server';
import { root } from './support';

const ID = 'acme/tiny-bert';
const program = join(root, '__test__', 'programs', 'hub.cjs');
const command = join(root, 'cli', 'embedcore.js');

/** Silent from the start, or in the middle of the weights. */
const SILENCES: Record<string, (silent: () => void) => Fault> = {
  'before it says anything': (silent) => () => (silent(), true),
  'in the middle of a file': (silent) => (asked, response, file) => {
    if (!asked.path.includes('Signature')) return false;
    response.writeHead(200, { 'Content-Length': file!.bytes.length });
    response.write(file!.bytes.subarray(0, 7000), () => setTimeout(silent, 200));
    return true;
  },
};

/** How such a process ends: what it runs, the signal that it gets, and its code; the time that it may take. */
const ENDS: Record<string, { args(cacheDir: string): string[]; signal?: NodeJS.Signals; code: number | null }> = {
  'process.exit': { args: (cacheDir) => ['-e', `process.argv.splice(1, 0, ${JSON.stringify(program)}); require(${JSON.stringify(program)}); process.stdin.once('data', () => process.exit(3));`, ID, cacheDir], code: 3 },
  'SIGTERM': { args: (cacheDir) => [program, ID, cacheDir], signal: 'SIGTERM', code: null },
  'SIGTERM of a server': { args: () => [command, 'serve', '--port', '0', '--model', ID, '--drain-seconds', '1'], signal: 'SIGTERM', code: 0 },
};

const cases = Object.keys(SILENCES).flatMap((silence) => Object.keys(ENDS).map((end) => ({ silence, end })));
test.skipIf(process.platform === 'win32').each(cases)('$end while the hub is silent $silence', async ({ silence, end }) => {
  const hub = await startHub();
  hub.add(ID, 'bert-mean');
  const cacheDir = mkdtempSync(join(tmpdir(), 'embedcore-hub-'));
  onTestFinished(() => rmSync(cacheDir, { recursive: true, force: true }));
  const silent = new Promise<void>((resolve) => (hub.fault = SILENCES[silence]!(resolve)));
  const { args, signal, code } = ENDS[end]!;
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^HF_|^HUGGING|_proxy$/i.test(name)));
  const env = { ...clean, HF_ENDPOINT: hub.url, HF_HUB_CACHE: cacheDir, HF_TOKEN_PATH: join(cacheDir, 'none') };
  const start = (args: string[]) => {
    const child = spawn(process.execPath, args, { env, stdio: ['pipe', 'pipe', 'ignore'] });
    let out = '';
    child.stdout.on('data', (data) => (out += String(data)));
    return { child, ended: new Promise<{ code: number | null; out: string }>((resolve) => child.on('close', (code) => resolve({ code, out: out.trim() }))) };
  };
  const { child, ended } = start(args(cacheDir));
  await silent;
  const began = performance.now();
  if (signal) child.kill(signal);
  else child.stdin.write('end\n');
  expect((await ended).code).toBe(code);
  // By itself a silent download ends after ten seconds, and is tried again.
  expect(performance.now() - began).toBeLessThan(6000);
  // The next one has the whole model, and its vectors.
  hub.fault = undefined;
  expect(await start([program, ID, cacheDir]).ended).toEqual({ code: 0, out: '32' });
});
