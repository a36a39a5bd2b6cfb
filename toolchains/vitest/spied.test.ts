import * as embedcore from 'embedcore';
import { expect, test, vi } from 'vitest';

import { check } from './work.mjs';

// Exports of a module cannot be replaced, but Vitest can wrap them all.
vi.mock('embedcore', { spy: true });

test('a second file uses the package at the same time', () => check(embedcore));

test('all is called as it is', () => {
  expect(embedcore.prepareText({ nodeId: 'a', signature: '', summary: 'text' })).toBe('Summary: text');
});

test('and seen', () => {
  vi.mocked(embedcore.prepareText).mockClear();
  embedcore.prepareText({ nodeId: 'a', signature: '', summary: 'text' });
  expect(embedcore.prepareText).toHaveBeenCalledOnce();
});

test('and can be told to do something else', () => {
  vi.mocked(embedcore.prepareText).mockReturnValueOnce('mocked');
  expect(embedcore.prepareText({ nodeId: 'a', signature: '', summary: 'text' })).toBe('mocked');
});
