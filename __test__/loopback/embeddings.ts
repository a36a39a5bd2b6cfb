// Vectors, as OpenAI's reference and that of text-embeddings-inference describe them.

import { vectorOf } from './ollama';
import type { Api, Fault, Reply } from './server';

export interface EmbeddingsSettings {
  /** Default: `text-embedding-3-small`. */
  models?: string[];
  /** Values of a vector. Default 8. */
  dimensions?: number;
  /** Most texts of a request. Default 2048. */
  maxBatch?: number;
  /** Refuses who does not bring this key; says it again, as no server should. */
  apiKey?: string;
}

const refusal = (status: number, message: string, code: string | null = null): Reply => ({ status, json: { error: { message, type: 'invalid_request_error', param: null, code } } });

/** OpenAI's `/v1/embeddings`. */
export function openaiEmbeddings(settings: EmbeddingsSettings = {}): Api {
  const { models = ['text-embedding-3-small'], dimensions: usual = 8, maxBatch = 2048, apiKey } = settings;
  return ({ method, path, headers, json }) => {
    if (method !== 'POST' || path !== '/v1/embeddings') return undefined;
    const given = headers.authorization?.replace(/^Bearer /, '') ?? '';
    if (apiKey !== undefined && given !== apiKey) return refusal(401, `Incorrect API key provided: ${given}.`, 'invalid_api_key');
    if (!models.includes(json?.model)) return refusal(404, `The model \`${json?.model}\` does not exist or you do not have access to it.`, 'model_not_found');
    const { input, dimensions = usual, encoding_format: format = 'float' } = json as { input: string | string[]; dimensions?: number; encoding_format?: string };
    const texts = Array.isArray(input) ? input : [input];
    if (texts.length > maxBatch) return refusal(400, `Invalid 'input': maximum array length is ${maxBatch}`);
    const written = (vector: number[]) => (format === 'base64' ? Buffer.from(Float32Array.from(vector).buffer).toString('base64') : vector);
    const data = texts.map((text, index) => ({ object: 'embedding', index, embedding: written(vectorOf(text, dimensions)) }));
    return { json: { object: 'list', data, model: json.model, usage: { prompt_tokens: texts.length, total_tokens: texts.length } } };
  };
}

export interface TeiSettings extends Omit<EmbeddingsSettings, 'models'> {
  /** Default 512. */
  maxInputLength?: number;
  /** Tokens of a request, one for four characters. Default 16384. */
  maxBatchTokens?: number;
  /** Default 512. */
  maxConcurrent?: number;
  sha?: string | null;
}

/** The `/info` and `/embed` of text-embeddings-inference. */
export function tei(settings: TeiSettings = {}): Api {
  const { dimensions: usual = 8, maxBatch = 32, maxInputLength = 512, maxBatchTokens = 16384, maxConcurrent = 512, apiKey, sha = 'c5f93f70' } = settings;
  const refused = (status: number, error: string, error_type: string): Reply => ({ status, json: { error, error_type } });
  return ({ method, path, headers, json }) => {
    if (apiKey !== undefined && headers.authorization !== `Bearer ${apiKey}`) return refused(401, 'unauthorized', 'Unauthorized');
    if (method === 'GET' && path === '/info') {
      const model_type = { embedding: { pooling: 'mean' } };
      const limits = { max_concurrent_requests: maxConcurrent, max_input_length: maxInputLength, max_batch_tokens: maxBatchTokens, max_batch_requests: null, max_client_batch_size: maxBatch };
      return { json: { model_id: 'BAAI/bge-small-en-v1.5', model_sha: sha, model_dtype: 'float16', model_type, ...limits, auto_truncate: false, tokenization_workers: 4, version: '1.8.0' } };
    }
    if (method !== 'POST' || path !== '/embed') return undefined;
    const { inputs, truncate = false, dimensions = usual } = json as { inputs: string | string[]; truncate?: boolean; dimensions?: number };
    const texts = Array.isArray(inputs) ? inputs : [inputs];
    if (texts.length > maxBatch) return refused(422, `batch size ${texts.length} > maximum allowed batch size ${maxBatch}`, 'Validation');
    const tokens = texts.map((text) => Math.ceil(text.length / 4));
    const long = tokens.find((count) => count > maxInputLength);
    if (long !== undefined && !truncate) return refused(413, `Input validation error: \`inputs\` must have less than ${maxInputLength} tokens. Given: ${long}`, 'Validation');
    if (tokens.reduce((sum, count) => sum + Math.min(count, maxInputLength), 0) > maxBatchTokens) return refused(413, 'too many tokens', 'Validation');
    return { json: texts.map((text) => vectorOf(text, dimensions)) };
  };
}

/** Changes the JSON of an answer that is one, whatever it is. */
export const changed = (change: (json: any) => unknown): Fault => (reply) => ((reply.status ?? 200) === 200 ? { ...reply, json: change(structuredClone(reply.json)) } : reply);
