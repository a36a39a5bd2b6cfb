import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { type Annotation, type EmbeddingResult } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { distance, ready, root } from './support';

const cli = join(root, 'cli', 'embedcore.js');

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-embed-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function run(args: string[], input: string | Buffer = '') {
  const { status, stdout, stderr } = spawnSync(process.execPath, [cli, 'embed', ...args], { input, maxBuffer: 2 ** 28 });
  return { status, stdout, stderr: stderr.toString() };
}

const annotations: Annotation[] = Array.from({ length: 700 }, (_, i) => ({
  nodeId: `n${i}`, signature: `function f${i}(path)`, summary: `Reads file ${i}.`, ...(i % 2 === 0 && { sourceSnippet: 'return 1;' }),
}));
const jsonLines = (values: unknown[]) => values.map((value) => `${JSON.stringify(value)}\n`).join('');
const parsed = (stdout: Buffer) => stdout.toString().split('\n').filter(Boolean).map((line) => JSON.parse(line) as EmbeddingResult & { index: number; id?: unknown });

/** An array in NumPy's format, version 1.0, read as its specification says. */
function numpy(bytes: Buffer): { shape: number[]; data: Float32Array } {
  expect(bytes.subarray(0, 8).toString('latin1')).toBe('\x93NUMPY\x01\x00');
  const length = bytes.readUInt16LE(8);
  expect((10 + length) % 64).toBe(0);
  const header = bytes.subarray(10, 10 + length).toString('latin1');
  expect(header.endsWith('\n')).toBe(true);
  const [, rows, columns] = /^\{'descr': '<f4', 'fortran_order': False, 'shape': \((\d+), (\d+)\), \} *\n$/.exec(header)!;
  const body = bytes.subarray(10 + length);
  const data = Float32Array.from({ length: body.length / 4 }, (_, i) => body.readFloatLE(4 * i));
  expect(data.length).toBe(Number(rows) * Number(columns));
  return { shape: [Number(rows), Number(columns)], data };
}

describe('vectors of lines', () => {
  test('annotations: the results of a generator, in order', async () => {
    const { status, stdout, stderr } = run([], jsonLines(annotations));
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const expected = await (await ready({})).generateEmbeddings(annotations);
    const results = parsed(stdout);
    expect(results.map(({ nodeId, inputText }) => ({ nodeId, inputText }))).toEqual(expected.map(({ nodeId, inputText }) => ({ nodeId, inputText })));
    for (const [i, { embedding }] of results.entries()) expect(distance(embedding, expected[i]!.embedding)).toBeLessThanOrEqual(1e-6);
  });

  test('texts: strings, or objects with a text and a name; marks, blank lines and line ends do not matter', async () => {
    const input = '\ufeff"read a file"\r\n\r\n  \n{"id":7,"text":"open a socket"}\r\n{"nodeId":"x","text":"größe 🙂"}';
    const { status, stdout } = run(['-'], input);
    expect(status).toBe(0);
    const results = parsed(stdout);
    expect(results.map(({ index, id, nodeId }) => ({ index, id, nodeId }))).toEqual([
      { index: 0, id: undefined, nodeId: undefined }, { index: 1, id: 7, nodeId: undefined }, { index: 2, id: undefined, nodeId: 'x' },
    ]);
    const expected = await (await ready({})).embed(['read a file', 'open a socket', 'größe 🙂']);
    for (const [i, { embedding }] of results.entries()) expect(distance(embedding, expected.row(i))).toBeLessThanOrEqual(1e-6);
  });

  test('an array for NumPy, in a file and in a pipe', async () => {
    const directory = scratch();
    const [input, out] = [join(directory, 'in.jsonl'), join(directory, 'out.npy')];
    writeFileSync(input, jsonLines(annotations));
    const { status, stderr } = run([input, '--out', out]);
    expect(status).toBe(0);
    expect(stderr).toMatch(/^700 vectors in .* s: .*out\.npy\n$/);
    const array = numpy(readFileSync(out));
    expect(array.shape).toEqual([700, 256]);
    const expected = await (await ready({})).generateEmbeddings(annotations);
    expect(distance(array.data, expected.flatMap(({ embedding }) => embedding))).toBeLessThanOrEqual(1e-6);
    const piped = run([input, '--format', 'npy']);
    expect(piped.status).toBe(0);
    expect(distance(numpy(piped.stdout).data, array.data)).toBeLessThanOrEqual(1e-6);
    const python = spawnSync('python3', ['-c', 'import numpy, sys; a = numpy.load(sys.argv[1]); print(a.shape, a.dtype, float(a[1, 2]))', out], { encoding: 'utf8' });
    if (python.status === 0) expect(python.stdout).toBe(`(700, 256) float32 ${array.data[256 + 2]}\n`);
  });

  test('nothing gives nothing', () => {
    expect(run([], '\n')).toEqual({ status: 0, stdout: Buffer.alloc(0), stderr: '' });
    expect(numpy(run(['--format', 'npy']).stdout).shape).toEqual([0, 256]);
  });

  test('a cache in a file: what is known is not computed again', () => {
    const directory = scratch();
    const args = ['--cache', join(directory, 'cache.sqlite'), '--out', join(directory, 'out.jsonl')];
    expect(run(args, jsonLines(annotations)).stderr).not.toContain('cache');
    expect(run(args, jsonLines(annotations)).stderr).toContain('700 from the cache');
  });

  test('lines are read as fast as vectors are taken, and all are answered', async () => {
    const count = 20_000;
    const child = spawn(process.execPath, [cli, 'embed'], { stdio: ['pipe', 'pipe', 'inherit'] });
    let taken = 0;
    for (let i = 0; i < count; i++) child.stdin.write(`${JSON.stringify(`text number ${i} of a list that is long`)}\n`, () => taken++);
    child.stdin.end();
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(taken).toBeLessThan(count);
    let lines = 0;
    for await (const chunk of child.stdout) for (const byte of chunk as Buffer) if (byte === 10) lines++;
    expect(lines).toBe(count);
  });
});

describe('a file is whole or not there', () => {
  test.each(['jsonl', 'npy'])('what was there stays when a line is wrong (%s)', (format) => {
    const directory = scratch();
    const out = join(directory, 'out');
    writeFileSync(out, 'before');
    const { status, stdout } = run(['--out', out, '--format', format], `${jsonLines(annotations)}nonsense\n`);
    expect(status).toBe(1);
    expect(stdout).toHaveLength(0);
    expect(readFileSync(out, 'utf8')).toBe('before');
    expect(readdirSync(directory)).toEqual(['out']);
  });

  test.skipIf(process.platform === 'win32')('through a link, the file that it leads to', () => {
    const directory = scratch();
    writeFileSync(join(directory, 'real'), 'before');
    symlinkSync('real', join(directory, 'link'));
    expect(run(['--out', join(directory, 'link')], '"a"').status).toBe(0);
    expect(lstatSync(join(directory, 'link')).isSymbolicLink()).toBe(true);
    expect(parsed(readFileSync(join(directory, 'real')))).toHaveLength(1);
    expect(readdirSync(directory).sort()).toEqual(['link', 'real']);
  });

  test.skipIf(process.platform === 'win32')('when it is stopped', async () => {
    const directory = scratch();
    const out = join(directory, 'out.jsonl');
    const child = spawn(process.execPath, [cli, 'embed', '--out', out], { stdio: ['pipe', 'ignore', 'pipe'] });
    child.stdin.on('error', () => {});
    child.stdin.write(jsonLines(annotations));
    // Its temporary file is there as soon as vectors are made.
    await expect.poll(() => readdirSync(directory).length).toBe(1);
    child.kill('SIGTERM');
    expect((await once(child, 'exit'))[0]).toBe(143);
    expect(readdirSync(directory)).toEqual([]);
  });
});

describe('errors are one line that says where, and a code that is not 0', () => {
  test.each([
    ['"a"\n\nnonsense', /^embedcore: Line 3 of standard input: it is not JSON \(.*\); pass a string or an annotation a line\n$/],
    ['"a"\n{"nodeId":"x","signature":"s"}', /^embedcore: Line 2 of standard input: it is an annotation, but line 1 is a text: .*\n$/],
    ['{"nodeId":"x"}\n"a"', /^embedcore: Line 2 of standard input: it is a text, but line 1 is an annotation: .*\n$/],
    ['"a"\n"b"\n\n""\n"c"', /^embedcore: Line 4 of standard input: its text is empty: leave it out\n$/],
    ['[1]', /^embedcore: Line 1 of standard input: it is an array, .*\n$/],
    ['null', /^embedcore: Line 1 of standard input: it is null, .*\n$/],
    ['{"signature":"x"}', /^embedcore: Line 1 of standard input: its `nodeId` is missing; .*\n$/],
    ['{"nodeId":"a","signature":3}', /^embedcore: Line 1 of standard input: its `signature` is not a string; .*\n$/],
    ['{"text":3}', /^embedcore: Line 1 of standard input: its `text` is not a string\n$/],
    [Buffer.from([0x22, 0x61, 0x22, 0x0a, 0x22, 0xff, 0x22]), /^embedcore: Line 2 of standard input: it is not UTF-8\n$/],
  ])('%j', (input, message) => {
    const { status, stderr } = run([], input);
    expect(stderr).toMatch(message);
    expect(status).toBe(1);
  });

  test('the line after many', () => {
    const { stderr } = run([], `${jsonLines(annotations)}${JSON.stringify({ ...annotations[0], nodeId: 3 })}\n`);
    expect(stderr).toContain('Line 701 of standard input: its `nodeId` is not a string');
  });

  test('a file is named; what cannot be read or written is', () => {
    const directory = scratch();
    const input = join(directory, 'in.jsonl');
    writeFileSync(input, 'nonsense');
    expect(run([input]).stderr).toContain(`Line 1 of ${input}: it is not JSON`);
    expect(run([join(directory, 'none')])).toMatchObject({ status: 2, stderr: expect.stringContaining(`There is no file ${join(directory, 'none')}`) });
    expect(run([directory])).toMatchObject({ status: 2, stderr: expect.stringContaining('is a directory') });
    const nowhere = join(directory, 'none', 'out');
    expect(run(['--out', nowhere], '"a"')).toMatchObject({ status: 1, stderr: `embedcore: ${nowhere} cannot be written: ENOENT: no such file or directory\n` });
    expect(run(['--out', directory], '"a"')).toMatchObject({ status: 1, stderr: `embedcore: ${directory} cannot be written: it is a directory\n` });
  });

  test.each([
    [['a', 'b'], 'Expected one file, got a b'],
    [['--format', 'csv'], '--format is csv, neither jsonl nor npy'],
    [['--out', ''], '--out is empty'],
    [['--limit', '3'], '--limit is an option of search'],
    [['--model', '/no/such/model'], '/no/such/model'],
  ])('%j', (args, message) => {
    const { status, stderr } = run(args, '"a"');
    expect(status).not.toBe(0);
    expect(stderr).toContain(message);
  });

  test.runIf(existsSync('/dev/full'))('a full disk', () => {
    const script = (redirect: string, ...args: string[]) =>
      spawnSync('sh', ['-c', `"$0" "$@" ${redirect}`, process.execPath, cli, 'embed', ...args], { input: '"a"', encoding: 'utf8' });
    for (const { status, stderr } of [script('> /dev/full'), script('> /dev/full', '--format', 'npy'), script('', '--out', '/dev/full')]) {
      expect(stderr).toMatch(/^embedcore: .* cannot be written: ENOSPC: no space left on device\n$/);
      expect(status).toBe(1);
    }
    expect(lstatSync('/dev/full').isCharacterDevice()).toBe(true);
  });

  test('a reader that goes away', async () => {
    const child = spawn(process.execPath, [cli, 'embed'], { stdio: ['pipe', 'pipe', 'pipe'] });
    child.stdin.on('error', () => {});
    for (let i = 0; i < 20; i++) child.stdin.write(jsonLines(annotations));
    child.stdin.end();
    await once(child.stdout, 'data');
    child.stdout.destroy();
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    expect((await once(child, 'close'))[0]).toBe(1);
    // Who has stopped reading needs no message.
    expect(stderr).toBe('');
  });
});
