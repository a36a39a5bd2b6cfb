import { fileURLToPath } from 'node:url';

import { defineConfig } from 'vitest/config';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  resolve: { alias: { embedcore: here('./dist/index.js') } },
  test: {
    include: ['__test__/**/*.test.ts'],
    // Loaded by Node.js itself, as users load it.
    server: { deps: { external: [/\/dist\//] } },
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Every file loads models of its own: two at a time are enough for two cores.
    maxWorkers: 2,
  },
});
