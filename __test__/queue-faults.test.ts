// What becomes of a queue's work when processes and servers end, hang and come back.
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';

import { prepareText, type Annotation } from 'embedcore';
import { EmbeddingQueue, type EmbeddingQueueOptions, type QueueResult } from 'embedcore/queue';
import { describe, expect, onTestFinished, test } from 'vitest';

import { atAnotherTime } from './files';
import { cable, hasRedis, started } from './redis';
import { root, thorough } from './support';

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const vectorOf = (text: string) => Array.from(createHash('sha256').update(text).digest().subarray(0, 8), (byte) => byte / 256);

const annotations = (count: number, name = 'n'): Annotation[] => Array.from({ length: count }, (_, i) => ({ nodeId: `${name}${i}`, signature: `function ${name}${i}()`, summary: `does the thing ${i}` }));

/** A worker in a process of its own. */
class WorkerProcess {
  readonly process: ChildProcess;
  readonly computed: string[] = [];
  readonly lines: string[] = [];
  readonly ended: Promise<void>;

  /** `ms`: how long a text takes. */
  constructor(options: object, ms: number, env = process.env) {
    const settings = { lockDurationMs: 1000, ...options };
    this.process = spawn(process.execPath, [join(root, '__test__', 'programs', 'queue-worker.cjs'), JSON.stringify(settings), root, `${ms}`], { stdio: ['ignore', 'pipe', 'inherit'], env });
    let rest = '';
    this.process.stdout!.on('data', (data: Buffer) => {
      const lines = (rest + data.toString()).split('\n');
      rest = lines.pop()!;
      for (const line of lines) (line.startsWith('computed ') ? this.computed : this.lines).push(line.replace('computed ', ''));
    });
    this.ended = new Promise((resolve) => this.process.once('close', () => resolve()));
    onTestFinished(async () => {
      this.process.kill('SIGKILL');
      await this.ended;
    });
  }

  async ready(): Promise<this> {
    await expect.poll(() => this.lines.join()).toContain('ready');
    return this;
  }
}

function queueOf({ connection }: Pick<EmbeddingQueueOptions, 'connection'>): EmbeddingQueue {
  const queue = new EmbeddingQueue({ connection, monitor: false });
  onTestFinished(() => queue.close());
  return queue;
}

/** Each is answered once, with its own vector. */
function expectAll(results: readonly QueueResult[], given: readonly Annotation[]): void {
  expect(results.find(({ error }) => error)?.error).toBeUndefined();
  expect(results).toHaveLength(given.length);
  expect(new Set(results.map(({ index }) => index)).size).toBe(given.length);
  for (const { index, nodeId, embedding } of results) {
    expect(nodeId).toBe(given[index]!.nodeId);
    expect(embedding).toEqual(vectorOf(prepareText(given[index]!, 512)));
  }
}

async function collected(results: AsyncIterable<QueueResult>): Promise<QueueResult[]> {
  const all: QueueResult[] = [];
  for await (const result of results) all.push(result);
  return all;
}

describe.skipIf(!hasRedis)('a queue whose parts fail', () => {
  test('loses nothing when workers are killed, answers nothing twice, and computes no more than their chunks again', { timeout: 300_000 }, async () => {
    const server = await started();
    const [kills, chunkSize, concurrency] = [thorough ? 50 : 10, 20, 2];
    const options = { connection: server.url, concurrency };
    const all: WorkerProcess[] = [];
    const begin = () => all[all.push(new WorkerProcess(options, 5)) - 1]!;
    const alive = await Promise.all(Array.from({ length: 4 }, () => begin().ready()));
    // Until the last of them was killed.
    let killing = true;
    let count = 0;
    const source = async function* (): AsyncGenerator<Annotation> {
      for (; killing || count % chunkSize !== 0; count++) yield { nodeId: `n${count}`, signature: `function n${count}()`, summary: `does the thing ${count}` };
    };
    const results = collected(queueOf(options).addAnnotations(source(), { chunkSize, maxPendingChunks: 16 }));
    for (let kill = 0; kill < kills; kill++) {
      await sleep(Math.random() * 200);
      const [victim] = alive.splice(Math.floor(Math.random() * alive.length), 1);
      victim!.process.kill('SIGKILL');
      alive.push(await begin().ready());
    }
    killing = false;
    expectAll(await results, annotations(count));
    await Promise.all(alive.map(({ process, ended }) => (process.kill('SIGTERM'), ended)));
    const computed = all.flatMap((worker) => worker.computed);
    expect(new Set(computed).size).toBe(count);
    expect(computed.length - count).toBeLessThanOrEqual(kills * concurrency * chunkSize);
  });

  test('goes on when its server is killed and comes back empty', async () => {
    const server = await started();
    const options = { connection: server.url };
    await Promise.all([new WorkerProcess(options, 2).ready(), new WorkerProcess(options, 2).ready()]);
    const given = annotations(3000);
    const run = queueOf(options).addAnnotations(given, { chunkSize: 20, maxPendingChunks: 16 });
    const results = collected(run);
    for (let time = 0; time < 2; time++) {
      const before = run.progress.processed;
      await expect.poll(() => run.progress.processed).toBeGreaterThan(before + 200);
      await server.kill();
      await sleep(500);
      await server.start();
    }
    expectAll(await results, given);
  });

  test('waits for a server that hangs', async () => {
    const server = await started();
    const options = { connection: server.url };
    await new WorkerProcess(options, 2).ready();
    const given = annotations(1000);
    const run = queueOf(options).addAnnotations(given, { chunkSize: 20 });
    const results = collected(run);
    await expect.poll(() => run.progress.processed).toBeGreaterThan(100);
    server.signal('SIGSTOP');
    await sleep(thorough ? 10_000 : 2000);
    server.signal('SIGCONT');
    expectAll(await results, given);
  });

  test('waits for a server that is full', async () => {
    const server = await started('--maxmemory-policy', 'noeviction');
    const options = { connection: server.url };
    await new WorkerProcess(options, 2).ready();
    const given = annotations(1000);
    const run = queueOf(options).addAnnotations(given, { chunkSize: 20, maxPendingChunks: 16 });
    const results = collected(run);
    await expect.poll(() => run.progress.processed).toBeGreaterThan(100);
    await server.ask('CONFIG', 'SET', 'maxmemory', '1');
    await sleep(1500);
    expect(run.progress.processed).toBeLessThan(1000);
    await server.ask('CONFIG', 'SET', 'maxmemory', '0');
    expectAll(await results, given);
  });

  test('goes on with the replica that takes over from its server', async () => {
    const [primary, replica] = [await started(), await started()];
    await replica.ask('REPLICAOF', '127.0.0.1', `${primary.port}`);
    await expect.poll(() => replica.ask('INFO', 'replication')).toContain('master_link_status:up');
    const way = await cable(primary.port);
    const options = { connection: way.url };
    await Promise.all([new WorkerProcess(options, 2).ready(), new WorkerProcess(options, 2).ready()]);
    const given = annotations(2000);
    const run = queueOf(options).addAnnotations(given, { chunkSize: 20, maxPendingChunks: 16 });
    const results = collected(run);
    await expect.poll(() => run.progress.processed).toBeGreaterThan(200);
    await primary.kill();
    // Until somebody makes it the primary, it refuses what would change something.
    way.lead(replica.port);
    await sleep(500);
    await replica.ask('REPLICAOF', 'NO', 'ONE');
    expectAll(await results, given);
  });

  test('makes vectors again that were damaged, or written over by another program', async () => {
    const server = await started();
    const options = { connection: server.url };
    const worker = await new WorkerProcess(options, 0).ready();
    const given = annotations(60);
    const run = queueOf(options).addAnnotations(given, { chunkSize: 20 });
    expect(await run.finished()).toMatchObject({ processed: 60, failed: 0 });
    const [flipped, foreign, other] = await server.keys('embedcore:{*');
    await server.ask('SETRANGE', flipped!, '70', '\u0001');
    await server.ask('SET', foreign!, "another program's");
    await server.ask('DEL', other!);
    await server.ask('LPUSH', other!, 'a list');
    expectAll(await collected(run), given);
    // What the worker still has, it does not compute again.
    expect(worker.computed).toHaveLength(60);
    expect(run.progress.requeued).toBeGreaterThan(0);
  });

  test('is answered by workers whose clocks are an hour ahead and an hour behind', async (context) => {
    const server = await started();
    const options = { connection: server.url };
    const workers = await Promise.all([3600, -3600].map((seconds) => new WorkerProcess(options, 5, atAnotherTime(context, seconds)).ready()));
    const given = annotations(800);
    const queue = queueOf(options);
    expectAll(await collected(queue.addAnnotations(given, { chunkSize: 20 })), given);
    for (const { computed } of workers) expect(computed.length).toBeGreaterThan(0);
    expect(workers.flatMap(({ computed }) => computed)).toHaveLength(800);
    expect((await queue.getStats()).workers).toHaveLength(2);
  });

  test('gives the chunks of a worker that hangs to others, and counts no answer twice when it wakes up', async () => {
    const server = await started();
    const options = { connection: server.url };
    const [hanging] = await Promise.all([new WorkerProcess(options, 10).ready(), new WorkerProcess(options, 10).ready()]);
    const given = annotations(600);
    const run = queueOf(options).addAnnotations(given, { chunkSize: 20 });
    const results = collected(run);
    await expect.poll(() => hanging.computed.length).toBeGreaterThan(0);
    hanging.process.kill('SIGSTOP');
    const answered = await results;
    hanging.process.kill('SIGCONT');
    expectAll(answered, given);
    expect(await run.finished()).toMatchObject({ processed: 600, failed: 0 });
  });

  test('finishes what runs at SIGTERM, and begins nothing more', async () => {
    const server = await started();
    const options = { connection: server.url, concurrency: 1 };
    const first = await new WorkerProcess(options, 20).ready();
    const given = annotations(400);
    const run = queueOf(options).addAnnotations(given, { chunkSize: 20 });
    const results = collected(run);
    await expect.poll(() => run.progress.processed).toBeGreaterThan(20);
    first.process.kill('SIGTERM');
    await first.ended;
    expect(first.process.signalCode).toBe('SIGTERM');
    const before = first.computed.length;
    expect(before % 20).toBe(0);
    await expect.poll(() => run.progress.processed).toBe(before);
    const second = await new WorkerProcess(options, 1).ready();
    expectAll(await results, given);
    expect(first.computed.length + second.computed.length).toBe(400);
  });

  test('fails a chunk that ends each worker that takes it', async () => {
    const server = await started();
    const queue = queueOf({ connection: server.url });
    const given: Annotation[] = [...annotations(20), { nodeId: 'deadly', signature: 'kill()', summary: 'ends the process' }];
    let over = false;
    const keep = async () => {
      while (!over) await new WorkerProcess({ connection: server.url, concurrency: 1 }, 1).ended;
    };
    const kept = keep();
    const run = queue.addAnnotations(given, { chunkSize: 7 });
    const results = await collected(run);
    over = true;
    const workers = (await queue.getStats()).workers.map(({ pid }) => pid);
    for (const pid of workers) try { process.kill(pid, 'SIGKILL'); } catch {}
    await kept;
    const failed = results.filter(({ error }) => error);
    expect(failed.map(({ nodeId }) => nodeId)).toContain('deadly');
    expect(failed).toHaveLength(7);
    expect(failed[0]!.error).toMatchObject({ code: 'EMBEDDING_GENERATION_FAILED', message: expect.stringContaining('Workers ended again and again') });
    expectAll(results.filter(({ error }) => !error), given.slice(0, 14));
  });

  /** A way to the server on which connections are lost before their first answer: the second to fourth of ioredis, which begin with `info`. */
  async function lossy(url: string): Promise<{ url: string; seen(): number }> {
    let seen = 0;
    const proxy = createServer((socket) => {
      const through = connect(Number(new URL(url).port), '127.0.0.1');
      for (const end of [socket, through]) end.on('error', () => {}).on('close', () => (socket.destroy(), through.destroy()));
      through.pipe(socket);
      let looked = false;
      socket.on('data', (data) => {
        const looks = !looked && /\r\ninfo\r\n/.test(data.toString('latin1'));
        looked ||= looks;
        if (looks && ++seen >= 2 && seen < 5) socket.destroy();
        else through.write(data);
      });
    }).listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    onTestFinished(() => void proxy.close());
    return { url: `redis://127.0.0.1:${(proxy.address() as AddressInfo).port}`, seen: () => seen };
  }

  test('hears of its jobs although the connection for that was lost before its first answer', async () => {
    const server = await started();
    await new WorkerProcess({ connection: server.url }, 2).ready();
    const way = await lossy(server.url);
    const given = annotations(40);
    expectAll(await collected(queueOf({ connection: way.url }).addAnnotations(given, { chunkSize: 10 })), given);
    expect(way.seen()).toBeGreaterThan(2);
  });

  test('takes jobs although the connection for that was lost before its first answer', async () => {
    const server = await started();
    const way = await lossy(server.url);
    await new WorkerProcess({ connection: way.url }, 2).ready();
    const given = annotations(40);
    expectAll(await collected(queueOf({ connection: server.url }).addAnnotations(given, { chunkSize: 10 })), given);
    expect(way.seen()).toBeGreaterThan(2);
  });

  // EMBEDCORE_QUEUE_SECONDS=600: for ten minutes.
  test('answers ten producers by ten workers, whatever fails meanwhile', { timeout: 900_000 }, async () => {
    const seconds = Number(process.env.EMBEDCORE_QUEUE_SECONDS ?? (thorough ? 20 : 6));
    const server = await started();
    const options = { connection: server.url };
    const until = Date.now() + seconds * 1000;
    const workers: WorkerProcess[] = await Promise.all(Array.from({ length: 10 }, () => new WorkerProcess(options, 2).ready()));
    let [asked, answered] = [0, 0];
    const faults: Record<string, number> = {};
    const producers = Array.from({ length: 10 }, async (_, producer) => {
      const queue = queueOf(options);
      for (let round = 0; Date.now() < until; round++) {
        // Half of the work is that of another producer, too.
        const given = annotations(100 + Math.floor(Math.random() * 200), `${Math.floor(producer / 2)}-${round}-`);
        asked += given.length;
        const results = await collected(queue.addAnnotations(given, { chunkSize: 10 + Math.floor(Math.random() * 30), order: Math.random() < 0.5 ? 'input' : 'completion' }));
        expectAll(results, given);
        answered += results.length;
      }
    });
    const disturb = async () => {
      while (Date.now() < until) {
        await sleep(200 + Math.random() * 800);
        const kind = ['kill', 'stop', 'kill', 'term', 'server', 'cancel', 'pause'][Math.floor(Math.random() * 7)]!;
        faults[kind] = (faults[kind] ?? 0) + 1;
        const at = Math.floor(Math.random() * workers.length);
        const worker = workers[at]!;
        if (kind === 'kill' || kind === 'term') {
          worker.process.kill(kind === 'kill' ? 'SIGKILL' : 'SIGTERM');
          workers[at] = new WorkerProcess(options, 2);
        } else if (kind === 'stop') {
          worker.process.kill('SIGSTOP');
          void sleep(1500).then(() => worker.process.kill('SIGCONT'));
        } else if (kind === 'server') {
          await server.kill();
          await server.start();
        } else if (kind === 'pause') {
          server.signal('SIGSTOP');
          await sleep(300);
          server.signal('SIGCONT');
        } else {
          const queue = queueOf(options);
          const run = queue.addAnnotations(annotations(200, `${Math.floor(Math.random() * 5)}-0-`), { chunkSize: 20 });
          await sleep(Math.random() * 50);
          await run.cancel();
          await queue.close();
        }
      }
    };
    await Promise.all([disturb(), ...producers]);
    expect(answered).toBe(asked);
    if (process.env.EMBEDCORE_QUEUE_SECONDS) console.log(JSON.stringify({ seconds, asked, answered, faults }));
  });
});
