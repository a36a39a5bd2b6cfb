// A process with servers that benchmark/llm.mjs asks: forked by it, and told what to do by messages.
//
// Answers `{ path }`, and Ollama's /api/generate. With `faults`, every tenth request has one, in turns. Counts what arrives.

import { createServer } from 'node:http';

const servers = [];

/** What goes wrong with a request. `true`: it is not answered any more. */
const FAULTS = [
  (response) => response.socket.resetAndDestroy(),
  (response, body) => {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).write(body.subarray(0, 5));
    response.socket.resetAndDestroy();
  },
  (response) => response.writeHead(503, { 'content-type': 'application/json' }).end('{"error":"busy"}'),
  (response) => response.writeHead(429, { 'retry-after': '0' }).end(),
  (response, body) => {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).write(body.subarray(0, 5));
    response.socket.end();
  },
];

function start({ delayMs, faults }) {
  const state = { requests: 0, inFlight: 0, most: 0, open: 0, faults: 0 };
  const server = createServer((request, response) => {
    request.resume();
    request.once('end', () => {
      state.most = Math.max(state.most, ++state.inFlight);
      const nth = ++state.requests;
      response.once('close', () => state.inFlight--);
      const answer = request.url === '/api/generate' ? { model: 'a', response: 'an answer', done: true, eval_count: 2, eval_duration: 1e6 } : { path: request.url };
      const body = Buffer.from(JSON.stringify(answer));
      const send = () => {
        if (faults && nth % 10 === 0) return FAULTS[state.faults++ % FAULTS.length](response, body);
        response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).end(body);
      };
      if (delayMs > 0) setTimeout(send, delayMs);
      else send();
    });
  });
  server.keepAliveTimeout = 60_000;
  server.on('connection', (socket) => {
    state.open++;
    socket.on('error', () => {}).once('close', () => state.open--);
  });
  servers.push({ server, state });
  server.listen(0, '127.0.0.1', () => process.send({ url: `http://127.0.0.1:${server.address().port}` }));
}

process.on('message', (message) => {
  if (message.start) start(message.start);
  else process.send({ states: servers.map(({ state }) => state) });
});
