// Five hosts at once: so many requests at a time to each of them and in all, whatever is slow or fails for a while.
//
//   node examples/five-hosts.mjs

import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

import { HttpClient } from 'embedcore/llm';

/** A host that takes its time, and is busy now and then. */
async function start(delayMs) {
  let inFlight = 0;
  const host = { url: '', most: 0, close() { server.close(); server.closeAllConnections(); } };
  let requests = 0;
  const server = createServer(async (request, response) => {
    host.most = Math.max(host.most, ++inFlight);
    await sleep(delayMs);
    inFlight--;
    if (++requests % 7 === 0) return void response.writeHead(503, { 'retry-after': '0' }).end();
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ page: request.url }));
  });
  server.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  host.url = `http://127.0.0.1:${server.address().port}`;
  return host;
}

const hosts = await Promise.all([1, 2, 3, 5, 20].map(start));
const http = new HttpClient({ maxConcurrentRequests: 10, perHostLimit: 3, retryBackoffMs: [10, 30, 90] });

const pages = await Promise.all(hosts.flatMap(({ url }) => Array.from({ length: 30 }, (_, i) => http.get(`${url}/page/${i}`))));
const stats = http.getStats();
for (const [i, { url, most }] of hosts.entries()) {
  const { requests, retries, p50, p95 } = stats[url];
  console.log(`host ${i + 1}: ${requests - retries} pages in ${requests} tries, at most ${most} at a time; p50 ${p50.toFixed(0)} ms, p95 ${p95.toFixed(0)} ms`);
}
console.log(`${pages.length} pages`);

await http.close();
for (const host of hosts) host.close();
