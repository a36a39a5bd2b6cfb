// What entries are made from: texts, images and recordings, and what stands for the content of each.

import { types } from 'node:util';

import { invalid, show } from '../call/input';
import { optionReader, untouched, type Names } from '../call/options';
import { native, settle } from '../native/addon';

/** What an embedding was made from. */
export type Modality = 'text' | 'image' | 'audio';

/** In the order of the native side. */
export const MODALITIES: readonly Modality[] = ['text', 'image', 'audio'];

/** Which of the entries of a key is meant. */
export interface EntryOptions {
  /** What the entry is made from: entries of one key and two modalities are two. Default `'text'`. */
  modality?: Modality | undefined;
}

export const ENTRY_NAMES: Names<EntryOptions> = { modality: untouched };

export const readEntryName = optionReader(ENTRY_NAMES);

/** What an entry is named by, and made from, as the native side numbers it. See `src/binding/cache/mod.rs`. */
export type Kind = 0 | 1 | 2 | 3;

export const TEXT: Kind = 0;
export const NODE: Kind = 1;
const KINDS: Record<Modality, Kind> = { text: TEXT, image: 2, audio: 3 };

/** What stands for a content: a string for itself, a digest for bytes. */
export type Content = string | Uint8Array;

/** Bytes that one call hashes before it returns: a tenth of a millisecond. Beyond them, they are copied and hashed elsewhere. */
const AT_ONCE = 128 << 10;

const DIGEST_BYTES = 33;

/** What the contents of one call stand for, as they are now. */
export class Contents {
  #left = AT_ONCE;

  /** `where`: of which entry, if there are many. What is no content is `undefined`. */
  of(content: unknown, where: string): Content | Promise<Content> | undefined {
    if (typeof content === 'string') return content;
    if (!types.isUint8Array(content)) return undefined;
    const { length } = content;
    if (length === 0) throw invalid(`The content${where} has no bytes: an empty file, or a buffer that was transferred elsewhere`);
    // Of memory that other threads may write, a copy is what is hashed.
    const bytes = types.isSharedArrayBuffer(content.buffer) ? Uint8Array.from(content) : content;
    if (length <= this.#left) {
      this.#left -= length;
      const digest = new Uint8Array(DIGEST_BYTES);
      native().digestBytes(bytes, digest);
      return digest;
    }
    const digest = settle(() => native().digestManyBytes(bytes));
    // Whoever uses it is told: this is for a call that is refused before.
    digest.catch(() => {});
    return digest;
  }
}

/** Entries of what a modality means. `where`: of which entry of a call, if there are many. */
export function kindOf(modality: unknown, where = ''): Kind {
  if (modality === undefined) return TEXT;
  if (isModality(modality)) return KINDS[modality];
  throw invalid(`The modality${where} is ${show(modality)}, not 'text', 'image' or 'audio'`);
}

/** Of which modalities entries are meant, as the native side numbers them; without a word, those of `all`. */
export function placesOf(modality: unknown, modalities: unknown, all: readonly Modality[]): number[] {
  if (modality !== undefined && modalities !== undefined) throw invalid('modality and modalities are given: pass one of the two');
  const given = modality !== undefined ? [modality] : modalities !== undefined ? modalities : all;
  if (!Array.isArray(given) || given.length === 0) {
    throw invalid(`modalities is ${show(given)}, not a list with at least one of 'text', 'image' and 'audio'`);
  }
  for (const each of given) kindOf(each ?? null);
  return MODALITIES.flatMap((each, place) => (given.includes(each) ? [place] : []));
}

/** What a computation is called: its entry, and the content that it is for. */
export function flightOf(kind: Kind, key: string): string {
  return `${kind}${key}`;
}

/** A content in words: no two have the same. */
export function nameOf(content: Content | undefined): string {
  if (content === undefined || typeof content === 'string') return `s${content ?? ''}`;
  return `b${Buffer.from(content).toString('hex')}`;
}

/** Whether it can be a content where nobody looks at contents. */
export function isContent(value: unknown): boolean {
  return value == null || typeof value === 'string' || types.isUint8Array(value);
}

function isModality(value: unknown): value is Modality {
  return MODALITIES.includes(value as Modality);
}
