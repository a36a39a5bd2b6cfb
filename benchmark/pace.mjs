// Is what the generator learns about batches as good as the best fixed setting, and what does learning cost?
// `node benchmark/pace.mjs --help`.

import { openGenerator } from './contenders/embedcore.mjs';
import { count, loadTexts, main, median, readSettings } from './lib.mjs';

const usage = `node benchmark/pace.mjs [--model DIR | builtin] [--corpus DIR] [--texts NAME] [--rows N] [--rounds N]

Embeds parts of the texts, N (default 60) in each of the rounds (default 12), by generators in one process that take
turns: one that learns, under the governor of memory; one with the fixed budget of 512 tokens and no strategies; and ones
with at most so many texts in a batch. Shows the speed of each relative to the second, as the median of the rounds.`;

await main(async () => {
  const settings = readSettings(usage, { rows: 2000, part: { type: 'string', default: '60' }, rounds: { type: 'string', default: '12' } });
  const [part, rounds] = [count(settings.part, '--part'), count(settings.rounds, '--rounds')];
  const { texts } = loadTexts(settings);
  const learns = await openGenerator({ modelPath: settings.model });
  const fixed = await openGenerator({ modelPath: settings.model, batchOptimizer: false, memoryProcessor: false });
  const contenders = [
    { label: 'learned', embed: (some) => learns.embed(some) },
    { label: 'fixed, 512 tokens', embed: (some) => fixed.embed(some) },
    ...[1, 4, 16].map((batchSize) => ({ label: `fixed, at most ${batchSize} texts`, embed: (some) => fixed.embed(some, { batchSize }) })),
  ].map((contender) => ({ ...contender, times: [] }));
  for (let round = 0; round <= rounds; round++) {
    const some = Array.from({ length: part }, (_, i) => texts[(round * part + i) % texts.length]);
    // Another one begins each time; the first round warms up.
    for (let turn = 0; turn < contenders.length; turn++) {
      const contender = contenders[(turn + round) % contenders.length];
      const started = performance.now();
      await contender.embed(some);
      if (round > 0) contender.times.push(performance.now() - started);
    }
  }
  for (const { label, times } of contenders) {
    const ratio = median(times.map((time, round) => contenders[1].times[round] / time));
    console.log(`${label.padEnd(28)}${ratio.toFixed(3)} ×  ${((part / median(times)) * 1000).toFixed(0).padStart(7)} texts/s`);
  }
  for (const { maxTokens, batchSize, samples } of learns.getPerformanceMetrics().batchOptimizer.learned) {
    console.log(`  texts of up to ${String(maxTokens).padStart(4)} tokens: ${batchSize} of that length together, after ${samples} batches`);
  }
  await Promise.all([learns.cleanup(), fixed.cleanup()]);
});
