// The names under which a project may know settings and shapes of this package, beside those that the classes use: as
// types, and as values where one can be used.

import { availableParallelism } from 'node:os';

import { BatchOptimizerConfig } from '../batch/optimizer';
import type { CacheOptions } from '../cache/options';
import type { Given } from '../call/options';
import type { MemoryProcessorOptions, MemoryThresholds, ProcessingStrategy } from '../memory/options';
import { MemoryAwareProcessor } from '../memory/processor';

/** {@link CacheOptions} with all that the document names; `Partial<CacheConfig>` for some of it. As a value: the defaults. */
export interface CacheConfig extends Given<CacheOptions> {
  maxEntries: number;
  maxMemoryMB: number;
  ttlSeconds: number;
  enableContentValidation: boolean;
  maintenanceInterval: number;
}

/** The defaults of {@link IntelligentEmbeddingCache}. */
export const CacheConfig: Readonly<CacheConfig> = Object.freeze({
  maxEntries: 1000,
  maxMemoryMB: 100,
  ttlSeconds: 3600,
  enableContentValidation: true,
  maintenanceInterval: 300_000,
});

/** The same as {@link BatchOptimizerConfig}. */
export type OptimizationConfig = BatchOptimizerConfig;
/** The same as {@link BatchOptimizerConfig}. */
export const OptimizationConfig: Readonly<OptimizationConfig> = BatchOptimizerConfig;

/** {@link MemoryProcessorOptions} with all that the document names; `Partial<MemoryAwareConfig>` for some of it. As a value: the defaults. */
export interface MemoryAwareConfig extends Given<MemoryProcessorOptions> {
  strategies: ProcessingStrategy[];
  memoryThresholds: MemoryThresholds;
  monitoringInterval: number;
  cleanupThreshold: number;
  gcThreshold: number;
}

/** The same with all that the code names. As a value: the defaults. */
export interface AdaptiveProcessingConfig extends Given<MemoryProcessorOptions> {
  memoryThresholds: MemoryThresholds;
  strategies: ProcessingStrategy[];
  monitoringInterval: number;
  enableGcHints: boolean;
  emergencyCleanupThreshold: number;
  memoryBuffer: number;
}

const memoryDefaults: Readonly<MemoryAwareConfig & AdaptiveProcessingConfig> = Object.freeze({
  strategies: [
    { name: 'streaming', maxBatchSize: 1, approach: 'streaming' as const, memoryOverhead: 0.1, cpuOverhead: 0.2, cleanupFrequency: 1 },
    { name: 'conservative', maxBatchSize: 8, approach: 'sequential' as const, memoryOverhead: 0.3, cpuOverhead: 0.5, cleanupFrequency: 3 },
    { name: 'balanced', maxBatchSize: 32, approach: 'parallel' as const, memoryOverhead: 1, cpuOverhead: 1, cleanupFrequency: 5 },
    { name: 'aggressive', maxBatchSize: 128, approach: 'parallel' as const, memoryOverhead: 2, cpuOverhead: 1.5, cleanupFrequency: 10 },
  ],
  memoryThresholds: { critical: 85, high: 70, normal: 55, low: 35 },
  monitoringInterval: 1000,
  cleanupThreshold: 80,
  gcThreshold: 70,
  enableGcHints: true,
  emergencyCleanupThreshold: 95,
  memoryBuffer: 0.1,
});

/** The defaults of {@link MemoryAwareProcessor}. */
export const MemoryAwareConfig: Readonly<MemoryAwareConfig> = memoryDefaults;
/** The defaults of {@link MemoryAwareProcessor}. */
export const AdaptiveProcessingConfig: Readonly<AdaptiveProcessingConfig> = memoryDefaults;

/**
 * The options of {@link OptimizedEmbeddingGenerator} as the code spells them; its constructor takes some of them. As a
 * value: the generator's defaults.
 */
export interface PerformanceOptimizationConfig {
  enableCaching: boolean;
  enableBatchOptimization: boolean;
  enableMemoryAwareProcessing: boolean;
  cacheConfig?: Partial<CacheConfig>;
  batchConfig?: Partial<BatchOptimizerConfig>;
  memoryConfig?: Omit<Partial<AdaptiveProcessingConfig>, 'memoryThresholds'> & { memoryThresholds?: Partial<MemoryThresholds> };
}

/** The defaults of {@link OptimizedEmbeddingGenerator}: other ones than those of the classes that it is made of. */
export const PerformanceOptimizationConfig: Readonly<Required<PerformanceOptimizationConfig>> = Object.freeze({
  enableCaching: true,
  enableBatchOptimization: true,
  enableMemoryAwareProcessing: true,
  cacheConfig: { ...CacheConfig, maxEntries: 100_000, ttlSeconds: 0 },
  batchConfig: { ...BatchOptimizerConfig, maxBatchSize: 1024, aggressiveness: 0.6 },
  memoryConfig: memoryDefaults,
});

/** Settings of embedding as a whole. As a value: what this package does by default, on this machine. */
export interface EmbeddingConfig {
  /** The model's place. */
  modelPath: string;
  /** The model's name. */
  modelName: string;
  /** Texts in one run of the model to begin with, where they are short. */
  defaultBatchSize: number;
  /** Most texts in one run that are ever tried. */
  maxBatchSize: number;
  /** Memory, in MB, that the process may hold. */
  memoryLimit: number;
  /** Runs at a time. */
  maxConcurrency: number;
  /** Whether calls report their progress to who asks for it. */
  enableProgressReporting: boolean;
  /** Whether results have a confidence. */
  enableConfidenceScoring: boolean;
}

/** See the interface. `memoryLimit` and `maxConcurrency` are measured when they are read. */
export const EmbeddingConfig: Readonly<EmbeddingConfig> = Object.freeze({
  modelPath: 'builtin',
  modelName: 'builtin',
  defaultBatchSize: 64,
  maxBatchSize: 1024,
  get memoryLimit() {
    const { usage, available } = MemoryUsage.now();
    return Math.floor((usage + available) / 2 ** 20);
  },
  get maxConcurrency() {
    return availableParallelism();
  },
  enableProgressReporting: true,
  enableConfidenceScoring: true,
});

/** Memory of this process. As a value, `MemoryUsage.now()` measures it. */
export interface MemoryUsage {
  /** Bytes of physical memory that it holds. */
  usage: number;
  /** Bytes that the container, or the host, has available. */
  available: number;
  /** Whether so much is in use that a {@link MemoryAwareProcessor} would clean up: from 80 %. */
  shouldCleanup: boolean;
}

/** See the interface. */
export const MemoryUsage: { now(): MemoryUsage } = Object.freeze({
  now() {
    const processor = new MemoryAwareProcessor();
    const { processMemory, availableMemory, memoryUsagePercent } = processor.getCurrentMemoryMetrics();
    processor.stop();
    return { usage: processMemory.rss, available: availableMemory, shouldCleanup: memoryUsagePercent >= memoryDefaults.cleanupThreshold };
  },
});
