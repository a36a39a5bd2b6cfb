// JSON of which there is one for each value, and what of a value JSON cannot hold.

import { randomUUID } from 'node:crypto';

import { EmbeddingError, messageOf } from '../call/errors';
import { invalid, show } from '../call/input';

/** Deeper values are circular in all but name, and would end the stack. */
const DEEPEST = 500;

type Path = readonly (string | number)[];

/** A path as a programmer would write it. */
function written(path: Path): string {
  return path
    .map((part, at) => {
      if (at === 0) return part;
      if (typeof part === 'number') return `[${part}]`;
      return /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(part) ? `.${part}` : `[${JSON.stringify(part)}]`;
    })
    .join('');
}

function refuse(path: Path, what: string): EmbeddingError {
  return invalid(`${written(path)} is ${what}`, { path: written(path) });
}

/** JSON of what has no parts; `undefined` for arrays and objects. Throws for what JSON does not have. */
function leaf(value: unknown, path: Path): string | undefined {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return JSON.stringify(value);
    case 'number':
      // JSON has it, and everybody reads it as it is; only JSON.stringify does not write it.
      if (Object.is(value, -0)) return '-0';
      if (Number.isFinite(value)) return JSON.stringify(value);
      throw refuse(path, `${value}, which JSON does not have`);
    case 'bigint':
      throw refuse(path, `a BigInt, which JSON does not have: pass a number or a string`);
    case 'undefined':
      throw refuse(path, 'undefined, which JSON does not have: leave it out, or pass null');
    case 'object':
      return value === null ? 'null' : undefined;
    default:
      throw refuse(path, `${typeof value === 'function' ? 'a function' : 'a symbol'}, which JSON does not have`);
  }
}

/** What an object stands for in JSON: what its `toJSON` says, or itself if it is nothing but its properties. */
function unfolded(value: object, path: Path): unknown {
  const { toJSON } = value as { toJSON?: unknown };
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  if (kind === 'Date' && Number.isNaN(Number(value))) throw refuse(path, 'an invalid Date, which JSON does not have');
  if (typeof toJSON === 'function' && !Buffer.isBuffer(value)) return toJSON.call(value, String(path.at(-1)));
  if (Array.isArray(value)) return value;
  if (kind === 'Object') {
    if (!isPlain(value) && Object.keys(value).length === 0) {
      throw refuse(path, `an instance of ${nameOfClass(value)} without properties that can be seen: pass a plain object, or give it toJSON`);
    }
    return value;
  }
  if (kind === 'Promise') throw refuse(path, 'a Promise: await it');
  throw refuse(path, `of the type ${kind}, which JSON does not have: pass a plain object, an array or a string`);
}

/** Made by `{}`, in whatever realm, or without a prototype. */
function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value) as object | null;
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function nameOfClass(value: object): string {
  const { constructor } = value as { constructor?: unknown };
  return (typeof constructor === 'function' && constructor.name) || 'a class';
}

function enter(value: object, path: Path, above: Set<object>): void {
  if (above.has(value)) throw refuse(path, 'circular: it contains itself');
  if (path.length > DEEPEST) throw refuse(path.slice(0, 5), `nested more than ${DEEPEST} levels deep`);
  above.add(value);
}

/**
 * The JSON of a value in canonical form (RFC 8785): equal values give equal texts, in whatever order their keys were
 * added. Lone surrogates are kept apart, as escapes, and so is -0 from 0.
 * @param ofBytes What stands for bytes, where they are no mistake.
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` that names the path of what JSON does not have.
 */
export function canonicalJson(value: unknown, name: string, ofBytes?: (bytes: Uint8Array) => string): string {
  return readable(name, () => canonical(value, [name], new Set(), ofBytes));
}

/** Runs what runs the caller's own code, `toJSON` and getters: what that throws is an error about the value. */
function readable<T>(name: string, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    if (thrown instanceof EmbeddingError) throw thrown;
    throw new EmbeddingError('INVALID_ARGUMENT', `${name} cannot be read as JSON: ${messageOf(thrown)}`, { cause: thrown });
  }
}

function canonical(value: unknown, path: Path, above: Set<object>, ofBytes?: (bytes: Uint8Array) => string): string {
  const json = leaf(value, path);
  if (json !== undefined) return json;
  if (ofBytes && Object.prototype.toString.call(value) === '[object Uint8Array]') return ofBytes(value as Uint8Array);
  const parts = unfolded(value as object, path);
  if (parts !== value) return canonical(parts, path, above, ofBytes);
  enter(parts as object, path, above);
  let text: string;
  if (Array.isArray(parts)) {
    text = `[${Array.from(parts, (part, at) => canonical(part, [...path, at], above, ofBytes)).join()}]`;
  } else {
    const object = parts as Record<string, unknown>;
    const keys = Object.keys(object).sort();
    text = `{${keys.map((key) => `${JSON.stringify(key)}:${canonical(object[key], [...path, key], above, ofBytes)}`).join()}}`;
  }
  above.delete(parts as object);
  return text;
}

/**
 * The JSON of a value. Properties that are undefined are left out, as everywhere.
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` that names the path of what would not come back as it is.
 */
export function faithfulJson(value: unknown, name: string): string {
  return readable(name, () => faithful(value, name));
}

function faithful(value: unknown, name: string): string {
  const minusZero = check(value, [name], new Set());
  // What JSON.stringify writes as 0 is marked by a text that the value cannot have.
  const mark = minusZero ? `-0 ${randomUUID()}` : '';
  const json = JSON.stringify(value, minusZero ? (_, part: unknown) => (Object.is(part, -0) ? mark : part) : undefined) as string | undefined;
  if (json === undefined) throw invalid(`${name} is ${show(value)}, which JSON does not have`);
  return minusZero ? json.replaceAll(JSON.stringify(mark), '-0') : json;
}

/** Refuses what JSON does not have; whether there is a -0. */
function check(value: unknown, path: Path, above: Set<object>): boolean {
  const json = leaf(value, path);
  if (json !== undefined) return json === '-0';
  const parts = unfolded(value as object, path);
  if (parts !== value) return check(parts, path, above);
  enter(parts as object, path, above);
  let minusZero = false;
  if (Array.isArray(parts)) {
    for (let at = 0; at < parts.length; at++) minusZero = check(parts[at], [...path, at], above) || minusZero;
  } else {
    for (const [key, part] of Object.entries(parts as object)) {
      if (part !== undefined) minusZero = check(part, [...path, key], above) || minusZero;
    }
  }
  above.delete(parts as object);
  return minusZero;
}
