/** Parallel work beside embeddings: maps, batches, validators, files, evaluators. The entry `embedcore/parallel`. */
export { batchProcess, type BatchFunction, type BatchMapOptions } from './batch';
export type { Settled } from './drive';
export type { ItemFunction } from './function-runner';
export type { OnError } from './options';
export { parallelMap, type Collecting, type Items, type ParallelMap, type ParallelMapOptions, type ParallelStreamOptions, type Results, type Throwing, type Work } from './map';
export type { ModuleFunction } from './module-runner';
export { ParallelProcessor, type ParallelProcessorOptions, type ParallelStats } from './processor';
export {
  BatchFileProcessor, type BatchFileProcessorOptions, type FileToWrite, type ReadBatchOptions, type ReadResult, type WriteBatchOptions, type WriteResult,
} from './files';
export {
  RealtimeEvaluator, type AggregateStats, type EvaluateOptions, type EvaluationContext, type EvaluationResult, type RealtimeEvaluatorOptions, type ScoreRecord, type Scores,
} from './evaluator';
export type { ScoreStats } from './statistics';
export { ParallelValidator, type ParallelValidatorOptions, type ValidationResult, type Validator, type Validators } from './validator';
