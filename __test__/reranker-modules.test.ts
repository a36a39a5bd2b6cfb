// Rerankers whose scores are made by modules behind the graph, and what stands before their queries.
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { CrossEncoder, OptimizedEmbeddingGenerator, type CrossEncoderOptions } from 'embedcore';
import { describe, expect, onTestFinished, test } from 'vitest';

import { copyOf, distance, failure, model, ready } from './support';

async function cross(options: CrossEncoderOptions): Promise<CrossEncoder> {
  const encoder = new CrossEncoder({ activation: 'none', ...options });
  onTestFinished(() => encoder.shutdown());
  await encoder.initialize();
  return encoder;
}

const write = (path: string, file: string, content: unknown) => writeFileSync(join(path, file), JSON.stringify(content));
const read = (path: string, file: string) => JSON.parse(readFileSync(join(path, file), 'utf8'));

const PAIRS: [string, string][] = [['how is a file read?', 'reads a file'], ['a', 'b'], ['fn main() {}', 'the cat sleeps on the mat '.repeat(3)]];

/** A model of RoBERTa's kind, whose pairs are read as one text with separators, and a layer behind its pooling; `dense`: what is said of that. */
function layered(dense: object = {}): string {
  const path = copyOf('roberta-positions');
  cpSync(join(model('bert-dense'), '2_Dense'), join(path, '2_Dense'), { recursive: true });
  const kinds = ['Transformer', 'Pooling', 'Dense'];
  write(path, 'modules.json', kinds.map((kind, idx) => ({ idx, name: String(idx), path: idx === 0 ? '' : `${idx}_${kind}`, type: `sentence_transformers.models.${kind}` })));
  write(path, '2_Dense/config.json', { ...read(path, '2_Dense/config.json'), activation_function: 'torch.nn.modules.linear.Identity', ...dense });
  return path;
}

const SCORES = { module_input_name: 'sentence_embedding', module_output_name: 'scores' };

function reranker(dense: object = SCORES): string {
  const path = layered(dense);
  write(path, 'config_sentence_transformers.json', { model_type: 'CrossEncoder', prompts: {}, default_prompt_name: null });
  return path;
}

describe('a cross-encoder that pools', () => {
  test('scores a pair by its layers, alone, together and from the cache', async () => {
    // The same layers make a vector of the text that a pair is read as.
    const expected = await (await ready({ modelPath: layered() })).embed(PAIRS.map(([query, document]) => `${query}</s></s>${document}`));
    const encoder = await cross({ modelPath: reranker() });
    const labels = encoder.getModelInfo().dimensions;
    expect(labels).toBe(expected.dimensions);
    for (let round = 0; round < 2; round++) {
      const found = await encoder.score(PAIRS);
      expect(distance(found, expected.data)).toBeLessThanOrEqual(1e-5);
      expect([...found.fromCache]).toEqual(PAIRS.map(() => round));
    }
    const alone = await cross({ modelPath: reranker(), cache: false });
    for (const [at, pair] of PAIRS.entries()) expect(distance(await alone.score([pair]), expected.row(at))).toBeLessThanOrEqual(1e-5);
    expect((await encoder.score(PAIRS)).labels).toHaveLength(labels);
  });

  test.each<[string, (path: string) => void, RegExp]>([
    ['gives no scores', (path) => write(path, '2_Dense/config.json', { ...read(path, '2_Dense/config.json'), module_output_name: 'sentence_embedding' }), /no module makes scores of that.*module_output_name: "scores"/],
    ['goes on after its scores', (path) => write(path, 'modules.json', [...read(path, 'modules.json'), { idx: 3, name: '3', path: '3_Normalize', type: 'a.Normalize' }]), /a module follows the one that writes scores/],
    ['leaves out prompts', (path) => write(path, '1_Pooling/config.json', { ...read(path, '1_Pooling/config.json'), include_prompt: false }), /leaves out prompts, which is not supported for pairs/],
    ['begins with something else', (path) => write(path, 'modules.json', read(path, 'modules.json').slice(1)), /begins with Transformer/],
    ['reads what nobody writes', (path) => write(path, '2_Dense/config.json', { ...read(path, '2_Dense/config.json'), module_input_name: 'causal_logits' }), /causal_logits/],
    ['lacks the weights of a layer', (path) => rmSync(join(path, '2_Dense/model.safetensors')), /2_Dense.*no such file/],
  ])('is refused where it %s', async (_, damage, message) => {
    const path = reranker();
    damage(path);
    const error = await failure(() => cross({ modelPath: path }));
    expect([error.code, error.message]).toEqual(['MODEL_INIT_FAILED', expect.stringMatching(message)]);
  });

  test('is for CrossEncoder, whether its files name that or not', async () => {
    for (const path of [reranker(), layered(SCORES)]) {
      const error = await failure(() => new OptimizedEmbeddingGenerator({ modelPath: path }).initialize());
      expect([error.code, error.message]).toEqual(['MODEL_INIT_FAILED', expect.stringContaining('CrossEncoder')]);
    }
  });
});

describe('what stands before queries', () => {
  const said = (prompts: Record<string, string | null>, name: string | null) => ({ model_type: 'CrossEncoder', prompts, default_prompt_name: name });

  test.each(['cross-encoder', 'causal-reranker'])('is the default prompt of the files of %s, where no template says it', async (name) => {
    const plain = copyOf(name);
    const path = copyOf(name);
    for (const folder of [plain, path]) rmSync(join(folder, 'chat_template.jinja'), { force: true });
    write(path, 'config_sentence_transformers.json', said({ code: 'find code: ', query: 'not this' }, 'code'));
    const [told, untold] = [await cross({ modelPath: path }), await cross({ modelPath: plain })];
    // A text is read as a query and as a document.
    const pairs: [string, string][] = [...PAIRS, ['reads a file', 'a'], ['a', 'reads a file']];
    const expected = await untold.score(pairs.map(([query, document]) => [`find code: ${query}`, document]));
    expect(distance(await told.score(pairs), expected)).toBeLessThanOrEqual(1e-6);
    expect(told.getModelInfo().fingerprint).not.toBe(untold.getModelInfo().fingerprint);
    const ranked = await told.rank('a', ['b', 'reads a file']);
    const scores = await untold.score([['find code: a', 'b'], ['find code: a', 'reads a file']]);
    for (const { index, score } of ranked) expect(score).toBeCloseTo(scores[index]!, 6);
    expect((await failure(() => told.rank(' ', ['b']))).message).toContain('The query is empty');
  });

  test('is nothing where no prompt is the default', async () => {
    const path = copyOf('cross-encoder');
    write(path, 'config_sentence_transformers.json', said({ query: 'find code: ', document: 'd: ' }, null));
    expect(await (await cross({ modelPath: path })).score(PAIRS)).toEqual(await (await cross({ modelPath: model('cross-encoder') })).score(PAIRS));
  });
});

test('pairs are written in lower case where the files say so', async () => {
  const path = copyOf('cross-encoder-roberta');
  write(path, 'sentence_bert_config.json', { max_seq_length: 64, do_lower_case: true });
  const [lower, plain] = [await cross({ modelPath: path }), await cross({ modelPath: model('cross-encoder-roberta') })];
  expect(distance(await lower.score([['Reads A FILE', 'The CAT']]), await plain.score([['reads a file', 'the cat']]))).toBeLessThanOrEqual(1e-6);
});

test('a score of logits that have another name is refused', async () => {
  const path = copyOf('causal-reranker');
  write(path, '1_LogitScore/config.json', { ...read(path, '1_LogitScore/config.json'), module_input_name: 'other_logits' });
  expect((await failure(() => cross({ modelPath: path }))).message).toMatch(/1_LogitScore.*other_logits/);
});
