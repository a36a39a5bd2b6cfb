import { invalid, isArray, readGiven, show } from '../call/input';
import { crossing, optionReader, refused, type Given } from '../call/options';
import { call, native } from '../native/addon';

/**
 * How coherent a trajectory is. All are from 0 to 1; `CCI` is so where the weights sum to 1, as they do unless you change
 * them.
 */
export interface CoherenceMetrics {
  /** Evaluative variance bound: how much the scores vary. Lower is better. */
  EVB: number;
  /** Contradiction rate: share of the steps at which the order of the scores changed. Lower is better. */
  CR: number;
  /** Trajectory smoothness: 1 without any change from step to step. */
  TS: number;
  /** Expectation stability: 1 where the first score is always the same. */
  ES: number;
  /** Policy divergence: how far each step's distribution of scores is from the one before. Lower is better. */
  PD: number;
  /** Composite coherence index: the weighted sum of `1 - EVB`, `1 - CR`, `TS`, `ES` and `1 - PD`. */
  CCI: number;
}

/** A row for each step, the first one included; in each row the same scores, from 0 to 1. */
export type TrajectoryRows = readonly ArrayLike<number>[];

/** How trajectories are measured. */
export interface CoherenceMeasureOptions {
  /** λ: how far the covariance is drawn to its target, 0–1. Default 0.4. */
  shrinkage?: number | undefined;
  /**
   * `'identity'` (default): λ·I, so that even a trajectory that never changes has an EVB of λ. `'scaled'`: λ·(tr S / m)·I, so
   * that it has 0.
   */
  shrinkageTarget?: 'identity' | 'scaled' | undefined;
  /** What EVB, CR, TS, ES and PD weigh in CCI: five numbers from 0. Default 0.2 each. */
  weights?: readonly number[] | undefined;
}

/** Options of {@link coherenceMetrics}. */
export interface CoherenceMetricsOptions extends CoherenceMeasureOptions {
  /**
   * Of a `Float64Array` only, where it is needed: `[rows, columns]` of a trajectory or, to be checked against the length,
   * `[trajectories, rows, columns]`.
   */
  shape?: readonly number[] | undefined;
}

const MEASURE = { shrinkage: true, shrinkageTarget: true, weights: true } as const;

const readOptions = optionReader<CoherenceMetricsOptions>({ ...MEASURE, shape: true });

/** In the order in which they cross. */
const NAMES = ['EVB', 'CR', 'TS', 'ES', 'PD', 'CCI'] as const;

/** Most values of a call: what crosses is counted in 32 bits. */
const MOST = 2 ** 31;

/** Trajectories as they cross. */
interface Flat {
  values: Float64Array;
  /** Rows and columns of each trajectory, or one pair for all. */
  shapes: Uint32Array;
}

/**
 * Measures how coherent trajectories are: all of them in one call of native code, about 0.3 µs for one of 5 × 5. Their shapes
 * may differ. In a `Float64Array` they lie one after the other, row by row, and `shape` says how large they are. A single
 * trajectory is answered with its metrics alone.
 *
 * @throws `EmbeddingError` `INVALID_ARGUMENT` naming the trajectory, row and column of what is not from 0 to 1, and rows of
 * different lengths; `INVALID_CONFIG` naming the option.
 */
export function coherenceMetrics(trajectories: Float64Array, options: CoherenceMetricsOptions): CoherenceMetrics[];
export function coherenceMetrics(trajectory: TrajectoryRows, options?: CoherenceMetricsOptions): CoherenceMetrics;
export function coherenceMetrics(trajectories: readonly TrajectoryRows[], options?: CoherenceMetricsOptions): CoherenceMetrics[];
export function coherenceMetrics(trajectories: Float64Array | TrajectoryRows | readonly TrajectoryRows[], options: CoherenceMetricsOptions = {}): CoherenceMetrics | CoherenceMetrics[] {
  const { shape, ...measure } = readOptions(options);
  if (Object.prototype.toString.call(trajectories) === '[object Float64Array]') {
    const values = trajectories as Float64Array;
    return measured({ values, shapes: shapeOf(values.length, shape) }, measure);
  }
  if (shape !== undefined) throw refused('shape', 'it is for a Float64Array; arrays have a shape of their own');
  if (!isArray(trajectories)) throw invalid(`The trajectories are ${show(trajectories)}, not an array of trajectories, nor a Float64Array`);
  const { one, all } = readGiven('The trajectories', () => {
    const one = isTrajectory(trajectories);
    return { one, all: flat(one ? [trajectories] : trajectories) };
  });
  const metrics = measured(all, measure);
  return one ? metrics[0]! : metrics;
}

/** Whether it is one trajectory, and not many: then its rows hold numbers. */
function isTrajectory(trajectories: readonly unknown[]): boolean {
  const [first] = trajectories;
  return isRow(first) && first.length > 0 && !isRow(first[0]);
}

function measured({ values, shapes }: Flat, measure: Given<CoherenceMeasureOptions>): CoherenceMetrics[] {
  const numbers = call(() => native().coherenceMetrics(values, shapes, crossing(measure)));
  const all: CoherenceMetrics[] = [];
  for (let at = 0; at < numbers.length; at += NAMES.length) {
    all.push({ EVB: numbers[at]!, CR: numbers[at + 1]!, TS: numbers[at + 2]!, ES: numbers[at + 3]!, PD: numbers[at + 4]!, CCI: numbers[at + 5]! });
  }
  return all;
}

/** One after the other. What is no number from 0 to 1 is found where all of them are read. */
function flat(trajectories: readonly unknown[]): Flat {
  const rows: ArrayLike<unknown>[][] = [];
  const shapes = new Uint32Array(trajectories.length * 2);
  let count = 0;
  for (let at = 0; at < trajectories.length; at++) {
    const own = rowsOf(trajectories[at], at);
    const columns = own[0]!.length;
    shapes[2 * at] = own.length;
    shapes[2 * at + 1] = columns;
    count += own.length * columns;
    rows.push(own);
  }
  if (count > MOST) throw invalid(`The trajectories have ${count} values, more than the limit of ${MOST}: measure them in several calls`);
  const values = new Float64Array(count);
  let next = 0;
  for (let at = 0; at < rows.length; at++) {
    for (let row = 0; row < rows[at]!.length; row++) {
      const scores = rows[at]![row]!;
      for (let column = 0; column < scores.length; column++) {
        const score = scores[column];
        if (typeof score !== 'number') throw invalid(`Trajectory ${at}, row ${row}, column ${column} is ${show(score)}, not a number from 0 to 1`, { trajectory: at, row, column });
        values[next++] = score;
      }
    }
  }
  return { values, shapes };
}

function rowsOf(trajectory: unknown, at: number): ArrayLike<unknown>[] {
  if (!isArray(trajectory)) throw invalid(`Trajectory ${at} is ${show(trajectory)}, not an array of rows`, { trajectory: at });
  if (trajectory.length === 0) throw invalid(`Trajectory ${at} has no rows: it has one for the answer itself, at least`, { trajectory: at });
  const rows: ArrayLike<unknown>[] = [];
  for (let row = 0; row < trajectory.length; row++) {
    const scores: unknown = trajectory[row];
    if (!isRow(scores) || scores.length === 0) throw invalid(`Trajectory ${at}, row ${row} is ${show(scores)}, not an array of scores`, { trajectory: at, row });
    if (row > 0 && scores.length !== rows[0]!.length) {
      throw invalid(`Trajectory ${at}, row ${row} has ${scores.length} scores, but row 0 has ${rows[0]!.length}`, { trajectory: at, row });
    }
    rows.push(scores);
  }
  return rows;
}

/** Whether it is a row of scores, of whatever kind. */
export function isRow(row: unknown): row is ArrayLike<unknown> {
  return isArray(row) || (ArrayBuffer.isView(row) && typeof (row as Partial<Float64Array>).length === 'number');
}

/** Rows and columns of all trajectories in an array of so many values. */
function shapeOf(length: number, shape: readonly number[] | undefined): Uint32Array {
  if (shape === undefined) throw refused('shape', 'a Float64Array does not say how large its trajectories are: give [rows, columns]');
  const fits = isArray(shape) && (shape.length === 2 || shape.length === 3) && shape.every((each, at) => Number.isSafeInteger(each) && each >= (at === 0 && shape.length === 3 ? 0 : 1));
  if (!fits) throw refused('shape', `${isArray(shape) ? `[${shape.map(show).join(', ')}]` : show(shape)} is not [rows, columns] or [trajectories, rows, columns], whole numbers from 1`);
  const [rows, columns] = shape.slice(-2) as [number, number];
  const count = length / (rows * columns);
  if (length > MOST || !Number.isInteger(count) || (shape.length === 3 && shape[0] !== count)) {
    const wanted = shape.length === 3 ? `${shape[0]} trajectories` : 'trajectories';
    throw refused('shape', `${length} values are not ${wanted} of ${rows} × ${columns}`);
  }
  return Uint32Array.of(rows, columns);
}
