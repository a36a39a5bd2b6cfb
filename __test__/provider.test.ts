import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { OptimizedEmbeddingGenerator, type ExecutionProvider } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { failure, host, model, ready, root } from './support';

const modelPath = model('bert-mean');

test('the CPU is the default, and changes nothing when it is named', async () => {
  const [one, other] = [await ready({ modelPath }), await ready({ modelPath, executionProviders: ['cpu'] })];
  expect(one.getModelInfo().executionProviders).toEqual(['cpu']);
  expect(other.getModelInfo()).toEqual(one.getModelInfo());
  expect(await other.embed(['a'])).toMatchObject({ data: (await one.embed(['a'])).data });
});

test.each(['cuda', 'coreml', 'directml', 'webgpu', 'tensorrt-rtx'] as const)('%s is used where the runtime has it and it works, else refused with what there is', async (provider) => {
  const generator = new OptimizedEmbeddingGenerator({ modelPath, executionProviders: [provider, 'cpu'] });
  // This platform's library may have one of them; no library has all of them.
  try {
    await generator.initialize();
    const { executionProviders, providers } = generator.getModelInfo();
    expect(executionProviders).toEqual([provider, 'cpu']);
    expect(providers.reduce((sum, { nodes }) => sum + nodes!, 0)).toBeCloseTo(1, 9);
    expect(providers[1]!.reason).toContain('left to it');
    expect(generator.getModelInfo().fingerprint).not.toBe((await ready({ modelPath })).getModelInfo().fingerprint);
  } catch (error) {
    expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'executionProviders' } });
    expect((error as Error).message).toMatch(new RegExp(`onnxruntime.* does not offer '${provider}'; it offers .*'cpu'.*ORT_DYLIB_PATH|'${provider}' cannot be used here: `));
  } finally {
    await generator.cleanup();
  }
});

test("'webgpu' comes from its package, where that is installed and there is a card; else it is said what to do", async () => {
  const generator = new OptimizedEmbeddingGenerator({ modelPath, executionProviders: ['webgpu', 'cpu'] });
  const error = await generator.initialize().then(() => undefined, (error: Error) => error);
  if (error) {
    expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'executionProviders' } });
    expect(error.message).toMatch(/'webgpu' cannot be used here: |package embedcore-webgpu-[\w-]+ is not installed: install it beside embedcore|its makers build none for this platform/);
  }
  await generator.cleanup();
});

test('what computes is told with its library, and why', async () => {
  const { providers, executionProviders, engineReason } = (await ready({ modelPath })).getModelInfo();
  expect(executionProviders).toEqual(['cpu']);
  expect(providers).toEqual([{ name: 'cpu', device: expect.any(String), library: expect.stringMatching(/onnxruntime/), version: expect.stringMatching(/^\d+(\.\d+)*$/), reason: engineReason, nodes: 1 }]);
  expect((await ready({})).getModelInfo().providers).toMatchObject([{ name: 'cpu', nodes: 1 }]);
});

test("'auto' is the CPU where nothing else is faster and agrees, and says why", async () => {
  const generator = await ready({ modelPath, executionProviders: 'auto', engine: 'onnxruntime' });
  const info = generator.getModelInfo();
  const named = (await ready({ modelPath, executionProviders: ['cpu'] })).getModelInfo();
  if (info.executionProviders[0] !== 'cpu') return;
  expect(info).toMatchObject({ fingerprint: named.fingerprint, executionProviders: ['cpu'] });
  expect(info.engineReason).toMatch(/alone|leaves nothing to gain|times as fast|cosine|failed|cannot/);
  expect(info.providers[0]!.reason).toBe(info.engineReason);
  expect((await ready({ executionProviders: 'auto' })).getModelInfo().engineReason).toContain('built-in model');
});

test('a limit of the memory on a device is refused where it cannot be kept', async () => {
  const generator = new OptimizedEmbeddingGenerator({ modelPath, executionProviders: ['coreml'], deviceMemoryLimit: 100 });
  expect(await failure(() => generator.initialize())).toMatchObject({ code: 'INVALID_CONFIG' });
  expect((await ready({ modelPath, deviceMemoryLimit: 100 })).getModelInfo().executionProviders).toEqual(['cpu']);
});

describe('a plugin', () => {
  const refusal = async (plugin: object) => failure(() => new OptimizedEmbeddingGenerator({ modelPath, executionProviders: [plugin as ExecutionProvider, 'cpu'] }).initialize());

  test.each([
    [{}, 'executionProviders[0].library', /needs the path/],
    [{ library: 1 }, 'executionProviders[0].library', /1/],
    [{ library: 'p.so', name: '' }, 'executionProviders[0].name', /name/],
    [{ library: 'p.so', device: -1 }, 'executionProviders[0].device', /-1/],
    [{ library: 'p.so', device: 0.5 }, 'executionProviders[0].device', /0.5/],
    [{ library: 'p.so', options: { a: 1 } }, 'executionProviders[0].options.a', /1/],
    [{ library: 'p.so', options: [] }, 'executionProviders[0].options', /options/],
    [{ library: 'p.so', path: 'x' }, 'executionProviders[0].path', /no such option/],
  ])('%j is refused', async (plugin, option, message) => {
    const error = await refusal(plugin);
    expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option }, message: expect.stringMatching(message) });
  });

  test('that is not there, is cut off or is no plugin is an error that names it', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'embedcore-plugin-'));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    const { library } = (await ready({ modelPath })).getModelInfo().providers[0]!;
    const cut = join(directory, 'cut.so');
    writeFileSync(cut, readFileSync(library!).subarray(0, 10_000));
    const addon = join(root, 'npm', host, `embedcore.${host}.node`);
    for (const path of [join(directory, 'nowhere.so'), directory, cut, addon]) {
      const error = await refusal({ library: path, name: 'Mine', options: { a: 'b' } });
      expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'executionProviders' } });
      expect(error.message).toContain(path);
    }
  });
});

test.each([[[]], [['gpu']], ['cuda'], [['cpu', 'cpu']], [[1]], [[null]], [{}]])('%j is refused', async (executionProviders) => {
  const error = await failure(() => new OptimizedEmbeddingGenerator({ executionProviders: executionProviders as ExecutionProvider[] }));
  expect(error).toMatchObject({ code: 'INVALID_CONFIG', details: { option: 'executionProviders' } });
});
