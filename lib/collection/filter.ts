import { invalid, isArray, show } from '../call/input';
import { toJson } from '../cache/values';

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

/** A condition as the native side reads it; see `src/collection/filter.rs`. */
type Node = { op: 'and' | 'or'; of: Node[] } | { op: 'not'; of: Node } | { op: 'in'; path: string[]; values: unknown[] } | Range;

interface Range {
  op: 'range';
  path: string[];
  above: boolean;
  equal: boolean;
  bound: unknown;
}

const RANGES: Record<string, [above: boolean, equal: boolean]> = { gt: [true, false], gte: [true, true], lt: [false, false], lte: [false, true] };
const OPERATORS = ['eq', 'ne', 'in', 'gt', 'gte', 'lt', 'lte'];
const MOST_DEPTH = 64;

/** A filter as JSON, as it is now. */
export function filterJson(filter: unknown): string | undefined {
  return filter === undefined ? undefined : JSON.stringify(nodeOf(filter, 'filter', 0));
}

/** The same of one that is to say something. What admits everything whatever there is, as `{}` does and what only has fields that are `undefined`, is refused. */
export function selectiveJson(filter: unknown): string {
  const node = nodeOf(filter, 'filter', 0);
  if (says(node) === true) throw invalid('The filter says nothing of what is to be deleted, and would delete all entries: give a condition that is not undefined, or the ids');
  return JSON.stringify(node);
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
  if (!isPlain(filter)) throw invalid(`${where} is ${show(filter)}, not an object such as { lang: 'en' }`);
  if (depth > MOST_DEPTH) throw invalid(`${where} is nested more than ${MOST_DEPTH} deep`);
  const of: Node[] = [];
  for (const [name, value] of Object.entries(filter)) {
    const at = `${where}.${name}`;
    if (value === undefined) continue;
    if (name === 'and' || name === 'or') {
      if (!isArray(value)) throw invalid(`${at} is ${show(value)}, not an array of filters`);
      of.push({ op: name, of: value.map((each, index) => nodeOf(each, `${at}[${index}]`, depth + 1)) });
    } else if (name === 'not') of.push({ op: 'not', of: nodeOf(value, at, depth + 1) });
    else of.push(...conditions(name, value, at));
  }
  return of.length === 1 ? of[0]! : { op: 'and', of };
}

function conditions(field: string, value: unknown, at: string): Node[] {
  const path = field.split('.');
  const names = isPlain(value) ? Object.keys(value) : [];
  // An object of operators is a condition; any other is a value.
  if (!isPlain(value) || names.length === 0 || !names.some((name) => OPERATORS.includes(name))) return [{ op: 'in', path, values: [plain(value, at)] }];
  return Object.entries(value).flatMap(([name, operand]): Node[] => {
    const here = `${at}.${name}`;
    if (operand === undefined) return [];
    if (name === 'eq') return [{ op: 'in', path, values: [plain(operand, here)] }];
    if (name === 'ne') return [{ op: 'not', of: { op: 'in', path, values: [plain(operand, here)] } }];
    if (name === 'in') {
      if (!isArray(operand)) throw invalid(`${here} is ${show(operand)}, not an array of values`);
      return [{ op: 'in', path, values: operand.map((each, index) => plain(each, `${here}[${index}]`)) }];
    }
    const range = RANGES[name];
    if (!range) throw invalid(`${here}: there is no such condition; known are ${OPERATORS.join(', ')}`);
    const bound = plain(operand, here);
    if (typeof bound !== 'string' && typeof bound !== 'number') throw invalid(`${here} is ${show(operand)}, not a number, a string or a date`);
    return [{ op: 'range', path, above: range[0], equal: range[1], bound }];
  });
}

/** A value as it is in metadata. */
function plain(value: unknown, at: string): unknown {
  if (typeof value === 'number' && !Number.isFinite(value)) throw invalid(`${at} is ${show(value)}, not a finite number`);
  return JSON.parse(toJson(value, ` ${at}`)) as unknown;
}

export function isPlain(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !isArray(value) && !(value instanceof Date) && !ArrayBuffer.isView(value);
}
