/** Computes for so many milliseconds. */
export default (ms) => {
  const until = performance.now() + ms;
  while (performance.now() < until);
  return ms;
};
