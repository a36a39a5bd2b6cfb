import { jest } from '@jest/globals';

jest.unstable_mockModule('embedcore', () => ({ prepareText: () => 'mocked' }));

test('the package can be mocked', async () => {
  expect((await import('embedcore')).prepareText({})).toBe('mocked');
});
