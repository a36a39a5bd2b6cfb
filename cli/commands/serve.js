'use strict';

const { Bar, paint, plain, size } = require('../terminal');
const { UsageError, generatorOf, numeric } = require('../usage');

const options = {
  model: { type: 'string' },
  port: { type: 'string' },
  host: { type: 'string' },
  'api-key': { type: 'string' },
  alias: { type: 'string', multiple: true },
  cache: { type: 'string' },
  'memory-limit': { type: 'string' },
  'max-batch-items': { type: 'string' },
  'max-body-mb': { type: 'string' },
  'max-queued-requests': { type: 'string' },
  'max-queued-mb': { type: 'string' },
  'drain-seconds': { type: 'string' },
};

/** Numbers of serve: the option of the server that each is, and how much of its unit is one. */
const SERVE_NUMBERS = {
  port: ['port', 1],
  'max-batch-items': ['maxBatchItems', 1],
  'max-body-mb': ['maxBodyMB', 1],
  'max-queued-requests': ['maxQueuedRequests', 1],
  'max-queued-mb': ['maxQueuedMB', 1],
  'drain-seconds': ['drainTimeoutMs', 1000],
};

async function serve(rest, values) {
  if (rest.length > 0) throw new UsageError(`serve takes no arguments, got ${rest.join(' ')}`);
  // Loaded by this command only: the others need no HTTP.
  const { EmbeddingServer } = require('embedcore/server');
  const options = { generator: { ...generatorOf(values), ...(values.cache && { cache: { persistPath: values.cache } }) } };
  for (const [name, [option, unit]] of Object.entries(SERVE_NUMBERS)) if (values[name] !== undefined) options[option] = numeric(name, values[name]) * unit;
  if (values['memory-limit'] !== undefined) options.generator.memoryLimit = numeric('memory-limit', values['memory-limit']);
  const apiKey = values['api-key'] ?? process.env.EMBEDCORE_API_KEY;
  const others = { host: values.host, aliases: values.alias, apiKey };
  for (const [option, value] of Object.entries(others)) if (value !== undefined) options[option] = value;
  let server;
  try {
    server = new EmbeddingServer(options);
  } catch (error) {
    throw inFlags(error);
  }

  const bar = new Bar(process.stderr);
  let stopping;
  for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143]]) {
    process.on(signal, () => {
      // The second one ends the process at once.
      if (stopping) process.exit(code);
      bar.end();
      console.error('Finishing what runs …');
      stopping = server.close().then(() => process.exit(0));
    });
  }
  const progressCallback = ({ file, loaded, total, progressTotal }) =>
    bar.fill(progressTotal / 100, `${Math.floor(progressTotal)} %  ${plain(file)}  ${size(loaded)} of ${size(total)}`);
  try {
    await server.listen({ progressCallback });
  } catch (error) {
    bar.end();
    if (stopping) return stopping;
    throw error;
  }
  bar.end();
  const color = paint(process.stdout);
  console.log(`${color('bold', plain(server.models.join(', ')))} is served at ${color('cyan', `${server.url}/v1`)} until you press Ctrl-C`);
}

/** An error about an option, in the words of the command line. */
function inFlags(error) {
  const [flag] = Object.entries(SERVE_NUMBERS).find(([, [option]]) => option === error.details?.option) ?? [];
  return flag ? new UsageError(error.message.replace(/^.*?`: /, `--${flag}: `)) : error;
}

module.exports = { options, run: serve };
