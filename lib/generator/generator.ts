import { annotationFields, areAnnotated, Inputs, invalid, isArray, readGiven, requireArray, show, take, takeAll, type Annotation, type Taken } from '../call/input';
import { checkWatch, watched, type Watch } from '../call/limits';
import { flag } from '../call/checks';
import { read, refused } from '../call/options';
import type { EmbeddingResult } from '../call/result';
import { toNumbers, type EmbeddingMatrix } from '../matrix/embedding-matrix';
import { chunksOf, mostTokens, readSplit, readSplitMany, requireText, settingsOf, type Chunk, type SourceText, type SplitManyOptions, type SplitOptions } from '../chunks/chunks';
import { call, native } from '../native/addon';
import type { NativeAnswer, NativeCall, NativeSession, NativeSplit } from '../native/types';
import { ChunkSource, mapped, readDocuments, type DocumentChunk, type DocumentOptions, type TextDocument } from './documents';
import { Encoder, nativeEncoder, noteStop, runOn, sendInputs, toCall, type Call, type Progress } from './encoder';
import { Images, type ImageInput } from './images';
import { convert, RESULTS_PER_TURN } from './convert';
import { readCall, readGenerator, readImageCall, readStream, type BatchProcessOptions, type CallOptions, type GeneratorOptions, type ImageCallOptions, type StreamCallOptions } from './options';
import { Stream, type StreamedVector } from './stream';
import { readCount, type CountOptions, type Tokens } from './tokens';

/** Tokens assumed for {@link prepareText} as long as no model says otherwise. */
const DEFAULT_MAX_TOKENS = 512;

/** Most tokens that can be asked for. */
const MOST_TOKENS = 2 ** 20;

/**
 * What makes embeddings; {@link OptimizedEmbeddingGenerator} is one, and is this name's value, so that
 * `generator instanceof EmbeddingGenerator` and `new EmbeddingGenerator()` work.
 */
export interface EmbeddingGenerator {
  /** Loads the model. */
  initialize(modelPath: string): Promise<void>;
  /** A vector for each text, in order. */
  generateEmbeddings(texts: string[]): Promise<number[][]>;
  /** A result for each annotation, in order. */
  batchProcess(annotations: Annotation[], options?: Partial<BatchProcessOptions>): Promise<EmbeddingResult[]>;
  /** Stops what runs and frees the model. */
  shutdown(): Promise<void>;
  /** Whether a model is loaded. */
  isReady(): boolean;
}

/**
 * Embeds texts and code annotations with one model. All methods may be called at once, from anywhere in the process;
 * work runs on native threads and never blocks the event loop.
 */
export class OptimizedEmbeddingGenerator extends Encoder implements EmbeddingGenerator {
  static {
    // Its own, too: tests of its users replace methods on its prototype.
    const { constructor: _, ...inherited } = Object.getOwnPropertyDescriptors(Encoder.prototype);
    Object.defineProperties(this.prototype, inherited);
  }

  /**
   * Loads nothing yet.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
   */
  constructor(options: GeneratorOptions = {}) {
    super(readGenerator(options));
  }

  /** What is embedded for an annotation: {@link prepareText} with the loaded model's token limit. */
  prepareText(annotation: Annotation): string {
    return prepareText(annotation, this.isReady() ? this.getModelInfo().maxLength || MOST_TOKENS : undefined);
  }

  /** Embeds annotations; a result for each, in input order. Equal texts are computed once. */
  generateEmbeddings(annotations: readonly Annotation[], options?: CallOptions): Promise<EmbeddingResult[]>;
  /** Embeds texts; a vector for each, in input order. With `onError: 'skip'`, `[]` for those that cannot be. */
  generateEmbeddings(texts: readonly string[], options?: CallOptions): Promise<number[][]>;
  async generateEmbeddings(
    inputs: readonly Annotation[] | readonly string[],
    options: CallOptions = {},
  ): Promise<EmbeddingResult[] | number[][]> {
    requireArray(inputs, 'texts or annotations');
    // All are of one kind; the call names the first that is of the other one.
    if (inputs.length > 0 && areAnnotated(inputs)) return this.batchProcess(inputs as readonly Annotation[], options);
    return this.#run(toCall(readCall(options)), inputs, false, (_, matrix, __, check) =>
      convert(matrix.rows, (index) => (matrix.errors.has(index) ? [] : toNumbers(matrix.row(index))), check),
    );
  }

  /** The same as {@link OptimizedEmbeddingGenerator.generateEmbeddings} for annotations. */
  async batchProcess(annotations: readonly Annotation[], options: BatchProcessOptions = {}): Promise<EmbeddingResult[]> {
    requireArray(annotations, 'annotations');
    return this.#run(toCall(readCall(options)), annotations, true, results);
  }

  /** Embeds texts into one matrix, in input order: the fast path, without a number object per value. */
  async embed(texts: readonly string[], options: CallOptions = {}): Promise<EmbeddingMatrix> {
    requireArray(texts, 'texts; for a single text pass [text]');
    return this.#run(toCall(readCall(options)), texts, false, (_, matrix) => matrix);
  }

  /**
   * Embeds images with a model that reads them, into one matrix, in input order: each is what its file holds (PNG, JPEG, GIF,
   * WebP or BMP), or the path of it. Equal images are computed once, and kept in the cache by their content. See `docs/images.md`
   * for how they are prepared.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for what is no image, or a damaged one, and where the model reads texts;
   * `INPUT_TOO_LONG` for one with more pixels than `maxPixels`.
   */
  async embedImages(images: readonly ImageInput[], options: ImageCallOptions = {}): Promise<EmbeddingMatrix> {
    requireArray(images, 'paths or bytes of images; for a single image pass [image]');
    const { watch, plain } = toCall(readImageCall(options));
    return runOn(this, images.length, 'images', watch, () => {
      const given = new Images(images, plain.onError === 'skip');
      const running = call(() => nativeEncoder(this).call());
      call(() => given.send(running));
      const run = async (progress: Progress) => running.runImages(plain, progress);
      return { inputs: given, running, run, finish: (_, matrix) => matrix };
    });
  }

  /** Embeds the words of a search. */
  async embedQuery(text: string, options: CallOptions = {}): Promise<Float32Array> {
    if (typeof text !== 'string') throw invalid(`The query is ${show(text)}, not a string`);
    const { plain, ...call } = toCall(readCall(options));
    checkOnError(plain.onError);
    const query = { ...call, plain: { ...plain, inputType: plain.inputType ?? 'query', onError: 'throw' } };
    return this.#run(query, [text], false, (_, matrix) => matrix.row(0));
  }

  /**
   * Embeds what an iterable or an async iterable gives, and gives results as they come. Reads no more than some hundred
   * inputs ahead of what is taken, so that it needs little memory however long the input is. An array is embedded as it is
   * now; all of it with the model of now. What was read before the source failed, or before an input that cannot be
   * embedded, is answered first. Leaving the loop early stops everything and closes the source, a stream of Node.js
   * included; so do `signal`, `timeoutMs` and `cleanup`, whatever the stream waits for.
   */
  stream(annotations: Iterable<Annotation> | AsyncIterable<Annotation>, options?: StreamCallOptions): AsyncGenerator<EmbeddingResult, void, undefined>;
  /** The same for texts: for each, its index, its vector, and what is known of its tokens. */
  stream(
    texts: Iterable<string> | AsyncIterable<string>,
    options: StreamCallOptions & ({ details: true } | { order: 'completion' }),
  ): AsyncGenerator<StreamedVector, void, undefined>;
  /** The same for texts: a vector for each. With `details` or in the order of completion, a {@link StreamedVector} for each. */
  stream(texts: Iterable<string> | AsyncIterable<string>, options?: StreamCallOptions): AsyncGenerator<Float32Array, void, undefined>;
  stream(
    inputs: Iterable<Annotation | string> | AsyncIterable<Annotation | string>,
    options: StreamCallOptions = {},
  ): AsyncGenerator<EmbeddingResult | Float32Array | StreamedVector, void, undefined> {
    const { order = 'input', details = false, ...rest } = readStream(options);
    if (order !== 'input' && order !== 'completion') throw refused('order', `${show(order)} is not 'input' or 'completion'`);
    const detailed = flag('details', details) || order === 'completion';
    const onError = checkOnError(rest.onError);
    const { watch, plain } = toCall(rest);
    const session = call(() => nativeEncoder(this).session());
    let annotated: boolean | undefined;
    const taking = (input: unknown, index: number): Taken => {
      // All are of one kind, and the first one that is of either decides.
      if (annotated === undefined && (typeof input === 'string' || (typeof input === 'object' && input !== null))) annotated = typeof input !== 'string';
      return take(input, annotated ?? false, index);
    };
    const array = isArray(inputs);
    return new Stream<Taken, EmbeddingResult | Float32Array | StreamedVector>({
      inputs: array ? Array.from(inputs as unknown[], taking) : inputs,
      take: array ? (input) => input as Taken : taking,
      order,
      watch,
      run: (items, from, signal) => {
        const own = { watch: { signal }, plain: { ...plain, onError: 'skip' }, session, from };
        const kind = annotated ?? false;
        return this.#run(own, items, kind, async (answer, matrix, taken, check) => {
          const given = kind ? await results(answer, matrix, taken, check) : detailed ? streamed(matrix, from) : vectors(matrix);
          if (onError === 'skip' || matrix.errors.size === 0) return given;
          // The first one ends the stream, where it is and not before.
          return given.map((result, index) => matrix.errors.get(index) ?? result);
        });
      },
      begin: (stop) => {
        const forget = noteStop(this, stop);
        return () => {
          forget();
          session.release();
        };
      },
    });
  }

  /**
   * How many tokens each text has as the model reads it: special tokens and the prompt included, before anything is cut off. What
   * is above `getModelInfo().maxLength` is cut when it is embedded.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` where a server counts the tokens, or the model reads images;
   * `INPUT_TOO_LONG` for a text of more than 1 MB.
   */
  async countTokens(texts: readonly string[], options: CountOptions = {}): Promise<Uint32Array> {
    requireArray(texts, 'texts; for a single text pass [text]');
    const { query, watch } = reading(readCount(options));
    const inputs = takeAll(texts, false, false);
    return this.#read(inputs, watch, async (running) => Uint32Array.from(await running.countTokens(query)));
  }

  /**
   * The tokens of a text as the model reads it: special tokens and the prompt included, before anything is cut off.
   * @throws {@link EmbeddingError} as {@link OptimizedEmbeddingGenerator.countTokens}.
   */
  async tokenize(text: string, options: CountOptions = {}): Promise<Tokens> {
    if (typeof text !== 'string') throw invalid(`The text is ${show(text)}, not a string`);
    const { query, watch } = reading(readCount(options));
    return this.#read(takeAll([text], false, false), watch, async (running) => {
      const { ids, tokens, offsets } = await running.tokenize(query);
      const pairs = Array.from(tokens, (_, at): [number, number] => [offsets[2 * at]!, offsets[2 * at + 1]!]);
      return { ids: Uint32Array.from(ids), tokens: Array.from(tokens), offsets: pairs };
    });
  }

  /**
   * Splits a text into chunks that the model reads whole: exact places, all of the text but the white space between them, each
   * chunk cut at the highest structure that fits (heading or declaration, block, sentence, word, grapheme). What has begun inside a
   * section does not run on into the next one.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` for a limit that has no room beside special tokens and prompt, and as
   * {@link OptimizedEmbeddingGenerator.countTokens}.
   */
  async split(text: string, options: SplitOptions = {}): Promise<Chunk[]> {
    const { path, ...given } = readSplit(options);
    const [chunks] = await this.splitMany([{ text, path }], given);
    return chunks!;
  }

  /** The chunks of each of many texts, in order, split on all threads. See {@link OptimizedEmbeddingGenerator.split}. */
  async splitMany(sources: readonly (string | SourceText)[], options: SplitManyOptions = {}): Promise<Chunk[][]> {
    requireArray(sources, 'texts or { text, path }');
    const { maxTokens, ...settings } = readSplitMany(options);
    const most = mostTokens(maxTokens);
    const { plain, watch } = settingsOf(settings, most);
    // Not `map`, which leaves holes out.
    const given = Array.from(readGiven('The sources', () => Array.from(sources)), sourceOf);
    return this.#splitAll(given, plain, watch, nativeEncoder(this));
  }

  /**
   * Splits documents and embeds their chunks, as they come: equal chunks once, those that are in the cache not at all. Reads some
   * documents ahead of what is taken. As with {@link OptimizedEmbeddingGenerator.stream}, leaving the loop early stops everything and
   * closes the source.
   */
  streamDocuments(
    documents: Iterable<TextDocument> | AsyncIterable<TextDocument>,
    options: DocumentOptions = {},
  ): AsyncGenerator<DocumentChunk, void, undefined> {
    const { maxTokens, bypassCache, signal, timeoutMs, ...given } = readDocuments(options);
    const { plain, watch } = settingsOf({ ...given, signal }, mostTokens(maxTokens));
    const session = call(() => nativeEncoder(this).session());
    const chunks = new ChunkSource(documents, (sources) => this.#splitAll(sources, plain, watch, session), () => session.release());
    const stream = this.stream(chunks as AsyncIterable<string>, { details: true, bypassCache, signal, timeoutMs });
    return mapped(stream, (vector) => chunks.taken(vector));
  }

  async #splitAll(sources: readonly SourceText[], plain: NativeSplit, watch: Watch<never>, on: Pick<NativeSession, 'call'>): Promise<Chunk[][]> {
    // An empty path is none.
    const inputs = takeAll(sources.flatMap(({ text, path = '' }) => [text, path]), false, false);
    const found = await this.#read(inputs, watch, (running) => running.split(plain), on);
    return found.map((each, at) => chunksOf(sources[at]!.text, each));
  }

  /** A call that makes no vectors. */
  async #read<T>(inputs: Inputs, watch: Watch<never>, work: (running: NativeCall) => Promise<T>, on: Pick<NativeSession, 'call'> = nativeEncoder(this)): Promise<T> {
    const running = call(() => on.call());
    return watched(watch, () => running.cancel(), async (_, check) => {
      await sendInputs(running, inputs, check);
      return work(running);
    });
  }

  /** One call, from its inputs to what `finish` makes of the answer. */
  async #run<T>(
    { watch, plain, session, from = 0 }: Call,
    given: readonly unknown[],
    annotated: boolean,
    finish: (answer: NativeAnswer, matrix: EmbeddingMatrix, inputs: Inputs, check: () => void) => T | Promise<T>,
  ): Promise<T> {
    return runOn(this, given.length, 'texts', watch, () => {
      const inputs = session ? collect(given as readonly Taken[], annotated) : takeAll(given, annotated, plain.onError === 'skip');
      const running = call(() => (session ?? nativeEncoder(this)).call());
      const run = async (progress: Progress, check: () => void) => {
        await sendInputs(running, inputs, check);
        return running.run(annotated, from, plain, progress);
      };
      return { inputs, running, run, finish: (answer, matrix, check) => finish(answer, matrix, inputs, check) };
    });
  }
}

/** See the interface. */
export const EmbeddingGenerator: typeof OptimizedEmbeddingGenerator = OptimizedEmbeddingGenerator;

/** How a call is made that makes no vectors. */
function reading({ inputType = 'document', signal, timeoutMs }: CountOptions): { query: boolean; watch: Watch<never> } {
  if (inputType !== 'document' && inputType !== 'query') throw refused('inputType', `${show(inputType)} is not 'document' or 'query'`);
  return { query: inputType === 'query', watch: checkWatch<never>({ signal, timeoutMs }) };
}

/** A text to be split, as it is now. */
function checkOnError(onError: unknown = 'throw'): 'throw' | 'skip' {
  if (onError === 'throw' || onError === 'skip') return onError;
  throw refused('onError', `${show(onError)} is not 'throw' or 'skip'`);
}

function sourceOf(given: unknown, index: number): SourceText {
  const what = `The text of source ${index}`;
  const isObject = typeof given === 'object' && given !== null;
  const text = isObject ? read(given, 'text', what) : given;
  const path = isObject ? read(given, 'path', `The path of source ${index}`) : undefined;
  requireText(text, what);
  if (path !== undefined && typeof path !== 'string') throw invalid(`The path of source ${index} is ${show(path)}, not a string`, { index });
  return { text, path };
}

function collect(given: readonly Taken[], annotated: boolean): Inputs {
  const inputs = new Inputs(annotated);
  for (const each of given) inputs.add(each);
  return inputs;
}

/** What became of each annotation. */
function results(answer: NativeAnswer, matrix: EmbeddingMatrix, { strings }: Inputs, check: () => void): Promise<EmbeddingResult[]> {
  const times = answer.processingTimes();
  const confidences = answer.confidences();
  // Without a count nothing is known of a text's tokens, as on a server; but that something was cut off before is.
  const about = (index: number, failed: boolean): Partial<EmbeddingResult> => {
    const truncated = matrix.truncated[index] === 1;
    const tokenCount = matrix.tokenCounts[index]!;
    if (tokenCount > 0 || failed) return { confidence: confidences[index]!, truncated, tokenCount };
    return truncated ? { truncated } : {};
  };
  let texts: string[] = [];
  return convert(
    matrix.rows,
    (index) => {
      const offset = index % RESULTS_PER_TURN;
      if (offset === 0) texts = answer.texts(index, Math.min(index + RESULTS_PER_TURN, matrix.rows));
      const error = matrix.errors.get(index);
      return {
        nodeId: strings[4 * index]!,
        embedding: error ? [] : toNumbers(matrix.row(index)),
        inputText: texts[offset]!,
        processingTime: times[index]!,
        modelUsed: answer.modelId,
        fromCache: matrix.fromCache[index] === 1,
        ...about(index, error !== undefined),
        ...(error && { error }),
      };
    },
    check,
  );
}

/** A vector of its own for each text; an empty one for each that has none. */
function vectors(matrix: EmbeddingMatrix): Float32Array[] {
  return Array.from({ length: matrix.rows }, (_, index) => (matrix.errors.has(index) ? new Float32Array() : matrix.row(index).slice()));
}

/** The same with what is known of each; `from`: the index of the first one. */
function streamed(matrix: EmbeddingMatrix, from: number): StreamedVector[] {
  return vectors(matrix).map((embedding, at) => {
    const error = matrix.errors.get(at);
    const known = { truncated: matrix.truncated[at] === 1, tokenCount: matrix.tokenCounts[at]!, fromCache: matrix.fromCache[at] === 1 };
    return { index: from + at, embedding, ...known, ...(error && { error }) };
  });
}

/**
 * The text that is embedded for an annotation: `Signature: … | Summary: … | Code: …`, comments stripped from the code,
 * white space folded, cut to 8 characters for each of `maxTokens` (default 512) and never inside a code point. Empty
 * parts are left out; an annotation without any gives `Node: <nodeId>`.
 */
export function prepareText(annotation: Annotation, maxTokens: number = DEFAULT_MAX_TOKENS): string {
  if (!Number.isInteger(maxTokens) || maxTokens < 1 || maxTokens > MOST_TOKENS) {
    throw invalid(`maxTokens is ${show(maxTokens)}, not a whole number from 1 to ${MOST_TOKENS}`);
  }
  const [nodeId, signature, summary, code] = annotationFields(annotation, 'The annotation') as [string, string, string, string];
  return call(() => native().prepareText(nodeId, signature, summary, code, maxTokens));
}
