import { setMaxListeners } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { aborted, onAbort } from '../call/limits';
import { isThenable, type Chunk, type Source } from './source';

/** The answer to an item: exactly one for each. */
export type Settled<R> =
  | { index: number; status: 'fulfilled'; value: R }
  | { index: number; status: 'rejected'; reason: unknown };

/** Told of each answer, in any order. What it throws ends everything, and so does a promise that it answers and that rejects. */
export type Answer<R> = (index: number, fulfilled: boolean, value: R | unknown) => unknown;

/** What processes a chunk. Answers every item of it, and rejects only where nothing can go on. */
export interface Runner<T, R> {
  run(chunk: Chunk<T>, answer: Answer<R>, signal: AbortSignal): Promise<void>;
}

/** How much is done at once. */
export interface Limits {
  concurrency: number;
  chunkSize: number;
  signal: AbortSignal | undefined;
}

/** Longest time without a turn of the event loop, in ms, where functions never wait. */
const TURN_MS = 10;

/**
 * Runs everything that `source` has, `concurrency` chunks at a time, and resolves when all is answered. Rejects at once
 * with what ends it early: an abort, what the runner rejects with, or what `answer` throws. What still runs then has its
 * signal aborted, and its answers are dropped. What the source throws comes last, when all before it is answered.
 */
export function drive<T, R>(source: Source<T>, runner: Runner<T, R>, { concurrency, chunkSize, signal }: Limits, answer: Answer<R>): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = new AbortController();
    // Every function that runs may listen.
    setMaxListeners(0, stop.signal);
    let over = false;
    let forget: (() => void) | undefined;
    let slots = concurrency;
    let turned = performance.now();
    const end = (settle: () => void) => {
      if (over) return;
      over = true;
      forget?.();
      source.close();
      settle();
    };
    const fail = (reason: unknown) => end(() => {
      stop.abort(reason);
      reject(reason);
    });
    const abort = () => fail(aborted(signal));
    // Promises that `answer` has answered, and that are not settled.
    let telling = 0;
    const told = () => {
      if (--telling === 0 && slots === 0 && !broken) end(resolve);
    };
    const answered: Answer<R> = (index, fulfilled, value) => {
      const answers = over ? undefined : answer(index, fulfilled, value);
      if (!isThenable(answers)) return;
      telling++;
      Promise.resolve(answers).then(told, fail);
    };
    let broken: { thrown: unknown } | undefined;
    const read = async (taken: Promise<Chunk<T>>) => {
      try {
        return await taken;
      } catch (thrown) {
        broken ??= { thrown };
        return undefined;
      }
    };
    const slot = async () => {
      while (!over && !broken) {
        const taken = source.take(chunkSize);
        const chunk = taken instanceof Promise ? await read(taken) : taken;
        if (!chunk) break;
        if (over || chunk.items.length === 0) break;
        await runner.run(chunk, answered, stop.signal);
        if (performance.now() - turned < TURN_MS) continue;
        await nextTurn();
        turned = performance.now();
      }
      if (--slots > 0) return;
      if (broken) fail(broken.thrown);
      else if (telling === 0) end(resolve);
    };
    if (signal?.aborted) return abort();
    if (signal) forget = onAbort(signal, abort);
    const most = source.total === undefined ? concurrency : Math.min(concurrency, Math.ceil(source.total / chunkSize));
    slots = Math.max(1, most);
    for (let i = slots; i > 0 && !over; i--) slot().catch(fail);
  });
}
