// A process with a cache: what it does, and how it ends, its arguments name.
const { IntelligentEmbeddingCache } = require('../..');
const [how, persistPath, from = '0'] = process.argv.slice(2);

const vector = (seed) => Array.from({ length: 8 }, (_, i) => Math.fround(Math.sin(seed + i)));
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const heard = (what) => new Promise((resolve) => process.stdin.on('data', (data) => data.toString().includes(what) && resolve()));

(async () => {
  const cache = new IntelligentEmbeddingCache(persistPath ? { persistPath } : {});
  const key = (i) => `key ${i}`;
  if (how === 'write') {
    for (let i = Number(from); i < Number(from) + 500; i++) await cache.set(key(i), `content ${i}`, vector(i));
    await cache.flush();
    say('written');
    await heard('read');
    process.stdin.destroy();
    const entries = Array.from({ length: 1000 }, (_, i) => ({ key: key(i), content: `content ${i}` }));
    const found = await cache.getMany(entries);
    const right = entries.filter((_, i) => found.hits[i] && found.row(i).every((value, at) => value === vector(i)[at]));
    say({ right: right.length, errors: cache.getStats().disk.errors });
  } else if (how === 'compute') {
    let computed = 0;
    for (let i = 0; i < 20; i++) {
      const compute = async () => {
        computed++;
        await new Promise((resolve) => setTimeout(resolve, 30));
        return vector(i);
      };
      const { embedding } = await cache.getOrCompute(key(i), 'c', compute);
      if (embedding.some((value, at) => value !== vector(i)[at])) throw new Error('wrong');
    }
    say({ computed });
  } else {
    await cache.set('k', 'c', vector(1));
    if (how === 'exit') process.exit(7);
    process.exitCode = 7;
  }
})();
