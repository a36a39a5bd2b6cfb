// What a cache of results tells those who listen.

import { channel } from 'node:diagnostics_channel';
import { types } from 'node:util';

import { textOf, type CacheEvent } from '../cache/report';
import { EmbeddingError } from '../call/errors';
import { show } from '../call/input';
import type { Log } from '../call/logger';
import type { InferenceCacheEvent } from './values';

/** What happens to the file. */
type StorageEvent = Exclude<CacheEvent, { type: 'hit-ratio-low' }>;

/** Where events of result caches are published. */
export const events = channel('embedcore:results');

/** What happens is told to whoever listens. */
export function publish(event: InferenceCacheEvent, log?: Log): void {
  if (log) {
    const { type, ...details } = event;
    const level = type === 'near-hit' || type === 'evicted' ? 'debug' : type === 'storage-restored' ? 'info' : 'warn';
    log[level](describe(event), { event: type, ...details });
  }
  events.publish(event);
}

/** What the core tells its events to. Keeps no cache alive, which a function made in its constructor would: it would share what those beside it hold. */
export function publisher(log?: Log): (json: string) => void {
  return (json) => publish(JSON.parse(json) as StorageEvent, log);
}

function describe(event: InferenceCacheEvent): string {
  if (event.type === 'near-hit') return `A result of ${event.resultType} answers a prompt that means the same`;
  if (event.type === 'semantic-failed') return `A prompt could not be embedded, and finds no others: ${event.error.message}`;
  return textOf(event);
}

/** What was thrown, if it is an error. */
export function errorOf(thrown: unknown): Error {
  if (types.isNativeError(thrown) || thrown instanceof EmbeddingError) return thrown;
  return new EmbeddingError('EMBEDDING_GENERATION_FAILED', `semantic.embed has thrown ${show(thrown)}`, { cause: thrown });
}
