// Functions of a module for worker threads and processes of embedcore/parallel.
export default (n, index) => [n * 2, index];

export async function wait(ms) {
  await new Promise((resolve) => setTimeout(resolve, ms));
  return ms;
}

/** Keeps its processor busy, and never waits. */
export function spin(ms) {
  const until = performance.now() + ms;
  while (performance.now() < until);
  return ms;
}

export function fail(n) {
  throw Object.assign(new RangeError(`bad ${n}`, { cause: new TypeError('why') }), { code: 'E_BAD' });
}

export function throwUndefined() {
  throw undefined;
}

export function exit(n) {
  if (n === 1) process.exit(3);
  return n;
}

/** Ends its process as the system does that has no memory left. */
export async function kill(n) {
  if (n === 1) process.kill(process.pid, 'SIGKILL');
  await new Promise((resolve) => setTimeout(resolve, n === 1 ? 60_000 : 0));
  return n;
}

export function exhaust() {
  for (const held = []; ; ) held.push(new Array(1e6).fill(Math.random()));
}

export const unsendable = () => () => 1;

/** A big array of its own, and whether the one that came is as long. */
export function double(array) {
  return array.map((value) => value * 2);
}

export const sum = (...numbers) => numbers.reduce((a, b) => a + b);

export const thread = async () => (await import('node:worker_threads')).threadId;

export const pid = () => process.pid;

export const same = (item) => item;

export const sizeOf = (item) => [item.byteLength, item.buffer?.byteLength ?? null];

/** Another buffer that every caller gets, so that it can be moved once. */
const own = new Uint8Array(8);
export const shared = () => own;

export const sharedMemory = (n) => (n === 1 ? new SharedArrayBuffer(8) : n);
