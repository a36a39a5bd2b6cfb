import { isAbsolute } from 'node:path';
import { pathToFileURL } from 'node:url';
import { types } from 'node:util';

import { EmbeddingError } from '../call/errors';
import { invalid, show } from '../call/input';
import type { Answer, Runner } from './drive';
import { timedOut } from './function-runner';
import { TIMED_OUT, type WorkerPool } from './pool';
import { isThenable, type Chunk } from './source';
import { isCloneable, isDetached, partOf, reassemble, type WireAnswer } from './wire';

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
  const settings = { ...locate(work), spread, transfer };
  return {
    async run({ items, first }: Chunk<T>, answer: Answer<R>, signal: AbortSignal): Promise<void> {
      const ready = new Map<number, unknown>();
      for (const [i, item] of items.entries()) {
        try {
          ready.set(first + i, partOf(isThenable(item) ? await item : item));
        } catch (reason) {
          answer(first + i, false, reason);
        }
      }
      const refuse = (index: number, cause?: unknown) => {
        answer(index, false, unsendable(index, ready.get(index), cause));
        ready.delete(index);
      };
      for (const [index, item] of ready) if (isDetached(item)) refuse(index);
      let move = transfer && !pool.processes;
      while (ready.size > 0 && !signal.aborted) {
        const request = { ...settings, indexes: [...ready.keys()], items: [...ready.values()] };
        const outcome = await pool.run(request, { signal, timeoutMs, move });
        if (!('unsent' in outcome)) {
          for (const [i, index] of request.indexes.entries()) {
            if ('lost' in outcome) answer(index, false, outcome.lost === TIMED_OUT ? timedOut(index, timeoutMs!) : outcome.lost);
            else respond(outcome.answers[i]!, index, answer);
          }
          return;
        }
        const culprits = request.indexes.filter((index) => !isCloneable(ready.get(index), pool.processes));
        // Where all can be copied, one cannot be moved.
        for (const index of culprits.length > 0 || move ? culprits : request.indexes) refuse(index, outcome.unsent);
        if (culprits.length === 0) move = false;
      }
    },
  };
}

function unsendable(index: number, item: unknown, cause: unknown): EmbeddingError {
  const why = isDetached(item)
    ? 'is a buffer that was moved elsewhere: pass each buffer once, or without transfer'
    : 'cannot be sent to a worker: pass plain data, without functions and symbols';
  return new EmbeddingError('INVALID_ARGUMENT', `Item ${index} ${why}`, { details: { index }, ...(cause !== undefined && { cause }) });
}

function respond<R>(wire: WireAnswer, index: number, answer: Answer<R>): void {
  if ('value' in wire) answer(index, true, wire.value);
  else answer(index, false, reassemble(wire.thrown));
}

/** The module as a URL, and the name. */
function locate({ module, name = 'default' }: ModuleFunction): { module: string; name: string } {
  if (typeof name !== 'string' || name === '') throw invalid(`The name of the function is ${show(name)}, not the name of an export`);
  const text = types.isProxy(module) ? undefined : module instanceof URL ? module.href : module;
  if (typeof text === 'string' && text.startsWith('file:') && URL.canParse(text)) return { module: text, name };
  if (typeof text === 'string' && isAbsolute(text)) return { module: pathToFileURL(text).href, name };
  throw invalid(`The module is ${show(text)}: pass a file URL, such as new URL('./work.js', import.meta.url), or an absolute path`);
}
