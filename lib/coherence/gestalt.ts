// How alike two texts are, by Ratcliff and Obershelp (1988): twice the length of what they have in common, by the length of
// both, where the longest common piece counts, and then what is left and right of it.

import { requireString } from '../call/input';

/** The longest texts that are compared by characters, and by words: the time grows with the product of the lengths. */
const BY_CHARACTERS = 500;
const BY_WORDS = 1000;

/** A piece of a text and what it counts. */
interface Pieces {
  ids: Uint32Array;
  lengths: Uint32Array;
}

/**
 * How alike two texts are, 0–1: 1 for equal ones, also for two that are empty. Exact by characters up to 500 of them; longer
 * texts are compared by words, up to 1000, and beyond that by which words they have, whatever their order.
 */
export function gestaltRatio(a: string, b: string): number {
  requireString('The first text', a);
  requireString('The second text', b);
  if (a === b) return 1;
  if (a === '' || b === '') return 0;
  if (a.length <= BY_CHARACTERS && b.length <= BY_CHARACTERS) return ratioOf(Array.from(a), Array.from(b));
  const [words, others] = [a.match(/\S+|\s+/gu) ?? [], b.match(/\S+|\s+/gu) ?? []];
  return words.length <= BY_WORDS && others.length <= BY_WORDS ? ratioOf(words, others) : overlap(words, others);
}

function ratioOf(a: readonly string[], b: readonly string[]): number {
  const ids = new Map<string, number>();
  const one = piecesOf(a, ids);
  const other = piecesOf(b, ids);
  return (2 * matching(one, other)) / (total(one) + total(other));
}

function piecesOf(pieces: readonly string[], ids: Map<string, number>): Pieces {
  const own = { ids: new Uint32Array(pieces.length), lengths: new Uint32Array(pieces.length) };
  for (let at = 0; at < pieces.length; at++) {
    const piece = pieces[at]!;
    let id = ids.get(piece);
    if (id === undefined) ids.set(piece, (id = ids.size));
    own.ids[at] = id;
    // A character is one, whatever it takes.
    own.lengths[at] = piece.length <= 2 ? 1 : piece.length;
  }
  return own;
}

function total({ lengths }: Pieces): number {
  let sum = 0;
  for (let at = 0; at < lengths.length; at++) sum += lengths[at]!;
  return sum;
}

/** What the pieces of two texts have in common, one after the other. */
function matching(a: Pieces, b: Pieces): number {
  let common = 0;
  const ranges: [number, number, number, number][] = [[0, a.ids.length, 0, b.ids.length]];
  // How many pieces before each place of the other text are those before a place of this one.
  const [before, here] = [new Uint32Array(b.ids.length + 1), new Uint32Array(b.ids.length + 1)];
  for (let range; (range = ranges.pop()); ) {
    const [from, to, otherFrom, otherTo] = range;
    const [at, otherAt, count] = longest(a.ids, b.ids, range, before, here);
    if (count === 0) continue;
    for (let i = at; i < at + count; i++) common += a.lengths[i]!;
    if (from < at && otherFrom < otherAt) ranges.push([from, at, otherFrom, otherAt]);
    if (at + count < to && otherAt + count < otherTo) ranges.push([at + count, to, otherAt + count, otherTo]);
  }
  return common;
}

/** The longest run that is in both ranges; of several, the first in the one text, then in the other. */
function longest(a: Uint32Array, b: Uint32Array, [from, to, otherFrom, otherTo]: readonly number[], before: Uint32Array, here: Uint32Array): [number, number, number] {
  let best: [number, number, number] = [from!, otherFrom!, 0];
  let length = 0;
  before.fill(0, otherFrom, otherTo! + 1);
  for (let i = from!; i < to!; i++) {
    const id = a[i]!;
    here[otherFrom!] = 0;
    for (let j = otherFrom!; j < otherTo!; j++) {
      const run = b[j] === id ? before[j]! + 1 : 0;
      here[j + 1] = run;
      if (run > length) {
        length = run;
        best = [i - run + 1, j - run + 1, run];
      }
    }
    [before, here] = [here, before];
  }
  return best;
}

/** The same, whatever the order of the words. */
function overlap(a: readonly string[], b: readonly string[]): number {
  const counts = new Map<string, number>();
  let [common, all] = [0, 0];
  for (const word of a) {
    counts.set(word, (counts.get(word) ?? 0) + 1);
    all += word.length;
  }
  for (const word of b) {
    all += word.length;
    const left = counts.get(word) ?? 0;
    if (left === 0) continue;
    counts.set(word, left - 1);
    common += word.length;
  }
  return (2 * common) / all;
}
