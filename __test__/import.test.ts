// Node.js itself imports the package by its name, as CommonJS and as an ES module.
import { spawnSync } from 'node:child_process';

import { expect, test } from 'vitest';

import { model, root } from './support';

const program = `
  const generator = new OptimizedEmbeddingGenerator({ modelPath: ${JSON.stringify(model('bert-mean'))} });
  await generator.initialize();
  console.log((await generator.embed(['a'])).dimensions, EmbeddingError.name);
  await generator.cleanup();`;

test.each([
  ['module', `import { EmbeddingError, OptimizedEmbeddingGenerator } from 'embedcore'; ${program}`],
  ['commonjs', `const { EmbeddingError, OptimizedEmbeddingGenerator } = require('embedcore'); (async () => {${program}})();`],
  ['module', `import embedcore from 'embedcore'; const { EmbeddingError, OptimizedEmbeddingGenerator } = embedcore; ${program}`],
])('%s: %s', (type, code) => {
  const { stdout, stderr } = spawnSync(process.execPath, [`--input-type=${type}`, '-e', code], { cwd: root, encoding: 'utf8' });
  expect({ stdout, stderr }).toEqual({ stdout: '32 EmbeddingError\n', stderr: '' });
});
