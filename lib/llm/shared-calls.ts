import { EmbeddingError } from '../call/errors';
import { watched, type Watch } from '../call/limits';
import { end } from './limited';

interface SharedCall<T> {
  stop: AbortController;
  waiting: number;
  result: Promise<T>;
}

/** What came of a call, and whether another one had begun it. */
export interface Shared<T> {
  value: T;
  joined: boolean;
}

/**
 * Work that several callers wait for, each for as long as its own signal and time limit say. It is stopped when nobody
 * waits for it any more: with the time-out, if that made the last one leave.
 */
export class SharedCalls<T> {
  readonly #calls = new Map<string, SharedCall<T>>();

  /** What `work` gives, which is begun once for all who ask by this key at the same time. */
  async run(key: string, limits: Watch<never>, work: (signal: AbortSignal) => Promise<T>): Promise<Shared<T>> {
    // Who has aborted already begins nothing.
    const known = limits.signal?.aborted ? undefined : this.#calls.get(key);
    const call = known ?? (limits.signal?.aborted ? NEVER : this.#begin(key, work));
    call.waiting++;
    let reason: EmbeddingError | undefined;
    try {
      return { value: await watched(limits, (stopped) => (reason = stopped), () => call.result as Promise<T>), joined: known !== undefined };
    } finally {
      if (--call.waiting === 0) this.#leave(key, call as SharedCall<T>, reason);
    }
  }

  #begin(key: string, work: (signal: AbortSignal) => Promise<T>): SharedCall<T> {
    const stop = new AbortController();
    const result = once(stop.signal, work);
    // Whoever waits is told; if nobody does any more, nobody has to be.
    result.catch(() => {});
    const call = { stop, waiting: 0, result };
    this.#calls.set(key, call);
    return call;
  }

  #leave(key: string, call: SharedCall<T>, reason: EmbeddingError | undefined): void {
    if (this.#calls.get(key) === call) this.#calls.delete(key);
    end(call.stop, reason);
  }
}

/** Stands for a call of somebody who had aborted before. */
const NEVER: SharedCall<never> = { stop: new AbortController(), waiting: 0, result: new Promise<never>(() => {}) };

/** Once more, where it had joined something (in a cache, say) that was abandoned by others just then. */
async function once<T>(signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  try {
    return await work(signal);
  } catch (error) {
    if (signal.aborted || !(error instanceof EmbeddingError) || error.code !== 'ABORTED') throw error;
    return work(signal);
  }
}
