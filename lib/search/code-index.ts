import { invalid, show } from '../call/input';
import { checkWatch, watched } from '../call/limits';
import { naming, optionReader, refused } from '../call/options';
import { argumentPath, pathNow } from '../call/paths';
import { GENERATOR, nativeSettings, type GeneratorOptions } from '../generator/options';
import { call, native, settle } from '../native/addon';
import type { NativeIndex } from '../native/types';

/** Options of {@link CodeIndex}. */
export interface CodeIndexOptions {
  /** The index' file; a relative path is taken from the working directory of now. Default: `.embedcore/index.sqlite` in the directory. */
  path?: string | undefined;
  /** The model that makes the vectors. Default: the built-in one. The index itself is its cache. */
  generator?: Omit<GeneratorOptions, 'cache' | 'enableCaching' | 'cacheConfig' | 'logger'> | undefined;
}

/** Options of {@link CodeIndex.update}. */
export interface IndexOptions {
  /**
   * Start over, whatever index is there: one that another model or version made, or one that is damaged, in any way.
   * Default `false`: such an index is refused.
   */
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
  /** Source files in the index, however they came there; those that cannot be read are none. */
  files: number;
  /** Files that are new or have another content, whatever their sizes and times say. */
  changed: number;
  /** How many of those are done. */
  done: number;
  /** Files whose content is as it was, also those that cannot be read. */
  unchanged: number;
  /** Files that are gone from the tree, and now from the index. */
  removed: number;
  /** Functions, methods, classes, types, documented constants and described files in the index. */
  annotations: number;
  /** How many of them were embedded now. */
  embedded: number;
  /** How many of changed files were as they were, so that their vectors could be kept. */
  reused: number;
  /** Files in the index that are not in UTF-8, by encoding: a byte order mark decides, else the best guess. */
  encodings: Record<string, number>;
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
  /** A `constant` has a comment that documents it; a `file` is found by what is written about it as a whole. */
  kind: 'function' | 'method' | 'class' | 'type' | 'constant' | 'file';
  /** Its name, after those of the declarations and modules around it: `Stack.push`. */
  name: string;
  /** Its source up to its body. */
  signature: string;
  /** Its documentation comment; may be empty. */
  summary: string;
  /**
   * What answers are ranked by, 0 to 1, and the same whatever else is in the index:
   * `0.85 × max(0, similarity) + 0.15 × words`, where `words` is the share of the query's words that the declaration has,
   * each with BM25's saturation (k₁ 1.5, b 0.75, for a usual length of 60 words). A word that is frequent in the index
   * weighs less than others.
   */
  score: number;
  /** Cosine of its vector and the query's, −1 to 1. */
  similarity: number;
}

const { cache: _, enableCaching: __, cacheConfig: ___, logger: ____, ...OWN_GENERATOR } = GENERATOR;

const readOptions = optionReader<CodeIndexOptions>({ path: pathNow, generator: optionReader<NonNullable<CodeIndexOptions['generator']>>(OWN_GENERATOR) });

const readUpdate = optionReader<IndexOptions>({ rebuild: true, signal: true, progressCallback: true });

const readSearch = optionReader<SearchOptions>({ limit: true });

/** Answers of a search that does not say how many. */
const DEFAULT_LIMIT = 10;

/**
 * Semantic search in a directory of source code: TypeScript, JavaScript, Python, Rust, Go and Java. Functions, methods,
 * classes, types, documented constants and described files are found by what they do (vectors) and by their words (BM25).
 *
 * All methods may be called at once: updates run one after the other, a search answers from what is in the index while
 * one runs, and `close()` waits for what was called before it. Another process may search while this one updates.
 */
export class CodeIndex implements AsyncDisposable {
  readonly #native: NativeIndex;
  /** What was called and is not done. */
  readonly #running = new Set<Promise<unknown>>();
  /** The last `close()`. */
  #closed: Promise<void> = Promise.resolve();

  /**
   * Reads nothing yet. The directory is the one that is named now, whatever the working directory becomes.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` or `INVALID_CONFIG`.
   */
  constructor(directory: string, options: CodeIndexOptions = {}) {
    const { path, generator = {} } = readOptions(options);
    if (path !== undefined && (typeof path !== 'string' || path === '')) throw refused('path', `${show(path)} is not a non-empty string`);
    const root = argumentPath('The directory', directory);
    if (root === undefined) throw invalid('The directory is not a non-empty string');
    const file = path;
    this.#native = naming((option) => `generator.${option}`, () => {
      const { plain, optimizer, processor, monitor, named } = nativeSettings(generator);
      return naming(named, () => call(() => new (native().NativeIndex)(root, file, plain, optimizer, processor, monitor)));
    });
  }

  /** The file name extensions that are read. */
  static get extensions(): readonly string[] {
    return call(() => [...native().indexExtensions()]);
  }

  /**
   * Brings the index up to date: embeds what is new or changed, forgets what is gone. Takes the files that git tracks,
   * and those that it does not ignore; a file `.ignore`, of the form of `.gitignore`, leaves out more, tracked files
   * included. Also leaves out hidden files, `node_modules`, links, files above 1 MB, and worktrees of a repository that
   * is in the directory already.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` if another model or version made the index, `CACHE_STORAGE_FAILED`
   * if it cannot be written or another process is writing it, `INVALID_ARGUMENT` if there is no such directory.
   */
  async update(options: IndexOptions = {}): Promise<IndexReport> {
    const { rebuild = false, signal, progressCallback } = readUpdate(options);
    if (typeof rebuild !== 'boolean') throw refused('rebuild', `${show(rebuild)} is not true or false`);
    const watch = checkWatch<[IndexReport]>({ signal, progressCallback });
    const running = call(() => this.#native.update());
    const run = (report: ((report: IndexReport) => void) | undefined) => running.run(rebuild, report) as Promise<IndexReport>;
    return this.#inOrder(() =>
      watched(watch, () => running.cancel(), async (report, check) => {
        check();
        const result = await run(report);
        report?.(result);
        return result;
      }),
    );
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
    return this.#inOrder(async () => (await settle(() => this.#native.search(words, limit))) as CodeMatch[]);
  }

  /**
   * Lets go of the index' file, its copy in memory and the model, when all that was called before is done. The next call
   * opens them again.
   */
  async close(): Promise<void> {
    const before = [this.#closed, ...this.#running];
    this.#closed = Promise.allSettled(before).then(() => settle(() => this.#native.close()));
    await this.#closed;
  }

  /** Runs `work` after every `close()` that was called before it. */
  #inOrder<Result>(work: () => Promise<Result>): Promise<Result> {
    const running = this.#closed.then(work, work);
    const done = () => this.#running.delete(running);
    this.#running.add(running);
    running.then(done, done);
    return running;
  }

  /** The same as {@link CodeIndex.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
