import { invalid, show } from '../call/input';
import { aborted, checkWatch, watched } from '../call/limits';
import { naming, refused } from '../call/options';
import { argumentPath } from '../call/paths';
import type { CrossEncoder } from '../encoders/cross-encoder';
import { nativeSettings } from '../generator/options';
import { call, native, settle } from '../native/addon';
import type { NativeIndex } from '../native/types';
import {
  readOptions,
  readSearch,
  readSymbols,
  readUpdate,
  readWatch,
  type CodeIndexOptions,
  type CodeMatch,
  type CodeSymbol,
  type IndexOptions,
  type IndexReport,
  type IndexStatus,
  type SearchOptions,
  type SymbolOptions,
  type WatchOptions,
} from './options';
import { candidatesFor, reranked, Rerankers } from './reranking';
import { DirectoryWatcher, type CodeWatcher } from './watcher';

/** How long an update waits for another process, and that of a watcher, in milliseconds. */
const WAIT_MS = 5000;
const LONG_WAIT_MS = 60_000;

const DEBOUNCE_MS = 200;

/** Answers of a search that does not say how many. */
const DEFAULT_LIMIT = 10;

/**
 * Semantic search in a directory of source code: TypeScript, JavaScript, Python, Rust, Go, Java, Kotlin, Scala,
 * Swift, C, C++, C#, PHP, Ruby, Bash, the scripts of Vue and Svelte, SQL and Markdown. Functions, methods, classes, types,
 * documented constants, described files and the sections of Markdown are found by what they do (vectors) and by their words (BM25).
 *
 * All methods may be called at once: updates run one after the other, a search answers from what is in the index while
 * one runs, and `close()` waits for what was called before it. Another process may search while this one updates.
 */
export class CodeIndex implements AsyncDisposable {
  readonly #native: NativeIndex;
  readonly #root: string;
  readonly #rerankers = new Rerankers();
  readonly #watchers = new Set<DirectoryWatcher>();
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
    this.#root = root;
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
   * if it cannot be written or another process is writing it for longer than `waitMs`, `INVALID_ARGUMENT` if there is no such directory.
   */
  async update(options: IndexOptions = {}): Promise<IndexReport> {
    const { rebuild = false, waitMs = WAIT_MS, signal, progressCallback } = readUpdate(options);
    if (typeof rebuild !== 'boolean') throw refused('rebuild', `${show(rebuild)} is not true or false`);
    if (!Number.isInteger(waitMs) || waitMs < 0 || waitMs >= 2 ** 31) {
      throw refused('waitMs', `${show(waitMs)} is not a whole number from 0 to ${2 ** 31 - 1}`);
    }
    const watch = checkWatch<[IndexReport]>({ signal, progressCallback });
    const running = call(() => this.#native.update());
    const run = (report: ((report: IndexReport) => void) | undefined) => running.run(rebuild, waitMs, report) as Promise<IndexReport>;
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
   * Brings the index up to date, and again whenever files change, until the watcher is closed: by its `close()`, by that of
   * the index, or by the signal. Switching branches, or ignore files that change, are changes like others. Several
   * processes may watch one directory: one after the other looks, and who comes second finds nothing to do.
   *
   * Resolves after the first update. Directories are watched one by one on Linux, of which a user may have as many as
   * `fs.inotify.max_user_watches` says; what is ignored is not watched.
   * @throws {@link EmbeddingError} as {@link CodeIndex.update}, of the first one.
   */
  async watch(options: WatchOptions = {}): Promise<CodeWatcher> {
    const { debounceMs = DEBOUNCE_MS, onUpdate, onError, signal } = readWatch(options);
    if (typeof debounceMs !== 'number' || !(debounceMs >= 0 && debounceMs <= 60_000)) {
      throw refused('debounceMs', `${show(debounceMs)} is not a number from 0 to 60000`);
    }
    for (const [name, callback] of Object.entries({ onUpdate, onError })) {
      if (callback != null && typeof callback !== 'function') throw refused(name, `${show(callback)} is not a function`);
    }
    checkWatch({ signal });
    if (signal?.aborted) throw aborted(signal);
    const watched = {
      begin: (changed: () => void) => settle(() => this.#native.watch(changed)),
      update: (stop: AbortSignal) => this.update({ signal: stop, waitMs: LONG_WAIT_MS }),
      end: () => {
        signal?.removeEventListener('abort', stop);
        this.#watchers.delete(watcher);
      },
    };
    const watcher = new DirectoryWatcher(watched, { debounceMs, onUpdate, onError });
    const stop = () => void watcher.close();
    signal?.addEventListener('abort', stop, { once: true });
    this.#watchers.add(watcher);
    await watcher.start();
    if (signal?.aborted) throw aborted(signal);
    return watcher;
  }

  /**
   * The declarations that answer `words` best, best first.
   * @throws {@link EmbeddingError} `NOT_INITIALIZED` if there is no index yet, `INVALID_CONFIG` if another model or
   * version made it, `INVALID_ARGUMENT` if the words are empty or an option is none that there is, `ABORTED`, `TIMED_OUT`;
   * with `rerank`, `MODEL_INIT_FAILED` if its model cannot be loaded.
   */
  async search(words: string, options: SearchOptions = {}): Promise<CodeMatch[]> {
    if (typeof words !== 'string') throw invalid('The words to search for are not a string');
    const { limit = DEFAULT_LIMIT, minScore = 0, paths, languages, kinds, rerank, signal, timeoutMs } = readSearch(options);
    checkLimit(limit);
    if (typeof minScore !== 'number' || !(minScore >= 0 && minScore <= 1)) throw invalid(`minScore is ${show(minScore)}, not a number from 0 to 1`, { option: 'minScore' });
    const filter = { minScore: rerank ? 0 : minScore, paths: texts('paths', paths), languages: texts('languages', languages), kinds: texts('kinds', kinds) };
    const watch = checkWatch({ signal, timeoutMs });
    const find = async (most: number) => (await settle(() => this.#native.search(words, most, filter))) as CodeMatch[];
    const stop = new AbortController();
    return this.#inOrder(() =>
      watched(watch, () => stop.abort(), async (_, check) => {
        if (!rerank) return find(limit);
        const matches = await find(candidatesFor(limit));
        check();
        const look = (encoder: CrossEncoder) => reranked(encoder, words, matches, limit, this.#root, stop.signal);
        const best = await this.#rerankers.using(rerank as Exclude<typeof rerank, URL>, look);
        return best.filter(({ score }) => score >= minScore);
      }),
    );
  }

  /**
   * The declarations that are called `name`, or whose names end with it after a dot (`push` finds `Stack.push`): the
   * shortest names first, then by file and line. Needs no model.
   * @throws {@link EmbeddingError} as {@link CodeIndex.search}.
   */
  async symbols(name: string, options: SymbolOptions = {}): Promise<CodeSymbol[]> {
    if (typeof name !== 'string') throw invalid('The name to look for is not a string');
    const { limit = DEFAULT_LIMIT } = readSymbols(options);
    checkLimit(limit);
    return this.#inOrder(async () => (await settle(() => this.#native.symbols(name, limit))) as CodeSymbol[]);
  }

  /** The source files in the index, below the directory, with `/`, sorted. Needs no model. */
  async files(): Promise<string[]> {
    return this.#inOrder(async () => settle(() => this.#native.files()));
  }

  /**
   * What is in the index. Needs no model.
   * @throws {@link EmbeddingError} `NOT_INITIALIZED` if there is no index yet, `CACHE_STORAGE_FAILED` if it is damaged.
   */
  async status(): Promise<IndexStatus> {
    return this.#inOrder(async () => (await settle(() => this.#native.status())) as IndexStatus);
  }

  /**
   * Closes its watchers, and lets go of the index' file, its copy in memory and the model, when all that was called before is
   * done. The next call opens them again.
   */
  async close(): Promise<void> {
    const before = [this.#closed, ...this.#running, ...[...this.#watchers].map((watcher) => watcher.close())];

    this.#closed = Promise.allSettled(before)
      .then(() => this.#rerankers.close())
      .then(() => settle(() => this.#native.close()));
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

/** Texts that were given one by one or as a list. */
function texts(option: string, given: unknown): string[] {
  const all = given === undefined ? [] : typeof given === 'string' ? [given] : given;
  if (Array.isArray(all) && all.every((text) => typeof text === 'string')) return all as string[];
  throw invalid(`${option} is ${show(given)}, neither a string nor an array of strings`);
}

function checkLimit(limit: number): void {
  if (!Number.isInteger(limit) || limit < 1 || limit > 1000) throw invalid(`limit is ${show(limit)}, not a whole number from 1 to 1000`, { option: 'limit' });
}
