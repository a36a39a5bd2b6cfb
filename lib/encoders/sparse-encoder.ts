import { EmbeddingError } from '../call/errors';
import { invalid, requireArray, show, takeAll } from '../call/input';
import { read } from '../call/options';
import { Encoder, nativeEncoder, runOn, sendInputs, toCall, type Progress } from '../generator/encoder';
import { convert } from '../generator/convert';
import { call } from '../native/addon';
import { apart, best, readEncode, readSparseEncoder, type EncodeOptions, type SparseEncoderOptions } from './options';

/** Some of very many dimensions; the others are 0. */
export interface SparseVector {
  /** Which they are, in ascending order. */
  indices: Uint32Array;
  /** The value of each. */
  values: Float32Array;
  /** Why there is none; only with `onError: 'skip'`. */
  error?: EmbeddingError;
}

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
  async embed(texts: readonly string[], options: EncodeOptions = {}): Promise<SparseVector[]> {
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
        finish: (answer, matrix, check) => {
          const [indices, ends] = [answer.takeIndices(), answer.ends()];
          const vector = (index: number): SparseVector => {
            const [begin, end] = [index === 0 ? 0 : ends[index - 1]!, ends[index]!];
            const error = matrix.errors.get(index);
            // Native arrays belong to the realm that loaded the addon; these are the caller's own types.
            return { indices: Uint32Array.from(indices.subarray(begin, end)), values: matrix.data.slice(begin, end), ...(error && { error }) };
          };
          return convert(ends.length, vector, check);
        },
      };
    });
  }

  /**
   * The tokens that weigh most in a vector of this model, with their weights, heaviest first.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for `'bm25'`, whose indices are hashes; `NOT_INITIALIZED`.
   */
  decode(vector: SparseVector, topK?: number): [token: string, value: number][] {
    const most = best(topK);
    const { indices, values } = sparse('The vector', vector);
    const order = Array.from(indices, (_, at) => at).sort((one, other) => values[other]! - values[one]! || one - other);
    const chosen = order.slice(0, Math.min(most, order.length));
    const tokens = call(() => nativeEncoder(this).tokens(Uint32Array.from(chosen, (at) => indices[at]!)));
    return chosen.map((at, n) => [tokens[n]!, values[at]!]);
  }

  /** The dot product of two sparse vectors: how well a document answers a query. */
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

function sparse(what: string, vector: unknown): SparseVector {
  const wrong = (reason: string) => invalid(`${what} ${reason}: pass { indices: Uint32Array, values: Float32Array }`);
  if (typeof vector !== 'object' || vector === null) throw wrong(`is ${show(vector)}`);
  const [indices, values] = [read(vector, 'indices', 'indices'), read(vector, 'values', 'values')];
  const isNumbers = (given: unknown): given is ArrayLike<number> => ArrayBuffer.isView(given) || Array.isArray(given);
  if (!isNumbers(indices) || !isNumbers(values)) throw wrong('has no arrays of indices and values');
  if (indices.length !== values.length) throw wrong(`has ${indices.length} indices and ${values.length} values`);
  for (let at = 1; at < indices.length; at++) if (!(indices[at]! > indices[at - 1]!)) throw wrong(`has indices that do not ascend, at ${at}`);
  return { indices: indices as Uint32Array, values: values as Float32Array };
}
