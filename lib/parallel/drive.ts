import { setImmediate as nextTurn } from 'node:timers/promises';

import { EmbeddingError } from '../call/errors';
import type { Chunk, Source } from './source';

/** The answer to an item: exactly one for each. */
export type Settled<R> =
  | { index: number; status: 'fulfilled'; value: R }
  | { index: number; status: 'rejected'; reason: unknown };

/** Told of each answer, in any order; what it throws ends everything. */
export type Answer<R> = (index: number, fulfilled: boolean, value: R | unknown) => void;

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
    let over = false;
    let slots = concurrency;
    let turned = performance.now();
    const end = (settle: () => void) => {
      if (over) return;
      over = true;
      signal?.removeEventListener('abort', onAbort);
      source.close();
      settle();
    };
    const fail = (reason: unknown) => end(() => {
      stop.abort(reason);
      reject(reason);
    });
    const onAbort = () => fail(new EmbeddingError('ABORTED', 'The call was aborted', { cause: signal!.reason }));
    const answered: Answer<R> = (index, fulfilled, value) => {
      if (!over) answer(index, fulfilled, value);
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
      else end(resolve);
    };
    if (signal?.aborted) return onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    const most = source.total === undefined ? concurrency : Math.min(concurrency, Math.ceil(source.total / chunkSize));
    slots = Math.max(1, most);
    for (let i = slots; i > 0 && !over; i--) slot().catch(fail);
  });
}
