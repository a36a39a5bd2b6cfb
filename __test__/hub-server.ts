import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo } from 'node:net';
import { join } from 'node:path';

import { onTestFinished } from 'vitest';

import { model } from './support';

/** What the server has been asked for. */
export interface Asked {
  method: string;
  path: string;
  range: string | undefined;
  authorization: string | undefined;
}

/** Answers instead of the hub; `true` when it has. */
export type Fault = (asked: Asked, response: ServerResponse, file: HubFile | undefined) => boolean;

export interface HubFile {
  bytes: Buffer;
  etag: string;
  /** Whether it is kept as a large file: named by its SHA-256 and served by another address. */
  large: boolean;
}

export interface HubModel {
  sha: string;
  files: Map<string, HubFile>;
}

/** A server that speaks the protocol of the hub, and one that keeps its large files. */
export interface Hub {
  url: string;
  /** Where the two servers listen on this machine, whatever their addresses say. */
  ports: { hub: number; store: number };
  /** Connections that were ever made to either, asked for something or not. */
  connections: number;
  models: Map<string, HubModel>;
  /** Everything asked for, at the hub itself. */
  asked: Asked[];
  /** The same at the place of large files. */
  stored: Asked[];
  fault: Fault | undefined;
  /** Puts the files of a fixture there under an id; changes what `files` says. */
  add(id: string, fixture: string, files?: Record<string, string | Buffer | null>): HubModel;
  /** Bodies that were asked for, by file name. */
  fetched(file: string): number;
  close(): Promise<void>;
}

const digest = (algorithm: string, ...parts: (string | Buffer)[]) => {
  const hash = createHash(algorithm);
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
};

export const hubFile = (name: string, bytes: Buffer): HubFile => {
  const large = /\.(onnx|safetensors|onnx_data)$/.test(name);
  return { bytes, large, etag: large ? digest('sha256', bytes) : digest('sha1', `blob ${bytes.length}\0`, bytes) };
};

function filesOf(directory: string, under = ''): [string, Buffer][] {
  return readdirSync(join(directory, under), { withFileTypes: true }).flatMap((entry): [string, Buffer][] => {
    const name = under ? `${under}/${entry.name}` : entry.name;
    return entry.isDirectory() ? filesOf(directory, name) : [[name, readFileSync(join(directory, name))]];
  });
}

/** Keys and the names of servers that are reached by TLS. */
export interface Tls {
  key: string;
  cert: string;
  hub: string;
  store: string;
}

async function listen(answer: (request: IncomingMessage, response: ServerResponse) => void, connected: () => void, tls?: Tls, name?: string) {
  const server = tls ? createTlsServer(tls, answer) : createServer(answer);
  server.on('connection', connected);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  const { port } = server.address() as AddressInfo;
  return { url: name ? `https://${name.replace('PORT', String(port))}` : `http://127.0.0.1:${port}`, port, close };
}

/** Sends bytes as a server that knows ranges. */
export function send(asked: Asked, response: ServerResponse, bytes: Buffer): void {
  const from = Number(/^bytes=(\d+)-$/.exec(asked.range ?? '')?.[1] ?? 0);
  if (from >= bytes.length && from > 0) return void response.writeHead(416, { 'Content-Range': `bytes */${bytes.length}` }).end();
  response.setHeader('Content-Length', bytes.length - from);
  if (from > 0) response.setHeader('Content-Range', `bytes ${from}-${bytes.length - 1}/${bytes.length}`);
  response.writeHead(from > 0 ? 206 : 200).end(bytes.subarray(from));
}

export async function startHub(tls?: Tls): Promise<Hub> {
  const connected = () => void hub.connections++;
  const models = new Map<string, HubModel>();
  const [asked, stored]: [Asked[], Asked[]] = [[], []];
  const of = (request: IncomingMessage): Asked => ({
    method: request.method!,
    path: decodeURIComponent(request.url!),
    range: request.headers.range,
    authorization: request.headers.authorization,
  });
  // Large files: another address, as the hub's store is.
  const store = await listen((request, response) => {
    const about = of(request);
    stored.push(about);
    const etag = about.path.split('?')[0]!.slice(1);
    const file = [...models.values()].flatMap(({ files }) => [...files.values()]).find((file) => file.etag === etag);
    if (hub.fault?.(about, response, file)) return;
    if (file) send(about, response, file.bytes);
    else response.writeHead(404).end();
  }, connected, tls, tls?.store);
  const server = await listen((request, response) => {
    const about = of(request);
    asked.push(about);
    const listing = /^\/api\/models\/([^/]+\/[^/]+)\/revision\/(.+)$/.exec(about.path);
    const resolve = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(about.path);
    const found = models.get((listing ?? resolve)?.[1] ?? '');
    const file = resolve ? found?.files.get(resolve[3]!) : undefined;
    if (hub.fault?.(about, response, file)) return;
    const known = found && (['main', 'v1', 'refs/pr/1', found.sha].includes((listing ?? resolve)![2]!));
    if (known && listing) {
      const siblings = [...found.files.keys()].map((rfilename) => ({ rfilename }));
      response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ id: listing[1], sha: found.sha, siblings }));
    } else if (known && file) {
      response.setHeader('X-Repo-Commit', found.sha);
      if (file.large) {
        response.setHeader('X-Linked-Etag', `"${file.etag}"`);
        response.setHeader('X-Linked-Size', file.bytes.length);
        response.writeHead(302, { Location: `${store.url}/${file.etag}?Signature=secret` }).end();
      } else {
        response.setHeader('ETag', `W/"${file.etag}"`);
        if (about.method === 'HEAD') response.writeHead(200, { 'Content-Length': file.bytes.length }).end();
        else send(about, response, file.bytes);
      }
    } else {
      response.writeHead(404, { 'X-Error-Message': 'Repository not found' }).end();
    }
  }, connected, tls, tls?.hub);
  const hub: Hub = {
    url: server.url,
    ports: { hub: server.port, store: store.port },
    connections: 0,
    models,
    asked,
    stored,
    fault: undefined,
    add(id, fixture, changes = {}) {
      const files = new Map(filesOf(model(fixture)).map(([name, bytes]) => [name, hubFile(name, bytes)]));
      for (const [name, content] of Object.entries(changes)) {
        if (content === null) files.delete(name);
        else files.set(name, hubFile(name, Buffer.from(content)));
      }
      const found = { sha: digest('sha1', id, ...[...files.values()].map(({ etag }) => etag)), files };
      models.set(id, found);
      return found;
    },
    fetched(file) {
      const etags = [...models.values()].map(({ files }) => files.get(file)?.etag);
      const bodies = [...asked, ...stored].filter(({ method }) => method === 'GET');
      return bodies.filter(({ path }) => path.endsWith(`/${file}`) ? !etags.some((etag) => etag?.length === 64) : etags.some((etag) => path.startsWith(`/${etag}`))).length;
    },
    async close() {
      await Promise.all([server.close(), store.close()]);
    },
  };
  onTestFinished(() => hub.close());
  return hub;
}
