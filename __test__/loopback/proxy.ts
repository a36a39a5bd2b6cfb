import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';

import { onTestFinished } from 'vitest';

export interface LoopbackProxy {
  url: string;
  /** Hosts and ports that tunnels were asked for. */
  asked: { target: string; authorization: string | undefined }[];
}

/** A proxy that tunnels (`CONNECT`), to this port of this machine whatever host is asked for. Closed when the test ends. */
export async function proxy(port: number): Promise<LoopbackProxy> {
  const sockets = new Set<Socket>();
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).once('close', () => sockets.delete(socket));
  };
  const asked: LoopbackProxy['asked'] = [];
  const server = createServer((_, response) => response.writeHead(400).end());
  server.on('connection', keep);
  server.on('connect', ({ url, headers }, socket: Socket) => {
    asked.push({ target: url!, authorization: headers['proxy-authorization'] });
    const onward = connect(port, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 Connection Established\r\n\r\n');
      onward.pipe(socket).pipe(onward);
    });
    keep(onward);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}
