// Holds the tests in the folders given against the types that they use, with the compiler; the same files are not checked twice.
//
//   node scripts/types_of_tests.mjs __test__ __test__/interfaces

import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

import { checkOf, root } from './checked.mjs';

/** Folders with packages of their own. */
const APART = ['__test__/interfaces', '__test__/stores'];
const COMPILER = join('node_modules', 'typescript', 'bin', 'tsc');

for (const folder of process.argv.slice(2)) {
  const entries = readdirSync(join(root, folder)).map((name) => `${folder}/${name}`).filter((path) => !APART.includes(path) && !path.endsWith('/node_modules'));
  const types = readdirSync(root).filter((file) => /\.d\.m?ts$/.test(file));
  const done = checkOf(folder.replace('/', '-'), [...entries, ...types, 'lib', 'scripts', 'tsconfig.json', 'package.json', 'package-lock.json']);
  if (done.passed()) continue;
  const { status } = spawnSync(process.execPath, [COMPILER, '-p', folder], { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
  done.pass();
}
