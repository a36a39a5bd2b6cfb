import { setMaxListeners } from 'node:events';

import { flag, milliseconds, signalOf } from '../call/checks';
import { EmbeddingError, messageOf } from '../call/errors';
import { invalid, isArray, requireString, show } from '../call/input';
import { checkWatch } from '../call/limits';
import { listOf, optionReader, record, refused, untouched, type Given } from '../call/options';
import type { PerformanceMonitor } from '../index';
import { limited } from '../llm/limited';
import { parallelMap } from '../parallel/map';
import { monitorOf } from '../parallel/options';
import { PromptAnalyzer, type PromptAnalysis } from './analyzer';
import { ContentFusionAgent, planOf, type Fusion, type FusionOptions, type FusionReport, type Json } from './fusion';

/** What a planner is told beside the prompt. */
export interface PlanningContext {
  /** Aborted when its answer no longer counts. */
  signal: AbortSignal;
  /** What the prompt asks for. */
  analysis: PromptAnalysis;
}

/** Answers a plan: an object, or its JSON as a text, also in a fenced block of Markdown. */
export type PlanFunction = (prompt: string, context: PlanningContext) => object | string | PromiseLike<object | string>;

/** Somebody who plans. */
export interface Planner {
  /** Default: the name of its function, else `planner 0` and so on. */
  name?: string | undefined;
  plan: PlanFunction;
  /** How much it counts, in all or by modality; a modality that is not named is 1. Default 1. */
  weights?: number | Readonly<Record<string, number>> | undefined;
  /** Longest time for it, in milliseconds. Default: the council's. */
  timeoutMs?: number | undefined;
}

/** Options of {@link DynamicSemanticCouncil}. */
export interface CouncilOptions extends FusionOptions {
  /** At least one, any number: planners, or their functions alone. */
  planners: readonly (Planner | PlanFunction)[];
  /** Says what a prompt asks for. Default: one by keywords, with text, image and audio. */
  analyzer?: PromptAnalyzer<'keywords' | 'embeddings'> | PromptAnalyzer<'keywords'> | PromptAnalyzer<'embeddings'> | undefined;
  /** Whether modalities count as much as the prompt asks for them; `false`: all alike. Default `true`. */
  dynamicWeighting?: boolean | undefined;
  /** Longest time for each planner, in milliseconds. Default 30000. */
  timeoutMs?: number | undefined;
  /** Who is told of each run, as the operation `coherence.council`. Default: the global monitor. `false`: nobody. */
  monitor?: PerformanceMonitor | false | undefined;
}

/** Options of {@link DynamicSemanticCouncil.run}. */
export interface CouncilRunOptions {
  /** Ends the call at once, with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /** Longest time for all of it, in milliseconds. Default: no limit but the planners'. */
  timeoutMs?: number | undefined;
}

/** What came of a planner. */
export interface PlannerResult {
  name: string;
  success: boolean;
  plan?: { [section: string]: Json };
  error?: EmbeddingError;
  timedOut: boolean;
  durationMs: number;
}

/** What came of a council. */
export interface CouncilResult {
  merged: { [section: string]: Json };
  /** Where those that answered disagree: its `conflicts` are in the order of the planners that did. */
  report: FusionReport;
  analysis: PromptAnalysis;
  /** Each planner, in their order. */
  plans: PlannerResult[];
}

const readPlanner = optionReader<Planner>({ name: true, plan: true, weights: (value, path) => (typeof value === 'object' && value !== null ? record(value, path) : value), timeoutMs: true });

const readOptions = optionReader<CouncilOptions>({
  planners: listOf((one, path) => (typeof one === 'function' ? { plan: one } : readPlanner(one, path))), analyzer: untouched, dynamicWeighting: true, timeoutMs: true, monitor: true, schema: untouched, keepThreshold: true,
});

const readRun = optionReader<CouncilRunOptions>({ signal: untouched, timeoutMs: true });

interface Known {
  name: string;
  plan: PlanFunction;
  weights: number | Readonly<Record<string, number>>;
  timeoutMs: number;
}

/**
 * Has several planners plan at the same time, and merges what they answer: with weights by what the prompt asks for, and with
 * a report of where they disagree. Those that fail or take too long are left out.
 */
export class DynamicSemanticCouncil {
  readonly #planners: Known[];
  readonly #analyzer: PromptAnalyzer<'keywords' | 'embeddings'>;
  readonly #fusion: ContentFusionAgent;
  readonly #dynamic: boolean;
  readonly #monitor: PerformanceMonitor | undefined;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
  constructor(options: CouncilOptions) {
    const { planners, analyzer, dynamicWeighting = true, timeoutMs = 30_000, monitor, schema, keepThreshold } = readOptions(options);
    const timeLimit = milliseconds('timeoutMs', timeoutMs)!;
    this.#planners = knownOf(planners, timeLimit);
    if (analyzer !== undefined && !(analyzer instanceof PromptAnalyzer)) throw refused('analyzer', `${show(analyzer)} is not a PromptAnalyzer`);
    this.#analyzer = (analyzer ?? new PromptAnalyzer()) as PromptAnalyzer<'keywords' | 'embeddings'>;
    this.#dynamic = flag('dynamicWeighting', dynamicWeighting);
    this.#monitor = monitorOf(monitor);
    this.#fusion = new ContentFusionAgent({ schema, keepThreshold });
  }

  /**
   * Has all planners plan, and merges the plans of those that answered.
   * @throws `EmbeddingError` `BACKEND_UNAVAILABLE` where none has: why is in `details.planners`. `ABORTED`, `TIMED_OUT`,
   * `INVALID_ARGUMENT`, `INVALID_CONFIG`.
   */
  async run(prompt: string, options: CouncilRunOptions = {}): Promise<CouncilResult> {
    const { signal, timeoutMs } = readRun(options);
    const limits = { ...checkWatch<never>({ timeoutMs }), signal: signalOf(signal) };
    if (requireString('The prompt', prompt) === '') throw invalid('The prompt is empty: a plan is made for something');
    const began = performance.now();
    let success = false;
    try {
      const result = await limited(limits, (inner) => this.#run(prompt, inner));
      success = true;
      return result;
    } finally {
      this.#monitor?.record('coherence.council', performance.now() - began, { success });
    }
  }

  async #run(prompt: string, signal: AbortSignal): Promise<CouncilResult> {
    // Each planner listens.
    setMaxListeners(0, signal);
    const analysis = await this.#analyzer.analyze(prompt, { signal });
    const work = (planner: Known) => planned(planner, prompt, analysis, signal);
    const plans = await parallelMap(this.#planners, work, { concurrency: this.#planners.length, signal, monitor: false });
    const answered = plans.flatMap(({ plan }, at) => (plan ? [{ plan, planner: this.#planners[at]! }] : []));
    if (answered.length === 0) throw nobody(plans);
    const weights = answered.map(({ planner }) => this.#weightsOf(planner, analysis));
    const { merged, report }: Fusion = this.#fusion.fuse(answered.map(({ plan }) => plan), weights, analysis.order);
    return { merged, report: { ...report, notes: notesOf(report, plans) }, analysis, plans };
  }

  /** What a planner weighs, by modality: its own weight, times that of the modality. */
  #weightsOf({ weights }: Known, analysis: PromptAnalysis): Record<string, number> {
    const own = (modality: string) => (typeof weights === 'number' ? weights : Object.hasOwn(weights, modality) ? weights[modality]! : 1);
    const modalities = new Set([...analysis.order, ...(typeof weights === 'number' ? [] : Object.keys(weights))]);
    return Object.fromEntries([...modalities].map((modality) => [modality, Math.min(Number.MAX_VALUE, own(modality) * (this.#dynamic ? (analysis.weights[modality] ?? 1) : 1))]));
  }
}

function knownOf(planners: unknown, timeoutMs: number): Known[] {
  if (!isArray(planners) || planners.length === 0) throw refused('planners', `${show(planners)} is not an array of at least one { name, plan }`);
  return (planners as Given<Planner>[]).map(({ name, plan, weights = 1, timeoutMs: own }, at) => {
    const where = `planners[${at}]`;
    if (typeof plan !== 'function') throw refused(`${where}.plan`, `${show(plan)} is not a function`);
    if (name !== undefined && typeof name !== 'string') throw refused(`${where}.name`, `${show(name)} is not a text`);
    const numbers = typeof weights === 'object' && weights !== null ? Object.entries(weights) : [['', weights] as const];
    for (const [modality, weight] of numbers) {
      if (typeof weight !== 'number' || !(weight >= 0 && weight < Infinity)) throw refused(`${where}.weights${modality && `.${modality}`}`, `${show(weight)} is not a number from 0`);
    }
    const called = name || (plan.name === 'plan' ? '' : plan.name) || `planner ${at}`;
    return { name: called, plan, weights, timeoutMs: milliseconds(`${where}.timeoutMs`, own) ?? timeoutMs };
  });
}

/** What a planner answers, or why it does not. Rejects only where nobody waits any more. */
async function planned({ name, plan, timeoutMs }: Known, prompt: string, analysis: PromptAnalysis, signal: AbortSignal): Promise<PlannerResult> {
  const began = performance.now();
  const ended = () => performance.now() - began;
  try {
    const own = await limited({ signal, timeoutMs }, async (inner) => {
      try {
        return answerOf(await plan(prompt, { signal: inner, analysis: structuredClone(analysis) }), name);
      } catch (error) {
        if (error instanceof EmbeddingError) throw error;
        throw new EmbeddingError('BACKEND_UNAVAILABLE', `Planner ${show(name)} failed: ${messageOf(error)}`, { cause: error });
      }
    });
    return { name, success: true, plan: own, timedOut: false, durationMs: ended() };
  } catch (thrown) {
    if (signal.aborted) throw thrown;
    const error = thrown as EmbeddingError;
    // Not a limit of something that the planner itself has called. A timer may be early by a millisecond.
    const timedOut = error.code === 'TIMED_OUT' && error.details.timeoutMs === timeoutMs && ended() >= timeoutMs - 2;
    return { name, success: false, error, timedOut, durationMs: ended() };
  }
}

/** A plan, as it is now. */
function answerOf(answer: unknown, name: string): { [section: string]: Json } {
  const what = `The answer of planner ${show(name)}`;
  if (typeof answer !== 'string') return planOf(answer, what);
  try {
    return planOf(JSON.parse(unfenced(answer)), what);
  } catch (cause) {
    const why = cause instanceof EmbeddingError ? cause.message : `${what} is no JSON: ${show(answer.trim())}`;
    throw new EmbeddingError('BACKEND_REJECTED', why, { cause });
  }
}

/** What stands in the first fenced block of Markdown, if there is one. */
function unfenced(text: string): string {
  const open = text.indexOf('```');
  const from = open < 0 ? -1 : text.indexOf('\n', open);
  const to = from < 0 ? -1 : text.indexOf('```', from);
  return to < 0 ? text : text.slice(from + 1, to);
}

function nobody(plans: PlannerResult[]): EmbeddingError {
  const planners = plans.map(({ name, error }) => ({ name, code: error!.code, message: error!.message }));
  const said = planners.map(({ name, message }) => `${name}: ${message}`).join('; ');
  return new EmbeddingError('BACKEND_UNAVAILABLE', `No planner has answered. ${said}`, { retryable: true, details: { planners }, cause: plans.at(-1)!.error });
}

function notesOf({ notes }: FusionReport, plans: PlannerResult[]): string {
  const missing = plans.filter(({ success }) => !success);
  if (missing.length === 0) return notes;
  return `${notes} Without an answer: ${missing.map(({ name, timedOut }) => (timedOut ? `${name} (too late)` : name)).join(', ')}.`;
}
