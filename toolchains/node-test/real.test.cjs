const assert = require('node:assert');
const { mock, test } = require('node:test');

const embedcore = require('embedcore');

test('the package works', async () => (await import('./work.mjs')).check(embedcore));

test('functions and methods can be mocked', async () => {
  mock.method(embedcore, 'prepareText', () => 'mocked');
  mock.method(embedcore.OptimizedEmbeddingGenerator.prototype, 'embed', async () => 'mocked');
  assert.equal(require('embedcore').prepareText({}), 'mocked');
  assert.equal(await new embedcore.OptimizedEmbeddingGenerator().embed(['a']), 'mocked');
  mock.restoreAll();
  assert.equal(embedcore.prepareText({ nodeId: 'a', summary: 'text' }), 'Summary: text');
});

test('exports can be replaced', () => {
  const { prepareText } = embedcore;
  embedcore.prepareText = () => 'replaced';
  assert.equal(require('embedcore').prepareText({}), 'replaced');
  embedcore.prepareText = prepareText;
});
