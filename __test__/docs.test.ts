// What README.md and docs/ say: their code compiles and runs, their links lead to something, their lists are whole.
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, posix } from 'node:path';
import { promisify } from 'node:util';

import * as embedcore from 'embedcore';
import ts from 'typescript';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { blocks, guides, runnable, STAND_INS } from '../scripts/readme.mjs';
import { root } from './support';

const run = promisify(execFile);
const all = guides().flatMap((file) => blocks(file));
const project = mkdtempSync(join(tmpdir(), 'embedcore-docs-'));

beforeAll(() => {
  mkdirSync(join(project, 'node_modules'));
  mkdirSync(join(project, 'out'));
  symlinkSync(root, join(project, 'node_modules', 'embedcore'), 'junction');
  writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }');
  writeFileSync(join(project, 'stand-ins.mjs'), STAND_INS);
});

afterAll(() => rmSync(project, { recursive: true, force: true }));

/** Types of what the text leaves to the reader. */
const DECLARED = `
import * as embedcore from 'embedcore';
declare global {
  ${Object.keys(embedcore).map((name) => `const ${name}: typeof embedcore.${name};`).join('\n  ')}
  const annotations: embedcore.Annotation[];
  const generator: embedcore.OptimizedEmbeddingGenerator;
  const monitor: embedcore.PerformanceMonitor;
  function readAnnotations(): AsyncIterable<embedcore.Annotation>;
  function store(nodeId: string, embedding: number[]): Promise<void>;
  const content: string, content2: string, question: string, prompt: string, answer: string;
  const vector: number[], items: number[], files: string[], labels: string[], texts: string[];
  type Labels = string[];
  function embedSomehow(text: string): Promise<number[]>;
  function embedPicture(picture: Uint8Array): Promise<number[]>;
  function work<T>(batch: T[]): Promise<T[]>;
  function onProgress(completed: number, total: number): void;
  function draw(file: string, percent: number): void;
  function ask(prompt: string, params?: object): Promise<string>;
  const picture: Uint8Array;
  const signal: AbortSignal;
  const SomeVectorStore: { fromDocuments(documents: string[], embeddings: object): Promise<object> };
  const documents: string[];
  const OpenAI: new (options: { baseURL: string; apiKey?: string | undefined }) => object;
}`;

const PEERS = `
declare module '@lancedb/lancedb' {
  type Row = Record<string, any>;
  interface Merge { whenMatchedUpdateAll(options?: { where: string }): Merge; whenNotMatchedInsertAll(): Merge; whenNotMatchedBySourceDelete(): Merge; execute(rows: Row[]): Promise<object> }
  interface Search { distanceType(type: 'cosine'): Search; limit(count: number): Search; toArray(): Promise<Row[]> }
  interface Table { mergeInsert(on: string): Merge; vectorSearch(vector: number[]): Search }
  interface Connection { tableNames(): Promise<string[]>; openTable(name: string): Promise<Table>; createTable(name: string, rows: Row[]): Promise<Table>; close(): void }
  export function connect(path: string): Promise<Connection>;
}
declare module 'better-sqlite3' {
  export interface Statement { run(...values: unknown[]): object; get(...values: unknown[]): unknown; all(...values: unknown[]): unknown[]; pluck(): Statement }
  export default class Database { constructor(path: string); exec(sql: string): void; prepare(sql: string): Statement; close(): void; loadExtension(path: string): void }
}
declare module 'sqlite-vec' {
  export function load(db: { loadExtension(path: string): void }): void;
}
declare module '@qdrant/js-client-rest' {
  interface Point { id: string; payload?: Record<string, unknown> | null; score: number }
  export class QdrantClient {
    constructor(options: { url: string; checkCompatibility?: boolean });
    collectionExists(name: string): Promise<{ exists: boolean }>;
    createCollection(name: string, options: { vectors: { size: number; distance: 'Cosine' } }): Promise<boolean>;
    retrieve(name: string, options: { ids: string[]; with_payload?: boolean }): Promise<{ id: string | number }[]>;
    upsert(name: string, options: { wait: boolean; points: object[] }): Promise<object>;
    delete(name: string, options: { wait: boolean; filter: object }): Promise<object>;
    query(name: string, options: { query: number[]; limit: number; with_payload: boolean }): Promise<{ points: Point[] }>;
  }
}
declare module 'pg' {
  class Client { constructor(url?: string); connect(): Promise<void>; query(sql: string, values?: unknown[]): Promise<{ rows: object[] }>; end(): Promise<void> }
  const pg: { Client: typeof Client };
  export default pg;
}
declare module 'ai' {
  export function embed(options: { model: object; value: string; providerOptions?: object }): Promise<{ embedding: number[] }>;
  export function embedMany(options: { model: object; values: string[] }): Promise<{ embeddings: number[][]; usage: object }>;
}
declare module 'openai' {
  export default class OpenAI { constructor(options: { baseURL: string; apiKey?: string; fetch?: (url: string | URL | Request, init?: RequestInit) => Promise<Response>; maxRetries?: number }) }
}
declare module 'ollama' {
  export class Ollama { constructor(options: { host?: string; fetch?: typeof fetch }) }
}
declare module '@langchain/ollama' {
  export class ChatOllama { constructor(options: { model: string; fetch?: typeof fetch }) }
}
declare module '@langchain/core/embeddings' {
  export interface EmbeddingsParams { maxConcurrency?: number; maxRetries?: number; onFailedAttempt?: (error: any) => any }
  export abstract class Embeddings {
    constructor(params: EmbeddingsParams);
    abstract embedDocuments(documents: string[]): Promise<number[][]>;
    abstract embedQuery(document: string): Promise<number[]>;
  }
}`;

/** What the compiler says about files in a project that has embedcore linked. */
function complaints(files: Record<string, string>, options: ts.CompilerOptions): string[] {
  const names = Object.entries(files).map(([name, text]) => {
    writeFileSync(join(project, name), text);
    return join(project, name);
  });
  const program = ts.createProgram(names, { strict: true, exactOptionalPropertyTypes: true, noEmit: true, skipLibCheck: true, target: ts.ScriptTarget.ES2022, lib: ['lib.esnext.d.ts'], types: ['node'], typeRoots: [join(root, 'node_modules', '@types')], ...options });
  return ts.getPreEmitDiagnostics(program).map(({ file, start, messageText }) => {
    const where = file && start !== undefined ? `${file.fileName.slice(project.length + 1)}:${file.getLineAndCharacterOfPosition(start).line + 1} ` : '';
    return `${where}${ts.flattenDiagnosticMessageText(messageText, ' ')}`;
  });
}

test('every block of code compiles', () => {
  expect(all.length).toBeGreaterThan(15);
  const files: Record<string, string> = { 'declared.ts': DECLARED, 'peers.d.ts': PEERS };
  for (const [i, { where, code }] of all.entries()) files[`block-${i}.ts`] = `// ${where}\n${code.replaceAll('{ … }', '{ return String(question); }')}\nexport {};\n`;
  const wrong = complaints(files, { module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext });
  expect(wrong.map((text) => text.replace(/^block-(\d+)\.ts/, (_, i: string) => all[Number(i)]!.where))).toEqual([]);
});

test.each(all.filter(({ runs }) => runs).map((block, i) => ({ ...block, i })))('the code at $where runs', async ({ code, i }) => {
  const file = join(project, `run-${i}.mjs`);
  writeFileSync(file, runnable(code));
  const { stderr } = await run(process.execPath, ['--import', './stand-ins.mjs', file], { cwd: project, timeout: 60_000 });
  expect(stderr).toBe('');
});

test('every link leads to something that is in the package', () => {
  const listed = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root, encoding: 'utf8', shell: process.platform === 'win32', stdio: ['ignore', 'pipe', 'ignore'] });
  const [{ files }] = JSON.parse(listed) as [{ files: { path: string }[] }];
  const packed = new Set(files.map(({ path }) => path));
  const anchors = (path: string) => {
    const seen = new Map<string, number>();
    const text = readFileSync(join(root, path), 'utf8');
    const named = [...text.matchAll(/<a id="([^"]+)"/g)].map(([, id]) => id!);
    return new Set([...named, ...[...text.matchAll(/^#+ (.*)$/gm)].map(([, title]) => {
      const anchor = title!.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '').replaceAll(' ', '-');
      const times = seen.get(anchor) ?? 0;
      seen.set(anchor, times + 1);
      return times === 0 ? anchor : `${anchor}-${times}`;
    })]);
  };
  const dead: string[] = [];
  for (const guide of guides()) {
    const text = readFileSync(join(root, guide), 'utf8').replaceAll(/^```[\s\S]*?^```/gm, '');
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target!)) continue;
      const [path, anchor] = target!.split('#') as [string, string?];
      const file = path === '' ? guide : posix.normalize(posix.join(posix.dirname(guide), path));
      if (!packed.has(file)) dead.push(`${guide}: ${target} is not in the package`);
      else if (anchor !== undefined && file.endsWith('.md') && !anchors(file).has(anchor)) dead.push(`${guide}: ${target} has no such heading`);
    }
  }
  expect(dead).toEqual([]);
});

test('every code of an error and every option of a generator and of a call is in the guides', () => {
  const types = readFileSync(join(root, 'index.d.ts'), 'utf8');
  const [, union] = /export type EmbeddingErrorCode = (.*?);/s.exec(types)!;
  const errors = readFileSync(join(root, 'docs', 'errors.md'), 'utf8');
  const codes = [...union!.matchAll(/"(\w+)"/g)].map(([, code]) => code!);
  expect(codes.length).toBeGreaterThan(10);
  expect(codes.filter((code) => !errors.includes(`\`${code}\``))).toEqual([]);
  const guide = readFileSync(join(root, 'docs', 'generator.md'), 'utf8') + readFileSync(join(root, 'docs', 'compatibility.md'), 'utf8');
  for (const name of ['GeneratorOptions', 'CallOptions']) {
    const [, body] = new RegExp(`export interface ${name} \\{\\n(.*?)\\n\\}`, 's').exec(types)!;
    const options = [...body!.matchAll(/^\t(\w+)\?:/gm)].map(([, option]) => option!);
    expect(options.length).toBeGreaterThan(5);
    expect(options.filter((option) => !guide.includes(`\`${option}\``))).toEqual([]);
  }
});

test.each([
  ['node10', { module: ts.ModuleKind.CommonJS, moduleResolution: ts.ModuleResolutionKind.Node10, ignoreDeprecations: '6.0' }],
  ['node16', { module: ts.ModuleKind.Node16, moduleResolution: ts.ModuleResolutionKind.Node16 }],
  ['nodenext', { module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext }],
  ['bundler', { module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler }],
] as const)('types resolve through a link with moduleResolution %s', (name, options) => {
  const code = `import { OptimizedEmbeddingGenerator, type GeneratorOptions } from 'embedcore';
import { serve, type EmbeddingServerOptions } from 'embedcore/server';
import { createEmbedcore } from 'embedcore/ai-sdk';
import { EmbedcoreEmbeddings } from 'embedcore/langchain';
const options: GeneratorOptions = { modelPath: 'builtin' };
const generator = new OptimizedEmbeddingGenerator(options);
const server: EmbeddingServerOptions = { generator, port: 0 };
// The same class, or it would be another type.
const own: OptimizedEmbeddingGenerator = new EmbedcoreEmbeddings({ generator }).generator;
export const made = [serve(server), createEmbedcore({ generator }).embeddingModel().doEmbed({ values: ['a'] }), own];
// @ts-expect-error -- were a type not found, it would be any
export const wrong: GeneratorOptions = { modelPath: 5 };
// @ts-expect-error
export const odd: EmbeddingServerOptions = { generator: 5 };
`;
  expect(complaints({ [`linked-${name}.ts`]: code, 'peers.d.ts': PEERS }, options)).toEqual([]);
});

