import { setImmediate as nextTurn } from 'node:timers/promises';

import { refuseOtherTask, type ModelKind } from '../call/model-kind';
import { read } from '../call/options';
import {
  CrossEncoder,
  EmbeddingError,
  OptimizedEmbeddingGenerator,
  type CrossEncoderOptions,
  type EmbeddingMatrix,
  type GeneratorOptions,
  type InitializeOptions,
  type ModelInfo,
} from '../index';

/** Vectors converted between two turns of the event loop: about a millisecond of work. */
const ROWS_PER_TURN = 256;

/** What is loaded, by any class that has a model. */
interface Loadable {
  isReady(): boolean;
  initialize(modelPath?: undefined, options?: InitializeOptions): Promise<void>;
  getModelInfo(): ModelInfo;
  cleanup(): Promise<void>;
}

/** A model behind an interface: loaded when it is first needed, and closed only by the one who made it. */
class OnDemand<Model extends Loadable> {
  protected readonly model: Model;
  /** The class that it has to be of, and how its user calls it. */
  readonly #wanted: ModelKind;
  readonly #name: string;
  readonly #own: boolean;
  #loading: Promise<void> | undefined;

  protected constructor(model: Model, own: boolean, wanted: ModelKind, name: string) {
    this.model = model;
    this.#own = own;
    this.#wanted = wanted;
    this.#name = name;
  }

  /**
   * What the model is, which is loaded if it is not. However many wait, it is loaded once; what failed is tried anew. A
   * `signal` ends the waiting, not the loading, for which others may wait; of several callbacks, the first is told.
   */
  async ready({ signal, progressCallback }: InitializeOptions = {}): Promise<ModelInfo> {
    if (signal?.aborted) throw aborted(signal);
    if (!this.model.isReady()) {
      this.#loading ??= this.model.initialize(undefined, progressCallback && { progressCallback }).finally(() => (this.#loading = undefined));
      await (signal ? unlessAborted(this.#loading, signal) : this.#loading);
    }
    const info = this.model.getModelInfo();
    refuseOtherTask(this.#wanted, info, this.#name);
    return info;
  }

  /** Frees the model, unless it is somebody else's. It is loaded again when it is needed again. */
  async close(): Promise<void> {
    if (this.#own) await this.model.cleanup();
  }
}

/** A generator. */
export class Embedder extends OnDemand<OptimizedEmbeddingGenerator> {
  /** `source`: the options of one of its own, or one that is there. */
  constructor(source: GeneratorOptions | OptimizedEmbeddingGenerator = {}) {
    super(isGenerator(source) ? source : new OptimizedEmbeddingGenerator(source), !isGenerator(source), 'OptimizedEmbeddingGenerator', 'generator');
  }

  get generator(): OptimizedEmbeddingGenerator {
    return this.model;
  }
}

/** A cross-encoder. */
export class Reranker extends OnDemand<CrossEncoder> {
  /** See {@link Embedder}; `name`: the option that it is. */
  constructor(source: CrossEncoderOptions | CrossEncoder, name: string) {
    super(isCrossEncoder(source) ? source : new CrossEncoder(source), !isCrossEncoder(source), 'CrossEncoder', name);
  }

  get encoder(): CrossEncoder {
    return this.model;
  }
}

function aborted(signal: AbortSignal): EmbeddingError {
  return new EmbeddingError('ABORTED', 'The call was aborted', { cause: signal.reason });
}

async function unlessAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  let stop: (() => void) | undefined;
  try {
    await Promise.race([
      work,
      new Promise<never>((_, reject) => {
        stop = () => reject(aborted(signal));
        signal.addEventListener('abort', stop, { once: true });
      }),
    ]);
  } finally {
    if (stop) signal.removeEventListener('abort', stop);
  }
}

/** Longest time that a timer can wait for. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** Errors of calls whose own limit is over. */
const limits = new WeakSet<object>();

/** Whether an error says that the limit of the whole call is over, so that nothing is left to try again in. */
export function isLimit(error: unknown): boolean {
  return typeof error === 'object' && error !== null && limits.has(error);
}

/**
 * Runs `work` for at most `timeoutMs`, whatever it waits for: the model, its turn, another attempt. `left` gives the
 * milliseconds that are left of it, for one step, and throws where there are none.
 * @throws `EmbeddingError` `TIMED_OUT`, for which {@link isLimit} holds.
 */
export async function withinLimit<T>(timeoutMs: number | undefined, work: (left: () => number | undefined) => Promise<T>): Promise<T> {
  // What is no time is refused by the generator, by name.
  if (timeoutMs === undefined || !(Number.isInteger(timeoutMs) && timeoutMs >= 1 && timeoutMs <= LONGEST_TIMER)) return work(() => timeoutMs);
  const end = performance.now() + timeoutMs;
  const over = () => {
    const error = new EmbeddingError('TIMED_OUT', `The call did not finish within ${timeoutMs} ms: allow more time or send fewer texts`, { retryable: true, details: { timeoutMs } });
    limits.add(error);
    return error;
  };
  const left = () => {
    const ms = Math.ceil(end - performance.now());
    if (ms <= 0) throw over();
    return Math.min(ms, timeoutMs);
  };
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => (timer = setTimeout(() => reject(over()), timeoutMs)));
  try {
    return await Promise.race([work(left), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether it has what is needed of a generator: of this copy of the package, of another, or one that stands in for it. */
export function isGenerator(value: unknown): value is OptimizedEmbeddingGenerator {
  return has(value, 'generator', 'embed', 'initialize');
}

/** The same of a cross-encoder. */
export function isCrossEncoder(value: unknown): value is CrossEncoder {
  return has(value, 'encoder', 'score', 'rank', 'initialize');
}

/** Whether it has these methods; `path`: the option that it is. */
export function has(value: unknown, path: string, ...methods: string[]): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return methods.every((name) => typeof read(value, name, `${path}.${name}`) === 'function');
}

/**
 * The first `dimensions` values of a vector, of length 1 again where the model's are: what a generator with that option
 * gives. For models that were trained for it (Matryoshka).
 */
export function shortened(vector: Float32Array, dimensions: number, { normalize }: Pick<ModelInfo, 'normalize'>): Float32Array {
  if (dimensions >= vector.length) return vector;
  const short = vector.slice(0, dimensions);
  if (!normalize) return short;
  let squares = 0;
  for (const value of short) squares += value * value;
  const length = Math.max(Math.sqrt(squares), 1e-12);
  return short.map((value) => value / length);
}

/** Refuses numbers of dimensions that the model does not have. */
export function checkDimensions(dimensions: unknown, { dimensions: most }: Pick<ModelInfo, 'dimensions'>): number {
  if (Number.isInteger(dimensions) && (dimensions as number) >= 1 && (dimensions as number) <= most) return dimensions as number;
  const shown = typeof dimensions === 'string' ? JSON.stringify(dimensions.slice(0, 40)) : String(dimensions);
  throw new EmbeddingError('INVALID_ARGUMENT', `dimensions is ${shown}, not a whole number from 1 to ${most}, which is what the model has`, {
    details: { option: 'dimensions' },
  });
}

/** Plain arrays, made without holding the event loop for long. `change` is applied to each vector first. */
export async function plainVectors(matrix: EmbeddingMatrix, change = (vector: Float32Array) => vector): Promise<number[][]> {
  const vectors: number[][] = [];
  for (let index = 0; index < matrix.rows; index++) {
    if (index > 0 && index % ROWS_PER_TURN === 0) await nextTurn();
    const vector = change(matrix.row(index));
    const numbers: number[] = new Array(vector.length);
    for (let i = 0; i < vector.length; i++) numbers[i] = vector[i]!;
    vectors.push(numbers);
  }
  return vectors;
}

/** All of them together. */
export function sum(counts: Uint32Array | Uint8Array): number {
  let total = 0;
  for (const count of counts) total += count;
  return total;
}
