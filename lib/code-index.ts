import { nativeSettings, GENERATOR, type GeneratorOptions } from './generator';
import { invalid, show } from './input';
import { call, native, settle, type NativeIndex } from './native';
import { naming, optionReader, refused } from './options';
import { checkWatch, watched } from './watch';

/** Options of {@link CodeIndex}. */
export interface CodeIndexOptions {
  /** The index' file. Default: `.embedcore/index.sqlite` in the directory. */
  path?: string | undefined;
  /** The model that makes the vectors. Default: the built-in one. The index itself is its cache. */
  generator?: Omit<GeneratorOptions, 'cache' | 'enableCaching' | 'cacheConfig' | 'logger'> | undefined;
}

/** Options of {@link CodeIndex.update}. */
export interface IndexOptions {
  /** Replace an index that another model or version made, or a damaged one. Default `false`: refuse it. */
  rebuild?: boolean | undefined;
  /** Stops the run; it rejects with `ABORTED`. What is written by then stays, and the next run goes on from there. */
  signal?: AbortSignal | undefined;
  /** Told whenever files were written. */
  progressCallback?: ((report: IndexReport) => void) | undefined;
}

/** Options of {@link CodeIndex.search}. */
export interface SearchOptions {
  /** Most answers, 1 to 1000. Default 10. */
  limit?: number | undefined;
}

/** What a run of {@link CodeIndex.update} has done. */
export interface IndexReport {
  /** Source files in the index; those that cannot be read are none. */
  files: number;
  /** Files that are new or seem changed, and have to be read. */
  changed: number;
  /** How many of those are done. */
  done: number;
  /** Files whose content is as it was. */
  unchanged: number;
  /** Files that are gone from the tree, and now from the index. */
  removed: number;
  /** Functions, methods, classes and types in the index. */
  annotations: number;
  /** How many of them were embedded now. */
  embedded: number;
  /** How many of changed files were as they were, so that their vectors could be kept. */
  reused: number;
  /** Files left out, by reason. */
  skipped: Record<string, number>;
  /** Up to 100 of them, without those in other languages. */
  examples: { file: string; reason: string }[];
  /** Seconds since the run began. */
  seconds: number;
}

/** An answer to a search. */
export interface CodeMatch {
  /** The source file, below the directory, with `/`. */
  file: string;
  /** First line, from 1. */
  line: number;
  endLine: number;
  kind: 'function' | 'method' | 'class' | 'type';
  /** Its name, after those of the declarations around it: `Stack.push`. */
  name: string;
  /** Its source up to its body. */
  signature: string;
  /** Its documentation comment; may be empty. */
  summary: string;
  /** What answers are ranked by: `similarity + 0.02 × BM25`. */
  score: number;
  /** Cosine of its vector and the query's, −1 to 1. */
  similarity: number;
}

const { cache: _, enableCaching: __, cacheConfig: ___, logger: ____, ...OWN_GENERATOR } = GENERATOR;

const readOptions = optionReader<CodeIndexOptions>({ path: true, generator: optionReader<NonNullable<CodeIndexOptions['generator']>>(OWN_GENERATOR) });

const readUpdate = optionReader<IndexOptions>({ rebuild: true, signal: true, progressCallback: true });

const readSearch = optionReader<SearchOptions>({ limit: true });

/** Answers of a search that does not say how many. */
const DEFAULT_LIMIT = 10;

/**
 * Semantic search in a directory of source code: TypeScript, JavaScript, Python, Rust, Go and Java. Functions, methods,
 * classes and types are found by what they do (vectors) and by their words (BM25).
 *
 * All methods may be called at once; another process may search while this one updates.
 */
export class CodeIndex implements AsyncDisposable {
  readonly #native: NativeIndex;

  /**
   * Reads nothing yet.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` or `INVALID_CONFIG`.
   */
  constructor(directory: string, options: CodeIndexOptions = {}) {
    if (typeof directory !== 'string' || directory === '') throw invalid('The directory is not a non-empty string');
    const { path, generator = {} } = readOptions(options);
    if (path !== undefined && (typeof path !== 'string' || path === '')) throw refused('path', `${show(path)} is not a non-empty string`);
    this.#native = naming((option) => `generator.${option}`, () => {
      const { plain, optimizer, processor, monitor, named } = nativeSettings(generator);
      return naming(named, () => call(() => new (native().NativeIndex)(directory, path, plain, optimizer, processor, monitor)));
    });
  }

  /** The file name extensions that are read. */
  static get extensions(): readonly string[] {
    return call(() => [...native().indexExtensions()]);
  }

  /**
   * Brings the index up to date: embeds what is new or changed, forgets what is gone. Respects `.gitignore`; leaves out
   * hidden files, `node_modules`, links, and files above 1 MB.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` if another model or version made the index, `CACHE_STORAGE_FAILED`
   * if it cannot be written or another process is writing it, `INVALID_ARGUMENT` if there is no such directory.
   */
  async update(options: IndexOptions = {}): Promise<IndexReport> {
    const { rebuild = false, signal, progressCallback } = readUpdate(options);
    if (typeof rebuild !== 'boolean') throw refused('rebuild', `${show(rebuild)} is not true or false`);
    const watch = checkWatch<[IndexReport]>({ signal, progressCallback });
    const running = call(() => this.#native.update());
    return watched(watch, () => running.cancel(), async (report, check) => {
      check();
      const result = (await running.run(rebuild, report)) as IndexReport;
      report?.(result);
      return result;
    });
  }

  /**
   * The declarations that answer `words` best, best first.
   * @throws {@link EmbeddingError} `NOT_INITIALIZED` if there is no index yet, `INVALID_CONFIG` if another model or
   * version made it, `INVALID_ARGUMENT` if the words are empty or `limit` is not a whole number from 1 to 1000.
   */
  async search(words: string, options: SearchOptions = {}): Promise<CodeMatch[]> {
    if (typeof words !== 'string') throw invalid('The words to search for are not a string');
    const { limit = DEFAULT_LIMIT } = readSearch(options);
    if (!Number.isInteger(limit) || limit < 1 || limit > 1000) {
      throw invalid(`limit is ${show(limit)}, not a whole number from 1 to 1000`);
    }
    return (await settle(() => this.#native.search(words, limit))) as CodeMatch[];
  }

  /** Lets go of the index' file, its copy in memory and the model. The next call opens them again. */
  async close(): Promise<void> {
    await settle(() => this.#native.close());
  }

  /** The same as {@link CodeIndex.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
