//! The handles behind `OptimizedEmbeddingGenerator`: the generator, a call on its way, and its answer.
//!
//! No `async fn`: their futures would borrow from objects that go away with their worker. Each future owns what it needs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::bindgen_prelude::{
    Float32Array, Float64Array, FnArgs, Null, Object, PromiseRaw, Uint8Array, Uint32Array, Utf16String,
};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Result, Status};
use napi_derive::napi;
use serde_json::{Map, Value, json};

use super::batch::NativeBatchOptimizer;
use super::cache::NativeCache;
use super::chunks::{NativeChunks, NativeSplit, documents};
use super::memory::NativeMemoryProcessor;
use super::metrics::NativeMonitor;
use super::{options, to_js, to_wire};
use crate::cancel::Cancel;
use crate::embedding::InputType;
use crate::error::Error;
use crate::generator::{Batching, Embedded, Estimate, Generator, Inputs, Load, Pairs, Progress, Session};
use crate::host::threads::blocking;
use crate::images::ImageSource;
use crate::model::{self, Provider};
use crate::text::Annotation;

/// Vectors above this size are handed over without a copy. Below it a copy is cheaper than a finaliser.
const SHARE_ABOVE: usize = 1 << 16;

/// Called with (processed, total). Weak: a callback never keeps the process alive.
type OnProgress = ThreadsafeFunction<FnArgs<(u32, u32)>, (), FnArgs<(u32, u32)>, Status, false, true>;

/// Called with an event, as JSON. Weak, too.
type OnEvent = ThreadsafeFunction<FnArgs<(String,)>, (), FnArgs<(String,)>, Status, false, true>;

/// A generator with options of its own, or with what stands in place of some of them.
pub(super) fn generator(
    options: &Map<String, Value>,
    optimizer: Option<&NativeBatchOptimizer>,
    processor: Option<&NativeMemoryProcessor>,
    monitor: Option<&NativeMonitor>,
) -> Result<Generator> {
    let mut options = options::generator(options).map_err(to_js)?;
    if let Some(optimizer) = optimizer {
        options.batching = Batching::Shared(optimizer.shared());
    }
    if let Some(processor) = processor {
        options.memory = Some(processor.options());
    }
    options.monitor = monitor.map(NativeMonitor::shared);
    Generator::new(options).map_err(to_js)
}

/// See `Generator`.
#[napi]
pub struct NativeGenerator {
    inner: Arc<Generator>,
}

#[napi]
impl NativeGenerator {
    /// Parses the options; loads nothing. `optimizer` and `processor` stand in place of such options, `monitor` is told
    /// of stages, and `on_event` of changes of the strategy.
    #[napi(constructor, catch_unwind)]
    pub fn new(
        env: Env,
        options: Map<String, Value>,
        optimizer: Option<&NativeBatchOptimizer>,
        processor: Option<&NativeMemoryProcessor>,
        monitor: Option<&NativeMonitor>,
        on_event: OnEvent,
    ) -> Result<Self> {
        let inner = Arc::new(generator(&options, optimizer, processor, monitor)?);
        inner.on_strategy_change(Box::new(move |change| {
            let event = json!({
                "type": "strategy-changed",
                "before": change.before,
                "after": change.after,
                "usagePercent": change.usage,
            });
            on_event.call((event.to_string(),).into(), ThreadsafeFunctionCallMode::NonBlocking);
        }));
        // A worker that ends takes its generators with it.
        env.add_env_cleanup_hook(Arc::downgrade(&inner), |generator| {
            drop(generator.upgrade().and_then(|generator| generator.abandon()));
            model::await_load();
        })?;
        Ok(Self { inner })
    }

    /// See `Generator::attach`.
    #[napi(catch_unwind)]
    pub fn attach(&self, cache: &NativeCache) {
        self.inner.attach(cache.of_generators());
    }

    /// A load that has its place in the order of calls, and has not begun yet.
    #[napi(catch_unwind)]
    pub fn load(&self, path: Option<String>) -> NativeLoad {
        let cancel = Cancel::default();
        let queued = Mutex::new(Some(self.inner.queue(path.as_deref(), cancel.clone())));
        NativeLoad { generator: Arc::clone(&self.inner), cancel, queued }
    }

    /// See `Generator::is_ready`.
    #[napi(catch_unwind)]
    pub fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }

    /// What the loaded model is, as a plain object.
    #[napi(catch_unwind)]
    pub fn model_info(&self, env: Env) -> Result<Object<'_>> {
        let info = self.inner.model_info().map_err(to_js)?;
        let mut object = Object::new(&env)?;
        object.set("modelId", info.model_id)?;
        object.set("modality", info.modality.as_str())?;
        object.set("architecture", info.architecture.map(|architecture| architecture.as_str()))?;
        object.set("task", info.task.as_str())?;
        object.set("labels", info.labels)?;
        object.set("sigmoid", info.sigmoid)?;
        object.set("modelPath", info.model_path)?;
        object.set("repository", info.repository)?;
        object.set("revision", info.revision)?;
        object.set("dimensions", info.dimensions as u32)?;
        object.set("maxLength", info.max_length.unwrap_or_default() as u32)?;
        object.set("maxLengthFrom", info.max_length_from)?;
        let poolings: Vec<&str> = info.pooling.iter().map(|pooling| pooling.as_str()).collect();
        match poolings[..] {
            [] => object.set("pooling", Null)?,
            [pooling] => object.set("pooling", pooling)?,
            _ => object.set("pooling", poolings)?,
        }
        object.set("normalize", info.normalize)?;
        object.set("output", info.output)?;
        object.set("dtype", info.dtype)?;
        object.set("batchInvariant", info.batch_invariant)?;
        object.set("intraOpThreads", info.intra_op_threads as u32)?;
        let engine_reason = self.inner.engine_reason().map_err(to_js)?;
        let names: Vec<&str> = info.providers.iter().map(|info| info.provider.as_str()).collect();
        object.set("executionProviders", names)?;
        let several = info.providers.len() > 1;
        let providers = info.providers.iter().map(|info| {
            let rest = several && info.provider == Provider::Cpu;
            json!({
                "name": info.provider.as_str(),
                "device": info.device,
                "library": info.library.as_ref().map(|library| library.display().to_string()),
                "version": info.version,
                "nodes": info.nodes,
                "reason": if rest { "what the others cannot compute is left to it" } else { engine_reason.as_deref().unwrap_or(TABLE) },
            })
        });
        object.set("providers", Value::Array(providers.collect()))?;
        object.set("engine", info.compute.map(|compute| compute.engine.as_str()))?;
        object.set("precision", info.compute.map(|compute| compute.precision.as_str()))?;
        object.set("engineReason", engine_reason)?;
        object.set("runtime", info.runtime)?;
        object.set("fingerprint", info.fingerprint.to_string())?;
        let remote = info.remote.map(|remote| {
            json!({
                "kind": remote.kind.as_str(),
                "url": remote.url,
                "model": remote.model,
                "digest": remote.digest,
                "maxBatchItems": remote.max_batch_items,
                "concurrency": remote.concurrency,
            })
        });
        object.set("remote", remote)?;
        Ok(object)
    }

    /// What was done, what was learned about batches, and how memory stands: as JSON.
    #[napi(catch_unwind)]
    pub fn metrics(&self) -> String {
        let (totals, (memory, strategy)) = (self.inner.totals(), self.inner.memory());
        let (learned, analytics, outlook) = (self.inner.learned(), self.inner.analytics(), self.inner.outlook());
        let [throughput_trend, memory_trend, cpu_trend] = analytics.trends;
        let learned: Vec<Value> = learned
            .iter()
            .map(|class| json!({ "maxTokens": class.longest, "batchSize": class.rows, "samples": class.samples }))
            .collect();
        json!({
            "stages": self.inner.stages(),
            "calls": totals.calls,
            "failedCalls": totals.failed_calls,
            "callMs": totals.call_ms,
            "busyMs": totals.busy_ms,
            "lostTexts": totals.lost_texts,
            "texts": totals.texts,
            "hits": totals.hits,
            "failedTexts": totals.failed_texts,
            "batches": totals.batches,
            "failedBatches": totals.failed_batches,
            "rows": totals.rows,
            "tokens": totals.tokens,
            "paddedTokens": totals.padded_tokens,
            "inferenceMs": totals.inference_ms,
            "waitingMs": totals.waiting_ms,
            "learned": learned,
            "analytics": {
                "optimizationScore": analytics.score,
                "resourceUtilization": analytics.utilization,
                "throughputTrend": throughput_trend,
                "memoryTrend": memory_trend,
                "cpuTrend": cpu_trend,
            },
            "outlook": {
                "currentBatchSize": outlook.current,
                "recommendedBatchSize": outlook.best,
                "confidence": outlook.confidence,
            },
            "memory": {
                "available": memory.available,
                "recommendations": self.inner.memory_recommendations(),
                "ceiling": memory.ceiling,
                "process": memory.process,
                "peak": memory.peak,
                "granted": memory.granted,
                "usage": memory.usage,
                "waits": memory.waits,
                "waitedMs": memory.waited_ms,
                "reliefs": memory.reliefs,
                "changes": memory.changes,
                "strategy": strategy,
            },
        })
        .to_string()
    }

    /// What a logger is told after a call: sizes of batches that have changed, and how often memory was given back. As JSON.
    #[napi(catch_unwind)]
    pub fn news(&self) -> String {
        let changes = self.inner.size_changes();
        let sizes: Vec<Value> = changes
            .iter()
            .map(|change| {
                json!({ "maxTokens": change.longest, "before": change.before, "after": change.after, "reason": change.reason })
            })
            .collect();
        json!({ "sizes": sizes, "cleanups": self.inner.memory().0.reliefs }).to_string()
    }

    /// See `Generator::forecast`. As JSON.
    #[napi(catch_unwind)]
    pub fn predict(&self, items: f64, tokens: f64) -> Result<String> {
        let of =
            |estimate: Estimate| json!({ "expected": estimate.expected, "low": estimate.low, "high": estimate.high });
        // Whole numbers within 2^53, as the caller has checked.
        let forecast = self.inner.forecast(items as usize, tokens as usize).map_err(to_js)?;
        let (memory, rows) = (of(forecast.memory), of(forecast.rows));
        Ok(json!({ "time": forecast.time_ms.map(of), "memory": memory, "batchSize": rows }).to_string())
    }

    /// See `Generator::optimize`.
    #[napi(catch_unwind)]
    pub fn optimize<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let generator = Arc::clone(&self.inner);
        env.spawn_future(async move { blocking(move || generator.optimize()).await.map_err(to_js) })
    }

    /// See `Generator::close`.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let close = self.inner.close();
        env.spawn_future(async move {
            close.await;
            Ok(())
        })
    }

    /// See `Generator::session`.
    #[napi(catch_unwind)]
    pub fn session(&self) -> NativeSession {
        NativeSession { inner: Mutex::new(Some(Arc::new(self.inner.session()))) }
    }

    /// A call without inputs yet.
    #[napi(catch_unwind)]
    pub fn call(&self) -> NativeCall {
        NativeCall::on(Some(Arc::new(self.inner.session())))
    }

    /// See `Generator::tokens`.
    #[napi(catch_unwind)]
    pub fn tokens(&self, ids: &[u32]) -> Result<Vec<String>> {
        self.inner.tokens(ids).map_err(to_js)
    }
}

/// Called with (file, loaded, total, percent of all files) of a file that is fetched. Weak, too.
pub(super) type OnFetch =
    ThreadsafeFunction<FnArgs<(String, f64, f64, f64)>, (), FnArgs<(String, f64, f64, f64)>, Status, false, true>;

/// Hands reports over to JS.
pub(super) fn reporting(callback: OnFetch) -> model::Progress {
    Box::new(move |fetched| {
        let report = (fetched.file.to_owned(), fetched.loaded as f64, fetched.total as f64, fetched.progress_total);
        callback.call(report.into(), ThreadsafeFunctionCallMode::NonBlocking);
    })
}

/// One load of a model, stopped at any time.
#[napi]
pub struct NativeLoad {
    generator: Arc<Generator>,
    cancel: Cancel,
    queued: Mutex<Option<Load>>,
}

#[napi]
impl NativeLoad {
    /// Stops the load and gives up its place; if it runs, its promise is rejected with `ABORTED`.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.cancel.cancel(Error::Aborted);
        drop(taken(&self.queued));
    }

    /// See `Generator::load`. The second time, it does nothing.
    #[napi(catch_unwind)]
    pub fn run<'env>(&self, env: &'env Env, on_fetch: Option<OnFetch>) -> Result<PromiseRaw<'env, ()>> {
        let (generator, queued) = (Arc::clone(&self.generator), taken(&self.queued));
        let progress = on_fetch.map(reporting);
        env.spawn_future(async move {
            let Some(load) = queued else { return Err(to_js(Error::Aborted)) };
            generator.load(load, progress).await.map_err(to_js)
        })
    }
}

/// Makes calls that all have the same model.
#[napi]
pub struct NativeSession {
    inner: Mutex<Option<Arc<Session>>>,
}

#[napi]
impl NativeSession {
    /// A call without inputs yet.
    #[napi(catch_unwind)]
    pub fn call(&self) -> NativeCall {
        NativeCall::on(self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Lets go of the model: the garbage collector does not see how much memory it holds. No call is made any more.
    #[napi(catch_unwind)]
    pub fn release(&self) {
        drop(taken(&self.inner));
    }
}

fn taken<T>(of: &Mutex<Option<T>>) -> Option<T> {
    of.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// See `Tokenized`.
#[napi(object, object_from_js = false)]
pub struct NativeTokens {
    /// Ids.
    pub ids: Uint32Array,
    /// Spellings.
    pub tokens: Vec<String>,
    /// Beginning and end of each, in turn.
    pub offsets: Uint32Array,
}

fn role(query: bool) -> InputType {
    if query { InputType::Query } else { InputType::Document }
}

/// Some strings of a call, still in UTF-16: converting them is left to another thread.
struct Pack {
    joined: Utf16String,
    lengths: Vec<u32>,
}

/// One call: fed, then run, stopped at any time.
#[napi]
pub struct NativeCall {
    session: Mutex<Option<Arc<Session>>>,
    cancel: Cancel,
    fed: Mutex<Fed>,
}

#[derive(Default)]
struct Fed {
    packs: Vec<Pack>,
    images: Vec<ImageSource>,
    refused: Vec<usize>,
}

impl NativeCall {
    fn on(session: Option<Arc<Session>>) -> Self {
        Self { session: Mutex::new(session), cancel: Cancel::default(), fed: Mutex::default() }
    }

    fn fed(&self) -> MutexGuard<'_, Fed> {
        self.fed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[napi]
impl NativeCall {
    /// Adds strings, joined to one; `lengths` are theirs in UTF-16 units.
    #[napi(catch_unwind)]
    pub fn push(&self, joined: Utf16String, lengths: Uint32Array) {
        let pack = Pack { joined, lengths: lengths.to_vec() };
        self.fed().packs.push(pack);
    }

    /// Adds an image by what its file holds, which is copied.
    #[napi(catch_unwind)]
    pub fn push_bytes(&self, bytes: &[u8]) {
        self.fed().images.push(ImageSource::Bytes(bytes.into()));
    }

    /// Adds an image by an absolute path.
    #[napi(catch_unwind)]
    pub fn push_path(&self, path: String) {
        self.fed().images.push(ImageSource::File(path.into()));
    }

    /// Some of the inputs that are pushed are not what they should be, and are answered with an error.
    #[napi(catch_unwind)]
    pub fn refuse(&self, indices: Uint32Array) {
        self.fed().refused.extend(indices.iter().map(|&index| index as usize));
    }

    /// Stops the call, if it runs (its promise is rejected with `ABORTED`), and lets go of what was pushed.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.cancel.cancel(Error::Aborted);
        drop((taken(&self.session), std::mem::take(&mut *self.fed())));
    }

    /// Embeds what was pushed: texts, or annotations as four strings each. `first`: what errors count from.
    #[napi(catch_unwind)]
    pub fn run<'env>(
        &self,
        env: &'env Env,
        annotated: bool,
        first: u32,
        options: Map<String, Value>,
        on_progress: Option<OnProgress>,
    ) -> Result<PromiseRaw<'env, NativeAnswer>> {
        let packs = std::mem::take(&mut self.fed().packs);
        self.begin(env, move || unpack(packs, annotated), first, &options, on_progress)
    }

    /// Scores pairs of the strings that were pushed; `places`: which of them the query and the document of each pair are, in turn.
    /// Without it, the first string is the query of each of the others.
    #[napi(catch_unwind)]
    pub fn run_pairs<'env>(
        &self,
        env: &'env Env,
        places: Option<Uint32Array>,
        options: Map<String, Value>,
        on_progress: Option<OnProgress>,
    ) -> Result<PromiseRaw<'env, NativeAnswer>> {
        let packs = std::mem::take(&mut self.fed().packs);
        let places = places.map(|places| places.to_vec());
        self.begin(env, move || Inputs::Pairs(pairs(&packs, places)), 0, &options, on_progress)
    }

    /// Embeds the images that were pushed.
    #[napi(catch_unwind)]
    pub fn run_images<'env>(
        &self,
        env: &'env Env,
        options: Map<String, Value>,
        on_progress: Option<OnProgress>,
    ) -> Result<PromiseRaw<'env, NativeAnswer>> {
        let images = std::mem::take(&mut self.fed().images);
        self.begin(env, move || Inputs::Images(images), 0, &options, on_progress)
    }

    /// How many tokens each of the texts has that were pushed, before it is cut.
    #[napi(catch_unwind)]
    pub fn count_tokens<'env>(&self, env: &'env Env, query: bool) -> Result<PromiseRaw<'env, Uint32Array>> {
        let (session, cancel, packs) = self.reading()?;
        env.spawn_future(async move {
            let counts = session.count_tokens(strings(&packs).collect(), role(query), cancel).await.map_err(to_js)?;
            Ok(counts.into())
        })
    }

    /// The tokens of the text that was pushed.
    #[napi(catch_unwind)]
    pub fn tokenize<'env>(&self, env: &'env Env, query: bool) -> Result<PromiseRaw<'env, NativeTokens>> {
        let (session, cancel, packs) = self.reading()?;
        env.spawn_future(async move {
            let text = strings(&packs).last().unwrap_or_default();
            let found = session.tokenize(text, role(query), cancel).await.map_err(to_js)?;
            let offsets: Vec<u32> =
                found.offsets.iter().flat_map(|offset| [offset.start as u32, offset.end as u32]).collect();
            Ok(NativeTokens { ids: found.ids.into(), tokens: found.tokens, offsets: offsets.into() })
        })
    }

    /// The chunks of the documents that were pushed, as texts and paths in turn: see `Session::split`.
    #[napi(catch_unwind)]
    pub fn split<'env>(&self, env: &'env Env, options: NativeSplit) -> Result<PromiseRaw<'env, Vec<NativeChunks>>> {
        let (session, cancel, packs) = self.reading()?;
        env.spawn_future(async move {
            let (most, options) = options.parsed();
            let found =
                session.split(documents(strings(&packs).collect()), most, options, cancel).await.map_err(to_js)?;
            Ok(found.into_iter().map(NativeChunks::from).collect())
        })
    }

    /// What a call needs that makes no vectors.
    fn reading(&self) -> Result<(Arc<Session>, Cancel, Vec<Pack>)> {
        let session = taken(&self.session).ok_or_else(|| to_js(Error::Aborted))?;
        Ok((session, self.cancel.clone(), std::mem::take(&mut self.fed().packs)))
    }

    fn begin<'env>(
        &self,
        env: &'env Env,
        inputs: impl FnOnce() -> Inputs + Send + 'static,
        first: u32,
        options: &Map<String, Value>,
        on_progress: Option<OnProgress>,
    ) -> Result<PromiseRaw<'env, NativeAnswer>> {
        let mut options = options::call(options).map_err(to_js)?;
        let Fed { refused, .. } = std::mem::take(&mut *self.fed());
        options.cancel = self.cancel.clone();
        options.first_index = first as usize;
        options.refused = refused;
        options.progress = on_progress.map(|callback| -> Progress {
            Box::new(move |processed, total| {
                callback.call((processed as u32, total as u32).into(), ThreadsafeFunctionCallMode::NonBlocking);
            })
        });
        let session = taken(&self.session);
        env.spawn_future(async move {
            let Some(session) = session else { return Err(to_js(Error::Closed)) };
            let inputs = blocking(inputs).await.map_err(to_js)?;
            let embedded = session.embed(inputs, options).await.map_err(to_js)?;
            Ok(NativeAnswer { embedded })
        })
    }
}

/// Why a model without a graph has no engine.
const TABLE: &str = "a table is looked up, which takes no engine";

/// Text of ASCII alone: many times faster than reading units one by one.
fn narrowed(text: &[u16]) -> Option<String> {
    let ascii = text.iter().fold(0, |all, unit| all | unit) < 0x80;
    ascii.then(|| String::from_utf8(text.iter().map(|&unit| unit as u8).collect()).ok()).flatten()
}

/// Lone surrogates become U+FFFD, as everywhere in the web platform.
fn strings(packs: &[Pack]) -> impl Iterator<Item = String> {
    packs.iter().flat_map(|pack| {
        let mut rest: &[u16] = &pack.joined;
        pack.lengths.iter().map(move |&length| {
            let (text, after) = rest.split_at((length as usize).min(rest.len()));
            rest = after;
            narrowed(text).unwrap_or_else(|| String::from_utf16_lossy(text))
        })
    })
}

fn unpack(packs: Vec<Pack>, annotated: bool) -> Inputs {
    let mut fields = strings(&packs);
    if !annotated {
        return Inputs::Texts(fields.collect());
    }
    let mut annotations = Vec::new();
    while let Some(node_id) = fields.next() {
        let mut field = || fields.next().unwrap_or_default();
        annotations.push(Annotation { node_id, signature: field(), summary: field(), source_snippet: field() });
    }
    Inputs::Annotations(annotations)
}

fn pairs(packs: &[Pack], places: Option<Vec<u32>>) -> Pairs {
    let strings = strings(packs).collect();
    match places {
        None => Pairs::ranked(strings),
        Some(places) => {
            let (places, _) = places.as_chunks();
            Pairs::new(strings, places.iter().map(|pair| pair.map(|place| place as usize)))
        }
    }
}

/// The answer to a call. Parts of it are taken when they are needed.
#[napi]
pub struct NativeAnswer {
    embedded: Embedded,
}

#[napi]
impl NativeAnswer {
    /// Length of each vector.
    #[napi(getter, catch_unwind)]
    pub fn dimensions(&self) -> u32 {
        self.embedded.matrix.dimensions as u32
    }

    /// The model that was used, as the user named it.
    #[napi(getter, catch_unwind)]
    pub fn model_id(&self) -> &str {
        &self.embedded.model_id
    }

    /// Its embedding space.
    #[napi(getter, catch_unwind)]
    pub fn fingerprint(&self) -> String {
        self.embedded.fingerprint.map(|fingerprint| fingerprint.to_string()).unwrap_or_default()
    }

    /// What the scores of a pair are called.
    #[napi(getter, catch_unwind)]
    pub fn labels(&self) -> Vec<&str> {
        self.embedded.labels.iter().map(String::as_str).collect()
    }

    /// Whether scores are meant to be numbers from 0 to 1.
    #[napi(getter, catch_unwind)]
    pub fn sigmoid(&self) -> bool {
        self.embedded.sigmoid
    }

    /// All values, row by row. The second call gives an empty array.
    #[napi(catch_unwind)]
    pub fn take_data(&mut self, env: Env) -> Result<Float32Array> {
        let Embedded { matrix, ragged, .. } = &mut self.embedded;
        let data = std::mem::take(if ragged.ends.is_empty() { &mut matrix.data } else { &mut ragged.data });
        if size_of_val(&data[..]) >= SHARE_ABOVE {
            return Ok(Float32Array::new(data));
        }
        napi::bindgen_prelude::Float32ArraySlice::copy_from(&env, &data)?.into_typed_array(&env)
    }

    /// Of sparse vectors, which dimension each value is of.
    #[napi(catch_unwind)]
    pub fn take_indices(&mut self) -> Uint32Array {
        std::mem::take(&mut self.embedded.ragged.indices).into()
    }

    /// Where the values of each input end, where rows are not all of one length.
    #[napi(catch_unwind)]
    pub fn ends(&self) -> Float64Array {
        self.embedded.ragged.ends.iter().map(|end| *end as f64).collect::<Vec<_>>().into()
    }

    /// Milliseconds spent on each input.
    #[napi(catch_unwind)]
    pub fn processing_times(&self) -> Float64Array {
        self.embedded.items.iter().map(|item| item.processing_ms).collect::<Vec<_>>().into()
    }

    /// Tokens of each input.
    #[napi(catch_unwind)]
    pub fn token_counts(&self) -> Uint32Array {
        self.embedded.items.iter().map(|item| item.token_count as u32).collect::<Vec<_>>().into()
    }

    /// 1 for each input that the model did not see whole.
    #[napi(catch_unwind)]
    pub fn truncated(&self) -> Uint8Array {
        self.embedded.items.iter().map(|item| u8::from(item.truncated)).collect::<Vec<_>>().into()
    }

    /// Share of each input's tokens that the model saw and knew.
    #[napi(catch_unwind)]
    pub fn confidences(&self) -> Float64Array {
        self.embedded.items.iter().map(|item| item.confidence).collect::<Vec<_>>().into()
    }

    /// 1 for each input that was not computed for this call.
    #[napi(catch_unwind, js_name = "fromCache")]
    pub fn cached(&self) -> Uint8Array {
        self.embedded.items.iter().map(|item| u8::from(item.from_cache)).collect::<Vec<_>>().into()
    }

    /// What was embedded for annotations `from..to`.
    #[napi(catch_unwind)]
    pub fn texts(&self, from: u32, to: u32) -> Vec<&str> {
        let texts = self.embedded.texts.get(from as usize..to as usize).unwrap_or_default();
        texts.iter().map(String::as_str).collect()
    }

    /// Lets go of everything: the garbage collector does not see how much memory an answer holds.
    #[napi(catch_unwind)]
    pub fn release(&mut self) {
        self.embedded = Embedded::default();
    }

    /// The next inputs from `from` that could not be embedded, at most `limit`: their indices, and an error for each.
    #[napi(catch_unwind)]
    pub fn failures(&self, from: u32, limit: u32) -> Vec<NativeFailure> {
        let items = self.embedded.items.iter().enumerate().skip(from as usize);
        let failed = items.filter_map(|(index, item)| item.error.as_ref().map(|error| (index, error)));
        let failed = failed.map(|(index, error)| NativeFailure { index: index as u32, error: to_wire(error) });
        failed.take(limit as usize).collect()
    }
}

/// One input that could not be embedded.
#[napi(object)]
pub struct NativeFailure {
    /// Its position in the call.
    pub index: u32,
    /// Its error, as errors cross to JS.
    pub error: String,
}
