// Fuzzes everything that reads foreign bytes (`fuzz/`): coverage-guided, by libFuzzer, with stable Rust. Needs a C++ compiler, and is
// part of no build.
//
//   node scripts/fuzz.mjs [--seconds 60] [TARGET…]     each target for so long, from the corpus that is kept in fuzz/corpus/
//   node scripts/fuzz.mjs --keep                       keeps of what was found on the way what is needed to cover it
//
// An input that makes the library panic, hang or use too much memory is left in fuzz/found/TARGET/, and ends the run with 1:
// `FUZZ_TARGET=TARGET fuzz/target/…/embedcore-fuzz FILE` shows what it did.

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { gunzipSync, gzipSync } from 'node:zlib';

import { root } from './platforms.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '60' }, keep: { type: 'boolean' }, built: { type: 'string' } },
});
const place = join(root, 'fuzz');
const host = /host: (.*)/.exec(execFileSync('rustc', ['-vV'], { encoding: 'utf8' }))[1];

/** Coverage, and what is compared with what, for libFuzzer; of a stable compiler. */
const FLAGS = ['--cfg=fuzzing', '-Cpasses=sancov-module', '-Ccodegen-units=1', ...['level=4', 'inline-8bit-counters', 'pc-table', 'trace-compares'].map((what) => `-Cllvm-args=-sanitizer-coverage-${what}`)];

/** The corpus of a target in one file, and its inputs in a directory that libFuzzer reads and adds to. */
function unpack(name, directory) {
  mkdirSync(directory, { recursive: true });
  const kept = join(place, 'corpus', `${name}.json.gz`);
  if (!existsSync(kept)) return;
  JSON.parse(gunzipSync(readFileSync(kept)).toString()).forEach((input, at) => writeFileSync(join(directory, `kept-${at}`), Buffer.from(input, 'base64')));
}

function pack(name, directory) {
  const inputs = readdirSync(directory).map((file) => readFileSync(join(directory, file)).toString('base64'));
  mkdirSync(join(place, 'corpus'), { recursive: true });
  writeFileSync(join(place, 'corpus', `${name}.json.gz`), gzipSync(JSON.stringify(inputs.sort()), { level: 9 }));
  return inputs.length;
}

/** libFuzzer ends without a chance to remove what `fuzz/src/places.rs` has made. */
function tidied(ended) {
  for (const above of ['/dev/shm', tmpdir()]) rmSync(join(above, `embedcore-fuzz-${ended.pid}`), { recursive: true, force: true });
  return ended;
}

function build() {
  const env = { ...process.env, CARGO_ENCODED_RUSTFLAGS: FLAGS.join('\x1f') };
  // With a target, so that build scripts are not instrumented.
  const { status } = spawnSync('cargo', ['build', '--release', '--locked', '--target', host], { cwd: place, env, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
  return join(place, 'target', host, 'release', 'embedcore-fuzz');
}

const program = values.built ?? build();
const seeds = join(place, 'target', 'seeds');
rmSync(seeds, { recursive: true, force: true });
// libFuzzer takes a program that ends by itself for one that has failed.
tidied(spawnSync(program, [`-artifact_prefix=${place}/target/`], { env: { ...process.env, FUZZ_SEEDS: seeds }, stdio: 'ignore' }));
const targets = JSON.parse(readFileSync(join(seeds, 'targets.json'), 'utf8'));
const unknown = positionals.filter((name) => !targets.some((target) => target.name === name));
if (unknown.length > 0) {
  console.error(`There is no target ${unknown.join(', ')}; known are ${targets.map(({ name }) => name).join(', ')}`);
  process.exit(2);
}

let [failed, inputs] = [0, 0];
for (const { name, most } of targets.filter((target) => positionals.length === 0 || positionals.includes(target.name))) {
  const corpus = join(place, 'target', 'corpus', name);
  const found = join(place, 'found', name);
  unpack(name, corpus);
  mkdirSync(found, { recursive: true });
  const env = { ...process.env, FUZZ_TARGET: name };
  const run = (...args) => tidied(spawnSync(program, args, { env, cwd: found, encoding: 'utf8', maxBuffer: 1 << 28 }));
  if (values.keep) {
    const smaller = `${corpus}.small`;
    rmSync(smaller, { recursive: true, force: true });
    mkdirSync(smaller);
    run('-merge=1', `-max_len=${most}`, smaller, corpus, join(seeds, name));
    console.log(`${name}: ${pack(name, smaller)} inputs are kept`);
    rmSync(smaller, { recursive: true });
    continue;
  }
  const limits = [`-max_total_time=${values.seconds}`, `-max_len=${most}`, '-timeout=25', '-rss_limit_mb=2048', '-print_final_stats=1', '-verbosity=1'];
  const { status, stderr } = run(...limits, `-artifact_prefix=${found}/`, corpus, join(seeds, name));
  const executed = Number(/number_of_executed_units: (\d+)/.exec(stderr)?.[1] ?? 0);
  const covered = /cov: (\d+)/.exec(stderr.slice(stderr.lastIndexOf('cov:')))?.[1] ?? '?';
  inputs += executed;
  console.log(`${name}: ${executed} inputs, ${covered} places covered${status === 0 ? '' : ', and it failed'}`);
  if (status !== 0) {
    failed++;
    console.log(stderr.split('\n').filter((line) => !/^#|NEW_FUNC|^INFO/.test(line)).join('\n'));
  }
}
if (!values.keep) console.log(`${inputs} inputs; ${failed} targets failed`);
if (existsSync(join(place, 'found')) && failed === 0) rmSync(join(place, 'found'), { recursive: true });
process.exitCode = failed > 0 ? 1 : 0;
