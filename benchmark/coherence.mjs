// What embedcore/coherence gains: metrics, the engine, the council, and whether the better answer wins. See `node benchmark/coherence.mjs --help`.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import coherence from '../dist/coherence/index.js';
import { answers, candidatesFor, degrade, halves, invisible, quality } from './coherence-answers.mjs';
import { count, main, median, temporaryDirectory } from './lib.mjs';

const usage = `node benchmark/coherence.mjs [--rounds N] [--python PATH]

  metrics    10,000 trajectories of 5 × 5: coherenceMetrics, plain JavaScript, numpy one by one (--python, with numpy; else left out)
  engine     5 prompts × K = 4 × H = 2 with a model of 20 ms: one call after the other, cold, warm; and 2 prompts, each three times,
             against candidates in parallel and steps one after the other, as the document of one of its origins has it
  council    three planners of 50 ms; the merge of three plans
  analyzer   60 labelled prompts of fixtures/modalities.json: by keywords, by embeddings
  quality    50 prompts of fixtures/answers.json, each with a good answer and three that are worse in a known way: how often the good
             one wins, where the scores were made and elsewhere, by how the model goes on; and what cannot be seen

Each time is the median of N rounds (default 7), contenders in turns.`;

/** Times of contenders in turns, and their medians. */
async function inTurns(rounds, contenders) {
  const times = new Map(Object.keys(contenders).map((name) => [name, []]));
  for (const run of Object.values(contenders)) await run();
  for (let round = 0; round < rounds; round++) {
    for (const [name, run] of Object.entries(contenders)) {
      const started = performance.now();
      await run();
      times.get(name).push(performance.now() - started);
    }
  }
  return Object.fromEntries([...times].map(([name, all]) => [name, median(all)]));
}

const ms = (time) => `${time.toFixed(time < 10 ? 2 : 0)} ms`;

/** The formulas as a programmer would write them. */
function plain(rows) {
  const steps = rows.length - 1;
  const columns = rows[0].length;
  const order = (row) => row.map((_, at) => at).sort((a, b) => row[a] - row[b]);
  const shares = (row) => {
    const sum = row.reduce((all, value) => all + value, 1e-10);
    return row.map((value) => value / sum);
  };
  let trace = 0;
  for (let column = 0; column < columns; column++) {
    const mean = rows.reduce((sum, row) => sum + row[column], 0) / rows.length;
    trace += rows.reduce((sum, row) => sum + (row[column] - mean) ** 2, 0) / steps;
  }
  let [changed, distance, divergence] = [0, 0, 0];
  for (let at = 1; at < rows.length; at++) {
    const [before, after] = [rows[at - 1], rows[at]];
    const [one, other] = [order(before), order(after)];
    if (one.some((column, place) => column !== other[place])) changed++;
    distance += Math.min(1, Math.sqrt(after.reduce((sum, value, column) => sum + (value - before[column]) ** 2, 0)) / Math.sqrt(columns));
    const [p, q] = [shares(before), shares(after)];
    divergence += Math.abs(p.reduce((sum, value, column) => sum + value * Math.log((value + 1e-10) / (q[column] + 1e-10)), 0));
  }
  const mean = rows.reduce((sum, row) => sum + row[0], 0) / rows.length;
  const variance = rows.reduce((sum, row) => sum + (row[0] - mean) ** 2, 0) / rows.length;
  const [EVB, CR, TS] = [Math.min(1, (0.6 * trace + 0.4 * columns) / columns), changed / steps, 1 - distance / steps];
  const [ES, PD] = [1 - Math.min(1, variance / 0.25), Math.min(1, divergence / steps / 2)];
  return { EVB, CR, TS, ES, PD, CCI: 0.2 * (1 - EVB + (1 - CR) + TS + ES + (1 - PD)) };
}

/** The same with numpy, one trajectory after the other; prints the milliseconds of each round. */
const NUMPY = `
import sys, time
import numpy as np
rounds, path = int(sys.argv[1]), sys.argv[2]
all = np.fromfile(path).reshape(-1, 5, 5)
def metrics(X):
    H, m = len(X) - 1, X.shape[1]
    S = 0.6 * np.cov(X, rowvar=False) + 0.4 * np.eye(m)
    EVB = min(1.0, np.trace(S) / m)
    order = np.argsort(X, axis=1, kind="stable")
    CR = np.mean(np.any(order[1:] != order[:-1], axis=1))
    TS = 1 - np.mean(np.minimum(1, np.linalg.norm(np.diff(X, axis=0), axis=1) / np.sqrt(m)))
    ES = 1 - min(1.0, np.var(X[:, 0]) / 0.25)
    P = X / (X.sum(axis=1, keepdims=True) + 1e-10)
    PD = min(1.0, np.mean(np.abs(np.sum(P[:-1] * np.log((P[:-1] + 1e-10) / (P[1:] + 1e-10)), axis=1))) / 2)
    return 0.2 * (1 - EVB + 1 - CR + TS + ES + 1 - PD)
for _ in range(rounds):
    started = time.perf_counter()
    cci = [metrics(X) for X in all]
    print((time.perf_counter() - started) * 1000)
`;

async function metrics(rounds, python) {
  const nested = Array.from({ length: 10_000 }, () => Array.from({ length: 5 }, () => Array.from({ length: 5 }, Math.random)));
  const flat = Float64Array.from(nested.flat(2));
  const times = await inTurns(rounds, {
    nested: () => coherence.coherenceMetrics(nested), flat: () => coherence.coherenceMetrics(flat, { shape: [5, 5] }), plain: () => nested.map(plain),
  });
  const found = coherence.coherenceMetrics(nested);
  const off = Math.max(...nested.map((rows, at) => Math.max(...Object.entries(plain(rows)).map(([part, value]) => Math.abs(found[at][part] - value)))));
  console.log(`\n10,000 trajectories of 5 × 5 (off by ${off.toExponential(1)} at most)`);
  console.log(`  coherenceMetrics, nested arrays   ${ms(times.nested)}`);
  console.log(`  coherenceMetrics, Float64Array    ${ms(times.flat)}`);
  console.log(`  plain JavaScript                  ${ms(times.plain)}   ${(times.plain / times.nested).toFixed(1)} × (${(times.plain / times.flat).toFixed(1)} × flat)`);
  const path = join(temporaryDirectory(), 'trajectories.f64');
  writeFileSync(path, flat);
  try {
    const printed = execFileSync(python, ['-c', NUMPY, String(Math.min(rounds, 3)), path], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    const numpy = median(printed.trim().split('\n').map(Number));
    console.log(`  numpy, one by one                 ${ms(numpy)}   ${(numpy / times.nested).toFixed(0)} ×`);
  } catch {
    console.log(`  numpy is not installed for ${python}: left out`);
  }
}

const TWENTY = 20;

async function engine(rounds) {
  const prompts = answers.slice(0, 5).map(({ prompt }) => prompt);
  const model = async (prompt, { seed }) => {
    await sleep(TWENTY);
    return `${answers.find((answer) => prompt.startsWith(answer.prompt)).good} That is answer ${seed}.`;
  };
  const step = (prompt, responses) => `${prompt}\n\n${responses.join('\n\n')}`;
  /** One call after the other; with `parallel`, candidates at the same time. Vectors and metrics are not counted. */
  const plainly = async (prompt, k, h, parallel) => {
    const ask = (seed) => model(prompt, { seed });
    const seeds = Array.from({ length: k }, (_, seed) => seed);
    const candidates = parallel ? await Promise.all(seeds.map(ask)) : [];
    if (!parallel) for (const seed of seeds) candidates.push(await ask(seed));
    for (const candidate of candidates) {
      const responses = [candidate];
      for (let at = 1; at <= h; at++) responses.push(await model(step(prompt, responses), { seed: at }));
    }
  };
  const fresh = (options) => new coherence.CoherenceEngine({ adaptiveK: false, h: 2, monitor: false, ...options });
  const time = async (work) => {
    const started = performance.now();
    await work();
    return performance.now() - started;
  };
  const [sequential, cold, warm, speedups] = [[], [], [], []];
  for (let round = 0; round <= rounds; round++) {
    const own = fresh({ k: 4 });
    const all = async () => { for (const prompt of prompts) await own.selectBestCandidate(prompt, model); };
    const times = [await time(async () => { for (const prompt of prompts) await plainly(prompt, 4, 2, false); }), await time(all), await time(all)];
    // The first round loads the model of the vectors.
    if (round > 0) [sequential, cold, warm].forEach((kept, at) => kept.push(times[at]));
    speedups.push(own.getOptimizationMetrics().parallelSpeedup);
    await own.close();
  }
  console.log(`\n5 prompts × K = 4 × H = 2, a model of ${TWENTY} ms`);
  console.log(`  one call after the other          ${ms(median(sequential))}`);
  console.log(`  engine, cold                      ${ms(median(cold))}   ${(median(sequential) / median(cold)).toFixed(1)} × (${median(speedups).toFixed(1)} calls at once on the average)`);
  console.log(`  engine, warm                      ${ms(median(warm))}   ${(median(sequential) / median(warm)).toFixed(0)} ×`);
  const [base, ours] = [[], []];
  let hitRatio;
  for (let round = 0; round < rounds; round++) {
    const own = fresh({ k: 5 });
    const repeated = [0, 1, 0, 1, 0, 1].map((at) => prompts[at]);
    base.push(await time(async () => { for (const prompt of repeated) await plainly(prompt, 5, 2, true); }));
    ours.push(await time(async () => { for (const prompt of repeated) await own.selectBestCandidate(prompt, model); }));
    ({ hitRatio } = own.getOptimizationMetrics());
    await own.close();
  }
  console.log(`2 prompts, each three times, K = 5, H = 2: hit ratio ${hitRatio.toFixed(2)}`);
  console.log(`  candidates in parallel, no cache  ${ms(median(base))}`);
  console.log(`  engine                            ${ms(median(ours))}   ${(median(base) / median(ours)).toFixed(1)} × (the document: 2.9 ×)`);
}

const PLANS = [
  { scene: { summary: 'a quiet beach at dawn', entities: ['beach', 'gulls', 'waves'] }, style: { mood: 'calm', palette: ['blue', 'gold'] }, audio: { sounds: ['waves', 'gulls'], tempo: 60 } },
  { scene: { summary: 'a quiet beach at dusk', entities: ['beach', 'waves', 'boat'] }, style: { mood: 'calm and warm', palette: ['orange', 'gold'] }, audio: { sounds: ['waves', 'wind'], tempo: 70 } },
  { scene: { summary: 'an empty beach in the early morning', entities: ['beach', 'waves', 'gulls'] }, style: { mood: 'lonely', palette: ['blue', 'grey'] }, audio: { sounds: ['waves', 'gulls', 'wind'], tempo: 60 } },
];

async function council(rounds) {
  const made = new coherence.DynamicSemanticCouncil({ monitor: false, planners: PLANS.map((plan) => async () => { await sleep(50); return plan; }) });
  const agent = new coherence.ContentFusionAgent();
  const { weights, order } = new coherence.PromptAnalyzer().analyze('the sound of a quiet beach');
  const times = await inTurns(rounds, { run: () => made.run('the sound of a quiet beach'), merges: () => { for (let i = 0; i < 1000; i++) agent.fuse(PLANS, weights, order); } });
  console.log(`\nthree planners of 50 ms: ${ms(times.run)}; merge of three plans: ${(times.merges / 1000).toFixed(3)} ms`);
}

async function analyzer() {
  const labelled = JSON.parse(readFileSync(new URL('../fixtures/modalities.json', import.meta.url), 'utf8'));
  const right = {};
  for (const kind of ['keywords', 'embeddings']) {
    const made = new coherence.PromptAnalyzer({ analyzer: kind });
    right[kind] = 0;
    for (const { prompt, modality } of labelled) if ((await made.analyze(prompt)).order[0] === modality) right[kind]++;
    await made.close();
  }
  const one = new coherence.PromptAnalyzer();
  const undecided = labelled.filter(({ prompt }) => Object.values(one.analyze(prompt).scores).every((score) => score === 0)).length;
  console.log(`\nmost important modality of ${labelled.length} prompts: ${right.keywords} right by keywords (${undecided} prompts have none of them), ${right.embeddings} by embeddings`);
}

async function better() {
  const made = new coherence.CoherenceEngine({ monitor: false, h: 2 });
  const share = ({ all, of, against }) => `${all} of ${of}`.padEnd(10) + Object.entries(against).map(([kind, pair]) => `${kind} ${pair.won} of ${pair.of}`).join(', ');
  console.log('\nthe good one of four answers wins (chance: one quarter)');
  for (const half of Object.keys(halves)) for (const model of ['informed', 'obedient', 'echo']) console.log(`  ${half.padEnd(12)} ${model.padEnd(9)} ${share(await quality(made, model, half))}`);
  console.log('of three, the others wrong in ways that nothing shows (chance: one third)');
  for (const half of Object.keys(halves)) console.log(`  ${half.padEnd(12)} informed  ${share(await quality(made, 'informed', half, () => Object.entries(invisible)))}`);
  const [shown] = [candidatesFor(0, Object.entries(degrade))];
  console.log(`for example: ${shown.map(({ kind, candidate }) => `${kind}: ${candidate.slice(0, 60)}…`).join('\n             ')}`);
  await made.close();
}

await main(async () => {
  const { values } = parseArgs({ options: { rounds: { type: 'string', default: '7' }, python: { type: 'string', default: 'python3' }, help: { type: 'boolean' } } });
  if (values.help) return console.log(usage);
  const rounds = count(values.rounds, '--rounds');
  await metrics(rounds, values.python);
  await engine(rounds);
  await council(rounds);
  await analyzer();
  await better();
});
