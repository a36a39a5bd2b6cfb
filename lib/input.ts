import { setImmediate as nextTurn } from 'node:timers/promises';

import { EmbeddingError, messageOf } from './errors';
import type { NativeCall } from './native';

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

/** A pack crosses in one piece on the event loop; these bounds keep that under a few milliseconds. */
const PACK_STRINGS = 4096;
const PACK_CHARACTERS = 1 << 20;

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

/** The four strings of an annotation; absent ones are empty. */
export function annotationFields(annotation: unknown, where: string): string[] {
  if (typeof annotation !== 'object' || annotation === null || Array.isArray(annotation)) {
    throw invalid(`${where} is ${show(annotation)}, not an annotation: pass { nodeId, signature, summary, sourceSnippet? }`);
  }
  return FIELDS.map((field) => {
    let value: unknown;
    try {
      value = (annotation as Record<string, unknown>)[field];
    } catch (cause) {
      throw new EmbeddingError('INVALID_ARGUMENT', `${where}.${field} cannot be read: ${messageOf(cause)}`, { cause, details: { field } });
    }
    if (typeof value === 'string') return value;
    if (value == null && field !== 'nodeId') return '';
    throw invalid(`${where}.${field} is ${show(value)}, not a string`, { field });
  });
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

/** Hands the inputs to a call, in packs, and lets the event loop turn between them. `check` throws to end early. */
export async function feed(
  call: NativeCall,
  inputs: readonly unknown[],
  annotated: boolean,
  firstIndex: number,
  check: () => void,
): Promise<void> {
  let strings: string[] = [];
  let characters = 0;
  const push = () => {
    call.push(strings.join(''), Uint32Array.from(strings, (text) => text.length));
    strings = [];
    characters = 0;
  };
  for (let index = 0; index < inputs.length; index++) {
    if (strings.length >= PACK_STRINGS || characters >= PACK_CHARACTERS) {
      push();
      await nextTurn();
    }
    check();
    const name = firstIndex + index;
    for (const text of annotated ? annotationFields(inputs[index], `Annotation ${name}`) : [textAt(inputs[index], name)]) {
      strings.push(text);
      characters += text.length;
    }
  }
  push();
}

function textAt(text: unknown, index: number): string {
  if (typeof text !== 'string') throw invalid(`Text ${index} is ${show(text)}, not a string`, { index });
  return text;
}
