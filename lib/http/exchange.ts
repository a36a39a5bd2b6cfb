import type { Readable } from 'node:stream';

import { EmbeddingError, messageOf } from '../call/errors';
import type { Admission } from './admission';
import { Attempt, AttemptFailed, TooLarge, TooSlow, type Answer, type Head, type Mode } from './attempt';
import { decodedStream, OutgoingBody } from './body';
import { connectionFailure, shown, tooSlow, unusable, type Where } from './failures';
import type { Host } from './host';
import { backoffAfter, retryAfter, type RetryRule } from './retry';
import { longestOf } from './running';
import { carriesSecret, redactor } from './secrets';

/** What requests go over. */
export interface Network {
  host(url: URL): Host;
  proxyOf(url: URL): string | undefined;
  readonly admission: Admission;
  readonly rule: RetryRule;
  readonly connectTimeoutMs: number;
  readonly readTimeoutMs: number;
  /** Ends streams that nobody reads. */
  leaveUnread(): void;
}

/** A request, as it was asked for. */
export interface Asked {
  method: string;
  url: URL;
  /** By their names in lower case. */
  headers: Record<string, string>;
  body: OutgoingBody;
  redirect: 'follow' | 'error' | 'manual';
  /** Tries in all, if they are fewer than the rule's. */
  attempts?: number;
  /** Most bytes of a whole body. */
  most: number;
  /** What is done with an answer that is final. */
  modeOf(head: Head): Mode;
}

/** The answer that was last, and where it came from. */
export interface FinalAnswer extends Answer {
  url: URL;
  redirected: boolean;
  where: Where;
}

/** Ends what is under way, wherever it waits. */
export class Stop {
  #reason: Error | undefined;
  #react: ((reason: Error) => void) | undefined;

  get reason(): Error | undefined {
    return this.#reason;
  }

  stop(reason: Error): void {
    if (this.#reason) return;
    this.#reason = reason;
    this.#react?.(reason);
  }

  /** Who is told from now on: what waits now. */
  while(react: (reason: Error) => void): void {
    this.#react = react;
    if (this.#reason) react(this.#reason);
  }
}

/** Longest way from one address to another, as browsers have it. */
const MOST_REDIRECTS = 20;

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** May be done twice. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']);

/** What follows from an answer that is not the last one. */
type Next = { to: URL; status: number } | { afterMs: number };

/** A request through tries and redirects. */
export class Exchange {
  readonly #network: Network;
  readonly #stop: Stop;
  readonly #redirect: Asked['redirect'];
  readonly #attempts: number;
  readonly #most: number;
  readonly #modeOf: Asked['modeOf'];
  /** When nobody waits any more, by `performance.now()`. */
  readonly #deadline: number;
  /** All that the request was made with: what another address does not get is not told either. */
  readonly #given: Record<string, string>;
  #method: string;
  #url: URL;
  #headers: Record<string, string>;
  #body: OutgoingBody;
  #tried = 0;
  #redirects = 0;
  #next: Next | undefined;

  constructor(network: Network, request: Asked, stop: Stop, deadline = Infinity) {
    this.#network = network;
    this.#stop = stop;
    this.#deadline = deadline;
    this.#redirect = request.redirect;
    this.#attempts = Math.min(request.attempts ?? Infinity, network.rule.attempts);
    this.#most = request.most;
    this.#modeOf = request.modeOf;
    this.#method = request.method;
    this.#url = request.url;
    this.#headers = this.#given = request.headers;
    this.#body = request.body;
  }

  async run(): Promise<FinalAnswer> {
    try {
      return await this.#run();
    } catch (error) {
      this.#body.close();
      throw error;
    }
  }

  async #run(): Promise<FinalAnswer> {
    for (;;) {
      const host = this.#network.host(this.#url);
      if (!this.#network.admission.tryEnter(host)) await this.#enter(host);
      this.#tried++;
      this.#next = undefined;
      let answer: Answer;
      try {
        answer = await this.#try(host);
      } catch (failed) {
        await this.#sleep(this.#afterFailure(failed as AttemptFailed));
        continue;
      }
      const next = this.#next as Next | undefined;
      if (!next) return { ...answer, url: this.#url, redirected: this.#redirects > 0, where: this.#where() };
      if ('to' in next) this.#follow(next);
      else await this.#sleep(next.afterMs);
    }
  }

  /** Waits for a place: as long as those who have one get on. */
  #enter(host: Host): Promise<void> {
    const { admission, readTimeoutMs } = this.#network;
    return new Promise((resolve, reject) => {
      const watch = setInterval(() => this.#network.leaveUnread(), Math.ceil(readTimeoutMs / 4));
      const leave = admission.wait(host, () => {
        clearInterval(watch);
        resolve();
      });
      this.#stop.while((reason) => {
        clearInterval(watch);
        leave();
        reject(reason);
      });
    });
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, ms);
      this.#stop.while((reason) => {
        clearTimeout(timer);
        reject(reason);
      });
    });
  }

  #try(host: Host): Promise<Answer> {
    const { admission, readTimeoutMs } = this.#network;
    const began = performance.now();
    const where = this.#where();
    const attempt = new Attempt((head) => this.#mode(head), { bytes: this.#most, ms: longestOf(readTimeoutMs) }, (failed) => {
      host.ended(performance.now() - began, failed);
      admission.leave(host);
    }, (thrown) => connectionFailure(thrown, where).error);
    host.began(this.#tried > 1);
    this.#stop.while((reason) => attempt.stop(reason));
    const { origin, pathname, search } = this.#url;
    const body = this.#body.open();
    try {
      host.connections.dispatch({ origin, path: pathname + search, method: this.#method, headers: this.#headers, body }, attempt);
    } catch (thrown) {
      attempt.onResponseError(undefined, thrown as Error);
    }
    return attempt.answer;
  }

  /** What is done with the body; notes what comes next, if this is not the last answer. */
  #mode(head: Head): Mode {
    const to = this.#target(head);
    if (to) this.#next = { to, status: head.status };
    else {
      const afterMs = this.#retryOf(head);
      if (afterMs !== undefined) this.#next = { afterMs };
    }
    return this.#next ? 'words' : this.#modeOf(head);
  }

  #target({ status, headers }: Head): URL | undefined {
    const { location } = headers;
    if (this.#redirect === 'manual' || !REDIRECTS.has(status) || location === undefined) return undefined;
    try {
      return new URL(String(location), this.#url);
    } catch {
      return undefined;
    }
  }

  /** How long to wait before the request is made once more; nothing where it is not. */
  #retryOf({ status, headers }: Head): number | undefined {
    const { rule, readTimeoutMs } = this.#network;
    if (!this.#canTry() || !rule.retries(status)) return undefined;
    const told = retryAfter(headers['retry-after']);
    if (told === undefined) return backoffAfter(rule, this.#tried);
    // Who says to come back in an hour is not waited for.
    return told <= readTimeoutMs && performance.now() + told < this.#deadline ? told : undefined;
  }

  #canTry(): boolean {
    return this.#tried < this.#attempts && this.#body.sendable;
  }

  /** Milliseconds until the next try. @throws what the failure means, where there is none. */
  #afterFailure({ cause, began }: AttemptFailed): number {
    if (this.#stop.reason) throw this.#stop.reason;
    // What the caller's own functions and streams do wrong.
    if (cause instanceof EmbeddingError) throw cause;
    const where = this.#where();
    if (cause instanceof TooLarge) throw unusable(`${cause.message}: take it as a stream, or raise maxResponseMB`, where);
    if (cause instanceof TooSlow) throw tooSlow(cause.ms, where);
    const { error, transient } = connectionFailure(cause, where);
    const repeatable = !began || IDEMPOTENT.has(this.#method);
    if (!transient || !repeatable || !this.#canTry()) throw error;
    return backoffAfter(this.#network.rule, this.#tried);
  }

  #follow({ to, status }: { to: URL; status: number }): void {
    const where = this.#where();
    if (this.#redirect === 'error') throw unusable(`the server redirects to ${shown(to)}, and redirects are refused`, where);
    if (++this.#redirects > MOST_REDIRECTS) throw unusable(`the server redirects more than ${MOST_REDIRECTS} times, at last to ${shown(to)}`, where);
    if (to.protocol !== 'http:' && to.protocol !== 'https:') throw unusable(`the server redirects to ${to.protocol}, which is not HTTP`, where);
    const asGet = status === 303 ? this.#method !== 'HEAD' : status < 303 && this.#method === 'POST';
    if (asGet) this.#method = 'GET';
    if (!asGet && !this.#body.sendable) throw unusable(`the server redirects to ${shown(to)}, and the body was a stream that is read: pass it as bytes`, where);
    const away = to.origin !== this.#url.origin;
    const goes = (name: string) => !(away && (name === 'host' || carriesSecret(name))) && !(asGet && name.startsWith('content-'));
    this.#headers = Object.fromEntries(Object.entries(this.#headers).filter(([name]) => goes(name)));
    if (asGet) this.#body = OutgoingBody.NONE;
    this.#url = withoutUser(to);
    // What the other address does with it is another matter.
    this.#tried = 0;
  }

  #where(): Where {
    const { connectTimeoutMs, readTimeoutMs } = this.#network;
    const [headers, url] = [this.#given, this.#url];
    return { method: this.#method, url, attempts: this.#tried, connectTimeoutMs, readTimeoutMs, redact: (text) => redactor(headers, url, this.#network.proxyOf(url))(text) };
  }
}

/** Names and passwords are not taken from a server. */
function withoutUser(url: URL): URL {
  const plain = new URL(url);
  plain.username = '';
  plain.password = '';
  return plain;
}

/** The stream of an answer, decompressed. */
export function contentOf({ stream, headers, where }: FinalAnswer): Readable {
  try {
    return decodedStream(stream!, headers['content-encoding'], (cause) => notDecompressed(cause, where));
  } catch (cause) {
    stream!.destroy();
    throw notDecompressed(cause, where);
  }
}

export function notDecompressed(cause: unknown, where: Where): EmbeddingError {
  return unusable(`the answer cannot be decompressed: ${messageOf(cause)}`, where);
}
