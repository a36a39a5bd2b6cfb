'use strict';

const { doctor } = require('embedcore');

const { paint, plain, plural, size } = require('../terminal');
const { UsageError } = require('../usage');

const options = { json: { type: 'boolean' }, model: { type: 'string' }, cache: { type: 'string' }, 'cache-dir': { type: 'string' } };

async function run(rest, values) {
  if (rest.length > 0) throw new UsageError(`doctor takes no words, got ${rest.join(' ')}`);
  const report = await doctor({ modelPath: values.model, persistPath: values.cache, cacheDir: values['cache-dir'] });
  process.exitCode = report.ok ? 0 : 1;
  if (values.json) return console.log(JSON.stringify(report, null, 2));
  const color = paint(process.stdout);
  const line = (good, what, found) => console.log(`${good === null ? color('dim', '–') : good ? '✓' : color('red', '✗')} ${color('bold', what.padEnd(12))} ${plain(found)}`);
  const { processor, memory, engines, providers, devices, model, modelCache, hub, cache } = report;
  line(report.addon.error === null, 'embedcore', `${report.version}, Node.js ${report.node}, ${report.platform}${report.addon.error === null ? '' : `: ${report.addon.error}`}`);
  const cores = processor.cores === processor.machineCores ? plural(processor.cores, 'core') : `${processor.cores} of ${plural(processor.machineCores, 'core')}`;
  line(true, 'processor', `${processor.name ?? 'unknown'}, ${cores}${processor.instructionSets.length > 0 ? `: ${processor.instructionSets.join(' ')}` : ''}`);
  const free = memory.availableMB === null ? '' : `, ${memory.availableMB} free`;
  line(true, 'memory', `${memory.totalMB} MB${memory.limited ? ` of the machine's ${memory.machineMB}` : ''}${free}`);
  for (const { name, version, library, error } of engines) {
    line(error === null || name !== 'onnxruntime' ? (error === null ? true : null) : false, name, error ?? `${version ?? 'of an unknown version'}, ${library}`);
  }
  if (providers.length > 0) line(true, 'providers', providers.map(({ name }) => name).join(', '));
  line(devices.length > 0 ? true : null, 'devices', devices.length > 0 ? devices.map(({ name, driver }) => (driver === null ? name : `${name} (driver ${driver})`)).join(', ') : 'no graphics processor is known of');
  line(model.error === null, 'model', `${model.modelPath}: ${model.error ?? `${model.dimensions} values, loaded in ${model.loadMs} ms, a text in ${model.embedMs} ms`}`);
  line(modelCache.error === null && modelCache.writable, 'models', modelCache.error ?? `${plural(modelCache.models, 'model')}, ${size(modelCache.bytes)} in ${modelCache.directory}${modelCache.writable ? '' : ', which cannot be written'}`);
  const through = hub.proxy === null ? '' : ` through ${hub.proxy}`;
  line(hub.reachable, 'hub', hub.offline === null ? `${hub.endpoint ?? 'unknown'}${through}${hub.error === null ? '' : `: ${hub.error}`}` : `not asked, because of ${hub.offline}`);
  line(cache.ok, 'disk tier', cache.error === null ? `${cache.path}${values.cache === undefined ? ', which was a trial' : `, ${plural(cache.entries ?? 0, 'entry', 'entries')}`}` : `${cache.path}: ${cache.error}`);
  for (const { what, why, advice } of report.missing) console.log(`\n${color('yellow', plain(what))}: ${plain(why)}.\n  ${plain(advice)}`);
  console.log(`\n${report.ok ? 'Embedding works here.' : color('red', 'Embedding does not work here.')}`);
}

module.exports = { options, run };
