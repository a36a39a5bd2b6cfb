import { EmbeddingError } from '../call/errors';
import { invalid, isArray, show } from '../call/input';
import { optionReader } from '../call/options';
import { OptimizedEmbeddingGenerator, type SemanticEmbedder } from '../index';
import { PromptVectors } from '../results/prompt-vectors';
import { contradiction, textStatistics } from './statistics';

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

/** Characters of a text that are embedded: more than the built-in model sees. */
const LONGEST = 20_000;

/** What an `evaluate` has answered, as a row; a copy. @throws `INVALID_ARGUMENT` for what is none. */
export function rowOf(answer: unknown): number[] {
  if (typeof answer !== 'object' || answer === null) throw invalid(`evaluate answered ${show(answer)}, not { ${COLUMNS.join(', ')} }, nor an array of scores`);
  const row = isArray(answer) || ArrayBuffer.isView(answer) ? Array.from(answer as ArrayLike<unknown>) : valuesOf(answer);
  if (row.length === 0) throw invalid('evaluate answered no scores: at least one is needed');
  for (const [at, score] of row.entries()) {
    if (typeof score === 'number' && score >= 0 && score <= 1) continue;
    const name = isArray(answer) || ArrayBuffer.isView(answer) ? `score ${at}` : COLUMNS[at]!;
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

/** Judges steps by a generator's embeddings and by what the texts say about themselves. */
export class TextEvaluation {
  readonly #given: SemanticEmbedder | undefined;
  #own: OptimizedEmbeddingGenerator | undefined;
  #vectors: PromptVectors | undefined;

  /** `embedder`: default one with the built-in model, made when it is needed. */
  constructor(embedder: SemanticEmbedder | undefined) {
    this.#given = embedder;
    if (embedder !== undefined) this.#vectors = new PromptVectors({ embed: embedder }, 'generator');
  }

  /** Scores of a step, by name as {@link Evaluate} has them. */
  async evaluate(response: string, context: string, previous: string | undefined): Promise<EvaluativeVector> {
    const before = previous ?? context;
    const [own, asked, last] = await Promise.all([this.vector(response), this.vector(context), this.vector(before)]);
    const { hedging, completeness, repetition, contradiction: within, safety } = textStatistics(response);
    const denied = contradiction(response, before);
    return {
      confidence: atLeast(completeness * (1 - repetition) * (1 - within)),
      retrieval: atLeast(cosine(own, asked)),
      uncertainty: atLeast(hedging),
      safety: atLeast(safety),
      consistency: atLeast(cosine(own, last) * (1 - denied)),
    };
  }

  /** The vector of a text; `undefined` where it has none. */
  async vector(text: string): Promise<Float32Array | undefined> {
    const seen = text.trim().slice(0, LONGEST);
    if (seen === '') return undefined;
    this.#vectors ??= new PromptVectors({ embed: (this.#own = new OptimizedEmbeddingGenerator()) }, 'generator');
    return (await this.#vectors.of(seen)).vector;
  }

  /** How different texts are from each other on the average, 0–1: 1 less the mean cosine of their vectors. */
  async spread(texts: readonly string[]): Promise<number> {
    const vectors = await Promise.all(texts.map((text) => this.vector(text)));
    let sum = 0;
    let pairs = 0;
    for (let a = 0; a < vectors.length; a++) {
      for (let b = a + 1; b < vectors.length; b++, pairs++) sum += Math.max(0, cosine(vectors[a], vectors[b]));
    }
    return pairs === 0 ? 0 : 1 - sum / pairs;
  }

  async close(): Promise<void> {
    await this.#own?.cleanup();
  }
}

function atLeast(score: number): number {
  return Math.min(1, Math.max(LEAST, score));
}

function cosine(a: Float32Array | undefined, b: Float32Array | undefined): number {
  if (!a || !b) return 0;
  if (a.length !== b.length) throw new EmbeddingError('EMBEDDING_GENERATION_FAILED', `generator made vectors of ${a.length} and of ${b.length} values: they cannot be compared`);
  let [dot, ofA, ofB] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    ofA += a[i]! ** 2;
    ofB += b[i]! ** 2;
  }
  return dot / Math.sqrt(ofA * ofB);
}
