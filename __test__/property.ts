// What property tests share.
import fc, { type RunDetails } from 'fast-check';

/**
 * How many cases a search has tried. @throws the case that it has found. One that is interrupted before its first case has found
 * none: the machine is busy.
 */
export function tried<Case>(found: RunDetails<Case>): number {
  if (found.failed && found.counterexample !== null) throw new Error(fc.defaultReportMessage(found), { cause: found.errorInstance });
  return found.numRuns;
}
