// Does an index have the declarations that universal-ctags finds? See --help.

import { execFileSync } from 'node:child_process';
import { cpSync, readdirSync, writeFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { parseArgs } from 'node:util';

import { CodeIndex } from '../dist/index.js';
import { PlainError, count, main, temporaryDirectory } from './lib.mjs';

const USAGE = `node benchmark/ctags.mjs TREE… [--language NAME] [--files N] [--missing FILE]

  TREE             a directory with sources, such as a clone
  --language NAME  one language only, as the index names it
  --files N        most files of a language, evenly spread over the trees (default 2000)
  --missing FILE   the declarations that the index lacks, one a line

Each language's files are indexed by themselves. Of languages that ctags does not know, what is told is that it was done, and how many
declarations there are. Declarations are compared by file and name; what is declared inside a function counts for neither, and in C and C++ names in
capitals are not asked for: those are macros, such as TEST. Files with 1000 declarations in the index are left out, and those that are too large for one. In JavaScript ctags calls any object a class; those that are none are left out.`;

/** Extensions of a language, what ctags calls it, and which of its kinds are declarations for an index. */
const LANGUAGES = {
  bash: [['.sh', '.bash'], 'Sh', 'f'],
  c: [['.c'], 'C', 'fgsu'],
  cpp: [['.cc', '.cpp', '.cxx', '.hpp'], 'C++', 'cfgsu'],
  csharp: [['.cs'], 'C#', 'cgims'],
  go: [['.go'], 'Go', 'fsit'],
  java: [['.java'], 'Java', 'acgim'],
  javascript: [['.js', '.mjs', '.cjs', '.jsx'], 'JavaScript', 'fcg'],
  kotlin: [['.kt', '.kts']],
  php: [['.php'], 'PHP', 'cfit'],
  python: [['.py'], 'Python', 'cfm'],
  ruby: [['.rb'], 'Ruby', 'cfmS'],
  rust: [['.rs'], 'Rust', 'sifgtMP'],
  scala: [['.scala']],
  sql: [['.sql'], 'SQL', 'fptV'],
  svelte: [['.svelte']],
  swift: [['.swift']],
  typescript: [['.ts', '.mts', '.cts', '.tsx'], 'TypeScript', 'fcig'],
  vue: [['.vue']],
};

/** Answers of a search, at the most. */
const MOST = 1000;

await main(async () => {
  const { values, positionals: trees } = parseArgs({
    allowPositionals: true,
    options: { language: { type: 'string' }, files: { type: 'string', default: '2000' }, missing: { type: 'string' }, help: { type: 'boolean' } },
  });
  if (values.help || trees.length === 0) return console.log(USAGE);
  if (values.language && !LANGUAGES[values.language]) throw new PlainError(`--language ${values.language} is none of ${Object.keys(LANGUAGES).join(', ')}.`);
  const most = count(values.files, '--files');
  const workshop = temporaryDirectory();
  const all = trees.flatMap((tree) => readdirSync(tree, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath ?? entry.path, entry.name)));
  const missing = [];
  for (const [language, [extensions, known, kinds]] of Object.entries(LANGUAGES)) {
    if (values.language && values.language !== language) continue;
    const files = all.filter((file) => extensions.includes(extname(file)));
    if (files.length === 0) continue;
    const taken = Array.from({ length: Math.min(most, files.length) }, (_, n) => files[Math.floor((n * files.length) / Math.min(most, files.length))]);
    const tree = join(workshop, language);
    taken.forEach((file, n) => cpSync(file, join(tree, `${n}${extname(file)}`)));
    const { index, report } = await indexed(tree);
    let said = `${language.padEnd(12)} ${taken.length} files in ${report.seconds.toFixed(1)} s, ${report.annotations} declarations`;
    for (const [reason, amount] of Object.entries(report.skipped)) said += `, ${amount} ${reason}`;
    if (known) {
      const { total, absent } = await compared(index, tree, known, kinds, new Set(report.examples.filter(({ reason }) => reason.startsWith('larger than')).map(({ file }) => file)));
      missing.push(...absent.map(({ path, name, kind, line }) => `${language}\t${taken[Number.parseInt(path, 10)]}:${line}\t${kind}\t${name}`));
      said += `; of ${total} that ctags finds, ${(100 * (1 - absent.length / Math.max(total, 1))).toFixed(2)} % are there`;
    }
    console.log(said);
    await index.close();
  }
  if (values.missing) writeFileSync(values.missing, `${missing.join('\n')}\n`);
});

async function indexed(tree) {
  const index = new CodeIndex(tree, { path: `${tree}.index` });
  return { index, report: await index.update() };
}

function ctags(words, directory) {
  try {
    return execFileSync('ctags', words, { cwd: directory, encoding: 'utf8', maxBuffer: 1 << 30, stdio: ['ignore', 'pipe', 'ignore'] });
  } catch (error) {
    throw error.code === 'ENOENT' ? new PlainError('There is no ctags: install universal-ctags.') : error;
  }
}

/** How many names ctags finds, and those that the index has not. */
async function compared(index, tree, known, kinds, leftOut) {
  const told = ctags(['-R', '--output-format=json', `--languages=${known}`, `--kinds-${known}=${kinds}`, '--map-C=-.h', '--fields=+nsZ', '--extras=-{anonymous}', '-f', '-', '.'], tree);
  const tags = told.split('\n').filter(Boolean).map((line) => JSON.parse(line)).filter((tag) => isDeclared(tag, known));
  const files = new Map();
  for (const tag of tags) files.set(tag.path, [...(files.get(tag.path) ?? []), tag]);
  let total = 0;
  const absent = [];
  for (const [path, tags] of files) {
    if (leftOut.has(path.replace('./', ''))) continue;
    const found = await index.search('declaration', { paths: path.replace('./', '/'), limit: MOST });
    // There may be more.
    if (found.length === MOST) continue;
    const there = new Set();
    for (const { name } of found) {
      there.add(name);
      there.add(name.split(/\.|::/).at(-1).replaceAll(' ', ''));
    }
    const seen = new Set();
    for (const tag of tags) {
      const name = tag.name.split(/\.|::/).at(-1).replaceAll(' ', '');
      if (seen.has(name)) continue;
      seen.add(name);
      total++;
      if (!there.has(name) && !there.has(tag.name)) absent.push({ ...tag, path: path.replace('./', '') });
    }
  }
  return { total, absent };
}

function isDeclared({ name, kind, scopeKind, pattern }, known) {
  if (name.startsWith('__anon') || scopeKind === 'function' || scopeKind === 'method') return false;
  if (known === 'JavaScript' && kind === 'class') return /\bclass\b/.test(pattern);
  return !(known === 'C' || known === 'C++') || !/^[A-Z][A-Z0-9_]*$/.test(name);
}
