// Whether the addon is reproducible: builds it twice as it is packed, in two directories, and compares the bytes.
//
//   node scripts/reproducible.mjs [--profile release]

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { platformOf, root } from './platforms.mjs';

const { profile } = parseArgs({ options: { profile: { type: 'string', default: 'dist' } } }).values;
const { built } = platformOf();
const home = process.env.CARGO_HOME ?? join(process.env.HOME ?? '', '.cargo');
const commit = execFileSync('git', ['rev-parse', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim();

const sums = [0, 1].map((nth) => {
  const workshop = mkdtempSync(join(tmpdir(), `embedcore-build-${nth}-`));
  try {
    const clone = join(workshop, 'embedcore');
    execFileSync('git', ['clone', '--quiet', '--no-hardlinks', root, clone]);
    execFileSync('git', ['checkout', '--quiet', commit], { cwd: clone });
    // Where a build was made is none of its users' business, and would make each a different one.
    const flags = [`--remap-path-prefix=${clone}=/embedcore`, `--remap-path-prefix=${home}=/cargo`].join('\x1f');
    const { status } = spawnSync('cargo', ['build', '--locked', '--profile', profile, '--features', 'napi', '--lib'], { cwd: clone, stdio: 'inherit', env: { ...process.env, CARGO_ENCODED_RUSTFLAGS: flags } });
    if (status !== 0) process.exit(status ?? 1);
    return createHash('sha256').update(readFileSync(join(clone, 'target', profile, built))).digest('hex');
  } finally {
    rmSync(workshop, { recursive: true, force: true });
  }
});
console.log(sums.join('\n'));
if (sums[0] !== sums[1]) {
  console.error('Two builds of the same sources differ.');
  process.exitCode = 1;
}
