// What goes into a result cache and comes out of it, and the shape in which it crosses to the native side.

import { createHash } from 'node:crypto';

import type { Modality } from '../cache/content';
import type { CacheEvent } from '../cache/report';
import type { SharedStats } from '../cache/shared';
import { invalid, show } from '../call/input';
import { optionReader, untouched, type Given, type Names } from '../call/options';
import type { NativeStored } from '../native/types';
import { canonicalJson, faithfulJson } from './canonical-json';

/** What a result is made from: a text, bytes, the hash of bytes that are not at hand, or anything that JSON can hold. */
export type InferenceContent = string | Uint8Array | { hash: string } | readonly unknown[] | { readonly [key: string]: unknown };

/** What, beside its content, tells one result from another. */
export interface InferenceKeyOptions {
  /**
   * The type of the result: by it, times to live are set, results are counted and can be invalidated. Default
   * `'text_inference'`, `'vision_inference'` or `'audio_inference'`, by `modality`.
   */
  type?: string | undefined;
  /** Everything else that the result depends on, such as the model and its temperature. The order of keys never matters. */
  params?: unknown;
  /** Of which kind the content is: results of different modalities never meet. Default `'text'`. */
  modality?: Modality | undefined;
  /** `false`: only a result of exactly this content. Default: whether the cache has `semantic`. */
  semantic?: boolean | undefined;
}

/** Settings of one result. */
export interface InferenceSetOptions extends InferenceKeyOptions {
  /** How long it is an answer, in seconds; 0: for ever. Default: its type's. */
  ttlSeconds?: number | undefined;
  /** Anything that JSON can hold, given back with the result. */
  metadata?: unknown;
  /** For {@link InferenceCache.invalidate}. */
  tags?: readonly string[] | undefined;
}

/** Settings of {@link InferenceCache.wrap}. */
export interface InferenceWrapOptions extends InferenceSetOptions {
  /** Tells the functions that are wrapped apart. Default: the function's own name. */
  name?: string | undefined;
}

/** A result that was set before. A copy: changing it never changes the cache. */
export interface CachedInference<T = unknown> {
  value: T;
  type: string;
  /** What was set with it. */
  metadata?: unknown;
  tags: string[];
  /** In milliseconds since 1970. */
  createdAt: number;
  /** In milliseconds since 1970; `null`: never. */
  expiresAt: number | null;
  /** Of a near hit only: the cosine of the two prompts' vectors, -1–1. */
  similarity?: number;
  /** Of a near hit only: the prompt that the result was made from. */
  matchedContent?: string;
}

/** A result, whether it was set before or just computed. */
export interface InferenceAnswer<T = unknown> {
  value: T;
  /** Whether this call did not compute it: it was in the cache, or another call computed it at the same time. */
  fromCache: boolean;
  metadata?: unknown;
  similarity?: number;
  matchedContent?: string;
}

/** One result of {@link InferenceCache.getMany}. */
export interface InferenceLookup extends InferenceKeyOptions {
  content: InferenceContent;
}

/** One result of {@link InferenceCache.setMany}. */
export interface InferenceEntry extends InferenceSetOptions {
  content: InferenceContent;
  value: unknown;
}

/** How one type does. Every number is measured. */
export interface InferenceTypeStats {
  /** `hits + misses`. */
  totalRequests: number;
  /** Near hits included. */
  hits: number;
  nearHits: number;
  misses: number;
  /** 0–1; 0 before the first lookup. */
  hitRatio: number;
  /** Lookups that found a result whose time was over. */
  expired: number;
  /** Lookups that found a damaged row, which is then deleted. */
  damaged: number;
  sets: number;
  /** Results in memory. */
  entries: number;
  /** Bytes of them, without their bookkeeping. */
  bytes: number;
}

/** How the cache does, since it was made. Every number is measured. */
export interface InferenceCacheStats extends Omit<InferenceTypeStats, 'entries' | 'bytes'> {
  /** Hits that were answered from memory, from disk, and from the server; the rest are near ones. */
  memoryHits: number;
  diskHits: number;
  sharedHits: number;
  /** Entries in memory: results, and prompts that can be found by their meaning. */
  currentEntries: number;
  /** Bytes that they take, bookkeeping included. */
  currentSizeBytes: number;
  maxEntries: number;
  maxSizeBytes: number;
  /** How full memory is, by entries or by bytes, whichever is fuller, 0–1. */
  utilization: number;
  /** Results that could not be kept, although whoever had computed them was answered. Each is told by an event. */
  rejected: number;
  /** Entries that left memory. Those that were not deleted or replaced stay on disk. */
  evictions: number;
  evictionCauses: { expired: number; explicit: number; replaced: number; size: number };
  /** The file, as in {@link CacheStats}; `null` without `persistPath`. */
  disk: {
    available: boolean;
    entries: number;
    sizeBytes: number;
    queued: number;
    written: number;
    lost: number;
    evicted: number;
    damaged: number;
    errors: number;
  } | null;
  /** The server; `null` without `shared`. */
  shared: SharedStats | null;
  /** The numbers of each type that was ever looked up or set, or that memory holds. */
  byType: Record<string, InferenceTypeStats>;
}

/** What is published on the `diagnostics_channel` `embedcore:results`. */
export type InferenceCacheEvent =
  | Exclude<CacheEvent, { type: 'hit-ratio-low' }>
  | { type: 'near-hit'; resultType: string; similarity: number; content: string; matchedContent: string }
  /** The error is what `semantic.embed` has thrown, as it is. */
  | { type: 'semantic-failed'; error: Error };

const MODALITIES: readonly unknown[] = ['text', 'image', 'audio'];
const DEFAULT_TYPES: Record<Modality, string> = {
  text: 'text_inference',
  image: 'vision_inference',
  audio: 'audio_inference',
};

const KEY: Names<InferenceKeyOptions> = { type: true, params: untouched, modality: true, semantic: true };
const SET: Names<InferenceSetOptions> = { ...KEY, ttlSeconds: true, metadata: untouched, tags: true };

export const readKey = optionReader(KEY);
export const readSetting = optionReader(SET);
export const readWrap = optionReader<InferenceWrapOptions>({ ...SET, name: true });
export const readLookup = optionReader<InferenceLookup>({ ...KEY, content: untouched });
export const readEntry = optionReader<InferenceEntry>({ ...SET, content: untouched, value: untouched });

/** What a key is made of, as it crosses. */
export interface KeyParts {
  type: string;
  params: string;
  modality: Modality;
  form: 'text' | 'json' | 'name';
  content: string | Uint8Array;
  semantic: boolean;
}

/** Lone surrogates have no UTF-8: two texts that differ in them only would become one. */
export function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}

/** A name that can be a type or a tag. */
function nameOf(name: unknown, what: string): string {
  if (typeof name !== 'string' || name === '' || !isWellFormed(name)) {
    throw invalid(`${what} is ${show(name)}, not a non-empty string of whole characters`);
  }
  if (name.length > 1000) throw invalid(`${what} has ${name.length} characters, more than the limit of 1000`);
  return name;
}

export function typeOf(type: unknown): string {
  return nameOf(type, 'The type');
}

export function tagsOf(tags: unknown, what = 'tags'): string[] {
  if (tags === undefined) return [];
  if (!Array.isArray(tags)) throw invalid(`${what} is ${show(tags)}, not an array of strings`);
  if (tags.length > 100) throw invalid(`${what} has ${tags.length} tags, more than the limit of 100`);
  return [...new Set(tags.map((tag, at) => nameOf(tag, `${what}[${at}]`)))];
}

/** Refuses what cannot be a key. */
export function keyParts(content: unknown, given: Given<InferenceKeyOptions>): KeyParts {
  const { modality = 'text', params = {}, semantic = true } = given;
  if (!MODALITIES.includes(modality)) throw invalid(`modality is ${show(modality)}, not 'text', 'image' or 'audio'`);
  if (typeof semantic !== 'boolean') throw invalid(`semantic is ${show(semantic)}, not true or false`);
  const { type = DEFAULT_TYPES[modality] } = given;
  return { type: typeOf(type), params: canonicalJson(params, 'params'), modality, semantic, ...contentParts(content) };
}

/**
 * What a call of a function is about. Arguments that are left out are as good as undefined ones; a text that is the only
 * one may be found by its meaning; bytes, at any depth, count by their hash and are never the text that they may spell.
 */
export function argumentParts(args: readonly unknown[]): Pick<KeyParts, 'form' | 'content'> {
  let length = args.length;
  while (length > 0 && args[length - 1] === undefined) length--;
  const [first] = args;
  if (length === 1 && typeof first === 'string' && first !== '') return contentParts(first);
  return { form: 'json', content: canonicalJson(args.slice(0, length), 'content', hashOfBytes) };
}

/** No JSON: nothing else that is a key can be equal to it. */
function hashOfBytes(bytes: Uint8Array): string {
  return `#${Buffer.isBuffer(bytes) ? 'buffer' : 'bytes'}:${createHash('sha256').update(bytes).digest('hex')}`;
}

export function contentParts(content: unknown): Pick<KeyParts, 'form' | 'content'> {
  if (typeof content === 'string') {
    if (content === '') throw invalid('The content is empty: a result is made from something');
    return isWellFormed(content) ? { form: 'text', content } : { form: 'json', content: JSON.stringify(content) };
  }
  if (content instanceof Uint8Array || Object.prototype.toString.call(content) === '[object Uint8Array]') {
    const bytes = content as Uint8Array;
    if (bytes.length === 0) throw invalid('The content is empty: a result is made from something');
    return { form: 'text', content: bytes };
  }
  if (typeof content !== 'object' || content === null) {
    throw invalid(`The content is ${show(content)}: pass a text, bytes, { hash }, or an object or array of JSON`);
  }
  const keys = Object.keys(content);
  if (keys.length === 1 && keys[0] === 'hash') return { form: 'name', content: hashOf((content as { hash: unknown }).hash) };
  return { form: 'json', content: canonicalJson(content, 'content') };
}

function hashOf(hash: unknown): string {
  const parts = typeof hash === 'string' ? /^([a-z0-9-]+):([0-9a-f]{16,256})$/.exec(hash.toLowerCase()) : null;
  if (!parts) throw invalid(`The hash is ${show(hash)}, not an algorithm and hexadecimal digits such as 'sha256:9f86d0…'`);
  if (parts[1] === 'sha256' && parts[2]!.length !== 64) {
    throw invalid(`The hash has ${parts[2]!.length} hexadecimal digits, a SHA-256 has 64`);
  }
  return parts[0];
}

/** Settings of one result, as they cross. */
export interface Setting {
  /** JSON, or empty. */
  metadata: string;
  tags: string[];
  ttlSeconds?: number;
}

export function settingOf(options: Given<InferenceSetOptions>): Setting {
  const { ttlSeconds, metadata, tags } = options;
  if (ttlSeconds !== undefined && (typeof ttlSeconds !== 'number' || !(ttlSeconds >= 0) || ttlSeconds === Infinity)) {
    throw invalid(`ttlSeconds is ${show(ttlSeconds)}, not a number of seconds from 0, which is for ever`);
  }
  return {
    metadata: metadata === undefined ? '' : faithfulJson(metadata, 'metadata'),
    tags: tagsOf(tags),
    ...(ttlSeconds !== undefined && { ttlSeconds }),
  };
}

/** See `src/results/payload.rs`. */
const JSON_TEXT = 1;
const BYTES = 2;
const BUFFER = 3;

/** A value as it is kept. */
export interface Kept {
  format: number;
  value: string | Uint8Array;
}

/** The value as it is kept, copied. */
export function keep(value: unknown): Kept {
  if (Buffer.isBuffer(value)) return { format: BUFFER, value: Uint8Array.from(value) };
  if (Object.prototype.toString.call(value) === '[object Uint8Array]') {
    return { format: BYTES, value: Uint8Array.from(value as Uint8Array) };
  }
  if (ArrayBuffer.isView(value) || Object.prototype.toString.call(value) === '[object ArrayBuffer]') {
    throw invalid(`The value is of the type ${Object.prototype.toString.call(value).slice(8, -1)}: pass a Uint8Array or a Buffer`);
  }
  return { format: JSON_TEXT, value: faithfulJson(value, 'value') };
}

/** The value that is kept, as one of the caller's own. */
export function unkeep<T>({ format, value }: Kept): T {
  if (format === JSON_TEXT) return JSON.parse(value as string) as T;
  const bytes = value as Uint8Array;
  if (format === BUFFER) return Buffer.from(bytes) as T;
  return Uint8Array.from(bytes) as T;
}

export function cachedOf<T>(stored: NativeStored, type: string): CachedInference<T> {
  const { metadata, similarity, matched } = stored;
  return {
    value: unkeep<T>(stored),
    type,
    tags: stored.tags,
    createdAt: stored.createdAt,
    expiresAt: stored.expiresAt ?? null,
    ...(metadata != null && { metadata: JSON.parse(metadata) as unknown }),
    ...(similarity != null && { similarity }),
    ...(matched != null && { matchedContent: matched }),
  };
}
