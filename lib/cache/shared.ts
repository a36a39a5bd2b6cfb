import { show } from '../call/input';
import { optionReader, record, refused } from '../call/options';

/** A Redis or Valkey server that the caches of many machines share: {@link CacheOptions.shared}. */
export interface SharedOptions {
  /**
   * The server: `redis://host:6379`, or `rediss://host:6380` with TLS, whose certificate must be one that this machine trusts
   * (or the file in the environment's `SSL_CERT_FILE`). With a user, a password and a database, as in
   * `redis://user:password@host:6379/2`; `?protocol=resp3` speaks the third version of the protocol. Redis from 6 on, or
   * Valkey. Of a cluster, any of its servers.
   */
  url: string | URL;
  /** What the names of all keys on the server begin with. Default `'embedcore:'`. Without braces in a cluster. */
  keyPrefix?: string | undefined;
  /**
   * How long the server keeps an entry at most, in seconds; 0: as long as the entry lives. Default 0. When its memory is full,
   * the server evicts by its own `maxmemory-policy`.
   */
  ttlSeconds?: number | undefined;
  /** How long connecting may take, in milliseconds. Nobody's call waits for that longer than for an answer. Default 2000. */
  connectTimeoutMs?: number | undefined;
  /**
   * How long an answer may take, in milliseconds; then what was asked for is a miss, and the server is not asked again for 30
   * seconds. Default 500.
   */
  commandTimeoutMs?: number | undefined;
  /** Whether the server is one of a Redis Cluster. Default `false`. */
  cluster?: boolean | undefined;
}

/** How the shared tier does, as one cache sees it. */
export interface SharedStats {
  /**
   * `'ready'`: the server is asked. `'open'`: it did not answer, and is not asked until it does in the background.
   * `'connecting'`: nobody knows yet.
   */
  state: 'connecting' | 'ready' | 'open';
  /** Lookups that it answered. */
  hits: number;
  /** Lookups of what neither memory nor the file had that it did not answer, for whatever reason. */
  misses: number;
  /** Of these, those that it was not asked, or in vain. */
  skipped: number;
  /** Of these, those whose value was not what was written: damaged, or another program's. */
  damaged: number;
  /** Connections that failed, and commands that were refused. */
  errors: number;
  /** Of the failures, those that somebody waited for. */
  timeouts: number;
  /** Entries that wait to be written. */
  queued: number;
  /** Entries that it took. */
  writes: number;
  /** Entries that it did not take, or that found no place in the queue. */
  dropped: number;
  /** How long the latest round trips took: half, 95 and 99 of a hundred took no longer. 0 before the first. */
  latencyMs: { p50: number; p95: number; p99: number };
}

/** URLs that were taken apart: options are read wherever they are handed on. */
const servers = new WeakSet<object>();

/** Takes a server's URL apart. No message shows it: there may be a password in it. */
function server(value: unknown, path: string): unknown {
  if (typeof value === 'object' && value !== null && servers.has(value)) return value;
  const wrong = (reason: string) => refused(path, `${reason}: give one such as redis://user:password@host:6379, or rediss:// for TLS`);
  if (typeof value !== 'string' && !(value instanceof URL)) throw wrong(`${show(value)} is no URL`);
  let url: URL;
  try {
    url = new URL(value);
  } catch {
    throw wrong('it is no URL');
  }
  const { protocol, hostname, port, username, password, pathname, searchParams, hash } = url;
  if (protocol !== 'redis:' && protocol !== 'rediss:') throw wrong(`its scheme is '${protocol.slice(0, -1)}', not 'redis' or 'rediss'`);
  if (hostname === '') throw wrong('it has no host');
  const resp = searchParams.get('protocol') ?? 'resp2';
  const others = [...searchParams.keys()].filter((name) => name !== 'protocol');
  if (others.length > 0) throw wrong(`it has the parameter ${show(others[0])}, and only 'protocol' is known`);
  if (resp !== 'resp2' && resp !== 'resp3') throw wrong("its parameter 'protocol' is neither 'resp2' nor 'resp3'");
  if (hash !== '') throw wrong('it has a fragment');
  if (!/^\/?\d{0,7}$/.test(pathname)) throw wrong('its path is not the number of a database');
  if (username !== '' && password === '') throw wrong('it has a user, but no password');
  const parts = record({
    host: decoded(hostname.replace(/^\[(.*)\]$/, '$1'), wrong),
    port: port === '' ? 6379 : Number(port),
    tls: protocol === 'rediss:',
    user: decoded(username, wrong),
    password: decoded(password, wrong),
    database: Number(pathname.slice(1)),
    resp3: resp === 'resp3',
  });
  servers.add(parts);
  return parts;
}

function decoded(text: string, wrong: (reason: string) => Error): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw wrong('its percent signs encode no text');
  }
}

const readOptions = optionReader<SharedOptions>({
  url: server,
  keyPrefix: true,
  ttlSeconds: true,
  connectTimeoutMs: true,
  commandTimeoutMs: true,
  cluster: true,
});

/** Reads what is said about the server. */
export function readShared(value: unknown, path: string): unknown {
  // A URL, most likely, and not to be shown.
  if (typeof value === 'string' || value instanceof URL) throw refused(path, `it is no object of options: write { url: '…' }`);
  return readOptions(value, path);
}
