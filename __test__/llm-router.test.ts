import { setTimeout as sleep } from 'node:timers/promises';

import { EmbeddingError, InferenceCache, PerformanceMonitor, profiled } from 'embedcore';
import { cachedCall, LlmRouter, profiled as sameProfiled, type CallProfile, type LlmProvider, type LlmRouterOptions } from 'embedcore/llm';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure } from './support';

/** A provider that fails as long as it is told to. */
function provider(name: string, more: Partial<LlmProvider> = {}) {
  const state = { calls: 0, down: false, options: undefined as unknown };
  const made: LlmProvider = {
    name,
    async generate(prompt, options) {
      state.calls++;
      state.options = options;
      await sleep(1);
      if (state.down) throw new Error(`${name} is down`);
      return `${name} says ${prompt}`;
    },
    ...more,
  };
  return { made, state };
}

function router(options: LlmRouterOptions): LlmRouter {
  const made = new LlmRouter(options);
  onTestFinished(() => made.close());
  return made;
}

describe('LlmRouter', () => {
  test('the first provider that can answers; what is known needs none', async () => {
    const [a, b] = [provider('a'), provider('b')];
    const llm = router({ providers: [a.made, b.made] });
    expect(await llm.generate('hello')).toEqual({ response: 'a says hello', answer: 'a says hello', provider: 'a', fromCache: false });
    expect(await llm.generate('hello')).toMatchObject({ provider: 'a', fromCache: true });
    a.state.down = true;
    expect(await llm.generate('other')).toMatchObject({ response: 'b says other', provider: 'b' });
    expect(await llm.generate('other', { useCache: false })).toMatchObject({ fromCache: false });
    expect(llm.getStatistics()).toMatchObject({
      calls: 4, hits: 1, apiCallReduction: 0.25, failures: 0,
      providers: { a: { calls: 3, errors: 2, consecutiveErrors: 2, state: 'closed' }, b: { calls: 2, errors: 0 } },
    });
    const { latency } = llm.getStatistics().providers.b!;
    expect(latency.p50).toBeGreaterThan(0);
    expect(latency.p99).toBeGreaterThanOrEqual(latency.p50);
    expect(router({ providers: [a.made] }).getStatistics()).toMatchObject({ calls: 0, apiCallReduction: 0, providers: { a: { calls: 0, latency: { mean: 0, p99: 0 } } } });
  });

  test('order and methods', async () => {
    const [a, b, c] = [provider('a', { capabilities: ['text'] }), provider('b', { capabilities: ['vision', 'text'] }), provider('c')];
    const llm = router({ providers: [a.made, b.made, c.made], fallbackOrder: ['c', 'b'], enableCaching: false });
    expect((await llm.generate('x')).provider).toBe('c');
    c.state.down = true;
    expect((await llm.generate('x')).provider).toBe('b');
    expect((await llm.generate('x', { method: 'vision' })).provider).toBe('b');
    expect((await llm.generate('x', { method: 'a' })).provider).toBe('a');
    b.state.down = true;
    expect((await llm.generate('x', { method: 'text' })).provider).toBe('a');
    expect(await failure(() => llm.generate('x', { method: 'vision' }))).toMatchObject({ code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining('b is down') });
    const narrow = router({ providers: [a.made, b.made] });
    expect(await failure(() => narrow.generate('x', { method: 'audio' }))).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(/"audio".*text.*vision/) });
    const told = { ...provider('d').made, capabilities: () => ({ batch: true }) };
    expect((await router({ providers: [a.made, told] }).generate('x', { method: 'audio' })).provider).toBe('d');
  });

  test('a provider that hangs counts as failed when the call is over, and is left alone after the fifth time', async () => {
    for (const useCache of [true, false]) {
      let asked = 0;
      const signals: AbortSignal[] = [];
      const hanging: LlmProvider = { name: 'hanging', generate: (_, { signal }) => (asked++, signals.push(signal), new Promise(() => {})) };
      const llm = router({ providers: [hanging, provider('b').made] });
      for (let i = 0; i < 5; i++) expect(await failure(() => llm.generate(`x${i}`, { timeoutMs: 20, useCache }))).toMatchObject({ code: 'TIMED_OUT' });
      expect(await llm.generate('x5', { timeoutMs: 5000, useCache })).toMatchObject({ provider: 'b' });
      expect(asked).toBe(5);
      expect(signals.every(({ aborted }) => aborted)).toBe(true);
      expect(llm.getStatistics().providers).toMatchObject({ hanging: { calls: 5, errors: 5, consecutiveErrors: 5, state: 'open' }, b: { calls: 1, errors: 0 } });
    }
  });

  test('a call that is aborted says nothing about who was asked, also where another one waited less long', async () => {
    const hanging: LlmProvider = { name: 'hanging', generate: () => new Promise(() => {}) };
    const llm = router({ providers: [hanging] });
    for (let i = 0; i < 6; i++) {
      const stop = new AbortController();
      const [short, long] = [failure(() => llm.generate('x', { timeoutMs: 10 })), failure(() => llm.generate('x', { signal: stop.signal }))];
      expect(await short).toMatchObject({ code: 'TIMED_OUT' });
      stop.abort();
      expect(await long).toMatchObject({ code: 'ABORTED' });
    }
    expect(llm.getStatistics().providers.hanging).toMatchObject({ calls: 0, errors: 0, consecutiveErrors: 0, state: 'closed' });
  });

  test('the next one is asked when the time of a provider is over', async () => {
    let stopped: AbortSignal | undefined;
    const slow: LlmProvider = { name: 'slow', timeoutMs: 20, generate: (_, { signal }) => ((stopped = signal), new Promise(() => {})) };
    const llm = router({ providers: [slow, provider('b').made] });
    expect(await llm.generate('x')).toMatchObject({ provider: 'b' });
    expect(stopped!.aborted).toBe(true);
    expect(llm.getStatistics().providers.slow).toMatchObject({ calls: 1, errors: 1 });
    expect(await failure(() => router({ providers: [{ ...slow, timeoutMs: 0 }] }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'providers[0].timeoutMs' } });
  });

  test('an answer that is no JSON is a failure of who has given it', async () => {
    const circle: Record<string, unknown> = { response: 'x' };
    circle.self = circle;
    for (const odd of [{ response: 'x', n: 1n }, { response: 'x', f() {} }, circle]) {
      const llm = router({ providers: [{ name: 'odd', generate: () => odd }, provider('b').made] });
      expect(await llm.generate('x')).toMatchObject({ provider: 'b' });
      expect(llm.getStatistics().providers.odd).toMatchObject({ errors: 1 });
      const alone = router({ providers: [{ name: 'odd', generate: () => odd }] });
      expect(await failure(() => alone.generate('x'))).toMatchObject({ code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining('its answer') });
    }
  });

  test('options are passed on as the JSON that they stand for', async () => {
    const a = provider('a');
    const llm = router({ providers: [a.made] });
    await llm.generate('x', { d: { toJSON: () => 1 }, deep: { a: undefined, b: 2 }, at: new Date(0) });
    expect(a.state.options).toMatchObject({ d: 1, deep: { b: 2 }, at: '1970-01-01T00:00:00.000Z' });
    expect(await llm.generate('x', { d: 1, deep: { b: 2 }, at: new Date(0) })).toMatchObject({ fromCache: true });
    const refusals: [Record<string, unknown>, RegExp][] = [
      [{ deep: { f() {} } }, /^options\.deep\.f is a function/], [{ deep: [undefined] }, /^options\.deep\[0\] is undefined/],
      [{ cacheType: 5 }, /cacheType/], [{ ttlSeconds: '5' }, /ttlSeconds/], [{ ttlSeconds: -1 }, /ttlSeconds/],
    ];
    for (const [options, message] of refusals) {
      const error = await failure(() => llm.generate('x', options));
      expect(error).toBeInstanceOf(EmbeddingError);
      expect(error.message).toMatch(message);
      expect(error.code).toMatch(/^INVALID_/);
    }
  });

  test('options are an object of options, and what throws when it is read is named', async () => {
    const a = provider('a');
    const llm = router({ providers: [a.made] });
    for (const odd of [new Map(), [], 5, null]) {
      expect(await failure(() => llm.generate('x', odd as never))).toMatchObject({ code: 'INVALID_CONFIG' });
    }
    const cause = new Error('mine');
    expect(await failure(() => llm.generate('x', { get own() { throw cause; } }))).toMatchObject({ code: 'INVALID_CONFIG', cause, details: { option: 'own' } });
    expect(a.state.calls).toBe(0);
  });

  test('other options go to the provider, and tell results apart', async () => {
    const a = provider('a');
    const llm = router({ providers: [a.made] });
    const options = { temperature: 0, nested: { list: [1] }, method: 'a' };
    const asked = llm.generate('x', options);
    options.nested.list.push(2);
    await asked;
    expect(a.state.options).toMatchObject({ temperature: 0, nested: { list: [1] }, method: 'a', signal: expect.any(AbortSignal) });
    expect(Object.keys(a.state.options as object).sort()).toEqual(['method', 'nested', 'signal', 'temperature']);
    expect((await llm.generate('x', { temperature: 0, nested: { list: [1] }, method: 'a', signal: undefined, timeoutMs: 1000 })).fromCache).toBe(true);
    expect((await llm.generate('x', { temperature: 1 })).fromCache).toBe(false);
    expect(await failure(() => llm.generate('x', { callback: () => {} }))).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('callback') });
  });

  test('a breaker opens after five failures in a row, and lets one call through after a while', async () => {
    const [a, b] = [provider('a'), provider('b')];
    const llm = router({ providers: [a.made, b.made], enableCaching: false, cooldownMs: 1000 });
    a.state.down = true;
    for (let i = 0; i < 8; i++) await llm.generate(`${i}`);
    expect(a.state.calls).toBe(5);
    expect(llm.getStatistics().providers.a).toMatchObject({ state: 'open', consecutiveErrors: 5 });
    await expect.poll(() => llm.getStatistics().providers.a!.state).toBe('half-open');
    await Promise.all(Array.from({ length: 6 }, (_, i) => llm.generate(`again ${i}`)));
    expect(a.state.calls).toBe(6);
    expect(llm.getStatistics().providers.a!.state).toBe('open');
    a.state.down = false;
    await expect.poll(() => llm.getStatistics().providers.a!.state).toBe('half-open');
    expect((await llm.generate('well again')).provider).toBe('a');
    expect(llm.getStatistics().providers.a).toMatchObject({ state: 'closed', consecutiveErrors: 0 });
    a.state.down = true;
    for (let i = 0; i < 4; i++) await llm.generate(`${i}`);
    a.state.down = false;
    await llm.generate('between');
    a.state.down = true;
    for (let i = 0; i < 4; i++) await llm.generate(`${i}`);
    expect(llm.getStatistics().providers.a!.state).toBe('closed');
  });

  test('where all fail, each is told', async () => {
    const [a, b] = [provider('a'), provider('b', { generate: () => 7 as unknown as string })];
    a.state.down = true;
    const llm = router({ providers: [a.made, b.made], failureThreshold: 1 });
    const error = await failure(() => llm.generate('x'));
    expect(error).toBeInstanceOf(EmbeddingError);
    expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true, message: expect.stringMatching(/a: a is down; b: it answered 7/), details: { providers: [{ name: 'a' }, { name: 'b', code: 'BACKEND_REJECTED' }] } });
    expect(await failure(() => llm.generate('x'))).toMatchObject({ code: 'BACKEND_UNAVAILABLE', message: expect.stringMatching(/a: not asked for another \d+ s/) });
    expect(llm.getStatistics()).toMatchObject({ calls: 0, failures: 2 });
  });

  test('a call that is ended asks no other; only a time-out says something of the provider', async () => {
    const b = provider('b');
    let aborted = 0;
    const stuck: LlmProvider = { name: 'stuck', generate: (_, { signal }) => new Promise((_, reject) => signal.addEventListener('abort', () => (aborted++, reject(new Error('aborted'))))) };
    const deaf: LlmProvider = { name: 'deaf', generate: () => new Promise(() => {}) };
    for (const made of [stuck, deaf]) {
      const llm = router({ providers: [made, b.made], failureThreshold: 2 });
      const began = performance.now();
      expect(await failure(() => llm.generate('x', { timeoutMs: 30 }))).toMatchObject({ code: 'TIMED_OUT' });
      const stop = new AbortController();
      setTimeout(() => stop.abort(), 30);
      expect(await failure(() => llm.generate('x', { signal: stop.signal, useCache: false }))).toMatchObject({ code: 'ABORTED' });
      expect(await failure(() => llm.generate('x', { signal: AbortSignal.abort() }))).toMatchObject({ code: 'ABORTED' });
      expect(performance.now() - began).toBeLessThan(3000);
      expect(llm.getStatistics().providers[made.name]).toMatchObject({ state: 'closed', consecutiveErrors: 1 });
    }
    expect([b.state.calls, aborted]).toEqual([0, 2]);
  });

  test('what many ask at the same time is asked once', async () => {
    const a = provider('a');
    const llm = router({ providers: [a.made] });
    const results = await Promise.all(Array.from({ length: 10 }, () => llm.generate('x')));
    expect(a.state.calls).toBe(1);
    expect(results.filter(({ fromCache }) => !fromCache).length).toBe(1);
    expect(llm.getStatistics()).toMatchObject({ calls: 10, hits: 9, apiCallReduction: 0.9 });
  });

  test('answers that are objects, a cache of the caller, and after close', async () => {
    const cache = new InferenceCache();
    onTestFinished(() => cache.close());
    const llm = router({ providers: [{ name: 'a', generate: () => ({ response: 'text', tokens: 3 }) }], cache });
    expect(await llm.generate('x', { cacheType: 'own', ttlSeconds: 9 })).toMatchObject({ response: 'text', answer: { response: 'text', tokens: 3 } });
    expect(cache.getStats().byType.own).toMatchObject({ sets: 1 });
    await llm.close();
    expect(await failure(() => llm.generate('x'))).toMatchObject({ code: 'CLOSED' });
    expect(await cache.has('y')).toBe(false);
  });

  test.each([
    [{ providers: [] }, /providers/],
    [{}, /providers/],
    [{ providers: [{ name: 'a' }] }, /providers\[0\]\.generate/],
    [{ providers: [{ name: '', generate: () => '' }] }, /providers\[0\]\.name/],
    [{ providers: [provider('a').made, provider('a').made] }, /two providers "a"/],
    [{ providers: [provider('a', { capabilities: 'text' as unknown as string[] }).made] }, /capabilities/],
    [{ providers: [provider('a').made], fallbackOrder: ['b'] }, /fallbackOrder\[0\].*there are a/],
    [{ providers: [provider('a').made], failureThreshold: 0 }, /failureThreshold/],
    [{ providers: [provider('a').made], cache: true }, /cache/],
    [{ providers: [provider('a').made], enableCache: true }, /enableCaching/],
  ])('%j is refused', async (options, message) => {
    expect(await failure(() => new LlmRouter(options as unknown as LlmRouterOptions))).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringMatching(message) });
  });
});

describe('cachedCall', () => {
  test('calls once for the same arguments, at the same time too, and does not keep failures', async () => {
    let calls = 0;
    const cache = new InferenceCache();
    onTestFinished(() => cache.close());
    const twice = cachedCall(async function twice(n: number) {
      calls++;
      if (n < 0) throw new RangeError('negative');
      return { twice: n * 2 };
    }, { type: 'maths', ttlSeconds: 60, cache });
    expect(await Promise.all([twice(2), twice(2), twice(3)])).toEqual([{ twice: 4 }, { twice: 4 }, { twice: 6 }]);
    expect(calls).toBe(2);
    await expect(twice(-1)).rejects.toThrow(RangeError);
    await expect(twice(-1)).rejects.toThrow(RangeError);
    expect(calls).toBe(4);
    expect(cache.getStats().byType.maths).toMatchObject({ sets: 2 });
    expect(twice.name).toBe('twice');
  });

  test('without a cache, one of the process', async () => {
    let calls = 0;
    const first = cachedCall(() => ++calls, { name: 'llm-router.test: counts' });
    const second = cachedCall(() => ++calls, { name: 'llm-router.test: counts' });
    expect([await first(), await second()]).toEqual([1, 1]);
    const short = cachedCall(() => ++calls, { name: 'llm-router.test: short', ttlSeconds: 0.05 });
    expect(await short()).toBe(2);
    await sleep(80);
    expect(await short()).toBe(3);
  });

  test('what it cannot wrap is refused', async () => {
    expect(await failure(() => cachedCall(() => 1))).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('name') });
    expect(await failure(() => cachedCall(3 as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await failure(() => cachedCall(() => 1, { name: 'a', ttl: 3 } as object))).toMatchObject({ code: 'INVALID_CONFIG' });
    expect(await failure(() => cachedCall(() => 1, { name: 'a', cache: {} as InferenceCache }))).toMatchObject({ code: 'INVALID_CONFIG' });
  });
});

test('profiled: time, the processors\' time, and who is slow', async () => {
  const monitor = new PerformanceMonitor();
  const told: CallProfile[] = [];
  expect(sameProfiled).toBe(profiled);
  class Work {}
  // As the compiler applies it to a method.
  const decorated = <F extends () => unknown>(options: Parameters<typeof profiled>[0], name: string, method: F): F => {
    const wrapped = (profiled(options) as unknown as (method: F, context: object) => F)(method, { kind: 'method', name });
    Object.defineProperty(Work.prototype, name, { value: wrapped });
    return wrapped;
  };
  const tell = (profile: CallProfile) => void told.push(profile);
  const busy = async () => {
    const [before, until] = [process.cpuUsage(), performance.now() + 10];
    while (performance.now() < until || process.cpuUsage(before).user < 10_000);
    return 'slow';
  };
  const throws = () => {
    throw new Error('not the caller\'s');
  };
  const slow = decorated({ monitor, onProfile: tell, slowMs: 5 }, 'slow', busy);
  const quick = decorated({ monitor, onProfile: throws }, 'quick', () => 'quick');
  const fails = decorated({ monitor, name: 'fails', onProfile: tell }, 'fails', async () => {
    throw new TypeError('its own');
  });
  const work = new Work();
  expect([await slow.call(work), quick.call(work)]).toEqual(['slow', 'quick']);
  await expect(fails.call(work)).rejects.toThrow(TypeError);
  expect(told).toMatchObject([{ name: 'Work.slow', success: true }, { name: 'fails', success: false }]);
  expect(told[0]!.duration).toBeGreaterThanOrEqual(10);
  expect(told[0]!.cpu).toBeGreaterThanOrEqual(10);
  expect(Number.isFinite(told[0]!.memoryGrowth)).toBe(true);
  const { operations } = monitor.getSummary();
  expect(Object.keys(operations).sort()).toEqual(['Work.quick', 'Work.quick.cpu', 'Work.slow', 'Work.slow.cpu', 'fails', 'fails.cpu']);
  expect(operations['fails.cpu']).toMatchObject({ errors: 1 });
  expect(() => profiled({ slowMs: -1 })).toThrow(/slowMs/);
  expect(() => profiled({ onProfile: 3 as never })).toThrow(/onProfile/);
  expect(() => profiled({ slow: 3 } as object)).toThrow(EmbeddingError);
});

test('a provider has options of its own, whatever the one before has done to them', async () => {
  const seen: unknown[] = [];
  const asked = router({
    providers: [
      { name: 'a', generate: (_, options) => { (options.list as number[]).push(9); throw new Error('no'); } },
      { name: 'b', generate: (_, options) => (seen.push(options.list), 'yes') },
    ],
  });
  expect((await asked.generate('prompt', { list: [1] })).response).toBe('yes');
  expect(seen).toEqual([[1]]);
});

test('a provider that throws when it is read is refused by its place', async () => {
  const throwing = { get name(): string { throw new TypeError('mine'); }, generate: () => 'x' };
  expect(await failure(() => new LlmRouter({ providers: [throwing] }))).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'providers[0].name' } });
});
