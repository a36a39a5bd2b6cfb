// Captions of images, kept by the images' own hashes: a copy of an image, under whatever name, is never shown to the model.
//
//   node examples/image-captions.mjs               beside a stand-in for Ollama
//   OLLAMA=http://localhost:11434 MODEL=llava node examples/image-captions.mjs a.png b.jpg

import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';

import { OllamaClient } from 'embedcore/llm';

// Two different pictures of one pixel, and the first one once more.
const red = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg==', 'base64');
const grey = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNoaGj4DwAFhAKAjM1mJgAAAABJRU5ErkJggg==', 'base64');
const files = process.argv.slice(2);
const images = files.length > 0 ? files.map((name) => [name, readFileSync(name)]) : [['red.png', red], ['grey.png', grey], ['copy of red.png', red]];

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const { images: [image], model } = JSON.parse(Buffer.concat(chunks).toString());
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ model, response: `a picture of ${Buffer.from(image, 'base64').length} bytes`, done: true }));
});
server.listen(0, '127.0.0.1');
await new Promise((resolve) => server.once('listening', resolve));

const ollama = new OllamaClient({
  baseUrl: process.env.OLLAMA ?? `http://127.0.0.1:${server.address().port}`,
  model: process.env.MODEL ?? 'stand-in',
  cache: { ttlSecondsByType: { vision_inference: 30 * 24 * 3600 } },
});
for (const [name, image] of images) {
  const { response, fromCache } = await ollama.generate({ prompt: 'Describe this image in a few words.', images: [image] }, { temperature: 0 });
  console.log(`${name}: ${response}${fromCache ? ' (known)' : ''}`);
}

await ollama.close();
server.close();
server.closeAllConnections();
