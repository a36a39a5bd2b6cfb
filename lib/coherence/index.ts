/** The best of several answers by a number that can be explained, and plans of several planners merged. The entry `embedcore/coherence`. */
export { PromptAnalyzer, type AnalyzeOptions, type ModalityDefinition, type PromptAnalysis, type PromptAnalyzerOptions } from './analyzer';
export type { CandidateProvider, ModelCall, ModelCallOptions, ModelFunction } from './calls';
export {
  DynamicSemanticCouncil, type CouncilOptions, type CouncilResult, type CouncilRunOptions, type PlanFunction, type Planner, type PlannerResult, type PlanningContext,
} from './council';
export { CoherenceEngine, ECREngine, type OptimizationMetrics } from './engine';
export type { CoherenceCallOptions, CoherenceEngineOptions, GenerateOptions } from './engine-options';
export type { EvaluativeVector, Evaluate } from './evaluation';
export { ContentFusionAgent, type Fusion, type FusionOptions, type FusionReport, type Json, type Plan, type PlannerWeights } from './fusion';
export { gestaltRatio } from './gestalt';
export { coherenceMetrics, type CoherenceMeasureOptions, type CoherenceMetrics, type CoherenceMetricsOptions, type TrajectoryRows } from './metrics';
export type { LlmAnswer } from '../llm/router';
export type { RiskThresholds } from './risk';
export type { Candidate, CandidateInput, RankedCandidate, Selection, SelectionDebug, Trajectory } from './selection';
