// A device that is not the processor: WebGPU, where this machine has it (`npm run test:webgpu` brings one that computes on the processor).
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { OptimizedEmbeddingGenerator } from 'embedcore';
import { describe, expect, test } from 'vitest';

import { distance, failure, model, ready, root, runProgram as run } from './support';

const program = (name: string) => join(root, '__test__', 'programs', name);
const modelPath = model('bert-mean');
const executionProviders = ['webgpu', 'cpu'] as const;
const options = { modelPath, executionProviders: [...executionProviders] };

const missing = await (async () => {
  const generator = new OptimizedEmbeddingGenerator(options);
  const error = await generator.initialize().then(() => undefined, ({ message }: Error) => message);
  await generator.cleanup();
  return error;
})();
if (missing) console.log(`Skipped: ${missing}`);

const texts = Array.from({ length: 37 }, (_, i) => `text ${i} ${'reads a file and parses it '.repeat(i % 7)}`);

describe.skipIf(missing)('WebGPU', () => {
  test('a text alone, in a batch, among others and with another size gives the vector of the processor', async () => {
    const [device, processor] = [await ready(options), await ready({ modelPath, executionProviders: ['cpu'] })];
    const expected = await processor.embed(texts);
    for (const call of [{}, { batchSize: 1 }, { batchSize: 3 }, { batchSize: 32, maxConcurrency: 1 }]) {
      expect(distance((await device.embed(texts, { ...call, bypassCache: true })).data, expected.data)).toBeLessThan(1e-4);
    }
    expect(distance((await device.embed([texts[5]!], { bypassCache: true })).row(0), expected.row(5))).toBeLessThan(1e-4);
  });

  test('every pooling happens there as on the processor, joined ones and layers too', async () => {
    for (const name of ['bert-cls', 'bert-max', 'bert-dense-identity', 'pooling-joined', 'pooling-weighted']) {
      const [device, processor] = [await ready({ ...options, modelPath: model(name) }), await ready({ modelPath: model(name), executionProviders: ['cpu'] })];
      expect(distance((await device.embed(texts.slice(0, 9))).data, (await processor.embed(texts.slice(0, 9))).data), name).toBeLessThan(1e-4);
      expect(device.getModelInfo().pooling, name).toEqual(processor.getModelInfo().pooling);
    }
  });

  test('two generators share a device', async () => {
    const [one, other] = await Promise.all([ready(options), ready({ ...options, modelPath: model('bert-cls') })]);
    const together = await Promise.all([one.embed(texts), other.embed(texts), one.embed(texts.toReversed(), { bypassCache: true })]);
    expect(distance(together[0].row(3), together[2].row(texts.length - 4))).toBeLessThan(1e-5);
    expect(await other.embed(texts, { bypassCache: true })).toMatchObject({ rows: texts.length });
  });

  test('a call that is aborted ends soon, and the next one is answered', async () => {
    const generator = await ready(options);
    const stop = new AbortController();
    const call = failure(() => generator.embed(Array.from({ length: 400 }, (_, i) => `${i} ${texts[6]}`), { signal: stop.signal, progressCallback: () => stop.abort() }));
    expect(await call).toMatchObject({ code: 'ABORTED' });
    expect((await generator.embed(['next'])).rows).toBe(1);
  });

  test('a process may end while it computes, and so may a worker thread', async () => {
    for (const how of ['exit', 'return']) {
      expect(await run(program('exit.cjs'), [how, modelPath, '20', JSON.stringify({ executionProviders })])).toMatchObject({ code: 7, err: '' });
    }
    const worker = new Worker(program('worker.cjs'), { workerData: { modelPath, endless: true, options: { executionProviders } } });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await worker.terminate();
    expect((await (await ready(options)).embed(['still here'])).rows).toBe(1);
  });
});
