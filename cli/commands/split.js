// Files cut into chunks that a model reads whole.
'use strict';

const { buffer } = require('node:stream/consumers');

const { OptimizedEmbeddingGenerator } = require('embedcore');

const { decoded, textOf } = require('../texts');
const { Bar, paint, plain, plural, shortened } = require('../terminal');
const { UsageError, generatorOf, splittingOf } = require('../usage');

const options = {
  'max-tokens': { type: 'string' },
  overlap: { type: 'string' },
  format: { type: 'string' },
  language: { type: 'string' },
  model: { type: 'string' },
  json: { type: 'boolean' },
};

/** Characters that are split at once. */
const WINDOW = 1 << 22;

async function split(rest, values) {
  if (rest.length === 0) throw new UsageError('What shall be split? embedcore split FILE, or - for standard input');
  const bar = new Bar(process.stderr);
  const generator = new OptimizedEmbeddingGenerator(generatorOf(values));
  try {
    await generator.initialize(undefined, { progressCallback: bar.loading });
    const { modelId: model, maxLength } = generator.getModelInfo();
    const splitting = { ...splittingOf(values), format: values.format, language: values.language };
    const show = values.json ? new Listing({ model, maxTokens: splitting.maxTokens ?? maxLength }) : undefined;
    let count = 0;
    try {
      for await (const { done, sources } of windows(rest)) {
        const found = await generator.splitMany(sources, splitting);
        for (const [at, { path: file }] of sources.entries()) {
          count += found[at].length;
          if (show) await show.add(file, found[at]);
          else tell(file, found[at], bar);
        }
        bar.draw(done, rest.length, plural(count, 'chunk'));
      }
    } catch (error) {
      throw (await show?.failed(error)) ?? error;
    }
    bar.end();
    await show?.end();
    if (count === 0 && !show) console.log('There is no text in it.');
  } finally {
    bar.end();
    await generator.cleanup();
  }
}

/** The texts of files, some at a time. */
async function* windows(files) {
  let [sources, characters] = [[], 0];
  for (const [at, path] of files.entries()) {
    const text = path === '-' ? decoded(await buffer(process.stdin), 'Standard input') : textOf(path);
    sources.push({ text, path });
    characters += text.length;
    if (characters < WINDOW && at < files.length - 1) continue;
    yield { done: at + 1, sources };
    [sources, characters] = [[], 0];
  }
}

function tell(file, chunks, bar) {
  bar.end();
  const color = paint(process.stdout);
  const width = process.stdout.isTTY && process.stdout.columns ? Math.max(10, process.stdout.columns - 8) : Infinity;
  for (const { text, tokens, headings, line } of chunks) {
    const place = `${file === '-' ? '(standard input)' : file}:${line}`;
    console.log(`${color('yellow', String(tokens).padStart(5))}  ${color('cyan', plain(place))}  ${color('bold', headings.map(plain).join(' › '))}`.trimEnd());
    console.log(color('dim', `       ${shortened(plain(text), Math.min(width, 160))}`));
  }
}

/** One JSON object, a chunk a line, written as they come: all of it at once may be longer than a string can be. */
class Listing {
  #head;
  #begun = false;

  constructor(about) {
    this.#head = `${JSON.stringify(about).slice(0, -1)},"chunks":[`;
  }

  async add(file, chunks) {
    if (chunks.length === 0) return;
    const lines = chunks.map((chunk) => `\n${JSON.stringify({ file, ...chunk })}`);
    await this.#write(`${this.#begun ? ',' : this.#head}${lines.join(',')}`);
    this.#begun = true;
  }

  end() {
    return this.#write(`${this.#begun ? '' : this.#head}\n]}\n`);
  }

  /** Ends it with the error, where it has begun: what was written stays one JSON object. */
  async failed(error) {
    if (!this.#begun) return undefined;
    const { code = 'INVALID_ARGUMENT', message, details = {} } = error;
    await this.#write(`\n],"error":${JSON.stringify({ code, message, details })}}\n`);
    return Object.assign(error, { isTold: true });
  }

  /** Waits for whoever reads. */
  #write(text) {
    return new Promise((resolve) => process.stdout.write(text, () => resolve()));
  }
}

module.exports = { options, run: split };
