// The code of the guides that is for other packages, run with the real ones.
import { execFile } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { expect, onTestFinished, test } from 'vitest';

import { blocks, guides, runnable, STAND_INS } from '../../scripts/readme.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const { resolve } = createRequire(import.meta.url);
const installed = (name: string) => {
  try {
    return name.startsWith('embedcore') || resolve(name) !== '';
  } catch {
    return false;
  }
};
const imports = (code: string) => [...code.matchAll(/from '([^']+)'/g)].map(([, from]) => from!);
const all = guides().flatMap((file) => blocks(file)).filter(({ code, runs }) => !runs && (/embedcore\/(langchain|ai-sdk|server)'/.test(code) || imports(code).includes('openai')) && imports(code).every(installed));

/** What the text leaves to the reader, beside what it does elsewhere. */
const OTHERS = `
import OpenAI from 'openai';
class SomeVectorStore {
  static async fromDocuments(documents, embeddings) {
    if ((await embeddings.embedDocuments(documents)).length !== documents.length) throw new Error('there are too few');
    return new SomeVectorStore();
  }
}
Object.assign(globalThis, { OpenAI, SomeVectorStore, documents: ['a document'], texts: ['a text'] });
process.env.API_KEY = process.env.OPENAI_API_KEY = 'secret';
`;

test('there are such blocks', () => expect(all.length).toBeGreaterThanOrEqual(3));

test.each(all)('the code at $where runs', async ({ code }) => {
  const [stand, block] = ['docs-stand-ins.mjs', 'docs-block.mjs'].map((name) => join(here, name)) as [string, string];
  onTestFinished(() => [stand, block, join(here, 'vectors.sqlite')].forEach((file) => ['', '-wal', '-shm', '-lock'].forEach((suffix) => rmSync(file + suffix, { force: true }))));
  writeFileSync(stand, STAND_INS + OTHERS);
  // Without the network: the model that is here.
  writeFileSync(block, `${runnable(code).replaceAll(/'sentence-transformers\/[^']*'/g, "'builtin'")}\nprocess.exit();\n`);
  const { stderr } = await promisify(execFile)(process.execPath, ['--import', stand, block], { cwd: here, timeout: 60_000 });
  expect(stderr).toBe('');
});
