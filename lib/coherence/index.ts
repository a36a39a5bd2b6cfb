/** The best of several answers by a number that can be explained, and plans of several planners merged. The entry `embedcore/coherence`. */
export type { CandidateProvider, ModelCall, ModelCallOptions, ModelFunction } from './calls';
export { CoherenceEngine, ECREngine, type OptimizationMetrics } from './engine';
export type { CoherenceCallOptions, CoherenceEngineOptions, GenerateOptions } from './engine-options';
export type { EvaluativeVector, Evaluate } from './evaluation';
export { coherenceMetrics, type CoherenceMeasureOptions, type CoherenceMetrics, type CoherenceMetricsOptions, type TrajectoryRows } from './metrics';
export type { LlmAnswer } from '../llm/router';
export type { RiskThresholds } from './risk';
export type { Candidate, CandidateInput, RankedCandidate, Selection, SelectionDebug, Trajectory } from './selection';
