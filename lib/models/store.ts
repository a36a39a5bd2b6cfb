import { invalid } from '../call/input';
import { checkWatch, watched, type Watch } from '../call/limits';
import { crossing, optionReader, type Names } from '../call/options';
import { pathNow } from '../call/paths';
import { call, native } from '../native/addon';
import type { NativeModelStore, NativeModelWork, OnFetch } from '../native/types';

/** The variants in which models are published, by the type of their weights. */
export type Dtype = 'fp32' | 'fp16' | 'q8' | 'int8' | 'uint8' | 'q4' | 'q4f16' | 'bnb4';

/** How much of a file of a model has been fetched. */
export interface FetchProgress {
  /** Its name in the model. */
  file: string;
  /** Bytes that are here, those of an earlier attempt included. */
  loaded: number;
  /** Bytes that it has. */
  total: number;
  /** Percentage, 0 to 100, of all files of this load together. Never goes back, ends with 100. */
  progressTotal: number;
}

/** Options of {@link ModelStore}. */
export interface ModelStoreOptions {
  /** Where it is. Default: as for {@link GeneratorOptions.cacheDir}. */
  cacheDir?: string | undefined;
}

/** Options of {@link ModelStore.verify}. */
export interface VerifyModelOptions {
  /** Stops it; it rejects with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /** Told of files, some times a second. */
  progressCallback?: ((progress: FetchProgress) => void) | undefined;
}

/** Options of {@link ModelStore.add}. */
export interface AddModelOptions extends VerifyModelOptions {
  /** A branch, a tag or a commit. Default `main`. */
  revision?: string | undefined;
  /** Which variant of the model, as {@link GeneratorOptions.dtype}. */
  dtype?: Dtype | undefined;
}

const readOptions = optionReader<ModelStoreOptions>({ cacheDir: pathNow });

const WATCH: Names<VerifyModelOptions> = { signal: true, progressCallback: true };

const readVerify = optionReader<VerifyModelOptions>(WATCH);

const readAdd = optionReader<AddModelOptions>({ ...WATCH, revision: true, dtype: true });

/** A model in the store. */
export interface StoredModel {
  /** `owner/name`. */
  id: string;
  /** Its folder. */
  path: string;
  /** The commits of which files are there, and the branches and tags that stand for them. */
  revisions: { revision: string; names: string[] }[];
  /** Files of all revisions. */
  files: number;
  /** Bytes of all content on the disk. */
  bytes: number;
  /** Bytes of downloads that are not finished, part of `bytes`. */
  partialBytes: number;
  /** When anything of it was written last. */
  modified: Date;
}

/** A model that was added. */
export interface AddedModel {
  /** As the caller named it. */
  id: string;
  /** The repository that its files come from: a conversion where the model has no ONNX. */
  repository: string;
  /** The commit. */
  revision: string;
  /** The directory of its files. */
  path: string;
  /** Bytes of the files of that commit. */
  bytes: number;
}

/** What a look at all files of a model has shown. */
export interface VerifiedModel {
  /** `owner/name`. */
  id: string;
  /** Contents that are what their names say. */
  sound: number;
  /** Contents without a hash to compare them with: copies in place of links, and names of other kinds. */
  unchecked: number;
  /** Bytes that were read. */
  bytes: number;
  /** What is wrong: `damaged` (its hash is not its name), `missing` (a link without content) or `unreadable: …`. */
  problems: { file: string; path: string; what: string }[];
}

/**
 * The models from the hub that are kept on this machine, by this package and by other tools of the hub. Holds nothing
 * open.
 */
export class ModelStore {
  readonly #native: NativeModelStore;

  /**
   * Reads nothing yet; the directory need not be there.
   * @throws {@link EmbeddingError} `INVALID_CONFIG` naming the option.
   */
  constructor(options: ModelStoreOptions = {}) {
    this.#native = call(() => new (native().NativeModelStore)(crossing(readOptions(options))));
  }

  /** Where it is. */
  get directory(): string {
    return call(() => this.#native.directory());
  }

  /** All models that are there, by name. */
  async list(): Promise<StoredModel[]> {
    const models = await this.#run<(Omit<StoredModel, 'modified'> & { modified: number })[]>({}, (work) => work.list());
    return models.map((model) => ({ ...model, modified: new Date(model.modified) }));
  }

  /**
   * Fetches what a generator with the same `dtype` and `revision` needs and is not there, damaged content included. A
   * branch (`main`, where nothing is said) is looked up anew: this is how a model is brought up to date.
   * @throws {@link EmbeddingError} as {@link OptimizedEmbeddingGenerator.initialize} does.
   */
  async add(id: string, options: AddModelOptions = {}): Promise<AddedModel> {
    requireId(id);
    const { signal, progressCallback, ...rest } = readAdd(options);
    return this.#run({ signal, progressCallback }, (work, report) => work.add(id, crossing(rest), report));
  }

  /**
   * Reads all content of a model, or of all, and compares it with its hash. Changes nothing: {@link ModelStore.add}
   * fetches anew what is damaged.
   */
  async verify(id?: string, options: VerifyModelOptions = {}): Promise<VerifiedModel[]> {
    if (id !== undefined) requireId(id);
    return this.#run(readVerify(options), (work, report) => work.verify(id, report));
  }

  /** Removes all of a model, whatever tool put it there; gives the bytes that this frees. */
  async remove(id: string): Promise<number> {
    requireId(id);
    return this.#run({}, (work) => work.remove(id));
  }

  async #run<T>(
    watch: Watch<[FetchProgress]>,
    begin: (work: NativeModelWork, report: OnFetch | undefined) => Promise<string>,
  ): Promise<T> {
    const checked = checkWatch(watch);
    const work = call(() => this.#native.work());
    return watched(checked, () => work.cancel(), async (report, check) => {
      check();
      const told = report && ((...[file, loaded, total, progressTotal]: Parameters<OnFetch>) => report({ file, loaded, total, progressTotal }));
      return JSON.parse(await begin(work, told)) as T;
    });
  }
}

function requireId(id: unknown): void {
  if (typeof id !== 'string') throw invalid('The id is not a string: give owner/name');
}
