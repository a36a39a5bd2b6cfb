// Random sequences of calls on one generator, none of them awaited, against what each of them may answer: EMBEDCORE_MODEL_SECONDS
// runs it for longer, EMBEDCORE_MODEL_SEED repeats a run.
import { setTimeout as sleep } from 'node:timers/promises';

import { EmbeddingError, OptimizedEmbeddingGenerator, type EmbeddingResult } from 'embedcore';
import fc from 'fast-check';
import { expect, test } from 'vitest';

import { tried } from './property';
import { cosine, model, ready, thorough } from './support';

const seconds = Number(process.env.EMBEDCORE_MODEL_SECONDS ?? (thorough ? 10 : 3));
const seed = process.env.EMBEDCORE_MODEL_SEED;

const MODELS = [model('bert-mean'), model('bert-cls')] as const;
const POOL = Array.from({ length: 12 }, (_, i) => `text ${i} ${'reads a file and parses it '.repeat((i * 5) % 7)}`);
/** No call takes this long. */
const HANGS_MS = 20_000;

/** An input: one of a few texts, or what is none. */
const input = fc.oneof({ weight: 9, arbitrary: fc.nat(POOL.length - 1) }, { weight: 1, arbitrary: fc.constantFrom('', null) });
const limits = fc.record(
  {
    abortMs: fc.constantFrom(0, 0, 1, 5),
    timeoutMs: fc.constantFrom(1, 3, 10_000),
    memoryLimit: fc.constantFrom(1, 64),
    batchSize: fc.constantFrom(1, 3),
    maxConcurrency: fc.constant(1),
    bypassCache: fc.boolean(),
    onError: fc.constantFrom('skip', 'throw'),
  },
  { requiredKeys: [] },
);
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constantFrom('embed', 'batchProcess', 'stream', 'slow stream'), inputs: fc.array(input, { maxLength: 30 }), limits, leave: fc.option(fc.nat(5), { freq: 4 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('initialize'), at: fc.option(fc.nat(1)), abort: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cleanup') }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('wait'), ms: fc.nat(8) }) },
);
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

/** What a result is: its vector, or the error in its place. */
type Result = ArrayLike<number> | EmbeddingError;

test('random sequences of calls', { timeout: (seconds + 120) * 1000 }, async () => {
  const alone = await Promise.all(MODELS.map(async (modelPath) => {
    const matrix = await (await ready({ modelPath, cache: false })).embed(POOL);
    return POOL.map((_, i) => matrix.row(i));
  }));
  const expectVector = (vector: ArrayLike<number>, which: unknown, models: number[]) => {
    const likeness = models.map((at) => cosine(vector, alone[at]![which as number]!));
    expect(Math.max(...likeness), `vector of text ${String(which)}`).toBeGreaterThan(0.99999);
  };

  /** Runs one call; gives when its results are what they may be. */
  async function checked(generator: OptimizedEmbeddingGenerator, { kind, inputs, limits: { abortMs, ...options }, leave }: Extract<Step, { inputs: unknown }>, known: () => number[] | undefined, mayClose: () => boolean): Promise<void> {
    const controller = new AbortController();
    if (abortMs === 0) controller.abort();
    const timer = abortMs ? setTimeout(() => controller.abort(), abortMs) : undefined;
    const given = inputs.map((which) => (typeof which === 'number' ? POOL[which]! : which)) as string[];
    const call = { ...options, ...(abortMs !== undefined && { signal: controller.signal }) };
    const bad = inputs.findIndex((which) => typeof which !== 'number');
    const results: Result[] = [];
    let error: EmbeddingError | undefined;
    let closes = 0;
    try {
      if (kind === 'embed') {
        const running = generator.embed(given, call);
        given.fill('changed');
        const matrix = await running;
        for (let i = 0; i < matrix.rows; i++) results.push(matrix.errors.get(i) ?? matrix.row(i));
      } else if (kind === 'batchProcess') {
        // Texts that are embedded as they are: annotations that have nothing but an id would be worded otherwise.
        // Where there is no text among them, nobody can tell that they were meant to be some.
        for (const row of (await generator.generateEmbeddings(given, call)) as (number[] | EmbeddingResult)[]) results.push('embedding' in row ? row.embedding : row);
      } else {
        const { memoryLimit: _, ...rest } = call;
        async function* slowly() {
          try {
            for (const each of given) {
              await sleep(1);
              yield each;
            }
          } finally {
            closes++;
          }
        }
        for await (const vector of generator.stream(kind === 'stream' ? given : slowly(), rest)) {
          results.push(vector);
          if (results.length === leave) break;
        }
      }
    } catch (thrown) {
      error = thrown as EmbeddingError;
      expect(error).toBeInstanceOf(EmbeddingError);
    } finally {
      clearTimeout(timer);
    }
    const streamed = kind.endsWith('stream');
    const left = streamed && leave !== null && results.length === leave;
    // All of them, or those before the error.
    if (!error && !left) expect(results.length).toBe(inputs.length);
    const models = known();
    results.forEach((result, i) => {
      const failed = result instanceof EmbeddingError || result.length === 0;
      if (failed && options.memoryLimit === undefined) expect(typeof inputs[i], 'only what is no text fails').not.toBe('number');
      if (!failed && models) expectVector(result, inputs[i], models);
    });
    // One stream, one call: one model.
    const vectors = results.flatMap((result, i) => (result instanceof EmbeddingError || result.length === 0 ? [] : [[result, inputs[i]] as const]));
    const one = MODELS.map((_, at) => at).filter((at) => vectors.every(([vector, which]) => cosine(vector, alone[at]![which as number]!) > 0.99999));
    if (vectors.length > 0) expect(one.length).toBeGreaterThan(0);
    if (error) {
      const allowed = [
        ...(abortMs !== undefined ? ['ABORTED'] : []),
        ...(options.timeoutMs !== undefined && options.timeoutMs < 1000 ? ['TIMED_OUT'] : []),
        ...(options.memoryLimit !== undefined ? ['MEMORY_LIMIT_EXCEEDED'] : []),
        ...(bad >= 0 && options.onError !== 'skip' ? ['INVALID_ARGUMENT'] : []),
        ...(mayClose() ? ['CLOSED', 'NOT_INITIALIZED'] : []),
      ];
      expect(allowed, error.message).toContain(error.code);
      if (streamed && error.code === 'INVALID_ARGUMENT') expect(results.length, 'what came before it is answered').toBe(bad);
    } else if (abortMs === 0) {
      expect(left, 'a call that was aborted before').toBe(true);
    }
    expect(closes).toBeLessThanOrEqual(1);
  }

  async function sequence(steps: Step[]): Promise<void> {
    const generator = new OptimizedEmbeddingGenerator({ modelPath: MODELS[0] });
    const running: Promise<void>[] = [];
    // What is known of the order: the model that calls have now, if any, and whether something closes it later.
    let current: number[] | undefined;
    let given = 0;
    let sure = true;
    const epochs: { closed: boolean }[] = [{ closed: false }];
    try {
      for (const each of steps) {
        if ('inputs' in each) {
          const [models, epoch, without] = [current, epochs.at(-1)!, current === undefined || !sure];
          running.push(checked(generator, each, () => models, () => without || epoch.closed));
        } else if (each.kind === 'initialize') {
          const { at, abort } = each as { at: number | null; abort: boolean };
          const epoch = epochs.at(-1)!;
          const options = abort ? { signal: AbortSignal.timeout(2) } : {};
          const loading = generator.initialize(at === null ? undefined : MODELS[at], options).then(
            () => {},
            (error: EmbeddingError) => expect([...(abort ? ['ABORTED'] : []), ...(epoch.closed ? ['CLOSED'] : [])]).toContain(error.code),
          );
          running.push(loading);
          if (at !== null) given = at;
          // Where it may be aborted, calls may have the model from before.
          current = abort ? MODELS.map((_, i) => i) : at === null && !sure ? MODELS.map((_, i) => i) : [at ?? given];
          sure = !abort;
        } else if (each.kind === 'cleanup') {
          epochs.at(-1)!.closed = true;
          epochs.push({ closed: false });
          running.push(generator.cleanup());
          current = undefined;
        } else await sleep((each as { ms: number }).ms);
      }
      epochs.at(-1)!.closed = false;
      const late = sleep(HANGS_MS, 'hangs', { ref: false });
      expect(await Promise.race([Promise.all(running).then(() => 'done'), late])).toBe('done');
      // Whatever happened, it is usable.
      await generator.initialize(MODELS[1]);
      expectVector((await generator.embed([POOL[3]!])).row(0), 3, [1]);
    } finally {
      await generator.cleanup();
      await Promise.allSettled(running);
    }
  }

  const property = fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25, size: 'max' }), sequence);
  tried(await fc.check(property, {
    numRuns: 1_000_000,
    interruptAfterTimeLimit: seconds * 1000,
    endOnFailure: false,
    ...(seed !== undefined && { seed: Number(seed) }),
  }));
});
