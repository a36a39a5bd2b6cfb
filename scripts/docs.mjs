// The reference in docs/api/, made of the public types by TypeDoc.
//
//   node scripts/docs.mjs            writes it
//   node scripts/docs.mjs --check    fails when it differs from what the types say

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const committed = join(root, 'docs', 'api');

/** Every file below `folder`, by its path from there. */
function filesOf(folder) {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((entry) => join(entry.parentPath, entry.name));
  return new Map(paths.map((path) => [path.slice(folder.length + 1), readFileSync(path, 'utf8')]));
}

function write(folder) {
  const typedoc = join(root, 'node_modules', 'typedoc', 'bin', 'typedoc');
  const settings = ['--options', join(root, 'docs', 'typedoc.json'), '--out', folder, '--logLevel', 'Warn'];
  execFileSync(process.execPath, [typedoc, ...settings], { cwd: root, stdio: 'inherit' });
}

if (process.argv.includes('--check')) {
  const scratch = mkdtempSync(join(tmpdir(), 'embedcore-docs-'));
  try {
    write(join(scratch, 'api'));
    const [fresh, old] = [filesOf(join(scratch, 'api')), filesOf(committed)];
    const stale = [...new Set([...fresh.keys(), ...old.keys()])].filter((path) => fresh.get(path) !== old.get(path));
    if (stale.length > 0) {
      console.error(`docs/api is not what the types say (${stale.join(', ')}): run \`npm run docs\` and commit the result.`);
      process.exitCode = 1;
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
} else {
  write(committed);
}
