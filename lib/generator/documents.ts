import { types } from 'node:util';

import { invalid, isArray, show } from '../call/input';
import { isRoot, optionReader, read, reading } from '../call/options';
import { END, openSource, sourceFailed, type Source } from '../call/source';
import type { Chunk, SourceText, SplitManyOptions } from '../chunks/chunks';
import type { StreamedVector } from './stream';

/** A document. */
export interface TextDocument {
  /** What you call it. Its ending tells what kind of text it is, unless `metadata.path` or an option does. */
  id: string;
  text: string;
  /** Anything; given back with each chunk: objects and arrays as they are when the document is read, instances of classes themselves. */
  metadata?: unknown;
}

/** A chunk of a document, and its vector. */
export interface DocumentChunk {
  /** The document's. */
  id: string;
  /** Which of the document's chunks it is, from 0. */
  index: number;
  chunk: Chunk;
  embedding: Float32Array;
  /** Whether the vector was known already. */
  fromCache: boolean;
  /** The document's, if it has any. */
  metadata?: unknown;
}

/** Options of {@link OptimizedEmbeddingGenerator.streamDocuments}. */
export interface DocumentOptions extends SplitManyOptions {
  /** Neither ask the cache nor tell it. Default `false`. */
  bypassCache?: boolean | undefined;
}

export const readDocuments = optionReader<DocumentOptions>({
  format: true,
  language: true,
  signal: true,
  timeoutMs: true,
  maxTokens: true,
  overlap: true,
  bypassCache: true,
});

/** Documents that are split at once: enough for all threads. */
const WINDOW = 32;
/** Characters of them, at most; one document may have more. */
const WINDOW_CHARACTERS = 1 << 20;

/** A document as it is now; `metadata` is still the caller's. */
export function takeDocument(given: unknown, index: number): TextDocument & SourceText {
  if (typeof given !== 'object' || given === null) throw invalid(`Document ${index} is ${show(given)}, not an object { id, text }`, { index });
  const of = (name: string) => read(given, name, `${name} of document ${index}`);
  const [id, text, metadata] = [of('id'), of('text'), of('metadata')];
  for (const [name, value] of [['id', id], ['text', text]] as const) {
    if (typeof value !== 'string') throw invalid(`The ${name} of document ${index} is ${show(value)}, not a string`, { index });
  }
  const path = typeof metadata === 'object' && metadata !== null ? read(metadata, 'path', `metadata.path of document ${index}`) : undefined;
  return { id: id as string, text: text as string, path: typeof path === 'string' ? path : (id as string), ...(metadata !== undefined && { metadata }) };
}

/** Documents one by one, each copied by `take` when it is given: of an array, all now. */
export class DocumentSource<T> {
  readonly #source: Source;
  readonly #take: (given: unknown, index: number) => T;
  #read = 0;
  #over = false;

  constructor(documents: unknown, take: (given: unknown, index: number) => T) {
    const copy = (given: () => unknown, index: number) => reading(`Document ${index}`, { index }, () => take(given(), index));
    if (isArray(documents)) {
      // What is wrong with one of them is told when its turn comes.
      const taken = Array.from({ length: documents.length }, (_, index) => attempt(() => copy(() => documents[index], index)));
      this.#source = openSource(taken);
      this.#take = (document) => (document as () => T)();
    } else {
      this.#source = openSource(documents);
      this.#take = (given, index) => copy(() => given, index);
    }
  }

  /** Whether it may keep its reader waiting. */
  get waits(): boolean {
    return this.#source.waits;
  }

  /** How many it has given. */
  get read(): number {
    return this.#read;
  }

  async next(): Promise<T | typeof END> {
    let given: unknown;
    try {
      given = await this.#source.next();
    } catch (thrown) {
      this.#over = true;
      throw sourceFailed(thrown, this.#read);
    }
    if (given !== END) return this.#take(given, this.#read++);
    this.#over = true;
    return END;
  }

  /** Closes what has not come to its end by itself. */
  async close(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    await this.#source.close();
  }
}

/** What `work` gives or throws, later. */
function attempt<T>(work: () => T): () => T {
  try {
    const value = work();
    return () => value;
  } catch (thrown) {
    return () => {
      throw thrown;
    };
  }
}

/** A copy of objects and arrays, whatever they hold; instances of classes stay themselves. */
function copyOf(value: unknown, copies = new Map<object, unknown>()): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (copies.has(value)) return copies.get(value);
  if (types.isDate(value)) return new Date(value);
  if (isArray(value)) {
    const copy: unknown[] = [];
    copies.set(value, copy);
    for (const each of value) copy.push(copyOf(each, copies));
    return copy;
  }
  const owner = Object.getPrototypeOf(value) as object | null;
  if (owner !== null && !isRoot(owner)) return value;
  const copy = Object.create(owner) as object;
  copies.set(value, copy);
  for (const [name, each] of Object.entries(value)) {
    Object.defineProperty(copy, name, { value: copyOf(each, copies), enumerable: true, configurable: true, writable: true });
  }
  return copy;
}

interface Part {
  document: TextDocument;
  index: number;
  chunk: Chunk;
}

/** The texts of the chunks of documents, split some documents at a time; and what each of them is. */
export class ChunkSource implements AsyncIterator<string, void> {
  readonly #documents: DocumentSource<TextDocument & SourceText>;
  readonly #split: (sources: SourceText[]) => Promise<Chunk[][]>;
  readonly #given: Part[] = [];
  #waiting: Part[] = [];
  #ended = false;
  #failure: unknown;
  /** Called when nothing is split any more. */
  readonly #over: () => void;

  constructor(documents: unknown, split: (sources: SourceText[]) => Promise<Chunk[][]>, over: () => void) {
    this.#documents = new DocumentSource(documents, (given, index) => {
      const document = takeDocument(given, index);
      return { ...document, ...('metadata' in document && { metadata: copyOf(document.metadata) }) };
    });
    this.#split = split;
    this.#over = over;
  }

  /** What the text is that was given as the nth; it is forgotten then. */
  taken({ index, embedding, fromCache }: StreamedVector): DocumentChunk {
    const { document, ...part } = this.#given[index]!;
    delete this.#given[index];
    const { id, metadata } = document;
    return { id, ...part, embedding, fromCache, ...(metadata !== undefined && { metadata }) };
  }

  async next(): Promise<IteratorResult<string, void>> {
    while (this.#waiting.length === 0) {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#ended) return { done: true, value: undefined };
      await this.#fill();
    }
    const part = this.#waiting.pop()!;
    this.#given.push(part);
    return { done: false, value: part.chunk.text };
  }

  async return(): Promise<IteratorResult<string, void>> {
    if (!this.#ended) {
      this.#ended = true;
      this.#over();
    }
    await this.#documents.close();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async #fill(): Promise<void> {
    const window: (TextDocument & SourceText)[] = [];
    let characters = 0;
    try {
      while (!this.#ended && window.length < WINDOW && characters < WINDOW_CHARACTERS) {
        const document = await this.#documents.next();
        if (document === END) {
          this.#ended = true;
          break;
        }
        characters += document.text.length;
        window.push(document);
      }
    } catch (thrown) {
      // What was read before is answered first.
      this.#failure = thrown;
      this.#ended = true;
    }
    try {
      const found = window.length === 0 ? [] : await this.#split(window);
      this.#waiting = window.flatMap((document, at) => found[at]!.map((chunk, index) => ({ document, index, chunk }))).reverse();
    } catch (thrown) {
      this.#failure ??= thrown;
      this.#ended = true;
      throw thrown;
    } finally {
      if (this.#ended) this.#over();
      // What closing the source throws is less than what was wrong before.
      if (this.#failure !== undefined) this.#documents.close().catch(() => {});
    }
  }
}

/** What each result of a stream is made to. All else is the stream's own: leaving it early ends that at once. */
export function mapped<T, R>(stream: AsyncGenerator<T, void, undefined>, map: (value: T) => R): AsyncGenerator<R, void, undefined> {
  const results: AsyncGenerator<R, void, undefined> = {
    next: async () => {
      const { done, value } = await stream.next();
      return done ? { done, value: undefined } : { done: false, value: map(value) };
    },
    return: async () => (await stream.return(), { done: true, value: undefined }),
    throw: async (error: unknown) => (await stream.throw(error), { done: true, value: undefined }),
    [Symbol.asyncIterator]: () => results,
    [Symbol.asyncDispose]: async () => {
      await stream.return();
    },
  };
  return results;
}
