import { Embeddings } from '@langchain/core/embeddings';

import { embeddingsClass } from './langchain-class.js';

export type { EmbedcoreEmbeddingsParams } from './langchain-class.js';

/**
 * Embeddings of LangChain, on a generator: `new EmbedcoreEmbeddings({ modelPath, cache, … })`, or
 * `new EmbedcoreEmbeddings({ generator })`. Needs `@langchain/core`, which is an optional peer.
 */
export class EmbedcoreEmbeddings extends embeddingsClass(Embeddings) {}
