import { messageOf } from '../call/errors';
import { isArray, requireString, show } from '../call/input';
import { refuseOtherKind } from '../call/model-kind';
import { optionReader, read, refused } from '../call/options';
import { GENERATOR } from '../generator/options';
import { CROSS_ENCODER } from '../encoders/options';
import { EmbeddingError, type CrossEncoder, type GeneratorOptions, type OptimizedEmbeddingGenerator } from '../index';
import { checkDimensions, Embedder, isCrossEncoder, isGenerator, plainVectors, Reranker, shortened, sum, withinLimit } from './embedder';

/** Options of {@link createEmbedcore}: those of the generators that it makes, or one generator that it uses. */
export interface EmbedcoreProviderSettings extends Omit<GeneratorOptions, 'modelPath'> {
  /** One that you have, and that you clean up; instead of options of one. It has one model, so every id stands for that. */
  generator?: OptimizedEmbeddingGenerator | undefined;
  /** The same for reranking models: one that you have, and that you clean up. Every id of one stands for that. */
  reranker?: CrossEncoder | undefined;
}

/** What `providerOptions: { embedcore: … }` of a call may hold. */
export interface EmbedcoreProviderOptions {
  /** The role of the values, for models that embed the two differently. Default `'document'`. */
  inputType?: 'document' | 'query' | undefined;
  /** Keep the first so many values of each vector, for models trained for that (Matryoshka). Default: all. */
  dimensions?: number | undefined;
  /** Neither ask the cache nor tell it. Default `false`. */
  bypassCache?: boolean | undefined;
  /** Gives up after so many milliseconds (`TIMED_OUT`), those that the model takes to load included. Default: never. */
  timeoutMs?: number | undefined;
}

/**
 * An embedding model for `embed` and `embedMany` of the package `ai`, in version 3 of its specification, which versions 6
 * and 7 of that package take.
 */
export interface EmbedcoreEmbeddingModel {
  readonly specificationVersion: 'v3';
  readonly provider: 'embedcore';
  readonly modelId: string;
  /** `Infinity`: the generator makes batches itself, and better ones of many texts than of few. */
  readonly maxEmbeddingsPerCall: number;
  readonly supportsParallelCalls: true;
  doEmbed(options: {
    values: string[];
    abortSignal?: AbortSignal | undefined;
    providerOptions?: Record<string, Record<string, unknown>> | undefined;
    /** Given by version 7 of `ai`. Another place for the provider option. */
    dimensions?: number | undefined;
    /** Nothing is sent anywhere, so they are not used. */
    headers?: Record<string, string | undefined> | undefined;
  }): Promise<{
    embeddings: number[][];
    /** Tokens of the whole texts, special tokens included. */
    usage: { tokens: number };
    warnings: never[];
    providerMetadata: {
      embedcore: {
        /** Texts that the model did not see whole. */
        truncated: number;
        /** Texts that this call did not compute. */
        fromCache: number;
        /** Of the embedding space: vectors may be compared only if theirs are equal. */
        fingerprint: string;
      };
    };
  }>;
}

/** What `providerOptions: { embedcore: … }` of a call for a ranking may hold. */
export interface EmbedcoreRerankingOptions {
  /** See {@link EmbedcoreProviderOptions.bypassCache}. */
  bypassCache?: boolean | undefined;
  /** See {@link EmbedcoreProviderOptions.timeoutMs}. */
  timeoutMs?: number | undefined;
}

/** A reranking model for `rerank` of the package `ai`, in version 3 of its specification. */
export interface EmbedcoreRerankingModel {
  readonly specificationVersion: 'v3';
  readonly provider: 'embedcore';
  readonly modelId: string;
  doRerank(options: {
    /** Objects are read as JSON. */
    documents: { type: 'text'; values: string[] } | { type: 'object'; values: object[] };
    query: string;
    topN?: number | undefined;
    abortSignal?: AbortSignal | undefined;
    providerOptions?: Record<string, Record<string, unknown>> | undefined;
    /** Nothing is sent anywhere, so they are not used. */
    headers?: Record<string, string | undefined> | undefined;
  }): Promise<{
    /** Best first. */
    ranking: { index: number; relevanceScore: number }[];
    warnings: never[];
    response: { modelId: string };
  }>;
}

/** Makes models. {@link embedcore} is one without options. */
export interface EmbedcoreProvider extends AsyncDisposable {
  /** The same as {@link embeddingModel}. */
  (modelId?: string): EmbedcoreEmbeddingModel;
  readonly specificationVersion: 'v3';
  /** `modelId`: `'builtin'` (default), a model directory, an `.onnx` file or an id of the hub. Loaded with the first call. */
  embeddingModel(modelId?: string): EmbedcoreEmbeddingModel;
  /** The same as {@link embeddingModel}. */
  textEmbeddingModel(modelId?: string): EmbedcoreEmbeddingModel;
  /** The same as {@link embeddingModel}. */
  embedding(modelId?: string): EmbedcoreEmbeddingModel;
  /** The same as {@link embeddingModel}. */
  textEmbedding(modelId?: string): EmbedcoreEmbeddingModel;
  /** `modelId`: a model directory, an `.onnx` file or an id of the hub, of a cross-encoder. Loaded with the first call. */
  rerankingModel(modelId?: string): EmbedcoreRerankingModel;
  /** The same as {@link rerankingModel}. */
  reranking(modelId?: string): EmbedcoreRerankingModel;
  /** There are none: throws. */
  languageModel(modelId: string): never;
  /** There are none: throws. */
  imageModel(modelId: string): never;
  /** Frees the models that were loaded, unless the generator is yours. */
  close(): Promise<void>;
}

const { modelPath: _, ...SETTINGS } = GENERATOR;

const readSettings = optionReader<EmbedcoreProviderSettings>({ ...SETTINGS, generator: true, reranker: true });

const readReranking = optionReader<EmbedcoreRerankingOptions>({ bypassCache: true, timeoutMs: true });

const readCall = optionReader<EmbedcoreProviderOptions>({ inputType: true, dimensions: true, bypassCache: true, timeoutMs: true });

/**
 * Makes a provider for the package `ai`: `embed({ model: createEmbedcore(settings).embeddingModel('builtin'), value })`.
 * Models of the same id share one generator.
 *
 * @throws `EmbeddingError` `INVALID_CONFIG` naming the option.
 */
export function createEmbedcore(settings: EmbedcoreProviderSettings = {}): EmbedcoreProvider {
  const { generator, reranker, ...options } = readSettings(settings);
  refuseOtherKind('OptimizedEmbeddingGenerator', generator, 'generator');
  refuseOtherKind('CrossEncoder', reranker, 'reranker');
  if (generator !== undefined && !isGenerator(generator)) throw refused('generator', `${show(generator)} is not an OptimizedEmbeddingGenerator`);
  if (reranker !== undefined && !isCrossEncoder(reranker)) throw refused('reranker', `${show(reranker)} is not a CrossEncoder`);
  const [extra] = Object.keys(options);
  if (generator !== undefined && extra !== undefined) throw refused(extra, 'a generator was given, which has options of its own');

  const given = generator && new Embedder(generator);
  const embedders = new Map<string, Embedder>();
  // A server that was given has a model of its own.
  const own = options.remote && (options.remote.model ?? options.remote.kind);
  const embeddingModel = (modelId: string = own ?? 'builtin'): EmbedcoreEmbeddingModel => {
    if (typeof modelId !== 'string' || modelId === '') throw refused('modelId', `${show(modelId)} is not a name: pass an id of the hub, a path or 'builtin'`);
    let embedder = given ?? embedders.get(modelId);
    if (!embedder) embedders.set(modelId, (embedder = new Embedder(modelId === own ? options : { ...options, modelPath: modelId })));
    return modelOf(embedder, modelId);
  };
  const rerankers = new Map<string, Reranker>();
  // What is said about vectors alone is nothing to a cross-encoder.
  const shared = Object.fromEntries(Object.entries(options).filter(([name]) => name in CROSS_ENCODER));
  const rerankingModel = (modelId?: string): EmbedcoreRerankingModel => {
    const id = modelId ?? (reranker && 'reranker');
    if (typeof id !== 'string' || id === '') throw refused('modelId', `${show(modelId)} is not a name: pass an id of the hub or a path of a cross-encoder`);
    if (!rerankers.has(id)) rerankers.set(id, new Reranker(reranker ?? { ...shared, modelPath: id }, 'reranker'));
    return rerankerOf(rerankers.get(id)!, id);
  };
  const none = (kind: string) => (modelId: string) => {
    throw new EmbeddingError('INVALID_ARGUMENT', `There is no ${kind} ${JSON.stringify(modelId)}: embedcore has reranking and embedding models only`);
  };
  const close = async () => {
    await Promise.all([...embedders.values(), ...rerankers.values()].map((each) => each.close()));
  };
  return Object.assign((modelId?: string) => embeddingModel(modelId), {
    specificationVersion: 'v3' as const,
    embeddingModel,
    textEmbeddingModel: embeddingModel,
    embedding: embeddingModel,
    textEmbedding: embeddingModel,
    rerankingModel,
    reranking: rerankingModel,
    languageModel: none('language model'),
    imageModel: none('image model'),
    close,
    [Symbol.asyncDispose]: close,
  });
}

/** The provider without options. */
export const embedcore: EmbedcoreProvider = createEmbedcore();

/** An object without `this`: the package `ai` calls its methods on a proxy. */
function modelOf(embedder: Embedder, modelId: string): EmbedcoreEmbeddingModel {
  return {
    specificationVersion: 'v3',
    provider: 'embedcore',
    modelId,
    maxEmbeddingsPerCall: Infinity,
    supportsParallelCalls: true,
    doEmbed: async ({ values, abortSignal, providerOptions, dimensions: wanted }) => {
      const { dimensions = wanted ?? undefined, timeoutMs, ...rest } = callOptions(providerOptions?.embedcore);
      const signal = abortSignal ? { signal: abortSignal } : {};
      // As they are now: the caller may change its array while the model is loaded.
      const texts = Array.isArray(values) ? [...values] : values;
      return withinLimit(timeoutMs, async (left) => {
        const info = await embedder.ready(signal);
        const length = dimensions === undefined ? info.dimensions : checkDimensions(dimensions, info);
        const ms = left();
        const matrix = await embedder.generator.embed(texts, { ...rest, ...signal, ...(ms !== undefined && { timeoutMs: ms }) });
        return {
          embeddings: await plainVectors(matrix, (vector) => shortened(vector, length, info)),
          usage: { tokens: sum(matrix.tokenCounts) },
          warnings: [],
          providerMetadata: {
            embedcore: { truncated: sum(matrix.truncated), fromCache: sum(matrix.fromCache), fingerprint: info.fingerprint },
          },
        };
      });
    },
  };
}

/** The same for a cross-encoder. */
function rerankerOf(reranker: Reranker, modelId: string): EmbedcoreRerankingModel {
  return {
    specificationVersion: 'v3',
    provider: 'embedcore',
    modelId,
    doRerank: async ({ documents, query, topN, abortSignal, providerOptions }) => {
      const { timeoutMs, ...rest } = said(readReranking(providerOptions?.embedcore ?? {}, 'providerOptions.embedcore'));
      const signal = abortSignal ? { signal: abortSignal } : {};
      const texts = textsOf(documents);
      return withinLimit(timeoutMs, async (left) => {
        await reranker.ready(signal);
        const ms = left();
        const limits = { ...signal, ...(ms !== undefined && { timeoutMs: ms }), ...(topN != null && { topK: topN }) };
        const ranked = await reranker.encoder.rank(query, texts, { ...rest, ...limits });
        return { ranking: ranked.map(({ index, score }) => ({ index, relevanceScore: score })), warnings: [], response: { modelId } };
      });
    },
  };
}

/** The documents as they are now: the caller may change its array while the model is loaded. */
function textsOf(documents: unknown): string[] {
  const wrong = (reason: string) => new EmbeddingError('INVALID_ARGUMENT', `${reason}: pass { type: 'text', values: string[] } or { type: 'object', values: object[] }`);
  if (typeof documents !== 'object' || documents === null) throw wrong(`The documents are ${show(documents)}`);
  const [type, values] = [read(documents, 'type', 'documents.type'), read(documents, 'values', 'documents.values')];
  if (type !== 'text' && type !== 'object') throw wrong(`The type of the documents is ${show(type)}`);
  if (!isArray(values)) throw wrong(`The documents' values are ${show(values)}, not an array`);
  return Array.from(values, (value, index) => (type === 'text' ? requireString(`Document ${index}`, value) : asJson(value, index)));
}

function asJson(value: unknown, index: number): string {
  const invalid = (reason: string, cause?: unknown) => new EmbeddingError('INVALID_ARGUMENT', `Document ${index} ${reason}`, { details: { index }, cause });
  let json: string | undefined;
  try {
    json = JSON.stringify(value);
  } catch (cause) {
    throw invalid(`cannot be read as JSON: ${messageOf(cause)}`, cause);
  }
  if (json === undefined) throw invalid(`is ${show(value)}, which JSON does not know`);
  return json;
}

const callOptions = (given: unknown): EmbedcoreProviderOptions => said(readCall(given ?? {}, 'providerOptions.embedcore'));

/** JSON has no undefined: `null` is left out, too. */
function said<T extends object>(read: T): T {
  return Object.fromEntries(Object.entries(read).filter(([, value]) => value !== null)) as T;
}
