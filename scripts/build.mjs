// Builds everything that a clone lacks: the ONNX Runtime library, the addon beside it, and the JavaScript in dist/.
//
//   node scripts/build.mjs [--debug]

import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const profile = process.argv.includes('--debug') ? 'debug' : 'release';

/** Runs a command that says itself what goes wrong. */
function run(command, ...args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (error) console.error(`${command} could not be started: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}

/** The platform package of the Rust target that this machine builds for. */
function hostPackage() {
  const host = /host: (.*)/.exec(execFileSync('rustc', ['-vV'], { encoding: 'utf8' }))[1];
  const { platforms } = JSON.parse(readFileSync(join(root, 'onnxruntime.json'), 'utf8'));
  const platform = platforms[host];
  if (!platform) throw new Error(`No platform package is defined for ${host}; known are ${Object.keys(platforms).join(', ')}`);
  return platform.package;
}

const builtNames = { linux: 'libembedcore.so', darwin: 'libembedcore.dylib', win32: 'embedcore.dll' };

run(process.platform === 'win32' ? 'python' : 'python3', join('scripts', 'fetch_onnxruntime.py'));
run('cargo', 'build', '--features', 'napi', ...(profile === 'release' ? ['--release'] : []));
const name = hostPackage();
const folder = join(root, 'npm', name);
mkdirSync(folder, { recursive: true });
const addon = join(folder, `embedcore.${name}.node`);
// Renamed into place: a running process keeps the old file instead of crashing on a changed one.
copyFileSync(join(root, 'target', profile, builtNames[process.platform]), `${addon}.part`);
renameSync(`${addon}.part`, addon);
run(process.execPath, join('node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.json');
run(process.execPath, join('scripts', 'page.mjs'));
console.log(`Built npm/${name} and dist/`);
