import { EmbeddingError, messageOf } from '../call/errors';
import { show } from '../call/input';
import { read, record, refused } from '../call/options';
import { load, type Client } from './bullmq';

/** Where Redis, or Valkey, is: release 6 or later. */
export interface QueueConnectionOptions {
  /** Anything else that ioredis takes. */
  [option: string]: unknown;
  /** `redis://` or `rediss://` (TLS), with user, password and number of the database if need be; what else is given here counts more. */
  url?: string | undefined;
  /** Default `'127.0.0.1'`. */
  host?: string | undefined;
  /** Default 6379. */
  port?: number | undefined;
  username?: string | undefined;
  password?: string | undefined;
  /** Default 0. */
  db?: number | undefined;
  /** What `tls.connect` takes; `{}` for TLS as it is. */
  tls?: object | undefined;
}

/** A connection that is there already: `new Redis(…)` of ioredis. Ours are made like it; it is left as it is. */
export interface QueueRedisClient {
  options: object;
  duplicate(...args: never[]): unknown;
}

/** A connection, where queues and workers want one: a URL, options, or an ioredis client. */
export type QueueConnection = string | URL | QueueConnectionOptions | QueueRedisClient;

/** A server that is older lacks what is needed. */
const OLDEST = 6;
/** The longest pause between two tries to connect again, in milliseconds. */
const MOST_PAUSE_MS = 2000;

/** Where the server is, as it was read. */
export interface Address {
  /** What ioredis takes. */
  options: Record<string, unknown>;
  /** For messages: no password in it. */
  shown: string;
  /** For the shared tier, where that is to be on the same server; `undefined` where no URL says it. */
  url: string | undefined;
}

/** @throws `INVALID_CONFIG` naming the option. */
export function addressOf(connection: unknown, path = 'connection'): Address {
  if (typeof connection === 'string' || connection instanceof URL) return address(ofUrl(connection, path));
  if (typeof connection !== 'object' || connection === null) {
    throw refused(path, `${show(connection)} is neither a URL (redis://host:6379), nor options ({ host, port }), nor a client of ioredis`);
  }
  if (typeof read(connection, 'duplicate', path) === 'function') {
    if (read(connection, 'isCluster', path)) throw refused(path, 'a queue has one server: pass the connection to that one, not a cluster');
    return address({ ...(read(connection, 'options', path) as object) });
  }
  const { url, ...given } = record(connection, path);
  return address({ ...(url !== undefined && ofUrl(url, `${path}.url`)), ...given }, path);
}

function ofUrl(given: unknown, path: string): Record<string, unknown> {
  let url: URL;
  try {
    url = new URL(given as string | URL);
  } catch {
    // Not shown: there may be a password in it.
    throw refused(path, 'it is no URL: pass redis://host:6379');
  }
  const { protocol, hostname, port, username, password, pathname } = url;
  if (protocol !== 'redis:' && protocol !== 'rediss:') throw refused(path, `its scheme is ${protocol.slice(0, -1)}, not redis or rediss`);
  if (!/^\/?\d*$/.test(pathname)) throw refused(path, `its path ${show(pathname)} is no number of a database`);
  return {
    host: hostname.replace(/^\[|\]$/g, '') || '127.0.0.1',
    port: port === '' ? 6379 : Number(port),
    ...(username !== '' && { username: decodeURIComponent(username) }),
    ...(password !== '' && { password: decodeURIComponent(password) }),
    ...(pathname.length > 1 && { db: Number(pathname.slice(1)) }),
    ...(protocol === 'rediss:' && { tls: {} }),
  };
}

function address(options: Record<string, unknown>, path = 'connection'): Address {
  const { host = '127.0.0.1', port = 6379, username, password, db = 0, tls, path: socket, keyPrefix } = options;
  if (typeof host !== 'string' || host === '') throw refused(`${path}.host`, `${show(host)} is not the name of a host`);
  if (!Number.isInteger(port) || (port as number) < 1 || (port as number) > 65535) throw refused(`${path}.port`, `${show(port)} is not a port from 1 to 65535`);
  if (keyPrefix) throw refused(`${path}.keyPrefix`, 'BullMQ keeps its keys apart by `prefix`: pass that instead');
  const name = host.includes(':') ? `[${host}]` : host;
  const secret = [username, password].some((part) => part != null) ? `${encodeURIComponent(String(username ?? ''))}:${encodeURIComponent(String(password ?? ''))}@` : '';
  const where = `${name}:${String(port)}/${String(db)}`;
  const plain = typeof socket !== 'string' && options.sentinels === undefined;
  return {
    options: { ...options, host, port },
    shown: typeof socket === 'string' ? socket : `${name}:${String(port)}`,
    url: plain ? `${tls == null ? 'redis' : 'rediss'}://${secret}${where}` : undefined,
  };
}

/**
 * A connection that comes back by itself. What is asked while it is away waits until it is there again; how long that may
 * be is for whoever asks to say.
 */
export class Link {
  readonly client: Client;
  readonly #shown: string;
  readonly #tls: boolean;
  readonly #waiting = new Set<(reason: EmbeddingError) => void>();
  #closed = false;
  #connections = 0;
  #lastError: unknown;
  /** Since when nothing is answered, on the clock of `performance.now()`. */
  #awaySince: number | undefined = performance.now();

  constructor({ options, shown }: Address) {
    const { Redis } = load();
    this.#shown = shown;
    this.#tls = options.tls != null;
    this.client = new Redis({
      ...options,
      lazyConnect: true,
      // Both are what BullMQ wants: commands wait for the server instead of failing.
      maxRetriesPerRequest: null,
      enableOfflineQueue: true,
      retryStrategy: (times: number) => Math.min(50 * 2 ** Math.min(times, 10), MOST_PAUSE_MS),
    });
    this.client.on('ready', () => {
      this.#awaySince = undefined;
      this.#connections++;
    });
    this.client.on('close', () => (this.#awaySince ??= performance.now()));
    this.client.on('error', (error) => {
      this.#lastError = error;
      const refusal = this.#refusal(error);
      if (refusal) for (const giveUp of this.#waiting) giveUp(refusal);
    });
  }

  /** How long the server has been away, in milliseconds; 0 while it answers. */
  get awayMs(): number {
    return this.#awaySince === undefined ? 0 : performance.now() - this.#awaySince;
  }

  /** How often the server was there anew: what it had before may be gone. */
  get connections(): number {
    return this.#connections;
  }

  /** Waits for the server, for so long at most, and looks whether it is one that can be used. */
  async ready(timeoutMs: number): Promise<void> {
    await this.within(timeoutMs, async () => {
      if (this.client.status === 'wait') await this.client.connect().catch(() => {});
      // Waits while it connects.
      const info = await this.client.info('server').catch(() => '');
      if (told(info, 'redis_mode') === 'cluster') {
        const message = `The Redis server at ${this.#shown} is one of a cluster: a queue has one server; only the tier for vectors may be a cluster (cache: { shared: { url, cluster: true } })`;
        throw new EmbeddingError('BACKEND_REJECTED', message, { details: { address: this.#shown } });
      }
      const version = told(info, 'redis_version');
      if (version !== undefined && Number.parseInt(version, 10) < OLDEST) {
        const message = `The Redis server at ${this.#shown} is of release ${version}: a queue needs ${OLDEST} or later, or Valkey`;
        throw new EmbeddingError('BACKEND_REJECTED', message, { details: { address: this.#shown, version } });
      }
    });
  }

  /** What `work` gives, if that comes in time and the server lets us in. */
  async within<T>(timeoutMs: number, work: () => Promise<T>): Promise<T> {
    let giveUp!: (reason: EmbeddingError) => void;
    const refusal = new Promise<never>((_, reject) => (giveUp = reject));
    const timer = setTimeout(() => giveUp(this.unavailable(timeoutMs)), timeoutMs);
    this.#waiting.add(giveUp);
    try {
      return await Promise.race([work(), refusal]);
    } catch (thrown) {
      if (thrown instanceof EmbeddingError) throw thrown;
      throw this.#refusal(thrown) ?? this.failed(thrown);
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(giveUp);
    }
  }

  /** The error of whoever has waited for the server long enough. */
  unavailable(waitedMs: number): EmbeddingError {
    const silent = this.#tls ? 'it does not answer; does the port speak TLS?' : 'it does not answer';
    const reason = this.#lastError === undefined ? silent : messageOf(this.#lastError);
    const message = `The Redis server at ${this.#shown} could not be reached within ${Math.round(waitedMs)} ms: ${reason}`;
    return new EmbeddingError('BACKEND_UNAVAILABLE', message, { retryable: true, cause: this.#lastError, details: { address: this.#shown } });
  }

  /** An error of the server, or of BullMQ, about a command. */
  failed(thrown: unknown): EmbeddingError {
    return new EmbeddingError('BACKEND_REJECTED', `The Redis server at ${this.#shown}: ${messageOf(thrown)}`, { cause: thrown, details: { address: this.#shown } });
  }

  /** Ends it, and what waits for it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const reason = new EmbeddingError('CLOSED', `The connection to the Redis server at ${this.#shown} was closed`);
    for (const giveUp of this.#waiting) giveUp(reason);
    this.client.disconnect();
  }

  /** Why the server does not let us in, if that is what it says: to wait would not help. */
  #refusal(error: unknown): EmbeddingError | undefined {
    const said = messageOf(error);
    if (!/^(WRONGPASS|NOAUTH|NOPERM|ERR (invalid password|Client sent AUTH|AUTH|wrong number of arguments for 'auth'))/i.test(said)) return undefined;
    return new EmbeddingError('BACKEND_REJECTED', `The Redis server at ${this.#shown} refuses: ${said}`, { cause: error, details: { address: this.#shown } });
  }
}

/** What a server says of itself; `undefined` where it does not say, as Valkey may not. */
function told(info: string, name: 'redis_version' | 'redis_mode'): string | undefined {
  return new RegExp(`^${name}:(\\S+)`, 'm').exec(info)?.[1];
}
