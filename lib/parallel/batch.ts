import { whole } from '../call/checks';
import { EmbeddingGenerationError } from '../call/errors';
import { invalid, show } from '../call/input';
import { optionReader } from '../call/options';
import type { Answer, Runner, Settled } from './drive';
import { limited } from './function-runner';
import { callOf, collect, type Call, type Collecting, type Items, type ParallelMapOptions, type Results, type Throwing } from './map';
import type { Chunk } from './source';

/** A function that answers a batch: a result for each of its items, in their order. */
export type BatchFunction<T, R> = (batch: T[], batchIndex: number, signal: AbortSignal) => readonly R[] | PromiseLike<readonly R[]>;

/** Options of {@link batchProcess}, as those of {@link parallelMap}, of which `timeoutMs` is for a batch here. */
export interface BatchMapOptions extends Omit<ParallelMapOptions, 'chunkSize' | 'processes' | 'transfer'> {
  /** Items in a batch, from 1; the last one may have fewer. Default 32. */
  batchSize?: number | undefined;
}

export const readBatchOptions = optionReader<BatchMapOptions>({
  batchSize: true, concurrency: true, signal: true, onError: true, onProgress: true, timeoutMs: true, monitor: true,
});

/**
 * Hands items to a function in batches, several at a time, and gives the results in the order of the items. An item that a
 * batch has no result for would shift all others, so a batch that answers with more or fewer results than it has items fails
 * with `EMBEDDING_GENERATION_FAILED`, which names it. All items of a batch that fails fail.
 */
export function batchProcess<T, R>(items: Items<T>, work: BatchFunction<T, R>, options: BatchMapOptions & Collecting): Promise<Settled<R>[]>;
export function batchProcess<T, R>(items: Items<T>, work: BatchFunction<T, R>, options?: BatchMapOptions & Throwing): Promise<R[]>;
export function batchProcess<T, R>(items: Items<T>, work: BatchFunction<T, R>, options?: BatchMapOptions): Promise<Results<R>>;
export async function batchProcess<T, R>(items: Items<T>, work: BatchFunction<T, R>, options: BatchMapOptions = {}): Promise<R[] | Settled<R>[]> {
  return mapBatches(items, work, readBatchOptions(options));
}

/** The same with options that have been read. */
export function mapBatches<T, R>(items: Items<T>, work: BatchFunction<T, R>, { batchSize = 32, ...options }: BatchMapOptions, counted?: (fulfilled: boolean) => void): Promise<R[] | Settled<R>[]> {
  if (typeof work !== 'function') throw invalid(`What is to be done is ${show(work)}, not a function of a batch`);
  const call = callOf({ ...options, chunkSize: whole('batchSize', batchSize, 1) });
  return collect(items, { ...call, runner: batchRunner(work, call), ...(counted && { counted }) }, 'parallel.batch');
}

/** Calls a function with whole chunks. */
function batchRunner<T, R>(work: BatchFunction<T, R>, { timeoutMs, limits: { chunkSize: batchSize } }: Call): Runner<T, R> {
  const call = timeoutMs === undefined ? work : limited(work, timeoutMs, 'Batch');
  return {
    async run({ items, first }: Chunk<T>, answer: Answer<R>, signal: AbortSignal): Promise<void> {
      let results: readonly R[];
      try {
        // What the function does to its array changes nothing: it is no part of the answer.
        const answered = await call(await Promise.all(items), first / batchSize, signal);
        if (!Array.isArray(answered) || answered.length !== items.length) throw wrongLength(first / batchSize, items.length, answered);
        results = answered;
      } catch (reason) {
        for (let i = 0; i < items.length; i++) answer(first + i, false, reason);
        return;
      }
      for (let i = 0; i < items.length; i++) answer(first + i, true, results[i]);
    },
  };
}

function wrongLength(index: number, expected: number, results: unknown): EmbeddingGenerationError {
  const got = Array.isArray(results) ? `${results.length} results` : show(results);
  const message = `Batch ${index} was answered with ${got} for ${expected} items: answer an array with a result for each, in their order`;
  return new EmbeddingGenerationError(message, { details: { batch: index, expected, results: Array.isArray(results) ? results.length : null } });
}
