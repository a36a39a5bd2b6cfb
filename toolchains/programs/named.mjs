// Named imports, as most people write them: they have to be found before the module runs.
import { EmbeddingError, OptimizedEmbeddingGenerator, prepareText } from 'embedcore';

import { work } from './work.mjs';

await work({ EmbeddingError, OptimizedEmbeddingGenerator, prepareText });
