// A cache on disk: what was embedded before is looked up, also by the next process.
//
//   node examples/cache.mjs [FILE]

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { OptimizedEmbeddingGenerator } from 'embedcore';

const scratch = process.argv[2] ? undefined : mkdtempSync(join(tmpdir(), 'embedcore-example-'));
const persistPath = process.argv[2] ?? join(scratch, 'embeddings.sqlite');
const texts = Array.from({ length: 500 }, (_, i) => `function number ${i} that checks field ${i * 7} of a form`);

for (const run of ['first', 'second']) {
  // A new generator each time, as a new process would have.
  const generator = new OptimizedEmbeddingGenerator({ cache: { persistPath } });
  await generator.initialize();
  const started = performance.now();
  const { fromCache } = await generator.embed(texts);
  const known = fromCache.reduce((sum, one) => sum + Number(one), 0);
  console.log(`${run} run: ${known} of ${texts.length} from the cache, ${(performance.now() - started).toFixed(0)} ms`);
  await generator.cleanup();
}

if (scratch) rmSync(scratch, { recursive: true });
