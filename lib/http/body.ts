// Bodies: of requests, as they are given and sent again; of answers, decompressed.

import { Transform, type Readable } from 'node:stream';
import { types } from 'node:util';
import { brotliDecompress, createBrotliDecompress, createGunzip, createInflate, createInflateRaw, gunzip, inflate, inflateRaw, type ZlibOptions } from 'node:zlib';

import { EmbeddingError, messageOf } from '../call/errors';
import { invalid, show } from '../call/input';
import { faithfulJson } from '../results/canonical-json';

/** What a request can carry. Anything else that JSON can hold is sent as JSON. */
export type RequestBody =
  | string
  | Uint8Array
  | ArrayBuffer
  | URLSearchParams
  | Blob
  | FormData
  | ReadableStream<Uint8Array>
  | AsyncIterable<Uint8Array | string>
  | object
  | number
  | boolean
  | null;

/** The body of a request: bytes, which can be sent again, or a stream, which can until it is read. */
export class OutgoingBody {
  static readonly NONE = new OutgoingBody();
  readonly #bytes: Uint8Array | undefined;
  readonly #stream: AsyncIterable<unknown> | undefined;
  #read = false;
  /** What is being read, once that has begun. */
  #source: AsyncIterator<unknown> | undefined;

  constructor(bytes?: Uint8Array, stream?: AsyncIterable<unknown>) {
    this.#bytes = bytes && bytes.byteLength > 0 ? bytes : undefined;
    this.#stream = stream;
  }

  /** Whether it is still there to be sent. */
  get sendable(): boolean {
    return !this.#read;
  }

  /** Tells a stream that is being read that nobody reads it any more, also while it hangs. Does not wait for it. */
  close(): void {
    const source = this.#source;
    this.#source = undefined;
    // A source that fails while it closes has nobody left to tell.
    void (async () => source?.return?.())().catch(() => {});
  }

  /** What one try sends. */
  open(): Uint8Array | AsyncIterable<Uint8Array> | undefined {
    return this.#stream ? this.#pieces(this.#stream) : this.#bytes;
  }

  /**
   * A stream of its own for each try, so that one that fails before it has read anything leaves the source alone. No
   * generator: that could not be left while its source hangs.
   */
  #pieces(stream: AsyncIterable<unknown>): AsyncIterableIterator<Uint8Array> {
    return {
      next: async () => {
        this.#read = true;
        try {
          this.#source ??= stream[Symbol.asyncIterator]();
          const { done, value } = await this.#source.next();
          if (done) {
            this.#source = undefined;
            return { done: true, value: undefined };
          }
          return { done: false, value: bytesOf(value) };
        } catch (cause) {
          if (cause instanceof EmbeddingError) throw cause;
          throw new EmbeddingError('INVALID_ARGUMENT', `The stream that is the body failed: ${messageOf(cause)}`, { cause });
        }
      },
      return: async () => {
        this.close();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }
}

function bytesOf(piece: unknown): Uint8Array {
  if (typeof piece === 'string') return Buffer.from(piece);
  if (types.isUint8Array(piece)) return piece;
  throw invalid(`The body gave ${show(piece)}: a stream consists of bytes or texts`);
}

/** A body as it was when the call was made, and the type of its content. */
export function outgoing(body: unknown): { body: OutgoingBody | Promise<OutgoingBody>; type?: string } {
  if (body === undefined) return { body: OutgoingBody.NONE };
  if (typeof body === 'string') return { body: new OutgoingBody(Buffer.from(body)), type: 'text/plain;charset=UTF-8' };
  if (types.isUint8Array(body)) return { body: new OutgoingBody(Uint8Array.from(body)) };
  if (types.isAnyArrayBuffer(body)) return { body: new OutgoingBody(new Uint8Array((body as ArrayBuffer).slice(0))) };
  if (ArrayBuffer.isView(body)) throw invalid(`The body is ${show(body)}: pass its bytes as a Uint8Array, or an array of numbers as JSON`);
  if (body instanceof URLSearchParams || body instanceof Blob || body instanceof FormData) {
    const carrier = new Response(body);
    const type = carrier.headers.get('content-type');
    return { body: carrier.arrayBuffer().then((bytes) => new OutgoingBody(new Uint8Array(bytes))), ...(type !== null && { type }) };
  }
  if (typeof body === 'object' && body !== null && typeof (body as AsyncIterable<unknown>)[Symbol.asyncIterator] === 'function') {
    return { body: new OutgoingBody(undefined, body as AsyncIterable<unknown>) };
  }
  return { body: new OutgoingBody(Buffer.from(faithfulJson(body, 'body'))), type: 'application/json' };
}

type Decode = (bytes: Uint8Array, options: ZlibOptions, done: (error: Error | null, result: Buffer) => void) => void;

interface Decoder {
  whole: Decode;
  stream: () => Transform;
}

const GUNZIP: Decoder = { whole: gunzip, stream: createGunzip };
const INFLATE: Decoder = { whole: inflate, stream: createInflate };
const INFLATE_RAW: Decoder = { whole: inflateRaw, stream: createInflateRaw };
const BROTLI: Decoder = { whole: brotliDecompress as Decode, stream: createBrotliDecompress };

/** By the first byte of what is encoded: `deflate` is sent with a header of zlib, as it should be, and without one. */
const DECODERS: Record<string, (first: number) => Decoder> = {
  gzip: () => GUNZIP,
  'x-gzip': () => GUNZIP,
  deflate: (first) => ((first & 0x0f) === 8 ? INFLATE : INFLATE_RAW),
  br: () => BROTLI,
};

/** What is asked for. */
export const ACCEPTED_ENCODINGS = 'gzip, deflate, br';

/** The encodings of a header `Content-Encoding`, the last one first. @throws the name of one that is not known. */
function encodingsOf(header: string | string[] | undefined): string[] {
  if (header === undefined) return [];
  const all = String(header).toLowerCase().split(',').map((name) => name.trim());
  const applied = all.filter((name) => name !== '' && name !== 'identity').reverse();
  const unknown = applied.find((name) => !Object.hasOwn(DECODERS, name));
  if (unknown !== undefined) throw new Error(`it is encoded as ${unknown}`);
  return applied;
}

/** The bytes that were meant; at most `most` of them. Nothing stands for nothing, whatever it is encoded as. */
export async function decoded(bytes: Buffer, encoding: string | string[] | undefined, most: number): Promise<Buffer> {
  let result = bytes;
  for (const name of bytes.length === 0 ? [] : encodingsOf(encoding)) {
    const from = result;
    if (from.length === 0) break;
    result = await new Promise<Buffer>((resolve, reject) => {
      DECODERS[name]!(from[0]!).whole(from, { maxOutputLength: most }, (error, whole) => (error ? reject(error) : resolve(whole)));
    });
  }
  return result;
}

/**
 * The same, piece by piece. What fails, fails the stream that is given back, and ends the other; `failureOf` makes an error
 * of what cannot be decompressed.
 */
export function decodedStream(raw: Readable, encoding: string | string[] | undefined, failureOf: (cause: unknown) => Error): Readable {
  let stream = raw;
  for (const name of encodingsOf(encoding)) {
    const from = stream;
    const to = new Decoding(DECODERS[name]!, failureOf);
    from.on('error', (error) => to.destroy(error));
    to.on('close', () => from.destroy());
    from.pipe(to);
    stream = to;
  }
  return stream;
}

/** Decompresses a stream, once its first byte says how. */
class Decoding extends Transform {
  readonly #decoderFor: (first: number) => Decoder;
  readonly #failureOf: (cause: unknown) => Error;
  #decoder: Transform | undefined;

  constructor(decoderFor: (first: number) => Decoder, failureOf: (cause: unknown) => Error) {
    super();
    this.#decoderFor = decoderFor;
    this.#failureOf = failureOf;
  }

  override _transform(chunk: Buffer, _: string, done: () => void): void {
    if (chunk.length === 0) return done();
    this.#decoder ??= this.#begin(this.#decoderFor(chunk[0]!).stream());
    this.#decoder.write(chunk, done);
  }

  override _flush(done: () => void): void {
    if (!this.#decoder) return done();
    this.#decoder.once('end', done);
    this.#decoder.end();
  }

  override _read(size: number): void {
    this.#decoder?.resume();
    super._read(size);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#decoder?.destroy();
    done(error);
  }

  #begin(decoder: Transform): Transform {
    decoder.on('data', (chunk) => {
      if (!this.push(chunk)) decoder.pause();
    });
    decoder.on('error', (cause) => this.destroy(this.#failureOf(cause)));
    return decoder;
  }
}
