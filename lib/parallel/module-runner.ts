import { isAbsolute } from 'node:path';
import { pathToFileURL } from 'node:url';

import { invalid, show } from '../call/input';
import type { Answer, Runner } from './drive';
import { timedOut } from './function-runner';
import { TIMED_OUT, type WorkerPool } from './pool';
import { isThenable, type Chunk } from './source';
import { buffersOf, isCloneable, reassemble, type WireAnswer } from './wire';

/** A function that a module exports, to be run by worker threads or child processes: for work that keeps a processor busy. */
export interface ModuleFunction {
  /** A `file:` URL, or an absolute path. ES modules and CommonJS, as TypeScript compiles them, too. */
  module: URL | string;
  /** The name of the export. Default `'default'`. */
  name?: string | undefined;
}

/** How a function of a module is run. */
export interface ModuleRunOptions {
  timeoutMs: number | undefined;
  /** Whether buffers are moved instead of copied, both ways. */
  transfer: boolean;
  /** Whether each item is a list of arguments. Default: it is the first argument, and its index the second. */
  spread?: boolean;
}

/** Runs an exported function by the workers of a pool, a chunk by one worker. */
export function moduleRunner<T, R>(work: ModuleFunction, pool: WorkerPool, { timeoutMs, transfer, spread = false }: ModuleRunOptions): Runner<T, R> {
  const settings = { ...locate(work), spread, transfer, tellStart: timeoutMs !== undefined };
  return {
    async run({ items, first }: Chunk<T>, answer: Answer<R>, signal: AbortSignal): Promise<void> {
      const ready = new Map<number, unknown>();
      for (const [i, item] of items.entries()) {
        try {
          ready.set(first + i, isThenable(item) ? await item : item);
        } catch (reason) {
          answer(first + i, false, reason);
        }
      }
      while (ready.size > 0 && !signal.aborted) {
        const request = { ...settings, indexes: [...ready.keys()], items: [...ready.values()] };
        try {
          const outcome = await pool.run(request, { signal, timeoutMs, moved: transfer ? buffersOf(request.items) : [] });
          for (const [i, index] of request.indexes.entries()) {
            if ('lost' in outcome) answer(index, false, outcome.lost === TIMED_OUT ? timedOut(index, timeoutMs!) : outcome.lost);
            else respond(outcome.answers[i]!, index, answer);
          }
          return;
        } catch (error) {
          const unsendable = request.indexes.filter((index) => !isCloneable(ready.get(index)));
          if (unsendable.length === 0) throw error;
          for (const index of unsendable) {
            answer(index, false, invalid(`Item ${index} cannot be sent to a worker: pass plain data, without functions and symbols`, { index }));
            ready.delete(index);
          }
        }
      }
    },
  };
}

function respond<R>(wire: WireAnswer, index: number, answer: Answer<R>): void {
  if ('value' in wire) answer(index, true, wire.value);
  else answer(index, false, reassemble(wire.thrown));
}

/** The module as a URL, and the name. */
function locate({ module, name = 'default' }: ModuleFunction): { module: string; name: string } {
  if (typeof name !== 'string' || name === '') throw invalid(`The name of the function is ${show(name)}, not the name of an export`);
  const text = module instanceof URL ? module.href : module;
  if (typeof text === 'string' && text.startsWith('file:') && URL.canParse(text)) return { module: text, name };
  if (typeof text === 'string' && isAbsolute(text)) return { module: pathToFileURL(text).href, name };
  throw invalid(`The module is ${show(text)}: pass a file URL, such as new URL('./work.js', import.meta.url), or an absolute path`);
}
