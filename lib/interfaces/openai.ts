import type { EmbeddingMatrix, ModelInfo } from '../index';
import { native, settle } from '../native';
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

/**
 * Reads the body of a request, on a thread of the addon: see `src/request.rs`.
 * @throws {@link Refusal} 400, naming the parameter.
 */
export async function readRequest(body: Buffer, maxItems: number): Promise<EmbeddingsRequest> {
  const read = await settle(() => native().readRequest(body, maxItems));
  if ('message' in read) {
    const { message, param = null, code = null } = read;
    throw new Refusal(400, message, { param, code });
  }
  const { model, text, lengths, base64, dimensions, query } = read;
  let end = 0;
  const input: string[] = [];
  for (let at = 0; at < lengths.length; at++) input.push(text.slice(end, (end += lengths[at]!)));
  return { model, input, format: base64 ? 'base64' : 'float', dimensions: dimensions ?? undefined, inputType: query ? 'query' : 'document' };
}

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
