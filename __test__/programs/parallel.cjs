// Uses embedcore/parallel as the arguments say, and prints JSON: in a process of its own, for its limits and its end.
const { join } = require('node:path');

const { parallelMap, ParallelProcessor } = require('../../dist/parallel');

const module_ = join(__dirname, 'parallel-work.mjs');

const programs = {
  /** With a small heap, so that it is exhausted soon. */
  exhaust: () => parallelMap([1, 2], { module: module_, name: 'exhaust' }, { concurrency: 1, onError: 'collect' }),
  /** Ends although a pool with idle workers is open. */
  async idle() {
    const pools = [new ParallelProcessor({ concurrency: 2 }), new ParallelProcessor({ concurrency: 2, processes: true })];
    return Promise.all(pools.map((pool) => pool.map([1, 2], { module: module_ })));
  },
  /** Exits while a child process works, which must not stay behind. */
  async exit() {
    const [pid] = await parallelMap([0], { module: module_, name: 'pid' }, { processes: true });
    const pool = new ParallelProcessor({ concurrency: 1, processes: true });
    const [worker] = await pool.map([0], { module: module_, name: 'pid' });
    pool.map([600_000], { module: module_, name: 'spin' }).catch(() => {});
    setTimeout(() => process.exit(0), 200);
    return { pid, worker };
  },
};

programs[process.argv[2]]().then((result) => console.log(JSON.stringify(result)));
