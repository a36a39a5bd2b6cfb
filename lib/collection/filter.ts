import { types } from 'node:util';

import { invalid, isArray, show } from '../call/input';
import { members, reading, read } from '../call/options';
import { jsonOf } from './metadata';

/** Something that metadata holds. */
export type MetadataValue = string | number | boolean | null | Date | readonly MetadataValue[] | { readonly [name: string]: MetadataValue };

/** What a value has to be: all that is said of it. */
export interface Condition {
  /** Equal to it. */
  eq?: MetadataValue | undefined;
  /** Equal to none of what `eq` would be. */
  ne?: MetadataValue | undefined;
  /** Equal to one of them. */
  in?: readonly MetadataValue[] | undefined;
  /** Greater than a number, a date or, by its UTF-16 units, a string. */
  gt?: number | string | Date | undefined;
  /** Greater or equal. */
  gte?: number | string | Date | undefined;
  /** Less. */
  lt?: number | string | Date | undefined;
  /** Less or equal. */
  lte?: number | string | Date | undefined;
}

/**
 * A condition on metadata: `{ lang: 'en' }`, `{ year: { gte: 2020, lt: 2024 } }`, `{ tag: { in: ['a', 'b'] } }`, `{ 'author.name': 'x' }`,
 * `{ and: [...] }`, `{ or: [...] }`, `{ not: {...} }`; of several in one object, all. What is not there equals `null`, and is in no range.
 * Dates are their ISO strings, as in metadata.
 */
export interface Filter {
  and?: readonly Filter[] | undefined;
  or?: readonly Filter[] | undefined;
  not?: Filter | undefined;
  [field: string]: MetadataValue | Condition | Filter | readonly Filter[] | undefined;
}

/** A condition as the native side reads it; see `src/collection/filter.rs`. Values are JSON of their own. */
type Node = { op: 'and' | 'or'; of: Node[] } | { op: 'not'; of: Node } | { op: 'in'; path: string[]; values: string[] } | Range;

interface Range {
  op: 'range';
  path: string[];
  above: boolean;
  equal: boolean;
  bound: unknown;
}

const RANGES: Record<string, [above: boolean, equal: boolean]> = { gt: [true, false], gte: [true, true], lt: [false, false], lte: [false, true] };
const OPERATORS = ['eq', 'ne', 'in', 'gt', 'gte', 'lt', 'lte'];
/** Twice as deep, as JSON, which no parser reads much deeper. */
const MOST_DEPTH = 60;

/** A filter as JSON, as it is now. */
export function filterJson(filter: unknown): string | undefined {
  return filter === undefined ? undefined : JSON.stringify(nodeNow(filter));
}

/** The same of one that is to say something. What admits everything whatever there is, as `{}` does and what only has fields that are `undefined`, is refused. */
export function selectiveJson(filter: unknown): string {
  const node = nodeNow(filter);
  if (says(node) === true) throw invalid('The filter says nothing of what is to be deleted, and would delete all entries: give a condition that is not undefined, or the ids');
  return JSON.stringify(node);
}

function nodeNow(filter: unknown): Node {
  return reading('filter', {}, () => nodeOf(filter, 'filter', 0));
}

/** What a condition is of everything, whatever it holds, if that is known. */
function says(node: Node): boolean | undefined {
  if (node.op === 'not') {
    const said = says(node.of);
    return said === undefined ? undefined : !said;
  }
  if (node.op !== 'and' && node.op !== 'or') return node.op === 'in' && node.values.length === 0 ? false : undefined;
  const decides = node.op === 'or';
  const said = node.of.map(says);
  return said.includes(decides) ? decides : said.includes(undefined) ? undefined : !decides;
}

function nodeOf(filter: unknown, where: string, depth: number): Node {
  const fields = fieldsOf(filter, where);
  if (!fields) throw invalid(`${where} is ${show(filter)}, not an object such as { lang: 'en' }`);
  if (depth > MOST_DEPTH) throw invalid(`${where} is nested more than ${MOST_DEPTH} deep`);
  const of: Node[] = [];
  for (const [name, value] of fields) {
    const at = `${where}.${name}`;
    if (value === undefined) continue;
    if (name === 'and' || name === 'or') of.push({ op: name, of: listOf(value, at, 'filters').map((each, index) => nodeOf(each, `${at}[${index}]`, depth + 1)) });
    else if (name === 'not') of.push({ op: 'not', of: nodeOf(value, at, depth + 1) });
    else of.push(...conditions(name, value, at));
  }
  return of.length === 1 ? of[0]! : { op: 'and', of };
}

function conditions(field: string, value: unknown, at: string): Node[] {
  const path = field.split('.');
  const is = (value: unknown, here: string): Node => ({ op: 'in', path, values: [jsonOf(value, here, true)] });
  // An object of operators is a condition; any other is a value.
  const isObject = typeof value === 'object' && value !== null && !isArray(value) && typeof read(value, 'toJSON', at) !== 'function';
  const fields = isObject ? fieldsOf(value, at) : undefined;
  if (isObject && !fields) throw invalid(`${at} is ${show(value)}, neither a value of JSON nor a condition such as { gt: 1 }`);
  if (!fields) return [is(value, at)];
  if (!fields.some(([name]) => OPERATORS.includes(name))) return [is(Object.fromEntries(fields), at)];
  return fields.flatMap(([name, operand]): Node[] => {
    const here = `${at}.${name}`;
    if (operand === undefined) return [];
    if (name === 'eq') return [is(operand, here)];
    if (name === 'ne') return [{ op: 'not', of: is(operand, here) }];
    if (name === 'in') return [{ op: 'in', path, values: listOf(operand, here, 'values').map((each, index) => jsonOf(each, `${here}[${index}]`, true)) }];
    const range = RANGES[name];
    if (!range) throw invalid(`${here}: there is no such condition; known are ${OPERATORS.join(', ')}`);
    const bound = JSON.parse(jsonOf(operand, here, true)) as unknown;
    if (typeof bound !== 'string' && typeof bound !== 'number') throw invalid(`${here} is ${show(operand)}, not a number, a string or a date`);
    return [{ op: 'range', path, above: range[0], equal: range[1], bound }];
  });
}

/** What an object says, also what it inherits or a class computes; `undefined` of what is no such object. */
function fieldsOf(value: unknown, where: string): [name: string, value: unknown][] | undefined {
  if (typeof value !== 'object' || value === null || types.isDate(value) || ArrayBuffer.isView(value) || isArray(value)) return undefined;
  return members(value, where);
}

/** A copy, without holes. */
function listOf(value: unknown, where: string, of: string): unknown[] {
  if (!isArray(value)) throw invalid(`${where} is ${show(value)}, not an array of ${of}`);
  return Array.from(value);
}
