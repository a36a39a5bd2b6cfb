// Generated from lib/ by `npm run types`; do not edit.

import { DocumentInterface } from '@langchain/core/documents';
import { Embeddings as LangChainEmbeddings, EmbeddingsParams } from '@langchain/core/embeddings';
import { BaseDocumentCompressor } from '@langchain/core/retrievers/document_compressors';
import { CrossEncoder, CrossEncoderOptions, EmbeddingError, EmbeddingErrorCode, GeneratorOptions, OptimizedEmbeddingGenerator } from './index.js';

/**
 * Options of {@link EmbedcoreEmbeddings}: those of a generator, or a `generator`; and those that all embeddings of LangChain
 * have: `maxConcurrency` (calls at a time; default: all, which the generator queues itself), `maxRetries`,
 * `onFailedAttempt`.
 */
export interface EmbedcoreEmbeddingsParams extends EmbeddingsParams, GeneratorOptions {
	/** Another word for `modelPath`. */
	model?: string | undefined;
	/** One that you have, and that you clean up; instead of options of one. */
	generator?: OptimizedEmbeddingGenerator | undefined;
	/**
	 * Gives up on a call after so many milliseconds (`TIMED_OUT`): those that it waits for its turn, for the model and between
	 * attempts included. Default: never.
	 */
	timeoutMs?: number | undefined;
}
interface GeneratorEmbeddings extends LangChainEmbeddings, AsyncDisposable {
	readonly generator: OptimizedEmbeddingGenerator;
	/** A vector for each document, in their order. The model is loaded with the first call. */
	embedDocuments(documents: string[]): Promise<number[][]>;
	/** The vector of the words of a search; for models that embed the two differently, not the same as a document's. */
	embedQuery(document: string): Promise<number[]>;
	/** Frees the model, unless the generator is yours. */
	close(): Promise<void>;
}
interface GeneratorEmbeddingsClass {
	/**
	 * Loads nothing yet.
	 * @throws `EmbeddingError` `INVALID_CONFIG` naming the option.
	 */
	new (params?: EmbedcoreEmbeddingsParams | OptimizedEmbeddingGenerator): GeneratorEmbeddings;
}
/** Options of {@link EmbedcoreRerank}: those of a cross-encoder, or an `encoder`. */
export interface EmbedcoreRerankParams extends CrossEncoderOptions {
	/** Another word for `modelPath`. */
	model?: string | undefined;
	/** One that you have, and that you clean up; instead of options of one. */
	encoder?: CrossEncoder | undefined;
	/** How many documents are kept, from 1. Default: all. */
	topN?: number | undefined;
	/** Gives up on a call after so many milliseconds (`TIMED_OUT`), those that the model takes to load included. Default: never. */
	timeoutMs?: number | undefined;
}
interface CrossEncoderCompressor extends BaseDocumentCompressor, AsyncDisposable {
	readonly encoder: CrossEncoder;
	/**
	 * The documents that answer the query best, best first: copies of them with `relevanceScore` among their metadata. The model is
	 * loaded with the first call.
	 */
	compressDocuments(documents: DocumentInterface[], query: string, callbacks?: unknown): Promise<DocumentInterface[]>;
	/** Where they were among the documents, with their scores, best first. */
	rerank(documents: readonly (DocumentInterface | string)[], query: string, options?: {
		topN?: number | undefined;
	}): Promise<{
		index: number;
		relevanceScore: number;
	}[]>;
	/** Frees the model, unless the encoder is yours. */
	close(): Promise<void>;
}
interface CrossEncoderCompressorClass {
	/**
	 * Loads nothing yet.
	 * @throws `EmbeddingError` `INVALID_CONFIG` naming the option.
	 */
	new (params: EmbedcoreRerankParams | CrossEncoder): CrossEncoderCompressor;
}
declare const EmbedcoreEmbeddings_base: GeneratorEmbeddingsClass;
/**
 * Embeddings of LangChain, on a generator: `new EmbedcoreEmbeddings({ modelPath, cache, … })`, or
 * `new EmbedcoreEmbeddings({ generator })`. Needs `@langchain/core`, which is an optional peer.
 */
export declare class EmbedcoreEmbeddings extends EmbedcoreEmbeddings_base {
}
declare const EmbedcoreRerank_base: CrossEncoderCompressorClass;
/**
 * A document compressor of LangChain, on a cross-encoder: `new EmbedcoreRerank({ modelPath, topN: 5, … })`, or
 * `new EmbedcoreRerank({ encoder })`; for `ContextualCompressionRetriever`, say.
 */
export declare class EmbedcoreRerank extends EmbedcoreRerank_base {
}

export {};
