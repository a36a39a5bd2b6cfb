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
  'similar-images.mjs': /^1\.00 {2}sunset\n(-?\d\.\d\d {2}.*\n){3}$/,
  'enrichment-worker.mjs': /^first run: 8 functions, 0 of them known; the model was asked 16 times\nsecond run: 8 functions, 8 of them known; the model was asked 0 times\n$/,
  'best-of-n.mjs': /^★ {2}0\.\d{3} .* In the m\n(.*\n)*✗ {4}–.*\(no answer\)\n\nCandidate 1 wins by 0\.\d{3}; its CCI is 0\.\d{3}, admissible from 0\.65\.\nAsked again: .* 1[0-9] saved/m,
  'council.mjs': /planners: writer ✓, painter ✓, composer ✓, dreamer \(too late\)\n\n\{(.*\n)*agreement 0\.\d\d, by section:\n(.*\n)* {2}0\.33 {2}audio\.tempo {2}✗ 60 \/ 60 \/ 72$/m,
  'image-captions.mjs': /^red\.png: a picture of 70 bytes\ngrey\.png: .*bytes\ncopy of red\.png: a picture of 70 bytes \(known\)\n$/,
  'five-hosts.mjs': /^(host \d: 30 pages in 34 tries, at most [1-3] at a time; p50 .*\n){5}150 pages\n$/,
  'queue.mjs': /^(400 vectors, 0 of them known; every worker did some: true|There is no redis-server .*)\n$/,
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
