import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');

/** Installs embedcore beside its peers, as users have it: by its name, its exports and its types. */
export default function setup(): void {
  const modules = join(here, 'node_modules');
  if (!existsSync(join(modules, '@langchain', 'core'))) throw new Error('The real packages are missing: npm run test:interfaces installs them');
  const target = join(modules, 'embedcore');
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target);
  // Copied, because a link would have Node.js look for the peers beside the clone.
  for (const folder of ['cli', 'dist']) cpSync(join(root, folder), join(target, folder), { recursive: true });
  for (const file of readdirSync(root)) if (file === 'package.json' || /\.d\.m?ts$/.test(file)) cpSync(join(root, file), join(target, file));
  for (const folder of ['models', 'npm']) symlinkSync(join(root, folder), join(target, folder), 'junction');
}
