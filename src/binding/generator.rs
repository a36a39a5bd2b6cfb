//! The handles behind `OptimizedEmbeddingGenerator`: the generator, a load, and a session.
//!
//! No `async fn`: their futures would borrow from objects that go away with their worker. Each future owns what it needs.

use std::sync::{Arc, Mutex, PoisonError};

use napi::bindgen_prelude::{FnArgs, Null, Object, PromiseRaw};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Result, Status};
use napi_derive::napi;
use serde_json::{Map, Value, json};

use super::batch::NativeBatchOptimizer;
use super::cache::NativeCache;
use super::call::{NativeCall, taken};
use super::memory::NativeMemoryProcessor;
use super::metrics::NativeMonitor;
use super::{options, to_js};
use crate::cancel::Cancel;
use crate::error::Error;
use crate::generator::{Batching, Estimate, Generator, Load, Session};
use crate::host::threads::blocking;
use crate::model::{self, Provider};

/// Why a model without a graph has no engine.
const TABLE: &str = "a table is looked up, which takes no engine";

/// Called with an event, as JSON. Weak: a callback never keeps the process alive.
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
