// Tells the time and which entries of a file it finds, after it has set those that it is told to, for an hour each or for ever.
const { IntelligentEmbeddingCache } = require('../..');
const [persistPath, ...set] = process.argv.slice(2);

(async () => {
  const cache = new IntelligentEmbeddingCache({ persistPath, ttlSeconds: 3600 });
  const lasting = new IntelligentEmbeddingCache({ persistPath, ttlSeconds: 0 });
  for (const key of set) await (key === 'for ever' ? lasting : cache).set(key, 'content', [1, 2]);
  await cache.flush();
  await lasting.close();
  const found = [];
  for (const key of ['ahead', 'for ever', 'on time', 'behind']) if (await cache.get(key, 'content')) found.push(key);
  process.stdout.write(JSON.stringify({ now: Date.now(), found }));
  await cache.close();
})();
