// Images → vectors: those of an independent implementation (`fixtures/images.py`), whatever kind of file they come from.
import { copyFileSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { crc32 } from 'node:zlib';

import { IntelligentEmbeddingCache, OptimizedEmbeddingGenerator, type ImageInput } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { copyOf, cosine, distance, failure, model, ready, root } from './support';

interface Golden {
  models: { name: string; output: string; dimensions: number; images: { file: string; tolerance: number; vector: number[] }[] }[];
}

const golden = JSON.parse(readFileSync(join(root, 'fixtures', 'golden-images.json'), 'utf8')) as Golden;
const file = (name: string) => join(root, 'fixtures', 'images', name);
const bytes = (name: string) => new Uint8Array(readFileSync(file(name)));

/** A directory that is gone after the test. */
function folder(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-images-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A PNG that says of itself that it is so large, and has nothing more. */
function headerOf(width: number, height: number): Uint8Array {
  const chunk = (kind: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(kind), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32 ? crc32(body) : 0);
    return Buffer.concat([length, body, sum]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  return Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]), chunk('IHDR', header), chunk('IDAT', Buffer.alloc(0))]);
}

const vision = (options = {}) => ready({ modelPath: model('clip-vision'), cache: false, ...options });

describe.each(golden.models)('$name', ({ name, output, dimensions, images }) => {
  test('gives the vectors of the reference, alone and in a batch', async () => {
    const generator = await ready({ modelPath: model(name), cache: false });
    expect(generator.getModelInfo()).toMatchObject({ modality: 'image', output, dimensions, maxLength: 0, normalize: false });
    const all = await generator.embedImages(images.map((image) => file(image.file)));
    for (const [row, { file: name, tolerance, vector }] of images.entries()) {
      expect(distance(all.row(row), vector), name).toBeLessThanOrEqual(tolerance);
      const alone = await generator.embedImages([bytes(name)]);
      expect(distance(alone.row(0), all.row(row)), name).toBeLessThanOrEqual(1e-6);
    }
  });
});

test('images are answered in order, equal ones once, and the next time from the cache, by their content', async () => {
  const cache = new IntelligentEmbeddingCache();
  onTestFinished(() => cache.close());
  const generator = await ready({ modelPath: model('clip-vision'), cache });
  const copy = join(folder(), 'a copy');
  copyFileSync(file('tall.png'), copy);
  const images: ImageInput[] = [file('rgb.png'), file('tall.png'), bytes('rgb.png'), pathToFileURL(copy), relative(process.cwd(), file('wide.png'))];
  const first = await generator.embedImages(images);
  expect(first.rows).toBe(5);
  expect([...first.row(2)]).toEqual([...first.row(0)]);
  expect([...first.row(3)]).toEqual([...first.row(1)]);
  expect(cosine(first.row(0), first.row(4))).toBeLessThan(0.999);
  expect(cache.getStats().modalities.image).toMatchObject({ hits: 0, misses: 3, sets: 3, currentEntries: 3 });
  const second = await generator.embedImages([bytes('wide.png'), file('rgb.png')]);
  expect([[...second.fromCache], [...second.row(0)]]).toEqual([[1, 1], [...first.row(4)]]);
  expect(cache.getStats().modalities).toMatchObject({ image: { hits: 2, misses: 3 }, text: { totalRequests: 0 } });
  const [one, other] = await Promise.all([generator.embedImages([file('rgba.png')]), generator.embedImages([bytes('rgba.png')])]);
  expect([...one.row(0)]).toEqual([...other.row(0)]);
  expect(cache.getStats().modalities.image.sets).toBe(4);
});

test('a cache on disk answers the next process, and one with other preprocessing is another', async () => {
  const persistPath = join(folder(), 'cache.db');
  const first = await ready({ modelPath: model('clip-vision'), cache: { persistPath } });
  await first.embedImages([file('rgb.png')]);
  await first.cleanup();
  const again = await ready({ modelPath: model('clip-vision'), cache: { persistPath } });
  expect([...(await again.embedImages([file('rgb.png')])).fromCache]).toEqual([1]);
  const changed = copyOf('clip-vision');
  const config = join(changed, 'preprocessor_config.json');
  writeFileSync(config, readFileSync(config, 'utf8').replace('"resample": 3', '"resample": 2'));
  const other = await ready({ modelPath: changed, cache: { persistPath } });
  expect(other.getModelInfo().fingerprint).not.toBe(again.getModelInfo().fingerprint);
  expect([...(await other.embedImages([file('rgb.png')])).fromCache]).toEqual([0]);
});

test('the model decides which call is right, and the other one names it', async () => {
  const [images, texts] = [await vision(), await ready({ modelPath: model('bert-mean'), cache: false })];
  const wrong: [string, () => Promise<unknown>][] = [
    ['embedImages()', () => images.embed(['a text'])],
    ['embedImages()', () => images.embedQuery('a text')],
    ['embedImages()', () => images.generateEmbeddings([{ nodeId: 'n', signature: 's', summary: '' }])],
    ['embed()', () => texts.embedImages([file('rgb.png')])],
  ];
  for (const [call, work] of wrong) {
    const error = await failure(work);
    expect([error.code, error.message]).toEqual(['INVALID_ARGUMENT', expect.stringContaining(call)]);
  }
  expect(texts.getModelInfo().modality).toBe('text');
  expect((await failure(() => new OptimizedEmbeddingGenerator().embedImages([file('rgb.png')]))).code).toBe('NOT_INITIALIZED');
});

test('what cannot be embedded is named by its index and its path, and the others are answered', async () => {
  const generator = await vision();
  const directory = folder();
  const cut = join(directory, 'cut.png');
  writeFileSync(cut, bytes('rgb.png').subarray(0, 3000));
  const jpeg = bytes('rgb.jpg');
  const wrong: [ImageInput | null, string, string][] = [
    [cut, 'INVALID_ARGUMENT', 'cut.png'],
    [jpeg.subarray(0, jpeg.length - 1000), 'INVALID_ARGUMENT', 'cut off'],
    [new TextEncoder().encode('no image'), 'INVALID_ARGUMENT', 'no PNG, JPEG, GIF, WebP or BMP'],
    [new Uint8Array(), 'INVALID_ARGUMENT', 'no bytes'],
    [join(directory, 'missing.png'), 'INVALID_ARGUMENT', 'missing.png'],
    [directory, 'INVALID_ARGUMENT', 'directory'],
    ['https://example.com/cat.png', 'INVALID_ARGUMENT', 'fetch it'],
    ['', 'INVALID_ARGUMENT', 'empty path'],
    [null, 'INVALID_ARGUMENT', 'null'],
    [headerOf(20_000, 20_000), 'INPUT_TOO_LONG', '20000 × 20000 pixels, more than the limit of 100000000'],
  ];
  for (const [image, code, message] of wrong) {
    const given = [file('grey.png'), image, file('rgb.png')] as ImageInput[];
    const error = await failure(() => generator.embedImages(given));
    expect([error.code, error.message, error.details.index]).toEqual([code, expect.stringContaining(message), 1]);
    expect(error.message).toMatch(/^Image 1/);
    const answered = await generator.embedImages(given, { onError: 'skip' });
    expect([...answered.errors].map(([index, { code }]) => [index, code])).toEqual([[1, code]]);
    expect([answered.row(0).some(Boolean), answered.row(1).some(Boolean), answered.row(2).some(Boolean)]).toEqual([true, false, true]);
  }
});

test('many that cannot be read cost the others nothing', async () => {
  const generator = await vision();
  const broken = bytes('rgb.png').subarray(0, 3000);
  const images = Array.from({ length: 60 }, (_, i) => (i % 3 === 1 ? Buffer.concat([broken, Uint8Array.of(i)]) : bytes(i % 2 ? 'rgb.bmp' : 'grey.png')));
  const { errors, fromCache, rows } = await generator.embedImages(images, { onError: 'skip' });
  expect([rows, errors.size, fromCache.some(Boolean)]).toEqual([60, 20, false]);
});

test('limits of a call hold: pixels, memory, time, a signal; progress is told', async () => {
  const generator = await vision();
  const tooLarge = await failure(() => generator.embedImages([file('rgb.png')], { maxPixels: 60 * 47 }));
  expect([tooLarge.code, tooLarge.details]).toEqual(['INPUT_TOO_LONG', { index: 0, path: file('rgb.png'), width: 61, height: 47, limit: 2820 }]);
  const noMemory = await failure(() => generator.embedImages([file('grey.png'), headerOf(9000, 9000)], { memoryLimit: 20 }));
  expect([noMemory.code, noMemory.details.index, noMemory.message]).toEqual(['MEMORY_LIMIT_EXCEEDED', 1, expect.stringContaining('make the image smaller')]);
  const aborted = AbortSignal.abort();
  expect((await failure(() => generator.embedImages([file('rgb.png')], { signal: aborted }))).code).toBe('ABORTED');
  const many = Array.from({ length: 3000 }, (_, i) => Buffer.concat([bytes('rgb.bmp'), Uint8Array.of(i & 255, i >> 8)]));
  expect((await failure(() => generator.embedImages(many, { timeoutMs: 1 }))).code).toBe('TIMED_OUT');
  const seen: [number, number][] = [];
  await generator.embedImages(many.slice(0, 100), { progressCallback: (processed, total) => void seen.push([processed, total]) });
  expect(seen.at(-1)).toEqual([100, 100]);
  expect(seen.every(([processed], at) => at === 0 || processed > seen[at - 1]![0])).toBe(true);
  expect((await failure(() => generator.embedImages([], { inputType: 'query' } as object))).code).toBe('INVALID_CONFIG');
  expect((await failure(() => generator.embedImages(file('rgb.png') as unknown as string[]))).message).toContain('[image]');
  expect((await generator.embedImages([])).rows).toBe(0);
});

test('bytes and the working directory count as they are when the call is made', async () => {
  const generator = await vision();
  const expected = await generator.embedImages([file('rgb.bmp')]);
  const [changing, before] = [bytes('rgb.bmp'), process.cwd()];
  const path = relative(before, file('rgb.bmp'));
  const running = generator.embedImages([changing, path]);
  changing.fill(0);
  process.chdir(tmpdir());
  onTestFinished(() => process.chdir(before));
  const found = await running;
  expect([[...found.row(0)], [...found.row(1)]]).toEqual([[...expected.row(0)], [...expected.row(0)]]);
});

test('what a model lacks, or has beside, is said when it is loaded', async () => {
  const broken = async (change: (directory: string) => void, name = 'clip-vision') => {
    const directory = copyOf(name);
    change(directory);
    return failure(() => new OptimizedEmbeddingGenerator({ modelPath: directory, cache: false }).initialize());
  };
  const file = (directory: string) => join(directory, 'preprocessor_config.json');
  const [missing, damaged, unknown] = await Promise.all([
    broken((directory) => {
      rmSync(file(directory));
      cpSync(join(model('bert-mean'), 'tokenizer.json'), join(directory, 'tokenizer.json'));
      cpSync(join(model('bert-mean'), 'config.json'), join(directory, 'config.json'));
    }),
    broken((directory) => writeFileSync(file(directory), '{')),
    broken((directory) => writeFileSync(file(directory), readFileSync(file(directory), 'utf8').replace('"do_resize"', '"do_pad": true, "do_resize"'))),
  ]);
  expect([missing.code, missing.message]).toEqual(['MODEL_INIT_FAILED', expect.stringContaining('preprocessor_config.json')]);
  expect([damaged.code, damaged.message]).toEqual(['MODEL_INIT_FAILED', expect.stringContaining('preprocessor_config.json')]);
  expect([unknown.code, unknown.message]).toEqual(['MODEL_INIT_FAILED', expect.stringContaining('do_pad')]);
});

test('vectors are scaled, cut and pooled as options say', async () => {
  const options = { normalize: true, dimensions: 8 };
  const [plain, scaled] = [await vision(), await vision(options)];
  const [a, b] = [(await plain.embedImages([file('rgb.png')])).row(0), (await scaled.embedImages([file('rgb.png')])).row(0)];
  expect(b).toHaveLength(8);
  expect(Math.hypot(...b)).toBeCloseTo(1, 5);
  expect(cosine(a.subarray(0, 8), b)).toBeCloseTo(1, 5);
  const pooled = await vision({ pooling: 'mean' });
  expect(pooled.getModelInfo()).toMatchObject({ output: 'last_hidden_state', pooling: 'mean', dimensions: 16 });
});
