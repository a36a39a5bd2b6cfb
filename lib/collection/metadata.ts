// What is kept of metadata, and compared with by filters: JSON, of what JSON can hold. What it would lose without a word is refused.

import { types } from 'node:util';

import { EmbeddingError, messageOf } from '../call/errors';
import { invalid, isArray, show } from '../call/input';
import { isRoot, members, read } from '../call/options';

/** How deep it may be nested; see `src/collection/metadata.rs`. */
const MOST_DEPTH = 100;

/** Metadata as it is kept: a JSON object. `what` names it in messages. */
export function metadataJson(metadata: unknown, what: string): string {
  if (metadata === undefined) return '{}';
  let json = '';
  if (typeof metadata === 'object' && metadata !== null && !isArray(metadata)) {
    // What is inherited or computed by a class counts like what it has itself.
    const own = typeof read(metadata, 'toJSON', what) === 'function' ? undefined : members(metadata, what, true);
    json = jsonOf(own ? Object.fromEntries(own) : metadata, what);
  }
  if (!json.startsWith('{')) throw invalid(`${what} is ${show(metadata)}, not an object`);
  return json;
}

/** A value as JSON. `exactly`: what becomes `null` in JSON is refused, too. */
export function jsonOf(value: unknown, what: string, exactly = false): string {
  let refusal: EmbeddingError | undefined;
  let json: string | undefined;
  try {
    json = JSON.stringify(value, function (this: Record<string, unknown>, name: string, each: unknown) {
      const odd = isLost(each) || (exactly && isNothing(this, name, each));
      if (odd) throw (refusal = invalid(`${what} has ${show(this[name])}${name === '' ? '' : ` as ${show(name)}`}, which JSON does not hold`));
      return each;
    });
  } catch (cause) {
    throw refusal ?? new EmbeddingError('INVALID_ARGUMENT', `${what} cannot be written as JSON: ${messageOf(cause)}`, { cause });
  }
  if (json === undefined) throw invalid(`${what} cannot be written as JSON: it is ${show(value)}`);
  if (depthOf(json) > MOST_DEPTH) throw invalid(`${what} is nested more than ${MOST_DEPTH} levels deep`);
  return json;
}

/** Whether JSON would be `{}` of what holds something. */
function isLost(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || isArray(value) || ArrayBuffer.isView(value) || types.isBoxedPrimitive(value)) return false;
  if (types.isMap(value) || types.isSet(value)) return true;
  const owner = Object.getPrototypeOf(value) as object | null;
  return owner !== null && !isRoot(owner) && Object.keys(value).length === 0;
}

/** Whether JSON would be `null` of what is none. */
function isNothing(holder: Record<string, unknown>, name: string, value: unknown): boolean {
  if (typeof value === 'number') return !Number.isFinite(value);
  return (value === null && holder[name] !== null) || (value === undefined && isArray(holder));
}

function depthOf(json: string): number {
  if (json.length <= 2 * MOST_DEPTH) return 0;
  let [depth, most] = [0, 0];
  for (const [mark] of json.replace(/"(?:[^"\\]|\\.)*"/g, '').matchAll(/[[\]{}]/g)) {
    depth += mark === '{' || mark === '[' ? 1 : -1;
    if (depth > most) most = depth;
  }
  return most;
}
