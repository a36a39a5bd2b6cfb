import { show } from '../call/input';
import { isInstance, optionReader, refused, untouched } from '../call/options';
import { InferenceCache, type InferenceWrapOptions } from '../index';

/** Options of {@link cachedCall}. */
export interface CachedCallOptions extends InferenceWrapOptions {
  /** The type of the results: by it, their time to live is set. Default `'api'`. */
  type?: string | undefined;
  /** Where they are kept. Default: a cache of the process, in memory. */
  cache?: InferenceCache | undefined;
}

const readOptions = optionReader<CachedCallOptions>({
  type: true, ttlSeconds: true, params: untouched, modality: true, semantic: true, metadata: untouched, tags: true, name: true, cache: untouched,
});

let ofProcess: InferenceCache | undefined;

/**
 * A function that remembers what it has answered: by its name, and by its arguments, which must be JSON or bytes. What many
 * ask at the same time is asked once; failures are not kept. Functions of one name share their results: give `name` where
 * two are called the same, or where one has none.
 *
 * `const summary = cachedCall(summarize, { type: 'text_inference', ttlSeconds: 3600 });`
 */
export function cachedCall<A extends unknown[], R>(fn: (...args: A) => R | Promise<R>, options: CachedCallOptions = {}): (...args: A) => Promise<R> {
  const { cache, type = 'api', ...rest } = readOptions(options);
  if (cache !== undefined && !isInstance(cache, InferenceCache, 'cache')) throw refused('cache', `${show(cache)} is not an InferenceCache`);
  return (cache ?? (ofProcess ??= new InferenceCache())).wrap(fn, { ...rest, type });
}
