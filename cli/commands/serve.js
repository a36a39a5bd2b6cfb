'use strict';

const { Bar, paint, plain, size } = require('../terminal');
const { UsageError, hideKey, numeric } = require('../usage');

const options = {
  model: { type: 'string' },
  port: { type: 'string' },
  host: { type: 'string' },
  'allow-host': { type: 'string', multiple: true },
  'api-key': { type: 'string' },
  alias: { type: 'string', multiple: true },
  cache: { type: 'string' },
  'memory-limit': { type: 'string' },
  'max-batch-items': { type: 'string' },
  'max-body-mb': { type: 'string' },
  'max-queued-requests': { type: 'string' },
  'max-queued-mb': { type: 'string' },
  'max-connections': { type: 'string' },
  'drain-seconds': { type: 'string' },
};

/** What a flag is among the options of the server (or, after `generator.`, of its generator), and how much of its unit is one. */
const FLAGS = {
  model: { option: 'generator.modelPath' },
  cache: { option: 'generator.cache.persistPath' },
  'memory-limit': { option: 'generator.memoryLimit', unit: 1 },
  host: { option: 'host' },
  'allow-host': { option: 'allowedHosts' },
  alias: { option: 'aliases' },
  'api-key': { option: 'apiKey' },
  port: { option: 'port', unit: 1 },
  'max-batch-items': { option: 'maxBatchItems', unit: 1 },
  'max-body-mb': { option: 'maxBodyMB', unit: 1 },
  'max-queued-requests': { option: 'maxQueuedRequests', unit: 1 },
  'max-queued-mb': { option: 'maxQueuedMB', unit: 1 },
  'max-connections': { option: 'maxConnections', unit: 1 },
  'drain-seconds': { option: 'drainTimeoutMs', unit: 1000 },
};

/** The options that the flags stand for. */
function optionsOf(values) {
  const options = { generator: {} };
  const given = { ...values };
  if (process.env.EMBEDCORE_API_KEY !== undefined) given['api-key'] ??= process.env.EMBEDCORE_API_KEY;
  for (const [flag, { option, unit }] of Object.entries(FLAGS)) {
    if (given[flag] === undefined) continue;
    const path = option.split('.');
    const last = path.pop();
    const home = path.reduce((object, name) => (object[name] ??= {}), options);
    // Thousandths may be off by a rounding error, which is no millisecond.
    home[last] = unit === undefined ? given[flag] : unit === 1 ? numeric(flag, given[flag]) : Math.round(numeric(flag, given[flag]) * unit);
  }
  return options;
}

/** An error about an option, in the words of the command line. */
function inFlags(error, values) {
  const { option, least, most } = error.details ?? {};
  if (option === undefined || !error.message.startsWith('Invalid option')) return error;
  const name = (path) => path.split('.').at(-1);
  const [flag, { unit = 1 } = {}] = Object.entries(FLAGS).find(([, known]) => name(known.option) === name(option)) ?? [];
  if (flag === undefined) return error;
  const shown = flag === 'api-key' && values[flag] === undefined ? 'EMBEDCORE_API_KEY' : `--${flag}`;
  if (unit !== 1) return new UsageError(`${shown}: ${values[flag]} is not a number from ${least / unit} to ${most / unit}`);
  return new UsageError(error.message.replace(/^.*?`: /, `${shown}: `));
}

async function serve(rest, values) {
  hideKey(values);
  if (rest.length > 0) throw new UsageError('serve takes no arguments: a value with blanks needs quotes');
  // Loaded by this command only: the others need no HTTP.
  const { EmbeddingServer } = require('embedcore/server');
  const options = optionsOf(values);
  let server;
  try {
    server = new EmbeddingServer(options);
  } catch (error) {
    throw inFlags(error, values);
  }

  const bar = new Bar(process.stderr);
  let stopping;
  for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143]]) {
    process.on(signal, () => {
      // The second one ends the process at once.
      if (stopping) process.exit(code);
      bar.end();
      console.error('Finishing what runs …');
      stopping = server.close().then(
        () => process.exit(0),
        (error) => {
          console.error(plain(error.message));
          process.exit(1);
        },
      );
    });
  }
  const progressCallback = ({ file, loaded, total, progressTotal }) =>
    bar.fill(progressTotal / 100, `${Math.floor(progressTotal)} %  ${plain(file)}  ${size(loaded)} of ${size(total)}`);
  try {
    await server.listen({ progressCallback });
  } catch (error) {
    bar.end();
    if (stopping) return stopping;
    throw inFlags(error, values);
  }
  bar.end();
  const color = paint(process.stdout);
  console.log(`${color('bold', plain(server.models.join(', ')))} is served at ${color('cyan', `${server.url}/v1`)} until you press Ctrl-C`);
}

module.exports = { options, run: serve };
