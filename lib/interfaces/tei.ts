// What servers of other kinds of models answer: the interfaces of text-embeddings-inference (TEI), and for reranking
// those of Cohere and Jina, too.

import { setImmediate as nextTurn } from 'node:timers/promises';

import { largest } from '../encoders/ranking';
import type { MultiVectors, Scores, SparseVector } from '../index';
import type { RerankRequest } from './openai';

/** Characters of results that are written between two turns of the event loop, about. */
const CHARACTERS_PER_CHUNK = 1 << 16;

/** The answer to a request for scores, best first, in chunks of JSON. `id`: that of the request. */
export function rerankChunks({ texts, documents, withTexts, most, model }: RerankRequest, scores: Scores, { id, served, tokens }: { id: string; served: string; tokens: number }): () => Promise<Buffer | undefined> {
  const order = largest(scores, most);
  const result = (index: number) => {
    const score = shortest(scores[index]!);
    return documents
      ? { index, relevance_score: score, ...(withTexts && { document: { text: texts[index]! } }) }
      : { index, score, ...(withTexts && { text: texts[index]! }) };
  };
  const head = documents ? `{"id":${JSON.stringify(id)},"object":"list","model":${JSON.stringify(model ?? served)},"results":[` : '[';
  const foot = documents ? `],"usage":${JSON.stringify({ prompt_tokens: tokens, total_tokens: tokens })}}\n` : ']\n';
  let [at, over] = [0, false];
  return async () => {
    if (over) return undefined;
    if (at > 0) await nextTurn();
    let text = at === 0 ? head : '';
    for (; at < order.length && text.length < CHARACTERS_PER_CHUNK; at++) text += `${at === 0 ? '' : ','}${JSON.stringify(result(order[at]!))}`;
    over = at === order.length;
    return Buffer.from(over ? text + foot : text);
  };
}

/** Values that are written between two turns of the event loop: some milliseconds. */
const VALUES_PER_CHUNK = 1 << 13;

/** Sparse vectors in JSON, in chunks. */
export function sparseChunks(vectors: readonly SparseVector[]): () => Promise<Buffer | undefined> {
  const entry = ({ indices, values }: SparseVector, at: number) => `{"index":${indices[at]!},"value":${shortest(values[at]!)}}`;
  return nested(vectors.length, (row) => vectors[row]!.values.length, (row, at) => entry(vectors[row]!, at), 1);
}

/** Vectors of tokens in JSON, in chunks. */
export function tokenChunks(vectors: MultiVectors): () => Promise<Buffer | undefined> {
  const { data, offsets, dimensions } = vectors;
  const vector = (row: number, at: number) => {
    const begin = (offsets[row]! + at) * dimensions;
    return `[${Array.from(data.subarray(begin, begin + dimensions), shortest).join(',')}]`;
  };
  return nested(vectors.rows, (row) => offsets[row + 1]! - offsets[row]!, vector, dimensions);
}

/** An array of arrays in JSON, in chunks; `weight`: how many values an element has. */
function nested(rows: number, length: (row: number) => number, element: (row: number, at: number) => string, weight: number): () => Promise<Buffer | undefined> {
  let [row, at] = [0, 0];
  return async () => {
    if (row > rows) return undefined;
    await nextTurn();
    let text = row === 0 && at === 0 ? '[' : '';
    for (let values = 0; row < rows && values < VALUES_PER_CHUNK; ) {
      if (at === 0) text += row === 0 ? '[' : ',[';
      if (at < length(row)) {
        text += `${at === 0 ? '' : ','}${element(row, at)}`;
        values += weight;
        at++;
        continue;
      }
      text += ']';
      values++;
      [row, at] = [row + 1, 0];
    }
    if (row === rows) {
      text += ']\n';
      row++;
    }
    return Buffer.from(text);
  };
}

/** A 32-bit value with as few digits as tell it from its neighbours, or nearly so. */
function shortest(value: number): number {
  const short = Number(value.toPrecision(7));
  return Math.fround(short) === value ? short : Number(value.toPrecision(9));
}
