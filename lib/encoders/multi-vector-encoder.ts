import { types } from 'node:util';

import { EmbeddingError, toEmbeddingError } from '../call/errors';
import { invalid, isNumbers, requireArray, show, takeAll } from '../call/input';
import { read } from '../call/options';
import { Encoder, nativeEncoder, runOn, sendInputs, toCall, type Progress } from '../generator/encoder';
import type { EmbeddingMatrix } from '../matrix/embedding-matrix';
import { call, native } from '../native/addon';
import { largest } from './ranking';
import { apart, best, readEncode, readMaxSim, readMultiVectorEncoder, type EncodeOptions, type MaxSimOptions, type MultiVectorEncoderOptions } from './options';

/** Vectors of the tokens of many texts in one allocation. */
export interface MultiVectors {
  /** All vectors, one after the other. */
  readonly data: Float32Array;
  /** Where the vectors of each text begin, counted in vectors; and where the last ones end. */
  readonly offsets: Uint32Array;
  /** Length of each vector. */
  readonly dimensions: number;
  /** Number of texts. */
  readonly rows: number;
  /** The vectors of the text at `index`, one after the other: a view into `data`. */
  row(index: number): Float32Array;
  /** Tokens of each whole text, special tokens included. */
  readonly tokenCounts: Uint32Array;
  /** 1 for each text that the model did not see whole. */
  readonly truncated: Uint8Array;
  /** 1 for each text that this call did not compute. */
  readonly fromCache: Uint8Array;
  /** The inputs without vectors, by index; only with `onError: 'skip'`. */
  readonly errors: ReadonlyMap<number, EmbeddingError>;
}

/** What {@link maxSim} compares: what `embed` gave, or vectors of one's own in the same layout. */
export type MaxSimVectors = Pick<MultiVectors, 'data' | 'offsets' | 'dimensions'>;

/** A document with its score. */
export interface MaxSimMatch {
  /** Its position among the documents. */
  index: number;
  /** The sum of the largest dot product for each of the query's vectors. */
  score: number;
}

/**
 * Makes a vector for each token of a text, which {@link maxSim} compares one by one (late interaction, ColBERT). Queries and documents
 * are read differently: say which they are (`inputType`). Cache, batches, memory, threads, metrics and errors are those of
 * {@link OptimizedEmbeddingGenerator}.
 */
export class MultiVectorEncoder extends Encoder {
  /**
   * Loads nothing yet.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
   */
  constructor(options: MultiVectorEncoderOptions = {}) {
    const [own, rest] = apart<MultiVectorEncoderOptions, 'poolFactor'>(readMultiVectorEncoder(options), 'poolFactor');
    super(rest, { ...own, task: 'multi-vector' });
  }

  /** The vectors of each text, in input order. */
  async embed(texts: readonly string[], options: EncodeOptions = {}): Promise<MultiVectors> {
    requireArray(texts, 'texts; for a single text pass [text]');
    const { watch, plain } = toCall(readEncode(options));
    return runOn(this, texts.length, 'texts', watch, () => {
      const inputs = takeAll(texts, false, plain.onError === 'skip');
      const running = call(() => nativeEncoder(this).call());
      const run = async (progress: Progress, check: () => void) => {
        await sendInputs(running, inputs, check);
        return running.run(false, 0, plain, progress);
      };
      return { inputs, running, run, finish: (answer, matrix) => multiVectors(matrix, answer.ends()) };
    });
  }

  /** The same as the function {@link maxSim}. */
  maxSim(query: MaxSimVectors | Float32Array, documents: MaxSimVectors, options: MaxSimOptions = {}): Promise<MaxSimMatch[]> {
    return maxSim(query, documents, options);
  }
}

/**
 * The documents by how well they answer a query, best first, equal ones in their order: for each of the query's vectors the largest dot
 * product with one of the document's, all of them summed. Exact, on native threads. A document without vectors has 0. The query is what
 * `embed` gave for one text, or its vectors alone. What lies behind the last offset does not count. All of it counts as it is now: a query
 * of up to 64 vectors is compared at once, which takes less time than copying the documents; for longer ones these are copied, and the
 * event loop goes on.
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for sizes that contradict each other, and for values that are no numbers.
 */
export async function maxSim(query: MaxSimVectors | Float32Array, documents: MaxSimVectors, options: MaxSimOptions = {}): Promise<MaxSimMatch[]> {
  const most = best(readMaxSim(options).topK);
  const all = taken('documents', documents);
  const one = types.isFloat32Array(query) ? whole(query, all.dimensions) : taken('query', query);
  if (one.ends.length !== 1) throw invalid(`The query is of ${one.ends.length} texts, not of one: pass the vectors of one`);
  if (one.dimensions !== all.dimensions) {
    throw invalid(`The query's vectors have ${one.dimensions} values and those of the documents ${all.dimensions}: take both from one model`);
  }
  let scores: Float32Array;
  try {
    const sizes = [all.ends, all.dimensions, one.dimensions] as const;
    const others = [one, all].some(({ data }) => types.isSharedArrayBuffer(data.buffer));
    scores =
      one.ends[0]! <= COMPARED_AT_ONCE && !others
        ? native().maxSimNow(one.data, all.data, ...sizes)
        : // Copies: what the caller writes, or transfers to another thread, meanwhile is nothing to the threads that compute.
          await native().maxSim(one.data.slice(), all.data.slice(), ...sizes);
  } catch (thrown) {
    throw toEmbeddingError(thrown);
  }
  return Array.from(largest(scores, most), (index) => ({ index, score: scores[index]! }));
}

/** Vectors of a query that are compared with all documents in less time than it takes to copy these. */
const COMPARED_AT_ONCE = 64;

/** Vectors of texts, as far as these reach, and where those of each text end. */
interface Taken {
  data: Float32Array;
  ends: Float64Array;
  dimensions: number;
}

function whole(data: Float32Array, dimensions: number): Taken {
  const vectors = data.length / dimensions;
  if (!Number.isInteger(vectors)) throw invalid(`The query has ${data.length} values, which is no whole number of vectors of ${dimensions}`);
  return { data, ends: Float64Array.of(vectors), dimensions };
}

function taken(what: string, given: unknown): Taken {
  const wrong = (reason: string) => invalid(`The ${what} ${reason}: pass what embed() of a MultiVectorEncoder gave, or { data, offsets, dimensions }`);
  if (typeof given !== 'object' || given === null) throw wrong(`are ${show(given)}`);
  const [data, offsets, dimensions] = ['data', 'offsets', 'dimensions'].map((name) => read(given, name, name));
  if (!types.isFloat32Array(data)) throw wrong(`have data that is ${show(data)}, not a Float32Array`);
  if (!isNumbers(offsets) || offsets.length < 1) throw wrong(`have offsets that are ${show(offsets)}`);
  if (!Number.isInteger(dimensions) || (dimensions as number) < 1 || (dimensions as number) > 2 ** 20) throw wrong(`have dimensions that are ${show(dimensions)}`);
  const length = dimensions as number;
  const vectors = data.length / length;
  const ends = new Float64Array(offsets.length - 1);
  let last = 0;
  for (let at = 0; at < offsets.length; at++) {
    const offset = offsets[at] as unknown as number;
    const rises = Number.isInteger(offset) && offset >= last && offset <= vectors;
    if (!rises || (at === 0 && offset !== 0)) throw wrong(`have offsets that do not rise from 0 up to their ${vectors} vectors, at ${at}`);
    if (at > 0) ends[at - 1] = offset;
    last = offset;
  }
  return { data: data.subarray(0, last * length), ends, dimensions: length };
}

function multiVectors(matrix: EmbeddingMatrix, ends: Float64Array): MultiVectors {
  const { data, dimensions, tokenCounts, truncated, fromCache, errors } = matrix;
  const offsets = new Uint32Array(ends.length + 1);
  ends.forEach((end, index) => (offsets[index + 1] = end / dimensions));
  const rows = ends.length;
  const row = (index: number) => {
    if (!Number.isInteger(index) || index < 0 || index >= rows) throw invalid(`Row ${show(index)} does not exist: there are ${rows}`, { index });
    return data.subarray(offsets[index]! * dimensions, offsets[index + 1]! * dimensions);
  };
  const vectors = { data, offsets, dimensions, rows, tokenCounts, truncated, fromCache, errors };
  // Not enumerable: a function cannot be cloned, and vectors shall pass to a worker.
  return Object.defineProperty(vectors, 'row', { value: row }) as MultiVectors;
}
