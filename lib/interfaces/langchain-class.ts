import type { Embeddings as LangChainEmbeddings, EmbeddingsParams } from '@langchain/core/embeddings';

import { show } from '../call/input';
import { refuseOtherKind } from '../call/model-kind';
import { optionReader, refused } from '../call/options';
import { GENERATOR } from '../generator/options';
import type { EmbeddingError, GeneratorOptions, OptimizedEmbeddingGenerator } from '../index';
import { Embedder, isGenerator, isLimit, plainVectors, withinLimit } from './embedder';

/**
 * Options of {@link EmbedcoreEmbeddings}: those of a generator, or a `generator`; and those that all embeddings of LangChain
 * have: `maxConcurrency` (calls at a time; default: all, which the generator queues itself), `maxRetries`,
 * `onFailedAttempt`.
 */
export interface EmbedcoreEmbeddingsParams extends EmbeddingsParams, GeneratorOptions {
  /** Another word for `modelPath`. */
  model?: string | undefined;
  /** One that you have, and that you clean up; instead of options of one. */
  generator?: OptimizedEmbeddingGenerator | undefined;
  /**
   * Gives up on a call after so many milliseconds (`TIMED_OUT`): those that it waits for its turn, for the model and between
   * attempts included. Default: never.
   */
  timeoutMs?: number | undefined;
}

/** What an instance of the class has. */
export interface GeneratorEmbeddings extends LangChainEmbeddings, AsyncDisposable {
  readonly generator: OptimizedEmbeddingGenerator;
  /** A vector for each document, in their order. The model is loaded with the first call. */
  embedDocuments(documents: string[]): Promise<number[][]>;
  /** The vector of the words of a search; for models that embed the two differently, not the same as a document's. */
  embedQuery(document: string): Promise<number[]>;
  /** Frees the model, unless the generator is yours. */
  close(): Promise<void>;
}

export interface GeneratorEmbeddingsClass {
  /**
   * Loads nothing yet.
   * @throws `EmbeddingError` `INVALID_CONFIG` naming the option.
   */
  new (params?: EmbedcoreEmbeddingsParams | OptimizedEmbeddingGenerator): GeneratorEmbeddings;
}

const readParams = optionReader<EmbedcoreEmbeddingsParams>({
  ...GENERATOR,
  maxConcurrency: true,
  maxRetries: true,
  onFailedAttempt: true,
  model: true,
  generator: true,
  timeoutMs: true,
});

/** The class, on top of the one that LangChain has in the module system of who asks: it has one for each. */
export function embeddingsClass(Embeddings: typeof LangChainEmbeddings): GeneratorEmbeddingsClass {
  return class EmbedcoreEmbeddings extends Embeddings {
    readonly #embedder: Embedder;
    readonly #timeoutMs: number | undefined;

    constructor(given: EmbedcoreEmbeddingsParams | OptimizedEmbeddingGenerator = {}) {
      refuseOtherKind('OptimizedEmbeddingGenerator', given, 'generator');
      const params = readParams(isGenerator(given) ? { generator: given } : given);
      const { generator, model, timeoutMs, maxConcurrency, maxRetries, onFailedAttempt = giveUp, ...options } = params;
      super({
        onFailedAttempt: (error: unknown) => {
          // There is no time left to try again in.
          if (isLimit(error)) throw error;
          return onFailedAttempt(error);
        },
        ...(maxConcurrency !== undefined && { maxConcurrency }),
        ...(maxRetries !== undefined && { maxRetries }),
      });
      if (model !== undefined && options.modelPath !== undefined) throw refused('model', 'it says the same as `modelPath`: give only one of them');
      if (model !== undefined) options.modelPath = model;
      const [extra] = Object.keys(options);
      refuseOtherKind('OptimizedEmbeddingGenerator', generator, 'generator');
      if (generator !== undefined && !isGenerator(generator)) throw refused('generator', `${show(generator)} is not an OptimizedEmbeddingGenerator`);
      if (generator !== undefined && extra !== undefined) throw refused(extra, 'a generator was given, which has options of its own');
      this.#embedder = new Embedder(generator ?? options);
      this.#timeoutMs = timeoutMs;
    }

    get generator(): OptimizedEmbeddingGenerator {
      return this.#embedder.generator;
    }

    async embedDocuments(documents: string[]): Promise<number[][]> {
      return this.#embed(documents, 'document');
    }

    async embedQuery(document: string): Promise<number[]> {
      const [vector] = await this.#embed([document], 'query');
      return vector!;
    }

    async close(): Promise<void> {
      await this.#embedder.close();
    }

    [Symbol.asyncDispose](): Promise<void> {
      return this.close();
    }

    async #embed(texts: string[], inputType: 'document' | 'query'): Promise<number[][]> {
      // As they are now: the caller may change its array while the call waits.
      const documents = Array.isArray(texts) ? [...texts] : texts;
      const matrix = await withinLimit(this.#timeoutMs, (left) =>
        this.caller.call(async () => {
          left();
          await this.#embedder.ready();
          const timeoutMs = left();
          return this.generator.embed(documents, { inputType, ...(timeoutMs !== undefined && { timeoutMs }) }).catch((error: unknown) => {
            // Of this attempt the time is over, and so it is of the call.
            left();
            throw error;
          });
        }),
      );
      return plainVectors(matrix);
    }
  };
}

/** What will fail again is not tried again, which would take a minute with LangChain's waits in between. */
function giveUp(error: unknown): void {
  if ((error as Partial<EmbeddingError> | null)?.retryable !== true) throw error;
}
