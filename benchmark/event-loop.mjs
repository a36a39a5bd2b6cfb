// Does the event loop stay free while texts are embedded? `node benchmark/event-loop.mjs --help`.

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

import { openGenerator } from './contenders/embedcore.mjs';
import { main, loadTexts, readSettings } from './lib.mjs';

const usage = `node benchmark/event-loop.mjs [--model DIR] [--corpus DIR] [--texts NAME] [--rows N]

Embeds N texts (default 5000) with each of the two calls and shows how late the event loop ran meanwhile.`;

const resolution = 10;

await main(async () => {
  const settings = readSettings(usage, { rows: 5000 });
  const { texts } = loadTexts(settings);
  const generator = await openGenerator({ modelPath: settings.model });
  await generator.embed(texts.slice(0, 32));

  console.log(`${texts.length} texts. A timer fires every ${resolution} ms; the figures are the ms between two firings, so`);
  console.log(`about ${resolution} of each is the timer itself, as the idle line shows.\n`);
  console.log(`${'delay, ms'.padEnd(28)}${['p50', 'p99', 'max', 'seconds'].map((head) => head.padStart(9)).join('')}`);
  await watch('idle, 2 seconds', () => sleep(2000));
  await watch('embed(texts)', () => generator.embed(texts));
  await watch('generateEmbeddings(texts)', () => generator.generateEmbeddings(texts));
  await generator.cleanup();
});

async function watch(label, work) {
  const delay = monitorEventLoopDelay({ resolution });
  delay.enable();
  const started = performance.now();
  await work();
  const seconds = (performance.now() - started) / 1000;
  // A stall that ends the work is only counted once the timer has fired again.
  await sleep(2 * resolution);
  delay.disable();
  const figures = [delay.percentile(50), delay.percentile(99), delay.max].map((ns) => ns / 1e6);
  console.log(`${label.padEnd(28)}${[...figures, seconds].map((n) => n.toFixed(1).padStart(9)).join('')}`);
}
