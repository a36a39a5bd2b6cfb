// Generated from lib/ by `npm run types`; do not edit.

import { EmbeddingError, EmbeddingErrorCode, InferenceCache, InferenceCacheOptions, PerformanceMonitor, SemanticEmbedder } from './index.js';

/** A kind of content that a prompt can ask for. */
export interface ModalityDefinition {
	name: string;
	/** Words, or several words in a row, that speak for it. */
	keywords: readonly string[];
	/** Prompts that ask for it, for `analyzer: 'embeddings'`. Default: the keywords. */
	examples?: readonly string[] | undefined;
}
/** Options of {@link PromptAnalyzer}. */
export interface PromptAnalyzerOptions<Analyzer extends "keywords" | "embeddings" = "keywords" | "embeddings"> {
	/** What there is. Default: `text`, `image` and `audio`. Of two that are equal, the one before counts more. */
	modalities?: readonly ModalityDefinition[] | undefined;
	/** `'keywords'` (default) counts words. `'embeddings'` compares meanings with those of examples, and answers later. */
	analyzer?: Analyzer | undefined;
	/** Makes vectors, for `'embeddings'`. Default: a generator with the built-in model. */
	generator?: SemanticEmbedder | undefined;
}
/** Options of {@link PromptAnalyzer.analyze}. */
export interface AnalyzeOptions {
	/** Ends the call, with `ABORTED`. */
	signal?: AbortSignal | undefined;
	/** Longest time, in milliseconds. Default: no limit. */
	timeoutMs?: number | undefined;
}
/** What a prompt asks for. */
export interface PromptAnalysis {
	/** How much each modality counts, by its name: above 0, and as many in all as there are modalities. */
	weights: Record<string, number>;
	/** Names of the modalities, the most important one first. */
	order: string[];
	/** What that was decided by: words that speak for it or, by embeddings, the similarity to its examples, -1–1. */
	scores: Record<string, number>;
}
/**
 * Says how much of each modality a prompt asks for: by words that speak for it, or by its meaning.
 *
 * By words, a modality weighs 1 + 0.5 for each of its keywords in the prompt (`text` has one more past 15 distinct words, and
 * another past 25); by meaning, `exp(10 s)` of the cosine `s` of the prompt and the modality's examples. Either way weights are
 * scaled so that their sum is the number of modalities.
 */
export declare class PromptAnalyzer<Analyzer extends "keywords" | "embeddings" = "keywords"> implements AsyncDisposable {
	#private;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
	constructor(options?: PromptAnalyzerOptions<Analyzer>);
	/** Names of the modalities, as they were declared. */
	get modalities(): string[];
	/**
	 * What a prompt asks for: at once by keywords, later by embeddings. An empty prompt asks for all alike.
	 * @throws `EmbeddingError` `INVALID_ARGUMENT`; by embeddings, `ABORTED`, `TIMED_OUT` and what the generator rejects with.
	 */
	analyze(prompt: string, options?: AnalyzeOptions): Analyzer extends "embeddings" ? Promise<PromptAnalysis> : PromptAnalysis;
	/** Frees a generator of its own. */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/** What a provider answers: a text, or an object of JSON that has it as `response` or `text`. */
export type LlmAnswer = string | object;
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
export type ModelCall = ModelFunction | {
	generate: ModelFunction;
};
/** See {@link ModelCall}. */
export type ModelFunction = (prompt: string, options: ModelCallOptions) => LlmAnswer | PromiseLike<LlmAnswer>;
/** A model that can answer one prompt several times at once. */
export interface CandidateProvider {
	/** Used where there is no other call, and for what a batch did not answer. */
	generate?: ModelFunction | undefined;
	/** Answers a prompt `n` times. */
	generateBatch?(prompt: string, n: number, options: ModelCallOptions): readonly LlmAnswer[] | PromiseLike<readonly LlmAnswer[]>;
	/** Whether it can do so, and how many at a time at most; more are asked for in several batches. */
	capabilities?(): {
		batch?: boolean | undefined;
		maxBatch?: number | undefined;
	} | PromiseLike<{
		batch?: boolean | undefined;
		maxBatch?: number | undefined;
	}>;
}
/** Anything that JSON can hold. */
export type Json = string | number | boolean | null | Json[] | {
	[name: string]: Json;
};
/** What a planner answers: an object of sections, of any shape. */
export type Plan = {
	readonly [section: string]: unknown;
};
/**
 * How much planners count: a number for each; for each, a number by modality; or numbers by modality, the same for all, as
 * `PromptAnalyzer` gives them.
 */
export type PlannerWeights = readonly (number | Readonly<Record<string, number>>)[] | Readonly<Record<string, number>>;
/** Options of {@link ContentFusionAgent}, and of its calls. */
export interface FusionOptions {
	/**
	 * The modality of each section, by its name or path (`'scene'`, `'scene.mood'`): what lies below a section belongs to it, too.
	 * A section that is not named belongs to the modality that is the most important one. Default: that of plans with `scene`,
	 * `semantics`, `style`, `image`, `audio` and `text`.
	 */
	schema?: Readonly<Record<string, string>> | undefined;
	/** The weight from which an entry of a list is kept: that of all planners that name it. Default: half of the weight of all. */
	keepThreshold?: number | undefined;
}
/** Where plans agree, and where they do not. */
export interface FusionReport {
	/**
	 * How much the planners agree, 0–1: the mean over all lists and texts, each by the weight of its modality. Of very many different
	 * ones in a section (more than 71 texts, 1000 lists), a sample of the pairs stands for all.
	 */
	agreementScore: number;
	/** The same by section, each by its path (`scene.mood`; of a name with a point, `scene["a.b"]`); of a section that holds others, their mean. */
	perSectionAgreement: Record<string, number>;
	/** What each planner says, in their order, where they disagree: below 0.5 for lists and other values, 0.55 for texts. `null`: nothing. */
	conflicts: Record<string, (Json | null)[]>;
	/** The same in words. */
	notes: string;
	/** How much the merged plan is to be relied on, 0–1: the agreement, and 1 for a single plan. */
	confidence: number;
}
/** Plans, merged. */
export interface Fusion<P = {
	[section: string]: Json;
}> {
	merged: P;
	report: FusionReport;
}
/** Merges any number of JSON plans, and says where they disagree. */
export declare class ContentFusionAgent {
	#private;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
	constructor(options?: FusionOptions);
	/**
	 * Merges plans. Of lists, entries are kept that planners of enough weight name, in the order in which they are named first;
	 * texts that differ in case or in space around them are one entry. Texts and other values are those of the planner with the
	 * highest weight for the section's modality, of equal ones the first. Objects are merged section by section.
	 *
	 * @param weights Default: 1 for each.
	 * @param priority Modalities, the most important one first, or what has them as `order`.
	 * @throws `EmbeddingError` `INVALID_ARGUMENT` for no plans, and for what is none; `INVALID_CONFIG` naming the option.
	 */
	fuse<P extends object = {
		[section: string]: Json;
	}>(plans: readonly P[], weights?: PlannerWeights, priority?: readonly string[] | {
		readonly order: readonly string[];
	}, options?: FusionOptions): Fusion<P>;
}
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
	analyzer?: PromptAnalyzer<"keywords" | "embeddings"> | PromptAnalyzer<"keywords"> | PromptAnalyzer<"embeddings"> | undefined;
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
	plan?: {
		[section: string]: Json;
	};
	error?: EmbeddingError;
	timedOut: boolean;
	durationMs: number;
}
/** What came of a council. */
export interface CouncilResult {
	merged: {
		[section: string]: Json;
	};
	/** Where those that answered disagree: its `conflicts` are in the order of the planners that did. */
	report: FusionReport;
	analysis: PromptAnalysis;
	/** Each planner, in their order. */
	plans: PlannerResult[];
}
/**
 * Has several planners plan at the same time, and merges what they answer: with weights by what the prompt asks for, and with
 * a report of where they disagree. Those that fail or take too long are left out.
 */
export declare class DynamicSemanticCouncil {
	#private;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
	constructor(options: CouncilOptions);
	/**
	 * Has all planners plan, and merges the plans of those that answered.
	 * @throws `EmbeddingError` `BACKEND_UNAVAILABLE` where none has: why is in `details.planners`. `ABORTED`, `TIMED_OUT`,
	 * `INVALID_ARGUMENT`, `INVALID_CONFIG`.
	 */
	run(prompt: string, options?: CouncilRunOptions): Promise<CouncilResult>;
}
/** How a step of an answer is judged: five scores from 0 to 1. */
export interface EvaluativeVector {
	/** How sure and how well formed it is. */
	confidence: number;
	/** How much it is about what was asked. */
	retrieval: number;
	/** How much it hedges. */
	uncertainty: number;
	/** How harmless it is. */
	safety: number;
	/** How well it goes with the step before. */
	consistency: number;
}
/**
 * Judges a step: `context` is the prompt, `previous` the response of the step before, `undefined` for the answer itself. An
 * array has scores of your own, of the same number at each step.
 */
export type Evaluate = (response: string, context: string, previous: string | undefined) => EvaluativeVector | ArrayLike<number> | PromiseLike<EvaluativeVector | ArrayLike<number>>;
/**
 * How coherent a trajectory is. All are from 0 to 1; `CCI` is so where the weights sum to 1, as they do unless you change
 * them.
 */
export interface CoherenceMetrics {
	/** Evaluative variance bound: how much the scores vary. Lower is better. */
	EVB: number;
	/** Contradiction rate: share of the steps at which the order of the scores changed. Lower is better. */
	CR: number;
	/** Trajectory smoothness: 1 without any change from step to step. */
	TS: number;
	/** Expectation stability: 1 where the first score is always the same. */
	ES: number;
	/** Policy divergence: how far each step's distribution of scores is from the one before. Lower is better. */
	PD: number;
	/** Composite coherence index: the weighted sum of `1 - EVB`, `1 - CR`, `TS`, `ES` and `1 - PD`. */
	CCI: number;
}
/** A row for each step, the first one included; in each row the same scores, from 0 to 1. */
export type TrajectoryRows = readonly ArrayLike<number>[];
/** How trajectories are measured. */
export interface CoherenceMeasureOptions {
	/** λ: how far the covariance is drawn to its target, 0–1. Default 0.4. */
	shrinkage?: number | undefined;
	/**
	 * `'identity'` (default): λ·I, so that even a trajectory that never changes has an EVB of λ. `'scaled'`: λ·(tr S / m)·I, so
	 * that it has 0.
	 */
	shrinkageTarget?: "identity" | "scaled" | undefined;
	/** What EVB, CR, TS, ES and PD weigh in CCI: five numbers from 0. Default 0.2 each. */
	weights?: readonly number[] | undefined;
}
/** Options of {@link coherenceMetrics}. */
export interface CoherenceMetricsOptions extends CoherenceMeasureOptions {
	/**
	 * Of a `Float64Array` only, where it is needed: `[rows, columns]` of a trajectory or, to be checked against the length,
	 * `[trajectories, rows, columns]`.
	 */
	shape?: readonly number[] | undefined;
}
/**
 * Measures how coherent trajectories are: all of them in one call of native code, about 0.3 µs for one of 5 × 5. Their shapes
 * may differ. In a `Float64Array` they lie one after the other, row by row, and `shape` says how large they are. A single
 * trajectory is answered with its metrics alone.
 *
 * @throws `EmbeddingError` `INVALID_ARGUMENT` naming the trajectory, row and column of what is not from 0 to 1, and rows of
 * different lengths; `INVALID_CONFIG` naming the option.
 */
export declare function coherenceMetrics(trajectories: Float64Array, options: CoherenceMetricsOptions): CoherenceMetrics[];
export declare function coherenceMetrics(trajectory: TrajectoryRows, options?: CoherenceMetricsOptions): CoherenceMetrics;
export declare function coherenceMetrics(trajectories: readonly TrajectoryRows[], options?: CoherenceMetricsOptions): CoherenceMetrics[];
/** From which risk on there are 2, 3 and 4 candidates; below the first, 1. */
export interface RiskThresholds {
	/** Default 0.5. */
	mid?: number | undefined;
	/** Default 0.7. */
	high?: number | undefined;
	/** Default 0.8. */
	critical?: number | undefined;
}
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
/** One of several answers to a prompt. */
export interface Candidate {
	/** Its place among the candidates. */
	index: number;
	/** The answer; of one that failed, the engine's `fallbackResponse`. */
	response: string;
	/** Whether it could not be had. Such a candidate wins over none that could. */
	failed: boolean;
	/** Why it failed. */
	error?: EmbeddingError;
	/** Whether no model was asked for it. */
	fromCache: boolean;
}
/** What an engine takes for a candidate: a text, or what `generateCandidates` gives. */
export type CandidateInput = string | {
	response: string;
	failed?: boolean | undefined;
	error?: unknown;
};
/** A candidate and what follows from it. */
export interface Trajectory {
	candidate: Candidate;
	/** The candidate's response, and that of each step. */
	responses: string[];
	/** A row of scores, from 0 to 1, for each of them. */
	steps: number[][];
	/** Whether the candidate, a step or its evaluation failed. What is known until there is in `responses` and `steps`. */
	failed: boolean;
	error?: EmbeddingError;
	/** Whether no model was asked for any step. */
	fromCache: boolean;
}
/** A candidate as it was judged. */
export interface RankedCandidate {
	index: number;
	candidate: Candidate;
	trajectory: Trajectory;
	/** `null` where it failed. */
	metrics: CoherenceMetrics | null;
	/** Whether its CCI reaches the threshold. */
	admissible: boolean;
}
/** What came of `selectBestCandidate`. */
export interface Selection {
	/** The candidate with the highest CCI. */
	selected: Candidate;
	/** Its place among the candidates. */
	index: number;
	metrics: CoherenceMetrics;
	/** Whether its CCI reaches the threshold: if not, none does. */
	admissible: boolean;
	/** All candidates, in their order. */
	all: RankedCandidate[];
	debug: SelectionDebug;
}
/** How a selection came about. */
export interface SelectionDebug {
	threshold: number;
	candidates: number;
	failed: number;
	/** How many candidates are admissible. */
	admissible: number;
	/** By candidate; `null` where it failed. */
	cci: (number | null)[];
	/** How much better the winner's CCI is than the next one's; `null` without a next one. */
	margin: number | null;
	/** What the number of candidates was decided by, where this call made them; 0–1. */
	risk: number | null;
	durationMs: number;
}
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
	memory: {
		cacheBytes: number;
		cacheEntries: number;
	} | null;
}
/**
 * Chooses the best of several answers of a language model by a number that can be explained: how coherently each goes on.
 * Every candidate is unrolled into a trajectory of `h` further steps, each step is scored, and the candidate whose scores are
 * the most coherent wins.
 */
export declare class CoherenceEngine implements AsyncDisposable {
	#private;
	/** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
	constructor(options?: CoherenceEngineOptions);
	/**
	 * Asks for several answers to a prompt: in one call where the provider can do so, else in parallel. How many depends on
	 * `risk` or, without, on an estimate ({@link CoherenceEngine.estimateRisk}): where the first answers differ much from each
	 * other, more are asked for, up to 4.
	 *
	 * @throws `EmbeddingError` `BACKEND_UNAVAILABLE` where all calls fail: each reason is in `details.candidates`. `ABORTED`,
	 * `TIMED_OUT`, `CLOSED`, `INVALID_ARGUMENT`, `INVALID_CONFIG`.
	 */
	generateCandidates(prompt: string, call?: ModelCall | null, options?: GenerateOptions): Promise<Candidate[]>;
	/**
	 * Has each candidate followed by `h` steps, and scores them all: at most `maxParallel` calls at a time, answers that are
	 * known from the cache, in the order of the candidates. A candidate that failed is not unrolled.
	 *
	 * @throws As {@link CoherenceEngine.generateCandidates}, where all trajectories fail.
	 */
	unrollTrajectories(candidates: readonly CandidateInput[], prompt: string, call: ModelCall, options?: CoherenceCallOptions): Promise<Trajectory[]>;
	/**
	 * Chooses among candidates, which are unrolled first; among trajectories that were unrolled before; or, by a prompt alone,
	 * among candidates that are generated first. The highest CCI wins; of equal ones, the one with the better scores on the
	 * average; then the first.
	 *
	 * @throws As {@link CoherenceEngine.generateCandidates}, where all candidates failed.
	 */
	selectBestCandidate(candidates: readonly CandidateInput[], prompt: string, call: ModelCall, options?: CoherenceCallOptions): Promise<Selection>;
	selectBestCandidate(candidates: readonly CandidateInput[], trajectories: readonly Trajectory[], options?: CoherenceCallOptions): Promise<Selection>;
	selectBestCandidate(prompt: string, call?: ModelCall | null, options?: GenerateOptions): Promise<Selection>;
	/**
	 * How likely a prompt is to be answered badly, 0–1, by its length, its question marks and its words of ambiguity: what is
	 * taken where no `risk` is given. When the first candidates are there, `risk` becomes `1 − (1 − risk)(1 − spread / 2)`, where
	 * `spread` is 1 less the mean cosine of their vectors; with an `evaluate` of your own, only where there is a `generator`, too.
	 */
	estimateRisk(prompt: string): number;
	/** What was saved so far. */
	getOptimizationMetrics(): OptimizationMetrics;
	/** Waits for calls that were made before, and frees what is the engine's own. Its panel leaves the dashboards. */
	close(): Promise<void>;
	/** The same as {@link close}, for `await using`. */
	[Symbol.asyncDispose](): Promise<void>;
}
/**
 * How alike two texts are, 0–1: 1 for equal ones, also for two that are empty. Exact by characters up to 500 of them; longer
 * texts are compared by words, up to 1000, and beyond that by which words they have, whatever their order; the space between
 * words does not count then.
 */
export declare function gestaltRatio(a: string, b: string): number;

export {
	CoherenceEngine as ECREngine,
};

export {};
