import { invalid, requireString, requireWhole, show } from './input';
import { getGlobalMonitor, PerformanceMonitor } from './monitor';
import { isInstance, optionReader } from './options';

/** Options of {@link monitored}. */
export interface MonitoredOptions {
  /** What the operation is called. Default: `Class.method`. */
  name?: string;
  /** Default: the global one. */
  monitor?: PerformanceMonitor;
  /** Items of a call, by its arguments. Default 1. */
  batchSize?: (...args: any[]) => number;
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
 * gives or throws is passed on as it is. Of a generator, the call is measured and not what is done with it.
 *
 * `@monitored()`, `@monitored('name')` or `@monitored({ name, monitor, batchSize: (texts) => texts.length })`.
 */
export function monitored(nameOrOptions: string | MonitoredOptions = {}): MonitoredDecorator {
  const { name: given, monitor, batchSize } = readOptions(typeof nameOrOptions === 'string' ? { name: nameOrOptions } : nameOrOptions);
  if (given !== undefined) requireString('The name', given);
  if (monitor !== undefined && !isInstance(monitor, PerformanceMonitor, 'monitor')) throw invalid(`monitor is ${show(monitor)}, not a PerformanceMonitor`);
  if (batchSize !== undefined && typeof batchSize !== 'function') throw invalid(`batchSize is ${show(batchSize)}, not a function of the arguments`);

  const wrap = (method: (...args: any[]) => unknown, key: string | symbol) => {
    let name = given;
    const wrapped = function (this: unknown, ...args: unknown[]): unknown {
      name ??= `${ownerOf(this, key, wrapped)}${String(key)}`;
      const items = batchSize?.(...args);
      const timer = (monitor ?? getGlobalMonitor()).startTimer(name);
      const end = { batchSize: items === undefined ? 1 : requireWhole('batchSize', items) };
      const fail = (error: unknown) => void timer.stop({ error: error ?? new Error(String(error)) });
      let result: unknown;
      try {
        result = method.apply(this, args);
      } catch (error) {
        fail(error);
        throw error;
      }
      const then = (result as PromiseLike<unknown> | null | undefined)?.then;
      if (typeof then === 'function') then.call(result, () => timer.stop(end), fail);
      else timer.stop(end);
      return result;
    };
    Object.defineProperty(wrapped, 'name', { value: method.name, configurable: true });
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

/** `Class.` of the class that has the method, which may be a base of the one that `self` is of. */
function ownerOf(self: unknown, key: string | symbol, method: unknown): string {
  for (let owner = self; owner !== null && owner !== undefined; owner = Object.getPrototypeOf(owner)) {
    const own = Object.getOwnPropertyDescriptor(owner, key);
    if (own?.value !== method) continue;
    const holder = typeof owner === 'function' ? owner : (owner as { constructor?: unknown }).constructor;
    const name = typeof holder === 'function' ? holder.name : '';
    return name ? `${name}.` : '';
  }
  return '';
}
