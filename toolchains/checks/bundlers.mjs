// Bundles that leave embedcore outside, which is what bundlers should do with native addons; and one that takes its
// JavaScript in, with the native part and the built-in model copied beside it.
import { cpSync, existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

export default ({ made, node, project, tool, works, ends }) => {
  const imported = (...path) => import(pathToFileURL(tool(...path)).href);

  /** A bundle runs as the program that it is made of. */
  const bundled = (name, folder, make) => [
    name,
    async () => {
      const cwd = made(folder);
      await make(cwd);
      // Not by accident from its sources.
      rmSync(join(cwd, 'work.mjs'));
      const output = readdirSync(join(cwd, 'out')).find((file) => /^main\.[cm]?js$/.test(file));
      await works(node, [join('out', output)], { cwd });
    },
  ];

  const esbuild = (format, extension, more = {}) => async (cwd) => {
    const { build } = await imported('esbuild', 'lib', 'main.js');
    const { warnings } = await build({
      entryPoints: [join(cwd, format === 'cjs' ? 'main.cjs' : 'main.mts')],
      outfile: join(cwd, 'out', `main.${extension}`),
      bundle: true,
      platform: 'node',
      target: 'node20',
      format,
      external: ['embedcore'],
      logLevel: 'silent',
      ...more,
    });
    if (warnings.length > 0) throw new Error(`esbuild warns: ${JSON.stringify(warnings)}`);
  };

  return [
    bundled('esbuild, ES module', 'esbuild-esm', esbuild('esm', 'mjs')),
    bundled('esbuild, CommonJS', 'esbuild-cjs', esbuild('cjs', 'cjs')),
    bundled('esbuild, all in one, native part copied', 'esbuild-copied', async (cwd) => {
      await esbuild('cjs', 'cjs', { external: ['@opentelemetry/api'] })(cwd);
      const modules = join(project, 'node_modules');
      const platform = readdirSync(modules).find((name) => name.startsWith('embedcore-'));
      cpSync(join(modules, platform), join(cwd, 'npm', platform.slice('embedcore-'.length)), { recursive: true });
      cpSync(join(modules, 'embedcore', 'models'), join(cwd, 'models'), { recursive: true });
    }),
    bundled('Rollup', 'rollup', async (cwd) => {
      const { rollup } = await imported('rollup', 'dist', 'rollup.js');
      const bundle = await rollup({ input: join(cwd, 'named.mjs'), external: ['embedcore', /^node:/] });
      await bundle.write({ file: join(cwd, 'out', 'main.mjs'), format: 'es' });
      await bundle.close();
    }),
    bundled('Vite, SSR build', 'vite-build', async (cwd) => {
      const { build } = await imported('vite', 'dist', 'node', 'index.js');
      await build({ root: cwd, configFile: false, logLevel: 'error', build: { ssr: 'main.mts', outDir: 'out', target: 'node20', rolldownOptions: { output: { entryFileNames: 'main.mjs' } } } });
    }),
    [
      'Vite, SSR in development',
      async () => {
        const cwd = made('vite-dev', {
          'server.mjs': `
            import { createServer } from ${JSON.stringify(pathToFileURL(tool('vite', 'dist', 'node', 'index.js')).href)};
            const server = await createServer({ root: import.meta.dirname, configFile: false, logLevel: 'warn', appType: 'custom', server: { middlewareMode: true, ws: false, hmr: false, watch: null } });
            process.argv[2] = 'check';
            await server.ssrLoadModule('/main.mts');
            await server.close();`,
        });
        const { out, err } = await ends(0, node, ['server.mjs'], { cwd });
        if (out + err) throw new Error(`Something was printed: ${out}${err}`);
      },
    ],
    bundled('webpack', 'webpack', async (cwd) => {
      const { default: webpack } = await imported('webpack', 'lib', 'index.js');
      await new Promise((resolve, reject) => {
        const compiler = webpack({
          mode: 'production',
          target: 'node20',
          context: cwd,
          entry: './named.mjs',
          output: { path: join(cwd, 'out'), filename: 'main.cjs', chunkFormat: 'commonjs' },
          externals: { embedcore: 'commonjs embedcore' },
        });
        compiler.run((error, stats) => {
          const wrong = error ?? (stats.hasErrors() || stats.hasWarnings() ? new Error(stats.toString()) : undefined);
          compiler.close(() => (wrong ? reject(wrong) : resolve()));
        });
      });
    }),
    bundled('Bun, bundled', 'bun-build', async (cwd) => {
      const bun = tool('@oven', `bun-${process.platform}-${process.arch}`, 'bin', 'bun');
      await ends(0, bun, ['build', 'main.mts', '--target', 'node', '--external', 'embedcore', '--outfile', 'out/main.mjs'], { cwd });
      if (!existsSync(join(cwd, 'out'))) throw new Error('Bun has written nothing');
    }),
  ];
};
