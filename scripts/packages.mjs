// Installs the packages of the folders given, exactly as their lock files say, and without their scripts; not twice.
//
//   node scripts/packages.mjs __test__/interfaces

import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { root } from './checked.mjs';

for (const folder of process.argv.slice(2)) {
  const lock = join(root, folder, 'package-lock.json');
  // `npm ci` removes it first, with all of node_modules.
  const installed = join(root, folder, 'node_modules', '.installed-lock.json');
  if (existsSync(installed) && readFileSync(installed).equals(readFileSync(lock))) continue;
  const { status } = spawnSync('npm', ['ci', '--prefix', folder, '--ignore-scripts'], { cwd: root, stdio: 'inherit', shell: process.platform === 'win32' });
  if (status !== 0) process.exit(status ?? 1);
  copyFileSync(lock, installed);
}
