import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Queue } from 'bullmq';
import { EmbeddingError, IntelligentEmbeddingCache, PerformanceDashboard, PerformanceMonitor, prepareText, type Annotation } from 'embedcore';
import { EmbeddingQueue, EmbeddingWorker, type EmbeddingQueueOptions, type EmbeddingWorkerOptions, type QueueResult, type WorkerGenerator } from 'embedcore/queue';
import { describe, expect, onTestFinished, test } from 'vitest';

import { freePort, hasRedis, started } from './redis';
import { failure, ready } from './support';

const FINGERPRINT = 'ab'.repeat(32);

/** A vector that only depends on the text. */
const vectorOf = (text: string) => Array.from(createHash('sha256').update(text).digest().subarray(0, 8), (byte) => byte / 256);

const annotations = (count: number, from = 0): Annotation[] =>
  Array.from({ length: count }, (_, i) => ({ nodeId: `n${from + i}`, signature: `function f${from + i}()`, summary: `does the thing ${from + i}` }));

type Stub = WorkerGenerator & { computed: string[] };

/** A generator without a model, which notes what it computes. */
function stub({ ms = 0, fingerprint = FINGERPRINT, fail }: { ms?: number; fingerprint?: string; fail?: (nodeId: string) => Error | undefined } = {}): Stub {
  const computed: string[] = [];
  return {
    computed,
    isReady: () => true,
    initialize: async () => {},
    getModelInfo: () => ({ modelId: 'stub', fingerprint, dimensions: 8, maxLength: 512 }),
    batchProcess: async (given) => {
      await new Promise((resolve) => setTimeout(resolve, ms));
      return given.map((annotation) => {
        const { nodeId } = annotation;
        const inputText = prepareText(annotation, 512);
        const error = fail?.(nodeId) as EmbeddingError | undefined;
        computed.push(nodeId);
        const result = { nodeId, embedding: error ? [] : vectorOf(inputText), inputText, processingTime: 0, modelUsed: 'stub', tokenCount: 3, truncated: false, confidence: 1 };
        return error ? { ...result, error } : result;
      });
    },
  };
}

/** A tier that producers and workers of this test share. */
function sharedFile(): { persistPath: string } {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-queue-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return { persistPath: join(directory, 'vectors.sqlite') };
}

function queueOf(options: EmbeddingQueueOptions): EmbeddingQueue {
  const queue = new EmbeddingQueue({ monitor: false, ...options });
  onTestFinished(() => queue.close());
  return queue;
}

async function workerOf(options: EmbeddingWorkerOptions): Promise<EmbeddingWorker> {
  const worker = new EmbeddingWorker({ monitor: false, ...options });
  onTestFinished(() => worker.close());
  await worker.ready();
  return worker;
}

async function collected(results: AsyncIterable<QueueResult>): Promise<QueueResult[]> {
  const all: QueueResult[] = [];
  for await (const result of results) all.push(result);
  return all;
}

/** Each input is answered once, with its own vector. */
function expectAll(results: readonly QueueResult[], given: readonly Annotation[]): void {
  expect(results.map(({ index }) => index).sort((a, b) => a - b)).toEqual(given.map((_, index) => index));
  for (const { index, nodeId, embedding, inputText } of results) {
    expect(nodeId).toBe(given[index]!.nodeId);
    expect(inputText).toBe(prepareText(given[index]!, 512));
    expect(embedding).toEqual(vectorOf(inputText));
  }
}

test.runIf(!hasRedis)('the queue needs a redis-server, which is not installed: its tests are skipped', () => {});

describe.skipIf(!hasRedis)('a queue', () => {
  test('has every annotation answered once, by any number of workers, through the shared tier', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const queue = queueOf({ connection: server.url, cache });
    const generators = [stub({ ms: 5 }), stub({ ms: 5 }), stub({ ms: 5 })];
    for (const generator of generators) await workerOf({ connection: { host: '127.0.0.1', port: server.port }, cache, generator });
    const given = annotations(1000);
    const run = queue.addAnnotations(given, { chunkSize: 20 });
    expectAll(await collected(run), given);
    expect(await run.finished()).toMatchObject({ processed: 1000, total: 1000, read: 1000, failed: 0, fromCache: 0, pendingChunks: 0, modelUsed: 'stub', fingerprint: FINGERPRINT });
    expect(generators.flatMap(({ computed }) => computed).sort()).toEqual(given.map(({ nodeId }) => nodeId).sort());
    // Who asks again is answered by the tier.
    const again = await collected(queue.addAnnotations(given, { chunkSize: 20 }));
    expectAll(again, given);
    expect(again.every(({ fromCache }) => fromCache)).toBe(true);
    expect(generators.flatMap(({ computed }) => computed)).toHaveLength(1000);
  });

  test('gives what a generator gives, for annotations, texts and words of a search', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const generator = await ready({ cache });
    await workerOf({ connection: server.url, generator });
    const queue = queueOf({ connection: server.url, cache });
    const given = annotations(30);
    const results = await collected(queue.addAnnotations(given, { chunkSize: 7, order: 'input' }));
    const expected = await generator.batchProcess(given);
    for (const [at, { processingTime: _, fromCache: __, ...rest }] of expected.entries()) expect(results[at]).toMatchObject({ ...rest, index: at });
    const texts = ['a text', 'another one', 'a text', ''];
    const vectors = await generator.embed(texts, { onError: 'skip' });
    for (const { index, embedding, error } of await collected(queue.addTexts(texts, { chunkSize: 3 }))) {
      if (index < 3) expect(Float32Array.from(embedding)).toEqual(vectors.row(index));
      else expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', message: 'Text 3 is empty: leave it out', details: { index: 3 } });
    }
    const [query] = await collected(queue.addTexts(['parse a file'], { inputType: 'query' }));
    expect(Float32Array.from(query!.embedding)).toEqual(await generator.embedQuery('parse a file'));
  });

  test('carries texts in its jobs, and no vectors', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const queue = queueOf({ connection: server.url, cache, name: 'seen' });
    const run = queue.addAnnotations(annotations(10), { chunkSize: 5 });
    const bull = new Queue('seen', { connection: { port: server.port } });
    onTestFinished(() => bull.close());
    await expect.poll(async () => (await bull.getJobCounts('waiting')).waiting).toBe(2);
    const [job] = await bull.getJobs(['waiting']);
    expect(JSON.stringify(job!.data)).toContain('does the thing');
    // The same content is the same job, whoever adds it.
    const other = queueOf({ connection: server.url, cache, name: 'seen' });
    const same = other.addAnnotations(annotations(10), { chunkSize: 5 });
    await expect.poll(() => same.progress.pendingChunks).toBe(2);
    expect((await bull.getJobCounts('waiting')).waiting).toBe(2);
    const generator = stub();
    await workerOf({ connection: server.url, cache, generator, name: 'seen' });
    expectAll(await collected(run), annotations(10));
    expectAll(await collected(same), annotations(10));
    expect(generator.computed).toHaveLength(10);
    expect(JSON.stringify(await bull.getJobs(['completed', 'failed']))).toBe('[]');
  });

  test('reads its source only so far ahead, and closes it when the loop is left', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const queue = queueOf({ connection: server.url, cache });
    await workerOf({ connection: server.url, cache, generator: stub() });
    let [read, closed] = [0, false];
    function* source(): Generator<Annotation> {
      try {
        for (;;) yield annotations(1, read++)[0]!;
      } finally {
        closed = true;
      }
    }
    const run = queue.addAnnotations(source(), { chunkSize: 10, maxPendingChunks: 3 });
    let taken = 0;
    for await (const _ of run) {
      // Three chunks, and the one that is being read.
      expect(read - taken).toBeLessThanOrEqual(50);
      if (++taken === 200) break;
    }
    expect(closed).toBe(true);
    expect((await failure(() => run.finished())).code).toBe('ABORTED');
    await expect.poll(async () => (await queue.getStats()).waiting).toBe(0);
  });

  test('answers what a slow source has given before it gives more', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const queue = queueOf({ connection: server.url, cache });
    await workerOf({ connection: server.url, cache, generator: stub() });
    let go!: () => void;
    const more = new Promise<void>((resolve) => (go = resolve));
    async function* source(): AsyncGenerator<Annotation> {
      yield* annotations(3);
      await more;
      yield* annotations(3, 3);
    }
    const results = queue.addAnnotations(source())[Symbol.asyncIterator]();
    for (let i = 0; i < 3; i++) expect((await results.next()).value).toMatchObject({ index: i });
    go();
    for (let i = 3; i < 6; i++) expect((await results.next()).value).toMatchObject({ index: i });
    expect((await results.next()).done).toBe(true);
  });

  test('answers what was read before a source failed, and then tells', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const queue = queueOf({ connection: server.url, cache });
    await workerOf({ connection: server.url, cache, generator: stub() });
    const source = function* () {
      yield* annotations(25);
      throw new Error('the disk is gone');
    };
    const run = queue.addAnnotations(source(), { chunkSize: 10 });
    const seen: number[] = [];
    const error = await failure(async () => {
      for await (const { index } of run) seen.push(index);
    });
    expect(seen).toHaveLength(25);
    expect(error).toMatchObject({ code: 'ABORTED', message: expect.stringContaining('after 25 inputs: the disk is gone') });
    expect((await failure(() => run.finished())).code).toBe('ABORTED');
  });

  test('cancels: what no worker has begun is taken out, and the source is closed', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const queue = queueOf({ connection: server.url, cache });
    const generator = stub({ ms: 100 });
    await workerOf({ connection: server.url, cache, generator, concurrency: 1 });
    const run = queue.addAnnotations(annotations(500), { chunkSize: 10 });
    await expect.poll(() => run.progress.processed).toBeGreaterThan(0);
    await run.cancel();
    await run.cancel();
    expect(await failure(() => run.finished())).toMatchObject({ code: 'ABORTED', message: 'The run was cancelled' });
    expect((await failure(() => collected(run))).code).toBe('ABORTED');
    await expect.poll(async () => { const { waiting, active } = await queue.getStats(); return waiting + active; }).toBe(0);
    expect(generator.computed.length).toBeLessThan(300);
    // What was computed is there.
    const results = await collected(queue.addAnnotations(annotations(10), { chunkSize: 10 }));
    expect(results.every(({ fromCache }) => fromCache)).toBe(true);
  });

  test('ends a run by its signal or its time, wherever it waits', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const queue = queueOf({ connection: server.url, cache });
    const stop = new AbortController();
    const silent = (async function* (): AsyncGenerator<Annotation> {
      await new Promise(() => {});
    })();
    const [aborted, late] = [queue.addAnnotations(silent, { signal: stop.signal }), queue.addAnnotations(annotations(10), { timeoutMs: 300 })];
    expect((await failure(() => late.finished())).code).toBe('TIMED_OUT');
    stop.abort(new Error('enough'));
    expect(await failure(() => aborted.finished())).toMatchObject({ code: 'ABORTED', cause: { message: 'enough' } });
    expect((await failure(() => queue.addAnnotations(annotations(1), { signal: AbortSignal.abort() }).finished())).code).toBe('ABORTED');
    await expect.poll(async () => (await queue.getStats()).waiting).toBe(0);
  });

  test('gives the error of what cannot be embedded, and keeps its job among the failed ones', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const poison = (nodeId: string) => (nodeId === 'n13' ? new EmbeddingError('INPUT_TOO_LONG', 'the text is too long') : undefined);
    const queue = queueOf({ connection: server.url, cache, name: 'poisoned' });
    const generator = stub({ fail: poison });
    await workerOf({ connection: server.url, cache, generator, name: 'poisoned' });
    const given = [...annotations(20), { nodeId: 'x', signature: 7 } as never];
    const run = queue.addAnnotations(given, { chunkSize: 10 });
    const results = (await collected(run)).sort((a, b) => a.index - b.index);
    expect(results).toHaveLength(21);
    for (const { index, error } of results) expect(error === undefined, `input ${index}`).toBe(![13, 20].includes(index));
    expect(results[13]).toMatchObject({ nodeId: 'n13', embedding: [], error: { code: 'INPUT_TOO_LONG', message: 'the text is too long', details: { index: 13 } } });
    expect(results[20]).toMatchObject({ nodeId: 'x', embedding: [], error: { code: 'INVALID_ARGUMENT', message: 'Annotation 20.signature is 7, not a string' } });
    expect(results[13]!.error).toBeInstanceOf(EmbeddingError);
    expect(run.progress).toMatchObject({ processed: 21, failed: 2 });
    const bull = new Queue('poisoned', { connection: { port: server.port } });
    onTestFinished(() => bull.close());
    const failed = await bull.getFailed();
    expect(failed).toHaveLength(1);
    expect(JSON.parse(failed[0]!.failedReason)).toMatchObject({ code: 'INPUT_TOO_LONG', message: 'the text is too long', index: 3 });
    // Whoever asks again has it tried again, and only that one.
    const before = generator.computed.length;
    expect(await queue.addAnnotations(annotations(20), { chunkSize: 10 }).finished()).toMatchObject({ failed: 1, fromCache: 19 });
    expect(generator.computed.slice(before)).toEqual(['n13']);
    const strict = queue.addAnnotations(annotations(20), { chunkSize: 10, onError: 'throw' });
    expect((await failure(() => collected(strict))).code).toBe('INPUT_TOO_LONG');
    expect((await failure(() => queue.addAnnotations(annotations(20), { chunkSize: 10, onError: 'throw' }).finished())).code).toBe('INPUT_TOO_LONG');
  });

  test('tries what may pass again', async () => {
    const [server, cache] = [await started(), sharedFile()];
    let failures = 0;
    const fail = () => (failures++ < 2 ? new EmbeddingError('BACKEND_UNAVAILABLE', 'not now', { retryable: true }) : undefined);
    await workerOf({ connection: server.url, cache, generator: stub({ fail }) });
    const queue = queueOf({ connection: server.url, cache });
    expectAll(await collected(queue.addAnnotations(annotations(1))), annotations(1));
  });

  test('says what a generator does wrong', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const odd = (work: () => unknown): WorkerGenerator => ({ ...stub(), embed: work as never, batchProcess: work as never });
    const errors: [() => unknown, RegExp][] = [
      [() => { throw new TypeError('mine'); }, /generator failed: mine/], [async () => null, /generator failed/], [async () => ({ errors: 5 }), /generator/],
      [async () => [{ error: new TypeError('mine') }], /mine|generator/],
    ];
    for (const [at, [work, message]] of errors.entries()) {
      const name = `odd${at}`;
      const worker = await workerOf({ connection: server.url, cache, generator: odd(work), name });
      const queue = queueOf({ connection: server.url, cache, name });
      for (const run of [queue.addAnnotations(annotations(1, at)), queue.addTexts([`text ${at}`])]) {
        const [result] = await collected(run);
        expect(result!.error).toMatchObject({ code: 'EMBEDDING_GENERATION_FAILED', message: expect.stringMatching(message) });
      }
      await worker.close();
    }
    const broken = { ...stub(), getModelInfo: () => null as never };
    expect(await failure(() => workerOf({ connection: server.url, cache, generator: broken }))).toMatchObject({ code: 'MODEL_INIT_FAILED' });
  });

  test('fails jobs that are none of its own, and goes on', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const bull = new Queue('mixed', { connection: { port: server.port } });
    onTestFinished(() => bull.close());
    await bull.add('mail', { to: 'somebody' });
    await bull.add('embed', { release: '0.0', inputs: [] });
    await bull.add('embed', { inputs: 7 });
    await workerOf({ connection: server.url, cache, generator: stub(), name: 'mixed' });
    await expect.poll(async () => (await bull.getFailed()).length).toBe(3);
    const reasons = (await bull.getFailed()).map(({ failedReason }) => (JSON.parse(failedReason) as { message: string }).message).sort();
    expect(reasons).toEqual([expect.stringContaining('added by embedcore 0.0'), expect.stringContaining('undefined as its release'), expect.stringContaining('its name is "mail"')]);
    const queue = queueOf({ connection: server.url, cache, name: 'mixed' });
    expectAll(await collected(queue.addAnnotations(annotations(3))), annotations(3));
  });

  test('is answered by the model that it expects, and by no other', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const [wrong, right] = [stub({ fingerprint: 'cd'.repeat(32) }), stub()];
    const queue = queueOf({ connection: server.url, cache, fingerprint: FINGERPRINT });
    await workerOf({ connection: server.url, cache, generator: wrong });
    const run = queue.addAnnotations(annotations(40), { chunkSize: 10 });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(run.progress.processed).toBe(0);
    await workerOf({ connection: server.url, cache, generator: right });
    expectAll(await collected(run), annotations(40));
    expect(wrong.computed).toEqual([]);
    expect((await run.finished()).fingerprint).toBe(FINGERPRINT);
  });

  test('has vectors of one model in a run, whoever answers first', async () => {
    const [server, cache] = [await started(), sharedFile()];
    for (const fingerprint of [FINGERPRINT, 'cd'.repeat(32)]) await workerOf({ connection: server.url, cache, generator: stub({ ms: 20, fingerprint }) });
    const run = queueOf({ connection: server.url, cache }).addAnnotations(annotations(60), { chunkSize: 10, maxPendingChunks: 4 });
    expectAll(await collected(run), annotations(60));
  });

  test('makes vectors again that have left the shared tier, and gives up at last', async () => {
    const server = await started();
    const mine = sharedFile();
    const [cache, theirs] = [new IntelligentEmbeddingCache(mine), sharedFile()];
    onTestFinished(() => cache.close());
    const queue = queueOf({ connection: server.url, cache });
    const generator = stub();
    await workerOf({ connection: server.url, cache: mine, generator });
    const run = queue.addAnnotations(annotations(30), { chunkSize: 10 });
    await expect.poll(() => run.progress.processed).toBe(30);
    expectAll(await collected(run), annotations(30));
    // A worker whose tier is another one.
    await workerOf({ connection: server.url, cache: theirs, generator, name: 'apart' });
    const lost = queueOf({ connection: server.url, cache: mine, name: 'apart' }).addAnnotations(annotations(2, 100));
    const results = await collected(lost);
    expect(results.map(({ error }) => error?.code)).toEqual(['CACHE_STORAGE_FAILED', 'CACHE_STORAGE_FAILED']);
    expect(lost.progress).toMatchObject({ requeued: 8 });
  });

  test('lists its depth and its workers, also on the page of a dashboard', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const monitor = new PerformanceMonitor();
    const queue = queueOf({ connection: server.url, cache, monitor });
    const worker = await workerOf({ connection: server.url, cache, generator: stub() });
    await expect.poll(async () => (await queue.getStats()).workers.length).toBe(1);
    expect((await queue.getStats()).workers[0]).toMatchObject({ pid: process.pid, model: 'stub', fingerprint: FINGERPRINT, concurrency: 2 });
    const dashboard = new PerformanceDashboard({ monitor, interval: 100 });
    onTestFinished(() => dashboard.close());
    await expect.poll(() => JSON.stringify(dashboard.snapshot())).toContain('Queue embedcore');
    await worker.close();
    expect((await queue.getStats()).workers).toEqual([]);
  });

  test('is of one release of embedcore', async () => {
    const [server, cache] = [await started(), sharedFile()];
    const { Redis } = await import('ioredis');
    const redis = new Redis(server.port);
    onTestFinished(() => redis.disconnect());
    await redis.hset('bull:old:embedcore', 'release', '0.0');
    const refused = { code: 'INVALID_CONFIG', message: expect.stringContaining('The queue "old" is of embedcore 0.0') };
    expect(await failure(() => queueOf({ connection: server.url, cache, name: 'old' }).addAnnotations(annotations(1)).finished())).toMatchObject(refused);
    expect(await failure(() => workerOf({ connection: server.url, cache, name: 'old', generator: stub() }))).toMatchObject(refused);
  });

  test('says what is wrong with a server: unreachable, a wrong password, no TLS, of a cluster, too old', async () => {
    const cache = sharedFile();
    const port = await freePort();
    const options = { cache, connectTimeoutMs: 500 };
    const reached = async (connection: string) => [
      await failure(() => queueOf({ connection, ...options }).addAnnotations(annotations(1)).finished()),
      await failure(() => queueOf({ connection, ...options }).getStats()),
      await failure(() => workerOf({ connection, generator: stub(), ...options })),
    ];
    for (const error of await reached(`redis://127.0.0.1:${port}`)) {
      expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true, message: expect.stringContaining(`127.0.0.1:${port} could not be reached within 500 ms`) });
    }
    const locked = await started('--requirepass', 'right');
    for (const error of await reached(`redis://:wrong-one@127.0.0.1:${locked.port}`)) {
      expect(error).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('WRONGPASS') });
      expect(JSON.stringify(error)).not.toContain('wrong-one');
    }
    for (const error of await reached(locked.url)) expect(error).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('NOAUTH') });
    for (const error of await reached(`rediss://127.0.0.1:${locked.port}`)) expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining('does the port speak TLS?') });
    for (const error of await reached('redis://no-such-host.invalid')) expect(error).toMatchObject({ code: 'BACKEND_UNAVAILABLE', message: expect.stringMatching(/no-such-host\.invalid.*could not be reached/) });
    const node = await started('--cluster-enabled', 'yes', '--cluster-port', `${await freePort()}`);
    for (const error of await reached(node.url)) expect(error).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('is one of a cluster: a queue has one server') });
    const old = createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', (bytes) => {
        // One answer for each command.
        for (const command of bytes.toString().matchAll(/\r\n(info|client|auth|select)\r\n/gi)) {
          const info = '# Server\r\nredis_version:5.0.14\r\nloading:0\r\n';
          socket.write(command[1]!.toLowerCase() === 'info' ? `$${info.length}\r\n${info}\r\n` : '+OK\r\n');
        }
      });
    });
    await new Promise<void>((resolve) => old.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void old.close());
    for (const error of await reached(`redis://127.0.0.1:${(old.address() as { port: number }).port}`)) {
      expect(error).toMatchObject({ code: 'BACKEND_REJECTED', message: expect.stringContaining('of release 5.0.14: a queue needs 6 or later') });
    }
  });
});

describe('options of a queue', () => {
  const connection = 'redis://127.0.0.1:1';
  const generator = stub();

  test.each([
    [{ connection: 'http://host' }, 'Invalid option `connection`: its scheme is http, not redis or rediss'],
    [{ connection: 'nowhere' }, 'Invalid option `connection`: it is no URL: pass redis://host:6379'],
    [{ connection: 'redis://host/name' }, 'Invalid option `connection`: its path "/name" is no number of a database'],
    [{ connection: { port: 70_000 } }, 'Invalid option `connection.port`: 70000 is not a port from 1 to 65535'],
    [{ connection: { keyPrefix: 'mine' } }, 'Invalid option `connection.keyPrefix`: BullMQ keeps its keys apart by `prefix`: pass that instead'],
    [{ connection: 7 }, 'Invalid option `connection`: 7 is neither a URL'],
    [{}, 'Invalid option `connection`: undefined is neither a URL'],
    [{ connection, name: 'a:b' }, 'Invalid option `name`: "a:b" is not a name'],
    [{ connection, prefix: '' }, 'Invalid option `prefix`: "" is not a name'],
    [{ connection, cache: { maxEntries: 10 } }, 'Invalid option `cache`: nobody else sees what is in it'],
    [{ connection, cache: false }, 'Invalid option `cache`: vectors travel through it'],
    [{ connection, fingerprint: 'abc' }, 'Invalid option `fingerprint`: "abc" is not 64 hexadecimal digits'],
    [{ connection, names: 'x' }, 'Invalid option `names`: there is no such option; did you mean `name`?'],
    [{ connection, monitor: {} }, 'Invalid option `monitor`'],
    [{ connection, outageTimeoutMs: 0 }, 'Invalid option `outageTimeoutMs`: 0 is not a whole number from 1'],
  ])('%j', async (options, message) => {
    const { code, message: said } = await failure(() => new EmbeddingQueue(options as EmbeddingQueueOptions));
    expect([code, said]).toEqual(['INVALID_CONFIG', expect.stringContaining(message)]);
  });

  test.each([
    [{ connection }, 'Invalid option `generator`: undefined has no function isReady'],
    [{ connection, generator: {} }, 'Invalid option `generator`: an object has no function isReady'],
    [{ connection, generator, concurrency: 0 }, 'Invalid option `concurrency`: 0 is not a whole number from 1 to 1000'],
    [{ connection, generator, lockDurationMs: 10 }, 'Invalid option `lockDurationMs`: 10 is not a whole number from 1000'],
    [{ connection, generator, stopOnSigterm: 1 }, 'Invalid option `stopOnSigterm`: 1 is not true or false'],
  ])('of a worker: %j', async (options, message) => {
    const { code, message: said } = await failure(() => new EmbeddingWorker(options as EmbeddingWorkerOptions));
    expect([code, said]).toEqual(['INVALID_CONFIG', expect.stringContaining(message)]);
  });

  test('of a run are read when it is made', async () => {
    const queue = queueOf({ connection, cache: sharedFile() });
    for (const [options, message] of [
      [{ chunkSize: 0 }, '`chunkSize`: 0 is not a whole number from 1'],
      [{ order: 'any' }, '`order`: "any" is not \'completion\' or \'input\''],
      [{ onError: 'collect' }, '`onError`: "collect" is not \'skip\' or \'throw\''],
      [{ inputType: 'words' }, '`inputType`: "words" is not \'document\' or \'query\''],
      [{ jobId: 'x' }, '`jobId`: there is no such option'],
    ] as const) {
      expect((await failure(() => queue.addAnnotations([], options as never))).message).toContain(message);
    }
    expect(await failure(() => queue.addAnnotations(7 as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    await queue.close();
    await queue.close();
    expect((await failure(() => queue.addAnnotations([]))).code).toBe('CLOSED');
    expect((await failure(() => queue.getStats())).code).toBe('CLOSED');
  });
});
