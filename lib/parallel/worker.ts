// Runs in a worker thread or a child process of a pool: loads a function of a module, and applies it to items.

import { parentPort } from 'node:worker_threads';

import { buffersOf, dismantle, isCloneable, partOf, responseOf, type Request, type Response, type WireAnswer } from './wire';

type ItemFunction = (...args: unknown[]) => unknown;

const functions = new Map<string, Promise<ItemFunction>>();

function load(module: string, name: string): Promise<ItemFunction> {
  const key = `${name} ${module}`;
  let loading = functions.get(key);
  if (!loading) functions.set(key, (loading = find(module, name)));
  return loading;
}

/** An export of an ES module, or of a CommonJS module, compiled from TypeScript or not. */
async function find(module: string, name: string): Promise<ItemFunction> {
  const namespace = (await import(module)) as Record<string, unknown>;
  const commonJs = namespace.default as Record<string, unknown> | undefined;
  for (const found of [namespace[name], commonJs?.[name]]) {
    if (typeof found === 'function') return found as ItemFunction;
    // `export default` compiled to CommonJS, imported from an ES module.
    const inner = name === 'default' ? (found as { default?: unknown } | undefined)?.default : undefined;
    if (typeof inner === 'function') return inner as ItemFunction;
  }
  const names = [...new Set([...Object.keys(namespace), ...Object.keys(commonJs ?? {})])];
  throw new TypeError(`it exports no function \`${name}\`; its exports are ${names.join(', ') || 'none'}`);
}

async function serve({ module, name, items, indexes, spread, transfer, tellStart }: Request): Promise<void> {
  let fn: ItemFunction;
  try {
    fn = await load(module, name);
  } catch (error) {
    send(responseOf({ refused: dismantle(error) }));
    return;
  }
  if (tellStart) send(responseOf({ started: true }));
  const answers: WireAnswer[] = [];
  for (const [i, item] of items.entries()) {
    try {
      answers.push({ value: partOf(await (spread ? fn(...(item as unknown[])) : fn(item, indexes[i]!))) });
    } catch (error) {
      answers.push({ thrown: dismantle(error) });
    }
  }
  const moved = transfer ? buffersOf(answers.map((answer) => ('value' in answer ? answer.value : undefined))) : [];
  const sendable = (answer: WireAnswer, i: number) => ('value' in answer && !isCloneable(answer.value, !parentPort) ? unsent(indexes[i]!) : answer);
  try {
    send(responseOf({ answers }), moved);
  } catch {
    // One of them cannot be sent, or not be moved. The others can.
    send(responseOf({ answers: answers.map(sendable) }));
  }
}

function unsent(index: number): WireAnswer {
  const error = new TypeError(`The result of item ${index} cannot be sent back: answer plain data, without functions and symbols`);
  return { thrown: dismantle(error) };
}

function send(response: Response, moved: ArrayBuffer[] = []): void {
  if (parentPort) parentPort.postMessage(response, moved);
  else process.send!(response);
}

(parentPort ?? process).on('message', (request: Request) => void serve(request));
parentPort?.on('messageerror', (error) => send(responseOf({ unread: error.message })));
