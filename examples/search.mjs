// Search by meaning in this clone's own sources:
//
//   node examples/search.mjs ["words to search for"] [--model DIRECTORY] [FOLDER ...]
//
// Runs on the small static model of models/builtin unless told otherwise.

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { OptimizedEmbeddingGenerator } from 'embedcore';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const { values, positionals } = parseArgs({ allowPositionals: true, options: { model: { type: 'string' } } });
const [words = 'stop a running call', ...folders] = positionals;
const modelPath = values.model ?? join(root, 'models', 'builtin');

/** A declaration with the comment above it and the code below it. */
const DECLARATION = /^\s*(?:export |pub(?:\(\w+\))? )?(?:default |async |const |unsafe |abstract )*(?:fn|function|class|struct|enum|trait|interface) (\w+).*/;
const COMMENT = /^\s*(?:\/\/\/?|\/?\*+|\*)\s?/;

function* annotationsOf(file) {
  const lines = readFileSync(file, 'utf8').split('\n');
  for (const [i, line] of lines.entries()) {
    if (!DECLARATION.test(line)) continue;
    let top = i;
    while (top > 0 && (COMMENT.test(lines[top - 1]) || /^\s*#\[/.test(lines[top - 1]))) top--;
    const comment = lines.slice(top, i).filter((above) => COMMENT.test(above));
    const summary = comment.map((above) => above.replace(COMMENT, '').replace(/\*\/$/, '')).join(' ').trim();
    const signature = line.trim().replace(/\s*\{$/, '');
    yield { nodeId: `${relative(root, file)}:${i + 1}`, signature, summary, sourceSnippet: lines.slice(i + 1, i + 20).join('\n') };
  }
}

const files = (folders.length > 0 ? folders : ['src', 'lib']).flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true })
    .filter((name) => /\.(rs|ts|mts|js|mjs)$/.test(name))
    .map((name) => join(root, folder, name)),
);
const annotations = files.flatMap((file) => [...annotationsOf(file)]);

/** A bar on a terminal, nothing elsewhere. */
function bar(processed, total) {
  if (!process.stderr.isTTY) return;
  const width = 30;
  const filled = Math.round((processed / total) * width);
  const line = `\rEmbedding ${'█'.repeat(filled)}${'░'.repeat(width - filled)} ${processed}/${total}`;
  process.stderr.write(processed === total ? `${line}\n` : line);
}

const generator = new OptimizedEmbeddingGenerator({ modelPath });
await generator.initialize();
const started = performance.now();
const matrix = await generator.embed(annotations.map((annotation) => generator.prepareText(annotation)), { progressCallback: bar });
const seconds = (performance.now() - started) / 1000;
console.log(`${annotations.length} declarations of ${files.length} files embedded in ${seconds.toFixed(2)} s.\n\n"${words}" is closest to:\n`);

const query = await generator.embedQuery(words);
const cosine = (vector) => vector.reduce((sum, value, i) => sum + value * query[i], 0);
const ranked = annotations.map((annotation, i) => ({ ...annotation, score: cosine(matrix.row(i)) })).sort((a, b) => b.score - a.score);
for (const { score, nodeId, signature, summary } of ranked.slice(0, 5)) {
  const text = summary.length > 90 ? `${summary.slice(0, 90)}…` : summary;
  console.log(`  ${score.toFixed(3)}  ${nodeId}\n         ${signature}\n${text && `         ${text}\n`}`);
}
await generator.cleanup();
