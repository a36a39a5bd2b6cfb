import { annotationFields, invalid, readGiven, requireArray, unreadable, type Annotation } from '../call/input';
import { isPromise } from '../call/order';
import { Contents, NODE, TEXT, kindOf, readEntryName, type Content, type EntryOptions, type Kind } from './content';
import { contentOf, isAnnotated, type CacheLookup } from './values';

/** Lookups, or UTF-16 units of them, that are answered between two turns of the event loop: a millisecond or two. */
const PACK_ENTRIES = 2048;
const PACK_CHARACTERS = 1 << 20;

/** What stands for the content of entry `at`, where contents matter. */
type Stands = (content: unknown, contents: Contents, at: number) => Content | Promise<Content> | undefined;

/** What a call looks up, all of it read at once: the caller may change its array and its objects while the call runs. */
export class Lookups {
  readonly kinds: Kind[] = [];
  /** Where each pack ends; the first is there even if nothing is looked up. */
  readonly ends: number[] = [];
  /** Until the hashes of contents that are long are there. */
  readonly hashed: Promise<unknown> | undefined;
  readonly #strings: Content[] = [];
  /** The texts of annotations, which are joined when it is their turn. */
  readonly #texts: string[][] | undefined;

  constructor(entries: readonly CacheLookup[] | readonly Annotation[], options: EntryOptions, stands: Stands) {
    requireArray(entries, '{ key, content }, or of annotations');
    if (isAnnotated(entries)) this.#texts = [];
    const { modality } = readEntryName(options);
    const contents = new Contents();
    const hashes: Promise<unknown>[] = [];
    const count = readGiven('The entries', () => entries.length);
    let characters = 0;
    for (let at = 0, from = 0; at < count; at++) {
      const entry = readEntryAt(at, () => entries[at]);
      characters += this.#texts
        ? this.#annotation(entry, at, this.#texts)
        : this.#entry(entry, at, modality, (content) => stands(content, contents, at) ?? '', hashes);
      if (at + 1 - from < PACK_ENTRIES && characters < PACK_CHARACTERS) continue;
      this.ends.push((from = at + 1));
      characters = 0;
    }
    if (this.ends.at(-1) !== count) this.ends.push(count);
    this.hashed = hashes.length > 0 ? Promise.all(hashes) : undefined;
  }

  /** The key and what stands for the content of each lookup of a pack, one after the other. */
  strings(from: number, to: number): readonly Content[] {
    for (let at = from; at < to && this.#texts; at++) this.#strings[2 * at + 1] = contentOf(this.#texts[at]!);
    return this.#strings;
  }

  /** Reads an annotation; how many characters it has. */
  #annotation(annotation: unknown, at: number, all: string[][]): number {
    const [key, ...texts] = annotationFields(annotation, `Annotation ${at}`) as [string, ...string[]];
    this.#strings.push(key, '');
    this.kinds.push(NODE);
    all.push(texts);
    return texts.reduce((characters, text) => characters + text.length, 0);
  }

  /** Reads a key and its content; how many characters they have, as far as they are compared as they are. */
  #entry(
    entry: unknown,
    at: number,
    modality: EntryOptions['modality'],
    stands: (content: unknown) => Content | Promise<Content>,
    hashes: Promise<unknown>[],
  ): number {
    const { key, content, modality: own = modality } = readEntryAt(at, () => {
      const { key, content, modality } = (entry ?? {}) as Partial<CacheLookup>;
      return { key, content, modality };
    });
    if (typeof key !== 'string') throw invalid(`The key of entry ${at} is not a string`, { index: at });
    this.kinds.push(own === undefined ? TEXT : kindOf(own, ` of entry ${at}`));
    const known = stands(content);
    if (isPromise(known)) {
      this.#strings.push(key, '');
      hashes.push(known.then((digest) => (this.#strings[2 * at + 1] = digest)));
      return 0;
    }
    this.#strings.push(key, known);
    return key.length + known.length;
  }
}

/** Reads something of an entry of the caller's. */
function readEntryAt<T>(index: number, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    throw unreadable(thrown, `Entry ${index}`, { index });
  }
}
