import { basename, resolve } from 'node:path';

import { naming } from '../call/options';
import {
  CrossEncoder,
  MultiVectorEncoder,
  OptimizedEmbeddingGenerator,
  SparseEncoder,
  EmbeddingError,
  type GeneratorOptions,
  type InitializeOptions,
  type ModelInfo,
} from '../index';
import { has } from './embedder';

/** A model of any kind. */
export type AnyEncoder = OptimizedEmbeddingGenerator | CrossEncoder | SparseEncoder | MultiVectorEncoder;

/** What a model is for. */
export type Task = ModelInfo['task'];

/** The class of each kind that is no generator. */
const CLASSES: Partial<Record<Task, (options: GeneratorOptions) => AnyEncoder>> = {
  reranking: (options) => new CrossEncoder(options),
  sparse: (options) => new SparseEncoder(options),
  'multi-vector': (options) => new MultiVectorEncoder(options),
};

/** How the server's caller calls an option of the model. */
const GIVEN = (option: string) => `generator.${option}`;

/** Words, and no model at all. */
const BM25 = 'bm25';

/** The model behind a server: one that somebody has, or one of its own, of the class that the model's files ask for. */
export class ServedModel {
  #encoder: AnyEncoder;
  /** Of one of its own. */
  readonly #options: GeneratorOptions | undefined;
  #closed = false;

  constructor(source: GeneratorOptions | AnyEncoder) {
    if (isEncoder(source)) {
      this.#encoder = source;
      return;
    }
    this.#options = source;
    this.#encoder = naming(GIVEN, () => (source.modelPath === BM25 ? new SparseEncoder(source) : new OptimizedEmbeddingGenerator(source)));
  }

  get encoder(): AnyEncoder {
    return this.#encoder;
  }

  /** What the model is, which is loaded if it is not. */
  async ready(options?: InitializeOptions): Promise<ModelInfo> {
    if (!this.#encoder.isReady()) await this.#load(options);
    return this.#encoder.getModelInfo();
  }

  async #load(options?: InitializeOptions): Promise<void> {
    try {
      await this.#encoder.initialize(undefined, options);
    } catch (error) {
      const make = this.#options && CLASSES[(error as EmbeddingError).details?.task as Task];
      if (!make) throw error;
      const right = naming(GIVEN, () => make(this.#options!));
      await this.#encoder.cleanup();
      // From here on, closing it ends the other one, which is loaded.
      if (this.#closed) throw new EmbeddingError('CLOSED', 'The model was closed while it was loaded');
      this.#encoder = right;
      await right.initialize(undefined, options);
    }
  }

  /** Frees it, unless it is somebody else's. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#options) await this.#encoder.cleanup();
  }
}

/** Whether it has what is needed: of this copy of the package, of another, or one that stands in for it. */
export function isEncoder(value: unknown): value is AnyEncoder {
  return has(value, 'generator', 'initialize') && (has(value, 'generator', 'embed') || has(value, 'generator', 'score'));
}

/** What kind of model it is, as text-embeddings-inference says it. */
export function typeOf({ task, labels, pooling }: ModelInfo): object {
  if (task === 'reranking') return { reranker: { id2label: Object.fromEntries(labels.entries()), label2id: Object.fromEntries(labels.map((label, id) => [label, id])) } };
  return { embedding: { pooling: task === 'sparse' ? 'splade' : task === 'multi-vector' ? 'none' : pooling } };
}

/** The model as clients know it: where it lies on this machine is none of their business. */
export function nameOf({ modelId, repository, remote }: ModelInfo): string {
  // So that clients of that server need not know another name here.
  if (remote) return remote.model || modelId;
  return repository === null && modelId !== 'builtin' ? basename(resolve(modelId)) : modelId;
}
