import { fork, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { EmbeddingError, MemoryLimitError, messageOf } from '../call/errors';
import { onAbort } from '../call/limits';
import { timeOut } from './function-runner';
import { buffersOf, isResponse, reassemble, type Request, type Response, type WireAnswer } from './wire';

/** How long a worker waits for more work before it ends, in milliseconds. */
const IDLE_MS = 2000;
/** How long a worker may take to load a module, at most and with the shortest `timeoutMs`, in milliseconds. */
const LOAD_MS = 30_000;
const SHORTEST_LOAD_MS = 5000;

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
  /** The functions that it has loaded. */
  readonly loaded: Set<string>;
  /** Who is told; exchanged for every request. */
  listener: { message(response: Response): void; ended(ending: Ending): void } | undefined;
}

/** How one request is to be run. */
export interface RunOptions {
  /** Kills the worker when it is aborted. */
  signal: AbortSignal;
  /** Longest time from the start of the work; loading the module before has a time of its own. */
  timeoutMs: number | undefined;
  /** Whether buffers are moved instead of copied. */
  move: boolean;
}

/** The worker was killed because its time was over. */
export const TIMED_OUT = Symbol('timed out');

/**
 * What came of a request. `lost`: the worker ended without an answer; an error, or {@link TIMED_OUT}. `unsent`: it could not be
 * sent, as the platform says.
 */
export type Outcome = { answers: WireAnswer[] } | { lost: unknown } | { unsent: unknown };

/**
 * Worker threads or child processes, which are started when they are needed and end when they are idle. None of them
 * keeps the process alive unless it works.
 */
export class WorkerPool {
  readonly #size: number;
  /** Whether the workers are processes. */
  readonly processes: boolean;
  readonly #idle: { member: Member; timer: NodeJS.Timeout }[] = [];
  readonly #members = new Set<Member>();
  readonly #waiting: (() => void)[] = [];
  #closed = false;

  constructor(size: number, processes: boolean) {
    this.#size = size;
    this.processes = processes;
  }

  /** Workers that there are now, and requests that wait for one. */
  get counts(): { workers: number; waiting: number } {
    return { workers: this.#members.size, waiting: this.#waiting.length };
  }

  /**
   * Has a request answered by a worker. Rejects where the function cannot be loaded (`INVALID_ARGUMENT`) or not in time
   * (`TIMED_OUT`), where `signal` is aborted, and where the pool is closed (`CLOSED`).
   */
  async run(request: Omit<Request, 'tellStart'>, options: RunOptions): Promise<Outcome> {
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
        const member = this.processes ? processMember() : threadMember();
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
function converse(member: Member, request: Omit<Request, 'tellStart'>, { signal, timeoutMs, move }: RunOptions): Promise<End> {
  const key = `${request.name} ${request.module}`;
  const loads = !member.loaded.has(key);
  return new Promise((resolve) => {
    let timer: NodeJS.Timeout | undefined;
    let started = false;
    const within = (ms: number, late: () => End['outcome']) => {
      clearTimeout(timer);
      timer = setTimeout(() => end(late(), false), ms);
    };
    const end = (outcome: End['outcome'], reusable: boolean) => {
      clearTimeout(timer);
      forget();
      member.listener = undefined;
      resolve({ outcome, reusable });
    };
    const forget = onAbort(signal, () => end({ error: signal.reason }, false));
    member.hold(true);
    member.listener = {
      ended: (ending) => end({ lost: died(request, ending) }, false),
      message(response) {
        if ('answers' in response) return end(response, true);
        if ('refused' in response) return end({ error: notLoaded(request, reassemble(response.refused)) }, true);
        if ('unread' in response) return end({ lost: unread(request, response.unread) }, true);
        if (started) return;
        started = true;
        member.loaded.add(key);
        clearTimeout(timer);
        if (timeoutMs !== undefined) within(timeoutMs, () => ({ lost: TIMED_OUT }));
      },
    };
    if (loads) {
      const limit = Math.max(timeoutMs ?? LOAD_MS, SHORTEST_LOAD_MS);
      within(limit, () => ({ error: notLoadedInTime(request, limit) }));
    }
    try {
      member.send({ ...request, tellStart: loads || timeoutMs !== undefined }, move ? buffersOf(request.items) : []);
    } catch (error) {
      end({ unsent: error }, true);
    }
  });
}

/** What a request is about, for those who tell of it. */
type Subject = Pick<Request, 'module' | 'name' | 'indexes'>;

function notLoaded({ module, name }: Subject, cause: unknown): EmbeddingError {
  const message = `Could not load the function \`${name}\` of ${module}: ${messageOf(cause)}`;
  return new EmbeddingError('INVALID_ARGUMENT', message, { cause, details: { module, name } });
}

function notLoadedInTime({ module, name }: Subject, limit: number): EmbeddingError {
  const message = `${module} was not loaded within ${limit} ms: see to it that nothing in it waits for ever before \`${name}\` can be called, or raise timeoutMs`;
  return timeOut(message, { module, name, timeoutMs: limit });
}

function itemsOf({ indexes }: Subject): string {
  return indexes.length === 1 ? `item ${indexes[0]}` : `items ${indexes[0]} to ${indexes.at(-1)}`;
}

function unread(request: Subject, reason: string): EmbeddingError {
  const details = { index: request.indexes[0], count: request.indexes.length };
  return new EmbeddingError('INVALID_ARGUMENT', `The worker could not read ${itemsOf(request)}: ${reason} Pass plain data`, { details });
}

function died(request: Subject, { error, code, signal }: Ending): Error {
  const { indexes } = request;
  const what = itemsOf(request);
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
    loaded: new Set(),
    listener: undefined,
    send: (request, moved) => worker.postMessage(request, moved),
    kill: () => worker.terminate(),
    hold: (held) => (held ? worker.ref() : worker.unref()),
  };
  // Its modules have the same port.
  worker.on('message', (message) => isResponse(message) && member.listener?.message(message));
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
    loaded: new Set(),
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
  child.on('message', (message) => isResponse(message) && member.listener?.message(message));
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
