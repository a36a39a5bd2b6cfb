// What an engine asks a language model: so many calls at a time, each with an end, none of them twice.

import { randomUUID } from 'node:crypto';

import { EmbeddingError, messageOf } from '../call/errors';
import { isArray, show } from '../call/input';
import { aborted } from '../call/limits';
import { Admission, type Queue } from '../http/admission';
import type { InferenceCache, InferenceSetOptions, PerformanceMonitor } from '../index';
import { limited } from '../llm/limited';
import { textIn, type LlmAnswer } from '../llm/router';
import { SharedCalls } from '../llm/shared-calls';

/** What a model is told beside the prompt. */
export type ModelCallOptions = {
  /** Aborted when nobody waits any more. */
  signal: AbortSignal;
  /**
   * The number of the candidate, from 0, or of the step, from 1: give it to a model that takes a seed, so that candidates
   * differ. It also tells the answers of one prompt apart where the model has a cache of its own.
   */
  seed: number;
};

/** Asks a language model: a function or whatever has `generate`, such as an `LlmRouter` or an `OllamaClient`. */
export type ModelCall = ModelFunction | { generate: ModelFunction };

/** See {@link ModelCall}. */
export type ModelFunction = (prompt: string, options: ModelCallOptions) => LlmAnswer | PromiseLike<LlmAnswer>;

/** A model that can answer one prompt several times at once. */
export interface CandidateProvider {
  /** Used where there is no other call, and for what a batch did not answer. */
  generate?: ModelFunction | undefined;
  /** Answers a prompt `n` times. */
  generateBatch?(prompt: string, n: number, options: ModelCallOptions): readonly LlmAnswer[] | PromiseLike<readonly LlmAnswer[]>;
  /** Whether it can do so, and how many at a time at most; more are asked for in several batches. */
  capabilities?(): { batch?: boolean | undefined; maxBatch?: number | undefined } | PromiseLike<{ batch?: boolean | undefined; maxBatch?: number | undefined }>;
}

/** An answer of a model, and whether no model was asked for it. */
export interface ModelAnswer {
  text: string;
  fromCache: boolean;
}

/** How the calls do. */
export interface CallStatistics {
  calls: number;
  failures: number;
  hits: number;
  misses: number;
  callsSaved: number;
  /** Milliseconds in calls, one after the other; and of the clock, while any was under way. */
  busyMs: number;
  activeMs: number;
}

/** Answers of a batch that has fewer than were asked for. Not kept. */
class Incomplete extends EmbeddingError {
  constructor(readonly texts: string[], asked: number) {
    super('BACKEND_REJECTED', `The provider answered ${texts.length} of ${asked} candidates`, { retryable: true });
  }
}

/** Names of functions and providers of this process, where they are not given one. */
const identities = new WeakMap<object, string>();

function identityOf(target: object): string {
  let identity = identities.get(target);
  if (identity === undefined) identities.set(target, (identity = randomUUID()));
  return identity;
}

interface Limits {
  cache: InferenceCache | undefined;
  /** Tells the model's answers from another's; without, those of each function are its own. */
  model: string | undefined;
  maxParallel: number;
  callTimeoutMs: number;
  monitor: PerformanceMonitor | undefined;
}

/** The calls of one engine. */
export class ModelCalls {
  readonly #limits: Limits;
  readonly #admission: Admission;
  readonly #queue: Queue = { inFlight: 0, waiting: new Set() };
  readonly #shared = new SharedCalls<{ texts: string[]; fromCache: boolean }>();
  #statistics = { calls: 0, failures: 0, hits: 0, misses: 0, callsSaved: 0, busyMs: 0, activeMs: 0 };
  #running = 0;
  #activeSince = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
    this.#admission = new Admission(limits.maxParallel, limits.maxParallel);
  }

  /** An answer to a prompt. `seed` tells it from others to the same prompt. */
  async answer(call: ModelCall, prompt: string, seed: number, signal: AbortSignal, useCache: boolean): Promise<ModelAnswer> {
    const { texts: [text], fromCache } = await this.#kept(call, prompt, 1, seed, signal, useCache, async (options) => {
      const answer = await (typeof call === 'function' ? call(prompt, options) : call.generate(prompt, options));
      return [textOf(answer)];
    });
    return { text: text!, fromCache };
  }

  /** Answers to a prompt in one call; fewer, where the provider gave fewer. */
  async batch(provider: CandidateProvider, prompt: string, n: number, seed: number, signal: AbortSignal, useCache: boolean): Promise<ModelAnswer[]> {
    try {
      const { texts, fromCache } = await this.#kept(provider, prompt, n, seed, signal, useCache, async (options) => {
        const answers = await provider.generateBatch!(prompt, n, options);
        if (!isArray(answers)) throw new EmbeddingError('BACKEND_REJECTED', `generateBatch answered ${show(answers)}, not an array of ${n} answers`);
        const texts = answers.slice(0, n).map(textOf);
        if (texts.length < n) throw new Incomplete(texts, n);
        return texts;
      });
      return texts.map((text) => ({ text, fromCache }));
    } catch (error) {
      if (!(error instanceof Incomplete)) throw error;
      return error.texts.map((text) => ({ text, fromCache: false }));
    }
  }

  statistics(): CallStatistics {
    const running = this.#running > 0 ? performance.now() - this.#activeSince : 0;
    return { ...this.#statistics, activeMs: this.#statistics.activeMs + running };
  }

  async #kept(
    target: object, prompt: string, n: number, seed: number, signal: AbortSignal, useCache: boolean, ask: (options: ModelCallOptions) => Promise<string[]>,
  ): Promise<{ texts: string[]; fromCache: boolean }> {
    const { cache, model } = this.#limits;
    const work = (inner: AbortSignal) => this.#ask(seed, inner, ask);
    if (!cache || !useCache) return { texts: await work(signal), fromCache: false };
    const of = { model: model ?? `function ${identityOf(target)}`, n, seed };
    const setting: InferenceSetOptions = { params: { coherence: of }, semantic: false };
    const { joined, value } = await this.#shared.run(`${JSON.stringify(of)} ${prompt}`, { signal }, async (inner) => {
      const { value: texts, fromCache } = await cache.getOrCompute(prompt, setting, () => work(inner));
      return { texts, fromCache };
    });
    const hit = joined || value.fromCache;
    if (hit) {
      this.#statistics.hits++;
      this.#statistics.callsSaved += 1;
    } else {
      this.#statistics.misses++;
    }
    return { texts: [...value.texts], fromCache: hit };
  }

  /** One call, once there is a place for it. */
  async #ask(seed: number, signal: AbortSignal, ask: (options: ModelCallOptions) => Promise<string[]>): Promise<string[]> {
    await this.#enter(signal);
    const began = performance.now();
    if (this.#running++ === 0) this.#activeSince = began;
    let success = false;
    try {
      const { callTimeoutMs } = this.#limits;
      const texts = await limited({ signal, timeoutMs: callTimeoutMs }, async (inner) => {
        try {
          return await ask({ signal: inner, seed });
        } catch (error) {
          throw failureOf(error);
        }
      });
      success = true;
      return texts;
    } finally {
      const ended = performance.now();
      this.#statistics.calls++;
      this.#statistics.busyMs += ended - began;
      if (!success && !signal.aborted) this.#statistics.failures++;
      if (--this.#running === 0) this.#statistics.activeMs += ended - this.#activeSince;
      this.#limits.monitor?.record('coherence.call', ended - began, { success });
      this.#admission.leave(this.#queue);
    }
  }

  /** Waits for a place. */
  #enter(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(aborted(signal));
      if (this.#admission.tryEnter(this.#queue)) return resolve();
      const onAbort = () => {
        leave();
        reject(aborted(signal));
      };
      const leave = this.#admission.wait(this.#queue, () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      });
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }
}

/** What a model has answered. Nothing is no answer. */
function textOf(answer: unknown): string {
  const text = textIn(answer);
  if (text === undefined) throw new EmbeddingError('BACKEND_REJECTED', `The model answered ${show(answer)}, neither a text nor an object with one as response or text`);
  if (text.trim() === '') throw new EmbeddingError('BACKEND_REJECTED', 'The model answered nothing but an empty text', { retryable: true });
  return text;
}

/** What a caller's function has thrown, as an error that says where. */
function failureOf(error: unknown): EmbeddingError {
  if (error instanceof EmbeddingError) return error;
  return new EmbeddingError('BACKEND_UNAVAILABLE', `The model failed: ${messageOf(error)}`, { retryable: true, cause: error });
}
