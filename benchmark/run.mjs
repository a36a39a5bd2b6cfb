// embedcore against what a user would pick instead, and against the floor: `node benchmark/run.mjs --help`.

import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, totalmem } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';

import { contenders } from './contenders/index.mjs';
import { PlainError, count, here, main, measure, median, readSettings, setUp } from './lib.mjs';
import { bars, svg, table } from './report.mjs';

const usage = `node benchmark/run.mjs [options]

  --model DIR      ONNX model laid out as on the hub      (default: ../shared/models/minilm)
  --corpus DIR     texts and reference vectors            (default: ../shared/corpus)
  --texts NAME     annotations | short | mixed            (default: annotations)
  --rows N         texts per run, spread over the file    (default: 500)
  --rounds N       runs of every contender                (default: 3)
  --only A,B       contenders whose name starts with A or B
  --python FILE    Python with requirements.txt installed (default: benchmark/.venv, else python3)
  --out FILE       results as JSON, with an SVG beside it (default: benchmark/results/NAME-N.json)

Contenders: ${contenders.map((c) => c.name).join(', ')}`;

await main(async () => {
  const settings = readSettings(usage, {
    rows: 500,
    rounds: { type: 'string', default: '3' },
    only: { type: 'string' },
    out: { type: 'string' },
  });
  const rounds = count(settings.rounds, '--rounds');
  const chosen = choose(settings.only);
  const bench = setUp(settings);

  if (!existsSync(join(here, 'node_modules'))) console.error('The peers are not installed: run "npm ci" in benchmark/ first.\n');
  const [load] = loadavg();
  if (load > 1) console.error(`This machine is busy (load ${load.toFixed(1)}): wall times, and so the ratios too, mostly show who was
scheduled. Texts per CPU second hold up better; repeat on a quiet machine before believing a difference.\n`);

  const { runs, skipped } = await race(chosen, rounds, bench);
  const results = chosen.filter(({ name }) => runs.has(name)).map((contender) => summarise(contender, runs));
  if (results.length === 0) throw new PlainError('No contender could be measured.');

  const title = `${settings.texts}, ${bench.texts.length} texts, ${rounds} ${rounds === 1 ? 'round' : 'rounds'}`;
  console.log(`\n${title}\n\n${table(results)}\n\n${bars(results)}\n`);
  for (const line of bestBatch(results)) console.log(line);
  for (const { name, reason } of skipped) console.log(`not measured: ${name} (${reason})`);
  save(settings, title, {
    createdAt: new Date().toISOString(),
    machine: { ...machine(), loadBefore: load },
    texts: settings.texts,
    rows: bench.texts.length,
    rounds,
    contenders: results,
    skipped,
  });
});

function choose(only) {
  if (!only) return contenders;
  const prefixes = only.split(',').filter(Boolean);
  const unknown = prefixes.filter((prefix) => !contenders.some(({ name }) => name.startsWith(prefix)));
  if (unknown.length || !prefixes.length) {
    throw new PlainError(`--only ${only}: no contender's name starts with "${unknown[0] ?? ''}". Known: ${contenders.map((c) => c.name).join(', ')}.`);
  }
  return contenders.filter(({ name }) => prefixes.some((prefix) => name.startsWith(prefix)));
}

/** A B C A B C …, so that a machine that drifts drifts for all. Who fails once is out, and his reason is kept. */
async function race(chosen, rounds, bench) {
  const runs = new Map();
  const skipped = [];
  for (let round = 1; round <= rounds; round++) {
    for (const contender of chosen) {
      if (skipped.some(({ name }) => name === contender.name)) continue;
      process.stderr.write(`round ${round}/${rounds}  ${contender.label.padEnd(44)}`);
      try {
        const run = await measure(contender, bench);
        runs.set(contender.name, [...(runs.get(contender.name) ?? []), run]);
        process.stderr.write(`${run.textsPerSecond.toFixed(1).padStart(8)} texts/s${run.exit === 0 ? '' : `  (then ended with ${run.exit})`}\n`);
      } catch (error) {
        if (!(error instanceof PlainError)) throw error;
        runs.delete(contender.name);
        skipped.push({ name: contender.name, reason: error.message });
        process.stderr.write(`    skipped: ${error.message}\n`);
      }
    }
  }
  return { runs, skipped };
}

function summarise({ name, label }, runs) {
  const own = runs.get(name);
  const ours = runs.get('embedcore');
  const speeds = own.map((run) => run.textsPerSecond);
  const compared = own.map((run) => run.cosine).filter(Boolean);
  return {
    name,
    label,
    textsPerSecond: { median: median(speeds), min: Math.min(...speeds), max: Math.max(...speeds), rounds: speeds },
    // Within each round first: two runs minutes apart on a shared machine say little about each other.
    embedcoreRatio: ours ? median(own.map((run, round) => ours[round].textsPerSecond / run.textsPerSecond)) : null,
    textsPerCpuSecond: median(own.map((run) => run.textsPerCpuSecond)),
    // From the import to the vector of one text; those that are not ours to time have none.
    firstSeconds: own[0].firstSeconds === undefined ? null : median(own.map((run) => run.firstSeconds)),
    peakRssMB: Math.max(...own.map((run) => run.peakRssMB)),
    cosine: compared.length
      ? { min: Math.min(...compared.map((c) => c.min)), mean: median(compared.map((c) => c.mean)) }
      : null,
  };
}

function bestBatch(results) {
  const sizes = results.filter(({ name }) => name.startsWith('transformers.js'));
  if (sizes.length < 2) return [];
  const best = sizes.reduce((a, b) => (b.textsPerSecond.median > a.textsPerSecond.median ? b : a));
  return [`best batch of transformers.js: ${best.label}, ${best.textsPerSecond.median.toFixed(1)} texts/s${
    best.embedcoreRatio ? `; embedcore is ${best.embedcoreRatio.toFixed(2)} × as fast` : ''}`];
}

function machine() {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryMB: Math.round(totalmem() / 1024 ** 2),
    system: `${process.platform}-${process.arch}`,
    node: process.version,
  };
}

function save({ out, texts }, title, results) {
  const file = resolve(out ?? join(here, 'results', `${texts}-${results.rows}.json`));
  const chart = file.replace(/(\.json)?$/, '.svg');
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(results, null, 2)}\n`);
  writeFileSync(chart, svg(results.contenders, `Texts per second: ${title}`));
  console.log(`\nwritten: ${relative('', file)}, ${relative('', chart)}`);
}
