// Both caches against a few plain lines that do the same: random calls, most of them not awaited, and computations that end
// in any order. EMBEDCORE_MODEL_SECONDS: how long each looks for a difference (default 3, or 10 with EMBEDCORE_THOROUGH); EMBEDCORE_MODEL_SEED: from where.
import { InferenceCache, IntelligentEmbeddingCache, type CacheMatrix, type SimilarEntry } from 'embedcore';
import fc from 'fast-check';
import { expect, test } from 'vitest';

import { tried } from './property';
import { thorough } from './support';

const seconds = Number(process.env.EMBEDCORE_MODEL_SECONDS ?? (thorough ? 10 : 3));
const seed = process.env.EMBEDCORE_MODEL_SEED;
/** Looks for a sequence that fails; `examples` are such that failed once. */
async function hold<Call>(call: fc.Arbitrary<Call>, examples: Call[][], run: (calls: Call[]) => Promise<void>): Promise<void> {
  const found = await fc.check(fc.asyncProperty(fc.array(call, { maxLength: 60, size: 'max' }), run), {
    numRuns: 1e9, interruptAfterTimeLimit: seconds * 1000, examples: examples.map((one) => [one]), ...(seed !== undefined && { seed: Number(seed) }),
  });
  tried(found);
}

/** What came of a call, in a form that can be compared. */
type Outcome = unknown;

/** A computation that the test ends. */
class Computation {
  overtaken = false;
  ended = false;
  readonly outcome: Promise<Outcome>;
  /** Those who wait for it. */
  readonly calls: Promise<void>[] = [];
  #settle!: (outcome: Outcome) => void;
  #end!: { resolve(value: never): void; reject(error: Error): void };
  readonly #made: Promise<never>;

  /** `about`: what else it says of its value. */
  constructor(readonly key: string, readonly name: string, readonly about: Record<string, unknown>) {
    this.outcome = new Promise((resolve) => (this.#settle = resolve));
    this.#made = new Promise((resolve, reject) => (this.#end = { resolve, reject }));
    this.#made.catch(() => {});
  }

  readonly compute = (): Promise<never> => this.#made;

  async end(value: unknown, outcome: Outcome): Promise<void> {
    this.ended = true;
    this.#settle(outcome);
    if (value instanceof Error) this.#end.reject(value);
    else this.#end.resolve(value as never);
    await Promise.allSettled(this.calls);
  }
}

/** Computations under way, as both caches should have them. */
class Aloft {
  readonly all: Computation[] = [];

  /** The one that is under way for a name, or a new one. */
  join(key: string, name: string, about: Record<string, unknown>): { flight: Computation; waits: boolean } {
    const joined = this.all.find((one) => one.key === key && one.name === name && !one.ended && !one.overtaken);
    if (joined) return { flight: joined, waits: true };
    const flight = new Computation(key, name, about);
    this.all.push(flight);
    return { flight, waits: false };
  }

  overtake(which: (one: Computation) => boolean): void {
    for (const one of this.all) if (which(one)) one.overtaken = true;
  }
}

/** Calls and what they should come to; each is compared when all are over. */
class Trial {
  readonly #calls: Promise<void>[] = [];
  readonly #quick: Promise<void>[] = [];

  call(name: string, made: Promise<unknown>, expected: Outcome | Promise<Outcome>, seen: (answer: never) => Outcome = (answer) => answer): Promise<void> {
    const got = made.then((answer) => seen(answer as never), (error: { code?: string; message: string }) => ({ failed: error.code ?? error.message }));
    const compared = Promise.all([got, expected]).then(([a, b]) => expect(a, name).toEqual(b));
    compared.catch(() => {});
    this.#calls.push(compared);
    if (!(expected instanceof Promise)) this.#quick.push(compared);
    return compared;
  }

  /** Waits for the calls that wait for no computation. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#quick.splice(0));
  }

  async over(): Promise<void> {
    await Promise.all(this.#calls);
  }
}

const KEYS = ['a', 'b', 'c', '\ud800', '\udfff'];
const CONTENTS = ['x', 'y\ud800', 'y\udfff'];
const VECTORS = [[1, 0], [0, 1], [1, 1], [-1, 0], [1e30, 1e30], [1e-45, 0], [3, 4]];
const BAD = [[1, 2, 3], [1, NaN], []];

const key = fc.constantFrom(...KEYS);
const content = fc.constantFrom(...CONTENTS);
const vector = fc.constantFrom(...VECTORS);
const entry = fc.record({ key, content, vector: fc.oneof({ weight: 12, arbitrary: vector }, { weight: 1, arbitrary: fc.constantFrom(...BAD) }) });
const embeddingCall = fc.oneof(
  { weight: 4, arbitrary: fc.record({ call: fc.constant('get' as const), key, content }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('has' as const), key, content }) },
  { weight: 4, arbitrary: fc.record({ call: fc.constant('set' as const), entry, metadata: fc.option(fc.constantFrom('m', { n: [1] }), { nil: undefined }) }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('delete' as const), key }) },
  { weight: 1, arbitrary: fc.record({ call: fc.constant('clear' as const) }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('getMany' as const), lookups: fc.array(fc.record({ key, content }), { maxLength: 4 }) }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('setMany' as const), entries: fc.array(entry, { maxLength: 4 }) }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('findSimilar' as const), vector, limit: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 4, arbitrary: fc.record({ call: fc.constant('getOrCompute' as const), key, content }) },
  { weight: 4, arbitrary: fc.record({ call: fc.constant('end' as const), which: fc.nat(), made: fc.oneof(vector, fc.constantFrom(...BAD, new Error('no'))) }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('wait' as const) }) },
);
type EmbeddingCall = typeof embeddingCall extends fc.Arbitrary<infer T> ? T : never;

/** What an embedding cache without limits does, one call after the other. */
class EmbeddingModel {
  readonly entries = new Map<string, { content: string; vector: number[]; metadata?: unknown }>();
  readonly aloft = new Aloft();
  length: number | undefined;
  sets = 0;
  rejected = 0;
  requests = 0;
  hits = 0;

  get(key: string, content: string): Outcome {
    this.requests++;
    const found = this.entries.get(key);
    if (!found) return null;
    if (found.content !== content) return this.entries.delete(key), null;
    this.hits++;
    return answerOf(found);
  }

  /** Whether they were set: all, or none. `by`: a computation, which undoes none that began after it. */
  set(entries: { key: string; content: string; vector: number[]; metadata?: unknown }[], by?: Computation): boolean {
    const lengths = new Set(entries.map(({ vector }) => vector.length));
    if (entries.length === 0) return true;
    const good = entries.every(({ vector }) => vector.length > 0 && vector.every(Number.isFinite));
    if (!good || lengths.size > 1 || (this.length ?? entries[0]!.vector.length) !== entries[0]!.vector.length) return false;
    this.length = entries[0]!.vector.length;
    for (const { key, ...rest } of entries) {
      this.entries.set(key, rest);
      this.aloft.overtake((one) => one.key === key && (!by || this.aloft.all.indexOf(one) < this.aloft.all.indexOf(by)));
      this.sets++;
    }
    return true;
  }

  similar(query: number[], limit: number): Outcome {
    const bytes = (text: string) => (text.length > 0 && text >= '\ud800' ? 3 : 1);
    return [...this.entries]
      .filter(([, { vector }]) => vector.length === query.length)
      .map(([key, { vector }]) => ({ key, similarity: cosine(query, vector) }))
      .sort((a, b) => b.similarity - a.similarity || bytes(a.key) - bytes(b.key) || (a.key < b.key ? -1 : 1))
      .slice(0, limit);
  }
}

const answerOf = ({ vector, metadata }: { vector: number[]; metadata?: unknown }) => ({
  embedding: vector.map(Math.fround), ...(metadata !== undefined && { metadata }),
});

function cosine(a: number[], b: number[]): number {
  const dot = (x: number[], y: number[]) => x.reduce((sum, value, i) => sum + Math.fround(value) * Math.fround(y[i]!), 0);
  return Math.fround(dot(a, b) / Math.sqrt(dot(a, a)) / Math.sqrt(dot(b, b)));
}

async function embeddings(calls: EmbeddingCall[]): Promise<void> {
  const cache = new IntelligentEmbeddingCache();
  const model = new EmbeddingModel();
  const trial = new Trial();
  const refused = { failed: 'INVALID_ARGUMENT' };
  // A lookup that drops what was made from another content does so when it is its turn, which other lookups do not wait for.
  const settle = async (lookups: readonly { key: string; content: string }[]) => {
    const drops = lookups.some((one) => (model.entries.get(one.key)?.content ?? one.content) !== one.content);
    if (drops) await trial.settled();
  };
  try {
    for (const [at, call] of calls.entries()) {
      const name = `${at} ${call.call}`;
      if (call.call === 'get' || call.call === 'getOrCompute') await settle([call]);
      if (call.call === 'getMany') await settle(call.lookups);
      // Calls about different keys do not wait for each other: which vector is the first is sure only where none waits.
      if (model.length === undefined && ['set', 'setMany', 'end'].includes(call.call)) await trial.settled();
      switch (call.call) {
        case 'get':
          trial.call(name, cache.get(call.key, call.content), model.get(call.key, call.content));
          break;
        case 'has':
          trial.call(name, cache.has(call.key, call.content), model.entries.get(call.key)?.content === call.content);
          break;
        case 'set': {
          const given = { ...call.entry, metadata: call.metadata };
          const embedding = [...given.vector];
          trial.call(name, cache.set(given.key, given.content, embedding, { metadata: given.metadata }), model.set([given]) ? undefined : refused);
          embedding.fill(7);
          break;
        }
        case 'delete': {
          const was = model.entries.delete(call.key);
          model.aloft.overtake((one) => one.key === call.key);
          trial.call(name, cache.delete(call.key), was);
          break;
        }
        case 'clear':
          model.entries.clear();
          model.length = undefined;
          model.aloft.overtake(() => true);
          trial.call(name, cache.clear(), undefined);
          break;
        case 'getMany': {
          const expected = call.lookups.map((lookup) => (model.get(lookup.key, lookup.content) as { embedding: number[] } | null)?.embedding ?? null);
          const lookups = call.lookups.map((lookup) => ({ ...lookup }));
          trial.call(name, cache.getMany(lookups), expected, (found: CacheMatrix) =>
            Array.from(found.hits, (hit, i) => (hit ? [...found.row(i)] : null)));
          lookups.forEach((lookup) => (lookup.key = 'changed'));
          break;
        }
        case 'setMany': {
          const entries = call.entries.map(({ vector, ...rest }) => ({ ...rest, embedding: [...vector] }));
          trial.call(name, cache.setMany(entries), model.set(call.entries) ? undefined : refused);
          entries.forEach((one) => one.embedding.fill(7));
          break;
        }
        case 'findSimilar':
          trial.call(name, cache.findSimilar(call.vector, { limit: call.limit }), model.similar(call.vector, call.limit), (all: SimilarEntry[]) =>
            all.map(({ key, similarity }) => ({ key, similarity })));
          break;
        case 'getOrCompute': {
          const found = model.get(call.key, call.content);
          if (found) {
            trial.call(name, cache.getOrCompute(call.key, call.content, () => expect.fail('it is there')), found);
            break;
          }
          const { flight } = model.aloft.join(call.key, call.content, {});
          flight.calls.push(trial.call(name, cache.getOrCompute(call.key, call.content, flight.compute), flight.outcome));
          break;
        }
        case 'end': {
          const under = model.aloft.all.filter((one) => !one.ended);
          if (under.length === 0) break;
          const flight = under[call.which % under.length]!;
          const { made } = call;
          const usable = !(made instanceof Error) && made.length > 0 && made.every(Number.isFinite);
          const outcome = usable ? answerOf({ vector: made }) : { failed: made instanceof Error ? made.message : 'INVALID_ARGUMENT' };
          if (usable && !flight.overtaken) {
            const landing = [{ key: flight.key, content: flight.name, vector: made }];
            if (!model.set(landing, flight)) model.rejected++;
          }
          await flight.end(made, outcome);
          break;
        }
        case 'wait':
          await new Promise(setImmediate);
      }
    }
    for (const one of model.aloft.all) if (!one.ended) await one.end(new Error('over'), { failed: 'over' });
    await trial.over();
    const { sets, rejected, totalRequests, hits, currentEntries } = cache.getStats();
    expect({ sets, rejected, totalRequests, hits, currentEntries }).toEqual({
      sets: model.sets, rejected: model.rejected, totalRequests: model.requests, hits: model.hits, currentEntries: model.entries.size,
    });
  } finally {
    await cache.close();
  }
}

test('embeddings', { timeout: (seconds + 60) * 1000 }, async () => {
  await hold<EmbeddingCall>(embeddingCall, [
    [
      { call: 'set', entry: { key: 'a', content: 'x', vector: [1, 0] }, metadata: undefined },
      { call: 'findSimilar', vector: [1, 0], limit: 6 },
      { call: 'getOrCompute', key: 'a', content: 'y\ud800' },
    ],
  ], embeddings);
});

const NAMES = ['a', 'b\ud800', 'b\udfff', 'c'];
const TYPES = ['text_inference', 'api'];
const TAGS = ['red', 'blue'];
const VALUES = [1, 'text', { deep: [-0, null] }, [1, 2], Buffer.from('bytes'), Uint8Array.of(1)];
const UNFIT = ['x'.repeat(3000), () => 1];

const asked = fc.record({ content: fc.constantFrom(...NAMES), type: fc.constantFrom(...TYPES) });
const value = fc.oneof({ weight: 12, arbitrary: fc.constantFrom<unknown>(...VALUES) }, { weight: 1, arbitrary: fc.constantFrom<unknown>(...UNFIT) });
const setting = fc.record({ tags: fc.subarray(TAGS), metadata: fc.option(fc.constantFrom('m', { n: [-0] }), { nil: undefined }) });
const result = fc.record({ asked, value, setting });
const resultCall = fc.oneof(
  { weight: 4, arbitrary: fc.record({ call: fc.constant('get' as const), asked }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('has' as const), asked }) },
  { weight: 4, arbitrary: fc.record({ call: fc.constant('set' as const), result }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('delete' as const), asked }) },
  { weight: 1, arbitrary: fc.record({ call: fc.constant('clear' as const) }) },
  { weight: 1, arbitrary: fc.record({ call: fc.constant('clearExpired' as const) }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('invalidate' as const), type: fc.option(fc.constantFrom(...TYPES), { nil: undefined }), tags: fc.subarray(TAGS) }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('getMany' as const), lookups: fc.array(asked, { maxLength: 4 }) }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('setMany' as const), results: fc.array(result, { maxLength: 4 }) }) },
  { weight: 4, arbitrary: fc.record({ call: fc.constant('getOrCompute' as const), asked, setting }) },
  { weight: 4, arbitrary: fc.record({ call: fc.constant('end' as const), which: fc.nat(), made: fc.oneof(value, fc.constant(new Error('no'))) }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('wait' as const) }) },
);
type ResultCall = typeof resultCall extends fc.Arbitrary<infer T> ? T : never;
interface Kept { type: string; value: unknown; tags: string[]; metadata?: unknown }

/** What a result cache without limits but that of values does, one call after the other. */
class ResultModel {
  readonly kept = new Map<string, Kept>();
  readonly aloft = new Aloft();
  sets = 0;
  rejected = 0;
  requests = 0;
  hits = 0;

  get(key: string): Kept | null {
    this.requests++;
    const found = this.kept.get(key) ?? null;
    if (found) this.hits++;
    return found;
  }

  set(all: { key: string; kept: Kept }[], by?: Computation): boolean {
    if (all.some(({ kept }) => UNFIT.includes(kept.value as never))) return false;
    for (const { key, kept } of all) {
      this.kept.set(key, kept);
      this.aloft.overtake((one) => one.key === key && one !== by);
      this.sets++;
    }
    return true;
  }

  invalidate(which: (kept: { type: string; tags: string[] }) => boolean): number {
    const gone = [...this.kept].filter(([, kept]) => which(kept)).map(([key]) => this.kept.delete(key));
    this.aloft.overtake((one) => which(one.about as never));
    return gone.length;
  }
}

async function results(calls: ResultCall[]): Promise<void> {
  const cache = new InferenceCache({ maxValueMB: 2000 / 2 ** 20 });
  const model = new ResultModel();
  const trial = new Trial();
  const refused = { failed: 'INVALID_ARGUMENT' };
  const keyOf = ({ content, type }: { content: string; type: string }) => `${type} ${content}`;
  const keptOf = ({ asked, value, setting }: { asked: { type: string }; value: unknown; setting: { tags: string[]; metadata?: unknown } }): Kept => ({
    type: asked.type, value, tags: setting.tags, ...(setting.metadata !== undefined && { metadata: setting.metadata }),
  });
  const withoutTimes = (found: { createdAt: number; expiresAt: number | null } | null) => {
    if (!found) return null;
    const { createdAt: _, expiresAt: __, ...rest } = found;
    return rest;
  };
  const copy = (value: unknown) => (Buffer.isBuffer(value) ? Buffer.from(value) : typeof value === 'object' ? structuredClone(value) : value);
  const givenOf = ({ tags, metadata }: { tags: string[]; metadata?: unknown }) => ({ tags: [...tags], ...(metadata !== undefined && { metadata }) });
  try {
    for (const [at, call] of calls.entries()) {
      const name = `${at} ${call.call}`;
      switch (call.call) {
        case 'get':
          trial.call(name, cache.get(call.asked.content, { type: call.asked.type }), model.get(keyOf(call.asked)), withoutTimes);
          break;
        case 'has':
          trial.call(name, cache.has(call.asked.content, { type: call.asked.type }), model.kept.has(keyOf(call.asked)));
          break;
        case 'set': {
          const { asked, value, setting } = call.result;
          const expected = model.set([{ key: keyOf(asked), kept: keptOf(call.result) }]) ? undefined : refused;
          trial.call(name, cache.set(asked.content, value, { type: asked.type, ...givenOf(setting) }), expected);
          break;
        }
        case 'delete': {
          const was = model.kept.delete(keyOf(call.asked));
          model.aloft.overtake((one) => one.key === keyOf(call.asked));
          trial.call(name, cache.delete(call.asked.content, { type: call.asked.type }), was);
          break;
        }
        case 'clear':
          trial.call(name, cache.clear(), model.invalidate(() => true));
          break;
        case 'clearExpired':
          trial.call(name, cache.clearExpired(), 0);
          break;
        case 'invalidate': {
          const { type, tags } = call;
          if (type === undefined && tags.length === 0) break;
          const covers = (kept: { type: string; tags: string[] }) =>
            (type === undefined || kept.type === type) && (tags.length === 0 || kept.tags.some((tag) => tags.includes(tag)));
          trial.call(name, cache.invalidate({ ...(type !== undefined && { type }), tags }), model.invalidate(covers));
          break;
        }
        case 'getMany': {
          const expected = call.lookups.map((one) => model.get(keyOf(one)));
          trial.call(name, cache.getMany(call.lookups), expected, (all: never[]) => all.map(withoutTimes));
          break;
        }
        case 'setMany': {
          const expected = model.set(call.results.map((one) => ({ key: keyOf(one.asked), kept: keptOf(one) }))) ? undefined : refused;
          const entries = call.results.map(({ asked, value, setting }) => ({ ...asked, value: copy(value), ...givenOf(setting) }));
          trial.call(name, cache.setMany(entries), expected);
          entries.forEach((one) => ((one.value = 'changed'), (one.content = 'changed'), (one.tags.length = 0)));
          break;
        }
        case 'getOrCompute': {
          const key = keyOf(call.asked);
          const { content, type } = call.asked;
          const found = model.get(key);
          if (found) {
            const { tags: _, type: __, ...rest } = found;
            trial.call(name, cache.getOrCompute(content, { type }, () => expect.fail('it is there')), { ...rest, fromCache: true });
            break;
          }
          const { flight, waits } = model.aloft.join(key, content, { type, ...call.setting });
          const expected = flight.outcome.then((outcome) => ('failed' in (outcome as object) ? outcome : { ...(outcome as object), fromCache: waits }));
          flight.calls.push(trial.call(name, cache.getOrCompute(content, { type, ...givenOf(call.setting) }, flight.compute), expected));
          break;
        }
        case 'end': {
          const under = model.aloft.all.filter((one) => !one.ended);
          if (under.length === 0) break;
          const flight = under[call.which % under.length]!;
          const { made } = call;
          const { type, tags, metadata } = flight.about as unknown as Kept;
          const usable = !(made instanceof Error) && typeof made !== 'function';
          const about = metadata !== undefined && { metadata };
          const outcome = usable ? { value: made, ...about } : { failed: made instanceof Error ? made.message : 'INVALID_ARGUMENT' };
          if (usable && !flight.overtaken && !model.set([{ key: flight.key, kept: { type, value: made, tags, ...about } }], flight)) model.rejected++;
          await flight.end(made, outcome);
          break;
        }
        case 'wait':
          await new Promise(setImmediate);
      }
    }
    for (const one of model.aloft.all) if (!one.ended) await one.end(new Error('over'), { failed: 'over' });
    await trial.over();
    const { sets, rejected, totalRequests, hits, currentEntries } = cache.getStats();
    expect({ sets, rejected, totalRequests, hits, currentEntries }).toEqual({
      sets: model.sets, rejected: model.rejected, totalRequests: model.requests, hits: model.hits, currentEntries: model.kept.size,
    });
  } finally {
    await cache.close();
  }
}

test('results', { timeout: (seconds + 60) * 1000 }, async () => {
  await hold<ResultCall>(resultCall, [], results);
});
