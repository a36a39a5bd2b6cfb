import { setMaxListeners } from 'node:events';

import { EmbeddingError } from '../call/errors';
import { invalid, isArray, readGiven, requireString, show } from '../call/input';
import { aborted } from '../call/limits';
import { naming } from '../call/options';
import { InferenceCache, type PerformanceMonitor } from '../index';
import { limited } from '../llm/limited';
import { showPanel } from '../monitor/panels';
import { ModelCalls, type CandidateProvider, type ModelAnswer, type ModelCall } from './calls';
import { callOf, generateOf, settingsOf, type Asked, type CoherenceCallOptions, type CoherenceEngineOptions, type GenerateOptions, type Settings } from './engine-options';
import { rowOf, TextEvaluation } from './evaluation';
import { candidatesFor, estimateRisk, riskWith } from './risk';
import { Runs } from './runs';
import { candidatesOf, failureOf, requireOne, select, trajectoriesOf, type Candidate, type CandidateInput, type Selection, type Trajectory } from './selection';
import { Texts } from './texts';

/** What an engine has saved so far. Every number is measured. */
export interface OptimizationMetrics {
  /** Calls of models that were made, and how many of them failed. */
  calls: number;
  failures: number;
  /** Calls that were not made, since their answers were known or already asked for. */
  callsSaved: number;
  hits: number;
  misses: number;
  /** Hits in all lookups, 0–1; 0 before the first. */
  hitRatio: number;
  /** Time in calls, by the time in which any was under way: how many there were at once on the average. 0 before the first. */
  parallelSpeedup: number;
  /** Runs of {@link CoherenceEngine.selectBestCandidate}. */
  selections: number;
  /** What the cache holds; `null` without one. A shared cache counts with all that it holds. */
  memory: { cacheBytes: number; cacheEntries: number } | null;
}

/**
 * Chooses the best of several answers of a language model by a number that can be explained: how coherently each goes on.
 * Every candidate is unrolled into a trajectory of `h` further steps, each step is scored, and the candidate whose scores are
 * the most coherent wins.
 */
export class CoherenceEngine implements AsyncDisposable {
  readonly #settings: Settings;
  readonly #calls: ModelCalls;
  readonly #cache: InferenceCache | undefined;
  readonly #ownCache: boolean;
  readonly #texts: Texts;
  readonly #judge: TextEvaluation;
  readonly #monitor: PerformanceMonitor | undefined;
  readonly #runs: Runs;
  readonly #hidePanel: (() => void) | undefined;
  readonly #underway = new Set<Promise<unknown>>();
  #closed: Promise<void> | undefined;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
  constructor(options: CoherenceEngineOptions = {}) {
    const settings = settingsOf(options);
    const { cache, monitor, generator, model, maxParallel, callTimeoutMs } = settings;
    this.#settings = settings;
    this.#monitor = monitor;
    this.#texts = new Texts(generator);
    this.#judge = new TextEvaluation(this.#texts);
    this.#ownCache = cache !== undefined && !(cache instanceof InferenceCache);
    this.#cache = cache === undefined || cache instanceof InferenceCache ? cache : naming((option) => `cache.${option}`, () => new InferenceCache(cache));
    this.#calls = new ModelCalls({ cache: this.#cache, model, maxParallel, callTimeoutMs, monitor });
    this.#runs = new Runs(model);
    this.#hidePanel = monitor && showPanel(monitor, this.#runs);
  }

  /**
   * Asks for several answers to a prompt: in one call where the provider can do so, else in parallel. How many depends on
   * `risk` or, without, on an estimate ({@link CoherenceEngine.estimateRisk}): where the first answers differ much from each
   * other, more are asked for, up to 4.
   *
   * @throws `EmbeddingError` `BACKEND_UNAVAILABLE` where all calls fail: each reason is in `details.candidates`. `ABORTED`,
   * `TIMED_OUT`, `CLOSED`, `INVALID_ARGUMENT`, `INVALID_CONFIG`.
   */
  async generateCandidates(prompt: string, call?: ModelCall | null, options: GenerateOptions = {}): Promise<Candidate[]> {
    const { asked, work } = this.#generation(prompt, call, options);
    return this.#run('coherence.generate', asked, async (signal) => (await work(signal)).candidates);
  }

  /**
   * Has each candidate followed by `h` steps, and scores them all: at most `maxParallel` calls at a time, answers that are
   * known from the cache, in the order of the candidates. A candidate that failed is not unrolled.
   *
   * @throws As {@link CoherenceEngine.generateCandidates}, where all trajectories fail.
   */
  async unrollTrajectories(candidates: readonly CandidateInput[], prompt: string, call: ModelCall, options: CoherenceCallOptions = {}): Promise<Trajectory[]> {
    const asked = callOf(options);
    const all = candidatesOf(candidates);
    const [text, target] = [promptOf(prompt), this.#settings.h === 0 && call == null ? undefined : modelOf(call)];
    return this.#run('coherence.unroll', asked, (signal) => this.#unroll(all, text, target, asked, signal));
  }

  /**
   * Chooses among candidates, which are unrolled first; among trajectories that were unrolled before; or, by a prompt alone,
   * among candidates that are generated first. The highest CCI wins; of equal ones, the one with the better scores on the
   * average; then the first.
   *
   * @throws As {@link CoherenceEngine.generateCandidates}, where all candidates failed.
   */
  async selectBestCandidate(candidates: readonly CandidateInput[], prompt: string, call: ModelCall, options?: CoherenceCallOptions): Promise<Selection>;
  async selectBestCandidate(candidates: readonly CandidateInput[], trajectories: readonly Trajectory[], options?: CoherenceCallOptions): Promise<Selection>;
  async selectBestCandidate(prompt: string, call?: ModelCall | null, options?: GenerateOptions): Promise<Selection>;
  async selectBestCandidate(first: unknown, second: unknown, third?: unknown, fourth?: unknown): Promise<Selection> {
    const began = performance.now();
    if (typeof first === 'string') {
      const { asked, work, text, target } = this.#generation(first, second, (third === undefined ? {} : third) as GenerateOptions);
      return this.#run('coherence.select', asked, async (signal) => {
        const { candidates, risk } = await work(signal);
        const trajectories = await this.#unroll(candidates, text, target, asked, signal);
        return this.#select(trajectories, text, risk, began);
      });
    }
    const all = candidatesOf(first);
    if (isArray(second)) {
      const asked = callOf((third === undefined ? {} : third) as CoherenceCallOptions);
      const trajectories = trajectoriesOf(second, all);
      return this.#run('coherence.select', asked, async () => this.#select(trajectories, undefined, null, began));
    }
    const asked = callOf((fourth === undefined ? {} : fourth) as CoherenceCallOptions);
    const [text, target] = [promptOf(second), this.#settings.h === 0 && third == null ? undefined : modelOf(third)];
    return this.#run('coherence.select', asked, async (signal) => this.#select(await this.#unroll(all, text, target, asked, signal), text, null, began));
  }

  /**
   * How likely a prompt is to be answered badly, 0–1, by its length, its question marks and its words of ambiguity: what is
   * taken where no `risk` is given. When the first candidates are there, `risk` becomes `1 − (1 − risk)(1 − spread / 2)`, where
   * `spread` is 1 less the mean cosine of their vectors; with an `evaluate` of your own, only where there is a `generator`, too.
   */
  estimateRisk(prompt: string): number {
    return estimateRisk(promptOf(prompt));
  }

  /** What was saved so far. */
  getOptimizationMetrics(): OptimizationMetrics {
    const { calls, failures, hits, misses, callsSaved, busyMs, activeMs } = this.#calls.statistics();
    const stats = this.#closed && this.#ownCache ? undefined : this.#cache?.getStats();
    return {
      calls,
      failures,
      callsSaved,
      hits,
      misses,
      hitRatio: hits + misses > 0 ? hits / (hits + misses) : 0,
      parallelSpeedup: activeMs > 0 ? busyMs / activeMs : 0,
      selections: this.#runs.count,
      memory: stats ? { cacheBytes: stats.currentSizeBytes, cacheEntries: stats.currentEntries } : null,
    };
  }

  /** Waits for calls that were made before, and frees what is the engine's own. Its panel leaves the dashboards. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#hidePanel?.();
    await Promise.allSettled([...this.#underway]);
    await Promise.all([this.#ownCache ? this.#cache!.close() : undefined, this.#texts.close()]);
  }

  /** A call of this engine: within its limits, told to the monitor, and waited for by `close`. */
  async #run<T>(operation: string, { limits }: Asked, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#closed) throw new EmbeddingError('CLOSED', 'The engine is closed: make a new one');
    const began = performance.now();
    const running = limited(limits, (signal) => {
      // Each candidate and step listens.
      setMaxListeners(0, signal);
      return work(signal);
    });
    this.#underway.add(running);
    let success = false;
    try {
      const result = await running;
      success = true;
      return result;
    } finally {
      this.#underway.delete(running);
      this.#monitor?.record(operation, performance.now() - began, { success });
    }
  }

  /** What generates candidates, once everything that it is told was read. */
  #generation(prompt: unknown, call: unknown, options: GenerateOptions) {
    const asked = generateOf(options);
    const text = promptOf(prompt);
    const { provider } = asked;
    const able = call == null && provider && readGiven('provider.generate', () => typeof provider.generate === 'function');
    const target = call == null && provider ? (able ? (provider as ModelCall) : undefined) : modelOf(call);
    const work = (signal: AbortSignal) => this.#generate(text, target, asked, signal);
    return { asked, work, text, target };
  }

  async #generate(prompt: string, target: ModelCall | undefined, asked: ReturnType<typeof generateOf>, signal: AbortSignal): Promise<{ candidates: Candidate[]; risk: number | null }> {
    const { adaptive, thresholds, k, evaluate } = this.#settings;
    if (!evaluate) this.#texts.prepare();
    const estimates = asked.k === undefined && asked.risk === undefined && adaptive === true;
    let risk = asked.risk ?? (estimates ? estimateRisk(prompt) : null);
    const count = asked.k ?? (adaptive !== false && risk !== null ? candidatesFor(risk, thresholds) : k);
    let candidates = await this.#ask(prompt, target, asked, 0, count, signal);
    const answers = candidates.filter(({ failed }) => !failed);
    if (estimates && answers.length > 1 && (!evaluate || this.#settings.generator !== undefined)) {
      risk = riskWith(await this.#judge.spread(answers.map(({ response }) => response)), risk!);
      const more = candidatesFor(risk, thresholds);
      if (more > count) candidates = [...candidates, ...(await this.#ask(prompt, target, asked, count, more, signal))];
    }
    requireOne(candidates, 'No candidate could be had');
    return { candidates, risk };
  }

  /** Candidates by their numbers, each of which is there or says why not. */
  async #ask(prompt: string, target: ModelCall | undefined, { provider, useCache }: ReturnType<typeof generateOf>, from: number, to: number, signal: AbortSignal): Promise<Candidate[]> {
    const answers: (ModelAnswer | undefined)[] = [];
    let why: unknown;
    const most = provider ? await batchOf(provider, this.#settings.callTimeoutMs, signal) : 0;
    const batches: Promise<void>[] = [];
    for (let start = from; most > 0 && start < to; start += most) {
      const batch = this.#calls.batch(provider!, prompt, Math.min(most, to - start), start, signal, useCache);
      const fill = (texts: ModelAnswer[]) => texts.forEach((answer, at) => (answers[start - from + at] = answer));
      batches.push(batch.then(fill, (error) => void (why = error)));
    }
    await Promise.all(batches);
    if (signal.aborted) throw aborted(signal);
    return Promise.all(Array.from({ length: to - from }, async (_, at): Promise<Candidate> => {
      const index = from + at;
      try {
        const answer = answers[at] ?? (target ? await this.#calls.answer(target, prompt, index, signal, useCache) : undefined);
        if (!answer) throw why ?? new EmbeddingError('BACKEND_REJECTED', 'The provider cannot answer several times at once, and there is no other call');
        return { index, response: answer.text, failed: false, fromCache: answer.fromCache };
      } catch (error) {
        if (signal.aborted) throw error;
        return { index, response: this.#settings.fallbackResponse, failed: true, error: failureOf(error), fromCache: false };
      }
    }));
  }

  async #unroll(candidates: Candidate[], prompt: string, target: ModelCall | undefined, { useCache }: Asked, signal: AbortSignal): Promise<Trajectory[]> {
    requireOne(candidates, 'All candidates have failed');
    if (!this.#settings.evaluate) this.#texts.prepare();
    const trajectories = await Promise.all(candidates.map((candidate) => this.#unrollOne(candidate, prompt, target, useCache, signal)));
    requireOne(trajectories, 'No candidate could be unrolled');
    return trajectories;
  }

  async #unrollOne(candidate: Candidate, prompt: string, target: ModelCall | undefined, useCache: boolean, signal: AbortSignal): Promise<Trajectory> {
    const trajectory: Trajectory = { candidate, responses: [], steps: [], failed: candidate.failed, fromCache: true };
    if (candidate.failed) {
      if (candidate.error) trajectory.error = candidate.error;
      return trajectory;
    }
    const { h, continuation } = this.#settings;
    const scores: Promise<number[]>[] = [];
    let failure: { error: unknown } | undefined;
    try {
      let response = candidate.response;
      for (let step = 0; ; step++) {
        const row = this.#score(response, prompt, trajectory.responses.at(-1), signal);
        // The next step is asked for meanwhile; after one that cannot be scored, nothing is.
        row.catch((error: unknown) => (failure ??= { error }));
        scores.push(row);
        trajectory.responses.push(response);
        if (step === h) break;
        const next: unknown = continuation(prompt, [...trajectory.responses]);
        if (typeof next !== 'string' || next === '') throw invalid(`continuation answered ${show(next)}, not a prompt`);
        const answer = await this.#calls.answer(target!, next, step + 1, signal, useCache);
        if (failure) break;
        trajectory.fromCache &&= answer.fromCache;
        response = answer.text;
      }
    } catch (error) {
      failure ??= { error };
    }
    for (const [step, settled] of (await Promise.allSettled(scores)).entries()) {
      if (settled.status === 'rejected') break;
      const width = trajectory.steps[0]?.length ?? settled.value.length;
      if (settled.value.length !== width) {
        failure ??= { error: invalid(`evaluate answered ${settled.value.length} scores at step ${step}, but ${width} at step 0`) };
        break;
      }
      trajectory.steps.push(settled.value);
    }
    if (signal.aborted) throw aborted(signal);
    if (failure) Object.assign(trajectory, { failed: true, fromCache: false, error: failureOf(failure.error) });
    return trajectory;
  }

  /** The scores of a step. */
  async #score(response: string, prompt: string, previous: string | undefined, signal: AbortSignal): Promise<number[]> {
    const { evaluate, callTimeoutMs } = this.#settings;
    return limited({ signal, timeoutMs: callTimeoutMs }, async () => {
      try {
        return rowOf(await (evaluate ? evaluate(response, prompt, previous) : this.#judge.evaluate(response, prompt, previous)));
      } catch (error) {
        throw failureOf(error);
      }
    });
  }

  #select(trajectories: Trajectory[], prompt: string | undefined, risk: number | null, began: number): Selection {
    const { threshold, measure } = this.#settings;
    const selection = select(trajectories, { threshold, measure, risk, began });
    this.#runs.add(prompt, selection);
    return selection;
  }
}

/** The same engine, by the name that the document of one of its origins has. */
export { CoherenceEngine as ECREngine };

function promptOf(prompt: unknown): string {
  if (requireString('The prompt', prompt) === '') throw invalid('The prompt is empty: an answer is made from something');
  return prompt as string;
}

function modelOf(call: unknown): ModelCall {
  if (typeof call === 'function') return call as ModelCall;
  if (typeof call === 'object' && call !== null && readGiven('What asks the model', () => typeof (call as { generate?: unknown }).generate === 'function')) return call as ModelCall;
  throw invalid(`What asks the model is ${show(call)}: pass a function of a prompt, or something that has generate`);
}

/** Most answers of one call, whatever a provider says. */
const MOST_AT_ONCE = 1000;

/** Longest time for a provider to say what it can, in milliseconds. */
const PATIENCE_MS = 5000;

/** How many answers a provider gives in one call; 0: it cannot, or does not say so. */
async function batchOf(provider: CandidateProvider, callTimeoutMs: number, signal: AbortSignal): Promise<number> {
  try {
    if (typeof provider.generateBatch !== 'function' || typeof provider.capabilities !== 'function') return 0;
    const timeoutMs = Math.min(callTimeoutMs, PATIENCE_MS);
    const { batch, maxBatch = Infinity } = (await limited({ signal, timeoutMs }, async () => provider.capabilities!())) ?? {};
    return batch === true && maxBatch >= 1 ? Math.min(Math.floor(maxBatch), MOST_AT_ONCE) : 0;
  } catch (error) {
    if (signal.aborted) throw error;
    // It can be asked for one after the other all the same.
    return 0;
  }
}
