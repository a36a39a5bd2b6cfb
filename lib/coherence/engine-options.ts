// What an engine is told: its options, those of its calls, and how they are read.

import { flag, functionOf, milliseconds, signalOf, whole } from '../call/checks';
import { show } from '../call/input';
import { checkWatch, type Watch } from '../call/limits';
import { instanceOr, optionReader, read, refused, untouched, type Given } from '../call/options';
import { InferenceCache, type InferenceCacheOptions, type PerformanceMonitor, type SemanticEmbedder } from '../index';
import { monitorOf } from '../parallel/options';
import { readOptions as readCache } from '../results/options';
import type { CandidateProvider } from './calls';
import type { Evaluate } from './evaluation';
import { coherenceMetrics, type CoherenceMeasureOptions } from './metrics';
import type { RiskThresholds } from './risk';

/** Options of {@link CoherenceEngine}. */
export interface CoherenceEngineOptions extends CoherenceMeasureOptions {
  /** How many candidates there are where that does not depend on the risk, from 1. Default 3. */
  k?: number | undefined;
  /** Steps that follow each candidate, from 0. Default 2. */
  h?: number | undefined;
  /** The CCI from which a candidate is admissible, 0–1. Default 0.65. */
  threshold?: number | undefined;
  /**
   * Whether the number of candidates depends on the risk. Default `true`; where only `k` is given, a risk that is given
   * decides, and none is estimated.
   */
  adaptiveK?: boolean | undefined;
  /** From which risk on there are 2, 3 and 4 candidates. Default: 0.5, 0.7 and 0.8. */
  thresholds?: RiskThresholds | undefined;
  /** Most calls of models at a time, of all calls of this engine, from 1. Default 16. */
  maxParallel?: number | undefined;
  /** Where answers of models are kept: a cache to share, options of one of its own, or `false`. Default: one of its own, in memory. */
  cache?: InferenceCache | InferenceCacheOptions | boolean | undefined;
  /**
   * Names the model whose answers these are, for the cache. Without, the answers of each function or object that is asked are
   * kept apart, and are of no use to another process.
   */
  model?: string | undefined;
  /** Judges steps. Default: by embeddings, and by what a text says about itself. */
  evaluate?: Evaluate | undefined;
  /** Makes the vectors of the default: a generator, or a function of texts. Default: a generator with the built-in model. */
  generator?: SemanticEmbedder | undefined;
  /** What asks for the next step. Default: the prompt, the answer so far, and a request to go on. */
  continuation?: ((prompt: string, responses: readonly string[]) => string) | undefined;
  /** The text of a candidate that could not be had. Default `''`. */
  fallbackResponse?: string | undefined;
  /** Longest time for a call of a model, or of `evaluate`, in milliseconds. Default 180000. */
  callTimeoutMs?: number | undefined;
  /**
   * Who is told of each call, as the operations `coherence.call`, `coherence.generate`, `coherence.unroll` and
   * `coherence.select`, and whose dashboards have a panel of the runs. Default: the global monitor. `false`: nobody.
   */
  monitor?: PerformanceMonitor | false | undefined;
}

/** Limits of a call of an engine. */
export interface CoherenceCallOptions {
  /** Ends the call at once, with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /** Longest time for all of it, in milliseconds. Default: no limit but those of its calls. */
  timeoutMs?: number | undefined;
  /** `false`: asks anew, and keeps nothing. Default: whether the engine has a cache. */
  useCache?: boolean | undefined;
}

/** Options of {@link CoherenceEngine.generateCandidates}. */
export interface GenerateOptions extends CoherenceCallOptions {
  /** Answers several times at once where its `capabilities().batch` says so. */
  provider?: CandidateProvider | undefined;
  /** How bad a bad answer would be, or how likely one is, 0–1. Default: estimated. */
  risk?: number | undefined;
  /** How many candidates, from 1, whatever the risk. */
  k?: number | undefined;
}

const readThresholds = optionReader<RiskThresholds>({ mid: true, high: true, critical: true });

const readEngine = optionReader<CoherenceEngineOptions>({
  k: true, h: true, threshold: true, adaptiveK: true, thresholds: readThresholds, maxParallel: true, cache: instanceOr(InferenceCache, readCache), model: true, evaluate: true,
  generator: untouched, continuation: true, fallbackResponse: true, callTimeoutMs: true, monitor: true, shrinkage: true, shrinkageTarget: true, weights: true,
});

const CALL = { signal: untouched, timeoutMs: true, useCache: true } as const;
const readCall = optionReader<CoherenceCallOptions>(CALL);
const readGenerate = optionReader<GenerateOptions>({ ...CALL, provider: untouched, risk: true, k: true });

/** The options of an engine, checked. */
export interface Settings {
  k: number;
  h: number;
  threshold: number;
  /** `'given'`: only by a risk that is given. */
  adaptive: boolean | 'given';
  thresholds: { mid: number; high: number; critical: number };
  maxParallel: number;
  cache: InferenceCache | InferenceCacheOptions | undefined;
  model: string | undefined;
  evaluate: Evaluate | undefined;
  generator: SemanticEmbedder | undefined;
  continuation: (prompt: string, responses: readonly string[]) => string;
  fallbackResponse: string;
  callTimeoutMs: number;
  monitor: PerformanceMonitor | undefined;
  measure: Given<CoherenceMeasureOptions>;
}

/** Most candidates, and steps behind each. */
const MOST = 1000;

export function settingsOf(options: CoherenceEngineOptions): Settings {
  const given = readEngine(options);
  const { k = 3, h = 2, threshold = 0.65, maxParallel = 16, cache = true, model, fallbackResponse = '', callTimeoutMs = 180_000, continuation = asked } = given;
  const { shrinkage, shrinkageTarget, weights, adaptiveK, thresholds: { mid = 0.5, high = 0.7, critical = 0.8 } = {} } = given;
  const adaptive = adaptiveK === undefined ? (given.k === undefined ? true : 'given') : flag('adaptiveK', adaptiveK);
  const thresholds = { mid: fraction('thresholds.mid', mid), high: fraction('thresholds.high', high), critical: fraction('thresholds.critical', critical) };
  if (!(mid <= high && high <= critical)) throw refused('thresholds', `${mid}, ${high} and ${critical} do not rise from mid to high to critical`);
  if (model !== undefined && (typeof model !== 'string' || model === '')) throw refused('model', `${show(model)} is not the name of a model`);
  if (typeof fallbackResponse !== 'string') throw refused('fallbackResponse', `${show(fallbackResponse)} is not a text`);
  const measure = { ...(shrinkage !== undefined && { shrinkage }), ...(shrinkageTarget !== undefined && { shrinkageTarget }), ...(weights !== undefined && { weights }) };
  // What is wrong with these is better known now than after the first calls.
  coherenceMetrics([], measure);
  return {
    k: whole('k', k, 1, MOST),
    h: whole('h', h, 0, MOST),
    threshold: fraction('threshold', threshold),
    adaptive,
    thresholds,
    maxParallel: whole('maxParallel', maxParallel, 1),
    cache: cache === true ? {} : cache === false ? undefined : cache,
    model,
    evaluate: functionOf<Evaluate>('evaluate', given.evaluate),
    generator: given.generator,
    continuation: functionOf<Settings['continuation']>('continuation', continuation)!,
    fallbackResponse,
    callTimeoutMs: milliseconds('callTimeoutMs', callTimeoutMs)!,
    monitor: monitorOf(given.monitor),
    measure,
  };
}

function asked(prompt: string, responses: readonly string[]): string {
  return `${prompt}\n\n${responses.join('\n\n')}\n\nGo on from here, without repeating what has been said:`;
}

/** The options of a call, checked. */
export interface Asked {
  limits: Watch<never>;
  useCache: boolean;
}

export function callOf(options: CoherenceCallOptions): Asked {
  return checked(readCall(options));
}

export function generateOf(options: GenerateOptions): Asked & Pick<GenerateOptions, 'provider' | 'risk' | 'k'> {
  const given = readGenerate(options);
  const { provider, risk, k } = given;
  if (risk !== undefined) fraction('risk', risk);
  if (k !== undefined) whole('k', k, 1, MOST);
  if (provider !== undefined && !isProvider(provider)) throw refused('provider', `${show(provider)} is neither { generateBatch, capabilities } nor { generate }`);
  return { ...checked(given), provider, risk, k };
}

function checked({ signal, timeoutMs, useCache = true }: Given<CoherenceCallOptions>): Asked {
  const limits = checkWatch({ timeoutMs });
  return { limits: { ...limits, signal: signalOf(signal) }, useCache: flag('useCache', useCache) };
}

function isProvider(provider: unknown): boolean {
  if (typeof provider !== 'object' || provider === null) return false;
  return (['generateBatch', 'generate'] as const).some((name) => typeof read(provider, name, `provider.${name}`) === 'function');
}

function fraction(option: string, value: unknown): number {
  if (typeof value === 'number' && value >= 0 && value <= 1) return value;
  throw refused(option, `${show(value)} is not a number from 0 to 1`);
}
