'use strict';

const { PerformanceDashboard } = require('embedcore');

const { paint, plain } = require('../terminal');
const { UsageError, hideKey, onPort, queueOf } = require('../usage');

/** Where the dashboard is, unless something else is there. */
const PORT = 4040;

const options = {
  port: { type: 'string' },
  host: { type: 'string' },
  'allow-host': { type: 'string', multiple: true },
  'api-key': { type: 'string' },
  queue: { type: 'string' },
  'queue-name': { type: 'string' },
  shared: { type: 'string' },
};

async function dashboard(rest, values) {
  const { port, host, 'allow-host': allowedHosts, 'api-key': apiKey = process.env.EMBEDCORE_API_KEY } = values;
  hideKey(values);
  if (rest.length > 1) throw new UsageError(`Expected one snapshot, got ${rest.join(' ')}`);
  const queue = watched(rest, values);
  const serve = (at) => {
    const options = { port: at, keepAlive: true, ...(host !== undefined && { host }), ...(allowedHosts && { allowedHosts }), apiKey };
    return rest.length > 0 ? PerformanceDashboard.serveSnapshot(rest[0], options) : new PerformanceDashboard().serve(options);
  };
  const server = await onPort(port, PORT, serve);
  const color = paint(process.stdout);
  console.log(`${rest.length > 0 ? plain(rest[0]) : 'The dashboard'} is at ${color('cyan', server.url)} until you press Ctrl-C`);
  if (queue) console.log(color('dim', `  It shows the queue, its workers and the shared tier at ${plain(queue)}`));
  else if (rest.length === 0) console.log(color('dim', '  It shows this process alone. Open a snapshot on the page, or have your own program serve it: new PerformanceDashboard().serve()'));
  process.once('SIGINT', () => server.close().then(() => process.exit(0)));
}

/** The queue that is shown: the page alone would not keep it. */
let watching;

/** Has the page show a queue, if one was asked for; gives where that is. */
function watched(rest, values) {
  if (values.queue === undefined) {
    for (const name of ['queue-name', 'shared']) if (values[name] !== undefined) throw new UsageError(`--${name} belongs to --queue`);
    return undefined;
  }
  if (rest.length > 0) throw new UsageError('A snapshot shows what was; leave it out to watch a queue');
  const { EmbeddingQueue } = require('embedcore/queue');
  const { connection, name, shared, shown } = queueOf(values);
  watching = new EmbeddingQueue({ connection, name, cache: { shared: { url: shared } } });
  return shown;
}

module.exports = { options, run: dashboard };
