// Caches on one file, of one process and of several, against what their histories allow: random calls, most of them not
// awaited, restarts, ends without warning, and damage. EMBEDCORE_MODEL_SECONDS: how long each looks for a difference (default
// 3, or 10 where EMBEDCORE_THOROUGH is set); EMBEDCORE_MODEL_SEED: from where.
import { fork, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';

import { History, Instance } from './history';
import { tried } from './property';
import { root } from './support';

const seconds = Number(process.env.EMBEDCORE_MODEL_SECONDS ?? (process.env.EMBEDCORE_THOROUGH ? 10 : 3));
const seed = process.env.EMBEDCORE_MODEL_SEED;
/** Sequences that run at the same time: they wait most of their time. */
const LANES = 6;
const HANGS_MS = 30_000;

const program = join(root, '__test__', 'programs', 'cache-actor.cjs');
type Outcome = { answer?: unknown; failed?: string; why?: string; errors?: number };
type Perform = (call: object) => Promise<Outcome>;
const { actor } = createRequire(import.meta.url)(program) as { actor(): Perform };

/** A process that makes calls, and is started again where it has ended. */
class Elsewhere {
  #child: ChildProcess | undefined;
  #number = 0;
  readonly #waiting = new Map<number, (outcome: Outcome) => void>();

  readonly perform: Perform = (call) =>
    new Promise((resolve) => {
      this.#waiting.set(++this.#number, resolve);
      this.#started().send({ number: this.#number, call });
    });

  #started(): ChildProcess {
    if (this.#child) return this.#child;
    const child = (this.#child = fork(program, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }));
    child.on('message', ({ number, outcome }: { number: number; outcome: Outcome }) => {
      this.#waiting.get(number)?.(outcome);
      this.#waiting.delete(number);
    });
    return child;
  }

  /** Ends it, in its own way or without asking. What it has not answered it never will. */
  async end(how: 'exit' | 'kill'): Promise<void> {
    const child = this.#child;
    if (!child) return;
    this.#child = undefined;
    const ended = new Promise<[number | null, string | null]>((resolve) => child.once('close', (...how) => resolve(how)));
    if (how === 'exit') child.send({ number: 0, call: { call: 'exit' } });
    else child.kill('SIGKILL');
    expect(await ended).toEqual(how === 'exit' ? [0, null] : [null, 'SIGKILL']);
    for (const gone of this.#waiting.values()) gone({ failed: 'gone' });
    this.#waiting.clear();
  }
}

const KEYS = ['a', 'b', 'c', 'd'];
const CONTENTS = ['x', 'y'];
/** What a result is of depends on its key, so that it is known what an invalidation covers. */
const TYPES = { a: 'api', b: 'api', c: 'text_inference', d: 'text_inference' } as Record<string, string>;
const TAGS = { a: ['red'], b: ['red', 'blue'], c: ['blue'], d: [] } as Record<string, string[]>;

const key = fc.constantFrom(...KEYS);
const content = fc.oneof({ weight: 6, arbitrary: fc.constant('x') }, { weight: 1, arbitrary: fc.constantFrom(...CONTENTS) });
const which = fc.nat({ max: 2 });
const named = fc.record({ key, content });
const some = fc.array(named, { maxLength: 4 });
const call = <Name extends string, More extends object>(weight: number, name: Name, more: fc.Arbitrary<More>) => ({
  weight, arbitrary: fc.tuple(which, more).map(([at, rest]) => ({ at, call: name, ...rest })),
});
const nothing = fc.constant({});
const common = [
  call(5, 'get', named),
  call(2, 'has', named),
  call(5, 'set', named),
  call(2, 'getMany', fc.record({ lookups: some })),
  call(2, 'setMany', fc.record({ entries: some })),
  call(2, 'delete', fc.record({ key })),
  call(1, 'clear', nothing),
  call(3, 'getOrCompute', fc.record({ key, content, ms: fc.constantFrom(0, 3) })),
  call(1, 'optimize', nothing),
  call(3, 'flush', nothing),
  call(4, 'wait', fc.record({ ms: fc.constantFrom(0, 0, 20, 260) })),
  call(2, 'settle', nothing),
  call(2, 'restart', fc.record({ how: fc.constantFrom('close', 'exit', 'kill' as const) })),
];
const damage = fc.oneof(
  fc.record({ kind: fc.constant('flip' as const), places: fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 20 }) }),
  fc.record({ kind: fc.constant('truncate' as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
  fc.record({ kind: fc.constant('text' as const), lines: fc.constantFrom(1, 3000) }),
);
const harm = { weight: 1, arbitrary: fc.tuple(which, damage).map(([at, how]) => ({ at, call: 'damage' as const, how })) };
const embeddingCall = fc.oneof(...common, call(2, 'findSimilar', nothing), harm);
const resultCall = fc.oneof(
  ...common,
  call(2, 'invalidate', fc.oneof(fc.record({ type: fc.constantFrom('api', 'text_inference') }), fc.record({ tag: fc.constantFrom('red', 'blue') }))),
  call(1, 'clearExpired', nothing),
  harm,
);
type Call = { at: number; call: string } & Partial<{
  key: string; content: string; ms: number; lookups: { key: string; content: string }[]; entries: { key: string; content: string }[];
  how: 'close' | 'exit' | 'kill' | (typeof damage extends fc.Arbitrary<infer T> ? T : never); type: string; tag: string;
}>;

interface Cast {
  of: 'embeddings' | 'results';
  /** Performs the calls of the second cache. */
  other: Elsewhere | undefined;
  options: { maxEntries?: number };
}

/** Three caches on a file: two of one namespace, in one process or in two, and one of another. */
async function trial({ of, other, options }: Cast, calls: readonly Call[]): Promise<void> {
  const place = mkdtempSync(join(tmpdir(), 'embedcore-model-'));
  const persistPath = join(place, 'cache.db');
  const namespaces = ['', '', 'another'];
  const performs: Perform[] = [actor(), other?.perform ?? actor(), actor()];
  const instances: Instance[] = [];
  const running: Promise<void>[] = [];
  let history = new History();
  let text: Buffer | undefined;
  let ids = 0;
  const keyOf = (at: number, key: string) => `${namespaces[at]!} ${key}`;
  const settle = async () => {
    const late = sleep(HANGS_MS, 'hangs', { ref: false });
    expect(await Promise.race([Promise.all(running.splice(0)).then(() => 'done'), late])).toBe('done');
  };
  const make = (call: Call): Promise<void> => {
    const { at } = call;
    const [perform, instance, before] = [performs[at]!, instances[at]!, history];
    const order = instance.calls++;
    const from = performance.now();
    // What is known of a write when its call is over.
    const writes = (keys: readonly string[], made: (key: string) => [number | null, string], computed = false) =>
      keys.map((key) => history.write(instance, order, keyOf(at, key), ...made(key), from, computed));
    const fill = (one: { key: string; content: string }) =>
      ({ ...one, ...(of === 'results' && { content: 'x' }), id: ++ids, type: TYPES[one.key], tags: TAGS[one.key] });
    const entries = (call.entries ?? (call.call === 'set' ? [call as { key: string; content: string }] : [])).map(fill);
    const lookups = call.lookups?.map(fill);
    const filled = call.key === undefined ? call : fill(call as { key: string; content: string });
    const gone = call.call === 'delete' ? [call.key!]
      : call.call === 'clear' ? KEYS
      : call.call === 'invalidate' ? KEYS.filter((key) => TYPES[key] === call.type || TAGS[key]!.includes(call.tag!))
      : [];
    const written = [
      ...entries.flatMap((one) => writes([one.key], () => [one.id, one.content])),
      ...writes(gone, () => [null, '']),
      ...(call.call === 'getOrCompute' ? writes([call.key!], () => [(filled as { id: number }).id, (filled as { content: string }).content], true) : []),
    ];
    const sent = { ...call, ...filled, at: undefined, call: call.call, ...(entries.length > 0 && { entries }), ...(lookups && { lookups }) };
    const asked = lookups ?? (['get', 'getOrCompute'].includes(call.call) ? [filled as { key: string; content: string }] : []);
    for (const one of asked) history.forget(keyOf(at, one.key), one.content, instance);
    const { errors } = instance;
    const checked = async () => {
      const { answer, failed, why, errors: now = errors } = await perform(sent);
      const to = performance.now();
      instance.errors = Math.max(instance.errors, now);
      // Who opens a file on a busy machine may hold it for long: then a lookup goes on without it, as a miss that is told.
      const without = history.lossy || now > errors;
      // Another file has come meanwhile, or another process.
      if (before !== history || failed === 'gone') return;
      const tells = ['flush', 'delete', 'clear', 'invalidate', 'clearExpired'].includes(call.call);
      if (failed !== undefined) {
        // On a disk that stands still, the others hold the file for as long as that takes.
        expect(tells && (history.lossy || to - from > 7900) ? failed : why, `${call.call} failed`).toBe('CACHE_STORAGE_FAILED');
        return;
      }
      const looked = (id: unknown, key: string, content: string, of = order) => {
        const allowed = history.allows(id as number | null, keyOf(at, key), content, instance, of, from, to);
        const possible = () => history.possible(keyOf(at, key), instance, of, from, to, 'instance').map(({ id, content }) => `${String(id)}(${content})`);
        if (!allowed && !(id === null && without)) expect.fail(`${call.call} of ${key}(${content}) by ${at} gave ${String(id)}, not one of ${possible().join()}`);
        if (call.call !== 'has') history.forget(keyOf(at, key), content, instance);
      };
      switch (call.call) {
        case 'get':
          looked(answer, call.key!, (filled as { content: string }).content);
          break;
        case 'has': {
          const content = (filled as { content: string }).content;
          const possible = history.possible(keyOf(at, call.key!), instance, order, from, to, 'instance');
          const may = possible.some(({ id, content: of }) => (id !== null && of === content) === answer) || (!answer && (without || possible.some((one) => instance.forgotten.has(one))));
          if (!may) expect.fail(`has of ${call.key!} by ${at} gave ${String(answer)}`);
          break;
        }
        case 'getMany':
          lookups!.forEach((one, i) => looked((answer as unknown[])[i], one.key, one.content));
          break;
        case 'findSimilar': {
          const found = new Map((answer as { key: string; id: number }[]).map(({ key, id }) => [key, id]));
          for (const key of KEYS) {
            const possible = history.possible(keyOf(at, key), instance, order, from, to, 'instance');
            const id = found.get(key) ?? null;
            const may = possible.some((one) => one.id === id || (id === null && instance.forgotten.has(one))) || (id === null && without);
            if (!may) expect.fail(`findSimilar by ${at} gave ${String(id)} for ${key}, not one of ${possible.map((one) => one.id).join()}`);
          }
          break;
        }
        case 'getOrCompute': {
          const { id, content } = filled as { id: number; content: string };
          // While it waits for its turn to compute, what is set by hand answers it, too.
          looked(answer === id ? null : answer, call.key!, content, Infinity);
          if (answer !== id) break;
          // Unless something newer came in between, it is kept.
          const newer = history.of(keyOf(at, call.key!)).some((one) => one.by === instance && one.order > order && one.begun <= to);
          written[0]!.computed = to;
          if (!newer) written[0]!.own = to;
          history.seen(written[0]!, instance, to);
          break;
        }
        case 'delete':
        case 'invalidate':
        case 'clear': {
          const [least, most] = history.count(gone.map((key) => keyOf(at, key)), instance, order, from, to);
          const count = Number(answer ?? least);
          if (text === undefined && !(least <= count && count <= most)) {
            const forgotten = gone.some((key) => history.of(keyOf(at, key)).some((one) => instance.forgotten.has(one)));
            if (!(forgotten && count <= most)) expect.fail(`${call.call} by ${at} gave ${count}, not ${least} to ${most}`);
          }
          if (text === undefined) for (const one of written) one.landed = one.settled = to;
          break;
        }
        case 'clearExpired':
          expect(answer).toBe(0);
          break;
        case 'flush':
        case 'close':
          if (text === undefined) history.landed(instance, order, from, to);
          break;
      }
    };
    const made = checked();
    made.catch(() => {});
    running.push(made);
    return made;
  };
  const open = async (at: number): Promise<void> => {
    instances[at] = new Instance(performance.now());
    const opened = await performs[at]!({ call: 'open', of, options: { ...options, persistPath, ...(namespaces[at] && { namespace: namespaces[at] }) } });
    expect(opened.failed, opened.why).toBeUndefined();
  };
  const end = async (at: number, how: 'close' | 'exit' | 'kill'): Promise<void> => {
    const elsewhere = at === 1 && other !== undefined;
    if (elsewhere && how === 'exit') await make({ at, call: 'flush' });
    if (elsewhere && how !== 'close') await other.end(how);
    else await make({ at, call: 'close' });
    history.ended(instances[at]!, performance.now());
  };
  try {
    for (const at of namespaces.keys()) await open(at);
    for (const one of calls) {
      switch (one.call) {
        case 'wait':
          await sleep(one.ms);
          break;
        case 'settle':
          await settle();
          break;
        case 'restart':
          await end(one.at, one.how as 'close');
          await open(one.at);
          break;
        case 'damage': {
          await settle();
          for (const at of namespaces.keys()) await end(at, 'close');
          await settle();
          if (text) {
            expect(readFileSync(persistPath).equals(text), 'a text file is left as it is').toBe(true);
            for (const suffix of ['', '-wal', '-shm', '-lock']) rmSync(persistPath + suffix, { force: true });
            text = undefined;
            history = new History();
          } else {
            history.lossy = true;
            const how = one.how as Exclude<Call['how'], string | undefined>;
            if (how.kind === 'text') {
              text = Buffer.from('what somebody else has written\n'.repeat(how.lines));
              for (const suffix of ['-wal', '-shm']) rmSync(persistPath + suffix, { force: true });
              writeFileSync(persistPath, text);
              history = new History();
              history.lossy = true;
            } else if (how.kind === 'truncate') {
              truncateSync(persistPath, Math.floor(statSync(persistPath).size * how.share));
            } else {
              const bytes = readFileSync(persistPath);
              for (const [share, by] of how.places) {
                const place = Math.min(bytes.length - 1, Math.floor(bytes.length * share));
                if (place >= 0) bytes[place] = bytes[place]! ^ by;
              }
              writeFileSync(persistPath, bytes);
            }
          }
          for (const at of namespaces.keys()) await open(at);
          break;
        }
        default:
          void make(one);
      }
    }
    await settle();
    for (const at of namespaces.keys()) await end(at, 'close');
    await settle();
    if (text) expect(readFileSync(persistPath).equals(text), 'a text file is left as it is').toBe(true);
  } catch (thrown) {
    await Promise.allSettled(running);
    if (other) await other.end('kill');
    await Promise.allSettled([0, 1, 2].map((at) => (at === 1 && other ? undefined : performs[at]!({ call: 'close' }))));
    throw thrown;
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
}

const children: Elsewhere[] = [];
afterAll(() => Promise.all(children.map((child) => child.end('kill'))));

/** Looks for a sequence that fails, in some lanes at once; `examples` are such that failed once. */
async function hold(of: Cast['of'], processes: boolean, examples: Call[][] = []): Promise<void> {
  const some = fc.array((of === 'results' ? resultCall : embeddingCall) as unknown as fc.Arbitrary<Call>, { maxLength: 50, size: 'max' });
  const first = seed === undefined ? Math.floor(Math.random() * 2 ** 30) : Number(seed);
  const lanes = Array.from({ length: LANES }, async (_, lane) => {
    const other = processes ? new Elsewhere() : undefined;
    if (other) children.push(other);
    const property = fc.asyncProperty(fc.record({ maxEntries: fc.constantFrom(2, 1000) }), some, (options, calls) => trial({ of, other, options }, calls));
    const found = await fc.check(property, {
      numRuns: 1e9, seed: first + lane, interruptAfterTimeLimit: seconds * 1000,
      examples: examples.filter((_, at) => at % LANES === lane).map((one) => [{ maxEntries: 1000 }, one]),
    });
    return tried(found);
  });
  const ran = (await Promise.all(lanes)).reduce((sum, runs) => sum + runs, 0);
  if (process.env.EMBEDCORE_MODEL_SECONDS !== undefined) console.info(`${of}, ${processes ? 'two processes' : 'one process'}: ${ran} sequences`);
}

const timeout = (seconds + 120) * 1000;
test('embeddings, two caches of one process on a file', { timeout }, () => hold('embeddings', false));
test('results, two caches of one process on a file', { timeout }, () => hold('results', false));
test('embeddings, two processes on a file', { timeout }, () => hold('embeddings', true));
test('results, two processes on a file', { timeout }, () => hold('results', true));
