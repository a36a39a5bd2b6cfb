// A Redis or Valkey server of a benchmark's own.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';

import { PlainError, temporaryDirectory } from '../lib.mjs';

const { Redis } = createRequire(import.meta.url)('ioredis');

/** A port that nobody has. */
export async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

const children = new Set();
process.once('exit', () => children.forEach((child) => child.kill('SIGKILL')));

/** A child process that ends with this one. */
export function untilEnd(child) {
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

/** A server, with a client that asks it for its figures. */
export async function startRedis() {
  const name = ['redis-server', 'valkey-server'].find((each) => spawnSync(each, ['--version']).status === 0);
  if (!name) throw new PlainError('There is no redis-server and no valkey-server on this machine.');
  const port = await freePort();
  const server = untilEnd(spawn(name, ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', temporaryDirectory()], { stdio: 'ignore' }));
  const redis = new Redis(port);
  redis.on('error', () => {});
  await redis.ping();
  const figure = async (section, name) => Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(await redis.info(section))[1]);
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    redis,
    usedBytes: () => figure('memory', 'used_memory'),
    /** Of a processor, so far. */
    cpuMs: async () => ((await figure('cpu', 'used_cpu_sys')) + (await figure('cpu', 'used_cpu_user'))) * 1000,
    /** The time of commands that match, so far. */
    async commandMs(pattern) {
      const lines = (await redis.info('commandstats')).matchAll(/^cmdstat_(\S+?):calls=\d+,usec=(\d+)/gm);
      return [...lines].filter(([, command]) => pattern.test(command)).reduce((sum, [, , us]) => sum + Number(us) / 1000, 0);
    },
    stop() {
      redis.disconnect();
      server.kill();
    },
  };
}
