// Which class something with a model is of, by what it alone can do: an instance of this copy of the package, or of another one.

import { read, refused } from './options';

/** Each class, what only that can do, what its models are for, and what they give. */
const KINDS = {
  OptimizedEmbeddingGenerator: { method: 'batchProcess', task: 'embedding', gives: 'a vector for each text' },
  CrossEncoder: { method: 'rank', task: 'reranking', gives: 'scores of pairs of texts' },
  SparseEncoder: { method: 'decode', task: 'sparse', gives: 'sparse vectors' },
  MultiVectorEncoder: { method: 'maxSim', task: 'multi-vector', gives: 'a vector for each token' },
} as const;

/** A class that has a model. */
export type ModelKind = keyof typeof KINDS;

/** Refuses an instance of another class than is wanted. What is of none of them, or stands in for one, passes. */
export function refuseOtherKind(wanted: ModelKind, value: unknown, path: string): void {
  if (typeof value !== 'object' || value === null) return;
  const can = (name: string) => typeof read(value, name, `${path}.${name}`) === 'function';
  if (!can('initialize') || can(KINDS[wanted].method)) return;
  for (const kind of Object.keys(KINDS) as ModelKind[]) if (kind !== wanted && can(KINDS[kind].method)) throw other(kind, wanted, path);
}

/** The same by what a model says of itself, once it is loaded; one that says nothing passes. */
export function refuseOtherTask(wanted: ModelKind, info: object, path: string): void {
  const { task } = info as { task?: unknown };
  if (task === undefined || task === KINDS[wanted].task) return;
  for (const kind of Object.keys(KINDS) as ModelKind[]) if (KINDS[kind].task === task) throw other(kind, wanted, path);
}

function other(kind: ModelKind, wanted: ModelKind, path: string): Error {
  const article = (name: string) => (/^[AEIOU]/.test(name) ? `an ${name}` : `a ${name}`);
  return refused(path, `${article(kind)} gives ${KINDS[kind].gives}, and ${KINDS[wanted].gives} ${wanted === 'OptimizedEmbeddingGenerator' ? 'is' : 'are'} needed here: pass ${article(wanted)}`);
}
