import { basename, join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { flag, functionOf, milliseconds, whole } from '../call/checks';
import { messageOf } from '../call/errors';
import { invalid, show } from '../call/input';
import { optionReader, record, refused } from '../call/options';
import { pathNow } from '../call/paths';
import { EmbeddingError, type PerformanceMonitor } from '../index';
import { showPanel, type DashboardPanel, type PanelSource } from '../monitor/panels';
import { BatchFileProcessor } from './files';
import { functionRunner, limited, type ItemFunction } from './function-runner';
import { callOf, streamOf, type Items } from './map';
import { monitorOf } from './options';
import { failed, ResultsFile } from './results-file';
import { Source } from './source';
import { RunningStats, type ScoreStats } from './statistics';

/** Numbers by name: what a sample scores. */
export type Scores = Readonly<Record<string, number>>;

/** What an evaluation is told beside the sample. */
export interface EvaluationContext {
  id: string;
  index: number;
  /** Aborted when the result no longer counts. */
  signal: AbortSignal;
}

/** What came of a sample: scores, or an error. */
export interface EvaluationResult {
  id: string;
  /** Its place among the samples of the call. */
  index: number;
  scores?: Scores;
  /** As it was thrown. In `results.jsonl`, its name, message and code. */
  error?: unknown;
  durationMs: number;
  /** When it was done, in milliseconds since 1970. */
  at: number;
}

/** Options of {@link RealtimeEvaluator}. */
export interface RealtimeEvaluatorOptions<Sample> {
  /** Scores a sample: finite numbers by name. What it throws becomes the `error` of its result. */
  evaluate: (sample: Sample, context: EvaluationContext) => Scores | PromiseLike<Scores>;
  /**
   * A folder, made if it is not there: results are appended to its `results.jsonl` as they come, and `summary.json` is
   * written at the end of each call. Default: no files.
   */
  outputDirectory?: string | URL | undefined;
  /** Who is told of each sample, as the operation `evaluate`. Default: the global monitor. `false`: nobody. */
  monitor?: PerformanceMonitor | false | undefined;
  /** Samples at a time, from 1. Default 1. */
  concurrency?: number | undefined;
  /** The latest results that {@link RealtimeEvaluator.getMetricsHistory} knows, from 0. Default 10000. */
  keepResults?: number | undefined;
  /** Longest time for a sample, in milliseconds, above 0; then its error is `TIMED_OUT`. Default: no limit. */
  timeoutMs?: number | undefined;
}

/** Options of {@link RealtimeEvaluator.evaluateStream} and {@link RealtimeEvaluator.evaluateBatch}. */
export interface EvaluateOptions<Sample> {
  /** The id of a sample, any text. Default: its index. */
  sampleId?: ((sample: Sample, index: number) => string) | undefined;
  /** Leaves out samples whose ids are in `results.jsonl` already; what is there counts in the statistics. Default `false`. */
  resume?: boolean | undefined;
  /** Ends the call, with `ABORTED`. What was evaluated stays. */
  signal?: AbortSignal | undefined;
}

/** What an evaluator knows of all samples since it was made or {@link RealtimeEvaluator.reset}. */
export interface AggregateStats {
  /** By the name of the score. */
  scores: Record<string, ScoreStats>;
  totalSamples: number;
  failedSamples: number;
  /** Wall time inside calls, in milliseconds. */
  totalTimeMs: number;
  /** Samples a second of that time; 0 before the first. */
  throughput: number;
}

/** A value of one score. */
export interface ScoreRecord {
  id: string;
  index: number;
  at: number;
  value: number;
}

/** Samples, and scores, on the page of a dashboard. */
const NEWEST = 20;
const SCORES_SHOWN = 20;

const readOptions = optionReader<RealtimeEvaluatorOptions<never>>({
  evaluate: true, outputDirectory: pathNow, monitor: true, concurrency: true, keepResults: true, timeoutMs: true,
});

const readCallOptions = optionReader<EvaluateOptions<never>>({ sampleId: true, resume: true, signal: true });

interface Identified<Sample> {
  sample: Sample;
  id: string;
  index: number;
}

/**
 * Evaluates samples as they come, keeps running statistics of every score in constant memory, and, if it is told to, a file
 * with all results that a later run goes on with.
 */
export class RealtimeEvaluator<Sample = unknown> implements AsyncDisposable {
  readonly #evaluate: RealtimeEvaluatorOptions<Sample>['evaluate'];
  readonly #directory: string | undefined;
  readonly #results: ResultsFile | undefined;
  readonly #monitor: PerformanceMonitor | undefined;
  readonly #concurrency: number;
  readonly #keepResults: number;
  readonly #timeoutMs: number | undefined;
  #stats = new Map<string, RunningStats>();
  #kept: EvaluationResult[] = [];
  /** The latest ones, for the page of a dashboard. */
  #newest: EvaluationResult[] = [];
  /** Where the oldest of {@link #kept} is, once it is full. */
  #oldest = 0;
  #totalSamples = 0;
  #failedSamples = 0;
  #totalTimeMs = 0;
  /** Calls of {@link RealtimeEvaluator.evaluateBatch} that run, streams that are read, and samples that are evaluated. */
  readonly #batches = new Set<Promise<unknown>>();
  readonly #streams = new Set<{ readonly asked: boolean; unasked(): Promise<void> }>();
  readonly #working = new Set<Promise<unknown>>();
  #unsaved = false;
  #closing: Promise<void> | undefined;
  readonly #files = new BatchFileProcessor({ monitor: false });
  readonly #panel: PanelSource = { panel: () => this.#show() };
  readonly #hidePanel: (() => void) | undefined;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
  constructor(options: RealtimeEvaluatorOptions<Sample>) {
    const { evaluate, outputDirectory, monitor, concurrency = 1, keepResults = 10_000, timeoutMs } = readOptions(options) as RealtimeEvaluatorOptions<Sample>;
    if (typeof evaluate !== 'function') throw refused('evaluate', `${show(evaluate)} is not a function`);
    if (outputDirectory !== undefined && (typeof outputDirectory !== 'string' || outputDirectory === '')) throw refused('outputDirectory', `${show(outputDirectory)} is not a path`);
    this.#evaluate = evaluate;
    this.#directory = outputDirectory;
    this.#results = this.#directory === undefined ? undefined : new ResultsFile(join(this.#directory, 'results.jsonl'));
    this.#monitor = monitorOf(monitor);
    this.#concurrency = whole('concurrency', concurrency, 1);
    this.#keepResults = whole('keepResults', keepResults, 0, 10_000_000);
    this.#timeoutMs = milliseconds('timeoutMs', timeoutMs);
    this.#hidePanel = this.#monitor && showPanel(this.#monitor, this.#panel);
  }

  /**
   * Evaluates samples of an iterable or an async iterable, and gives a result for each, in their order, as they come. Reads
   * little ahead of what is taken; leaving the loop ends it. A result that is given is in `results.jsonl`.
   *
   * @throws What the source or `sampleId` throws; `EmbeddingError` `ABORTED`; `CACHE_STORAGE_FAILED` where a file cannot be
   * read or written; `CLOSED`.
   */
  evaluateStream(samples: Items<Sample>, options: EvaluateOptions<Sample> = {}): AsyncGenerator<EvaluationResult, void, undefined> {
    const { sampleId = (_: Sample, index: number) => `${index}`, resume = false, signal } = readCallOptions(options) as EvaluateOptions<Sample>;
    functionOf('sampleId', sampleId);
    this.#refuseClosed();
    if (flag('resume', resume) && !this.#results) throw refused('resume', 'there are no earlier results without outputDirectory');
    const source = new Source<Sample>(samples);
    const known = resume ? this.#known(this.#results!) : undefined;
    known?.catch(() => {});
    const call = callOf({ concurrency: this.#concurrency, signal, monitor: false });
    const runner = functionRunner((item: Identified<Sample>, _, stop) => kept(this.#working, this.#one(item, stop)), undefined);
    const since = performance.now();
    let counted = 0;
    const clock = () => {
      this.#totalTimeMs += performance.now() - since - counted;
      counted = performance.now() - since;
    };
    const begin = () => {
      this.#refuseClosed();
      this.#streams.add(results);
    };
    // Until its results and the summary are in the files, it is one that close waits for.
    const finish = () => this.#finish().finally(() => this.#streams.delete(results));
    const results = streamOf(identified(source, sampleId, known), { ...call, runner, counted: clock, begin, finish }, {});
    return results as AsyncGenerator<EvaluationResult, void, undefined>;
  }

  /** The same, with all results at once. */
  async evaluateBatch(samples: Items<Sample>, options?: EvaluateOptions<Sample>): Promise<EvaluationResult[]> {
    return kept(this.#batches, this.#collect(samples, options));
  }

  async #collect(samples: Items<Sample>, options: EvaluateOptions<Sample> | undefined): Promise<EvaluationResult[]> {
    const results: EvaluationResult[] = [];
    for await (const result of this.evaluateStream(samples, options)) results.push(result);
    return results;
  }

  /** The statistics of all samples so far. May be asked for at any time. */
  getAggregateStats(): AggregateStats {
    const [totalSamples, failedSamples, totalTimeMs] = [this.#totalSamples, this.#failedSamples, this.#totalTimeMs];
    const scores = Object.fromEntries([...this.#stats].map(([name, stats]) => [name, stats.get()]));
    return { scores, totalSamples, failedSamples, totalTimeMs, throughput: totalTimeMs > 0 ? (totalSamples / totalTimeMs) * 1000 : 0 };
  }

  /** The latest results, oldest first; or the latest values of one score. */
  getMetricsHistory(): EvaluationResult[];
  getMetricsHistory(name: string): ScoreRecord[];
  getMetricsHistory(name?: string): EvaluationResult[] | ScoreRecord[] {
    const kept = [...this.#kept.slice(this.#oldest), ...this.#kept.slice(0, this.#oldest)];
    if (name === undefined) return kept.map(copyOf);
    if (typeof name !== 'string') throw invalid(`The name is ${show(name)}, not the name of a score`);
    return kept.flatMap(({ id, index, at, scores }) => (scores && Object.hasOwn(scores, name) ? [{ id, index, at, value: scores[name]! }] : []));
  }

  /**
   * Writes the statistics as they are now, as JSON, whole or not at all, and gives the path. Default: `summary.json` in
   * `outputDirectory`. Of several calls the last one counts.
   * @throws `EmbeddingError` `CACHE_STORAGE_FAILED`; `INVALID_ARGUMENT` where there is no path.
   */
  async saveSummary(path?: string | URL): Promise<string> {
    const to = pathNow(path, 'path') ?? (this.#directory && join(this.#directory, 'summary.json'));
    if (typeof to !== 'string' || to === '') throw invalid('There is no path to save to: pass one, or the option outputDirectory');
    const content = `${JSON.stringify(this.getAggregateStats(), undefined, 2)}\n`;
    const [written] = await this.#files.writeBatch([{ path: to, content }]);
    if (written?.error) throw failed(to, 'written', written.error);
    return to;
  }

  /** Forgets statistics and history; files stay. */
  reset(): void {
    this.#stats = new Map();
    [this.#kept, this.#newest] = [[], []];
    [this.#oldest, this.#totalSamples, this.#failedSamples, this.#totalTimeMs] = [0, 0, 0, 0];
  }

  /**
   * Takes no more calls: they have `CLOSED`. Resolves when those before are done and their results and the summary are in the
   * files; a stream whose reader pauses is not waited for, and writes the rest when it ends. Its panel leaves the dashboards.
   * @throws `EmbeddingError` `CACHE_STORAGE_FAILED`.
   */
  close(): Promise<void> {
    this.#closing ??= this.#end();
    return this.#closing;
  }

  async #end(): Promise<void> {
    this.#hidePanel?.();
    await Promise.allSettled(this.#batches);
    for (;;) {
      // A reader who does not pause has asked again by then, and the next sample has begun, for which a turn may be waited, too.
      await nextTurn();
      await nextTurn();
      const asked = [...this.#streams].filter((stream) => stream.asked);
      if (asked.length + this.#working.size > 0) await Promise.allSettled([...this.#working, ...asked.map((stream) => stream.unasked())]);
      // A sample that comes while the summary is written is to be in it, too.
      else if (this.#unsaved) await this.#finish();
      else return;
    }
  }

  #refuseClosed(): void {
    if (this.#closing) throw new EmbeddingError('CLOSED', 'The RealtimeEvaluator is closed: make another one');
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** What the page of a dashboard shows: means with their spread over time, statistics, the newest samples. */
  #show(): DashboardPanel {
    const stats = [...this.#stats].slice(0, SCORES_SHOWN).map(([name, each]) => ({ name, ...each.get() }));
    const rows = [...this.#newest].reverse().map(({ id, scores, durationMs, error }) => [
      id,
      ...stats.map(({ name }) => scores?.[name] ?? null),
      `${Number(durationMs.toPrecision(3))} ms`,
      error === undefined && scores ? null : messageOf(error),
    ]);
    return {
      title: this.#directory === undefined ? 'Evaluation' : `Evaluation in ${basename(this.#directory)}`,
      values: Object.fromEntries(stats.map(({ name, mean, std }) => [name, { value: mean, low: mean - std, high: mean + std }])),
      tables: [
        {
          title: `${this.#totalSamples} samples, ${this.#failedSamples} failed`,
          columns: ['Score', 'Count', 'Mean', 'Std', 'Min', 'p50', 'p95', 'Max'],
          rows: stats.map(({ name, count, mean, std, min, p50, p95, max }) => [name, count, mean, std, min, p50, p95, max]),
        },
        { title: 'Newest samples', columns: ['Sample', ...stats.map(({ name }) => name), 'Time', 'Error'], rows },
      ],
    };
  }

  async #finish(): Promise<void> {
    this.#unsaved = false;
    if (!this.#results) return;
    await this.#results.close();
    await this.saveSummary();
  }

  /** Evaluates a sample; what goes wrong is its result. Rejects only where that cannot be written. */
  async #one({ sample, id, index }: Identified<Sample>, signal: AbortSignal): Promise<EvaluationResult> {
    const evaluate: ItemFunction<Sample, Scores> = (each, _, stop) => this.#evaluate(each, { id, index, signal: stop });
    const started = performance.now();
    let outcome: Pick<EvaluationResult, 'scores' | 'error'>;
    try {
      outcome = { scores: checked(await (this.#timeoutMs === undefined ? evaluate : limited(evaluate, this.#timeoutMs, 'Sample'))(sample, index, signal)) };
    } catch (error) {
      outcome = { error };
    }
    const result = { id, index, ...outcome, durationMs: performance.now() - started, at: Date.now() };
    if (signal.aborted) return result;
    this.#monitor?.record('evaluate', result.durationMs, { success: 'scores' in outcome, ...('error' in outcome && { error: outcome.error }) });
    this.#keep(result);
    this.#unsaved = true;
    await this.#results?.append(asLine(result));
    return result;
  }

  #keep(given: EvaluationResult): void {
    // Whoever gets the result may do with it what they like.
    const result = copyOf(given);
    this.#newest.push(result);
    if (this.#newest.length > NEWEST) this.#newest.shift();
    this.#count(result.scores);
    if (this.#keepResults === 0) return;
    if (this.#kept.length < this.#keepResults) {
      this.#kept.push(result);
      return;
    }
    this.#kept[this.#oldest] = result;
    this.#oldest = (this.#oldest + 1) % this.#keepResults;
  }

  #count(scores: Scores | undefined): void {
    this.#totalSamples++;
    if (!scores) this.#failedSamples++;
    for (const [name, value] of Object.entries(scores ?? {})) {
      let stats = this.#stats.get(name);
      if (!stats) this.#stats.set(name, (stats = new RunningStats()));
      stats.add(value);
    }
  }

  /** The ids in the file. What it holds is counted, once. */
  async #known(file: ResultsFile): Promise<Set<string>> {
    const ids = new Set<string>();
    const count = this.#totalSamples === 0;
    for await (const line of file.read()) {
      const { id, scores } = (line ?? {}) as Partial<EvaluationResult>;
      if (typeof id !== 'string' || ids.has(id)) continue;
      ids.add(id);
      if (count) this.#count(areScores(scores) ? scores : undefined);
    }
    return ids;
  }
}

/** The same promise, which is among `all` as long as it is not settled. */
function kept<T>(all: Set<Promise<unknown>>, running: Promise<T>): Promise<T> {
  all.add(running);
  const over = () => void all.delete(running);
  running.then(over, over);
  return running;
}

/** Samples with their ids, without those that are known. */
function identified<Sample>(source: Source<Sample>, sampleId: (sample: Sample, index: number) => string, known: Promise<Set<string>> | undefined): AsyncIterable<Identified<Sample>> {
  const samples = (async function* (): AsyncGenerator<Identified<Sample>, void, undefined> {
    try {
      const done = await known;
      for (;;) {
        const { items, first: index } = await source.take(1);
        if (items.length === 0) return;
        const sample = (await items[0]) as Sample;
        const id = sampleId(sample, index);
        if (typeof id !== 'string') throw invalid(`sampleId answered ${show(id)} for sample ${index}, not a string`, { index });
        if (!done?.has(id)) yield { sample, id, index };
      }
    } finally {
      source.close();
    }
  })();
  // The generator is closed when it has what it waits for, and never if nobody has begun it: the source, at once.
  const close = () => {
    source.close();
    return samples.return();
  };
  return { [Symbol.asyncIterator]: () => ({ next: () => samples.next(), return: close }) };
}

function copyOf(result: EvaluationResult): EvaluationResult {
  return { ...result, ...(result.scores && { scores: { ...result.scores } }) };
}

function areScores(value: unknown): value is Scores {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && Object.values(value).every(Number.isFinite);
}

/** A copy of scores, if that is what they are. */
function checked(scores: unknown): Scores {
  let named: Record<string, unknown>;
  try {
    named = record(scores, 'evaluate');
  } catch (cause) {
    throw new EmbeddingError('INVALID_ARGUMENT', `evaluate answered ${show(scores)}, not an object of numbers by name`, { cause });
  }
  for (const [name, value] of Object.entries(named)) {
    if (!Number.isFinite(value)) throw invalid(`The score ${show(name)} is ${show(value)}, not a finite number`, { score: name });
  }
  return Object.fromEntries(Object.entries(named)) as Scores;
}

function asLine({ error, ...result }: EvaluationResult): object {
  if (error === undefined) return 'scores' in result ? result : { ...result, error: { message: 'undefined' } };
  return { ...result, error: { name: textOf(error, 'name'), message: messageOf(error), code: textOf(error, 'code') } };
}

/** A property of whatever was thrown, as far as it can be read and is a text. */
function textOf(error: unknown, property: string): string | undefined {
  try {
    const value = (error as Record<string, unknown> | null)?.[property];
    return value === undefined || typeof value === 'function' ? undefined : String(value);
  } catch {
    return undefined;
  }
}
