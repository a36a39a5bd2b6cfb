// The same in children: forked ones, and the workers of a cluster.
import { fork } from 'node:child_process';
import cluster from 'node:cluster';
import { fileURLToPath } from 'node:url';

import * as embedcore from 'embedcore';

import { work } from './work.mjs';

const ended = (child) => new Promise((resolve) => child.on('exit', (code, signal) => resolve(signal ?? code)));

if (process.argv[3] === 'child' || cluster.isWorker) {
  await work(embedcore);
  if (cluster.isWorker) cluster.worker.disconnect();
} else {
  const way = process.argv[2] ?? 'check';
  const self = fileURLToPath(import.meta.url);
  const forked = [1, 2].map(() => ended(fork(self, [way, 'child'])));
  const clustered = [1, 2].map(() => ended(cluster.fork().process));
  const codes = await Promise.all([...forked, ...clustered]);
  const expected = way === 'exit' ? 7 : 0;
  if (codes.some((code) => code !== expected)) throw new Error(`Children ended with ${codes}`);
  process.exitCode = expected;
}
