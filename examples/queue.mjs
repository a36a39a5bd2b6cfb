// Functions embedded by two workers in processes of their own, through a queue. Needs `npm install bullmq ioredis@5`, and a
// redis-server or valkey-server on this machine, which it starts for itself, or REDIS=redis://host:6379.
//
//   node examples/queue.mjs

import { fork, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';

import { OptimizedEmbeddingGenerator } from 'embedcore';
import { EmbeddingQueue, EmbeddingWorker } from 'embedcore/queue';

if (process.argv[2] === 'worker') {
  const generator = new OptimizedEmbeddingGenerator({ cache: { shared: { url: process.argv[3] } } });
  const worker = new EmbeddingWorker({ connection: process.argv[3], generator });
  await worker.ready();
  process.send('ready');
  process.once('message', async () => {
    process.send(worker.getStats().texts);
    await worker.close();
    await generator.cleanup();
    process.disconnect();
  });
} else {
  const command = ['redis-server', 'valkey-server'].find((name) => spawnSync(name, ['--version']).status === 0);
  if (!process.env.REDIS && !command) console.log('There is no redis-server on this machine: install one, or set REDIS=redis://host:6379');
  else await produce(command);
}

async function produce(command) {
  const [url, server] = process.env.REDIS ? [process.env.REDIS] : await started(command);
  const begin = async () => {
    const worker = fork(fileURLToPath(import.meta.url), ['worker', url]);
    await once(worker, 'message');
    return worker;
  };
  const workers = await Promise.all([begin(), begin()]);
  const queue = new EmbeddingQueue({ connection: url });
  const functions = Array.from({ length: 400 }, (_, i) => ({ nodeId: `f${i}`, signature: `function handle${i}(request)`, summary: `Answers request ${i}.` }));
  const run = queue.addAnnotations(functions, { chunkSize: 20 });
  let count = 0;
  for await (const { embedding } of run) if (embedding.length > 0) count++;
  const { fromCache } = await run.finished();
  const shares = await Promise.all(workers.map(async (worker) => {
    worker.send('end');
    const [texts] = await once(worker, 'message');
    await once(worker, 'exit');
    return texts;
  }));
  console.log(`${count} vectors, ${fromCache} of them known; every worker did some: ${shares.every((texts) => texts > 0)}`);
  await queue.close();
  server?.kill();
}

async function started(command) {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  const server = spawn(command, ['--port', String(port), '--bind', '127.0.0.1', '--save', ''], { stdio: 'ignore' });
  return [`redis://127.0.0.1:${port}`, server];
}
