// Of `@langchain/core`, what is used here: the package is an optional peer, and too heavy to be installed for its types.
// `__test__/interfaces/` compiles against the real ones.

declare module '@langchain/core/embeddings' {
  export interface EmbeddingsParams {
    maxConcurrency?: number;
    maxRetries?: number;
    onFailedAttempt?: (error: any) => any;
  }

  export abstract class Embeddings {
    caller: { call<A extends any[], T>(callable: (...args: A) => Promise<T>, ...args: A): Promise<T> };
    constructor(params: EmbeddingsParams);
    abstract embedDocuments(documents: string[]): Promise<number[][]>;
    abstract embedQuery(document: string): Promise<number[]>;
  }
}

declare module '@langchain/core/retrievers/document_compressors' {
  import type { DocumentInterface } from '@langchain/core/documents';

  export abstract class BaseDocumentCompressor {
    abstract compressDocuments(documents: DocumentInterface[], query: string, callbacks?: any): Promise<DocumentInterface[]>;
  }
}

declare module '@langchain/core/documents' {
  export interface DocumentInterface<Metadata extends Record<string, any> = Record<string, any>> {
    pageContent: string;
    metadata: Metadata;
    id?: string;
  }
}
