//! The handles behind `CodeIndex`. Reports and matches cross as JSON: there are few of them.

use std::path::PathBuf;
use std::sync::Arc;

use napi::bindgen_prelude::{FnArgs, PromiseRaw};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Result, Status};
use napi_derive::napi;
use serde_json::{Map, Value, json};

use super::batch::NativeBatchOptimizer;
use super::memory::NativeMemoryProcessor;
use super::metrics::NativeMonitor;
use super::to_js;
use crate::cancel::Cancel;
use crate::error::Error;
use crate::generator::Generator;
use crate::index::{self, CodeIndex, Match, Progress, Report, UpdateOptions};
use crate::model;

/// Called with a report. Weak: a callback never keeps the process alive.
type OnReport = ThreadsafeFunction<FnArgs<(Value,)>, (), FnArgs<(Value,)>, Status, false, true>;

/// See `CodeIndex`.
#[napi]
pub struct NativeIndex {
    inner: Arc<CodeIndex>,
    generator: Arc<Generator>,
}

#[napi]
impl NativeIndex {
    /// Parses the options of the index' own generator, as that of `NativeGenerator`; reads nothing.
    #[napi(constructor, catch_unwind)]
    pub fn new(
        env: Env,
        root: String,
        path: Option<String>,
        generator: Map<String, Value>,
        optimizer: Option<&NativeBatchOptimizer>,
        processor: Option<&NativeMemoryProcessor>,
        monitor: Option<&NativeMonitor>,
    ) -> Result<Self> {
        let generator = Arc::new(super::generator::generator(&generator, optimizer, processor, monitor)?);
        // A worker that ends takes its generators with it.
        env.add_env_cleanup_hook(Arc::downgrade(&generator), |generator| {
            drop(generator.upgrade().and_then(|generator| generator.abandon()));
            model::await_load();
        })?;
        let inner = CodeIndex::new(PathBuf::from(root), path.map(PathBuf::from), Arc::clone(&generator));
        Ok(Self { inner: Arc::new(inner), generator })
    }

    /// A run that was not started yet.
    #[napi(catch_unwind)]
    pub fn update(&self) -> NativeUpdate {
        NativeUpdate { index: Arc::clone(&self.inner), cancel: Cancel::default() }
    }

    /// See `CodeIndex::search`.
    #[napi(catch_unwind)]
    pub fn search<'env>(&self, env: &'env Env, words: String, limit: u32) -> Result<PromiseRaw<'env, Vec<Value>>> {
        let index = Arc::clone(&self.inner);
        env.spawn_future(async move {
            let matches = index.search(words, limit as usize).await.map_err(to_js)?;
            Ok(matches.iter().map(show_match).collect())
        })
    }

    /// Lets go of file and model.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let (index, generator) = (Arc::clone(&self.inner), Arc::clone(&self.generator));
        env.spawn_future(async move {
            generator.close().await;
            index.close();
            Ok(())
        })
    }
}

/// One run of `CodeIndex::update`, stopped at any time.
#[napi]
pub struct NativeUpdate {
    index: Arc<CodeIndex>,
    cancel: Cancel,
}

#[napi]
impl NativeUpdate {
    /// Stops the run: its promise is rejected with `ABORTED`.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.cancel.cancel(Error::Aborted);
    }

    /// Starts the run.
    #[napi(catch_unwind)]
    pub fn run<'env>(
        &self,
        env: &'env Env,
        rebuild: bool,
        on_report: Option<OnReport>,
    ) -> Result<PromiseRaw<'env, Value>> {
        let progress = on_report.map(|callback| -> Progress {
            Box::new(move |report| {
                callback.call((show_report(report),).into(), ThreadsafeFunctionCallMode::NonBlocking);
            })
        });
        let options = UpdateOptions { rebuild, cancel: self.cancel.clone(), progress };
        let index = Arc::clone(&self.index);
        env.spawn_future(async move { index.update(options).await.map(|report| show_report(&report)).map_err(to_js) })
    }
}

/// File name extensions that an index reads.
#[napi(catch_unwind)]
pub fn index_extensions() -> Vec<&'static str> {
    index::extensions().collect()
}

fn show_report(report: &Report) -> Value {
    let examples: Vec<Value> =
        report.examples.iter().map(|(file, reason)| json!({ "file": file, "reason": reason })).collect();
    json!({
        "files": report.files,
        "changed": report.changed,
        "done": report.done,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "annotations": report.annotations,
        "embedded": report.embedded,
        "reused": report.reused,
        "encodings": report.encodings,
        "skipped": report.skipped,
        "examples": examples,
        "seconds": report.seconds,
    })
}

fn show_match(found: &Match) -> Value {
    let entry = &found.entry;
    json!({
        "file": found.file,
        "line": entry.line,
        "endLine": entry.end_line,
        "kind": entry.kind,
        "name": entry.name,
        "signature": entry.signature,
        "summary": entry.summary,
        "score": found.score,
        "similarity": found.similarity,
    })
}
