import { setTimeout as sleep } from 'node:timers/promises';

import { OptimizedEmbeddingGenerator, splitText, type Chunk, type DocumentChunk } from 'embedcore';
import { describe, expect, test } from 'vitest';

import { distance, failure, model, ready } from './support';

const demo = { modelPath: model('demo') };

/** Chunks are what they say, and hold all of the text but white space. */
function whole(source: string, chunks: readonly { text: string; start: number; end: number; line: number }[]): void {
  let end = 0;
  for (const chunk of chunks) {
    expect(chunk.text).toBe(source.slice(chunk.start, chunk.end));
    expect(chunk.line).toBe(source.slice(0, chunk.start).split('\n').length);
    expect(source.slice(end, Math.max(end, chunk.start)).trim()).toBe('');
    expect(chunk.end).toBeGreaterThan(end);
    end = chunk.end;
  }
  expect(source.slice(end).trim()).toBe('');
}

const HARD: Record<string, string> = {
  'one word': 'x'.repeat(20_000),
  'emoji only': '👩‍👩‍👧‍👦🦀'.repeat(400),
  'lone surrogates': `a \ud800 b ${'c \udfff '.repeat(300)}`,
  'CRLF and tabs': '# A\r\n\r\nText\twith tabs.\r\n\r\n'.repeat(60),
  'an unclosed fence': `# A\n\n\`\`\`js\n${'let a = 1;\n\n'.repeat(200)}`,
  'a table': `| a | b |\n|---|---|\n${'| some cell | another cell |\n'.repeat(150)}`,
  'front matter': `---\ntitle: x\n---\n\n${'Words of a paragraph. '.repeat(150)}`,
  'HTML in Markdown': `# A\n\n<details>\n<summary>S</summary>\n${'<p>Some text</p>\n'.repeat(200)}</details>\n`,
  nothing: '',
  'white space': ' \n\t\r\n ',
};

describe('split', () => {
  test('gives chunks that the model reads whole, whatever the text is', async () => {
    const generator = await ready(demo);
    const limit = generator.getModelInfo().maxLength;
    for (const [name, text] of Object.entries(HARD)) {
      for (const options of [{}, { maxTokens: 24, overlap: 5 }, { format: 'text' }, { format: 'code', language: 'ts' }] as const) {
        const chunks = await generator.split(text, options);
        const most = 'maxTokens' in options ? options.maxTokens : limit;
        if (!('overlap' in options)) whole(text, chunks);
        const counts = await generator.countTokens(chunks.map((chunk) => chunk.text));
        expect([...counts], name).toEqual(chunks.map(({ tokens }) => tokens));
        expect(Math.max(0, ...counts), name).toBeLessThanOrEqual(most);
        if (text.trim() === '') expect(chunks).toEqual([]);
      }
    }
  });

  test('counts the prompt, and needs room beside it', async () => {
    const generator = await ready({ ...demo, prompts: { document: 'a rather long prompt for documents: ' } });
    const text = 'One sentence of some words. '.repeat(50);
    const chunks = await generator.split(text, { maxTokens: 30 });
    whole(text, chunks);
    const counts = await generator.countTokens(chunks.map((chunk) => chunk.text));
    expect(Math.max(...counts)).toBeLessThanOrEqual(30);
    expect((await generator.countTokens(['a'], { inputType: 'query' }))[0]).toBeLessThan((await generator.countTokens(['a']))[0]!);
    expect(await failure(() => generator.split(text, { maxTokens: 5 }))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('tells headings, and repeats what it is asked to', async () => {
    const generator = await ready(demo);
    const text = '# Guide\n\nFirst words.\n\n## Use\n\n' + 'More words are here. '.repeat(30) + '\n\n## Last\n\nEnd.\n';
    const chunks = await generator.split(text, { maxTokens: 40, path: 'docs/guide.md' });
    expect(chunks.map(({ headings }) => headings.at(-1))).toEqual(expect.arrayContaining(['Guide', 'Use', 'Last']));
    expect(chunks.at(-1)).toMatchObject({ text: '## Last\n\nEnd.', headings: ['Guide', 'Last'] });
    const overlapping = await generator.split('w '.repeat(200), { maxTokens: 30, overlap: 8 });
    for (let at = 1; at < overlapping.length; at++) expect(overlapping[at]!.start).toBeLessThan(overlapping[at - 1]!.end);
  });

  test('of many is that of each', async () => {
    const generator = await ready(demo);
    const texts = Object.values(HARD);
    const many = await generator.splitMany(texts.map((text, at) => (at % 2 ? text : { text })));
    const each = await Promise.all(texts.map((text) => generator.split(text)));
    expect(many).toEqual(each);
    expect(await generator.splitMany([])).toEqual([]);
  });

  test('refuses what cannot be', async () => {
    const generator = await ready(demo);
    const config = (option: string) => ({ code: 'INVALID_CONFIG', details: { option } });
    expect(await failure(() => generator.split('a', { maxTokens: 0 }))).toMatchObject(config('maxTokens'));
    expect(await failure(() => generator.split('a', { maxTokens: 10, overlap: 10 }))).toMatchObject(config('overlap'));
    expect(await failure(() => generator.split('a', { format: 'pdf' as never }))).toMatchObject(config('format'));
    expect(await failure(() => generator.split('a', { size: 3 } as never))).toMatchObject(config('size'));
    expect(await failure(() => generator.split(3 as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await failure(() => generator.splitMany([{}] as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await failure(() => new OptimizedEmbeddingGenerator(demo).split('a'))).toMatchObject({ code: 'NOT_INITIALIZED' });
  });

  test('can be stopped', async () => {
    const generator = await ready(demo);
    const long = 'Some words of a text. '.repeat(400_000);
    expect(await failure(() => generator.split(long, { timeoutMs: 50 }))).toMatchObject({ code: 'TIMED_OUT' });
    expect(await failure(() => generator.split(long, { signal: AbortSignal.timeout(30) }))).toMatchObject({ code: 'ABORTED' });
    const closing = failure(() => generator.split(long));
    await sleep(30);
    await generator.cleanup();
    expect(await closing).toMatchObject({ code: 'CLOSED' });
  });
});

describe('tokens', () => {
  test('are those that results tell, before anything is cut', async () => {
    const generator = await ready(demo);
    const texts = ['one', 'Two words!', 'long '.repeat(2000)];
    const counts = await generator.countTokens(texts);
    expect(counts).toBeInstanceOf(Uint32Array);
    expect([...counts]).toEqual([...(await generator.embed(texts)).tokenCounts]);
    expect(counts[2]).toBeGreaterThan(generator.getModelInfo().maxLength);
    expect((await generator.countTokens([])).length).toBe(0);
  });

  test('of a text, with where they are', async () => {
    const generator = await ready(demo);
    const text = 'parse 🦀 the json file';
    const { ids, tokens, offsets } = await generator.tokenize(text);
    expect([ids.length, offsets.length]).toEqual([tokens.length, tokens.length]);
    expect(ids.length).toBe((await generator.countTokens([text]))[0]);
    const words = offsets.filter(([from, to]) => to > from).map(([from, to]) => text.slice(from, to));
    expect(words.join('')).toContain('parse');
    expect(offsets.every(([from, to]) => from <= to && to <= text.length)).toBe(true);
    expect(await failure(() => generator.tokenize(1 as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await failure(() => generator.countTokens('a' as never))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await failure(() => generator.countTokens(['a'], { inputType: 'other' as never }))).toMatchObject({ code: 'INVALID_CONFIG' });
  });

  test('have a limit, and somebody who says so', async () => {
    expect((await ready(demo)).getModelInfo().maxLengthFrom).toMatch(/\.json$/);
    expect((await ready({ ...demo, maxLength: 16 })).getModelInfo()).toMatchObject({ maxLength: 16, maxLengthFrom: 'maxLength' });
  });
});

test('splitText needs no model', async () => {
  for (const text of Object.values(HARD)) {
    const chunks = await splitText(text, { maxCharacters: 100 });
    whole(text, chunks);
    for (const chunk of chunks) {
      expect(chunk.text.length).toBeLessThanOrEqual(100);
      expect(chunk).not.toHaveProperty('tokens');
    }
  }
  const code = await splitText('function a() {\n  one();\n}\n\nfunction b() {\n  two();\n}\n', { maxCharacters: 30, path: 'a.ts' });
  expect(code.map(({ headings }) => headings)).toEqual([['a'], ['b']]);
  const marked = await splitText('\ufeff---\ntitle: x\n---\n\n# Title\n\nText.\n\n# Other\n\nMore.\n', { maxCharacters: 40, path: 'a.md' });
  expect(marked.map(({ headings }) => headings)).toEqual([[], ['Other']]);
  expect((await splitText('\ufeff# Title\n\nText.'))[0]).toMatchObject({ start: 0, headings: ['Title'] });
  expect(await failure(() => splitText('🦀', { maxCharacters: 1 }))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect(await failure(() => splitText('a', { maxCharacters: 0 }))).toMatchObject({ code: 'INVALID_CONFIG' });
});

test('a long text takes time in proportion, also one word of it', async () => {
  for (const text of ['x'.repeat(3e7), 'Some words of a text, one after the other. '.repeat(5e5), '\n'.repeat(3e7), `${' '.repeat(1e7)}x`]) {
    const chunks = await splitText(text, { maxCharacters: 1000 });
    expect(chunks.reduce((sum, { start, end }) => sum + end - start, 0)).toBeLessThanOrEqual(text.length);
    expect(chunks.at(-1)?.end ?? 0).toBe(text.trimEnd().length);
  }
});

describe('streamDocuments', () => {
  const documents = Array.from({ length: 70 }, (_, at) => ({ id: `d${at}.md`, text: `# Title ${at}\n\n${'Some words here. '.repeat(at)}`, metadata: { at } }));

  async function all(results: AsyncIterable<DocumentChunk>): Promise<DocumentChunk[]> {
    const taken: DocumentChunk[] = [];
    for await (const result of results) taken.push(result);
    return taken;
  }

  test('gives the chunks of each, with their vectors, in order', async () => {
    const generator = await ready(demo);
    const results = await all(generator.streamDocuments((async function* () { yield* documents; })(), { maxTokens: 60 }));
    let expected: [string, number, Chunk][] = [];
    for (const { id, text } of documents) {
      const chunks = await generator.split(text, { maxTokens: 60, path: id });
      expected = expected.concat(chunks.map((chunk, index) => [id, index, chunk]));
    }
    expect(results.map(({ id, index, chunk }) => [id, index, chunk])).toEqual(expected);
    const matrix = await generator.embed(expected.map(([, , chunk]) => chunk.text));
    for (const at of [0, 5, results.length - 1]) expect(distance(results[at]!.embedding, matrix.row(at))).toBeLessThanOrEqual(1e-6);
    expect(results.at(-1)!.metadata).toEqual({ at: 69 });
    const again = await all(generator.streamDocuments(documents, { maxTokens: 60 }));
    expect(again.every(({ fromCache }) => fromCache)).toBe(true);
  });

  test('left early, it closes its source', async () => {
    const generator = await ready(demo);
    let closed = false;
    async function* source() {
      try {
        for (let at = 0; ; at++) yield { id: `d${at}.md`, text: `# Title ${at}` };
      } finally {
        closed = true;
      }
    }
    for await (const { id } of generator.streamDocuments(source())) if (id === 'd3.md') break;
    expect(closed).toBe(true);
  });

  test('what came before an error is answered', async () => {
    const generator = await ready(demo);
    const taken: string[] = [];
    const error = await failure(async () => {
      for await (const { id } of generator.streamDocuments([documents[0]!, documents[1]!, { id: 3 } as never])) taken.push(id);
    });
    expect([taken, error.code]).toEqual([['d0.md', 'd1.md'], 'INVALID_ARGUMENT']);
  });
});
