//! The handle behind `ModelStore`. Answers cross as JSON: they are few and small beside what they tell of.

use napi::bindgen_prelude::PromiseRaw;
use napi::{Env, Result};
use napi_derive::napi;
use serde_json::{Map, Value, json};

use super::generator::{OnFetch, reporting};
use super::{options, to_js};
use crate::cancel::Cancel;
use crate::error::{self, Error};
use crate::host::threads::blocking;
use crate::model::{HubOptions, ModelOptions, ModelStore};

/// See `ModelStore`.
#[napi]
pub struct NativeModelStore {
    inner: ModelStore,
}

#[napi]
impl NativeModelStore {
    /// Parses the options; reads nothing.
    #[napi(constructor, catch_unwind)]
    pub fn new(options: Map<String, Value>) -> Result<Self> {
        let cache_dir = options::model_store(&options).map_err(to_js)?;
        let hub = HubOptions { cache_dir, ..HubOptions::default() };
        Ok(Self { inner: ModelStore::new(&hub).map_err(to_js)? })
    }

    /// See `ModelStore::directory`.
    #[napi(catch_unwind)]
    pub fn directory(&self) -> String {
        self.inner.directory().display().to_string()
    }

    /// Work that has not begun yet.
    #[napi(catch_unwind)]
    pub fn work(&self) -> NativeModelWork {
        NativeModelWork { store: self.inner.clone(), cancel: Cancel::default() }
    }
}

/// Work on the store, stopped at any time.
#[napi]
pub struct NativeModelWork {
    store: ModelStore,
    cancel: Cancel,
}

#[napi]
impl NativeModelWork {
    /// Stops the work, if it runs; its promise is rejected with `ABORTED`.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.cancel.cancel(Error::Aborted);
    }

    /// See `ModelStore::list`.
    #[napi(catch_unwind)]
    pub fn list<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, String>> {
        self.run(env, |store, _| {
            let models = store.list()?.into_iter().map(|model| {
                json!({
                    "id": model.id,
                    "path": model.path.display().to_string(),
                    "revisions": model.revisions.into_iter().map(|(revision, names)| json!({ "revision": revision, "names": names })).collect::<Vec<_>>(),
                    "files": model.files,
                    "bytes": model.bytes,
                    "partialBytes": model.partial_bytes,
                    "modified": model.modified_ms,
                })
            });
            Ok(models.collect())
        })
    }

    /// See `ModelStore::add`.
    #[napi(catch_unwind)]
    pub fn add<'env>(
        &self,
        env: &'env Env,
        id: String,
        options: Map<String, Value>,
        on_fetch: Option<OnFetch>,
    ) -> Result<PromiseRaw<'env, String>> {
        let options: ModelOptions = options::added_model(&options).map_err(to_js)?;
        let progress = on_fetch.map(reporting);
        self.run(env, move |store, cancel| {
            let added = store.add(&id, &options, cancel, progress.as_ref())?;
            Ok(json!({
                "id": added.id,
                "repository": added.repository,
                "revision": added.revision,
                "path": added.path.display().to_string(),
                "bytes": added.bytes,
            }))
        })
    }

    /// See `ModelStore::verify`.
    #[napi(catch_unwind)]
    pub fn verify<'env>(
        &self,
        env: &'env Env,
        id: Option<String>,
        on_read: Option<OnFetch>,
    ) -> Result<PromiseRaw<'env, String>> {
        let progress = on_read.map(reporting);
        self.run(env, move |store, cancel| {
            let verified = store.verify(id.as_deref(), cancel, progress.as_ref())?.into_iter().map(|model| {
                let problems = model.problems.into_iter().map(|problem| {
                    json!({ "file": problem.file, "path": problem.path.display().to_string(), "what": problem.what })
                });
                json!({
                    "id": model.id,
                    "sound": model.sound,
                    "unchecked": model.unchecked,
                    "bytes": model.bytes,
                    "problems": problems.collect::<Vec<_>>(),
                })
            });
            Ok(verified.collect())
        })
    }

    /// See `ModelStore::remove`.
    #[napi(catch_unwind)]
    pub fn remove<'env>(&self, env: &'env Env, id: String) -> Result<PromiseRaw<'env, String>> {
        self.run(env, move |store, _| Ok(json!(store.remove(&id)?)))
    }
}

impl NativeModelWork {
    /// Runs `work` on a thread that may block. A name that is being looked up cannot be stopped, so nobody waits for it.
    fn run<'env>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&ModelStore, &Cancel) -> error::Result<Value> + Send + 'static,
    ) -> Result<PromiseRaw<'env, String>> {
        let (store, cancel) = (self.store.clone(), self.cancel.clone());
        env.spawn_future(async move {
            let stop = cancel.clone();
            let done = cancel.or_else(blocking(move || work(&store, &stop))).await.flatten().flatten();
            done.map(|value| value.to_string()).map_err(to_js)
        })
    }
}
