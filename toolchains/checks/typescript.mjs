// The types, with every option that makes the compiler stricter, and the programs that it makes.
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const strict = {
  target: 'es2022',
  lib: ['es2022'],
  types: ['node'],
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  noPropertyAccessFromIndexSignature: true,
  isolatedModules: true,
  skipLibCheck: false,
};

const resolutions = {
  node16: { module: 'node16', moduleResolution: 'node16', verbatimModuleSyntax: true },
  nodenext: { module: 'nodenext', moduleResolution: 'nodenext', verbatimModuleSyntax: true },
  bundler: { module: 'esnext', moduleResolution: 'bundler', verbatimModuleSyntax: true },
  node10: { module: 'commonjs', moduleResolution: 'node', esModuleInterop: true },
};

const compilers = {
  '5.0': ['typescript-5.0', 'lib', 'tsc.js'],
  '5.9': ['typescript-5.9', 'lib', 'tsc.js'],
  '6.0': ['typescript', 'lib', 'tsc.js'],
  '7.0': ['typescript-7', 'bin', 'tsc'],
};

export default ({ ends, made, node, root, tool, works }) => {
  const types = readFileSync(join(root, '__test__', 'contract.types.ts'), 'utf8');

  const compiles = (version, names) => [
    `TypeScript ${version}: ${names.join(', ')}`,
    async () => {
      for (const resolution of names) {
        // Both kinds of module: as one file's ending says it, or the nearest package.json.
        const kinds = resolution === 'node10' || resolution === 'bundler' ? ['ts'] : ['mts', 'cts'];
        const files = Object.fromEntries(kinds.map((kind) => [`src/contract.${kind}`, kind === 'cts' ? commonJs(types) : types]));
        const folder = made(`typescript-${version}-${resolution}`, {
          ...files,
          'tsconfig.json': { compilerOptions: { ...strict, ...resolutions[resolution], noEmit: true }, include: ['src'] },
        });
        await ends(0, node, [tool(...compilers[version]), '-p', folder], { cwd: folder });
      }
    },
  ];

  /** What a compiled program does. */
  const runs = (name, module, extension, output) => [
    `TypeScript, ${name}`,
    async () => {
      const folder = made(`typescript-${module}`, {
        'tsconfig.json': { compilerOptions: { ...strict, ...resolutions.node16, outDir: 'out', rootDir: '.' }, files: [`main.${extension}`] },
        'main.cts': mainCts,
      });
      await ends(0, node, [tool(...compilers['6.0']), '-p', folder], { cwd: folder });
      cpSync(join(folder, 'work.mjs'), join(folder, 'out', 'work.mjs'));
      await works(node, [join('out', output)], { cwd: folder });
    },
  ];

  return [
    compiles('5.0', ['node16', 'bundler', 'node10']),
    compiles('5.9', ['node16', 'bundler', 'node10']),
    compiles('6.0', ['node16', 'nodenext', 'bundler']),
    compiles('7.0', ['node16', 'nodenext', 'bundler']),
    runs('compiled to an ES module', 'module', 'mts', 'main.mjs'),
    runs('compiled to CommonJS', 'commonjs', 'cts', 'main.cjs'),
  ];
};

/** With verbatimModuleSyntax, a CommonJS module says what it is. */
function commonJs(text) {
  return text
    .replace(/import \{([^}]*)\} from 'embedcore';/, (_, names) => `import embedcore = require('embedcore');\nconst {${names}} = embedcore;`)
    .replace(/: (IntelligentEmbeddingCache)\b/g, ': embedcore.$1')
    .replace(/^export /gm, '');
}

const mainCts = `
import embedcore = require('embedcore');
const { OptimizedEmbeddingGenerator } = embedcore;
const options: embedcore.GeneratorOptions = {};
if (new OptimizedEmbeddingGenerator(options).isReady()) throw new Error('Wrong: ready');
import('./work.mjs').then(({ work }) => work(embedcore));
`;
