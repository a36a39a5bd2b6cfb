// `npx embedcore search --rerank`, and the models that the command line knows.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { model, root } from './support';

const cli = join(root, 'cli', 'embedcore.js');

function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [cli, ...args], { encoding: 'utf8' });
}

test('a search looks again with the model that is named', () => {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-rerank-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  for (const name of ['push', 'pop', 'peek']) writeFileSync(join(directory, `${name}.ts`), `/** Does a ${name} on the stack. */\nexport function ${name}() {}\n`);
  expect(run('index', directory).status).toBe(0);
  const matches = (...args: string[]) => {
    const { status, stdout, stderr } = run('search', 'take from the stack', directory, '--json', ...args);
    expect(status, stderr).toBe(0);
    return (JSON.parse(stdout) as { matches: { name: string; score: number }[] }).matches;
  };
  const [plain, ranked] = [matches(), matches('--rerank', model('cross-encoder'))];
  expect(ranked.map(({ name }) => name).sort()).toEqual(plain.map(({ name }) => name).sort());
  expect(ranked.map(({ score }) => score)).not.toEqual(plain.map(({ score }) => score));
  expect(ranked.map(({ score }) => score)).toEqual(ranked.map(({ score }) => score).sort((one, other) => other - one));
  expect(run('search', 'a', directory, '--rerank', model('bert-mean'))).toMatchObject({ status: 1, stderr: expect.stringContaining('OptimizedEmbeddingGenerator') as string });
});

test('known models have a kind, a class, a size and a licence', async () => {
  const { models } = JSON.parse(run('models', '--json').stdout) as { models: { kind: string; id: string; class: string; bytes: number; licence: string }[] };
  const embedcore = await import('embedcore');
  for (const { kind, id, class: name, bytes, licence } of models) {
    expect(Object.keys(embedcore)).toContain(name);
    expect([kind, id, typeof bytes, licence].every(Boolean)).toBe(true);
  }
  expect(new Set(models.map(({ id }) => id)).size).toBe(models.length);
  // Of every kind that there is a model of, also rerankers that are language models.
  expect([...new Set(models.map(({ kind }) => kind))]).toEqual(['encoder', 'decoder', 'static', 'reranking', 'causal', 'sparse']);
  const { stdout, status } = run('models');
  expect(status).toBe(0);
  for (const { id, licence } of models) expect(stdout).toMatch(new RegExp(`${id} .*${licence}`));
  expect(run('models', '--dtype', 'q8').status).toBe(2);
});
