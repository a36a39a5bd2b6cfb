import { context, metrics as otelMetrics, trace } from '@opentelemetry/api';
import { AggregationTemporality, InMemoryMetricExporter, MeterProvider, PeriodicExportingMetricReader, type DataPoint } from '@opentelemetry/sdk-metrics';
import { spawnSync } from 'node:child_process';

import { PerformanceMonitor, type PrometheusOptions } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure } from './support';

/** Names that break what is not careful. */
const STRANGE = ['plain', 'two words', 'new\nline', 'carriage\r\nreturn', 'a "quoted" one', 'back\\slash\\', '{le="1"} 5', '=1+1', '+1', '-1', '@SUM(A1)', ' =1',
  '\t=1', '<script>alert(1)</script>', 'a|b', '`code`', '日本語の名前', '😀', 'a,b;c', '#', 'nul\0', '\u001b[31mred', '\u202eright to left', '__proto__', 'constructor'];

function filled(): PerformanceMonitor {
  const monitor = new PerformanceMonitor();
  STRANGE.forEach((name, i) => {
    monitor.record(name, (i + 1) * 1.5, { batchSize: i, memory: (i + 1) * 1024 });
    monitor.record(name, 100, { error: new Error(`${name} failed`) });
    monitor.cacheHit(name);
    monitor.cacheMiss(name);
    monitor.startCycle(name);
    monitor.recordLlmCall(name, { cacheHit: i % 2 === 0 });
    monitor.endCycle(name, { success: i % 3 !== 0 });
  });
  return monitor;
}

/** Python's prometheus_client: the parser that the makers of Prometheus keep. Debian: python3-prometheus-client. */
const IMPORT = 'import json, sys; from prometheus_client.parser import text_string_to_metric_families as parse';
const python = ['python3', '/usr/bin/python3'].find((command) => spawnSync(command, ['-c', IMPORT]).status === 0);
if (!python) console.log('Skipped: what Prometheus reads, because Python has no prometheus_client here');

interface Family {
  name: string;
  type: string;
  help: string;
  samples: [name: string, labels: Record<string, string>, value: number][];
}

function parsePrometheus(text: string): Map<string, Family> {
  const print = `${IMPORT}
print(json.dumps([{"name": f.name, "type": f.type, "help": f.documentation, "samples": [[s.name, s.labels, s.value] for s in f.samples]} for f in parse(sys.stdin.buffer.read().decode())]))`;
  const { stdout, stderr } = spawnSync(python!, ['-c', print], { input: text, encoding: 'utf8' });
  expect(stderr).toBe('');
  return new Map((JSON.parse(stdout) as Family[]).map((family) => [family.name, family]));
}

describe('Prometheus', () => {
  test.runIf(python)('a parser reads what was recorded', () => {
    const monitor = filled();
    const text = monitor.toPrometheus({ labels: { service: 'a "b"\n\\' } });
    const families = parsePrometheus(text);
    const { operations, caches, cycles } = monitor.getSummary();
    const value = (family: string, labels: Record<string, string>, suffix = '') => {
      const wanted = JSON.stringify(Object.entries({ service: 'a "b"\n\\', ...labels }).sort());
      const found = families.get(family)!.samples.filter((sample) => sample[0] === family + suffix && JSON.stringify(Object.entries(sample[1]).sort()) === wanted);
      expect(found, `${family} ${wanted}`).toHaveLength(1);
      return found[0]![2];
    };
    for (const operation of STRANGE) {
      const stats = operations[operation]!;
      const duration = 'embedcore_operation_duration_seconds';
      expect(value(duration, { operation }, '_count')).toBe(2);
      expect(value(duration, { operation }, '_sum')).toBeCloseTo(stats.total / 1000, 9);
      for (const [quantile, ms] of [['0.5', stats.p50], ['0.95', stats.p95], ['0.99', stats.p99], ['0.999', stats.p999]] as const) {
        expect(value(duration, { operation, quantile })).toBeCloseTo(ms / 1000, 9);
      }
      expect(value('embedcore_operation_errors', { operation }, '_total')).toBe(1);
      expect(value('embedcore_operation_items', { operation }, '_total')).toBe(stats.items);
      expect(value('embedcore_operation_memory_peak_bytes', { operation })).toBe(stats.memory!.peak);
      expect(value('embedcore_cache_requests', { type: operation, result: 'hit' }, '_total')).toBe(caches.byType[operation]!.hits);
    }
    expect(value('embedcore_cycles', { status: 'failed' }, '_total')).toBe(cycles.failed);
    expect(value('embedcore_cycle_duration_seconds', { quantile: '0.99' })).toBeCloseTo(cycles.duration!.p99 / 1000, 9);
    expect(value('embedcore_process_memory_bytes', {})).toBeGreaterThan(2 ** 20);
    // Every line is a sample of a family that says what it is.
    const samples = [...families.values()].flatMap((family) => family.samples);
    expect(samples).toHaveLength(text.trimEnd().split('\n').filter((line) => !line.startsWith('#')).length);
    for (const { name, type, help } of families.values()) expect([name, type, help.length > 5]).toEqual([name, expect.stringMatching(/^(counter|gauge|summary)$/), true]);
  });

  test('each line is a comment or a sample', () => {
    for (const line of filled().toPrometheus().trimEnd().split('\n')) {
      expect(line).toMatch(/^# (HELP|TYPE) [a-z_]+ .+$|^[a-z_]+(\{([a-z]+="([^"\\\n]|\\["\\n])*",?)+\})? -?[0-9.e+-]+$/);
    }
  });

  test('an empty monitor, prefixes and labels', async () => {
    const monitor = new PerformanceMonitor();
    const names = monitor.toPrometheus({ prefix: 'my_app' }).split('\n').filter((line) => line.startsWith('# TYPE'));
    expect(names.length).toBeGreaterThan(3);
    expect(names.every((line) => line.startsWith('# TYPE my_app_'))).toBe(true);
    const bad: PrometheusOptions[] = [{ prefix: '1a' }, { prefix: 'a-b' }, { labels: { 'a-b': '' } }, { labels: { operation: 'x' } }, { labels: { __a: '' } }, { labels: { a: 1 as never } }, null as never];
    for (const options of bad) expect((await failure(() => monitor.toPrometheus(options))).code).toBe('INVALID_CONFIG');
  });
});

describe('CSV', () => {
  /** RFC 4180. */
  function parse(csv: string): string[][] {
    const rows: string[][] = [[]];
    for (let at = 0; at < csv.length; ) {
      let value = '';
      if (csv[at] === '"') {
        const end = /"(?!")/g;
        let from = at + 1;
        for (;;) {
          end.lastIndex = from;
          const quote = csv.indexOf('"', from);
          value += csv.slice(from, quote);
          if (csv[quote + 1] !== '"') {
            at = quote + 1;
            break;
          }
          value += '"';
          from = quote + 2;
        }
      } else {
        const end = csv.slice(at).search(/[,\r\n]/);
        value = csv.slice(at, at + end);
        at += end;
      }
      rows.at(-1)!.push(value);
      if (csv[at] === ',') at++;
      else {
        expect(csv.slice(at, at + 2)).toBe('\r\n');
        at += 2;
        rows.push([]);
      }
    }
    rows.pop();
    return rows;
  }

  test('names come back, and none is a formula', () => {
    const monitor = filled();
    for (const table of ['operations', 'caches', 'cycles'] as const) {
      const [head, ...rows] = parse(monitor.toCsv(table));
      expect(rows).toHaveLength(STRANGE.length);
      for (const row of rows) {
        expect(row).toHaveLength(head!.length);
        expect(STRANGE).toContain(row[0]!.replace(/^'/, ''));
        expect(row[0]).not.toMatch(/^[\s\0]*[=+\-@]|^[\t\r\n]/);
      }
    }
    const [head, ...rows] = parse(monitor.toCsv());
    const plain = rows.find(([name]) => name === 'plain')!;
    const stats = monitor.getStats('plain')!;
    expect(Number(plain[head!.indexOf('p95_ms')])).toBe(stats.p95);
    expect(Number(plain[head!.indexOf('memory_peak_bytes')])).toBe(1024);
    expect(new Date(plain[head!.indexOf('first_at')]!).getTime()).toBe(Math.floor(stats.firstAt));
    expect(parse(new PerformanceMonitor().toCsv())).toHaveLength(1);
  });
});

test('no cell is a formula to a spreadsheet that separates cells otherwise', () => {
  const monitor = new PerformanceMonitor();
  const names = ['x;=1+1;y', 'tab\t=2+2', 'both;\t@SUM(A1)', 'bar|=4+4', 'line\u2028=5+5', 'quote";=6+6', 'return\r=7+7'];
  for (const name of names) {
    monitor.record(name, 1);
    monitor.cacheHit(name);
    monitor.startCycle(name);
  }
  for (const table of ['operations', 'caches', 'cycles'] as const) {
    const csv = monitor.toCsv(table);
    for (const name of names) expect(csv).toContain(`\r\n"${name.replace(/"/g, '""')}",`);
  }
});

describe('text and Markdown', () => {
  const wide = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\u{1f300}-\u{1faff}]/u;

  test('the summary fits a terminal of 80 columns, and steers it nowhere', () => {
    const monitor = filled();
    for (const ms of [0, 1e-6, 0.5, 999.999, 1e5, 1e9, 1e12]) for (const times of [1, 9999, 99_999]) monitor.recordMany(`${ms} ${times}`, new Float64Array(times).fill(ms), { batchSize: 123_456_789 });
    monitor.record('a name that is far too long for a table of eighty columns, and goes on and on', 1);
    monitor.record('日本語の名前はとても長いので切らなければなりません、そうでしょう', 1);
    const text = monitor.toText();
    for (const line of text.split('\n')) {
      expect([...line].reduce((sum, character) => sum + (wide.test(character) ? 2 : 1), 0), line).toBeLessThanOrEqual(80);
      expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/);
    }
    expect(text).toContain('=1+1');
    expect(text).toContain('…');
    expect(text.split('\n').filter((line) => /^… and \d+ others$/.test(line))).toHaveLength(2);
    expect(text.split('\n').length).toBeLessThan(90);
    expect(new PerformanceMonitor().toText()).toContain('Nothing was recorded yet');
  });

  test('Markdown has one line for each operation, and no markup of others', () => {
    const text = filled().toMarkdown();
    expect(text).not.toMatch(/<script|[^&]`code`/);
    const head = text.split('\n').findIndex((line) => line.startsWith('| Operation'));
    const rows = text.split('\n').slice(head + 2, head + 2 + STRANGE.length);
    for (const row of rows) expect(row.split('|'), row).toHaveLength(10);
    expect(rows.some((row) => row.includes('a&#124;b'))).toBe(true);
    expect(new PerformanceMonitor().toMarkdown()).toContain('# Performance');
  });

  test('JSON is a snapshot', () => {
    const monitor = filled();
    const { takenAt: _, machine: __, operations: ___, ...rest } = monitor.snapshot();
    expect(JSON.parse(monitor.toJson())).toMatchObject(rest);
  });
});

describe('OpenTelemetry', () => {
  test('metrics reach an exporter', async () => {
    const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
    const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
    const provider = new MeterProvider({ readers: [reader] });
    otelMetrics.setGlobalMeterProvider(provider);
    onTestFinished(async () => {
      await provider.shutdown();
      otelMetrics.disable();
    });
    const monitor = filled();
    const connection = monitor.connectOpenTelemetry();
    await provider.forceFlush();
    const all = exporter.getMetrics().at(-1)!.scopeMetrics.flatMap(({ metrics }) => metrics);
    const points = (name: string) => all.find(({ descriptor }) => descriptor.name === name)!.dataPoints;
    const { operations } = monitor.getSummary();
    for (const name of STRANGE) {
      const of = (metric: string) => points(metric).find(({ attributes }) => attributes.operation === name)!.value;
      expect(of('embedcore.operation.count')).toBe(2);
      expect(of('embedcore.operation.items')).toBe(operations[name]!.items);
      const p95 = points('embedcore.operation.duration').find(({ attributes }) => attributes.operation === name && attributes.quantile === '0.95')!;
      expect(p95.value).toBeCloseTo(operations[name]!.p95 / 1000, 9);
    }
    expect(points('embedcore.cache.requests')).toHaveLength(2 * STRANGE.length);
    connection.disconnect();
    connection.disconnect();
    monitor.record('plain', 1);
    exporter.reset();
    await provider.forceFlush();
    const after = exporter.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics).flatMap(({ metrics }) => metrics);
    const counts = after.find(({ descriptor }) => descriptor.name === 'embedcore.operation.count')?.dataPoints ?? [];
    // The SDK repeats what it knew.
    expect(counts.map(({ value }) => value).filter((value) => value !== 2)).toEqual([]);
  });

  /** A provider, and the sum of a metric over all points that have these attributes. */
  function provider() {
    const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
    const made = new MeterProvider({ readers: [new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 })] });
    onTestFinished(async () => {
      await made.shutdown();
      otelMetrics.disable();
    });
    const points = async (name: string, wanted: Record<string, string> = {}) => {
      exporter.reset();
      await made.forceFlush();
      const all = exporter.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics).flatMap(({ metrics }) => metrics);
      const found = all.filter(({ descriptor }) => descriptor.name === `embedcore.${name}`).flatMap(({ dataPoints }) => dataPoints as DataPoint<number>[]);
      return found.filter(({ attributes }) => Object.entries(wanted).every(([key, value]) => attributes[key] === value)).map(({ value }) => value);
    };
    const sum = async (name: string, wanted?: Record<string, string>) => (await points(name, wanted)).reduce((all, one) => all + one, 0);
    return { made, sum, points };
  }

  test('monitors on one provider add up', async () => {
    const { made, sum, points } = provider();
    otelMetrics.setGlobalMeterProvider(made);
    const [first, second] = [new PerformanceMonitor(), new PerformanceMonitor()];
    first.recordMany('x', new Float64Array(10).fill(10), { batchSize: 2 });
    second.recordMany('x', new Float64Array(30).fill(1000), { success: false });
    second.record('y', 5);
    for (const [i, monitor] of [first, second].entries()) {
      for (let hit = 0; hit <= i; hit++) monitor.cacheHit('text');
      monitor.startCycle('a');
      monitor.endCycle('a');
    }
    const connections = [first.connectOpenTelemetry(), second.connectOpenTelemetry(), second.connectOpenTelemetry()];
    const x = { operation: 'x' };
    for (const [name, wanted, total] of [
      ['operation.count', x, 40],
      ['operation.errors', x, 30],
      ['operation.items', x, 20],
      ['operation.count', { operation: 'y' }, 1],
      ['cache.requests', { result: 'hit' }, 3],
      ['cycles', {}, 2],
    ] as const) {
      expect([name, await sum(name, wanted)]).toEqual([name, total]);
    }
    expect(await sum('operation.time', x)).toBeCloseTo(30.1, 6);
    // Percentiles are those of all durations together, in one point.
    expect(await points('operation.duration', { ...x, quantile: '0.5' })).toEqual([expect.closeTo(1, 1)]);
    first.record('x', 10);
    first.reset();
    first.record('x', 10);
    expect(await sum('operation.count', x)).toBe(41);
    connections[1]!.disconnect();
    second.record('x', 1);
    expect(await sum('operation.count', x)).toBe(42);
    connections[2]!.disconnect();
    second.record('x', 1);
    expect(await sum('operation.count', x)).toBe(42);
    connections.push(second.connectOpenTelemetry());
    expect(await sum('operation.count', x)).toBe(43);
    for (const connection of connections) connection.disconnect();
  });

  test('connected before there is a provider, it reports to the first one', async () => {
    const monitor = new PerformanceMonitor();
    monitor.record('early', 1);
    const connection = monitor.connectOpenTelemetry();
    onTestFinished(() => connection.disconnect());
    const never = monitor.connectOpenTelemetry();
    never.disconnect();
    const { made, sum } = provider();
    otelMetrics.setGlobalMeterProvider(made);
    await expect.poll(() => sum('operation.count', { operation: 'early' }), { timeout: 20_000 }).toBe(1);
  });

  test('operations become spans, those of this monitor only', async () => {
    const spans: { name: string; options: Record<string, any>; ended?: number; status?: number; error?: unknown }[] = [];
    const tracer = {
      startSpan(name: string, options: object) {
        const span: (typeof spans)[number] = { name, options: options as Record<string, any> };
        spans.push(span);
        return {
          setStatus: ({ code }: { code: number }) => (span.status = code),
          recordException: (error: unknown) => (span.error = error),
          end: (time: number) => (span.ended = time),
        };
      },
    };
    const api = { context, metrics: otelMetrics, trace: { ...trace, getTracer: () => tracer } };
    const monitor = new PerformanceMonitor();
    const connection = monitor.connectOpenTelemetry({ spans: true, api });
    const error = new Error('no');
    monitor.record('a', 250, { batchSize: 3 });
    monitor.record('b', 5, { error });
    new PerformanceMonitor().record('of another', 1);
    connection.disconnect();
    monitor.record('late', 1);
    expect(spans.map(({ name }) => name)).toEqual(['a', 'b']);
    expect(spans[0]!.ended! - spans[0]!.options.startTime).toBe(250);
    expect(spans[0]!.options.attributes).toEqual({ 'embedcore.items': 3 });
    expect(spans[1]).toMatchObject({ status: 2, error });
  });

  test('bad options', async () => {
    expect((await failure(() => new PerformanceMonitor().connectOpenTelemetry(5 as never))).code).toBe('INVALID_CONFIG');
  });
});
