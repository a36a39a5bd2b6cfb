import { toEmbeddingError } from '../call/errors';
import { isPromise } from '../call/order';
import type { Addon, NativeMonitor } from './types';

/** The native side of each `PerformanceMonitor`: here, so that a generator need not load that class to be watched. */
export const monitorHandles = new WeakMap<object, NativeMonitor>();

let addon: Addon | undefined;

/** The addon, loaded at the first use: an import alone costs nothing and never fails. */
export function native(): Addon {
  return (addon ??= (require('./platform') as typeof import('./platform')).loadAddon());
}

/** Calls into the addon; what it throws is an {@link EmbeddingError}. */
export function call<T>(work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    throw toEmbeddingError(thrown);
  }
}

/** Calls into the addon, which answers now or later; what it throws or rejects with is an {@link EmbeddingError}. */
export function settled<T>(work: () => T | PromiseLike<T>): T | Promise<T> {
  const outcome = call(work);
  return isPromise(outcome) ? settle(async () => outcome) : outcome;
}

/** Awaits the addon; what it rejects with is an {@link EmbeddingError}. */
export async function settle<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    throw toEmbeddingError(thrown);
  }
}
