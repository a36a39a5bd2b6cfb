// How options are read: once, when the call is made, and everywhere in the same way. `undefined` is left out; what is
// inherited or computed by a class counts like what an object has itself; what nobody knows is refused.

import { types } from 'node:util';

import { EmbeddingError, messageOf } from './errors';
import { isArray, show } from './input';

/** Reads one option; `path` is its name for messages. */
type Read = (value: unknown, path: string) => unknown;

/** Every option once, held to the interface by the compiler: `true`, or what reads those that are no plain value. */
export type Names<Options> = { readonly [Name in keyof Options]-?: true | Read };

/** The options that were given. */
export type Given<Options> = { [Name in keyof Options]?: Exclude<Options[Name], undefined> };

/** Reads options; `path` is the option that they are given as, if any. */
export type OptionReader<Options> = (options: unknown, path?: string) => Given<Options>;

type Class = abstract new (...args: never[]) => unknown;

/** An error about an option. */
export function refused(option: string, reason: string, cause?: unknown): EmbeddingError {
  const options = { details: { option }, ...(cause !== undefined && { cause }) };
  return new EmbeddingError('INVALID_CONFIG', `Invalid option \`${option}\`: ${reason}`, options);
}

/** Makes a reader of all options of an interface. */
export function optionReader<Options extends object>(names: Names<Options>): OptionReader<Options> {
  const readers = Object.entries(names) as [string, true | Read][];
  const known = new Set(Object.keys(names));
  return (options, path) => {
    const at = (name: string) => (path === undefined ? name : `${path}.${name}`);
    for (const name of othersIn(options, path, known)) {
      if (read(options as object, name, at(name)) !== undefined) throw refused(at(name), unknownOption(name, [...known]));
    }
    const given = Object.create(OPTIONS) as Record<string, unknown>;
    for (const [name, reader] of readers) {
      const value = read(options as object, name, at(name));
      if (value === undefined) continue;
      given[name] = reader !== true ? reader(value, at(name)) : isArray(value) ? copyOf(value, at(name)) : value;
    }
    return given as Given<Options>;
  };
}

/** Reads a value that is copied elsewhere, or not at all. */
export const untouched: Read = (value) => value;

/** Reads an array of which each element is `element`. What is no array is left to whoever wants one. */
export function listOf(element: Read): Read {
  return (value, path) => (isArray(value) ? copyOf(value, path).map((each, at) => element(each, `${path}[${at}]`)) : value);
}

/** Reads an object whose names are the caller's own; without a `path`, that is all of the options. */
export function record(value: unknown, path?: string): Record<string, unknown> {
  const given = Object.create(OPTIONS) as Record<string, unknown>;
  for (const name of othersIn(value, path, new Set())) {
    const each = read(value as object, name, path === undefined ? name : `${path}.${name}`);
    if (each !== undefined) Object.defineProperty(given, name, { value: each, enumerable: true });
  }
  return given;
}

/** Reads an instance of a class of this copy of the package, its options, or `true` or `false`. */
export function instanceOr(type: Class, options: Read): Read {
  return (value, path) => {
    if (typeof value === 'boolean' || isInstance(value, type, path)) return value;
    const foreign = guarded(path, () => (value as object | null)?.constructor?.name === type.name);
    if (foreign) throw refused(path, `${show(value)} of another copy of this package cannot be used here: make it with the same import`);
    return options(value, path);
  };
}

export function isInstance(value: unknown, type: Class, path: string): boolean {
  return guarded(path, () => value instanceof type);
}

/** One property of what the caller has given; `path` names it, should reading it throw. */
export function read(from: object, name: string, path: string): unknown {
  return guarded(path, () => (from as Record<string, unknown>)[name]);
}

/** Runs what may run the caller's code, about an option. */
function guarded<T>(path: string | undefined, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    const reason = `reading it threw: ${messageOf(cause)}`;
    if (path !== undefined) throw refused(path, reason, cause);
    throw new EmbeddingError('INVALID_CONFIG', `The options cannot be read: ${reason}`, { cause });
  }
}

/** Runs `work`, and calls an option that it refuses as the caller of this call knows it. */
export function naming<T>(name: (option: string) => string, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    const option = thrown instanceof EmbeddingError && thrown.code === 'INVALID_CONFIG' ? thrown.details.option : undefined;
    if (typeof option !== 'string') throw thrown;
    const reason = (thrown as EmbeddingError).message.replace(`Invalid option \`${option}\`: `, '');
    throw refused(name(option), reason, (thrown as EmbeddingError).cause);
  }
}

/** Options as they cross to the native side, where what JSON does not know is refused by name and as what it is. */
export function crossing(given: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, cross(value)]));
}

function cross(value: unknown): unknown {
  if (isArray(value)) return value.map(cross);
  if (typeof value === 'object' && value !== null && isGiven(value)) return crossing(value);
  // What is no whole string would be another one on the other side.
  const crosses = typeof value === 'string' ? !/\p{Surrogate}/u.test(value) : typeof value === 'boolean' || Number.isFinite(value) || value === null;
  return crosses ? value : { unlike: show(value) };
}

/** Why a name is refused, with all that there are. */
export function unknownOption(name: string, known: readonly string[]): string {
  const near = nearest(name, known);
  return `there is no such option; ${near === undefined ? '' : `did you mean \`${near}\`? `}known are ${known.join(', ')}`;
}

/** Marks what a reader has made. */
const OPTIONS: object = Object.freeze(Object.create(null) as object);

/** Whether a reader has made it. A proxy may not say. */
function isGiven(value: object): boolean {
  return !types.isProxy(value) && Object.getPrototypeOf(value) === OPTIONS;
}

/** Kinds of objects that are never options, whatever they have. */
const KINDS: ((value: unknown) => boolean)[] = [
  Array.isArray, ArrayBuffer.isView, types.isAnyArrayBuffer, types.isBoxedPrimitive, types.isDate, types.isGeneratorObject,
  types.isMap, types.isNativeError, types.isPromise, types.isRegExp, types.isSet, types.isWeakMap, types.isWeakSet,
];

/** Names of what the options have beside `known`. Refuses what is no object of options. */
function othersIn(options: unknown, path: string | undefined, known: ReadonlySet<string>): string[] {
  const others = guarded(path, () => (typeof options === 'object' && options !== null ? namesBeside(options, known) : undefined));
  if (others) return others;
  if (path === undefined) throw new EmbeddingError('INVALID_CONFIG', `The options are ${show(options)}, not an object of options`);
  throw refused(path, `${show(options)} is not an object of options`);
}

/**
 * What an object has, also what it inherits or a class computes, each read once; `undefined` of what is no object of names and
 * values. `methods`: those of a class that does other things as well count, too.
 */
export function members(value: object, path: string, methods = false): [name: string, value: unknown][] | undefined {
  const names = guarded(path, () => membersBeside(value, new Set(), methods));
  return names && [...new Set(names)].map((name) => [name, read(value, name, `${path}.${name}`)]);
}

/** Runs `work` on an argument that is called `what`: whatever reading it throws is about that, and bears the `details`. */
export function reading<T>(what: string, details: Record<string, unknown>, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    if (!(thrown instanceof EmbeddingError)) throw new EmbeddingError('INVALID_ARGUMENT', `${what} cannot be read: ${messageOf(thrown)}`, { cause: thrown, details });
    const { option, ...others } = thrown.details;
    const message = typeof option === 'string' ? thrown.message.replace(`Invalid option \`${option}\``, option) : thrown.message;
    throw new EmbeddingError('INVALID_ARGUMENT', message, { ...('cause' in thrown && { cause: thrown.cause }), details: { ...others, ...details } });
  }
}

function namesBeside(options: object, known: ReadonlySet<string>): string[] | undefined {
  const others = membersBeside(options, known, false);
  const owner = Object.getPrototypeOf(options) as object | null;
  // What a class keeps for itself is no option.
  return owner === null || isRoot(owner) ? others : others?.filter((name) => !name.startsWith('_'));
}

function membersBeside(options: object, known: ReadonlySet<string>, any: boolean): string[] | undefined {
  const own = Object.keys(options);
  const others = own.filter((name) => !known.has(name));
  let owner = Object.getPrototypeOf(options) as object | null;
  if (owner === null || isRoot(owner)) return others;
  if (KINDS.some((is) => is(options))) return undefined;
  let values = others.length < own.length;
  let methods = false;
  for (; owner !== null && !isRoot(owner); owner = Object.getPrototypeOf(owner) as object | null) {
    for (const [name, { value, get, enumerable }] of Object.entries(Object.getOwnPropertyDescriptors(owner))) {
      if (!enumerable && typeof value === 'function') methods ||= name !== 'constructor' && !known.has(name);
      else if (known.has(name)) values = true;
      else if (enumerable || get) others.push(name);
    }
  }
  // An instance of a class that does other things, and has nothing that is asked for: a cache, for example.
  return methods && !values && !any ? undefined : others;
}

/** Whether it is `Object.prototype`, of any realm. */
export function isRoot(owner: object): boolean {
  return Object.getPrototypeOf(owner) === null && Object.hasOwn(owner, 'isPrototypeOf');
}

function copyOf(array: readonly unknown[], path: string): unknown[] {
  return guarded(path, () => Array.from(array));
}

/** The name that was probably meant. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const lower = name.toLowerCase();
  const distances = known.map((one): [string, number] => [one, distance(lower, one.toLowerCase())]);
  const [near, least] = distances.reduce((best, one) => (one[1] < best[1] ? one : best), ['', Infinity]);
  if (least <= Math.max(1, Math.floor(name.length / 3))) return near;
  return lower.length < 3 ? undefined : known.find((one) => one.toLowerCase().startsWith(lower));
}

/** Letters to insert, leave out, replace or swap (Damerau and Levenshtein, each place once). */
function distance(a: string, b: string): number {
  // Nothing that long is a name that somebody misspelt.
  if (Math.max(a.length, b.length) > 64) return Infinity;
  let [before, row]: [number[], number[]] = [[], Array.from({ length: b.length + 1 }, (_, at) => at)];
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let least = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) least = Math.min(least, before[j - 2]! + 1);
      next.push(least);
    }
    [before, row] = [row, next];
  }
  return row[b.length]!;
}
