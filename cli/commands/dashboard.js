'use strict';

const { PerformanceDashboard } = require('embedcore');

const { paint, plain } = require('../terminal');
const { UsageError } = require('../usage');

/** Where the dashboard is, unless something else is there. */
const PORT = 4040;

const options = { port: { type: 'string' }, host: { type: 'string' }, 'allow-host': { type: 'string', multiple: true } };

async function dashboard(rest, { port, host, 'allow-host': allowedHosts }) {
  if (rest.length > 1) throw new UsageError(`Expected one snapshot, got ${rest.join(' ')}`);
  if (port !== undefined && !/^\d{1,5}$/.test(port)) throw new UsageError(`--port is ${port}, not a whole number from 0 to 65535`);
  const serve = (at) => {
    const options = { port: at, keepAlive: true, ...(host !== undefined && { host }), ...(allowedHosts && { allowedHosts }) };
    return rest.length > 0 ? PerformanceDashboard.serveSnapshot(rest[0], options) : new PerformanceDashboard().serve(options);
  };
  // A port that was not asked for may be another one.
  const server = await serve(Number(port ?? PORT)).catch((error) => {
    if (port !== undefined || error.details?.option !== 'port') throw error;
    return serve(0);
  });
  const color = paint(process.stdout);
  console.log(`${rest.length > 0 ? plain(rest[0]) : 'The dashboard'} is at ${color('cyan', server.url)} until you press Ctrl-C`);
  if (rest.length === 0) console.log(color('dim', '  It shows this process alone. Open a snapshot on the page, or have your own program serve it: new PerformanceDashboard().serve()'));
  process.once('SIGINT', () => server.close().then(() => process.exit(0)));
}

module.exports = { options, run: dashboard };
