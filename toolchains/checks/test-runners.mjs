// node:test, and Vitest and Jest in all their pools, with mocks of the whole package, of its functions and of its methods.
import { join } from 'node:path';

export default ({ ends, made, node, tool, shown }) => {
  const vitest = () => tool('vitest', 'vitest.mjs');
  const jest = () => tool('jest', 'bin', 'jest.js');

  /** A run whose tests pass, which ends by itself, and which has nothing to complain about. */
  async function passes(args, options, expected) {
    const { out, err, ...rest } = await ends(0, node, args, options);
    const complaint = /did not exit|failed to exit|force exited|leak|open handle|timed out|warning|unhandled|close timed/i.exec(out + err);
    if (complaint) throw new Error(`It says ${JSON.stringify(complaint[0])}:\n${shown({ out, err, ...rest })}`);
    if (!expected.test(out + err)) throw new Error(`Other tests ran than expected:\n${shown({ out, err, ...rest })}`);
  }

  const pools = ['threads', 'forks', 'vmThreads', 'vmForks'].map((pool) => [
    `Vitest, ${pool}`,
    () => {
      const cwd = made('vitest');
      const args = [vitest(), 'run', '--pool', pool, '--maxWorkers', '2', '--reporter', 'dot', '--no-cache', '--root', cwd];
      return passes(args, { cwd }, /Tests\s+14 passed/);
    },
  ]);

  /** Jest without a cache that an earlier run left. */
  const jests = (name, config, extra = [], env = {}, tests = 14) => [
    name,
    () => {
      const cwd = made('jest', { [`${config}.json`]: JSON.stringify(configs[config], (_, value) => (value === 'TS_JEST' ? tool('ts-jest', 'dist', 'index.js') : value)) });
      const args = [jest(), '-c', `${config}.json`, '--no-cache', ...(extra.includes('-i') ? [] : ['-w', '2']), ...extra];
      return passes(args, { cwd, env }, new RegExp(`Tests:\\s+${tests} passed`));
    },
  ];

  const common = { rootDir: '.', testEnvironment: 'node', transform: {}, haste: { enableSymlinks: false }, modulePathIgnorePatterns: [] };
  const configs = {
    commonjs: { ...common, testMatch: ['<rootDir>/*.test.cjs'], moduleFileExtensions: ['cjs', 'mjs', 'js', 'json', 'node'] },
    modules: { ...common, testMatch: ['<rootDir>/*.test.mjs'], moduleFileExtensions: ['mjs', 'cjs', 'js', 'json', 'node'] },
    typescript: {
      ...common,
      testMatch: ['<rootDir>/*.test.ts'],
      transform: { '\\.ts$': ['TS_JEST', { tsconfig: 'tsconfig.json' }] },
      moduleFileExtensions: ['ts', 'js', 'json', 'node'],
    },
  };

  return [
    ['node:test', () => passes(['--test', '--test-reporter', 'tap'], { cwd: made('node-test') }, /# pass 3\n/)],
    ...pools,
    jests('Jest, CommonJS', 'commonjs'),
    jests('Jest, CommonJS, in one process', 'commonjs', ['-i']),
    jests('Jest, CommonJS, --workerThreads', 'commonjs', ['--workerThreads']),
    jests('Jest, ES modules', 'modules', [], { NODE_OPTIONS: '--experimental-vm-modules --no-warnings' }, 4),
    jests('Jest, ts-jest', 'typescript', [], {}, 3),
  ];
};
