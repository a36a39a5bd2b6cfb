import { setImmediate as nextTurn } from 'node:timers/promises';
import { types } from 'node:util';

import { fromWire, type EmbeddingError } from '../call/errors';
import { invalid, refusal, show, type Refused } from '../call/input';
import type { NativeAnswer } from '../native/types';

/** Failures that are read between two turns of the event loop. */
const FAILURES_PER_TURN = 512;

/** What is known of the texts that vectors were made of. */
interface About {
  tokenCounts: Uint32Array;
  truncated: Uint8Array;
  fromCache: Uint8Array;
  errors: ReadonlyMap<number, EmbeddingError>;
}

/**
 * Many vectors in one allocation. `structuredClone` and `postMessage` keep the values and leave the method behind; JSON
 * holds plain arrays, and the errors as pairs.
 */
export class EmbeddingMatrix {
  /** `rows × dimensions` values, row by row. */
  readonly data: Float32Array;
  readonly rows: number;
  readonly dimensions: number;
  /** Tokens of each whole text, special tokens included; 0 where nobody knows, as of vectors that came from elsewhere. */
  readonly tokenCounts: Uint32Array;
  /** 1 for each text that the model did not see whole. */
  readonly truncated: Uint8Array;
  /** 1 for each text that this call did not compute. */
  readonly fromCache: Uint8Array;
  /** The inputs without a vector (their rows are zero), by index; only with `onError: 'skip'`. */
  readonly errors: ReadonlyMap<number, EmbeddingError>;
  /** The vector at `index`, a view into `data`. */
  declare readonly row: (index: number) => Float32Array;

  /**
   * Vectors from elsewhere: `data` holds them one after the other, each of `dimensions` values, and is not copied.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what is no Float32Array, or not whole vectors.
   */
  constructor(data: Float32Array, dimensions: number);
  constructor(data: Float32Array, dimensions: number, about?: About) {
    if (!about) checkShape(data, dimensions, 'data');
    const rows = about ? about.tokenCounts.length : data.length / dimensions;
    this.data = data;
    this.tokenCounts = about?.tokenCounts ?? new Uint32Array(rows);
    this.truncated = about?.truncated ?? new Uint8Array(rows);
    this.fromCache = about?.fromCache ?? new Uint8Array(rows);
    this.dimensions = dimensions;
    this.rows = rows;
    this.errors = about?.errors ?? new Map();
    const row = (index: number) => {
      if (!Number.isInteger(index) || index < 0 || index >= rows) {
        throw invalid(`Row ${show(index)} does not exist: there are ${rows}`, { index });
      }
      return data.subarray(index * dimensions, (index + 1) * dimensions);
    };
    // Works when taken out of the matrix, and is not enumerable: a function cannot be cloned, and a matrix shall pass to a worker.
    Object.defineProperty(this, 'row', { value: row });
  }

  toJSON(): object {
    const { rows, dimensions, data, tokenCounts, truncated, fromCache, errors } = this;
    const arrays = { data: toNumbers(data), tokenCounts: [...tokenCounts], truncated: [...truncated], fromCache: [...fromCache] };
    return { rows, dimensions, ...arrays, errors: [...errors] };
  }
}

const fingerprints = new WeakMap<EmbeddingMatrix, string>();

/** The fingerprint of the model that has made the vectors, if this package has had it do so. */
export function fingerprintOf(matrix: EmbeddingMatrix): string | undefined {
  return fingerprints.get(matrix);
}

/** Makes a matrix of an answer: what only this package may know of it is no argument for others. */
const Answered = EmbeddingMatrix as new (data: Float32Array, dimensions: number, about: About) => EmbeddingMatrix;

/** The vectors of an answer, and the errors of those that have none: for `refused` ones, why. `check` throws to end early. */
export async function matrixOf(answer: NativeAnswer, refused: ReadonlyMap<number, Refused>, check: () => void): Promise<EmbeddingMatrix> {
  const errors = new Map<number, EmbeddingError>();
  for (let from = 0; ; ) {
    const failures = answer.failures(from, FAILURES_PER_TURN);
    for (const { index, error } of failures) {
      const reason = refused.get(index);
      errors.set(index, reason ? refusal(reason) : fromWire(error));
    }
    if (failures.length < FAILURES_PER_TURN) break;
    from = failures[failures.length - 1]!.index + 1;
    await nextTurn();
    check();
  }
  // Native arrays belong to the realm that loaded the addon; these are the caller's own types, on the same memory.
  const taken = answer.takeData();
  const data = new Float32Array(taken.buffer, taken.byteOffset, taken.length);
  const matrix = new Answered(data, answer.dimensions, {
    tokenCounts: new Uint32Array(answer.tokenCounts()),
    truncated: new Uint8Array(answer.truncated()),
    fromCache: new Uint8Array(answer.fromCache()),
    errors,
  });
  fingerprints.set(matrix, answer.fingerprint);
  return matrix;
}

/** Refuses what are no whole vectors. `what`: what the caller calls them. */
export function checkShape(data: unknown, dimensions: unknown, what: string): void {
  if (!types.isFloat32Array(data)) throw invalid(`${what} is ${show(data)}, not a Float32Array`);
  if (!Number.isSafeInteger(dimensions) || (dimensions as number) < 1) throw invalid(`dimensions is ${show(dimensions)}, not a whole number from 1`);
  if (data.length % (dimensions as number) !== 0) {
    throw invalid(`${what} has ${data.length} values, which are no whole vectors of ${String(dimensions)}`);
  }
}

/** A plain array: several times faster than `Array.from`, and an array of doubles from the start. */
export function toNumbers(vector: Float32Array): number[] {
  const numbers: number[] = new Array(vector.length);
  for (let i = 0; i < vector.length; i++) numbers[i] = vector[i]!;
  return numbers;
}
