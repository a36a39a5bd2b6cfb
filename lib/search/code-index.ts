import { invalid, show } from '../call/input';
import { aborted, checkWatch, watched } from '../call/limits';
import { naming, read, refused } from '../call/options';
import { argumentPath } from '../call/paths';
import type { CrossEncoder } from '../encoders/cross-encoder';
import { nativeSettings } from '../generator/options';
import { call, native, settle } from '../native/addon';
import type { NativeIndex } from '../native/types';
import type { PageServer } from '../server/serve-options';
import {
  checkLimit,
  filterOf,
  readDuplicates,
  readOptions,
  readSearch,
  readServe,
  readSimilar,
  readSymbols,
  readUpdate,
  readWatch,
  type CodeDuplicates,
  type CodeIndexOptions,
  type CodeMatch,
  type CodeSymbol,
  type DuplicateCodeOptions,
  type IndexOptions,
  type IndexReport,
  type IndexStatus,
  type SearchOptions,
  type SearchServeOptions,
  type SimilarCodeOptions,
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
  readonly #servers = new Set<PageServer>();
  /** What was called and is not done. */
  readonly #running = new Set<Promise<unknown>>();
  /** The last `close()`. */
  #closed: Promise<void> = Promise.resolve();

  /**
   * Reads nothing yet. The directory is the one that is named now, whatever the working directory becomes.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` or `INVALID_CONFIG`.
   */
  constructor(directory: string, options: CodeIndexOptions = {}) {
    const { path, textFiles, generator = {} } = readOptions(options);
    if (path !== undefined && (typeof path !== 'string' || path === '')) throw refused('path', `${show(path)} is not a non-empty string`);
    if (textFiles !== undefined && typeof textFiles !== 'boolean') throw refused('textFiles', `${show(textFiles)} is not true or false`);
    const root = argumentPath('The directory', directory);
    if (root === undefined) throw invalid('The directory is not a non-empty string');
    this.#root = root;
    const file = path;
    this.#native = naming((option) => `generator.${option}`, () => {
      const { plain, optimizer, processor, monitor, named } = nativeSettings(generator);
      return naming(named, () => call(() => new (native().NativeIndex)(root, { path: file, textFiles }, plain, optimizer, processor, monitor)));
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
    checkCallbacks({ onUpdate, onError });
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
    const { limit = DEFAULT_LIMIT, rerank, signal, timeoutMs, ...wanted } = readSearch(options);
    checkLimit(limit);
    const { minScore, ...where } = filterOf(wanted);
    const filter = { ...where, minScore: rerank ? 0 : minScore };
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
   * The declarations that are most like one of them, best first: the innermost one that is at a line of a file, without itself, what
   * it is in, and what is in it. `similarity` is the cosine of the two vectors, `score` the same from 0 on. Needs no model.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` if there is no declaration in the index; and as {@link CodeIndex.search}.
   */
  async similar(to: Pick<CodeSymbol, 'file' | 'line'>, options: SimilarCodeOptions = {}): Promise<CodeMatch[]> {
    const { file, line } = readPlace(to);
    const { limit = DEFAULT_LIMIT, signal, timeoutMs, ...wanted } = readSimilar(options);
    checkLimit(limit);
    const filter = filterOf(wanted);
    const watch = checkWatch({ signal, timeoutMs });
    const find = async () => (await settle(() => this.#native.similar(file, line, limit, filter))) as CodeMatch[];
    return this.#inOrder(() => watched(watch, () => {}, find));
  }

  /**
   * Groups of declarations that nearly repeat each other, those that would spare the most lines first. Each is compared with all others
   * of its kind, which takes time in proportion to the square of how many there are. Needs no model.
   * @throws {@link EmbeddingError} as {@link CodeIndex.search}.
   */
  async duplicates(options: DuplicateCodeOptions = {}): Promise<CodeDuplicates[]> {
    const { threshold = 0.95, minLines = 5, limit = 100, signal, timeoutMs, ...wanted } = readDuplicates(options);
    if (typeof threshold !== 'number' || !(threshold >= 0.5 && threshold <= 1)) throw refused('threshold', `${show(threshold)} is not a number from 0.5 to 1`);
    if (!Number.isInteger(minLines) || minLines < 1 || minLines >= 2 ** 31) throw refused('minLines', `${show(minLines)} is not a whole number from 1 to ${2 ** 31 - 1}`);
    checkLimit(limit);
    const filter = filterOf(wanted);
    const watch = checkWatch({ signal, timeoutMs });
    const running = call(() => this.#native.duplicates());
    const find = async () => (await settle(() => running.run(threshold, minLines, limit, filter))) as CodeDuplicates[];
    return this.#inOrder(() => watched(watch, () => running.cancel(), find));
  }

  /**
   * Serves a page for people: matches as they type, what is similar to a declaration, and what repeats what; `npx embedcore search
   * --serve`. It is for this machine alone, unless `host` says otherwise, and needs nothing from elsewhere.
   *
   * Resolves when the page can be opened; meanwhile, and from then on, the index follows the directory as with {@link CodeIndex.watch},
   * until the server is closed: by its `close()`, or that of the index. What goes wrong with that is told to `onError` and on the
   * page, and tried again.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` where the port or the host cannot be had.
   */
  async serve(options: SearchServeOptions = {}): Promise<PageServer> {
    const { onUpdate, onError, ...where } = readServe(options);
    checkCallbacks({ onUpdate, onError });
    return this.#inOrder(async () => {
      // Loaded with the first page, as that of a dashboard.
      const { serveSearch } = await import('./page.js');
      const server = await serveSearch(this, this.#root, where, { onUpdate, onError }, () => this.#servers.delete(server));
      this.#servers.add(server);
      return server;
    });
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
   * Closes its watchers and its pages, and lets go of the index' file, its copy in memory and the model, when all that was called before is
   * done. The next call opens them again.
   */
  async close(): Promise<void> {
    const followers = [...this.#watchers, ...this.#servers];
    const before = [this.#closed, ...this.#running, ...followers.map((follower) => follower.close())];
    this.#closed = Promise.allSettled(before)
      // One that was asked for before is there by now.
      .then(() => Promise.all([...this.#servers].map((server) => server.close())))
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

/** Where a declaration is, as it is now. */
function readPlace(to: unknown): { file: string; line: number } {
  if (typeof to !== 'object' || to === null) throw invalid(`A declaration is given as { file, line }, not as ${show(to)}`);
  const [file, line] = [read(to, 'file', 'file'), read(to, 'line', 'line')];
  if (typeof file !== 'string' || file === '') throw invalid(`file is ${show(file)}, not a path below the directory`);
  if (!Number.isInteger(line) || (line as number) < 1 || (line as number) >= 2 ** 32) throw invalid(`line is ${show(line)}, not a whole number from 1`);
  return { file, line: line as number };
}

function checkCallbacks(callbacks: Record<string, unknown>): void {
  for (const [name, callback] of Object.entries(callbacks)) {
    if (callback != null && typeof callback !== 'function') throw refused(name, `${show(callback)} is not a function`);
  }
}
