// What is asked of Ollama: as callers write it, as it is sent, and what of it tells one result from another.

import { createHash } from 'node:crypto';
import { types } from 'node:util';

import { flag } from '../call/checks';
import { messageOf } from '../call/errors';
import { invalid, isArray, requireString, show } from '../call/input';
import { checkWatch } from '../call/limits';
import { optionReader, refused, untouched, type Given, type Names } from '../call/options';
import { faithfulJson } from '../results/canonical-json';

/** An image: its bytes, or these as base64. */
export type OllamaImage = Uint8Array | string;

/** What is generated from. */
export interface OllamaPrompt {
  prompt: string;
  /** Instructions that go before it. Default: the model's own. */
  system?: string | undefined;
  /** For a model that sees. */
  images?: readonly OllamaImage[] | undefined;
  /** `'json'`, or the JSON schema that the answer has to follow. */
  format?: 'json' | object | undefined;
}

/** A message of a chat. */
export interface OllamaMessage {
  role: string;
  content: string;
  images?: readonly OllamaImage[] | undefined;
  /** What a model wants to have called. */
  tool_calls?: readonly object[] | undefined;
  /** Which tool has said it. */
  tool_name?: string | undefined;
  /** What the model thought. */
  thinking?: string | undefined;
}

/** How something is generated. What is left out is as the model's own file says. */
export interface OllamaSettings {
  /** Default: the client's. */
  model?: string | undefined;
  /** From 0, which is a value like others. */
  temperature?: number | undefined;
  /** Most tokens of the answer (`num_predict`); -1: no limit. */
  maxTokens?: number | undefined;
  /** Tokens that the model sees (`num_ctx`). */
  numCtx?: number | undefined;
  /** Threads of the server (`num_thread`): tells no result from another. */
  numThread?: number | undefined;
  /** How long the model stays loaded afterwards: `'30m'` (default), seconds as a number, -1 for ever. */
  keepAlive?: string | number | undefined;
  seed?: number | undefined;
  topP?: number | undefined;
  topK?: number | undefined;
  /** Texts at which the answer ends. */
  stop?: readonly string[] | undefined;
  /** Whether the model thinks first, or how much. */
  think?: boolean | string | undefined;
  /** Default: the client's. */
  useCache?: boolean | undefined;
  /** The type of the result in the cache: by it, its time to live is set. Default `'text_inference'`, with images `'vision_inference'`. */
  cacheType?: 'text_inference' | 'vision_inference' | (string & {}) | undefined;
  /** How long the result is an answer, in seconds. Default: its type's. */
  ttlSeconds?: number | undefined;
  /** Longest time for all of it, in milliseconds. Default: no limit but the network's. */
  timeoutMs?: number | undefined;
}

/** Options of a call. */
export interface OllamaCallOptions extends OllamaSettings {
  /** Ends the call at once, with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /** `true`: pieces as they come, as an async iterable. Default `false`. */
  stream?: boolean | undefined;
}

/** Options of a call of {@link OllamaClient.chat}. */
export interface OllamaChatOptions extends OllamaCallOptions {
  /** `'json'`, or the JSON schema that the answer has to follow. */
  format?: 'json' | object | undefined;
  /** What the model may want to have called, as the interface describes it. */
  tools?: readonly object[] | undefined;
}

/** A copy, as it is sent. */
const json = (value: object, path: string): unknown => {
  try {
    return JSON.parse(faithfulJson(value, path));
  } catch (cause) {
    throw refused(path, messageOf(cause), cause);
  }
};
const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null && !isArray(value);
const format = (value: unknown, path: string): unknown => {
  if (value === 'json') return value;
  if (!isObject(value)) throw refused(path, `${show(value)} is neither 'json' nor a JSON schema`);
  return json(value, path);
};
const objects = (value: unknown, path: string): unknown => {
  if (!isArray(value) || !value.every(isObject)) throw refused(path, `${show(value)} is not an array of objects`);
  return json(value, path);
};
const text = (value: unknown, path: string): string => {
  if (typeof value !== 'string') throw refused(path, `${show(value)} is not a text`);
  return value;
};
const name = (value: unknown, path: string): string => {
  if (text(value, path) === '') throw refused(path, 'it is empty: leave it out, or say which');
  return value as string;
};

const SETTINGS: Names<OllamaSettings> = {
  model: true, temperature: true, maxTokens: true, numCtx: true, numThread: true, keepAlive: true, seed: true, topP: true, topK: true, stop: true,
  think: true, useCache: true, cacheType: true, ttlSeconds: true, timeoutMs: true,
};
const CALL: Names<OllamaCallOptions> = { ...SETTINGS, signal: untouched, stream: true };

export const readSettings = optionReader<OllamaSettings>(SETTINGS);
export const readCall = optionReader<OllamaCallOptions>(CALL);
export const readChat = optionReader<OllamaChatOptions>({ ...CALL, format, tools: objects });
const readPrompt = optionReader<OllamaPrompt>({ prompt: true, system: true, images: true, format });
const readMessage = optionReader<OllamaMessage>({ role: true, content: true, images: true, tool_calls: objects, tool_name: name, thinking: text });

/** The names of the settings, for those who read them from elsewhere. */
export const SETTING_NAMES = Object.keys(SETTINGS) as (keyof OllamaSettings)[];

type Check = (option: string, value: unknown) => void;

const number = (from: number, to: number): Check => (option, value) => {
  if (typeof value !== 'number' || !(value >= from && value <= to)) throw refused(option, `${show(value)} is not a number from ${from} to ${to}`);
};
const whole = (from: number, to = 2 ** 31 - 1): Check => (option, value) => {
  if (!Number.isSafeInteger(value) || (value as number) < from || (value as number) > to) throw refused(option, `${show(value)} is not a whole number from ${from} to ${to}`);
};
const CHECKS: { [Name in keyof OllamaSettings]: Check } = {
  model: (option, value) => void name(value, option),
  temperature: number(0, 100),
  maxTokens: whole(-2),
  numCtx: whole(1),
  numThread: whole(1),
  keepAlive(option, value) {
    const isDuration = typeof value === 'string' ? /^-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$|^-?\d+$/.test(value) : Number.isFinite(value);
    if (!isDuration) throw refused(option, `${show(value)} is not a duration such as '30m', nor a number of seconds`);
  },
  seed: whole(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  topP: number(0, 1),
  topK: whole(0),
  stop(option, value) {
    if (!isArray(value) || value.some((one) => typeof one !== 'string')) throw refused(option, `${show(value)} is not an array of texts`);
  },
  think(option, value) {
    if (typeof value !== 'boolean' && (typeof value !== 'string' || value === '')) throw refused(option, `${show(value)} is not true, false or a level`);
  },
  useCache: flag,
  cacheType: (option, value) => void name(value, option),
  ttlSeconds: number(0, Number.MAX_SAFE_INTEGER),
};

/** Refuses settings that cannot be. `at`: what they are given as. */
export function checkSettings(given: Given<OllamaSettings>, at: (name: string) => string = (name) => name): void {
  for (const [name, check] of Object.entries(CHECKS)) {
    const value = given[name as keyof OllamaSettings];
    if (value !== undefined) check!(at(name), value);
  }
  checkWatch({ timeoutMs: given.timeoutMs });
}

/** A request: where it goes, what it says, and what tells its result from others'. */
export interface OllamaRequest {
  path: string;
  /** JSON, but for `stream`. */
  body: Record<string, unknown>;
  /** What the result is made from. */
  content: string | { readonly [key: string]: unknown };
  params: Record<string, unknown>;
  modality: 'text' | 'image';
}

/** What `options` hold that the model itself is told, by its names. */
function modelOptions(given: Given<OllamaSettings>): Record<string, unknown> {
  const { temperature, maxTokens, numCtx, seed, topP, topK, stop } = given;
  const named = { temperature, num_predict: maxTokens, num_ctx: numCtx, seed, top_p: topP, top_k: topK, stop };
  return Object.fromEntries(Object.entries(named).filter(([, value]) => value !== undefined));
}

function requestOf(path: string, model: string, given: Given<OllamaSettings>, own: Record<string, unknown>): Pick<OllamaRequest, 'path' | 'body' | 'params'> {
  const { numThread, keepAlive = '30m', think } = given;
  const options = modelOptions(given);
  const thinks = think !== undefined && { think };
  const body = { model, ...own, ...thinks, keep_alive: keepAlive, options: { ...options, ...(numThread !== undefined && { num_thread: numThread }) } };
  return { path, body, params: { path, model, options, ...thinks } };
}

/** What `generate` asks. */
export function generateRequest(given: unknown, model: string, settings: Given<OllamaSettings>): OllamaRequest {
  const { prompt: text, system, images, format }: Given<OllamaPrompt> = typeof given === 'string' ? { prompt: given } : readPrompt(given, 'prompt');
  const prompt = requireString('The prompt', text);
  if (prompt === '') throw invalid('The prompt is empty: an answer is made from something');
  if (system !== undefined) requireString('prompt.system', system);
  const seen = imagesOf(images, 'images');
  const beside = { ...(system !== undefined && { system }), ...(format !== undefined && { format }) };
  const request = requestOf('/api/generate', model, settings, { prompt, ...beside, ...(seen && { images: seen.base64 }) });
  const params = { ...request.params, ...beside };
  // A text alone may be found by its meaning, where the cache can do that.
  return { ...request, params, content: seen ? { prompt, images: seen.hashes } : prompt, modality: seen ? 'image' : 'text' };
}

/** What `chat` asks. */
export function chatRequest(given: unknown, model: string, settings: Given<OllamaChatOptions>): OllamaRequest {
  if (!isArray(given) || given.length === 0) throw invalid(`The messages are ${show(given)}, not an array of at least one { role, content }`);
  const read = given.map((message, at) => {
    const { images, ...rest } = readMessage(message, `messages[${at}]`);
    if (requireString(`messages[${at}].role`, rest.role) === '') throw invalid(`messages[${at}].role is empty: pass 'system', 'user', 'assistant' or 'tool'`);
    requireString(`messages[${at}].content`, rest.content);
    return { rest: { ...rest }, seen: imagesOf(images, `messages[${at}].images`) };
  });
  const { format, tools } = settings;
  const beside = { ...(format !== undefined && { format }), ...(tools !== undefined && { tools }) };
  const messages = read.map(({ rest, seen }) => ({ ...rest, ...(seen && { images: seen.base64 }) }));
  const request = requestOf('/api/chat', model, settings, { messages, ...beside });
  const content = { messages: read.map(({ rest, seen }) => ({ ...rest, ...(seen && { images: seen.hashes }) })) };
  return { ...request, params: { ...request.params, ...beside }, content, modality: read.some(({ seen }) => seen) ? 'image' : 'text' };
}

/** Images as they are sent, and by what they are told apart. */
function imagesOf(images: unknown, where: string): { base64: string[]; hashes: string[] } | undefined {
  if (images === undefined) return undefined;
  if (!isArray(images)) throw invalid(`${where} is ${show(images)}, not an array of images`);
  if (images.length === 0) return undefined;
  const bytes = images.map((image, at) => bytesOf(image, `${where}[${at}]`));
  return { base64: bytes.map((image) => image.toString('base64')), hashes: bytes.map((image) => `sha256:${createHash('sha256').update(image).digest('hex')}`) };
}

function bytesOf(image: unknown, where: string): Buffer {
  if (types.isUint8Array(image) && image.length > 0) return Buffer.from(image);
  const base64 = typeof image === 'string' ? image.replace(/^data:[^,]*;base64,/, '').replace(/\s+/g, '') : '';
  if (base64 !== '' && /^[A-Za-z0-9+/]+={0,2}$/.test(base64) && base64.length % 4 === 0) return Buffer.from(base64, 'base64');
  throw invalid(`${where} is ${show(image)}, neither bytes nor base64: read the file first`);
}

