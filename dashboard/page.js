// The page of a dashboard: what the server, or a file, says, drawn. Text of others goes into text nodes only.
'use strict';

const $ = (id) => document.getElementById(id);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---- numbers as a person reads them

const digits = (value, n = 3) => String(Number(value.toPrecision(n)));
const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const count = (value) => (value < 1e5 ? whole.format(value) : value < 1e6 ? `${digits(value / 1e3)}k` : value < 1e9 ? `${digits(value / 1e6)}M` : `${digits(value / 1e9)}G`);
const rate = (value) => (value >= 100 ? count(value) : digits(value));
const percent = (ratio) => `${digits(ratio * 100)} %`;
function time(ms) {
  if (ms === 0) return '0';
  if (ms < 1e-3) return `${digits(ms * 1e6)} ns`;
  if (ms < 1) return `${digits(ms * 1e3)} µs`;
  if (ms < 1e3) return `${digits(ms)} ms`;
  if (ms < 120e3) return `${digits(ms / 1e3)} s`;
  if (ms < 7.2e6) return `${digits(ms / 60e3)} min`;
  return ms < 172.8e6 ? `${digits(ms / 3.6e6)} h` : `${digits(ms / 86.4e6)} d`;
}
function size(bytes) {
  const unit = Math.min(4, Math.max(0, Math.floor(Math.log2(Math.max(1, bytes)) / 10)));
  return `${digits(bytes / 1024 ** unit)} ${['B', 'KB', 'MB', 'GB', 'TB'][unit]}`;
}
const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium', hour12: false });
const at = (ms) => (sameDay(ms) ? clock : moment).format(ms);
const sameDay = (ms) => new Date(ms).toDateString() === new Date().toDateString();

// ---- what is shown

/** The snapshot on the page. */
let shown;
let chosen;
/** Whether a file was opened here: then the server is not listened to. */
let opened = false;
let cyclesShown = 0;
const PAGE = 25;

/** Everything that a snapshot may lack, so that nothing below has to ask. A file may hold anything. */
function whatIsKnown(json) {
  if (json?.format !== 'embedcore-monitor') throw new Error('This file is no snapshot of embedcore');
  if (json.version !== 1) throw new Error(`This snapshot is of version ${json.version}; this page reads version 1`);
  const array = (value) => (Array.isArray(value) ? value.filter((one) => typeof one === 'object' && one !== null) : []);
  const number = (value, otherwise = 0) => (Number.isFinite(value) ? value : otherwise);
  const numbers = (one, ...names) => Object.fromEntries(names.map((name) => [name, number(one?.[name])]));
  const text = (value) => (typeof value === 'string' ? value : '');
  const date = (value) => Math.min(Math.max(number(value), 0), 8e15);
  const operation = (one) => ({
    name: text(one.name),
    ...numbers(one, 'count', 'errors', 'items', 'total', 'min', 'max', 'mean', 'p50', 'p95', 'p99', 'p999'),
    throughput: numbers(one.throughput, 'wholeRun', 'lastMinute'),
    memory: one.memory ? numbers(one.memory, 'before', 'after', 'peak') : null,
  });
  const cache = (one) => ({ type: text(one.type), ...numbers(one, 'hits', 'misses') });
  const cycle = (one) => ({
    id: text(one.id), status: text(one.status), startedAt: date(one.startedAt), duration: one.duration == null ? null : number(one.duration),
    ...numbers(one, 'llmCalls', 'cacheHits', 'validations', 'validationTime', 'fileOperations'),
    memory: one.memory ? numbers(one.memory, 'peak') : null,
  });
  const point = (one) => ({
    at: date(one.at), seconds: number(one.seconds, 1) || 1, operations: array(one.operations).map((each) => ({ name: text(each.name), ...numbers(each, 'count', 'errors', 'items', 'p50', 'p95', 'p99') })),
    caches: array(one.caches).map(cache), tiers: one.tiers ? numbers(one.tiers, 'memory', 'disk', 'shared', 'misses') : null,
    batchSize: one.batchSize ?? null, tokenBudget: one.tokenBudget ?? null, strategy: one.strategy == null ? null : text(one.strategy),
    memory: numbers(one.memory, 'process', 'used', 'limit'), panels: one.panels ?? {},
  });
  const cell = (value) => (typeof value === 'number' ? (Number.isFinite(value) ? value : null) : value == null ? null : String(value));
  const panel = (one) => ({
    title: text(one.title), lines: Object.keys(one.values ?? {}),
    tables: array(one.tables).map((each) => ({ title: text(each.title), columns: (Array.isArray(each.columns) ? each.columns : []).map(String), rows: (Array.isArray(each.rows) ? each.rows : []).filter(Array.isArray).map((row) => row.map(cell)) })),
  });
  const { summary } = json.cycles ?? {};
  return {
    takenAt: date(json.takenAt), startedAt: date(json.startedAt), machine: json.machine ? numbers(json.machine, 'processMemory', 'usedMemory', 'totalMemory', 'cpuUsage', 'cpuCores') : null,
    operations: array(json.operations).map(operation), caches: array(json.caches).map(cache),
    cycles: {
      summary: { ...numbers(summary, 'count', 'succeeded', 'failed', 'interrupted', 'active', 'llmCalls', 'cacheHits', 'cacheHitRatio', 'validations', 'fileOperations'), duration: summary?.duration ? numbers(summary.duration, 'p50', 'p95', 'p99') : null },
      recent: array(json.cycles?.recent).map(cycle), active: array(json.cycles?.active).map(cycle),
    },
    errors: array(json.errors).map((one) => ({ at: date(one.at), name: text(one.name), message: text(one.message) })),
    title: text(json.dashboard?.title) || 'embedcore', history: number(json.dashboard?.history, 900), saved: text(json.dashboard?.saved),
    timeline: array(json.dashboard?.timeline).map(point).sort((a, b) => a.at - b.at), point: json.point ? point(json.point) : null,
    panels: array(json.panels ?? json.dashboard?.panels).map(panel),
  };
}

function show(snapshot) {
  shown = snapshot;
  cyclesShown = PAGE;
  drawAll(true);
}

/** Adds what the server says is new. */
function add(news) {
  const { point, cycles, ...rest } = news;
  const recent = [...shown.cycles.recent, ...cycles.recent].slice(-10_000);
  const timeline = [...shown.timeline, point].slice(-shown.history);
  const { title, history } = shown;
  shown = { ...rest, title, history, saved: '', timeline, cycles: { ...cycles, recent } };
  drawAll(false);
}

let redraw = 0;
function drawAll(fresh) {
  if (fresh) {
    document.title = shown.title;
    $('title').textContent = shown.title;
  }
  // Once a frame, and not at all while nobody looks.
  cancelAnimationFrame(redraw);
  redraw = requestAnimationFrame(() => {
    drawChoice();
    drawTiles();
    drawTables();
    drawPanels();
    drawCharts();
    document.body.dataset.drawn = String(shown.takenAt);
  });
}

// ---- elements

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  const { data, ...rest } = properties;
  Object.assign(made, rest);
  Object.assign(made.dataset, data);
  made.append(...children);
  return made;
}

function drawTiles() {
  const { operations, caches, cycles, machine, timeline, takenAt, startedAt } = shown;
  const sum = (all, what) => all.reduce((total, one) => total + what(one), 0);
  const runs = sum(operations, (one) => one.count);
  const errors = sum(operations, (one) => one.errors);
  const [hits, misses] = [sum(caches, (one) => one.hits), sum(caches, (one) => one.misses)];
  const tiers = tierTotals(timeline);
  const latest = timeline.at(-1);
  const memory = machine?.processMemory ?? latest?.memory.process;
  const limit = latest?.memory.limit ?? machine?.totalMemory;
  // One operation's: an item that passes five of them would count five times.
  const busy = operations.find(({ name }) => name === chosen);
  const all = hits + misses > 0 ? [hits, misses] : [hitsOf(tiers), tiers.misses];
  const tiles = [
    busy && ['throughput', 'Items a second', busy.throughput.lastMinute, rate(busy.throughput.lastMinute), `${busy.name}, last minute`],
    busy && ['latency', '95 % take at most', busy.p95, time(busy.p95), busy.name],
    ['operations', 'Operations', runs, count(runs), `${count(operations.length)} ${operations.length === 1 ? 'kind' : 'kinds'}`],
    ['errors', 'Errors', errors, count(errors), runs > 0 ? `${percent(errors / runs)} of operations` : '', errors > 0 ? 'bad' : ''],
    all[0] + all[1] > 0 && ['hits', 'Cache hits', all[0] / (all[0] + all[1]), percent(all[0] / (all[0] + all[1])), `${count(all[0])} of ${count(all[0] + all[1])}`],
    memory && ['memory', 'Memory held', memory, size(memory), [limit && `of ${size(limit)}`, latest?.strategy].filter(Boolean).join(', ')],
    cycles.summary.count + cycles.summary.active > 0 && ['cycles', 'Cycles', cycles.summary.count, count(cycles.summary.count), `${count(cycles.summary.active)} running`],
    ['uptime', 'Measured for', takenAt - startedAt, time(takenAt - startedAt), machine ? `CPU ${digits(machine.cpuUsage, 2)} % of ${machine.cpuCores} cores` : ''],
  ].filter(Boolean);
  $('tiles').replaceChildren(...tiles.map(([id, name, value, text, below, tone = '']) =>
    element('div', {}, element('dt', { textContent: name }), element('dd', { id: `tile-${id}`, textContent: text, data: { value, tone } }), element('dd', { textContent: below, title: below }))));
}

function drawChoice() {
  const names = shown.operations.map(({ name }) => name);
  const select = $('operation');
  const busiest = shown.operations.reduce((best, one) => (!best || one.total > best.total ? one : best), undefined);
  if (!names.includes(chosen)) chosen = busiest?.name;
  const old = [...select.options].map(({ value }) => value);
  if (old.length !== names.length || old.some((name, i) => name !== names[i])) {
    select.replaceChildren(...names.map((name) => element('option', { value: name, textContent: name })));
  }
  select.value = chosen ?? '';
  select.parentElement.hidden = names.length === 0;
}

/** The parts that others have on this page: a chart of each one's values, and its tables. */
function drawPanels() {
  const titles = shown.panels.map(({ title }) => title);
  const box = $('panels');
  if (box.dataset.titles !== JSON.stringify(titles)) {
    for (const id of Object.keys(plots)) if (id.startsWith('panel-')) [plots[id].chart.destroy(), delete plots[id]];
    box.dataset.titles = JSON.stringify(titles);
    box.replaceChildren(...titles.map((title, i) => element('section', { className: 'card', id: `chart-panel-${i}` },
      element('h2', { textContent: title }), element('div', { className: 'plot' }), element('div', { className: 'tables' }))));
  }
  for (const [i, { tables }] of shown.panels.entries()) {
    const place = box.querySelector(`#chart-panel-${i} .tables`);
    if (place.children.length !== tables.length) {
      place.replaceChildren(...tables.map((_, t) => element('div', { className: 'scroll' }, element('h3'), element('table', { id: `panel-${i}-${t}` }))));
    }
    for (const [t, { title, columns, rows }] of tables.entries()) {
      place.children[t].firstChild.textContent = title;
      const shownCell = (value) => (value === null ? '' : typeof value === 'number' ? digits(value, 4) : value);
      table(`panel-${i}-${t}`, columns.map((name, c) => [name, (row) => shownCell(row[c] ?? null), (row) => row[c] ?? '']), rows, 'Nothing yet.');
    }
  }
}

/** The charts of those parts. */
function drawPanelCharts(waiting) {
  for (const [i, { title, lines }] of shown.panels.entries()) {
    document.querySelector(`#chart-panel-${i} .plot`).hidden = lines.length === 0;
    if (lines.length === 0) continue;
    const of = (name, what) => shown.timeline.map(({ panels }) => panels[title]?.[name]?.[what]).map((value) => (Number.isFinite(value) ? value : null));
    plot(`panel-${i}`, {
      series: lines.flatMap((name, hue) => [
        { label: name, values: of(name, 'value'), hue },
        { label: `${name}, low`, values: of(name, 'low'), hue, dash: [2, 4] }, { label: `${name}, high`, values: of(name, 'high'), hue, dash: [2, 4] },
      ]),
      format: (value) => digits(value), empty: waiting ?? 'Nothing yet.', free: true,
    });
  }
}

/** A table: columns are [heading, text of a row, number of it, class]. */
function table(id, columns, rows, nothing) {
  const head = element('tr', {}, ...columns.map(([name, , , kind = '']) => element('th', { textContent: name, className: kind, scope: 'col' })));
  const body = rows.map((row) => element('tr', {}, ...columns.map(([, text, value, kind = '']) => {
    const shownText = text(row);
    const cell = element('td', { className: kind });
    cell.append(shownText);
    if (value) cell.dataset.value = value(row);
    else if (typeof shownText === 'string') cell.title = shownText;
    return cell;
  })));
  if (rows.length === 0) body.push(element('tr', {}, element('td', { colSpan: columns.length, className: 'none', textContent: nothing })));
  $(id).replaceChildren(element('thead', {}, head), element('tbody', {}, ...body));
}

function drawTables() {
  const number = (name, format = count, kind = '') => [({ [name]: value }) => format(value), ({ [name]: value }) => value, kind];
  const errors = ({ errors: value }) => (value > 0 ? element('span', { className: 'bad', textContent: count(value) }) : '0');
  table('operations', [
    ['Name', (row) => row.name], ['Count', ...number('count')], ['Errors', errors, (row) => row.errors], ['Items', ...number('items')],
    ['p50', ...number('p50', time)], ['p95', ...number('p95', time)], ['p99', ...number('p99', time)], ['p99.9', ...number('p999', time, 'spare')],
    ['Max', ...number('max', time)], ['Mean', ...number('mean', time, 'spare')],
    ['Items/s', (row) => rate(row.throughput.lastMinute), (row) => row.throughput.lastMinute], ['Items/s, whole run', (row) => rate(row.throughput.wholeRun), (row) => row.throughput.wholeRun, 'spare'],
    ...(shown.operations.some((row) => row.memory) ? [['Memory peak', (row) => (row.memory ? size(row.memory.peak) : ''), (row) => row.memory?.peak ?? '', 'spare']] : []),
  ], shown.operations, 'Nothing was recorded yet.');

  const tiers = tierTotals(shown.timeline);
  const lookups = hitsOf(tiers) + tiers.misses;
  const rows = shown.caches.map((one) => ({ ...one, ratio: one.hits + one.misses > 0 ? one.hits / (one.hits + one.misses) : 0 }));
  if (lookups > 0) {
    for (const [type, hits] of [['Tier: memory', tiers.memory], ['Tier: disk', tiers.disk], ...(tiers.shared > 0 ? [['Tier: shared', tiers.shared]] : [])]) rows.push({ type, hits, misses: lookups - hits, ratio: hits / lookups });
  }
  const bar = ({ ratio }) => {
    const inner = element('i');
    inner.style.width = `${ratio * 100}%`;
    return element('span', {}, percent(ratio), element('span', { className: 'bar' }, inner));
  };
  table('caches', [['Type', (row) => row.type], ['Hits', ...number('hits')], ['Misses', ...number('misses')], ['Hit ratio', bar, (row) => row.ratio]], rows, 'No look-up was counted yet.');

  const list = shown.errors.slice(-50).reverse();
  $('errors').replaceChildren(...(list.length > 0 ? list : [null]).map((error) => error
    ? element('li', {}, element('time', { textContent: at(error.at), dateTime: new Date(error.at).toISOString() }), element('b', { textContent: error.name }), error.message)
    : element('li', { className: 'none', textContent: 'No error was recorded.' })));
  drawCycles();
}

function drawCycles() {
  const { summary, recent, active } = shown.cycles;
  const all = [...recent, ...active].reverse();
  const parts = summary.count + summary.active > 0 && [
    `${count(summary.succeeded)} succeeded`, `${count(summary.failed)} failed`, summary.interrupted > 0 && `${count(summary.interrupted)} interrupted`, `${count(summary.active)} running`,
    summary.llmCalls > 0 && `${percent(summary.cacheHitRatio)} of ${count(summary.llmCalls)} calls cached`, summary.duration && `p50 ${time(summary.duration.p50)}, p95 ${time(summary.duration.p95)}`,
  ];
  $('cycle-summary').textContent = parts ? parts.filter(Boolean).join(' · ') : '';
  const longest = all.reduce((most, { duration }) => Math.max(most, duration ?? 0), 0);
  const names = { inProgress: 'running' };
  const took = ({ duration }) => {
    if (duration === null) return '';
    const inner = element('i');
    inner.style.width = `${longest > 0 ? (duration / longest) * 100 : 0}%`;
    return element('span', {}, time(duration), element('span', { className: 'bar' }, inner));
  };
  const number = (name, kind = '') => [({ [name]: value }) => count(value), ({ [name]: value }) => value, kind];
  table('cycles', [
    ['Id', (row) => row.id], ['Status', ({ status }) => element('span', { className: 'state', textContent: names[status] ?? status, data: { state: status } }), (row) => row.status, 'words'],
    ['Started', (row) => at(row.startedAt), (row) => row.startedAt, 'spare'], ['Time', took, (row) => row.duration ?? ''], ['Calls', ...number('llmCalls')], ['Cached', ...number('cacheHits')],
    ['Validations', ...number('validations', 'spare')], ['Files', ...number('fileOperations', 'spare')], ['Memory peak', ({ memory }) => (memory ? size(memory.peak) : ''), (row) => row.memory?.peak ?? '', 'spare'],
  ], all.slice(0, cyclesShown), 'No cycle was started yet.');
  const hidden = all.length - Math.min(all.length, cyclesShown);
  $('more').hidden = hidden === 0;
  $('more').textContent = `Show ${count(Math.min(hidden, 100))} more of ${count(hidden)}`;
}

function tierTotals(timeline) {
  const totals = { memory: 0, disk: 0, shared: 0, misses: 0 };
  for (const { tiers } of timeline) if (tiers) for (const name in totals) totals[name] += tiers[name];
  return totals;
}

const hitsOf = ({ memory, disk, shared }) => memory + disk + shared;

// ---- charts

const plots = {};
const HEIGHT = 200;

/** Round numbers of seconds, of bytes, and of things that there are no halves of. */
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800, 2592000, 31536000];
const BYTES = Array.from({ length: 44 }, (_, i) => 2 ** i);
const WHOLE = Array.from({ length: 13 }, (_, i) => [1, 2, 5].map((step) => step * 10 ** i)).flat();
const color = (index) => style(`--series-${Math.min(index, 6)}`);

/** What a chart shows: series are { label, values, unit, dash, scale }. */
function plot(id, { series, format, empty, marks = [], bars = false, right, top, steps, free = false }) {
  const box = document.querySelector(`#chart-${id} .plot`);
  const xs = shown.timeline.map((point) => point.at / 1000);
  const usable = series.filter(({ values }) => values.some((value) => value !== null));
  if (xs.length === 0 || usable.length === 0) {
    plots[id]?.chart.destroy();
    delete plots[id];
    if (box.dataset.empty !== empty) box.replaceChildren(element('p', { className: 'empty', textContent: empty }));
    box.dataset.empty = empty;
    return;
  }
  const data = [xs, ...usable.map(({ values }) => values)];
  const theme = document.documentElement.dataset.theme;
  const shape = JSON.stringify([theme, usable.map(({ label, dash, scale }) => [label, dash, scale])]);
  const old = plots[id];
  if (old?.shape === shape) {
    old.marks = marks;
    // Who has a closer look at some time keeps it until a double click.
    old.chart.setData(data, !old.zoomed);
    if (old.zoomed) old.chart.redraw();
    return;
  }
  old?.chart.destroy();
  delete box.dataset.empty;
  box.replaceChildren();
  const entry = { shape, marks };
  const [soft, grid] = [style('--soft'), style('--grid')];
  const axis = { stroke: soft, font: '11px system-ui, sans-serif', grid: { stroke: grid, width: 1 }, ticks: { show: false } };
  // While nobody points at a moment, the latest one is told.
  const value = (how) => (chart, pointed, series, index) => {
    const number = index == null ? chart.data[series].at(-1) : pointed;
    return number == null ? '–' : how(number);
  };
  const low = free ? (_, min, max) => (min === max ? [min - 1, max + 1] : uPlot.rangeNum(min, max, 0.08, true)) : top === undefined ? (_, __, max) => [0, max > 0 ? max * 1.08 : 1] : () => [0, top];
  entry.chart = new uPlot(
    {
      width: Math.max(200, box.clientWidth), height: HEIGHT,
      cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false }, sync: { key: 'time' } },
      scales: { x: { range: (_, min, max) => (min === max ? [min - 30, max + 30] : [min, max]) }, y: { range: low }, right: { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] } },
      axes: [
        { ...axis, size: 26, gap: 2, incrs: SECONDS, values: (_, ticks) => ticks.map((tick) => clock.format(tick * 1000)), space: 80 },
        { ...axis, size: 60, gap: 6, ...(steps && { incrs: steps }), values: (_, ticks) => ticks.map((tick) => format(tick)) },
        ...(usable.some(({ scale }) => scale === 'right') ? [{ ...axis, side: 1, scale: 'right', size: 52, gap: 6, grid: { show: false }, values: (_, ticks) => ticks.map((tick) => right(tick)) }] : []),
      ],
      series: [
        { label: 'Time', value: value((seconds) => at(seconds * 1000)) },
        ...usable.map(({ label, dash, tone, scale = 'y', hue }, index) => ({
          label, scale, dash, stroke: tone ? style(tone) : color(hue ?? index), width: 1.8, value: value(scale === 'right' ? right : format),
          ...(bars ? { paths: uPlot.paths.bars({ size: [0.8, 24] }), fill: (tone ? style(tone) : color(index)) + '55' } : {}),
          // A value between two gaps would be a line of no length.
          points: { show: !bars, size: 5, filter: (chart, at) => lonely(chart.data[at]) },
        })),
      ],
      hooks: { draw: [(chart) => drawMarks(chart, entry.marks)], setSelect: [({ select }) => select.width > 0 && (entry.zoomed = true)] },
    },
    data,
    box,
  );
  entry.chart.over.addEventListener('dblclick', () => (entry.zoomed = false));
  const canvas = box.querySelector('canvas');
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', box.parentElement.querySelector('h2').textContent);
  plots[id] = entry;
}

function lonely(values) {
  const all = [];
  for (let i = 0; i < values.length; i++) if (values[i] != null && values[i - 1] == null && values[i + 1] == null) all.push(i);
  return all;
}

/** Vertical lines with a word beside them. */
function drawMarks(chart, marks) {
  const { ctx, bbox } = chart;
  const ratio = devicePixelRatio || 1;
  let free = -Infinity;
  ctx.save();
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  ctx.strokeStyle = ctx.fillStyle = style('--warn');
  ctx.lineWidth = ratio;
  ctx.textAlign = 'left';
  ctx.textBaseline = 'alphabetic';
  for (const { at: seconds, text } of marks) {
    const x = Math.round(chart.valToPos(seconds, 'x', true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.setLineDash([3 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const width = ctx.measureText(text).width;
    const left = Math.min(x + 4 * ratio, bbox.left + bbox.width - width);
    // Words that would lie on each other are left out: the lines stay.
    if (left < free) continue;
    ctx.fillText(text, left, bbox.top + bbox.height - 7 * ratio);
    free = left + width + 8 * ratio;
  }
  ctx.restore();
}

function drawCharts() {
  const { timeline } = shown;
  const waiting = timeline.length === 0 ? (shown.saved || opened ? 'This snapshot has no history: take it with PerformanceDashboard.exportJson' : 'Waiting for the first interval …') : undefined;
  drawPanelCharts(waiting);
  const names = [...new Set(timeline.flatMap((point) => point.operations.map(({ name }) => name)))];
  const byName = timeline.map((point) => new Map(point.operations.map((one) => [one.name, one])));
  const items = (name) => byName.reduce((sum, operations) => sum + (operations.get(name)?.items ?? 0), 0);
  const busy = names.map((name) => [name, items(name)]).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
  const many = busy.length > 6 ? busy.slice(0, 5) : busy;
  const rest = busy.slice(many.length);
  const perSecond = (of) => timeline.map((point, i) => of.reduce((sum, name) => sum + (byName[i].get(name)?.items ?? 0), 0) / point.seconds);
  plot('throughput', {
    series: [...many.map((name) => ({ label: name, values: perSecond([name]) })), ...(rest.length > 0 ? [{ label: `${rest.length} others`, values: perSecond(rest) }] : [])],
    format: rate, empty: waiting ?? 'No operation has ended yet.',
  });

  const idle = waiting ?? (chosen === undefined ? 'No operation has ended yet.' : 'This operation has not run in this time.');
  const of = (what) => byName.map((operations) => operations.get(chosen) ?? null).map((one) => (one ? what(one) : null));
  document.querySelector('#chart-latency small').textContent = chosen === undefined ? '' : chosen;
  plot('latency', {
    series: ['p50', 'p95', 'p99'].map((name) => ({ label: name, values: of((one) => one[name]) })),
    format: time, empty: idle,
  });

  const changes = timeline.flatMap((point, i) => (i > 0 && point.strategy !== null && timeline[i - 1].strategy !== null && point.strategy !== timeline[i - 1].strategy ? [{ at: point.at / 1000, text: `→ ${point.strategy}` }] : []));
  plot('memory', {
    series: [
      { label: 'this process', values: timeline.map((point) => point.memory.process) }, { label: 'all in use', values: timeline.map((point) => point.memory.used) },
      { label: 'ceiling', values: timeline.map((point) => point.memory.limit || null), dash: [6, 4], tone: '--bad' },
    ],
    format: size, steps: BYTES, marks: changes, empty: waiting ?? '',
  });

  const lookups = new Map();
  for (const point of timeline) for (const { type, hits, misses } of point.caches) lookups.set(type, (lookups.get(type) ?? 0) + hits + misses);
  const types = [...lookups.keys()].sort((a, b) => lookups.get(b) - lookups.get(a) || (a < b ? -1 : 1)).slice(0, 4).sort();
  const share = (part, all) => (all > 0 ? (part / all) * 100 : null);
  const ofType = (type) => timeline.map((point) => point.caches.find((one) => one.type === type)).map((one) => (one ? share(one.hits, one.hits + one.misses) : null));
  const ofTier = (tier) => timeline.map(({ tiers }) => (tiers ? share(tiers[tier], hitsOf(tiers) + tiers.misses) : null));
  plot('hits', {
    series: [...types.map((type) => ({ label: type, values: ofType(type) })), { label: 'tier: memory', values: ofTier('memory'), dash: [6, 3] }, { label: 'tier: disk', values: ofTier('disk'), dash: [2, 3] }, ...(timeline.some(({ tiers }) => tiers?.shared > 0) ? [{ label: 'tier: shared', values: ofTier('shared'), dash: [6, 2, 1, 2] }] : [])],
    format: (value) => `${digits(value)} %`, top: 100, empty: waiting ?? 'No look-up was counted yet.',
  });

  document.querySelector('#chart-batch small').textContent = chosen === undefined ? '' : `items a call of ${chosen}`;
  plot('batch', {
    series: [
      { label: 'items a call', values: of((one) => (one.count > one.errors ? one.items / (one.count - one.errors) : null)) },
      { label: 'batch size', values: timeline.map((point) => point.batchSize), dash: [6, 3] },
      { label: 'tokens', values: timeline.map((point) => point.tokenBudget), scale: 'right' },
    ],
    format: rate, right: count, empty: idle,
  });

  const failures = timeline.map((point) => point.operations.reduce((sum, one) => sum + one.errors, 0));
  plot('errors', { series: [{ label: 'errors', values: failures.map((errors) => errors || null), tone: '--bad' }], bars: true, format: count, steps: WHOLE, empty: waiting ?? 'No errors in this time.' });
}

new ResizeObserver(() => {
  for (const [id, { chart }] of Object.entries(plots)) {
    const width = document.querySelector(`#chart-${id} .plot`).clientWidth;
    if (width > 0 && width !== chart.width) chart.setSize({ width, height: HEIGHT });
  }
}).observe(document.querySelector('main'));

// ---- light and dark

const THEMES = ['auto', 'dark', 'light'];
const system = matchMedia('(prefers-color-scheme: dark)');
function memory(value) {
  try {
    if (value !== undefined) localStorage.setItem('embedcore-theme', value);
    return localStorage.getItem('embedcore-theme');
  } catch {
    return value; // Storage may be forbidden.
  }
}
let theme = THEMES.includes(memory()) ? memory() : 'auto';
function paint() {
  document.documentElement.dataset.theme = theme === 'auto' ? (system.matches ? 'dark' : 'light') : theme;
  $('theme').textContent = `Theme: ${theme}`;
  if (shown) drawCharts();
}
$('theme').addEventListener('click', () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  memory(theme);
  paint();
});
system.addEventListener('change', paint);
paint();

// ---- where it comes from

function state(name, text) {
  $('status').dataset.state = name;
  $('status-text').textContent = text;
}
function problem(text) {
  $('problem').hidden = !text;
  $('problem').textContent = text ?? '';
}

let source;
function listen() {
  opened = false;
  $('live').hidden = true;
  source?.close();
  source = new EventSource('events');
  const receive = (use) => ({ data }) => {
    try {
      use(whatIsKnown(JSON.parse(data)));
      problem();
      if (shown.saved) state('saved', `${shown.saved}, as of ${moment.format(shown.takenAt)}`);
      else state('live', 'Live');
    } catch (error) {
      problem(error.message);
    }
  };
  source.addEventListener('snapshot', receive(show));
  source.addEventListener('point', receive(add));
  source.onerror = () => state('lost', source.readyState === EventSource.CLOSED ? 'The server does not answer: reload the page' : 'Connection lost, trying again …');
}

async function open(file) {
  if (!file) return;
  try {
    const snapshot = whatIsKnown(JSON.parse(await file.text()));
    source?.close();
    opened = true;
    $('live').hidden = false;
    problem();
    show(snapshot);
    state('saved', `${file.name}, as of ${moment.format(snapshot.takenAt)}`);
  } catch (error) {
    problem(`${file.name} cannot be shown: ${error.message}`);
  }
}

$('file').addEventListener('change', ({ target }) => {
  open(target.files[0]);
  target.value = '';
});
$('live').addEventListener('click', listen);
$('operation').addEventListener('change', ({ target }) => {
  chosen = target.value;
  drawTiles();
  drawCharts();
});
$('more').addEventListener('click', () => {
  cyclesShown += 100;
  drawCycles();
});
addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('over');
});
addEventListener('dragleave', () => document.body.classList.remove('over'));
addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('over');
  open(event.dataTransfer.files[0]);
});
listen();
