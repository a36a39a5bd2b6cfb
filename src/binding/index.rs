//! The handles behind `CodeIndex`. Reports and matches cross as JSON: there are few of them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
use crate::host::threads::blocking;
use crate::index::{
    self, CodeIndex, DuplicateOptions, Entry, Filter, Match, Progress, Report, TreeWatch, UpdateOptions,
};
use crate::model;

/// Called with a report. Weak: a callback never keeps the process alive.
type OnReport = ThreadsafeFunction<FnArgs<(Value,)>, (), FnArgs<(Value,)>, Status, false, true>;

/// Called when something may have changed. Weak, as above.
type OnChange = ThreadsafeFunction<(), (), (), Status, false, true>;

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
        options: NativeIndexOptions,
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
        let NativeIndexOptions { path, text_files } = options;
        let inner = CodeIndex::new(PathBuf::from(root), path.map(PathBuf::from), text_files, Arc::clone(&generator));
        Ok(Self { inner: Arc::new(inner), generator })
    }

    /// A run that was not started yet.
    #[napi(catch_unwind)]
    pub fn update(&self) -> NativeUpdate {
        NativeUpdate { index: Arc::clone(&self.inner), cancel: Cancel::default() }
    }

    /// See `CodeIndex::search`.
    #[napi(catch_unwind)]
    pub fn search<'env>(
        &self,
        env: &'env Env,
        words: String,
        limit: u32,
        filter: NativeFilter,
    ) -> Result<PromiseRaw<'env, Vec<Value>>> {
        let index = Arc::clone(&self.inner);
        env.spawn_future(async move {
            let matches = index.search(words, limit as usize, filter.into()).await.map_err(to_js)?;
            Ok(matches.iter().map(show_match).collect())
        })
    }

    /// See `CodeIndex::similar`.
    #[napi(catch_unwind)]
    pub fn similar<'env>(
        &self,
        env: &'env Env,
        file: String,
        line: u32,
        limit: u32,
        filter: NativeFilter,
    ) -> Result<PromiseRaw<'env, Vec<Value>>> {
        let index = Arc::clone(&self.inner);
        env.spawn_future(async move {
            let similar = index.similar(file, line as usize, limit as usize, filter.into());
            Ok(similar.await.map_err(to_js)?.iter().map(show_match).collect())
        })
    }

    /// A search for duplicates that was not started yet.
    #[napi(catch_unwind)]
    pub fn duplicates(&self) -> NativeDuplicates {
        NativeDuplicates { index: Arc::clone(&self.inner), cancel: Cancel::default() }
    }

    /// See `CodeIndex::symbols`.
    #[napi(catch_unwind)]
    pub fn symbols<'env>(&self, env: &'env Env, name: String, limit: u32) -> Result<PromiseRaw<'env, Vec<Value>>> {
        let index = Arc::clone(&self.inner);
        env.spawn_future(async move {
            let found = blocking(move || index.symbols(&name, limit as usize)).await.flatten().map_err(to_js)?;
            let shown =
                found.iter().map(|symbol| show_symbol(&symbol.file, symbol.language, &symbol.entry, symbol.stale));
            Ok(shown.collect())
        })
    }

    /// See `CodeIndex::files`.
    #[napi(catch_unwind)]
    pub fn files<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, Vec<String>>> {
        let index = Arc::clone(&self.inner);
        env.spawn_future(async move { blocking(move || index.files()).await.flatten().map_err(to_js) })
    }

    /// See `CodeIndex::status`.
    #[napi(catch_unwind)]
    pub fn status<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, Value>> {
        let index = Arc::clone(&self.inner);
        env.spawn_future(async move {
            let status = blocking(move || index.status()).await.flatten().map_err(to_js)?;
            Ok(json!({
                "path": status.path.display().to_string(),
                "sizeBytes": status.bytes,
                "model": status.model,
                "dimensions": status.dimensions,
                "files": status.languages.values().sum::<usize>(),
                "annotations": status.annotations,
                "languages": status.languages,
                "textFiles": status.texts,
            }))
        })
    }

    /// Watches the tree: `on_change` is called whenever something may have changed, often.
    #[napi(catch_unwind)]
    pub fn watch<'env>(&self, env: &'env Env, on_change: OnChange) -> Result<PromiseRaw<'env, NativeWatch>> {
        let index = Arc::clone(&self.inner);
        env.spawn_future(async move {
            let changed = move || {
                on_change.call((), ThreadsafeFunctionCallMode::NonBlocking);
            };
            let watch = blocking(move || index.watch(changed)).await.flatten().map_err(to_js)?;
            Ok(NativeWatch { watch: Arc::new(Mutex::new(Some(watch))) })
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

/// Options of an index beside those of its generator.
#[napi(object)]
pub struct NativeIndexOptions {
    /// Its file.
    pub path: Option<String>,
    /// Whether texts in no known language are indexed, too.
    pub text_files: Option<bool>,
}

/// See `Filter`.
#[napi(object)]
pub struct NativeFilter {
    /// Least score.
    pub min_score: f64,
    /// Patterns of paths.
    pub paths: Vec<String>,
    /// Languages.
    pub languages: Vec<String>,
    /// Kinds.
    pub kinds: Vec<String>,
}

impl From<NativeFilter> for Filter {
    fn from(NativeFilter { min_score, paths, languages, kinds }: NativeFilter) -> Self {
        Self { min_score: min_score as f32, paths, languages, kinds }
    }
}

/// One run of `CodeIndex::duplicates`, stopped at any time.
#[napi]
pub struct NativeDuplicates {
    index: Arc<CodeIndex>,
    cancel: Cancel,
}

#[napi]
impl NativeDuplicates {
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
        threshold: f64,
        min_lines: u32,
        limit: u32,
        filter: NativeFilter,
    ) -> Result<PromiseRaw<'env, Vec<Value>>> {
        let (index, cancel) = (Arc::clone(&self.index), self.cancel.clone());
        let (threshold, min_lines, limit) = (threshold as f32, min_lines as usize, limit as usize);
        let options = DuplicateOptions { threshold, min_lines, limit, filter: filter.into() };
        env.spawn_future(async move {
            let groups = index.duplicates(options, cancel).await.map_err(to_js)?;
            let shown = groups.iter().map(|group| {
                let declarations: Vec<Value> = group.declarations.iter().map(show_match).collect();
                json!({ "lines": group.lines, "declarations": declarations })
            });
            Ok(shown.collect())
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
        wait_ms: f64,
        on_report: Option<OnReport>,
    ) -> Result<PromiseRaw<'env, Value>> {
        let progress = on_report.map(|callback| -> Progress {
            Box::new(move |report| {
                callback.call((show_report(report),).into(), ThreadsafeFunctionCallMode::NonBlocking);
            })
        });
        let wait = Duration::from_millis(wait_ms as u64);
        let options = UpdateOptions { rebuild, wait, cancel: self.cancel.clone(), progress };
        let index = Arc::clone(&self.index);
        env.spawn_future(async move { index.update(options).await.map(|report| show_report(&report)).map_err(to_js) })
    }
}

/// A watched tree.
#[napi]
pub struct NativeWatch {
    /// Nothing once it is closed.
    watch: Arc<Mutex<Option<TreeWatch>>>,
}

#[napi]
impl NativeWatch {
    /// Watches directories that are new; whether there were any.
    #[napi(catch_unwind)]
    pub fn follow<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, bool>> {
        let watch = Arc::clone(&self.watch);
        env.spawn_future(async move {
            let follow = move || match &mut *watch.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(watch) => watch.follow(),
                None => Ok(false),
            };
            blocking(follow).await.flatten().map_err(to_js)
        })
    }

    /// Stops watching.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let watch = Arc::clone(&self.watch);
        env.spawn_future(async move {
            let close = move || drop(watch.lock().unwrap_or_else(PoisonError::into_inner).take());
            blocking(close).await.map_err(to_js)
        })
    }
}

/// File name extensions that an index reads.
#[napi(catch_unwind)]
pub fn index_extensions() -> Vec<&'static str> {
    index::extensions().map(|(extension, _)| extension).collect()
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
    let mut shown = show_symbol(&found.file, found.language, &found.entry, found.stale);
    shown["score"] = found.score.into();
    shown["similarity"] = found.similarity.into();
    shown
}

fn show_symbol(file: &str, language: &str, entry: &Entry, stale: bool) -> Value {
    let mut shown = json!({
        "file": file,
        "line": entry.line,
        "endLine": entry.end_line,
        "kind": entry.kind,
        "language": language,
        "name": entry.name,
        "signature": entry.signature,
        "summary": entry.summary,
    });
    if stale {
        shown["stale"] = true.into();
    }
    shown
}
