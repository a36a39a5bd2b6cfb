// The cache against what a user would build instead: lru-cache with a SHA-256 of the content in memory, better-sqlite3
// with the same tables on disk.

import { hash } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { PlainError, count, main } from './lib.mjs';

const usage = `node benchmark/cache.mjs [--entries N] [--large N] [--rounds N]

  --entries N   entries of the comparisons (default 20000)
  --large N     entries of the file whose opening is measured (default 1000000, about 2.2 GB in the temporary directory;
                0 leaves it out)
  --rounds N    how often contenders take turns (default 7)`;

const DIMENSIONS = 384;
const CONTENT = 500;
const BATCH = 1000;

const key = (i) => `src/module-${i % 97}/file-${i}.ts#function-${i}`;
const content = (i) => `${i} ${'reads a file and parses it into a tree of nodes; '.repeat(12)}`.slice(0, CONTENT);

function vector(i) {
  const values = new Float32Array(DIMENSIONS);
  for (let at = 0; at < DIMENSIONS; at++) values[at] = Math.sin(i * 0.37 + at);
  return values;
}

/** Milliseconds of each contender in each round, taking turns; then what one item takes, and how many times the first. */
async function compare(title, items, rounds, contenders) {
  const times = Object.fromEntries(Object.keys(contenders).map((name) => [name, []]));
  for (let round = -1; round < rounds; round++) {
    for (const [name, run] of Object.entries(contenders)) {
      const started = performance.now();
      await run(round);
      // The first round warms up.
      if (round >= 0) times[name].push(performance.now() - started);
    }
  }
  console.log(`\n${title}`);
  const [first] = Object.keys(contenders);
  for (const [name, taken] of Object.entries(times)) {
    const ratio = median(taken.map((ms, round) => ms / times[first][round]));
    const nanoseconds = (median(taken) / items) * 1e6;
    console.log(`  ${name.padEnd(44)} ${nanoseconds.toFixed(0).padStart(8)} ns   ${ratio.toFixed(2).padStart(6)} × ${first}`);
  }
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

async function memory(embedcore, { LRUCache }, entries, rounds) {
  const cache = new embedcore.IntelligentEmbeddingCache({ maxEntries: entries, maxMemoryMB: 4096 });
  const lru = new LRUCache({ max: entries, ttl: 3_600_000 });
  const lookups = Array.from({ length: entries }, (_, i) => ({ key: key(i), content: content(i) }));
  for (let i = 0; i < entries; i += BATCH) {
    const batch = lookups.slice(i, i + BATCH).map((lookup, at) => ({ ...lookup, embedding: vector(i + at) }));
    await cache.setMany(batch);
    for (const entry of batch) lru.set(entry.key, { hash: hash('sha256', entry.content), embedding: entry.embedding });
  }
  const pair = (lookup) => {
    const found = lru.get(lookup.key);
    return found && found.hash === hash('sha256', lookup.content) ? found.embedding : undefined;
  };
  let hits = 0;
  await compare(`Memory, many at once: ${CONTENT} characters of content, ${DIMENSIONS} values, a batch of ${BATCH}`, entries, rounds, {
    'lru-cache + crypto.hash': () => {
      for (const lookup of lookups) if (pair(lookup)) hits++;
    },
    'lru-cache + crypto.hash, copied to one array': () => {
      for (let i = 0; i < entries; i += BATCH) {
        const data = new Float32Array(BATCH * DIMENSIONS);
        for (let at = 0; at < BATCH; at++) data.set(pair(lookups[i + at]), at * DIMENSIONS);
        hits += data.length > 0 ? BATCH : 0;
      }
    },
    'embedcore getMany, vectors copied to one array': async () => {
      for (let i = 0; i < entries; i += BATCH) {
        const found = await cache.getMany(lookups.slice(i, i + BATCH));
        hits += found.data.length > 0 ? BATCH : 0;
      }
    },
    'embedcore getMany': async () => {
      for (let i = 0; i < entries; i += BATCH) {
        const found = await cache.getMany(lookups.slice(i, i + BATCH));
        hits += found.hits[0];
      }
    },
  });
  await compare(`Memory, one by one: the same`, entries, rounds, {
    'lru-cache + crypto.hash': () => {
      for (const lookup of lookups) if (pair(lookup)) hits++;
    },
    'lru-cache + crypto.hash, awaited': async () => {
      const get = async (lookup) => pair(lookup);
      for (const lookup of lookups) if (await get(lookup)) hits++;
    },
    'lru-cache + crypto.hash, awaited, as number[]': async () => {
      const get = async (lookup) => {
        const embedding = pair(lookup);
        const numbers = new Array(DIMENSIONS);
        for (let i = 0; i < DIMENSIONS; i++) numbers[i] = embedding[i];
        return numbers;
      };
      for (const lookup of lookups) if (await get(lookup)) hits++;
    },
    'embedcore get': async () => {
      for (const lookup of lookups) if (await cache.get(lookup.key, lookup.content)) hits++;
    },
  });
  if (cache.getStats().misses > 0) throw new PlainError('There were misses: the figures say nothing.');
  await cache.close();
}

/** The tables of the cache's file, and what a careful user would say to SQLite about them. */
function peer(Database, path) {
  const db = new Database(path);
  db.pragma('page_size = 8192');
  db.pragma('auto_vacuum = INCREMENTAL');
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = NORMAL');
  db.exec(`
    CREATE TABLE entries (id INTEGER PRIMARY KEY, key BLOB NOT NULL, space INTEGER NOT NULL, kind TEXT NOT NULL,
      created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, used_ms INTEGER NOT NULL, checksum INTEGER NOT NULL,
      content BLOB, format INTEGER NOT NULL, vector BLOB NOT NULL, note BLOB NOT NULL);
    CREATE UNIQUE INDEX entries_key ON entries(key);
    CREATE INDEX entries_space ON entries(space, kind);
    CREATE INDEX entries_used ON entries(used_ms);
    CREATE INDEX entries_expires ON entries(expires_ms) WHERE expires_ms < 9223372036854775807;`);
  const insert = db.prepare(
    `INSERT INTO entries (key, space, kind, created_ms, expires_ms, used_ms, checksum, content, format, vector, note)
     VALUES (?, 1, '', ?, ?, ?, 0, ?, 0, ?, ?) ON CONFLICT (key) DO UPDATE SET vector = excluded.vector`,
  );
  const select = db.prepare('SELECT content, vector, note, expires_ms FROM entries WHERE key = ?');
  const digest = (text) => hash('sha256', text, 'buffer');
  return {
    insertMany: db.transaction((batch) => {
      const now = Date.now();
      for (const { key, content, embedding } of batch) {
        const bytes = new Uint8Array(embedding.buffer, embedding.byteOffset, embedding.byteLength);
        insert.run(digest(key), now, now + 3_600_000, now, digest(content), bytes, Buffer.from(key));
      }
    }),
    get({ key, content }) {
      const row = select.get(digest(key));
      if (!row || row.expires_ms <= Date.now() || !digest(content).equals(row.content)) return undefined;
      const { buffer, byteOffset, byteLength } = row.vector;
      return new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
    },
    close: () => db.close(),
  };
}

async function disk(embedcore, Database, entries, rounds, directory) {
  const all = Array.from({ length: entries }, (_, i) => ({ key: key(i), content: content(i), embedding: vector(i) }));
  let db;
  let cache;
  const fresh = async (round) => {
    await cache?.close();
    cache = new embedcore.IntelligentEmbeddingCache({ persistPath: join(directory, `ours-${round}.db`), maxEntries: 1 });
    await cache.flush();
  };
  await compare(`Disk, insert ${entries} in batches of ${BATCH}, until all is in the file`, entries, Math.min(rounds, 5), {
    'better-sqlite3, same tables': (round) => {
      db?.close();
      db = peer(Database, join(directory, `theirs-${round}.db`));
      for (let i = 0; i < entries; i += BATCH) db.insertMany(all.slice(i, i + BATCH));
    },
    'embedcore setMany, flush': async (round) => {
      await fresh(round);
      for (let i = 0; i < entries; i += BATCH) await cache.setMany(all.slice(i, i + BATCH));
      await cache.flush();
    },
  });
  const order = Array.from({ length: entries }, (_, i) => all[(i * 7919) % entries]);
  let hits = 0;
  await compare('Disk, look up, not in memory', entries, rounds, {
    'better-sqlite3, same tables': () => {
      for (const lookup of order) if (db.get(lookup)) hits++;
    },
    [`embedcore getMany of ${BATCH}`]: async () => {
      for (let i = 0; i < entries; i += BATCH) hits += (await cache.getMany(order.slice(i, i + BATCH))).data.length;
    },
    'embedcore get, one after the other': async () => {
      for (const lookup of order) if (await cache.get(lookup.key, lookup.content)) hits++;
    },
    'embedcore get, 64 at a time': async () => {
      for (let i = 0; i < entries; i += 64) {
        await Promise.all(order.slice(i, i + 64).map((lookup) => cache.get(lookup.key, lookup.content)));
      }
    },
  });
  const { misses, diskHits } = cache.getStats();
  if (misses > 0) throw new PlainError(`There were misses: the figures say nothing.`);
  console.log(`  (${diskHits} of our answers came from disk)`);
  await cache.close();
  db.close();
}

/** Each step in a process of its own, which holds nothing else: filling the file, then opening it, three times. */
function large(entries, directory) {
  const path = join(directory, 'large.db');
  console.log(`\nA file of ${entries} entries, 100 MB of memory`);
  for (const step of ['fill', 'open', 'open', 'open']) {
    const args = [fileURLToPath(import.meta.url), `--${step}`, path, String(entries)];
    // V8 would let this script's garbage pile up to some 50 MB.
    const child = spawnSync(process.execPath, ['--max-semi-space-size=2', ...args], { encoding: 'utf8' });
    process.stdout.write(child.stdout || child.stderr);
  }
}

const limits = { maxEntries: 1e6, maxMemoryMB: 100, ttlSeconds: 1e9 };

async function fill(path, entries) {
  const { default: embedcore } = await import('../dist/index.js');
  const cache = new embedcore.IntelligentEmbeddingCache({ ...limits, persistPath: path });
  const started = performance.now();
  for (let i = 0; i < entries; i += BATCH) {
    await cache.setMany(
      Array.from({ length: BATCH }, (_, at) => ({ key: key(i + at), content: content(i + at), embedding: vector(i + at) })),
    );
  }
  const busy = resident();
  await cache.flush();
  const seconds = (performance.now() - started) / 1000;
  await rest();
  console.log(
    `  written in ${seconds.toFixed(0)} s, ${(statSync(path).size / 2 ** 20).toFixed(0)} MB; RSS ${busy} at the end, ${resident()} at rest`,
  );
  await cache.close();
}

/** Open, first answer; then memory full, and how much the process takes. */
async function open(path, entries) {
  const { default: embedcore } = await import('../dist/index.js');
  // Loads the addon, which is not what is measured.
  await new embedcore.IntelligentEmbeddingCache().close();
  const before = resident();
  const started = performance.now();
  const cache = new embedcore.IntelligentEmbeddingCache({ ...limits, persistPath: path });
  const i = Math.floor(entries / 2);
  const found = await cache.get(key(i), content(i));
  const ms = performance.now() - started;
  if (found?.embedding[3] !== vector(i)[3]) throw new PlainError('The first lookup was not answered.');
  for (let at = 0; at < 150_000; at += BATCH) {
    const lookups = Array.from({ length: BATCH }, (_, n) => (at + n * 13) % entries).map((n) => ({ key: key(n), content: content(n) }));
    await cache.getMany(lookups);
  }
  const { currentSizeBytes, currentEntries } = cache.getStats();
  const busy = resident();
  await rest();
  console.log(
    `  opened and first answer: ${ms.toFixed(1)} ms, RSS ${before}; with ${currentEntries} entries (${mb(currentSizeBytes)} MB) in ` +
      `memory ${busy}, at rest ${resident()}`,
  );
  await cache.close();
}

const mb = (bytes) => (bytes / 2 ** 20).toFixed(0);
const rest = () => new Promise((done) => setTimeout(done, 1500));

/** RSS, and how much of it is the heap of V8: garbage of this script, mostly. */
function resident() {
  const { rss, heapTotal, arrayBuffers } = process.memoryUsage();
  return `${mb(rss)} MB (V8 ${mb(heapTotal + arrayBuffers)})`;
}

main(async () => {
  const step = { '--fill': fill, '--open': open }[process.argv[2]];
  if (step) return step(process.argv[3], Number(process.argv[4]));
  const { values } = parseArgs({
    options: {
      entries: { type: 'string', default: '20000' },
      large: { type: 'string', default: '1000000' },
      rounds: { type: 'string', default: '7' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return console.log(usage);
  const entries = Math.ceil(count(values.entries, '--entries') / BATCH) * BATCH;
  const rounds = count(values.rounds, '--rounds');
  const { default: embedcore } = await import('../dist/index.js').catch((cause) => {
    throw new PlainError(`Build embedcore first: ${cause.message}`);
  });
  const peers = await Promise.all([import('lru-cache'), import('better-sqlite3')]).catch((cause) => {
    throw new PlainError(`Install the peers first: npm ci in benchmark/. ${cause.message}`);
  });
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-benchmark-'));
  try {
    await memory(embedcore, peers[0], entries, rounds);
    await disk(embedcore, peers[1].default, entries, rounds, directory);
    if (values.large !== '0') large(count(values.large, '--large'), directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
