import { availableParallelism } from 'node:os';

import { show } from '../call/input';
import { isInstance, refused } from '../call/options';
import { getGlobalMonitor, PerformanceMonitor } from '../index';

/** What to do with an item that fails. */
export type OnError = 'throw' | 'skip' | 'collect';

const ON_ERROR: readonly unknown[] = ['throw', 'skip', 'collect'];

/** As many as there are cores for this process. */
export const cores = availableParallelism;

export function onErrorOf(value: unknown): OnError {
  if (ON_ERROR.includes(value)) return value as OnError;
  throw refused('onError', `${show(value)} is not 'throw', 'skip' or 'collect'`);
}

/** Who is told: the global monitor, another one, or nobody. */
export function monitorOf(value: unknown): PerformanceMonitor | undefined {
  if (value === undefined) return getGlobalMonitor();
  if (value === false) return undefined;
  if (isInstance(value, PerformanceMonitor, 'monitor')) return value as PerformanceMonitor;
  throw refused('monitor', `${show(value)} is neither a PerformanceMonitor nor false`);
}
