// Vectors of texts, from whatever the caller embeds with or, where that is left out, from the built-in model.

import { EmbeddingError } from '../call/errors';
import { OptimizedEmbeddingGenerator, type SemanticEmbedder } from '../index';
import { PromptVectors } from '../results/prompt-vectors';

/** Characters of a text that are embedded: more than the built-in model sees. */
const LONGEST = 20_000;

/** The latest vectors are remembered. */
export class Texts {
  #own: OptimizedEmbeddingGenerator | undefined;
  #vectors: PromptVectors | undefined;

  /** Whether the built-in model makes the vectors. */
  readonly builtin: boolean;

  /** `embedder`: given as the option `generator`. */
  constructor(embedder: SemanticEmbedder | undefined) {
    this.builtin = embedder === undefined;
    if (embedder !== undefined) this.#vectors = new PromptVectors({ embed: embedder }, 'generator');
  }

  /** The vector of a text; `undefined` where there is nothing in it. */
  async vector(text: string): Promise<Float32Array | undefined> {
    const seen = text.slice(0, LONGEST).trim();
    if (seen === '') return undefined;
    return (await this.#embedder().of(seen)).vector;
  }

  /** Loads the built-in model, if that is what will be needed: so that nobody waits for it later. */
  prepare(): void {
    if (!this.builtin || this.#own) return;
    this.#embedder();
    // Whoever needs it is told.
    this.#own!.initialize().catch(() => {});
  }

  #embedder(): PromptVectors {
    return (this.#vectors ??= new PromptVectors({ embed: (this.#own = new OptimizedEmbeddingGenerator()) }, 'generator'));
  }

  /** Frees a generator of its own; the next vector would need another one. */
  async close(): Promise<void> {
    const own = this.#own;
    if (!own) return;
    this.#own = this.#vectors = undefined;
    await own.cleanup();
  }
}

/** The cosine of two vectors, -1–1; 0 where one is missing. */
export function cosine(a: Float32Array | undefined, b: Float32Array | undefined): number {
  if (!a || !b) return 0;
  if (a.length !== b.length) throw new EmbeddingError('EMBEDDING_GENERATION_FAILED', `generator made vectors of ${a.length} and of ${b.length} values: they cannot be compared`);
  let [dot, ofA, ofB] = [0, 0, 0];
  for (let at = 0; at < a.length; at++) {
    dot += a[at]! * b[at]!;
    ofA += a[at]! ** 2;
    ofB += b[at]! ** 2;
  }
  return dot / Math.sqrt(ofA * ofB);
}
