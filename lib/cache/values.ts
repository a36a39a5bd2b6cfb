// What goes into a cache and comes out of it, and the shape in which it crosses to the native side.

import { EmbeddingError, messageOf } from '../call/errors';
import { annotationFields, invalid, isArray, readGiven, show } from '../call/input';
import { optionReader, untouched, type Names } from '../call/options';
import { isPromise } from '../call/order';
import type { EmbeddingResult } from '../call/result';
import type { NativeEntry, NativeLookup, NativeNearest } from '../native/types';
import { Contents, ENTRY_NAMES, NODE, isContent, kindOf, type Content, type EntryOptions, type Modality } from './content';

/** Settings of one entry. */
export interface CacheEntryOptions extends EntryOptions {
  /** How long it is an answer, in seconds. Default: the cache's. */
  ttlSeconds?: number | undefined;
  /** Anything that JSON can hold, given back with the entry. */
  metadata?: unknown | undefined;
}

const ENTRY_OPTIONS: Names<CacheEntryOptions> = { ...ENTRY_NAMES, ttlSeconds: true, metadata: untouched };

export const readEntryOptions = optionReader(ENTRY_OPTIONS);

/** An entry that is similar to what was asked for. */
export interface SimilarEntry {
  key: string;
  /** What it was made from. */
  modality: Modality;
  /** Cosine of the angle between the two, -1–1. */
  similarity: number;
  embedding: number[];
  metadata?: unknown;
}

/** What a key stands for. A copy: changing it never changes the cache. */
export interface CachedEmbedding {
  embedding: number[];
  /** What was set with it. */
  metadata?: unknown;
}

/** What an annotation stands for. A copy: changing it never changes the cache. */
export interface CachedResult extends EmbeddingResult {
  fromCache: true;
}

/** One entry of {@link IntelligentEmbeddingCache.getMany}. */
export interface CacheLookup extends EntryOptions {
  key: string;
  /** What the entry must have been set with; not needed without `enableContentValidation`. */
  content?: string | Uint8Array | undefined;
}

/** One entry of {@link IntelligentEmbeddingCache.setMany}. */
export interface CacheEntry extends CacheEntryOptions {
  key: string;
  /** What it is made from. Of bytes, those of an image or a recording, only the hash is kept. */
  content: string | Uint8Array;
  embedding: ArrayLike<number>;
}

export const readEntry = optionReader<CacheEntry>({ ...ENTRY_OPTIONS, key: true, content: untouched, embedding: untouched });

/** The answer to many lookups, in their order. */
export interface CacheMatrix {
  /** `rows × dimensions` values; zeros where there was no answer. Copied out of the cache at the first look. */
  readonly data: Float32Array;
  readonly rows: number;
  /** Length of each vector; 0 when nothing was found. */
  readonly dimensions: number;
  /** 1 for each lookup that was answered. */
  readonly hits: Uint8Array;
  /** The vector at `index`, a view into `data`. */
  row(index: number): Float32Array;
}

/** What one call sets: strings in turn, values one after the other. */
export interface Pack {
  strings: Content[];
  data: Float32Array;
  /** For each, how many milliseconds it lives (NaN: as long as the cache says), and its kind. */
  settings: Float64Array;
  /** Resolves when `strings` has the digests of all contents that are bytes; without it, it has. */
  hashed?: Promise<unknown> | undefined;
}

/** Under which name and content the result of an annotation is kept. */
export function annotationKey(annotation: unknown, where: string): { key: string; content: string } {
  const [key, ...texts] = annotationFields(annotation, where) as [string, ...string[]];
  return { key, content: contentOf(texts) };
}

/** The content of an annotation with these texts. */
export function contentOf(texts: readonly string[]): string {
  return JSON.stringify(texts);
}

export function noContent(what: string): EmbeddingError {
  return invalid(`${what} is not a string or a Uint8Array: pass what the embedding was made from, or set enableContentValidation: false`);
}

export function isAnnotated(entries: readonly unknown[]): boolean {
  return readGiven('Entry 0', () => {
    const first = entries[0];
    return typeof first === 'object' && first !== null && 'nodeId' in first;
  });
}

/** A result without what belongs to its call. */
export function resultOf(result: unknown): Pick<EmbeddingResult, 'embedding' | 'inputText' | 'modelUsed'> {
  if (typeof result !== 'object' || result === null) throw invalid('The result is not an object: pass an EmbeddingResult');
  return readGiven('The result', () => {
    const { nodeId: _, processingTime: __, fromCache: ___, error: ____, ...own } = result as CachedResult;
    // By name, too: a class may compute them. JSON leaves out what is undefined.
    const { embedding, inputText, modelUsed, confidence, truncated, tokenCount } = result as CachedResult;
    return { ...own, embedding, inputText, modelUsed, confidence, truncated, tokenCount } as EmbeddingResult;
  });
}

export function vectorOf(embedding: unknown, where: string): ArrayLike<number> {
  const isVector = isArray(embedding) || (ArrayBuffer.isView(embedding) && 'length' in embedding);
  if (!isVector) throw invalid(`${where} is not an array of numbers`);
  return embedding as unknown as ArrayLike<number>;
}

/** What is no number is refused here; what is not finite, on the native side. */
export function copyValues(embedding: ArrayLike<number>, data: Float32Array, offset: number, where: string): void {
  try {
    for (let i = 0; i < embedding.length; i++) {
      const value = embedding[i];
      if (typeof value !== 'number') throw invalid(`${where} has ${typeof value === 'string' ? value : show(value)} at position ${i}, not a number`);
      data[offset + i] = value;
    }
  } catch (thrown) {
    if (thrown instanceof EmbeddingError) throw thrown;
    throw new EmbeddingError('INVALID_ARGUMENT', `${where} cannot be read: ${messageOf(thrown)}`, { cause: thrown });
  }
}

/** A copy of a vector that a computation has made. What is no vector is refused here: nobody can be answered with it. */
export function finiteVector(embedding: unknown, where: string): Float32Array {
  const values = vectorOf(embedding, where);
  const length = readGiven(where, () => values.length);
  if (length === 0) throw invalid(`${where} has no values: compute at least one`);
  const vector = new Float32Array(length);
  copyValues(values, vector, 0, where);
  const at = vector.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) throw invalid(`${where} has ${values[at]} at position ${at}, not a finite number of 32 bits`);
  return vector;
}

/** How long an entry lives, in milliseconds; NaN: as long as the cache says. */
export function ttlOf(ttlSeconds: unknown, where: string): number {
  if (ttlSeconds === undefined) return NaN;
  if (typeof ttlSeconds === 'number' && ttlSeconds > 0) return ttlSeconds * 1000;
  throw invalid(`The ttlSeconds${where} is ${show(ttlSeconds)}, not a number above 0`);
}

/** The result of an annotation as it crosses. */
export function packOfResult(annotation: unknown, result: unknown): Pack {
  const { key, content } = annotationKey(annotation, 'The annotation');
  const { embedding, ...metadata } = resultOf(result);
  const pack = packOf([{ key, content, embedding, metadata }]);
  pack.settings[1] = NODE;
  return pack;
}

/**
 * Entries as they cross: key, content and metadata in turn, and the vectors one after the other. `modality`: of those that do
 * not say theirs.
 */
export function packOf(entries: readonly Partial<CacheEntry>[], validate = true, modality?: unknown): Pack {
  const strings: Content[] = [];
  const settings = new Float64Array(2 * entries.length);
  const contents = new Contents();
  const hashes: Promise<unknown>[] = [];
  let data = new Float32Array(0);
  let dimensions = 0;
  entries.forEach(({ key, content, embedding, ttlSeconds, metadata, modality: own = modality }, index) => {
    const where = entries.length > 1 ? ` of entry ${index}` : '';
    if (typeof key !== 'string') throw invalid(`The key${where} is not a string`, { index });
    settings[2 * index + 1] = kindOf(own, where);
    const stands = validate ? contents.of(content, where) : '';
    if (stands === undefined || (!validate && !isContent(content))) {
      throw invalid(`The content${where} is not a string or a Uint8Array`, { index });
    }
    const vector = vectorOf(embedding, `The embedding${where}`);
    const length = readGiven(`The embedding${where}`, () => vector.length);
    if (length === 0) throw invalid(`The embedding${where} has no values: pass at least one`, { index });
    if (index === 0) {
      dimensions = length;
      data = new Float32Array(entries.length * length);
    } else if (length !== dimensions) {
      throw invalid(`The embedding${where} has ${length} values, that of entry 0 has ${dimensions}`, { index });
    }
    copyValues(vector, data, index * dimensions, `The embedding${where}`);
    settings[2 * index] = ttlOf(ttlSeconds, where);
    const at = strings.push(key, '', metadata === undefined ? '' : toJson(metadata, where)) - 2;
    if (isPromise(stands)) hashes.push(stands.then((digest) => (strings[at] = digest)));
    else strings[at] = stands;
  });
  return { strings, data, settings, hashed: hashes.length > 0 ? Promise.all(hashes) : undefined };
}

/** What is kept beside a vector, as it crosses. */
export function toJson(metadata: unknown, where: string): string {
  let json: string | undefined;
  let cause: unknown;
  try {
    json = JSON.stringify(metadata);
  } catch (thrown) {
    cause = thrown;
  }
  if (json === undefined) {
    throw new EmbeddingError('INVALID_ARGUMENT', `The metadata${where} cannot be written as JSON`, { cause });
  }
  return json;
}

export function fromNative(entry: NativeEntry): CachedEmbedding {
  const vector = new Float32Array(entry.dimensions);
  entry.copyTo(vector);
  const metadata = entry.metadata();
  const embedding = toNumbers(vector, vector.length);
  return metadata == null ? { embedding } : { embedding, metadata: JSON.parse(metadata) as unknown };
}

/** What is near to `query`, whose values are overwritten: those of the answers are as many. */
export function similarOf(near: NativeNearest, query: Float32Array): SimilarEntry[] {
  const texts = near.texts();
  const modalities = near.modalities();
  // Arrays of the native side may belong to another realm; this one is of the caller's.
  return Array.from(near.similarities(), (similarity, at) => {
    near.copyTo(at, query);
    const metadata = texts[2 * at + 1]!;
    const entry = { key: texts[2 * at]!, modality: modalities[at]!, similarity, embedding: toNumbers(query, query.length) };
    return metadata === '' ? entry : { ...entry, metadata: JSON.parse(metadata) as unknown };
  });
}

/** Copied: an array of doubles from the start, without holes, which is faster than to fill a new one. */
let template: number[] = [];

export function toNumbers(values: Float32Array, length: number): number[] {
  if (template.length !== length) template = Array.from({ length }, () => 0.5);
  const numbers = template.slice();
  for (let i = 0; i < length; i++) numbers[i] = values[i]!;
  return numbers;
}

/** Some lookups that crossed together. Vectors are copied out when they are looked at. */
export class Part {
  readonly hits: Uint8Array;
  readonly dimensions: number;
  #data: Float32Array | undefined;

  constructor(
    readonly lookup: NativeLookup,
    readonly rows: number,
  ) {
    this.dimensions = lookup.dimensions;
    this.hits = new Uint8Array(rows);
    lookup.hits(this.hits);
  }

  get data(): Float32Array {
    if (!this.#data) {
      // Written in full by the native side, so it need not be zeroed before.
      this.#data = new Float32Array(Buffer.allocUnsafeSlow(4 * this.rows * this.dimensions).buffer);
      this.lookup.copyTo(this.#data);
    }
    return this.#data;
  }
}

export class Matrix implements CacheMatrix {
  readonly rows: number;
  readonly dimensions: number;
  readonly hits: Uint8Array;
  declare readonly data: Float32Array;
  #data: Float32Array | undefined;
  #parts: Part[];

  constructor(parts: Part[]) {
    this.#parts = parts;
    this.rows = parts.reduce((sum, part) => sum + part.rows, 0);
    this.dimensions = Math.max(...parts.map((part) => part.dimensions));
    // What has a row of another length has none here.
    const hits = (part: Part) => (part.dimensions === this.dimensions ? part.hits : new Uint8Array(part.rows));
    this.hits = parts.length === 1 ? parts[0]!.hits : concat(Uint8Array, parts.map(hits));
    // A property of its own: structuredClone sees no others.
    Object.defineProperty(this, 'data', { enumerable: true, get: () => this.#values() });
  }

  #values(): Float32Array {
    if (!this.#data) {
      const empty = (part: Part) => new Float32Array(part.rows * this.dimensions);
      // A part without hits does not know how long vectors are.
      const datas = this.#parts.map((part) => (part.dimensions === this.dimensions ? part.data : empty(part)));
      this.#data = datas.length === 1 ? datas[0]! : concat(Float32Array, datas);
      this.#parts = [];
    }
    return this.#data;
  }

  row(index: number): Float32Array {
    if (!Number.isInteger(index) || index < 0 || index >= this.rows) {
      throw invalid(`Row ${show(index)} does not exist: there are ${this.rows}`, { index });
    }
    return this.data.subarray(index * this.dimensions, (index + 1) * this.dimensions);
  }

  toJSON(): object {
    return { rows: this.rows, dimensions: this.dimensions, data: [...this.data], hits: [...this.hits] };
  }
}

function concat<T extends Uint8Array | Float32Array>(type: new (length: number) => T, parts: T[]): T {
  const all = new type(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
