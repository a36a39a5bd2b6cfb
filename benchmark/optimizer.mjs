// Batch sizes on a machine that does not exist: how near do they come to the best, and do they stay? See
// `node benchmark/optimizer.mjs --help`.

import { parseArgs } from 'node:util';

import { DynamicBatchOptimizer } from '../dist/index.js';

const usage = `node benchmark/optimizer.mjs [--runs N] [--noise S]

Runs each algorithm N times (default 100), with other noise each time, on a synthetic machine: a cost model for the time
of a batch, times lognormal noise of standard deviation S (default 0.03 and 0.1). Sizes from 1 to 128, the first one 32.

  settled   throughput of the size in use after 30 batches, in percent of the best size's
  held      throughput over the 300 batches after those, trying other sizes included
  changes   how often the size changed in these 300
  after     throughput of the size in use 20 batches after the machine has become another one
  held      throughput over the 300 batches after those

Each as the median of the runs and, in parentheses, the worst tenth.`;

const { values: settings } = parseArgs({
  options: { runs: { type: 'string', default: '100' }, noise: { type: 'string' }, help: { type: 'boolean' } },
});
if (settings.help) {
  console.log(usage);
  process.exit();
}

/** Milliseconds of a batch of n. */
const shapes = {
  'small is best': (n) => 2 + 5 * n + 0.4 * n * n,
  'large is best': (n) => 60 + 1.5 * n,
  'cliff above 50': (n) => 20 + (n <= 50 ? 2 : 16) * n,
  'two peaks, 8 and 128': (n) => {
    const octaves = Math.log2(n);
    return (10 * n) / (Math.exp(-((octaves - 3) ** 2) / 2) + 1.3 * Math.exp(-((octaves - 7) ** 2) / 2) + 0.05);
  },
};
const [min, max, first] = [1, 128, 32];

/** What a size is worth: its throughput relative to the best one's, 0–1. */
function efficiency(cost, size) {
  let best = 0;
  for (let n = min; n <= max; n++) best = Math.max(best, n / cost(n));
  return size / cost(size) / best;
}

const clamp = (size) => Math.min(max, Math.max(min, Math.round(size)));

/** Each gives the size for the next batch, and is told what the latest one took. */
const algorithms = {
  embedcore: () => {
    const optimizer = new DynamicBatchOptimizer(first);
    return {
      size: () => optimizer.getCurrentBatchSize(),
      // Where it stands, and not what it tries for one batch.
      best: () => optimizer.getOptimizationRecommendation().recommendedBatchSize,
      record: (batchSize, processingTime) =>
        optimizer.recordPerformance({ batchSize, processingTime, itemsProcessed: batchSize, memoryUsage: 50, cpuUsage: 50 }),
    };
  },
  'fixed 32': () => ({ size: () => first, record() {} }),
  // On as long as the latest batch was faster than the one before, else back.
  'hill climbing': () => {
    let [size, before, factor] = [first, 0, 1.25];
    return {
      size: () => size,
      record(items, time) {
        if (items / time < before) factor = 1 / factor;
        before = items / time;
        const next = clamp(size * factor);
        size = next === size ? clamp(size + Math.sign(factor - 1)) : next;
      },
    };
  },
  // The mean throughput of each size among the latest ten batches decides, and a fifth more is tried while resources are
  // idle, every tenth batch.
  'best of the latest': () => {
    let [size, seen] = [first, 0];
    let history = [];
    return {
      size: () => size,
      record(items, time) {
        history = [...history, { size, throughput: items / time }].slice(-10);
        if (++seen % 10 > 0) return;
        const sums = new Map();
        for (const { size, throughput } of history) {
          const [sum, count] = sums.get(size) ?? [0, 0];
          sums.set(size, [sum + throughput, count + 1]);
        }
        const [best] = [...sums].sort(([, [a, n]], [, [b, m]]) => b / m - a / n)[0];
        size = clamp(best * 1.2);
      },
    };
  },
  // More by a fixed step, and half when a batch was much slower for each item than the fastest of late.
  AIMD: () => {
    let [size, best] = [first, 0];
    return {
      size: () => size,
      record(items, time) {
        best = Math.max(best * 0.98, items / time);
        size = clamp(items / time < 0.8 * best ? size / 2 : size + 4);
      },
    };
  },
};

/** Numbers between 0 and 1, the same for a seed. */
function random(seed) {
  let state = seed * 2654435769;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function gauss(uniform) {
  return Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** Lets an algorithm run batches: throughput relative to the best one's, over the time that they took. */
function drive(algorithm, cost, noise, uniform, batches) {
  let [items, time, changes] = [0, 0, 0];
  let before = algorithm.best?.() ?? algorithm.size();
  for (let i = 0; i < batches; i++) {
    const size = algorithm.size();
    items += size;
    time += cost(size);
    algorithm.record(size, cost(size) * Math.exp(noise * gauss(uniform)));
    const now = algorithm.best?.() ?? algorithm.size();
    if (now !== before) changes++;
    before = now;
  }
  const best = efficiency(cost, 1) / (1 / cost(1));
  return { throughput: (items / time) * best, changes };
}

const percent = (values) => {
  const sorted = values.sort((a, b) => a - b);
  const at = (share) => (100 * sorted[Math.floor(share * (sorted.length - 1))]).toFixed(1);
  return `${at(0.5)} (${at(0.1)})`.padStart(15);
};

const runs = Number(settings.runs);
const noises = settings.noise ? [Number(settings.noise)] : [0.03, 0.1];
for (const noise of noises) {
  console.log(`Noise ${noise}, ${runs} runs; percent of the best size's throughput, median (worst tenth)\n`);
  const heads = ['settled', 'held', 'changes', 'after', 'held'];
  console.log(`${''.padEnd(44)}${heads.map((head) => head.padStart(head === 'changes' ? 9 : 15)).join('')}`);
  for (const [shape, cost] of Object.entries(shapes)) {
    for (const [name, make] of Object.entries(algorithms)) {
      const [settled, held, changes, after, heldAfter] = [[], [], [], [], []];
      for (let run = 1; run <= runs; run++) {
        const uniform = random(run);
        const algorithm = make();
        const best = () => algorithm.best?.() ?? algorithm.size();
        drive(algorithm, cost, noise, uniform, 30);
        settled.push(efficiency(cost, best()));
        const holding = drive(algorithm, cost, noise, uniform, 300);
        held.push(holding.throughput);
        changes.push(holding.changes);
        const others = Object.values(shapes).filter((other) => other !== cost);
        const next = others[run % others.length];
        drive(algorithm, next, noise, uniform, 20);
        after.push(efficiency(next, best()));
        heldAfter.push(drive(algorithm, next, noise, uniform, 300).throughput);
      }
      const median = changes.sort((a, b) => a - b)[Math.floor(changes.length / 2)];
      console.log(
        `${shape.padEnd(24)}${name.padEnd(20)}${percent(settled)}${percent(held)}${String(median).padStart(9)}` +
          `${percent(after)}${percent(heldAfter)}`,
      );
    }
  }
  console.log();
}

// What a record costs, while it searches and afterwards.
const optimizer = new DynamicBatchOptimizer(first);
const uniform = random(1);
const cost = (batches) => {
  let ms = 0;
  for (let i = 0; i < batches; i++) {
    const batchSize = optimizer.getCurrentBatchSize();
    const processingTime = shapes['large is best'](batchSize) * Math.exp(0.03 * gauss(uniform));
    const started = performance.now();
    optimizer.recordPerformance({ batchSize, processingTime, itemsProcessed: batchSize, memoryUsage: 50, cpuUsage: 50 });
    ms += performance.now() - started;
  }
  return ((ms / batches) * 1000).toFixed(1);
};
console.log(`A record costs ${cost(30)} µs over the first 30 batches, ${cost(100_000)} µs over the 100,000 after them.`);
