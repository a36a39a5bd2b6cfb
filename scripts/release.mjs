// Makes and checks what is published.
//
//   node scripts/release.mjs pack --out DIR [--all]      tarballs: the root package, and this machine's platform or all
//   node scripts/release.mjs dry [--built] [--keep]      everything that can be tried without publishing: builds (unless
//                                                        --built), checks, packs, installs, runs the README's code
//   node scripts/release.mjs try --from DIR              installs tarballs as a user would, and runs the README's code
//   node scripts/release.mjs check --tag v1.2.3          whether that is the version, everywhere, and in the changelog
//   node scripts/release.mjs publish --from DIR          publishes tarballs, platforms first; what is there is left alone

import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { missingNotices } from './notices.mjs';
import { contents, disagreements, engines, hostPlatform, platforms, readJson, root } from './platforms.mjs';
import { runReadme } from './readme.mjs';

const MB = 1024 * 1024;
/** What an installation may weigh: the root package and one platform package, unpacked. */
const MOST_INSTALLED = 60 * MB;
/** What the root package may hold; anything else is a file of the workshop that slipped in. */
const ROOT_FILES = [
  /^package\.json$/,
  /^(README|ARCHITECTURE|CHANGELOG|CONTRIBUTING|SECURITY)\.md$/,
  /^docs\/([\w-]+\/)*[\w-]+\.md$/,
  /^docs\/images\/[\w-]+\.svg$/,
  /^examples\/[\w-]+\.(md|mjs)$/,
  /^LICENSE$/,
  /^(index|ai-sdk|coherence|langchain|llm|parallel|queue|server)\.d\.m?ts$/,
  /^cli\/(commands\/)?[\w-]+\.js$/,
  /^dist\/([a-z-]+\/)?[\w-]+\.m?js$/,
  /^dist\/(dashboard|search)\/page\/[\w-]+(\.(js|css|html|svg))?$/,
  /^models\/builtin\/(1_Pooling\/|onnx\/)?[\w.]+$/,
];
const INSTALL_SCRIPTS = ['preinstall', 'install', 'postinstall', 'prepare'];

class Refusal extends Error {}

function npm(args, cwd, env = process.env) {
  try {
    return execFileSync('npm', args, { cwd, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], shell: process.platform === 'win32' });
  } catch (error) {
    throw new Refusal(`npm ${args.join(' ')} failed:\n${error.stderr || error.message}`);
  }
}

/** Packs a folder; what npm says about the tarball, with its path. */
function pack(folder, into) {
  const [packed] = JSON.parse(npm(['pack', '--json', '--ignore-scripts', '--pack-destination', into], folder));
  return { ...packed, path: join(into, packed.filename), manifest: JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) };
}

/** What a tarball must and must not hold. */
function inspect({ name, manifest, files }, platform) {
  const paths = files.map(({ path }) => path.replaceAll('\\', '/'));
  const wrong = [];
  const scripts = INSTALL_SCRIPTS.filter((script) => manifest.scripts?.[script]);
  if (scripts.length > 0) wrong.push(`has the install scripts ${scripts.join(', ')}`);
  const expected = platform
    ? ['package.json', 'README.md', ...contents(platform)]
    : ['package.json', 'README.md', 'CHANGELOG.md', 'LICENSE', 'index.d.ts', 'dist/index.js', 'cli/embedcore.js', 'cli/commands/index.js', 'models/builtin/onnx/model.onnx'];
  const lacking = expected.filter((path) => !paths.includes(path));
  if (lacking.length > 0) wrong.push(`lacks ${lacking.join(', ')}`);
  const foreign = platform ? paths.filter((path) => !expected.includes(path)) : paths.filter((path) => !ROOT_FILES.some((known) => known.test(path)));
  if (foreign.length > 0) wrong.push(`holds ${foreign.join(', ')}, which should not be published`);
  if (wrong.length > 0) throw new Refusal(`${name} ${wrong.join('; it ')}`);
}

/** What must agree before anything is made. */
function checkSources() {
  const { version } = readJson('package.json');
  const wrong = disagreements();
  const changelog = readFileSync(join(root, 'CHANGELOG.md'), 'utf8');
  if (!changelog.split('\n').some((line) => line === `## ${version}` || line.startsWith(`## ${version} `))) {
    wrong.push(`CHANGELOG.md has no entry for ${version}`);
  }
  const missing = missingNotices();
  if (missing.length > 0) wrong.push(`npm/THIRD-PARTY-NOTICES.txt lacks ${missing.join(', ')}: run \`node scripts/notices.mjs\``);
  if (wrong.length > 0) throw new Refusal(wrong.join('\n'));
  return version;
}

function packAll(out, all) {
  mkdirSync(out, { recursive: true });
  const host = hostPlatform();
  // A package of libraries holds no code of ours: of this machine's, what the tests have fetched is enough to try.
  const brought = engines.filter(({ os, cpu, libraries, folder }) => all || (host?.os === os && host?.cpu === cpu && host?.libc !== 'musl' && existsSync(join(folder, libraries[0]))));
  const chosen = [...(all ? platforms : [host]), ...brought];
  if (!host && !all) throw new Refusal(`There is no platform package for ${process.platform}-${process.arch}`);
  const packed = chosen.map((platform) => {
    const tarball = pack(platform.folder, out);
    inspect(tarball, platform);
    return tarball;
  });
  const main = pack(root, out);
  inspect(main);
  return [...packed, main];
}

const size = (bytes) => `${(bytes / MB).toFixed(2)} MB`;

/** Bytes of all files below a path; links are not followed. */
function weight(path) {
  const entry = lstatSync(path);
  return entry.isDirectory() ? readdirSync(path).reduce((sum, name) => sum + weight(join(path, name)), 0) : entry.size;
}

/** An environment like that of a user who has Node.js and nothing else: no compiler, no settings, no home but an empty one. */
function bareEnvironment(workshop) {
  const { ORT_DYLIB_PATH, SystemRoot, PATH = '', Path = PATH } = process.env;
  const kept = ORT_DYLIB_PATH ? { ORT_DYLIB_PATH } : {};
  const home = join(workshop, 'home');
  mkdirSync(home);
  if (process.platform === 'win32') {
    const path = Path.split(delimiter).filter((folder) => !/cargo|rustup/i.test(folder));
    return { ...kept, SystemRoot, PATH: path.join(delimiter), APPDATA: home, LOCALAPPDATA: home, USERPROFILE: home, TEMP: tmpdir() };
  }
  const bin = join(workshop, 'bin');
  mkdirSync(bin);
  const found = (name) => [dirname(process.execPath), ...PATH.split(delimiter)].map((folder) => join(folder, name)).find(existsSync);
  // A shell, because npm runs commands in one.
  for (const name of ['sh', 'npm', 'npx']) symlinkSync(realpathSync(found(name)), join(bin, name));
  symlinkSync(process.execPath, join(bin, 'node'));
  return { ...kept, PATH: bin, HOME: home };
}

/** What works on a platform whose users bring ONNX Runtime, and what tells them to. */
const WITHOUT_RUNTIME = `
  import assert from 'node:assert';
  import { IntelligentEmbeddingCache, OptimizedEmbeddingGenerator, prepareText } from 'embedcore';
  const cache = new IntelligentEmbeddingCache({ persistPath: 'cache.sqlite' });
  await cache.set('a', 'text', [0.5, 0.25]);
  assert.deepEqual((await cache.get('a', 'text')).embedding, [0.5, 0.25]);
  await cache.close();
  assert.equal(prepareText({ nodeId: 'a', signature: 'f()', summary: '' }), 'Signature: f()');
  await assert.rejects(new OptimizedEmbeddingGenerator().initialize(), /ORT_DYLIB_PATH/);`;

/** Installs tarballs into an empty project below `workshop`, weighs that, and uses it. */
async function tryOut(tarballs, workshop) {
  console.log('\nInstallation into an empty project, without network, compiler or home');
  const host = hostPlatform();
  const project = join(workshop, 'project');
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }\n');
  const env = bareEnvironment(workshop);
  const started = performance.now();
  npm(['install', '--offline', '--no-audit', '--no-fund', ...tarballs], project, env);
  const installed = weight(join(project, 'node_modules'));
  console.log(`  ${size(installed)} in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  if (installed > MOST_INSTALLED) throw new Refusal(`The installation takes ${size(installed)}, more than ${size(MOST_INSTALLED)}`);
  const leftover = readdirSync(join(project, 'node_modules')).filter((name) => !name.startsWith('.') && ![host.package, 'embedcore'].includes(name));
  if (leftover.length > 0) throw new Refusal(`The installation brought ${leftover.join(', ')} as well`);
  if (!host.library && !env.ORT_DYLIB_PATH) {
    console.log('\nWhat works without ONNX Runtime');
    writeFileSync(join(project, 'without-runtime.mjs'), WITHOUT_RUNTIME);
    execFileSync(process.execPath, ['without-runtime.mjs'], { cwd: project, env, stdio: 'inherit' });
    return;
  }
  console.log("\nThe README's code");
  await runReadme(project, env);
}

/** Calls `work` with a temporary directory. */
async function inWorkshop(keep, work) {
  const workshop = mkdtempSync(join(tmpdir(), 'embedcore-release-'));
  try {
    await work(workshop);
  } finally {
    if (keep) console.log(`Kept in ${workshop}`);
    else rmSync(workshop, { recursive: true, force: true });
  }
}

async function dry({ built, keep }) {
  console.log('Versions, changelog, notices');
  console.log(`  ${checkSources()} everywhere`);
  if (!built) {
    console.log('\nBuild');
    execFileSync(process.execPath, [join(root, 'scripts', 'build.mjs'), '--dist'], { cwd: root, stdio: 'inherit' });
  }
  await inWorkshop(keep, async (workshop) => {
    console.log('\nTarballs');
    const packed = packAll(join(workshop, 'packages'), false);
    for (const { filename, size: bytes, unpackedSize, entryCount } of packed) {
      console.log(`  ${filename.padEnd(38)} ${size(bytes).padStart(9)}, ${size(unpackedSize).padStart(9)} unpacked, ${entryCount} files`);
    }
    await tryOut(packed.filter(({ name }) => !engines.some((engine) => engine.package === name)).map(({ path }) => path), workshop);
  });
  console.log('\nAll of it works.');
}

/** Publishes what is not published yet, so that a run that broke off can be repeated. */
function publish(from) {
  checkSources();
  const tarballs = readdirSync(from).filter((name) => name.endsWith('.tgz'));
  const { version } = readJson('package.json');
  const expected = [...[...platforms, ...engines].map((platform) => platform.package), 'embedcore'].map((name) => [name, `${name}-${version}.tgz`]);
  const lacking = expected.filter(([, file]) => !tarballs.includes(file));
  if (lacking.length > 0) throw new Refusal(`${from} lacks ${lacking.map(([, file]) => file).join(', ')}`);
  for (const [name, file] of expected) {
    if (isPublished(name, version)) {
      console.log(`${name}@${version} is published already`);
      continue;
    }
    const tag = version.includes('-') ? ['--tag', 'next'] : [];
    execFileSync('npm', ['publish', join(from, file), '--provenance', '--access', 'public', '--ignore-scripts', ...tag], { stdio: 'inherit' });
  }
}

function isPublished(name, version) {
  try {
    return execFileSync('npm', ['view', `${name}@${version}`, 'version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim() === version;
  } catch (error) {
    if (/E404/.test(String(error.stderr))) return false;
    throw error;
  }
}

async function main([command, ...args]) {
  const flag = { type: 'boolean' };
  const options = { out: { type: 'string' }, from: { type: 'string' }, all: flag, tag: { type: 'string' }, built: flag, keep: flag };
  const values = parseArgs({ args, options }).values;
  if (command === 'dry') return dry(values);
  if (command === 'pack' && values.out) {
    checkSources();
    for (const { path } of packAll(resolve(values.out), values.all)) console.log(path);
    return;
  }
  if (command === 'try' && values.from) {
    const { version } = readJson('package.json');
    const tarballs = [hostPlatform()?.package, 'embedcore'].map((name) => resolve(values.from, `${name}-${version}.tgz`));
    return inWorkshop(values.keep, (workshop) => tryOut(tarballs, workshop));
  }
  if (command === 'check' && values.tag) {
    const version = checkSources();
    if (values.tag !== `v${version}`) throw new Refusal(`The tag ${values.tag} is not v${version}, which package.json says`);
    return;
  }
  if (command === 'publish' && values.from) return publish(resolve(values.from));
  throw new Refusal('Usage: release.mjs dry [--built] [--keep] | pack --out DIR [--all] | try --from DIR | check --tag TAG | publish --from DIR');
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error instanceof Refusal ? error.message : error);
  process.exitCode = 1;
});
