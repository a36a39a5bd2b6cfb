// The platforms that have a package of their own, and the one version that everything has: that of package.json. From
// these two come npm/<platform>/package.json and README.md, the optional dependencies in package.json and
// package-lock.json, and the version in Cargo.toml and Cargo.lock; likewise npm/openvino-<platform>/, npm/webgpu-<platform>/ and the optional peers.
//
//   node scripts/platforms.mjs            writes all of it
//   node scripts/platforms.mjs --check    fails where something says otherwise

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');
export const readJson = (...path) => JSON.parse(readFileSync(join(root, ...path), 'utf8'));

/** What Microsoft builds ONNX Runtime for; users of the other platforms bring a library of their own. */
const runtime = readJson('onnxruntime.json');

/**
 * Every platform: the name that lib/native/platform.ts makes of Node.js' own words, the Rust target, what npm compares with the
 * machine (`os`, `cpu`, `libc`), the file that cargo makes, and the bundled ONNX Runtime (`library`), where there is one.
 */
export const platforms = [
  ['x86_64-unknown-linux-gnu', 'linux-x64-gnu'],
  ['aarch64-unknown-linux-gnu', 'linux-arm64-gnu'],
  ['x86_64-unknown-linux-musl', 'linux-x64-musl'],
  ['aarch64-unknown-linux-musl', 'linux-arm64-musl'],
  ['x86_64-apple-darwin', 'darwin-x64'],
  ['aarch64-apple-darwin', 'darwin-arm64'],
  ['x86_64-pc-windows-msvc', 'win32-x64-msvc'],
  ['aarch64-pc-windows-msvc', 'win32-arm64-msvc'],
].map(([target, name]) => {
  const [os, cpu, abi] = name.split('-');
  return {
    name,
    target,
    os,
    cpu,
    libc: { gnu: 'glibc', musl: 'musl' }[abi],
    built: { linux: 'libembedcore.so', darwin: 'libembedcore.dylib', win32: 'embedcore.dll' }[os],
    addon: `embedcore.${name}.node`,
    library: runtime.platforms[target]?.file,
    folder: join(root, 'npm', name),
    package: `embedcore-${name}`,
  };
});

/** What packages of libraries bring: for their descriptions, and the licences that travel with them, which `scripts/wheels.py` names. */
const PRODUCTS = {
  openvino: {
    pins: readJson('openvino.json'),
    title: 'OpenVINO',
    license: 'Apache-2.0',
    what: 'a faster engine where the processor has one',
    does: 'computes models faster with it where the processor can',
    then: 'Nothing else has to be said.',
    are: (os) => `OpenVINO's libraries as its makers build them, as far as they compute ONNX models on the CPU${os === 'linux' ? ', under names\nof their own' : ''}`,
    notices: ['LICENSE', 'ONEDNN_THIRD-PARTY-PROGRAMS', 'ONETBB_THIRD-PARTY-PROGRAMS', 'RUNTIME-THIRD-PARTY-PROGRAMS'],
  },
  webgpu: {
    pins: readJson('webgpu.json'),
    title: "ONNX Runtime's plugin for WebGPU",
    license: 'MIT',
    what: 'models computed on any graphics processor',
    does: 'computes models on graphics processors of any maker with it',
    then: "Then `executionProviders: ['webgpu']` uses it, and `'auto'` tries it.",
    are: () => 'the libraries of `onnxruntime-ep-webgpu` as its makers build them',
    notices: ['LICENSE', 'THIRDPARTYNOTICES'],
  },
};

/** Packages that bring libraries which compute, where their makers build them: whoever wants one installs it beside embedcore. */
export const engines = Object.entries(PRODUCTS).flatMap(([id, product]) =>
  Object.entries(product.pins.platforms).map(([target, { package: name, files }]) => {
    const [, os, cpu] = name.split('-');
    return {
      name,
      target,
      os,
      cpu,
      product,
      libc: os === 'linux' ? 'glibc' : undefined,
      libraries: files.map(({ file }) => file),
      notices: product.notices.map((notice) => `${id.toUpperCase()}-${notice}.txt`),
      folder: join(root, 'npm', name),
      package: `embedcore-${name}`,
    };
  }));

/** The platform of a Rust target; without one, of the target that this machine builds for. */
export function platformOf(target) {
  const wanted = target ?? /host: (.*)/.exec(execFileSync('rustc', ['-vV'], { encoding: 'utf8' }))[1];
  const found = platforms.find((platform) => platform.target === wanted);
  if (!found) throw new Error(`There is no platform package for ${wanted}; known are ${platforms.map((known) => known.target).join(', ')}`);
  return found;
}

/** The platform that this process runs on. */
export function hostPlatform() {
  const libc = process.platform !== 'linux' ? undefined : process.report.getReport().header.glibcVersionRuntime ? 'glibc' : 'musl';
  return platforms.find(({ os, cpu, libc: theirs }) => os === process.platform && cpu === process.arch && theirs === libc);
}

/** The bill of materials: `scripts/sbom.mjs`. */
export const SBOM = 'embedcore.cdx.json';

/** What travels in a platform package, beside package.json and README.md. */
export function contents({ addon, library, libraries, notices }) {
  if (libraries) return [...libraries, ...notices];
  const runtimeFiles = library ? [library, 'ONNXRUNTIME-LICENSE', 'ONNXRUNTIME-NOTICES.txt'] : [];
  return [addon, ...runtimeFiles, 'LICENSE', 'THIRD-PARTY-NOTICES.txt', SBOM];
}

function manifest(platform) {
  const { version, license, engines: wanted, repository } = readJson('package.json');
  const { product } = platform;
  const brought = platform.library ? `, with ONNX Runtime ${runtime.version}` : '; ONNX Runtime is to be installed beside it';
  const description = product
    ? `${product.title} ${product.pins.version} for embedcore on ${platform.name.replace(/^\w+-/, '')}: ${product.what}`
    : `The native part of embedcore for ${platform.name}${brought}`;
  return {
    name: platform.package,
    version,
    description,
    license: product ? product.license : license,
    ...(repository && { repository: { ...repository, directory: `npm/${platform.name}` } }),
    engines: { node: wanted.node },
    os: [platform.os],
    cpu: [platform.cpu],
    ...(platform.libc && { libc: [platform.libc] }),
    // For Yarn's Plug'n'Play: libraries cannot be loaded from an archive.
    preferUnplugged: true,
    ...(platform.addon && { main: platform.addon }),
    files: contents(platform),
  };
}

function readme(platform) {
  const { product } = platform;
  if (product) {
    const names = platform.libraries.map((name) => `\`${name}\``).join(', ');
    return `# ${platform.package}\n\n${product.title} ${product.pins.version} for \`embedcore\`, which ${product.does}. Install it beside\n\`embedcore\`, in the same version: \`npm install embedcore ${platform.package}\`. ${product.then}\n\nThese are ${product.are(platform.os)}: ${names}.\nTheir licences are in ${platform.notices.map((name) => `\`${name}\``).join(', ')}.\n`;
  }
  const about = `# ${platform.package}\n\nThe native part of \`embedcore\` for ${platform.name}. Install \`embedcore\`: it brings this package where it is needed.\n`;
  if (platform.library) {
    return `${about}\n\`${platform.library}\` is ONNX Runtime ${runtime.version} as its makers build it, under another name: \`ONNXRUNTIME-LICENSE\`,\n\`ONNXRUNTIME-NOTICES.txt\`.\n`;
  }
  return `${about}\nIt holds no ONNX Runtime, because its makers build none for this platform at this version: set the environment variable\n\`ORT_DYLIB_PATH\` to the path of one, version 1.24 or later.\n`;
}

/** `object` with the keys of `set` in place of its own; new ones go before `before`. */
function withKeys(object, set, before) {
  const entries = Object.entries({ ...object, ...set });
  const fresh = entries.filter(([key]) => !(key in object));
  const kept = entries.filter(([key]) => key in object);
  const at = kept.findIndex(([key]) => key === before);
  return Object.fromEntries(kept.toSpliced(at < 0 ? kept.length : at, 0, ...fresh));
}

/** `others` without what is ours, and what is ours now, sorted. */
const merged = (others, ours) =>
  Object.fromEntries([...Object.entries(others ?? {}).filter(([name]) => !name.startsWith('embedcore-')), ...ours].sort());

/** Every file that is written from here, or holds something that is, and what it must hold. */
function generated() {
  const manifestOfRoot = readJson('package.json');
  const { version, optionalDependencies: ours } = manifestOfRoot;
  const others = Object.entries(ours ?? {}).filter(([name]) => !name.startsWith(`${manifestOfRoot.name}-`));
  const optionalDependencies = Object.fromEntries([...others, ...platforms.map((platform) => [platform.package, version])].sort());

  const lock = readJson('package-lock.json');
  const isOurs = (path) => path.startsWith('npm/') || path.startsWith(`node_modules/${manifestOfRoot.name}-`);
  const entries = Object.entries(lock.packages).filter(([path]) => !isOurs(path));
  for (const platform of platforms) {
    const { name, license, engines, os, cpu, libc } = manifest(platform);
    entries.push([`npm/${platform.name}`, { name, version, cpu, ...(libc && { libc }), license, optional: true, os, engines }]);
    // Linked, so that `npm ci` in a clone asks no registry for what is built here.
    entries.push([`node_modules/${name}`, { resolved: `npm/${platform.name}`, link: true }]);
  }
  const peers = ({ peerDependencies: dependencies, peerDependenciesMeta: meta }) => ({
    peerDependencies: merged(dependencies, engines.map(({ package: name }) => [name, version])),
    peerDependenciesMeta: merged(meta, engines.map(({ package: name }) => [name, { optional: true }])),
  });
  const sorted = Object.fromEntries(entries.sort(([one], [other]) => one.localeCompare(other, 'en')));
  sorted[''] = withKeys({ ...sorted[''], version }, { optionalDependencies, ...peers(manifestOfRoot) }, 'peerDependencies');

  const json = (value) => `${JSON.stringify(value, null, 2)}\n`;
  const text = (name) => readFileSync(join(root, name), 'utf8');
  return [
    ...[...platforms, ...engines].flatMap((platform) => [
      [`npm/${platform.name}/package.json`, json(manifest(platform))],
      [`npm/${platform.name}/README.md`, readme(platform)],
    ]),
    ['package.json', json(withKeys(manifestOfRoot, { optionalDependencies, ...peers(manifestOfRoot) }, 'peerDependencies'))],
    ['package-lock.json', json({ ...lock, version, packages: sorted })],
    ['Cargo.toml', text('Cargo.toml').replace(/^version = ".*"$/m, `version = "${version}"`)],
    ['Cargo.lock', text('Cargo.lock').replace(/(\nname = "embedcore"\nversion = ").*"/, `$1${version}"`)],
  ];
}

/** Whether two texts of a file say the same; the order of keys in JSON says nothing. */
const same = (name, one, other) => (name.endsWith('.json') ? isDeepStrictEqual(JSON.parse(one), JSON.parse(other)) : one === other);

/** What does not agree with the version of package.json and the platforms above, in words. */
export function disagreements() {
  const wrong = generated()
    .filter(([name, text]) => !existsSync(join(root, name)) || !same(name, readFileSync(join(root, name), 'utf8'), text))
    .map(([name]) => `${name} does not say what package.json and scripts/platforms.mjs do: run \`node scripts/platforms.mjs\``);
  const folders = readdirSync(join(root, 'npm'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
  for (const { name } of folders) if (![...platforms, ...engines].some((platform) => platform.name === name)) wrong.push(`npm/${name} is no platform`);
  const known = /PUBLISHED = \[([^\]]*)\]/.exec(readFileSync(join(root, 'lib', 'native', 'platform.ts'), 'utf8'))?.[1].match(/[\w-]+/g) ?? [];
  if (!isDeepStrictEqual(known, platforms.map(({ name }) => name))) wrong.push('PUBLISHED in lib/native/platform.ts is not the list of platforms');
  return wrong;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (!process.argv.includes('--check')) {
    for (const [name, text] of generated()) {
      mkdirSync(dirname(join(root, name)), { recursive: true });
      writeFileSync(join(root, name), text);
    }
  }
  const wrong = disagreements();
  for (const what of wrong) console.error(what);
  process.exitCode = wrong.length > 0 ? 1 : 0;
}
