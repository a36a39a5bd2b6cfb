import { unwatchFile, watchFile } from 'node:fs';
import { basename } from 'node:path';

import { EmbeddingError } from '../call/errors';
import { readRegular } from '../call/files';
import { invalid, show } from '../call/input';
import { isInstance, optionReader, read, refused, type Given } from '../call/options';
import { argumentPath } from '../call/paths';
import { getGlobalMonitor, insideOf, PerformanceMonitor } from '../monitor/monitor';
import { panelSources, sharedTable, type DashboardPanel, type PanelCell } from '../monitor/panels';
import { csvOf, markdownOf, prometheusOf, textOf, type CsvTable, type Sourced } from '../monitor/reports';
import type { CacheTypeStats, MonitorSnapshot } from '../monitor/snapshot';
import { call, native, settle } from '../native/addon';
import type { NativeSampler } from '../native/types';
import { readServe, type ServeOptions } from '../server/serve-options';
import type { DashboardServer, Live } from './server';

/** Something else that a dashboard shows: a generator, a cache, or whatever you wrap. */
export interface DashboardSource {
  /** Called once an interval. */
  getPerformanceMetrics(): DashboardMetrics | object;
}

/** What a dashboard reads of a {@link DashboardSource}. All is optional, anything else is ignored. */
export interface DashboardMetrics {
  /** Look-ups since the beginning, by tier. */
  cache?: { memoryHits?: number; diskHits?: number; sharedHits?: number; hits?: number; misses?: number; shared?: object | null };
  /** The same, as a cache calls it. */
  stats?: { memoryHits?: number; diskHits?: number; sharedHits?: number; hits?: number; misses?: number; shared?: object | null };
  /**
   * Items and tokens that the next batch may have; or, as a generator tells it, what ran since the beginning, of which
   * the means of each interval are shown.
   */
  batchOptimizer?: { currentBatchSize?: number; tokenBudget?: number; batches?: number; averageBatchSize?: number; paddedTokens?: number };
  /** How batches are made, and the most bytes of memory that this process may hold. */
  memoryProcessor?: { currentStrategy?: string | { name: string } | null; ceilingBytes?: number };
}

/** Options of {@link PerformanceDashboard}. */
export interface DashboardOptions {
  /** Default: the global one. */
  monitor?: PerformanceMonitor | undefined;
  generator?: DashboardSource | undefined;
  /** Whose tiers are shown. Default: the generator's own. */
  cache?: DashboardSource | undefined;
  /**
   * Functions that each answer a part of the page of your own, called once an interval. Those of a `RealtimeEvaluator` that
   * reports to the same monitor are there without being named.
   */
  panels?: (() => DashboardPanel)[] | undefined;
  /** Milliseconds from one point of the charts to the next: 100 to 3600000. Default 1000. */
  interval?: number | undefined;
  /** Points that are kept. Default 900: a quarter of an hour. */
  history?: number | undefined;
  /** What the page is called. Default `embedcore`. */
  title?: string | undefined;
}

/** What happened between two points. Durations in milliseconds. */
export interface TimelinePoint {
  /** When it ended, in milliseconds since 1970. */
  at: number;
  /** How long it was. */
  seconds: number;
  /** Those that ended, the 50 busiest where there are more. */
  operations: { name: string; count: number; errors: number; items: number; p50: number; p95: number; p99: number; max: number }[];
  caches: CacheTypeStats[];
  /** Cycles that ended. */
  cycles: number;
  /** Cycles in progress at its end. */
  active: number;
  /** Look-ups in the tiers of caches; `null` where nobody knows. */
  tiers: { memory: number; disk: number; shared: number; misses: number } | null;
  /** That the next batch may have at its end; else, the mean of those that ran. */
  batchSize: number | null;
  /** Tokens that the next batch may have at its end; else, the mean of those that ran, padding included. */
  tokenBudget: number | null;
  /** At its end. */
  strategy: string | null;
  /** The values of each panel at its end, by title and name of the line. */
  panels: Record<string, DashboardPanel['values']>;
  /** Bytes. `limit`: the generator's, else that of the container or the machine. */
  memory: { process: number; used: number; limit: number };
  /** Percent. */
  cpu: number;
}

/** All that a dashboard knows. A snapshot of its monitor, and more. */
export interface DashboardSnapshot extends MonitorSnapshot {
  dashboard: { title: string; interval: number; history: number; timeline: TimelinePoint[]; panels: DashboardPanel[] };
}

const readOptions = optionReader<DashboardOptions>({ monitor: true, generator: true, cache: true, panels: true, interval: true, history: true, title: true });

/** Takes a point. */
let tick: (dashboard: PerformanceDashboard) => void;

/**
 * Shows what a monitor knows: as text, as a file, and on a page that follows it live.
 *
 * From its making on it keeps a point for every interval, so that charts have a past when somebody looks. This costs a
 * millisecond or less for each.
 */
export class PerformanceDashboard implements AsyncDisposable {
  readonly #monitor: PerformanceMonitor;
  readonly #sampler: NativeSampler;
  readonly #sources: DashboardSource[];
  readonly #panels: (() => DashboardPanel)[];
  readonly #options: { interval: number; history: number; title: string };
  readonly #timeline: TimelinePoint[] = [];
  /** Told what is new, as JSON. */
  readonly #listeners = new Set<(json: string) => void>();
  readonly #servers = new Set<DashboardServer>();
  /** Files that are being written. */
  readonly #writing = new Set<Promise<void>>();
  readonly #timer: NodeJS.Timeout;
  /** As of the latest point. */
  #sourced: Sourced;
  #lastSourceError = '';

  /** @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option. */
  constructor(options: DashboardOptions = {}) {
    const { monitor = getGlobalMonitor(), generator, cache, panels = [], interval = 1000, history = 900, title = 'embedcore' } = readOptions(options);
    if (!isInstance(monitor, PerformanceMonitor, 'monitor')) throw refused('monitor', `${show(monitor)} is not a PerformanceMonitor`);
    for (const [name, source] of Object.entries({ generator, cache })) {
      if (source !== undefined && !isSource(source, name)) throw refused(name, `${show(source)} has no method getPerformanceMetrics`);
    }
    if (!Number.isInteger(interval) || interval < 100 || interval > 3_600_000) throw refused('interval', `${show(interval)} is not a whole number from 100 to 3600000`);
    if (!Number.isInteger(history) || history < 1 || history > 100_000) throw refused('history', `${show(history)} is not a whole number from 1 to 100000`);
    if (typeof title !== 'string' || title === '') throw refused('title', `${show(title)} is not a non-empty string`);
    if (!Array.isArray(panels) || !panels.every((panel) => typeof panel === 'function')) throw refused('panels', `${show(panels)} is not an array of functions`);
    this.#monitor = monitor;
    this.#panels = [...panels];
    this.#sources = [cache, generator].filter((source) => source !== undefined);
    this.#options = { interval, history, title };
    const inside = insideOf(monitor);
    inside.flush();
    this.#sampler = inside.sampler();
    this.#sourced = this.#readSources();
    this.#timer = follow(new WeakRef(this), interval);
  }

  static {
    tick = (dashboard) => dashboard.#tick();
  }

  /** All that it knows, as JSON can hold it: what {@link exportJson} writes and the page opens. */
  snapshot(): DashboardSnapshot {
    return { ...this.#monitor.snapshot(), dashboard: { ...this.#about(), timeline: [...this.#timeline], panels: this.#readPanels() } };
  }

  /** For a terminal, at most 80 columns wide. */
  textSummary(): string {
    return textOf(insideOf(this.#monitor).read(10));
  }

  /** Tables in Markdown. */
  markdownReport(): string {
    return markdownOf(insideOf(this.#monitor).read(10));
  }

  /**
   * Writes a snapshot: whole, or not at all. `npx embedcore dashboard PATH` shows it.
   * @throws {@link EmbeddingError} `CACHE_STORAGE_FAILED`, as {@link exportCsv}.
   */
  async exportJson(path: string): Promise<void> {
    await this.#write(path, () => `${JSON.stringify(this.snapshot())}\n`);
  }

  /** Writes a table as CSV. */
  async exportCsv(path: string, table: CsvTable = 'operations'): Promise<void> {
    await this.#write(path, () => csvOf(insideOf(this.#monitor).read(2 ** 32 - 1), table));
  }

  async #write(path: string, text: () => string): Promise<void> {
    const writing = write(pathOf(path), text());
    const over = writing.catch(() => {}).then(() => void this.#writing.delete(over));
    this.#writing.add(over);
    await writing;
  }

  /**
   * Serves the page, with `/metrics` and `/health`. It is there as long as the process is; it does not keep it alive.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` where the port or the host cannot be had.
   */
  async serve(options: ServeOptions = {}): Promise<DashboardServer> {
    const given = readServe(options);
    const live: Live = {
      snapshot: () => JSON.stringify({ ...insideOf(this.#monitor).read(PAGE_CYCLES), dashboard: { ...this.#about(), timeline: this.#timeline, panels: this.#readPanels() } }),
      prometheus: () => prometheusOf(insideOf(this.#monitor).read(0), {}, this.#sourced),
      health: () => ({ uptimeSeconds: process.uptime(), ...this.#health() }),
      subscribe: (send) => {
        const listener = (json: string) => send('point', json);
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
    };
    const server = await serve(live, given, () => this.#servers.delete(server));
    this.#servers.add(server);
    return server;
  }

  /**
   * Serves the page for a file that {@link exportJson} has written, or for a `snapshot()` of a monitor as JSON. When the
   * file changes, so does the page.
   * @throws {@link EmbeddingError} `INVALID_ARGUMENT` where the file is no snapshot; and as {@link serve}.
   */
  static async serveSnapshot(path: string, options: ServeOptions = {}): Promise<DashboardServer> {
    const given = readServe(options);
    const file = pathOf(path);
    let current = readSnapshot(file);
    const listeners = new Set<(event: 'snapshot', json: string) => void>();
    const live: Live = {
      snapshot: () => JSON.stringify(current),
      prometheus: () => prometheusOf(current),
      health: () => ({ takenAt: new Date(current.takenAt).toISOString() }),
      subscribe: (send) => {
        listeners.add(send);
        return () => listeners.delete(send);
      },
    };
    const changed = () => {
      try {
        current = readSnapshot(file);
      } catch {
        return; // Not yet, or no longer, a snapshot: what was there stays.
      }
      for (const send of listeners) send('snapshot', live.snapshot());
    };
    const server = await serve(live, given, () => unwatchFile(file, changed));
    watchFile(file, { interval: 1000, persistent: false }, changed);
    return server;
  }

  /** Ends its servers, and takes no more points. Resolves when what was being written is on disk. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#listeners.clear();
    await Promise.all([...[...this.#servers].map((server) => server.close()), ...this.#writing]);
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #about(): { title: string; interval: number; history: number } {
    return { ...this.#options };
  }

  #health(): { operations: number; errors: number } {
    const { totals } = this.#monitor.getSummary();
    return { operations: totals.count, errors: totals.errors };
  }

  #tick(): void {
    const inside = insideOf(this.#monitor);
    inside.flush();
    const interval = JSON.parse(call(() => this.#sampler.sample())) as Pick<TimelinePoint, 'at' | 'seconds' | 'operations' | 'caches' | 'cycles' | 'active'>;
    // A name that is made of every file must not take memory for every point.
    interval.operations.sort((a, b) => b.count * b.p50 - a.count * a.p50).splice(BUSIEST);
    interval.caches.sort((a, b) => b.hits + b.misses - a.hits - a.misses).splice(BUSIEST);
    const { machine } = inside.read(0);
    const { tiers: before, ran: ranBefore } = this.#sourced;
    this.#sourced = this.#readSources();
    const { tiers, batchSize, tokenBudget, strategy, limit, ran } = this.#sourced;
    const since = (now: number, then: number) => (now >= then ? now - then : now);
    const batches = ran ? since(ran.batches, ranBefore?.batches ?? 0) : 0;
    const mean = (what: 'rows' | 'tokens') => (batches > 0 ? since(ran![what], ranBefore?.[what] ?? 0) / batches : null);
    const panels = this.#readPanels();
    const point: TimelinePoint = {
      ...interval,
      panels: Object.fromEntries(panels.map(({ title, values }) => [title, values])),
      tiers: tiers && {
        memory: since(tiers.memory, before?.memory ?? 0),
        disk: since(tiers.disk, before?.disk ?? 0),
        shared: since(tiers.shared, before?.shared ?? 0),
        misses: since(tiers.misses, before?.misses ?? 0),
      },
      batchSize: batchSize ?? mean('rows'),
      tokenBudget: tokenBudget ?? mean('tokens'),
      strategy,
      memory: { process: machine!.processMemory, used: machine!.usedMemory, limit: limit ?? machine!.totalMemory },
      cpu: machine!.cpuUsage,
    };
    this.#timeline.push(point);
    if (this.#timeline.length > this.#options.history) this.#timeline.shift();
    if (this.#listeners.size === 0) return;
    const json = JSON.stringify({ ...inside.read(Math.min(point.cycles, PAGE_CYCLES)), point, panels });
    for (const listener of this.#listeners) listener(json);
  }

  /** Asks the sources. One that throws is left out, and its error kept among those of the monitor, once. */
  #readSources(): Sourced {
    const all: Sourced = { tiers: null, shared: null, batchSize: null, tokenBudget: null, strategy: null, limit: null, ran: null };
    for (const source of this.#sources) {
      try {
        merge(all, source.getPerformanceMetrics() as Record<string, unknown>);
      } catch (error) {
        this.#sourceFailed('getPerformanceMetrics', error);
      }
    }
    return all;
  }

  /** Asks those that have a panel; of two with the same title, the later one. */
  #readPanels(): DashboardPanel[] {
    const panels = new Map<string, DashboardPanel>();
    const { shared } = this.#sourced;
    const own = shared ? [(): DashboardPanel => ({ title: 'Shared tier', values: {}, tables: [sharedTable(shared)] })] : [];
    for (const read of [...own, ...panelSources(this.#monitor).map((source) => () => source.panel()), ...this.#panels]) {
      try {
        const panel = panelOf(read());
        panels.set(panel.title, panel);
      } catch (error) {
        this.#sourceFailed('panel', error);
      }
    }
    return [...panels.values()];
  }

  #sourceFailed(name: string, error: unknown): void {
    const message = String((error as Error | null)?.message ?? error);
    if (message !== this.#lastSourceError) insideOf(this.#monitor).failed(name, message);
    this.#lastSourceError = message;
  }
}

function isSource(source: unknown, name: string): boolean {
  const holds = (typeof source === 'object' && source !== null) || typeof source === 'function';
  return holds && typeof read(source, 'getPerformanceMetrics', `${name}.getPerformanceMetrics`) === 'function';
}

/** What somebody's function has answered, as far as it is a panel; a copy of it. */
function panelOf(given: DashboardPanel): DashboardPanel {
  const { title, values = {}, tables = [] } = given;
  if (typeof title !== 'string' || title === '') throw refused('panel.title', `${show(title)} is not a non-empty string`);
  const cell = (value: unknown): PanelCell => (value === null || value === undefined ? null : typeof value === 'number' ? value : String(value).slice(0, LONGEST_CELL));
  return {
    title: title.slice(0, LONGEST_CELL),
    values: Object.fromEntries(Object.entries(values).slice(0, MOST_LINES).map(([name, { value, low, high }]) => [name, { value, low, high }])),
    tables: tables.map((table) => ({ title: String(table.title), columns: table.columns.map(String), rows: table.rows.slice(0, MOST_ROWS).map((row) => row.map(cell)) })),
  };
}

/** Bounds of a panel: lines of its chart, rows of a table, characters of a cell. */
const MOST_LINES = 20;
const MOST_ROWS = 1000;
const LONGEST_CELL = 200;

/** Operations, and types of caches, in a point. */
const BUSIEST = 50;

/** Cycles that the page is given at first. */
const PAGE_CYCLES = 10_000;

/** Ticks as long as there is a dashboard, and does not keep it, nor the process. */
function follow(dashboard: WeakRef<PerformanceDashboard>, interval: number): NodeJS.Timeout {
  const timer = setInterval(() => {
    const alive = dashboard.deref();
    if (alive) tick(alive);
    else clearInterval(timer);
  }, interval);
  return timer.unref();
}

/** Adds what a source knows, in its own words or in those of the classes of this package. */
function merge(all: Sourced, metrics: Record<string, unknown> | null | undefined): void {
  const number = (value: unknown) => (typeof value === 'number' && Number.isFinite(value) && value >= 0 ? value : undefined);
  const object = (...names: string[]) => names.map((name) => metrics?.[name]).find((value) => typeof value === 'object' && value !== null) as Record<string, unknown> | undefined;
  const cache = object('cache', 'stats');
  // A generator without a cache has zeros there: that is nothing known, not nothing found.
  const [hits, misses] = cache?.enabled === false ? [] : [number(cache?.hits), number(cache?.misses)];
  if (hits !== undefined && misses !== undefined) {
    const [disk, shared] = [number(cache?.diskHits) ?? 0, number(cache?.sharedHits) ?? 0];
    const memory = number(cache?.memoryHits) ?? Math.max(0, hits - disk - shared);
    all.tiers ??= { memory, disk, shared, misses };
    all.shared ??= (cache?.shared as Sourced['shared'] | undefined) ?? null;
  }
  const batch = object('batchOptimizer', 'batchOptimization');
  const [batches, rows, tokens] = [number(batch?.batches), number(batch?.averageBatchSize), number(batch?.paddedTokens)];
  // What ran tells more than what may run next.
  if (batches !== undefined && rows !== undefined && tokens !== undefined) {
    all.ran ??= { batches, rows: rows * batches, tokens };
  } else {
    all.batchSize ??= number(batch?.currentBatchSize) ?? null;
    all.tokenBudget ??= number(batch?.tokenBudget) ?? null;
  }
  const memory = object('memoryProcessor', 'memoryProcessing');
  const strategy = memory?.currentStrategy;
  const name = typeof strategy === 'string' ? strategy : (strategy as { name?: unknown } | null | undefined)?.name;
  if (typeof name === 'string' && memory?.enabled !== false) all.strategy ??= name;
  all.limit ??= number(memory?.ceilingBytes) ?? null;
}

/** Longest snapshot that is shown. */
const MOST_BYTES = 256 * 1024 * 1024;

/** A snapshot in a file, which may come from anybody: parsed whole by the native side. The page looks after the rest. */
function readSnapshot(path: string): MonitorSnapshot & { dashboard: object } {
  let json: string;
  try {
    json = readRegular(path, MOST_BYTES).toString();
  } catch (cause) {
    const message = `The snapshot ${path} cannot be read: ${(cause as Error).message}`;
    throw new EmbeddingError('INVALID_ARGUMENT', message, { cause, details: { path } });
  }
  try {
    const snapshot = JSON.parse(call(() => native().mergeSnapshots([json]))) as MonitorSnapshot;
    const { machine, dashboard } = JSON.parse(json) as Partial<DashboardSnapshot>;
    const numbers = ['processMemory', 'usedMemory', 'totalMemory', 'cpuUsage', 'cpuCores'] as const;
    const known = machine && numbers.every((name) => Number.isFinite(machine[name]));
    return { ...snapshot, ...(known && { machine }), dashboard: { ...dashboard, saved: basename(path) } };
  } catch (cause) {
    throw new EmbeddingError('INVALID_ARGUMENT', `${path} cannot be shown: ${(cause as Error).message}`, { cause, details: { path } });
  }
}

/** Loaded with the first page: who serves none should not hold node:http in memory. */
async function serve(live: Live, options: Given<ServeOptions>, whenClosed: () => void): Promise<DashboardServer> {
  return (await import('./server.js')).serve(live, options, whenClosed);
}

/** Files that are being written: of several writes to one path, each begins when the one before is over. */
const writes = new Map<string, Promise<void>>();

function write(path: string, text: string): Promise<void> {
  const written = (writes.get(path) ?? Promise.resolve()).then(() => settle(() => native().writeWhole(path, text)));
  const over: Promise<void> = written.catch(() => {}).then(() => {
    if (writes.get(path) === over) writes.delete(path);
  });
  writes.set(path, over);
  return written;
}

/** The path of a file as it is meant now, wherever the process goes. */
function pathOf(given: unknown): string {
  const path = argumentPath('The path', given);
  if (path !== undefined) return path;
  throw invalid(`The path is ${show(given)}, not a non-empty string`);
}
