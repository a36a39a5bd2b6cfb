// Models on the hub that are known to be published as they are read here: an excerpt, of each kind. Sizes are those of what is fetched
// (weights in 32 bits, where there are any), licences those that their makers name; both may change there.
'use strict';

const MB = 1e6;

/** What models of each kind are loaded with. */
const KINDS = {
  encoder: { title: 'Vectors of texts, by encoders', class: 'OptimizedEmbeddingGenerator' },
  decoder: { title: 'Vectors of texts, by decoders', class: 'OptimizedEmbeddingGenerator' },
  static: { title: 'Vectors of texts, from tables', class: 'OptimizedEmbeddingGenerator' },
  reranking: { title: 'Scores of pairs', class: 'CrossEncoder' },
  causal: { title: 'Scores of pairs, by language models', class: 'CrossEncoder' },
  sparse: { title: 'Sparse vectors', class: 'SparseEncoder' },
  'multi-vector': { title: 'Vectors of tokens', class: 'MultiVectorEncoder', none: 'none is published in ONNX as it is read here: export one of PyLate or sentence-transformers 6' },
};

/** Kind, id, megabytes, licence, and the dtype where there are no weights in 32 bits. */
const MODELS = [
  ['encoder', 'builtin', 0, 'MIT'],
  ['encoder', 'sentence-transformers/all-MiniLM-L6-v2', 90, 'Apache-2.0'],
  ['encoder', 'BAAI/bge-small-en-v1.5', 133, 'MIT'],
  ['encoder', 'Snowflake/snowflake-arctic-embed-xs', 90, 'Apache-2.0'],
  ['encoder', 'Snowflake/snowflake-arctic-embed-m', 430, 'Apache-2.0'],
  ['encoder', 'intfloat/multilingual-e5-small', 470, 'MIT'],
  ['encoder', 'nomic-ai/nomic-embed-text-v1.5', 547, 'Apache-2.0'],
  ['decoder', 'onnx-community/Qwen3-Embedding-0.6B-ONNX', 2400, 'Apache-2.0'],
  ['static', 'minishlab/potion-base-8M', 30, 'MIT'],
  ['static', 'minishlab/potion-retrieval-32M', 130, 'MIT'],
  ['reranking', 'Xenova/ms-marco-MiniLM-L-6-v2', 91, 'Apache-2.0'],
  ['reranking', 'Xenova/ms-marco-MiniLM-L-12-v2', 130, 'Apache-2.0'],
  ['reranking', 'jinaai/jina-reranker-v1-tiny-en', 130, 'Apache-2.0'],
  ['reranking', 'jinaai/jina-reranker-v1-turbo-en', 150, 'Apache-2.0'],
  ['reranking', 'BAAI/bge-reranker-base', 1100, 'MIT'],
  ['reranking', 'jinaai/jina-reranker-v2-base-multilingual', 1100, 'CC-BY-NC-4.0'],
  ['causal', 'onnx-community/Qwen3-Reranker-0.6B-ONNX', 600, 'Apache-2.0', 'q8'],
  ['sparse', 'bm25', 0, 'MIT'],
  ['sparse', 'Qdrant/Splade_PP_en_v1', 532, 'Apache-2.0'],
];

module.exports = { KINDS, known: MODELS.map(([kind, id, megabytes, licence, dtype]) => ({ kind, id, class: KINDS[kind].class, bytes: megabytes * MB, licence, ...(dtype && { dtype }) })) };
