// Other programs that hold the file of a cache: everybody waits a little, and goes on without it.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { InferenceCache, IntelligentEmbeddingCache, OptimizedEmbeddingGenerator } from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { directory, elsewhere, holding, timed, until } from './files';
import { failure, model } from './support';

// Where nothing waits longer than a tenth of a second: for slow machines.
const SOON = 4000;

async function filled(persistPath: string): Promise<IntelligentEmbeddingCache> {
  const cache = new IntelligentEmbeddingCache({ persistPath, ttlSeconds: 0 });
  onTestFinished(() => cache.close());
  await cache.set('k', 'x', [1, 1]);
  await cache.flush();
  return cache;
}

test('calls go on without a file whose write lock is held, and it gets what was set afterwards', async (context) => {
  const persistPath = join(directory(), 'cache.db');
  const cache = await filled(persistPath);
  const held = await holding(context, 'write', persistPath);
  expect(await timed(() => cache.set('a', 'x', [1, 2]))).toBeLessThan(SOON);
  expect(await timed(() => cache.getOrCompute('b', 'x', () => [2, 2]))).toBeLessThan(SOON);
  expect(await timed(() => cache.get('k', 'x'))).toBeLessThan(SOON);
  expect(await timed(() => cache.optimize())).toBeLessThan(SOON);
  await until(() => cache.getStats().disk!.queued === 2);
  const second = new IntelligentEmbeddingCache({ persistPath });
  onTestFinished(() => second.close());
  expect(await timed(() => second.set('c', 'x', [3, 3]))).toBeLessThan(SOON);
  expect((await second.get('k', 'x'))!.embedding).toEqual([1, 1]);
  // What promises something about the file waits longer, and does not promise it then.
  expect(await failure(() => cache.delete('k'))).toMatchObject({ code: 'CACHE_STORAGE_FAILED', message: expect.stringContaining('another program') as string });
  held.release();
  await Promise.all([cache.flush(), second.flush()]);
  expect(cache.getStats().disk).toMatchObject({ queued: 0, lost: 0 });
  await cache.close();
  expect([await second.has('k', 'x'), await second.has('a', 'x'), await second.has('b', 'x')]).toEqual([false, true, true]);
});

test('close waits some seconds for a held file, and says what was lost', async (context) => {
  const persistPath = join(directory(), 'cache.db');
  const cache = await filled(persistPath);
  await holding(context, 'write', persistPath);
  await cache.set('a', 'x', [1, 2]);
  expect(await timed(() => cache.close())).toBeLessThan(10_000);
  expect(cache.getStats().disk!.lost).toBe(1);
});

test('the lock file that somebody holds keeps nobody waiting', async (context) => {
  const place = directory();
  const persistPath = join(place, 'cache.db');
  await (await filled(persistPath)).close();
  await holding(context, 'lock', `${persistPath}-lock`);
  const cache = new IntelligentEmbeddingCache({ persistPath });
  expect(await timed(() => cache.get('k', 'x'))).toBeLessThan(SOON);
  expect(await timed(() => cache.set('a', 'x', [1, 2]))).toBeLessThan(SOON);
  expect((await cache.get('a', 'x'))!.embedding).toEqual([1, 2]);
  await until(async () => (await cache.get('k', 'x')) === null && cache.getStats().disk!.errors > 0);
  expect(await timed(() => cache.close())).toBeLessThan(10_000);
  await holding(context, 'lock', join(place, 'results.db-lock'));
  const results = new InferenceCache({ persistPath: join(place, 'results.db') });
  expect(await timed(() => results.getOrCompute('a', {}, () => 1))).toBeLessThan(SOON);
  expect(await timed(() => results.close())).toBeLessThan(10_000);
});

test('what another process has changed is no old answer, although the file cannot be read', async (context) => {
  const place = directory();
  const [persistPath, path] = [join(place, 'cache.db'), join(place, 'results.db')];
  const cache = await filled(persistPath);
  const results = new InferenceCache({ persistPath: path });
  onTestFinished(() => results.close());
  await cache.set('gone', 'x', [1, 1]);
  for (const content of ['replaced', 'gone', 'invalidated']) await results.set(content, 'old', { tags: [content] });
  await Promise.all([cache.flush(), results.flush()]);
  await elsewhere(
    `const cache = new embedcore.IntelligentEmbeddingCache({ persistPath: argv[0], ttlSeconds: 0 });
     await cache.set('k', 'x', [9, 9]); await cache.delete('gone'); await cache.close();
     const results = new embedcore.InferenceCache({ persistPath: argv[1] });
     await results.set('replaced', 'new'); await results.delete('gone'); await results.invalidate({ tag: 'invalidated' }); await results.close();`,
    persistPath,
    path,
  );
  // Nobody can open either file, and neither cache has read its own so far.
  const held = [await holding(context, 'lock', `${persistPath}-lock`), await holding(context, 'lock', `${path}-lock`)];
  await sleep(250);
  expect([await cache.get('k', 'x'), await cache.has('gone', 'x')]).toEqual([null, false]);
  expect([...(await cache.getMany(['k', 'gone'].map((key) => ({ key, content: 'x' })))).hits]).toEqual([0, 0]);
  expect(await cache.findSimilar([1, 1])).toEqual([]);
  const all = ['replaced', 'gone', 'invalidated'].map((content) => ({ content }));
  expect(await results.getMany(all)).toEqual([null, null, null]);
  expect(await Promise.all(all.map(({ content }) => results.has(content)))).toEqual([false, false, false]);
  for (const one of held) one.release();
  await until(async () => (await cache.get('k', 'x')) !== null && (await results.get('replaced')) !== null);
  expect([(await cache.get('k', 'x'))!.embedding, await cache.get('gone', 'x')]).toEqual([[9, 9], null]);
  expect((await results.getMany(all)).map((found) => found?.value)).toEqual(['new', undefined, undefined]);
});

test('a process starts, embeds and ends although another program holds the file', async (context) => {
  const persistPath = join(directory(), 'cache.db');
  const generator = new OptimizedEmbeddingGenerator({ modelPath: model('bert-mean'), cache: { persistPath } });
  await generator.initialize();
  await generator.embed(['warm']);
  await generator.cleanup();
  await holding(context, 'write', persistPath);
  const code = `const generator = new embedcore.OptimizedEmbeddingGenerator({ modelPath: argv[1], cache: { persistPath: argv[0] } });
    const others = [0, 1, 2].map((n) => new embedcore.IntelligentEmbeddingCache({ persistPath: argv[0], namespace: String(n) }));
    await generator.initialize();
    const began = Date.now();
    await generator.embed(['new']);
    console.log(Date.now() - began);
    for (const other of others) await other.set('k', 'x', [1]);`;
  let out = '';
  const whole = await timed(async () => ({ out } = await elsewhere(code, persistPath, model('bert-mean'))));
  expect(Number(out)).toBeLessThan(SOON);
  // Four caches, and one wait.
  expect(whole).toBeLessThan(20_000);
});

test('a cache that is closed gives the leases of its calls back', async () => {
  const persistPath = join(directory(), 'cache.db');
  const [cache, other] = [await filled(persistPath), await filled(persistPath)];
  let end: ((vector: number[]) => void) | undefined;
  const flight = cache.getOrCompute('slow', 'x', () => new Promise<number[]>((resolve) => (end = resolve)));
  const settled = flight.catch(({ code }: { code: string }) => code);
  await until(() => end);
  await cache.close();
  // Shorter than any lease lasts.
  expect(await timed(() => other.getOrCompute('slow', 'x', () => [1, 1]))).toBeLessThan(SOON);
  end!([1, 1]);
  await settled;
});
