const embedcore = require('embedcore');
const { EmbeddingError, OptimizedEmbeddingGenerator } = embedcore;

// Jest has no import() in its realms without a flag: the program is read as a script.
const { check, leaveWork } = require('./work.cjs');

afterEach(() => jest.restoreAllMocks());

test('the package works', () => check(embedcore));

test('work may be cut short', async () => (await leaveWork(embedcore)).cleanup());

test('errors and vectors are those of this realm', async () => {
  const generator = new OptimizedEmbeddingGenerator();
  await expect(generator.initialize('/nowhere')).rejects.toBeInstanceOf(EmbeddingError);
  await expect(generator.embed(['a'])).rejects.toThrow(EmbeddingError);
  await generator.initialize();
  expect((await generator.embed(['a'])).data).toBeInstanceOf(Float32Array);
  expect(await generator.generateEmbeddings(['a'])).toEqual([expect.any(Array)]);
});

test('functions of the package can be spied on', () => {
  jest.spyOn(embedcore, 'prepareText').mockReturnValue('mocked');
  expect(require('embedcore').prepareText({})).toBe('mocked');
  jest.restoreAllMocks();
  expect(embedcore.prepareText({ nodeId: 'a', summary: 'text' })).toBe('Summary: text');
});

test('classes of the package can be replaced', () => {
  jest.spyOn(embedcore, 'OptimizedEmbeddingGenerator').mockImplementation(() => ({ isReady: () => 'mocked' }));
  expect(new embedcore.OptimizedEmbeddingGenerator().isReady()).toBe('mocked');
});

test('methods can be spied on', async () => {
  const spy = jest.spyOn(OptimizedEmbeddingGenerator.prototype, 'embed').mockResolvedValue('mocked');
  expect(await new OptimizedEmbeddingGenerator().embed(['a'])).toBe('mocked');
  expect(spy).toHaveBeenCalledWith(['a']);
  spy.mockRestore();
  await expect(new OptimizedEmbeddingGenerator().embed(['a'])).rejects.toMatchObject({ code: 'NOT_INITIALIZED' });
});

test('modules can be loaded anew', async () => {
  jest.resetModules();
  const again = require('embedcore');
  expect(again.OptimizedEmbeddingGenerator).not.toBe(OptimizedEmbeddingGenerator);
  await check(again);
  const error = await new again.OptimizedEmbeddingGenerator().embed(['a']).catch((error) => error);
  expect(error).toBeInstanceOf(EmbeddingError);
});
