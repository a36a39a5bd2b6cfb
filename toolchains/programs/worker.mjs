// The same in worker threads: several at once, one that is ended in the middle of a call, and the process itself.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

import * as embedcore from 'embedcore';

import { check, leaveWork, work } from './work.mjs';

const start = (way) => new Worker(new URL(import.meta.url), { workerData: way });
const ended = (worker) => new Promise((resolve, reject) => worker.on('error', reject).on('exit', resolve));

if (!isMainThread) {
  await work(embedcore, workerData);
  parentPort.postMessage('begun');
} else if (process.argv[2] === 'exit') {
  start('leave').on('message', () => process.exit(7));
} else {
  const codes = await Promise.all([start('check'), start('check')].map(ended));
  if (codes.some((code) => code !== 0)) throw new Error(`Workers ended with ${codes}`);
  for (let i = 0; i < 3; i++) {
    const worker = start('leave');
    await new Promise((resolve) => worker.on('message', resolve));
    await worker.terminate();
  }
  await check(embedcore);
}
