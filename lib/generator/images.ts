// Images as a caller gives them: what files hold, or where they are.

import { types } from 'node:util';

import { EmbeddingError } from '../call/errors';
import { readGiven, refusal, show, type Refused } from '../call/input';
import { pathNow } from '../call/paths';
import type { NativeCall } from '../native/types';

/** An image: what its file holds, or the path of it, as a string or a file URL. PNG, JPEG, GIF, WebP or BMP. */
export type ImageInput = Uint8Array | string | URL;

/** The images of a call, as they were when it was made. */
export class Images {
  readonly #images: readonly (Uint8Array | string | Refused)[];
  /** By position. */
  readonly refused = new Map<number, Refused>();

  /** `skip`: what is no image is answered with an error; else it is thrown. */
  constructor(given: readonly unknown[], skip: boolean) {
    this.#images = Array.from(readGiven('The images', () => Array.from(given)), (image, index) => {
      const taken = takeImage(image, index);
      if (!isRefused(taken)) return taken;
      if (!skip) throw refusal(taken);
      this.refused.set(index, taken);
      return taken;
    });
  }

  get count(): number {
    return this.#images.length;
  }

  /** Hands them to a call; bytes are copied. */
  send(call: NativeCall): void {
    for (const image of this.#images) {
      if (typeof image === 'string') call.pushPath(image);
      else call.pushBytes(isRefused(image) ? NOTHING : image);
    }
    if (this.refused.size > 0) call.refuse(Uint32Array.from(this.refused.keys()));
  }
}

const NOTHING = new Uint8Array();

function isRefused(image: Uint8Array | string | Refused): image is Refused {
  return typeof image !== 'string' && !types.isUint8Array(image);
}

function takeImage(image: unknown, index: number): Uint8Array | string | Refused {
  const details = { index };
  if (types.isUint8Array(image)) {
    if (image.length === 0) return { message: `Image ${index} has no bytes: an empty file, or a buffer that was transferred elsewhere`, details };
    // Of memory that other threads may write, a copy is what is read.
    return types.isSharedArrayBuffer(image.buffer) ? Uint8Array.from(image) : image;
  }
  if (typeof image !== 'string' && !(image instanceof URL)) {
    return { message: `Image ${index} is ${show(image)}, not a path or the bytes (a Uint8Array) of an image`, details };
  }
  if (image === '') return { message: `Image ${index} is an empty path`, details };
  if (/^(?!file:)[a-z][a-z0-9+.-]+:/i.test(String(image))) {
    return { message: `Image ${index} is a URL (${show(String(image))}) that stands for no file: fetch it, and pass its bytes`, details };
  }
  try {
    return pathNow(image, `images[${index}]`) as string;
  } catch (cause) {
    return { message: `Image ${index}: ${(cause as EmbeddingError).message}`, details, cause };
  }
}
