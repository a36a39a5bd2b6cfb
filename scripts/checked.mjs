// What has been checked already, and has not changed since, is not checked again.

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** Every file below `folder`: whole paths. */
export function filesOf(folder) {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return files.map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}

/**
 * The check `name` of the files at `paths`, relative to the clone; of folders, of all that is in them. `passed()` is whether it has
 * passed with these files as they are now, and `pass()` says that it has.
 */
export function checkOf(name, paths) {
  const stamp = join(root, 'target', `${name}-checked`);
  const state = () => {
    const entries = paths.map((path) => join(root, path)).filter(existsSync);
    const files = entries.flatMap((path) => (/\.[a-z]+$/.test(path) ? path : filesOf(path)));
    const hash = createHash('sha256');
    for (const file of files.sort()) hash.update(`${file}\0`).update(createHash('sha256').update(readFileSync(file)).digest());
    return hash.digest('hex');
  };
  return {
    passed: () => existsSync(stamp) && readFileSync(stamp, 'utf8') === state(),
    pass: () => {
      mkdirSync(dirname(stamp), { recursive: true });
      writeFileSync(stamp, state());
    },
  };
}
