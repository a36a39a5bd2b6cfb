// First: nothing else can be trusted to load where this fails.
import './node-version';

export { DynamicBatchOptimizer } from './batch-optimizer';
export type {
  BatchOptimizerOptions,
  BatchRecord,
  OptimizationRecommendation,
  PerformanceAnalytics,
  PerformanceHistory,
  SystemResourceMetrics,
} from './batch-optimizer';
export { getEmbeddingCache, IntelligentEmbeddingCache, resetEmbeddingCache } from './cache';
export type {
  CachedEmbedding,
  CachedResult,
  CacheEntry,
  CacheEntryOptions,
  CacheEvent,
  CacheLookup,
  CacheMaintenance,
  CacheMatrix,
  CacheOptions,
  CachePerformanceMetrics,
  CacheSample,
  CacheStats,
  SimilarEntry,
  SimilarOptions,
} from './cache';
export { PerformanceDashboard } from './dashboard';
export type {
  DashboardMetrics,
  DashboardOptions,
  DashboardServer,
  DashboardSnapshot,
  DashboardSource,
  ServeOptions,
  TimelinePoint,
} from './dashboard';
export {
  AdaptiveProcessingConfig,
  BatchOptimizerConfig,
  CacheConfig,
  EmbeddingConfig,
  EmbeddingGenerator,
  MemoryAwareConfig,
  MemoryUsage,
  OptimizationConfig,
  PerformanceOptimizationConfig,
} from './documented';
export { EmbeddingError, EmbeddingGenerationError, MemoryLimitError, ModelInitializationError } from './errors';
export type { EmbeddingErrorCode, EmbeddingErrorOptions } from './errors';
export { CodeIndex } from './code-index';
export type { CodeIndexOptions, CodeMatch, IndexOptions, IndexReport, SearchOptions } from './code-index';
export { OptimizedEmbeddingGenerator, prepareText } from './generator';
export type {
  BatchProcessOptions,
  CallOptions,
  Dtype,
  EmbeddingMatrix,
  ExecutionProvider,
  FetchProgress,
  GeneratorOptions,
  InitializeOptions,
  ModelInfo,
  Pooling,
  StreamCallOptions,
} from './generator';
export { InferenceCache } from './inference-cache';
export type {
  CachedInference,
  InferenceAnswer,
  InferenceCacheEvent,
  InferenceCacheOptions,
  InferenceCacheStats,
  InferenceContent,
  InferenceEntry,
  InferenceKeyOptions,
  InferenceLookup,
  InferenceSetOptions,
  InferenceTypeStats,
  InferenceWrapOptions,
  InvalidateOptions,
  Modality,
  SemanticEmbedder,
  SemanticOptions,
  SemanticVectors,
} from './inference-cache';
export type { Annotation } from './input';
export type { Logger, Logging } from './log';
export { MemoryAwareProcessor } from './memory-processor';
export type {
  MemoryMetrics,
  MemoryProcessorOptions,
  MemoryThresholds,
  ProcessingContext,
  ProcessingHooks,
  ProcessingRecommendations,
  ProcessingResult,
  ProcessingStrategy,
  ProcessItemsOptions,
} from './memory-processor';
export type {
  BatchMetrics,
  CacheMetrics,
  Estimate,
  LearnedBatch,
  MemoryEvent,
  MemoryUseMetrics,
  OptimizationReport,
  OverallMetrics,
  PerformanceMetrics,
  Prediction,
  StageName,
} from './performance';
export { ModelStore } from './model-store';
export type { AddedModel, AddModelOptions, ModelStoreOptions, StoredModel, VerifiedModel, VerifyModelOptions } from './model-store';
export { getGlobalMonitor, PerformanceMonitor } from './monitor';
export type {
  EndCycleOptions,
  FileOperationOptions,
  LlmCallOptions,
  MeasureOptions,
  MonitorEvent,
  MonitorOptions,
  MonitorTimer,
  RecordManyOptions,
  RecordOptions,
  StopOptions,
  ValidationOptions,
} from './monitor';
export { monitored } from './monitored';
export type { MonitoredDecorator, MonitoredOptions } from './monitored';
export type { CsvTable, PrometheusOptions } from './monitor-reports';
export { mergeSnapshots } from './monitor-snapshot';
export type {
  CacheTypeStats,
  CycleRecord,
  CycleSummary,
  MachineUse,
  MonitorError,
  MonitorSnapshot,
  MonitorSummary,
  OperationMemory,
  OperationStats,
} from './monitor-snapshot';
export type { OpenTelemetryConnection, OpenTelemetryOptions } from './open-telemetry';
export type { EmbeddingResult } from './result';
export type { StreamOptions } from './stream';

// The compiler makes getters of the exports above, which node:test and sinon cannot replace: they need plain properties.
module.exports = Object.defineProperty({ ...module.exports }, '__esModule', { value: true });
