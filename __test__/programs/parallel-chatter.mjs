// A module that posts messages of its own on the port of its worker, as one for embedcore/parallel need not know that it must not.
import { parentPort } from 'node:worker_threads';

const post = (message) => (parentPort ? parentPort.postMessage(message) : process.send(message));

const MESSAGES = ['50 %', 50, true, null, {}, [], { progress: 50 }, { started: true }, { answers: [] }, { refused: {} }, { type: 'done', value: 1 }];

for (const message of MESSAGES) post(message);

export default async function (item) {
  for (const message of MESSAGES) post(message);
  await new Promise((resolve) => setTimeout(resolve, 30));
  for (const message of MESSAGES) post(message);
  return item;
}
