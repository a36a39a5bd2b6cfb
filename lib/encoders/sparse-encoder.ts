import { EmbeddingError } from '../call/errors';
import { invalid, isNumbers, requireArray, show, takeAll } from '../call/input';
import { read } from '../call/options';
import { Encoder, nativeEncoder, runOn, sendInputs, toCall, type Progress } from '../generator/encoder';
import { convert } from '../generator/convert';
import { call } from '../native/addon';
import { largest } from './ranking';
import { apart, best, described, readEncode, readSparseEncoder, type EncodeOptions, type SparseEncoderOptions } from './options';

/** Some of very many dimensions; the others are 0. */
export interface SparseVector {
  /** Which they are, in ascending order. */
  indices: Uint32Array;
  /** The value of each. */
  values: Float32Array;
  /** Why there is none; only with `onError: 'skip'`. */
  error?: EmbeddingError;
}

/** The vectors of a call. */
export type SparseVectors = SparseVector[] & {
  /** Tokens of each whole text, special tokens included; of `'bm25'`, 0. */
  readonly tokenCounts: Uint32Array;
  /** 1 for each text that the model did not see whole. */
  readonly truncated: Uint8Array;
  /** 1 for each text that this call did not compute. */
  readonly fromCache: Uint8Array;
};

/** Indices are of 32 bits. */
const LARGEST_INDEX = 2 ** 32 - 1;

/**
 * Makes sparse vectors for inverted indexes: weights of the vocabulary's tokens by a model (SPLADE), or of words (`'bm25'`). Cache,
 * batches, memory, threads, metrics and errors are those of {@link OptimizedEmbeddingGenerator}.
 */
export class SparseEncoder extends Encoder {
  /**
   * Loads nothing yet.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
   */
  constructor(options: SparseEncoderOptions = {}) {
    const [own, rest] = apart<SparseEncoderOptions, 'k' | 'b' | 'averageLength'>(readSparseEncoder(options), 'k', 'b', 'averageLength');
    super(rest, { ...own, task: 'sparse' });
  }

  /** A sparse vector for each text, in input order. A text of stop words alone has an empty one. */
  async embed(texts: readonly string[], options: EncodeOptions = {}): Promise<SparseVectors> {
    requireArray(texts, 'texts; for a single text pass [text]');
    const { watch, plain } = toCall(readEncode(options));
    return runOn(this, texts.length, 'texts', watch, () => {
      const inputs = takeAll(texts, false, plain.onError === 'skip');
      const running = call(() => nativeEncoder(this).call());
      const run = async (progress: Progress, check: () => void) => {
        await sendInputs(running, inputs, check);
        return running.run(false, 0, plain, progress);
      };
      return {
        inputs,
        running,
        run,
        finish: async (answer, matrix, check) => {
          const [indices, ends] = [answer.takeIndices(), answer.ends()];
          const vector = (index: number): SparseVector => {
            const [begin, end] = [index === 0 ? 0 : ends[index - 1]!, ends[index]!];
            const error = matrix.errors.get(index);
            // Native arrays belong to the realm that loaded the addon; these are the caller's own types.
            return { indices: Uint32Array.from(indices.subarray(begin, end)), values: matrix.data.slice(begin, end), ...(error && { error }) };
          };
          const vectors = await convert(ends.length, vector, check);
          return described(vectors, { tokenCounts: matrix.tokenCounts, truncated: matrix.truncated, fromCache: matrix.fromCache }) as SparseVectors;
        },
      };
    });
  }

  /**
   * The tokens that weigh most in a vector of this model, with their weights, heaviest first.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for `'bm25'`, whose indices are hashes, and for indices that no token of the model
   * has; `NOT_INITIALIZED`.
   */
  decode(vector: SparseVector, topK?: number): [token: string, value: number][] {
    const most = best(topK);
    const { indices, values } = sparse('The vector', vector);
    const { dimensions } = this.getModelInfo();
    const last = indices[indices.length - 1];
    if (last !== undefined && last >= dimensions) throw invalid(`The vector has the index ${last}, and those of this model end at ${dimensions - 1}: it is of another one`);
    const chosen = Array.from(largest(values, most));
    const tokens = call(() => nativeEncoder(this).tokens(Uint32Array.from(chosen, (at) => indices[at]!)));
    return chosen.map((at, n) => [tokens[n]!, values[at]!]);
  }

  /**
   * The dot product of two sparse vectors: how well a document answers a query.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for indices that do not ascend, and for what is no number.
   */
  dot(a: SparseVector, b: SparseVector): number {
    const [one, other] = [sparse('The first vector', a), sparse('The second vector', b)];
    let sum = 0;
    for (let i = 0, j = 0; i < one.indices.length && j < other.indices.length; ) {
      const order = one.indices[i]! - other.indices[j]!;
      if (order === 0) sum += one.values[i]! * other.values[j]!;
      if (order <= 0) i++;
      if (order >= 0) j++;
    }
    return sum;
  }
}

/** Both arrays of a vector, of any numbers that are what they have to be. */
function sparse(what: string, vector: unknown): { indices: ArrayLike<number>; values: ArrayLike<number> } {
  const wrong = (reason: string) => invalid(`${what} ${reason}: pass { indices: Uint32Array, values: Float32Array }`);
  if (typeof vector !== 'object' || vector === null) throw wrong(`is ${show(vector)}`);
  const [indices, values] = [read(vector, 'indices', 'indices'), read(vector, 'values', 'values')];
  if (!isNumbers(indices)) throw wrong(`has indices that are ${show(indices)}`);
  if (!isNumbers(values)) throw wrong(`has values that are ${show(values)}`);
  if (indices.length !== values.length) throw wrong(`has ${indices.length} indices and ${values.length} values`);
  let last = -1;
  for (let at = 0; at < indices.length; at++) {
    const [index, value] = [indices[at] as unknown, values[at] as unknown];
    if (!Number.isInteger(index) || (index as number) < 0 || (index as number) > LARGEST_INDEX) throw wrong(`has the index ${show(index)} at ${at}, not a whole number from 0 to ${LARGEST_INDEX}`);
    if ((index as number) <= last) throw wrong(`has indices that do not ascend, at ${at}`);
    if (!Number.isFinite(value)) throw wrong(`has the value ${show(value)} at ${at}, not a finite number`);
    last = index as number;
  }
  return { indices, values };
}
