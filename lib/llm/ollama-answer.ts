// What Ollama answers, read: whole, or line by line.

import { EmbeddingError } from '../call/errors';
import { show } from '../call/input';
import type { Redact } from '../http/secrets';
import type { OllamaMessage } from './ollama-options';

/** What a model has answered. */
export interface OllamaResult {
  /** The text. */
  response: string;
  /** The same as a message, with what else it has: calls of tools, thoughts. */
  message: OllamaMessage;
  model: string;
  /** Why it ended: `'stop'`, or `'length'` where `maxTokens` was reached. This and the numbers are absent where the server does not tell. */
  doneReason?: string | undefined;
  /** Tokens of the answer. */
  evalCount?: number | undefined;
  /** Tokens of the prompt. */
  promptEvalCount?: number | undefined;
  /** Of the answer, by the server's own time. */
  tokensPerSecond?: number | undefined;
  /** The server's time for all of it, and to load the model, in milliseconds. */
  totalDurationMs?: number | undefined;
  loadDurationMs?: number | undefined;
  /** Whether no server was asked for it: then the numbers are those of the answer that was kept. */
  fromCache: boolean;
}

/** A piece of an answer. The last one is `done`, and has the numbers. */
export interface OllamaChunk extends Partial<Omit<OllamaResult, 'response' | 'message' | 'fromCache'>> {
  /** The text that is new; of a result from the cache, all of it. */
  response: string;
  /** The same as a message. */
  message: OllamaMessage;
  done: boolean;
  fromCache: boolean;
}

/** A result as it is kept. */
export type Kept = Omit<OllamaResult, 'fromCache'>;

/** A line of an answer, or all of it. */
interface Line {
  model?: unknown;
  response?: unknown;
  thinking?: unknown;
  message?: unknown;
  error?: unknown;
  done?: unknown;
  done_reason?: unknown;
  total_duration?: unknown;
  load_duration?: unknown;
  prompt_eval_count?: unknown;
  eval_count?: unknown;
  eval_duration?: unknown;
}

const numberIn = (value: unknown): number | undefined => (typeof value === 'number' && Number.isFinite(value) ? value : undefined);

/** Nanoseconds, which the server counts in, as milliseconds. */
const millisecondsIn = (value: unknown): number | undefined => {
  const nanoseconds = numberIn(value);
  return nanoseconds === undefined ? undefined : nanoseconds / 1e6;
};

/** Where an answer comes from. */
export interface Source {
  url: string;
  /** Takes the keys of the request out of what the server says. */
  redact: Redact;
}

/** An error about what came from there. */
function rejected({ url, redact }: Source, what: string): EmbeddingError {
  return new EmbeddingError('BACKEND_REJECTED', redact(`POST ${url}: ${what}`), { details: { url } });
}

/** The message that a line holds. @throws where it is no line of Ollama's, or an error. */
function messageIn(line: unknown, source: Source): OllamaMessage {
  const { error, message, response, thinking } = (typeof line === 'object' && line !== null ? line : {}) as Line;
  if (typeof error === 'string') throw rejected(source, error);
  const found = (message ?? (typeof response === 'string' ? { role: 'assistant', content: response, ...(typeof thinking === 'string' && { thinking }) } : undefined)) as Partial<OllamaMessage> | undefined;
  if (typeof found?.content !== 'string') throw rejected(source, `the answer is ${show(line)} without a response or a message: is it Ollama that listens there?`);
  return { ...found, role: typeof found.role === 'string' ? found.role : 'assistant', content: found.content };
}

function numbersOf(line: Line): Omit<Kept, 'response' | 'message'> {
  const [evalCount, evalMs] = [numberIn(line.eval_count), millisecondsIn(line.eval_duration)];
  const told = {
    doneReason: typeof line.done_reason === 'string' ? line.done_reason : undefined,
    evalCount,
    promptEvalCount: numberIn(line.prompt_eval_count),
    tokensPerSecond: evalCount !== undefined && evalMs !== undefined && evalMs > 0 ? evalCount / (evalMs / 1e3) : undefined,
    totalDurationMs: millisecondsIn(line.total_duration),
    loadDurationMs: millisecondsIn(line.load_duration),
  };
  return { model: typeof line.model === 'string' ? line.model : '', ...Object.fromEntries(Object.entries(told).filter(([, value]) => value !== undefined)) };
}

/** A whole answer. */
export function resultOf(answer: unknown, source: Source): Kept {
  const message = messageIn(answer, source);
  if ((answer as Line).done === false) throw rejected(source, 'the answer is not done');
  return { response: message.content, message, ...numbersOf(answer as Line) };
}

/** Longest line, in characters: longer than any answer of a model. */
const LONGEST_LINE = 64 * 1024 * 1024;

/** The lines of a stream, as they come. */
async function* linesOf(pieces: AsyncIterable<Uint8Array>, source: Source): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest: string[] = [];
  let length = 0;
  for await (const piece of pieces) {
    const lines = decoder.decode(piece, { stream: true }).split('\n');
    // Joined once it ends: a line in tiny pieces takes no longer than a line.
    for (const line of lines.slice(0, -1)) {
      yield [...rest, line].join('');
      rest = [];
      length = 0;
    }
    const last = lines.at(-1)!;
    length += last.length;
    if (length > LONGEST_LINE) throw rejected(source, `a line has more than ${LONGEST_LINE} characters`);
    rest.push(last);
  }
  rest.push(decoder.decode());
  yield rest.join('');
}

/** The pieces of a streamed answer, and what they are together, once it has ended well. */
export async function* piecesOf(stream: AsyncIterable<Uint8Array>, source: Source): AsyncGenerator<{ piece: OllamaMessage; result?: Kept }> {
  const texts: string[] = [];
  const thoughts: string[] = [];
  const calls: object[] = [];
  for await (const text of linesOf(stream, source)) {
    if (text.trim() === '') continue;
    let line: Line;
    try {
      line = JSON.parse(text) as Line;
    } catch {
      throw rejected(source, `a line of the answer is not JSON: ${show(source.redact(text))}`);
    }
    const piece = messageIn(line, source);
    texts.push(piece.content);
    if (piece.thinking !== undefined) thoughts.push(piece.thinking);
    if (piece.tool_calls) calls.push(...piece.tool_calls);
    if (line.done !== true) {
      yield { piece };
      continue;
    }
    const response = texts.join('');
    const message = { role: piece.role, content: response, ...(thoughts.length > 0 && { thinking: thoughts.join('') }), ...(calls.length > 0 && { tool_calls: calls }) };
    yield { piece, result: { response, message, ...numbersOf(line) } };
    return;
  }
  const { url } = source;
  const message = `POST ${url}: the answer ended before it was done`;
  throw new EmbeddingError('BACKEND_UNAVAILABLE', message, { retryable: true, details: { url } });
}

/** The vectors of an answer. */
export function vectorsOf(answer: unknown, count: number, source: Source): number[][] {
  const { embeddings, error } = (typeof answer === 'object' && answer !== null ? answer : {}) as { embeddings?: unknown; error?: unknown };
  if (typeof error === 'string') throw rejected(source, error);
  if (!Array.isArray(embeddings)) throw rejected(source, `the answer is ${show(answer)} without embeddings: is it Ollama that listens there?`);
  if (embeddings.length !== count) throw rejected(source, `${embeddings.length} vectors came for ${count} texts`);
  const dimensions = (embeddings[0] as unknown[] | undefined)?.length;
  for (const [at, vector] of embeddings.entries()) {
    const isVector = Array.isArray(vector) && vector.length > 0 && vector.length === dimensions && vector.every((value) => Number.isFinite(value));
    if (!isVector) throw rejected(source, `vector ${at} is not one of ${dimensions} finite numbers`);
  }
  return embeddings as number[][];
}
