// What a cache on a shared file may answer. Who writes, and when a file knows of it, is known only within bounds: an answer
// is right if some order of the writes that agrees with all that is known gives it.

/** How long after a file knows of a write nobody answers what was there before. */
const SEEN_MS = 250;

/** A value, or that there is none, and what is known of when it came. Times are of one clock. */
export interface Write {
  readonly by: Instance;
  /** Its place among all calls of that instance. */
  readonly order: number;
  /** `null`: deleted, or never there. */
  readonly id: number | null;
  readonly content: string;
  readonly begun: number;
  /** From when its own instance answers with it. */
  own: number;
  /** Until when it was computed; `undefined`: it was set. */
  computed: number | undefined;
  /** By when the file has it; `Infinity` while nobody knows. */
  landed: number;
  /** By when the file has it, or never will. */
  settled: number;
  /** Who has met it, and since when. */
  readonly seen: Map<Instance, number>;
}

/** An open cache: of one process, from its opening to its end. */
export class Instance {
  readonly forgotten = new Set<Write>();
  calls = 0;
  /** How often the file could not be used, as it was told last. */
  errors = 0;

  constructor(readonly opened: number) {}
}

/** Of what is computed at the same time, any one is kept. */
const before = (one: Write, other: Write) =>
  one.by !== other.by ? one.settled < other.begun : one.order < other.order && (other.computed === undefined || one.computed === undefined || one.computed < other.begun);

/** All writes of a file since it was begun. */
export class History {
  readonly #keys = new Map<string, Write[]>();
  /** Whether what was written may be lost: the file was damaged. */
  lossy = false;

  of(key: string): Write[] {
    let writes = this.#keys.get(key);
    if (!writes) {
      const never = { by: new Instance(-Infinity), order: 0, id: null, content: '', begun: -Infinity, own: Infinity, computed: undefined, landed: -Infinity, settled: -Infinity };
      this.#keys.set(key, (writes = [{ ...never, seen: new Map() }]));
    }
    return writes;
  }

  /** `computed`: from when on it is there, and whether at all, is known when it is over. */
  write(by: Instance, order: number, key: string, id: number | null, content: string, now: number, computed = false): Write {
    const write = { by, order, id, content, begun: now, own: computed ? Infinity : now, computed: computed ? Infinity : undefined, landed: Infinity, settled: Infinity, seen: new Map<Instance, number>() };
    this.of(key).push(write);
    return write;
  }

  /** Everything that an instance had before a call, made at `from`, is in the file. */
  landed(by: Instance, order: number, from: number, now: number): void {
    for (const one of this.#by(by)) {
      if (one.order < order && one.own <= from && one.settled === Infinity) one.landed = one.settled = now;
    }
  }

  /** An instance is gone: what is not in the file by now never will be. */
  ended(by: Instance, now: number): void {
    for (const one of this.#by(by)) one.settled = Math.min(one.settled, now);
  }

  #by(by: Instance): Write[] {
    return [...this.#keys.values()].flat().filter((one) => one.by === by);
  }

  /** What a call may find that was made at `from` and over at `to`: in the file, or for the instance that asks. */
  possible(key: string, asks: Instance, order: number, from: number, to: number, where: 'file' | 'instance'): Write[] {
    const patience = where === 'file' ? 0 : SEEN_MS;
    const begun = this.of(key).filter((one) => (one.by === asks ? one.order < order : one.begun <= to));
    const known = begun.filter((one) =>
      (one.by === asks && one.own <= from) || one.landed + patience <= from || one.landed <= asks.opened || one.seen.get(asks)! <= from);
    return begun.filter((one) => !known.some((newer) => before(one, newer)));
  }

  /** Whether a lookup may answer this; it is seen then. */
  allows(id: number | null, key: string, content: string, asks: Instance, order: number, from: number, to: number): boolean {
    const possible = this.possible(key, asks, order, from, to, 'instance');
    const nothing = (one: Write) => one.id === null || one.content !== content || asks.forgotten.has(one);
    if (id === null) return this.lossy || possible.some(nothing);
    const found = possible.find((one) => one.id === id && one.content === content);
    if (found) this.seen(found, asks, to);
    return found !== undefined;
  }

  seen(write: Write, by: Instance, now: number): void {
    write.seen.set(by, Math.min(now, write.seen.get(by) ?? Infinity));
  }

  /** An instance asks with this content: what it meets of others may be no answer for it any more. */
  forget(key: string, content: string, asks: Instance): void {
    for (const one of this.of(key)) if (one.content !== content) asks.forgotten.add(one);
  }

  /**
   * How many of these keys there are in the file, at least and at most. What is queued when another instance has written something
   * newer never gets there: that may be older than a deletion, and its replacement newer.
   */
  count(keys: readonly string[], asks: Instance, order: number, from: number, to: number): [least: number, most: number] {
    const all = keys.map((key) => this.possible(key, asks, order, from, to, 'file'));
    const sure = all.filter((one) => one.every(({ id, by }) => id !== null && by === one[0]!.by)).length;
    return [this.lossy ? 0 : sure, all.filter((one) => one.some(({ id }) => id !== null)).length];
  }
}
