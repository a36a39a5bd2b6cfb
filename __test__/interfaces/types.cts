// Compiled, not run: the types hold for a module of CommonJS, too.

import type { EmbeddingModelV3, ProviderV3 } from '@ai-sdk/provider';
import { Embeddings } from '@langchain/core/embeddings';
import { OptimizedEmbeddingGenerator } from 'embedcore';
import { embedcore } from 'embedcore/ai-sdk';
import { EmbedcoreEmbeddings } from 'embedcore/langchain';

const generator = new OptimizedEmbeddingGenerator();
export const embeddings: Embeddings = new EmbedcoreEmbeddings({ generator, maxConcurrency: 5 });
export const model: EmbeddingModelV3 = embedcore.embeddingModel('builtin');
export const provider: ProviderV3 = embedcore;
export const same: OptimizedEmbeddingGenerator = new EmbedcoreEmbeddings().generator;
