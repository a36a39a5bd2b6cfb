import { types } from 'node:util';

import { EmbeddingError, messageOf } from './errors';

/** One node of a syntax tree to embed. */
export interface Annotation {
  /** Identifies the node in results; stands in for a node without any text. */
  nodeId: string;
  /** The declaration. */
  signature: string;
  /** What it does, in prose. */
  summary: string;
  /** Its code. */
  sourceSnippet?: string;
  /** Carried along, not embedded. */
  metadata?: Record<string, unknown>;
}

/** The strings of an annotation, in the order in which the native side reads them. */
const FIELDS = ['nodeId', 'signature', 'summary', 'sourceSnippet'] as const;


/** An error about an argument. */
export function invalid(message: string, details: Record<string, unknown> = {}): EmbeddingError {
  return new EmbeddingError('INVALID_ARGUMENT', message, { details });
}

/** A value as a person would write it, short enough for a message. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === 'object' && value !== null) return kindOf(value);
  return typeof value === 'function' ? 'a function' : String(value);
}

function kindOf(value: object): string {
  try {
    if (Array.isArray(value)) return `an array of ${value.length}`;
    const { name } = value.constructor;
    if (name !== 'Object' && name !== '') return `${/^[AEIOU]/i.test(name) ? 'an' : 'a'} ${name}`;
  } catch {
    // It has no constructor, or one that cannot be read.
  }
  return 'an object';
}

/** Why something is not what can be embedded: what an error is made of, once somebody is told. */
export interface Refused {
  message: string;
  details: Record<string, unknown>;
  cause?: unknown;
  /** Of an annotation, where at least that could be read. */
  nodeId?: string | undefined;
}

/** An input as it was when it was read: a text, the strings of an annotation, or why it is neither. */
export type Taken = string | string[] | Refused;

/** The error that a refused input gets. */
export function refusal({ message, nodeId: _, ...options }: Refused): EmbeddingError {
  return new EmbeddingError('INVALID_ARGUMENT', message, options);
}

/** The four strings of an annotation; absent ones are empty. */
export function takeAnnotation(annotation: unknown, where: string): string[] | Refused {
  if (typeof annotation !== 'object' || annotation === null || Array.isArray(annotation)) {
    return { message: `${where} is ${show(annotation)}, not an annotation: pass { nodeId, signature, summary, sourceSnippet? }`, details: {} };
  }
  const strings: string[] = [];
  for (const field of FIELDS) {
    let value: unknown;
    try {
      value = (annotation as Record<string, unknown>)[field];
    } catch (cause) {
      return { message: `${where}.${field} cannot be read: ${messageOf(cause)}`, details: { field }, cause, nodeId: strings[0] };
    }
    if (typeof value === 'string') strings.push(value);
    else if (value == null && field !== 'nodeId') strings.push('');
    else return { message: `${where}.${field} is ${show(value)}, not a string`, details: { field }, nodeId: strings[0] };
  }
  return strings;
}

/** The same where it has to be one. */
export function annotationFields(annotation: unknown, where: string): string[] {
  const taken = takeAnnotation(annotation, where);
  if (Array.isArray(taken)) return taken;
  throw refusal(taken);
}

/** An input of a call, whose inputs are all of one kind. */
export function take(input: unknown, annotated: boolean, index: number): Taken {
  if (annotated) return takeAnnotation(input, `Annotation ${index}`);
  return typeof input === 'string' ? input : { message: `Text ${index} is ${show(input)}, not a string`, details: { index } };
}

/** The same of an array, whose element may not be one that can be read. */
export function takeAt(inputs: readonly unknown[], annotated: boolean, index: number): Taken {
  let input: unknown;
  try {
    input = inputs[index];
  } catch (cause) {
    return { message: `${annotated ? 'Annotation' : 'Text'} ${index} cannot be read: ${messageOf(cause)}`, details: { index }, cause };
  }
  return take(input, annotated, index);
}

/** Whether inputs are annotations, by the first one that is of either kind. */
export function areAnnotated(inputs: readonly unknown[]): boolean {
  const count = readGiven('The inputs', () => inputs.length);
  for (let index = 0; index < count; index++) {
    let input: unknown;
    try {
      input = inputs[index];
    } catch {
      continue;
    }
    if (typeof input === 'string') return false;
    if (typeof input === 'object' && input !== null) return true;
  }
  return true;
}

/** What reading something of the caller's has thrown, as an error about it. */
export function unreadable(thrown: unknown, what: string, details: Record<string, unknown> = {}): EmbeddingError {
  if (thrown instanceof EmbeddingError) return thrown;
  return new EmbeddingError('INVALID_ARGUMENT', `${what} cannot be read: ${messageOf(thrown)}`, { cause: thrown, details });
}

/** Reads something of the caller's. */
export function readGiven<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    throw unreadable(thrown, what);
  }
}

export function requireString(what: string, value: unknown): string {
  if (typeof value === 'string') return value;
  throw invalid(`${what} is ${show(value)}, not a string`);
}

/** From 0, and exact. */
export function requireWhole(what: string, value: unknown): number {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
  throw invalid(`${what} is ${show(value)}, not a whole number from 0`, { name: what });
}

/** Also of a proxy that was revoked, of which `Array.isArray` throws. */
export function isArray(value: unknown): value is readonly unknown[] {
  try {
    return Array.isArray(value);
  } catch {
    return false;
  }
}

/** Refuses what is not an array. */
export function requireArray(inputs: unknown, of: string): asserts inputs is readonly unknown[] {
  if (!isArray(inputs)) throw invalid(`The inputs are ${show(inputs)}, not an array of ${of}`);
}

/** What a call embeds, as it was when the call was made. */
export class Inputs {
  /** One for each text, four for each annotation. */
  readonly strings: string[] = [];
  /** By position. */
  readonly refused = new Map<number, Refused>();
  count = 0;

  constructor(readonly annotated: boolean) {}

  add(input: Taken): void {
    if (typeof input === 'string') this.strings.push(input);
    else if (Array.isArray(input)) this.strings.push(...input);
    else {
      this.refused.set(this.count, input);
      this.strings.push(...(this.annotated ? [input.nodeId ?? '', '', '', ''] : ['']));
    }
    this.count++;
  }
}

/** The inputs of a call. @throws what is wrong with the first one that cannot be embedded, unless such are skipped. */
export function takeAll(inputs: readonly unknown[], annotated: boolean, skip: boolean): Inputs {
  const all = new Inputs(annotated);
  const count = readGiven('The inputs', () => inputs.length);
  for (let index = 0; index < count; index++) {
    const taken = takeAt(inputs, annotated, index);
    if (!skip && typeof taken !== 'string' && !Array.isArray(taken)) throw refusal(taken);
    all.add(taken);
  }
  return all;
}

/** Whether it is an array, or a view of one, whose elements may be numbers. */
export function isNumbers(given: unknown): given is ArrayLike<number> {
  return isArray(given) || (types.isTypedArray(given) && !types.isBigInt64Array(given) && !types.isBigUint64Array(given));
}
