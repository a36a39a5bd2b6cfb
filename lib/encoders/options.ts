import { show } from '../call/input';
import { optionReader, refused, type Given, type Names } from '../call/options';
import { GENERATOR, readCall, type CallOptions, type GeneratorOptions } from '../generator/options';

/** What is said to a generator alone: about vectors, and about models on servers. */
type OfGenerators = 'remote' | 'fingerprint' | 'pooling' | 'normalize' | 'dimensions' | 'prompts' | 'promptName';

/** Options of all classes whose models give something else than one vector for each text; each is as it is with a generator. */
export interface EncoderOptions extends Omit<GeneratorOptions, OfGenerators> {
  /**
   * A model directory in Hugging Face layout, or an `.onnx` file in one; or the id of a model on the hub. May be given to
   * `initialize` instead.
   */
  modelPath?: string | URL | undefined;
}

const { remote: _r, fingerprint: _f, pooling: _p, normalize: _n, dimensions: _d, prompts: _pr, promptName: _pn, ...REST } = GENERATOR;

/** The options, and what reads those that are no plain value. */
const ENCODER: Names<EncoderOptions> = REST;

/** What becomes of a model's scores: see {@link CrossEncoderOptions.activation}. */
export type Activation = 'auto' | 'sigmoid' | 'none';

/** Options of {@link CrossEncoder}. */
export interface CrossEncoderOptions extends EncoderOptions {
  /** Most tokens of a pair that the model sees, special tokens included. Default: the model's own limit. */
  maxLength?: number | undefined;
  /**
   * What becomes of the model's scores. `'sigmoid'`: numbers from 0 to 1, by the logistic function. `'none'`: they stay what
   * they are. `'auto'` (default): what the model's files say, else `'sigmoid'` where it has one score and `'none'` where it has several.
   */
  activation?: 'auto' | 'sigmoid' | 'none' | undefined;
  /**
   * What documents are to be judged by, for models that are told: those whose chat template has a place for it. Others refuse it.
   * Default: what the model's files say. It is part of the fingerprint.
   */
  instruction?: string | undefined;
}

/** The same of a cross-encoder. */
export const CROSS_ENCODER: Names<CrossEncoderOptions> = { ...ENCODER, activation: true, instruction: true };

export const readCrossEncoder = optionReader<CrossEncoderOptions>(CROSS_ENCODER);

/** Options of {@link CrossEncoder.score}. */
export interface ScoreOptions extends Omit<CallOptions, 'inputType' | 'onError'> {
  /** What becomes of the scores of this call. Default: as the class was told. */
  activation?: CrossEncoderOptions['activation'];
}

/** Options of {@link CrossEncoder.rank}. */
export interface RankOptions extends Omit<CallOptions, 'inputType'> {
  /** See {@link ScoreOptions.activation}. */
  activation?: CrossEncoderOptions['activation'];
  /** How many of the best are answered, from 1. Default: all. */
  topK?: number | undefined;
  /** Whether results carry their documents. Default `false`. */
  returnDocuments?: boolean | undefined;
}

/** What may become of scores. */
export function activationOf(given: unknown): Activation {
  if (given === 'auto' || given === 'sigmoid' || given === 'none') return given;
  throw refused('activation', `${show(given)} is not 'auto', 'sigmoid' or 'none'`);
}

const CALL: Names<ScoreOptions> = {
  activation: true,
  signal: true,
  timeoutMs: true,
  progressCallback: true,
  bypassCache: true,
  batchSize: true,
  maxConcurrency: true,
  memoryLimit: true,
};

export const readScore = optionReader<ScoreOptions>(CALL);
export const readRank = optionReader<RankOptions>({ ...CALL, onError: true, topK: true, returnDocuments: true });

/** Options of {@link SparseEncoder}. */
export interface SparseEncoderOptions extends EncoderOptions {
  /**
   * `'bm25'`: no model at all, but words, counted as fastembed counts them for a vector database, which knows how rare each is
   * (`idf`). Else as with {@link EncoderOptions}.
   */
  modelPath?: string | URL | undefined;
  /** Text put before each document or query. Default: what the model's files say, else none. */
  prompts?: { document?: string | undefined; query?: string | undefined } | undefined;
  /** Of `'bm25'`: how soon more of a word counts no more, 0–1000. Default 1.2. */
  k?: number | undefined;
  /** Of `'bm25'`: how much the length of a text counts, 0–1. Default 0.75. */
  b?: number | undefined;
  /** Of `'bm25'`: words of a text of average length. Default 256. */
  averageLength?: number | undefined;
}

export const readSparseEncoder = optionReader<SparseEncoderOptions>({ ...ENCODER, prompts: GENERATOR.prompts, k: true, b: true, averageLength: true });

/** Options of {@link MultiVectorEncoder}. */
export interface MultiVectorEncoderOptions extends EncoderOptions {
  /** Text put before each document or query. Default: what the model's files say, else none. */
  prompts?: { document?: string | undefined; query?: string | undefined } | undefined;
  /**
   * Keep one of so many vectors of a document, 1–1024: those that are alike become their mean. Default: what the model's files say, else
   * 1, which keeps all of them. It is part of the fingerprint.
   */
  poolFactor?: number | undefined;
}

export const readMultiVectorEncoder = optionReader<MultiVectorEncoderOptions>({ ...ENCODER, prompts: GENERATOR.prompts, poolFactor: true });

/** Options of one call of {@link SparseEncoder} or {@link MultiVectorEncoder}. */
export interface EncodeOptions extends CallOptions {}

export const readEncode = readCall;

/** Options of {@link maxSim}. */
export interface MaxSimOptions {
  /** How many of the best are answered, from 1. Default: all. */
  topK?: number | undefined;
}

export const readMaxSim = optionReader<MaxSimOptions>({ topK: true });

/** How many of the best are wanted. */
export function best(topK: unknown): number {
  if (topK === undefined) return Infinity;
  if (Number.isSafeInteger(topK) && (topK as number) >= 1) return topK as number;
  throw refused('topK', `${show(topK)} is not a whole number from 1`);
}

/** Own options of a class, and those that all have. */
export function apart<All extends object, Own extends keyof All>(given: Given<All>, ...own: Own[]): [Record<string, unknown>, Given<GeneratorOptions>] {
  const ours: Record<string, unknown> = {};
  const rest = { ...given } as Record<string, unknown>;
  for (const name of own as string[]) {
    if (rest[name] !== undefined) ours[name] = rest[name];
    delete rest[name];
  }
  return [ours, rest as Given<GeneratorOptions>];
}

/** Values, and what else there is to know of them. */
export function described<Values extends object>(values: Values, about: object): Values {
  // Not enumerable: what goes through the values meets nothing else.
  for (const [name, value] of Object.entries(about)) Object.defineProperty(values, name, { value });
  return values;
}
