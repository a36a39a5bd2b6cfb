// A collection whose file is held, damaged, on a full disk, or fed with what nobody would write.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { EmbeddingCollection, type CollectionOptions, type TextDocument } from 'embedcore';
import { expect, onTestFinished, test } from 'vitest';

import { directory, holding, timed } from './files';
import { failure, model, ready, root } from './support';

const demo = { modelPath: model('demo') };
const INVALID = { code: 'INVALID_ARGUMENT' };
const STORAGE = { code: 'CACHE_STORAGE_FAILED' };

function open(options: CollectionOptions = {}): EmbeddingCollection {
  const collection = new EmbeddingCollection(options);
  onTestFinished(() => collection.close());
  return collection;
}

const points = (count: number) => Array.from({ length: count }, (_, n) => ({ id: `p${n}`, text: `text ${n}`, embedding: [Math.cos(n), Math.sin(n), 0.5], metadata: { n } }));

test('a file whose write lock is held is read, and written when its turn comes', async (context) => {
  const path = join(directory(), 'notes.db');
  const collection = open({ path });
  await collection.upsert(points(20));
  const held = await holding(context, 'write', path);
  const other = open({ path });
  expect(await timed(() => other.query([1, 0, 0.5]))).toBeLessThan(10_000);
  expect(await other.count()).toBe(20);
  let done = false;
  const writing = collection.upsert([{ id: 'late', embedding: [1, 2, 3] }]).then(() => (done = true));
  expect(await other.get('late')).toBeNull();
  expect(done).toBe(false);
  held.release();
  await writing;
  expect(await other.get('late')).toMatchObject({ id: 'late' });
});

test('a damaged file answers right, or says that it is damaged', async () => {
  const place = directory();
  const path = join(place, 'notes.db');
  const collection = new EmbeddingCollection({ path });
  await collection.upsert(points(400));
  const query = [1, 0, 0.5];
  const ask = async (of: EmbeddingCollection) => [await of.query(query, { limit: 5 }), await of.get(['p3', 'p399']), await of.count({ n: { lt: 7 } })];
  const expected = await ask(collection);
  await collection.close();
  const whole = readFileSync(path);
  let told = 0;
  for (let at = 50; at < whole.length; at += Math.floor(whole.length / 60)) {
    const bytes = Buffer.from(whole);
    for (let i = at; i < Math.min(at + 16, bytes.length); i++) bytes[i]! ^= 0x5a;
    const damaged = join(place, `damaged-${at}.db`);
    writeFileSync(damaged, bytes);
    const of = new EmbeddingCollection({ path: damaged });
    try {
      expect(await ask(of), `byte ${at}`).toEqual(expected);
    } catch (error) {
      expect(error, `byte ${at}`).toMatchObject({ ...STORAGE, message: expect.stringContaining(damaged) as string });
      told++;
    } finally {
      await of.close();
    }
  }
  expect(told).toBeGreaterThan(3);
  // Cut off in the middle.
  writeFileSync(path, whole.subarray(0, whole.length / 2));
  expect(await failure(() => open({ path }).query(query, { limit: 400 }))).toMatchObject(STORAGE);
});

test('a full disk is told, keeps nothing of the call, and all of those before', (context) => {
  const mounted = join(directory(), 'small');
  mkdirSync(mounted);
  const mounts = process.getuid?.() === 0 && spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', mounted]).status === 0;
  if (!mounts) return context.skip();
  onTestFinished(() => void execFileSync('umount', ['-l', mounted]));
  const code = `const { EmbeddingCollection } = require(${JSON.stringify(root)});
    (async () => {
      const path = ${JSON.stringify(join(mounted, 'notes.db'))};
      let collection = new EmbeddingCollection({ path });
      let kept = 0;
      try {
        for (; kept < 10000; kept += 100) await collection.upsert(Array.from({ length: 100 }, (_, i) => ({ id: 'p' + (kept + i), text: 'x'.repeat(500), embedding: [1, i, kept] })));
      } catch (error) { console.log(error.code); }
      console.log(kept > 0 && kept === await collection.count(), (await collection.query([1, 2, 3])).length);
      await collection.close();
      collection = new EmbeddingCollection({ path });
      console.log(kept === await collection.count());
      await collection.close();
    })();`;
  expect(execFileSync(process.execPath, ['-e', code], { encoding: 'utf8' })).toBe('CACHE_STORAGE_FAILED\ntrue 10\ntrue\n');
});

test('documents of every kind are kept as they are', async () => {
  const hard: Record<string, string> = {
    word: 'x'.repeat(5000), emoji: '👩‍👩‍👧‍👦🦀'.repeat(100), 'crlf.md': '# A\r\n\r\nText\twith tabs.\r\n'.repeat(40), 'fence.md': `# A\n\n\`\`\`js\n${'let a = 1;\n\n'.repeat(100)}`,
    'table.md': `| a | b |\n|---|---|\n${'| some cell | another |\n'.repeat(80)}`, 'front.md': `---\ntitle: x\n---\n\n${'Words of it. '.repeat(80)}`, 'html.md': `# A\n\n<details>\n${'<p>Text</p>\n'.repeat(90)}</details>\n`,
    nul: `a\0b ${'c '.repeat(300)}`, nothing: '', space: ' \n\t', half: `\ud800 alone ${'and more words '.repeat(60)}`,
  };
  const path = join(directory(), 'notes.db');
  const collection = open({ path, generator: await ready(demo) });
  const documents: TextDocument[] = Object.entries(hard).map(([id, text]) => ({ id, text, metadata: { when: new Date(0), deep: { list: [1, { a: null }] } } }));
  expect(await collection.sync(documents)).toMatchObject({ added: documents.length });
  for await (const { text, source, metadata } of collection.export()) {
    const original = hard[source!.id]!.slice(source!.start, source!.end);
    // What is no whole character cannot be kept in UTF-8.
    expect(text).toBe(original.toWellFormed());
    expect(metadata).toEqual({ when: '1970-01-01T00:00:00.000Z', deep: { list: [1, { a: null }] } });
  }
  expect(await collection.count({ when: { lte: new Date(0) }, 'deep.list': [1, { a: null }] } as never)).toBe(await collection.count());
  expect(await collection.sync(documents)).toMatchObject({ unchanged: documents.length, embedded: 0 });
});

test('what cannot be kept is refused by name, and nothing of it is there', async () => {
  const collection = open({ generator: await ready(demo) });
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  const good = { id: 'good', text: 'a good one' };
  for (const wrong of [{ id: '', text: 'x' }, { id: 'x'.repeat(2 ** 20), text: 'x' }, { id: 'x', text: 7 }, { id: 'x', text: 'x', metadata: circular }, { id: 'x', text: 'x', metadata: 'y' }, null]) {
    expect(await failure(() => collection.sync([wrong as never]))).toMatchObject(INVALID);
  }
  expect(await collection.count()).toBe(0);
  expect(await failure(() => collection.upsert([good, { id: 'huge', text: 'word '.repeat(2 ** 20) }]))).toMatchObject({ code: expect.stringMatching(/^(INPUT_TOO_LONG|INVALID_ARGUMENT)$/) as string });
  expect(await collection.count()).toBe(0);
  for (const options of [{ maxTokens: 1 }, { maxTokens: 10, overlap: 10 }, { overlap: 100_000 }, { remove: 'no' }, { format: 'pdf' }]) {
    const { code } = await failure(() => collection.sync([good], options as never));
    expect(['INVALID_ARGUMENT', 'INVALID_CONFIG'], JSON.stringify(options)).toContain(code);
  }
  expect(await collection.count()).toBe(0);
  await collection.upsert([good]);
  expect(await failure(() => collection.upsert([{ id: 'x', embedding: [1, 2] }]))).toMatchObject(INVALID);
  expect(await failure(() => collection.query([1, 2]))).toMatchObject(INVALID);
  const short = open({ dimensions: 3 });
  expect(await failure(() => short.upsert([{ id: 'x', embedding: [1, 2] }]))).toMatchObject(INVALID);
  expect(await short.count()).toBe(0);
});

test('all entries alike, zeros, and more asked for than there are', async () => {
  const collection = open();
  await collection.upsert(Array.from({ length: 300 }, (_, n) => ({ id: String(n).padStart(3, '0'), embedding: [1, 1] })));
  await collection.upsert([{ id: 'zero', embedding: [0, 0] }]);
  const all = await collection.query([2, 2], { limit: 1000 });
  expect(all).toHaveLength(301);
  expect(all[300]).toMatchObject({ id: 'zero', score: 0 });
  expect(all.slice(0, 3).map(({ id, score }) => [id, score])).toEqual([['000', 1], ['001', 1], ['002', 1]]);
  expect((await collection.query([2, 2], { limit: 5 })).map(({ id }) => id)).toEqual(['000', '001', '002', '003', '004']);
  expect((await collection.query([0, 0], { limit: 2 })).map(({ id, score }) => [id, score])).toEqual([['000', 0], ['001', 0]]);
  expect(await collection.query([1, 1], { filter: { missing: { gt: 1 } } })).toEqual([]);
});
