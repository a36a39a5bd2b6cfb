import { fileURLToPath } from 'node:url';

import { defineConfig } from 'vitest/config';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const alias = {
  'embedcore/ai-sdk': here('./dist/interfaces/ai-sdk.js'),
  'embedcore/coherence': here('./dist/coherence/index.js'),
  'embedcore/llm': here('./dist/llm/index.js'),
  'embedcore/parallel': here('./dist/parallel/index.js'),
  'embedcore/queue': here('./dist/queue/index.js'),
  'embedcore/server': here('./dist/interfaces/server.js'),
  embedcore: here('./dist/index.js'),
};
const realm = '__test__/realm.test.ts';
const shared = '__test__/shared.test.ts';
const interfaces = '__test__/interfaces/**';
const stores = '__test__/stores/**';

export default defineConfig({
  test: {
    // Loaded by Node.js itself, as users load it.
    server: { deps: { external: [/\/dist\//] } },
    // What hangs fails, and what a busy machine takes long for does not.
    testTimeout: 240_000,
    hookTimeout: 240_000,
    expect: { poll: { timeout: 30_000 } },
    // Many wait for processes, locks and clocks: four keep two cores busy.
    maxWorkers: 4,
    projects: [
      { extends: true, resolve: { alias }, test: { name: 'forks', include: ['__test__/**/*.test.ts'], exclude: [realm, shared, interfaces, stores] } },
      { extends: true, resolve: { alias }, test: { name: 'shared', include: [shared] } },
      { extends: true, resolve: { alias }, test: { name: 'realms', include: [realm], pool: 'vmThreads' } },
      // As installed: found by its name, not by the alias.
      { extends: true, test: { name: 'interfaces', include: [`${interfaces}/*.test.ts`], globalSetup: '__test__/interfaces/setup.ts' } },
      { extends: true, test: { name: 'stores', include: [`${stores}/*.test.ts`], exclude: ['**/node_modules/**'] } },
    ],
  },
});
