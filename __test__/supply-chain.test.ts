import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '..');
const read = (...path: string[]) => readFileSync(join(root, ...path), 'utf8');

/** The strings of a list in a TOML file. */
const list = (toml: string, name: string) => /\[([^\]]*)\]/.exec(toml.slice(toml.indexOf(`\n${name} = [`)))?.[1]?.match(/"[^"]+"/g);

test('the licences and platforms that are checked are those whose notices are written', () => {
  const [deny, about] = [read('deny.toml'), read('npm', 'about.toml')];
  expect(list(deny, 'allow')).toEqual(list(about, 'accepted'));
  expect(list(deny, 'targets')).toEqual(list(about, 'targets'));
  expect(list(deny, 'allow')?.length).toBeGreaterThan(5);
});

test('what is fuzzed is built with what the package is built with', () => {
  const entry = (lock: string) => /\nname = "embedcore"\n.*\ndependencies = \[([^\]]*)\]/.exec(lock)?.[1]?.match(/"[^" ]+/g)?.map((name) => name.slice(1)) ?? [];
  const dependencies = /\n\[dependencies\]\n([\s\S]*?)\n\[/.exec(read('Cargo.toml'))?.[1] ?? '';
  const wanted = dependencies.split('\n').filter((line) => /^[a-z]/.test(line) && !line.includes('optional = true')).map((line) => line.split(' ')[0]);
  expect(wanted.length).toBeGreaterThan(30);
  expect(entry(read('fuzz', 'Cargo.lock'))).toEqual(expect.arrayContaining(wanted));
});

interface Component {
  type: string;
  name: string;
  version: string;
  purl: string;
  licenses: unknown[];
  hashes: { alg: string; content: string }[];
  'bom-ref': string;
}

test('the bill of materials of a package names what is in it, each with its licence and hash, and is the same each time', () => {
  const print = () => execFileSync(process.execPath, [join(root, 'scripts', 'sbom.mjs'), '--target', 'x86_64-unknown-linux-gnu'], { encoding: 'utf8', maxBuffer: 1 << 26 });
  const text = print();
  const { bomFormat, specVersion, components, dependencies } = JSON.parse(text) as { bomFormat: string; specVersion: string; components: Component[]; dependencies: { dependsOn: string[] }[] };
  expect([bomFormat, specVersion]).toEqual(['CycloneDX', '1.5']);
  for (const { name, version, purl, licenses, hashes } of components) {
    expect(purl).toBe(`pkg:${name === 'onnxruntime' ? 'pypi' : 'cargo'}/${name}@${version}`);
    expect(licenses, name).toHaveLength(1);
    expect(hashes[0], name).toEqual({ alg: 'SHA-256', content: expect.stringMatching(/^[0-9a-f]{64}$/) as string });
  }
  const names = components.map(({ name }) => name);
  expect(names).toEqual(expect.arrayContaining(['libsqlite3-sys', 'onnxruntime', 'ort', 'tokenizers', 'tree-sitter-rust']));
  // No tools of the workshop.
  expect(names).not.toEqual(expect.arrayContaining(['proptest']));
  expect(names).not.toContain('shuttle');
  const references = components.map((component) => component['bom-ref']);
  expect(new Set(references).size).toBe(references.length);
  expect(dependencies[0]?.dependsOn).toEqual(references);
  expect(print()).toBe(text);
}, 120_000);
