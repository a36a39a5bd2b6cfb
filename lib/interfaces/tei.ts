// What servers of other kinds of models answer: the interfaces of text-embeddings-inference (TEI), and for reranking
// those of Cohere and Jina, too.

import { setImmediate as nextTurn } from 'node:timers/promises';

import type { MultiVectors, Scores, SparseVector } from '../index';
import type { RerankRequest } from './openai';

/** The answer to a request for scores, best first. `id`: that of the request. */
export function rerankAnswer({ texts, documents, withTexts, most, model }: RerankRequest, scores: Scores, { id, served, tokens }: { id: string; served: string; tokens: number }): object {
  const order = Array.from(texts.keys()).sort((one, other) => scores[other]! - scores[one]! || one - other).slice(0, most);
  if (!documents) return order.map((index) => ({ index, score: shortest(scores[index]!), ...(withTexts && { text: texts[index]! }) }));
  return {
    id,
    object: 'list',
    model: model ?? served,
    results: order.map((index) => ({ index, relevance_score: shortest(scores[index]!), ...(withTexts && { document: { text: texts[index]! } }) })),
    usage: { prompt_tokens: tokens, total_tokens: tokens },
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
