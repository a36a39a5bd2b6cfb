// What it costs to measure. See `node benchmark/monitor.mjs --help`.

import { parseArgs } from 'node:util';

import { DynamicBatchOptimizer, OptimizedEmbeddingGenerator, PerformanceDashboard, PerformanceMonitor } from '../dist/index.js';

const usage = `node benchmark/monitor.mjs [--rounds N]

Nanoseconds a call, each the median of N rounds (default 15), everything in turns: a busy moment hits all alike.

  plain call    of a method of another native class, which does next to nothing: what any native monitor pays at least
  record        of one duration; and with { batchSize }
  recordMany    for each of 100,000 durations in a Float64Array
  timer         startTimer and stop, memory looked at both times
  measure       of a function that does nothing; and what awaiting it costs without a monitor
  cacheHit
  text summary  of 20 operations (microseconds)
  cached call   of a generator, for one text and for 1,000: with a monitor against without one, in pairs. It measures its
                stages in either case, so all of it costs twice as much at most

Then the error of percentiles against the sorted sample, of a million durations each.`;

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '15' }, help: { type: 'boolean' } } });
if (values.help) {
  console.log(usage);
  process.exit();
}
const rounds = Number(values.rounds);

const monitor = new PerformanceMonitor();
const plain = new DynamicBatchOptimizer();
const many = Float64Array.from({ length: 100_000 }, (_, i) => (i * 7919) % 1000 / 10);
const nothing = async () => {};

const contenders = {
  'plain call': [200_000, () => plain.getCurrentBatchSize()],
  record: [200_000, () => monitor.record('a', 1.5)],
  'record, batchSize': [200_000, () => monitor.record('a', 1.5, { batchSize: 3 })],
  'recordMany, each': [1, () => monitor.recordMany('b', many), many.length],
  cacheHit: [200_000, () => monitor.cacheHit('a')],
  timer: [20_000, () => monitor.startTimer('c').stop()],
  'await alone': [20_000, () => nothing(), 1, true],
  measure: [20_000, () => monitor.measure('d', nothing), 1, true],
};

const taken = Object.fromEntries(Object.keys(contenders).map((name) => [name, []]));
for (let round = -2; round < rounds; round++) {
  for (const [name, [times, work, each = 1, wait = false]] of Object.entries(contenders)) {
    const started = performance.now();
    if (wait) for (let i = 0; i < times; i++) await work();
    else for (let i = 0; i < times; i++) work();
    // The first rounds warm up.
    if (round >= 0) taken[name].push(((performance.now() - started) / times / each) * 1e6);
  }
}
const median = (all) => all.sort((a, b) => a - b)[all.length >> 1];
const base = median(taken['plain call']);
for (const [name, all] of Object.entries(taken)) {
  const ns = median(all);
  console.log(`${name.padEnd(18)} ${ns.toFixed(ns < 100 ? 1 : 0).padStart(8)} ns   ${(ns / base).toFixed(2)} × a plain call`);
}

const busy = new PerformanceMonitor();
for (let i = 0; i < 20; i++) busy.recordMany(`operation ${i}`, many);
const dashboard = new PerformanceDashboard({ monitor: busy, interval: 3_600_000 });
const summaries = [];
for (let round = 0; round < rounds * 10; round++) {
  const started = performance.now();
  dashboard.textSummary();
  summaries.push((performance.now() - started) * 1000);
}
await dashboard.close();
console.log(`${'text summary of 20'.padEnd(18)} ${median(summaries).toFixed(0).padStart(8)} µs`);

for (const [count, times] of [[1, 500], [1000, 20]]) {
  const texts = Array.from({ length: count }, (_, i) => `function ${i} reads a file and gives its lines, one by one, to whoever asks`);
  const generators = [{ monitor: false }, { monitor }].map((options) => new OptimizedEmbeddingGenerator(options));
  for (const generator of generators) {
    await generator.initialize();
    await generator.embed(texts);
  }
  const ratios = [];
  const calls = [];
  for (let round = 0; round < rounds * 20; round++) {
    const ms = [];
    // Each goes first in every other pair.
    for (const which of round % 2 ? [0, 1] : [1, 0]) {
      const started = performance.now();
      for (let i = 0; i < times; i++) await generators[which].embed(texts);
      ms[which] = (performance.now() - started) / times;
    }
    ratios.push(ms[1] / ms[0]);
    calls.push(ms[0]);
  }
  for (const generator of generators) await generator.cleanup();
  console.log(`cached call, ${String(count).padEnd(5)} ${(median(calls) * 1000).toFixed(0).padStart(7)} µs   ${median(ratios).toFixed(4)} × with a monitor`);
}

let state = 1;
const next = () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0), (state + 0.5) / 2 ** 32);
const normal = () => Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next());
const shapes = {
  uniform: () => 0.01 + 100 * next(),
  lognormal: () => Math.exp(1.5 * normal()),
  bimodal: () => (next() < 0.7 ? 2 : 400) * Math.max(0.1, 1 + 0.05 * normal()),
};
console.log('\nlargest error of  p50      p95      p99      p99.9');
for (const [shape, draw] of Object.entries(shapes)) {
  const samples = Float64Array.from({ length: 1_000_000 }, draw);
  monitor.recordMany(shape, samples);
  samples.sort();
  const stats = monitor.getStats(shape);
  const errors = [['p50', 0.5], ['p95', 0.95], ['p99', 0.99], ['p999', 0.999]].map(([name, quantile]) => Math.abs(stats[name] / samples[Math.ceil(quantile * samples.length) - 1] - 1));
  console.log(`${shape.padEnd(16)} ${errors.map((error) => `${(error * 100).toFixed(3)} %`.padStart(8)).join(' ')}`);
}
