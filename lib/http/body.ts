// Bodies: of requests, as they are given and sent again; of answers, decompressed.

import type { Readable, Transform } from 'node:stream';
import { types } from 'node:util';
import { brotliDecompress, createBrotliDecompress, createGunzip, createInflate, gunzip, inflate, type ZlibOptions } from 'node:zlib';

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

const DECODERS: Record<string, { whole: Decode; stream: () => NodeJS.ReadWriteStream }> = {
  gzip: { whole: gunzip, stream: createGunzip },
  'x-gzip': { whole: gunzip, stream: createGunzip },
  deflate: { whole: inflate, stream: createInflate },
  br: { whole: brotliDecompress as Decode, stream: createBrotliDecompress },
};

/** What is asked for. */
export const ACCEPTED_ENCODINGS = 'gzip, deflate, br';

/** The encodings of a header `Content-Encoding`, the last one first. @throws the name of one that is not known. */
function encodingsOf(header: string | string[] | undefined): string[] {
  const all = String(header ?? '').toLowerCase().split(',').map((name) => name.trim());
  const applied = all.filter((name) => name !== '' && name !== 'identity').reverse();
  const unknown = applied.find((name) => !Object.hasOwn(DECODERS, name));
  if (unknown !== undefined) throw new Error(`it is encoded as ${unknown}`);
  return applied;
}

/** The bytes that were meant; at most `most` of them. */
export async function decoded(bytes: Buffer, encoding: string | string[] | undefined, most: number): Promise<Buffer> {
  if (encoding === undefined || bytes.length === 0) return bytes;
  let result = bytes;
  for (const name of encodingsOf(encoding)) {
    const from = result;
    result = await new Promise<Buffer>((resolve, reject) => {
      DECODERS[name]!.whole(from, { maxOutputLength: most }, (error, whole) => (error ? reject(error) : resolve(whole)));
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
  for (const name of encoding === undefined ? [] : encodingsOf(encoding)) {
    const from = stream;
    const to = DECODERS[name]!.stream() as Transform;
    const destroy = to._destroy;
    to._destroy = (error, done) => destroy.call(to, isZlib(error) ? failureOf(error) : error, done);
    from.on('error', (error) => to.destroy(error));
    to.on('close', () => from.destroy());
    from.pipe(to);
    stream = to;
  }
  return stream;
}

/** Whether it is of zlib, not of whoever ends the stream. */
function isZlib(error: Error | null): error is NodeJS.ErrnoException {
  return typeof (error as NodeJS.ErrnoException | null)?.errno === 'number' && !(error as NodeJS.ErrnoException).syscall;
}
