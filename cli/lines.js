// What `embed` reads: JSON lines, each a text or an annotation, from a file or standard input, however long.
'use strict';

const { createReadStream, statSync } = require('node:fs');

const { UsageError } = require('./usage');

/** Longest line, in bytes. A text of more was not meant to be one. */
const MOST_BYTES = 64 * 2 ** 20;

const ANNOTATED = ['signature', 'summary', 'sourceSnippet'];

/** What is wrong with a line, or with reading. */
class InputError extends Error {}

/** Reads inputs one by one, and knows where each of those that are not yet answered stands. */
class Lines {
  /** `null`: standard input. */
  #path;
  /** Those that were read and not yet answered: what they are called, and their lines. */
  #open = [];
  #answered = 0;
  /** Whether lines are annotations, and the first of them. */
  #kind;

  /** Bytes in the file; `undefined` where nobody knows. */
  size;
  /** Bytes that were read. */
  bytes = 0;

  constructor(path) {
    this.#path = path;
    if (path === null) return;
    let stats;
    try {
      stats = statSync(path, { throwIfNoEntry: false });
    } catch (error) {
      throw new UsageError(`${path} cannot be read: ${error.message.split(', ')[0]}`);
    }
    if (!stats) throw new UsageError(`There is no file ${path}`);
    if (stats.isDirectory()) throw new UsageError(`${path} is a directory, not a file of JSON lines`);
    if (stats.isFile()) this.size = stats.size;
  }

  /** Texts, or annotations, for `stream`. */
  async *inputs() {
    let number = 0;
    for await (const line of this.#lines()) {
      number++;
      const text = this.#decode(line, number);
      if (text.trim() === '') continue;
      const { annotated, name, input } = this.#read(text, number);
      this.#kind ??= { annotated, number };
      if (annotated !== this.#kind.annotated) {
        const kinds = annotated ? ['an annotation', 'a text'] : ['a text', 'an annotation'];
        throw this.#wrong(number, `it is ${kinds[0]}, but line ${this.#kind.number} is ${kinds[1]}: embed them in two runs`);
      }
      this.#open.push({ number, name });
      yield input;
    }
  }

  /** The oldest input that is not yet answered, which is now: its position, and what it calls itself. */
  answered() {
    const { name } = this.#open.shift();
    return { index: this.#answered++, name };
  }

  /** An error of the generator's about one input, with its line. */
  located(error) {
    const at = this.#open[error.details?.index - this.#answered];
    if (!at) return error;
    // What is called a text by its position is this line; what options of a call would help are none of the command line.
    return this.#wrong(at.number, error.message.replace(/^Text \d+ /, 'its text ').replace(/, or pass onError.*$/, ''));
  }

  #wrong(number, reason) {
    return new InputError(`Line ${number} of ${this.#path ?? 'standard input'}: ${reason}`);
  }

  #decode(line, number) {
    try {
      // The mark at the beginning of a file is none of its text; the decoder drops it.
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: number > 1 }).decode(line);
    } catch {
      throw this.#wrong(number, 'it is not UTF-8');
    }
  }

  #read(text, number) {
    let value;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw this.#wrong(number, `it is not JSON (${error.message}); pass a string or an annotation a line`);
    }
    if (typeof value === 'string') return { annotated: false, name: {}, input: value };
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw this.#wrong(number, `it is ${Array.isArray(value) ? 'an array' : String(value)}, neither a string nor an annotation`);
    }
    const { id, nodeId, text: own } = value;
    if (own !== undefined && !ANNOTATED.some((field) => value[field] !== undefined)) {
      if (typeof own !== 'string') throw this.#wrong(number, 'its `text` is not a string');
      return { annotated: false, name: { ...(id !== undefined && { id }), ...(nodeId !== undefined && { nodeId }) }, input: own };
    }
    for (const field of ['nodeId', ...ANNOTATED]) {
      const part = value[field];
      if (typeof part === 'string' || (field !== 'nodeId' && (part === undefined || part === null))) continue;
      throw this.#wrong(number, `its \`${field}\` is ${part === undefined ? 'missing' : 'not a string'}; pass { nodeId, signature, summary, sourceSnippet? }, { text } or a string`);
    }
    return { annotated: true, name: {}, input: value };
  }

  async *#lines() {
    let parts = [];
    let length = 0;
    let number = 1;
    const add = (part) => {
      parts.push(part);
      length += part.length;
      if (length > MOST_BYTES) throw this.#wrong(number, `it is longer than ${MOST_BYTES / 2 ** 20} MB`);
    };
    const take = () => {
      const line = parts.length === 1 ? parts[0] : Buffer.concat(parts, length);
      [parts, length] = [[], 0];
      number++;
      return line;
    };
    const stream = this.#path === null ? process.stdin : createReadStream(this.#path);
    try {
      for await (const chunk of stream) {
        this.bytes += chunk.length;
        let from = 0;
        for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
          add(chunk.subarray(from, end));
          yield take();
          from = end + 1;
        }
        if (from < chunk.length) add(chunk.subarray(from));
      }
    } catch (error) {
      if (error instanceof InputError || error.code === undefined) throw error;
      throw new InputError(`${this.#path ?? 'Standard input'} cannot be read: ${error.message}`);
    }
    if (length > 0) yield take();
  }
}

module.exports = { InputError, Lines };
