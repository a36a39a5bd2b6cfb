// The reference in docs/api/, made of the public types by TypeDoc.
//
//   node scripts/docs.mjs            writes it
//   node scripts/docs.mjs --check    fails when it differs from what the types say; the same files are not checked twice

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { checkOf, filesOf, root } from './checked.mjs';

const committed = join(root, 'docs', 'api');
const types = readdirSync(root).filter((file) => file.endsWith('.d.ts'));
const done = checkOf('docs', [...types, 'docs/api', 'docs/typedoc.json', 'docs/tsconfig.json', 'package-lock.json', 'scripts/docs.mjs']);

/** What every file below `folder` says, by its path from there. */
const textsOf = (folder) => new Map(filesOf(folder).map((path) => [path.slice(folder.length + 1), readFileSync(path, 'utf8')]));

function write(folder) {
  const typedoc = join(root, 'node_modules', 'typedoc', 'bin', 'typedoc');
  const settings = ['--options', join(root, 'docs', 'typedoc.json'), '--out', folder, '--logLevel', 'Warn'];
  execFileSync(process.execPath, [typedoc, ...settings], { cwd: root, stdio: 'inherit' });
  for (const file of filesOf(folder)) writeFileSync(file, `<!-- Generated from the public types by \`npm run docs\`; do not edit. -->\n\n${readFileSync(file, 'utf8')}`);
}

if (process.argv.includes('--check') && done.passed()) {
  process.exit();
} else if (process.argv.includes('--check')) {
  const scratch = mkdtempSync(join(tmpdir(), 'embedcore-docs-'));
  try {
    write(join(scratch, 'api'));
    const [fresh, old] = [textsOf(join(scratch, 'api')), textsOf(committed)];
    const stale = [...new Set([...fresh.keys(), ...old.keys()])].filter((path) => fresh.get(path) !== old.get(path));
    if (stale.length > 0) {
      console.error(`docs/api is not what the types say (${stale.join(', ')}): run \`npm run docs\` and commit the result.`);
      process.exitCode = 1;
    } else {
      done.pass();
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
} else {
  write(committed);
}
