import { constants } from 'node:buffer';
import { resolve, sep } from 'node:path';
import { getSystemErrorName, types } from 'node:util';

import { flag, signalOf, whole } from '../call/checks';
import { messageOf } from '../call/errors';
import { invalid, show } from '../call/input';
import { optionReader, refused } from '../call/options';
import { pathNow, plainPath } from '../call/paths';
import { EmbeddingError, type PerformanceMonitor } from '../index';
import { native, settle } from '../native/addon';
import type { NativeFileFailure } from '../native/types';
import { drive, type Runner } from './drive';
import { cores, monitorOf } from './options';
import { Source } from './source';

/** A file that was read, or why it was not. */
export type ReadResult<Content> = { path: string; content: Content; error?: undefined } | { path: string; content?: undefined; error: EmbeddingError };

/** A file to be written. Text is written as UTF-8. */
export interface FileToWrite {
  /** A path, or a file URL; `~/` is the home directory. */
  path: string | URL;
  content: string | Uint8Array;
}

/** A file that was written, or why it was not. */
export interface WriteResult {
  path: string;
  error?: EmbeddingError;
}

/** Options of {@link BatchFileProcessor}. */
export interface BatchFileProcessorOptions {
  /** Threads that read and write, from 1. Default: twice as many as there are cores for this process, at least 4: what some have read is handed out while others read on. */
  concurrency?: number | undefined;
  /** Files that a thread takes at once, from 1. Default 64. */
  batchSize?: number | undefined;
  /** Largest file that is read, in MB, above 0; others are refused with `INPUT_TOO_LONG`. Default 64. */
  maxFileMB?: number | undefined;
  /**
   * A directory that all paths are relative to and have to lie in: those that lead out of it, by `..` or by a link, are
   * refused with `INVALID_ARGUMENT`. Default: relative to the working directory, and anywhere.
   */
  root?: string | URL | undefined;
  /** Who is told of each call, as the operations `files.read` and `files.write`. Default: the global monitor. `false`: nobody. */
  monitor?: PerformanceMonitor | false | undefined;
}

/** Options of {@link BatchFileProcessor.readBatch}. */
export interface ReadBatchOptions {
  /** `'utf8'` (default) gives text, in which bytes that are no UTF-8 are replaced; `'latin1'` text of single bytes; `'buffer'` the bytes. */
  encoding?: 'utf8' | 'latin1' | 'buffer' | undefined;
  /** Ends the call, with `ABORTED`. */
  signal?: AbortSignal | undefined;
}

/** Options of {@link BatchFileProcessor.writeBatch}. */
export interface WriteBatchOptions {
  /**
   * Whether each file is written under a temporary name beside it and then put in its place, so that nobody reads a part of
   * it, whatever happens. Default `true`.
   */
  atomic?: boolean | undefined;
  /** Whether files survive a loss of power from then on. Slow. Default `false`. */
  fsync?: boolean | undefined;
  /** Whether directories that are missing are made. Default `true`. */
  createDirectories?: boolean | undefined;
  /** Ends the call, with `ABORTED`. What was written stays. */
  signal?: AbortSignal | undefined;
}

const readOptions = optionReader<BatchFileProcessorOptions>({ concurrency: true, batchSize: true, maxFileMB: true, root: pathNow, monitor: true });
const readReadOptions = optionReader<ReadBatchOptions>({ encoding: true, signal: true });
const readWriteOptions = optionReader<WriteBatchOptions>({ atomic: true, fsync: true, createDirectories: true, signal: true });

const MB = 1024 * 1024;

/** Of the files of a batch, as many bytes as stay near a processor: what does not fit is read all the same. */
const ROOM_BYTES = MB / 2;

interface Place {
  path: string;
  absolute: string;
}

/**
 * Reads and writes many files on threads of its own, a batch in one crossing. A file that cannot be had has an error, and the
 * others are read or written all the same. Calls take effect in the order in which they are made: what is read has been
 * written by all calls before.
 */
export class BatchFileProcessor {
  readonly #concurrency: number;
  readonly #batchSize: number;
  readonly #maxBytes: number;
  readonly #root: string | undefined;
  readonly #monitor: PerformanceMonitor | undefined;
  /** All writing before, and all reading since. */
  #written: Promise<unknown> = Promise.resolve();
  #read: Promise<unknown> = Promise.resolve();

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
  constructor(options: BatchFileProcessorOptions = {}) {
    const { concurrency = Math.max(4, 2 * cores()), batchSize = 64, maxFileMB = 64, root, monitor } = readOptions(options);
    this.#concurrency = whole('concurrency', concurrency, 1);
    this.#batchSize = whole('batchSize', batchSize, 1);
    if (typeof maxFileMB !== 'number' || !(maxFileMB > 0 && maxFileMB <= 2047)) throw refused('maxFileMB', `${show(maxFileMB)} is not a number of MB above 0 and up to 2047`);
    if (root !== undefined && (typeof root !== 'string' || root === '')) throw refused('root', `${show(root)} is not a path`);
    this.#maxBytes = Math.floor(maxFileMB * MB);
    this.#root = root;
    this.#monitor = monitorOf(monitor);
  }

  /**
   * Reads files; for each path, in order, its content or its error. A path that is given twice is read twice; one of a file URL
   * is told as a path.
   */
  readBatch(paths: Iterable<string | URL>, options: ReadBatchOptions & { encoding: 'buffer' }): Promise<ReadResult<Buffer>[]>;
  readBatch(paths: Iterable<string | URL>, options?: ReadBatchOptions & { encoding?: 'utf8' | 'latin1' | undefined }): Promise<ReadResult<string>[]>;
  readBatch(paths: Iterable<string | URL>, options?: ReadBatchOptions): Promise<ReadResult<Buffer | string>[]>;
  async readBatch(paths: Iterable<string | URL>, options: ReadBatchOptions = {}): Promise<ReadResult<Buffer | string>[]> {
    const { encoding = 'utf8', signal } = readReadOptions(options);
    if (!['utf8', 'latin1', 'buffer'].includes(encoding)) throw refused('encoding', `${show(encoding)} is not 'utf8', 'latin1' or 'buffer'`);
    const places = this.#places(paths, (path) => path, absoluteOf);
    // One for each thread, batch after batch: memory that is new costs more than what is read into it.
    const rooms: Buffer[] = [];
    const run = async (batch: Place[]): Promise<ReadResult<Buffer | string>[]> => {
      const room = rooms.pop() ?? Buffer.allocUnsafeSlow(ROOM_BYTES);
      const { inRoom, beside, lengths, failures } = await settle(() => native().readFiles(batch.map(({ absolute }) => absolute), this.#root, this.#maxBytes, room));
      let start = 0;
      let failed = 0;
      const results = batch.map(({ path }, index): ReadResult<Buffer | string> => {
        if (index === inRoom) start = 0;
        const bytes = index < inRoom ? room : beside;
        const end = start + lengths[index]!;
        const begin = start;
        start = end;
        if (failures[failed]?.index === index) return { path, error: this.#failure(path, 'read', failures[failed++]!) };
        if (encoding === 'buffer') return { path, content: Buffer.from(bytes.subarray(begin, end)) };
        try {
          return { path, content: bytes.toString(encoding, begin, end) };
        } catch {
          return { path, error: noString(path, end - begin) };
        }
      });
      rooms.push(room);
      return results;
    };
    const { results, over } = this.#inBatches('files.read', places, run, this.#written, signalOf(signal));
    this.#read = Promise.all([this.#read, over]);
    return results;
  }

  /** Writes files; for each, in order, whether it could be written. Of several for one path, the last one counts. */
  async writeBatch(files: Iterable<FileToWrite>, options: WriteBatchOptions = {}): Promise<WriteResult[]> {
    const { atomic = true, fsync = false, createDirectories = true, signal } = readWriteOptions(options);
    for (const [name, value] of Object.entries({ atomic, fsync, createDirectories })) flag(name, value);
    const contents: (string | Uint8Array)[] = [];
    const places = this.#places(files, (file, index) => {
      const { path, content } = (file ?? {}) as FileToWrite;
      if (typeof content !== 'string' && !types.isUint8Array(content)) throw invalid(`The content of file ${index} is ${show(content)}: pass text or bytes`, { index });
      contents.push(typeof content === 'string' ? content : Uint8Array.from(content));
      return path;
    });
    const last = new Map(places.map(({ absolute }, index) => [absolute, index]));
    const chosen = [...last.values()].map((index) => ({ ...places[index]!, content: contents[index]! }));
    const run = async (batch: typeof chosen): Promise<WriteResult[]> => {
      const bytes = batch.map(({ content }) => (typeof content === 'string' ? Buffer.from(content) : content));
      const lengths = Float64Array.from(bytes, ({ length }) => length);
      const failures = await settle(() => native().writeFiles(batch.map(({ absolute }) => absolute), Buffer.concat(bytes), lengths, this.#root, atomic, fsync, createDirectories));
      const errors = new Map(failures.map((failure: NativeFileFailure) => [failure.index, failure]));
      return batch.map(({ path }, index) => {
        const failure = errors.get(index);
        return failure ? { path, error: this.#failure(path, 'written', failure) } : { path };
      });
    };
    const before = Promise.all([this.#written, this.#read]);
    const { results, over } = this.#inBatches('files.write', chosen, run, before, signalOf(signal));
    this.#written = Promise.all([before, over]);
    const byPath = new Map((await results).map((result, index) => [chosen[index]!.absolute, result]));
    return places.map(({ path, absolute }) => ({ ...byPath.get(absolute)!, path }));
  }

  /** Waits until all that was begun is read and written. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#written, this.#read]);
  }

  /** What `paths` names, as it is now. */
  #places<Item>(items: Iterable<Item>, pathOf: (item: Item, index: number) => unknown, absoluteOf = (path: string) => resolve(path)): Place[] {
    if (typeof items === 'string' || !isIterable(items)) throw invalid(`The files are ${show(items)}, not an array or another iterable`);
    return Array.from(items, (item, index) => {
      const given = readAt(index, () => {
        const said = pathOf(item, index);
        return said instanceof URL ? plainPath(said, 'path') : said;
      });
      if (typeof given !== 'string' || given === '') throw invalid(`The path of file ${index} is ${show(given)}, not a path: pass a string, which may be a file URL`, { index });
      if (given.includes('\0')) throw invalid(`The path of file ${index} holds a zero byte`, { index });
      // What is no whole string would be another one on the disk.
      if (/\p{Surrogate}/u.test(given)) throw invalid(`The path of file ${index} holds half of a character`, { index });
      const path = readAt(index, () => plainPath(given, 'path')) as string;
      return { path: given, absolute: this.#root === undefined ? absoluteOf(path) : resolve(this.#root, path) };
    });
  }

  /**
   * Runs batches on threads, and gives all results in order. `over` resolves when no thread works for the call any more, which
   * after an abort may be later than its end.
   */
  #inBatches<P extends Place, R extends { path: string; error?: EmbeddingError | undefined }>(
    operation: string,
    places: P[],
    run: (batch: P[]) => Promise<R[]>,
    before: Promise<unknown>,
    signal: AbortSignal | undefined,
  ): { results: Promise<R[]>; over: Promise<unknown> } {
    const started = performance.now();
    const answers: R[] = [];
    const working: Promise<unknown>[] = [];
    const runner: Runner<P, R> = {
      async run({ items, first }, answer, stop) {
        await before;
        if (stop.aborted) return;
        const batch = run(items as P[]);
        working.push(batch.catch(() => {}));
        for (const [i, each] of (await batch).entries()) answer(first + i, true, each);
      },
    };
    const limits = { concurrency: this.#concurrency, chunkSize: this.#batchSize, signal };
    const driven = drive<P, R>(new Source(places), runner, limits, (index, _, result) => (answers[index] = result as R));
    const tell = (success: boolean) => {
      const done = answers.filter((result) => result.error === undefined).length;
      this.#monitor?.record(operation, performance.now() - started, { batchSize: done, success });
    };
    driven.then(() => tell(true), () => tell(false));
    return { results: driven.then(() => answers), over: driven.catch(() => {}).then(() => Promise.all(working)) };
  }

  #failure(path: string, what: 'read' | 'written', { kind, errno, reason }: NativeFileFailure): EmbeddingError {
    const code = typeof errno === 'number' ? systemName(errno) : undefined;
    const details = { path, ...(code && { errno: code }) };
    if (kind === 'outside') {
      return invalid(`${path} leads out of the root ${this.#root}: pass a path inside it, without links that lead out`, details);
    }
    if (kind === 'size') {
      const message = `${path} has ${reason} bytes, more than the limit of ${this.#maxBytes} bytes: raise maxFileMB, or leave it out`;
      return new EmbeddingError('INPUT_TOO_LONG', message, { details: { ...details, bytes: Number(reason), limit: this.#maxBytes } });
    }
    const why = kind === 'kind' ? 'it is no regular file; leave it out' : `${reason}${code ? `, ${code}` : ''}`;
    return new EmbeddingError('CACHE_STORAGE_FAILED', `${path} cannot be ${what}: ${why}`, { details, retryable: kind === 'io' });
  }
}

/** Text has a greatest length in JavaScript. */
function noString(path: string, bytes: number): EmbeddingError {
  const limit = constants.MAX_STRING_LENGTH;
  const message = `${path} has ${bytes} bytes, more than the ${limit} units that a string can have: read it with the encoding 'buffer'`;
  return new EmbeddingError('INPUT_TOO_LONG', message, { details: { path, bytes, limit } });
}

function isIterable(value: unknown): boolean {
  try {
    return typeof (value as Iterable<unknown> | null | undefined)?.[Symbol.iterator] === 'function';
  } catch {
    return false;
  }
}

/** What a caller's file says of itself. What that throws is an error about the file. */
function readAt<T>(index: number, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    if (thrown instanceof EmbeddingError && thrown.code === 'INVALID_ARGUMENT') throw thrown;
    const reason = messageOf(thrown).replace(/^Invalid option `path`: /, '');
    throw new EmbeddingError('INVALID_ARGUMENT', `File ${index} cannot be read as one: ${reason}`, { cause: thrown, details: { index } });
  }
}

/** A path that stays the same wherever this process goes: as it is where it does anyway. */
function absoluteOf(path: string): string {
  return path.startsWith('/') && sep === '/' ? path : resolve(path);
}

function systemName(errno: number): string | undefined {
  // Windows has numbers of its own, which are in the message.
  return process.platform === 'win32' || errno <= 0 ? undefined : getSystemErrorName(-errno);
}
