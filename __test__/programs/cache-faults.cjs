// Sets and gets 300 entries in a file that something happens to, and tells what it was like.
const { subscribe } = require('node:diagnostics_channel');
const { rmSync } = require('node:fs');
const { InferenceCache, IntelligentEmbeddingCache } = require('../..');

const [how, persistPath] = process.argv.slice(2);
const vector = (i) => Array.from({ length: 64 }, (_, at) => Math.fround(Math.sin(i + at)));
const events = [];
subscribe('embedcore:cache', ({ type }) => type !== 'evicted' && events.push(type));

(async () => {
  const failed = [];
  const call = async (what) => {
    try {
      return await what();
    } catch ({ code, message }) {
      failed.push(code ?? message);
    }
  };
  if (how === 'delete-unwritable') {
    const cache = new IntelligentEmbeddingCache({ persistPath });
    const [empty, results] = [new IntelligentEmbeddingCache({ persistPath, namespace: 'empty' }), new InferenceCache({ persistPath })];
    await cache.set('in memory', 'x', vector(1));
    const answers = [
      await call(() => cache.delete('absent')),
      await call(() => cache.delete('in memory')),
      await call(() => empty.clear()),
      await call(() => results.delete('absent')),
      await call(() => results.invalidate({ tag: 'absent' })),
      await call(() => results.invalidate({ tags: ['absent', 'as well'], type: 'api' })),
      await call(() => results.clear()),
      await call(() => results.clearExpired()),
    ];
    // What is there cannot be deleted.
    await call(() => cache.delete('key 1'));
    await call(() => cache.clear());
    await Promise.all([cache, empty, results].map((one) => one.close()));
    process.stdout.write(JSON.stringify({ answers, failed }));
    return;
  }
  const cache = new IntelligentEmbeddingCache({ persistPath });
  const count = async (cache) => {
    let found = 0;
    for (let i = 0; i < 300; i++) {
      const entry = await call(() => cache.get(`key ${i}`, `content ${i}`));
      if (!entry) continue;
      if (entry.embedding.some((value, at) => value !== vector(i)[at])) failed.push('WRONG');
      found++;
    }
    return found;
  };
  const write = async (from, to) => {
    for (let i = from; i < to; i++) await call(() => cache.set(`key ${i}`, `content ${i}`, vector(i)));
  };
  await write(0, 150);
  if (how === 'delete') {
    await cache.flush();
    for (const suffix of ['', '-wal', '-shm']) rmSync(persistPath + suffix, { force: true });
  }
  await write(150, 300);
  const flushed = await cache.flush().then(() => 'ok', ({ code }) => code);
  const found = await count(cache);
  const { disk } = cache.getStats();
  await call(() => cache.optimize());
  await call(() => cache.close());
  const seen = [...events];
  const other = new IntelligentEmbeddingCache({ persistPath });
  const stored = await count(other);
  await call(() => other.close());
  process.stdout.write(JSON.stringify({ found, stored, failed, flushed, events: seen, disk }));
})();
