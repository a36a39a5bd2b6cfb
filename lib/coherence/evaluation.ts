import { invalid, readGiven, show } from '../call/input';
import { optionReader } from '../call/options';
import { isRow } from './metrics';
import { contradiction, textStatistics, wordsIn } from './statistics';
import { cosine, type Texts } from './texts';

/** How a step of an answer is judged: five scores from 0 to 1. */
export interface EvaluativeVector {
  /** How sure and how well formed it is. */
  confidence: number;
  /** How much it is about what was asked. */
  retrieval: number;
  /** How much it hedges. */
  uncertainty: number;
  /** How harmless it is. */
  safety: number;
  /** How well it goes with the step before. */
  consistency: number;
}

/**
 * Judges a step: `context` is the prompt, `previous` the response of the step before, `undefined` for the answer itself. An
 * array has scores of your own, of the same number at each step.
 */
export type Evaluate = (response: string, context: string, previous: string | undefined) => EvaluativeVector | ArrayLike<number> | PromiseLike<EvaluativeVector | ArrayLike<number>>;

const COLUMNS = ['confidence', 'retrieval', 'uncertainty', 'safety', 'consistency'] as const;

/** Which of the five is better when it is lower. */
const UNCERTAINTY = COLUMNS.indexOf('uncertainty');

const readVector = optionReader<EvaluativeVector>({ confidence: true, retrieval: true, uncertainty: true, safety: true, consistency: true });

/** The least of a default score: near 0, a divergence is large for no reason. */
const LEAST = 0.05;

/** What an `evaluate` has answered, as a row; a copy. @throws `INVALID_ARGUMENT` for what is none. */
export function rowOf(answer: unknown): number[] {
  if (typeof answer !== 'object' || answer === null) throw invalid(`evaluate answered ${show(answer)}, not { ${COLUMNS.join(', ')} }, nor an array of scores`);
  const row = isRow(answer) ? readGiven('What evaluate answered', () => Array.from(answer)) : valuesOf(answer);
  if (row.length === 0) throw invalid('evaluate answered no scores: at least one is needed');
  for (const [at, score] of row.entries()) {
    if (typeof score === 'number' && score >= 0 && score <= 1) continue;
    const name = isRow(answer) ? `score ${at}` : COLUMNS[at]!;
    throw invalid(`evaluate answered ${show(score)} for ${name}, not a number from 0 to 1`);
  }
  return row as number[];
}

function valuesOf(answer: object): unknown[] {
  const vector = readVector(answer, 'evaluate()');
  return COLUMNS.map((name) => vector[name]);
}

/** How good rows are on the average, whether they change or not: what tells equally coherent answers apart. */
export function levelOf(rows: readonly ArrayLike<number>[]): number {
  let sum = 0;
  let count = 0;
  for (const row of rows) {
    for (let column = 0; column < row.length; column++) sum += row.length === COLUMNS.length && column === UNCERTAINTY ? 1 - row[column]! : row[column]!;
    count += row.length;
  }
  return sum / count;
}

/**
 * From which cosine on two texts are about the same for the built-in model, which was made for code: unrelated ones have some
 * 0.1. Found on one half of the answers of `benchmark/coherence.mjs`; more than that tells nothing about an answer.
 */
const RELATED = 0.3;

/** Judges steps by embeddings and by what the texts say about themselves. */
export class TextEvaluation {
  readonly #texts: Texts;

  constructor(texts: Texts) {
    this.#texts = texts;
  }

  /** Scores of a step. The step before the first one is the prompt. */
  async evaluate(response: string, context: string, previous: string = context): Promise<EvaluativeVector> {
    const [own, asked, last] = await Promise.all([response, context, previous].map((text) => this.#texts.vector(text)));
    const { hedging, completeness, repetition, contradiction: within, safety } = textStatistics(response);
    const alike = (vector: Float32Array | undefined, text: string) => {
      const alone = cosine(own, vector);
      return this.#texts.builtin ? Math.max(alone, wordsIn(response, text)) / RELATED : alone;
    };
    return {
      confidence: atLeast(completeness * (1 - repetition) * (1 - within)),
      retrieval: atLeast(alike(asked, context)),
      uncertainty: atLeast(hedging),
      safety: atLeast(safety),
      consistency: atLeast(Math.min(1, alike(last, previous)) * (1 - contradiction(response, previous))),
    };
  }

  /** How different texts are from each other on the average, 0–1: 1 less the mean cosine of their vectors. */
  async spread(texts: readonly string[]): Promise<number> {
    const vectors = await Promise.all(texts.map((text) => this.#texts.vector(text)));
    let [sum, pairs] = [0, 0];
    for (let a = 0; a < vectors.length; a++) {
      for (let b = a + 1; b < vectors.length; b++, pairs++) sum += Math.max(0, cosine(vectors[a], vectors[b]));
    }
    return pairs === 0 ? 0 : 1 - sum / pairs;
  }
}

function atLeast(score: number): number {
  return Math.min(1, Math.max(LEAST, score));
}
