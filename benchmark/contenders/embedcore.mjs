// Ours, as a user would call it: every default but the settings, one call with all texts.

import { createRequire } from 'node:module';

import { PlainError } from '../lib.mjs';

export async function open({ modelDir, settings }) {
  const generator = await openGenerator({ modelPath: modelDir, ...settings });
  return {
    embed: async (texts) => [(await generator.embed(texts)).data],
    close: () => generator.cleanup(),
  };
}

/** A ready `OptimizedEmbeddingGenerator` of the package in this repository: without a cache unless `config` says so. */
export async function openGenerator(config) {
  try {
    const { OptimizedEmbeddingGenerator } = createRequire(import.meta.url)('../..');
    const generator = new OptimizedEmbeddingGenerator({ cache: false, ...config });
    await generator.initialize();
    return generator;
  } catch (error) {
    throw new PlainError(`embedcore in the repository root cannot be used, is it built? ${error.message.split('\n')[0]}`);
  }
}
