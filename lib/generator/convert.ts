// Results of a call, made on the event loop without holding it.

import { setImmediate as nextTurn } from 'node:timers/promises';

/** Results converted between two turns of the event loop: about two milliseconds of work. */
export const RESULTS_PER_TURN = 512;

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
