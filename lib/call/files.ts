import { readFileSync, statSync } from 'node:fs';

/** The bytes of a file. @throws an `Error` where it cannot be read, is longer than `most` bytes, or is a device or a FIFO, which may never end. */
export function readRegular(path: string, most: number): Buffer {
  const status = statSync(path);
  if (!status.isFile()) throw new Error('it is not a file');
  if (status.size > most) throw new Error(`it has ${status.size} bytes, more than ${most}`);
  return readFileSync(path);
}
