import { setImmediate as nextTurn } from 'node:timers/promises';

import { EmbeddingError, fromWire } from '../call/errors';
import { invalid, refusal, show, type Refused } from '../call/input';
import type { NativeAnswer } from '../native/types';

/** Results converted between two turns of the event loop: about two milliseconds of work. */
export const RESULTS_PER_TURN = 512;

/**
 * Many vectors in one allocation. `structuredClone` and `postMessage` keep the values and leave the method behind; JSON
 * holds plain arrays, and the errors as pairs.
 */
export interface EmbeddingMatrix {
  /** `rows × dimensions` values, row by row. */
  readonly data: Float32Array;
  readonly rows: number;
  readonly dimensions: number;
  /** The vector at `index`, a view into `data`. */
  row(index: number): Float32Array;
  /** Tokens of each whole text, special tokens included. */
  readonly tokenCounts: Uint32Array;
  /** 1 for each text that the model did not see whole. */
  readonly truncated: Uint8Array;
  /** 1 for each text that this call did not compute. */
  readonly fromCache: Uint8Array;
  /** The inputs without a vector (their rows are zero), by index; only with `onError: 'skip'`. */
  readonly errors: ReadonlyMap<number, EmbeddingError>;
}

export class Matrix implements EmbeddingMatrix {
  readonly data: Float32Array;
  readonly rows: number;
  readonly dimensions: number;
  readonly tokenCounts: Uint32Array;
  readonly truncated: Uint8Array;
  readonly fromCache: Uint8Array;
  readonly errors: ReadonlyMap<number, EmbeddingError>;
  declare readonly row: (index: number) => Float32Array;

  private constructor(answer: NativeAnswer, errors: ReadonlyMap<number, EmbeddingError>) {
    // Native arrays belong to the realm that loaded the addon; these are the caller's own types, on the same memory.
    const taken = answer.takeData();
    this.data = new Float32Array(taken.buffer, taken.byteOffset, taken.length);
    this.tokenCounts = new Uint32Array(answer.tokenCounts());
    this.truncated = new Uint8Array(answer.truncated());
    this.fromCache = new Uint8Array(answer.fromCache());
    this.dimensions = answer.dimensions;
    this.rows = this.tokenCounts.length;
    this.errors = errors;
    const { data, rows, dimensions } = this;
    const row = (index: number) => {
      if (!Number.isInteger(index) || index < 0 || index >= rows) {
        throw invalid(`Row ${show(index)} does not exist: there are ${rows}`, { index });
      }
      return data.subarray(index * dimensions, (index + 1) * dimensions);
    };
    // Works when taken out of the matrix, and is not enumerable: a function cannot be cloned, and a matrix shall pass to a worker.
    Object.defineProperty(this, 'row', { value: row });
  }

  /** The vectors of an answer, and the errors of those that have none: for `refused` ones, why. `check` throws to end early. */
  static async of(answer: NativeAnswer, refused: ReadonlyMap<number, Refused>, check: () => void): Promise<Matrix> {
    const errors = new Map<number, EmbeddingError>();
    for (let from = 0; ; ) {
      const failures = answer.failures(from, RESULTS_PER_TURN);
      for (const { index, error } of failures) {
        const reason = refused.get(index);
        errors.set(index, reason ? refusal(reason) : fromWire(error));
      }
      if (failures.length < RESULTS_PER_TURN) return new Matrix(answer, errors);
      from = failures[failures.length - 1]!.index + 1;
      await nextTurn();
      check();
    }
  }

  toJSON(): object {
    const { rows, dimensions, data, tokenCounts, truncated, fromCache, errors } = this;
    const arrays = { data: toNumbers(data), tokenCounts: [...tokenCounts], truncated: [...truncated], fromCache: [...fromCache] };
    return { rows, dimensions, ...arrays, errors: [...errors] };
  }
}

/** A plain array: several times faster than `Array.from`, and an array of doubles from the start. */
export function toNumbers(vector: Float32Array): number[] {
  const numbers: number[] = new Array(vector.length);
  for (let i = 0; i < vector.length; i++) numbers[i] = vector[i]!;
  return numbers;
}

/** Builds `count` results and lets the event loop turn now and then; then `check` throws to end early. */
export async function convert<T>(count: number, result: (index: number) => T, check: () => void): Promise<T[]> {
  const results: T[] = [];
  for (let index = 0; index < count; index++) {
    if (index > 0 && index % RESULTS_PER_TURN === 0) {
      await nextTurn();
      check();
    }
    results.push(result(index));
  }
  return results;
}
