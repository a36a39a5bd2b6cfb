// The public types, bundled from lib/: index.d.ts, and one file for each interface beside it.
//
//   node scripts/types.mjs            writes them
//   node scripts/types.mjs --check    fails when one differs from what lib/ says; the same files are not checked twice

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { checkOf, root } from './checked.mjs';

/** Entries beside the package's own: their source in lib/, and the types that are made of it. */
const ENTRIES = {
  'interfaces/langchain': ['langchain.d.ts', 'langchain.d.mts'],
  'interfaces/ai-sdk': ['ai-sdk.d.ts'],
  'interfaces/server': ['server.d.ts'],
  'coherence/index': ['coherence.d.ts'],
  'parallel/index': ['parallel.d.ts'],
  'llm/index': ['llm.d.ts'],
  'queue/index': ['queue.d.ts'],
};

/** What these entries are made of, beside their own folders. */
const BELOW = ['http'];
const PARTS = ['call/checks.ts', 'call/files.ts', 'call/input.ts', 'call/limits.ts', 'call/logger.ts', 'call/model-kind.ts', 'call/options.ts', 'call/order.ts', 'call/paths.ts', 'call/source.ts', 'encoders/ranking.ts', 'results/canonical-json.ts', 'server/host-header.ts', 'server/keys.ts'];

const check = process.argv.includes('--check');
const types = ['index.d.ts', ...Object.values(ENTRIES).flat()];
const done = checkOf('types', ['lib', ...types, 'tsconfig.json', 'package-lock.json', 'scripts/types.mjs']);
if (check && done.passed()) process.exit();

const scratch = mkdtempSync(join(tmpdir(), 'embedcore-types-'));
try {
  const [index] = bundle(root, ['lib/index.ts']);
  compare('index.d.ts', index);
  layOut(index);
  const names = Object.keys(ENTRIES);
  const bundled = bundle(scratch, names.map((name) => `lib/${name}.ts`));
  for (const [i, name] of names.entries()) for (const file of ENTRIES[name]) compare(file, bundled[i]);
  if (!process.exitCode) done.pass();
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

/** What each of the files in `folder` gives to its users. */
function bundle(folder, files) {
  const outputs = files.map((_, i) => join(scratch, `bundled-${i}.d.ts`));
  const output = { noBanner: true, exportReferencedTypes: false };
  const entries = files.map((file, i) => ({ filePath: join(folder, file), outFile: outputs[i], noCheck: true, output }));
  const config = join(scratch, 'bundle.json');
  writeFileSync(config, JSON.stringify({ compilationOptions: { preferredConfigPath: join(folder, 'tsconfig.json') }, entries }));
  const bundler = join(root, 'node_modules', 'dts-bundle-generator', 'dist', 'bin', 'dts-bundle-generator.js');
  execFileSync(process.execPath, [bundler, '--silent', '--config', config], { cwd: folder, stdio: 'inherit' });
  // By path: a name is found in node_modules only, where a package that is linked (`npm link`) does not find itself.
  const types = (path) => readFileSync(path, 'utf8').replaceAll("from 'embedcore'", "from './index.js'");
  return outputs.map((path) => `// Generated from lib/ by \`npm run types\`; do not edit.\n\n${types(path)}`);
}

/**
 * Lays the folders of these entries out as the source of somebody who has installed embedcore and the peers, so that their types are
 * imported from there: a second copy of a class would be another type.
 */
function layOut(index) {
  const write = (path, text) => {
    mkdirSync(dirname(join(scratch, path)), { recursive: true });
    writeFileSync(join(scratch, path), text);
  };
  /** `entries`: the types of each. */
  const module = (name, entries) => {
    const files = Object.entries(entries).map(([entry, types], at) => ({ entry, types, file: `types-${at}.d.ts` }));
    const exports = Object.fromEntries(files.map(({ entry, file }) => [entry, { types: `./${file}` }]));
    write(`node_modules/${name}/package.json`, JSON.stringify({ name, version: '0.0.0', exports }));
    for (const { types, file } of files) write(`node_modules/${name}/${file}`, types);
  };
  // What these entries have of the inside is in nobody's types.
  write('lib/generator/options.d.ts', 'export declare const GENERATOR: any;\n');
  write('lib/encoders/options.d.ts', 'export declare const CROSS_ENCODER: any;\n');
  write('lib/generator/encoder.d.ts', 'export declare const cacheOf: any;\nexport declare const respond: any;\n');
  write('lib/matrix/embedding-matrix.d.ts', 'export declare const toNumbers: any;\n');
  write('lib/cache/embedding-cache.d.ts', 'export declare const nativeOf: any;\n');
  write('lib/cache/options.d.ts', 'export declare const readCache: any;\n');
  write('lib/results/options.d.ts', 'export declare const readOptions: any;\n');
  write('lib/native/addon.d.ts', 'export declare const native: () => any;\nexport declare const call: (work: () => unknown) => any;\nexport declare const settle: (work: () => unknown) => Promise<any>;\n');
  write('lib/native/types.d.ts', 'export type NativeFileFailure = any;\nexport type NativeCall = any;\nexport type NativeGenerated = any;\nexport type NativeModelKey = any;\nexport type NativeRequest = any;\nexport type NativeResponse = any;\n');
  write('lib/results/prompt-vectors.d.ts', 'export declare class PromptVectors { constructor(...given: any[]); of(text: string): any }\n');
  write('lib/monitor/panels.d.ts', 'export type DashboardPanel = any;\nexport type PanelTable = any;\nexport type PanelSource = any;\nexport declare const showPanel: any;\nexport declare const sharedTable: any;\n');
  write('lib/call/errors.d.ts', `export { EmbeddingError, EmbeddingGenerationError, MemoryLimitError, ModelInitializationError, type EmbeddingErrorCode } from 'embedcore';
export declare const messageOf: (thrown: unknown) => string;
export declare const errorOf: (error: any) => any;
export type WireError = any;
export declare const toEmbeddingError: (thrown: unknown) => import('embedcore').EmbeddingError;
`);
  const folders = [...new Set([...Object.keys(ENTRIES).map(dirname), ...BELOW])];
  const files = folders.flatMap((folder) => readdirSync(join(root, 'lib', folder)).map((file) => `${folder}/${file}`));
  for (const file of [...files, ...PARTS]) write(`lib/${file}`, readFileSync(join(root, 'lib', file), 'utf8').replaceAll("'../index'", "'embedcore'"));
  write('package.json', JSON.stringify({ name: 'interfaces' }));
  write('tsconfig.json', readFileSync(join(root, 'tsconfig.json')));
  module('embedcore', { '.': index });
  const ambient = join(scratch, 'lib', 'interfaces', 'langchain-core.d.ts');
  const modules = [...readFileSync(ambient, 'utf8').matchAll(/declare module '(@[^/]+\/[^/]+)\/(.*?)' \{\n(.*?)\n\}/gs)];
  module(modules[0][1], Object.fromEntries(modules.map(([, , entry, body]) => [`./${entry}`, body])));
  rmSync(ambient);
  symlinkSync(join(root, 'node_modules', '@types'), join(scratch, 'node_modules', '@types'), 'junction');
  symlinkSync(join(root, 'node_modules', 'undici-types'), join(scratch, 'node_modules', 'undici-types'), 'junction');
}

function compare(file, fresh) {
  const committed = join(root, file);
  if (!check) {
    writeFileSync(committed, fresh);
  } else if (!existsSync(committed) || readFileSync(committed, 'utf8') !== fresh) {
    console.error(`${file} is not what lib/ says: run \`npm run types\` and commit the result.`);
    process.exitCode = 1;
  }
}
