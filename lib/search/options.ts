// What an index of code takes and gives: options, reports, matches; and how options are read.

import { existsSync } from 'node:fs';

import type { EmbeddingError } from '../call/errors';
import { invalid, show } from '../call/input';
import { refuseOtherKind } from '../call/model-kind';
import { isInstance, optionReader, refused } from '../call/options';
import { pathNow, plainPath } from '../call/paths';
import { CrossEncoder } from '../encoders/cross-encoder';
import { GENERATOR, type GeneratorOptions } from '../generator/options';
import type { NativeFilter } from '../native/types';
import { SERVE, type ServeOptions } from '../server/serve-options';

/** Options of {@link CodeIndex}. */
export interface CodeIndexOptions {
  /** The index' file; a relative path is taken from the working directory of now. Default: `.embedcore/index.sqlite` in the directory. */
  path?: string | undefined;
  /**
   * Whether texts in none of the languages are indexed, too: in chunks that overlap (`kind: 'chunk'`, `language: 'text'`). Binary files
   * are left out. Kept with the index: `update` adds or removes them where another value is given. Default: as the index was made,
   * `false` for a new one.
   */
  textFiles?: boolean | undefined;
  /** The model that makes the vectors. Default: the built-in one. The index itself is its cache. */
  generator?: Omit<GeneratorOptions, 'cache' | 'enableCaching' | 'cacheConfig' | 'logger'> | undefined;
}

/** Options of {@link CodeIndex.update}. */
export interface IndexOptions {
  /**
   * Start over, whatever index is there: one that another model or version made, or one that is damaged, in any way.
   * Default `false`: such an index is refused.
   */
  rebuild?: boolean | undefined;
  /** How long the call waits while another process updates the same index, in milliseconds, 0 to 2147483647. Default 5000. */
  waitMs?: number | undefined;
  /** Stops the run; it rejects with `ABORTED`. What is written by then stays, and the next run goes on from there. */
  signal?: AbortSignal | undefined;
  /** Told whenever files were written. */
  progressCallback?: ((report: IndexReport) => void) | undefined;
}

/** Options of {@link CodeIndex.search}. */
export interface SearchOptions {
  /** Most answers, 1 to 1000. Default 10. */
  limit?: number | undefined;
  /** Least {@link CodeMatch.score} of an answer, 0 to 1. Default 0: the best are answered, however far they are. */
  minScore?: number | undefined;
  /**
   * Only in these files: patterns as in `.gitignore`, from the directory (`'src/'`, `'*.test.ts'`); one that begins with `!`
   * leaves out. Of several that match, the one that matches most of the path decides, and the last of those. Default: all.
   */
  paths?: string | readonly string[] | undefined;
  /** Only in these languages: see {@link CodeSymbol.language}. Default: all. */
  languages?: string | readonly string[] | undefined;
  /** Only declarations of these kinds. Default: all. */
  kinds?: CodeSymbol['kind'] | readonly CodeSymbol['kind'][] | undefined;
  /**
   * Looks again at the best answers, 50 or `limit` if that is more, with a model that reads query and source together: a
   * {@link CrossEncoder} that you have, and that is loaded if it is not; or the path or hub id of a model, which the index loads when it
   * is first needed and frees in `close()`. `score` is what that model says then, as a number from 0 to 1. Default: none.
   */
  rerank?: CrossEncoder | string | URL | undefined;
  /** Stops the call; it rejects with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /** Milliseconds after which the call is given up, with `TIMED_OUT`. Default: none. */
  timeoutMs?: number | undefined;
}

/** Options of {@link CodeIndex.similar}. */
export type SimilarCodeOptions = Omit<SearchOptions, 'rerank'>;

/** Options of {@link CodeIndex.duplicates}. */
export interface DuplicateCodeOptions extends Pick<SearchOptions, 'paths' | 'languages' | 'signal' | 'timeoutMs'> {
  /** Least cosine of a declaration and the one that it repeats, 0.5 to 1; the same source and comment have 1. Default 0.95. */
  threshold?: number | undefined;
  /** Lines that a declaration has at least, from 1. Default 5: little ones are all alike. */
  minLines?: number | undefined;
  /** Most groups, 1 to 1000. Default 100. */
  limit?: number | undefined;
  /** What is compared. Default: functions and methods with each other, classes with classes, types with types. */
  kinds?: CodeSymbol['kind'] | readonly CodeSymbol['kind'][] | undefined;
}

/** Declarations that repeat each other. */
export interface CodeDuplicates {
  /** Lines of all of them but the first: what would be spared. */
  lines: number;
  /**
   * The one that the others are like, and those, the nearest first. `similarity` is the cosine with the first one, `score` the
   * same from 0 on.
   */
  declarations: CodeMatch[];
}

/** Options of {@link CodeIndex.serve}. */
export interface SearchServeOptions extends ServeOptions, Pick<WatchOptions, 'onUpdate' | 'onError'> {}

/** Options of {@link CodeIndex.symbols}. */
export interface SymbolOptions {
  /** Most answers, 1 to 1000. Default 10. */
  limit?: number | undefined;
}

/** What is in an index. */
export interface IndexStatus {
  /** The file that it lies in. */
  path: string;
  /** Its size. */
  sizeBytes: number;
  /** The model that made its vectors, as it was named. */
  model: string;
  /** Numbers in a vector. */
  dimensions: number;
  /** Source files in it. */
  files: number;
  /** Declarations in it. */
  annotations: number;
  /** Source files by language. */
  languages: Record<string, number>;
  /** Whether texts in none of the languages are indexed, too. */
  textFiles: boolean;
}

/** Options of {@link CodeIndex.watch}. */
export interface WatchOptions {
  /**
   * Milliseconds without a change after which the index is brought up to date, at most ten times as long after the first
   * change. 0 to 60000. Default 200.
   */
  debounceMs?: number | undefined;
  /** Told what each update has done, the first one included. */
  onUpdate?: ((report: IndexReport) => void) | undefined;
  /** Told why an update failed; it is tried again, after a second at first and after half a minute at last. */
  onError?: ((error: EmbeddingError) => void) | undefined;
  /** Closes the watcher; before it has begun, the call rejects with `ABORTED`. */
  signal?: AbortSignal | undefined;
}

/** What a run of {@link CodeIndex.update} has done. */
export interface IndexReport {
  /** Source files in the index, however they came there; those that cannot be read are none. */
  files: number;
  /** Files that are new or have another content, whatever their sizes and times say. */
  changed: number;
  /** How many of those are done. */
  done: number;
  /** Files whose content is as it was, also those that cannot be read. */
  unchanged: number;
  /** Files that are gone from the tree, and now from the index. */
  removed: number;
  /** Functions, methods, classes, types, documented constants and described files in the index. */
  annotations: number;
  /** How many of them were embedded now. */
  embedded: number;
  /** How many of changed files were as they were, so that their vectors could be kept. */
  reused: number;
  /** Files in the index that are not in UTF-8, by encoding: a byte order mark decides, else the best guess. */
  encodings: Record<string, number>;
  /** Files left out, by reason. */
  skipped: Record<string, number>;
  /** Up to 100 of them, without those in other languages. */
  examples: { file: string; reason: string }[];
  /** Seconds since the run began. */
  seconds: number;
}

/** A declaration in an index. */
export interface CodeSymbol {
  /** The source file, below the directory, with `/`. */
  file: string;
  /** First line, from 1. */
  line: number;
  endLine: number;
  /**
   * A `constant` has a comment that documents it, as have functions of C and C++ whose body is elsewhere; a `file` is found by
   * what is written about it as a whole; a `section` of Markdown is what stands under a heading, up to the next one; a `chunk` is a
   * part of a text in none of the languages, called by its file and its first line: see {@link CodeIndexOptions.textFiles}.
   */
  kind: 'function' | 'method' | 'class' | 'type' | 'constant' | 'file' | 'section' | 'chunk';
  /**
   * Of the file: `'bash'`, `'c'`, `'cpp'`, `'csharp'`, `'go'`, `'java'`, `'javascript'`, `'kotlin'`, `'markdown'`, `'php'`,
   * `'python'`, `'ruby'`, `'rust'`, `'scala'`, `'sql'`, `'svelte'`, `'swift'`, `'typescript'`, `'vue'`, else `'text'`. A header `.h` is `'c'`.
   */
  language: string;
  /** Its name, after those of the declarations and modules around it: `Stack.push`. */
  name: string;
  /** Its source up to its body. */
  signature: string;
  /** Its documentation comment; may be empty. */
  summary: string;
  /**
   * There where the file has another content now than was indexed, or cannot be read any more: lines and all else are as they were
   * then. {@link CodeIndex.update} reads it again.
   */
  stale?: true;
}

/** An answer to a search. */
export interface CodeMatch extends CodeSymbol {
  /**
   * What answers are ranked by, 0 to 1, and the same whatever else is in the index; with `rerank`, what that model says. Else
   * `0.7 × max(0, similarity) + 0.22 × words + 0.08 × name`, where `words` is the share of the query's words that the declaration has,
   * each with BM25's saturation (k₁ 0.5, b 0.75, for a usual length of 60 words), and `name` that of its first 4 words that are in the
   * declaration's own name. A word that is frequent in the index weighs less than others. A declaration whose name is the query, whatever its case and separators, has `0.9 + 0.1 ×` that; one in
   * tests, fixtures or generated files has `0.9 ×` that, unless the query is about such.
   */
  score: number;
  /** Cosine of its vector and the query's, −1 to 1. */
  similarity: number;
}

const { cache: _, enableCaching: __, cacheConfig: ___, logger: ____, ...OWN_GENERATOR } = GENERATOR;

export const readOptions = optionReader<CodeIndexOptions>({ path: pathNow, textFiles: true, generator: optionReader<NonNullable<CodeIndexOptions['generator']>>(OWN_GENERATOR) });

export const readUpdate = optionReader<IndexOptions>({ rebuild: true, waitMs: true, signal: true, progressCallback: true });

export const readWatch = optionReader<WatchOptions>({ debounceMs: true, onUpdate: true, onError: true, signal: true });

/** A {@link CrossEncoder}, or what names a model for one. */
function readRerank(value: unknown, path: string): CrossEncoder | string {
  if (isInstance(value, CrossEncoder, path)) return value as CrossEncoder;
  refuseOtherKind('CrossEncoder', value, path);
  const named = plainPath(value, path);
  if (typeof named === 'string' && named !== '') {
    // Which model it is shows now, whatever the working directory becomes.
    const there = pathNow(named, path) as string;
    return named.startsWith('.') || existsSync(there) ? there : named;
  }
  throw refused(path, `${show(value)} is neither a CrossEncoder nor the path or id of a model for one`);
}

const FILTER = { paths: true, languages: true, kinds: true } as const;

const LIMITS = { signal: true, timeoutMs: true } as const;

export const readSearch = optionReader<SearchOptions>({ limit: true, minScore: true, ...FILTER, rerank: readRerank, ...LIMITS });

export const readSimilar = optionReader<SimilarCodeOptions>({ limit: true, minScore: true, ...FILTER, ...LIMITS });

export const readDuplicates = optionReader<DuplicateCodeOptions>({ threshold: true, minLines: true, limit: true, ...FILTER, ...LIMITS });

export const readServe = optionReader<SearchServeOptions>({ ...SERVE, onUpdate: true, onError: true });

/** What answers have to be, as it crosses. */
export function filterOf({ minScore = 0, paths, languages, kinds }: Pick<SearchOptions, 'minScore' | 'paths' | 'languages' | 'kinds'>): NativeFilter {
  if (typeof minScore !== 'number' || !(minScore >= 0 && minScore <= 1)) throw invalid(`minScore is ${show(minScore)}, not a number from 0 to 1`, { option: 'minScore' });
  return { minScore, paths: texts('paths', paths), languages: texts('languages', languages), kinds: texts('kinds', kinds) };
}

/** Texts that were given one by one or as a list. */
function texts(option: string, given: unknown): string[] {
  const all = given === undefined ? [] : typeof given === 'string' ? [given] : given;
  if (Array.isArray(all) && all.every((text) => typeof text === 'string')) return all as string[];
  throw invalid(`${option} is ${show(given)}, neither a string nor an array of strings`);
}

export function checkLimit(limit: number): void {
  if (!Number.isInteger(limit) || limit < 1 || limit > 1000) throw invalid(`limit is ${show(limit)}, not a whole number from 1 to 1000`, { option: 'limit' });
}

export const readSymbols = optionReader<SymbolOptions>({ limit: true });
