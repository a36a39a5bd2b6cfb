import { whole } from '../call/checks';
import { EmbeddingError, messageOf } from '../call/errors';
import { invalid, isArray, show } from '../call/input';
import { checkWatch, watched } from '../call/limits';
import { optionReader, read, refused, type Names } from '../call/options';
import { native } from '../native/addon';
import type { NativeMatrixWork } from '../native/types';
import { checkShape, EmbeddingMatrix } from './embedding-matrix';

/** Vectors of one length, one after the other: an {@link EmbeddingMatrix}, or what a cache or another thread has given. */
export interface Vectors {
  readonly data: Float32Array;
  readonly dimensions: number;
}

/** What stops work on many vectors. */
export interface MatrixOptions {
  /** Stops it; it rejects with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /** Gives up after so many milliseconds; it rejects with `TIMED_OUT`. Default: never. */
  timeoutMs?: number | undefined;
}

/** Options of {@link topK}. */
export interface TopKOptions extends MatrixOptions {
  /** Least cosine of an answer, -1–1. Default -1: the best are answered, however far they are. */
  threshold?: number | undefined;
}

/** Options of {@link pairs} and {@link dedupe}. */
export interface ThresholdOptions extends MatrixOptions {
  /** Least cosine of two vectors that say the same, -1–1. Which one is right depends on the model: try some on pairs that you know. */
  threshold: number;
}

/** Options of {@link communities}. */
export interface CommunityOptions extends ThresholdOptions {
  /** Least number of vectors of a group. Default 2. */
  minSize?: number | undefined;
}

/** Options of {@link kMeans}. */
export interface KMeansOptions extends MatrixOptions {
  /** Where chance begins, a whole number from 0: the same seed gives the same groups on every machine. Default 0. */
  seed?: number | undefined;
  /** Most steps, 1–100000. Default 300; most need fewer, and end by themselves. */
  maxIterations?: number | undefined;
}

/** What {@link topK} has found. */
export interface TopK {
  /** Places of each query: `k`, or as many as there are vectors, if those are fewer. */
  readonly k: number;
  /** `queries × k` indices, query by query, the nearest first; -1 where a threshold has left places free. */
  readonly indices: Int32Array;
  /** The cosine of each; `-Infinity` where there is none. */
  readonly scores: Float32Array;
}

/** Two vectors that are near: `a` comes before `b`. */
export interface Pair {
  a: number;
  b: number;
  /** Their cosine. */
  score: number;
}

/** What {@link dedupe} has found. */
export interface Deduplicated {
  /** Indices of those that are kept, in order. */
  readonly keep: Uint32Array;
  /** For each the index of the kept one that it repeats; -1 where it is kept. */
  readonly duplicateOf: Int32Array;
}

/** What {@link kMeans} has found. */
export interface Clusters {
  /** The group of each vector, 0 to k − 1. */
  readonly labels: Uint32Array;
  /** The mean of each group. */
  readonly centroids: EmbeddingMatrix;
  /** The sum of the squared distances of all vectors to the centroids of their groups. */
  readonly inertia: number;
  /** Steps that were made. */
  readonly iterations: number;
}

const STOPS: Names<MatrixOptions> = { signal: true, timeoutMs: true };
const readStops = optionReader<MatrixOptions>(STOPS);
const readTopK = optionReader<TopKOptions>({ ...STOPS, threshold: true });
const readThreshold = demanding(optionReader<ThresholdOptions>({ ...STOPS, threshold: true }));
const readCommunities = demanding(optionReader<CommunityOptions>({ ...STOPS, threshold: true, minSize: true }));
const readKMeans = optionReader<KMeansOptions>({ ...STOPS, seed: true, maxIterations: true });

/** Indices are 31 bits. */
const MOST_ROWS = 2 ** 31 - 1;

/**
 * The cosine of the angle between two vectors, -1–1; 0 where one of them is all zeros.
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for vectors of two lengths, or with values that are no finite numbers.
 */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const [x, y] = both(a, b);
  // Of those whose largest value is 1: no square is too large or too small.
  const [sx, sy] = [largest(x, 'a'), largest(y, 'b')];
  if (sx === 0 || sy === 0) return 0;
  let [xy, xx, yy] = [0, 0, 0];
  for (let i = 0; i < x.length; i++) {
    const [p, q] = [x[i]! / sx, y[i]! / sy];
    xy += p * q;
    xx += p * p;
    yy += q * q;
  }
  return Math.max(-1, Math.min(1, xy / Math.sqrt(xx * yy)));
}

/** The dot product of two vectors. @throws as {@link cosine}. */
export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const [x, y] = both(a, b);
  for (const [vector, name] of [[x, 'a'], [y, 'b']] as const) largest(vector, name);
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * y[i]!;
  return sum;
}

/** The cosine of `query` and each vector of `matrix`, in order; 0 where one of the two is all zeros. */
export async function similarities(query: ArrayLike<number>, matrix: Vectors, options: MatrixOptions = {}): Promise<Float32Array> {
  const stops = readStops(options);
  const { data, dimensions } = vectorsOf(matrix, 'matrix');
  const asked = vectorOf(query, 'query', dimensions);
  return run(stops, async (work) => Float32Array.from(await work.similarities(asked, data)));
}

/**
 * For each of `queries`, one vector or many, the `k` vectors of `matrix` with the highest cosine, the nearest first; of equally
 * near ones, those that come first. Exact.
 */
export async function topK(queries: Vectors | ArrayLike<number>, matrix: Vectors, k: number, options: TopKOptions = {}): Promise<TopK> {
  const { threshold = -1, ...stops } = readTopK(options);
  const { data, dimensions } = vectorsOf(matrix, 'matrix');
  const asked = isMatrix(queries) ? vectorsOf(queries, 'queries', dimensions).data : vectorOf(queries, 'queries', dimensions);
  const places = argument('k', k, 1, MOST_ROWS);
  const least = cosineOf('threshold', threshold);
  return run(stops, async (work) => {
    const found = await work.topK(asked, data, dimensions, places, least);
    return { k: found.places, indices: Int32Array.from(found.rows), scores: Float32Array.from(found.scores) };
  });
}

/**
 * All pairs of vectors whose cosine is at least `threshold`, the nearest first.
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` where there are more than 16,777,216.
 */
export async function pairs(matrix: Vectors, options: ThresholdOptions): Promise<Pair[]> {
  const { threshold, ...stops } = readThreshold(options);
  const { data, dimensions } = vectorsOf(matrix, 'matrix');
  const least = cosineOf('threshold', threshold);
  return run(stops, async (work) => {
    const { rows, scores } = await work.pairs(data, dimensions, least);
    return Array.from(scores, (score, at) => ({ a: rows[2 * at]!, b: rows[2 * at + 1]!, score }));
  });
}

/**
 * Which vectors say something new: in their order, each is kept unless its cosine with one that is kept already is at least
 * `threshold`; then it repeats the nearest of those. Nothing is compared with what repeats, so that duplicates form no chains.
 */
export async function dedupe(matrix: Vectors, options: ThresholdOptions): Promise<Deduplicated> {
  const { threshold, ...stops } = readThreshold(options);
  const { data, dimensions } = vectorsOf(matrix, 'matrix');
  const least = cosineOf('threshold', threshold);
  return run(stops, async (work) => {
    const { keep, duplicateOf } = await work.dedupe(data, dimensions, least);
    return { keep: Uint32Array.from(keep), duplicateOf: Int32Array.from(duplicateOf) };
  });
}

/**
 * Groups of vectors that lie around one of them: indices, that one first, then those whose cosine with it is at least `threshold`,
 * the nearest first. No vector is in two groups, those far from all others are in none; the largest group comes first.
 */
export async function communities(matrix: Vectors, options: CommunityOptions): Promise<Uint32Array[]> {
  const { threshold, minSize = 2, ...stops } = readCommunities(options);
  const { data, dimensions } = vectorsOf(matrix, 'matrix');
  const [least, size] = [cosineOf('threshold', threshold), whole('minSize', minSize, 1, MOST_ROWS)];
  return run(stops, async (work) => (await work.communities(data, dimensions, least, size)).map((group) => Uint32Array.from(group)));
}

/**
 * Groups all vectors around `k` means (k-means with the centres of greedy k-means++), by their squared distances. For vectors of
 * length 1, that is by their cosines.
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for a `k` that is not from 1 to the number of vectors.
 */
export async function kMeans(matrix: Vectors, k: number, options: KMeansOptions = {}): Promise<Clusters> {
  const { seed = 0, maxIterations = 300, ...stops } = readKMeans(options);
  const { data, dimensions } = vectorsOf(matrix, 'matrix');
  const rows = data.length / dimensions;
  const groups = argument('k', k, 1, MOST_ROWS);
  if (groups > rows) throw invalid(`k is ${groups}, but there are only ${rows} vectors`, { k: groups, rows });
  const begin = whole('seed', seed, 0, Number.MAX_SAFE_INTEGER);
  const steps = whole('maxIterations', maxIterations, 1);
  return run(stops, async (work) => {
    const { labels, centroids, inertia, iterations } = await work.kMeans(data, dimensions, groups, begin, steps);
    return { labels: Uint32Array.from(labels), centroids: new EmbeddingMatrix(Float32Array.from(centroids), dimensions), inertia, iterations };
  });
}

/** Reads options that have to be given: where none are, it is the one that has no default that is missing. */
function demanding<Options>(reader: (options: unknown) => Options): (options: unknown) => Options {
  return (options) => reader(options === undefined ? {} : options);
}

function run<T>(stops: MatrixOptions, work: (native: NativeMatrixWork) => Promise<T>): Promise<T> {
  const running = new (native().NativeMatrixWork)();
  return watched(checkWatch(stops), () => running.cancel(), () => work(running));
}

function isMatrix(value: unknown): value is Vectors {
  return typeof value === 'object' && value !== null && !isArray(value) && !ArrayBuffer.isView(value);
}

/** The vectors as they are now, of `dimensions` values, if that is said. */
function vectorsOf(given: unknown, what: string, dimensions?: number): Vectors {
  if (!isMatrix(given)) throw invalid(`${what} is ${show(given)}, not an EmbeddingMatrix: new EmbeddingMatrix(data, dimensions) makes one`);
  const vectors = { data: read(given, 'data', what) as Float32Array, dimensions: read(given, 'dimensions', what) as number };
  // A lookup that has found nothing has vectors of no length.
  if (vectors.dimensions === 0 && vectors.data?.length === 0) vectors.dimensions = dimensions ?? 1;
  checkShape(vectors.data, vectors.dimensions, `${what}.data`);
  if (dimensions !== undefined && vectors.data.length > 0 && vectors.dimensions !== dimensions) {
    throw invalid(`${what} has vectors of ${vectors.dimensions} values, the matrix of ${dimensions}: compare those of one model`);
  }
  if (vectors.data.length / vectors.dimensions > MOST_ROWS) throw invalid(`${what} has more than ${MOST_ROWS} vectors`);
  return vectors;
}

function vectorOf(given: unknown, what: string, dimensions: number): Float32Array {
  const values = numbersOf(given, what);
  if (values.length !== dimensions) throw invalid(`${what} has ${values.length} values, the vectors of the matrix ${dimensions}: compare those of one model`);
  largest(values, what);
  return Float32Array.from(values);
}

function both(a: unknown, b: unknown): [ArrayLike<number>, ArrayLike<number>] {
  const [x, y] = [numbersOf(a, 'a'), numbersOf(b, 'b')];
  if (x.length !== y.length) throw invalid(`a has ${x.length} values and b ${y.length}: compare vectors of one length`);
  return [x, y];
}

function numbersOf(given: unknown, what: string): ArrayLike<number> {
  if (!isArray(given) && !(ArrayBuffer.isView(given) && 'length' in given)) throw invalid(`${what} is ${show(given)}, not an array of numbers`);
  const values = given as ArrayLike<number>;
  if (values.length === 0) throw invalid(`${what} has no values`);
  return values;
}

/** The largest of the values without their signs. Refuses what is no finite number. */
function largest(values: ArrayLike<number>, what: string): number {
  let most = 0;
  try {
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      if (typeof value !== 'number' || !Number.isFinite(value)) throw invalid(`${what} has ${show(value)} at position ${i}, not a finite number`);
      most = Math.max(most, Math.abs(value));
    }
  } catch (thrown) {
    if (thrown instanceof EmbeddingError) throw thrown;
    throw new EmbeddingError('INVALID_ARGUMENT', `${what} cannot be read: ${messageOf(thrown)}`, { cause: thrown });
  }
  return most;
}

function argument(name: string, value: unknown, from: number, to: number): number {
  if (Number.isSafeInteger(value) && (value as number) >= from && (value as number) <= to) return value as number;
  throw invalid(`${name} is ${show(value)}, not a whole number from ${from} to ${to}`);
}

function cosineOf(name: string, value: unknown): number {
  if (typeof value === 'number' && value >= -1 && value <= 1) return value;
  throw refused(name, value === undefined ? 'it is missing: give the least cosine, from -1 to 1' : `${show(value)} is not a number from -1 to 1`);
}
