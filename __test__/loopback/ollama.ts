// The interface of Ollama, as its documentation (docs/api.md of the project) describes it: lines of JSON, durations in
// nanoseconds, errors as { error }.

import { createHash } from 'node:crypto';

import type { Api, Received, Reply } from './server';

export interface OllamaSettings {
  /** Models that there are. Default: `llama3.2`, `llava` and `nomic-embed-text`. */
  models?: string[];
  /** What a model answers. Default: how many characters the prompt has, in words. */
  answer?: (prompt: string, request: any) => string;
  /** Values of a vector. Default 8. */
  dimensions?: number;
  /** Most texts of a request for embeddings. Default: any number. */
  maxBatch?: number;
  /** Refuses who does not bring this key. */
  apiKey?: string;
}

const DETAILS = { parent_model: '', format: 'gguf', family: 'llama', families: ['llama'], parameter_size: '3.2B', quantization_level: 'Q4_K_M' };
/** Nanoseconds, as the server counts. */
const TIMES = { total_duration: 2_000_000_000, load_duration: 100_000_000, prompt_eval_count: 11, prompt_eval_duration: 50_000_000, eval_duration: 500_000_000 };

/** A vector that depends on nothing but the text. */
export function vectorOf(text: string, dimensions = 8): number[] {
  const hash = createHash('sha512').update(text).digest();
  const values = Array.from({ length: dimensions }, (_, i) => hash[i % hash.length]! / 127.5 - 1 + i / 1000);
  const length = Math.hypot(...values);
  return values.map((value) => value / length);
}

const withTag = (name: string) => (name.includes(':') ? name : `${name}:latest`);

export function ollama(settings: OllamaSettings = {}): Api {
  const { models = ['llama3.2', 'llava', 'nomic-embed-text'], dimensions = 8, maxBatch = Infinity } = settings;
  const { answer = (prompt: string) => `an answer to ${prompt.length} characters` } = settings;
  const known = new Set(models.map(withTag));
  const digest = (name: string) => createHash('sha256').update(name).digest('hex');

  const spoken = (request: any, text: string, part: (piece: string) => object): Reply => {
    const created_at = new Date().toISOString();
    const words = text.match(/\S+\s*/g) ?? [''];
    const end = { done: true, done_reason: 'stop', ...TIMES, eval_count: words.length };
    const { model } = request;
    if (request.stream === false) return { json: { model, created_at, ...part(text), ...end } };
    const lines = [...words.map((word) => ({ model, created_at, ...part(word), done: false })), { model, created_at, ...part(''), ...end }];
    return { headers: { 'content-type': 'application/x-ndjson' }, body: lines.map((line) => `${JSON.stringify(line)}\n`) };
  };

  const answers: Record<string, (request: any) => Reply> = {
    'POST /api/generate': (request) => spoken(request, answer(request.prompt ?? '', request), (response) => ({ response })),
    'POST /api/chat': (request) => spoken(request, answer(request.messages?.at(-1)?.content ?? '', request), (content) => ({ message: { role: 'assistant', content } })),
    'POST /api/embed': ({ model, input }) => {
      const texts: string[] = Array.isArray(input) ? input : [input];
      if (texts.length > maxBatch) return { status: 413, json: { error: `batch size ${texts.length} is larger than ${maxBatch}` } };
      return { json: { model, embeddings: texts.map((text) => vectorOf(text, dimensions)), total_duration: 14_143_917, load_duration: 1_019_500, prompt_eval_count: texts.length } };
    },
    'POST /api/show': ({ model }) => ({ json: { details: DETAILS, model_info: { 'general.architecture': 'llama' }, capabilities: ['completion'], digest: digest(model) } }),
  };

  return (request: Received) => {
    const name = `${request.method} ${request.path}`;
    const refused = settings.apiKey !== undefined && request.headers.authorization !== `Bearer ${settings.apiKey}`;
    if (refused && request.path.startsWith('/api/')) return { status: 401, json: { error: 'unauthorized' } };
    if (name === 'GET /api/version') return { json: { version: '0.12.0' } };
    if (name === 'GET /api/tags') {
      const list = [...known].map((model) => ({ name: model, model, modified_at: '2026-01-02T03:04:05Z', size: 2_019_393_189, digest: digest(model), details: DETAILS }));
      return { json: { models: list } };
    }
    const own = answers[name];
    if (!own) return undefined;
    if (request.json === undefined) return { status: 400, json: { error: 'invalid JSON' } };
    const { model } = request.json;
    if (typeof model !== 'string' || model === '') return { status: 400, json: { error: 'model is required' } };
    if (!known.has(withTag(model))) return { status: 404, json: { error: `model '${model}' not found` } };
    return own(request.json);
  };
}
