// Where a page for people is served. Apart from the server itself: who serves none should not hold node:http in memory.

import { optionReader } from '../call/options';

/** Where a page is served, and for whom. */
export interface ServeOptions {
  /** 0 (default): any that is free. */
  port?: number | undefined;
  /** Who may ask: `'127.0.0.1'` (default), this machine only; `'0.0.0.0'`, everybody. */
  host?: string | undefined;
  /**
   * Names, such as `'box.example'`, by which it may be asked for beside 127.0.0.1 and localhost; `'*'`: any. Default: none
   * where `host` is an address of this machine only, so that no other site can reach the page through the browser of who
   * visits it; else any.
   */
  allowedHosts?: string[] | undefined;
  /**
   * What those who look have to know, or several of them: printable ASCII, no blank at either end. A browser asks for it as a
   * password (the name does not matter), programs send it as `Authorization: Bearer …`. Default: nothing. `/health` is open
   * to all, and tells those without a key that the page is there and no more.
   */
  apiKey?: string | string[] | undefined;
  /** Whether the process stays alive for it. Default false. */
  keepAlive?: boolean | undefined;
}

/** The options of {@link ServeOptions}, for who has more. */
export const SERVE = { port: true, host: true, allowedHosts: true, apiKey: true, keepAlive: true } as const;

export const readServe = optionReader<ServeOptions>(SERVE);

/** A page that is being served. */
export interface PageServer extends AsyncDisposable {
  /** Where it is. */
  readonly url: string;
  readonly port: number;
  /** Ends all connections. */
  close(): Promise<void>;
}
