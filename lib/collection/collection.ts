import { createHash } from 'node:crypto';

import { flag, signalOf, whole } from '../call/checks';
import { EmbeddingError } from '../call/errors';
import { invalid, isArray, requireArray, show } from '../call/input';
import { aborted, tell, unlessAborted } from '../call/limits';
import { refuseOtherKind } from '../call/model-kind';
import { instanceOr, naming, optionReader, read, reading, refused } from '../call/options';
import { CallOrder } from '../call/order';
import { NO_FILE, pathNow } from '../call/paths';
import { END } from '../call/source';
import { mostTokens, settingsOf, type Chunk, type SplitManyOptions } from '../chunks/chunks';
import { DocumentSource, takeDocument, type TextDocument } from '../generator/documents';
import { OptimizedEmbeddingGenerator } from '../generator/generator';
import { readGenerator, type CallOptions, type GeneratorOptions } from '../generator/options';
import { fingerprintOf } from '../matrix/embedding-matrix';
import { native, settle } from '../native/addon';
import type { NativeCollection, NativeDraft, NativeMadeWith, NativeRecord } from '../native/types';
import { filterJson, selectiveJson, type Filter } from './filter';
import { metadataJson } from './metadata';

/** Options of {@link EmbeddingCollection}. */
export interface CollectionOptions {
  /** A file of its own, in a directory that is made if need be. Default: in memory. */
  path?: string | URL | undefined;
  /**
   * What embeds texts: a generator, or the options of one that is closed with the collection. Without one, only vectors are kept and
   * asked for.
   */
  generator?: OptimizedEmbeddingGenerator | GeneratorOptions | undefined;
  /** Length of the vectors. Default: that of the model, or of the first vector. */
  dimensions?: number | undefined;
  /** What is near: `'cosine'`, the angle between two vectors. Default `'cosine'`. */
  metric?: 'cosine' | undefined;
  /**
   * What becomes of a collection that another model has made. `'error'` (default): it is left as it is, and calls are refused.
   * `'rebuild'`: all texts are embedded anew, all or none.
   */
  onModelChange?: 'error' | 'rebuild' | undefined;
}

/**
 * What is known of an entry beside its text: a JSON object; dates become their ISO strings. What JSON would keep nothing of, as a `Map`,
 * is refused, and more than 100 levels of objects and arrays in each other.
 */
export type Metadata = { [name: string]: unknown };

/** What is kept. */
export interface CollectionDraft {
  /** Its name, 1 to 1024 bytes; what had it before is replaced. */
  id: string;
  /** Embedded, unless a vector is given. One with half of a character (a lone surrogate) could not be kept as it is, and is refused. */
  text?: string | undefined;
  /** Its vector, which is not computed then. */
  embedding?: ArrayLike<number> | undefined;
  metadata?: Metadata | undefined;
}

/** Where a chunk is from. */
export interface ChunkSource {
  /** The document's. */
  id: string;
  /** Which of its chunks, from 0, of how many. */
  index: number;
  count: number;
  /** Where in its text, in UTF-16 units. */
  start: number;
  end: number;
  /** Its first line, from 1. */
  line: number;
  headings: string[];
}

/** An entry, as it is kept. */
export interface CollectionEntry {
  id: string;
  text?: string;
  metadata?: Metadata;
  embedding: Float32Array;
  /** Of what {@link EmbeddingCollection.sync} has kept. */
  source?: ChunkSource;
}

/** An answer. */
export interface CollectionMatch extends Omit<CollectionEntry, 'embedding'> {
  /** Its cosine with what was asked for, -1–1. */
  score: number;
}

/** Options of {@link EmbeddingCollection.query}. */
export interface CollectionQuery {
  /** Most answers. Default 10. */
  limit?: number | undefined;
  /** Least cosine of an answer, -1–1. Default -1: the best are answered. */
  minScore?: number | undefined;
  /** What answers have to be. Default: anything. */
  filter?: Filter | undefined;
}

/** Options of {@link EmbeddingCollection.sync}. */
export interface SyncOptions extends Omit<SplitManyOptions, 'timeoutMs'> {
  /** Whether documents are removed that did not come; or a function that is asked this of the id of each. Default true. */
  remove?: boolean | ((id: string) => boolean) | undefined;
  /** Told after each batch how many documents came so far. */
  progressCallback?: ((documents: number) => void) | undefined;
}

/** Options of {@link EmbeddingCollection.setMetadata}. */
export interface SetMetadataOptions {
  /** Whether what is known already stays as it is. Default false. */
  onlyNew?: boolean | undefined;
}

/** What {@link EmbeddingCollection.sync} has done, in documents. */
export interface SyncReport {
  added: number;
  changed: number;
  removed: number;
  unchanged: number;
  /** Chunks that were embedded; those whose text was there already were not. */
  embedded: number;
}

const readOptions = optionReader<CollectionOptions>({
  path: pathNow,
  generator: (value, path) => {
    refuseOtherKind('OptimizedEmbeddingGenerator', value, path);
    return instanceOr(OptimizedEmbeddingGenerator, readGenerator)(value, path);
  },
  dimensions: true,
  metric: true,
  onModelChange: true,
});

const readQuery = optionReader<CollectionQuery>({ limit: true, minScore: true, filter: (value) => filterJson(value) });

const readSync = optionReader<SyncOptions>({
  format: true,
  language: true,
  signal: true,
  maxTokens: true,
  overlap: true,
  remove: true,
  progressCallback: true,
});

const readSetMetadata = optionReader<SetMetadataOptions>({ onlyNew: true });

const MOST_ID = 1024;
/** Documents, and characters of them, that are embedded and kept at once. */
const WINDOW = 64;
const WINDOW_CHARACTERS = 1 << 20;
const PAGE = 256;

/**
 * Texts or vectors that are kept, with metadata, until they are deleted, and found by what they mean. In a file of SQLite that
 * survives a crash at any moment: a call is in it whole or not at all. Any number of processes on one machine may read it; writes wait
 * for their turn, half a minute at most.
 */
export class EmbeddingCollection implements AsyncDisposable {
  readonly #native: NativeCollection;
  readonly #order = new CallOrder();
  readonly #generator: OptimizedEmbeddingGenerator | undefined;
  readonly #ownsGenerator: boolean;
  readonly #dimensions: number;
  readonly #rebuilds: boolean;
  /** Those whose source may keep them waiting. */
  readonly #syncs = new Set<Promise<unknown>>();
  #opened: NativeMadeWith | undefined;
  #closed: Promise<void> | undefined;

  /**
   * Opens nothing yet.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
   */
  constructor(options: CollectionOptions = {}) {
    const { path, generator, dimensions, metric = 'cosine', onModelChange = 'error' } = readOptions(options);
    if (path !== undefined && (typeof path !== 'string' || path === '')) throw refused('path', `${show(path)} is not a non-empty string`);
    if (path === NO_FILE) throw refused('path', `${show(path)} is no path of a file: leave it out for a collection in memory, or give a path`);
    if (path?.includes('\0')) throw refused('path', `${show(path)} has a NUL character, which no path can have`);
    if (typeof generator === 'boolean') throw refused('generator', `${show(generator)} is neither a generator nor options of one`);
    if (metric !== 'cosine') throw refused('metric', `${show(metric)} is not 'cosine'`);
    if (onModelChange !== 'error' && onModelChange !== 'rebuild') throw refused('onModelChange', `${show(onModelChange)} is not 'error' or 'rebuild'`);
    this.#dimensions = dimensions === undefined ? 0 : whole('dimensions', dimensions, 1);
    this.#rebuilds = onModelChange === 'rebuild';
    this.#ownsGenerator = generator !== undefined && !(generator instanceof OptimizedEmbeddingGenerator);
    this.#generator = generator instanceof OptimizedEmbeddingGenerator
      ? generator
      : generator && naming((option) => `generator.${option}`, () => new OptimizedEmbeddingGenerator(generator));
    this.#native = new (native().NativeCollection)(path);
  }

  /** Keeps entries, all or none; of those with one id, the last. What they replace is gone. */
  async upsert(entries: readonly CollectionDraft[]): Promise<void> {
    requireArray(entries, '{ id, text, metadata }');
    const drafts = each(entries, 'Entry', draftOf);
    await this.#change(async (made) => {
      if (drafts.length === 0) return;
      await this.#embedMissing(drafts, made);
      await this.#put(drafts, [], made);
    });
  }

  /** Deletes entries by id, or all that a filter admits, which must say something; how many there were. */
  async delete(target: string | readonly string[] | Filter): Promise<number> {
    const ids = typeof target === 'string' ? [idOf(target, 0)] : isArray(target) ? each(target, 'The id of entry', idOf) : undefined;
    const filter = ids ? undefined : selectiveJson(target ?? null);
    return this.#change(() => this.#native.delete(ids ?? [], filter));
  }

  /** The best answers to a text or a vector, the best first; of equally good ones, in the order of their ids. */
  async query(query: string | ArrayLike<number>, options: CollectionQuery = {}): Promise<CollectionMatch[]> {
    const { limit = 10, minScore = -1, filter } = readQuery(options) as CollectionQuery & { filter?: string };
    const most = whole('limit', limit, 1, 2 ** 20);
    if (typeof minScore !== 'number' || !(minScore >= -1 && minScore <= 1)) throw refused('minScore', `${show(minScore)} is not a number from -1 to 1`);
    const given = typeof query === 'string' ? query : reading('The query', {}, () => vectorOf(query, 'The query'));
    return this.#read(async (made) => {
      if (typeof given === 'string' && given.trim() === '') throw invalid('The query is empty');
      const vector = typeof given === 'string' ? (await this.#embed([given], made, { inputType: 'query' }))[0]! : given;
      const found = await this.#native.query(vector, most, minScore, filter, made);
      return found.map((record) => ({ ...entryOf(record), score: record.score! }));
    });
  }

  /** The entry with this id, or `null`; of many, each. */
  get(id: string): Promise<CollectionEntry | null>;
  get(ids: readonly string[]): Promise<(CollectionEntry | null)[]>;
  async get(target: string | readonly string[]): Promise<CollectionEntry | null | (CollectionEntry | null)[]> {
    const many = isArray(target);
    const ids = many ? each(target, 'The id of entry', idOf) : [idOf(target, 0)];
    return this.#read(async () => {
      const found = (await this.#native.get(ids)).map((record) => (record ? withVector(record) : null));
      return many ? found : found[0]!;
    });
  }

  /** How many entries there are, or how many of them a filter admits. */
  async count(filter?: Filter): Promise<number> {
    const json = filterJson(filter);
    return this.#read(() => this.#native.count(json));
  }

  /** All entries, in the order in which they came first; those that are written meanwhile may be among them. */
  async *export(): AsyncGenerator<CollectionEntry, void, undefined> {
    for (let after = 0; ; ) {
      const from = after;
      const page = await this.#read(() => this.#native.page(from, PAGE));
      for (const record of page) yield withVector(record);
      if (page.length < PAGE) return;
      after = page[page.length - 1]!.row;
    }
  }

  /**
   * Makes the collection hold just these documents, beside what was upserted: those that are new or whose text or metadata has changed
   * are split into chunks and embedded, chunks that were there already are not, and documents that do not come are removed. What
   * was read before the source fails is kept, and nothing is removed then. A document of one chunk is an entry of its id, the chunks of
   * others are `id#0`, `id#1`, …; a document that needs the id of an entry that was upserted, or of another document's chunk, is refused
   * (`INVALID_ARGUMENT`). Each document counts as it is when it is given, those of an array as they are now; halves of characters
   * (lone surrogates) in texts are kept as U+FFFD. While an async source is waited for, other calls go on, and see what was kept so far.
   */
  async sync(documents: Iterable<TextDocument> | AsyncIterable<TextDocument>, options: SyncOptions = {}): Promise<SyncReport> {
    const { remove = true, progressCallback, signal: given, ...splitting } = readSync(options);
    const isRemoved = typeof remove === 'function' ? remove : flag('remove', remove) ? () => true : undefined;
    if (progressCallback !== undefined && typeof progressCallback !== 'function') throw refused('progressCallback', `${show(progressCallback)} is not a function`);
    const signal = signalOf(given);
    settingsOf(splitting, mostTokens(splitting.maxTokens));
    const source = new DocumentSource(documents, documentOf);
    try {
      this.#requireOpen();
      const sync = (change: Change) => this.#sync(source, change, { isRemoved, progressCallback, signal, splitting });
      if (!source.waits) return await this.#change((made) => sync((work) => work(made)));
      const syncing = sync((work) => this.#changing(work));
      this.#syncs.add(syncing);
      return await syncing.finally(() => this.#syncs.delete(syncing));
    } finally {
      // What closing the source throws is less than what was wrong before.
      await source.close().catch(() => {});
    }
  }

  /** What is known of the collection itself, as {@link setMetadata} has kept it; `{}` where that is nothing. */
  async metadata(): Promise<Metadata> {
    return JSON.parse(await this.#read(() => this.#native.metadata())) as Metadata;
  }

  /** Keeps what is known of the collection itself, beside what it does not name; what is known then. */
  async setMetadata(metadata: Metadata, options: SetMetadataOptions = {}): Promise<Metadata> {
    const { onlyNew = false } = readSetMetadata(options);
    const keeps = flag('onlyNew', onlyNew);
    if (metadata === undefined) throw invalid('The metadata is undefined, not an object');
    const json = reading('The metadata', {}, () => metadataJson(metadata, 'The metadata of the collection'));
    return JSON.parse(await this.#change(() => this.#native.setMetadata(json, keeps))) as Metadata;
  }

  /**
   * Lets go of the file, after all calls that were made before; a `sync` lasts for as long as its source does, unless its signal is
   * aborted. May be called any number of times.
   */
  close(): Promise<void> {
    return (this.#closed ??= settle(async () => {
      await Promise.allSettled(this.#syncs);
      await this.#order.last(() => this.#native.close());
    }).then(async () => {
      if (this.#ownsGenerator) await this.#generator!.cleanup();
    }));
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Reads the documents, and keeps them some at a time: each time, and not while the source is waited for, by a `change`. */
  async #sync(source: DocumentSource<SyncDocument>, change: Change, { isRemoved, progressCallback, signal, splitting }: Syncing): Promise<SyncReport> {
    const manner = JSON.stringify(splitting);
    const report: SyncReport = { added: 0, changed: 0, removed: 0, unchanged: 0, embedded: 0 };
    const known = new Map(await change(() => this.#native.documents()));
    const seen = new Set<string>();
    let stopped: EmbeddingError | undefined;
    const check = () => {
      if (stopped) throw stopped;
      if (signal?.aborted) throw aborted(signal);
    };
    for (let ended = false; !ended; ) {
      const window: Hashed[] = [];
      let [characters, came] = [0, 0];
      let failure: unknown;
      try {
        while (window.length < WINDOW && characters < WINDOW_CHARACTERS && came < 4 * WINDOW) {
          check();
          const document = await unlessAborted(source.next(), signal);
          if (document === END) {
            ended = true;
            break;
          }
          came++;
          const { id, text, path, metadata } = document;
          if (seen.has(id)) throw invalid(`Two documents have the id ${show(id)}`, { index: seen.size });
          seen.add(id);
          const hash = createHash('sha256').update(JSON.stringify([text, metadata, path, manner])).digest('hex');
          if (known.get(id) === hash) {
            report.unchanged++;
            continue;
          }
          characters += text.length;
          window.push({ ...document, hash });
        }
      } catch (thrown) {
        // What was read before is kept.
        failure = thrown;
        ended = true;
      }
      if (window.length > 0) await change((made) => this.#keep(window, known, { signal, splitting }, made, report));
      if (failure !== undefined) throw failure;
      if (progressCallback) tell(progressCallback, (reason) => (stopped ??= reason), seen.size);
    }
    check();
    const gone = isRemoved ? [...known.keys()].filter((id) => !seen.has(id) && asked(isRemoved, id)) : [];
    if (gone.length > 0) await change(() => this.#native.removeDocuments(gone));
    report.removed = gone.length;
    return report;
  }

  /** Splits, embeds and keeps documents that are new or have changed, all of them or none. */
  async #keep(
    window: readonly Hashed[],
    known: ReadonlyMap<string, string>,
    { signal, splitting }: Pick<Syncing, 'signal' | 'splitting'>,
    made: NativeMadeWith,
    report: SyncReport,
  ): Promise<void> {
    const chunks = await this.#embedder().splitMany(window.map(({ text, path }) => ({ text, path })), { ...splitting, signal });
    const drafts: Draft[] = [];
    for (const [at, document] of window.entries()) {
      const before = known.has(document.id) ? await this.#native.ofDocument(document.id) : [];
      const vectors = new Map(before.map(({ text, vector }) => [text, vector]));
      const own = chunks[at]!;
      own.forEach((chunk, index) => drafts.push(chunkDraft(document, chunk, index, own.length, vectors.get(chunk.text))));
    }
    const embedded = await this.#embedMissing(drafts, made, signal);
    await this.#put(drafts, window.map(({ id, hash }) => ({ id, hash })), made);
    report.embedded += embedded;
    for (const { id } of window) report[known.has(id) ? 'changed' : 'added']++;
  }

  /** Gives a vector to each that has none; how many those were. */
  async #embedMissing(drafts: readonly Draft[], made: NativeMadeWith, signal?: AbortSignal): Promise<number> {
    const missing = drafts.filter(({ vector }) => !vector);
    const vectors = await this.#embed(missing.map(({ draft }) => draft.text!), made, { signal });
    missing.forEach((each, at) => (each.vector = vectors[at]!));
    return missing.length;
  }

  async #put(drafts: readonly Draft[], documents: { id: string; hash: string }[], made: NativeMadeWith): Promise<void> {
    const dimensions = drafts[0]?.vector!.length ?? 0;
    const data = new Float32Array(drafts.length * dimensions);
    drafts.forEach(({ draft, vector }, at) => {
      if (vector!.length !== dimensions || (this.#dimensions > 0 && dimensions !== this.#dimensions)) {
        throw invalid(`The embedding of ${show(draft.id)} has ${vector!.length} values, others have ${this.#dimensions || dimensions}`);
      }
      data.set(vector!, at * dimensions);
    });
    await this.#native.put(drafts.map(({ draft }) => draft), data, documents, made);
  }

  /** Embeds with the model of the collection: another one may have been loaded meanwhile, whose vectors are of another space. */
  async #embed(texts: readonly string[], made: NativeMadeWith, options: CallOptions): Promise<Float32Array[]> {
    if (texts.length === 0) return [];
    const embedder = this.#embedder();
    const matrix = await embedder.embed(texts, options);
    if ((fingerprintOf(matrix) ?? embedder.getModelInfo().fingerprint) !== made.fingerprint) {
      throw refused('generator', `another model was loaded than ${made.model}, which the collection was made with, while it was embedding: nothing was kept`);
    }
    return texts.map((_, at) => matrix.row(at));
  }

  #embedder(): OptimizedEmbeddingGenerator {
    if (this.#generator) return this.#generator;
    throw invalid('There is no generator to embed texts: give the collection one, or give embeddings');
  }

  async #read<T>(work: (made: NativeMadeWith) => Promise<T>): Promise<T> {
    this.#requireOpen();
    return settle(async () => this.#order.readAll(async () => work(await this.#open())));
  }

  async #change<T>(work: (made: NativeMadeWith) => Promise<T>): Promise<T> {
    this.#requireOpen();
    return this.#changing(work);
  }

  /** The same for a call that was made before the collection was closed. */
  async #changing<T>(work: (made: NativeMadeWith) => Promise<T>): Promise<T> {
    return settle(async () => this.#order.changeAll(async () => work(await this.#open())));
  }

  #requireOpen(): void {
    if (this.#closed) throw new EmbeddingError('CLOSED', 'The collection is closed: make a new one');
  }

  /** What calls are made with: the model as it is now. The file is opened with the first of them. */
  async #open(): Promise<NativeMadeWith> {
    const generator = this.#generator;
    if (generator && !generator.isReady()) await generator.initialize();
    const info = generator?.getModelInfo();
    const made = { model: info?.modelId ?? '', fingerprint: info?.fingerprint ?? '', dimensions: info?.dimensions ?? this.#dimensions };
    if (this.#opened && (!info || this.#opened.fingerprint === made.fingerprint)) return this.#opened;
    const found = await this.#native.open(made);
    if (this.#dimensions > 0 && found.dimensions > 0 && found.dimensions !== this.#dimensions && (!info || info.dimensions !== this.#dimensions)) {
      throw refused('dimensions', `${this.#dimensions}, but the vectors of the collection have ${found.dimensions} values`);
    }
    if (!info) return (this.#opened = found);
    if (found.fingerprint !== made.fingerprint) {
      const count = await this.#native.count(undefined);
      if (count > 0 && !this.#rebuilds) {
        throw ofAnother(found.model);
      }
      await this.#rebuild(made);
    }
    return (this.#opened = made);
  }

  /** Embeds all texts anew. */
  async #rebuild(made: NativeMadeWith): Promise<void> {
    const rows: number[] = [];
    const parts: Float32Array[] = [];
    for (let after = 0; ; ) {
      const page = await this.#native.page(after, PAGE);
      const without = page.find(({ text }) => text === undefined || text === null);
      if (without) throw refused('onModelChange', `the entry ${show(without.id)} has no text that could be embedded anew: delete it, or use the model that made it`);
      parts.push(...(await this.#embed(page.map(({ text }) => text!), made, {})));
      rows.push(...page.map(({ row }) => row));
      if (page.length < PAGE) break;
      after = page[page.length - 1]!.row;
    }
    const data = new Float32Array(rows.length * made.dimensions);
    parts.reduce((at, part) => (data.set(part, at), at + part.length), 0);
    await this.#native.rebuild(made, rows, data);
  }
}

function ofAnother(model: string): EmbeddingError {
  const by = model === '' ? 'vectors of no model' : `the model ${model}`;
  const message = `Invalid option \`generator\`: the collection was made with ${by}: use that, or onModelChange: 'rebuild'`;
  return new EmbeddingError('INVALID_CONFIG', message, { details: { option: 'generator', madeWith: model } });
}

/** An entry on its way, and its vector, once there is one. */
interface Draft {
  draft: NativeDraft;
  vector?: Float32Array | undefined;
}

/** A document as it was given. */
interface SyncDocument {
  id: string;
  text: string;
  path: string | undefined;
  /** JSON. */
  metadata: string;
}

interface Hashed extends SyncDocument {
  hash: string;
}

/** Does what changes the collection, when it is its turn. */
type Change = <T>(work: (made: NativeMadeWith) => Promise<T>) => Promise<T>;

interface Syncing {
  /** Whether a document is removed that did not come; `undefined`: none is. */
  isRemoved: ((id: string) => boolean) | undefined;
  progressCallback: SyncOptions['progressCallback'];
  signal: AbortSignal | undefined;
  splitting: SplitManyOptions;
}

/** What a caller's function says of a document. */
function asked(isRemoved: (id: string) => boolean, id: string): boolean {
  try {
    return isRemoved(id);
  } catch (cause) {
    throw new EmbeddingError('ABORTED', `The call was aborted because its function \`remove\` threw of ${show(id)}`, { cause });
  }
}

/** A copy of an array, without holes, of what `take` makes of each; `what` is what each is called. */
function each<T>(given: readonly unknown[], what: string, take: (value: unknown, index: number) => T): T[] {
  const length = reading('The array', {}, () => given.length);
  return Array.from({ length }, (_, index) => reading(`${what} ${index}`, { index }, () => take(given[index], index)));
}

function documentOf(given: unknown, index: number): SyncDocument {
  const { id, text, path, metadata } = takeDocument(given, index);
  return { id: idOf(id, index), text, path, metadata: metadataJson(metadata, `The metadata of document ${index}`) };
}

function draftOf(given: unknown, index: number): Draft {
  if (typeof given !== 'object' || given === null) throw invalid(`Entry ${index} is ${show(given)}, not an object { id, text }`, { index });
  const of = (name: string) => read(given, name, `${name} of entry ${index}`);
  const [id, text, embedding, metadata] = [idOf(of('id'), index), of('text'), of('embedding'), of('metadata')];
  if (text !== undefined && typeof text !== 'string') throw invalid(`The text of entry ${index} is ${show(text)}, not a string`);
  if (text !== undefined && HALF.test(text)) throw invalid(`The text of entry ${index} has half of a character, and could not be kept as it is: cut it between characters, or make it whole with toWellFormed()`);
  if (embedding === undefined && (text === undefined || text.trim() === '')) throw invalid(`Entry ${index} has neither a text nor an embedding`);
  const vector = embedding === undefined ? undefined : vectorOf(embedding, `The embedding of entry ${index}`);
  return { draft: { id, ...(text !== undefined && { text }), metadata: metadataJson(metadata, `The metadata of entry ${index}`) }, vector };
}

function chunkDraft({ id, metadata }: SyncDocument, chunk: Chunk, index: number, count: number, vector: Float32Array | undefined): Draft {
  const { text, start, end, line, headings } = chunk;
  const source: ChunkSource = { id, index, count, start, end, line, headings };
  const draft = { id: count === 1 ? id : `${id}#${index}`, text, metadata, document: id, place: JSON.stringify(source) };
  return { draft, vector };
}

const HALF = /\p{Surrogate}/u;

function idOf(id: unknown, index: number): string {
  if (typeof id !== 'string' || id === '') throw invalid(`The id of entry ${index} is ${show(id)}, not a non-empty string`, { index });
  const bytes = Buffer.byteLength(id);
  if (bytes > MOST_ID) throw invalid(`The id of entry ${index} has ${bytes} bytes, of ${MOST_ID} at most`, { index });
  if (HALF.test(id)) throw invalid(`The id of entry ${index} has half of a character: it is not a whole string`, { index });
  return id;
}

/** A copy; each value is read once. */
function vectorOf(given: unknown, what: string): Float32Array {
  if (!isArray(given) && !(ArrayBuffer.isView(given) && 'length' in given)) throw invalid(`${what} is ${show(given)}, not an array of numbers`);
  const values = given as ArrayLike<unknown>;
  const vector = new Float32Array(values.length);
  if (vector.length === 0) throw invalid(`${what} has no values`);
  for (let at = 0; at < vector.length; at++) {
    const value = values[at];
    if (typeof value !== 'number' || !Number.isFinite(Math.fround(value))) throw invalid(`${what} has ${show(value)} at position ${at}, not a finite number of 32 bits`);
    vector[at] = value;
  }
  return vector;
}

function entryOf({ id, text, metadata, place }: NativeRecord): Omit<CollectionEntry, 'embedding'> {
  return {
    id,
    ...(typeof text === 'string' && { text }),
    ...(metadata !== '{}' && { metadata: JSON.parse(metadata) as Metadata }),
    ...(typeof place === 'string' && { source: JSON.parse(place) as ChunkSource }),
  };
}

function withVector(record: NativeRecord): CollectionEntry {
  return { ...entryOf(record), embedding: Float32Array.from(record.vector) };
}
