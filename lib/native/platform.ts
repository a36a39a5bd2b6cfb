import { closeSync, existsSync, fstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { isMainThread } from 'node:worker_threads';

import { EmbeddingError, toEmbeddingError } from '../call/errors';
import type { Addon } from './types';

/** The platforms that a package is published for; `scripts/platforms.mjs` makes them. */
const PUBLISHED = [
  'linux-x64-gnu',
  'linux-arm64-gnu',
  'linux-x64-musl',
  'linux-arm64-musl',
  'darwin-x64',
  'darwin-arm64',
  'win32-x64-msvc',
  'win32-arm64-msvc',
];

/** Node.js' names of processors whose programs are 32 bits wide. */
const NARROW = ['arm', 'ia32', 'mips', 'mipsel', 'ppc', 's390'];

/** The root of this package, in a clone and installed; or the folder above a bundle, if the model was copied there. */
const installed = join(__dirname, '..', '..');
const root = [installed, join(__dirname, '..')].find(holdsModel) ?? installed;

function holdsModel(folder: string): boolean {
  try {
    return existsSync(join(folder, 'models', 'builtin'));
  } catch {
    return false; // Node.js' permission model hides it.
  }
}

/** Loads the addon for this machine. Whatever stands in the way is an error that says what it is and what to do. */
export function loadAddon(): Addon {
  try {
    return load();
  } catch (thrown) {
    const { code, resource } = thrown as NodeJS.ErrnoException & { resource?: string };
    throw code === 'ERR_ACCESS_DENIED' ? unreadable(resource ?? root, thrown) : toEmbeddingError(thrown);
  }
}

function load(): Addon {
  const name = platformName();
  if (!PUBLISHED.includes(name)) throw unsupported(name);
  const path = find(name);
  const addon = open(name, path);
  const { version } = require('../../package.json') as { version: string };
  // An addon that is too old to tell has no such function.
  const found = typeof addon.version === 'function' ? addon.version() : 'an earlier one';
  if (found !== version) {
    throw unavailable(
      `${path} is of another version than embedcore itself (${found}, not ${version}): reinstall, so that embedcore and ` +
        `embedcore-${name} have the same one; a lock file or an "overrides" entry may hold the other back`,
      { platform: name, path, version, found },
    );
  }
  addon.checkThreads();
  addon.setDirectories(dirname(path), join(root, 'models', 'builtin'), packageOf('openvino'), packageOf('webgpu'));
  closeAtExit(path, addon);
  return addon;
}

/** The names of platform packages: Node.js' own names, and what else tells binaries apart. */
function platformName(): string {
  const { platform, arch } = process;
  if (platform === 'win32') return `win32-${arch}-msvc`;
  if (platform !== 'linux') return `${platform}-${arch}`;
  return `linux-${arch}-${usesGlibc() ? 'gnu' : 'musl'}`;
}

function usesGlibc(): boolean {
  const settings = process.report as (typeof process.report & { excludeNetwork?: boolean }) | undefined;
  // Runtimes other than Node.js may have no report; their builds for musl are linked to its loader.
  if (!settings) return !existsSync(`/lib/ld-musl-${process.arch === 'x64' ? 'x86_64' : 'aarch64'}.so.1`);
  // Otherwise the report looks up the name of every open connection's peer.
  const before = settings.excludeNetwork ?? false;
  settings.excludeNetwork = true;
  try {
    return (settings.getReport() as { header?: { glibcVersionRuntime?: string } }).header?.glibcVersionRuntime !== undefined;
  } finally {
    settings.excludeNetwork = before;
  }
}

function find(name: string): string {
  const file = `embedcore.${name}.node`;
  // In a clone the platform package lies where it is built.
  const built = join(root, 'npm', name, file);
  if (existsSync(built)) return built;
  const path = resolved(`embedcore-${name}/${file}`);
  if (path !== undefined) return path;
  for (const folder of [root, dirname(root)]) if (permission && !permission.has('fs.read', folder)) throw unreadable(folder);
  throw missing(name);
}

/** Where a package of libraries lies, whatever is in it. */
function packageOf(product: 'openvino' | 'webgpu'): string | undefined {
  const name = `${product}-${process.platform}-${process.arch}`;
  // In a clone it lies where it is made; what stands there before that is its description alone.
  const made = join(root, 'npm', name);
  if (existsSync(join(made, 'package.json'))) return readdirSync(made).some((file) => LIBRARY.test(file)) ? made : undefined;
  const manifest = usesGlibc() || process.platform !== 'linux' ? resolved(`embedcore-${name}/package.json`) : undefined;
  return manifest && dirname(manifest);
}

const LIBRARY = /\.(so|dylib|dll)(\.|$)/;

/** The permission model of Node.js, where it is in force. */
const { permission } = process as { permission?: { has(scope: string, reference?: string): boolean } };

function unreadable(path: string, cause?: unknown): EmbeddingError {
  return unavailable(
    `Node.js' permission model does not let this process read ${path}: start it with --allow-fs-read=${dirname(root)} and --allow-addons`,
    { path },
    cause,
  );
}

/** The path that a request leads to, if it leads anywhere. */
function resolved(request: string): string | undefined {
  try {
    return require.resolve(request);
  } catch {
    return undefined;
  }
}

function open(name: string, path: string): Addon {
  const reinstall = `remove node_modules/embedcore-${name} and install again`;
  const damage = damageOf(path);
  if (damage) throw unavailable(`${path} is damaged: ${damage}. Perhaps a download or a copy broke off: ${reinstall}`, { platform: name, path });
  try {
    return require(path) as Addon;
  } catch (cause) {
    const reason = (cause as Error).message.replace(/\.$/, '');
    throw unavailable(`${path} could not be loaded on ${name}: ${reason}. ${adviceOn(cause, path, reinstall)}`, { platform: name, path }, cause);
  }
}

/** What to do about an addon that is there and is not taken. */
function adviceOn(cause: unknown, path: string, reinstall: string): string {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === 'ERR_DLOPEN_DISABLED') {
    return permission
      ? "Node.js' permission model forbids addons: start it with --allow-addons"
      : 'Node.js was started with --no-addons (see NODE_OPTIONS, too): start it without';
  }
  if (/GLIBC(XX)?_[\d.]+' not found/.test(message)) {
    return `This system's C library is older than the addon needs: ${path} works with glibc 2.28 or later (Debian 10, Ubuntu 18.10, RHEL 8)`;
  }
  if (/failed to map segment|Operation not permitted/.test(message)) {
    return 'The file system that it lies on is mounted noexec, or a security policy forbids to run it: install in a folder from which programs may run';
  }
  return `If it was changed or copied from another machine, ${reinstall}`;
}

/**
 * What is wrong with a file that would crash the dynamic linker instead of failing: an ELF library that ends before
 * the table of its sections, which linkers write last. Other formats are left to their linkers, which check.
 */
function damageOf(path: string): string | undefined {
  let file: number | undefined;
  try {
    file = openSync(path, 'r');
    const { size } = fstatSync(file);
    const header = Buffer.alloc(64);
    if (readSync(file, header, 0, header.length, 0) < header.length) return `it ends after ${size} bytes`;
    const isElf64 = header.readUInt32BE(0) === 0x7f454c46 && header[4] === 2 && header[5] === 1;
    if (!isElf64) return process.platform === 'linux' ? 'it is no library for this platform' : undefined;
    const end = Number(header.readBigUInt64LE(40)) + header.readUInt16LE(58) * header.readUInt16LE(60);
    return end > size ? `it ends after ${size} of ${end} bytes` : undefined;
  } catch {
    // What cannot be read, for want of rights or otherwise, the linker says better.
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

function unsupported(name: string): EmbeddingError {
  const { arch } = process;
  const narrow = NARROW.includes(arch) ? `This Node.js (${process.execPath}) is a 32-bit program: install a 64-bit one. ` : '';
  return unavailable(
    `embedcore has no native part for ${name}. ${narrow}There is one for ${PUBLISHED.join(', ')}; for others, build it from ` +
      'source: see "Platforms" in the README',
    { platform: name, supported: PUBLISHED },
  );
}

/** Why the package of this platform is not there, as far as it can be told. */
function missing(name: string): EmbeddingError {
  const wanted = `embedcore-${name}`;
  const installed = resolved(`${wanted}/package.json`);
  const others = PUBLISHED.filter((other) => other !== name && resolved(`embedcore-${other}/package.json`) !== undefined);
  const details = { platform: name, package: wanted, installed: others.map((other) => `embedcore-${other}`) };
  if (existsSync(join(root, 'Cargo.toml'))) {
    return unavailable(`The native part of embedcore for ${name} is not built in this clone: run \`npm run build\``, details);
  }
  const start = `The native part of embedcore for ${name} is missing: `;
  if (installed !== undefined) {
    return unavailable(`${start}${dirname(installed)} holds no embedcore.${name}.node. Remove that folder and install again`, details);
  }
  const [os, cpu, abi] = name.split('-');
  const libc = os === 'linux' ? ` --libc=${abi === 'gnu' ? 'glibc' : 'musl'}` : '';
  const again = 'Remove node_modules and install again on this machine, with optional dependencies';
  const why =
    others.length > 0
      ? `node_modules holds ${others.map((other) => `embedcore-${other}`).join(' and ')} instead, so it was installed on, or copied ` +
        `from, another platform. ${again}; to install for this one elsewhere: npm install --os=${os} --cpu=${cpu}${libc}`
      : 'This usually happens when optional dependencies were left out (--omit=optional, --no-optional, "omit" in .npmrc), or ' +
        `when a lock file was written on another platform. ${again}; if that does not help, remove the lock file as well`;
  return unavailable(`${start}the package ${wanted} is not installed. ${why}`, details);
}

const unavailable = (message: string, details: Record<string, unknown>, cause?: unknown) =>
  new EmbeddingError('BACKEND_UNAVAILABLE', message, cause === undefined ? { details } : { details, cause });

/** Once for each process and addon, however often a test runner loads this file. */
function closeAtExit(path: string, addon: Addon): void {
  const once = Symbol.for(`embedcore:${path}`);
  const marked = process as unknown as Record<symbol, boolean>;
  if (!isMainThread || marked[once]) return;
  marked[once] = true;
  process.on('exit', (code) => addon.closeRuntime(code));
}
