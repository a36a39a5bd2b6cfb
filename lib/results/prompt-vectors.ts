// Vectors of prompts, from whatever the user embeds with.

import { finiteVector } from '../cache/values';
import { EmbeddingError, EmbeddingGenerationError, messageOf } from '../call/errors';
import { invalid, show } from '../call/input';
import { refuseOtherKind, refuseOtherTask } from '../call/model-kind';
import { optionReader, read, refused } from '../call/options';
import { follow } from '../call/order';

/** What makes vectors of prompts: an `OptimizedEmbeddingGenerator`, or a function. */
export type SemanticEmbedder =
  | ((texts: string[]) => SemanticVectors | Promise<SemanticVectors>)
  | {
      embed(texts: readonly string[]): Promise<{ row(i: number): Float32Array }>;
      initialize(): Promise<void>;
      isReady(): boolean;
      getModelInfo(): { fingerprint: string };
    };

/** One vector for each text, in their order. */
export type SemanticVectors = readonly ArrayLike<number>[] | { row(i: number): Float32Array };

/** How results of prompts that mean the same are found. */
export interface SemanticOptions {
  /** Makes the vectors: a generator, which is initialised if it is not, or a function that answers with one for each text. */
  embed: SemanticEmbedder;
  /**
   * Least cosine of two prompts' vectors, 0–1. Default 0.5: vectors only find what is compared word by word, and tell questions
   * and their opposites apart at no threshold.
   */
  threshold?: number | undefined;
  /** How many of the nearest prompts are compared word by word, at most. Default 10. */
  limit?: number | undefined;
  /** Names the model behind a function, so that vectors of another one are never compared with its. */
  model?: string | undefined;
}

export const readSemantic = optionReader<SemanticOptions>({ embed: true, threshold: true, limit: true, model: true });

/** Vectors that are kept: what is looked up and not found is soon set. */
const KEPT = 256;

/** How often a vector is made anew because the generator went over to another model meanwhile. */
const ATTEMPTS = 3;

/** Vectors of prompts. */
export class PromptVectors {
  readonly threshold: number;
  readonly limit: number;
  readonly #embed: SemanticEmbedder;
  readonly #model: string;
  readonly #latest = new Map<string, Promise<Float32Array>>();
  readonly #name: string;

  /** `name`: the option that `embed` is given as. */
  constructor({ embed, threshold = 0.5, limit = 10, model = '' }: SemanticOptions, name = 'semantic.embed') {
    const wrong = (option: string, reason: string) => refused(`semantic.${option}`, reason);
    refuseOtherKind('OptimizedEmbeddingGenerator', embed, name);
    if (typeof embed !== 'function' && !isGenerator(embed, name)) throw refused(name, `${show(embed)} is neither a function nor a generator`);
    if (typeof threshold !== 'number' || !(threshold >= 0 && threshold <= 1)) throw wrong('threshold', `${show(threshold)} is not a number from 0 to 1`);
    if (!Number.isInteger(limit) || limit < 1 || limit > 1000) throw wrong('limit', `${show(limit)} is not a whole number from 1 to 1000`);
    if (typeof model !== 'string') throw wrong('model', `${show(model)} is not a string`);
    this.#embed = embed;
    this.threshold = threshold;
    this.limit = limit;
    this.#model = model;
    this.#name = name;
  }

  /** The vector of a prompt, and what made it. */
  async of(prompt: string): Promise<{ vector: Float32Array; model: string }> {
    try {
      return await this.raw(prompt);
    } catch (cause) {
      if (cause instanceof EmbeddingError) throw cause;
      throw new EmbeddingGenerationError(`${this.#name} failed: ${messageOf(cause)}`, { cause });
    }
  }

  /** The same, with what the caller's own function throws as it is. */
  async raw(prompt: string): Promise<{ vector: Float32Array; model: string }> {
    const embed = this.#embed;
    if (typeof embed === 'function') {
      const vector = await this.#remembered(prompt, () => embed([prompt]));
      return { vector, model: `function ${this.#model}` };
    }
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (!embed.isReady()) await embed.initialize();
      const info = embed.getModelInfo();
      refuseOtherTask('OptimizedEmbeddingGenerator', info, this.#name);
      const model = info.fingerprint;
      const name = `${model} ${prompt}`;
      const vector = await this.#remembered(name, () => embed.embed([prompt]));
      // Another model may have been loaded before this call began to run.
      if (embed.isReady() && embed.getModelInfo().fingerprint === model) return { vector, model };
      this.#latest.delete(name);
    }
    throw new EmbeddingError('BACKEND_UNAVAILABLE', `${this.#name} loads one model after the other, and none of them made the vector`, { retryable: true });
  }

  /** A vector that was made before; else it is made. `name` is of the prompt and of what makes it. */
  #remembered(name: string, make: () => SemanticVectors | Promise<SemanticVectors>): Promise<Float32Array> {
    let made = this.#latest.get(name);
    if (!made) {
      made = firstOf(make, `${this.#name}'s first vector`);
      this.#latest.set(name, made);
      // A failure is not kept: the next one may succeed.
      made.catch(() => this.#latest.delete(name));
      if (this.#latest.size > KEPT) this.#latest.delete(this.#latest.keys().next().value!);
    }
    return made;
  }
}

async function firstOf(make: () => SemanticVectors | Promise<SemanticVectors>, name: string): Promise<Float32Array> {
  return follow(make(), (vectors) => {
    const { row } = (vectors ?? {}) as { row?: (i: number) => Float32Array };
    const first = row ? row.call(vectors, 0) : (vectors as readonly unknown[] | undefined)?.[0];
    const vector = finiteVector(first, name);
    if (vector.every((value) => value === 0)) throw invalid(`${name} has no direction: all its values are 0`);
    return vector;
  });
}

function isGenerator(embed: unknown, name: string): embed is Exclude<SemanticEmbedder, (...args: never[]) => unknown> {
  if (typeof embed !== 'object' || embed === null) return false;
  return (['embed', 'getModelInfo'] as const).every((method) => typeof read(embed, method, `${name}.${method}`) === 'function');
}
