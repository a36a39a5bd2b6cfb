// Results as a table and a bar chart for the terminal, and as an SVG.

const columns = [
  ['', (r) => r.label],
  ['texts/s', (r) => r.textsPerSecond.median.toFixed(1)],
  ['min–max', (r) => `${r.textsPerSecond.min.toFixed(1)}–${r.textsPerSecond.max.toFixed(1)}`],
  ['embedcore is', (r) => (r.embedcoreRatio ? `${r.embedcoreRatio.toFixed(2)} ×` : '—')],
  ['texts/CPU s', (r) => r.textsPerCpuSecond.toFixed(1)],
  ['first s', (r) => (typeof r.firstSeconds === 'number' ? r.firstSeconds.toFixed(2) : '—')],
  ['peak RSS MB', (r) => r.peakRssMB.toFixed(0)],
  ['cosine min', (r) => cosine(r.cosine?.min)],
  ['mean', (r) => cosine(r.cosine?.mean)],
];

/** Cut, not rounded: 0.99999 must not be printed as a perfect 1. */
const cosine = (value) => (value === undefined ? '—' : (Math.floor(value * 1e5 + 1e-2) / 1e5).toFixed(5));

export function table(results) {
  const lines = [columns.map(([head]) => head), ...results.map((result) => columns.map(([, cell]) => cell(result)))];
  const widths = columns.map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  return lines
    .map((line) => line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  '))
    .join('\n');
}

export function bars(results) {
  const width = 40;
  const fastest = Math.max(...results.map((r) => r.textsPerSecond.median));
  const label = Math.max(...results.map((r) => r.label.length));
  return results
    .map((r) => {
      const length = Math.max(1, Math.round((r.textsPerSecond.median / fastest) * width));
      return `${r.label.padEnd(label)}  ${'█'.repeat(length)} ${r.textsPerSecond.median.toFixed(1)}`;
    })
    .join('\n');
}

/** Median as the bar, min–max over the rounds as the whisker on it. */
export function svg(results, title) {
  const row = 28;
  const left = 290;
  const chart = 430;
  const fastest = Math.max(...results.map((r) => r.textsPerSecond.max));
  const x = (speed) => (left + (speed / fastest) * chart).toFixed(1);
  const rows = results.map((r, i) => {
    const top = 48 + i * row;
    const { median, min, max } = r.textsPerSecond;
    const fill = r.name === 'embedcore' ? '#d9480f' : r.name.startsWith('floor') ? '#868e96' : '#4c6ef5';
    return `  <text x="${left - 8}" y="${top + 14}" text-anchor="end">${escape(r.label)}</text>
  <rect x="${left}" y="${top}" width="${(x(median) - left).toFixed(1)}" height="20" rx="2" fill="${fill}"/>
  <path d="M${x(min)} ${top + 10}H${x(max)}" stroke="#212529" stroke-width="2"/>
  <text x="${Number(x(max)) + 8}" y="${top + 14}">${median.toFixed(1)}</text>`;
  });
  const width = left + chart + 80;
  const height = 48 + results.length * row + 12;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="13">
  <rect width="100%" height="100%" fill="#fff"/>
  <text x="12" y="26" font-size="16" font-weight="600">${escape(title)}</text>
${rows.join('\n')}
</svg>
`;
}

const escape = (text) => text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]);
