// Writes to a collection for as long as it lives, and tells what was kept: node collection.cjs FILE NAME COUNT
const { EmbeddingCollection } = require('embedcore');

const [path, name, count] = process.argv.slice(2);
(async () => {
  const collection = new EmbeddingCollection({ path });
  for (let n = 0; n < Number(count); n++) {
    const entries = Array.from({ length: 20 }, (_, at) => ({ id: `${name}-${n}-${at}`, embedding: [n + 1, at, 1, 2], metadata: { name, n } }));
    await collection.upsert(entries);
    process.send(n);
  }
  await collection.close();
  process.disconnect();
})();
