// A worker that enriches functions with what a language model says of them, in two stages: a summary, and from that, questions
// that people may ask. Answers are kept in a file, so that a second worker, or the next run, asks nothing twice.
//
//   node examples/enrichment-worker.mjs            beside a stand-in for Ollama
//   OLLAMA=http://localhost:11434 MODEL=llama3.2 node examples/enrichment-worker.mjs

import { createServer } from 'node:http';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { InferenceCache } from 'embedcore';
import { OllamaClient } from 'embedcore/llm';
import { parallelMap } from 'embedcore/parallel';

const functions = ['openFile(path)', 'closeSocket(socket)', 'sortUsers(users)', 'parseDate(text)'].flatMap((signature) => [signature, `async ${signature}`]);

let asked = 0;
const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const { prompt, model } = JSON.parse(Buffer.concat(chunks).toString());
  asked++;
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ model, response: `(${prompt.length} characters were read)`, done: true, eval_count: 4, eval_duration: 1e8 }));
});
server.listen(0, '127.0.0.1');
await new Promise((resolve) => server.once('listening', resolve));

const folder = mkdtempSync(join(tmpdir(), 'embedcore-example-'));
const baseUrl = process.env.OLLAMA ?? `http://127.0.0.1:${server.address().port}`;

for (const run of ['first', 'second']) {
  asked = 0;
  const cache = new InferenceCache({ persistPath: join(folder, 'results.db') });
  const ollama = new OllamaClient({ baseUrl, model: process.env.MODEL ?? 'stand-in', cache, defaults: { temperature: 0, maxTokens: 200 } });
  const enriched = await parallelMap(functions, async (signature) => {
    const summary = await ollama.generate(`Say in one sentence what this function does: ${signature}`);
    const questions = await ollama.generate({ system: 'Answer with three lines.', prompt: `What would somebody ask who looks for this? ${summary.response}` });
    return { signature, summary: summary.response, questions: questions.response, fromCache: summary.fromCache && questions.fromCache };
  }, { concurrency: 4 });
  await ollama.close();
  await cache.close();
  const known = enriched.filter(({ fromCache }) => fromCache).length;
  console.log(`${run} run: ${enriched.length} functions, ${known} of them known; the model was asked ${asked} times`);
}

server.close();
server.closeAllConnections();
rmSync(folder, { recursive: true, force: true });
