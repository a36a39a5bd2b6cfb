// How many candidates a prompt deserves.

/** From which risk on there are 2, 3 and 4 candidates; below the first, 1. */
export interface RiskThresholds {
  /** Default 0.5. */
  mid?: number | undefined;
  /** Default 0.7. */
  high?: number | undefined;
  /** Default 0.8. */
  critical?: number | undefined;
}

/** Words of a prompt that can be answered in several ways. */
const AMBIGUITY = new Set(
  ('best better should could might maybe perhaps possibly some several various many any either whether depends compare versus vs alternatives tradeoffs trade-offs ' +
    'something somehow stuff things etc recommend suggest opinion think why how approximately roughly ideal appropriate suitable').split(' '),
);

/** What counts as much of something: as many words, question marks and words of ambiguity have half of their full weight. */
const HALF_WORDS = 120;
const HALF_QUESTIONS = 1.5;
const HALF_AMBIGUITY = 2;

const LONGEST = 100_000;

/** How large a part of an amount is that has no upper end: 0 for none, 0.5 at `half`, below 1 always. */
function saturated(amount: number, half: number): number {
  return amount / (amount + half);
}

/**
 * How likely a prompt is to be answered badly, 0–1, by its length, its question marks and its words of ambiguity: `1 − (1 − 0.6
 * l)(1 − 0.5 q)(1 − 0.8 a)`, where each of the three is 0 for none of it, and one half at 120 words, 1.5 question marks and two
 * different words of ambiguity.
 */
export function estimateRisk(prompt: string): number {
  const seen = prompt.slice(0, LONGEST);
  const words = seen.toLowerCase().match(/[\p{L}\p{N}][\p{L}\p{N}'’-]*/gu) ?? [];
  const questions = (seen.match(/[?？؟]/gu) ?? []).length;
  const ambiguous = new Set(words.filter((word) => AMBIGUITY.has(word))).size;
  const none = (1 - 0.6 * saturated(words.length, HALF_WORDS)) * (1 - 0.5 * saturated(questions, HALF_QUESTIONS)) * (1 - 0.8 * saturated(ambiguous, HALF_AMBIGUITY));
  return 1 - none;
}

/** The same when the first candidates are there: how different they are, 0–1, counts half. */
export function riskWith(spread: number, risk: number): number {
  return 1 - (1 - risk) * (1 - 0.5 * spread);
}

/** How many candidates a risk deserves. */
export function candidatesFor(risk: number, { mid, high, critical }: { mid: number; high: number; critical: number }): number {
  if (risk >= critical) return 4;
  if (risk >= high) return 3;
  return risk >= mid ? 2 : 1;
}
