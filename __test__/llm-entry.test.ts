// What the entry needs, and what it does not.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, test } from 'vitest';

import { root } from './support';

/** What a program of these lines prints, in a process where nobody has installed undici. */
async function withoutUndici(program: string): Promise<string> {
  const setup = `
    const { Module } = require('node:module');
    const resolve = Module._resolveFilename;
    Module._resolveFilename = function (name, ...rest) {
      if (name === 'undici') throw Object.assign(new Error("Cannot find module 'undici'"), { code: 'MODULE_NOT_FOUND' });
      return resolve.call(this, name, ...rest);
    };
    const core = require(${JSON.stringify(join(root, 'dist', 'index.js'))});
    const llm = require(${JSON.stringify(join(root, 'dist', 'llm', 'index.js'))});`;
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ['-e', `${setup}\n(async () => {${program}})();`]);
  expect(stderr).toBe('');
  return stdout;
}

test('without undici, only what goes over it fails, and says what to install', async () => {
  const told = JSON.parse(await withoutUndici(`
    const errors = [];
    for (const make of [() => new llm.HttpClient(), () => new llm.OllamaClient({ model: 'a' })]) {
      try { make(); } catch (error) { errors.push([error instanceof core.EmbeddingError, error.code, error.message]); }
    }
    const router = new llm.LlmRouter({ providers: [{ name: 'a', generate: () => 'answer' }] });
    const { response } = await router.generate('x');
    const twice = llm.cachedCall(function twice(n) { return n * 2; });
    console.log(JSON.stringify({ errors, response, twice: await twice(2), config: Object.keys(llm.loadPerformanceConfig()).length }));`)) as Record<string, unknown>;
  const error = [true, 'BACKEND_UNAVAILABLE', 'HttpClient needs the package undici, which could not be loaded: npm install undici@7'];
  expect(told).toEqual({ errors: [error, error], response: 'answer', twice: 4, config: 9 });
});

test('the package itself loads nothing of it', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', `
    require(${JSON.stringify(join(root, 'dist', 'index.js'))});
    console.log(Object.keys(require.cache).filter((file) => /undici|dist.(http|llm)./.test(file)).join());`]);
  expect(stdout.trim()).toBe('');
});

test('a process ends when its work ends, whatever is left open', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', `
    const { HttpClient, OllamaClient } = require(${JSON.stringify(join(root, 'dist', 'llm', 'index.js'))});
    const server = require('node:http').createServer((_, response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{"response":"x","done":true}'));
    server.listen(0, '127.0.0.1', async () => {
      server.unref();
      const baseUrl = 'http://127.0.0.1:' + server.address().port;
      const http = new HttpClient();
      await http.get(baseUrl);
      await http.fetch(baseUrl);
      console.log((await new OllamaClient({ baseUrl, model: 'a' }).generate('x')).response);
    });`], { timeout: 20_000 });
  expect(stdout).toBe('x\n');
});
