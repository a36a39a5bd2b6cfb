// Where vectors go: a file that is whole or not there, or standard output.
'use strict';

const { randomUUID } = require('node:crypto');
const { open, realpath, rename, rm, stat } = require('node:fs/promises');
const { basename, dirname, join } = require('node:path');
const { tmpdir } = require('node:os');

/** Characters, or bytes, that are written at a time. */
const CHUNK = 1 << 16;

/** What is wrong with writing. */
class OutputError extends Error {}

/** Without the call that failed, which is about a temporary name. */
const cannot = (what, error) => new OutputError(`${what} cannot be written: ${error.message.split(', ')[0]}`);

/** Standard output, which waits for who reads it. */
class Standard {
  #failure;

  constructor() {
    // Without a listener, an error of a pipe would end the process on its own.
    process.stdout.on('error', (error) => (this.#failure ??= error));
  }

  write(bytes) {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#told(this.#failure));
      process.stdout.write(bytes, (error) => (error ? reject(this.#told(error)) : resolve()));
    });
  }

  async finish() {}

  async discard() {}

  #told(error) {
    return error.code === 'EPIPE' ? new OutputError('Nobody reads the output any more') : cannot('Standard output', error);
  }
}

/** A file that is open for writing, at any place where it is a plain one. */
class Opened {
  #name;
  #handle;
  path;

  /** `name` is what messages call it. */
  static async open(path, flags, mode, name = path) {
    const file = new Opened();
    [file.path, file.#name] = [path, name];
    try {
      file.#handle = await open(path, flags, mode);
    } catch (error) {
      throw cannot(name, error);
    }
    return file;
  }

  /** Writes all of `bytes` where the last ones ended, or at `at`. */
  async write(bytes, at = null) {
    for (let done = 0; done < bytes.length; ) {
      const place = at === null ? null : at + done;
      const { bytesWritten } = await this.#told(this.#handle.write(bytes, done, bytes.length - done, place));
      done += bytesWritten;
    }
  }

  /** All that is in it. */
  async *chunks() {
    const chunk = Buffer.alloc(CHUNK);
    for (let at = 0; ; ) {
      const { bytesRead } = await this.#told(this.#handle.read(chunk, 0, CHUNK, at));
      if (bytesRead === 0) return;
      yield chunk.subarray(0, bytesRead);
      at += bytesRead;
    }
  }

  sync() {
    return this.#told(this.#handle.sync());
  }

  finish() {
    return this.#told(this.#handle.close());
  }

  async discard() {
    await this.#handle.close().catch(() => {});
  }

  async #told(work) {
    try {
      return await work;
    } catch (error) {
      throw cannot(this.#name, error);
    }
  }
}

/** A file that is written beside its place, and takes it when it is whole. */
class WholeFile {
  #path;
  #name;
  #file;

  /** For `path`, where `existing` is already, or nothing. */
  static async open(path, existing) {
    const whole = new WholeFile();
    whole.#name = path;
    // The file that a link leads to is replaced, not the link.
    whole.#path = existing ? await realpath(path) : path;
    const temporary = join(dirname(whole.#path), `.${basename(whole.#path)}.${randomUUID()}.tmp`);
    whole.#file = await Opened.open(temporary, 'wx', existing ? existing.mode & 0o777 : 0o666, path);
    return whole;
  }

  write(bytes, at) {
    return this.#file.write(bytes, at);
  }

  async finish() {
    await this.#file.sync();
    await this.#file.finish();
    await rename(this.#file.path, this.#path).catch((error) => {
      throw cannot(this.#name, error);
    });
  }

  /** Leaves nothing of it, and what was there before as it was. */
  async discard() {
    await this.#file.discard();
    await rm(this.#file.path, { force: true }).catch(() => {});
  }
}

/** Results as JSON lines. */
class JsonLines {
  #target;
  #text = '';

  constructor(target) {
    this.#target = target;
  }

  async add(result) {
    this.#text += `${JSON.stringify(result)}\n`;
    if (this.#text.length >= CHUNK) await this.#flush();
  }

  async finish() {
    await this.#flush();
    await this.#target.finish();
  }

  discard() {
    return this.#target.discard();
  }

  async #flush() {
    if (this.#text === '') return;
    const bytes = Buffer.from(this.#text);
    this.#text = '';
    await this.#target.write(bytes);
  }
}

/** Bytes of the header of an array: room for any shape. */
const HEADER = 128;

/** The header of an array of `rows` × `dimensions` float32 values in NumPy's format, version 1.0. */
function header(rows, dimensions) {
  const words = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${dimensions}), }`;
  const bytes = Buffer.alloc(HEADER, ' ', 'latin1');
  bytes.write('\x93NUMPY\x01\x00', 0, 'latin1');
  bytes.writeUInt16LE(HEADER - 10, 8);
  bytes.write(words, 10, 'latin1');
  bytes.write('\n', HEADER - 1, 'latin1');
  return bytes;
}

/**
 * Vectors as an array of NumPy's. How many there are stands at the beginning and is known at the end: the header is
 * written last. What cannot be written at any place, such as standard output, gets it all from a file at the end.
 */
class NumPy {
  #target;
  #file;
  #dimensions;
  #rows = 0;
  #parts = [];
  #bytes = 0;
  #written = HEADER;

  static async open(target, dimensions) {
    const array = new NumPy();
    [array.#target, array.#dimensions] = [target, dimensions];
    const spool = () => Opened.open(join(tmpdir(), `embedcore-${randomUUID()}.npy`), 'wx+', 0o600);
    array.#file = target instanceof WholeFile ? target : await spool();
    return array;
  }

  async add({ embedding }) {
    const bytes = Buffer.alloc(4 * embedding.length);
    for (const [i, value] of embedding.entries()) bytes.writeFloatLE(value, 4 * i);
    this.#parts.push(bytes);
    this.#bytes += bytes.length;
    this.#rows++;
    if (this.#bytes >= CHUNK) await this.#flush();
  }

  async finish() {
    await this.#flush();
    await this.#file.write(header(this.#rows, this.#dimensions), 0);
    if (this.#file !== this.#target) {
      for await (const chunk of this.#file.chunks()) await this.#target.write(chunk);
      await this.#drop();
    }
    await this.#target.finish();
  }

  async discard() {
    if (this.#file !== this.#target) await this.#drop();
    await this.#target.discard();
  }

  async #drop() {
    await this.#file.discard();
    await rm(this.#file.path, { force: true });
  }

  async #flush() {
    const bytes = Buffer.concat(this.#parts, this.#bytes);
    [this.#parts, this.#bytes] = [[], 0];
    await this.#file.write(bytes, this.#written);
    this.#written += bytes.length;
  }
}

/** Opens what vectors go to: `path`, or standard output; `dimensions` is their length. */
async function openOutput(path, format, dimensions) {
  const existing = path === undefined ? undefined : await stat(path).catch(() => undefined);
  if (existing?.isDirectory()) throw new OutputError(`${path} cannot be written: it is a directory`);
  // What is there and no plain file, such as a pipe or a device, cannot be replaced: it is written as it comes.
  const special = existing && !existing.isFile();
  const target = path === undefined ? new Standard() : special ? await Opened.open(path, 'w') : await WholeFile.open(path, existing);
  try {
    return format === 'npy' ? await NumPy.open(target, dimensions) : new JsonLines(target);
  } catch (error) {
    await target.discard();
    throw error;
  }
}

module.exports = { OutputError, openOutput };
