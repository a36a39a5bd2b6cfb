import { Embeddings } from '@langchain/core/embeddings';
import { BaseDocumentCompressor } from '@langchain/core/retrievers/document_compressors';

import { embeddingsClass } from './langchain-class.js';
import { rerankClass } from './langchain-rerank.js';

export type { EmbedcoreEmbeddingsParams } from './langchain-class.js';
export type { EmbedcoreRerankParams } from './langchain-rerank.js';

/**
 * Embeddings of LangChain, on a generator: `new EmbedcoreEmbeddings({ modelPath, cache, … })`, or
 * `new EmbedcoreEmbeddings({ generator })`. Needs `@langchain/core`, which is an optional peer.
 */
export class EmbedcoreEmbeddings extends embeddingsClass(Embeddings) {}

/**
 * A document compressor of LangChain, on a cross-encoder: `new EmbedcoreRerank({ modelPath, topN: 5, … })`, or
 * `new EmbedcoreRerank({ encoder })`; for `ContextualCompressionRetriever`, say.
 */
export class EmbedcoreRerank extends rerankClass(BaseDocumentCompressor) {}
