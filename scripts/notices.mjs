// The licences of the Rust crates that the addon is made of: npm/THIRD-PARTY-NOTICES.txt, which travels in every
// platform package. cargo-about writes it from the crates' own files (cargo install --locked --features cli cargo-about).
//
//   node scripts/notices.mjs            writes it, after a change of Cargo.lock
//   node scripts/notices.mjs --check    fails when a crate is missing in it; needs no cargo-about

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { platforms, root } from './platforms.mjs';

const file = join(root, 'npm', 'THIRD-PARTY-NOTICES.txt');
const cargo = (...args) => execFileSync('cargo', args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'inherit'] });

const RULE = '='.repeat(80);
const LINE = '-'.repeat(80);

/** C libraries inside crates, whose licence is another than the crate's: the crate, the licence's path in it, the library. */
const EMBEDDED = [
  ['onig_sys', 'oniguruma/COPYING', 'Oniguruma'],
  ['tree-sitter', 'src/unicode/LICENSE', 'parts of ICU, in tree-sitter'],
];

/** The licences of the C libraries, in the form of npm/about.hbs. SQLite, in libsqlite3-sys, is in the public domain. */
function embedded() {
  const { packages } = JSON.parse(cargo('metadata', '--locked', '--format-version', '1', '--features', 'napi'));
  return EMBEDDED.map(([crate, licence, library]) => {
    const { manifest_path: manifest, version } = packages.find(({ name }) => name === crate);
    const text = readFileSync(join(dirname(manifest), licence), 'utf8');
    return `${RULE}\n${library} (${crate} ${version})\n${LINE}\n\n${text.trim()}\n`;
  }).join('\n');
}

/**
 * The text of cargo-about with every licence once for all crates that have it word by word, however they break its
 * lines: below the crates stand the copyright lines of each, then the licence.
 */
function grouped(text) {
  const [head, ...sections] = text.split(`\n${RULE}\n`);
  const groups = new Map();
  for (const section of sections) {
    const [title, body] = section.split(`\n${LINE}\n`);
    const [name, ...crates] = title.trim().split('\n').filter(Boolean);
    const at = body.search(/^\s*Permission (is hereby granted|to use, copy)/m);
    const [above, licence] = at < 0 ? ['', body] : [body.slice(0, at), body.slice(at)];
    const key = `${name}\n${licence.replaceAll(/\s+/g, ' ').trim()}`;
    const group = groups.get(key) ?? { name, licence: licence.trim(), owners: [] };
    group.owners.push([...crates, ...(above.trim() ? [above.trim().replaceAll(/^/gm, '    ')] : [])].join('\n'));
    groups.set(key, group);
  }
  const shown = [...groups.values()].map(({ name, owners, licence }) => `${RULE}\n${name}\n\n${owners.join('\n')}\n${LINE}\n\n${licence}\n`);
  return `${head.trim()}\n\n${shown.join('\n')}`;
}

/** Every crate that is linked into the addon for these platforms, and the grammars, whose sources are, as `name version`. */
export function linked(wanted = platforms.map(({ target }) => target)) {
  const targets = wanted.flatMap((target) => ['--target', target]);
  const tree = (edges, ...more) => cargo('tree', '--locked', '--features', 'napi', '--edges', edges, '--prefix', 'none', ...more, ...targets).split('\n');
  const all = [...tree('normal,no-proc-macro'), ...tree('build', '--depth', '1').filter((line) => line.startsWith('tree-sitter-'))];
  const crates = all.map((line) => /^(\S+) v(\S+)/.exec(line)).filter(Boolean).map(([, name, version]) => `${name} ${version}`);
  return [...new Set(crates)].filter((crate) => !crate.startsWith('embedcore ')).sort();
}

/** The crates whose licences the file lacks. */
export function missingNotices() {
  const named = new Set(readFileSync(file, 'utf8').split('\n').map((line) => /^ {2}(\S+ \d\S*)/.exec(line)?.[1]));
  return linked().filter((crate) => !named.has(crate));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (!process.argv.includes('--check')) {
    const about = ['about', 'generate', '--locked', '--features', 'napi', '--fail', '--config', join('npm', 'about.toml'), join('npm', 'about.hbs')];
    const text = `${grouped(cargo(...about)).trim()}\n\n${embedded()}`;
    writeFileSync(file, text.replaceAll('\r\n', '\n').replaceAll(/[ \t]+$/gm, '').replaceAll(/\n{3,}/g, '\n\n'));
  }
  const missing = missingNotices();
  if (missing.length > 0) console.error(`npm/THIRD-PARTY-NOTICES.txt lacks ${missing.join(', ')}: run \`node scripts/notices.mjs\``);
  process.exitCode = missing.length > 0 ? 1 : 0;
}
