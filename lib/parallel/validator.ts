import { milliseconds, signalOf, whole } from '../call/checks';
import { invalid, isArray, show } from '../call/input';
import { aborted } from '../call/limits';
import { optionReader } from '../call/options';
import type { PerformanceMonitor } from '../index';
import { drive, type Answer, type Runner } from './drive';
import { functionRunner, isTimeOut } from './function-runner';
import { moduleRunner, type ModuleFunction } from './module-runner';
import { monitorOf } from './options';
import { WorkerPool } from './pool';
import { isThenable, Source } from './source';
import { snapshot } from './wire';

/**
 * Looks at something and answers what it found, or throws. A function on this thread gets an `AbortSignal` behind the
 * arguments, which is aborted when its time is over; one of a module runs on a worker thread, which is ended then.
 */
export type Validator = ((...args: any[]) => unknown) | ModuleFunction;

/** Validators in order, named as their functions are; or by names of yours. */
export type Validators = readonly Validator[] | Readonly<Record<string, Validator>>;

/** What came of a validator. */
export interface ValidationResult {
  /** The name that it was given, else that of its function, else `validator 0` and so on. */
  name: string;
  /** Whether it answered. What it answered is for the caller to judge: `value: false` is an answer. */
  success: boolean;
  value?: unknown;
  /** What it threw, or `TIMED_OUT`. */
  error?: unknown;
  /** From its start to its answer, in milliseconds. */
  durationMs: number;
  timedOut: boolean;
}

/** Options of {@link ParallelValidator}. */
export interface ParallelValidatorOptions {
  /** Most validators at a time, from 1, and most worker threads. Default 4. */
  maxWorkers?: number | undefined;
  /** Longest time for each, in milliseconds, above 0. Default 30000. */
  timeoutMs?: number | undefined;
  /** Ends all runs, with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /** Who is told of each, as the operation `validate.` and its name. Default: the global monitor. `false`: nobody. */
  monitor?: PerformanceMonitor | false | undefined;
}

const readOptions = optionReader<ParallelValidatorOptions>({ maxWorkers: true, timeoutMs: true, signal: true, monitor: true });

/** Longest name of an operation, in characters. */
const MAX_NAME = 256;

interface Named {
  name: string;
  validator: Validator;
}

/**
 * Runs validators next to each other. Each is answered, in their order, whatever the others do: one that throws or hangs
 * has an error, and holds nobody up longer than its time.
 */
export class ParallelValidator implements AsyncDisposable {
  readonly #maxWorkers: number;
  readonly #timeoutMs: number;
  readonly #signal: AbortSignal | undefined;
  readonly #monitor: PerformanceMonitor | undefined;
  #pool: WorkerPool | undefined;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
  constructor(options: ParallelValidatorOptions = {}) {
    const { maxWorkers = 4, timeoutMs = 30_000, signal, monitor } = readOptions(options);
    this.#maxWorkers = whole('maxWorkers', maxWorkers, 1);
    this.#timeoutMs = milliseconds('timeoutMs', timeoutMs)!;
    this.#signal = signalOf(signal);
    this.#monitor = monitorOf(monitor);
  }

  /** Runs all of them on the same arguments. */
  async run(validators: Validators, ...args: unknown[]): Promise<ValidationResult[]> {
    const all = namesOf(validators);
    const results: ValidationResult[] = [];
    const runner: Runner<Named, ValidationResult> = {
      run: async ({ items, first }, answer, signal) => {
        const { name, validator } = items[0] as Named;
        const started = performance.now();
        const finish: Answer<unknown> = (_, success, value) => answer(first, true, this.#result(name, success, value, performance.now() - started));
        try {
          await this.#runnerOf(validator, name).run({ items: [typeof validator === 'function' ? args : sent], first }, finish, signal);
        } catch (error) {
          // A module that cannot be loaded is nobody else's failure.
          if (!signal.aborted) finish(first, false, error);
        }
      },
    };
    // Workers are sent the arguments as they are now, however long they wait.
    const sent = all.some(({ validator }) => typeof validator !== 'function') ? snapshot(args, false) : args;
    const limits = { concurrency: this.#maxWorkers, chunkSize: 1, signal: this.#signal };
    await drive<Named, ValidationResult>(new Source(all), runner, limits, (index, _, result) => (results[index] = result as ValidationResult));
    return results;
  }

  /** The same one after the other, for functions that do not wait: one that answers a promise has an error. */
  runSync(validators: Validators, ...args: unknown[]): ValidationResult[] {
    return namesOf(validators).map(({ name, validator }) => {
      if (this.#signal?.aborted) throw aborted(this.#signal);
      const started = performance.now();
      let [success, value]: [boolean, unknown] = [true, undefined];
      try {
        if (typeof validator !== 'function') throw invalid(`Validator ${show(name)} is a module's: call run() instead of runSync()`);
        value = validator(...args, this.#signal ?? new AbortController().signal);
        if (isThenable(value)) {
          // It answers nobody any more.
          Promise.resolve(value).catch(() => {});
          throw invalid(`Validator ${show(name)} answers a promise: call run() instead of runSync()`);
        }
      } catch (error) {
        [success, value] = [false, error];
      }
      return this.#result(name, success, value, performance.now() - started);
    });
  }

  /** Ends its worker threads. They end by themselves two seconds after the last run, too. */
  async close(): Promise<void> {
    await this.#pool?.close();
    this.#pool = undefined;
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #runnerOf(validator: Validator, name: string): Runner<unknown[], unknown> {
    const timeoutMs = this.#timeoutMs;
    if (typeof validator === 'function') return functionRunner((args, _, signal) => validator(...args, signal), timeoutMs, `Validator ${show(name)}, item`);
    this.#pool ??= new WorkerPool(this.#maxWorkers, false);
    return moduleRunner(validator, this.#pool, { timeoutMs, transfer: false, spread: true });
  }

  #result(name: string, success: boolean, value: unknown, durationMs: number): ValidationResult {
    const timedOut = !success && isTimeOut(value);
    this.#monitor?.record([...`validate.${name}`].slice(0, MAX_NAME).join(''), durationMs, { success, ...(!success && { error: value }) });
    return { name, success, ...(success ? { value } : { error: value }), durationMs, timedOut };
  }
}

function namesOf(validators: unknown): Named[] {
  const list = isArray(validators);
  return entriesOf(validators, list).map(([key, validator]: [string, unknown]) => {
    const { name, module } = readable(validator);
    if (typeof validator !== 'function' && module === undefined) throw invalid(`Validator ${key} is ${show(validator)}: pass a function, or { module, name }`);
    const own = typeof name === 'string' && name !== '' ? name : `validator ${key}`;
    return { name: list ? own : key, validator: validator as Validator };
  });
}

function entriesOf(validators: unknown, list: boolean): [string, unknown][] {
  try {
    // A Map or a Set has nothing by name.
    if (typeof validators === 'object' && validators !== null && (list || !(Symbol.iterator in validators))) return Object.entries(validators);
  } catch {}
  throw invalid(`The validators are ${show(validators)}, not an array, nor an object of them by name`);
}

function readable(validator: unknown): { name?: unknown; module?: unknown } {
  try {
    const { name, module } = (validator ?? {}) as { name?: unknown; module?: unknown };
    return { name, module };
  } catch {
    return {};
  }
}
