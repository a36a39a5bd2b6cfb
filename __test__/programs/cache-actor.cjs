// Makes calls on one cache: for a test in its own process, or, as a program, for one that sends them. Values are numbers.
const { InferenceCache, IntelligentEmbeddingCache } = require('../..');

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const vector = (id) => [id, 1];
const idOf = (embedding) => (embedding[1] === 1 ? embedding[0] : NaN);

const embeddings = {
  make: (options) => new IntelligentEmbeddingCache(options),
  get: async (cache, { key, content }) => (await cache.get(key, content).then((found) => found && idOf(found.embedding))) ?? null,
  has: (cache, { key, content }) => cache.has(key, content),
  set: (cache, { entries: [{ key, content, id }] }) => cache.set(key, content, vector(id)),
  getMany: async (cache, { lookups }) => {
    const found = await cache.getMany(lookups);
    return Array.from(found.hits, (hit, i) => (hit ? idOf(found.row(i)) : null));
  },
  setMany: (cache, { entries }) => cache.setMany(entries.map(({ key, content, id }) => ({ key, content, embedding: vector(id) }))),
  delete: (cache, { key }) => cache.delete(key),
  clear: (cache) => cache.clear(),
  getOrCompute: async (cache, { key, content, id, ms }) => {
    const compute = async () => (await sleep(ms), vector(id));
    return idOf((await cache.getOrCompute(key, content, compute)).embedding);
  },
  findSimilar: async (cache) => (await cache.findSimilar(vector(0), { limit: 100 })).map(({ key, embedding }) => ({ key, id: idOf(embedding) })),
};

const results = {
  make: (options) => new InferenceCache(options),
  get: async (cache, { key, type }) => (await cache.get(key, { type }))?.value.id ?? null,
  has: (cache, { key, type }) => cache.has(key, { type }),
  set: (cache, { entries: [{ key, id, type, tags }] }) => cache.set(key, { id }, { type, tags }),
  getMany: async (cache, { lookups }) =>
    (await cache.getMany(lookups.map(({ key, type }) => ({ content: key, type })))).map((found) => found?.value.id ?? null),
  setMany: (cache, { entries }) => cache.setMany(entries.map(({ key, id, type, tags }) => ({ content: key, value: { id }, type, tags }))),
  delete: (cache, { key, type }) => cache.delete(key, { type }),
  clear: (cache) => cache.clear(),
  invalidate: (cache, { type, tag }) => cache.invalidate({ type, tag }),
  clearExpired: (cache) => cache.clearExpired(),
  getOrCompute: async (cache, { key, id, ms, type, tags }) =>
    (await cache.getOrCompute(key, { type, tags }, async () => (await sleep(ms), { id }))).value.id,
};

const both = {
  optimize: async (cache) => void (await cache.optimize()),
  flush: (cache) => cache.flush(),
  close: (cache) => cache?.close(),
};

/** Answers calls in the order in which they come. */
exports.actor = () => {
  let cache;
  let calls;
  const made = async (call) => {
    if (call.call !== 'open') return calls[call.call](cache, call);
    calls = { ...both, ...(call.of === 'results' ? results : embeddings) };
    cache = calls.make(call.options);
    return undefined;
  };
  // How often the file could not be used so far.
  const errors = () => cache?.getStats().disk?.errors ?? 0;
  return (call) =>
    made(call).then(
      (answer) => ({ answer, errors: errors() }),
      ({ code, message, stack }) => ({ failed: code ?? message, why: code === undefined ? stack : message, errors: errors() }),
    );
};

if (require.main === module) {
  const perform = exports.actor();
  process.on('message', ({ number, call }) => {
    if (call.call === 'exit') process.exit(0);
    perform(call).then((outcome) => process.send({ number, outcome }));
  });
  process.on('disconnect', () => process.exit(0));
}
