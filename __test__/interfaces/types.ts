// Compiled, not run: types are those of the real packages, and one class is one type wherever it comes from.

import type { EmbeddingModelV3, ProviderV3, RerankingModelV3 } from '@ai-sdk/provider';
import { Embeddings, type EmbeddingsInterface } from '@langchain/core/embeddings';
import { BaseDocumentCompressor } from '@langchain/core/retrievers/document_compressors';
import { CrossEncoder, OptimizedEmbeddingGenerator } from 'embedcore';
import { createEmbedcore, type EmbedcoreProviderOptions } from 'embedcore/ai-sdk';
import { serve, type EmbeddingServer } from 'embedcore/server';
import { EmbedcoreEmbeddings, EmbedcoreRerank, type EmbedcoreEmbeddingsParams } from 'embedcore/langchain';

const generator = new OptimizedEmbeddingGenerator();
const params: EmbedcoreEmbeddingsParams = { generator, maxRetries: 2, onFailedAttempt: () => {} };
export const embeddings: Embeddings = new EmbedcoreEmbeddings(params);
export const face: EmbeddingsInterface = new EmbedcoreEmbeddings(generator);
export const provider: ProviderV3 = createEmbedcore({ generator });
export const model: EmbeddingModelV3 = createEmbedcore({ cache: { persistPath: 'a' } })('builtin');
export const reranker: RerankingModelV3 = createEmbedcore().rerankingModel('a/b');
export const compressor: BaseDocumentCompressor = new EmbedcoreRerank({ encoder: new CrossEncoder({ modelPath: 'a' }), topN: 3 });
export const options: EmbedcoreProviderOptions = { inputType: 'query' };
export const same: OptimizedEmbeddingGenerator = new EmbedcoreEmbeddings().generator;
export const server: Promise<EmbeddingServer> = serve({ generator: new EmbedcoreEmbeddings().generator });

// @ts-expect-error: no such option.
new EmbedcoreEmbeddings({ modelpath: 'a' });
// @ts-expect-error: no such role.
export const wrong: EmbedcoreProviderOptions = { inputType: 'passage' };
