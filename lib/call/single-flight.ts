// Of all who want the same value at the same time, one computes it; and what is written meanwhile is not undone by it.

import { invalid } from './input';

/** A computation that is under way. */
export interface Flight<About = undefined> {
  readonly about: About;
  /** Whether its key was written, deleted or cleared since it began: then it is older than that, and is not kept. */
  readonly overtaken: boolean;
  /** Calls the function of the caller's that computes. What that asks for at once, it waits for. */
  call<T>(compute: () => T): T;
}

interface InFlight<Value, About> extends Flight<About> {
  overtaken: boolean;
  landing: Promise<Value>;
  /** Those that wait for it. */
  within: readonly unknown[];
}

/** The computations under way: of each key, one for each `name`. */
export class SingleFlight<Value, About = undefined> {
  readonly #inFlight = new Map<string, Map<unknown, InFlight<Value, About>>>();
  /** Those whose function is being called right now, and those that wait for them. */
  #calling: readonly unknown[] = [];

  /** Who asks: nobody, or computations that call for it right now. To be read when a call is made. */
  get asking(): readonly unknown[] {
    return this.#calling;
  }

  /**
   * The one that is under way, if there is one that nothing has overtaken.
   * @throws `INVALID_ARGUMENT` to a computation that asks for itself: it would wait for ever.
   */
  joined(key: string, name: unknown, asking: readonly unknown[]): Promise<Value> | undefined {
    const flight = this.#inFlight.get(key)?.get(name);
    if (flight && asking.includes(flight)) throw invalid('A computation asks for what it computes itself: it would wait for ever');
    return flight?.landing;
  }

  /** How many keys have one under way. */
  get size(): number {
    return this.#inFlight.size;
  }

  /** Begins one, in place of what is under way for this name. `compute` is called at once. */
  begin(key: string, name: unknown, about: About, asking: readonly unknown[], compute: (flight: Flight<About>) => Promise<Value>): Promise<Value> {
    let start!: (landing: Promise<Value>) => void;
    // There before it is computed: a computation that asks for itself waits instead of beginning again and again.
    const landing = new Promise<Value>((resolve) => (start = resolve));
    const flight: InFlight<Value, About> = {
      about,
      overtaken: false,
      landing,
      within: asking,
      call: (compute) => {
        const before = this.#calling;
        this.#calling = [flight, ...flight.within, ...before];
        try {
          return compute();
        } finally {
          this.#calling = before;
        }
      },
    };
    let names = this.#inFlight.get(key);
    if (!names) this.#inFlight.set(key, (names = new Map()));
    names.set(name, flight);
    const leave = () => {
      if (names.get(name) === flight) names.delete(name);
      if (names.size === 0 && this.#inFlight.get(key) === names) this.#inFlight.delete(key);
    };
    start(compute(flight).finally(leave));
    return landing;
  }

  /**
   * A key was changed: whoever comes from now on does not get what was begun before. `by`: the name of what was begun
   * when the change was; what was begun after it is newer.
   */
  overtake(key: string, by?: unknown): void {
    const names = this.#inFlight.get(key);
    if (!names) return;
    for (const [name, flight] of names) {
      if (by !== undefined && name === by) break;
      flight.overtaken = true;
      names.delete(name);
    }
    if (names.size === 0) this.#inFlight.delete(key);
  }

  /** The same for all keys whose flights are about what `which` says. */
  overtakeAll(which: (about: About) => boolean = () => true): void {
    for (const [key, names] of this.#inFlight) {
      for (const [name, flight] of names) {
        if (!which(flight.about)) continue;
        flight.overtaken = true;
        names.delete(name);
      }
      if (names.size === 0) this.#inFlight.delete(key);
    }
  }

  /** Resolves when all that are under way now have ended, however. */
  settled(): Promise<unknown> {
    const all = [...this.#inFlight.values()].flatMap((names) => [...names.values()]);
    return Promise.allSettled(all.map(({ landing }) => landing));
  }
}
