// What a monitor knows, written for others to read: pure functions of a snapshot.

import { EmbeddingError } from '../call/errors';
import { show } from '../call/input';
import { optionReader, record, refused } from '../call/options';
import type { CycleRecord, MonitorSnapshot } from './snapshot';

/** Options of {@link PerformanceMonitor.toPrometheus}. */
export interface PrometheusOptions {
  /** What names begin with: letters, digits and underscores. Default `embedcore`. */
  prefix?: string | undefined;
  /** Labels of every sample, such as the service's name. */
  labels?: Record<string, string> | undefined;
}

const readPrometheus = optionReader<PrometheusOptions>({ prefix: true, labels: record });

/** What of a snapshot becomes a table. */
export type CsvTable = 'operations' | 'caches' | 'cycles';

type Labels = Record<string, string>;
type Sample = { labels: Labels; value: number; suffix?: string };

/** The content type of {@link prometheusOf}. */
export const PROMETHEUS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

const QUANTILES = [
  ['0.5', 'p50'],
  ['0.95', 'p95'],
  ['0.99', 'p99'],
  ['0.999', 'p999'],
] as const;

/** What the sources of a dashboard say. */
export interface Sourced {
  /** Look-ups since the beginning. */
  tiers: { memory: number; disk: number; shared: number; misses: number } | null;
  /** How the server does that caches share, as they tell it. */
  shared: Record<string, unknown> | null;
  batchSize: number | null;
  tokenBudget: number | null;
  strategy: string | null;
  /** Bytes. */
  limit: number | null;
  /** Runs of a model since the beginning, with their texts and tokens, padding included. */
  ran: { batches: number; rows: number; tokens: number } | null;
}

export function prometheusOf(snapshot: MonitorSnapshot, options: PrometheusOptions = {}, sourced?: Sourced): string {
  const { prefix = 'embedcore', labels = {} } = readPrometheus(options);
  if (typeof prefix !== 'string' || !/^[a-zA-Z_][a-zA-Z0-9_]*$/.test(prefix)) {
    throw refused('prefix', `${show(prefix)} is not a name of letters, digits and underscores`);
  }
  const common = Object.entries(labels) as [string, unknown][];
  for (const [name, value] of common) {
    const taken = ['operation', 'quantile', 'type', 'tier', 'result', 'status'].includes(name);
    if (!/^[a-zA-Z_][a-zA-Z0-9_]*$/.test(name) || name.startsWith('__') || taken) {
      throw refused('labels', taken ? `the label ${name} is used by embedcore` : `${show(name)} is no name of a label`);
    }
    if (typeof value !== 'string') throw refused('labels', `the label ${name} is ${show(value)}, not a string`);
  }
  const lines: string[] = [];
  const family = (name: string, type: 'counter' | 'gauge' | 'summary', help: string, samples: Sample[]) => {
    if (samples.length === 0) return;
    lines.push(`# HELP ${prefix}_${name} ${help}`, `# TYPE ${prefix}_${name} ${type}`);
    for (const { labels: own, value, suffix = '' } of samples) {
      const all = [...common, ...Object.entries(own)].map(([label, text]) => `${label}="${escaped(text as string)}"`);
      lines.push(`${prefix}_${name}${suffix}${all.length > 0 ? `{${all.join(',')}}` : ''} ${value}`);
    }
  };
  const { operations, caches, cycles, machine, startedAt } = snapshot;
  const each = (value: (operation: MonitorSnapshot['operations'][number]) => number): Sample[] =>
    operations.map((operation) => ({ labels: { operation: operation.name }, value: value(operation) }));

  const summary = (labels: Labels, count: number, of: Record<'p50' | 'p95' | 'p99' | 'p999' | 'total', number>): Sample[] => [
    ...QUANTILES.map(([quantile, key]) => ({ labels: { ...labels, quantile }, value: of[key] / 1000 })),
    { labels, value: of.total / 1000, suffix: '_sum' },
    { labels, value: count, suffix: '_count' },
  ];
  family('operation_duration_seconds', 'summary', 'Time of operations, failed ones included.',
    operations.flatMap((operation) => summary({ operation: operation.name }, operation.count, operation)));
  family('operation_errors_total', 'counter', 'Operations that failed.', each((operation) => operation.errors));
  family('operation_items_total', 'counter', 'Items processed.', each((operation) => operation.items));
  family('operation_duration_min_seconds', 'gauge', 'Shortest time of an operation.', each((operation) => operation.min / 1000));
  family('operation_duration_max_seconds', 'gauge', 'Longest time of an operation.', each((operation) => operation.max / 1000));
  family('operation_items_per_second', 'gauge', 'Items a second over the last minute.', each((operation) => operation.throughput.lastMinute));
  family('operation_memory_peak_bytes', 'gauge', 'Most memory that the process was seen to hold at an operation.',
    operations.flatMap(({ name, memory }) => (memory ? [{ labels: { operation: name }, value: memory.peak }] : [])));
  family('cache_requests_total', 'counter', 'Look-ups in caches.',
    caches.flatMap(({ type, hits, misses }) => [
      { labels: { type, result: 'hit' }, value: hits },
      { labels: { type, result: 'miss' }, value: misses },
    ]));
  const { tiers = null, batchSize = null, tokenBudget = null } = sourced ?? {};
  if (tiers) {
    family('cache_tier_hits_total', 'counter', 'Look-ups that a tier of the cache answered.', [
      { labels: { tier: 'memory' }, value: tiers.memory },
      { labels: { tier: 'disk' }, value: tiers.disk },
      { labels: { tier: 'shared' }, value: tiers.shared },
    ]);
    family('cache_tier_misses_total', 'counter', 'Look-ups that no tier of the cache answered.', [{ labels: {}, value: tiers.misses }]);
  }
  if (batchSize !== null) family('batch_size', 'gauge', 'Items that the next batch may have.', [{ labels: {}, value: batchSize }]);
  if (tokenBudget !== null) family('batch_token_budget', 'gauge', 'Tokens that the next batch may have.', [{ labels: {}, value: tokenBudget }]);
  const { summary: totals } = cycles;
  family('cycles_total', 'counter', 'Cycles that have ended.',
    (['succeeded', 'failed', 'interrupted'] as const).map((status) => ({ labels: { status }, value: totals[status] })));
  family('cycles_active', 'gauge', 'Cycles in progress.', [{ labels: {}, value: totals.active }]);
  if (totals.duration) {
    family('cycle_duration_seconds', 'summary', 'Time of cycles.', summary({}, totals.succeeded + totals.failed, totals.duration));
  }
  family('cycle_llm_calls_total', 'counter', 'Calls of language models in cycles that have ended.', [
    { labels: { result: 'hit' }, value: totals.cacheHits },
    { labels: { result: 'miss' }, value: totals.llmCalls - totals.cacheHits },
  ]);
  family('cycle_validations_total', 'counter', 'Things validated in cycles that have ended.', [{ labels: {}, value: totals.validations }]);
  family('cycle_file_operations_total', 'counter', 'Files read or written in cycles that have ended.', [{ labels: {}, value: totals.fileOperations }]);
  if (machine) {
    family('process_memory_bytes', 'gauge', 'Memory that the process holds.', [{ labels: {}, value: machine.processMemory }]);
    family('memory_used_bytes', 'gauge', 'Memory in use on the machine or in the container.', [{ labels: {}, value: machine.usedMemory }]);
    family('memory_limit_bytes', 'gauge', 'Memory of the machine or the container.', [{ labels: {}, value: machine.totalMemory }]);
    family('cpu_usage_ratio', 'gauge', 'Share of the cores that this process may use.', [{ labels: {}, value: machine.cpuUsage / 100 }]);
  }
  family('start_time_seconds', 'gauge', 'When measuring began, in seconds since 1970.', [{ labels: {}, value: startedAt / 1000 }]);
  return `${lines.join('\n')}\n`;
}

const escaped = (text: string) => text.replace(/\\/g, '\\\\').replace(/\n/g, '\\n').replace(/"/g, '\\"');

const date = (ms: number | null) => (ms === null ? '' : new Date(ms).toISOString());

const TABLES: Record<CsvTable, (snapshot: MonitorSnapshot) => (string | number | null)[][]> = {
  operations: ({ operations }) => [
    ['name', 'count', 'errors', 'items', 'total_ms', 'min_ms', 'max_ms', 'mean_ms', 'p50_ms', 'p95_ms', 'p99_ms', 'p99.9_ms',
      'items_per_second', 'items_per_second_last_minute', 'memory_before_bytes', 'memory_after_bytes', 'memory_peak_bytes', 'first_at', 'last_at'],
    ...operations.map((one) => [one.name, one.count, one.errors, one.items, one.total, one.min, one.max, one.mean, one.p50, one.p95, one.p99, one.p999,
      one.throughput.wholeRun, one.throughput.lastMinute, one.memory?.before ?? null, one.memory?.after ?? null, one.memory?.peak ?? null,
      date(one.firstAt), date(one.lastAt)]),
  ],
  caches: ({ caches }) => [
    ['type', 'hits', 'misses', 'hit_ratio'],
    ...caches.map(({ type, hits, misses, hitRatio }) => [type, hits, misses, hitRatio]),
  ],
  cycles: ({ cycles }) => [
    ['id', 'status', 'started_at', 'ended_at', 'duration_ms', 'llm_calls', 'cache_hits', 'llm_ms', 'validations', 'validation_ms',
      'file_operations', 'memory_before_bytes', 'memory_after_bytes', 'memory_peak_bytes'],
    ...[...cycles.recent, ...cycles.active].map((one: CycleRecord) => [one.id, one.status, date(one.startedAt), date(one.endedAt), one.duration,
      one.llmCalls, one.cacheHits, one.llmTime, one.validations, one.validationTime, one.fileOperations,
      one.memory?.before ?? null, one.memory?.after ?? null, one.memory?.peak ?? null]),
  ],
};

export function csvOf(snapshot: MonitorSnapshot, table: CsvTable): string {
  const rows = Object.hasOwn(TABLES, table) ? TABLES[table](snapshot) : undefined;
  if (!rows) {
    const names = Object.keys(TABLES).map((name) => `'${name}'`).join(', ');
    throw new EmbeddingError('INVALID_ARGUMENT', `The table is ${show(table)}, not one of ${names}`);
  }
  return rows.map((row) => `${row.map(cell).join(',')}\r\n`).join('');
}

/**
 * A cell that no spreadsheet takes for a formula: text that looks like one gets an apostrophe in front. Quoted where it
 * would be several cells to one that separates them by something else, as most do outside of the English-speaking world.
 */
function cell(value: string | number | null): string {
  if (typeof value !== 'string') return value === null ? '' : String(value);
  const text = /^[\s\u0000]*[=+\-@＝＋－＠]|^[\t\r\n]/.test(value) ? `'${value}` : value;
  return /[",;|\u0000-\u001f\u0085\u2028\u2029]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

/** A number with as many digits as a person reads. */
export function count(value: number): string {
  if (value < 10_000) return String(Number.isInteger(value) ? value : Number(value.toPrecision(3)));
  const [unit, by] = value < 1e6 ? ['k', 1e3] : value < 1e9 ? ['M', 1e6] : ['G', 1e9];
  const scaled = Number((value / (by as number)).toPrecision(3));
  return scaled >= 1000 && unit !== 'G' ? count(scaled * (by as number) * 1.0001) : scaled < 1e6 ? `${scaled}${unit}` : value.toExponential(1);
}

/** Milliseconds in the unit that fits. */
export function time(ms: number): string {
  const digits = (value: number) => String(Number(value.toPrecision(3)));
  if (ms === 0) return '0';
  if (ms < 0.001) return `${digits(ms * 1e6)} ns`;
  if (ms < 1) return `${digits(ms * 1000)} µs`;
  if (ms < 1000) return `${digits(ms)} ms`;
  if (ms < 120_000) return `${digits(ms / 1000)} s`;
  if (ms < 7_200_000) return `${digits(ms / 60_000)} min`;
  return ms < 172_800_000 ? `${digits(ms / 3_600_000)} h` : `${digits(ms / 86_400_000)} d`;
}

/** Bytes in the unit that fits; 1 MB is 1024 × 1024. */
export function size(bytes: number): string {
  const unit = Math.min(4, Math.max(0, Math.floor(Math.log2(Math.max(1, bytes)) / 10)));
  return `${Number((bytes / 1024 ** unit).toPrecision(3))} ${['bytes', 'KB', 'MB', 'GB', 'TB'][unit]}`;
}

const percent = (ratio: number) => `${Number((ratio * 100).toPrecision(3))} %`;

const plural = (all: number, what: string) => `${count(all)} ${what}${all === 1 ? '' : 's'}`;

const overview = ({ takenAt, startedAt, operations, machine }: MonitorSnapshot) => {
  const sum = (what: (one: MonitorSnapshot['operations'][number]) => number) => operations.reduce((total, one) => total + what(one), 0);
  return [
    `over ${time(takenAt - startedAt)}`,
    plural(sum((one) => one.count), 'operation'),
    plural(sum((one) => one.errors), 'error'),
    ...(machine ? [`${size(machine.processMemory)} held`] : []),
  ].join(' · ');
};

const OPERATION = ['Operation', 'count', 'errors', 'p50', 'p95', 'p99', 'max', 'items/s'];
const operationRow = (one: MonitorSnapshot['operations'][number]) => [
  one.name, count(one.count), count(one.errors), time(one.p50), time(one.p95), time(one.p99), time(one.max),
  count(Number(one.throughput.wholeRun.toPrecision(3))),
];
const CACHE = ['Cache', 'hits', 'misses', 'ratio'];
const cacheRow = ({ type, hits, misses, hitRatio }: MonitorSnapshot['caches'][number]) => [type, count(hits), count(misses), percent(hitRatio)];
const CYCLE = ['Latest cycles', 'status', 'time', 'calls', 'cached', 'checks', 'files'];
const cycleRow = (one: CycleRecord) => [
  one.id, one.status === 'inProgress' ? 'running' : one.status, one.duration === null ? '' : time(one.duration), count(one.llmCalls), count(one.cacheHits),
  count(one.validations), count(one.fileOperations),
];
const cyclesLine = ({ succeeded, failed, interrupted, active, llmCalls, cacheHitRatio, duration }: MonitorSnapshot['cycles']['summary']) =>
  [
    `${count(succeeded)} succeeded`, `${count(failed)} failed`, ...(interrupted > 0 ? [`${count(interrupted)} interrupted`] : []),
    `${count(active)} running`, ...(llmCalls > 0 ? [`${percent(cacheHitRatio)} cached`] : []), ...(duration ? [`p95 ${time(duration.p95)}`] : []),
  ].join(' · ');

/** Cycles and errors that a report shows. */
const LATEST = 10;

/** Operations and types that a terminal shows. */
const BUSIEST = 20;

/** Those that matter most, and how many there are beside them. */
function busiest<T>(all: T[], weight: (one: T) => number): [T[], string[][]] {
  if (all.length <= BUSIEST) return [all, []];
  const kept = [...all].sort((a, b) => weight(b) - weight(a)).slice(0, BUSIEST);
  return [kept, [[`… and ${count(all.length - BUSIEST)} others`]]];
}

const WIDTH = 80;

/** For a terminal: at most 80 columns, nothing in it that would steer the terminal. */
export function textOf(snapshot: MonitorSnapshot): string {
  const { operations, caches, cycles, errors, takenAt } = snapshot;
  const when = `${new Date(takenAt).toISOString().slice(0, 19).replace('T', ' ')} UTC`;
  const lines = [`Performance${when.padStart(WIDTH - 11)}`, overview(snapshot)];
  const table = (widths: number[], head: string[], rows: string[][]) => {
    const line = (cells: string[]) => cells.map((text, i) => fitted(text, widths[i]!, i > 0)).join('').trimEnd();
    lines.push('', line(head), '─'.repeat(widths.reduce((sum, width) => sum + width, 0)), ...rows.map(line));
  };
  const [shown, others] = busiest(operations, (one) => one.total);
  if (shown.length > 0) table([23, 7, 8, 8, 8, 8, 9, 9], OPERATION, [...shown.map(operationRow), ...others]);
  const [types, otherTypes] = busiest(caches, (one) => one.hits + one.misses);
  if (types.length > 0) table([23, 9, 9, 9], CACHE, [...types.map(cacheRow), ...otherTypes]);
  if (cycles.summary.count + cycles.summary.active > 0) {
    lines.push('', fitted(`Cycles: ${cyclesLine(cycles.summary)}`, WIDTH, false).trimEnd());
    table([29, 13, 9, 7, 8, 7, 7], CYCLE, latest(cycles).map(cycleRow));
  }
  if (errors.length > 0) lines.push('', 'Latest errors');
  for (const { at, name, message } of errors.slice(-LATEST).reverse()) {
    lines.push(fitted(`  ${new Date(at).toISOString().slice(11, 19)}  ${name}: ${message}`, WIDTH, false).trimEnd());
  }
  if (operations.length + caches.length + cycles.summary.count + cycles.summary.active === 0) lines.push('', 'Nothing was recorded yet.');
  return `${lines.join('\n')}\n`;
}

const latest = ({ recent, active }: MonitorSnapshot['cycles']) => [...recent, ...active].slice(-LATEST).reverse();

/** Columns that a character takes on a terminal: none, one, or two for those of East Asia and most pictures. */
const columns = (character: string) =>
  /^[\p{Mn}\p{Me}\u200b-\u200d\ufe00-\ufe0f]$/u.test(character) ? 0
  : /^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f000}-\u{1faff}\u{20000}-\u{3fffd}]$/u.test(character) || /^\p{Emoji_Presentation}$/u.test(character) ? 2
  : 1;

/** A text in `width` columns, cut where it is longer; one column stays free where it is aligned to the right. */
function fitted(text: string, width: number, right: boolean): string {
  const clean = text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, '\ufffd');
  // Without its last column, names do not run into what follows.
  const room = width === WIDTH ? width : width - 1;
  let used = 0;
  let kept = '';
  let cut = false;
  for (const character of clean) {
    const wide = columns(character);
    if (used + wide > room) {
      cut = true;
      break;
    }
    used += wide;
    kept += character;
  }
  if (cut) {
    const characters = [...kept];
    while (used > room - 1) used -= columns(characters.pop() ?? ' ');
    kept = `${characters.join('')}…`;
    used++;
  }
  const space = ' '.repeat(width - used);
  return right ? space + kept : kept + space;
}

/** Tables in Markdown. */
export function markdownOf(snapshot: MonitorSnapshot): string {
  const { operations, caches, cycles, errors, takenAt } = snapshot;
  const lines = ['# Performance', '', `${new Date(takenAt).toISOString()}, ${overview(snapshot)}`];
  const table = (head: string[], rows: string[][]) => {
    const line = (cells: string[]) => `| ${cells.join(' | ')} |`;
    lines.push('', line(head), line(head.map((_, i) => (i === 0 ? '---' : '---:'))));
    for (const [name, ...rest] of rows) lines.push(line([literal(name!), ...rest]));
  };
  if (operations.length > 0) table(OPERATION, operations.map(operationRow));
  if (caches.length > 0) table(CACHE, caches.map(cacheRow));
  if (cycles.summary.count + cycles.summary.active > 0) {
    lines.push('', '## Cycles', '', cyclesLine(cycles.summary));
    table(CYCLE, latest(cycles).map(cycleRow));
  }
  if (errors.length > 0) lines.push('', '## Latest errors', '');
  for (const { at, name, message } of errors.slice(-LATEST).reverse()) {
    lines.push(`- ${new Date(at).toISOString()} ${literal(name)}: ${literal(message)}`);
  }
  return `${lines.join('\n')}\n`;
}

/** Text of others in one line of Markdown, where it is nothing but text. */
function literal(text: string): string {
  return text
    .replace(/\s+/g, ' ')
    .replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '\ufffd')
    .replace(/&/g, '&amp;')
    .replace(/</g, '&lt;')
    .replace(/>/g, '&gt;')
    .replace(/[\\`*_[\]|~#:@]/g, (character) => `&#${character.charCodeAt(0)};`);
}
