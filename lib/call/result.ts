import type { EmbeddingError } from './errors';

/** What became of one annotation. */
export interface EmbeddingResult {
  /** The annotation's own. */
  nodeId: string;
  /** The vector; empty where there is an `error`. */
  embedding: number[];
  /** What was embedded, after preparation. */
  inputText: string;
  /** Milliseconds spent on it: its share of its batch, or of looking it up. */
  processingTime: number;
  /** The model, as it was named. */
  modelUsed: string;
  /** 0–1: share of the text's tokens that the model saw and knew (not cut off, not unknown to its vocabulary). */
  confidence?: number;
  /** Whether this call did not compute it: it was in the cache, or another call computed it at the same time. */
  fromCache?: boolean;
  /** Whether the model did not see the whole text. */
  truncated?: boolean;
  /** Tokens of the whole text, special tokens included. */
  tokenCount?: number;
  /** Why there is no vector; only with `onError: 'skip'`. */
  error?: EmbeddingError;
}
