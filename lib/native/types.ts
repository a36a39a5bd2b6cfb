// What the addon gives, as TypeScript sees it: the other side of src/binding/.

/** See `src/binding/generator.rs`. */
export interface NativeGenerator {
  attach(cache: NativeCache): void;
  load(path?: string): NativeLoad;
  isReady(): boolean;
  modelInfo(): object;
  /** JSON of `NativeMetrics` in `performance.ts`. */
  metrics(): string;
  /** JSON of `News` in `performance.ts`. */
  news(): string;
  /** JSON of `Prediction` in `performance.ts`. */
  predict(items: number, tokens: number): string;
  optimize(): Promise<void>;
  close(): Promise<void>;
  session(): NativeSession;
  call(): NativeCall;
  tokens(ids: Uint32Array): string[];
}

/** Makes calls that all have the same model. */
export interface NativeSession {
  call(): NativeCall;
  release(): void;
}

/** Told of a file, how many of its bytes are there, of how many, and the percentage of all files. */
export type OnFetch = (file: string, loaded: number, total: number, progressTotal: number) => void;

export interface NativeLoad {
  cancel(): void;
  run(onFetch?: OnFetch): Promise<void>;
}

/** See `src/binding/models.rs`. */
export interface NativeModelStore {
  directory(): string;
  work(): NativeModelWork;
}

export interface NativeModelWork {
  cancel(): void;
  list(): Promise<string>;
  add(id: string, options: object, onFetch?: OnFetch): Promise<string>;
  verify(id?: string, onRead?: OnFetch): Promise<string>;
  remove(id: string): Promise<string>;
}

export interface NativeCall {
  push(joined: string, lengths: Uint32Array): void;
  pushBytes(bytes: Uint8Array): void;
  pushPath(path: string): void;
  refuse(indices: Uint32Array): void;
  cancel(): void;
  /** `places`: where among the strings the query and the document of each pair are; without them, the first is the query of all others. */
  runPairs(places: Uint32Array | undefined, options: object, onProgress?: (processed: number, total: number) => void): Promise<NativeAnswer>;
  /** What is pushed does not matter: the texts are those of the request. */
  respond(request: NativeRequest, normalized: boolean): Promise<NativeResponse>;
  runImages(options: object, onProgress?: (processed: number, total: number) => void): Promise<NativeAnswer>;
  countTokens(query: boolean): Promise<Uint32Array>;
  tokenize(query: boolean): Promise<{ ids: Uint32Array; tokens: string[]; offsets: Uint32Array }>;
  split(options: NativeSplit): Promise<NativeChunks[]>;
  run(annotated: boolean, first: number, options: object, onProgress?: (processed: number, total: number) => void): Promise<NativeAnswer>;
}

export interface NativeAnswer {
  readonly dimensions: number;
  readonly modelId: string;
  readonly fingerprint: string;
  readonly labels: string[];
  readonly sigmoid: boolean;
  takeData(): Float32Array;
  takeIndices(): Uint32Array;
  ends(): Float64Array;
  processingTimes(): Float64Array;
  tokenCounts(): Uint32Array;
  truncated(): Uint8Array;
  fromCache(): Uint8Array;
  confidences(): Float64Array;
  texts(from: number, to: number): string[];
  failures(from: number, limit: number): { index: number; error: string }[];
  release(): void;
}

/** See `src/binding/index.rs`. */
export interface NativeIndex {
  update(): NativeUpdate;
  search(words: string, limit: number, filter: NativeFilter): Promise<object[]>;
  similar(file: string, line: number, limit: number, filter: NativeFilter): Promise<object[]>;
  duplicates(): NativeDuplicates;
  symbols(name: string, limit: number): Promise<object[]>;
  status(): Promise<object>;
  files(): Promise<string[]>;
  watch(onChange: () => void): Promise<NativeWatch>;
  close(): Promise<void>;
}

export interface NativeFilter {
  minScore: number;
  paths: string[];
  languages: string[];
  kinds: string[];
}

export interface NativeDuplicates {
  cancel(): void;
  run(threshold: number, minLines: number, limit: number, filter: NativeFilter): Promise<object[]>;
}

export interface NativeWatch {
  follow(): Promise<boolean>;
  close(): Promise<void>;
}

export interface NativeUpdate {
  cancel(): void;
  run(rebuild: boolean, waitMs: number, onReport?: (report: never) => void): Promise<object>;
}

/** See `src/binding/cache/mod.rs`. */
export interface NativeCache {
  settings(): string;
  getter(out: Float32Array): (kind: number, key: string, content: string | Uint8Array | undefined) => number;
  found(): NativeEntry | null;
  settle(): Promise<NativeEntry | null>;
  looker(): (kind: number, ...strings: (string | Uint8Array)[]) => void;
  looked(): NativeLookup;
  pusher(): (...strings: (string | Uint8Array)[]) => void;
  now(): number;
  set(data: Float32Array, settings: Float64Array, began?: number): void | Promise<void>;
  has(kind: number, key: string, content: string | Uint8Array | undefined): boolean | Promise<boolean>;
  delete(kind: number, key: string): boolean | Promise<boolean>;
  clear(modalities: number[]): void | Promise<void>;
  nearest(query: Float32Array, threshold: number, limit: number, modalities: number[]): Promise<NativeNearest>;
  acquire(kind: number, key: string, lifetimeMs: number): Promise<boolean>;
  release(kind: number, key: string): void;
  optimize(): Promise<string>;
  flush(): Promise<void>;
  close(): Promise<void>;
  missed(): void;
  evicted(): number[];
  round(values: Float32Array): void;
  reject(reason: string): void;
  stats(): string;
  samples(): number[];
  servesGenerators(): boolean;
  remembers(nodeId: string, ...texts: string[]): Promise<boolean>;
  remembered(nodeId: string, ...texts: string[]): Promise<NativeRemembered | null>;
  forget(nodeId: string, ...texts: string[]): Promise<boolean>;
  generated(model: NativeModelKey, texts: string[]): Promise<NativeGenerated>;
  keepGenerated(
    model: NativeModelKey, texts: string[], data: Float32Array, tokenCounts: Uint32Array, truncated: Uint8Array, confidences: Float64Array,
  ): Promise<void>;
}

/** See `src/binding/cache/generated.rs`. */
export interface NativeModelKey {
  fingerprint: string;
  dimensions: number;
  query: boolean;
}

export interface NativeRemembered {
  vector(): Float32Array;
  about(): string;
}

export interface NativeGenerated {
  hits(): Uint8Array;
  data(): Float32Array;
  tokenCounts(): Uint32Array;
  truncated(): Uint8Array;
  confidences(): Float64Array;
}

export interface NativeEntry {
  readonly dimensions: number;
  copyTo(out: Float32Array): void;
  metadata(): string | null;
}

export interface NativeNearest {
  similarities(): number[];
  modalities(): ('text' | 'image' | 'audio')[];
  texts(): string[];
  copyTo(at: number, out: Float32Array): void;
}

export interface NativeLookup {
  readonly open: boolean;
  readonly dimensions: number;
  settle(): Promise<void>;
  hits(hits: Uint8Array): void;
  copyTo(data: Float32Array): void;
}

/** See `src/binding/results.rs`. */
export interface NativeResults {
  settings(): string;
  key(type: string, params: string, modality: string, form: string, content: string | Uint8Array): string;
  scope(type: string, params: string, modality: string, model: string): string;
  get(type: string, key: string, last: boolean): NativeStored | null | Promise<NativeStored | null>;
  near(type: string, prompt: NativePrompt, threshold: number, limit: number): Promise<NativeStored | null>;
  glance(key: string): NativeStored | null | Promise<NativeStored | null>;
  count(type: string, near: boolean): void;
  reject(reason: string): void;
  now(): number;
  set(results: NativeResult[]): void | Promise<void>;
  attach(key: string, prompt: NativePrompt): void | Promise<void>;
  has(key: string): boolean | Promise<boolean>;
  /** How many there were: as the other two, once the file knows. */
  delete(key: string): number | Promise<number>;
  invalidate(type: string | undefined, tags: string[]): number | Promise<number>;
  clearExpired(): number | Promise<number>;
  acquire(key: string, lifetimeMs: number): Promise<boolean>;
  release(key: string): void;
  optimize(): Promise<string>;
  flush(): Promise<void>;
  close(): Promise<void>;
  stats(): string;
  evicted(): number[];
}

/** See `src/binding/chunks.rs`. */
export interface NativeSplitter {
  cancel(): void;
  split(text: string, path: string | undefined, options: NativeSplit): Promise<NativeChunks>;
}

export interface NativeSplit {
  most?: number;
  overlap: number;
  format: string;
  language?: string;
}

export interface NativeChunks {
  /** Of each chunk: beginning, end, size, line, number of headings. */
  numbers: Uint32Array;
  headings: string[];
}

/** See `src/binding/collection.rs`. */
export interface NativeCollection {
  open(made: NativeMadeWith): Promise<NativeMadeWith>;
  put(drafts: NativeDraft[], data: Float32Array, documents: { id: string; hash: string }[], made: NativeMadeWith): Promise<void>;
  query(vector: Float32Array, limit: number, minScore: number, filter: string | undefined, made: NativeMadeWith): Promise<NativeRecord[]>;
  get(ids: string[]): Promise<(NativeRecord | null)[]>;
  count(filter: string | undefined): Promise<number>;
  delete(ids: string[], filter: string | undefined): Promise<number>;
  page(after: number, limit: number): Promise<NativeRecord[]>;
  metadata(): Promise<string>;
  setMetadata(more: string, onlyNew: boolean): Promise<string>;
  documents(): Promise<[id: string, hash: string][]>;
  ofDocument(id: string): Promise<NativeRecord[]>;
  removeDocuments(ids: string[]): Promise<void>;
  rebuild(made: NativeMadeWith, rows: number[], data: Float32Array): Promise<void>;
  close(): Promise<void>;
}

export interface NativeMadeWith {
  model: string;
  fingerprint: string;
  dimensions: number;
}

export interface NativeDraft {
  id: string;
  text?: string;
  metadata: string;
  document?: string;
  place?: string;
}

export interface NativeRecord extends NativeDraft {
  row: number;
  vector: Float32Array;
  score?: number;
}

/** See `src/binding/matrix.rs`. */
export interface NativeMatrixWork {
  cancel(): void;
  similarities(query: Float32Array, data: Float32Array): Promise<Float32Array>;
  topK(queries: Float32Array, data: Float32Array, dimensions: number, k: number, threshold: number): Promise<NativeRows>;
  pairs(data: Float32Array, dimensions: number, threshold: number): Promise<NativeRows>;
  dedupe(data: Float32Array, dimensions: number, threshold: number): Promise<{ keep: Uint32Array; duplicateOf: Int32Array }>;
  communities(data: Float32Array, dimensions: number, threshold: number, minSize: number): Promise<Uint32Array[]>;
  kMeans(
    data: Float32Array, dimensions: number, k: number, seed: number, maxIterations: number,
  ): Promise<{ labels: Uint32Array; centroids: Float32Array; inertia: number; iterations: number }>;
}

export interface NativeRows {
  rows: Int32Array;
  scores: Float32Array;
  places: number;
}

/** See `src/binding/files.rs`. */
export interface NativeFileFailure {
  index: number;
  kind: 'io' | 'outside' | 'size' | 'kind';
  errno?: number;
  /** What happened, or the size in bytes. */
  reason: string;
}

export interface NativeFiles {
  inRoom: number;
  beside: Buffer;
  lengths: Float64Array;
  failures: NativeFileFailure[];
}

/** See `src/binding/request.rs`. */
export interface NativeRequest {
  readonly model: string;
  readonly count: number;
  readonly dimensions: number | null;
  readonly isQuery: boolean;
  texts(): { text: string; lengths: Uint32Array };
}

export interface NativeRerank {
  model?: string;
  query: string;
  text: string;
  lengths: Uint32Array;
  documents: boolean;
  raw: boolean;
  withTexts: boolean;
  most?: number;
}

export interface NativeInputs {
  text: string;
  lengths: Uint32Array;
  query: boolean;
}

export interface NativeRefusal {
  param?: string;
  code?: string;
  message: string;
}

export interface NativeResult {
  kind: string;
  key: string;
  format: number;
  value: string | Uint8Array;
  metadata: string;
  tags: string[];
  ttlSeconds?: number;
  exact: boolean;
  began?: number;
}

/** See `src/binding/answer.rs`. */
export interface NativeResponse {
  readonly tokens: number;
  readonly rows: number;
  readonly hits: number;
  readonly truncated: number;
  readonly over: boolean;
  take(): Buffer | null;
  next(): Promise<Buffer | null>;
}

export interface NativePrompt {
  scope: string;
  text: string;
  vector: Float32Array;
}

export interface NativeStored {
  readonly format: number;
  readonly value: string | Uint8Array;
  readonly metadata?: string;
  readonly tags: string[];
  readonly createdAt: number;
  readonly expiresAt?: number;
  readonly similarity?: number;
  readonly matched?: string;
}

/** See `src/binding/batch.rs`. */
export interface NativeBatchOptimizer {
  state(): string;
  config(): string;
  record(
    size: number,
    timeMs: number,
    items: number,
    success: boolean,
    tokens: number | undefined,
    cpu: number | undefined,
    memory: number | undefined,
  ): number;
  current(): number;
  optimize(): number;
  reset(): void;
  recommendation(): string;
  analytics(): string;
  metrics(): string;
}

/** See `src/binding/memory.rs`. */
export interface NativeMemoryProcessor {
  settings(): string;
  memory(now: boolean): number[];
  current(): number;
  select(usage: number): number;
  advance(usage: number): number;
  cleanup(usage: number, batches: number): number;
  recommendations(usage: number): string[];
  stop(): void;
}

/** See `src/binding/metrics.rs`. */
export interface NativeMonitor {
  operation(name: string): number;
  cache(type: string): number;
  forget(): void;
  drain(events: Float64Array, now: number): void;
  recordMany(id: number, durations: Float64Array, items: number, success: boolean): void;
  recordWithMemory(id: number, ms: number, items: number, success: boolean, before: number, after: number, peak: number): void;
  memory(out: Float64Array): void;
  end(id: number, ms: number, items: number, success: boolean, resident: number, highWater: number): void;
  failed(name: string, message: string): void;
  stats(name: string): string | null;
  snapshot(histograms: boolean, cycles?: number): string;
  reset(): void;
  startCycle(id: string): void;
  cycleCall(id: string, cacheHit: boolean, ms: number): void;
  cycleValidation(id: string, ms: number, count: number): void;
  cycleFiles(id: string, count: number): void;
  endCycle(id: string, success: boolean): string;
  cycles(): string;
  load(): { movedTo?: string | null; reason: string } | null;
  saveNow(path: string): void;
  save(path: string): Promise<void>;
  machine(): string;
  sampler(): NativeSampler;
}

export interface NativeSampler {
  sample(): string;
}

export interface Addon {
  /** See `src/binding/doctor.rs`. */
  facts(options: object): Promise<string>;
  version(): string;
  NativeMonitor: { new (options: object): NativeMonitor; global(): NativeMonitor };
  mergeSnapshots(all: string[]): string;
  writeWhole(path: string, text: string): Promise<void>;
  NativeBatchOptimizer: { new (initial: number, options: object): NativeBatchOptimizer; restored(state: string): NativeBatchOptimizer };
  NativeMemoryProcessor: new (options: object) => NativeMemoryProcessor;
  NativeIndex: new (
    root: string,
    options: { path: string | undefined; textFiles: boolean | undefined },
    generator: object,
    optimizer: NativeBatchOptimizer | undefined,
    processor: NativeMemoryProcessor | undefined,
    monitor: NativeMonitor | undefined,
  ) => NativeIndex;
  indexExtensions(): string[];
  digestBytes(bytes: Uint8Array, out: Uint8Array): void;
  digestManyBytes(bytes: Uint8Array): Promise<Uint8Array>;
  NativeCache: new (options: object, onEvent: (json: string) => void) => NativeCache;
  NativeResults: new (options: object, onEvent: (json: string) => void) => NativeResults;
  NativeGenerator: new (
    options: object,
    optimizer: NativeBatchOptimizer | undefined,
    processor: NativeMemoryProcessor | undefined,
    monitor: NativeMonitor | undefined,
    onEvent: (json: string) => void,
  ) => NativeGenerator;
  NativeCollection: new (path: string | undefined) => NativeCollection;
  NativeMatrixWork: new () => NativeMatrixWork;
  NativeSplitter: new () => NativeSplitter;
  splitLanguages(): string[];
  NativeModelStore: new (options: object) => NativeModelStore;
  readFiles(paths: string[], root: string | undefined, maxBytes: number, room: Buffer): Promise<NativeFiles>;
  writeFiles(
    paths: string[], data: Buffer, lengths: Float64Array, root: string | undefined, atomic: boolean, fsync: boolean, createDirectories: boolean,
  ): Promise<NativeFileFailure[]>;
  readRequest(body: Buffer, mostTexts: number): NativeRequest | NativeRefusal;
  readLongRequest(body: Buffer, mostTexts: number): Promise<NativeRequest | NativeRefusal>;
  readRerankRequest(body: Buffer, mostTexts: number): Promise<NativeRerank | NativeRefusal>;
  readInputsRequest(body: Buffer, mostTexts: number): Promise<NativeInputs | NativeRefusal>;
  NativeResponse: { with(request: NativeRequest, values: Float32Array, dimensions: number, truncated: Uint8Array, fromCache: Uint8Array, tokens: number, normalized: boolean): NativeResponse };
  maxSimNow(query: Float32Array, documents: Float32Array, ends: Float64Array, dimensions: number, queryDimensions: number): Float32Array;
  maxSim(query: Float32Array, documents: Float32Array, ends: Float64Array, dimensions: number, queryDimensions: number): Promise<Float32Array>;
  coherenceMetrics(values: Float64Array, shapes: Uint32Array, options: object): Float64Array;
  checkThreads(): void;
  setDirectories(addon: string, builtinModel: string, openvino: string | undefined, webgpu: string | undefined): void;
  closeRuntime(code: number): void;
  prepareText(nodeId: string, signature: string, summary: string, sourceSnippet: string, maxTokens: number): string;
}
