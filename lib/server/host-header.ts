import { isIP } from 'node:net';

// Which names a server answers to: a page of another site can make a name of its own stand for this machine (DNS
// rebinding), and its script would then be let in as if it were the server's own.

/** Whether a name or an address stands for this machine, whoever asks. */
export function isLoopback(host: string): boolean {
  return /^127\.\d+\.\d+\.\d+$/.test(host) || host === '::1' || /(^|\.)localhost$/i.test(host);
}

/** The host of a header `Host`, or of an address, without its port and the brackets of IPv6. */
function hostOf(authority: string): string {
  if (!authority.startsWith('[')) return authority.replace(/:\d*$/, '').toLowerCase();
  const end = authority.indexOf(']');
  return authority.slice(1, end < 0 ? undefined : end).toLowerCase();
}

/** Whether a value is a list of names and addresses as `answersTo` takes them: without scheme and port. */
export function areHosts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((one) => typeof one === 'string' && (one === '*' || isIP(one) !== 0 || /^[\w.-]+$/.test(one)));
}

/**
 * Tells whether a request for `authority` (of the header `Host`) is answered by a server that listens on `host`. On an
 * address of this machine only, the names of this machine are, and those of `allowed`. On another address all are, unless
 * some are allowed.
 */
export function answersTo(host: string, allowed: readonly string[]): (authority: string) => boolean {
  const names = new Set(allowed.map((name) => name.toLowerCase()));
  const all = names.has('*') || (names.size === 0 && !isLoopback(host));
  return (authority) => {
    if (all) return true;
    const name = hostOf(authority);
    return isLoopback(name) || names.has(name);
  };
}
