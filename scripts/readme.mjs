// Runs the code of README.md and docs/*.md in a project that has embedcore installed: every block marked `ts`, and the
// README's commands. A block that cannot run by itself (because it needs the network, say) is marked `ts skip`.

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import ts from 'typescript';

import { root } from './platforms.mjs';

/** What stands for names that the README leaves to the reader. Everything that embedcore exports is there, too. */
export const STAND_INS = `
import * as embedcore from 'embedcore';
const { OptimizedEmbeddingGenerator, PerformanceMonitor } = embedcore;
const annotations = [
  { nodeId: 'a', signature: 'function openFile(path)', summary: 'Opens a file.' },
  { nodeId: 'b', signature: 'function closeSocket(socket)', summary: 'Closes a socket.' },
];
const generator = new OptimizedEmbeddingGenerator();
await generator.initialize();
await generator.embed(['something to look at']);
Object.assign(globalThis, embedcore, {
  annotations, generator,
  monitor: new PerformanceMonitor(),
  readAnnotations: async function* () { yield* annotations; },
  store: async () => {},
  content: 'text', content2: 'another text',
  vector: [0.6, 0.8], embedSomehow: async () => [0.8, 0.6], embedPicture: async () => [0.6, 0.8],
  items: [1, 2, 3], work: async (batch) => batch, onProgress: () => {},
  question: 'why?', prompt: 'why?', ask: async function ask() { return 'because'; }, answer: 'because', files: ['a'],
  picture: new Uint8Array([1, 2, 3]), labels: ['a cat'],
  signal: new AbortController().signal,
});
`;

/** The blocks of TypeScript in a Markdown file: where each starts, its code, and whether it can run by itself. */
export function blocks(path) {
  const found = [];
  let open;
  readFileSync(join(root, path), 'utf8').split('\n').forEach((line, i) => {
    if (open) {
      if (line === '```') {
        found.push(open);
        open = undefined;
      } else open.code += `${line}\n`;
    } else if (/^```ts( skip)?$/.test(line)) open = { where: `${path}:${i + 2}`, code: '', runs: line === '```ts' };
  });
  // Those with imports from elsewhere show how embedcore fits into something that is not installed here.
  const alone = (code) => [...code.matchAll(/from '([^']+)'/g)].every(([, from]) => /^(embedcore(\/(parallel|coherence))?|node:.*)$/.test(from));
  return found.map((block) => ({ ...block, runs: block.runs && alone(block.code) }));
}

/** README.md and the guides. */
export const guides = () => ['README.md', ...readdirSync(join(root, 'docs')).filter((file) => file.endsWith('.md')).map((file) => `docs/${file}`)];

/** What Node.js can run: types taken out, bodies left to the reader made empty, and any free port. */
export function runnable(code) {
  const filled = code.replaceAll('{ … }', '{}').replaceAll(/port: \d+/g, 'port: 0');
  const { outputText } = ts.transpileModule(filled, { compilerOptions: { module: 'esnext', target: 'es2022' } });
  return `${outputText}\nglobalThis.generator.cleanup();\n`;
}

/** Runs everything in `project` with the environment `env`; throws at the first thing that fails or complains. */
export async function runReadme(project, env) {
  writeFileSync(join(project, 'stand-ins.mjs'), STAND_INS);
  const all = guides().flatMap((file) => blocks(file)).filter(({ runs }) => runs);
  if (all.length < 10) throw new Error(`README.md and docs/ have only ${all.length} blocks of code that run: are they marked otherwise now?`);
  for (const directory of ['sources', 'out']) mkdirSync(join(project, directory));
  writeFileSync(join(project, 'sources', 'files.js'), '/** Opens a file for reading. */\nexport function openFile(path) { return path; }\n');
  for (const [i, { where, code }] of all.entries()) {
    const file = join(project, `block-${i}.mjs`);
    writeFileSync(file, runnable(code));
    const { status, signal, stderr } = spawnSync(process.execPath, ['--import', './stand-ins.mjs', file], { cwd: project, env, encoding: 'utf8', timeout: 60_000 });
    if (status !== 0 || stderr) throw new Error(`${where} ended with ${status ?? signal}:\n${stderr}`);
    console.log(`  ${where} runs`);
  }
  const command = (...args) => execFileSync('npx', ['embedcore', ...args], { cwd: project, env, encoding: 'utf8', shell: process.platform === 'win32' });
  command('index', 'sources');
  const { root, matches: [best] } = JSON.parse(command('search', 'openFile', 'sources', '--json'));
  if (best?.file !== 'files.js' || !existsSync(join(root, best.file))) throw new Error(`npx embedcore search found ${JSON.stringify(best)} below ${root}`);
  console.log('  npx embedcore index, search');
}
