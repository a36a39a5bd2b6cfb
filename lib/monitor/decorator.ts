import { types } from 'node:util';

import { invalid, requireString, requireWhole, show } from '../call/input';
import { isInstance, optionReader } from '../call/options';
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

const readOptions = optionReader<MonitoredOptions>({ name: true, monitor: true, batchSize: true });

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
  const { name: given, monitor, batchSize } = readOptions(typeof nameOrOptions === 'string' ? { name: nameOrOptions } : nameOrOptions);
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
        const timer = own.startTimer(name);
        const fail = (error: unknown) => void timer.stop({ error: error ?? new Error(String(error)) });
        let result: unknown;
        try {
          result = Reflect.apply(method, self, args);
        } catch (error) {
          fail(error);
          throw error;
        }
        if (!isPlainPromise(result)) {
          timer.stop({ batchSize: items });
          return result;
        }
        // Another promise, because who looks at one has handled its rejection, which is the caller's to do.
        const settled = result.then(
          (value) => {
            timer.stop({ batchSize: items });
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
    if (!isMethod) throw invalid('@monitored() decorates methods only');
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
    insideOf(monitor).failed(name, `batchSize: ${String((error as Error | null)?.message ?? error)}`);
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
