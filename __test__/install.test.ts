// What an installation does when something is wrong with it, and where little is allowed.
import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
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

interface RunOptions {
  env?: NodeJS.ProcessEnv;
  uid?: number;
  gid?: number;
  /** For Node.js. */
  flags?: string[];
}

function run(cwd: string, code: string, { flags = [], ...options }: RunOptions = {}): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [...flags, '-e', code], { cwd, timeout: 60_000, ...options }, (error, out, err) => {
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
  for (const file of ['index.js', join('native', 'node-version.js')]) {
    const code = readFileSync(join(root, 'dist', file), 'utf8');
    expect(code).not.toMatch(/\?\?|\?\.|`|=>|\bclass\b|\bawait\b|#/);
  }
});

const embedWith = (name: string, modelPath: string) => `
  const { OptimizedEmbeddingGenerator } = require('${name}');
  const generator = new OptimizedEmbeddingGenerator({ modelPath: ${JSON.stringify(modelPath)} });
  await generator.initialize();
  const { data } = await generator.embed(['open a file', 'close a socket']);`;

test('two versions in one process work side by side', async () => {
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

/** The permission model has lost its prefix. */
const permission = process.allowedNodeEnvironmentFlags.has('--permission') ? '--permission' : '--experimental-permission';

test.each([
  ['--no-addons', ['--no-addons'], /--no-addons \(see NODE_OPTIONS, too\)/],
  ['the permission model', [permission, '--allow-fs-read=*'], /permission model forbids addons: start it with --allow-addons/],
])('addons that Node.js was told to refuse are told so: %s', async (_name, flags, says) => {
  const directory = project();
  installRoot(directory);
  installPlatform(directory);
  const { out } = await run(directory, attempt, { flags });
  expect(out).toMatch(/^true BACKEND_UNAVAILABLE /);
  expect(out).toMatch(says);
  expect(out).not.toContain('install again');
});

test('with what it asks for, the permission model lets it work', async () => {
  const directory = project();
  installRoot(directory);
  installPlatform(directory);
  expect((await run(directory, attempt, { flags: [permission, '--allow-fs-read=*', '--allow-addons'] })).out).toBe('works\n');
});

test('files that the permission model hides are named with the flag for them', async () => {
  const directory = project();
  const folder = installRoot(directory);
  installPlatform(directory);
  const flags = [permission, '--allow-addons', `--allow-fs-read=${join(folder, 'dist')}`, `--allow-fs-read=${join(folder, 'package.json')}`];
  const { out } = await run(directory, attempt, { flags });
  expect(out).toMatch(/^true BACKEND_UNAVAILABLE .*--allow-fs-read=/);
});

const root0 = process.platform === 'linux' && process.getuid!() === 0;

/** A command that runs Node.js in a namespace of its own, where mounts may be changed. */
const privately = (prepare: string, code: string) =>
  new Promise<Ended>((resolve) => {
    execFile('unshare', ['-m', 'sh', '-c', `${prepare} && exec "$0" -e "$1"`, process.execPath, code], (error, out, err) => {
      resolve({ code: error ? (error.code ?? error.signal ?? 'unknown') : 0, out, err });
    });
  });

const mayMount = root0 && spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'none', '/mnt']).status === 0;

test.runIf(mayMount)('a file system from which nothing may run is named', async () => {
  const directory = project();
  installRoot(directory);
  installPlatform(directory);
  const prepare = `cp -rL ${directory} ${directory}.copy && mount -t tmpfs -o noexec none ${directory} && cp -r ${directory}.copy/. ${directory} && rm -r ${directory}.copy && cd ${directory}`;
  const { out } = await privately(prepare, attempt);
  expect(out).toMatch(/^true BACKEND_UNAVAILABLE .*mounted noexec/);
  expect(out).not.toContain('install again');
});

test.runIf(mayMount)('without /proc, what is unknown is no limit', async () => {
  const code = `const { OptimizedEmbeddingGenerator, MemoryAwareProcessor } = require(${JSON.stringify(root)});
    (async () => {
      const processor = new MemoryAwareProcessor();
      for (const options of [{}, { memoryLimit: 2048 }]) {
        const generator = new OptimizedEmbeddingGenerator({ modelPath: ${JSON.stringify(bert)}, ...options });
        await generator.initialize();
        const { rows } = await generator.embed(['a', 'b']);
        const { memoryProcessor } = generator.getPerformanceMetrics();
        console.log(rows, memoryProcessor.memoryUsagePercent >= 0, memoryProcessor.ceilingBytes >= 0, (await processor.processItems([1, 2], (batch) => batch)).length);
        await generator.cleanup();
      }
      processor.stop();
    })().catch((error) => console.log(error.code, error.message));`;
  const { err, ...rest } = await privately('mount -t tmpfs none /proc', code);
  expect(rest).toEqual({ code: 0, out: '2 true true 2\n'.repeat(2) });
  // Said by a library in ONNX Runtime, before any of it can be told not to.
  expect(err.replace(/^Error in cpuinfo:.*\n/gm, '')).toBe('');
});

// Limits count all threads of a user, and other tests run as nobody.
const somebody = [`--reuid=${61_000 + (process.pid % 4000)}`, '--regid=65534', '--clear-groups'];
const mayLimit = root0 && spawnSync('setpriv', [...somebody, process.execPath, '-e', `require(${JSON.stringify(root)})`]).status === 0;

test.runIf(mayLimit)('too few threads are one error that names the limit, and nothing is printed', async () => {
  const code = `const { EmbeddingError, CodeIndex, OptimizedEmbeddingGenerator } = require(${JSON.stringify(root)});
    (async () => {
      const generator = new OptimizedEmbeddingGenerator({ modelPath: ${JSON.stringify(bert)} });
      await generator.initialize();
      console.log((await generator.embed(['a', 'b'])).rows);
      process.exit();
    })().catch((error) => { console.log(error instanceof EmbeddingError, error.code, error.message); process.exit(); });`;
  const limited = (count: number) =>
    new Promise<Ended>((resolve) => {
      const args = [`--nproc=${count}`, 'setpriv', ...somebody, process.execPath, '-e', code];
      execFile('prlimit', args, { timeout: 60_000, env: { ...process.env, RUST_BACKTRACE: '1' } }, (error, out, err) => {
        resolve({ code: error ? (error.code ?? error.signal ?? 'unknown') : 0, out, err });
      });
    });
  let refusals = 0;
  for (let count = 8; count <= 32; count += 2) {
    const { code: ended, out, err } = await limited(count);
    // Node.js itself needs some.
    if (/pthread_create|uv_thread_create|OOM|V8/.test(err)) continue;
    expect({ count, ended, err }).toEqual({ count, ended: 0, err: '' });
    if (out === '2\n') continue;
    refusals++;
    expect(out).toMatch(new RegExp(`^true BACKEND_UNAVAILABLE .*the user \\(ulimit -u\\) ${count}\\b`));
  }
  expect(refusals).toBeGreaterThan(0);
  expect((await limited(200)).out).toBe('2\n');
});

// Takes as long as threads without work live.
test.runIf(mayLimit && process.env.EMBEDCORE_THOROUGH)('a limit of threads that is met later is an error of each call, and passes', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'embedcore-threads-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, 'a.ts'), 'export function add(a: number) { return a; }\n');
  chmodSync(directory, 0o777);
  const code = `const { CodeIndex, EmbeddingError, IntelligentEmbeddingCache, OptimizedEmbeddingGenerator } = require(${JSON.stringify(root)});
    const { once } = require('node:events');
    const [directory] = process.argv.slice(1);
    (async () => {
      const generator = new OptimizedEmbeddingGenerator({ modelPath: ${JSON.stringify(bert)} });
      await generator.initialize();
      const [cache, index] = [new IntelligentEmbeddingCache({ persistPath: directory + '/cache.db' }), new CodeIndex(directory)];
      await cache.set('key', 'content', [1]);
      await cache.flush();
      for (let round = 0; round < 2; round++) {
        console.log('ready');
        await once(process.stdin, 'data');
        const calls = [() => cache.has('key', 'content'), () => cache.flush(), () => generator.embed(['text ' + round]), () => index.update(), () => index.search('add')];
        const said = [];
        for (const call of calls) said.push(await call().then(() => 'done', (error) => (error instanceof EmbeddingError ? error.code : String(error))));
        console.log(said.join());
      }
      process.exit();
    })();`;
  const child = spawn('setpriv', [...somebody, process.execPath, '-e', code, directory], { stdio: ['pipe', 'pipe', 'pipe'] });
  let [out, err] = ['', ''];
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (err += data));
  const ended = once(child, 'exit');
  const limit = (most: string) => expect(spawnSync('setpriv', [...somebody, 'prlimit', `--pid=${child.pid}`, `--nproc=${most}`]).status).toBe(0);
  await expect.poll(() => out).toBe('ready\n');
  limit('1:');
  await new Promise((resolve) => setTimeout(resolve, 12_000));
  child.stdin.write('on\n');
  await expect.poll(() => out).toMatch(/^ready\n.*\nready\n$/);
  limit('1000:');
  child.stdin.write('on\n');
  expect(await ended).toEqual([0, null]);
  const [, limited, , free] = out.split('\n');
  // Whoever still has a thread gets its work done.
  expect(new Set(limited!.split(','))).toEqual(new Set(limited!.includes('done') ? ['done', 'BACKEND_UNAVAILABLE'] : ['BACKEND_UNAVAILABLE']));
  expect([free, err]).toEqual(['done,done,done,done,done', '']);
});
