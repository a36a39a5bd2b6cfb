// A server that takes a fixed time for each request of at most so many texts, and a multiple of it for one with more:
// node remote-server.mjs DIMENSIONS MS BATCH. Prints its address. It speaks as much HTTP as the clients here do, and no more, so
// that it takes little of the machine that it shares with them; `GET /cost` tells how much.

import { createServer } from 'node:net';
import { isMainThread, MessageChannel, receiveMessageOnPort, Worker, workerData } from 'node:worker_threads';

if (isMainThread) serve(...process.argv.slice(2).map(Number));
else clock(workerData);

/** A clock that is exact to some hundredths of a millisecond and sleeps in between: timers are late by up to a whole one. */
function clock({ port, wake }) {
  const due = [];
  for (;;) {
    Atomics.store(wake, 0, 0);
    for (let message; (message = receiveMessageOnPort(port)); ) due.push(message.message);
    const now = performance.timeOrigin + performance.now();
    for (let i = 0; i < due.length; ) {
      if (due[i].at > now) i++;
      else port.postMessage(due.splice(i, 1)[0].id);
    }
    Atomics.wait(wake, 0, 0, due.length === 0 ? Infinity : Math.min(...due.map(({ at }) => at)) - now);
  }
}

function serve(dimensions, ms, batch) {
  const now = () => performance.timeOrigin + performance.now();
  const wake = new Int32Array(new SharedArrayBuffer(4));
  const { port1, port2 } = new MessageChannel();
  new Worker(new URL(import.meta.url), { workerData: { port: port2, wake }, transferList: [port2] }).unref();
  const waiting = new Map();
  let [requests, asked, late, idsGiven] = [0, 0, 0, 0];
  port1.on('message', (id) => {
    const { socket, answer, at } = waiting.get(id);
    waiting.delete(id);
    requests++;
    late += now() - at;
    socket.write(answer);
  });

  // Numbers as servers write them: as short as tells one f32 from the next.
  const values = Float32Array.from({ length: dimensions }, (_, i) => Math.sin(i + 1) / Math.sqrt(dimensions / 2));
  const shortest = (value) => {
    for (let digits = 6; ; digits++) if (Math.fround(Number(value.toPrecision(digits))) === value) return Number(value.toPrecision(digits));
  };
  const numbers = JSON.stringify(Array.from(values, shortest));
  const bytes = JSON.stringify(Buffer.from(values.buffer).toString('base64'));
  // Ready beforehand.
  const answers = new Map();
  const answerTo = (path, texts, form) => {
    const key = `${path} ${texts} ${form}`;
    if (!answers.has(key)) {
      const vector = form === 'base64' ? bytes : numbers;
      const data = Array.from({ length: texts }, (_, index) => `{"object":"embedding","index":${index},"embedding":${vector}}`);
      const body = path === '/api/embed' ? `{"model":"m","embeddings":[${Array(texts).fill(numbers)}]}` : `{"object":"list","data":[${data}],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}`;
      answers.set(key, Buffer.from(`HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`));
    }
    return answers.get(key);
  };
  const say = (socket, status, body) => socket.write(`HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`);

  let begun = process.cpuUsage();
  const handle = (socket, method, path, body) => {
    if (method === 'GET' && path === '/cost') {
      const { user, system } = process.cpuUsage(begun);
      say(socket, '200 OK', JSON.stringify({ requests, texts: asked, cpuMs: (user + system) / 1e3 / (requests || 1), lateMs: late / (requests || 1) }));
      [requests, asked, late, begun] = [0, 0, 0, process.cpuUsage()];
      return;
    }
    if (method !== 'POST' || (path !== '/api/embed' && path !== '/v1/embeddings')) return say(socket, '404 Not Found', '{}');
    const { input, encoding_format: form = 'float' } = JSON.parse(body.toString());
    const texts = Array.isArray(input) ? input.length : 1;
    asked += texts;
    const at = now() + ms * Math.ceil(texts / batch);
    const id = idsGiven++;
    waiting.set(id, { socket, answer: answerTo(path, texts, form), at });
    port1.postMessage({ id, at });
    Atomics.store(wake, 0, 1);
    Atomics.notify(wake, 0);
  };

  const server = createServer({ noDelay: true }, (socket) => {
    let parts = [];
    let length = 0;
    let need = 0;
    socket.on('error', () => {}).on('data', (part) => {
      parts.push(part);
      length += part.length;
      while (length >= need && length > 0) {
        const all = parts.length === 1 ? parts[0] : Buffer.concat(parts);
        parts = [all];
        const end = all.indexOf('\r\n\r\n');
        if (end < 0) return;
        const head = all.latin1Slice(0, end);
        const [, method, path] = /^(\S+) (\S+)/.exec(head);
        need = end + 4 + Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
        if (length < need) return;
        handle(socket, method, path, all.subarray(end + 4, need));
        parts = length > need ? [all.subarray(need)] : [];
        length -= need;
        need = 0;
      }
    });
  });
  server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
}
