import type { Chunk, SourceText, SplitManyOptions } from '../chunks/chunks';
import { invalid, show } from '../call/input';
import { optionReader, read } from '../call/options';
import { END, openSource, sourceFailed, type Source } from '../call/source';
import type { StreamedVector } from './stream';

/** A document. */
export interface TextDocument {
  /** What you call it. Its ending tells what kind of text it is, unless `metadata.path` or an option does. */
  id: string;
  text: string;
  /** Anything; given back with each chunk. */
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

/** A document as it is when it is read. */
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

interface Part {
  document: TextDocument;
  index: number;
  chunk: Chunk;
}

/** The texts of the chunks of documents, split some documents at a time; and what each of them is. */
export class ChunkSource implements AsyncIterator<string, void> {
  readonly #source: Source;
  readonly #split: (sources: SourceText[]) => Promise<Chunk[][]>;
  readonly #given: Part[] = [];
  #waiting: Part[] = [];
  #read = 0;
  #ended = false;
  #failure: unknown;
  /** Called when nothing is split any more. */
  readonly #over: () => void;

  constructor(documents: unknown, split: (sources: SourceText[]) => Promise<Chunk[][]>, over: () => void) {
    this.#source = openSource(documents);
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
      await this.#source.close();
    }
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
        const given: unknown = await this.#source.next();
        if (given === END) {
          this.#ended = true;
          break;
        }
        const document = takeDocument(given, this.#read++);
        characters += document.text.length;
        window.push(document);
      }
    } catch (thrown) {
      // What was read before is answered first.
      this.#failure = sourceFailed(thrown, this.#read);
      this.#ended = true;
    }
    const found = window.length === 0 ? [] : await this.#split(window);
    if (this.#ended) this.#over();
    this.#waiting = window.flatMap((document, at) => found[at]!.map((chunk, index) => ({ document, index, chunk }))).reverse();
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
