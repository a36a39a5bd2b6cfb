// What this machine has for embedding, what is used and why, and what to install where something is missing.
import { accessSync, constants, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, totalmem, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { IntelligentEmbeddingCache } from '../cache/embedding-cache';
import { toEmbeddingError } from '../call/errors';
import { show } from '../call/input';
import { crossing, optionReader, refused } from '../call/options';
import { pathNow } from '../call/paths';
import { OptimizedEmbeddingGenerator } from '../generator/generator';
import { ModelStore } from '../models/store';
import { native, settle } from '../native/addon';

/** Options of {@link doctor}. */
export interface DoctorOptions {
  /** The model to try, as for a generator; it is not fetched where it is not here. Default: the built-in one. */
  modelPath?: string | undefined;
  /** Where models from the hub are kept. Default: as for {@link GeneratorOptions.cacheDir}. */
  cacheDir?: string | undefined;
  /** A cache's file to look into, as a cache does; it is not made. Default: a new one is tried in the system's folder for temporary files. */
  persistPath?: string | undefined;
}

/** Something that is missing, or that could be faster. */
export interface DoctorAdvice {
  /** What it is about. */
  what: string;
  /** What it costs that it is so. */
  why: string;
  /** What to do. */
  advice: string;
}

/** What {@link doctor} has found. Unknown is `null`. */
export interface DoctorReport {
  /** Whether embedding works here. */
  ok: boolean;
  /** Of this package. */
  version: string;
  /** Of Node.js. */
  node: string;
  /** As Node.js names it: `linux-x64`. */
  platform: string;
  /** The native addon: why it cannot be loaded, if so. */
  addon: { error: string | null };
  processor: {
    /** As its maker calls it. */
    name: string | null;
    /** Instructions that engines look for, as Linux spells them: `avx2`, `avx512_bf16`, `amx_bf16`, `asimd`, … */
    instructionSets: string[];
    /** Cores that this process may use: affinity and the container's quota counted in. */
    cores: number;
    /** Cores of the machine. */
    machineCores: number;
  };
  memory: {
    /** Megabytes (of 1,048,576 bytes) that this process may use: of the container where it has a limit, else of the machine. */
    totalMB: number;
    availableMB: number | null;
    machineMB: number;
    /** Whether a container's limit counts. */
    limited: boolean;
  };
  /** What computes models. */
  engines: { name: 'onnxruntime' | 'openvino'; version: string | null; library: string | null; error: string | null }[];
  /** What ONNX Runtime computes on: the execution providers that the library has. */
  providers: { name: string; version: string | null; library: string | null }[];
  /** Graphics processors, as far as the system names them. */
  devices: { name: string; driver: string | null }[];
  /** The model that was tried. */
  model: {
    modelPath: string;
    dimensions: number | null;
    /** Of the first load here, in milliseconds. */
    loadMs: number | null;
    /** Of one short text, in milliseconds. */
    embedMs: number | null;
    error: string | null;
  };
  /** The models that are kept on this machine. */
  modelCache: { directory: string | null; writable: boolean; models: number; bytes: number; error: string | null };
  hub: {
    endpoint: string | null;
    /** `null`: it was not asked, because of `offline`. */
    reachable: boolean | null;
    /** The setting that forbids the network. */
    offline: string | null;
    /** Host and port of the proxy on the way there. */
    proxy: string | null;
    error: string | null;
  };
  /** The disk tier of caches. */
  cache: { path: string; ok: boolean; entries: number | null; error: string | null };
  /** What is missing, the most important first. */
  missing: DoctorAdvice[];
}

interface Facts {
  processor: { name: string; instructionSets: string[]; cores: number };
  memory: { totalBytes: number; availableBytes: number };
  runtime: { library: string; version: string | null; providers: string[]; error?: undefined } | { error: string };
  hub: { endpoint?: string; directory?: string; offline?: string | null; proxy?: string | null; reachable?: boolean | null; error: string | null };
}

const MB = 1024 * 1024;

const readOptions = optionReader<DoctorOptions>({ modelPath: true, cacheDir: pathNow, persistPath: pathNow });

/**
 * Looks at this machine: processor and memory as a container allows them, engines, providers and devices, the models that are
 * kept, the hub, the disk tier, and whether a text can be embedded. Fetches nothing; the one file that it makes, in the system's
 * folder for temporary files, it removes again. The hub is asked for an answer, for five seconds at most.
 * @throws {@link EmbeddingError} `INVALID_CONFIG` for an option. Whatever is wrong with the machine stands in the report.
 */
export async function doctor(options: DoctorOptions = {}): Promise<DoctorReport> {
  const given = readOptions(options);
  for (const [name, value] of Object.entries(given)) {
    if (typeof value !== 'string' || value === '') throw refused(name, `${show(value)} is not a non-empty string`);
  }
  const { version } = require('../../package.json') as { version: string };
  const here = { version, node: process.version, platform: `${process.platform}-${process.arch}` };
  let facts: Facts | undefined;
  let error: string | null = null;
  try {
    const { modelPath: _, persistPath: __, ...rest } = given;
    facts = JSON.parse(await settle(async () => native().facts(crossing(rest)))) as Facts;
  } catch (thrown) {
    error = toEmbeddingError(thrown).message;
  }
  const [model, cache, modelCache] =
    facts === undefined
      ? [untried(given.modelPath), { path: given.persistPath ?? tmpdir(), ok: false, entries: null, error }, unread(error)]
      : await Promise.all([tried(given.modelPath, given.cacheDir), diskTier(given.persistPath), kept(facts.hub.directory, given.cacheDir)]);
  const totalMB = Math.floor((facts?.memory.totalBytes ?? totalmem()) / MB);
  const machineMB = Math.floor(totalmem() / MB);
  const report: Omit<DoctorReport, 'missing'> = {
    ok: facts !== undefined && model.error === null,
    ...here,
    addon: { error },
    processor: {
      name: facts?.processor.name || cpus()[0]?.model || null,
      instructionSets: facts?.processor.instructionSets ?? [],
      cores: facts?.processor.cores ?? Math.max(1, cpus().length),
      machineCores: Math.max(1, cpus().length),
    },
    memory: {
      totalMB,
      availableMB: facts ? Math.floor(facts.memory.availableBytes / MB) : null,
      machineMB,
      limited: totalMB < machineMB,
    },
    engines: [onnxRuntime(facts), openVino(here.platform)],
    providers: facts && facts.runtime.error === undefined ? [...providersOf(facts.runtime), ...webGpu(here.platform)] : [],
    devices: devices(),
    model,
    modelCache,
    hub: {
      endpoint: facts?.hub.endpoint ?? null,
      reachable: facts?.hub.reachable ?? null,
      offline: facts?.hub.offline ?? null,
      proxy: facts?.hub.proxy ?? null,
      error: facts?.hub.error ?? error,
    },
    cache,
  };
  return { ...report, missing: missing(report) };
}

function onnxRuntime(facts: Facts | undefined): DoctorReport['engines'][number] {
  const runtime = facts?.runtime;
  if (runtime === undefined || runtime.error !== undefined) return { name: 'onnxruntime', version: null, library: null, error: runtime?.error ?? 'the addon is not loaded' };
  return { name: 'onnxruntime', version: runtime.version, library: runtime.library, error: null };
}

/** OpenVINO's package, whatever its libraries are worth: they are checked when they are loaded. */
function openVino(platform: string): DoctorReport['engines'][number] {
  const found = packageOf('openvino', platform);
  return { name: 'openvino', version: found?.version ?? null, library: found?.library ?? null, error: found ? null : `the package embedcore-openvino-${platform} is not installed` };
}

/** The plugin's package, which brings a provider to a runtime that has none. */
function webGpu(platform: string): DoctorReport['providers'] {
  const found = packageOf('webgpu', platform);
  return found ? [{ name: 'webgpu', ...found }] : [];
}

function packageOf(product: string, platform: string): { version: string; library: string } | undefined {
  try {
    const path = createRequire(__filename).resolve(`embedcore-${product}-${platform}/package.json`);
    const { version } = JSON.parse(readFileSync(path, 'utf8')) as { version: string };
    return { version, library: dirname(path) };
  } catch {
    return undefined;
  }
}

/** For which there is a package with it. */
const WEBGPU_PLATFORMS = ['darwin-arm64', 'linux-arm64', 'linux-x64', 'win32-arm64', 'win32-x64'];

function providersOf({ library, version, providers }: { library: string; version: string | null; providers: string[] }): DoctorReport['providers'] {
  return providers.map((name) => ({ name, version, library }));
}

/** Makers of graphics processors by the numbers of their PCI devices. */
const MAKERS: Record<string, string> = { '0x10de': 'NVIDIA', '0x1002': 'AMD', '0x8086': 'Intel' };

/** What Linux says there is; elsewhere nobody is asked. */
function devices(): DoctorReport['devices'] {
  if (process.platform !== 'linux') return [];
  const found: DoctorReport['devices'] = [];
  const driver = textOf('/proc/driver/nvidia/version')?.match(/Module\s+(?:for \S+\s+)?(\d[\d.]*)/)?.[1] ?? null;
  for (const gpu of listOf('/proc/driver/nvidia/gpus')) {
    const name = textOf(`/proc/driver/nvidia/gpus/${gpu}/information`)?.match(/^Model:\s*(.+)$/m)?.[1];
    found.push({ name: name ?? 'NVIDIA', driver });
  }
  for (const card of listOf('/sys/class/drm').filter((name) => /^card\d+$/.test(name))) {
    const maker = MAKERS[textOf(`/sys/class/drm/${card}/device/vendor`)?.trim() ?? ''];
    if (maker !== undefined && !(maker === 'NVIDIA' && found.length > 0)) found.push({ name: maker, driver: null });
  }
  return found;
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function listOf(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch {
    return [];
  }
}

const nameOf = (modelPath: string | undefined) => modelPath ?? 'the built-in model';

const untried = (modelPath: string | undefined): DoctorReport['model'] => ({
  modelPath: nameOf(modelPath),
  dimensions: null,
  loadMs: null,
  embedMs: null,
  error: 'it was not tried: the addon is not loaded',
});

async function tried(modelPath: string | undefined, cacheDir: string | undefined): Promise<DoctorReport['model']> {
  const about = untried(modelPath);
  let generator: OptimizedEmbeddingGenerator | undefined;
  try {
    const began = performance.now();
    generator = new OptimizedEmbeddingGenerator({ modelPath, cacheDir, cache: false, localFilesOnly: true });
    await generator.initialize();
    const loaded = performance.now();
    const { data, dimensions } = await generator.embed(['opens a file for reading']);
    const right = data.length === dimensions && data.every(Number.isFinite) && data.some((value) => value !== 0);
    const error = right ? null : 'its vector is not finite, or zero';
    return { ...about, dimensions, loadMs: Math.round(loaded - began), embedMs: Math.round(performance.now() - loaded), error };
  } catch (thrown) {
    return { ...about, error: toEmbeddingError(thrown).message };
  } finally {
    await generator?.shutdown().catch(() => {});
  }
}

/** Whether a file can be written and read again; of one that is named, whether it can be read. */
async function diskTier(named: string | undefined): Promise<DoctorReport['cache']> {
  if (named !== undefined && !existsSync(named)) return { path: named, ok: false, entries: null, error: 'there is no such file yet: it is made when a cache needs it' };
  let folder: string | undefined;
  let path = named ?? tmpdir();
  try {
    if (named === undefined) {
      folder = mkdtempSync(join(tmpdir(), 'embedcore-doctor-'));
      path = join(folder, 'cache.sqlite');
      const writing = new IntelligentEmbeddingCache({ persistPath: path });
      await writing.set('doctor', 'doctor', [1, 2]);
      await writing.flush();
      await writing.close();
    }
    const cache = new IntelligentEmbeddingCache({ persistPath: path });
    const found = await cache.get('doctor', 'doctor');
    const disk = cache.getStats().disk;
    await cache.close();
    const lost = named === undefined && found === null;
    const error = lost ? 'what was written is not there when it is read' : disk?.available === false ? 'it cannot be used now: another program holds it, or it is none of a cache' : null;
    return { path, ok: error === null, entries: disk?.entries ?? null, error };
  } catch (thrown) {
    return { path, ok: false, entries: null, error: toEmbeddingError(thrown).message };
  } finally {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
}

const unread = (error: string | null): DoctorReport['modelCache'] => ({ directory: null, writable: false, models: 0, bytes: 0, error });

async function kept(directory: string | undefined, cacheDir: string | undefined): Promise<DoctorReport['modelCache']> {
  if (directory === undefined) return unread('nobody knows where it is');
  const about = { directory, writable: writable(directory), models: 0, bytes: 0 };
  if (!existsSync(directory)) return { ...about, error: null };
  try {
    const models = await new ModelStore({ cacheDir }).list();
    return { ...about, models: models.length, bytes: models.reduce((sum, { bytes }) => sum + bytes, 0), error: null };
  } catch (thrown) {
    return { ...about, error: toEmbeddingError(thrown).message };
  }
}

/** Whether files can be made in a directory, or it can be made itself. */
function writable(directory: string): boolean {
  let nearest = directory;
  while (!existsSync(nearest) && dirname(nearest) !== nearest) nearest = dirname(nearest);
  try {
    accessSync(nearest, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function missing(report: Omit<DoctorReport, 'missing'>): DoctorAdvice[] {
  const { addon, model, engines, providers, devices, processor, platform, modelCache, hub, cache } = report;
  const all: (DoctorAdvice | false)[] = [
    addon.error !== null && { what: 'the native addon', why: 'nothing works without it', advice: addon.error },
    addon.error === null && model.error !== null && { what: model.modelPath, why: 'it cannot be used', advice: model.error },
    engines[0]!.error !== null && { what: 'ONNX Runtime', why: 'only models on servers and static tables can be used', advice: engines[0]!.error },
    !cache.ok && { what: 'the disk tier of caches', why: 'what is computed is forgotten when the process ends', advice: cache.error ?? 'pass another persistPath' },
    modelCache.directory !== null &&
      !modelCache.writable && { what: `the models in ${modelCache.directory}`, why: 'no model can be added there', advice: 'make it writable for this user, or pass cacheDir (HF_HUB_CACHE)' },
    hub.reachable === false && {
      what: `the hub at ${hub.endpoint ?? '?'}`,
      why: 'models that are not here cannot be fetched; all else works',
      advice: `${hub.error ?? 'it does not answer'}: check HTTPS_PROXY, NODE_EXTRA_CA_CERTS and HF_ENDPOINT, or pass the path of a model directory`,
    },
    processor.instructionSets.includes('avx512_bf16') &&
      platform === 'linux-x64' &&
      engines[1]!.error !== null && {
        what: 'OpenVINO',
        why: 'this processor computes in bf16, with it about twice as fast',
        advice: `npm install embedcore-openvino-${platform}`,
      },
    devices.some(({ name }) => name.includes('NVIDIA')) &&
      !providers.some(({ name }) => name === 'cuda') && {
        what: 'CUDA',
        why: 'there is an NVIDIA card, and this ONNX Runtime cannot use it',
        advice: 'set ORT_DYLIB_PATH to the library of an ONNX Runtime with CUDA: see docs/gpu.md',
      },
    devices.length > 0 &&
      WEBGPU_PLATFORMS.includes(platform) &&
      !providers.some(({ name }) => name === 'cuda' || name === 'webgpu') && {
        what: 'WebGPU',
        why: "there is a graphics processor, and this ONNX Runtime cannot use it; with WebGPU, executionProviders: 'auto' tries it",
        advice: `npm install embedcore-webgpu-${platform}`,
      },
  ];
  return all.filter((one) => one !== false);
}
