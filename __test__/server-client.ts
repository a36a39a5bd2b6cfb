// Servers for tests, and clients of them that send what they are told to.
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import { OptimizedEmbeddingGenerator, type CallOptions } from 'embedcore';
import { serve, type EmbeddingServer, type EmbeddingServerOptions } from 'embedcore/server';
import { onTestFinished } from 'vitest';

import { model } from './support';

/** A fixture with little to do. */
export const generator = new OptimizedEmbeddingGenerator({ modelPath: model('bert-mean') });

export async function started(options: EmbeddingServerOptions = {}): Promise<EmbeddingServer> {
  const server = await serve({ generator, modelId: 'bert', port: 0, ...options });
  onTestFinished(() => server.close({ timeoutMs: 0 }));
  return server;
}

/** The shared generator, but for what is said of `embed`. */
export function acting(embed: (texts: string[], options: CallOptions) => Promise<unknown>, others: Record<string, unknown> = {}): OptimizedEmbeddingGenerator {
  const own = { embed, isReady: () => true, getModelInfo: () => generator.getModelInfo(), initialize: async () => {}, ...others };
  return own as unknown as OptimizedEmbeddingGenerator;
}

export interface Answer {
  status: number;
  headers: Headers;
  body: any;
}

export async function ask(server: EmbeddingServer, body: unknown, headers: Record<string, string> = {}, signal?: AbortSignal): Promise<Answer> {
  const answer = await fetch(`${server.url}/v1/embeddings`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers },
    body: typeof body === 'string' || body instanceof Uint8Array ? (body as string) : JSON.stringify(body),
    ...(signal && { signal }),
  });
  return { status: answer.status, headers: answer.headers, body: await answer.json() };
}

export async function get(server: EmbeddingServer, path: string, init: RequestInit = {}): Promise<Answer & { text: string }> {
  const answer = await fetch(`${server.url}${path}`, init);
  const text = await answer.text();
  const json = answer.headers.get('content-type')!.startsWith('application/json') && text !== '';
  return { status: answer.status, headers: answer.headers, text, body: json ? JSON.parse(text) : undefined };
}

/** Sends bytes as they are, in pieces, and gives all that comes until the connection ends: read at once, or when all is sent. */
export async function raw(server: Pick<EmbeddingServer, 'port'>, pieces: (string | Uint8Array)[], { end = false, readLast = false }: { end?: boolean; readLast?: boolean } = {}): Promise<string> {
  const socket = connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true });
  let text = '';
  const over = new Promise<void>((resolve) => {
    socket.on('end', resolve).on('close', () => resolve()).on('error', () => resolve());
  });
  const read = () => socket.on('data', (piece) => (text += piece.toString('latin1')));
  if (!readLast) read();
  for (const piece of pieces) {
    if (!socket.writable) break;
    socket.write(piece);
    await sleep(2);
  }
  if (end) socket.end();
  if (readLast) read();
  await over;
  socket.destroy();
  return text;
}

/** The statuses of all answers in a stream of bytes. */
export const statuses = (text: string) => [...text.matchAll(/^HTTP\/1\.1 (\d{3})/gm)].map(([, status]) => Number(status));

export const post = (body: string, headers = '') =>
  `POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${headers}\r\n${body}`;
export const good = '{"model":"bert","input":"a"}';

export const decoded = (base64: string) => {
  const bytes = Buffer.from(base64, 'base64');
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
};
