// Candidates, what follows from them, and which one wins.

import { EmbeddingError, messageOf } from '../call/errors';
import { invalid, isArray, readGiven, show } from '../call/input';
import { read, type Given } from '../call/options';
import { levelOf } from './evaluation';
import { coherenceMetrics, isRow, type CoherenceMeasureOptions, type CoherenceMetrics, type TrajectoryRows } from './metrics';

/** One of several answers to a prompt. */
export interface Candidate {
  /** Its place among the candidates. */
  index: number;
  /** The answer; of one that failed, the engine's `fallbackResponse`. */
  response: string;
  /** Whether it could not be had. Such a candidate wins over none that could. */
  failed: boolean;
  /** Why it failed. */
  error?: EmbeddingError;
  /** Whether no model was asked for it. */
  fromCache: boolean;
}

/** What an engine takes for a candidate: a text, or what `generateCandidates` gives. */
export type CandidateInput = string | { response: string; failed?: boolean | undefined; error?: unknown };

/** A candidate and what follows from it. */
export interface Trajectory {
  candidate: Candidate;
  /** The candidate's response, and that of each step. */
  responses: string[];
  /** A row of scores, from 0 to 1, for each of them. */
  steps: number[][];
  /** Whether the candidate, a step or its evaluation failed. What is known until there is in `responses` and `steps`. */
  failed: boolean;
  error?: EmbeddingError;
  /** Whether no model was asked for any step. */
  fromCache: boolean;
}

/** A candidate as it was judged. */
export interface RankedCandidate {
  index: number;
  candidate: Candidate;
  trajectory: Trajectory;
  /** `null` where it failed. */
  metrics: CoherenceMetrics | null;
  /** Whether its CCI reaches the threshold. */
  admissible: boolean;
}

/** What came of `selectBestCandidate`. */
export interface Selection {
  /** The candidate with the highest CCI. */
  selected: Candidate;
  /** Its place among the candidates. */
  index: number;
  metrics: CoherenceMetrics;
  /** Whether its CCI reaches the threshold: if not, none does. */
  admissible: boolean;
  /** All candidates, in their order. */
  all: RankedCandidate[];
  debug: SelectionDebug;
}

/** How a selection came about. */
export interface SelectionDebug {
  threshold: number;
  candidates: number;
  failed: number;
  /** How many candidates are admissible. */
  admissible: number;
  /** By candidate; `null` where it failed. */
  cci: (number | null)[];
  /** How much better the winner's CCI is than the next one's; `null` without a next one. */
  margin: number | null;
  /** What the number of candidates was decided by, where this call made them; 0–1. */
  risk: number | null;
  durationMs: number;
}

/** CCIs that differ by less are equal: it is what rounding leaves. */
const EQUAL = 1e-12;

/** How a selection is made, and what is told of it. */
interface Judging {
  threshold: number;
  measure: Given<CoherenceMeasureOptions>;
  risk: number | null;
  began: number;
}

/** The candidate whose trajectory is the most coherent. */
export function select(trajectories: Trajectory[], { threshold, measure, risk, began }: Judging): Selection {
  requireOne(trajectories, 'All candidates have failed');
  const judged = trajectories.filter(({ failed }) => !failed);
  const metrics = coherenceMetrics(judged.map(({ steps }) => steps as TrajectoryRows), measure);
  let next = 0;
  const all = trajectories.map((trajectory, index): RankedCandidate => {
    const own = trajectory.failed ? null : metrics[next++]!;
    return { index, candidate: trajectory.candidate, trajectory, metrics: own, admissible: own !== null && own.CCI >= threshold };
  });
  const [best, second] = all.filter((one) => one.metrics !== null).sort(better) as [RankedCandidate, RankedCandidate | undefined];
  return {
    selected: best.candidate,
    index: best.index,
    metrics: { ...best.metrics! },
    admissible: best.admissible,
    all,
    debug: {
      threshold,
      candidates: all.length,
      failed: all.length - judged.length,
      admissible: all.filter(({ admissible }) => admissible).length,
      cci: all.map((one) => one.metrics?.CCI ?? null),
      margin: second ? best.metrics!.CCI - second.metrics!.CCI : null,
      risk,
      durationMs: performance.now() - began,
    },
  };
}

/** The higher CCI, up to rounding; of equal ones, the better scores; then the first. */
function better(a: RankedCandidate, b: RankedCandidate): number {
  const rounded = (value: number) => Math.round(value / EQUAL);
  const levels = () => rounded(levelOf(b.trajectory.steps)) - rounded(levelOf(a.trajectory.steps));
  return rounded(b.metrics!.CCI) - rounded(a.metrics!.CCI) || levels() || a.index - b.index;
}

/** Candidates as they are now. */
export function candidatesOf(candidates: unknown): Candidate[] {
  if (!isArray(candidates)) throw invalid(`The candidates are ${show(candidates)}, not an array of them`);
  const all = readGiven('The candidates', () => Array.from(candidates));
  if (all.length === 0) throw invalid('There are no candidates: pass at least one');
  return all.map((given, index): Candidate => {
    const { response, failed = false, error, fromCache } = typeof given === 'string' ? { response: given } : fieldsOf<Candidate>(given, `candidates[${index}]`);
    if (typeof response !== 'string' || typeof failed !== 'boolean') throw invalid(`Candidate ${index} is ${show(given)}, not a text, nor { response, failed? }`, { index });
    return { index, response, failed, ...(error !== undefined && { error: failureOf(error) }), fromCache: fromCache === true };
  });
}

/** Trajectories as they are now. */
export function trajectoriesOf(trajectories: readonly unknown[], candidates: Candidate[]): Trajectory[] {
  if (trajectories.length !== candidates.length) throw invalid(`There are ${trajectories.length} trajectories, but ${candidates.length} candidates: pass one for each`);
  const all = readGiven('The trajectories', () => Array.from(trajectories));
  return candidates.map((candidate, at): Trajectory => {
    const given = all[at];
    const where = `trajectories[${at}]`;
    // Rows alone are a trajectory, too.
    const { steps, responses = [candidate.response], failed = false, error = candidate.error, fromCache } = isArray(given) ? { steps: given } : fieldsOf<Trajectory>(given, where);
    if (typeof failed !== 'boolean') throw invalid(`${where}.failed is ${show(failed)}, not true or false`, { index: at });
    const beside = { candidate, responses: isArray(responses) ? readGiven(`${where}.responses`, () => [...(responses as string[])]) : [], ...(error !== undefined && { error: failureOf(error) }), fromCache: fromCache === true };
    if (failed || candidate.failed) return { ...beside, failed: true, steps: [] };
    const rows = readGiven(`${where}.steps`, () => (isArray(steps) && steps.every(isRow) ? steps.map((row) => Array.from(row as ArrayLike<number>)) : undefined));
    if (!rows) throw invalid(`${where}.steps is ${show(steps)}, not an array of rows of scores`, { index: at });
    return { ...beside, failed: false, steps: rows };
  });
}

/** Properties of what may be anything, each read once. */
function fieldsOf<T extends object>(given: unknown, where: string): { [Name in keyof T]?: unknown } {
  if (typeof given !== 'object' || given === null) return {};
  return Object.fromEntries(FIELDS.map((name) => [name, read(given, name, `${where}.${name}`)])) as { [Name in keyof T]?: unknown };
}

const FIELDS = ['response', 'responses', 'steps', 'failed', 'error', 'fromCache'] as const;

/** @throws `BACKEND_UNAVAILABLE`, with each reason, where all have failed. */
export function requireOne(all: readonly { failed: boolean; error?: EmbeddingError }[], what: string): void {
  if (all.some(({ failed }) => !failed)) return;
  const candidates = all.map(({ error }, index) => ({ index, ...(error && { code: error.code, message: error.message }) }));
  const [first] = all;
  const said = first?.error ? `: ${first.error.message}` : '';
  throw new EmbeddingError('BACKEND_UNAVAILABLE', `${what}${said}`, { retryable: true, details: { candidates }, ...(first?.error && { cause: first.error }) });
}

/** What was thrown, as an error that can be told. */
export function failureOf(error: unknown): EmbeddingError {
  if (error instanceof EmbeddingError) return error;
  return new EmbeddingError('BACKEND_UNAVAILABLE', messageOf(error), { cause: error });
}
