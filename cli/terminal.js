// How commands speak to a terminal: figures, colours, and a line that moves.
'use strict';

/** Whole numbers in groups of three digits. `Intl.NumberFormat` takes longer to be made than most commands take to say what is wrong. */
const number = { format: (value) => String(value).replace(/\B(?=(\d{3})+$)/g, ',') };
const plural = (count, one, many = `${one}s`) => `${number.format(count)} ${count === 1 ? one : many}`;

const UNITS = ['bytes', 'kB', 'MB', 'GB', 'TB'];

/** A number of bytes in three digits. */
function size(bytes) {
  const power = bytes < 1000 ? 0 : Math.min(Math.floor(Math.log10(bytes) / 3), UNITS.length - 1);
  const value = bytes / 1000 ** power;
  return `${value.toFixed(power === 0 || value >= 100 ? 0 : 1)} ${UNITS[power]}`;
}

/** Text cut to `width` characters. */
const shortened = (text, width) => (text.length > width ? `${[...text].slice(0, width - 1).join('').trimEnd()}…` : text);

const COLORS = { bold: 1, dim: 2, red: 31, yellow: 33, cyan: 36 };

/** What would steer a terminal, or turn the order of what it shows. */
const STEERS = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Text of others as it may be shown on a terminal: in one line, without what would steer it. */
const plain = (text) => text.replace(/\s*[\t-\r]\s*/g, ' ').replace(STEERS, '\ufffd');

/** A word as a shell takes it for what it is, also one that a terminal must not get. */
function quoted(text) {
  if (/^[\w./:@%+,=\\-]+$/.test(text)) return text;
  if (process.platform === 'win32') return `"${plain(text)}"`;
  if (text.search(STEERS) < 0) return `'${text.replaceAll("'", "'\\''")}'`;
  const octal = (character) => Array.from(Buffer.from(character), (byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
  return `"$(printf '${text.replace(/[%\\]/g, '$&$&').replaceAll("'", "'\\''").replace(STEERS, octal)}')"`;
}

/** Colours, where the stream is a terminal that wants them. */
const paint = (stream) => (color, text) => (stream.hasColors?.() ? `\x1b[${COLORS[color]}m${text}\x1b[0m` : text);

/** A progress bar on a terminal, nothing elsewhere. */
class Bar {
  #stream;
  #drawn = false;

  constructor(stream) {
    this.#stream = stream;
  }

  draw(done, total, text) {
    if (total > 0) this.fill(done / total, `${Math.floor((done / total) * 100)} %  ${number.format(done)}/${plural(total, 'file')}  ${text}`);
  }

  /** Told how the files of a model are fetched. */
  loading = ({ file, loaded, total, progressTotal }) =>
    this.fill(progressTotal / 100, `${Math.floor(progressTotal)} %  ${plain(file)}  ${size(loaded)} of ${size(total)}`);

  /** A bar of which `share`, 0 to 1, is done. */
  fill(share, figures) {
    if (!this.#stream.isTTY) return;
    const width = Math.max(0, Math.min(28, (this.#stream.columns || 80) - figures.length - 2));
    const filled = Math.round(share * width);
    this.say(`${'█'.repeat(filled)}${'░'.repeat(width - filled)} ${figures}`);
  }

  /** One line that the next one replaces. */
  say(line) {
    if (!this.#stream.isTTY) return;
    this.#stream.write(`\r\x1b[K${line.trimStart().slice(0, (this.#stream.columns || 80) - 1)}`);
    this.#drawn = true;
  }

  /** Wipes the bar: what follows says the same in words. */
  end() {
    if (this.#drawn) this.#stream.write('\r\x1b[K');
    this.#drawn = false;
  }
}

module.exports = { Bar, number, paint, plain, plural, quoted, shortened, size };
