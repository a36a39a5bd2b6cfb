import type { Channel } from 'node:diagnostics_channel';

import { EmbeddingError } from './errors';
import { show } from './input';
import type { MonitorEvent, PerformanceMonitor } from './monitor';
import type { MonitorSnapshot } from './monitor-snapshot';
import { optionReader, refused } from './options';

/** Options of {@link PerformanceMonitor.connectOpenTelemetry}. */
export interface OpenTelemetryOptions {
  /** Whether operations become spans, too, as children of the span that is active when they end. Default false. */
  spans?: boolean;
  /** The package `@opentelemetry/api`, where it cannot be found by its name (bundlers). */
  api?: unknown;
}

const readOptions = optionReader<OpenTelemetryOptions>({ spans: true, api: true });

/** Something to end. */
export interface OpenTelemetryConnection extends Disposable {
  /** Nothing more is offered. */
  disconnect(): void;
}

// Of `@opentelemetry/api`, what is used here: its own types would be missing where it is not installed.
interface Instrument {
  readonly instrument?: never;
}
interface Observer {
  observe(instrument: Instrument, value: number, attributes?: Record<string, string>): void;
}
interface Meter {
  createObservableCounter(name: string, options: { description: string; unit?: string }): Instrument;
  createObservableGauge(name: string, options: { description: string; unit?: string }): Instrument;
  addBatchObservableCallback(callback: (observer: Observer) => void, instruments: Instrument[]): void;
  removeBatchObservableCallback(callback: (observer: Observer) => void, instruments: Instrument[]): void;
}
interface Span {
  recordException(error: unknown): void;
  setStatus(status: { code: number }): void;
  end(time: number): void;
}
interface Api {
  metrics: { getMeter(name: string): Meter };
  trace: { getTracer(name: string): { startSpan(name: string, options: object): Span } };
}

const NAME = 'embedcore';

/** `SpanStatusCode.ERROR`. */
const ERROR = 2;

const QUANTILES = [
  ['0.5', 'p50'],
  ['0.95', 'p95'],
  ['0.99', 'p99'],
  ['0.999', 'p999'],
] as const;

export function connect(
  monitor: PerformanceMonitor,
  read: () => MonitorSnapshot,
  events: Channel,
  options: OpenTelemetryOptions,
): OpenTelemetryConnection {
  const { spans = false, api: given } = readOptions(options);
  if (typeof spans !== 'boolean') throw refused('spans', `${show(spans)} is not true or false`);
  if (given !== undefined && !isApi(given)) throw refused('api', `${show(given)} is not the package @opentelemetry/api`);
  const { metrics, trace } = (given ?? load()) as Api;
  const stop = [observe(metrics.getMeter(NAME), read), ...(spans ? [follow(trace, monitor, events)] : [])];
  const disconnect = () => stop.splice(0).forEach((each) => each());
  return { disconnect, [Symbol.dispose]: disconnect };
}

function isApi(api: unknown): boolean {
  const { metrics, trace } = (api ?? {}) as Partial<Api>;
  return typeof metrics?.getMeter === 'function' && typeof trace?.getTracer === 'function';
}

function load(): Api {
  try {
    return require('@opentelemetry/api') as Api;
  } catch (cause) {
    const message = 'OpenTelemetry needs the package @opentelemetry/api, which could not be loaded: npm install @opentelemetry/api';
    throw new EmbeddingError('BACKEND_UNAVAILABLE', message, { cause });
  }
}

function observe(meter: Meter, read: () => MonitorSnapshot): () => void {
  const counter = (name: string, description: string, unit = '1') => meter.createObservableCounter(`${NAME}.${name}`, { description, unit });
  const gauge = (name: string, description: string, unit: string) => meter.createObservableGauge(`${NAME}.${name}`, { description, unit });
  const count = counter('operation.count', 'Operations that have ended, failed ones included.');
  const errors = counter('operation.errors', 'Operations that failed.');
  const items = counter('operation.items', 'Items processed.');
  const busy = counter('operation.time', 'Time of all operations together.', 's');
  const duration = gauge('operation.duration', 'Percentiles of the time of operations.', 's');
  const throughput = gauge('operation.throughput', 'Items a second over the last minute.', '{item}/s');
  const lookups = counter('cache.requests', 'Look-ups in caches.');
  const cycles = counter('cycles', 'Cycles that have ended.');
  const memory = gauge('process.memory', 'Memory that the process holds.', 'By');
  const instruments = [count, errors, items, busy, duration, throughput, lookups, cycles, memory];
  const callback = (observer: Observer) => {
    const snapshot = read();
    for (const one of snapshot.operations) {
      const operation = { operation: one.name };
      observer.observe(count, one.count, operation);
      observer.observe(errors, one.errors, operation);
      observer.observe(items, one.items, operation);
      observer.observe(busy, one.total / 1000, operation);
      observer.observe(throughput, one.throughput.lastMinute, operation);
      for (const [quantile, key] of QUANTILES) observer.observe(duration, one[key] / 1000, { ...operation, quantile });
    }
    for (const { type, hits, misses } of snapshot.caches) {
      observer.observe(lookups, hits, { type, result: 'hit' });
      observer.observe(lookups, misses, { type, result: 'miss' });
    }
    const { summary } = snapshot.cycles;
    for (const status of ['succeeded', 'failed', 'interrupted'] as const) observer.observe(cycles, summary[status], { status });
    if (snapshot.machine) observer.observe(memory, snapshot.machine.processMemory);
  };
  meter.addBatchObservableCallback(callback, instruments);
  return () => meter.removeBatchObservableCallback(callback, instruments);
}

/** Makes spans of what ends. */
function follow(trace: Api['trace'], monitor: PerformanceMonitor, events: Channel): () => void {
  const tracer = trace.getTracer(NAME);
  const listener = (message: unknown) => {
    const event = message as MonitorEvent;
    if (event.type !== 'operation' || event.monitor !== monitor) return;
    const end = Date.now();
    const attributes = { 'embedcore.items': event.items };
    const span = tracer.startSpan(event.name, { startTime: end - event.duration, attributes });
    if (!event.success) span.setStatus({ code: ERROR });
    if (event.error instanceof Error || typeof event.error === 'string') span.recordException(event.error);
    span.end(end);
  };
  events.subscribe(listener);
  return () => events.unsubscribe(listener);
}
