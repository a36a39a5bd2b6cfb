// Does embedding leak, and what does it need at its peak? `node benchmark/memory.mjs --help`.

import { memoryUsage } from 'node:process';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { openGenerator } from './contenders/embedcore.mjs';
import { contenders } from './contenders/index.mjs';
import { main, measure, readSettings, setUp } from './lib.mjs';

const usage = `node benchmark/memory.mjs [--model DIR] [--corpus DIR] [--texts NAME] [--rows N]

Embeds the same N texts (default 500) ten times in one process and shows the memory after each round; then the peak of
one fresh process against that of transformers.js in batches of 32.`;

const rounds = 10;
const warmRounds = 2;

await main(async () => {
  const bench = setUp(readSettings(usage, { rows: 500 }));

  console.log(`The same ${bench.texts.length} texts, ${rounds} rounds, one process:`);
  const afterRound = await embedRepeatedly(bench);
  const settled = afterRound[warmRounds - 1];
  const growth = (afterRound.at(-1) / settled - 1) * 100;
  console.log(`growth after round ${warmRounds}: ${growth >= 0 ? '+' : ''}${growth.toFixed(1)} %\n`);

  console.log('Peak of one fresh process:');
  for (const name of ['embedcore', 'transformers.js-32']) {
    const contender = contenders.find((c) => c.name === name);
    const { peakRssMB } = await measure(contender, bench);
    console.log(`  ${contender.label.padEnd(30)} ${peakRssMB.toFixed(0).padStart(6)} MB`);
  }
});

/** MB resident after each round. Every round must run the model, so nothing may be answered from a cache. */
async function embedRepeatedly({ model, texts }) {
  const generator = await openGenerator({ modelPath: model });
  const afterRound = [];
  for (let round = 1; round <= rounds; round++) {
    await generator.embed(texts);
    collectGarbage();
    afterRound.push(memoryUsage.rss() / 1024 ** 2);
    console.log(`  round ${String(round).padStart(2)} ${afterRound.at(-1).toFixed(1).padStart(8)} MB`);
  }
  await generator.cleanup();
  return afterRound;
}

/** The question is what native code keeps, so what JavaScript merely has not freed yet is freed first. */
function collectGarbage() {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
}
