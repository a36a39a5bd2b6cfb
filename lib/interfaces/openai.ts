import type { EmbeddingMatrix, ModelInfo } from '../index';
import { call, native, settle } from '../native/addon';
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
 * Reads the body of a request, on a thread of the addon: see `src/server/request.rs`.
 * @throws {@link Refusal} 400, naming the parameter.
 */
export async function readRequest(body: Buffer, maxItems: number): Promise<EmbeddingsRequest> {
  const { model, text, lengths, base64, dimensions, query } = accepted(await settle(() => native().readRequest(body, maxItems)));
  return { model, input: apart(text, lengths), format: base64 ? 'base64' : 'float', dimensions: dimensions ?? undefined, inputType: query ? 'query' : 'document' };
}

/** What a client asks of a model that scores pairs. */
export interface RerankRequest {
  model: string | undefined;
  query: string;
  texts: string[];
  /** Whether texts were called documents, as Cohere and Jina do. */
  documents: boolean;
  /** Scores as the model gives them, not as numbers from 0 to 1. */
  raw: boolean;
  withTexts: boolean;
  /** How many of the best. */
  most: number;
}

/** What a client asks of a model that embeds texts in another way. */
export interface InputsRequest {
  inputs: string[];
  inputType: 'document' | 'query';
}

/**
 * Reads the body of a request for scores, on a thread of the addon: see `src/server/request.rs`.
 * @throws {@link Refusal} 400, naming the parameter.
 */
export async function readRerank(body: Buffer, maxItems: number): Promise<RerankRequest> {
  const { model, query, text, lengths, documents, raw, withTexts, most } = accepted(await settle(() => native().readRerankRequest(body, maxItems)));
  return { model: model ?? undefined, query, texts: apart(text, lengths), documents, raw, withTexts, most: most ?? Infinity };
}

/** The same of a request for vectors of another kind. */
export async function readInputs(body: Buffer, maxItems: number): Promise<InputsRequest> {
  const { text, lengths, query } = accepted(await settle(() => native().readInputsRequest(body, maxItems)));
  return { inputs: apart(text, lengths), inputType: query ? 'query' : 'document' };
}

/** What was read, if it is what it has to be. */
function accepted<T extends object>(read: T | { message: string; param?: string; code?: string }): T {
  if (!('message' in read)) return read;
  const { message, param = null, code = null } = read;
  throw new Refusal(400, message, { param, code });
}

/** The texts that came in one piece. */
function apart(text: string, lengths: Uint32Array): string[] {
  let end = 0;
  return Array.from(lengths, (length) => text.slice(end, (end += length)));
}

/** Bytes of an answer that are written at a time. */
const CHUNK = 1 << 18;

/** Bytes that a value takes, about. */
const VALUE = { float: 11.5, base64: 5.4 };

/** Bytes that are written at once: it takes less time than to ask another thread. */
const AT_ONCE = 1 << 16;

/** The answer to a request, in chunks of JSON, which threads of the addon write: see `src/server/response.rs`. */
export class Answer {
  /** Tokens of the texts, special tokens included. */
  readonly tokens: number;
  readonly #matrix: EmbeddingMatrix;
  readonly #request: EmbeddingsRequest;
  readonly #info: Pick<ModelInfo, 'normalize'>;
  /** Values of a vector as it is answered. */
  readonly #dimensions: number;
  #row = 0;

  constructor(matrix: EmbeddingMatrix, request: EmbeddingsRequest, info: Pick<ModelInfo, 'normalize'>) {
    this.tokens = sum(matrix.tokenCounts);
    this.#matrix = matrix;
    this.#request = request;
    this.#info = info;
    this.#dimensions = Math.min(request.dimensions ?? Infinity, matrix.dimensions);
  }

  /** The next chunk; `undefined` after the last one. */
  async next(): Promise<Buffer | undefined> {
    const { rows, truncated } = this.#matrix;
    const first = this.#row;
    if (first >= rows) return undefined;
    const { model, format } = this.#request;
    const each = this.#dimensions * VALUE[format] + 60;
    const end = (this.#row = Math.min(first + Math.max(1, Math.floor(CHUNK / each)), rows));
    const usage = `{"prompt_tokens":${this.tokens},"total_tokens":${this.tokens}}`;
    const items = {
      values: this.#values(first, end),
      dimensions: this.#dimensions,
      truncated: truncated.subarray(first, end),
      first,
      base64: format === 'base64',
      before: first === 0 ? '{"object":"list","data":[' : ',',
      after: end < rows ? '' : `],"model":${JSON.stringify(model)},"usage":${usage}}\n`,
    };
    if ((end - first) * each <= AT_ONCE) return call(() => native().writeItems(items));
    return settle(() => native().writeManyItems(items));
  }

  #values(first: number, end: number): Float32Array {
    const { data, dimensions } = this.#matrix;
    const values = data.subarray(first * dimensions, end * dimensions);
    if (this.#dimensions === dimensions) return values;
    const short = new Float32Array((end - first) * this.#dimensions);
    for (let at = 0; at < end - first; at++) {
      const vector = values.subarray(at * dimensions, (at + 1) * dimensions);
      short.set(shortened(vector, this.#dimensions, this.#info), at * this.#dimensions);
    }
    return short;
  }
}
