import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { OptimizedEmbeddingGenerator, type EmbeddingError, type GeneratorOptions } from 'embedcore';
import { expect, onTestFinished } from 'vitest';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** The directory of a tiny model from `fixtures/make.py`. */
export const model = (name: string) => join(root, 'fixtures', 'models', name);

/** Real models and texts, where they lie beside the clone. */
const shared = join(root, '..', 'shared');
export const miniLm = join(shared, 'models', 'minilm');
export const corpus = join(shared, 'corpus');
export const hasShared = existsSync(join(miniLm, 'onnx', 'model.onnx')) && existsSync(corpus);

/** A generator with its model loaded, cleaned up when the test ends. */
export async function ready(options: GeneratorOptions): Promise<OptimizedEmbeddingGenerator> {
  const generator = new OptimizedEmbeddingGenerator(options);
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

/** The largest difference of two vectors' values. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i]! - b[i]!));
  return largest;
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
