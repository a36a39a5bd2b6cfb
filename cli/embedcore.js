#!/usr/bin/env node
// The command `embedcore`: semantic search in a directory of source code or texts, embeddings of the lines of a file, the
// models that are kept for it, a server for clients of OpenAI's embeddings, and the dashboard. A user of the public entry
// like any other.

// CommonJS, because it starts faster.
'use strict';

const { parseArgs } = require('node:util');

const { EmbeddingError } = require('embedcore');

const { InputError } = require('./lines');
const { OutputError } = require('./output');
const { paint, plain } = require('./terminal');
const { UsageError } = require('./usage');

/** Each is a file: its `options`, as `parseArgs` takes them, beside those of all, and `run(words, values)`. */
const COMMANDS = {
  index: require('./commands/index'),
  search: require('./commands/search'),
  mcp: require('./commands/mcp'),
  embed: require('./commands/embed'),
  split: require('./commands/split'),
  collect: require('./commands/collect'),
  query: require('./commands/query'),
  models: require('./commands/models'),
  serve: require('./commands/serve'),
  worker: require('./commands/worker'),
  dashboard: require('./commands/dashboard'),
  doctor: require('./commands/doctor'),
};

const USAGE = `Semantic search in source code and texts, offline; embeddings of files; a server for embeddings; workers of a queue; and a page that shows how a program performs.

  embedcore index [DIRECTORY]           read functions, methods, classes and types into DIRECTORY/.embedcore
  embedcore search "WORDS" [DIRECTORY]  find them by what they do
  embedcore search --serve [DIRECTORY]  the same as a page: matches as you type, what is similar, near-duplicates
  embedcore mcp [DIRECTORY]             the same for agents and editors: a Model Context Protocol server on standard input and output
  embedcore embed [FILE|-]              vectors of texts or annotations, a JSON line each, from FILE or standard input
  embedcore split FILE…                 cut texts into chunks that the model reads whole; - is standard input
  embedcore collect [DIR] --to FILE     keep the chunks of a directory's texts, with their vectors, in one file
  embedcore query FILE "WORDS"          find those that answer best
  embedcore models                      models on the hub that are known to work, of each kind, with size and licence
  embedcore models list                 models from the hub that are kept on this machine
  embedcore models add OWNER/NAME       fetch one, or bring it up to date; OWNER/NAME@REVISION for another than main
  embedcore models verify [OWNER/NAME]  compare all content with its hash; exit code 1 if anything is damaged
  embedcore models remove OWNER/NAME    remove one
  embedcore serve                       serve a model to clients of OpenAI's embeddings: http://127.0.0.1:8080/v1; rerankers at /rerank
  embedcore worker --queue URL          embed what others have put into a queue, on any number of machines
  embedcore dashboard [SNAPSHOT.json]   show what PerformanceDashboard.exportJson has written
  embedcore doctor                      what this machine has for embedding, and what to install; exit code 1 if embedding does not work

Options of index
  --rebuild        start over, whatever index is there: of another model or version, or damaged
  --verbose        name the files that were left out
  --watch          go on: whatever changes is indexed again, until Ctrl-C
Options of index, mcp and search --serve
  --text           index texts in no known language, too, in chunks; kept with the index: --no-text takes them out again
Options of search
  --limit N        number of answers (10)
  --min-score S    least score, 0 to 1 (0)
  --path PATTERN   only in such files, as in .gitignore: src/, '*.test.ts', '!fixtures/'; may be given several times
  --lang NAME      only in this language; several times: bash, c, cpp, csharp, go, java, javascript, kotlin, markdown, php,
                   python, ruby, rust, scala, sql, svelte, swift, typescript, vue, text
  --kind KIND      only a function, method, class, type, constant, file, section or chunk; several times
  --context N      print N lines of the source around the beginning of each answer
  --json           answers as JSON: { root, query, matches: [{ file, line, endLine, kind, language, name, signature,
                   summary, score, similarity, stale }] }; files are named from root; stale: changed since
  --source         with --json: the source of each answer, too
  --serve          serve a page for this machine, in place of an answer
Options of embed
  --out FILE       where vectors go: whole, or not at all (standard output)
  --format FORMAT  jsonl: a JSON line each; npy: a float32 array for NumPy (npy if FILE ends in .npy, else jsonl)
  --cache FILE     keep vectors in a file, so that the next run computes only what is new
  --queue URL      have the workers of a queue embed it; --fingerprint HEX: those with this model only
Options of split and collect
  --max-tokens N   most tokens of a chunk (as many as the model reads)
  --overlap N      most tokens of a chunk that the next one repeats (0)
Options of split
  --format FORMAT  auto, text, markdown, code (auto: by the name of the file)
  --language NAME  of code: one of those of search, but sql, svelte and vue; or an ending of its files
  --json           { model, maxTokens, chunks: [{ file, text, start, end, tokens, headings, line }] }; start and end are
                   UTF-16 units, as in JavaScript's strings; written as they come, with { error } behind them if that ends early
Options of collect
  --to FILE        the collection; run again, it embeds only what has changed, and forgets files that are gone, but none that
                   it could only not read this time, nor those of other directories
  --glob PATTERN   which files ('**/*.md'); may be given several times, !PATTERN leaves out; hidden files and node_modules
                   only where a pattern names them
  --keep           keep what was collected before and is not among the files now
  --rebuild        embed all anew, where another model made the collection
  --verbose        name the files that were left out
  --json           { root, path, files, added, changed, removed, unchanged, embedded, chunks, kept, others, skipped, unread,
                   seconds }: kept are files that are not known to be gone, others those of other directories
Options of query
  --limit N        number of answers (10)
  --min-score S    least cosine of an answer, -1 to 1; one below 0 as --min-score=-0.5
  --filter JSON    what the metadata of answers have to be: '{"year":{"gte":2020}}'
  --json           { path, root, query, matches: [{ id, score, text, metadata, source }] }; files are named from root
Options of worker, embed and dashboard
  --queue URL      the queue's server: redis://host:6379, rediss:// with TLS (worker: or EMBEDCORE_QUEUE, which ps does not show)
  --queue-name N   another queue on it than embedcore
  --shared URL     the server for vectors (EMBEDCORE_SHARED, else that of the queue)
Options of worker
  --concurrency N  chunks at a time (2)
  --cache FILE     keep vectors in a file of this machine, too
  --memory-limit MB, --drain-seconds N (30): as those of serve
Options of index, search, mcp, embed, split, collect, query, serve and worker
  --model MODEL    a model directory, .onnx file or hub id instead of the built-in model; or one on a server:
                   ollama:NAME, openai:NAME (OPENAI_API_KEY, OPENAI_BASE_URL), tei:URL
Options of search and mcp
  --rerank MODEL   look again at the best answers with a cross-encoder, which reads words and source together: its score counts then
Options of models
  --dtype DTYPE    the variant to add: fp32, fp16, q8, int8, uint8, q4, q4f16, bnb4
  --cache-dir DIR  where models are kept (HF_HUB_CACHE, else hub in HF_HOME, else ~/.cache/huggingface/hub)
  --json           answers as JSON
Options of doctor
  --model MODEL    try this one; it is not fetched
  --cache FILE     look into a cache's file
  --cache-dir DIR, --json: as those of models
Options of serve
  --alias NAME     another name of the model; may be given several times
  --cache FILE     keep vectors in a file, which any number of servers on this machine may share
  --memory-limit MB         most memory that the process may hold (what is left)
  --max-batch-items N       texts in a request (2048)
  --max-body-mb N           megabytes in a request (8)
  --max-queued-requests N   requests that wait before others are sent away (512)
  --max-queued-mb N         megabytes of them, vectors included (256)
  --max-connections N       connections at a time (4096)
  --drain-seconds N         how long SIGTERM and Ctrl-C wait for what runs, at most (8)
Options of serve, dashboard and search --serve
  --port N         where it is served (8080; the dashboard 4040, the page of search 4041, or another one if that is taken)
  --host HOST      for whom: this machine only (127.0.0.1), or everybody (0.0.0.0)
  --allow-host NAME         another name by which it may be asked for; may be given several times, * is any
  --api-key KEY             what clients have to send, a browser as a password; better set EMBEDCORE_API_KEY, which no ps ever shows
Options of all
  --help, --version

DIRECTORY is the current one by default; search also looks for an index above it.`;

/** Options of every command. */
const OPTIONS = { help: { type: 'boolean', short: 'h' }, version: { type: 'boolean' } };

async function main(args) {
  // Also where the rest of the line cannot be read.
  asJson = args.includes('--json') && COMMANDS[args.find((word) => Object.hasOwn(COMMANDS, word))]?.options.json !== undefined;
  const { values, positionals } = parse(args);
  if (values.version) {
    return console.log(require('../package.json').version);
  }
  const [command, ...rest] = positionals;
  if (values.help || (command === undefined && args.length === 0)) return console.log(USAGE);
  if (!Object.hasOwn(COMMANDS, command ?? '')) throw new UsageError(`There is no command ${command ?? ''}`.trimEnd());
  const misplaced = Object.keys(values).find((name) => !Object.hasOwn(COMMANDS[command].options, name));
  if (misplaced) {
    const homes = Object.keys(COMMANDS).filter((other) => Object.hasOwn(COMMANDS[other].options, misplaced));
    throw new UsageError(`--${misplaced} is an option of ${homes.join(' and ')}`);
  }
  return COMMANDS[command].run(rest, values);
}

/** Whether answers are JSON, and so what went wrong is, too. */
let asJson = false;

function parse(args) {
  const options = Object.assign({ ...OPTIONS }, ...Object.values(COMMANDS).map((command) => command.options));
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error.message);
  }
}

/** Says why the command fails; once, because what follows is the same failure. */
function fail(message, code) {
  if (process.exitCode) return;
  process.exitCode = code;
  if (message) console.error(`${paint(process.stderr)('red', 'embedcore:')} ${plain(message)}`);
}

// Who has stopped reading needs no message.
process.stdout.on('error', (error) => fail(error.code !== 'EPIPE' && `Standard output cannot be written: ${error.message.split(', ')[0]}`, 1));

main(process.argv.slice(2)).catch((error) => {
  if (![UsageError, EmbeddingError, InputError, OutputError].some((kind) => error instanceof kind)) throw error;
  if (asJson && !(error instanceof OutputError) && !error.isTold) {
    const { code = 'INVALID_ARGUMENT', details = {} } = error instanceof EmbeddingError ? error : (error.cause ?? {});
    console.log(JSON.stringify({ error: { code, message: error.message, details } }, undefined, 2));
  }
  fail(error.message, error instanceof UsageError ? 2 : 1);
  if (error instanceof UsageError && !error.message.includes('npx')) console.error('See embedcore --help');
});
