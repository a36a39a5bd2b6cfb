// Models that read queries in one way and documents in another.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { CrossEncoder, OptimizedEmbeddingGenerator, SparseEncoder, type SparseVector } from 'embedcore';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';

import { startHub, type Hub } from './hub-server';
import { copyOf, failure, model, ready, root } from './support';

type Sparse = { indices: number[]; values: number[] };
interface Golden {
  texts: string[];
  sparse: { name: string; documents: Sparse[]; queries: Sparse[] }[];
  dense: { name: string; query: number[][]; document: number[][]; queryTokens: number[]; documentTokens: number[] }[];
}

const { texts, sparse, dense } = JSON.parse(readFileSync(join(root, 'fixtures/golden-routers.json'), 'utf8')) as Golden;

async function loaded<T extends { initialize(): Promise<void>; shutdown(): Promise<void> }>(encoder: T): Promise<T> {
  onTestFinished(() => encoder.shutdown());
  await encoder.initialize();
  return encoder;
}

/** Weights next to 0 may be there or not. */
function expectNear(found: SparseVector, expected: Sparse): void {
  const [one, other] = [new Map(Array.from(found.indices, (index, at) => [index, found.values[at]!])), new Map(expected.indices.map((index, at) => [index, expected.values[at]!]))];
  for (const index of new Set([...one.keys(), ...other.keys()])) expect(Math.abs((one.get(index) ?? 0) - (other.get(index) ?? 0))).toBeLessThanOrEqual(1e-5);
  expect([...found.indices]).toEqual([...found.indices].sort((a, b) => a - b));
}

describe.each(sparse)('$name', ({ name, documents, queries }) => {
  test('weighs documents by its graph and queries by how rare words are, alone, together and from the cache', async () => {
    const encoder = await loaded(new SparseEncoder({ modelPath: model(name) }));
    const alone = await loaded(new SparseEncoder({ modelPath: model(name), cache: false }));
    for (let round = 0; round < 2; round++) {
      for (const [inputType, expected] of [['document', documents], ['query', queries]] as const) {
        const found = await encoder.embed(texts, { inputType });
        found.forEach((vector, at) => expectNear(vector, expected[at]!));
        expect([...found.fromCache]).toEqual(texts.map(() => round));
        for (const [at, text] of texts.entries()) expectNear((await alone.embed([text], { inputType }))[0]!, expected[at]!);
      }
    }
    expect(encoder.getModelInfo()).toMatchObject({ task: 'sparse', maxLength: 64 });
    const [query] = await encoder.embed(['parse a json string'], { inputType: 'query' });
    expect(encoder.decode(query!, 1)[0]![1]).toBe(Math.max(...query!.values));
  });
});

describe.each(dense)('$name', (golden) => {
  test.each(['query', 'document'] as const)('reads a %s in its own way, alone, together and from the cache', async (inputType) => {
    const generator = await ready({ modelPath: model(golden.name) });
    const alone = await ready({ modelPath: model(golden.name), cache: false });
    const near = (row: Float32Array, expected: number[]) => expect(Math.max(...expected.map((value, at) => Math.abs(value - row[at]!)))).toBeLessThanOrEqual(1e-5);
    for (let round = 0; round < 2; round++) {
      const found = await generator.embed(texts, { inputType });
      texts.forEach((_, at) => near(found.row(at), golden[inputType][at]!));
      expect([...found.tokenCounts]).toEqual(golden[`${inputType}Tokens`]);
    }
    for (const [at, text] of texts.entries()) near((await alone.embed([text], { inputType })).row(0), golden[inputType][at]!);
    expect([...(await generator.countTokens(texts, { inputType }))]).toEqual(golden[`${inputType}Tokens`]);
  });

  test('is one space, which its files tell apart from others', async () => {
    const generator = await ready({ modelPath: model(golden.name) });
    const path = copyOf(golden.name);
    const file = join(path, 'router_config.json');
    const config = JSON.parse(readFileSync(file, 'utf8')) as { structure: Record<string, string[]>; parameters: { route_mappings: object } };
    // Both by the way of documents.
    config.structure = { document: config.structure.document! };
    config.parameters.route_mappings = { '(None, None)': 'document' };
    writeFileSync(file, JSON.stringify(config));
    const other = await ready({ modelPath: path });
    expect(other.getModelInfo().fingerprint).not.toBe(generator.getModelInfo().fingerprint);
    expect((await other.embed(['a'], { inputType: 'document' })).row(0)).toEqual((await generator.embed(['a'], { inputType: 'document' })).row(0));
  });
});

describe('a router', () => {
  test.each([
    ['router-sparse', [OptimizedEmbeddingGenerator, CrossEncoder], 'SparseEncoder'],
    ['router-dense', [SparseEncoder, CrossEncoder], 'OptimizedEmbeddingGenerator'],
    ['router-static', [SparseEncoder, CrossEncoder], 'OptimizedEmbeddingGenerator'],
  ] as const)('%s given to another class names the right one', async (name, classes, right) => {
    for (const type of classes) {
      const error = await failure(() => loaded(new type({ modelPath: model(name) })));
      expect([error.code, error.message]).toEqual(['MODEL_INIT_FAILED', expect.stringContaining(right)]);
    }
  });

  const routes = (path: string, change: (config: { types: Record<string, string>; structure: Record<string, string[]>; parameters: Record<string, unknown> }) => void) => {
    const file = join(path, 'router_config.json');
    const config = JSON.parse(readFileSync(file, 'utf8'));
    change(config);
    writeFileSync(file, JSON.stringify(config));
  };

  test.each<[string, string, (path: string) => void]>([
    ['modules.json names this file', 'router-dense', (path) => rmSync(join(path, 'router_config.json'))],
    ['no way for texts of a query', 'router-dense', (path) => routes(path, (config) => Object.assign(config, { structure: { document: config.structure.document }, parameters: { default_route: 'elsewhere' } }))],
    ['does not say of which type', 'router-dense', (path) => routes(path, (config) => Object.assign(config, { types: {} }))],
    ['has no modules', 'router-dense', (path) => routes(path, (config) => Object.assign(config.structure, { document: [] }))],
    ['points outside the model', 'router-dense', (path) => routes(path, (config) => Object.assign(config, { structure: { document: ['../x'] }, types: { '../x': 'a.Transformer' }, parameters: { default_route: 'document' } }))],
    ['it holds neither onnx/model.onnx', 'router-dense', (path) => rmSync(join(path, 'question_0_Transformer/onnx'), { recursive: true })],
    ['no such file, nor a vocabulary', 'router-dense', (path) => rmSync(join(path, 'question_0_Transformer/tokenizer.json'))],
    ['vectors of 16 values, that for queries of 8', 'router-static', (path) => routes(path, (config) => config.structure.query!.pop())],
    ['there is nothing to compute', 'router-sparse', (path) => routes(path, (config) => Object.assign(config.structure, { document: config.structure.query, other: config.structure.query, query: config.structure.query }))],
    ['names this file', 'router-sparse', (path) => rmSync(join(path, 'query_0_SparseStaticEmbedding/model.safetensors'))],
    ['it has no tensor weight', 'router-sparse', (path) => writeFileSync(join(path, 'query_0_SparseStaticEmbedding/model.safetensors'), readFileSync(join(model('table-half'), 'model.safetensors')))],
    ['not the JSON expected here', 'router-idf', (path) => writeFileSync(join(path, 'idf.json'), '{"a": "b"}')],
    ['there are no weights of tokens', 'router-idf', (path) => writeFileSync(join(path, 'idf.json'), '{}')],
  ])('says what is wrong with its files: %s', async (message, name, damage) => {
    const path = copyOf(name);
    damage(path);
    const error = await failure(() => loaded(name === 'router-sparse' || name === 'router-idf' ? new SparseEncoder({ modelPath: path }) : new OptimizedEmbeddingGenerator({ modelPath: path })));
    expect([error.code, error.message]).toEqual(['MODEL_INIT_FAILED', expect.stringContaining(message)]);
  });
});

describe('a router on the hub', () => {
  let hub: Hub;
  let cacheDir: string;

  beforeEach(async () => {
    hub = await startHub();
    cacheDir = mkdtempSync(join(tmpdir(), 'embedcore-router-'));
    onTestFinished(() => rmSync(cacheDir, { recursive: true, force: true }));
    vi.stubEnv('HF_ENDPOINT', hub.url);
    vi.stubEnv('HF_TOKEN_PATH', join(cacheDir, 'no token'));
    onTestFinished(() => void vi.unstubAllEnvs());
  });

  const ID = 'tiny/router';

  test.each(['router-dense', 'router-static'])('%s is fetched whole, both of its ways, and is what it is on disk', async (name) => {
    // What other programs need of it is left there.
    hub.add(ID, name, { 'README.md': '# a card', 'document_0_Transformer/model.safetensors': 'weights', 'document_0_Transformer/onnx/model_q4.onnx': 'another' });
    const [there, here] = [await ready({ modelPath: ID, cacheDir }), await ready({ modelPath: model(name) })];
    for (const inputType of ['query', 'document'] as const) {
      expect((await there.embed(texts, { inputType })).data).toEqual((await here.embed(texts, { inputType })).data);
    }
    expect(there.getModelInfo()).toMatchObject({ modelId: ID, repository: ID, revision: hub.models.get(ID)!.sha });
    for (const file of ['README.md', 'document_0_Transformer/model.safetensors', 'document_0_Transformer/onnx/model_q4.onnx']) expect(hub.fetched(file), file).toBe(0);
    for (const file of ['router_config.json', 'document_0_Transformer/onnx/model.onnx', 'document_1_Pooling/config.json']) expect(hub.fetched(file), file).toBe(1);
    hub.asked.length = hub.stored.length = 0;
    await ready({ modelPath: ID, cacheDir });
    expect([...hub.asked, ...hub.stored]).toEqual([]);
    await hub.close();
    expect((await ready({ modelPath: ID, cacheDir, localFilesOnly: true })).getModelInfo()).toEqual(there.getModelInfo());
  });

  test.each(['router-sparse', 'router-idf'])('%s comes with the weights of its queries', async (name) => {
    hub.add(ID, name);
    const [there, here] = [await loaded(new SparseEncoder({ modelPath: ID, cacheDir })), await loaded(new SparseEncoder({ modelPath: model(name) }))];
    for (const inputType of ['query', 'document'] as const) expect([...(await there.embed(texts, { inputType }))]).toEqual([...(await here.embed(texts, { inputType }))]);
  });

  test.each<[string, string, Record<string, string | null>, RegExp]>([
    ['a graph', 'router-dense', { 'question_0_Transformer/onnx/model.onnx': null }, /read in two ways, and it has no question_0_Transformer\/onnx\/model\.onnx/],
    ['a table', 'router-static', { 'query_0_StaticEmbedding/model.safetensors': null }, /read in two ways, and it has no query_0_StaticEmbedding\/model\.safetensors/],
    ['what says which ways there are', 'router-dense', { 'router_config.json': null }, /router_config\.json.*modules\.json names this file/],
    ['a place within', 'router-dense', { 'router_config.json': JSON.stringify({ types: { '../x': 'a.Transformer' }, structure: { document: ['../x'] }, parameters: { default_route: 'document' } }) }, /points outside the model/],
    ['sense', 'router-dense', { 'router_config.json': '{"types": 1}' }, /router_config\.json.*not the JSON expected here/],
  ])('without %s says so', async (_, name, files, message) => {
    hub.add(ID, name, files);
    const error = await failure(() => ready({ modelPath: ID, cacheDir }));
    expect([error.code, error.message]).toEqual(['MODEL_INIT_FAILED', expect.stringMatching(message)]);
    expect(hub.fetched('document_0_Transformer/onnx/model.onnx')).toBe(0);
  });

  test('whose download broke off goes on where it was', async () => {
    hub.add(ID, 'router-dense');
    hub.fault = (asked, response) => asked.path.endsWith('question_0_Transformer/onnx/model.onnx') && !!response.writeHead(404).end();
    await failure(() => ready({ modelPath: ID, cacheDir }));
    hub.fault = undefined;
    const before = hub.fetched('router_config.json');
    expect((await ready({ modelPath: ID, cacheDir })).isReady()).toBe(true);
    expect(hub.fetched('router_config.json')).toBe(before);
  });
});
