// A server of the Model Context Protocol over standard input and output: agents and editors search the code of a directory.
'use strict';

const { join } = require('node:path');
const { fileURLToPath, pathToFileURL } = require('node:url');

const { CodeIndex } = require('embedcore');

const { UsageError, directoryOf, explained, generatorOf, here, textsOf } = require('../usage');
const { readWithin, Texts } = require('./search');

const options = { model: { type: 'string' }, rerank: { type: 'string' }, text: { type: 'boolean' }, 'no-text': { type: 'boolean' } };

const SDK = '@modelcontextprotocol/sdk';

/** Resources in one answer. */
const PAGE = 500;

/** Source of a declaration that is shown, in characters. */
const MOST_SOURCE = 8000;

const strings = (description) => ({ description, anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'string' } }] });
const limit = { type: 'integer', minimum: 1, maximum: 100, default: 10, description: 'Most answers' };

const TOOLS = [
  {
    name: 'search_code',
    title: 'Search code by meaning',
    description:
      'Finds functions, methods, classes and types of this repository by what they do, in plain words or by name. ' +
      'Answers have a score from 0 to 1; above 0.5 is usually what was meant. Prefer it to grep when the exact words are not known.',
    inputSchema: {
      type: 'object',
      properties: {
        query: { type: 'string', description: 'What the code does, or its name: "open a file and read its lines"' },
        limit,
        path: strings('Only in such files, as in .gitignore: "src/", "*.test.ts", "!fixtures/"'),
        language: strings('Only in these languages: bash, c, cpp, csharp, go, java, javascript, kotlin, markdown, php, python, ruby, rust, scala, sql, svelte, swift, typescript, vue; text: files in none of these, where they are indexed'),
        kind: strings('Only these kinds: function, method, class, type, constant, file, section (of Markdown), chunk (of a text file)'),
        min_score: { type: 'number', minimum: 0, maximum: 1, description: 'Least score of an answer' },
        rerank: {
          description:
            'Look again at the best answers with a model that reads query and source together: better and slower. true: with the model that the ' +
            'server was started with; or the path or id of one',
          anyOf: [{ type: 'boolean' }, { type: 'string', minLength: 1 }],
        },
      },
      required: ['query'],
      additionalProperties: false,
    },
    annotations: { readOnlyHint: true, openWorldHint: false },
  },
  {
    name: 'get_symbol',
    title: 'Read a declaration',
    description: 'The source of the declarations with this name: "push" finds Stack.push as well.',
    inputSchema: {
      type: 'object',
      properties: { name: { type: 'string', description: 'The name, with or without those around it' }, limit },
      required: ['name'],
      additionalProperties: false,
    },
    annotations: { readOnlyHint: true, openWorldHint: false },
  },
  {
    name: 'index_status',
    title: 'State of the index',
    description: 'What is indexed: files by language, declarations, the model, and whether the index is being brought up to date.',
    inputSchema: { type: 'object', properties: {}, additionalProperties: false },
    annotations: { readOnlyHint: true, openWorldHint: false },
  },
];

/** Of the SDK, which is an optional peer: installed beside this package, or in the directory that the command runs in. */
function sdk(part) {
  try {
    return require(require.resolve(`${SDK}/${part}`, { paths: [__dirname, here()] }));
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error;
    throw new UsageError(`${SDK} is needed for this and not installed. Run: npm install ${SDK}, or: npx -y -p embedcore -p ${SDK} embedcore mcp`);
  }
}

async function mcp(rest, values) {
  const directory = directoryOf(rest) ?? here();
  const { Server } = sdk('server/index.js');
  const { StdioServerTransport } = sdk('server/stdio.js');
  const types = sdk('types.js');

  const served = new Served(directory, values);
  const { name, version } = require('../../package.json');
  const server = new Server({ name, version }, { capabilities: { tools: {}, resources: {} } });
  server.setRequestHandler(types.ListToolsRequestSchema, () => ({ tools: TOOLS }));
  server.setRequestHandler(types.CallToolRequestSchema, async ({ params }) => {
    const tool = TOOLS.find((one) => one.name === params.name);
    if (!tool) throw new types.McpError(types.ErrorCode.InvalidParams, `There is no tool ${params.name}`);
    try {
      const { text, ...structuredContent } = await served.call(params.name, params.arguments ?? {});
      return { content: [{ type: 'text', text }], structuredContent };
    } catch (error) {
      // What the model can read, it can mend.
      return { content: [{ type: 'text', text: explained(error, directory, values).message }], isError: true };
    }
  });
  server.setRequestHandler(types.ListResourcesRequestSchema, ({ params }) => served.resources(params?.cursor));
  server.setRequestHandler(types.ListResourceTemplatesRequestSchema, () => ({ resourceTemplates: [] }));
  server.setRequestHandler(types.ReadResourceRequestSchema, async ({ params }) => {
    try {
      return { contents: [await served.resource(params.uri)] };
    } catch (error) {
      throw new types.McpError(types.ErrorCode.InvalidParams, error.message);
    }
  });

  const ended = new Promise((resolve) => {
    server.onclose = resolve;
    process.stdin.once('end', resolve);
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, resolve);
  });
  await server.connect(new StdioServerTransport());
  if (process.stdin.isTTY) console.error('A server for agents and editors, which write to its standard input: see docs/search.md. Ctrl-C stops it.');
  await ended;
  await server.close();
  await served.close();
}

/** One directory and its index, which follows what changes. */
class Served {
  #directory;
  #index;
  /** What reranks where nothing else is said. */
  #reranker;
  /** The first update, and what it failed with. */
  #first;
  #state = 'updating';
  #problem;

  constructor(directory, values) {
    this.#directory = directory;
    this.#reranker = values.rerank;
    this.#index = new CodeIndex(directory, { generator: generatorOf(values), textFiles: textsOf(values) });
    this.#first = this.#index
      .watch({
        onUpdate: () => this.#is('ready'),
        onError: (error) => this.#is('failed', error.message),
      })
      .catch((error) => {
        this.#is('failed', error.message);
        throw error;
      });
    // Each call says it.
    this.#first.catch(() => {});
  }

  #is(state, problem) {
    this.#state = state;
    this.#problem = problem;
  }

  call(tool, given) {
    return { search_code: () => this.#search(given), get_symbol: () => this.#symbol(given), index_status: () => this.#status(given) }[tool]();
  }

  async #search({ query, limit = 10, path, language, kind, min_score: minScore, rerank, ...others }) {
    none(others);
    checkLimit(limit);
    const reranker = this.#rerankerOf(rerank);
    const matches = await this.#read(() => this.#index.search(query, { limit, minScore, paths: path, languages: language, kinds: kind, rerank: reranker }));
    const shown = matches.map(({ file, line, endLine, signature, summary, score, stale }) =>
      [`${file}:${line}-${endLine}  (${score.toFixed(2)}${stale ? ', changed since it was indexed' : ''})`, `  ${signature}`, ...(summary ? [`  ${summary}`] : [])].join('\n'));
    return { text: shown.join('\n') || 'Nothing was found.', matches };
  }

  /** The model for a call: by default the one that the server was started with, if any. */
  #rerankerOf(asked = this.#reranker !== undefined) {
    if (asked === false) return undefined;
    if (typeof asked === 'string') return asked;
    if (asked !== true) throw new UsageError('rerank is neither true, false nor the path or id of a model');
    if (this.#reranker === undefined) throw new UsageError('The server was started without a model for that: give its path or id as rerank, or start it with --rerank MODEL');
    return this.#reranker;
  }

  async #symbol({ name, limit = 10, ...others }) {
    none(others);
    checkLimit(limit);
    const texts = new Texts(this.#directory);
    const found = await this.#read(() => this.#index.symbols(name, { limit }));
    const symbols = found.map((symbol) => {
      const { source } = texts.source(symbol) ?? {};
      const whole = source === undefined || source.length <= MOST_SOURCE;
      return { ...symbol, ...(source !== undefined && { source: whole ? source : source.slice(0, MOST_SOURCE), truncated: !whole }) };
    });
    const shown = symbols.map(({ file, line, endLine, source, signature, truncated }) =>
      `${file}:${line}-${endLine}\n${source ?? signature}${truncated ? '\n… (read the file for the rest)' : ''}`);
    return { text: shown.join('\n\n') || `Nothing is called ${name}.`, symbols };
  }

  async #status(given) {
    none(given);
    const [state, problem] = [this.#state, this.#problem];
    const status = await this.#read(() => this.#index.status());
    const languages = Object.entries(status.languages).map(([language, files]) => `${files} ${language}`).join(', ');
    const text = `${status.annotations} declarations of ${status.files} files (${languages}); model ${status.model}; ${state}${problem ? `: ${problem}` : ''}`;
    return { text, state, ...(problem && { problem }), root: this.#directory, ...status };
  }

  /** Of the index as it is; where there is none yet, of the first one. */
  async #read(work) {
    try {
      return await work();
    } catch (error) {
      if (error.code !== 'NOT_INITIALIZED') throw error;
      await this.#first;
      return work();
    }
  }

  async resources(cursor) {
    const from = cursor === undefined ? 0 : Number(cursor);
    const files = await this.#read(() => this.#index.files());
    const page = Number.isInteger(from) && from >= 0 ? files.slice(from, from + PAGE) : [];
    const resources = page.map((file) => ({ uri: pathToFileURL(join(this.#directory, file)).href, name: file, mimeType: 'text/plain' }));
    return { resources, ...(from + PAGE < files.length && { nextCursor: String(from + PAGE) }) };
  }

  /** A file of the index; no other one. */
  async resource(uri) {
    let path;
    try {
      path = fileURLToPath(uri);
    } catch {
      throw new Error(`${uri} is not the URI of a file`);
    }
    const files = await this.#read(() => this.#index.files());
    const file = files.find((one) => join(this.#directory, one) === path);
    if (file === undefined) throw new Error(`${uri} is not in the index`);
    return { uri, mimeType: 'text/plain', text: readWithin(this.#directory, file) };
  }

  close() {
    return this.#index.close();
  }
}

function checkLimit(value) {
  const { minimum, maximum } = limit;
  if (!Number.isInteger(value) || value < minimum || value > maximum) throw new UsageError(`limit is ${JSON.stringify(value)}, not a whole number from ${minimum} to ${maximum}`);
}

/** Refuses arguments that no tool has. */
function none(others) {
  const [name] = Object.keys(others);
  if (name !== undefined) throw new UsageError(`There is no argument ${name}`);
}

module.exports = { options, run: mcp };
