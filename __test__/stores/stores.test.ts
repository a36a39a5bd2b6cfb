// The recipes of docs/stores.md, with the real packages: each is run twice, the second time with other documents.
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { expect, onTestFinished, test } from 'vitest';

import { blocks, runnable } from '../../scripts/readme.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const require = createRequire(import.meta.url);

const BEFORE = "[{ id: 'files.md', text: '# Files\\n\\nHow a file is opened.' }, { id: 'sockets.md', text: '# Sockets\\n\\nHow a socket is closed.' }]";
const AFTER = BEFORE.replace('is opened', 'is opened and read').replace("'sockets.md'", "'others.md'");

const recipe = (name: string) => {
  const found = blocks('docs/stores.md').find(({ code }) => code.includes(`from '${name}'`));
  expect(found?.code).toContain(BEFORE);
  return found!.code;
};

/** A project that has embedcore and these packages. */
function project(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-stores-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  mkdirSync(join(directory, 'out'));
  writeFileSync(join(directory, 'package.json'), '{ "type": "module" }');
  symlinkSync(join(here, 'node_modules'), join(directory, 'node_modules'), 'junction');
  return directory;
}

/** What a recipe prints, for the documents as they are in the guide and as they are later. */
async function twice(code: string, env: NodeJS.ProcessEnv = {}): Promise<[string, string]> {
  const directory = project();
  const outputs: string[] = [];
  const own = require.resolve(root);
  for (const documents of [BEFORE, AFTER]) {
    const file = join(directory, 'recipe.mjs');
    const body = runnable(code.replace(BEFORE, documents)).replace('globalThis.generator.cleanup();\n', '').replaceAll("'embedcore'", JSON.stringify(own));
    writeFileSync(file, body);
    const { stdout } = await promisify(execFile)(process.execPath, [file], { cwd: directory, timeout: 120_000, env: { ...process.env, ...env } });
    outputs.push(stdout);
  }
  return outputs as [string, string];
}

const answers = ([before, after]: [string, string]) => {
  // Nearest first; then what has changed is there, and what is gone is not.
  expect(before.indexOf('files.md')).toBeGreaterThan(-1);
  expect(before.indexOf('files.md')).toBeLessThan(before.indexOf('sockets.md'));
  expect(after).toMatch(/files\.md[^]*others\.md/);
  expect(after).not.toContain('sockets.md');
};

test('LanceDB', async () => answers(await twice(recipe('@lancedb/lancedb'))));

const sqlite = () => {
  try {
    const Database = require('better-sqlite3') as new (path: string) => { close(): void };
    new Database(':memory:').close();
    return true;
  } catch {
    return false;
  }
};

test.skipIf(!sqlite())('sqlite-vec', async () => {
  const [before, after] = await twice(recipe('sqlite-vec'));
  answers([before, after]);
  expect(after).toContain('is opened and read');
});

test('pgvector', async () => {
  // Postgres itself, in this process, with the extension.
  const code = recipe('pg').replace("import pg from 'pg';", `
import { PGlite } from '@electric-sql/pglite';
import { vector } from '@electric-sql/pglite-pgvector';
const pg = { Client: class {
  async connect() { this.db = await PGlite.create('out/postgres', { extensions: { vector } }); }
  query(text, values) { return this.db.query(text, values); }
  end() { return this.db.close(); }
} };`);
  const [before, after] = await twice(code);
  answers([before, after]);
  expect(after).toContain('is opened and read');
});

test('Qdrant', async () => {
  interface Point { id: string; vector: number[]; payload: object }
  const points = new Map<string, Point>();
  const written: number[] = [];
  let created: object | undefined;
  const cosine = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
  // What the recipe asks for, of Qdrant's interface over HTTP.
  const answer = (method: string, path: string, body: Record<string, unknown>): unknown => {
    if (path.endsWith('/exists')) return { exists: created !== undefined };
    if (method === 'PUT' && /^\/collections\/chunks_[0-9a-f]{16}$/.test(path)) return (created = body) && true;
    if (method === 'PUT' && path.endsWith('/points')) {
      const given = body.points as Point[];
      for (const point of given) points.set(point.id, point);
      return written.push(given.length) && { status: 'completed' };
    }
    if (path.endsWith('/points/delete')) {
      const { must_not: [{ has_id }] } = body.filter as { must_not: [{ has_id: string[] }] };
      for (const id of points.keys()) if (!has_id.includes(id)) points.delete(id);
      return { status: 'completed' };
    }
    if (path.endsWith('/points/query')) {
      const scored = [...points.values()].map(({ id, vector, payload }) => ({ id, version: 0, payload, score: cosine(vector, body.query as number[]) }));
      return { points: scored.sort((a, b) => b.score - a.score).slice(0, body.limit as number) };
    }
    if (path.endsWith('/points')) return (body.ids as string[]).filter((id) => points.has(id)).map((id) => ({ id }));
    throw new Error(`${method} ${path}`);
  };
  const server = createServer(async (request, response) => {
    const text = (await request.toArray()).join('');
    const result = answer(request.method!, request.url!.split('?')[0]!, text === '' ? {} : (JSON.parse(text) as Record<string, unknown>));
    response.setHeader('content-type', 'application/json').end(JSON.stringify({ result, status: 'ok', time: 0 }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const { port } = server.address() as { port: number };
  answers(await twice(recipe('@qdrant/js-client-rest'), { QDRANT_URL: `http://127.0.0.1:${port}` }));
  expect(created).toEqual({ vectors: { size: 256, distance: 'Cosine' } });
  expect([...points.keys()].every((id) => /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/.test(id))).toBe(true);
  expect(written).toEqual([2, 2]);
});
