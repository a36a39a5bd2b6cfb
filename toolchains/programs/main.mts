// Only types that can be erased, so that Node.js itself can run it.
import { EmbeddingError, OptimizedEmbeddingGenerator, prepareText, type Annotation, type GeneratorOptions } from 'embedcore';

import { work } from './work.mjs';

const options: GeneratorOptions = { cache: false };
const annotation: Annotation = { nodeId: 'typed', signature: 'fn f()', summary: '' };
const [result] = await new OptimizedEmbeddingGenerator(options).generateEmbeddings([annotation]).catch((error: unknown) => {
  if (error instanceof EmbeddingError && error.code === 'NOT_INITIALIZED') return [];
  throw error;
});
if (result) throw new Error('Wrong: a result without a model');
await work({ EmbeddingError, OptimizedEmbeddingGenerator, prepareText });
