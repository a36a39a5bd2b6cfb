import type { DocumentInterface } from '@langchain/core/documents';
import type { BaseDocumentCompressor } from '@langchain/core/retrievers/document_compressors';

import { whole } from '../call/checks';
import { invalid, requireArray, requireString, show } from '../call/input';
import { refuseOtherKind } from '../call/model-kind';
import { optionReader, read, refused } from '../call/options';
import { CROSS_ENCODER } from '../encoders/options';
import type { CrossEncoder, CrossEncoderOptions } from '../index';
import { isCrossEncoder, Reranker, withinLimit } from './embedder';

/** Options of {@link EmbedcoreRerank}: those of a cross-encoder, or an `encoder`. */
export interface EmbedcoreRerankParams extends CrossEncoderOptions {
  /** Another word for `modelPath`. */
  model?: string | undefined;
  /** One that you have, and that you clean up; instead of options of one. */
  encoder?: CrossEncoder | undefined;
  /** How many documents are kept, from 1. Default: all. */
  topN?: number | undefined;
  /** Gives up on a call after so many milliseconds (`TIMED_OUT`), those that the model takes to load included. Default: never. */
  timeoutMs?: number | undefined;
}

/** What an instance of the class has. */
export interface CrossEncoderCompressor extends BaseDocumentCompressor, AsyncDisposable {
  readonly encoder: CrossEncoder;
  /**
   * The documents that answer the query best, best first: copies of them with `relevanceScore` among their metadata. The model is
   * loaded with the first call.
   */
  compressDocuments(documents: DocumentInterface[], query: string, callbacks?: unknown): Promise<DocumentInterface[]>;
  /** Where they were among the documents, with their scores, best first. */
  rerank(
    documents: readonly (DocumentInterface | string)[],
    query: string,
    options?: { topN?: number | undefined },
  ): Promise<{ index: number; relevanceScore: number }[]>;
  /** Frees the model, unless the encoder is yours. */
  close(): Promise<void>;
}

export interface CrossEncoderCompressorClass {
  /**
   * Loads nothing yet.
   * @throws `EmbeddingError` `INVALID_CONFIG` naming the option.
   */
  new (params: EmbedcoreRerankParams | CrossEncoder): CrossEncoderCompressor;
}

const readParams = optionReader<EmbedcoreRerankParams>({ ...CROSS_ENCODER, model: true, encoder: true, topN: true, timeoutMs: true });

/** Another document that is the same, of the same class. */
function copyOf(document: unknown, index: number): DocumentInterface {
  if (typeof document !== 'object' || document === null) throw invalid(`Document ${index} is ${show(document)}, not a document`, { index });
  const metadata = { ...(read(document, 'metadata', `documents[${index}].metadata`) as object | undefined) };
  return Object.assign(Object.create(Object.getPrototypeOf(document) as object) as DocumentInterface, document, { metadata });
}

/** What is read of a document. */
function textOf(document: unknown, index: number): string {
  if (typeof document === 'string') return document;
  if (typeof document !== 'object' || document === null) throw invalid(`Document ${index} is ${show(document)}, neither a document nor a string`, { index });
  return requireString(`The pageContent of document ${index}`, read(document, 'pageContent', `documents[${index}].pageContent`));
}

const topNOf = (topN: unknown) => (topN === undefined ? undefined : whole('topN', topN, 1, Number.MAX_SAFE_INTEGER));

const readCall = optionReader<{ topN?: number | undefined }>({ topN: true });

/** The class, on top of the one that LangChain has in the module system of who asks: it has one for each. */
export function rerankClass(Compressor: typeof BaseDocumentCompressor): CrossEncoderCompressorClass {
  return class EmbedcoreRerank extends Compressor {
    readonly #reranker: Reranker;
    readonly #topN: number | undefined;
    readonly #timeoutMs: number | undefined;

    constructor(given: EmbedcoreRerankParams | CrossEncoder) {
      super();
      refuseOtherKind('CrossEncoder', given, 'encoder');
      const { encoder, model, topN, timeoutMs, ...options } = readParams(isCrossEncoder(given) ? { encoder: given } : given);
      if (model !== undefined && options.modelPath !== undefined) throw refused('model', 'it says the same as `modelPath`: give only one of them');
      if (model !== undefined) options.modelPath = model;
      const [extra] = Object.keys(options);
      refuseOtherKind('CrossEncoder', encoder, 'encoder');
      if (encoder !== undefined && !isCrossEncoder(encoder)) throw refused('encoder', `${show(encoder)} is not a CrossEncoder`);
      if (encoder !== undefined && extra !== undefined) throw refused(extra, 'an encoder was given, which has options of its own');
      this.#reranker = new Reranker(encoder ?? options, 'encoder');
      this.#topN = topNOf(topN);
      this.#timeoutMs = timeoutMs;
    }

    get encoder(): CrossEncoder {
      return this.#reranker.encoder;
    }

    async compressDocuments(documents: DocumentInterface[], query: string): Promise<DocumentInterface[]> {
      requireArray(documents, 'documents');
      // As they are now: the caller may change them while the call waits.
      const now = Array.from(documents, copyOf);
      const ranked = await this.rerank(now, query);
      return ranked.map(({ index, relevanceScore }) => {
        const document = now[index]!;
        document.metadata.relevanceScore = relevanceScore;
        return document;
      });
    }

    async rerank(
      documents: readonly (DocumentInterface | string)[],
      query: string,
      options: { topN?: number | undefined } = {},
    ): Promise<{ index: number; relevanceScore: number }[]> {
      const topN = topNOf(readCall(options).topN) ?? this.#topN;
      requireArray(documents, 'documents');
      const texts = Array.from(documents, textOf);
      const ranked = await withinLimit(this.#timeoutMs, async (left) => {
        await this.#reranker.ready();
        const timeoutMs = left();
        return this.encoder.rank(query, texts, { ...(topN !== undefined && { topK: topN }), ...(timeoutMs !== undefined && { timeoutMs }) });
      });
      return ranked.map(({ index, score }) => ({ index, relevanceScore: score }));
    }

    async close(): Promise<void> {
      await this.#reranker.close();
    }

    [Symbol.asyncDispose](): Promise<void> {
      return this.close();
    }
  };
}
