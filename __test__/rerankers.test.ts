// Language models that rerank: what they are asked, and how their answers become scores.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { CrossEncoder, IntelligentEmbeddingCache, MultiVectorEncoder, OptimizedEmbeddingGenerator, SparseEncoder, type CrossEncoderOptions } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { copyOf, failure, model, root } from './support';

interface Golden {
  pairs: [string, string][];
  models: { name: string; options: { instruction?: string }; maxLength: number; tolerance: number; tokenCounts: number[]; truncated: number[]; logits: number[]; scores: number[] }[];
}

const { pairs, models } = JSON.parse(readFileSync(join(root, 'fixtures/golden-rerankers.json'), 'utf8')) as Golden;

async function cross(options: CrossEncoderOptions): Promise<CrossEncoder> {
  const encoder = new CrossEncoder(options);
  onTestFinished(() => encoder.shutdown());
  await encoder.initialize();
  return encoder;
}

const off = (found: Float32Array, expected: number[]) => Math.max(...expected.map((score, at) => Math.abs(found[at]! - score)));

describe.each(models)('$name, told $options', ({ name, options, maxLength, tolerance, tokenCounts, truncated, logits, scores }) => {
  test.each([false, {}])('scores pairs as the reference does, alone and together, cache: %o', async (cache) => {
    const encoder = await cross({ modelPath: model(name), cache, ...options });
    const all = await encoder.score(pairs);
    expect(off(all, scores)).toBeLessThanOrEqual(tolerance);
    expect(off(await encoder.score(pairs, { activation: 'none' }), logits)).toBeLessThanOrEqual(tolerance);
    expect([[...all.tokenCounts], [...all.truncated]]).toEqual([tokenCounts, truncated]);
    for (const [at, pair] of pairs.entries()) expect(off(await encoder.score([pair]), [scores[at]!])).toBeLessThanOrEqual(tolerance);
    expect(encoder.getModelInfo()).toMatchObject({ task: 'reranking', architecture: 'decoder', dimensions: 1, maxLength });
  });

  test('ranks documents by their scores', async () => {
    const encoder = await cross({ modelPath: model(name), ...options });
    const documents = pairs.slice(0, 6).map((pair) => pair[1]);
    const expected = documents.map((_, index) => index).sort((a, b) => scores[b]! - scores[a]! || a - b);
    expect((await encoder.rank(pairs[0]![0], documents)).map(({ index }) => index)).toEqual(expected);
  });
});

describe('a language model that reranks', () => {
  const [name, pair] = ['causal-reranker', pairs[0]!];

  test('gives the same scores in batches of all sizes, of texts as long as others and not', async () => {
    const words = 'alpha beta gamma delta epsilon zeta eta theta iota kappa lambda'.split(' ');
    const mixed = Array.from({ length: 40 }, (_, at): [string, string] => [words[at % 11]!, words.slice(0, (at * 7) % 11).join(' ')]);
    for (const name of ['causal-reranker', 'causal-reranker-chat']) {
      const encoder = await cross({ modelPath: model(name), cache: false, activation: 'none' });
      const alone = Float32Array.from(await Promise.all(mixed.map(async (pair) => (await encoder.score([pair]))[0]!)));
      for (const batchSize of [3, 40]) expect(off(await encoder.score(mixed, { batchSize }), [...alone])).toBeLessThan(name === 'causal-reranker' ? 1e-5 : 1e-2);
    }
  });

  test('remembers pairs by what they are judged by', async () => {
    const cache = new IntelligentEmbeddingCache();
    onTestFinished(() => cache.close());
    const [untold, told] = [await cross({ modelPath: model(name), cache }), await cross({ modelPath: model(name), cache, instruction: 'Find code' })];
    expect(told.getModelInfo().fingerprint).not.toBe(untold.getModelInfo().fingerprint);
    const [one, other] = [await untold.score([pair]), await told.score([pair])];
    expect([...other.fromCache]).toEqual([0]);
    expect(other[0]).not.toBe(one[0]);
    expect([...(await told.score([pair])).fromCache]).toEqual([1]);
  });

  test('reads a long text no more often than its limit asks', async () => {
    const encoder = await cross({ modelPath: model(name) });
    const documents = Array.from({ length: 300 }, (_, index) => `document ${index}`);
    const long = 'parse json '.repeat(80_000);
    const [alone] = await encoder.score([[long, documents[0]!]]);
    const ranked = await encoder.rank(long, documents);
    expect(ranked).toHaveLength(300);
    // Nothing of a document is seen behind such a query, but for the end.
    expect(new Set(ranked.map(({ score }) => score.toFixed(5)))).toEqual(new Set([alone!.toFixed(5)]));
    expect([...(await encoder.score([[long, 'a']])).truncated]).toEqual([1]);
  });

  test('cuts texts at their beginning where its tokenizer does', async () => {
    const path = copyOf(name);
    writeFileSync(join(path, 'tokenizer_config.json'), JSON.stringify({ model_max_length: 256, truncation_side: 'left' }));
    const encoder = await cross({ modelPath: path, activation: 'none' });
    const long = 'parse json '.repeat(3000);
    const found = await encoder.score([['a', `${long}the end`], ['b', `x${long}the end`], ['b', `${long}another end`]]);
    expect(found[0]).toBeCloseTo(found[1]!, 5);
    expect(Math.abs(found[0]! - found[2]!)).toBeGreaterThan(1e-4);
  });

  test('is told by the default prompt of its files, and by the option before that', async () => {
    const path = copyOf(name);
    writeFileSync(join(path, 'config_sentence_transformers.json'), JSON.stringify({ model_type: 'CrossEncoder', prompts: { code: 'Find code' }, default_prompt_name: 'code' }));
    const expected = models.find((golden) => golden.name === name && golden.options.instruction === 'Find code')!;
    expect(off(await (await cross({ modelPath: path })).score(pairs), expected.scores)).toBeLessThanOrEqual(expected.tolerance);
    const own = await (await cross({ modelPath: path, instruction: 'Find poems' })).score([pair]);
    expect(own[0]).not.toBeCloseTo(expected.scores[0]!, 4);
  });

  test('fills in a template of its tokenizer by name, with special tokens and what else is said for it', async () => {
    const template = readFileSync(join(model(name), 'chat_template.jinja'), 'utf8');
    const scores = async (files: Record<string, unknown>) => {
      const path = copyOf(name);
      rmSync(join(path, 'chat_template.jinja'));
      for (const [file, content] of Object.entries(files)) writeFileSync(join(path, file), JSON.stringify(content));
      return (await cross({ modelPath: path })).score(pairs);
    };
    const limit = { model_max_length: 256 };
    const { scores: expected, tolerance } = models[0]!;
    const named = [{ name: 'tools', template: '{{ messages[0].content }}' }, { name: 'default', template }];
    expect(off(await scores({ 'tokenizer_config.json': { ...limit, chat_template: named } }), expected)).toBeLessThanOrEqual(tolerance);
    const spelt = template.replaceAll('<|im_start|>', '{{ start_token }}').replaceAll('<|im_end|>', '{{ finish }}');
    const texts = { processing_kwargs: { chat_template: { finish: '<|im_end|>' } }, modality_config: { message: { format: 'flat' } } };
    const tokens = { ...limit, chat_template: spelt, start_token: { content: '<|im_start|>' } };
    expect(off(await scores({ 'tokenizer_config.json': tokens, 'sentence_bert_config.json': texts }), expected)).toBeLessThanOrEqual(tolerance);
  });

  test('reads a query and a document as any other does where it has no template', async () => {
    const path = copyOf(name);
    rmSync(join(path, 'chat_template.jinja'));
    const encoder = await cross({ modelPath: path });
    const [one, other] = await encoder.score([['a', 'b'], ['a', 'c']]);
    expect(one).not.toBe(other);
    const error = await failure(() => cross({ modelPath: path, instruction: 'Find code' }));
    expect([error.code, error.details.option]).toEqual(['INVALID_CONFIG', 'instruction']);
  });

  test.each<[string, string, (path: string) => void, CrossEncoderOptions?]>([
    ['no place for a query and a document', 'chat_template.jinja', (path) => writeFileSync(join(path, 'chat_template.jinja'), '{{ messages[0].content }}')],
    ['syntax error', 'chat_template.jinja', (path) => writeFileSync(join(path, 'chat_template.jinja'), '{% if')],
    ['no place for it', 'instruction', (path) => writeFileSync(join(path, 'chat_template.jinja'), '{{ messages[-2].content }}|{{ messages[-1].content }}'), { instruction: 'Find code' }],
    ['its answer is token 99999', 'onnx', (path) => writeFileSync(join(path, '1_LogitScore/config.json'), JSON.stringify({ true_token_id: 99999 }))],
    ['not the JSON expected here', '1_LogitScore', (path) => writeFileSync(join(path, '1_LogitScore/config.json'), JSON.stringify({ true_token_id: -1 }))],
    ['modules.json names this file', '1_LogitScore', (path) => rmSync(join(path, '1_LogitScore/config.json'))],
    ['supported are Transformer and LogitScore', '', (path) => writeFileSync(join(path, 'modules.json'), JSON.stringify([{ path: '', type: 'a.Transformer' }, { path: '1', type: 'a.Judge' }]))],
    ['leaves no room beside', 'tokenizer', () => undefined, { maxLength: 8 }],
  ])('says what is wrong with its files: %s', async (message, place, damage, options = {}) => {
    const path = copyOf(name);
    damage(path);
    const error = await failure(() => cross({ modelPath: path, ...options }));
    expect(error.message).toContain(message);
    expect(error.message).toContain(place);
    expect(error.code).toMatch(/^(MODEL_INIT_FAILED|INVALID_CONFIG)$/);
  });

  test('has to have words to answer with', async () => {
    const path = copyOf('causal-reranker-chat');
    const file = join(path, 'tokenizer.json');
    writeFileSync(file, readFileSync(file, 'utf8').replaceAll('"yes"', '"yea"'));
    expect((await failure(() => cross({ modelPath: path }))).message).toContain('no tokens `yes` and `no`');
  });

  test.each([
    ['causal-reranker', [OptimizedEmbeddingGenerator, SparseEncoder, MultiVectorEncoder], 'CrossEncoder'],
    ['causal-reranker-chat', [OptimizedEmbeddingGenerator, SparseEncoder, MultiVectorEncoder], 'CrossEncoder'],
    ['decoder-cache', [CrossEncoder], 'OptimizedEmbeddingGenerator'],
  ] as const)('%s given to another class names the right one', async (name, classes, right) => {
    for (const type of classes) {
      const encoder = new type({ modelPath: model(name) });
      onTestFinished(() => encoder.shutdown());
      const error = await failure(() => encoder.initialize());
      expect([error.code, error.message]).toEqual(['MODEL_INIT_FAILED', expect.stringContaining(right)]);
    }
  });

  test('names the class of a masked language model about which nothing else is said', async () => {
    const path = copyOf('splade');
    for (const file of ['modules.json', 'config_sentence_transformers.json']) rmSync(join(path, file));
    expect((await failure(() => cross({ modelPath: path }))).message).toContain('SparseEncoder');
  });
});
