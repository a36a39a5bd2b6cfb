// Generated from lib/ by `npm run types`; do not edit.

import { CrossEncoder, EmbeddingError, EmbeddingErrorCode, GeneratorOptions, OptimizedEmbeddingGenerator } from './index.js';

/** Options of {@link createEmbedcore}: those of the generators that it makes, or one generator that it uses. */
export interface EmbedcoreProviderSettings extends Omit<GeneratorOptions, "modelPath"> {
	/** One that you have, and that you clean up; instead of options of one. It has one model, so every id stands for that. */
	generator?: OptimizedEmbeddingGenerator | undefined;
	/** The same for reranking models: one that you have, and that you clean up. Every id of one stands for that. */
	reranker?: CrossEncoder | undefined;
}
/** What `providerOptions: { embedcore: … }` of a call may hold. */
export interface EmbedcoreProviderOptions {
	/** The role of the values, for models that embed the two differently. Default `'document'`. */
	inputType?: "document" | "query" | undefined;
	/** Keep the first so many values of each vector, for models trained for that (Matryoshka). Default: all. */
	dimensions?: number | undefined;
	/** Neither ask the cache nor tell it. Default `false`. */
	bypassCache?: boolean | undefined;
	/** Gives up after so many milliseconds (`TIMED_OUT`), those that the model takes to load included. Default: never. */
	timeoutMs?: number | undefined;
}
/**
 * An embedding model for `embed` and `embedMany` of the package `ai`, in version 3 of its specification, which versions 6
 * and 7 of that package take.
 */
export interface EmbedcoreEmbeddingModel {
	readonly specificationVersion: "v3";
	readonly provider: "embedcore";
	readonly modelId: string;
	/** `Infinity`: the generator makes batches itself, and better ones of many texts than of few. */
	readonly maxEmbeddingsPerCall: number;
	readonly supportsParallelCalls: true;
	doEmbed(options: {
		values: string[];
		abortSignal?: AbortSignal | undefined;
		providerOptions?: Record<string, Record<string, unknown>> | undefined;
		/** Given by version 7 of `ai`. Another place for the provider option. */
		dimensions?: number | undefined;
		/** Nothing is sent anywhere, so they are not used. */
		headers?: Record<string, string | undefined> | undefined;
	}): Promise<{
		embeddings: number[][];
		/** Tokens of the whole texts, special tokens included. */
		usage: {
			tokens: number;
		};
		warnings: never[];
		providerMetadata: {
			embedcore: {
				/** Texts that the model did not see whole. */
				truncated: number;
				/** Texts that this call did not compute. */
				fromCache: number;
				/** Of the embedding space: vectors may be compared only if theirs are equal. */
				fingerprint: string;
			};
		};
	}>;
}
/** What `providerOptions: { embedcore: … }` of a call for a ranking may hold. */
export interface EmbedcoreRerankingOptions {
	/** See {@link EmbedcoreProviderOptions.bypassCache}. */
	bypassCache?: boolean | undefined;
	/** See {@link EmbedcoreProviderOptions.timeoutMs}. */
	timeoutMs?: number | undefined;
}
/** A reranking model for `rerank` of the package `ai`, in version 3 of its specification. */
export interface EmbedcoreRerankingModel {
	readonly specificationVersion: "v3";
	readonly provider: "embedcore";
	readonly modelId: string;
	doRerank(options: {
		/** Objects are read as JSON. */
		documents: {
			type: "text";
			values: string[];
		} | {
			type: "object";
			values: object[];
		};
		query: string;
		topN?: number | undefined;
		abortSignal?: AbortSignal | undefined;
		providerOptions?: Record<string, Record<string, unknown>> | undefined;
		/** Nothing is sent anywhere, so they are not used. */
		headers?: Record<string, string | undefined> | undefined;
	}): Promise<{
		/** Best first. */
		ranking: {
			index: number;
			relevanceScore: number;
		}[];
		warnings: never[];
		response: {
			modelId: string;
		};
	}>;
}
/** Makes models. {@link embedcore} is one without options. */
export interface EmbedcoreProvider extends AsyncDisposable {
	/** The same as {@link embeddingModel}. */
	(modelId?: string): EmbedcoreEmbeddingModel;
	readonly specificationVersion: "v3";
	/** `modelId`: `'builtin'` (default), a model directory, an `.onnx` file or an id of the hub. Loaded with the first call. */
	embeddingModel(modelId?: string): EmbedcoreEmbeddingModel;
	/** The same as {@link embeddingModel}. */
	textEmbeddingModel(modelId?: string): EmbedcoreEmbeddingModel;
	/** The same as {@link embeddingModel}. */
	embedding(modelId?: string): EmbedcoreEmbeddingModel;
	/** The same as {@link embeddingModel}. */
	textEmbedding(modelId?: string): EmbedcoreEmbeddingModel;
	/** `modelId`: a model directory, an `.onnx` file or an id of the hub, of a cross-encoder. Loaded with the first call. */
	rerankingModel(modelId?: string): EmbedcoreRerankingModel;
	/** The same as {@link rerankingModel}. */
	reranking(modelId?: string): EmbedcoreRerankingModel;
	/** There are none: throws. */
	languageModel(modelId: string): never;
	/** There are none: throws. */
	imageModel(modelId: string): never;
	/** Frees the models that were loaded, unless the generator is yours. */
	close(): Promise<void>;
}
/**
 * Makes a provider for the package `ai`: `embed({ model: createEmbedcore(settings).embeddingModel('builtin'), value })`.
 * Models of the same id share one generator.
 *
 * @throws `EmbeddingError` `INVALID_CONFIG` naming the option.
 */
export declare function createEmbedcore(settings?: EmbedcoreProviderSettings): EmbedcoreProvider;
/** The provider without options. */
export declare const embedcore: EmbedcoreProvider;

export {};
