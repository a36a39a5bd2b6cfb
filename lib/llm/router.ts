import { flag, milliseconds, whole } from '../call/checks';
import { EmbeddingError, messageOf } from '../call/errors';
import { invalid, isArray, requireString, show } from '../call/input';
import { checkWatch, type Watch } from '../call/limits';
import { instanceOr, listOf, naming, optionReader, read, record, refused, type Given } from '../call/options';
import { InferenceCache, PerformanceMonitor, type InferenceCacheOptions, type InferenceSetOptions } from '../index';
import { canonicalJson, faithfulJson } from '../results/canonical-json';
import { readOptions as readCache } from '../results/options';
import { Breaker, type BreakerState, type Trial } from './breaker';
import { isTimeOut, limited } from './limited';
import { SharedCalls } from './shared-calls';

/** What a provider answers: a text, or an object of JSON that has it as `response` or `text`. */
export type LlmAnswer = string | object;

/** What a provider is told beside the prompt: what {@link LlmRouter.generate} was given that is not the router's own. */
export interface LlmProviderOptions {
  [option: string]: unknown;
  /** What the call is for, if it said so. */
  method?: string;
  /** Aborted when nobody waits any more. */
  signal: AbortSignal;
}

/** Something that generates. */
export interface LlmProvider {
  name: string;
  generate(prompt: string, options: LlmProviderOptions): LlmAnswer | Promise<LlmAnswer>;
  /** Methods that it can do. Default: all; so it is with a function, by which a provider tells others what else it can. */
  capabilities?: readonly string[] | (() => unknown) | undefined;
  /** Longest time for an answer, in milliseconds: then the next one is asked. Default: no limit but the call's. */
  timeoutMs?: number | undefined;
}

/** Options of {@link LlmRouter}. */
export interface LlmRouterOptions {
  /** At least one; their names differ. */
  providers: readonly LlmProvider[];
  /** Names, in the order in which they are tried; those it leaves out come after. Default: as they are given. */
  fallbackOrder?: readonly string[] | undefined;
  /** A cache to share, or options of one of its own. Default: one of its own, in memory. */
  cache?: InferenceCache | InferenceCacheOptions | undefined;
  /** Default `true`. */
  enableCaching?: boolean | undefined;
  /** Failures in a row after which a provider is not asked for a while. Default 5. */
  failureThreshold?: number | undefined;
  /** That while, in milliseconds: after it, one call shows whether the provider is well again. Default 30000. */
  cooldownMs?: number | undefined;
}

/** Options of {@link LlmRouter.generate}. All others go to the provider, and tell results apart: they must be JSON. */
export interface LlmGenerateOptions {
  [option: string]: unknown;
  /**
   * What the call is for. Only providers that have it among their `capabilities`, or have none, are asked; the one of this
   * name comes first.
   */
  method?: string | undefined;
  /** Default: the router's `enableCaching`. */
  useCache?: boolean | undefined;
  /** The type of the result in the cache. Default `'text_inference'`. */
  cacheType?: string | undefined;
  /** How long the result is an answer, in seconds. Default: its type's. */
  ttlSeconds?: number | undefined;
  /** Ends the call at once, with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /**
   * Longest time for all of it, in milliseconds. When it is over, the provider that is being asked has failed once more, as
   * `failureThreshold` counts it. Default: no limit but the providers'.
   */
  timeoutMs?: number | undefined;
}

/** What came of {@link LlmRouter.generate}. */
export interface LlmResult {
  /** The text. */
  response: string;
  /** What the provider has answered, all of it. */
  answer: LlmAnswer;
  /** Who has answered it. */
  provider: string;
  /** Whether no provider was asked for it. */
  fromCache: boolean;
}

/** How a provider does. */
export interface LlmProviderStatistics {
  /** How often it was asked, and how often it failed. */
  calls: number;
  errors: number;
  /** Failures in a row until now. */
  consecutiveErrors: number;
  /** `'open'`: it is not asked. */
  state: BreakerState;
  /** Of what it has answered, failures included, in milliseconds; 0 before the first call. */
  latency: { mean: number; p50: number; p95: number; p99: number };
}

/** How a router does. */
export interface LlmRouterStatistics {
  /** Calls of {@link LlmRouter.generate} that were answered. */
  calls: number;
  /** Those of them that no provider was asked for. */
  hits: number;
  /** The share of them, 0–1; 0 before the first call. */
  apiCallReduction: number;
  /** Calls that no provider could answer, or that were ended before. */
  failures: number;
  providers: Record<string, LlmProviderStatistics>;
}

const readOptions = optionReader<LlmRouterOptions>({
  providers: listOf((provider, path) => ({ provider, path })),
  fallbackOrder: true,
  cache: instanceOr(InferenceCache, readCache),
  enableCaching: true,
  failureThreshold: true,
  cooldownMs: true,
});

/** A provider, and what is known of it. */
interface Known {
  provider: LlmProvider;
  name: string;
  capabilities: ReadonlySet<string> | undefined;
  timeoutMs: number | undefined;
  breaker: Breaker;
}

type Kept = Omit<LlmResult, 'fromCache'>;

/** As the monitor has it. */
const LONGEST_NAME = 256;

/** Options that are not for providers. */
const OWN = new Set(['useCache', 'cacheType', 'ttlSeconds', 'signal', 'timeoutMs']);

/**
 * Asks one of several language models, the next one where one fails, and none where the answer is known. A provider that
 * fails five times in a row, by errors or by taking too long, is left alone for 30 seconds. What many ask at the same time is
 * asked once, unless `useCache` is `false`.
 */
export class LlmRouter implements AsyncDisposable {
  readonly #providers: Known[];
  readonly #cache: InferenceCache;
  readonly #ownCache: boolean;
  readonly #enableCaching: boolean;
  readonly #shared = new SharedCalls<{ value: Kept; fromCache: boolean }>();
  readonly #monitor = new PerformanceMonitor();
  #calls = 0;
  #hits = 0;
  #failures = 0;
  #closed: Promise<void> | undefined;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
  constructor(options: LlmRouterOptions) {
    const { providers, fallbackOrder, cache, enableCaching = true, failureThreshold = 5, cooldownMs = 30_000 } = readOptions(options);
    this.#enableCaching = flag('enableCaching', enableCaching);
    const threshold = whole('failureThreshold', failureThreshold, 1);
    const cooldown = whole('cooldownMs', cooldownMs, 0, 2 ** 31 - 1);
    const breaker = () => new Breaker(threshold, cooldown);
    this.#providers = ordered(knownOf(providers, breaker), fallbackOrder);
    if (typeof cache === 'boolean') throw refused('cache', `${show(cache)} is neither an InferenceCache nor its options; enableCaching: false goes without`);
    this.#ownCache = !(cache instanceof InferenceCache);
    this.#cache = cache instanceof InferenceCache ? cache : naming((option) => `cache.${option}`, () => new InferenceCache(cache));
  }

  /**
   * Has the first provider that can answer a prompt.
   * @throws `EmbeddingError` `BACKEND_UNAVAILABLE` where all have failed, or are left alone at the moment: what each
   * has said is in the message and in `details.providers`. `ABORTED`, `TIMED_OUT`, `CLOSED`; `INVALID_ARGUMENT` for a method
   * that none has.
   */
  async generate(prompt: string, options: LlmGenerateOptions = {}): Promise<LlmResult> {
    if (requireString('The prompt', prompt) === '') throw invalid('The prompt is empty: an answer is made from something');
    const given = record(options) as Given<LlmGenerateOptions>;
    const { method, useCache = this.#enableCaching, cacheType, ttlSeconds } = given;
    const limits = checkWatch(given as Watch<never>);
    flag('useCache', useCache);
    if (method !== undefined && (typeof method !== 'string' || method === '')) throw refused('method', `${show(method)} is not the name of a method`);
    const providers = this.#candidates(method);
    if (cacheType !== undefined && (typeof cacheType !== 'string' || cacheType === '')) throw refused('cacheType', `${show(cacheType)} is not the name of a type`);
    if (ttlSeconds !== undefined && !(typeof ttlSeconds === 'number' && ttlSeconds >= 0 && ttlSeconds < Infinity)) throw refused('ttlSeconds', `${show(ttlSeconds)} is not a number of seconds from 0`);
    // JSON as it is now: it is part of the key.
    const rest = JSON.parse(faithfulJson(Object.fromEntries(Object.entries(given).filter(([name]) => !OWN.has(name))), 'options')) as Record<string, unknown>;
    const setting: InferenceSetOptions = { params: { router: rest }, ...(cacheType !== undefined && { type: cacheType }), ...(ttlSeconds !== undefined && { ttlSeconds }) };
    const key = canonicalJson({ prompt, setting }, 'options');
    if (this.#closed) throw new EmbeddingError('CLOSED', 'The router is closed: make a new one');
    const ask = (signal: AbortSignal) => this.#ask(prompt, rest, providers, useCache, signal);
    try {
      const result = useCache
        ? await this.#shared.run(key, limits, (signal) => this.#cache.getOrCompute(prompt, setting, () => ask(signal)))
        : { joined: false, value: { fromCache: false, value: await limited(limits, ask) } };
      const { joined, value: { value, fromCache } } = result;
      this.#calls++;
      if (joined || fromCache) this.#hits++;
      return { ...(joined ? structuredClone(value) : value), fromCache: joined || fromCache };
    } catch (error) {
      this.#failures++;
      throw error;
    }
  }

  /** How it does. Every number is measured. */
  getStatistics(): LlmRouterStatistics {
    const providers = this.#providers.map(({ name, breaker }): [string, LlmProviderStatistics] => {
      const { count = 0, errors = 0, mean = 0, p50 = 0, p95 = 0, p99 = 0 } = this.#monitor.getStats(name) ?? {};
      return [name, { calls: count, errors, consecutiveErrors: breaker.failures, state: breaker.state, latency: { mean, p50, p95, p99 } }];
    });
    return {
      calls: this.#calls,
      hits: this.#hits,
      apiCallReduction: this.#calls > 0 ? this.#hits / this.#calls : 0,
      failures: this.#failures,
      providers: Object.fromEntries(providers),
    };
  }

  /** Closes a cache of its own. What providers need is theirs to close. */
  close(): Promise<void> {
    return (this.#closed ??= this.#ownCache ? this.#cache.close() : Promise.resolve());
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #candidates(method: string | undefined): Known[] {
    if (method === undefined) return this.#providers;
    const able = this.#providers.filter(({ name, capabilities }) => name === method || !capabilities || capabilities.has(method));
    if (able.length > 0) return able.sort((a, b) => Number(b.name === method) - Number(a.name === method));
    const known = [...new Set(this.#providers.flatMap(({ name, capabilities }) => [...(capabilities ?? []), name]))];
    throw invalid(`No provider has the method ${show(method)}: there are ${known.join(', ')}`, { method });
  }

  async #ask(prompt: string, rest: Record<string, unknown>, providers: Known[], keeps: boolean, signal: AbortSignal): Promise<Kept> {
    const failed: { name: string; code?: string; message: string }[] = [];
    const causes: unknown[] = [];
    for (const known of providers) {
      const trial = known.breaker.enter();
      if (!trial) {
        const message = `not asked for another ${Math.ceil(known.breaker.retryInMs / 1000)} s, after ${known.breaker.failures} failures in a row`;
        failed.push({ name: known.name, message });
        continue;
      }
      try {
        // What one of them does to its options is no matter of the next one.
        return await this.#try(known, trial, prompt, structuredClone(rest), keeps, signal);
      } catch (error) {
        if (signal.aborted) throw error;
        const { code } = error instanceof EmbeddingError ? error : {};
        failed.push({ name: known.name, message: messageOf(error), ...(code !== undefined && { code }) });
        causes.push(error);
      }
    }
    const said = failed.map(({ name, message }) => `${name}: ${message}`).join('; ');
    const options = { retryable: true, details: { providers: failed }, ...(causes.length > 0 && { cause: causes.at(-1) }) };
    throw new EmbeddingError('BACKEND_UNAVAILABLE', `No provider has answered. ${said}`, options);
  }

  async #try({ provider, name, timeoutMs }: Known, trial: Trial, prompt: string, options: Record<string, unknown>, keeps: boolean, signal: AbortSignal): Promise<Kept> {
    const began = performance.now();
    const ended = (success: boolean) => this.#monitor.record(name, performance.now() - began, { success });
    try {
      // What it throws is passed on as it is.
      const told = await limited({ signal, timeoutMs }, (inner) => settled(async () => provider.generate(prompt, { ...options, signal: inner })));
      if (told.status === 'rejected') throw told.reason;
      const answer = told.value;
      const response = textIn(answer);
      if (response === undefined) throw new EmbeddingError('BACKEND_REJECTED', `it answered ${show(answer)}, neither a text nor an object with one as response or text`);
      if (keeps) requireJson(answer);
      trial.succeeded();
      ended(true);
      return { response, answer, provider: name };
    } catch (error) {
      // Who is given up says nothing about the provider, unless it took too long.
      if (signal.aborted && !isTimeOut(signal.reason)) trial.left();
      else {
        trial.failed();
        ended(false);
      }
      throw error;
    }
  }
}

async function settled<T>(work: () => Promise<T>): Promise<PromiseSettledResult<T>> {
  const [result] = await Promise.allSettled([work()]);
  return result;
}

/** Refuses an answer that cannot be kept. */
function requireJson(answer: LlmAnswer): void {
  try {
    faithfulJson(answer, 'its answer');
  } catch (cause) {
    throw new EmbeddingError('BACKEND_REJECTED', messageOf(cause), { cause });
  }
}

/** The text of an answer, where it is one. */
export function textIn(answer: unknown): string | undefined {
  if (typeof answer === 'string') return answer;
  const { response, text } = (answer ?? {}) as { response?: unknown; text?: unknown };
  return [response, text].find((one): one is string => typeof one === 'string');
}

function knownOf(providers: unknown, breaker: () => Breaker): Known[] {
  if (!isArray(providers) || providers.length === 0) throw refused('providers', `${show(providers)} is not a list of at least one { name, generate }`);
  const names = new Set<string>();
  return (providers as { provider: unknown; path: string }[]).map(({ provider, path }) => {
    const own = provider as LlmProvider;
    if (typeof own !== 'object' || own === null) throw refused(path, `${show(provider)} is not { name, generate }`);
    const [name, told, generate, limit] = ['name', 'capabilities', 'generate', 'timeoutMs'].map((part) => read(own, part, `${path}.${part}`)) as [unknown, LlmProvider['capabilities'], unknown, unknown];
    const capabilities = typeof told === 'function' ? undefined : told;
    if (typeof name !== 'string' || name === '' || name.length > LONGEST_NAME) throw refused(`${path}.name`, `${show(name)} is not a name of 1 to ${LONGEST_NAME} characters`);
    if (names.has(name)) throw refused(`${path}.name`, `there are two providers ${show(name)}`);
    names.add(name);
    if (typeof generate !== 'function') throw refused(`${path}.generate`, `${show(generate)} is not a function`);
    if (capabilities !== undefined && (!isArray(capabilities) || capabilities.some((one) => typeof one !== 'string'))) {
      throw refused(`${path}.capabilities`, `${show(capabilities)} is not a list of names`);
    }
    return { provider: own, name, capabilities: capabilities && new Set(capabilities), timeoutMs: milliseconds(`${path}.timeoutMs`, limit), breaker: breaker() };
  });
}

function ordered(providers: Known[], order: unknown): Known[] {
  if (order === undefined) return providers;
  if (!isArray(order)) throw refused('fallbackOrder', `${show(order)} is not a list of names`);
  const first = order.map((name, at) => {
    const found = providers.find((provider) => provider.name === name);
    if (!found) throw refused(`fallbackOrder[${at}]`, `there is no provider ${show(name)}; there are ${providers.map((provider) => provider.name).join(', ')}`);
    return found;
  });
  return [...new Set([...first, ...providers])];
}
