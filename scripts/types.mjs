// The public types: index.d.ts, bundled from lib/.
//
//   node scripts/types.mjs            writes it
//   node scripts/types.mjs --check    fails when it differs from what lib/ says

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const scratch = mkdtempSync(join(tmpdir(), 'embedcore-types-'));
try {
  const bundled = join(scratch, 'index.d.ts');
  const bundler = join(root, 'node_modules', 'dts-bundle-generator', 'dist', 'bin', 'dts-bundle-generator.js');
  const options = ['--project', 'tsconfig.json', '--no-check', '--no-banner', '--silent', '--export-referenced-types=false'];
  execFileSync(process.execPath, [bundler, ...options, '--out-file', bundled, 'lib/index.ts'], { cwd: root, stdio: 'inherit' });
  const fresh = `// Generated from lib/ by \`npm run types\`; do not edit.\n\n${readFileSync(bundled, 'utf8')}`;
  const committed = join(root, 'index.d.ts');
  if (!process.argv.includes('--check')) {
    writeFileSync(committed, fresh);
  } else if (readFileSync(committed, 'utf8') !== fresh) {
    console.error('index.d.ts is not what lib/ says: run `npm run types` and commit the result.');
    process.exitCode = 1;
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
