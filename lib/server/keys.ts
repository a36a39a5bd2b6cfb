import { createHash, timingSafeEqual } from 'node:crypto';

import { refused } from '../call/options';

// Keys that clients have to send. They appear nowhere but in the request that brings them: what is kept of them is a hash.

/** Longest key, in characters: a header must have room for it. */
const LONGEST = 8192;

/** The keys that let a client in; none lets in all. */
export class Keys {
  /** Hashes, so that all are equally long. */
  readonly #hashes: readonly Buffer[];

  /** @throws `EmbeddingError` `INVALID_CONFIG` for what no client can send, without repeating it. */
  constructor(given: string | string[] | undefined) {
    const keys = given === undefined ? [] : Array.isArray(given) ? [...given] : [given];
    if (!keys.every((key) => typeof key === 'string' && key !== '') || (given !== undefined && keys.length === 0)) {
      throw refused('apiKey', 'it is not a non-empty string, or an array of such');
    }
    for (const key of keys) check(key);
    this.#hashes = keys.map(hash);
  }

  /** Whether one must be sent. */
  get needed(): boolean {
    return this.#hashes.length > 0;
  }

  /** Whether it is one of them; the time that this takes tells nothing of how much of it is right. */
  accept(key: string): boolean {
    const given = hash(key);
    return this.#hashes.map((known) => timingSafeEqual(known, given)).includes(true);
  }
}

/** The key of `Authorization: Bearer KEY`. */
export function bearer(authorization: string | undefined): string | undefined {
  return /^Bearer +(.*)$/i.exec(authorization ?? '')?.[1];
}

/** The password of `Authorization: Basic …`, which is what a browser asks its user for. */
export function password(authorization: string | undefined): string | undefined {
  const encoded = /^Basic +(\S+)$/i.exec(authorization ?? '')?.[1];
  if (encoded === undefined) return undefined;
  const both = Buffer.from(encoded, 'base64').toString();
  const colon = both.indexOf(':');
  return colon < 0 ? undefined : both.slice(colon + 1);
}

function check(key: string): void {
  const why = /^\s|\s$/.test(key) ? 'it begins or ends with a blank or a line break, which clients cannot send in a header; remove that'
    : !/^[ -~]+$/.test(key) ? 'it has a control character, or a letter that is not ASCII, which clients cannot send in a header: choose another key'
    : key.length > LONGEST ? `it has ${key.length} characters, more than a header has room for: choose one of at most ${LONGEST}`
    : undefined;
  if (why !== undefined) throw refused('apiKey', `a key cannot be used: ${why}`);
}

const hash = (key: string) => createHash('sha256').update(key).digest();
