// An observer changes nothing.
import { setTimeout as sleep } from 'node:timers/promises';
import { runInNewContext } from 'node:vm';

import { monitored, PerformanceMonitor, type MonitoredOptions } from 'embedcore';
import { describe, expect, onTestFinished, test, vi } from 'vitest';

import { failure } from './support';

function decorated<F extends (...args: any[]) => unknown>(method: F, options: MonitoredOptions = {}): { call: F; monitor: PerformanceMonitor } {
  const monitor = new PerformanceMonitor();
  const decorate = monitored({ monitor, name: 'call', ...options }) as unknown as (method: F, context: object) => F;
  return { call: decorate(method, { kind: 'method', name: method.name }), monitor };
}

/** Rejections that nobody has handled, while a test runs. */
function unhandled(): unknown[] {
  const seen: unknown[] = [];
  const others = process.listeners('unhandledRejection');
  process.removeAllListeners('unhandledRejection');
  const listener = (reason: unknown) => void seen.push(reason);
  process.on('unhandledRejection', listener);
  onTestFinished(() => {
    process.off('unhandledRejection', listener);
    for (const other of others) process.on('unhandledRejection', other);
  });
  return seen;
}

describe('what a decorated method gives', () => {
  test('a query is sent when it is awaited, once, and not before', async () => {
    let sent = 0;
    class Query {
      then(resolve: (row: string) => void) {
        resolve(`row ${++sent}`);
      }
    }
    const { call, monitor } = decorated(() => new Query());
    const query = call();
    await sleep(5);
    expect([query instanceof Query, sent]).toEqual([true, 0]);
    expect(await (query as PromiseLike<string>)).toBe('row 1');
    await sleep(5);
    expect(sent).toBe(1);
    expect(monitor.getStats('call')!.count).toBe(1);
  });

  test('a lazy promise of a class of its own is left to its owner', async () => {
    let ran = 0;
    class Lazy extends Promise<string> {
      cancel = () => 'cancelled';
      override then<A, B>(fulfilled?: ((value: string) => A | PromiseLike<A>) | null, rejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<A | B> {
        ran++;
        return super.then(fulfilled, rejected) as Promise<A | B>;
      }
    }
    const { call } = decorated(() => new Lazy((resolve) => resolve('value')));
    const lazy = call();
    await sleep(5);
    expect([ran, lazy.cancel()]).toEqual([0, 'cancelled']);
    expect(await lazy).toBe('value');
    expect(ran).toBe(1);
  });

  test('a promise with properties keeps them', async () => {
    const request = Object.assign(Promise.resolve(5), { abort: () => 'aborted' });
    const { call } = decorated(() => request);
    expect(call()).toBe(request);
  });

  test('nothing else is looked at', () => {
    const looked: PropertyKey[] = [];
    const shy = new Proxy({}, { get: (_, key) => (looked.push(key), undefined) });
    const { call } = decorated(() => shy);
    expect(call()).toBe(shy);
    const getter = { get then(): never { throw new Error('do not look'); } };
    expect(decorated(() => getter).call()).toBe(getter);
    expect(looked).toEqual([]);
  });

  test('generators and streams are passed on, and run when they are read', async () => {
    let steps = 0;
    const { call, monitor } = decorated(async function* () {
      for (steps = 1; steps <= 3; steps++) yield steps;
    });
    const stream = call();
    await sleep(5);
    expect(steps).toBe(0);
    const all: number[] = [];
    for await (const step of stream) all.push(step);
    expect(all).toEqual([1, 2, 3]);
    expect(monitor.getStats('call')!.count).toBe(1);
  });

  test('promises are measured to their end, those of another realm, too', async () => {
    const foreign = runInNewContext('(ms) => new Promise((resolve) => setTimeout(() => resolve(ms), ms))', { setTimeout }) as (ms: number) => Promise<number>;
    for (const method of [async (ms: number) => (await sleep(ms), ms), foreign]) {
      const { call, monitor } = decorated(method);
      expect(await call(20)).toBe(20);
      expect(monitor.getStats('call')!.min).toBeGreaterThan(15);
    }
  });
});

describe('rejections', () => {
  test('that nobody handles are unhandled, once; those that somebody handles are not', async () => {
    const seen = unhandled();
    const { call, monitor } = decorated(async (message: string) => {
      throw new Error(message);
    });
    void call('left alone');
    await expect(call('handled')).rejects.toThrow('handled');
    await call('caught').catch(() => {});
    await sleep(20);
    expect(seen.map((reason) => (reason as Error).message)).toEqual(['left alone']);
    expect(monitor.getStats('call')).toMatchObject({ count: 3, errors: 3 });
  });

  test('of undefined, and what is thrown at once, are passed on as they are', async () => {
    const { call, monitor } = decorated(async () => Promise.reject(undefined));
    await expect(call()).rejects.toBe(undefined);
    const thrown = decorated(() => {
      throw 'a string';
    });
    expect(() => thrown.call()).toThrow('a string');
    expect([monitor, thrown.monitor].map((each) => each.getStats('call')!.errors)).toEqual([1, 1]);
  });
});

test('a method keeps its name, its length and what others have put on it', () => {
  const method = Object.assign(function original(_a: number, _b: number) {}, { route: '/path' });
  const { call } = decorated(method);
  expect([call.name, call.length, call.route]).toEqual(['original', 2, '/path']);
});

test('a batchSize that cannot be used fails no call', async () => {
  for (const batchSize of [() => { throw new Error('on purpose'); }, () => -1, () => NaN, () => undefined as never]) {
    const { call, monitor } = decorated(async (text: string) => text, { batchSize });
    expect(await call('text')).toBe('text');
    expect(monitor.getStats('call')).toMatchObject({ count: 1, items: 1, errors: 0 });
    expect(monitor.getSummary().errors[0]!.message).toMatch(/batchSize/);
  }
});

test('objects that do not want to be looked at, and long names', () => {
  const monitor = new PerformanceMonitor();
  const decorate = monitored({ monitor }) as unknown as (method: () => number, context: object) => () => number;
  const self = new Proxy({}, { getOwnPropertyDescriptor: () => { throw new Error('no'); }, getPrototypeOf: () => { throw new Error('no'); } });
  expect(decorate(() => 5, { kind: 'method', name: 'call' }).call(self)).toBe(5);
  expect(decorate(() => 6, { kind: 'method', name: 'n'.repeat(1000) }).call({})).toBe(6);
  expect(decorate(() => 7, { kind: 'method', name: '' }).call({})).toBe(7);
  expect(monitor.getSummary().totals.count).toBe(3);
});

test('names that are none are refused when the class is made', async () => {
  for (const name of ['', 'x'.repeat(257)]) expect((await failure(() => monitored(name))).code).toBe('INVALID_ARGUMENT');
});

describe('a clock that goes back, or stands, or jumps', () => {
  test.each([0, NaN, -1e9, 1e300, Infinity])('to %s', async (now) => {
    const seen = unhandled();
    const monitor = new PerformanceMonitor();
    const turn = () => void vi.spyOn(performance, 'now').mockReturnValue(now);
    onTestFinished(() => void vi.restoreAllMocks());
    const work = async () => (turn(), 'answer');
    expect(await monitor.measure('measured', work)).toBe('answer');
    vi.restoreAllMocks();
    const { call, monitor: other } = decorated(work);
    expect(await call()).toBe('answer');
    vi.restoreAllMocks();
    const timer = monitor.startTimer('timed');
    turn();
    expect(timer.stop()).toBeGreaterThanOrEqual(0);
    monitor.record('recorded', 5);
    monitor.startCycle('cycle');
    expect(monitor.endCycle('cycle').duration).toBeGreaterThanOrEqual(0);
    vi.restoreAllMocks();
    for (const name of ['measured', 'timed', 'recorded']) expect(monitor.getStats(name)).toMatchObject({ count: 1, errors: 0 });
    expect(other.getStats('call')).toMatchObject({ count: 1, errors: 0 });
    await sleep(5);
    expect(seen).toEqual([]);
  });
});
