import { messageOf } from '../call/errors';
import { types } from 'node:util';

import { invalid, requireString, requireWhole, show } from '../call/input';
import { isInstance, optionReader, type Given, type Names } from '../call/options';
import { getGlobalMonitor, insideOf, PerformanceMonitor } from './monitor';

/** Longest name of an operation, in characters; see `src/metrics.rs`. */
const MAX_NAME = 256;

/** Options of {@link monitored}. */
export interface MonitoredOptions {
  /** What the operation is called. Default: `Class.method`. */
  name?: string | undefined;
  /** Default: the global one. */
  monitor?: PerformanceMonitor | undefined;
  /** Items of a call, by its arguments. Default 1. */
  batchSize?: ((...args: any[]) => number) | undefined;
}

/** Options of {@link profiled}. */
export interface ProfiledOptions extends MonitoredOptions {
  /** Told of each call that took at least `slowMs`. What it throws is ignored. */
  onProfile?: ((profile: CallProfile) => void) | undefined;
  /** Milliseconds, from 0. Default 0: told of every call. */
  slowMs?: number | undefined;
}

/** What a call has taken. */
export interface CallProfile {
  /** What the operation is called. */
  name: string;
  /** Milliseconds. */
  duration: number;
  /** Milliseconds that the processors were busy with the whole process meanwhile. */
  cpu: number;
  /** Bytes that the process held more, or less, afterwards. */
  memoryGrowth: number;
  success: boolean;
}

const MONITORED: Names<MonitoredOptions> = { name: true, monitor: true, batchSize: true };
const readOptions = optionReader(MONITORED);
const readProfiled = optionReader<ProfiledOptions>({ ...MONITORED, onProfile: true, slowMs: true });

/** Told, when a call begins, of its operation; gives what is told when it has ended. */
type Watch = (monitor: PerformanceMonitor, name: string) => (duration: number, success: boolean) => void;

/** What decorates a method, in the standard's way and in TypeScript's older one (`experimentalDecorators`). */
export interface MonitoredDecorator {
  <This, Args extends any[], Result>(
    method: (this: This, ...args: Args) => Result,
    context: ClassMethodDecoratorContext<This, (this: This, ...args: Args) => Result>,
  ): (this: This, ...args: Args) => Result;
  <T>(target: object, key: string | symbol, descriptor: TypedPropertyDescriptor<T>): void;
}

/**
 * A decorator that measures every call of a method, until its promise is settled where it gives one. What the method
 * gives or throws is passed on as it is; a promise, as one that settles as the method's own.
 *
 * Of what only looks like a promise (a query that is sent when it is awaited, say, or a promise with methods of its own),
 * and of a generator, the call is measured and not what is done with it. A `batchSize` that throws, or gives no whole
 * number, counts as 1 item, and is told among the monitor's latest errors.
 *
 * `@monitored()`, `@monitored('name')` or `@monitored({ name, monitor, batchSize: (texts) => texts.length })`.
 */
export function monitored(nameOrOptions: string | MonitoredOptions = {}): MonitoredDecorator {
  return decorator(readOptions(typeof nameOrOptions === 'string' ? { name: nameOrOptions } : nameOrOptions));
}

/**
 * {@link monitored}, which records time and memory, and beside it the time that the processors were busy with this process
 * while the method ran: as the operation `name.cpu`. Other work of the process at that time counts there, too.
 *
 * `@profiled()`, `@profiled('name')` or `@profiled({ name, monitor, batchSize, slowMs: 500, onProfile: (profile) => … })`.
 */
export function profiled(nameOrOptions: string | ProfiledOptions = {}): MonitoredDecorator {
  const { onProfile, slowMs = 0, ...given } = readProfiled(typeof nameOrOptions === 'string' ? { name: nameOrOptions } : nameOrOptions);
  if (onProfile !== undefined && typeof onProfile !== 'function') throw invalid(`onProfile is ${show(onProfile)}, not a function of the profile`);
  if (typeof slowMs !== 'number' || !(slowMs >= 0)) throw invalid(`slowMs is ${show(slowMs)}, not a number of milliseconds from 0`, { option: 'slowMs' });
  return decorator(given, (monitor, name) => {
    const [before, held] = [process.cpuUsage(), process.memoryUsage.rss()];
    return (duration, success) => {
      const { user, system } = process.cpuUsage(before);
      const cpu = (user + system) / 1000;
      monitor.record(`${[...name].slice(0, MAX_NAME - '.cpu'.length).join('')}.cpu`, cpu, { success });
      if (!onProfile || duration < slowMs) return;
      try {
        onProfile({ name, duration, cpu, memoryGrowth: process.memoryUsage.rss() - held, success });
      } catch {
        // Who is told is no reason to fail the call.
      }
    };
  });
}

function decorator({ name: given, monitor, batchSize }: Given<MonitoredOptions>, watch?: Watch): MonitoredDecorator {
  if (given !== undefined) {
    const length = [...requireString('The name', given)].length;
    if (length === 0 || length > MAX_NAME) throw invalid(`The name has ${length} characters: pass 1 to ${MAX_NAME}`);
  }
  if (monitor !== undefined && !isInstance(monitor, PerformanceMonitor, 'monitor')) throw invalid(`monitor is ${show(monitor)}, not a PerformanceMonitor`);
  if (batchSize !== undefined && typeof batchSize !== 'function') throw invalid(`batchSize is ${show(batchSize)}, not a function of the arguments`);

  const wrap = (method: (...args: any[]) => unknown, key: string | symbol) => {
    let name = given;
    // A proxy has the properties of the method, those that other decorators have put there included.
    const wrapped = new Proxy(method, {
      apply(_, self: unknown, args: unknown[]): unknown {
        name ??= nameOf(self, key, wrapped);
        const own = monitor ?? getGlobalMonitor();
        const items = itemsOf(own, name, batchSize, args);
        const over = watch?.(own, name);
        const timer = own.startTimer(name);
        const succeed = () => {
          const duration = timer.stop({ batchSize: items });
          over?.(duration, true);
        };
        const fail = (error: unknown) => {
          const duration = timer.stop({ error: error ?? new Error(String(error)) });
          over?.(duration, false);
        };
        let result: unknown;
        try {
          result = Reflect.apply(method, self, args);
        } catch (error) {
          fail(error);
          throw error;
        }
        if (!isPlainPromise(result)) {
          succeed();
          return result;
        }
        // Another promise, because who looks at one has handled its rejection, which is the caller's to do.
        const settled = result.then(
          (value) => {
            succeed();
            return value;
          },
          (error: unknown) => {
            fail(error);
            throw error;
          },
        );
        return settled;
      },
    });
    return wrapped;
  };

  const decorate = (first: unknown, second: unknown, third?: TypedPropertyDescriptor<unknown>) => {
    const context = typeof second === 'object' && second !== null ? (second as ClassMethodDecoratorContext) : undefined;
    const method = context ? first : third?.value;
    const isMethod = typeof method === 'function' && (!context || context.kind === 'method');
    if (!isMethod) throw invalid(`@${watch ? 'profiled' : 'monitored'}() decorates methods only`);
    if (context) return wrap(method as () => unknown, context.name);
    third!.value = wrap(method as () => unknown, second as string | symbol);
    return undefined;
  };
  return decorate as MonitoredDecorator;
}

/**
 * Whether it is a promise and nothing else: not of a derived class, which may do something when it is looked at, and
 * without properties of its own, which another promise would not have. Asks nothing of what is no promise.
 */
function isPlainPromise(value: unknown): value is Promise<unknown> {
  if (!types.isPromise(value) || Reflect.ownKeys(value).length > 0) return false;
  // One of another realm has another prototype, as far below the end of the chain.
  const prototype = Object.getPrototypeOf(value) as object | null;
  const base = prototype && (Object.getPrototypeOf(prototype) as object | null);
  return base !== null && Object.getPrototypeOf(base) === null;
}

/** Items of a call. What is wrong with the function that tells is no reason to fail it. */
function itemsOf(monitor: PerformanceMonitor, name: string, batchSize: MonitoredOptions['batchSize'], args: unknown[]): number {
  if (!batchSize) return 1;
  try {
    return requireWhole('batchSize', batchSize(...args));
  } catch (error) {
    insideOf(monitor).failed(name, `batchSize: ${messageOf(error)}`);
    return 1;
  }
}

/** `Class.method`, as much of it as a name may have. */
function nameOf(self: unknown, key: string | symbol, method: unknown): string {
  let owner = '';
  try {
    owner = ownerOf(self, key, method);
  } catch {
    // It does not want to be looked at.
  }
  return [...`${owner}${String(key)}`].slice(0, MAX_NAME).join('') || '(no name)';
}

/** `Class.` of the class that has the method, which may be a base of the one that `self` is of. */
function ownerOf(self: unknown, key: string | symbol, method: unknown): string {
  for (let owner = self; owner !== null && owner !== undefined; owner = Object.getPrototypeOf(owner)) {
    const own = Object.getOwnPropertyDescriptor(owner, key);
    if (own?.value !== method) continue;
    const holder = typeof owner === 'function' ? owner : (owner as { constructor?: unknown }).constructor;
    const name: unknown = typeof holder === 'function' ? holder.name : '';
    return typeof name === 'string' && name !== '' ? `${name}.` : '';
  }
  return '';
}
