
// First: nothing else can be trusted to load where this fails.
import './native/node-version';

export { BatchOptimizerConfig, DynamicBatchOptimizer } from './batch/optimizer';
export type {
  BatchOptimizerOptions,
  BatchRecord,
  OptimizationRecommendation,
  PerformanceAnalytics,
  PerformanceHistory,
  SystemResourceMetrics,
} from './batch/optimizer';
export { getEmbeddingCache, IntelligentEmbeddingCache, resetEmbeddingCache } from './cache/embedding-cache';
export type { CacheOptions, SimilarOptions } from './cache/options';
export type { EntryOptions, Modality } from './cache/content';
export type { CacheEvent, CacheMaintenance, CachePerformanceMetrics, CacheSample, CacheStats, ModalityStats } from './cache/report';
export type { SharedOptions, SharedStats } from './cache/shared';
export type { CachedEmbedding, CachedResult, CacheEntry, CacheEntryOptions, CacheLookup, CacheMatrix, SimilarEntry } from './cache/values';
export { doctor } from './doctor/doctor';
export type { DoctorAdvice, DoctorOptions, DoctorReport } from './doctor/doctor';
export { splitText } from './chunks/chunks';
export type { Chunk, SourceText, SplitManyOptions, SplitOptions, SplitTextOptions, TextChunk, TextFormat } from './chunks/chunks';
export { EmbeddingCollection } from './collection/collection';
export type {
  ChunkSource,
  CollectionDraft,
  CollectionEntry,
  CollectionMatch,
  CollectionOptions,
  CollectionQuery,
  Metadata,
  SetMetadataOptions,
  SyncOptions,
  SyncReport,
} from './collection/collection';
export type { Condition, Filter, MetadataValue } from './collection/filter';
export { PerformanceDashboard } from './dashboard/dashboard';
export type {
  DashboardMetrics,
  DashboardOptions,
  DashboardSnapshot,
  DashboardSource,
  TimelinePoint,
} from './dashboard/dashboard';
export type { DashboardServer } from './dashboard/server';
export type { PageServer, ServeOptions } from './server/serve-options';
export type { DashboardPanel, PanelCell, PanelTable } from './monitor/panels';
export {
  AdaptiveProcessingConfig,
  CacheConfig,
  EmbeddingConfig,
  MemoryAwareConfig,
  MemoryUsage,
  OptimizationConfig,
  PerformanceOptimizationConfig,
} from './generator/config-names';
export { CrossEncoder } from './encoders/cross-encoder';
export type { RankedDocument, Scores } from './encoders/cross-encoder';
export { maxSim, MultiVectorEncoder } from './encoders/multi-vector-encoder';
export type { MaxSimMatch, MaxSimVectors, MultiVectors } from './encoders/multi-vector-encoder';
export type {
  CrossEncoderOptions,
  EncodeOptions,
  EncoderOptions,
  MaxSimOptions,
  MultiVectorEncoderOptions,
  RankOptions,
  ScoreOptions,
  SparseEncoderOptions,
} from './encoders/options';
export { SparseEncoder } from './encoders/sparse-encoder';
export type { SparseVector, SparseVectors } from './encoders/sparse-encoder';
export { EmbeddingError, EmbeddingGenerationError, MemoryLimitError, ModelInitializationError } from './call/errors';
export type { EmbeddingErrorCode, EmbeddingErrorOptions } from './call/errors';
export { CodeIndex } from './search/code-index';
export type {
  CodeDuplicates,
  CodeIndexOptions,
  CodeMatch,
  CodeSymbol,
  DuplicateCodeOptions,
  IndexOptions,
  IndexReport,
  IndexStatus,
  SearchOptions,
  SearchServeOptions,
  SimilarCodeOptions,
  SymbolOptions,
  WatchOptions,
} from './search/options';
export type { CodeWatcher } from './search/watcher';
export { EmbeddingGenerator, OptimizedEmbeddingGenerator, prepareText } from './generator/generator';
export type {
  Architecture,
  BatchProcessOptions,
  CallOptions,
  Engine,
  ExecutionProvider,
  ExecutionProviderPlugin,
  GeneratorOptions,
  ImageCallOptions,
  InitializeOptions,
  ModelInfo,
  Pooling,
  Precision,
  ProviderInfo,
  StreamCallOptions,
} from './generator/options';
export type { DocumentChunk, DocumentOptions, TextDocument } from './generator/documents';
export type { ImageInput } from './generator/images';
export type { CountOptions, Tokens } from './generator/tokens';
export { EmbeddingMatrix } from './matrix/embedding-matrix';
export { communities, cosine, dedupe, dot, kMeans, pairs, similarities, topK } from './matrix/functions';
export type {
  Clusters,
  CommunityOptions,
  Deduplicated,
  KMeansOptions,
  MatrixOptions,
  Pair,
  ThresholdOptions,
  TopK,
  TopKOptions,
  Vectors,
} from './matrix/functions';
export { InferenceCache } from './results/inference-cache';
export type { InferenceCacheOptions, InvalidateOptions } from './results/options';
export type { SemanticEmbedder, SemanticOptions, SemanticVectors } from './results/prompt-vectors';
export type {
  CachedInference,
  InferenceAnswer,
  InferenceCacheEvent,
  InferenceCacheStats,
  InferenceContent,
  InferenceEntry,
  InferenceKeyOptions,
  InferenceLookup,
  InferenceSetOptions,
  InferenceTypeStats,
  InferenceWrapOptions,
} from './results/values';
export type { Annotation } from './call/input';
export type { Logger, Logging } from './call/logger';
export { MemoryAwareProcessor } from './memory/processor';
export type {
  MemoryMetrics,
  MemoryProcessorOptions,
  MemoryThresholds,
  ProcessingBatches,
  ProcessingContext,
  ProcessingHooks,
  ProcessingRecommendations,
  ProcessingResult,
  ProcessingStrategy,
  ProcessItemsOptions,
} from './memory/options';
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
} from './generator/metrics';
export type { RemoteInfo, RemoteKind, RemoteOptions } from './models/remote';
export { ModelStore } from './models/store';
export type { AddedModel, AddModelOptions, Dtype, FetchProgress, ModelStoreOptions, StoredModel, VerifiedModel, VerifyModelOptions } from './models/store';
export { getGlobalMonitor, PerformanceMonitor } from './monitor/monitor';
export type { MonitorEvent, MonitorTimer } from './monitor/monitor';
export type {
  EndCycleOptions,
  FileOperationOptions,
  LlmCallOptions,
  MeasureOptions,
  MonitorOptions,
  RecordManyOptions,
  RecordOptions,
  StopOptions,
  ValidationOptions,
} from './monitor/options';
export { monitored, profiled } from './monitor/decorator';
export type { CallProfile, MonitoredDecorator, MonitoredOptions, ProfiledOptions } from './monitor/decorator';
export type { CsvTable, PrometheusOptions } from './monitor/reports';
export { mergeSnapshots } from './monitor/snapshot';
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
} from './monitor/snapshot';
export type { OpenTelemetryConnection, OpenTelemetryOptions } from './monitor/open-telemetry';
export type { EmbeddingResult } from './call/result';
export type { StreamedVector, StreamOptions } from './generator/stream';

// The compiler makes getters of the exports above, which node:test and sinon cannot replace: they need plain properties.
module.exports = Object.defineProperty({ ...module.exports }, '__esModule', { value: true });
