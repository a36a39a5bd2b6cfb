// A process with a result cache: what it does, its arguments name.
const { InferenceCache } = require('../..');
const [how, persistPath, from = '0'] = process.argv.slice(2);

const value = (i) => ({ i, text: `${'result '.repeat(50)}${i}`, list: [i, i + 1] });
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

(async () => {
  const cache = new InferenceCache({ persistPath });
  if (how === 'write') {
    // Until somebody kills it. What it says was flushed must survive.
    for (let i = Number(from); ; i++) {
      await cache.set(`prompt ${i}`, value(i), { tags: [`tag ${i % 7}`] });
      if (i % 50 === 49) {
        await cache.flush();
        say(i);
      }
    }
  } else if (how === 'compute') {
    let computed = 0;
    for (let i = 0; i < 20; i++) {
      const compute = async () => {
        computed++;
        await new Promise((resolve) => setTimeout(resolve, 30));
        return value(i);
      };
      const answer = await cache.getOrCompute(`prompt ${i}`, { type: 'api' }, compute);
      if (JSON.stringify(answer.value) !== JSON.stringify(value(i))) throw new Error('wrong');
    }
    say({ computed });
  } else if (how === 'set') {
    for (let i = Number(from); i < Number(from) + 200; i++) await cache.set(`prompt ${i}`, value(i));
    process.stdin.resume();
    say('set');
    await new Promise((resolve) => process.stdin.once('data', resolve));
    process.stdin.destroy();
    let right = 0;
    for (let i = 0; i < 400; i++) {
      const found = await cache.get(`prompt ${i}`);
      if (JSON.stringify(found?.value) === JSON.stringify(value(i))) right++;
    }
    say({ right, errors: cache.getStats().disk.errors });
  } else {
    await cache.set('prompt', value(1));
    process.exitCode = 7;
  }
})();
