import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { EmbeddingError, messageOf } from './errors';

/** SQLite's name for a database without a file, which is refused by whoever wants one. */
export const NO_FILE = ':memory:';

/**
 * What an option that names a file or a directory means now, whatever the working directory becomes: an absolute path. A
 * file URL is its path, `~/` the home directory. What is no path is left to whoever checks it.
 */
export function pathNow(value: unknown, option: string): unknown {
  const path = plainPath(value, option);
  if (typeof path !== 'string' || path === '' || path === NO_FILE) return path;
  try {
    return resolve(path);
  } catch (cause) {
    const reason = `${path} cannot be looked for: the current directory is not there any more`;
    throw new EmbeddingError('INVALID_CONFIG', `Invalid option \`${option}\`: ${reason}`, { cause, details: { option } });
  }
}

/** The same of an argument: `undefined` for what is no path. */
export function argumentPath(what: string, value: unknown): string | undefined {
  try {
    const path = pathNow(value, what);
    return typeof path === 'string' && path !== '' ? path : undefined;
  } catch (thrown) {
    const { cause } = thrown as EmbeddingError;
    throw new EmbeddingError('INVALID_ARGUMENT', `${what} is of no use: ${messageOf(thrown).replace(/^Invalid option `[^`]*`: /, '')}`, { cause });
  }
}

/** The same without the working directory: for what may be something else than a path, such as the id of a model. */
export function plainPath(value: unknown, option: string): unknown {
  if (value instanceof URL || (typeof value === 'string' && value.startsWith('file:'))) {
    try {
      const { search, hash } = new URL(value);
      if (search !== '' || hash !== '') throw new Error('it has a query or a fragment');
      return fileURLToPath(value);
    } catch (cause) {
      const reason = `${String(value)} is a URL that stands for no file (${messageOf(cause)}): pass a path, or a file URL`;
      throw new EmbeddingError('INVALID_CONFIG', `Invalid option \`${option}\`: ${reason}`, { cause, details: { option } });
    }
  }
  if (typeof value !== 'string' || !/^~(?=$|[/\\])/.test(value)) return value;
  return join(homedir(), value.slice(1));
}
