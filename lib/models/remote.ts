import { show } from '../call/input';
import { optionReader, record, refused, type Names } from '../call/options';

/** What a server of models speaks: Ollama's API, OpenAI's (whoever offers it), that of text-embeddings-inference. */
export type RemoteKind = 'ollama' | 'openai' | 'tei';

/**
 * A model on a server. Its tokens are not known here: batches are as many texts as the server takes, results have no
 * `tokenCount`, `truncated` and `confidence`, and the server cuts or refuses what is too long.
 */
export interface RemoteOptions {
  /** What the server speaks. May be left out where `modelPath` begins with it. */
  kind?: RemoteKind | undefined;
  /**
   * Where the server is, without the path of the API: `'http://localhost:11434'`, `'https://api.example/v1'`. Default: for
   * `'ollama'` the environment's `OLLAMA_HOST`, else this machine; for `'openai'` `OPENAI_BASE_URL`, else OpenAI.
   */
  url?: string | URL | undefined;
  /** What the server calls the model. Of `'tei'`, which has but one: default, what it says. */
  model?: string | undefined;
  /**
   * Sent as `Authorization: Bearer …`, to this server only: not to one that it redirects to. In no message, log, metric or
   * file. Default: for `'openai'` the environment's `OPENAI_API_KEY`, else none.
   */
  apiKey?: string | undefined;
  /** Sent with every request, and kept as the key is. */
  headers?: Record<string, string> | undefined;
  /** The length of vectors that the server is asked for. Default: the model's own. */
  dimensions?: number | undefined;
  /** Most texts of a request, 1 to 1048576; what the server says (TEI) and refuses (413) counts, too. Default 32. */
  maxBatchItems?: number | undefined;
  /**
   * Most tokens of a request, counting one for three bytes of UTF-8. A text that has more goes alone. Default: what the
   * server says (TEI), else any number.
   */
  maxBatchTokens?: number | undefined;
  /** Most requests at a time, 1 to 256. Default 8. */
  concurrency?: number | undefined;
  /** Longest time in milliseconds that an answer may take, each attempt by itself. Default 60000. */
  timeoutMs?: number | undefined;
  /**
   * How often a request is made again, 0 to 100, where the server cannot be reached, takes too long, or answers 408, 425,
   * 429 or 5xx: after `Retry-After`, else after a random pause that grows. Default 3.
   */
  retries?: number | undefined;
  /**
   * What tells the vectors apart from those of other models in caches, instead of kind, address, name and digest: for a
   * server that moves, or two that serve the same. 64 hexadecimal digits are taken as the whole fingerprint, such as
   * {@link ModelInfo.fingerprint} has told.
   */
  fingerprint?: string | undefined;
}

/** Where a loaded model runs, if not here. */
export interface RemoteInfo {
  kind: RemoteKind;
  /** Without anything secret. */
  url: string;
  /** What the server calls the model; empty where nobody says. */
  model: string;
  /** What the server says the model's content is (Ollama: `digest`; TEI: `model_sha`); else `null`. */
  digest: string | null;
  /** Most texts of a request. */
  maxBatchItems: number;
  /** Most requests at a time. */
  concurrency: number;
}

const NAMES: Names<RemoteOptions> = {
  kind: true,
  url: address,
  model: true,
  apiKey: key,
  headers: headers,
  dimensions: true,
  maxBatchItems: true,
  maxBatchTokens: true,
  concurrency: true,
  timeoutMs: true,
  retries: true,
  fingerprint: true,
};

/** Reads what is said about a server. No value that may be secret gets into a message. */
export const readRemote = optionReader<RemoteOptions>(NAMES);

function address(value: unknown, path: string): string {
  const text = value instanceof URL ? value.href : value;
  if (typeof text !== 'string') throw refused(path, `${show(value)} is not a URL`);
  try {
    if (['http:', 'https:'].includes(new URL(text.trim()).protocol)) return text.trim();
  } catch {
    // What the error says may hold what it is about.
  }
  throw refused(path, 'it is not an http or https URL, such as http://localhost:11434');
}

function key(value: unknown, path: string): string {
  // Blanks at the ends come with keys that are read from files.
  const text = typeof value === 'string' ? value.trim() : '';
  if (/^[\x21-\x7e]+$/.test(text)) return text;
  // Whatever it is, it may be a key all the same.
  throw refused(path, `it is ${value === '' ? 'empty' : `a ${typeof value}`}, not a key: a string of printable ASCII without blanks`);
}

/** What is said by whoever makes the connection. */
const OURS = ['connection', 'content-length', 'content-type', 'expect', 'host', 'te', 'trailer', 'transfer-encoding', 'upgrade'];

function headers(value: unknown, path: string): Record<string, unknown> {
  const given = record(value, path);
  const seen = new Set<string>();
  for (const [name, each] of Object.entries(given)) {
    const lower = name.toLowerCase();
    if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(lower)) throw refused(`${path}.${name}`, 'it is not the name of a header');
    if (OURS.includes(lower)) throw refused(`${path}.${name}`, 'it is said by the client itself: leave it out');
    if (seen.has(lower)) throw refused(`${path}.${name}`, 'it is given twice');
    seen.add(lower);
    if (typeof each !== 'string' || !/^[\t\x20-\x7e]*$/.test(each)) throw refused(`${path}.${name}`, 'its value is not a string of printable ASCII');
  }
  return given;
}
