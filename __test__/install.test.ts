// What an installation does when something is wrong with it, and where little is allowed.
import { execFile } from 'node:child_process';
import { chmodSync, copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { host, model, root } from './support';

const bert = model('bert-mean');
const built = join(root, 'npm', host);
const addon = `embedcore.${host}.node`;
const library = readdirSync(built).find((name) => /onnxruntime\.(so|dylib|dll)$/.test(name));
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

/** A project with nothing in it. */
function project(): string {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-install-'));
  onTestFinished(() => {
    chmodSync(directory, 0o755);
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

/** Installs the root package into a project, under a name and a version that may differ from the true ones. */
function installRoot(project: string, name = 'embedcore', as = version): string {
  const folder = join(project, 'node_modules', name);
  mkdirSync(join(folder, 'models'), { recursive: true });
  cpSync(join(root, 'dist'), join(folder, 'dist'), { recursive: true });
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as object;
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, version: as }));
  symlinkSync(join(root, 'models', 'builtin'), join(folder, 'models', 'builtin'), 'junction');
  return folder;
}

/** Installs the package of a platform beside (or below) the root package; its addon is this machine's. */
function installPlatform(folder: string, platform = host): string {
  const target = join(folder, 'node_modules', `embedcore-${platform}`);
  mkdirSync(target, { recursive: true });
  writeFileSync(join(target, 'package.json'), JSON.stringify({ name: `embedcore-${platform}`, version }));
  copyFileSync(join(built, addon), join(target, `embedcore.${platform}.node`));
  if (library) copyFileSync(join(built, library), join(target, library));
  return target;
}

interface Ended {
  code: number | string;
  out: string;
  err: string;
}

function run(cwd: string, code: string, options: { env?: NodeJS.ProcessEnv; uid?: number; gid?: number } = {}): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, ['-e', code], { cwd, timeout: 60_000, ...options }, (error, out, err) => {
      resolve({ code: error ? (error.code ?? error.signal ?? 'unknown') : 0, out, err });
    });
  });
}

/** Uses the addon, and prints the error that comes of it. */
const attempt = `
  const { EmbeddingError, PerformanceMonitor } = require('embedcore');
  try { new PerformanceMonitor(); console.log('works'); }
  catch (error) { console.log(error instanceof EmbeddingError, error.code, error.message, JSON.stringify(error.details)); }`;

test('a whole installation works', async () => {
  const directory = project();
  installRoot(directory);
  installPlatform(directory);
  expect(await run(directory, attempt)).toEqual({ code: 0, out: 'works\n', err: '' });
});

test('a missing platform package is named, with the usual reasons', async () => {
  const directory = project();
  installRoot(directory);
  const { code, out, err } = await run(directory, attempt);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(out).toMatch(/^true BACKEND_UNAVAILABLE /);
  for (const words of [`for ${host} is missing`, `embedcore-${host} is not installed`, '--omit=optional', '--no-optional', 'lock file']) expect(out).toContain(words);
});

test('the package of another platform is named: node_modules was copied', async () => {
  const other = host.startsWith('darwin') ? 'linux-x64-gnu' : 'darwin-arm64';
  const directory = project();
  installRoot(directory);
  installPlatform(directory, other);
  const { out } = await run(directory, attempt);
  expect(out).toContain(`node_modules holds embedcore-${other} instead`);
  expect(out).toContain(`npm install --os=${process.platform} --cpu=${process.arch}`);
});

test('a platform package without its addon is named', async () => {
  const directory = project();
  installRoot(directory);
  const target = installPlatform(directory);
  rmSync(join(target, addon));
  expect((await run(directory, attempt)).out).toMatch(new RegExp(`BACKEND_UNAVAILABLE .*embedcore-${host} holds no ${addon}`));
});

test.runIf(process.platform === 'linux').each([
  ['empty', 0],
  ['cut in its header', 40],
  ['cut in the middle', 5_000_000],
  ['without its last byte', -1],
])('a damaged addon is an error, not a crash: %s', async (_name, bytes) => {
  const directory = project();
  installRoot(directory);
  const file = join(installPlatform(directory), addon);
  truncateSync(file, bytes < 0 ? readFileSync(file).length + bytes : bytes);
  const { code, out, err } = await run(directory, attempt);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(out).toMatch(/^true BACKEND_UNAVAILABLE .* is damaged: .*install again/);
});

test('a file that is no addon is an error', async () => {
  const directory = project();
  installRoot(directory);
  writeFileSync(join(installPlatform(directory), addon), 'x'.repeat(10_000));
  expect((await run(directory, attempt)).out).toMatch(/^true BACKEND_UNAVAILABLE .*install again/);
});

test('an addon of another version is refused, with both versions', async () => {
  const directory = project();
  installRoot(directory, 'embedcore', '99.1.2');
  installPlatform(directory);
  expect((await run(directory, attempt)).out).toMatch(new RegExp(`^true BACKEND_UNAVAILABLE .*\\(${version.replaceAll('.', '\\.')}, not 99\\.1\\.2\\).*reinstall`));
});

test.each([
  ['ia32', /32-bit program: install a 64-bit one/],
  ['arm', /32-bit program/],
  ['riscv64', /no native part for \w+-riscv64.*linux-x64-gnu.*build it from source/],
])('a processor without a package: %s', async (arch, expected) => {
  const directory = project();
  installRoot(directory);
  const { out } = await run(directory, `Object.defineProperty(process, 'arch', { value: '${arch}' }); ${attempt}`);
  expect(out).toMatch(expected);
});

test('an operating system without a package', async () => {
  const directory = project();
  installRoot(directory);
  const { out } = await run(directory, `Object.defineProperty(process, 'platform', { value: 'freebsd' }); ${attempt}`);
  expect(out).toMatch(/BACKEND_UNAVAILABLE embedcore has no native part for freebsd-/);
});

test.runIf(process.platform === 'linux')('a system with musl asks for the package with musl', async () => {
  const directory = project();
  installRoot(directory);
  installPlatform(directory);
  const { out } = await run(directory, `process.report.getReport = () => ({ header: {} }); ${attempt}`);
  if (host.endsWith('-gnu')) expect(out).toContain(`embedcore-${host.replace('gnu', 'musl')} is not installed. node_modules holds embedcore-${host} instead`);
  else expect(out).toBe('works\n');
});

test.each(['18.20.8', '16.20.2', '12.22.12'])('Node.js %s is told what it lacks', async (old) => {
  const directory = project();
  installRoot(directory);
  const pretend = `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '${old}' } });`;
  const { out } = await run(directory, `${pretend} try { require('embedcore'); } catch (error) { console.log(error.code, error.message); }`);
  expect(out).toMatch(new RegExp(`^BACKEND_UNAVAILABLE embedcore needs Node\\.js 20 or later; this is ${old}`));
});

test('what is loaded first is plain enough for any Node.js', () => {
  for (const file of ['index.js', 'node-version.js']) {
    const code = readFileSync(join(root, 'dist', file), 'utf8');
    expect(code).not.toMatch(/\?\?|\?\.|`|=>|\bclass\b|\bawait\b|#/);
  }
});

const embedWith = (name: string, modelPath: string) => `
  const { OptimizedEmbeddingGenerator } = require('${name}');
  const generator = new OptimizedEmbeddingGenerator({ modelPath: ${JSON.stringify(modelPath)} });
  await generator.initialize();
  const { data } = await generator.embed(['open a file', 'close a socket']);`;

test('two versions in one process work side by side', { timeout: 120_000 }, async () => {
  const directory = project();
  installRoot(directory);
  installPlatform(directory);
  // What another version is to the process: other files, and another number in them.
  const later = version.replace(/\d$/, (digit) => String((Number(digit) + 5) % 10));
  const second = installRoot(directory, 'embedcore-later', later);
  const file = join(installPlatform(second), addon);
  const binary = readFileSync(file, 'latin1');
  writeFileSync(file, binary.replaceAll(version, later), 'latin1');
  const code = `(async () => {
    const vectors = [];
    const generators = [];
    for (const name of ['embedcore', 'embedcore-later', 'embedcore']) for (const modelPath of ['builtin', ${JSON.stringify(bert)}]) {
      const { OptimizedEmbeddingGenerator } = require(name);
      const generator = new OptimizedEmbeddingGenerator({ modelPath });
      await generator.initialize();
      generators.push(generator);
      vectors.push([...(await generator.embed(['open a file', 'close a socket'])).data]);
    }
    console.log(JSON.stringify([vectors[0].length, vectors[1].length]));
    for (const i of [2, 3, 4, 5]) require('node:assert').deepStrictEqual(vectors[i], vectors[i % 2]);
    require('node:assert').notStrictEqual(require('embedcore').EmbeddingError, require('embedcore-later').EmbeddingError);
    END
  })();`;
  const tidy = 'await Promise.all(generators.map((generator) => generator.cleanup()));';
  const abrupt = 'generators.forEach((generator) => generator.embed(Array(500).fill(0).map((_, i) => `text ${i}`)).catch(() => {})); process.exit(0);';
  for (const end of [tidy, '', abrupt]) {
    expect(await run(directory, code.replace('END', () => end))).toEqual({ code: 0, out: '[512,64]\n', err: '' });
  }
});

// Permissions do not bind root: there, the program runs as nobody.
const isRoot = process.getuid?.() === 0;
test.runIf(process.platform !== 'win32')('a read-only file system, without a home, is enough', async () => {
  const directory = project();
  installRoot(directory);
  installPlatform(directory);
  writeFileSync(join(directory, 'probe'), '');
  chmodSync(join(directory, 'probe'), 0o444);
  for (const path of [...readdirSync(directory, { recursive: true, encoding: 'utf8' }).map((name) => join(directory, name)), directory]) {
    if (!path.includes('builtin')) chmodSync(path, 0o555);
  }
  const code = `(async () => {
    require('node:assert').throws(() => require('node:fs').writeFileSync('new', ''), /EACCES|EROFS/);
    ${embedWith('embedcore', 'builtin')}
    console.log(data.length);
    await generator.cleanup();
    const { CodeIndex } = require('embedcore');
    const index = new CodeIndex('.');
    await index.update().catch((error) => console.log(error.code, /embedcore/.test(error.message)));
    await index.close();
  })();`;
  const who = isRoot ? { uid: 65534, gid: 65534 } : {};
  const { out, ...ended } = await run(directory, code, { env: { PATH: process.env.PATH }, ...who });
  for (const path of readdirSync(directory, { recursive: true, encoding: 'utf8' })) if (!path.includes('builtin')) chmodSync(join(directory, path), 0o755);
  expect(ended).toEqual({ code: 0, err: '' });
  expect(out).toBe('512\nCACHE_STORAGE_FAILED true\n');
});
