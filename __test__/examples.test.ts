import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, test } from 'vitest';

import { root } from './support';

/** What each example says that it does. */
const SAYS: Record<string, RegExp> = {
  'search.mjs': /^0\.\d\d {2}split\n/,
  'cache.mjs': /first run: 0 of 500 .*\nsecond run: 500 of 500 /,
  'stream.mjs': /^2000 embeddings, .* peak memory [1-4]?\d\d MB$/m,
  'near-duplicates.mjs': /^0\.\d\d {2}Read the file and return the lines of it\.\n {6}Reads a file and returns its lines\.\n0\.\d\d {2}Sorts the users by name\.\n {6}Sorts users by their name\.\n$/,
  'watch.mjs': /^infer .*p99 .*\n(.*\n)*40 % of texts from the cache; the page: http:\/\/127\.0\.0\.1:\d+\/$/m,
};

test('no example is forgotten', () => {
  expect(readdirSync(join(root, 'examples')).filter((file) => file.endsWith('.mjs')).sort()).toEqual(Object.keys(SAYS).sort());
});

test.for(Object.keys(SAYS))('%s', async (file) => {
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [join(root, 'examples', file)], { timeout: 60_000 });
  expect(stdout).toMatch(SAYS[file]!);
  expect(stderr).toBe('');
});
