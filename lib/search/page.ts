// What the page of an index asks for, and how its index follows the directory meanwhile.

import { readFile, realpath, stat } from 'node:fs/promises';
import { basename, isAbsolute, join, relative, sep } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { toEmbeddingError, type EmbeddingError } from '../call/errors';
import { invalid, show } from '../call/input';
import type { Given } from '../call/options';
import { servePage } from '../server/page';
import type { PageServer, ServeOptions } from '../server/serve-options';
import type {
  CodeDuplicates,
  CodeMatch,
  CodeSymbol,
  DuplicateCodeOptions,
  IndexReport,
  IndexStatus,
  SearchOptions,
  SimilarCodeOptions,
  WatchOptions,
} from './options';

/** What the page needs of an index. */
interface Searched {
  search(words: string, options: SearchOptions): Promise<CodeMatch[]>;
  similar(to: Pick<CodeSymbol, 'file' | 'line'>, options: SimilarCodeOptions): Promise<CodeMatch[]>;
  duplicates(options: DuplicateCodeOptions): Promise<CodeDuplicates[]>;
  files(): Promise<string[]>;
  status(): Promise<IndexStatus>;
  update(options: { waitMs: number }): Promise<IndexReport>;
  watch(options: WatchOptions): Promise<AsyncDisposable>;
}

/** Whom the program has told to be told. */
type Told = Pick<WatchOptions, 'onUpdate' | 'onError'>;

/** Lines of a declaration that are shown at once, and of one that was opened; and the most characters of a line. */
const LINES = 24;
const MOST_LINES = 2000;
const MOST_COLUMNS = 400;

/** Declarations of a group that are shown. */
const MEMBERS = 50;

/** How long after following has failed it is begun again. */
const RETRY_MS = 5000;

/** How long an index that is gone waits for another process that makes it. */
const WAIT_MS = 60_000;

/** What the page is told of the index. */
interface State {
  state: 'updating' | 'ready' | 'failed';
  problem?: string;
}

export async function serveSearch(index: Searched, root: string, where: Given<ServeOptions>, told: Told, whenClosed: () => void): Promise<PageServer> {
  const follower = new Follower(index, told);
  const sources = new Sources(root);
  const found = async (matches: Promise<CodeMatch[]>) => ({ matches: await sources.shown(await matches) });
  const page = {
    name: 'The page',
    // See `search/` and `scripts/page.mjs`.
    directory: join(__dirname, 'page'),
    files: ['index.html', 'page.css', 'page.js', 'highlight.js', 'icon.svg'],
    health: () => ({ ...follower.state }),
    calls: {
      '/search': ({ query, ...given }: Record<string, unknown>, signal: AbortSignal) =>
        follower.answered(() => found(index.search(query as string, { ...given, rerank: undefined, signal }))),
      '/similar': ({ file, line, ...given }: Record<string, unknown>, signal: AbortSignal) =>
        follower.answered(() => found(index.similar({ file, line } as { file: string; line: number }, { ...given, signal }))),
      '/duplicates': (given: Record<string, unknown>, signal: AbortSignal) =>
        follower.answered(async () => {
          const groups = await index.duplicates({ ...given, signal });
          const shown = groups.map(async ({ lines, declarations }) => ({
            lines,
            count: declarations.length,
            matches: await sources.shown(declarations.slice(0, MEMBERS)),
          }));
          return { groups: await Promise.all(shown) };
        }),
      '/source': async ({ file, line, endLine }: Record<string, unknown>) => {
        if (typeof file !== 'string' || !Number.isInteger(line) || !Number.isInteger(endLine)) throw invalid('A part of a file is given as { file, line, endLine }');
        return follower.answered(async () => {
          // Nothing else of the directory is shown to anybody.
          if (!(await index.files()).includes(file)) throw invalid(`${show(file)} is not in the index`);
          const [only] = await sources.shown([{ file, line: line as number, endLine: endLine as number }], MOST_LINES);
          return only!;
        });
      },
    },
    greeting: () => ({ event: 'status', json: follower.told(basename(root) || root) }),
    subscribe: (send: (event: string, json: string) => void) => follower.listen(() => send('status', follower.told(basename(root) || root))),
  };
  const server = await servePage(page, where, () => {
    follower.close();
    whenClosed();
  });
  follower.begin();
  return server;
}

/** Keeps an index fresh while its page is there, and knows how it stands. */
class Follower {
  readonly #index: Searched;
  readonly #told: Told;
  readonly #stop = new AbortController();
  readonly #listeners = new Set<() => void>();
  #status: IndexStatus | undefined;
  /** An update because the index was gone. */
  #renewing: Promise<void> | undefined;
  state: State = { state: 'updating' };

  constructor(index: Searched, told: Told) {
    this.#index = index;
    this.#told = told;
  }

  /** Follows until it is closed, whatever goes wrong. */
  begin(): void {
    const { signal } = this.#stop;
    const watch = {
      signal,
      onUpdate: (report: IndexReport) => {
        void this.#updated();
        this.#told.onUpdate?.(report);
      },
      onError: (error: EmbeddingError) => this.#failed(error),
    };
    const follow = async (): Promise<void> => {
      while (!signal.aborted) {
        try {
          await this.#read();
          await this.#index.watch(watch);
          return;
        } catch (error) {
          if (signal.aborted) return;
          this.#failed(toEmbeddingError(error));
          await sleep(RETRY_MS, undefined, { signal, ref: false }).catch(() => {});
        }
      }
    };
    void follow();
  }

  /** What `work` gives; where the index is gone, it is made again meanwhile. */
  async answered<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (error) {
      if (toEmbeddingError(error).code === 'NOT_INITIALIZED') this.#renew();
      throw error;
    }
  }

  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** All that the page is told, as JSON. */
  told(name: string): string {
    const { files = 0, annotations = 0, languages = {} } = this.#status ?? {};
    return JSON.stringify({ name, ...this.state, files, annotations, languages });
  }

  close(): void {
    this.#stop.abort();
    this.#listeners.clear();
  }

  #renew(): void {
    if (this.#renewing || this.state.state === 'updating' || this.#stop.signal.aborted) return;
    this.#is({ state: 'updating' });
    const update = this.#index.update({ waitMs: WAIT_MS }).then(
      () => this.#updated(),
      (error: unknown) => this.#failed(toEmbeddingError(error)),
    );
    this.#renewing = update.finally(() => (this.#renewing = undefined));
  }

  async #updated(): Promise<void> {
    await this.#read();
    this.#is({ state: 'ready' });
  }

  #failed(error: EmbeddingError): void {
    if (this.#stop.signal.aborted) return;
    this.#is({ state: 'failed', problem: error.message });
    try {
      this.#told.onError?.(error);
    } catch {
      // Whoever is told of errors has none to be told of.
    }
  }

  /** What is in the index by now; nothing new where it cannot be read. */
  async #read(): Promise<void> {
    this.#status = await this.#index.status().catch(() => this.#status);
  }

  #is(state: State): void {
    this.state = state;
    for (const listener of this.#listeners) listener();
  }
}

/** The source of declarations, as it is now. */
class Sources {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** Declarations with their source: `code`, of which `more` lines are left out; `null` where it cannot be read any more. */
  async shown<One extends { file: string; line: number; endLine: number }>(all: readonly One[], most = LINES): Promise<(One & { code: string | null; more: number })[]> {
    const files = new Map<string, Promise<string[] | null>>();
    const lines = (file: string) => {
      const known = files.get(file) ?? this.#lines(file);
      files.set(file, known);
      return known;
    };
    return Promise.all(
      all.map(async (one) => {
        const own = (await lines(one.file))?.slice(one.line - 1, one.endLine);
        const code = own?.slice(0, most).map((line) => (line.length > MOST_COLUMNS ? `${line.slice(0, MOST_COLUMNS)}…` : line)).join('\n');
        return { ...one, code: code ?? null, more: own ? Math.max(0, own.length - most) : 0 };
      }),
    );
  }

  /** A link that was put in a file's place is followed within the directory, not out of it. */
  async #lines(file: string): Promise<string[] | null> {
    try {
      const path = await realpath(join(this.#root, file));
      const below = relative(await realpath(this.#root), path);
      if (below === '..' || below.startsWith(`..${sep}`) || isAbsolute(below) || !(await stat(path)).isFile()) return null;
      return (await readFile(path, 'utf8')).split(/\r?\n/);
    } catch {
      return null;
    }
  }
}
