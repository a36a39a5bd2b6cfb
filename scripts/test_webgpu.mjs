// Runs the tests of vectors with WebGPU in the place of the CPU: with an ONNX Runtime that has it, from npm's package of
// onnxruntime-node, on a Vulkan that computes on the processor, which Chromium brings. For machines without a card.

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { root } from './platforms.mjs';

const VERSION = '1.30.0';
const VULKAN = ['/usr/lib/chromium/vk_swiftshader_icd.json', '/usr/lib64/chromium-browser/vk_swiftshader_icd.json'];

const vulkan = process.env.VK_DRIVER_FILES ?? VULKAN.find((file) => existsSync(file));
const loader = process.platform === 'linux' && spawnSync('ldconfig', ['-p'], { encoding: 'utf8' }).stdout?.includes('libvulkan.so.1');
if (!loader || process.arch !== 'x64' || vulkan === undefined) {
  console.log('Skipped: WebGPU on software takes Linux on x64 with libvulkan.so.1, and Chromium for its Vulkan (vk_swiftshader_icd.json).');
  process.exit(0);
}
const directory = join(root, 'target', 'webgpu');
const library = join(directory, 'package', 'bin', 'napi-v6', 'linux', 'x64', 'libonnxruntime.so.1');
if (!existsSync(library)) {
  mkdirSync(directory, { recursive: true });
  const [{ filename }] = JSON.parse(execFileSync('npm', ['pack', `onnxruntime-node@${VERSION}`, '--json', '--pack-destination', directory], { encoding: 'utf8' }));
  execFileSync('tar', ['-xzf', join(directory, filename), '-C', directory, 'package/bin/napi-v6/linux/x64']);
}
const env = { ...process.env, ORT_DYLIB_PATH: library, VK_DRIVER_FILES: vulkan };
const run = (test, more, ...args) => spawnSync('npx', ['vitest', 'run', '--project', 'forks', `__test__/${test}.test.ts`, ...args], { cwd: root, stdio: 'inherit', env: { ...env, ...more } }).status ?? 1;
// This Vulkan has no numbers of 16 bits; and of models with rotary positions, this WebGPU makes other vectors than the CPU: see docs/gpu.md.
const models = "^(?!'(bert-fp16|modernbert|decoder)).*(one text alone|the same in a batch)";
process.exitCode = run('provider', {}) || run('device', {}) || run('golden', { EMBEDCORE_PROVIDERS: 'webgpu,cpu' }, '-t', models);
