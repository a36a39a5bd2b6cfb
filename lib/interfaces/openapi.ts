// What a server answers, for programs: an OpenAPI document (https://spec.openapis.org/oas/v3.1.0), whose schemas are JSON Schema.

/** What differs between servers. */
export interface Described {
  version: string;
  /** What the model is for. */
  task: 'embedding' | 'reranking' | 'sparse' | 'multi-vector';
  /** Names of the model; none before it is loaded. */
  models: string[];
  /** Values of its vectors, where they are known. */
  dimensions: number | undefined;
  maxBatchItems: number;
  maxBodyBytes: number;
  /** Whether a key must be sent. */
  keyed: boolean;
}

type Schema = Record<string, unknown>;

const schemaOf = (name: string) => ({ $ref: `#/components/schemas/${name}` });
const json = (name: string) => ({ 'application/json': { schema: schemaOf(name) } });
/** An object with these members and no other; those that may be missing are named. */
const object = (properties: Record<string, Schema>, optional: string[] = []): Schema => ({
  type: 'object', properties, required: Object.keys(properties).filter((name) => !optional.includes(name)), additionalProperties: false,
});
const orNull = (schema: Schema): Schema => ({ anyOf: [schema, { type: 'null' }] });
const text: Schema = { type: 'string' };
const count: Schema = { type: 'integer', minimum: 0 };
const someText: Schema = { type: 'string', pattern: '\\S', description: 'Not blank. Cut to what the model reads.' };

const flag: Schema = orNull({ type: 'boolean' });
const document: Schema = { anyOf: [text, { type: 'object', properties: { text }, required: ['text'] }] };
/** Texts are always cut, and where the model's files say. */
const CUT: Record<string, Schema> = { truncate: orNull({ const: true }), truncation_direction: orNull({ const: 'Right' }) };

const REQUEST_ID = { 'X-Request-Id': { description: 'That of the request, or a new one.', schema: text } };
const RETRY_AFTER = { 'Retry-After': { description: 'Seconds.', schema: { type: 'integer', minimum: 1 } } };

const REFUSALS: Record<number, string> = {
  400: 'What was sent is not HTTP, not JSON, or not what the schema says; `param` names what is wrong.',
  401: 'The key is missing or wrong.',
  403: 'The server does not answer to this host.',
  404: 'There is no such model.',
  405: 'Another method goes with this path.',
  408: 'The request did not come in time.',
  413: 'The body is too large, or comes in pieces that are too small.',
  415: 'The body is not `application/json`, or has a Content-Encoding.',
  417: 'The header Expect asks for what is not known.',
  429: 'Too many requests wait already.',
  431: 'The headers are larger than 16 kB.',
  500: 'The model failed.',
  502: 'The server that the model is on refused.',
  503: 'The model is being loaded, or out of reach, or the server is shutting down.',
  504: 'The texts were not embedded in time.',
};

/** Responses that are errors. */
function refusals(...statuses: number[]): Record<string, object> {
  return Object.fromEntries(statuses.map((status) => [status, {
    description: REFUSALS[status],
    headers: status === 429 || status === 503 ? { ...REQUEST_ID, ...RETRY_AFTER } : REQUEST_ID,
    content: json('Error'),
  }]));
}

const RERANK = { summary: 'Documents by how well they answer a query, best first', request: 'RerankRequest', answer: 'Reranked', description: 'An array where texts were sent, as of text-embeddings-inference; an object where documents were, as of Cohere and Jina.' };

/** What a model of each kind is asked for. */
const OPERATIONS: Record<Described['task'], { path: string; id: string; summary: string; request: string; answer: string; description: string }[]> = {
  embedding: [{ path: '/v1/embeddings', id: 'createEmbeddings', summary: 'The vectors of texts', request: 'EmbeddingsRequest', answer: 'Embeddings', description: 'A vector for each text, in order.' }],
  reranking: [{ path: '/rerank', id: 'rerank', ...RERANK }, { path: '/v1/rerank', id: 'rerankV1', ...RERANK }, { path: '/v2/rerank', id: 'rerankV2', ...RERANK }],
  sparse: [{ path: '/embed_sparse', id: 'embedSparse', summary: 'The sparse vectors of texts', request: 'InputsRequest', answer: 'SparseVectors', description: 'A vector for each text, in order.' }],
  'multi-vector': [{ path: '/embed_all', id: 'embedAll', summary: 'The vectors of the tokens of texts', request: 'InputsRequest', answer: 'TokenVectors', description: 'Vectors for each text, in order.' }],
};

/** Schemas that requests and answers of a kind alone have. */
function schemasOf(task: Described['task'], schemas: Record<string, Schema>): Record<string, Schema> {
  const own = new Set(Object.values(OPERATIONS).flat().flatMap(({ request, answer }) => [request, answer]).concat('Embedding'));
  const needed = new Set(OPERATIONS[task].flatMap(({ request, answer }) => [request, answer]).concat(task === 'embedding' ? ['Embedding'] : []));
  return Object.fromEntries(Object.entries(schemas).filter(([name]) => !own.has(name) || needed.has(name)));
}

/** The document, for a server that has all of this. */
export function openApi({ version, task, models, dimensions, maxBatchItems, maxBodyBytes, keyed }: Described): object {
  const locked = keyed ? [401] : [];
  const read = (id: string, summary: string, answers: Record<string, object>, { open = false, parameters }: { open?: boolean; parameters?: object[] } = {}) => {
    const responses: Record<string, object> = { ...answers, ...refusals(400, ...(open ? [] : locked), 403, 405, 408, 417, 431) };
    const operation = { summary, ...(parameters && { parameters }), ...(open && keyed && { security: [] }), responses };
    const headers = Object.fromEntries(Object.entries(responses).map(([status, response]) => [status, { ...response, content: undefined }]));
    return { get: { operationId: id, ...operation }, head: { operationId: `${id}Head`, ...operation, responses: headers } };
  };
  const ok = (schema: string, description = 'The answer.') => ({ 200: { description, headers: REQUEST_ID, content: json(schema) } });
  const health = { ...ok('Health', 'Requests are taken.'), 503: { description: 'Not yet, or no more.', headers: REQUEST_ID, content: json('Health') } };
  const name: Schema = models.length > 0 ? { type: 'string', enum: models } : text;
  return {
    openapi: '3.1.0',
    info: { title: 'embedcore', version, description: `Embeddings, as OpenAI's clients ask for them. A body has at most ${maxBodyBytes} bytes.`, license: { name: 'MIT', identifier: 'MIT' } },
    servers: [{ url: '/' }],
    ...(keyed && { security: [{ key: [] }] }),
    paths: {
      ...Object.fromEntries(OPERATIONS[task].map(({ path, id, summary, request, answer, description }) => [path, {
        post: {
          operationId: id,
          summary,
          requestBody: { required: true, content: json(request) },
          responses: { ...ok(answer, description), ...refusals(400, ...locked, 403, 404, 405, 408, 413, 415, 417, 429, 431, 500, 502, 503, 504) },
        },
      }])),
      '/v1/models': read('listModels', 'The model, under each of its names', ok('Models')),
      '/v1/models/{id}': read('getModel', 'The model, under one of them', { ...ok('Model'), ...refusals(404) }, {
        parameters: [{ name: 'id', in: 'path', required: true, schema: { type: 'string', minLength: 1 }, description: 'Percent-encoded.' }],
      }),
      '/health': read('health', 'Whether requests are taken', health, { open: true }),
      '/health/ready': read('ready', 'The same', health, { open: true }),
      '/health/live': read('live', 'Whether the process answers', ok('Live'), { open: true }),
      '/info': read('info', 'The model, the limits and the version', ok('Info')),
      '/metrics': read('metrics', 'Figures for Prometheus', { 200: { description: 'Its text format.', headers: REQUEST_ID, content: { 'text/plain': { schema: text } } } }),
      '/openapi.json': read('openApi', 'This document', { 200: { description: 'OpenAPI 3.1.', headers: REQUEST_ID, content: { 'application/json': { schema: { type: 'object' } } } } }),
    },
    components: {
      ...(keyed && { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } }),
      schemas: schemasOf(task, {
        EmbeddingsRequest: object({
          model: name,
          input: { anyOf: [someText, { type: 'array', items: someText, minItems: 1, maxItems: maxBatchItems }] },
          encoding_format: orNull({ type: 'string', enum: ['float', 'base64'] }),
          dimensions: orNull({ type: 'integer', minimum: 1, ...(dimensions !== undefined && { maximum: dimensions }) }),
          user: orNull(text),
          input_type: orNull({ type: 'string', enum: ['document', 'query'] }),
        }, ['encoding_format', 'dimensions', 'user', 'input_type']),
        Embeddings: object({
          object: { const: 'list' },
          data: { type: 'array', minItems: 1, maxItems: maxBatchItems, items: schemaOf('Embedding') },
          model: name,
          usage: object({ prompt_tokens: count, total_tokens: count }),
        }),
        Embedding: object({
          object: { const: 'embedding' },
          index: count,
          embedding: {
            anyOf: [
              { type: 'array', items: { type: 'number' }, minItems: 1, ...(dimensions !== undefined && { maxItems: dimensions }) },
              { type: 'string', contentEncoding: 'base64', pattern: '^[A-Za-z0-9+/]+={0,2}$', description: '32-bit values, little-endian.' },
            ],
          },
          truncated: { const: true, description: 'The text was longer than the model reads.' },
        }, ['truncated']),
        Models: object({ object: { const: 'list' }, data: { type: 'array', items: schemaOf('Model') } }),
        Model: object({ id: text, object: { const: 'model' }, created: count, owned_by: text }),
        Health: object({ status: { type: 'string', enum: ['loading', 'ok', 'shutting down'] }, live: { const: true }, ready: { type: 'boolean' } }),
        Live: object({ status: { const: 'ok' } }),
        Info: object({
          version: text,
          model_id: orNull(text),
          aliases: { type: 'array', items: text },
          model_sha: orNull(text),
          model_dtype: orNull(text),
          model_type: { anyOf: [object({ embedding: object({ pooling: text }) }), object({ reranker: object({ id2label: { type: 'object' }, label2id: { type: 'object' } }) })] },
          dimensions: { type: 'integer', minimum: 1 },
          normalize: { type: 'boolean' },
          max_input_length: orNull({ type: 'integer', minimum: 1 }),
          fingerprint: text,
          execution_providers: { type: 'array', items: text },
          auto_truncate: { const: true },
          max_client_batch_size: count,
          max_concurrent_requests: count,
          max_queued_bytes: { type: 'number' },
          max_body_bytes: count,
          body_timeout_ms: count,
          timeout_ms: count,
        }, ['model_sha', 'model_dtype', 'model_type', 'dimensions', 'normalize', 'max_input_length', 'fingerprint', 'execution_providers']),
        Error: object({
          error: object({
            message: text,
            type: { type: 'string', enum: ['invalid_request_error', 'rate_limit_exceeded', 'server_error'] },
            param: orNull(text),
            code: orNull(text),
          }),
        }),
        RerankRequest: {
          ...object({
            query: { type: 'string', pattern: '\\S' },
            texts: { type: 'array', items: document, minItems: 1, maxItems: maxBatchItems },
            documents: { type: 'array', items: document, minItems: 1, maxItems: maxBatchItems, description: 'Another name of texts; the answer is another one, too.' },
            model: orNull(name),
            raw_scores: orNull({ type: 'boolean', description: 'Scores as the model gives them, not from 0 to 1.' }),
            return_text: flag,
            return_documents: flag,
            top_n: orNull({ type: 'integer', minimum: 1 }),
            ...CUT,
          }, ['texts', 'documents', 'model', 'raw_scores', 'return_text', 'return_documents', 'top_n', ...Object.keys(CUT)]),
          oneOf: [{ required: ['texts'] }, { required: ['documents'] }],
        },
        Reranked: {
          anyOf: [
            { type: 'array', items: object({ index: count, score: { type: 'number' }, text }, ['text']) },
            object({
              id: text,
              object: { const: 'list' },
              model: name,
              results: { type: 'array', items: object({ index: count, relevance_score: { type: 'number' }, document: object({ text }) }, ['document']) },
              usage: object({ prompt_tokens: count, total_tokens: count }),
            }),
          ],
        },
        InputsRequest: object({
          inputs: { anyOf: [someText, { type: 'array', items: someText, minItems: 1, maxItems: maxBatchItems }] },
          prompt_name: orNull({ type: 'string', enum: ['document', 'query'] }),
          ...CUT,
        }, ['prompt_name', ...Object.keys(CUT)]),
        SparseVectors: { type: 'array', items: { type: 'array', items: object({ index: count, value: { type: 'number' } }) } },
        TokenVectors: { type: 'array', items: { type: 'array', items: { type: 'array', items: { type: 'number' } } } },
      }),
    },
  };
}
