// What many options are: a whole number, a duration, true or false, a signal, a function.

import { show } from './input';
import { isInstance, read, refused } from './options';

/** Most things at a time: more than any machine or server profits from. */
const MOST_AT_A_TIME = 100_000;
/** The longest delay that a timer of Node.js takes, in milliseconds. */
const LONGEST_MS = 2 ** 31 - 1;

export function whole(option: string, value: unknown, from: number, to = MOST_AT_A_TIME): number {
  if (Number.isSafeInteger(value) && (value as number) >= from && (value as number) <= to) return value as number;
  throw refused(option, `${show(value)} is not a whole number from ${from} to ${to}`);
}

export function milliseconds(option: string, value: unknown): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'number' && value > 0 && value <= LONGEST_MS) return value;
  throw refused(option, `${show(value)} is not a number of milliseconds above 0 and up to ${LONGEST_MS}`);
}

export function flag(option: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  throw refused(option, `${show(value)} is not true or false`);
}

export function signalOf(value: unknown): AbortSignal | undefined {
  if (value === undefined || value === null) return undefined;
  if (isInstance(value, AbortSignal, 'signal')) return value as AbortSignal;
  // One of another realm, or of a library: followed by one that `AbortSignal.any` takes.
  const given = value as AbortSignal;
  const heard = typeof value === 'object' && typeof read(given, 'addEventListener', 'signal') === 'function';
  if (!heard || typeof read(given, 'aborted', 'signal') !== 'boolean') throw refused('signal', `${show(value)} is not an AbortSignal`);
  let follower = followers.get(given);
  if (!follower || (given.aborted && !follower.aborted)) followers.set(given, (follower = follow(given)));
  return follower;
}

/** What follows a signal that is none of this realm: one for all calls, so that it has one listener, however many there are. */
const followers = new WeakMap<AbortSignal, AbortSignal>();

function follow(given: AbortSignal): AbortSignal {
  const follower = new AbortController();
  if (given.aborted) follower.abort(given.reason);
  else given.addEventListener('abort', () => follower.abort(given.reason), { once: true });
  return follower.signal;
}

export function functionOf<F>(option: string, value: unknown): F | undefined {
  if (value === undefined || typeof value === 'function') return value as F | undefined;
  throw refused(option, `${show(value)} is not a function`);
}
