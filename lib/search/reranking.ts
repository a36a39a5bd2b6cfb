// The second look at what a search has found: a model reads the query together with each declaration.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { CrossEncoder } from '../encoders/cross-encoder';
import { prepareText } from '../generator/generator';
import type { CodeMatch } from './options';

/** How many answers are looked at again where as many, or fewer, are wanted; else all that are. */
const CANDIDATES = 50;

/** How many answers of the search are looked at again, where `limit` are wanted. */
export const candidatesFor = (limit: number) => Math.max(limit, CANDIDATES);

/** The models of an index that were named; each is loaded when it is first needed. */
export class Rerankers {
  readonly #own = new Map<string, CrossEncoder>();

  of(given: CrossEncoder | string): CrossEncoder {
    if (typeof given !== 'string') return given;
    let encoder = this.#own.get(given);
    if (!encoder) this.#own.set(given, (encoder = new CrossEncoder({ modelPath: given })));
    return encoder;
  }

  /** Frees them; they are loaded again when they are needed again. */
  async close(): Promise<void> {
    await Promise.all([...this.#own.values()].map((encoder) => encoder.cleanup()));
  }
}

/** The best `limit` of `matches` by what a model says, with its score in place of theirs. */
export async function reranked(encoder: CrossEncoder, words: string, matches: CodeMatch[], limit: number, root: string, signal: AbortSignal): Promise<CodeMatch[]> {
  // Others may wait for it, too: the signal ends the waiting alone.
  if (!encoder.isReady()) await encoder.initialize();
  const documents = await documentsOf(root, matches);
  const ranked = await encoder.rank(words, documents, { topK: limit, activation: 'sigmoid', signal });
  return ranked.map(({ index, score }) => ({ ...matches[index]!, score }));
}

/** What a model reads of declarations: the same as is embedded of them, with their source as it is now. */
async function documentsOf(root: string, matches: readonly CodeMatch[]): Promise<string[]> {
  const files = new Map<string, Promise<string[]>>();
  // A file that is gone leaves what the index knows.
  const linesOf = (file: string) => readFile(join(root, file), 'utf8').then((text) => text.split(/\r?\n/), () => []);
  return Promise.all(
    matches.map(async ({ file, line, endLine, name, signature, summary }) => {
      if (!files.has(file)) files.set(file, linesOf(file));
      const sourceSnippet = (await files.get(file)!).slice(line - 1, endLine).join('\n');
      return prepareText({ nodeId: name, signature, summary, sourceSnippet });
    }),
  );
}
