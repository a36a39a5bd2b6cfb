// What does the generator's cache save, and what does it cost? `node benchmark/rerun.mjs --help`.

import { rmSync } from 'node:fs';
import { join } from 'node:path';

import { openGenerator } from './contenders/embedcore.mjs';
import { main, loadTexts, median, readSettings, temporaryDirectory } from './lib.mjs';

const usage = `node benchmark/rerun.mjs [--model DIR] [--corpus DIR] [--texts NAME] [--rows N] [--rounds N]

Embeds N annotations (default 1000), again unchanged, again with 1 % of them changed, and again in a new generator on
the same file. Then embeds texts that are all new, with and without the cache in turns.`;

await main(async () => {
  const settings = readSettings(usage, { rows: 1000, rounds: { type: 'string', default: '4' } });
  const { texts } = loadTexts(settings);
  const annotations = texts.map((summary, i) => ({ nodeId: `n${i}`, signature: `f${i}()`, summary, sourceSnippet: '' }));
  const persistPath = join(temporaryDirectory(), 'cache.sqlite');
  const cached = () => openGenerator({ modelPath: settings.model, cache: { persistPath } });

  let generator = await cached();
  await generator.embed(texts.slice(0, 8).map((text) => `warm ${text}`), { bypassCache: true });
  const first = await seconds(() => generator.generateEmbeddings(annotations));
  show('first run', first, first, annotations.length);
  show('unchanged', await best(5, () => generator.generateEmbeddings(annotations)), first, annotations.length);
  const prepared = annotations.map((annotation) => generator.prepareText(annotation));
  await generator.embed(prepared);
  show('unchanged, embed(texts)', await best(5, () => generator.embed(prepared)), first, annotations.length);
  const changed = annotations.map((annotation, i) => (i % 100 === 50 ? { ...annotation, signature: `g${i}()` } : annotation));
  show('1 % changed', await seconds(() => generator.generateEmbeddings(changed)), first, annotations.length);
  await generator.cleanup();
  generator = await cached();
  show('unchanged, from the file', await seconds(() => generator.generateEmbeddings(annotations)), first, annotations.length);
  await generator.cleanup();
  rmSync(persistPath, { force: true });

  // All new, in turns, so that both see the same machine.
  generator = await cached();
  const sample = texts.slice(0, Math.min(200, texts.length));
  const ratios = [];
  for (let round = 0; round < Number(settings.rounds); round++) {
    const fresh = (side) => sample.map((text) => `${round}${side} ${text}`);
    const times = {};
    for (const side of round % 2 ? ['plain', 'cached'] : ['cached', 'plain']) {
      times[side] = await seconds(() => generator.embed(fresh(side), { bypassCache: side === 'plain' }));
    }
    ratios.push(times.cached / times.plain);
  }
  console.log(`${'all new, with : without'.padEnd(28)}${median(ratios).toFixed(3)} (${ratios.map((ratio) => ratio.toFixed(3)).join(', ')})`);
  await generator.cleanup();
});

async function seconds(work) {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

async function best(rounds, work) {
  let best = Infinity;
  for (let round = 0; round < rounds; round++) best = Math.min(best, await seconds(work));
  return best;
}

function show(what, time, first, count) {
  const each = `${((time / count) * 1e6).toFixed(1)} µs each`;
  console.log(`${what.padEnd(28)}${time.toFixed(3)} s  ${each.padStart(16)}  ${((time / first) * 100).toFixed(2)} % of the first run, ${(first / time).toFixed(0)} × as fast`);
}
