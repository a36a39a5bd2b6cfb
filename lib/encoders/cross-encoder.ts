import { setImmediate as nextTurn } from 'node:timers/promises';

import type { EmbeddingError } from '../call/errors';
import { invalid, isArray, refusal, requireArray, requireString, show, type Refused } from '../call/input';
import { refused } from '../call/options';
import { call } from '../native/addon';
import { Encoder, nativeEncoder, runOn, sendInputs, toCall, type Progress } from '../generator/encoder';
import { RESULTS_PER_TURN } from '../generator/convert';
import type { EmbeddingMatrix } from '../matrix/embedding-matrix';
import type { NativeAnswer } from '../native/types';
import { largest } from './ranking';
import { activationOf, apart, best, described, readCrossEncoder, readRank, readScore, type Activation, type CrossEncoderOptions, type RankOptions, type ScoreOptions } from './options';

/** A document with its score. */
export interface RankedDocument {
  /** Its position in the call. */
  index: number;
  /** How well it answers the query; 0 where there is an error. */
  score: number;
  /** The document, with `returnDocuments`. */
  document?: string;
  /** Why it has no score; only with `onError: 'skip'`. */
  error?: EmbeddingError;
}

/** Scores of pairs: one for each, or all labels of the first pair, then those of the second one. */
export type Scores = Float32Array & {
  /** What the scores of a pair are called; only where there are several. */
  labels?: string[];
  /** Tokens of each whole pair, special tokens included. */
  tokenCounts: Uint32Array;
  /** 1 for each pair that the model did not see whole. */
  truncated: Uint8Array;
  /** 1 for each pair that this call did not compute. */
  fromCache: Uint8Array;
};

/**
 * Scores how well a document answers a query, with a model that reads both together (a cross-encoder, or reranker): slower than
 * comparing vectors, and better. Cache, batches, memory, threads, metrics and errors are those of {@link OptimizedEmbeddingGenerator}.
 */
export class CrossEncoder extends Encoder {
  readonly #activation: Activation;

  /**
   * Loads nothing yet.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
   */
  constructor(options: CrossEncoderOptions = {}) {
    const { activation = 'auto', ...given } = readCrossEncoder(options);
    const kept = activationOf(activation);
    const [own, rest] = apart<CrossEncoderOptions, 'instruction'>(given, 'instruction');
    super(rest, { ...own, task: 'reranking' });
    this.#activation = kept;
  }

  /**
   * The documents by how well they answer the query, best first; equal ones in the order in which they were given. Documents of no
   * words have a score like any other.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for a query of nothing, and where the model has several scores for a pair.
   */
  async rank(query: string, documents: readonly string[], options: RankOptions = {}): Promise<RankedDocument[]> {
    requireString('The query', query);
    if (query.trim() === '') throw invalid('The query is empty: there is nothing to rank documents by');
    requireArray(documents, 'documents');
    const { topK, returnDocuments = false, activation = this.#activation, ...rest } = readRank(options);
    const wanted = activationOf(activation);
    const most = best(topK);
    if (typeof returnDocuments !== 'boolean') throw refused('returnDocuments', `${show(returnDocuments)} is not true or false`);
    const taken = takeDocuments(documents, rest.onError === 'skip');
    const strings = [query, ...taken.strings];
    return this.#score(rest, { strings, refused: taken.refused, count: taken.count }, undefined, async (answer, matrix, check) => {
      if (matrix.dimensions > 1) {
        throw invalid(`The model ${answer.modelId} gives ${matrix.dimensions} scores (${answer.labels.join(', ')}): call score() and choose one`);
      }
      const scores = activated(matrix.data, wanted, answer.sigmoid);
      // What has no score comes last.
      for (const index of matrix.errors.keys()) scores[index] = -Infinity;
      const ranked: RankedDocument[] = [];
      for (const index of largest(scores, most)) {
        const error = matrix.errors.get(index);
        ranked.push({
          index,
          score: error ? 0 : scores[index]!,
          ...(returnDocuments && !taken.refused.has(index) && { document: taken.strings[index]! }),
          ...(error && { error }),
        });
        if (ranked.length % RESULTS_PER_TURN === 0) {
          await nextTurn();
          check();
        }
      }
      return ranked;
    });
  }

  /** The scores of pairs of a query and a document, in their order. */
  async score(pairs: readonly (readonly [query: string, document: string])[], options: ScoreOptions = {}): Promise<Scores> {
    requireArray(pairs, 'pairs [query, document]');
    const { activation = this.#activation, ...rest } = readScore(options);
    const wanted = activationOf(activation);
    const texts = new Texts();
    const places = new Uint32Array(pairs.length * 2);
    for (let index = 0; index < pairs.length; index++) {
      const pair = pairs[index] as unknown;
      if (!isArray(pair) || pair.length !== 2) throw invalid(`Pair ${index} is ${show(pair)}, not an array of a query and a document`, { index });
      places[2 * index] = texts.place(requireString(`The query of pair ${index}`, pair[0]));
      places[2 * index + 1] = texts.place(requireString(`The document of pair ${index}`, pair[1]));
    }
    return this.#score(rest, { strings: texts.strings, refused: new Map(), count: pairs.length }, places, (answer, matrix) => {
      const scores = activated(matrix.data, wanted, answer.sigmoid) as Scores;
      const { tokenCounts, truncated, fromCache } = matrix;
      return described(scores, { tokenCounts, truncated, fromCache, ...(matrix.dimensions > 1 && { labels: answer.labels }) });
    });
  }

  #score<T>(
    options: ScoreOptions,
    sent: { strings: string[]; refused: Map<number, Refused>; count: number },
    places: Uint32Array | undefined,
    finish: (answer: NativeAnswer, matrix: EmbeddingMatrix, check: () => void) => T | Promise<T>,
  ): Promise<T> {
    const { watch, plain } = toCall(options);
    return runOn(this, sent.count, 'pairs', watch, () => {
      const running = call(() => nativeEncoder(this).call());
      const run = async (progress: Progress, check: () => void) => {
        await sendInputs(running, sent, check);
        return running.runPairs(places, plain, progress);
      };
      return { inputs: sent, running, run, finish };
    });
  }
}

/** Characters from which on looking whether a text is there already costs less than sending it again. */
const LONG = 256;

/** Texts of pairs: long ones that are equal, mostly once. */
class Texts {
  readonly strings: string[] = [];
  readonly #places = new Map<string, number>();

  /** Where a text is among the strings. */
  place(text: string): number {
    if (text.length < LONG) return this.strings.push(text) - 1;
    // The engine hashes long strings by their length alone, and then compares all that have the same.
    const name = `${text.length} ${text.slice(0, LONG / 4)}${text.slice(-LONG / 4)}`;
    const known = this.#places.get(name);
    if (known !== undefined && this.strings[known] === text) return known;
    const place = this.strings.push(text) - 1;
    this.#places.set(name, place);
    return place;
  }
}

function activated(scores: Float32Array, wanted: Activation, sigmoid: boolean): Float32Array {
  if (wanted === 'auto' ? sigmoid : wanted === 'sigmoid') for (let i = 0; i < scores.length; i++) scores[i] = 1 / (1 + Math.exp(-scores[i]!));
  return scores;
}

function takeDocuments(documents: readonly unknown[], skip: boolean): { strings: string[]; refused: Map<number, Refused>; count: number } {
  const [strings, refusals] = [[] as string[], new Map<number, Refused>()];
  for (let index = 0; index < documents.length; index++) {
    const document = documents[index];
    if (typeof document === 'string') {
      strings.push(document);
      continue;
    }
    const reason: Refused = { message: `Document ${index} is ${show(document)}, not a string`, details: { index } };
    if (!skip) throw refusal(reason);
    refusals.set(index, reason);
    strings.push('');
  }
  return { strings, refused: refusals, count: documents.length };
}
