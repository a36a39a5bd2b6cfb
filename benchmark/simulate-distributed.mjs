// What saturates first: a discrete-event model of a queue, its workers and its servers. `node benchmark/simulate-distributed.mjs --help`.
//
// A chunk goes its way past stations, each of which serves one after the other: the producer reads and adds it, the queue's server
// hands it out, a worker asks the shared tier, computes, writes and tells, the producer reads its vectors. How long each takes is
// measured by benchmark/shared.mjs on one machine; a network is a delay for each round trip and a station for bytes.

import { parseArgs } from 'node:util';

import { main, PlainError } from './lib.mjs';

const usage = `node benchmark/simulate-distributed.mjs [options]

  --vectors N     100e6         --workers N     1000         --concurrency N  2, chunks at a time of a worker
  --chunk N       256           --dimensions N  384          --rate N         500, texts a second of a worker
  --producers N   1             --servers N     1, of the shared tier; the queue has one of its own with --apart
  --pending N     8192, chunks of all producers under way
  --server-ms N, --producer-ms N, --worker-ms N: of a processor for a chunk of 128 and 384 values (benchmark/shared.mjs --only growth)
  --gigabits N    10, of each server's network
  --sample N      20000, chunks that are simulated; the rest goes on as they do`;

const NUMBERS = {
  vectors: 100e6, workers: 1000, concurrency: 2, chunk: 256, dimensions: 384, rate: 500, producers: 1, servers: 1, pending: 8192,
  'server-ms': 1.85, 'producer-ms': 4.3, 'worker-ms': 5.9, gigabits: 10, sample: 20_000,
};

/** The share of the server's time that is the queue's (scripts of BullMQ, events), by INFO commandstats; the rest reads and writes vectors (benchmark/shared.mjs). */
const QUEUE_SHARE = 0.33;
/** Chunk of the measurement. */
const MEASURED_CHUNK = 128;
/** Bytes of a text with its JSON, and of what is kept beside a vector. */
const TEXT_BYTES = 320;
const ENTRY_BYTES = 386;
const ROUND_TRIP_MS = 0.3;

/** Serves one after the other. */
class Station {
  free = 0;
  busy = 0;

  constructor(name) {
    this.name = name;
  }

  /** When what comes at `at` and takes `ms` is done. */
  serve(at, ms) {
    this.free = Math.max(this.free, at) + ms;
    this.busy += ms;
    return this.free;
  }
}

/** Events by time: a binary heap. */
class Events {
  #heap = [];

  push(at, act) {
    const heap = this.#heap;
    let i = heap.push({ at, act }) - 1;
    for (let up = (i - 1) >> 1; i > 0 && heap[up].at > at; up = (i - 1) >> 1) [heap[i], heap[up], i] = [heap[up], heap[i], up];
  }

  pop() {
    const heap = this.#heap;
    const [first, last] = [heap[0], heap.pop()];
    if (heap.length > 0) {
      heap[0] = last;
      for (let i = 0; ; ) {
        let least = i;
        for (const child of [2 * i + 1, 2 * i + 2]) if (child < heap.length && heap[child].at < heap[least].at) least = child;
        if (least === i) break;
        [heap[i], heap[least], i] = [heap[least], heap[i], least];
      }
    }
    return first;
  }

  get size() {
    return this.#heap.length;
  }
}

await main(async () => {
  let values;
  try {
    ({ values } = parseArgs({ options: { ...Object.fromEntries(Object.keys(NUMBERS).map((name) => [name, { type: 'string' }])), apart: { type: 'boolean', default: false }, help: { type: 'boolean' } } }));
  } catch (error) {
    throw new PlainError(`${error.message}\n\n${usage}`);
  }
  if (values.help) return console.log(usage);
  const given = Object.fromEntries(Object.entries(NUMBERS).map(([name, usual]) => [name, Number(values[name] ?? usual)]));
  const wrong = Object.entries(given).find(([, value]) => !(value > 0));
  if (wrong) throw new PlainError(`--${wrong[0]} must be a number above 0`);
  const { name, utilization, hours, rate } = simulate(given, values.apart);
  const entry = given.dimensions * 4 + ENTRY_BYTES;
  console.log(`${(given.vectors / 1e6).toFixed(0)} million vectors, ${given.workers} workers: ${hours.toFixed(2)} h, ${Math.round(rate).toLocaleString('en-US')} texts/s of ${(given.workers * given.rate).toLocaleString('en-US')} that the workers could do`);
  for (const [station, share] of Object.entries(utilization)) console.log(`  ${station.padEnd(28)} ${(share * 100).toFixed(0).padStart(3)} % busy${station === name ? '  ← saturates first' : ''}`);
  console.log(`  the shared tier holds ${((given.vectors * entry) / 1e9 / given.servers).toFixed(0)} GB on each of ${given.servers}, about half of it with vectorPrecision: 'f16'`);
});

function simulate({ vectors, workers, concurrency, chunk, dimensions, rate, producers, servers, pending, 'server-ms': serverMs, 'producer-ms': producerMs, 'worker-ms': workerMs, gigabits, sample }, apart) {
  const scale = chunk / MEASURED_CHUNK;
  const bytesMs = (bytes) => (bytes * 8) / (gigabits * 1e6);
  const queueMs = serverMs * QUEUE_SHARE * scale;
  const tierMs = (serverMs * (1 - QUEUE_SHARE) * scale) / 2;
  const queue = new Station('queue server');
  const tiers = Array.from({ length: servers }, (_, i) => (i === 0 && !apart ? queue : new Station('tier server')));
  const [queueNet, tierNets] = [new Station('network of the queue'), tiers.map(() => new Station('network of the tier'))];
  const sources = Array.from({ length: producers }, () => new Station('producer'));
  const machines = Array.from({ length: workers }, () => new Station('worker'));
  const events = new Events();
  const total = Math.min(Math.ceil(vectors / chunk), Math.max(sample, workers * concurrency * 8));
  const waiting = [];
  const idle = [];
  let [added, done, end] = [0, 0, 0];
  const vectorBytes = chunk * (dimensions * 4 + 60);
  /** Goes from station to station; at each it waits for its turn when it is there, not before. */
  const pass = (at, [first, ...rest], then) => {
    if (!first) return then(at);
    const [station, ms, delay = 0] = first;
    events.push(station.serve(at, ms) + delay, (now) => pass(now, rest, then));
  };
  const texts = bytesMs(chunk * TEXT_BYTES);
  const add = (at) => {
    if (added >= total) return;
    const source = sources[added++ % producers];
    pass(at, [[source, (producerMs * scale) / 2], [queueNet, texts, ROUND_TRIP_MS / 2], [queue, queueMs / 2]], (now) => {
      waiting.push(source);
      hand(now);
    });
  };
  const hand = (at) => {
    if (waiting.length === 0 || idle.length === 0) return;
    const [source, machine, which] = [waiting.shift(), idle.shift(), Math.floor(Math.random() * servers)];
    const [tier, net] = [tiers[which], tierNets[which]];
    // One chunk is computed while the other's vectors are on their way.
    const computeMs = (chunk / rate) * 1000 * (0.9 + Math.random() * 0.2) + (workerMs * scale) / 4;
    const vectors = bytesMs(vectorBytes);
    pass(at, [[queue, queueMs / 2], [queueNet, texts, ROUND_TRIP_MS], [machine, computeMs], [net, vectors, ROUND_TRIP_MS], [tier, tierMs]], (kept) => {
      idle.push(machine);
      hand(kept);
      pass(kept + ROUND_TRIP_MS, [[tier, tierMs], [net, vectors, ROUND_TRIP_MS], [source, (producerMs * scale) / 2]], (over) => {
        done++;
        end = over;
        add(over);
      });
    });
  };
  for (const machine of machines) for (let i = 0; i < concurrency; i++) idle.push(machine);
  for (let i = 0; i < Math.min(pending, total); i++) add(0);
  while (events.size > 0) {
    const { at, act } = events.pop();
    act(at);
  }
  const share = (stations) => stations.reduce((sum, station) => sum + station.busy, 0) / stations.length / end;
  const utilization = {
    workers: share(machines),
    [apart ? 'queue server' : 'server of queue and tier']: share([queue]),
    ...((apart || servers > 1) && { 'servers of the tier': share(tiers.filter((tier) => tier !== queue)) }),
    'network of the queue server': share([queueNet]),
    'network of the tier': share(tierNets),
    producers: share(sources),
  };
  const [name] = Object.entries(utilization).reduce((most, each) => (each[1] > most[1] ? each : most));
  const perSecond = (done * chunk) / (end / 1000);
  return { name, utilization, rate: perSecond, hours: vectors / perSecond / 3600 };
}
