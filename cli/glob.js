// Patterns for paths: `**/*.{md,mdx}`, compared in time proportional to pattern × path, whatever they hold.
'use strict';

/** A file or directory that no wildcard means: a hidden one, and packages that others wrote. */
const PASSED_OVER = /^(?:\.|node_modules(?:\/|$))/;

/**
 * A pattern as a machine of states, each of which leads on to others: a character that is read, a choice, or the condition that
 * what begins here is not passed over. The last one is the end.
 */
class Glob {
  #states = [];
  #first;

  /** @throws {RangeError} for a range that ends before it begins. */
  constructor(pattern) {
    this.#first = this.#compile(parts([...pattern]), this.#add({ end: true }));
  }

  /** Whether it means this path. */
  means(path) {
    return this.#run(path, ({ end }) => end);
  }

  /** Whether it may mean anything below this directory. */
  mayMeanBelow(directory) {
    return this.#run(`${directory}/`, () => true);
  }

  #add(state) {
    this.#states.push(state);
    return this.#states.length - 1;
  }

  /** From the last part to the first: each knows what comes after it. */
  #compile(list, after) {
    return list.reduceRight((next, part) => this.#part(part, next), after);
  }

  #part(part, next) {
    if (part.choices) return this.#add({ to: part.choices.map((choice) => this.#compile(choice, next)) });
    if (part.one) return this.#add({ reads: part.one, to: [next] });
    const notSlash = (character) => character !== '/';
    if (part.any) return this.#add({ visible: true, to: [this.#add({ reads: notSlash, to: [next] })] });
    const loop = (to, reads = notSlash) => {
      const again = this.#add({ to: [] });
      const read = this.#add({ reads, to: [again] });
      this.#states[again].to = [read, ...to];
      return again;
    };
    if (part.run) return this.#add({ visible: true, to: [loop([next])] });
    // Directories, then, at the end of a pattern, a name.
    const choice = this.#add({ to: [] });
    const slash = this.#add({ reads: (character) => character === '/', to: [choice] });
    const directory = this.#add({ visible: true, to: [this.#add({ reads: notSlash, to: [loop([slash])] })] });
    const name = () => this.#add({ visible: true, to: [this.#add({ reads: notSlash, to: [loop([next])] })] });
    this.#states[choice].to = [directory, part.last ? name() : next];
    return choice;
  }

  #run(path, done) {
    let current = new Set();
    let begins = true;
    let visible = true;
    const enter = (to) => {
      // Without recursion: patterns may be as long as they like.
      const open = [...to];
      while (open.length > 0) {
        const at = open.pop();
        if (current.has(at) || (this.#states[at].visible && begins && !visible)) continue;
        current.add(at);
        if (!this.#states[at].reads) for (const next of this.#states[at].to ?? []) open.push(next);
      }
    };
    visible = !PASSED_OVER.test(path);
    enter([this.#first]);
    let place = 0;
    for (const character of path) {
      place += character.length;
      begins = character === '/';
      if (begins) visible = !PASSED_OVER.test(path.slice(place, place + 'node_modules/'.length));
      const before = current;
      current = new Set();
      for (const at of before) {
        const { reads, to } = this.#states[at];
        if (reads?.(character)) enter(to);
      }
      if (current.size === 0) return false;
    }
    return [...current].some((at) => done(this.#states[at]));
  }
}

/** What a pattern is made of: characters, wildcards, and choices between patterns. */
function parts(pattern) {
  const lists = [[]];
  /** Braces that are open: the choices so far, and where each begins. */
  const open = [];
  const { sets, closed } = closing(pattern);
  for (let at = 0; at < pattern.length; at++) {
    const character = pattern[at];
    const list = lists[lists.length - 1];
    if (character === '\\' && at + 1 < pattern.length) list.push(literal(pattern[++at]));
    else if (character === '?') list.push({ any: true });
    else if (character === '*') {
      const from = at;
      while (pattern[at + 1] === '*') at++;
      const whole = at - from === 1 && (from === 0 || '/{,'.includes(pattern[from - 1])) && [undefined, '/', '}', ','].includes(pattern[at + 1]);
      if (!whole) list.push({ run: true });
      else if (pattern[at + 1] === '/') {
        list.push({ deep: true });
        at++;
      } else list.push({ deep: true, last: true });
    } else if (character === '[') {
      const set = sets.get(at);
      list.push(set ? { one: set.one } : literal('['));
      if (set) at = set.last;
    } else if (character === '{' && closed.has(at)) {
      open.push([]);
      lists.push([]);
    } else if (character === ',' && open.length > 0) {
      open[open.length - 1].push(lists.pop());
      lists.push([]);
    } else if (character === '}' && open.length > 0) {
      const choices = [...open.pop(), lists.pop()];
      lists[lists.length - 1].push({ choices });
    } else list.push(literal(character));
  }
  return lists[0];
}

const literal = (expected) => ({ one: (character) => character === expected });

/** The sets, and where braces open that are closed again. */
function closing(pattern) {
  const [open, closed, sets] = [[], new Set(), new Map()];
  let ended = false;
  for (let at = 0; at < pattern.length; at++) {
    if (pattern[at] === '\\') at++;
    else if (pattern[at] === '[' && !ended) {
      const set = setOf(pattern, at);
      // Where one is not closed, none after it is.
      if (set) sets.set(at, set);
      else ended = true;
      at = set?.last ?? at;
    } else if (pattern[at] === '{') open.push(at);
    else if (pattern[at] === '}' && open.length > 0) closed.add(open.pop());
  }
  return { sets, closed };
}

/** The set that begins there, `[a-z_]` or `[!a-z]`, and where it ends; nothing where it does not. */
function setOf(pattern, from) {
  let at = from + 1;
  const not = pattern[at] === '!' || pattern[at] === '^';
  if (not) at++;
  const ranges = [];
  for (let first = true; at < pattern.length; first = false) {
    if (pattern[at] === ']' && !first) {
      const within = (point) => ranges.some(([low, high]) => point >= low && point <= high);
      return { one: (character) => character !== '/' && within(character.codePointAt(0)) !== not, last: at };
    }
    const one = () => {
      if (pattern[at] === '\\' && at + 1 < pattern.length) at++;
      return pattern[at++].codePointAt(0);
    };
    const low = one();
    let high = low;
    if (pattern[at] === '-' && at + 1 < pattern.length && pattern[at + 1] !== ']') {
      at++;
      high = one();
    }
    if (high < low) throw new RangeError('a range ends before it begins');
    ranges.push([low, high]);
  }
  return undefined;
}

module.exports = { Glob };
