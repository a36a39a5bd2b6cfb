import type { Channel } from 'node:diagnostics_channel';

import { EmbeddingError } from '../call/errors';
import { show } from '../call/input';
import { optionReader, refused } from '../call/options';
import { mergeSnapshots, type MonitorSnapshot } from './snapshot';

/** Options of {@link PerformanceMonitor.connectOpenTelemetry}. */
export interface OpenTelemetryOptions {
  /** Whether operations become spans, too, as children of the span that is active when they end. Default false. */
  spans?: boolean | undefined;
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
interface Counter {
  add(value: number, attributes: Record<string, string>): void;
}
interface Gauge {
  readonly gauge?: never;
}
interface Observer {
  observe(gauge: Gauge, value: number, attributes?: Record<string, string>): void;
}
interface Meter {
  createCounter(name: string, options: { description: string; unit?: string }): Counter;
  createObservableGauge(name: string, options: { description: string; unit?: string }): Gauge;
  addBatchObservableCallback(callback: (observer: Observer) => void, gauges: Gauge[]): void;
  removeBatchObservableCallback(callback: (observer: Observer) => void, gauges: Gauge[]): void;
}
interface Span {
  recordException(error: unknown): void;
  setStatus(status: { code: number }): void;
  end(time: number): void;
}
interface Api {
  metrics: { getMeter(name: string): Meter };
  trace: { getTracer(name: string): { startSpan(name: string, options: object): Span } };
  /** Gives the meter that there is before a provider, the same one always. */
  createNoopMeter?(): Meter;
}

const NAME = 'embedcore';

/** `SpanStatusCode.ERROR`. */
const ERROR = 2;

/** How often it is looked whether there is a provider by now, in milliseconds. */
const LOOK_MS = 1000;

const QUANTILES = [
  ['0.5', 'p50'],
  ['0.95', 'p95'],
  ['0.99', 'p99'],
  ['0.999', 'p999'],
] as const;

/** What a monitor publishes of an operation that has ended. */
interface OperationEvent {
  monitor: object;
  type: string;
  name: string;
  duration: number;
  items: number;
  success: boolean;
  error?: unknown;
}

/** What is read of a monitor: with histograms, or without. */
export type ReadMonitor = (histograms: boolean) => MonitorSnapshot;

export function connect(
  monitor: object,
  read: ReadMonitor,
  events: Channel,
  options: OpenTelemetryOptions,
): OpenTelemetryConnection {
  const { spans = false, api: given } = readOptions(options);
  if (typeof spans !== 'boolean') throw refused('spans', `${show(spans)} is not true or false`);
  if (given !== undefined && !isApi(given)) throw refused('api', `${show(given)} is not the package @opentelemetry/api`);
  const api = (given ?? load()) as Api;
  const stop = [observe(api, monitor, read), ...(spans ? [follow(api.trace, monitor, events)] : [])];
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

/** Offers a monitor to the meter; where there is no provider yet, to that of the first one that there is. */
function observe(api: Api, monitor: object, read: ReadMonitor): () => void {
  let leave: (() => void) | undefined;
  const look = () => {
    const meter = api.metrics.getMeter(NAME);
    if (meter === api.createNoopMeter?.()) return false;
    leave = meterOf(meter).join(monitor, read);
    return true;
  };
  const timer = look() ? undefined : setInterval(() => look() && clearInterval(timer), LOOK_MS).unref();
  return () => {
    clearInterval(timer);
    leave?.();
  };
}

const meters = new WeakMap<Meter, Joined>();

function meterOf(meter: Meter): Joined {
  let joined = meters.get(meter);
  if (!joined) meters.set(meter, (joined = new Joined(meter)));
  return joined;
}

/** What a monitor has told of its sums since it was made or reset. */
interface Told {
  since: number;
  sums: Map<string, number>;
}

interface Member {
  read: ReadMonitor;
  connections: number;
}

/**
 * All monitors on one meter, told as one: sums are added to counters, of which the SDK knows one for all; gauges are those
 * of all durations together.
 */
class Joined {
  readonly #meter: Meter;
  readonly #counters: Record<'count' | 'errors' | 'items' | 'busy' | 'lookups' | 'cycles', Counter>;
  readonly #gauges: Record<'duration' | 'throughput' | 'memory', Gauge>;
  readonly #members = new Map<object, Member>();
  /** Of monitors that have left, too: what one has told is not told anew when it comes back. */
  readonly #told = new WeakMap<object, Told>();
  readonly #callback = (observer: Observer) => this.#collect(observer);

  constructor(meter: Meter) {
    this.#meter = meter;
    const counter = (name: string, description: string, unit = '1') => meter.createCounter(`${NAME}.${name}`, { description, unit });
    const gauge = (name: string, description: string, unit: string) => meter.createObservableGauge(`${NAME}.${name}`, { description, unit });
    this.#counters = {
      count: counter('operation.count', 'Operations that have ended, failed ones included.'),
      errors: counter('operation.errors', 'Operations that failed.'),
      items: counter('operation.items', 'Items processed.'),
      busy: counter('operation.time', 'Time of all operations together.', 's'),
      lookups: counter('cache.requests', 'Look-ups in caches.'),
      cycles: counter('cycles', 'Cycles that have ended.'),
    };
    this.#gauges = {
      duration: gauge('operation.duration', 'Percentiles of the time of operations.', 's'),
      throughput: gauge('operation.throughput', 'Items a second over the last minute.', '{item}/s'),
      memory: gauge('process.memory', 'Memory that the process holds.', 'By'),
    };
  }

  /** Gives the function that takes it back. */
  join(monitor: object, read: ReadMonitor): () => void {
    if (this.#members.size === 0) this.#meter.addBatchObservableCallback(this.#callback, Object.values(this.#gauges));
    const member = this.#members.get(monitor) ?? { read, connections: 0 };
    member.connections++;
    this.#members.set(monitor, member);
    return () => {
      if (--member.connections > 0) return;
      this.#members.delete(monitor);
      if (this.#members.size === 0) this.#meter.removeBatchObservableCallback(this.#callback, Object.values(this.#gauges));
    };
  }

  #collect(observer: Observer): void {
    // Percentiles of several are found in the histograms of all.
    const several = this.#members.size > 1;
    const snapshots = [...this.#members].map(([monitor, { read }]) => {
      const snapshot = read(several);
      this.#told.set(monitor, this.#add(snapshot, this.#told.get(monitor)));
      return snapshot;
    });
    const [first] = snapshots;
    if (!first) return;
    const { operations } = several ? mergeSnapshots(...snapshots) : first;
    for (const one of operations) {
      const operation = { operation: one.name };
      observer.observe(this.#gauges.throughput, one.throughput.lastMinute, operation);
      for (const [quantile, key] of QUANTILES) observer.observe(this.#gauges.duration, one[key] / 1000, { ...operation, quantile });
    }
    if (first.machine) observer.observe(this.#gauges.memory, first.machine.processMemory);
  }

  /** Adds what was not told yet, and gives what is told now. */
  #add({ operations, caches, cycles, startedAt }: MonitorSnapshot, told: Told | undefined): Told {
    const { count, errors, items, busy, lookups, cycles: ended } = this.#counters;
    const before = told?.since === startedAt ? told.sums : new Map<string, number>();
    const sums = new Map<string, number>();
    const add = (counter: Counter, kind: string, value: number, attributes: Record<string, string>) => {
      const key = `${kind} ${Object.values(attributes).join(' ')}`;
      // A sum of 0 is there from the beginning.
      if (value !== before.get(key)) counter.add(value - (before.get(key) ?? 0), attributes);
      sums.set(key, value);
    };
    for (const one of operations) {
      const operation = { operation: one.name };
      add(count, 'count', one.count, operation);
      add(errors, 'errors', one.errors, operation);
      add(items, 'items', one.items, operation);
      add(busy, 'busy', one.total / 1000, operation);
    }
    for (const { type, hits, misses } of caches) {
      add(lookups, 'lookups', hits, { result: 'hit', type });
      add(lookups, 'lookups', misses, { result: 'miss', type });
    }
    for (const status of ['succeeded', 'failed', 'interrupted'] as const) add(ended, 'cycles', cycles.summary[status], { status });
    return { since: startedAt, sums };
  }
}

/** Makes spans of what ends. */
function follow(trace: Api['trace'], monitor: object, events: Channel): () => void {
  const tracer = trace.getTracer(NAME);
  const listener = (message: unknown) => {
    const event = message as OperationEvent;
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
