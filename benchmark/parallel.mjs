// Parallel maps, worker pools, files, validators and evaluations against what people use. See `node benchmark/parallel.mjs --help`.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import parallel from '../dist/parallel/index.js';
import { count, main, median, temporaryDirectory } from './lib.mjs';

const usage = `node benchmark/parallel.mjs [--rounds N] [--samples N]

Each figure is the median of N rounds (default 7), contenders in turns; the ratio is that of the medians.

  no-op        100,000 items through an async function that does nothing, 8 at a time: parallelMap, p-map
  tasks        10,000 tasks of 0.2 ms of computing, 2 worker threads: parallelMap in chunks of 32 and alone, piscina, tinypool
  read         20,000 files of 4 KB, warm: BatchFileProcessor, fs.promises.readFile 512 at a time, readFileSync
  write        5,000 new files, atomically: BatchFileProcessor, write-file-atomic 64 at a time
  validators   5 of 100 ms and one that hangs, with a time-out of 300 ms
  evaluator    --samples (default 1,000,000) samples with 3 scores: memory after each tenth, and the error of the statistics

Peers are those of benchmark/package.json (\`npm ci --prefix benchmark\`); whoever is not installed is skipped.`;

const work = { module: new URL('./parallel-task.mjs', import.meta.url) };

/** Runs contenders in turns: `{ name: () => Promise }`, and prints medians and the ratio to the first one. */
async function compare(title, rounds, contenders) {
  const present = Object.entries(contenders).filter(([, run]) => run);
  const times = new Map(present.map(([name]) => [name, []]));
  for (const [, run] of present) await run();
  for (let round = 0; round < rounds; round++) {
    for (const [name, run] of present) {
      const started = performance.now();
      await run();
      times.get(name).push(performance.now() - started);
    }
  }
  const [, own] = [...times][0];
  console.log(`\n${title}`);
  for (const [name, all] of times) {
    const ratio = median(own) / median(all);
    console.log(`  ${name.padEnd(28)} ${median(all).toFixed(1).padStart(9)} ms${all === own ? '' : `   embedcore takes ${ratio.toFixed(2)} × its time`}`);
  }
}

/** A peer, or nothing where it is not installed. */
async function peer(name) {
  try {
    const loaded = await import(name);
    return loaded.default ?? loaded;
  } catch {
    console.log(`${name} is not installed: left out (npm ci --prefix benchmark)`);
    return undefined;
  }
}

async function maps(rounds) {
  const pMap = await peer('p-map');
  const items = Array.from({ length: 100_000 }, (_, i) => i);
  const nothing = async (item) => item;
  await compare('100,000 items, an async function that does nothing', rounds, {
    parallelMap: () => parallel.parallelMap(items, nothing, { concurrency: 8 }),
    'p-map': pMap && (() => pMap(items, nothing, { concurrency: 8 })),
  });
}

async function tasks(rounds) {
  const [Piscina, Tinypool] = [await peer('piscina'), await peer('tinypool')];
  const filename = fileURLToPath(work.module);
  const settings = { filename, minThreads: 2, maxThreads: 2 };
  const all = Array.from({ length: 10_000 }, () => 0.2);
  const own = new parallel.ParallelProcessor({ concurrency: 2 });
  const piscina = Piscina && new Piscina(settings);
  const tinypool = Tinypool && new Tinypool(settings);
  await compare('10,000 tasks of 0.2 ms on 2 worker threads (they compute for 1,000 ms)', rounds, {
    'parallelMap, chunks of 32': () => own.map(all, work, { chunkSize: 32 }),
    'parallelMap, one by one': () => own.map(all, work),
    piscina: piscina && (() => Promise.all(all.map((task) => piscina.run(task)))),
    tinypool: tinypool && (() => Promise.all(all.map((task) => tinypool.run(task)))),
  });
  await Promise.all([own.close(), piscina?.destroy(), tinypool?.destroy()]);
}

async function files(rounds, folder) {
  const writeFileAtomic = await peer('write-file-atomic');
  const content = 'x'.repeat(4096);
  const at = (name, length) => Array.from({ length }, (_, i) => join(folder, name, `${i}`));
  mkdirSync(join(folder, 'read'));
  const paths = at('read', 20_000);
  for (const path of paths) writeFileSync(path, content);
  const own = new parallel.BatchFileProcessor();
  await compare('read 20,000 files of 4 KB', rounds, {
    BatchFileProcessor: () => own.readBatch(paths),
    'fs.promises.readFile': () => parallel.parallelMap(paths, (path) => readFile(path, 'utf8'), { concurrency: 512 }),
    readFileSync: async () => paths.map((path) => readFileSync(path, 'utf8')),
  });
  // New files in a new folder each time: to replace one waits for the disk on some file systems, whoever does it.
  let folders = 0;
  const fresh = () => {
    const name = `written-${folders++}`;
    mkdirSync(join(folder, name));
    return at(name, 5000);
  };
  await compare('write 5,000 files of 4 KB atomically', rounds, {
    BatchFileProcessor: () => own.writeBatch(fresh().map((path) => ({ path, content }))),
    'write-file-atomic, no fsync': writeFileAtomic && (() => parallel.parallelMap(fresh(), (path) => writeFileAtomic(path, content, { fsync: false }), { concurrency: 64 })),
  });
}

async function validators() {
  const validator = new parallel.ParallelValidator({ maxWorkers: 6, timeoutMs: 300 });
  const started = performance.now();
  await validator.run([...Array.from({ length: 5 }, () => () => sleep(100)), () => new Promise(() => {})]);
  console.log(`\n5 validators of 100 ms and one that hangs, time-out 300 ms: ${(performance.now() - started).toFixed(1)} ms`);
}

async function evaluator(samples) {
  const scored = new parallel.RealtimeEvaluator({ evaluate: (n) => ({ linear: n / samples, wave: Math.sin(n), square: (n % 1000) ** 2 }), monitor: false });
  const source = (function* () { for (let n = 0; n < samples; n++) yield n; })();
  const held = [];
  let seen = 0;
  const started = performance.now();
  for await (const _ of scored.evaluateStream(source)) if (++seen % Math.ceil(samples / 10) === 0) held.push(Math.round(process.memoryUsage().rss / 2 ** 20));
  const seconds = (performance.now() - started) / 1000;
  console.log(`\n${samples} samples with 3 scores: ${seconds.toFixed(1)} s, memory after each tenth: ${held.join(', ')} MB`);
  for (const [name, value] of Object.entries({ linear: (n) => n / samples, wave: Math.sin, square: (n) => (n % 1000) ** 2 })) {
    const values = Float64Array.from({ length: samples }, (_, n) => value(n));
    const mean = values.reduce((sum, x) => sum + x, 0) / samples;
    const std = Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / samples);
    values.sort();
    const stats = scored.getAggregateStats().scores[name];
    const off = (is, right) => (Math.abs(is - right) / Math.max(1, Math.abs(right))).toExponential(1);
    const rank = (share) => values[Math.ceil(share * samples) - 1];
    console.log(`  ${name.padEnd(8)} mean off by ${off(stats.mean, mean)}, std by ${off(stats.std, std)}, p50 by ${off(stats.p50, rank(0.5))}, p95 by ${off(stats.p95, rank(0.95))}`);
  }
}

await main(async () => {
  const { values } = parseArgs({ options: { rounds: { type: 'string', default: '7' }, samples: { type: 'string', default: '1000000' }, help: { type: 'boolean' } } });
  if (values.help) return console.log(usage);
  const rounds = count(values.rounds, '--rounds');
  // First: what others leave behind would be counted as its memory.
  await evaluator(count(values.samples, '--samples'));
  await maps(rounds);
  await tasks(rounds);
  // In memory, where that is a file system: it is not the disk that is measured.
  await files(rounds, temporaryDirectory(existsSync('/dev/shm') ? '/dev/shm' : undefined));
  await validators();
});
