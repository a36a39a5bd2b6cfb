import { whole } from '../call/checks';
import { messageOf } from '../call/errors';
import { show } from '../call/input';
import { refused } from '../call/options';
import { isPromise } from '../call/order';

/** Which statuses are tried again, how often, and after how long. */
export interface RetryRule {
  /** Tries in all. */
  attempts: number;
  /** Milliseconds before the second try, the third one, and so on; the last one is for all that follow. */
  backoffMs: readonly number[];
  retries(status: number): boolean;
}

const TRIES = 100;
const LONGEST_WAIT_MS = 24 * 3600 * 1000;

/** Statuses of which another try may have another outcome: too slow, too early, too often, and whatever is wrong over there. */
function transient(status: number): boolean {
  return status === 408 || status === 425 || status === 429 || status >= 500;
}

export function retryRule(attempts: unknown, backoffMs: unknown, retryOn: unknown): RetryRule {
  return { attempts: whole('retryAttempts', attempts, 1, TRIES), backoffMs: backoff(backoffMs), retries: retries(retryOn) };
}

function backoff(value: unknown): number[] {
  const isTime = (ms: unknown) => typeof ms === 'number' && ms >= 0 && ms <= LONGEST_WAIT_MS;
  if (Array.isArray(value) && value.length > 0 && value.every(isTime)) return value as number[];
  throw refused('retryBackoffMs', `${show(value)} is not a list of milliseconds from 0 to ${LONGEST_WAIT_MS}, one before each further try`);
}

function retries(value: unknown): RetryRule['retries'] {
  if (value === undefined) return transient;
  if (typeof value === 'function') {
    return (status) => {
      let answer: unknown;
      try {
        answer = (value as (status: number) => unknown)(status);
      } catch (cause) {
        throw refused('retryOn', `it threw for ${status}: ${messageOf(cause)}`, cause);
      }
      if (typeof answer === 'boolean') return answer;
      // One that answers later may fail then, and nobody listens.
      if (isPromise(answer)) answer.then(undefined, () => {});
      throw refused('retryOn', `it answered ${show(answer)} for ${status}, not true or false`);
    };
  }
  const isStatus = (status: unknown) => Number.isInteger(status) && (status as number) >= 300 && (status as number) <= 599;
  if (!Array.isArray(value) || !value.every(isStatus)) throw refused('retryOn', `${show(value)} is neither a list of statuses from 300 to 599 nor a function of one`);
  const statuses = new Set(value as number[]);
  return (status) => statuses.has(status);
}

/** The wait before the try that follows the `tried` first ones. */
export function backoffAfter({ backoffMs }: RetryRule, tried: number): number {
  return backoffMs[Math.min(tried, backoffMs.length) - 1]!;
}

/** The three forms of a date that HTTP has; the last one is in GMT, and does not say so. */
const DATES = [
  /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/,
  /^(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, \d\d-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d GMT$/,
  /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}$/,
];

/** What `Retry-After` says, in milliseconds from now: whole seconds, or a date. Anything else says nothing. */
export function retryAfter(header: string | string[] | undefined): number | undefined {
  const text = (Array.isArray(header) ? header[0] : header)?.trim();
  if (text === undefined || text === '') return undefined;
  if (/^\d+$/.test(text)) return Number(text) * 1000;
  if (!DATES.some((form) => form.test(text))) return undefined;
  const date = Date.parse(text.endsWith('GMT') ? text : `${text} GMT`);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}
