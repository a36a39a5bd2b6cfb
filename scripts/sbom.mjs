// What is in a platform package, for those who have to know: a bill of materials in CycloneDX's form, which travels in it. The same
// sources give the same bytes.
//
//   node scripts/sbom.mjs [--target aarch64-unknown-linux-gnu]    prints it; `scripts/build.mjs` writes it into the package

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { linked } from './notices.mjs';
import { platformOf, readJson, root } from './platforms.mjs';

const cargo = (...args) => execFileSync('cargo', args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'inherit'] });

/** SHA-256 of each crate's package, as `Cargo.lock` has it, by `name version`. */
function checksums() {
  const lock = readFileSync(join(root, 'Cargo.lock'), 'utf8');
  const packages = lock.split('[[package]]').slice(1);
  const field = (text, name) => new RegExp(`^${name} = "(.*)"$`, 'm').exec(text)?.[1];
  return new Map(packages.map((text) => [`${field(text, 'name')} ${field(text, 'version')}`, field(text, 'checksum')]));
}

/** The bill of materials of a platform's package. */
export function sbom(platform) {
  const { name, version, license } = readJson('package.json');
  const { packages } = JSON.parse(cargo('metadata', '--locked', '--format-version', '1', '--features', 'napi', '--filter-platform', platform.target));
  const known = new Map(packages.map((crate) => [`${crate.name} ${crate.version}`, crate]));
  const sums = checksums();
  const crates = linked([platform.target]).map((named) => {
    const [crate, release] = named.split(' ');
    const { license: expression, repository } = known.get(named) ?? {};
    const sum = sums.get(named);
    return {
      type: 'library',
      'bom-ref': `pkg:cargo/${crate}@${release}`,
      name: crate,
      version: release,
      // Cargo takes a slash for an OR, which is no expression of SPDX.
      ...(expression && { licenses: [{ expression: expression.replaceAll(/\s*\/\s*/g, ' OR ') }] }),
      ...(sum && { hashes: [{ alg: 'SHA-256', content: sum }] }),
      purl: `pkg:cargo/${crate}@${release}`,
      ...(repository && { externalReferences: [{ type: 'vcs', url: repository }] }),
    };
  });
  const runtime = readJson('onnxruntime.json');
  const pinned = runtime.platforms[platform.target];
  const library = pinned && {
    type: 'library',
    'bom-ref': `pkg:pypi/onnxruntime@${runtime.version}`,
    name: 'onnxruntime',
    version: runtime.version,
    licenses: [{ license: { id: 'MIT' } }],
    hashes: [{ alg: 'SHA-256', content: pinned.sha256 }],
    purl: `pkg:pypi/onnxruntime@${runtime.version}`,
  };
  const self = `pkg:npm/${platform.package}@${version}`;
  const components = [...crates, ...(library ? [library] : [])];
  return {
    $schema: 'http://cyclonedx.org/schema/bom-1.5.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: { component: { type: 'library', 'bom-ref': self, name: platform.package, version, description: `The native part of ${name}`, licenses: [{ license: { id: license } }], purl: self } },
    components,
    dependencies: [{ ref: self, dependsOn: components.map((component) => component['bom-ref']) }],
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { target } = parseArgs({ options: { target: { type: 'string' } } }).values;
  console.log(JSON.stringify(sbom(platformOf(target)), null, 2));
}
