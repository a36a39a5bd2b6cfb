import { invalid } from './input';

/** Items of one call to the native side. The first call is small, so that the first results come soon. */
const FIRST_WINDOW = 32;
const WINDOW = 256;

/** Calls at a time: the next one fills the cores while the last texts of the one before run. */
const RUNNING = 3;

/** How long an item may wait for others to come along, in milliseconds. */
const PATIENCE_MS = 5;

/** Options of a stream. */
export interface StreamOptions {
  /** `'input'` (default): results in the order of their inputs. `'completion'`: as they are done. */
  order?: 'input' | 'completion' | undefined;
}

/** Gives one item after the other; `undefined` at the end. */
interface Source<Item> {
  next(): Promise<Item | typeof END> | Item | typeof END;
  close(): Promise<void>;
}

const END = Symbol('end');

/**
 * Runs `run` on windows of `inputs`, told where each begins, and gives its results. Reads at most {@link RUNNING} windows ahead of what was taken
 * from it; ending it early stops what runs, and closes the input.
 */
export async function* windows<Item, Result>(
  inputs: Iterable<Item> | AsyncIterable<Item>,
  order: 'input' | 'completion',
  run: (window: Item[], from: number, signal: AbortSignal) => Promise<Result[]>,
): AsyncGenerator<Result, void, undefined> {
  const source = open(inputs);
  const stop = new AbortController();
  const running: Promise<{ results: Result[]; self: number }>[] = [];
  const numbers: number[] = [];
  let started = 0;
  let read = 0;
  let window: Item[] = [];
  let waiting: Promise<Item | typeof END> | undefined;
  let ended = false;
  const start = () => {
    const self = started++;
    const call = run(window, read - window.length, stop.signal).then((results) => ({ results, self }));
    // Whoever waits for it gets its failure; until then it is nobody's.
    call.catch(() => {});
    running.push(call);
    numbers.push(self);
    window = [];
  };
  try {
    while (!ended || window.length > 0 || running.length > 0) {
      const size = started === 0 ? FIRST_WINDOW : WINDOW;
      while (!ended && running.length < RUNNING && window.length < size) {
        const item = waiting ?? source.next();
        const taken = isPromise(item) ? await soonest((waiting = item), window.length > 0 || running.length > 0) : item;
        if (taken === LATE) break;
        waiting = undefined;
        if (taken === END) ended = true;
        else {
          window.push(taken as Item);
          read++;
        }
      }
      if (window.length > 0 && running.length < RUNNING) start();
      if (running.length === 0) continue;
      const first = running[0]!;
      // While there is room for more, an item that comes is as good a reason to go on as a result.
      const reasons: Promise<unknown>[] = order === 'input' ? [first] : [...running];
      if (waiting && running.length < RUNNING) reasons.push(waiting.then(() => undefined));
      const done = (await Promise.race(reasons)) as { results: Result[]; self: number } | undefined;
      if (!done) continue;
      const at = numbers.indexOf(done.self);
      running.splice(at, 1);
      numbers.splice(at, 1);
      yield* done.results;
    }
  } finally {
    stop.abort();
    await Promise.allSettled(running);
    // A generator that is asked for an item closes only after it has given one, which may be never.
    const closing = ended ? undefined : source.close();
    if (waiting) closing?.catch(() => {});
    else await closing;
  }
}

const LATE = Symbol('late');

/** What `item` gives; {@link LATE} if it takes its time while there is something else to do. */
async function soonest<Item>(item: Promise<Item>, busy: boolean): Promise<Item | typeof LATE> {
  if (!busy) return item;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<typeof LATE>((resolve) => (timer = setTimeout(resolve, PATIENCE_MS, LATE)));
  try {
    return await Promise.race([item, late]);
  } finally {
    clearTimeout(timer);
  }
}

function isPromise<T>(value: T | Promise<T>): value is Promise<T> {
  return typeof (value as Promise<T> | null)?.then === 'function';
}

function open<Item>(inputs: Iterable<Item> | AsyncIterable<Item>): Source<Item> {
  const asynchronous = (inputs as AsyncIterable<Item> | null)?.[Symbol.asyncIterator];
  const synchronous = (inputs as Iterable<Item> | null)?.[Symbol.iterator];
  if (typeof asynchronous === 'function') {
    const iterator = asynchronous.call(inputs);
    return {
      next: async () => {
        const { done, value } = await iterator.next();
        return done ? END : value;
      },
      close: async () => void (await iterator.return?.()),
    };
  }
  if (typeof synchronous !== 'function' || typeof inputs === 'string') {
    throw invalid('The inputs of a stream are not iterable: pass an array, a generator or an async generator');
  }
  const iterator = synchronous.call(inputs) as Iterator<Item>;
  return {
    next: () => {
      const { done, value } = iterator.next();
      return done ? END : value;
    },
    close: async () => void iterator.return?.(),
  };
}
