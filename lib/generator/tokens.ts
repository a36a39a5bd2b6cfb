import { optionReader } from '../call/options';

/** Options of {@link OptimizedEmbeddingGenerator.countTokens} and {@link OptimizedEmbeddingGenerator.tokenize}. */
export interface CountOptions {
  /** The role of the texts, whose prompt is counted. Default `'document'`. */
  inputType?: 'document' | 'query' | undefined;
  /** Stops it; it rejects with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /** Gives up after so many milliseconds; it rejects with `TIMED_OUT`. Default: never. */
  timeoutMs?: number | undefined;
}

/** What a model reads of a text. */
export interface Tokens {
  /** Of all tokens, special ones and those of the prompt included, before anything is cut off. */
  ids: Uint32Array;
  /** As the vocabulary spells them. */
  tokens: string[];
  /** Where each is in the text, in UTF-16 units: beginning and end; `[0, 0]` for what was put around it. */
  offsets: [start: number, end: number][];
}

export const readCount = optionReader<CountOptions>({ inputType: true, signal: true, timeoutMs: true });
