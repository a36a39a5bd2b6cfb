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

/** Most models of an index that stay loaded; the one that was used least lately makes room. */
const MOST_MODELS = 2;

/** Files that are read at a time: systems allow a process a thousand or fewer. */
const FILES_AT_A_TIME = 16;

interface Named {
  readonly encoder: CrossEncoder;
  /** How many searches use it now. */
  users: number;
}

/** The models of an index that were named; each is loaded when it is first needed. */
export class Rerankers {
  /** By what they are called, that used last at the end. */
  readonly #own = new Map<string, Named>();

  /** Does something with one that was given, or named: a path as it is now, or an id. */
  async using<Result>(given: CrossEncoder | string, work: (encoder: CrossEncoder) => Promise<Result>): Promise<Result> {
    if (typeof given !== 'string') return work(given);
    const named = this.#own.get(given) ?? { encoder: new CrossEncoder({ modelPath: given }), users: 0 };
    this.#own.delete(given);
    this.#own.set(given, named);
    named.users++;
    try {
      return await work(named.encoder);
    } finally {
      named.users--;
      this.#makeRoom();
    }
  }

  /** Frees what is one too many, or could not be loaded, and is not in use. */
  #makeRoom(): void {
    for (const [name, { encoder, users }] of this.#own) {
      if (users > 0 || (this.#own.size <= MOST_MODELS && encoder.isReady())) continue;
      this.#own.delete(name);
      // Nobody waits for it, and whoever names it again has another one.
      encoder.cleanup().catch(() => {});
    }
  }

  /** Frees them; they are loaded again when they are needed again. */
  async close(): Promise<void> {
    await Promise.all([...this.#own.values()].map(({ encoder }) => encoder.cleanup()));
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
  const documents = new Array<string>(matches.length);
  const inFiles = new Map<string, number[]>();
  matches.forEach(({ file }, index) => {
    const those = inFiles.get(file);
    if (those) those.push(index);
    else inFiles.set(file, [index]);
  });
  const readOne = async ([file, indices]: [string, number[]]) => {
    // A file that is gone leaves what the index knows.
    const lines = await readFile(join(root, file), 'utf8').then((text) => text.split(/\r?\n/), () => []);
    for (const index of indices) {
      const { line, endLine, name, signature, summary } = matches[index]!;
      documents[index] = prepareText({ nodeId: name, signature, summary, sourceSnippet: lines.slice(line - 1, endLine).join('\n') });
    }
  };
  const files = [...inFiles];
  for (let begin = 0; begin < files.length; begin += FILES_AT_A_TIME) await Promise.all(files.slice(begin, begin + FILES_AT_A_TIME).map(readOne));
  return documents;
}
