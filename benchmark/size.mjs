// What does an install cost? Packs the package and its platform package, installs both into an empty project, and
// weighs the result: `node benchmark/size.mjs`.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, lstatSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { PlainError, main, readJson, repoRoot, temporaryDirectory } from './lib.mjs';

const MB = 1024 * 1024;

await main(() => {
  const workshop = temporaryDirectory();
  const project = join(workshop, 'project');
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), '{ "private": true }\n');

  const tarballs = [repoRoot, platformPackage()].map((directory) => pack(directory, workshop));
  npm(['install', '--ignore-scripts', '--no-audit', '--no-fund', ...tarballs], project);

  const modules = join(project, 'node_modules');
  console.log(`\ninstalled: ${megabytes(sizeOf(modules))} MB`);
  for (const name of packagesIn(modules)) {
    console.log(`  ${name.padEnd(40)} ${megabytes(sizeOf(join(modules, name))).padStart(8)} MB`);
  }
  console.log(`\n${npm(['ls', '--all'], project)}`);
});

/** The directory under npm/ that is made for this machine. */
function platformPackage() {
  const root = join(repoRoot, 'npm');
  const directories = existsSync(root) ? readdirSync(root).map((name) => join(root, name)) : [];
  const libc = process.report.getReport().header.glibcVersionRuntime ? 'glibc' : 'musl';
  const found = directories.find((directory) => {
    if (!existsSync(join(directory, 'package.json'))) return false;
    const manifest = readJson(join(directory, 'package.json'));
    return manifest.os?.includes(process.platform) && manifest.cpu?.includes(process.arch)
      && (process.platform !== 'linux' || !manifest.libc || manifest.libc.includes(libc));
  });
  if (!found) throw new PlainError(`There is no platform package for ${process.platform}-${process.arch} under npm/; build it first.`);
  if (!readdirSync(found).some((name) => name.endsWith('.node'))) {
    throw new PlainError(`npm/${found.slice(root.length + 1)} holds no .node file yet; build it first.`);
  }
  return found;
}

function pack(directory, into) {
  const [{ name, filename, size, unpackedSize }] = JSON.parse(
    npm(['pack', '--json', '--ignore-scripts', '--pack-destination', into], directory),
  );
  console.log(`packed ${name.padEnd(40)} ${megabytes(size).padStart(8)} MB, ${megabytes(unpackedSize)} MB unpacked`);
  return join(into, filename);
}

/** Runs npm and gives what it printed; a failure carries npm's own words. */
function npm(args, cwd) {
  try {
    return execFileSync('npm', args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], shell: process.platform === 'win32' });
  } catch (error) {
    const words = String(error.stderr || error.message).split('\n').filter((line) => line && !line.startsWith('npm warn')).slice(0, 5);
    throw new PlainError(`npm ${args[0]} failed in ${cwd}:\n${words.join('\n')}`);
  }
}

function packagesIn(modules) {
  return readdirSync(modules)
    .filter((name) => !name.startsWith('.'))
    .flatMap((name) => (name.startsWith('@') ? readdirSync(join(modules, name)).map((inner) => `${name}/${inner}`) : name));
}

/** Bytes of all files; links are not followed. */
function sizeOf(path) {
  const entry = lstatSync(path);
  if (!entry.isDirectory()) return entry.size;
  return readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0);
}

function megabytes(bytes) {
  return (bytes / MB).toFixed(2);
}
