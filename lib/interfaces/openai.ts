import { isUtf8 } from 'node:buffer';

import type { EmbeddingMatrix, ModelInfo } from '../index';
import { shortened, sum } from './embedder';

/** An answer that is an error, in OpenAI's shape: `{ error: { message, type, param, code } }`. */
export class Refusal extends Error {
  readonly status: number;
  readonly param: string | null;
  readonly code: string | null;
  /** Beside those that every answer has. */
  readonly headers: Record<string, string>;

  constructor(status: number, message: string, { param = null, code = null, headers = {} }: { param?: string | null; code?: string | null; headers?: Record<string, string> } = {}) {
    super(message);
    this.status = status;
    this.param = param;
    this.code = code;
    this.headers = headers;
  }

  /** The body of the answer. */
  toJson(): string {
    const type = this.status === 429 ? 'rate_limit_exceeded' : this.status >= 500 ? 'server_error' : 'invalid_request_error';
    const { message, param, code } = this;
    return `${JSON.stringify({ error: { message, type, param, code } })}\n`;
  }
}

/** What a client asks for. */
export interface EmbeddingsRequest {
  model: string;
  input: string[];
  format: 'float' | 'base64';
  dimensions: number | undefined;
  inputType: 'document' | 'query';
}

const PARAMETERS = ['model', 'input', 'encoding_format', 'dimensions', 'user', 'input_type'];

/**
 * Reads the body of a request, a text or so with each step.
 *
 * It is read for what it may hold and not as any JSON: `JSON.parse` would hold the event loop for a third of a second for
 * each megabyte of brackets, and there is nothing here that needs more than strings, numbers and one array.
 *
 * @throws {@link Refusal} 400, naming the parameter.
 */
export function* parseRequest(bytes: Buffer, maxItems: number): Generator<void, EmbeddingsRequest> {
  if (bytes.length === 0) throw new Refusal(400, 'The body is empty: send JSON such as {"model": "…", "input": "…"}');
  if (!isUtf8(bytes)) throw malformed('it is not UTF-8');
  const reader = new Reader(bytes);
  if (reader.peek() !== OPEN_BRACE) throw new Refusal(400, `The body is ${reader.kind()}, not a JSON object such as {"model": "…", "input": "…"}`);
  const seen = new Set<string>();
  let input: string[] | undefined;
  const scalars: Record<string, string | number | boolean | null> = {};
  for (let more = reader.enter(OPEN_BRACE, CLOSE_BRACE); more; more = reader.next(CLOSE_BRACE)) {
    const name = reader.key();
    if (!PARAMETERS.includes(name)) throw wrong(shown(name), `Unknown parameter: ${JSON.stringify(shown(name))}. Known are ${PARAMETERS.join(', ')}`, 'unknown_parameter');
    if (seen.has(name)) throw wrong(name, `${name} is there twice`);
    seen.add(name);
    if (name === 'input') {
      input = yield* texts(reader, maxItems);
    } else {
      const kind = reader.kind();
      if (kind === 'an object' || kind === 'an array') throw wrong(name, `${name} is ${kind}, not a ${name === 'dimensions' ? 'number' : 'string'}`);
      scalars[name] = reader.scalar();
    }
    yield;
  }
  reader.end();

  const { model = null, encoding_format: format = null, dimensions = null, user = null, input_type: inputType = null } = scalars;
  if (model === null) throw wrong('model', 'You must provide a model parameter: GET /v1/models lists what there is', 'missing_required_parameter');
  if (typeof model !== 'string') throw wrong('model', `model is ${shownValue(model)}, not a string`);
  if (input === undefined) throw wrong('input', 'You must provide an input parameter: a string, or an array of strings', 'missing_required_parameter');
  if (format !== null && format !== 'float' && format !== 'base64') throw wrong('encoding_format', `encoding_format is ${shownValue(format)}, not "float" or "base64"`);
  if (dimensions !== null && !(Number.isInteger(dimensions) && (dimensions as number) >= 1)) throw wrong('dimensions', `dimensions is ${shownValue(dimensions)}, not a whole number from 1`);
  if (user !== null && typeof user !== 'string') throw wrong('user', `user is ${shownValue(user)}, not a string`);
  if (inputType !== null && inputType !== 'document' && inputType !== 'query') throw wrong('input_type', `input_type is ${shownValue(inputType)}, not "document" or "query"`);
  return { model, input, format: format ?? 'float', dimensions: (dimensions as number | null) ?? undefined, inputType: inputType ?? 'document' };
}

function* texts(reader: Reader, maxItems: number): Generator<void, string[]> {
  const kind = reader.kind();
  if (kind === 'a string') return [text(reader, 'input')];
  if (kind !== 'an array') throw wrong('input', `input is ${kind}, not a string or an array of strings`);
  const all: string[] = [];
  for (let more = reader.enter(OPEN_BRACKET, CLOSE_BRACKET); more; more = reader.next(CLOSE_BRACKET)) {
    if (all.length === maxItems) throw wrong('input', `input has more than ${maxItems} texts, which is the limit of one request: send several`, 'array_above_max_length');
    const element = reader.kind();
    if (element === 'a number' || element === 'an array') {
      throw wrong('input', `input[${all.length}] is ${element}, as token ids are: send the text itself, the model has a tokenizer of its own (LangChain for Python: check_embedding_ctx_length=False)`);
    }
    if (element !== 'a string') throw wrong('input', `input[${all.length}] is ${element}, not a string`);
    all.push(text(reader, `input[${all.length}]`));
    yield;
  }
  if (all.length === 0) throw wrong('input', 'input is an empty array: send at least one text', 'empty_array');
  return all;
}

function text(reader: Reader, where: string): string {
  const value = reader.string();
  if (/^\s*$/.test(value)) throw wrong('input', `${where} is an empty string${value === '' ? '' : ' but for white space'}, which has no embedding: leave it out`);
  return value;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** Longest number or word that is one. */
const LONGEST_WORD = 64;

/** Walks through JSON. Everything is checked as it is reached. */
class Reader {
  readonly #bytes: Buffer;
  #at: number;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    const marked = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
    this.#at = marked ? 3 : 0;
  }

  /** The next byte that is no white space; `undefined` at the end. */
  peek(): number | undefined {
    for (;; this.#at++) {
      const byte = this.#bytes[this.#at];
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return byte;
    }
  }

  /** What comes, in words. */
  kind(): string {
    const byte = this.peek();
    if (byte === undefined) throw this.#broken('it ends too early');
    if (byte === QUOTE) return 'a string';
    if (byte === OPEN_BRACE) return 'an object';
    if (byte === OPEN_BRACKET) return 'an array';
    if (byte === 0x6e) return 'null';
    if (byte === 0x74 || byte === 0x66) return 'a boolean';
    if (byte === 0x2d || (byte >= 0x30 && byte <= 0x39)) return 'a number';
    throw this.#broken('there is no value');
  }

  /** Into an array or an object; whether there is anything in it. */
  enter(open: number, close: number): boolean {
    this.#take(open);
    if (this.peek() !== close) return true;
    this.#at++;
    return false;
  }

  /** Over what separates two elements; whether there is another one. */
  next(close: number): boolean {
    const byte = this.peek();
    if (byte !== close && byte !== COMMA) throw this.#broken(byte === undefined ? 'it ends too early' : `there is no "," or "${String.fromCharCode(close)}"`);
    this.#at++;
    return byte === COMMA;
  }

  key(): string {
    if (this.peek() !== QUOTE) throw this.#broken('there is no name in quotes');
    const name = this.string();
    this.peek();
    this.#take(COLON);
    return name;
  }

  string(): string {
    const bytes = this.#bytes;
    const from = this.#at + 1;
    let escaped = false;
    let ascii = 0;
    let at = from;
    for (; ; at++) {
      const byte = bytes[at];
      if (byte === undefined) throw this.#broken('a string has no end');
      if (byte === QUOTE) break;
      if (byte < 0x20) throw this.#broken('a string has a control character in it, which has to be escaped', at);
      ascii |= byte;
      if (byte === BACKSLASH) {
        escaped = true;
        at++;
      }
    }
    this.#at = at + 1;
    if (!escaped) return ascii < 0x80 ? bytes.toString('latin1', from, at) : bytes.toString('utf8', from, at);
    try {
      return JSON.parse(bytes.toString('utf8', from - 1, at + 1)) as string;
    } catch {
      throw this.#broken('a string has an escape in it that there is not', from - 1);
    }
  }

  /** A string, number, boolean or null. */
  scalar(): string | number | boolean | null {
    if (this.peek() === QUOTE) return this.string();
    const rest = this.#bytes.toString('latin1', this.#at, this.#at + LONGEST_WORD);
    const word = /^[^\s,:[\]{}"]*/.exec(rest)![0];
    if (!/^(null|true|false|-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?)$/.test(word)) throw this.#broken('there is no value');
    this.#at += word.length;
    return JSON.parse(word) as number | boolean | null;
  }

  /** Nothing may follow. */
  end(): void {
    if (this.peek() !== undefined) throw this.#broken('there is more after its end');
  }

  #take(byte: number): void {
    if (this.#bytes[this.#at] !== byte) throw this.#broken(`there is no "${String.fromCharCode(byte)}"`);
    this.#at++;
  }

  #broken(why: string, at: number = this.#at): Refusal {
    return malformed(`${why}, at byte ${at} of ${this.#bytes.length}`);
  }
}

function malformed(why: string): Refusal {
  return new Refusal(400, `The body could not be read as JSON: ${why}`, { code: 'invalid_json' });
}

function wrong(param: string, message: string, code: string | null = null): Refusal {
  return new Refusal(400, message, { param, code });
}

const shown = (name: string) => (name.length > 40 ? `${name.slice(0, 40)}…` : name);

const shownValue = (value: unknown) => (typeof value === 'string' ? JSON.stringify(shown(value)) : String(value));

/** Characters of an answer that are written at a time. */
const CHUNK = 1 << 16;

/** The answer to a request, in chunks of JSON, each made in small steps. */
export class Answer {
  readonly #matrix: EmbeddingMatrix;
  readonly #request: EmbeddingsRequest;
  readonly #info: Pick<ModelInfo, 'normalize'>;
  #row = 0;

  constructor(matrix: EmbeddingMatrix, request: EmbeddingsRequest, info: Pick<ModelInfo, 'normalize'>) {
    this.#matrix = matrix;
    this.#request = request;
    this.#info = info;
  }

  /** Tokens of the texts, special tokens included. */
  get tokens(): number {
    return sum(this.#matrix.tokenCounts);
  }

  get done(): boolean {
    return this.#row > this.#matrix.rows;
  }

  /** The next chunk; a step is a vector. All of it is ASCII, which is copied faster than it is encoded. */
  *chunk(): Generator<void, Buffer> {
    const { rows } = this.#matrix;
    let json = this.#row === 0 ? '{"object":"list","data":[' : '';
    while (this.#row < rows && json.length < CHUNK) {
      json += this.#item(this.#row++);
      yield;
    }
    if (this.#row === rows) {
      this.#row++;
      const { tokens } = this;
      json += `],"model":${ascii(this.#request.model)},"usage":{"prompt_tokens":${tokens},"total_tokens":${tokens}}}\n`;
    }
    return Buffer.from(json, 'latin1');
  }

  #item(row: number): string {
    const { format, dimensions } = this.#request;
    const vector = shortened(this.#matrix.row(row), dimensions ?? Infinity, this.#info);
    const truncated = this.#matrix.truncated[row] === 1 ? ',"truncated":true' : '';
    return `${row === 0 ? '' : ','}{"object":"embedding","index":${row},"embedding":${format === 'base64' ? base64(vector) : numbers(vector)}${truncated}}`;
  }
}

/** A string of JSON that is ASCII. */
function ascii(text: string): string {
  return JSON.stringify(text).replace(/[\u0080-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** The 32-bit values as they lie in memory, which is little-endian wherever embedcore runs. */
function base64(vector: Float32Array): string {
  return `"${Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString('base64')}"`;
}

/** As many digits as the same values have in JavaScript: what is served equals what the generator gives. */
function numbers(vector: Float32Array): string {
  const plain: number[] = new Array(vector.length);
  for (let i = 0; i < vector.length; i++) plain[i] = vector[i]!;
  return JSON.stringify(plain);
}
