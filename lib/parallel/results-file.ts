import { constants } from 'node:fs';
import { mkdir, open, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';

import { EmbeddingError, messageOf } from '../call/errors';

/** A file of JSON lines that grows at its end, by whole lines: several writers, in other processes too, do not tear them. */
export class ResultsFile {
  readonly path: string;
  #file: Promise<FileHandle> | undefined;
  #waiting = '';
  #writing: Promise<void> | undefined;
  #failure: EmbeddingError | undefined;

  constructor(path: string) {
    this.path = path;
  }

  /** What the lines hold, one by one. What is no JSON, such as a line that a crash has cut, is left out. */
  async *read(): AsyncGenerator<unknown, void, undefined> {
    let file: FileHandle | undefined;
    try {
      file = await openRegular(this.path, constants.O_RDONLY);
      for await (const line of createInterface({ input: file.createReadStream({ encoding: 'utf8', autoClose: false }), crlfDelay: Infinity })) {
        const value = parsed(line);
        if (value !== undefined) yield value;
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw failed(this.path, 'read', error);
    } finally {
      await file?.close();
    }
  }

  /**
   * Appends a line, and resolves when the system has it: whatever becomes of this process, it is in the file.
   * @throws `CACHE_STORAGE_FAILED`, from the first line on that could not be written, until it is closed.
   */
  async append(value: unknown): Promise<void> {
    if (this.#failure) throw this.#failure;
    this.#waiting += `${JSON.stringify(value)}\n`;
    this.#writing ??= this.#write();
    await this.flush();
  }

  /** Resolves when all that was appended is in the file. */
  async flush(): Promise<void> {
    while (this.#writing) await this.#writing;
    if (this.#failure) throw this.#failure;
  }

  /** Writes what waits and closes the file, which the next line opens again. */
  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      const file = this.#file;
      this.#file = undefined;
      // Whoever goes on tries again.
      this.#failure = undefined;
      await file?.then((opened) => opened.close(), () => {});
    }
  }

  async #write(): Promise<void> {
    try {
      // What comes in the same moment goes in one write.
      await undefined;
      const file = await (this.#file ??= openToAppend(this.path));
      while (this.#waiting !== '') {
        const lines = this.#waiting;
        this.#waiting = '';
        await file.appendFile(lines);
      }
    } catch (error) {
      this.#failure = failed(this.path, 'written', error);
      this.#waiting = '';
    } finally {
      this.#writing = undefined;
    }
  }
}

/** Ends a last line that was cut, so that the next one is whole. */
async function openToAppend(path: string): Promise<FileHandle> {
  await mkdir(dirname(path), { recursive: true });
  const file = await openRegular(path, constants.O_RDWR | constants.O_APPEND | constants.O_CREAT);
  try {
    const { size } = await file.stat();
    if (size === 0) return file;
    const { buffer } = await file.read({ buffer: Buffer.alloc(1), position: size - 1 });
    if (buffer[0] !== 0x0a) await file.appendFile('\n');
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Opens a file, and neither a FIFO nor a device, which nobody may ever answer. */
async function openRegular(path: string, flags: number): Promise<FileHandle> {
  // Windows has no such flag, and opens no FIFO by a path.
  const file = await open(path, flags | (constants.O_NONBLOCK ?? 0));
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new Error('it is no regular file');
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** The error of a file that could not be used. */
export function failed(path: string, what: 'read' | 'written', cause: unknown): EmbeddingError {
  const reason = messageOf(cause);
  const message = `${path} cannot be ${what}: ${reason}; see to it that the folder is writable and has room, or choose another one`;
  return new EmbeddingError('CACHE_STORAGE_FAILED', message, { cause, details: { path } });
}
