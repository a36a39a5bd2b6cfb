import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { EmbeddingError, InferenceCache, PerformanceDashboard, PerformanceMonitor } from 'embedcore';
import { CoherenceEngine, coherenceMetrics, DynamicSemanticCouncil, ECREngine, type CandidateProvider, type CoherenceEngineOptions, type CoherenceMetrics, type ModelCall, type ModelFunction } from 'embedcore/coherence';
import { LlmRouter, OllamaClient } from 'embedcore/llm';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';

import { ollama } from './loopback/ollama';
import { loopback } from './loopback/server';
import { failure, root } from './support';

type Golden = { name: string; steps: number[][] } & CoherenceMetrics;
const golden = JSON.parse(readFileSync(join(root, 'fixtures', 'coherence.json'), 'utf8')) as Golden[];
const PARTS = ['EVB', 'CR', 'TS', 'ES', 'PD', 'CCI'] as const;

function engine(options: CoherenceEngineOptions = {}): CoherenceEngine {
  const made = new CoherenceEngine({ monitor: false, ...options });
  onTestFinished(() => made.close());
  return made;
}

/** Scores that are always the same. */
const level = (score: number) => [score, score, score, score, score];

/** A model that takes a moment, and counts. */
function model(answer: (prompt: string, seed: number) => string = (prompt, seed) => `${seed}: ${prompt}`, ms = 1) {
  const state = { calls: 0, inFlight: 0, most: 0, prompts: [] as string[] };
  const call: ModelFunction = async (prompt, { seed }) => {
    state.calls++;
    state.prompts.push(prompt);
    state.most = Math.max(state.most, ++state.inFlight);
    try {
      await sleep(ms);
      return answer(prompt, seed);
    } finally {
      state.inFlight--;
    }
  };
  return { call, state };
}

const never = () => new Promise<never>(() => {});

describe('coherenceMetrics', () => {
  test('golden values, many at once, alone and flat', () => {
    const all = coherenceMetrics(golden.map(({ steps }) => steps));
    golden.forEach((one, at) => {
      for (const part of PARTS) expect(all[at]![part], `${one.name}: ${part}`).toBeCloseTo(one[part], 9);
      expect(coherenceMetrics(one.steps)).toEqual(all[at]);
      const shape = [one.steps.length, one.steps[0]!.length];
      expect(coherenceMetrics(Float64Array.from(one.steps.flat()), { shape })).toEqual([all[at]]);
    });
    const drift = golden.find(({ name }) => name === 'drift')!;
    const twice = Float64Array.from([...drift.steps, ...drift.steps].flat());
    expect(coherenceMetrics(twice, { shape: [2, 3, 5] })).toEqual(coherenceMetrics([drift.steps, drift.steps]));
    expect(coherenceMetrics([])).toEqual([]);
    expect(coherenceMetrics([drift.steps.map((row) => Float64Array.from(row))])).toEqual(coherenceMetrics([drift.steps]));
  });

  test('options: shrinkage, its target and weights', () => {
    const constant = [level(0.7), level(0.7), level(0.7)];
    expect(coherenceMetrics(constant)).toMatchObject({ EVB: 0.4, CR: 0, TS: 1, ES: 1, PD: 0 });
    expect(coherenceMetrics(constant, { shrinkageTarget: 'scaled' })).toEqual({ EVB: 0, CR: 0, TS: 1, ES: 1, PD: 0, CCI: 1 });
    expect(coherenceMetrics(constant, { shrinkage: 0 }).EVB).toBe(0);
    const steps = [[0.2, 0.9], [0.6, 0.1]];
    expect(coherenceMetrics(steps, { shrinkageTarget: 'scaled' }).EVB).toBeCloseTo((0.08 + 0.32) / 2, 12);
    const plain = coherenceMetrics(steps);
    expect(coherenceMetrics(steps, { weights: [0, 1, 0, 0, 0] }).CCI).toBe(1 - plain.CR);
    expect(coherenceMetrics(steps, { weights: [0.5, 0, 0.5, 0, 0] }).CCI).toBeCloseTo((1 - plain.EVB + plain.TS) / 2, 12);
  });

  test('what is no trajectory is refused, and its place named', async () => {
    const ok = [level(0.5), level(0.6)];
    const refusals: [unknown, RegExp][] = [
      [[ok, [level(0.5), [0.1, 0.2, 1.5, 0.4, 0.5]]], /Trajectory 1, row 1, column 2 is 1\.5, not a number from 0 to 1/],
      [[ok, [level(0.5), [0.1, 0.2, NaN, 0.4, 0.5]]], /Trajectory 1, row 1, column 2 is NaN/],
      [[ok, [[-0.1]]], /Trajectory 1, row 0, column 0 is -0\.1/],
      [[[['0.5']]], /Trajectory 0, row 0, column 0 is "0\.5"/],
      [[[[undefined]]], /is undefined/],
      [[[[0.5], [1n]]], /row 1, column 0 is 1/],
      [[[level(0.5), [0.5]]], /Trajectory 0, row 1 has 1 scores, but row 0 has 5/],
      [[ok, []], /Trajectory 1 has no rows/],
      [[[[], []]], /Trajectory 0, row 0 is an array of 0/],
      [[ok, 5], /Trajectory 1 is 5, not an array of rows/],
      [[ok, [0.5]], /Trajectory 1, row 0 is 0\.5, not an array of scores/],
      ['no', /The trajectories are "no"/],
      [null, /null/],
    ];
    for (const [given, message] of refusals) expect(await failure(() => coherenceMetrics(given as number[][][]))).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(message) });
    const flat = new Float64Array(12).fill(0.5);
    for (const [shape, message] of [[undefined, /give \[rows, columns\]/], [[5, 5], /12 values are not trajectories of 5 × 5/], [[2, 2, 2], /12 values are not 2 trajectories/], [[0, 3], /whole numbers/], [[3], /whole/], ['3', /"3"/]] as const) {
      expect(await failure(() => coherenceMetrics(flat, { shape: shape as never }))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringMatching(message) });
    }
    expect(await failure(() => coherenceMetrics(flat.fill(2, 7, 8), { shape: [2, 2] }))).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(/Trajectory 1, row 1, column 1 is 2/) });
    for (const weights of [[1, 2], [0.2, 0.2, NaN, 0.2, 0.2], [-1, 0, 0, 0, 0], 5]) expect(await failure(() => coherenceMetrics([ok], { weights: weights as number[] }))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining('weights') });
    expect(await failure(() => coherenceMetrics([ok], { shape: [2, 5] }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'shape' } });
  });

  test('0 to 1, whatever the trajectories', () => {
    const trajectory = fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 7 })).chain(([rows, columns]) =>
      fc.array(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: columns, maxLength: columns }), { minLength: rows, maxLength: rows }));
    fc.assert(fc.property(fc.array(trajectory, { maxLength: 20 }), (all) => {
      const metrics = coherenceMetrics(all);
      expect(metrics).toHaveLength(all.length);
      for (const one of metrics) for (const part of PARTS) expect(one[part]).toSatisfy((value: number) => value >= -1e-12 && value <= 1 + 1e-12);
      expect(coherenceMetrics([...all].reverse())).toEqual([...metrics].reverse());
    }));
  });
});

describe('generateCandidates', () => {
  test('the risk decides how many there are', async () => {
    const made = engine();
    for (const [risk, count] of [[0, 1], [0.49, 1], [0.5, 2], [0.69, 2], [0.7, 3], [0.79, 3], [0.8, 4], [1, 4]] as const) {
      expect(await made.generateCandidates('why', model().call, { risk }), `${risk}`).toHaveLength(count);
    }
    expect(await engine({ thresholds: { mid: 0.1, high: 0.2, critical: 0.3 } }).generateCandidates('why', model().call, { risk: 0.25 })).toHaveLength(3);
    expect(await engine({ adaptiveK: false }).generateCandidates('why', model().call, { risk: 0 })).toHaveLength(3);
    expect(await engine({ k: 5, adaptiveK: false }).generateCandidates('why', model().call)).toHaveLength(5);
    expect(await engine({ k: 5 }).generateCandidates('why', model().call)).toHaveLength(5);
    expect(await engine({ k: 5 }).generateCandidates('why', model().call, { risk: 0.5 })).toHaveLength(2);
    expect(await made.generateCandidates('why', model().call, { k: 7 })).toHaveLength(7);
  });

  test('without a risk it is estimated: by the prompt, and by how different the first answers are', async () => {
    const made = engine();
    const [plain, vague] = ['Name the capital of France.', 'Should I compare various tools, or which is better? Why? And how do we decide?'];
    expect(made.estimateRisk(plain)).toBeLessThan(0.2);
    expect(made.estimateRisk(vague)).toBeGreaterThan(0.7);
    expect(made.estimateRisk('a '.repeat(500_000))).toBeLessThan(1);
    expect(await made.generateCandidates(plain, model().call)).toHaveLength(1);
    expect(await made.generateCandidates(vague, model(() => 'It depends on what you want.').call)).toHaveLength(3);
    const answers = ['Whales sing in the ocean.', 'Compile the kernel with make.', 'Bake bread for an hour.', 'The stock market fell.'];
    const { call, state } = model((_, seed) => answers[seed % 4]!);
    const different = await made.generateCandidates(vague, call);
    expect(different.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(state.calls).toBe(4);
  });

  test('answers come in order, each with a seed of its own, at most maxParallel at a time', async () => {
    const { call, state } = model((_, seed) => `answer ${seed}`, 5);
    const made = engine({ k: 6, maxParallel: 2 });
    const both = await Promise.all([made.generateCandidates('one', call), made.generateCandidates('two', call)]);
    for (const candidates of both) expect(candidates).toEqual(Array.from({ length: 6 }, (_, index) => ({ index, response: `answer ${index}`, failed: false, fromCache: false })));
    expect(state).toMatchObject({ calls: 12, most: 2 });
    expect(await made.generateCandidates('one', call)).toEqual(both[0]!.map((candidate) => ({ ...candidate, fromCache: true })));
    expect(await made.generateCandidates('one', call, { useCache: false })).toEqual(both[0]);
    expect(state.calls).toBe(18);
    const uncached = engine({ k: 2, cache: false });
    for (let i = 0; i < 2; i++) await uncached.generateCandidates('one', call);
    expect(state.calls).toBe(22);
    expect(uncached.getOptimizationMetrics()).toMatchObject({ calls: 4, hits: 0, callsSaved: 0, hitRatio: 0, memory: null });
  });

  test('a provider that can do so answers several times in one call', async () => {
    const asked: [string, number, number][] = [];
    const provider: CandidateProvider = {
      capabilities: () => ({ batch: true }),
      generateBatch: async (prompt, n, { seed }) => {
        asked.push([prompt, n, seed]);
        return Array.from({ length: n }, (_, at) => ({ response: `batched ${seed + at}` }));
      },
    };
    const { call, state } = model();
    const made = engine({ k: 4 });
    expect((await made.generateCandidates('why', call, { provider })).map(({ response }) => response)).toEqual(['batched 0', 'batched 1', 'batched 2', 'batched 3']);
    expect(asked).toEqual([['why', 4, 0]]);
    expect((await made.generateCandidates('why', null, { provider })).every(({ fromCache }) => fromCache)).toBe(true);
    // More than it allows at a time.
    const small = { ...provider, capabilities: async () => ({ batch: true, maxBatch: 3 }) };
    expect(await made.generateCandidates('how', call, { provider: small })).toHaveLength(4);
    expect(asked.slice(1)).toEqual([['how', 3, 0], ['how', 1, 3]]);
    expect(state.calls).toBe(0);
    // What it does not answer is asked for one by one.
    const strict: CandidateProvider = { ...provider, generateBatch: (_, n) => { if (n > 2) throw new Error('n must be at most 2'); return []; } };
    expect((await made.generateCandidates('who', call, { provider: strict })).map(({ response }) => response)).toEqual(['0: who', '1: who', '2: who', '3: who']);
    const short: CandidateProvider = { ...provider, generateBatch: () => ['only one'] };
    expect((await made.generateCandidates('when', call, { provider: short })).map(({ response }) => response)).toEqual(['only one', '1: when', '2: when', '3: when']);
    for (const odd of [{ ...provider, capabilities: () => ({ batch: false }) }, { generateBatch: provider.generateBatch! }, { ...provider, capabilities: () => undefined as never }]) {
      expect((await made.generateCandidates('where', call, { provider: odd, useCache: false }))[0]!.response).toBe('0: where');
    }
    expect(await failure(() => made.generateCandidates('why not', null, { provider: { ...provider, generateBatch: () => { throw new Error('no batches today'); } } }))).toMatchObject({ code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining('no batches today') });
  });

  test('a call that fails is a fallback; where all fail, each is told', async () => {
    const call: ModelFunction = async (_, { seed }) => {
      if (seed === 1) throw new Error('overloaded');
      if (seed === 2) return '  ';
      return { text: 'an answer' };
    };
    const candidates = await engine({ k: 3, fallbackResponse: 'Sorry.' }).generateCandidates('why', call);
    expect(candidates.map(({ response, failed }) => [response, failed])).toEqual([['an answer', false], ['Sorry.', true], ['Sorry.', true]]);
    expect(candidates[1]!.error).toMatchObject({ code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining('overloaded') });
    expect(candidates[2]!.error).toMatchObject({ code: 'BACKEND_REJECTED' });
    const error = await failure(() => engine({ k: 2 }).generateCandidates('why', () => { throw new TypeError('broken'); }));
    expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true, message: expect.stringContaining('broken'), details: { candidates: [{ index: 0, code: 'BACKEND_UNAVAILABLE' }, { index: 1 }] } });
    expect(await failure(() => engine({ k: 1 }).generateCandidates('why', () => 7 as never))).toMatchObject({ message: expect.stringContaining('answered 7') });
  });
});

describe('unrollTrajectories and selectBestCandidate', () => {
  const answers = ['steady', 'wavering', 'broken'];
  /** Scores that never change, change a little, and change much. */
  const evaluate = async (response: string, _: string, previous: string | undefined) => {
    const step = previous === undefined ? 0 : Number(/\d+$/.exec(response)?.[0] ?? 0);
    if (response.startsWith('steady')) return level(0.6);
    if (response.startsWith('wavering')) return [0.6 + 0.02 * step, 0.5, 0.1, 0.9, 0.7];
    return step % 2 ? [0.1, 0.9, 0.9, 0.1, 0.9] : [0.9, 0.1, 0.1, 0.9, 0.1];
  };
  const goOn = (prompt: string) => `${answers.find((answer) => prompt.includes(answer))} ${prompt.split('\n').filter((line) => /^(steady|wavering|broken)/.test(line)).length}`;

  test('each candidate is followed by its steps, in order, and scored', async () => {
    const { call, state } = model(goOn);
    const made = engine({ h: 3, evaluate, maxParallel: 2 });
    const trajectories = await made.unrollTrajectories(answers, 'why', call);
    expect(trajectories.map(({ responses }) => responses)).toEqual(answers.map((answer) => [answer, `${answer} 1`, `${answer} 2`, `${answer} 3`]));
    expect(trajectories[0]).toEqual({
      candidate: { index: 0, response: 'steady', failed: false, fromCache: false }, responses: expect.any(Array), steps: [level(0.6), level(0.6), level(0.6), level(0.6)], failed: false, fromCache: false,
    });
    expect(state).toMatchObject({ calls: 9, most: 2 });
    expect(state.prompts.every((prompt) => prompt.startsWith('why\n\n'))).toBe(true);
    const again = await made.unrollTrajectories(answers, 'why', call);
    expect(again).toEqual(trajectories.map((trajectory) => ({ ...trajectory, fromCache: true })));
    expect(state.calls).toBe(9);
    expect(made.getOptimizationMetrics()).toMatchObject({ calls: 9, failures: 0, hits: 9, misses: 9, callsSaved: 9, hitRatio: 0.5, memory: { cacheEntries: 9, cacheBytes: expect.any(Number) } });
    expect(made.getOptimizationMetrics().parallelSpeedup).toBeGreaterThan(1);
    // Another function may be another model.
    await made.unrollTrajectories(answers, 'why', model(goOn).call);
    expect(made.getOptimizationMetrics().calls).toBe(18);
    expect((await engine({ h: 0, evaluate }).unrollTrajectories(answers, 'why', null as never)).map(({ steps }) => steps.length)).toEqual([1, 1, 1]);
    const own = model(goOn);
    await engine({ h: 1, evaluate, continuation: (prompt, responses) => `${prompt}|${responses.join('|')}` }).unrollTrajectories(['steady'], 'why', own.call);
    expect(own.state.prompts).toEqual(['why|steady']);
  });

  test('the most coherent one wins, whatever its place', async () => {
    const made = engine({ h: 3, evaluate });
    const { call } = model(goOn);
    for (const order of [[0, 1, 2], [2, 1, 0], [1, 2, 0]]) {
      const candidates = order.map((at) => answers[at]!);
      const best = await made.selectBestCandidate(candidates, 'why', call);
      expect(best).toMatchObject({ selected: { response: 'steady' }, index: order.indexOf(0), admissible: true, metrics: { CR: 0, TS: 1, ES: 1, PD: 0 } });
      expect(best.metrics.CCI).toBeCloseTo(0.92, 9);
      const byName = new Map(best.all.map((one) => [one.candidate.response, one]));
      expect(byName.get('wavering')!.metrics!.CCI).toBeLessThan(best.metrics.CCI);
      expect(byName.get('broken')).toMatchObject({ admissible: false, metrics: { CR: 1 } });
      expect(best.debug).toMatchObject({ threshold: 0.65, candidates: 3, failed: 0, admissible: 2, risk: null });
      expect(best.debug.cci).toEqual(best.all.map((one) => one.metrics!.CCI));
      expect(best.debug.margin).toBeCloseTo(best.metrics.CCI - byName.get('wavering')!.metrics!.CCI, 12);
    }
    // The same by its parts.
    const trajectories = await made.unrollTrajectories(answers, 'why', call);
    const chosen = await made.selectBestCandidate(answers, trajectories);
    expect(chosen).toMatchObject({ index: 0, selected: { response: 'steady' } });
    expect((await made.selectBestCandidate(['a', 'b'], [[level(0.1), level(0.9)], [level(0.2), level(0.2)]] as never)).index).toBe(1);
    // All at once.
    const { call: whole, state } = model((prompt, seed) => (prompt === 'why' ? answers[seed % 3]! : goOn(prompt)));
    expect(await made.selectBestCandidate('why', whole, { risk: 0.7 })).toMatchObject({ index: 0, debug: { risk: 0.7, candidates: 3 } });
    expect(state.calls).toBe(12);
  });

  test('of equally coherent ones the better scores win, then the first', async () => {
    const made = engine({ h: 1, evaluate: (response) => level(response.includes('high') ? 0.9 : 0.3) });
    const { call } = model((prompt) => (prompt.includes('high') ? 'high' : 'low'));
    expect((await made.selectBestCandidate(['low', 'high'], 'x', call)).index).toBe(1);
    expect((await made.selectBestCandidate(['low', 'low too'], 'x', call)).index).toBe(0);
  });

  test('nobody wins who failed, unless all have: that is an error', async () => {
    const made = engine({ h: 1, threshold: 0.99, evaluate: (response) => (response.includes('worst') ? [Math.random(), 0.1, 1, 0, 0.5] : level(1)) });
    const call: ModelFunction = (prompt) => { if (prompt.includes('fails later')) throw new Error('gone'); return 'worst'; };
    const best = await made.selectBestCandidate([{ response: 'perfect', failed: true }, 'fails later', 'worst'], 'x', call);
    expect(best).toMatchObject({ index: 2, admissible: false, debug: { failed: 2, cci: [null, null, expect.any(Number)], margin: null } });
    expect(best.all[1]!.trajectory).toMatchObject({ failed: true, responses: ['fails later'], error: { code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining('gone') } });
    expect(best.all[0]).toMatchObject({ metrics: null, admissible: false, candidate: { failed: true } });
    expect(await failure(() => made.selectBestCandidate(['fails later'], 'x', call))).toMatchObject({ code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining('gone') });
    expect(await failure(() => made.selectBestCandidate([{ response: 'a', failed: true }], 'x', call))).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
    expect(await failure(() => made.selectBestCandidate(['a'], [{ failed: true }] as never))).toMatchObject({ code: 'BACKEND_UNAVAILABLE' });
  });

  test('scores that are none fail the candidate, and are named', async () => {
    const { call } = model(() => 'next');
    for (const [scores, message] of [
      [[0.5, NaN], /NaN for score 1/], [[0.5, 1.2], /1\.2 for score 1/], [[], /no scores/], ['0.5', /"0\.5"/], [null, /null/], [['0.5'], /"0\.5" for score 0/],
      [{ confidence: 0.5, retrieval: 0.5, uncertainty: 0.5, safety: 2, consistency: 1 }, /2 for safety/], [{ confidence: 0.5 }, /undefined for retrieval/],
      [{ confidence: 0.5, retrieval: 0.5, uncertainty: 0.5, safety: 1, consistensy: 1 }, /consistensy/],
    ] as const) {
      expect(await failure(() => engine({ evaluate: () => scores as never }).selectBestCandidate(['a'], 'x', call))).toMatchObject({ code: 'BACKEND_UNAVAILABLE', message: expect.stringMatching(message) });
    }
    const ragged = engine({ evaluate: (_, __, previous) => (previous === undefined ? [0.5] : [0.5, 0.5]) });
    expect(await failure(() => ragged.unrollTrajectories(['a'], 'x', call))).toMatchObject({ message: expect.stringContaining('2 scores at step 1, but 1 at step 0') });
    const half = engine({ h: 1, evaluate: (response) => { if (response === 'bad') throw new Error('judge is away'); return level(0.5); } });
    expect(await half.selectBestCandidate(['bad', 'good'], 'x', call)).toMatchObject({ index: 1, debug: { failed: 1 } });
  });

  test('scores are copied when they are answered', async () => {
    const shared = level(0.5);
    const made = engine({ h: 2, evaluate: () => { shared[0] = shared[0]! / 2; return shared; } });
    const [trajectory] = await made.unrollTrajectories(['a'], 'x', model().call);
    expect(trajectory!.steps.map(([first]) => first)).toEqual([0.25, 0.125, 0.0625]);
  });

  test('by default, embeddings and the text itself are the judge', async () => {
    const made = engine({ h: 1 });
    const prompt = 'Why does water boil at a lower temperature in the mountains?';
    const further = 'Less pressure above the water means that its vapour needs less heat to form bubbles in it.';
    const good = 'Water boils when its vapour pressure reaches the pressure of the air. In the mountains the air pressure is lower, so it boils at less heat.';
    const candidates = [
      'The history of opera begins in Florence. Its first composers wanted to bring back the drama of the Greeks.',
      'Water boils when its vapour pressure reaches the pressure of the air. Water does not boil when its vapour pressure reaches the pressure of the air.',
      good,
      'Water boils when its vapour pressure reaches the pressure of the air. In the mountains the air pressu',
      'Water boils in the mountains. Water boils in the mountains. Water boils in the mountains. Water boils in the mountains.',
    ];
    const best = await made.selectBestCandidate(candidates, prompt, () => further);
    expect(best.selected.response).toBe(good);
    const [confidence, retrieval, uncertainty, safety, consistency] = best.all[2]!.trajectory.steps[0]!;
    expect([confidence, uncertainty, safety]).toEqual([1, 0.05, 1]);
    expect(consistency).toBe(retrieval);
    expect(best.all[0]!.trajectory.steps[0]![1]).toBeLessThan(retrieval! / 2);
    expect(best.all[1]!.trajectory.steps[0]![0]).toBe(0.05);
    expect(best.all[3]!.trajectory.steps[0]![0]).toBeLessThan(0.5);
    expect(best.all[4]!.trajectory.steps[0]![0]).toBeLessThan(0.5);
    // A text without a vector is judged all the same.
    const own = engine({ h: 1, generator: (texts) => texts.map((text) => [text.length, 1]) });
    expect((await own.unrollTrajectories(['', '!!!'], 'x', () => 'more')).map(({ failed }) => failed)).toEqual([false, false]);
  });
});

test('of an answer and three that are worse in known ways, the good one wins nine times of ten', async () => {
  const { quality } = (await import('../benchmark/coherence-answers.mjs' as string)) as { quality: (made: CoherenceEngine, model: string, half: string) => Promise<{ all: number; of: number }> };
  const made = engine({ h: 2 });
  for (const half of ['development', 'held out']) {
    const { all, of } = await quality(made, 'informed', half);
    expect(of).toBe(25);
    expect(all / of, half).toBeGreaterThanOrEqual(0.9);
  }
});

describe('limits of a call', () => {
  test('a model that hangs fails its candidate after callTimeoutMs; its place is free again', async () => {
    const made = engine({ k: 3, maxParallel: 1, callTimeoutMs: 50, h: 0, evaluate: () => [1] });
    const candidates = await made.generateCandidates('x', (_, { seed }) => (seed === 1 ? never() : 'fine'));
    expect(candidates.map(({ failed }) => failed)).toEqual([false, true, false]);
    expect(candidates[1]!.error).toMatchObject({ code: 'TIMED_OUT' });
    expect(await failure(() => engine({ callTimeoutMs: 50, evaluate: never }).unrollTrajectories(['a'], 'x', () => 'b'))).toMatchObject({ message: expect.stringContaining('50 ms') });
  });

  test('signal and timeoutMs end a call, whatever it waits for, and no other one', async () => {
    const made = engine({ k: 2, maxParallel: 2 });
    let signal!: AbortSignal;
    const stop = new AbortController();
    const hanging: ModelFunction = (_, options) => { signal = options.signal; return never(); };
    const ended = failure(() => made.generateCandidates('x', hanging, { signal: stop.signal }));
    const waits = made.generateCandidates('y', model().call);
    await expect.poll(() => signal).toBeDefined();
    stop.abort(new Error('enough'));
    expect(await ended).toMatchObject({ code: 'ABORTED', cause: stop.signal.reason });
    await expect.poll(() => signal.aborted).toBe(true);
    expect(await waits).toHaveLength(2);
    expect(await failure(() => made.selectBestCandidate('x', hanging, { timeoutMs: 20 }))).toMatchObject({ code: 'TIMED_OUT', details: { timeoutMs: 20 } });
    expect(await failure(() => made.unrollTrajectories(['a'], 'x', hanging, { timeoutMs: 20 }))).toMatchObject({ code: 'TIMED_OUT' });
    const { call, state } = model();
    expect(await failure(() => made.generateCandidates('z', call, { signal: AbortSignal.abort() }))).toMatchObject({ code: 'ABORTED' });
    expect(state.calls).toBe(0);
  });

  test('who waits for the same answer goes on when another one gives up', async () => {
    const made = engine({ k: 1, callTimeoutMs: 5000 });
    let answer!: (text: string) => void;
    let calls = 0;
    const slow: ModelFunction = () => { calls++; return new Promise((resolve) => (answer = resolve)); };
    const stop = new AbortController();
    const first = failure(() => made.generateCandidates('x', slow, { signal: stop.signal }));
    const second = made.generateCandidates('x', slow);
    await expect.poll(() => calls).toBe(1);
    stop.abort();
    expect(await first).toMatchObject({ code: 'ABORTED' });
    answer('there');
    expect(await second).toMatchObject([{ response: 'there', fromCache: true }]);
    expect(calls).toBe(1);
  });

  test('a call is what was given when it was made', async () => {
    const made = engine({ h: 1, evaluate: (response) => (response === 'changed' ? [0] : [1]) });
    const candidates = ['a', 'b'];
    const options = { timeoutMs: 5000 };
    const unrolled = made.unrollTrajectories(candidates, 'x', model(() => 'c').call, options);
    candidates[0] = 'changed';
    options.timeoutMs = 1;
    expect((await unrolled).map(({ responses }) => responses[0])).toEqual(['a', 'b']);
    const rows = [level(0.5), level(0.5)];
    const selected = made.selectBestCandidate(['a'], [{ steps: rows, responses: [] }] as never);
    rows[1] = level(0.1);
    expect((await selected).metrics.TS).toBe(1);
  });

  test('close waits for calls before it, and refuses those after', async () => {
    const cache = new InferenceCache();
    onTestFinished(() => cache.close());
    const made = new CoherenceEngine({ k: 2, cache, monitor: false });
    const { call } = model(undefined, 20);
    const before = made.generateCandidates('x', call);
    const closed = made.close();
    expect(made.close()).toBe(closed);
    expect(await failure(() => made.generateCandidates('y', call))).toMatchObject({ code: 'CLOSED' });
    await closed;
    expect(await before).toHaveLength(2);
    // A cache that was given is not the engine's to close.
    await cache.set('still', 'open');
    const own = new CoherenceEngine({ monitor: false });
    await own.close();
    expect(own.getOptimizationMetrics()).toMatchObject({ calls: 0, parallelSpeedup: 0, memory: null });
  });
});

test('many at once are no reason for a warning', async () => {
  const warnings: Error[] = [];
  const listen = (warning: Error) => void warnings.push(warning);
  process.on('warning', listen);
  onTestFinished(() => void process.off('warning', listen));
  const made = engine({ h: 1, evaluate: () => [1] });
  await made.selectBestCandidate('x', model().call, { k: 40, signal: new AbortController().signal });
  const planners = Array.from({ length: 20 }, () => async () => { await sleep(1); return { a: 1 }; });
  await new DynamicSemanticCouncil({ planners, monitor: false }).run('x');
  await sleep(10);
  expect(warnings).toEqual([]);
});

test('what cannot be is refused, and named', async () => {
  const made = engine({ evaluate: () => [1] });
  const { call } = model();
  for (const work of [
    () => made.generateCandidates('', call), () => made.generateCandidates(5 as never, call), () => made.generateCandidates('x', 5 as never), () => made.generateCandidates('x'),
    () => made.generateCandidates('x', {} as never), () => made.unrollTrajectories([], 'x', call), () => made.unrollTrajectories('abc' as never, 'x', call),
    () => made.unrollTrajectories([5 as never], 'x', call), () => made.unrollTrajectories(['a'], 'x', undefined as never), () => made.selectBestCandidate([], 'x', call),
    () => made.selectBestCandidate(['a'], []), () => made.selectBestCandidate(['a'], [5] as never), () => made.selectBestCandidate(['a'], [{ steps: 5 }] as never),
    () => made.selectBestCandidate(['a'], [{ steps: [[0.5, 2]] }] as never), () => made.selectBestCandidate(['a'], 5 as never, call),
  ]) {
    const error = await failure(work);
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error.code).toBe('INVALID_ARGUMENT');
  }
  for (const risk of [-0.1, 1.1, NaN, '0.5']) expect(await failure(() => made.generateCandidates('x', call, { risk: risk as number }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'risk' } });
  for (const k of [0, 1.5, 1e9, NaN]) expect(await failure(() => made.generateCandidates('x', call, { k }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'k' } });
  for (const [option, value] of Object.entries({ k: 0, h: -1, threshold: 2, thresholds: { mid: 0.9 }, maxParallel: 0, cache: new Map(), generator: 5, evaluate: 5, fallbackResponse: 5, callTimeoutMs: 0, weights: [1], shrinkage: 2, shrinkageTarget: 'none', model: '' })) {
    expect(await failure(() => new CoherenceEngine({ [option]: value } as CoherenceEngineOptions)), option).toMatchObject({ code: 'INVALID_CONFIG', details: { option } });
  }
});

test('a prompt of a megabyte is one like others', async () => {
  const prompt = 'Why is the sky blue? '.repeat(50_000);
  const made = engine({ h: 1 });
  const best = await made.selectBestCandidate(prompt, async () => 'Because blue light is scattered more by the air than red light.', { k: 2 });
  expect(best.admissible).toBe(true);
  expect(made.estimateRisk(prompt)).toBeGreaterThan(0.5);
});

test('a name of a model keeps answers beyond functions and engines', async () => {
  const cache = new InferenceCache();
  onTestFinished(() => cache.close());
  const [a, b] = [model(), model()];
  await engine({ k: 2, cache, model: 'one' }).generateCandidates('x', a.call);
  expect((await engine({ k: 2, cache, model: 'one' }).generateCandidates('x', b.call)).every(({ fromCache }) => fromCache)).toBe(true);
  await engine({ k: 2, cache, model: 'two' }).generateCandidates('x', b.call);
  expect([a.state.calls, b.state.calls]).toEqual([2, 2]);
});

test('on real calls: Ollama, and a router of several providers', async () => {
  const server = await loopback({ apis: [ollama({ answer: (prompt, { options }) => `Answer ${options.seed}: water boils when its vapour pressure is that of the air. ${prompt.length > 100 ? 'So it does in the mountains.' : ''}` })] });
  const client = new OllamaClient({ baseUrl: server.url, model: 'llama3.2', monitor: false });
  onTestFinished(() => client.close());
  const made = engine({ k: 3, h: 2, model: 'llama3.2' });
  const best = await made.selectBestCandidate('Why does water boil?', (prompt, { seed, signal }) => client.generate(prompt, { seed, signal, temperature: 0.8 }));
  expect(best.all.map(({ candidate }) => candidate.response.slice(0, 9))).toEqual(['Answer 0:', 'Answer 1:', 'Answer 2:']);
  expect(server.requests).toHaveLength(9);
  expect(best.admissible).toBe(true);
  // Whatever has generate.
  const direct: ModelCall = client;
  expect(await engine({ k: 2 }).generateCandidates('And tea?', direct)).toHaveLength(2);
  const router = new LlmRouter({ providers: [{ name: 'down', generate: () => { throw new Error('down'); } }, { name: 'up', generate: (prompt, { seed }) => `${seed as number} ${prompt}` }] });
  onTestFinished(() => router.close());
  expect((await engine({ k: 2 }).generateCandidates('Hm', router)).map(({ response }) => response)).toEqual(['0 Hm', '1 Hm']);
});

test('a monitor is told, and its dashboard shows the runs', async () => {
  const monitor = new PerformanceMonitor();
  const dashboard = new PerformanceDashboard({ monitor });
  onTestFinished(() => dashboard.close());
  const made = engine({ monitor, h: 1, evaluate: (response) => (response.includes('good') ? level(0.8) : [Math.min(1, response.length / 50), 0.2, 0.9, 0.5, 0.4]) });
  await made.selectBestCandidate([{ response: '', failed: true }, 'bad one', 'a good one'], 'Which <one>?', (prompt) => (prompt.includes('good') ? 'good' : 'bad '.repeat(9)));
  expect(monitor.getStats('coherence.call')).toMatchObject({ count: 2, errors: 0 });
  expect(monitor.getStats('coherence.select')).toMatchObject({ count: 1 });
  const panel = () => (JSON.parse(JSON.stringify(dashboard.snapshot())) as { dashboard: { panels: { title: string; values: object; tables: { title: string; columns: string[]; rows: unknown[][] }[] }[] } }).dashboard.panels.find(({ title }) => title === 'Coherence');
  const { values, tables } = panel()!;
  expect(values).toMatchObject({ 'CCI of the winner': { value: expect.closeTo(0.92), high: expect.closeTo(0.92) } });
  expect(tables[0]).toMatchObject({ title: 'Candidates of the latest run: Which <one>?', columns: ['Candidate', 'Won', 'CCI', 'EVB', 'CR', 'TS', 'ES', 'PD', 'Answer'] });
  expect(tables[0]!.rows.map(([, won]) => won)).toEqual(['failed', null, '★']);
  expect(tables[0]!.rows[2]).toEqual([2, '★', expect.closeTo(0.92), 0.4, 0, 1, 1, 0, 'a good one']);
  expect(tables[1]).toMatchObject({ title: '1 runs', rows: [['Which <one>?', 3, 1, 2, expect.closeTo(0.92), expect.any(Number), 'yes', expect.stringContaining(' ms')]] });
  await made.close();
  expect(panel()).toBeUndefined();
  expect(ECREngine).toBe(CoherenceEngine);
});

describe('what the caller has written fails', () => {
  test.each([
    ['throws', () => { throw new TypeError('mine'); }],
    ['rejects', async () => Promise.reject(new TypeError('mine'))],
    ['never answers', never],
    ['answers nothing that can be read', () => ({ get batch(): never { throw new Error('mine'); } })],
  ])('capabilities that %s: each candidate is asked for', async (_, capabilities) => {
    const m = model();
    const provider: CandidateProvider = { capabilities: capabilities as never, generateBatch: () => ['never'] };
    const made = engine({ h: 0, evaluate: () => level(0.5), callTimeoutMs: 100 });
    const candidates = await made.generateCandidates('why', m.call, { provider, k: 3 });
    expect(candidates.map(({ response }) => response)).toEqual(['0: why', '1: why', '2: why']);
  });

  test('a generator', async () => {
    const call: ModelFunction = (prompt, { seed }) => `${seed} ${prompt}`;
    for (const generator of [() => { throw new TypeError('mine'); }, async () => Promise.reject(new TypeError('mine'))]) {
      const made = engine({ h: 0, generator });
      for (const work of [() => made.generateCandidates('maybe it could be best?', call), () => made.selectBestCandidate('maybe it could be best?', call)]) {
        const error = await failure(work);
        expect(error).toBeInstanceOf(EmbeddingError);
        expect(JSON.stringify(error)).toContain('mine');
        expect(JSON.stringify(error)).not.toContain('INTERNAL');
      }
    }
  });

  test('what throws when it is read, and rows that are none', async () => {
    const made = engine({ h: 0, evaluate: () => level(0.5) });
    const thrower = (name: string) => Object.defineProperty({}, name, { enumerable: true, get() { throw new TypeError('mine'); } }) as never;
    const row = Object.defineProperty([1], 0, { get() { throw new TypeError('mine'); } }) as number[];
    const works: [() => unknown, RegExp][] = [
      [() => made.generateCandidates('x', thrower('generate')), /mine/],
      [() => made.generateCandidates('x', null, { provider: { generateBatch: () => [], get generate(): never { throw new TypeError('mine'); } } }), /mine/],
      [() => made.selectBestCandidate(['a'], [{ steps: [{ length: 2 ** 32 }] } as never]), /steps/],
      [() => made.selectBestCandidate(['a'], [{ steps: [{ length: -1 }] } as never]), /steps/],
      [() => made.selectBestCandidate(['a'], [{ steps: [row] } as never]), /mine/],
      [() => made.selectBestCandidate(Object.defineProperty(['a'], 0, { get() { throw new TypeError('mine'); } }), []), /mine/],
      [() => coherenceMetrics([row]), /mine/],
      [() => coherenceMetrics([[row]]), /mine/],
      [() => coherenceMetrics(Object.defineProperty([[1]], 0, { get() { throw new TypeError('mine'); } })), /mine/],
    ];
    for (const [work, message] of works) {
      const error = await failure(work);
      expect(error).toBeInstanceOf(EmbeddingError);
      expect(error.code).toMatch(/^INVALID_/);
      expect(error.message).toMatch(message);
    }
    const own = engine({ h: 0, evaluate: () => row });
    expect(JSON.stringify(await failure(() => own.selectBestCandidate(['a'], 'x', () => 'y')))).toMatch(/mine/);
  });
});
