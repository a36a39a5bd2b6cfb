// Interfaces are users of the package: they come in by its one door, like everybody. They share how options are read and refused, which
// ones a generator has, of which class one is, how scores are ranked, and which hosts a server answers to. The bodies of requests are read, and answers written, by
// threads of the addon, which nobody else has a use for.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { root } from './support';

const folder = join(root, 'lib', 'interfaces');

test.each(readdirSync(folder).filter((file) => !file.endsWith('.d.ts')))('%s imports the public entry only', (file) => {
  const source = readFileSync(join(folder, file), 'utf8');
  const imported = [...source.matchAll(/(?:from|import\(|require\() ?'([^']+)'/g)].map(([, name]) => name!);
  const allowed = /^(node:.*|\.\.\/\.\.\/package\.json|\.\.\/(index|call\/(options|input|checks|errors|model-kind)|encoders\/(options|ranking)|generator\/options|server\/host-header|server\/keys)|\.\/[a-z-]+(\.js)?|@langchain\/core\/(embeddings|documents|retrievers\/document_compressors))$/;
  expect(imported.filter((name) => !allowed.test(name))).toEqual(file === 'openai.ts' ? ['../generator/encoder', '../native/addon', '../native/types'] : []);
});
