import { whole } from '../call/checks';
import { invalid, show } from '../call/input';
import { checkWatch, watched, type Watch } from '../call/limits';
import { optionReader, refused, type Names } from '../call/options';
import { native } from '../native/addon';
import type { NativeChunks, NativeSplit } from '../native/types';

/** A part of a text. */
export interface TextChunk {
  /** `source.slice(start, end)`. */
  text: string;
  /** Where it begins in its source, in UTF-16 units, as strings count. */
  start: number;
  /** Where it ends. */
  end: number;
  /** The headings, or the names of the declarations, that it stands under: the outermost first. */
  headings: string[];
  /** Its first line in its source, from 1. */
  line: number;
}

/** A part of a text that a model reads whole. */
export interface Chunk extends TextChunk {
  /** How many tokens it has as the model reads it, special tokens and prompt included. */
  tokens: number;
}

/** How a text is read: what kinds of places it may be cut at. */
export interface TextFormat {
  /**
   * `'markdown'`: at headings, blocks, items and rows; `'code'`: at declarations and statements of the language, or else at blank
   * lines and lines; `'text'`: at paragraphs. All of them then at sentences, words, graphemes. Default `'auto'`: by `language` or
   * by the ending of `path`; without either, Markdown if there is a heading or a fence in it, else text.
   */
  format?: 'auto' | 'text' | 'markdown' | 'code' | undefined;
  /**
   * The language of code: `'bash'`, `'c'`, `'cpp'`, `'csharp'`, `'go'`, `'java'`, `'javascript'`, `'kotlin'`, `'php'`, `'python'`,
   * `'ruby'`, `'rust'`, `'scala'`, `'swift'`, `'typescript'`, `'markdown'`, or an ending of its files.
   */
  language?: string | undefined;
  /** Where the text is from; only its ending matters, and nothing is read. */
  path?: string | undefined;
}

/** What stops splitting. */
interface Stops {
  /** Stops it; it rejects with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /** Gives up after so many milliseconds; it rejects with `TIMED_OUT`. Default: never. */
  timeoutMs?: number | undefined;
}

/** Options of {@link OptimizedEmbeddingGenerator.splitMany}. */
export interface SplitManyOptions extends Omit<TextFormat, 'path'>, Stops {
  /**
   * Most tokens of a chunk as the model reads it, special tokens and prompt included. Default, and where it is more: as many as
   * the model reads.
   */
  maxTokens?: number | undefined;
  /** Most tokens of a chunk that are repeated at the beginning of the next one. Default 0. */
  overlap?: number | undefined;
}

/** Options of {@link OptimizedEmbeddingGenerator.split}. */
export interface SplitOptions extends SplitManyOptions, TextFormat {}

/** Options of {@link splitText}. */
export interface SplitTextOptions extends TextFormat, Stops {
  /** Most characters of a chunk, as strings count them (UTF-16 units). Default 1000. */
  maxCharacters?: number | undefined;
  /** Most characters of a chunk that are repeated at the beginning of the next one. Default 0. */
  overlap?: number | undefined;
}

/** A text to be split, and where it is from. */
export interface SourceText {
  text: string;
  /** See {@link TextFormat.path}. */
  path?: string | undefined;
}

const MANY: Names<SplitManyOptions> = { format: true, language: true, signal: true, timeoutMs: true, maxTokens: true, overlap: true };
export const readSplitMany = optionReader<SplitManyOptions>(MANY);
export const readSplit = optionReader<SplitOptions>({ ...MANY, path: true });
const readSplitText = optionReader<SplitTextOptions>({
  format: true,
  language: true,
  path: true,
  signal: true,
  timeoutMs: true,
  maxCharacters: true,
  overlap: true,
});

const FORMATS = ['auto', 'text', 'markdown', 'code'];
/** Places in a text are numbers of 32 bits. */
const MOST = 2 ** 32 - 1;

/**
 * Splits a text into chunks of at most so many characters, without a model: exact places, all of it but the white space between
 * them, each chunk cut at the highest structure that fits. For a model's own tokens, see {@link OptimizedEmbeddingGenerator.split}.
 * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what is no string; `INVALID_CONFIG` naming the option.
 */
export async function splitText(text: string, options: SplitTextOptions = {}): Promise<TextChunk[]> {
  const { maxCharacters = 1000, ...given } = readSplitText(options);
  const most = whole('maxCharacters', maxCharacters, 1, MOST);
  const { plain, watch, path } = settingsOf(given, most);
  requireText(text, 'The text');
  const splitter = new (native().NativeSplitter)();
  const found = await watched(watch, () => splitter.cancel(), () => splitter.split(text, path, plain));
  return chunksOf(text, found).map(({ tokens: _, ...chunk }) => chunk);
}

let known: readonly string[] | undefined;

/** Names of languages, the last of them `markdown`; then endings of files. */
const languages = (): readonly string[] => (known ??= native().splitLanguages());

/** What crosses to the native side, and what does not. */
export function settingsOf(
  { format = 'auto', language, path, overlap = 0, signal, timeoutMs }: TextFormat & Stops & { overlap?: number | undefined },
  most: number | undefined,
): { plain: NativeSplit; watch: Watch<never>; path: string | undefined } {
  if (!FORMATS.includes(format)) throw refused('format', `${show(format)} is none of ${FORMATS.map((known) => `'${known}'`).join(', ')}`);
  for (const [name, value] of Object.entries({ language, path })) {
    if (value !== undefined && typeof value !== 'string') throw refused(name, `${show(value)} is not a string`);
  }
  if (language !== undefined && !languages().includes(language.toLowerCase())) {
    const names = languages();
    throw refused('language', `${show(language)} is unknown; known are ${names.slice(0, names.indexOf('markdown') + 1).join(', ')}, and endings of their files`);
  }
  const repeated = whole('overlap', overlap, 0, MOST);
  if (most !== undefined && repeated >= most) throw refused('overlap', `${repeated} is not less than the ${most} of a chunk: nothing new would fit`);
  const plain = { overlap: repeated, format, ...(most !== undefined && { most }), ...(language !== undefined && { language }) };
  return { plain, watch: checkWatch<never>({ signal, timeoutMs }), path };
}

/** The limit that was asked for. */
export function mostTokens(maxTokens: unknown): number | undefined {
  return maxTokens === undefined ? undefined : whole('maxTokens', maxTokens, 1, MOST);
}

export function requireText(text: unknown, what: string): asserts text is string {
  if (typeof text !== 'string') throw invalid(`${what} is ${show(text)}, not a string`);
  if (text.length > MOST) throw invalid(`${what} has ${text.length} characters, more than ${MOST}`);
}

/** The chunks of a source, where the native side has found them. */
export function chunksOf(source: string, { numbers, headings }: NativeChunks): Chunk[] {
  const chunks: Chunk[] = [];
  let heading = 0;
  for (let at = 0; at < numbers.length; at += 5) {
    const [start, end, tokens, line, count] = numbers.subarray(at, at + 5) as unknown as [number, number, number, number, number];
    chunks.push({ text: source.slice(start, end), start, end, tokens, headings: headings.slice(heading, (heading += count)), line });
  }
  return chunks;
}
