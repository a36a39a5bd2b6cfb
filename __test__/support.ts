import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { OptimizedEmbeddingGenerator, type EmbeddingError, type ExecutionProvider, type GeneratorOptions } from 'embedcore';
import { expect, onTestFinished } from 'vitest';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** The platform that this process runs on, among those that are built here; see `scripts/platforms.mjs`. */
export const host = readdirSync(join(root, 'npm')).find(
  (name) => name.startsWith(`${process.platform}-${process.arch}`) && existsSync(join(root, 'npm', name, `embedcore.${name}.node`)),
)!;

/** The directory of a tiny model from `fixtures/make.py`. */
export const model = (name: string) => join(root, 'fixtures', 'models', name);

/** How often tests of rare moments try: `EMBEDCORE_THOROUGH=1`, as in CI, is five times as often. */
export const thorough = process.env.EMBEDCORE_THOROUGH === '1';

/** Real models and texts, where they lie beside the clone. */
const shared = join(root, '..', 'shared');
export const miniLm = join(shared, 'models', 'minilm');
export const corpus = join(shared, 'corpus');
export const hasShared = existsSync(join(miniLm, 'onnx', 'model.onnx')) && existsSync(corpus);

/** What models are computed by where a test leaves that open: `EMBEDCORE_PROVIDERS=webgpu`, say. Default: the CPU. */
const providers = process.env.EMBEDCORE_PROVIDERS?.split(',') as ExecutionProvider[] | undefined;

/** Whether loading would measure which engine is faster: on a busy machine tests must not depend on that. */
function measures({ remote, modelPath = 'builtin', engine, precision, mixPrecision }: GeneratorOptions): boolean {
  return !remote && !/^(builtin|ollama:|openai:|tei:)/.test(String(modelPath)) && [engine, precision, mixPrecision].every((each) => each === undefined);
}

/** A generator with its model loaded, cleaned up when the test ends. */
export async function ready(options: GeneratorOptions): Promise<OptimizedEmbeddingGenerator> {
  const generator = new OptimizedEmbeddingGenerator({ executionProviders: providers, ...(measures(options) && { engine: 'onnxruntime' }), ...options });
  onTestFinished(() => generator.cleanup());
  await generator.initialize();
  return generator;
}

/** A copy of a fixture that a test may damage. */
export function copyOf(name: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  cpSync(model(name), directory, { recursive: true });
  return directory;
}

/** The error that `work` throws or rejects with. */
export async function failure(work: () => unknown): Promise<EmbeddingError> {
  try {
    await work();
  } catch (error) {
    return error as EmbeddingError;
  }
  return expect.fail('there was no error');
}

/** Runs a program in a process of its own. */
export function runProgram(script: string, args: string[], env: NodeJS.ProcessEnv = {}): Promise<{ code: number | string; out: string; err: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [script, ...args], { env: { ...process.env, ...env }, timeout: 120_000 }, (error, out, err) => {
      resolve({ code: error ? (error.code ?? error.signal ?? 'unknown') : 0, out, err });
    });
  });
}

/** The largest difference of two vectors' values. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i]! - b[i]!));
  return largest;
}

/** The cosine of the angle between two vectors. */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const dot = (x: ArrayLike<number>, y: ArrayLike<number>) => Array.from(x).reduce((sum, value, i) => sum + value * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** Little-endian float32 values. */
export function floats(path: string): Float32Array {
  const bytes = readFileSync(path);
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

/** `count` different texts of 1 to 60 words. */
export function texts(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `text ${i} ${'reads a file and parses it '.repeat(i % 10)}`);
}

/** A graph with its larger weights taken out, and those weights, as they lie in a file `name` beside it. */
export function withExternalData(graph: Buffer, name: string): { graph: Buffer; data: Buffer } {
  const weights: Buffer[] = [];
  let offset = 0;
  const varint = (value: number) => {
    const bytes = [];
    for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
    return Buffer.from([...bytes, value]);
  };
  const field = (number: number, bytes: Buffer) => Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);
  const entry = (key: string, value: string | number) => field(13, Buffer.concat([field(1, Buffer.from(key)), field(2, Buffer.from(String(value)))]));
  /** Rewrites the fields of a message; numbers are those of onnx.proto. */
  const rewrite = (message: Buffer, change: (number: number, bytes: Buffer) => Buffer | undefined): Buffer => {
    const parts: Buffer[] = [];
    let at = 0;
    const read = () => {
      let value = 0;
      for (let shift = 1; ; shift *= 128) {
        const byte = message[at++]!;
        value += (byte % 128) * shift;
        if (byte < 128) return value;
      }
    };
    while (at < message.length) {
      const start = at;
      const tag = read();
      if (tag % 8 === 2) {
        const length = read();
        const changed = change(tag >> 3, message.subarray(at, at + length));
        at += length;
        parts.push(changed ?? message.subarray(start, at));
        continue;
      }
      if (tag % 8 === 0) read();
      else at += tag % 8 === 1 ? 8 : 4;
      parts.push(message.subarray(start, at));
    }
    return Buffer.concat(parts);
  };
  const tensor = (bytes: Buffer) =>
    rewrite(bytes, (number, raw) => {
      if (number !== 9 || raw.length < 1024) return undefined;
      const location = [entry('location', name), entry('offset', offset), entry('length', raw.length), Buffer.from([14 * 8, 1])];
      weights.push(raw);
      offset += raw.length;
      return Buffer.concat(location);
    });
  const inGraph = (bytes: Buffer) => rewrite(bytes, (number, inner) => (number === 5 ? field(5, tensor(inner)) : undefined));
  const changed = rewrite(graph, (number, inner) => (number === 7 ? field(7, inGraph(inner)) : undefined));
  return { graph: changed, data: Buffer.concat(weights) };
}
