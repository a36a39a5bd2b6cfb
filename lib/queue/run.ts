import { EmbeddingError, errorOf, toEmbeddingError } from '../call/errors';
import { invalid, isArray, refusal, take, type Refused, type Taken } from '../call/input';
import { aborted, timedOut } from '../call/limits';
import { isPromise } from '../call/order';
import { END, openSource, sourceFailed, type Source } from '../call/source';
import { toNumbers } from '../matrix/embedding-matrix';
import type { EmbeddingResult } from '../index';
import type { Channel, JobEvent } from './channel';
import { failedOutcome, isAnswer, jobId, RELEASE, type InputType, type JobData, type Outcome, type WorkerModel } from './jobs';
import { textOf, type Embedded, type SharedVectors } from './vectors';

/** What became of an input of a run. */
export interface QueueResult extends EmbeddingResult {
  /** Its place among the inputs. Of a text, `nodeId` is empty. */
  index: number;
}

/** How far a run is. */
export interface QueueProgress {
  /** Inputs that workers have answered, failed ones included. */
  processed: number;
  /** How many there are; `null` as long as the source has not ended. */
  total: number | null;
  /** Inputs that were read from the source. */
  read: number;
  /** Inputs without a vector. */
  failed: number;
  /** Inputs that no worker had to compute. */
  fromCache: number;
  /** Chunks that wait for a worker, or that one has. */
  pendingChunks: number;
  /** How often a chunk was added again because its job was lost, or its vectors had left the shared tier. */
  requeued: number;
}

/** What came of a run. */
export interface QueueSummary extends QueueProgress {
  total: number;
  /** The model that all vectors are of; `null` where there are none. */
  modelUsed: string | null;
  fingerprint: string | null;
  durationMs: number;
}

/**
 * Inputs on their way through a queue. An async iterable of their results, each once, as they come; {@link EmbeddingRun.finished}
 * for those who only want to know when all is done. Begins at once, whether or not anybody looks.
 *
 * The source is read as far as `maxPendingChunks` chunks ahead of workers and, where results are taken, of whoever takes
 * them. Leaving the loop early cancels the run.
 */
export interface EmbeddingRun extends AsyncIterable<QueueResult> {
  /** How far it is. */
  readonly progress: QueueProgress;
  /**
   * Waits until workers have answered all inputs.
   * @throws `EmbeddingError` `ABORTED` once it was cancelled, `TIMED_OUT`, `CLOSED`; `BACKEND_UNAVAILABLE` or
   * `BACKEND_REJECTED` about the server; what the source has thrown; with `onError: 'throw'`, the first input's error.
   */
  finished(): Promise<QueueSummary>;
  /** Takes what no worker has begun out of the queue, and closes the source. What workers have begun is kept in the shared tier. */
  cancel(): Promise<void>;
  /** Results as they come, or in the order of the inputs (`order: 'input'`). There is one iteration, whoever asks for it. */
  [Symbol.asyncIterator](): AsyncGenerator<QueueResult, void, undefined>;
}

/** How a run is made. */
export interface RunSettings {
  annotated: boolean;
  chunkSize: number;
  maxPendingChunks: number;
  inputType: InputType;
  order: 'completion' | 'input';
  onError: 'skip' | 'throw';
  fingerprint: string | undefined;
  signal: AbortSignal | undefined;
  timeoutMs: number | undefined;
  progressCallback: ((processed: number, total: number | null) => void) | undefined;
}

/** Characters in a chunk, at most, unless one input has more. */
const CHUNK_CHARACTERS = 4 << 20;
/** Characters that one input may have: what Redis keeps of a job has a limit of 512 MB. */
const INPUT_CHARACTERS = 64 << 20;
/** How long an input waits for others to fill its chunk, in milliseconds. */
const PATIENCE_MS = 100;
/** How often jobs are looked after of which nothing was heard, in milliseconds. */
const LOOK_MS = 1000;
/** How often a chunk is added again, with pauses from the first one on that double, up to the longest: half a minute in all. */
const MOST_AGAIN = 8;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 10_000;
/** Characters of inputs that are kept for results that nobody takes. */
const KEPT_CHARACTERS = 32 << 20;

interface Chunk {
  /** Index of its first input. */
  first: number;
  inputs: Taken[];
  characters: number;
  id: string;
  /** When it was added, or looked after. */
  at: number;
  /** How often the server had been there anew when it was added. */
  connections: number;
  /** How often it was added again since, and how often of those because its vectors were missing. */
  again: number;
  missed: number;
  /** Forgets the job. */
  leave: (() => void) | undefined;
  pause: NodeJS.Timeout | undefined;
  outcome: Outcome | undefined;
  counted: boolean;
}

/** See the interface. */
export class Run implements EmbeddingRun {
  readonly #settings: RunSettings;
  readonly #channel: Channel;
  readonly #vectors: SharedVectors;
  readonly #begun = performance.now();
  readonly #pending = new Set<Chunk>();
  /** Those that are answered and that nobody has taken, oldest first. */
  #done: Chunk[] = [];
  #doneCharacters = 0;
  /** Inputs of those that had to be forgotten. */
  #forgotten = 0;
  #nextIndex = 0;
  #source: Source | undefined;
  #sourceEnded = false;
  #failure: EmbeddingError | undefined;
  /** Whether all was answered once. */
  #complete = false;
  /** Why it ended before its time. */
  #over: EmbeddingError | undefined;
  #model: WorkerModel | undefined;
  #iterator: AsyncGenerator<QueueResult, void, undefined> | undefined;
  #iterating = false;
  #left = false;
  #release: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #undo: (() => void) | undefined;
  /** Wakes whoever waits for something to change. */
  #changes = new Set<() => void>();
  /** Ends what the reader of the source waits for. */
  #wake: (() => void) | undefined;
  readonly #finished: Promise<QueueSummary>;
  #counts = { read: 0, processed: 0, failed: 0, fromCache: 0, requeued: 0 };

  constructor(inputs: unknown, settings: RunSettings, channel: Channel, vectors: SharedVectors, ended: (run: Run) => void) {
    [this.#settings, this.#channel, this.#vectors] = [settings, channel, vectors];
    const { annotated, signal, timeoutMs } = settings;
    // What an array holds now is what is embedded.
    const source = openSource(isArray(inputs) ? Array.from(inputs, (input, index) => take(input, annotated, index)) : inputs);
    this.#source = source;
    const onAbort = () => this.#end(aborted(signal), true);
    const timer = timeoutMs === undefined ? undefined : setTimeout(() => this.#end(timedOut(timeoutMs), true), timeoutMs);
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#undo = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    };
    if (signal?.aborted) onAbort();
    this.#finished = this.#run(source, isArray(inputs)).finally(() => {
      this.#complete = true;
      this.#settle();
      if (!this.#iterating) this.#unlisten();
      ended(this);
    });
    // Whoever does not ask need not know.
    this.#finished.catch(() => {});
  }

  get progress(): QueueProgress {
    return { ...this.#counts, total: this.#sourceEnded ? this.#counts.read : null, pendingChunks: this.#pending.size };
  }

  finished(): Promise<QueueSummary> {
    return this.#finished;
  }

  async cancel(): Promise<void> {
    await this.#end(new EmbeddingError('ABORTED', 'The run was cancelled'), true);
  }

  /** Ends it here; its jobs stay. */
  close(): void {
    void this.#end(new EmbeddingError('CLOSED', 'The queue was closed: what workers have begun goes on, and is in the shared tier later'), false);
  }

  [Symbol.asyncIterator](): AsyncGenerator<QueueResult, void, undefined> {
    if (this.#iterator) return this.#iterator;
    const results = this.#results();
    const leave = async (): Promise<IteratorReturnResult<void>> => {
      // Not left to the results: somebody may wait for one of them.
      this.#left = true;
      await this.#end(new EmbeddingError('ABORTED', 'The loop over the results was left'), true);
      await results.return();
      return { done: true, value: undefined };
    };
    return (this.#iterator = {
      next: () => results.next(),
      return: leave,
      throw: async (error: unknown) => {
        await leave();
        throw error;
      },
      [Symbol.asyncIterator]() {
        return this;
      },
      [Symbol.asyncDispose]: async () => void (await leave()),
    });
  }

  // ── From the source to the queue ──────────────────────────────────────────────────────────────────────────────────────

  async #run(source: Source, isTaken: boolean): Promise<QueueSummary> {
    try {
      await this.#hold();
      await this.#feed(source, isTaken);
    } catch (thrown) {
      this.#fail(thrown);
    }
    this.#sourceEnded = true;
    this.#changed();
    while (!this.#over && this.#pending.size > 0) await this.#change();
    if (this.#over) throw this.#over;
    if (this.#failure) throw this.#failure;
    this.#report();
    return { ...this.progress, total: this.#counts.read, modelUsed: this.#model?.modelId ?? null, fingerprint: this.#model?.fingerprint ?? null, durationMs: performance.now() - this.#begun };
  }

  /** Reads the source in chunks, and adds a job for each. */
  async #feed(source: Source, isTaken: boolean): Promise<void> {
    const { chunkSize, annotated } = this.#settings;
    let waiting: Promise<unknown> | undefined;
    let inputs: Taken[] = [];
    let characters = 0;
    let ended = false;
    while (!ended || inputs.length > 0) {
      while (!this.#over && !this.#hasRoom()) await this.#change();
      while (!ended && inputs.length < chunkSize && characters < CHUNK_CHARACTERS) {
        let item: unknown;
        try {
          item = waiting ?? source.next();
          if (isPromise(item)) item = await this.#soonest((waiting = Promise.resolve(item)), inputs.length > 0 ? PATIENCE_MS : Infinity);
        } catch (thrown) {
          // What was read before is answered first.
          this.#failure = sourceFailed(thrown, this.#counts.read);
          item = END;
        }
        if (this.#over) return;
        if (item === LATE) break;
        waiting = undefined;
        if (item === END) {
          ended = true;
          this.#source = undefined;
          break;
        }
        const index = this.#counts.read++;
        const taken = checked(isTaken ? (item as Taken) : take(item, annotated, index), index);
        inputs.push(taken);
        characters += lengthOf(taken);
      }
      if (this.#over) return;
      if (inputs.length === 0) continue;
      const first = this.#counts.read - inputs.length;
      const chunk: Chunk = { first, inputs, characters, id: '', at: 0, connections: this.#channel.connections, again: 0, missed: 0, leave: undefined, pause: undefined, outcome: undefined, counted: false };
      [inputs, characters] = [[], 0];
      // While the server is away this waits; the run ends if that takes too long.
      await this.#soonest(this.#submit(chunk));
    }
  }

  /** What `work` gives; {@link LATE} if that takes longer than it may, and when the run is over. */
  async #soonest(work: Promise<unknown>, patienceMs = Infinity): Promise<unknown> {
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise((resolve, reject) => {
        this.#wake = () => resolve(LATE);
        if (patienceMs < Infinity) timer = setTimeout(resolve, patienceMs, LATE);
        work.then(resolve, reject);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  #hasRoom(): boolean {
    return this.#pending.size + (this.#iterating ? this.#done.length : 0) < this.#settings.maxPendingChunks;
  }

  /** Adds the job of a chunk, or answers what no worker could. */
  async #submit(chunk: Chunk): Promise<void> {
    const inputs = chunk.inputs.filter((input): input is string | string[] => !isRefused(input));
    if (inputs.length === 0) return this.#answered(chunk, { errors: new Map() });
    const { inputType, fingerprint = null } = this.#settings;
    const content: JobData = { release: RELEASE, inputType, fingerprint, again: chunk.missed, inputs };
    // Which model has answered first is no content: the same chunk has the same id in every run.
    const data = { ...content, fingerprint: fingerprint ?? this.#model?.fingerprint ?? null };
    this.#pending.add(chunk);
    chunk.at = performance.now();
    chunk.id = jobId(content);
    chunk.leave = this.#channel.watch(chunk.id, (event) => this.#told(chunk, event));
    await this.#channel.add(chunk.id, data);
  }

  #told(chunk: Chunk, event: JobEvent): void {
    if (!this.#pending.has(chunk) || chunk.pause) return;
    if (event.kind === 'gone') return this.#again(chunk);
    const count = chunk.inputs.filter((input) => !isRefused(input)).length;
    const outcome = event.kind === 'failed' ? failedOutcome(event.reason, count) : isAnswer(event.result) ? { answer: event.result, errors: new Map() } : foreign(count);
    const { fingerprint = this.#model?.fingerprint } = this.#settings;
    // All vectors of a run are of one model: of the one that is expected, or that answered first.
    if (outcome.answer && fingerprint !== undefined && outcome.answer.model.fingerprint !== fingerprint) return this.#again(chunk);
    this.#model ??= outcome.answer?.model;
    this.#answered(chunk, outcome);
  }

  /** Adds a chunk again, after a while: its job is lost, or its vectors are. */
  #again(chunk: Chunk, then: () => Promise<void> = () => this.#submit(chunk)): void {
    chunk.leave?.();
    this.#pending.add(chunk);
    const { connections } = this.#channel;
    // What a server has lost because it ended says nothing about what it keeps.
    if (chunk.connections !== connections) [chunk.connections, chunk.again] = [connections, 0];
    const pause = Math.min(FIRST_PAUSE_MS * 2 ** chunk.again++, LONGEST_PAUSE_MS);
    if (chunk.again > MOST_AGAIN) return this.#answered(chunk, lost(chunk, this.#model));
    this.#counts.requeued++;
    chunk.pause = setTimeout(() => {
      chunk.pause = undefined;
      if (this.#over) return;
      this.#hold().then(then).catch((thrown: unknown) => this.#fail(thrown));
    }, pause);
  }

  /** Notes what became of a chunk; its results are made when somebody takes them. */
  #answered(chunk: Chunk, outcome: Outcome): void {
    chunk.leave?.();
    chunk.outcome = outcome;
    this.#pending.delete(chunk);
    this.#done.push(chunk);
    this.#doneCharacters += chunk.characters;
    if (!chunk.counted) {
      chunk.counted = true;
      this.#counts.processed += chunk.inputs.length;
      this.#counts.failed += outcome.errors.size + chunk.inputs.filter(isRefused).length;
      this.#counts.fromCache += outcome.answer?.cached.length ?? 0;
      this.#report();
    }
    if (!this.#iterating) this.#forget();
    if (this.#settings.onError === 'throw' && !this.#iterating) {
      const error = firstError(chunk);
      if (error) this.#fail(error);
    }
    if (this.#complete && this.#pending.size === 0) this.#settle();
    this.#changed();
  }

  /** What nobody takes is kept only so far. */
  #forget(): void {
    while (this.#doneCharacters > KEPT_CHARACTERS && this.#done.length > 1) {
      const oldest = this.#done.shift()!;
      this.#doneCharacters -= oldest.characters;
      this.#forgotten += oldest.inputs.length;
    }
  }

  // ── From the shared tier to whoever takes results ─────────────────────────────────────────────────────────────────────

  async *#results(): AsyncGenerator<QueueResult, void, undefined> {
    if (this.#forgotten > 0) {
      throw invalid(`The results of ${this.#forgotten} inputs were not taken while the run went on: iterate from the beginning. Their vectors are in the shared tier; run it again to have them`);
    }
    this.#iterating = true;
    const { signal, onError } = this.#settings;
    try {
      for (let chunk = await this.#next(); chunk; chunk = await this.#next()) {
        const results = await this.#resultsOf(chunk);
        for (const result of results ?? []) {
          if (result.error && onError === 'throw') {
            this.#fail(result.error);
            throw result.error;
          }
          yield result;
          if (signal?.aborted) throw aborted(signal);
          if (this.#over) break;
        }
      }
      if (this.#left) return;
      if (this.#over ?? this.#failure) throw this.#over ?? this.#failure;
    } finally {
      this.#done = [];
      this.#unlisten();
    }
  }

  /** The next chunk whose results can be taken; `undefined` after the last one. */
  async #next(): Promise<Chunk | undefined> {
    for (;;) {
      if (this.#over) return undefined;
      const at = this.#settings.order === 'completion' ? 0 : this.#done.findIndex(({ first }) => first === this.#nextIndex);
      const [chunk] = at < 0 ? [] : this.#done.splice(at, 1);
      if (chunk) {
        this.#doneCharacters -= chunk.characters;
        this.#changed();
        return chunk;
      }
      if (this.#sourceEnded && this.#pending.size === 0) return undefined;
      await this.#change();
    }
  }

  /** Results of a chunk; `undefined` where vectors are not in the shared tier: then they are made again, and it comes later. */
  async #resultsOf(chunk: Chunk): Promise<QueueResult[] | undefined> {
    const { answer, errors } = chunk.outcome!;
    const sent = chunk.inputs.filter((input): input is string | string[] => !isRefused(input));
    const texts = answer ? sent.map((input) => textOf(input, answer.model)) : [];
    const found = answer ? await this.#vectors.find(answer.model, this.#settings.inputType, texts) : [];
    const missing = found.some((known, at) => known === undefined && !errors.has(at));
    if (missing && !this.#over) {
      // It may be there in a moment: then nothing is computed again.
      const retry = async () => {
        await this.#vectors.reachable(this.#channel.limits.outageTimeoutMs);
        const known = await this.#vectors.find(answer!.model, this.#settings.inputType, texts);
        if (known.some((each, at) => each === undefined && !errors.has(at))) {
          chunk.missed++;
          return this.#submit(chunk);
        }
        this.#answered(chunk, chunk.outcome!);
      };
      this.#again(chunk, retry);
      return undefined;
    }
    this.#nextIndex = chunk.first + chunk.inputs.length;
    const cached = new Set(answer?.cached);
    let position = 0;
    return chunk.inputs.map((input, offset): QueueResult => {
      const index = chunk.first + offset;
      if (isRefused(input)) return failedResult(index, input.nodeId ?? '', '', '', refusal(input));
      const at = position++;
      const [nodeId, inputText] = [typeof input === 'string' ? '' : input[0]!, texts[at] ?? ''];
      const error = errors.get(at);
      if (error || !answer) return failedResult(index, nodeId, inputText, answer?.model.modelId ?? '', located(error ?? lostError(), index));
      return { index, nodeId, ...resultOf(found[at]!), inputText, processingTime: answer.ms / sent.length, modelUsed: answer.model.modelId, fromCache: cached.has(at) };
    });
  }

  // ── Beginning and end ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** Has the connections, and looks after jobs, as long as there is something to do. */
  async #hold(): Promise<void> {
    if (this.#release) return;
    const release = await this.#channel.use();
    if (this.#over || this.#release) return release();
    this.#release = release;
    this.#timer = setInterval(() => void this.#lookAfter(), LOOK_MS);
  }

  /** Looks after jobs of which nothing was heard: events may be missed, and servers lose what they had. */
  async #lookAfter(): Promise<void> {
    const { awayMs, limits } = this.#channel;
    if (awayMs > limits.outageTimeoutMs) this.#fail(this.#channel.unavailable(awayMs));
    if (awayMs > 0) return;
    const now = performance.now();
    const silent = [...this.#pending].filter((chunk) => !chunk.pause && now - chunk.at > LOOK_MS);
    for (const chunk of silent) chunk.at = now;
    await Promise.all(
      silent.map(async (chunk) => {
        const event = await this.#channel.look(chunk.id);
        if (event) this.#told(chunk, event);
      }),
    ).catch(() => {});
  }

  /** Ends the run for what went wrong in it. */
  #fail(thrown: unknown): void {
    void this.#end(toEmbeddingError(thrown), true);
  }

  /** Ends the run for a reason, once. Gives when its source is closed and its jobs are out of the queue. */
  async #end(reason: EmbeddingError, remove: boolean): Promise<void> {
    if (this.#over || (this.#sourceEnded && this.#pending.size === 0 && this.#done.length === 0)) return;
    this.#over = reason;
    const [source, release, ids] = [this.#source, this.#release, [...this.#pending].map(({ id }) => id)];
    this.#source = this.#release = undefined;
    this.#settle();
    this.#unlisten();
    this.#changed();
    this.#wake?.();
    // What closing the source throws is less than the reason.
    const closed = Promise.resolve(source?.close()).catch(() => {});
    try {
      if (remove && release && this.#channel.awayMs === 0) await this.#channel.remove(ids);
    } catch {
      // Workers find them, and nobody is there to ask for what they compute.
    } finally {
      release?.();
    }
    await closed;
  }

  /** Nothing is waited for any more: of the server, */
  #settle(): void {
    clearInterval(this.#timer);
    for (const chunk of this.#pending) {
      chunk.leave?.();
      clearTimeout(chunk.pause);
    }
    if (this.#over) this.#pending.clear();
    this.#release?.();
    this.#release = this.#timer = undefined;
  }

  /** of the caller. */
  #unlisten(): void {
    this.#undo?.();
    this.#undo = undefined;
  }

  #changed(): void {
    const changes = this.#changes;
    this.#changes = new Set();
    for (const wake of changes) wake();
  }

  /** Waits until something has changed. */
  #change(): Promise<void> {
    return new Promise((resolve) => this.#changes.add(resolve));
  }

  #report(): void {
    const { processed, total } = this.progress;
    const broken = (cause: unknown) => this.#fail(new EmbeddingError('ABORTED', 'The run was cancelled because its progress callback threw', { cause }));
    try {
      const told: unknown = this.#over ? undefined : this.#settings.progressCallback?.(processed, total);
      if (isPromise(told)) Promise.resolve(told).catch(broken);
    } catch (cause) {
      broken(cause);
    }
  }
}

const LATE = Symbol('late');

const isRefused = (input: Taken): input is Refused => typeof input !== 'string' && !Array.isArray(input);

function lengthOf(input: Taken): number {
  if (typeof input === 'string') return input.length;
  return Array.isArray(input) ? input.reduce((sum, part) => sum + part.length, 0) : 0;
}

/** An input that is not too long for a job. */
function checked(input: Taken, index: number): Taken {
  const length = lengthOf(input);
  if (length <= INPUT_CHARACTERS) return input;
  return { message: `Input ${index} has ${length} characters, more than the ${INPUT_CHARACTERS} that a job may have`, details: { index }, nodeId: Array.isArray(input) ? input[0] : undefined };
}

function resultOf({ vector, tokenCount, truncated, confidence }: Embedded): Pick<EmbeddingResult, 'embedding' | 'confidence' | 'truncated' | 'tokenCount'> {
  const embedding = toNumbers(vector as Float32Array);
  // Without a count nothing is known of a text's tokens, as on a server.
  return tokenCount > 0 ? { embedding, confidence, truncated, tokenCount } : { embedding };
}

function failedResult(index: number, nodeId: string, inputText: string, modelUsed: string, error: EmbeddingError): QueueResult {
  return { index, nodeId, embedding: [], inputText, processingTime: 0, modelUsed, error };
}

/** A worker's error with the place that the input has here. */
function located(error: EmbeddingError, index: number): EmbeddingError {
  const message = error.message.replace(/^(Text|Annotation) \d+\b/, `$1 ${index}`);
  return errorOf({ ...error.toJSON(), message, details: { ...error.details, index } });
}

function firstError({ inputs, outcome }: Chunk): EmbeddingError | undefined {
  const refused = inputs.find(isRefused);
  return refused ? refusal(refused) : outcome?.errors.values().next().value;
}

function foreign(count: number): Outcome {
  const error = new EmbeddingError('BACKEND_REJECTED', 'The chunk was answered by something that is no worker of embedcore: give the queue a name of its own');
  return { errors: new Map(Array.from({ length: count }, (_, at) => [at, error])) };
}

function lost({ inputs }: Chunk, model: WorkerModel | undefined): Outcome {
  const count = inputs.filter((input) => !isRefused(input)).length;
  const error = lostError(model);
  return { errors: new Map(Array.from({ length: count }, (_, at) => [at, error])) };
}

function lostError(model?: WorkerModel): EmbeddingError {
  const message = `The vectors of a chunk were not in the shared tier, or its job was not in the queue, ${MOST_AGAIN} times in a row${model ? ` (model ${model.modelId})` : ''}: give the server enough memory (maxmemory), and producers and workers the same server, keyPrefix and namespace`;
  return new EmbeddingError('CACHE_STORAGE_FAILED', message, { retryable: true });
}
