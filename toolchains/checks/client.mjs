// A client's own project, whose four files are replaced by embedcore: only the paths of its imports change.
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export default ({ ends, made, node, root, tool }) => [
  [
    "A client's own classes replaced",
    async () => {
      const compilerOptions = {
        target: 'es2022', lib: ['es2022'], types: ['node'], module: 'esnext', moduleResolution: 'bundler',
        strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, skipLibCheck: true, noEmit: true,
      };
      const cwd = made('client', { 'tsconfig.json': { compilerOptions, files: ['search.ts', 'search.test.ts'] } });
      cpSync(join(root, '__test__', 'client'), cwd, { recursive: true });
      const tries = async () => {
        await ends(0, node, [tool('typescript', 'lib', 'tsc.js'), '-p', cwd], { cwd });
        return ends(0, node, [tool('vitest', 'vitest.mjs'), 'run', '--reporter', 'dot', '--no-cache', '--root', cwd], { cwd });
      };
      await tries();
      rmSync(join(cwd, 'own'), { recursive: true });
      for (const file of ['search.ts', 'search.test.ts']) {
        const text = readFileSync(join(cwd, file), 'utf8');
        writeFileSync(join(cwd, file), text.replace(/from '\.\/own\/\w+'/g, "from 'embedcore'"));
      }
      const { out } = await tries();
      if (!/Tests\s+9 passed/.test(out)) throw new Error(`Other tests ran than expected:\n${out}`);
    },
  ],
];
