// Other package managers, which lay node_modules out in other ways, or have none.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export default ({ ends, made, node, tarballs, tool, works }) => {
  const { optionalDependencies } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  /** The packages of other platforms, which Yarn wants to know though it installs none: before a release there are none. */
  const absent = Object.keys(optionalDependencies).filter((name) => !(name in tarballs));
  /** Everything from the tarballs, whatever the packages say of each other. */
  const packed = Object.fromEntries(Object.entries(tarballs).map(([name, path]) => [name, `file:${path}`]));
  const manifest = (name, more) => ({ name, private: true, version: '1.0.0', dependencies: { embedcore: packed.embedcore }, ...more });
  const home = (cwd) => ({ HOME: join(cwd, 'home'), XDG_DATA_HOME: join(cwd, 'home', 'data'), XDG_CACHE_HOME: join(cwd, 'home', 'cache') });

  const yarn = (cwd, linker) => {
    writeFileSync(
      join(cwd, '.yarnrc.yml'),
      `nodeLinker: ${linker}\nenableTelemetry: false\nenableGlobalCache: false\nenableImmutableInstalls: false\nenableScripts: false\n`,
    );
    mkdirSync(join(cwd, 'absent'));
    const resolutions = { ...packed, ...Object.fromEntries(absent.map((name) => [name, 'link:./absent'])) };
    writeFileSync(join(cwd, 'yarn.lock'), '');
    writeFileSync(join(cwd, 'package.json'), JSON.stringify(manifest(`yarn-${linker}`, { resolutions })));
    return ends(0, node, [tool('@yarnpkg', 'cli-dist', 'bin', 'yarn.js'), 'install'], { cwd, env: home(cwd) });
  };

  return [
    [
      'pnpm',
      async () => {
        const cwd = made('pnpm', { 'package.json': manifest('with-pnpm', { dependencies: packed }) });
        const overrides = Object.entries(packed).map(([name, path]) => `  ${JSON.stringify(name)}: ${JSON.stringify(path)}\n`);
        writeFileSync(join(cwd, 'pnpm-workspace.yaml'), `packages: ['.']\noverrides:\n${overrides.join('')}`);
        const pnpm = tool('pnpm', 'bin', 'pnpm.mjs');
        await ends(0, node, [pnpm, 'install', '--ignore-scripts', '--no-frozen-lockfile', '--store-dir', join(cwd, 'store')], { cwd, env: home(cwd) });
        await works(node, ['named.mjs'], { cwd });
      },
    ],
    [
      'Yarn, node_modules',
      async () => {
        const cwd = made('yarn-modules');
        await yarn(cwd, 'node-modules');
        await works(node, ['named.mjs'], { cwd });
      },
    ],
    [
      "Yarn, Plug'n'Play",
      async () => {
        const cwd = made('yarn-pnp');
        await yarn(cwd, 'pnp');
        // Without node_modules above it either: only what Plug'n'Play gives.
        rmSync(join(cwd, 'node_modules'), { recursive: true, force: true });
        await works(node, ['--require', './.pnp.cjs', 'main.cjs'], { cwd });
      },
    ],
  ];
};
