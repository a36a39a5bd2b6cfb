import { fileURLToPath } from 'node:url';

import { defineConfig } from 'vitest/config';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const realm = '__test__/realm.test.ts';
const shared = '__test__/shared.test.ts';

export default defineConfig({
  resolve: { alias: { embedcore: here('./dist/index.js') } },
  test: {
    // Loaded by Node.js itself, as users load it.
    server: { deps: { external: [/\/dist\//] } },
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Every file loads models of its own: two at a time are enough for two cores.
    maxWorkers: 2,
    projects: [
      { extends: true, test: { name: 'forks', include: ['__test__/**/*.test.ts'], exclude: [realm, shared] } },
      { extends: true, test: { name: 'shared', include: [shared] } },
      { extends: true, test: { name: 'realms', include: [realm], pool: 'vmThreads' } },
    ],
  },
});
