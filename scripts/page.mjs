// Puts the pages together: dashboard/ and uPlot into dist/dashboard/page/, search/ into dist/search/page/.
//
//   node scripts/page.mjs

import { copyFileSync, mkdirSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const uplot = join(root, 'node_modules', 'uplot');

function copied(room) {
  const target = join(root, 'dist', room, 'page');
  mkdirSync(target, { recursive: true });
  for (const file of readdirSync(join(root, room))) copyFileSync(join(root, room, file), join(target, file));
  return target;
}

const dashboard = copied('dashboard');
copyFileSync(join(uplot, 'dist', 'uPlot.iife.min.js'), join(dashboard, 'uPlot.js'));
copyFileSync(join(uplot, 'dist', 'uPlot.min.css'), join(dashboard, 'uPlot.css'));
copyFileSync(join(uplot, 'LICENSE'), join(dashboard, 'uPlot-LICENSE'));
copyFileSync(join(root, 'dashboard', 'icon.svg'), join(copied('search'), 'icon.svg'));
