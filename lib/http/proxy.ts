// Which proxy the environment names for an address, as curl and most others read it.

import { show } from '../call/input';
import { refused } from '../call/options';
import { isLoopback } from '../server/host-header';

/** The proxy of an origin, if it has one. */
export type ProxyOf = (url: URL) => string | undefined;

/** `option`: the URL of one, `false` for none, or nothing: the environment's. */
export function proxyRule(option: unknown): ProxyOf {
  if (option === false) return () => undefined;
  if (option !== undefined) {
    const proxy = proxyUrl(option, (reason) => refused('proxy', reason));
    return () => proxy;
  }
  const { env } = process;
  const [plain, secure, all] = [env.http_proxy, env.https_proxy || env.HTTPS_PROXY, env.all_proxy || env.ALL_PROXY];
  const exceptions = (env.no_proxy || env.NO_PROXY || '').split(/[\s,]+/).filter(Boolean);
  return (url) => {
    // HTTP_PROXY in capitals may come from a request, where this runs as CGI.
    const [name, value] = url.protocol === 'https:' ? ['https_proxy', secure || all] : ['http_proxy', plain || all];
    if (!value || isLoopback(url.hostname.replace(/^\[|\]$/g, '')) || exceptions.some((exception) => covers(exception, url))) return undefined;
    return proxyUrl(value, () => refused('proxy', `the environment variable ${name} is not the URL of an HTTP proxy; pass proxy: false to go without`));
  };
}

/** Whether `NO_PROXY` has a host: by its name, or as one below it; `*` has all. */
function covers(exception: string, { hostname, port, protocol }: URL): boolean {
  if (exception === '*') return true;
  const [, name, only] = /^(?:\*?\.)?(.*?)(?::(\d+))?$/.exec(exception.toLowerCase())!;
  if (only !== undefined && only !== (port || (protocol === 'https:' ? '443' : '80'))) return false;
  return hostname === name || hostname.endsWith(`.${name}`);
}

function proxyUrl(value: unknown, refusal: (reason: string) => Error): string {
  const text = value instanceof URL ? value.href : value;
  if (typeof text === 'string') {
    const url = tryUrl(text);
    if (url && /^https?:$/.test(url.protocol)) return url.href;
  }
  // It may hold a password, so it is not shown.
  throw refusal(`${typeof value === 'string' ? 'it' : show(value)} is not the URL of an HTTP proxy, such as 'http://proxy:3128', nor false`);
}

function tryUrl(text: string): URL | undefined {
  try {
    return new URL(text);
  } catch {
    return undefined;
  }
}
