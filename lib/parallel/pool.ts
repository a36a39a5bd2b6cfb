import { fork, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { EmbeddingError, MemoryLimitError } from '../call/errors';
import { reassemble, type Request, type Response, type WireAnswer } from './wire';

/** How long a worker waits for more work before it ends, in milliseconds. */
const IDLE_MS = 2000;

const SCRIPT = join(__dirname, 'worker.js');

/** How a worker ended before it answered. */
interface Ending {
  error?: Error;
  code: number | null;
  signal?: NodeJS.Signals | null;
}

/** A thread or a process: the same to whoever uses it. */
interface Member {
  send(request: Request, moved: ArrayBuffer[]): void;
  /** Resolves when it is gone. */
  kill(): Promise<unknown>;
  /** Whether the process stays alive for it. */
  hold(held: boolean): void;
  /** Who is told; exchanged for every request. */
  listener: { message(response: Response): void; ended(ending: Ending): void } | undefined;
}

/** How one request is to be run. */
export interface RunOptions {
  /** Kills the worker when it is aborted. */
  signal: AbortSignal;
  /** Longest time from the start of the work, loading of its module not counted. */
  timeoutMs: number | undefined;
  /** What is moved instead of copied. */
  moved: ArrayBuffer[];
}

/** The worker was killed because its time was over. */
export const TIMED_OUT = Symbol('timed out');

/** What came of a request. `lost`: the worker ended without an answer; an error, or {@link TIMED_OUT}. */
export type Outcome = { answers: WireAnswer[] } | { lost: unknown };

/**
 * Worker threads or child processes, which are started when they are needed and end when they are idle. None of them
 * keeps the process alive unless it works.
 */
export class WorkerPool {
  readonly #size: number;
  readonly #processes: boolean;
  readonly #idle: { member: Member; timer: NodeJS.Timeout }[] = [];
  readonly #members = new Set<Member>();
  readonly #waiting: (() => void)[] = [];
  #closed = false;

  constructor(size: number, processes: boolean) {
    this.#size = size;
    this.#processes = processes;
  }

  /** Workers that there are now, and requests that wait for one. */
  get counts(): { workers: number; waiting: number } {
    return { workers: this.#members.size, waiting: this.#waiting.length };
  }

  /**
   * Has a request answered by a worker. Rejects where the function cannot be loaded (`INVALID_ARGUMENT`), where the items
   * cannot be sent (as the platform throws it), where `signal` is aborted, and where the pool is closed (`CLOSED`).
   */
  async run(request: Request, options: RunOptions): Promise<Outcome> {
    const member = await this.#take(options.signal);
    const { outcome, reusable } = await converse(member, request, options);
    if (reusable) this.#giveBack(member);
    // Nobody knows what it still does.
    else this.#discard(member);
    if ('error' in outcome) throw this.#closed ? closed() : outcome.error;
    return this.#closed && 'lost' in outcome ? Promise.reject(closed()) : outcome;
  }

  /** Ends all workers, at once, and resolves when they are gone. What runs is rejected with `CLOSED`. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { timer } of this.#idle.splice(0)) clearTimeout(timer);
    const ending = [...this.#members].map((member) => member.kill());
    this.#members.clear();
    for (const wake of this.#waiting.splice(0)) wake();
    await Promise.all(ending);
  }

  async #take(signal: AbortSignal): Promise<Member> {
    for (;;) {
      if (this.#closed) throw closed();
      if (signal.aborted) {
        // The turn that this one may have been given is the next one's.
        this.#waiting.shift()?.();
        throw signal.reason;
      }
      const idle = this.#idle.pop();
      if (idle) {
        clearTimeout(idle.timer);
        return idle.member;
      }
      if (this.#members.size < this.#size) {
        const member = this.#processes ? processMember() : threadMember();
        this.#members.add(member);
        return member;
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  #giveBack(member: Member): void {
    if (!this.#members.has(member)) return;
    member.hold(false);
    member.listener = { message() {}, ended: () => this.#discard(member) };
    const timer = setTimeout(() => this.#discard(member), IDLE_MS).unref();
    this.#idle.push({ member, timer });
    this.#waiting.shift()?.();
  }

  #discard(member: Member): void {
    const at = this.#idle.findIndex((idle) => idle.member === member);
    if (at >= 0) clearTimeout(this.#idle.splice(at, 1)[0]!.timer);
    this.#members.delete(member);
    member.listener = undefined;
    void member.kill();
    this.#waiting.shift()?.();
  }
}

function closed(): EmbeddingError {
  return new EmbeddingError('CLOSED', 'The pool of workers is closed: make another one');
}

/** How a conversation with a worker ended, and whether it is free for another one. */
interface End {
  outcome: Outcome | { error: unknown };
  reusable: boolean;
}

/** Sends a request and waits for its answers. */
function converse(member: Member, request: Request, { signal, timeoutMs, moved }: RunOptions): Promise<End> {
  return new Promise((resolve) => {
    let timer: NodeJS.Timeout | undefined;
    const end = (outcome: End['outcome'], reusable: boolean) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      member.listener = undefined;
      resolve({ outcome, reusable });
    };
    const onAbort = () => end({ error: signal.reason }, false);
    signal.addEventListener('abort', onAbort, { once: true });
    member.hold(true);
    member.listener = {
      ended: (ending) => end({ lost: died(request, ending) }, false),
      message(response) {
        if ('answers' in response) end(response, true);
        else if ('refused' in response) end({ error: notLoaded(request, reassemble(response.refused)) }, true);
        else timer = setTimeout(() => end({ lost: TIMED_OUT }, false), timeoutMs);
      },
    };
    try {
      member.send(request, moved);
    } catch (error) {
      end({ error }, true);
    }
  });
}

function notLoaded({ module, name }: Request, cause: unknown): EmbeddingError {
  const reason = (cause as { message?: unknown } | null)?.message ?? cause;
  const message = `Could not load the function \`${name}\` of ${module}: ${String(reason)}`;
  return new EmbeddingError('INVALID_ARGUMENT', message, { cause, details: { module, name } });
}

function died({ indexes }: Request, { error, code, signal }: Ending): Error {
  const what = indexes.length === 1 ? `item ${indexes[0]}` : `items ${indexes[0]} to ${indexes.at(-1)}`;
  const how = error ? `: ${error.message}` : signal ? ` by ${signal}` : ` with exit code ${code}`;
  const details = { index: indexes[0], count: indexes.length, exitCode: code, signal: signal ?? null };
  const options = { details, ...(error && { cause: error }) };
  if ((error as NodeJS.ErrnoException | undefined)?.code === 'ERR_WORKER_OUT_OF_MEMORY') {
    return new MemoryLimitError(`The worker ran out of memory at ${what}: let it hold less at a time, or raise --max-old-space-size`, options);
  }
  return new EmbeddingError('BACKEND_UNAVAILABLE', `The worker ended at ${what}${how}, before it answered`, options);
}

function threadMember(): Member {
  const worker = new Worker(SCRIPT);
  let error: Error | undefined;
  const member: Member = {
    listener: undefined,
    send: (request, moved) => worker.postMessage(request, moved),
    kill: () => worker.terminate(),
    hold: (held) => (held ? worker.ref() : worker.unref()),
  };
  worker.on('message', (response: Response) => member.listener?.message(response));
  worker.on('messageerror', (cause) => member.listener?.ended({ error: cause, code: null }));
  worker.on('error', (thrown) => (error = thrown instanceof Error ? thrown : new Error(String(thrown))));
  worker.on('exit', (code) => member.listener?.ended({ ...(error && { error }), code }));
  return member;
}

/** Child processes that run, so that none survives this process. */
const children = new Set<ChildProcess>();

function processMember(): Member {
  const child = fork(SCRIPT, { serialization: 'advanced', stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const gone = new Promise((resolve) => child.once('exit', resolve));
  const member: Member = {
    listener: undefined,
    send: (request) => void child.send(request),
    kill: () => (child.kill('SIGKILL') ? gone : Promise.resolve()),
    hold(held) {
      const way = held ? 'ref' : 'unref';
      child[way]();
      child.channel?.[way]();
    },
  };
  if (children.size === 0) process.on('exit', endChildren);
  children.add(child);
  child.on('message', (response: Response) => member.listener?.message(response));
  child.on('error', (error) => member.listener?.ended({ error, code: null }));
  child.on('exit', (code, signal) => {
    children.delete(child);
    if (children.size === 0) process.off('exit', endChildren);
    member.listener?.ended({ code, signal });
  });
  return member;
}

function endChildren(): void {
  for (const child of children) child.kill('SIGKILL');
}
