import { respond as answered } from '../generator/encoder';
import { OptimizedEmbeddingGenerator, type ModelInfo } from '../index';
import { call, native, settle } from '../native/addon';
import type { NativeRequest, NativeResponse } from '../native/types';
import { sum } from './embedder';

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

/** Bytes of a body that are read at once: it takes less time than to ask another thread. */
const AT_ONCE = 1 << 14;

/**
 * What a client asks for: the body of a request, read by the addon, on a thread of its own where it is long. See
 * `src/server/request.rs`.
 * @throws {@link Refusal} 400, naming the parameter.
 */
export async function readRequest(body: Buffer, maxItems: number): Promise<NativeRequest> {
  if (body.length <= AT_ONCE) return accepted(call(() => native().readRequest(body, maxItems)));
  return accepted(await settle(() => native().readLongRequest(body, maxItems)));
}

/**
 * The vectors of the texts of a request as its client wants them. Written by the addon, which is given no texts nor vectors by way
 * of JavaScript where the generator is of this package, and as it was made.
 */
export async function respond(generator: OptimizedEmbeddingGenerator, request: NativeRequest, { normalize }: Pick<ModelInfo, 'normalize'>, limits: { signal: AbortSignal; timeoutMs: number }): Promise<NativeResponse> {
  if (generator instanceof OptimizedEmbeddingGenerator && generator.embed === OptimizedEmbeddingGenerator.prototype.embed) {
    return answered(generator, request, limits, normalize);
  }
  const { text, lengths } = request.texts();
  const matrix = await generator.embed(apart(text, lengths), { inputType: request.isQuery ? 'query' : 'document', ...limits });
  const { data, dimensions, truncated, tokenCounts, fromCache } = matrix;
  const response = call(() => native().NativeResponse.with(request, data, dimensions, truncated, fromCache, sum(tokenCounts), normalize));
  return response;
}

/** Gives the pieces of an answer, and `undefined` after the last one. */
export function piecesOf(response: NativeResponse): () => Promise<Buffer | undefined> {
  return async () => {
    const first = response.take();
    if (first) return first;
    if (response.over) return undefined;
    return (await settle(() => response.next())) ?? undefined;
  };
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
