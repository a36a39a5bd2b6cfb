// Next.js: a route that embeds, built to stand alone and served from there.
import { spawn } from 'node:child_process';
import { cpSync, existsSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

/** Next.js and what it needs. */
const PACKAGES = [
  'next', '@next', 'react', 'react-dom', 'scheduler', 'styled-jsx', 'client-only', '@swc/helpers', 'postcss', 'nanoid', 'picocolors',
  'source-map-js', 'caniuse-lite', 'baseline-browser-mapping', 'tslib',
];

const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

export default ({ ends, made, node, project, tool, tools }) => [
  [
    'Next.js, serverExternalPackages, standalone',
    async () => {
      tool('next', 'dist', 'bin', 'next');
      const cwd = made('next', { 'package.json': { name: 'with-next', private: true } });
      // Next.js follows no links out of its project: its packages are copied, as an installation would lay them.
      const modules = join(cwd, 'node_modules');
      for (const name of PACKAGES) if (existsSync(join(tools, name))) cpSync(join(tools, name), join(modules, name), { recursive: true });
      cpSync(join(project, 'node_modules'), modules, { recursive: true });
      const env = { NEXT_TELEMETRY_DISABLED: '1', NODE_ENV: 'production' };
      await ends(0, node, [join(modules, 'next', 'dist', 'bin', 'next'), 'build'], { cwd, env });
      // What was built stands alone.
      rmSync(modules, { recursive: true });
      const port = await freePort();
      const server = spawn(node, [join(cwd, '.next', 'standalone', 'server.js')], {
        env: { ...process.env, ...env, PORT: String(port), HOSTNAME: '127.0.0.1' },
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let said = '';
      server.stderr.on('data', (data) => (said += data));
      const exit = new Promise((resolve) => server.on('exit', (code, signal) => resolve(signal ?? code)));
      try {
        let answer;
        for (let i = 0; i < 100 && !answer && server.exitCode === null; i++) {
          answer = await fetch(`http://127.0.0.1:${port}/api/embed?text=read+a+file`).catch(() => new Promise((resolve) => setTimeout(resolve, 200)));
        }
        const body = await answer?.text();
        const { dimensions, length } = answer?.ok ? JSON.parse(body) : {};
        if (dimensions !== 256 || Math.abs(length - 1) > 1e-5) throw new Error(`The route answered ${answer?.status} ${body}\n${said}`);
      } finally {
        server.kill('SIGTERM');
      }
      const code = await exit;
      if (![0, 143, 'SIGTERM'].includes(code) || said !== '') throw new Error(`The server ended with ${code} and said ${said}`);
    },
  ],
];
