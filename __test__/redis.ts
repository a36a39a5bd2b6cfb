// Servers of the shared tier: each test starts its own on a free port of this machine, and stops it.
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { InferenceCache, IntelligentEmbeddingCache, type CacheOptions, type InferenceCacheOptions, type SharedOptions } from 'embedcore';
import { onTestFinished, type TestContext } from 'vitest';

import { until } from './files';

/** What there is: Redis, or Valkey. */
const installed = ['redis', 'valkey'].find((name) => {
  try {
    execFileSync(`${name}-server`, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
});

/** Whether there is one. */
export const hasRedis = installed !== undefined;

/** A port that nobody has. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export class RedisServer {
  readonly port: number;
  readonly directory: string;
  readonly #options: string[];
  #process: ChildProcess | undefined;

  constructor(port: number, options: string[]) {
    this.port = port;
    this.#options = options;
    this.directory = mkdtempSync(join(tmpdir(), 'embedcore-redis-'));
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  async start(): Promise<void> {
    const options = ['--port', `${this.port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', this.directory];
    this.#process = spawn(`${installed}-server`, [...options, ...this.#options], { stdio: 'ignore' });
    await until(async () => (await this.ask('PING').catch(() => '')).match(/PONG|NOAUTH/) !== null);
  }

  /** The answer to a command, as text. */
  async ask(...command: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)(`${installed}-cli`, ['-p', `${this.port}`, ...command], { encoding: 'utf8' });
    return stdout.trim();
  }

  async keys(pattern = '*'): Promise<string[]> {
    return (await this.ask('KEYS', pattern)).split('\n').filter((name) => name !== '').sort();
  }

  signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    this.#process!.kill(name);
  }

  /** Ends it without a warning to anybody. */
  async kill(): Promise<void> {
    const process = this.#process;
    if (!process || process.exitCode !== null || process.signalCode !== null) return;
    const gone = new Promise((resolve) => process.once('exit', resolve));
    process.kill('SIGKILL');
    await gone;
  }
}

/** A server for one test, which is skipped where there is none. */
export async function redis(context: TestContext, ...options: string[]): Promise<RedisServer> {
  if (!hasRedis) context.skip('there is no redis-server and no valkey-server on this machine');
  return started(...options);
}

/** A server for one test, where there is one. */
export async function started(...options: string[]): Promise<RedisServer> {
  const server = new RedisServer(await freePort(), options);
  onTestFinished(async () => {
    await server.kill();
    rmSync(server.directory, { recursive: true, force: true });
  });
  await server.start();
  return server;
}

/** What is between one machine and a server, and can be cut, or led to another one. */
export async function cable(to: number): Promise<{ url: string; cut(): void; mend(): void; lead(to: number): void }> {
  const ends = new Set<Socket>();
  let whole = true;
  const server = createServer((near) => {
    if (!whole) return void near.destroy();
    const far = connect(to, '127.0.0.1');
    for (const [one, other] of [[near, far], [far, near]] as const) {
      ends.add(one);
      one.on('error', () => {});
      one.on('close', () => {
        ends.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  const cut = () => {
    whole = false;
    for (const end of ends) end.destroy();
  };
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    cut();
    server.close();
  });
  const mend = () => void (whole = true);
  const lead = (there: number) => {
    cut();
    to = there;
    mend();
  };
  return { url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`, cut, mend, lead };
}

/** A cache on a machine of its own, as far as others can tell. */
export function machine(server: { url: string }, shared: Partial<SharedOptions> = {}, options: CacheOptions = {}): IntelligentEmbeddingCache {
  const cache = new IntelligentEmbeddingCache({ ttlSeconds: 0, ...options, shared: { url: server.url, ...shared } });
  onTestFinished(() => cache.close());
  return cache;
}

export function results(server: { url: string }, shared: Partial<SharedOptions> = {}, options: InferenceCacheOptions = {}): InferenceCache {
  const cache = new InferenceCache({ ...options, shared: { url: server.url, ...shared } });
  onTestFinished(() => cache.close());
  return cache;
}
