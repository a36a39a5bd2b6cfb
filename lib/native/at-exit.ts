/** Work for the end of the process, in a place that all copies of this package share. */
const key = Symbol.for('embedcore:at-exit');

/**
 * Does `work`, which must not wait, when the process (or this thread) ends; until it is taken back with the function that
 * this gives. Node.js sees one listener, however much work there is and however often this package is loaded.
 */
export function atExit(work: () => void): () => void {
  const shared = process as unknown as Record<symbol, Set<() => void>>;
  let all = shared[key];
  if (!all) {
    const first = (all = new Set());
    Object.defineProperty(process, key, { value: first });
    process.on('exit', () => first.forEach((each) => each()));
  }
  const own = () => work();
  all.add(own);
  return () => void all.delete(own);
}
