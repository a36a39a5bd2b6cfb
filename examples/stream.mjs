// More than fits into memory: annotations in, results out, as many at a time as the limit allows.
//
//   node examples/stream.mjs [COUNT]

import { createWriteStream, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import { OptimizedEmbeddingGenerator } from 'embedcore';

const count = Number(process.argv[2] ?? 2000);

// From a database, a file, a queue: any iterable will do, and is read only as fast as results are taken.
async function* annotations() {
  for (let i = 0; i < count; i++) {
    yield { nodeId: `node-${i}`, signature: `function step${i}(input: string): number`, summary: `Step ${i} of the pipeline.` };
  }
}

const generator = new OptimizedEmbeddingGenerator({ memoryLimit: 512 }); // MB, of the whole process
await generator.initialize();

async function* lines() {
  for await (const { nodeId, embedding } of generator.stream(annotations())) yield `${JSON.stringify({ nodeId, embedding })}\n`;
}

const scratch = mkdtempSync(join(tmpdir(), 'embedcore-example-'));
const output = join(scratch, 'embeddings.jsonl');
await pipeline(Readable.from(lines()), createWriteStream(output));

const { peakBytes } = generator.getPerformanceMetrics().memoryProcessor;
console.log(`${count} embeddings, ${(statSync(output).size / 2 ** 20).toFixed(1)} MB of JSON, peak memory ${(peakBytes / 2 ** 20).toFixed(0)} MB`);
await generator.cleanup();
rmSync(scratch, { recursive: true });
