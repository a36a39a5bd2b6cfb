/** Language models elsewhere, and one network layer under them. The entry `embedcore/llm`. */
export type { RequestBody } from '../http/body';
export { HttpClient, type HttpClientOptions, type RequestOptions, type ResponseKind } from '../http/client';
export type { Fetch } from '../http/fetch';
export type { HostStats } from '../http/host';
export type { TlsSettings } from '../http/undici';
export { cachedCall, type CachedCallOptions } from './cached-call';
export { loadPerformanceConfig, type PerformanceConfig, type WorkerSettings } from './config';
export {
  OllamaClient, OptimizedOllamaClient, type OllamaClientOptions, type OllamaEmbedOptions, type OllamaListOptions, type OllamaModel,
} from './ollama';
export type { OllamaChunk, OllamaResult } from './ollama-answer';
export type { OllamaCallOptions, OllamaChatOptions, OllamaImage, OllamaMessage, OllamaPrompt, OllamaSettings } from './ollama-options';
export type { BreakerState } from './breaker';
export {
  LlmRouter, type LlmAnswer, type LlmGenerateOptions, type LlmProvider, type LlmProviderOptions, type LlmProviderStatistics, type LlmResult, type LlmRouterOptions,
  type LlmRouterStatistics,
} from './router';
export { profiled, type CallProfile, type ProfiledOptions } from '../index';
