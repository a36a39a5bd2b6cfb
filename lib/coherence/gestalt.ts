// How alike two texts are, by Ratcliff and Obershelp (1988): twice the length of what they have in common, by the length of
// both, where the longest common piece counts, and then what is left and right of it.

import { requireString } from '../call/input';

/** The longest texts that are compared by characters, and by words: the time grows with the pairs of equal ones. */
const BY_CHARACTERS = 500;
const BY_WORDS = 1000;

/** A piece of a text and what it counts. */
interface Pieces {
  ids: Uint32Array;
  lengths: Uint32Array;
}

/**
 * How alike two texts are, 0–1: 1 for equal ones, also for two that are empty. Exact by characters up to 500 of them; longer
 * texts are compared by words, up to 1000, and beyond that by which words they have, whatever their order; the space between
 * words does not count then.
 */
export function gestaltRatio(a: string, b: string): number {
  requireString('The first text', a);
  requireString('The second text', b);
  if (a === b) return 1;
  if (a === '' || b === '') return 0;
  // A character is one, whatever it takes.
  if (a.length <= BY_CHARACTERS && b.length <= BY_CHARACTERS) return ratioOf(Array.from(a), Array.from(b), () => 1);
  const [words, others] = [a.match(/\S+/gu) ?? [], b.match(/\S+/gu) ?? []];
  return words.length <= BY_WORDS && others.length <= BY_WORDS ? ratioOf(words, others, (word) => word.length) : overlap(words, others);
}

function ratioOf(a: readonly string[], b: readonly string[], lengthOf: (piece: string) => number): number {
  const ids = new Map<string, number>();
  const one = piecesOf(a, ids, lengthOf);
  const other = piecesOf(b, ids, lengthOf);
  return shareOf(matching(one, other), total(one) + total(other));
}

/** Twice what is common, by all; where there is nothing but space, they are alike. */
function shareOf(common: number, all: number): number {
  return all === 0 ? 1 : (2 * common) / all;
}

function piecesOf(pieces: readonly string[], ids: Map<string, number>, lengthOf: (piece: string) => number): Pieces {
  const own = { ids: new Uint32Array(pieces.length), lengths: new Uint32Array(pieces.length) };
  for (let at = 0; at < pieces.length; at++) {
    const piece = pieces[at]!;
    let id = ids.get(piece);
    if (id === undefined) ids.set(piece, (id = ids.size));
    own.ids[at] = id;
    own.lengths[at] = lengthOf(piece);
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
  const ranges: Range[] = [[0, a.ids.length, 0, b.ids.length]];
  const places = placesOf(b.ids);
  const runs = new Uint32Array(b.ids.length + 1);
  for (let range; (range = ranges.pop()); ) {
    const [from, to, otherFrom, otherTo] = range;
    const [at, otherAt, count] = longest(a.ids, places, range, runs);
    if (count === 0) continue;
    for (let i = at; i < at + count; i++) common += a.lengths[i]!;
    if (from < at && otherFrom < otherAt) ranges.push([from, at, otherFrom, otherAt]);
    if (at + count < to && otherAt + count < otherTo) ranges.push([at + count, to, otherAt + count, otherTo]);
  }
  return common;
}

/** A part of the one text, and of the other. */
type Range = [from: number, to: number, otherFrom: number, otherTo: number];

/** Where each piece is, by its number: the last place first. */
function placesOf(ids: Uint32Array): number[][] {
  const places: number[][] = [];
  for (let at = ids.length - 1; at >= 0; at--) (places[ids[at]!] ??= []).push(at);
  return places;
}

/**
 * The longest run that is in both ranges; of several, the first in the one text, then in the other. It takes as long as there are
 * pairs of equal pieces. `runs` is all 0: while it works, how many pieces before each place of the other text are those before a
 * place of this one.
 */
function longest(a: Uint32Array, places: number[][], [from, to, otherFrom, otherTo]: Range, runs: Uint32Array): [number, number, number] {
  let best: [number, number, number] = [from, otherFrom, 0];
  const clear = (id: number) => {
    for (const j of places[id] ?? []) runs[j + 1] = 0;
  };
  for (let i = from; i < to; i++) {
    const id = a[i]!;
    // From the last place to the first, what is read was not yet overwritten.
    for (const j of places[id] ?? []) {
      if (j >= otherTo) continue;
      if (j < otherFrom) break;
      const run = runs[j]! + 1;
      runs[j + 1] = run;
      // Of equal runs that end at one place, that counts which comes first in the other text.
      if (run > best[2] || (run === best[2] && i - run + 1 === best[0])) best = [i - run + 1, j - run + 1, run];
    }
    if (i > from && a[i - 1] !== id) clear(a[i - 1]!);
  }
  clear(a[to - 1]!);
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
  return shareOf(common, all);
}
