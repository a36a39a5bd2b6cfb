// Sets and gets 300 entries in a file that something happens to, and tells what it was like.
const { subscribe } = require('node:diagnostics_channel');
const { rmSync } = require('node:fs');
const { IntelligentEmbeddingCache } = require('../..');

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
