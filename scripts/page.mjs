// Puts the dashboard's page together: dashboard/ and uPlot, into dist/dashboard/page/.
//
//   node scripts/page.mjs

import { copyFileSync, mkdirSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const page = join(root, 'dashboard');
const uplot = join(root, 'node_modules', 'uplot');
const target = join(root, 'dist', 'dashboard', 'page');
mkdirSync(target, { recursive: true });
for (const file of readdirSync(page)) copyFileSync(join(page, file), join(target, file));
copyFileSync(join(uplot, 'dist', 'uPlot.iife.min.js'), join(target, 'uPlot.js'));
copyFileSync(join(uplot, 'dist', 'uPlot.min.css'), join(target, 'uPlot.css'));
copyFileSync(join(uplot, 'LICENSE'), join(target, 'uPlot-LICENSE'));
