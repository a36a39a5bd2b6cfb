// Which of many scores are the largest.

/** How many times more scores than are wanted make choosing faster than sorting all of them. */
const WORTH = 8;

/**
 * Where the `most` largest of `scores` are, largest first, equal ones in their order. Few of many are chosen without sorting all:
 * n · log(most) steps.
 */
export function largest(scores: ArrayLike<number>, most: number): Uint32Array {
  const count = Math.min(most, scores.length);
  // Of two, the one that comes first is negative. What is infinitely small equals its like.
  const order = (one: number, other: number) => (scores[one] === scores[other] ? one - other : scores[other]! - scores[one]!);
  if (count * WORTH > scores.length) return Uint32Array.from({ length: scores.length }, (_, at) => at).sort(order).subarray(0, count);
  // A heap of the best so far, whose root is the last of them.
  const heap = Uint32Array.from({ length: count }, (_, at) => at);
  const sink = (at: number) => {
    for (let below = 2 * at + 1; below < count; at = below, below = 2 * at + 1) {
      if (below + 1 < count && order(heap[below]!, heap[below + 1]!) < 0) below++;
      if (order(heap[at]!, heap[below]!) >= 0) return;
      [heap[at], heap[below]] = [heap[below]!, heap[at]!];
    }
  };
  for (let at = (count >> 1) - 1; at >= 0; at--) sink(at);
  for (let next = count; next < scores.length; next++) {
    if (order(next, heap[0]!) >= 0) continue;
    heap[0] = next;
    sink(0);
  }
  return heap.sort(order);
}
