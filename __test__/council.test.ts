import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { EmbeddingError, PerformanceMonitor } from 'embedcore';
import {
  ContentFusionAgent, DynamicSemanticCouncil, gestaltRatio, PromptAnalyzer, type CouncilOptions, type Json, type ModalityDefinition, type PlanFunction, type PlannerWeights,
} from 'embedcore/coherence';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure, root } from './support';

interface Golden {
  analyzer: { prompt: string; weights: Record<string, number>; order: string[] }[];
  gestaltRatio: { a: string; b: string; ratio: number }[];
}
const read = (name: string) => JSON.parse(readFileSync(join(root, 'fixtures', name), 'utf8')) as unknown;
const golden = read('council.json') as Golden;

describe('PromptAnalyzer', () => {
  test('golden values', () => {
    const analyzer = new PromptAnalyzer();
    for (const { prompt, weights, order } of golden.analyzer) {
      const found = analyzer.analyze(prompt);
      for (const [name, weight] of Object.entries(weights)) expect(found.weights[name], `${prompt}: ${name}`).toBeCloseTo(weight, 5);
      expect(found.order, prompt).toEqual(order);
    }
  });

  test('words count once, whatever their case and punctuation; long prompts tell more', () => {
    const analyzer = new PromptAnalyzer();
    expect(analyzer.analyze('MUSIC! "Music", (music) — musician').scores).toEqual({ text: 0, image: 0, audio: 1 });
    const words = (count: number) => Array.from({ length: count }, (_, at) => `w${at}`).join(' ');
    expect([15, 16, 25, 26].map((count) => analyzer.analyze(words(count)).scores.text)).toEqual([0, 1, 1, 2]);
    expect(analyzer.analyze(`${words(15)} ${words(15)}`).scores.text).toBe(0);
    const { weights } = analyzer.analyze(`${'hear '.repeat(200_000)}`);
    expect(Object.values(weights).reduce((sum, weight) => sum + weight)).toBeCloseTo(3, 9);
  });

  test('modalities are any, in their order; keywords may be several words', () => {
    const modalities: ModalityDefinition[] = [
      { name: 'video', keywords: ['film', 'Slow Motion'] }, { name: 'table', keywords: ['rows', 'columns'] }, { name: 'haptics', keywords: ['vibrate'] }, { name: '__proto__', keywords: ['odd'] },
    ];
    const analyzer = new PromptAnalyzer({ modalities });
    expect(analyzer.modalities).toEqual(['video', 'table', 'haptics', '__proto__']);
    const { weights, order, scores } = analyzer.analyze('A film in slow motion, with rows.');
    expect(order).toEqual(['video', 'table', 'haptics', '__proto__']);
    expect(Object.entries(scores)).toEqual([['video', 2], ['table', 1], ['haptics', 0], ['__proto__', 0]]);
    expect(Object.values(weights).reduce((sum, weight) => sum + weight)).toBeCloseTo(4, 9);
    expect(weights.video).toBeCloseTo((2 * 4) / 5.5, 9);
    expect(new PromptAnalyzer({ modalities }).analyze('slow, motion of motion slow').scores.video).toBe(1);
    expect(new PromptAnalyzer({ modalities }).analyze('motion slow').scores.video).toBe(0);
  });

  test('by embeddings: meaning counts, and more prompts are understood than by keywords', async () => {
    const labelled = read('modalities.json') as { prompt: string; modality: string }[];
    expect(labelled).toHaveLength(60);
    const [words, meaning] = [new PromptAnalyzer(), new PromptAnalyzer({ analyzer: 'embeddings' })];
    onTestFinished(() => meaning.close());
    const right = { words: 0, meaning: 0 };
    for (const { prompt, modality } of labelled) {
      if (words.analyze(prompt).order[0] === modality) right.words++;
      const { order, weights, scores } = await meaning.analyze(prompt);
      if (order[0] === modality) right.meaning++;
      expect(Object.values(weights).reduce((sum, weight) => sum + weight)).toBeCloseTo(3, 9);
      expect(order).toEqual(Object.keys(weights).sort((a, b) => weights[b]! - weights[a]!));
      expect(Math.max(...Object.values(scores))).toBeLessThanOrEqual(1.000001);
    }
    expect(right.meaning).toBeGreaterThan(right.words + 6);
    expect((await meaning.analyze('')).order).toEqual(['text', 'image', 'audio']);
    expect((await meaning.analyze('Paint a picture. '.repeat(60_000))).order[0]).toBe('image');
  });

  test('an embedder of your own, and its failures', async () => {
    const direction = (text: string) => (text.includes('cat') ? [1, 0] : [0, 1]);
    let broken = true;
    const analyzer = new PromptAnalyzer({
      analyzer: 'embeddings',
      modalities: [{ name: 'dogs', keywords: [], examples: ['a dog'] }, { name: 'cats', keywords: ['cat'] }],
      generator: (texts) => { if (broken) throw new Error('away'); return texts.map(direction); },
    });
    expect(await failure(() => analyzer.analyze('my cat'))).toBeInstanceOf(EmbeddingError);
    broken = false;
    expect((await analyzer.analyze('my cat')).order).toEqual(['cats', 'dogs']);
    const hangs = new PromptAnalyzer({ analyzer: 'embeddings', generator: () => new Promise(() => {}) });
    expect(await failure(() => hangs.analyze('x', { timeoutMs: 20 }))).toMatchObject({ code: 'TIMED_OUT' });
    expect(await failure(() => hangs.analyze('x', { signal: AbortSignal.abort() }))).toMatchObject({ code: 'ABORTED' });
  });

  test('what cannot be is refused, and named', async () => {
    for (const [options, message] of [
      [{ analyzer: 'magic' }, /analyzer.*"magic"/], [{ modalities: [] }, /modalities/], [{ modalities: 5 }, /modalities/], [{ modalities: [{ name: '', keywords: [] }] }, /modalities\[0\]\.name/],
      [{ modalities: [{ name: 'a', keywords: 'b' }] }, /modalities\[0\]\.keywords/], [{ modalities: [{ name: 'a', keywords: [1] }] }, /modalities\[0\]\.keywords/],
      [{ modalities: [{ name: 'a', keywords: [] }, { name: 'a', keywords: [] }] }, /two modalities "a"/], [{ modalities: [{ name: 'a', keywords: [], other: 1 }] }, /other/], [{ generator: 5 }, /generator/],
    ] as const) {
      expect(await failure(() => new PromptAnalyzer(options as never))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringMatching(message) });
    }
    expect(await failure(() => new PromptAnalyzer().analyze(5 as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await failure(() => new PromptAnalyzer({ analyzer: 'embeddings' }).analyze(null as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});

describe('gestaltRatio', () => {
  test('golden values, and what holds of all', async () => {
    for (const { a, b, ratio } of golden.gestaltRatio) expect(gestaltRatio(a, b), `${a} / ${b}`).toBeCloseTo(ratio, 5);
    expect(gestaltRatio('', '')).toBe(1);
    expect(gestaltRatio('😀a', '😀b')).toBe(0.5);
    fc.assert(fc.property(fc.string({ maxLength: 60 }), fc.string({ maxLength: 60 }), (a, b) => {
      const ratio = gestaltRatio(a, b);
      expect(ratio).toBeGreaterThanOrEqual(0);
      expect(ratio).toBeLessThanOrEqual(1);
      expect(gestaltRatio(a, a)).toBe(1);
    }));
    expect(await failure(() => gestaltRatio('a', 5 as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('long texts are compared by words, and very long ones in linear time', () => {
    const words = (count: number, seed: number) => Array.from({ length: count }, (_, at) => `word${(at * seed) % 97}`).join(' ');
    const text = words(300, 7);
    expect(gestaltRatio(text, `${text} and something more`)).toBeGreaterThan(0.95);
    expect(gestaltRatio(text, words(300, 13))).toBeLessThan(0.9);
    const [one, other] = [words(150_000, 7), words(150_000, 13)];
    const ratio = gestaltRatio(one, other);
    expect(ratio).toBeGreaterThan(0.5);
    expect(gestaltRatio('x'.repeat(1_000_000), 'y'.repeat(1_000_000))).toBe(0);
  });
});

describe('fuse', () => {
  const agent = new ContentFusionAgent();

  test('lists by weighted vote, texts and values from who weighs most', () => {
    const plans = [
      { mood: 'calm', tags: ['Sea', 'gull'], duration: 10, style: { palette: ['blue', 'grey'], lens: 'wide' } },
      { mood: 'stormy', tags: ['sea ', 'rock'], duration: 20, style: { palette: ['blue', 'black'], lens: 'macro' } },
      { mood: 'calm', tags: ['rock', 'sea'], duration: 20, style: { palette: ['grey'], lens: 'wide' }, extra: true },
    ];
    const { merged, report } = agent.fuse(plans);
    expect(merged).toEqual({ mood: 'calm', tags: ['Sea', 'rock'], duration: 10, style: { palette: ['blue', 'grey'], lens: 'wide' }, extra: true });
    expect(report.perSectionAgreement.tags).toBeCloseTo((1 / 3 + 1 / 3 + 1) / 3, 9);
    expect(report.perSectionAgreement.mood).toBeCloseTo((1 + 2 * gestaltRatio('calm', 'stormy')) / 3, 9);
    expect(report.perSectionAgreement.duration).toBeCloseTo(1 / 3, 9);
    expect(report.conflicts.mood).toEqual(['calm', 'stormy', 'calm']);
    expect(report.conflicts.duration).toEqual([10, 20, 20]);
    expect(report.conflicts.extra).toEqual([null, null, true]);
    expect(report.conflicts.tags).toBeUndefined();
    const judged = ['mood', 'tags', 'style.palette', 'style.lens'].map((section) => report.perSectionAgreement[section]!);
    expect(report.agreementScore).toBeCloseTo(judged.reduce((sum, one) => sum + one) / judged.length, 9);
    expect(report.confidence).toBe(report.agreementScore);
    expect(report.perSectionAgreement.style).toBeCloseTo((judged[2]! + judged[3]!) / 2, 9);
    expect(report.notes).toMatch(/^3 plans merged\. They disagree about mood, duration/);
    // By number: the second weighs more than the others together.
    expect(agent.fuse(plans, [1, 3, 1]).merged).toMatchObject({ mood: 'stormy', tags: ['sea ', 'rock'], duration: 20 });
    // By modality, of each: the third decides about sounds alone.
    const schema = { mood: 'audio', style: 'image', 'style.lens': 'audio' };
    const weights = [{ image: 2, audio: 1 }, { image: 1, audio: 1 }, { image: 1, audio: 5 }];
    expect(agent.fuse([plans[1]!, plans[0]!, { ...plans[2]!, mood: 'loud' }], weights, ['image'], { schema }).merged).toMatchObject({ mood: 'loud', duration: 20, style: { lens: 'wide', palette: ['blue', 'black', 'grey'] } });
  });

  test('keepThreshold is a weight; the weights of modalities decide how much a section counts', () => {
    const plans = [{ scene: ['a', 'b'], audio: 'rain' }, { scene: ['a', 'c'], audio: 'hail' }, { scene: ['a'], audio: 'rain' }];
    const kept = (keepThreshold: number) => agent.fuse(plans, [1, 1, 1], [], { keepThreshold }).merged.scene;
    expect([0, 1, 1.5, 3, 3.5].map(kept)).toEqual([['a', 'b', 'c'], ['a', 'b', 'c'], ['a'], ['a'], []]);
    expect(new ContentFusionAgent({ keepThreshold: 1 }).fuse(plans).merged.scene).toEqual(['a', 'b', 'c']);
    const { report } = agent.fuse(plans, { text: 2, image: 0.5, audio: 0.5 }, ['text', 'image', 'audio']);
    const { scene, audio } = report.perSectionAgreement;
    expect(report.agreementScore).toBeCloseTo((2 * scene! + 0.5 * audio!) / 2.5, 9);
    expect(report.notes).toContain('Most important: text, then image, then audio.');
    // What has the order of an analysis will do.
    const analysis = new PromptAnalyzer().analyze('a song');
    expect(agent.fuse(plans, analysis.weights, analysis).report.notes).toContain('Most important: audio');
  });

  test('one plan is its own answer; none is an error', async () => {
    const plan = { title: 'x', list: [1, { a: 2 }] };
    const { merged, report } = agent.fuse([plan]);
    expect(merged).toEqual(plan);
    expect(merged).not.toBe(plan);
    expect(report).toEqual({ agreementScore: 1, perSectionAgreement: {}, conflicts: {}, notes: '1 plan: nothing to merge.', confidence: 1 });
    expect(agent.fuse([plan, structuredClone(plan)]).report).toMatchObject({ agreementScore: 1, conflicts: {} });
    for (const plans of [[], 'plans', null, [5], [null], [[1]], ['{}'], [{}, undefined], [{ f: () => 1 }], [{ big: 1n }], [{ nan: NaN }]]) {
      expect(await failure(() => agent.fuse(plans as never)), JSON.stringify(String(plans))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    const circular: { self?: unknown } = {};
    circular.self = circular;
    expect(await failure(() => agent.fuse([{}, circular]))).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('Plan 1') });
    for (const weights of [[1], [1, 'a'], [1, -1], [1, NaN], 5, null, { text: -1 }, [1, { text: Infinity }]]) {
      expect(await failure(() => agent.fuse([plan, plan], weights as unknown as PlannerWeights)), JSON.stringify(weights)).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(/weights/) });
    }
    expect(await failure(() => agent.fuse([plan], {}, 5 as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    for (const options of [{ schema: { a: 5 } }, { schema: 5 }, { keepThreshold: -1 }, { keepTreshold: 1 }]) expect(await failure(() => agent.fuse([plan], {}, [], options as never))).toMatchObject({ code: 'INVALID_CONFIG' });
  });

  test('plans of other shapes: who weighs most decides what a section is', () => {
    const plans = [{ a: 'text', only: [1] }, { a: ['list'], __proto__: null }, { a: { deep: true } }] as Record<string, Json>[];
    expect(agent.fuse(plans)).toMatchObject({ merged: { a: 'text', only: [] }, report: { perSectionAgreement: { a: 0, only: 0 }, conflicts: { a: ['text', ['list'], { deep: true }], only: [[1], null, null] } } });
    expect(agent.fuse(plans, [1, 2, 1]).merged.a).toEqual(['list']);
    expect(agent.fuse(plans, [1, 1, 2]).merged.a).toEqual({ deep: true });
    expect(agent.fuse(plans, [1, 1, 2]).report.conflicts.a).toHaveLength(3);
    const odd = JSON.parse('{"__proto__": {"polluted": true}, "constructor": "x"}') as Record<string, Json>;
    const { merged } = agent.fuse([odd, odd]);
    expect(Object.keys(merged)).toEqual(['__proto__', 'constructor']);
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
    expect(agent.fuse([{}, {}])).toMatchObject({ merged: {}, report: { agreementScore: 1 } });
    expect(agent.fuse([{ n: 1 }, { n: 2 }]).report).toMatchObject({ agreementScore: 0, conflicts: { n: [1, 2] } });
    expect(agent.fuse([{ n: null }, { n: null }]).report).toMatchObject({ agreementScore: 1, conflicts: {} });
  });

  test('any number of plans, whose order does not matter but for ties', () => {
    const many = Array.from({ length: 300 }, (_, at) => ({ tags: ['all', `${at % 3}`], title: `title ${at % 2}` }));
    const { merged, report } = agent.fuse(many);
    expect(merged).toEqual({ tags: ['all'], title: 'title 0' });
    expect(report.agreementScore).toBeGreaterThan(0.3);
    const entry = fc.array(fc.constantFrom<string>('a', 'b', 'c', 'd'), { maxLength: 4 });
    fc.assert(fc.property(fc.array(fc.tuple(entry, fc.integer({ min: 1, max: 9 })), { minLength: 2, maxLength: 6 }), (given) => {
      const merge = (all: typeof given) => agent.fuse(all.map(([tags]) => ({ tags })), all.map(([, weight]) => weight));
      const [one, other] = [merge(given), merge([...given].reverse())];
      expect([...one.merged.tags].sort()).toEqual([...other.merged.tags].sort());
      expect(one.report.agreementScore).toBeCloseTo(other.report.agreementScore, 9);
      const half = given.reduce((sum, [, weight]) => sum + weight, 0) / 2;
      for (const tag of ['a', 'b', 'c', 'd']) {
        const weight = given.reduce((sum, [tags, own]) => sum + (tags.includes(tag) ? own : 0), 0);
        expect(one.merged.tags.includes(tag)).toBe(weight > 0 && weight >= half);
      }
    }));
  });
});

describe('DynamicSemanticCouncil', () => {
  const council = (options: CouncilOptions) => new DynamicSemanticCouncil({ monitor: false, ...options });
  const scene = { scene: ['beach', 'gulls'], audio: { mood: 'calm', sounds: ['waves'] } };

  test('planners plan at the same time, and are merged', async () => {
    const monitor = new PerformanceMonitor();
    let [running, most] = [0, 0];
    const planner = (plan: object, weights?: Record<string, number>) => ({
      async plan(prompt: string, { signal, analysis }: { signal: AbortSignal; analysis: { order: string[] } }) {
        expect([prompt, signal.aborted, analysis.order[0]]).toEqual(['the sound of waves', false, 'audio']);
        most = Math.max(most, ++running);
        await sleep(5);
        running--;
        return plan as typeof scene;
      },
      ...(weights && { weights }),
    });
    const planners = [planner(scene), { ...planner({ ...scene, audio: { mood: 'wild', sounds: ['waves', 'wind'] } }, { audio: 3 }), name: 'sounds' }, planner({ scene: ['beach'], audio: { mood: 'calm', sounds: ['waves'] } })];
    const { merged, report, analysis, plans } = await council({ planners, monitor }).run('the sound of waves');
    expect(most).toBe(3);
    expect(merged).toEqual({ scene: ['beach', 'gulls'], audio: { mood: 'wild', sounds: ['waves', 'wind'] } });
    expect(report.conflicts).toEqual({ 'audio.mood': ['calm', 'wild', 'calm'] });
    expect(report.notes).toContain('Most important: audio, then text, then image.');
    expect(analysis.order).toEqual(['audio', 'text', 'image']);
    expect(plans.map(({ name, success, timedOut }) => [name, success, timedOut])).toEqual([['planner 0', true, false], ['sounds', true, false], ['planner 2', true, false]]);
    expect(monitor.getStats('coherence.council')).toMatchObject({ count: 1, errors: 0 });
  });

  test('a planner that throws, hangs, or answers no plan is left out', async () => {
    let aborted = false;
    const hangs: PlanFunction = (_, { signal }) => new Promise(() => signal.addEventListener('abort', () => (aborted = true)));
    const planners: CouncilOptions['planners'] = [
      function good() { return scene; },
      async () => `Here it is:\n\`\`\`json\n${JSON.stringify(scene)}\n\`\`\`\nDone.`,
      { name: 'throws', plan: () => { throw new Error('no idea'); } },
      { name: 'hangs', plan: hangs, timeoutMs: 30 },
      { name: 'chats', plan: () => 'I would put a beach there.' },
      { name: 'lists', plan: () => [1] as never },
      { name: 'numbers', plan: () => '5' },
      { name: 'nothing', plan: () => undefined as never },
      { name: 'circular', plan: () => { const plan: { self?: unknown } = {}; plan.self = plan; return plan; } },
      { name: 'truncated', plan: () => '{"scene": ["bea' },
    ];
    const { merged, report, plans } = await council({ planners }).run('a beach');
    expect(merged).toEqual(scene);
    expect(report).toMatchObject({ agreementScore: 1, conflicts: {} });
    expect(report.notes).toContain('Without an answer: throws, hangs (too late), chats');
    expect(plans.map(({ name, success, timedOut, error }) => [name, success, timedOut, error?.code])).toEqual([
      ['good', true, false, undefined], ['planner 1', true, false, undefined], ['throws', false, false, 'BACKEND_UNAVAILABLE'], ['hangs', false, true, 'TIMED_OUT'], ['chats', false, false, 'BACKEND_REJECTED'],
      ['lists', false, false, 'INVALID_ARGUMENT'], ['numbers', false, false, 'BACKEND_REJECTED'], ['nothing', false, false, 'INVALID_ARGUMENT'], ['circular', false, false, 'INVALID_ARGUMENT'], ['truncated', false, false, 'BACKEND_REJECTED'],
    ]);
    expect(plans[2]!.error!.message).toContain('no idea');
    expect(plans[4]!.error!.message).toContain('no JSON: "I would');
    expect(aborted).toBe(true);
    expect(await failure(() => council({ planners: planners.slice(2) }).run('x'))).toMatchObject({ code: 'BACKEND_UNAVAILABLE', details: { planners: expect.arrayContaining([{ name: 'throws', code: 'BACKEND_UNAVAILABLE', message: expect.any(String) }]) } });
    expect(await council({ planners: [planners[0]!, planners[2]!] }).run('x')).toMatchObject({ merged: scene, report: { confidence: 1 } });
  });

  test('limits of a run: its signal and its time', async () => {
    const made = council({ planners: [() => new Promise(() => {})] });
    const stop = new AbortController();
    const ended = failure(() => made.run('x', { signal: stop.signal }));
    stop.abort(new Error('enough'));
    expect(await ended).toMatchObject({ code: 'ABORTED', cause: stop.signal.reason });
    expect(await failure(() => made.run('x', { timeoutMs: 20 }))).toMatchObject({ code: 'TIMED_OUT' });
  });

  test('plans are copied when they are answered; a schema and modalities of your own', async () => {
    const plan = { rows: ['a'] };
    const planners: PlanFunction[] = [() => plan, async () => { await sleep(10); plan.rows.push('later'); return { rows: ['a'] }; }];
    expect((await council({ planners }).run('x')).plans[0]!.plan).toEqual({ rows: ['a'] });
    const analyzer = new PromptAnalyzer({ modalities: [{ name: 'table', keywords: ['rows'] }, { name: 'chart', keywords: ['plot'] }] });
    const both = [{ weights: { chart: 2 }, plan: () => ({ kind: 'bars', data: 'first' }) }, { weights: { table: 2 }, plan: () => ({ kind: 'lines', data: 'second' }) }];
    expect((await council({ planners: both, analyzer, schema: { kind: 'chart', data: 'table' } }).run('plot it')).merged).toEqual({ kind: 'bars', data: 'second' });
    const meaning = new PromptAnalyzer({ analyzer: 'embeddings' });
    onTestFinished(() => meaning.close());
    expect((await council({ planners: [() => scene], analyzer: meaning }).run('Paint a lighthouse in oil')).analysis.order[0]).toBe('image');
    expect((await council({ planners: both, dynamicWeighting: false }).run('x'.repeat(1_000_000))).merged.kind).toBe('bars');
  });

  test('what cannot be is refused, and named', async () => {
    const plan = () => scene;
    for (const [options, message] of [
      [{ planners: [] }, /planners/], [{ planners: 5 }, /planners/], [{}, /planners/], [{ planners: [5] }, /planners\[0\]/], [{ planners: [{}] }, /planners\[0\]\.plan/], [{ planners: [{ plan, nmae: 'x' }] }, /nmae/],
      [{ planners: [{ plan, weights: -1 }] }, /planners\[0\]\.weights/], [{ planners: [{ plan, weights: { text: NaN } }] }, /weights\.text/], [{ planners: [{ plan, timeoutMs: 0 }] }, /planners\[0\]\.timeoutMs/],
      [{ planners: [plan], analyzer: {} }, /analyzer/], [{ planners: [plan], timeoutMs: -1 }, /timeoutMs/], [{ planners: [plan], schema: { a: 1 } }, /schema/], [{ planners: [plan], keepThreshold: 'a' }, /keepThreshold/],
      [{ planners: [plan], monitor: 5 }, /monitor/], [{ planners: [plan], dynamicWeighting: 1 }, /dynamicWeighting/],
    ] as const) {
      expect(await failure(() => new DynamicSemanticCouncil(options as never))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringMatching(message) });
    }
    const made = council({ planners: [plan] });
    for (const prompt of ['', 5, undefined]) expect(await failure(() => made.run(prompt as string))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await failure(() => made.run('x', { timeout: 5 } as never))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining('timeoutMs') });
  });
});

describe('what is large, odd or thrown', () => {
  const agent = new ContentFusionAgent();

  test('a run of punctuation within a word is passed once', () => {
    const began = performance.now();
    for (const mark of ['!', '😀', '-!']) expect(new PromptAnalyzer().analyze(`paint ${'a'}${mark.repeat(300_000)}b ${mark}music${mark}`).scores).toMatchObject({ image: 1, audio: 1 });
    expect(performance.now() - began).toBeLessThan(10_000);
  });

  test('agreement is that of all pairs, however many planners there are', () => {
    const many = (...counts: [number, Json][]) => counts.flatMap(([count, l]) => Array.from({ length: count }, () => (l === null ? { other: 1 } : { l })));
    const agreement = (plans: { [section: string]: Json }[]) => agent.fuse(plans).report;
    for (const [one, other] of [[['a'], ['b']], ['calm sea', 'q'], [1, 2]] as [Json, Json][]) {
      const { perSectionAgreement, conflicts } = agreement(many([30, one], [30, other]));
      expect(perSectionAgreement.l).toBeCloseTo(870 / 1770, 9);
      expect(conflicts.l).toHaveLength(60);
    }
    expect(agreement(many([30, ['a']], [30, ['b']])).agreementScore).toBeCloseTo(870 / 1770, 9);
    // Two that say nothing are no pair; one of them beside another disagrees.
    expect(agreement(many([40, ['a']], [20, null])).perSectionAgreement.l).toBeCloseTo(780 / (780 + 800), 9);
    expect(agreement(many([40, ['a']], [20, 'a'])).perSectionAgreement.l).toBeCloseTo(780 / 1770, 9);
    // As few do, who are compared one by one.
    const lists = Array.from({ length: 60 }, (_, at) => [`${at % 7}`, `${at % 5}`, `${at % 3} x`]);
    let sum = 0;
    for (let a = 0; a < 60; a++) for (let b = a + 1; b < 60; b++) {
      const [one, two] = [new Set(lists[a]), new Set(lists[b])];
      const common = [...one].filter((each) => two.has(each)).length;
      sum += common / (one.size + two.size - common);
    }
    expect(agreement(lists.map((l) => ({ l }))).perSectionAgreement.l).toBeCloseTo(sum / 1770, 9);
  });

  test('many long texts are compared in a moment', () => {
    const text = (seed: number) => Array.from({ length: 500 }, (_, at) => `word${(at * at * (seed + 3) + seed) % 211}`).join(' ');
    const began = performance.now();
    const { report } = agent.fuse(Array.from({ length: 300 }, (_, at) => ({ story: text(at) })));
    expect(report.agreementScore).toBeGreaterThan(0);
    expect(report.agreementScore).toBeLessThan(1);
    expect(performance.now() - began).toBeLessThan(15_000);
    expect(gestaltRatio(`${' '.repeat(600)}a`, `${'\n'.repeat(700)}a`)).toBe(1);
    expect(gestaltRatio(' '.repeat(600), '\n'.repeat(700))).toBe(1);
  });

  test('plans of an interface', () => {
    interface Scene { mood: string; tags: string[] }
    const plans: Scene[] = [{ mood: 'calm', tags: ['sea'] }, { mood: 'calm', tags: ['sea'] }];
    const { merged } = agent.fuse(plans);
    expect(merged.tags satisfies string[]).toEqual(['sea']);
    const plan: PlanFunction = () => plans[0]!;
    expect(new DynamicSemanticCouncil({ planners: [plan] })).toBeDefined();
  });

  test('no two sections have one path', () => {
    const { report } = agent.fuse([{ 'a.b': 'x', a: { b: 'y' }, '': 'n', '[""]': 'm' }, { 'a.b': 'x', a: { b: 'other' }, '': 'n', '[""]': 'k' }]);
    expect(report.perSectionAgreement).toMatchObject({ '["a.b"]': 1, '[""]': 1, '["[\\"\\"]"]': 0 });
    expect(report.perSectionAgreement['a.b']).toBe(gestaltRatio('y', 'other'));
    expect(Object.keys(report.conflicts)).toEqual(['a.b', '["[\\"\\"]"]']);
    // A schema may name it either way.
    const weighed = agent.fuse([{ 'a.b': 'x' }, { 'a.b': 'y' }], [{ image: 1 }, { image: 2 }], ['text'], { schema: { 'a.b': 'image' } });
    expect(weighed.merged).toEqual({ 'a.b': 'y' });
  });

  test('weights are numbers, however large or small they are', async () => {
    const plans = [{ l: ['a'], t: 'x' }, { l: ['b'], t: 'y' }, { l: ['b'], t: 'x' }];
    for (const weight of [1e308, Number.MAX_VALUE, 1e-300, 1]) {
      const { merged, report } = agent.fuse(plans, [weight, weight, weight]);
      expect(merged).toEqual({ l: ['b'], t: 'x' });
      expect(report.agreementScore).toBeCloseTo(1 / 3, 9);
      expect(agent.fuse(plans, [weight, weight, weight], [], { keepThreshold: weight }).merged.l).toEqual(['a', 'b']);
    }
    const heavy = () => ({ name: '', plan: () => plans[0]!, weights: Number.MAX_VALUE });
    expect((await new DynamicSemanticCouncil({ planners: [heavy(), heavy()] }).run('paint a picture with light')).report.agreementScore).toBe(1);
  });

  test('what throws when it is read is an error about it', async () => {
    const thrower = { get text(): never { throw new Error('mine'); } };
    for (const work of [
      () => agent.fuse([{}, {}], thrower),
      () => agent.fuse([{}, {}], [thrower, 1]),
      () => agent.fuse([{}, {}], {}, { get order(): never { throw new Error('mine'); } }),
      () => agent.fuse([thrower, {}]),
      () => agent.fuse(new Proxy([{}], { get: (target, name) => { if (name === '0') throw new Error('mine'); return Reflect.get(target, name) as unknown; } })),
      () => new PromptAnalyzer({ analyzer: 'embeddings', generator: () => { throw new TypeError('mine'); } }).analyze('x'),
      () => new PromptAnalyzer({ analyzer: 'embeddings', generator: async () => Promise.reject(new TypeError('mine')) }).analyze('x'),
    ]) {
      const error = await failure(work);
      expect(error).toBeInstanceOf(EmbeddingError);
      expect(error.code).toMatch(/^INVALID_|^EMBEDDING_GENERATION_FAILED/);
      expect(error.message).toContain('mine');
    }
  });
});
