// A server that takes a fixed time for each request of at most so many texts, and a multiple of it for one with more:
// node remote-server.mjs DIMENSIONS MS BATCH. Prints its address.

import { createServer } from 'node:http';

const [dimensions, ms, batch] = process.argv.slice(2).map(Number);
const vector = JSON.stringify(Array.from({ length: dimensions }, (_, i) => Math.fround(Math.sin(i + 1) / Math.sqrt(dimensions / 2))));
// Ready beforehand, so that the server takes what it says and no more.
const bodies = new Map();
const bodyOf = (path, texts) => {
  const key = `${path} ${texts}`;
  if (!bodies.has(key)) {
    const list = path === '/api/embed' ? `{"model":"m","embeddings":[${Array(texts).fill(vector).join(',')}]}` : `{"object":"list","data":[${Array.from({ length: texts }, (_, index) => `{"object":"embedding","index":${index},"embedding":${vector}}`).join(',')}],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}`;
    bodies.set(key, Buffer.from(list));
  }
  return bodies.get(key);
};

const server = createServer((request, response) => {
  const begun = performance.now();
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk)).on('end', () => {
    const path = request.url;
    if (request.method !== 'POST' || (path !== '/api/embed' && path !== '/v1/embeddings')) return response.writeHead(404).end();
    const { input } = JSON.parse(Buffer.concat(chunks));
    const texts = Array.isArray(input) ? input.length : 1;
    const body = bodyOf(path, texts);
    const due = begun + ms * Math.ceil(texts / batch);
    // Timers are late by up to a millisecond, which is no part of what a request takes.
    const answer = () => {
      if (performance.now() < due) return setImmediate(answer);
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).end(body);
    };
    setTimeout(answer, Math.max(0, due - performance.now() - 1));
  });
});
server.keepAliveTimeout = 60_000;
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
