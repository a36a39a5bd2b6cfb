// What many machines share, measured on one: the shared tier and the queue. `node benchmark/shared.mjs --help`.

import { existsSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { count, main, PlainError, repoRoot } from './lib.mjs';
import { growth, kills } from './shared/queue.mjs';
import { startRedis } from './shared/redis.mjs';
import { generators, lookups } from './shared/tier.mjs';

const usage = `node benchmark/shared.mjs [--only NAMES] [options]

On a Redis server of its own; contenders in turns, medians of --rounds (3). --only names some, by commas:

  lookups     getMany of 1000 vectors that only the server has, and 1000 one by one, against ioredis
  generators  --rows (2000) texts by a generator with --model (../shared/models/minilm beside the repository, else the built-in one):
              computed, found on the server by a second machine, and with a server that cannot be reached
  growth      --annotations (20000) through a queue by 1, 2 and 4 worker processes, whose model is on a server and takes --ms (1) for a
              text, in chunks of --chunk (128); what a chunk costs beside its model. The figures of simulate-distributed.mjs.
  kills       --kills (50) workers are killed at random moments

--dimensions (384) of vectors, where no model says so.`;

const PARTS = { lookups, generators, growth, kills };
const NUMBERS = { rounds: 3, rows: 2000, annotations: 20_000, ms: 1, chunk: 128, kills: 50, dimensions: 384 };

/** What is printed at the end, and whether the goals were met. */
class Table {
  #rows = [];

  /** `goal`: least value, or `{ most }`. */
  add(what, took, beside, value, unit, goal) {
    const most = goal?.most;
    const met = goal === undefined ? '' : (most === undefined ? value >= goal : value <= most) ? 'yes' : 'NO';
    const wanted = goal === undefined ? '' : most === undefined ? `≥ ${goal}` : `≤ ${most}`;
    const shown = Number.isInteger(value) ? String(value) : value.toFixed(2);
    this.#rows.push([what, took, beside, `${shown} ${unit}`.trim(), wanted, met]);
  }

  note(text) {
    this.#rows.push([text]);
  }

  print() {
    const full = [['', 'took', 'beside', '', 'goal', 'met'], ...this.#rows];
    const widths = full[0].map((_, at) => Math.max(...full.filter((row) => row.length > 1).map((row) => row[at].length)));
    for (const row of full) console.log(row.length === 1 ? row[0] : row.map((cell, at) => cell.padEnd(widths[at])).join('  ').trimEnd());
  }
}

await main(async () => {
  let values;
  try {
    const numbers = Object.fromEntries(Object.entries(NUMBERS).map(([name, usual]) => [name, { type: 'string', default: String(usual) }]));
    ({ values } = parseArgs({ options: { ...numbers, only: { type: 'string', default: Object.keys(PARTS).join(',') }, model: { type: 'string' }, help: { type: 'boolean' } } }));
  } catch (error) {
    throw new PlainError(`${error.message}\n\n${usage}`);
  }
  if (values.help) return console.log(usage);
  const settings = Object.fromEntries(Object.keys(NUMBERS).map((name) => [name, count(values[name], `--${name}`)]));
  const parts = values.only.split(',');
  const unknown = parts.find((name) => !Object.hasOwn(PARTS, name));
  if (unknown !== undefined) throw new PlainError(`--only ${unknown}: there are ${Object.keys(PARTS).join(', ')}.`);
  const beside = join(repoRoot, '..', 'shared', 'models', 'minilm');
  const model = values.model ?? (existsSync(beside) ? beside : undefined);
  const [server, table] = [await startRedis(), new Table()];
  try {
    for (const name of parts) await PARTS[name](server, table, { ...settings, model });
    table.print();
    console.log(`load of this machine: ${loadavg().map((load) => load.toFixed(1)).join(', ')}`);
  } finally {
    server.stop();
  }
});
